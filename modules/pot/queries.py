"""Queries of pot: the original's (stratos-chain.md 4.8), and for explorers the price's history, where all coins are, and what a wallet may withdraw and when."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from chain import dec_coins
from chain.codec.registry import message_class
from chain.codec.times import ns_of, set_ns
from chain.coins import amount_of
from chain.context import Context
from chain.crypto import address as bech32
from chain.crypto.address import module_address
from chain.dec_coins import DecCoins
from chain.errors import InvalidRequest, NotFound
from chain.module import Query
from chain.pagination import DEFAULT_LIMIT, MAX_LIMIT, MAX_WALK, PageResponse, paginate
from chain.store.api import KVReader, StateReader
from modules.pot import keys
from modules.pot.keeper import PotKeeper
from modules.pot.params import DENOM, reward_params
from modules.pot.records import (
    FEE_COLLECTOR,
    FOUNDATION,
    PACKAGE,
    PREPAID,
    PREPAID_ADDRESS,
    REWARD_POOL,
    Approvals,
    Economics,
    RewardMessage,
    reward_message,
    unpacked,
    wei,
)
from modules.pot.tiers import circulating_wei, tier_at

SERVICE: Final = f"/{PACKAGE}.Query/"
NS_PER_S: Final = 10**9
LAST_TIME_S: Final = 253_402_300_799
"""The end of the year 9999, beyond which no time can be written."""
MAX_STEPS: Final = 20_000
"""Places in the index that one query about a wallet looks at."""
RESOURCE_POOLS: Final = ("resource_node_bonded_pool", "resource_node_not_bonded_pool")
META_POOLS: Final = ("meta_node_bonded_pool", "meta_node_not_bonded_pool")
BONDED = 3
"""BondStatus of a validator in the set."""
HOLDERS: Final = ("gov", "grant", "settlement")
"""Other module accounts with coins of users."""


def _response(name: str) -> Any:
    return message_class(f"{PACKAGE}.Query{name}Response")


class _Range:
    """A store in which only keys from ``first`` on, before ``end``, are there."""

    def __init__(self, store: KVReader, first: bytes, end: bytes) -> None:
        self._store, self._first, self._end = store, first, end

    def get(self, key: bytes) -> bytes | None:
        return self._store.get(key)

    def has(self, key: bytes) -> bool:
        return self._store.has(key)

    def iterate(self, start: bytes | None = None, end: bytes | None = None, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        first, last = max(self._first, start or b""), self._end if end is None else min(self._end, end)
        return self._store.iterate(first, last, reverse=reverse) if first < last else iter(())


def handlers(keeper: PotKeeper) -> Mapping[str, Query]:
    """The module's query handlers."""

    def params(ctx: Context, state: StateReader, request: Any) -> Any:
        return _response("Params")(params=keeper.params(state))

    def volume_report(ctx: Context, state: StateReader, request: Any) -> Any:
        epoch = request.epoch or keeper.last_epoch(state)
        record = keeper.report_of(state, epoch) if epoch > 0 else None
        if record is None:
            raise NotFound(f"there is no report of epoch {epoch}")
        info = {"epoch": epoch, "reference": record.report_reference, "tx_hash": record.tx_hash, "reporter": record.reporter}
        return _response("VolumeReport")(report_info=info)

    def rewards_by_epoch(ctx: Context, state: StateReader, request: Any) -> Any:
        prefix = keys.rewards_at(keeper.maturity_of(state, _epoch(request.epoch)))
        found, page = paginate(state.store(keys.STORE), prefix, request.pagination, lambda _, raw: unpacked(RewardMessage, raw))
        return _response("RewardsByEpoch")(rewards=found, pagination=page)

    def rewards_by_wallet(ctx: Context, state: StateReader, request: Any) -> Any:
        wallet = _wallet(request.wallet_address)
        rewards = {
            "wallet_address": request.wallet_address,
            "mature_total_reward": wei(keeper.mature_wei(state, wallet)),
            "immature_total_reward": wei(keeper.immature_wei(state, wallet)),
        }
        return _response("RewardsByWallet")(rewards=rewards)

    def rewards_by_wallet_and_epoch(ctx: Context, state: StateReader, request: Any) -> Any:
        wallet = _wallet(request.wallet_address)
        amounts = keeper.reward(state, keeper.maturity_of(state, _epoch(request.epoch)), wallet)
        found = [] if amounts is None else [reward_message(bech32.encode(wallet), amounts)]
        return _response("RewardsByWalletAndEpoch")(rewards=found, pagination=PageResponse(total=len(found)))

    def slashing_by_owner(ctx: Context, state: StateReader, request: Any) -> Any:
        return _response("SlashingByOwner")(slashing=str(keeper.register.debt_wei(state, _wallet(request.wallet_address))))

    def total_mined(ctx: Context, state: StateReader, request: Any) -> Any:
        return _response("TotalMinedToken")(total_mined_token={"denom": DENOM, "amount": str(keeper.total_mined_wei(state))})

    def circulation(ctx: Context, state: StateReader, request: Any) -> Any:
        return _response("CirculationSupply")(circulation_supply=wei(_circulating(keeper, state)))

    def total_reward(ctx: Context, state: StateReader, request: Any) -> Any:
        total = keeper.total_reward(state, _epoch(request.epoch))
        if total is None:
            raise NotFound(f"epoch {request.epoch} was not paid")
        return _response("TotalRewardByEpoch")(total_reward=total)

    def metrics(ctx: Context, state: StateReader, request: Any) -> Any:
        return _response("Metrics")(metrics=_metrics(keeper, state))

    def price_history(ctx: Context, state: StateReader, request: Any) -> Any:
        first, last = request.from_epoch, request.to_epoch or keys.MAX_EPOCH
        if not 0 <= first <= last <= keys.MAX_EPOCH:
            raise InvalidRequest(f"expected from_epoch from 0 on and not after to_epoch, which is at most {keys.MAX_EPOCH}, got {first} and {last}")
        store = _Range(state.store(keys.STORE), keys.economics(first), keys.economics(last + 1))
        found, page = paginate(store, keys.ECONOMICS, request.pagination, lambda _, raw: unpacked(Economics, raw))
        return _response("PriceHistory")(epochs=found, pagination=page)

    def supply_breakdown(ctx: Context, state: StateReader, request: Any) -> Any:
        total, parts = _supply(keeper, state)
        shown = [{"name": name, "amount_wei": str(amount)} for name, amount in parts]
        return _response("SupplyBreakdown")(total_wei=str(total), parts=shown)

    def withdrawals(ctx: Context, state: StateReader, request: Any) -> Any:
        wallet = _wallet(request.wallet_address)
        found, page = _page(_upcoming(keeper, state, wallet), request.pagination)
        return _response("Withdrawals")(
            withdrawable_wei=str(keeper.mature_wei(state, wallet)),
            slashing_debt_wei=str(keeper.register.debt_wei(state, wallet)),
            upcoming=found,
            pagination=page,
        )

    def slashing_approvals(ctx: Context, state: StateReader, request: Any) -> Any:
        prefix = keys.approvals(bech32.decode(request.network_address, bech32.NODE))

        def is_open(_: bytes, raw: bytes) -> bool:
            return ns_of(unpacked(Approvals, raw).expire_time) > ctx.time_ns

        found, page = paginate(state.store(keys.STORE), prefix, request.pagination, lambda _, raw: unpacked(Approvals, raw), is_open)
        return _response("SlashingApprovals")(approvals=found, pagination=page)

    return {
        SERVICE + "Params": params,
        SERVICE + "VolumeReport": volume_report,
        SERVICE + "RewardsByEpoch": rewards_by_epoch,
        SERVICE + "RewardsByWallet": rewards_by_wallet,
        SERVICE + "RewardsByWalletAndEpoch": rewards_by_wallet_and_epoch,
        SERVICE + "SlashingByOwner": slashing_by_owner,
        SERVICE + "TotalMinedToken": total_mined,
        SERVICE + "CirculationSupply": circulation,
        SERVICE + "TotalRewardByEpoch": total_reward,
        SERVICE + "Metrics": metrics,
        SERVICE + "PriceHistory": price_history,
        SERVICE + "SupplyBreakdown": supply_breakdown,
        SERVICE + "Withdrawals": withdrawals,
        SERVICE + "SlashingApprovals": slashing_approvals,
    }


