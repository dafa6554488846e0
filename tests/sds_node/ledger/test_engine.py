"""The local log: answers, groups, time, readers beside the writer, one writer, what is refused at opening, pruning."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
import threading
from concurrent.futures import CancelledError, Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from sds_node.meta.ledger import engine, postgres
from sds_node.meta.ledger.core import Rules
from sds_node.meta.ledger.engine import Ledger, snapshot
from sds_node.meta.ledger.errors import BadValue, Busy, Foreign, LedgerError, Locked, Unavailable
from sds_node.meta.ledger.log import MAX_OPERATION_BYTES, Result
from sds_node.meta.ledger.schema import Index, Schema, declare
from sds_node.meta.ledger.sql import open_store
from sds_node.meta.ledger.transfer import export_ledger
from sds_node.meta.ledger.verify import verify
from tests.sds_node.ledger.shop import ACCOUNTS, ITEMS, LEDGER_ID, RULES, SALES, Account, all_rows, history, operation


def run_all(ledger: Ledger, operations: list[bytes]) -> list[Result]:
    return [answer.result(60) for answer in [ledger.submit(raw) for raw in operations]]


def test_operations_proposed_together_are_each_answered_once_in_one_order_and_are_on_disk(kind_url: str) -> None:
    async def propose_all(ledger: Ledger) -> list[Result]:
        return await asyncio.gather(*(ledger.propose(operation("mint", "a", at)) for at in range(300)))

    with Ledger.open(kind_url, RULES, LEDGER_ID) as ledger:
        results = asyncio.run(propose_all(ledger))
        assert sorted(one.sequence for one in results) == list(range(1, 301))
    with Ledger.open(kind_url, RULES, LEDGER_ID) as again, again.read() as view:
        assert again.head.sequence == 300
        assert view.get(ACCOUNTS, ("a",)) == Account("a", sum(range(300)), 300)
        logged = {one.sequence: one for one in view.entries(0, 1_000)}
        assert {one.sequence: one.app_hash for one in results} == {at: one.app_hash for at, one in logged.items()}


def test_a_refused_operation_is_in_the_log_with_code_and_reason_and_moves_the_app_hash(tmp_path: Path) -> None:
    with Ledger.open(f"sqlite:///{tmp_path}/ledger.db", RULES, LEDGER_ID) as ledger:
        before = ledger.head
        (refused,) = run_all(ledger, [operation("send", "a", "b", 1)])
        assert (refused.sequence, refused.code, refused.reason, refused.is_applied) == (1, 17, "a has no account", False)
        assert ledger.head.app_hash == refused.app_hash != before.app_hash
        with ledger.read() as view:
            (entry,) = view.entries(0, 10)
            assert (entry.operation, entry.code, entry.reason) == (operation("send", "a", "b", 1), 17, "a has no account")
            assert not any(all_rows(view).values())


def test_time_never_goes_backwards_whatever_the_clock_says(tmp_path: Path) -> None:
    clock = iter([500, 100, 700, -5, 1 << 70])
    with Ledger.open(f"sqlite:///{tmp_path}/ledger.db", RULES, LEDGER_ID, now_ms=lambda: next(clock)) as ledger:
        times = [run_all(ledger, [operation("mint", "a", 1)])[0].time_ms for _ in range(5)]
    assert times == [500, 500, 700, 700, (1 << 63) - 1]


class Gate:
    """Holds the writer at a step until it is opened."""

    def __init__(self, label: str) -> None:
        self._label = label
        self.reached, self.open = threading.Event(), threading.Event()

    def __call__(self, label: str) -> None:
        if label == self._label:
            self.reached.set()
            assert self.open.wait(60)


def test_a_reader_sees_the_last_commit_while_the_writer_stands_in_the_middle_of_the_next(kind_url: str) -> None:
    with Ledger.open(kind_url, RULES, LEDGER_ID) as ledger:
        run_all(ledger, [operation("mint", "a", 5)])
    gate = Gate("head")  # rows, log and head are in the open transaction
    with Ledger.open(kind_url, RULES, LEDGER_ID, on_step=gate) as ledger:
        answer = ledger.submit(operation("mint", "a", 1))
        assert gate.reached.wait(60)
        with ledger.read() as view:
            assert view.get(ACCOUNTS, ("a",)) == Account("a", 5, 1)
            assert view.head.sequence == 1
            gate.open.set()
            assert answer.result(60).sequence == 2
            # The writer has committed beside this view, which stays where it was.
            assert view.get(ACCOUNTS, ("a",)) == Account("a", 5, 1)
            assert len(view.entries(0, 10)) == 1
        seen = asyncio.run(ledger.query(lambda one: one.get(ACCOUNTS, ("a",))))
        assert seen == Account("a", 6, 2)


def test_a_full_queue_refuses_and_what_was_cancelled_before_its_group_is_not_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "MAX_WAITING", 3)
    gate = Gate("began")
    with Ledger.open(f"sqlite:///{tmp_path}/ledger.db", RULES, LEDGER_ID, on_step=gate) as ledger:
        first = ledger.submit(operation("mint", "a", 1))
        assert gate.reached.wait(60)
        waiting = [ledger.submit(operation("mint", "a", 1)) for _ in range(3)]
        with pytest.raises(Busy, match="try again later"):
            ledger.submit(operation("mint", "a", 1))
        assert waiting[1].cancel()
        gate.open.set()
        assert [first.result(60).sequence, waiting[0].result(60).sequence, waiting[2].result(60).sequence] == [1, 2, 3]
        with pytest.raises(CancelledError):
            waiting[1].result(60)
        assert ledger.head.sequence == 3


def test_what_is_no_operation_never_enters_the_queue(tmp_path: Path) -> None:
    with Ledger.open(f"sqlite:///{tmp_path}/ledger.db", RULES, LEDGER_ID) as ledger:
        for raw in (b"", bytes(MAX_OPERATION_BYTES + 1), "text", bytearray(b"x")):
            with pytest.raises(BadValue, match="an operation is 1 to"):
                ledger.submit(raw)  # type: ignore[arg-type]
        assert run_all(ledger, [bytes(MAX_OPERATION_BYTES)])[0].code == 18


@pytest.mark.parametrize("label", ["began", "applied", "rows", "log", "head", "committed"])
def test_after_a_failure_at_any_step_the_ledger_stops_says_so_and_opens_where_it_stands(tmp_path: Path, label: str) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    is_armed = False

    def fail(step: str) -> None:
        if is_armed and step == label:
            raise OSError(28, "No space left on device")

    ledger = Ledger.open(url, RULES, LEDGER_ID, on_step=fail)
    run_all(ledger, [operation("mint", "a", 5)])
    is_armed = True
    with pytest.raises(Unavailable, match="whether this operation was done is known when it is open again"):
        ledger.submit(operation("mint", "a", 1)).result(60)
    with pytest.raises(Unavailable, match="open it again"):
        ledger.submit(operation("mint", "a", 1))
    ledger.close()
    with Ledger.open(url, RULES, LEDGER_ID) as again:
        assert again.head.sequence == (2 if label == "committed" else 1)
        run_all(again, [operation("mint", "a", 1)])
        with again.snapshot() as view:
            verify(view, RULES, tmp_path / "scratch.db")


def test_operations_that_wait_when_the_ledger_closes_are_done_first(tmp_path: Path) -> None:
    gate = Gate("began")
    ledger = Ledger.open(f"sqlite:///{tmp_path}/ledger.db", RULES, LEDGER_ID, on_step=gate)
    answers: list[Future[Result]] = [ledger.submit(operation("mint", "a", 1)) for _ in range(5)]
    assert gate.reached.wait(60)
    closing = threading.Thread(target=ledger.close)
    closing.start()
    gate.open.set()
    closing.join(60)
    assert [one.result(0).sequence for one in answers] == [1, 2, 3, 4, 5]
    with pytest.raises(Unavailable):
        ledger.submit(operation("mint", "a", 1))
    with pytest.raises(Unavailable), ledger.read():
        pass


def test_a_second_writer_is_refused_and_a_reader_of_another_process_is_not(kind_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "LOCK_WAIT_S", 0.05)
    with Ledger.open(kind_url, RULES, LEDGER_ID) as ledger:
        run_all(ledger, [operation("mint", "a", 5)])
        with pytest.raises(Locked, match="stop it first"):
            Ledger.open(kind_url, RULES, LEDGER_ID)
        with snapshot(kind_url, RULES) as view:
            assert view.head.sequence == 1
    Ledger.open(kind_url, RULES, LEDGER_ID).close()


def test_the_database_of_something_else_is_refused_and_left_as_it_was(kind_url: str) -> None:
    if kind_url.startswith("sqlite"):
        with sqlite3.connect(kind_url.removeprefix("sqlite:///")) as made:
            made.execute("CREATE TABLE songs (name)")
        made.close()
    else:
        with psycopg.connect(kind_url) as connection:
            connection.execute("CREATE TABLE songs (name text)")
    with pytest.raises(Foreign, match=r"something else|no ledger's"):
        Ledger.open(kind_url, RULES, LEDGER_ID)
    with pytest.raises(Foreign), snapshot(kind_url, RULES):
        pass
    reader = open_store(kind_url).reader()
    assert list(reader.tables()) == ["songs"]
    reader.close()


def test_another_ledger_application_schema_or_version_is_refused(kind_url: str) -> None:
    Ledger.open(kind_url, RULES, LEDGER_ID).close()
    other_tables = Schema([declare(1, "accounts", Account, key=("owner",), indexes=(Index("by_moves", ("moves",)),)), ITEMS, SALES])
    refusals: list[tuple[Rules, str, str]] = [
        (RULES, "shop-2", "belongs to ledger 'shop-1'"),
        (replace(RULES, application="bank"), LEDGER_ID, "belongs to application 'shop'"),
        (replace(RULES, schema=other_tables), LEDGER_ID, "needs a new version and a migration"),
        (replace(RULES, schema_version=2), LEDGER_ID, "no migration from it"),
        (replace(RULES, schema_version=0), LEDGER_ID, "use a newer program"),
    ]
    for rules, ledger_id, said in refusals:
        with pytest.raises(Foreign, match=said):
            Ledger.open(kind_url, rules, ledger_id)
    Ledger.open(kind_url, RULES, LEDGER_ID).close()


@pytest.mark.parametrize("url", ["no url", "mysql://x/y", "sqlite://", "sqlite:///:memory:", "sqlite:///x?mode=ro", "postgresql://host"])
def test_a_url_that_names_no_ledger_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(BadValue, match=r"a .*ledger's URL is"):
        open_store(url)


def test_a_password_is_in_no_error() -> None:
    store = open_store("postgresql://user:s3cret@127.0.0.1:1/none")
    assert "s3cret" not in store.shown
    with pytest.raises(Unavailable) as raised:
        store.reader()
    assert "s3cret" not in str(raised.value)


def test_files_of_a_ledger_are_the_owners_alone(tmp_path: Path) -> None:
    with Ledger.open(f"sqlite:///{tmp_path}/ledger.db", RULES, LEDGER_ID) as ledger:
        run_all(ledger, [operation("mint", "a", 1)])
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert set(modes) == {"ledger.db", "ledger.db-wal", "ledger.db-shm", "ledger.db.lock"}
    assert set(modes.values()) == {0o600}


def test_a_pruned_log_keeps_its_hashes_and_verifies_from_an_export_taken_there(kind_url: str, tmp_path: Path) -> None:
    operations = history(6, 120)
    with Ledger.open(kind_url, RULES, LEDGER_ID) as ledger:
        run_all(ledger, operations[:80])
        with ledger.snapshot() as view, (tmp_path / "base").open("wb") as file:
            export_ledger(view, RULES.schema, file.write)
        run_all(ledger, operations[80:])
        head = ledger.head
        for place in (0, 122):
            with pytest.raises(BadValue, match="prune below"):
                ledger.prune(place)
        ledger.prune(81)
        ledger.prune(50)  # has been pruned already
        assert ledger.head.app_hash == head.app_hash
        assert ledger.head.base_sequence == 80
        with ledger.snapshot() as view:
            assert [one.sequence for one in view.entries(0, 500)] == list(range(81, 121))
            with pytest.raises(BadValue, match="give an export taken there"):
                verify(view, RULES, tmp_path / "no-base.db")
            with (tmp_path / "base").open("rb") as file:
                assert verify(view, RULES, tmp_path / "scratch.db", file.read).operations == 40
        run_all(ledger, [operation("mint", "a", 1)])
    with Ledger.open(kind_url, RULES, LEDGER_ID) as again:
        again.prune(122)
        assert again.head.base_sequence == again.head.sequence == 121
    with Ledger.open(kind_url, RULES, LEDGER_ID) as again, again.read() as view:
        assert view.entries(0, 10) == []
        assert view.session.run("SELECT count(*) FROM ledger_log")[0][0] == 0


def test_a_read_that_takes_too_long_is_ended(kind_url: str) -> None:
    with Ledger.open(kind_url, RULES, LEDGER_ID, read_timeout_s=0.02) as ledger:
        endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
        with pytest.raises(LedgerError, match=r"longer than it may|cannot be"), ledger.read() as view:
            view.session.run(endless)
        assert run_all(ledger, [operation("mint", "a", 1)])[0].is_applied


def test_readers_are_bounded(tmp_path: Path) -> None:
    with Ledger.open(f"sqlite:///{tmp_path}/ledger.db", RULES, LEDGER_ID, readers=1, read_timeout_s=0.01) as ledger:
        opened: Any = ledger.read()
        with opened, pytest.raises(Busy, match="ask again later"), ledger.read():
            pass
        with ledger.read() as view:
            assert view.head.sequence == 0
