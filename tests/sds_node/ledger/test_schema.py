"""Declarations: what they allow, the bytes of rows, and one order everywhere."""

from __future__ import annotations

import random
from typing import Annotated, Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sds_node.meta.ledger.core import Core, Rules
from sds_node.meta.ledger.errors import BadValue, Damaged
from sds_node.meta.ledger.schema import Bool, Bytes, Index, Int63, Schema, Text, Uint128, declare, fixed
from sds_node.meta.ledger.sql import Bounds, open_store


class Mixed(NamedTuple):
    data: Annotated[bytes, Bytes(6)]
    text: Annotated[str, Text(12)]
    amount: Annotated[int, Uint128()]
    is_set: Annotated[bool, Bool()]
    number: Annotated[int, Int63()]
    tag: Annotated[bytes, fixed(2)]


MIXED = declare(1, "mixed", Mixed, key=("data", "text", "amount", "is_set", "number"), indexes=(Index("back", ("text", "is_set", "data")),))
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12).filter(lambda one: len(one.encode()) <= 12)
ROWS = st.builds(
    Mixed,
    st.binary(max_size=6),
    TEXTS,
    st.integers(0, (1 << 128) - 1),
    st.booleans(),
    st.integers(0, (1 << 63) - 1),
    st.binary(min_size=2, max_size=2),
)


@given(ROWS, ROWS)
@settings(max_examples=150, deadline=None)
def test_rows_come_back_from_their_bytes_and_different_rows_have_different_bytes(one: Mixed, other: Mixed) -> None:
    assert MIXED.decode(MIXED.encode(one)) == one
    assert type(MIXED.decode(MIXED.encode(one)).is_set) is bool
    assert (MIXED.encode(one) == MIXED.encode(other)) == (one == other)
    assert (MIXED.encode_key(one[:5]) == MIXED.encode_key(other[:5])) == (one[:5] == other[:5])


def test_the_bytes_of_a_row_are_those_the_page_says() -> None:
    row = Mixed(b"\x00\xff", "ä", 1 << 64, True, 7, b"xy")
    wanted = "0000000200ff00000002c3a4000000000000000100000000000000000100000000000000077879"
    assert MIXED.encode(row).hex() == wanted


@given(ROWS, st.data())
@settings(max_examples=100, deadline=None)
def test_bytes_that_are_no_row_are_refused_or_are_another_row(row: Mixed, data: st.DataObject) -> None:
    raw = bytearray(MIXED.encode(row))
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= data.draw(st.integers(1, 255))
    try:
        other = MIXED.decode(bytes(raw))
    except BadValue:
        other = None
    assert other != row
    if other is not None:
        assert MIXED.encode(other) == bytes(raw)
    for cut in (bytes(raw[:-1]), bytes(raw) + b"\0"):
        with pytest.raises(BadValue):
            MIXED.decode(cut) if other is not None else MIXED.decode(MIXED.encode(row)[:-1])


class Simple(NamedTuple):
    key: Annotated[int, Int63()]
    value: Annotated[bytes, Bytes(4)]


class Untyped(NamedTuple):
    key: int


class Wrong(NamedTuple):
    key: Annotated[str, Int63()]


class Wide(NamedTuple):
    key: Annotated[bytes, Bytes(2000)]
    value: Annotated[bytes, Bytes(1 << 20)]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((1, "Simple", Simple, ("key",)), "name is 1 to 40"),
        ((1, 'x"; drop table y', Simple, ("key",)), "name is 1 to 40"),
        ((1 << 16, "simple", Simple, ("key",)), "id is from 0"),
        ((1, "simple", Simple, ()), "the key is the row's first columns"),
        ((1, "simple", Simple, ("value",)), "the key is the row's first columns"),
        ((1, "untyped", Untyped, ("key",)), "Annotated"),
        ((1, "wrong", Wrong, ("key",)), "Annotated"),
        ((1, "wide", Wide, ("key",)), "at most 1048576 bytes"),
    ],
)
def test_a_declaration_that_a_database_could_not_keep_is_refused(arguments: Any, said: str) -> None:
    table_id, name, row, key = arguments
    with pytest.raises(BadValue, match=said):
        declare(table_id, name, row, key=key)


