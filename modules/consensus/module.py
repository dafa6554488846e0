"""Consensus parameters: kept in store ``consensus`` under the key ``Consensus``, as SDK 0.50 keeps them.

They come with InitChain, change by MsgUpdateParams from the gov account, and are answered to CometBFT with every block. The bounds are
CometBFT v0.38's own (types/params.go), checked here so that a bad value never reaches it.
"""

from __future__ import annotations

from typing import Any, Final

from chain.authority import require_gov
from chain.codec.canonical import encode
from chain.codec.registry import message_class
from chain.context import Context
from chain.errors import InvalidRequest
from chain.module import MessageHandler, Module
from chain.store.api import StateReader, StateWriter

STORE: Final = "consensus"
KEY: Final = b"Consensus"
ConsensusParams: Final = message_class("tendermint.types.ConsensusParams")
MAX_BLOCK_BYTES: Final = 100 << 20
KEY_TYPES: Final = ("ed25519", "secp256k1")


class ConsensusKeeper:
    """Reads and writes the parameters."""

    def get(self, state: StateReader) -> Any:
        """The current ``tendermint.types.ConsensusParams``."""
        return ConsensusParams.FromString(state.store(STORE).get(KEY) or b"")

    def set(self, state: StateWriter, params: Any) -> None:
        """Write parameters that ``check_params`` accepts."""
        state.store(STORE).set(KEY, encode(params))


def check_params(params: Any) -> None:
    """Raise InvalidRequest (sdk/18) naming the parameter that CometBFT would refuse."""
    block, evidence = params.block, params.evidence
    if block.max_bytes == 0 or block.max_bytes < -1 or block.max_bytes > MAX_BLOCK_BYTES:
        raise InvalidRequest(f"block.max_bytes must be -1 or from 1 to {MAX_BLOCK_BYTES}, got {block.max_bytes}")
    if block.max_gas < -1:
        raise InvalidRequest(f"block.max_gas must be at least -1, got {block.max_gas}")
    if evidence.max_age_num_blocks <= 0:
        raise InvalidRequest(f"evidence.max_age_num_blocks must be positive, got {evidence.max_age_num_blocks}")
    if evidence.max_age_duration.seconds <= 0 and evidence.max_age_duration.nanos <= 0:
        raise InvalidRequest("evidence.max_age_duration must be positive")
    limit = MAX_BLOCK_BYTES if block.max_bytes == -1 else block.max_bytes
    if not 0 <= evidence.max_bytes <= limit:
        raise InvalidRequest(f"evidence.max_bytes must be from 0 to block.max_bytes ({limit}), got {evidence.max_bytes}")
    if params.abci.vote_extensions_enable_height < 0:
        raise InvalidRequest("abci.vote_extensions_enable_height must not be negative")
    if not params.validator.pub_key_types or any(kind not in KEY_TYPES for kind in params.validator.pub_key_types):
        raise InvalidRequest(f"validator.pub_key_types must be some of {', '.join(KEY_TYPES)}, got {list(params.validator.pub_key_types)}")


def consensus_module(keeper: ConsensusKeeper) -> Module:
    """Declare the module over its ``keeper``."""
    query_response = message_class("cosmos.consensus.v1.QueryParamsResponse")
    update_response = message_class("cosmos.consensus.v1.MsgUpdateParamsResponse")

    def params(ctx: Context, state: StateReader, request: Any) -> Any:
        return query_response(params=keeper.get(state))

    def update_params(ctx: Context, state: StateWriter, message: Any) -> Any:
        require_gov(message.authority)
        updated = keeper.get(state)
        for part in ("block", "evidence", "validator", "abci"):
            if message.HasField(part):
                getattr(updated, part).CopyFrom(getattr(message, part))
        check_params(updated)
        keeper.set(state, updated)
        return update_response()

    return Module(
        name="consensus",
        stores=(STORE,),
        messages={"cosmos.consensus.v1.MsgUpdateParams": MessageHandler(update_params)},
        queries={"/cosmos.consensus.v1.Query/Params": params},
    )
