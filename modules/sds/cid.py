"""Content identifiers: whether a text is one (stratos-chain.md 3.2). The chain keeps the text, so nothing but its form matters here.

Version 0 is base58btc of a SHA-256 multihash, 46 characters from ``Qm`` on. Version 1 is a character for the base, then, in that base: version,
codec, hash function and digest length as varints, and the digest. Stratos' own are version 1, codec 0x66, a 20-byte keccak-256 in base32hex.
"""

from __future__ import annotations

from typing import Final

from modules.sds.errors import EmptyFileHash, InvalidFileHash

MAX_TEXT: Final = 128
"""Characters: 64 bytes of digest in base32 have 115."""
MAX_DIGEST: Final = 64
_BASE58: Final = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_BASE32: Final = "abcdefghijklmnopqrstuvwxyz234567"
_BASE32_HEX: Final = "0123456789abcdefghijklmnopqrstuv"
_ALPHABETS: Final = {"b": _BASE32, "B": _BASE32.upper(), "v": _BASE32_HEX, "V": _BASE32_HEX.upper()}
_V0_TEXT: Final = 46
_V0_HEAD: Final = b"\x12\x20"
_V0_BYTES: Final = 34
_MAX_VARINT_BYTES: Final = 9


def check_cid(text: str) -> None:
    """Raise EmptyFileHash (sds/6) for no text, InvalidFileHash (sds/7) unless ``text`` is a CID of version 0 or 1 in base32, base32hex or base58btc."""
    if not text:
        raise EmptyFileHash("expected a CID")
    if len(text) > MAX_TEXT or not text.isascii():
        raise InvalidFileHash(f"expected a CID of at most {MAX_TEXT} ASCII characters, got {len(text)} characters")
    if len(text) == _V0_TEXT and text.startswith("Qm"):
        raw = _base58(text)
        if len(raw) != _V0_BYTES or not raw.startswith(_V0_HEAD):
            raise InvalidFileHash(f"expected a SHA-256 multihash, got {text!r}")
        return
    if text[0] in _ALPHABETS:
        raw = _base32(text[1:], _ALPHABETS[text[0]])
    elif text[0] == "z":
        raw = _base58(text[1:])
    else:
        raise InvalidFileHash(f"expected Qm… or a CID in base b, B, v, V or z, got {text!r}")
    version, raw = _varint(raw)
    if version != 1:
        raise InvalidFileHash(f"expected a CID of version 1, got {version} in {text!r}")
    for _ in ("codec", "hash function"):
        _, raw = _varint(raw)
    size, digest = _varint(raw)
    if size != len(digest) or size > MAX_DIGEST:
        raise InvalidFileHash(f"expected a digest of {size} bytes, at most {MAX_DIGEST}, got {len(digest)} in {text!r}")


def _base32(text: str, alphabet: str) -> bytes:
    """Bytes of base32 without padding; bits that fill up the last character are zero, as encoders write them."""
    values = dict(zip(alphabet, range(32), strict=True))
    number = 0
    for character in text:
        if character not in values:
            raise InvalidFileHash(f"{character!r} is not of the CID's base")
        number = number << 5 | values[character]
    size, spare = divmod(len(text) * 5, 8)
    if spare >= 5 or number & ((1 << spare) - 1):
        raise InvalidFileHash("the CID's text has a wrong length or spare bits that are not zero")
    return (number >> spare).to_bytes(size, "big")


def _base58(text: str) -> bytes:
    """Bytes of base58btc; each leading ``1`` is a zero byte."""
    number = 0
    for character in text:
        value = _BASE58.find(character)
        if value < 0:
            raise InvalidFileHash(f"{character!r} is not of the CID's base")
        number = number * 58 + value
    zeros = len(text) - len(text.lstrip("1"))
    return bytes(zeros) + number.to_bytes((number.bit_length() + 7) // 8, "big")


def _varint(raw: bytes) -> tuple[int, bytes]:
    """(number, what follows) of an unsigned varint of at most 9 bytes in its shortest form."""
    value = 0
    for at, byte in enumerate(raw[:_MAX_VARINT_BYTES]):
        value |= (byte & 0x7F) << 7 * at
        if byte < 0x80:
            if byte == 0 and at:
                raise InvalidFileHash("a number in the CID is longer than it has to be")
            return value, raw[at + 1 :]
    raise InvalidFileHash("the CID ends within a number")
