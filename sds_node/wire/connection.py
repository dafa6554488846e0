"""A connection: TLS over a link (a TCP socket, or a stream through a relay), frames over TLS, streams over frames.

    HANDSHAKE ──TLS done──► HELLO ──peer's HELLO──► OPEN ──DRAIN──► OPEN, no new streams ──CLOSE──► CLOSED
        └───────────────────────┴── CLOSE, loss, violation, time ──────────────────────────────────────┘

    link.arrived ─► TLS ─► _next_frame ─► _take ─► streams            streams ─► wake ─► _pump ─► TLS ─► link.write

Nothing here blocks or waits: bytes come in by ``arrived`` and go out by ``_pump``, one turn of the event loop at a time.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

import structlog

from sds_node.p2p import address_of
from sds_node.wire.errors import (
    OK,
    Busy,
    CallCancelled,
    ConnectionFailed,
    Draining,
    HandshakeFailed,
    InternalFailure,
    Lost,
    NoCommonVersion,
    ProtocolViolation,
    TimedOut,
    TooMuch,
    TooSlow,
    UnknownMethod,
    WireError,
    WrongChain,
    WrongPeer,
    answer_of,
    error_of,
)
from sds_node.wire.frames import (
    END,
    HEADER,
    MAX_STREAM,
    Hello,
    Kind,
    check_header,
    decode_hello,
    decode_open,
    decode_status,
    encode_hello,
    encode_open,
    encode_status,
    frame,
)
from sds_node.wire.identity import proven_key
from sds_node.wire.limits import Bucket, Budget, byte_bucket
from sds_node.wire.stream import Stream, added, exchange

if TYPE_CHECKING:
    from sds_node.wire.node import Account, Node

log = structlog.get_logger("wire")

# A frame of ours: large enough to be cheap, small enough that another stream's turn comes soon. Peers may send up to 1 MiB.
PIECE_BYTES: Final = 256 << 10
TURN_BYTES: Final = 1 << 20
DIRECT_BYTES: Final = 8 << 10
SMALL_FRAME_BYTES: Final = 1 << 10
STAGE_BYTES: Final = 16 << 10
FLOOR_BYTES: Final = 256 << 10
TAKEN_BYTES: Final = 64 << 10
PING_BYTES: Final = bytes(8)

Handler: TypeAlias = Callable[[Stream, "Connection"], Awaitable[None]]


class Link(Protocol):
    """What carries a connection's bytes. It calls ``started``, ``arrived``, ``writable`` and ``ended`` of the connection."""

    host: str
    full: bool  # it takes no more for now

    def write(self, data: bytes) -> None: ...
    def hold(self) -> None: ...  # stop reading
    def resume(self) -> None: ...
    def close(self) -> None: ...  # when everything written is out
    def abort(self) -> None: ...


class Phase(IntEnum):
    HANDSHAKE = 0
    HELLO = 1
    OPEN = 2
    CLOSED = 3


@dataclass(frozen=True, slots=True)
class Remote:
    """Who is at the other end. ``address`` (20 bytes) is proved by the handshake; the rest is what the peer says of itself."""

    address: bytes
    public_key: bytes
    host: str
    hello: Hello
    version: int
    relayed_by: bytes | None  # the relay's address, if it came through one


