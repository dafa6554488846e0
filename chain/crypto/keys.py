"""Keys of accounts and validators (reference stratos-chain.md 1.5).

Public keys are immutable values: ``type_url``, ``raw``, ``address``, ``verify``. A signature check never raises; a key that is not
one is refused when it is made (``InvalidPubKey``, sdk/8). Signatures are 64 bytes R‖S with low S; ethsecp256k1 takes 65 with V, too.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, ClassVar, Final, TypeAlias

import nacl.exceptions
import nacl.signing
import sha3
from coincurve import PrivateKey as _CurveKey
from coincurve._libsecp256k1 import ffi, lib
from coincurve.context import GLOBAL_CONTEXT
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from google.protobuf.message import DecodeError

from chain.codec.registry import Any_, message_class
from chain.codec.varint import uvarint
from chain.errors import InvalidPubKey

SECP256K1_URL: Final = "/cosmos.crypto.secp256k1.PubKey"
ETH_SECP256K1_URL: Final = "/stratos.crypto.v1.ethsecp256k1.PubKey"
SECP256R1_URL: Final = "/cosmos.crypto.secp256r1.PubKey"
ED25519_URL: Final = "/cosmos.crypto.ed25519.PubKey"
MULTISIG_URL: Final = "/cosmos.crypto.multisig.LegacyAminoPubKey"

MAX_MULTISIG_DEPTH: Final = 4
MAX_MULTISIG_MEMBERS: Final = 64
_ORDER: Final = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
_P256_ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def keccak256(data: bytes) -> bytes:
    digest: bytes = sha3.keccak_256(data).digest()
    return digest


def ripemd160(data: bytes) -> bytes:
    return hashlib.new("ripemd160", data, usedforsecurity=False).digest()


@lru_cache(maxsize=16384)
def parsed_point(raw: bytes) -> bytes | None:
    """libsecp256k1's own form (64 bytes) of a compressed point of 33 bytes; None if it is none."""
    # Decompressing a point is an eighth of a check, and the same accounts come again and again.
    key = ffi.new("secp256k1_pubkey *")
    if len(raw) != 33 or not lib.secp256k1_ec_pubkey_parse(GLOBAL_CONTEXT.ctx, key, raw, 33):
        return None
    return bytes(ffi.buffer(key))


def _curve_key(raw: bytes) -> Any:
    point = parsed_point(raw)
    return None if point is None else ffi.from_buffer("secp256k1_pubkey *", point)


def check_digest(public_key: bytes, digest: bytes, signature: bytes) -> bool:
    """secp256k1: a 64-byte low-S signature of a 32-byte digest under a 33-byte key. Never raises; the GIL is free meanwhile."""
    if len(signature) != 64 or len(digest) != 32:
        return False
    key = _curve_key(public_key)
    parsed = ffi.new("secp256k1_ecdsa_signature *")
    if key is None or not lib.secp256k1_ecdsa_signature_parse_compact(GLOBAL_CONTEXT.ctx, parsed, signature):
        return False
    return bool(lib.secp256k1_ecdsa_verify(GLOBAL_CONTEXT.ctx, parsed, digest, key))


def _require_curve_point(raw: bytes, kind: str) -> None:
    if parsed_point(raw) is None:
        raise InvalidPubKey(f"a {kind} public key is a compressed curve point of 33 bytes, got {len(raw)} bytes {raw[:40].hex()}")


@dataclass(frozen=True)
class Secp256k1PublicKey:
    """The SDK's key: SHA-256 digests, RIPEMD-160 of SHA-256 as address."""

    raw: bytes
    type_url: ClassVar[str] = SECP256K1_URL
    amino_name: ClassVar[str] = "tendermint/PubKeySecp256k1"
    amino_prefix: ClassVar[bytes] = bytes.fromhex("eb5ae98721")

    def __post_init__(self) -> None:
        _require_curve_point(self.raw, "secp256k1")

    @cached_property
    def address(self) -> bytes:
        return ripemd160(sha256(self.raw))

    def digest(self, message: bytes) -> bytes:
        return sha256(message)

    def verify(self, message: bytes, signature: bytes) -> bool:
        return check_digest(self.raw, sha256(message), signature)


