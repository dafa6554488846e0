"""The ABCI socket server.

    I/O thread (uvloop)      reads whatever is readable, cuts frames, writes answers in order
    application thread       consensus and mempool calls, one at a time, consensus first
    query thread             info, query, list_snapshots, load_snapshot_chunk: never delay a block and are not delayed by one

Each connection has one batch in work at a time, so its answers keep their order; what arrives meanwhile is the next batch. Neighbouring
CheckTx of a batch become one ``check_txs`` call. Answers are written after each batch, which is never later than the Flush in it.

A peer that sends faster than it is answered, or does not read its answers, is not read from until it does: what waits is bounded. A batch
whose peer has gone before its turn is dropped.

Errors (reference abci-sdk-rules.md section 3): a Query answers code 111222, a CheckTx its error code, PrepareProposal the given
transactions cut to max_tx_bytes, ProcessProposal REJECT, ExtendVote an empty extension, VerifyVoteExtension REJECT, snapshot calls ABORT,
REJECT or nothing. Anything else answers ResponseException, and ``on_fatal`` is told; so is it for ``Halt`` and for errors of the machine,
except in reading calls (Query, ListSnapshots, LoadSnapshotChunk).

``UpgradeNeeded`` gets no answer at all, so that CometBFT waits where it is and its RPC stays up; every other connection is served as ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import os
import queue
import socket
import stat
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import structlog
import uvloop
from google.protobuf.message import DecodeError

from chain.abci.application import Application
from chain.abci.framing import FrameError, FrameReader, Request, Response, response_frame
from chain.codec.registry import message_class
from chain.codec.varint import field_size
from chain.errors import PANIC_CODE, UNDEFINED_CODESPACE, AppError, Halt, InvariantBroken, UpgradeNeeded
from chain.machine import MACHINE_ERRORS
from chain.module import GenesisError
from chain.store.errors import StoreError

log = structlog.get_logger("abci")

MAX_UNIX_PATH_BYTES: Final = 107
MAX_CHECKS_PER_BATCH: Final = 256
MAX_OTHERS_PER_BATCH: Final = 16
"""Of calls whose answers may be large."""
MAX_WAITING: Final = 16_384
"""Requests that wait on one connection before it is no longer read."""
MAX_WAITING_BYTES: Final = 32 << 20
MAX_UNREAD_BYTES: Final = 4 << 20
"""Answers that a peer has not read before its next batch has to wait."""
MAX_CONNECTIONS: Final = 64
QUERY_KINDS: Final = frozenset({"echo", "flush", "info", "query", "list_snapshots", "load_snapshot_chunk"})
_SMALL_KINDS: Final = frozenset({"check_tx", "echo", "flush"})
REJECT_PROPOSAL: Final = 2
REJECT_EXTENSION: Final = 2
ABORT_OFFER: Final = 2
ABORT_CHUNK: Final = 2

TOLD: Final = (AppError, GenesisError, Halt, StoreError)
"""Errors that say to an operator what is wrong; of others the log has where they came from."""

_CONSENSUS, _MEMPOOL = 0, 1
_names: Final = {
    "check_tx": "ResponseCheckTx",
    "query": "ResponseQuery",
    "prepare_proposal": "ResponsePrepareProposal",
    "process_proposal": "ResponseProcessProposal",
    "extend_vote": "ResponseExtendVote",
    "verify_vote_extension": "ResponseVerifyVoteExtension",
    "offer_snapshot": "ResponseOfferSnapshot",
    "apply_snapshot_chunk": "ResponseApplySnapshotChunk",
    "load_snapshot_chunk": "ResponseLoadSnapshotChunk",
    "list_snapshots": "ResponseListSnapshots",
}
_types: Final = {kind: message_class(f"tendermint.abci.{name}") for kind, name in _names.items()}


class AddressError(Exception):
    """The listening address cannot be used; the message says why and what to do."""


class AbciServer:
    """Serves ``app`` at ``unix:///path`` or ``tcp://host:port`` until ``stop``.

    ``on_fatal(error)`` is called once, from a worker thread, when the node has to stop; ``on_upgrade(error)`` when the chain waits for another
    binary; ``on_call(kind, seconds)`` after each call (a batch of
    CheckTx counts as one), ``on_panic(kind)`` when one raised what no rule raises.
    """

    def __init__(
        self,
        app: Application,
        address: str,
        *,
        on_fatal: Callable[[BaseException], None],
        on_upgrade: Callable[[UpgradeNeeded], None] | None = None,
        on_call: Callable[[str, float], None] | None = None,
        on_panic: Callable[[str], None] | None = None,
    ) -> None:
        self._app = app
        self.address = address
        self._on_fatal = on_fatal
        self._on_upgrade = on_upgrade or (lambda error: None)
        self._on_call = on_call or (lambda kind, seconds: None)
        self._on_panic = on_panic or (lambda kind: None)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._connections: list[_Connection] = []
        self._jobs: queue.PriorityQueue[tuple[int, int, _Job | None]] = queue.PriorityQueue()
        self._queries: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._order = itertools.count()
        self._threads: list[threading.Thread] = []
        self._socket: socket.socket | None = None
        self._dead = False
        self._dying = threading.Lock()

    def start(self) -> None:
        """Listen and return. Raises AddressError."""
        self._socket = _listen(self.address)
        if self.address.startswith("tcp://"):
            host, port = self._socket.getsockname()[:2]
            self.address = f"tcp://{host}:{port}"
        ready = threading.Event()
        for name, target in (("abci-io", self._run_loop), ("abci-app", self._run_jobs), ("abci-query", self._run_queries)):
            thread = threading.Thread(target=target, args=(ready,) if name == "abci-io" else (), name=name, daemon=True)
            self._threads.append(thread)
            thread.start()
        ready.wait()

    def stop(self) -> None:
        """Close every connection, let the running calls end, and remove the socket file."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._loop.stop)
        self._jobs.put((-1, next(self._order), None))
        self._queries.put(None)
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(timeout=30)
        path = unix_path(self.address)
        if path is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    def _run_loop(self, ready: threading.Event) -> None:
        loop = self._loop = uvloop.new_event_loop()
        asyncio.set_event_loop(loop)

        async def listen() -> asyncio.AbstractServer:
            if unix_path(self.address) is not None:
                return await loop.create_unix_server(lambda: _Connection(self), sock=self._socket)
            return await loop.create_server(lambda: _Connection(self), sock=self._socket)

        server = loop.run_until_complete(listen())
        ready.set()
        try:
            loop.run_forever()
        finally:
            server.close()
            for connection in list(self._connections):
                connection.close()
            loop.run_until_complete(asyncio.sleep(0))
            loop.close()

    def _run_jobs(self) -> None:
        while True:
            _, _, job = self._jobs.get()
            if job is None:
                return
            self._run(job)

    def _run_queries(self) -> None:
        while True:
            job = self._queries.get()
            if job is None:
                return
            self._run(job)

    def _run(self, job: _Job) -> None:
        if job.connection.is_gone:
            return
        try:
            answers, alive = self._answer(job.requests)
        except UpgradeNeeded as error:  # the connection stays busy for ever
            log.error("the chain waits for another binary; this height is served until the node is stopped", reason=str(error))
            self._on_upgrade(error)
            return
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop may have ended meanwhile
                loop.call_soon_threadsafe(job.connection.finish, answers, alive)

    def submit(self, connection: _Connection, requests: list[tuple[str, Any]]) -> None:
        """Hand a batch to the thread it belongs to."""
        job = _Job(connection, requests)
        kinds = {kind for kind, _ in requests}
        if kinds <= QUERY_KINDS:
            self._queries.put(job)
        else:
            priority = _MEMPOOL if kinds <= QUERY_KINDS | {"check_tx"} else _CONSENSUS
            self._jobs.put((priority, next(self._order), job))

    def _answer(self, requests: list[tuple[str, Any]]) -> tuple[bytes, bool]:
        """(framed answers, False when the connection must close) of one batch."""
        out: list[bytes] = []
        at = 0
        while at < len(requests):
            kind, request = requests[at]
            try:
                if kind == "check_tx":
                    end = at
                    while end < len(requests) and requests[end][0] == "check_tx":
                        end += 1
                    started = time.perf_counter()
                    responses = self._check([request for _, request in requests[at:end]])
                    self._on_call(kind, time.perf_counter() - started)
                    out.extend(response_frame("check_tx", response) for response in responses)
                    at = end
                    continue
                started = time.perf_counter()
                out.append(response_frame(kind, self._call(kind, request)))
                if kind not in ("echo", "flush"):
                    self._on_call(kind, time.perf_counter() - started)
            except UpgradeNeeded:
                raise
            except BaseException as error:
                self._fatal(kind, error)
                text = (str(error) or type(error).__name__).encode(errors="replace").decode()
                out.append(response_frame("exception", Response().exception.__class__(error=text)))
                return b"".join(out), False
            at += 1
        return b"".join(out), True

    def _call(self, kind: str, request: Any) -> Any:
        if kind == "echo":
            return Response().echo.__class__(message=request.message)
        if kind == "flush":
            return b""
        if self._dead:
            raise InvariantBroken("the node is stopping after an earlier error")
        try:
            return getattr(self._app, kind)(request)
        except MACHINE_ERRORS:
            if kind in ("query", "list_snapshots", "load_snapshot_chunk"):
                log.exception("abci call failed", call=kind)
                return _fallback(kind, request)
            raise
        except Exception:
            if kind not in _types:
                raise
            log.exception("abci call failed", call=kind)
            self._on_panic(kind)
            return _fallback(kind, request)

    def _check(self, requests: list[Any]) -> list[Any]:
        if self._dead:
            raise InvariantBroken("the node is stopping after an earlier error")
        try:
            return list(self._app.check_txs(requests))
        except MACHINE_ERRORS:
            raise
        except Exception:
            log.exception("abci call failed", call="check_tx")
            self._on_panic("check_tx")
            return [_fallback("check_tx", request) for request in requests]

    def _fatal(self, kind: str, error: BaseException) -> None:
        with self._dying:
            is_first, self._dead = not self._dead, True
        if is_first:
            log.error("the node must stop", call=kind, error=str(error), exc_info=not isinstance(error, TOLD))
            self._on_fatal(error)


