"""Consensus parameters: kept in store ``consensus`` under the key ``Consensus``, as SDK 0.50 keeps them.

They come with InitChain, change by MsgUpdateParams from the gov account, and are answered to CometBFT with every block. The bounds are
CometBFT v0.38's own (types/params.go), checked here so that a bad value never reaches it, and what it accepts but stops for (types/block.go:
MaxDataBytes; state/execution.go: the keys of validator updates).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from chain.authority import require_gov
from chain.codec.canonical import encode
from chain.codec.registry import message_class
from chain.codec.times import NANOS
from chain.context import Context
from chain.errors import UndefinedError
from chain.module import MessageHandler, Module
from chain.store.api import StateReader, StateWriter

STORE: Final = "consensus"
KEY: Final = b"Consensus"
ConsensusParams: Final = message_class("tendermint.types.ConsensusParams")
MAX_BLOCK_BYTES: Final = 100 << 20
KEY_TYPES: Final = ("ed25519", "secp256k1")
HEADER_BYTES: Final = 11 + 626 + 94
"""Of a block without transactions and evidence at most: its frame, its header, and its commit without signatures."""
SIGNATURE_BYTES: Final = 111
"""Of one validator's in the commit, at most."""
LEAST_DATA_BYTES: Final = 1 << 14
LEAST_GAS: Final = 500_000
"""What a block must hold for transactions, so that a proposal can take an update back."""


class ConsensusKeeper:
    """Reads and writes the parameters."""

    def get(self, state: StateReader) -> Any:
        """The current ``tendermint.types.ConsensusParams``."""
        return ConsensusParams.FromString(state.store(STORE).get(KEY) or b"")

    def key_types(self, ctx: Context, state: StateReader) -> tuple[str, ...]:
        """Kinds of validator keys that CometBFT accepts. Takes no gas: the SDK has the parameters at hand in every context."""
        with uncharged(ctx):
            return tuple(self.get(state).validator.pub_key_types)

    def most_validators(self, ctx: Context, state: StateReader) -> int:
        """How many validators' signatures a block has room for. Takes no gas: the SDK does not ask."""
        with uncharged(ctx):
            params = self.get(state)
        return (_limit(params.block) - int(params.evidence.max_bytes) - LEAST_DATA_BYTES - HEADER_BYTES) // SIGNATURE_BYTES

    def set(self, state: StateWriter, params: Any) -> None:
        """Write parameters that ``check_params`` accepts."""
        state.store(STORE).set(KEY, encode(params))


@contextmanager
def uncharged(ctx: Context) -> Iterator[None]:
    """Reads that cost no gas."""
    consumed = ctx.gas.consumed
    yield
    ctx.gas.consumed = consumed


def _limit(block: Any) -> int:
    """Bytes of a whole block."""
    return MAX_BLOCK_BYTES if block.max_bytes == -1 else int(block.max_bytes)


def check_params(params: Any) -> None:
    """Raise UndefinedError (undefined/1, the SDK's) naming the parameter that CometBFT would refuse."""
    block, evidence = params.block, params.evidence
    if block.max_bytes == 0 or block.max_bytes < -1 or block.max_bytes > MAX_BLOCK_BYTES:
        raise UndefinedError(f"block.max_bytes must be -1 or from 1 to {MAX_BLOCK_BYTES}, got {block.max_bytes}")
    if block.max_gas < -1:
        raise UndefinedError(f"block.max_gas must be at least -1, got {block.max_gas}")
    if evidence.max_age_num_blocks <= 0:
        raise UndefinedError(f"evidence.max_age_num_blocks must be positive, got {evidence.max_age_num_blocks}")
    age = evidence.max_age_duration
    if not 0 <= age.nanos < NANOS or not 0 < age.seconds * NANOS + age.nanos < 1 << 63:
        raise UndefinedError(f"evidence.max_age_duration must be positive and fit 63 bits of nanoseconds, got {age.seconds} s and {age.nanos} ns")
    limit = _limit(block)
    if not 0 <= evidence.max_bytes <= limit:
        raise UndefinedError(f"evidence.max_bytes must be from 0 to block.max_bytes ({limit}), got {evidence.max_bytes}")
    if params.abci.vote_extensions_enable_height < 0:
        raise UndefinedError("abci.vote_extensions_enable_height must not be negative")
    if not params.validator.pub_key_types or any(kind not in KEY_TYPES for kind in params.validator.pub_key_types):
        raise UndefinedError(f"validator.pub_key_types must be some of {', '.join(KEY_TYPES)}, got {list(params.validator.pub_key_types)}")


