"""An application for the ledger's tests: a bank whose transfers may fail, and an inventory with indexes. And the same in dictionaries, as an oracle.

An operation is JSON: [verb, arguments …]. The oracle shares no line with the ledger but the canonical bytes of rows, which tests check on their own.
"""

from __future__ import annotations

import json
import random
from hashlib import sha256
from typing import Annotated, Any, NamedTuple

from sds_node.meta.ledger.core import Rules
from sds_node.meta.ledger.errors import Refused
from sds_node.meta.ledger.schema import Bool, Bytes, Index, Int63, Schema, Text, Uint128, declare, fixed
from sds_node.meta.ledger.tables import Tables

POOR, UNKNOWN, UNREADABLE, EMPTY = 16, 17, 18, 19
MOST = (1 << 128) - 1
LEDGER_ID = "shop-1"


class Account(NamedTuple):
    owner: Annotated[str, Text(40)]
    balance: Annotated[int, Uint128()]
    moves: Annotated[int, Int63()]


class Item(NamedTuple):
    shelf: Annotated[bytes, Bytes(8)]
    number: Annotated[int, Int63()]
    code: Annotated[bytes, fixed(4)]
    label: Annotated[str, Text(40)]
    price: Annotated[int, Uint128()]
    is_sold: Annotated[bool, Bool()]


class Sale(NamedTuple):
    at_ms: Annotated[int, Int63()]
    code: Annotated[bytes, fixed(4)]
    buyer: Annotated[str, Text(40)]


ACCOUNTS = declare(1, "accounts", Account, key=("owner",), indexes=(Index("by_balance", ("balance",)),))
ITEMS = declare(
    7, "items", Item, key=("shelf", "number"), indexes=(Index("by_code", ("code",), unique=True), Index("by_price", ("is_sold", "price", "label")))
)
SALES = declare(300, "sales", Sale, key=("at_ms", "code", "buyer"), has_large_rows=True)
SCHEMA = Schema([SALES, ACCOUNTS, ITEMS])


def operation(verb: str, *arguments: Any) -> bytes:
    return json.dumps([verb, *arguments]).encode()


def apply(raw: bytes, time_ms: int, tables: Tables) -> bytes:
    try:
        verb, *arguments = json.loads(raw)
        rule = VERBS[verb]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise Refused(UNREADABLE, "an operation is [verb, arguments ...]") from None
    return rule(tables, time_ms, *arguments)


def mint(tables: Tables, time_ms: int, owner: str, amount: int) -> bytes:
    row = tables.get(ACCOUNTS, (owner,)) or Account(owner, 0, 0)
    tables.put(ACCOUNTS, Account(owner, min(MOST, row.balance + amount), row.moves + 1))
    return b""


def send(tables: Tables, time_ms: int, sender: str, receiver: str, amount: int) -> bytes:
    """Takes before it looks, so that what is refused has something to undo."""
    source = tables.get(ACCOUNTS, (sender,))
    if source is None:
        raise Refused(UNKNOWN, f"{sender} has no account")
    target = tables.get(ACCOUNTS, (receiver,)) or Account(receiver, 0, 0)
    tables.put(ACCOUNTS, target._replace(balance=min(MOST, target.balance + amount), moves=target.moves + 1))
    source = tables.get(ACCOUNTS, (sender,))
    assert source is not None
    if source.balance < amount:
        raise Refused(POOR, f"{sender} has {source.balance}, not {amount}")
    tables.put(ACCOUNTS, source._replace(balance=source.balance - amount, moves=source.moves + 1))
    return str(source.balance - amount).encode()


def close(tables: Tables, time_ms: int, owner: str) -> bytes:
    tables.delete(ACCOUNTS, (owner,))
    return b""


def stock(tables: Tables, time_ms: int, shelf: str, number: int, code: str, label: str, price: int) -> bytes:
    tables.put(ITEMS, Item(bytes.fromhex(shelf), number, bytes.fromhex(code), label, price, False))
    return b""


def buy(tables: Tables, time_ms: int, owner: str) -> bytes:
    """Buys the cheapest item that is left; the priciest account pays if ``owner`` is empty."""
    cheapest = tables.scan(ITEMS, (False,), index="by_price", limit=1)
    if not cheapest:
        raise Refused(EMPTY, "nothing is left")
    if not owner:
        richest = tables.scan(ACCOUNTS, index="by_balance", limit=1, reverse=True)
        if not richest:
            raise Refused(UNKNOWN, "there is no account")
        owner = richest[0].owner
    item = cheapest[0]
    tables.put(ITEMS, item._replace(is_sold=True))
    tables.put(SALES, Sale(time_ms, item.code, owner))
    row = tables.get(ACCOUNTS, (owner,))
    if row is None or row.balance < item.price:
        raise Refused(POOR, f"{owner} cannot pay {item.price}")
    tables.put(ACCOUNTS, row._replace(balance=row.balance - item.price, moves=row.moves + 1))
    return item.code