def _fallback(kind: str, request: Any) -> Any:
    """What the SDK answers when such a call fails inside."""
    if kind == "query":
        return _types[kind](
            code=PANIC_CODE, codespace=UNDEFINED_CODESPACE, log="internal error: the node's log has the details", height=request.height
        )
    if kind == "check_tx":
        return _types[kind](code=PANIC_CODE, codespace=UNDEFINED_CODESPACE, log="internal error: the node's log has the details")
    if kind == "prepare_proposal":
        kept, size = [], 0
        for tx in request.txs:
            # CometBFT counts a transaction with its tag and length, and stops at a proposal that is too big.
            size += field_size(len(tx))
            if size > request.max_tx_bytes:
                break
            kept.append(tx)
        return _types[kind](txs=kept)
    if kind == "process_proposal":
        return _types[kind](status=REJECT_PROPOSAL)
    if kind == "verify_vote_extension":
        return _types[kind](status=REJECT_EXTENSION)
    if kind == "offer_snapshot":
        return _types[kind](result=ABORT_OFFER)
    if kind == "apply_snapshot_chunk":
        return _types[kind](result=ABORT_CHUNK)
    return _types[kind]()


class _Job:
    __slots__ = ("connection", "requests")

    def __init__(self, connection: _Connection, requests: list[tuple[str, Any]]) -> None:
        self.connection = connection
        self.requests = requests


