"""A node restored from a snapshot and one replayed from genesis agree; ``make soak SOAK=statesync-blocks`` does 2,000 blocks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from chain.testing.driver import Disagreement
from modules.staking.keeper import StakingKeeper
from tests.soak.statesync import KINDS, SNAPSHOT_HEIGHT, compare


def test_after_sixty_blocks_with_changes_of_validators(tmp_path: Path) -> None:
    figures = compare(3, 60, tmp_path)
    assert all(figures[name] > 0 for name in KINDS), figures
    assert figures["sets_changed"] > 20
    assert figures["validators_ever"] > 6


def test_what_a_node_remembers_beside_its_stores_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A planted bug: blocks are counted in memory, so that a node that has not seen them all writes another number."""
    right = StakingKeeper.begin_block

    def begin_block(self: Any, ctx: Any, state: Any) -> None:
        right(self, ctx, state)
        self.blocks_seen = getattr(self, "blocks_seen", 0) + 1
        state.store("staking").set(b"\xee", self.blocks_seen.to_bytes(8, "big"))

    monkeypatch.setattr(StakingKeeper, "begin_block", begin_block)
    with pytest.raises(Disagreement) as caught:
        compare(1, 5, tmp_path)
    assert (caught.value.height, caught.value.field) == (SNAPSHOT_HEIGHT + 1, "app_hash")
