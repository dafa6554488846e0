"""Addresses as text: the chain's vectors, the reference implementation as oracle, and every kind of bad input."""

import base64
import json
from pathlib import Path
from typing import Any

import bech32 as oracle
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.crypto import address
from chain.crypto.keys import Ed25519PublicKey
from chain.errors import InvalidAddress

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[1] / "vectors" / "keys.json").read_text())
PREFIXES = [
    address.ACCOUNT,
    address.ACCOUNT_PUB,
    address.VALIDATOR,
    address.VALIDATOR_PUB,
    address.CONSENSUS,
    address.CONSENSUS_PUB,
    address.NODE,
    address.NODE_PUB,
]


@pytest.mark.parametrize("account", VECTORS["module_accounts"], ids=lambda account: account["name"])
def test_a_module_account_has_the_address_of_its_name(account: dict[str, str]) -> None:
    assert address.encode(address.module_address(account["name"])) == account["address"]


def test_a_network_key_and_its_address_have_the_prefixes_of_storage_nodes() -> None:
    vector = VECTORS["network_key"]
    key = Ed25519PublicKey(base64.b64decode(vector["ed25519_public_key"]))
    assert address.encode(key.raw, address.NODE_PUB) == vector["bech32_public_key"]
    assert address.encode(key.address, address.NODE) == vector["bech32_address"]
    assert address.decode(vector["bech32_public_key"], address.NODE_PUB) == key.raw
    assert address.encode(address.decode(VECTORS["network_address"], address.NODE), address.NODE) == VECTORS["network_address"]


@given(raw=st.binary(min_size=1, max_size=255), prefix=st.sampled_from(PREFIXES))
def test_encoding_equals_the_reference_implementation_and_decodes_back(raw: bytes, prefix: str) -> None:
    text = address.encode(raw, prefix)
    assert text == oracle.bech32_encode(prefix, oracle.convertbits(raw, 8, 5))
    assert address.decode(text, prefix) == raw
    assert address.decode(text.upper(), prefix) == raw


@given(raw=st.binary(min_size=20, max_size=20), prefix=st.sampled_from(PREFIXES))
def test_an_address_of_twenty_bytes_takes_the_short_way_to_the_same_text(raw: bytes, prefix: str) -> None:
    text = address.encode(raw, prefix)
    assert text == oracle.bech32_encode(prefix, oracle.convertbits(raw, 8, 5))
    assert address.decode(text, prefix) == raw
    for at, character in enumerate(text):
        changed = text[:at] + ("q" if character != "q" else "p") + text[at + 1 :]
        with pytest.raises(InvalidAddress):
            address.decode(changed, prefix)


@given(raw=st.binary(min_size=20, max_size=32), at=st.integers(min_value=0), other=st.sampled_from("qpzry9x8gf2tvdw0s3jn54khce6mua7l"))
def test_an_address_with_one_changed_character_is_refused(raw: bytes, at: int, other: str) -> None:
    text = address.encode(raw)
    at = 3 + at % (len(text) - 3)
    changed = text[:at] + other + text[at + 1 :]
    if changed != text:
        with pytest.raises(InvalidAddress):
            address.decode(changed)


@given(text=st.text(max_size=120))
def test_any_text_decodes_as_the_reference_implementation_says(text: str) -> None:
    prefix, values = oracle.bech32_decode(text)
    raw = None if values is None else oracle.convertbits(values, 5, 8, False)
    if prefix is None or raw is None:
        with pytest.raises(InvalidAddress):
            address.decode_any(text)
    else:
        assert address.decode_any(text) == (prefix, bytes(raw))


def with_extra_character(value: int) -> str:
    return str(oracle.bech32_encode("st", [*oracle.convertbits(bytes(20), 8, 5), value]))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty address string is not allowed"),
        ("   ", "empty address string is not allowed"),
        ("cosmos1jv65s3grqf6v6jl3dp4t6c9t9rk99cd88lyufl", "expected st, got cosmos"),
        ("stvaloper1jv65s3grqf6v6jl3dp4t6c9t9rk99cd88xw3s3", "checksum"),
        ("st1jv65s3grqf6v6jl3dp4t6c9t9rk99cd8mjswgx", "checksum"),
        ("st1Jv65s3grqf6v6jl3dp4t6c9t9rk99cd8mjswgz", "mixes upper and lower case"),
        ("st1jv65s3grqf6v6jl3dp4t6c9t9rk99cd8mjswgb", "invalid character 'b'"),
        ("jv65s3grqf6v6jl3dp4t6c9t9rk99cd8mjswgz", "prefix"),
        ("st", "no prefix, separator and checksum"),
        ("1jv65s3", "no prefix, separator and checksum"),
        ("st1é", "outside ASCII"),
        ("st1" + "q" * 2000, "too long"),
        (with_extra_character(1), "wrong padding"),
        (with_extra_character(0), "wrong padding"),
        (str(oracle.bech32_encode("st", [])), "1 to 255 bytes, got 0"),
        (str(oracle.bech32_encode("st", oracle.convertbits(bytes(256), 8, 5))), "1 to 255 bytes, got 256"),
    ],
)
def test_a_bad_address_is_refused_with_sdk_code_7_and_the_reason(text: str, said: str) -> None:
    with pytest.raises(InvalidAddress) as caught:
        address.decode(text)
    assert said in str(caught.value)
    assert (caught.value.codespace, caught.value.code) == ("sdk", 7)


def test_the_error_about_a_very_long_text_is_short() -> None:
    with pytest.raises(InvalidAddress) as caught:
        address.decode("st1" + "q" * 1_000_000)
    assert len(str(caught.value)) < 300
