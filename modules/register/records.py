"""What register stores, and small facts about it. Times are Unix nanoseconds, amounts wei."""

from __future__ import annotations

from typing import Any, Final

from chain.codec.canonical import encode
from chain.codec.registry import message_class
from chain.codec.times import NANOS, rfc3339
from chain.codec.varint import delimited, undelimited
from chain.crypto import address as bech32

PACKAGE: Final = "stratos.register.v1"
ResourceNode: Final = message_class(f"{PACKAGE}.ResourceNode")
MetaNode: Final = message_class(f"{PACKAGE}.MetaNode")
RegistrationPool: Final = message_class(f"{PACKAGE}.MetaNodeRegistrationVotePool")
KickPool: Final = message_class(f"{PACKAGE}.KickMetaNodeVotePool")
UnbondingNode: Final = message_class(f"{PACKAGE}.UnbondingNode")
Approvals: Final = message_class(f"{PACKAGE}.EffectiveDepositApprovals")
LeavingDeposit: Final = message_class(f"{PACKAGE}.LeavingDeposit")
Params: Final = message_class(f"{PACKAGE}.Params")
SdsAddresses: Final = message_class("stratos.types.v1.SdsAddresses")
Int: Final = message_class("stratos.types.v1.Int")
Dec: Final = message_class("stratos.types.v1.Dec")
Timestamp: Final = message_class("google.protobuf.Timestamp")

UNBONDED, UNBONDING, BONDED = 1, 2, 3
"""``cosmos.staking.v1beta1.BondStatus``."""
STATUS_NAMES: Final = {
    0: "BOND_STATUS_UNSPECIFIED",
    UNBONDED: "BOND_STATUS_UNBONDED",
    UNBONDING: "BOND_STATUS_UNBONDING",
    BONDED: "BOND_STATUS_BONDED",
}

RESOURCE_BONDED: Final = "resource_node_bonded_pool"
RESOURCE_NOT_BONDED: Final = "resource_node_not_bonded_pool"
META_BONDED: Final = "meta_node_bonded_pool"
META_NOT_BONDED: Final = "meta_node_not_bonded_pool"
POOLS: Final = (RESOURCE_BONDED, RESOURCE_NOT_BONDED, META_BONDED, META_NOT_BONDED)
PREPAY: Final = "total_unissued_prepay"
"""The account whose balance is Pt."""
ADDRESS_BYTES: Final = 20


def is_meta(node: Any) -> bool:
    """Whether a record is a MetaNode; else it is a ResourceNode."""
    return bool(node.DESCRIPTOR.name == "MetaNode")


def bonded_pool(node: Any) -> str:
    return META_BONDED if is_meta(node) else RESOURCE_BONDED


def not_bonded_pool(node: Any) -> str:
    return META_NOT_BONDED if is_meta(node) else RESOURCE_NOT_BONDED


def is_active(node: Any) -> bool:
    """Bonded and not suspended."""
    return bool(node.status == BONDED and not node.suspend)


def at_work_wei(node: Any) -> int:
    """What an active node puts into S (stratos-chain.md 2.3): the effective deposit of a resource node, all of a meta node's; 0 if it is not active."""
    if not is_active(node):
        return 0
    return int(node.tokens) if is_meta(node) else int(node.effective_tokens)


def address_of(node: Any) -> bytes:
    """Network address of a stored node, 20 bytes."""
    return bech32.decode(node.network_address, bech32.NODE)


def text_of(address: bytes) -> str:
    """``stsds…`` of a network address."""
    return bech32.encode(address, bech32.NODE)


def time_of(time_ns: int) -> Any:
    """Timestamp of a time."""
    seconds, nanos = divmod(time_ns, NANOS)
    return Timestamp(seconds=seconds, nanos=nanos)


def time_text(time_ns: int) -> str:
    """RFC 3339, as events have it."""
    return rfc3339(*divmod(time_ns, NANOS))


def pack(record: Any) -> bytes:
    """Canonical bytes behind their length, as the original stores them."""
    return delimited(encode(record))


def unpack(kind: Any, raw: bytes) -> Any:
    """The record in what ``pack`` gave."""
    return kind.FromString(undelimited(raw))
