"""CometBFT's own crash points (``FAIL_TEST_INDEX``): it dies there, is started again without the variable, and the chain goes on.

At every other point the application is killed with it and started again too.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, Any

from chain.api.comet import CometClient, CometRefused, CometUnavailable
from chain.comet import ensure_comet
from chain.config import Home
from tests.support import ROOT, devnet, free_ports
from tools.devnet import make

POINTS = 22


def all_crash_points(seed: int) -> dict[str, Any]:
    """Each point from 0 to 21 on a fresh chain. ``seed`` is not used: the points are fixed."""
    slowest_s = 0.0
    for point in range(POINTS):
        with tempfile.TemporaryDirectory() as folder:
            slowest_s = max(slowest_s, _one(Path(folder), point))
        print(f"crash point {point}: recovered", flush=True)
    # The same chain that devnet() supervises; started once more to see that a home made here is a whole one.
    with tempfile.TemporaryDirectory() as folder, devnet(Path(folder)) as running:
        running.wait_for(2)
    return {"points": POINTS, "recovered": POINTS, "slowest_recovery_s": round(slowest_s, 1)}


def _one(folder: Path, point: int) -> float:
    base = free_ports(4)
    net = make(folder, base)
    home = Home(Path(net["home"]))
    address = f"unix://{folder}/abci.sock"
    serve = [sys.executable, "-m", "chain.cli.main", "--home", net["home"], "start", "--with-comet=false", "--address", address]
    comet = [str(ensure_comet()), "start", "--home", net["home"], "--proxy_app", address]
    subprocess.run([sys.executable, "-m", "chain.cli.main", "--home", net["home"], "genesis", "comet"], cwd=ROOT, check=True, capture_output=True)
    assert home.comet_genesis.exists()
    with (folder / "log").open("wb") as log:
        app = _application(serve, folder, log)
        try:
            dying = subprocess.Popen(comet, stdout=log, stderr=log, env={**os.environ, "FAIL_TEST_INDEX": str(point)})
            dying.wait(60)
            if dying.returncode == 0 or f"fail-test {point}" not in (folder / "log").read_text():
                raise SystemExit(f"CometBFT ended, but not at crash point {point}: {(folder / 'log').read_text()[-800:]}")
            started = time.monotonic()
            if point % 2:
                app.kill()
                app.wait(20)
                app = _application(serve, folder, log)
            living = subprocess.Popen(comet, stdout=log, stderr=log)
            try:
                _wait_for(net["rpc"], 4, living, folder / "log")
                return time.monotonic() - started
            finally:
                living.terminate()
                living.wait(20)
        finally:
            app.terminate()
            app.wait(20)


def _application(command: list[str], folder: Path, log: IO[bytes]) -> subprocess.Popen[bytes]:
    """The application's process, once it listens."""
    (folder / "abci.sock").unlink(missing_ok=True)
    app = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
    while not (folder / "abci.sock").exists():
        if app.poll() is not None:
            raise SystemExit(f"the application ended: {(folder / 'log').read_text()[-800:]}")
        time.sleep(0.05)
    return app


def _wait_for(rpc: str, height: int, comet: subprocess.Popen[bytes], log: Path) -> None:
    client = CometClient(rpc)
    until = time.monotonic() + 60
    try:
        while time.monotonic() < until:
            if comet.poll() is not None:
                raise SystemExit(f"CometBFT ended: {log.read_text()[-800:]}")
            try:
                if int(client.call("status")["sync_info"]["latest_block_height"]) >= height:
                    return
            except (CometUnavailable, CometRefused):
                pass
            time.sleep(0.1)
        raise SystemExit(f"block {height} did not come: {log.read_text()[-800:]}")
    finally:
        client.close()
