"""Object manifests that meta nodes gave a node, on disk beside its shares; and the methods that take them and tell them.

    object.keep ─ an active meta node's, signed, under a copy that is kept here for that object ─► objects.db (synced) ─► answered
    object.list, share.kept ◄─ pages, for active meta nodes: what a lost ledger is rebuilt from (docs/meta-nodes.md)

One manifest for each object, however many shares of it are here; the one of the highest ledger sequence stays, unless a meta node's comparison found it wrong:
else one lie of a far sequence would keep all true ones out. It goes with the copy under which it was given (``tidy``), and a meta node's comparison gives it
again where other copies stay. So there are at most as many as copies, of at most 4,096 bytes each; beside them, for copies of k > 1, the roots of all shares of
the segment. A home of before has no such file: it is made empty. A file that turns out to be damaged is put aside and begun anew: meta nodes give what was in it
again. Manifests of empty objects, such as folders' records, are under no copy: some nodes are asked to keep them. They go half a year after their object's term,
or when its time in the trash is over. At most 200,000 are kept; beyond them those of the wallets that have most go, so that nobody's crowd out the others'.
Source: storage-protocol.md 3.4; sds_node/manifests.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import structlog
from google.protobuf.message import DecodeError

from chain.codec.canonical import encode
from modules.settlement.leaves import HASH_BYTES, SERIAL_BYTES
from sds_node import manifests, transfers
from sds_node.documents import Authority, Refused, ShareManifest, SignedDocument
from sds_node.resource import store as shares
from sds_node.transfers import parsed
from sds_node.wire import errors as wire_errors
from sds_node.wire.connection import Connection, Handler
from sds_node.wire.stream import Stream

log = structlog.get_logger("objects")

FILE: Final = "objects.db"
DAMAGED: Final = "objects.db.damaged"
_VERSION: Final = 2
_PAYERS: Final = "CREATE INDEX empty_of ON objects (payer, object) WHERE root = x'';"
_SCHEMA: Final = f"""
CREATE TABLE objects (
    object BLOB PRIMARY KEY, root BLOB NOT NULL, serial BLOB NOT NULL, sequence INTEGER NOT NULL, body BLOB NOT NULL, signature BLOB NOT NULL,
    payer BLOB NOT NULL
) WITHOUT ROWID;
{_PAYERS}
CREATE TABLE roots (root BLOB NOT NULL, serial BLOB NOT NULL, roots BLOB NOT NULL, PRIMARY KEY (root, serial)) WITHOUT ROWID;
"""
_FROM_1: Final = f"""
ALTER TABLE objects ADD COLUMN payer BLOB NOT NULL DEFAULT x'';
UPDATE objects SET payer = payer_of(body) WHERE root = x'';
DROP INDEX empty;
{_PAYERS}
"""
"""Version 1 did not tell whose manifests of empty objects are."""
_DAMAGE: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
TIDY_ROWS: Final = 200
"""So many rows are looked at with each message that is kept."""
MAX_EMPTY: Final = 200_000
NO_COPY: Final[shares.Key] = (b"", b"")
DAY_MS: Final = 86_400_000
KEPT_AFTER_MS: Final = 180 * DAY_MS
"""A manifest of an empty object is kept for so long after the term that it names: it may have been renewed."""
T = TypeVar("T")


class ObjectsError(shares.StoreError):
    """The file of object manifests cannot be used."""


class Given(NamedTuple):
    """A manifest that a node is to keep: of an object, under a copy. ``payer`` (20 bytes) counts under no copy. ``replaces``: whatever is there of the object."""

    object: bytes
    copy: shares.Key
    sequence: int
    document: Any
    payer: bytes = b""
    replaces: bool = False


class Objects:
    """The manifests of one node, in ``folder``/objects.db. Any thread may call it. Raises ObjectsError."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self._lock = threading.Lock()
        self._db: sqlite3.Connection | None = None
        self._do(lambda db: None)

    def _opened(self) -> sqlite3.Connection:
        database = sqlite3.connect(self.path, check_same_thread=False)
        try:
            os.chmod(self.path, 0o600)
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = FULL")
            database.create_function("payer_of", 1, _payer_of)
            version = database.execute("PRAGMA user_version").fetchone()[0]
            if version in (0, 1):
                database.executescript(f"BEGIN; {_FROM_1 if version else _SCHEMA} PRAGMA user_version = {_VERSION}; COMMIT;")
            elif version != _VERSION:
                raise ObjectsError(f"{self.path} has version {version}, expected {_VERSION}: use the program that wrote it, or move the file away")
        except BaseException:
            database.close()
            raise
        return database

    def _do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """What ``work`` makes of the database, in one transaction. A damaged file is put aside, and the work done with a new one."""
        with self._lock, self._told():
            try:
                return self._done(work)
            except sqlite3.DatabaseError as error:
                if getattr(error, "sqlite_errorcode", 0) & 0xFF not in _DAMAGE:
                    raise
                self._put_aside(error)
            return self._done(work)

    def _done(self, work: Callable[[sqlite3.Connection], T]) -> T:
        if self._db is None:
            self._db = self._opened()
        with self._db:
            return work(self._db)

    def _put_aside(self, error: sqlite3.Error) -> None:
        log.error("the file of object manifests is damaged: it is put aside, and begun anew", file=str(self.path), why=str(error))
        self.path.replace(self.path.with_name(DAMAGED))
        if self._db is not None:
            with contextlib.suppress(sqlite3.Error):
                self._db.close()
            self._db = None
        for suffix in ("-wal", "-shm"):
            self.path.with_name(FILE + suffix).unlink(missing_ok=True)

    def keep(self, rows: Sequence[Given], roots: Sequence[tuple[shares.Key, bytes]] = ()) -> None:
        """Keep manifests, and share roots by copy; on disk when it returns. An older manifest than what is there changes nothing, unless it replaces it."""
        statement = (
            "INSERT INTO objects (object, root, serial, sequence, body, signature, payer) VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (object) DO UPDATE SET "
            "root = excluded.root, serial = excluded.serial, sequence = excluded.sequence, body = excluded.body, signature = excluded.signature, "
            "payer = excluded.payer WHERE excluded.sequence >= objects.sequence OR ?"
        )
        values = [
            (one.object, *one.copy, one.sequence, bytes(one.document.body), bytes(one.document.signature), one.payer, one.replaces) for one in rows
        ]  # fmt: skip

        def work(db: sqlite3.Connection) -> None:
            db.executemany(statement, values)
            db.executemany("INSERT OR IGNORE INTO roots VALUES (?, ?, ?)", [(*copy, one) for copy, one in roots])
            if any(one.copy == NO_COPY for one in rows):
                _make_room(db)

        self._do(work)

    def after(self, key: bytes, limit: int) -> list[tuple[bytes, shares.Key, Any]]:
        """Up to ``limit`` (object id, copy, SignedDocument) whose ids follow ``key``."""
        query = "SELECT object, root, serial, body, signature FROM objects WHERE object > ? ORDER BY object LIMIT ?"
        rows = self._do(lambda db: db.execute(query, (key, limit)).fetchall())
        return [(row[0], (row[1], row[2]), SignedDocument(body=row[3], signature=row[4])) for row in rows]

    def empty(self) -> int:
        """How many manifests are under no copy."""
        return self._do(_count_empty)

    def roots_of(self, copy: shares.Key) -> bytes:
        """The roots of all shares of a copy's segment, one after the other; empty where they are not here."""
        row = self._do(lambda db: db.execute("SELECT roots FROM roots WHERE root = ? AND serial = ?", copy).fetchone())
        return b"" if row is None else bytes(row[0])

    def with_roots(self, after: shares.Key, limit: int) -> list[shares.Key]:
        """Up to ``limit`` copies after one of whose segments the share roots are here."""
        query = "SELECT root, serial FROM roots WHERE (root, serial) > (?, ?) ORDER BY root, serial LIMIT ?"
        return self._do(lambda db: db.execute(query, (*after, limit)).fetchall())

    def tidy(self, store: shares.ShareStore, after: bytes = b"") -> bytes:
        """Forget those of up to 200 manifests after an object's id whose copy is not kept here any more, with its roots. Where to go on, empty at the end."""
        rows = self.after(after, TIDY_ROWS)
        now_ms = store.clock.wall_s() * 1_000
        gone = [(key,) for key, copy, one in rows if (_is_over(one, now_ms) if copy == NO_COPY else store.index.get(copy) is None)]
        if gone:
            self._do(lambda db: db.executemany("DELETE FROM objects WHERE object = ?", gone).close())
        return rows[-1][0] if len(rows) == TIDY_ROWS else b""

    def tidy_roots(self, store: shares.ShareStore, after: shares.Key = (b"", b"")) -> shares.Key:
        """The same for share roots, by copy."""
        copies = self.with_roots(after, TIDY_ROWS)
        gone = [copy for copy in copies if store.index.get(copy) is None]
        if gone:
            self._do(lambda db: db.executemany("DELETE FROM roots WHERE root = ? AND serial = ?", gone).close())
        return copies[-1] if len(copies) == TIDY_ROWS else (b"", b"")

    def close(self) -> None:
        with self._lock, contextlib.suppress(sqlite3.Error):
            if self._db is not None:
                self._db.close()

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise ObjectsError(f"the file of object manifests {self.path} cannot be used ({error}): see that its disk works and has room") from error


