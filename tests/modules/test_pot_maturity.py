"""Rewards mature through the index, are withdrawn, are taken by debts, or go back with a void epoch; the foundation; the supply."""

from __future__ import annotations

from typing import Any

import pytest

from chain.codec.registry import message_class
from chain.codec.times import NANOS
from chain.coins import Coin
from chain.context import Context, Mode
from chain.crypto import address as bech32
from chain.errors import AppError
from chain.store.state import State
from modules.pot import supply
from modules.pot.keeper import PotKeeper
from tests.grants import code
from tests.modules.reporting import BUYER, NODE_OWNER, POT, STOS, Net, wallet, wallets, wei
from tests.support import GOV, KEYS, at_end_of, text

A, B, C = wallets(3)
QUICK = {"mature_epoch": "2"}


def keeper_of(net: Net) -> PotKeeper:
    end_block: Any = next(module for module in net.app.modules if module.name == "pot").end_block
    keeper: PotKeeper = end_block.__self__
    return keeper


def context(net: Net) -> Context:
    return Context("test-1", net.driver.height, net.driver.time_ns, Mode.FINALIZE)


def withdraw(private: Any, amount: int, *, to: str = "", denom: str = "wei") -> Any:
    coins = wei(amount, denom) if amount else []
    return message_class(f"{POT}.MsgWithdraw")(amount=coins, wallet_address=text(private), target_address=to or text(private))


def deposit(amount: int, denom: str = "wei", sender: str = "") -> Any:
    message = message_class(f"{POT}.MsgFoundationDeposit")(amount=wei(amount, denom) if amount else [])
    setattr(message, "from", sender or text(BUYER))
    return message


def test_a_reward_can_be_withdrawn_once_its_maturity_epoch_was_reported() -> None:
    net = Net(pot=QUICK)
    net.buy(100 * STOS)
    net.reported(1, [(text(BUYER), 10**12)])
    earned = net.immature_wei(text(BUYER))
    assert earned > 0
    net.reported(2)
    assert (net.mature_wei(text(BUYER)), net.immature_wei(text(BUYER))) == (0, earned)
    assert net.refused(BUYER, withdraw(BUYER, 1)) == ("pot", 29)
    net.reported(3)
    assert (net.mature_wei(text(BUYER)), net.immature_wei(text(BUYER))) == (earned, 0)
    assert net.section()["maturing_rewards"] == []
    refused, log = net.refusal(BUYER, withdraw(BUYER, earned + 1))
    assert refused == ("pot", 29)
    assert "insufficient mature total" in log
    before = net.wei(A)
    result = net.ok(BUYER, withdraw(BUYER, earned - 1, to=A))
    assert net.wei(A) - before == earned - 1
    assert (f"{POT}.EventWithdraw", {"amount": f'"{earned - 1}wei"', "target_address": f'"{A}"', "wallet_address": f'"{text(BUYER)}"'}) in [
        (kind, {key: value for key, value in pairs if key != "msg_index"}) for kind, pairs in result.events
    ]
    net.ok(BUYER, withdraw(BUYER, 1))
    assert net.mature_wei(text(BUYER)) == 0
    assert all(one["wallet_address"] != text(BUYER) for one in net.section()["mature_total_info"])


@pytest.fixture(scope="module")
def idle() -> Net:
    return Net()


def _with(message: Any, **fields: Any) -> Any:
    for name, value in fields.items():
        setattr(message, name, value)
    return message


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (withdraw(BUYER, 0), 4),
        (_with(withdraw(BUYER, 1), target_address=""), 6),
        (withdraw(BUYER, 1, to="st1"), 27),
        (withdraw(BUYER, 1, to=bech32.encode(bytes(20), "cosmos")), 27),
        (withdraw(BUYER, 1, denom="stos"), 29),
        (withdraw(BUYER, 1), 29),
        (deposit(0), 19),
        (deposit(1, "stos"), 30),
        (deposit(10**27), 30),
    ],
)
def test_what_is_no_withdrawal_and_no_deposit_is_refused(idle: Net, message: Any, expected: int) -> None:
    assert idle.refused(BUYER, message) == ("pot", expected)


@pytest.mark.parametrize(
    ("message", "expected"),
    [(_with(withdraw(BUYER, 1), wallet_address=""), 5), (_with(deposit(1), **{"from": ""}), 12), (_with(deposit(1), **{"from": "st1"}), 27)],
)
def test_messages_in_the_name_of_nobody_are_refused(idle: Net, message: Any, expected: int) -> None:
    """Nobody can sign them: authz and governance ask the stateless check."""
    handler = idle.app.executor._handlers[message.DESCRIPTOR.full_name]
    with pytest.raises(AppError) as refused:
        handler.check_stateless(message)
    assert (refused.value.codespace, refused.value.code) == ("pot", expected)


