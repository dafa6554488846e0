"""Slashing and the exchange rate of shares: exact values worked out by hand, stake that tries to evade, and random histories."""

from __future__ import annotations

import contextlib
import json
import re
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chain.codec.registry import message_class
from chain.coins import Coin
from chain.context import Context, Mode
from chain.crypto.address import VALIDATOR, decode, module_address
from chain.dec import ONE, Dec, parse_dec
from chain.errors import AppError, LogicError
from chain.module import GenesisError
from chain.store.api import StateWriter
from chain.store.state import EmptyView, State
from modules.auth.genesis import AuthGenesis
from modules.auth.keeper import Account
from modules.bank.genesis import BankGenesis
from modules.staking import shares
from modules.staking.genesis import StakingGenesis
from modules.staking.records import BONDED, NOT_BONDED_POOL, UNBONDED, UNBONDING, Validator
from tests.modules.stake import DAY_S, UNBONDING_S, UNIT, AnyConsensus, Ledger, account, consensus_key, operator, person

POOL = module_address(NOT_BONDED_POOL)


def validator(tokens: int, of_shares: str) -> Any:
    return Validator(tokens=str(tokens), delegator_shares=str(parse_dec(of_shares).scaled))


@pytest.mark.parametrize(
    ("tokens", "of_shares", "mine", "worth", "cut"),
    [
        (100, "100", "10", "10.000000000000000000", "10.000000000000000000"),
        (2, "3", "1", "0.666666666666666667", "0.666666666666666666"),
        (95, "100", "10", "9.500000000000000000", "9.500000000000000000"),
        (1, "3", "1.5", "0.500000000000000000", "0.500000000000000000"),
        (10**26, "99999999999999999999999999.999999999999999999", "1", "1.000000000000000000", "1.000000000000000000"),
        (0, "7", "7", "0.000000000000000000", "0.000000000000000000"),
        (1, str(2 * 10**18), "1", "0.000000000000000000", "0.000000000000000000"),
        (3, str(2 * 10**18), "1", "0.000000000000000002", "0.000000000000000001"),
    ],
)
def test_shares_are_worth_what_the_sdks_decimals_say(tokens: int, of_shares: str, mine: str, worth: str, cut: str) -> None:
    one = validator(tokens, of_shares)
    assert str(shares.tokens_from_shares(one, parse_dec(mine))) == worth
    assert str(shares.tokens_from_shares_truncated(one, parse_dec(mine))) == cut


def test_tokens_are_worth_shares_at_the_rate_after_a_slash() -> None:
    one = validator(95, "100")
    assert str(shares.shares_from_tokens(one, 19)) == "20.000000000000000000"
    assert str(shares.shares_from_tokens(one, 1)) == "1.052631578947368421"
    assert str(shares.shares_from_tokens_truncated(one, 1)) == "1.052631578947368421"
    issued = shares.add_tokens(one, 10)
    assert str(issued) == "10.526315789473684210"
    assert (one.tokens, one.delegator_shares) == ("105", str(110526315789473684210))
    assert shares.remove_shares(one, issued) == 10, "a hair less than 10, rounded to 18 places first, as the SDK does"
    assert shares.remove_shares(one, parse_dec("33.333333333333333333")) == 31
    assert one.tokens == "64"
    assert shares.remove_shares(one, Dec(int(one.delegator_shares))) == 64, "the last shares take all that is left"


def test_a_slash_of_five_percent_takes_from_all_delegators_alike() -> None:
    book = Ledger()
    book.create(1, 100 * UNIT)
    book.delegate(2, 1, 60 * UNIT)
    book.block()
    supply = book.bank.supply(book.state, "wei")
    assert book.slash(1, "0.05") == 8 * UNIT
    assert book.bank.supply(book.state, "wei") == supply - 8 * UNIT
    found = book.validator(1)
    assert (found.tokens, found.delegator_shares) == (str(152 * UNIT), str(160 * UNIT * ONE))
    book.block()
    assert book.set == {consensus_key(1).raw: 152}
    book.delegate(3, 1, 19 * UNIT)
    assert book.shares(3, 1) == 20 * UNIT * ONE
    book.undelegate(2, 1, 57 * UNIT)
    assert book.shares(2, 1) == 0
    assert book.broken() == []


