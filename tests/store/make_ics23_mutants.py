"""Writes tests/vectors/ics23_mutants.json: Go's verdict on one random bit per proof byte (every fourth byte of batches).

    python -m tests.store.make_ics23_mutants     (needs Go)

``go_verdicts`` is also what ``make soak`` compares every value of every byte with.
"""

from __future__ import annotations

import json
import random
import subprocess
import tempfile
from pathlib import Path

from tests.store.ics23_vectors import Claim, batches, published

PROGRAM = Path(__file__).parent / "go" / "ics23_mutants"
TARGET = Path(__file__).parent.parent / "vectors" / "ics23_mutants.json"


def go_verdicts(claims: list[Claim], *mode: str) -> list[str]:
    """One string of 0 and 1 per claim; ``mode`` is ``bits`` (8 per byte), ``all`` (255 per byte) or ``all``, step, first byte."""
    with tempfile.TemporaryDirectory() as folder:
        binary = Path(folder) / "mutants"
        subprocess.run(["go", "build", "-o", str(binary), "."], cwd=PROGRAM, check=True)
        lines = "\n".join(claim.as_json() for claim in claims)
        return subprocess.run([str(binary), *mode], input=lines, capture_output=True, text=True, check=True).stdout.split()


def main() -> None:
    claims = [*published(), *batches()]
    choose = random.Random(23)
    written = {}
    for claim, digits in zip(claims, go_verdicts(claims, "bits"), strict=True):
        step = 4 if " in " in claim.name else 1
        bits = [choose.randrange(8) for _ in range(0, len(claim.proof), step)]
        accepted = "".join(digits[at * step * 8 + bit] for at, bit in enumerate(bits))
        written[claim.name] = {"step": step, "bits": "".join(map(str, bits)), "go_accepts": accepted}
    TARGET.write_text(json.dumps(written, indent=1) + "\n")


if __name__ == "__main__":
    main()