def test_indexes_name_columns_and_tables_have_ids_of_their_own() -> None:
    for index in (Index("x", ("none",)), Index("x", ()), Index("x", ("value", "value")), Index("X", ("value",))):
        with pytest.raises(BadValue):
            declare(1, "simple", Simple, key=("key",), indexes=(index,))
    table = declare(1, "simple", Simple, key=("key",))
    for other in (declare(1, "other", Simple, key=("key",)), declare(2, "simple", Simple, key=("key",)), declare(0, "x", Simple, key=("key",))):
        with pytest.raises(BadValue):
            Schema([table, other])
    with pytest.raises(BadValue):
        Schema([declare(3, "ledger_x", Simple, key=("key",))])


@pytest.mark.parametrize(
    "row",
    [
        Mixed(bytearray(b"x"), "", 0, True, 0, b"xy"),  # type: ignore[arg-type]
        Mixed(b"1234567", "", 0, True, 0, b"xy"),
        Mixed(b"", "a\0b", 0, True, 0, b"xy"),
        Mixed(b"", "\ud800", 0, True, 0, b"xy"),
        Mixed(b"", "äääääää", 0, True, 0, b"xy"),
        Mixed(b"", "", 1 << 128, True, 0, b"xy"),
        Mixed(b"", "", -1, True, 0, b"xy"),
        Mixed(b"", "", True, True, 0, b"xy"),
        Mixed(b"", "", 1.0, True, 0, b"xy"),  # type: ignore[arg-type]
        Mixed(b"", "", 0, 1, 0, b"xy"),  # type: ignore[arg-type]
        Mixed(b"", "", 0, True, 1 << 63, b"xy"),
        Mixed(b"", "", 0, True, 0, b"x"),
        (b"", "", 0, True, 0, b"xy"),
    ],
)
def test_a_value_that_its_column_does_not_hold_is_refused(row: Any) -> None:
    with pytest.raises(BadValue):
        MIXED.check_row(row)


def test_a_row_from_a_database_is_checked_like_one_from_the_rules() -> None:
    assert MIXED.load((b"a", "t", bytes(16), 1, 5, b"xy")) == Mixed(b"a", "t", 0, True, 5, b"xy")
    for values in ((b"a", "t", bytes(15), 1, 5, b"xy"), (b"a", "t", bytes(16), 2, 5, b"xy"), (b"a", None, bytes(16), 1, 5, b"xy")):
        with pytest.raises(Damaged, match="restore a backup"):
            MIXED.load(values)


def test_both_databases_order_rows_as_python_orders_their_keys(kind_url: str) -> None:
    chosen = random.Random(4)
    datas = (b"", b"\0", b"\0\0", b"\0\xff", b"\x01", b"\x7f", b"\x80", b"\xff", b"\xff\xff")
    texts = ("", " ", "A", "a", "B", "_", "a b", "ab", "é", "e\u0301", "\u00df", "\uffff", "\U00010000", "\U0001f600", "\x01", "~")
    amounts, numbers = (0, 1, 255, 256, 1 << 63, 1 << 64, (1 << 128) - 1), (0, 1, 255, 256, (1 << 63) - 1)

    def row() -> Mixed:
        return Mixed(chosen.choice(datas), chosen.choice(texts), chosen.choice(amounts), chosen.random() < 0.5, chosen.choice(numbers), b"xy")

    rows = {one[:5]: one for one in (row() for _ in range(400))}
    core = Core.open(open_store(kind_url), Rules("order", Schema([MIXED]), lambda *_: b""), "order-1")
    core.session.begin()
    core.session.write(MIXED, list(rows.values()), ())
    core.session.commit()
    for name, by in (("", lambda one: one[:5]), ("back", lambda one: (one.text, one.is_set, one.data, one.amount, one.number))):
        got = [MIXED.load(one) for one in core.session.page(MIXED, MIXED.orders[name], Bounds(), 1000, False)]
        assert got == sorted(rows.values(), key=by)
        back = [MIXED.load(one) for one in core.session.page(MIXED, MIXED.orders[name], Bounds(), 1000, True)]
        assert back == got[::-1]
    core.close()
