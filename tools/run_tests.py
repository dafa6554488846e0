"""pytest, and once more the files of the few tests that failed beside others: alone.

    pytest … ─ all passed ─► 0
        └── at most three files have a failure ─► pytest of these files, whole, one after the other ─► 0 when all pass, and each is named

Many tests run real processes with real clocks on as few as two cores, beside others; one that fails there and passes alone was starved. One that is wrong fails
both times. More than three files with failures, an interruption or a failed collection are not tried again.

python -m tools.run_tests [pytest's arguments]
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Final

FAILED: Final = 1
"""pytest's exit status when tests ran and some of them failed."""
MOST_FILES: Final = 3
LAST_FAILED: Final = Path(".pytest_cache/v/cache/lastfailed")
_WITH_VALUE: Final = ("-m", "-k", "-p")


def main(arguments: list[str] | None = None) -> int:
    """Run → exit status."""
    given = sys.argv[1:] if arguments is None else arguments
    LAST_FAILED.unlink(missing_ok=True)
    status = _pytest(given)
    if status != FAILED:
        return status
    tests = sorted(json.loads(LAST_FAILED.read_text())) if LAST_FAILED.exists() else []
    files = sorted({test.partition("::")[0] for test in tests})
    if not files or len(files) > MOST_FILES or not all(Path(one).is_file() for one in files):
        return status
    print(f"\nfailed beside others: {', '.join(tests)}\ntheir files again, alone:", flush=True)
    status = _pytest([*_of_each_run(given), *files])
    print(f"failed beside others, {'failed' if status else 'passed'} alone: {', '.join(tests)}", flush=True)
    return status


def _of_each_run(given: list[str]) -> list[str]:
    """Which tests are meant, without where they are and how many at once."""
    return [part for at, one in enumerate(given) if one in _WITH_VALUE for part in given[at : at + 2]]


def _pytest(arguments: list[str]) -> int:
    return subprocess.run([sys.executable, "-m", "pytest", *arguments], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
