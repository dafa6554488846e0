"""A file into the network: scheme and bill, a lease, the encrypted stream, all shares, the commit; begun anew when its lease is gone.

    source ─ Encryptor ─ Keccak ─► put_object ─► nodes          object id = H(lease, counter), so the key is wrapped before the root is known
       └─ a lease of bill and margin ─► places                  └─ acknowledgements ─► commit, with many others ─► record in the wallet's folder

Source: storage-protocol.md 3.1 to 3.6; ADR 7 and 9.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from dataclasses import asdict, dataclass
from typing import Any, Final

import structlog

from chain.codec.registry import message_class
from sds_node import asking, cipher
from sds_node.client.commits import Committer
from sds_node.client.errors import (
    AlreadyThere,
    LeaseGone,
    MetaFull,
    MetaLied,
    MetaRefused,
    MetaUnreachable,
    NotFound,
    SourceChanged,
    StorageError,
    TooFewNodes,
)
from sds_node.client.files import Files
from sds_node.client.issuing import Places, PutIssuer
from sds_node.client.journal import Journal, Journals
from sds_node.client.leases import LEAST_LIFE_S, Lease, Leases, object_id
from sds_node.client.meta import MetaAddress, MetaClient
from sds_node.client.names import Names, parent_of
from sds_node.client.placing import Settings, TransferFailed
from sds_node.client.room import Room
from sds_node.client.sources import Progress, Resealer, Source, Stored
from sds_node.client.transfer import NotStored, StoredObject, held_bytes, put_object
from sds_node.documents import PACKAGE
from sds_node.handles import FileHandle, format_file_handle
from sds_node.hashes import FileHasher
from sds_node.hashes import file_hash as hash_of
from sds_node.merkle import object_root
from sds_node.schemes import SMALL_BYTES, Scheme, SchemeError, bill_noz, scheme_of

log = structlog.get_logger("client")

FileRecord: Final = message_class(f"{PACKAGE}.FileRecord")
ATTEMPTS: Final = 3
SCHEME_S: Final = 30.0
"""So long what the meta node said of the network's schemes is taken for true."""
FEW_COPIES: Final = 3
OTHERS_ASKED: Final = 2
"""So many other meta nodes are asked for the scheme, too, for so long."""
OTHERS_S: Final = 5.0
MARGIN_NOZ: Final = 64 << 10
MAX_KNOWN_FOLDERS: Final = 10_000
ROOM_BYTES: Final = 256 << 20
"""Of memory for puts: two large ones or more, of 10 of 30 shares one, and small ones beside it."""
_FINAL: Final = (asking.BAD_GRANT, asking.BAD_ASK, asking.ACK_REFUSED)
"""With these, and with what its ledger refuses, a meta node says that what was stored is never committed."""


@dataclass(frozen=True)
class PutResult:
    """A stored file. ``charged_noz``: what its nodes earned, and what is kept for them for its term. ``warning`` is a sentence, or empty."""

    name: str
    file_hash: str
    object_id: str
    size_bytes: int
    stored_bytes: int
    charged_noz: int
    is_public: bool
    handle: str
    warning: str = ""
    is_resumed: bool = False

    def as_json(self) -> dict[str, Any]:
        """The same as JSON's values."""
        return asdict(self)


def _leads_nowhere(error: Exception) -> bool:
    """Whether a put begins anew after an error, or is over, since nothing can go on with what its journal has."""
    code = error.code if isinstance(error, StorageError) else None
    if code is not None and (code in _FINAL or code >= asking.LEDGER_CODES):
        return True
    return isinstance(error, (LeaseGone, MetaFull, MetaLied, SourceChanged, TransferFailed)) and not isinstance(error, NotStored)


class Ways:
    """What moves content: a session with its leases, places and commits."""

    def __init__(self, client: MetaClient) -> None:
        self.client = client
        self.leases = Leases(client)
        self.places = Places(client, self.leases)
        self.committer = Committer(client)

    async def close(self) -> None:
        """Give up what is under way, end leases and connections."""
        await self.committer.close()
        await self.places.close()
        await self.leases.close()
        await self.client.close()


@dataclass(frozen=True)
class _Put:
    """One put, as it was asked for."""

    source: Source
    path: str
    is_public: bool
    progress: Progress | None
    journals: Journals | None
    """None for a put that has no journal, since another one of the same file has it."""

    async def journal(self, least_life_s: float = LEAST_LIFE_S) -> Journal | None:
        """What an earlier put of the same left, if its lease lives so long yet."""
        return None if self.journals is None else await self.journals.find(self.source, self.path, self.is_public, least_life_s)

    @property
    def stored_bytes(self) -> int:
        return self.source.size_bytes if self.is_public else cipher.stored_bytes(self.source.size_bytes)


