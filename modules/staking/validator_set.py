"""Which validators sign blocks: the strongest ``max_validators`` that are not jailed and have at least one unit of power.

    unbonded ──► bonded ──► unbonding ──(unbonding time)──► unbonded ──(no shares left)──► removed
                    ▲───────────┘

The set changes at the end of a block; CometBFT puts a change in force two blocks later.
"""

from __future__ import annotations

from typing import Any, Final

from chain.codec.canonical import encode
from chain.codec.times import set_ns
from chain.codec.varint import uvarint
from chain.context import Context
from chain.crypto.keys import ED25519_URL, SECP256K1_URL, public_key_from_any
from chain.errors import InvariantBroken, UndefinedError
from chain.module import ValidatorUpdate
from chain.store.api import StateReader, StateWriter, prefix_end
from modules.staking import keys
from modules.staking.errors import CannotRemoveValidator, NoValidator, ValidatorJailed
from modules.staking.records import BONDED, UNBONDED, UNBONDING, Header, Operators, Updates, Validator
from modules.staking.shares import power_of
from modules.staking.store import OF_VALIDATOR, StakingStore, cons_of, operator_of

KEY_TYPES: Final = {ED25519_URL: "ed25519", SECP256K1_URL: "secp256k1"}
"""CometBFT's names of the keys that it knows."""


