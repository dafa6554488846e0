"""``stchaind start``: the application, its servers, and CometBFT as a child in the same home.

The application listens before CometBFT starts. CometBFT dies with this process; if it alone dies it is started again with back-off, but not
after the application stopped. SIGINT and SIGTERM stop CometBFT first, then the servers, then close the database.
"""

from __future__ import annotations

import gc
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

import structlog

from chain import nodekeys
from chain.abci.server import AbciServer, AddressError, socket_address
from chain.api.comet import CometClient
from chain.api.server import ApiServer
from chain.app import build_application
from chain.application import Application, Settings
from chain.codec.times import parse_rfc3339, rfc3339
from chain.comet import CometError, die_with_parent, find_comet
from chain.config import ConfigError, Home, read_app, read_comet
from chain.errors import UpgradeNeeded
from chain.light.double_sign import require_signing_state
from chain.metrics import Metrics
from chain.module import GenesisError
from chain.store.errors import StoreError
from chain.store.kv import open_backend
from chain.store.pruning import Pruning
from chain.tx.fees import parse_gas_prices, with_floor
from genesis import document as genesis_document
from genesis.migrate import read as read_genesis

log = structlog.get_logger("node")

VERSION: Final = "0.1.0"
MIN_GAS_PRICE_FLOOR: Final = 10_000_000
CLOCK_TOLERANCE_S: Final = 60
"""How far the last block may be ahead of this machine's clock: CometBFT's ``block_time_tolerance``."""
_MAX_BACKOFF_S: Final = 30
_STOP_TIMEOUT_S: Final = 15
_LAST_WORDS: Final = ("panic:", "ERROR:", "Error:", "failed to")
_LAST_WORDS_S: Final = 2
_MOST_WORDS: Final = 400


class NodeError(Exception):
    """The node cannot start or go on; one sentence for the operator."""


@dataclass(slots=True)
class StartOptions:
    """What the command line asks for beyond the files of the home."""

    home: Home
    with_comet: bool = True
    address: str = ""
    comet_flags: list[str] = field(default_factory=list)
    app_overrides: dict[str, Any] = field(default_factory=dict)
    accept_signing_state: bool = False


def open_application(home: Home, config: dict[str, Any]) -> Application:
    """The application over the home's database. Raises NodeError."""
    try:
        asked = parse_gas_prices(config["minimum-gas-prices"])
        prices = with_floor(asked, MIN_GAS_PRICE_FLOOR)
        if prices != asked:
            log.warning("minimum-gas-prices is below the chain's floor and raised to it", floor=f"{MIN_GAS_PRICE_FLOOR}wei")
        settings = Settings(
            min_gas_prices=",".join(map(str, prices)),
            halt_height=config["halt-height"],
            halt_time_s=config["halt-time"],
            min_retain_blocks=config["min-retain-blocks"],
            pool_txs=config["mempool"]["max-txs"],
            native_core=config["native-core"],
            fast_sends=config["fast-sends"],
            snapshot_interval=config["state-sync"]["snapshot-interval"],
            snapshot_keep_recent=config["state-sync"]["snapshot-keep-recent"],
            version=VERSION,
            skip_upgrades=tuple(config.get("unsafe-skip-upgrades", ())),
            invariant_period=config["inv-check-period"],
            skip_genesis_invariants=config.get("x-crisis-skip-assert-invariants", False),
        )
        pruning = Pruning.named(config["pruning"], int(config["pruning-keep-recent"]), int(config["pruning-interval"]))
        home.database.parent.mkdir(parents=True, exist_ok=True)
        kv = open_backend(config["app-db-backend"], home.database)
        return build_application(
            kv, settings, pruning=pruning, cache_nodes=config["iavl-cache-size"], snapshots=home.snapshots, upgrade_info=home.upgrade_info
        )
    except (StoreError, ValueError) as error:
        raise NodeError(str(error)) from None


def _observer(metrics: Metrics) -> Callable[[str, float], None]:
    def observe(kind: str, seconds: float) -> None:
        metrics.abci_call_s.labels(kind).observe(seconds)

    return observe