@dataclass(frozen=True)
class EthSecp256k1PublicKey:
    """Stratos' default key: Keccak-256 digests and Ethereum's address."""

    raw: bytes
    type_url: ClassVar[str] = ETH_SECP256K1_URL
    amino_name: ClassVar[str] = "stratos/PubKeyEthSecp256k1"

    def __post_init__(self) -> None:
        _require_curve_point(self.raw, "ethsecp256k1")

    @cached_property
    def address(self) -> bytes:
        key = _curve_key(self.raw)
        out, size = ffi.new("unsigned char [65]"), ffi.new("size_t *", 65)
        lib.secp256k1_ec_pubkey_serialize(GLOBAL_CONTEXT.ctx, out, size, key, lib.SECP256K1_EC_UNCOMPRESSED)
        return keccak256(bytes(ffi.buffer(out, 65))[1:])[12:]

    @property
    def amino_prefix(self) -> bytes:
        """The registered amino prefix of the type's name, then the length."""
        return amino_type_prefix(self.amino_name) + b"\x21"

    def digest(self, message: bytes) -> bytes:
        return keccak256(message)

    def verify(self, message: bytes, signature: bytes) -> bool:
        return check_digest(self.raw, keccak256(message), signature[:64] if len(signature) == 65 else signature)


@dataclass(frozen=True)
class Secp256r1PublicKey:
    """NIST P-256, as passkeys and secure enclaves sign."""

    raw: bytes
    type_url: ClassVar[str] = SECP256R1_URL
    amino_name: ClassVar[str] = "cosmos-sdk/secp256r1"

    def __post_init__(self) -> None:
        try:
            if len(self.raw) != 33:
                raise ValueError
            ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), self.raw)
        except ValueError:
            raise InvalidPubKey(f"a secp256r1 public key is a compressed point of 33 bytes, got {len(self.raw)} bytes") from None

    @cached_property
    def address(self) -> bytes:
        """ADR-28: SHA-256 of the type's hash and the key, 32 bytes."""
        return sha256(sha256(b"cosmos.crypto.secp256r1.PubKey") + self.raw)

    def verify(self, message: bytes, signature: bytes) -> bool:
        if len(signature) != 64:
            return False
        r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
        if not 0 < r < _P256_ORDER or not 0 < s <= _P256_ORDER // 2:
            return False
        key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), self.raw)
        try:
            key.verify(encode_dss_signature(r, s), message, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True)
class Ed25519PublicKey:
    """Consensus and node keys; never the signer of a transaction."""

    raw: bytes
    type_url: ClassVar[str] = ED25519_URL
    amino_name: ClassVar[str] = "tendermint/PubKeyEd25519"
    amino_prefix: ClassVar[bytes] = bytes.fromhex("1624de6420")

    def __post_init__(self) -> None:
        if len(self.raw) != 32:
            raise InvalidPubKey(f"an ed25519 public key has 32 bytes, got {len(self.raw)}")

    @cached_property
    def address(self) -> bytes:
        return sha256(self.raw)[:20]

    def verify(self, message: bytes, signature: bytes) -> bool:
        try:
            nacl.signing.VerifyKey(self.raw).verify(message, signature)
        except (nacl.exceptions.BadSignatureError, ValueError):
            return False
        return True


@dataclass(frozen=True)
class MultisigPublicKey:
    """``threshold`` of the members must sign. Members may be any account key, multisigs included."""

    threshold: int
    members: tuple[PublicKey, ...]
    type_url: ClassVar[str] = MULTISIG_URL
    amino_name: ClassVar[str] = "tendermint/PubKeyMultisigThreshold"

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= len(self.members) <= MAX_MULTISIG_MEMBERS:
            raise InvalidPubKey(
                f"a multisig needs 1 to {MAX_MULTISIG_MEMBERS} members and a threshold among them, got {self.threshold} of {len(self.members)}"
            )

    @cached_property
    def raw(self) -> bytes:
        """The key in amino's binary form, which its address is made of."""
        parts = [bytes.fromhex("22c1f7e2"), b"\x08", uvarint(self.threshold)]
        for member in self.members:
            encoded = amino_bytes(member)
            parts += [b"\x12", uvarint(len(encoded)), encoded]
        return b"".join(parts)

    @cached_property
    def address(self) -> bytes:
        return sha256(self.raw)[:20]

    def verify(self, message: bytes, signature: bytes) -> bool:
        """A multisig has no single signature over one message: see chain.tx.signing."""
        return False


PublicKey: TypeAlias = "Secp256k1PublicKey | EthSecp256k1PublicKey | Secp256r1PublicKey | Ed25519PublicKey | MultisigPublicKey"

