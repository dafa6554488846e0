"""How likely a segment is lost, by formula: what the schemes of the storage protocol promise, what repair costs, and what `ppd status FILE` says of a file.

    n healthy ──shares die, one by one──► repair_below - 1 ──window: detection, queue, rebuilding──► n again
                                                └── fewer than k left before the window is over ──► lost

**The model.** Shares die independently at one rate λ, as exponential lifetimes do. From the death that takes a segment below its threshold a window of
fixed length runs; at its end every missing share is back, unless fewer than k are left. So a segment's life is a row of equal cycles, and all that is
asked of it has a closed form or one integral. What the model leaves out (places that fail together, nodes that are younger and die sooner, repairs that
wait, damage that nobody has seen yet) is in the simulator, `bench/durability.py`, which is held against these formulas; docs/durability.md has both.

Nothing here is consensus: sums are exact for fractions and floats otherwise. Sources: storage-interfaces.md 3.3 and 9; storage-protocol.md 3.2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from operator import mul
from typing import Final, TypeVar

from sds_node.schemes import MAX_OBJECT_BYTES, SEGMENT_BYTES, Scheme, is_lost, needs_repair

HOURS_PER_YEAR: Final = 8_760
DAYS_PER_YEAR: Final = 365
DETECTION_H: Final = 24
"""A node that is offline for longer counts as lost for the planning of repair (storage-interfaces.md 9)."""
REBUILD_H: Final = 6
"""From the plan to the last share that is synced and acknowledged, when no repair waits for another."""
WINDOW_H: Final = DETECTION_H + REBUILD_H

MAX_SHARES: Final = 256
"""A code over GF(2^8) has no more."""
MAX_RATE: Final = 10_000.0
"""Deaths of a share per year: one lives 53 minutes. Beyond it nothing is stored."""
MAX_WINDOW_H: Final = HOURS_PER_YEAR
MAX_DAYS: Final = 3_650
MAX_COUNT: Final = 1 << 40
"""Of node-days and of lost nodes."""
STEPS: Final = 400
"""Of the integral over the time ahead, and at least 16 in a cycle; half as many change a result by about a hundredth of it."""
MAX_STEPS: Final = 3_000
"""Of it: beyond, churn is so fast and the time so long that hardly anything is left to be told apart."""
EXACT_COUNT: Final = 1_000
"""Up to so many lost nodes the bound on churn is found exactly, beyond by Wilson and Hilferty's formula, which is then within 10^-5."""

Number = TypeVar("Number", float, Fraction)


class DurabilityError(Exception):
    """A number outside what the formulas are for; the message says what was expected and what came."""


def _check_scheme(scheme: Scheme) -> None:
    if not 1 <= scheme.k <= scheme.repair_below <= scheme.n <= MAX_SHARES:
        raise DurabilityError(
            f"a scheme has 1 ≤ k ≤ repair_below ≤ n ≤ {MAX_SHARES}; k {scheme.k}, repair_below {scheme.repair_below}, n {scheme.n} came"
        )


def _check_rate(rate_per_year: float) -> None:
    if not 0 <= rate_per_year <= MAX_RATE:
        raise DurabilityError(f"a rate is from 0 to {MAX_RATE:.0f} deaths per share and year, not {rate_per_year}")


def _check_window(window_h: float) -> None:
    if not 0 <= window_h <= MAX_WINDOW_H:
        raise DurabilityError(f"a window of repair is from 0 to {MAX_WINDOW_H} hours, not {window_h}")


def _check_part(part: float | Fraction, what: str) -> None:
    if not 0 <= part <= 1:
        raise DurabilityError(f"{what} is a part from 0 to 1, not {part}")


def rate_of(annual_loss: float) -> float:
    """The part of the nodes that a year takes → deaths per node and year, λ = -ln(1 - a). Raises DurabilityError outside [0, 1)."""
    if not 0 <= annual_loss < 1:
        raise DurabilityError(f"a year's loss of nodes is a part from 0 to below 1, not {annual_loss}")
    return -math.log1p(-annual_loss)


def annual_loss_of(rate_per_year: float) -> float:
    """The reverse of ``rate_of``. Raises DurabilityError for a rate that is none."""
    _check_rate(rate_per_year)
    return -math.expm1(-rate_per_year)


def nines(probability: float | Fraction) -> float:
    """How many nines 1 - probability starts with: 10^-11 → 11, 0.02 → 1.7, 0 → infinity. Raises DurabilityError for no probability."""
    _check_part(probability, "a probability")
    return -math.log10(probability) if probability else math.inf