class Uploads:
    """Stores files."""

    def __init__(self, ways: Ways, files: Files, names: Names, storage_seed: bytes, settings: Settings, journals: Journals | None = None) -> None:
        self._ways, self._files, self._names = ways, files, names
        self._seed, self._settings, self._journals = storage_seed, settings, journals
        self._room = Room(ROOM_BYTES)
        self._schemes: dict[bool, tuple[float, Scheme, str]] = {}
        self._folders: OrderedDict[str, asyncio.Task[None]] = OrderedDict()

    async def close(self) -> None:
        """Give up what is under way."""
        for task in self._folders.values():
            task.cancel()
        await asyncio.gather(*self._folders.values(), return_exceptions=True)

    # ---- files

    async def put(self, source: Source, path: str, *, is_public: bool = False, progress: Progress | None = None) -> PutResult:
        """Store a source at a path; a file that is there becomes an older version, in the trash. Folders on the way are made.

        One that was killed between its commit and its end is done already; where the path has another file since then, or none, it is stored once more.
        Raises StorageError, TransferFailed.
        """
        await self.ensure_folder(parent_of(path))
        with self._journals.held(source, path, is_public) if self._journals is not None else contextlib.nullcontext(False) as is_held:
            return await self._put(_Put(source, path, is_public, progress, self._journals if is_held else None))

    async def _put(self, put: _Put) -> PutResult:
        source, path, journal = put.source, put.path, await put.journal()
        if journal is not None and all(one.address != journal.meta for one in self._ways.client.metas):
            await journal.drop()
            journal = None
        for left in reversed(range(ATTEMPTS)):
            try:
                result = await (self._anew(put) if journal is None else self._go_on(put, journal))
                if result is not None:
                    return result
                journal = None
            except (LeaseGone, MetaUnreachable, NotStored, SourceChanged, MetaRefused, TooFewNodes) as error:
                # What it left, if something of it is stored and can be used: at once, as long as the lease lives, or when it is run again.
                before, journal = journal, await put.journal(LEAST_LIFE_S if isinstance(error, MetaUnreachable) else 0)
                if isinstance(error, MetaUnreachable) and journal is not None:
                    raise MetaUnreachable(f"{error}; what is stored of {path} is kept for an hour: run it again") from None
                # What was asked for by an old scheme, and what a journal led to, may pass when it is begun anew.
                may_pass = isinstance(error, (LeaseGone, NotStored, MetaUnreachable, TooFewNodes)) or (
                    isinstance(error, MetaRefused) and error.code == asking.BAD_ASK
                )
                if not left or not source.can_repeat or not (may_pass or before is not None or journal is not None):
                    raise
                log.info("a put begins anew" if journal is None else "a put goes on", name=path, why=str(error))
                self._schemes.clear()
        raise StorageError(f"{path} was stored, but meanwhile it was removed, or another file took its place: run it again to store it once more")

    async def _anew(self, put: _Put) -> PutResult | None:
        scheme, warning = await self._scheme(put.stored_bytes)
        # Before a lease is taken, whose time runs.
        async with self._room.take(held_bytes(scheme, put.stored_bytes, self._settings.segments_at_once)):
            return await self._under_a_lease(put, scheme, warning)

    async def _under_a_lease(self, put: _Put, scheme: Scheme, warning: str) -> PutResult | None:
        ways, size = self._ways, put.stored_bytes
        bill = bill_noz(scheme, size)
        # For repair, and for shares that are placed again since a node failed.
        hold = await ways.leases.hold(bill + bill // 4 + MARGIN_NOZ, bill + bill // 16)
        journal = None
        try:
            sealer = None if put.is_public else cipher.Encryptor()
            counter = hold.lease.next_counter()
            if put.journals is not None:
                key = sealer.key if sealer is not None else b""
                session = ways.client.session
                journal = await put.journals.begin(put.source, put.path, put.is_public, size, scheme, session, hold.lease, counter, key)
            if journal is not None:
                ways.leases.forget(journal.path)
            return await self._stored(put, ways, hold.lease, counter, scheme, sealer, journal, warning)
        except Exception as error:
            if isinstance(error, (LeaseGone, MetaUnreachable)):
                self._lost(hold.lease, error)
            if journal is not None and await self._is_useless(put, scheme, error):
                await journal.drop()
            raise
        finally:
            try:
                if journal is not None:
                    await journal.close()
            finally:
                if journal is not None and journal.may_go_on:
                    hold.lease.keep(journal.path)
                ways.leases.give_back(hold, max(0, hold.noz - bill))

    async def _is_useless(self, put: _Put, scheme: Scheme, error: Exception) -> bool:
        """Whether nothing can go on with what a journal has, after an error: also where the network has too few nodes for its scheme, and now another one."""
        if not isinstance(error, TooFewNodes):
            return _leads_nowhere(error)
        self._schemes.clear()
        try:
            return (await self._scheme(put.stored_bytes))[0] != scheme
        except StorageError:
            return False

    def _lost(self, lease: Lease, error: LeaseGone | MetaUnreachable) -> None:
        """Nothing more is begun under a lease; nor under others of its meta node, where that is full: the next one is another's."""
        self._ways.leases.lost(lease)
        if isinstance(error, MetaFull):
            self._ways.leases.full(lease.meta)

    async def _go_on(self, put: _Put, journal: Journal) -> PutResult | None:
        """A put that was interrupted, under the session and the lease that it had. None when it was done then, and the path has not its file now."""
        own = self._ways.client
        ways = Ways(MetaClient(own.wallet, own.chain_id, own.metas, clock=own.clock, session=journal.session))
        lease = ways.leases.adopt(journal.certificate, journal.meta, journal.counter)
        journal.go_on(ways.client)
        sealer = None if put.is_public else Resealer(journal.key)
        async with contextlib.AsyncExitStack() as at_last:
            at_last.push_async_callback(ways.close)
            at_last.push_async_callback(self._went_on, lease, journal)
            try:
                async with self._room.take(held_bytes(journal.scheme, put.stored_bytes, self._settings.segments_at_once)):
                    return await self._stored(put, ways, lease, journal.counter, journal.scheme, sealer, journal, "")
            except Exception as error:
                if isinstance(error, (LeaseGone, MetaUnreachable)):
                    self._lost(self._ways.leases.known(lease.lease_id) or lease, error)
                if await self._is_useless(put, journal.scheme, error):
                    await journal.drop()
                raise

    async def _went_on(self, lease: Lease, journal: Journal) -> None:
        """A put that went on ends, or is interrupted again. The lease that it had ends with the last put that uses it and the last journal that leads to it."""
        try:
            await journal.close()
        finally:
            # Also for one that is stopped here: nobody comes back to this lease.
            if not journal.may_go_on:
                leases = self._ways.leases
                leases.forget(journal.path)
                if self._journals is not None and leases.known(lease.lease_id) is None:
                    await self._journals.let_go(lease)

    async def _stored(
        self,
        put: _Put,
        ways: Ways,
        lease: Lease,
        counter: int,
        scheme: Scheme,
        sealer: cipher.Encryptor | None,
        journal: Journal | None,
        warning: str,
    ) -> PutResult | None:
        """The whole of it. None for what was committed before, where the path has not its file any more."""
        size, identity, hasher = put.stored_bytes, object_id(lease.lease_id, counter), FileHasher()
        issuer = PutIssuer(ways.places, lease, counter, size)
        async with Stored(put.source, sealer, hasher, put.progress) as stream:
            stored = await put_object(ways.client.session, issuer, scheme, identity, size, stream, self._settings, journal)
        wrapped = cipher.wrap_key(self._seed, identity, sealer.key) if sealer is not None else b""
        name = hasher.file_hash()
        escrow, receipts = await ways.committer.commit(lease, counter, stored, name, self._record(put.path, wrapped, is_public=put.is_public))
        is_there = journal is None or not journal.was_whole or await self._is_at(put.path, identity, lease.meta)
        if journal is not None:
            await journal.drop()
        if not is_there:
            log.info("a put that was done has lost its path since then, and begins anew", name=put.path)
            return None
        return PutResult(
            name=put.path,
            file_hash=name,
            object_id=identity.hex(),
            size_bytes=put.source.size_bytes,
            stored_bytes=size,
            charged_noz=escrow + receipts,
            is_public=put.is_public,
            handle=format_file_handle(FileHandle(ways.client.address, name, put.path)),
            warning=warning,
            is_resumed=journal is not None and journal.is_resumed,
        )

    async def _is_at(self, path: str, identity: bytes, meta: bytes) -> bool:
        """Whether a path has an object, by the meta node that committed it: another one may not know of it yet."""
        head = asking.FileFindHead(lookup_id=self._names.lookup_id(path))
        try:
            found = await self._ways.client.ask(asking.FILE_FIND, head, asking.FileReply, meta=meta)
        except NotFound:
            return False
        return bytes(found.file.object.object_id) == identity

    def _record(self, path: str, wrapped: bytes, *, is_public: bool = False, is_folder: bool = False) -> Any:
        return FileRecord(
            lookup_id=self._names.lookup_id(path, is_folder=is_folder),
            name=self._names.sealed(path, is_public=is_public, is_folder=is_folder),
            wrapped_key=wrapped,
            is_public=is_public,
        )

    async def _scheme(self, size_bytes: int) -> tuple[Scheme, str]:
        """(the scheme of a stored size, the meta node's warning about it): asked for once in a while for small files, and for large ones."""
        is_small, now_s = size_bytes < SMALL_BYTES, self._ways.client.clock()
        kept = self._schemes.get(is_small)
        if kept is not None and now_s - kept[0] < SCHEME_S:
            return kept[1], kept[2]
        plan = await self._ways.client.ask(asking.OBJECT_PLAN, asking.PlanHead(size_bytes=size_bytes), asking.Plan)
        try:
            scheme = scheme_of(plan.data_shares, plan.total_shares)
        except SchemeError as error:
            raise MetaLied(f"the meta node names a scheme that there is not: {error}") from None
        bill = bill_noz(scheme, size_bytes)
        # On top of it comes the governed share for repair, and a noz for what cannot be halved.
        if not bill <= plan.bill_noz <= 2 * bill + MARGIN_NOZ:
            raise MetaLied(f"expected a bill of {bill} noz and a little more from the meta node, got {plan.bill_noz}: ask another one")
        warnings = ["".join(one for one in plan.warning[:500] if one.isprintable()), await self._doubts(size_bytes, scheme)]
        if scheme.n < FEW_COPIES:
            # Whatever the meta node says of it.
            warnings.insert(0, f"the network has few nodes: each part of the file is kept in {scheme.n} places only")
        warning = "; ".join(one for one in warnings if one)
        self._schemes[is_small] = now_s, scheme, warning
        return scheme, warning

    async def _doubts(self, size_bytes: int, scheme: Scheme) -> str:
        """A sentence when other meta nodes name a scheme of more shares; those that do not answer soon say nothing. One that lies alone is seen."""
        client = self._ways.client
        others = client.metas[1 : 1 + OTHERS_ASKED]

        async def asked(one: MetaAddress) -> int:
            async with asyncio.timeout(OTHERS_S):
                plan = await client.ask(asking.OBJECT_PLAN, asking.PlanHead(size_bytes=size_bytes), asking.Plan, meta=one.address)
                return scheme_of(plan.data_shares, plan.total_shares).n

        found = await asyncio.gather(*(asked(one) for one in others), return_exceptions=True)
        more = [(count, one) for count, one in zip(found, others, strict=True) if isinstance(count, int) and count > scheme.n]
        if not more:
            return ""
        count, one = max(more, key=lambda each: each[0])
        return f"meta node {one} knows nodes for {count} shares of it, the one that was asked for {scheme.n} only: name the former first"

    # ---- folders

    async def ensure_folder(self, path: str) -> None:
        """Make a folder and those on the way to it, unless they are there. Raises AlreadyThere where a file is in the way."""
        if not path:
            return
        task = self._folders.get(path)
        if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
            # One for all who wait for it; who is cancelled does not take it along.
            task = self._folders[path] = asyncio.create_task(self._folder(path))
            if len(self._folders) > MAX_KNOWN_FOLDERS:
                oldest = next((key for key, one in self._folders.items() if one.done()), path)
                if oldest != path:
                    del self._folders[oldest]
        try:
            await asyncio.shield(task)
        except BaseException:
            if task.done() and self._folders.get(path) is task:
                del self._folders[path]
            raise

    def forget_folder(self, path: str) -> None:
        """A folder may be gone: look again when it is needed."""
        for key in [one for one in self._folders if one == path or one.startswith(f"{path}/")]:
            del self._folders[key]

    async def _folder(self, path: str) -> None:
        if await self._files.is_folder(path):
            return
        await self.ensure_folder(parent_of(path))
        try:
            await self._files.at(path)
        except NotFound:
            await self._new_folder(path)
            return
        raise AlreadyThere(f"there is a file {path}: a folder of that name cannot be made")

    async def _new_folder(self, path: str) -> None:
        """A folder is an empty object under a name that ends with a slash."""
        for left in reversed(range(ATTEMPTS)):
            try:
                return await self._committed_folder(path)
            except (LeaseGone, MetaFull):
                if not left:
                    raise

    async def _committed_folder(self, path: str) -> None:
        scheme, _ = await self._scheme(0)
        hold = await self._ways.leases.hold(1)
        try:
            counter = hold.lease.next_counter()
            stored = StoredObject(object_id(hold.lease.lease_id, counter), object_root([]), 0, scheme, ())
            await self._ways.committer.commit(hold.lease, counter, stored, hash_of(b""), self._record(path, b"", is_folder=True))
        except (LeaseGone, MetaFull) as error:
            self._lost(hold.lease, error)
            raise
        finally:
            self._ways.leases.give_back(hold, hold.noz)
