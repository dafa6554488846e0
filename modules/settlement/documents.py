"""Documents as evidence: what was signed, and by whom.

    what is ours   ed25519 over  domain ‖ 0x00 ‖ SHA-256(body)          order limits (ledger key), receipts (session key)
    wallets        secp256k1 over keccak-256(domain ‖ 0x00 ‖ body)      session grants
    legacy         secp256k1 over keccak-256(the signed string)         what the original's clients sign (sds.md 1.1, 1.4)

A body is canonical protobuf: it decodes, holds no unknown field, and encodes to itself. Nothing here raises for hostile bytes.
Source: storage-protocol.md 4.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha256
from typing import Any, Final

from google.protobuf.message import DecodeError
from nacl.bindings import crypto_core_ed25519_is_valid_point

from chain.codec.canonical import encode, known
from chain.codec.registry import message_class
from chain.crypto.keys import Ed25519PublicKey, EthSecp256k1PublicKey, Secp256k1PublicKey
from chain.errors import InvalidPubKey
from modules.settlement.params import PACKAGE

SessionGrant: Final = message_class(f"{PACKAGE}.SessionGrant")
OrderLimit: Final = message_class(f"{PACKAGE}.OrderLimit")
Receipt: Final = message_class(f"{PACKAGE}.Receipt")

GRANT_DOMAIN: Final = b"stratos/session-grant/v1"
LIMIT_DOMAIN: Final = b"stratos/order-limit/v1"
RECEIPT_DOMAIN: Final = b"stratos/receipt/v1"
MAX_BODY: Final = 4_096
KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64
_LONGEST_READY_DIGEST: Final = 32


def decoded(cls: Any, body: bytes) -> Any | None:
    """The document in ``body``; None unless the body is its canonical form of at most 4,096 bytes."""
    if not 0 < len(body) <= MAX_BODY:
        return None
    try:
        document = cls.FromString(body)
    except DecodeError:
        return None
    return document if encode(known(document)) == body else None


@lru_cache(maxsize=4_096)
def is_ledger_key(key: bytes) -> bool:
    """True for an ed25519 public key (32 bytes) of the prime group: one under which no signature holds for every message."""
    return len(key) == KEY_BYTES and crypto_core_ed25519_is_valid_point(key)


def signed_by_key(domain: bytes, body: bytes, key: bytes, signature: bytes) -> bool:
    """True if the holder of an ed25519 key signed a document."""
    if len(signature) != SIGNATURE_BYTES or not is_ledger_key(key):
        return False
    return Ed25519PublicKey(key).verify(to_sign(domain, body), signature)


def to_sign(domain: bytes, body: bytes) -> bytes:
    """What an ed25519 key signs for a document."""
    return domain + b"\x00" + sha256(body).digest()


def wallet_signed(body: bytes, public_key: bytes, signature: bytes, wallet: bytes) -> bool:
    """True if ``wallet`` (20 bytes) signed a session grant with the key given (33 bytes)."""
    return signed_by_wallet(GRANT_DOMAIN + b"\x00" + body, public_key, signature, wallet)


def legacy_signed(text: str, public_key: bytes, signature: bytes, wallet: bytes) -> bool:
    """True if ``wallet`` signed a legacy string. One of at most 32 bytes is none: the original takes 32 as a digest that is ready."""
    message = text.encode()
    return _LONGEST_READY_DIGEST < len(message) <= MAX_BODY and signed_by_wallet(message, public_key, signature, wallet)


def signed_by_wallet(message: bytes, public_key: bytes, signature: bytes, wallet: bytes) -> bool:
    """True if ``wallet`` (20 bytes) signed a message with the key given (33 bytes). Either kind of key, by its address; the digest is Keccak's for
    both. 64 bytes, low S."""
    if len(signature) != SIGNATURE_BYTES:
        return False
    try:
        key = EthSecp256k1PublicKey(public_key)
        if wallet not in (key.address, Secp256k1PublicKey(public_key).address):
            return False
    except InvalidPubKey:
        return False
    return key.verify(message, signature)
