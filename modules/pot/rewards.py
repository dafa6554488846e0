"""How an epoch is paid (stratos-chain.md 4.3, 4.4; storage-protocol.md 1.3 to 1.5).

    traffic: prepaid wei ── R ──┬─► chain (fee collector)
    mining:  foundation ── M ───┼─► resource nodes by volume ─┬─► wallets
                                └─► meta nodes alike ─────────┴─► community (a tax on traffic alone)

Every part is rounded down to whole wei, the tax once as a sum; what rounding leaves stays where it was. With the rules off the original's shares
v ÷ Y are Decs rounded half to even, so many wallets can be paid more than R or M by some wei; with a rule on, parts are multiplied before they are
divided and never are. Amounts are in wei, volumes in noz.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from chain.dec import ONE, Dec, dec_of
from chain.ozone import Ozone, bounded, traffic_value
from modules.pot.errors import CommunityTax, MiningCap, VolumeReport
from modules.pot.tiers import BASIS_POINTS, DEFAULT_TIERS, Tier, check_tiers, tier_at

ZERO: Final = Dec(0)
DEFAULT_TAX: Final = Dec(ONE // 50)


@dataclass(frozen=True, slots=True)
class RewardParams:
    """``mining_cap`` is κ (``mining_cap_ratio``); 0 switches it off."""

    community_tax: Dec = DEFAULT_TAX
    tiers: tuple[Tier, ...] = DEFAULT_TIERS
    mining_cap: Dec = ZERO


@dataclass(frozen=True, slots=True)
class Work:
    """What a wallet earned in an epoch. ``promo_noz``, of ``volume_noz``, was granted: it is paid as traffic and mines nothing. No wallet: the
    original skips a text that is no address, and its part stays in the pools."""

    wallet: str | None
    volume_noz: int
    promo_noz: int = 0


@dataclass(frozen=True, slots=True)
class Split:
    """Parts of one amount by kind of receiver, in wei."""

    chain_wei: int = 0
    resource_wei: int = 0
    meta_wei: int = 0


@dataclass(frozen=True, slots=True)
class Reward:
    """What a wallet is paid for an epoch, in wei."""

    wallet: str
    mining_wei: int
    traffic_wei: int


@dataclass(frozen=True)
class Distribution:
    """An epoch's payments. ``value_wei`` is R, ``reward_wei`` M after the cap; both before rounding left something."""

    volume_noz: int = 0
    value_wei: Dec = ZERO
    reward_wei: int = 0
    traffic: Split = field(default_factory=Split)
    mining: Split = field(default_factory=Split)
    rewards: tuple[Reward, ...] = ()
    community_wei: int = 0

    @cached_property
    def mining_to_wallets_wei(self) -> int:
        """foundation_account → total_reward_pool."""
        return sum(one.mining_wei for one in self.rewards)

    @cached_property
    def traffic_to_wallets_wei(self) -> int:
        """total_unissued_prepay → total_reward_pool."""
        return sum(one.traffic_wei for one in self.rewards)

    @property
    def mined_wei(self) -> int:
        """What leaves the foundation, and total mined grows by."""
        return self.mining.chain_wei + self.mining_to_wallets_wei

    @property
    def spent_wei(self) -> int:
        """What leaves the prepaid wei."""
        return self.traffic.chain_wei + self.traffic_to_wallets_wei + self.community_wei


def check_params(params: RewardParams) -> None:
    """Raises MiningRewardParams (pot/9), CommunityTax (pot/10), MiningCap (pot/102)."""
    check_tiers(params.tiers)
    if not 0 <= params.community_tax.scaled <= ONE:
        raise CommunityTax(f"got {params.community_tax}")
    if not 0 <= params.mining_cap.scaled <= 1000 * ONE:
        raise MiningCap(f"got {params.mining_cap}")


