"""A user's home: which wallet, which network; and what must outlive a command. It may be that of a resource node, too.

    <home>/user.toml                wallet, chain, meta nodes       <home>/user/results.sqlite    idempotency keys
           accounts/<address>.json  keys, sealed                           user/puts/             puts that were interrupted

The folder is read by its owner alone; files are written whole or not at all.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from chain.crypto.keys import PrivateKey
from sds_node import keystore
from sds_node.client.errors import StorageError
from sds_node.client.meta import parse_meta
from sds_node.client.storage import Storage
from sds_node.handles import HandleError, parse_wallet
from sds_node.keystore import Kind, StoredKey
from sds_node.settings import SettingsError, read, value, write

DEFAULT_RPC: Final = "http://127.0.0.1:26657"


@dataclass(frozen=True)
class Wallet:
    """Whose files they are."""

    address: str = value("", "The wallet, st1…: its key file is in accounts/. Its key opens all of its private files: keep its words.")


@dataclass(frozen=True)
class Chain:
    """The value chain."""

    id: str = value("", "The chain's id, as stratos-1.")
    rpc: str = value(DEFAULT_RPC, "CometBFT's RPC of a node that you trust: ozone is bought there.")


@dataclass(frozen=True)
class Network:
    """The storage network."""

    meta_nodes: tuple[str, ...] = value((), "Meta nodes to begin with, as stsds1…@host:port or stsdspub1…@host:port; they tell of the others.")


@dataclass(frozen=True)
class UserSettings:
    """All settings of a user."""

    wallet: Wallet = field(default_factory=Wallet)
    chain: Chain = field(default_factory=Chain)
    network: Network = field(default_factory=Network)


def checked(settings: UserSettings, where: str) -> UserSettings:
    """The settings, if a client can be made of them. Raises SettingsError, which names the setting."""
    try:
        parse_wallet(settings.wallet.address)
        for one in settings.network.meta_nodes:
            parse_meta(one)
    except HandleError as error:
        raise SettingsError(f"{where}: wallet.address: {error}") from None
    except ValueError as error:
        raise SettingsError(f"{where}: network.meta_nodes: {error}") from None
    if not settings.chain.id or not settings.network.meta_nodes:
        raise SettingsError(f"{where}: expected chain.id and at least one of network.meta_nodes: say them with `ppd setup`")
    return settings


class UserHome:
    """A user's folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.settings_path = root / "user.toml"
        self.accounts = root / "accounts"
        self.state = root / "user"

    def settings(self) -> UserSettings:
        """What ``user.toml`` says. Raises SettingsError."""
        return checked(read(UserSettings, self.settings_path), str(self.settings_path))

    def save(self, settings: UserSettings) -> None:
        """Write ``user.toml``. Raises SettingsError, StorageError."""
        text = write(checked(settings, str(self.settings_path)))
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            fresh = self.settings_path.with_suffix(f".{secrets.token_hex(4)}.new")
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as out:
                out.write(text)
                out.flush()
                os.fsync(out.fileno())
            os.replace(fresh, self.settings_path)
        except OSError as error:
            raise StorageError(f"{self.settings_path} cannot be written: {error.strerror}") from None

    def add_wallet(self, key: StoredKey, password: str) -> str:
        """A wallet's key into ``accounts/`` → its address. Raises KeyFileError, also when it is there already."""
        try:
            self.accounts.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"{self.accounts} cannot be made: {error.strerror}") from None
        keystore.save(self.accounts, key, password)
        return key.address_text

    def wallet_key(self, address: str, password: str) -> PrivateKey:
        """A wallet's key. Raises KeyFileError."""
        stored = keystore.load(self.accounts / f"{address}.json", password)
        if stored.kind is not Kind.WALLET or stored.address_text != address:
            raise keystore.KeyFileError(f"expected the key of wallet {address} in {self.accounts}, got that of {stored.address_text}")
        return PrivateKey(stored.private_key, "eth_secp256k1")

    def storage(self, key: PrivateKey, settings: UserSettings | None = None, *, clock: Callable[[], float] = time.time, **changes: Any) -> Storage:
        """The client of this home; use it with ``async with``. Raises SettingsError."""
        found = settings or self.settings()
        return Storage(key, found.chain.id, found.network.meta_nodes, state=self.state, clock=clock, **changes)
