"""A passphrase-sealed text: JSON Web Encryption in compact form, PBES2-HS256+A128KW with A256GCM (RFC 7516, RFC 7518 section 4.8).

The form of every file in the ``file`` and ``test`` keyrings.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import secrets
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap

ALGORITHM: Final = "PBES2-HS256+A128KW"
ENCRYPTION: Final = "A256GCM"
ITERATIONS: Final = 8192
MAX_ITERATIONS: Final = 1_300_000
MAX_TOKEN_CHARACTERS: Final = 1 << 20


class JweError(Exception):
    """Text that is not such a token, or one of another kind."""


class WrongKey(JweError):
    """The token is whole, and this passphrase does not open it (or its contents were changed)."""


def seal(payload: bytes, passphrase: str, created: str) -> str:
    """The token that hides ``payload``; ``created`` (any text) is readable by everybody."""
    salt = secrets.token_bytes(12)
    content_key, nonce = secrets.token_bytes(32), secrets.token_bytes(12)
    fields = {"alg": ALGORITHM, "created": created, "enc": ENCRYPTION, "p2c": ITERATIONS, "p2s": _text(salt)}
    header = _text(json.dumps(fields, separators=(",", ":")).encode())
    wrapped = aes_key_wrap(_derive(passphrase, salt, ITERATIONS), content_key)
    sealed = AESGCM(content_key).encrypt(nonce, payload, header.encode())
    return ".".join((header, _text(wrapped), _text(nonce), _text(sealed[:-16]), _text(sealed[-16:])))


def open_token(token: str, passphrase: str) -> bytes:
    """What ``token`` hides. Raises JweError for another form, WrongKey for a wrong passphrase or changed contents."""
    parts = token.strip().split(".")
    if len(token) > MAX_TOKEN_CHARACTERS or len(parts) != 5:
        raise JweError("expected a compact JSON Web Encryption token of five parts")
    try:
        header = json.loads(_bytes(parts[0]))
        wrapped, nonce, sealed, tag = (_bytes(part) for part in parts[1:])
        if not isinstance(header, dict) or header.get("alg") != ALGORITHM or header.get("enc") != ENCRYPTION:
            raise JweError(f"expected the algorithms {ALGORITHM} and {ENCRYPTION}")
        iterations, salt = header.get("p2c"), _bytes(str(header.get("p2s", "")))
    except (ValueError, RecursionError) as error:
        raise JweError(f"the token does not parse: {error}") from None
    if not isinstance(iterations, int) or not 1 <= iterations <= MAX_ITERATIONS:
        raise JweError(f"expected 1 to {MAX_ITERATIONS} PBKDF2 iterations, got {iterations!r}")
    if len(nonce) != 12 or len(tag) != 16:
        raise JweError("the nonce has 12 bytes and the tag 16")
    try:
        content_key = aes_key_unwrap(_derive(passphrase, salt, iterations), wrapped)
        return AESGCM(content_key).decrypt(nonce, sealed + tag, parts[0].encode())
    except (InvalidUnwrap, InvalidTag, ValueError):
        raise WrongKey("the passphrase does not open it, or its contents were changed") from None


def _derive(passphrase: str, salt: bytes, iterations: int) -> bytes:
    return hashlib.pbkdf2_hmac("sha256", passphrase.encode(), ALGORITHM.encode() + b"\x00" + salt, iterations, 16)


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError(f"a part is not base64url: {error}") from None
