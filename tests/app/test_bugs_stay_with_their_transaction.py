"""An exception that no rule raises fails the transaction in hand and no other, wherever it comes from."""

from __future__ import annotations

from typing import Any

import pytest

from chain.application import Settings
from chain.codec.registry import message_class
from chain.errors import InvariantBroken
from chain.module import MessageHandler
from chain.testing.driver import Driver
from modules.bank.fast import FastSends
from tests.support import chain, send

Check = message_class("tendermint.abci.RequestCheckTx")
Answer = message_class("tendermint.abci.ResponseCheckTx")


def bug(*_: Any) -> Any:
    raise ZeroDivisionError("a bug")


def codes(driver: Driver, txs: list[bytes]) -> list[tuple[str, int]]:
    answers = [Answer.FromString(one) if isinstance(one, bytes) else one for one in driver.apps[0].check_txs([Check(tx=raw) for raw in txs])]
    return [(one.codespace, one.code) for one in answers]


PANIC, FINE = ("undefined", 111222), ("", 0)


def test_a_check_that_raises_leaves_the_rest_of_its_batch_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = chain()
    app: Any = driver.apps[0]
    txs = [send(2, 1), send(3, 1), send(4, 1)]
    check = app._check
    monkeypatch.setattr(app, "_check", lambda tx, recheck: bug() if getattr(tx, "raw", b"") == txs[1] else check(tx, recheck))
    assert codes(driver, txs) == [FINE, PANIC, FINE]
    assert app.counts.panics["check_tx"] == 1


def test_a_decoder_that_raises_fails_that_transaction_in_check_and_in_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = chain()
    app: Any = driver.apps[0]
    txs = [send(2, 1), send(3, 1), send(4, 1)]
    decode = app._verdicts.decode
    monkeypatch.setattr(app._verdicts, "decode", lambda raw, *known: bug() if raw == txs[1] else decode(raw, *known))
    assert codes(driver, txs) == [FINE, PANIC, FINE]
    results = driver.next_block(txs, process=False).results
    assert [(one.codespace, one.code, one.gas_used > 0) for one in results] == [("", 0, True), (*PANIC, False), ("", 0, True)]


def test_signatures_are_checked_one_by_one_when_checking_ahead_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = chain()
    monkeypatch.setattr(driver.apps[0], "_verify_ahead", bug)
    wrong = bytearray(send(3, 1))
    wrong[-1] ^= 1
    assert codes(driver, [send(2, 1), bytes(wrong), send(4, 1)]) == [FINE, ("sdk", 4), FINE]


def test_a_fast_twin_that_raises_leaves_the_transaction_to_the_plain_path(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, broken = chain(), chain()
    monkeypatch.setattr(FastSends, "run", bug)
    got = broken.next_block([send(2, 1), send(3, 1)])
    monkeypatch.undo()
    wanted = plain.next_block([send(2, 1), send(3, 1)])
    assert (got.app_hash, got.results) == (wanted.app_hash, wanted.results)


def test_a_broken_promise_in_a_handler_fails_that_transaction_alone() -> None:
    """In a block's hooks it stops the node; here anybody could bring it about, again and again."""

    def execute(ctx: Any, state: Any, message: Any) -> Any:
        if message.amount[0].amount == "13":
            raise InvariantBroken("a promise")
        return handler.execute(ctx, state, message)

    driver = chain(settings=[Settings(fast_sends=False)])
    app: Any = driver.apps[0]
    name = "cosmos.bank.v1beta1.MsgSend"
    handler = app.executor._handlers[name]
    app.executor._handlers = {**app.executor._handlers, name: MessageHandler(execute)}
    failed, sent = driver.next_block([send(2, 1, 13), send(3, 1)]).results
    assert ((failed.codespace, failed.code), (sent.codespace, sent.code)) == (PANIC, FINE)