class _Connection(asyncio.Protocol):
    """One peer. Lives in the I/O thread."""

    def __init__(self, server: AbciServer) -> None:
        self._server = server
        self._reader = FrameReader()
        self._transport: Any = None
        self._waiting: list[tuple[str, Any]] = []
        self._sizes: list[int] = []
        self._waiting_bytes = 0
        self._busy = False
        self._reads_slowly = False
        self.is_gone = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._transport.set_write_buffer_limits(high=MAX_UNREAD_BYTES)
        self._server._connections.append(self)
        if len(self._server._connections) > MAX_CONNECTIONS:
            log.error("a peer opens a connection too many; closing it", at_most=MAX_CONNECTIONS)
            self.close()

    def connection_lost(self, error: Exception | None) -> None:
        self.is_gone = True
        self._waiting.clear()
        self._sizes.clear()
        self._waiting_bytes = 0
        if self in self._server._connections:
            self._server._connections.remove(self)

    def data_received(self, data: bytes) -> None:
        try:
            for raw in self._reader.feed(data):
                request = Request.FromString(raw)
                kind = request.WhichOneof("value")
                if kind is None:
                    raise FrameError("a request of no kind")
                self._waiting.append((kind, getattr(request, kind)))
                self._sizes.append(len(raw))
                self._waiting_bytes += len(raw)
        except (FrameError, DecodeError) as error:
            log.error("a peer does not speak ABCI 2.0; closing its connection", error=str(error))
            self.close()
            return
        self._next()
        if self._has_too_much():
            self._transport.pause_reading()

    def pause_writing(self) -> None:
        self._reads_slowly = True

    def resume_writing(self) -> None:
        self._reads_slowly = False
        self._next()

    def _has_too_much(self) -> bool:
        return len(self._waiting) > MAX_WAITING or self._waiting_bytes > MAX_WAITING_BYTES

    def _next(self) -> None:
        if self._busy or self._reads_slowly or not self._waiting:
            return
        count = self._batch_size()
        batch = self._waiting[:count]
        del self._waiting[:count]
        self._waiting_bytes -= sum(self._sizes[:count])
        del self._sizes[:count]
        self._busy = True
        self._server.submit(self, batch)
        if not self._transport.is_closing() and not self._transport.is_reading() and not self._has_too_much():
            self._transport.resume_reading()

    def _batch_size(self) -> int:
        others = 0
        for at, (kind, _) in enumerate(self._waiting[:MAX_CHECKS_PER_BATCH]):
            others += kind not in _SMALL_KINDS
            if others > MAX_OTHERS_PER_BATCH:
                return at
        return min(len(self._waiting), MAX_CHECKS_PER_BATCH)

    def finish(self, answers: bytes, alive: bool) -> None:
        """A batch is done: write its answers, then take the next."""
        self._busy = False
        if self._transport is None or self._transport.is_closing():
            return
        self._transport.write(answers)
        if alive:
            self._next()
        else:
            self._transport.close()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


