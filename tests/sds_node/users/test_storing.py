"""A user stores files and reads them: lease, plan, places, acknowledgements, commit, records, places to read."""

from __future__ import annotations

from pathlib import Path

import pytest

from modules.settlement.documents import LIMIT_DOMAIN, SessionGrant, signed_by_key
from modules.settlement.leaves import faults_of_grant, faults_of_limit
from sds_node import asking, transfers
from sds_node.meta.rules.commit import object_id
from tests.sds_node.rules.support import CHAIN_ID, meta_key
from tests.sds_node.users.support import limit_of, lookup, meta_node, share_root_of

MIB = 1 << 20


@pytest.mark.asyncio
async def test_an_object_goes_into_the_ledger_and_can_be_read(tmp_path: Path) -> None:
    async with meta_node(tmp_path) as meta:
        user = await meta.user()
        size = 33 * MIB
        plan = await user.plan(size)
        assert (plan.data_shares, plan.total_shares, plan.warning) == (2, 5, "")
        lease_id = await user.lease(plan.bill_noz)
        done = await user.keep(lease_id, 1, size)
        assert done.is_complete
        assert done.object_id == object_id(lease_id, 1)
        found = await user.find(lookup_id=lookup(1))
        assert (found.name, found.object.segments, found.object.state) == (b"name1", 2, asking.ObjectRow().state + 2)
        assert int(found.object.escrow_noz) == done.escrow_noz
        reading = await user.lease(10**6)
        asks = [asking.GetAsk(object_id=done.object_id, segment=1, index=index, size_bytes=1_000) for index in range(5)]
        places = await user.get_places(reading, *asks)
        assert [one.ask for one in places] == [0, 1, 2, 3, 4]
        for place in places:
            limit = limit_of(place)
            assert (limit.share_root, limit.object_root) == (share_root_of(1, 1, place.index), found.object.root)
            assert (limit.max_bytes, limit.max_noz, limit.action) == (1_000, 1_000, 1)
            assert list(faults_of_limit(limit, CHAIN_ID)) == []
            assert list(faults_of_grant(SessionGrant.FromString(user.session.grant.body), limit, CHAIN_ID)) == []
            assert signed_by_key(LIMIT_DOMAIN, place.order_limit.body, bytes(meta_key(1).verify_key), place.order_limit.signature)
        await meta.users.close()
        assert {method for _, method, _ in meta.told} == {transfers.CONFIRM}
        copies = [one for _, _, body in meta.told for one in transfers.CopyList.FromString(body).copies]
        assert len(copies) == 10
