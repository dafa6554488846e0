"""Whether the leaves of another meta node's window are what the ledger has of it, and each one a leaf that pays.

    leaves ─ batch and root those of the ledger's row? ─ no: NotThatWindow, somebody else may have them
                  │ yes: it is that window, whoever gave it
                  └─ Σ noz ── what it took from each lease and gave to each wallet ── settlement's rules for each leaf ─► rows for the books, or BadWindow

A release has no root over its leaves: the ledger's log has its result, from which the leaves follow as far as the rows are there still. Runs in threads.
Sources: ADR 10; storage-protocol.md 1.9, 3.6.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from typing import Any, Final, NamedTuple

from google.protobuf.message import DecodeError

from modules.settlement import leaves as settlement
from modules.settlement.commitment import wallet_of
from modules.settlement.leaves import AUDIT, PUT, REPAIR, Leaf
from modules.settlement.trees import sum_root
from sds_node.meta.books.books import NEVER_MS, LeafRow, State
from sds_node.meta.books.judging import Judge, read
from sds_node.meta.books.others import BadWindow
from sds_node.meta.books.releases import DAY_BYTES
from sds_node.meta.ledger.engine import ReadView
from sds_node.meta.rules import tables
from sds_node.meta.rules.epochs import MAX_META_ROWS
from sds_node.meta.rules.objects import released_until, share_escrow
from sds_node.meta.rules.releases import settled_of
from sds_node.meta.rules.windows import MAX_ENTRY_NOZ
from sds_node.meta.rules.wire import open_operation
from sds_node.transfers import serial_at

ENTRIES_READ: Final = 200
MAX_ENTRIES: Final = 5_000
"""Of the ledger's log are looked at to find a window's operation: those of its millisecond."""


class NotThatWindow(Exception):
    """What was given is not the window that was asked for. The text says what differs."""


class ShareDay(NamedTuple):
    """What a release's leaf pays as the ledger says: the noz, and whose share it is."""

    noz: int
    fund: int
    segment: tables.Segment
    place: int
    """Its index in the segment."""


ShareRoot = Callable[[tables.Segment, int], "bytes | None"]
"""The root of a segment's share, asked in a thread; None when it is not known."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the ledger has of a window. ``debits``: lease → (noz, of these for storing); ``repairs``: fund → noz; ``credits``: (wallet, fund, class) → noz; None
    where the log does not tell any more. ``days``: what a release's leaves are by their serial ‖ day; ``is_whole``: those are all."""

    row: tables.WindowRow
    ledger_keys: Mapping[bytes, bytes]
    debits: Mapping[bytes, tuple[int, int]] | None = None
    repairs: Mapping[int, int] = field(default_factory=dict)
    credits: Mapping[tuple[bytes, int, int], int] = field(default_factory=dict)
    days: Mapping[bytes, ShareDay] = field(default_factory=dict)
    is_whole: bool = False


def wanted_of(view: ReadView, meta_node: bytes, number: int) -> Wanted | None:
    """What the ledger says of a window; None for one that it does not have."""
    row = view.get(tables.WINDOW, (meta_node, number))
    if row is None:
        return None
    keys = {meta.address: meta.ledger_key for meta in view.scan(tables.META, limit=MAX_META_ROWS) if meta.ledger_key}
    found = _logged(view, row)
    if found is None:
        return Wanted(row, keys)
    message, result = found
    if row.is_release:
        days, is_whole = _days_of(view, message, result)
        return Wanted(row, keys, days=days, is_whole=is_whole)
    repairs: Counter[int] = Counter()
    for one in message.repairs:
        repairs[one.fund] += one.noz
    return Wanted(
        row,
        keys,
        {one.lease_id: (one.noz, one.put_noz) for one in message.leases},
        repairs,
        {(one.beneficiary, one.fund, one.traffic_class): one.noz for one in message.credits},
    )


