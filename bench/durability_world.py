"""A simulated storage network: nodes that die, go away, come back and damage what they hold, and segments that are repaired or lost.

    node events ──► shares: good (the bytes are there) and believed (the planner counts them) ──► repair queue ──► placement
      death, outage > 24 h, damage,                       │                                           one owner, one prefix
      a prefix, owner or region at once                   └── good < k: lost, and a new segment takes its place

Time is continuous, in hours; events are in a heap, and what an event does to shares is done by numpy for all of them at once. What happens depends on
the seed alone. Nodes that die are replaced at once by newcomers, so a network keeps its size. Sources: storage-protocol.md 3.2, 3.3, 3.5;
storage-interfaces.md 3.3, 3.4, 9. What is left out is in docs/durability.md.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import numpy as np

from sds_node.durability import DETECTION_H, HOURS_PER_YEAR, REBUILD_H
from sds_node.schemes import Scheme

REGIONS: Final = 10
LEAVES: Final = 205
"""Of 16 KiB, in a share of a full segment of 10 of 30."""
AUDITS_PER_DAY: Final = 100
BLOCKS: Final = 20
"""Parts of the measured time; how much they differ says how sure a mean is."""
LOOKS: Final = 5
"""Moments in each part at which all segments are looked at."""
CELLS: Final = 1 << 22
"""Largest table of (segments × nodes) that placement makes at once."""

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class World:
    """What is simulated. With the defaults it is the world of the formulas: nothing but independent deaths and repairs that never wait."""

    scheme: Scheme
    rate_per_year: float
    """Deaths per node and year, on average over all nodes, without those that happen together."""
    segments: int = 10_000
    years: float = 100.0
    """That are measured; a run begins with two cycles more, which are not."""
    nodes: int = 300
    networks: int = 1
    """The nodes are parted into so many networks that know nothing of each other."""
    detection_h: float = DETECTION_H
    rebuild_h: float = REBUILD_H
    shared_places: bool = False
    """Whether owners and prefixes have several nodes each: two nodes in five share an owner, one in four a prefix."""
    infants: float = 0.0
    """The part of the newcomers that live ``infant_days`` on average; the others live longer, so that the rate is right."""
    infant_days: float = 60.0
    outages_per_year: float = 0.0
    """Of more than the detection's delay, per node."""
    outage_extra_h: float = 72.0
    """How much longer than that, on average."""
    offline: float = 0.0
    """The part of the time that a node is offline in shorter outages."""
    damages_per_year: float = 0.0
    """Per node. Each spoils from a thousandth to all of its shares, and in those from one leaf to all."""
    scrub_days: float = 30.0
    """In which a node reads everything it holds once."""
    repair_bytes_per_s: float = math.inf
    """Per node that repairs."""
    node_bytes: float = 500e9
    """What a node holds; its simulated shares stand for so much."""
    prefix_failures_per_year: float = 0.0
    owner_failures_per_year: float = 0.0
    region_failures_per_year: float = 0.0
    """How often each prefix, owner and region loses all of its nodes at once. There are ten regions of equal size."""


@dataclass(slots=True)
class Tally:
    """What was seen in the measured time."""

    segment_years: float = 0.0
    share_years: float = 0.0
    """Of good shares."""
    node_years: float = 0.0
    lost: int = 0
    incidents: int = 0
    """Moments at which segments were lost."""
    lost_squared: int = 0
    """Σ over incidents of what was lost in it, squared."""
    chance: list[float] = field(default_factory=lambda: [0.0] * BLOCKS)
    """Losses that were to be expected in the windows of repair as they came, by part of the time."""
    regional: list[float] = field(default_factory=lambda: [0.0] * BLOCKS)
    """Losses that were to be expected from the failure of one region, at sampled moments, by part of the time."""
    node_deaths: int = 0
    shares_died: int = 0
    shares_damaged: int = 0
    repairs: int = 0
    shares_read: int = 0
    shares_written: int = 0
    repair_wait_h: float = 0.0
    """Sum over repairs, from the plan of the last try to the end."""
    delayed: int = 0
    """Times that a repair found too few sources online, or too few places."""
    seen: int = 0
    unavailable: int = 0
    """Of ``seen`` looks at segments, those that found fewer than k shares online."""


