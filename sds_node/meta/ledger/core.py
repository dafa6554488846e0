"""The one writer of a ledger: applies operations in order and commits them, whoever gives the order (``engine.py``, ``blocks.py``).

    begin(time) ─ apply(op) ─ apply(op) ─ … ─ write ─ commit        "began" … "rows" "log" "head" "committed": steps for tests that kill
                    │ rules raise Refused: nothing changed but what ``Rules.refused`` notes, the entry says why
                    └ rules raise anything else: the same with code 1, unless the machine or the database failed

Everything of a batch is one transaction: rows, log entries, head. A batch too large for memory goes into its open transaction part by part. After an
error of the database the core is broken: what the transaction held is gone, and only opening again says where the ledger stands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any, Final

import structlog

from sds_node.meta.ledger.errors import CODE_BUG, CODE_OK, BadValue, Damaged, Foreign, LedgerError, Refused, Unavailable
from sds_node.meta.ledger.log import (
    FORMAT,
    HEAD,
    LOG,
    MAX_OPERATION_BYTES,
    MAX_RESULT_BYTES,
    OWN,
    Entry,
    Head,
    Result,
    check_chain,
    first_head,
    next_app_hash,
    next_log_hash,
    read_head,
)
from sds_node.meta.ledger.schema import MAX_INT63, MAX_SCAN_ROWS, Key, Row, Schema, Table
from sds_node.meta.ledger.sql import Bounds, Session, Store
from sds_node.meta.ledger.tables import CACHE_BYTES, Tables

log = structlog.get_logger("ledger")

SPILL_BYTES: Final = 128 << 20
"""Pending rows and log entries beyond this go into the open transaction."""
TRIM_ROWS: Final = 2_000
_MIGRATION: Final = b"stratos/ledger-migration/v1\0"
_MOVED: Final = "old_"

Apply = Callable[[bytes, int, Tables], bytes]


def _no_step(_: str) -> None:
    return


@dataclass(frozen=True, slots=True)
class Migration:
    """From one version of a schema to the next. ``convert`` gets (table's name, row) of every old row, by table's id and key, and gives those of the new
    tables that it becomes; it must be a function of its arguments alone."""

    schema: Schema
    """The version that is left."""
    convert: Callable[[str, Row], Iterable[tuple[str, Row]]]


@dataclass(frozen=True, slots=True)
class Rules:
    """What a ledger is for. ``apply(operation, time_ms, tables)`` is deterministic: it gives result bytes (at most MAX_RESULT_BYTES) or raises Refused."""

    application: str
    schema: Schema
    apply: Apply
    schema_version: int = 1
    migrations: Mapping[int, Migration] = field(default_factory=dict)
    """By the version that each one leaves."""
    wants: Callable[[bytes], Sequence[tuple[Table[Any], Key]]] | None = None
    """Rows that an operation will read, for reading ahead; without effect on any result, and never trusted to be complete."""
    refused: Callable[[bytes, int, Tables], None] | None = None
    """What stays of an operation that was refused, such as that its number is used. It may raise Refused: then nothing stays."""


class Core:
    """The writer. One thread at a time."""

    def __init__(self, session: Session, rules: Rules, head: Head, cache_bytes: int, on_step: Callable[[str], None]) -> None:
        self._session, self._rules, self._on_step = session, rules, on_step
        self._committed = self._head = head
        self.tables = Tables(rules.schema, session, cache_bytes)
        self._entries: list[Entry] = []
        self._entries_bytes = 0
        self._time_ms = 0
        self._in_batch = False
        self.broken: LedgerError | None = None

    @classmethod
    def open(cls, store: Store, rules: Rules, ledger_id: str, *, cache_bytes: int = CACHE_BYTES, on_step: Callable[[str], None] = _no_step) -> Core:
        """Take the writer's lock; make the tables in an empty database, check or migrate those of one that has them. Raises Locked, Foreign, Damaged,
        Unavailable."""
        session = store.lock()
        try:
            head = _opened(session, rules, ledger_id, store.shown)
            return cls(session, rules, head, cache_bytes, on_step)
        except BaseException:
            session.close()
            raise

    @property
    def head(self) -> Head:
        """The committed head."""
        return self._committed

    @property
    def session(self) -> Session:
        return self._session

    def begin(self, time_ms: int, height: int | None = None) -> None:
        """Begin a batch at ``time_ms``; an earlier time than the last operation's becomes that one. Without a height, the last one stays."""
        self._check()
        if self._in_batch:
            raise BadValue("a batch has begun already: write and commit it, or abandon it")
        with _Guard(self):
            self._session.begin()
            if read_head(self._session) != self._committed:
                raise Damaged("another process has written this ledger since it was opened: see that one alone runs, then start again")
            self._in_batch = True
            self._time_ms = max(min(time_ms, MAX_INT63), self._committed.time_ms)
            self._head = self._committed if height is None else self._committed._replace(height=height)
            self._on_step("began")

    def prefetch(self, operations: Iterable[bytes]) -> None:
        """Read ahead what the rules say that operations will want."""
        if self._rules.wants is None:
            return
        wanted: list[tuple[Table[Any], Key]] = []
        for operation in operations:
            try:
                wanted.extend(self._rules.wants(operation))
            except Exception:  # noqa: S112  an operation that cannot be read is refused when its turn comes
                continue
        with _Guard(self):
            try:
                self.tables.prefetch(wanted)
            except BadValue:
                log.warning("an application wants rows that its tables cannot have")

    def apply(self, operation: bytes) -> Result:
        """Apply one operation of the batch. Raises BadValue for one that is too large; an error of the machine or the database breaks the core."""
        self._check()
        if not self._in_batch:
            raise BadValue("an operation is applied within a batch: begin one")
        check_operation(operation)
        head, tables = self._head, self.tables
        with _Guard(self):
            code, result, reason = run_rules(self._rules, operation, self._time_ms, tables)
            app_hash = next_app_hash(head.app_hash, head.carry, tables.close_operation(keep=True))
            entry = Entry(head.sequence + 1, self._time_ms, code, result, reason, operation, app_hash, b"")
            log_hash = next_log_hash(head.log_hash, entry)
            self._entries.append(entry._replace(log_hash=log_hash))
            self._entries_bytes += len(operation) + len(result) + 600
            self._head = head._replace(sequence=entry.sequence, time_ms=self._time_ms, app_hash=app_hash, log_hash=log_hash, carry=b"")
            self._on_step("applied")
            if tables.weight_bytes + self._entries_bytes > SPILL_BYTES:
                self._spill()
        return Result(entry.sequence, entry.time_ms, code, result, reason, app_hash)

    @property
    def uncommitted(self) -> Head:
        """The head as the open batch makes it."""
        return self._head

    @property
    def weight_bytes(self) -> int:
        """About what the batch takes in memory."""
        return self.tables.weight_bytes + self._entries_bytes

    def _spill(self) -> None:
        self.tables.flush()
        self._on_step("rows")
        if self._entries:
            self._session.write(LOG, self._entries, ())
            self._entries.clear()
            self._entries_bytes = 0
        self._on_step("log")

    def write(self) -> None:
        """Write the batch into its transaction."""
        self._check()
        if not self._in_batch:
            raise BadValue("there is no batch to write: begin one")
        with _Guard(self):
            self._spill()
            self._session.write(HEAD, [self._head], ())
            self._on_step("head")

    def commit(self) -> None:
        """Commit the batch: it is on disk when this returns."""
        self._check()
        if not self._in_batch:
            raise BadValue("there is no batch to commit: begin one")
        with _Guard(self):
            self._session.commit()
            self._in_batch = False
            self._committed = self._head
            self._on_step("committed")

    def abandon(self) -> None:
        """Drop the open batch, if there is one: nothing of it was done."""
        if not self._in_batch:
            return
        with _Guard(self):
            self._in_batch = False
            self._entries.clear()
            self._entries_bytes = 0
            self.tables.forget()
            self._head = self._committed
            self._session.rollback()

    def prune(self, below: int) -> None:
        """Move the log's beginning: entries with a sequence below ``below`` no longer count; their last hashes are kept. ``trim`` then deletes them. Raises
        BadValue for a place the log does not have."""
        self._check()
        head = self._committed
        if not 1 <= below <= head.sequence + 1:
            raise BadValue(f"the log has entries {head.base_sequence + 1} to {head.sequence}: prune below one of them, or the one after; got {below}")
        if below - 1 <= head.base_sequence:
            return
        with _Guard(self):
            self._session.begin()
            values = self._session.get(LOG, (below - 1,))
            if values is None:
                raise Damaged(f"the log has no entry {below - 1}: restore a backup, or import an export")
            last = LOG.load(values)
            head = head._replace(
                base_sequence=last.sequence, base_time_ms=last.time_ms, base_app_hash=last.app_hash, base_log_hash=last.log_hash, base_carry=b""
            )
            if head.sequence == last.sequence:
                head = head._replace(base_carry=head.carry)
            self._session.write(HEAD, [head], ())
            self._on_step("head")
            self._session.commit()
            self._committed = self._head = head
            self._on_step("committed")

    def trim(self) -> bool:
        """Delete some entries before the log's beginning. True if there may be more."""
        self._check()
        with _Guard(self):
            self._session.begin()
            deleted = self._session.trim(LOG, self._committed.base_sequence + 1, TRIM_ROWS)
            self._session.commit()
        return deleted == TRIM_ROWS

    def close(self) -> None:
        """Give the lock back. What was not committed is not done."""
        self._session.close()
        if self.broken is None:
            self.broken = Unavailable("the ledger is closed")

    def _check(self) -> None:
        if self.broken is not None:
            raise Unavailable(f"the ledger has stopped ({self.broken}): open it again")


class _Guard:
    """Breaks the core when anything but a caller's mistake comes through."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is None or isinstance(error, BadValue):
            return
        self._core.broken = error if isinstance(error, LedgerError) else Unavailable(f"{type(error).__name__}: {error}")


def check_operation(operation: bytes) -> None:
    """Raises BadValue for what cannot be an operation."""
    if type(operation) is not bytes or not 0 < len(operation) <= MAX_OPERATION_BYTES:
        got = f"{len(operation)} bytes" if isinstance(operation, bytes) else type(operation).__name__
        raise BadValue(f"an operation is 1 to {MAX_OPERATION_BYTES} bytes, got {got}")


def run_rules(rules: Rules, operation: bytes, time_ms: int, tables: Tables) -> tuple[int, bytes, str]:
    """(code, result, reason) of one operation. What it writes is left open for ``close_operation``; of a refused one, what ``Rules.refused`` writes. Errors of
    the machine or the database come through."""
    outcome = _ran(rules, operation, time_ms, tables)
    if outcome[0] != CODE_OK:
        tables.rollback(0)
        tables.open_operation()
        if rules.refused is not None:
            try:
                rules.refused(operation, time_ms, tables)
            except (Refused, BadValue):
                tables.rollback(0)
    return outcome


def _ran(rules: Rules, operation: bytes, time_ms: int, tables: Tables) -> tuple[int, bytes, str]:
    tables.open_operation()
    try:
        result = rules.apply(operation, time_ms, tables)
    except Refused as refusal:
        return refusal.code, b"", refusal.reason
    except BadValue as error:
        return _bug(error)
    except (LedgerError, MemoryError, RecursionError, OSError):
        raise
    except Exception as error:
        return _bug(error)
    if type(result) is not bytes or len(result) > MAX_RESULT_BYTES:
        return _bug(BadValue(f"rules give at most {MAX_RESULT_BYTES} bytes"))
    return CODE_OK, result, ""


_bugs_told: Final[set[tuple[str, int]]] = set()


def _bug(error: Exception) -> tuple[int, bytes, str]:
    """Whoever finds a bug can have it run again and again: its traceback is logged once for each line that raised."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = (trace.tb_frame.f_code.co_filename, trace.tb_lineno) if trace is not None else ("", 0)
    is_new = place not in _bugs_told
    _bugs_told.add(place)
    log.error("a rule failed: its operation is refused", error=type(error).__name__, exc_info=error if is_new else None)
    return CODE_BUG, b"", f"internal error: {type(error).__name__}"


# --- opening ----------------------------------------------------------------------------------------------------------


def _opened(session: Session, rules: Rules, ledger_id: str, shown: str) -> Head:
    first = first_head(ledger_id, rules.application, rules.schema_version, rules.schema.digest)
    exists = session.tables()
    if not exists:
        session.begin()
        session.create((*OWN, *rules.schema.tables))
        session.write(HEAD, [first], ())
        session.commit()
        return first
    if HEAD.name not in exists:
        raise Foreign(f"{shown} has tables that are no ledger's ({', '.join(sorted(exists)[:5])}): name an empty database")
    check_columns(exists, OWN, shown)
    head = read_head(session)
    if head.format != FORMAT:
        raise Foreign(f"{shown} is a ledger of format {head.format}, this program knows {FORMAT}: use the program's version that wrote it")
    for what, has, wants in (("ledger", head.ledger_id, ledger_id), ("application", head.application, rules.application)):
        if has != wants:
            raise Foreign(f"{shown} belongs to {what} {has!r}, this is {what} {wants!r}: name another database")
    if head.schema_version > rules.schema_version:
        raise Foreign(f"{shown} has schema version {head.schema_version}, this program knows {rules.schema_version}: use a newer program")
    _check_end(session, head)
    if head.schema_version < rules.schema_version:
        head = _migrated(session, rules, head, shown)
    elif head.schema_digest != rules.schema.digest:
        raise Foreign(f"{shown} has other tables under schema version {head.schema_version}: a changed schema needs a new version and a migration")
    else:
        check_columns(exists, rules.schema.tables, shown)
    return head


def check_columns(exists: Mapping[str, Sequence[str]], tables: Iterable[Table[Any]], shown: str) -> None:
    """Raises Damaged unless the tables exist with their columns."""
    for table in tables:
        if (got := exists.get(table.name)) is None or tuple(got) != table.columns:
            raise Damaged(
                f"{shown}: table {table.name} has the columns {', '.join(table.columns)}, got {', '.join(got or ()) or 'no table'}: restore a backup"
            )


def _check_end(session: Session, head: Head) -> None:
    """The log ends where the head says."""
    last = session.page(LOG, LOG.orders[""], Bounds(), 2, True)
    if head.sequence == head.base_sequence:
        if last and LOG.load(last[0]).sequence > head.sequence:
            raise Damaged(f"the log goes on after the ledger's head {head.sequence}: restore a backup, or import an export")
        return
    if not last or (entry := LOG.load(last[0])).sequence != head.sequence:
        raise Damaged(f"the log does not end with the ledger's head {head.sequence}: restore a backup, or import an export")
    before = LOG.load(last[1]).log_hash if len(last) > 1 and head.sequence - 1 > head.base_sequence else head.base_log_hash
    check_chain(entry, before)
    if (entry.app_hash, entry.log_hash, entry.time_ms) != (head.app_hash, head.log_hash, head.time_ms):
        raise Damaged(f"the ledger's head is not that of its last entry {head.sequence}: restore a backup, or import an export")


# --- migrations -------------------------------------------------------------------------------------------------------


def _migrated(session: Session, rules: Rules, head: Head, shown: str) -> Head:
    """All migrations up to the rules' version, in one transaction. The log begins anew: what was before cannot be applied by these rules."""
    session.begin()
    while head.schema_version < rules.schema_version:
        version = head.schema_version
        migration = rules.migrations.get(version)
        if migration is None:
            raise Foreign(
                f"{shown} has schema version {version}, and this program has no migration from it: use the version of the program in between"
            )
        if head.schema_digest != migration.schema.digest:
            raise Foreign(f"{shown} has other tables than the migration from schema version {version} expects: use the program that wrote it")
        check_columns(session.tables(), migration.schema.tables, shown)
        following = rules.migrations.get(version + 1)
        schema = rules.schema if version + 1 == rules.schema_version else following.schema if following else None
        if schema is None:
            raise Foreign(f"{shown} has schema version {version}, and this program has no migration from {version + 1}: use the version in between")
        digest = _moved(session, migration, schema)
        carry = sha256(_MIGRATION + head.carry + version.to_bytes(8, "big") + schema.digest + digest).digest()
        head = head._replace(schema_version=version + 1, schema_digest=schema.digest, carry=carry)
    head = head._replace(
        base_sequence=head.sequence, base_time_ms=head.time_ms, base_app_hash=head.app_hash, base_log_hash=head.log_hash, base_carry=head.carry
    )
    session.write(HEAD, [head], ())
    session.commit()
    log.info("the ledger has a new schema", version=head.schema_version, sequence=head.sequence)
    return head


def _moved(session: Session, migration: Migration, schema: Schema) -> bytes:
    """Move all rows into the tables of ``schema``. SHA-256 over them, in order, each behind its table's id."""
    old = [replace(table, name=_MOVED + table.name) for table in migration.schema.tables]
    for table in migration.schema.tables:
        for index in table.indexes:
            session.run(f'DROP INDEX "{table.name}__{index.name}"')
        session.run(f'ALTER TABLE "{table.name}" RENAME TO "{_MOVED}{table.name}"')
    session.create(schema.tables)
    by_name = {table.name: table for table in schema.tables}
    for table in old:
        waiting: dict[str, dict[Key, Row]] = {}
        for count, row in enumerate(walk(session, table), 1):
            for name, made in migration.convert(table.name.removeprefix(_MOVED), row):
                target = by_name[name]
                target.check_row(made)
                waiting.setdefault(name, {})[target.key_of(made)] = made
            if count % MAX_SCAN_ROWS == 0:
                _write_all(session, by_name, waiting)
        _write_all(session, by_name, waiting)
    for table in old:
        session.run(f'DROP TABLE "{table.name}"')
    hashed = sha256()
    for table in schema.tables:
        for row in walk(session, table):
            hashed.update(table.id.to_bytes(2, "big") + table.encode(row))
    return hashed.digest()


def _write_all(session: Session, tables: Mapping[str, Table[Any]], waiting: dict[str, dict[Key, Row]]) -> None:
    for name, rows in waiting.items():
        session.write(tables[name], [rows[key] for key in sorted(rows)], ())
    waiting.clear()


def walk(session: Session, table: Table[Any]) -> Iterator[Any]:
    """All rows of a table in the order of its key, page by page: at most 2,000 rows, or about 16 MiB, at once."""
    order, bounds = table.orders[""], Bounds()
    size = max(1, min(2_000, (16 << 20) // max(1, sum(kind.most_bytes for kind in table.kinds))))
    while True:
        page = session.page(table, order, bounds, size, False)
        for values in page:
            yield table.load(values)
        if len(page) < size:
            return
        bounds = Bounds(after=order.of(table.load(page[-1])))
