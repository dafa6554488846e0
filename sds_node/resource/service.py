"""What a resource node does for others over the wire: it takes shares, serves them against receipts, proves them to meta nodes, and tells what it has.

    stranger ─ TLS: he is the session key ─► limit taken once, on disk ─► transfer ─► final receipt on disk ─► acknowledged
                                                  │               ├── no final receipt: frozen until the limit expires or it is handed in; three
                                                  │               │   are too many for a new limit, three that expired close the session
                                                  │               └── a put that is cut off: nothing is kept and nothing owed, and it may begin again
                                                  └── two limits of one range: kept as a fraud proof

    final receipts that leave more unpaid than a reader who ends early loses count as ones that did not come
    one wallet: an eighth of the transfers; a get that is not read or acknowledged at a least rate ends

    bytes sent and not in a receipt:  ≤ 4 MiB for a stream, ≤ 64 MiB for a wallet over all of its streams, those that ended badly included

Only who holds a session's key can use its limits: it is the key of his end of the connection. Time comes from ``clock``; waits are the event loop's. Disk
and hashing run in a pool of threads. Source: storage-protocol.md 3.4, 3.5 and 4; storage-interfaces.md 4.3 and 4.4.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import sha256
from heapq import heappop, heappush
from typing import Any, Final, TypeVar

import nacl.signing
import structlog
from google.protobuf.message import DecodeError

from chain.codec.canonical import encode, known
from chain.crypto import address as bech32
from modules.settlement.commitment import node_of
from modules.settlement.documents import OrderLimit, Receipt, SessionGrant, decoded, signed_by_key
from modules.settlement.leaves import GET as READS
from modules.settlement.leaves import HASH_BYTES, REPAIR, SERIAL_BYTES
from modules.settlement.leaves import PUT as WRITES
from sds_node import transfers
from sds_node.documents import Authority, Refused, SignedDocument, StoreAck, check_manifest, opened, signed
from sds_node.merkle import LEAF_BYTES, share_proved
from sds_node.p2p import address_of
from sds_node.resource import store as shares
from sds_node.resource.limits import Limits, Overlap, UsedAlready
from sds_node.resource.objects import Objects, ObjectService
from sds_node.resource.receipts import AlreadyUsed, Entry, Progress, ReceiptLog, ReceiptsError
from sds_node.resource.votes import Votes
from sds_node.schemes import ESCROW_RATIO_E18, SchemeError, scheme_of, share_bytes
from sds_node.threads import to_its_end
from sds_node.transfers import (
    STREAM_WINDOW_BYTES,
    WALLET_WINDOW_BYTES,
    Moved,
    Run,
    WrongReceipt,
    check_receipt,
    parsed,
    receive_record,
    record,
    runs_bytes,
    runs_of,
)
from sds_node.wire import errors as wire_errors
from sds_node.wire.connection import Connection, Handler
from sds_node.wire.stream import Stream

log = structlog.get_logger("resource")

MAX_FROZEN: Final = 10_000
MAX_LAPSED: Final = 100_000
LEAST_BYTES: Final = 64 << 10
"""As many bytes of a wallet have to be acknowledged in ``receipt_s`` when all of its streams wait for them."""
SLOW_BYTES: Final = transfers.RECEIPT_BYTES // 2
"""As many bytes of a stream have to be acknowledged in ``slow_s`` when it waits for them: half of what a line carries on which a MiB is taken in time."""
UNPAID_PART: Final = 4
"""Final receipts of a session may leave two windows of a stream unpaid, and a fourth of what they pay: readers end early, connections break."""
PIECE_LEAVES: Final = transfers.RECEIPT_BYTES // LEAF_BYTES
ANSWER_S: Final = 60.0
"""In so long a meta node must have taken the answer to its challenge."""
PUT_TRIES: Final = 16
"""As often a put may begin under one limit. Bytes that end before their share pay nothing, so a session has a node take for nothing at most so many times what
its limits are for, and its lease holds the noz of each until it expires."""
MAX_CHUNKS: Final = 64
"""Received pieces that wait to be written together."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Settings:
    """What an operator decides about serving."""

    transfers_most: int = 512
    """Puts and gets at a time, of all sessions."""
    transfers_of_session: int = 64
    transfers_of_wallet: int = 64
    """The same over all sessions of a wallet."""
    missing_most: int = 3
    """With as many serials without their final receipt a session gets no further one; when as many have expired so, it is closed while its grant lasts."""
    stream_window_bytes: int = STREAM_WINDOW_BYTES
    wallet_window_bytes: int = WALLET_WINDOW_BYTES
    receipt_s: float = 30.0
    """How long a receipt may take when nothing can be sent without it."""
    mebibyte_s: float = 240.0
    """How long a MiB of a share that comes in may take, or what is left of it, and its receipt. Many shares come over one slow line; and a peer that lost its
    network, as it finds out sooner (``dead_s`` of the wire), was cut off and owes nothing."""
    sent_s: float = 240.0
    """The same for one that goes out: until the peer has taken it, at the rate that this node sends; and then, until it has come and is acknowledged."""
    escrow_ratio_e18: int = ESCROW_RATIO_E18
    """The governed escrow ratio, in units of 10^-18: what an upload's receipt does not pay of its price. A put for less than the rest is refused."""
    audits: int = 2
    """Audit answers of one meta node in the making or on their way: who stalls them keeps no other one from asking."""
    threads: int = 8

    def __post_init__(self) -> None:
        for name in ("transfers_most", "transfers_of_session", "transfers_of_wallet", "missing_most", "audits", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: expected 1 or more")
        if (
            not transfers.RECEIPT_BYTES <= self.stream_window_bytes <= self.wallet_window_bytes
            or not min(self.receipt_s, self.mebibyte_s, self.sent_s) > 0
        ):
            raise ValueError("expected a stream's window of at least 1 MiB, a wallet's not below it, and times above 0")

    @property
    def slow_s(self) -> float:
        """How long receipts may take for what this node sent, which may still be on its way on a slow line."""
        return max(self.sent_s, self.receipt_s)


@dataclass(slots=True)
class _Wallet:
    """Bytes that a wallet got and that no receipt covers, and who waits for them to become fewer."""

    ahead_bytes: int = 0
    less_bytes: int = 0
    """How many became fewer since this record was made."""
    open: int = 0
    """Transfers under way."""
    waiting: set[asyncio.Future[None]] = field(default_factory=set)

    def less(self, size_bytes: int) -> None:
        self.ahead_bytes -= size_bytes
        self.less_bytes += size_bytes
        for waiter in self.waiting:
            if not waiter.done():
                waiter.set_result(None)
        self.waiting.clear()


@dataclass(slots=True)
class _Session:
    open: int = 0
    missing: set[bytes] = field(default_factory=set)
    """Serials that ended without a final receipt and have not expired."""


@dataclass(slots=True)
class _Frozen:
    """A serial that ended with bytes that no receipt covers."""

    session: bytes
    grant_expires_s: int
    wallet: str
    moved: Moved


@dataclass(slots=True)
class _Transfer:
    """One serial that is being served."""

    limit: Any
    moved: Moved
    grant_expires_s: int
    task: asyncio.Task[Any] | None
    over: asyncio.Event = field(default_factory=asyncio.Event)
    receipt: Any | None = None
    """The last Receipt."""
    is_final: bool = False
    is_due: bool = False
    """A get's bytes were moved, or a put has begun that its session does not cut off, so a final receipt is owed."""
    is_blameless: bool = False
    """It failed by a fault of this node."""
    is_counted: bool = False
    """It is among its wallet's."""
    is_resuming: bool = False
    """It comes with its last receipt, which is not taken yet."""
    was_final: bool = False
    """It comes with the final receipt that is here."""
    is_again: bool = False
    """A put that goes on: an earlier one under its limit ended before all of the share, or its receipt, was here."""

    @property
    def serial(self) -> bytes:
        return bytes(self.limit.serial)

    @property
    def session(self) -> bytes:
        return bytes(self.limit.session_pubkey)


class Service:
    """The handlers of one resource node. Everything runs in one event loop.

    ``key`` is the node's P2P key, ``beneficiary`` the account that its traffic is paid to, ``clock`` tells Unix seconds. Call ``start`` before the wire
    listens, ``stop`` before it is closed and ``close`` afterwards; store and receipts are the caller's to close.
    """

    def __init__(
        self,
        authority: Authority,
        key: nacl.signing.SigningKey,
        beneficiary: str,
        store: shares.ShareStore,
        receipts: ReceiptLog,
        clock: Callable[[], float],
        settings: Settings | None = None,
    ) -> None:
        self.settings = settings or Settings()
        self._authority, self._key, self._store, self._receipts, self._clock = authority, key, store, receipts, clock
        address = address_of(bytes(key.verify_key))
        self.address = bech32.encode(address, bech32.NODE)
        self.limits = Limits(authority, address, beneficiary, self.settings.escrow_ratio_e18)
        self._pool = ThreadPoolExecutor(self.settings.threads, "resource")
        self._active: dict[bytes, _Transfer] = {}
        self._wallets: dict[str, _Wallet] = {}
        self._sessions: dict[bytes, _Session] = {}
        self._lapsed: dict[bytes, tuple[int, int]] = {}  # session → how many serials expired without their final receipt; when its grant ends
        self._unpaid: OrderedDict[bytes, tuple[int, int]] = OrderedDict()  # session → bytes that its final receipts pay, bytes sent that they do not
        self._votes = Votes()
        self._manifests = Objects(store.home)
        self._objects = ObjectService(authority, store, self._manifests, self._pool)
        self._is_stopping = False
        self._frozen: dict[bytes, _Frozen] = {}
        self._thaws: list[tuple[int, bytes]] = []
        self._audits: Counter[bytes] = Counter()
        """Meta node → audits that are being answered."""

    def handlers(self) -> dict[str, Handler]:
        """The methods for ``wire.node.Node``."""
        return {
            transfers.PUT: self.put,
            transfers.GET: self.get,
            transfers.AUDIT: self.audit,
            transfers.CONFIRM: self._changes(self._store.confirm),
            transfers.DROP: self._changes(self._store.trash, is_drop=True),
            transfers.RESTORE: self._changes(self._store.restore),
            transfers.INVENTORY: self.inventory,
            transfers.STATUS: self.status,
            **self._objects.handlers(),
        }

    async def start(self) -> None:
        """Take again what was accepted before this start. Raises ReceiptsError when the record cannot be read."""
        now_s = self._now_s()

        def restore() -> int:
            refused = 0
            for one in self._receipts.accepted(now_s):
                try:
                    self.limits.restore([one], now_s)
                except Refused as error:
                    # The record itself still refuses its serial.
                    refused += 1
                    log.warning("an accepted limit is not taken again", why=str(error))
            return refused

        await self._in_pool(restore)
        for session_key, until_s in await self._in_pool(self._receipts.closed_sessions, now_s):
            self._lapsed[session_key] = self.settings.missing_most, until_s

    def stop(self) -> None:
        """From now on transfers that break do so by this node's fault. Call it before the wire is closed."""
        self._is_stopping = True

    def close(self) -> None:
        self.stop()
        self._pool.shutdown()
        self._manifests.close()

    # --- put ----------------------------------------------------------------------------------------------------------------

    async def put(self, stream: Stream, connection: Connection) -> None:
        """A share comes in: exactly the bytes that its manifest announces, then the final receipt; the acknowledgement goes back."""
        head = parsed(transfers.PutHead, stream.head)
        with _told():
            manifest, kept = self._checked_manifest(head)
            if head.again:
                await self._acknowledge_again(stream, connection, head, manifest)
                return
            async with self._admitted(connection, head, WRITES) as transfer:
                await self._take_share(stream, transfer, manifest, kept)
                await self._acknowledge(stream, manifest)

    def _checked_manifest(self, head: Any) -> tuple[Any, bytes]:
        """The ShareManifest of a head, which fits its order limit, and what is kept beside the share."""
        limit = opened(OrderLimit, head.evidence.order_limit.body)
        manifest = check_manifest(head.manifest, self._authority.chain_id)
        if head.evidence.receipt.body:
            raise Refused("expected a put without a receipt in its head: it comes after the share")
        if bytes(head.manifest.session_pubkey) != limit.session_pubkey:
            raise Refused("expected a manifest by the session key of the order limit")
        found = (manifest.wallet, bytes(manifest.serial), bytes(manifest.object_id))
        if found != (limit.wallet, bytes(limit.serial), bytes(limit.object_root)):
            raise Refused("expected a manifest with the wallet, the serial and the object id of the order limit")
        if bytes(limit.share_root) not in (transfers.ANY_ROOT, bytes(manifest.share_root)):
            raise Refused(f"expected a manifest of share {limit.share_root.hex()}, which the order limit names, got {manifest.share_root.hex()}")
        try:
            expected_bytes = share_bytes(scheme_of(manifest.data_shares, manifest.total_shares), manifest.segment_bytes)
        except SchemeError as error:
            raise Refused(str(error)) from None
        if manifest.size_bytes != expected_bytes or manifest.size_bytes > limit.max_bytes:
            raise Refused(
                f"expected a share of {expected_bytes} bytes, within the {limit.max_bytes} of the order limit, got one of {manifest.size_bytes}"
            )
        path = transfers.check_path(head.segment_path)
        if not share_proved(head.segment_root, manifest.share_root, manifest.index, manifest.total_shares, path):
            raise Refused("expected a path that leads from the share's root to the segment's")
        kept = transfers.KeptShare(manifest=head.manifest, segment_root=head.segment_root, segment_path=path)
        kept.manifest.ClearField("grant")
        if head.evidence.WhichOneof("authority") == "grant":
            kept.manifest.grant.CopyFrom(head.evidence.grant)
        return manifest, encode(known(kept))

    async def _take_share(self, stream: Stream, transfer: _Transfer, manifest: Any, kept: bytes) -> None:
        with self._blaming_the_disk(transfer):
            root, serial = bytes(manifest.share_root), transfer.serial
            if transfer.is_again:
                await self._in_pool(self._remove_unpaid, root, serial)
            writer = await self._in_pool(self._store.begin, root, manifest.size_bytes, serial, kept, undo=shares.Writer.abort)
            transfer.is_due = True
            try:
                try:
                    await self._take_bytes(stream, writer, manifest.size_bytes)
                    given = await self._next_receipt(stream, self.settings.mebibyte_s)
                except (asyncio.CancelledError, wire_errors.CallCancelled, wire_errors.ConnectionFailed):
                    # Cut off by its session, as one of more shares than it needs; the receipt may lie here unread. One that stays and sends too little, or
                    # nothing, has the node wait for what it owes.
                    transfer.is_due = False
                    raise
                receipt = check_receipt(given, transfer.limit, None)
                if not receipt.is_final or receipt.bytes_acked != manifest.size_bytes or receipt.chunks_digest != manifest.share_root:
                    raise WrongReceipt(f"expected the final receipt of {manifest.size_bytes} bytes with the share's root as digest")
                # Cut off from now on it is kept all the same, and paid if it is committed.
                await to_its_end(asyncio.ensure_future(self._keep(transfer, writer, given, receipt)))
            finally:
                # Cancelled once more it is done all the same.
                await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._pool, writer.abort))

    async def _keep(self, transfer: _Transfer, writer: shares.Writer, given: Any, receipt: Any) -> None:
        with self._blaming_the_disk(transfer):
            await self._in_pool(writer.finish)
            await self._finish(transfer, given, receipt)

    def _remove_unpaid(self, root: bytes, serial: bytes) -> None:
        """A copy that was kept when this node was killed, before its receipt was on the disk: nobody was told of it."""
        for copy in self._store.copies(root):
            if copy.serial == serial:
                self._store.purge_if([copy], shares.State.PENDING)

    async def _take_bytes(self, stream: Stream, writer: shares.Writer, size_bytes: int) -> None:
        """What comes is written, up to a MiB at a time, while the next is received; at most two MiB are in memory."""
        loop = asyncio.get_running_loop()
        left, writing = size_bytes, None
        chunks, gathered_bytes = list[memoryview](), 0
        mark, due_s = left, loop.time() + self.settings.mebibyte_s
        try:
            while left:
                try:
                    async with asyncio.timeout_at(due_s):
                        chunk = await stream.receive(min(left, transfers.RECEIPT_BYTES - gathered_bytes))
                except TimeoutError:
                    raise Refused(f"expected a MiB of the share in {self.settings.mebibyte_s:g} s, got {mark - left} bytes") from None
                if not chunk:
                    raise Refused(f"expected {size_bytes} bytes of the share, got {size_bytes - left} and the end")
                left -= len(chunk)
                if mark - left >= transfers.RECEIPT_BYTES:
                    mark, due_s = left, loop.time() + self.settings.mebibyte_s
                chunks.append(chunk)
                gathered_bytes += len(chunk)
                # A turn of a thread costs as much as hashing 100 KiB. A peer that sends byte by byte may not have them gathered one by one.
                if left and gathered_bytes < transfers.RECEIPT_BYTES and len(chunks) < MAX_CHUNKS:
                    continue
                if writing is not None:
                    await writing
                writing = asyncio.ensure_future(self._in_pool(_written, writer, chunks))
                chunks, gathered_bytes = [], 0
        finally:
            if writing is not None:
                await writing

    async def _acknowledge(self, stream: Stream, manifest: Any) -> None:
        ack = StoreAck(
            chain_id=self._authority.chain_id,
            node=self.address,
            serial=manifest.serial,
            share_root=manifest.share_root,
            size_bytes=manifest.size_bytes,
            stored_s=self._now_s(),
        )
        await stream.send(record(encode(signed(ack, self._key))))

    async def _acknowledge_again(self, stream: Stream, connection: Connection, head: Any, manifest: Any) -> None:
        """The acknowledgement of a put whose receipt is here and whose answer was lost."""
        self._check_caller(connection, manifest_session := bytes(head.manifest.session_pubkey))
        entry = await self._entry(bytes(manifest.serial))
        is_here = entry is not None and entry.progress is not Progress.OPEN and entry.evidence.order_limit.body == head.evidence.order_limit.body
        if not is_here or not await self._in_pool(self._store.has, bytes(manifest.share_root), bytes(manifest.serial)):
            raise wire_errors.Refused(
                transfers.SHARE_MISSING, f"no share was stored here under serial {manifest.serial.hex()} by {manifest_session.hex()}"
            )
        await self._acknowledge(stream, manifest)

    # --- get ----------------------------------------------------------------------------------------------------------------

    async def get(self, stream: Stream, connection: Connection) -> None:
        """Leaves of a share go out, no further ahead of the receipts than the windows. A get that broke goes on under its limit with its last receipt."""
        head = parsed(transfers.GetHead, stream.head)
        with _told():
            async with self._admitted(connection, head, READS) as transfer:
                if transfer.is_final:
                    return
                self._refuse_closed(transfer.session)
                with self._blaming_the_disk(transfer):
                    reader = await self._in_pool(self._store.open_share, bytes(transfer.limit.share_root), undo=shares.Reader.close)
                with reader:
                    runs = runs_of(head.runs, reader.size_bytes)
                    wanted_bytes = transfer.moved.bytes + runs_bytes(runs, reader.size_bytes)
                    if wanted_bytes > transfer.limit.max_bytes:
                        raise Refused(f"expected at most the {transfer.limit.max_bytes} bytes of the order limit, got a request for {wanted_bytes}")
                    await self._serve(stream, transfer, reader, runs, head)

    async def _serve(self, stream: Stream, transfer: _Transfer, reader: shares.Reader, runs: list[Run], head: Any) -> None:
        reply = transfers.GetReply(size_bytes=reader.size_bytes)
        if head.with_hashes:
            reply.leaf_hashes = reader.leaf_hashes
            with self._blaming_the_disk(transfer):
                kept = await self._in_pool(self._seat, reader.root, bytes(head.segment_root))
            if kept is not None:
                reply.segment_root = kept.segment_root
                reply.segment_path.extend(kept.segment_path)
        await stream.send(record(encode(reply)))
        receipts = asyncio.create_task(self._take_receipts(stream, transfer))
        try:
            await self._pour(stream, transfer, reader, runs, receipts)
            moved, timeout_s = transfer.moved, self.settings.slow_s
            while not receipts.done():
                acked_bytes = moved.acked_bytes
                await asyncio.wait({receipts}, timeout=timeout_s)
                more_bytes = moved.acked_bytes - acked_bytes
                if not receipts.done() and more_bytes < SLOW_BYTES:
                    raise WrongReceipt(
                        f"expected the final receipt, or {SLOW_BYTES} bytes to be acknowledged, within {timeout_s:g} s, got {more_bytes}"
                    )
                if moved.acked_bytes == moved.bytes:
                    timeout_s = self.settings.receipt_s  # nothing is on its way
            await receipts
        finally:
            receipts.cancel()
            await asyncio.gather(receipts, return_exceptions=True)

    def _seat(self, root: bytes, segment_root: bytes) -> Any | None:
        """What was kept with that copy of a share (of at most 256) that belongs to a segment; None when none does. Segments may have a share in common."""
        for copy in self._store.copies(root):
            with contextlib.suppress(shares.ShareNotFound, shares.ShareDamaged):
                kept = transfers.KeptShare.FromString(self._store.manifest(*copy.key))
                if kept.segment_root == segment_root:
                    return kept
        return None

    async def _pour(self, stream: Stream, transfer: _Transfer, reader: shares.Reader, runs: list[Run], receipts: asyncio.Task[None]) -> None:
        """Send the runs, a receipt's worth at a time; the next piece is read and checked while one is sent."""
        pieces = _pieces(runs)
        piece = next(pieces, None)
        reading = self._read_later(reader, piece)
        try:
            while piece is not None and reading is not None:
                with self._blaming_the_disk(transfer):
                    data = await reading
                this, piece = piece, next(pieces, None)
                reading = self._read_later(reader, piece)
                await self._room(transfer, len(data), receipts)
                if receipts.done():
                    return  # it was final before everything was sent: the reader has enough
                transfer.is_due = True
                transfer.moved.leaves(this.first, reader.leaf_hashes[this.first * HASH_BYTES : (this.first + this.leaves) * HASH_BYTES], len(data))
                self._wallet(transfer.limit.wallet).ahead_bytes += len(data)
                try:
                    async with asyncio.timeout(self.settings.sent_s):
                        await stream.send(data)
                except TimeoutError:
                    raise WrongReceipt(f"expected {len(data)} bytes to be taken within {self.settings.sent_s:g} s") from None
        finally:
            if reading is not None:
                await asyncio.gather(reading, return_exceptions=True)

    def _read_later(self, reader: shares.Reader, piece: Run | None) -> asyncio.Future[bytes] | None:
        if piece is None:
            return None
        start, stop = piece.bounds(reader.size_bytes)
        return asyncio.ensure_future(self._in_pool(reader.read, start, stop - start))

    async def _room(self, transfer: _Transfer, size_bytes: int, receipts: asyncio.Task[None]) -> None:
        """Wait until so many bytes may be sent ahead of the receipts."""
        loop, settings, moved = asyncio.get_running_loop(), self.settings, transfer.moved
        wallet = self._wallet(transfer.limit.wallet)
        was_own, mark, since_s = None, 0, 0.0
        while not receipts.done():
            self._thaw()
            is_own = moved.bytes - moved.acked_bytes + size_bytes > settings.stream_window_bytes
            if not is_own and wallet.ahead_bytes + size_bytes <= settings.wallet_window_bytes:
                return
            less_bytes = moved.acked_bytes if is_own else wallet.less_bytes
            least_bytes, period_s = (SLOW_BYTES, settings.slow_s) if is_own else (LEAST_BYTES, settings.receipt_s)
            if is_own is not was_own or less_bytes - mark >= least_bytes:
                was_own, mark, since_s = is_own, less_bytes, loop.time()
            elif loop.time() >= since_s + period_s:
                if is_own:
                    raise WrongReceipt(f"expected {least_bytes} bytes to be acknowledged within {period_s:g} s, got {less_bytes - mark}")
                raise wire_errors.Busy(f"{wallet.ahead_bytes} bytes of this wallet have no receipt: send those first, or wait until they expire")
            waiter: asyncio.Future[None] = loop.create_future()
            wallet.waiting.add(waiter)
            try:
                timeout_s = max(since_s + period_s - loop.time(), 0.0)
                await asyncio.wait({receipts, waiter}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            finally:
                wallet.waiting.discard(waiter)
        if not transfer.is_final:
            await receipts  # raises what was wrong

    async def _take_receipts(self, stream: Stream, transfer: _Transfer) -> None:
        """Judge receipts as they come, until the final one, which is on the disk when this returns."""
        while not transfer.is_final:
            given = await self._next_receipt(stream)
            receipt = check_receipt(given, transfer.limit, transfer.receipt)
            self._wallet(transfer.limit.wallet).less(transfer.moved.acknowledge(receipt.bytes_acked, receipt.chunks_digest))
            await self._take(transfer, given, receipt)

    async def _take(self, transfer: _Transfer, given: Any, receipt: Any) -> None:
        if receipt.is_final:
            await self._finish(transfer, given, receipt)
        else:
            transfer.receipt = receipt
            self._receipts.note(transfer.serial, given)

    async def _finish(self, transfer: _Transfer, given: Any, receipt: Any) -> None:
        # Whose connection is lost meanwhile has given it all the same.
        await to_its_end(asyncio.ensure_future(self._finished(transfer, given, receipt)))

    async def _finished(self, transfer: _Transfer, given: Any, receipt: Any) -> None:
        try:
            await asyncio.wrap_future(self._receipts.finish(transfer.serial, given))
        except ReceiptsError:
            transfer.is_blameless = True
            raise
        transfer.receipt, transfer.is_final = receipt, True

    async def _next_receipt(self, stream: Stream, timeout_s: float | None = None) -> Any:
        try:
            async with asyncio.timeout(timeout_s):
                data = await receive_record(stream, transfers.MAX_RECEIPT_BYTES)
        except TimeoutError:
            raise WrongReceipt(f"the receipt did not come within {timeout_s:g} s") from None
        if data is None:
            raise WrongReceipt("expected a final receipt, got the end")
        return parsed(SignedDocument, data)

    # --- who may, and what stays behind -------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _admitted(self, connection: Connection, head: Any, action: int) -> AsyncIterator[_Transfer]:
        """Take the order limit of a head, or go on with one that broke; what is left of it at the end is frozen and counted.

        A get goes on with its last receipt; one of nothing, under a limit that never came here, begins. A put that has no final receipt here begins again: what
        came of it before is gone, and nothing was paid.
        """
        actions = (action, REPAIR)
        self._thaw()
        given = opened(OrderLimit, head.evidence.order_limit.body)
        serial, session_key = bytes(given.serial), bytes(given.session_pubkey)
        self._check_caller(connection, session_key)
        if given.action not in actions:
            raise Refused(f"expected an order limit for action {' or '.join(map(str, actions))}, got one for {given.action}")
        session = self._sessions.get(session_key)
        is_resumed = bool(head.evidence.receipt.body)
        is_handed_in = is_resumed and _hands_in(head)
        if not is_handed_in:
            if len(self._active) >= self.settings.transfers_most or (session is not None and session.open >= self.settings.transfers_of_session):
                raise wire_errors.Busy(f"{len(self._active)} transfers are under way here: end some first, or ask another node")
            self._refuse_many(given.wallet)
        if is_resumed or given.action == WRITES:
            await self._end_before(serial, session_key)
        if is_resumed and not is_handed_in and serial not in self.limits and _covers_nothing(head):
            is_resumed = False  # its connection was lost before this node had its limit
        if is_resumed:
            # Before it stands in anybody's way: who made the limit up, for a serial that he guessed, is not let in.
            self._check_waits(serial, await self._entry(serial), head.evidence)
        if serial in self._active:
            raise wire_errors.Refused(transfers.LIMIT_USED, f"a transfer under serial {serial.hex()} is under way")
        session = self._sessions.get(session_key)
        limit, is_again = given, False
        if not is_resumed:
            self._refuse_closed(session_key)
            if session is None or serial not in session.missing:  # else what is owed comes now
                self._refuse_owing(session)
            limit, is_again = self._accepted(head, given, is_put=action == WRITES)
        transfer = _Transfer(limit, Moved(bytes(limit.share_root)), _grant_expires_s(head.evidence, limit), asyncio.current_task(), is_again=is_again)
        session = self._sessions.setdefault(session_key, _Session())
        session.open += 1
        self._active[serial] = transfer
        try:
            if is_resumed:
                await self._resume(transfer, head.evidence)
                if not is_handed_in:
                    # Only now it is known to be that wallet's. What it owes is owed all the same.
                    self._refuse_many(limit.wallet)
                    self._count(transfer)
            elif is_again:
                await self._begin_again(transfer, head.evidence)
                self._count(transfer)
            else:
                self._count(transfer)
                await asyncio.shield(asyncio.wrap_future(self._receipts.accept(head.certificate, head.evidence, limit)))
            try:
                async with asyncio.timeout(max(limit.expires_s - self._clock(), 0)):
                    yield transfer
            except TimeoutError:
                raise Refused(f"the order limit expired at {limit.expires_s} s, before the transfer's end") from None
        finally:
            del self._active[serial]
            session.open -= 1
            if transfer.is_counted:
                self._wallet(limit.wallet).open -= 1
            transfer.over.set()
            self._left(transfer, session)

    def _refuse_many(self, wallet: str) -> None:
        held = self._wallets.get(wallet)
        if held is not None and held.open >= self.settings.transfers_of_wallet:
            raise wire_errors.Busy(f"{held.open} transfers of this wallet are under way here: end some first, or ask another node")

    def _count(self, transfer: _Transfer) -> None:
        self._wallet(transfer.limit.wallet).open += 1
        transfer.is_counted = True

    async def _end_before(self, serial: bytes, session_key: bytes) -> None:
        """The session goes on with a serial on another connection: what still waits on the one that it has lost ends now. Another session's does not."""
        before = self._active.get(serial)
        if before is None or before.task is None or before.session != session_key:
            return
        before.task.cancel()
        try:
            async with asyncio.timeout(self.settings.receipt_s):
                await before.over.wait()
        except TimeoutError:
            raise wire_errors.Busy(f"the transfer under serial {serial.hex()} on another connection does not end: try again in a moment") from None

    def _check_caller(self, connection: Connection, session_key: bytes) -> None:
        if connection.remote.address != address_of(session_key):
            raise wire_errors.Refused(transfers.LIMIT_REFUSED, "expected the session key of the order limit at the other end of this connection")

    def _refuse_closed(self, session_key: bytes) -> None:
        lapsed, until_s = self._lapsed.get(session_key, (0, 0))
        if until_s <= self._now_s():
            self._lapsed.pop(session_key, None)
        elif lapsed >= self.settings.missing_most:
            raise wire_errors.Refused(
                transfers.SESSION_CLOSED,
                f"final receipts of this session did not come, or did not pay: it is closed here until {until_s} s; open another one",
            )

    def _refuse_owing(self, session: _Session | None) -> None:
        if session is not None and len(session.missing) >= self.settings.missing_most:
            raise wire_errors.Refused(
                transfers.RECEIPTS_DUE,
                f"{len(session.missing)} final receipts of this session are due here: send a get's in, as its receipt without runs, "
                "and put a share again, under the limit that it had",
            )

    def _accepted(self, head: Any, given: Any, *, is_put: bool) -> tuple[Any, bool]:
        """The OrderLimit of a head, judged, and whether it is that of a put that was taken before."""
        try:
            return self.limits.accept(head.certificate, head.evidence, self._now_s(), is_put=is_put), False
        except Overlap as overlap:
            self._receipts.keep_proof(overlap.first, overlap.second)
            log.warning("a meta node used a lease twice", meta_node=opened(OrderLimit, overlap.first.body).meta_node)
            raise
        except UsedAlready as error:
            if given.action == WRITES:
                return given, True
            raise wire_errors.Refused(transfers.LIMIT_USED, str(error)) from None

    async def _entry(self, serial: bytes) -> Entry | None:
        return await asyncio.wrap_future(self._receipts.find(serial))

    def _check_waits(self, serial: bytes, entry: Entry | None, evidence: Any) -> Entry:
        """What is recorded of a transfer that is to go on. Refuses one that is not, or is over under another receipt."""
        is_known = entry is not None and entry.evidence.order_limit == evidence.order_limit
        if entry is None or not is_known or (entry.progress is not Progress.OPEN and entry.evidence.receipt != evidence.receipt):
            raise wire_errors.Refused(transfers.LIMIT_USED, f"no transfer under serial {serial.hex()} waits to go on here")
        return entry

    async def _resume(self, transfer: _Transfer, evidence: Any) -> None:
        """Go on with a get whose last receipt came along; a final receipt ends it. What was sent before and is not in the receipt stays frozen."""
        transfer.is_resuming = True
        # Once more, now that nobody else goes on with it: another one may have, and ended, since it was let in.
        entry = self._check_waits(transfer.serial, await self._entry(transfer.serial), evidence)
        is_same = entry.evidence.receipt == evidence.receipt
        if entry.progress is not Progress.OPEN:
            # Its final receipt is here: its sender has not heard so.
            transfer.was_final = transfer.is_final = True
            return
        if self._now_s() >= transfer.limit.expires_s:
            raise Refused(f"the order limit expired at {transfer.limit.expires_s} s")
        transfer.grant_expires_s = entry.grant_expires_s
        last = entry.receipt
        receipt: Any = last if is_same else check_receipt(evidence.receipt, transfer.limit, last)
        frozen = self._frozen.get(transfer.serial)
        if frozen is not None:
            self._wallet(frozen.wallet).less(frozen.moved.acknowledge(receipt.bytes_acked, receipt.chunks_digest))
        transfer.moved = Moved(bytes(receipt.chunks_digest), receipt.bytes_acked)
        if not is_same:
            await self._take(transfer, evidence.receipt, receipt)
        transfer.receipt = receipt
        transfer.is_due, transfer.is_resuming = True, False
        self._sessions[transfer.session].missing.discard(transfer.serial)

    async def _begin_again(self, transfer: _Transfer, evidence: Any) -> None:
        """A put comes once more under its limit. Refuses one whose final receipt is here, and what came too often."""
        entry = await self._entry(transfer.serial)
        if entry is None or entry.progress is not Progress.OPEN or entry.evidence.order_limit.body != evidence.order_limit.body:
            raise wire_errors.Refused(transfers.LIMIT_USED, f"order limit {transfer.serial.hex()} was used already")
        if self.limits.again(transfer.serial) > PUT_TRIES:
            raise wire_errors.Refused(transfers.LIMIT_USED, f"order limit {transfer.serial.hex()} was used {PUT_TRIES} times: ask for another one")
        transfer.grant_expires_s = entry.grant_expires_s

    def _left(self, transfer: _Transfer, session: _Session) -> None:
        """A transfer is over: what no receipt covers stays ahead until the limit expires, and a missing final receipt is counted."""
        serial, key = transfer.serial, transfer.session
        ahead_bytes = transfer.moved.bytes - transfer.moved.acked_bytes
        before = self._frozen.get(serial)
        if transfer.is_final and not transfer.was_final and transfer.limit.action != WRITES:
            unpaid_bytes = ahead_bytes + (before.moved.bytes - before.moved.acked_bytes if before is not None else 0)
            self._weigh(key, transfer.grant_expires_s, transfer.moved.acked_bytes, unpaid_bytes)
        is_missing = transfer.is_due and not (transfer.is_final or transfer.is_blameless or self._is_stopping)
        if before is not None:
            if not transfer.is_resuming:  # else it did not go on, and what an earlier stream moved is what the next receipt is judged by
                # The bytes that an earlier stream lost stay with those of this one.
                before.moved = _left_over(transfer.moved, ahead_bytes + before.moved.bytes - before.moved.acked_bytes)
        elif ahead_bytes or is_missing:
            self._frozen[serial] = _Frozen(key, transfer.grant_expires_s, transfer.limit.wallet, transfer.moved)
            heappush(self._thaws, (int(transfer.limit.expires_s), serial))
        if is_missing:
            session.missing.add(serial)
        elif transfer.is_final:
            session.missing.discard(serial)
        if len(self._frozen) > MAX_FROZEN:
            self._thaw_one()
        self._tidy(key, transfer.limit.wallet)

    def _thaw(self) -> None:
        """Look at what was frozen for limits that have expired."""
        now_s = self._now_s()
        while self._thaws and self._thaws[0][0] <= now_s:
            self._thaw_one()

    def _thaw_one(self) -> None:
        """Forget what one serial left behind; if its final receipt never came, its session is a step nearer to being closed."""
        _, serial = heappop(self._thaws)
        frozen = self._frozen.pop(serial)
        key = frozen.session
        self._wallet(frozen.wallet).less(frozen.moved.bytes - frozen.moved.acked_bytes)
        if key in self._sessions and serial in self._sessions[key].missing:
            self._sessions[key].missing.discard(serial)
            self._lapse(key, frozen.grant_expires_s)
        self._tidy(key, frozen.wallet)

    def _weigh(self, key: bytes, until_s: int, paid_bytes: int, unpaid_bytes: int) -> None:
        """A final receipt pays so much of what was sent to its session, and leaves so much unpaid."""
        paid, unpaid = self._unpaid.pop(key, (0, 0))
        paid, unpaid = paid + paid_bytes, unpaid + unpaid_bytes
        if len(self._unpaid) >= MAX_LAPSED:
            self._unpaid.popitem(last=False)
        self._unpaid[key] = paid, unpaid
        if unpaid_bytes and unpaid > 2 * self.settings.stream_window_bytes + paid // UNPAID_PART:
            self._lapse(key, until_s)

    def _lapse(self, key: bytes, until_s: int) -> None:
        """A session did not give the final receipt that it owed."""
        lapsed = self._lapsed.pop(key, (0, 0))[0] + 1
        if len(self._lapsed) >= MAX_LAPSED:
            del self._lapsed[next(iter(self._lapsed))]
        self._lapsed[key] = lapsed, until_s
        if lapsed == self.settings.missing_most:
            self._receipts.close_session(key, until_s)
            log.info("a session is closed: final receipts did not come, or did not pay what was sent", session=key.hex(), until_s=until_s)

    def _tidy(self, session_key: bytes, wallet: str) -> None:
        session, held = self._sessions.get(session_key), self._wallets.get(wallet)
        if session is not None and not session.open and not session.missing:
            del self._sessions[session_key]
        if held is not None and held.ahead_bytes == 0 and not held.waiting and not held.open:
            del self._wallets[wallet]

    def _wallet(self, wallet: str) -> _Wallet:
        return self._wallets.setdefault(wallet, _Wallet())

    # --- for meta nodes -----------------------------------------------------------------------------------------------------

    async def audit(self, stream: Stream, connection: Connection) -> None:
        """AuditHead → AuditAnswer: leaf and path of each item, an empty proof for what is not whole here."""
        head = parsed(transfers.AuditHead, stream.head)
        with _told():
            self._check_meta(connection)
            challenge = self._checked_challenge(head)
            caller = connection.remote.address
            if self._audits[caller] >= self.settings.audits:
                raise wire_errors.Busy(f"{self._audits[caller]} audits of this meta node are being answered: ask again in a moment")
            self._audits[caller] += 1
            try:
                answer = transfers.AuditAnswer(challenge_hash=sha256(head.body).digest())
                for item in challenge.items:
                    leaf, path = await self._in_pool(self._proved, bytes(item.share_root), bytes(item.serial), item.leaf_index)
                    answer.proofs.add(leaf=leaf, path=path)
                await self._sent_in_time(stream, encode(answer))
            finally:
                self._audits -= Counter({caller: 1})

    async def _sent_in_time(self, stream: Stream, answer: bytes) -> None:
        """Send an answer to a meta node, which may not leave it lying here."""
        try:
            async with asyncio.timeout(ANSWER_S):
                await stream.send(answer)
        except TimeoutError:
            raise wire_errors.TimedOut(f"the answer to a challenge was not taken within {ANSWER_S:g} s") from None

    def _checked_challenge(self, head: Any) -> Any:
        challenge = parsed(transfers.AuditChallenge, head.body)
        if transfers.audit_body(challenge) != head.body:
            raise Refused("expected an AuditChallenge in canonical form")
        if challenge.chain_id != self._authority.chain_id or challenge.node != self.address:
            raise Refused(f"expected a challenge to {self.address} on {self._authority.chain_id}")
        meta_node = node_of(challenge.meta_node)
        key = self._authority.ledger_key(meta_node) if meta_node is not None and meta_node in set(self._authority.active_meta_nodes()) else None
        if key is None or not signed_by_key(transfers.AUDIT_DOMAIN, head.body, key, head.signature):
            raise Refused(f"expected a challenge that an active meta node signed, got one of {challenge.meta_node[:64]!r}")
        if self._now_s() > challenge.due_s:
            raise Refused(f"the challenge was due at {challenge.due_s} s: it is {self._now_s()} s")
        if len(challenge.items) > transfers.MAX_AUDIT_ITEMS:
            raise Refused(f"expected at most {transfers.MAX_AUDIT_ITEMS} items, got {len(challenge.items)}")
        if any(len(item.share_root) != HASH_BYTES or len(item.serial) != SERIAL_BYTES for item in challenge.items):
            raise Refused("expected items with a share root of 32 bytes and a serial of 16")
        if len({(bytes(item.share_root), bytes(item.serial), item.leaf_index) for item in challenge.items}) < len(challenge.items):
            raise Refused("expected each item once")
        return challenge

    def _proved(self, root: bytes, serial: bytes, index: int) -> tuple[bytes, list[bytes]]:
        try:
            return self._store.leaf(root, index) if self._store.has(root, serial) else (b"", [])
        except (shares.ShareNotFound, shares.ShareDamaged, shares.ShareRefused) as error:
            log.warning("an audit finds nothing to prove", share_root=root.hex(), why=type(error).__name__)
            return b"", []

    def _changes(self, change: Callable[[list[shares.Key]], list[shares.Key]], *, is_drop: bool = False) -> Handler:
        """A handler: CopyList → the CopyList of those that were not in a state for it. A confirmed copy is dropped when enough meta nodes have asked for
        it (votes.py); until then it is not among them, and nothing happens to it.
        """

        async def handler(stream: Stream, connection: Connection) -> None:
            with _told():
                self._check_meta(connection)
                asked = parsed(transfers.CopyList, await stream.receive_all(transfers.MAX_PAGE_BYTES))
                if len(asked.copies) > transfers.MAX_COPIES_ASKED:
                    raise Refused(f"expected at most {transfers.MAX_COPIES_ASKED} copies, got {len(asked.copies)}")
                wanted = [(bytes(one.share_root), bytes(one.serial)) for one in asked.copies]
                if is_drop:
                    wanted = await self._decided(connection.remote.address, wanted)
                missing = await self._in_pool(change, wanted) if wanted else []
                answer = transfers.CopyList(copies=[transfers.CopyKey(share_root=root, serial=serial) for root, serial in missing])
                await stream.send(encode(answer))

        return handler

    async def _decided(self, meta_node: bytes, wanted: list[shares.Key]) -> list[shares.Key]:
        """Of the copies that a meta node wants dropped those that may be: not confirmed ones, and those that enough meta nodes want dropped."""

        def confirmed() -> set[shares.Key]:
            found = (self._store.index.get(key) for key in wanted if (len(key[0]), len(key[1])) == (HASH_BYTES, SERIAL_BYTES))
            return {copy.key for copy in found if copy is not None and copy.state is shares.State.CONFIRMED}

        asked = await self._in_pool(confirmed)
        active = set(self._authority.active_meta_nodes())
        decided = set(self._votes.cast(meta_node, asked, active, self._now_s()))
        if len(decided) < len(asked):
            log.info("confirmed copies wait for the word of more meta nodes before they are dropped", copies=len(asked) - len(decided))
        return [key for key in wanted if key not in asked or key in decided]

    async def inventory(self, stream: Stream, connection: Connection) -> None:
        """InventoryHead → InventoryPage: copies in order, those that follow ``after``."""
        head = parsed(transfers.InventoryHead, stream.head)
        with _told():
            self._check_meta(connection)
            if not 1 <= head.limit <= transfers.MAX_COPIES_ASKED:
                raise Refused(f"expected a limit of 1 to {transfers.MAX_COPIES_ASKED}, got {head.limit}")
            after = (bytes(head.after.share_root), bytes(head.after.serial))
            copies = await self._in_pool(self._page, after, head.limit, head.only_damaged)
            page = transfers.InventoryPage()
            for copy in copies:
                page.copies.add(
                    share_root=copy.root,
                    serial=copy.serial,
                    size_bytes=copy.size_bytes,
                    state=int(copy.state),
                    stored_s=copy.stored_s,
                    is_damaged=copy.kept is shares.Kept.DAMAGED,
                )
            await stream.send(encode(page))

    def _page(self, after: shares.Key, limit: int, only_damaged: bool) -> list[shares.Copy]:
        if only_damaged:
            return self._store.damaged(after, limit)
        found = []
        for copy in self._store.inventory(after):
            found.append(copy)
            if len(found) == limit:
                break
        return found

    async def status(self, stream: Stream, connection: Connection) -> None:
        """NodeReport."""
        with _told():
            self._check_meta(connection)
            free_bytes, totals = await self._in_pool(lambda: (self._store.free_bytes(), self._store.totals()))
            held = (shares.State.PENDING, shares.State.CONFIRMED)
            report = transfers.NodeReport(
                chain_id=self._authority.chain_id,
                time_s=self._now_s(),
                free_bytes=free_bytes,
                kept_bytes=totals.bytes(*held),
                copies=totals.count(*held),
                damaged_copies=sum(count for (_, kept), count in totals.copies.items() if kept is shares.Kept.DAMAGED),
                transfers=len(self._active),
                pending_receipts=await asyncio.wrap_future(self._receipts.pending_count(self._now_s())),
            )
            await stream.send(encode(report))

    def _check_meta(self, connection: Connection) -> None:
        if connection.remote.address not in set(self._authority.active_meta_nodes()):
            raise wire_errors.Refused(transfers.NOT_ALLOWED, "expected an active meta node at the other end of this connection")

    # --- the machine --------------------------------------------------------------------------------------------------------

    def _now_s(self) -> int:
        return int(self._clock())

    async def _in_pool(self, work: Callable[..., T], *arguments: Any, undo: Callable[[T], None] | None = None) -> T:
        """Run something that blocks. Cancelled, it waits for the end of what runs, since files may not be closed under it.

        ``undo`` gets a result that the caller does not, since it was cancelled: what was opened is closed.
        """
        running = self._pool.submit(work, *arguments)
        future = asyncio.wrap_future(running)

        def give_back(done: asyncio.Future[T]) -> None:
            if undo is not None and not done.cancelled() and done.exception() is None:
                undo(done.result())

        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            # The pool's own future: asyncio's would say that it is cancelled while the work goes on in its thread.
            if not running.cancel():
                # Called at its end even if this waiting is cancelled, too.
                future.add_done_callback(give_back)
                await asyncio.wait({future})
            raise

    @contextlib.contextmanager
    def _blaming_the_disk(self, transfer: _Transfer) -> Iterator[None]:
        """What the store cannot do is not the session's fault; what it refuses is. A share that is gone may have been deleted by who owes a receipt for it."""
        try:
            yield
        except shares.StoreError as error:
            transfer.is_blameless = not isinstance(error, (shares.ShareRefused, shares.ShareNotFound))
            raise


_CODES: Final[tuple[tuple[type[Exception], int], ...]] = (
    (WrongReceipt, transfers.RECEIPT_REFUSED),
    (Refused, transfers.LIMIT_REFUSED),
    (AlreadyUsed, transfers.LIMIT_USED),
    (shares.ShareRefused, transfers.SHARE_REFUSED),
    (shares.ShareNotFound, transfers.SHARE_MISSING),
    (shares.ShareDamaged, transfers.SHARE_DAMAGED),
    (shares.ShareExists, transfers.SHARE_EXISTS),
)


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Have errors come out as the peer shall read them. What names a folder of this machine goes into the log alone."""
    try:
        yield
    except wire_errors.WireError:
        raise
    except shares.StoreBusy:
        raise wire_errors.Busy("as many shares are being written here as are allowed: try again in a moment, or another node") from None
    except shares.StoreFull as error:
        log.warning("a share finds no room", why=str(error))
        raise wire_errors.Refused(transfers.STORE_FULL, "this node has no room for the share: ask another one") from None
    except tuple(kind for kind, _ in _CODES) as error:
        raise wire_errors.Refused(next(code for kind, code in _CODES if isinstance(error, kind)), str(error)) from None
    except (shares.StoreError, ReceiptsError) as error:
        log.error("the disk of this node fails", why=str(error))
        raise wire_errors.InternalFailure("the disk of this node fails: ask another one") from None


def hands_in(method: str, head: bytes) -> bool:
    """Whether a request only hands a final receipt in: a get without runs. It moves nothing, so it may be served when no transfer is. Any bytes may come."""
    if method != transfers.GET:
        return False
    try:
        return _hands_in(transfers.GetHead.FromString(head))
    except DecodeError:
        return False


def _hands_in(head: Any) -> bool:
    receipt = decoded(Receipt, head.evidence.receipt.body)
    return receipt is not None and receipt.is_final and not head.runs


def _covers_nothing(head: Any) -> bool:
    receipt = decoded(Receipt, head.evidence.receipt.body)
    return receipt is not None and not receipt.bytes_acked


def _written(writer: shares.Writer, chunks: list[memoryview]) -> None:
    for chunk in chunks:
        writer.write(chunk)


def _pieces(runs: list[Run]) -> Iterator[Run]:
    """The same leaves in runs of at most a receipt's bytes."""
    for run in runs:
        for first in range(run.first, run.first + run.leaves, PIECE_LEAVES):
            yield Run(first, min(PIECE_LEAVES, run.first + run.leaves - first))


def _left_over(moved: Moved, ahead_bytes: int) -> Moved:
    """What a serial moved whose earlier stream had lost bytes, too: so many are ahead in all, and receipts are judged by the last stream."""
    moved.bytes = moved.acked_bytes + ahead_bytes
    return moved


def _grant_expires_s(evidence: Any, limit: Any) -> int:
    if evidence.WhichOneof("authority") == "grant":
        return int(SessionGrant.FromString(evidence.grant.body).expires_s)
    return int(limit.expires_s)
