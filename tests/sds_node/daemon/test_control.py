"""The control socket: who asks what, and what nonsense gets."""

from __future__ import annotations

import asyncio
import json
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from sds_node.control import MAX_LINE_BYTES, ControlError, ControlServer, NotRunning, ask

pytestmark = pytest.mark.asyncio


async def _echo(arguments: Mapping[str, Any]) -> Any:
    return dict(arguments)


async def _refuse(_: Mapping[str, Any]) -> Any:
    raise ControlError("not now")


async def _break(_: Mapping[str, Any]) -> Any:
    raise KeyError("a defect")


COMMANDS = {"echo": _echo, "refuse": _refuse, "break": _break}


async def test_a_command_is_answered_and_the_socket_is_the_owners(tmp_path: Path) -> None:
    server = ControlServer(tmp_path / "ppd.sock", COMMANDS)
    await server.start()
    assert await ask(tmp_path / "ppd.sock", "echo", seconds=5) == {"seconds": 5}
    assert stat.S_IMODE((tmp_path / "ppd.sock").stat().st_mode) == 0o600
    with pytest.raises(ControlError, match="not now"):
        await ask(tmp_path / "ppd.sock", "refuse")
    with pytest.raises(ControlError, match="no command 'nonsense': expected break, echo, refuse"):
        await ask(tmp_path / "ppd.sock", "nonsense")
    with pytest.raises(ControlError, match="its log has the details"):
        await ask(tmp_path / "ppd.sock", "break")
    await server.close()
    with pytest.raises(NotRunning, match="ppd start"):
        await ask(tmp_path / "ppd.sock", "echo")


async def test_a_socket_of_a_dead_node_is_replaced(tmp_path: Path) -> None:
    dead = ControlServer(tmp_path / "ppd.sock", COMMANDS)
    await dead.start()
    assert dead._server is not None
    dead._server.close()  # as a killed process leaves it: the file stays
    (tmp_path / "ppd.sock").touch()
    with pytest.raises(NotRunning):
        await ask(tmp_path / "ppd.sock", "echo")
    server = ControlServer(tmp_path / "ppd.sock", COMMANDS)
    await server.start()
    assert await ask(tmp_path / "ppd.sock", "echo") == {}
    await server.close()


async def test_a_home_with_a_long_path_has_a_socket_too(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 30) / ("longer" * 20)
    folder.mkdir(parents=True)
    server = ControlServer(folder / "ppd.sock", COMMANDS)
    await server.start()
    assert await ask(folder / "ppd.sock", "echo", a=1) == {"a": 1}
    await server.close()


@pytest.mark.parametrize(
    "line",
    [
        b"nonsense\n",
        b"[1]\n",
        b'{"command": 5}\n',
        b'{"command": "echo", "arguments": 5}\n',
        b"[" * 60_000 + b"\n",
        b"\xff\xfe\n",
        b"\n",
        b'{"a":1' * 3 + b"\n",
    ],
)
async def test_a_line_that_means_nothing_is_refused_with_what_was_expected(tmp_path: Path, line: bytes) -> None:
    server = ControlServer(tmp_path / "ppd.sock", COMMANDS)
    await server.start()
    reader, writer = await asyncio.open_unix_connection(tmp_path / "ppd.sock")
    writer.write(line)
    answer = json.loads(await reader.readline())
    assert not answer["ok"]
    assert "expected" in answer["error"]
    writer.write(b'{"command": "echo"}\n')
    assert json.loads(await reader.readline()) == {"ok": True, "result": {}}, "the connection goes on"
    writer.close()
    await server.close()


async def test_a_line_without_end_is_cut_off(tmp_path: Path) -> None:
    server = ControlServer(tmp_path / "ppd.sock", COMMANDS)
    await server.start()
    reader, writer = await asyncio.open_unix_connection(tmp_path / "ppd.sock")
    writer.write(b"x" * (2 * MAX_LINE_BYTES))
    assert "at most" in json.loads(await reader.readline())["error"]
    assert await reader.read() == b""
    writer.close()
    await server.close()


async def test_a_command_that_is_too_long_is_not_sent(tmp_path: Path) -> None:
    with pytest.raises(ControlError, match="at most"):
        await ask(tmp_path / "ppd.sock", "echo", text="x" * MAX_LINE_BYTES)
