"""What tests of a rebuilt ledger have in common: a network that loses its ledger and gets it back."""

from __future__ import annotations

import asyncio
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sds_node.meta.federation import genesis
from sds_node.meta.federation.comet import CometHome
from sds_node.meta.ledger.transfer import import_ledger
from sds_node.meta.rebuild.rebuild import Rebuilt, Settings, rebuild, roots_of
from sds_node.meta.rules.apply import rules
from sds_node.meta.rules.invariants import check
from sds_node.testing.chain import CHAIN_ID
from sds_node.testing.network import StorageNetwork
from sds_node.testing.order import DrivenOrder


def content(number: int, size_bytes: int) -> bytes:
    return random.Random(number).randbytes(size_bytes)


async def given(network: StorageNetwork) -> None:
    """Wait until the nodes have all manifests."""
    for meta in network.metas:
        if meta.node is not None:
            node = meta.node
            lagging, sequence = node.giving._lagging, node.ledger.head.sequence
            async with asyncio.timeout(60):
                while await lagging.place() < sequence or await lagging.nodes():  # noqa: ASYNC110 - its file has no event for it
                    await asyncio.sleep(0.2)


async def lose_ledgers(network: StorageNetwork) -> None:
    """All meta nodes stop, and their disks are gone."""
    for meta in network.metas:
        await network.stop_meta(meta.number)
        shutil.rmtree(meta.home.root / "data")
        shutil.rmtree(meta.home.root / "comet", ignore_errors=True)
        (meta.home.root / "data").mkdir()
    if network.order is not None:
        # Blocks begin anew with the new ledger.
        await network.order.close()
        network.order = DrivenOrder(len(network.metas), network.clock)
        network._stack.push_async_callback(network.order.close)


async def made_anew(network: StorageNetwork, file: Path, number: int = 0, check: Callable[[Any], None] | None = check, **settings: Any) -> Rebuilt:
    """``spd ledger rebuild`` by a meta node that does not run."""
    meta = network.metas[number]
    return await rebuild(
        network.client(), meta.keys, ("127.0.0.1", meta.port), file, network.clock, Settings(**{"wait_s": 90, **settings}), check=check
    )


async def take(network: StorageNetwork, file: Path) -> None:
    """``spd ledger import`` or ``spd ledger join`` on all meta nodes, and their start."""
    for meta in network.metas:
        if len(network.metas) == 1:
            with file.open("rb") as stream:
                import_ledger(meta.home.ledger_url, rules(CHAIN_ID), CHAIN_ID, stream.read)
        else:
            genesis.join(meta.home.ledger_url, CometHome(meta.home.comet), meta.keys, file)
        if meta.number == 0:
            shutil.copyfile(roots_of(file), meta.home.root / "data" / "roots.db")
    for meta in network.metas:
        await network.start_meta(meta.number)
