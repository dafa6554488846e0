"""CometBFT beside a meta node: its home, its process, and how operations get into its mempool.

    <home>/comet/config/config.toml              written at each start, from the settings
                       /genesis.json             from the export alone; never replaced by another
                       /priv_validator_key.json  the ledger key      mode 0600
                       /node_key.json            the network key     mode 0600
                /data/                           blocks, votes

    FederatedLedger ─ broadcast ─► RPC on loopback ─► CometBFT ◄── P2P ──► the others' CometBFT
    LedgerApplication ◄── AbciServer ◄── unix socket ──┘

Operations are given in the order in which they come, at most 31 at once, so that they stay within the window of nonces. CometBFT dies with this process; if it
alone dies it is started again, but not when the application has stopped.

Source: docs/adr/0010; CometBFT v0.38 config.toml.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import socket
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import httpx
import nacl.signing
import structlog
import tomlkit

from chain.abci.server import AbciServer, AddressError, socket_address
from chain.comet import die_with_parent, find_comet
from chain.crypto.keys import Ed25519PublicKey
from chain.errors import PANIC_CODE
from chain.metakeys import MetaKeys
from sds_node import p2p
from sds_node.endpoints import endpoint_text
from sds_node.meta.daemon.home import Comet
from sds_node.meta.federation.application import CODE_WAITS, LedgerApplication, OrderError
from sds_node.meta.federation.ledger import OrderRefused
from sds_node.meta.ledger.errors import Unavailable
from sds_node.meta.rules.apply import NONCE_WINDOW

log = structlog.get_logger("order")

AT_ONCE: Final = NONCE_WINDOW // 2
BROADCAST_S: Final = 10.0
STOP_S: Final = 15.0
TELL_S: Final = 0.3
LONGEST_PAUSE_S: Final = 30.0
MAX_FILE_BYTES: Final = 1 << 20
MAX_ANSWER_BYTES: Final = 1 << 20
IDLE: Final = "10s"


def parse_peer(text: str) -> str:
    """``stsds1…@host:port``, as the settings have it → ``id@host:port``, as CometBFT does. Raises OrderError."""
    name, at, where = text.partition("@")
    host, _, port = where.rpartition(":")
    is_fine = bool(at) and 0 < len(host) <= 255 and host.isascii() and host.isprintable() and not set(host) & set(' ,"/@') and len(text) < 400
    if not is_fine or not (port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= 65_535):
        raise OrderError(f"comet.peers: expected stsds1…@host:port, got {text[:200]!a}")
    try:
        node = p2p.parse_node(name)
    except p2p.P2PError as error:
        raise OrderError(f"comet.peers: {error}") from None
    return f"{node.hex()}@{where}"


class CometHome:
    """The folder. Nothing is made before ``make``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.genesis = root / "config" / "genesis.json"

    @property
    def is_made(self) -> bool:
        """Whether the ledger's order comes from blocks."""
        return self.genesis.exists()

    def read_genesis(self) -> Any:
        """The genesis. Raises OrderError."""
        try:
            return json.loads(self.genesis.read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            raise OrderError(f"{self.genesis} cannot be read ({type(error).__name__}): restore it, or join with the same export again") from None

    def make(self, genesis: bytes, keys: MetaKeys) -> None:
        """Write keys, then the genesis, which makes it count. What is there already must be the same. Raises OrderError."""
        for folder in (self.root, self.root / "config", self.root / "data"):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if self.is_made and self.genesis.read_bytes() != genesis:
            raise OrderError(f"{self.genesis} is another one: this meta node keeps another ledger's blocks; move {self.root} away first")
        for path, raw in self._keys(keys).items():
            _write_same(path, raw)
        state = self.root / "data" / "priv_validator_state.json"
        if not state.exists() and not (self.root / "data" / "blockstore.db").exists():
            _write_same(state, _json({"height": "0", "round": 0, "step": 0}))
        _write_same(self.genesis, genesis)

    def check(self, keys: MetaKeys) -> None:
        """Raises OrderError unless the folder was made for these keys."""
        if not self.is_made:
            raise OrderError(f"{self.root} has no genesis: `spd ledger join FILE` makes it")
        for path, raw in self._keys(keys).items():
            if not path.exists() or path.read_bytes() != raw:
                raise OrderError(f"{path} is not made of this meta node's keys: restore both, or remove it and join with the same export again")

    def _keys(self, keys: MetaKeys) -> dict[Path, bytes]:
        ledger, network = nacl.signing.SigningKey(keys.ledger_seed), nacl.signing.SigningKey(keys.network_seed)
        public = bytes(ledger.verify_key)
        config = self.root / "config"
        return {
            config / "priv_validator_key.json": _json(
                {
                    "address": Ed25519PublicKey(public).address.hex().upper(),
                    "pub_key": {"type": "tendermint/PubKeyEd25519", "value": base64.b64encode(public).decode()},
                    "priv_key": _private(bytes(ledger) + public),
                }
            ),
            config / "node_key.json": _json({"priv_key": _private(bytes(network) + bytes(network.verify_key))}),
        }

    def write_config(self, settings: Comet, keys: MetaKeys, proxy: str) -> None:
        """Write config.toml; what it does not name has CometBFT's default. All meta nodes may have one list of peers: the own one is left out. Raises
        OrderError for peers that cannot be read."""
        peers = [one for one in map(parse_peer, settings.peers) if not one.startswith(f"{keys.address.hex()}@")]
        config = {
            "moniker": keys.network_address,
            "proxy_app": proxy,
            "log_level": "error",
            "filter_peers": True,
            "rpc": {"laddr": f"tcp://127.0.0.1:{settings.rpc_port}", "max_body_bytes": 4 << 20},
            "p2p": {
                "laddr": f"tcp://{endpoint_text(settings.host, settings.port)}",
                "external_address": settings.endpoint,
                "persistent_peers": ",".join(peers),
                "persistent_peers_max_dial_period": "5s",
                "addr_book_strict": False,
                "allow_duplicate_ip": True,
                "max_num_inbound_peers": 100,
                "flush_throttle_timeout": "2ms",
                "send_rate": 50 << 20,
                "recv_rate": 50 << 20,
                "max_packet_msg_payload_size": 16 << 10,
                "pex": False,
            },
            "mempool": {"size": 20_000, "max_txs_bytes": 128 << 20, "cache_size": 100_000},
            "consensus": {
                "timeout_propose": "1s",
                "timeout_propose_delta": "500ms",
                "timeout_prevote": "500ms",
                "timeout_prevote_delta": "500ms",
                "timeout_precommit": "500ms",
                "timeout_precommit_delta": "500ms",
                "timeout_commit": "50ms",
                "create_empty_blocks": False,
                "create_empty_blocks_interval": IDLE,
                "peer_gossip_sleep_duration": "5ms",
            },
            "tx_index": {"indexer": "null"},
        }
        text = tomlkit.dumps(config)
        _write(
            self.root / "config" / "config.toml",
            ("# Written by spd at each start, from its settings [comet]: changes here are lost.\n" + text).encode(),
        )


def _private(raw: bytes) -> dict[str, str]:
    return {"type": "tendermint/PrivKeyEd25519", "value": base64.b64encode(raw).decode()}


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=2).encode() + b"\n"


