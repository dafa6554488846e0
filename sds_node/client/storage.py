"""A wallet's files on the network, as calls: what ``ppd put|get|list|…`` and programs use.

    async with Storage(wallet, chain_id, [meta node]) as storage:
        stored = await storage.put(Path("a.jpg"), "photos/a.jpg")
        await storage.get("photos/a.jpg", Path("b.jpg"))

    Storage ─ Uploads, Downloads, Files ─► meta nodes (places, commits, records) and resource nodes (shares)          docs/storage-users.md

Private unless it is said otherwise: content and names are encrypted here, under keys that come from the wallet. Several calls may run at once; memory is
bounded by how many of them move content at the same time.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from chain.codec.registry import message_class
from chain.crypto.keys import PrivateKey
from sds_node import asking, cipher
from sds_node.client.download import Downloads
from sds_node.client.errors import AlreadyThere, BadName, NotFound, StorageError
from sds_node.client.files import Entry, Files, StoredFile
from sds_node.client.health import Health, health_of
from sds_node.client.journal import Journals
from sds_node.client.leases import amount
from sds_node.client.meta import MetaAddress, MetaClient, parse_meta
from sds_node.client.names import Names, clean, file_path
from sds_node.client.orders import MAX_FILES, send_order
from sds_node.client.placing import Settings
from sds_node.client.proofs import Proved, prove
from sds_node.client.results import CLOSED, Results
from sds_node.client.sharing import Link, SharedFile, ShareInfo, open_link, password_check, share_ids, share_rows, wrapped_for
from sds_node.client.sources import Progress, Source, source_of
from sds_node.client.upload import PutResult, Uploads, Ways
from sds_node.documents import PACKAGE
from sds_node.handles import LINK_ENTROPY_BYTES, new_share_link
from sds_node.keystore import storage_seed
from sds_node.merkle import Buffer
from sds_node.schemes import MAX_OBJECT_BYTES
from sds_node.value_chain.client import ValueChain

FileRecord: Final = message_class(f"{PACKAGE}.FileRecord")
PUTS_AT_ONCE: Final = 64
SOON_S: Final = 30 * 86_400
"""A file whose term ends within this is warned about."""
FEW_NODES: Final = 3
WENT_TOGETHER_S: Final = 3_600
"""What went into the trash so long before its folder went with it: large ones take a while."""
_IS_OBJECT_ID: Final = re.compile(r"[0-9a-f]{64}").fullmatch
_SECRET_INFO: Final = b"stratos/link-secret/v1"


@dataclass(frozen=True)
class Balance:
    """A wallet in the ledger, at a height of the value chain: its noz (bought, granted) and what it has.

    ``leased_noz`` are what its ``open_leases`` hold, in neither of the two: what is not used of them comes back when they are settled. A meta node of an
    earlier version tells 0.
    """

    wallet: str
    paid_noz: int
    promo_noz: int
    files: int
    trash: int
    shares: int
    open_leases: int
    leased_noz: int
    height: int


@dataclass(frozen=True)
class Restored:
    """What came out of the trash: a path, how many files and folders with it, and why others did not, by path."""

    path: str
    count: int
    failed: dict[str, str]


def _age(entry: Entry) -> tuple[int, int]:
    """Of the versions of a path the newest has the greatest: the last in the trash, or the last that was made."""
    return entry.ends_s, entry.changed_s


class Storage:
    """See the module. ``metas``: meta nodes to begin with, as MetaAddress or text. ``state``: a folder for what must outlive the process (puts that were
    interrupted, idempotency keys); without one they live as long as this. ``clock`` tells Unix seconds.
    """

    def __init__(
        self,
        wallet: PrivateKey,
        chain_id: str,
        metas: Sequence[MetaAddress | str],
        *,
        state: Path | None = None,
        clock: Callable[[], float] = time.time,
        settings: Settings | None = None,
    ) -> None:
        self._seed, patience = storage_seed(wallet), settings or Settings()
        client = MetaClient(wallet, chain_id, [parse_meta(one) if isinstance(one, str) else one for one in metas], clock=clock)
        self._client, self._ways, self._clock = client, Ways(client), clock
        self._names = Names(self._seed)
        self.files = Files(client, self._names)
        self._results = Results(state / "results.sqlite" if state is not None else None, clock)
        journals = Journals(state / "puts", wallet, chain_id, clock) if state is not None else None
        self._uploads = Uploads(self._ways, self.files, self._names, self._seed, patience, journals)
        self._downloads = Downloads(lambda: client.session, self._ways.leases, self._ways.places, self.files, patience)
        self._at_once, self._puts = asyncio.Semaphore(PUTS_AT_ONCE), set[asyncio.Task[PutResult]]()
        self._is_closed = False
        self._info: Any = None

    async def __aenter__(self) -> Self:
        try:
            self._info = await self._client.info()
            if 0 < self._info.params.longest_lease_s < self._ways.leases.longest_s:
                self._ways.leases.longest_s = self._info.params.longest_lease_s
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def close(self) -> None:
        """Give up puts that are under way, and end leases and connections: first a put says whether it goes on under its lease later."""
        self._is_closed = True
        for task in self._puts:
            task.cancel()
        await asyncio.gather(*self._puts, return_exceptions=True)
        await self._uploads.close()
        await self._ways.close()
        await self._results.close()

    @property
    def wallet(self) -> str:
        """The wallet's address."""
        return self._client.address

    @property
    def metas(self) -> list[MetaAddress]:
        """Meta nodes that are known."""
        return self._client.metas

    # ---- content

    async def put(
        self,
        source: Source | Path | str | Buffer | AsyncIterable[Buffer],
        name: str,
        *,
        size_bytes: int | None = None,
        public: bool = False,
        idempotency_key: str | None = None,
        progress: Progress | None = None,
    ) -> PutResult:
        """Store a file (path), bytes or a stream of ``size_bytes`` under a name; what was there becomes an older version, in the trash.

        With an ``idempotency_key`` the same call again gives the first result; content that can be read twice is hashed for it before. Raises StorageError, TransferFailed.
        """
        path, found = file_path(name), source_of(source, size_bytes)
        if idempotency_key is None:
            return await self._put(found, path, public, progress)

        async def once() -> dict[str, Any]:
            return (await self._put(found, path, public, progress)).as_json()

        asked = {"name": path, "public": public, "size_bytes": found.size_bytes, "sha256": await found.digest()}
        return PutResult(**await self._results.once(idempotency_key, asked, once))

    async def _put(self, source: Source, path: str, public: bool, progress: Progress | None) -> PutResult:
        if self._is_closed:
            raise StorageError(CLOSED)
        most = MAX_OBJECT_BYTES if public else cipher.MAX_PLAIN_BYTES
        if source.size_bytes > most:
            raise StorageError(f"a file has at most {most} bytes, got {source.size_bytes}: store it in parts")
        task = asyncio.create_task(self._in_turn(source, path, public, progress))
        self._puts.add(task)
        task.add_done_callback(self._puts.discard)
        return await task

    async def _in_turn(self, source: Source, path: str, public: bool, progress: Progress | None) -> PutResult:
        async with self._at_once:
            return await self._uploads.put(source, path, is_public=public, progress=progress)

    async def get(self, name: str, target: Path, *, progress: Progress | None = None, replace: bool = True) -> Entry:
        """A file by path, ``sdm://`` handle, file hash or object id → a file here, whole or not at all. An interrupted call goes on when it is
        made again; ``progress`` is first told what is there. Raises StorageError, TransferFailed.
        """
        file = await self.files.find(name)
        await self._downloads.to_path(file, self._key(file), target, progress, replace=replace)
        return self._entry(file)

    async def read(self, name: str, offset: int = 0, length: int | None = None) -> AsyncGenerator[memoryview, None]:
        """A file's content, or a range of it, in pieces of at most 1 MiB. Raises StorageError, TransferFailed."""
        file = await self.files.find(name)
        async with contextlib.aclosing(self._downloads.read(file, self._key(file), offset, length)) as pieces:
            async for piece in pieces:
                yield piece

    def _key(self, file: StoredFile) -> bytes | None:
        if not file.is_private:
            return None
        if file.known is not None and file.known.is_folder:
            raise BadName(f"{file.known.path} is a folder")
        try:
            return cipher.unwrap_key(self._seed, file.object_id, bytes(file.row.wrapped_key))
        except cipher.CipherError as error:
            raise StorageError(f"the file's key cannot be opened: {error}") from None

    def _entry(self, file: StoredFile) -> Entry:
        found = self.files.entry_of(file)
        if found is None:
            raise StorageError("the name of this file is not this wallet's to read")
        return found

    # ---- names

    async def list(self, folder: str = "") -> AsyncIterator[Entry]:
        """What is in a folder, in no order. Raises NotFound."""
        async for entry in self.files.entries(folder):
            yield entry

    async def walk(self, folder: str = "") -> AsyncIterator[Entry]:
        """Everything below a folder; a folder comes before what is in it. Raises NotFound."""
        waiting = [folder]
        while waiting:
            async for entry in self.files.entries(waiting.pop()):
                yield entry
                if entry.is_folder:
                    waiting.append(entry.path)

    async def stat(self, name: str) -> Entry:
        """A file, or the folder of that path. Raises NotFound."""
        if name.endswith("/") or not clean(name):
            return self._entry(await self.files.at(clean(name), is_folder=True))
        try:
            return self._entry(await self.files.find(name))
        except NotFound:
            if not await self.files.is_folder(clean(name)):
                raise
            return self._entry(await self.files.at(clean(name), is_folder=True))

    async def mkdir(self, folder: str) -> None:
        """Make a folder, and those on the way. Raises AlreadyThere where a file is."""
        if not clean(folder):
            raise BadName("expected the path of a folder")
        await self._uploads.ensure_folder(clean(folder))

    async def remove(self, name: str, *, recursive: bool = False) -> int:
        """A file, an empty folder, or with ``recursive`` all below a folder → the trash. How many. Raises NotFound, StorageError."""
        found = await self.stat(name)
        if not found.is_folder:
            await self._delete([self._names.lookup_id(found.path) if not found.is_loose else bytes((await self.files.find(name)).row.lookup_id)])
            return 1
        count, folders, batch = 0, [found.path], list[bytes]()
        async for entry in self.walk(found.path):
            if not recursive:
                raise StorageError(f"the folder {found.path} is not empty: to remove all in it, say so (rm -r)")
            count += 1
            if entry.is_folder:
                folders.append(entry.path)
            else:
                batch.append(self._names.lookup_id(entry.path))
        # Folders last, those within before those around them: a removal that is interrupted leaves none that cannot be reached.
        await self._delete(batch)
        for folder in reversed(folders):
            await self._delete([self._names.lookup_id(folder, is_folder=True)])
        self._uploads.forget_folder(found.path)
        return count + 1

    async def _delete(self, lookup_ids: Sequence[bytes]) -> None:
        for start in range(0, len(lookup_ids), MAX_FILES):
            await send_order(self._client, delete={"lookup_ids": sorted(lookup_ids[start : start + MAX_FILES])})

    async def trash(self) -> AsyncIterator[Entry]:
        """What is in the trash; ``ends_s`` is when it is gone for good."""
        async for entry in self.files.everything(is_trash=True):
            yield entry

    async def restore(self, name: str, *, recursive: bool = False) -> Restored:
        """The newest version of a path in the trash, or an object by its id, → where it was; a folder with all in it that went with it.

        ``recursive``: with all that was ever in it. What cannot be restored, since another file has its place, is told. Raises NotFound, AlreadyThere.
        """
        path = "" if _IS_OBJECT_ID(name) else clean(name)
        newest: Entry | None = None
        below = dict[tuple[str, bool], Entry]()
        async for entry in self.trash():
            if entry.object_id == name or (path and entry.path == path and (entry.is_folder or not name.endswith("/"))):
                newest = entry if newest is None or _age(entry) >= _age(newest) else newest
            elif path and not entry.is_loose and entry.path.startswith(f"{path}/"):
                key = entry.path, entry.is_folder
                below[key] = entry if key not in below or _age(entry) >= _age(below[key]) else below[key]
        if newest is None and not (below and await self.files.is_folder(path)):
            raise NotFound(f"there is no {name} in the trash: 'ppd trash' shows what is")
        if newest is not None and not newest.is_folder:
            await self._restore([newest])
            if not newest.is_loose:
                await self._uploads.ensure_folder(newest.path.rpartition("/")[0])
            return Restored(newest.path, 1, {})
        # A folder by its id is a folder. One that is there again takes back what went last.
        path = newest.path if newest is not None else path
        went_s = newest.ends_s if newest is not None else max(one.ends_s for one in below.values())
        with_it = [one for one in below.values() if recursive or one.ends_s >= went_s - WENT_TOGETHER_S]
        self._uploads.forget_folder(path)
        await self._uploads.ensure_folder(path.rpartition("/")[0])
        folders = sorted([one for one in [newest, *with_it] if one is not None and one.is_folder], key=lambda one: one.path)
        # Folders first: what an interrupted call restored can be reached, and the next one goes on.
        failed = await self._restore_many(folders)
        failed |= await self._restore_many([one for one in with_it if not one.is_folder])
        return Restored(path, len(folders) + sum(not one.is_folder for one in with_it) - len(failed), failed)

    async def _restore(self, entries: Sequence[Entry]) -> None:
        await send_order(self._client, restore={"object_ids": sorted(bytes.fromhex(one.object_id) for one in entries)})

    async def _restore_many(self, entries: Sequence[Entry]) -> dict[str, str]:
        """Restore in orders of 100, and what one of those cannot one by one. Why not, by path; a folder that is there again is as good."""
        failed = dict[str, str]()
        for start in range(0, len(entries), MAX_FILES):
            part = entries[start : start + MAX_FILES]
            try:
                await self._restore(part)
                continue
            except (AlreadyThere, NotFound):
                pass
            for one in part:
                try:
                    await self._restore([one])
                except AlreadyThere as error:
                    if not one.is_folder:
                        failed[one.path] = str(error)
                except NotFound as error:
                    failed[one.path] = str(error)
        return failed

    async def rename(self, old: str, new: str) -> int:
        """A file or folder under another path. How many records moved. A folder's files move one by one: an interrupted call is made again.

        Raises NotFound, AlreadyThere, StorageError.
        """
        found, target = await self.stat(old), clean(new)
        if not found.is_folder:
            await self._rename_file(await self.files.find(old), file_path(new))
            return 1
        if not target or f"{target}/".startswith(f"{found.path}/"):
            raise BadName(f"the folder {found.path} cannot become {target or 'the whole'}: choose a path outside of it")
        await self.mkdir(target)
        count, folders = 1, [found.path]
        entries = [entry async for entry in self.walk(found.path)]
        for entry in entries:
            moved = target + entry.path[len(found.path) :]
            count += 1
            if entry.is_folder:
                folders.append(entry.path)
                await self.mkdir(moved)
            else:
                await self._rename_file(await self.files.at(entry.path), moved)
        for folder in reversed(folders):
            await self._delete([self._names.lookup_id(folder, is_folder=True)])
        self._uploads.forget_folder(found.path)
        return count

    async def _rename_file(self, file: StoredFile, path: str) -> None:
        if await self.files.is_folder(path):
            raise AlreadyThere(f"there is a folder {path}: name the file in it")
        await self._uploads.ensure_folder(path.rpartition("/")[0])
        record = FileRecord(
            lookup_id=self._names.lookup_id(path),
            name=self._names.sealed(path, is_public=file.row.is_public),
            wrapped_key=file.row.wrapped_key,
            is_public=file.row.is_public,
        )
        await send_order(self._client, rename={"lookup_id": file.row.lookup_id, "file": record})

    async def renew(self, names: Iterable[str]) -> int:
        """One more term for files, out of the balance that they were paid from. How many. Raises NotFound, NotEnoughOzone."""
        lookup_ids = {bytes((await self.files.find(name)).row.lookup_id) for name in names}
        ordered = sorted(lookup_ids)
        for start in range(0, len(ordered), MAX_FILES):
            await send_order(self._client, renew={"lookup_ids": ordered[start : start + MAX_FILES]})
        return len(ordered)

    # ---- shares

    async def share(self, name: str, *, expires_s: int | None = None, password: str | None = None) -> ShareInfo:
        """A link to a file's version, for ``expires_s`` seconds from now on or for as long as it is there. Raises NotFound, BadName for a folder, StorageError."""
        try:
            file = await self.files.find(name)
        except (NotFound, BadName):
            if await self.files.is_folder(clean(name)):
                raise BadName(
                    f"{name[:200]} is a folder, and a link leads to one file: share those in it one by one ('ppd list' names them)"
                ) from None
            raise
        key, entry = self._key(file), self._entry(file)
        text = new_share_link(cipher.new_link_secret()[:LINK_ENTROPY_BYTES])
        link = Link(text, text, self._link_secret(text) if key is not None else b"")
        ends_s = 0 if expires_s is None else int(self._clock()) + expires_s
        if expires_s is not None and expires_s < 1:
            raise StorageError(f"a link lives for a second or more, got {expires_s}")
        wrapped = b"" if key is None else await asyncio.to_thread(wrapped_for, link, key, entry.name, password)
        check = await asyncio.to_thread(password_check, link, password)
        await send_order(
            self._client,
            share={
                "share_id": link.share_id,
                "link": link.link,
                "lookup_id": file.row.lookup_id,
                "wrapped_key": wrapped,
                "expires_s": ends_s,
                "password_check": check,
            },
        )
        return ShareInfo(str(link), link.share_id, entry.path, entry.object_id, int(self._clock()), ends_s, password is not None)

    def _link_secret(self, share_id: str) -> bytes:
        """A private link's secret: made of the wallet's seed, so that its owner can be shown his links again."""
        return HKDF(SHA256(), cipher.KEY_BYTES, sha256(share_id.encode()).digest(), _SECRET_INFO).derive(self._seed)

    async def shares(self) -> AsyncIterator[ShareInfo]:
        """The wallet's links."""
        async for row in share_rows(self._client):
            path, is_private = "", True
            with contextlib.suppress(NotFound):
                file = await self.files.by_id(bytes(row.object_id))
                path, is_private = self._entry(file).path, file.is_private
            link = Link(row.share_id, row.link, self._link_secret(row.share_id) if is_private and row.wrapped_key else b"")
            yield ShareInfo(str(link), row.share_id, path, row.object_id.hex(), row.made_ms // 1_000, row.ends_ms // 1_000, row.has_password)

    async def unshare(self, *links: str) -> None:
        """End links, given as links or share ids. Raises NotFound."""
        ids = await share_ids(self._client, links)
        for start in range(0, len(ids), MAX_FILES):
            await send_order(self._client, unshare={"share_ids": ids[start : start + MAX_FILES]})

    async def open_shared(self, link: str, password: str | None = None) -> SharedFile:
        """What a link leads to: size, name, and what ``get_shared`` needs. Raises NotFound, WrongPassword, BadName."""
        return await open_link(self._client, self.files, link, password)

    async def get_shared(
        self, link: str | SharedFile, target: Path, *, password: str | None = None, progress: Progress | None = None, replace: bool = True
    ) -> SharedFile:
        """What a link leads to → a file here. It is paid from this wallet. Raises as ``open_shared`` and ``get`` do."""
        found = await self.open_shared(link, password) if isinstance(link, str) else link
        await self._downloads.to_path(found.file, found.key, target, progress, replace=replace)
        return found

    # ---- what there is

    async def balance(self) -> Balance:
        """The wallet in the ledger. Raises MetaUnreachable."""
        row = await self._client.ask(asking.WALLET_INFO, None, asking.WalletRow)
        paid_noz, promo_noz, leased_noz = amount(row.paid_noz), amount(row.promo_noz), amount(row.leased_noz)
        return Balance(self.wallet, paid_noz, promo_noz, row.files, row.trash, row.shares, row.open_leases, leased_noz, row.height)

    async def health(self, name: str) -> Health:
        """How safe a file is: healthy shares, and the chance to lose it within a year. Raises NotFound."""
        file = await self.files.find(name)
        return health_of(file.scheme, await self.files.health(file))

    async def prove(self, chain: ValueChain, name: str | None = None, epoch: int = 0) -> Proved:
        """Balance and number of files, and that ``name`` is one of them, by the roots that the value chain has of an epoch (0: the last one reported).

        Raises NotFound, MetaLied, StorageError, what the chain raises.
        """
        return await prove(self._client, chain, await self.files.find(name) if name is not None else None, epoch)

    async def warnings(self, entries: Iterable[Entry] = (), charged_noz: int = 0) -> Sequence[str]:
        """Sentences that a user should see: few nodes, files whose term ends soon, less ozone left than the last put cost."""
        found = []
        if self._info is not None and self._info.eligible_nodes < FEW_NODES:
            found.append(f"the network has {self._info.eligible_nodes} nodes for shares: files are kept in so many places only")
        now_s = self._clock()
        ending = [one for one in entries if not one.is_folder and one.size_bytes and (one.state == "grace" or 0 < one.ends_s < now_s + SOON_S)]
        if ending:
            first = min(ending, key=lambda one: one.ends_s)
            left_days = max(0, int(first.ends_s - now_s) // 86_400)
            found.append(f"{len(ending)} files end soon, first {first.path} in {left_days} days: renew them (ppd renew) or keep ozone for it")
        if charged_noz:
            balance = await self.balance()
            left = balance.paid_noz + balance.promo_noz
            if left < charged_noz:
                found.append(f"the wallet has {left} noz left, less than this cost ({charged_noz}): buy more (ppd prepay)")
        return found