def _epoch(epoch: int) -> int:
    if not 0 < epoch <= keys.MAX_EPOCH:
        raise InvalidRequest(f"expected an epoch from 1 to {keys.MAX_EPOCH}, got {epoch}")
    return epoch


def _wallet(text: str) -> bytes:
    if not text:
        raise InvalidRequest("wallet address cannot be empty")
    return bech32.decode(text)


def _circulating(keeper: PotKeeper, state: StateReader) -> int:
    """Coins that are not waiting to be mined; 0 on a chain whose supply is below what is to be mined."""
    tiers = reward_params(keeper.params(state)).tiers
    return max(0, circulating_wei(keeper.bank.supply(state, DENOM), keeper.total_mined_wei(state), tiers))


def _metrics(keeper: PotKeeper, state: StateReader) -> Any:
    mined, tiers = keeper.total_mined_wei(state), reward_params(keeper.params(state)).tiers
    tier = tier_at(mined, tiers)
    deposits = keeper.register.deposits_wei(state)
    not_bonded = keeper.staking.total_not_bonded(state)
    unbonded = sum(int(one.tokens) for one in keeper.staking.validators(state) if one.status != BONDED)
    chain, resource, meta = (tier.reward_wei * part // 10_000 for part in (tier.chain_bp, tier.resource_bp, tier.meta_bp))
    values = {
        "total_supply": keeper.bank.supply(state, DENOM),
        "total_mining_supply": tiers[-1].end_wei,
        "total_mined_tokens": mined,
        "total_resource_nodes_deposit": sum(deposits[name] for name in RESOURCE_POOLS),
        "total_bonded_delegation": keeper.staking.total_bonded(state),
        "total_unbonded_delegation": unbonded,
        "total_unbonding_delegation": max(0, not_bonded - unbonded),
        "circulation_supply": _circulating(keeper, state),
        "total_mining_reward": tier.reward_wei,
        "chain_mining_reward": chain,
        "resource_mining_reward": resource,
        "meta_mining_reward": meta,
        "resource_node_deposit": deposits[RESOURCE_POOLS[0]],
        "meta_node_deposit": deposits[META_POOLS[0]],
        "unissued_prepay": keeper.bank.balance(state, PREPAID_ADDRESS, DENOM),
    }
    return message_class(f"{PACKAGE}.Metrics")(**{name: str(value) for name, value in values.items()})


def _supply(keeper: PotKeeper, state: StateReader) -> tuple[int, list[tuple[str, int]]]:
    """(all wei there are, (name, wei) of every part of them); the last part is what accounts hold."""
    total = keeper.bank.supply(state, DENOM)

    def held(name: str) -> int:
        return keeper.bank.balance(state, module_address(name), DENOM)

    community = min(_whole(keeper.community.community_pool(state)), held("distribution"))
    parts = [
        ("to_be_mined", held(FOUNDATION)),
        ("prepaid_ozone", held(PREPAID)),
        *_rewards(keeper, state, held(REWARD_POOL)),
        *sorted(keeper.register.deposits_wei(state).items()),
        ("validator_stake_bonded", keeper.staking.total_bonded(state)),
        ("validator_stake_not_bonded", keeper.staking.total_not_bonded(state)),
        ("community_pool", community),
        ("delegators_rewards", held("distribution") - community),
        (FEE_COLLECTOR, held(FEE_COLLECTOR)),
        *((name, held(name)) for name in HOLDERS),
    ]
    return total, [*parts, ("accounts", total - sum(amount for _, amount in parts))]


def _rewards(keeper: PotKeeper, state: StateReader, held_wei: int) -> list[tuple[str, int]]:
    """The reward pool's two parts; one where more wallets wait for rewards than a query may pass."""
    immature_wei = 0
    for at, (_, amount_wei) in enumerate(keeper.totals(state, keys.IMMATURE)):
        if at == MAX_WALK:
            return [("rewards", held_wei)]
        immature_wei += amount_wei
    return [("rewards_mature", held_wei - immature_wei), ("rewards_immature", immature_wei)]


def _whole(pool: DecCoins) -> int:
    return amount_of(dec_coins.truncate(pool)[0], DENOM)


def _upcoming(keeper: PotKeeper, state: StateReader, wallet: bytes) -> list[Any]:
    """A wallet's rewards that are to mature, the earliest first, with what its present debt will take of each."""
    params, last, last_ns = keeper.params(state), keeper.last_epoch(state), keeper.last_report_ns(state)
    debt = keeper.register.debt_wei(state, wallet)
    found = []
    for maturity_epoch in _maturities(state, wallet):
        amounts = keeper.reward(state, maturity_epoch, wallet)
        if amounts is None:
            continue
        slashed = min(debt, amounts.both_wei)
        debt -= slashed
        one = message_class(f"{PACKAGE}.UpcomingWithdrawal")(
            reward_epoch=keeper.reward_epoch(state, maturity_epoch),
            maturity_epoch=maturity_epoch,
            mining_wei=str(amounts.mining_wei),
            traffic_wei=str(amounts.traffic_wei),
            slashed_wei=str(slashed),
        )
        if last_ns is not None and params.epoch_duration_s:
            earliest_ns = last_ns + max(0, maturity_epoch - last) * params.epoch_duration_s * NS_PER_S
            if earliest_ns <= LAST_TIME_S * NS_PER_S:
                set_ns(one.earliest_time, earliest_ns)
        found.append(one)
    return found


def _maturities(state: StateReader, wallet: bytes) -> Iterator[int]:
    """The maturity epochs of a wallet's rewards: from place to place in the index, at most two looks for each epoch that has rewards."""
    store, end = state.store(keys.STORE), keys.maturity((1 << 64) - 1)
    epoch = 0
    for _ in range(MAX_STEPS):
        entry = next(iter(store.iterate(keys.maturity(epoch, wallet), end)), None)
        if entry is None:
            return
        at, address = keys.split_maturity(entry[0])
        if address == wallet:
            yield at
        epoch = at if at > epoch and address != wallet else at + 1


def _page(found: list[Any], request: Any) -> tuple[list[Any], Any]:
    """One page of a list whose keys are the numbers of its entries."""
    if request.key and request.offset:
        raise InvalidRequest("invalid request, either offset or key is expected, got both")
    ordered = found[::-1] if request.reverse else found
    start = int.from_bytes(request.key[:8], "big") if request.key else request.offset
    stop = start + min(request.limit or DEFAULT_LIMIT, MAX_LIMIT)
    total = len(found) if request.count_total or not request.limit else 0
    return ordered[start:stop], PageResponse(next_key=stop.to_bytes(8, "big") if stop < len(found) else b"", total=total)
