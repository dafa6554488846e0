"""The files of a home: CometBFT's ``config/config.toml`` and the application's ``config/app.toml``.

Values come from flag, then environment (``STCHAIND_HOME`` for the home), then file, then default. Keys and defaults of config.toml are CometBFT v0.38.25's,
except that it listens on loopback and reads a copy of the genesis file in its own shape.
"""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import tomlkit
from tomlkit.exceptions import ParseError

COMET_DEFAULTS: Final[dict[str, Any]] = {
    "proxy_app": "tcp://127.0.0.1:26658",
    "db_backend": "goleveldb",
    "db_dir": "data",
    "log_level": "info",
    "log_format": "plain",
    "genesis_file": "config/genesis.comet.json",
    "priv_validator_key_file": "config/priv_validator_key.json",
    "priv_validator_state_file": "data/priv_validator_state.json",
    "priv_validator_laddr": "",
    "node_key_file": "config/node_key.json",
    "abci": "socket",
    "filter_peers": False,
    "event_bus_buffer_capacity": 0,
    "rpc": {
        "laddr": "tcp://127.0.0.1:26657",
        "cors_allowed_origins": [],
        "cors_allowed_methods": ["HEAD", "GET", "POST"],
        "cors_allowed_headers": ["Origin", "Accept", "Content-Type", "X-Requested-With", "X-Server-Time"],
        "grpc_laddr": "",
        "grpc_max_open_connections": 900,
        "unsafe": False,
        "max_open_connections": 900,
        "max_subscription_clients": 100,
        "max_subscriptions_per_client": 5,
        "experimental_subscription_buffer_size": 200,
        "experimental_websocket_write_buffer_size": 200,
        "experimental_close_on_slow_client": False,
        "timeout_broadcast_tx_commit": "10s",
        "max_request_batch_size": 10,
        "max_body_bytes": 1000000,
        "max_header_bytes": 1048576,
        "tls_cert_file": "",
        "tls_key_file": "",
        "pprof_laddr": "",
    },
    "p2p": {
        "laddr": "tcp://127.0.0.1:26656",
        "external_address": "",
        "seeds": "",
        "persistent_peers": "",
        "addr_book_file": "config/addrbook.json",
        "addr_book_strict": True,
        "max_num_inbound_peers": 40,
        "max_num_outbound_peers": 10,
        "unconditional_peer_ids": "",
        "persistent_peers_max_dial_period": "0s",
        "flush_throttle_timeout": "100ms",
        "max_packet_msg_payload_size": 1024,
        "send_rate": 5120000,
        "recv_rate": 5120000,
        "pex": True,
        "seed_mode": False,
        "private_peer_ids": "",
        "allow_duplicate_ip": False,
        "handshake_timeout": "20s",
        "dial_timeout": "3s",
    },
    "mempool": {
        "type": "flood",
        "recheck": True,
        "recheck_timeout": "1s",
        "broadcast": True,
        "wal_dir": "",
        "size": 5000,
        "max_txs_bytes": 1073741824,
        "cache_size": 10000,
        "keep-invalid-txs-in-cache": False,
        "max_tx_bytes": 1048576,
        "max_batch_bytes": 0,
        "experimental_max_gossip_connections_to_persistent_peers": 0,
        "experimental_max_gossip_connections_to_non_persistent_peers": 0,
    },
    "statesync": {
        "enable": False,
        "rpc_servers": "",
        "trust_height": 0,
        "trust_hash": "",
        "trust_period": "168h0m0s",
        "discovery_time": "15s",
        "temp_dir": "",
        "chunk_request_timeout": "10s",
        "chunk_fetchers": "4",
        "max_snapshot_chunks": 100000,
    },
    "blocksync": {"version": "v0"},
    "consensus": {
        "wal_file": "data/cs.wal/wal",
        "timeout_propose": "3s",
        "timeout_propose_delta": "500ms",
        "timeout_prevote": "1s",
        "timeout_prevote_delta": "500ms",
        "timeout_precommit": "1s",
        "timeout_precommit_delta": "500ms",
        "timeout_commit": "1s",
        "double_sign_check_height": 0,
        "skip_timeout_commit": False,
        "create_empty_blocks": True,
        "create_empty_blocks_interval": "0s",
        "peer_gossip_sleep_duration": "100ms",
        "peer_query_maj23_sleep_duration": "2s",
        "block_time_tolerance": "1m0s",
    },
    "storage": {"discard_abci_responses": False},
    "tx_index": {"indexer": "kv", "psql-conn": ""},
    "instrumentation": {"prometheus": False, "prometheus_listen_addr": ":26660", "max_open_connections": 3, "namespace": "cometbft"},
}

