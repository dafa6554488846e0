"""Does it pay to buy one's own traffic? ``python -m tools.economics [--json]``

An attacker buys ozone, reports all of it as served by his own resource node, and gets back a part of what he paid and of what is mined. The tables
are computed by the modules' own functions, for the original's rules and for ours (storage-protocol.md 1.3 and 1.5):

- example: an epoch of 1 TB on the mainnet's genesis state after 10,101 stos of sales (vectors' set B)
- ratios: what comes back per wei paid for 1 TB, at worst: nobody else has bought, so R = X (without a cap it is the more the less is bought)
- break-even: κ from which on the attacker does not lose
- grants: what comes back per wei that the grant pool paid, if the attacker got all of it granted

Roles: a resource node alone; with one of seven meta nodes; with one of seven equal validators too (mainnet's genesis had seven of each, and its
distribution module takes no tax); everything, which cannot be made to lose. Ratios are rounded down to four places.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from chain.dec import ONE, Dec, parse_dec
from chain.ozone import Ozone
from modules.pot.rewards import Distribution, RewardParams, Work, break_even_cap, distribute
from modules.pot.tiers import BASIS_POINTS, DEFAULT_TIERS, STOS_WEI, Tier
from modules.register.deposits import raise_deposit
from modules.sds.pricing import claim, cost_wei, prepay

META_NODES: Final = 7
VALIDATORS: Final = 7
EPOCH_NOZ: Final = 10**12
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


def epoch(pool: Ozone, role: Role, params: RewardParams, mined_wei: int, work: Work) -> Distribution:
    return distribute(pool, mined_wei, FOUNDATION_WEI, [work], role.meta_wallets, params)


def example() -> Iterator[dict[str, Any]]:
    """An attacker who buys 1 TB of traffic at the price of the state after sales and serves it himself."""
    for rules in RULES:
        pool = after_sales(rules.solvency)
        paid_wei = cost_wei(pool, EPOCH_NOZ)
        pool, noz = prepay(pool, paid_wei)
        for role in ROLES:
            paid = epoch(pool, role, rules.params, MINED_WEI, Work(OWN, noz))
            back = role.back_wei(paid)
            yield {
                "rules": rules.name,
                "role": role.name,
                "paid_wei": str(paid_wei),
                "traffic_value_wei": str(paid.value_wei.truncate()),
                "mining_wei": str(paid.reward_wei),
                "back_wei": str(back),
                "gain_wei": str(back - paid_wei),
            }


def ratios() -> Iterator[dict[str, Any]]:
    """Back ÷ paid by tier, role and rules, where all that is prepaid is the attacker's."""
    for number, tier in enumerate(DEFAULT_TIERS, 1):
        for rules in RULES:
            pool = untouched(rules.solvency)
            paid_wei = cost_wei(pool, EPOCH_NOZ)
            pool, noz = prepay(pool, paid_wei)
            for role in ROLES:
                back = role.back_wei(epoch(pool, role, rules.params, tier.start_wei, Work(OWN, noz)))
                yield {"tier": number, "rules": rules.name, "role": role.name, "back_per_paid": _places(back, paid_wei)}


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
        pool, cost = claim(untouched(rules.solvency), EPOCH_NOZ)
        for role in ROLES:
            paid = epoch(pool, role, rules.params, tier.start_wei, Work(OWN, EPOCH_NOZ, EPOCH_NOZ))
            yield {"tier": number, "role": role.name, "back_per_paid": _places(role.back_wei(paid), cost)}


def tables() -> dict[str, Any]:
    return {
        "tax": _places(TAX.scaled, ONE),
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


def text(found: dict[str, Any]) -> str:
    names = [role.name for role in ROLES]
    lines = ["One epoch of 1 TB of the attacker's own traffic, mainnet genesis after sales, tier 1; stos", ""]
    lines.append(f"{'rules (cap)':12}{'role':22}{'paid':>10}{'R':>10}{'mining':>10}{'back':>10}{'gain':>10}")
    for row in found["example"]:
        figures = [_stos(row[key]) for key in ("paid_wei", "traffic_value_wei", "mining_wei", "back_wei", "gain_wei")]
        lines.append(f"{row['rules']:12}{row['role']:22}" + "".join(f"{one:>10}" for one in figures))
    lines += ["", "Back per wei paid, at worst (all that is prepaid is the attacker's)", ""]
    lines.append(f"{'tier':6}{'rules (cap)':12}" + "".join(f"{name:>22}" for name in names))
    for at in range(0, len(found["ratios"]), len(ROLES)):
        row = found["ratios"][at : at + len(ROLES)]
        lines.append(f"{row[0]['tier']:<6}{row[0]['rules']:12}" + "".join(f"{one['back_per_paid']:>22}" for one in row))
    for title, key, column in (
        ("Cap from which on the attacker does not lose", "break_even", "cap"),
        ("Back per wei of grants that the attacker gets all himself", "grants", "back_per_paid"),
    ):
        lines += ["", title, "", f"{'tier':18}" + "".join(f"{name:>22}" for name in names)]
        for at in range(0, len(found[key]), len(ROLES)):
            row = found[key][at : at + len(ROLES)]
            lines.append(f"{row[0]['tier']:<18}" + "".join(f"{one[column]:>22}" for one in row))
    return "\n".join(lines)


def main() -> int:
    found = tables()
    print(json.dumps(found, indent=1) if "--json" in sys.argv[1:] else text(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
