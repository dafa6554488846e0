"""An application behind its ABCI socket, asked as CometBFT asks: four connections, one call at a time on each, a Flush after each call.

``RemoteApplication`` has the methods of ``chain.abci.application.Application``, so a ``Driver`` takes it beside those in process.
``ApplicationProcess`` starts one in a process of its own, and can kill and restart it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import orjson

from chain.abci.framing import FrameReader, Request, Response, frame
from chain.abci.server import unix_path

CONNECTIONS: Final = ("query", "snapshot", "mempool", "consensus")
"""In the order in which CometBFT opens them."""
_RETRY_S: Final = 0.02


class ApplicationGone(ConnectionError):
    """The application's process or connection ended; whether the call took effect is not known."""


class ApplicationFailed(Exception):
    """The application answered ResponseException, at which CometBFT stops."""


class RemoteApplication:
    """Connects at the first call, and waits up to ``connect_s`` for the socket to appear. Every answer has to come within ``timeout_s``."""

    def __init__(self, address: str, *, connect_s: float = 30, timeout_s: float = 60) -> None:
        self.address = address
        self._connect_s = connect_s
        self._timeout_s = timeout_s
        self._connections: dict[str, _Connection] = {}

    def info(self, request: Any) -> Any:
        return self._ask("query", "info", request)

    def query(self, request: Any) -> Any:
        return self._ask("query", "query", request)

    def init_chain(self, request: Any) -> Any:
        return self._ask("consensus", "init_chain", request)

    def check_txs(self, requests: Sequence[Any]) -> list[Any]:
        """Sent in one go, so that the application may batch them."""
        return self._connection("mempool").ask("check_tx", requests)

    def prepare_proposal(self, request: Any) -> Any:
        return self._ask("consensus", "prepare_proposal", request)

    def process_proposal(self, request: Any) -> Any:
        return self._ask("consensus", "process_proposal", request)

    def extend_vote(self, request: Any) -> Any:
        return self._ask("consensus", "extend_vote", request)

    def verify_vote_extension(self, request: Any) -> Any:
        return self._ask("consensus", "verify_vote_extension", request)

    def finalize_block(self, request: Any) -> Any:
        return self._ask("consensus", "finalize_block", request)

    def commit(self, request: Any) -> Any:
        return self._ask("consensus", "commit", request)

    def list_snapshots(self, request: Any) -> Any:
        return self._ask("snapshot", "list_snapshots", request)

    def offer_snapshot(self, request: Any) -> Any:
        return self._ask("snapshot", "offer_snapshot", request)

    def load_snapshot_chunk(self, request: Any) -> Any:
        return self._ask("snapshot", "load_snapshot_chunk", request)

    def apply_snapshot_chunk(self, request: Any) -> Any:
        return self._ask("snapshot", "apply_snapshot_chunk", request)

    def echo(self, message: str) -> str:
        return str(self._ask("query", "echo", Request().echo.__class__(message=message)).message)

    def close(self) -> None:
        """Close the four connections; the next call opens new ones."""
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()

    def _ask(self, connection: str, kind: str, request: Any) -> Any:
        return self._connection(connection).ask(kind, [request])[0]

    def _connection(self, name: str) -> _Connection:
        if not self._connections:
            until = time.monotonic() + self._connect_s
            self._connections = {one: _Connection(self._connected(until), self._timeout_s) for one in CONNECTIONS}
        return self._connections[name]

    def _connected(self, until: float) -> socket.socket:
        path = unix_path(self.address)
        while True:
            try:
                if path is None:
                    host, _, port = self.address.removeprefix("tcp://").rpartition(":")
                    return socket.create_connection((host.strip("[]"), int(port)))
                found = socket.socket(socket.AF_UNIX)
                with contextlib.ExitStack() as stack:
                    stack.callback(found.close)
                    found.connect(path)
                    stack.pop_all()
                return found
            except OSError as error:
                if time.monotonic() > until or not self._may_appear():
                    raise ApplicationGone(f"no application listens at {self.address}: {error.strerror or error}") from None
                time.sleep(_RETRY_S)

    def _may_appear(self) -> bool:
        return True


