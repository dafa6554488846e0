"""The economy as storage-protocol.md 1.3 to 1.5 tell it, slow and plain, with arithmetic of its own: whole numbers and fractions, no line of the
modules.

S, Lt, Pt and what is pending are sums that rules move; next to them every node is kept with all that it deposited, so S can be added up anew.
Rounding, where the text leaves it open: whatever is paid is rounded down to wei; R is a decimal of 18 places, half to even (as the SDK divides: cut at
36 places first); parts of R are cut at 18 places; a tax is rounded at 18 places, half to even. A deposit makes whole noz. What leaves takes whole noz.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from math import floor
from typing import Final

from tests.economics.operations import Add, Claim, Create, Effective, Leave, Operation, Paid, Prepay, Refused, Report, Seen, Slash, Suspend, Wait

STOS: Final = 10**18
WEI_PER_NOZ: Final = 10**6
PLACES: Final = 10**18
# What was mined before from (stos), reward of an epoch, percent of the resource nodes and of the meta nodes; 20 percent are the chain's.
TIERS: Final = (
    (0, Fraction(80), 60, 20),
    (16_819_200, Fraction(40), 62, 18),
    (25_228_800, Fraction(20), 64, 16),
    (29_433_600, Fraction(10), 66, 14),
    (31_536_000, Fraction(5), 68, 12),
    (32_587_200, Fraction(5, 2), 70, 10),
)
END_OF_MINING: Final = 40_000_000


@dataclass(frozen=True)
class Rules:
    """``tax``: the community's part of traffic rewards; ``cap``: κ. A node leaves ``completion_s`` after it asked, and not earlier than
    ``threshold_s`` and that after its creation."""

    tax: Fraction = Fraction(2, 100)
    cap: Fraction = Fraction(4, 10)
    threshold_s: int = 300
    completion_s: int = 100
    foundation_wei: int = 40_000_000 * STOS
    mined_wei: int = 0


@dataclass
class Node:
    is_meta: bool
    created_s: int
    tokens_wei: int
    effective_wei: int = 0
    """What it works with; 0 while suspended."""
    counted_wei: int = 0
    """Its part of S."""
    leaves_s: int | None = None
    """When all of it is paid back, and stops to count."""


@dataclass
class Model:
    rules: Rules = field(default_factory=Rules)
    now_s: int = 0
    deposit_wei: int = 0
    remaining_noz: int = 0
    prepaid_wei: int = 0
    pending_wei: int = 0
    promo_noz: int = 0
    promo_cost_wei: int = 0
    mined_wei: int = 0
    foundation_wei: int = 0
    nodes: dict[int, Node] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.foundation_wei, self.mined_wei = self.rules.foundation_wei, self.rules.mined_wei

    # What a generator asks

    @property
    def supply_noz(self) -> int:
        return self.deposit_wei // WEI_PER_NOZ

    @property
    def outstanding_noz(self) -> int:
        """A."""
        return self.supply_noz - self.remaining_noz

    def metas(self) -> list[int]:
        return [number for number, node in self.nodes.items() if node.is_meta and node.leaves_s is None]

    def seen(self) -> Seen:
        nodes = self.nodes.values()
        working = sum(node.effective_wei for node in nodes if node.leaves_s is None)
        counted = sum(node.counted_wei for node in nodes)
        assert self.deposit_wei == counted + self.pending_wei, "the model's own S"
        return Seen(
            self.deposit_wei,
            self.remaining_noz,
            self.prepaid_wei,
            self.pending_wei,
            working,
            counted - working,
            sum(node.tokens_wei for node in nodes),
            self.promo_noz,
            self.promo_cost_wei,
        )

    # What happens

    def apply(self, operation: Operation) -> Paid:
        match operation:
            case Create(number, deposit_wei, is_meta):
                return self._create(number, deposit_wei, is_meta)
            case Add(number, more_wei):
                return self._add(number, more_wei)
            case Effective(number, effective_wei):
                return self._effective(number, effective_wei)
            case Suspend(number):
                return self._suspend(number)
            case Slash(number, noz):
                return self._slash(number, noz)
            case Leave(number):
                return self._leave(number)
            case Wait(seconds):
                return self._wait(seconds)
            case Prepay(paid_wei):
                return self._prepay(paid_wei)
            case Claim(noz):
                return self._claim(noz)
            case Report():
                return self._report(operation)

    def _create(self, number: int, deposit_wei: int, is_meta: bool) -> Paid:
        _require(deposit_wei > 0 and number not in self.nodes)
        node = self.nodes[number] = Node(is_meta, self.now_s, deposit_wei)
        if is_meta:
            node.effective_wei = node.counted_wei = deposit_wei
            self._raise(deposit_wei)
        return Paid()

    def _add(self, number: int, more_wei: int) -> Paid:
        node = self._staying(number)
        _require(more_wei > 0)
        node.tokens_wei += more_wei
        if node.is_meta:
            node.effective_wei += more_wei
            node.counted_wei += more_wei
            self._raise(more_wei)
        return Paid()

    def _effective(self, number: int, effective_wei: int) -> Paid:
        node = self._staying(number)
        _require(not node.is_meta and 0 < effective_wei <= node.tokens_wei)
        change = effective_wei - node.counted_wei
        node.effective_wei = node.counted_wei = effective_wei
        if change > 0:
            self._raise(change)
        elif change < 0:
            self._lower(-change)
        return Paid()

    def _suspend(self, number: int) -> Paid:
        node = self.nodes.get(number)
        if node is None or node.is_meta:
            raise Refused
        node.effective_wei = 0
        return Paid()

    def _slash(self, number: int, noz: int) -> Paid:
        node = self.nodes.get(number)
        if node is None:
            raise Refused
        _require(noz >= 0 and self.remaining_noz + noz > 0)
        taken = min(floor(self.traffic_value(noz)), node.tokens_wei)
        node.tokens_wei -= taken
        node.effective_wei = min(node.effective_wei, node.tokens_wei)
        lost = max(0, node.counted_wei - node.tokens_wei)
        node.counted_wei -= lost
        self._lower(lost)
        if node.tokens_wei == 0:
            del self.nodes[number]
        return Paid(slashed_wei=taken)

    def _leave(self, number: int) -> Paid:
        node = self._staying(number)
        node.leaves_s = max(self.now_s, node.created_s + self.rules.threshold_s) + self.rules.completion_s
        return Paid()

    def _wait(self, seconds: int) -> Paid:
        self.now_s += seconds
        for number, node in list(self.nodes.items()):
            if node.leaves_s is not None and node.leaves_s <= self.now_s:
                del self.nodes[number]
                self._lower(node.counted_wei)
        return Paid()

    def _prepay(self, paid_wei: int) -> Paid:
        _require(paid_wei > 0 and self.remaining_noz > 0)
        noz = floor(Fraction(self.remaining_noz * paid_wei, self.deposit_wei + self.prepaid_wei + paid_wei))
        _require(noz > 0)
        self.prepaid_wei += paid_wei
        self.remaining_noz -= noz
        return Paid(noz=noz)

    def _claim(self, noz: int) -> Paid:
        _require(0 < noz < self.remaining_noz)
        cost = -floor(-Fraction((self.deposit_wei + self.prepaid_wei) * noz, self.remaining_noz - noz))
        self.prepaid_wei += cost
        self.remaining_noz -= noz
        self.promo_noz += noz
        self.promo_cost_wei += cost
        return Paid(noz=noz, cost_wei=cost)

    def _report(self, report: Report) -> Paid:
        volume, promo = report.volume_noz, sum(granted for _, _, granted in report.work)
        metas = self.metas()
        _require(bool(metas) and all(0 <= granted <= all_noz for _, all_noz, granted in report.work))
        _require(promo + report.expired_noz <= self.promo_noz)
        # Bought work needs bought ozone, so what was granted keeps its own.
        _require(volume - promo <= self.outstanding_noz - self.promo_noz)
        refund = self._forget_promo(promo, report.expired_noz)
        spent, mined, rewards = self._pay(report, volume, volume - promo, metas) if volume else (0, 0, dict[tuple[str, int], tuple[int, int]]())
        self.prepaid_wei -= spent
        self.foundation_wei -= mined
        self.mined_wei += mined
        self._return(volume)
        return Paid(refund_wei=refund, spent_wei=spent, mined_wei=mined, rewards=rewards)

    def _forget_promo(self, used_noz: int, expired_noz: int) -> int:
        """Granted noz are used or expire, together with their part of the cost; returns what an expiry gives back."""
        if used_noz + expired_noz == 0:
            return 0
        refund = 0
        if expired_noz:
            cost = floor(Fraction(self.promo_cost_wei * expired_noz, self.promo_noz))
            refund = min(floor(self.traffic_value(expired_noz)), floor(Fraction(self.prepaid_wei * expired_noz, self.outstanding_noz)), cost)
        self.promo_cost_wei -= floor(Fraction(self.promo_cost_wei * (used_noz + expired_noz), self.promo_noz))
        self.promo_noz -= used_noz + expired_noz
        self.prepaid_wei -= refund
        self._return(expired_noz)
        return refund

    def traffic_value(self, volume_noz: int) -> Fraction:
        """R."""
        by_price = _half_even(Fraction((self.deposit_wei + self.prepaid_wei) * volume_noz, self.remaining_noz + volume_noz))
        if self.outstanding_noz == 0:
            return by_price
        return min(by_price, Fraction(floor(Fraction(self.prepaid_wei * volume_noz, self.outstanding_noz))))

    def _pay(self, report: Report, volume: int, bought: int, metas: list[int]) -> tuple[int, int, dict[tuple[str, int], tuple[int, int]]]:
        value = self.traffic_value(volume)
        reward, resource, meta = self._tier()
        mining = min(floor(reward), floor(self.rules.cap * value * Fraction(bought, volume)))
        chain_traffic, chain_mining = floor(value * 20 / 100), mining * 20 // 100
        resource_traffic, resource_mining = floor(value * resource / 100), mining * resource // 100
        meta_traffic, meta_mining = floor(value * meta / 100), mining * meta // 100
        rewards = dict[tuple[str, int], tuple[int, int]]()
        taxes = Fraction(0)

        def pay(receiver: tuple[str, int], mined: int, gross: Fraction) -> None:
            nonlocal taxes
            gross = _cut(gross)
            tax = _half_even(gross * self.rules.tax)
            taxes += tax
            before = rewards.get(receiver, (0, 0))
            rewards[receiver] = (before[0] + mined, before[1] + floor(gross - tax))

        for wallet, noz, granted in report.work:
            own = floor(Fraction(resource_mining * (noz - granted), bought)) if bought else 0
            pay(("wallet", wallet), own, Fraction(resource_traffic * noz, volume))
        for number in metas:
            pay(("meta", number), meta_mining // len(metas), Fraction(meta_traffic, len(metas)))
        spent = chain_traffic + sum(traffic for _, traffic in rewards.values()) + floor(taxes)
        mined = chain_mining + sum(own for own, _ in rewards.values())
        rewards = {receiver: both for receiver, both in rewards.items() if any(both)}
        _require(mined <= self.foundation_wei and spent <= self.prepaid_wei)
        return spent, mined, rewards

    def _tier(self) -> tuple[Fraction, int, int]:
        """Reward of the epoch in wei, percent of resource nodes and of meta nodes."""
        found = TIERS[0]
        for tier in TIERS:
            if self.mined_wei >= tier[0] * STOS:
                found = tier
        left = max(0, END_OF_MINING * STOS - self.mined_wei)
        return min(found[1] * STOS, Fraction(left)), found[2], found[3]

    # How S and Lt move

    def _raise(self, amount_wei: int) -> None:
        self.deposit_wei += amount_wei
        self.remaining_noz += amount_wei // WEI_PER_NOZ
        self._settle()

    def _lower(self, amount_wei: int) -> None:
        self.pending_wei += amount_wei
        self._settle()

    def _return(self, noz: int) -> None:
        self.remaining_noz += noz
        self._settle()

    def _settle(self) -> None:
        """S and Lt fall together; what does not fit waits."""
        noz = min(self.pending_wei // WEI_PER_NOZ, self.remaining_noz)
        self.remaining_noz -= noz
        self.deposit_wei -= noz * WEI_PER_NOZ
        self.pending_wei -= noz * WEI_PER_NOZ

    def _staying(self, number: int) -> Node:
        node = self.nodes.get(number)
        if node is None or node.leaves_s is not None:
            raise Refused
        return node


def _require(holds: bool) -> None:
    if not holds:
        raise Refused


def _cut(value: Fraction) -> Fraction:
    return Fraction(floor(value * PLACES), PLACES)


def _half_even(value: Fraction) -> Fraction:
    return Fraction(round(Fraction(floor(value * PLACES * PLACES), PLACES)), PLACES)
