"""The whole way with real resource nodes: what the meta node issues is taken by nodes, what nodes acknowledge enters the ledger and is read back."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from chain.crypto import address as bech32
from modules.settlement import leaves
from sds_node import asking, transfers
from sds_node.client.transfer import GetWanted, ObjectReader, ObjectToGet, Place, PutWanted, StoredObject, put_object
from sds_node.documents import Lease
from sds_node.meta.rules.commit import object_id
from sds_node.p2p import address_of
from sds_node.schemes import TWO_OF_FIVE
from sds_node.wire.peer import Direct, Peer
from tests.sds_node.data.network import Resource, content, pieces_of, resource
from tests.sds_node.documenting import BENEFICIARY, Chain
from tests.sds_node.rules.support import CHAIN_ID, meta, meta_key
from tests.sds_node.users.support import Clock, Contact, Meta, Nodes, User, lookup, meta_node, stored_object

pytestmark = pytest.mark.asyncio
MIB = 1 << 20


class Metas(Chain):
    """The ledger's meta node 1."""

    def ledger_key(self, meta_node: bytes) -> bytes | None:
        return bytes(meta_key(1).verify_key) if meta_node == meta(1) else None

    def active_meta_nodes(self) -> list[bytes]:
        return [meta(1)]


class Real(Nodes):
    """A registry of nodes that run; all of them are paid to one account."""

    running: dict[int, Resource]

    def contact(self, number: int) -> Contact | None:
        found = super().contact(number)
        if found is None:
            return None
        node = self.running[number]
        return Contact(
            number, found.address, found.p2p_key, bytes(bech32.decode(BENEFICIARY)), f"{node.host}:{node.port}", None, number not in self.away
        )  # fmt: skip


@dataclass
class MetaIssuer:
    """What a client makes of the meta node's answers."""

    user: User
    lease_id: bytes
    certificate: Any
    counter: int
    object_bytes: int
    peers: dict[bytes, Peer] = field(default_factory=dict)

    def place(self, placed: Any) -> Place:
        host, port = placed.endpoint.rsplit(":", 1)
        address = address_of(placed.p2p_key)
        peer = self.peers.setdefault(address, Peer(self.user.peer.node, address, [Direct(host, int(port))]))
        return Place(peer, placed.p2p_key, placed.order_limit, self.certificate)

    def ask(self, wanted: PutWanted) -> Any:
        return asking.PutAsk(
            counter=self.counter, object_bytes=self.object_bytes, segment=wanted.segment, segment_bytes=wanted.segment_bytes,
            data_shares=wanted.scheme.k, total_shares=wanted.scheme.n, share_roots=wanted.share_roots,
        )  # fmt: skip

    async def for_put(self, wanted: PutWanted) -> Sequence[Place]:
        return [self.place(one) for one in await self.user.put_places(self.lease_id, self.ask(wanted))]

    async def another(self, wanted: PutWanted, index: int, tried: Collection[bytes]) -> Place | None:
        found = await self.user.another(self.lease_id, self.ask(wanted), index, sorted(tried))
        return self.place(found[0]) if found else None

    async def for_get(self, wanted: GetWanted) -> Place | None:
        ask = asking.GetAsk(
            object_id=object_id(self.lease_id, self.counter), segment=wanted.segment, index=wanted.index, size_bytes=wanted.size_bytes
        )  # fmt: skip
        found = await self.user.get_places(self.lease_id, ask)
        return self.place(found[0]) if found else None


async def committed(node: Meta, issuer: MetaIssuer, stored: StoredObject) -> Any:
    segments = []
    for one in stored.segments:
        made = asking.StoredSegment(share_roots=one.share_roots)
        for index, (place, ack) in sorted(one.acknowledged.items()):
            made.shares.add(index=index, p2p_key=place.node_key, order_limit=place.order_limit, ack=ack)
        segments.append(made)
    message = stored_object(issuer.counter, stored.size_bytes, stored.scheme, segments)
    assert message.root == stored.root
    return (await issuer.user.commit(asking.CommitAsk(lease_id=issuer.lease_id, objects=[message])))[0]


async def test_an_object_goes_to_nodes_and_comes_back_though_one_of_them_fails(tmp_path: Path) -> None:
    clock, nodes = Clock(), Real(7)
    nodes.running = {}
    try:
        for number in range(1, 8):
            nodes.running[number] = await resource(tmp_path / f"node{number}", clock, number, chain=Metas())
        async with meta_node(tmp_path, nodes=nodes, clock=clock) as node:
            user = await node.user()
            data = content(7, 33 * MIB)
            reply = await user.ask(asking.LEASE_TAKE, asking.LeaseHead(noz=10**9, seconds=3_600, fund=1), asking.LeaseReply)
            issuer = MetaIssuer(user, bytes(Lease.FromString(reply.certificate.body).lease_id), reply.certificate, 1, len(data))
            await nodes.running[3].server.close()  # the registry does not know it yet
            stored = await put_object(user.session, issuer, TWO_OF_FIVE, object_id(issuer.lease_id, 1), len(data), pieces_of(data))
            done = await committed(node, issuer, stored)
            assert done.is_complete
            found = await user.find(lookup_id=lookup(1))
            roots = await user.ask(asking.FILE_SEGMENTS, asking.SegmentRootsHead(object_id=done.object_id, limit=10), asking.SegmentRoots)
            wanted = ObjectToGet(found.object.root, found.object.size_bytes, TWO_OF_FIVE, tuple(bytes(one) for one in roots.roots))
            reader = ObjectReader(user.session, issuer, wanted)
            assert b"".join([bytes(piece) async for piece in reader.read()]) == data
            made = [leaf for number, one in nodes.running.items() if number != 3 for leaf in one.leaves(int(clock()))]
            assert len(made) >= 2 * 4
            for leaf in made:
                assert leaves.fault(leaf, CHAIN_ID, Metas().ledger_key) is None
            await node.users.close()
            for number, method, body in node.told:
                assert method == transfers.CONFIRM
                copies = transfers.CopyList.FromString(body).copies
                assert all(nodes.running[number].store.has(one.share_root, one.serial) for one in copies)
            for peer in issuer.peers.values():
                await peer.close()
    finally:
        for one in nodes.running.values():
            await one.close()
