"""The store alone: the same histories through the plain tree and the native core, and synced commits per backend.

python -m bench.store [--keys 100000] [--changes 6000]
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from pathlib import Path

from chain.store.kv import MemoryBackend, open_backend
from chain.store.multistore import MultiStore

VERSIONS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--changes", type=int, default=6000)
    run(**vars(parser.parse_args()))


def run(keys: int = 100_000, changes: int = 6000) -> None:
    """Print the figures; every way must give the same app hash."""
    hashes = set()
    rates = {}
    for name, native, backend in (("plain", False, "memory"), ("native", True, "memory"), ("native", True, "goleveldb"), ("native", True, "rocksdb")):
        with tempfile.TemporaryDirectory() as folder:
            kv = MemoryBackend() if backend == "memory" else open_backend(backend, Path(folder) / "db")
            store = MultiStore.open(kv, ["bank"], native=native)
            choose = random.Random(1)
            names = sorted(choose.randbytes(24) for _ in range(keys))
            store.stage(1, {"bank": [(key, b"1000000000000") for key in names]})
            store.commit()
            store.flush()
            stage_s = commit_s = 0.0
            for version in range(2, 2 + VERSIONS):
                changed = [(key, b"%d" % choose.randrange(10**13)) for key in sorted(choose.sample(names, changes))]
                at = time.perf_counter()
                store.stage(version, {"bank": changed})
                stage_s += time.perf_counter() - at
                at = time.perf_counter()
                store.commit()
                commit_s += time.perf_counter() - at
                at = time.perf_counter()
                store.flush()
            hashes.add(store.app_hash)
            rates[name] = stage_s / VERSIONS * 1000
            print(
                f"store: {name} tree on {backend}: {changes} of {keys} keys renewed: root {stage_s / VERSIONS * 1000:.0f} ms, commit {commit_s / VERSIONS * 1000:.1f} ms"
            )
            store.close()
    if len(hashes) != 1:
        raise SystemExit(f"the roots differ: {sorted(one.hex() for one in hashes)}")
    print(f"store: the native core makes a root {rates['plain'] / rates['native']:.1f} times as fast as the plain tree")


if __name__ == "__main__":
    main()
