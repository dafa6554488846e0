"""Keys of nodes: from words, from hex, at random; their texts; and which signatures are taken."""

import contextlib
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nacl import bindings

from chain.crypto import address
from chain.crypto.hd import DerivationError
from chain.crypto.keys import Ed25519PublicKey
from sds_node import p2p
from sds_node.p2p import NodeLocation, P2PError, P2PKey

CALM = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""How fast the machine is decides nothing."""
VECTOR: Any = json.loads((Path(__file__).parents[2] / "vectors" / "sds.json").read_text())["p2p"]
KEY = P2PKey(bytes.fromhex(VECTOR["seed"]))
GROUP_ORDER = 2**252 + 27742317777372353535851937790883648493
SMALL_ORDER = [
    bytes(32),
    b"\x01" + bytes(31),
    b"\xec" + b"\xff" * 30 + b"\x7f",
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
    bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
]


def test_the_key_of_a_wallets_words_is_the_originals() -> None:
    key = p2p.from_mnemonic(VECTOR["mnemonic"])
    assert VECTOR["path"] == p2p.DEFAULT_PATH
    assert key.seed.hex() == VECTOR["seed"] == hashlib.sha256(bytes.fromhex(VECTOR["secret"])).hexdigest()
    assert key.public_key.hex() == VECTOR["public_key"]
    assert p2p.format_address(key.address) == VECTOR["address"] == "stsds1rlv49e3twjfwmsgrm8h47et9yueu0hmmrzma5g"
    assert p2p.format_public_key(key.public_key) == VECTOR["public_key_text"]
    assert p2p.from_secret(bytes.fromhex(VECTOR["secret"])) == key


def test_another_path_or_passphrase_is_another_key() -> None:
    keys = {p2p.from_mnemonic(VECTOR["mnemonic"], *rest).seed for rest in ((), ("m/44'/606'/0/1",), (p2p.DEFAULT_PATH, "x"))}
    assert len(keys) == 3


def test_wrong_words_are_refused() -> None:
    with pytest.raises(DerivationError, match="invalid mnemonic"):
        p2p.from_mnemonic("abandon " * 12)


@CALM
@given(st.binary(min_size=32, max_size=32), st.binary(max_size=100))
def test_keys_and_signatures_are_those_of_another_library(seed: bytes, message: bytes) -> None:
    other = Ed25519PrivateKey.from_private_bytes(seed)
    key = P2PKey(seed)
    assert key.public_key == other.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    signature = key.sign(message)
    assert signature == other.sign(message)
    assert p2p.verify(key.public_key, message, signature)
    assert not p2p.verify(key.public_key, message + b"x", signature)
    assert not p2p.verify(P2PKey(hashlib.sha256(seed).digest()).public_key, message, signature)


def test_hex_is_read_as_seed_and_as_seed_with_public_key() -> None:
    assert p2p.from_hex(KEY.seed.hex()) == p2p.from_hex(KEY.expanded.hex().upper()) == KEY


@pytest.mark.parametrize("text", ["", "00", "0" * 63, "0" * 65, "0x" + "0" * 64, "g" * 64, "0 " * 32, "٣" * 64])
def test_what_is_no_key_in_hex_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(P2PError, match="64 digits") as caught:
        p2p.from_hex(text)
    assert not text or text not in str(caught.value)


def test_halves_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(P2PError, match="not the public key of the first"):
        p2p.from_bytes(KEY.seed + bytes(32))
    with pytest.raises(P2PError, match="got 33"):
        p2p.from_bytes(bytes(33))
    for make in (P2PKey, p2p.from_secret):
        with pytest.raises(P2PError, match="32 bytes, got 31"):
            make(bytes(31))


def test_random_keys_differ_and_no_key_shows_itself() -> None:
    assert p2p.new_key() != p2p.new_key()
    assert repr(KEY) == "P2PKey()"


@CALM
@given(st.binary(min_size=20, max_size=20), st.binary(min_size=32, max_size=32))
def test_texts_are_read_as_they_were_written(node: bytes, seed: bytes) -> None:
    assert p2p.parse_address(p2p.format_address(node)) == node
    assert len(p2p.format_address(node)) == p2p.ADDRESS_CHARACTERS
    public_key = P2PKey(seed).public_key
    assert p2p.parse_public_key(p2p.format_public_key(public_key)) == public_key


LOCATIONS = st.builds(
    NodeLocation,
    st.binary(min_size=20, max_size=20),
    st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6).filter(lambda ip: ip.ipv4_mapped is None)).map(str),
    st.integers(1, 65_535),
)


@CALM
@given(LOCATIONS)
def test_a_node_is_read_as_it_was_written(location: NodeLocation) -> None:
    assert p2p.parse_snode(p2p.format_snode(location)) == location


def test_a_node_is_written_as_the_original_writes_it() -> None:
    assert p2p.format_snode(NodeLocation(KEY.address, "127.0.0.1", 18081)) == f"snode:{VECTOR['address']}@127.0.0.1:18081"
    assert p2p.format_snode(NodeLocation(KEY.address, "::1", 1)) == f"snode:{VECTOR['address']}@[::1]:1"


@pytest.mark.parametrize(
    "rest",
    [
        "@127.0.0.1",
        "@127.0.0.1:0",
        "@127.0.0.1:65536",
        "@127.0.0.1:018081",
        "@127.0.0.1:١",
        "@127.0.0.256:1",
        "@127.000.0.1:1",
        "@::1:1",
        "@[::0001]:1",
        "@[::ffff:1.2.3.4]:1",
        "@[::ffff:102:304]:1",
        "@[fe80::1%eth0]:1",
        "@localhost:1",
        "@127.0.0.1:1\n",
        "@127.0.0.1:1@127.0.0.1:1",
        "127.0.0.1:1",
    ],
)
def test_a_node_in_another_form_is_refused(rest: str) -> None:
    with pytest.raises(P2PError):
        p2p.parse_snode(f"snode:{VECTOR['address']}{rest}")


def test_another_prefix_a_wrong_checksum_and_capitals_are_refused() -> None:
    good = VECTOR["address"]
    for text in (
        "",
        good[:-1] + "q",
        good.upper(),
        address.encode(KEY.address),
        address.encode(KEY.address, "stsdx"),
        address.encode(bytes(21), "stsds"),
    ):
        with pytest.raises(P2PError):
            p2p.parse_address(text)
        with pytest.raises(P2PError):
            p2p.parse_snode(f"snode:{text}@127.0.0.1:1")


@CALM
@given(st.text(max_size=120))
def test_no_text_raises_anything_but_a_p2p_error(text: str) -> None:
    for parse in (p2p.parse_address, p2p.parse_public_key, p2p.parse_snode, p2p.from_hex):
        for one in (text, VECTOR["address"] + text, "snode:" + VECTOR["address"] + text):
            with contextlib.suppress(P2PError):
                parse(one)


@CALM
@given(st.binary(max_size=40), st.binary(max_size=10), st.binary(max_size=70))
def test_hostile_bytes_verify_nothing_and_raise_nothing(public_key: bytes, message: bytes, signature: bytes) -> None:
    assert not p2p.verify(public_key, message, signature)
    assert not p2p.verify(KEY.public_key, message, signature)


@pytest.mark.parametrize("public_key", SMALL_ORDER, ids=bytes.hex)
def test_a_key_of_small_order_signs_nothing_though_zip_215_would_take_it(public_key: bytes) -> None:
    # R = the identity, S = 0: with the cofactor this holds for every message under such a key.
    for signature in (b"\x01" + bytes(63), public_key + bytes(32)):
        assert not p2p.verify(public_key, b"any message", signature)
    with pytest.raises(P2PError, match="prime group"):
        p2p.parse_public_key(p2p.format_public_key(public_key))


def test_a_key_with_a_part_of_small_order_signs_nothing_though_its_equation_holds() -> None:
    """Public key A + T with T of order 8: where the challenge is a multiple of 8, T falls out of S·B = R + k·(A + T)."""
    digest = hashlib.sha512(KEY.seed).digest()
    secret = bindings.crypto_core_ed25519_scalar_reduce(bytes([digest[0] & 248]) + digest[1:31] + bytes([digest[31] & 127 | 64]) + bytes(32))
    mixed = bindings.crypto_core_ed25519_add(KEY.public_key, SMALL_ORDER[3])
    nonce = bindings.crypto_core_ed25519_scalar_reduce(hashlib.sha512(b"nonce").digest())
    point = bindings.crypto_scalarmult_ed25519_base_noclamp(nonce)

    def challenge(message: bytes) -> bytes:
        return bytes(bindings.crypto_core_ed25519_scalar_reduce(hashlib.sha512(point + mixed + message).digest()))

    message = next(message for message in (bytes([number]) for number in range(256)) if challenge(message)[0] % 8 == 0)
    answer = bindings.crypto_core_ed25519_scalar_add(nonce, bindings.crypto_core_ed25519_scalar_mul(challenge(message), secret))
    assert Ed25519PublicKey(mixed).verify(message, point + answer)
    assert not p2p.verify(mixed, message, point + answer)


def test_a_signature_has_one_form() -> None:
    signature = KEY.sign(b"message")
    larger = int.from_bytes(signature[32:], "little") + GROUP_ORDER
    assert not p2p.verify(KEY.public_key, b"message", signature[:32] + larger.to_bytes(32, "little"))
    assert not p2p.verify(KEY.public_key, b"message", signature + b"\x00")
    assert p2p.verify(KEY.public_key, b"message", signature)
