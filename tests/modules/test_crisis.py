"""Invariants: checked for whoever pays, checked by a node that asks for it, and on the genesis state."""

from __future__ import annotations

from typing import Any

import pytest

from chain.app import build_application
from chain.application import Application, Settings
from chain.codec.json import to_json
from chain.codec.registry import message_class
from chain.coins import CoinMessage
from chain.context import Context, Mode
from chain.errors import AppError, InvalidRequest, InvariantBroken
from chain.module import GenesisError
from chain.store.kv import MemoryBackend
from chain.store.state import EmptyView, State
from chain.testing.driver import Driver
from chain.tx.build import Signer, build_tx
from tests.support import CHAIN_ID, FEE, FUNDS_WEI, GOV, KEYS, balance, chain, genesis_document, text

PACKAGE = "cosmos.crisis.v1beta1"
GAS = 2_000_000
CONSTANT_FEE_WEI = 606 * 10**18
FEE_WEI = FEE[0].amount


def verify(driver: Driver, module: str, route: str, *, sender: int = 1, sequence: int = 0, gas: int = GAS) -> Any:
    message = message_class(f"{PACKAGE}.MsgVerifyInvariant")(sender=text(KEYS[sender]), invariant_module_name=module, invariant_route=route)
    signer = Signer(KEYS[sender].public_key, sequence, sender)
    fee = tuple(coin._replace(amount=coin.amount * (GAS // 200_000)) for coin in FEE)
    raw = build_tx([message], fee=fee, gas_limit=gas, signers=[signer]).sign([KEYS[sender]], CHAIN_ID)
    return driver.next_block([raw]).results[0]


def break_supply(app: Application, at: int) -> None:
    """A bug that mints without counting it, in the end hooks of a block."""

    def hook(ctx: Context, state: Any) -> None:
        if ctx.height == at:
            state.store("bank").set(b"\x00wei", b"1")

    app._end.append(hook)


@pytest.mark.parametrize("route", ["total-supply", "nonnegative-outstanding"])
def test_whoever_pays_the_constant_fee_has_an_invariant_checked(route: str) -> None:
    driver = chain()
    result = verify(driver, "bank", route)
    assert (result.code, result.codespace) == (0, "")
    assert ("invariant", (("route", route), ("msg_index", "0"))) in result.events
    assert balance(driver, 1) == FUNDS_WEI - CONSTANT_FEE_WEI - 10 * FEE_WEI


def test_the_check_costs_the_gas_of_what_it_reads_so_that_no_block_is_held_up() -> None:
    driver = chain()
    verify(driver, "crisis", "nothing")
    few = verify(driver, "crisis", "nothing", sequence=1)
    many = verify(driver, "bank", "total-supply", sequence=2)
    assert many.gas_used > few.gas_used
    short = verify(driver, "bank", "total-supply", sequence=3, gas=many.gas_used - 100)
    assert (short.codespace, short.code) == ("sdk", 11)


def test_an_invariant_that_nobody_has_costs_no_constant_fee() -> None:
    driver = chain()
    for sequence, (module, route) in enumerate([("bank", "no-such"), ("no-such", "total-supply"), ("", ""), ("bank", "total-supply/")]):
        result = verify(driver, module, route, sequence=sequence)
        assert (result.codespace, result.code) == ("crisis", 3), (module, route)
    assert balance(driver, 1) == FUNDS_WEI - 4 * 10 * FEE_WEI


def test_who_cannot_pay_is_told_so() -> None:
    made = genesis_document(build_application(MemoryBackend()))
    made["app_state"]["crisis"]["constant_fee"]["amount"] = str(2 * FUNDS_WEI)
    driver = Driver([build_application(MemoryBackend())], made)
    driver.start()
    driver.next_block()
    result = verify(driver, "bank", "total-supply")
    assert (result.codespace, result.code) == ("sdk", 5)


def test_a_broken_invariant_fails_the_message_as_a_panic_with_its_sentence() -> None:
    driver = chain(blocks=0)
    app: Application = driver.apps[0]  # type: ignore[assignment]
    app.settings = Settings()  # a node that checks nothing by itself
    break_supply(app, 1)
    driver.next_block()
    result = verify(driver, "bank", "total-supply")
    assert (result.codespace, result.code) == ("undefined", 111222)
    assert "bank/total-supply: supply is {'wei': 1}" in result.log


def test_a_node_that_asks_for_it_stops_before_a_broken_block_is_committed() -> None:
    app = build_application(MemoryBackend(), Settings(invariant_period=3))
    driver = Driver([app], genesis_document(app))
    driver.start()
    break_supply(app, 2)
    driver.next_block()
    driver.next_block()  # broken, but not looked at
    with pytest.raises(InvariantBroken, match="invariant broken at block 3, which is not committed: bank/total-supply: supply is"):
        driver.next_block()
    assert app.latest_height == 2


def test_the_chain_of_the_tests_checks_every_block() -> None:
    driver = chain(blocks=0)
    break_supply(driver.apps[0], 2)  # type: ignore[arg-type]
    driver.next_block()
    with pytest.raises(InvariantBroken):
        driver.next_block()


def test_a_genesis_state_that_is_broken_starts_no_chain_unless_told_to() -> None:
    made = genesis_document(build_application(MemoryBackend()))

    def begin(settings: Settings) -> None:
        app = build_application(MemoryBackend(), settings)
        load = app._genesis[1].genesis.load  # type: ignore[union-attr]

        def broken(ctx: Any, state: Any, section: Any) -> Any:
            found = load(ctx, state, section)
            state.store("bank").set(b"\x00wei", b"7")
            return found

        app._genesis[1].genesis.load = broken  # type: ignore[union-attr, method-assign]
        Driver([app], made).start()

    with pytest.raises(InvalidRequest, match="the state in the genesis file is broken: bank/total-supply"):
        begin(Settings())
    begin(Settings(skip_genesis_invariants=True))


def update(app: Application, state: Any, amount: str, denom: str = "wei", authority: str = GOV) -> None:
    message = message_class(f"{PACKAGE}.MsgUpdateParams")(authority=authority, constant_fee={"denom": denom, "amount": amount})
    app.executor._handlers[f"{PACKAGE}.MsgUpdateParams"].execute(Context(CHAIN_ID, 3, 0, Mode.FINALIZE), state, message)


def test_gov_alone_sets_the_fee() -> None:
    app = build_application(MemoryBackend())
    state = State(EmptyView(), app.store.names)
    for amount in ("0", "5"):
        update(app, state, amount)
        assert state.store("crisis").get(b"\x01") == CoinMessage(denom="wei", amount=amount).SerializeToString()
    for amount, denom in (("-1", "wei"), ("x", "wei"), ("", "wei"), ("1", "w"), ("1" + "0" * 80, "wei")):
        with pytest.raises(AppError) as caught:
            update(app, state, amount, denom)
        assert (caught.value.codespace, caught.value.code) == ("sdk", 10)
    with pytest.raises(AppError) as caught:
        update(app, state, "5", authority=text(KEYS[1]))
    assert (caught.value.codespace, caught.value.code) == ("gov", 13)


def test_the_fee_comes_from_genesis_and_goes_back_there() -> None:
    driver = chain()
    app: Application = driver.apps[0]  # type: ignore[assignment]
    assert app.export()["crisis"] == {"constant_fee": {"denom": "wei", "amount": str(CONSTANT_FEE_WEI)}}
    section = next(module.genesis for module in app.modules if module.name == "crisis")
    assert section is not None
    for fee in ({"denom": "wei", "amount": "-1"}, {"denom": "!", "amount": "1"}):
        with pytest.raises(GenesisError, match=r"app_state\.crisis\.constant_fee: .*fee"):
            section.validate({"constant_fee": fee})
    assert to_json(message_class(f"{PACKAGE}.GenesisState")(constant_fee={"denom": "wei", "amount": "1"})) == {
        "constant_fee": {"denom": "wei", "amount": "1"}
    }


def test_a_fee_of_zero_that_gov_has_set_is_exported_and_imported() -> None:
    app: Application = chain().apps[0]  # type: ignore[assignment]
    section = next(module.genesis for module in app.modules if module.name == "crisis")
    assert section is not None
    state, other = (State(EmptyView(), app.store.names) for _ in range(2))
    update(app, state, "0")
    ctx = Context(CHAIN_ID, 3, 0, Mode.FINALIZE)
    exported = section.export(ctx, state)
    section.validate(exported)
    section.load(ctx, other, exported)
    assert other.store("crisis").get(b"\x01") == state.store("crisis").get(b"\x01")
