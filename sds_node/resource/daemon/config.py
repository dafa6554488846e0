"""The settings of a resource node, ``<home>/config.toml``: what each is for, its default, and what texts in it mean.

    config.toml ─ sds_node.settings.read ─► Config ─ checked ─► MetaNode("stsds1…@host:port"), sizes ("500 GiB"), amounts ("10 stos" in wei)

Source: reference sds.md 11.1 (the original's names and ports), storage-interfaces.md 9.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from chain.crypto import address as bech32
from chain.errors import AppError
from chain.tx.fees import parse_amounts
from sds_node.endpoints import endpoint_text
from sds_node.gateway_settings import Settings as Gateway
from sds_node.p2p import P2PError, format_address, parse_node
from sds_node.settings import SettingsError, read, value, write

MAX_META_NODES: Final = 100
MAX_HOST_CHARACTERS: Final = 253
MAX_SIZE_BYTES: Final = 1 << 60
_UNITS: Final[dict[str, int]] = {"": 1, "B": 1}
_UNITS.update({f"{letter}B": 1000 ** (power + 1) for power, letter in enumerate("KMGTP")})
_UNITS.update({f"{letter}iB": 1024 ** (power + 1) for power, letter in enumerate("KMGTP")})
_SIZE: Final = re.compile(r"([0-9]{1,18})(?:\.([0-9]{1,6}))? ?([A-Za-z]{0,3})")
_LABEL: Final = r"[0-9A-Za-z](?:[0-9A-Za-z-]{0,61}[0-9A-Za-z])?"
_HOST: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_META: Final = re.compile(r"(?:snode:)?(stsds1[0-9a-z]+|stsdspub1[0-9a-z]+)@(.+)")


@dataclass(frozen=True)
class Keys:
    """Whose node it is."""

    wallet: str = value("", "The owner's wallet, st1…: its key file is in accounts/. It signs for the chain.")
    p2p: str = value("", "The node's own key, stsds1…: its key file is in accounts/.")
    beneficiary: str = value("", "The wallet that is paid, st1…; empty for the owner's.")


@dataclass(frozen=True)
class ChainSettings:
    """How the value chain is reached."""

    id: str = value("", "The chain's id, as stratos-1.")
    rpc: str = value("http://127.0.0.1:26657", "CometBFT's RPC of a node that you trust, best one of your own.")


@dataclass(frozen=True)
class Network:
    """Where the node listens, and whom it knows."""

    listen_host: str = value("127.0.0.1", "Where the node listens: an IP address. 0.0.0.0 to be reached from other machines, :: by IPv6.")
    listen_port: int = value(18081, "TCP port of the node.", least=0, most=65_535)
    public_endpoint: str = value("", "host:port by which others reach it; empty: the address that meta nodes see, with listen_port.")
    relay: bool = value(False, "true for a node that cannot be reached from outside: a meta node relays to it.")
    meta_nodes: tuple[str, ...] = value((), "Meta nodes to begin with, as stsds1…@host:port or stsdspub1…@host:port; they tell of the others.")
    upload_bytes_per_s: int = value(0, "Most that is sent, bytes per second over all connections; 0 for no limit.", least=0, most=1 << 40)
    download_bytes_per_s: int = value(0, "Most that is received, bytes per second over all connections; 0 for no limit.", least=0, most=1 << 40)
    transfers: int = value(512, "Puts and gets at a time.", least=1, most=65_536)


@dataclass(frozen=True)
class Storage:
    """Where shares are kept."""

    path: str = value("storage", "The folder of the shares; relative to the home.")
    capacity: str = value("0", "Most that shares take on the disk, as 500GiB or 4TB; 0: whatever the reserve leaves.")
    reserve: str = value("1GiB", "As much of the disk stays free.")
    scrub_days: float = value(30.0, "In so many days every share is read and checked once.", least=0.01, most=3650)
    pending_hours: float = value(24.0, "A share that no meta node confirmed for so long goes to the trash.", least=1, most=8760)
    trash_days: float = value(7.0, "How long a deleted share can be restored.", least=0, most=365)


@dataclass(frozen=True)
class Monitor:
    """Metrics and the local page."""

    host: str = value("127.0.0.1", "Where metrics, health and the page are served. They have no password: leave it at this machine.")
    port: int = value(18181, "Its TCP port; 0 switches it off.", least=0, most=65_535)


@dataclass(frozen=True)
class Withdrawal:
    """What happens to earnings that have matured."""

    automatic: bool = value(False, "true: what has matured is withdrawn by itself. The node then holds the wallet's key in memory.")
    threshold: str = value("10stos", "Not before so much has matured: each withdrawal costs a fee.")
    target: str = value("", "The account that it goes to, st1…; empty for the beneficiary's own.")
    every_s: int = value(3_600, "How often the chain is asked, seconds.", least=5, most=86_400)


@dataclass(frozen=True)
class Config:
    """All settings of a resource node."""

    keys: Keys = field(default_factory=Keys)
    chain: ChainSettings = field(default_factory=ChainSettings)
    network: Network = field(default_factory=Network)
    storage: Storage = field(default_factory=Storage)
    monitor: Monitor = field(default_factory=Monitor)
    withdrawal: Withdrawal = field(default_factory=Withdrawal)
    gateway: Gateway = field(default_factory=Gateway)


@dataclass(frozen=True)
class MetaNode:
    """A meta node to call: its address (20 bytes) and where it listens."""

    address: bytes
    host: str
    port: int

    def __str__(self) -> str:
        return f"{format_address(self.address)}@{endpoint_text(self.host, self.port)}"


def load(path: Path) -> Config:
    """The settings of a file, with every text in them looked at. Raises SettingsError, which names the setting."""
    return checked(read(Config, path))


def checked(config: Config) -> Config:
    """The same settings, if every text in them means something. Raises SettingsError."""
    for name, text, prefix in (
        ("keys.wallet", config.keys.wallet, bech32.ACCOUNT),
        ("keys.p2p", config.keys.p2p, bech32.NODE),
        ("keys.beneficiary", config.keys.beneficiary, bech32.ACCOUNT),
        ("withdrawal.target", config.withdrawal.target, bech32.ACCOUNT),
    ):
        if text:
            _address(name, text, prefix)
    if len(config.network.meta_nodes) > MAX_META_NODES:
        raise SettingsError(f"network.meta_nodes: expected at most {MAX_META_NODES}, got {len(config.network.meta_nodes)}")
    for one in config.network.meta_nodes:
        parse_meta_node(one)
    for name, text in (
        ("network.listen_host", config.network.listen_host),
        ("monitor.host", config.monitor.host),
        ("gateway.host", config.gateway.host),
    ):
        try:
            ipaddress.ip_address(text)
        except ValueError:
            raise SettingsError(f"{name}: expected an IP address as 127.0.0.1 or 0.0.0.0, got {text[:100]!r}") from None
    if config.network.public_endpoint:
        split_endpoint("network.public_endpoint", config.network.public_endpoint)
    capacity_bytes(config), reserve_bytes(config), threshold_wei(config)
    if not config.chain.rpc.startswith(("http://", "https://")) or len(config.chain.rpc) > 1_000:
        raise SettingsError(f"chain.rpc: expected a URL as http://127.0.0.1:26657, got {config.chain.rpc[:100]!r}")
    if len(config.chain.id) > 50:
        raise SettingsError(f"chain.id: expected at most 50 characters, got {len(config.chain.id)}")
    return config


def text_of(config: Config) -> str:
    """What is written to config.toml."""
    return write(config)


def capacity_bytes(config: Config) -> int:
    """Bytes that shares may take on disk; 0 for no limit but the disk's."""
    return parse_size("storage.capacity", config.storage.capacity)


