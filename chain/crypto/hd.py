"""From a mnemonic to a key: BIP-39 seed, BIP-32 derivation over secp256k1."""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

from coincurve import PrivateKey as _CurveKey
from mnemonic import Mnemonic

from chain.crypto.keys import PrivateKey

COIN_TYPE: Final = 606
DEFAULT_PATH: Final = f"m/44'/{COIN_TYPE}'/0'/0/0"
MAX_PATH_LEVELS: Final = 10
_HARDENED: Final = 1 << 31
_ORDER: Final = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141


class DerivationError(Exception):
    """A mnemonic or a derivation path that cannot be used; the message says what was expected."""


def new_mnemonic(words: int = 24) -> str:
    """A fresh English mnemonic of 12 or 24 words."""
    return str(Mnemonic("english").generate({12: 128, 24: 256}[words]))


def parse_path(path: str) -> list[int]:
    """``m/44'/606'/0'/0/0`` as child numbers. Raises DerivationError."""
    levels = path.split("/")
    if levels and levels[0] == "m":
        levels = levels[1:]
    if not 1 <= len(levels) <= MAX_PATH_LEVELS:
        raise DerivationError(f"a derivation path has 1 to {MAX_PATH_LEVELS} levels, as {DEFAULT_PATH}, got {path[:80]!r}")
    numbers = []
    for level in levels:
        digits = level[:-1] if level.endswith("'") else level
        if not digits.isascii() or not digits.isdigit() or len(digits) > 10 or int(digits) >= _HARDENED:
            raise DerivationError(f"each level of a derivation path is a number below 2147483648, hardened by ', got {level[:20]!r} in {path[:80]!r}")
        numbers.append(int(digits) | (_HARDENED if level.endswith("'") else 0))
    return numbers


def derive(mnemonic: str, path: str = DEFAULT_PATH, algorithm: str = "eth_secp256k1", passphrase: str = "") -> PrivateKey:
    """The key at ``path``. Raises DerivationError for a mnemonic whose words or checksum are wrong."""
    words = " ".join(mnemonic.split())
    if not Mnemonic("english").check(words):
        raise DerivationError("invalid mnemonic: expected 12 to 24 English BIP-39 words with a valid checksum; is a word mistyped or missing?")
    return derive_from_seed(Mnemonic.to_seed(words, passphrase), path, algorithm)


def derive_from_seed(seed: bytes, path: str, algorithm: str = "eth_secp256k1") -> PrivateKey:
    """The key at ``path`` below a BIP-32 seed. Raises DerivationError."""
    digest = hmac.digest(b"Bitcoin seed", seed, "sha512")
    key, chain_code = digest[:32], digest[32:]
    for number in parse_path(path):
        head = b"\x00" + key if number & _HARDENED else _CurveKey(key).public_key.format()
        digest = hmac.new(chain_code, head + number.to_bytes(4, "big"), hashlib.sha512).digest()
        key = ((int.from_bytes(digest[:32], "big") + int.from_bytes(key, "big")) % _ORDER).to_bytes(32, "big")
        chain_code = digest[32:]
    return PrivateKey(key, algorithm)