def test_everything_slashed_leaves_shares_that_nobody_can_join() -> None:
    book = Ledger()
    book.create(1, 100 * UNIT)
    book.create(2, 100 * UNIT)
    book.block()
    assert book.slash(1, "1") == 100 * UNIT
    with pytest.raises(AppError) as refused:
        book.delegate(3, 1, UNIT)
    assert (refused.value.codespace, refused.value.code) == ("staking", 34)
    with pytest.raises(AppError) as refused:
        book.undelegate(1, 1, 1)
    assert refused.value.code == 22
    book.block()
    assert book.set == {consensus_key(2).raw: 100}
    book.block(UNBONDING_S)
    book.block()
    assert book.validator(1).status == UNBONDED
    assert book.broken() == []


def test_what_began_to_unbond_before_the_infraction_is_not_slashed_and_after_it_is() -> None:
    book = Ledger()
    book.create(1, 100 * UNIT)
    book.delegate(2, 1, 50 * UNIT)
    book.block()
    book.undelegate(2, 1, 10 * UNIT)
    book.block()
    infraction, power = book.height, 140
    book.undelegate(2, 1, 20 * UNIT)
    book.block()
    held = int(book.validator(1).tokens)
    assert book.slash(1, "0.1", height=infraction, power=power) == 14 * UNIT - 2 * UNIT, "the unbonding stake pays its own 2"
    entries = book.keeper.unbonding(book.state, person(2), person(1)).entries
    assert [int(entry.balance) for entry in entries] == [10 * UNIT, 18 * UNIT]
    assert [int(entry.initial_balance) for entry in entries] == [10 * UNIT, 20 * UNIT]
    assert int(book.validator(1).tokens) == held - 12 * UNIT
    before = book.balance(2)
    book.block(UNBONDING_S)
    book.block()
    assert book.balance(2) == before + 28 * UNIT
    assert book.broken() == []


def test_two_slashes_take_the_second_part_of_what_was_unbonded_and_never_more_than_is_left() -> None:
    book = Ledger()
    book.create(1, 100 * UNIT)
    book.delegate(2, 1, 50 * UNIT)
    book.block()
    book.undelegate(2, 1, 50 * UNIT)
    infraction = book.height
    book.block()
    for fraction, left in (("0.6", 20), ("0.6", 0), ("0.6", 0)):
        book.slash(1, fraction, height=infraction, power=1)
        assert int(book.keeper.unbonding(book.state, person(2), person(1)).entries[0].balance) == left * UNIT
        assert book.broken() == []
    before = book.balance(2)
    book.block(UNBONDING_S)
    assert book.block()[-1] == ("complete_unbonding", {"amount": "", "validator": operator(1), "delegator": account(2)})
    assert book.balance(2) == before


# --- ASA-2024-005: stake that is moved away is slashed where it went ------------------------------------------------------


def moved(book: Ledger) -> int:
    """Account 2 moves 50 units from validator 1 to 2 in the block of the infraction; returns its height."""
    book.create(1, 100 * UNIT)
    book.create(3, 100 * UNIT)
    book.delegate(2, 1, 50 * UNIT)
    book.block()
    infraction = book.height
    book.redelegate(2, 1, 3, 50 * UNIT)
    book.block()
    return infraction


def test_asa_2024_005_redelegated_stake_is_slashed_at_its_new_validator() -> None:
    book = Ledger()
    infraction = moved(book)
    assert book.slash(1, "0.2", height=infraction, power=150) == 20 * UNIT
    assert book.shares(2, 3) == 40 * UNIT * ONE
    assert int(book.validator(3).tokens) == 140 * UNIT
    assert book.broken() == []


