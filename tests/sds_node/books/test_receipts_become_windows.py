"""Receipts from a node's hands into the ledger: held, windows, settled; what never gets there."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from chain.crypto import address as bech32
from modules.settlement.leaves import Leaf, fault, identity
from sds_node import asking
from sds_node.meta.books.receipts import HELD, REFUSED, SETTLED, UNSPECIFIED
from sds_node.meta.ledger.errors import Unavailable
from sds_node.meta.operations import LedgerRefused, Proposer
from sds_node.meta.rules import tables
from sds_node.resource.receipts import leaf_of
from sds_node.wire.errors import Refused
from tests.sds_node.books.world import (
    CHAIN_ID,
    Lease,
    World,
    message,
    meta_address,
    meta_key,
    new_object,
    node_key,
    observed_meta,
    observed_node,
    owner,
    public,
    session_key,
    sold,
    until,
    wallet,
    world,
)
from tests.serials import own_serial

pytestmark = pytest.mark.asyncio


async def earned(made: World, node: int, fund: int = 1) -> int:
    row = await made.row(tables.EARNED, owner(node), 1, fund)
    return 0 if row is None else row.noz


async def test_receipts_are_held_settled_and_earned(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        lease = await made.lease(100_000)
        leaves = [made.leaf(lease, 1, 1_000), made.leaf(lease, 1, 500), made.leaf(lease, 2, 700)]
        assert await made.states(made.peer(1), *leaves[:2]) == [HELD, HELD]
        assert await made.states(made.peer(2), leaves[2]) == [HELD]
        assert await made.windows.settle() == 3
        assert (await earned(made, 1), await earned(made, 2)) == (1_500, 700)
        row = await made.row(tables.WINDOW, made.me, 1)
        assert (row.items, row.noz, row.is_release) == (3, 2_200, False)
        assert sorted(made.done) == sorted((lease.id, leaf_serial(leaf), leaf.noz) for leaf in leaves)
        assert await made.states(made.peer(1), leaves[0]) == [SETTLED]
        assert await made.windows.settle() == 0


def leaf_serial(leaf: Any) -> bytes:

    found = identity(leaf)
    assert found is not None
    return found


async def test_a_larger_receipt_replaces_a_smaller_one_until_it_is_in_a_window(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        lease = await made.lease(100_000)
        limit = made.limit(lease, 1, 1_000)

        small, large, larger = (leaf_of(made.evidence(lease, limit, acked)) for acked in (400, 600, 1_000))
        peer = made.peer(1)
        assert await made.states(peer, small, large, small) == [HELD, HELD, HELD]
        await made.windows.settle()
        assert await earned(made, 1) == 600
        assert await made.states(peer, larger) == [SETTLED]
        await made.windows.settle()
        assert await earned(made, 1) == 600


async def test_a_receipt_that_is_not_final_waits_for_the_end_of_its_limit(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        lease = await made.lease(100_000)
        limit = made.limit(lease, 1, 1_000)

        leaf = leaf_of(made.evidence(lease, limit, receipt=made.receipt(lease, limit, 300, is_final=False)))
        peer = made.peer(1)
        answer = (await made.hand_in(peer, leaf))[0]
        assert answer.state == UNSPECIFIED
        assert "not final" in answer.reason
        made.clock.now_s += 601
        assert await made.states(peer, leaf) == [HELD]


async def test_what_is_not_right_is_refused_with_the_reason(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        lease = await made.lease(100_000)
        other = await made.lease(50, session=2)
        good = made.leaf(lease, 1, 1_000)
        forged = Leaf.FromString(good.SerializeToString())
        forged.traffic.receipt.signature = bytes(64)
        inflated = Leaf.FromString(good.SerializeToString())
        inflated.noz += 1
        limit = made.limit(lease, 1, 1_000)

        cases = {
            "session key has not signed": forged,
            "floor": inflated,
            "for stsds": made.leaf(lease, 2, 1_000),
            "never given such a serial": made.leaf(lease, 1, 10, serial=b"x" * 16),
            "given such a serial": made.leaf(lease, 1, 10, serial=made.serial(boot=made.books.boot + 1)),
            "meta node has not signed": leaf_of(made.evidence(lease, limit, signer=session_key())),
            "is settled": made.leaf(lease, 1, 10, lease_id=b"L" * 32),
            "up to": made.leaf(lease, 1, 10, from_noz=99_995, to_noz=100_005),
            "another chain": made.leaf(lease, 1, 10, chain_id="stratos-test-2"),
            "another meta node, wallet or fund": made.leaf(lease, 1, 10, fund=2),
            "pays nothing": made.leaf(lease, 1, 10, acked=0),
            "session key of the session grant": made.leaf(
                lease, 1, 10, session_pubkey=public(session_key(2)), lease_id=other.id, from_noz=0, to_noz=10
            ),
            "expected a leaf of traffic": Leaf(beneficiary="st1", noz=5),
        }
        answers = await made.hand_in(made.peer(1), *cases.values())
        for (reason, _), answer in zip(cases.items(), answers, strict=True):
            assert answer.state == REFUSED, reason
            assert reason in answer.reason, answer.reason
        assert await made.windows.settle() == 0
        assert await made.states(made.peer(1), good) == [HELD]  # what was refused does not stand in the good one's way


async def test_what_is_refused_is_bad_by_settlements_own_rules(tmp_path: Path) -> None:
    """The order of judging differs, the judgement does not."""

    async with world(tmp_path) as made:
        lease = await made.lease(10**6)
        changes: list[dict[str, Any]] = [
            {}, {"action": 9}, {"max_bytes": 2_000}, {"created_s": 0}, {"expires_s": 10**9}, {"traffic_class": 7}, {"object_root": b"short"},
            {"wallet": "st1nobody"}, {"beneficiary": "ST1"}, {"to_noz": 5}, {"expires_s": int(made.clock()) + 9_000},
        ]  # fmt: skip
        leaves = [made.leaf(lease, 1, 1_000, **change) for change in changes]
        keys = {made.me: public(meta_key(1))}
        answers = await made.hand_in(made.peer(1), *leaves)
        for change, leaf, answer in zip(changes, leaves, answers, strict=True):
            assert (answer.state == HELD) == (fault(leaf, CHAIN_ID, keys.get) is None), (change, answer.reason)


async def test_giant_batches_and_strangers_are_refused(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        with pytest.raises(Refused) as refused:
            await made.hand_in(made.peer(1), *[Leaf()] * (asking.MAX_LEAVES + 1))
        assert refused.value.code == asking.BAD_ASK
        with pytest.raises(Refused) as refused:
            await made.hand_in(made.peer(77), Leaf())
        assert refused.value.code == asking.UNKNOWN_NODE
        with pytest.raises(Refused) as refused:
            await made.peer(1).ask(asking.NODE_SETTLED, body=asking.SerialList(serials=[b"short"]).SerializeToString())
        assert refused.value.code == asking.BAD_ASK


async def test_what_becomes_of_serials_is_told(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        lease = await made.lease(100_000)
        leaf = made.leaf(lease, 1, 1_000)
        peer = made.peer(1)
        ask = asking.SerialList(serials=[leaf_serial(leaf)]).SerializeToString()

        async def state() -> int:
            answers = asking.ReceiptAnswers.FromString(await peer.ask(asking.NODE_SETTLED, body=ask))
            return int(answers.answers[0].state)

        assert await state() == UNSPECIFIED
        await made.hand_in(peer, leaf)
        assert await state() == HELD
        await made.windows.settle()
        assert await state() == SETTLED


async def test_serials_of_another_node_tell_nothing(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        lease = await made.lease(100_000)
        leaf = made.leaf(lease, 1, 1_000)
        await made.hand_in(made.peer(1), leaf)
        other = made.peer(2)
        ask = asking.SerialList(serials=[leaf_serial(leaf)]).SerializeToString()
        answers = asking.ReceiptAnswers.FromString(await other.ask(asking.NODE_SETTLED, body=ask))
        assert [one.state for one in answers.answers] == [UNSPECIFIED]
        [answer] = await made.hand_in(other, leaf)
        assert answer.state == REFUSED
        assert "not for the node" in answer.reason
        assert await made.states(made.peer(1), leaf) == [HELD]


async def test_a_node_whose_beneficiary_changed_hears_of_its_earlier_serials(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        lease = await made.lease(100_000)
        leaf = made.leaf(lease, 1, 1_000)
        assert await made.states(made.peer(1), leaf) == [HELD]
        await made.observe(observed_node(1, beneficiary=owner(77)))
        ask = asking.SerialList(serials=[leaf_serial(leaf)]).SerializeToString()
        answers = asking.ReceiptAnswers.FromString(await made.peer(1).ask(asking.NODE_SETTLED, body=ask))
        assert [one.state for one in answers.answers] == [HELD]
        assert await made.states(made.peer(1), leaf) == [HELD]


async def test_after_a_lease_is_settled_its_receipts_are_refused(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        lease = await made.lease(100_000)
        early, late = made.leaf(lease, 1, 1_000), made.leaf(lease, 1, 500)
        peer = made.peer(1)
        assert await made.states(peer, early) == [HELD]
        await made.proposer.propose("settle_leases", _settle(lease.id))
        assert await made.states(peer, late) == [REFUSED]
        assert await made.windows.settle() == 0  # the one that was held is refused, loudly, since the lease book should have waited
        assert await made.states(peer, early) == [REFUSED]
        assert made.done == [(lease.id, leaf_serial(early), 0)]


def _settle(*leases: bytes) -> Any:
    return message("SettleLeases", lease_ids=sorted(leases))


async def test_a_lease_pays_no_more_than_it_has(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        lease = await made.lease(1_000)
        first, second = made.leaf(lease, 1, 700), made.leaf(lease, 1, 300)
        third = made.leaf(lease, 1, 300, from_noz=0, to_noz=300)
        assert await made.states(made.peer(1), first, second, third) == [HELD, HELD, HELD]
        assert await made.windows.settle() == 2
        assert await earned(made, 1) == 1_000
        assert await made.states(made.peer(1), third) == [REFUSED]


async def test_repair_traffic_is_paid_by_repair_funds_or_waits(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        lease = await made.lease(100_000)
        repair = made.leaf(lease, 2, 40, action=3)
        assert await made.states(made.peer(2), repair) == [HELD]
        assert await made.windows.settle() == 0  # the common fund is empty: it waits
        assert await made.states(made.peer(1), made.leaf(lease, 1, 1_000)) == [HELD]
        await made.windows.settle()  # puts 5 % on top into the fund
        await made.windows.settle()
        assert await earned(made, 2) == 40
        state = await made.row(tables.STATE, 1)
        assert state.repair_paid_noz == 10


async def test_repair_that_no_fund_can_pay_keeps_nobody_waiting(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        made.windows._most_leaves = 10
        lease, traffic = await made.lease(100_000), await made.lease(100_000)
        unpaid = [made.leaf(lease, 2, 400, action=3) for _ in range(30)]
        assert set(await made.states(made.peer(2), *unpaid)) == {HELD}
        assert set(await made.states(made.peer(1), *(made.leaf(traffic, 1, 100) for _ in range(12)))) == {HELD}
        assert await made.windows.settle() == 12
        assert await earned(made, 1) == 1_200
        small = made.leaf(lease, 3, 50, action=3)
        assert await made.states(made.peer(3), small) == [HELD]
        await made.windows.settle()
        assert await earned(made, 3) == 50, "what the fund can pay is paid behind thirty that it cannot"


async def test_many_leaves_go_into_several_windows(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        made.windows._most_leaves = 10
        lease = await made.lease(100_000)
        leaves = [made.leaf(lease, 1 + at % 3, 10) for at in range(25)]
        for node in (1, 2, 3):
            await made.hand_in(made.peer(node), *leaves[node - 1 :: 3])
        assert await made.windows.settle() == 25
        meta = await made.row(tables.META, made.me)
        assert meta.windows == 3


async def test_a_node_is_told_what_it_earns(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        lease = await made.lease(100_000)
        peer = made.peer(1)
        await made.hand_in(peer, made.leaf(lease, 1, 1_000))
        await made.windows.settle()
        await made.hand_in(peer, made.leaf(lease, 1, 200))
        reply = asking.NodeEarningsReply.FromString(await peer.ask(asking.NODE_EARNINGS))
        assert (reply.earned_noz, reply.held_noz, reply.escrow_noz, reply.shares) == ("1000", "200", "0", 0)


async def test_what_a_node_earns_is_added_up_no_more_than_twice_a_minute(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        lease = await made.lease(100_000)
        peer = made.peer(1)
        asked: list[bytes] = []
        add_up = made.books.held_noz

        async def counted(beneficiary: bytes) -> int:
            asked.append(beneficiary)
            return await add_up(beneficiary)

        made.books.held_noz = counted  # type: ignore[method-assign]
        await made.hand_in(peer, made.leaf(lease, 1, 200))
        replies = await asyncio.gather(*(peer.ask(asking.NODE_EARNINGS) for _ in range(20)))
        assert {asking.NodeEarningsReply.FromString(one).held_noz for one in replies} == {"200"}
        assert len(asked) == 1
        made.clock.now_s += 31
        await made.hand_in(peer, made.leaf(lease, 1, 100))
        assert asking.NodeEarningsReply.FromString(await peer.ask(asking.NODE_EARNINGS)).held_noz == "300"


async def test_who_takes_over_for_a_meta_node_that_is_gone_settles_its_ended_leases(tmp_path: Path) -> None:
    async with world(tmp_path, metas=2) as made:
        second = Proposer(made.ledger, CHAIN_ID, meta_address(2), meta_key(2), made.clock)
        grant = made.grant()
        take = message("TakeLease", wallet=wallet(), session_pubkey=public(session_key()), fund=1, noz=5_000, seconds=600, grant=grant)
        lease = Lease((await second.propose("take_lease", take)).result, 1, 1, grant)

        limit = made.limit(lease, 1, 1_000, meta_node=bech32.encode(meta_address(2), bech32.NODE), serial=own_serial(meta_address(2), 1))
        leaf = leaf_of(made.evidence(lease, limit, signer=meta_key(2)))
        peer = made.peer(1)
        answer = (await made.hand_in(peer, leaf))[0]
        assert answer.state == UNSPECIFIED
        assert "responsible" in answer.reason
        await made.observe(message("ObservedEvent", meta=observed_meta(2, is_active=False)))
        assert await made.states(peer, leaf) == [UNSPECIFIED]
        made.clock.now_s += 901
        assert "not all known here yet" in (await made.hand_in(peer, leaf))[0].reason  # the ledger may still be before the lease's end
        await made.observe()
        assert await made.states(peer, leaf) == [HELD]
        assert await made.windows.settle() == 1
        assert await earned(made, 1) == 1_000


async def test_a_node_whose_beneficiary_changed_is_still_paid_as_its_limits_said(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        lease = await made.lease(100_000)
        leaf = made.leaf(lease, 1, 1_000)
        await made.observe(observed_node(1, beneficiary=owner(50)), sold(1, 5))
        assert await made.states(made.peer(1), leaf) == [HELD]
        await made.windows.settle()
        assert await earned(made, 1) == 1_000


async def test_a_key_that_only_claims_to_be_a_node_is_a_stranger(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        with pytest.raises(Refused) as refused:
            await made.peer(key=session_key(9)).ask(asking.NODE_EARNINGS)
        assert refused.value.code == asking.UNKNOWN_NODE
        assert node_key(1) != session_key(9)


async def test_the_governed_share_is_taken_of_reads_and_storing_costs_its_bill(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        lease = await made.lease(100_000)
        puts = made.puts(lease, 1, 10_000, [1, 2, 3])
        await made.store(lease, 1, 20_000, [1, 2, 3], leaf_serial(puts[0]))
        await made.hand_in(made.peer(1), puts[0], made.leaf(lease, 1, 1_000, action=1))
        await made.windows.settle()
        state = await made.row(tables.STATE, 1)
        assert state.repair_paid_noz == 1_000 * 5 // 100
        row = await made.row(tables.LEASE, lease.id)
        assert row.noz == 100_000 - 3 * 10_000 - 11_000 - 50


async def test_a_window_that_the_ledger_refuses_frees_its_receipts_for_the_next_one(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        lease = await made.lease(1_000)
        await made.hand_in(made.peer(1), made.leaf(lease, 1, 900))
        propose = made.proposer.propose

        async def race(kind: str, body: Any) -> Any:
            """The lease pays for an object between the look at it and the window."""
            if kind == "window":
                spent = new_object(1, 400, [1, 2, 3], 1, [made.serial()])
                await propose("commit", message("Commit", lease_id=lease.id, objects=[spent]))
            return await propose(kind, body)

        made.proposer.propose = race  # type: ignore[assignment,method-assign]
        with pytest.raises(LedgerRefused):
            await made.windows.settle()
        assert (await made.row(tables.META, made.me)).windows == 0
        made.proposer.propose = propose  # type: ignore[method-assign]
        assert await made.windows.settle() == 0  # now it is seen that the lease has too little
        assert made.done[-1][2] == 0
        other = await made.lease(5_000)
        await made.hand_in(made.peer(2), made.leaf(other, 2, 900))
        assert await made.windows.settle() == 1
        assert (await made.row(tables.META, made.me)).windows == 1


async def test_the_loop_goes_on_after_a_ledger_that_could_not_be_asked(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        lease = await made.lease(1_000)
        await made.hand_in(made.peer(1), made.leaf(lease, 1, 900))
        made.windows.window_s = 0.01
        propose, failures = made.proposer.propose, iter([Unavailable("the disk is full"), Unavailable("still")])

        async def failing(kind: str, body: Any) -> Any:
            failure = next(failures, None)
            if failure is not None:
                raise failure
            return await propose(kind, body)

        made.proposer.propose = failing  # type: ignore[assignment,method-assign]
        task = asyncio.create_task(made.windows.run())
        await until(lambda: made.done)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert await earned(made, 1) == 900
