"""What the schemes promise, by formula and by simulation, side by side: the tables of docs/durability.md.

python -m bench.durability [--seed 1] [--scale 1.0] [--jobs 1] [--only check stated faster smallest] [--write]

    sds_node/durability.py ──► losses, traffic, unavailability ──┐
    bench/durability_world.py ─ nodes, shares, repairs ──────────┴──► tables with intervals of 95 %

- check: the world of the formulas (independent deaths, nothing else), with churn so fast that losses are seen
- stated: everything that is simulated at once, a fifth of the nodes lost in a year, a million segment-years of each scheme
- faster: the same with churn so fast that losses are seen
- smallest: the stated world in networks of as few nodes as the scheme is chosen for

``--scale`` changes both the segments and the simulated time, so 0.1 gives a hundredth of the segment-years; ``--write`` puts the tables into the page, with commit, seed and the time they took.
"""

from __future__ import annotations

import argparse
import math
import re
import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from bench.durability_world import Simulation, Tally, World
from sds_node.durability import loss_at_once, nines, rate_of, repair_traffic, unavailability, yearly_loss
from sds_node.schemes import FIVE_OF_TEN, TEN_OF_THIRTY, THREE_REPLICAS, TWO_OF_FIVE, Scheme

ROOT: Final = Path(__file__).resolve().parent.parent
PAGE: Final = ROOT / "docs" / "durability.md"
MARKED: Final = re.compile(r"(<!-- bench/durability\.py: (\w+) -->\n```text\n).*?(```\n<!-- end -->)", re.DOTALL)
SOURCES: Final = ("bench/durability.py", "bench/durability_world.py", "sds_node/durability.py", "sds_node/schemes.py")
SCHEMES: Final = (TEN_OF_THIRTY, FIVE_OF_TEN, TWO_OF_FIVE, THREE_REPLICAS)
RATE: Final = rate_of(0.2)
"""Deaths per node and year where a year takes a fifth of the nodes."""
Z: Final = 1.959964
WINDOW_H: Final = 30


def stated(scheme: Scheme, rate_per_year: float = RATE, times: float = 1.0) -> World:
    """Everything at once, around a churn that is ``times`` as fast as ``rate_per_year``; what repair may use grows with it."""
    return World(
        scheme,
        rate_per_year * times,
        segments=20_000,
        years=50,
        nodes=100,
        shared_places=True,
        infants=0.3,
        outages_per_year=0.25,
        offline=0.04,
        damages_per_year=0.1,
        repair_bytes_per_s=250_000 * times,
        prefix_failures_per_year=0.02,
        owner_failures_per_year=0.02,
        region_failures_per_year=0.02,
    )


def _check(scheme: Scheme, times: float, years: float) -> World:
    return World(scheme, RATE * times, segments=10_000, years=years, nodes=60, detection_h=0, rebuild_h=WINDOW_H)


def _smallest(scheme: Scheme, nodes: int) -> World:
    networks = 108 // nodes
    return replace(stated(scheme), segments=4_320, nodes=nodes * networks, networks=networks, shared_places=False)


RUNS: Final[dict[str, tuple[World, ...]]] = {
    "check": (_check(TEN_OF_THIRTY, 140, 2.5), _check(FIVE_OF_TEN, 40, 8), _check(TWO_OF_FIVE, 20, 15), _check(THREE_REPLICAS, 20, 15)),
    "stated": tuple(stated(scheme) for scheme in SCHEMES),
    "faster": tuple(replace(stated(scheme, times=times), years=50 / times) for scheme, times in zip(SCHEMES, (80, 30, 10, 10), strict=True)),
    "smallest": tuple(_smallest(scheme, nodes) for scheme, nodes in zip(SCHEMES, (36, 12, 6, 3), strict=True)),
}


@dataclass(frozen=True, slots=True)
class Interval:
    """A rate with the bounds of 95 %; ``low`` is None when nothing was seen."""

    rate: float
    low: float | None
    high: float


