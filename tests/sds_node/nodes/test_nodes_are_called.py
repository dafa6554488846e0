"""Calls to nodes: over their own connection or to their endpoint; what they must hear reaches them in order, whenever they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from chain.codec.canonical import encode
from sds_node import asking
from sds_node.meta.books import books
from sds_node.meta.books.books import BooksError
from sds_node.meta.nodes.calls import NodeCalls
from sds_node.meta.nodes.hello import Hellos
from sds_node.wire.connection import Connection
from sds_node.wire.errors import BadRequest, Refused, Unreachable
from sds_node.wire.identity import Identity
from sds_node.wire.node import Node, Server
from sds_node.wire.peer import Direct, Peer
from sds_node.wire.stream import Stream
from tests.sds_node.books.world import CHAIN_ID, World, node_key, owner, until, world

pytestmark = pytest.mark.asyncio


class Told:
    """A resource node's end: it notes what it is told, and may refuse it."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.refusal: Exception | None = None
        self.node = Node(Identity(bytes(node_key(1))), CHAIN_ID, {"share.confirm": self.take})

    async def take(self, stream: Stream, connection: Connection) -> None:
        body = await stream.receive_all(1_000)
        if self.refusal is not None:
            raise self.refusal
        self.bodies.append(body)
        await stream.send(b"answer " + body)

    async def hello(self, made: World, endpoint: str = ":9") -> Peer:
        peer = Peer(self.node, made.me, [Direct("127.0.0.1", made.port)])
        await peer.ask(asking.NODE_HELLO, encode(asking.NodeHello(endpoint=endpoint, capacity_bytes=10**9, free_bytes=10**9)))
        return peer


@asynccontextmanager
async def calls(folder: Path) -> AsyncIterator[tuple[World, NodeCalls, Told]]:
    async with world(folder) as made:
        hellos = Hellos(made.registry, made.books, made.wire, made.clock)
        made.wire.handlers.update(hellos.handlers())
        one, told = NodeCalls(made.wire, made.registry, made.books, made.clock), Told()
        task = asyncio.create_task(one.run(0.01))
        try:
            yield made, one, told
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await one.close()
            await hellos.close()
            await told.node.close()


async def heard(told: Told, count: int) -> None:
    await until(lambda: len(told.bodies) >= count)


async def _nothing_waits(made: World) -> bool:
    return not await made.books.nodes_to_tell()


async def test_a_node_is_called_over_the_connection_it_made(tmp_path: Path) -> None:
    async with calls(tmp_path) as (made, one, told):
        await told.hello(made)
        assert await one.ask(1, "share.confirm", body=b"x") == b"answer x"


async def test_a_node_without_a_connection_is_called_where_it_listens(tmp_path: Path) -> None:
    async with calls(tmp_path) as (made, one, told):
        server = Server(told.node)
        _, port = await server.listen()
        peer = await told.hello(made, f":{port}")
        await peer.close()
        await until(lambda: not made.wire.connections_of(told.node.address))
        assert await one.ask(1, "share.confirm", body=b"x") == b"answer x"
        assert await one.ask(1, "share.confirm", body=b"y") == b"answer y"
        await server.close()


async def test_no_way_to_a_node_is_told_as_such(tmp_path: Path) -> None:
    async with calls(tmp_path) as (_, one, _told):
        for number in (1, 77):
            with pytest.raises(Unreachable):
                await one.ask(number, "share.confirm")


async def test_what_waits_is_told_in_order_when_the_node_comes(tmp_path: Path) -> None:
    async with calls(tmp_path) as (made, one, told):
        for number in range(5):
            await one.tell_later(1, "share.confirm", b"%d" % number)
        await asyncio.sleep(0.05)  # it is tried, in vain: the clock stands still, so only the hello helps
        await told.hello(made)
        await heard(told, 5)
        assert told.bodies == [b"0", b"1", b"2", b"3", b"4"]
        await until(lambda: _nothing_waits(made))
        await one.tell_later(1, "share.confirm", b"later")
        await heard(told, 6)


