"""What a table is: declared once as a row class, it gives the tables of both databases, the order of rows and their canonical bytes.

    class Account(NamedTuple):                       ACCOUNTS = declare(1, "accounts", Account, key=("address",),
        address: Annotated[bytes, fixed(20)]                            indexes=(Index("by_name", ("name",), unique=True),))
        name: Annotated[str, Text(64)]
        balance_noz: Annotated[int, Uint128()]

**Bytes of a value** (source: storage-protocol.md section 2, "canonical sorted row changes"; ADR 7):

    Int63      8 bytes big-endian, 0 to 2^63 - 1
    Uint128    16 bytes big-endian
    Bool       1 byte, 0 or 1
    fixed(n)   the n bytes
    Bytes      length (4 bytes big-endian), then the bytes
    Text       the same over UTF-8; no zero character

A row is its columns' bytes in the order declared. Kinds and sizes are the table's, so two different rows never have the same bytes. Every column has a
value: there is no NULL, whose meaning and order databases do not share.

**Order** is that of the key's values, column by column: bytes and UTF-8 bytewise, numbers by size, false before true. Python's order of tuples of these
values is the same one (code points order as their UTF-8 does), and so are both databases': blobs and text compare by memcmp, text with collation C.
A partial key bounds a range as the databases' row values do.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from operator import itemgetter
from typing import Any, Final, Generic, NamedTuple, TypeVar

import sqlalchemy
from sqlalchemy.dialects import postgresql, sqlite

from sds_node.meta.ledger.errors import BadValue, Damaged

MAX_INT63: Final = (1 << 63) - 1
MAX_UINT128: Final = (1 << 128) - 1
MAX_ROW_BYTES: Final = 1 << 20
MAX_KEY_BYTES: Final = 1024
MAX_INDEX_BYTES: Final = 2048
"""PostgreSQL refuses an index entry above 2,704 bytes; what this allows always fits."""
MAX_SCAN_ROWS: Final = 10_000
MAX_SCAN_BYTES: Final = 64 << 20
MAX_COLUMNS: Final = 64
MAX_INDEXES: Final = 8
MAX_TABLES: Final = 255
MAX_TABLE_ID: Final = 0xFFFF
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,39}")

Key = tuple[Any, ...]
Row = tuple[Any, ...]
R = TypeVar("R", bound=tuple[Any, ...])


# --- kinds ------------------------------------------------------------------------------------------------------------


class Int63(NamedTuple):
    """A whole number from 0 to 2^63 - 1: counts, times in ms, sizes in bytes."""

    name: str = "int63"

    @property
    def most_bytes(self) -> int:
        return 8


class Uint128(NamedTuple):
    """A whole number from 0 to 2^128 - 1: amounts. Both databases hold it as 16 bytes, exact and in order."""

    name: str = "uint128"

    @property
    def most_bytes(self) -> int:
        return 16


class Bool(NamedTuple):
    """True or False."""

    name: str = "bool"

    @property
    def most_bytes(self) -> int:
        return 1


class Bytes(NamedTuple):
    """From ``least`` to ``most`` bytes; equal ones make a column of fixed size, which needs no length."""

    most: int
    least: int = 0
    name: str = "bytes"

    @property
    def most_bytes(self) -> int:
        return self.most if self.least == self.most else self.most + 4


class Text(NamedTuple):
    """Text of at most ``most`` bytes of UTF-8, without the zero character."""

    most: int
    name: str = "text"

    @property
    def most_bytes(self) -> int:
        return self.most + 4


Kind = Int63 | Uint128 | Bool | Bytes | Text


def fixed(size_bytes: int) -> Bytes:
    """Exactly ``size_bytes`` bytes."""
    return Bytes(size_bytes, size_bytes)


_PYTHON: Final[dict[type, type]] = {Int63: int, Uint128: int, Bool: bool, Bytes: bytes, Text: str}


def _checker(where: str, kind: Kind) -> Callable[[Any], None]:
    """A function that raises BadValue for a value that ``kind`` does not hold. Types are exact: True is no number, a bytearray no bytes."""
    if isinstance(kind, Bool):

        def check_bool(value: Any) -> None:
            if type(value) is not bool:
                raise BadValue(f"{where} is True or False, got {type(value).__name__}")

        return check_bool
    if isinstance(kind, Int63 | Uint128):
        most = MAX_INT63 if isinstance(kind, Int63) else MAX_UINT128
        bits = most.bit_length()

        def check_number(value: Any) -> None:
            if type(value) is not int:
                raise BadValue(f"{where} is a whole number, got {type(value).__name__}")
            if not 0 <= value <= most:
                raise BadValue(f"{where} is from 0 to 2^{bits} - 1, got {'less' if value < 0 else 'more'}")

        return check_number
    if isinstance(kind, Bytes):
        least, longest = kind.least, kind.most

        def check_bytes(value: Any) -> None:
            if type(value) is not bytes:
                raise BadValue(f"{where} is bytes, got {type(value).__name__}")
            if not least <= len(value) <= longest:
                raise BadValue(f"{where} has {least} to {longest} bytes, got {len(value)}")

        return check_bytes
    most_text = kind.most

    def check_text(value: Any) -> None:
        if type(value) is not str:
            raise BadValue(f"{where} is text, got {type(value).__name__}")
        if "\0" in value:
            raise BadValue(f"{where} is text without the zero character, got one")
        if len(value) > most_text:
            raise BadValue(f"{where} has at most {most_text} bytes, got {len(value)} characters")
        try:
            size = len(value) if value.isascii() else len(value.encode())
        except UnicodeEncodeError:
            raise BadValue(f"{where} is text, got half of a surrogate pair") from None
        if size > most_text:
            raise BadValue(f"{where} has at most {most_text} bytes, got {size}")

    return check_text


def _encoder(kind: Kind) -> Callable[[Any], bytes]:
    if isinstance(kind, Int63):
        return lambda value: value.to_bytes(8, "big")
    if isinstance(kind, Uint128):
        return _pack_uint128
    if isinstance(kind, Bool):
        return lambda value: b"\x01" if value else b"\x00"
    if isinstance(kind, Bytes):
        return _same if kind.least == kind.most else _pack_bytes
    return lambda value: _pack_bytes(value.encode())


def _same(value: Any) -> Any:
    return value


def _pack_bytes(value: bytes) -> bytes:
    return len(value).to_bytes(4, "big") + value


def _pack_uint128(value: int) -> bytes:
    return value.to_bytes(16, "big")


def _unpack_uint128(value: Any) -> Any:
    return int.from_bytes(value, "big") if type(value) is bytes and len(value) == 16 else value


def _unpack_bool(value: Any) -> Any:
    """SQLite has no booleans: 0 and 1."""
    return bool(value) if value in (0, 1) else value


# --- tables -----------------------------------------------------------------------------------------------------------


class Index(NamedTuple):
    """Another order of a table's rows: by ``columns``, then by key. ``unique``: no two rows have the same ``columns``, which are the order then."""

    name: str
    columns: tuple[str, ...]
    unique: bool = False