def interval(lost: int, lost_squared: int, segment_years: float) -> Interval:
    """Losses, the sum over incidents of their squares, and the time → losses per segment and year with Wilson's interval.

    Segments that were lost together tell as much as one: what counts is lost² ÷ lost_squared. With none the bound is that which would have shown
    one in 95 of 100 runs.
    """
    if not lost:
        return Interval(0.0, None, -math.expm1(math.log(0.05) / segment_years))
    counted = lost * lost / lost_squared
    trials = max(segment_years * counted / lost, counted)
    part = counted / trials
    middle = (part + Z * Z / (2 * trials)) / (1 + Z * Z / trials)
    half = Z / (1 + Z * Z / trials) * math.sqrt(part * (1 - part) / trials + Z * Z / (4 * trials * trials))
    return Interval(lost / segment_years, middle - half, middle + half)


def block_mean(blocks: Sequence[float], segment_years: float) -> tuple[float, float]:
    """What parts of the time add to an expectation → per segment and year, and twice the standard error by how much the parts differ."""
    mean = sum(blocks) / len(blocks)
    spread = math.sqrt(sum((one - mean) ** 2 for one in blocks) / (len(blocks) - 1) / len(blocks))
    return sum(blocks) / segment_years, 2 * spread * len(blocks) / segment_years


def simulate(world: World, seed: int) -> tuple[Tally, float]:
    """One run, and the CPU seconds it took."""
    started = time.process_time()
    return Simulation(world, seed).run(), time.process_time() - started


def scaled(world: World, scale: float) -> World:
    """The same world with other numbers of segments and years: each of them times ``scale``."""
    return replace(world, segments=max(round(world.segments * scale), world.networks), years=world.years * scale)


def seen_rate(tally: Tally) -> float:
    """How often a good share was spoiled per year, of whatever cause: the churn that the formula is given."""
    return (tally.shares_died + tally.shares_damaged) / tally.share_years


def _name(scheme: Scheme) -> str:
    return f"{scheme.k} of {scheme.n}" if scheme.k > 1 else f"{scheme.n} replicas"


def _number(value: float) -> str:
    return "0" if value == 0 else f"{value:.1e}".replace("e-0", "e-").replace("e+0", "e")


def _simulated(found: Interval) -> str:
    if found.low is None:
        return f"none seen, so below {_number(found.high)}"
    return f"{_number(found.rate)} ({_number(found.low)} to {_number(found.high)})"


def formula_table() -> list[str]:
    """What the formulas say, with nothing simulated."""
    lines = ["losses per segment and year (nines), window of 30 h; repair traffic in multiples of what is stored, a year", ""]
    lines.append(f"{'':12}" + "".join(f"{f'{part:.0%} of nodes lost a year':>34}" for part in (0.05, 0.2, 0.5)))
    for scheme in SCHEMES:
        cells = []
        for part in (0.05, 0.2, 0.5):
            loss, traffic = yearly_loss(scheme, rate_of(part), WINDOW_H), repair_traffic(scheme, rate_of(part), WINDOW_H)
            cells.append(f"{f'{_number(loss)} ({nines(loss):.1f})  traffic {traffic.times_the_segment:.2f}':>34}")
        lines.append(f"{_name(scheme):12}" + "".join(cells))
    lines += [
        "",
        "chance that a whole segment cannot be read now, each node online a part of the time; and that it is lost, a part of the nodes lost at once",
        "",
    ]
    heads = [f"online {part:.0%}" for part in (0.9, 0.95, 0.98)] + [f"lost {part:.0%}" for part in (0.1, 0.2, 0.3, 0.5)]
    lines.append(f"{'':12}" + "".join(f"{head:>13}" for head in heads))
    for scheme in SCHEMES:
        values = [unavailability(scheme, part) for part in (0.9, 0.95, 0.98)] + [loss_at_once(scheme, part) for part in (0.1, 0.2, 0.3, 0.5)]
        lines.append(f"{_name(scheme):12}" + "".join(f"{_number(value):>13}" for value in values))
    return lines


