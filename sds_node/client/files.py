"""Files as a meta node tells of them, checked for form: rows, folders, pages; and how a file is named by who asks for it.

    path | sdm://wallet/hash | file hash | object id ─ Files.find ─► StoredFile         Files.entries(folder) ─► Entry, Entry, …

Source: ADR 8 and 9; names.py.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

from sds_node import asking, cipher
from sds_node.client.errors import BadName, MetaLied, NotFound
from sds_node.client.leases import amount
from sds_node.client.meta import MetaClient
from sds_node.client.names import FOLDER_TAG_BYTES, Known, Names, clean, file_path, local_name
from sds_node.client.transfer import ObjectToGet
from sds_node.handles import FILE_PREFIX, HandleError, parse_file_handle
from sds_node.hashes import is_hash
from sds_node.schemes import Scheme, SchemeError, scheme_of, segment_count

PAGE: Final = 500
ROOTS_PAGE: Final = 8_192
_ID_BYTES: Final = 32
_STATES: Final = {1: "open", 2: "kept", 3: "grace", 4: "trashed", 5: "ending"}
_IS_OBJECT_ID: Final = re.compile(r"[0-9a-f]{64}").fullmatch


@dataclass(frozen=True)
class Entry:
    """A file or folder of the wallet. Times are Unix seconds; ``ends_s`` is when its term, grace or time in the trash is over.

    ``is_loose``: a public file that another client stored, under no folder of this library's. ``size_bytes`` is the content's.
    """

    path: str
    is_folder: bool
    is_public: bool
    size_bytes: int
    file_hash: str
    object_id: str
    state: str
    made_s: int
    changed_s: int
    ends_s: int
    terms: int = 1
    is_loose: bool = False

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]


@dataclass(frozen=True)
class StoredFile:
    """A record and its object, checked for form. ``known`` is None for a file of another wallet's, whose name is not told."""

    row: Any
    known: Known | None
    scheme: Scheme

    @property
    def object_id(self) -> bytes:
        return bytes(self.row.object.object_id)

    @property
    def is_private(self) -> bool:
        return not self.row.is_public

    @property
    def stored_bytes(self) -> int:
        return int(self.row.object.size_bytes)

    @property
    def size_bytes(self) -> int:
        """Of the content."""
        return cipher.plain_bytes(self.stored_bytes) if self.is_private else self.stored_bytes

    @property
    def escrow_noz(self) -> int:
        return amount(self.row.object.escrow_noz)


def is_folder(row: Any) -> bool:
    """Whether a FileRow whose name cannot be read is a folder's: an encrypted file has more bytes than none."""
    return not row.is_public and not row.object.size_bytes


