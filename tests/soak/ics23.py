"""Every value of every byte of proofs against Go's verdict. A module of its own: worker processes import it by name."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

from tests.store.ics23_vectors import Claim, batches, published
from tests.store.make_ics23_mutants import go_verdicts

BATCH_STEP = 64


def ics23_all_values(seed: int) -> dict[str, Any]:
    """Every other value of every byte of every published proof, against Go's verdict; of batches, of every 64th byte, other ones for each seed."""
    whole, parts, first = published(), list(batches()), seed % BATCH_STEP
    work = [(claim, digits, 1, 0) for claim, digits in zip(whole, go_verdicts(whole, "all"), strict=True)]
    verdicts = go_verdicts(parts, "all", str(BATCH_STEP), str(first))
    work += [(claim, digits, BATCH_STEP, first) for claim, digits in zip(parts, verdicts, strict=True)]
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), mp_context=get_context("spawn")) as pool:
        compared = sum(pool.map(_compare, *zip(*work, strict=True)))
    return {"proofs": len(whole), "batches": len(parts), "mutants": compared, "differences": 0}


def _compare(claim: Claim, digits: str, step: int, first: int) -> int:
    """How many mutants were compared. Raises SystemExit for a difference."""
    assert len(digits) == 255 * len(range(first, len(claim.proof), step))
    for at, digit in enumerate(digits):
        mutant = bytearray(claim.proof)
        position, mask = first + at // 255 * step, at % 255 + 1
        mutant[position] ^= mask
        if claim.holds(bytes(mutant)) != (digit == "1"):
            raise SystemExit(f"{claim.name}: byte {position} XOR {mask}: Go says {digit}")
    return len(digits)