def run(options: StartOptions) -> int:
    """Run until a signal or a fatal error; returns the exit code. Raises NodeError before anything runs."""
    home = options.home
    config = {**read_app(home), **{key: value for key, value in options.app_overrides.items() if "." not in key}}
    for key, value in options.app_overrides.items():
        if "." in key:
            section, name = key.split(".")
            config[section][name] = value
    genesis_document.load(home.genesis)  # before the database, whose lock another node may hold
    binary = find_comet() if options.with_comet else None
    if options.with_comet and binary is None:
        raise NodeError("CometBFT is not on PATH nor in the project's tool folder: run `python -m chain.comet`, or start with --with-comet=false")
    signs_itself = options.with_comet and not _comet_setting(options, "priv_validator_laddr")
    if options.with_comet:
        nodekeys.node_id(home)
    if signs_itself:
        nodekeys.validator_key(home)
    app = open_application(home, config)
    try:
        genesis, left_out = read_genesis(home.genesis, app.modules)
        if left_out:
            log.warning("the genesis file has sections of modules that this version does not have: they are left out", sections=left_out)
        _require_fit(app, genesis, home)
        comet_genesis = genesis_document.comet_shape(genesis)
        if options.with_comet:
            _require_same_genesis(app, comet_genesis, home)
        if signs_itself and not options.accept_signing_state:
            require_signing_state(home, app.latest_height)
    except BaseException:
        app.close()
        raise
    app.chain_id = genesis["chain_id"]  # before the first block: what a snapshot must be of
    done = threading.Event()
    fatal: list[BaseException] = []
    upgrade: list[UpgradeNeeded] = []

    def stop_for(error: BaseException) -> None:
        fatal.append(error)
        done.set()

    try:
        address = options.address or socket_address(home.root, "stchaind")
    except AddressError as error:
        raise NodeError(str(error)) from None
    metrics = Metrics(app) if config["telemetry"]["enabled"] else None
    on_call = None if metrics is None else _observer(metrics)
    server = AbciServer(app, address, on_fatal=stop_for, on_upgrade=upgrade.append, on_call=on_call, on_panic=app.counts.panicked)
    api: ApiServer | None = None
    comet: _Comet | None = None
    previous = {one: signal.signal(one, lambda *_: done.set()) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        rpc = _comet_setting(options, "rpc.laddr")
        if options.with_comet:
            _require_free(rpc, "RPC", "[rpc] laddr")
            _require_free(_comet_setting(options, "p2p.laddr"), "P2P", "[p2p] laddr")
        # The state is a large graph that lives on: collecting it again and again costs a third of a block.
        gc.collect()
        gc.freeze()
        gc.set_threshold(200_000, 20, 100)
        server.start()
        api = ApiServer(app, CometClient(rpc), config, metrics)
        api.start()
        if binary is not None:
            genesis_document.save(comet_genesis, home.comet_genesis)
            comet = _Comet(binary, home, server.address, options.comet_flags, done)
            comet.run_until(done)
        else:
            log.info("waiting for CometBFT", address=server.address)
            done.wait()
    except (AddressError, OSError) as error:
        raise NodeError(str(error)) from None
    finally:
        # A second Ctrl-C while all of this is under way must not cut it short.
        if upgrade:
            server.stop()  # CometBFT waits for an answer that never comes: it ends when the connection does
        if comet is not None:
            comet.stop()
        if api is not None:
            api.stop()
        server.stop()
        app.close()
        for one, handler in previous.items():
            signal.signal(one, handler)
    if fatal or upgrade:
        log.error("stopped", reason=str((fatal or upgrade)[0]))
        return 1
    if comet is not None and comet.failed:
        log.error("stopped", reason=comet.failed)
        return 1
    return 0


def _require_fit(app: Application, genesis: dict[str, Any], home: Home) -> None:
    """Raise NodeError where the database, the genesis file and this machine's clock do not fit together."""
    if app.chain_id and app.chain_id != genesis["chain_id"]:
        raise NodeError(
            f"the database in {home.database} belongs to chain {app.chain_id}, the genesis file to {genesis['chain_id']}: use another --home"
        )
    now_s = int(time.time())
    block_s = app.latest_time_ns // 10**9
    if app.latest_height and block_s > now_s + CLOCK_TOLERANCE_S:
        raise NodeError(
            f"this machine's clock says {rfc3339(now_s)}, but block {app.latest_height} is of {rfc3339(block_s)}: set the clock (NTP), then start again"
        )
    if app.latest_height:
        return
    _require_validators(genesis)
    start_s, _ = parse_rfc3339(genesis["genesis_time"])
    if start_s > now_s:
        log.warning("the chain has not begun: CometBFT waits for the genesis time", genesis_time=genesis["genesis_time"], in_s=start_s - now_s)


def _require_validators(genesis: dict[str, Any]) -> None:
    """Raise NodeError for a genesis file that names no validator. CometBFT would keep it, and never read the one that is mended."""
    genutil, staking = (genesis["app_state"].get(name) or {} for name in ("genutil", "staking"))
    if not genutil.get("gen_txs") and not staking.get("validators"):
        raise NodeError(
            "the genesis file has no validator: make one with `stchaind genesis gentx`, delegating 10^15 wei or more, "
            "and add it with `stchaind genesis collect-gentxs`"
        )


def _require_same_genesis(app: Application, comet_genesis: dict[str, Any], home: Home) -> None:
    """Raise NodeError where the genesis file was changed after CometBFT read it: it keeps the first one in its own database, whatever becomes of that."""
    if app.latest_height or not home.comet_state.exists() or not home.comet_genesis.exists():
        return
    if json.loads(home.comet_genesis.read_text("utf-8")) != comet_genesis:
        raise NodeError(
            f"{home.genesis} was changed after the first start, and CometBFT goes on with the one from before: no block is made yet, so "
            f"`stchaind comet unsafe-reset-all --home {home.root}` makes it forget it; then start again"
        )


class _Comet:
    """CometBFT as a child."""

    def __init__(self, binary: Path, home: Home, address: str, flags: list[str], done: threading.Event) -> None:
        self._command = [str(binary), "start", "--home", str(home.root), "--proxy_app", address, *flags]
        self._process: subprocess.Popen[bytes] | None = None
        self._last_words = ""
        self.failed = ""

    def run_until(self, done: threading.Event) -> None:
        """Keep it running until ``done``; give up when it fails at once several times."""
        backoff_s = 1
        while not done.is_set():
            started = time.monotonic()
            self._process = subprocess.Popen(self._command, preexec_fn=die_with_parent, stderr=subprocess.PIPE)
            hearing = threading.Thread(target=self._hear, args=(self._process.stderr,), daemon=True)
            hearing.start()
            while self._process.poll() is None and not done.wait(0.2):
                pass
            if done.is_set():
                return
            # The application may have told why a moment before CometBFT ended.
            if done.wait(0.5):
                return
            hearing.join(_LAST_WORDS_S)
            lived_s = time.monotonic() - started
            backoff_s = 1 if lived_s > _MAX_BACKOFF_S else backoff_s * 2
            if backoff_s > 8:
                self.failed = (
                    f"CometBFT ends at once (exit code {self._process.returncode}): {self._last_words or 'its last lines say why'}; where its database is "
                    "damaged, put the data folder of a backup back, or run `stchaind comet unsafe-reset-all` and join anew (docs/node.md)"
                )
                return
            log.warning("CometBFT ended; starting it again", exit_code=self._process.returncode, after_s=backoff_s)
            done.wait(backoff_s)

    def _hear(self, stderr: IO[bytes]) -> None:
        """Pass on what CometBFT writes, and remember of what kind of end it speaks."""
        with stderr:
            for raw in stderr:
                line = raw.decode(errors="replace")
                sys.stderr.write(line)
                sys.stderr.flush()
                if line.strip().startswith(_LAST_WORDS):
                    self._last_words = line.strip()[:_MOST_WORDS]

    def stop(self) -> None:
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.terminate()
        try:
            process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _comet_setting(options: StartOptions, name: str) -> str:
    """What CometBFT will take for ``section.key``: a flag's value, else config.toml's."""
    for flag in options.comet_flags:
        given, _, value = flag.partition("=")
        if given == f"--{name}":
            return value
    found: Any = read_comet(options.home)
    for part in name.split("."):
        found = found.get(part, "")
    return str(found)


def _require_free(laddr: str, what: str, setting: str) -> None:
    host, _, port = laddr.removeprefix("tcp://").rpartition(":")
    if not port.isdigit():
        return  # CometBFT says what it thinks of it
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host or "0.0.0.0", int(port)))  # noqa: S104  the address is the operator's
        except OSError as error:
            raise NodeError(f"CometBFT's {what} cannot listen at {laddr}: {error.strerror}; is another node running? change {setting}") from None


EXPECTED_ERRORS: Final[tuple[type[Exception], ...]] = (NodeError, ConfigError, GenesisError, CometError, StoreError)
