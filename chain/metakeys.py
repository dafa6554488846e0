"""A meta node's own keys, in one file of mode 0600 (storage-protocol.md 1.7).

network key (ed25519)   names the node: its address stsds… is the first 20 bytes of SHA-256 of the public key
BLS key                 signs volume reports; registered on the chain with a proof of possession
ledger key (ed25519)    votes in the meta nodes' own ledger
"""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import nacl.signing

from chain.codec.json import to_json
from chain.codec.registry import message_class
from chain.config import ConfigError, Home
from chain.crypto import address as bech32
from chain.crypto import bls
from chain.crypto.keys import Ed25519PublicKey, public_key_to_any
from chain.nodekeys import write_private

FILE_NAME: Final = "meta_keys.json"
SECRET_BYTES: Final = 32
MAX_FILE_BYTES: Final = 1 << 16
_SECRETS: Final = {"network_seed": "network_pubkey", "bls_secret": "bls_pubkey", "ledger_seed": "ledger_consensus_pubkey"}
"""Of each secret in the file, the public part beside it."""


@dataclass(frozen=True, repr=False)
class MetaKeys:
    """The three keys by their secrets; ``repr`` shows none of them."""

    network_seed: bytes
    bls_secret: int
    ledger_seed: bytes

    @classmethod
    def new(cls) -> MetaKeys:
        """Fresh keys."""
        return cls(secrets.token_bytes(SECRET_BYTES), bls.secret_from_seed(secrets.token_bytes(SECRET_BYTES)), secrets.token_bytes(SECRET_BYTES))

    def __repr__(self) -> str:
        return f"MetaKeys({self.network_address})"

    @cached_property
    def network_key(self) -> Ed25519PublicKey:
        return Ed25519PublicKey(bytes(nacl.signing.SigningKey(self.network_seed).verify_key))

    @property
    def address(self) -> bytes:
        """The network address, 20 bytes."""
        return self.network_key.address

    @property
    def network_address(self) -> str:
        """The network address as text, stsds…"""
        return bech32.encode(self.address, bech32.NODE)

    @property
    def network_pubkey(self) -> str:
        """The network key as text, stsdspub…"""
        return bech32.encode(self.network_key.raw, bech32.NODE_PUB)

    @cached_property
    def bls_pubkey(self) -> bytes:
        return bls.public_key(self.bls_secret)

    @cached_property
    def ledger_consensus_pubkey(self) -> bytes:
        return bytes(nacl.signing.SigningKey(self.ledger_seed).verify_key)

    def sign(self, message: bytes) -> bytes:
        """A BLS signature, 96 bytes."""
        return bls.sign(self.bls_secret, message)

    def proof_of_possession(self, chain_id: str) -> bytes:
        """That this node has the BLS key's secret, 96 bytes, good on one chain."""
        return bls.prove_possession(self.bls_secret, chain_id, self.address, self.bls_pubkey)

    def registered(self, chain_id: str) -> Any:
        """``stratos.settlement.v1.MetaKeys`` as genesis has it."""
        return message_class("stratos.settlement.v1.MetaKeys")(
            meta_node=self.network_address,
            bls_pubkey=self.bls_pubkey,
            proof_of_possession=self.proof_of_possession(chain_id),
            ledger_consensus_pubkey=self.ledger_consensus_pubkey,
        )

    def genesis_node(self, chain_id: str, owner: str, deposit_wei: int, moniker: str) -> dict[str, Any]:
        """A bonded meta node of these keys in JSON, as ``genesis.build.add_meta_node`` takes it: ``GenesisMetaNode`` with the keys and their proof."""
        node = message_class("stratos.register.v1.GenesisMetaNode")(
            network_address=self.network_address,
            pubkey=public_key_to_any(self.network_key),
            status="BOND_STATUS_BONDED",
            tokens={"denom": "wei", "amount": str(deposit_wei)},
            owner_address=owner,
            description={"moniker": moniker},
        )
        made: dict[str, Any] = to_json(node)
        return made | self.proof(chain_id)

    def proof(self, chain_id: str) -> dict[str, Any]:
        """The part of ``registered`` in JSON that is not the node's name."""
        made = to_json(self.registered(chain_id))
        return {name: made[name] for name in ("bls_pubkey", "proof_of_possession", "ledger_consensus_pubkey")}

    def told(self) -> dict[str, str]:
        """The public parts: texts of the network key, the others in hex."""
        return {
            "network_address": self.network_address,
            "network_pubkey": self.network_pubkey,
            "bls_pubkey": self.bls_pubkey.hex(),
            "ledger_consensus_pubkey": self.ledger_consensus_pubkey.hex(),
        }

    def save(self, path: Path) -> None:
        """Write the file, mode 0600. Raises ConfigError when there is one already: keys are not replaced by accident."""
        if path.exists():
            raise ConfigError(f"{path} exists: move it away first; a meta node that loses its keys cannot sign reports")
        secret = {
            "network_seed": self.network_seed.hex(),
            "bls_secret": self.bls_secret.to_bytes(SECRET_BYTES, "big").hex(),
            "ledger_seed": self.ledger_seed.hex(),
        }
        write_private(path, {**self.told(), **secret})


def path_in(home: Home) -> Path:
    """Where a node's home has the file."""
    return home.root / "config" / FILE_NAME


def read(path: Path) -> MetaKeys:
    """The keys of a file. Raises ConfigError when it is missing, open to others, damaged, or when its parts are not of the same keys."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
        with os.fdopen(descriptor, "rb") as file:
            mode = os.fstat(descriptor).st_mode & 0o777
            text = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}): make keys with `stchaind meta-keys new`") from None
    if mode & 0o077:
        raise ConfigError(f"{path} has mode {mode:04o}: others must not read or write a meta node's keys; run `chmod 600 {path}`")
    try:
        found = json.loads(text)
        secret = {name: bytes.fromhex(found[name]) for name in _SECRETS}
        if any(len(one) != SECRET_BYTES for one in secret.values()):
            raise ValueError("a secret has another size")
        keys = MetaKeys(secret["network_seed"], int.from_bytes(secret["bls_secret"], "big"), secret["ledger_seed"])
        told = keys.told()
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ConfigError(
            f"{path} is no file of meta node keys: expected {', '.join(_SECRETS)} of 32 bytes in hex; restore it from your backup"
        ) from None
    for name, value in told.items():
        if found.get(name, value) != value:
            raise ConfigError(f"{path}: {name} does not belong to the secret beside it; restore the file from your backup")
    return keys
