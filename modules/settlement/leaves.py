"""What a good leaf is: every rule by which a leaf pays what it says, and nothing that the chain cannot know. README.md lists them.

A leaf repeats nothing that its documents say beside its sort key and its noz; where it does not agree with them, it is bad.
Sources: storage-protocol.md 1.9, 3.6, 4 and 5; ADR 5.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from hashlib import sha256
from itertools import pairwise
from typing import Any, Final

from chain.codec.canonical import encode, known
from chain.codec.registry import message_class
from modules.settlement import documents
from modules.settlement.commitment import CLASSES, FUNDS, STORAGE, node_of, wallet_of
from modules.settlement.documents import OrderLimit, Receipt, SessionGrant, decoded
from modules.settlement.legacy import faults_of_string
from modules.settlement.params import MAX_RETENTION_DAYS, PACKAGE

Leaf: Final = message_class(f"{PACKAGE}.Leaf")
GET, PUT, REPAIR, AUDIT = 1, 2, 3, 4
"""Of Action."""
ACTIONS: Final = range(GET, AUDIT + 1)
SERIAL_BYTES: Final = 16
PREFIX_BYTES: Final = 8
"""Of a serial: by which meta node it was given."""
HASH_BYTES: Final = 32
SEGMENT_BYTES, INDEX_BYTES, DAY_BYTES = 12, 4, 4
"""Of what a release pays once; together 20, which tells it from a serial."""
MAX_SEGMENT: Final = (1 << 48) - 1
"""The largest number that the ledger gives a segment."""
MAX_INDEX: Final = 255
MAX_PATH_PREFIX: Final = 1_024
LONGEST_GRANT_S: Final = 86_400
_MAX_SECONDS: Final = 1 << 40
_MILLIS: Final = 1_000
SIGNATURES_OF_A_LEAF: Final = 3
_SERIAL_DOMAIN: Final = b"stratos/serial/v1\0"

LedgerKey = Callable[[bytes], "bytes | None"]
"""Network address of a meta node → the ledger key that it registered, or None."""


@lru_cache(maxsize=4_096)
def serial_prefix(meta_node: bytes) -> bytes:
    """What all serials of a meta node (network address, 20 bytes) begin with, 8 bytes. The other 8 are its own affair: so nobody but itself can give one
    of its serials twice."""
    return sha256(_SERIAL_DOMAIN + meta_node).digest()[:PREFIX_BYTES]


def leaf_bytes(leaf: Any) -> bytes:
    """Canonical bytes of a leaf: what its hash is over."""
    return encode(known(leaf))


def identity(leaf: Any) -> bytes | None:
    """What may be paid once: a limit's serial (16 bytes), or a stored share's day (``release_identity``). None where the leaf names none."""
    kind = leaf.WhichOneof("source")
    if kind == "traffic":
        limit = decoded(OrderLimit, leaf.traffic.order_limit.body)
        return bytes(limit.serial) if limit is not None and len(limit.serial) == SERIAL_BYTES else None
    if kind == "release":
        return release_identity(leaf.release.segment, leaf.release.index, leaf.release.day)
    return None


def release_identity(segment: int, index: int, day: int) -> bytes:
    """What a release pays once: the ledger's number of the segment ‖ the share's index in it ‖ the day of its term, 20 bytes. The ledger gives each number
    once, so no meta node can make two stored shares one."""
    return segment.to_bytes(SEGMENT_BYTES, "big") + index.to_bytes(INDEX_BYTES, "big") + day.to_bytes(DAY_BYTES, "big")


def line_key(leaf: Any) -> tuple[bytes, int, int] | None:
    """(wallet, fund, class) that a leaf pays; None where it names no wallet."""
    wallet = wallet_of(leaf.beneficiary)
    return None if wallet is None else (wallet, leaf.fund, leaf.traffic_class)


def sort_key(leaf: Any) -> tuple[bytes, int, int, bytes] | None:
    """What leaves are sorted by; None for one that is bad by itself."""
    line, once = line_key(leaf), identity(leaf)
    return None if line is None or once is None else (*line, once)


def fault(leaf: Any, chain_id: str, ledger_key: LedgerKey) -> str | None:
    """Why a leaf is bad, or None for a good one. Whose key an order limit needs is asked of ``ledger_key``."""
    if wallet_of(leaf.beneficiary) is None:
        return "the beneficiary is no account's address of 20 bytes in lower case"
    if leaf.fund not in FUNDS or leaf.traffic_class not in CLASSES:
        return "the fund or the traffic class is none"
    if leaf.noz == 0:
        return "it pays nothing"
    kind = leaf.WhichOneof("source")
    if kind == "release":
        return next(_faults_of_release(leaf), None)
    if kind == "traffic":
        return next(_faults_of_traffic(leaf, chain_id, ledger_key), None)
    return "it has no source"


def _faults_of_release(leaf: Any) -> Iterator[str]:
    if len(leaf.release.share_root) != HASH_BYTES:
        yield "the share root has not 32 bytes"
    if leaf.release.segment > MAX_SEGMENT:
        yield f"the segment is not from 0 to {MAX_SEGMENT}"
    if leaf.release.index > MAX_INDEX:
        yield f"the share's index is not from 0 to {MAX_INDEX}"
    if not 1 <= leaf.release.day <= MAX_RETENTION_DAYS:
        yield f"the day is not from 1 to {MAX_RETENTION_DAYS}"
    if leaf.traffic_class != STORAGE:
        yield "a share's escrow is paid as storage"


def _faults_of_traffic(leaf: Any, chain_id: str, ledger_key: LedgerKey) -> Iterator[str]:
    traffic = leaf.traffic
    limit, receipt = decoded(OrderLimit, traffic.order_limit.body), decoded(Receipt, traffic.receipt.body)
    if limit is None or receipt is None:
        yield "the order limit or the receipt is no document"
        return
    yield from faults_of_limit(limit, chain_id)
    yield from faults_of_receipt(receipt, limit, chain_id)
    if (leaf.beneficiary, leaf.fund, leaf.traffic_class) != (limit.beneficiary, limit.fund, limit.traffic_class):
        yield "beneficiary, fund or class are not those of the order limit"
    if leaf.noz != receipt.bytes_acked * limit.max_noz // limit.max_bytes:
        yield "the noz are not floor(bytes_acked × max_noz ÷ max_bytes)"
    yield from faults_of_authority(traffic, limit, chain_id)
    key = ledger_key(node_of(limit.meta_node) or b"")
    if key is None:
        yield "the meta node of the order limit has no keys"
    elif not documents.signed_by_key(documents.LIMIT_DOMAIN, traffic.order_limit.body, key, traffic.order_limit.signature):
        yield "the meta node has not signed the order limit"
    if not documents.signed_by_key(documents.RECEIPT_DOMAIN, traffic.receipt.body, limit.session_pubkey, traffic.receipt.signature):
        yield "the session key has not signed the receipt"


def faults_of_limit(limit: Any, chain_id: str) -> Iterator[str]:
    """What is wrong with an OrderLimit by itself; who signed it is not looked at."""
    if limit.chain_id != chain_id:
        yield "the order limit is for another chain"
    sizes = {"serial": SERIAL_BYTES} | dict.fromkeys(("lease_id", "session_pubkey", "object_root", "share_root"), HASH_BYTES)
    for name, size in sizes.items():
        if len(getattr(limit, name)) != size:
            yield f"{name} of the order limit has not {size} bytes"
    meta_node = node_of(limit.meta_node)
    if meta_node is None or node_of(limit.node) is None or wallet_of(limit.wallet) is None:
        yield "the order limit names a node or a wallet that is none"
    elif not limit.serial.startswith(serial_prefix(meta_node)):
        yield "the serial of the order limit is not one of its meta node"
    if limit.action not in ACTIONS:
        yield "the action of the order limit is none"
    if limit.max_bytes == 0 or limit.max_noz == 0 or limit.from_noz + limit.max_noz != limit.to_noz:
        yield "the order limit's range is not max_noz long, or it allows nothing"
    if not 0 < limit.created_s < limit.expires_s < _MAX_SECONDS:
        yield "the order limit's times are not in order"


def faults_of_receipt(receipt: Any, limit: Any, chain_id: str) -> Iterator[str]:
    """What is wrong with a Receipt for that OrderLimit; who signed it is not looked at."""
    if receipt.chain_id != chain_id:
        yield "the receipt is for another chain"
    if receipt.serial != limit.serial:
        yield "the receipt is for another order limit"
    if len(receipt.chunks_digest) != HASH_BYTES:
        yield "the receipt's digest has not 32 bytes"
    if receipt.bytes_acked > limit.max_bytes:
        yield "the receipt has more bytes than the order limit allows"
    if not limit.created_s * _MILLIS <= receipt.first_ms <= receipt.last_ms <= limit.expires_s * _MILLIS:
        yield "the receipt's times are not within those of the order limit"


def faults_of_authority(traffic: Any, limit: Any, chain_id: str) -> Iterator[str]:
    """What is wrong with the wallet's grant or legacy string of a TrafficEvidence for that OrderLimit, its signature included."""
    kind = traffic.WhichOneof("authority")
    if kind is None:
        if limit.action in (GET, PUT):
            yield "no wallet has asked for it"
        return
    wallet = wallet_of(limit.wallet) or b""
    if kind == "legacy_grant":
        legacy = traffic.legacy_grant
        yield from faults_of_string(legacy.signed_text, limit, is_put=limit.action == PUT, is_get=limit.action == GET)
        if not documents.legacy_signed(legacy.signed_text, legacy.public_key, legacy.signature, wallet):
            yield "the wallet has not signed the legacy string"
        return
    grant = decoded(SessionGrant, traffic.grant.body)
    if grant is None:
        yield "the session grant is no document"
        return
    yield from faults_of_grant(grant, limit, chain_id)
    if not documents.wallet_signed(traffic.grant.body, traffic.grant.public_key, traffic.grant.signature, wallet):
        yield "the wallet has not signed the session grant"


