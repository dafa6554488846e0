"""Vesting accounts: each kind driven through time by messages and from genesis, delegations tracked, and the formulas against models."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chain.application import Settings
from chain.codec.json import to_json
from chain.codec.registry import message_class, pack_any
from chain.coins import Coin, to_messages
from chain.context import Context, Mode
from chain.crypto import address as bech32
from chain.errors import AppError, InsufficientFunds, LogicError, UnknownAddress
from chain.module import GenesisError
from chain.store.state import EmptyView, State
from chain.testing.driver import Driver
from chain.tx.build import Signer, build_tx
from modules.auth import vesting
from modules.auth.genesis import AuthGenesis
from modules.auth.keeper import Account, AuthKeeper, BaseAccount
from modules.bank.keeper import BankMint
from tests.support import CHAIN_ID, FEE, FUNDS_WEI, GAS, KEYS, chain, key, text

PACKAGE = "cosmos.vesting.v1beta1"
Base = message_class(f"{PACKAGE}.BaseVestingAccount")
KINDS = {name: message_class(f"{PACKAGE}.{name}") for name in ("ContinuousVestingAccount", "DelayedVestingAccount", "PermanentLockedAccount")}
Periodic = message_class(f"{PACKAGE}.PeriodicVestingAccount")
OWNER = key(40)
AMOUNT = 10**21
START_S = 1_767_225_600  # 2026-01-01, the genesis time of the driver


def wei(amount: int) -> list[Any]:
    return to_messages((Coin("wei", amount),)) if amount else []


def message(kind: str, **fields: Any) -> Any:
    return message_class(f"{PACKAGE}.{kind}")(**{"from_address": text(KEYS[2]), "to_address": text(OWNER), **fields})


def run(driver: Driver, one: Any, sequence: int = 0, *, check: bool = True) -> Any:
    """The result of one message from KEYS[2] in a block of its own."""
    raw = build_tx([one], fee=FEE, gas_limit=GAS * 2, signers=[Signer(KEYS[2].public_key, sequence, 2)]).sign([KEYS[2]], CHAIN_ID)
    return driver.next_block([raw], process=check).results[0]


def spendable(driver: Driver, owner: str = "") -> int:
    request = message_class("cosmos.bank.v1beta1.QuerySpendableBalancesRequest")(address=owner or text(OWNER))
    answer, _ = driver.apps[0].query_rpc("/cosmos.bank.v1beta1.Query/SpendableBalances", request)  # type: ignore[attr-defined]
    [coin] = answer.balances
    by_denom = message_class("cosmos.bank.v1beta1.QuerySpendableBalanceByDenomRequest")(address=owner or text(OWNER), denom="wei")
    single, _ = driver.apps[0].query_rpc("/cosmos.bank.v1beta1.Query/SpendableBalanceByDenom", by_denom)  # type: ignore[attr-defined]
    assert single.balance.amount == coin.amount
    return int(coin.amount)


def pay(driver: Driver, amount: int, sequence: int, number: int) -> Any:
    """The vesting account sends ``amount`` to KEYS[3]; its fee comes out of what is spendable, too."""
    one = message_class("cosmos.bank.v1beta1.MsgSend")(from_address=text(OWNER), to_address=text(KEYS[3]), amount=wei(amount))
    raw = build_tx([one], fee=FEE, gas_limit=GAS, signers=[Signer(OWNER.public_key, sequence, number)]).sign([OWNER], CHAIN_ID)
    return driver.next_block([raw], time_step_s=0).results[0]


def account(driver: Driver) -> Any:
    request = message_class("cosmos.auth.v1beta1.QueryAccountRequest")(address=text(OWNER))
    answer, _ = driver.apps[0].query_rpc("/cosmos.auth.v1beta1.Query/Account", request)  # type: ignore[attr-defined]
    return message_class(answer.account.type_url[1:]).FromString(answer.account.value)


def now_s(driver: Driver) -> int:
    return driver.time_ns // 10**9


def number_of(found: Any) -> int:
    return int(found.base_vesting_account.base_account.account_number)


def test_a_continuous_account_frees_its_coins_in_proportion_to_the_time() -> None:
    driver = chain()
    result = run(driver, message("MsgCreateVestingAccount", amount=wei(AMOUNT), end_time=now_s(driver) + 5 + 1000))
    assert result.code == 0, result.log
    found = account(driver)
    assert (type(found), found.start_time) == (KINDS["ContinuousVestingAccount"], now_s(driver))
    assert spendable(driver) == 0, "nothing vests in the block of the message"
    driver.next_block(time_step_s=250)
    assert spendable(driver) == AMOUNT // 4
    refused = pay(driver, AMOUNT // 4, 0, number_of(found))
    assert (refused.codespace, refused.code) == ("sdk", 5)
    assert "spendable balance" in refused.log
    fees = FEE[0].amount
    assert pay(driver, AMOUNT // 4 - 2 * fees, 1, number_of(found)).code == 0
    assert spendable(driver) == 0
    driver.next_block(time_step_s=749)
    assert spendable(driver) == AMOUNT // 1000 * 749
    driver.next_block(time_step_s=1)
    assert spendable(driver) == AMOUNT // 4 * 3


def test_a_query_between_the_stores_commit_and_its_end_knows_the_new_blocks_time(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = chain()
    app: Any = driver.apps[0]
    commit, seen = app.store.commit, []

    def commit_and_look(records: Any) -> None:
        commit(records)
        seen.append((app.store.latest_commit(), app.time_ns_at(app.latest_height)))

    monkeypatch.setattr(app.store, "commit", commit_and_look)
    block = driver.next_block(time_step_s=777)
    assert seen == [((block.height, block.app_hash), block.time_ns)]


def test_what_a_message_brings_beyond_the_schema_is_not_stored() -> None:
    stored = []
    for beyond in (b"", b"\x80\x40\x01"):  # field 1024, which may be unknown in a body
        driver = chain()
        period = message_class(f"{PACKAGE}.Period")(length=1000, amount=wei(AMOUNT))
        period.MergeFromString(beyond)
        result = run(driver, message("MsgCreatePeriodicVestingAccount", start_time=now_s(driver), vesting_periods=[period]))
        assert result.code == 0, result.log
        with driver.apps[0].store.view() as view:  # type: ignore[attr-defined]
            stored.append(view.store("acc").get(b"\x01" + OWNER.public_key.address))
    assert stored[0] == stored[1] is not None


def test_a_query_at_an_old_height_knows_the_time_of_that_block() -> None:
    driver = chain()
    result = run(driver, message("MsgCreateVestingAccount", amount=wei(AMOUNT), end_time=now_s(driver) + 1000))
    assert result.code == 0
    height = driver.height
    driver.next_block(time_step_s=2000)
    request = message_class("cosmos.bank.v1beta1.QuerySpendableBalancesRequest")(address=text(OWNER))
    then, now = (
        driver.apps[0].query_rpc("/cosmos.bank.v1beta1.Query/SpendableBalances", request, at)[0].balances[0]  # type: ignore[attr-defined]
        for at in (height, None)
    )
    assert (int(then.amount), int(now.amount)) == (0, AMOUNT)


def test_a_continuous_account_that_ends_in_the_past_is_free_from_the_next_second_and_survives_an_export() -> None:
    driver = chain()
    assert run(driver, message("MsgCreateVestingAccount", amount=wei(AMOUNT), end_time=1)).code == 0
    assert spendable(driver) == 0
    driver.next_block(time_step_s=1)
    assert spendable(driver) == AMOUNT
    driver.apps[0].modules[0].genesis.validate(driver.apps[0].export()["auth"])  # type: ignore[attr-defined]


def test_a_delayed_account_frees_all_at_its_end() -> None:
    driver = chain()
    end = now_s(driver) + 5 + 100
    assert run(driver, message("MsgCreateVestingAccount", amount=wei(AMOUNT), end_time=end, delayed=True)).code == 0
    driver.next_block(time_step_s=99)
    assert spendable(driver) == 0
    refused = pay(driver, 1, 0, number_of(account(driver)))
    assert (refused.codespace, refused.code, refused.events) == ("sdk", 5, ()), "not even a fee can be paid"
    driver.next_block(time_step_s=1)
    assert spendable(driver) == AMOUNT


def test_a_permanently_locked_account_never_frees_what_it_got_but_spends_what_comes_later() -> None:
    driver = chain()
    assert run(driver, message("MsgCreatePermanentLockedAccount", amount=wei(AMOUNT))).code == 0
    driver.next_block(time_step_s=10**9)
    assert spendable(driver) == 0
    more = message_class("cosmos.bank.v1beta1.MsgSend")(from_address=text(KEYS[2]), to_address=text(OWNER), amount=wei(10 * FEE[0].amount))
    assert run(driver, more, 1).code == 0
    assert spendable(driver) == 10 * FEE[0].amount
    assert pay(driver, 9 * FEE[0].amount, 0, number_of(account(driver))).code == 0
    assert spendable(driver) == 0


def test_a_periodic_account_frees_each_amount_at_the_end_of_its_period() -> None:
    driver = chain()
    periods = [{"length": 100, "amount": wei(5)}, {"length": 50, "amount": wei(7)}, {"length": 1, "amount": wei(AMOUNT)}]
    start = now_s(driver) + 5 + 10
    result = run(driver, message("MsgCreatePeriodicVestingAccount", start_time=start, vesting_periods=periods))
    assert result.code == 0, result.log
    assert account(driver).base_vesting_account.end_time == start + 151
    seen = []
    for step in (10, 99, 1, 49, 1, 1):
        driver.next_block(time_step_s=step)
        seen.append(spendable(driver))
    assert seen == [0, 0, 5, 5, 12, AMOUNT + 12]


def test_events_of_the_message_are_those_of_a_send_with_its_own_action_and_module() -> None:
    result = run(chain(), message("MsgCreatePermanentLockedAccount", amount=wei(AMOUNT)))
    events = [(kind, dict(pairs)) for kind, pairs in result.events if dict(pairs).get("msg_index") == "0"]
    assert [kind for kind, _ in events] == ["message", "coin_spent", "coin_received", "transfer", "message"]
    assert (events[0][1]["action"], events[0][1]["module"]) == (f"/{PACKAGE}.MsgCreatePermanentLockedAccount", "vesting")


BAD: list[tuple[str, str, dict[str, Any], tuple[str, int], str]] = [
    ("no coins", "MsgCreateVestingAccount", {"end_time": 9}, ("sdk", 10), "at least one coin"),
    ("end time 0", "MsgCreateVestingAccount", {"amount": wei(5)}, ("sdk", 18), "invalid end time"),
    ("negative end time", "MsgCreateVestingAccount", {"amount": wei(5), "end_time": -5}, ("sdk", 18), "invalid end time"),
    ("zero amount", "MsgCreateVestingAccount", {"amount": [{"denom": "wei", "amount": "0"}], "end_time": 9}, ("sdk", 10), "positive"),
    ("bad recipient", "MsgCreatePermanentLockedAccount", {"amount": wei(5), "to_address": "st1x"}, ("sdk", 7), "'to' address"),
    ("existing account", "MsgCreatePermanentLockedAccount", {"amount": wei(5), "to_address": text(KEYS[3])}, ("sdk", 18), "already exists"),
    (
        "blocked recipient",
        "MsgCreatePermanentLockedAccount",
        {"amount": wei(5), "to_address": bech32.encode(bech32.module_address("gov"))},
        ("sdk", 4),
        "not allowed to receive",
    ),
    ("more than there is", "MsgCreatePermanentLockedAccount", {"amount": wei(2 * FUNDS_WEI)}, ("sdk", 5), "insufficient funds"),
    ("start time 0", "MsgCreatePeriodicVestingAccount", {"vesting_periods": [{"length": 1, "amount": wei(1)}]}, ("sdk", 18), "start time"),
    ("no periods", "MsgCreatePeriodicVestingAccount", {"start_time": 1}, ("sdk", 18), "vesting periods"),
    (
        "a period of no length",
        "MsgCreatePeriodicVestingAccount",
        {"start_time": 1, "vesting_periods": [{"length": 1, "amount": wei(1)}, {"amount": wei(1)}]},
        ("sdk", 18),
        "in period 1",
    ),
    ("a period of no coins", "MsgCreatePeriodicVestingAccount", {"start_time": 1, "vesting_periods": [{"length": 1}]}, ("sdk", 10), "coin"),
    (
        "an end beyond 64 bits",
        "MsgCreatePeriodicVestingAccount",
        {"start_time": 1, "vesting_periods": [{"length": 2**62, "amount": wei(1)}] * 3},
        ("sdk", 18),
        "64 bits",
    ),
]


@pytest.mark.parametrize(("kind", "fields", "expected", "words"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_a_bad_vesting_message_is_refused_and_makes_no_account(kind: str, fields: dict[str, Any], expected: tuple[str, int], words: str) -> None:
    driver = chain()
    result = run(driver, message(kind, **fields))
    assert (result.codespace, result.code) == expected, result.log
    assert words in result.log
    with pytest.raises(AppError, match="not found"):
        account(driver)


def test_a_denom_that_may_not_be_sent_funds_no_vesting_account() -> None:
    driver = chain(blocks=0)
    bank = driver.genesis["app_state"]["bank"]
    bank["send_enabled"] = [{"denom": "wei", "enabled": False}]
    driver.apps = [_fresh()]
    driver.start()
    driver.next_block()
    result = run(driver, message("MsgCreatePermanentLockedAccount", amount=wei(5)))
    assert (result.codespace, result.code) == ("bank", 5)


def _fresh() -> Any:
    from chain.app import build_application
    from chain.store.kv import MemoryBackend

    return build_application(MemoryBackend(), Settings())


# --- genesis ----------------------------------------------------------------------------------------------------------


def base(**fields: Any) -> Any:
    return Base(base_account=BaseAccount(address=text(OWNER), account_number=9), **{"original_vesting": wei(100), "end_time": 50, **fields})


GOOD = {
    "continuous": KINDS["ContinuousVestingAccount"](base_vesting_account=base(), start_time=10),
    "delayed": KINDS["DelayedVestingAccount"](base_vesting_account=base(delegated_vesting=wei(40), delegated_free=wei(7))),
    "permanent": KINDS["PermanentLockedAccount"](base_vesting_account=base(end_time=0)),
    "periodic": Periodic(
        base_vesting_account=base(), start_time=10, vesting_periods=[{"length": 30, "amount": wei(60)}, {"length": 10, "amount": wei(40)}]
    ),
}


def section(*accounts: Any) -> Any:
    genesis = message_class("cosmos.auth.v1beta1.GenesisState")()
    genesis.params.CopyFrom(message_class("cosmos.auth.v1beta1.Params")(max_memo_characters=256, tx_sig_limit=7, tx_size_cost_per_byte=10))
    genesis.params.sig_verify_cost_ed25519 = genesis.params.sig_verify_cost_secp256k1 = 1000
    genesis.accounts.extend(pack_any(one) for one in accounts)
    return to_json(genesis)


@pytest.mark.parametrize("kind", GOOD)
def test_an_account_of_each_kind_is_the_same_after_import_and_export(kind: str) -> None:
    keeper = AuthKeeper({})
    state = State(EmptyView(), ("acc",))
    ctx = Context("test-1", 0, 0, Mode.GENESIS)
    given_section = section(GOOD[kind])
    AuthGenesis(keeper).load(ctx, state, given_section)
    assert AuthGenesis(keeper).export(ctx, state) == given_section


def changed(kind: str, **fields: Any) -> Any:
    copy = type(GOOD[kind])()
    copy.CopyFrom(GOOD[kind])
    for path, value in fields.items():
        target = copy.base_vesting_account if hasattr(copy.base_vesting_account, path) else copy
        if isinstance(value, list):
            del getattr(target, path)[:]
            getattr(target, path).extend(value)
        else:
            setattr(target, path, value)
    return copy


Period = message_class(f"{PACKAGE}.Period")


@pytest.mark.parametrize(
    ("broken", "field"),
    [
        (changed("delayed", original_vesting=[]), "base_vesting_account.original_vesting"),
        (changed("delayed", original_vesting=to_messages((Coin("wei", 0),))), "base_vesting_account.original_vesting"),
        (changed("delayed", delegated_vesting=wei(101)), "base_vesting_account.delegated_vesting"),
        (changed("delayed", delegated_free=to_messages((Coin("wei", -1),))), "base_vesting_account.delegated_free"),
        (changed("delayed", end_time=-1), "base_vesting_account.end_time"),
        (changed("permanent", end_time=1), "base_vesting_account.end_time"),
        (changed("periodic", end_time=51), "base_vesting_account.end_time"),
        (changed("periodic", vesting_periods=[]), "base_vesting_account.end_time"),
        (changed("periodic", original_vesting=wei(101)), "base_vesting_account.original_vesting"),
        (changed("periodic", vesting_periods=[Period(length=-1, amount=wei(1))]), "vesting_periods[0].length"),
        (changed("periodic", vesting_periods=[Period(length=1, amount=wei(1)), Period(length=1)]), "vesting_periods[1].amount"),
    ],
)
def test_a_broken_vesting_account_in_a_genesis_file_is_refused_by_the_name_of_its_field(broken: Any, field: str) -> None:
    with pytest.raises(GenesisError) as caught:
        AuthGenesis(AuthKeeper({})).validate(section(GOOD["permanent"].__class__(base_vesting_account=other()), broken))
    assert caught.value.path == f"app_state.auth.accounts[1].{field}"


def other() -> Any:
    return Base(base_account=BaseAccount(address=text(KEYS[5]), account_number=3), original_vesting=wei(1))


def test_an_account_number_that_leaves_no_next_one_is_refused_at_once() -> None:
    """It was counted up to, one by one, which would have taken years."""
    with pytest.raises(GenesisError, match="account_number"):
        AuthGenesis(AuthKeeper({})).validate(section(BaseAccount(address=text(OWNER), account_number=2**64 - 1)))
    keeper, state = AuthKeeper({}), State(EmptyView(), ("acc",))
    AuthGenesis(keeper).load(Context("test-1", 0, 0, Mode.GENESIS), state, section(BaseAccount(address=text(OWNER), account_number=2**40)))
    assert keeper.next_number(state) == 2**40 + 1


@pytest.mark.parametrize(("given_numbers", "loaded"), [((7, 3), (7, 3)), ((7, 7), (0, 1)), ((0, 0), (0, 1))], ids=["distinct", "repeated", "none"])
def test_account_numbers_of_a_genesis_file_are_kept_if_they_are_distinct_and_given_anew_if_not(
    given_numbers: tuple[int, int], loaded: tuple[int, int]
) -> None:
    keeper, state, ctx = AuthKeeper({}), State(EmptyView(), ("acc",)), Context("test-1", 0, 0, Mode.GENESIS)
    owners = KEYS[2:4]
    AuthGenesis(keeper).load(
        ctx, state, section(*(BaseAccount(address=text(one), account_number=number) for one, number in zip(owners, given_numbers, strict=True)))
    )
    for one, number in zip(owners, loaded, strict=True):
        found = keeper.get_account(ctx, state, one.public_key.address)
        assert found is not None
        assert found.account_number == number
        assert keeper.address_by_number(state, number) == one.public_key.address
    assert keeper.next_number(state) == max(loaded) + 1


def test_no_two_accounts_have_one_number() -> None:
    keeper, state, ctx = AuthKeeper({}), State(EmptyView(), ("acc",)), at_time(0)
    keeper.set_account(ctx, state, Account(BaseAccount(address=text(KEYS[2]), account_number=4)))
    with pytest.raises(LogicError, match="account number 4 is taken"):
        keeper.set_account(ctx, state, Account(BaseAccount(address=text(KEYS[3]), account_number=4)))
    assert keeper.address_by_number(state, 4) == KEYS[2].public_key.address
    assert not keeper.has_account(ctx, state, KEYS[3].public_key.address)
    keeper.set_account(ctx, state, Account(BaseAccount(address=text(KEYS[2]), account_number=4, sequence=1)))


def test_a_vesting_account_delegates_its_locked_coins_to_its_own_validator_at_genesis() -> None:
    driver = chain(blocks=0)
    driver.apps = [_fresh()]
    accounts = driver.genesis["app_state"]["auth"]["accounts"]
    owner = text(KEYS[0])
    at = next(index for index, one in enumerate(accounts) if one["address"] == owner)
    locked = KINDS["DelayedVestingAccount"](
        base_vesting_account=Base(base_account=BaseAccount(address=owner), original_vesting=wei(FUNDS_WEI), end_time=START_S + 10**6)
    )
    accounts[at] = to_json(pack_any(locked))
    driver.start()
    driver.next_block()
    request = message_class("cosmos.auth.v1beta1.QueryAccountRequest")(address=owner)
    answer, _ = driver.apps[0].query_rpc("/cosmos.auth.v1beta1.Query/Account", request)  # type: ignore[attr-defined]
    found = type(locked).FromString(answer.account.value).base_vesting_account
    assert [(coin.denom, int(coin.amount)) for coin in found.delegated_vesting] == [("wei", 10**18)]
    assert not found.delegated_free
    assert spendable(driver, owner) == 0
    assert driver.apps[0].broken_invariants() == []  # type: ignore[attr-defined]


# --- delegations ------------------------------------------------------------------------------------------------------


def keepers() -> tuple[AuthKeeper, BankMint, State]:
    auth = AuthKeeper({"pool": ("burner", "staking"), "till": ()})
    return auth, BankMint(auth, frozenset()), State(EmptyView(), ("acc", "bank"))


def funded(kind: Any, amount: int) -> tuple[AuthKeeper, BankMint, State, bytes]:
    auth, bank, state = keepers()
    ctx = at_time(0)
    owner = OWNER.public_key.address
    if kind is not None:
        auth.add_account(ctx, state, owner, kind)
        bank.set_balance(state, owner, "wei", amount)
    auth.module_account(ctx, state, "pool")
    return auth, bank, state, owner


def at_time(time_s: int) -> Context:
    return Context("test-1", 1, time_s * 10**9, Mode.FINALIZE)


def delayed(base_account: Any) -> Any:
    return KINDS["DelayedVestingAccount"](base_vesting_account=Base(base_account=base_account, original_vesting=wei(100), end_time=1000))


def tracked(auth: AuthKeeper, state: State, owner: bytes) -> tuple[int, int]:
    found = auth.get_account(at_time(0), state, owner)
    assert found is not None
    base_account = found.message.base_vesting_account
    return tuple(sum(int(coin.amount) for coin in part) for part in (base_account.delegated_vesting, base_account.delegated_free))  # type: ignore[return-value]


def test_a_delegation_takes_locked_coins_first_and_comes_back_free_first() -> None:
    auth, bank, state, owner = funded(delayed, 150)
    ctx = at_time(10)
    bank.delegate_to_module(ctx, state, owner, "pool", (Coin("wei", 120),))
    assert tracked(auth, state, owner) == (100, 20)
    assert bank.spendable(ctx, state, owner) == (Coin("wei", 30),), "what is delegated is not locked a second time"
    assert [kind for kind, _ in ctx.events.events] == ["coin_spent", "coin_received"]
    bank.undelegate_from_module(ctx, state, "pool", owner, (Coin("wei", 50),))
    assert tracked(auth, state, owner) == (70, 0)
    assert bank.balance(state, owner, "wei") == 80
    assert bank.spendable(ctx, state, owner) == (Coin("wei", 50),), "30 came back locked"
    late = at_time(1000)
    bank.delegate_to_module(late, state, owner, "pool", (Coin("wei", 80),))
    assert tracked(auth, state, owner) == (70, 80), "after the end every coin is free"


def test_what_comes_back_beyond_what_was_delegated_is_not_tracked() -> None:
    """A delegation that grew, or one of another account's coins: the rest is free."""
    auth, bank, state, owner = funded(delayed, 150)
    ctx = at_time(10)
    bank.delegate_to_module(ctx, state, owner, "pool", (Coin("wei", 120),))
    bank.give(ctx, state, auth.module_addresses["pool"], (Coin("ufoo", 3), Coin("wei", 10)))
    bank.undelegate_from_module(ctx, state, "pool", owner, (Coin("ufoo", 3), Coin("wei", 130)))
    assert tracked(auth, state, owner) == (0, 0)
    assert bank.spendable(ctx, state, owner) == (Coin("ufoo", 3), Coin("wei", 60))


