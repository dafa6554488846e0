"""Keys as ASCII armor, encrypted with a passphrase: what ``keys export`` writes and ``keys import`` reads.

Form (SDK 0.50.9 ``crypto/armor.go``, RFC 4880 section 6): a private key in amino's binary form, sealed with ChaCha20-Poly1305 under an
Argon2id key and a zero nonce (the salt is fresh each time). The older form, bcrypt with XSalsa20-Poly1305, is read, not written.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
from dataclasses import dataclass
from typing import Final

import bcrypt
import nacl.exceptions
import nacl.secret
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from google.protobuf.message import DecodeError

from chain.codec.registry import Any_
from chain.crypto.amino import AminoError, private_key_bytes, private_key_from_bytes
from chain.crypto.keys import MultisigPublicKey, PrivateKey, PublicKey, Secp256k1PublicKey, public_key_from_any, public_key_to_any
from chain.errors import InvalidPubKey, WrongPassword

PRIVATE_KEY: Final = "TENDERMINT PRIVATE KEY"
PUBLIC_KEY: Final = "TENDERMINT PUBLIC KEY"
MAX_ARMOR_CHARACTERS: Final = 1 << 16
_LINE: Final = 64
_ARGON2_PASSES: Final = 1
_ARGON2_MEMORY_KIB: Final = 64 * 1024
_ARGON2_LANES: Final = 4
_BCRYPT_COST: Final = 12
_BCRYPT_MAX_PASSWORD_BYTES: Final = 72
_ZERO_NONCE: Final = bytes(12)


class ArmorError(Exception):
    """Text that is not the armored key it was taken for; the message says what was expected."""


@dataclass(frozen=True, slots=True)
class Armor:
    """A block: its type (``TENDERMINT PRIVATE KEY``), headers and bytes."""

    block_type: str
    headers: dict[str, str]
    data: bytes


def encrypt_private_key(key: PrivateKey, passphrase: str) -> str:
    """``key`` as armor under ``passphrase``."""
    salt = secrets.token_bytes(16)
    sealed = ChaCha20Poly1305(_argon2_key(passphrase, salt)).encrypt(_ZERO_NONCE, private_key_bytes(key), None)
    return encode(Armor(PRIVATE_KEY, {"kdf": "argon2", "salt": salt.hex().upper(), "type": key.algorithm}, sealed))


def decrypt_private_key(text: str, passphrase: str) -> PrivateKey:
    """The key in armored ``text``. Raises ArmorError for what is no armored private key, WrongPassword (sdk/23)."""
    armor = decode(text)
    if armor.block_type != PRIVATE_KEY:
        raise ArmorError(f"unrecognized armor type {armor.block_type!r}: expected {PRIVATE_KEY!r}")
    kdf = armor.headers.get("kdf", "")
    if kdf not in ("argon2", "bcrypt"):
        raise ArmorError(f"unrecognized KDF type {kdf!r}: expected argon2 or bcrypt")
    try:
        salt = bytes.fromhex(armor.headers.get("salt", ""))
    except ValueError:
        raise ArmorError("the salt header is not hexadecimal") from None
    if len(salt) != 16:
        raise ArmorError(f"the salt header has 16 bytes, got {len(salt)}")
    try:
        if kdf == "argon2":
            raw = ChaCha20Poly1305(_argon2_key(passphrase, salt)).decrypt(_ZERO_NONCE, armor.data, None)
        else:
            raw = bytes(nacl.secret.SecretBox(_bcrypt_key(passphrase, salt)).decrypt(armor.data))
    except (InvalidTag, nacl.exceptions.CryptoError, ValueError):
        raise WrongPassword("failed to decrypt private key") from None
    try:
        return private_key_from_bytes(raw)
    except AminoError as error:
        raise ArmorError(str(error)) from None


def armor_public_key(key: PublicKey) -> str:
    """A public key as armor; nothing is encrypted."""
    return encode(Armor(PUBLIC_KEY, {"type": public_key_kind(key), "version": "0.0.1"}, public_key_to_any(key).SerializeToString(deterministic=True)))


def unarmor_public_key(text: str) -> PublicKey:
    """The opposite of ``armor_public_key``. Raises ArmorError."""
    armor = decode(text)
    if armor.block_type != PUBLIC_KEY:
        raise ArmorError(f"unrecognized armor type {armor.block_type!r}: expected {PUBLIC_KEY!r}")
    version = armor.headers.get("version", "")
    if version not in ("0.0.0", "0.0.1"):
        raise ArmorError(f"unrecognized version {version!r}: expected 0.0.0 or 0.0.1")
    try:
        return public_key_from_any(Any_.FromString(armor.data))
    except (DecodeError, InvalidPubKey) as error:
        raise ArmorError(f"no public key in the armor: {error}") from None


def public_key_kind(key: PublicKey) -> str:
    """The SDK's name of a key's algorithm, as armor headers carry it."""
    if isinstance(key, MultisigPublicKey):
        return "PubKeyMultisigThreshold"
    if isinstance(key, Secp256k1PublicKey):
        return "secp256k1"
    return key.type_url.split(".")[-2].replace("ethsecp256k1", "eth_secp256k1")


def encode(armor: Armor) -> str:
    """The block as text, without a final newline."""
    lines = [f"-----BEGIN {armor.block_type}-----"]
    lines += [f"{name}: {armor.headers[name]}" for name in sorted(armor.headers)]
    lines.append("")
    body = base64.b64encode(armor.data).decode()
    lines += [body[at : at + _LINE] for at in range(0, len(body), _LINE)]
    lines += ["=" + base64.b64encode(_crc24(armor.data).to_bytes(3, "big")).decode(), f"-----END {armor.block_type}-----"]
    return "\n".join(lines)


def decode(text: str) -> Armor:
    """The first block in ``text``; what stands before it is passed over. Raises ArmorError."""
    if len(text) > MAX_ARMOR_CHARACTERS:
        raise ArmorError(f"an armored key has at most {MAX_ARMOR_CHARACTERS} characters, got {len(text)}")
    lines = [line.strip() for line in text.splitlines()]
    start = next((at for at, line in enumerate(lines) if line.startswith("-----BEGIN ") and line.endswith("-----") and len(line) > 16), None)
    if start is None:
        raise ArmorError("no armored key: expected a line -----BEGIN TENDERMINT PRIVATE KEY-----")
    block_type = lines[start][11:-5]
    try:
        end = lines.index(f"-----END {block_type}-----", start)
    except ValueError:
        raise ArmorError(f"the armor is cut off: expected a line -----END {block_type}-----") from None
    inside = lines[start + 1 : end]
    blank = inside.index("") if "" in inside else 0
    headers: dict[str, str] = {}
    for line in inside[:blank]:
        name, separator, value = line.partition(": ")
        if not separator:
            raise ArmorError(f"an armor header has the form 'name: value', got {line[:80]!r}")
        headers[name] = value
    body = [line for line in inside[blank:] if line]
    checksum = body.pop() if body and len(body[-1]) == 5 and body[-1].startswith("=") else None
    try:
        data = base64.b64decode("".join(body), validate=True)
        expected = None if checksum is None else int.from_bytes(base64.b64decode(checksum[1:], validate=True), "big")
    except binascii.Error as error:
        raise ArmorError(f"the armor's body is not base64: {error}") from None
    if expected is not None and expected != _crc24(data):
        raise ArmorError("the armor's checksum does not match: a character was changed")
    return Armor(block_type, headers, data)


def _argon2_key(passphrase: str, salt: bytes) -> bytes:
    kdf = Argon2id(salt=salt, length=32, iterations=_ARGON2_PASSES, lanes=_ARGON2_LANES, memory_cost=_ARGON2_MEMORY_KIB)
    return kdf.derive(passphrase.encode())


def _bcrypt_key(passphrase: str, salt: bytes) -> bytes:
    # bcrypt has its own base64 alphabet; the SDK hashes the whole $2a$… text once more to get 32 bytes.
    standard = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    bcrypts = b"./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
    encoded = base64.b64encode(salt).rstrip(b"=").translate(bytes.maketrans(standard, bcrypts))
    hashed = bcrypt.hashpw(passphrase.encode()[:_BCRYPT_MAX_PASSWORD_BYTES], b"$2a$%d$%s" % (_BCRYPT_COST, encoded))
    return hashlib.sha256(hashed).digest()


def _crc24(data: bytes) -> int:
    check = 0xB704CE
    for byte in data:
        check ^= byte << 16
        for _ in range(8):
            check <<= 1
            if check & 0x1000000:
                check ^= 0x1864CFB
    return check
