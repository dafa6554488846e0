"""Leaves of releases, from the ledger's log alone: each meta node makes those of every release by itself, so nobody can keep them from the others, or make up any.

    result in the log: segment, index, days, passed; escrow, term, fund; whom the node paid; the segment's root ─► a leaf for each day with noz

The same lines make the leaves of the releases of this meta node and of the others: byte for byte the same, whatever became of the rows. What a leaf has as its
share root is the root of the share's segment, under which that of the share is: the ledger has that one, and of the other nobody can be sure to have it.
Sources: rules/releases.py; storage-protocol.md 1.9, 3.5, 3.6; ADR 10.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from chain.crypto import address as bech32
from modules.settlement.leaves import Leaf, leaf_bytes, release_identity
from sds_node.meta.books.books import NEVER_MS, LeafRow, State
from sds_node.meta.rules import tables
from sds_node.meta.rules.objects import released_until
from sds_node.meta.rules.releases import Settled


def paid_days(one: Settled) -> Iterator[tuple[int, int]]:
    """(day, noz) of each day that a share is paid for. Nothing for one that failed."""
    if not one.has_passed:
        return
    before = released_until(one.escrow_noz, one.first_day - 1, one.term_days)
    for day in range(one.first_day, one.last_day + 1):
        until = released_until(one.escrow_noz, day, one.term_days)
        noz, before = until - before, until
        if noz:
            yield day, noz


def leaf_rows(settled: Iterable[Settled], window: int = 0) -> list[LeafRow]:
    """The leaves of a release in their order, settled in a window of the books."""
    rows = [row for one in settled for row in _leaves_of(one, window)]
    return sorted(rows, key=lambda row: (row.beneficiary, row.fund, row.traffic_class, row.id))


def _leaves_of(one: Settled, window: int) -> Iterator[LeafRow]:
    text = bech32.encode(one.beneficiary)
    for day, noz in paid_days(one):
        leaf = Leaf(beneficiary=text, fund=one.fund, traffic_class=tables.STORAGE, noz=noz)
        leaf.release.share_root, leaf.release.day, leaf.release.segment, leaf.release.index = one.root, day, one.segment, one.index
        once = release_identity(one.segment, one.index, day)
        yield LeafRow(
            once, State.SETTLED, one.beneficiary, one.fund, tables.STORAGE, noz, 0, b"", b"", 0, NEVER_MS, window, 0, leaf_bytes(leaf), ""
        )  # fmt: skip
