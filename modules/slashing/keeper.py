"""Signing infos, missed blocks, and the punishments of staking that go with them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import structlog

from chain import coins
from chain.codec.canonical import encode
from chain.codec.registry import message_class
from chain.codec.times import NANOS
from chain.context import Context, Vote
from chain.crypto import address as bech32
from chain.crypto.keys import public_key_from_any, public_key_to_any
from chain.dec import Dec, from_wire
from chain.light.headers import ABSENT
from chain.store.api import StateReader, StateWriter, prefix_end
from modules.slashing import bitmap, events, keys
from modules.slashing.errors import (
    NoDelegation,
    NoSigningInfo,
    NoValidator,
    SelfDelegationTooLow,
    ValidatorJailed,
    ValidatorNotJailed,
    ValidatorTombstoned,
)
from modules.slashing.expected import StakingKeeper
from modules.slashing.params import Params, fraction, jail_ns, min_signed

SigningInfo: Final = message_class("cosmos.slashing.v1beta1.ValidatorSigningInfo")
UPDATE_DELAY: Final = 1
"""Blocks between the end of the block that changes the validator set and the first one that the new set votes on."""
log = structlog.get_logger("slashing")


class SlashingKeeper:
    """Who signed, who is jailed until when, who is out for good."""

    def __init__(self, staking: StakingKeeper) -> None:
        self._staking = staking

    # --- state ----------------------------------------------------------------------------------------------------------------

    def params(self, state: StateReader) -> Any:
        return Params.FromString(state.store(keys.STORE).get(keys.PARAMS) or b"")

    def set_params(self, state: StateWriter, params: Any) -> None:
        state.store(keys.STORE).set(keys.PARAMS, encode(params))

    def slash_fraction_double_sign(self, state: StateReader) -> Dec:
        return fraction(self.params(state), "slash_fraction_double_sign")

    def signing_info(self, state: StateReader, cons: bytes) -> Any | None:
        raw = state.store(keys.STORE).get(keys.signing_info(cons))
        return None if raw is None else SigningInfo.FromString(raw)

    def set_signing_info(self, state: StateWriter, cons: bytes, info: Any) -> None:
        state.store(keys.STORE).set(keys.signing_info(cons), encode(info))

    def signing_infos(self, state: StateReader) -> Iterator[tuple[bytes, Any]]:
        """(consensus address, signing info), ordered by address."""
        for key, raw in state.store(keys.STORE).iterate(keys.SIGNING_INFOS, prefix_end(keys.SIGNING_INFOS)):
            yield keys.split_signing_info(key), SigningInfo.FromString(raw)

    def set_missed(self, state: StateWriter, cons: bytes, index: int, missed: bool) -> None:
        """Write the bit of one index of the window."""
        store = state.store(keys.STORE)
        number, bit = bitmap.place(index)
        store.set(keys.chunk(cons, number), bitmap.changed(store.get(keys.chunk(cons, number)), bit, missed))

    def missed_blocks(self, state: StateReader, cons: bytes) -> list[int]:
        """The indices of the window whose bit is set, ascending."""
        prefix = keys.chunks_of(cons)
        chunks = {int.from_bytes(key[len(prefix) :], "little"): raw for key, raw in state.store(keys.STORE).iterate(prefix, prefix_end(prefix))}
        return [number * bitmap.CHUNK_BITS + bit for number in sorted(chunks) for bit in bitmap.bits(chunks[number])]

    def _forget_missed(self, state: StateWriter, cons: bytes) -> None:
        store, prefix = state.store(keys.STORE), keys.chunks_of(cons)
        for key, _ in list(store.iterate(prefix, prefix_end(prefix))):
            store.delete(key)

    def add_public_key(self, state: StateWriter, consensus_key: Any) -> None:
        """Remember a validator's consensus key (an Any) by its address."""
        key = public_key_from_any(consensus_key)
        state.store(keys.STORE).set(keys.public_key(key.address), encode(public_key_to_any(key)))

    def has_public_key(self, state: StateReader, cons: bytes) -> bool:
        return state.store(keys.STORE).get(keys.public_key(cons)) is not None

    def remove_public_key(self, state: StateWriter, cons: bytes) -> None:
        state.store(keys.STORE).delete(keys.public_key(cons))

    def start_watching(self, ctx: Context, state: StateWriter, cons: bytes) -> Any:
        """The signing info of a validator that is bonded from this block on: a new one, or the old one that starts here."""
        info = self.signing_info(state, cons)
        if info is None:
            info = SigningInfo(address=bech32.encode(cons, bech32.CONSENSUS), jailed_until={})
        info.start_height = ctx.height
        self.set_signing_info(state, cons, info)
        return info

    def forget_heights(self, ctx: Context, state: StateWriter) -> None:
        """Have every signing info start at height 0: for a new chain from this one's state. What was missed stays."""
        for cons, info in list(self.signing_infos(state)):
            info.start_height = 0
            self.set_signing_info(state, cons, info)

    # --- punishments ----------------------------------------------------------------------------------------------------------

    def slash(self, ctx: Context, state: StateWriter, cons: bytes, fraction: Dec, power: int, distribution_height: int) -> None:
        """Slash without a reason."""
        self.slash_with_infraction_reason(ctx, state, cons, fraction, power, distribution_height, events.UNSPECIFIED)

    def slash_with_infraction_reason(
        self, ctx: Context, state: StateWriter, cons: bytes, fraction: Dec, power: int, distribution_height: int, infraction: int
    ) -> None:
        """Burn ``fraction`` of the stake behind ``power`` as it was at ``distribution_height``; ``infraction`` is staking's Infraction."""
        burned = self._staking.slash(ctx, state, cons, distribution_height, power, fraction, infraction)
        events.slashed(ctx, cons, power, infraction, burned)

    def jail(self, ctx: Context, state: StateWriter, cons: bytes) -> None:
        self._staking.jail(ctx, state, cons)
        events.jailed(ctx, cons)

    def jail_until(self, ctx: Context, state: StateWriter, cons: bytes, time_ns: int) -> None:
        """No unjail before ``time_ns`` (Unix nanoseconds). Raises NoSigningInfo (slashing/8)."""
        info = self._info(state, cons, "jail")
        _set_jailed_until(info, time_ns)
        self.set_signing_info(state, cons, info)

    def tombstone(self, ctx: Context, state: StateWriter, cons: bytes) -> None:
        """No unjail ever. Raises NoSigningInfo (slashing/8), ValidatorTombstoned (slashing/9)."""
        info = self._info(state, cons, "tombstone")
        if info.tombstoned:
            raise ValidatorTombstoned("cannot tombstone validator that is already tombstoned")
        info.tombstoned = True
        self.set_signing_info(state, cons, info)

    def is_tombstoned(self, state: StateReader, cons: bytes) -> bool:
        info = self.signing_info(state, cons)
        return info is not None and bool(info.tombstoned)

    def _info(self, state: StateReader, cons: bytes, what: str) -> Any:
        info = self.signing_info(state, cons)
        if info is None:
            raise NoSigningInfo(f"cannot {what} validator that does not have any signing information")
        return info

    def unjail(self, ctx: Context, state: StateWriter, operator: bytes) -> None:
        """Let a validator out of jail. Raises NoValidator, NoDelegation (staking/3, 19), SelfDelegationTooLow, ValidatorNotJailed,
        ValidatorJailed (slashing/7, 5, 4).
        """
        validator = self._staking.validator(state, operator)
        if validator is None:
            raise NoValidator
        own = self._staking.delegation(state, operator, operator)
        if own is None:
            raise NoDelegation
        tokens = self._staking.tokens_from_shares(validator, from_wire(own.shares)).truncate()
        least = coins.parse_int(validator.min_self_delegation)
        if tokens < least:
            raise SelfDelegationTooLow(f"{tokens} less than {least}")
        if not validator.jailed:
            raise ValidatorNotJailed
        cons = public_key_from_any(validator.consensus_pubkey).address
        info = self.signing_info(state, cons)  # none: it was never bonded, and jailed for its self-delegation alone
        if info is not None and (info.tombstoned or ctx.time_ns < _jailed_until_ns(info)):
            raise ValidatorJailed
        self._staking.unjail(ctx, state, cons)

    # --- signatures -----------------------------------------------------------------------------------------------------------

    def watch_signatures(self, ctx: Context, state: StateWriter) -> None:
        """Begin of a block: who voted for the last one, and who has been absent too often. One chunk at most is read and written for each."""
        params = self.params(state)
        required = min_signed(params) if ctx.last_commit else 0
        for vote in ctx.last_commit:
            self._watch(ctx, state, vote, params, required)

    def _watch(self, ctx: Context, state: StateWriter, vote: Vote, params: Any, required: int) -> None:
        store, cons, window = state.store(keys.STORE), vote.validator_address, params.signed_blocks_window
        validator = self._staking.validator_by_cons(state, cons)
        if validator is None:
            log.error("a vote of no validator is left out", address=bech32.encode(cons, bech32.CONSENSUS), height=ctx.height)
            return
        if validator.jailed:
            return
        info = self.signing_info(state, cons)
        if info is None:
            info = self.start_watching(ctx, state, cons)
        number, bit = bitmap.place(info.index_offset % window)
        info.index_offset += 1
        key = keys.chunk(cons, number)
        chunk = store.get(key)
        missed = vote.block_id_flag == ABSENT
        if missed != bitmap.is_set(chunk, bit):
            store.set(key, bitmap.changed(chunk, bit, missed))
            info.missed_blocks_counter += 1 if missed else -1
        if missed:
            events.liveness(ctx, cons, info.missed_blocks_counter)
        if ctx.height > info.start_height + window and info.missed_blocks_counter > window - required:
            self._punish_absence(ctx, state, vote, info, params)
        self.set_signing_info(state, cons, info)

    def _punish_absence(self, ctx: Context, state: StateWriter, vote: Vote, info: Any, params: Any) -> None:
        cons = vote.validator_address
        # The stake that voted is that of the set which was decided this many blocks before the one voted on. It may be below the first block.
        height = ctx.height - UPDATE_DELAY - 1
        burned = self._staking.slash(ctx, state, cons, height, vote.power, fraction(params, "slash_fraction_downtime"), events.DOWNTIME)
        events.slashed_and_jailed(ctx, cons, vote.power, burned)
        self._staking.jail(ctx, state, cons)
        _set_jailed_until(info, ctx.time_ns + jail_ns(params))
        # It starts anew when it comes back.
        info.missed_blocks_counter = info.index_offset = 0
        self._forget_missed(state, cons)
        log.info("a validator is jailed for its absence", address=info.address, height=ctx.height, burned_wei=burned)


def _set_jailed_until(info: Any, time_ns: int) -> None:
    info.jailed_until.seconds, info.jailed_until.nanos = divmod(time_ns, NANOS)


def _jailed_until_ns(info: Any) -> int:
    return int(info.jailed_until.seconds * NANOS + info.jailed_until.nanos)