APP_DEFAULTS: Final[dict[str, Any]] = {
    "minimum-gas-prices": "1000000000wei",
    "pruning": "default",
    "pruning-keep-recent": "0",
    "pruning-interval": "0",
    "halt-height": 0,
    "halt-time": 0,
    "min-retain-blocks": 0,
    "inv-check-period": 0,
    "iavl-cache-size": 4_000_000,
    "native-core": True,
    "fast-sends": True,
    "app-db-backend": "",
    "api": {"enable": True, "swagger": True, "address": "tcp://127.0.0.1:1317", "enabled-unsafe-cors": False},
    "grpc": {"enable": True, "address": "127.0.0.1:9090", "max-recv-msg-size": 10_485_760},
    "mempool": {"max-txs": 100_000},
    "telemetry": {"enabled": True},
    "state-sync": {"snapshot-interval": 0, "snapshot-keep-recent": 2},
}

APP_MEANINGS: Final[dict[str, str]] = {
    "minimum-gas-prices": "Least price per unit of gas that this node takes into its mempool, as `1000000000wei`; less than `10000000wei` is raised to that.",
    "pruning": "Which versions are kept: `default`, `nothing`, `everything`, `custom`.",
    "pruning-keep-recent": "With `custom`: how many recent versions are kept.",
    "pruning-interval": "With `custom`: how often old versions are deleted, in blocks.",
    "halt-height": "Stop before the block after this height; 0 never.",
    "halt-time": "Stop before the first block after this Unix time in seconds; 0 never.",
    "min-retain-blocks": "CometBFT may drop blocks older than this many; 0 keeps all.",
    "inv-check-period": "Check every module's invariants each so many blocks, and stop before a block that breaks one is committed; 0 never.",
    "iavl-cache-size": "About how many tree nodes stay in memory (some 120 bytes each).",
    "native-core": "Use the C core of the tree where it was built. Changes no result.",
    "fast-sends": "Use the fast twin of plain MsgSend transactions. Changes no result.",
    "app-db-backend": "`goleveldb`, `rocksdb`, or empty for the best one installed.",
    "api.enable": "Serve REST.",
    "api.swagger": "Serve the page that lists the REST routes at `/swagger/`.",
    "api.address": "Where REST listens.",
    "api.enabled-unsafe-cors": "Let pages of any origin call REST.",
    "grpc.enable": "Serve gRPC.",
    "grpc.address": "Where gRPC listens.",
    "grpc.max-recv-msg-size": "Largest request that gRPC takes, in bytes.",
    "mempool.max-txs": "How many transactions the application's own pool holds; 0 has none and takes CometBFT's order.",
    "telemetry.enabled": "Serve `/metrics` at the REST address.",
    "state-sync.snapshot-interval": "Take a state-sync snapshot every so many blocks; 0 never.",
    "state-sync.snapshot-keep-recent": "How many snapshots are kept; 0 keeps all.",
}
"""What each key of app.toml means, for the docs and the comments in the file."""

GENESIS_COPY: Final = "config/genesis.comet.json"


class ConfigError(Exception):
    """A file of the home cannot be used; the message names file, key and what was expected."""


