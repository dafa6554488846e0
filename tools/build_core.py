"""Build the native core of the tree: ``python -m tools.build_core``. With the system's C compiler, else with ziglang from PyPI."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from chain.store.fast.core import LIBRARY

SOURCE = LIBRARY.parent.parent / "core.c"
FLAGS = ("-std=c11", "-O2", "-Wall", "-fPIC", "-fvisibility=hidden", "-shared")
ZIG = "ziglang==0.13.0"


def main() -> int:
    """Build unless the library is newer than its source; 0 also when there is no compiler, since the plain form does without."""
    if LIBRARY.is_file() and LIBRARY.stat().st_mtime >= SOURCE.stat().st_mtime:
        return 0
    LIBRARY.parent.mkdir(parents=True, exist_ok=True)
    fresh = LIBRARY.with_suffix(f".{os.getpid()}")
    for compiler in _compilers():
        done = subprocess.run([*compiler, *FLAGS, "-o", str(fresh), str(SOURCE)], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            fresh.replace(LIBRARY)
            print(f"native core built by {Path(compiler[0]).name}")
            return 0
        print(f"{' '.join(compiler)} cannot build the native core:\n{done.stderr.strip()[-500:]}", file=sys.stderr)
    print("no C compiler: the node uses the plain Python tree, which is slower", file=sys.stderr)
    return 0


def _compilers() -> list[list[str]]:
    found = [[path] for name in (os.environ.get("CC"), "cc", "gcc", "clang") if name and (path := shutil.which(name))]
    if found:
        return found[:1]
    if find_spec("ziglang") is None:
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", ZIG], check=False)
    return [[sys.executable, "-m", "ziglang", "cc"]]


if __name__ == "__main__":
    sys.exit(main())