_SIMPLE: Final = {cls.type_url: cls for cls in (Secp256k1PublicKey, EthSecp256k1PublicKey, Secp256r1PublicKey, Ed25519PublicKey)}
_MESSAGES: Final = {url: message_class(url[1:]) for url in (*_SIMPLE, MULTISIG_URL)}


def public_key_from_any(wrapped: Any, depth: int = 0) -> PublicKey:
    """The key in an Any. Raises InvalidPubKey (sdk/8) for an unknown type, wrong bytes or a multisig nested too deep."""
    url = wrapped.type_url
    if url not in _MESSAGES:
        raise InvalidPubKey(f"no public key type {url[:200]!r}")
    try:
        message = _MESSAGES[url].FromString(wrapped.value)
    except DecodeError as error:
        raise InvalidPubKey(f"bytes of {url} do not parse: {error}") from None
    if url != MULTISIG_URL:
        return _SIMPLE[url](message.key)
    if depth >= MAX_MULTISIG_DEPTH:
        raise InvalidPubKey(f"multisig keys nest deeper than {MAX_MULTISIG_DEPTH}")
    if len(message.public_keys) > MAX_MULTISIG_MEMBERS:
        raise InvalidPubKey(f"a multisig has at most {MAX_MULTISIG_MEMBERS} members, got {len(message.public_keys)}")
    return MultisigPublicKey(message.threshold, tuple(public_key_from_any(member, depth + 1) for member in message.public_keys))


def public_key_to_any(key: PublicKey) -> Any:
    """A key as Any, in the bytes every Cosmos client writes."""
    return Any_(type_url=key.type_url, value=public_key_message(key).SerializeToString(deterministic=True))


def public_key_message(key: PublicKey) -> Any:
    """The key's own protobuf message."""
    if isinstance(key, MultisigPublicKey):
        return _MESSAGES[MULTISIG_URL](threshold=key.threshold, public_keys=[public_key_to_any(member) for member in key.members])
    return _MESSAGES[key.type_url](key=key.raw)


def amino_bytes(key: PublicKey) -> bytes:
    """The key in amino's binary form: registered prefix, then the key."""
    if isinstance(key, MultisigPublicKey):
        return key.raw
    if isinstance(key, Secp256r1PublicKey):
        raise InvalidPubKey("a secp256r1 key has no amino form and cannot be a multisig member")
    return key.amino_prefix + key.raw


def amino_json(key: PublicKey) -> dict[str, Any]:
    """``{"type": …, "value": …}`` as legacy amino JSON writes keys."""
    if isinstance(key, MultisigPublicKey):
        return {
            "type": key.amino_name,
            "value": {"threshold": str(key.threshold), "pubkeys": [amino_json(member) for member in key.members]},
        }
    return {"type": key.amino_name, "value": base64.b64encode(key.raw).decode()}


@dataclass(frozen=True)
class PrivateKey:
    """A secp256k1 private key of 32 bytes; ``algorithm`` is ``eth_secp256k1`` or ``secp256k1``."""

    raw: bytes
    algorithm: str

    def __post_init__(self) -> None:
        if self.algorithm not in ("eth_secp256k1", "secp256k1"):
            raise ValueError(f"algorithm must be eth_secp256k1 or secp256k1, got {self.algorithm!r}")
        if len(self.raw) != 32 or not 0 < int.from_bytes(self.raw, "big") < _ORDER:
            raise ValueError("a private key is 32 bytes: a number from 1 to the order of secp256k1 less one")

    @cached_property
    def public_key(self) -> PublicKey:
        raw = _CurveKey(self.raw).public_key.format()
        return EthSecp256k1PublicKey(raw) if self.algorithm == "eth_secp256k1" else Secp256k1PublicKey(raw)

    def sign(self, message: bytes) -> bytes:
        """R‖S, 64 bytes, low S, RFC-6979 nonce."""
        digest = keccak256(message) if self.algorithm == "eth_secp256k1" else sha256(message)
        signature: bytes = _CurveKey(self.raw).sign_recoverable(digest, hasher=None)
        return signature[:64]

    def __repr__(self) -> str:
        return f"PrivateKey({self.algorithm}, secret)"


def amino_type_prefix(name: str) -> bytes:
    """The four bytes amino puts before a value of the type registered as ``name``."""
    # Amino's rule: of SHA-256(name), skip leading zero bytes, three disambiguation bytes, zeros again; the next four.
    digest = sha256(name.encode("ascii")).lstrip(b"\x00")[3:].lstrip(b"\x00")
    return digest[:4]