def fewer_than(k: int, n: int, alive: Number, dead: Number) -> Number:
    """The chance that fewer than k of n independent shares are alive: Σ over i < k of C(n, i) · alive^i · dead^(n-i).

    ``dead`` is 1 - ``alive``, given apart so that neither loses its digits beside the other. Exact for fractions.
    """
    total = alive * 0
    for i in range(min(k, n + 1)):
        total += math.comb(n, i) * alive**i * dead ** (n - i)
    return total


def unavailability(scheme: Scheme, uptime: Number) -> Number:
    """The chance that a whole segment cannot be read just now, when each node is online a part ``uptime`` of the time, on its own.

    Exact for a fraction. Raises DurabilityError for an uptime that is no part.
    """
    _check_scheme(scheme)
    _check_part(uptime, "an uptime")
    return fewer_than(scheme.k, scheme.n, uptime, 1 - uptime)


def loss_at_once(scheme: Scheme, fraction: Number, healthy: int | None = None) -> Number:
    """The chance that a segment is lost when a part ``fraction`` of all nodes is lost at one moment, whichever they are.

    ``healthy`` shares are there before; all n by default. Exact for a fraction. Raises DurabilityError.
    """
    _check_scheme(scheme)
    _check_part(fraction, "what is lost at once")
    there = scheme.n if healthy is None else healthy
    _check_healthy(scheme, there)
    return fewer_than(scheme.k, there, 1 - fraction, fraction)


def _check_healthy(scheme: Scheme, healthy: int) -> None:
    if not 0 <= healthy <= scheme.n:
        raise DurabilityError(f"a segment of this scheme has from 0 to {scheme.n} healthy shares, not {healthy}")


def loss_in_window(scheme: Scheme, healthy: int, rate_per_year: float, window_h: float) -> float:
    """The chance that fewer than k of ``healthy`` shares outlive ``window_h`` hours without a repair. Raises DurabilityError."""
    _check_scheme(scheme)
    _check_healthy(scheme, healthy)
    _check_rate(rate_per_year)
    _check_window(window_h)
    deaths = rate_per_year * window_h / HOURS_PER_YEAR
    return fewer_than(scheme.k, healthy, math.exp(-deaths), -math.expm1(-deaths))


def yearly_loss_by_interval(scheme: Scheme, rate_per_year: float, interval_h: float) -> float:
    """Losses per segment and year if all segments were repaired to n shares every ``interval_h`` hours, whatever they lack: P · year ÷ interval.

    The form of the table in storage-interfaces.md 3.3, for comparison with other networks' numbers. Raises DurabilityError.
    """
    if not 0 < interval_h <= MAX_WINDOW_H:
        raise DurabilityError(f"an interval is above 0 and at most {MAX_WINDOW_H} hours, not {interval_h}")
    return loss_in_window(scheme, scheme.n, rate_per_year, interval_h) * HOURS_PER_YEAR / interval_h


def cycle_years(scheme: Scheme, rate_per_year: float, window_h: float = WINDOW_H) -> float:
    """Mean time from one repair to the end of the next, in years: Σ from repair_below to n of 1 ÷ jλ, and the window. Infinite without deaths.

    Raises DurabilityError.
    """
    _check_scheme(scheme)
    _check_rate(rate_per_year)
    _check_window(window_h)
    if rate_per_year == 0:
        return math.inf
    return sum(1 / j for j in range(scheme.repair_below, scheme.n + 1)) / rate_per_year + window_h / HOURS_PER_YEAR


def yearly_loss(scheme: Scheme, rate_per_year: float, window_h: float = WINDOW_H) -> float:
    """Losses per segment and year with lazy repair, in the long run: the chance that a window ends in a loss, by how often there is a window.

    It is a rate: for small values the yearly probability. Raises DurabilityError.
    """
    return loss_in_window(scheme, scheme.repair_below - 1, rate_per_year, window_h) / cycle_years(scheme, rate_per_year, window_h)


@dataclass(frozen=True, slots=True)
class Traffic:
    """What repair moves, per segment and year."""

    repairs: float
    shares_read: float
    shares_written: float
    times_the_segment: float
    """Bytes read and written, in multiples of the segment's bytes."""


