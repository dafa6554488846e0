"""Kills a ledger's process again and again, and looks each time whether anything that was answered is gone. A process of its own: it forks.

python -m tests.sds_node.ledger.killed URL SEED < JSON list of kills
a kill: ["step", label, nth]   the process kills itself when it comes to a step for the nth time
        ["after", count]       it is killed from outside once that many answers have come
output: one JSON object for each kill, {sequence, answered, died_at}; an error ends it with a code that is not 0
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections import Counter
from typing import Any

from sds_node.meta.ledger.engine import Ledger, snapshot
from tests.sds_node.ledger.shop import LEDGER_ID, RULES, history

OPERATIONS = 3_000
AT_ONCE = 7
"""Operations under way at any time: groups of some size form."""


def work(url: str, operations: list[bytes], kill: list[Any], answers: int) -> None:
    """Propose operations from where the ledger stands, and write each answer to ``answers`` when it comes."""
    seen: Counter[str] = Counter()

    def step(label: str) -> None:
        seen[label] += 1
        if kill[0] == "step" and label == kill[1] and seen[label] == kill[2]:
            os.kill(os.getpid(), signal.SIGKILL)

    ledger = Ledger.open(url, RULES, LEDGER_ID, on_step=step)
    waiting = []
    for raw in operations[ledger.head.sequence :]:
        waiting.append(ledger.submit(raw))
        if len(waiting) == AT_ONCE:
            for one in waiting:
                result = one.result()
                os.write(answers, b"%d %s\n" % (result.sequence, result.app_hash.hex().encode()))
            waiting.clear()
    raise SystemExit("the operations are used up before the kill came")


def one_life(url: str, operations: list[bytes], kill: list[Any]) -> dict[str, Any]:
    """Fork, let it be killed, and compare what it answered with what is there."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            work(url, operations, kill, writing)
        except BaseException as error:
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
        finally:
            os._exit(1)
    os.close(writing)
    answered: list[bytes] = []
    with os.fdopen(reading, "rb") as lines:
        for line in lines:
            answered.append(line)
            if kill[0] == "after" and len(answered) == kill[1]:
                os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status) or os.WTERMSIG(status) != signal.SIGKILL:
        raise SystemExit(f"{kill}: the process ended by itself with {status}")
    with snapshot(url, RULES) as view:
        sequence = view.head.sequence
        last = 0
        for line in answered:
            at, app_hash = line.split()
            last = int(at)
            (entry,) = view.entries(last - 1, 1)
            if entry.app_hash.hex().encode() != app_hash:
                raise SystemExit(f"{kill}: operation {last} was answered with another app hash than the log has")
        if last > sequence:
            raise SystemExit(f"{kill}: operation {last} was answered, the ledger stands at {sequence}")
        for entry in view.entries(max(0, sequence - 50), 50):
            if entry.operation != operations[entry.sequence - 1]:
                raise SystemExit(f"{kill}: operation {entry.sequence} of the log is not the one that was proposed")
    return {"sequence": sequence, "answered": last, "died_at": kill}


def main() -> int:
    url, seed = sys.argv[1], int(sys.argv[2])
    operations = history(seed, OPERATIONS)
    # A ledger that stands before the first kill, so that a view of it can be had whenever that comes.
    Ledger.open(url, RULES, LEDGER_ID).close()
    for kill in json.load(sys.stdin):
        print(json.dumps(one_life(url, operations, kill)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