def faults_of_grant(grant: Any, limit: Any, chain_id: str) -> Iterator[str]:
    """What is wrong with a SessionGrant for that OrderLimit; who signed it is not looked at."""
    if grant.chain_id != chain_id:
        yield "the session grant is for another chain"
    if (grant.wallet, grant.session_pubkey) != (limit.wallet, limit.session_pubkey):
        yield "wallet or session key of the session grant are not those of the order limit"
    actions = list(grant.actions)
    if any(one not in ACTIONS for one in actions) or any(left >= right for left, right in pairwise(actions)):
        yield "the session grant's actions are not in order, each once"
    if limit.action not in actions:
        yield "the session grant does not allow the action"
    if len(grant.nonce) != SERIAL_BYTES or len(grant.path_prefix.encode()) > MAX_PATH_PREFIX:
        yield "the session grant's nonce has not 16 bytes, or its path is longer than 1,024 bytes"
    if limit.max_noz > grant.max_noz:
        yield "the order limit allows more noz than the session grant"
    if not 0 < grant.not_before_s < grant.expires_s <= grant.not_before_s + LONGEST_GRANT_S:
        yield f"the session grant's times are not in order, or longer than {LONGEST_GRANT_S} s"
    if not (grant.not_before_s <= limit.created_s and limit.expires_s <= grant.expires_s):
        yield "the order limit's times are not within those of the session grant"