def repair_traffic(scheme: Scheme, rate_per_year: float, window_h: float = WINDOW_H) -> Traffic:
    """Expected repair traffic per segment and year: each repair reads k shares and writes those that are missing at its end.

    Raises DurabilityError.
    """
    repairs = 1 / cycle_years(scheme, rate_per_year, window_h)
    left = (scheme.repair_below - 1) * math.exp(-rate_per_year * window_h / HOURS_PER_YEAR)
    read, written = repairs * scheme.k, repairs * (scheme.n - left)
    return Traffic(repairs, read, written, (read + written) / scheme.k)


@lru_cache(maxsize=64)
def loss_within(scheme: Scheme, rate_per_year: float, window_h: float = WINDOW_H, days: int = DAYS_PER_YEAR) -> tuple[float, ...]:
    """The chance that a segment is lost within ``days``, for each number of healthy shares it has now: element h is for h shares.

    Below the threshold the window counts as just begun, the worst that is possible. The time until a segment of h shares falls below has the
    distribution F_h(t) = P(at most repair_below - 1 of h outlive t); after a window that went well it starts anew with n. Raises DurabilityError.
    """
    _check_scheme(scheme)
    _check_rate(rate_per_year)
    _check_window(window_h)
    if not 1 <= days <= MAX_DAYS:
        raise DurabilityError(f"a time ahead is from 1 to {MAX_DAYS} days, not {days}")
    at_threshold = scheme.repair_below - 1
    horizon_h = days * 24
    steps = max(STEPS, math.ceil(min(16 * horizon_h / HOURS_PER_YEAR / cycle_years(scheme, rate_per_year, window_h), MAX_STEPS)))
    step_h = horizon_h / steps

    def fallen(healthy: int) -> list[float]:
        """The chance to fall below the threshold in each step."""
        deaths = [rate_per_year * step_h * j / HOURS_PER_YEAR for j in range(steps + 1)]
        reached = [fewer_than(scheme.repair_below, healthy, math.exp(-one), -math.expm1(-one)) for one in deaths]
        return [max(after - before, 0.0) for before, after in pairwise(reached)]

    whole = [0.0]  # the chance of a segment with n shares within j steps

    def whole_within(ahead_h: float) -> float:
        """That chance for any time ahead, on the line through the two steps around it, or through the last two that are known."""
        if len(whole) == 1:
            return 0.0
        at = max(ahead_h, 0.0) / step_h
        low = min(int(at), len(whole) - 2)
        return min(whole[low] + (at - low) * (whole[low + 1] - whole[low]), 1.0)

    def below(healthy: int, ahead_h: float) -> float:
        """The chance of a segment whose window begins now with so many shares."""
        lost = loss_in_window(scheme, healthy, rate_per_year, min(window_h, ahead_h))
        return lost if ahead_h <= window_h else lost + (1 - lost) * whole_within(ahead_h - window_h)

    first = fallen(scheme.n)
    after: list[float] = []  # what a fall in the middle of a step leads to, the last step before the end first
    for j in range(1, steps + 1):
        after.append(below(at_threshold, (j - 0.5) * step_h))
        whole.append(min(sum(map(mul, first[:j], reversed(after))), 1.0))
    chances = []
    for healthy in range(scheme.n + 1):
        if is_lost(scheme, healthy):
            chances.append(1.0)
        elif needs_repair(scheme, healthy):
            chances.append(below(healthy, horizon_h))
        else:
            chances.append(min(sum(map(mul, fallen(healthy), reversed(after))), 1.0))
    return tuple(chances)


@dataclass(frozen=True, slots=True)
class Churn:
    """What a network has seen of its nodes' deaths."""

    nodes_lost: int
    node_days: int
    rate_per_year: float
    """Deaths per node and year, as seen."""
    at_most_per_year: float
    """The same, so high that as few deaths as were seen would be a chance of 5 %: little data is no safety. Files are judged by it."""


def _poisson_at_most(count: int, mean: float) -> float:
    """The chance of at most ``count`` events where ``mean`` are expected."""
    return math.fsum(math.exp(i * math.log(mean) - mean - math.lgamma(i + 1)) for i in range(count + 1))


def most_expected(count: int) -> float:
    """How many events may have been expected where ``count`` were seen, at 95 %, one-sided: 3.0 for none. Raises DurabilityError."""
    if not 0 <= count <= MAX_COUNT:
        raise DurabilityError(f"a count is from 0 to {MAX_COUNT}, not {count}")
    if count > EXACT_COUNT:
        degrees = count + 1
        return degrees * (1 - 1 / (9 * degrees) + 1.6448536269514722 / (3 * math.sqrt(degrees))) ** 3
    low, high = float(max(count, 1)) / 2, count + 4 * math.sqrt(count + 1) + 4
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _poisson_at_most(count, middle) > 0.05 else (low, middle)
    return high


