"""How soon audits find a node that dropped a part of what it keeps, against what chance says; and what it costs the node, day after day.

    100 runs, each with a node and block hashes of its own ─► the auditor's own drawing ─► days or challenges until one hits ─┐
    geometric, hypergeometric ─► mean and its 99.9 % bounds ──────────────────────────────────────────────────────────────────┴─ within?

Seeds are fixed: a run gives the same numbers each time. Source: storage-protocol.md 3.5.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from statistics import NormalDist, mean

import pytest

from sds_node.merkle import LEAF_BYTES, segment_root, share_hashes, share_path, share_root
from sds_node.meta.audits.auditor import FAILED_SCORE, MOST_FAILED, PASSED_SCORE, Auditor
from sds_node.meta.audits.challenges import Item, places, seed_of, with_leaves
from sds_node.meta.books.releases import Releases
from sds_node.meta.nodes.registry import Seen
from sds_node.meta.nodes.statuses import Statuses
from sds_node.meta.relay.penalties import lost_shares
from sds_node.meta.rules import tables
from sds_node.meta.rules.observe import FIRST_SCORE
from sds_node.schemes import released_noz
from sds_node.transfers import AUDIT, AuditAnswer, AuditChallenge, AuditHead
from tests.sds_node.books.world import (
    CHAIN_ID,
    DAY_S,
    PARAMS,
    START_S,
    World,
    message,
    meta_key,
    new_object,
    observed_node,
    owner,
    world,
)
from tests.sds_node.data.network import content

RUNS = 100
CONFIDENCE = 0.999
SHARES, DROPPED = 1_000, 50
"""A node that dropped 5 % of what it keeps."""


def bound(deviation: float, runs: int = RUNS) -> float:
    """How far the mean of so many runs is from the expected one, at most, in 999 of 1,000 cases."""
    return NormalDist().inv_cdf(0.5 + CONFIDENCE / 2) * deviation / math.sqrt(runs)


def node_of(run: int) -> bytes:
    return sha256(b"node %d" % run).digest()[:20]


def block_of(run: int, day: int) -> bytes:
    return sha256(b"block %d of run %d" % (day, run)).digest()


def dropped_of(run: int) -> frozenset[int]:
    """Places of the shares that a node dropped: it chooses them before it knows what it is asked, so any do."""
    ranked = sorted(range(SHARES), key=lambda place: sha256(b"drop %d in run %d" % (place, run)).digest())
    return frozenset(ranked[:DROPPED])


def days_until_found(run: int, count: int) -> int:
    """On which day's audit, of ``count`` shares, a dropped one is asked for first."""
    dropped, day = dropped_of(run), 0
    while True:
        day += 1
        if dropped.intersection(places(seed_of(block_of(run, day), node_of(run), day), SHARES, count)):
            return day


# --- until it is found ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 4, 20, 100])
def test_a_node_that_dropped_a_twentieth_is_found_after_as_many_days_as_chance_says(count: int) -> None:
    chance = 1 - math.comb(SHARES - DROPPED, count) / math.comb(SHARES, count)
    days = [days_until_found(run, count) for run in range(RUNS)]
    assert mean(days) == pytest.approx(1 / chance, abs=bound(math.sqrt(1 - chance) / chance))
    # Not the mean alone: as many runs as the geometric distribution says are over after each number of days.
    for within in (1, 2, 5, 10, 20, 50):
        expected = 1 - (1 - chance) ** within
        over = sum(day <= within for day in days) / RUNS
        assert over == pytest.approx(expected, abs=bound(math.sqrt(expected * (1 - expected))) + 1 / RUNS), within


def test_with_a_hundred_challenges_a_day_it_is_found_on_the_first_day_nearly_always() -> None:
    """The governed default. Chance says 99.4 %."""
    assert sum(days_until_found(run, 100) == 1 for run in range(RUNS)) >= 96


def test_an_audit_finds_as_many_dropped_shares_as_chance_says() -> None:
    count = 100
    found = [len(dropped_of(run).intersection(places(seed_of(block_of(run, 1), node_of(run), 1), SHARES, count))) for run in range(RUNS)]
    part = DROPPED / SHARES
    deviation = math.sqrt(count * part * (1 - part) * (SHARES - count) / (SHARES - 1))
    assert mean(found) == pytest.approx(count * part, abs=bound(deviation))
    assert len(set(found)) > 5, "it is not always the same"


def test_a_node_that_keeps_every_share_but_for_a_twentieth_of_each_is_found_as_soon() -> None:
    leaves, kept = 100, 95
    chance = 1 - kept / leaves

    def challenges_until_found(run: int) -> int:
        item, asked = Item(1, 0, bytes(16), bytes(32), leaves * LEAF_BYTES), 0
        while True:
            asked += 1
            (drawn,) = with_leaves([item], seed_of(block_of(run, asked), node_of(run), asked))
            if drawn.leaf >= kept:
                return asked

    asked = [challenges_until_found(run) for run in range(RUNS)]
    assert mean(asked) == pytest.approx(1 / chance, abs=bound(math.sqrt(1 - chance) / chance))