def reserve_bytes(config: Config) -> int:
    """Bytes of the disk that stay free."""
    return parse_size("storage.reserve", config.storage.reserve)


def threshold_wei(config: Config) -> int:
    """Wei that have to have matured before they are withdrawn by themselves."""
    return parse_amount("withdrawal.threshold", config.withdrawal.threshold)


def parse_size(name: str, text: str) -> int:
    """Bytes of ``500GiB``, ``4TB``, ``1.5 TiB`` or a plain number. Raises SettingsError naming the setting."""
    match = _SIZE.fullmatch(text.strip())
    unit = next((size for one, size in _UNITS.items() if match is not None and one.lower() == match[3].lower()), None)
    if match is None or unit is None:
        raise SettingsError(f"{name}: expected a size as 500GiB, 4TB or a number of bytes, got {text[:100]!r}")
    part = match[2] or "0"
    size_bytes: int = int(match[1]) * unit + int(part) * unit // 10 ** len(part)
    if size_bytes > MAX_SIZE_BYTES:
        raise SettingsError(f"{name}: expected at most {MAX_SIZE_BYTES >> 50} PiB, got {text[:100]!r}")
    return size_bytes


def parse_amount(name: str, text: str) -> int:
    """Wei of ``10stos``, ``200gwei``, ``5wei``. Raises SettingsError naming the setting."""
    given = text.replace(" ", "")
    try:
        coins = parse_amounts(f"{given}wei" if given.isdigit() else given)
    except (AppError, ValueError) as error:
        raise SettingsError(f"{name}: expected an amount as 10stos or 5000000000gwei: {error}") from None
    if any(coin.denom != "wei" for coin in coins):
        raise SettingsError(f"{name}: expected an amount in stos, gwei or wei, got {text[:100]!r}")
    return sum(coin.amount for coin in coins)


def parse_meta_node(text: str) -> MetaNode:
    """The meta node of ``stsds1…@host:port``, ``stsdspub1…@host:port`` or ``snode:stsds1…@ip:port``. Raises SettingsError."""
    match = _META.fullmatch(text) if len(text) <= MAX_HOST_CHARACTERS + 100 else None
    if match is None:
        raise SettingsError(f"a meta node is written stsds1…@host:port, got {text[:100]!r}")
    try:
        address = parse_node(match[1])
    except P2PError as error:
        raise SettingsError(f"a meta node is written stsds1…@host:port: {error}") from None
    return MetaNode(address, *split_endpoint("the endpoint of a meta node", match[2]))


def split_endpoint(what: str, text: str) -> tuple[str, int]:
    """(host, port) of ``host:port``; an IPv6 address stands in brackets. Raises SettingsError."""
    host, colon, port = text.rpartition(":")
    is_bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if is_bracketed else host
    is_number = port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= 65_535
    if not colon or not is_number or not _is_host(host, is_bracketed=is_bracketed):
        raise SettingsError(f"{what}: expected host:port with a port from 1 to 65535 (an IPv6 address in brackets), got {text[:100]!r}")
    return host, int(port)


def _is_host(host: str, *, is_bracketed: bool) -> bool:
    if is_bracketed:
        try:
            return ipaddress.ip_address(host).version == 6
        except ValueError:
            return False
    return len(host) <= MAX_HOST_CHARACTERS and _HOST.fullmatch(host) is not None


def _address(name: str, text: str, prefix: str) -> None:
    try:
        bech32.decode(text, prefix)
    except AppError as error:
        raise SettingsError(f"{name}: expected an address {prefix}1…, got {text[:100]!r}: {error}") from None
