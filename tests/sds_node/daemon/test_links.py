"""The tie to one meta node: whatever that node is or names, and whatever clocks do, the resource node goes on and tells the truth."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from chain.codec.canonical import encode
from sds_node.asking import NodeHello, NodeWelcome
from sds_node.resource.daemon.config import MetaNode, parse_meta_node, split_endpoint
from sds_node.resource.daemon.links import MetaLink
from sds_node.settings import SettingsError
from sds_node.wire.identity import Identity
from sds_node.wire.node import Node
from tests.sds_node.daemon.meta import Metas, issuer, meta_nodes, running, until
from tests.sds_node.daemon.test_node import put
from tests.sds_node.data.network import Clock, content
from tests.sds_node.documenting import CHAIN_ID


@pytest.mark.parametrize("host", ["a" * 64, "a" * 64 + ".example.org", "x..org", ".org", "org.", "a-.org", "-a.org", "", "ä.org"])
def test_a_host_that_no_resolver_takes_is_refused_before_it_is_called(host: str) -> None:
    with pytest.raises(SettingsError, match="host:port"):
        split_endpoint("x", f"{host}:18081")


@pytest.mark.parametrize("host", ["a" * 63 + ".example.org", "localhost", "127.0.0.1", "a.b-c.d1"])
def test_a_host_of_labels_is_taken(host: str) -> None:
    assert split_endpoint("x", f"{host}:18081") == (host, 18081)


class FakePeer:
    """A connection to a meta node that fails as told, and holds a hello until it is let go."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.kept = 0
        self.heard: list[Any] = []
        self.go = asyncio.Semaphore(0)

    async def keep(self, *, reachable: bool = False) -> None:
        self.kept += 1
        raise UnicodeError("label empty or too long")

    async def connect(self) -> Any:
        if self.error is not None:
            raise self.error

        class Connection:
            retired = asyncio.Event()

        return Connection

    async def ask(self, method: str, head: bytes, *, most_bytes: int) -> bytes:
        self.heard.append(NodeHello.FromString(head))
        await self.go.acquire()
        return encode(NodeWelcome(next_s=600))

    async def close(self) -> None:
        pass


def linked(say: Any = NodeHello, welcomed: Any = lambda *_: None, **options: Any) -> tuple[MetaLink, FakePeer]:
    link = MetaLink(Node(Identity(b"\1" * 32), CHAIN_ID), MetaNode(b"m" * 20, "127.0.0.1", 1), say, welcomed, Clock(), **options)
    peer = FakePeer()
    link.peer = peer  # type: ignore[assignment]
    return link, peer


@pytest.mark.asyncio
@pytest.mark.parametrize("error", [UnicodeError("label empty or too long"), ValueError("a defect"), KeyError("x")])
async def test_nothing_that_goes_wrong_with_one_meta_node_ends_its_task(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sds_node.resource.daemon.links.RETRY_MOST_S", 0.01)
    link, peer = linked()
    peer.error = error
    task = asyncio.create_task(link.run())
    await until(lambda: type(error).__name__ in link.problem and peer.kept > 1)
    assert not task.done()
    peer.error = None
    peer.go.release()
    await until(lambda: link.is_online)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.asyncio
async def test_what_a_node_does_with_a_welcome_may_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    def welcomed(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    link, peer = linked(welcomed=welcomed)
    peer.go.release()
    task = asyncio.create_task(link.run())
    await until(lambda: "OSError" in link.problem)
    assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.asyncio
async def test_a_hello_that_was_under_way_is_not_the_last_word() -> None:
    state = {"is_stopping": False}
    link, peer = linked(lambda: NodeHello(is_stopping=state["is_stopping"]))
    task = asyncio.create_task(link.run())
    await until(lambda: len(peer.heard) == 1)
    state["is_stopping"] = True
    telling = asyncio.create_task(link.told(20))
    await asyncio.sleep(0)
    peer.go.release()
    await until(lambda: len(peer.heard) == 2)
    assert not telling.done(), "only what was said before is answered"
    assert peer.heard[1].is_stopping
    peer.go.release()
    assert await telling
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.asyncio
async def test_a_clock_that_was_ahead_once_keeps_no_dead_meta_node_online() -> None:
    clock, at = Clock(), {"s": 0.0}
    link, peer = linked(monotonic=lambda: at["s"])
    link._clock = clock
    clock.now_s += 10 * 86_400
    peer.go.release()
    await link.hello()
    assert link.is_online
    clock.now_s -= 10 * 86_400  # it was set right
    at["s"] = 3 * 600.0
    assert link.is_online
    at["s"] += 1
    assert not link.is_online


@pytest.mark.asyncio
async def test_receipts_go_to_another_meta_node_whatever_the_clock_did(tmp_path: Path) -> None:
    clock, at = Clock(), {"s": 1_000.0}
    clock.now_s += 500  # ahead, within the limit
    options: dict[str, Any] = {"authority": Metas((1, 2)), "clock": clock, "monotonic": lambda: at["s"]}
    async with meta_nodes(2) as [first, second], running(tmp_path / "home", first, second, **options) as node:
        await until(lambda: all(link.is_online for link in node.links.values()))
        user = issuer(node)
        await first.close()
        await put(user, content(5, 20_000))
        clock.now_s -= 500
        at["s"] += 3 * 600 + 1
        node.announce()
        await until(lambda: node.links[second.address].is_online)
        await second.until(lambda: bool(second.leaves))  # the welcome has receipts handed in
        assert not first.leaves
        await user.caller.close()


def test_a_meta_node_of_the_settings_needs_a_host_that_can_be(tmp_path: Path) -> None:
    address = "stsds1" + "q" * 38
    with pytest.raises(SettingsError):
        parse_meta_node(f"{address}@{'a' * 64}.org:1")
