"""Every bad transaction: CheckTx and a block name its rule with the SDK's code, nothing else fails, and no state is left of it."""

from __future__ import annotations

import contextlib
import time

import pytest

from chain.application import Settings
from chain.codec.registry import message_class
from chain.coins import Coin, to_messages
from chain.crypto import address as bech32
from chain.crypto.keys import public_key_to_any
from chain.errors import PANIC_CODE, AppError, TxDecodeError
from chain.node import MIN_GAS_PRICE_FLOOR
from chain.testing.validators import ValidatorKey
from chain.tx.build import Signer, build_tx
from chain.tx.decode import Tx, decode_tx
from chain.tx.fees import parse_gas_prices, with_floor
from chain.tx.signing import LEGACY_AMINO_JSON
from tests.app.refusals import CASES, Payer
from tests.support import CHAIN_ID, FEE, FUNDS_WEI, GAS, KEYS, balance, chain, send, text

PAYER = Payer(KEYS[2], 0, 2, CHAIN_ID, text(KEYS[3]), "wei", FEE)
CHECK_ALONE = ("no fee", "a fee of another denom")
"""What a node's own minimum refuses is no rule of blocks."""
PAYS = ("more than there is",)
"""The ante chain passes: it is in the pool, and its fee is taken."""


@pytest.mark.parametrize("name", CASES)
def test_a_bad_transaction_is_refused_by_its_rule_and_leaves_no_state(name: str) -> None:
    build, codespace, code = CASES[name]
    raw = build(PAYER)
    driver, twin = chain(), chain()
    checked = driver.check_tx(raw)
    if name not in PAYS:
        assert (checked.codespace, checked.code) == (codespace, code), checked.log
        assert len(checked.log) < 1000
    if name not in CHECK_ALONE:
        bad, good = driver.next_block([raw, send(4, 3)], process=False).results
        [same] = twin.next_block([send(4, 3)]).results
        assert (bad.codespace, bad.code) == (codespace, code), bad.log
        assert bad.log
        if name not in PAYS:
            assert same == good, "what comes after it in the block is as if it had not been there"
    if name not in PAYS:
        assert driver.app_hash == twin.app_hash
        assert driver.next_block().app_hash == twin.next_block().app_hash
        assert driver.check_tx(send(2, 3)).code == 0, "the check state is as before"
    else:
        assert balance(driver, 2) == FUNDS_WEI - FEE[0].amount


def test_a_transaction_of_ten_megabytes_is_refused_without_being_read() -> None:
    raw = PAYER.build(body={"memo": "x" * (10 << 20)})
    driver, twin = chain(), chain()
    before = time.thread_time()
    checked = driver.check_tx(raw)
    spent_s = time.thread_time() - before
    assert (checked.codespace, checked.code) == ("sdk", 21)
    assert spent_s < 1, "a hang, not a measure"
    [result] = driver.next_block([raw], process=False).results
    assert (result.codespace, result.code) == ("sdk", 21)
    twin.next_block()
    assert driver.app_hash == twin.app_hash


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (PAYER.build(messages=[("/cosmos.bank.v1beta1.MsgSend", b"")] * 1001), "at most 1000 messages"),
        (PAYER.build(tail=b"\x1a\x01x" * 1000), "at most 1000 signatures"),
        (PAYER.build(fee=tuple(Coin(f"denom{at:03}", 1) for at in range(101))), "at most 100 coins"),
    ],
    ids=["messages", "signatures", "fee coins"],
)
def test_counts_are_bounded(raw: bytes, words: str) -> None:
    answer = chain().check_tx(raw)
    assert (answer.codespace, answer.code) == ("sdk", 18)
    assert words in answer.log


def validator_with(rate: str) -> bytes:
    """A MsgCreateValidator under the sign mode that writes its decimals, unsigned."""
    message = message_class("cosmos.staking.v1beta1.MsgCreateValidator")(
        description={"moniker": "m"},
        validator_address=bech32.encode(KEYS[3].public_key.address, bech32.VALIDATOR),
        pubkey=public_key_to_any(ValidatorKey.numbered(5).public_key),
        min_self_delegation="1",
        value={"denom": "wei", "amount": str(10**18)},
    )
    message.commission.rate, message.commission.max_rate = rate, str(10**18)
    unsigned = build_tx([message], fee=FEE, gas_limit=GAS, signers=[Signer(KEYS[3].public_key, 0, 3, LEGACY_AMINO_JSON)])
    return unsigned.encode([bytes(64)])


