"""One request on a connection: a head, data both ways, and the callee's final status.

    caller   head ─► data … end ─►                          ◄─ data … ◄─ (end) ◄─ status
    reading opens the window:  peer may send ≤ window ─► arrives, unread ─► receive() ─► window again

The upper half of ``Stream`` is for handlers and callers, the lower half for the connection that carries it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType
from typing import Final, Protocol

from sds_node.wire.errors import OK, BadRequest, CallCancelled, ProtocolViolation, TimedOut, TooMuch, WireError, error_of
from sds_node.wire.frames import END, MAX_PAYLOAD_BYTES, MAX_WINDOW_BYTES

# A send of so few bytes does not wait for the socket, and chunks that arrive in small pieces are joined up to here.
SMALL_SEND_BYTES: Final = 64 << 10
JOINED_BYTES: Final = 16 << 10
_NOTHING: Final = memoryview(b"")


class Carrier(Protocol):
    """What a stream asks of its connection."""

    def now(self) -> float: ...
    def wake(self, stream: Stream) -> None: ...
    def consumed(self, stream: Stream, size_bytes: int) -> None: ...
    def reset(self, stream: Stream, error: WireError) -> None: ...
    def displaced(self, stream: Stream) -> None: ...


class Stream:
    """A request. ``method`` and ``head`` are the caller's; ``ours`` is true at the caller. One task may send while another receives."""

    def __init__(self, carrier: Carrier, number: int, method: str, head: bytes, *, ours: bool, credit: int, window: int, idle_s: float) -> None:
        self.number, self.method, self.head, self.ours, self.idle_s = number, method, head, ours, idle_s
        self._carrier = carrier
        self.moved_at = carrier.now()
        self.error: WireError | None = None
        # Sending: what waits, what the peer lets us send, what ends it.
        self._out: deque[memoryview] = deque()
        self._out_waiter: asyncio.Future[None] | None = None
        self._out_low = 0
        self.out_bytes, self.credit = 0, credit
        self.queued = False  # the connection has it in its round
        self.end_wanted, self.end_sent = False, False
        self.final: tuple[int, str] | None = None  # the callee's status, to be sent after the data
        # Receiving: what arrived, what we let the peer send, what ended it.
        self._in: deque[bytearray | memoryview] = deque()
        # Memory of the reader's for what comes next: how much of it has come, how much was read; a frame that is on its way into it.
        self._into = _NOTHING
        self._placed = self._taken = 0
        self._coming: memoryview | None = None
        self._in_waiter: asyncio.Future[None] | None = None
        self.in_bytes, self.window, self.unreported = 0, window, 0
        self.in_ended = False
        self.status: tuple[int, str] | None = None  # the callee's, at the caller
        # The callee's handler: its task has ended, its last frame is out.
        self.served, self.gone = False, False

    # ---- for handlers and callers

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        """Sends data; waits while the peer's window or the socket is full. ``data`` may be changed when it returns.

        Raises the stream's error; TimedOut when nothing moved for ``idle_s``. Cancelled, it cancels the stream: part of the data may be out.
        """
        self._require_sendable()
        view = memoryview(data).cast("B")
        if not view.nbytes:
            return
        self._out.append(view)
        self.out_bytes += view.nbytes
        # What is small and cannot change may wait in the queue; everything else is gone when send returns.
        self._out_low = SMALL_SEND_BYTES if isinstance(data, bytes) and view.nbytes <= SMALL_SEND_BYTES else 0
        self._carrier.wake(self)
        if self.out_bytes > self._out_low:
            self._out_waiter = asyncio.get_running_loop().create_future()
            self.moved_at = self._carrier.now()
            try:
                await self._out_waiter
            except asyncio.CancelledError:
                self.cancel("the sender was cancelled")
                raise
            finally:
                self._out_waiter = None
            if self.error is not None or self.status is not None:
                self._require_sendable()

    def end(self) -> None:
        """No more data from this side. A handler need not: its return ends its side."""
        if self.error is None and self.status is None and not self.end_wanted and self.final is None:
            self.end_wanted = True
            self._carrier.wake(self)

    async def receive(self, most_bytes: int = MAX_PAYLOAD_BYTES) -> memoryview:
        """The next data, 1 to ``most_bytes`` bytes; empty at the peer's end. Reading it opens the peer's window again.

        Raises the stream's error: the status the callee ended with, if that is none of success; TimedOut when nothing moved for ``idle_s``.
        """
        if most_bytes < 1:
            raise ValueError(f"most_bytes is at least 1, got {most_bytes}")
        while not self._unread:
            if self.error is not None:
                raise self._failure(self.error)
            if self.status is not None and self.status[0] != OK:
                raise error_of(*self.status)
            if self.in_ended:
                return _NOTHING
            await self._arrival()
        if self.error is not None:
            raise self._failure(self.error)
        if self._taken < self._placed:
            chunk = self._into[self._taken : min(self._placed, self._taken + most_bytes)]
            self._taken += chunk.nbytes
            self._read(chunk.nbytes)
            return chunk
        chunk = memoryview(self._in[0])
        if chunk.nbytes > most_bytes:
            self._in[0] = chunk[most_bytes:]
            chunk = chunk[:most_bytes]
        else:
            self._in.popleft()
        self._read(chunk.nbytes)
        return chunk

    def place(self, into: memoryview) -> None:
        """Have what comes next written into this memory as it comes: ``receive`` then returns views of it, one after the other, until it is full.

        The memory is the stream's until it was all received, ``place`` is called again (an empty one takes back what was not received) or the stream
        is over.
        """
        if self._coming is not None:
            self._carrier.displaced(self)
        unread: list[bytearray | memoryview] = [*self._in]
        if self._taken < self._placed:
            unread.insert(0, bytearray(self._into[self._taken : self._placed]))
        self._in.clear()
        self._into, self._placed, self._taken, self._coming = into, 0, 0, None
        for chunk in unread:
            self._keep(memoryview(chunk))

    async def receive_exactly(self, size_bytes: int) -> bytes:
        """That many bytes. Raises BadRequest if the peer ends before."""
        parts, left = [], size_bytes
        while left:
            chunk = await self.receive(left)
            if not chunk:
                raise BadRequest(f"expected {size_bytes} bytes of data, got {size_bytes - left} and the end")
            parts.append(chunk)
            left -= chunk.nbytes
        return b"".join(parts)

    async def receive_all(self, most_bytes: int) -> bytes:
        """Everything up to the peer's end. Raises TooMuch, and resets the stream, if that is more than ``most_bytes``."""
        parts, size = [], 0
        while chunk := await self.receive():
            size += chunk.nbytes
            if size > most_bytes:
                error = TooMuch(f"expected at most {most_bytes} bytes of data, got {size} and no end")
                self._carrier.reset(self, error)
                raise error
            parts.append(chunk)
        return b"".join(parts)

    async def result(self) -> None:
        """At the caller: waits for the callee's status; returns if it is success, else raises what it stands for. Read the data first."""
        if not self.ours:
            raise RuntimeError("a handler's own end is the status: it has none to wait for")
        while self.status is None:
            if self.error is not None:
                raise self._failure(self.error)
            if self._unread:
                break
            await self._arrival()
        if self._unread:
            error = TooMuch(f"{self.in_bytes} bytes of data came where only a status was expected")
            self._carrier.reset(self, error)
            raise error
        if self.status is not None and self.status[0] != OK:
            raise error_of(*self.status)

    def cancel(self, text: str = "cancelled") -> None:
        """Ends the request at once, both ways; data that is unread is dropped. Nothing happens to one that is over and read."""
        if self.error is None and (self.in_bytes or not self.over):
            self._carrier.reset(self, CallCancelled(text))

    @property
    def over(self) -> bool:
        """True when the callee's status is known here, or the request failed."""
        return self.error is not None or self.status is not None or self.gone

    async def __aenter__(self) -> Stream:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.cancel("the caller left")

    def _require_sendable(self) -> None:
        if self.error is not None:
            raise self._failure(self.error)
        if self.status is not None:
            raise error_of(*self.status) if self.status[0] != OK else CallCancelled("the peer answered before it had read everything")
        if self.end_wanted or self.final is not None:
            raise RuntimeError("this side of the stream has ended: nothing can be sent")
        if self._out_waiter is not None:
            raise RuntimeError("another send waits on this stream: one task sends")

    async def _arrival(self) -> None:
        if self._in_waiter is not None:
            raise RuntimeError("another task receives on this stream: one task receives")
        self._in_waiter = asyncio.get_running_loop().create_future()
        self.moved_at = self._carrier.now()
        try:
            await self._in_waiter
        finally:
            self._in_waiter = None

    def _read(self, size_bytes: int) -> None:
        self.in_bytes -= size_bytes
        self.moved_at = self._carrier.now()
        self._carrier.consumed(self, size_bytes)

    def _failure(self, error: WireError) -> WireError:
        # A fresh one each time: a raised exception collects the frames it went through.
        return error_of(error.code, error.text)

    # ---- for the connection

    @property
    def sendable(self) -> bool:
        """Something waits that the stream's own window lets out."""
        if self._out:
            return self.credit > 0
        return self.final is not None or (self.end_wanted and not self.end_sent)

    def next_piece(self, most_bytes: int) -> tuple[memoryview, int]:
        """(data, flags) of the next DATA frame; the data may be empty when the end is all that is left."""
        piece = _NOTHING
        if self._out:
            piece = self._out[0]
            if piece.nbytes > most_bytes:
                self._out[0] = piece[most_bytes:]
                piece = piece[:most_bytes]
            else:
                self._out.popleft()
            self.out_bytes -= piece.nbytes
            self.credit -= piece.nbytes
        if self.end_wanted and not self._out:
            self.end_sent = True
            return piece, END
        return piece, 0

    def was_sent(self) -> None:
        """The last piece is with the socket: its bytes are no longer looked at."""
        self.moved_at = self._carrier.now()
        if self.out_bytes <= self._out_low:
            _wake(self._out_waiter)

    def take_window(self, size_bytes: int) -> None:
        """The peer read. Raises ProtocolViolation for a window beyond 2^31 - 1."""
        self.credit = added(self.credit, size_bytes)
        self.moved_at = self._carrier.now()

    def room(self, size_bytes: int) -> memoryview | None:
        """Where a frame of so many bytes that begins now goes; None when the reader gave no memory for it. It then comes to ``take_data`` as it is."""
        if size_bytes > self._into.nbytes - self._placed:
            return None
        self._coming = self._into[self._placed : self._placed + size_bytes]
        return self._coming

    def take_data(self, payload: bytes | bytearray | memoryview) -> None:
        """Data arrived. The connection has checked the window."""
        self.window -= len(payload)
        self.in_bytes += len(payload)
        self.moved_at = self._carrier.now()
        if payload is self._coming:
            self._coming = None
            self._placed += len(payload)
        else:
            self._keep(memoryview(payload))
        _wake(self._in_waiter)

    @property
    def _unread(self) -> bool:
        return bool(self._in) or self._taken < self._placed

    def _keep(self, payload: memoryview) -> None:
        """Keep what arrived for ``receive``: in the reader's memory, as long as there is some, behind it what is more."""
        if not self._in and (placed := payload[: self._into.nbytes - self._placed]):
            self._into[self._placed : self._placed + placed.nbytes] = placed
            self._placed += placed.nbytes
            payload = payload[placed.nbytes :]
            if not payload:
                return
        last = self._in[-1] if self._in else None
        # Many small frames must not become many small objects: the window counts bytes, not objects.
        if isinstance(last, bytearray) and len(last) + len(payload) <= JOINED_BYTES:
            try:
                last += payload
            except BufferError:  # somebody holds a view of it
                self._in.append(bytearray(payload))
        else:
            self._in.append(payload.obj if isinstance(payload.obj, bytearray) and len(payload.obj) == len(payload) else bytearray(payload))

    def take_end(self) -> None:
        self.in_ended = True
        _wake(self._in_waiter)

    def take_status(self, code: int, text: str) -> None:
        """The callee is done: nothing comes after it, and what we still had to send is dropped."""
        self.status, self.in_ended = (code, text), True
        self._drop_outgoing()
        _wake(self._in_waiter)

    def fail(self, error: WireError) -> int:
        """The stream is over. Returns the unread bytes that were dropped."""
        if self.error is None:
            self.error = error
        dropped, self.in_bytes = self.in_bytes, 0
        self._in.clear()
        self._into, self._placed, self._taken, self._coming = _NOTHING, 0, 0, None
        self._drop_outgoing()
        _wake(self._in_waiter)
        return dropped

    def idle(self, now: float) -> TimedOut | None:
        """Why the stream is given up: somebody waits, or bytes lie, and nothing moved for ``idle_s``."""
        waits = self._in_waiter is not None or self.out_bytes > 0 or self.in_bytes > 0
        if not waits or now - self.moved_at < self.idle_s:
            return None
        return TimedOut(f"nothing moved on the request {self.method!r} for {self.idle_s:g} s")

    def _drop_outgoing(self) -> None:
        self._out.clear()
        self.out_bytes = 0
        _wake(self._out_waiter)


def added(window_bytes: int, size_bytes: int) -> int:
    """A window opened further. Raises ProtocolViolation if by nothing or beyond 2^31 - 1."""
    if not size_bytes or window_bytes + size_bytes > MAX_WINDOW_BYTES:
        raise ProtocolViolation(f"a window of {window_bytes} bytes cannot be opened by {size_bytes}: 1 byte at least, {MAX_WINDOW_BYTES} in all")
    return window_bytes + size_bytes


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)


async def exchange(stream: Stream, body: bytes, most_bytes: int) -> bytes:
    """A whole request: sends the body, if there is one, and returns the whole answer, at most ``most_bytes``. Raises what the callee ended with."""
    async with stream:
        if body:
            await stream.send(body)
            stream.end()
        answer = await stream.receive_all(most_bytes)
        await stream.result()
        return answer