def table(name: str, worlds: Sequence[World], tallies: Sequence[Tally]) -> list[str]:
    """The lines of one of the simulated tables."""
    rows = [_row(name, world, tally) for world, tally in zip(worlds, tallies, strict=True)]
    heads = list(rows[0])
    widths = [max(len(head), *(len(row[head]) for row in rows)) for head in heads]
    return [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in (heads, *(list(row.values()) for row in rows))
    ]


def _row(name: str, world: World, tally: Tally) -> dict[str, str]:
    years, window_h = tally.segment_years, world.detection_h + world.rebuild_h
    rate = seen_rate(tally)
    formula, traffic = yearly_loss(world.scheme, rate, window_h), repair_traffic(world.scheme, rate, window_h)
    row = {
        "scheme": _name(world.scheme),
        "deaths/yr": f"{rate:.3g}",
        "segment-years": f"{years:,.0f}",
        "lost": str(tally.lost),
        "incidents": str(tally.incidents),
        "lost per segment and year (95 %)": _simulated(interval(tally.lost, tally.lost_squared, years)),
    }
    expected, error = block_mean(tally.chance, years)
    row["expected in windows"] = f"{_number(expected)} ± {_number(error)}"
    row["formula"] = _number(formula)
    if name != "check":
        regional, error = block_mean(tally.regional, years)
        row["expected from a region"] = f"{_number(regional)} ± {_number(error)}"
    row["repairs/yr: seen, formula"] = f"{tally.repairs / years:.3g}, {traffic.repairs:.3g}"
    row["traffic/yr: seen, formula"] = f"{(tally.shares_read + tally.shares_written) / years / world.scheme.k:.3g}, {traffic.times_the_segment:.3g}"
    row["repair took, h"] = f"{tally.repair_wait_h / max(tally.repairs, 1):.1f}"
    if name != "check":
        row["unreadable: seen, formula"] = f"{_number(tally.unavailable / tally.seen)}, {_number(unavailability(world.scheme, 1 - world.offline))}"
    return row


def commit() -> str:
    """The commit of the sources, and whether they have changed since."""
    head = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    changed = subprocess.run(["git", "status", "--porcelain", "--", *SOURCES], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    return f"{head} with changes" if changed else head


def write(tables: dict[str, list[str]], page: Path = PAGE) -> None:
    """Puts tables between the marks of their names."""
    text = page.read_text()
    if missing := set(tables) - {found.group(2) for found in MARKED.finditer(text)}:
        raise SystemExit(f"{page.name} has no marks for {', '.join(sorted(missing))}")
    page.write_text(
        MARKED.sub(
            lambda found: found.group(1) + "\n".join(tables[found.group(2)]) + "\n" + found.group(3) if found.group(2) in tables else found.group(0),
            text,
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=list(RUNS), default=list(RUNS))
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    if not (0 < arguments.scale <= 100 and 1 <= arguments.jobs <= 64 and 0 <= arguments.seed < 1 << 63):
        raise SystemExit("expected a scale above 0 and at most 100, 1 to 64 jobs and a seed from 0 on")
    tables = {"formula": formula_table()}
    print("\n".join(tables["formula"]), flush=True)
    version = commit()
    with ProcessPoolExecutor(arguments.jobs) as pool:
        waiting = {name: [pool.submit(simulate, scaled(world, arguments.scale), arguments.seed) for world in RUNS[name]] for name in arguments.only}
        for name, runs in waiting.items():
            results = [run.result() for run in runs]
            tables[name] = table(name, RUNS[name], [tally for tally, _ in results])
            took = sum(cpu_s for _, cpu_s in results)
            tables[name] += ["", f"commit {version}, seed {arguments.seed}, {took:.0f} s of CPU"]
            print("\n".join(["", f"{name}:", *tables[name]]), flush=True)
            if arguments.write:
                write(tables)


if __name__ == "__main__":
    main()