def test_no_place_is_asked_for_more_than_others() -> None:
    """What a node could drop without being found would be a place that is drawn seldom."""
    count, per_part = 100, SHARES // 10
    hits = [0] * 10
    for run in range(RUNS):
        for place in places(seed_of(block_of(run, 1), node_of(run), 1), SHARES, count):
            hits[place // per_part] += 1
    expected = RUNS * count / 10
    deviation = math.sqrt(RUNS * count * 0.1 * 0.9 * (SHARES - count) / (SHARES - 1))
    # Ten parts are looked at: the bound of one, a little wider.
    assert max(abs(one - expected) for one in hits) < 4 * deviation


# --- what it costs, with the auditor itself -----------------------------------------------------------------------------------------------

SIZE = 3 * LEAF_BYTES + 100
OBJECTS = 200
AUDITED = 40
ESCROW = SIZE - SIZE // 2
CHEAT, HONEST = 1, 2


@dataclass
class Nodes:
    """Resource nodes as the auditor asks them: each proves what it has, by the serials of its shares."""

    data: dict[bytes, bytes] = field(default_factory=dict)
    dropped: set[bytes] = field(default_factory=set)
    asked: list[bytes] = field(default_factory=list)
    """Serials that the cheat was asked for and could not prove, second chances left out."""
    is_second: bool = False

    async def ask(
        self, number: int, method: str, head: bytes = b"", body: bytes = b"", *, most_bytes: int = 1 << 20, idle_s: float | None = None
    ) -> bytes:
        assert method == AUDIT
        raw = AuditHead.FromString(head).body
        answer = AuditAnswer(challenge_hash=sha256(raw).digest())
        for item in AuditChallenge.FromString(raw).items:
            proof = answer.proofs.add()
            if item.serial in self.dropped:
                if not self.is_second:
                    self.asked.append(item.serial)
                continue
            share = self.data[item.serial]
            proof.leaf = share[item.leaf_index * LEAF_BYTES : (item.leaf_index + 1) * LEAF_BYTES]
            proof.path.extend(share_path(share_hashes(share), item.leaf_index))
        raw_answer: bytes = answer.SerializeToString()
        assert len(raw_answer) <= most_bytes
        return raw_answer


@dataclass
class Cheated:
    """A network of three nodes that all have a share of 200 files, of which the first dropped ten."""

    made: World
    nodes: Nodes
    auditor: Auditor
    statuses: Statuses
    serials: dict[tuple[int, int], bytes]
    """(segment, index) → serial."""
    lost: list[tuple[int, int]]

    async def day(self) -> None:
        """A day of audits with its second chances, told to the ledger; nothing but audits changes a score."""
        clock, rows = self.made.clock, self.made.registry.rows().values()
        day = int(clock.now_s // DAY_S) + 1
        # Second chances come half an hour later, on the same day.
        while max(self.auditor.due_s(row.address, day) for row in rows) > (day + 1) * DAY_S - 2_000:
            day += 1
        clock.now_s = (day + 1) * DAY_S - 2_000
        for is_second in (False, True):
            self.nodes.is_second = is_second
            for number in self.made.registry.rows():
                seen = self.made.registry.seen_of(number)
                self.made.registry.heard(number, Seen(clock(), score_change=seen.score_change if seen is not None else 0))
            await self.auditor.step()
            clock.now_s += DAY_S // 48
        await self.statuses.tell()

    async def node(self, number: int) -> tables.Node:
        found: tables.Node = await self.made.row(tables.NODE, number)
        return found

    async def funds(self) -> dict[int, int]:
        """Segment → noz in its object's repair fund, where there are some."""
        found = {}
        for segment in range(1, OBJECTS + 1):
            row = await self.made.row(tables.SEGMENT, segment)
            noz = (await self.made.row(tables.OBJECT, row.object)).repair_noz
            if noz:
                found[segment] = noz
        return found

    def places_of(self, serials: Iterable[bytes]) -> list[tuple[int, int]]:
        by_serial = {serial: place for place, serial in self.serials.items()}
        return sorted(by_serial[one] for one in serials)

    async def repair(self, shares: Sequence[tuple[int, int]]) -> None:
        """Lost shares are made again at a node that has none of them."""
        moved = []
        for segment, index in sorted(shares):
            serial = self.made.serial()
            self.nodes.data[serial] = self.nodes.data[self.serials[segment, index]]
            self.nodes.dropped.discard(self.serials[segment, index])
            self.serials[segment, index] = serial
            moved.append(message("MovedShare", segment=segment, index=index, from_node=CHEAT, to_node=4, serial=serial))
        await self.made.proposer.propose("move", message("Move", shares=moved))


async def cheated(stack: AsyncExitStack, folder: Path, seed: int) -> Cheated:
    made = await stack.enter_async_context(world(folder))
    params = message("LedgerParams", **PARAMS | {"audits_per_day": AUDITED})
    await made.observe(observed_node(4), message("ObservedEvent", params=params))
    nodes, roots = Nodes(), {}
    serials: dict[tuple[int, int], bytes] = {}
    lease = await made.lease(10**9)
    for counter in range(OBJECTS):
        data = content(1_000 * seed + counter, SIZE)
        first = made.serial()
        made.serial(), made.serial()
        new = new_object(counter + 1, SIZE, [CHEAT, HONEST, 3], 1, [first])
        new.segments[0].root = segment_root([share_root(data)] * 3)
        roots[bytes(new.segments[0].root)] = [share_root(data)] * 3
        for index in range(3):
            serial = (int.from_bytes(first, "big") + index).to_bytes(16, "big")
            serials[counter + 1, index], nodes.data[serial] = serial, data
        await made.proposer.propose("commit", message("Commit", lease_id=lease.id, objects=[new]))
    ranked = sorted(range(1, OBJECTS + 1), key=lambda segment: sha256(b"%d %d" % (seed, segment)).digest())
    nodes.dropped = {serials[segment, 0] for segment in ranked[: OBJECTS // 20]}

    async def roots_of(segments: Sequence[tables.Segment]) -> dict[int, list[bytes]]:
        return {one.number: roots[one.root] for one in segments}

    lost: list[tuple[int, int]] = []
    releases = Releases(made.ledger, made.proposer, made.books, made.windows, made.me, roots_of)
    auditor = Auditor(
        made.ledger, made.books, releases, made.registry, nodes, roots_of, CHAIN_ID, made.me, meta_key(), made.clock, on_lost=lambda segment, index: lost.append((segment, index)),
    )  # fmt: skip
    return Cheated(made, nodes, auditor, Statuses(made.registry, made.proposer, made.clock), serials, lost)


@pytest.mark.asyncio
@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_the_dropped_shares_that_were_asked_for_are_lost_and_no_others(tmp_path: Path, seed: int) -> None:
    async with AsyncExitStack() as stack:
        one = await cheated(stack, tmp_path, seed)
        await one.day()
        asked = one.places_of(one.nodes.asked)
        assert sorted(one.lost) == asked
        assert all(index == 0 for _, index in asked)
        # Its score fell for each of them, the honest ones' rose.
        failed = len(asked)
        assert (await one.node(CHEAT)).score == FIRST_SCORE + (FAILED_SCORE * min(failed, MOST_FAILED) if failed else PASSED_SCORE)
        assert (await one.node(HONEST)).score == FIRST_SCORE + PASSED_SCORE
        # The days of those shares went into the repair funds of their files, all others were paid.
        days_noz = released_noz(ESCROW, 1)
        assert await one.funds() == {segment: days_noz for segment, _ in asked}
        earned = [(await one.made.row(tables.EARNED, owner(number), 1, 1)).noz for number in (CHEAT, HONEST, 3)]
        assert earned == [(OBJECTS - failed) * days_noz, OBJECTS * days_noz, OBJECTS * days_noz]
        # The ledger's log names them: what meta nodes slash by.
        now_ms = int(one.made.clock() * 1_000)
        assert await lost_shares(one.made.ledger, START_S * 1_000, now_ms + 1) == ({CHEAT: failed} if failed else {})


@pytest.mark.asyncio
async def test_a_cheat_loses_score_and_shares_day_by_day_until_all_that_it_dropped_is_found(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        one = await cheated(stack, tmp_path, 4)
        found: list[int] = []
        score, days = FIRST_SCORE, 0
        # Each day's audit asks for a fifth or a little more of what is kept: all ten are found within d days with chance (1 - 0.8^d)^10, 99.9 % at 42.
        while one.nodes.dropped:
            days += 1
            assert days <= 42
            one.lost.clear()
            one.nodes.asked.clear()
            await one.day()
            assert sorted(one.lost) == one.places_of(one.nodes.asked)
            if one.lost:
                await one.repair(one.lost)
                score += FAILED_SCORE * len(one.lost)
            else:
                score += PASSED_SCORE
            found.append(len(one.lost))
            assert (await one.node(CHEAT)).score == score
            assert (await one.node(CHEAT)).shares == OBJECTS - sum(found)
        assert sum(found) == OBJECTS // 20
        assert (await one.node(4)).shares == OBJECTS // 20
        for _ in range(2):
            one.lost.clear()
            await one.day()
            assert one.lost == []
        assert (await one.node(CHEAT)).score == score + 2 * PASSED_SCORE
