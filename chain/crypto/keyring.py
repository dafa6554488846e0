"""Named keys of a user: kept, found by name or address, used for signing (SDK 0.50.9 ``crypto/keyring``).

Each key is a protobuf ``cosmos.crypto.keyring.v1.Record`` under ``<name>.info``; ``<address in hex>.address`` leads back to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from google.protobuf.message import DecodeError

from chain.codec.registry import Any_, message_class
from chain.crypto import address as bech32
from chain.crypto import amino, armor
from chain.crypto.keyring_backends import (
    Ask,
    Backend,
    KeyringError,
    KeyringLocked,
    MemoryBackend,
    Notify,
    SecretServiceBackend,
    file_folder,
    plain_folder,
)
from chain.crypto.keys import ETH_SECP256K1_URL, SECP256K1_URL, MultisigPublicKey, PrivateKey, PublicKey, public_key_from_any, public_key_to_any
from chain.crypto.terminal import ask_secret, remark
from chain.errors import AppError, InvalidAddress, InvalidPubKey, KeyNotFound

__all__ = ["ALGORITHMS", "BACKENDS", "Keyring", "KeyringError", "MissingKey", "Record", "open_keyring"]

BACKENDS: Final = ("os", "file", "test", "memory")
ALGORITHMS: Final = ("eth_secp256k1", "secp256k1")
SERVICE: Final = "stchaind"
MAX_NAME_CHARACTERS: Final = 100
_RECORD: Final = message_class("cosmos.crypto.keyring.v1.Record")
_PRIVATE_TYPES: Final = {
    SECP256K1_URL.replace("PubKey", "PrivKey"): "secp256k1",
    ETH_SECP256K1_URL.replace("PubKey", "PrivKey"): "eth_secp256k1",
}
_PRIVATE_MESSAGE: Final = {url: message_class(url[1:]) for url in _PRIVATE_TYPES}
_PRIVATE_URL: Final = {algorithm: url for url, algorithm in _PRIVATE_TYPES.items()}


@dataclass(frozen=True, slots=True)
class Record:
    """One key. ``kind``: ``local`` (with its private key), ``ledger``, ``offline`` (public key only) or ``multi``."""

    name: str
    kind: str
    public_key: PublicKey
    private_key: PrivateKey | None = None
    path: tuple[int, int, int, bool, int] | None = None

    @property
    def address(self) -> bytes:
        return self.public_key.address

    @staticmethod
    def of(name: str, key: PublicKey | PrivateKey) -> Record:
        """The record that keeps ``key``: local for a private key, multi for a multisig key, else offline."""
        if isinstance(key, PrivateKey):
            return Record(name, "local", key.public_key, key)
        return Record(name, "multi" if isinstance(key, MultisigPublicKey) else "offline", key)


class MissingKey(KeyringError, AppError):
    """sdk/22: no key of that name or address."""

    code = KeyNotFound.code
    description = KeyNotFound.description


def open_keyring(backend: str, folder: Path, *, ask: Ask = ask_secret, notify: Notify = remark) -> Keyring:
    """The keyring ``backend`` (``os``, ``file``, ``test`` or ``memory``) under ``folder``, the node's home or ``--keyring-dir``.

    ``ask`` brings the passphrase of the ``file`` backend (from the terminal or standard input), ``notify`` takes remarks (stderr). Nothing is written before the first key.
    Raises KeyringError for an unknown backend or a secret store that does not run.
    """
    if backend == "test":
        return Keyring(plain_folder(folder), backend, notify)
    if backend == "file":
        return Keyring(file_folder(folder, ask, notify), backend, notify)
    if backend == "memory":
        return Keyring(MemoryBackend(), backend, notify)
    if backend == "os":
        return Keyring(SecretServiceBackend(SERVICE), backend, notify)
    raise KeyringError(f"unknown keyring backend {backend!r}: expected one of {', '.join(BACKENDS)}")


class Keyring:
    """Keys of one backend. A name that is not there raises MissingKey (sdk/22), a wrong passphrase WrongPassword (sdk/23)."""

    def __init__(self, items: Backend, backend: str, notify: Notify) -> None:
        self.backend = backend
        self._items = items
        self._notify = notify

    def records(self) -> list[Record]:
        """Every key, by name. One that cannot be read is reported and left out; a keyring that cannot be opened raises."""
        found = []
        for item in sorted(self._items.names()):
            if item.endswith(".info"):
                try:
                    found.append(self.key(item.removesuffix(".info")))
                except KeyringLocked:
                    raise
                except (KeyringError, amino.AminoError, InvalidPubKey) as error:
                    self._notify(f"migrate err for key {item}: {error}")
        return found

    def has(self, name: str) -> bool:
        try:
            self.key(name)
        except MissingKey:
            return False
        return True

    def key(self, name: str) -> Record:
        """The key of that name. A record in the old amino form is rewritten in the new one on the way."""
        item = f"{name}.info"
        raw = self._items.get(item)
        if not raw:
            raise MissingKey(item)
        record = _decode(raw)
        if record is None:
            record = _from_legacy(item, raw)
            self._items.set(item, _encode(record))
            self._notify(f"Successfully migrated key {item}.")
        return record

    def key_by_address(self, address: bytes) -> Record:
        """The key of that address."""
        raw = self._items.get(f"{address.hex()}.address")
        if not raw:
            raise MissingKey(f"key with address {bech32.encode(address)} not found")
        return self.key(raw.decode("utf-8", "replace").removesuffix(".info"))

    def find(self, reference: str) -> Record:
        """The key whose name, or else whose ``st1…`` address, is ``reference``."""
        try:
            return self.key(reference)
        except MissingKey as error:
            try:
                address = bech32.decode(reference)
            except InvalidAddress:
                raise error from None
        return self.key_by_address(address)

    def add(self, record: Record, *, replace: bool = False) -> Record:
        """Keep a new key. Raises KeyringError if its name (unless ``replace``) or its address is taken; then nothing has changed."""
        _check_name(record.name)
        taken = self.has(record.name)
        if taken and not replace:
            raise KeyringError(f"cannot overwrite key {record.name!r}: delete it first")
        try:
            other = self.key_by_address(record.address).name
        except MissingKey:
            other = record.name
        if other != record.name:
            raise KeyringError(f"duplicated address created: {bech32.encode(record.address)} is already kept as {other!r}")
        if taken:
            self.delete(record.name)
        self._write(record)
        return record

    def add_private(self, name: str, key: PrivateKey) -> Record:
        """Keep a private key."""
        return self.add(Record.of(name, key))

    def add_public(self, name: str, key: PublicKey) -> Record:
        """Keep a public key alone; a multisig key becomes a ``multi`` record."""
        return self.add(Record.of(name, key))

    def delete(self, name: str) -> Record:
        """Remove a key; answers what it was."""
        record = self.key(name)
        pointer = f"{record.address.hex()}.address"
        if self._items.get(pointer) == f"{name}.info".encode():
            self._items.remove(pointer)
        self._items.remove(f"{name}.info")
        return record

    def rename(self, old: str, new: str) -> Record:
        """Give a key another name. Raises KeyringError if that is taken."""
        _check_name(new)
        record = self.key(old)
        if self.has(new):
            raise KeyringError(f"rename failed, {new}: key already exists")
        renamed = Record(new, record.kind, record.public_key, record.private_key, record.path)
        # The new name first: a crash between the steps leaves the key under both names, never under none.
        self._write(renamed)
        self._items.remove(f"{old}.info")
        return renamed

    def sign(self, name: str, message: bytes) -> tuple[bytes, PublicKey]:
        """``message`` signed with a local key, and its public key. Raises KeyringError for a key without private part."""
        key = self.private_key(name)
        return key.sign(message), key.public_key

    def private_key(self, name: str) -> PrivateKey:
        """The private key of that name. Raises KeyringError for a key that has none here."""
        record = self.key(name)
        if record.private_key is None:
            raise KeyringError(f"key {name!r} is {record.kind}: only local keys have a private key here")
        return record.private_key

    def export_armor(self, name: str, passphrase: str) -> str:
        """A private key as encrypted armor."""
        return armor.encrypt_private_key(self.private_key(name), passphrase)

    def import_armor(self, name: str, text: str, passphrase: str) -> Record:
        """Keep a private key from encrypted armor. Raises ArmorError, WrongPassword, KeyringError."""
        _check_name(name)
        if self.has(name):
            raise KeyringError(f"cannot overwrite key {name!r}: delete it first")
        return self.add_private(name, armor.decrypt_private_key(text, passphrase))

    def _write(self, record: Record) -> None:
        item = f"{record.name}.info"
        self._items.set(item, _encode(record))
        self._items.set(f"{record.address.hex()}.address", item.encode())


def _check_name(name: str) -> None:
    if not name.strip() or len(name) > MAX_NAME_CHARACTERS or not name.isprintable():
        raise KeyringError(f"a key's name has 1 to {MAX_NAME_CHARACTERS} printable characters, got {name[:40]!r}")


def _encode(record: Record) -> bytes:
    message = _RECORD(name=record.name, pub_key=public_key_to_any(record.public_key))
    if record.private_key is not None:
        url = _PRIVATE_URL[record.private_key.algorithm]
        message.local.priv_key.CopyFrom(Any_(type_url=url, value=_PRIVATE_MESSAGE[url](key=record.private_key.raw).SerializeToString()))
    elif record.kind == "ledger":
        purpose, coin_type, account, change, index = record.path or (0, 0, 0, False, 0)
        path = message.ledger.path
        path.purpose, path.coin_type, path.account, path.change, path.address_index = purpose, coin_type, account, change, index
    else:
        getattr(message, record.kind).SetInParent()
    raw: bytes = message.SerializeToString(deterministic=True)
    return raw


def _decode(raw: bytes) -> Record | None:
    """The record in protobuf form; None for bytes that are none. Raises KeyringError, InvalidPubKey."""
    try:
        message = _RECORD.FromString(raw)
    except DecodeError:
        return None
    kind = message.WhichOneof("item")
    if kind is None or not message.HasField("pub_key"):
        return None
    public_key = public_key_from_any(message.pub_key)
    if kind == "local":
        return Record(message.name, kind, public_key, _private_key(message.name, message.local.priv_key))
    if kind == "ledger":
        path = message.ledger.path
        return Record(message.name, kind, public_key, None, (path.purpose, path.coin_type, path.account, path.change, path.address_index))
    return Record(message.name, kind, public_key)


def _private_key(name: str, wrapped: Any) -> PrivateKey:
    url = wrapped.type_url
    if url not in _PRIVATE_TYPES:
        raise KeyringError(f"key {name!r} has a private key of type {url!r}: expected {' or '.join(ALGORITHMS)}")
    try:
        raw = _PRIVATE_MESSAGE[url].FromString(wrapped.value).key
        if len(raw) != 32:
            raise ValueError(f"it has {len(raw)} bytes, not 32")
        return PrivateKey(raw, _PRIVATE_TYPES[url])
    except (DecodeError, ValueError) as error:
        raise KeyringError(f"the private key of {name!r} is damaged: {error}") from None


def _from_legacy(item: str, raw: bytes) -> Record:
    try:
        old = amino.legacy_record(raw)
    except amino.AminoError as error:
        raise KeyringError(f"cannot read {item}: {error}") from None
    return Record(old.name, old.kind, old.public_key, old.private_key, old.path)
