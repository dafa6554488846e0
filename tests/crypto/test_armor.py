"""Armored keys: what the SDK wrote is read, what is written comes back, what is damaged is named."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from chain.crypto import armor
from chain.crypto.armor import ArmorError
from chain.crypto.keys import EthSecp256k1PublicKey, MultisigPublicKey, PrivateKey
from chain.errors import WrongPassword

LEGACY: dict[str, Any] = json.loads((Path(__file__).parents[1] / "vectors" / "keyring_legacy.json").read_text())
KEY = PrivateKey(b"\x07" * 32, "eth_secp256k1")
# Written by simd v8.7.0 (`keys export`) under "password1"; the hexadecimal is what its `--unarmored-hex` printed.
SIMD_ARMOR = """-----BEGIN TENDERMINT PRIVATE KEY-----
kdf: argon2
salt: B03778A7D82D543B4F821EDCE4FDA326
type: secp256k1

7Gfj8OjWcGVy8R6n1eYZLlUU5R52jRGAeGIYScXDii1nKHZz3XgoMimheuM8QpRP
ZIWBDEY=
=mtpQ
-----END TENDERMINT PRIVATE KEY-----
"""
SIMD_KEY = "a8f1be22a908cf58225ffc5cdf13f97ade1754abfd12f838e8698be005d483e8"


def test_what_simd_exported_decrypts_to_its_key() -> None:
    assert armor.decrypt_private_key(SIMD_ARMOR, "password1") == PrivateKey(bytes.fromhex(SIMD_KEY), "secp256k1")


def test_the_older_bcrypt_form_is_read() -> None:
    key = armor.decrypt_private_key(LEGACY["bcrypt_armor"], LEGACY["bcrypt_armor_passphrase"])
    assert key == PrivateKey(base64.b64decode(LEGACY["private_key"]), "secp256k1")
    with pytest.raises(WrongPassword):
        armor.decrypt_private_key(LEGACY["bcrypt_armor"], "another passphrase")


def test_the_block_is_the_one_the_sdk_writes() -> None:
    block = armor.Armor("TENDERMINT PUBLIC KEY", {"version": "0.0.1", "type": "secp256k1"}, b"any bytes")
    # Go writes headers in no fixed order, so lines are compared as a bag.
    assert sorted(armor.encode(block).splitlines()) == sorted(LEGACY["public_armor"].splitlines())
    assert armor.decode(LEGACY["public_armor"]) == block


@pytest.mark.parametrize("algorithm", ["secp256k1", "eth_secp256k1"])
def test_a_private_key_comes_back_with_its_passphrase_alone(algorithm: str) -> None:
    key = PrivateKey(b"\x07" * 32, algorithm)
    text = armor.encrypt_private_key(key, "long passphrase")
    assert armor.decrypt_private_key(f"some words before\n{text}\nand after\n", "long passphrase") == key
    with pytest.raises(WrongPassword) as caught:
        armor.decrypt_private_key(text, "long passphrasE")
    assert (caught.value.codespace, caught.value.code) == ("sdk", 23)
    assert text != armor.encrypt_private_key(key, "long passphrase")


def test_a_public_key_comes_back() -> None:
    eth = KEY.public_key
    assert isinstance(eth, EthSecp256k1PublicKey)
    for key in (eth, MultisigPublicKey(1, (eth,))):
        assert armor.unarmor_public_key(armor.armor_public_key(key)) == key


def changed(old: str, new: str) -> str:
    assert old in SIMD_ARMOR
    return SIMD_ARMOR.replace(old, new)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no armored key"),
        ("hello", "no armored key"),
        ("-----BEGIN TENDERMINT PRIVATE KEY-----\n", "cut off"),
        (changed("-----END TENDERMINT PRIVATE KEY-----", ""), "cut off"),
        (SIMD_ARMOR.replace("PRIVATE KEY", "KEY INFO"), "unrecognized armor type"),
        (changed("argon2", "md5"), "unrecognized KDF type"),
        (changed("kdf: argon2\n", ""), "unrecognized KDF type"),
        (changed("salt: B0", "salt: ZZ"), "not hexadecimal"),
        (changed("salt: B0", "salt: "), "16 bytes, got 15"),
        (changed("salt: B", "salt B"), "name: value"),
        (changed("=mtpQ", "=mtpR"), "checksum"),
        (changed("7Gfj", "7Gfi"), "checksum"),
        (changed("7Gfj", "7G*j"), "not base64"),
        ("x" * 100_000, "at most 65536 characters"),
    ],
)
def test_damaged_armor_is_refused_with_the_reason(text: str, said: str) -> None:
    with pytest.raises(ArmorError, match=said):
        armor.decrypt_private_key(text, "password1")


def test_changed_contents_with_a_fitting_checksum_do_not_decrypt() -> None:
    block = armor.decode(SIMD_ARMOR)
    for data in (bytes([block.data[0] ^ 1]) + block.data[1:], block.data[:-1], b""):
        with pytest.raises(WrongPassword):
            armor.decrypt_private_key(armor.encode(armor.Armor(block.block_type, block.headers, data)), "password1")


def test_an_unknown_kind_of_private_key_is_named() -> None:
    from chain.crypto.amino import AminoError, private_key_from_bytes

    for raw, said in (
        (bytes.fromhex("a3288910") + bytes(65), "unknown type"),
        (bytes.fromhex("e1b0f79b20") + bytes(31), "32 bytes"),
        (b"", "unknown"),
    ):
        with pytest.raises(AminoError, match=said):
            private_key_from_bytes(raw)
