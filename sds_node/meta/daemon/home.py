"""The home of a meta node: where its settings, keys and databases are.

~/.spd/config.toml           what the operator decides
       config/meta_keys.json three keys as `stchaind meta-keys new` makes them, mode 0600
       owner.json            the wallet that owns the node, encrypted; it pays for reports
       data/                 ledger and books
       comet/                CometBFT's home, where several meta nodes keep one ledger
"""

from __future__ import annotations

import fcntl
import ipaddress
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from chain.metakeys import FILE_NAME
from sds_node import settings
from sds_node.meta.lateness import FREE_S, RECEIPTS_S
from sds_node.settings import value

DEFAULT: Final = Path("~/.spd")
WIRE_PORT: Final = 18_881
METRICS_PORT: Final = 18_882
COMET_PORT: Final = 18_883
COMET_RPC_PORT: Final = 18_884


class HomeError(Exception):
    """A home that cannot be used. The text says why and what to do."""


@dataclass(frozen=True)
class Chain:
    rpc: str = value("http://127.0.0.1:26657", "CometBFT RPC of a value-chain node that you trust.")
    gas_price: str = value("", "Price of gas for reports, as 1gwei; empty: the node's own minimum.")


@dataclass(frozen=True)
class Network:
    host: str = value("127.0.0.1", "Address on which users and resource nodes are listened to; 0.0.0.0 for all.")
    port: int = value(WIRE_PORT, "TCP port of the wire.", least=0, most=65_535)
    endpoint: str = value("", "What others are told, as host:port; empty: host and port above.")
    peers: tuple[str, ...] = value((), "The other meta nodes, each as stsdspub1…@host:port.")
    is_relay: bool = value(True, "Whether connections to resource nodes behind NAT are relayed.")
    relay_bytes_per_s: int = value(64 << 20, "What is relayed for all of them together, bytes per second.", least=1 << 16, most=1 << 40)


@dataclass(frozen=True)
class LedgerPart:
    url: str = value("", "Database of the ledger, as postgresql://…; empty: SQLite in data/ledger.db.")
    keep_days: int = value(30, "How many days the ledger's log is kept; what it led to stays.", least=1, most=36_500)


@dataclass(frozen=True)
class Comet:
    host: str = value("127.0.0.1", "Address at which CometBFT of the other meta nodes is listened to; 0.0.0.0 for all.")
    port: int = value(COMET_PORT, "Its TCP port.", least=1, most=65_535)
    rpc_port: int = value(COMET_RPC_PORT, "TCP port of CometBFT's RPC, on 127.0.0.1 alone.", least=1, most=65_535)
    endpoint: str = value("", "Where the others reach host and port above, as host:port; empty: as they stand.")
    peers: tuple[str, ...] = value((), "CometBFT of the other meta nodes, each as stsds1…@host:port.")
    keep_blocks: int = value(1_000_000, "How many blocks are kept for meta nodes that were away.", least=10_000, most=1_000_000_000)


@dataclass(frozen=True)
class Keys:
    meta_keys: str = value("", f"The meta node's keys; empty: config/{FILE_NAME} in the home.")
    owner: str = value("", "The wallet that owns the meta node, st1…: its key file is in accounts/. It pays for reports.")
    password_file: str = value("", "A file with the password of the owner's key file; empty: it is asked for, or SPD_PASSWORD_FILE names it.")


@dataclass(frozen=True)
class Times:
    hello_s: int = value(60, "How often resource nodes say hello.", least=1, most=600)
    status_s: int = value(300, "How often what was seen of nodes enters the ledger.", least=1, most=3_600)
    window_s: int = value(60, "How often receipts are settled.", least=1, most=FREE_S - RECEIPTS_S - 60)
    lost_s: int = value(
        86_400, "A resource node of which nothing was heard for so long is lost: its shares are made again.", least=60, most=2_592_000
    )
    audit_day_s: int = value(86_400, "In so long every resource node is audited once.", least=1, most=86_400)


