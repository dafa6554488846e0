"""Amino's binary form of keys and of the key records older tools kept (SDK 0.50 ``crypto/codec``, ``crypto/keyring/legacy_info.go``).

Only what armored private keys and ``keys migrate`` need is here; amino JSON is in ``chain.crypto.keys``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from chain.crypto.keys import (
    MAX_MULTISIG_DEPTH,
    Ed25519PublicKey,
    EthSecp256k1PublicKey,
    MultisigPublicKey,
    PrivateKey,
    PublicKey,
    Secp256k1PublicKey,
    amino_type_prefix,
)
from chain.errors import InvalidPubKey

MAX_AMINO_BYTES: Final = 1 << 16
_PRIVATE_NAMES: Final = {"secp256k1": "tendermint/PrivKeySecp256k1", "eth_secp256k1": "stratos/PrivKeyEthSecp256k1"}
_MULTISIG_PREFIX: Final = amino_type_prefix(MultisigPublicKey.amino_name)
_RECORD_KINDS: Final = {amino_type_prefix(f"crypto/keys/{kind}Info"): kind for kind in ("local", "ledger", "offline", "multi")}


class AminoError(Exception):
    """Bytes that are not the amino value they were taken for; the message says which and why."""


@dataclass(frozen=True, slots=True)
class LegacyRecord:
    """A key record as written before SDK 0.46. ``kind`` is local, ledger, offline or multi; ``private_key`` is set for local ones,
    ``path`` (purpose, coin type, account, change, index) for ledger ones.
    """

    kind: str
    name: str
    public_key: PublicKey
    private_key: PrivateKey | None
    path: tuple[int, int, int, bool, int] | None


def private_key_bytes(key: PrivateKey) -> bytes:
    """Registered prefix, length, 32 bytes: what an armored private key encrypts."""
    return amino_type_prefix(_PRIVATE_NAMES[key.algorithm]) + b"\x20" + key.raw


def private_key_from_bytes(raw: bytes) -> PrivateKey:
    """The opposite of ``private_key_bytes``. Raises AminoError."""
    for algorithm, name in _PRIVATE_NAMES.items():
        if raw[:4] == amino_type_prefix(name):
            if len(raw) != 37 or raw[4] != 32:
                raise AminoError(f"a {algorithm} private key has 32 bytes, got {max(len(raw) - 5, 0)}")
            try:
                return PrivateKey(raw[5:], algorithm)
            except ValueError as error:
                raise AminoError(f"not a {algorithm} private key: {error}") from None
    raise AminoError(f"private key of an unknown type, amino prefix {raw[:4].hex()}: expected secp256k1 or eth_secp256k1")


def public_key_from_bytes(raw: bytes, depth: int = 0) -> PublicKey:
    """A public key from amino's binary form. Raises AminoError."""
    prefix = raw[:4]
    try:
        if prefix == _MULTISIG_PREFIX:
            if depth >= MAX_MULTISIG_DEPTH:
                raise AminoError(f"multisig keys nest deeper than {MAX_MULTISIG_DEPTH}")
            fields = _fields(raw[4:])
            threshold = next((value for number, value in fields if number == 1 and isinstance(value, int)), 0)
            members = [public_key_from_bytes(value, depth + 1) for number, value in fields if number == 2 and isinstance(value, bytes)]
            return MultisigPublicKey(threshold, tuple(members))
        for cls in (Secp256k1PublicKey, EthSecp256k1PublicKey, Ed25519PublicKey):
            if prefix == amino_type_prefix(cls.amino_name):
                if len(raw) < 5 or raw[4] != len(raw) - 5:
                    raise AminoError(f"the length of a {cls.amino_name} is wrong: {raw[:60].hex()}")
                return cls(raw[5:])
    except InvalidPubKey as error:
        raise AminoError(str(error)) from None
    raise AminoError(f"public key of an unknown type, amino prefix {prefix.hex()}")


def legacy_record(raw: bytes) -> LegacyRecord:
    """A length-prefixed amino key record. Raises AminoError."""
    size, at = _read_uvarint(raw, 0)
    body = raw[at:]
    kind = _RECORD_KINDS.get(body[:4])
    if len(raw) > MAX_AMINO_BYTES or size != len(body) or kind is None:
        raise AminoError("neither a protobuf nor an amino key record")
    fields = dict(_fields(body[4:]))
    name, public, third = fields.get(1), fields.get(2), fields.get(3)
    if not isinstance(name, bytes) or not isinstance(public, bytes):
        raise AminoError("an amino key record without name or public key")
    private_key = path = None
    if kind == "local":
        if not isinstance(third, bytes):
            raise AminoError("an amino record of a local key without the private key")
        private_key = private_key_from_bytes(third)
    elif kind == "ledger":
        steps = dict(_fields(third if isinstance(third, bytes) else b""))
        purpose, coin_type, account, change, index = (value if isinstance(value := steps.get(number, 0), int) else 0 for number in range(1, 6))
        path = (purpose, coin_type, account, bool(change), index)
    return LegacyRecord(kind, name.decode("utf-8", "replace"), public_key_from_bytes(public), private_key, path)


def _fields(raw: bytes) -> list[tuple[int, int | bytes]]:
    """(number, varint or bytes) of each field; amino's wire form is protobuf's. Raises AminoError."""
    if len(raw) > MAX_AMINO_BYTES:
        raise AminoError(f"amino value of {len(raw)} bytes: expected at most {MAX_AMINO_BYTES}")
    fields: list[tuple[int, int | bytes]] = []
    at = 0
    while at < len(raw):
        tag, at = _read_uvarint(raw, at)
        value, at = _read_uvarint(raw, at)
        if tag & 7 == 0:
            fields.append((tag >> 3, value))
        elif tag & 7 == 2 and at + value <= len(raw):
            fields.append((tag >> 3, raw[at : at + value]))
            at += value
        else:
            raise AminoError("an amino value is cut off or has an unexpected wire type")
    return fields


def _read_uvarint(raw: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 63, 7):
        if at >= len(raw):
            break
        byte = raw[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise AminoError("an amino length is cut off or too large")
