"""Keys that sign votes, for drivers and tests. The sets they belong to are ``chain/light/validators.py``."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import nacl.signing

from chain.crypto.keys import Ed25519PublicKey


@dataclass(frozen=True)
class ValidatorKey:
    """An ed25519 key that signs votes."""

    seed: bytes

    @classmethod
    def numbered(cls, number: int) -> ValidatorKey:
        """The same key for the same number everywhere. For tests: anybody can sign with it."""
        return cls(hashlib.sha256(f"stratos test validator {number}".encode()).digest())

    @classmethod
    def from_file(cls, path: Path) -> ValidatorKey:
        """The key of CometBFT's ``priv_validator_key.json``."""
        return cls(base64.b64decode(json.loads(path.read_text())["priv_key"]["value"])[:32])

    @cached_property
    def _signer(self) -> nacl.signing.SigningKey:
        return nacl.signing.SigningKey(self.seed)

    @cached_property
    def public_key(self) -> Ed25519PublicKey:
        return Ed25519PublicKey(bytes(self._signer.verify_key))

    @property
    def address(self) -> bytes:
        return self.public_key.address

    def sign(self, message: bytes) -> bytes:
        """64 bytes."""
        return bytes(self._signer.sign(message).signature)