def check_goes_on(params: Any, key_types: Sequence[str], validators: int) -> None:
    """Raise UndefinedError for parameters that CometBFT accepts and the chain stops for: where commit and evidence leave a block no room its
    proposer panics, and a validator whose kind of key (``key_types``: accepted until now) is no longer accepted ends the block that changes
    its power. ``validators``: the most that may sign.
    """
    least = HEADER_BYTES + SIGNATURE_BYTES * validators + params.evidence.max_bytes + LEAST_DATA_BYTES
    if _limit(params.block) < least:
        raise UndefinedError(
            f"block.max_bytes must be at least {least}, to hold {validators} signatures, evidence of {params.evidence.max_bytes} bytes and "
            f"{LEAST_DATA_BYTES} bytes of transactions, got {params.block.max_bytes}"
        )
    if 0 < params.block.max_gas < LEAST_GAS:
        raise UndefinedError(f"block.max_gas must be -1, 0 (both: no limit) or at least {LEAST_GAS}, got {params.block.max_gas}")
    missing = [kind for kind in key_types if kind not in params.validator.pub_key_types]
    if missing:
        raise UndefinedError(f"validator.pub_key_types must keep {', '.join(missing)}: validators may have such keys")


def check_extensions(now: int, wanted: int, height: int) -> None:
    """Raise UndefinedError unless CometBFT lets the height from which votes are extended (0: never) go from ``now`` to ``wanted`` at ``height``:
    once reached it stays, and a new one lies ahead.
    """
    if now == wanted or (now <= 0 and wanted == 0):
        return
    if 0 < now <= height:
        raise UndefinedError(f"vote extensions cannot be changed once enabled: enabled at {now}, wanted {wanted}, this is block {height}")
    if wanted and wanted <= height:
        raise UndefinedError(f"vote extensions cannot begin in the past: wanted {wanted}, this is block {height}")


def go_text(message: Any) -> str:
    """Text of a message as Go's ``String`` has it: what the SDK puts into the event."""
    parts = []
    for field, value in message.ListFields():
        for one in value if field.is_repeated else [value]:
            shown = f"<{go_text(one)}>" if field.message_type is not None else f'"{one}"' if isinstance(one, str) else str(one)
            parts.append(f"{field.name}:{shown} ")
    return "".join(parts)


def consensus_module(keeper: ConsensusKeeper, validator_count: Callable[[StateReader], int]) -> Module:
    """Declare the module over its ``keeper``. ``validator_count(state)``: how many validators a block's commit may have to hold."""
    query_response = message_class("cosmos.consensus.v1.QueryParamsResponse")
    update_response = message_class("cosmos.consensus.v1.MsgUpdateParamsResponse")

    def params(ctx: Context, state: StateReader, request: Any) -> Any:
        return query_response(params=keeper.get(state))

    def update_params(ctx: Context, state: StateWriter, message: Any) -> Any:
        require_gov(message.authority)
        if not all(message.HasField(part) for part in ("block", "evidence", "validator")):
            raise UndefinedError("all parameters must be present: block, evidence and validator")
        updated = keeper.get(state)
        given = ConsensusParams(block=message.block, evidence=message.evidence, validator=message.validator, version={})
        if message.HasField("abci"):
            given.abci.CopyFrom(message.abci)
        key_types, extended_from = tuple(updated.validator.pub_key_types), updated.abci.vote_extensions_enable_height
        for part in ("block", "evidence", "validator", "abci"):
            if given.HasField(part):
                getattr(updated, part).CopyFrom(getattr(given, part))
        check_params(updated)
        with uncharged(ctx):
            validators = validator_count(state)
        check_goes_on(updated, key_types, validators)
        check_extensions(extended_from, updated.abci.vote_extensions_enable_height, ctx.height)
        for part in (updated.version, updated.abci):
            part.SetInParent()
        keeper.set(state, updated)
        ctx.events.emit("update_consensus_params", ("authority", message.authority), ("parameters", go_text(given)))
        return update_response()

    return Module(
        name="consensus",
        stores=(STORE,),
        messages={"cosmos.consensus.v1.MsgUpdateParams": MessageHandler(update_params)},
        queries={"/cosmos.consensus.v1.Query/Params": params},
    )
