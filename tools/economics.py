"""Does it pay to buy one's own traffic? ``python -m tools.economics [--json | --write]``

An attacker buys ozone, reports all of it as served by his own resource node, and gets back a part of what he paid and of what is mined. The tables
are computed by the modules' own functions, for the original's rules and for ours (storage-protocol.md 1.3 and 1.5):

- prices: what sales, deposits, a report and a leaving do to the price
- tiers: what an epoch mines at most, and who gets it
- example: an epoch of 1 TB on the mainnet's genesis state after 10,101 stos of sales (vectors' set B)
- ratios: what comes back per wei paid for 1 TB, at worst: nobody else has bought, so R = X (without a cap it is the more the less is bought)
- break-even: κ from which on the attacker does not lose
- grants: what comes back per wei that the grant pool paid, if the attacker got all of it granted

Roles: a resource node alone; with one of seven meta nodes; with one of seven equal validators too (mainnet's genesis had seven of each, and its
distribution module takes no tax); everything, which cannot be made to lose. Ratios are rounded down to four places.

``--write`` puts the tables into docs/economics.md, between the marks that are there, and draws docs/economics.svg anew.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from chain.dec import ONE, Dec, parse_dec
from chain.ozone import Ozone
from modules.pot.rewards import Distribution, RewardParams, Work, break_even_cap, distribute
from modules.pot.tiers import BASIS_POINTS, DEFAULT_TIERS, STOS_WEI, Tier
from modules.register.deposits import lower_deposit, raise_deposit, return_ozone
from modules.sds.pricing import claim, cost_wei, prepay, price
from tools import svg

DOCS: Final = Path(__file__).resolve().parent.parent / "docs"
PAGE: Final = DOCS / "economics.md"
PICTURE: Final = DOCS / "economics.svg"
MARKED: Final = re.compile(r"(<!-- tools/economics\.py: (\w+) -->\n```text\n).*?(```\n<!-- end -->)", re.DOTALL)
META_NODES: Final = 7
VALIDATORS: Final = 7
NOZ_PER_OZ: Final = 10**9
EPOCH_NOZ: Final = 1000 * NOZ_PER_OZ
DEPOSIT_WEI: Final = 69_300 * STOS_WEI
FOUNDATION_WEI: Final = 40_000_000 * STOS_WEI
MINED_WEI: Final = 1_000_000 * STOS_WEI
TAX: Final = parse_dec("0.01")
OWN: Final = "own"
PLACES: Final = 10_000


@dataclass(frozen=True)
class Role:
    """What the attacker has beside his resource node."""

    name: str
    meta_nodes: int
    validators: int

    def back_wei(self, paid: Distribution) -> int:
        """What comes back to him: his wallet's rewards, and his validators' part of what the chain gets; with everything, the community's tax is the
        only thing that does not."""
        own = sum(one.mining_wei + one.traffic_wei for one in paid.rewards if one.wallet == OWN)
        return own + (paid.traffic.chain_wei + paid.mining.chain_wei) * self.validators // VALIDATORS

    @property
    def meta_wallets(self) -> list[str]:
        return [OWN] * self.meta_nodes + [f"other{at}" for at in range(META_NODES - self.meta_nodes)]


ROLES: Final = (
    Role("resource node", 0, 0),
    Role("+ 1 of 7 meta nodes", 1, 0),
    Role("+ 1 of 7 validators", 1, 1),
    Role("everything", META_NODES, VALIDATORS),
)


@dataclass(frozen=True)
class Rules:
    name: str
    cap: Dec
    solvency: bool

    @property
    def params(self) -> RewardParams:
        return RewardParams(TAX, mining_cap=self.cap)


RULES: Final = (
    Rules("original", Dec(0), False),
    Rules("off", Dec(0), True),
    Rules("1", Dec(ONE), True),
    Rules("0.5", parse_dec("0.5"), True),
    Rules("0.4", parse_dec("0.4"), True),
)


def untouched(solvency: bool) -> Ozone:
    """The mainnet's genesis pool: seven meta nodes of 9,900 stos, nothing sold."""
    return replace(raise_deposit(Ozone(0, 0, solvency=True), DEPOSIT_WEI), solvency=solvency)


