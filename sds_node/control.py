"""How commands reach the running node: a unix socket in its home, mode 0600, one line of JSON each way.

    {"command": "status", "arguments": {}} ─► <home>/ppd.sock or spd.sock ─► {"ok": true, "result": {…}}  or  {"ok": false, "error": "a sentence"}

Who may open the socket may command the node: the folder and the socket are the owner's alone. A line has at most 64 KiB, an answer 4 MiB.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

import structlog

log = structlog.get_logger("control")

MAX_LINE_BYTES: Final = 64 << 10
MAX_ANSWER_BYTES: Final = 4 << 20
MAX_CLIENTS: Final = 32
LINE_S: Final = 30.0
MAX_PATH_BYTES: Final = 100
"""A unix socket's path has about so many bytes."""

Command: TypeAlias = Callable[[Mapping[str, Any]], Awaitable[Any]]


class ControlError(Exception):
    """What a command could not do. The text is for people."""


class NotRunning(ControlError):
    """No node runs in the home."""


class ControlServer:
    """Serves ``commands`` by name: each takes the arguments and returns what JSON can say, or raises ControlError."""

    def __init__(self, path: Path, commands: Mapping[str, Command]) -> None:
        self.path, self._commands = path, commands
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen. The caller holds the home, so a socket that lies there is a dead node's. Raises ControlError."""
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()
        try:
            with _short(self.path) as path:
                self._server = await asyncio.start_unix_server(self._serve, path, limit=MAX_LINE_BYTES)
            self.path.chmod(0o600)
        except OSError as error:
            raise ControlError(f"the control socket {self.path} cannot be made ({error.strerror}): see that the home is on a local disk") from None

    async def close(self) -> None:
        """Serve nobody any more."""
        if self._server is not None:
            self._server.close()
        clients = [one for one in self._clients if one is not asyncio.current_task()]
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
        if self._server is not None:
            await self._server.wait_closed()
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._clients) >= MAX_CLIENTS:
            writer.close()
            return
        self._clients.add(task)
        try:
            while True:
                try:
                    async with asyncio.timeout(LINE_S):
                        line = await reader.readline()
                except ValueError:
                    await _answer(writer, {"ok": False, "error": f"expected a line of at most {MAX_LINE_BYTES} bytes"})
                    return
                if not line.endswith(b"\n"):
                    return
                await _answer(writer, await self._done(line))
        except (TimeoutError, ConnectionError):
            pass  # whoever asked is gone, or says nothing
        finally:
            self._clients.discard(task)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _done(self, line: bytes) -> dict[str, Any]:
        try:
            asked: Any = json.loads(line)
        except (ValueError, RecursionError):
            return {"ok": False, "error": "expected one line of JSON"}
        if not isinstance(asked, dict) or not isinstance(asked.get("command"), str) or not isinstance(asked.get("arguments", {}), dict):
            return {"ok": False, "error": 'expected {"command": "…", "arguments": {…}}'}
        command = self._commands.get(asked["command"])
        if command is None:
            return {"ok": False, "error": f"there is no command {asked['command'][:60]!r}: expected {', '.join(sorted(self._commands))}"}
        try:
            return {"ok": True, "result": await command(asked.get("arguments", {}))}
        except ControlError as error:
            return {"ok": False, "error": str(error)}
        except Exception:
            log.exception("a command failed", command=asked["command"])
            return {"ok": False, "error": "the node failed at that command: its log has the details"}


async def ask(path: Path, command: str, timeout_s: float = 60.0, **arguments: Any) -> Any:
    """The answer of the running node. Raises NotRunning, and ControlError with the node's words."""
    line = json.dumps({"command": command, "arguments": arguments}).encode() + b"\n"
    if len(line) > MAX_LINE_BYTES:
        raise ControlError(f"a command has at most {MAX_LINE_BYTES} bytes")
    try:
        async with asyncio.timeout(timeout_s):
            with _short(path) as name:
                reader, writer = await asyncio.open_unix_connection(name, limit=MAX_ANSWER_BYTES)
            try:
                writer.write(line)
                await writer.drain()
                answer: Any = json.loads(await reader.readline())
            finally:
                writer.close()
    except (FileNotFoundError, ConnectionRefusedError):
        raise NotRunning(f"no node runs in {path.parent}: start it with `{path.stem} start`") from None
    except TimeoutError:
        raise ControlError(f"the node did not answer in {timeout_s:g} s: see its log") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ControlError(f"the node's answer cannot be read ({error}): see its log") from None
    if not isinstance(answer, dict) or not answer.get("ok"):
        raise ControlError(str(answer.get("error", "the node refused") if isinstance(answer, dict) else "the node's answer means nothing")[:2_000])
    return answer.get("result")


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    """A name of the socket that is short enough for the system, by way of its open folder where the path is long."""
    if len(os.fsencode(path)) <= MAX_PATH_BYTES:
        yield str(path)
        return
    fd = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{path.name}"
    finally:
        os.close(fd)


async def _answer(writer: asyncio.StreamWriter, answer: dict[str, Any]) -> None:
    data = json.dumps(answer).encode() + b"\n"
    if len(data) > MAX_ANSWER_BYTES:
        data = b'{"ok": false, "error": "the answer is too long"}\n'
    writer.write(data)
    await writer.drain()
