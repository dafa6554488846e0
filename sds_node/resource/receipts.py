"""What a resource node accepted and earned, on disk: order limits as they are taken, the last receipt of each serial, what is settled.

    accept ──► OPEN ──final receipt──► FINAL ──settled──► SETTLED ──kept for a week──► gone
                 └──expired, with a receipt that pays── (pending too)

    any thread ─ work ─┐             ┌ BEGIN · work · work · noted receipts · COMMIT ┐   synced at once if a final receipt is among the work,
    any thread ─ work ─┴─► queue ─► one thread ───────────────────────────────────────┴── else when a window of a second ends

An accepted limit is with the system before its first byte is moved, so a killed process does not take it twice; a final receipt is on the disk before
it is acknowledged. SQLite's write-ahead log is the append-only log: a torn tail is cut off by its checksums. Each row has a check of its own, so a row
that rotted is told (``damaged``) and not believed, and the others are still paid. In memory are only receipts that
no commit has yet: those of the window, and of the windows before while the disk refuses.
Source: storage-interfaces.md 4.4 (4 and 8); storage-protocol.md 2 and 4.
"""

from __future__ import annotations

import contextlib
import os
import queue
import sqlite3
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import quote

import structlog

from chain.codec.canonical import encode, known
from modules.settlement.documents import OrderLimit, Receipt, SessionGrant
from modules.settlement.leaves import Leaf
from sds_node.documents import LeaseCertificate, SignedDocument
from sds_node.files import sync_folder
from sds_node.transfers import TrafficEvidence

log = structlog.get_logger("receipts")

PAGE_ROWS: Final = 1_000
MAX_WAITING: Final = 65_536
"""As much work may wait for the disk; more is refused."""
MAX_NOTED: Final = 65_536
MAX_PROOFS: Final = 1_000
MAX_CLOSED: Final = 100_000
DAMAGED_TOLD: Final = 100
_BATCH: Final = 1_024
_SCHEMA_VERSION: Final = 1
_SCHEMA: Final = """
CREATE TABLE leases (lease_id BLOB PRIMARY KEY, expires_s INTEGER NOT NULL, certificate BLOB NOT NULL, check32 INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE serials (
    serial BLOB PRIMARY KEY, lease_id BLOB NOT NULL, expires_s INTEGER NOT NULL, state INTEGER NOT NULL, pays INTEGER NOT NULL,
    evidence BLOB NOT NULL, receipt BLOB NOT NULL, check32 INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX unsettled ON serials (serial) WHERE state < 3 AND pays = 1;
CREATE INDEX by_expiry ON serials (expires_s);
CREATE TABLE closed (session_pubkey BLOB PRIMARY KEY, until_s INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE proofs (number INTEGER PRIMARY KEY, first BLOB NOT NULL, second BLOB NOT NULL);
"""
_COLUMNS: Final = "serial, lease_id, expires_s, state, pays, evidence, receipt, check32"

T = TypeVar("T")


class ReceiptsError(Exception):
    """The record of receipts cannot do what was asked. The text says what came and what to do."""


class ReceiptsLocked(ReceiptsError):
    """Another process has the file open."""


class ReceiptsUnusable(ReceiptsError):
    """The disk refuses, the record is closed, or too much work waits for it."""


class ReceiptsDamaged(ReceiptsError):
    """The file holds what was never written there."""


class AlreadyUsed(ReceiptsError):
    """The serial of an order limit was accepted before."""


class UnknownSerial(ReceiptsError):
    """No such serial was accepted, or it is settled already."""


class Progress(IntEnum):
    """Where a serial is. Numbers are on disk and never change their meaning."""

    OPEN = 1
    FINAL = 2
    SETTLED = 3


@dataclass(frozen=True, slots=True)
class Entry:
    """A serial that was accepted: its TrafficEvidence, with the last receipt if one came."""

    serial: bytes
    lease_id: bytes
    expires_s: int
    progress: Progress
    evidence: Any

    @property
    def limit(self) -> Any:
        return OrderLimit.FromString(self.evidence.order_limit.body)

    @property
    def receipt(self) -> Any | None:
        """The last Receipt, or None when none came."""
        return Receipt.FromString(self.evidence.receipt.body) if self.evidence.receipt.body else None

    @property
    def grant_expires_s(self) -> int:
        """When the session's grant ends; without one, when the limit does."""
        if self.evidence.WhichOneof("authority") == "grant":
            return int(SessionGrant.FromString(self.evidence.grant.body).expires_s)
        return self.expires_s


