"""Distribution's section of app_state: ``cosmos.distribution.v1beta1.GenesisState`` as proto JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Final

from chain import coins, dec_coins
from chain.codec.json import from_json, to_json
from chain.codec.registry import message_class
from chain.context import Context
from chain.crypto import address as bech32
from chain.dec import ONE, DecError, from_wire
from chain.errors import AppError
from chain.module import GenesisError, Json, ValidatorUpdate
from chain.store.api import StateReader, StateWriter, prefix_end
from modules.distribution import keys
from modules.distribution.expected import Accounts
from modules.distribution.keeper import (
    NAME,
    Commission,
    Current,
    CurrentMessage,
    DistributionKeeper,
    Historical,
    HistoricalMessage,
    Outstanding,
    SlashEvent,
    StartingInfo,
    StartingInfoMessage,
)
from modules.distribution.params import check_params, default_params

GenesisState: Final = message_class("cosmos.distribution.v1beta1.GenesisState")
PATH: Final = "app_state.distribution"
MAX_AMOUNT_BITS: Final = 300
"""Of any scaled amount, ratio or stake that is loaded: room for what comes in later (``MAX_INFLOW_BITS``)."""
MAX_HEIGHT: Final = (1 << 63) - 1


class DistributionGenesis:
    """Default, check, load and export."""

    def __init__(self, keeper: DistributionKeeper, accounts: Accounts) -> None:
        self._keeper = keeper
        self._accounts = accounts

    def default(self) -> Json:
        return to_json(GenesisState(params=default_params()))

    def validate(self, section: Json) -> None:
        _read(section)

    def load(self, ctx: Context, state: StateWriter, section: Json) -> Sequence[ValidatorUpdate]:
        """Raises GenesisError also when the module's account holds less than the section owes; more is fine, as anybody may send to it."""
        genesis, keeper = _read(section), self._keeper
        keeper.set_community_pool(state, dec_coins.from_messages(genesis.fee_pool.community_pool))
        keeper.set_params(state, genesis.params)
        for info in genesis.delegator_withdraw_infos:
            keeper.set_withdraw_address(state, bech32.decode(info.delegator_address), bech32.decode(info.withdraw_address))
        keeper.set_previous_proposer(state, bech32.decode(genesis.previous_proposer, bech32.CONSENSUS) if genesis.previous_proposer else b"")
        for record in genesis.outstanding_rewards:
            keeper.set_outstanding(state, _operator(record), dec_coins.from_messages(record.outstanding_rewards))
        for record in genesis.validator_accumulated_commissions:
            keeper.set_commission(state, _operator(record), dec_coins.from_messages(record.accumulated.commission))
        for record in genesis.validator_historical_rewards:
            ratio = dec_coins.from_messages(record.rewards.cumulative_reward_ratio)
            keeper.set_historical(state, _operator(record), record.period, Historical(ratio, record.rewards.reference_count))
        for record in genesis.validator_current_rewards:
            rewards = dec_coins.from_messages(record.rewards.rewards)
            keeper.set_current(state, _operator(record), Current(rewards, record.rewards.period))
        for record in genesis.delegator_starting_infos:
            info = record.starting_info
            started = StartingInfo(info.previous_period, from_wire(info.stake), info.height)
            keeper.set_starting_info(state, _operator(record), bech32.decode(record.delegator_address), started)
        for record in genesis.validator_slash_events:
            keeper.set_slash(state, _operator(record), record.height, record.period, record.validator_slash_event)
        self._accounts.module_account(ctx, state, NAME)
        needed, balances = dec_coins.truncate(keeper.holdings(state))[0], keeper.balances(state)
        if any(coins.amount_of(balances, denom) < amount for denom, amount in needed):
            problem = f"outstanding rewards and community pool are {coins.to_text(needed)}, the module's account holds {coins.to_text(balances)}"
            raise GenesisError(PATH, problem)
        return ()

    def export(self, ctx: Context, state: StateReader) -> Json:
        keeper, store = self._keeper, state.store(keys.STORE)
        genesis = GenesisState(params=keeper.params(state), previous_proposer=bech32.encode(keeper.previous_proposer(state), bech32.CONSENSUS))
        genesis.fee_pool.community_pool.extend(dec_coins.to_messages(keeper.community_pool(state)))

        def entries(prefix: bytes, message: Any) -> Iterable[tuple[bytes, str, Any]]:
            """(what follows the operator's address in the key, that address, record) of every key under a prefix."""
            for key, raw in store.iterate(prefix, prefix_end(prefix)):
                operator = bech32.encode(keys.address_of(key), bech32.VALIDATOR)
                yield keys.after_address(key), operator, message.FromString(raw)

        for key, address in store.iterate(keys.WITHDRAW_ADDRESSES, prefix_end(keys.WITHDRAW_ADDRESSES)):
            delegator = bech32.encode(keys.address_of(key))
            genesis.delegator_withdraw_infos.add(delegator_address=delegator, withdraw_address=bech32.encode(address))
        for _, operator, found in entries(keys.OUTSTANDING, Outstanding):
            genesis.outstanding_rewards.add(validator_address=operator, outstanding_rewards=found.rewards)
        for _, operator, found in entries(keys.COMMISSIONS, Commission):
            genesis.validator_accumulated_commissions.add(validator_address=operator, accumulated=found)
        for rest, operator, found in entries(keys.HISTORICAL, HistoricalMessage):
            genesis.validator_historical_rewards.add(validator_address=operator, period=int.from_bytes(rest, "little"), rewards=found)
        for _, operator, found in entries(keys.CURRENT, CurrentMessage):
            genesis.validator_current_rewards.add(validator_address=operator, rewards=found)
        for rest, operator, found in entries(keys.STARTING_INFOS, StartingInfoMessage):
            genesis.delegator_starting_infos.add(validator_address=operator, delegator_address=bech32.encode(rest[1:]), starting_info=found)
        for rest, operator, found in entries(keys.SLASHES, SlashEvent):
            height, period = int.from_bytes(rest[:8], "big"), found.validator_period
            genesis.validator_slash_events.add(validator_address=operator, height=height, period=period, validator_slash_event=found)
        return to_json(genesis)