@pytest.mark.parametrize(("unbonded", "taken_there", "left"), [(50, 10, 0), (30, 10, 20), (4, 4, 46)])
def test_asa_2024_005_unbonding_from_the_new_validator_evades_nothing(unbonded: int, taken_there: int, left: int) -> None:
    """What unbonds pays first; only when it owes more do the shares pay, by the whole fraction of what was moved, as in the SDK."""
    book = Ledger()
    infraction = moved(book)
    book.undelegate(2, 3, unbonded * UNIT)
    book.block()
    supply = book.bank.supply(book.state, "wei")
    assert book.slash(1, "0.2", height=infraction, power=150) == 20 * UNIT
    [entry] = book.keeper.unbonding(book.state, person(2), person(3)).entries
    assert int(entry.balance) == (unbonded - taken_there) * UNIT
    from_shares = 0 if taken_there == 10 else 10
    assert book.shares(2, 3) == (left - from_shares) * UNIT * ONE
    assert supply - book.bank.supply(book.state, "wei") == (20 + taken_there + from_shares) * UNIT
    assert book.broken() == []


def test_redelegations_before_the_infraction_or_past_their_time_are_not_slashed() -> None:
    book = Ledger()
    infraction = moved(book)
    assert book.slash(1, "0.2", height=infraction + 1, power=100) == 20 * UNIT
    assert book.shares(2, 3) == 50 * UNIT * ONE
    book.block(UNBONDING_S)
    assert book.slash(1, "0.2", height=infraction, power=80) == 16 * UNIT
    assert book.shares(2, 3) == 50 * UNIT * ONE
    assert book.broken() == []