def after_sales(solvency: bool) -> Ozone:
    """The same after the sales of the vectors' set B."""
    pool = untouched(solvency)
    for stos in (1, 100, 10_000):
        pool, _ = prepay(pool, stos * STOS_WEI)
    return pool


@dataclass(frozen=True)
class Outcome:
    """An attack: what was paid, by the attacker or for his grant, and the epoch that paid him."""

    paid_wei: int
    epoch: Distribution


def own_traffic(pool: Ozone, rules: Rules, role: Role, mined_wei: int) -> Outcome:
    """He buys 1 TB, and his node alone serves it."""
    paid_wei = cost_wei(pool, EPOCH_NOZ)
    pool, noz = prepay(pool, paid_wei)
    return Outcome(paid_wei, epoch(pool, role, rules.params, mined_wei, Work(OWN, noz)))


def own_grant(pool: Ozone, rules: Rules, role: Role, mined_wei: int) -> Outcome:
    """He gets 1 TB granted, and his node alone serves it."""
    pool, cost = claim(pool, EPOCH_NOZ)
    return Outcome(cost, epoch(pool, role, rules.params, mined_wei, Work(OWN, EPOCH_NOZ, EPOCH_NOZ)))


def epoch(pool: Ozone, role: Role, params: RewardParams, mined_wei: int, work: Work) -> Distribution:
    return distribute(pool, mined_wei, FOUNDATION_WEI, [work], role.meta_wallets, params)


