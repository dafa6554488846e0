"""A node's own keys, in CometBFT's files: the validator key that signs blocks, and the node key that names it to peers."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import nacl.signing

from chain.config import ConfigError, Home
from chain.crypto.keys import Ed25519PublicKey


def create_missing(home: Home) -> None:
    """Write the validator key with its state, and the node key, where they are not there yet; mode 0600."""
    if not home.validator_key.exists():
        secret, public = _new()
        key = Ed25519PublicKey(public)
        _write(
            home.validator_key,
            {
                "address": key.address.hex().upper(),
                "pub_key": {"type": "tendermint/PubKeyEd25519", "value": base64.b64encode(public).decode()},
                "priv_key": {"type": "tendermint/PrivKeyEd25519", "value": base64.b64encode(secret + public).decode()},
            },
        )
    if not home.validator_state.exists():
        _write(home.validator_state, {"height": "0", "round": 0, "step": 0})
    if not home.node_key.exists():
        secret, public = _new()
        _write(home.node_key, {"priv_key": {"type": "tendermint/PrivKeyEd25519", "value": base64.b64encode(secret + public).decode()}})


def validator_key(home: Home) -> Ed25519PublicKey:
    """The public key that signs this node's blocks. Raises ConfigError."""
    return Ed25519PublicKey(base64.b64decode(_read(home.validator_key)["pub_key"]["value"]))


def node_id(home: Home) -> str:
    """The node's id among peers: hex of the address of its node key. Raises ConfigError."""
    secret = base64.b64decode(_read(home.node_key)["priv_key"]["value"])
    return Ed25519PublicKey(secret[32:]).address.hex()


def _new() -> tuple[bytes, bytes]:
    key = nacl.signing.SigningKey.generate()
    return bytes(key), bytes(key.verify_key)


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}): run `stchaind init MONIKER` first") from None
    except ValueError:
        raise ConfigError(f"{path} is not JSON: restore it from your backup") from None


def _write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(json.dumps(value, indent=2))
