"""Export, import into the other kind, migrations, and damage that is found."""

from __future__ import annotations

import io
import random
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import psycopg
import pytest

from sds_node.meta.ledger.core import Migration, Rules
from sds_node.meta.ledger.engine import Ledger, snapshot
from sds_node.meta.ledger.errors import BadValue, Damaged, Foreign, LedgerError, Unavailable
from sds_node.meta.ledger.schema import Index, Int63, Schema, Text, Uint128, declare
from sds_node.meta.ledger.sql import open_store
from sds_node.meta.ledger.transfer import export_ledger, import_ledger
from sds_node.meta.ledger.verify import verify
from tests.sds_node.ledger.shop import ITEMS, LEDGER_ID, RULES, SALES, SCHEMA, Account, all_rows, history, operation
from tests.sds_node.postgres import Server

HISTORY = history(9, 150)


def fill(url: str, operations: list[bytes] = HISTORY, rules: Rules = RULES) -> Any:
    with Ledger.open(url, rules, LEDGER_ID, now_ms=lambda: 1_234) as ledger:
        for answer in [ledger.submit(raw) for raw in operations]:
            answer.result(60)
        return ledger.head


def exported(url: str, rules: Rules = RULES) -> bytes:
    file = io.BytesIO()
    with snapshot(url, rules) as view:
        name = export_ledger(view, rules.schema, file.write)
    assert file.getvalue()[-32:] == name
    return file.getvalue()


def test_an_export_is_the_same_from_both_databases_and_goes_into_the_other_kind(tmp_path: Path, postgres: Server) -> None:
    urls = [f"sqlite:///{tmp_path}/one.db", postgres.database()]
    heads = [fill(url) for url in urls]
    assert heads[0] == heads[1]
    streams = [exported(url) for url in urls]
    assert streams[0] == streams[1]
    for url in (postgres.database(), f"sqlite:///{tmp_path}/other.db"):
        head, name = import_ledger(url, RULES, LEDGER_ID, io.BytesIO(streams[0]).read)
        assert (head.sequence, head.app_hash, name) == (150, heads[0].app_hash, streams[0][-32:])
        assert exported(url) == streams[0]
        with pytest.raises(Foreign, match="is not empty"):
            import_ledger(url, RULES, LEDGER_ID, io.BytesIO(streams[0]).read)
        more = fill(url, history(10, 20))
        assert more.app_hash == fill(urls[0], history(10, 20)).app_hash if url.startswith("sqlite") else more.sequence == 170


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    url = f"sqlite:///{tmp_path_factory.mktemp('export')}/ledger.db"
    fill(url, HISTORY[:40])
    return exported(url)


def spoiled(stream: bytes) -> Iterator[bytes]:
    chosen = random.Random(1)
    for _ in range(30):
        at = chosen.randrange(len(stream))
        yield stream[:at]
        yield stream[:at] + bytes([stream[at] ^ (1 << chosen.randrange(8))]) + stream[at + 1 :]
    yield stream + b"\0"
    yield b""


def test_a_stream_that_is_cut_changed_or_longer_leaves_nothing_behind(tmp_path: Path, stream: bytes) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    for bad in spoiled(stream):
        with pytest.raises((Damaged, Foreign, BadValue)):
            import_ledger(url, RULES, LEDGER_ID, io.BytesIO(bad).read)
        session = open_store(url).lock()
        assert session.tables() == {}
        session.close()
    import_ledger(url, RULES, LEDGER_ID, io.BytesIO(stream).read)


def test_a_bad_stream_leaves_nothing_behind_in_postgresql(postgres: Server, stream: bytes) -> None:
    url = postgres.database()
    for bad in (stream[:-40], stream + b"\0", stream[:-1] + b"\0\0"):
        with pytest.raises(Damaged):
            import_ledger(url, RULES, LEDGER_ID, io.BytesIO(bad).read)
    import_ledger(url, RULES, LEDGER_ID, io.BytesIO(stream).read)


def test_an_export_of_another_ledger_is_refused(tmp_path: Path, stream: bytes) -> None:
    for rules, ledger_id in ((RULES, "shop-2"), (replace(RULES, application="bank"), LEDGER_ID), (replace(RULES, schema_version=2), LEDGER_ID)):
        with pytest.raises(Foreign, match="the export is of"):
            import_ledger(f"sqlite:///{tmp_path}/ledger.db", rules, ledger_id, io.BytesIO(stream).read)


# --- migrations -------------------------------------------------------------------------------------------------------


class Purse(NamedTuple):
    name: Annotated[str, Text(40)]
    balance: Annotated[int, Uint128()]


