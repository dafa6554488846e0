"""A node of the chain that answers oddly, is behind, or is of another chain; a ledger that is busy or broken: what the observer makes of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from sds_node.meta.ledger.engine import ReadView
from sds_node.meta.ledger.errors import Busy, Unavailable
from sds_node.meta.relay import founding
from sds_node.meta.relay.reading import ObservingError
from sds_node.value_chain import ValueChain, views
from sds_node.value_chain.client import BlockEvents, HeightMissing, QueryFailed, Status
from tests.sds_node.relay.support import ROOT, MetaSide, meta_side, prepay, running, until
from tests.sds_node.value_chain.support import Chain
from tests.sds_node.value_chain.support import running as chain_running


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    with chain_running(tmp_path_factory.mktemp("net"), pot__epoch_duration_s="2") as chain:
        yield chain


async def _is(asked: object, wanted: int) -> bool:
    return bool(await asked == wanted)  # type: ignore[misc]


async def _true(value: bool) -> bool:
    return value


async def _true_ledger_height(side: MetaSide, height: int) -> bool:
    return (await side.state()).height >= height


class Odd(ValueChain):
    """A node of the chain that sometimes answers as one behind a load balancer does. ``changed``: fields of its status that are not the chain's."""

    queries = 0
    """So many questions of its state fail next."""
    blocks = 0
    """So many blocks are not there next."""
    other_hash = b""
    height: int | None = None
    changed: Mapping[str, object] = {}

    async def query(self, path: str, request: object, response: object, height: int = 0) -> object:
        if self.queries and height:
            self.queries -= 1
            raise QueryFailed("sdk", 18, "cannot query with height in the future")
        return await super().query(path, request, response, height)

    async def block(self, height: int) -> BlockEvents:
        if self.blocks:
            self.blocks -= 1
            raise HeightMissing(f"height {height} must be less than or equal to the current blockchain height {height - 1}")
        found = await super().block(height)
        return replace(found, block_hash=self.other_hash) if self.other_hash else found

    async def _many(self, heights: range) -> list[BlockEvents]:
        if self.blocks:
            raise QueryFailed("rpc", 1, "no batches")
        return await super()._many(heights)

    async def committed_height(self) -> int:
        found = await super().committed_height()
        return found if self.height is None else self.height

    async def status(self) -> Status:
        return replace(await super().status(), **self.changed)  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def odd_side(net: Chain, folder: Path) -> AsyncIterator[tuple[MetaSide, Odd]]:
    """A founded ledger beside such a node."""
    chain = Odd(net.rpc)
    async with meta_side(net, folder) as side, chain:
        await side.found(await side.chain.committed_height())
        side.chain = chain
        yield side, chain


