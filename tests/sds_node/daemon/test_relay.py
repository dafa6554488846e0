"""A node behind NAT: it listens nowhere, and others reach it through a meta node that relays."""

from __future__ import annotations

from pathlib import Path

import pytest

from sds_node import transfers
from sds_node.wire.errors import Refused
from sds_node.wire.identity import Identity
from sds_node.wire.node import Node
from sds_node.wire.peer import Direct, Peer, Through
from sds_node.wire.relay import serve
from tests.sds_node.daemon.meta import meta_nodes, node_address, running, settings, until
from tests.sds_node.documenting import CHAIN_ID

pytestmark = pytest.mark.asyncio


async def test_a_node_without_a_port_is_reached_through_its_meta_node(tmp_path: Path) -> None:
    async with meta_nodes() as [meta]:
        assert meta.server is not None
        serve(meta.server.node)
        async with running(tmp_path / "home", config=settings(meta, relay=True)) as node:
            assert node.listening is None
            await until(lambda: any(link.is_online for link in node.links.values()))
            assert (meta.hellos[0].wants_relay, meta.hellos[0].endpoint) == (True, "")
            caller = Node(Identity.ephemeral(), CHAIN_ID)
            relay = Peer(caller, meta.address, [Direct(meta.host, meta.port)])
            peer = Peer(caller, node_address(), [Through(relay)])
            with pytest.raises(Refused) as refused:
                await peer.ask(transfers.STATUS)
            assert refused.value.code == transfers.NOT_ALLOWED, "the node itself answers, and this caller is no meta node"
            await caller.close()


async def test_a_meta_node_asks_a_node_back_over_its_own_connection(tmp_path: Path) -> None:
    async with meta_nodes() as [meta], running(tmp_path / "home", meta) as node:
        await until(lambda: any(link.is_online for link in node.links.values()))
        assert meta.server is not None
        [connection] = meta.server.node.connections_of(node.address)
        async with await connection.call(transfers.STATUS, ended=True) as stream:
            report = transfers.NodeReport.FromString(await stream.receive_all(4_096))
        assert (report.chain_id, report.copies, report.pending_receipts) == (CHAIN_ID, 0, 0)
