"""The rows of a ledger that is made anew: every rule's invariants hold, nothing is promised that the chain does not owe, nothing old holds."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from sds_node.manifests import MAX_SEQUENCE
from sds_node.meta.ledger.engine import Ledger, ReadView
from sds_node.meta.ledger.transfer import import_ledger
from sds_node.meta.rebuild.balances import Bought, shared
from sds_node.meta.rebuild.making import SEQUENCE_AHEAD, Made, Maker
from sds_node.meta.rules.apply import rules
from sds_node.meta.rules.invariants import check, gap_noz
from sds_node.meta.rules.tables import FILE, GRACE, KEPT, LEASE, META, NODE, OBJECT, PROMO_NOZ, SEGMENT, STATE, TRASH, TRASHED, WALLET
from tests.sds_node.rebuild.synthetic import CHAIN, DAY_MS, NOW_MS, Thing, gathered, spread, standing
from tests.sds_node.rebuild.synthetic import META as META_NODE
from tests.sds_node.rebuild.synthetic import WALLET as ALICE

pytestmark = pytest.mark.asyncio
BOB = b"b" * 20
MIB = 1 << 20


async def made_of(
    folder: Path, things: Sequence[Thing], look: Callable[[ReadView], None], *, owed: int = 10**12, promo: int = 0, bought: Bought | None = None,
    file: Path | None = None,
) -> Made:  # fmt: skip
    """The ledger of these things with six nodes, looked at."""
    told = await gathered(folder, spread(things, 6))
    maker = Maker(told.found, standing(6, owed, promo), bought or Bought(), told.highest_sequence, NOW_MS, folder)

    def both(view: ReadView) -> None:
        check(view)
        look(view)

    try:
        if file is None:
            return maker.make(maker.choose(), None, None, both)
        with file.open("wb") as stream:
            return maker.make(maker.choose(), stream.write, file.with_name("roots"), both)
    finally:
        told.found.close()


def rows(view: ReadView, table: Any) -> list[Any]:
    return list(view.scan(table, limit=1_000))


async def test_invariants_hold_of_files_of_every_state_and_no_lease_or_old_number_is_left(tmp_path: Path) -> None:
    things = [
        Thing(1),
        Thing(2, 40 * MIB, 2, 5),
        Thing(3, wallet=BOB, fields={"fund": 2, "promo_ends_ms": NOW_MS + DAY_MS}),
        Thing(4, fields={"trashed_until_ms": NOW_MS + DAY_MS}),
        Thing(5, fields={"trashed_until_ms": NOW_MS - 1}),
        Thing(6, fields={"made_ms": NOW_MS - 370 * DAY_MS}),
        Thing(7, fields={"made_ms": NOW_MS - 500 * DAY_MS}),
        Thing(8, lookup=1, sequence=5),
        Thing(9, 0),
    ]
    bought = Bought(1, {ALICE: 10**9, BOB: 50}, {(BOB, NOW_MS + DAY_MS): 10**6, (BOB, NOW_MS): 7})

    def look(view: ReadView) -> None:
        states = {row.id: row.state for row in rows(view, OBJECT)}
        wanted = {1: KEPT, 2: KEPT, 3: KEPT, 4: TRASHED, 6: GRACE, 8: TRASHED, 9: KEPT}
        assert states == {things[number - 1].id: state for number, state in wanted.items()}
        assert rows(view, LEASE) == []
        assert rows(view, META)[0].nonce == NOW_MS
        assert all(row.sequence == NOW_MS // 1_000 for row in rows(view, WALLET))
        assert [row.shares for row in rows(view, NODE)] == [7, 7, 7, 2, 2, 0]
        state = rows(view, STATE)[0]
        assert (state.next_node, state.nodes, state.reported_epoch) == (7, 6, 3)
        assert state.next_segment > max(row.number for row in rows(view, SEGMENT))
        # What is bought is a wallet's but for what its files' escrows have of it.
        escrow = sum(row.escrow_noz for row in rows(view, OBJECT) if row.payer == ALICE)
        wallets = {row.address: row for row in rows(view, WALLET)}
        assert wallets[ALICE].paid_noz == 10**9 - escrow
        assert (len(rows(view, FILE)), len(rows(view, TRASH)), len(rows(view, PROMO_NOZ))) == (5, 2, 1)

    made = await made_of(tmp_path, things, look, promo=10**7, bought=bought)
    assert (made.ended, made.files, made.trash, made.outcome.left_out) == (2, 5, 2, 0)


async def test_days_that_are_over_are_not_paid_again_and_the_rest_is(tmp_path: Path) -> None:
    thing = Thing(1, 365_000)

    def look(view: ReadView) -> None:
        row, segment = rows(view, OBJECT)[0], rows(view, SEGMENT)[0]
        assert segment.days == (100).to_bytes(2, "big") * 3
        # Three shares, half of 365,000 each, 265 of 365 days left.
        assert row.escrow_noz == 3 * (365_000 // 2 - 365_000 // 2 * 100 // 365)
        assert row.term_noz == 3 * 182_500

    await made_of(tmp_path, [thing], look)


@pytest.mark.parametrize("owed", [0, 1, 1_000, 300_000, 397_499, 397_500, 397_501])
async def test_escrows_are_never_more_than_the_chain_owes(tmp_path: Path, owed: int) -> None:
    things = [Thing(1, 365_000), Thing(2, 0), Thing(3, 5_000, fields={"fund": 2})]

    def look(view: ReadView) -> None:
        state = rows(view, STATE)[0]
        assert state.owed_noz <= owed
        assert gap_noz(view) >= 0
        assert state.promo_owed_noz == 0

    made = await made_of(tmp_path, things, look, owed=owed, bought=Bought(1, {ALICE: 10**9}))
    assert made.escrow_noz <= owed
    assert made.escrow_noz >= owed * 9 // 10 or made.escrow_noz == 397_500 or owed <= 1_000
    # What is left is the wallet's, who bought more than that.
    assert made.escrow_noz + made.balances_noz == owed


async def test_claims_beyond_what_is_owed_are_cut_down_alike() -> None:
    assert shared({"a": 10, "b": 30}, 100) == {"a": 10, "b": 30}
    assert shared({"a": 10, "b": 30}, 20) == {"a": 5, "b": 15}
    assert shared({"a": 1, "b": 30}, 20) == {"b": 19}
    assert shared({"a": 10}, -5) == {}
    assert shared({}, 10) == {}


async def test_a_lying_manifest_of_a_far_time_or_a_long_name_makes_no_row_and_stops_nothing(tmp_path: Path) -> None:
    things = [
        Thing(1),
        Thing(2, fields={"made_ms": 1 << 62}),
        Thing(3, fields={"terms": 1_000, "term_days": 3_000}),
        Thing(4, fields={"file": {"lookup_id": b"f" * 32, "name": b"n" * 3_000}}),
        Thing(5, fields={"file_hash": "no hash"}),
        Thing(6, fields={"escrow_ratio_e18": 10**18 + 1}),
        Thing(7, fields={"data_shares": 3, "total_shares": 4}),
    ]

    def look(view: ReadView) -> None:
        assert [row.id for row in rows(view, OBJECT)] == [things[0].id]

    await made_of(tmp_path, things, look)


async def test_the_export_is_taken_by_a_ledger_and_its_roots_are_those_of_the_segments(tmp_path: Path) -> None:
    things, file = [Thing(1), Thing(2, 40 * MIB, 2, 5)], tmp_path / "ledger.export"
    made = await made_of(tmp_path, things, lambda view: None, file=file)
    url = f"sqlite:///{tmp_path / 'taken.db'}"
    with file.open("rb") as stream:
        head, name = import_ledger(url, rules(CHAIN), CHAIN, stream.read)
    assert (head.sequence, head.time_ms, name) == (10 + SEQUENCE_AHEAD, NOW_MS, made.name)
    with Ledger.open(url, rules(CHAIN), CHAIN) as ledger, ledger.read() as view:
        check(view)
        assert view.get(META, (META_NODE,)) is not None
    with sqlite3.connect(tmp_path / "roots") as database:
        found = dict(database.execute("SELECT segment, roots FROM share_roots").fetchall())
    database.close()
    assert found == {10: b"".join(things[0].roots[0]), 20: b"".join(things[1].roots[0]), 21: b"".join(things[1].roots[1])}
    assert sorted(os.listdir(tmp_path)) == ["ledger.export", "roots", "taken.db", "taken.db.lock"]


async def test_the_same_findings_make_the_same_ledger(tmp_path: Path) -> None:
    names = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        made = await made_of(tmp_path / name, [Thing(1), Thing(2)], lambda view: None, file=tmp_path / name / "export")
        names.append(made.name)
    assert names[0] == names[1] != b""


async def test_a_version_that_was_stored_over_does_not_come_back_when_the_newer_one_is_deleted(tmp_path: Path) -> None:
    older = Thing(1, lookup=7, sequence=10, fields={"made_ms": NOW_MS - 9 * DAY_MS, "file_changed_ms": NOW_MS - 9 * DAY_MS})
    newer = Thing(2, lookup=7, sequence=30, fields={"made_ms": NOW_MS - 8 * DAY_MS, "trashed_until_ms": NOW_MS + DAY_MS})
    # Its time in the trash is over, too.
    old, ended = (
        Thing(3, lookup=8, sequence=10, fields=older.fields),
        Thing(4, lookup=8, sequence=30, fields=newer.fields | {"trashed_until_ms": NOW_MS - 1}),
    )
    # Restored after the newer one was deleted, of which a node was told once more since.
    restored = Thing(5, lookup=9, sequence=40, fields=older.fields | {"file_changed_ms": NOW_MS - 7 * DAY_MS})
    deleted = Thing(6, lookup=9, sequence=60, fields=newer.fields)

    def look(view: ReadView) -> None:
        states = {row.id: row.state for row in rows(view, OBJECT)}
        assert states == {
            older.id: TRASHED, newer.id: TRASHED, old.id: TRASHED, restored.id: KEPT, deleted.id: TRASHED
        }  # fmt: skip

    await made_of(tmp_path, [older, newer, old, ended, restored, deleted], look)


async def test_the_sequence_of_a_ledger_stays_far_from_the_last_that_nodes_take(tmp_path: Path) -> None:
    made = await made_of(tmp_path, [Thing(1, sequence=MAX_SEQUENCE)], lambda view: None)
    assert made.sequence + (1 << 40) < MAX_SEQUENCE


async def test_what_a_rebuild_that_was_killed_left_behind_is_written_over(tmp_path: Path) -> None:
    for name in ("found.db", ".found.db.rebuilt", ".found.db.rebuilt-wal", ".found.db.rebuilt.lock"):
        (tmp_path / name).write_bytes(b"cut off")
    await made_of(tmp_path, [Thing(1)], lambda view: None)
    assert os.listdir(tmp_path) == []
