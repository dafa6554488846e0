"""``make run``: a one-validator devnet in ``.devnet``. Made once, continued every time, started over with ``--reset``.

Prints endpoints, a funded mnemonic and three commands to try, then one line per block until Ctrl-C. ``.devnet/devnet.json`` says the
same for scripts. ``--folder`` and ``--ports BASE`` make another one beside it (tests do).
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from chain import config, nodekeys
from chain.api.comet import CometClient, CometRefused, CometUnavailable
from chain.cli.genesis import GAS_LIMIT, modules, tx_message
from chain.codec.json import to_json
from chain.codec.registry import message_class
from chain.codec.times import rfc3339
from chain.coins import Coin
from chain.comet import CometError, ensure_comet
from chain.crypto import address as bech32
from chain.crypto import hd
from chain.crypto.keyring import open_keyring
from chain.crypto.keys import public_key_to_any
from chain.node import VERSION
from chain.tx.build import Signer, build_tx
from genesis import build, document

CHAIN_ID = "stratos-dev-1"
_PR_SET_PDEATHSIG = 1
_libc: Any = ctypes.CDLL(None)
FUNDS_WEI = 10**24
STAKE_WEI = 10**21
ACCOUNTS = (
    ("validator", "eth_secp256k1"),
    ("alice", "eth_secp256k1"),
    ("bob", "eth_secp256k1"),
    ("carol", "secp256k1"),
    ("dave", "secp256k1"),
)


def make(folder: Path, base: int | None) -> dict[str, Any]:
    """Make keys, genesis and configuration of a new devnet; returns what devnet.json says."""
    home = config.Home(folder / "home")
    nodekeys.create_missing(home)
    config.write_defaults(home, "devnet")
    ports = {"rpc": 26657, "p2p": 26656, "grpc": 9090, "rest": 1317}
    if base is not None:
        ports = {name: base + at for at, name in enumerate(ports)}
    comet = {"rpc.laddr": f"tcp://127.0.0.1:{ports['rpc']}", "p2p.laddr": f"tcp://127.0.0.1:{ports['p2p']}", "consensus.timeout_commit": "1s"}
    config.update(home.comet_config, comet)
    config.update(home.app_config, {"grpc.address": f"127.0.0.1:{ports['grpc']}", "api.address": f"tcp://127.0.0.1:{ports['rest']}"})
    accounts = []
    made = build.default_document(modules(), CHAIN_ID, rfc3339(int(time.time())), VERSION)
    for name, key_type in ACCOUNTS:
        mnemonic = hd.new_mnemonic()
        key = hd.derive(mnemonic, hd.DEFAULT_PATH, key_type)
        build.add_account(made, key.public_key.address, (Coin("wei", FUNDS_WEI),))
        entry = {"name": name, "address": bech32.encode(key.public_key.address), "key_type": key_type, "hd_path": hd.DEFAULT_PATH}
        accounts.append({**entry, "mnemonic": mnemonic})
    made["app_state"]["genutil"]["gen_txs"] = [to_json(tx_message(_gentx(home, accounts[0])))]
    build.validate(made, modules())
    document.save(document.normalise(made), home.genesis)
    told = {
        "chain_id": CHAIN_ID,
        "rpc": f"http://127.0.0.1:{ports['rpc']}",
        "grpc": f"127.0.0.1:{ports['grpc']}",
        "rest": f"http://127.0.0.1:{ports['rest']}",
        "home": str(home.root),
        "accounts": accounts,
    }
    _fill_keyring(home, accounts)
    _save(told, folder / "devnet.json")
    return told


def _save(told: dict[str, Any], path: Path) -> None:
    # Complete or absent: an interrupted start must not leave half a devnet that looks whole.
    descriptor = os.open(path.with_suffix(".new"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(json.dumps(told, indent=2) + "\n")
    os.replace(path.with_suffix(".new"), path)


def _load(path: Path) -> dict[str, Any]:
    """devnet.json of a devnet that was made before. Raises ConfigError."""
    try:
        told: dict[str, Any] = json.loads(path.read_text())
        here = str(path.parent / "home")
        if told["home"] != here:
            # The project folder was moved.
            told["home"] = here
            _save(told, path)
    except (ValueError, KeyError, TypeError) as error:
        raise config.ConfigError(f"{path} is damaged ({type(error).__name__}): start over with `make run RESET=1`") from None
    return told


def _gentx(home: config.Home, account: dict[str, str]) -> bytes:
    key = hd.derive(account["mnemonic"], account["hd_path"], account["key_type"])
    message = message_class("cosmos.staking.v1beta1.MsgCreateValidator")(
        description={"moniker": "devnet"},
        validator_address=bech32.encode(key.public_key.address, bech32.VALIDATOR),
        pubkey=public_key_to_any(nodekeys.validator_key(home)),
        min_self_delegation="1",
        value={"denom": "wei", "amount": str(STAKE_WEI)},
    )
    message.commission.rate, message.commission.max_rate, message.commission.max_change_rate = str(10**17), str(2 * 10**17), str(10**16)
    return build_tx([message], fee=(), gas_limit=GAS_LIMIT, signers=[Signer(key.public_key, 0)]).sign([key], CHAIN_ID)


def _fill_keyring(home: config.Home, accounts: list[dict[str, str]]) -> None:
    ring = open_keyring("test", home.root, ask=lambda _: "", notify=lambda _: None)
    for account in accounts:
        if not ring.has(account["name"]):
            ring.add_private(account["name"], hd.derive(account["mnemonic"], account["hd_path"], account["key_type"]))


def show(net: dict[str, Any]) -> None:
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
        f"    curl {net['rest']}/cosmos/bank/v1beta1/supply\n\n  Ctrl-C stops it; `make run` goes on from here, `make run RESET=1` starts over.\n"
    )


def follow(net: dict[str, Any], node: subprocess.Popen[bytes], log: Path, told_before: int) -> int:
    """Print a line per block until the node ends; when it fails, what it wrote to ``log`` after ``told_before`` bytes."""
    comet = CometClient(net["rpc"])
    node_id = nodekeys.node_id(config.Home(Path(net["home"])))
    shown = announced = 0
    while node.poll() is None:
        try:
            status = comet.call("status")
            # Another node may hold the port: ours ends in a moment and says so.
            height = int(status["sync_info"]["latest_block_height"]) if status["node_info"]["id"] == node_id else 0
            if height and not announced:
                announced = 1
                shown = height - 1
                show(net)
            for at in range(shown + 1, height + 1):
                block = comet.call("block", height=str(at))
                txs = len(block["block"]["data"]["txs"] or [])
                print(f"  block {at:>7}  {block['block']['header']['time'][:19].replace('T', ' ')}  {txs} tx", flush=True)
            shown = max(shown, height)
        except (CometUnavailable, CometRefused):
            pass
        time.sleep(0.3)
    if node.returncode:
        print(f"the node ended with exit code {node.returncode}; the last lines of {log}:", file=sys.stderr)
        print("\n".join(log.read_bytes()[told_before:].decode(errors="replace").splitlines()[-8:]), file=sys.stderr)
    return node.returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reset", action="store_true")
    parser.add_argument("--folder", type=Path, default=Path(".devnet"))
    parser.add_argument("--ports", type=int, default=None)
    arguments = parser.parse_args()
    try:
        ensure_comet()
        return _run(arguments.folder.absolute(), arguments.ports, arguments.reset)
    except (CometError, config.ConfigError, OSError) as error:
        print(f"make run: {error}", file=sys.stderr)
        return 1


def _run(folder: Path, ports: int | None, reset: bool) -> int:
    """Make the devnet where it is missing, start it and follow it. Raises ConfigError, OSError; returns the exit code."""
    folder.mkdir(parents=True, exist_ok=True)
    # The node holds the lock, too: it goes with the last of both.
    lock = os.open(folder, os.O_RDONLY)
    os.set_inheritable(lock, True)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise config.ConfigError(f"the devnet in {folder} is running already: stop it with Ctrl-C there first") from None
    path = folder / "devnet.json"
    if reset:
        path.unlink(missing_ok=True)
        (folder / "node.log").unlink(missing_ok=True)
    if path.exists():
        net = _load(path)
    else:
        shutil.rmtree(folder / "home", ignore_errors=True)
        net = make(folder, ports)
    log = folder / "node.log"
    told_before = log.stat().st_size if log.exists() else 0
    with log.open("ab") as output:
        # A process group of its own: Ctrl-C reaches this script alone, which then stops the node in order.
        command = [sys.executable, "-m", "chain.cli.main", "start", "--home", net["home"]]
        node = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True, pass_fds=(lock,), preexec_fn=_stop_with_parent)
    return _attend(net, node, log, told_before)


def _stop_with_parent() -> None:
    if hasattr(_libc, "prctl"):
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _attend(net: dict[str, Any], node: subprocess.Popen[bytes], log: Path, told_before: int) -> int:
    """Follow the node; stop it on a signal, and when nobody reads what is printed. Returns the exit code."""
    stopping: list[int] = []

    def stop(number: int, _: Any) -> None:
        if not stopping:
            stopping.append(number)
            node.send_signal(signal.SIGTERM)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # nohup asks for SIGHUP to be ignored; a script's background job begins with SIGINT ignored, and means nothing by it.
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, stop)
    try:
        code = follow(net, node, log, told_before)
        if stopping:
            print("\n  stopped; the chain is kept in " + os.path.relpath(log.parent), flush=True)
            code = 0
    except OSError:
        # The reader of our output has gone (`make run | head`, a closed terminal): Python must not try again at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    finally:
        node.terminate()
        node.wait()
    return code


if __name__ == "__main__":
    sys.exit(main())