def break_even_cap(resource_bp: int, community_tax: Dec) -> Dec:
    """κ from which on a resource node that serves its own paid traffic does not lose: 10000 ÷ resource_bp − (1 − t), rounded down. Raises
    VolumeReport (pot/32) where resource nodes get nothing, which would divide by zero."""
    if resource_bp <= 0:
        raise VolumeReport("resource nodes have no part, so no mining pays for traffic of one's own")
    return Dec(BASIS_POINTS * ONE // resource_bp - (ONE - community_tax.scaled))


def capped_too_high(params: RewardParams) -> tuple[Tier, ...]:
    """Tiers in which the cap (or its absence) lets a resource node gain by traffic of its own: what parameter validation warns of."""
    return tuple(
        tier
        for tier in params.tiers
        if tier.resource_bp > 0 and (params.mining_cap == ZERO or params.mining_cap >= break_even_cap(tier.resource_bp, params.community_tax))
    )


def split(amount: Dec, tier: Tier) -> Split:
    """chain, resource and meta parts: trunc(amount · bp ÷ 10000) each; at most 3 wei stay."""
    parts = [amount.mul_int(bp).quo_int(BASIS_POINTS).truncate() for bp in (tier.chain_bp, tier.resource_bp, tier.meta_bp)]
    return Split(*parts)


def capped_mining_wei(reward_wei: int, value: Dec, volume_noz: int, paid_noz: int, cap: Dec) -> int:
    """M' = min(M, trunc(κ·R·Y_paid ÷ Y)); M itself with κ = 0. The volume is positive."""
    if cap == ZERO:
        return reward_wei
    return min(reward_wei, cap.scaled * value.scaled * paid_noz // (ONE * ONE * volume_noz))


def distribute(
    pool: Ozone, mined_wei: int, foundation_wei: int, work: Sequence[Work], meta_wallets: Sequence[str], params: RewardParams
) -> Distribution:
    """Payments of an epoch, by the pool before it.

    ``mined_wei``: mined before. ``foundation_wei``: what the foundation has. ``meta_wallets``: one per meta node that is paid, a wallet as often as
    it has nodes. Nothing is paid for a volume of 0 in all (an idle epoch; the original divides by zero). Afterwards Lt grows by ``volume_noz``, Pt
    falls by ``spent_wei``, total mined grows by ``mined_wei``. Rewards come sorted by wallet.

    Raises InvalidRequest (sdk/18) for amounts out of range, VolumeReport (pot/32) for more than what was sold and not reported (A), for granted
    volume above the volume, without meta nodes (their parts divide by zero), and if foundation or prepaid wei do not suffice.
    """
    for one in work:
        if not 0 <= one.promo_noz <= bounded(one.volume_noz, "a volume"):
            raise VolumeReport(f"{one.promo_noz} noz of {one.volume_noz} noz are said to be granted")
    volume = bounded(sum(one.volume_noz for one in work), "a volume")
    if volume > pool.outstanding_noz:
        raise VolumeReport(f"{volume} noz are reported, of {pool.outstanding_noz} noz that were sold")
    if not meta_wallets:
        raise VolumeReport("there is no meta node to share with")
    tier = tier_at(mined_wei, params.tiers)
    if volume == 0:
        return Distribution()
    exact = pool.solvency or params.mining_cap != ZERO
    value = traffic_value(pool, volume)
    paid = volume - sum(one.promo_noz for one in work)
    reward = capped_mining_wei(tier.reward_wei, value, volume, paid, params.mining_cap)
    traffic, mining = split(value, tier), split(dec_of(reward), tier)
    mining_of, traffic_of = dict[str, int](), dict[str, int]()
    tax_sum = 0

    def pay(wallet: str, mined: int, gross: Dec) -> None:
        nonlocal tax_sum
        tax = gross.mul(params.community_tax)
        tax_sum += tax.scaled
        mining_of[wallet] = mining_of.get(wallet, 0) + mined
        traffic_of[wallet] = traffic_of.get(wallet, 0) + Dec(gross.scaled - tax.scaled).truncate()

    for one in work:
        if one.wallet is not None:
            by_volume = _part(mining.resource_wei, one.volume_noz - one.promo_noz, paid, exact) if paid else ZERO
            pay(one.wallet, by_volume.truncate(), _part(traffic.resource_wei, one.volume_noz, volume, exact))
    count = len(meta_wallets)
    each = _part(traffic.meta_wei, 1, count, exact) if exact else dec_of(traffic.meta_wei).quo(dec_of(count))
    for wallet in meta_wallets:
        pay(wallet, mining.meta_wei // count, each)
    rewards = tuple(Reward(wallet, mining_of[wallet], traffic_of[wallet]) for wallet in sorted(mining_of))
    result = Distribution(volume, value, reward, traffic, mining, rewards, Dec(tax_sum).truncate())
    if result.mined_wei > foundation_wei:
        raise VolumeReport(f"{result.mined_wei}wei are mined, and the foundation has {foundation_wei}wei")
    if result.spent_wei > pool.prepaid_wei:
        raise VolumeReport(f"traffic is worth {result.spent_wei}wei, and {pool.prepaid_wei}wei are prepaid")
    return result


def slash_value_wei(pool: Ozone, slashed_noz: int) -> int:
    """The wei of a slash of that many noz: trunc(R) (4.3). Raises what ``traffic_value`` does."""
    return traffic_value(pool, slashed_noz).truncate()


def _part(amount_wei: int, volume_noz: int, of_noz: int, exact: bool) -> Dec:
    """amount · volume ÷ of: rounded down if ``exact``, else by the original's order, which rounds the ratio half to even first."""
    if exact:
        return Dec(amount_wei * ONE * volume_noz // of_noz)
    return dec_of(amount_wei).mul(dec_of(volume_noz).quo(dec_of(of_noz)))
