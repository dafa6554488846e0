"""stratos-sdk 2.0.0, its CosmJS, and ``stchaind compat-rpc`` in front of a node."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from chain.comet import tools_folder
from tests.interop.storage import serves
from tests.support import ROOT, ask_until, end, free_ports

HERE = Path(__file__).parent
SDK = "STRATOS_SDK"
"""Names the folder of the SDK's package with its dependencies installed: it is in no registry."""


def libraries() -> Path:
    """A folder with the drivers and CosmJS 0.31.1, from the lock file beside this."""
    folder = tools_folder() / "gateway_sdk"
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "package-lock.json", ".npmrc", "old_cosmjs.mjs", "sdk.mjs"):
        shutil.copy(HERE / name, folder / name)
    if not (folder / "node_modules").exists():
        subprocess.run(["npm", "ci", "--silent"], cwd=folder, check=True)
    return folder


def sdk() -> Path | None:
    """The SDK's package; None where nobody has named it."""
    named = os.environ.get(SDK)
    return Path(named) if named else None


@contextlib.contextmanager
def compat_rpc(node: str, folder: Path) -> Iterator[str]:
    """``stchaind compat-rpc`` in front of the RPC at ``node``: the address that it serves at."""
    port = free_ports(1)
    command = [sys.executable, "-m", "chain.cli.main", "--home", str(folder), "compat-rpc", "--node", node, "--laddr", f"tcp://127.0.0.1:{port}"]
    with (folder / "compat.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
    try:
        ask_until(lambda: serves(f"http://127.0.0.1:{port}/health"))
        yield f"http://127.0.0.1:{port}"
        assert process.poll() is None, (folder / "compat.log").read_text()
    finally:
        if process.poll() is None:
            end(process)
    assert process.returncode == 0, (folder / "compat.log").read_text()