def prices() -> Iterator[dict[str, Any]]:
    """One step after the other, by our rules."""
    pool, joined = untouched(True), 30_000 * STOS_WEI

    def told(what: str) -> dict[str, Any]:
        wei = price(pool).truncate()
        return {
            "what": what,
            "deposit_wei": str(pool.deposit_wei),
            "remaining_noz": str(pool.remaining_noz),
            "prepaid_wei": str(pool.prepaid_wei),
            "price_wei": str(wei),
            "noz_per_stos": str(STOS_WEI // wei),
        }

    yield told("seven meta nodes, nothing sold")
    for stos in (1, 100, 10_000):
        pool, _ = prepay(pool, stos * STOS_WEI)
        yield told(f"{stos:,} stos buy ozone")
    pool = raise_deposit(pool, joined)
    yield told("a deposit of 30,000 stos")
    volume = pool.outstanding_noz // 2
    paid = epoch(pool, ROLES[0], RULES[-1].params, MINED_WEI, Work(OWN, volume))
    pool = return_ozone(replace(pool, prepaid_wei=pool.prepaid_wei - paid.spent_wei), volume)
    yield told("half of what is sold is reported")
    pool = lower_deposit(pool, joined)
    yield told("that deposit has left")


def tiers() -> Iterator[dict[str, Any]]:
    for number, tier in enumerate(DEFAULT_TIERS, 1):
        yield {
            "tier": number,
            "start_wei": str(tier.start_wei),
            "end_wei": str(tier.end_wei),
            "reward_wei": str(tier.reward_wei),
            "chain_bp": tier.chain_bp,
            "resource_bp": tier.resource_bp,
            "meta_bp": tier.meta_bp,
        }


def example() -> Iterator[dict[str, Any]]:
    """An attacker who buys 1 TB of traffic at the price of the state after sales and serves it himself."""
    for rules in RULES:
        for role in ROLES:
            done = own_traffic(after_sales(rules.solvency), rules, role, MINED_WEI)
            back = role.back_wei(done.epoch)
            yield {
                "rules": rules.name,
                "role": role.name,
                "paid_wei": str(done.paid_wei),
                "traffic_value_wei": str(done.epoch.value_wei.truncate()),
                "mining_wei": str(done.epoch.reward_wei),
                "back_wei": str(back),
                "gain_wei": str(back - done.paid_wei),
            }


def ratios() -> Iterator[dict[str, Any]]:
    """Back ÷ paid by tier, role and rules, where all that is prepaid is the attacker's."""
    for number, tier in enumerate(DEFAULT_TIERS, 1):
        for rules in RULES:
            for role in ROLES:
                done = own_traffic(untouched(rules.solvency), rules, role, tier.start_wei)
                yield {"tier": number, "rules": rules.name, "role": role.name, "back_per_paid": _places(role.back_wei(done.epoch), done.paid_wei)}


def break_even(tier: Tier, role: Role) -> Dec:
    """κ at which mining makes up for what the attacker loses of R = X: (1 − his part of traffic) ÷ his part of mining, rounded down."""
    if role.meta_nodes == 0 and role.validators == 0:
        return break_even_cap(tier.resource_bp, TAX)
    nodes = (tier.resource_bp * META_NODES + tier.meta_bp * role.meta_nodes) * VALIDATORS
    chain = tier.chain_bp * role.validators * META_NODES
    whole = BASIS_POINTS * META_NODES * VALIDATORS
    traffic = Dec((nodes * (ONE - TAX.scaled) + chain * ONE) // whole)
    return Dec((ONE - traffic.scaled) * whole // (nodes + chain))


def break_evens() -> Iterator[dict[str, Any]]:
    for number, tier in enumerate(DEFAULT_TIERS, 1):
        for role in ROLES:
            yield {"tier": number, "role": role.name, "cap": _places(break_even(tier, role).scaled, ONE)}


def grants() -> Iterator[dict[str, Any]]:
    """Back ÷ paid by the grant pool: the attacker's resource node serves what was granted to himself. Granted noz mine nothing, whatever the cap."""
    rules = RULES[-1]
    for number, tier in enumerate(DEFAULT_TIERS, 1):
        for role in ROLES:
            done = own_grant(untouched(rules.solvency), rules, role, tier.start_wei)
            yield {"tier": number, "role": role.name, "back_per_paid": _places(role.back_wei(done.epoch), done.paid_wei)}


def tables() -> dict[str, Any]:
    return {
        "tax": _places(TAX.scaled, ONE),
        "prices": list(prices()),
        "tiers": list(tiers()),
        "example": list(example()),
        "ratios": list(ratios()),
        "break_even": list(break_evens()),
        "grants": list(grants()),
    }


def _places(part: int, whole: int) -> str:
    scaled = part * PLACES // whole
    return f"{scaled // PLACES}.{scaled % PLACES:04d}"


def _stos(wei_text: str) -> str:
    wei = int(wei_text)
    return f"{'-' if wei < 0 else ''}{abs(wei) // STOS_WEI}.{abs(wei) % STOS_WEI // 10**14:04d}"


TITLES: Final = {
    "prices": "How the price moves, from mainnet's genesis on; S and Pt in stos, ozone in oz (1 oz is about 1 GB)",
    "tiers": "Mining; stos",
    "example": "One epoch of 1 TB of the attacker's own traffic, mainnet genesis after sales, tier 1; stos",
    "ratios": "Back per wei paid, at worst (all that is prepaid is the attacker's)",
    "break_even": "Cap from which on the attacker does not lose",
    "grants": "Back per wei of grants that the attacker gets all himself",
}


def printed(table: str, rows: list[dict[str, Any]]) -> str:
    """A table as text, without its title."""
    if table == "prices":
        lines = [f"{'':34}{'S':>10}{'Lt':>12}{'Pt':>10}{'wei per noz':>13}{'oz per stos':>13}"]
        for row in rows:
            deposit, limit, prepaid = (
                int(row["deposit_wei"]) // STOS_WEI,
                int(row["remaining_noz"]) // NOZ_PER_OZ,
                int(row["prepaid_wei"]) // STOS_WEI,
            )
            lines.append(f"{row['what']:34}{deposit:>10}{limit:>12}{prepaid:>10}{row['price_wei']:>13}{int(row['noz_per_stos']) // NOZ_PER_OZ:>13}")
        return "\n".join(lines)
    if table == "tiers":
        lines = [f"{'tier':6}{'mined from':>12}{'to':>12}{'per epoch at most':>19}{'chain':>8}{'resource nodes':>16}{'meta nodes':>12}"]
        for row in rows:
            start, end = int(row["start_wei"]) // STOS_WEI, int(row["end_wei"]) // STOS_WEI
            parts = [f"{row[key] // 100} %" for key in ("chain_bp", "resource_bp", "meta_bp")]
            lines.append(f"{row['tier']:<6}{start:>12}{end:>12}{_stos(row['reward_wei'])[:-3]:>19}{parts[0]:>8}{parts[1]:>16}{parts[2]:>12}")
        return "\n".join(lines)
    if table == "example":
        lines = [f"{'rules (cap)':12}{'role':22}{'paid':>10}{'R':>10}{'mining':>10}{'back':>10}{'gain':>10}"]
        for row in rows:
            figures = [_stos(row[key]) for key in ("paid_wei", "traffic_value_wei", "mining_wei", "back_wei", "gain_wei")]
            lines.append(f"{row['rules']:12}{row['role']:22}" + "".join(f"{one:>10}" for one in figures))
        return "\n".join(lines)
    column = "cap" if table == "break_even" else "back_per_paid"
    lines = [f"{'tier':6}{'rules (cap)' if table == 'ratios' else '':12}" + "".join(f"{role.name:>22}" for role in ROLES)]
    for at in range(0, len(rows), len(ROLES)):
        of = rows[at : at + len(ROLES)]
        lines.append(f"{of[0]['tier']:<6}{of[0].get('rules', ''):12}" + "".join(f"{one[column]:>22}" for one in of))
    return "\n".join(lines)


def text(found: dict[str, Any]) -> str:
    return "\n\n".join(f"{title}\n\n{printed(table, found[table])}" for table, title in TITLES.items())


def page(found: dict[str, Any], written: str) -> str:
    """The page ``written`` with each marked table as it is now."""
    return MARKED.sub(lambda mark: f"{mark[1]}{printed(mark[2], found[mark[2]])}\n{mark[3]}", written)


def picture() -> str:
    """SVG: what a resource node alone gets back by cap, a line for each tier, where all that is prepaid is its own."""

    def back(tier: Tier, cap: Dec) -> int:
        done = own_traffic(untouched(True), Rules("", cap, True), ROLES[0], tier.start_wei)
        return ROLES[0].back_wei(done.epoch) * PLACES // done.paid_wei

    lines = []
    for number, tier in enumerate(DEFAULT_TIERS, 1):
        points = [(percent * PLACES // 100, back(tier, Dec(percent * ONE // 100))) for percent in range(5, 101, 5)]
        uncapped = back(tier, Dec(0))
        lines.append(svg.Line(f"tier {number} (no cap: {uncapped // PLACES}.{uncapped % PLACES // 100:02d})", points))
    return svg.chart(
        "Back per stos spent on traffic that one's own resource node serves",
        svg.Axis("mining cap κ: mining per stos of paid traffic", 0, PLACES, PLACES // 10),
        svg.Axis("stos back per stos spent", PLACES // 2, PLACES * 3 // 2, PLACES // 10),
        lines,
        svg.Border("above: self-dealing pays", PLACES),
        svg.Border("κ = 0.4", PLACES * 4 // 10),
    )


def main() -> int:
    found = tables()
    if "--write" in sys.argv[1:]:
        PAGE.write_text(page(found, PAGE.read_text()))
        PICTURE.write_text(picture())
    else:
        print(json.dumps(found, indent=1) if "--json" in sys.argv[1:] else text(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
