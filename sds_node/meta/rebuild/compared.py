"""What a node keeps of the manifests of its objects, against the ledger: what is missing, older, a lie, or signed by a key that is none any more is given again,
and replaces what is there whatever its sequence. Share roots likewise, where shares of a segment differ.

    after the node's inventory was compared (repair/damage.py), by whoever has the duty of the node:
    object.list, page by page ─► signed and as the ledger has it ─► noted on disk ─┐
    object.roots, page by page ─► copies whose segments' share roots are there ────┤
    the node's list in the ledger ───────────────────────────────────────────────────┴─► not noted ─► object.keep

Memory does not grow with what a node has. Source: docs/meta-nodes.md.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

import structlog
from google.protobuf.message import DecodeError

from chain.codec.canonical import encode
from modules.settlement.leaves import HASH_BYTES, SERIAL_BYTES
from sds_node import manifests
from sds_node.documents import Refused
from sds_node.meta.ledger.engine import ReadView
from sds_node.meta.rebuild.giving import ANSWER_S, PAGE, Giving
from sds_node.meta.rebuild.lagging import LaggingError
from sds_node.meta.rebuild.stating import manifest_of, says_same
from sds_node.meta.repair.damage import WrongInventory
from sds_node.meta.rules.places import held_of
from sds_node.meta.rules.tables import META, MOVED, OBJECT, SEGMENT
from sds_node.meta.rules.wire import MAX_SEGMENT
from sds_node.transfers import CopyKey, serial_at
from sds_node.wire import errors as wire_errors

log = structlog.get_logger("manifests")

SPARE_PAGES: Final = 1_000
"""A node may tell so many pages more than twice what its shares come to."""
COMPARE_S: Final = 600.0
PAGE_S: Final = 5.0
PAUSE_S: Final = 0.05
_SCHEMA: Final = """
CREATE TABLE known (object BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE wrong (object BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE roots (serial BLOB PRIMARY KEY) WITHOUT ROWID;
"""
"""Objects of which the node keeps what the ledger says, and something else; serials of copies with the share roots of their segments."""


class Page(NamedTuple):
    """Manifests of an ``object.list``: (id, ObjectManifest, SignedDocument). ``told``: how many rows it has, those that are no manifests too."""

    rows: list[tuple[bytes, Any, Any]]
    told: int


class Held(NamedTuple):
    """A share of a node by the ledger."""

    segment: int
    object: bytes
    k: int
    serial: bytes


class Comparing:
    """Compares what nodes keep. ``is_ours`` says of a node's number whether this meta node does it."""

    def __init__(self, giving: Giving, is_ours: Callable[[int], bool] = lambda number: True) -> None:
        self._giving, self._is_ours = giving, is_ours

    async def compare(self, number: int) -> int:
        """Give a node what it lacks. How many objects it were; none where the node is another meta node's. Raises WireError, TimeoutError, WrongInventory,
        LedgerError, RootsError, LaggingError."""
        row = self._giving.registry.rows().get(number)
        if row is None or not self._is_ours(number):
            return 0
        pages = 2 * (row.shares // manifests.MAX_OBJECTS_ASKED + 1)
        try:
            known = sqlite3.connect("", check_same_thread=False)  # a file without a name, which goes with it
            try:
                known.executescript(_SCHEMA)
                async with asyncio.timeout(COMPARE_S + pages * PAGE_S):
                    await self._note(number, known, pages + SPARE_PAGES)
                    are_roots_told = await self._note_roots(number, known, pages + SPARE_PAGES)
                    count = await self._give(number, known, are_roots_told)
            finally:
                await asyncio.to_thread(known.close)
        except sqlite3.Error as error:
            raise LaggingError(f"what a node keeps cannot be noted ({error}): see that the disk of temporary files works and has room") from error
        if count:
            log.info("a node was given manifests that it lacked", node=number, objects=count)
        return count

    async def _note(self, number: int, known: sqlite3.Connection, most_pages: int) -> None:
        after = b""
        for _ in range(most_pages):
            page = await self._page(number, after)
            found: set[bytes] = await self._giving.ledger.query(partial(_right, page=page.rows, giving=self._giving))
            wrong = [(key,) for key, _, _ in page.rows if key not in found]
            await asyncio.to_thread(known.executemany, "INSERT OR IGNORE INTO known VALUES (?)", [(key,) for key in sorted(found)])
            await asyncio.to_thread(known.executemany, "INSERT OR IGNORE INTO wrong VALUES (?)", wrong)
            if page.told < manifests.MAX_OBJECTS_ASKED:
                return
            after = page.rows[-1][0]
            await asyncio.sleep(PAUSE_S)
        raise WrongInventory(f"node {number} tells of more than {most_pages} pages of manifests")

    async def _note_roots(self, number: int, known: sqlite3.Connection, most_pages: int) -> bool:
        """Whether a node tells of which copies it has share roots; one of an older version does not."""
        after = (b"", b"")
        for _ in range(most_pages):
            head = manifests.KeptCopiesHead(after=CopyKey(share_root=after[0], serial=after[1]), limit=manifests.MAX_ROOTS_ASKED)
            try:
                raw = await self._giving.calls.ask(
                    number, manifests.LIST_ROOTS, encode(head), most_bytes=manifests.MAX_ROOTS_BYTES, idle_s=ANSWER_S
                )  # fmt: skip
            except wire_errors.UnknownMethod:
                return False
            keys = read_keys(raw, after)
            await asyncio.to_thread(known.executemany, "INSERT OR IGNORE INTO roots VALUES (?)", [(serial,) for _, serial in keys])
            if len(keys) < manifests.MAX_ROOTS_ASKED:
                return True
            after = keys[-1]
            await asyncio.sleep(PAUSE_S)
        raise WrongInventory(f"node {number} tells of more than {most_pages} pages of share roots")

    async def _page(self, number: int, after: bytes) -> Page:
        """A page of what a node keeps, as ``read_page`` gives it."""
        head = manifests.ObjectsHead(after=after, limit=manifests.MAX_OBJECTS_ASKED)
        raw = await self._giving.calls.ask(
            number, manifests.LIST_OBJECTS, encode(head), most_bytes=manifests.MAX_LIST_BYTES, idle_s=ANSWER_S
        )  # fmt: skip
        return read_page(raw, after, self._giving.chain_id)

    async def _give(self, number: int, known: sqlite3.Connection, are_roots_told: bool) -> int:
        cursor = count = 0
        while True:
            read: tuple[list[Held], int | None] = await self._giving.ledger.query(partial(_held, node=number, first=cursor))
            held, last = read
            if last is None:
                return count
            lacking, wrong = await asyncio.to_thread(_lacking, known, held, are_roots_told)
            if lacking:
                parcel = (await self._giving.parcels([one.segment for one in lacking], lambda _: True, number, wrong)).get(number)
                if parcel is not None and parcel.segments and not await self._giving.hand(number, parcel):
                    raise WrongInventory(f"node {number} does not take manifests now")
                count += len({one.object for one in lacking})
            cursor = last + 1
            await asyncio.sleep(PAUSE_S)


def _rows(page: Any, raw: bytes, field: str, most: int, what: str) -> Sequence[Any]:
    """The rows of a page, ``most`` of them at most. Raises WrongInventory."""
    try:
        given: Sequence[Any] = getattr(page.FromString(raw), field)
    except DecodeError:
        raise WrongInventory(f"expected a page of {what}, got {len(raw)} bytes that are none") from None
    if len(given) > most:
        raise WrongInventory(f"expected at most {most} {what}, got {len(given)}")
    return given


def read_page(raw: bytes, after: bytes, chain_id: str) -> Page:
    """The manifests of an ``object.list``, in the order of their object ids. Signatures are the caller's to look at. Rows that are no manifests are left out; a
    full page of nothing else has no end. Raises WrongInventory."""
    given = _rows(manifests.ObjectList, raw, "objects", manifests.MAX_OBJECTS_ASKED, "manifests")
    found: list[tuple[bytes, Any, Any]] = []
    for one in given:
        try:
            manifest = manifests.read_object(one.manifest, chain_id)
        except Refused as error:
            log.warning("a node keeps what is no manifest", why=str(error))
            continue
        key = bytes(manifest.object_id)
        if key <= after:
            raise WrongInventory("a page has manifests out of order")
        after = key
        found.append((key, manifest, one.manifest))
    if not found and len(given) == manifests.MAX_OBJECTS_ASKED:
        raise WrongInventory("a full page holds nothing that is a manifest")
    return Page(found, len(given))


def read_keys(raw: bytes, after: tuple[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    """The copies of an ``object.roots``: (share root, serial), in order. Raises WrongInventory."""
    given = _rows(manifests.KeptCopies, raw, "copies", manifests.MAX_ROOTS_ASKED, "copies")
    keys = [(bytes(one.copy.share_root), bytes(one.copy.serial)) for one in given]
    for before, key in zip([after, *keys], keys, strict=False):
        if key <= before or (len(key[0]), len(key[1])) != (HASH_BYTES, SERIAL_BYTES):
            raise WrongInventory("a page has copies out of order")
    return keys


def _right(view: ReadView, page: Sequence[tuple[bytes, Any, Any]], giving: Giving) -> set[bytes]:
    """Ids of objects of which a page has what the ledger would say now, under a key that holds, and not of an operation that is still to come."""
    found = set()
    for key, manifest, document in page:
        row = view.get(OBJECT, (key,))
        made = manifest_of(view, row, giving.chain_id, giving.address) if row is not None else None
        meta = view.get(META, (bytes(manifest.meta_node),))
        is_same = made is not None and manifest.sequence <= made.sequence and says_same(manifest, made)
        if is_same and meta is not None and manifests.is_signed_by(document, meta.ledger_key):
            found.add(key)
    return found


def _held(view: ReadView, node: int, first: int) -> tuple[list[Held], int | None]:
    """At most 100 shares of a node, and its last segment; None at the end."""
    entries = held_of(view, node, first, MAX_SEGMENT, PAGE)
    found = []
    for number, index in entries:
        row = view.get(SEGMENT, (number,))
        made = view.get(OBJECT, (row.object,)) if row is not None else None
        if row is not None and made is not None:
            moved = view.get(MOVED, (number, index))
            found.append(Held(number, row.object, made.k, moved.serial if moved is not None else serial_at(row.first_serial, index)))
    return found, entries[-1][0] if entries else None


def _lacking(known: sqlite3.Connection, held: Sequence[Held], are_roots_told: bool) -> tuple[list[Held], set[bytes]]:
    """What a node is to be given: one share of an object that it lacks, and all whose segments' share roots it lacks where shares differ; and of which of these
    objects it keeps what is wrong. Objects are known from then on."""
    found, wrong = [], set()
    for one in held:
        is_new = not _has(known, "SELECT 1 FROM known WHERE object = ?", one.object)
        if is_new or (are_roots_told and one.k > 1 and not _has(known, "SELECT 1 FROM roots WHERE serial = ?", one.serial)):
            found.append(one)
        if is_new:
            known.execute("INSERT INTO known VALUES (?)", (one.object,))
            if _has(known, "SELECT 1 FROM wrong WHERE object = ?", one.object):
                wrong.add(one.object)
    return found, wrong


def _has(known: sqlite3.Connection, query: str, key: bytes) -> bool:
    return known.execute(query, (key,)).fetchone() is not None