def swap(tables: Tables, time_ms: int, one: str, other: str) -> bytes:
    """Two items change places in a unique index."""
    left, right = tables.find(ITEMS, "by_code", (bytes.fromhex(one),)), tables.find(ITEMS, "by_code", (bytes.fromhex(other),))
    if left is None or right is None or left == right:
        raise Refused(UNKNOWN, "there are no two such items")
    tables.delete(ITEMS, left[:2])
    tables.put(ITEMS, right._replace(code=left.code))
    tables.put(ITEMS, left._replace(code=right.code))
    return b""


def clear(tables: Tables, time_ms: int, shelf: str, start: int, most: int) -> bytes:
    rows = tables.scan(ITEMS, (bytes.fromhex(shelf),), start=(start,), limit=most)
    for row in rows:
        tables.delete(ITEMS, row[:2])
    return len(rows).to_bytes(2, "big")


def try_all(tables: Tables, time_ms: int, *parts: Any) -> bytes:
    """Each part in turn; those that are refused are undone alone."""
    done = bytearray()
    for verb, *arguments in parts:
        mark = tables.mark()
        try:
            VERBS[verb](tables, time_ms, *arguments)
            done.append(1)
        except Refused:
            tables.rollback(mark)
            done.append(0)
    return bytes(done)


def report(tables: Tables, time_ms: int, shelf: str, most: int, is_reverse: bool) -> bytes:
    """Reads much, writes nothing; its result shows what it saw."""
    rows: list[Any] = list(tables.scan(ITEMS, limit=most, reverse=is_reverse))
    rows += tables.scan(ITEMS, (bytes.fromhex(shelf),), limit=most, reverse=is_reverse)
    rows += tables.scan(ITEMS, index="by_code", limit=most, reverse=is_reverse)
    rows += tables.scan(ITEMS, index="by_price", after=(False, 50), end=(True, 60), limit=most, reverse=is_reverse)
    rows += tables.scan(ACCOUNTS, start=("b",), end=("ä",), limit=most, reverse=is_reverse)
    rows += tables.scan(ACCOUNTS, index="by_balance", start=(10,), limit=most, reverse=is_reverse)
    return sha256(repr([tuple(row) for row in rows]).encode()).digest()


VERBS: dict[str, Any] = {one.__name__: one for one in (mint, send, close, stock, buy, swap, clear, try_all, report)}


def wants(raw: bytes) -> list[tuple[Any, Any]]:
    verb, *arguments = json.loads(raw)
    return [(ACCOUNTS, (one,)) for one in arguments[:2] if isinstance(one, str)] if verb in ("mint", "send") else []


RULES = Rules("shop", SCHEMA, apply, wants=wants)

NAMES = ("a", "b", "anna", "ä", "z\u00e9", "\U0001f600", "\ufffd", "zz")
SHELVES = ("", "00", "0000", "00ff", "01", "ff")


def random_operation(chosen: random.Random, depth: int = 0) -> list[Any]:
    """Arguments from small sets, so that operations meet; amounts from the ends of their range too."""

    def name() -> str:
        return chosen.choice(NAMES)

    def amount() -> int:
        return chosen.choice((chosen.randrange(100), chosen.randrange(100), chosen.randrange(10_000), 1 << 64, MOST, 0))

    def code() -> str:
        return chosen.randrange(24).to_bytes(4, "big").hex()

    verb = chosen.choices(
        ("mint", "send", "close", "stock", "buy", "swap", "clear", "report", "try_all", "bug"),
        (15, 25, 2, 25, 12, 6, 3, 5, 6 if depth == 0 else 0, 1),
    )[0]
    if verb == "mint":
        return [verb, name(), amount()]
    if verb == "send":
        return [verb, name(), name(), amount()]
    if verb == "close":
        return [verb, name()]
    if verb == "stock":
        return [verb, chosen.choice(SHELVES), chosen.randrange(6), code(), name(), chosen.randrange(120)]
    if verb == "buy":
        return [verb, chosen.choice(("", name()))]
    if verb == "swap":
        return [verb, code(), code()]
    if verb == "clear":
        return [verb, chosen.choice(SHELVES), chosen.randrange(6), chosen.randrange(1, 4)]
    if verb == "report":
        return [verb, chosen.choice(SHELVES), chosen.randrange(1, 30), chosen.random() < 0.5]
    if verb == "try_all":
        return [verb, *(random_operation(chosen, 1) for _ in range(chosen.randrange(1, 5)))]
    # Mistakes of whoever wrote the rules, and what is no operation at all.
    return chosen.choice(
        (["mint", name(), -1 - MOST], ["mint", "n" * 41, 1], ["stock", "ff", 1 << 63, code(), "x", 1], ["mint"], ["none"], ["close", 1])
    )