@pytest.mark.parametrize(
    "rate", ["no number", "1_0", " 1", "\u0663", "\U00011f51", "1" * 5000], ids=["text", "underscore", "space", "Arabic", "Kawi", "long"]
)
def test_a_decimal_is_of_ascii_digits_and_what_is_none_fails_its_transaction_alone(rate: str) -> None:
    """Python's own ``int`` reads other digits, and which ones depends on its version."""
    driver = chain()
    batch = [message_class("tendermint.abci.RequestCheckTx")(tx=raw) for raw in (send(1, 2), validator_with(rate), send(4, 2))]
    answers = driver.apps[0].check_txs(batch)
    response = message_class("tendermint.abci.ResponseCheckTx")
    codes = [(response.FromString(one) if isinstance(one, bytes) else one).code for one in answers]
    assert codes == [0, TxDecodeError.code, 0]
    assert [one.code for one in driver.next_block([one.tx for one in batch]).results] == [0, TxDecodeError.code, 0]


def test_a_decoder_that_raises_what_no_rule_raises_fails_that_transaction_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    bad = send(2, 3, memo="a bug finds this")

    def decode(raw: bytes) -> Tx:
        if raw == bad:
            raise ZeroDivisionError
        return decode_tx(raw)

    monkeypatch.setattr("chain.tx.verdicts.decode_tx", decode)
    driver = chain()
    assert driver.check_tx(bad).code == PANIC_CODE
    assert [one.code for one in driver.next_block([send(1, 2), bad, send(4, 2)], process=False).results] == [0, PANIC_CODE, 0]


def test_an_unknown_non_critical_field_of_the_body_is_allowed_and_signed() -> None:
    driver = chain()
    raw = PAYER.build(body_tail=b"\x82\x40\x01x")
    assert driver.check_tx(raw).code == 0
    assert driver.next_block([raw]).results[0].code == 0
    changed = raw.replace(b"\x82\x40\x01x", b"\x82\x40\x01y")
    assert changed != raw
    assert chain().check_tx(changed).code == 4


def test_a_non_critical_extension_option_is_allowed() -> None:
    raw = PAYER.build(body={"non_critical_extension_options": [{"type_url": "/cosmos.bank.v1beta1.MsgSend"}]})
    assert chain().check_tx(raw).code == 0


@pytest.mark.parametrize(
    ("fee", "charged_wei"),
    [
        ((Coin("gwei", 200_000),), 200_000 * 10**9),
        ((Coin("stos", 1),), 10**18),
        ((Coin("gwei", 100_000), Coin("wei", 100_000 * 10**9)), 200_000 * 10**9),
        ((Coin("gwei", 1), Coin("stos", 2), Coin("wei", 3)), 2 * 10**18 + 10**9 + 3),
        ((Coin("wei", 200_000 * 10**9),), 200_000 * 10**9),
        ((Coin("wei", 200_000 * 10**9 - 1),), None),
        ((Coin("gwei", 199_999),), None),
    ],
)
def test_fees_in_wei_gwei_and_stos_are_charged_in_wei_and_held_to_the_minimum(fee: tuple[Coin, ...], charged_wei: int | None) -> None:
    driver = chain()
    raw = PAYER.build(fee=fee)
    checked = driver.check_tx(raw)
    if charged_wei is None:
        assert (checked.codespace, checked.code) == ("sdk", 13)
        return
    assert checked.code == 0, checked.log
    [result] = driver.next_block([raw]).results
    assert balance(driver, 2) == FUNDS_WEI - 5 - charged_wei
    assert dict(next(pairs for kind, pairs in result.events if kind == "tx"))["fee"] == f"{charged_wei}wei"


@pytest.mark.parametrize(
    ("asked", "held"),
    [
        ("", "10000000wei"),
        ("0wei", "10000000wei"),
        ("9999999.5wei,1ufoo", "1ufoo,10000000wei"),
        ("10000000wei", "10000000wei"),
        ("0.02gwei", "0.02gwei"),
    ],
)
def test_a_minimum_price_below_the_chains_floor_is_raised_to_it(asked: str, held: str) -> None:
    assert with_floor(parse_gas_prices(asked), MIN_GAS_PRICE_FLOOR) == parse_gas_prices(held)


@pytest.mark.parametrize(("price", "gas", "least"), [("0.5", 200_001, 100_001), ("0.5", 200_000, 100_000), ("0.000001", 200_000, 1)])
@pytest.mark.parametrize("denom", ["wei", "ufoo"])
def test_the_minimum_fee_of_a_price_with_a_fraction_is_rounded_up(denom: str, price: str, gas: int, least: int) -> None:
    driver = chain(settings=[Settings(min_gas_prices=price + denom)], denom="ufoo")
    less = driver.check_tx(PAYER.build(gas=gas, fee=(Coin(denom, least - 1),) if least > 1 else ()))
    assert (less.codespace, less.code) == ("sdk", 13)
    assert f"required: {least}{denom}" in less.log
    assert driver.check_tx(PAYER.build(gas=gas, fee=(Coin(denom, least),))).code == 0


