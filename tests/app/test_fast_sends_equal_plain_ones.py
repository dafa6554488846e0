"""The fast twin of MsgSend against the plain path: random blocks of good and bad sends on both, every byte of every answer alike."""

from __future__ import annotations

import hashlib
import random
from typing import Any

import pytest

from chain.application import Settings
from chain.codec.registry import message_class
from chain.coins import Coin
from chain.context import Mode
from chain.testing.driver import Driver
from chain.tx.decode import decode_tx
from chain.tx.execution import Executor
from modules.bank.fast import FastSends
from tests.support import FEE, FUNDS_WEI, GAS, KEYS, chain, key, send, text

Check = message_class("tendermint.abci.RequestCheckTx")
AMINO = 127


def random_send(choose: random.Random, sequences: list[int]) -> bytes:
    sender = choose.randrange(len(KEYS))
    recipient = choose.randrange(len(KEYS))
    options: dict[str, Any] = {}
    amount = choose.choice([1, 5, 10**6, 10**18, FUNDS_WEI // 3, FUNDS_WEI, 2 * FUNDS_WEI])
    match choose.randrange(24):
        case 0:
            options["memo"] = choose.choice(["hello", "x" * 300])
        case 1:
            options["timeout_height"] = choose.choice([1, 100])
        case 2:
            options["mode"] = AMINO
        case 3:
            options["gas"] = choose.choice([1, 50_000, 80_000, 88_000, 89_000, 10**9])
            options["fee"] = (Coin("wei", options["gas"] * 10**9),)
        case 4:
            options["fee"] = choose.choice([(), (Coin("wei", 1),), (Coin("gwei", 200_000),), (Coin("ufoo", 10**15), *FEE), (Coin("wei", FUNDS_WEI),)])
        case 5:
            options["denom"] = choose.choice(["ufoo", "nothing", "gwei"])
        case 6:
            options["chain_id"] = "other-1"
        case 7:
            options["key"] = key(50)
        case 8:
            options["number"] = 77
        case 9:
            return send(sender, recipient, amount, sequence=sequences[sender] + choose.randrange(1, 3))
        case _:
            options["denom"] = choose.choice(["wei", "wei", "ufoo"])
    raw = send(sender, recipient, amount, sequence=sequences[sender], **options)
    if choose.random() < 0.9:
        sequences[sender] += 1
    return raw


def answers(driver: Driver, choose: random.Random, blocks: int) -> list[Any]:
    found: list[Any] = []
    sequences = [0] * len(KEYS)
    for _ in range(blocks):
        txs = [random_send(choose, sequences) for _ in range(choose.randrange(12))]
        app = driver.apps[0]
        for raw in txs:
            for kind in (0, 1):
                answer = app.check_txs([Check(tx=raw, type=kind)])[0]
                found.append(answer if isinstance(answer, bytes) else answer.SerializeToString())
        found.append(driver.propose(txs))
        result = driver.next_block(txs)
        found += [result.app_hash, *result.results]
        sequences = [_sequence(driver, number) for number in range(len(KEYS))]
    return found


def _sequence(driver: Driver, number: int) -> int:
    request = message_class("cosmos.auth.v1beta1.QueryAccountInfoRequest")(address=text(KEYS[number]))
    answer, _ = driver.apps[0].query_rpc("/cosmos.auth.v1beta1.Query/AccountInfo", request)  # type: ignore[attr-defined]
    return int(answer.info.sequence)


@pytest.mark.parametrize("consensus", [None, {"block": {"max_bytes": "1000000", "max_gas": "600000"}}], ids=["no limit", "block gas limit"])
@pytest.mark.parametrize("seed", range(12))
def test_every_answer_is_the_same_with_and_without_the_twin(seed: int, consensus: dict[str, Any] | None) -> None:
    fast, plain = (
        answers(chain(settings=[Settings(fast_sends=on)], consensus=consensus, denom="ufoo"), random.Random(seed), 12) for on in (True, False)
    )
    assert fast == plain


def test_the_twin_runs_plain_sends(monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[Mode] = []
    run = FastSends.run

    def watched(self: FastSends, *arguments: Any) -> Any:
        outcome = run(self, *arguments)
        if outcome is not None:
            modes.append(arguments[3])
        return outcome

    monkeypatch.setattr(FastSends, "run", watched)
    monkeypatch.setattr(Executor, "_told", lambda self, error, tx: pytest.fail(f"a send failed: {error}"))
    driver = chain()
    driver.next_block([send(2, 1)])
    raw = send(2, 1, sequence=1)
    driver.apps[0].check_txs([Check(tx=raw)])
    driver.propose([raw])
    driver.next_block([raw])
    driver.apps[0].check_txs([Check(tx=send(2, 1, sequence=2, gas=GAS))])
    assert modes == [Mode.FINALIZE, Mode.CHECK, Mode.PROPOSE, Mode.FINALIZE, Mode.CHECK], "the first one of a key that is not on chain yet, too"


def test_what_the_fast_reader_reads_the_plain_decoder_reads_alike() -> None:
    twin = chain().apps[0]._twin  # type: ignore[attr-defined]
    good = [send(2, 1, 5, sequence=sequence, denom=denom) for sequence in (0, 1, 127, 128, 300, 2**40) for denom in ("wei", "ufoo", "ibc/ABCDEF")]
    good += [send(0, 3, 10**30, sequence=9, gas=gas) for gas in (1, 127, 128, 2**62)]
    choose = random.Random(1)
    mutants = []
    for raw in good * 60:
        mutant = bytearray(raw)
        for _ in range(choose.randrange(1, 3)):
            match choose.randrange(3):
                case 0:
                    mutant[choose.randrange(len(mutant))] = choose.randrange(256)
                case 1:
                    mutant.insert(choose.randrange(len(mutant)), choose.choice([0, 1, 0x20, 0x80, 0xFF]))
                case _:
                    del mutant[choose.randrange(len(mutant))]
        mutants.append(bytes(mutant))
    read = 0
    for raw in good + mutants:
        fast = twin.read(raw, hashlib.sha256(raw).digest())
        if fast is None:
            continue
        read += 1
        plain = decode_tx(raw)
        assert twin._plan(plain) == fast.plan
        for name in ("raw", "hash", "body_bytes", "auth_info_bytes", "signatures", "signers", "fee", "gas_limit", "payer", "granter", "messages"):
            assert getattr(fast, name) == getattr(plain, name)
        assert (fast.first_sequence, fast.memo, fast.timeout_height, fast.fee_payer) == (plain.first_sequence, "", 0, plain.signers[0])
    assert all(twin.read(raw, bytes(32)) is not None for raw in good)
    assert read > len(good), "some mutants keep the shape: another amount, another signature"