def test_odd_answers_of_the_chains_node_are_asked_again(net: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def go() -> None:
        monkeypatch.setattr("sds_node.meta.relay.observer.AGAIN_S", 0.05)
        monkeypatch.setattr("sds_node.meta.relay.observer.FIRST_PAUSE_S", 0.05)
        monkeypatch.setattr("sds_node.meta.relay.observer.PATIENCE_S", 0)
        async with odd_side(net, tmp_path) as (side, chain):
            wallet = b"\x71" * 20
            chain.queries, chain.blocks = 3, 3
            observer = side.observer()
            async with running(observer):
                noz, _ = await prepay(side, wallet)
                await until(lambda: _is(side.paid_noz(wallet), noz))
                chain.queries, chain.blocks = 3, 3
                more, _ = await prepay(side, wallet)
                await until(lambda: _is(side.paid_noz(wallet), noz + more))
                await until(lambda: _true((chain.queries, chain.blocks) == (0, 0)))
                await until(lambda: _true(observer.is_ready and not observer.problem))

    asyncio.run(go())


@pytest.mark.parametrize("of", ["queries", "blocks"])
def test_a_height_that_the_chains_node_has_forgotten_ends_observing_once_it_stays_so(
    net: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, of: str
) -> None:
    async def go() -> None:
        monkeypatch.setattr("sds_node.meta.relay.observer.AGAIN_S", 0.05)
        monkeypatch.setattr("sds_node.meta.relay.observer.PATIENCE_S", 0.3)
        async with odd_side(net, tmp_path) as (side, chain):
            observer = side.observer()
            chain.changed = {"earliest_height": 10**9}
            setattr(chain, of, 10**9)
            begun_s = asyncio.get_running_loop().time()
            with pytest.raises(ObservingError):
                await observer.run()
            assert asyncio.get_running_loop().time() - begun_s >= 0.3
            assert observer.problem

    asyncio.run(go())


def test_a_busy_ledger_does_not_end_the_observer_and_a_broken_one_does(net: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def go() -> None:
        monkeypatch.setattr("sds_node.meta.relay.observer.AGAIN_S", 0.02)
        monkeypatch.setattr("sds_node.meta.relay.observer.PATIENCE_S", 0.1)
        async with odd_side(net, tmp_path) as (side, _):
            error: list[Exception | None] = [Busy("1000 questions wait")]
            asked, query = [0], side.ledger.query

            async def failing(question: Callable[[ReadView], object]) -> object:
                asked[0] += 1
                if error[0] is not None:
                    raise error[0]
                return await query(question)

            monkeypatch.setattr(side.ledger, "query", failing)
            observer = side.observer()
            async with running(observer):
                await until(lambda: _true(asked[0] > 10))
                assert "1000 questions" in observer.problem
                error[0] = None
                await until(lambda: _true(observer.is_ready))
            error[0] = Unavailable("the ledger has stopped")
            with pytest.raises(Unavailable, match="has stopped"):
                await side.observer().run()

    asyncio.run(go())


def test_it_is_not_ready_while_the_chains_node_is_behind_the_ledger_or_catches_up(net: Chain, tmp_path: Path) -> None:
    async def go() -> None:
        async with odd_side(net, tmp_path) as (side, chain):
            async with running(side.observer()):
                await until(lambda: _true_ledger_height(side, 3))
            behind = side.observer()
            chain.height = 1
            async with running(behind):
                await until(lambda: _true("catch up first" in behind.problem))
                assert not behind.is_ready
                # It has the ledger's height in the end, and is some blocks from its tip then.
                chain.height, chain.changed = None, {"is_catching_up": True}
                await until(lambda: _true(behind.observed > 0 and behind.chain_height > 1))
                assert not behind.is_ready
                chain.changed = {}
                await until(lambda: _true(behind.is_ready))

    asyncio.run(go())


def test_a_chain_with_another_block_at_the_ledgers_height_is_not_observed(net: Chain, tmp_path: Path) -> None:
    async def go() -> None:
        async with odd_side(net, tmp_path) as (side, chain):
            before = await side.state()
            chain.other_hash = ROOT
            observer = side.observer()
            with pytest.raises(ObservingError, match="another chain than before"):
                await observer.run()
            assert await side.state() == before
            assert not observer.is_ready

    asyncio.run(go())


def test_the_observer_tells_the_time_of_blocks_and_how_many_meta_nodes_there_are(net: Chain, tmp_path: Path) -> None:
    async def go() -> None:
        async with odd_side(net, tmp_path) as (side, _):
            heard: list[float] = []
            observer = side.observer(heard=heard.append)
            async with running(observer):
                await until(lambda: _true(observer.observed > 0 and bool(heard)))
            assert observer.active_metas == 1
            assert abs((await side.chain.status()).time_s - heard[-1]) < 60

    asyncio.run(go())


def test_a_second_active_meta_node_is_told_before_anything_begins(net: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    async def go() -> None:
        async with ValueChain(net.rpc) as chain:
            await founding.check_alone(chain)
            (node,) = await views.bonded_meta_nodes(chain)
            others = [node, replace(node, address=b"\x01" * 20, is_suspended=True)]

            async def listed(asked: ValueChain) -> list[views.MetaNode]:
                return others

            monkeypatch.setattr(views, "bonded_meta_nodes", listed)
            await founding.check_alone(chain)
            others[1] = replace(others[1], is_suspended=False)
            with pytest.raises(ObservingError, match="2 active meta nodes"):
                await founding.check_alone(chain)

    asyncio.run(go())
