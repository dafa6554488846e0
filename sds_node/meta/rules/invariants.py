"""What is always true of the tables, whatever operations came. For tests and for an operator's check: it walks every row.

1. Wallets, leases, escrows, repair funds, earned and expired promo add up to what the chain owes, and so do the granted ones alone.
2. That is S ÷ rate − Lt at the observed height, less at most one noz for each deposit change.
3. The queue has what will happen, and nothing else.
4. A node's list is what segments say; an escrow is what its shares' days leave.
5. Counts are counts.
6. Shares that have one link are of the same public content, none with a password; each of another object, and at most so many.
7. Marks are of epochs that there are, within the windows that there are; what was taken over is a lease.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sds_node.meta.ledger.schema import Key, Table
from sds_node.meta.ledger.tables import View
from sds_node.meta.rules.call import state_of
from sds_node.meta.rules.leases import settles_ms
from sds_node.meta.rules.money import promo_id
from sds_node.meta.rules.objects import STORED, released_until, share_escrow
from sds_node.meta.rules.places import FAILED_OF_NODE, Entry, days_of, entries_of, nodes_of
from sds_node.meta.rules.shares import ALSO_OF_A_LINK, is_for_all
from sds_node.meta.rules.tables import (
    ALSO,
    ASKED,
    CHUNK_ENTRIES,
    COMMITTED,
    EARNED,
    ENDING,
    ENDOWED,
    EPOCH,
    EPOCH_ENDS,
    EPOCH_LINE,
    EPOCH_MARK,
    FAILED,
    FILE,
    GRACE,
    HELD,
    KEPT,
    LEASE,
    LEASE_ENDS,
    META,
    MOVED,
    NODE,
    OBJECT,
    PAID,
    PROMO,
    PROMO_ENDS,
    PROMO_NOZ,
    QUEUE,
    SEGMENT,
    SHARE,
    SHARE_ENDS,
    TAKEN,
    TRASH,
    TRASHED,
    USED,
    USED_ENDS,
    VOID,
    WALLET,
    Object,
    Segment,
    Share,
)

_PAGE = 1_000


def walk(view: View, table: Table[Any], prefix: Key = (), *, start: Key = (), end: Key = ()) -> Iterator[Any]:
    """Every row of a table, in the order of its key; ``prefix``, ``start`` and ``end`` bound them as they do for ``scan``."""
    page = view.scan(table, prefix, start=start, end=end, limit=_PAGE)
    while page:
        yield from page
        if len(page) < _PAGE:
            return
        page = view.scan(table, prefix, after=table.key_of(page[-1])[len(prefix) :], end=end, limit=_PAGE)


def placed_noz(view: View, fund: int) -> int:
    """All noz of a fund, wherever they are."""
    state = state_of(view)
    total = state.repair_paid_noz if fund == PAID else state.repair_promo_noz + state.promo_expired_noz
    total += sum(row.paid_noz if fund == PAID else row.promo_noz for row in walk(view, WALLET))
    total += sum(row.noz for row in walk(view, LEASE) if row.fund == fund)
    total += sum(row.escrow_noz + row.repair_noz for row in walk(view, OBJECT) if row.fund == fund)
    return int(total + sum(row.noz for row in walk(view, EARNED) if row.fund == fund))


def gap_noz(view: View) -> int:
    """S ÷ rate − Lt as observed, less what all places have: from 0 to the number of deposit changes."""
    state = state_of(view)
    return state.outstanding_noz - (state.owed_noz + state.shortfall_noz)


def check(view: View) -> None:
    """Raise AssertionError with what does not hold."""
    _check_sums(view)
    _check_queue(view)
    objects = {row.id: row for row in walk(view, OBJECT)}
    segments = {row.number: row for row in walk(view, SEGMENT)}
    _check_objects(objects, segments)
    _check_places(view, segments)
    _check_records(view, objects)
    _check_links(view, objects)
    _check_counts(view)
    _check_epochs(view)


def _same(what: str, got: object, wanted: object) -> None:
    if got != wanted:
        raise AssertionError(f"{what}: expected {wanted!r:.500}, got {got!r:.500}")


def _check_sums(view: View) -> None:
    state = state_of(view)
    paid, promo = placed_noz(view, PAID), placed_noz(view, PROMO)
    _same("all noz", paid + promo, state.owed_noz + state.shortfall_noz)
    _same("granted noz", promo, state.promo_owed_noz + state.promo_shortfall_noz)
    for row in walk(view, WALLET):
        _same(f"promo of {row.address.hex()}", sum(one.noz for one in walk(view, PROMO_NOZ, (row.address,))), row.promo_noz)
    wallets = {row.address for row in walk(view, WALLET)}
    _same("owners of promo without a wallet", [row for row in walk(view, PROMO_NOZ) if row.wallet not in wallets], [])
    _same("empty rows", [row for table in (PROMO_NOZ, EARNED) for row in walk(view, table) if row.noz == 0], [])


def _check_queue(view: View) -> None:
    wanted: list[tuple[int, int, bytes]] = []
    wanted += [(settles_ms(row), LEASE_ENDS, row.id) for row in walk(view, LEASE)]
    wanted += [(row.ends_ms, PROMO_ENDS, promo_id(row.wallet, row.ends_ms)) for row in walk(view, PROMO_NOZ)]
    wanted += [(row.due_ms, row.state, row.id) for row in walk(view, OBJECT)]
    wanted += [(row.ends_ms, USED_ENDS, row.digest) for row in walk(view, USED)]
    wanted += [(row.ends_ms, SHARE_ENDS, row.id) for row in walk(view, SHARE) if row.ends_ms]
    wanted += [(row.ends_ms, EPOCH_ENDS, row.number.to_bytes(8, "big")) for row in walk(view, EPOCH) if row.ends_ms]
    _same("the queue", [tuple(row) for row in walk(view, QUEUE)], sorted(wanted))


def _check_objects(objects: dict[bytes, Object], segments: dict[int, Segment]) -> None:
    numbers: list[int] = []
    for row in objects.values():
        _same(f"segments of {row.id.hex()}", row.committed == row.segments or row.state not in STORED, True)
        numbers.extend(range(row.first_segment, row.first_segment + row.committed))
        escrow = term = 0
        for number in range(row.first_segment, row.first_segment + row.committed):
            segment = segments[number]
            _same(f"object of segment {number}", (segment.object, len(segment.nodes), len(segment.days)), (row.id, 4 * row.n, 2 * row.n))
            each = share_escrow(row, number - row.first_segment)
            for node, day in zip(nodes_of(segment.nodes), days_of(segment.days), strict=True):
                if node:
                    term += each
                    escrow += row.terms * each - released_until(each, day, row.term_days)
        if row.state != ENDING:
            _same(f"escrow of {row.id.hex()}", (row.escrow_noz, row.term_noz), (escrow, term))
    _same("segments", sorted(numbers), sorted(segments))


def _check_places(view: View, segments: dict[int, Segment]) -> None:
    by_node: dict[int, list[Entry]] = {}
    for number in sorted(segments):
        for index, node in enumerate(nodes_of(segments[number].nodes)):
            if node:
                by_node.setdefault(node, []).append((number, index))
    held: dict[int, list[Entry]] = {}
    for chunk in walk(view, HELD):
        entries = entries_of(chunk)
        _same("a chunk's ends", (chunk.first, chunk.last, chunk.entries), (entries[0][0], entries[-1][0], len(entries)))
        _same("a chunk's size", len(entries) <= CHUNK_ENTRIES, True)
        held.setdefault(chunk.node, []).extend(entries)
    _same("what nodes hold", held, by_node)
    for row in walk(view, NODE):
        _same(f"shares of node {row.number}", row.shares, len(by_node.get(row.number, [])))
    failed: dict[int, list[Entry]] = {}
    for row in walk(view, FAILED):
        failed.setdefault(row.node, []).append((row.segment, row.share))
    for node, rows in failed.items():
        _same(f"failed shares of node {node}", len(rows) <= FAILED_OF_NODE and set(rows) <= set(by_node.get(node, ())), True)
    moves = list(walk(view, MOVED))
    early = {(row.segment, row.share) for row in walk(view, COMMITTED)}
    _same("shares that were moved early", early <= {(moved.segment, moved.share) for moved in moves}, True)
    for moved in moves:
        _same("a moved share", moved.segment in segments and moved.share < len(segments[moved.segment].nodes) // 4, True)


def _check_records(view: View, objects: dict[bytes, Object]) -> None:
    files = {row.object: row for row in walk(view, FILE)}
    trash = {row.object: row for row in walk(view, TRASH)}
    _same("objects with a file", sorted(files), sorted(row.id for row in objects.values() if row.state in (KEPT, GRACE)))
    _same("objects in the trash", sorted(trash), sorted(row.id for row in objects.values() if row.state == TRASHED))
    for key, row in (files | trash).items():
        _same("owner and place of a file", (row.wallet, row.lookup_id), (objects[key].payer, objects[key].lookup_id))
    for given in walk(view, ENDOWED):
        row = objects.get(given.object)
        fits = row is not None and row.state in STORED and 0 < given.noz <= given.of_noz >= row.escrow_noz + row.repair_noz
        _same("what the common fund gave", fits, True)
    for share in walk(view, SHARE):
        _same("a share's object", share.object in objects and objects[share.object].state in STORED, True)


def _check_links(view: View, objects: dict[bytes, Object]) -> None:
    shares = {row.id: row for row in walk(view, SHARE)}
    by_link: dict[str, list[Share]] = {}
    for also in walk(view, ALSO):
        _same("the share of a link", also.share in shares and shares[also.share].link != also.link, True)
        by_link.setdefault(also.link, []).append(shares[also.share])
    for link, rows in by_link.items():
        _same(f"how many have {link}", len(rows) <= ALSO_OF_A_LINK, True)
        rows = rows + [row for row in shares.values() if row.link == link]
        _same(f"contents of {link}", len({(objects[row.object].file_hash, objects[row.object].size_bytes) for row in rows}), 1)
        _same(f"objects of {link}", len({row.object for row in rows}), len(rows))
        _same(f"shares of {link} that are not for all", [row for row in rows if not is_for_all(row)], [])


def _check_counts(view: View) -> None:
    tables: dict[Table[Any], str] = {LEASE: "open_leases", FILE: "files", TRASH: "trash", SHARE: "shares"}
    for table, name in tables.items():
        counted: dict[bytes, int] = {}
        for row in walk(view, table):
            counted[row.wallet] = counted.get(row.wallet, 0) + 1
        _same(name, {row.address: getattr(row, name) for row in walk(view, WALLET) if getattr(row, name)}, counted)
    state = state_of(view)
    nodes = [row.number for row in walk(view, NODE)]
    _same("numbers of nodes", (nodes, state.next_node), (list(range(1, state.nodes + 1)), state.nodes + 1))


def _check_epochs(view: View) -> None:
    epochs = {row.number: row for row in walk(view, EPOCH)}
    lines: dict[int, list[Any]] = {}
    for line in walk(view, EPOCH_LINE):
        lines.setdefault(line.epoch, []).append(line)
    for number, row in epochs.items():
        own = lines.pop(number, [])
        if row.status == VOID:
            _same(f"lines of void epoch {number}", own, [])
        elif row.maturity_epoch == 0 or (row.ends_ms == 0 and own):
            sums = (len(own), sum(one.noz for one in own), sum(one.noz for one in own if one.fund == PROMO))
            _same(f"lines of epoch {number}", sums, (row.lines_count, row.noz, row.promo_noz))
    _same("lines of no epoch", lines, {})
    windows = {row.address: row.windows for row in walk(view, META)}
    for mark in walk(view, EPOCH_MARK):
        _same("a mark's epoch and windows", mark.epoch in epochs and mark.after <= mark.last <= windows.get(mark.meta_node, -1), True)
    leases = {row.id for row in walk(view, LEASE)}
    _same("leases that were taken over and are none", [row for row in walk(view, TAKEN) if row.lease not in leases], [])
    _same("leases that strings asked for and are none", [row for row in walk(view, ASKED) if row.lease not in leases], [])
