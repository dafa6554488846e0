"""The same wire on uvloop, whose transports are other classes with other habits."""

from __future__ import annotations

import asyncio

import pytest
import uvloop

from sds_node.wire.errors import HandshakeFailed, ProtocolViolation, WrongPeer
from sds_node.wire.frames import Kind
from sds_node.wire.limits import Limits
from sds_node.wire.peer import Direct, Peer
from tests.sds_node.wire.support import CONNECTION_WINDOW, SMALL, pair, raw


def test_data_windows_violations_and_drains_are_the_same_on_uvloop() -> None:
    async def run() -> None:
        async with pair(limits=Limits(**SMALL), caller_limits=Limits(**SMALL)) as two:
            size = 8 * CONNECTION_WINDOW
            assert await two.peer.ask("count", body=bytes(size)) == b"%d" % size
            assert await two.peer.ask("echo", b"x" * 40_000) == b"x" * 40_000
            async with raw(two) as peer:
                await peer.send(0, 99)
                assert (await peer.closed_with())[0] == ProtocolViolation.code
            async with raw(two) as peer:
                await peer.send(0, Kind.PING, b"12345678")
                assert await peer.read_until(Kind.PONG) == (0, Kind.PONG, 0, b"12345678")
            wrong = Peer(two.caller, bytes(20), [Direct(two.host, two.port)])
            with pytest.raises(WrongPeer):
                await wrong.ask("who")
            old = await two.peer.call("echo")
            await old.send(b"begun")
            assert bytes(await old.receive()) == b"begun"
            draining = asyncio.create_task(two.server.drain(60))
            ours = await two.peer.connect()
            await ours.retired.wait()
            with pytest.raises(HandshakeFailed):
                await two.peer.ask("who")
            old.end()
            await old.result()
            await draining

    uvloop.run(run())