class ApplicationProcess(RemoteApplication):
    """An application in a process of its own. ``command`` has to listen at ``address``; its output goes to ``log``."""

    def __init__(
        self,
        command: Sequence[str],
        address: str,
        log: Path,
        *,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
        **options: float,
    ) -> None:
        super().__init__(address, **options)
        self._command, self._log, self._folder = list(command), log, folder
        self._environment = {**os.environ, **(environment or {})}
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    @classmethod
    def serve(
        cls,
        folder: Path,
        *,
        python: Path | None = None,
        flags: Sequence[str] = (),
        backend: str = "",
        settings: Mapping[str, Any] | None = None,
        cache_nodes: int | None = None,
        application: str = "",
        environment: Mapping[str, str] | None = None,
    ) -> ApplicationProcess:
        """``python -m chain.testing.serve`` with its database and socket in ``folder``, run from the current folder."""
        command = [str(python or sys.executable), *flags, "-m", "chain.testing.serve", "--address", f"unix://{folder}/abci.sock"]
        command += ["--database", str(folder / "db"), "--settings", orjson.dumps(dict(settings or {})).decode()]
        command += ["--backend", backend] if backend else []
        command += ["--cache-nodes", str(cache_nodes)] if cache_nodes is not None else []
        command += ["--application", application] if application else []
        return cls(command, f"unix://{folder}/abci.sock", folder / "app.log", environment=environment)

    def start(self) -> None:
        """Start the process; the first call waits for its socket."""
        with self._log.open("ab") as log:
            # Its standard input ends with this process, and it with its standard input.
            self.process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=self._environment, cwd=self._folder)

    def kill(self) -> None:
        """SIGKILL, at once; the next call raises ApplicationGone."""
        assert self.process is not None
        self.process.kill()
        self._ended()

    def stop(self, timeout_s: float = 30) -> int:
        """SIGTERM; the exit code. Raises subprocess.TimeoutExpired."""
        assert self.process is not None
        self.close()
        self.process.terminate()
        self.process.wait(timeout_s)
        return self._ended()

    def restart(self) -> None:
        """Start it again, killed first where it still runs."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.kill()
        self._ended()
        self.close()
        self.start()

    def _ended(self) -> int:
        assert self.process is not None
        assert self.process.stdin is not None
        code = self.process.wait()
        self.process.stdin.close()
        return code

    def _may_appear(self) -> bool:
        return self.process is not None and self.process.poll() is None


class _Connection:
    def __init__(self, connected: socket.socket, timeout_s: float) -> None:
        self._socket = connected
        self._socket.settimeout(timeout_s)
        self._reader = FrameReader()
        self._frames: list[bytes] = []

    def ask(self, kind: str, requests: Sequence[Any]) -> list[Any]:
        """The answers. Raises ApplicationGone, ApplicationFailed."""
        try:
            self._socket.sendall(b"".join(frame(Request(**{kind: request})) for request in requests) + _FLUSH)
            answers = [self._answer(kind) for _ in requests]
            self._answer("flush")
        except OSError as error:
            if isinstance(error, ApplicationGone):
                raise
            raise ApplicationGone(f"the application broke the connection during {kind}: {error}") from None
        return answers

    def _answer(self, kind: str) -> Any:
        while not self._frames:
            data = self._socket.recv(1 << 18)
            if not data:
                raise ApplicationGone(f"the application closed the connection during {kind}")
            self._frames.extend(self._reader.feed(data))
        answer = Response.FromString(self._frames.pop(0))
        found = answer.WhichOneof("value")
        if found == "exception":
            raise ApplicationFailed(f"{kind}: {answer.exception.error}")
        if found != kind:
            raise ApplicationFailed(f"{kind} was asked and {found} answered: the order is broken")
        return getattr(answer, kind)

    def close(self) -> None:
        self._socket.close()


_FLUSH: Final = frame(Request(flush={}))
