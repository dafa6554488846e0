"""Object manifests: what the ledger knows of an object, signed by a meta node and kept by every node that holds a share of it.

    ledger row + file record ─ meta node signs ─► object.keep ─► node: objects.db, beside its shares
    ledger lost:  object.list, share.kept ◄─ any active meta node ─► what was stored, without the ledger

A share has its own manifest already (which share of which segment of which object, signed by the session key); this one has what is the same for all shares
of an object. The later one, by the ledger's sequence, replaces the earlier; one that a comparison found wrong is replaced whatever its sequence. Body: canonical protobuf of at most 4,096 bytes; ed25519 keys sign
domain ‖ 0x00 ‖ SHA-256(body), as all documents of the storage network are signed (``documents.py``).

With a copy goes the list of the roots of all its segment's shares, where those differ (k > 1): who has lost a share must know its root to make it again, and a
path shows hashes of roots alone. The list needs no signature, it lies under the segment's root.
"""

from __future__ import annotations

from typing import Any, Final

import nacl.signing

from chain.codec.canonical import encode, known
from chain.codec.registry import message_class
from modules.settlement.documents import signed_by_key, to_sign
from modules.settlement.leaves import HASH_BYTES
from sds_node.documents import MAX_SHARES, PACKAGE, Refused, SignedDocument, opened
from sds_node.merkle import segment_root

ObjectManifest: Final = message_class(f"{PACKAGE}.ObjectManifest")
KeptObject: Final = message_class(f"{PACKAGE}.KeptObject")
RootsOfCopy: Final = message_class(f"{PACKAGE}.RootsOfCopy")
ObjectList: Final = message_class(f"{PACKAGE}.ObjectList")
ObjectsHead: Final = message_class(f"{PACKAGE}.ObjectsHead")
KeptCopiesHead: Final = message_class(f"{PACKAGE}.KeptCopiesHead")
KeptCopy: Final = message_class(f"{PACKAGE}.KeptCopy")
KeptCopies: Final = message_class(f"{PACKAGE}.KeptCopies")

KEEP_OBJECTS: Final = "object.keep"
"""ObjectList → nothing: a meta node gives manifests of objects of which the node holds the named copies, and share roots of such copies' segments."""
LIST_OBJECTS: Final = "object.list"
"""ObjectsHead → ObjectList: manifests in the order of object ids, those that follow ``after``, without share roots; an empty list at the end."""
LIST_KEPT: Final = "share.kept"
"""KeptCopiesHead → KeptCopies: confirmed and pending copies with the KeptShare of each, those that follow ``after``; ``last`` empty at the end."""
LIST_ROOTS: Final = "object.roots"
"""KeptCopiesHead → KeptCopies: keys alone of copies of whose segment the share roots are kept, those that follow ``after``; fewer than asked for at the end."""

OBJECT_DOMAIN: Final = b"stratos/object-manifest/v1"
MAX_OBJECT_BYTES: Final = 4_096
ADDRESS_BYTES: Final = 20
MAX_OBJECTS_ASKED: Final = 100
"""Manifests in one message."""
MAX_ROOTS_GIVEN: Final = 500
"""Lists of share roots in one message."""
MAX_KEPT_ASKED: Final = 100
"""Copies in one ``share.kept``."""
MAX_ROOTS_ASKED: Final = 1_000
"""Copies in one ``object.roots``."""
MAX_ROOTS_BYTES: Final = MAX_ROOTS_ASKED * 64
MAX_LIST_BYTES: Final = MAX_OBJECTS_ASKED * (MAX_OBJECT_BYTES + 256) + MAX_ROOTS_GIVEN * (MAX_SHARES * HASH_BYTES + 128)
MAX_KEPT_BYTES: Final = MAX_KEPT_ASKED * (8_192 + MAX_SHARES * HASH_BYTES + 128) + 128
MAX_INT63: Final = (1 << 63) - 1
MAX_SEQUENCE: Final = 1 << 62
"""No ledger comes so far."""
SEQUENCES_LEFT: Final = 1 << 41
"""A ledger that is made anew begins so far below that, whatever it was made of."""


def signed_object(manifest: Any, key: nacl.signing.SigningKey) -> Any:
    """The SignedDocument of an ObjectManifest by a meta node's ledger key. Raises ValueError for one that is too long to be read back."""
    body = encode(known(manifest))
    if len(body) > MAX_OBJECT_BYTES:
        raise ValueError(f"an object's manifest has at most {MAX_OBJECT_BYTES} bytes, not {len(body)}")
    return SignedDocument(body=body, signature=bytes(key.sign(to_sign(OBJECT_DOMAIN, body)).signature))


def read_object(given: Any, chain_id: str) -> Any:
    """The ObjectManifest of a SignedDocument, its form checked; whether it is signed is ``is_signed_by``'s to say. Raises Refused."""
    found = opened(ObjectManifest, given.body)
    if found.chain_id != chain_id:
        raise Refused(f"expected an object's manifest of chain {chain_id}, got one of {found.chain_id[:64]!r}")
    ids = (found.object_id, found.lease, found.root, found.file.lookup_id)
    if any(len(one) != HASH_BYTES for one in ids) or any(len(one) != ADDRESS_BYTES for one in (found.meta_node, found.payer)):
        raise Refused("expected an object's manifest with an object id, a lease, a root and a lookup id of 32 bytes, a meta node and a payer of 20")
    if not 0 < found.data_shares <= found.total_shares <= MAX_SHARES or found.fund not in (1, 2):
        raise Refused(f"expected k of n shares and a fund of 1 or 2, got {found.data_shares} of {found.total_shares} and {found.fund}")
    if found.sequence > MAX_SEQUENCE:
        raise Refused(f"expected an object's manifest of an operation up to 2^62, got {found.sequence}")
    times = (found.made_ms, found.promo_ends_ms, found.file_made_ms, found.file_changed_ms, found.trashed_until_ms)
    counts = (found.sequence, found.size_bytes, found.first_segment, found.escrow_ratio_e18)
    if any(not 0 <= one <= MAX_INT63 for one in (*times, *counts)) or not (found.term_days and found.terms):
        raise Refused("expected an object's manifest with times and counts from 0 to 2^63 - 1, and at least one term of a day")
    return found


def read_roots(given: bytes, root_of_segment: bytes, count: int) -> list[bytes] | None:
    """The roots of a segment's ``count`` shares from their bytes, one after the other; None unless they lie under the segment's root."""
    if len(given) != count * HASH_BYTES:
        return None
    roots = [given[at : at + HASH_BYTES] for at in range(0, len(given), HASH_BYTES)]
    return roots if segment_root(roots) == root_of_segment else None


def is_signed_by(given: Any, key: bytes) -> bool:
    """Whether an ed25519 key (32 bytes) signed the SignedDocument of an ObjectManifest."""
    return signed_by_key(OBJECT_DOMAIN, given.body, key, given.signature)
