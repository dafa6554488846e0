"""No user's message; inflation high enough to be seen."""

from __future__ import annotations

import random
from typing import Any

from tests.simulation.world import Kind


def prepare(section: Any, choose: random.Random) -> None:
    if choose.random() < 0.6:
        section["minter"]["inflation"] = "0.130000000000000000"
        section["params"] |= {
            "inflation_rate_change": "0.130000000000000000",
            "inflation_max": "0.200000000000000000",
            "inflation_min": "0.070000000000000000",
            "blocks_per_year": "10000",
        }


OPERATIONS: tuple[Kind, ...] = ()
