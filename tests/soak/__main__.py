"""Runs the soaks named on the command line (default: all) and records seed, commit and figures of each in docs/soak.json."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tests.soak import fuzz
from tests.soak.crash_points import all_crash_points
from tests.soak.kills import kill_many_times
from tests.soak.native_core import sanitized
from tests.store.ics23_vectors import Claim, batches, published
from tests.store.make_ics23_mutants import go_verdicts
from tests.store.test_crashes import damage_all_files

ROOT = Path(__file__).resolve().parents[2]
RECORD = ROOT / "docs" / "soak.json"
LONG_S = 600


BATCH_STEP = 64


def ics23_all_values(seed: int) -> dict[str, Any]:
    """Every other value of every byte of every published proof, against Go's verdict; of batches, of every 64th byte, other ones for each seed."""
    whole, parts, first = published(), list(batches()), seed % BATCH_STEP
    work = [(claim, digits, 1, 0) for claim, digits in zip(whole, go_verdicts(whole, "all"), strict=True)]
    verdicts = go_verdicts(parts, "all", str(BATCH_STEP), str(first))
    work += [(claim, digits, BATCH_STEP, first) for claim, digits in zip(parts, verdicts, strict=True)]
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), mp_context=get_context("spawn")) as pool:
        compared = sum(pool.map(_compare, *zip(*work, strict=True)))
    return {"proofs": len(whole), "batches": len(parts), "mutants": compared, "differences": 0}


def _compare(claim: Claim, digits: str, step: int, first: int) -> int:
    """How many mutants were compared. Raises SystemExit for a difference."""
    assert len(digits) == 255 * len(range(first, len(claim.proof), step))
    for at, digit in enumerate(digits):
        mutant = bytearray(claim.proof)
        position, mask = first + at // 255 * step, at % 255 + 1
        mutant[position] ^= mask
        if claim.holds(bytes(mutant)) != (digit == "1"):
            raise SystemExit(f"{claim.name}: byte {position} XOR {mask}: Go says {digit}")
    return len(digits)


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
}


def main() -> None:
    names = sys.argv[1:] or list(SOAKS)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    for name in names:
        seed = random.SystemRandom().randrange(1 << 31)
        print(f"{name}: seed {seed}", flush=True)
        figures = SOAKS[name](seed)
        record = json.loads(RECORD.read_text()) if RECORD.exists() else {}
        record[name] = {"commit": commit, "seed": seed, **figures}
        RECORD.write_text(json.dumps(record, indent=2, sort_keys=True) + "\n")
        print(f"{name}: {figures}", flush=True)


if __name__ == "__main__":
    main()