@dataclass(frozen=True, slots=True)
class Home:
    """The folder of one node."""

    root: Path

    @property
    def genesis(self) -> Path:
        return self.root / "config" / "genesis.json"

    @property
    def comet_genesis(self) -> Path:
        return self.root / GENESIS_COPY

    @property
    def comet_state(self) -> Path:
        """CometBFT's database of its state, which has the genesis document that it began with."""
        return self.root / "data" / "state.db"

    @property
    def comet_config(self) -> Path:
        return self.root / "config" / "config.toml"

    @property
    def app_config(self) -> Path:
        return self.root / "config" / "app.toml"

    @property
    def client_config(self) -> Path:
        return self.root / "config" / "client.toml"

    @property
    def validator_key(self) -> Path:
        return self.root / "config" / "priv_validator_key.json"

    @property
    def validator_state(self) -> Path:
        return self.root / "data" / "priv_validator_state.json"

    @property
    def node_key(self) -> Path:
        return self.root / "config" / "node_key.json"

    @property
    def database(self) -> Path:
        return self.root / "data" / "application.db"

    @property
    def snapshots(self) -> Path:
        return self.root / "data" / "snapshots"

    @property
    def upgrade_info(self) -> Path:
        return self.root / "data" / "upgrade-info.json"


def default_home() -> Path:
    """``$STCHAIND_HOME``, else ``~/.stchaind``."""
    return Path(os.environ.get("STCHAIND_HOME") or Path.home() / ".stchaind")


def read_app(home: Home) -> dict[str, Any]:
    """app.toml over the defaults. Raises ConfigError for a key that does not exist or has the wrong type."""
    return _merge(copy.deepcopy(APP_DEFAULTS), read_toml(home.app_config), str(home.app_config))


def read_comet(home: Home) -> dict[str, Any]:
    """config.toml as it is. Raises ConfigError."""
    found: dict[str, Any] = read_toml(home.comet_config)
    return found


def write_defaults(home: Home, moniker: str) -> None:
    """Write config.toml and app.toml of a new home."""
    _write(home.comet_config, {"moniker": moniker, **copy.deepcopy(COMET_DEFAULTS)})
    _write(home.app_config, copy.deepcopy(APP_DEFAULTS))


def write_client(home: Home, chain_id: str, *, keyring_backend: str = "os", node: str = "tcp://localhost:26657") -> None:
    """Write client.toml: what commands that hold keys and ask nodes take where no flag and no environment says otherwise."""
    values = {"chain-id": chain_id, "keyring-backend": keyring_backend, "output": "text", "node": node, "broadcast-mode": "sync"}
    _write(home.client_config, values)


def update(path: Path, changes: dict[str, Any]) -> None:
    """Set keys (``section.key``) of a TOML file, keeping its comments. Raises ConfigError."""
    document = read_toml(path)
    for name, value in changes.items():
        *sections, key = name.split(".")
        target: Any = document
        for section in sections:
            target = target[section]
        target[key] = value
    path.write_text(tomlkit.dumps(document))


def read_toml(path: Path) -> Any:
    """The document in a file of the home, comments and all. Raises ConfigError."""
    try:
        return tomlkit.parse(path.read_text())
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}): run `stchaind init MONIKER` first, or name the home with --home") from None
    except (ParseError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None


def _write(path: Path, document: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(tomlkit.dumps(document))


def _merge(defaults: dict[str, Any], found: Any, where: str) -> dict[str, Any]:
    for key, value in found.items():
        if key not in defaults:
            raise ConfigError(f"{where}: {key} is not a setting of this version")
        if isinstance(defaults[key], dict):
            if not isinstance(value, dict):
                raise ConfigError(f"{where}: {key} must be a section, got {value!r}")
            defaults[key] = _merge(defaults[key], value, f"{where}: {key}")
        elif type(defaults[key]) is not type(value.unwrap() if hasattr(value, "unwrap") else value):
            raise ConfigError(f"{where}: {key} must be like {defaults[key]!r}, got {value!r}")
        else:
            plain = value.unwrap() if hasattr(value, "unwrap") else value
            if type(plain) is int and not 0 <= plain < 1 << 63:
                raise ConfigError(f"{where}: {key} must be from 0 to 2^63 - 1, got {plain}")
            if key in ("pruning-keep-recent", "pruning-interval") and not (plain.isascii() and plain.isdigit() and len(plain) < 19):
                raise ConfigError(f'{where}: {key} must be a number in quotes, like "100", got {plain[:40]!r}')
            defaults[key] = plain
    return defaults
