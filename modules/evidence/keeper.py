"""Evidence that was found valid, and what follows from it for the validator."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import structlog

from chain.codec.canonical import encode
from chain.codec.registry import Any_, message_class, pack_any, unpack_any
from chain.codec.times import NANOS
from chain.context import Context, Misbehavior
from chain.crypto import address as bech32
from chain.errors import AppError
from chain.store.api import StateReader, StateWriter, prefix_end
from modules.evidence import keys
from modules.evidence.errors import EvidenceExists, InvalidEvidence, NoHandler
from modules.evidence.expected import ConsensusKeeper, SlashingKeeper, StakingKeeper

PACKAGE: Final = "cosmos.evidence.v1beta1"
Equivocation: Final = message_class(f"{PACKAGE}.Equivocation")
ROUTES: Final = {f"/{PACKAGE}.Equivocation": "equivocation"}
"""type URL of every kind of evidence → the name of its route."""
Handler = Callable[[Context, StateWriter, Any], None]

DUPLICATE_VOTE, LIGHT_CLIENT_ATTACK = 1, 2
"""``tendermint.abci.MisbehaviorType``"""
_UNBONDED: Final = 1
_DOUBLE_SIGN: Final = 1
"""``cosmos.staking.v1beta1``: BondStatus and Infraction."""
UPDATE_DELAY: Final = 1
JAIL_END_NS: Final = 253_402_300_799 * NANOS
"""The last second of the year 9999: a double signer is never let out."""
log = structlog.get_logger("evidence")


def digest_of(evidence: Any) -> bytes:
    """SHA-256 of a piece of evidence: its name in the store and in queries."""
    return hashlib.sha256(encode(evidence)).digest()


def problem_of(equivocation: Any) -> str | None:
    """What the SDK's basic validation says against an Equivocation."""
    if equivocation.time.seconds <= 0:
        return f"invalid equivocation time: {equivocation.time.seconds} seconds after 1970"
    if equivocation.height < 1:
        return f"invalid equivocation height: {equivocation.height}"
    if equivocation.power < 1:
        return f"invalid equivocation validator power: {equivocation.power}"
    if not equivocation.consensus_address:
        return "invalid equivocation validator consensus address: "
    return None


class EvidenceKeeper:
    """Punishes what CometBFT reports. ``handlers`` take submitted evidence, by route; this chain has none."""

    def __init__(
        self, staking: StakingKeeper, slashing: SlashingKeeper, consensus: ConsensusKeeper, handlers: Mapping[str, Handler] | None = None
    ) -> None:
        self._staking, self._slashing, self._consensus = staking, slashing, consensus
        self._handlers = handlers or {}

    def evidence(self, state: StateReader, digest: bytes) -> Any | None:
        """The Any kept under a hash."""
        raw = state.store(keys.STORE).get(keys.evidence(digest))
        return None if raw is None else Any_.FromString(raw)

    def add(self, state: StateWriter, evidence: Any) -> None:
        state.store(keys.STORE).set(keys.evidence(digest_of(evidence)), encode(pack_any(evidence)))

    def all(self, state: StateReader) -> Iterator[Any]:
        """The Any of every piece, ordered by hash."""
        for _, raw in state.store(keys.STORE).iterate(keys.EVIDENCE, prefix_end(keys.EVIDENCE)):
            yield Any_.FromString(raw)

    # --- from CometBFT --------------------------------------------------------------------------------------------------------

    def take_misbehavior(self, ctx: Context, state: StateWriter) -> None:
        """Begin of a block: punish what it reports."""
        for one in ctx.misbehavior:
            if one.kind in (DUPLICATE_VOTE, LIGHT_CLIENT_ATTACK):
                self._punish(ctx, state, one)
            else:
                log.error("misbehavior of an unknown kind is ignored", kind=one.kind, height=ctx.height)

    def _punish(self, ctx: Context, state: StateWriter, one: Misbehavior) -> None:
        """Slash, jail and tombstone a double signer, unless there is a reason to leave it alone."""
        cons, slashing = one.validator_address, self._slashing
        validator = self._staking.validator_by_cons(state, cons)
        reason = self._reason_to_ignore(ctx, state, validator, one)
        address = bech32.encode(cons, bech32.CONSENSUS)
        if validator is None or reason is not None:
            log.info("equivocation ignored", reason=reason, validator=address, infraction_height=one.height, height=ctx.height)
            return
        log.info("equivocation confirmed", validator=address, infraction_height=one.height, height=ctx.height)
        # The stake that voted is that of the set which was decided this many blocks before. It may be below the first block.
        fraction = slashing.slash_fraction_double_sign(state)
        slashing.slash_with_infraction_reason(ctx, state, cons, fraction, one.power, one.height - UPDATE_DELAY, _DOUBLE_SIGN)
        if not validator.jailed:
            slashing.jail(ctx, state, cons)
        slashing.jail_until(ctx, state, cons, JAIL_END_NS)
        slashing.tombstone(ctx, state, cons)
        equivocation = Equivocation(height=one.height, power=one.power, consensus_address=address)
        equivocation.time.seconds, equivocation.time.nanos = divmod(one.time_ns, NANOS)
        self.add(state, equivocation)

    def _reason_to_ignore(self, ctx: Context, state: StateReader, validator: Any | None, one: Misbehavior) -> str | None:
        if validator is None:
            return "no validator has this key"
        if validator.status == _UNBONDED:
            return "the validator is unbonded: it has no stake that could be slashed"
        if not self._slashing.has_public_key(state, one.validator_address):
            return "the validator's key is not remembered"
        params = self._consensus.get(state)
        if params.HasField("evidence"):
            max_age_ns = params.evidence.max_age_duration.seconds * NANOS + params.evidence.max_age_duration.nanos
            if ctx.time_ns - one.time_ns > max_age_ns and ctx.height - one.height > params.evidence.max_age_num_blocks:
                return "too old"
        info = self._slashing.signing_info(state, one.validator_address)
        if info is None:
            return "the validator has no signing info"
        return "already tombstoned" if info.tombstoned else None

    # --- from users -----------------------------------------------------------------------------------------------------------

    def submit(self, ctx: Context, state: StateWriter, wrapped: Any) -> bytes:
        """Hand evidence (an Any of ROUTES) to the handler of its route, keep it, and return its hash. Raises EvidenceExists, NoHandler,
        InvalidEvidence (evidence/5, 2, 3).
        """
        evidence, route = unpack_any(wrapped), ROUTES[wrapped.type_url]
        digest = digest_of(evidence)
        if self.evidence(state, digest) is not None:
            raise EvidenceExists(digest.hex().upper())
        handler = self._handlers.get(route)
        if handler is None:
            raise NoHandler(route)
        try:
            handler(ctx, state, evidence)
        except AppError as error:
            raise InvalidEvidence(str(error)) from None
        ctx.events.emit("submit_evidence", ("evidence_hash", digest.hex().upper()))
        self.add(state, evidence)
        return digest
