"""Transactions through CheckTx, proposal, block and query, in process: what passes, what is refused with which code, and what stays."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from chain.application import Settings
from chain.codec.registry import message_class
from chain.coins import Coin
from chain.errors import InvalidRequest
from chain.store import ics23
from chain.testing.driver import Driver
from chain.tx.build import Signer, build_tx
from chain.tx.signing import LEGACY_AMINO_JSON
from tests.support import CHAIN_ID, FEE, FUNDS_WEI, GAS, KEYS, balance, chain, genesis_document, send, text

FEE_WEI = FEE[0].amount


@pytest.fixture
def driver() -> Driver:
    return chain()


def test_a_send_moves_coins_and_takes_the_fee(driver: Driver) -> None:
    raw = send(2, 3, 1000)
    assert driver.check_tx(raw).code == 0
    assert driver.propose() == [raw]
    [result] = driver.next_block([raw]).results
    assert (result.code, result.gas_wanted) == (0, GAS)
    assert balance(driver, 3) == FUNDS_WEI + 1000
    assert balance(driver, 2) == FUNDS_WEI - 1000 - FEE_WEI
    assert driver.apps[0].broken_invariants() == []  # type: ignore[attr-defined]


@pytest.mark.parametrize("sender", [1, 2], ids=["eth_secp256k1", "secp256k1"])
@pytest.mark.parametrize("mode", [1, LEGACY_AMINO_JSON], ids=["DIRECT", "LEGACY_AMINO_JSON"])
def test_both_key_types_sign_in_both_modes(driver: Driver, sender: int, mode: int) -> None:
    [result] = driver.next_block([send(sender, 3, mode=mode, memo="naïve <memo> & 🚀")]).results
    assert result.code == 0, result.log


def test_the_events_of_a_send_are_the_sdks_twelve(driver: Driver) -> None:
    [result] = driver.next_block([send(2, 3)]).results
    kinds = [kind for kind, _ in result.events]
    assert kinds == [
        *("coin_spent", "coin_received", "transfer", "message", "tx", "tx", "tx"),
        *("message", "coin_spent", "coin_received", "transfer", "message"),
    ]
    assert sum(len(attributes) for _, attributes in result.events) == 28
    assert [dict(attributes).get("msg_index") for _, attributes in result.events] == [None] * 7 + ["0"] * 5
    assert result.events[7][1] == (("action", "/cosmos.bank.v1beta1.MsgSend"), ("sender", text(KEYS[2])), ("module", "bank"), ("msg_index", "0"))


BAD: list[tuple[str, dict[str, Any], str, int]] = [
    ("wrong signature", {"key": KEYS[3]}, "sdk", 4),
    ("wrong chain id", {"chain_id": "other-1"}, "sdk", 4),
    ("wrong account number", {"number": 77}, "sdk", 4),
    ("sequence too high", {"sequence": 5}, "sdk", 32),
    ("no fee", {"fee": ()}, "sdk", 13),
    ("fee below the minimum", {"fee": (Coin("wei", 1),)}, "sdk", 13),
    ("no gas", {"gas": 0, "fee": ()}, "sdk", 11),
    ("too little gas", {"gas": 1000}, "sdk", 11),
    ("memo too long", {"memo": "x" * 257}, "sdk", 12),
    ("timed out", {"timeout_height": 1}, "sdk", 30),
    ("fee beyond the balance", {"fee": (Coin("wei", FUNDS_WEI * 2),)}, "sdk", 5),
    ("coins that do not exist", {"fee": (Coin("unknown", 10**15),)}, "sdk", 13),
]


@pytest.mark.parametrize(("options", "codespace", "code"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_a_bad_transaction_is_refused_with_the_sdks_code_and_changes_nothing(
    driver: Driver, options: dict[str, Any], codespace: str, code: int
) -> None:
    answer = driver.check_tx(send(2, 3, **options))
    assert (answer.codespace, answer.code) == (codespace, code), answer.log
    assert answer.log
    assert driver.check_tx(send(2, 3)).code == 0, "the check state is as before"


def test_failing_messages_leave_fee_sequence_and_ante_events(driver: Driver) -> None:
    [result] = driver.next_block([send(2, 3, FUNDS_WEI * 5)]).results
    assert (result.codespace, result.code, result.data) == ("sdk", 5, b"")
    assert result.log.startswith("failed to execute message; message index: 0: spendable balance ")
    assert result.log.endswith("insufficient funds")
    assert [kind for kind, _ in result.events] == ["coin_spent", "coin_received", "transfer", "message", "tx", "tx", "tx"]
    assert balance(driver, 2) == FUNDS_WEI - FEE_WEI
    [again] = driver.next_block([send(2, 3, sequence=1)]).results
    assert again.code == 0


def test_a_failure_in_ante_undoes_all(driver: Driver) -> None:
    before = driver.app_hash
    [result] = driver.next_block([send(2, 3, sequence=9)]).results
    assert (result.code, result.events) == (32, ())
    assert balance(driver, 2) == FUNDS_WEI
    assert driver.next_block().app_hash == driver.app_hash != b""
    assert before


@pytest.mark.parametrize("raw", [b"", b"\xff" * 40, b"\x0a\x00", send(2, 3) + b"\x22\x01x", b"\x0a" + bytes(1000)])
def test_bytes_that_are_no_transaction_fail_alone_with_no_gas(driver: Driver, raw: bytes) -> None:
    assert driver.check_tx(raw).code != 0
    results = driver.next_block([raw, send(2, 3)], process=False).results
    assert results[0].codespace == "sdk"
    assert results[0].code in (2, 18)
    assert results[0].gas_used == 0
    assert results[1].code == 0


def test_an_unknown_field_is_refused(driver: Driver) -> None:
    raw_class = message_class("cosmos.tx.v1beta1.TxRaw")
    parts = raw_class.FromString(send(2, 3))
    parts.auth_info_bytes += b"\x7a\x01x"  # field 15
    answer = driver.check_tx(parts.SerializeToString())
    assert (answer.codespace, answer.code) == ("sdk", 2)
    assert "field 15" in answer.log


@pytest.mark.parametrize(("amount", "code"), [("-5", 10), ("", 10), ("1" * 300, 2), ("1.5", 2), ("0x10", 2), (" 5", 2)])
def test_amounts_that_are_not_positive_whole_numbers_are_refused(driver: Driver, amount: str, code: int) -> None:
    message = message_class("cosmos.bank.v1beta1.MsgSend")(from_address=text(KEYS[2]), to_address=text(KEYS[3]))
    message.amount.add(denom="wei", amount=amount)
    raw = build_tx([message], fee=FEE, gas_limit=GAS, signers=[Signer(KEYS[2].public_key, 0, 2)])
    answer = driver.check_tx(raw.sign([KEYS[2]], CHAIN_ID))
    assert (answer.codespace, answer.code) == ("sdk", code)


@pytest.mark.parametrize("recipient", ["", "st1qqqq", "cosmos1qqqsyqcyq5rqwzqfpg9scrgwpugpzysnzs23v9ccrydpk8qarc0jqscdket"])
def test_bad_addresses_are_refused(driver: Driver, recipient: str) -> None:
    message = message_class("cosmos.bank.v1beta1.MsgSend")(from_address=text(KEYS[2]), to_address=recipient)
    message.amount.add(denom="wei", amount="1")
    raw = build_tx([message], fee=FEE, gas_limit=GAS, signers=[Signer(KEYS[2].public_key, 0, 2)])
    answer = driver.check_tx(raw.sign([KEYS[2]], CHAIN_ID))
    assert (answer.codespace, answer.code) == ("sdk", 7)


def test_module_accounts_receive_nothing_from_users(driver: Driver) -> None:
    from chain.crypto import address as bech32

    message = message_class("cosmos.bank.v1beta1.MsgSend")(
        from_address=text(KEYS[2]), to_address=bech32.encode(bech32.module_address("bonded_tokens_pool"))
    )
    message.amount.add(denom="wei", amount="1")
    raw = build_tx([message], fee=FEE, gas_limit=GAS, signers=[Signer(KEYS[2].public_key, 0, 2)])
    [result] = driver.next_block([raw.sign([KEYS[2]], CHAIN_ID)]).results
    assert (result.codespace, result.code) == ("sdk", 4)


def test_a_proposal_takes_the_best_paid_first_but_keeps_each_senders_order(driver: Driver) -> None:
    cheap = [send(2, 3, sequence=at) for at in range(3)]
    rich = send(4, 3, fee=(Coin("wei", FEE_WEI * 3),))
    middle = send(5, 3, fee=(Coin("wei", FEE_WEI * 2),))
    for raw in [*cheap, middle, rich]:
        assert driver.check_tx(raw).code == 0
    assert driver.propose() == [rich, middle, *cheap]
    assert driver.propose(max_tx_bytes=len(rich) + 10) == [rich]
    driver.next_block([rich, *cheap])
    assert driver.propose() == [middle]


def test_proofs_of_balances_verify_under_the_app_hash(driver: Driver) -> None:
    driver.next_block([send(2, 3, 7)])
    app_hash = driver.app_hash
    key = b"\x02\x14" + KEYS[3].public_key.address + b"wei"
    answer = driver.query("/store/bank/key", key, prove=True)
    inner, outer = (ics23.decode_proof(op.data) for op in answer.proof_ops.ops)
    root = ics23.calculate_root(inner)
    assert ics23.verify_membership(ics23.IAVL_SPEC, root, inner, key, answer.value)
    assert ics23.verify_membership(ics23.TENDERMINT_SPEC, app_hash, outer, b"bank", root)
    assert int(answer.value) == FUNDS_WEI + 7


def test_query_heights_follow_the_rules(driver: Driver) -> None:
    future = driver.query("/store/bank/key", b"\x05", height=99)
    assert (future.codespace, future.code) == ("sdk", 26)
    unknown = driver.query("/cosmos.bank.v1beta1.Query/Nothing")
    assert (unknown.codespace, unknown.code) == ("sdk", 6)
    nowhere = driver.query("/store/nothing/key", b"x")
    assert (nowhere.codespace, nowhere.code) == ("store", 4)


def test_a_simulation_needs_no_signature_and_no_fee(driver: Driver) -> None:
    message = message_class("cosmos.bank.v1beta1.MsgSend")(from_address=text(KEYS[2]), to_address=text(KEYS[3]))
    message.amount.add(denom="wei", amount="1")
    raw = build_tx([message], fee=(Coin("wei", 0),), gas_limit=0, signers=[Signer(KEYS[2].public_key, 0)]).for_simulation()
    answer = driver.query("/app/simulate", raw)
    assert answer.code == 0, answer.log
    simulated = message_class("cosmos.tx.v1beta1.SimulateResponse").FromString(answer.value)
    assert 50_000 < simulated.gas_info.gas_used < GAS
    assert balance(driver, 2) == FUNDS_WEI


def test_verdict_cache_pool_and_workers_change_no_result() -> None:
    settings = [Settings(), Settings(verdict_cache=0), Settings(workers=0, pool_txs=0), Settings(verdict_cache=2, workers=2)]
    driver = chain(4, settings=settings)
    sequences = [0] * 6
    for block in range(8):
        txs = []
        for at in range(12):
            sender = 2 + (block * 7 + at) % 4
            bad = (block + at) % 5 == 0
            txs.append(send(sender, 2 + at % 4, at + 1, sequence=sequences[sender] + (3 if bad else 0)))
            sequences[sender] += not bad
        for raw in txs[::2]:
            driver.check_tx(raw)
        driver.next_block(txs)  # raises when app hash, codes, data or gas differ
    assert driver.apps[0].broken_invariants() == []  # type: ignore[attr-defined]


def test_blocks_before_and_after_a_restart_agree() -> None:
    from chain.app import build_application
    from chain.store.kv import MemoryBackend

    kvs = [MemoryBackend(), MemoryBackend()]
    driver = chain(2, kvs=kvs)
    driver.next_block([send(2, 3)])
    driver.apps[1].store.close()  # type: ignore[attr-defined]
    driver.apps = [driver.apps[0], build_application(kvs[1])]
    info = driver.apps[1].info(None)
    assert (info.last_block_height, info.last_block_app_hash) == (driver.height, driver.app_hash)
    result = driver.next_block([send(2, 3, sequence=1)])
    assert result.results[0].code == 0


def test_the_blocks_gas_is_a_limit() -> None:
    driver = chain(consensus={"block": {"max_bytes": "2097152", "max_gas": "250000"}})
    driver.next_block()
    results = driver.next_block([send(2, 3), send(3, 2), send(4, 2), send(5, 2), send(1, 2)], process=False).results
    assert [result.code for result in results] == [0, 0, 0, 11, 11]
    assert "block gas meter" in results[3].log
    assert "no block gas left to run tx" in results[4].log
    assert balance(driver, 5) == FUNDS_WEI - FEE_WEI, "it was begun"
    assert (results[4].events, balance(driver, 1)) == ((), FUNDS_WEI), "what is not begun pays no fee"


def test_export_import_export_gives_identical_bytes_at_every_kept_height(driver: Driver) -> None:
    import orjson

    from chain.app import build_application
    from chain.store.kv import MemoryBackend

    source: Any = driver.apps[0]
    for number in range(4):
        driver.next_block([send(2, 3, 5 + number, sequence=number), send(4, 5, sequence=number)])
    exported = [source.export(height) for height in range(1, source.latest_height + 1)]
    assert len({orjson.dumps(one) for one in exported}) >= 5
    for first in exported:
        again = build_application(MemoryBackend())
        second = Driver([again], {**driver.genesis, "app_state": first})
        second.start()
        second.next_block()
        assert orjson.dumps(again.export()) == orjson.dumps(first)


def test_a_gas_limit_of_64_bits_is_refused_without_harm_to_its_neighbours(driver: Driver) -> None:
    """The field of the answer has a sign: found by fuzzing, where it made every transaction of the batch fail."""
    request = message_class("tendermint.abci.RequestCheckTx")
    txs = [send(2, 3), send(4, 3, gas=2**64 - 1), send(5, 3)]
    first, refused, last = driver.apps[0].check_txs([request(tx=raw) for raw in txs])
    assert isinstance(first, bytes)
    assert isinstance(last, bytes)
    assert (refused.codespace, refused.code, refused.gas_wanted) == ("sdk", 18, -1)
    [result] = driver.next_block([txs[1]]).results
    assert (result.code, result.gas_wanted) == (18, -1)


def test_a_handler_that_raises_fails_its_transaction_alone() -> None:
    driver = chain(settings=[Settings(fast_sends=False)])
    app: Any = driver.apps[0]
    handlers = app.executor._handlers
    original = handlers["cosmos.bank.v1beta1.MsgSend"]

    def broken(ctx: Any, state: Any, message: Any) -> Any:
        if message.amount[0].amount == "13":
            raise ZeroDivisionError("a bug")
        return original.execute(ctx, state, message)

    handlers["cosmos.bank.v1beta1.MsgSend"] = type(original)(broken, original.check_stateless)
    results = driver.next_block([send(2, 3, 13), send(4, 3, 14)]).results
    assert [(result.codespace, result.code) for result in results] == [("undefined", 111222), ("", 0)]
    assert app.executor.panics == 1
    assert balance(driver, 2) == FUNDS_WEI - FEE_WEI, "the fee stays"


def test_an_error_of_the_machine_stops_the_block() -> None:
    driver = chain(settings=[Settings(fast_sends=False)])
    app: Any = driver.apps[0]
    original = app.executor._handlers["cosmos.bank.v1beta1.MsgSend"]

    def out_of_memory(ctx: Any, state: Any, message: Any) -> Any:
        raise MemoryError

    app.executor._handlers["cosmos.bank.v1beta1.MsgSend"] = type(original)(out_of_memory, original.check_stateless)
    with pytest.raises(MemoryError):
        driver.next_block([send(2, 3)])


def test_the_application_names_the_version_that_headers_carry() -> None:
    """Found by CometBFT's crash points: a replay of block 1 compares Info's version with the header's."""
    driver = chain(consensus={"version": {"app": "7"}}, blocks=0)
    assert driver.apps[0].info(None).app_version == 0, "InitChain has yet to tell CometBFT"
    driver.next_block()
    assert driver.apps[0].info(None).app_version == 7


def test_validators_of_the_genesis_file_must_be_those_of_the_applications_state() -> None:
    from chain.app import build_application
    from chain.store.kv import MemoryBackend
    from chain.testing.validators import ValidatorKey

    app = build_application(MemoryBackend(), Settings())
    for number, power, fits in ((0, 1000, True), (0, 1001, False), (1, 1000, False)):
        genesis = genesis_document(app)
        value = base64.b64encode(ValidatorKey.numbered(number).public_key.raw).decode()
        genesis["consensus"]["validators"] = [{"pub_key": {"type": "tendermint/PubKeyEd25519", "value": value}, "power": str(power)}]
        driver = Driver([build_application(MemoryBackend(), Settings())], genesis)
        if fits:
            driver.start()
            continue
        with pytest.raises(InvalidRequest, match="are not those that the application's state leads to"):
            driver.start()
