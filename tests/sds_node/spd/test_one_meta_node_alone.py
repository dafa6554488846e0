"""spd works as the only active meta node of its chain, says so where it is not, and is told at the start what cannot be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sds_node.meta.daemon.home import Home, HomeError, Network, Settings
from sds_node.meta.daemon.running import Running
from sds_node.meta.relay.reading import ObservingError
from sds_node.testing.chain import CHAIN_ID
from sds_node.testing.network import StorageNetwork, key_of
from sds_node.value_chain import views
from sds_node.value_chain.client import ValueChain

pytestmark = pytest.mark.asyncio


async def test_beside_another_active_meta_node_it_does_not_start_and_one_that_came_later_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with StorageNetwork.started(tmp_path / "network", nodes=0, wallets=()) as network:
        await network.until(lambda: network.meta.observer.is_ready, "the chain is followed")
        running = Running(Home(tmp_path / "home"), key_of("meta owner"))
        client = network.client()
        assert await running._ready(client, network.meta_keys) == CHAIN_ID
        [own] = await views.bonded_meta_nodes(client)
        assert not any("meta nodes" in one for one in network.meta.problems())

        async def listed(chain: ValueChain) -> list[views.MetaNode]:
            return [own, replace(own, address=b"\x01" * 20)]

        monkeypatch.setattr(views, "bonded_meta_nodes", listed)
        with pytest.raises(ObservingError, match="2 active meta nodes"):
            await running._ready(client, network.meta_keys)

        network.meta.observer.active_metas = 2
        assert any("2 active meta nodes" in one for one in network.meta.problems())


async def test_it_does_not_start_where_nobody_could_reach_it(tmp_path: Path) -> None:
    home = Home(tmp_path / "home", Settings(network=Network(host="0.0.0.0")))
    home.make()
    with pytest.raises(HomeError, match=r"network\.endpoint"):
        await Running(home, key_of("meta owner")).run(_never, with_signals=False)


async def _never(node: object) -> None:
    raise AssertionError("it has begun")
