"""Proto JSON, times and decimals: the SDK's forms, both ways, and what is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.codec.canonical import encode
from chain.codec.json import duration_text, from_json, loads, to_json
from chain.codec.registry import message_class, pack_any
from chain.codec.times import parse_rfc3339, rfc3339
from chain.dec import Dec, DecError, dec_text, parse_dec
from chain.errors import JSONUnmarshalError

Send = message_class("cosmos.bank.v1beta1.MsgSend")
Staking = message_class("cosmos.staking.v1beta1.Params")


@given(st.text(max_size=20), st.integers(0, 2**64 - 1), st.binary(max_size=40), st.booleans())
def test_a_message_survives_the_way_to_json_and_back(text: str, number: int, raw: bytes, flag: bool) -> None:
    tx = message_class("cosmos.tx.v1beta1.Tx")(signatures=[raw, b""])
    tx.body.memo, tx.body.timeout_height = text, number
    tx.body.messages.append(pack_any(Send(from_address=text, amount=[{"denom": "wei", "amount": str(number)}])))
    if flag:
        tx.auth_info.fee.gas_limit = number
    assert encode(from_json(type(tx), to_json(tx))) == encode(tx)


def test_forms_are_the_sdks() -> None:
    params = Staking(max_validators=100, bond_denom="wei", min_commission_rate="50000000000000000")
    params.unbonding_time.seconds = 1814400
    assert to_json(params) == {
        "unbonding_time": "1814400s",
        "max_validators": 100,
        "max_entries": 0,
        "historical_entries": 0,
        "bond_denom": "wei",
        "min_commission_rate": "0.050000000000000000",
    }
    assert to_json(message_class("cosmos.auth.v1beta1.BaseAccount")(account_number=7))["account_number"] == "7"
    assert to_json(message_class("cosmos.auth.v1beta1.BaseAccount")())["pub_key"] is None


def test_bytes_that_are_not_there_are_null_as_the_sdk_shows_them() -> None:
    assert to_json(message_class("cosmos.base.query.v1beta1.PageResponse")(total=1)) == {"next_key": None, "total": "1"}
    assert to_json(message_class("cosmos.tx.v1beta1.TxRaw")(signatures=[b""])) == {"body_bytes": None, "auth_info_bytes": None, "signatures": [""]}
    genesis = message_class("cosmos.staking.v1beta1.GenesisState")(last_total_power=b"12")
    assert to_json(genesis)["last_total_power"] == "12"
    assert from_json(type(genesis), to_json(genesis)).last_total_power == b"12"


REFUSED: list[tuple[Any, str]] = [
    ({"nothing": 1}, "has no such field"),
    ({"from_address": 5}, "expected text"),
    ({"amount": {}}, "expected a list"),
    ({"amount": [{"denom": "wei", "amount": 5}]}, r"amount\[0\]\.amount: expected text"),
    ([], "expected an object"),
]


@pytest.mark.parametrize(("value", "told"), REFUSED)
def test_what_does_not_fit_is_refused_with_its_path(value: Any, told: str) -> None:
    with pytest.raises(JSONUnmarshalError, match=told):
        from_json(Send, value)


@pytest.mark.parametrize("text", ['{"a":1,"a":2}', "NaN", "{", "[" * 100_000, "", "\xff", '{"\\ud800":1}', '["\\udfff"]'])
def test_bad_json_is_refused(text: str) -> None:
    with pytest.raises(JSONUnmarshalError):
        loads(text)


@given(st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31)))
def test_times_are_those_of_the_calendar(moment: datetime) -> None:
    seconds = (moment.replace(tzinfo=UTC, microsecond=0) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1)
    assert rfc3339(seconds) == moment.strftime("%Y-%m-%dT%H:%M:%SZ").rjust(20, "0")
    assert parse_rfc3339(rfc3339(seconds, moment.microsecond * 1000)) == (seconds, moment.microsecond * 1000)


@pytest.mark.parametrize("text", ["2024-02-30T00:00:00Z", "2024-01-01", "2024-01-01T25:00:00Z", "2024-01-01T00:00:00", "x"])
def test_times_that_do_not_exist_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_rfc3339(text)


def test_durations_have_three_six_or_nine_digits() -> None:
    assert [duration_text(1, nanos) for nanos in (0, 500_000_000, 1_000, 1)] == ["1s", "1.500s", "1.000001s", "1.000000001s"]


def test_the_reference_roundings() -> None:
    assert str(Dec(2 * 10**18).quo(Dec(3 * 10**18))) == "0.666666666666666667"
    assert str(parse_dec("0.000000000000000001").mul(parse_dec("0.5"))) == "0.000000000000000000"
    assert str(parse_dec("0.000000000000000003").mul(parse_dec("0.5"))) == "0.000000000000000002"


@given(st.integers(-(10**30), 10**30), st.integers(-(10**30), 10**30))
def test_products_round_half_to_even(left: int, right: int) -> None:
    with localcontext() as context:
        context.prec = 200
        exact = Decimal(left).scaleb(-18) * Decimal(right).scaleb(-18)
        assert Dec(left).mul(Dec(right)).scaled == int(exact.quantize(Decimal(1).scaleb(-18), ROUND_HALF_EVEN).scaleb(18))


@pytest.mark.parametrize("text", ["", ".5", "1.", "1e5", "1.1234567890123456789", "٣", "1" * 200])
def test_texts_that_are_no_decimals_are_refused(text: str) -> None:
    with pytest.raises(DecError):
        parse_dec(text)


def test_a_decimal_is_scaled_on_the_wire() -> None:
    assert dec_text("1500000000000000000") == "1.500000000000000000"
    assert dec_text("") == "0.000000000000000000"
