"""Meta nodes find each other, see who is gone, and let nobody else in."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from chain.codec.canonical import encode
from sds_node import asking, p2p
from sds_node.meta.federation.peers import BadPeer, Bounds, known_peer
from sds_node.wire import errors as wire_errors
from sds_node.wire.identity import Identity
from sds_node.wire.node import Node
from sds_node.wire.peer import Direct, Peer
from tests.sds_node.federation.metas import Meta, address, answering, metas, network_key, observed_meta, silent, until
from tests.sds_node.rules.support import CHAIN_ID, event

pytestmark = pytest.mark.asyncio


def peer_of(node: Node, meta: Meta) -> Peer:
    host, _, port = meta.own.endpoint.rpartition(":")
    return Peer(node, meta.address, [Direct(host, int(port))])


def sees(meta: Meta, others: list[bytes]) -> bool:
    return meta.peers.online() == others


async def echo(caller: bytes, head: bytes, body: bytes) -> bytes:
    return caller + head + body


async def test_meta_nodes_that_run_greet_each_other(tmp_path: Path) -> None:
    async with metas(tmp_path) as made:
        for one in made:
            one.run()
        everybody = sorted(one.address for one in made)
        for one in made:
            await until(partial(sees, one, everybody))
            assert {contact.endpoint for contact in one.peers.contacts()} == {other.own.endpoint for other in made}
            assert one.peers.contacts()[0] == one.own
            assert one.peers.problems() == []
            (status, *_) = one.peers.status()
            assert (status["is_online"], status["is_ready"], status["sequence"]) == (True, True, made[0].ledger.head.sequence)


async def test_one_that_is_alone_is_always_there(tmp_path: Path) -> None:
    async with metas(tmp_path, 1) as made:
        await made.greeted()
        assert made[0].peers.online() == [made[0].address]
        assert made[0].peers.contacts() == [made[0].own]


async def test_it_is_enough_that_one_of_two_knows_the_other(tmp_path: Path) -> None:
    # Number 2 is told of nobody: it learns where number 1 is from its greeting.
    async with metas(tmp_path, 2, names=lambda number, own: [own]) as made:
        first, second = made
        await made.greeted()
        assert first.peers.online() == [first.address]
        with pytest.raises(wire_errors.Unreachable, match=r"network\.peers"):
            await first.peers.ask(second.address, asking.META_HELLO)
        await peer_of(second.wire, first).ask(asking.META_HELLO, encode(asking.MetaHello(endpoint=second.own.endpoint)))
        assert first.peers.online() == sorted([first.address, second.address])
        assert [one.p2p_key for one in first.peers.contacts()] == [first.own.p2p_key, second.own.p2p_key]
        second.wire.handlers["echo"] = second.peers.guarded(Bounds(1, 10), echo)
        await first.peers.refresh()
        await second.peers.refresh()
        assert await first.peers.ask(second.address, "echo", b"head", b"body") == first.address + b"headbody"
        for connection in first.wire.connections_of(second.address):
            connection.close()
        assert await first.peers.ask(second.address, "echo", b"again") == first.address + b"again", "and it is dialed where it said that it is"


async def test_who_goes_silent_is_not_there_after_fifteen_seconds_and_its_operator_is_named(tmp_path: Path) -> None:
    async with metas(tmp_path, 3) as made:
        await made.greeted()
        first, second, third = made
        await third.stop()
        first.monotonic.now_s += 15
        await first.peers.greet(second.address)
        await first.peers.greet(third.address)
        assert third.address in first.peers.online()
        first.monotonic.now_s += 1
        assert first.peers.online() == sorted([first.address, second.address])
        (problem,) = first.peers.problems()
        assert p2p.format_address(third.address) in problem
        assert "HandshakeFailed" in problem, "why it is not reached is said"


async def test_a_clock_that_is_wrong_is_named(tmp_path: Path) -> None:
    async with metas(tmp_path, 2) as made:
        first, second = made
        await made.greeted()
        assert first.peers.problems() == []
        second.wire.handlers[asking.META_HELLO] = answering(encode(asking.MetaGreeting(time_ms=int((made.clock() - 30) * 1_000))))
        await first.peers.greet(second.address)
        (problem,) = first.peers.problems()
        assert "-30.0 s" in problem


@pytest.mark.parametrize("told", ["", "nowhere", ":1", "0.0.0.0:99999", "224.0.0.1:80", "a b:80"])
async def test_an_endpoint_that_nobody_can_use_replaces_none(tmp_path: Path, told: str) -> None:
    async with metas(tmp_path, 2) as made:
        first, second = made
        real = second.own.endpoint
        await made.greeted()
        second.own.endpoint = told
        await second.peers.greet(first.address)
        assert first.peers.contacts()[1].endpoint == ("127.0.0.1:1" if told == ":1" else real)


async def test_a_host_that_is_all_hosts_is_the_one_that_was_seen(tmp_path: Path) -> None:
    async with metas(tmp_path, 2) as made:
        first, second = made
        await made.greeted()
        second.own.endpoint = "0.0.0.0:7"
        await second.peers.greet(first.address)
        assert first.peers.contacts()[1].endpoint == "127.0.0.1:7"


async def test_a_greeting_that_is_none_greets_nobody(tmp_path: Path) -> None:
    async with metas(tmp_path, 2) as made:
        first, second = made
        for handler in (answering(b"\xff"), answering(bytes(2_000))):
            second.wire.handlers[asking.META_HELLO] = handler
            await first.peers.refresh()
            await first.peers.greet(second.address)
            assert first.peers.online() == [first.address]


async def test_strangers_and_meta_nodes_that_are_not_active_are_refused(tmp_path: Path) -> None:
    async with metas(tmp_path, 3, active=[1, 2]) as made:
        first, _, third = made
        stranger = Node(Identity.ephemeral(), CHAIN_ID)
        for node in (stranger, third.wire):
            with pytest.raises(wire_errors.Refused, match="only active meta nodes") as refused:
                await peer_of(node, first).ask(asking.META_HELLO, encode(asking.MetaHello()))
            assert refused.value.code == asking.UNKNOWN_NODE
        assert first.peers.online() == [first.address]
        await made.observe(event(meta=observed_meta(3)))
        await peer_of(third.wire, first).ask(asking.META_HELLO, encode(asking.MetaHello()))
        assert third.address in first.peers.online(), "once the ledger has it as active it is let in, without a restart"
        await stranger.close()


async def test_a_meta_node_that_the_chain_suspends_is_there_no_more(tmp_path: Path) -> None:
    async with metas(tmp_path, 3) as made:
        first, _, third = made
        await made.greeted()
        assert third.address in first.peers.online()
        await made.observe(event(meta=observed_meta(3, is_active=False)))
        await first.peers.refresh()
        assert third.address not in first.peers.online()
        assert len(first.peers.contacts()) == 2


async def test_each_caller_has_bounds_of_its_own(tmp_path: Path) -> None:
    async with metas(tmp_path, 3) as made:
        first, second, third = made
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def slow(caller: bytes, head: bytes, body: bytes) -> bytes:
            begun.set()
            await go_on.wait()
            return body

        first.wire.handlers["slow"] = first.peers.guarded(Bounds(1, 100), slow)
        await made.greeted()
        waiting = asyncio.create_task(second.peers.ask(first.address, "slow", body=b"one"))
        await begun.wait()
        with pytest.raises(wire_errors.Busy, match="1 requests"):
            await second.peers.ask(first.address, "slow", body=b"two")
        others = asyncio.create_task(third.peers.ask(first.address, "slow", body=b"three"))
        go_on.set()
        assert (await waiting, await others) == (b"one", b"three")
        assert await second.peers.ask(first.address, "slow", body=b"four") == b"four"
        with pytest.raises(wire_errors.TooMuch):
            await second.peers.ask(first.address, "slow", body=bytes(101))
        with pytest.raises(wire_errors.BadRequest, match="head"):
            await second.peers.ask(first.address, "slow", bytes(1_025))
        with pytest.raises(wire_errors.BadRequest):
            await second.peers.ask(first.address, asking.META_HELLO, b"\xff\xff")


async def test_who_asks_all_the_time_is_answered_so_often_and_the_others_all_the_same(tmp_path: Path) -> None:
    async with metas(tmp_path, 3) as made:
        first, second, third = made

        async def costly(caller: bytes, head: bytes, body: bytes) -> bytes:
            return body

        first.wire.handlers["costly"] = first.peers.guarded(Bounds(2, 100, per_s=0.5, burst=3), costly)
        await made.greeted()
        for body in (b"one", b"two", b"three"):
            assert await second.peers.ask(first.address, "costly", body=body) == body
        with pytest.raises(wire_errors.Busy, match=r"0\.5 times a second: ask again in 2\.0 s"):
            await second.peers.ask(first.address, "costly", body=b"four")
        assert await third.peers.ask(first.address, "costly", body=b"its own") == b"its own"
        first.monotonic.now_s += 2
        assert await second.peers.ask(first.address, "costly", body=b"four") == b"four"
        with pytest.raises(wire_errors.Busy):
            await second.peers.ask(first.address, "costly", body=b"five")


async def test_answers_come_as_they_are_given_and_nobody_waits_for_the_silent_one(tmp_path: Path) -> None:
    async with metas(tmp_path) as made:
        first = made[0]
        for one, handler in zip(made[1:], (silent, answering(b"b"), answering(b"c")), strict=True):
            one.wire.handlers["ask"] = handler
        await made.greeted()
        found: dict[bytes, bytes] = {}
        async with aclosing(first.peers.ask_all("ask", b"?", timeout_s=600)) as answers:  # type: ignore[type-var]
            async for who, answer in answers:
                found[who] = answer
                if len(found) == 2:
                    break
        assert found == {made[2].address: b"b", made[3].address: b"c"}
        with pytest.raises(wire_errors.TimedOut, match="has not answered"):
            await first.peers.ask(made[1].address, "ask", body=b"?", timeout_s=0.05)


async def test_one_that_is_back_is_asked_over_the_connection_that_it_made(tmp_path: Path) -> None:
    async with metas(tmp_path, 2) as made:
        first, second = made
        await made.greeted()
        before: Any = first.wire.connections_of(second.address)[-1]
        await second.stop()
        again = Node(Identity(network_key(2).seed), CHAIN_ID, {"echo": answering(b"back")})
        await peer_of(again, first).ask(asking.META_HELLO, encode(asking.MetaHello()))
        assert first.wire.connections_of(second.address)[-1] is not before
        assert await first.peers.ask(second.address, "echo", body=b"?") == b"back"
        await again.close()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "stsds1qqq@127.0.0.1:1",
        "127.0.0.1:1",
        "@127.0.0.1:1",
        "{key}@:1",
        "{key}@127.0.0.1",
        "{key}@127.0.0.1:0",
        "{key}@a b:1",
        "{key}@" + "a" * 300,
    ],
)
async def test_a_peer_that_cannot_be_read_is_refused_with_what_was_expected(text: str) -> None:
    with pytest.raises(BadPeer, match=r"network\.peers: expected"):
        known_peer(text.format(key=p2p.format_public_key(network_key(1).public_key)))


async def test_a_peer_is_named_by_its_key_or_its_address() -> None:
    key = network_key(1).public_key
    by_key, by_address = known_peer(f"{p2p.format_public_key(key)}@[::1]:5"), known_peer(f"{p2p.format_address(address(1))}@meta.example.org:5")
    assert (by_key.address, by_key.p2p_key, by_key.endpoint) == (address(1), key, "[::1]:5")
    assert (by_address.address, by_address.p2p_key, by_address.endpoint) == (address(1), b"", "meta.example.org:5")
