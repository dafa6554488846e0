"""The home of a resource node: a folder that only its owner reads, with settings, keys, shares, receipts and what must survive a restart.

    <home>/config.toml            settings                     <home>/lock        held by the running node
           accounts/<address>.json  keys, sealed               <home>/running     there while a node runs: found at a start, the last one was killed
           storage/               shares                       <home>/state.json  maintenance, leaving, an improper stop that no meta node knows of
           receipts.db            receipts                     <home>/ppd.sock    how commands reach the running node
           refused.jsonl          receipts that were refused for good, with the evidence

Files are written whole or not at all. Source: reference sds.md 11.1; storage-interfaces.md 9 (graceful stop, recovery).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Final

from chain.crypto.keys import PrivateKey
from sds_node import keystore
from sds_node.files import sync_folder
from sds_node.keystore import Kind, StoredKey
from sds_node.resource.daemon.config import Config, load, text_of

DEFAULT_HOME: Final = "~/.ppd"
HOME_VARIABLE: Final = "PPD_HOME"
MAX_STATE_BYTES: Final = 1 << 16
MAX_ACCOUNTS: Final = 1_000
MAX_REFUSED_BYTES: Final = 64 << 20


class HomeError(Exception):
    """The home cannot be used as it is. The text says what was expected, what is there and what to do."""


class HomeLocked(HomeError):
    """A node runs in this home."""


@dataclass(frozen=True)
class State:
    """What a node remembers over restarts."""

    maintenance_until_s: int = 0
    """Announced maintenance ends then, Unix seconds; 0 for none."""
    is_leaving: bool = False
    """The node was unbonded by ``ppd exit``: it takes no new shares."""
    beneficiary: str = ""
    """The account that the chain pays for this node, as last seen there; empty if it was never asked."""
    was_killed: bool = False
    """An earlier run ended without a graceful stop, and no meta node was told yet."""


@dataclass(frozen=True)
class Account:
    """A key file: its path and whose it is, as its name says."""

    path: Path
    address: str

    @property
    def kind(self) -> Kind:
        return Kind.P2P if self.address.startswith("stsds1") else Kind.WALLET


def default_home() -> Path:
    """``$PPD_HOME``, else ~/.ppd."""
    return Path(os.environ.get(HOME_VARIABLE) or DEFAULT_HOME).expanduser()


class Home:
    """A resource node's folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.config_path = root / "config.toml"
        self.accounts = root / "accounts"
        self.receipts_path = root / "receipts.db"
        self.refused_path = root / "refused.jsonl"
        self.socket_path = root / "ppd.sock"
        self._state_path, self._marker, self._lock = root / "state.json", root / "running", root / "lock"

    @property
    def is_made(self) -> bool:
        return self.config_path.exists()

    def make(self, config: Config) -> None:
        """Make the folder with its settings. Raises HomeError when there is one."""
        if self.is_made:
            raise HomeError(f"{self.config_path} is there already: change it with `ppd config set`, or name another --home")
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.accounts.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise HomeError(f"the home {self.root} cannot be made ({error.strerror}): name another --home") from None
        self.save(config)

    def config(self) -> Config:
        """The settings. Raises HomeError where there is no home, SettingsError for settings that mean nothing."""
        if not self.is_made:
            raise HomeError(f"there is no resource node in {self.root}: make one with `ppd init`, or name its --home")
        return load(self.config_path)

    def save(self, config: Config) -> None:
        """Write the settings. Raises HomeError."""
        write_whole(self.config_path, text_of(config).encode())

    def storage_path(self, config: Config) -> Path:
        """The folder of the shares."""
        return self.root / Path(config.storage.path).expanduser()

    # --- keys ---------------------------------------------------------------------------------------------------------------

    def key_files(self) -> list[Account]:
        """The key files, by address; at most 1,000."""
        if not self.accounts.is_dir():
            return []
        names = sorted(path for path in self.accounts.iterdir() if path.suffix == ".json" and path.stem.startswith(("st1", "stsds1")))
        return [Account(path, path.stem) for path in names[:MAX_ACCOUNTS]]

    def add_key(self, key: StoredKey, password: str) -> Account:
        """Keep a key. Raises KeyFileError, also for one that is there."""
        self.accounts.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = keystore.save(self.accounts, key, password)
        return Account(path, key.address_text)

    def load_key(self, address: str, password: str) -> StoredKey:
        """The key of an address. Raises KeyFileError, HomeError when there is no file of it."""
        found = next((one for one in self.key_files() if one.address == address), None)
        if found is None:
            raise HomeError(f"there is no key file of {address or 'the node'} in {self.accounts}: import it with `ppd keys import`")
        return keystore.load(found.path, password)

    def wallet_key(self, config: Config, password: str) -> PrivateKey:
        """The owner's key. Raises KeyFileError, HomeError."""
        return PrivateKey(self.load_key(config.keys.wallet, password).private_key, "eth_secp256k1")

    # --- what is remembered -------------------------------------------------------------------------------------------------

    def state(self) -> State:
        """What earlier runs left. A file that cannot be understood counts as a kill: whoever lost it cannot say otherwise."""
        try:
            with self._state_path.open("rb") as file:
                found: Any = json.loads(file.read(MAX_STATE_BYTES))
        except FileNotFoundError:
            return State()
        except (OSError, ValueError, RecursionError):
            return State(was_killed=True)
        if not isinstance(found, dict):
            return State(was_killed=True)
        known: dict[str, Any] = {one.name: type(one.default) for one in fields(State)}
        kept: dict[str, Any] = {name: given for name, given in found.items() if type(given) is known.get(name)}
        return State(**kept)

    def remember(self, **changes: Any) -> State:
        """Change what is remembered; on disk when it returns. Raises HomeError."""
        state = replace(self.state(), **changes)
        write_whole(self._state_path, json.dumps(asdict(state), indent=2).encode() + b"\n")
        return state

    def note_refused(self, rows: Sequence[dict[str, str]]) -> bool:
        """Keep receipts that were refused for good, with the reasons: evidence for whoever looks. On disk when it returns.

        False when nothing of it was kept, since there are 64 MiB already. Raises OSError; what was written of it then is taken back.
        """
        lines = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
        fd = os.open(self.refused_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            before = os.fstat(fd).st_size
            if before + len(lines) > MAX_REFUSED_BYTES:
                return False
            try:
                left = memoryview(lines)
                while left:
                    left = left[os.write(fd, left) :]
                os.fsync(fd)
            except OSError:
                os.ftruncate(fd, before)
                raise
            return True
        finally:
            os.close(fd)

    # --- one node at a time -------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the home for this process. Raises HomeLocked while another one does."""
        try:
            fd = os.open(self._lock, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise HomeError(f"{self._lock} cannot be opened ({error.strerror}): see that the home is yours and its disk has room") from None
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.EACCES):
                    raise HomeError(f"{self._lock} cannot be locked ({error.strerror}): is the home on a network disk?") from None
                raise HomeLocked(f"a node runs in {self.root}: stop it first, or name another --home") from None
            yield
        finally:
            os.close(fd)

    def begin_run(self, started_s: int) -> State:
        """Note that a node runs. If the last one left its note, it was killed: that is remembered until a meta node was told."""
        state = self.state()
        if self._marker.exists():
            state = self.remember(was_killed=True)
        write_whole(self._marker, json.dumps({"pid": os.getpid(), "started_s": started_s}).encode() + b"\n")
        return state

    def end_run(self) -> None:
        """The node stopped as it should."""
        with contextlib.suppress(FileNotFoundError):
            self._marker.unlink()
        sync_folder(self.root)


def write_whole(path: Path, data: bytes) -> None:
    """Write a file of mode 0600, whole or not at all, synced. Raises HomeError."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()
            raise
        sync_folder(path.parent)
    except OSError as error:
        raise HomeError(f"{path} cannot be written ({error.strerror}): see that the home is yours and its disk has room") from None