@dataclass(frozen=True)
class Nodes:
    activates: bool = value(True, "Whether the deposits of resource nodes that are online are made effective.")
    least_score: int = value(3_000, "Nodes with a lower score are not activated again.", least=0, most=10_000)


@dataclass(frozen=True)
class Uploads:
    reports: bool = value(
        True, "Whether public files are reported to the chain. A transaction costs some 86,000 gas, and 16,000 for each of its files, 50 at most."
    )
    most_per_hour: int = value(3_600, "So many of them in an hour at most; the others wait.", least=1, most=1_000_000)


@dataclass(frozen=True)
class Metrics:
    host: str = value("127.0.0.1", "Address of Prometheus metrics and /health.")
    port: int = value(METRICS_PORT, "Their port; 0: none.", least=0, most=65_535)


@dataclass(frozen=True)
class Settings:
    chain: Chain = field(default_factory=Chain)
    network: Network = field(default_factory=Network)
    ledger: LedgerPart = field(default_factory=LedgerPart)
    comet: Comet = field(default_factory=Comet)
    keys: Keys = field(default_factory=Keys)
    times: Times = field(default_factory=Times)
    nodes: Nodes = field(default_factory=Nodes)
    uploads: Uploads = field(default_factory=Uploads)
    metrics: Metrics = field(default_factory=Metrics)


@dataclass(frozen=True)
class Home:
    """A folder. ``settings`` are read once."""

    root: Path
    settings: Settings = field(default_factory=Settings)

    @classmethod
    def open(cls, root: Path) -> Home:
        """The home in a folder. Raises SettingsError, HomeError when there is none."""
        root = root.expanduser().absolute()
        if not (root / "config.toml").exists():
            raise HomeError(f"{root} is no home of a meta node: make one with `spd init --home {root}`")
        return cls(root, settings.read(Settings, root / "config.toml"))

    def within(self, path: str) -> Path:
        """A path of the settings: relative ones are in the home."""
        return self.root / Path(path).expanduser()

    def check(self) -> None:
        """Raises HomeError for settings that name no place where others can reach the node."""
        network = self.settings.network
        try:
            is_everywhere = ipaddress.ip_address(network.host).is_unspecified
        except ValueError:
            is_everywhere = False
        if is_everywhere and not network.endpoint:
            raise HomeError(
                f"network.host is {network.host}, which is nowhere that others can dial: `spd config set network.endpoint meta.example.org:{network.port}`"
            )

    @property
    def meta_keys(self) -> Path:
        return self.within(self.settings.keys.meta_keys or f"config/{FILE_NAME}")

    @property
    def owner(self) -> Path:
        return self.root / "accounts" / f"{self.settings.keys.owner}.json"

    @property
    def ledger_url(self) -> str:
        return self.settings.ledger.url or f"sqlite:///{self.root / 'data' / 'ledger.db'}"

    @property
    def comet(self) -> Path:
        """CometBFT's home: with ``config/genesis.json`` in it the ledger's order comes from blocks."""
        return self.root / "comet"

    @property
    def books(self) -> Path:
        return self.root / "data" / "books.db"

    def make(self) -> None:
        """Write the settings and make the folders. Raises HomeError when settings are there."""
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name in ("config", "data", "accounts"):
            (self.root / name).mkdir(exist_ok=True, mode=0o700)
        try:
            with (self.root / "config.toml").open("x") as file:
                file.write(settings.write(self.settings))
        except FileExistsError:
            raise HomeError(f"{self.root} has a config.toml already: nothing was changed") from None

    def save(self) -> None:
        """Write the settings anew, whole or not at all."""
        temporary = self.root / ".config.toml.new"
        temporary.write_text(settings.write(self.settings))
        temporary.replace(self.root / "config.toml")

    def lock(self) -> int:
        """Hold the home until the descriptor is closed. Raises HomeError while another process does."""
        descriptor = os.open(self.root / "data", os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise HomeError(f"a meta node runs in {self.root} already: stop it first") from None
        return descriptor
