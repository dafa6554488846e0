"""Runs the soaks named on the command line (default: all) and records seed, commit and figures of each in docs/soak.json."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from chain.abci.framing import FrameError, FrameReader
from chain.codec.json import loads
from chain.coins import parse_coins, parse_int
from chain.crypto import address as bech32
from chain.errors import AppError
from chain.module import GenesisError
from chain.tx.decode import decode_tx
from genesis import build, document
from tests.soak.crash_points import all_crash_points
from tests.soak.kills import kill_many_times
from tests.store.ics23_vectors import batches, published
from tests.store.make_ics23_mutants import go_verdicts
from tests.support import chain, genesis_document, send

ROOT = Path(__file__).resolve().parents[2]
RECORD = ROOT / "docs" / "soak.json"
FUZZ_S = 600


def mutate(choose: random.Random, seeds: list[bytes]) -> bytes:
    """Some bytes near a seed: flipped, cut, repeated, spliced, or random."""
    data = bytearray(choose.choice(seeds))
    for _ in range(choose.randrange(1, 6)):
        kind = choose.randrange(5)
        at = choose.randrange(len(data) + 1)
        if kind == 0 and data:
            data[at % len(data)] ^= 1 << choose.randrange(8)
        elif kind == 1:
            del data[at : at + choose.randrange(1, 20)]
        elif kind == 2:
            data[at:at] = choose.randbytes(choose.randrange(1, 12))
        elif kind == 3:
            data[at:at] = data[: choose.randrange(1, 60)] * choose.randrange(1, 4)
        else:
            other = choose.choice(seeds)
            data[at:] = other[choose.randrange(len(other) + 1) :]
    return bytes(data[:20000])


def fuzz(target: Callable[[bytes], Any], seeds: list[bytes], expected: tuple[type[BaseException], ...], seed: int) -> dict[str, Any]:
    """Feed ``target`` for ten minutes; anything but ``expected`` is a finding, and so is a call of more than two seconds."""
    choose = random.Random(seed)
    until = time.monotonic() + FUZZ_S
    runs = refused = 0
    slowest_s = 0.0
    while time.monotonic() < until:
        data = mutate(choose, seeds)
        started = time.monotonic()
        try:
            target(data)
        except expected:
            refused += 1
        slowest_s = max(slowest_s, time.monotonic() - started)
        if slowest_s > 2:
            raise SystemExit(f"a hang of {slowest_s:.1f} s on {data.hex()}")
        runs += 1
    return {"seconds": FUZZ_S, "runs": runs, "refused": refused, "slowest_ms": round(slowest_s * 1000, 1), "findings": 0}


def fuzz_frames(seed: int) -> dict[str, Any]:
    return fuzz(lambda data: FrameReader(1 << 20).feed(data), [b"\x05hello\x00", bytes([200, 1]) + bytes(200)], (FrameError,), seed)


def fuzz_transactions(seed: int) -> dict[str, Any]:
    return fuzz(decode_tx, [send(2, 3), send(1, 4, memo="hello", timeout_height=9)], (AppError,), seed)


def fuzz_amounts(seed: int) -> dict[str, Any]:
    def target(data: bytes) -> None:
        text = data.decode("latin-1")
        parse_coins(text)
        parse_int(text)

    return fuzz(target, [b"100wei,5stake", b"1" * 80, b"-1"], (AppError,), seed)


def fuzz_addresses(seed: int) -> dict[str, Any]:
    return fuzz(lambda data: bech32.decode(data.decode("latin-1")), [b"st1edp9gkppxzjvcg9nwheh6tp9rsgafatckfdl6m"], (AppError,), seed)


def fuzz_genesis(seed: int) -> dict[str, Any]:
    app: Any = chain().apps[0]
    whole = json.dumps(genesis_document(app)).encode()

    def target(data: bytes) -> None:
        found = loads(data)
        if isinstance(found, dict):
            build.validate(document.normalise(found), app.modules)

    return fuzz(target, [whole], (AppError, GenesisError), seed)


def ics23_all_values(seed: int) -> dict[str, Any]:
    """Every other value of every byte of every published proof, against Go's verdict."""
    claims = [*published(), *list(batches())[:2]]
    compared = 0
    for claim, digits in zip(claims, go_verdicts(claims, "all"), strict=True):
        for at, digit in enumerate(digits):
            mutant = bytearray(claim.proof)
            mutant[at // 255] ^= at % 255 + 1
            if claim.holds(bytes(mutant)) != (digit == "1"):
                raise SystemExit(f"{claim.name}: byte {at // 255} XOR {at % 255 + 1}: Go says {digit}")
            compared += 1
    return {"proofs": len(claims), "mutants": compared, "differences": 0}


SOAKS: dict[str, Callable[[int], dict[str, Any]]] = {
    "fuzz-frames": fuzz_frames,
    "fuzz-transactions": fuzz_transactions,
    "fuzz-amounts": fuzz_amounts,
    "fuzz-addresses": fuzz_addresses,
    "fuzz-genesis": fuzz_genesis,
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