@dataclass(slots=True)
class Ledger:
    """What happened to shares and repairs since the world began; ``check`` adds it up."""

    made: int = 0
    spoiled: int = 0
    superseded: int = 0
    """Good shares on nodes that were away, made again elsewhere."""
    dropped: int = 0
    """Good shares of lost segments."""
    planned: int = 0
    done: int = 0
    needless: int = 0
    """Repairs that found nothing missing any more."""
    put_off: int = 0
    """Tries that found too few sources online, or no place."""
    lost_while_planned: int = 0


class Simulation:
    """One world while it runs: ``run()`` returns the tally. ``nodes`` etc. are as in ``World``."""

    def __init__(self, world: World, seed: int) -> None:
        if world.nodes % world.networks or world.segments < 1:
            raise ValueError(f"{world.nodes} nodes cannot be parted into {world.networks} equal networks of {world.segments} segments or fewer")
        self.world = world
        self.scheme = world.scheme
        self.random = np.random.Generator(np.random.PCG64(seed))
        self.tally = Tally()
        self.ledger = Ledger()
        self.now = 0.0
        n = self.scheme.n
        harmonic = sum(1 / j for j in range(self.scheme.repair_below, n + 1))
        self.start = 2 * harmonic / world.rate_per_year * HOURS_PER_YEAR + 2 * (world.detection_h + world.rebuild_h)
        self.end = self.start + world.years * HOURS_PER_YEAR
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0
        self._batches: dict[float, list[tuple[Array, Array]]] = {}
        self._looks = 0

        self.per_network = world.nodes // world.networks
        self.incarnation = np.zeros(world.nodes, np.int64)
        self.hazard = np.zeros(world.nodes)
        self.away = np.zeros(world.nodes, bool)
        self.free_at = np.zeros(world.networks)
        """When each network has done the repairs that are planned."""
        self._lay_out_places()
        slots = world.segments * n
        self.holder = np.full(slots, -1, np.int32)
        self.good = np.zeros(slots, bool)
        self.believed = np.zeros(slots, bool)
        self.notice_at = np.full(slots, math.inf)
        self.good_count = np.zeros(world.segments, np.int64)
        self.believed_count = np.zeros(world.segments, np.int64)
        self.planned = np.zeros(world.segments, bool)
        self.planned_at = np.zeros(world.segments)
        self.life = np.zeros(world.segments, np.int64)
        self.watch = np.zeros(world.segments, np.int64)
        """How many windows were looked ahead at; a new segment begins another."""
        self.network = np.arange(world.segments) % world.networks
        held = slots / world.nodes
        self.share_h = world.node_bytes / held / (world.repair_bytes_per_s * 3600)
        """How long one node would need to move one simulated share."""

        mean_years = 1 / world.rate_per_year
        scale = min(1.0, mean_years * 365 / (2 * world.infant_days)) if world.infants else 1.0
        self.infant_years = world.infant_days / 365 * scale
        """Shorter than asked where the whole churn is so fast that infants would outlive the others."""
        self.lasting_years = (mean_years - world.infants * self.infant_years) / (1 - world.infants)
        alive_infants = world.infants * self.infant_years / mean_years
        for node in range(world.nodes):
            self._born(node, self.random.random() < alive_infants)
        self._fresh(np.arange(world.segments))
        for groups, rate in (
            (self.prefix, world.prefix_failures_per_year),
            (self.owner, world.owner_failures_per_year),
            (self.region, world.region_failures_per_year),
        ):
            if rate:
                self._next_failure(groups, rate * (int(groups.max()) + 1))
        for sample in range(LOOKS * BLOCKS):
            self._at(self.start + (sample + 0.5) / (LOOKS * BLOCKS) * (self.end - self.start), self._look)

    # -- the clock

    def _at(self, time_h: float, what: Callable[[], None]) -> None:
        if time_h <= self.end:
            self._order += 1
            heapq.heappush(self._events, (time_h, self._order, what))

    def run(self) -> Tally:
        """Let all time pass."""
        while self._events:
            time_h, _, what = heapq.heappop(self._events)
            self._pass(time_h)
            what()
        self._pass(self.end)
        years = (self.end - self.start) / HOURS_PER_YEAR
        self.tally.segment_years = years * self.world.segments
        self.tally.node_years = years * self.world.nodes
        self.check()
        return self.tally

    def _pass(self, time_h: float) -> None:
        ledger = self.ledger
        there = ledger.made - ledger.spoiled - ledger.superseded - ledger.dropped
        self.tally.share_years += max(time_h - max(self.now, self.start), 0.0) * there / HOURS_PER_YEAR
        self.now = time_h

    @property
    def _measured(self) -> bool:
        return self.now >= self.start

    def _block(self) -> int:
        return min(int((self.now - self.start) / (self.end - self.start) * BLOCKS), BLOCKS - 1)

    # -- nodes

    def _lay_out_places(self) -> None:
        """Owner, prefix and region of each node; no owner or prefix is in two networks."""
        world = self.world
        self.owner, self.prefix = np.arange(world.nodes), np.arange(world.nodes)
        if world.shared_places:
            for places, alone in ((self.owner, 0.6), (self.prefix, 0.75)):
                for network in range(world.networks):
                    first = network * self.per_network
                    kinds = math.ceil(self.per_network * alone)
                    places[first : first + self.per_network] = self.random.permutation(first + np.arange(self.per_network) % kinds)
        self.region = self.random.permutation(np.arange(world.nodes) % REGIONS)

    def _born(self, node: int, infant: bool) -> None:
        """A newcomer takes the place of a node: how long it lives, and when it goes away or damages shares first."""
        world = self.world
        self.incarnation[node] += 1
        self.hazard[node] = 1 / (self.infant_years if infant else self.lasting_years) / HOURS_PER_YEAR
        self.away[node] = False
        life = int(self.incarnation[node])
        self._at(self.now + self.random.exponential(1 / self.hazard[node]), partial(self._if_alive, node, life, self._one_dies))
        if world.outages_per_year:
            self._next_outage(node, life)
        if world.damages_per_year:
            self._next_damage(node, life)

    def _if_alive(self, node: int, life: int, what: Callable[[int], None]) -> None:
        if self.incarnation[node] == life:
            what(node)

    def _next_outage(self, node: int, life: int) -> None:
        delay_h = self.random.exponential(HOURS_PER_YEAR / self.world.outages_per_year)
        self._at(self.now + delay_h, partial(self._if_alive, node, life, self._goes_away))

    def _next_damage(self, node: int, life: int) -> None:
        delay_h = self.random.exponential(HOURS_PER_YEAR / self.world.damages_per_year)
        self._at(self.now + delay_h, partial(self._if_alive, node, life, self._damages))

    def _next_failure(self, groups: Array, total_rate: float) -> None:
        self._at(self.now + self.random.exponential(HOURS_PER_YEAR / total_rate), partial(self._fails, groups, total_rate))

    def _fails(self, groups: Array, total_rate: float) -> None:
        """A prefix, an owner or a region loses all of its nodes."""
        self._die(np.flatnonzero(groups == self.random.integers(int(groups.max()) + 1)))
        self._next_failure(groups, total_rate)

    def _one_dies(self, node: int) -> None:
        self._die(np.array([node]))

    def _die(self, nodes: Array) -> None:
        slots = np.flatnonzero(self.holder == nodes[0] if len(nodes) == 1 else np.isin(self.holder, nodes))
        self.holder[slots] = -1
        spoiled = slots[self.good[slots]]
        if self._measured:
            self.tally.node_deaths += len(nodes)
            self.tally.shares_died += len(spoiled)
        for node in nodes.tolist():
            self._born(node, bool(self.random.random() < self.world.infants))
        self._spoil(slots, spoiled, self.now + self.world.detection_h)

    def _goes_away(self, node: int) -> None:
        life = int(self.incarnation[node])
        self.away[node] = True
        extra_h = self.random.exponential(self.world.outage_extra_h)
        self._at(self.now + self.world.detection_h, partial(self._if_alive, node, life, self._counts_as_lost))
        self._at(self.now + self.world.detection_h + extra_h, partial(self._if_alive, node, life, self._comes_back))

    def _counts_as_lost(self, node: int) -> None:
        slots = np.flatnonzero(self.holder == node)
        self._disbelieve(slots[self.believed[slots]])

    def _comes_back(self, node: int) -> None:
        """What was not made again meanwhile counts again, damaged or not."""
        self.away[node] = False
        slots = np.flatnonzero(self.holder == node)
        slots = slots[~self.believed[slots]]
        self.believed[slots] = True
        self.believed_count += np.bincount(slots // self.scheme.n, minlength=self.world.segments)
        self._next_outage(node, int(self.incarnation[node]))

    def _damages(self, node: int) -> None:
        """A part of the node's shares is damaged; an audit that hits a damaged leaf, or the node's own reading, tells."""
        slots = np.flatnonzero((self.holder == node) & self.good)
        self._next_damage(node, int(self.incarnation[node]))
        if not len(slots):
            return
        part = 10 ** (-3 * self.random.random())
        leaves = LEAVES ** (-self.random.random())
        hit = self.random.choice(slots, math.ceil(part * len(slots)), replace=False)
        hit.sort()
        found_daily = -math.expm1(AUDITS_PER_DAY * math.log1p(-min(part * leaves, 1 - 1e-12)))
        audit_h = 24 * float(self.random.geometric(found_daily)) + 24
        scrub_h = 24 * self.world.scrub_days * self.random.random()
        if self._measured:
            self.tally.shares_damaged += len(hit)
        self._spoil(hit, hit, self.now + min(audit_h, scrub_h))

    # -- shares

    def _spoil(self, slots: Array, spoiled: Array, notice_at: float) -> None:
        """The shares of ``spoiled``, which are among ``slots``, are gone; all of ``slots`` are known to be at ``notice_at``."""
        before = self.good_count.copy() if len(spoiled) else self.good_count
        self.good[spoiled] = False
        self.ledger.spoiled += len(spoiled)
        self.notice_at[slots] = np.minimum(self.notice_at[slots], notice_at)
        self.good_count = before - np.bincount(spoiled // self.scheme.n, minlength=self.world.segments) if len(spoiled) else before
        below = self.scheme.repair_below
        crossed = np.flatnonzero((before >= below) & (self.good_count < below) & (self.good_count >= self.scheme.k))
        self._expect(crossed, None)
        lost = np.flatnonzero(self.good_count < self.scheme.k)
        if len(lost):
            self._lose(lost)
        if notice_at <= self.now:
            self._noticed(slots)
        else:
            self._at(notice_at, partial(self._noticed, slots))

    def _noticed(self, slots: Array) -> None:
        """Shares are known to be gone: those of them that were not made again since."""
        slots = slots[(self.notice_at[slots] <= self.now) & ~self.good[slots]]
        self.holder[slots] = -1
        self._disbelieve(slots[self.believed[slots]])

    def _disbelieve(self, slots: Array) -> None:
        self.believed[slots] = False
        segments = slots // self.scheme.n
        self.believed_count -= np.bincount(segments, minlength=self.world.segments)
        segments = np.unique(segments)
        self._plan(segments[(self.believed_count[segments] < self.scheme.repair_below) & ~self.planned[segments]])

    def _lose(self, segments: Array) -> None:
        if self._measured:
            self.tally.lost += len(segments)
            self.tally.incidents += 1
            self.tally.lost_squared += len(segments) ** 2
        self.ledger.lost_while_planned += int(self.planned[segments].sum())
        self.ledger.dropped += int(self.good_count[segments].sum())
        self._fresh(segments)

    def _fresh(self, segments: Array) -> None:
        """New segments, whole."""
        n = self.scheme.n
        slots = (segments[:, None] * n + np.arange(n)).ravel()
        self.life[segments] += 1
        self.watch[segments] += 1
        self.planned[segments] = False
        self.good[slots] = self.believed[slots] = False
        self.holder[slots] = -1
        self.good_count[segments] = self.believed_count[segments] = 0
        self._store(segments, offline_too=True)
        self._plan(segments[self.believed_count[segments] < self.scheme.repair_below], 24.0)

    # -- repair

    def _plan(self, segments: Array, delay_h: float | None = None) -> None:
        """Repairs of segments that have none planned: those with the fewest shares first, by all nodes of the network that are there.

        A simulated segment stands for very many, so its repair, which reads k shares and writes what is missing, is work for all of them together.
        """
        if not len(segments):
            return
        self.planned[segments] = True
        self.planned_at[segments] = self.now
        self.ledger.planned += len(segments)
        if delay_h is not None:
            self._batch(self.now + delay_h, segments)
            return
        if not self.share_h:
            self._batch(self.now + self.world.rebuild_h, segments)
            return
        order = segments[np.argsort(self.believed_count[segments], kind="stable")]
        work_h = (self.scheme.k + self.scheme.n - self.believed_count[order]) * self.share_h
        done = np.empty(len(order))
        for network in np.unique(self.network[order]).tolist():
            own = np.flatnonzero(self.network[order] == network)
            workers = self.per_network - int(self.away[network * self.per_network : (network + 1) * self.per_network].sum())
            done[own] = max(self.free_at[network], self.now) + np.cumsum(work_h[own]) / max(workers, 1)
            self.free_at[network] = done[own[-1]]
        hours = np.ceil(done + self.world.rebuild_h)
        for hour in np.unique(hours).tolist():
            self._batch(hour, order[hours == hour])

    def _batch(self, time_h: float, segments: Array) -> None:
        """Repairs that end at one time are done together."""
        if time_h not in self._batches:
            self._batches[time_h] = []
            self._at(time_h, partial(self._repair, time_h))
        self._batches[time_h].append((segments, self.life[segments]))

    def _repair(self, time_h: float) -> None:
        parts = self._batches.pop(time_h)
        segments, lives = np.concatenate([one for one, _ in parts]), np.concatenate([one for _, one in parts])
        segments = np.sort(segments[self.planned[segments] & (self.life[segments] == lives)])
        if not len(segments):
            return
        k, n = self.scheme.k, self.scheme.n
        self.planned[segments] = False
        missing = n - self.believed_count[segments]
        self.ledger.needless += int((missing == 0).sum())
        segments, missing = segments[missing > 0], missing[missing > 0]
        slots = segments[:, None] * n + np.arange(n)
        sources = (self.good[slots] & self._online()[self.holder[slots]]).sum(axis=1)
        ready = sources >= k
        before = self.believed_count[segments]
        placed = self._store(segments[ready])
        helped = self.believed_count[segments] > before
        self.ledger.done += int(helped.sum())
        self.ledger.put_off += int((~helped).sum())
        if self._measured:
            self.tally.repairs += int(helped.sum())
            self.tally.shares_read += k * int(helped.sum())
            self.tally.shares_written += placed
            self.tally.repair_wait_h += float((self.now - self.planned_at[segments[helped]]).sum())
        self._again(segments[~ready], 1.0)
        tried = segments[ready]
        self._again(tried[self.believed_count[tried] < self.scheme.repair_below], 24.0)
        self._expect(tried[(self.good_count[tried] < self.scheme.repair_below) & (self.believed_count[tried] >= self.scheme.repair_below)], None)

    def _again(self, segments: Array, delay_h: float) -> None:
        """Repairs that found too few sources or places are tried again."""
        if self._measured:
            self.tally.delayed += len(segments)
        self._expect(segments, delay_h)
        self._plan(segments, delay_h)

    def _online(self) -> Array:
        """Which nodes answer at this moment."""
        if not self.world.offline:
            return ~self.away
        online: Array = ~self.away & (self.random.random(self.world.nodes) >= self.world.offline)
        return online

    # -- placement

    def _store(self, segments: Array, offline_too: bool = False) -> int:
        """New shares for all that are not believed, on nodes of other owners and prefixes than the rest. Returns how many found a place."""
        rows = max(CELLS // self.per_network, 1)
        return sum(self._store_some(segments[first : first + rows], offline_too) for first in range(0, len(segments), rows))

    def _store_some(self, segments: Array, offline_too: bool) -> int:
        n, size = self.scheme.n, self.per_network
        slots = segments[:, None] * n + np.arange(n)
        lines = np.arange(len(segments))
        first = self.network[segments] * size
        nodes = first[:, None] + np.arange(size)
        owner, prefix = self.owner[nodes], self.prefix[nodes]
        score = self.random.random(nodes.shape)
        if not offline_too:
            score[self.away[nodes]] = -1.0
        holders = self.holder[slots]
        line, slot = np.nonzero(holders >= 0)
        for places, of_node in ((self.owner, owner), (self.prefix, prefix)):
            taken = np.zeros((len(segments), size), bool)
            taken[line, places[holders[line, slot]] - first[line]] = True
            score[np.take_along_axis(taken, of_node - first[:, None], axis=1)] = -1.0
        missing = ~self.believed[slots]
        needed = missing.sum(axis=1)
        turn = np.argsort(~missing, axis=1, kind="stable")  # the missing slots of each segment first
        placed = 0
        for number in range(int(needed.max(initial=0))):
            pick = score.argmax(axis=1)
            can = (score[lines, pick] >= 0) & (needed > number)
            if not can.any():
                break
            who, node = lines[can], nodes[lines[can], pick[can]]
            where = slots[who, turn[who, number]]
            superseded = int(self.good[where].sum())
            self.ledger.superseded += superseded
            self.good_count[segments[who]] += ~self.good[where]
            self.holder[where] = node
            self.good[where] = self.believed[where] = True
            self.notice_at[where] = math.inf
            self.believed_count[segments[who]] += 1
            placed += len(where)
            score[(owner == np.where(can, owner[lines, pick], -1)[:, None]) | (prefix == np.where(can, prefix[lines, pick], -1)[:, None])] = -1.0
        self.ledger.made += placed
        return placed

    # -- what was to be expected

    def _expect(self, segments: Array, window_h: float | None) -> None:
        """Adds the chance that each of the segments is lost by further deaths before its repair, given who holds it now.

        The window is given, or ends when so much is noticed that the repair is planned, and it is done; a longer one than further deaths need to be
        noticed and repaired is looked at piece by piece. An end of the sum (a Poisson-binomial's
        tail) instead of a draw: nothing has to be lost for the expectation to be known.
        """
        if not len(segments):
            return
        k, n, below = self.scheme.k, self.scheme.n, self.scheme.repair_below
        slots = segments[:, None] * n + np.arange(n)
        good = self.good[slots]
        if window_h is None:
            gone = np.where(good & self.believed[slots], math.inf, np.where(self.believed[slots], self.notice_at[slots], self.now))
            gone.sort(axis=1)
            needed_h = self.world.rebuild_h + np.maximum(self.free_at[self.network[segments]] - self.now, 0.0)
            window = np.maximum(gone[:, n - below] - self.now, 0.0) + needed_h
            known_h = np.maximum(self.world.detection_h + needed_h, 1.0)
            self.watch[segments] += 1
            late = np.flatnonzero(window > known_h)
            if len(late):
                self._at(self.now + float(known_h[late].min()), partial(self._expect_more, segments[late], self.watch[segments[late]]))
                window[late] = known_h[late].min()
        else:
            window = np.full(len(segments), window_h)
        deaths = np.where(good, self.hazard[self.holder[slots]] * window[:, None], math.inf)
        dead, alive = -np.expm1(-deaths), np.exp(-deaths)
        left = np.zeros((len(segments), k))  # the chance of 0 to k - 1 that live
        left[:, 0] = 1.0
        for slot in range(n):
            more = left[:, :-1] * alive[:, slot, None]
            left *= dead[:, slot, None]
            left[:, 1:] += more
        if self._measured:
            self.tally.chance[self._block()] += float(left.sum())

    def _expect_more(self, segments: Array, watch: Array) -> None:
        """Goes on with windows that were longer than a further death needs to be known and repaired, unless a later one has begun."""
        self._expect(segments[(self.watch[segments] == watch) & (self.good_count[segments] < self.scheme.repair_below)], None)

    def _look(self) -> None:
        """At a sampled moment: which segments can be read, and which the failure of one region would lose."""
        k, n = self.scheme.k, self.scheme.n
        held = np.flatnonzero(self.good)
        online = held[self._online()[self.holder[held]]]
        self.tally.seen += self.world.segments
        self.tally.unavailable += int((np.bincount(online // n, minlength=self.world.segments) < k).sum())
        if self.world.region_failures_per_year:
            there = np.bincount(held // n * REGIONS + self.region[self.holder[held]], minlength=self.world.segments * REGIONS)
            lost = int((self.good_count[:, None] - there.reshape(-1, REGIONS) < k).sum())
            sampled_years = (self.end - self.start) / HOURS_PER_YEAR / (LOOKS * BLOCKS)
            self.tally.regional[self._block()] += lost * self.world.region_failures_per_year * sampled_years
        self._looks += 1
        if self._looks % LOOKS == 0:
            self.check()

    def check(self) -> None:
        """Raises AssertionError when anything does not add up. It is called in each part of the time and at the end."""
        k, n, ledger = self.scheme.k, self.scheme.n, self.ledger
        good, believed = self.good.reshape(-1, n), self.believed.reshape(-1, n)
        assert (good.sum(axis=1) == self.good_count).all(), "good shares were counted wrongly"
        assert (believed.sum(axis=1) == self.believed_count).all(), "believed shares were counted wrongly"
        assert (self.good_count >= k).all(), "a segment is lost and still there"
        assert (self.holder[self.good] >= 0).all(), "a good share is nowhere"
        assert self.planned[self.believed_count < self.scheme.repair_below].all(), "a segment is below its threshold and no repair is planned"
        assert ledger.made == int(self.good.sum()) + ledger.spoiled + ledger.superseded + ledger.dropped, "shares appeared or vanished"
        ended = ledger.done + ledger.needless + ledger.put_off + ledger.lost_while_planned
        assert ledger.planned == ended + int(self.planned.sum()), "a repair was done twice or never"
        for places in (self.owner, self.prefix):
            held = np.sort(np.where(self.holder >= 0, places[self.holder], -1 - np.arange(len(self.holder))).reshape(-1, n), axis=1)
            assert (held[:, 1:] != held[:, :-1]).all(), "two shares of a segment share an owner or a prefix"
