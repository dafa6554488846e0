"""From the ledger's rows to the manifest of an object, and what of the ledger changed such a manifest.

    the log, from a sequence on ─► operations ─► objects and segments that changed        object, its record ─► ObjectManifest
       commit: the object is complete · move: a share is at another node · orders of wallets: its record, its term
       what a commit or an order put into the trash ◄─ the queue: whose time there ends so many days after the operation

A renewal at a term's end comes from a tick, and is seen when a node is compared (``compared.py``). Source: rules/wire.py; sds_node/manifests.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from google.protobuf.message import DecodeError

from chain.codec.registry import message_class
from sds_node.documents import PACKAGE
from sds_node.manifests import ObjectManifest
from sds_node.meta.ledger.engine import ReadView
from sds_node.meta.ledger.errors import Refused
from sds_node.meta.ledger.log import Entry
from sds_node.meta.ledger.tables import View
from sds_node.meta.rules.commit import object_id
from sds_node.meta.rules.objects import STORED
from sds_node.meta.rules.tables import DAY_MS, FILE, ID_BYTES, QUEUE, STATE, TRASH, TRASHED, File, Object, Trash
from sds_node.meta.rules.wire import WalletOrder, open_operation

FileRecord: Final = message_class(f"{PACKAGE}.FileRecord")
ENTRIES: Final = 200
"""Operations that are looked at in one go."""
QUEUED: Final = 1_000
"""Rows of the queue that are looked at in one go."""
_OWN: Final = ("meta_node", "sequence")
"""Fields of a manifest that say who signed it and when."""


@dataclass(slots=True)
class Changes:
    """What operations up to ``after`` changed. ``is_all``: there are no more to look at now."""

    after: int
    is_all: bool = True
    complete: set[bytes] = field(default_factory=set)
    """Objects that all of their nodes shall hear of."""
    records: set[bytes] = field(default_factory=set)
    """Objects whose record or term changed."""
    segments: set[int] = field(default_factory=set)
    """Segments of which a share moved."""


def changes(view: ReadView, after: int, before_ms: int) -> Changes:
    """What operations after a sequence changed, those that are older than ``before_ms`` by the ledger's time. The log is gone through from its beginning where it
    has not, or not yet, what comes after that sequence: it is another ledger's then."""
    head = view.head
    found = Changes(after if head.base_sequence <= after <= head.sequence else head.base_sequence)
    entries = view.entries(found.after, ENTRIES)
    trashed_ms: set[int] = set()
    for entry in entries:
        if entry.time_ms > before_ms:
            break
        if entry.code == 0 and _look(view, entry, found):
            trashed_ms.add(entry.time_ms)
        found.after = entry.sequence
    else:
        found.is_all = not entries
    for time_ms in sorted(trashed_ms):
        found.records.update(_trashed(view, time_ms))
    return found


def _trashed(view: View, time_ms: int) -> Iterator[bytes]:
    """Objects that went into the trash at a time, all wallets', as far as they are still there and the days that things stay there are the same."""
    state, after = view.get(STATE, (1,)), b""
    if state is None:
        return
    while page := view.scan(QUEUE, (time_ms + state.trash_days * DAY_MS, TRASHED), after=(after,), limit=QUEUED):
        yield from (row.id for row in page)
        after = page[-1].id


def _look(view: View, entry: Entry, found: Changes) -> bool:
    """Note what an operation changed. Whether it may have put something into the trash."""
    try:
        operation, _, _ = open_operation(entry.operation)
    except Refused:
        return False
    kind = operation.WhichOneof("kind")
    if kind == "commit":
        found.complete.update(object_id(operation.commit.lease_id, new.counter) for new in operation.commit.objects)
    elif kind == "move":
        found.segments.update(share.segment for share in operation.move.shares)
    elif kind == "wallet_order":
        try:
            order = WalletOrder.FromString(operation.wallet_order.body)
        except DecodeError:
            return False
        found.records.update(_ordered(view, order))
        return bool(order.WhichOneof("kind") == "delete")
    return bool(kind == "commit" or (kind == "legacy_order" and operation.legacy_order.delete))


def _ordered(view: View, order: Any) -> Iterable[bytes]:
    """Ids of objects whose record an order changed, but for what it put into the trash."""
    wallet, kind = bytes(order.wallet), order.WhichOneof("kind")
    if kind == "restore":
        return [bytes(one) for one in order.restore.object_ids if len(one) == ID_BYTES]
    names = [order.rename.file.lookup_id] if kind == "rename" else order.renew.lookup_ids if kind == "renew" else ()
    files = [view.get(FILE, (wallet, bytes(name))) for name in names if len(name) == ID_BYTES]
    return [row.object for row in files if row is not None]


def record_of(view: View, row: Object) -> File | Trash | None:
    """The record of a stored object, in use or in the trash; None for an object that has none yet, or no more."""
    if row.state not in STORED:
        return None
    if row.state == TRASHED:
        return view.get(TRASH, (row.payer, row.id))
    file = view.get(FILE, (row.payer, row.lookup_id))
    return file if file is not None and file.object == row.id else None


def manifest_of(view: ReadView, row: Object, chain_id: str, meta_node: bytes) -> Any | None:
    """The ObjectManifest of a stored object as the ledger has it now, by a meta node (20 bytes); None for an object without a record."""
    record = record_of(view, row)
    if record is None:
        return None
    return ObjectManifest(
        chain_id=chain_id, meta_node=meta_node, sequence=view.head.sequence, object_id=row.id, payer=row.payer, lease=row.lease, fund=row.fund,
        root=row.root, file_hash=row.file_hash, size_bytes=row.size_bytes, data_shares=row.k, total_shares=row.n, first_segment=row.first_segment,
        escrow_ratio_e18=row.escrow_ratio_e18, made_ms=row.made_ms, term_days=row.term_days, terms=row.terms, promo_ends_ms=row.promo_ends_ms,
        file=FileRecord(lookup_id=record.lookup_id, name=record.name, wrapped_key=record.wrapped_key, is_public=record.is_public),
        file_made_ms=record.made_ms, file_changed_ms=record.changed_ms if isinstance(record, File) else record.made_ms,
        trashed_until_ms=row.due_ms if row.state == TRASHED else 0,
    )  # fmt: skip


def says_same(one: Any, other: Any) -> bool:
    """Whether two ObjectManifests say the same of an object, whoever signed them and when."""
    left, right = ObjectManifest(), ObjectManifest()
    left.CopyFrom(one)
    right.CopyFrom(other)
    for name in _OWN:
        left.ClearField(name)
        right.ClearField(name)
    return bool(left == right)
