"""What a client and a resource node really sign for each other goes into a meta node's books, a window and an epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from chain.crypto import address as bech32
from modules.settlement.documents import OrderLimit
from sds_node.client.session import Session, open_session
from sds_node.client.transfer import Place, ShareToGet, get_share, last_receipts, put_share
from sds_node.documents import Lease as LeaseDocument
from sds_node.documents import LeaseCertificate, signature_of, signed
from sds_node.merkle import share_root
from sds_node.meta.books.epochs import EpochBooks
from sds_node.meta.books.receipts import HELD
from sds_node.meta.rules import tables
from sds_node.meta.rules.commit import object_id
from sds_node.transfers import whole
from sds_node.wire.node import Node
from sds_node.wire.peer import Direct, Peer
from tests.sds_node.audits.test_audits_find_what_is_missing import Resource, resource
from tests.sds_node.books.test_epochs_add_up import close
from tests.sds_node.books.world import CHAIN_ID, Lease, World, message, meta_key, node_key, owner, public, wallet, wallet_key, world
from tests.sds_node.data.network import content, lone

pytestmark = pytest.mark.asyncio
SIZE = 3 << 20


async def lease_of(made: World, session: Session) -> tuple[Lease, Any]:
    """A lease of the session, and its certificate by the one meta node."""
    noz = 10**9
    grant = session.grant
    take = message("TakeLease", wallet=wallet(), session_pubkey=session.public_key, fund=1, noz=noz, seconds=3_600, grant=grant)
    key = (await made.proposer.propose("take_lease", take)).result
    now_s = int(made.clock())
    document = LeaseDocument(
        chain_id=CHAIN_ID, lease_id=key, wallet=session.wallet, meta_node=bech32.encode(made.me, bech32.NODE), noz=noz, fund=1, created_s=now_s,
        expires_s=now_s + 3_600,
    )  # fmt: skip
    certificate = LeaseCertificate(body=document.SerializeToString(deterministic=True))
    signature = signature_of(document, certificate.body, meta_key())
    certificate.signatures.add(meta_node=document.meta_node, signature=signature)
    return Lease(key, 1, 1, {}), certificate


async def test_a_shares_way_in_and_out_pays_its_node(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        node: Resource = await resource(tmp_path / "node", 1, made)
        session = open_session(wallet_key(), CHAIN_ID, max_noz=10**12, actions=[1, 2], clock=made.clock)
        caller = Node(session.identity, CHAIN_ID)
        made.callers.append(caller)
        peer = Peer(caller, node.server.node.address, [Direct("127.0.0.1", node.port)])
        lease, certificate = await lease_of(made, session)
        data = content(1, SIZE)
        root = share_root(data)
        fields = {"max_bytes": SIZE, "session_pubkey": session.public_key, "share_root": root, "object_root": object_id(lease.id, 1)}
        limits = [signed(made.limit(lease, 1, SIZE // part, action=action, **fields), meta_key()) for action, part in ((2, 2), (1, 1))]
        to_put, to_get = (Place(peer, public(node_key(1)), one, certificate) for one in limits)
        share = lone(data, object_id=object_id(lease.id, 1))
        await put_share(session, to_put, share, data)
        into = bytearray(SIZE)
        await get_share(session, to_get, ShareToGet(share.segment_root, 0, 1, SIZE), [whole(SIZE)], memoryview(into))
        assert into == data
        await last_receipts(caller, 5.0)
        await made.store(lease, 1, SIZE, [1, 2, 3], bytes(OrderLimit.FromString(limits[0].body).serial))
        leaves = node.service._receipts.pending(int(made.clock()))
        assert await made.states(made.peer(1), *leaves) == [HELD, HELD]
        assert await made.windows.settle() == 2
        assert (await made.row(tables.EARNED, owner(1), 1, 1)).noz == SIZE // 2 + SIZE
        assert (await EpochBooks(made.ledger, made.books, made.windows).epoch(1, *await close(made))).receipts_count == 2
        await node.close()