@dataclass(frozen=True, eq=False, slots=True)
class Order:
    """One order of a table's rows, the key's own (``name`` is empty) or an index's: the columns compared, as places in a row."""

    name: str
    at: tuple[int, ...]
    columns: tuple[str, ...]
    unique: bool
    of: Callable[[Row], Key]
    checks: tuple[Callable[[Any], None], ...]


@dataclass(frozen=True, eq=False, slots=True)
class Table(Generic[R]):
    """A declared table. Make one with ``declare``."""

    id: int
    name: str
    row: type[R]
    columns: tuple[str, ...]
    kinds: tuple[Kind, ...]
    key_size: int
    """The first so many columns are the key."""
    indexes: tuple[Index, ...]
    has_large_rows: bool
    orders: Mapping[str, Order] = field(repr=False)
    checks: tuple[Callable[[Any], None], ...] = field(repr=False)
    encoders: tuple[Callable[[Any], bytes], ...] = field(repr=False)
    sized_at: tuple[int, ...] = field(repr=False)
    """Columns whose size varies."""
    packed_at: tuple[int, ...] = field(repr=False)
    """Columns of amounts."""
    bools_at: tuple[int, ...] = field(repr=False)
    fixed_bytes: int = field(repr=False)

    @property
    def most_scanned(self) -> int:
        """How many rows a scan gives at most: MAX_SCAN_ROWS, fewer where so many could have more than MAX_SCAN_BYTES."""
        return max(1, min(MAX_SCAN_ROWS, MAX_SCAN_BYTES // sum(kind.most_bytes for kind in self.kinds)))

    def key_of(self, row: R) -> Key:
        """The key's values of a row."""
        return tuple(row[: self.key_size])

    def check_row(self, row: R) -> None:
        """Raises BadValue for a row that the declaration does not allow."""
        if type(row) is not self.row:
            raise BadValue(f"a row of {self.name} is a {self.row.__name__}, got {type(row).__name__}")
        for check, value in zip(self.checks, row, strict=True):
            check(value)

    def check_key(self, key: Key) -> None:
        """Raises BadValue for a key that no row can have."""
        if type(key) is not tuple or len(key) != self.key_size:
            raise BadValue(f"a key of {self.name} is a tuple of {self.key_size} values ({', '.join(self.columns[: self.key_size])}), got {key!r:.80}")
        for check, value in zip(self.checks, key, strict=False):
            check(value)

    def load(self, values: Sequence[Any]) -> R:
        """The row from what a database gave. Raises Damaged for what ``put`` would not have written."""
        got = list(values)
        for at in self.packed_at:
            got[at] = _unpack_uint128(got[at])
        for at in self.bools_at:
            got[at] = _unpack_bool(got[at])
        row = self.row(*got)
        try:
            for check, value in zip(self.checks, row, strict=True):
                check(value)
        except BadValue as error:
            raise Damaged(f"table {self.name} holds a row that the ledger did not write ({error}): restore a backup, or import an export") from None
        return row

    def stored(self, row: Row) -> Row:
        """The row (or the first columns of one, as a key is) as both databases take it: amounts as 16 bytes."""
        if not self.packed_at:
            return row
        return tuple(_pack_uint128(value) if at in self.packed_at else value for at, value in enumerate(row))

    def encode(self, row: Row) -> bytes:
        """Canonical bytes of a row that passed ``check_row``."""
        return b"".join([encode(value) for encode, value in zip(self.encoders, row, strict=True)])

    def encode_key(self, key: Key) -> bytes:
        """Canonical bytes of a key: a row's first columns."""
        return b"".join([encode(value) for encode, value in zip(self.encoders, key, strict=False)])

    def weight(self, row: Row) -> int:
        """About how many bytes a row takes in memory. Bounds of operations count it, so it is a rule: the same on every node."""
        return self.fixed_bytes + sum([len(row[at]) for at in self.sized_at])

    def decode(self, raw: bytes) -> R:
        """The row whose canonical bytes these are. Raises BadValue for any others."""
        values: list[Any] = []
        at = 0
        for column, kind in zip(self.columns, self.kinds, strict=True):
            size = kind.most_bytes
            if isinstance(kind, Text) or (isinstance(kind, Bytes) and kind.least != kind.most):
                size, at = int.from_bytes(raw[at : at + 4], "big"), at + 4
            part, at = raw[at : at + size], at + size
            if at > len(raw):
                raise BadValue(f"a row of {self.name} ends within its column {column}")
            values.append(_decoded(f"{self.name}.{column}", kind, part))
        if at != len(raw):
            raise BadValue(f"a row of {self.name} has {len(raw) - at} bytes too many")
        row = self.row(*values)
        self.check_row(row)
        return row

    def describe(self) -> str:
        """The declaration as one line, the same in every process: what the schema's digest is over."""
        columns = ",".join(f"{name}:{':'.join(map(str, kind))}" for name, kind in zip(self.columns, self.kinds, strict=True))
        indexes = ",".join(f"{one.name}:{'+'.join(one.columns)}:{int(one.unique)}" for one in self.indexes)
        return f"{self.id} {self.name} {self.key_size} {columns} {indexes} {int(self.has_large_rows)}"


def _decoded(where: str, kind: Kind, part: bytes) -> Any:
    if isinstance(kind, Int63 | Uint128):
        return int.from_bytes(part, "big")
    if isinstance(kind, Bool):
        if part not in (b"\x00", b"\x01"):
            raise BadValue(f"{where} is one byte, 0 or 1, got 0x{part.hex()}")
        return part == b"\x01"
    if isinstance(kind, Text):
        try:
            return part.decode()
        except UnicodeDecodeError:
            raise BadValue(f"{where} is text, got bytes that are not UTF-8") from None
    return part


def declare(
    table_id: int, name: str, row: type[R], *, key: tuple[str, ...], indexes: tuple[Index, ...] = (), has_large_rows: bool = False
) -> Table[R]:
    """A table whose rows are ``row``, a NamedTuple with Annotated[type, kind] columns; ``key`` names the first of them. Rows of some hundred bytes and
    more are kept apart from the key in SQLite with ``has_large_rows``. Raises BadValue for a declaration that one of the databases could not keep."""
    if not 0 <= table_id <= MAX_TABLE_ID:
        raise BadValue(f"a table's id is from 0 to {MAX_TABLE_ID}, got {table_id}")
    columns, kinds = _columns(name, row)
    if not key or columns[: len(key)] != key:
        raise BadValue(f"table {name}: the key is the row's first columns, in their order; got {key}, the row has {columns}")
    checks = tuple(_checker(f"{name}.{column}", kind) for column, kind in zip(columns, kinds, strict=True))
    size = dict(zip(columns, (kind.most_bytes for kind in kinds), strict=True))
    if (largest := sum(size.values())) > MAX_ROW_BYTES:
        raise BadValue(f"table {name}: a row has at most {MAX_ROW_BYTES} bytes, its columns allow {largest}")
    if (largest := sum(size[one] for one in key)) > MAX_KEY_BYTES:
        raise BadValue(f"table {name}: a key has at most {MAX_KEY_BYTES} bytes, its columns allow {largest}")
    if len(indexes) > MAX_INDEXES or len({one.name for one in indexes}) != len(indexes):
        raise BadValue(f"table {name} has at most {MAX_INDEXES} indexes, each with a name of its own; got {[one.name for one in indexes]}")
    orders = {"": _order("", columns, key, True, checks)}
    for index in indexes:
        _check_name("an index", index.name)
        if not index.columns or len(set(index.columns)) != len(index.columns) or not set(index.columns) <= set(columns):
            raise BadValue(f"index {index.name} of {name} names different columns of the row, got {index.columns}")
        # What is unique has an order already; else the key decides between equal ones, on every database alike.
        full = index.columns if index.unique else index.columns + tuple(one for one in key if one not in index.columns)
        if (largest := sum(size[one] for one in full)) > MAX_INDEX_BYTES:
            raise BadValue(f"index {index.name} of {name}: columns and key have at most {MAX_INDEX_BYTES} bytes, they allow {largest}")
        orders[index.name] = _order(index.name, columns, full, index.unique, checks)
    varies = [isinstance(kind, Text) or (isinstance(kind, Bytes) and kind.least != kind.most) for kind in kinds]
    return Table(
        table_id, name, row, columns, kinds, len(key), indexes, has_large_rows, orders, checks, tuple(map(_encoder, kinds)),
        tuple(at for at, one in enumerate(varies) if one),
        tuple(at for at, kind in enumerate(kinds) if isinstance(kind, Uint128)),
        tuple(at for at, kind in enumerate(kinds) if isinstance(kind, Bool)),
        200 + 40 * len(columns) + sum(kind.most_bytes for kind, one in zip(kinds, varies, strict=True) if not one),
    )  # fmt: skip


def _check_name(what: str, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise BadValue(f"{what}'s name is 1 to 40 of a-z, 0-9 and _, a letter first; got {name!r:.60}")


def _columns(name: str, row: type[Any]) -> tuple[tuple[str, ...], tuple[Kind, ...]]:
    _check_name("a table", name)
    columns = tuple(getattr(row, "_fields", ()))
    if not 0 < len(columns) <= MAX_COLUMNS:
        raise BadValue(f"table {name}: the row class is a NamedTuple of 1 to {MAX_COLUMNS} columns, got {row!r:.80}")
    hints = typing.get_type_hints(row, include_extras=True)
    kinds: list[Kind] = []
    for column in columns:
        _check_name(f"a column of {name}", column)
        marks = [one for one in getattr(hints[column], "__metadata__", ()) if type(one) in _PYTHON]
        if len(marks) != 1 or hints[column].__origin__ is not _PYTHON[type(marks[0])]:
            raise BadValue(f"{name}.{column} is Annotated[type, kind] with one kind of schema.py and its type, got {hints[column]}")
        kind: Kind = marks[0]
        if isinstance(kind, Bytes) and not 0 <= kind.least <= kind.most <= MAX_ROW_BYTES:
            raise BadValue(f"{name}.{column}: bytes have sizes from 0 to {MAX_ROW_BYTES}, got {kind.least} to {kind.most}")
        if isinstance(kind, Text) and not 0 < kind.most <= MAX_ROW_BYTES:
            raise BadValue(f"{name}.{column}: text has 1 to {MAX_ROW_BYTES} bytes at most, got {kind.most}")
        kinds.append(kind)
    return columns, tuple(kinds)


def _order(name: str, columns: tuple[str, ...], full: tuple[str, ...], unique: bool, checks: tuple[Callable[[Any], None], ...]) -> Order:
    at = tuple(columns.index(one) for one in full)
    pick = itemgetter(*at)
    of = pick if len(at) > 1 else lambda row: (row[at[0]],)
    return Order(name, at, full, unique, of, tuple(checks[one] for one in at))


# --- schemas ----------------------------------------------------------------------------------------------------------


class Schema:
    """Tables with ids and names of their own, in the order of their ids."""

    def __init__(self, tables: Sequence[Table[Any]]) -> None:
        """Raises BadValue for tables that cannot be in one schema."""
        self.tables: tuple[Table[Any], ...] = tuple(sorted(tables, key=lambda one: one.id))
        ids, names = {one.id for one in tables}, {one.name for one in tables}
        if len(tables) > MAX_TABLES or len(ids) != len(tables) or len(names) != len(tables):
            raise BadValue(f"a schema has at most {MAX_TABLES} tables with ids and names of their own, got {[(one.id, one.name) for one in tables]}")
        if 0 in ids or any(one.startswith(("ledger_", "sqlite_", "pg_", "old_")) for one in names):
            raise BadValue("table id 0 and names that begin with ledger_, sqlite_, pg_ or old_ are taken")
        self.by_id: Mapping[int, Table[Any]] = {one.id: one for one in self.tables}

    @property
    def digest(self) -> bytes:
        """SHA-256 over the declarations: equal where rows and their bytes are."""
        return sha256("\n".join(one.describe() for one in self.tables).encode()).digest()


def sql_metadata(tables: Sequence[Table[Any]], prefix: str = "") -> sqlalchemy.MetaData:
    """SQLAlchemy's tables for both databases: what creates them, and what an operator's own queries can use.

    SQLite keeps small rows inside the key's tree (WITHOUT ROWID), so a look-up walks one tree and an index row is not stored twice.
    """
    metadata = sqlalchemy.MetaData()
    for table in tables:
        name = prefix + table.name
        columns = [
            sqlalchemy.Column(column, _sql_type(kind), nullable=False, primary_key=at < table.key_size, autoincrement=False)
            for at, (column, kind) in enumerate(zip(table.columns, table.kinds, strict=True))
        ]
        made = sqlalchemy.Table(name, metadata, *columns, sqlite_with_rowid=table.has_large_rows)
        for index in table.indexes:
            order = table.orders[index.name]
            sqlalchemy.Index(f"{name}__{index.name}", *(made.c[one] for one in order.columns), unique=index.unique)
    return metadata


def _sql_type(kind: Kind) -> sqlalchemy.types.TypeEngine[Any]:
    if isinstance(kind, Int63):
        return sqlalchemy.BigInteger().with_variant(sqlite.INTEGER(), "sqlite")
    if isinstance(kind, Bool):
        return sqlalchemy.Boolean(create_constraint=False).with_variant(sqlite.INTEGER(), "sqlite")
    if isinstance(kind, Text):
        return sqlalchemy.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
    return sqlalchemy.LargeBinary()
