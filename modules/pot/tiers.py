"""Mining tiers: what an epoch mines at most and how each kind of node shares it, by what was mined before (stratos-chain.md 4.2)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from chain.ozone import MAX_AMOUNT, bounded
from modules.pot.errors import MiningRewardParams

STOS_WEI: Final = 10**18
BASIS_POINTS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Tier:
    """From ``start_wei`` mined (included) to ``end_wei`` (excluded): a reward per epoch, and the parts of chain, resource and meta nodes in basis
    points, which split the traffic reward too."""

    start_wei: int
    end_wei: int
    reward_wei: int
    chain_bp: int
    resource_bp: int
    meta_bp: int


def _tier(start_stos: int, end_stos: int, tenths_stos: int, resource_bp: int) -> Tier:
    return Tier(start_stos * STOS_WEI, end_stos * STOS_WEI, tenths_stos * STOS_WEI // 10, 2000, resource_bp, 8000 - resource_bp)


DEFAULT_TIERS: Final = (
    _tier(0, 16_819_200, 800, 6000),
    _tier(16_819_200, 25_228_800, 400, 6200),
    _tier(25_228_800, 29_433_600, 200, 6400),
    _tier(29_433_600, 31_536_000, 100, 6600),
    _tier(31_536_000, 32_587_200, 50, 6800),
    _tier(32_587_200, 40_000_000, 25, 7000),
)


def check_tiers(tiers: tuple[Tier, ...]) -> None:
    """Raises MiningRewardParams (pot/9) unless the tiers follow each other from 0 on without a gap and each one's parts make up 10000."""
    start = 0
    for tier in tiers:
        if not start == tier.start_wei < tier.end_wei <= MAX_AMOUNT:
            raise MiningRewardParams(f"expected a tier from {start}wei to more than that, got {tier.start_wei}wei to {tier.end_wei}wei")
        if min(tier.reward_wei, tier.chain_bp, tier.resource_bp, tier.meta_bp) < 0 or tier.reward_wei > MAX_AMOUNT:
            raise MiningRewardParams("expected no negative reward or part, and a reward of at most 2^127 - 1 wei")
        if tier.chain_bp + tier.resource_bp + tier.meta_bp != BASIS_POINTS:
            raise MiningRewardParams(f"expected parts that add up to {BASIS_POINTS}, got {tier.chain_bp} + {tier.resource_bp} + {tier.meta_bp}")
        start = tier.end_wei
    if not tiers:
        raise MiningRewardParams("expected at least one tier")


def tier_at(mined_wei: int, tiers: tuple[Tier, ...] = DEFAULT_TIERS) -> Tier:
    """The tier after ``mined_wei`` in all. Issuance ends with the last one: its reward is cut to what is left and then 0, while its parts go on
    splitting traffic (the original panics there). Raises InvalidRequest (sdk/18) for an amount out of range."""
    bounded(mined_wei, "mined wei")
    for tier in tiers:
        if mined_wei < tier.end_wei:
            break
    last = tiers[-1]
    return replace(tier, reward_wei=min(tier.reward_wei, max(0, last.end_wei - mined_wei)))


def circulating_wei(supply_wei: int, mined_wei: int, tiers: tuple[Tier, ...] = DEFAULT_TIERS) -> int:
    """Coins that are not waiting to be mined: supply − (end of issuance − mined). Raises InvalidRequest (sdk/18) for amounts out of range."""
    return bounded(supply_wei, "a supply") - (tiers[-1].end_wei - bounded(mined_wei, "mined wei"))
