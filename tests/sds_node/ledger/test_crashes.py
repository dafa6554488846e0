"""A ledger whose process is killed at any step loses nothing that was answered, and is what its log says."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

from sds_node.meta.ledger.engine import Ledger
from sds_node.meta.ledger.verify import verify
from tests.sds_node.ledger.killed import OPERATIONS
from tests.sds_node.ledger.shop import LEDGER_ID, RULES, all_rows, history

ROOT = Path(__file__).parents[3]
LABELS = ("began", "applied", "rows", "log", "head", "committed")
KILLS = int(os.environ.get("STRATOS_LEDGER_KILLS", "24"))
"""A soak takes 100 and more."""


def kills(seed: int, count: int) -> list[list[Any]]:
    """Every step first, then steps and moments at random."""
    chosen = random.Random(seed)
    every: list[list[Any]] = [["step", label, nth] for label in LABELS for nth in (1, 3)]
    others: list[list[Any]] = [
        ["after", chosen.randrange(1, 60)] if chosen.random() < 0.7 else ["step", chosen.choice(LABELS), chosen.randrange(1, 12)]
        for _ in range(count)
    ]
    return (every + others)[:count]


def test_a_ledger_that_is_killed_again_and_again_loses_nothing_answered(kind_url: str, tmp_path: Path) -> None:
    seed = 21
    wanted = kills(seed, KILLS)
    done = subprocess.run(
        [sys.executable, "-m", "tests.sds_node.ledger.killed", kind_url, str(seed)],
        cwd=ROOT,
        input=json.dumps(wanted),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-1000:]
    lives = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [life["died_at"] for life in lives] == wanted
    assert 0 < lives[-1]["sequence"] < OPERATIONS
    assert any(life["sequence"] > life["answered"] > 0 for life in lives)  # some were on disk before their answer came

    operations = history(seed, OPERATIONS)
    with Ledger.open(kind_url, RULES, LEDGER_ID) as ledger:
        assert ledger.head.sequence >= lives[-1]["sequence"]  # a commit that was under way may have come after that look
        with ledger.snapshot() as view:
            verified = verify(view, RULES, tmp_path / "scratch.db")
            logged = [entry.operation for entry in view.entries(0, OPERATIONS)]
            rows = all_rows(view)
        assert verified.operations == len(logged)
        assert logged == operations[: len(logged)]
        times = [entry.time_ms for entry in _entries(ledger)]
        assert times == sorted(times)
    # Another ledger that nobody killed, given the same operations at the same times, has the same rows.
    clock = iter(times)
    with Ledger.open(f"sqlite:///{tmp_path}/calm.db", RULES, LEDGER_ID, now_ms=lambda: next(clock)) as calm:
        for raw in logged:
            calm.submit(raw).result(60)
        with calm.read() as view:
            assert all_rows(view) == rows


def _entries(ledger: Ledger) -> list[Any]:
    with ledger.read() as view:
        return view.entries(0, OPERATIONS)
