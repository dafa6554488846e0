"""BLS signatures on BLS12-381 with keys in G1 (48 bytes) and signatures in G2 (96 bytes): many signers of one message, one signature.

    secret (a number) ── public_key ──► key ── prove_possession ──► proof     registered once
    secret ── sign(message) ──► signature ── aggregate ──► one signature      verified under all keys at once

Ciphersuite ``BLS_SIG_BLS12381G2_XMD:SHA-256_SSWU_RO_POP_`` of the IETF draft (draft-irtf-cfrg-bls-signature-05), over pyblst's group operations. A sum
of keys says who signed only if each of them proved that he has his secret; that is what the proof of possession is for (storage-protocol.md 1.7).

What checks never raises and answers False for whatever is no key, no signature, or not in the group; the point at infinity is refused as a key and
as a signature. What signs is given secrets and raises ValueError for what is none. Signing is not hardened against who measures its time.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from typing import Any, Final

from pyblst import BlstP1Element, BlstP2Element, final_verify, miller_loop

ORDER: Final = 0x73EDA753299D7D483339D80809A1D80553BDA402FFFE5BFEFFFFFFFF00000001
"""Of the groups: secrets are 1 to this less one."""
KEY_BYTES: Final = 48
SIGNATURE_BYTES: Final = 96
MIN_SEED_BYTES: Final = 32
SIGNATURE_DOMAIN: Final = b"BLS_SIG_BLS12381G2_XMD:SHA-256_SSWU_RO_POP_"
POSSESSION_DOMAIN: Final = b"BLS_POP_BLS12381G2_XMD:SHA-256_SSWU_RO_POP_"
POSSESSION_PREFIX: Final = b"stratos/meta-key/v1"
MAX_SIGNERS: Final = 4096
"""In one check: more keys than this are answered False."""

_GENERATOR: Final = BlstP1Element.uncompress(
    bytes.fromhex("97f1d3a73197d7942695638c4fa9ac0fc3688c4f9774b905a14e3a3f171bac586c55e83ff97a1aeffb3af00adb22c6bb")
)
_INFINITY: Final = 0x40
"""The bit of a point's first byte that says it is the one at infinity."""
_OKM_BYTES: Final = 48


def secret_from_seed(seed: bytes, key_info: bytes = b"") -> int:
    """The draft's KeyGen: a secret from at least 32 secret bytes. Raises ValueError for fewer."""
    if len(seed) < MIN_SEED_BYTES:
        raise ValueError(f"expected a seed of at least {MIN_SEED_BYTES} bytes, got {len(seed)}")
    salt = b"BLS-SIG-KEYGEN-SALT-"
    while True:
        salt = hashlib.sha256(salt).digest()
        extracted = hmac.digest(salt, seed + b"\x00", "sha256")
        secret = int.from_bytes(_expand(extracted, key_info + _OKM_BYTES.to_bytes(2, "big")), "big") % ORDER
        if secret:
            return secret


def public_key(secret: int) -> bytes:
    """The key (48 bytes) of a secret. Raises ValueError for a number that is none."""
    return _bytes(_GENERATOR.scalar_mul(_checked(secret)))


def sign(secret: int, message: bytes) -> bytes:
    """A signature (96 bytes). Raises ValueError for a secret that is none."""
    return _signed(secret, message, SIGNATURE_DOMAIN)


def aggregate(signatures: Sequence[bytes]) -> bytes:
    """The sum of signatures of one message. Raises ValueError for none, and for bytes that are no signature."""
    points = [_signature(one) for one in signatures]
    if not points or any(point is None for point in points):
        raise ValueError(f"expected one or more signatures of {SIGNATURE_BYTES} bytes in the group, got {len(points)}")
    return _bytes(_sum(points))


def check_public_key(key: bytes) -> bool:
    """True for 48 bytes that are a point of the group other than the one at infinity."""
    return _key(key) is not None


def verify(key: bytes, message: bytes, signature: bytes) -> bool:
    """True if the holder of ``key`` signed ``message``."""
    return verify_aggregate((key,), message, signature)


def verify_aggregate(public_keys: Sequence[bytes], message: bytes, signature: bytes) -> bool:
    """True if every one of ``public_keys`` signed ``message`` and ``signature`` is the sum of that (the draft's FastAggregateVerify).

    That each of them proved possession is the caller's to know. No keys, more than MAX_SIGNERS, or keys whose sum is infinity: False.
    """
    return _verified(public_keys, message, signature, SIGNATURE_DOMAIN)


def possession_message(chain_id: str, meta_node: bytes, key: bytes) -> bytes:
    """What a meta node (network address, 20 bytes) signs to prove that it has the secret of ``key``, on one chain."""
    return POSSESSION_PREFIX + chain_id.encode() + meta_node + key


def prove_possession(secret: int, chain_id: str, meta_node: bytes, key: bytes) -> bytes:
    """The proof (96 bytes) that ``meta_node`` (network address, 20 bytes) has the secret of ``key``. Raises ValueError."""
    return _signed(secret, possession_message(chain_id, meta_node, key), POSSESSION_DOMAIN)


def verify_possession(chain_id: str, meta_node: bytes, key: bytes, proof: bytes) -> bool:
    """True if ``proof`` shows that ``meta_node`` has the secret of ``key``."""
    return len(key) == KEY_BYTES and _verified((key,), possession_message(chain_id, meta_node, key), proof, POSSESSION_DOMAIN)


def _checked(secret: int) -> int:
    if not 0 < secret < ORDER:
        raise ValueError("a BLS secret is a number from 1 to the order of the group less one")
    return secret


def _expand(key: bytes, info: bytes) -> bytes:
    """HKDF-Expand with SHA-256, 48 bytes."""
    first = hmac.digest(key, info + b"\x01", "sha256")
    return (first + hmac.digest(key, first + info + b"\x02", "sha256"))[:_OKM_BYTES]


def _signed(secret: int, message: bytes, domain: bytes) -> bytes:
    return _bytes(BlstP2Element.hash_to_group(message, domain).scalar_mul(_checked(secret)))


def _verified(public_keys: Sequence[bytes], message: bytes, signature: bytes, domain: bytes) -> bool:
    if not 0 < len(public_keys) <= MAX_SIGNERS:
        return False
    signed = _signature(signature)
    keys = [_key(one) for one in public_keys]
    if signed is None or any(key is None for key in keys):
        return False
    together = _sum(keys)
    if _bytes(together)[0] & _INFINITY:
        return False
    hashed = BlstP2Element.hash_to_group(bytes(message), domain)
    return bool(final_verify(miller_loop(together, hashed), miller_loop(_GENERATOR, signed)))


def _key(raw: bytes) -> Any | None:
    return _point(BlstP1Element, raw, KEY_BYTES)


def _signature(raw: bytes) -> Any | None:
    return _point(BlstP2Element, raw, SIGNATURE_BYTES)


def _point(group: Any, raw: bytes, size: int) -> Any | None:
    """A point that is in its group and not at infinity; None for everything else."""
    if len(raw) != size or raw[0] & _INFINITY:
        return None
    try:
        return group.uncompress(bytes(raw))  # refuses what is not on the curve, not in the group, or written another way
    except ValueError:
        return None


def _sum(points: Sequence[Any]) -> Any:
    total = points[0]
    for point in points[1:]:
        total = total + point
    return total


def _bytes(point: Any) -> bytes:
    return bytes(point.compress())