@dataclass(slots=True)
class _Work:
    make: Callable[[sqlite3.Connection], Any]
    is_durable: bool
    future: Future[Any]


class ReceiptLog:
    """An open record; ``open_receipts`` makes one, ``close`` ends it. Any thread may call it; futures come from its own thread."""

    def __init__(self, path: Path, window_s: float) -> None:
        self.path, self.window_s = path, window_s
        self.damaged: list[str] = []
        """Rows that are not what was written, at most 100 of them, in words."""
        self._noted: dict[bytes, bytes] = {}
        """The last receipts that are in no committed transaction yet."""
        self._written: dict[bytes, bytes] = {}
        """Of these, what the transaction under way writes; the record's own thread has it."""
        self._lock = threading.Lock()
        self._queue: queue.Queue[_Work | None] = queue.Queue(MAX_WAITING)
        self._is_closed = False
        self._started: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name="receipts", daemon=True)

    # --- what comes in ------------------------------------------------------------------------------------------------------

    def accept(self, certificate: Any | None, evidence: Any, limit: Any) -> Future[None]:
        """Remember an accepted OrderLimit with its evidence (the receipt in it is left out) and its lease's certificate, if that came along.

        Done when a killed process no longer forgets it; on the disk at the end of the window. The future raises AlreadyUsed for a serial that is there.
        """
        kept = TrafficEvidence()
        kept.CopyFrom(known(evidence))
        kept.receipt.Clear()
        lease = (bytes(limit.lease_id), int(limit.expires_s), encode(known(certificate))) if certificate is not None and certificate.body else None
        row = _row(bytes(limit.serial), bytes(limit.lease_id), int(limit.expires_s), Progress.OPEN, 0, encode(kept), b"")

        def make(database: sqlite3.Connection) -> None:
            if database.execute("SELECT 1 FROM serials WHERE serial = ?", (row[0],)).fetchone():
                raise AlreadyUsed(f"serial {row[0].hex()} was accepted before: ask for another order limit")
            if lease is not None:
                known_lease = database.execute("SELECT expires_s FROM leases WHERE lease_id = ?", (lease[0],)).fetchone()
                if known_lease is None or known_lease[0] < lease[1]:
                    database.execute("INSERT OR REPLACE INTO leases VALUES (?, ?, ?, ?)", (*lease, _sum(lease)))
            database.execute(f"INSERT INTO serials ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)

        return self._do(make)

    def note(self, serial: bytes, receipt: Any) -> None:
        """Remember the last SignedDocument of a receipt of an open serial; it is on the disk when the window ends. The caller has judged it.

        Raises ReceiptsUnusable when the record is closed or its disk does not keep up.
        """
        data = encode(known(receipt))
        with self._lock:
            if self._is_closed or (len(self._noted) >= MAX_NOTED and serial not in self._noted):
                raise ReceiptsUnusable(f"the record of receipts {self.path} takes no more: it is closed, or its disk does not keep up")
            is_first = not self._noted
            self._noted[serial] = data
        if is_first:
            self._do(lambda _: None)  # wakes the thread, which looks after the window from then on

    def finish(self, serial: bytes, receipt: Any) -> Future[None]:
        """Remember the final receipt of an open serial. Done when it is on the disk. The future raises UnknownSerial."""
        data = encode(known(receipt))

        def make(database: sqlite3.Connection) -> None:
            self._set_receipt(database, serial, data, Progress.FINAL)
            with self._lock:
                noted = self._noted.get(serial)
            if noted is not None:
                self._written[serial] = noted

        return self._do(make, is_durable=True)

    def close_session(self, session_pubkey: bytes, until_s: int) -> Future[None]:
        """Remember that a session gets nothing here until then (Unix seconds). At most 100,000 are kept; the ones that end first make room."""

        def make(database: sqlite3.Connection) -> None:
            database.execute("INSERT OR REPLACE INTO closed VALUES (?, ?)", (session_pubkey, until_s))
            if database.execute("SELECT count(*) FROM closed").fetchone()[0] > MAX_CLOSED:
                database.execute("DELETE FROM closed WHERE session_pubkey = (SELECT session_pubkey FROM closed ORDER BY until_s LIMIT 1)")

        return self._do(make)

    def keep_proof(self, first: Any, second: Any) -> Future[None]:
        """Keep two order limits (SignedDocuments) that share a part of a lease: evidence against their meta node. The first 1,000 are kept."""
        pair = encode(known(first)), encode(known(second))

        def make(database: sqlite3.Connection) -> None:
            if database.execute("SELECT count(*) FROM proofs").fetchone()[0] < MAX_PROOFS:
                database.execute("INSERT INTO proofs (first, second) VALUES (?, ?)", pair)

        return self._do(make)

    # --- what is read -------------------------------------------------------------------------------------------------------

    def find(self, serial: bytes) -> Future[Entry | None]:
        """What is known of a serial. The future raises ReceiptsDamaged when its row is not what was written."""

        def make(database: sqlite3.Connection) -> Entry | None:
            self._write_noted(database)
            row = database.execute(f"SELECT {_COLUMNS} FROM serials WHERE serial = ?", (serial,)).fetchone()
            if row is None:
                return None
            if not _is_whole(row):
                raise ReceiptsDamaged(self._tell(row[0]))
            return _entry(row)

        return self._do(make)

    def accepted(self, now_s: int) -> Iterator[tuple[Any, Any]]:
        """(LeaseCertificate, SignedDocument of the limit) of all that were accepted and have not expired, page by page: for ``Limits.restore``."""
        after = b""
        while True:
            page = self._do(lambda database, after=after: _accepted_page(database, after, now_s)).result()  # type: ignore[misc]
            for serial, evidence, certificate, is_whole in page:
                after = serial
                if is_whole:
                    yield LeaseCertificate.FromString(certificate), TrafficEvidence.FromString(evidence).order_limit
                else:
                    self._tell(serial)
            if len(page) < PAGE_ROWS:
                return

    def closed_sessions(self, now_s: int) -> list[tuple[bytes, int]]:
        """(session key, until when in Unix seconds) of the sessions that are closed."""
        return self._do(
            lambda database: database.execute("SELECT session_pubkey, until_s FROM closed WHERE until_s > ?", (now_s,)).fetchall()
        ).result()

    def proofs(self) -> list[tuple[Any, Any]]:
        """Pairs of SignedDocuments that ``keep_proof`` kept."""
        rows = self._do(lambda database: database.execute("SELECT first, second FROM proofs ORDER BY number").fetchall()).result()
        return [(SignedDocument.FromString(first), SignedDocument.FromString(second)) for first, second in rows]

    def pending(self, now_s: int, after: bytes = b"", limit: int = PAGE_ROWS) -> list[Any]:
        """Leaves that are ready to be settled, in the order of their serials, those that follow ``after``: serials with a final receipt, and expired ones
        with one that pays. Whose receipts pay nothing are never told. Raises ReceiptsDamaged, ReceiptsUnusable, ValueError.
        """
        if not 1 <= limit <= PAGE_ROWS:
            raise ValueError(f"1 to {PAGE_ROWS} leaves are told at a time, not {limit}")

        def make(database: sqlite3.Connection) -> list[Any]:
            self._write_noted(database)
            found: list[Any] = []
            query = f"SELECT {_COLUMNS} FROM serials WHERE serial > ? AND state < 3 AND pays = 1 AND (state = 2 OR expires_s <= ?) ORDER BY serial"
            for row in database.execute(query, (after, now_s)):
                if _is_whole(row):
                    found.append(leaf_of(_entry(row).evidence))
                    if len(found) == limit:
                        break
                else:
                    self._tell(row[0])
            return found

        return self._do(make).result()

    def pending_count(self, now_s: int) -> Future[int]:
        """How many serials ``pending`` would tell; beyond 100,000 it stops counting."""
        rows = "SELECT 1 FROM serials WHERE state < 3 AND pays = 1 AND (state = 2 OR expires_s <= ?) LIMIT 100001"
        query = f"SELECT count(*) FROM ({rows})"
        return self._do(lambda database: int(database.execute(query, (now_s,)).fetchone()[0]))

    # --- after settlement ---------------------------------------------------------------------------------------------------

    def settled(self, serials: Iterable[bytes]) -> list[bytes]:
        """These serials (at most 1,000) are paid. Durable when it returns. Returns those that are not known."""
        wanted = list(serials)
        if len(wanted) > PAGE_ROWS:
            raise ValueError(f"at most {PAGE_ROWS} serials are settled at a time, not {len(wanted)}")

        def make(database: sqlite3.Connection) -> list[bytes]:
            missing = []
            for serial in wanted:
                row = database.execute(f"SELECT {_COLUMNS} FROM serials WHERE serial = ?", (serial,)).fetchone()
                if row is None:
                    missing.append(serial)
                elif row[3] != Progress.SETTLED:
                    _put(database, _row(*row[:3], Progress.SETTLED, *row[4:7]))
            return missing

        return self._do(make, is_durable=True).result()

    def compact(self, now_s: int, keep_s: int = 7 * 86_400, limit: int = PAGE_ROWS) -> int:
        """One bounded step: serials that are settled, or whose receipt pays nothing, go ``keep_s`` after their expiry, leases with their last serial,
        and the file gives room back. Returns how many serials went; 0 when there is no more to do.
        """

        def make(database: sqlite3.Connection) -> int:
            self._write_noted(database)
            rows = database.execute(
                "SELECT serial FROM serials WHERE expires_s <= ? AND (state = 3 OR pays = 0) ORDER BY expires_s LIMIT ?", (now_s - keep_s, limit)
            ).fetchall()
            database.executemany("DELETE FROM serials WHERE serial = ?", rows)
            database.execute("DELETE FROM leases WHERE expires_s <= ?", (now_s - keep_s,))
            database.execute("DELETE FROM closed WHERE until_s <= ?", (now_s,))
            database.execute(f"PRAGMA incremental_vacuum({PAGE_ROWS})").fetchall()
            return len(rows)

        return self._do(make).result()

    def verify(self) -> Iterator[str]:
        """What is wrong with the file, a sentence each; it reads all of it and changes nothing."""
        for (text,) in self._do(lambda database: database.execute("PRAGMA integrity_check(100)").fetchall()).result():
            if text != "ok":
                yield f"receipts: {text}"
        after = b""
        query = f"SELECT {_COLUMNS} FROM serials WHERE serial > ? ORDER BY serial LIMIT {PAGE_ROWS}"
        while True:
            page = self._do(lambda database, after=after: database.execute(query, (after,)).fetchall()).result()  # type: ignore[misc]
            for row in page:
                after = row[0]
                if not _is_whole(row):
                    yield f"receipts: the row of serial {row[0].hex()} is not what was written"
            if len(page) < PAGE_ROWS:
                return

    def sync(self) -> None:
        """Everything that came before is on the disk when it returns."""
        self._do(self._write_noted, is_durable=True).result()

    def close(self) -> None:
        """Write what is noted and end. Calling it again does nothing."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
        self._queue.put(None)
        self._thread.join()

    def __enter__(self) -> ReceiptLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- the one thread that has the file -----------------------------------------------------------------------------------

    def _do(self, make: Callable[[sqlite3.Connection], T], *, is_durable: bool = False) -> Future[T]:
        """Have ``make`` run within the next transaction."""
        future: Future[T] = Future()
        work = _Work(make, is_durable, future)
        with self._lock:
            if self._is_closed:
                future.set_exception(ReceiptsUnusable(f"the record of receipts {self.path} is closed: the node is stopping"))
                return future
            try:
                self._queue.put_nowait(work)
            except queue.Full:
                future.set_exception(ReceiptsUnusable(f"{MAX_WAITING} changes wait for {self.path}: see that its disk works"))
        return future

    def _run(self) -> None:
        try:
            database = _opened(self.path)
        except BaseException as error:
            self._started.set_exception(error)
            return
        self._started.set_result(None)
        unsynced_since: float | None = None
        is_over = False
        while not is_over:
            wait_s = None if unsynced_since is None else max(unsynced_since + self.window_s - time.monotonic(), 0.0)
            batch: list[_Work] = []
            with contextlib.suppress(queue.Empty):
                work = self._queue.get(timeout=wait_s) if wait_s != 0.0 else self._queue.get_nowait()
                while True:
                    if work is None:
                        is_over = True
                        break
                    if work.future.set_running_or_notify_cancel():  # from now on nobody can cancel it
                        batch.append(work)
                    if len(batch) == _BATCH:
                        break
                    work = self._queue.get_nowait()
            is_due = unsynced_since is not None and time.monotonic() >= unsynced_since + self.window_s
            is_durable = is_over or is_due or any(work.is_durable for work in batch)
            is_done = self._commit(database, batch, is_durable=is_durable)
            if is_durable and is_done and not self._noted:
                unsynced_since = None
            elif unsynced_since is None or is_due or is_durable:
                unsynced_since = time.monotonic()
        with contextlib.suppress(sqlite3.Error):
            database.close()

    def _commit(self, database: sqlite3.Connection, batch: list[_Work], *, is_durable: bool) -> bool:
        """One transaction. Whoever's work fails is told; the others' stays. Returns whether it was committed."""
        results: list[tuple[_Work, Any, BaseException | None]] = []
        failure: BaseException | None = None
        try:
            # FULL syncs the write-ahead log at the commit, with all that was written there before; NORMAL leaves it to the system.
            database.execute(f"PRAGMA synchronous={'FULL' if is_durable else 'NORMAL'}")
            database.execute("BEGIN IMMEDIATE")
            for work in batch:
                database.execute("SAVEPOINT work")
                try:
                    results.append((work, work.make(database), None))
                except (ReceiptsError, ValueError) as error:
                    database.execute("ROLLBACK TO work")
                    self._written.clear()  # some may be undone; they are written once more
                    results.append((work, None, error))
                database.execute("RELEASE work")
            if is_durable:
                self._write_noted(database)
                database.execute(f"PRAGMA user_version={_SCHEMA_VERSION}")  # a page changes, so there is something to sync
            database.execute("COMMIT")
            with self._lock:
                for serial, data in self._written.items():
                    if self._noted.get(serial) == data:
                        del self._noted[serial]
        except BaseException as error:
            with contextlib.suppress(sqlite3.Error):
                database.execute("ROLLBACK")
            failure = self._told(error)
            log.error("receipts are not written", why=str(failure))
        self._written.clear()
        for work in batch if failure is not None else ():
            work.future.set_exception(failure)
        for work, result, failed in results if failure is None else ():
            if failed is not None:
                work.future.set_exception(failed)
            else:
                work.future.set_result(result)
        return failure is None

    def _told(self, error: BaseException) -> BaseException:
        if isinstance(error, sqlite3.OperationalError):
            return ReceiptsUnusable(f"the record of receipts {self.path} cannot be written ({error}): see that its disk has room and works")
        if isinstance(error, sqlite3.DatabaseError):
            return ReceiptsDamaged(f"the record of receipts {self.path} is damaged ({error}): put the file aside, keep it, and start with a new one")
        return error

    def _write_noted(self, database: sqlite3.Connection) -> None:
        """Write what is noted. It stays in memory until the transaction is committed."""
        with self._lock:
            noted = [(serial, data) for serial, data in self._noted.items() if self._written.get(serial) != data]
        for serial, data in noted:
            with contextlib.suppress(UnknownSerial, ReceiptsDamaged):
                self._set_receipt(database, serial, data, Progress.OPEN)
            self._written[serial] = data

    def _set_receipt(self, database: sqlite3.Connection, serial: bytes, data: bytes, progress: Progress) -> None:
        row = database.execute(f"SELECT {_COLUMNS} FROM serials WHERE serial = ?", (serial,)).fetchone()
        if row is None or row[3] != Progress.OPEN:
            raise UnknownSerial(f"serial {serial.hex()} is not open here: it was never accepted, or has its final receipt")
        if not _is_whole(row):
            raise ReceiptsDamaged(self._tell(serial))
        limit = OrderLimit.FromString(TrafficEvidence.FromString(row[5]).order_limit.body)
        acked = Receipt.FromString(SignedDocument.FromString(data).body).bytes_acked
        pays = int(acked * limit.max_noz // limit.max_bytes > 0)
        _put(database, _row(*row[:3], progress, pays, row[5], data))

    def _tell(self, serial: bytes) -> str:
        text = f"the row of serial {serial.hex()} in {self.path} is not what was written: its receipt is lost, the others are not"
        if text not in self.damaged and len(self.damaged) < DAMAGED_TOLD:
            self.damaged.append(text)
            log.error("a receipt is damaged", serial=serial.hex())
        return text


def leaf_of(evidence: Any) -> Any:
    """The settlement leaf of a TrafficEvidence with its receipt."""
    limit, receipt = OrderLimit.FromString(evidence.order_limit.body), Receipt.FromString(evidence.receipt.body)
    noz = receipt.bytes_acked * limit.max_noz // limit.max_bytes
    return Leaf(beneficiary=limit.beneficiary, fund=limit.fund, traffic_class=limit.traffic_class, noz=noz, traffic=evidence)


def open_receipts(path: Path, *, window_s: float = 1.0) -> ReceiptLog:
    """Open the record at ``path``, or make one. ``window_s``: what is not final is on the disk so much later, at the latest.

    Raises ReceiptsLocked, ReceiptsUnusable, ReceiptsDamaged.
    """
    made = ReceiptLog(path, window_s)
    made._thread.start()
    try:
        made._started.result()
    except sqlite3.Error as error:
        if "locked" in str(error):
            raise ReceiptsLocked(
                f"the record of receipts {path} is open in another process: stop that one, or give this node a file of its own"
            ) from None
        raise made._told(error) from error
    except OSError as error:
        raise ReceiptsUnusable(
            f"the record of receipts {path} cannot be opened ({error.strerror}): see that its folder is there and writable"
        ) from error
    return made


def _opened(path: Path) -> sqlite3.Connection:
    is_new = not path.exists()
    if is_new:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
    database = sqlite3.connect(f"file:{quote(os.fspath(path))}?mode=rw", uri=True, isolation_level=None, timeout=0.0)
    try:
        # One process: nobody else may take what is open here, and no file with shared memory is needed.
        database.execute("PRAGMA locking_mode=EXCLUSIVE")
        if is_new:
            database.execute("PRAGMA auto_vacuum=INCREMENTAL")
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA cache_size=-8192")
        if database.execute("PRAGMA user_version").fetchone()[0] == 0:
            database.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version={_SCHEMA_VERSION}; COMMIT;")
        version = database.execute("PRAGMA user_version").fetchone()[0]
        if version != _SCHEMA_VERSION:
            raise ReceiptsDamaged(f"the record of receipts {path} has version {version}, expected {_SCHEMA_VERSION}: another version made it")
        sync_folder(path.parent)
    except BaseException:
        database.close()
        raise
    return database


def _accepted_page(database: sqlite3.Connection, after: bytes, now_s: int) -> list[tuple[bytes, bytes, bytes, bool]]:
    """(serial, evidence, certificate, whether both are whole) of limits that have not expired."""
    columns = ", ".join(f"s.{name}" for name in _COLUMNS.split(", "))
    query = (
        f"SELECT {columns}, l.lease_id, l.expires_s, l.certificate, l.check32 FROM serials s JOIN leases l ON l.lease_id = s.lease_id "
        f"WHERE s.serial > ? AND s.expires_s > ? ORDER BY s.serial LIMIT {PAGE_ROWS}"
    )
    return [(row[0], row[5], row[10], _is_whole(row[:8]) and _sum(row[8:11]) == row[11]) for row in database.execute(query, (after, now_s))]


def _sum(fields: Iterable[Any]) -> int:
    """The check of a row: CRC-32 over its fields, each with its length."""
    value = 0
    for field in fields:
        data = field if isinstance(field, bytes) else int(field).to_bytes(8, "big")
        value = zlib.crc32(len(data).to_bytes(4, "big") + data, value)
    return value


def _row(*values: Any) -> tuple[Any, ...]:
    """A row of the columns from serial to receipt, with its check."""
    serial, lease_id, expires_s, state, pays, evidence, receipt = values
    fields = serial, lease_id, expires_s, int(state), pays, evidence, receipt
    return *fields, _sum(fields)


def _is_whole(row: tuple[Any, ...]) -> bool:
    try:
        return bool(_sum(row[:7]) == row[7])
    except (TypeError, ValueError, OverflowError):
        return False


def _put(database: sqlite3.Connection, row: tuple[Any, ...]) -> None:
    database.execute(f"INSERT OR REPLACE INTO serials ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)


def _entry(row: tuple[Any, ...]) -> Entry:
    evidence = TrafficEvidence.FromString(row[5])
    if row[6]:
        evidence.receipt.ParseFromString(row[6])
    return Entry(row[0], row[1], row[2], Progress(row[3]), evidence)
