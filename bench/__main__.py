"""``make bench``: every figure of this machine, one after the other; ratios within one run are what counts (docs/benchmarks.md keeps them).

python -m bench [store] [application] [startup] [throughput]
"""

from __future__ import annotations

import subprocess
import sys

from tests.support import ROOT

PARTS = ("store", "application", "startup", "throughput")


def main() -> None:
    for name in sys.argv[1:] or PARTS:
        if name not in PARTS:
            raise SystemExit(f"expected some of {', '.join(PARTS)}, got {name!r}")
        subprocess.run([sys.executable, "-m", f"bench.{name}"], cwd=ROOT, check=True)


if __name__ == "__main__":
    main()
