"""Places: nodes and limits for the shares of a put or a get; what is asked wrongly is refused with a reason."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from modules.settlement.documents import LIMIT_DOMAIN, SessionGrant, signed_by_key
from modules.settlement.leaves import faults_of_grant, faults_of_limit, serial_prefix
from sds_node import asking
from sds_node.meta.lateness import FREE_S
from sds_node.meta.rules.commit import object_id
from sds_node.meta.rules.tables import STATE
from sds_node.meta.users import places as module
from sds_node.meta.users.placement import Barred, Pool, seed_of, segment_seed
from sds_node.p2p import address_of
from sds_node.schemes import FIVE_OF_TEN, ONE_COPY, TEN_OF_THIRTY, THREE_REPLICAS, TWO_OF_FIVE, bill_noz
from sds_node.transfers import ANY_ROOT
from sds_node.wire.errors import Busy, Refused
from tests.sds_node.rules.support import CHAIN_ID, meta, meta_key, wallet
from tests.sds_node.users.support import QUICK, Meta, Nodes, User, limit_of, meta_node, put_ask, share_root_of, stored_object, stored_segment
from tests.sds_node.users.test_sessions import grant, refused

pytestmark = pytest.mark.asyncio
MIB = 1 << 20


def changed(ask: Any, **changes: Any) -> Any:
    made = asking.PutAsk.FromString(ask.SerializeToString())
    for name, value in changes.items():
        if name == "share_roots":
            made.ClearField(name)
            made.share_roots.extend(value)
        else:
            setattr(made, name, value)
    return made


async def ready(meta: Meta, noz: int = 10**9) -> tuple[User, bytes]:
    user = await meta.user()
    return user, await user.lease(noz)


# --- plans -------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("nodes", "size", "scheme"),
    [
        (1, 5, ONE_COPY),
        (6, MIB, TWO_OF_FIVE),
        (6, MIB - 1, THREE_REPLICAS),
        (12, MIB, FIVE_OF_TEN),
        (36, 70 * MIB, TEN_OF_THIRTY),
        (6, 0, THREE_REPLICAS),
    ],
)
async def test_a_plan_says_the_scheme_and_a_lease_that_is_enough(tmp_path: Path, nodes: int, size: int, scheme: Any) -> None:
    async with meta_node(tmp_path, nodes) as meta:
        user = await meta.user()
        plan = await user.plan(size)
        assert (plan.data_shares, plan.total_shares) == (scheme.k, scheme.n)
        assert ("lost" in plan.warning) == (nodes == 1)
        assert bill_noz(scheme, size) <= plan.bill_noz <= bill_noz(scheme, size) * 1.03 + 60
        if size:
            lease_id = await user.lease(plan.bill_noz)
            assert (await user.keep(lease_id, 1, size)).is_complete
            held = meta.users.leases.get(lease_id)
            assert held is not None
            assert held.left_noz == 0


async def test_plans_of_sizes_that_no_object_has_and_without_nodes_are_refused(tmp_path: Path) -> None:
    async with meta_node(tmp_path) as meta:
        user = await meta.user()
        await refused(asking.BAD_ASK, user, asking.OBJECT_PLAN, asking.PlanHead(size_bytes=(1 << 44) + 1))
        meta.nodes.away.update(range(1, 7))
        await refused(asking.TOO_FEW_NODES, user, asking.OBJECT_PLAN, asking.PlanHead(size_bytes=5))


# --- puts --------------------------------------------------------------------------------------------------------------------------------


async def test_each_share_gets_a_node_of_its_own_and_a_limit_that_the_chain_would_pay(tmp_path: Path) -> None:
    async with meta_node(tmp_path, 12) as meta_:
        user, lease_id = await ready(meta_)
        places = await user.put_places(lease_id, put_ask(7, 40 * MIB, 1, FIVE_OF_TEN), put_ask(7, 40 * MIB, 0, FIVE_OF_TEN))
        assert [(one.ask, one.index) for one in places] == [(ask, index) for ask in range(2) for index in range(10)]
        for ask in range(2):
            mine = [one for one in places if one.ask == ask]
            assert len({one.p2p_key for one in mine}) == 10
            serials = [int.from_bytes(limit_of(one).serial, "big") for one in mine]
            assert serials == list(range(serials[0], serials[0] + 10))
        grant = SessionGrant.FromString(user.session.grant.body)
        for place in places:
            limit = limit_of(place)
            number = meta_.nodes.number_of(place.p2p_key)
            assert place.endpoint == f"127.{number}.0.1:18081"
            assert list(faults_of_limit(limit, CHAIN_ID)) == list(faults_of_grant(grant, limit, CHAIN_ID)) == []
            assert signed_by_key(LIMIT_DOMAIN, place.order_limit.body, bytes(meta_key(1).verify_key), place.order_limit.signature)
            assert limit.serial[:12] == serial_prefix(meta(1)) + (1).to_bytes(4, "big")
            assert (limit.object_root, limit.action, limit.fund) == (object_id(lease_id, 7), 2, 1)
            assert limit.share_root == share_root_of(7, 1 - place.ask, place.index)
            assert limit.max_noz == limit.max_bytes // 2
            assert limit.expires_s == limit.created_s + 600


async def test_shares_that_are_not_coded_yet_get_limits_for_any_root(tmp_path: Path) -> None:
    async with meta_node(tmp_path) as meta:
        user, lease_id = await ready(meta)
        for place in await user.put_places(lease_id, put_ask(1, 2 * MIB, 0, TWO_OF_FIVE, is_coded=False)):
            assert limit_of(place).share_root == ANY_ROOT


async def test_the_same_ask_gets_the_same_places_and_costs_nothing_more(tmp_path: Path) -> None:
    async with meta_node(tmp_path) as meta:
        user, lease_id = await ready(meta)
        ask = put_ask(1, 2 * MIB, 0, TWO_OF_FIVE)
        first = await user.put_places(lease_id, ask)
        held = meta.users.leases.get(lease_id)
        assert held is not None
        left = held.left_noz
        assert await user.put_places(lease_id, ask) == first
        assert held.left_noz == left


async def test_content_after_content_for_one_segment_costs_a_tenth_of_each_and_not_for_ever(tmp_path: Path) -> None:
    """Each has limits of its own, and nodes take it in; one at most is stored."""
    async with meta_node(tmp_path) as meta:
        user, lease_id = await ready(meta)
        ask = put_ask(1, 2 * MIB, 0, TWO_OF_FIVE)
        await user.put_places(lease_id, ask)
        held = meta.users.leases.get(lease_id)
        assert held is not None
        for times in (1, 2):
            ask.share_roots[0] = bytes([times]) * 32
            await user.put_places(lease_id, ask)
            assert held.replaced_noz == times * 5 * MIB
        ask.share_roots[0] = b"\3" * 32
        assert "other share roots 2 times" in await refused(
            asking.BAD_ASK, user, asking.PLACE_PUT, asking.PlacePutHead(lease_id=lease_id, segments=[ask])
        )
        assert held.replaced_noz == 10 * MIB


async def test_noz_of_a_place_are_kept_until_its_segment_is_committed(tmp_path: Path) -> None:
    async with meta_node(tmp_path) as meta:
        user, lease_id = await ready(meta)
        stored = await user.store(lease_id, 1, 2 * MIB)
        held = meta.users.leases.get(lease_id)
        assert held is not None
        left_noz = held.left_noz
        meta.clock.wait(2_000)
        meta.users.leases.expire(held)
        assert held.left_noz == left_noz
        await user.commit(stored.ask())
        meta.clock.wait(FREE_S)
        meta.users.leases.expire(held)
        assert held.left_noz == left_noz + 5 * MIB // 2  # no receipt of them came


async def test_places_that_are_no_longer_good_are_replaced_and_the_others_stay(tmp_path: Path) -> None:
    async with meta_node(tmp_path, 8) as meta:
        user, lease_id = await ready(meta)
        ask = put_ask(1, 2 * MIB, 0, TWO_OF_FIVE)
        first = await user.put_places(lease_id, ask)
        gone = meta.nodes.number_of(first[3].p2p_key)
        meta.nodes.away.add(gone)
        second = await user.put_places(lease_id, ask)
        assert [one.p2p_key for one in second[:3] + second[4:]] == [one.p2p_key for one in first[:3] + first[4:]]
        assert meta.nodes.number_of(second[3].p2p_key) not in {gone, *(meta.nodes.number_of(one.p2p_key) for one in first)}
        meta.clock.wait(550)  # the limits end soon
        third = await user.put_places(lease_id, ask)
        assert [one.p2p_key for one in third] == [one.p2p_key for one in second]
        assert {limit_of(one).serial for one in third}.isdisjoint(limit_of(one).serial for one in second)


async def test_nodes_are_those_that_the_first_block_after_the_lease_draws(tmp_path: Path) -> None:
    async with meta_node(tmp_path, 12) as meta:
        await meta.observe(block_hash=b"\x01" * 32)
        user, lease_id = await ready(meta)
        meta.clock.wait(1)
        await meta.observe(block_hash=b"\x02" * 32)
        meta.clock.wait(1)
        await meta.observe(block_hash=b"\x03" * 32)
        places = await user.put_places(lease_id, put_ask(5, 100, 0, THREE_REPLICAS))
        seed = seed_of(b"\x02" * 32, lease_id, 5)
        drawn = Pool(meta.nodes.candidates(), lambda one: one.free_bytes).choose(3, 100, segment_seed(seed, 0, 0), Barred())
        assert drawn is not None
        assert [meta.nodes.number_of(one.p2p_key) for one in places] == [one.number for one in drawn]


async def test_when_no_block_comes_the_newest_one_is_taken_and_stays(tmp_path: Path) -> None:
    async with meta_node(tmp_path, 12) as meta:
        await meta.observe(block_hash=b"\x01" * 32)
        meta.clock.wait(1)
        user, lease_id = await ready(meta)
        await user.put_places(lease_id, put_ask(5, 100, 0, THREE_REPLICAS))
        held = meta.users.leases.get(lease_id)
        assert held is not None
        assert held.block_hash == b"\x01" * 32
        meta.clock.wait(1)
        await meta.observe(block_hash=b"\x02" * 32)
        await user.put_places(lease_id, put_ask(6, 100, 0, THREE_REPLICAS))
        assert held.block_hash == b"\x01" * 32


async def test_an_object_keeps_its_scheme_when_the_network_shrinks_or_grows(tmp_path: Path) -> None:
    async with meta_node(tmp_path, 12) as meta:
        user, lease_id = await ready(meta)
        await user.put_places(lease_id, put_ask(1, 40 * MIB, 0, FIVE_OF_TEN))
        meta.nodes.away.add(12)
        assert len(await user.put_places(lease_id, put_ask(1, 40 * MIB, 1, FIVE_OF_TEN))) == 10
        assert len(await user.put_places(lease_id, put_ask(2, 40 * MIB, 0, TWO_OF_FIVE))) == 5


async def test_free_space_is_not_promised_twice(tmp_path: Path) -> None:
    nodes = Nodes(3, free_bytes=1_500)
    async with meta_node(tmp_path, nodes=nodes) as meta:
        user, lease_id = await ready(meta)
        assert len(await user.put_places(lease_id, put_ask(1, 1_000, 0, THREE_REPLICAS))) == 3
        head = asking.PlacePutHead(lease_id=lease_id, segments=[put_ask(2, 1_000, 0, THREE_REPLICAS)])
        await refused(asking.TOO_FEW_NODES, user, asking.PLACE_PUT, head)
        assert len(await user.put_places(lease_id, put_ask(3, 500, 0, THREE_REPLICAS))) == 3
        meta.clock.wait(601)
        assert len(await user.put_places(lease_id, put_ask(2, 1_000, 0, THREE_REPLICAS))) == 3


@pytest.mark.parametrize(
    "changes",
    [
        {"data_shares": 1, "total_shares": 3},
        {"data_shares": 1, "total_shares": 1},
        {"data_shares": 0},
        {"segment_bytes": 5},
        {"segment_bytes": 0},
        {"segment": 1},
        {"segment": 1 << 31},
        {"object_bytes": 0},
        {"object_bytes": (1 << 44) + 1},
        {"object_bytes": (1 << 64) - 1},
        {"counter": 1 << 63},
        {"share_roots": [b"r" * 32]},
        {"share_roots": [b"r" * 31] * 5},
        {"share_roots": [b"r" * 32] * 6},
    ],
)
async def test_an_ask_that_does_not_fit_is_refused_and_leaves_nothing(tmp_path: Path, changes: dict[str, Any]) -> None:
    async with meta_node(tmp_path) as meta:
        user, lease_id = await ready(meta)
        bad = changed(put_ask(1, 2 * MIB, 0, TWO_OF_FIVE), **changes)
        await refused(asking.BAD_ASK, user, asking.PLACE_PUT, asking.PlacePutHead(lease_id=lease_id, segments=[bad]))
        held = meta.users.leases.get(lease_id)
        assert held is not None
        assert (held.left_noz, held.objects, held.limits) == (10**9, {}, 0)


async def test_an_object_cannot_change_its_size_or_come_twice_in_an_ask(tmp_path: Path) -> None:
    async with meta_node(tmp_path) as meta:
        user, lease_id = await ready(meta)
        ask = put_ask(1, 2 * MIB, 0, TWO_OF_FIVE)
        await user.put_places(lease_id, ask)
        head = asking.PlacePutHead(lease_id=lease_id, segments=[put_ask(1, 3 * MIB, 0, TWO_OF_FIVE)])
        assert "another object" in await refused(asking.BAD_ASK, user, asking.PLACE_PUT, head)
        other = put_ask(2, 2 * MIB, 0, TWO_OF_FIVE)
        await refused(asking.BAD_ASK, user, asking.PLACE_PUT, asking.PlacePutHead(lease_id=lease_id, segments=[other, other]))
        two = [other, put_ask(2, 3 * MIB, 0, TWO_OF_FIVE)]
        await refused(asking.BAD_ASK, user, asking.PLACE_PUT, asking.PlacePutHead(lease_id=lease_id, segments=two))


async def test_lists_are_bounded(tmp_path: Path) -> None:
    async with meta_node(tmp_path) as meta:
        user, lease_id = await ready(meta)
        ask = put_ask(1, 40 * MIB, 0, TWO_OF_FIVE)
        for count in (0, 17):
            await refused(asking.BAD_ASK, user, asking.PLACE_PUT, asking.PlacePutHead(lease_id=lease_id, segments=[ask] * count))
        for count in (0, 257):
            shares = [asking.GetAsk(object_id=b"o" * 32)] * count
            await refused(asking.BAD_ASK, user, asking.PLACE_GET, asking.PlaceGetHead(lease_id=lease_id, shares=shares))
        await user.put_places(lease_id, ask)
        for tried in ([bytes([at]) * 20 for at in range(65)], [b"short"]):
            await refused(asking.BAD_ASK, user, asking.PLACE_ANOTHER, asking.PlaceAnotherHead(lease_id=lease_id, segment=ask, index=0, tried=tried))
        for wrong in (b"", b"L" * 31, b"L" * 33):
            await refused(asking.BAD_ASK, user, asking.PLACE_PUT, asking.PlacePutHead(lease_id=wrong, segments=[ask]))


async def test_a_lease_of_another_session_or_one_that_has_ended_gives_nothing(tmp_path: Path) -> None:
    async with meta_node(tmp_path) as meta:
        user, lease_id = await ready(meta)
        head = asking.PlacePutHead(lease_id=lease_id, segments=[put_ask(1, 2 * MIB, 0, TWO_OF_FIVE)])
        for other in (await meta.user(), await meta.user(2)):
            assert "another session" in await refused(asking.LEASE_LOST, other, asking.PLACE_PUT, head)
            await refused(asking.LEASE_LOST, other, asking.LEASE_END, asking.LeaseEndHead(lease_id=lease_id))
        await user.end(lease_id)
        await refused(asking.LEASE_LOST, user, asking.PLACE_PUT, head)


async def test_a_lease_that_is_too_small_is_spent_and_gives_no_part(tmp_path: Path) -> None:
    async with meta_node(tmp_path) as meta:
        user = await meta.user()
        size = 2 * MIB
        bill = (await user.plan(size)).bill_noz
        lease_id = await user.lease(bill - 1)
        head = asking.PlacePutHead(lease_id=lease_id, segments=[put_ask(1, size, 0, TWO_OF_FIVE)])
        assert str(bill) in await refused(asking.LEASE_SPENT, user, asking.PLACE_PUT, head)
        assert len(await user.put_places(lease_id, put_ask(2, 100, 0, THREE_REPLICAS))) == 3


async def test_places_in_memory_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_IN_HAND", 8)
    async with meta_node(tmp_path) as meta:
        user, lease_id = await ready(meta)
        stored = await user.store(lease_id, 1, 2 * MIB)
        with pytest.raises(Busy):
            await user.put_places(lease_id, put_ask(2, 2 * MIB, 0, TWO_OF_FIVE))
        await user.commit(stored.ask())
        await user.put_places(lease_id, put_ask(2, 2 * MIB, 0, TWO_OF_FIVE))
        await user.end(lease_id)
        meta.clock.wait(600 + FREE_S)
        assert await meta.users.lending.settle_due() == 1
        assert meta.users.places._in_hand == 0


async def test_one_wallet_cannot_take_all_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_IN_HAND_OF_WALLET", 8)
    async with meta_node(tmp_path) as meta:
        await meta.buys(2)
        user, lease_id = await ready(meta)
        await user.put_places(lease_id, put_ask(1, 2 * MIB, 0, TWO_OF_FIVE))
        with pytest.raises(Busy):
            await user.put_places(await user.lease(), put_ask(1, 2 * MIB, 0, TWO_OF_FIVE))
        other = await meta.user(2)
        stored = await other.store(await other.lease(), 1, 2 * MIB)
        await other.commit(stored.ask())
        assert set(meta.users.places._in_hand_of) == {wallet(1)}
        await user.end(lease_id)
        meta.clock.wait(600 + FREE_S)
        await meta.users.lending.settle_due()
        assert not meta.users.places._in_hand_of


# --- another ------------------------------------------------------------------------------------------------------------------------------


async def test_a_node_that_failed_is_replaced_by_one_of_another_owner_and_network(tmp_path: Path) -> None:
    nodes = Nodes(9)
    async with meta_node(tmp_path, nodes=nodes) as meta:
        user, lease_id = await ready(meta)
        ask = put_ask(1, 2 * MIB, 0, TWO_OF_FIVE)
        places = await user.put_places(lease_id, ask)
        used = [nodes.number_of(one.p2p_key) for one in places]
        spare = [number for number in range(1, 10) if number not in used]
        nodes.changes = {spare[0]: {"owner": nodes.owner(used[1])}, spare[1]: {"prefix": nodes.candidates()[used[2] - 1].prefix}}
        failed = nodes.address(used[0])
        first = await user.another(lease_id, ask, 0, [failed])
        assert nodes.number_of(first[0].p2p_key) in spare[2:]
        assert limit_of(first[0]).share_root == share_root_of(1, 0, 0)
        assert await user.another(lease_id, ask, 0, [failed]) == first  # asked again
        tried = [failed, nodes.address(nodes.number_of(first[0].p2p_key))]
        second = await user.another(lease_id, ask, 0, tried)
        assert {nodes.number_of(first[0].p2p_key), nodes.number_of(second[0].p2p_key)} == set(spare[2:])
        assert await user.another(lease_id, ask, 0, [*tried, nodes.address(nodes.number_of(second[0].p2p_key))]) == []
        assert [number for number, _ in meta.failures] == [used[0], nodes.number_of(first[0].p2p_key), nodes.number_of(second[0].p2p_key)]


async def test_asked_again_after_that_all_shares_get_serials_in_a_row_at_the_nodes_they_have(tmp_path: Path) -> None:
    async with meta_node(tmp_path, 9) as meta:
        user, lease_id = await ready(meta)
        ask = put_ask(1, 2 * MIB, 0, TWO_OF_FIVE)
        places = await user.put_places(lease_id, ask)
        places[2] = (await user.another(lease_id, ask, 2, [meta.nodes.address(meta.nodes.number_of(places[2].p2p_key))]))[0]
        again = await user.put_places(lease_id, ask)
        assert [one.p2p_key for one in again] == [one.p2p_key for one in places]
        first = int.from_bytes(limit_of(again[0]).serial, "big")
        assert [int.from_bytes(limit_of(one).serial, "big") for one in again] == list(range(first, first + 5))
        assert await user.put_places(lease_id, ask) == again


async def test_whatever_shares_got_other_places_the_object_is_committed(tmp_path: Path) -> None:
    async with meta_node(tmp_path, 12) as meta:
        user, lease_id = await ready(meta)
        objects, serials = [], list[bytes]()
        for counter, replaced in enumerate([(0, 2), (2, 0), (1, 2), (2, 1, 0), (0, 0, 2), (1, 1), (0, 1, 2, 2)], 1):
            ask = put_ask(counter, 1_000, 0, THREE_REPLICAS)
            places = await user.put_places(lease_id, ask)
            for index in replaced:
                (places[index],) = await user.another(lease_id, ask, index, [meta.nodes.address(meta.nodes.number_of(places[index].p2p_key))])
            objects.append(stored_object(counter, 1_000, THREE_REPLICAS, [stored_segment(meta.nodes, ask, places)]))
            serials += [limit_of(one).serial for one in places]
        done = await user.commit(asking.CommitAsk(lease_id=lease_id, objects=objects))
        assert [one.is_complete for one in done] == [True] * len(objects)
        assert len({*serials}) == len(serials)


async def test_the_owner_of_a_place_that_was_replaced_gets_none_for_another_share(tmp_path: Path) -> None:
    nodes = Nodes(12)
    async with meta_node(tmp_path, nodes=nodes) as meta:
        user, lease_id = await ready(meta)
        ask = put_ask(1, 1_000, 0, THREE_REPLICAS)
        first, second, third = (nodes.number_of(one.p2p_key) for one in await user.put_places(lease_id, ask))
        (now,) = await user.another(lease_id, ask, 0, [nodes.address(first)])
        # It may have share 0 all the same, and all other nodes are its owner's.
        used = {first, second, third, nodes.number_of(now.p2p_key)}
        nodes.changes = {number: {"owner": nodes.owner(first)} for number in range(1, 13) if number not in used}
        assert await user.another(lease_id, ask, 1, [nodes.address(second)]) == []
        assert await user.another(lease_id, ask, 0, [nodes.address(nodes.number_of(now.p2p_key))]) != []


async def test_owners_and_networks_that_a_session_bars_hold_nothing_of_it(tmp_path: Path) -> None:
    nodes = Nodes(7)
    async with meta_node(tmp_path, nodes=nodes) as meta:
        user, lease_id = await ready(meta)
        session = meta.users.sessions.of(address_of(user.session.public_key))
        session.barred.owners.add(nodes.owner(1))
        session.barred.prefixes.add(nodes.candidates()[1].prefix)
        ask = put_ask(1, 2 * MIB, 0, TWO_OF_FIVE)
        places = await user.put_places(lease_id, ask)
        assert {nodes.number_of(one.p2p_key) for one in places} == {3, 4, 5, 6, 7}
        assert await user.another(lease_id, ask, 0, [nodes.address(nodes.number_of(places[0].p2p_key))]) == []


async def test_a_node_that_failed_once_does_not_come_again(tmp_path: Path) -> None:
    async with meta_node(tmp_path, 9) as meta:
        user, lease_id = await ready(meta)
        ask = put_ask(1, 2 * MIB, 0, TWO_OF_FIVE)
        now = (await user.put_places(lease_id, ask))[0]
        had = set()
        while True:
            number = meta.nodes.number_of(now.p2p_key)
            assert number not in had
            had.add(number)
            found = await user.another(lease_id, ask, 0, [meta.nodes.address(number)])
            if not found:
                break
            now = found[0]
        assert len(had) == 5


async def test_a_lease_that_ends_while_a_get_is_looked_up_gives_nothing(tmp_path: Path) -> None:
    async with meta_node(tmp_path) as meta:
        user, lease_id = await ready(meta)
        done = await user.keep(lease_id, 1, 2 * MIB)
        of = meta.roots.of

        async def slow(rows: Any) -> Any:
            await user.end(lease_id)
            return await of(rows)

        meta.roots.of = slow  # type: ignore[assignment, method-assign]
        head = asking.PlaceGetHead(lease_id=lease_id, shares=[asking.GetAsk(object_id=done.object_id, segment=0, index=0, size_bytes=5)])
        await refused(asking.LEASE_LOST, user, asking.PLACE_GET, head)


async def test_a_client_cannot_ask_for_other_places_until_it_has_those_it_wants(tmp_path: Path) -> None:
    async with meta_node(tmp_path, 34) as meta:
        user, lease_id = await ready(meta)
        ask = put_ask(1, 20 * MIB, 0, FIVE_OF_TEN)
        places = await user.put_places(lease_id, ask)
        for at in range(20):
            places[at % 10] = (await user.another(lease_id, ask, at % 10, [meta.nodes.address(meta.nodes.number_of(places[at % 10].p2p_key))]))[0]
        held = meta.users.leases.get(lease_id)
        assert held is not None
        before = held.left_noz
        assert await user.another(lease_id, ask, 0, [meta.nodes.address(meta.nodes.number_of(places[0].p2p_key))]) == []
        assert held.left_noz == before


async def test_a_place_that_is_given_up_costs_what_one_costs_that_is_not_used(tmp_path: Path) -> None:
    async with meta_node(tmp_path, 9) as meta:
        user, lease_id = await ready(meta)
        ask = put_ask(1, 2 * MIB, 0, TWO_OF_FIVE)
        places = await user.put_places(lease_id, ask)
        places[0] = (await user.another(lease_id, ask, 0, [meta.nodes.address(meta.nodes.number_of(places[0].p2p_key))]))[0]
        stored = stored_object(1, 2 * MIB, TWO_OF_FIVE, [stored_segment(meta.nodes, ask, places)])
        await user.commit(asking.CommitAsk(lease_id=lease_id, objects=[stored]))
        assert (await meta.get(STATE, 1)).repair_paid_noz == -(-MIB // 10)
        second = await user.lease()
        places = await user.put_places(second, ask)
        await user.another(second, ask, 0, [meta.nodes.address(meta.nodes.number_of(places[0].p2p_key))])
        await user.end(second)
        meta.clock.wait(600 + FREE_S)
        await meta.users.lending.settle_due()
        assert (await meta.get(STATE, 1)).repair_paid_noz == -(-MIB // 10) + -(-6 * MIB // 10)


async def test_only_nodes_that_had_the_share_are_reported(tmp_path: Path) -> None:
    async with meta_node(tmp_path, 9) as meta:
        user, lease_id = await ready(meta)
        ask = put_ask(1, 2 * MIB, 0, TWO_OF_FIVE)
        places = await user.put_places(lease_id, ask)
        strangers = [meta.nodes.address(number) for number in range(1, 10) if number != meta.nodes.number_of(places[0].p2p_key)]
        assert await user.another(lease_id, ask, 0, strangers) == [places[0]]
        assert meta.failures == []


async def test_another_place_needs_a_first_one(tmp_path: Path) -> None:
    async with meta_node(tmp_path) as meta:
        user, lease_id = await ready(meta)
        ask = put_ask(1, 2 * MIB, 0, TWO_OF_FIVE)
        head = asking.PlaceAnotherHead(lease_id=lease_id, segment=ask, index=0)
        await refused(asking.BAD_ASK, user, asking.PLACE_ANOTHER, head)
        await user.put_places(lease_id, ask)
        await refused(asking.BAD_ASK, user, asking.PLACE_ANOTHER, asking.PlaceAnotherHead(lease_id=lease_id, segment=ask, index=5))
        other = changed(ask, share_roots=[b"r" * 32] * 5)
        await refused(asking.BAD_ASK, user, asking.PLACE_ANOTHER, asking.PlaceAnotherHead(lease_id=lease_id, segment=other, index=0))


# --- gets -----------------------------------------------------------------------------------------------------------------------------------


async def test_shares_that_nobody_holds_or_whose_node_is_away_are_left_out(tmp_path: Path) -> None:
    async with meta_node(tmp_path) as meta:
        user, lease_id = await ready(meta)
        done = await user.keep(lease_id, 1, 2 * MIB, missing=[4])
        asks = [asking.GetAsk(object_id=done.object_id, segment=0, index=index, size_bytes=10) for index in range(5)]
        places = await user.get_places(lease_id, *asks)
        assert [one.index for one in places] == [0, 1, 2, 3]
        meta.nodes.away.add(meta.nodes.number_of(places[1].p2p_key))
        again = await user.get_places(lease_id, *asks)
        assert [one.index for one in again] == [0, 2, 3]
        assert {limit_of(one).serial for one in again}.isdisjoint(limit_of(one).serial for one in places)


async def test_what_is_read_costs_a_noz_a_byte(tmp_path: Path) -> None:
    async with meta_node(tmp_path) as meta:
        user, storing = await ready(meta)
        done = await user.keep(storing, 1, 2 * MIB)
        lease_id = await user.lease(2_100)
        ask = asking.GetAsk(object_id=done.object_id, segment=0, index=0, size_bytes=1_000)
        await user.get_places(lease_id, ask, ask)
        await refused(asking.LEASE_SPENT, user, asking.PLACE_GET, asking.PlaceGetHead(lease_id=lease_id, shares=[ask]))
        meta.clock.wait(600 + FREE_S)
        assert len(await user.get_places(lease_id, changed_get(ask, size_bytes=100))) == 1


def changed_get(ask: Any, **changes: Any) -> Any:
    made = asking.GetAsk.FromString(ask.SerializeToString())
    for name, value in changes.items():
        setattr(made, name, value)
    return made


async def test_asks_for_what_is_not_there_or_beyond_a_share_are_refused(tmp_path: Path) -> None:
    async with meta_node(tmp_path) as meta:
        user, lease_id = await ready(meta)
        done = await user.keep(lease_id, 1, 2 * MIB)
        good = asking.GetAsk(object_id=done.object_id, segment=0, index=0, size_bytes=MIB)
        await user.get_places(lease_id, good)
        for code, changes in (
            (asking.NOT_HELD, {"object_id": b"o" * 32}),
            (asking.BAD_ASK, {"object_id": b"o" * 31}),
            (asking.BAD_ASK, {"segment": 1}),
            (asking.BAD_ASK, {"segment": (1 << 32) - 1}),
            (asking.BAD_ASK, {"index": 5}),
            (asking.BAD_ASK, {"size_bytes": 0}),
            (asking.BAD_ASK, {"size_bytes": MIB + 1}),
        ):
            await refused(code, user, asking.PLACE_GET, asking.PlaceGetHead(lease_id=lease_id, shares=[good, changed_get(good, **changes)]))


async def test_somebody_elses_private_object_is_not_held_and_a_public_one_is_read(tmp_path: Path) -> None:
    async with meta_node(tmp_path) as meta:
        owner, lease_id = await ready(meta)
        private = await owner.keep(lease_id, 1, 2 * MIB)
        public = await owner.keep(lease_id, 2, 2 * MIB, file={"is_public": True})
        await meta.buys(2)
        other = await meta.user(2)
        theirs = await other.lease(10**6)
        asks = [asking.GetAsk(object_id=one.object_id, segment=0, index=0, size_bytes=10) for one in (private, public)]
        await refused(asking.NOT_HELD, other, asking.PLACE_GET, asking.PlaceGetHead(lease_id=theirs, shares=asks))
        assert len(await other.get_places(theirs, asks[1])) == 1
        assert len(await owner.get_places(lease_id, *asks)) == 2


async def test_limits_never_hold_longer_than_lease_and_grant(tmp_path: Path) -> None:
    async with meta_node(tmp_path, settings=dataclasses.replace(QUICK, limit_s=3_600)) as meta:
        user = await meta.user(life_s=1_000)
        short = await user.certificate(10**8, seconds=500)
        for place in await user.put_places(short.lease_id, put_ask(1, 100, 0, THREE_REPLICAS)):
            assert limit_of(place).expires_s == short.expires_s
        meta.clock.wait(499)
        for place in await user.put_places(short.lease_id, put_ask(2, 100, 0, THREE_REPLICAS)):
            assert limit_of(place).expires_s == limit_of(place).created_s + 1
        meta.clock.wait(1)
        head = asking.PlacePutHead(lease_id=short.lease_id, segments=[put_ask(3, 100, 0, THREE_REPLICAS)])
        with pytest.raises(Refused):
            await user.ask(asking.PLACE_PUT, head)


async def test_a_limit_ends_with_the_grant_that_the_session_has_now(tmp_path: Path) -> None:
    async with meta_node(tmp_path) as meta:
        user, lease_id = await ready(meta)
        now_s = int(meta.clock())
        await user.ask(asking.SESSION_OPEN, asking.SessionHead(grant=grant(user, expires_s=now_s + 100)))
        for place in await user.put_places(lease_id, put_ask(1, 100, 0, THREE_REPLICAS)):
            assert limit_of(place).expires_s == now_s + 100
