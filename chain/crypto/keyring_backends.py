"""Where a keyring keeps its items: a folder of sealed files, the desktop's secret store, or memory.

The folders are those of ``github.com/99designs/keyring`` as SDK 0.50.9 sets it up, so that its tools and ours share them: one file
per item, named by the item with ``/`` and ``%`` escaped, holding a ``chain.crypto.jwe`` token of the item's JSON. ``keyhash`` in
``keyring-file`` is the bcrypt hash of the passphrase.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import json
import os
import secrets
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias

import bcrypt

from chain.crypto import jwe
from chain.errors import WrongPassword

MIN_PASSPHRASE_CHARACTERS: Final = 8
MAX_PASSPHRASE_BYTES: Final = 72
MAX_ATTEMPTS: Final = 3
MAX_FILE_BYTES: Final = 1 << 20
_KEYHASH: Final = "keyhash"
_KEYHASH_COST: Final = 10
_TEST_PASSPHRASE: Final = "test"  # noqa: S105  (public on purpose: the test backend hides nothing)

Ask: TypeAlias = Callable[[str], str]
"""Prompt in, the line the user typed out; raises EOFError when there is none."""
Notify: TypeAlias = Callable[[str], None]
"""Takes a line for the user that is not the result (simd prints those to stderr)."""


class KeyringError(Exception):
    """The keyring cannot do what was asked; the message says why and what to do."""


class KeyringLocked(KeyringError):
    """No key can be read, because the passphrase is not to be had or cannot be checked."""


class Backend(Protocol):
    """Named byte strings. ``get`` answers None for what is not there; every method may raise KeyringError or WrongPassword."""

    def get(self, name: str) -> bytes | None: ...
    def set(self, name: str, data: bytes) -> None: ...
    def remove(self, name: str) -> None: ...
    def names(self) -> list[str]: ...


class MemoryBackend:
    """Forgotten with the process."""

    def __init__(self) -> None:
        self._items: dict[str, bytes] = {}

    def get(self, name: str) -> bytes | None:
        return self._items.get(name)

    def set(self, name: str, data: bytes) -> None:
        self._items[name] = data

    def remove(self, name: str) -> None:
        self._items.pop(name, None)

    def names(self) -> list[str]:
        return sorted(self._items)


class FolderBackend:
    """Sealed files in ``folder`` (made 0700 at the first write, files 0600). The passphrase is asked for once, when first needed."""

    def __init__(self, folder: Path, passphrase: Callable[[], str]) -> None:
        self._folder = folder
        self._passphrase = passphrase
        self._unlocked: str | None = None

    def get(self, name: str) -> bytes | None:
        path = self._path(name)
        try:
            with path.open("rb") as file:
                token = file.read(MAX_FILE_BYTES + 1)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise KeyringError(f"cannot read {path}: {error.strerror}") from None
        if len(token) > MAX_FILE_BYTES:
            raise KeyringError(f"{path} is larger than {MAX_FILE_BYTES} bytes: not a key file")
        return _open_item(path, token, self._unlock())

    def set(self, name: str, data: bytes) -> None:
        passphrase = self._unlock()
        item = {
            "Key": name,
            "Data": base64.b64encode(data).decode(),
            "Label": "",
            "Description": "",
            "KeychainNotTrustApplication": False,
            "KeychainNotSynchronizable": False,
        }
        created = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M:%S.%f +0000 UTC")
        write_private(self._path(name), jwe.seal(json.dumps(item, separators=(",", ":")).encode(), passphrase, created).encode())

    def remove(self, name: str) -> None:
        try:
            self._path(name).unlink(missing_ok=True)
        except OSError as error:
            raise KeyringError(f"cannot remove {self._path(name)}: {error.strerror}") from None

    def names(self) -> list[str]:
        try:
            return sorted(_unescape(entry.name) for entry in self._folder.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise KeyringError(f"cannot read the folder {self._folder}: {error.strerror}") from None

    def _path(self, name: str) -> Path:
        return self._folder / name.replace("%", "%25").replace("/", "%2F")

    def _unlock(self) -> str:
        if self._unlocked is None:
            self._unlocked = self._passphrase()
        return self._unlocked


def plain_folder(root: Path) -> FolderBackend:
    """``keyring-test`` in ``root``: anybody who can read the folder has the keys."""
    return FolderBackend(root / "keyring-test", lambda: _TEST_PASSPHRASE)


def file_folder(root: Path, ask: Ask, notify: Notify) -> FolderBackend:
    """``keyring-file`` in ``root``, under a passphrase that ``ask`` brings."""
    folder = root / "keyring-file"
    return FolderBackend(folder, lambda: _folder_passphrase(folder, ask, notify))


def _folder_passphrase(folder: Path, ask: Ask, notify: Notify) -> str:
    """The passphrase of ``folder``, checked; a new folder gets one, typed twice. Raises WrongPassword after three attempts."""
    try:
        keyhash = (folder / _KEYHASH).read_bytes()[:200]
    except (FileNotFoundError, NotADirectoryError):
        keyhash = None
    except OSError as error:
        raise KeyringLocked(f"cannot read {folder / _KEYHASH}: {error.strerror}") from None
    known = next(iter(sorted(folder.glob("*.info"))), None) if keyhash is None else None
    for attempt in range(1, MAX_ATTEMPTS + 1):
        try:
            typed = ask(f"Enter keyring passphrase (attempt {attempt}/{MAX_ATTEMPTS}):")
            problem = _problem(typed)
            if problem is None and keyhash is not None and not _matches(typed, keyhash):
                problem = "incorrect passphrase"
            if problem is None and known is not None and not _opens(known, typed):
                problem = "incorrect passphrase"
            if problem is None and keyhash is None and known is None and ask("Re-enter keyring passphrase:") != typed:
                problem = "passphrase do not match"
        except EOFError:
            raise KeyringLocked("no keyring passphrase was given: type it, or pass it as a line on standard input") from None
        if problem is None:
            if keyhash is None:
                write_private(folder / _KEYHASH, bcrypt.hashpw(typed.encode(), bcrypt.gensalt(_KEYHASH_COST, b"2a")))
            return typed
        notify(problem)
    raise WrongPassword("too many failed passphrase attempts")


def _problem(passphrase: str) -> str | None:
    if len(passphrase.encode()) < MIN_PASSPHRASE_CHARACTERS:
        return f"password must be at least {MIN_PASSPHRASE_CHARACTERS} characters"
    if len(passphrase.encode()) > MAX_PASSPHRASE_BYTES:
        return f"password must be at most {MAX_PASSPHRASE_BYTES} bytes"
    return None


def _matches(passphrase: str, keyhash: bytes) -> bool:
    try:
        return bcrypt.checkpw(passphrase.encode(), keyhash.strip())
    except ValueError:
        raise KeyringLocked("the file keyhash of the keyring is damaged: restore it, or remove it if you know the passphrase") from None


def _opens(path: Path, passphrase: str) -> bool:
    try:
        _open_item(path, path.read_bytes(), passphrase)
    except WrongPassword:
        return False
    return True


def _open_item(path: Path, token: bytes, passphrase: str) -> bytes:
    try:
        item: Any = json.loads(jwe.open_token(token.decode("ascii"), passphrase))
        return base64.b64decode(item["Data"], validate=True)
    except jwe.WrongKey as error:
        raise WrongPassword(f"{path.name}: {error}") from None
    except (jwe.JweError, UnicodeDecodeError, ValueError, KeyError, TypeError, binascii.Error, RecursionError) as error:
        raise KeyringError(f"{path} is no key file: {error}") from None


def write_private(path: Path, data: bytes) -> None:
    """Write a file that only its owner reads, whole or not at all. Raises KeyringError."""
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise KeyringError(f"cannot write {path}: {error.strerror}") from None


def _unescape(name: str) -> str:
    return name.replace("%2F", "/").replace("%2f", "/").replace("%25", "%")


class SecretServiceBackend:
    """The desktop's secret store (Secret Service, macOS Keychain, Windows Credential Locker) through PyPI's ``keyring``.

    Such stores cannot be listed by name everywhere, so one more item holds the names.
    """

    _INDEX: Final = "names"

    def __init__(self, service: str) -> None:
        import keyring
        from keyring.backends import fail, null

        self._service = service
        self._store = keyring.get_keyring()
        if isinstance(self._store, fail.Keyring | null.Keyring) or not getattr(self._store, "backends", True):
            raise KeyringError(
                "no secret store runs on this machine (Secret Service, Keychain or Credential Locker): use --keyring-backend file, or test for throw-away keys"
            )

    def get(self, name: str) -> bytes | None:
        text = self._call(lambda: self._store.get_password(self._service, name))
        try:
            return None if text is None else base64.b64decode(text, validate=True)
        except binascii.Error:
            raise KeyringError(f"the secret store's item {name!r} was not written by this program") from None

    def set(self, name: str, data: bytes) -> None:
        self._call(lambda: self._store.set_password(self._service, name, base64.b64encode(data).decode()))
        self._write_index({*self.names(), name})

    def remove(self, name: str) -> None:
        if self.get(name) is not None:
            self._call(lambda: self._store.delete_password(self._service, name))
        self._write_index({*self.names()} - {name})

    def names(self) -> list[str]:
        raw = self.get(self._INDEX)
        found = json.loads(raw) if raw else []
        return sorted(str(name) for name in found)

    def _write_index(self, names: Iterable[str]) -> None:
        text = base64.b64encode(json.dumps(sorted(names)).encode()).decode()
        self._call(lambda: self._store.set_password(self._service, self._INDEX, text))

    def _call(self, action: Callable[[], Any]) -> Any:
        from keyring.errors import KeyringError as StoreError

        try:
            return action()
        except StoreError as error:
            raise KeyringError(f"the secret store refused: {error}; unlock it, or use --keyring-backend file") from None
