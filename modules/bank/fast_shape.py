"""Reads the one shape of bytes that wallets give a plain send, without protobuf; any other bytes are left to the plain decoder.

What the pattern finds is put together again by a template for parts of these sizes and must give the same bytes: so nothing is hidden
between the parts, every length is right, and every number has its shortest form.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, NamedTuple, TypeAlias

from chain.codec.varint import uvarint
from chain.crypto.keys import EthSecp256k1PublicKey, Secp256k1PublicKey

PlainKey: TypeAlias = Secp256k1PublicKey | EthSecp256k1PublicKey
PLAIN_KEYS: Final = (Secp256k1PublicKey, EthSecp256k1PublicKey)
KEY_TYPES: Final[dict[str, type[PlainKey]]] = {one.type_url: one for one in PLAIN_KEYS}
_DENOM: Final = rb"([a-zA-Z][a-zA-Z0-9/:._-]{2,126})"
_AMOUNT: Final = rb"([1-9][0-9]{0,76})"
_NUMBER: Final = rb"([\x80-\xff]{0,9}[\x00-\x7f])"
_SIZE: Final = rb"(?:[\x80-\xff].|[\x00-\x7f])"
_SHAPE: Final = re.compile(
    (
        rb"\x0a#\x0a#\x0a\x1c/cosmos\.bank\.v1beta1\.MsgSend\x12#\x0a\x29(st1[0-9a-z]{38})\x12\x29(st1[0-9a-z]{38})\x1a#\x0a#DENOM\x12#AMOUNT"
        rb"\x12#\x0a#\x0a#\x0a#(/[a-zA-Z0-9./]{10,100})\x12\x23\x0a\x21(.{33})\x12\x04\x0a\x02\x08\x01(?:\x18NUMBER)?"
        rb"\x12#\x0a#\x0a#(wei)\x12#AMOUNT\x10NUMBER\x1a#(.{64,65})"
    )
    .replace(b"#", _SIZE)
    .replace(b"DENOM", _DENOM)
    .replace(b"AMOUNT", _AMOUNT)
    .replace(b"NUMBER", _NUMBER),
    re.DOTALL,
)


class Shape(NamedTuple):
    """What a plain send says. The first ``signed_size`` bytes are body and auth info, under the numbers that they have in the sign document, too."""

    sender: bytes
    recipient: bytes
    denom: bytes
    amount: bytes
    key_type: str
    key: bytes
    sequence: int
    fee: bytes
    gas_limit: int
    signature: bytes
    signed_size: int


def read_shape(raw: bytes) -> Shape | None:
    """The plain send in ``raw``, or None for everything else."""
    found = _SHAPE.fullmatch(raw)
    if found is None:
        return None
    sender, recipient, denom, amount, type_url, key, sequence_raw, _, fee, gas_raw, signature = found.groups(b"")
    key_type = _key_type(type_url)
    if key_type is None or (len(signature) == 65 and key_type != EthSecp256k1PublicKey.type_url):
        return None
    sequence, gas_limit = _number(sequence_raw) if sequence_raw else 0, _number(gas_raw)
    if gas_limit == 0 or (sequence_raw and sequence == 0):
        return None
    template, signed_size = _template(len(denom), len(amount), len(type_url), len(sequence_raw), len(fee), len(gas_raw), len(signature))
    if template % (sender, recipient, denom, amount, type_url, key, sequence_raw, fee, gas_raw, signature) != raw:
        return None
    return Shape(sender, recipient, denom, amount, key_type, key, sequence, fee, gas_limit, signature, signed_size)


@lru_cache(maxsize=64)
def _key_type(type_url: bytes) -> str | None:
    text = type_url.decode()
    return text if text in KEY_TYPES else None


@lru_cache(maxsize=4096)
def _number(raw: bytes) -> int:
    """The value of a varint; 0 also for one that is not in its shortest form."""
    value = 0
    for at, byte in enumerate(raw):
        value |= (byte & 0x7F) << 7 * at
    return value if uvarint(value) == raw else 0


_Part: TypeAlias = tuple[bytes, int]
"""(piece of a template, how many bytes it fills)."""


def _fixed(raw: bytes) -> _Part:
    return raw.replace(b"%", b"%%"), len(raw)


def _slot(size: int) -> _Part:
    return b"%b", size


def _field(tag: bytes, *parts: _Part) -> _Part:
    """A length-delimited field around ``parts``."""
    size = sum(part[1] for part in parts)
    head, head_size = _fixed(tag + uvarint(size))
    return head + b"".join(part[0] for part in parts), head_size + size


def _coin(denom: _Part, amount: int) -> tuple[_Part, _Part]:
    return _field(b"\x0a", denom), _field(b"\x12", _slot(amount))


@lru_cache(maxsize=4096)
def _template(denom: int, amount: int, type_url: int, sequence: int, fee: int, gas: int, signature: int) -> tuple[bytes, int]:
    """(the transaction with ``%b`` for its parts, where its auth info ends) for parts of these sizes."""
    message = _field(b"\x12", _fixed(b"\x0a\x29"), _slot(41), _fixed(b"\x12\x29"), _slot(41), _field(b"\x1a", *_coin(_slot(denom), amount)))
    body = _field(b"\x0a", _fixed(b"\x0a\x1c/cosmos.bank.v1beta1.MsgSend"), message)
    key = _field(b"\x0a", _field(b"\x0a", _slot(type_url)), _fixed(b"\x12\x23\x0a\x21"), _slot(33))
    signer = _field(b"\x0a", key, _fixed(b"\x12\x04\x0a\x02\x08\x01"), _fixed(b"\x18" if sequence else b""), _slot(sequence))
    paid = _field(b"\x12", _field(b"\x0a", *_coin(_fixed(b"wei"), fee)), _fixed(b"\x10"), _slot(gas))
    first, second, third = _field(b"\x0a", body), _field(b"\x12", signer, paid), _field(b"\x1a", _slot(signature))
    return first[0] + second[0] + third[0], first[1] + second[1]