class Connection:
    """One authenticated connection. ``remote`` is set once ``opened`` is done. ``dialed`` is true at the side that called."""

    def __init__(self, node: Node, link: Link, *, dialed: bool, expect: bytes | None = None, relayed_by: bytes | None = None) -> None:
        self._node, self._limits, self._link = node, node.limits, link
        self.dialed, self._expect, self.relayed_by = dialed, expect, relayed_by
        self._loop = asyncio.get_running_loop()
        self.phase = Phase.HANDSHAKE
        self.error: WireError | None = None
        self.opened: asyncio.Future[None] = self._loop.create_future()
        self.closed = asyncio.Event()
        self.retired = asyncio.Event()  # the peer takes no new calls here: it drains, or the connection is over
        self._remote: Remote | None = None
        self._account: Account | None = None
        self._key = b""
        # TLS
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = node.dialing if dialed else node.accepting
        self._tls: Any = context.wrap_bio(self._incoming, self._outgoing, server_side=not dialed)
        # Frames in: plaintext not yet parsed, and the payload that is being filled.
        self._stage = bytearray(STAGE_BYTES)
        self._at = self._staged = self._filled = 0
        self._head = (0, 0, 0)
        self._payload: bytearray | memoryview | None = None  # a view: a reader's own memory (Stream.room)
        self._window = self._limits.connection_window_bytes
        self._unreported = 0
        self.unread_bytes = 0
        self._holds: set[str] = set()
        # Frames out
        self._control: deque[bytes] = deque()
        self._ready: deque[Stream] = deque()
        self._starved: dict[int, Stream] = {}  # wait for the connection's window
        self._credit = 0
        self._sent_bytes = self._taken_bytes = self._believed_bytes = 0  # of data; as the peer says, and when that counted last
        self._kicked = False
        self._retry: asyncio.TimerHandle | None = None
        # Streams
        self._streams: dict[int, Stream] = {}
        self._finished: dict[int, Stream] = {}  # over, with data that is unread
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._next, self._last_theirs = (1 if dialed else 2), 0
        self._ours = self._theirs = 0
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._draining = self._peer_draining = False
        self.quiet = asyncio.Event()
        self.quiet.set()
        # Clocks
        now = self.now()
        self._frame_at = self._used_at = self._swept_at = self._opened_at = now
        self._full_since: float | None = None
        self._pinged = False
        self._sweeper: asyncio.TimerHandle | None = None
        self._deadline: asyncio.TimerHandle | None = None
        rates, inner = node.rates, relayed_by is not None
        # What goes through a relay's stream is counted there once already.
        self._up: tuple[Bucket, ...] = () if inner else (byte_bucket(rates.connection_up_bytes_per_s, now), node.up)
        self._down: tuple[Bucket, ...] = () if inner else (byte_bucket(rates.connection_down_bytes_per_s, now), node.down)
        slowest = min((rate for rate in (rates.up_bytes_per_s, rates.connection_up_bytes_per_s) if rate), default=0.0)
        self._piece = max(SMALL_FRAME_BYTES, min(PIECE_BYTES, int(slowest / 4))) if slowest else PIECE_BYTES

    # ---- for callers

    @property
    def remote(self) -> Remote:
        """Who the peer is. Raises Lost while the connection is not open yet."""
        if self._remote is None:
            raise Lost("the connection is not open yet: nobody has said who he is")
        return self._remote

    @property
    def usable(self) -> bool:
        """A call may begin here."""
        return self.phase is Phase.OPEN and not self._draining and not self._peer_draining and self._next <= MAX_STREAM

    @property
    def calls(self) -> int:
        """Calls of ours that are open or wait for a free stream."""
        return self._ours + len(self._waiters)

    @property
    def unused_since_s(self) -> float | None:
        """Since when, by the event loop's time, no stream is open here; None while one is."""
        return None if self._streams or self._tasks or self._waiters else self._used_at

    async def call(self, method: str, head: bytes = b"", *, ended: bool = False, idle_s: float | None = None) -> Stream:
        """Opens a stream; waits while the peer has as many of ours as it takes. ``ended``: no data will follow the head.

        Raises ValueError for a method or head out of bounds, Busy when too many calls wait, TimedOut, Draining, or the connection's error.
        """
        payload = encode_open(method, head)
        self._require_usable()
        if self._ours >= self.remote.hello.streams:
            await self._free_stream()
        number = self._next
        self._next += 2
        hello = self.remote.hello
        stream = Stream(
            self, number, method, head, ours=True, credit=hello.stream_window_bytes, window=self._limits.stream_window_bytes,
            idle_s=self._limits.idle_s if idle_s is None else idle_s,
        )  # fmt: skip
        stream.end_wanted = stream.end_sent = ended
        self._streams[number] = stream
        self._ours += 1
        self.quiet.clear()
        self._control.append(frame(Kind.OPEN, number, payload, END if ended else 0))
        self._kick()
        return stream

    async def ask(self, method: str, head: bytes = b"", body: bytes = b"", *, most_bytes: int = 1 << 20, idle_s: float | None = None) -> bytes:
        """A whole request and its whole answer, of at most ``most_bytes``. Raises what ``call`` raises and what the callee ended with."""
        return await exchange(await self.call(method, head, ended=not body, idle_s=idle_s), body, most_bytes)

    async def drain(self, timeout_s: float) -> None:
        """Takes no new streams, lets those that are open end, closes. What is open after ``timeout_s`` is cut off."""
        if self.phase is Phase.OPEN and not self._draining:
            self._draining = True
            self._queue(frame(Kind.DRAIN, 0, self._last_theirs.to_bytes(4, "big")))
            self._fail_waiters()
        if self.phase is Phase.OPEN:
            try:
                async with asyncio.timeout(timeout_s):
                    await self.quiet.wait()
            except TimeoutError:
                log.info("drain cut off", streams=len(self._streams) + len(self._tasks), timeout_s=timeout_s)
        self.close()

    def close(self, text: str = "") -> None:
        """Ends the connection and everything on it; the peer is told."""
        self._end(Lost("the connection was closed here"), OK, text)

    async def wait_closed(self) -> None:
        """Waits for the end of the connection and of the handlers that ran on it."""
        await self.closed.wait()
        while self._tasks:
            await asyncio.wait(list(self._tasks.values()))

    def _require_usable(self) -> None:
        if self.error is not None:
            raise error_of(self.error.code, self.error.text)
        if self.phase is not Phase.OPEN:
            raise Lost("the connection is not open yet")
        if not self.usable:
            raise Draining("the connection takes no new requests: use another one")

    async def _free_stream(self) -> None:
        if len(self._waiters) >= self._limits.waiting_calls:
            raise Busy(f"{len(self._waiters)} calls wait for a free stream to this peer")
        try:
            async with asyncio.timeout(self._limits.idle_s):
                while self._ours >= self.remote.hello.streams:
                    waiter: asyncio.Future[None] = self._loop.create_future()
                    self._waiters.append(waiter)
                    try:
                        await waiter
                    except asyncio.CancelledError:
                        if waiter.done() and not waiter.cancelled():
                            self._wake_waiter()  # the place it was woken for is another's
                        raise
                    finally:
                        if waiter in self._waiters:
                            self._waiters.remove(waiter)
                    self._require_usable()
        except TimeoutError:
            raise TimedOut(f"no stream to this peer became free in {self._limits.idle_s:g} s") from None

    def _wake_waiter(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def _fail_waiters(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)  # it looks again, and finds why

    # ---- for streams (stream.Carrier)

    def now(self) -> float:
        return self._loop.time()

    def wake(self, stream: Stream) -> None:
        """The stream may have something to send."""
        if not stream.queued and stream.sendable and self._streams.get(stream.number) is stream:
            stream.queued = True
            self._ready.append(stream)
            self._kick()

    def consumed(self, stream: Stream, size_bytes: int) -> None:
        """Somebody read: the windows open again."""
        if self.phase is Phase.CLOSED:
            return
        if stream.number in self._streams:
            stream.unreported += size_bytes
            if stream.unreported >= self._limits.stream_window_bytes // 4:
                self._open_window(stream)
        elif not stream.in_bytes:
            self._finished.pop(stream.number, None)
        self._release_bytes(size_bytes)

    def _open_window(self, stream: Stream) -> None:
        if stream.unreported and not stream.in_ended:
            stream.window += stream.unreported
            self._queue(frame(Kind.WINDOW, stream.number, stream.unreported.to_bytes(4, "big")))
            stream.unreported = 0

    def reset(self, stream: Stream, error: WireError) -> None:
        """Ends a stream from here."""
        known = self._streams.get(stream.number) is stream
        self._drop(stream, error)
        if known and self.phase is Phase.OPEN:
            self._queue(frame(Kind.RESET, stream.number, encode_status(error.code, error.text)))
        task = self._tasks.get(stream.number)
        if not stream.ours and task is not None and task is not asyncio.current_task(self._loop):
            task.cancel()

    def displaced(self, stream: Stream) -> None:
        """The memory that a stream's reader gave is the reader's again: the rest of a frame that is on its way goes elsewhere."""
        if isinstance(self._payload, memoryview) and self._head[0] == stream.number:
            self._payload = bytearray(self._payload)

    # ---- for the link

    def started(self) -> None:
        """The link is there."""
        self._deadline = self._loop.call_later(self._limits.handshake_s, self._late)
        self._sweeper = self._loop.call_later(self._limits.sweep_s, self._sweep)
        if self.dialed:
            self._read()

    def arrived(self, data: memoryview) -> None:
        """Bytes came over the link. They are copied; at most a link's buffer at a time, so a turn is short."""
        if self.phase is Phase.CLOSED:
            return
        self._incoming.write(data)
        now = self.now()
        wait_s = max((bucket.take(len(data), now) for bucket in self._down), default=0.0)
        self._read()
        if wait_s > 0:
            self._hold_for(wait_s)

    def writable(self) -> None:
        """The link takes bytes again."""
        self._full_since = None
        self._kick()

    def ended(self, why: str) -> None:
        """The link is gone."""
        error: ConnectionFailed = Lost(f"the connection ended: {why}")
        if self.phase < Phase.OPEN:
            error = HandshakeFailed(f"the connection ended before the peer had said who it is: {why}")
        self._end(error, None)

    # ---- reading

    def _read(self) -> None:
        try:
            if self.phase is Phase.HANDSHAKE and not self._shake():
                return
            while not self._holds and self.phase is not Phase.CLOSED and self._next_frame():
                pass
        except WireError as error:
            self._end(error, error.code, error.text)
        except Exception:
            log.exception("fault in a connection")
            self._end(Lost("a fault of ours ended the connection"), InternalFailure.code, "a fault here; the log has it")

    def _shake(self) -> bool:
        """One step of TLS's handshake; True when it is done and our HELLO is out."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return False
        except ssl.SSLError as error:
            self._flush()  # the alert
            raise HandshakeFailed(f"no TLS handshake with {self._link.host}: {error.reason or error}") from None
        self._flush()
        self.phase = Phase.HELLO
        key = proven_key(self._tls)
        if self._expect is not None and address_of(key) != self._expect:
            raise WrongPeer(f"expected the node {self._expect.hex()} at {self._link.host}, got {address_of(key).hex()}")
        self._account = self._node.admit(self, address_of(key))
        self._key = key
        self._control.append(frame(Kind.HELLO, 0, encode_hello(self._node.hello)))
        self._kick()
        return True

    def _plain(self, view: memoryview) -> int:
        """Decrypts into ``view``, one record at most; 0 when there is none yet."""
        try:
            return int(self._tls.read(len(view), view))
        except ssl.SSLWantReadError:
            return 0
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            raise Lost("the peer ended TLS") from None
        except ssl.SSLError as error:
            cls = ProtocolViolation if self.phase is Phase.OPEN else HandshakeFailed
            raise cls(f"no TLS record of the peer's: {error.reason or error}") from None

    def _next_frame(self) -> bool:
        """Takes one frame, if it is complete."""
        if self._payload is None:
            while self._staged - self._at < HEADER.size:
                if self._at:
                    rest = bytes(self._stage[self._at : self._staged])
                    self._stage[: len(rest)] = rest
                    self._at, self._staged = 0, len(rest)
                size = self._plain(memoryview(self._stage)[self._staged :])
                if not size:
                    return False
                self._staged += size
            number, kind, flags, length = HEADER.unpack_from(self._stage, self._at)
            self._at += HEADER.size
            check_header(number, kind, flags, length)
            self._expect_frame(number, kind, length)
            if self._staged - self._at >= length:
                payload = bytes(memoryview(self._stage)[self._at : self._at + length])
                self._at += length
                self._take(number, kind, flags, payload)
                return True
            stream = self._streams.get(number) if kind == Kind.DATA else None
            placed = stream.room(length) if stream is not None else None
            self._head, self._payload = (number, kind, flags), bytearray(length) if placed is None else placed
            self._filled = self._staged - self._at
            self._payload[: self._filled] = self._stage[self._at : self._staged]
            self._at = self._staged = 0
        with memoryview(self._payload) as view:
            while self._filled < len(view):
                size = self._plain(view[self._filled :])
                if not size:
                    return False
                self._filled += size
        whole, self._payload = self._payload, None
        self._take(*self._head, whole)
        return True

    def _expect_frame(self, number: int, kind: int, length: int) -> None:
        """Raises ProtocolViolation for a frame that cannot come now. Looks at the header alone: before memory is given to the payload."""
        if kind == Kind.CLOSE:
            return
        if (self.phase is Phase.HELLO) != (kind == Kind.HELLO):
            raise ProtocolViolation(f"expected HELLO first and once, got {Kind(kind).name} in phase {self.phase.name}")
        if number and kind != Kind.OPEN:
            mine = (number & 1) == self.dialed
            if number > (self._next - 2 if mine else self._last_theirs):
                raise ProtocolViolation(f"{Kind(kind).name} on stream {number}, which was never opened")
            if kind == Kind.STATUS and not mine:
                raise ProtocolViolation(f"STATUS on stream {number}, whose caller is the sender")
        if kind == Kind.DATA:
            stream = self._streams.get(number)
            if stream is not None and stream.in_ended:
                raise ProtocolViolation(f"DATA on stream {number} after its end")
            if stream is not None and length > stream.window:
                raise ProtocolViolation(f"{length} bytes on stream {number} overrun its window of {stream.window}")
            if length > self._window:
                raise ProtocolViolation(f"{length} bytes overrun the connection's window of {self._window}")

    def _take(self, number: int, kind: int, flags: int, payload: bytes | bytearray | memoryview) -> None:
        """One complete frame."""
        now = self.now()
        self._frame_at, self._pinged = now, False
        stream = self._streams.get(number) if number else None
        if self._account is not None and kind != Kind.HELLO and (kind != Kind.DATA or len(payload) < SMALL_FRAME_BYTES or stream is None):
            bucket = self._account.opens if kind == Kind.OPEN else self._account.small_frames
            wait_s = bucket.take(1, now)
            if wait_s > 0:
                self._hold_for(wait_s)
        if kind == Kind.DATA:
            self._take_data(stream, flags, payload)
        elif kind == Kind.WINDOW:
            self._take_window(number, stream, int.from_bytes(payload, "big"))
        elif kind == Kind.OPEN:
            self._take_open(number, flags, bytes(payload))
        elif kind == Kind.STATUS:
            if stream is not None:
                stream.take_status(*decode_status(bytes(payload)))
                self._forget(stream)
        elif kind == Kind.RESET:
            self._take_reset(stream, *decode_status(bytes(payload)))
        elif kind == Kind.PING:
            self._queue(frame(Kind.PONG, 0, bytes(payload)))
        elif kind == Kind.HELLO:
            self._take_hello(bytes(payload))
        elif kind == Kind.DRAIN:
            self._take_drain(int.from_bytes(payload, "big"))
        elif kind == Kind.CLOSE:
            self._take_close(*decode_status(bytes(payload)))

    def _take_hello(self, payload: bytes) -> None:
        hello, own = decode_hello(payload), self._node.hello
        if hello.chain_id != own.chain_id:
            raise WrongChain(f"the chains differ: {own.chain_id} at one end, {hello.chain_id} at the other")
        version = min(hello.highest, own.highest)
        if version < max(hello.lowest, own.lowest):
            raise NoCommonVersion(
                f"no version of the wire protocol is common: {own.lowest} to {own.highest} at one end, {hello.lowest} to {hello.highest} at the other"
            )
        self._remote = Remote(address_of(self._key), self._key, self._link.host, hello, version, self.relayed_by)
        self._credit = hello.connection_window_bytes
        self.phase = Phase.OPEN
        self._used_at = self.now()
        if self._deadline is not None:
            self._deadline.cancel()
        self._node.joined(self)
        if not self.opened.done():
            self.opened.set_result(None)

    def _take_data(self, stream: Stream | None, flags: int, payload: bytes | bytearray | memoryview) -> None:
        size = len(payload)
        self._window -= size
        if stream is None:
            self._report(size)  # for a stream that ended here while this was on its way
            return
        if size:
            stream.take_data(payload)
            self.unread_bytes += size
            for budget in self._budgets():
                budget.take(size)
            if self._too_full():
                self._wait_for_room()
        if flags & END:
            stream.take_end()

    def _take_window(self, number: int, stream: Stream | None, size_bytes: int) -> None:
        if not number:
            self._credit = added(self._credit, size_bytes)
            starved, self._starved = self._starved, {}
            for waiting in starved.values():
                self.wake(waiting)
        elif stream is not None:
            stream.take_window(size_bytes)
            self._taken_bytes += size_bytes
            # Bytes that it has read left here: on a slow line long before the socket has room. What it only says is soon more than was sent.
            if self._full_since is not None and self._believed_bytes + TAKEN_BYTES <= self._taken_bytes <= self._sent_bytes:
                self._full_since, self._believed_bytes = self.now(), self._taken_bytes
            self.wake(stream)
        elif not size_bytes:
            raise ProtocolViolation(f"a window of stream {number} is opened by nothing")

    def _take_open(self, number: int, flags: int, payload: bytes) -> None:
        if (number & 1) == self.dialed or number <= self._last_theirs:
            raise ProtocolViolation(f"stream {number} cannot be opened by the peer: expected one above {self._last_theirs} and of the peer's parity")
        self._last_theirs = number
        method, head = decode_open(payload)
        refusal: WireError | None = None
        handler = self._node.handlers.get(method)
        account = self._account
        if self._draining:
            refusal = Draining("this node takes no new requests")
        elif self._theirs >= self._limits.streams_per_connection or (account and account.streams >= self._limits.streams_per_peer):
            refusal = Busy(f"{self._theirs} requests of this peer are open on this connection: end some first")
        elif len(head) > self._limits.head_bytes:
            refusal = TooMuch(f"a request's head has at most {self._limits.head_bytes} bytes here, got {len(head)}")
        elif handler is None:
            refusal = UnknownMethod(f"no method {method!r} here")
        if refusal is not None or handler is None or account is None:
            refusal = refusal or UnknownMethod(f"no method {method!r} here")
            self._queue(frame(Kind.STATUS, number, encode_status(refusal.code, refusal.text)))
            return
        credit = self.remote.hello.stream_window_bytes
        window, idle_s = self._limits.stream_window_bytes, self._limits.idle_s
        stream = Stream(self, number, method, head, ours=False, credit=credit, window=window, idle_s=idle_s)
        stream.in_ended = bool(flags & END)
        self._streams[number] = stream
        self._theirs += 1
        account.streams += 1
        self.quiet.clear()
        task = self._loop.create_task(self._serve(stream, handler))
        self._tasks[number] = task
        task.add_done_callback(lambda done: self._served(stream, done))

    def _take_reset(self, stream: Stream | None, code: int, text: str) -> None:
        if stream is None:
            return
        self._drop(stream, error_of(code, text) if code != OK else CallCancelled(text))
        task = self._tasks.get(stream.number)
        if not stream.ours and task is not None:
            task.cancel()

    def _take_drain(self, last: int) -> None:
        self._peer_draining = True
        self.retired.set()
        # What it has not begun with may be repeated elsewhere; the rest goes on.
        for stream in [stream for stream in self._streams.values() if stream.ours and stream.number > last]:
            self._drop(stream, Draining("the peer goes away and did not begin with this request"))
        self._fail_waiters()

    def _take_close(self, code: int, text: str) -> None:
        self._end(Lost(f"the peer closed the connection{': ' + text if text else ''}") if code == OK else error_of(code, text), None)

    # ---- serving

    async def _serve(self, stream: Stream, handler: Handler) -> None:
        code, text = OK, ""
        try:
            await handler(stream, self)
        except WireError as error:
            code, text = answer_of(error)
        except asyncio.CancelledError:
            code, text = CallCancelled.code, "the handler was cancelled"
        except Exception:
            log.exception("fault in a handler", method=stream.method)
            code, text = InternalFailure.code, f"the handler of {stream.method!r} has a fault; the log of the node has it"
        if self._streams.get(stream.number) is stream:
            stream.final = code, text
            stream.end_wanted = False
            self.wake(stream)

    def _served(self, stream: Stream, task: asyncio.Task[None]) -> None:
        self._tasks.pop(stream.number, None)
        stream.served = True
        if task.cancelled() and self._streams.get(stream.number) is stream:
            # Cancelled before its first step.
            stream.final = CallCancelled.code, "the handler was cancelled"
            self.wake(stream)
        self._settle(stream)

    def _settle(self, stream: Stream) -> None:
        """A stream of the peer's stops counting when its handler and its last frame are done."""
        if not stream.ours and stream.served and stream.gone:
            self._theirs -= 1
            if self._account is not None:
                self._account.streams -= 1
                self._node.tidy(address_of(self._key))
        self._look_quiet()

    def _forget(self, stream: Stream) -> None:
        """A stream leaves the table: its last frame came or went."""
        if self._streams.pop(stream.number, None) is None:
            return
        self.displaced(stream)
        self._starved.pop(stream.number, None)
        stream.gone = True
        self._used_at = self.now()
        if stream.ours:
            self._ours -= 1
            if stream.in_bytes:
                self._finished[stream.number] = stream
            self._wake_waiter()
        else:
            unread = stream.fail(CallCancelled("the request was answered"))
            if unread:
                self._release_bytes(unread)
        self._settle(stream)

    def _drop(self, stream: Stream, error: WireError) -> None:
        dropped = stream.fail(error)
        self._finished.pop(stream.number, None)
        if dropped and self.phase is not Phase.CLOSED:
            self._release_bytes(dropped)
        self._forget(stream)

    def _look_quiet(self) -> None:
        if not self._streams and not self._tasks:
            self.quiet.set()

    # ---- windows, holds, clocks

    def _budgets(self) -> tuple[Budget, ...]:
        return (self._node.budget,) if self._account is None else (self._account.budget, self._node.budget)

    def _release_bytes(self, size_bytes: int) -> None:
        self.unread_bytes -= size_bytes
        for budget in self._budgets():
            budget.give(size_bytes)
        if "budget" in self._holds and not self._too_full():
            self._unfull()
        self._report(size_bytes)

    def _report(self, size_bytes: int) -> None:
        """Opens the connection's window again, not for every frame."""
        self._unreported += size_bytes
        if self._unreported >= self._limits.connection_window_bytes // 8 and self.phase is Phase.OPEN:
            self._window += self._unreported
            self._queue(frame(Kind.WINDOW, 0, self._unreported.to_bytes(4, "big")))
            self._unreported = 0

    def _too_full(self) -> bool:
        """The peer holds too much unread data here; or the node does, and this peer more than a little: who sends small requests is not stopped by others."""
        if self._account is None:
            return False
        own = self._account.budget
        return own.full or (self._node.budget.full and own.used_bytes > FLOOR_BYTES)

    def _wait_for_room(self) -> None:
        for budget in self._budgets():
            if budget.full:
                budget.when_free(self._unfull)
        self._hold("budget")

    def _hold(self, reason: str) -> None:
        if not self._holds:
            self._link.hold()
        self._holds.add(reason)

    def _hold_for(self, wait_s: float) -> None:
        if "rate" not in self._holds and self.phase is not Phase.CLOSED:
            self._hold("rate")
            self._loop.call_later(wait_s, self._release, "rate")

    def _unfull(self) -> None:
        # Not at once: who made room is in the middle of reading.
        self._loop.call_soon(self._release, "budget")

    def _release(self, reason: str) -> None:
        if reason == "budget" and self.phase is not Phase.CLOSED and self._too_full():
            self._wait_for_room()
            return
        self._holds.discard(reason)
        if not self._holds and self.phase is not Phase.CLOSED:
            self._frame_at = self.now()
            self._link.resume()
            self._read()

    def _late(self) -> None:
        self._end(HandshakeFailed(f"the peer had not said who it is after {self._limits.handshake_s:g} s"), TooSlow.code, "too slow to say hello")

    def _sweep(self) -> None:
        """Looks at the clocks."""
        now, limits = self.now(), self._limits
        self._sweeper = self._loop.call_later(limits.sweep_s, self._sweep)
        late_s, self._swept_at = now - self._swept_at - limits.sweep_s, now
        if late_s > limits.sweep_s:
            self._excuse(late_s)
        if self._holds:
            self._frame_at = now  # we do not read: its silence is ours
        if self._full_since is not None and now - self._full_since > limits.stall_s:
            self._end(TooSlow(f"the peer took next to nothing for {limits.stall_s:g} s"), None)
            return
        if self.phase is not Phase.OPEN:
            return
        silent_s = now - self._frame_at
        if silent_s > limits.dead_s:
            self._end(TooSlow(f"no complete frame came for {limits.dead_s:g} s"), None)
            return
        if now - self._opened_at > limits.keepalive_s / 2:
            # On a slow line a window is long in coming, and a PING waits behind the data: the sender is told that its bytes arrive.
            self._opened_at = now
            for stream in self._streams.values():
                self._open_window(stream)
        if silent_s > limits.keepalive_s and not self._pinged:
            self._pinged = True
            self._queue(frame(Kind.PING, 0, PING_BYTES))
        for stream in [*self._streams.values(), *self._finished.values()]:
            why = stream.idle(now)
            if why is not None:
                self.reset(stream, why)
        if self._streams or self._tasks or self._waiters:
            self._used_at = now
        elif now - self._used_at > limits.unused_s and not self._node.keeps(self):
            # As a drain: a call that crosses it is told that it was not begun with, and is made elsewhere.
            self._node.run(self.drain(limits.dead_s))

    def _excuse(self, late_s: float) -> None:
        """This process stood still (a busy machine, a closed lid): for so long the silence was ours, not the peer's."""
        self._frame_at += late_s
        if self._full_since is not None:
            self._full_since += late_s
        for stream in [*self._streams.values(), *self._finished.values()]:
            stream.moved_at += late_s

    # ---- writing

    def _queue(self, data: bytes) -> None:
        """A control frame. Who makes us queue too many and does not take them is cut off."""
        if self.phase is Phase.CLOSED:
            return
        self._control.append(data)
        if len(self._control) > self._limits.queued_frames + self._ours:
            # Not in the middle of reading: the caller may be looking at a stream.
            self._loop.call_soon(self._end, TooSlow(f"{len(self._control)} frames wait for a peer that takes none"), None)
        self._kick()

    def _kick(self) -> None:
        """Sends at the end of this turn of the loop: what several streams have to say goes out in one record."""
        if not self._kicked and self.phase is not Phase.CLOSED:
            self._kicked = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        self._kicked = False
        if self.phase is Phase.CLOSED or self.phase is Phase.HANDSHAKE:
            return
        if self._blocked():
            return
        try:
            self._send_some()
        except Exception:
            # A frame may be half out: what followed it would be read as something else, so nothing does.
            log.exception("fault in a connection")
            self._end(Lost("a fault of ours ended the connection"), None)

    def _send_some(self) -> None:
        """What may go out in one turn."""
        stage = bytearray()
        left = TURN_BYTES
        while self._control and left > 0:
            data = self._control.popleft()
            stage += data
            left -= len(data)
        now = self.now()
        while self._ready and left > 0 and not self._blocked():
            wait_s = max((bucket.wait_s(now) for bucket in self._up), default=0.0)
            if wait_s > 0:
                self._pump_later(wait_s)
                break
            left -= self._send_one(self._ready.popleft(), stage, now)
        if stage:
            self._write(stage)
        self._flush()
        if not self._blocked() and ((self._ready and self._retry is None) or self._control):
            self._kick()

    def _blocked(self) -> bool:
        """The link takes nothing for now; since when is kept for ``stall_s``."""
        if self._link.full and self._full_since is None:
            self._full_since = self.now()
        return self._link.full

    def _pump_later(self, wait_s: float) -> None:
        if self._retry is None:
            self._retry = self._loop.call_later(wait_s, self._pump_again)

    def _pump_again(self) -> None:
        self._retry = None
        self._kick()

    def _send_one(self, stream: Stream, stage: bytearray, now: float) -> int:
        """One frame of one stream, in its turn; returns the bytes sent."""
        stream.queued = False
        if self._streams.get(stream.number) is not stream or not stream.sendable:
            return 0
        if stream.out_bytes or (stream.end_wanted and not stream.end_sent and stream.final is None):
            if stream.out_bytes and self._credit <= 0:
                self._starved[stream.number] = stream
                return 0
            piece, flags = stream.next_piece(min(self._piece, self._credit, stream.credit) if stream.out_bytes else 0)
            size = len(piece)
            self._credit -= size
            self._sent_bytes += size
            stage += HEADER.pack(stream.number, Kind.DATA, flags, size)
            if size < DIRECT_BYTES:
                stage += piece
            else:
                # The header ends one record and the data begins the next, so that the reader decrypts it into its place.
                self._write(stage)
                stage.clear()
                self._write(piece)
                self._flush()
            stream.was_sent()
        elif stream.final is not None:
            size = 0
            stage += frame(Kind.STATUS, stream.number, encode_status(*stream.final))
            self._forget(stream)
        else:
            return 0
        for bucket in self._up:
            bucket.take(size + HEADER.size, now)
        self.wake(stream)
        return size + HEADER.size

    def _write(self, data: bytearray | memoryview) -> None:
        """Encrypts. Its views end with it, whoever holds its frame (a profiler, a debugger): the caller empties ``data`` afterwards."""
        at = 0
        with memoryview(data) as view:
            while at < len(view):
                with view[at:] as rest:
                    at += self._tls.write(rest)

    def _flush(self) -> None:
        """Gives the link what TLS has made."""
        if self._outgoing.pending:
            self._link.write(self._outgoing.read())

    # ---- the end

    def _end(self, error: WireError, tell: int | None, text: str = "") -> None:
        """The connection is over. ``tell``: the code for the peer, None if it cannot or need not be told."""
        if self.phase is Phase.CLOSED:
            return
        was, self.phase, self.error = self.phase, Phase.CLOSED, error
        told = tell is not None and was is not Phase.HANDSHAKE
        if tell is not None and told:
            try:
                # What is queued goes first: statuses of requests that are done.
                self._write(bytearray(b"".join(self._control) + frame(Kind.CLOSE, 0, encode_status(tell, text))))
            except ssl.SSLError:
                told = False
        self._flush()
        if told or was is Phase.HANDSHAKE:
            self._link.close()
            self._loop.call_later(self._limits.flush_s, self._link.abort)
        else:
            self._link.abort()
        self._control.clear()
        self._ready.clear()
        self._starved.clear()
        for timer in (self._sweeper, self._deadline, self._retry):
            if timer is not None:
                timer.cancel()
        for budget in self._budgets():
            budget.forget(self._unfull)
            budget.give(self.unread_bytes)
        self.unread_bytes = 0
        # Streams that are over keep what they hold for their readers; the others fail.
        self._finished.clear()
        for stream in list(self._streams.values()):
            self._drop(stream, error)
        for task in self._tasks.values():
            if task is not asyncio.current_task(self._loop):
                task.cancel()
        self._fail_waiters()
        if not self.opened.done():
            self.opened.set_exception(error_of(error.code, error.text))
            self.opened.exception()  # somebody may have stopped waiting for it
        self._node.left(self)
        self.retired.set()
        self.closed.set()
        self._look_quiet()
