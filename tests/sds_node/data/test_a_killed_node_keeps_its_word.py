"""A node in a process of its own is killed under puts; what it acknowledged is there afterwards, and each limit stores one share that is paid once."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

from modules.settlement import leaves
from sds_node.client.session import open_session
from sds_node.client.transfer import NodeFailed, Place, Settings, put_share
from sds_node.merkle import share_root
from sds_node.p2p import address_of
from sds_node.wire.node import Node
from sds_node.wire.peer import Direct, Peer
from tests.sds_node.data.network import Clock, Issuer, content, lone, node_key, resource
from tests.sds_node.documenting import CHAIN_ID, NOW_S, PAYER, Chain

CHILD = """
import asyncio, sys
from pathlib import Path
import structlog
structlog.configure(logger_factory=structlog.PrintLoggerFactory(file=sys.stderr))
from tests.sds_node.data.network import Clock, resource

async def main():
    node = await resource(Path(sys.argv[1]), Clock(), 1)
    print(node.port, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""
PUTS = 24
KILLED_AFTER = 9
"""Acknowledgements that are waited for before the kill; more puts are under way then."""


def test_nothing_acknowledged_is_lost_and_what_was_cut_is_stored_under_its_limit(tmp_path: Path) -> None:
    clock, shares = Clock(), [content(number, 20_000 + number) for number in range(PUTS)]
    session = open_session(PAYER, CHAIN_ID, max_noz=10**12, actions=[1, 2], clock=clock)
    key = bytes(node_key(1).verify_key)
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path / "node")], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    port = int(child.stdout.readline())
    acknowledged: dict[int, Place] = {}
    tried: dict[int, Place] = {}

    async def under_the_kill() -> None:
        caller = Node(session.identity, CHAIN_ID)
        issuer, peer = Issuer(session, caller, []), Peer(caller, address_of(key), [Direct("127.0.0.1", port)])

        async def one(number: int) -> None:
            data = shares[number]
            limit = issuer.limit(peer.address, 2, len(data), len(data) // 2, share_root=share_root(data), object_root=b"o" * 32)
            tried[number] = place = Place(peer, key, limit, issuer.certificate)
            await put_share(session, place, lone(data), data, Settings(stall_s=60.0))
            acknowledged[number] = place
            if len(acknowledged) == KILLED_AFTER:
                child.send_signal(signal.SIGKILL)

        results = await asyncio.gather(*(one(number) for number in range(PUTS)), return_exceptions=True)
        assert all(result is None or isinstance(result, NodeFailed) for result in results)
        await caller.close()

    async def afterwards() -> None:
        node = await resource(tmp_path / "node", clock, 1)
        caller = Node(session.identity, CHAIN_ID)
        try:
            peer = Peer(caller, node.address, [Direct(node.host, node.port)])
            found = {leaves.identity(leaf): leaf for leaf in node.leaves()}
            for number, place in acknowledged.items():
                leaf = found[bytes(place.limit.serial)]
                assert leaf.noz == len(shares[number]) // 2
                assert leaves.fault(leaf, CHAIN_ID, Chain().ledger_key) is None
                assert node.store.read(share_root(shares[number])) == shares[number]
            assert list(node.receipts.verify()) == []
            known = [number for number, place in tried.items() if node.receipts.find(bytes(place.limit.serial)).result() is not None]
            assert set(acknowledged) <= set(known)
            for number in known:
                again = Place(peer, key, tried[number].order_limit, tried[number].certificate)
                # What was stored is acknowledged again, without a byte moved; what was cut is stored now, also where the kill came just before its receipt.
                await put_share(session, again, lone(shares[number]), shares[number])
                assert node.store.read(share_root(shares[number])) == shares[number]
            assert sorted(leaf.noz for leaf in node.leaves(NOW_S)) == sorted(len(shares[number]) // 2 for number in known)
        finally:
            await caller.close()
            await node.close()

    try:
        asyncio.run(under_the_kill())
    finally:
        child.kill()
        child.stdout.close()
        child.wait()
    assert len(acknowledged) >= KILLED_AFTER
    asyncio.run(afterwards())
