"""Reads the one shape of bytes that wallets give a plain send, without protobuf; any other bytes are left to the plain decoder.

What the pattern finds is put together again and must give the same bytes: so nothing is hidden between the parts, every
length is right, and every number has its shortest form.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, TypeAlias

from chain.crypto.keys import EthSecp256k1PublicKey, Secp256k1PublicKey
from chain.tx.results import length_prefix

PlainKey: TypeAlias = Secp256k1PublicKey | EthSecp256k1PublicKey
KEY_TYPES: Final[dict[str, type[PlainKey]]] = {one.type_url: one for one in (Secp256k1PublicKey, EthSecp256k1PublicKey)}
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


@dataclass(slots=True)
class Shape:
    """What a plain send says. ``body`` and ``auth_info`` are the signed bytes."""

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
    body: bytes
    auth_info: bytes


def read_shape(raw: bytes) -> Shape | None:
    """The plain send in ``raw``, or None for everything else."""
    found = _SHAPE.fullmatch(raw)
    if found is None:
        return None
    sender, recipient, denom, amount, type_url, key, sequence_raw, fee_denom, fee, gas_raw, signature = found.groups()
    key_type = type_url.decode()
    if key_type not in KEY_TYPES:
        return None
    sequence, gas_limit = _number(sequence_raw) if sequence_raw else 0, _number(gas_raw)
    if gas_limit == 0 or (sequence_raw and sequence == 0):
        return None
    body = _body(sender, recipient, denom, amount)
    auth_info = _auth_info(type_url, key, sequence_raw, fee_denom, fee, gas_raw)
    # The two numbers are the only lengths or numbers that are repeated as they came.
    if len(signature) == 65 and key_type != EthSecp256k1PublicKey.type_url:
        return None
    if gas_raw != length_prefix(gas_limit) or (sequence_raw and sequence_raw != length_prefix(sequence)):
        return None
    rest = (b"\x12" + length_prefix(len(auth_info)), auth_info, b"\x1a" + length_prefix(len(signature)), signature)
    if b"".join((b"\x0a" + length_prefix(len(body)), body, *rest)) != raw:
        return None
    return Shape(sender, recipient, denom, amount, key_type, key, sequence, fee, gas_limit, signature, body, auth_info)


def _body(sender: bytes, recipient: bytes, denom: bytes, amount: bytes) -> bytes:
    coin = b"\x0a" + length_prefix(len(denom)) + denom + b"\x12" + length_prefix(len(amount)) + amount
    message = b"\x0a\x29" + sender + b"\x12\x29" + recipient + b"\x1a" + length_prefix(len(coin)) + coin
    wrapped = b"\x0a\x1c/cosmos.bank.v1beta1.MsgSend\x12" + length_prefix(len(message)) + message
    return b"\x0a" + length_prefix(len(wrapped)) + wrapped


def _auth_info(type_url: bytes, key: bytes, sequence: bytes | None, denom: bytes, amount: bytes, gas: bytes) -> bytes:
    wrapped = b"\x0a" + length_prefix(len(type_url)) + type_url + b"\x12\x23\x0a\x21" + key
    signer = b"\x0a" + length_prefix(len(wrapped)) + wrapped + b"\x12\x04\x0a\x02\x08\x01" + (b"\x18" + sequence if sequence else b"")
    coin = b"\x0a" + length_prefix(len(denom)) + denom + b"\x12" + length_prefix(len(amount)) + amount
    fee = b"\x0a" + length_prefix(len(coin)) + coin + b"\x10" + gas
    return b"\x0a" + length_prefix(len(signer)) + signer + b"\x12" + length_prefix(len(fee)) + fee


def _number(raw: bytes) -> int:
    value = 0
    for at, byte in enumerate(raw):
        value |= (byte & 0x7F) << 7 * at
    return value