def measured_churn(nodes_lost: int, node_days: int) -> Churn:
    """Nodes that were lost in so many days of nodes → churn. Raises DurabilityError without any day, or for numbers that are none."""
    if not 1 <= node_days <= MAX_COUNT:
        raise DurabilityError(f"churn is measured over 1 to {MAX_COUNT} node-days, not {node_days}: wait for a day of one node")
    years = node_days / DAYS_PER_YEAR
    at_most = most_expected(nodes_lost) / years
    return Churn(nodes_lost, node_days, min(nodes_lost / years, MAX_RATE), min(at_most, MAX_RATE))


@dataclass(frozen=True, slots=True)
class FileHealth:
    """How a stored file is."""

    scheme: Scheme
    segments: int
    lost: int
    """Segments of which fewer than k shares are healthy."""
    to_repair: int
    fewest_healthy: int
    """Of all segments; n in an empty file."""
    may_fail: int
    """As many places, whichever they are, may fail at this moment without a loss."""
    loss_next_year: float
    """The chance that any segment is lost within a year."""


def file_health(scheme: Scheme, segments_by_healthy: Mapping[int, int], rate_per_year: float, window_h: float = WINDOW_H) -> FileHealth:
    """How many of a file's segments have how many healthy shares, and the network's churn → how the file is, with its chance of loss in a year.

    The keys are from 0 to n. A lost segment makes the chance 1. Raises DurabilityError for numbers that are none.
    """
    _check_scheme(scheme)
    for healthy, count in segments_by_healthy.items():
        _check_healthy(scheme, healthy)
        if count < 0:
            raise DurabilityError(f"a number of segments is not negative; {count} came for {healthy} healthy shares")
    segments = sum(segments_by_healthy.values())
    if segments > MAX_OBJECT_BYTES // SEGMENT_BYTES:
        raise DurabilityError(f"a file has at most {MAX_OBJECT_BYTES // SEGMENT_BYTES} segments, not {segments}")
    present = {healthy: count for healthy, count in segments_by_healthy.items() if count}
    fewest = min(present, default=scheme.n)
    chances = loss_within(scheme, rate_per_year, window_h)
    if any(chances[healthy] >= 1 for healthy in present):
        chance = 1.0
    else:
        chance = -math.expm1(math.fsum(count * math.log1p(-chances[healthy]) for healthy, count in present.items()))
    return FileHealth(
        scheme,
        segments,
        sum(count for healthy, count in present.items() if is_lost(scheme, healthy)),
        sum(count for healthy, count in present.items() if needs_repair(scheme, healthy)),
        fewest,
        max(fewest - scheme.k, 0),
        chance,
    )


def status_lines(health: FileHealth, churn: Churn) -> list[str]:
    """What `ppd status FILE` prints of a file's health, line by line."""
    scheme = health.scheme
    if not health.segments:
        return ["empty: nothing is stored, nothing can be lost"]
    state = f"{health.lost} lost" if health.lost else "none lost"
    lines = [
        f"segments: {health.segments}, {state}, {health.to_repair} to repair",
        f"shares: any {scheme.k} of {scheme.n} give a segment back; the worst one has {health.fewest_healthy} healthy ones, repair starts below {scheme.repair_below}",
    ]
    if health.lost:
        return [*lines, "the file cannot be read as a whole: fetch what is left of it, or wait for nodes that are offline to come back"]
    seen = (
        f"{churn.nodes_lost} nodes lost in {churn.node_days} node-days, taken as {annual_loss_of(churn.at_most_per_year) * 100:.3g} % a year at most"
    )
    return [
        *lines,
        f"any {health.may_fail} places may fail at this moment without a loss" if health.may_fail else "the loss of one more place may lose it",
        f"loss within a year: {chance_text(health.loss_next_year)} if nodes fail independently ({seen})",
    ]


def chance_text(probability: float) -> str:
    """A probability as people read it: ``2e-12 (11.7 nines)``. Below 10^-30, which no model is good for, only that. Raises DurabilityError."""
    count = nines(probability)
    if count > 30:
        return "below 1e-30"
    return f"{probability:.2g} ({count:.1f} nines)"