async def test_what_a_node_refuses_is_told_again_and_what_it_cannot_read_is_not(tmp_path: Path) -> None:
    async with calls(tmp_path) as (made, one, told):
        told.refusal = Refused(1_009, "not allowed yet")
        await told.hello(made)
        await one.tell_later(1, "share.confirm", b"first")
        await one.tell_later(1, "share.confirm", b"second")
        await until(lambda: one._waits[1][1] > 0.0)
        told.refusal = None
        made.clock.now_s += 2
        await heard(told, 2)
        assert told.bodies == [b"first", b"second"]
        told.refusal = BadRequest("what is this")
        await one.tell_later(1, "share.confirm", b"garbage")
        await until(lambda: _nothing_waits(made))
        assert told.bodies == [b"first", b"second"]


async def test_whether_a_node_answers_is_tried_where_users_are_sent(tmp_path: Path) -> None:
    async with calls(tmp_path) as (made, one, told):
        assert not await one.answers(1), "nothing is known of it"
        told.node.handlers["node.status"] = told.take
        server = Server(told.node)
        _, port = await server.listen()
        await told.hello(made, f":{port}")
        assert await one.answers(1)
        told.refusal = Refused(1_009, "no")
        assert await one.answers(1), "a refusal is an answer"
        await server.close()
        await told.hello(made, f":{port}")
        assert made.wire.connections_of(told.node.address)
        assert not await one.answers(1), "its own connection helps no user"


async def test_three_wallets_do_not_take_out_a_node_that_answers(tmp_path: Path) -> None:
    async with calls(tmp_path) as (made, _, told):
        told.node.handlers["node.status"] = told.take
        server = Server(told.node)
        _, port = await server.listen()
        await told.hello(made, f":{port}")
        for number in (70, 71, 72):
            made.registry.failed(1, "it does not answer", owner(number))
        assert made.registry._tries
        await asyncio.gather(*made.registry._tries)
        assert [one.number for one in made.registry.candidates()] == [1]
        await server.close()
        for number in (70, 71, 72):
            made.clock.now_s += 5
            await told.hello(made, f":{port}")
            made.registry.failed(1, "it does not answer", owner(number))
        made.clock.now_s += 61
        await told.hello(made, f":{port}")
        made.registry.failed(1, "it does not answer", owner(73))
        await asyncio.gather(*made.registry._tries)
        assert not made.registry.candidates()
        await made.registry.close()


async def test_a_node_that_takes_no_messages_gets_no_shares_until_it_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(books, "MAX_TELLS_OF_A_NODE", 3)
    async with calls(tmp_path) as (made, one, told):
        told.refusal = Refused(1_009, "not now")
        await told.hello(made)
        assert made.registry.why_not(1) == ""
        for _ in range(3):
            await one.tell_later(1, "share.confirm", b"x")
        for _ in range(5):
            with pytest.raises(BooksError):
                await one.tell_later(1, "share.confirm", b"one too many")
        assert "does not take" in made.registry.why_not(1)
        assert not made.registry.candidates()
        seen = made.registry.seen_of(1)
        assert seen is not None
        assert seen.score_change == -100, "once, not for each message"
        told.refusal = None
        await told.hello(made)
        await heard(told, 3)
        await until(lambda: made.registry.why_not(1) == "")
        assert [one.number for one in made.registry.candidates()] == [1]


async def test_books_that_cannot_be_read_at_the_start_end_nothing(tmp_path: Path) -> None:
    async with calls(tmp_path) as (_, one, _told):
        await one.tell_later(1, "share.confirm", b"kept")
    async with world(tmp_path) as made:
        hellos = Hellos(made.registry, made.books, made.wire, made.clock)
        made.wire.handlers.update(hellos.handlers())
        one, told = NodeCalls(made.wire, made.registry, made.books, made.clock), Told()
        read, failures = made.books.nodes_to_tell, 2

        async def nodes_to_tell() -> dict[int, int]:
            nonlocal failures
            failures -= 1
            if failures >= 0:
                raise BooksError("the disk is full")
            return await read()

        made.books.nodes_to_tell = nodes_to_tell  # type: ignore[method-assign]
        task = asyncio.create_task(one.run(0.01))
        await told.hello(made)
        await heard(told, 1)
        assert (told.bodies, task.done()) == ([b"kept"], False)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await one.close()
        await hellos.close()
        await told.node.close()


async def test_what_waits_outlives_the_process(tmp_path: Path) -> None:
    async with calls(tmp_path) as (_, one, _told):
        await one.tell_later(1, "share.confirm", b"kept")
    async with calls(tmp_path) as (made, _, told):
        await told.hello(made)
        await heard(told, 1)
        assert told.bodies == [b"kept"]
