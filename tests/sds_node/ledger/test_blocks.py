"""Blocks give the order: what CometBFT's calls mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from sds_node.meta.ledger.blocks import BlockLedger
from sds_node.meta.ledger.engine import Ledger
from sds_node.meta.ledger.errors import BadValue
from sds_node.meta.ledger.log import MAX_OPERATION_BYTES
from sds_node.meta.ledger.transfer import export_ledger, import_ledger
from sds_node.meta.ledger.verify import verify
from tests.sds_node.ledger.shop import ACCOUNTS, LEDGER_ID, RULES, Account, all_rows, history, operation


def test_a_block_is_seen_and_kept_once_it_is_committed_and_not_before(kind_url: str) -> None:
    with BlockLedger.open(kind_url, RULES, LEDGER_ID) as blocks:
        first = blocks.head
        blocks.begin(1, 100)
        blocks.deliver([operation("mint", "a", 5)])
        app_hash = blocks.end()
        assert app_hash != first.app_hash
        with blocks.read() as view:
            assert not any(all_rows(view).values())
        assert blocks.head == first
    with BlockLedger.open(kind_url, RULES, LEDGER_ID) as blocks:  # stopped before Commit: CometBFT sends the block again
        assert blocks.head == first
        blocks.begin(1, 100)
        blocks.deliver([operation("mint", "a", 5)])
        assert blocks.end() == app_hash
        blocks.commit()
        assert (blocks.head.height, blocks.head.app_hash, blocks.head.time_ms) == (1, app_hash, 100)
        blocks.begin(2, 50)  # an empty block, and a clock before the last one
        assert blocks.end() == app_hash
        blocks.commit()
        assert (blocks.head.height, blocks.head.time_ms) == (2, 100)


def test_checks_see_what_was_checked_before_them_and_change_nothing(kind_url: str) -> None:
    with BlockLedger.open(kind_url, RULES, LEDGER_ID) as blocks:
        assert blocks.check(operation("send", "a", "b", 1)).code == 17
        assert blocks.check(operation("mint", "a", 5)).is_applied
        assert blocks.check(operation("send", "a", "b", 3)).result == b"2"
        assert blocks.check(operation("send", "a", "b", 3)).code == 16
        assert blocks.head.sequence == 0
        blocks.begin(1, 100)
        blocks.deliver([operation("mint", "a", 1)])
        assert blocks.check(operation("send", "a", "b", 2)).result == b"0"
        blocks.end()
        blocks.commit()
        assert blocks.check(operation("send", "a", "b", 2)).code == 16  # from the last commit anew
        with blocks.read() as view:
            assert view.get(ACCOUNTS, ("a",)) == Account("a", 1, 1)


def test_calls_out_of_order_are_refused(tmp_path: Path) -> None:
    with BlockLedger.open(f"sqlite:///{tmp_path}/ledger.db", RULES, LEDGER_ID) as blocks:
        for call in (blocks.end, blocks.commit, lambda: blocks.deliver([b"x"]), lambda: blocks.begin(0, 1)):
            with pytest.raises(BadValue):
                call()
        blocks.begin(7, 1)  # a federation may begin at any height
        with pytest.raises(BadValue):
            blocks.commit()
        with pytest.raises(BadValue):
            blocks.prune(1)
        blocks.end()
        for call in (blocks.end, lambda: blocks.deliver([b"x"])):
            with pytest.raises(BadValue):
                call()
        blocks.commit()
        for height in (7, 9):
            with pytest.raises(BadValue, match="block 8 comes next"):
                blocks.begin(height, 1)
        assert [blocks.is_operation(raw) for raw in (b"x", b"", bytes(MAX_OPERATION_BYTES + 1))] == [True, False, False]


def test_a_block_that_begins_again_drops_the_one_before(tmp_path: Path) -> None:
    with BlockLedger.open(f"sqlite:///{tmp_path}/ledger.db", RULES, LEDGER_ID) as blocks:
        blocks.begin(1, 100)
        blocks.deliver([operation("mint", "a", 5)])
        blocks.begin(1, 100)
        blocks.deliver([operation("mint", "a", 1)])
        blocks.end()
        blocks.commit()
        with blocks.read() as view:
            assert view.get(ACCOUNTS, ("a",)) == Account("a", 1, 1)


def test_blocks_carry_on_where_a_local_log_ended_with_its_app_hash_sequence_and_time(tmp_path: Path) -> None:
    operations = history(8, 200)
    with Ledger.open(f"sqlite:///{tmp_path}/whole.db", RULES, LEDGER_ID, now_ms=lambda: 900) as whole:
        for answer in [whole.submit(raw) for raw in operations]:
            answer.result(60)
        wanted = whole.head
    with Ledger.open(f"sqlite:///{tmp_path}/local.db", RULES, LEDGER_ID, now_ms=lambda: 900) as local:
        for answer in [local.submit(raw) for raw in operations[:120]]:
            answer.result(60)
        with local.snapshot() as view, (tmp_path / "export").open("wb") as file:
            export_ledger(view, RULES.schema, file.write)
        wanted_half = local.head
    with (tmp_path / "export").open("rb") as file:
        head, _ = import_ledger(f"sqlite:///{tmp_path}/blocks.db", RULES, LEDGER_ID, file.read)
    assert (head.sequence, head.app_hash, head.time_ms) == (120, wanted_half.app_hash, 900)
    with BlockLedger.open(f"sqlite:///{tmp_path}/blocks.db", RULES, LEDGER_ID) as blocks:
        blocks.begin(1, 900)
        blocks.deliver(operations[120:])
        blocks.end()
        blocks.commit()
        assert (blocks.head.sequence, blocks.head.app_hash) == (200, wanted.app_hash)
        with blocks.snapshot() as view, (tmp_path / "export").open("rb") as file:
            assert verify(view, RULES, tmp_path / "scratch.db", file.read).operations == 80