def test_a_fee_whose_sum_exceeds_256_bits_is_refused() -> None:
    answer = chain().check_tx(PAYER.build(fee=(Coin("gwei", 2**255), Coin("stos", 2**255))))
    assert (answer.codespace, answer.code) == ("sdk", 13)


def test_gas_that_is_just_enough_is_enough_and_one_less_is_not() -> None:
    probe = chain()
    used = probe.next_block([send(2, 3)]).results[0].gas_used
    for gas, code in ((used, 0), (used - 1, 11)):
        driver = chain()
        [result] = driver.next_block([send(2, 3, gas=gas)]).results
        assert (result.code, result.gas_wanted) == (code, gas), result.log
        assert balance(driver, 2) == FUNDS_WEI - FEE[0].amount - (5 if code == 0 else 0), "the fee is taken either way"


@pytest.mark.parametrize("fast_sends", [False, True], ids=["plain", "fast"])
def test_a_gas_limit_may_be_all_of_the_blocks_gas_and_no_more(fast_sends: bool) -> None:
    driver = chain(settings=[Settings(fast_sends=fast_sends)], consensus={"block": {"max_bytes": "2097152", "max_gas": str(GAS)}})
    beyond = driver.check_tx(PAYER.build(gas=GAS + 1, fee=(Coin("wei", (GAS + 1) * 10**9),)))
    assert (beyond.codespace, beyond.code) == ("sdk", 41)
    raw = PAYER.build(gas=GAS)
    assert driver.check_tx(raw).code == 0
    assert driver.propose() == [raw]
    assert driver.next_block([raw]).results[0].code == 0


@pytest.mark.parametrize("gas", [2**63 - 1, 2**63, 2**64 - 1])
def test_gas_limits_end_at_63_bits(gas: int) -> None:
    raw = PAYER.build(gas=gas, fee=(Coin("wei", gas * 10**9),))
    result = chain().next_block([raw], process=False).results[0]
    assert (result.codespace, result.code) == (("sdk", 5) if gas < 2**63 else ("sdk", 18)), result.log


def test_the_timeout_height_is_the_last_block_that_may_hold_a_transaction() -> None:
    for ahead, code in ((0, 30), (1, 0)):
        driver = chain(blocks=3)
        raw = PAYER.build(body={"timeout_height": driver.height + ahead})
        assert driver.check_tx(raw).code == code
        assert driver.next_block([raw]).results[0].code == code


def test_the_memo_is_limited_in_bytes() -> None:
    for memo, code in (("x" * 256, 0), ("é" * 128, 0), ("é" * 128 + "x", 12)):
        assert chain().check_tx(PAYER.build(body={"memo": memo})).code == code


def test_a_block_takes_one_senders_transactions_in_the_order_of_their_sequences_alone() -> None:
    txs = [send(2, 3, sequence=at) for at in range(3)]
    assert [one.code for one in chain().next_block(txs).results] == [0, 0, 0]
    assert [one.code for one in chain().next_block([txs[1], txs[0], txs[1], txs[1]]).results] == [32, 0, 0, 32]


def test_a_simulation_of_unsigned_and_unfunded_messages_asks_for_no_fee() -> None:
    driver = chain()
    message = message_class("cosmos.bank.v1beta1.MsgSend")(
        from_address=text(KEYS[2]), to_address=text(KEYS[3]), amount=to_messages((Coin("wei", 1),))
    )
    for fee, gas in (((), 0), ((Coin("wei", 0),), 0), (FEE, GAS)):
        raw = build_tx([message], fee=fee, gas_limit=gas, signers=[Signer(KEYS[2].public_key, 0)]).for_simulation()
        assert driver.query("/app/simulate", raw).code == 0
    assert driver.apps[0].store.app_hash == driver.app_hash  # type: ignore[attr-defined]


def test_no_change_of_one_byte_of_a_good_transaction_passes_or_raises_anything_but_a_named_error() -> None:
    raw = PAYER.build()
    driver = chain()
    for at in range(0, len(raw)):
        mutant = raw[:at] + bytes([raw[at] ^ (1 << at % 8)]) + raw[at + 1 :]
        with contextlib.suppress(AppError):
            decode_tx(mutant)
        assert driver.check_tx(mutant).code not in (0, 111222), at
    assert driver.check_tx(raw).code == 0
