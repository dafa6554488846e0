"""A meta node that changes the lines of its report: noz from one wallet to another, or made up (storage-interfaces.md 4.3: T1, T5)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from modules.settlement import leaves as rules
from modules.settlement.commitment import Line
from sds_node.testing.network import key_of, wallet_of
from tests.sds_node.cheats.support import Lie, checked, proved, rewards_wei, started, status_of, traffic

pytestmark = pytest.mark.asyncio


async def test_sums_moved_from_one_node_to_another_are_found(tmp_path: Path) -> None:
    def moved(lines: list[Line]) -> list[Line] | None:
        if len(lines) < 2 or lines[0].noz < 2:
            return None
        return [lines[0]._replace(noz=lines[0].noz - 1), lines[1]._replace(noz=lines[1].noz + 1), *lines[2:]]

    async with started(tmp_path) as network, Lie(network, lines=moved) as lie:
        await traffic(network, 10)
        epoch = await lie.told()
        code, told = await checked(network, epoch)
        assert (code, {one["kind"] for one in told["findings"]}) == (1, {"wrong_sum"})
        await proved(network, told["findings"][0]["proof"])
        assert await status_of(network, epoch) == 2


async def test_a_meta_node_that_pays_itself_with_a_receipt_it_made_up_keeps_nothing(tmp_path: Path) -> None:
    mallory = key_of("mallory").public_key.address

    def more(lines: list[Line]) -> list[Line] | None:
        return sorted([*lines, Line(mallory, 1, 1, 5_000)]) if lines else None

    def invented(leaves: list[Any]) -> list[Any]:
        made = rules.Leaf.FromString(rules.leaf_bytes(leaves[0]))
        made.beneficiary, made.noz = wallet_of("mallory"), 5_000
        return sorted([*leaves, made], key=rules.sort_key)  # type: ignore[arg-type]

    async with started(tmp_path) as network, Lie(network, lambda leaves: invented(leaves) if leaves else None, more) as lie:
        await traffic(network, 11)
        epoch = await lie.told()
        assert await rewards_wei(network, "mallory") > 0
        code, told = await checked(network, epoch)
        kinds = {one["kind"] for one in told["findings"]}
        assert code == 1
        assert "bad_leaf" in kinds
        await proved(network, next(one["proof"] for one in told["findings"] if one["kind"] == "bad_leaf"))
        assert await rewards_wei(network, "mallory") == 0
