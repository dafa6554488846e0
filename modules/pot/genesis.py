"""pot's section of app_state: ``stratos.pot.v1.GenesisState`` as proto JSON, the original's or ours.

The original keeps one reward per wallet and no epochs; its export counts that reward twice, as mining and as traffic. Such a section is loaded as the
original loads it, with what the immature totals say: everything matures ``mature_epoch`` epochs after the last one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from chain import coins
from chain.codec.json import from_json, to_json
from chain.codec.registry import message_class
from chain.codec.times import ns_of, set_ns
from chain.coins import parse_int
from chain.context import Context
from chain.crypto import address as bech32
from chain.errors import AppError
from chain.module import GenesisError, Json, ValidatorUpdate
from chain.ozone import MAX_AMOUNT
from chain.store.api import StateReader, StateWriter
from modules.pot import keys
from modules.pot.errors import InvalidDenom
from modules.pot.keeper import PotKeeper
from modules.pot.params import DENOM, check, default_params, gains_by_own_traffic, supply_wei
from modules.pot.records import PACKAGE, Amounts, amounts_of, reward_message, text_of, wei
from modules.pot.slashing import slash_of

GenesisState: Final = message_class(f"{PACKAGE}.GenesisState")
PATH: Final = "app_state.pot"
_ECONOMICS: Final = (
    "effective_deposit_wei",
    "unissued_prepay_wei",
    "remaining_noz",
    "reported_noz",
    "paid_noz",
    "traffic_reward_wei",
    "mining_reward_wei",
)


class PotGenesis:
    """Default, check, load and export."""

    def __init__(self, keeper: PotKeeper) -> None:
        self._keeper = keeper

    def default(self) -> Json:
        genesis = GenesisState(params=default_params(), total_mined_token={"denom": DENOM, "amount": "0"})
        return to_json(genesis)

    def validate(self, section: Json) -> None:
        _read(section)

    def warnings(self, app_state: Json) -> list[str]:
        """What a valid file should be looked at for: that who buys his own traffic may gain by it, and that there are more or fewer coins than the
        supply is kept at."""
        params = _read(app_state["pot"])[0].params
        told = [gains_by_own_traffic(params)]
        held = sum(int(one["amount"]) for one in (app_state.get("bank") or {}).get("supply") or () if one["denom"] == DENOM)
        kept = supply_wei(params)
        if held > kept:
            told.append(f"initial_total_supply: there are {held}wei; what is above {kept}wei is burnt out of the community pool, if that can")
        if 0 < held < kept:
            told.append(f"initial_total_supply: there are {held}wei; what is missing to {kept}wei is minted to the community pool in the first block")
        return [f"{PATH}.params: {one}" for one in told if one is not None]

    def load(self, ctx: Context, state: StateWriter, section: Json) -> Sequence[ValidatorUpdate]:
        genesis, rewards = _read(section)
        keeper = self._keeper
        keeper.set_params(state, genesis.params)
        keeper.set_total_mined(state, int(genesis.total_mined_token.amount or "0"))
        keeper.set_last_epoch(state, int(genesis.last_distributed_epoch or "0"))
        keeper.set_matured_epoch(state, int(genesis.matured_epoch or "0"))
        for one in genesis.mature_total_info:
            keeper.set_mature(state, bech32.decode(one.wallet_address), _wei(one.value))
        for maturity_epoch, wallet, amounts in rewards:
            keeper.add_reward(state, maturity_epoch, wallet, text_of(wallet), amounts)
            keeper.set_due(state, maturity_epoch, max(0, maturity_epoch - genesis.params.mature_epoch))
        for one in genesis.epoch_economics:
            keeper.set_economics(state, one)
            if one.maturity_epoch > int(genesis.matured_epoch or "0"):
                keeper.set_due(state, one.maturity_epoch, one.epoch)
        for one in genesis.reward_total_info:
            keeper.set_total_reward(state, int(one.epoch), one.total_reward)
        for one in genesis.reports:
            keeper.set_report(state, one.epoch, one.record)
        if genesis.HasField("last_report_time"):
            keeper.set_last_report(state, ns_of(genesis.last_report_time))
        for one in genesis.slashing_approvals:
            keeper.set_approvals(state, slash_of(one), one)
        return ()

    def export(self, ctx: Context, state: StateReader) -> Json:
        keeper = self._keeper
        genesis = GenesisState(
            params=keeper.params(state),
            total_mined_token={"denom": DENOM, "amount": str(keeper.total_mined_wei(state))},
            last_distributed_epoch=str(keeper.last_epoch(state)),
            matured_epoch=str(keeper.matured_epoch(state)),
        )
        for wallet, amount in keeper.totals(state, keys.IMMATURE):
            genesis.immature_total_info.add(wallet_address=text_of(wallet), value=wei(amount))
        for wallet, amount in keeper.totals(state, keys.MATURE):
            genesis.mature_total_info.add(wallet_address=text_of(wallet), value=wei(amount))
        for epoch, total in keeper.total_rewards(state):
            genesis.reward_total_info.add(epoch=str(epoch), total_reward=total)
        for maturity_epoch, wallet in list(keeper.maturing(state)):
            amounts = keeper.reward(state, maturity_epoch, wallet) or Amounts(0, 0)
            genesis.maturing_rewards.add(maturity_epoch=maturity_epoch, reward=reward_message(text_of(wallet), amounts))
        for epoch, record in keeper.reports(state):
            genesis.reports.add(epoch=epoch, record=record)
        last_ns = keeper.last_report_ns(state)
        if last_ns is not None:
            set_ns(genesis.last_report_time, last_ns)
        genesis.epoch_economics.extend(keeper.all_economics(state))
        genesis.slashing_approvals.extend(keeper.all_approvals(state))
        return to_json(genesis)


def _read(section: Json) -> tuple[Any, list[tuple[int, bytes, Amounts]]]:
    """(GenesisState, (maturity epoch, wallet, reward) of all that is to mature). Raises GenesisError."""
    try:
        genesis = from_json(GenesisState, section, PATH)
        check(genesis.params)
        _amount(genesis.total_mined_token.amount or "0")
        if genesis.total_mined_token.denom not in (DENOM, ""):
            raise InvalidDenom(f"total_mined_token: expected {DENOM}, got {genesis.total_mined_token.denom[:60]!r}")
    except AppError as error:
        raise GenesisError(PATH, error.detail) from None
    last = _epoch(genesis.last_distributed_epoch or "0", "last_distributed_epoch", keys.MAX_EPOCH)
    latest = last + genesis.params.mature_epoch
    matured = _epoch(genesis.matured_epoch or "0", "matured_epoch", latest)
    immature = _totals(genesis.immature_total_info, "immature_total_info")
    _totals(genesis.mature_total_info, "mature_total_info")
    rewards = _rewards(genesis, immature, matured, latest)
    sums: dict[bytes, int] = {}
    for _, wallet, amounts in rewards:
        sums[wallet] = sums.get(wallet, 0) + amounts.both_wei
    for wallet in sorted({**sums, **immature}):
        if sums.get(wallet, 0) != immature.get(wallet, 0):
            found = f"{sums.get(wallet, 0)}wei of rewards are to mature, and the immature total is {immature.get(wallet, 0)}wei"
            raise GenesisError(f"{PATH}.immature_total_info", f"{text_of(wallet)}: {found}")
    _check_epochs(genesis, last, latest)
    _check_economics(genesis)
    _check_approvals(genesis)
    return genesis, rewards


def _rewards(genesis: Any, immature: dict[bytes, int], matured: int, latest: int) -> list[tuple[int, bytes, Amounts]]:
    if genesis.individual_reward_info and genesis.maturing_rewards:
        raise GenesisError(f"{PATH}.individual_reward_info", "expected none beside maturing_rewards")
    if not genesis.maturing_rewards:
        return _original_rewards(genesis, immature, latest)
    found: dict[tuple[int, bytes], Amounts] = {}
    for at, entry in enumerate(genesis.maturing_rewards):
        where = f"{PATH}.maturing_rewards[{at}]"
        wallet, amounts = _reward(entry.reward, f"{where}.reward")
        if not matured < entry.maturity_epoch <= latest:
            raise GenesisError(f"{where}.maturity_epoch", f"expected {matured + 1} to {latest}, got {entry.maturity_epoch}")
        if (entry.maturity_epoch, wallet) in found:
            raise GenesisError(where, f"a second reward of {text_of(wallet)} that matures with epoch {entry.maturity_epoch}")
        found[entry.maturity_epoch, wallet] = amounts
    return [(epoch, wallet, amounts) for (epoch, wallet), amounts in found.items()]


def _original_rewards(genesis: Any, immature: dict[bytes, int], latest: int) -> list[tuple[int, bytes, Amounts]]:
    found: dict[bytes, Amounts] = {}
    for at, entry in enumerate(genesis.individual_reward_info):
        where = f"{PATH}.individual_reward_info[{at}]"
        wallet, amounts = _reward(entry, where)
        if wallet in found:
            raise GenesisError(where, f"a second reward of {text_of(wallet)}")
        if amounts.mining_wei == amounts.traffic_wei == immature.get(wallet, 0):
            amounts = Amounts(amounts.mining_wei, 0)
        found[wallet] = amounts
    return [(latest, wallet, amounts) for wallet, amounts in found.items()]


def _reward(reward: Any, where: str) -> tuple[bytes, Amounts]:
    for name in ("reward_from_mining_pool", "reward_from_traffic_pool"):
        _coins(getattr(reward, name), f"{where}.{name}")
    amounts = amounts_of(reward)
    if not 0 < amounts.both_wei <= MAX_AMOUNT:
        raise GenesisError(where, "expected a reward of 1 to 2^127 - 1 wei")
    return _wallet(reward.wallet_address, where), amounts


def _totals(entries: Iterable[Any], name: str) -> dict[bytes, int]:
    found: dict[bytes, int] = {}
    for at, entry in enumerate(entries):
        where = f"{PATH}.{name}[{at}]"
        wallet = _wallet(entry.wallet_address, where)
        if wallet in found:
            raise GenesisError(where, f"a second total of {entry.wallet_address}")
        found[wallet] = _coins(entry.value, f"{where}.value")
    return found


def _check_epochs(genesis: Any, last: int, latest: int) -> None:
    lists = (
        ("reward_total_info", [_epoch(one.epoch or "0", f"reward_total_info[{at}].epoch", last) for at, one in enumerate(genesis.reward_total_info)]),
        ("reports", [one.epoch for one in genesis.reports]),
        ("epoch_economics", [one.epoch for one in genesis.epoch_economics]),
    )
    for name, epochs in lists:
        for at, epoch in enumerate(epochs):
            before = epochs[at - 1] if at else 0
            if not before < epoch <= last:
                raise GenesisError(f"{PATH}.{name}[{at}].epoch", f"expected {before + 1} to {last}, ascending, got {epoch}")
    for at, one in enumerate(genesis.reward_total_info):
        for name in ("mining_reward", "traffic_reward"):
            _coins(getattr(one.total_reward, name), f"{PATH}.reward_total_info[{at}].total_reward.{name}")
    before = 0
    for at, one in enumerate(genesis.epoch_economics):
        where = f"{PATH}.epoch_economics[{at}]"
        if not max(before, one.epoch) < one.maturity_epoch <= latest:
            raise GenesisError(f"{where}.maturity_epoch", f"expected {max(before, one.epoch) + 1} to {latest}, ascending, got {one.maturity_epoch}")
        before = one.maturity_epoch
        if one.height < 0:
            raise GenesisError(f"{where}.height", f"expected 0 or more, got {one.height}")


def _check_economics(genesis: Any) -> None:
    """Every epoch with economics was reported, and paid what they say."""
    totals = {
        int(one.epoch or "0"): (_wei(one.total_reward.mining_reward), _wei(one.total_reward.traffic_reward)) for one in genesis.reward_total_info
    }
    reported = {one.epoch for one in genesis.reports}
    for at, one in enumerate(genesis.epoch_economics):
        where = f"{PATH}.epoch_economics[{at}]"
        for name in _ECONOMICS:
            try:
                _amount(getattr(one, name))
            except AppError as error:
                raise GenesisError(f"{where}.{name}", error.detail) from None
        paid = int(one.mining_reward_wei), int(one.traffic_reward_wei)
        if one.epoch not in reported or totals.get(one.epoch) != paid:
            raise GenesisError(
                where, f"expected a report and a total reward of epoch {one.epoch}, of {paid[0]}wei from mining and {paid[1]}wei from traffic"
            )


def _check_approvals(genesis: Any) -> None:
    seen: set[tuple[bytes, bytes]] = set()
    for at, one in enumerate(genesis.slashing_approvals):
        where = f"{PATH}.slashing_approvals[{at}]"
        try:
            _amount(one.slashing_noz)
            slash = slash_of(one)
            approvers = [bech32.decode(text, bech32.NODE) for text in one.approvers]
        except AppError as error:
            raise GenesisError(where, error.detail) from None
        if (slash.node, slash.content) in seen or len(set(approvers)) != len(approvers) or not approvers:
            raise GenesisError(where, "expected one entry of a content, and every approver once")
        if not one.HasField("expire_time") or not 0 <= ns_of(one.expire_time) <= keys.MAX_TIME_NS:
            raise GenesisError(f"{where}.expire_time", "expected a time from 1970 to 2262")
        seen.add((slash.node, slash.content))


def _amount(text: str) -> int:
    amount = parse_int(text)
    if not 0 <= amount <= MAX_AMOUNT:
        raise InvalidDenom("expected an amount from 0 to 2^127 - 1")
    return amount


def _coins(messages: Any, where: str) -> int:
    """wei of valid coins that are nothing else."""
    try:
        found = coins.from_messages(messages)
    except AppError as error:
        raise GenesisError(where, error.detail) from None
    if any(coin.denom != DENOM or coin.amount > MAX_AMOUNT for coin in found):
        raise GenesisError(where, f"expected {DENOM} alone, at most 2^127 - 1")
    return _wei(messages)


def _wei(messages: Any) -> int:
    return sum(int(coin.amount) for coin in messages)


def _wallet(text: str, where: str) -> bytes:
    try:
        return bech32.decode(text)
    except AppError as error:
        raise GenesisError(f"{where}.wallet_address", error.detail) from None


def _epoch(text: str, name: str, most: int) -> int:
    try:
        epoch = parse_int(text)
    except AppError as error:
        raise GenesisError(f"{PATH}.{name}", error.detail) from None
    if not 0 <= epoch <= most:
        raise GenesisError(f"{PATH}.{name}", f"expected 0 to {most}, got {epoch}")
    return epoch