class ValidatorSet(StakingStore):
    """Moves validators in and out of the set."""

    def add_validator(self, ctx: Context, state: StateWriter, validator: Any) -> None:
        """Write a new validator with its indexes."""
        self.set_validator(state, validator)
        self.set_by_cons(state, validator)
        self.set_by_power(state, validator)
        self.created(ctx, state, operator_of(validator))

    def created(self, ctx: Context, state: StateWriter, operator: bytes) -> None:
        """Tell that a validator was written for the first time."""
        for hooks in self._hooks:
            hooks.after_validator_created(ctx, state, operator)

    def before_modified(self, ctx: Context, state: StateWriter, operator: bytes) -> None:
        """Tell that a validator is about to change its commission or to be slashed."""
        for hooks in self._hooks:
            hooks.before_validator_modified(ctx, state, operator)

    def update_set(self, ctx: Context, state: StateWriter) -> None:
        """Compare the order of power with what CometBFT knows; bond and unbond, move the pools' coins, and store the changes for CometBFT."""
        last = self.last_powers(state)
        updates: list[Any] = []
        total = newly_bonded_wei = no_longer_wei = 0
        for power, operator in self._strongest(state):
            total += power
            if last.pop(operator, None) == power:
                continue  # it has been bonded with this power: nothing about it can have changed
            validator = self.require_validator(state, operator)
            if validator.jailed:
                raise InvariantBroken(f"a jailed validator is in the order of power: {validator.operator_address}")
            if validator.status != BONDED:
                newly_bonded_wei += int(validator.tokens)
                self._bond(ctx, state, validator)
            updates.append(_update(validator, power))
            self.set_last_power(state, operator, power)
        for operator in sorted(last):
            validator = self.require_validator(state, operator)
            self._begin_unbonding(ctx, state, validator)
            no_longer_wei += int(validator.tokens)
            state.store(keys.STORE).delete(keys.last_power(operator))
            updates.append(_update(validator, 0))
        if newly_bonded_wei > no_longer_wei:
            self.to_bonded(ctx, state, newly_bonded_wei - no_longer_wei)
        elif newly_bonded_wei < no_longer_wei:
            self.to_not_bonded(ctx, state, no_longer_wei - newly_bonded_wei)
        if updates:
            self.set_last_total_power(state, total)
        state.store(keys.STORE).set(keys.VALIDATOR_UPDATES, encode(Updates(updates=updates)))

    def _strongest(self, state: StateReader) -> list[tuple[int, bytes]]:
        found: list[tuple[int, bytes]] = []
        most = self.params(state).max_validators
        for key, operator in state.store(keys.STORE).iterate(keys.BY_POWER, prefix_end(keys.BY_POWER), reverse=True):
            power = keys.power_in(key)
            if not power or len(found) == most:
                break
            found.append((power, operator))
        return found

    def validator_updates(self, state: StateReader) -> list[ValidatorUpdate]:
        """What ``update_set`` stored last."""
        stored = Updates.FromString(state.store(keys.STORE).get(keys.VALIDATOR_UPDATES) or b"").updates
        kinds = ((one, one.pub_key.WhichOneof("sum")) for one in stored)
        return [ValidatorUpdate(kind, getattr(one.pub_key, kind), one.power) for one, kind in kinds]

    def _bond(self, ctx: Context, state: StateWriter, validator: Any) -> None:
        self.delete_by_power(state, validator)
        validator.status = BONDED
        self.set_validator(state, validator)
        self.set_by_power(state, validator)
        self.unqueue_validator(state, validator)
        cons, operator = cons_of(validator), operator_of(validator)
        for hooks in self._hooks:
            hooks.after_validator_bonded(ctx, state, cons, operator)

    def _begin_unbonding(self, ctx: Context, state: StateWriter, validator: Any) -> None:
        unbonding_ns = self.unbonding_ns(state)
        self.delete_by_power(state, validator)
        if validator.status != BONDED:
            raise InvariantBroken(f"a validator that CometBFT knows is not bonded: {validator.operator_address}")
        unbonding_id = self.next_unbonding_id(state)
        validator.status = UNBONDING
        set_ns(validator.unbonding_time, ctx.time_ns + unbonding_ns)
        validator.unbonding_height = ctx.height
        validator.unbonding_ids.append(unbonding_id)
        self.set_validator(state, validator)
        self.set_by_power(state, validator)
        self.queue_validator(state, validator)
        cons, operator = cons_of(validator), operator_of(validator)
        for hooks in self._hooks:
            hooks.after_validator_begin_unbonding(ctx, state, cons, operator)
        self.index_unbonding(state, unbonding_id, keys.validator(operator), OF_VALIDATOR)
        for hooks in self._hooks:
            hooks.after_unbonding_initiated(ctx, state, unbonding_id)

    def finish_unbonding_validators(self, ctx: Context, state: StateWriter) -> None:
        """Unbond every validator whose time and height have come; one without shares is removed."""
        store = state.store(keys.STORE)
        end = keys.validators_ending(ctx.time_ns, ctx.height) + b"\x00"
        due = [raw for key, raw in store.iterate(keys.VALIDATOR_QUEUE, end) if keys.height_in(key) <= ctx.height]
        for raw in due:
            for address in Operators.FromString(raw).addresses:
                self._finish_unbonding(ctx, state, address)

    def _finish_unbonding(self, ctx: Context, state: StateWriter, address: str) -> None:
        operator = operator_of(Validator(operator_address=address))
        validator = self.require_validator(state, operator)
        if validator.status != UNBONDING:
            raise InvariantBroken(f"a validator in the queue is not unbonding: {address}")
        if validator.unbonding_on_hold_ref_count:
            return
        for unbonding_id in validator.unbonding_ids:
            state.store(keys.STORE).delete(keys.unbonding_index(unbonding_id))
        validator.status = UNBONDED
        self.set_validator(state, validator)  # with its unbonding ids: the SDK clears them in a copy that it never writes
        if not int(validator.delegator_shares):
            self.remove_validator(ctx, state, operator)
        self.unqueue_validator(state, validator)

    def remove_validator(self, ctx: Context, state: StateWriter, operator: bytes) -> None:
        """Forget an unbonded validator without tokens. Raises CannotRemoveValidator (staking/8) for any other."""
        validator = self.validator(state, operator)
        if validator is None:
            return
        if validator.status != UNBONDED:
            raise CannotRemoveValidator("cannot call RemoveValidator on bonded or unbonding validators")
        if int(validator.tokens) > 0:
            raise CannotRemoveValidator("attempting to remove a validator which still contains tokens")
        cons = cons_of(validator)
        store = state.store(keys.STORE)
        store.delete(keys.validator(operator))
        store.delete(keys.by_consensus_address(cons))
        self.delete_by_power(state, validator)
        for hooks in self._hooks:
            hooks.after_validator_removed(ctx, state, cons, operator)

    # --- jail ---------------------------------------------------------------------------------------------------------

    def jail(self, ctx: Context, state: StateWriter, cons: bytes) -> None:
        """Take a validator out of the order of power. Raises NoValidator, ValidatorJailed (staking/7) if it is jailed already."""
        self.jail_validator(state, self._of_cons(state, cons))

    def unjail(self, ctx: Context, state: StateWriter, cons: bytes) -> None:
        """Let a jailed validator into the order of power again. Raises NoValidator, UndefinedError if it is not jailed."""
        validator = self._of_cons(state, cons)
        if not validator.jailed:
            raise UndefinedError(f"cannot unjail already unjailed validator, validator: {validator.operator_address}")
        validator.jailed = False
        self.set_validator(state, validator)
        self.set_by_power(state, validator)

    def is_jailed(self, state: StateReader, cons: bytes) -> bool:
        """Raises NoValidator (staking/3)."""
        return bool(self._of_cons(state, cons).jailed)

    def jail_validator(self, state: StateWriter, validator: Any) -> None:
        """As ``jail``; changes ``validator``, too."""
        if validator.jailed:
            raise ValidatorJailed(f"cannot jail already jailed validator, validator: {validator.operator_address}")
        validator.jailed = True
        self.set_validator(state, validator)
        self.delete_by_power(state, validator)

    def _of_cons(self, state: StateReader, cons: bytes) -> Any:
        validator = self.validator_by_cons(state, cons)
        if validator is None:
            raise NoValidator
        return validator

    # --- history ------------------------------------------------------------------------------------------------------

    def track_history(self, ctx: Context, state: StateWriter) -> None:
        """Keep this block's header and the set that was bonded, for ``historical_entries`` blocks."""
        entries = self.params(state).historical_entries
        store = state.store(keys.STORE)
        height = ctx.height - entries
        while height >= 0 and store.has(keys.historical_info(height)):
            store.delete(keys.historical_info(height))
            height -= 1
        if entries:
            store.set(keys.historical_info(ctx.height), self._history(ctx, state))

    def _history(self, ctx: Context, state: StateReader) -> bytes:
        """HistoricalInfo, put together of stored bytes: this runs in every block."""
        header = Header(
            chain_id=ctx.chain_id,
            height=ctx.height,
            next_validators_hash=ctx.next_validators_hash,
            app_hash=ctx.app_hash,
            proposer_address=ctx.proposer_address,
        )
        set_ns(header.time, ctx.time_ns)
        store = state.store(keys.STORE)
        ranked = []
        for operator in self.last_powers(state):
            raw = store.get(keys.validator(operator))
            assert raw is not None, "last powers are of validators"
            validator = Validator.FromString(raw)
            ranked.append((-power_of(validator) if validator.status == BONDED else 0, cons_of(validator), raw))
        parts = [(b"\x0a", encode(header)), *((b"\x12", raw) for _, _, raw in sorted(ranked))]
        return b"".join(piece for tag, part in parts for piece in (tag, uvarint(len(part)), part))


def _update(validator: Any, power: int) -> Any:
    key = public_key_from_any(validator.consensus_pubkey)
    return {"pub_key": {KEY_TYPES[key.type_url]: key.raw}, "power": power}
