"""``make bench``: every figure of this machine, one after the other; ratios within one run are what counts (docs/benchmarks.md keeps them).

python -m bench [store] [application] [reports] [startup] [throughput]
python -m bench throughput --validators 4     one part, with its own options
python -m bench durability --write            no figure of the machine, so only by name: what schemes lose (docs/durability.md)
python -m bench storage --only small          the storage network beside kubo, by name alone: it takes half an hour
python -m bench storage-index --segments 1000000 --database postgres
"""

from __future__ import annotations

import subprocess
import sys

from tests.support import ROOT

PARTS = ("store", "application", "reports", "startup", "throughput")
BY_NAME = (*PARTS, "durability", "federation", "storage", "storage-index")


def main() -> None:
    first = next((at for at, one in enumerate(sys.argv) if one.startswith("-")), len(sys.argv))
    names, options = sys.argv[1:first] or PARTS, sys.argv[first:]
    if unknown := [name for name in names if name not in BY_NAME]:
        raise SystemExit(f"expected some of {', '.join(BY_NAME)}, got {unknown[0]!r}")
    if options and len(names) != 1:
        raise SystemExit(f"{options[0]} is an option of one part: name one of {', '.join(BY_NAME)} before it")
    for name in names:
        if subprocess.run([sys.executable, "-m", f"bench.{name.replace('-', '_')}", *options], cwd=ROOT).returncode:
            raise SystemExit(f"bench.{name} failed: its message is above")


if __name__ == "__main__":
    main()