def unix_path(address: str) -> str | None:
    """The file of a ``unix://`` address, None for any other."""
    return address.removeprefix("unix://") if address.startswith("unix://") else None


def socket_address(root: Path, program: str) -> str:
    """Where a program with a home listens: in the home's data folder, or, where that path is too long for a socket, in a folder of the user's own under the
    system's temporary one. Raises AddressError when that one is somebody else's, OSError."""
    path = root.absolute() / "data" / "abci.sock"
    if len(os.fsencode(path)) > MAX_UNIX_PATH_BYTES:
        name = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
        folder = Path(tempfile.gettempdir()) / f"{program}-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.stat().st_uid != os.getuid() or folder.stat().st_mode & 0o077:
            raise AddressError(f"{folder} belongs to somebody else: remove it, or choose a home with a shorter path")
        path = folder / f"{name}.sock"
    return f"unix://{path}"


def _listen(address: str) -> socket.socket:
    path = unix_path(address)
    if path is None:
        return _listen_tcp(address)
    if not path:
        raise AddressError("unix:// names no file: write unix:///path")
    if len(os.fsencode(path)) > MAX_UNIX_PATH_BYTES:
        raise AddressError(
            f"the socket path {path} has {len(os.fsencode(path))} bytes; the system allows {MAX_UNIX_PATH_BYTES}: choose a shorter home"
        )
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise AddressError(f"{path} exists and is not a socket: move it away or choose another address")
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(path)
            except OSError:
                os.unlink(path)
            else:
                raise AddressError(f"another process listens at {path}: stop it first")
    listener = socket.socket(socket.AF_UNIX)
    try:
        previous = os.umask(0o177)
        try:
            listener.bind(path)
        finally:
            os.umask(previous)
    except OSError as error:
        listener.close()
        raise AddressError(f"cannot listen at {path}: {error.strerror}") from None
    listener.listen()
    listener.setblocking(False)
    return listener


def _listen_tcp(address: str) -> socket.socket:
    host, separator, port = address.removeprefix("tcp://").rpartition(":")
    if not address.startswith("tcp://") or not separator or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise AddressError(f"an ABCI address is unix:///path or tcp://host:port, got {address!r}")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host.strip("[]") or "127.0.0.1", int(port)))
    except OSError as error:
        listener.close()
        raise AddressError(f"cannot listen at {address}: {error.strerror}; is another node running?") from None
    listener.listen()
    listener.setblocking(False)
    return listener