def _operator(record: Any) -> bytes:
    return bech32.decode(record.validator_address, bech32.VALIDATOR)


def _read(section: Json) -> Any:
    """GenesisState. Raises GenesisError."""
    path = PATH
    try:
        genesis = from_json(GenesisState, section, PATH)
        path = f"{PATH}.params"
        check_params(genesis.params)
        path = f"{PATH}.fee_pool"
        _check_coins(genesis.fee_pool.community_pool)
        path = f"{PATH}.previous_proposer"
        if genesis.previous_proposer:
            bech32.decode(genesis.previous_proposer, bech32.CONSENSUS)
        for at, info in enumerate(genesis.delegator_withdraw_infos):
            path = f"{PATH}.delegator_withdraw_infos[{at}]"
            bech32.decode(info.delegator_address)
            bech32.decode(info.withdraw_address)
        for name in ("outstanding_rewards", "validator_accumulated_commissions", "validator_historical_rewards", "validator_current_rewards"):
            for at, record in enumerate(getattr(genesis, name)):
                path = f"{PATH}.{name}[{at}]"
                _operator(record)
                _check_coins(_coins_of(record))
        for at, record in enumerate(genesis.delegator_starting_infos):
            path = f"{PATH}.delegator_starting_infos[{at}]"
            _operator(record)
            bech32.decode(record.delegator_address)
            _check_amount(record.starting_info.stake, MAX_AMOUNT_BITS, "stake")
        for at, record in enumerate(genesis.validator_slash_events):
            path = f"{PATH}.validator_slash_events[{at}]"
            _operator(record)
            _check_amount(record.validator_slash_event.fraction, ONE.bit_length(), "fraction")
            if from_wire(record.validator_slash_event.fraction).scaled > ONE:
                raise GenesisError(path, "a fraction is at most 1")
            if record.period != record.validator_slash_event.validator_period:
                raise GenesisError(path, f"period is {record.period}, of the event itself {record.validator_slash_event.validator_period}")
            if record.height > MAX_HEIGHT:
                raise GenesisError(path, f"a height is at most {MAX_HEIGHT}, got {record.height}")
    except (AppError, DecError) as error:
        raise GenesisError(path, error.detail if isinstance(error, AppError) else str(error)) from None
    _check_references(genesis)
    return genesis


def _check_references(genesis: Any) -> None:
    """Every ended period is kept for as many records as it says: the one that runs after it, delegations, slashes. Else a block would stop one day."""
    needed: Counter[tuple[bytes, int]] = Counter()
    running: dict[bytes, int] = {}
    for at, record in enumerate(genesis.validator_current_rewards):
        operator, period = _operator(record), record.rewards.period
        if not period or operator in running:
            raise GenesisError(f"{PATH}.validator_current_rewards[{at}]", "expected a period above 0, once for each validator")
        running[operator] = period
        needed[operator, period - 1] += 1
    for record in genesis.delegator_starting_infos:
        needed[_operator(record), record.starting_info.previous_period] += 1
    for record in genesis.validator_slash_events:
        needed[_operator(record), record.period] += 1
    for at, record in enumerate(genesis.validator_historical_rewards):
        found, expected = record.rewards.reference_count, needed.pop((_operator(record), record.period), 0)
        if found != expected:
            problem = f"period {record.period} of {record.validator_address} is kept for {found} records, {expected} refer to it"
            raise GenesisError(f"{PATH}.validator_historical_rewards[{at}]", problem)
    for operator, period in needed:
        problem = f"period {period} of {bech32.encode(operator, bech32.VALIDATOR)} is missing, and other records refer to it"
        raise GenesisError(f"{PATH}.validator_historical_rewards", problem)


def _coins_of(record: Any) -> Any:
    match record.DESCRIPTOR.name:
        case "ValidatorOutstandingRewardsRecord":
            return record.outstanding_rewards
        case "ValidatorAccumulatedCommissionRecord":
            return record.accumulated.commission
        case "ValidatorHistoricalRewardsRecord":
            return record.rewards.cumulative_reward_ratio
        case _:
            return record.rewards.rewards


def _check_coins(messages: Any) -> None:
    dec_coins.parse_messages(messages, MAX_AMOUNT_BITS)


def _check_amount(wire: str, most_bits: int, what: str) -> None:
    value = from_wire(wire)
    if value.scaled < 0 or value.scaled.bit_length() > most_bits:
        raise DecError(f"{what} must not be negative and has at most {most_bits} bits, scaled by 10^18; got {value}")
