"""Addresses as text: bech32 with the chain's prefixes (reference stratos-chain.md 1.3)."""

from __future__ import annotations

import functools
import hashlib
import re
from functools import lru_cache
from typing import Final

from chain.errors import InvalidAddress

ACCOUNT: Final = "st"
ACCOUNT_PUB: Final = "stpub"
VALIDATOR: Final = "stvaloper"
VALIDATOR_PUB: Final = "stvaloperpub"
CONSENSUS: Final = "stvalcons"
CONSENSUS_PUB: Final = "stvalconspub"
NODE: Final = "stsds"
NODE_PUB: Final = "stsdspub"

MAX_ADDRESS_BYTES: Final = 255
MAX_TEXT: Final = 1023

_CHARSET: Final = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_VALUES: Final = {character: value for value, character in enumerate(_CHARSET)}
_GENERATORS: Final = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_STEPS: Final = tuple(functools.reduce(int.__xor__, (generator for at, generator in enumerate(_GENERATORS) if top >> at & 1), 0) for top in range(32))

_COMMON_SIZE: Final = 20
_COMMON_TEXT: Final = 38
_PAIRS: Final = tuple(first + second for first in _CHARSET for second in _CHARSET)
_TO_BASE_32: Final = str.maketrans(_CHARSET, "0123456789abcdefghijklmnopqrstuv")
_IS_DATA: Final = re.compile(f"[{_CHARSET}]{{{_COMMON_TEXT}}}").fullmatch


@lru_cache(maxsize=65536)
def encode(address: bytes, prefix: str = ACCOUNT) -> str:
    """Bech32 text of an address of 1 to 255 bytes; the empty address is the empty text."""
    if not address:
        return ""
    if len(address) == _COMMON_SIZE:
        return _encode_common(address, prefix)
    data = _to_five_bits(address)
    polymod = _polymod([*_expand(prefix), *data, 0, 0, 0, 0, 0, 0]) ^ 1
    checksum = [(polymod >> 5 * (5 - at)) & 31 for at in range(6)]
    return prefix + "1" + "".join([_CHARSET[value] for value in data + checksum])


@lru_cache(maxsize=65536)
def decode(text: str, prefix: str = ACCOUNT) -> bytes:
    """The bytes of a bech32 address. Raises InvalidAddress (sdk/7) saying what is wrong with it."""
    common = _decode_common(text, prefix)
    if common is not None:
        return common
    if not text.strip(" "):
        raise InvalidAddress("empty address string is not allowed")
    found, raw = decode_any(text)
    if found != prefix:
        raise InvalidAddress(f"invalid Bech32 prefix; expected {prefix}, got {found}")
    if not 1 <= len(raw) <= MAX_ADDRESS_BYTES:
        raise InvalidAddress(f"an address has 1 to {MAX_ADDRESS_BYTES} bytes, got {len(raw)}")
    return raw


def decode_any(text: str) -> tuple[str, bytes]:
    """(prefix, bytes) of any bech32 text. Raises InvalidAddress."""
    shown = text if len(text) <= 100 else f"{text[:100]}…"
    if len(text) > MAX_TEXT or any(not 33 <= ord(character) <= 126 for character in text):
        raise InvalidAddress(f"decoding bech32 failed: {shown!r} is too long or holds characters outside ASCII")
    lower = text.lower()
    if text not in (lower, text.upper()):
        raise InvalidAddress(f"decoding bech32 failed: {shown!r} mixes upper and lower case")
    prefix, separator, data = lower.rpartition("1")
    if not separator or not prefix or len(data) < 6:
        raise InvalidAddress(f"decoding bech32 failed: {shown!r} has no prefix, separator and checksum")
    try:
        values = [_VALUES[character] for character in data]
    except KeyError as error:
        raise InvalidAddress(f"decoding bech32 failed: invalid character {error.args[0]!r} in {shown!r}") from None
    if _polymod([*_expand(prefix), *values]) != 1:
        raise InvalidAddress(f"decoding bech32 failed: the checksum of {shown!r} does not match: is a character mistyped?")
    return prefix, _to_bytes(values[:-6], shown)


def _encode_common(address: bytes, prefix: str) -> str:
    """``encode`` of 20 bytes, two characters at a time."""
    number = int.from_bytes(address, "big") << 30 | _checksum(address, prefix)
    return prefix + "1" + "".join([_PAIRS[number >> shift & 1023] for shift in range(180, -10, -10)])


def _decode_common(text: str, prefix: str) -> bytes | None:
    """The 20 bytes in a lower-case text with a right checksum; None for everything else, which the plain way judges."""
    if len(text) != len(prefix) + 1 + _COMMON_TEXT or not text.startswith(prefix + "1"):
        return None
    data = text[-_COMMON_TEXT:]
    if not _IS_DATA(data):
        return None
    number = int(data.translate(_TO_BASE_32), 32)
    address = (number >> 30).to_bytes(_COMMON_SIZE, "big")
    return address if _checksum(address, prefix) == number & 0x3FFFFFFF else None


def _checksum(address: bytes, prefix: str) -> int:
    """The six checksum characters of 20 bytes as a number of 30 bits. The code is linear: each byte adds what it alone would."""
    start, tables = _tables(prefix)
    for table, byte in zip(tables, address, strict=True):
        start ^= table[byte]
    return start


@lru_cache(maxsize=16)
def _tables(prefix: str) -> tuple[int, tuple[tuple[int, ...], ...]]:
    """(checksum of 20 zero bytes, by position and value what a byte changes in it)."""

    def checksum(address: bytes) -> int:
        return _polymod([*_expand(prefix), *_to_five_bits(address), 0, 0, 0, 0, 0, 0]) ^ 1

    zero = checksum(bytes(_COMMON_SIZE))
    places = [[zero ^ checksum(bytes(at) + bytes([1 << bit]) + bytes(_COMMON_SIZE - 1 - at)) for bit in range(8)] for at in range(_COMMON_SIZE)]
    tables = [
        tuple(functools.reduce(int.__xor__, (one for bit, one in enumerate(bits) if byte >> bit & 1), 0) for byte in range(256)) for bits in places
    ]
    return zero, tuple(tables)


def module_address(name: str) -> bytes:
    """The 20-byte address of a module account: the first 20 bytes of SHA-256 of its name."""
    return hashlib.sha256(name.encode("ascii")).digest()[:20]


def _expand(prefix: str) -> list[int]:
    return [*(ord(character) >> 5 for character in prefix), 0, *(ord(character) & 31 for character in prefix)]


def _polymod(values: list[int]) -> int:
    check = 1
    for value in values:
        top = check >> 25
        check = (check & 0x1FFFFFF) << 5 ^ value ^ _STEPS[top]
    return check


def _to_five_bits(raw: bytes) -> list[int]:
    bits = len(raw) * 8
    padding = -bits % 5
    number = int.from_bytes(raw, "big") << padding
    count = (bits + padding) // 5
    return [number >> 5 * (count - 1 - at) & 31 for at in range(count)]


def _to_bytes(values: list[int], shown: str) -> bytes:
    number = 0
    for value in values:
        number = number << 5 | value
    extra = len(values) * 5 % 8
    if extra >= 5 or number & ((1 << extra) - 1):
        raise InvalidAddress(f"decoding bech32 failed: {shown!r} has wrong padding")
    return (number >> extra).to_bytes(len(values) * 5 // 8, "big")
