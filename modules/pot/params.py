"""Parameters of pot: the original's defaults (stratos-chain.md 4.2), ours (storage-protocol.md 1.1 to 1.3, 1.6), their bounds, and how they are read."""

from __future__ import annotations

from typing import Any, Final

from chain.codec.registry import message_class
from chain.coins import parse_wire_int
from chain.dec import ONE, Dec, DecError, from_wire
from chain.errors import AppError, TxDecodeError
from chain.ozone import MAX_AMOUNT
from modules.pot.errors import CommunityTax, EpochLimits, InitialTotalSupply, InvalidDenom, MatureEpoch, MiningRewardParams
from modules.pot.rewards import RewardParams, capped_too_high, check_params
from modules.pot.tiers import DEFAULT_TIERS, STOS_WEI, Tier

Params: Final = message_class("stratos.pot.v1.Params")
DENOM: Final = "wei"
"""Of deposits, of prepaid ozone and of rewards: the only one there is."""
DEFAULT_MATURE_EPOCH: Final = 2016
DEFAULT_SUPPLY_WEI: Final = 10**8 * STOS_WEI
DEFAULT_EPOCH_DURATION_S: Final = 600
DEFAULT_CAP: Final = Dec(4 * ONE // 10)
DEFAULT_MAX_WALLETS: Final = 1_000
MAX_MATURE_EPOCH: Final = 1 << 31
MAX_EPOCH_DURATION_S: Final = 366 * 86_400
MAX_WALLETS_PER_REPORT: Final = 100_000
MAX_TIERS: Final = 100


def default_params() -> Any:
    """What a new chain begins with: the original's values, and every rule that can be switched on."""
    params = Params(
        bond_denom=DENOM,
        reward_denom=DENOM,
        mature_epoch=DEFAULT_MATURE_EPOCH,
        community_tax=str(ONE // 50),
        initial_total_supply=_wei(DEFAULT_SUPPLY_WEI),
        epoch_duration_s=DEFAULT_EPOCH_DURATION_S,
        mining_cap_ratio=str(DEFAULT_CAP.scaled),
        max_wallets_per_report=DEFAULT_MAX_WALLETS,
    )
    for tier in DEFAULT_TIERS:
        params.mining_reward_params.add(
            total_mined_valve_start=_wei(tier.start_wei),
            total_mined_valve_end=_wei(tier.end_wei),
            mining_reward=_wei(tier.reward_wei),
            block_chain_percentage_in_bp=str(tier.chain_bp),
            resource_node_percentage_in_bp=str(tier.resource_bp),
            meta_node_percentage_in_bp=str(tier.meta_bp),
        )
    return params


def _wei(amount: int) -> dict[str, str]:
    return {"denom": DENOM, "amount": str(amount)}


def reward_params(params: Any) -> RewardParams:
    """What ``distribute`` needs of checked parameters."""
    tiers = tuple(
        Tier(
            int(one.total_mined_valve_start.amount),
            int(one.total_mined_valve_end.amount),
            int(one.mining_reward.amount),
            int(one.block_chain_percentage_in_bp),
            int(one.resource_node_percentage_in_bp),
            int(one.meta_node_percentage_in_bp),
        )
        for one in params.mining_reward_params
    )
    return RewardParams(from_wire(params.community_tax), tiers, from_wire(params.mining_cap_ratio or "0"))


def supply_wei(params: Any) -> int:
    """What the supply is kept at."""
    return int(params.initial_total_supply.amount)


def gains_by_own_traffic(params: Any) -> str | None:
    """A warning where a resource node could earn more by traffic of its own than it pays for it; None for parameters that let nobody."""
    tiers = capped_too_high(reward_params(params))
    if not tiers:
        return None
    return (
        f"mining_cap_ratio {from_wire(params.mining_cap_ratio or '0')} lets a resource node gain by buying its own traffic in {len(tiers)} of "
        f"{len(params.mining_reward_params)} mining tiers: expected less than 10000 / resource_node_percentage_in_bp - (1 - community_tax)"
    )


def check_numbers(params: Any) -> None:
    """Raise TxDecodeError (sdk/2), as decoding does in the SDK, for a text that is no number of its kind."""
    for name in ("community_tax", "mining_cap_ratio"):
        try:
            from_wire(getattr(params, name) or "0")
        except DecError as error:
            raise TxDecodeError(f"params.{name}: {error}") from None


def check(params: Any) -> None:
    """Raise unless the parameters can be worked with: InvalidDenom (pot/28), MatureEpoch (8), MiningRewardParams (9), CommunityTax (10),
    InitialTotalSupply (11), MiningCap (102), EpochLimits (108), TxDecodeError (sdk/2).
    """
    check_numbers(params)
    for name in ("bond_denom", "reward_denom"):
        if getattr(params, name) != DENOM:
            raise InvalidDenom(f"{name}: expected {DENOM}, got {getattr(params, name)[:60]!r}")
    if not 0 < params.mature_epoch <= MAX_MATURE_EPOCH:
        raise MatureEpoch(f"mature_epoch: expected 1 to {MAX_MATURE_EPOCH}, got {params.mature_epoch}")
    _check_tiers(params)
    if not params.community_tax:
        raise CommunityTax("expected a number, got none")
    check_params(reward_params(params))
    supply = _coin(params.initial_total_supply, InitialTotalSupply, "initial_total_supply")
    if supply == 0:
        raise InitialTotalSupply("expected a positive supply")
    if params.epoch_duration_s > MAX_EPOCH_DURATION_S:
        raise EpochLimits(f"epoch_duration_s: expected 0 to {MAX_EPOCH_DURATION_S}, got {params.epoch_duration_s}")
    if params.max_wallets_per_report > MAX_WALLETS_PER_REPORT:
        raise EpochLimits(f"max_wallets_per_report: expected 0 to {MAX_WALLETS_PER_REPORT}, got {params.max_wallets_per_report}")


def _check_tiers(params: Any) -> None:
    if len(params.mining_reward_params) > MAX_TIERS:
        raise MiningRewardParams(f"expected at most {MAX_TIERS} tiers, got {len(params.mining_reward_params)}")
    for one in params.mining_reward_params:
        for name in ("total_mined_valve_start", "total_mined_valve_end", "mining_reward"):
            _coin(getattr(one, name), MiningRewardParams, name)
        for name in ("block_chain_percentage_in_bp", "resource_node_percentage_in_bp", "meta_node_percentage_in_bp"):
            _amount(getattr(one, name), MiningRewardParams, name)


def _coin(coin: Any, rule: type[AppError], what: str) -> int:
    if coin.denom != DENOM:
        raise rule(f"{what}: expected an amount of {DENOM}, got one of {coin.denom[:60]!r}")
    return _amount(coin.amount, rule, what)


def _amount(text: str, rule: type[AppError], what: str) -> int:
    if not text:
        raise rule(f"{what}: expected a number, got none")
    amount = parse_wire_int(text)
    if not 0 <= amount <= MAX_AMOUNT:
        raise rule(f"{what}: expected 0 to 2^127 - 1")
    return amount