def _logged(view: ReadView, row: tables.WindowRow) -> tuple[Any, bytes] | None:
    """(message, result) of a window's or release's operation, if the log has it."""
    after = view.sequence_at(row.made_ms) - 1
    kind = "release" if row.is_release else "window"
    for _ in range(MAX_ENTRIES // ENTRIES_READ):
        page = view.entries(after, ENTRIES_READ)
        for entry in page:
            after = entry.sequence
            if entry.time_ms != row.made_ms:
                return None
            operation, _, _ = open_operation(entry.operation) if entry.code == 0 else (None, b"", b"")
            if operation is not None and operation.meta_node == row.meta_node and operation.WhichOneof("kind") == kind:
                message = getattr(operation, kind)
                if message.number == row.number:
                    return message, entry.result
        if not page:
            return None
    return None


def _days_of(view: ReadView, message: Any, result: bytes) -> tuple[dict[bytes, ShareDay], bool]:
    """What a release's result makes of the ledger's rows, and whether all of them are there still."""
    found: dict[bytes, ShareDay] = {}
    is_whole = True
    for one in settled_of(result):
        if not one.has_passed:
            continue
        segment = view.get(tables.SEGMENT, (one.segment,))
        row = view.get(tables.OBJECT, (segment.object,)) if segment is not None else None
        if segment is None or row is None:
            is_whole = False
            continue
        moved = view.get(tables.MOVED, (one.segment, one.index))
        serials = [serial_at(segment.first_serial, one.index)]
        if moved is not None:
            # Before the release or since: either serial may be the one that was paid.
            serials.append(moved.serial)
            is_whole = False
        escrow = share_escrow(row, one.segment - row.first_segment)
        before = released_until(escrow, one.first_day - 1, row.term_days)
        for day in range(one.first_day, one.last_day + 1):
            until = released_until(escrow, day, row.term_days)
            noz, before = until - before, until
            for serial in serials if noz else ():
                found[serial + day.to_bytes(DAY_BYTES, "big")] = ShareDay(noz, row.fund, segment, one.index)
    return found, is_whole


def rows_of(raws: Sequence[bytes], wanted: Wanted, judge: Judge, chain_id: str, share_root: ShareRoot | None) -> list[LeafRow]:
    """The leaves of a window as rows of the books. Raises NotThatWindow for leaves that are another's, BadWindow for a window that does not hold."""
    leaves = [_leaf(raw) for raw in raws]
    keys = [settlement.sort_key(leaf) for leaf in leaves]
    noz = sum(leaf.noz for leaf in leaves)
    row = wanted.row
    if row.is_release:
        if noz != row.noz:
            raise NotThatWindow(f"its leaves have {noz} noz, the ledger moved {row.noz}")
    else:
        root, _ = sum_root([(raw, leaf.noz) for raw, leaf in zip(raws, leaves, strict=True)])
        digest = sha256(b"".join([len(raw).to_bytes(4, "big") + raw for raw in raws])).digest()
        if (len(raws), root, digest) != (row.items, row.root, row.batch_hash):
            raise NotThatWindow(f"it has {len(raws)} leaves under root {root.hex()[:16]}…, the ledger {row.items} under {row.root.hex()[:16]}…")
        if noz != row.noz:
            raise BadWindow(f"its leaves have {noz} noz, the ledger moved {row.noz}")
    for left, right in zip([None, *keys], keys, strict=False):
        if right is None or (left is not None and left >= right):
            raise BadWindow("its leaves are not in order, each once")
    if row.is_release:
        _check_release(leaves, wanted, share_root)
        return [_row(leaf, raw) for leaf, raw in zip(leaves, raws, strict=True)]
    made = []
    key_of = partial(dict.get, dict(wanted.ledger_keys))
    for leaf, raw in zip(leaves, raws, strict=True):
        asked = read(leaf)
        fault = "it is no traffic" if asked.limit is None or asked.receipt is None else judge.fault(asked, chain_id, key_of)
        if fault is not None:
            raise BadWindow(f"the leaf of serial {asked.serial.hex()} is bad: {fault}")
        made.append(_row(leaf, raw, asked.limit, asked.receipt.bytes_acked))
    _check_totals(made, wanted)
    return made


def _leaf(raw: bytes) -> Any:
    try:
        leaf = Leaf.FromString(raw)
    except DecodeError:
        raise NotThatWindow(f"expected leaves, got {len(raw)} bytes that are none") from None
    if settlement.leaf_bytes(leaf) != raw:
        raise NotThatWindow("a leaf is not in canonical form")
    return leaf


def _row(leaf: Any, raw: bytes, limit: Any = None, acked_bytes: int = 0) -> LeafRow:
    once, beneficiary = settlement.identity(leaf), wallet_of(leaf.beneficiary)
    if once is None or beneficiary is None or max(leaf.noz, acked_bytes) > MAX_ENTRY_NOZ:
        raise BadWindow("a leaf pays no wallet, has no serial, or is for more than 2^63 - 1 noz")
    is_repair = limit is not None and limit.action in (REPAIR, AUDIT)
    lease = b"" if limit is None or is_repair else bytes(limit.lease_id)
    owner = bytes(limit.object_root) if is_repair else b""
    action = 0 if limit is None else int(limit.action)
    return LeafRow(
        once, State.SETTLED, beneficiary, leaf.fund, leaf.traffic_class, leaf.noz, acked_bytes, lease, owner, action, NEVER_MS, 0, 0, raw, ""
    )


def _check_totals(rows: Sequence[LeafRow], wanted: Wanted) -> None:
    """What the window took from leases and gave to wallets is what its leaves say."""
    if wanted.debits is None:
        return
    leases: Counter[bytes] = Counter()
    puts: Counter[bytes] = Counter()
    repairs: Counter[int] = Counter()
    credits: Counter[tuple[bytes, int, int]] = Counter()
    for row in rows:
        credits[row.beneficiary, row.fund, row.traffic_class] += row.noz
        if row.lease:
            leases[row.lease] += row.noz
            puts[row.lease] += row.noz if row.action == PUT else 0
        else:
            repairs[row.fund] += row.noz
    taken = {key: (noz, puts[key]) for key, noz in leases.items()}
    for what, got, has in (
        ("took from leases", taken, dict(wanted.debits)),
        ("took from repair funds", dict(repairs), dict(wanted.repairs)),
        ("gave to wallets", dict(credits), dict(wanted.credits)),
    ):
        if got != has:
            raise BadWindow(f"what the window {what} is not what its leaves say")


def _check_release(leaves: Sequence[Any], wanted: Wanted, share_root: ShareRoot | None) -> None:
    """Each leaf is good by itself and, as far as the ledger tells, one day of a share that the release paid."""
    seen = 0
    for leaf in leaves:
        fault = settlement.fault(leaf, "", lambda _: None) if leaf.WhichOneof("source") == "release" else "it is no release"
        if fault is not None:
            raise BadWindow(f"a leaf is bad: {fault}")
        once = settlement.identity(leaf) or b""
        day = wanted.days.get(once)
        if day is None:
            if wanted.is_whole:
                raise BadWindow(f"the release did not pay {once.hex()}")
            continue
        seen += 1
        if (leaf.noz, leaf.fund) != (day.noz, day.fund):
            raise BadWindow(f"the leaf {once.hex()} has {leaf.noz} noz of fund {leaf.fund}, the release paid {day.noz} of fund {day.fund}")
        root = share_root(day.segment, day.place) if share_root is not None else None
        if root is not None and root != leaf.release.share_root:
            raise BadWindow(f"the leaf {once.hex()} names another share than the one at place {day.place} of segment {day.segment.number}")
    if wanted.is_whole and seen != len(wanted.days):
        raise BadWindow(f"it has {seen} leaves, the release paid {len(wanted.days)} days of shares")
