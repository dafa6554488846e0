"""What ``make run`` and ``make localnet`` share: a folder that one process runs at a time, nodes as its children, a line per block, an orderly stop."""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from chain import metakeys, nodekeys
from chain.api.comet import CometClient, CometRefused, CometUnavailable
from chain.cli.testnet import Account
from chain.config import ConfigError, Home

_PR_SET_PDEATHSIG = 1
_libc: Any = ctypes.CDLL(None)
TICK_S = 0.3
STCHAIND = ("chain.cli.main",)
ACCOUNTS = (("alice", "eth_secp256k1"), ("bob", "eth_secp256k1"), ("carol", "secp256k1"), ("dave", "secp256k1"))


def new_accounts(*operators: str) -> list[Account]:
    """Keys that validate, then keys to play with."""
    return [Account.new(name, key_type) for name, key_type in (*((name, "eth_secp256k1") for name in operators), *ACCOUNTS)]


def meta_node(home: Home) -> dict[str, str]:
    """For the network's JSON file: the public parts of the meta keys in a home."""
    return metakeys.read(metakeys.path_in(home)).told()


class Folder:
    """The folder of a network: its JSON file ``NAME.json``, locked while it runs. ``command`` is how people start it."""

    def __init__(self, path: Path, name: str, command: str) -> None:
        """Raises ConfigError while another process runs it, OSError."""
        self.path, self.name, self.command = path.absolute(), name, command
        self.path.mkdir(parents=True, exist_ok=True)
        # The nodes hold the lock, too: it goes with the last of them.
        self.lock = os.open(self.path, os.O_RDONLY)
        os.set_inheritable(self.lock, True)
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self.lock)
            raise ConfigError(f"the {name} in {self.path} is running already: stop it with Ctrl-C there first") from None

    @property
    def told(self) -> Path:
        return self.path / f"{self.name}.json"

    def close(self) -> None:
        os.close(self.lock)

    def save(self, told: dict[str, Any]) -> None:
        nodekeys.write_private(self.told, told)

    def load(self, make: Callable[[], dict[str, Any]], reset: bool, moved: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        """What the JSON file says, written by ``make`` where there is none, or for ``reset``. ``moved`` corrects paths, for the folder may have been moved.

        Raises ConfigError for a damaged file, and what ``make`` raises.
        """
        if reset:
            self.told.unlink(missing_ok=True)
        if not self.told.exists():
            # Whatever is left of a network that was not made to the end, or is not wanted any more.
            for left in self.path.iterdir():
                if left.is_dir():
                    shutil.rmtree(left, ignore_errors=True)
                elif left.name.endswith(("node.log", ".new")):
                    left.unlink()
            return make()
        try:
            found: dict[str, Any] = json.loads(self.told.read_text())
            before = json.dumps(found)
            moved(found)
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{self.told} is damaged ({type(error).__name__}): start over with `{self.command} RESET=1`") from None
        if json.dumps(found) != before:
            self.save(found)
        return found

    def start(self, home: str, log: Path, program: Sequence[str] = STCHAIND, env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """A node of the folder as a child that ends with this process. ``program``: what follows ``python -m``; ``env``: its environment, if not this one's."""
        command = [sys.executable, "-m", *program, "start", "--home", home]
        with log.open("ab") as output:
            # A process group of its own: Ctrl-C reaches this script alone, which then stops the node in order.
            return subprocess.Popen(
                command, stdout=output, stderr=output, env=env, start_new_session=True, pass_fds=(self.lock,), preexec_fn=_stop_with_parent
            )


def _stop_with_parent() -> None:
    if hasattr(_libc, "prctl"):
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


class Blocks:
    """A line per block, after ``announce`` was called once at the first."""

    def __init__(self, announce: Callable[[], None]) -> None:
        self._announce = announce
        self._shown = -1
        self._client: CometClient | None = None
        self._rpc = ""

    def show(self, rpc: str, home: str) -> None:
        """Print what is new at the node that has ``rpc`` and ``home``."""
        if self._client is None or rpc != self._rpc:
            self._client, self._rpc = CometClient(rpc), rpc
        try:
            status = self._client.call("status")
            # Another node may hold the port: ours ends in a moment and says so.
            height = int(status["sync_info"]["latest_block_height"]) if status["node_info"]["id"] == nodekeys.node_id(Home(Path(home))) else 0
            if height and self._shown < 0:
                self._shown = height - 1
                self._announce()
            for at in range(self._shown + 1, height + 1) if height else ():
                block = self._client.call("block", height=str(at))
                txs = len(block["block"]["data"]["txs"] or [])
                print(f"  block {at:>7}  {block['block']['header']['time'][:19].replace('T', ' ')}  {txs} tx", flush=True)
                self._shown = at
        except (CometUnavailable, CometRefused):
            pass


def attend(step: Callable[[bool], bool], running: Callable[[], Iterable[subprocess.Popen[bytes]]]) -> bool:
    """Call ``step``, with whether the stop has begun, until it answers False; stop what is ``running`` on a signal, and when nobody reads what is printed.

    Returns whether it was asked to stop.
    """
    stopping: list[int] = []

    def stop(number: int, _: Any) -> None:
        if not stopping:
            stopping.append(number)
            for process in running():
                process.send_signal(signal.SIGTERM)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # nohup asks for SIGHUP to be ignored; a script's background job begins with SIGINT ignored, and means nothing by it.
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, stop)
    try:
        while step(bool(stopping)):
            time.sleep(TICK_S)
    except OSError:
        # The reader of our output has gone (`make run | head`, a closed terminal): Python must not try again at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        stopping.append(0)
    finally:
        for process in (ending := list(running())):
            process.terminate()
        for process in ending:
            process.wait()
    return bool(stopping)


def show(net: dict[str, Any], command: str) -> None:
    """Tell a person what runs and what to try."""
    accounts = {account["name"]: account for account in net["accounts"]}
    stchaind = ".venv/bin/stchaind"
    home = os.path.relpath(net["home"])
    print(
        f"\n  {net['chain_id']} is running\n\n"
        f"  RPC      {net['rpc']}\n  gRPC     {net['grpc']}\n  REST     {net['rest']}   (routes: {net['rest']}/swagger/)\n\n"
        f"  funded: {accounts['carol']['address']} (carol, secp256k1, {accounts['carol']['hd_path']})\n  {accounts['carol']['mnemonic']}\n\n"
        "  try:\n"
        f"    {stchaind} query bank balances {accounts['alice']['address']} --node {net['rpc']}\n"
        f"    {stchaind} tx bank send alice {accounts['bob']['address']} 1000000000wei --fees 200000gwei -y "
        f"--keyring-backend test --home {home} --node {net['rpc']}\n"
        f"    curl {net['rest']}/cosmos/bank/v1beta1/supply\n\n  Ctrl-C stops it; `{command}` goes on from here, `{command} RESET=1` starts over.\n"
    )


def last_lines(log: Path, told_before: int = 0) -> str:
    """The end of what a node wrote after ``told_before`` bytes."""
    return "\n".join(log.read_bytes()[told_before:].decode(errors="replace").splitlines()[-8:])
