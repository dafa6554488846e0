"""Looked at before CometBFT starts: may this home's validator key sign where the chain is now?

CometBFT's ``priv_validator_state.json`` says what the key signed last, and keeps it from signing that again. A copy that is too old, or another key's,
keeps it from nothing: the validator would sign a height twice, lose stake and be out for ever.
"""

from __future__ import annotations

import base64
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import nacl.exceptions
import nacl.signing

from chain import nodekeys
from chain.codec.registry import message_class
from chain.config import ConfigError, Home
from chain.crypto.keys import Ed25519PublicKey
from chain.light.bootstrap import BLOCKS_KEY, STATE_KEY, opened
from chain.light.headers import ABSENT, types

HEIGHTS: Final = 1000
"""How far back commits are read."""


def require_signing_state(home: Home, height: int) -> None:
    """Raise ConfigError unless the state file fits the key, and no block up to ``height`` (the application's) has a vote beyond it.

    Raises StoreError where CometBFT's databases cannot be read.
    """
    key = nodekeys.validator_key(home)
    signed = _signed_height(home.validator_state, key)
    data = home.root / "data"
    if signed >= height or not (data / "state.db").exists() or not find_spec("plyvel"):
        return
    if not _votes(data / "state.db", key.address):
        return
    found = _last_vote(data / "blockstore.db", key.address, signed)
    if found > signed:
        raise ConfigError(
            f"{home.validator_state} says that this validator signed block {signed} last, but block {found} has its vote: the file is an old copy. "
            "Bring the one from where the key signed last. Where it is lost, leave the validator off for some blocks, then start once with --accept-signing-state"
        )


def _signed_height(path: Path, key: Ed25519PublicKey) -> int:
    try:
        state = json.loads(path.read_text())
        height = int(state["height"])
        signature, message = base64.b64decode(state.get("signature") or ""), bytes.fromhex(state.get("signbytes") or "")
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read ({error.strerror}): it says what this validator signed last. Bring it from where the key was used; "
            'for a key that never signed it is {"height":"0","round":0,"step":0}'
        ) from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise ConfigError(f"{path} is not what CometBFT writes: expected height, round and step; restore it from where the key signed last") from None
    if signature and message:
        try:
            nacl.signing.VerifyKey(key.raw).verify(message, signature)
        except (nacl.exceptions.BadSignatureError, ValueError):
            raise ConfigError(
                f"{path} was written by another key than {path.parent.parent / 'config' / 'priv_validator_key.json'}: the two files belong together. "
                "Bring the state file of this key; for a key that never signed, start once with --accept-signing-state"
            ) from None
    return height


def _votes(path: Path, address: bytes) -> bool:
    """Whether the key is in the validator set of CometBFT's state."""
    with opened(path) as database:
        state = message_class("tendermint.state.State").FromString(database.get(STATE_KEY) or b"")
    return any(one.address == address for chosen in (state.validators, state.next_validators) for one in chosen.validators)


def _last_vote(path: Path, address: bytes, above: int) -> int:
    """The highest of the last HEIGHTS blocks above ``above`` whose commit has a vote of ``address``; 0 without one."""
    if not path.exists():
        return 0
    commit_class: Any = types("Commit")
    with opened(path) as database:
        newest = message_class("tendermint.store.BlockStoreState").FromString(database.get(BLOCKS_KEY) or b"").height
        for height in range(newest, max(above, newest - HEIGHTS), -1):
            # What the next block carries, and for the newest block what this node saw.
            raw = database.get(b"C:%d" % height) or database.get(b"SC:%d" % height) or b""
            for signature in commit_class.FromString(raw).signatures:
                if signature.validator_address == address and signature.block_id_flag != ABSENT:
                    return int(height)
    return 0
