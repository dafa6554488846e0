"""Build the native parts, the tree's core, the signature threads and the hashes of leaves: ``python -m tools.build_core``. With the system's C compiler, else with ziglang from PyPI."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from chain.crypto import batch
from chain.store.fast import core
from sds_node.fast import leaves

PARTS = {
    "core.c": (core.LIBRARY, core.available),
    "verify.c": (batch.LIBRARY, batch.available),
    "leaves.c": (leaves.LIBRARY, leaves.available),
}
FLAGS = ("-std=c11", "-O2", "-Wall", "-fPIC", "-fvisibility=hidden", "-shared", "-pthread")
ZIG = "ziglang==0.13.0"


def main() -> int:
    """Build what does not load or is older than its source; 0 also when there is no compiler, since the plain forms do without."""
    stale = {name: library for name, (library, loads) in PARTS.items() if not loads() or _is_older(library, library.parent.parent / name)}
    for compiler in _compilers() if stale else ():
        for name, library in list(stale.items()):
            if _build(compiler, library.parent.parent / name, library):
                del stale[name]
        if not stale:
            print(f"native parts built by {Path(compiler[0]).name}")
            return 0
    if stale:
        print(f"no C compiler builds {', '.join(stale)}: the node uses the plain Python form, which is slower", file=sys.stderr)
    return 0


def _is_older(library: Path, source: Path) -> bool:
    return library.stat().st_mtime < source.stat().st_mtime


def _build(compiler: list[str], source: Path, library: Path) -> bool:
    library.parent.mkdir(parents=True, exist_ok=True)
    fresh = library.with_suffix(f".{os.getpid()}")
    done = subprocess.run([*compiler, *FLAGS, "-o", str(fresh), str(source)], capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"{' '.join(compiler)} cannot build {source.name}:\n{done.stderr.strip()[-500:]}", file=sys.stderr)
        return False
    fresh.replace(library)
    return True


def _compilers() -> Iterator[list[str]]:
    """The system's compilers, then ziglang, which is fetched when it comes to that."""
    for name in (os.environ.get("CC"), "cc", "gcc", "clang"):
        if name and (path := shutil.which(name)):
            yield [path]
            break
    if find_spec("ziglang") is None:
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", ZIG], check=False)
    yield [sys.executable, "-m", "ziglang", "cc"]


if __name__ == "__main__":
    sys.exit(main())
