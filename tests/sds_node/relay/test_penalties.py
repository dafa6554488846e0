"""Meta nodes suspend and slash resource nodes together, each by its own ledger: the real chain, equal ledgers, releases and scores as audits make them."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from chain.codec.registry import message_class
from chain.crypto import address as bech32
from chain.metakeys import MetaKeys
from sds_node.meta.relay import penalties
from sds_node.meta.relay.penalties import LEAST_SHARES, MOST_SHARES, SLASH_NOZ, SUSPEND_BELOW, Charge, Penalties, lost_shares
from sds_node.meta.rules.tables import ACTIVE, SUSPENDED
from sds_node.value_chain import Sender
from tests.sds_node.books.world import DAY_S, START_S, until
from tests.sds_node.relay.council import DEPOSIT_WEI, HOUR_S, STOS, address_of, council, ended

pytestmark = pytest.mark.asyncio

MADE = message_class("stratos.pot.v1.MsgSlashingResourceNode")


# --- suspension -----------------------------------------------------------------------------------------------------------------------------


async def test_a_node_whose_score_is_too_low_is_suspended_by_a_quorum_once_and_keeps_its_deposit(tmp_path: Path) -> None:
    async with council(tmp_path, 4) as made:
        all_ = await made.council()
        await made.score(1, SUSPEND_BELOW - 1 - (await made.node(1)).score)
        charge = Charge(address_of(1), made.node_owners[0].public_key.address, 0, True)
        for one in all_[:2]:
            assert await one.step() == [charge]
            assert await one.step() == [], "its approval is open on the chain"
        assert not (await made.on_chain(1)).is_suspended, "two of four are no quorum"
        assert await all_[2].step() == [charge]
        node = await made.on_chain(1)
        assert (node.is_suspended, node.effective_wei, node.tokens_wei) == (True, 0, DEPOSIT_WEI)
        assert await all_[3].step() == [], "its ledger has not observed it, and the chain tells"
        await made.observed()
        assert (await made.node(1)).standing == SUSPENDED
        assert [await one.step() for one in all_] == [[]] * 4
        assert await made.gathered(1) == []


async def test_a_node_with_just_enough_score_is_left_alone(tmp_path: Path) -> None:
    async with council(tmp_path, 3) as made:
        all_ = await made.council()
        await made.score(1, SUSPEND_BELOW - (await made.node(1)).score)
        assert [await one.step() for one in all_] == [[]] * 3


async def test_a_suspension_that_found_no_quorum_in_its_hour_is_approved_again_also_after_a_restart(tmp_path: Path) -> None:
    async with council(tmp_path, 3) as made:
        await made.score(1, -4_000)
        assert len(await made.penalties(0).step()) == 1
        assert await made.penalties(0).step() == [], "a new process sees its own approval"
        await made.later(HOUR_S + 60)
        assert len(await made.penalties(0).step()) == 1
        (open_now,) = await made.gathered(1)
        assert open_now.approvers == {made.metas[0].network_address}


async def test_a_suspended_node_comes_back_by_activation_once_its_score_is_good_enough(tmp_path: Path) -> None:
    async with council(tmp_path, 3) as made:
        all_ = await made.council()
        await made.score(1, -4_000)
        for one in all_:
            await one.step()
        await made.observed()
        assert (await made.node(1)).standing == SUSPENDED
        await made.score(1, 3_000)
        for keys, voter in zip(made.metas, made.owners, strict=True):
            approve = message_class("stratos.register.v1.MsgUpdateEffectiveDeposit")(
                reporters=[keys.network_address], reporter_owner=[bech32.encode(voter.public_key.address)],
                network_address=bech32.encode(address_of(1), bech32.NODE), effective_tokens=str(DEPOSIT_WEI),
            )  # fmt: skip
            await made.send(voter, approve)
        await made.observed()
        assert (await made.node(1)).standing == ACTIVE
        assert [await one.step() for one in all_] == [[]] * 3


# --- slashing -------------------------------------------------------------------------------------------------------------------------------


async def test_shares_that_audits_found_lost_are_slashed_once_when_their_day_is_over(tmp_path: Path) -> None:
    async with council(tmp_path, 4) as made:
        all_ = await made.council()
        await made.release(1, [3, 5])
        await made.release(1, [5, 9, 11])
        await made.release(2, [])
        assert [await one.step() for one in all_] == [[]] * 4, "the day is not over"
        await made.later(DAY_S)
        charge = Charge(address_of(1), made.node_owners[0].public_key.address, 4 * SLASH_NOZ, False)
        for one in all_[:2]:
            assert await one.step() == [charge]
            assert await one.step() == []
        assert (await made.on_chain(1)).tokens_wei == DEPOSIT_WEI
        assert await all_[2].step() == [charge]
        node = await made.on_chain(1)
        slashed_wei = DEPOSIT_WEI - node.tokens_wei
        assert 0 < slashed_wei < STOS
        assert not node.is_suspended
        assert node.effective_wei == node.tokens_wei
        # The fourth, whose turn came too late, may send one more, which no other joins.
        await all_[3].step()
        for _ in range(2):
            assert [await one.step() for one in all_] == [[]] * 4
        await made.later(HOUR_S + 60)
        for one in all_[:3]:
            assert await one.step() == []
        assert (await made.on_chain(1)).tokens_wei == DEPOSIT_WEI - slashed_wei
        assert (await made.on_chain(2)).tokens_wei == DEPOSIT_WEI


async def test_a_slash_is_not_sent_again_after_a_restart(tmp_path: Path) -> None:
    async with council(tmp_path, 3) as made:
        all_ = await made.council()
        await made.release(1, range(1, 20))
        await made.later(DAY_S)
        assert [len(await one.step()) for one in all_] == [1, 1, 1]
        tokens_wei = (await made.on_chain(1)).tokens_wei
        assert tokens_wei < DEPOSIT_WEI
        again = [made.penalties(meta) for meta in range(3)]
        assert [await one.step() for one in again] == [[]] * 3
        await made.later(DAY_S)
        assert [await one.step() for one in again] == [[]] * 3
        assert (await made.on_chain(1)).tokens_wei == tokens_wei


async def test_a_slash_that_found_no_quorum_in_its_hour_is_approved_again_and_executed_once(tmp_path: Path) -> None:
    async with council(tmp_path, 3) as made:
        all_ = await made.council()
        await made.release(1, [1, 2, 3])
        await made.later(DAY_S)
        assert [len(await one.step()) for one in all_[:2]] == [1, 1]
        await made.later(HOUR_S + 60)
        assert [len(await one.step()) for one in all_] == [1, 1, 1]
        tokens_wei = (await made.on_chain(1)).tokens_wei
        assert tokens_wei < DEPOSIT_WEI
        await made.later(HOUR_S + 60)
        assert [await one.step() for one in all_] == [[]] * 3
        assert (await made.on_chain(1)).tokens_wei == tokens_wei


@pytest.mark.parametrize(("failed", "is_silent"), [(range(1, LEAST_SHARES), False), ((), True)])
async def test_what_rots_and_what_is_only_silent_is_not_slashed(tmp_path: Path, failed: Collection[int], is_silent: bool) -> None:
    async with council(tmp_path, 3) as made:
        all_ = await made.council()
        await made.release(1, failed, is_silent=is_silent)
        await made.later(DAY_S)
        assert [await one.step() for one in all_] == [[]] * 3


async def test_what_one_day_costs_is_bounded(tmp_path: Path) -> None:
    async with council(tmp_path, 3) as made:
        all_ = await made.council()
        await made.release(1, range(1, 131))
        await made.later(DAY_S)
        (charge,) = await all_[0].step()
        assert charge.noz == MOST_SHARES * SLASH_NOZ


async def test_a_slash_of_a_suspended_node_leaves_it_suspended(tmp_path: Path) -> None:
    async with council(tmp_path, 3) as made:
        all_ = await made.council()
        await made.release(1, [1, 2, 3])
        await made.score(1, -4_000)
        for one in all_:
            assert len(await one.step()) == 1
        await made.later(DAY_S)
        assert (await made.node(1)).standing == SUSPENDED
        charges = [await one.step() for one in all_]
        assert [[(one.noz, one.suspend) for one in sent] for sent in charges] == [[(3 * SLASH_NOZ, True)]] * 3
        node = await made.on_chain(1)
        assert node.is_suspended
        assert node.tokens_wei < DEPOSIT_WEI


async def test_days_with_as_many_lost_shares_are_slashed_one_after_the_other(tmp_path: Path) -> None:
    async with council(tmp_path, 3) as made:
        all_ = await made.council()
        await made.release(1, [1, 2, 3])
        await made.later(DAY_S)
        await made.release(1, [4, 5, 6])
        await made.later(DAY_S)
        sent: list[list[Charge]] = [[], [], []]
        left_wei = [DEPOSIT_WEI]
        for _ in range(3):
            for at, one in enumerate(all_):
                sent[at].extend(await one.step())
                now_wei = (await made.on_chain(1)).tokens_wei
                if now_wei != left_wei[-1]:
                    left_wei.append(now_wei)
        assert [[one.noz for one in charges] for charges in sent] == [[3 * SLASH_NOZ] * 2] * 3
        assert len(left_wei) == 3
        assert left_wei == sorted(left_wei, reverse=True)


# --- who may vote ---------------------------------------------------------------------------------------------------------------------------


async def test_a_meta_node_of_the_accused_has_no_vote_and_the_two_others_decide(tmp_path: Path) -> None:
    async with council(tmp_path, 3, owned={1: 2}) as made:
        all_ = await made.council()
        await made.release(1, [1, 2, 3])
        await made.score(1, -4_000)
        await made.later(DAY_S)
        assert await all_[2].step() == []
        assert all_[2].problems() == []
        for one in all_[:2]:
            while await one.step():
                pass
        for one in all_[:2]:
            await one.step()
        node = await made.on_chain(1)
        assert node.is_suspended
        assert node.tokens_wei < DEPOSIT_WEI


@pytest.mark.parametrize(("metas", "owned"), [(1, {}), (2, {1: 1})])
async def test_where_fewer_than_two_may_vote_nothing_is_sent_and_the_operator_is_told(tmp_path: Path, metas: int, owned: dict[int, int]) -> None:
    async with council(tmp_path, metas, owned=owned) as made:
        all_ = await made.council()
        await made.release(1, [1, 2, 3])
        await made.score(1, -4_000)
        await made.later(DAY_S)
        height = made.chain.driver.height
        for one in all_:
            assert await one.step() == []
            (problem,) = one.problems()
            assert bech32.encode(address_of(1), bech32.NODE) in problem
            assert "governance decides" in problem
        assert made.chain.driver.height == height
        await made.score(1, 4_000)
        await made.later(4 * DAY_S)
        assert await all_[0].step() == []
        assert all_[0].problems() == []


# --- what the ledger says -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", [1_000, 2])
async def test_lost_shares_are_counted_alike_on_every_ledger_and_by_their_day_alone(
    tmp_path: Path, page: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(penalties, "_PAGE", page)
    monkeypatch.setattr(penalties, "_TIMES", min(page, 20))
    async with council(tmp_path, 2) as made:
        today_ms = START_S * 1_000
        await made.release(1, [1, 2])
        await made.later(60)
        await made.release(1, [2, 7])
        await made.release(3, [40])
        await made.release(2, [], is_silent=True)
        await made.later(DAY_S)
        await made.release(1, [8])
        day_ms = DAY_S * 1_000
        for ledger in made.ledger.ledgers:
            assert await lost_shares(ledger, today_ms, today_ms + day_ms) == {made.numbers[1]: 3, made.numbers[3]: 1}
            assert await lost_shares(ledger, today_ms + day_ms, today_ms + 2 * day_ms) == {made.numbers[1]: 1}
            assert await lost_shares(ledger, today_ms - day_ms, today_ms) == {}


async def test_a_day_whose_log_was_pruned_is_not_counted_and_the_operator_is_told(tmp_path: Path) -> None:
    async with council(tmp_path, 2) as made:
        all_ = await made.council()
        await made.release(1, [1, 2, 3])
        await made.later(DAY_S)
        pruned = made.ledger.ledgers[1]
        pruned.prune(pruned.head.sequence)
        assert len(await all_[0].step()) == 1
        assert await all_[1].step() == []
        assert "keep_days" in all_[1].problems()[0]
        assert await lost_shares(pruned, START_S * 1_000, (START_S + DAY_S) * 1_000) is None


async def test_a_chain_that_refuses_is_asked_again_only_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with council(tmp_path, 3) as made:
        all_ = await made.council()
        await made.score(1, -4_000)
        sent: list[Any] = []
        # The chain names another owner than the message does: it refuses.
        made_message = MADE

        def wrong(**fields: Any) -> Any:
            sent.append(fields)
            return made_message(**{**fields, "wallet_address": bech32.encode(made.node_owners[1].public_key.address)})

        monkeypatch.setattr(penalties, "MsgSlashingResourceNode", wrong)
        assert await all_[0].step() == []
        assert await all_[0].step() == []
        assert len(sent) == 1
        monkeypatch.undo()
        made.clock.now_s += penalties.AGAIN_S
        assert len(await all_[0].step()) == 1


async def test_the_loop_goes_on_when_the_chain_is_away(tmp_path: Path) -> None:
    looks = 0

    class Counting(Penalties):
        async def step(self) -> list[Charge]:
            nonlocal looks
            looks += 1
            return await super().step()

    async with council(tmp_path, 2) as made:
        sender = Sender(made.client(), made.owners[0], clock=made.clock)
        one = Counting(made.client(), sender, made.ledger.ledgers[0], made.metas[0].network_address, clock=made.clock, every_s=0)
        await made.score(1, -4_000)
        made.chain.is_stopped = True
        loop = asyncio.create_task(one.run())
        await until(lambda: looks > 2)
        assert not loop.done()
        made.chain.is_stopped = False
        await until(lambda: made.gathered(1))
        await ended(loop)


async def test_who_is_no_active_meta_node_of_the_ledger_sends_nothing(tmp_path: Path) -> None:
    async with council(tmp_path, 3) as made:
        await made.score(1, -4_000)
        stranger, sender = MetaKeys.new(), Sender(made.client(), made.owners[0], clock=made.clock)
        one = Penalties(made.client(), sender, made.ledger.ledgers[0], stranger.network_address, clock=made.clock)
        assert await one.step() == []
        assert one.problems() == []
        assert len(await made.penalties(0).step()) == 1
