"""Distribution in process: fees shared out and withdrawn, every refusal with its code, genesis both ways, and the advisories."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from chain import dec_coins
from chain.app import build_application
from chain.application import Application
from chain.codec.json import to_json
from chain.codec.registry import message_class
from chain.coins import Coin, to_messages
from chain.context import Context, Mode, Vote
from chain.crypto import address as bech32
from chain.crypto.address import module_address
from chain.dec import ONE, Dec
from chain.dec_coins import DecCoin
from chain.errors import AppError, InvalidCoins, InvariantBroken
from chain.module import GenesisError
from chain.store.kv import MemoryBackend
from chain.testing.driver import Driver
from chain.tx.build import Signer, build_tx
from modules.distribution import keys
from modules.distribution.genesis import DistributionGenesis
from modules.distribution.hooks import DistributionHooks
from modules.distribution.keeper import MAX_INFLOW_BITS, Historical, StartingInfo
from modules.distribution.params import Params
from modules.staking.store import cons_of
from tests.modules.rewards import History
from tests.support import CHAIN_ID, FEE, GAS, KEYS, balance, genesis_document, text

PACKAGE = "cosmos.distribution.v1beta1"
OPERATOR = bech32.encode(KEYS[0].public_key.address, bech32.VALIDATOR)
NOBODY = bytes([7]) * 20
FEE_WEI = FEE[0].amount


def chain(tax: str = "0.020000000000000000", **distribution: Any) -> Driver:
    """One validator with a commission of 10 %, a community tax, and two empty blocks."""
    app = build_application(MemoryBackend())
    document = genesis_document(app)
    document["app_state"]["distribution"]["params"] |= {"community_tax": tax, **distribution}
    driver = Driver([app], document)
    driver.start()
    driver.next_block()
    driver.next_block()
    return driver


def message(name: str, **fields: Any) -> Any:
    return message_class(f"{PACKAGE}.Msg{name}")(**fields)


def coins(amount: int, denom: str = "wei") -> list[Any]:
    return to_messages((Coin(denom, amount),))


def run(driver: Driver, signer: int, sequence: int, *messages: Any) -> Any:
    """The result of a transaction in a block of its own; its fee is shared out in the block after it."""
    signers = [Signer(KEYS[signer].public_key, sequence, signer)]
    raw = build_tx(list(messages), fee=FEE, gas_limit=GAS * 2, signers=signers).sign([KEYS[signer]], CHAIN_ID)
    return driver.next_block([raw]).results[0]


def ask(driver: Driver, name: str, **fields: Any) -> Any:
    """A query's answer as JSON."""
    app: Application = driver.apps[0]  # type: ignore[assignment]
    return to_json(app.query_rpc(f"/{PACKAGE}.Query/{name}", message_class(f"{PACKAGE}.Query{name}Request")(**fields))[0])


def broken(driver: Driver) -> list[str]:
    app: Application = driver.apps[0]  # type: ignore[assignment]
    return app.broken_invariants()


def wei(amount: str) -> list[dict[str, str]]:
    whole, _, part = amount.partition(".")
    return [{"denom": "wei", "amount": f"{whole}.{part.ljust(18, '0')}"}]


def rewards_of(driver: Driver) -> Any:
    return ask(driver, "DelegationRewards", delegator_address=text(KEYS[0]), validator_address=OPERATOR)["rewards"]


# --- the way of a fee -------------------------------------------------------------------------------------------------