class Count(NamedTuple):
    moves: Annotated[int, Int63()]
    owner: Annotated[str, Text(40)]


PURSES = declare(1, "accounts", Purse, key=("name",), indexes=(Index("by_balance", ("balance",)),))  # the name of a table that was
COUNTS = declare(2, "counts", Count, key=("moves", "owner"))
SCHEMA_2 = Schema([PURSES, COUNTS, ITEMS])


def convert(table: str, row: Any) -> list[tuple[str, Any]]:
    if table == "accounts":
        return [("accounts", Purse(row.owner, row.balance)), ("counts", Count(row.moves, row.owner))]
    return [(table, row)] if table == "items" else []


RULES_2 = Rules("shop", SCHEMA_2, lambda raw, time_ms, tables: tables.put(PURSES, Purse(raw.decode(), 1)) or b"", 2, {1: Migration(SCHEMA, convert)})


def test_a_migration_moves_all_rows_alike_on_both_databases_and_shows_in_the_next_app_hash(tmp_path: Path, postgres: Server) -> None:
    heads, plain = [], []
    for url in (f"sqlite:///{tmp_path}/ledger.db", postgres.database()):
        before = fill(url)
        with snapshot(url, RULES) as view:
            rows = all_rows(view)
        with Ledger.open(url, RULES_2, LEDGER_ID, now_ms=lambda: 2_000) as ledger:
            moved = ledger.head
            assert (moved.app_hash, moved.sequence, moved.schema_version) == (before.app_hash, before.sequence, 2)
            assert len(moved.carry) == 32
            with ledger.read() as view:
                assert view.scan(PURSES, limit=100) == [Purse(one.owner, one.balance) for one in rows["accounts"]]
                assert view.scan(COUNTS, limit=100) == sorted(Count(one.moves, one.owner) for one in rows["accounts"])
                assert view.scan(ITEMS, limit=100) == rows["items"]
                assert not any(name.startswith("old_") or name == "sales" for name in view.session.tables())
            base = io.BytesIO()
            with ledger.snapshot() as view:
                export_ledger(view, SCHEMA_2, base.write)
            ledger.submit(b"new").result(60)
            heads.append(ledger.head)
            with ledger.snapshot() as view:
                assert verify(view, RULES_2, tmp_path / f"scratch-{len(heads)}.db", io.BytesIO(base.getvalue()).read).operations == 1
        with pytest.raises(Foreign, match="use a newer program"):
            Ledger.open(url, RULES, LEDGER_ID)
        plain.append(base.getvalue())
    assert heads[0] == heads[1]
    assert heads[0].carry == b""
    assert plain[0] == plain[1]


def test_a_migration_that_fails_changes_nothing(kind_url: str) -> None:
    before = fill(kind_url)

    def fails(table: str, row: Any) -> list[tuple[str, Any]]:
        if table == "items":
            raise RuntimeError("no room for items")
        return convert(table, row)

    with pytest.raises(RuntimeError):
        Ledger.open(kind_url, replace(RULES_2, migrations={1: Migration(SCHEMA, fails)}), LEDGER_ID)
    other = Schema([declare(1, "accounts", Account, key=("owner",)), ITEMS, SALES])
    with pytest.raises(Foreign, match="other tables than the migration"):
        Ledger.open(kind_url, replace(RULES_2, migrations={1: Migration(other, convert)}), LEDGER_ID)
    with Ledger.open(kind_url, RULES, LEDGER_ID) as ledger:
        assert ledger.head == before


# --- damage -----------------------------------------------------------------------------------------------------------

SPOILS = [
    ("UPDATE ledger_log SET code = code + 1 WHERE sequence = 77", "entry 77 of the log is not what was written"),
    ("UPDATE ledger_log SET time_ms = 1233 WHERE sequence = 150", "entry 150 of the log is not what was written"),
    ("DELETE FROM ledger_log WHERE sequence = 77", "the log has no entry 77"),
    ("DELETE FROM ledger_log WHERE sequence = 150", "does not end with the ledger's head|no entry 150"),
    ("UPDATE ledger_state SET time_ms = 9", "not that of its last entry|does not lead to"),
    ("DELETE FROM ledger_state", "no row"),
    ("UPDATE accounts SET moves = moves + 1 WHERE owner = 'a'", "table accounts: the row at .'a',. is not what the log makes"),
    ("DELETE FROM accounts WHERE owner = 'a'", "table accounts: the row at .'a',. is missing"),
    ("INSERT INTO sales SELECT at_ms + 1, code, buyer FROM sales ORDER BY code LIMIT 1", "table sales: the row at .* is one too many"),
    ("UPDATE accounts SET moves = -1 WHERE owner = 'a'", "holds a row that the ledger did not write"),
    ("DROP TABLE sales", "got no table"),
    ("ALTER TABLE sales ADD COLUMN more INTEGER", "table sales has the columns"),
]


