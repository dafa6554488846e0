"""Store ``register``: the original's layout, and from 30 on what is ours.

Network addresses have 20 bytes. Accounts' addresses go behind their length (one byte), except in a debt's key, which is the original's. Values are
protobuf behind their length, but for Params and where a docstring says otherwise. Source: stratos-chain.md 2.9.
"""

from __future__ import annotations

from typing import Final

from chain.codec.times import NANOS, sortable

STORE: Final = "register"

RESOURCE_NODES: Final = b"\x01"
META_NODES: Final = b"\x02"
REGISTRATIONS: Final = b"\x03"
REMAINING_NOZ: Final = b"\x04"
"""→ Int: Lt."""
DEBTS: Final = b"\x05"
RATE: Final = b"\x07"
"""→ Dec: wei of a deposit per noz."""
BONDED_META_NODES: Final = b"\x08"
"""→ Int: how many."""
BONDED_RESOURCE_NODES: Final = b"\x09"
"""→ Int: how many."""
DEPOSIT_WEI: Final = b"\x10"
"""→ Int: S."""
UNBONDINGS: Final = b"\x11"
QUEUE: Final = b"\x12"
KICKS: Final = b"\x13"
PARAMS: Final = b"\x20"
"""→ Params, without a length."""

PENDING_WEI: Final = b"\x30"
"""→ Int: part of S behind which no node stands any more."""
PENDING_NOZ: Final = b"\x31"
"""→ Int: what Lt has yet to give back for void epochs."""
LINGERING_WEI: Final = b"\x32"
"""→ Int: what counts in S beyond the deposits at work, of all nodes: suspended and leaving ones."""
LEAVING_WEI: Final = b"\x33"
"""→ Int: balances of all entries of unbonding nodes."""
COUNTED: Final = b"\x34"
ACTIVE_META_NODES: Final = b"\x35"
APPROVALS: Final = b"\x38"
EXPIRIES: Final = b"\x39"

RESOURCE: Final = b"\x01"
META: Final = b"\x02"
"""Kinds of nodes in the owner index: an owner's resource nodes come first."""
_TIME_BYTES: Final = len(sortable(0))


def resource_node(address: bytes) -> bytes:
    """``01 | network address`` → ResourceNode."""
    return RESOURCE_NODES + address


def meta_node(address: bytes) -> bytes:
    """``02 | network address`` → MetaNode."""
    return META_NODES + address


def registration(address: bytes) -> bytes:
    """``03 | network address of the candidate`` → MetaNodeRegistrationVotePool."""
    return REGISTRATIONS + address


def debt(wallet: bytes) -> bytes:
    """``05 | account`` → Int; no entry for no debt."""
    return DEBTS + wallet


def unbonding(address: bytes) -> bytes:
    """``11 | network address`` → UnbondingNode."""
    return UNBONDINGS + address


def queue(time_ns: int) -> bytes:
    """``12 | completion time, sortable, 29 bytes`` → SdsAddresses: the nodes with an entry that is complete then, in the order of address bytes."""
    return QUEUE + _time(time_ns)


def queue_end(time_ns: int) -> bytes:
    """End of the slots of ``queue`` that are complete at a time."""
    return queue(time_ns) + b"\x00"


def kick(address: bytes) -> bytes:
    """``13 | network address of the target`` → KickMetaNodeVotePool."""
    return KICKS + address


def counted(address: bytes) -> bytes:
    """``34 | network address`` → Int: what of the node's deposit is in S; no entry for nothing."""
    return COUNTED + address


def active_meta_node(address: bytes) -> bytes:
    """``35 | network address`` → empty, without a length: bonded and not suspended."""
    return ACTIVE_META_NODES + address


def nodes_of(owner: bytes) -> bytes:
    """``36 | length | owner``: prefix of an owner's nodes; their kind (1 resource, 2 meta) and network address follow."""
    return b"\x36" + _sized(owner)


def node_of(owner: bytes, kind: bytes, address: bytes) -> bytes:
    """``36 | length | owner | kind | network address`` → empty, without a length."""
    return nodes_of(owner) + kind + address


def owners_for(beneficiary: bytes) -> bytes:
    """``37 | length | beneficiary``: prefix of the owners of whose nodes that count in S an account is the beneficiary."""
    return b"\x37" + _sized(beneficiary)


def owner_for(beneficiary: bytes, owner: bytes) -> bytes:
    """``37 | length | beneficiary | owner`` → how many of his nodes, 8 bytes, without a length; no entry for none."""
    return owners_for(beneficiary) + owner


def approvals_for(address: bytes) -> bytes:
    """``38 | network address``: prefix of the approvals of effective deposits of a node; the amount follows."""
    return APPROVALS + address


def approvals(address: bytes, effective_wei: int) -> bytes:
    """``38 | network address | amount in wei, 16 bytes`` → EffectiveDepositApprovals."""
    return approvals_for(address) + effective_wei.to_bytes(16, "big")


def expiry(time_ns: int, record: bytes) -> bytes:
    """``39 | time, sortable, 29 bytes | key of a vote or of approvals`` → empty, without a length: when that record goes."""
    return expiries_before(time_ns) + record


def expiries_before(time_ns: int) -> bytes:
    """End of the entries of ``expiry`` that lie before a time."""
    return EXPIRIES + _time(time_ns)


def expiring(key: bytes) -> bytes:
    """Key of the record that an ``expiry`` is for."""
    return key[1 + _TIME_BYTES :]


def _time(time_ns: int) -> bytes:
    return sortable(*divmod(time_ns, NANOS))


def _sized(address: bytes) -> bytes:
    return bytes([len(address)]) + address