def test_a_delegation_that_cannot_be_made_says_why() -> None:
    _, bank, state, owner = funded(delayed, 50)
    ctx = at_time(10)
    with pytest.raises(InsufficientFunds, match="50wei is smaller than 51wei"):
        bank.delegate_to_module(ctx, state, owner, "pool", (Coin("wei", 51),))
    with pytest.raises(LogicError, match="till does not have the permission staking"):
        bank.delegate_to_module(ctx, state, owner, "till", (Coin("wei", 1),))
    with pytest.raises(LogicError, match="permission staking"):
        bank.undelegate_from_module(ctx, state, "till", owner, (Coin("wei", 1),))
    with pytest.raises(UnknownAddress, match="module account"):
        bank.delegate(ctx, state, owner, bytes(20), (Coin("wei", 1),))
    bank.set_balance(state, bytes(20), "wei", 5)
    with pytest.raises(UnknownAddress, match="failed to track delegation"):
        bank.delegate_to_module(ctx, state, bytes(20), "pool", (Coin("wei", 5),))


# --- formulas against models --------------------------------------------------------------------------------------------

amounts = st.integers(1, 2**100)


@settings(max_examples=300, deadline=None)
@given(st.integers(-5, 10**10), st.integers(1, 10**10), amounts, st.integers(-20, 2 * 10**10))
def test_continuous_vesting_is_the_exact_share_to_within_the_decimals_rounding(start: int, length: int, amount: int, now: int) -> None:
    one = KINDS["ContinuousVestingAccount"](base_vesting_account=Base(original_vesting=wei(amount), end_time=start + length), start_time=start)
    left = dict(vesting.vesting_coins(one, now)).get("wei", 0)
    share = min(max(Fraction(now - start, length), Fraction(0)), Fraction(1))
    assert abs(left - amount * (1 - share)) <= Fraction(1, 2) + Fraction(amount, 2 * 10**18)
    assert 0 <= left <= amount
    later = dict(vesting.vesting_coins(one, now + 1)).get("wei", 0)
    assert later <= left, "what is free stays free"


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 1000), st.lists(st.tuples(st.integers(1, 50), st.integers(1, 1000)), min_size=1, max_size=8), st.integers(0, 1500))
def test_periodic_vesting_is_the_sum_of_the_periods_that_have_ended(start: int, periods: list[tuple[int, int]], now: int) -> None:
    total = sum(amount for _, amount in periods)
    one = Periodic(
        base_vesting_account=Base(original_vesting=wei(total), end_time=start + sum(length for length, _ in periods)),
        start_time=start,
        vesting_periods=[{"length": length, "amount": wei(amount)} for length, amount in periods],
    )
    assert vesting.problem_of(one) is None
    ends = [start + sum(length for length, _ in periods[: at + 1]) for at in range(len(periods))]
    free = sum(amount for end, (_, amount) in zip(ends, periods, strict=True) if now >= end)
    assert dict(vesting.vesting_coins(one, now)).get("wei", 0) == total - free


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 120), st.integers(0, 30)), max_size=12))
def test_delegations_keep_their_sum_and_never_free_a_locked_coin(steps: list[tuple[bool, int, int]]) -> None:
    """An account of 100 locked and 50 free coins that vests in proportion until second 100."""
    auth, bank, state, owner = funded(
        lambda base_account: KINDS["ContinuousVestingAccount"](
            base_vesting_account=Base(base_account=base_account, original_vesting=wei(100), end_time=100), start_time=0
        ),
        150,
    )
    now, staked = 0, 0
    for is_delegation, amount, step in steps:
        now += step
        ctx, coin = at_time(now), (Coin("wei", amount),)
        held = bank.balance(state, owner, "wei")
        vesting_now = max(100 - now, 0) if now else 100
        dv, df = tracked(auth, state, owner)
        if is_delegation:
            if amount > held:
                continue
            bank.delegate_to_module(ctx, state, owner, "pool", coin)
            part = min(max(vesting_now - dv, 0), amount)
            expected, staked = (dv + part, df + amount - part), staked + amount
        else:
            if amount > staked:
                continue
            bank.undelegate_from_module(ctx, state, "pool", owner, coin)
            part = min(df, amount)
            expected, staked = (dv - min(dv, amount - part), df - part), staked - amount
        assert tracked(auth, state, owner) == expected
        assert sum(expected) == staked
        free = dict(bank.spendable(ctx, state, owner)).get("wei", 0)
        assert free <= 150 - vesting_now, "no more is spendable than has vested and was free"
