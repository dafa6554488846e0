"""Random histories of the native tree against the plain one, with the core under the address and undefined-behaviour sanitizers.

python -m tests.soak.native_core LIBRARY SEED SECONDS     what runs inside: histories over the core in LIBRARY
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from chain.store.fast.core import LIBRARY

SANITIZE = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer", "-g", "-O1")
STEPS = 300


def sanitized(seed: int, seconds: int) -> dict[str, Any]:
    """Histories for ``seconds`` in a process of its own, where a wrong access ends the process. Needs gcc. Raises SystemExit for a finding."""
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "core.so"
        subprocess.run(
            ["gcc", "-std=c11", "-Wall", "-fPIC", "-shared", *SANITIZE, "-o", str(library), str(LIBRARY.parent.parent / "core.c")], check=True
        )
        preload = subprocess.run(["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True).stdout.strip()
        # Python's own memory is not in question: its allocator is set aside so that ours is watched, and what lives to the end is no leak.
        env = {**os.environ, "LD_PRELOAD": preload, "PYTHONMALLOC": "malloc", "ASAN_OPTIONS": "detect_leaks=0:handle_segv=1"}
        command = [sys.executable, "-m", "tests.soak.native_core", str(library), str(seed), str(seconds)]
        done = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"the sanitized core ended with {done.returncode}; what it says is above")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _histories(library: str, seed: int, seconds: int) -> dict[str, Any]:
    from chain.store.fast import core
    from tests.store.engine_pair import History

    core._lib = core._ffi.dlopen(library)
    choose = random.Random(seed)
    until = time.monotonic() + seconds
    histories = steps = refused = 0
    while time.monotonic() < until:
        history = History(choose.randrange(1 << 62), keys=choose.choice((20, 400, 3000)))
        for _ in range(STEPS):
            history.step()
        histories += 1
        steps += STEPS
        refused += history.refused
    return {"seconds": seconds, "histories": histories, "steps": steps, "damage_refused": refused, "findings": 0}


if __name__ == "__main__":
    print(json.dumps(_histories(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
