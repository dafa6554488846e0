"""What one meta node tells of a node that another one hears is put right where it is wrong, and honest ones leave each other alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sds_node.meta.nodes.correcting import AGAIN_S
from sds_node.meta.rules.nodes import SILENT_S, is_eligible
from tests.sds_node.federation.test_duties import Two, two
from tests.sds_node.rules.support import message

pytestmark = pytest.mark.asyncio

NAMED: dict[str, Any] = {"is_named": True, "endpoint": "127.1.0.1:9000"}


async def lied(made: Two, **changes: Any) -> None:
    """The ledger is told something else of node 1."""
    row = await made.node()
    fields: dict[str, Any] = {
        "node": 1, "endpoint": row.endpoint, "prefix": row.prefix, "capacity_bytes": row.capacity_bytes, "free_bytes": row.free_bytes, "is_online": True
    }  # fmt: skip
    await made.world.proposer.propose("node_statuses", message("NodeStatuses", nodes=[message("NodeSeen", **fields | changes)]))


async def corrected_after_s(made: Two, most_s: int, **said: Any) -> int | None:
    """In how many seconds the second meta node, which does not tell of node 1 but hears it, corrects the ledger."""
    for after_s in range(5, most_s + 1, 5):
        made.world.clock.now_s += 5
        await made.hello(by=(1,), **NAMED | said)
        if await made.statuses[1].tell(with_space=after_s % 300 == 0):
            return after_s
    return None


async def test_another_one_corrects_that_a_node_is_offline_which_it_hears(tmp_path: Path) -> None:
    async with two(tmp_path) as made:
        await made.hello(**NAMED)
        await made.tell()
        before = await made.node()
        await lied(made, is_online=False, endpoint="", free_bytes=0, score_change=-500)
        assert await corrected_after_s(made, 900) == 305, "seen first after 5 s, and so for 300 s"
        row = await made.node()
        assert (row.is_online, row.endpoint, row.prefix, row.capacity_bytes, row.free_bytes) == (
            True, before.endpoint, before.prefix, before.capacity_bytes, before.free_bytes,
        )  # fmt: skip
        assert row.score == before.score - 500, "of the score it says nothing"
        await lied(made, is_online=False)
        assert await corrected_after_s(made, 900) == AGAIN_S, "once in ten minutes"


@pytest.mark.parametrize(
    ("lie", "most_s"),
    [
        ({"endpoint": "198.51.100.7:9000", "prefix": b"\xc6\x33\x64"}, 305),
        ({"prefix": b"\xc6\x33\x64"}, 305),
        ({"maintenance_until_s": 1 << 40}, 305),
        ({"capacity_bytes": 10**12}, 320),
        ({"free_bytes": 0}, 320),
        ({"free_bytes": 8 * 10**8}, 320),
    ],
)
async def test_another_one_corrects_where_a_node_is_and_what_room_it_has(tmp_path: Path, lie: dict[str, Any], most_s: int) -> None:
    async with two(tmp_path) as made:
        await made.hello(**NAMED)
        await made.tell()
        before = await made.node()
        await lied(made, **lie)
        assert await made.node() != before
        assert await corrected_after_s(made, 900) == most_s
        assert (await made.node())._replace(seen_ms=0) == before._replace(seen_ms=0)


@pytest.mark.parametrize(
    ("lie", "said"),
    [
        ({"is_online": False}, {"is_stopping": True}),
        ({"is_online": False}, {"is_over_budget": True}),
        ({"is_online": False}, {"maintenance_until_s": 1 << 40}),
        ({"endpoint": "198.51.100.7:9000"}, {"is_named": False}),
        ({"endpoint": "198.51.100.7:9000"}, {"endpoint": ""}),
        ({"endpoint": ""}, {}),
        ({"endpoint": "", "prefix": b"\xc6\x33\x64"}, {}),
        ({"prefix": b"\xc6\x33\x64"}, {"endpoint": "node.example.org:9000", "prefix": b"\xc6\x33\x65"}),
        ({"free_bytes": 10**9 - (64 << 20)}, {}),
    ],
)
async def test_what_honest_ones_may_see_differently_is_left_alone(tmp_path: Path, lie: dict[str, Any], said: dict[str, Any]) -> None:
    async with two(tmp_path) as made:
        await made.hello(**NAMED | {name: value for name, value in said.items() if name == "endpoint" and value})
        await made.tell()
        await lied(made, **lie)
        assert await corrected_after_s(made, 440, **said) is None


async def test_a_node_that_another_one_does_not_hear_is_not_corrected(tmp_path: Path) -> None:
    async with two(tmp_path) as made:
        await made.hello(**NAMED)
        await made.tell()
        await lied(made, is_online=False)
        for after_s in range(5, 1_000, 5):
            made.world.clock.now_s += 5
            if after_s % 100 < 50:  # it is heard, but never for so long
                await made.hello(by=(1,), **NAMED)
            assert await made.statuses[1].tell() == 0


async def test_what_was_put_right_meanwhile_or_while_nobody_looked_is_not_corrected(tmp_path: Path) -> None:
    async with two(tmp_path) as made:
        await made.hello(**NAMED)
        await made.tell()
        await lied(made, is_online=False)
        assert await corrected_after_s(made, 250) is None
        await lied(made, is_online=True)
        assert await corrected_after_s(made, 5) is None
        await lied(made, is_online=False)
        assert await corrected_after_s(made, 250) is None, "it begins anew"
        await made.statuses[1].tell(was_away=True)
        assert await corrected_after_s(made, 250) is None
        assert await corrected_after_s(made, 100) == 50


async def test_a_node_of_which_nobody_tells_any_more_stays_online_for_the_ledger(tmp_path: Path) -> None:
    async with two(tmp_path) as made:
        await made.hello(**NAMED)
        await made.tell()
        for _ in range(4 * SILENT_S // 5):
            assert await corrected_after_s(made, 5) in (5, None)
            assert is_eligible(await made.node(), int(made.world.clock() * 1_000))


async def test_honest_ones_never_correct_each_other(tmp_path: Path) -> None:
    async with two(tmp_path) as made:
        said: dict[str, Any] = dict(NAMED)
        for at_s in range(0, 7_200, 5):
            made.world.clock.now_s += 5
            if at_s % 400 == 0:  # it fills and is emptied, and moves
                said |= {"free_bytes": 10**9 if at_s % 800 else 0, "endpoint": f"127.1.0.1:{9_000 + at_s}"}
            await made.hello(**said)
            told = await made.statuses[0].tell(with_space=at_s % 300 == 0)
            assert await made.statuses[1].tell(with_space=at_s % 300 == 0) == 0, (at_s, told)


async def test_who_tells_of_a_node_that_it_does_not_hear_leaves_a_correction_alone(tmp_path: Path) -> None:
    async with two(tmp_path) as made:
        await made.hello(**NAMED)
        await made.tell()
        made.world.clock.now_s += 16
        await made.hello(by=(1,), **NAMED)
        assert (await made.tell(), (await made.node()).is_online) == ([1, 0], False), "the way to the first one is broken"
        assert await corrected_after_s(made, 900) == 300
        for _ in range(100):
            assert await made.statuses[0].tell() == 0
            made.world.clock.now_s += 5
            await made.hello(by=(1,), **NAMED)
        assert (await made.node()).is_online