def _write(path: Path, raw: bytes) -> None:
    """Whole or not at all, mode 0600."""
    fresh = path.with_name(path.name + ".new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(raw)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def _write_same(path: Path, raw: bytes) -> None:
    if not path.exists():
        _write(path, raw)
    elif path.read_bytes() != raw:
        raise OrderError(f"{path} is there with other content: it is not replaced; move it away if it is not needed any more")


class CometOrder:
    """An order by CometBFT, whose home is ``root``, of the meta node with ``keys``. ``binary`` is found where ``python -m chain.comet`` puts it.

    ``start`` it in the thread that lives as long as the process: CometBFT ends with that thread. ``watch`` ends with an OrderError when it cannot go on.
    """

    def __init__(self, root: Path, settings: Comet, keys: MetaKeys, binary: Path | None = None) -> None:
        self.home, self._settings, self._keys, self._binary = CometHome(root), settings, keys, binary
        self._application: LedgerApplication | None = None
        self._server: AbciServer | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._client: httpx.AsyncClient | None = None
        self._supervising: asyncio.Task[None] | None = None
        self._fatal = self._problem = ""
        self._ending = asyncio.Event()
        self._lane = _Lane(AT_ONCE)

    def attach(self, application: LedgerApplication) -> None:
        """The application that CometBFT drives."""
        self._application = application

    def problem(self) -> str:
        """Why there is no order now; empty while CometBFT runs."""
        return self._fatal or self._problem

    async def start(self) -> None:
        """Begin; returns once CometBFT was started, which then catches up. Raises OrderError."""
        application = self._application
        if application is None:
            raise OrderError("an order without a ledger: open the ledger first")
        self.home.check(self._keys)
        binary = self._binary or await asyncio.to_thread(find_comet)
        if binary is None:
            raise OrderError("CometBFT is not on PATH nor in the project's tool folder: run `python -m chain.comet`")
        try:
            address = socket_address(self.home.root, "spd")
        except AddressError as error:
            raise OrderError(str(error)) from None
        self.home.write_config(self._settings, self._keys, address)
        application.friends = frozenset(parse_peer(one).partition("@")[0] for one in self._settings.peers)
        _require_free("127.0.0.1", self._settings.rpc_port, "comet.rpc_port")
        _require_free(self._settings.host, self._settings.port, "comet.port")
        loop = asyncio.get_running_loop()

        def stop_for(error: BaseException) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(self._stopped_for, error)

        self._server = AbciServer(application, address, on_fatal=stop_for)
        try:
            await asyncio.to_thread(self._server.start)
        except (AddressError, OSError) as error:
            self._server = None
            raise OrderError(f"CometBFT's socket cannot be made: {error}") from None
        self._client = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{self._settings.rpc_port}",
            timeout=BROADCAST_S,
            trust_env=False,
            verify=False,  # noqa: S501  loopback, no TLS
            limits=httpx.Limits(max_connections=AT_ONCE + 1, max_keepalive_connections=AT_ONCE + 1),
        )
        self._command = [str(binary), "start", "--home", str(self.home.root)]
        try:
            await self._spawn()
        except (OSError, subprocess.SubprocessError) as error:
            await self.stop()
            raise OrderError(f"CometBFT cannot be started ({error}): see that {binary} may be executed") from None
        self._supervising = asyncio.create_task(self._supervise(), name="comet")

    async def _spawn(self) -> None:
        # What it says goes to our stderr: stdout is for results.
        self._process = await asyncio.create_subprocess_exec(*self._command, stdin=subprocess.DEVNULL, stdout=2, preexec_fn=die_with_parent)

    def _stopped_for(self, error: BaseException) -> None:
        self._fatal = self._fatal or (str(error) or type(error).__name__)
        self._ending.set()

    async def _supervise(self) -> None:
        """Start CometBFT again when it ends, later each time; end when the application has."""
        loop, pause_s = asyncio.get_running_loop(), 1.0
        while True:
            began_s, process = loop.time(), self._process
            assert process is not None
            ended, told = asyncio.ensure_future(process.wait()), asyncio.ensure_future(self._ending.wait())
            try:
                await asyncio.wait([ended, told], return_when=asyncio.FIRST_COMPLETED)
                await asyncio.wait([told], timeout=TELL_S)  # the application may tell why a moment later
            finally:
                ended.cancel()
                told.cancel()
            if self._fatal:
                log.error("the order has ended", why=self._fatal)
                await self._end_process()
                return
            pause_s = 1.0 if loop.time() - began_s > LONGEST_PAUSE_S else min(2 * pause_s, LONGEST_PAUSE_S)
            self._problem = f"CometBFT has ended (exit code {process.returncode}), its last lines say why; it is started again"
            log.warning("CometBFT has ended; it is started again", exit_code=process.returncode, after_s=pause_s)
            pause_s = await self._spawn_again(pause_s)

    async def _spawn_again(self, pause_s: float) -> float:
        """Start CometBFT after a pause, which grows as long as the machine has no process for it. The last pause."""
        while True:
            await asyncio.sleep(pause_s)
            if self._fatal:
                return pause_s
            try:
                await self._spawn()
            except (OSError, subprocess.SubprocessError) as error:
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
                self._problem = f"CometBFT cannot be started ({error}): see to memory, processes and {self._command[0]}; it is tried again"
                log.warning("CometBFT cannot be started; it is tried again", why=str(error), after_s=pause_s)
                continue
            self._problem = ""
            return pause_s

    async def watch(self) -> None:
        """Wait until the order cannot go on. Raises OrderError then."""
        assert self._supervising is not None
        await asyncio.wait([self._supervising])
        if not self._supervising.cancelled():
            self._supervising.result()
        raise OrderError(f"the order has ended: {self._fatal or 'it was stopped'}")

    async def stop(self) -> None:
        """Stop CometBFT, then what serves it. It may be started again."""
        if self._supervising is not None:
            self._supervising.cancel()
            await asyncio.wait([self._supervising])
            self._supervising = None
        await self._end_process()
        if self._server is not None:
            await asyncio.to_thread(self._server.stop)
            self._server = None
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def _end_process(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        try:
            async with asyncio.timeout(STOP_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    @property
    def process_id(self) -> int | None:
        """CometBFT's, while it runs."""
        return None if self._process is None or self._process.returncode is not None else self._process.pid

    async def broadcast(self, operation: bytes) -> None:
        """As ``Order`` says."""
        async with self._lane.place():
            answer = await self._asked("broadcast_tx_sync", tx=base64.b64encode(operation).decode())
        if answer is None:
            return
        if (refusal := answer.get("error")) is not None:
            text = f"{refusal.get('data') or refusal.get('message')}" if isinstance(refusal, dict) else ""
            if "already exists in cache" in text:
                return
            raise Unavailable(f"CometBFT does not take the operation now ({text[:200]})")
        result = answer.get("result")
        code = result.get("code") if isinstance(result, dict) else None
        if not isinstance(result, dict) or type(code) is not int:
            raise Unavailable("what answers at comet.rpc_port is no CometBFT: see which program has that port")
        if code == PANIC_CODE:
            raise Unavailable("the ledger could not look at the operation: its log says why")
        if code == CODE_WAITS:
            raise Unavailable(str(result.get("log", ""))[:1_024])
        if code:
            raise OrderRefused(code, str(result.get("log", ""))[:1_024])

    async def _asked(self, method: str, **params: Any) -> dict[str, Any] | None:
        """The answer of the RPC; None where nobody knows whether the question was heard. Raises Unavailable where it was not."""
        if self._client is None:
            raise Unavailable("the order is stopped")
        try:
            response = await self._client.post("/", json={"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
            if len(response.content) > MAX_ANSWER_BYTES:
                raise Unavailable("CometBFT's answer is too large")
            answer = response.json()
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise Unavailable(f"CometBFT does not answer yet ({type(error).__name__})") from None
        except (httpx.HTTPError, ValueError, RecursionError, RuntimeError):  # RuntimeError: closed meanwhile
            return None
        return answer if isinstance(answer, dict) else None


class _Lane:
    """Lets those pass who came first, ``width`` of them at once: nobody overtakes more than so many."""

    def __init__(self, width: int) -> None:
        self._width, self._next = width, 0
        self._under_way: dict[int, None] = {}
        self._moved = asyncio.Condition()

    @contextlib.asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Wait for one's turn, and hold it."""
        mine, self._next = self._next, self._next + 1
        self._under_way[mine] = None
        try:
            async with self._moved:
                await self._moved.wait_for(lambda: mine - next(iter(self._under_way)) < self._width)
            yield
        finally:
            del self._under_way[mine]
            async with self._moved:
                self._moved.notify_all()


def _require_free(host: str, port: int, name: str) -> None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise OrderError(f"{name}: CometBFT cannot listen at {endpoint_text(host, port)} ({error.strerror}): name another port") from None
