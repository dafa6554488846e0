"""``make localnet``: four validators and a full node in ``.localnet``, each with its own home, ports and CometBFT, on loopback.

Made once, continued every time, started over with ``--reset``. ``.localnet/localnet.json`` tells scripts of every node its home, addresses and
process ids (null while it does not run), and the funded accounts. Every validator is a meta node, too, with its keys in its home; two accounts are
there to own resource nodes, whose keys localnet.json has. Periods are short (chain/cli/testnet.py: SHORT_PERIODS); ``--param`` changes
others. Ctrl-C stops all. A node that somebody ends stays down, and the others go on.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import nacl.signing

from chain import nodekeys
from chain.cli.testnet import SHORT_EVIDENCE, Account, Node, fill_keyring, make_network, short_periods
from chain.comet import CometError, ensure_comet
from chain.config import ConfigError, Home
from chain.crypto import address as bech32
from chain.crypto.keys import Ed25519PublicKey
from chain.module import GenesisError
from tools.nodes import STCHAIND, Blocks, Folder, attend, last_lines, meta_node, new_accounts, show

CHAIN_ID = "stratos-local-1"
COMMAND = "make localnet"
VALIDATORS, FULL_NODES = 4, 1
RESOURCE_OWNERS = ("owner0", "owner1")
"""Accounts that are there to register resource nodes."""
FIRST_PORT = 27000
PORTS_PER_NODE = 5
"""rpc, p2p, grpc, rest, and one that is free for a proxy in front of p2p."""


class Localnet:
    """The nodes of one folder. Its process is their parent: they end with it."""

    def __init__(self, folder: Path, *, ports: int = FIRST_PORT, reset: bool = False, **making: Any) -> None:
        """Open the network in ``folder``, made with ``making`` (``make``'s options) where there is none. Raises ConfigError, GenesisError, OSError."""
        self.folder = Folder(folder, "localnet", COMMAND)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._written_before: dict[str, int] = {}
        self.programs: dict[str, Sequence[str]] = {}
        """What runs instead of stchaind, by node: a module and its arguments."""
        try:
            self.net = self.folder.load(lambda: make(self.folder.path, ports, **making), reset, self._moved)
        except BaseException:
            self.folder.close()
            raise

    def _moved(self, net: dict[str, Any]) -> None:
        for node in net["nodes"]:
            node.update(home=str(self._home(node["name"])), app_pid=None, comet_pid=None)
        net["home"] = net["nodes"][0]["home"]

    def _home(self, name: str) -> Path:
        return self.folder.path / name / "stchaind"

    def node(self, name: str) -> dict[str, Any]:
        """What localnet.json says of a node."""
        return next(one for one in self.net["nodes"] if one["name"] == name)

    @property
    def names(self) -> list[str]:
        return [node["name"] for node in self.net["nodes"]]

    def log(self, name: str) -> Path:
        return self.folder.path / f"{name}.node.log"

    def start(self, *names: str) -> None:
        """Start nodes (default: all) that do not run."""
        for name in names or self.names:
            if not self.is_running(name):
                log = self.log(name)
                self._written_before[name] = log.stat().st_size if log.exists() else 0
                self._processes[name] = self.folder.start(str(self._home(name)), log, self.programs.get(name, STCHAIND))
        self.refresh()

    def stop(self, *names: str, number: int = signal.SIGTERM) -> None:
        """Send nodes (default: all) a signal, and wait until they have ended."""
        ending = [self._processes[name] for name in names or self.names if self.is_running(name)]
        for process in ending:
            process.send_signal(number)
        for process in ending:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.refresh()

    def close(self) -> None:
        """Stop every node and let go of the folder."""
        self.stop()
        self.folder.close()

    def process(self, name: str) -> subprocess.Popen[bytes]:
        """The process of a node that was started."""
        return self._processes[name]

    def is_running(self, name: str) -> bool:
        process = self._processes.get(name)
        return process is not None and process.poll() is None

    def running(self) -> list[subprocess.Popen[bytes]]:
        return [process for name, process in self._processes.items() if self.is_running(name)]

    def refresh(self) -> None:
        """Bring the process ids in localnet.json up to date; CometBFT's appears a moment after the application's."""
        comets = _comets()
        changed = False
        for node in self.net["nodes"]:
            pid = self._processes[node["name"]].pid if self.is_running(node["name"]) else None
            found = {"app_pid": pid, "comet_pid": comets.get(pid) if pid is not None else None}
            changed |= any(node[key] != value for key, value in found.items())
            node.update(found)
        if changed:
            self.folder.save(self.net)

    def ended(self) -> list[str]:
        """Names of nodes that have ended by themselves since the last call, each told once."""
        names = [name for name, process in self._processes.items() if process.poll() is not None]
        for name in names:
            code = self._processes.pop(name).returncode
            told = (
                f"  {name} ended with exit code {code}; the others go on. Again: .venv/bin/stchaind start --home {os.path.relpath(self._home(name))}"
            )
            print(f"{told}\n{last_lines(self.log(name), self._written_before[name])}" if code else told, flush=True)
        return names


def make(
    folder: Path,
    base: int,
    *,
    block_time: str = "1s",
    params: Mapping[str, Any] | None = None,
    comet: Mapping[str, Any] | None = None,
    app: Mapping[str, Any] | None = None,
    validators: int = VALIDATORS,
    full_nodes: int = FULL_NODES,
    more_accounts: Sequence[Account] = (),
) -> dict[str, Any]:
    """Make the homes of a new localnet; writes localnet.json and returns what it says. Ports go up from ``base``, PORTS_PER_NODE a node."""
    names = [*(f"node{at}" for at in range(validators)), *(f"full{at}" for at in range(full_nodes))]
    operators = names[:validators]
    accounts = [*new_accounts(*operators), *(Account.new(name, "eth_secp256k1") for name in RESOURCE_OWNERS), *more_accounts]
    by_name = {account.name: account for account in accounts}
    nodes = [Node(name, Home(folder / name / "stchaind"), _ports(base + at * PORTS_PER_NODE), by_name.get(name)) for at, name in enumerate(names)]
    settings = {"consensus.timeout_commit": block_time, "p2p.addr_book_strict": False, "p2p.allow_duplicate_ip": True, "p2p.pex": False}
    make_network(
        nodes,
        CHAIN_ID,
        accounts,
        params={**short_periods(), **(params or {})},
        consensus={"evidence": SHORT_EVIDENCE},
        comet={**settings, **(comet or {})},
        app=app,
    )
    for node in nodes[:validators]:
        fill_keyring(node.home, accounts[: len(accounts) - len(more_accounts)] if node is nodes[0] else [by_name[node.name]])
    told = [_told(node, by_name.get(node.name)) for node in nodes]
    served = {name: told[0][name] for name in ("rpc", "grpc", "rest", "home")}
    net = {"chain_id": CHAIN_ID, **served, "nodes": told, "accounts": [account.told() for account in accounts]}
    net["resource_nodes"] = [_resource_node(owner) for owner in RESOURCE_OWNERS]
    nodekeys.write_private(folder / "localnet.json", net)
    return net


def _ports(first: int) -> dict[str, int]:
    return dict(zip(("rpc", "p2p", "grpc", "rest"), range(first, first + 4), strict=True))


def _told(node: Node, operator: Account | None) -> dict[str, Any]:
    node_id, _, p2p = node.peer.partition("@")
    return {
        "name": node.name,
        "validator": operator is not None,
        "operator": operator.address if operator else None,
        "node_id": node_id,
        "home": str(node.home.root),
        "rpc": f"http://127.0.0.1:{node.ports['rpc']}",
        "grpc": f"127.0.0.1:{node.ports['grpc']}",
        "rest": f"http://127.0.0.1:{node.ports['rest']}",
        "p2p": f"tcp://{p2p}",
        "meta_node": meta_node(node.home) if operator else None,
        "app_pid": None,
        "comet_pid": None,
    }


def _resource_node(owner: str) -> dict[str, str]:
    """A network key for a resource node that ``owner`` may register."""
    seed = nacl.signing.SigningKey.generate()
    key = Ed25519PublicKey(bytes(seed.verify_key))
    address, pubkey = bech32.encode(key.address, bech32.NODE), bech32.encode(key.raw, bech32.NODE_PUB)
    return {"owner": owner, "network_address": address, "network_pubkey": pubkey, "network_seed": bytes(seed).hex()}


def _comets() -> dict[int, int]:
    """Process ids of every CometBFT on this machine, by its parent's."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,comm="], capture_output=True, text=True).stdout
    rows = (line.split(None, 2) for line in listed.splitlines())
    return {int(row[1]): int(row[0]) for row in rows if len(row) == 3 and "cometbft" in row[2]}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reset", action="store_true")
    parser.add_argument("--folder", type=Path, default=Path(".localnet"))
    parser.add_argument("--ports", type=int, default=FIRST_PORT, help=f"first port, of {PORTS_PER_NODE} a node (default {FIRST_PORT})")
    parser.add_argument("--block-time", default="1s", help="CometBFT's timeout_commit (default 1s)")
    parser.add_argument("--param", action="append", default=[], metavar="MODULE.NAME=VALUE", help="a parameter of the genesis file, as JSON or text")
    arguments = parser.parse_args()
    try:
        params = dict(map(_param, arguments.param))
        ensure_comet()
        net = Localnet(arguments.folder, ports=arguments.ports, reset=arguments.reset, block_time=arguments.block_time, params=params)
    except (CometError, ConfigError, GenesisError, OSError) as error:
        print(f"{COMMAND}: {error}", file=sys.stderr)
        return 1
    except click.ClickException as error:
        print(f"{COMMAND}: {error.message}", file=sys.stderr)
        return 1
    return _run(net)


def _param(text: str) -> tuple[str, Any]:
    name, separator, value = text.partition("=")
    if not separator:
        raise ConfigError(f"--param takes MODULE.NAME=VALUE, as staking.unbonding_time=60s, got {text[:80]!r}")
    # Genesis files write 64 bits and decimals as text, what is smaller as numbers.
    return name, json.loads(value) if value in ("true", "false") or value[:1] in ("[", "{") else value


def _run(net: Localnet) -> int:
    net.start()
    blocks = Blocks(lambda: _show(net))
    ticks = 0

    def step(stopping: bool) -> bool:
        nonlocal ticks
        ticks += 1
        if not stopping and (net.ended() or ticks % 5 == 0):
            net.refresh()
        first = next((node for node in net.net["nodes"] if net.is_running(node["name"])), None)
        if first is not None:
            blocks.show(first["rpc"], first["home"])
        return first is not None

    if attend(step, net.running):
        net.refresh()
        print(f"\n  stopped; the chain is kept in {os.path.relpath(net.folder.path)}", flush=True)
        return 0
    return 1


def _show(net: Localnet) -> None:
    show(net.net, COMMAND)
    print(f"  nodes, addresses, process ids and mnemonics: {os.path.relpath(net.folder.told)}")
    for node in net.net["nodes"]:
        print(f"    {node['name']:<6} {'validator' if node['validator'] else 'full node'}  {node['rpc']}  {os.path.relpath(node['home'])}")
    print()


if __name__ == "__main__":
    sys.exit(main())