def test_rewards_are_not_paid_to_module_accounts() -> None:
    net = Net(pot={"mature_epoch": "1"})
    net.buy(100 * STOS)
    net.reported(1, [(text(BUYER), 10**12)])
    net.reported(2)
    assert net.refused(BUYER, withdraw(BUYER, 1, to=bech32.encode(bech32.module_address("total_unissued_prepay")))) == ("pot", 29)


def test_anybody_fills_the_foundation() -> None:
    net = Net()
    before = net.held("foundation_account")
    result = net.ok(BUYER, deposit(5 * STOS))
    assert net.held("foundation_account") - before == 5 * STOS
    assert (f"{POT}.EventFoundationDeposit", ("amount", f'"{5 * STOS}wei"')) in [(kind, pairs[0]) for kind, pairs in result.events]


def test_a_block_matures_a_hundred_rewards_whatever_was_reported() -> None:
    net = Net(pot={"mature_epoch": "1", "epoch_duration_s": "0"})
    net.buy(100 * STOS)
    net.reported(1, [(one, 10**9) for one in wallets(150)])
    net.reported(2, [(one, 10**9) for one in wallets(60)])
    left = [len(net.section()["maturing_rewards"])]
    net.reported(50)
    for _ in range(3):
        left.append(len(net.section()["maturing_rewards"]))
        net.driver.next_block()
    assert left == [118, 18, 0, 0]
    assert net.section()["matured_epoch"] == "50"
    assert sum(int(one["value"][0]["amount"]) for one in net.section()["mature_total_info"]) == net.held("total_reward_pool")


