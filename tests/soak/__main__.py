"""Runs the soaks named on the command line (default: all that need no file) and records seed, commit and figures of each in docs/soak.json."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.modules.test_rewards import run_histories
from tests.perturb.run import HERE, perturb
from tests.simulation.processes import soak as simulation
from tests.soak import fuzz
from tests.soak.claims import claims_race
from tests.soak.crash_points import all_crash_points
from tests.soak.ics23 import ics23_all_values
from tests.soak.kills import kill_many_times
from tests.soak.mainnet_genesis import mainnet_genesis
from tests.soak.native_core import sanitized
from tests.soak.solvency import solvency
from tests.soak.statesync import statesync_blocks
from tests.soak.storage_faults import storage_faults
from tests.soak.storage_kills import storage_kills
from tests.store.test_crashes import damage_all_files

ROOT = Path(__file__).resolve().parents[2]
RECORD = ROOT / "docs" / "soak.json"
LONG_S = 600


def torn_files(seed: int) -> dict[str, Any]:
    """Every file of a LevelDB and a RocksDB database cut, zeroed, emptied, removed and flipped, at other places in each round."""
    until = time.monotonic() + LONG_S
    rounds = 0
    outcomes: Counter[str] = Counter()
    while time.monotonic() < until:
        for kind in ("plyvel", "rocksdb"):
            with tempfile.TemporaryDirectory() as folder:
                outcomes.update(damage_all_files(kind, Path(folder), seed + rounds))
        rounds += 1
    return {"rounds": rounds, **{name.replace(" ", "_"): count for name, count in sorted(outcomes.items())}, "other_data": 0}


SOAKS: dict[str, Callable[[int], dict[str, Any]]] = {
    "fuzz-frames": fuzz.fuzz_frames,
    "fuzz-transactions": fuzz.fuzz_transactions,
    "fuzz-amounts": fuzz.fuzz_amounts,
    "fuzz-addresses": fuzz.fuzz_addresses,
    "fuzz-genesis": fuzz.fuzz_genesis,
    "native-core": lambda seed: sanitized(seed, LONG_S),
    "torn-files": torn_files,
    "ics23": ics23_all_values,
    "kills": kill_many_times,
    "crash-points": all_crash_points,
    "rewards": lambda seed: run_histories(1000, seed),
    "solvency": solvency,
    "claims": claims_race,
    "perturb": lambda seed: perturb(HERE / "long.toml", seed),
    "simulation": simulation,
    "statesync-blocks": statesync_blocks,
    "storage-kills": storage_kills,
    "storage-faults": storage_faults,
}
ON_A_FILE: dict[str, Callable[[int, str], dict[str, Any]]] = {"mainnet-genesis": mainnet_genesis}
"""Only when asked for, as ``mainnet-genesis=PATH``."""


def main() -> None:
    names = sys.argv[1:] or list(SOAKS)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    for asked in names:
        name, _, file = asked.partition("=")
        seed = random.SystemRandom().randrange(1 << 31)
        print(f"{name}: seed {seed}", flush=True)
        figures = ON_A_FILE[name](seed, file) if file else SOAKS[name](seed)
        record = json.loads(RECORD.read_text()) if RECORD.exists() else {}
        record[name] = {"commit": commit, "seed": seed, **figures}
        RECORD.write_text(json.dumps(record, indent=2, sort_keys=True) + "\n")
        print(f"{name}: {figures}", flush=True)


if __name__ == "__main__":
    main()
