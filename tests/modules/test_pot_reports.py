"""Reports: what is signed, what is paid to the last wei, what is refused, and what a quorum that reports as fast as it can cannot do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from chain.codec.canonical import encode
from chain.codec.json import from_json
from chain.codec.registry import message_class
from chain.context import Context, Mode
from chain.crypto import address as bech32
from chain.crypto import bls
from chain.dec import Dec
from chain.errors import AppError
from chain.ozone import Ozone
from chain.quorum import quorum
from chain.reports import tx_data
from chain.store.state import State
from modules.pot.errors import VolumeReport
from modules.pot.params import reward_params
from modules.pot.records import Amounts, packed, packed_coins, packed_reward, reward_message, unpacked_coins, wei
from modules.pot.rewards import RewardParams, Work, distribute
from tests.grants import code, execute
from tests.modules.reporting import (
    GAS,
    MODULES,
    POT,
    REPORT_S,
    SDS,
    STOS,
    Net,
    again,
    meta_keys,
    owner_of,
    wallets,
)
from tests.support import GOV, KEYS, at_end_of, text

ALL = range(4)
WORK = [(text, noz) for text, noz in zip(wallets(3), (5 * 10**11, 3 * 10**11, 2 * 10**11), strict=True)]
OFF = {"epoch_duration_s": "0", "mining_cap_ratio": "0", "max_wallets_per_report": 0}
INFINITY = bytes([0xC0]) + bytes(47)

SIGN_BYTES = (
    "0a320a2973743163786d7773397735656a383834377135796366736b6865747263636e68727566353672676330120535303030300a320a297374313932"
    "30346d746777716c343976796578303061683765356767397a6e6564663777357a363867120533303030300a320a297374317a793971616c3530386e76"
    "6339683078716d797a3530306d6b75786874657537656c7573353212053230303030122c7374736473313739336a6d3434666a3974773063396338677877"
    "796d633664746e656677307539703232776b1a013122127265706f727420666f722065706f636820312a29737431337a3965666d306c77677a3033787835"
    "776d33686876356a6a636333767363343578776770643200"
)


def published_report() -> Any:
    report = message_class(f"{POT}.MsgVolumeReport")(
        reporter="stsds1793jm44fj9tw0c9c8gxwymc6dtnefw0u9p22wk",
        epoch="1",
        report_reference="report for epoch 1",
        reporter_owner="st13z9efm0lwgz03xx5wm3hhv5jjcc3vsc45xwgpd",
    )
    for address, volume in (
        ("st1cxmws9w5ej8847q5ycfskhetrccnhruf56rgc0", "50000"),
        ("st19204mtgwql49vyex00ah7e5gg9znedf7w5z68g", "30000"),
        ("st1zy9qal508nvc9h0xqmyz500mkuxhteu7elus52", "20000"),
    ):
        report.wallet_volumes.add(wallet_address=address, volume=volume)
    return report


def test_what_is_hashed_is_what_the_original_hashes() -> None:
    """Vector of stratos-chain.md 6.6."""
    report = published_report()
    assert encode(report).hex() == SIGN_BYTES
    signed = published_report()
    signed.BLS_signature.pub_keys.append(bytes(33))
    signed.BLS_signature.signature = signed.BLS_signature.txData = b"not of it"
    assert tx_data(signed).hex() == "1f2a4e31306cb67d54fd167b390b045e4510a68739f15862fc81f0224891db78"


def test_records_written_out_are_the_canonical_ones() -> None:
    coins = message_class("stratos.types.v1.Coins")
    for amount in (1, 9, 10**18, 10**26, 2**127 - 1):
        assert packed_coins(amount) == packed(coins(Value=wei(amount)))
        assert unpacked_coins(packed_coins(amount)) == amount
        assert unpacked_coins(packed(coins(Value=wei(amount) + wei(1)))) == amount + 1
        for amounts in (Amounts(amount, 0), Amounts(0, amount), Amounts(amount, 7)):
            for address in (wallets(1)[0], bech32.encode(bytes(32))):
                assert packed_reward(address, amounts) == packed(reward_message(address, amounts))


def pool_of(net: Net) -> Ozone:
    exported = net.section("register")
    supply = net.query(SDS, "NozSupply")
    return Ozone(net_deposits(exported), int(supply.remaining), net.held("total_unissued_prepay"), solvency=True)


def net_deposits(exported: Any) -> int:
    metas = sum(int(one["tokens"]) for one in exported["meta_nodes"] if one["status"] == "BOND_STATUS_BONDED" and not one["suspend"])
    return metas + sum(int(one["effective_tokens"]) for one in exported["resource_nodes"])


def test_a_report_pays_every_part_to_the_last_wei() -> None:
    net = Net(effective_wei=500 * STOS)
    net.buy(100 * STOS)
    before = {name: net.held(name) for name in MODULES}
    pool = pool_of(net)
    params = reward_params(from_json(message_class(f"{POT}.Params"), net.section()["params"]))
    owners = [text(owner_of(at)) for at in ALL]
    paid = distribute(pool, 0, before["foundation_account"], [Work(*one) for one in WORK], owners, params)
    result = net.reported(1, WORK)

    after = {name: net.held(name) for name in MODULES}
    assert paid.mined_wei > 0
    assert paid.community_wei > 0
    assert before["foundation_account"] - after["foundation_account"] == paid.mined_wei
    assert before["total_unissued_prepay"] - after["total_unissued_prepay"] == paid.spent_wei
    assert after["total_reward_pool"] == paid.mining_to_wallets_wei + paid.traffic_to_wallets_wei
    assert after["pot"] == 0
    for one in paid.rewards:
        assert net.immature_wei(one.wallet) == one.mining_wei + one.traffic_wei
        found = net.ask("RewardsByWalletAndEpoch", wallet_address=one.wallet, epoch=1).rewards
        assert [(r.wallet_address, r.reward_from_mining_pool[0].amount, r.reward_from_traffic_pool[0].amount) for r in found] == [
            (one.wallet, str(one.mining_wei), str(one.traffic_wei))
        ]
    assert len(net.ask("RewardsByEpoch", epoch=1).rewards) == len(paid.rewards) == 7
    assert int(net.ask("TotalMinedToken").total_mined_token.amount) == paid.mined_wei
    total = net.ask("TotalRewardByEpoch", epoch=1)
    assert (total.total_reward.mining_reward[0].amount, total.total_reward.traffic_reward[0].amount) == (str(paid.mined_wei), str(paid.spent_wei))
    assert int(net.query(SDS, "NozSupply").remaining) == pool.remaining_noz + 10**12
    reference = net.ask("VolumeReport").report_info
    assert (reference.epoch, reference.reporter, len(reference.tx_hash)) == (1, meta_keys(0).network_address, 64)
    events = {kind: dict(pairs) for kind, pairs in result.events if kind.startswith(POT)}
    assert events[f"{POT}.EventVolumeReport"] == {"epoch": '"1"', "report_reference": f'"{reference.reference}"', "msg_index": "1"}
    names = [key for key in events[f"{POT}.EventEpochPaid"] if key != "msg_index"]
    assert names == sorted(names)
    assert events[f"{POT}.EventEpochPaid"]["mining_reward_wei"] == f'"{paid.mined_wei}"'
    history = net.ask("PriceHistory").epochs
    assert [(one.epoch, one.reported_noz, one.paid_noz, one.maturity_epoch) for one in history] == [(1, str(10**12), str(10**12), 2017)]
    assert Dec(int(history[0].price_wei_per_noz)).truncate() > 0
    assert net.report(2).code == 0


def test_an_idle_epoch_advances_and_pays_nothing() -> None:
    net = Net()
    before = {name: net.held(name) for name in MODULES if name != "distribution" and name != "fee_collector"}
    net.reported(1)
    assert {name: net.held(name) for name in before} == before
    assert net.section()["last_distributed_epoch"] == "1"
    assert net.section()["maturing_rewards"] == []


@pytest.fixture(scope="module")
def bought() -> Net:
    net = Net()
    net.buy(100 * STOS)
    net.reported(1, WORK)
    return net


Change = Callable[[Any], None]


def _set(name: str, value: Any) -> Change:
    return lambda report: setattr(report, name, value)


def _wallets(*pairs: tuple[str, str]) -> Change:
    def change(report: Any) -> None:
        del report.wallet_volumes[:]
        for address, volume in pairs:
            report.wallet_volumes.add(wallet_address=address, volume=volume)

    return change


A, B, C = wallets(3)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (_set("reporter", ""), 13),
        (_wallets(), 14),
        (_set("epoch", "0"), 15),
        (_set("epoch", "-1"), 15),
        (_set("epoch", str(2**62 + 1)), 103),
        (_set("report_reference", ""), 16),
        (_set("report_reference", "r" * 129), 16),
        (_set("reporter", "stsds1"), 25),
        (_wallets(("", "1")), 5),
        (_wallets(("st1", "1")), 27),
        (_wallets((A.upper(), "1")), 27),
        (_wallets((bech32.encode(bytes(32)), "1")), 27),
        (_wallets((A, "-1")), 18),
        (_wallets((A, "007")), 18),
        (_wallets((A, str(2**127))), 18),
        (_wallets((A, str(2**126)), (B, str(2**126)), (C, "1")), 18),
        (_wallets((B, "1"), (A, "1")), 105),
        (_wallets((A, "1"), (A, "1")), 105),
        (_set("reporter", meta_keys(9).network_address), 33),
        (_set("reporter", meta_keys(1).network_address), 33),
    ],
)
def test_a_report_of_another_form_is_refused_with_the_originals_code(bought: Net, change: Change, expected: int) -> None:
    assert bought.refused_report(again(bought.signed(bought.draft(2, WORK)), change, sign=ALL)) == ("pot", expected)


@pytest.mark.parametrize("owner", ["", "st1", bech32.encode(bytes(20), "cosmos")])
def test_a_report_in_the_name_of_no_account_is_refused(bought: Net, owner: str) -> None:
    """Nobody can sign it, so it comes from governance or authz at most."""
    report = again(bought.signed(bought.draft(2, WORK)), _set("reporter_owner", owner))[1]
    assert refusal(bought, bought.app.executor._handlers[f"{POT}.MsgVolumeReport"], report) == ("pot", 17)


@pytest.mark.parametrize(("epoch", "expected"), [(1, 8), (3, 101), (2**62 - 1, 101), (2**62, 101)])
def test_a_report_of_an_old_epoch_or_of_a_later_one_than_the_next_is_refused(bought: Net, epoch: int, expected: int) -> None:
    assert bought.refused_report(bought.signed(bought.draft(epoch, WORK))) == ("pot", expected)


def _keys(change: Callable[[list[bytes]], list[bytes]]) -> Change:
    def apply(report: Any) -> None:
        changed = change(list(report.BLS_signature.pub_keys))
        del report.BLS_signature.pub_keys[:]
        report.BLS_signature.pub_keys.extend(changed)

    return apply


def _bls(name: str, value: bytes) -> Change:
    return lambda report: setattr(report.BLS_signature, name, value)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (_bls("signature", b""), 20),
        (_bls("signature", bytes(95)), 20),
        (_bls("txData", b""), 21),
        (_bls("txData", bytes(32)), 21),
        (_keys(lambda keys: [*keys[:-1], b""]), 22),
        (_keys(lambda keys: [*keys, bytes(33)]), 22),
        (_keys(lambda keys: [keys[0], *keys]), 22),
        (_keys(lambda keys: keys[::-1]), 22),
        (_keys(lambda keys: sorted([*keys, INFINITY])), 22),
        (_keys(lambda keys: sorted([*keys[1:], meta_keys(77).bls_pubkey])), 22),
        (_keys(lambda keys: keys[:2]), 24),
        (_keys(lambda keys: []), 24),
        (_keys(lambda keys: keys[:3]), 23),
        (_bls("signature", bls.sign(meta_keys(0).bls_secret, b"another message")), 23),
        (_bls("signature", bytes([0xC0]) + bytes(95)), 23),
        (_bls("signature", bytes(96)), 23),
    ],
)
def test_a_report_that_no_quorum_signed_is_refused(bought: Net, change: Change, expected: int) -> None:
    assert bought.refused_report(again(bought.signed(bought.draft(2, WORK)), change)) == ("pot", expected)


def test_a_signature_is_good_on_one_chain_and_for_one_report(bought: Net) -> None:
    made = bought.draft(2, WORK)
    info = made.signature_info({meta_keys(at).bls_pubkey: meta_keys(at).sign(made.message) for at in ALL})
    elsewhere = type(made)("test-2", made.commitment, made.report)
    other = elsewhere.signature_info({meta_keys(at).bls_pubkey: meta_keys(at).sign(elsewhere.message) for at in ALL})
    assert bought.refused_report(made.messages(other)) == ("pot", 23)
    richer = bought.draft(2, [(A, 10**12)])
    assert bought.refused_report(richer.messages(info)) == ("pot", 21)
    info.txData = richer.data
    assert bought.refused_report(richer.messages(info)) == ("pot", 23)


def test_a_report_needs_its_commitment(bought: Net) -> None:
    commit, report = bought.signed(bought.draft(2, WORK))
    assert bought.refused_report([report]) == ("settlement", 12)
    other, _ = bought.signed(bought.draft(2, WORK, receipts=2))
    assert bought.refused_report([other, report])[0] == "settlement"
    assert bought.refused_report([commit])[0] == "settlement"
    inner = [execute(text(KEYS[0]), commit, report)]
    assert bought.refused_report(inner)[0] == "settlement"
    assert bought.refused_report([execute(text(KEYS[0]), report)]) == ("settlement", 12)


def test_a_report_comes_once_and_not_before_its_epoch_is_over() -> None:
    net = Net()
    net.buy(STOS)
    messages = net.signed(net.draft(1, [(A, 1000)]))
    net.ok(KEYS[0], *messages)
    assert net.refused_report(messages, step_s=1) == ("pot", 8)
    later = net.signed(net.draft(2, [(A, 1000)]))
    assert net.refused_report(later, step_s=1) == ("pot", 101)
    assert net.refused_report(later, step_s=REPORT_S - 3) == ("pot", 101)
    net.ok(KEYS[0], *later, step_s=1)


def test_what_cannot_be_paid_is_refused(bought: Net) -> None:
    sold = int(bought.query(SDS, "NozSupply").total) - int(bought.query(SDS, "NozSupply").remaining)
    refused, log = bought.refusal(KEYS[0], *bought.signed(bought.draft(2, [(A, sold + 1)])), step_s=REPORT_S)
    assert refused == ("pot", 32)
    assert "noz that were sold" in log
    poor = Net(foundation_wei=0)
    poor.buy(100 * STOS)
    refused, log = poor.refusal(KEYS[0], *poor.signed(poor.draft(1, WORK)), step_s=REPORT_S)
    assert refused == ("pot", 32)
    assert "the foundation has 0wei" in log
    assert poor.report(1).code == 0


def test_what_a_void_epoch_left_pending_can_be_reported_again() -> None:
    """Lt was 0 when the epoch became void, so its noz are pending: they were sold, and are not reported."""
    pool = Ozone(10**18, 0, 10**18, pending_noz=7, solvency=True)
    assert pool.outstanding_noz == pool.supply_noz + 7
    every = distribute(pool, 0, 10**26, [Work(A, pool.outstanding_noz)], [B], RewardParams())
    assert 0 < every.spent_wei <= 10**18
    with pytest.raises(VolumeReport, match="that were sold"):
        distribute(pool, 0, 10**26, [Work(A, pool.outstanding_noz + 1)], [B], RewardParams())


def test_more_wallets_than_allowed_are_refused() -> None:
    net = Net(pot={"max_wallets_per_report": 2})
    net.buy(STOS)
    assert net.refused_report(net.signed(net.draft(1, WORK[:3]))) == ("pot", 104)
    net.reported(1, [(A, 5), (B, 0)])
    assert net.immature_wei(B) == 0


def test_the_quorum_is_two_thirds_of_the_active_meta_nodes_and_one() -> None:
    assert [quorum(n) for n in range(1, 11)] == [1, 2, 3, 3, 4, 5, 5, 6, 7, 7]
    assert all(3 * (quorum(n) - 1) <= 2 * n < 3 * quorum(n) for n in range(1, 1000))


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 30])
def test_one_signature_short_is_short(count: int) -> None:
    net = Net(metas=count, invariant_period=0)
    needed = quorum(count)
    if needed > 1:
        assert code(net.report(1, signers=range(needed - 1))) == ("pot", 24)
    assert code(net.report(1, signers=range(count - needed, count))) == ("", 0)


def _one_leaves(document: dict[str, Any]) -> None:
    document["app_state"]["register"]["meta_nodes"][3]["suspend"] = True


def test_a_meta_node_that_is_not_active_neither_signs_nor_reports_nor_is_paid() -> None:
    net = Net(edit=_one_leaves)
    net.buy(100 * STOS)
    assert code(net.report(1, WORK, signers=(0, 1, 2, 3))) == ("pot", 22)
    assert code(net.report(1, WORK, reporter=3, signers=(0, 1, 2))) == ("pot", 33)
    net.reported(1, WORK, signers=(0, 1, 2))
    assert [net.immature_wei(text(owner_of(at))) > 0 for at in ALL] == [True, True, True, False]


def test_a_meta_nodes_reward_goes_to_its_beneficiary() -> None:
    def edit(document: dict[str, Any]) -> None:
        document["app_state"]["register"]["meta_nodes"][1]["beneficiary_address"] = A

    net = Net(edit=edit)
    net.buy(100 * STOS)
    net.reported(1, [(B, 10**12)])
    assert net.immature_wei(A) == net.immature_wei(text(KEYS[0])) > 0
    assert net.immature_wei(text(KEYS[1])) == 0


def test_a_quorum_that_reports_as_fast_as_it_can_gets_one_epoch_in_its_time() -> None:
    net = Net()
    net.buy(100 * STOS)
    made = [net.signed(net.draft(epoch, WORK)) for epoch in (1, 2, 3)]
    raws = [net.sign(KEYS[0], *messages, gas=GAS, ahead=at) for at, messages in enumerate(made)]
    results = net.driver.next_block(raws, process=False, time_step_s=5).results
    assert [code(one) for one in results] == [("", 0), ("pot", 101), ("pot", 101)]
    assert [code(net.run(KEYS[0], *messages, gas=GAS, step_s=5)) for messages in made[1:]] == [("pot", 101)] * 2


def test_with_every_switch_off_fast_reports_never_pay_out_more_than_was_prepaid_and_founded() -> None:
    net = Net(pot={**OFF, "mining_cap_ratio": "0.4"})
    net.buy(100 * STOS)
    before = net.held("foundation_account"), net.held("total_unissued_prepay")
    for start in range(0, 20, 10):
        made = [net.signed(net.draft(start + epoch, WORK)) for epoch in range(1, 11)]
        raws = [net.sign(KEYS[0], *messages, gas=GAS, ahead=at) for at, messages in enumerate(made)]
        assert all(one.code == 0 for one in net.driver.next_block(raws, process=False).results)
    mined, spent = before[0] - net.held("foundation_account"), before[1] - net.held("total_unissued_prepay")
    assert 0 < mined <= spent * 4 // 10 + 20


def test_epoch_numbers_near_the_end_neither_drain_nor_slow_the_chain() -> None:
    net = Net(pot=OFF, invariant_period=0)
    net.buy(100 * STOS)
    last = 2**62
    for epoch in (1, 5, last - 2):
        net.reported(epoch, [(address, 10**9) for address in wallets(30)])
    assert net.section()["matured_epoch"] == str(last - 2)
    mined = net.section()["total_mined_token"]
    net.reported(last, WORK)
    assert net.refused_report(net.signed(net.draft(last, WORK))) == ("pot", 8)
    beyond = again(net.signed(net.draft(last, WORK)), _set("epoch", str(last + 1)), sign=ALL)
    assert net.refused_report(beyond) == ("pot", 103)
    assert int(net.section()["total_mined_token"]["amount"]) - int(mined["amount"]) <= 80 * STOS
    for _ in range(3):
        net.driver.next_block()
    net.holds()
    assert net.section()["maturing_rewards"][-1]["maturity_epoch"] == str(last + 2016)


def test_governance_raises_the_epochs_to_maturity_and_lowers_them_only_where_nothing_waits() -> None:
    net = Net()
    params = from_json(message_class(f"{POT}.Params"), net.section()["params"])

    def update(mature_epoch: int, **fields: Any) -> Any:
        changed = type(params)()
        changed.CopyFrom(params)
        changed.mature_epoch = mature_epoch
        for name, value in fields.items():
            setattr(changed, name, value)
        return message_class(f"{POT}.MsgUpdateParams")(authority=GOV, params=changed)

    height = net.driver.height
    at_end_of(net.app, {height + 1: update(10), height + 3: update(20)})
    net.driver.next_block()
    net.buy(STOS)
    net.driver.next_block()
    assert net.section()["params"]["mature_epoch"] == "20"
    net.reported(1, [(A, 100)])
    handler = net.app.executor._handlers[f"{POT}.MsgUpdateParams"]
    for message, expected in (
        (update(19), ("pot", 8)),
        (update(0), ("pot", 8)),
        (update(2**31 + 1), ("pot", 8)),
        (update(20, bond_denom="stos"), ("pot", 28)),
        (update(20, community_tax=str(10**18 + 1)), ("pot", 10)),
        (update(20, mining_cap_ratio=str(1001 * 10**18)), ("pot", 102)),
        (update(20, max_wallets_per_report=100_001), ("pot", 108)),
        (update(20, epoch_duration_s=367 * 86_400), ("pot", 108)),
    ):
        assert refusal(net, handler, message) == expected
    worse = update(20)
    worse.params.initial_total_supply.amount = "0"
    assert refusal(net, handler, worse) == ("pot", 11)
    worse = update(20)
    for text_bp in ("1", ""):
        worse.params.mining_reward_params[0].meta_node_percentage_in_bp = text_bp
        assert refusal(net, handler, worse) == ("pot", 9)
    worse = update(20)
    worse.authority = text(KEYS[0])
    assert net.refused(KEYS[0], worse) == ("gov", 13)


def refusal(net: Net, handler: Any, message: Any) -> tuple[str, int]:
    """What a handler raises on a throwaway copy of the state."""
    with net.app.store.view() as view:
        try:
            handler.check_stateless(message)
            handler.execute(Context("test-1", net.driver.height, net.driver.time_ns, Mode.FINALIZE), State(view, net.app.store.names), message)
        except AppError as error:
            return error.codespace, error.code
    return "", 0