def history(seed: int, count: int) -> list[bytes]:
    chosen = random.Random(seed)
    return [operation(*random_operation(chosen)) for _ in range(count)]


class Model:
    """The tables as dictionaries, with ``Tables``' methods; whole copies instead of an undo log; the app hash written down as the page of the protocol has it."""

    def __init__(self, first_hash: bytes) -> None:
        self.rows: dict[Any, dict[Any, Any]] = {table: {} for table in SCHEMA.tables}
        self.app_hash = first_hash
        self.touched: set[Any] = set()
        self._marks: list[Any] = []

    def get(self, table: Any, key: Any) -> Any:
        table.check_key(key)
        return self.rows[table].get(key)

    def put(self, table: Any, row: Any) -> None:
        table.check_row(row)
        key = row[: table.key_size]
        for index in table.indexes:
            if index.unique:
                values = [getattr(row, one) for one in index.columns]
                for other in self.rows[table].values():
                    if other[: table.key_size] != key and [getattr(other, one) for one in index.columns] == values:
                        refusal = Refused(POOR, f"{table.name}: another row has the same {' and '.join(index.columns)}")
                        refusal.code = 2
                        raise refusal
        self.rows[table][key] = row
        self.touched.add((table.id, key))

    def delete(self, table: Any, key: Any) -> None:
        table.check_key(key)
        self.rows[table].pop(key, None)
        self.touched.add((table.id, key))

    def find(self, table: Any, index: str, values: Any) -> Any:
        found = self.scan(table, values, index=index, limit=1)
        return found[0] if found else None

    def scan(
        self, table: Any, prefix: Any = (), *, start: Any = (), after: Any = (), end: Any = (), index: str = "", limit: int, reverse: bool = False
    ) -> Any:
        names = {one.name: one.columns for one in table.indexes}.get(index, ())
        rows = sorted(self.rows[table].values(), key=lambda row: (*[getattr(row, one) for one in names], *row[: table.key_size]))
        found = []
        for row in rows:
            place = tuple(getattr(row, one) for one in names) if names else row[: table.key_size]
            place += row[: table.key_size] if names else ()
            rest = place[len(prefix) :]
            is_above = rest[: len(after)] > after if after else rest[: len(start)] >= start
            is_below = not end or rest[: len(end)] < end
            if place[: len(prefix)] == prefix and is_above and is_below:
                found.append(row)
        return found[::-1][:limit] if reverse else found[:limit]

    def mark(self) -> Any:
        self._marks.append(({table: dict(rows) for table, rows in self.rows.items()}, set(self.touched)))
        return len(self._marks) - 1

    def rollback(self, mark: Any) -> None:
        rows, touched = self._marks[mark]
        self.rows, self.touched = {table: dict(one) for table, one in rows.items()}, set(touched)

    def run(self, raw: bytes, time_ms: int) -> tuple[int, bytes, str]:
        """(code, result, reason), and the app hash moves on."""
        self._marks.clear()
        self.touched = set()
        whole = self.mark()
        outcome: tuple[int, bytes, str]
        try:
            outcome = (0, apply(raw, time_ms, self), "")  # type: ignore[arg-type]
        except Refused as refusal:
            outcome = (refusal.code, b"", refusal.reason)
        except Exception as error:
            outcome = (1, b"", f"internal error: {type(error).__name__}")
        if outcome[0]:
            self.rollback(whole)
        by_id = {table.id: table for table in SCHEMA.tables}
        changes = b""
        for table_id, key in sorted(self.touched):
            row = self.rows[by_id[table_id]].get(key)
            changes += table_id.to_bytes(2, "big")
            changes += b"\x00" + by_id[table_id].encode_key(key) if row is None else b"\x01" + by_id[table_id].encode(row)
        self.app_hash = sha256(self.app_hash + sha256(changes).digest()).digest()
        return outcome

    def all_rows(self) -> dict[str, list[Any]]:
        return {table.name: [rows[key] for key in sorted(rows)] for table, rows in self.rows.items()}


def all_rows(view: Any) -> dict[str, list[Any]]:
    return {table.name: view.scan(table, limit=10_000) for table in SCHEMA.tables}
