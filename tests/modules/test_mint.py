"""Inflation: the SDK's curve by parameters, no inflation by default, and coins that go to the fee collector."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.codec.json import to_json
from chain.codec.registry import message_class
from chain.context import Context, Mode
from chain.crypto.address import module_address
from chain.dec import ONE, Dec
from chain.errors import AppError
from chain.module import GenesisError
from chain.store.state import EmptyView, State
from modules.auth.keeper import AuthKeeper
from modules.bank.keeper import BankMint
from modules.mint.genesis import MintGenesis
from modules.mint.keeper import MAX_SUPPLY, MintKeeper, annual_provisions, block_provision, next_inflation
from modules.mint.module import mint_module
from modules.mint.params import Params, check_params, default_params

SDK = {"inflation_rate_change": 13, "inflation_max": 20, "inflation_min": 7, "goal_bonded": 67}
YEAR = 6_311_520


def sdk_params(**changes: Any) -> Any:
    """The SDK's own defaults: 7 to 20 %, moving by 13 a year towards 67 % bonded."""
    rates = {name: str(percent * ONE // 100) for name, percent in SDK.items()}
    return Params(**{"mint_denom": "wei", "blocks_per_year": YEAR, **rates, **changes})


class Stake:
    """A supply and how much of it is bonded."""

    def __init__(self, supply: int, ratio: Dec) -> None:
        self.supply, self.ratio = supply, ratio

    def staking_supply(self, state: Any) -> int:
        return self.supply

    def bonded_ratio(self, state: Any) -> Dec:
        return self.ratio


class World:
    def __init__(self, params: Any, supply: int = 10**26) -> None:
        accounts = AuthKeeper({"fee_collector": (), "mint": ("minter",)})
        self.bank = BankMint(accounts, blocked=frozenset())
        self.keeper = MintKeeper(self.bank, Stake(supply, Dec(ONE // 2)))
        self.module = mint_module(self.keeper, accounts)
        self.state = State(EmptyView(), ("acc", "bank", "mint"))
        self.keeper.set_params(self.state, params)
        self.bank.set_supply(self.state, "wei", supply)

    def block(self) -> Context:
        ctx = Context("test-1", 2, 0, Mode.FINALIZE)
        self.keeper.mint_block(ctx, self.state)
        return ctx

    def collected(self) -> int:
        return self.bank.balance(self.state, module_address("fee_collector"), "wei")


# x/mint/types/minter_test.go: (bonded ratio %, inflation %, change a year in 10^-2)
@pytest.mark.parametrize(
    ("bonded", "inflation", "change"),
    [
        (Fraction(0), Fraction(7, 100), Fraction(13, 100)),
        (Fraction(1), Fraction(20, 100), (1 - 1 / Fraction(67, 100)) * Fraction(13, 100)),
        (Fraction(1, 2), Fraction(10, 100), (1 - Fraction(1, 2) / Fraction(67, 100)) * Fraction(13, 100)),
        (Fraction(1), Fraction(7, 100), Fraction(0)),  # at the minimum it stays
        (Fraction(0), Fraction(20, 100), Fraction(0)),  # and at the maximum
        (Fraction(67, 100), Fraction(15, 100), Fraction(0)),  # at the goal nothing moves
    ],
)
def test_inflation_moves_as_the_sdks(bonded: Fraction, inflation: Fraction, change: Fraction) -> None:
    before = Dec(int(inflation * ONE))
    moved = next_inflation(before, Dec(int(bonded * ONE)), sdk_params())
    assert abs(moved.scaled - before.scaled - change * ONE / YEAR) <= 1


@given(st.integers(0, ONE), st.integers(7 * ONE // 100, 20 * ONE // 100))
def test_inflation_stays_within_its_bounds_and_moves_towards_the_goal(bonded: int, inflation: int) -> None:
    moved = next_inflation(Dec(inflation), Dec(bonded), sdk_params()).scaled
    assert 7 * ONE // 100 <= moved <= 20 * ONE // 100
    assert (moved - inflation) * (67 * ONE // 100 - bonded) >= 0


# x/mint/types/minter_test.go: provisions of a year → of one of its blocks
@pytest.mark.parametrize(("a_year", "a_block"), [(YEAR, 1), (YEAR + 1, 1), (YEAR * 2, 2), (YEAR // 2, 0)])
def test_a_block_gets_its_part_of_a_year_in_whole_units(a_year: int, a_block: int) -> None:
    assert block_provision(Dec(a_year * ONE), YEAR) == a_block


def test_by_default_nothing_is_minted_and_the_event_says_so() -> None:
    world = World(default_params())
    ctx = world.block()
    assert world.bank.supply(world.state, "wei") == 10**26
    assert world.collected() == 0
    assert [event for event, _ in ctx.events.events] == ["coin_spent", "coin_received", "transfer", "message", "mint"]
    assert dict(ctx.events.events[-1][1]) == {
        "bonded_ratio": "0.500000000000000000",
        "inflation": "0.000000000000000000",
        "annual_provisions": "0.000000000000000000",
        "amount": "0",
    }


def test_with_inflation_each_blocks_coins_go_to_the_fee_collector() -> None:
    world = World(sdk_params())
    ctx = world.block()
    minter = world.keeper.minter(world.state)
    assert int(minter.inflation) == 7 * ONE // 100  # from 0 it is lifted to the minimum
    amount = 7 * 10**24 // YEAR
    assert int(minter.annual_provisions) == 7 * 10**24 * ONE
    assert world.collected() == amount
    assert world.bank.supply(world.state, "wei") == 10**26 + amount
    assert [event for event, _ in ctx.events.events][:3] == ["coin_received", "coinbase", "coin_spent"]
    assert dict(ctx.events.events[-1][1])["amount"] == str(amount)
    world.block()
    assert int(world.keeper.minter(world.state).inflation) > 7 * ONE // 100


def test_minting_stops_at_the_largest_supply_instead_of_stopping_the_chain() -> None:
    params = sdk_params(inflation_max=str(ONE), inflation_min=str(ONE), blocks_per_year=1)
    world = World(params, supply=MAX_SUPPLY - 5)
    world.block()
    assert world.bank.supply(world.state, "wei") == MAX_SUPPLY
    assert world.collected() == 5
    world.block()
    assert world.bank.supply(world.state, "wei") == MAX_SUPPLY
    assert annual_provisions(Dec(ONE), (1 << 256) - 1).scaled.bit_length() == 315


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mint_denom": ""}, "mint denom cannot be blank"),
        ({"mint_denom": "1x"}, "invalid denom"),
        ({"inflation_max": str(ONE + 1)}, "max inflation too large"),
        ({"inflation_min": "-1"}, "min inflation cannot be negative"),
        ({"inflation_rate_change": str(2 * ONE)}, "inflation rate change too large"),
        ({"inflation_rate_change": ""}, "inflation rate change cannot be nil"),
        ({"goal_bonded": "0"}, "goal bonded must be positive"),
        ({"goal_bonded": "x"}, "scaled integer"),
        ({"blocks_per_year": 0}, "blocks per year must be positive"),
        ({"blocks_per_year": 1 << 63}, "blocks per year must be positive"),
        ({"inflation_max": "5"}, "must be greater than or equal to min inflation"),
    ],
)
def test_parameters_out_of_range_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(AppError, match=words):
        check_params(sdk_params(**changes))
    section = {"params": to_json(sdk_params()), "minter": {"inflation": "0", "annual_provisions": "0"}}
    MintGenesis(World(default_params()).keeper, AuthKeeper({})).validate(section)
    if all(changes[name] not in ("", "x") for name in changes):
        section["params"] = to_json(sdk_params(**changes))
        with pytest.raises(GenesisError, match=r"app_state\.mint"):
            MintGenesis(World(default_params()).keeper, AuthKeeper({})).validate(section)


def test_only_the_gov_account_changes_parameters() -> None:
    world = World(default_params())
    update = world.module.messages["cosmos.mint.v1beta1.MsgUpdateParams"].execute
    message = message_class("cosmos.mint.v1beta1.MsgUpdateParams")(authority="st10d07y265gmmuvt4z0w9aw880jnsr700jx08hhw", params=sdk_params())
    ctx = Context("test-1", 2, 0, Mode.FINALIZE)
    message.params.blocks_per_year = 0
    with pytest.raises(AppError) as refused:
        update(ctx, world.state, message)
    assert (refused.value.codespace, refused.value.code) == ("undefined", 1)
    message.params.blocks_per_year = 7
    update(ctx, world.state, message)
    assert world.keeper.params(world.state).blocks_per_year == 7
    message.authority = "st1m3h30wlvsf8llruxtpukdvsy0km2kum85un2xa"
    with pytest.raises(AppError) as refused:
        update(ctx, world.state, message)
    assert (refused.value.codespace, refused.value.code) == ("gov", 13)


def test_genesis_goes_in_and_out_and_queries_show_decimals() -> None:
    world = World(sdk_params())
    world.block()
    ctx = Context("test-1", 2, 0, Mode.QUERY)
    section = world.module.genesis.export(ctx, world.state)  # type: ignore[union-attr]
    assert section["minter"]["inflation"] == "0.070000000000000000"
    other = World(default_params())
    other.module.genesis.load(ctx, other.state, section)  # type: ignore[union-attr]
    assert other.module.genesis.export(ctx, other.state) == section  # type: ignore[union-attr]
    for name, field, value in (
        ("Inflation", "inflation", "0.070000000000000000"),
        ("AnnualProvisions", "annual_provisions", "7000000000000000000000000.000000000000000000"),
    ):
        request = message_class(f"cosmos.mint.v1beta1.Query{name}Request")()
        assert to_json(world.module.queries[f"/cosmos.mint.v1beta1.Query/{name}"](ctx, world.state, request)) == {field: value}