def test_a_slash_of_moved_stake_at_a_validator_outside_the_set_burns_from_the_other_pool() -> None:
    book = Ledger()
    book.create(1, 100 * UNIT)
    book.create(3, UNIT // 2, min_self_delegation="1")
    book.delegate(2, 1, UNIT // 4)
    book.block()
    infraction = book.height
    book.redelegate(2, 1, 3, UNIT // 4)
    book.block()
    assert book.validator(3).status == UNBONDED
    book.slash(1, "0.4", height=infraction, power=100)
    assert book.shares(2, 3) == UNIT // 4 // 10 * 6 * ONE
    assert book.broken() == []


def test_a_slash_that_jails_the_destinations_operator_and_takes_its_last_shares_ends_well() -> None:
    """The operator of an unbonded destination moved its stake there and lost all of it: the validator is gone, the coins are burnt."""
    book = Ledger()
    book.create(1, 100 * UNIT)
    book.create(3, UNIT // 2)
    book.delegate(3, 1, UNIT // 4)
    book.block()
    infraction = book.height
    book.redelegate(3, 1, 3, UNIT // 4)
    book.block()
    book.undelegate(3, 3, UNIT // 2)
    unbonding = book.keeper.unbonding(book.state, person(3), person(3))
    unbonding.entries[0].balance = "0"  # as if slashed before
    pool = book.bank.balance(book.state, POOL, "wei")
    book.keeper.put_unbonding(book.state, unbonding)
    book.keeper.burn(book.ctx, book.state, NOT_BONDED_POOL, UNIT // 2)
    book.slash(1, "1", height=infraction, power=1)
    assert book.validator(3) is None
    assert book.bank.balance(book.state, POOL, "wei") == pool - UNIT // 2 - UNIT // 4
    assert book.broken() == []


def test_a_slash_needs_a_validator_that_is_liable() -> None:
    book = Ledger()
    book.create(1)
    book.create(2, UNIT // 2)
    book.block()
    assert book.keeper.slash(book.ctx, book.state, bytes(20), 1, 10, parse_dec("0.5")) == 0
    for number, fraction, height in ((2, "0.5", None), (1, "-0.5", None), (1, "0.5", book.height + 1)):
        with pytest.raises(LogicError):
            book.slash(number, fraction, height=height)
    assert book.broken() == []


def test_an_unbonding_validator_is_slashed_from_the_pool_its_stake_is_in() -> None:
    book = Ledger(max_validators=1)
    book.create(1, 100 * UNIT)
    book.block()
    infraction = book.height
    book.create(2, 200 * UNIT)
    book.block()
    assert (book.validator(1).status, book.validator(2).status) == (UNBONDING, BONDED)
    assert book.slash(1, "0.05", height=infraction, power=100) == 5 * UNIT
    assert book.broken() == []


# --- random histories -------------------------------------------------------------------------------------------------


class Heard:
    """Hooks that keep the books: who was told of what."""

    def __init__(self) -> None:
        self.delegations: set[tuple[bytes, bytes]] = set()
        self.validators: set[bytes] = set()
        self.bonded: set[bytes] = set()
        self.pending: tuple[str, bytes, bytes] | None = None
        self.slashes: list[tuple[bytes, Dec]] = []
        self.ids: list[int] = []

    def after_validator_created(self, ctx: Context, state: StateWriter, operator: bytes) -> None:
        assert operator not in self.validators
        self.validators.add(operator)

    def before_validator_modified(self, ctx: Context, state: StateWriter, operator: bytes) -> None:
        assert operator in self.validators

    def after_validator_removed(self, ctx: Context, state: StateWriter, cons: bytes, operator: bytes) -> None:
        assert consensus_key(operator[-1]).address == cons
        self.validators.remove(operator)

    def after_validator_bonded(self, ctx: Context, state: StateWriter, cons: bytes, operator: bytes) -> None:
        assert operator not in self.bonded
        self.bonded.add(operator)

    def after_validator_begin_unbonding(self, ctx: Context, state: StateWriter, cons: bytes, operator: bytes) -> None:
        self.bonded.remove(operator)

    def before_delegation_created(self, ctx: Context, state: StateWriter, delegator: bytes, operator: bytes) -> None:
        assert (delegator, operator) not in self.delegations
        assert self.pending is None
        self.pending = "created", delegator, operator

    def before_delegation_shares_modified(self, ctx: Context, state: StateWriter, delegator: bytes, operator: bytes) -> None:
        assert (delegator, operator) in self.delegations
        assert self.pending is None
        self.pending = "modified", delegator, operator

    def before_delegation_removed(self, ctx: Context, state: StateWriter, delegator: bytes, operator: bytes) -> None:
        assert self.pending == ("modified", delegator, operator)
        self.pending = None
        self.delegations.remove((delegator, operator))

    def after_delegation_modified(self, ctx: Context, state: StateWriter, delegator: bytes, operator: bytes) -> None:
        assert self.pending is not None
        assert self.pending[1:] == (delegator, operator)
        self.pending = None
        self.delegations.add((delegator, operator))

    def before_validator_slashed(self, ctx: Context, state: StateWriter, operator: bytes, fraction: Dec) -> None:
        assert 0 < fraction.scaled <= ONE
        self.slashes.append((operator, fraction))

    def after_unbonding_initiated(self, ctx: Context, state: StateWriter, unbonding_id: int) -> None:
        assert not self.ids or unbonding_id > self.ids[-1]
        self.ids.append(unbonding_id)


PEOPLE = 5
amounts = st.one_of(st.integers(1, 40 * UNIT), st.integers(1, 40).map(lambda units: units * UNIT), st.integers(1, 30))
who, validators = st.integers(1, PEOPLE), st.integers(1, 4)
moves = st.one_of(
    st.tuples(st.just("delegate"), who, validators, amounts),
    st.tuples(st.just("undelegate"), who, validators, amounts),
    st.tuples(st.just("undelegate all"), who, validators),
    st.tuples(st.just("redelegate"), who, validators, validators, amounts),
    st.tuples(st.just("cancel"), st.integers(0, 20), amounts),
)
steps = st.one_of(
    moves,
    moves,
    moves,
    st.tuples(st.just("create"), who, amounts),
    st.tuples(st.just("slash"), validators, st.sampled_from(["0.0002", "0.05", "0.05", "0.333333333333333333", "1"]), st.integers(0, 8)),
    st.tuples(st.sampled_from(["jail", "unjail"]), validators),
    st.tuples(st.just("block"), st.sampled_from([5, 5, 5, DAY_S, 7 * DAY_S, UNBONDING_S])),
)


def begun(hooks: tuple[Any, ...] = ()) -> Ledger:
    """Three validators, two of them bonded, and delegations to each."""
    book = Ledger(PEOPLE, hooks, max_validators=2, max_entries=3)
    for number in (1, 2, 3):
        book.create(number, (40 + number) * UNIT, min_self_delegation=str(10 * UNIT))
        book.delegate(4, number, 30 * UNIT)
        book.delegate(5, number, 7 * UNIT + number)
    book.block()
    return book


def play(book: Ledger, step: tuple[Any, ...]) -> None:
    kind, *given = step
    match kind:
        case "create":
            book.create(given[0], given[1], min_self_delegation=str(given[1] // 2 + 1))
        case "undelegate all":
            delegator, one = given
            found = book.validator(one)
            held = book.shares(delegator, one)
            worth = 1 if found is None or not held else shares.tokens_from_shares(found, Dec(held)).truncate()
            book.undelegate(delegator, one, max(worth, 1))
        case "cancel":
            which, amount = given
            found = [(one, entry) for one in book.keeper.unbondings(book.state) for entry in one.entries]
            if found:
                one, entry = found[which % len(found)]
                delegator, of = decode(one.delegator_address)[-1], decode(one.validator_address, VALIDATOR)[-1]
                book.cancel(delegator, of, min(amount, max(int(entry.balance), 1)), entry.creation_height)
        case "slash":
            one, fraction, ago = given
            found = book.validator(one)
            if found is not None and found.status != UNBONDED:
                book.slash(one, fraction, height=max(book.height - ago, 1))
        case "jail" | "unjail":
            found = book.validator(given[0])
            if found is not None and found.jailed == (kind == "unjail"):
                getattr(book, kind)(given[0])
        case _:
            getattr(book, kind)(*given)


@settings(max_examples=300, deadline=None)
@given(st.lists(steps, min_size=5, max_size=40))
def test_random_histories_keep_every_invariant(history: list[tuple[Any, ...]]) -> None:
    heard = Heard()
    book = begun((heard,))
    supply = book.bank.supply(book.state, "wei")
    for step in history:
        try:
            play(book, step)
        except AppError:
            heard.pending = None  # the message was undone; what the hooks noted of it is read again from the state
            heard.validators = {bytes(person(n)) for n in range(1, PEOPLE + 1) if book.validator(n) is not None}
            heard.delegations = {(person(d), person(v)) for d in range(1, PEOPLE + 1) for v in range(1, PEOPLE + 1) if book.shares(d, v)}
            heard.ids = heard.ids[:0]
        assert book.broken() == [], step
        assert heard.pending is None
        assert heard.validators == {person(n) for n in range(1, PEOPLE + 1) if book.validator(n) is not None}
    book.block()
    assert book.bank.supply(book.state, "wei") <= supply
    expected = {person(n) for n in range(1, PEOPLE + 1) if (v := book.validator(n)) is not None and v.status == BONDED}
    assert heard.bonded == expected
    assert book.set == {consensus_key(one[-1]).raw: int(book.validator(one[-1]).tokens) // UNIT for one in expected}
    strongest = sorted((int(v.tokens) // UNIT for n in range(1, PEOPLE + 1) if (v := book.validator(n)) is not None and not v.jailed), reverse=True)
    assert sorted(book.set.values(), reverse=True) == [power for power in strongest[:2] if power]
    for _ in range(2):
        book.block(UNBONDING_S)
    assert not list(book.keeper.unbondings(book.state)), "everything that unbonds ends"
    assert not list(book.keeper.redelegations(book.state))
    assert book.broken() == []


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 10**24), st.integers(0, 10**18)), min_size=1, max_size=30))
def test_the_rate_never_gives_a_delegator_more_than_its_part(moves: list[tuple[bool, int, int]]) -> None:
    """Against exact fractions: nobody gains by joining and leaving, however often the validator is slashed."""
    one = validator(10**21, str(10**21))
    for is_slash, amount, part in moves:
        if is_slash:
            one.tokens = str(int(one.tokens) - int(one.tokens) * part // ONE)
            if one.tokens == "0":
                return
            continue
        rate = Fraction(int(one.tokens), int(one.delegator_shares))
        try:
            issued = shares.add_tokens(one, amount)
            paid = shares.remove_shares(one, issued)
        except ValueError:
            return  # more than 315 bits: the message fails
        assert paid <= amount
        assert Fraction(int(one.tokens), int(one.delegator_shares)) >= rate * (1 - Fraction(1, 10**15))


# --- bounded blocks ---------------------------------------------------------------------------------------------------


def test_a_block_finishes_a_bounded_number_of_entries_in_order_and_the_next_ones_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """What users queued over a long halt of the chain cannot make its first block slow."""
    monkeypatch.setattr("modules.staking.delegations.MAX_FINISHED", 4)
    book = Ledger(7)
    book.create(1)
    book.create(2)
    for number in range(3, 8):
        book.delegate(number, 1, 9 * UNIT)
    for _ in range(2):
        for number in range(3, 8):
            book.undelegate(number, 1, UNIT)
            book.redelegate(number, 1, 2, UNIT)
        book.block()
    book.block(UNBONDING_S)
    told = [[pairs["delegator"] for kind, pairs in book.block() if kind == "complete_unbonding"] for _ in range(4)]
    everybody = [account(number) for number in range(3, 8)]
    # An entry of the second block that has matured, too, is finished together with the first of its pair.
    assert told == [everybody[:4], everybody[4:], [], []]
    assert not list(book.keeper.unbondings(book.state))
    assert not list(book.keeper.redelegations(book.state))
    assert not list(book.state.store("staking").iterate(b"\x41", b"\x43"))
    assert book.broken() == []


def test_entries_of_accounts_with_thousands_of_vesting_periods_make_no_block_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A queue bomb: an entry of an account with 10,000 periods costs 26 ms, and 10,000 of them may mature at once for the price of undelegations."""
    monkeypatch.setattr("modules.staking.delegations.MAX_FINISHED_GAS", 10_000_000)
    count, periods = 20, 1_000
    book = Ledger(count + 2)
    book.create(1)
    account_of = message_class("cosmos.vesting.v1beta1.PeriodicVestingAccount")(start_time=1)
    account_of.base_vesting_account.end_time = 1 << 40
    account_of.base_vesting_account.original_vesting.add(denom="wei", amount=str(periods * 10**20))
    for _ in range(periods):
        account_of.vesting_periods.add(length=10**8, amount=[{"denom": "wei", "amount": str(10**20)}])
    for number in range(3, count + 3):
        account_of.base_vesting_account.base_account.CopyFrom(book.auth.get_account(book.ctx, book.state, person(number)).message)
        book.auth.set_account(book.ctx, book.state, Account(account_of))
        book.delegate(number, 1, 2 * UNIT)
    book.block()
    for number in range(3, count + 3):
        book.undelegate(number, 1, UNIT)
    book.block(UNBONDING_S)
    done: list[str] = []
    blocks = 0
    while len(done) < count:
        book.state.meter = book.ctx.gas  # as in a block of the application
        told = [pairs["delegator"] for kind, pairs in book.block() if kind == "complete_unbonding"]
        assert 0 < len(told) <= 12
        done.extend(told)
        blocks += 1
    assert done == [account(number) for number in range(3, count + 3)], "in order, and nobody is left out"
    assert blocks >= 2
    assert not list(book.keeper.unbondings(book.state))
    assert not list(book.state.store("staking").iterate(b"\x41", b"\x43"))
    assert book.broken() == []


def test_an_entry_that_cannot_be_paid_stays_and_stops_no_block() -> None:
    book = Ledger()
    book.create(1)
    for number in (2, 3):
        book.delegate(number, 1, UNIT)
    book.block()
    book.undelegate(2, 1, UNIT)
    book.undelegate(3, 1, UNIT)
    book.bank.burn(book.ctx, book.state, NOT_BONDED_POOL, (Coin("wei", UNIT),))
    book.block(UNBONDING_S)
    before = [book.balance(number) for number in (2, 3)]
    done = [pairs["delegator"] for kind, pairs in book.block() if kind == "complete_unbonding"]
    assert done == [account(2)]
    assert [book.balance(number) for number in (2, 3)] == [before[0] + UNIT, before[1]]
    [left] = book.keeper.unbondings(book.state)
    assert left.delegator_address == account(3)


# --- export and import ------------------------------------------------------------------------------------------------


def imported(book: Ledger) -> Ledger:
    """A fresh state with what ``book`` exports, at its height and time."""
    fresh = Ledger(0)
    fresh.state = State(EmptyView(), ("acc", "bank", "staking"))
    fresh.height, fresh.time_ns, fresh.set = book.height, book.time_ns, dict(book.set)
    genesis = Context("test-1", 0, book.time_ns, Mode.GENESIS)
    AuthGenesis(fresh.auth).load(genesis, fresh.state, AuthGenesis(book.auth).export(book.ctx, book.state))
    BankGenesis(fresh.bank).load(genesis, fresh.state, BankGenesis(book.bank).export(book.ctx, book.state))
    updates = StakingGenesis(fresh.keeper, fresh.bank, AnyConsensus()).load(genesis, fresh.state, exported(book))
    assert {update.public_key: update.power for update in updates} == book.set
    fresh.ctx = Context("test-1", book.height, book.time_ns, Mode.FINALIZE)
    return fresh


def exported(book: Ledger) -> Any:
    return StakingGenesis(book.keeper, book.bank, AnyConsensus()).export(book.ctx, book.state)


def test_a_genesis_file_whose_validators_have_keys_that_the_chain_does_not_accept_is_refused() -> None:
    """In SDK 0.50 such a chain begins, and CometBFT halts at the first change of one of their powers."""

    class Others(AnyConsensus):
        def key_types(self, ctx: Context, state: Any) -> tuple[str, ...]:
            return ("secp256k1",)

    book = begun()
    state = State(EmptyView(), ("acc", "bank", "staking"))
    with pytest.raises(GenesisError, match=r"validators\[0\]\.consensus_pubkey: .*pub_key_types is secp256k1, got ed25519"):
        StakingGenesis(book.keeper, book.bank, Others()).load(Context("test-1", 0, 0, Mode.GENESIS), state, exported(book))


def without_ids(section: Any) -> Any:
    text = re.sub(r'"unbonding_ids": \[[^]]*\]', '"unbonding_ids": []', json.dumps(section))
    return json.loads(re.sub(r'"unbonding_id": "\d+"', '"unbonding_id": ""', text))


@settings(max_examples=80, deadline=None)
@given(st.lists(steps, min_size=5, max_size=30))
def test_random_states_are_the_same_after_export_and_import_and_go_on_alike(history: list[tuple[Any, ...]]) -> None:
    book = begun()
    for step in history:
        with contextlib.suppress(AppError):
            play(book, step)
    book.block()
    other = imported(book)
    assert exported(other) == exported(book)
    assert other.broken() == []
    for step_s in (7 * DAY_S, UNBONDING_S, 5):
        told, heard = book.block(step_s), other.block(step_s)
        assert sorted(map(str, heard)) == sorted(map(str, told)), "entries that end together may come in another order"
        assert other.set == book.set
    assert without_ids(exported(other)) == without_ids(exported(book))
    assert [other.balance(number) for number in range(1, PEOPLE + 1)] == [book.balance(number) for number in range(1, PEOPLE + 1)]
