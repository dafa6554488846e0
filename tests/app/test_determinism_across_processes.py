"""The same 200 random blocks give the same app hashes, results, gas and events in every process that runs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.interop import peers
from tests.support import FEE, FUNDS_WEI, ROOT

pytestmark = pytest.mark.timeout(600)
SEED, BLOCKS = "20261124", "200"

PROCESSES: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
    "another hash seed, zone and language": ((), {"PYTHONHASHSEED": "12345", "TZ": "Pacific/Kiritimati", "LC_ALL": "C", "LANG": "tr_TR.UTF-8"}),
    "no assertions": (("-O",), {"PYTHONHASHSEED": "1", "TZ": "America/Caracas"}),
    "no verdict cache, no pool, no workers": ((), {"REPLAY_VERDICTS": "0", "REPLAY_POOL": "0", "REPLAY_WORKERS": "0"}),
    "a tiny verdict cache and three workers": ((), {"REPLAY_VERDICTS": "3", "REPLAY_WORKERS": "3"}),
    "a tiny node cache": ((), {"REPLAY_CACHE_NODES": "20"}),
    "no native core": ((), {"REPLAY_NATIVE": "0"}),
    "no native core, restarts, a tiny node cache": ((), {"REPLAY_NATIVE": "0", "REPLAY_RESTARTS": "1", "REPLAY_CACHE_NODES": "20"}),
    "no fast sends": ((), {"REPLAY_FAST_SENDS": "0"}),
    "neither native core nor fast sends, no verdict cache": ((), {"REPLAY_NATIVE": "0", "REPLAY_FAST_SENDS": "0", "REPLAY_VERDICTS": "0"}),
    "RocksDB": ((), {"REPLAY_BACKEND": "rocksdb"}),
    "memory": ((), {"REPLAY_BACKEND": "memdb"}),
    "restarts in between": ((), {"REPLAY_RESTARTS": "1"}),
    "behind its socket, killed in between": ((), {"REPLAY_SOCKET": "1", "REPLAY_RESTARTS": "1", "PYTHONHASHSEED": "7", "TZ": "Asia/Kathmandu"}),
    "restarts, a tiny node cache and RocksDB": ((), {"REPLAY_RESTARTS": "1", "REPLAY_CACHE_NODES": "20", "REPLAY_BACKEND": "rocksdb"}),
}


def replay(python: Path, flags: tuple[str, ...] = (), environment: dict[str, str] | None = None) -> Any:
    command = [str(python), *flags, "-m", "tests.app.replay", SEED, BLOCKS]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "PYTHONHASHSEED": "0", **(environment or {})})
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def reference() -> Any:
    return replay(Path(sys.executable))


def test_the_blocks_hold_successes_and_failures_of_many_kinds(reference: Any) -> None:
    assert len(reference["blocks"]) == int(BLOCKS)
    assert reference["codes"]["/0"] > 200
    assert {"sdk/2", "sdk/4", "sdk/5", "sdk/11", "sdk/32", "gov/13"} <= set(reference["codes"])
    assert reference["shared_wei"] < FUNDS_WEI - 10 * sum(coin.amount for coin in FEE), "the multisig account paid and sent"
    assert reference["broken"] == []


@pytest.mark.parametrize(("flags", "environment"), PROCESSES.values(), ids=PROCESSES)
def test_another_process_agrees(reference: Any, flags: tuple[str, ...], environment: dict[str, str]) -> None:
    assert replay(Path(sys.executable), flags, environment) == reference


@pytest.mark.interop
def test_the_other_python_agrees(reference: Any) -> None:
    """3.12 where the tests run on 3.11, and the other way round; its environment comes from the same lock file."""
    assert replay(peers.other_python()) == reference
