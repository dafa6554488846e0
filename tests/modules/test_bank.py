"""The bank: MultiSend is held to what a Send is, balances end at 256 bits, and a genesis file names an address once."""

from __future__ import annotations

from typing import Any

import pytest

from chain.app import build_application
from chain.application import Settings
from chain.codec.registry import message_class
from chain.coins import Coin, to_messages
from chain.context import Context, Mode
from chain.crypto import address as bech32
from chain.errors import InvalidCoins
from chain.module import GenesisError
from chain.store.kv import MemoryBackend
from chain.store.state import EmptyView, State
from chain.testing.driver import Driver, TxResult
from chain.tx.build import Signer, build_tx
from modules.auth.keeper import AuthKeeper
from modules.bank.genesis import BankGenesis
from modules.bank.keeper import BankMint
from tests.support import CHAIN_ID, FEE, FUNDS_WEI, GAS, KEYS, balance, chain, genesis_document, text

PACKAGE = "cosmos.bank.v1beta1"
OWNER = KEYS[4].public_key.address


def wei(amount: int) -> list[Any]:
    return to_messages((Coin("wei", amount),))


def send(recipient: str) -> Any:
    return message_class(f"{PACKAGE}.MsgSend")(from_address=text(KEYS[2]), to_address=recipient, amount=wei(5))


def multi_send(*recipients: str) -> Any:
    """5 wei to each."""
    outputs = [{"address": one, "coins": wei(5)} for one in recipients]
    return message_class(f"{PACKAGE}.MsgMultiSend")(inputs=[{"address": text(KEYS[2]), "coins": wei(5 * len(recipients))}], outputs=outputs)


def run(driver: Driver, message: Any) -> TxResult:
    """The result of a message from KEYS[2], its first, in a block of its own."""
    raw = build_tx([message], fee=FEE, gas_limit=GAS, signers=[Signer(KEYS[2].public_key, 0, 2)]).sign([KEYS[2]], CHAIN_ID)
    return driver.next_block([raw]).results[0]


@pytest.mark.parametrize("module", ["bonded_tokens_pool", "mint"])
def test_a_module_account_receives_nothing_by_a_multi_send_and_neither_does_anybody_else_of_it(module: str) -> None:
    driver = chain()
    blocked = bech32.encode(bech32.module_address(module))
    result = run(driver, multi_send(text(KEYS[3]), blocked))
    assert (result.codespace, result.code) == ("sdk", 4), result.log
    assert f"{blocked} is not allowed to receive funds" in result.log
    assert [balance(driver, number) for number in (2, 3)] == [FUNDS_WEI - FEE[0].amount, FUNDS_WEI]


@pytest.mark.parametrize("message", [send(text(KEYS[3])), multi_send(text(KEYS[3]), text(KEYS[4]))], ids=["Send", "MultiSend"])
def test_a_denom_that_may_not_be_sent_moves_by_no_message(message: Any) -> None:
    app = build_application(MemoryBackend(), Settings())
    genesis = genesis_document(app)
    genesis["app_state"]["bank"]["send_enabled"] = [{"denom": "wei", "enabled": False}]
    driver = Driver([app], genesis)
    driver.start()
    driver.next_block()
    result = run(driver, message)
    assert (result.codespace, result.code) == ("bank", 5), result.log
    assert "wei transfers are currently disabled" in result.log
    assert balance(driver, 3) == FUNDS_WEI


def keeper() -> tuple[BankMint, State, Context]:
    bank = BankMint(AuthKeeper({}), frozenset())
    return bank, State(EmptyView(), ("acc", "bank")), Context(CHAIN_ID, 1, 0, Mode.FINALIZE)


def test_a_balance_ends_at_256_bits() -> None:
    bank, state, ctx = keeper()
    bank.give(ctx, state, OWNER, (Coin("wei", 2**256 - 1),))
    with pytest.raises(InvalidCoins, match="a balance of wei would exceed 256 bits"):
        bank.give(ctx, state, OWNER, (Coin("wei", 1),))
    assert bank.balance(state, OWNER, "wei") == 2**256 - 1


def test_an_address_has_one_entry_among_the_balances_of_a_genesis_file() -> None:
    entry = {"address": text(KEYS[4]), "coins": [{"denom": "wei", "amount": "5"}]}
    section: dict[str, Any] = {"params": {"default_send_enabled": True}, "balances": [entry]}
    bank, _, _ = keeper()
    BankGenesis(bank).validate(section)
    with pytest.raises(GenesisError, match="duplicate balance for address") as caught:
        BankGenesis(bank).validate({**section, "balances": [entry, entry]})
    assert caught.value.path == "app_state.bank.balances[1]"
