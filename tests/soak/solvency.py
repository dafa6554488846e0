"""100,000 random histories of the ozone economy on the keepers and 1,000 through signed transactions, each beside the plain model."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from multiprocessing import get_context
from typing import Any, Final

from tests.economics.chain import ChainWorld
from tests.economics.histories import check_many
from tests.economics.keepers import KeeperWorld
from tests.economics.model import Rules
from tests.economics.operations import World

ON_KEEPERS: Final = 100_000
IN_TRANSACTIONS: Final = 1_000
PART: Final = 100
WORLDS: Final[dict[str, Callable[[Rules], World]]] = {"keepers": KeeperWorld, "transactions": ChainWorld}


def solvency(seed: int, *, on_keepers: int = ON_KEEPERS, in_transactions: int = IN_TRANSACTIONS) -> dict[str, Any]:
    """Figures of both, by how often each operation was done and each promise at stake. AssertionError names the first history that differs."""
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as workers:
        return {
            name: _summed(workers.map(_part, repeat(name), *zip(*parts(count, seed), strict=True)))
            for name, count in (("transactions", in_transactions), ("keepers", on_keepers))
        }


def parts(count: int, seed: int) -> list[tuple[int, int]]:
    """(count, first seed) of what each call of a worker does."""
    return [(min(PART, count - at), seed + at) for at in range(0, count, PART)]


def _part(name: str, count: int, seed: int) -> dict[str, int]:
    return check_many(WORLDS[name], count, seed)


def _summed(figures: Iterator[dict[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for one in figures:
        total.update(one)
    return dict(total)
