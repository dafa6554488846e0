"""What several tests share: a chain in process with funded keys, and a devnet as a process on free ports."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import httpx
from click.testing import CliRunner

from chain import config, nodekeys
from chain.api.comet import CometClient, CometRefused, CometUnavailable
from chain.api.server import ApiServer
from chain.app import build_application
from chain.application import Application, Settings
from chain.authority import GOV_ADDRESS
from chain.cli.genesis import tx_message
from chain.cli.main import cli
from chain.codec.json import to_json
from chain.codec.registry import message_class
from chain.coins import Coin, Coins, to_messages
from chain.config import APP_DEFAULTS, Home
from chain.context import Context
from chain.crypto import address as bech32
from chain.crypto.keys import PrivateKey, public_key_to_any
from chain.metrics import Metrics
from chain.store.kv import KVBackend, MemoryBackend
from chain.testing.driver import Driver
from chain.testing.ports import free_ports as free_ports
from chain.testing.validators import ValidatorKey
from chain.tx.build import Signer, build_tx
from genesis import build, document
from tools.localnet import FULL_NODES, PORTS_PER_NODE, VALIDATORS, Localnet

ROOT = Path(__file__).parent.parent
CHAIN_ID = "test-1"
FEE: Coins = (Coin("wei", 200_000 * 10**9),)
GAS = 200_000
FUNDS_WEI = 10**24
GOV = bech32.encode(GOV_ADDRESS)
"""The account of the gov module: the authority over parameters."""


def key(number: int, algorithm: str = "secp256k1") -> PrivateKey:
    """The same key for the same number in every run."""
    return PrivateKey((number + 1).to_bytes(32, "big"), algorithm)


KEYS = [key(0, "eth_secp256k1"), key(1, "eth_secp256k1"), *(key(number) for number in range(2, 6))]
"""Funded at genesis in this order: account numbers 0 to 5."""


def text(private: PrivateKey) -> str:
    return bech32.encode(private.public_key.address)


def genesis_document(application: Application, *, consensus: dict[str, Any] | None = None, denom: str = "wei") -> dict[str, Any]:
    """One validator (the first key's) and every key of KEYS funded."""
    made = build.default_document(application.modules, CHAIN_ID, "2026-01-01T00:00:00Z", "test")
    for private in KEYS:
        build.add_account(made, private.public_key.address, tuple(sorted({Coin("wei", FUNDS_WEI), Coin(denom, FUNDS_WEI)})))
    message = message_class("cosmos.staking.v1beta1.MsgCreateValidator")(
        description={"moniker": "test"},
        validator_address=bech32.encode(KEYS[0].public_key.address, bech32.VALIDATOR),
        pubkey=public_key_to_any(ValidatorKey.numbered(0).public_key),
        min_self_delegation="1",
        value={"denom": "wei", "amount": str(10**18)},
    )
    message.commission.rate, message.commission.max_rate, message.commission.max_change_rate = str(10**17), str(2 * 10**17), str(10**16)
    raw = build_tx([message], fee=(), gas_limit=GAS, signers=[Signer(KEYS[0].public_key, 0)]).sign([KEYS[0]], CHAIN_ID)
    made["app_state"]["genutil"]["gen_txs"] = [to_json(tx_message(raw))]
    made["consensus"]["params"] = {**made["consensus"]["params"], **(consensus or {})}
    made = document.normalise(made)
    made["consensus"]["params"] = to_json(document.consensus_params(made))
    build.pin_supply(made)
    return made


def chain(
    count: int = 1,
    *,
    settings: Sequence[Settings] | None = None,
    kvs: Sequence[KVBackend] | None = None,
    blocks: int = 1,
    build: Callable[..., Application] = build_application,
    **genesis: Any,
) -> Driver:
    """A driver over ``count`` applications that have made ``blocks`` empty blocks, and check every invariant before each commit."""
    settings = [replace(one, invariant_period=1) for one in settings or [Settings()] * count]
    kvs = kvs or [MemoryBackend() for _ in range(count)]
    apps = [build(kv, one) for kv, one in zip(kvs, settings, strict=True)]
    driver = Driver(apps, genesis_document(apps[0], **genesis))
    driver.start()
    for _ in range(blocks):
        driver.next_block()
    return driver


def at_end_of(app: Application, messages: dict[int, Any]) -> list[Any]:
    """Have the chain execute a message in the end hooks of a height, where a passed proposal's would be; returns the events, as they come."""
    events: list[Any] = []

    def hook(ctx: Context, state: Any) -> None:
        if ctx.height in messages:
            message = messages[ctx.height]
            mark = ctx.events.mark()
            app.executor._handlers[message.DESCRIPTOR.full_name].execute(ctx, state, message)
            events.extend(ctx.events.events[mark:])

    app._end.append(hook)
    return events


def send(
    sender: int, recipient: int, amount: int = 5, *, sequence: int = 0, fee: Coins = FEE, gas: int = GAS, denom: str = "wei", **options: Any
) -> bytes:
    """A signed MsgSend between two of KEYS. ``options``: memo, timeout_height, mode, chain_id, number, key."""
    mode = {"mode": options.pop("mode")} if "mode" in options else {}
    signer = Signer(KEYS[sender].public_key, sequence, options.pop("number", sender), **mode)
    chain_id, private = options.pop("chain_id", CHAIN_ID), options.pop("key", KEYS[sender])
    message = message_class("cosmos.bank.v1beta1.MsgSend")(
        from_address=text(KEYS[sender]), to_address=text(KEYS[recipient]), amount=to_messages((Coin(denom, amount),))
    )
    return build_tx([message], fee=fee, gas_limit=gas, signers=[signer], **options).sign([private], chain_id)


def balance(driver: Driver, number: int, denom: str = "wei") -> int:
    """What one of KEYS holds."""
    return int(driver.apps[0].store.view().store("bank").get(b"\x02\x14" + KEYS[number].public_key.address + denom.encode()) or 0)  # type: ignore[attr-defined]


def stchaind(home: Path, *arguments: str, stdin: str = "") -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of a command, in this process."""
    done = CliRunner().invoke(cli, ["--home", str(home), *arguments], input=stdin)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout, done.stderr


@dataclass
class Served:
    """An application behind its servers, without CometBFT."""

    driver: Driver
    grpc: str
    rest: str
    api: ApiServer

    @property
    def app(self) -> Any:
        return self.driver.apps[0]

    def call(self, path: str, raw: bytes = b"", metadata: tuple[tuple[str, str], ...] = ()) -> tuple[str, str]:
        """(status name, error text)."""
        with grpc.insecure_channel(self.grpc, options=[("grpc.max_receive_message_length", 64 << 20)]) as channel:
            try:
                channel.unary_unary(path, request_serializer=None, response_deserializer=None)(raw, metadata=metadata, timeout=30)
            except grpc.RpcError as error:
                return error.code().name, error.details()
        return "OK", ""

    def get(self, path: str, **options: Any) -> httpx.Response:
        return httpx.get(self.rest + path, timeout=30, **options)

    def panics(self) -> dict[str, int]:
        return dict(self.app.counts.panics)


def serve(driver: Driver, **api_settings: Any) -> Served:
    base = free_ports(2)
    config = {**APP_DEFAULTS, "grpc": {**APP_DEFAULTS["grpc"], "address": f"127.0.0.1:{base}"}}
    config["api"] = {**APP_DEFAULTS["api"], "address": f"tcp://127.0.0.1:{base + 1}", **api_settings}
    app: Any = driver.apps[0]
    api = ApiServer(app, CometClient("tcp://127.0.0.1:1"), config, Metrics(app))
    api.start()
    return Served(driver, f"127.0.0.1:{base}", f"http://127.0.0.1:{base + 1}", api)


@dataclass
class Devnet:
    """A running devnet: what devnet.json says, and its process."""

    net: dict[str, Any]
    process: subprocess.Popen[bytes]

    def rpc(self, method: str, **params: Any) -> Any:
        client = CometClient(self.net["rpc"])
        try:
            return client.call(method, **params)
        finally:
            client.close()

    def height(self) -> int:
        try:
            return int(self.rpc("status")["sync_info"]["latest_block_height"])
        except (CometUnavailable, CometRefused):
            return 0

    def wait_for(self, height: int, timeout_s: float = 60) -> int:
        """The height, once it is at least ``height``."""
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            found = self.height()
            if found >= height:
                return found
            if self.process.poll() is not None:
                break
            time.sleep(0.2)
        raise TimeoutError(f"the devnet did not reach block {height}")

    def stop(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(30)


def end(process: subprocess.Popen[bytes], number: int = signal.SIGTERM) -> None:
    """Ask a process to stop, and kill it when it has not after 30 s."""
    process.send_signal(number)
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def ask_until(ask: Callable[[], Any], timeout_s: float = 60) -> Any:
    """What ``ask`` answers as soon as that is something true, whatever CometBFT refuses meanwhile. Raises TimeoutError."""
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        with contextlib.suppress(CometUnavailable, CometRefused):
            found = ask()
            if found:
                return found
        time.sleep(0.2)
    raise TimeoutError(f"no answer after {timeout_s} s")


class Cli:
    """stchaind with one home, as processes of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "chain.cli.main", "--home", str(self.home), *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    def ok(self, *arguments: str) -> str:
        """What a command that must succeed prints."""
        done = self.run(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


@contextlib.contextmanager
def devnet(folder: Path, *, ports: int | None = None) -> Iterator[Devnet]:
    """A devnet in ``folder``, running; stopped at the end."""
    base = ports or free_ports(4)
    output = (folder / "devnet.log").open("ab")
    process = subprocess.Popen(
        [sys.executable, "-m", "tools.devnet", "--folder", str(folder), "--ports", str(base)], cwd=ROOT, stdout=output, stderr=output
    )
    output.close()
    try:
        path = folder / "devnet.json"
        until = time.monotonic() + 180
        while not path.exists() and time.monotonic() < until and process.poll() is None:
            time.sleep(0.2)
        running = Devnet(json.loads(path.read_text()), process)
        running.wait_for(1, 120)
        yield running
    finally:
        if process.poll() is None:
            end(process, signal.SIGINT)


@contextlib.contextmanager
def localnet(folder: Path, **making: Any) -> Iterator[Localnet]:
    """Four validators and a full node, children of this process, at their first block; stopped at the end. ``making``: as tools/localnet.py's ``make``."""
    count = making.get("validators", VALIDATORS) + making.get("full_nodes", FULL_NODES)
    net = Localnet(folder, ports=free_ports(count * PORTS_PER_NODE), **{"block_time": "500ms", **making})
    try:
        net.start()
        for name in net.names:
            node_of(net, name).wait_for(1, 180)
        net.refresh()
        yield net
    finally:
        net.close()


def node_of(net: Localnet, name: str) -> Devnet:
    """One node of a localnet, to be asked."""
    return Devnet(net.node(name), net.process(name))


@contextlib.contextmanager
def follower(folder: Path, net: dict[str, Any]) -> Iterator[Devnet]:
    """A full node of its own beside a running devnet, fed by block sync and gossip; stopped at the end."""
    home, first = Home(folder / "home"), Home(Path(net["home"]))
    nodekeys.create_missing(home)
    config.write_defaults(home, "follower")
    shutil.copy(first.genesis, home.genesis)
    peer_port = int(net["rpc"].rpartition(":")[2]) + 1
    base = free_ports(3)
    rpc = f"tcp://127.0.0.1:{base}"
    flags = ["--rpc.laddr", rpc, "--p2p.laddr", f"tcp://127.0.0.1:{base + 1}", "--grpc.address", f"127.0.0.1:{base + 2}", "--api.enable", "false"]
    flags += ["--p2p.persistent_peers", f"{nodekeys.node_id(first)}@127.0.0.1:{peer_port}"]
    with (folder / "follower.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "chain.cli.main", "--home", str(home.root), "start", *flags], cwd=ROOT, stdout=log, stderr=log
        )
    try:
        yield Devnet({"rpc": rpc, "home": str(home.root)}, process)
    finally:
        end(process)


def same_headers(first: Devnet, second: Devnet, height: int) -> None:
    """Raise AssertionError unless both nodes have the same header, and so the same app hash, at every height up to ``height``."""
    for at in range(1, height + 1):
        ours, theirs = (one.rpc("header", height=str(at))["header"] for one in (first, second))
        assert ours == theirs, f"block {at}: {ours['app_hash']} and {theirs['app_hash']}"
