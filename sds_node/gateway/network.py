"""The storage network behind a gateway: meta nodes and resource nodes, asked by the strings of wallets.

    wallet, lists, status, orders ─► the wallet's meta node            (a client for each wallet, kept for a while)
    upload     a new key ─ legacy.open ─► find, plan, lease ─► put_object ─► commit ─► lease.end
    download   a new key ─ legacy.open ─► find or share.open, lease ─► ObjectReader ─► lease.end

Files are public and not encrypted: the original's clients name a file by its content. Source: storage-protocol.md 5; docs/adr/0009.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections import OrderedDict
from collections.abc import AsyncIterable, AsyncIterator, Callable, Sequence
from typing import Any, Final

import structlog

from chain.codec.registry import message_class
from chain.crypto.keys import PrivateKey
from sds_node import asking
from sds_node.client import errors
from sds_node.client.commits import Committer
from sds_node.client.files import Files, StoredFile, is_folder
from sds_node.client.issuing import GetIssuer, Places, PutIssuer
from sds_node.client.leases import Lease, amount, object_id
from sds_node.client.meta import MetaAddress, MetaClient
from sds_node.client.names import Names
from sds_node.client.placing import Settings
from sds_node.client.sharing import Link, password_check
from sds_node.client.transfer import ObjectReader, put_object
from sds_node.documents import PACKAGE
from sds_node.gateway.asking import StringClient, TaskLease, legacy_ask, told
from sds_node.gateway.backend import PAGE, Ask, BackendError, Check, FileInfo, NewShare, SameFile, ShareInfo, WalletState
from sds_node.handles import LINK_ENTROPY_BYTES, HandleError, LinkKind, ShareLink, new_share_link, parse_share_id, parse_share_link, parse_wallet
from sds_node.legacy import OBJECT_COUNTER, download_bound_noz, legacy_lookup_id, on_top, sequence_text, upload_bound_noz
from sds_node.merkle import Buffer
from sds_node.schemes import Scheme, SchemeError, legacy_replicas, scheme_of

log = structlog.get_logger("gateway")

FileRecord: Final = message_class(f"{PACKAGE}.FileRecord")
ShareFile: Final = message_class(f"{PACKAGE}.ShareFile")
MAX_READERS: Final = 256
"""Wallets whose connections are kept for the next poll."""
INFO_S: Final = 60.0
MAX_SORTED: Final = 1_000
MAX_CURSORS: Final = 10_000
CLOSE_S: Final = 30.0
LEASE_S: Final = 3_600
_SEED_BYTES: Final = 32


class NetworkBackend:
    """A Backend over meta and resource nodes. ``metas`` are those to begin with; ``clock`` tells Unix seconds. Close it."""

    def __init__(self, chain_id: str, metas: Sequence[MetaAddress], clock: Callable[[], float], settings: Settings | None = None) -> None:
        self._chain_id, self._clock = chain_id, clock
        # One segment at a time, so that a transfer has the memory of one.
        self._settings = settings or Settings(segments_at_once=1)
        # It signs nothing: what it asks needs no session.
        self._common = MetaClient(PrivateKey(b"\x01" * _SEED_BYTES, "eth_secp256k1"), chain_id, metas, clock=clock)
        self._readers: OrderedDict[str, _Reader] = OrderedDict()
        self._info: tuple[float, Any] | None = None
        self._cursors: OrderedDict[tuple[str, int], bytes] = OrderedDict()

    @property
    def chain_id(self) -> str:
        return self._chain_id

    async def close(self) -> None:
        """End all connections."""
        for one in self._readers.values():
            await one.client.close()
        await self._common.close()

    async def info(self) -> Any:
        """MetaInfo, at most a minute old; the meta nodes that it names are known from there on. Raises BackendError."""
        if self._info is None or self._clock() - self._info[0] > INFO_S:
            with told():
                self._info = self._clock(), await self._common.info()
        return self._info[1]

    # --- wallets, files and shares ---

    async def wallet(self, wallet: str) -> WalletState:
        await self.info()
        with told():
            row = await self._common.ask(asking.WALLET_LOOK, asking.WalletHead(wallet=wallet), asking.WalletRow, without_session=True)
            noz = amount(row.paid_noz) + amount(row.promo_noz)
        return WalletState(noz, sequence_text(row.sequence), row.files, row.shares, row.is_legacy_allowed)

    async def file(self, ask: Ask) -> tuple[FileInfo, int] | None:
        async with self._reading(ask) as (client, files):
            try:
                reply = await client.ask(asking.FILE_FIND, asking.FileFindHead(file_hash=ask.subject), asking.FileReply)
            except errors.NotFound:
                return None
            found = files.checked(reply.file)
            health = await files.health(found)
            healthy = min(health, default=found.scheme.n)
        return _info(found), legacy_replicas(found.scheme, healthy)

    async def files(self, ask: Ask, page: int) -> tuple[list[FileInfo], int]:
        async with self._reading(ask) as (client, files):
            row = await client.ask(asking.WALLET_INFO, None, asking.WalletRow)
            total = int(row.files)
            if total <= MAX_SORTED:
                rows, _ = await self._file_page(client, b"", MAX_SORTED)
                # Folders are the affair of those who can read their names.
                rows = [one for one in rows if not is_folder(one)]
                total = len(rows)
                rows.sort(key=lambda one: (-one.made_ms, bytes(one.lookup_id)))
                rows = rows[page * PAGE : (page + 1) * PAGE]
            else:
                rows = await self._walk(client, ask.wallet, page) if page * PAGE < total else []
                rows = [one for one in rows if not is_folder(one)]
            return [_info(files.checked(one)) for one in rows], total

    async def _walk(self, client: MetaClient, wallet: str, page: int) -> list[Any]:
        """A page of a wallet of many files, in the ledger's order: from the nearest page that was asked for before."""
        at = max((known for owner, known in self._cursors if owner == wallet and known <= page), default=0)
        after = self._cursors.get((wallet, at), b"")
        while at < page:
            pages = min(page - at, MAX_SORTED // PAGE)
            rows, has_more = await self._file_page(client, after, pages * PAGE)
            if not has_more:
                return []
            at, after = at + pages, bytes(rows[-1].lookup_id)
            self._note_cursor(wallet, at, after)
        rows, _ = await self._file_page(client, after, PAGE)
        if rows:
            self._note_cursor(wallet, page + 1, bytes(rows[-1].lookup_id))
        return rows

    def _note_cursor(self, wallet: str, page: int, after: bytes) -> None:
        self._cursors[wallet, page] = after
        if len(self._cursors) > MAX_CURSORS:
            self._cursors.popitem(last=False)

    @staticmethod
    async def _file_page(client: MetaClient, after: bytes, limit: int) -> tuple[list[Any], bool]:
        found = await client.ask(asking.FILE_LIST, asking.FileListHead(after=after, limit=limit), asking.FilePage)
        if len(found.files) > limit:
            raise BackendError(f"expected at most {limit} files from the meta node, got {len(found.files)}")
        return list(found.files), bool(found.has_more) and bool(found.files)

    async def shares(self, ask: Ask, page: int) -> tuple[list[ShareInfo], int]:
        async with self._reading(ask) as (client, files):
            total = int((await client.ask(asking.WALLET_INFO, None, asking.WalletRow)).shares)
            after, skip, rows = "", page * PAGE, list[Any]()
            while skip < total and len(rows) < PAGE:
                limit = min(asking.MAX_PAGE, skip + PAGE)
                found = await client.ask(asking.SHARE_LIST, asking.ShareListHead(after=after, limit=limit), asking.SharePage)
                if len(found.shares) > limit:
                    raise BackendError(f"expected at most {limit} shares from the meta node, got {len(found.shares)}")
                rows += list(found.shares)[skip:]
                skip = max(0, skip - len(found.shares))
                if not found.has_more or not found.shares:
                    break
                after = found.shares[-1].share_id
            found_shares = [await self._share(client, files, row) for row in rows[:PAGE]]
            return [one for one in found_shares if one is not None], total

    @staticmethod
    async def _share(client: MetaClient, files: Files, row: Any) -> ShareInfo | None:
        """A share; None when its file is in the trash, where its links lead nowhere."""
        try:
            reply = await client.ask(asking.FILE_FIND, asking.FileFindHead(object_id=row.object_id), asking.FileReply)
        except errors.NotFound:
            return None
        file = _info(files.checked(reply.file))
        return ShareInfo(row.share_id, row.link, file, row.made_ms // 1_000, row.ends_ms // 1_000, row.has_password)

    async def shared(self, ask: Ask, link: ShareLink) -> FileInfo:
        async with self._reading(ask) as (client, files):
            return _info(await _opened(client, files, link))

    async def delete(self, ask: Ask) -> None:
        await self._order(ask, delete=True)

    async def share(self, ask: Ask, new: NewShare) -> str:
        own = ShareFile(share_id=new.share_id, link=new.link, expires_s=new.ends_s)
        own.password_check = await _check(new.share_id, new.link, new.password)
        with told():
            try:
                return await self._shared_as(ask, own)
            except errors.AlreadyThere:
                if new.password or parse_share_link(new.link).kind is not LinkKind.CID:
                    raise
            text = new_share_link(secrets.token_bytes(LINK_ENTROPY_BYTES))
            try:
                return await self._shared_as(ask, ShareFile(share_id=text, link=text, also=new.link, expires_s=new.ends_s))
            except errors.NotFound:
                # Whoever had the link has just ended it.
                return await self._shared_as(ask, own)

    async def _shared_as(self, ask: Ask, wanted: Any) -> str:
        """The id of the share that was made, or that the wallet has already. Raises StorageError."""
        row = await self._ordered(ask, asking.ShareRow, share=wanted)
        try:
            # A meta node of an earlier version tells none.
            return parse_share_id(row.share_id or wanted.share_id)
        except HandleError as error:
            raise errors.MetaLied(f"expected a share's id from the meta node: {error}") from None

    async def stop_share(self, ask: Ask) -> None:
        await self._order(ask, unshare=True)

    async def _order(self, ask: Ask, **kind: Any) -> None:
        with told():
            await self._ordered(ask, None, **kind)

    async def _ordered(self, ask: Ask, answer: Any, **kind: Any) -> Any:
        order = asking.LegacyOrder(wallet=ask.signature.address, ask=legacy_ask(ask), **kind)
        reader = await self._reader(ask.wallet)
        return await reader.client.ask(asking.LEGACY_ORDER, order, answer, without_session=True)

    @contextlib.asynccontextmanager
    async def _reading(self, ask: Ask) -> AsyncIterator[tuple[StringClient, Files]]:
        """A wallet's client with a session that the string opens. One call of a wallet after another."""
        reader = await self._reader(ask.wallet)
        async with reader.lock:
            reader.client.use(ask)
            with told():
                yield reader.client, reader.files

    async def _reader(self, wallet: str) -> _Reader:
        await self.info()
        found = self._readers.get(wallet)
        if found is None:
            found = self._readers[wallet] = _Reader(self._client(wallet))
        self._readers.move_to_end(wallet)
        for other in list(self._readers):
            if len(self._readers) <= MAX_READERS:
                break
            if not self._readers[other].lock.locked():
                await self._readers.pop(other).client.close()
        return found

    def _client(self, wallet: str) -> StringClient:
        return StringClient(wallet, parse_wallet(wallet), self._chain_id, self._common.metas, self._clock)

    # --- transfers ---

    async def begin_upload(self, ask: Ask, size_bytes: int) -> NetworkStoring:
        params = (await self.info()).params
        ratio_e18 = params.repair_ratio_e18
        task = _Task(self._client(ask.wallet))
        try:
            with told():
                task.client.use(ask, size_bytes)
                with contextlib.suppress(errors.NotFound):
                    reply = await task.client.ask(asking.FILE_FIND, asking.FileFindHead(file_hash=ask.subject), asking.FileReply)
                    raise SameFile(_info(task.files.checked(reply.file)).name)
                plan = await task.client.ask(asking.OBJECT_PLAN, asking.PlanHead(size_bytes=size_bytes), asking.Plan)
                scheme, most = _planned(plan, size_bytes, ratio_e18)
                lease = await task.lease.take(max(1, plan.bill_noz), most, _lease_seconds(params))
        except BaseException:
            await task.close()
            raise
        return NetworkStoring(task, lease, scheme, ask, size_bytes, self._settings)

    async def begin_download(self, ask: Ask, link: ShareLink | None = None, check: Check | None = None) -> NetworkReading:
        params = (await self.info()).params
        ratio_e18 = params.repair_ratio_e18
        task = _Task(self._client(ask.wallet))
        try:
            with told():
                task.client.use(ask)
                if link is not None:
                    file = await _opened(task.client, task.files, link)
                else:
                    reply = await task.client.ask(asking.FILE_FIND, asking.FileFindHead(file_hash=ask.subject), asking.FileReply)
                    file = task.files.checked(reply.file)
                if check is not None:
                    check(_info(file))
                size = file.stored_bytes
                if size:
                    await task.lease.take(size + on_top(size, ratio_e18), download_bound_noz(size, ratio_e18), _lease_seconds(params))
                wanted = await task.files.to_get(file)
                reader = ObjectReader(task.client.session, GetIssuer(task.places, file.object_id), wanted, self._settings)
        except BaseException:
            await task.close()
            raise
        return NetworkReading(task, _info(file), reader)


class _Reader:
    """A wallet's connection for polls and lists."""

    def __init__(self, client: StringClient) -> None:
        self.client, self.files, self.lock = client, Files(client, Names(bytes(_SEED_BYTES))), asyncio.Lock()


class _Task:
    """One transfer: a key of its own, its lease, its connections."""

    def __init__(self, client: StringClient) -> None:
        self.client = client
        self.lease = TaskLease(client)
        self.places = Places(client, self.lease)
        self.committer = Committer(client)
        self.files = Files(client, Names(bytes(_SEED_BYTES)))

    async def close(self) -> None:
        """End the lease and the connections. Never raises."""
        try:
            async with asyncio.timeout(CLOSE_S):
                await self.committer.close()
                await self.places.close()
                await self.lease.close()
                await self.client.close()
        except Exception as error:
            log.info("a task ends by itself", why=repr(error))


class NetworkStoring:
    """An upload whose lease is taken."""

    def __init__(self, task: _Task, lease: Lease, scheme: Scheme, ask: Ask, size_bytes: int, settings: Settings) -> None:
        self._task, self._lease, self._scheme, self._ask, self._size_bytes, self._settings = task, lease, scheme, ask, size_bytes, settings

    async def store(self, name: str, source: AsyncIterable[Buffer]) -> None:
        """Store and commit the file. Raises BackendError."""
        task, lease = self._task, self._lease
        issuer = PutIssuer(task.places, lease, OBJECT_COUNTER, self._size_bytes)
        key = object_id(lease.lease_id, OBJECT_COUNTER)
        with told():
            stored = await put_object(task.client.session, issuer, self._scheme, key, self._size_bytes, source, self._settings)
            lookup_id = legacy_lookup_id(self._ask.signature.address, self._ask.subject)
            record = FileRecord(lookup_id=lookup_id, name=name.encode(), is_public=True)
            await task.committer.commit(lease, OBJECT_COUNTER, stored, self._ask.subject, record)

    async def close(self) -> None:
        await self._task.close()


class NetworkReading:
    """A download whose lease is taken."""

    def __init__(self, task: _Task, file: FileInfo, reader: ObjectReader) -> None:
        self._task, self.file, self._reader = task, file, reader

    async def read(self, offset: int, length: int) -> AsyncIterator[Buffer]:
        """Bytes of the file, each proved before it comes. Raises BackendError."""
        with told():
            async with contextlib.aclosing(self._reader.read(offset, length)) as pieces:
                async for piece in pieces:
                    yield piece

    async def close(self) -> None:
        await self._task.close()


def _info(file: StoredFile) -> FileInfo:
    """A file as clients see it; a private one is called by its hash."""
    row = file.row
    name = bytes(row.name).decode(errors="replace") if row.is_public else row.object.file_hash
    return FileInfo(row.object.file_hash, file.stored_bytes, name, int(row.made_ms) // 1_000, bool(row.is_public))


def _lease_seconds(params: Any) -> int:
    """How long a task's lease lives: an hour, or the governed bound."""
    return max(1, min(LEASE_S, int(params.longest_lease_s) or LEASE_S))


def _planned(plan: Any, size_bytes: int, ratio_e18: int) -> tuple[Scheme, int]:
    """(scheme, most noz to lease) of a Plan. Raises BackendError for one that cannot be."""
    try:
        scheme = scheme_of(plan.data_shares, plan.total_shares)
        most = upload_bound_noz(scheme, size_bytes, ratio_e18)
    except SchemeError as error:
        raise BackendError(f"the meta node plans what cannot be: {error}") from None
    if plan.bill_noz > most:
        raise BackendError(f"the meta node asks {plan.bill_noz} noz for what costs at most {most}: nothing was charged")
    return scheme, most


async def _check(share_id: str, link: str, password: str) -> bytes:
    return await asyncio.to_thread(password_check, Link(share_id, link, b""), password) if password else b""


async def _opened(client: StringClient, files: Files, link: ShareLink) -> StoredFile:
    """What a link leads to; this session may read it from here on. Raises StorageError."""
    head = asking.ShareOpenHead(link=link.link, password_check=await _check(link.share_id, link.link, link.password))
    found = await client.ask(asking.SHARE_OPEN, head, asking.OpenedShare)
    if found.share.link != link.link or found.share.object_id != found.file.object.object_id:
        raise BackendError(f"expected share {link.link} from the meta node, got another one")
    return files.checked(found.file, is_own=False)
