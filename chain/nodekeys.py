"""A node's own keys, in CometBFT's files: the validator key that signs blocks, and the node key that names it to peers."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import nacl.signing

from chain.config import ConfigError, Home
from chain.crypto.keys import Ed25519PublicKey


def create_missing(home: Home, mnemonic: str = "") -> None:
    """Write the validator key with its state, and the node key, where they are not there yet; mode 0600.

    With ``mnemonic`` the validator key follows from its words, as CometBFT derives a key from a secret.
    """
    if not home.validator_key.exists():
        secret, public = _new(hashlib.sha256(mnemonic.encode()).digest() if mnemonic else None)
        key = Ed25519PublicKey(public)
        write_private(
            home.validator_key,
            {
                "address": key.address.hex().upper(),
                "pub_key": {"type": "tendermint/PubKeyEd25519", "value": base64.b64encode(public).decode()},
                "priv_key": {"type": "tendermint/PrivKeyEd25519", "value": base64.b64encode(secret + public).decode()},
            },
        )
    if not home.validator_state.exists():
        write_private(home.validator_state, {"height": "0", "round": 0, "step": 0})
    if not home.node_key.exists():
        secret, public = _new()
        write_private(home.node_key, {"priv_key": {"type": "tendermint/PrivKeyEd25519", "value": base64.b64encode(secret + public).decode()}})


def validator_key(home: Home) -> Ed25519PublicKey:
    """The public key that signs this node's blocks. Raises ConfigError."""
    return Ed25519PublicKey(_key(home.validator_key, "pub_key", 32))


def node_id(home: Home) -> str:
    """The node's id among peers: hex of the address of its node key. Raises ConfigError."""
    return Ed25519PublicKey(_key(home.node_key, "priv_key", 64)[32:]).address.hex()


def _new(seed: bytes | None = None) -> tuple[bytes, bytes]:
    key = nacl.signing.SigningKey.generate() if seed is None else nacl.signing.SigningKey(seed)
    return bytes(key), bytes(key.verify_key)


def _key(path: Path, part: str, size: int) -> bytes:
    try:
        raw = base64.b64decode(_read(path)[part]["value"], validate=True)
    except (KeyError, TypeError, ValueError):
        raw = b""
    if len(raw) != size:
        raise ConfigError(f"{path} is not a key file of CometBFT: expected {part}.value with {size} bytes in base64; restore it from your backup")
    return raw


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}): run `stchaind init MONIKER` first") from None
    except (ValueError, RecursionError):
        raise ConfigError(f"{path} is not JSON: restore it from your backup") from None


def write_private(path: Path, value: Any) -> None:
    """Write JSON, mode 0600, whole or not at all: an interrupted start must leave nothing half written that looks whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(path.name + ".new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(json.dumps(value, indent=2))
    os.replace(fresh, path)