class Files:
    """The files of a client's wallet."""

    def __init__(self, client: MetaClient, names: Names) -> None:
        self._client, self._names = client, names

    def checked(self, row: Any, *, is_own: bool = True) -> StoredFile:
        """A FileRow with an object that can be; somebody else's has no lookup id. Raises MetaLied."""
        found, known = row.object, self._names.read(row)
        try:
            scheme = scheme_of(found.data_shares, found.total_shares)
            segments = segment_count(found.size_bytes)
            if not row.is_public and not (known.is_folder if known is not None else is_folder(row)):
                cipher.plain_bytes(found.size_bytes)
        except (SchemeError, cipher.CipherError) as error:
            raise MetaLied(f"the meta node tells of a file that cannot be: {error}") from None
        is_right = len(found.object_id) == len(found.root) == _ID_BYTES and len(row.lookup_id) in ((_ID_BYTES,) if is_own else (0, _ID_BYTES))
        if not is_right or not is_hash(found.file_hash) or found.segments != segments:
            raise MetaLied(f"the meta node tells of a file that cannot be: {segments} segments and ids of {_ID_BYTES} bytes were expected")
        return StoredFile(row, known, scheme)

    async def find(self, name: str) -> StoredFile:
        """A file by path, ``sdm://`` handle, file hash or object id (64 hex digits). Raises NotFound, BadName, MetaLied."""
        if name.startswith(FILE_PREFIX):
            try:
                handle = parse_file_handle(name)
            except HandleError as error:
                raise BadName(str(error)) from None
            if handle.wallet != self._client.address:
                raise NotFound(f"{name[:200]} is a file of another wallet: ask its owner for a link (sds://…), or of a public one for its object id")
            return await self._by_hash(handle.file_hash)
        if is_hash(name):
            return await self._by_hash(name)
        if _IS_OBJECT_ID(name):
            return await self.by_id(bytes.fromhex(name))
        return await self.at(file_path(name))

    async def _by_hash(self, file_hash: str) -> StoredFile:
        found = await self._asked(asking.FileFindHead(file_hash=file_hash), "file", file_hash)
        if found.row.object.file_hash != file_hash:
            raise MetaLied(f"expected file {file_hash} from the meta node, got {found.row.object.file_hash}")
        return found

    async def by_id(self, object_id: bytes) -> StoredFile:
        """A file by the id of its object. Raises NotFound, MetaLied."""
        found = await self._asked(asking.FileFindHead(object_id=object_id), "object", object_id.hex())
        if found.object_id != object_id:
            raise MetaLied(f"expected object {object_id.hex()} from the meta node, got {found.object_id.hex()}")
        return found

    async def at(self, path: str, *, is_folder: bool = False) -> StoredFile:
        """The file or folder at a path. Raises NotFound, MetaLied."""
        lookup_id = self._names.lookup_id(path, is_folder=is_folder)
        found = await self._asked(asking.FileFindHead(lookup_id=lookup_id), *(("folder", f"{path}/") if is_folder else ("file", path)))
        if bytes(found.row.lookup_id) != lookup_id or found.known != Known(path, is_folder):
            raise MetaLied(f"expected {path} from the meta node, got another file")
        return found

    async def _asked(self, head: Any, what: str, name: str) -> StoredFile:
        try:
            reply = await self._client.ask(asking.FILE_FIND, head, asking.FileReply)
        except NotFound as error:
            raise NotFound(f"there is no {what} {name} ({error})", name) from None
        # A file that a link opened for this session is found by its object, too.
        return self.checked(reply.file, is_own=not head.object_id)

    async def is_folder(self, path: str) -> bool:
        """Whether a folder was made at a path; the wallet's own is always there."""
        if not path:
            return True
        try:
            await self.at(path, is_folder=True)
        except NotFound:
            return False
        return True

    async def entries(self, folder: str = "") -> AsyncIterator[Entry]:
        """What is in a folder, in no order that means anything, page by page. Raises NotFound when there is no such folder."""
        folder, is_empty = clean(folder), True
        tag = self._names.folder_tag(folder)
        # An id of the tag and zeros is none that a name has: page after it.
        async for row in self._rows(tag.ljust(_ID_BYTES, b"\x00"), is_trash=False):
            if bytes(row.lookup_id[:FOLDER_TAG_BYTES]) != tag:
                break
            found = self.entry(row)
            if found is not None and not found.is_loose:
                is_empty = False
                yield found
        if is_empty and not await self.is_folder(folder):
            raise NotFound(f"there is no folder {folder}", f"{folder}/")

    async def everything(self, *, is_trash: bool = False) -> AsyncIterator[Entry]:
        """All files and folders of the wallet, or all in the trash, page by page."""
        async for row in self._rows(b"", is_trash=is_trash):
            found = self.entry(row)
            if found is not None:
                yield found

    async def _rows(self, after: bytes, *, is_trash: bool) -> AsyncIterator[Any]:
        while True:
            page = await self._client.ask(asking.FILE_LIST, asking.FileListHead(after=after, limit=PAGE, is_trash=is_trash), asking.FilePage)
            if len(page.files) > PAGE:
                raise MetaLied(f"expected at most {PAGE} files in a page from the meta node, got {len(page.files)}")
            for row in page.files:
                # What follows one page is found by its last row: the trash is in order of objects.
                key = bytes(row.object.object_id) if is_trash else bytes(row.lookup_id)
                if key <= after and after:
                    raise MetaLied("the meta node's page is not in order: ask another one")
                after = key
                yield row
            if not page.has_more or not page.files:
                return

    def entry(self, row: Any) -> Entry | None:
        """A row as users see it; None for one whose name is not this wallet's to read. Raises MetaLied."""
        return self.entry_of(self.checked(row))

    def entry_of(self, file: StoredFile) -> Entry | None:
        """The same of a file that was checked; of another wallet's public one, whose name is made fit for a file here."""
        if file.known is None:
            return None
        row, found = file.row, file.row.object
        return Entry(
            path=file.known.path if row.lookup_id else local_name(file.known.path, found.file_hash),
            is_folder=file.known.is_folder,
            is_public=row.is_public,
            size_bytes=0 if file.known.is_folder else file.size_bytes,
            file_hash=found.file_hash,
            object_id=found.object_id.hex(),
            state=_STATES.get(found.state, "unknown"),
            made_s=row.made_ms // 1_000,
            # The trash tells when the path was first used; its versions differ by their objects.
            changed_s=max(row.changed_ms, found.made_ms) // 1_000,
            ends_s=found.due_ms // 1_000,
            terms=found.terms,
            is_loose=file.known.is_loose,
        )

    async def to_get(self, file: StoredFile) -> ObjectToGet:
        """What a reader needs: all segment roots, which must give the object's. Raises MetaLied."""
        count, roots = segment_count(file.stored_bytes), list[bytes]()
        while len(roots) < count:
            limit = min(ROOTS_PAGE, count - len(roots))
            head = asking.SegmentRootsHead(object_id=file.object_id, first=len(roots), limit=limit)
            page = await self._client.ask(asking.FILE_SEGMENTS, head, asking.SegmentRoots)
            if not 1 <= len(page.roots) <= limit or any(len(one) != _ID_BYTES for one in page.roots):
                raise MetaLied(f"expected 1 to {limit} segment roots from the meta node, got {len(page.roots)}")
            roots += [bytes(one) for one in page.roots]
        return ObjectToGet(bytes(file.row.object.root), file.stored_bytes, file.scheme, tuple(roots))

    async def health(self, file: StoredFile) -> dict[int, int]:
        """How many of a file's segments have how many healthy shares. Raises MetaLied."""
        count, seen, found = segment_count(file.stored_bytes), 0, dict[int, int]()
        while seen < count:
            head = asking.HealthHead(object_id=file.object_id, first=seen, limit=asking.MAX_PAGE)
            page = await self._client.ask(asking.FILE_HEALTH, head, asking.HealthReply)
            if not 1 <= len(page.segments) <= min(asking.MAX_PAGE, count - seen):
                raise MetaLied(f"expected the health of 1 to {min(asking.MAX_PAGE, count - seen)} segments, got {len(page.segments)}")
            for one in page.segments:
                if one.segment != seen or one.healthy > file.scheme.n:
                    raise MetaLied(f"expected the health of segment {seen} of {file.scheme.n} shares, got {one.healthy} of segment {one.segment}")
                found[one.healthy] = found.get(one.healthy, 0) + 1
                seen += 1
        return found