def test_a_hundred_epochs_that_end_at_once_are_let_go_over_several_blocks() -> None:
    net = Net(pot={"mature_epoch": "1000", "epoch_duration_s": "0"}, invariant_period=0)
    net.buy(100 * STOS)
    for start in range(1, 121, 40):
        made = [net.signed(net.draft(epoch, [(A, 10**6)])) for epoch in range(start, start + 40)]
        raws = [net.sign(KEYS[0], *messages, gas=2_000_000, ahead=at) for at, messages in enumerate(made)]
        assert all(one.code == 0 for one in net.driver.next_block(raws, process=False).results)
    rewards = len(net.section()["maturing_rewards"])
    net.reported(5000)
    assert len(net.section("settlement")["epochs"]) == 120 - 100 + 1
    assert len(net.section()["maturing_rewards"]) == rewards - 100
    blocks = 0
    while net.section()["maturing_rewards"]:
        net.driver.next_block()
        blocks += 1
    assert blocks == -(-rewards // 100) - 1
    assert len(net.section("settlement")["epochs"]) == 1
    net.holds()


def test_a_debt_is_paid_by_the_next_rewards_into_the_community_pool() -> None:
    net = Net(pot={"mature_epoch": "1"}, node_wei=1)
    net.buy(100 * STOS)
    net.reported(1, [(text(NODE_OWNER), 10**12)])
    earned = net.immature_wei(text(NODE_OWNER))
    assert net.slash(10**11, 0, 1, 2).code == 0
    debt = int(net.ask("SlashingByOwner", wallet_address=text(NODE_OWNER)).slashing)
    assert 0 < debt < earned
    upcoming = net.ask("Withdrawals", wallet_address=text(NODE_OWNER)).upcoming
    assert [(one.reward_epoch, one.maturity_epoch, int(one.slashed_wei)) for one in upcoming] == [(1, 2, debt)]
    net.reported(2)
    assert net.mature_wei(text(NODE_OWNER)) == earned - debt
    assert net.ask("SlashingByOwner", wallet_address=text(NODE_OWNER)).slashing == "0"


def test_a_void_epoch_gives_back_what_was_not_paid_out_and_says_what_is_missing() -> None:
    net = Net()
    net.buy(100 * STOS)
    net.reported(1, [(B, 10**12)])
    prepaid, founded = net.held("total_unissued_prepay"), net.held("foundation_account")
    net.reported(2, [(A, 10**12), (B, 10**12)])
    total = net.ask("TotalRewardByEpoch", epoch=2).total_reward
    mining, traffic = int(total.mining_reward[0].amount), int(total.traffic_reward[0].amount)
    before = net.immature_wei(B)
    keeper = keeper_of(net)
    told: list[Any] = []
    net.app._end.append(lambda ctx, state: None if told else told.append(keeper.void_epoch(ctx, state, 2)))
    net.driver.next_block()
    voided = told[0]
    assert voided.prepay_returned_wei + voided.prepay_gap_wei == traffic
    assert voided.foundation_returned_wei + voided.foundation_gap_wei == mining
    assert min(voided) > 0
    assert net.held("total_unissued_prepay") == prepaid - voided.prepay_gap_wei
    assert net.held("foundation_account") == founded - voided.foundation_gap_wei
    assert net.immature_wei(A) == 0
    assert 0 < net.immature_wei(B) < before
    assert [one.is_void for one in net.ask("PriceHistory").epochs] == [False, True]
    view = net.app.store.view()
    with view:
        state = State(view, net.app.store.names)
        assert [keeper.is_maturing(state, epoch) for epoch in (0, 1, 2, 3, 2**62, 2**70)] == [False, True, False, False, False, False]
        for epoch in (2, 3):
            with pytest.raises(AppError, match="voided once"):
                keeper.void_epoch(context(net), state, epoch)
        mined = keeper.total_mined_wei(state)
        bank: Any = keeper.bank
        bank.send_to_module(context(net), state, BUYER.public_key.address, "settlement", (Coin("wei", 30),))
        keeper.repay(context(net), state, "settlement", 20, 10)
        assert mined - keeper.total_mined_wei(state) == 10
    net.reported(3, [(A, 10**12)])


def test_an_epoch_is_safe_from_being_void_as_soon_as_its_rewards_may_mature() -> None:
    net = Net(pot={"mature_epoch": "1"})
    net.buy(100 * STOS)
    net.reported(1, [(one, 10**9) for one in wallets(150)])
    keeper = keeper_of(net)

    def maturing() -> bool:
        with net.app.store.view() as view:
            return keeper.is_maturing(view, 1)

    assert maturing()
    net.reported(2)
    assert net.section()["maturing_rewards"]
    assert not maturing()
    assert [one["epoch"] for one in net.section("settlement")["epochs"]] == ["2"]


# --- supply -------------------------------------------------------------------------------------------------------------------


def _params(net: Net, **changes: Any) -> Any:
    params = keeper_of(net).params(net.app.store.view())
    for name, value in changes.items():
        setattr(params, name, value)
    return params


def _community(net: Net) -> int:
    pool = net.query("cosmos.distribution.v1beta1", "CommunityPool").pool
    return sum(int(one.amount) for one in pool if one.denom == "wei") // 10**18


def test_the_supply_is_filled_up_from_nothing_and_emptied_out_of_the_community_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    def room(document: dict[str, Any]) -> None:
        level = document["app_state"]["pot"]["params"]["initial_total_supply"]
        level["amount"] = str(int(level["amount"]) + 7 * STOS)

    monkeypatch.setattr(supply, "PERIOD_BLOCKS", 4)
    net = Net(edit=room)
    level = int(net.section()["params"]["initial_total_supply"]["amount"])
    held = int(net.query("cosmos.bank.v1beta1", "SupplyOf", denom="wei").amount.amount)
    assert held == level, "the first block mints what is missing"
    assert _community(net) >= 7 * STOS

    def change(amount: int) -> Any:
        message = message_class(f"{POT}.MsgUpdateParams")(authority=GOV, params=_params(net))
        message.params.initial_total_supply.amount = str(amount)
        return message

    at_end_of(net.app, {2: change(level - 3 * STOS), 6: change(level - 10**6 * STOS)})
    while net.driver.height < 5:
        net.driver.next_block()
    assert int(net.query("cosmos.bank.v1beta1", "SupplyOf", denom="wei").amount.amount) == level - 3 * STOS
    before = _community(net)
    assert before >= 4 * STOS
    while net.driver.height < 9:
        net.driver.next_block()
    assert int(net.query("cosmos.bank.v1beta1", "SupplyOf", denom="wei").amount.amount) == level - 3 * STOS, "the pool is too small for that"
    assert _community(net) >= before
    net.holds()


def test_upcoming_withdrawals_say_when() -> None:
    net = Net(pot={"mature_epoch": "3"})
    net.buy(100 * STOS)
    for epoch in (1, 2, 3):
        net.reported(epoch, [(A, 10**10 * epoch), (B, 10**10)] if epoch != 2 else [(B, 10**10)])
    reported_s = net.driver.time_ns // NANOS
    found = net.ask("Withdrawals", wallet_address=A)
    assert [(one.reward_epoch, one.maturity_epoch, one.earliest_time.seconds) for one in found.upcoming] == [
        (1, 4, reported_s + 30),
        (3, 6, reported_s + 90),
    ]
    first = net.ask("Withdrawals", wallet_address=B, pagination={"limit": 2})
    assert [one.reward_epoch for one in first.upcoming] == [1, 2]
    rest = net.ask("Withdrawals", wallet_address=B, pagination={"key": first.pagination.next_key})
    assert [one.reward_epoch for one in rest.upcoming] == [3]
    assert not rest.pagination.next_key
    last = net.ask("Withdrawals", wallet_address=B, pagination={"limit": 1, "reverse": True, "count_total": True})
    assert ([one.reward_epoch for one in last.upcoming], last.pagination.total) == ([3], 3)
    net.reported(4)
    assert int(net.ask("Withdrawals", wallet_address=A).withdrawable_wei) == net.mature_wei(A) > 0
    assert code(net.run(KEYS[0], withdraw(KEYS[0], 1, to=bech32.encode(wallet(1))))) == ("", 0)
