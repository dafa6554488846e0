"""Random histories.

python -m tests.simulation run --seeds 1-3 --blocks 10 --operations 30     every seed in three processes
python -m tests.simulation one 7                                           one seed in this process
python -m tests.simulation replay FILE --variant plain                     a saved history, as that process runs it
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import structlog

from tests.simulation.processes import VARIANTS, Finding, Variant, drawn, failure_of, saved, shrunk, simulate
from tests.simulation.run import Failed, run
from tests.simulation.script import Outcome, Script


def _seeds(text: str) -> list[int]:
    """``3``, ``1-5`` or ``4,8,9``."""
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        found.extend(range(int(first), int(last or first) + 1))
    return found


def _one(arguments: argparse.Namespace, variant: Variant, folder: Path) -> Any:
    open_application, options = variant.options(folder)
    try:
        script, outcome = drawn(arguments.seed, arguments.blocks, arguments.operations, open_application, **options)
    except Finding as finding:
        print(f"{finding}\nshrinking {finding.script.operations} operations in {len(finding.script.blocks)} blocks …", file=sys.stderr, flush=True)
        small = shrunk(finding.script, finding.failure.kind, lambda one: failure_of(one, variant))
        return {"found": small.found, "replay": saved(small, arguments.folder, arguments.variant), "operations": small.operations}
    return {"operations": script.operations, **asdict(outcome)}


def _replay(arguments: argparse.Namespace, variant: Variant, folder: Path) -> Any:
    script = Script.load(arguments.file)
    open_application, options = variant.options(folder)
    try:
        outcome: Outcome = run(script, open_application, **options)
    except Failed as failure:
        return {"found": str(failure), "lines": []}
    return {"operations": script.operations, **asdict(outcome)}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    many, one, replay = (commands.add_parser(name) for name in ("run", "one", "replay"))
    many.add_argument("--seeds", type=_seeds, default=[1, 2, 3], help="such as 1-50 or 4,8")
    one.add_argument("seed", type=int)
    replay.add_argument("file", type=Path)
    for command in (many, one):
        command.add_argument("--blocks", type=int, default=10)
        command.add_argument("--operations", type=int, default=30, help="per block, on average")
        command.add_argument("--folder", type=Path, default=Path("build"), help="where a finding's script goes")
    for command in (one, replay):
        command.add_argument("--variant", choices=sorted(VARIANTS), default="native")
        command.add_argument("--json", action="store_true", help="all figures, for programs")
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR), logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    if arguments.command == "run":
        _print_total(simulate(arguments.seeds, arguments.blocks, arguments.operations, list(VARIANTS), arguments.folder))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        act = _one if arguments.command == "one" else _replay
        answer = act(arguments, VARIANTS[arguments.variant], Path(folder))
    if arguments.json:
        print(json.dumps(answer))
    elif "found" in answer:
        print(answer["found"], answer.get("replay", ""), sep="\n")
    else:
        print(
            f"{len(answer['lines'])} blocks, {answer['operations']} operations, last app hash {answer['lines'][-1][0] if answer['lines'] else 'none'}"
        )
        _print_codes(answer["codes"])
    return int("found" in answer)


def _print_total(total: Any) -> None:
    _print_codes(total.codes)
    figures = ", ".join(f"{name} {value}" for name, value in asdict(total).items() if isinstance(value, int))
    print(f"{figures}; message types executed: {len(total.succeeded)}; all processes agree, every invariant holds")


def _print_codes(codes: dict[str, dict[str, int]]) -> None:
    for operation in sorted(codes):
        print(f"  {operation:44}", ", ".join(f"{code} {count}" for code, count in sorted(codes[operation].items(), key=lambda one: -one[1])))


if __name__ == "__main__":
    sys.exit(main())
