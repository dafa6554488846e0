"""CometBFT with its own key-value application and a validator set of which one member runs: real headers to hold ours against."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chain.api.comet import CometClient, CometUnavailable
from chain.comet import ensure_comet
from chain.testing.validators import ValidatorKey
from tests.support import end, free_ports

POWERS = (100, 1, 10, 20)
"""The first validator alone decides; the others never answer, so rounds fail when it is their turn."""


@dataclass
class Comet:
    """A running CometBFT and the validators' keys."""

    client: CometClient
    keys: list[ValidatorKey]
    genesis: dict[str, Any]

    def height(self) -> int:
        try:
            return int(self.client.call("status")["sync_info"]["latest_block_height"])
        except CometUnavailable:
            return 0

    def wait_for(self, height: int) -> int:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            found = self.height()
            if found >= height:
                return found
            time.sleep(0.1)
        raise TimeoutError(f"CometBFT did not reach block {height}")


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Comet]:
    binary = str(ensure_comet())
    subprocess.run(
        [binary, "testnet", "--v", str(len(POWERS)), "--o", str(folder), "--populate-persistent-peers=false"], check=True, capture_output=True
    )
    home = folder / "node0"
    keys = [ValidatorKey.from_file(folder / f"node{at}" / "config" / "priv_validator_key.json") for at in range(len(POWERS))]
    genesis = json.loads((home / "config" / "genesis.json").read_text())
    for validator, power in zip(genesis["validators"], POWERS, strict=True):
        validator["power"] = str(power)
    (home / "config" / "genesis.json").write_text(json.dumps(genesis))
    config = (home / "config" / "config.toml").read_text()
    for name, value in {"propose": "60ms", "prevote": "20ms", "precommit": "20ms", "commit": "20ms"}.items():
        config = re.sub(rf'^timeout_{name}(|_delta) = ".*"$', rf'timeout_{name}\1 = "{value}"', config, flags=re.MULTILINE)
    (home / "config" / "config.toml").write_text(config)
    base = free_ports(2)
    rpc = f"tcp://127.0.0.1:{base}"
    command = [binary, "start", "--home", str(home), "--proxy_app", "kvstore", "--rpc.laddr", rpc, "--p2p.laddr", f"tcp://127.0.0.1:{base + 1}"]
    with (folder / "comet.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    client = CometClient(rpc)
    try:
        yield Comet(client, keys, genesis)
    finally:
        client.close()
        end(process)
