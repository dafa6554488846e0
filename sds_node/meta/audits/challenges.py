"""What an audit asks and what proves it: random shares of a node and a random leaf of each, from a block hash that nobody knew before. Pure functions.

    block hash, node, day ─► seed ─► places in the node's list ─► (share, leaf of 16 KiB) ─► AuditChallenge, signed ─► leaf and path ─► under the share's root?

That a share's root is under the segment's root in the ledger is checked where roots are read (``users/roots.py``). Proofs show that a node can produce
a share's bytes, not that it has a copy of its own (storage-protocol.md 3.5).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, Final

import nacl.signing
from google.protobuf.message import DecodeError

from chain.codec.canonical import encode
from chain.crypto import address as bech32
from modules.settlement.documents import to_sign
from modules.settlement.trees import leaf_hash
from sds_node.merkle import leaf_count, leaf_proved
from sds_node.transfers import AUDIT_DOMAIN, MAX_AUDIT_ITEMS, AuditAnswer, AuditChallenge, AuditHead, audit_body

_SEED: Final = b"stratos/audit-seed/v1\0"


@dataclass(frozen=True, slots=True)
class Item:
    """A share that is asked for, and which of its leaves. ``size_bytes`` is the share's."""

    segment: int
    index: int
    serial: bytes
    share_root: bytes
    size_bytes: int
    leaf: int = 0


def seed_of(block_hash: bytes, node: bytes, round_: int) -> bytes:
    """The seed of a node's audit: 32 bytes from an observed block hash, the node's address and the number of the audit's day."""
    return sha256(_SEED + block_hash + node + round_.to_bytes(8, "big")).digest()


def drawn(seed: bytes, name: bytes, at: int, below: int) -> int:
    """Number ``at`` of a stream of random numbers from 0 to below − 1. 128 bits are taken, so no number is visibly more likely."""
    return int.from_bytes(sha256(seed + name + at.to_bytes(8, "big")).digest()[:16], "big") % below


def places(seed: bytes, shares: int, count: int) -> list[int]:
    """At most ``count`` different places in a list of ``shares``, in order."""
    if shares <= count:
        return list(range(shares))
    chosen: set[int] = set()
    at = 0
    while len(chosen) < count:
        chosen.add(drawn(seed, b"place", at, shares))
        at += 1
    return sorted(chosen)


def with_leaves(items: Sequence[Item], seed: bytes) -> list[Item]:
    """The items with a leaf of each share drawn anew."""
    return [replace(item, leaf=drawn(seed, b"leaf", at, leaf_count(item.size_bytes))) for at, item in enumerate(items)]


def challenges(
    items: Sequence[Item], chain_id: str, meta_node: bytes, node: bytes, height: int, block_hash: bytes, due_s: int, key: nacl.signing.SigningKey
) -> list[tuple[Any, Sequence[Item]]]:
    """Signed AuditHeads of at most 256 items, each with what it asks for."""
    made: list[tuple[Any, Sequence[Item]]] = []
    for at in range(0, len(items), MAX_AUDIT_ITEMS):
        part = items[at : at + MAX_AUDIT_ITEMS]
        challenge = AuditChallenge(
            chain_id=chain_id,
            meta_node=bech32.encode(meta_node, bech32.NODE),
            node=bech32.encode(node, bech32.NODE),
            height=height,
            block_hash=block_hash,
            due_s=due_s,
        )
        for item in part:
            challenge.items.add(serial=item.serial, share_root=item.share_root, leaf_index=item.leaf)
        body = audit_body(challenge)
        made.append((AuditHead(body=body, signature=bytes(key.sign(to_sign(AUDIT_DOMAIN, body)).signature)), part))
    return made


def judged(head: Any, items: Sequence[Item], raw: bytes) -> tuple[list[Item], bytes]:
    """(the items that an answer does not prove, the record of it). A record is the canonical AuditHead and AuditAnswer, each after its length (4 bytes),
    with each leaf's hash in place of the leaf, so that others can check it; an item that is not proved has an empty proof."""
    try:
        answer = AuditAnswer.FromString(raw)
    except DecodeError:
        answer = AuditAnswer()
    fits = answer.challenge_hash == sha256(head.body).digest() and len(answer.proofs) == len(items)
    kept = AuditAnswer(challenge_hash=sha256(head.body).digest())
    failed: list[Item] = []
    for at, item in enumerate(items):
        proof = kept.proofs.add()
        given = answer.proofs[at] if fits else None
        if given is not None and leaf_proved(item.share_root, given.leaf, item.leaf, leaf_count(item.size_bytes), list(given.path)):
            proof.leaf = leaf_hash(given.leaf)
            proof.path.extend(given.path)
        else:
            failed.append(item)
    return failed, framed(encode(head)) + framed(encode(kept))


def framed(data: bytes) -> bytes:
    """Bytes after their length, 4 bytes big-endian."""
    return len(data).to_bytes(4, "big") + data
