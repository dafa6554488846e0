"""Records ABCI calls for ``grammar.check``: ``Recorded`` around an application in process, ``RecordingProxy`` between CometBFT and a socket."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Any, Final

from google.protobuf.message import DecodeError

from chain.abci.framing import FrameError, FrameReader, Request
from chain.testing.grammar import Call

_HEIGHT_FIELDS: Final = {"init_chain": "initial_height"}


def call_of(kind: str, request: Any) -> Call:
    """The call that a request of ``tendermint.abci`` is."""
    if kind in ("query", "check_tx", "info"):
        return Call(kind)
    return Call(kind, getattr(request, _HEIGHT_FIELDS.get(kind, "height"), 0), bytes(getattr(request, "hash", b"")))


class Recorded:
    """``app`` with every call noted in ``calls`` before it is passed on."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.calls: list[Call] = []

    def __getattr__(self, name: str) -> Any:
        target = getattr(self.app, name)
        if not callable(target) or name.startswith("_"):
            return target

        def noted(request: Any) -> Any:
            if name == "check_txs":
                self.calls.extend(Call("check_tx") for _ in request)
            else:
                self.calls.append(call_of(name, request))
            return target(request)

        return noted


class RecordingProxy:
    """Listens at the unix socket ``listen``, passes every byte on to the application at ``target`` and back, and notes the requests."""

    def __init__(self, listen: str, target: str) -> None:
        self.address = f"unix://{listen}"
        self._target = target
        self._lock = threading.Lock()
        self._calls: list[Call] = []
        self._open: list[socket.socket] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(listen)
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def take(self) -> list[Call]:
        """The calls since the last ``take``, in the order in which they arrived."""
        with self._lock:
            calls, self._calls = self._calls, []
        return calls

    def close(self) -> None:
        """Stop listening and cut every connection."""
        with self._lock:
            for one in [self._listener, *self._open]:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
                one.close()
            self._open.clear()

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            app = socket.socket(socket.AF_UNIX)
            try:
                app.connect(self._target)
            except OSError:
                peer.close()
                app.close()
                continue
            with self._lock:
                self._open += [peer, app]
            reader = FrameReader()
            for source, sink, note in ((peer, app, lambda data, reader=reader: self._note(reader, data)), (app, peer, lambda data: None)):
                threading.Thread(target=self._pump, args=(source, sink, note), daemon=True).start()

    def _note(self, reader: FrameReader, data: bytes) -> None:
        found = []
        for raw in reader.feed(data):
            request = Request.FromString(raw)
            kind = request.WhichOneof("value")
            if kind is not None:
                found.append(call_of(kind, getattr(request, kind)))
        with self._lock:
            self._calls += found

    def _pump(self, source: socket.socket, sink: socket.socket, note: Callable[[bytes], None]) -> None:
        with contextlib.suppress(OSError, FrameError, DecodeError):
            while data := source.recv(1 << 18):
                note(data)
                sink.sendall(data)
        with self._lock:
            for one in (source, sink):
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
                one.close()
                if one in self._open:
                    self._open.remove(one)
