"""The same seed in processes that differ in hash seed, time zone, assertions, caches, database, workers, native core and restarts.

Each process draws the whole history itself and prints what came of it; every line has to be the same everywhere.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from chain.app import build_application
from chain.application import Application, Settings
from chain.store.kv import MemoryBackend, open_backend
from tests.simulation.generate import Generator, genesis
from tests.simulation.run import Failed, Open, Run, run
from tests.simulation.script import Block, Outcome, Script
from tests.simulation.shrink import shrink
from tests.simulation.world import World

ROOT = Path(__file__).resolve().parents[2]
SHRINK_S = 600


@dataclass(frozen=True)
class Variant:
    """How a process runs a history; nothing here may change what comes of it."""

    settings: dict[str, Any] = field(default_factory=dict)
    cache_nodes: int = 100_000
    backend: str = "memdb"
    reopen: float = 0.0
    imports: bool = False
    flags: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)

    def options(self, folder: Path) -> tuple[Open, dict[str, Any]]:
        """(what opens the application, options of ``Run``)."""
        memory = MemoryBackend()

        def open_application() -> Application:
            kv = memory if self.backend == "memdb" else open_backend(self.backend, folder / "db")
            return build_application(kv, Settings(**self.settings), cache_nodes=self.cache_nodes)

        def open_fresh() -> Application:
            return build_application(MemoryBackend(), Settings(**self.settings))

        return open_application, {"reopen": self.reopen, "open_fresh": open_fresh if self.imports else None}


VARIANTS = {
    "native": Variant(imports=True, environment={"PYTHONHASHSEED": "0"}),
    "plain": Variant(
        settings={"native_core": False, "fast_sends": False, "verdict_cache": 0},
        cache_nodes=20,
        flags=("-O",),
        environment={"PYTHONHASHSEED": "12345", "TZ": "Pacific/Kiritimati", "LC_ALL": "C"},
    ),
    "reopened": Variant(
        settings={"verdict_cache": 3, "workers": 2}, cache_nodes=200, backend="goleveldb", reopen=0.1, environment={"PYTHONHASHSEED": "7"}
    ),
}


def drawn(seed: int, blocks: int, operations: int, open_application: Open, **options: Any) -> tuple[Script, Outcome]:
    """A history of a seed, run as it is drawn. Raises Finding."""
    document = genesis(seed)
    made: list[Block] = []

    def script(found: str = "") -> Script:
        return Script(document, tuple(made), seed, found)

    running = None
    try:
        running = Run(document, open_application, **options)
        world = World(running.driver, random.Random(seed))
        generator = Generator(world)
        for _ in range(blocks):
            made.append(generator.block(operations))
            running.block(made[-1])
        running.close()
    except Failed as failure:
        raise Finding(script(str(failure)), failure) from failure
    return script(), running.outcome


class Finding(AssertionError):
    """A history that fails. ``script`` ends with the block that did."""

    def __init__(self, script: Script, failure: Failed) -> None:
        super().__init__(str(failure))
        self.script, self.failure = script, failure


def failure_of(script: Script, variant: Variant) -> Failed | None:
    """How a history fails when it is run anew, or None."""
    with tempfile.TemporaryDirectory() as folder:
        open_application, options = variant.options(Path(folder))
        try:
            run(script, open_application, **options)
        except Failed as failure:
            return failure
    return None


def shrunk(script: Script, kind: str, failure: Callable[[Script], Failed | None], *, budget_s: float = SHRINK_S) -> Script:
    """The smallest history found whose ``failure`` is of that kind, and how it fails."""

    def fails(candidate: Script) -> bool:
        found = failure(candidate)
        return found is not None and found.kind == kind

    small = shrink(script, fails, budget_s=budget_s)
    return replace(small, found=str(failure(small)))


# --- processes ----------------------------------------------------------------------------------------------------------------


def _process(variant: str, *arguments: str) -> Any:
    """What ``python -m tests.simulation`` prints as JSON. Raises SystemExit when it breaks down."""
    one = VARIANTS[variant]
    command = [sys.executable, *one.flags, "-m", "tests.simulation", *arguments, "--variant", variant, "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, **one.environment})
    if done.returncode not in (0, 1):
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-2000:]}")
    return json.loads(done.stdout)


def compared(answers: dict[str, Any]) -> str:
    """Empty, or the first block and part in which processes differ."""
    names = ("app hash", "results", "events")
    [(first, expected), *others] = answers.items()
    for variant, found in others:
        for height, (one, other) in enumerate(zip(expected["lines"], found["lines"], strict=False), 1):
            for name, left, right in zip(names, one, other, strict=True):
                if left != right:
                    return f"block {height}: the {name} of {first} and {variant} differ"
        if len(expected["lines"]) != len(found["lines"]):
            return f"{first} has {len(expected['lines'])} blocks, {variant} {len(found['lines'])}"
    return ""


def _differ(script: Script, variants: Sequence[str]) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "script.json"
        script.save(path)
        with ThreadPoolExecutor(len(variants)) as pool:
            found = list(pool.map(lambda variant: _process(variant, "replay", str(path)), variants))
    return bool(compared(dict(zip(variants, found, strict=True))))


@dataclass
class Total:
    """What many seeds came to."""

    seeds: int = 0
    blocks: int = 0
    operations: int = 0
    ok: int = 0
    failed: int = 0
    refused: int = 0
    imports: int = 0
    followed: int = 0
    evidence: int = 0
    succeeded: Counter[str] = field(default_factory=Counter)
    attempted: Counter[str] = field(default_factory=Counter)
    codes: dict[str, Counter[str]] = field(default_factory=dict)

    def add(self, answer: Any) -> None:
        self.seeds += 1
        self.blocks += len(answer["lines"])
        self.operations += answer["operations"]
        for name in ("imports", "followed", "evidence"):
            setattr(self, name, getattr(self, name) + answer[name])
        self.succeeded.update(answer["succeeded"])
        self.attempted.update(answer["attempted"])
        for operation, codes in answer["codes"].items():
            self.codes.setdefault(operation, Counter()).update(codes)
            for code, count in codes.items():
                name = "ok" if code == "ok" else "refused" if code.startswith("refused") else "failed"
                setattr(self, name, getattr(self, name) + count)


def simulate(seeds: Iterable[int], blocks: int, operations: int, variants: Sequence[str], folder: Path) -> Total:
    """Every seed in one process per variant. Raises SystemExit with a finding: what it is, where its script lies, how to replay it."""
    total = Total()
    arguments = ["--blocks", str(blocks), "--operations", str(operations), "--folder", str(folder)]
    started = time.monotonic()
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        running = [(seed, [pool.submit(_process, variant, "one", str(seed), *arguments) for variant in variants]) for seed in seeds]
        try:
            for seed, processes in running:
                answers = dict(zip(variants, (process.result() for process in processes), strict=True))
                for answer in answers.values():
                    if "found" in answer:
                        raise SystemExit(f"seed {seed}: {answer['found']}\n{answer['replay']}")
                different = compared(answers)
                if different:
                    raise SystemExit(f"seed {seed}: {different}\n{_shrunk_difference(seed, blocks, operations, variants, folder, different)}")
                first = answers[variants[0]]
                total.add(first)
                took_s = time.monotonic() - started
                print(f"seed {seed}: {len(first['lines'])} blocks, {first['operations']} operations agree after {took_s:.0f} s", flush=True)
        finally:
            pool.shutdown(cancel_futures=True)
    return total


def _shrunk_difference(seed: int, blocks: int, operations: int, variants: Sequence[str], folder: Path, different: str) -> str:
    """Shrink a difference between processes, in processes. What to do next."""
    with tempfile.TemporaryDirectory() as database:
        open_application, options = VARIANTS[variants[0]].options(Path(database))
        script, _ = drawn(seed, blocks, operations, open_application, **{**options, "open_fresh": None})
    at = int(different.split(":")[0].split()[-1]) if different.startswith("block") else len(script.blocks)
    script = script.with_blocks(script.blocks[:at])
    if not _differ(script, variants):
        return "the history made in one process and replayed in all of them agrees: what differs is how it was drawn"
    small = replace(shrink(script, lambda one: _differ(one, variants), budget_s=SHRINK_S), found=different)
    return "\n".join(saved(small, folder, variant) for variant in variants)


def saved(script: Script, folder: Path, variant: str) -> str:
    """Write a finding's script; the command that replays it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"simulation-{script.seed}.json"
    script.save(path)
    one = VARIANTS[variant]
    environment = " ".join(f"{name}={value}" for name, value in one.environment.items())
    flags = "".join(f" {flag}" for flag in one.flags)
    return f"{environment} {VENV_PYTHON}{flags} -m tests.simulation replay {path} --variant {variant}"


VENV_PYTHON = ".venv/bin/python"


def soak(seed: int) -> dict[str, Any]:
    """The nightly size: 50 seeds of 100 blocks of 200 operations, in three processes each."""
    started = time.monotonic()
    total = simulate(range(seed, seed + 50), 100, 200, list(VARIANTS), ROOT / "build")
    figures = {name: value for name, value in asdict(total).items() if isinstance(value, int)}
    kinds = sum(1 for codes in total.codes.values() for code in codes if code != "ok")
    took_s = round(time.monotonic() - started)
    more = {"processes": len(VARIANTS), "kinds_of_failure": kinds, "findings": 0, "seconds": took_s}
    return {**figures, **more, "message_types": len(total.succeeded), "never_executed": sorted(set(handled()) - set(total.succeeded))}


def handled() -> list[str]:
    """Every message type that some module handles."""
    return [name for module in build_application(MemoryBackend()).modules for name in module.messages]
