"""A fault of ours ends one connection in order; what looks at a running program from inside changes nothing."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import pytest

from sds_node.wire.connection import Connection
from sds_node.wire.errors import Lost
from tests.sds_node.wire.support import pair

pytestmark = pytest.mark.asyncio
DATA = bytes(range(256)) * 1_000


async def test_a_fault_between_two_pieces_of_a_frame_ends_the_connection_and_the_next_call_has_another(monkeypatch: pytest.MonkeyPatch) -> None:
    async with pair() as two:
        ours, _ = await two.connection()
        write, times = Connection._write, 0

        def faulty(self: Connection, data: Any) -> None:
            nonlocal times
            times += 1
            if self is ours and times == 2:
                raise RuntimeError("a fault")
            write(self, data)

        monkeypatch.setattr(Connection, "_write", faulty)
        with pytest.raises(Lost):
            await two.peer.ask("echo", b"head ", DATA, most_bytes=1 << 20)
        assert await two.peer.ask("echo", b"head ", DATA, most_bytes=1 << 20) == b"head " + DATA


async def test_who_holds_the_frames_of_a_sender_as_profilers_do_does_not_disturb_it() -> None:
    held: list[FrameType] = []

    class Watched:
        """TLS whose callers' frames are kept."""

        def __init__(self, tls: Any) -> None:
            self._tls = tls

        def write(self, data: Any) -> int:
            held.append(sys._getframe(1))
            return int(self._tls.write(data))

        def __getattr__(self, name: str) -> Any:
            return getattr(self._tls, name)

    async with pair() as two:
        ours, _ = await two.connection()
        ours._tls = Watched(ours._tls)
        assert await two.peer.ask("echo", b"head ", DATA, most_bytes=1 << 20) == b"head " + DATA
        assert await two.peer.ask("echo", b"head ", DATA, most_bytes=1 << 20) == b"head " + DATA
    assert held
