"""Random histories, and what every one of them must keep.

``history(seed)`` draws operations from a seed, by what a model says is possible; some are not, and must be refused. ``check`` runs them in a world
beside the model and holds the two together after each, to the last unit, and then what was promised, from what is seen of the world alone.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import pairwise

from tests.economics.model import STOS, WEI_PER_NOZ, Model, Rules
from tests.economics.operations import (
    Add,
    Claim,
    Create,
    Effective,
    Leave,
    Operation,
    Paid,
    Prepay,
    Refused,
    Report,
    Seen,
    Slash,
    Suspend,
    Wait,
    World,
)

OPERATIONS = 30
WALLETS = 5
DEPOSITS_WEI = (1, WEI_PER_NOZ - 1, 10**9, STOS, 1_000 * STOS, 100_000 * STOS)
PAYMENTS_WEI = (10**8, 10**12, STOS, 1_000 * STOS, 200_000 * STOS)


def rules_of(seed: int) -> Rules:
    """Of every history the same but for what was mined before: each tier has its turn, and the end of mining."""
    return Rules(mined_wei=(0, 16_819_200 * STOS, 25_228_800 * STOS, 30_000_000 * STOS, 32_000_000 * STOS, 39_999_999 * STOS)[seed % 6])


class Generator:
    """Draws operations and lets its own model tell what they lead to."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.model = Model(rules_of(seed))
        self.next_node = 0

    def operations(self, count: int) -> Iterator[Operation]:
        """``count`` draws; a draw may be several operations."""
        # Two meta nodes, so that one may leave, and a resource node; the first deposit is where S = 0.
        for draw in (self._meta, self._meta, self._resource, self._effective):
            yield from self._told(draw())
        kinds = {
            self._meta: 1,
            self._resource: 3,
            self._add: 2,
            self._effective: 6,
            self._suspend: 3,
            self._slash: 2,
            self._leave: 4,
            self._wait: 5,
            self._prepay: 10,
            self._claim: 3,
            self._report: 12,
            self._twins: 4,
            self._own_traffic: 4,
            self._nonsense: 4,
        }
        draws = list(kinds)
        for draw in self.random.choices(draws, list(kinds.values()), k=count):
            yield from self._told(draw())

    def _told(self, operations: Iterator[Operation]) -> Iterator[Operation]:
        for operation in operations:
            yield operation
            try:
                self.last = self.model.apply(operation)
            except Refused:
                self.last = Paid()

    def _amount(self, of: tuple[int, ...]) -> int:
        return self.random.randint(1, self.random.choice(of))

    def _meta(self) -> Iterator[Operation]:
        self.next_node += 1
        yield Create(self.next_node, self._amount(DEPOSITS_WEI), True)

    def _resource(self) -> Iterator[Operation]:
        self.next_node += 1
        yield Create(self.next_node, self._amount(DEPOSITS_WEI))

    def _node(self, *, meta: bool | None = None) -> int:
        """A node that is there, if any is."""
        fitting = [number for number, node in self.model.nodes.items() if meta is None or node.is_meta == meta]
        return self.random.choice(fitting or [0])

    def _add(self) -> Iterator[Operation]:
        yield Add(self._node(), self._amount(DEPOSITS_WEI))

    def _effective(self) -> Iterator[Operation]:
        number = self._node(meta=False)
        node = self.model.nodes.get(number)
        yield Effective(number, self.random.choice((node.tokens_wei, self.random.randint(1, max(1, node.tokens_wei)))) if node else 1)

    def _suspend(self) -> Iterator[Operation]:
        yield Suspend(self._node(meta=False))

    def _slash(self) -> Iterator[Operation]:
        yield Slash(self._node(meta=False), self._volume(self.model.supply_noz))

    def _leave(self) -> Iterator[Operation]:
        metas = self.model.metas()
        number = self._node(meta=False) if len(metas) < 2 or self.random.random() < 0.8 else self.random.choice(metas)
        yield Leave(number)

    def _wait(self) -> Iterator[Operation]:
        yield Wait(self.random.choice((1, 60, 100, 400)))

    def _prepay(self) -> Iterator[Operation]:
        yield Prepay(self._amount(PAYMENTS_WEI))

    def _claim(self) -> Iterator[Operation]:
        yield Claim(self._volume(self.model.remaining_noz // 2))

    def _volume(self, most: int) -> int:
        """From 1 to ``most``, of any order of magnitude."""
        return max(1, min(most, self.random.randint(1, 10 ** self.random.randint(1, max(1, len(str(most)))))))

    def _work(self, bought: int, granted: int) -> tuple[tuple[int, int, int], ...]:
        """So many bought and granted noz, as the work of some wallets."""
        wallets = sorted(self.random.sample(range(WALLETS), self.random.randint(1, WALLETS)))
        parts = [(self._split(bought, len(wallets))), self._split(granted, len(wallets))]
        return tuple((wallet, own + promo, promo) for wallet, own, promo in zip(wallets, *parts, strict=True))

    def _split(self, total: int, count: int) -> list[int]:
        cuts = sorted(self.random.randint(0, total) for _ in range(count - 1))
        return [end - start for start, end in pairwise([0, *cuts, total])]

    def _bought(self) -> int:
        """Sold, not granted, and not reported."""
        return self.model.outstanding_noz - self.model.promo_noz

    def _part(self, most: int) -> int:
        """None, some or all of it."""
        return self.random.choice((0, most, self._volume(most), self._volume(most))) if most > 0 else 0

    def _report(self) -> Iterator[Operation]:
        expired = self.random.choice((0, 0, 0, self.random.randint(0, self.model.promo_noz)))
        yield Report(self._work(self._part(self._bought()), self._part(self.model.promo_noz - expired)), expired)

    def _twins(self) -> Iterator[Operation]:
        """Two equal reports, often just after a leaving."""
        if self.random.random() < 0.5:
            yield from self._leave()
            yield Wait(500)
        work = self._work(self._part(self._bought() // 2), 0)
        yield Report(work)
        yield Report(work, twin=True)

    def _own_traffic(self) -> Iterator[Operation]:
        """Deposit, buy and report, with nobody in between and while the deposit counts."""
        if self.random.random() < 0.7:
            yield from self._resource()
            yield Effective(self.next_node, self.model.nodes[self.next_node].tokens_wei)
        paid = self._amount(PAYMENTS_WEI)
        yield Prepay(paid)
        bought = self.last.noz
        yield Report(((0, self.random.choice((bought, min(bought, self._volume(bought)))), 0),), at_most_wei=paid)

    def _nonsense(self) -> Iterator[Operation]:
        """What must be refused, mostly."""
        model = self.model
        yield self.random.choice(
            (
                Prepay(0),
                Prepay(1),
                Claim(model.remaining_noz),
                Claim(model.remaining_noz + 1),
                Report(((0, model.outstanding_noz + 1, 0),)),
                Report(((0, 10**30, 0),)),
                Report(((0, self._bought() + 1, 0),)),
                Report(((0, self._bought() + model.promo_noz, model.promo_noz), (1, 1, 0))),
                Report(((0, 1, 2),)),
                Report(((0, 0, 0),), expired_noz=model.promo_noz + 1),
                Effective(self._node(meta=False), 10**27),
                Effective(self._node(meta=True), 1),
                Leave(self.next_node + 5),
                Add(self._node(), 0),
            )
        )


def history(seed: int, count: int = OPERATIONS) -> Iterator[Operation]:
    """The same operations for the same seed."""
    return Generator(seed).operations(count)


class Promises:
    """What docs/economics.md promises, held against what is seen before and after each operation."""

    def __init__(self) -> None:
        self.sold_noz = 0
        """Less what was reported or has expired."""
        self.changes = 0
        """Of deposits, that moved S up or down at once."""
        self.met: Counter[str] = Counter()
        """How often a promise was at stake."""
        self.last_value: tuple[int, int] | None = None
        """Of the last report: what left Pt, and its part of Pt before it (wei)."""

    def after(self, operation: Operation, before: Seen, after: Seen, paid: Paid) -> None:
        assert after.remaining_noz >= 0, "Lt is below zero"
        assert after.deposit_wei == after.effective_wei + after.leaving_wei + after.pending_wei, "S is not the sum of its parts"
        match operation:
            case Create() | Add() | Effective():
                self.changes += after.deposit_wei != before.deposit_wei
            case Prepay() | Claim():
                self.sold_noz += paid.noz
            case Report():
                self._report(operation, before, after, paid)
            case Suspend():
                assert after == _with(before, effective_wei=after.effective_wei, leaving_wei=after.leaving_wei), "a suspension moved a sum"
            case Leave() | Wait():
                assert (outstanding(after), after.prepaid_wei) == (outstanding(before), before.prepaid_wei), "a leaving took from what is sold"
            case Slash():
                assert (outstanding(after), after.prepaid_wei) == (outstanding(before), before.prepaid_wei), "a slash took from what is sold"
        self.met["all sold"] += after.remaining_noz == 0 < after.deposit_wei
        self.met["pending"] += after.pending_wei >= WEI_PER_NOZ
        assert after.promo_noz <= outstanding(after), "granted ozone has nothing behind it"
        gap = Fraction(after.deposit_wei, WEI_PER_NOZ) - after.remaining_noz - self.sold_noz
        assert 0 <= gap <= self.changes, f"{float(gap)} noz are neither for sale nor sold, after {self.changes} changes of deposits"

    def _report(self, report: Report, before: Seen, after: Seen, paid: Paid) -> None:
        self.sold_noz -= report.volume_noz + report.expired_noz
        assert after.prepaid_wei * outstanding(before) >= before.prepaid_wei * outstanding(after), "a report lowered Pt ÷ A"
        assert before.prepaid_wei - after.prepaid_wei == paid.spent_wei + paid.refund_wei, "what left Pt is not what was paid"
        if report.at_most_wei is not None and report.volume_noz > 0:
            self.met["own traffic"] += 1
            assert paid.spent_wei <= report.at_most_wei, "own traffic was worth more than it cost"
        part = before.prepaid_wei * report.volume_noz // outstanding(before) if outstanding(before) > 0 else 0
        # Of what is spent: a wei for each kind of receiver and each payment, one for the community, one for R itself.
        rounding = 5 + len(paid.rewards)
        if report.twin and self.last_value is not None and report.volume_noz > 0:
            first, first_part = self.last_value
            assert part >= first_part, "a report lowered the part of the next one"
            assert paid.spent_wei <= first + 2 * rounding, "the second of two equal reports got more than the first"
            by_part = paid.spent_wei >= part - rounding
            self.met["twins by part" if by_part else "twins by price"] += 1
            if by_part:
                assert paid.spent_wei >= first - 2 * rounding, "the part of Pt decided, and the second of two equal reports got less"
        self.last_value = (paid.spent_wei, part)


def outstanding(seen: Seen) -> int:
    """A."""
    return seen.deposit_wei // WEI_PER_NOZ - seen.remaining_noz


def _with(seen: Seen, *, effective_wei: int, leaving_wei: int) -> Seen:
    return Seen(
        seen.deposit_wei,
        seen.remaining_noz,
        seen.prepaid_wei,
        seen.pending_wei,
        effective_wei,
        leaving_wei,
        seen.tokens_wei,
        seen.promo_noz,
        seen.promo_cost_wei,
    )


def check(seed: int, world: World, count: int = OPERATIONS, *, beside_model: bool = True) -> Counter[str]:
    """Run a history in ``world`` beside a model (or without: the promises alone). Returns how many of each operation were done, and how often a promise
    was at stake. Raises AssertionError."""
    model, promises = Model(rules_of(seed)), Promises()
    done: Counter[str] = Counter()
    after = world.seen()
    for number, operation in enumerate(history(seed, count)):
        before = after
        told, found = _attempt(model, operation), _attempt(world, operation)
        after = world.seen()
        where = f"operation {number}, {operation}"
        if beside_model:
            assert isinstance(told, Refused) or not isinstance(found, Refused), f"{where}: the model does it, the world refuses: {found}"
            assert isinstance(found, Refused) or not isinstance(told, Refused), f"{where}: the model refuses it, the world does it"
            assert after == model.seen(), f"{where}: {after} is not {model.seen()}"
        name = type(operation).__name__
        if isinstance(found, Refused):
            assert after == before, f"{where}: was refused and changed something"
            done["refused"] += 1
            continue
        assert found == told or not beside_model, f"{where}: {found} is not {told}"
        try:
            promises.after(operation, before, after, found)
        except AssertionError as error:
            raise AssertionError(f"{where}: {error}") from error
        done[name] += 1
    assert not world.broken(), world.broken()
    return done + promises.met


def check_many(world: Callable[[Rules], World], count: int, seed: int = 0, operations: int = OPERATIONS) -> dict[str, int]:
    """Figures of ``count`` histories, each in a new world. AssertionError names the seed of the first that differs."""
    done: Counter[str] = Counter()
    for number in range(seed, seed + count):
        try:
            done += check(number, world(rules_of(number)), operations)
        except AssertionError as error:
            raise AssertionError(f"history with seed {number}: {error}") from error
    return {"histories": count, **{name.lower().replace(" ", "_"): times for name, times in sorted(done.items())}, "differences": 0}


def _attempt(world: World | Model, operation: Operation) -> Paid | Refused:
    try:
        return world.apply(operation)
    except Refused as refused:
        return refused
