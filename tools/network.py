"""``make network``: a whole storage network in ``.network``: a chain, a meta node, resource nodes, two users with ozone, each a process of its own.

    .network/chain/        a one-validator chain (tools/localnet.py), whose validator is the meta node
             meta0/        home of spd
             node1 … 6/    homes of ppd, each at an address of its own: node i listens at 127.0.i.1
             alice, bob    homes of two users: `ppd put FILE --home .network/alice`

Made once, continued every time, started over with ``--reset``. ``.network/network.json`` tells scripts all of it, process ids too. Ctrl-C stops all, in order.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx

from chain import nodekeys
from chain.cli.testnet import Account
from chain.comet import CometError, ensure_comet
from chain.config import ConfigError
from chain.module import GenesisError
from tools.localnet import Localnet
from tools.nodes import Folder, attend, last_lines

COMMAND = "make network"
FIRST_PORT = 28_000
RESOURCE_NODES = 6
DEPOSIT = "100stos"
OZONE = "100stos"
PASSWORD = "of a network to play with"
USERS = ("alice", "bob")
SPD, PPD = ("sds_node.cli.spd",), ("sds_node.cli.ppd",)
UP_S = 120.0
MAX_NODES = 18
GATEWAYS = 20
"""Ports of gateways are so much above those of monitors."""


class NetworkError(Exception):
    """A network that could not be made or started; the text says which part and what it said."""


class Network:
    """The processes of one folder. They end with this one."""

    def __init__(
        self, folder: Path, *, ports: int = FIRST_PORT, nodes: int = RESOURCE_NODES, reset: bool = False, params: Mapping[str, Any] | None = None
    ) -> None:
        self.folder = Folder(folder, "network", COMMAND)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.chain: Localnet | None = None
        try:
            self.net = self.folder.load(lambda: self._first(ports, nodes), reset, self._moved)
            owners = [Account(**one) for one in self.net["owners"]]
            self.chain = Localnet(
                self.folder.path / "chain", ports=self.net["ports"], validators=1, full_nodes=0, more_accounts=owners, params=params or {}
            )
        except BaseException:
            self.folder.close()
            raise

    def _first(self, ports: int, nodes: int) -> dict[str, Any]:
        (self.folder.path / "password").write_text(PASSWORD + "\n")
        (self.folder.path / "password").chmod(0o600)
        owners = [Account.new(f"miner{number}", "eth_secp256k1") for number in range(1, nodes + 1)]
        made = {
            "ports": ports,
            "is_complete": False,
            "owners": [{"name": one.name, "key_type": one.key_type, "mnemonic": one.mnemonic, "hd_path": one.hd_path} for one in owners],
            "meta_nodes": [],
            "resource_nodes": [],
            "users": [],
        }
        nodekeys.write_private(self.folder.told, made)
        return made

    def _moved(self, net: dict[str, Any]) -> None:
        for one in (*net["meta_nodes"], *net["resource_nodes"], *net["users"]):
            one["home"] = str(self.folder.path / one["name"])
            if "pid" in one:
                one["pid"] = None

    @property
    def chain_info(self) -> dict[str, Any]:
        assert self.chain is not None
        return self.chain.net

    # --- making it --------------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start everything; what is missing is made. Raises NetworkError."""
        assert self.chain is not None
        taken = [port for port in range(self.net["ports"], self.net["ports"] + 12) if not _is_free("127.0.0.1", port)]
        if taken:
            raise NetworkError(f"port {taken[0]} is taken: end what has it, or begin another network with --ports")
        self.chain.start()
        self._wait("the chain makes blocks", lambda: _height(self.chain_info["rpc"]) >= 1)
        told = {name: self.chain_info[name] for name in ("chain_id", "rpc", "grpc", "rest")}
        self.net.update({**told, "chain_home": self.chain_info["home"], "accounts": self.chain_info["accounts"]})
        self._meta()
        for number in range(1, len(self.net["owners"]) + 1):
            self._resource(number)
        self._wait(f"{len(self.net['resource_nodes'])} resource nodes are at work", self._are_at_work)
        for name in USERS:
            self._user(name)
        self.net["is_complete"] = True
        self.save()

    def _meta(self) -> None:
        home, net = self.folder.path / "meta0", self.net
        if not net["meta_nodes"]:
            validator = self.chain_info["nodes"][0]
            operator = next(one for one in self.chain_info["accounts"] if one["address"] == validator["operator"])
            words = self.folder.path / "operator.txt"
            words.write_text(operator["mnemonic"])
            words.chmod(0o600)
            port = net["ports"] + 10
            keys = str(Path(validator["home"]) / "config" / "meta_keys.json")
            made = self._json(
                SPD, "init", "--home", home, "--rpc", net["rpc"], "--port", port, "--meta-keys", keys, "--owner-mnemonic-file", words,
                "--hd-path", operator["hd_path"],
            )  # fmt: skip
            words.unlink()
            for name, value in (("times.hello_s", 2), ("times.status_s", 10), ("times.window_s", 3), ("metrics.port", port + 1)):
                self._run(SPD, "config", "set", name, str(value), "--home", home)
            net["meta_nodes"].append(
                {"name": "meta0", "node": made["node"], "pubkey": made["pubkey"], "endpoint": f"127.0.0.1:{port}", "home": str(home), "pid": None}
            )
            self.save()
        # A chain that was made elsewhere, or whose folder was moved, keeps its keys where it is now.
        self._run(
            SPD, "config", "set", "keys.meta_keys", str(Path(self.chain_info["nodes"][0]["home"]) / "config" / "meta_keys.json"), "--home", home
        )
        self._launch("meta0", SPD, home)
        self._wait("the meta node serves", lambda: self._status(SPD, home).get("is_ready", False))

    @property
    def meta(self) -> str:
        """The meta node, as clients name it."""
        meta = self.net["meta_nodes"][0]
        return f"{meta['pubkey']}@{meta['endpoint']}"

    def _resource(self, number: int) -> None:
        name = f"node{number}"
        home, net = self.folder.path / name, self.net
        if len(net["resource_nodes"]) < number:
            account = net["owners"][number - 1]
            words = self.folder.path / f"{name}.txt"
            words.write_text(account["mnemonic"] + "\n")
            words.chmod(0o600)
            host, port = f"127.0.{number}.1", net["ports"] + 12
            made = self._json(
                PPD, "init", "--home", home, "--chain-id", net["chain_id"], "--rpc", net["rpc"], "--meta-node", self.meta, "--mnemonic-file", words,
                "--listen", f"{host}:{port}", "--capacity", "20GiB", "--monitor-port", port + number,
                "--gateway-port", port + GATEWAYS + number,
            )  # fmt: skip
            words.unlink()
            self._run(PPD, "register", "--home", home, "--deposit", DEPOSIT, "--moniker", name)
            net["resource_nodes"].append(
                {
                    "name": name,
                    "node": made["node"],
                    "owner": made["wallet"],
                    "endpoint": f"{host}:{port}",
                    "monitor": f"http://127.0.0.1:{port + number}",
                    "gateway": f"http://127.0.0.1:{port + GATEWAYS + number}",
                    "home": str(home),
                    "pid": None,
                }
            )
            self.save()
        self._launch(name, PPD, home)

    def _are_at_work(self) -> bool:
        found = self._status(SPD, self.folder.path / "meta0")
        return bool(found.get("eligible_nodes", 0) >= len(self.net["resource_nodes"]))

    def _user(self, name: str) -> None:
        if any(one["name"] == name for one in self.net["users"]):
            return
        home = self.folder.path / name
        account = next(one for one in self.chain_info["accounts"] if one["name"] == name)
        words = self.folder.path / f"{name}.txt"
        words.write_text(account["mnemonic"] + "\n")
        words.chmod(0o600)
        self._run(
            PPD, "setup", "--home", home, "--chain-id", self.net["chain_id"], "--rpc", self.net["rpc"], "--meta-node", self.meta,
            "--mnemonic-file", words,
        )  # fmt: skip
        words.unlink()
        self._run(PPD, "prepay", OZONE, "--home", home)
        self.net["users"].append({"name": name, "wallet": account["address"], "home": str(home)})
        self.save()

    # --- processes --------------------------------------------------------------------------------------------------------------

    @property
    def environment(self) -> dict[str, str]:
        """For commands: where the password of every key is."""
        password = str(self.folder.path / "password")
        return {**os.environ, "PPD_PASSWORD_FILE": password, "SPD_PASSWORD_FILE": password}

    def _run(self, program: tuple[str, ...], *arguments: Any) -> str:
        command = [sys.executable, "-m", *program, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, env=self.environment, stdin=subprocess.DEVNULL)
        if done.returncode:
            raise NetworkError(f"{program[0].rpartition('.')[2]} {' '.join(map(str, arguments[:2]))}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def _json(self, *arguments: Any) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._run(*arguments, "-o", "json"))
        return found

    def _status(self, program: tuple[str, ...], home: Path) -> dict[str, Any]:
        try:
            return self._json(program, "status", "--home", home)
        except NetworkError:
            return {}

    def status_text(self, name: str) -> str:
        """What a node tells of itself, JSON. Raises NetworkError."""
        return self._run(SPD if name.startswith("meta") else PPD, "status", "--home", self.folder.path / name, "-o", "json")

    def log(self, name: str) -> Path:
        return self.folder.path / f"{name}.node.log"

    def _launch(self, name: str, program: tuple[str, ...], home: Path) -> None:
        if name in self._processes and self._processes[name].poll() is None:
            return
        self._processes[name] = self.folder.start(str(home), self.log(name), program, self.environment)
        self._note()

    def _note(self) -> None:
        for one in (*self.net["meta_nodes"], *self.net["resource_nodes"]):
            process = self._processes.get(one["name"])
            one["pid"] = process.pid if process is not None and process.poll() is None else None
        self.save()

    def save(self) -> None:
        self.folder.save(self.net)

    def _wait(self, what: str, is_so: Callable[[], bool]) -> None:
        until = time.monotonic() + UP_S
        while not is_so():
            if self.chain is not None and not self.chain.running():
                raise NetworkError(f"the chain's node has ended; its log ends so:\n{last_lines(self.chain.log('node0'))}")
            for name, process in self._processes.items():
                if process.poll() is not None:
                    raise NetworkError(f"{name} ended with exit code {process.returncode}:\n{last_lines(self.log(name))}")
            if time.monotonic() > until:
                logs = "\n".join(f"{name}:\n{last_lines(self.log(name))}" for name in self._processes)
                raise NetworkError(f"waited {UP_S:g} s until {what}; the logs end so:\n{logs}")
            time.sleep(0.3)

    @property
    def names(self) -> list[str]:
        """Meta nodes and resource nodes."""
        return [one["name"] for one in (*self.net["meta_nodes"], *self.net["resource_nodes"])]

    def kill(self, name: str) -> None:
        """SIGKILL one of them, and wait until it is gone."""
        self._processes[name].kill()
        self._processes[name].wait()
        self._note()

    def restart(self, name: str) -> None:
        """Start one that does not run."""
        self._launch(name, SPD if name.startswith("meta") else PPD, self.folder.path / name)

    def running(self) -> list[subprocess.Popen[bytes]]:
        """Storage nodes first, the chain last."""
        assert self.chain is not None
        ours = [one for one in self._processes.values() if one.poll() is None]
        return [*ours, *self.chain.running()]

    def ended(self) -> list[str]:
        """Names of storage nodes that have ended by themselves since the last call."""
        names = [name for name, process in self._processes.items() if process.poll() is not None]
        for name in names:
            del self._processes[name]
        return names

    def stop(self) -> None:
        """Stop resource nodes, then the meta node, then the chain."""
        for prefix in ("node", "meta"):
            ending = [process for name, process in self._processes.items() if name.startswith(prefix) and process.poll() is None]
            for process in ending:
                process.terminate()
            for process in ending:
                process.wait(90)
        if self.chain is not None:
            self.chain.stop()

    def close(self) -> None:
        """Stop everything and let go of the folder."""
        self.stop()
        if self.chain is not None:
            self.chain.close()
        self._note()
        self.folder.close()


def _height(rpc: str) -> int:
    try:
        return int(httpx.get(f"{rpc}/status", timeout=5).json()["result"]["sync_info"]["latest_block_height"])
    except (httpx.HTTPError, KeyError, ValueError):
        return 0


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        # As servers do: what a stopped network's connections left behind takes no port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reset", action="store_true")
    parser.add_argument("--folder", type=Path, default=Path(".network"))
    parser.add_argument("--ports", type=int, default=FIRST_PORT, help=f"first port (default {FIRST_PORT})")
    parser.add_argument(
        "--nodes",
        type=int,
        choices=range(1, MAX_NODES + 1),
        metavar="N",
        default=RESOURCE_NODES,
        help=f"resource nodes of a new network (default {RESOURCE_NODES})",
    )
    arguments = parser.parse_args()
    try:
        ensure_comet()
        network = Network(arguments.folder, ports=arguments.ports, nodes=arguments.nodes, reset=arguments.reset)
    except (CometError, ConfigError, GenesisError, OSError) as error:
        print(f"{COMMAND}: {error}", file=sys.stderr)
        return 1
    try:
        print("  starting a chain, a meta node and resource nodes; a new network takes about a minute", flush=True)
        network.start()
        _show(network)

        def step(is_stopping: bool) -> bool:
            if is_stopping:
                return False
            for name in network.ended():
                print(f"  {name} ended; the others go on:\n{last_lines(network.log(name))}", flush=True)
            return bool(network.chain and network.chain.running())

        attend(step, lambda: [])
    except NetworkError as error:
        print(f"{COMMAND}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\n  interrupted; what was made goes on next time", flush=True)
        return 130
    finally:
        print("\n  stopping", flush=True)
        network.close()
    return 0


def _show(network: Network) -> None:
    net, folder = network.net, os.path.relpath(network.folder.path)
    ppd = f"PPD_PASSWORD_FILE={folder}/password .venv/bin/ppd"
    print(
        f"\n  {net['chain_id']} with {len(net['resource_nodes'])} resource nodes is running\n\n"
        f"  chain    {net['rpc']}   {net['rest']}\n  meta     {network.meta}\n"
        + "".join(f"  {one['name']:<8} {one['endpoint']:<18} {one['monitor']}   gateway {one['gateway']}\n" for one in net["resource_nodes"])
        + "\n  try:\n"
        f"    {ppd} put README.md --home {folder}/alice\n"
        f"    {ppd} list --home {folder}/alice\n"
        f"    {ppd} share README.md --home {folder}/alice\n"
        f"    {ppd} earnings --home {folder}/node1\n\n"
        f"  all of it for scripts: {folder}/network.json; Ctrl-C stops it; `{COMMAND}` goes on from here, `{COMMAND} RESET=1` starts over.\n",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