def _count_empty(db: sqlite3.Connection) -> int:
    return int(db.execute("SELECT count(*) FROM objects WHERE root = x''").fetchone()[0])


def _make_room(db: sqlite3.Connection) -> None:
    """Forget manifests under no copy that are too many, each of whoever has most of them then."""
    over = _count_empty(db) - MAX_EMPTY
    if over <= 0:
        return
    most = db.execute("SELECT payer, count(*) FROM objects WHERE root = x'' GROUP BY payer ORDER BY 2 DESC, payer LIMIT ?", (over,)).fetchall()
    heap = [(-count, payer) for payer, count in most]
    heapq.heapify(heap)
    gone: dict[bytes, int] = {}
    for _ in range(over):
        count, payer = heap[0]
        gone[payer] = gone.get(payer, 0) + 1
        heapq.heapreplace(heap, (count + 1, payer))
    for payer, count in sorted(gone.items()):
        chosen = "SELECT object FROM objects WHERE root = x'' AND payer = ? ORDER BY object DESC LIMIT ?"
        db.execute(f"DELETE FROM objects WHERE object IN ({chosen})", (payer, count))
    log.warning("too many manifests of empty objects: those of the wallets that have most are forgotten", manifests=over, wallets=len(gone))


class ObjectService:
    """The handlers for object manifests. ``store`` and ``objects`` are the caller's to close; ``pool`` runs what blocks."""

    def __init__(self, authority: Authority, store: shares.ShareStore, objects: Objects, pool: ThreadPoolExecutor) -> None:
        self._authority, self._store, self._objects, self._pool = authority, store, objects, pool
        self._tidied = b""
        self._roots_tidied: shares.Key = (b"", b"")

    def handlers(self) -> dict[str, Handler]:
        """The methods for ``wire.node.Node``."""
        return {
            manifests.KEEP_OBJECTS: self.keep,
            manifests.LIST_OBJECTS: self.listed,
            manifests.LIST_ROOTS: self.with_roots,
            manifests.LIST_KEPT: self.kept,
        }

    async def keep(self, stream: Stream, connection: Connection) -> None:
        """ObjectList → nothing. What is not signed by the meta node that gives it, or has no copy here, is left out; the rest is on disk."""
        self._check_meta(connection)
        asked = parsed(manifests.ObjectList, await stream.receive_all(manifests.MAX_LIST_BYTES))
        if len(asked.objects) > manifests.MAX_OBJECTS_ASKED or len(asked.roots) > manifests.MAX_ROOTS_GIVEN:
            raise wire_errors.BadRequest(
                f"expected at most {manifests.MAX_OBJECTS_ASKED} manifests and {manifests.MAX_ROOTS_GIVEN} lists of roots, got {len(asked.objects)} and "
                f"{len(asked.roots)}"
            )
        giver = connection.remote.address
        key = self._authority.ledger_key(giver)

        def work() -> None:
            rows = [row for one in asked.objects if key is not None and (row := self._checked(one, giver, key)) is not None]
            roots = [(_key(one.copy), bytes(one.roots)) for one in asked.roots if self._are_roots(one)]
            if rows or roots:
                self._objects.keep(rows, roots)
            self._tidied = self._objects.tidy(self._store, self._tidied)
            self._roots_tidied = self._objects.tidy_roots(self._store, self._roots_tidied)

        await self._in_pool(work)
        await stream.send(b"")

    def _checked(self, given: Any, giver: bytes, key: bytes) -> Given | None:
        copy = _key(given.copy)
        try:
            manifest = manifests.read_object(given.manifest, self._authority.chain_id)
            if manifest.meta_node != giver or not manifests.is_signed_by(given.manifest, key):
                raise Refused("expected an object's manifest that the meta node which gives it has signed")
            if manifest.size_bytes or copy != NO_COPY:
                kept = transfers.KeptShare.FromString(self._store.manifest(*copy))
                if share_of(kept).object_id != manifest.object_id:
                    raise Refused("expected a copy of a share of the manifest's object")
            elif _is_over(given.manifest, self._store.clock.wall_s() * 1_000):
                raise Refused("expected the manifest of an object whose term is not over")
        except (Refused, DecodeError, shares.ShareRefused, shares.ShareNotFound, shares.ShareDamaged) as error:
            log.warning("an object's manifest is not kept", why=str(error))
            return None
        payer = bytes(manifest.payer) if copy == NO_COPY else b""
        return Given(bytes(manifest.object_id), copy, int(manifest.sequence), given.manifest, payer, bool(given.replaces))

    def _are_roots(self, given: Any) -> bool:
        """Whether these are the roots of the shares of a kept copy's segment."""
        copy = _key(given.copy)
        try:
            kept = transfers.KeptShare.FromString(self._store.manifest(*copy))
            share = share_of(kept)
            roots = manifests.read_roots(bytes(given.roots), bytes(kept.segment_root), share.total_shares)
            if roots is None or roots[share.index] != copy[0]:
                raise Refused("expected the roots of all shares of the copy's segment")
        except (Refused, DecodeError, IndexError, shares.ShareRefused, shares.ShareNotFound, shares.ShareDamaged) as error:
            log.warning("share roots are not kept", why=str(error))
            return False
        return True

    async def listed(self, stream: Stream, connection: Connection) -> None:
        """ObjectsHead → ObjectList."""
        head = parsed(manifests.ObjectsHead, stream.head)
        self._check_meta(connection)
        if not 1 <= head.limit <= manifests.MAX_OBJECTS_ASKED or len(head.after) > HASH_BYTES:
            raise wire_errors.BadRequest(f"expected a limit of 1 to {manifests.MAX_OBJECTS_ASKED} and an object's id, got {head.limit}")
        rows = await self._in_pool(lambda: self._objects.after(bytes(head.after), head.limit))
        page = manifests.ObjectList()
        for _, (root, serial), document in rows:
            page.objects.add(manifest=document, copy=transfers.CopyKey(share_root=root, serial=serial))
        await stream.send(encode(page))

    async def with_roots(self, stream: Stream, connection: Connection) -> None:
        """KeptCopiesHead → KeptCopies, keys alone."""
        after, limit = self._page_asked(stream, connection, manifests.MAX_ROOTS_ASKED)
        copies = await self._in_pool(lambda: self._objects.with_roots(after, limit))
        page = manifests.KeptCopies(copies=[manifests.KeptCopy(copy=transfers.CopyKey(share_root=root, serial=serial)) for root, serial in copies])
        await stream.send(encode(page))

    async def kept(self, stream: Stream, connection: Connection) -> None:
        """KeptCopiesHead → KeptCopies."""
        after, limit = self._page_asked(stream, connection, manifests.MAX_KEPT_ASKED)
        await stream.send(encode(await self._in_pool(lambda: self._kept(after, limit))))

    def _page_asked(self, stream: Stream, connection: Connection, most: int) -> tuple[shares.Key, int]:
        """(after which copy, how many) of a KeptCopiesHead."""
        head = parsed(manifests.KeptCopiesHead, stream.head)
        self._check_meta(connection)
        after = _key(head.after)
        if not 1 <= head.limit <= most or len(after[0]) > HASH_BYTES or len(after[1]) > SERIAL_BYTES:
            raise wire_errors.BadRequest(f"expected a limit of 1 to {most} and a copy's key, got {head.limit}")
        return after, int(head.limit)

    def _kept(self, after: shares.Key, limit: int) -> Any:
        page = manifests.KeptCopies()
        for looked, copy in enumerate(self._store.inventory(after), 1):
            is_whole = copy.kept is not shares.Kept.DAMAGED and copy.state in (shares.State.PENDING, shares.State.CONFIRMED)
            with contextlib.suppress(shares.ShareNotFound, shares.ShareDamaged):
                if is_whole:
                    key = transfers.CopyKey(share_root=copy.root, serial=copy.serial)
                    page.copies.add(copy=key, kept=self._store.manifest(copy.root, copy.serial), roots=self._roots_of(copy.key))
            if looked == limit:
                page.last.CopyFrom(transfers.CopyKey(share_root=copy.root, serial=copy.serial))
                break
        return page

    def _roots_of(self, copy: shares.Key) -> bytes:
        """A copy is told of whatever became of the file of manifests."""
        try:
            return self._objects.roots_of(copy)
        except ObjectsError as error:
            log.error("a copy is told of without the share roots of its segment", why=str(error))
            return b""

    def _check_meta(self, connection: Connection) -> None:
        if connection.remote.address not in set(self._authority.active_meta_nodes()):
            raise wire_errors.Refused(transfers.NOT_ALLOWED, "expected an active meta node at the other end of this connection")

    async def _in_pool(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        except shares.StoreError as error:
            log.error("the disk of this node fails", why=str(error))
            raise wire_errors.InternalFailure("the disk of this node fails: ask another one") from None


def _is_over(document: Any, now_ms: int) -> bool:
    """Whether the manifest of an empty object need not be kept any more."""
    try:
        manifest = manifests.ObjectManifest.FromString(document.body)
    except DecodeError:
        return True
    ends_ms = manifest.trashed_until_ms or manifest.made_ms + manifest.terms * manifest.term_days * DAY_MS + KEPT_AFTER_MS
    return bool(ends_ms <= now_ms)


def _payer_of(body: bytes) -> bytes:
    try:
        return bytes(manifests.ObjectManifest.FromString(body).payer)
    except DecodeError:
        return b""


def _key(copy: Any) -> shares.Key:
    return bytes(copy.share_root), bytes(copy.serial)


def share_of(kept: Any) -> Any:
    """The ShareManifest in a KeptShare, its signature not looked at. Raises DecodeError."""
    return ShareManifest.FromString(kept.manifest.body)