def test_a_fee_is_shared_out_in_the_next_block_and_withdrawn() -> None:
    driver = chain()
    assert run(driver, 2, 0, message("FundCommunityPool", amount=coins(5), depositor=text(KEYS[2]))).code == 0
    assert ask(driver, "CommunityPool")["pool"] == wei("5")
    assert rewards_of(driver) == []
    driver.next_block()
    shared = FEE_WEI * 98 // 100
    assert ask(driver, "CommunityPool")["pool"] == wei(str(5 + FEE_WEI - shared))
    assert ask(driver, "ValidatorOutstandingRewards", validator_address=OPERATOR)["rewards"]["rewards"] == wei(str(shared))
    assert ask(driver, "ValidatorCommission", validator_address=OPERATOR)["commission"]["commission"] == wei(str(shared // 10))
    assert rewards_of(driver) == wei(str(shared * 9 // 10))
    assert ask(driver, "DelegationTotalRewards", delegator_address=text(KEYS[0])) == {
        "rewards": [{"validator_address": OPERATOR, "reward": wei(str(shared * 9 // 10))}],
        "total": wei(str(shared * 9 // 10)),
    }
    info = ask(driver, "ValidatorDistributionInfo", validator_address=OPERATOR)
    assert info["self_bond_rewards"] == wei(str(shared * 9 // 10))
    assert info["operator_address"] == text(KEYS[0])
    assert ask(driver, "DelegatorValidators", delegator_address=text(KEYS[0])) == {"validators": [OPERATOR]}

    before = balance(driver, 0)
    withdraw = message("WithdrawDelegatorReward", delegator_address=text(KEYS[0]), validator_address=OPERATOR)
    done = run(driver, 0, 1, withdraw, message("WithdrawValidatorCommission", validator_address=OPERATOR))
    assert done.code == 0, done.log
    assert balance(driver, 0) == before - FEE_WEI + shared
    found = {kind: dict(attributes) for kind, attributes in done.events}
    assert found["withdraw_rewards"] == {
        "amount": f"{shared * 9 // 10}wei",
        "validator": OPERATOR,
        "delegator": text(KEYS[0]),
        "msg_index": "0",
    }
    assert found["withdraw_commission"] == {"amount": f"{shared // 10}wei", "msg_index": "1"}
    assert rewards_of(driver) == []
    assert ask(driver, "ValidatorCommission", validator_address=OPERATOR)["commission"]["commission"] == []
    assert broken(driver) == []


def test_what_is_withdrawn_a_second_time_in_a_block_is_nothing_in_the_base_denom() -> None:
    driver = chain()
    withdraw = message("WithdrawDelegatorReward", delegator_address=text(KEYS[0]), validator_address=OPERATOR)
    done = run(driver, 0, 1, withdraw, withdraw)
    assert [dict(attributes)["amount"] for kind, attributes in done.events if kind == "withdraw_rewards"] == ["0wei", "0wei"]
    data = message_class("cosmos.base.abci.v1beta1.TxMsgData").FromString(done.data)
    assert [len(one.value) > 0 for one in data.msg_responses] == [True, True]
    assert broken(driver) == []


def test_rewards_and_commission_go_to_the_withdraw_address() -> None:
    driver = chain()
    set_address = message("SetWithdrawAddress", delegator_address=text(KEYS[0]), withdraw_address=text(KEYS[5]))
    done = run(driver, 0, 1, set_address)
    assert ("set_withdraw_address", (("withdraw_address", text(KEYS[5])), ("msg_index", "0"))) in done.events
    assert ask(driver, "DelegatorWithdrawAddress", delegator_address=text(KEYS[0])) == {"withdraw_address": text(KEYS[5])}
    assert ask(driver, "DelegatorWithdrawAddress", delegator_address=text(KEYS[1])) == {"withdraw_address": text(KEYS[1])}
    withdraw = message("WithdrawDelegatorReward", delegator_address=text(KEYS[0]), validator_address=OPERATOR)
    before = balance(driver, 5)
    run(driver, 0, 2, withdraw, message("WithdrawValidatorCommission", validator_address=OPERATOR))
    assert balance(driver, 5) == before + FEE_WEI * 98 // 100


def test_a_gift_to_a_validator_is_shared_as_a_fee_without_tax() -> None:
    driver = chain()
    gift = message("DepositValidatorRewardsPool", depositor=text(KEYS[2]), validator_address=OPERATOR, amount=coins(1_000_003))
    done = run(driver, 2, 0, gift)
    assert [kind for kind, _ in done.events if kind in ("commission", "rewards")] == ["commission", "rewards"]
    assert rewards_of(driver) == wei("900002")  # of 900002.7: per token, of which there are 10^18, 18 places are kept
    assert ask(driver, "ValidatorCommission", validator_address=OPERATOR)["commission"]["commission"] == wei("100000.3")
    assert broken(driver) == []


def test_the_mint_event_tells_of_no_inflation_in_every_block() -> None:
    driver = chain()
    events = {event.type: {pair.key: pair.value for pair in event.attributes} for event in driver.blocks[driver.height].response.events}
    assert events["mint"]["amount"] == "0"
    assert events["mint"]["inflation"] == "0.000000000000000000"


# --- refusals ---------------------------------------------------------------------------------------------------------

ALICE = text(KEYS[2])
NOBODYS = bech32.encode(NOBODY, bech32.VALIDATOR)
REFUSED: dict[str, tuple[Callable[[], Any], str, int]] = {
    "no such validator": (lambda: message("WithdrawDelegatorReward", delegator_address=ALICE, validator_address=NOBODYS), "staking", 3),
    "no such delegation": (lambda: message("WithdrawDelegatorReward", delegator_address=ALICE, validator_address=OPERATOR), "staking", 19),
    "an account for a validator": (lambda: message("WithdrawDelegatorReward", delegator_address=ALICE, validator_address=ALICE), "sdk", 7),
    "no commission": (
        lambda: message("WithdrawValidatorCommission", validator_address=bech32.encode(KEYS[2].public_key.address, bech32.VALIDATOR)),
        "distribution",
        7,
    ),
    "a blocked withdraw address": (
        lambda: message("SetWithdrawAddress", delegator_address=ALICE, withdraw_address=bech32.encode(module_address("mint"))),
        "sdk",
        4,
    ),
    "no withdraw address": (lambda: message("SetWithdrawAddress", delegator_address=ALICE), "sdk", 7),
    "a gift of nothing": (lambda: message("FundCommunityPool", depositor=ALICE), "sdk", 10),
    "a gift of zero": (lambda: message("FundCommunityPool", depositor=ALICE, amount=coins(0)), "sdk", 10),
    "more than there is": (lambda: message("FundCommunityPool", depositor=ALICE, amount=coins(10**30)), "sdk", 5),
    "a gift to nobody": (
        lambda: message("DepositValidatorRewardsPool", depositor=ALICE, validator_address=NOBODYS, amount=coins(1)),
        "staking",
        3,
    ),
    "parameters not from gov": (lambda: message("UpdateParams", authority=ALICE, params=Params(community_tax="0")), "gov", 13),
    "the pool not from gov": (lambda: message("CommunityPoolSpend", authority=ALICE, recipient=ALICE, amount=coins(1)), "gov", 13),
}


@pytest.fixture(scope="module")
def quiet() -> Driver:
    return chain()


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_has_the_sdks_code_and_changes_nothing(quiet: Driver, name: str) -> None:
    make, codespace, code = REFUSED[name]
    before = ask(quiet, "CommunityPool")
    refused = run(quiet, 2, list(REFUSED).index(name), make())
    assert (refused.codespace, refused.code) == (codespace, code), refused.log
    assert broken(quiet) == []
    assert len(ask(quiet, "CommunityPool")["pool"]) >= len(before["pool"])


def test_withdraw_addresses_stay_where_parameters_forbid_to_change_them() -> None:
    driver = chain(withdraw_addr_enabled=False)
    done = run(driver, 2, 0, message("SetWithdrawAddress", delegator_address=ALICE, withdraw_address=text(KEYS[3])))
    assert (done.codespace, done.code) == ("distribution", 8)


@pytest.mark.parametrize(
    ("name", "fields", "words"),
    [
        ("ValidatorCommission", {}, "empty validator address"),
        ("ValidatorSlashes", {"starting_height": 1}, "empty validator address"),
        ("ValidatorSlashes", {"validator_address": OPERATOR, "starting_height": 2, "ending_height": 1}, r"\(2 > 1\)"),
        ("DelegationRewards", {"delegator_address": "", "validator_address": OPERATOR}, "empty delegator address"),
        ("DelegationRewards", {"delegator_address": ALICE, "validator_address": OPERATOR}, "no delegation"),
        ("DelegationRewards", {"delegator_address": ALICE, "validator_address": NOBODYS}, "validator does not exist"),
        ("ValidatorOutstandingRewards", {"validator_address": NOBODYS}, "validator does not exist"),
        ("DelegationTotalRewards", {}, "empty delegator address"),
        ("DelegatorWithdrawAddress", {}, "empty delegator address"),
    ],
)
def test_a_query_says_what_it_lacks(quiet: Driver, name: str, fields: dict[str, Any], words: str) -> None:
    with pytest.raises(AppError, match=words):
        ask(quiet, name, **fields)


# --- the gov account --------------------------------------------------------------------------------------------------


class World(History):
    """The keepers of a random history without the history, for what no signature can reach."""

    def __init__(self) -> None:
        super().__init__(0)
        self.height = 5
        self.ctx = self._context()
        self._join()
        self.staking.end_block(self.ctx, self.state)
        [self.operator] = [operator for operator in self.operators if self.staking.validator(self.state, operator)]

    def gov(self, name: str, **fields: Any) -> Any:
        handler = self.handlers[f"{PACKAGE}.Msg{name}"]
        authority = bech32.encode(module_address("gov"))
        return handler.execute(self.ctx, self.state, message(name, authority=authority, **fields))

    def give(self, amount: int, denom: str = "wei") -> None:
        """To bytes([3]) * 20, who can give it on."""
        given = (Coin(denom, amount),)
        self.bank.mint(self.ctx, self.state, "mint", given)
        self.bank.send(self.ctx, self.state, module_address("mint"), bytes([3]) * 20, given)

    def sound(self) -> bool:
        return all(check(self.state) is None for check in self.checks.values())


def test_the_gov_account_spends_the_pool_and_no_more_than_is_in_it() -> None:
    world = World()
    world.give(100)
    world.distribution.fund_community_pool(world.ctx, world.state, (Coin("wei", 100),), bytes([3]) * 20)
    world.gov("CommunityPoolSpend", recipient=bech32.encode(NOBODY), amount=coins(60))
    assert world.bank.balance(world.state, NOBODY, "wei") == 60
    assert world.distribution.community_pool(world.state) == (DecCoin("wei", 40 * ONE),)
    for amount, denom in ((41, "wei"), (1, "abc")):
        with pytest.raises(AppError) as refused:
            world.gov("CommunityPoolSpend", recipient=bech32.encode(NOBODY), amount=coins(amount, denom))
        assert (refused.value.codespace, refused.value.code) == ("distribution", 9)
    assert world.sound()


@pytest.mark.parametrize(
    ("changes", "codespace", "code"),
    [
        ({"community_tax": str(ONE + 1)}, "undefined", 1),
        ({"community_tax": "-1"}, "undefined", 1),
        ({"community_tax": ""}, "undefined", 1),
        ({"base_proposer_reward": "1"}, "sdk", 18),
        ({"bonus_proposer_reward": "1"}, "sdk", 18),
        ({"community_tax": "0.1"}, "sdk", 2),
    ],
)
def test_parameters_out_of_range_are_refused(changes: dict[str, str], codespace: str, code: int) -> None:
    world = World()
    fine = {"community_tax": str(ONE), "base_proposer_reward": "0", "bonus_proposer_reward": "0"}
    world.gov("UpdateParams", params=Params(**fine))
    assert world.distribution.params(world.state).community_tax == str(ONE)
    with pytest.raises(AppError) as refused:
        world.gov("UpdateParams", params=Params(**{**fine, **changes}))
    assert (refused.value.codespace, refused.value.code) == (codespace, code)


# --- nothing a user does stops a block --------------------------------------------------------------------------------


def test_isa_2025_005_a_gift_that_could_overflow_rewards_is_refused_and_no_block_stops() -> None:
    """GHSA-p22h-3m2v-cmgh: huge gifts to a validator made a later end of a period overflow, in a block hook."""
    world = World()
    huge, most = 1 << MAX_INFLOW_BITS, (1 << MAX_INFLOW_BITS) - 1
    world.give((1 << 256) - 1, "evil")
    giver = bytes([3]) * 20
    for give in (
        lambda: world.distribution.deposit_rewards(world.ctx, world.state, (Coin("evil", huge),), giver, world.operator),
        lambda: world.distribution.fund_community_pool(world.ctx, world.state, (Coin("evil", huge),), giver),
    ):
        mark = world.state.mark()
        with pytest.raises(InvalidCoins, match="200 bits"):
            give()
        world.state.rollback(mark)
    world.distribution.set_outstanding(world.state, world.operator, ())
    hooks = DistributionHooks(world.distribution)
    validator = world.staking.validator(world.state, world.operator)
    validator.tokens = "1"  # the least a validator can have: every ratio is as large as it can be
    world.staking.set_validator(world.state, validator)
    for _ in range(64):
        world.distribution.deposit_rewards(world.ctx, world.state, (Coin("evil", most),), giver, world.operator)
        hooks.before_validator_slashed(world.ctx, world.state, world.operator, Dec(0))
    ratio = dict(world.distribution.historical(world.state, world.operator, world.distribution.current(world.state, world.operator).period - 1).ratio)
    assert ratio["evil"].bit_length() <= 270, "of 315 bits: 2^45 more such gifts fit"


def test_fees_too_large_for_rewards_stay_with_the_fee_collector() -> None:
    world = World()
    collector = module_address("fee_collector")
    for amount, denom in (((1 << 255), "evil"), (1000, "wei")):
        world.give(amount, denom)
        world.bank.send(world.ctx, world.state, bytes([3]) * 20, collector, (Coin(denom, amount),))
    votes = tuple(Vote(cons, 5, 2) for cons in (bytes(20),))
    world.distribution.allocate(replace(world.ctx, last_commit=votes), world.state)
    assert world.bank.balances(world.state, collector) == (Coin("evil", 1 << 255),)
    assert world.distribution.community_pool(world.state) == (DecCoin("wei", 1000 * ONE),), "the part of a validator that is gone"
    assert world.sound()


@pytest.mark.parametrize(("excess", "counts"), [(0, True), (3, True), (ONE, True), (ONE + 1, False)])
def test_a_stake_that_rounding_left_above_the_delegations_worth_counts_as_that_worth(excess: int, counts: bool) -> None:
    world = World()
    validator = world.staking.validator(world.state, world.operator)
    delegation = world.staking.delegation(world.state, world.operator, world.operator)
    worth = world.staking.tokens_from_shares(validator, Dec(int(delegation.shares)))
    world.distribution.set_starting_info(world.state, world.operator, world.operator, StartingInfo(1, Dec(worth.scaled + excess), 0))
    world.distribution.set_historical(world.state, world.operator, 1, Historical((), 1))
    ratio = (DecCoin("wei", 10**36),)

    def earned() -> Any:
        return world.distribution.earned(world.state, validator, delegation, 9, lambda: ratio)

    if counts:
        assert earned() == dec_coins.multiply_truncate(ratio, worth)
    else:
        with pytest.raises(InvariantBroken, match="by its slashes"):
            earned()


def test_a_thousand_denoms_in_fees_and_gifts_leave_blocks_and_rewards_bounded() -> None:
    world = World()
    collector, giver = module_address("fee_collector"), bytes([3]) * 20
    names = [f"dust{number:04d}" for number in range(1000)]
    for name in (*names, "wei"):
        world.give(1000, name)
    dust = tuple(Coin(name, 500) for name in names)
    with pytest.raises(InvalidCoins, match="at most 64 denoms"):
        world.distribution.deposit_rewards(world.ctx, world.state, dust, giver, world.operator)
    world = World()
    for name in (*names, "wei"):
        world.give(1000, name)
    world.distribution.deposit_rewards(world.ctx, world.state, dust[:60], giver, world.operator)
    world.bank.send(world.ctx, world.state, giver, collector, (*dust[60:], Coin("wei", 1000)))
    [validator] = world.staking.validators(world.state)
    votes = (Vote(cons_of(validator), 5, 2),)
    for left in (940 - 64, 940 - 128):
        world.distribution.allocate(replace(world.ctx, last_commit=votes), world.state)
        assert len(world.bank.balances(world.state, collector)) == left
    outstanding = dict(world.distribution.outstanding(world.state, world.operator))
    assert len(outstanding) == 65
    assert outstanding["wei"] > 900 * ONE // 2, "there is always room for wei"
    assert dict(world.distribution.community_pool(world.state))["dust0100"] == 500 * ONE
    assert world.sound()


def test_rewards_go_to_the_delegator_where_an_upgrade_blocked_its_withdraw_address() -> None:
    world = World()
    later = module_address("a module of the next version")
    world.distribution.set_withdraw_address(world.state, world.operator, later)
    world.bank._blocked = frozenset({later})
    world.give(1000)
    world.distribution.deposit_rewards(world.ctx, world.state, (Coin("wei", 1000),), bytes([3]) * 20, world.operator)
    before = world.bank.balance(world.state, world.operator, "wei")
    world.distribution.pay(world.ctx, world.state, world.operator, (Coin("wei", 7),))
    assert world.bank.balance(world.state, world.operator, "wei") == before + 7
    assert world.bank.balance(world.state, later, "wei") == 0


def test_anybody_may_send_to_the_modules_account_and_nothing_breaks() -> None:
    driver = chain()
    give = message_class("cosmos.bank.v1beta1.MsgSend")(
        from_address=ALICE, to_address=bech32.encode(module_address("distribution")), amount=coins(77)
    )
    assert run(driver, 2, 0, give).code == 0
    driver.next_block()
    assert broken(driver) == []


# --- genesis ----------------------------------------------------------------------------------------------------------


def section_of(world: World) -> tuple[DistributionGenesis, Any]:
    genesis = DistributionGenesis(world.distribution, world.distribution._accounts)
    return genesis, genesis.export(Context("test-1", 9, 0, Mode.QUERY), world.state)


def lived() -> World:
    """A world with rewards, slashes, withdraw addresses and a proposer."""
    world = World()
    world.run(12)
    world.distribution.set_previous_proposer(world.state, bytes([8]) * 20)
    return world


def test_a_section_goes_in_and_out_byte_for_byte() -> None:
    world = lived()
    genesis, section = section_of(world)
    for name in ("outstanding_rewards", "validator_historical_rewards", "validator_current_rewards", "delegator_starting_infos"):
        assert section[name], name
    assert section["validator_slash_events"], "a history without a slash shows nothing"
    assert section["previous_proposer"].startswith("stvalcons1")
    genesis.validate(section)
    before = list(world.state.store("distribution").iterate())
    for key, _ in before:
        world.state.store("distribution").delete(key)
    genesis.load(Context("test-1", 0, 0, Mode.GENESIS), world.state, section)
    assert list(world.state.store("distribution").iterate()) == before
    assert section_of(world)[1] == section


def test_a_section_that_owes_more_than_the_account_holds_is_refused() -> None:
    world = lived()
    genesis, section = section_of(world)
    section["fee_pool"]["community_pool"] = [{"denom": "wei", "amount": "1000000000000000000000000000000.000000000000000000"}]
    with pytest.raises(GenesisError, match="the module's account holds"):
        genesis.load(Context("test-1", 0, 0, Mode.GENESIS), world.state, section)


BAD_SECTIONS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "tax": (lambda made: made["params"].update(community_tax="1.1"), "community tax too large"),
    "pool": (lambda made: made["fee_pool"].update(community_pool=[{"denom": "wei", "amount": "-1.0"}]), "fee_pool: an amount must be positive"),
    "proposer": (lambda made: made.update(previous_proposer="st1x"), "previous_proposer"),
    "operator": (lambda made: made["outstanding_rewards"][0].update(validator_address="st1x"), r"outstanding_rewards\[0\]"),
    "withdraw address": (lambda made: made["delegator_withdraw_infos"][0].update(withdraw_address=""), r"delegator_withdraw_infos\[0\]"),
    "stake": (lambda made: made["delegator_starting_infos"][0]["starting_info"].update(stake="-1.0"), "stake must not be negative"),
    "fraction": (lambda made: made["validator_slash_events"][0]["validator_slash_event"].update(fraction="9.0"), "fraction must not be negative"),
    "fraction above 1": (
        lambda made: made["validator_slash_events"][0]["validator_slash_event"].update(fraction="1.000000000000000001"),
        r"validator_slash_events\[0\]: a fraction is at most 1",
    ),
    "period of a slash": (lambda made: made["validator_slash_events"][0].update(period="99"), r"validator_slash_events\[0\]: period is 99"),
    "no period": (lambda made: made["validator_current_rewards"][0]["rewards"].update(period="0"), r"validator_current_rewards\[0\]"),
    "two periods": (
        lambda made: made["validator_current_rewards"].append(made["validator_current_rewards"][0]),
        "once for each validator",
    ),
    "a missing period": (lambda made: made["validator_historical_rewards"].pop(), "is missing, and other records refer to it"),
    "a period for nobody": (
        lambda made: made["validator_historical_rewards"][0]["rewards"].update(reference_count=9),
        r"validator_historical_rewards\[0\]: period [0-9]+ of .* is kept for 9 records",
    ),
    "a delegation since never": (
        lambda made: made["delegator_starting_infos"][0]["starting_info"].update(previous_period="77"),
        r"validator_historical_rewards",
    ),
    "height": (lambda made: made["validator_slash_events"][0].update(height=str((1 << 64) - 1)), "a height is at most"),
    "ratio": (
        lambda made: made["validator_historical_rewards"][0]["rewards"].update(cumulative_reward_ratio=[{"denom": "wei", "amount": f"{1 << 250}.0"}]),
        "at most 300 bits",
    ),
}


@pytest.fixture(scope="module")
def exported() -> tuple[DistributionGenesis, Any]:
    return section_of(lived())


@pytest.mark.parametrize("name", BAD_SECTIONS)
def test_a_bad_section_is_refused_by_the_name_of_its_field(exported: tuple[DistributionGenesis, Any], name: str) -> None:
    genesis, section = exported
    spoil, words = BAD_SECTIONS[name]
    made = copy.deepcopy(section)
    spoil(made)
    with pytest.raises(GenesisError, match=rf"app_state\.distribution.*{words}"):
        genesis.validate(made)


# --- invariants see damage --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("nonnegative-outstanding", lambda world: world.distribution.set_outstanding(world.state, world.operator, (DecCoin("wei", -1),))),
        ("can-withdraw", lambda world: world.distribution.set_commission(world.state, world.operator, (DecCoin("wei", 10**60),))),
        ("can-withdraw", lambda world: world.state.store(keys.STORE).delete(keys.current(world.operator))),
        ("reference-count", lambda world: world.distribution.refer(world.state, world.operator, 1)),
        ("module-account", lambda world: world.distribution.set_community_pool(world.state, (DecCoin("abc", ONE),))),
    ],
)
def test_each_invariant_sees_its_damage(name: str, damage: Callable[[World], None]) -> None:
    world = World()
    assert world.sound()
    damage(world)
    assert world.checks[name](world.state)
