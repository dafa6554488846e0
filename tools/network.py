"""``make network``: a whole storage network in ``.network``: a chain, meta nodes, resource nodes, two users with ozone, each a process of its own.

    .network/chain/        a chain with as many validators as meta nodes (tools/localnet.py): each of them is one
             meta0 … 3/    homes of spd; several keep one ledger by a CometBFT of their own
             node1 … 6/    homes of ppd, each at an address of its own: node i listens at 127.0.i.1
             alice, bob    homes of two users: `ppd put FILE --home .network/alice`

One meta node and six resource nodes, or four and twelve with ``--size full``. Made once, continued every time, started over with ``--reset``. ``.network/network.json`` tells scripts all of it, process ids too. Ctrl-C stops all, in order.
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
from tools.localnet import PORTS_PER_NODE, Localnet
from tools.nodes import Folder, attend, last_lines

COMMAND = "make network"
FIRST_PORT = 28_000
SIZES = {"small": (1, 6), "full": (4, 12)}
"""Meta nodes, resource nodes."""
DEPOSIT = "100stos"
OZONE = "100stos"
PASSWORD = "of a network to play with"
USERS = ("alice", "bob")
SPD, PPD = ("sds_node.cli.spd",), ("sds_node.cli.ppd",)
UP_S = 120.0
MAX_NODES = 18
MAX_METAS = 4
GATEWAYS = 20
"""Ports of gateways are so much above those of monitors."""
FEDERATION = 52
"""Ports of the second meta node and those that follow, and of their CometBFT, begin here: four for each."""


class NetworkError(Exception):
    """A network that could not be made or started; the text says which part and what it said."""


class Network:
    """The processes of one folder. They end with this one."""

    def __init__(
        self,
        folder: Path,
        *,
        ports: int = FIRST_PORT,
        metas: int = SIZES["small"][0],
        nodes: int = SIZES["small"][1],
        reset: bool = False,
        params: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder = Folder(folder, "network", COMMAND)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._tell: Callable[[str], None] = lambda _: None
        self._at_work = 0
        self.chain: Localnet | None = None
        try:
            self.net = self.folder.load(lambda: self._first(ports, metas, nodes), reset, self._moved)
            owners = [Account(**one) for one in self.net["owners"]]
            self.chain = Localnet(
                self.folder.path / "chain",
                ports=self.net["ports"],
                validators=self.size,
                full_nodes=0,
                more_accounts=owners,
                params=params or {},
            )
        except BaseException:
            self.folder.close()
            raise

    @property
    def size(self) -> int:
        """How many meta nodes it has."""
        return int(self.net.get("size", 1))

    @property
    def _first_port(self) -> int:
        """The first port behind the chain's, less ten: as it is with one validator."""
        return int(self.net["ports"]) + PORTS_PER_NODE * (self.size - 1)

    def _first(self, ports: int, metas: int, nodes: int) -> dict[str, Any]:
        (self.folder.path / "password").write_text(PASSWORD + "\n")
        (self.folder.path / "password").chmod(0o600)
        owners = [Account.new(f"miner{number}", "eth_secp256k1") for number in range(1, nodes + 1)]
        made = {
            "ports": ports,
            "size": metas,
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

    def start(self, tell: Callable[[str], None] | None = None) -> None:
        """Start everything; what is missing is made. ``tell`` is given a line at each stage. Raises NetworkError."""
        assert self.chain is not None
        self._tell = tell or self._tell
        taken = [port for port in range(self.net["ports"], self._first_port + 12) if not _is_free("127.0.0.1", port)]
        if taken:
            raise NetworkError(f"port {taken[0]} is taken: end what has it, or begin another network with --ports")
        self.chain.start()
        self._wait("the chain makes blocks", lambda: _height(self.chain_info["rpc"]) >= 1)
        told = {name: self.chain_info[name] for name in ("chain_id", "rpc", "grpc", "rest")}
        self.net.update({**told, "chain_home": self.chain_info["home"], "accounts": self.chain_info["accounts"]})
        self._tell(f"the chain is up and makes blocks: {told['rpc']}")
        self._metas()
        nodes = len(self.net["owners"])
        for number in range(1, nodes + 1):
            self._resource(number)
            self._tell(f"resource nodes started: {number} of {nodes}")
        self._wait(f"{len(self.net['resource_nodes'])} resource nodes are at work", self._are_at_work)
        for name in USERS:
            self._user(name)
        self._tell(f"users with ozone: {' and '.join(USERS)}")
        self.net["is_complete"] = True
        self.save()

    # --- meta nodes -------------------------------------------------------------------------------------------------------------

    def _metas(self) -> None:
        """Make what is missing, and start them. Several get one ledger: the first founds it, all join what it exported."""
        net = self.net
        for number in range(len(net["meta_nodes"]), self.size):
            net["meta_nodes"].append(self._meta(number))
            self.save()
            self._tell(f"meta nodes made: {number + 1} of {self.size}")
        for number, one in enumerate(net["meta_nodes"]):
            home = self.folder.path / one["name"]
            # A chain that was made elsewhere, or whose folder was moved, keeps its keys where it is now.
            keys = Path(self.chain_info["nodes"][number]["home"]) / "config" / "meta_keys.json"
            self._set(home, {"keys.meta_keys": keys})
        if self.size > 1 and not net["is_complete"]:
            self._federate()
        for one in net["meta_nodes"]:
            self._launch(one["name"], SPD, self.folder.path / one["name"])
        for number, one in enumerate(net["meta_nodes"], 1):
            self._wait(f"{one['name']} serves", lambda home=self.folder.path / one["name"]: self._status(SPD, home).get("is_ready", False))  # type: ignore[misc]
            self._tell(f"meta nodes that serve: {number} of {self.size}")

    def _meta(self, number: int) -> dict[str, Any]:
        """The home of a meta node, and what network.json says of it."""
        name = f"meta{number}"
        home, validator = self.folder.path / name, self.chain_info["nodes"][number]
        operator = next(one for one in self.chain_info["accounts"] if one["address"] == validator["operator"])
        words = self.folder.path / f"{name}.txt"
        words.write_text(operator["mnemonic"])
        words.chmod(0o600)
        first = self._first_port + FEDERATION + 4 * number
        port = first if number else self._first_port + 10
        made = self._json(
            SPD, "init", "--home", home, "--rpc", validator["rpc"], "--port", port,
            "--meta-keys", str(Path(validator["home"]) / "config" / "meta_keys.json"), "--owner-mnemonic-file", words,
            "--hd-path", operator["hd_path"],
        )  # fmt: skip
        words.unlink()
        settings = {"times.hello_s": 2, "times.status_s": 10, "times.window_s": 3, "metrics.port": port + 1}
        self._set(home, {**settings, **({"comet.port": first + 2, "comet.rpc_port": first + 3} if self.size > 1 else {})})
        return {
            "name": name,
            "node": made["node"],
            "pubkey": made["pubkey"],
            "endpoint": f"127.0.0.1:{port}",
            "comet": f"127.0.0.1:{first + 2}" if self.size > 1 else None,
            "metrics": f"http://127.0.0.1:{port + 1}",
            "rpc": validator["rpc"],
            "home": str(home),
            "pid": None,
        }

    def _federate(self) -> None:
        """Bring the meta nodes together around one ledger. Doing it again changes nothing."""
        metas = self.net["meta_nodes"]
        for one in metas:
            others = [other for other in metas if other is not one]
            self._set(
                self.folder.path / one["name"],
                {
                    "network.peers": ",".join(f"{other['pubkey']}@{other['endpoint']}" for other in others),
                    "comet.peers": ",".join(f"{other['node']}@{other['comet']}" for other in others),
                },
            )
        export = self.folder.path / "ledger.export"
        if not export.exists():
            home = self.folder.path / metas[0]["name"]
            self._run(SPD, "ledger", "found", "--home", home)
            self._run(SPD, "ledger", "export", export, "--home", home)
        for number, one in enumerate(metas, 1):
            self._run(SPD, "ledger", "join", export, "--home", self.folder.path / one["name"])
            self._tell(f"meta nodes that joined the ledger: {number} of {self.size}")

    def _set(self, home: Path, values: Mapping[str, Any]) -> None:
        self._run(SPD, "config", "set", *(part for pair in values.items() for part in pair), "--home", home)

    @property
    def meta(self) -> str:
        """The first meta node, as clients name it."""
        return self.metas[0]

    @property
    def metas(self) -> list[str]:
        """All of them, as clients name them."""
        return [f"{one['pubkey']}@{one['endpoint']}" for one in self.net["meta_nodes"]]

    @property
    def _named(self) -> list[str]:
        """The same as options."""
        return [part for one in self.metas for part in ("--meta-node", one)]

    # --- resource nodes and users -----------------------------------------------------------------------------------------------

    def _resource(self, number: int) -> None:
        name = f"node{number}"
        home, net = self.folder.path / name, self.net
        if len(net["resource_nodes"]) < number:
            account = net["owners"][number - 1]
            words = self.folder.path / f"{name}.txt"
            words.write_text(account["mnemonic"] + "\n")
            words.chmod(0o600)
            host, port = f"127.0.{number}.1", self._first_port + 12
            made = self._json(
                PPD, "init", "--home", home, "--chain-id", net["chain_id"], "--rpc", net["rpc"], *self._named, "--mnemonic-file", words,
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
        wanted = len(self.net["resource_nodes"])
        # As many as the meta node knows that knows fewest.
        found = min(self._status(SPD, self.folder.path / one["name"]).get("eligible_nodes", 0) for one in self.net["meta_nodes"])
        if found != self._at_work:
            self._at_work = found
            self._tell(f"resource nodes at work: {found} of {wanted}")
        return bool(found >= wanted)

    def _user(self, name: str) -> None:
        if any(one["name"] == name for one in self.net["users"]):
            return
        home = self.folder.path / name
        account = next(one for one in self.chain_info["accounts"] if one["name"] == name)
        words = self.folder.path / f"{name}.txt"
        words.write_text(account["mnemonic"] + "\n")
        words.chmod(0o600)
        self._run(
            PPD, "setup", "--home", home, "--chain-id", self.net["chain_id"], "--rpc", self.net["rpc"], *self._named,
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
        """Stop resource nodes, then meta nodes, then the chain."""
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
        "--size",
        choices=sorted(SIZES),
        default="small",
        help="of a new network: " + ", ".join(f"{name} is {metas} meta and {nodes} resource nodes" for name, (metas, nodes) in SIZES.items()),
    )
    parser.add_argument("--metas", type=int, choices=range(1, MAX_METAS + 1), metavar="N", help="meta nodes of a new network, if not the size's")
    parser.add_argument("--nodes", type=int, choices=range(1, MAX_NODES + 1), metavar="N", help="resource nodes of a new network, if not the size's")
    arguments = parser.parse_args()
    try:
        ensure_comet()
        metas, nodes = SIZES[arguments.size]
        network = Network(
            arguments.folder, ports=arguments.ports, metas=arguments.metas or metas, nodes=arguments.nodes or nodes, reset=arguments.reset
        )
    except (CometError, ConfigError, GenesisError, OSError) as error:
        print(f"{COMMAND}: {error}", file=sys.stderr)
        return 1
    try:
        print("  starting a chain, meta nodes and resource nodes; a new network takes about a minute, a full one some minutes", flush=True)
        network.start(lambda text: print(f"  {text}", flush=True))
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
        f"  chain    {net['rpc']}   {net['rest']}\n"
        + "".join(f"  {one['name']:<8} {one['pubkey']}@{one['endpoint']}\n" for one in net["meta_nodes"])
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