@pytest.mark.parametrize(("sql", "said"), SPOILS)
def test_what_others_change_in_the_database_is_found(tmp_path: Path, filled: bytes, sql: str, said: str) -> None:
    path = tmp_path / "ledger.db"
    path.write_bytes(filled)
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(sql)
    connection.close()
    with pytest.raises(Damaged, match=said), snapshot(f"sqlite:///{path}", RULES) as view:
        verify(view, RULES, tmp_path / "scratch.db")


def test_what_others_change_in_postgresql_is_found(tmp_path: Path, postgres: Server) -> None:
    url = postgres.database()
    fill(url)
    for at, (sql, said) in enumerate((SPOILS[6], SPOILS[0], SPOILS[10])):
        with psycopg.connect(url) as connection:
            connection.execute(sql)  # type: ignore[arg-type]
        with pytest.raises(Damaged, match=said), snapshot(url, RULES) as view:
            verify(view, RULES, tmp_path / f"scratch-{at}.db")
    with pytest.raises(Damaged, match="got no table"):
        Ledger.open(url, RULES, LEDGER_ID)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("filled") / "ledger.db"
    fill(f"sqlite:///{path}")
    return path.read_bytes()


def test_a_file_with_changed_bytes_is_refused_or_gives_what_was_written(tmp_path: Path, filled: bytes) -> None:
    chosen = random.Random(3)
    found = 0
    for at in range(25):
        raw = bytearray(filled)
        for _ in range(8):
            raw[chosen.randrange(100, len(raw))] ^= 1 << chosen.randrange(8)
        path = tmp_path / f"{at}.db"
        path.write_bytes(raw)
        try:
            with snapshot(f"sqlite:///{path}", RULES) as view:
                verify(view, RULES, tmp_path / f"scratch-{at}.db")
        except LedgerError:
            found += 1
    assert found >= 20  # the rest hit bytes that hold nothing


@pytest.mark.parametrize("raw", [b"a poem, and no database at all" * 100, b"SQLite format 3\0" + bytes(4000)])
def test_a_file_that_is_no_database_is_refused_in_words(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "ledger.db"
    path.write_bytes(raw)
    with pytest.raises((Damaged, Foreign), match=r"is not a SQLite database|is damaged"):
        Ledger.open(f"sqlite:///{path}", RULES, LEDGER_ID)
    assert path.read_bytes() == raw


def test_a_file_whose_texts_sort_otherwise_is_refused(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "ledger.db")
    connection.execute("PRAGMA encoding = 'UTF-16'")
    connection.executescript("CREATE TABLE t (x); DROP TABLE t")
    connection.close()
    with pytest.raises(Foreign, match="keeps text as UTF-16"):
        Ledger.open(f"sqlite:///{tmp_path}/ledger.db", RULES, LEDGER_ID)


def test_a_folder_that_does_not_exist_and_one_where_the_file_should_be_are_named(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").mkdir()
    for path in (tmp_path / "none" / "ledger.db", tmp_path / "ledger.db"):
        with pytest.raises(Unavailable, match=str(path)):
            Ledger.open(f"sqlite:///{path}", RULES, LEDGER_ID)


def test_a_log_that_goes_on_after_the_head_is_refused_at_opening(tmp_path: Path, filled: bytes) -> None:
    path = tmp_path / "ledger.db"
    path.write_bytes(filled)
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(
            "INSERT INTO ledger_log SELECT sequence + 1, time_ms, code, result, reason, operation, app_hash, log_hash FROM ledger_log WHERE sequence = 150"
        )
    connection.close()
    with pytest.raises(Damaged, match="does not end with the ledger's head"):
        Ledger.open(f"sqlite:///{path}", RULES, LEDGER_ID)


def test_a_writer_beside_the_lock_is_noticed_before_anything_is_written(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with Ledger.open(f"sqlite:///{path}", RULES, LEDGER_ID) as ledger:
        ledger.submit(operation("mint", "a", 1)).result(60)
        connection = sqlite3.connect(path)
        with connection:
            connection.execute("UPDATE ledger_state SET height = 5")
        connection.close()
        with pytest.raises(Unavailable, match="another process has written"):
            ledger.submit(operation("mint", "a", 1)).result(60)
