"""The value chain as nodes and clients of the storage network see it: a node of their choice, asked over its RPC."""

from sds_node.value_chain.authority import ChainAuthority, WrongChain
from sds_node.value_chain.client import (
    DEFAULT_RPC,
    AccountUnknown,
    BlockEvents,
    ChainEvent,
    ChainUnavailable,
    HeightMissing,
    QueryFailed,
    Status,
    TxRefused,
    TxResult,
    ValueChain,
    ValueChainError,
)
from sds_node.value_chain.sender import Sender

__all__ = [
    "DEFAULT_RPC",
    "AccountUnknown",
    "BlockEvents",
    "ChainAuthority",
    "ChainEvent",
    "ChainUnavailable",
    "HeightMissing",
    "QueryFailed",
    "Sender",
    "Status",
    "TxRefused",
    "TxResult",
    "ValueChain",
    "ValueChainError",
    "WrongChain",
]
