"""A running devnet that took a snapshot, and a second home that the snapshot was carried to as a file."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from chain import config, nodekeys
from chain.config import Home
from tests.support import Devnet, devnet, free_ports, stchaind
from tools.devnet import make

HEIGHT = 5
"""Of the snapshot."""


@contextmanager
def snapshot_taken(folder: Path) -> Iterator[tuple[Devnet, Path]]:
    """A devnet at height 8 at least, and its snapshot as an archive."""
    (folder / "first").mkdir()
    base = free_ports(4)
    home = Home(Path(make(folder / "first", base)["home"]))
    config.update(home.app_config, {"state-sync.snapshot-interval": HEIGHT})
    with devnet(folder / "first", ports=base) as first:
        until = time.monotonic() + 60
        while not (home.snapshots / str(HEIGHT) / "1" / "metadata.json").exists() and time.monotonic() < until:
            time.sleep(0.2)
        archive = folder / "snapshot.tar.gz"
        assert stchaind(home.root, "snapshots", "dump", str(HEIGHT), "1", "-o", str(archive))[0] == 0
        first.wait_for(HEIGHT + 3)
        yield first, archive


def new_home(root: Path, first: Devnet) -> Home:
    """A home of the devnet's chain that has nothing but its genesis."""
    home = Home(root)
    nodekeys.create_missing(home)
    config.write_defaults(home, root.name)
    shutil.copy(Home(Path(first.net["home"])).genesis, home.genesis)
    return home


def restore(home: Home, archive: Path) -> None:
    """Put the snapshot's state into the application of a home."""
    for command in (("load", str(archive)), ("restore", str(HEIGHT), "1")):
        code, _, err = stchaind(home.root, "snapshots", *command)
        assert code == 0, err


def trust(home: Home, first: Devnet, **changes: Any) -> None:
    """Write [statesync] of a home: the devnet's RPC and its first block's hash, but for ``changes``."""
    rpc, hash_ = first.net["rpc"], first.rpc("block", height="1")["block_id"]["hash"]
    values = {"rpc_servers": f"{rpc},{rpc}", "trust_height": 1, "trust_hash": hash_, "trust_period": "168h0m0s", **changes}
    config.update(home.comet_config, {f"statesync.{name}": value for name, value in values.items()})
