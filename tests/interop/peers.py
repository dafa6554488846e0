"""The real clients and peers: fetched and built once into the tool folder (``STRATOS_TOOLS``), from the package registries alone.

A peer that cannot be had fails the test that needs it; nothing is skipped.
"""

from __future__ import annotations

import shutil
import subprocess
import venv
from pathlib import Path

from chain.comet import go_command, go_environment, tools_folder

HERE = Path(__file__).parent
COSMPY = "cosmpy==0.12.2"


def simd() -> Path:
    """simd of ibc-go v8.7.0, built through the module in ``tests/interop/simd`` (about 6 minutes, once)."""
    tools = tools_folder()
    binary = tools / "bin" / "simd"
    if not binary.exists():
        flags = "-X github.com/cosmos/cosmos-sdk/version.Name=sim -X github.com/cosmos/cosmos-sdk/version.AppName=simd"
        command = [*go_command(tools), "build", "-ldflags", flags, "-o", str(binary), "."]
        subprocess.run(command, cwd=HERE / "simd", env=go_environment(tools), check=True)
    return binary


def cosmjs() -> Path:
    """A folder with CosmJS installed from the lock file beside it."""
    folder = tools_folder() / "cosmjs"
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "package-lock.json", ".npmrc", "check.mjs"):
        shutil.copy(HERE / "cosmjs" / name, folder / name)
    if not (folder / "node_modules").exists():
        subprocess.run(["npm", "ci", "--silent"], cwd=folder, check=True)
    return folder


def cosmpy_python() -> Path:
    """The interpreter of an environment that holds cosmpy (its protobuf is older than ours)."""
    folder = tools_folder() / "cosmpy"
    python = folder / "bin" / "python"
    if not (folder / ".ready").exists():
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", COSMPY], check=True)
        (folder / ".ready").touch()
    return python
