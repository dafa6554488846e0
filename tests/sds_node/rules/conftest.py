"""Worlds in a temporary folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.sds_node.postgres import Server, postgres
from tests.sds_node.rules.support import Make, World

__all__ = ["Server", "postgres"]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Makes worlds, and closes them."""
    made: list[World] = []

    def build(**settings: Any) -> World:
        made.append(World(tmp_path, name=f"ledger{len(made)}", **settings))
        return made[-1]

    yield build
    for world in made:
        world.core.close()


@pytest.fixture
def world(make: Make) -> World:
    """One meta node, three nodes, a wallet with noz."""
    return make()
