"""``make run``: a one-validator devnet in ``.devnet``. Made once, continued every time, started over with ``--reset``.

The validator is the meta node, too: its keys are in ``config/meta_keys.json`` of the home, and it reports alone.

Prints endpoints, a funded mnemonic and three commands to try, then one line per block until Ctrl-C. ``.devnet/devnet.json`` says the
same for scripts. ``--folder`` and ``--ports BASE`` make another one beside it (tests do).
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from chain import nodekeys
from chain.cli.testnet import SHORT_EVIDENCE, Node, fill_keyring, make_network, short_periods
from chain.comet import CometError, ensure_comet
from chain.config import ConfigError, Home
from tools.nodes import Blocks, Folder, attend, last_lines, meta_node, new_accounts, show

CHAIN_ID = "stratos-dev-1"
COMMAND = "make run"


def make(folder: Path, base: int | None) -> dict[str, Any]:
    """Make keys, genesis and configuration of a new devnet; writes devnet.json and returns what it says."""
    home = Home(folder / "home")
    names = ("rpc", "p2p", "grpc", "rest")
    ports = dict(zip(names, (26657, 26656, 9090, 1317) if base is None else range(base, base + 4), strict=True))
    accounts = new_accounts("validator")
    comet = {"consensus.timeout_commit": "1s"}
    node = Node("devnet", home, ports, accounts[0])
    make_network([node], CHAIN_ID, accounts, params=short_periods(), consensus={"evidence": SHORT_EVIDENCE}, comet=comet)
    fill_keyring(home, accounts)
    told = {
        "chain_id": CHAIN_ID,
        "rpc": f"http://127.0.0.1:{ports['rpc']}",
        "grpc": f"127.0.0.1:{ports['grpc']}",
        "rest": f"http://127.0.0.1:{ports['rest']}",
        "home": str(home.root),
        "meta_node": meta_node(home),
        "accounts": [account.told() for account in accounts],
    }
    nodekeys.write_private(folder / "devnet.json", told)
    return told


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reset", action="store_true")
    parser.add_argument("--folder", type=Path, default=Path(".devnet"))
    parser.add_argument("--ports", type=int, default=None)
    arguments = parser.parse_args()
    try:
        ensure_comet()
        return _run(Folder(arguments.folder, "devnet", COMMAND), arguments.ports, arguments.reset)
    except (CometError, ConfigError, OSError) as error:
        print(f"{COMMAND}: {error}", file=sys.stderr)
        return 1


def _run(folder: Folder, ports: int | None, reset: bool) -> int:
    """Make the devnet where it is missing, start it and follow it. Raises ConfigError, OSError; returns the exit code."""

    def moved(net: dict[str, Any]) -> None:
        assert net["home"]
        net["home"] = str(folder.path / "home")

    net = folder.load(lambda: make(folder.path, ports), reset, moved)
    log = folder.path / "node.log"
    told_before = log.stat().st_size if log.exists() else 0
    node = folder.start(net["home"], log)
    blocks = Blocks(lambda: show(net, COMMAND))

    def step(_: bool) -> bool:
        blocks.show(net["rpc"], net["home"])
        return node.poll() is None

    if attend(step, lambda: [node]):
        print(f"\n  stopped; the chain is kept in {os.path.relpath(folder.path)}", flush=True)
        return 0
    print(f"the node ended with exit code {node.returncode}; the last lines of {log}:\n{last_lines(log, told_before)}", file=sys.stderr)
    return node.returncode


if __name__ == "__main__":
    sys.exit(main())
