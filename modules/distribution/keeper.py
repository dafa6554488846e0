"""Rewards by the F1 method, and the community pool.

    fees ─► allocate ─┬─► community pool                      tax, and what rounding leaves
                      └─► validator ─┬─► commission
                                     └─► current rewards ─► period's ratio ─► delegators

A period of a validator ends whenever its stake is about to change. ``ratio`` (rewards per token since the beginning) is kept for every ended
period that a delegation or a slash refers to; a delegation's reward is its stake times the difference of two ratios, slash by slash.
Reads and writes touch the same keys in the same order as the SDK's keeper, so gas comes out the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

import structlog

from chain import dec_coins
from chain.codec.canonical import encode
from chain.codec.registry import message_class
from chain.coins import Coin, Coins
from chain.context import Context
from chain.crypto import address as bech32
from chain.dec import ONE, Dec, from_wire
from chain.dec_coins import DecCoins
from chain.errors import InvalidCoins, InvariantBroken, Unauthorized
from chain.store.api import StateReader, StateWriter, prefix_end
from modules.distribution import events, keys
from modules.distribution.errors import (
    DelegationNotFound,
    NoCommission,
    NoDelegationInfo,
    PoolTooSmall,
    ValidatorNotFound,
    WithdrawAddressDisabled,
)
from modules.distribution.expected import Accounts, Bank, Staking
from modules.distribution.params import Params

NAME: Final = "distribution"
FEE_COLLECTOR: Final = "fee_collector"
BASE_DENOM: Final = "wei"
MAX_INFLOW_BITS: Final = 200
"""Of one amount that comes in at once. Sums and ratios (315 bits, scaled) overflow after 2^55 such inflows at the earliest: never."""
MAX_DENOMS: Final = 64
"""Beside wei, of the fees shared out in a block and of a validator's outstanding rewards: every block goes through all of them."""
MAX_REFERENCES: Final = 3
STAKE_MARGIN: Final = ONE
"""10^-18 units by which a stake that a delegation began with may exceed what its shares are worth now: 1 wei. Whoever undelegates from a slashed
validator can choose amounts that round up, by half of 10^-18 wei each, at the others' cost. The SDK stops above 3 units, which a dozen of them reach.
"""

log = structlog.get_logger("distribution")

FeePool: Final = message_class("cosmos.distribution.v1beta1.FeePool")
HistoricalMessage: Final = message_class("cosmos.distribution.v1beta1.ValidatorHistoricalRewards")
CurrentMessage: Final = message_class("cosmos.distribution.v1beta1.ValidatorCurrentRewards")
Commission: Final = message_class("cosmos.distribution.v1beta1.ValidatorAccumulatedCommission")
Outstanding: Final = message_class("cosmos.distribution.v1beta1.ValidatorOutstandingRewards")
StartingInfoMessage: Final = message_class("cosmos.distribution.v1beta1.DelegatorStartingInfo")
SlashEvent: Final = message_class("cosmos.distribution.v1beta1.ValidatorSlashEvent")
_Proposer: Final = message_class("google.protobuf.BytesValue")


class Historical(NamedTuple):
    """An ended period: rewards per token from the validator's first period to this one, and how many records refer to it."""

    ratio: DecCoins
    references: int


class Current(NamedTuple):
    """The period that is running, and the rewards in it so far."""

    rewards: DecCoins
    period: int


class StartingInfo(NamedTuple):
    """Since when a delegation earns: the period that ended before, its stake then, and the height."""

    previous_period: int
    stake: Dec
    height: int


class Records:
    """The store's records as Python values."""

    def params(self, state: StateReader) -> Any:
        return Params.FromString(state.store(keys.STORE).get(keys.PARAMS) or b"")

    def set_params(self, state: StateWriter, params: Any) -> None:
        state.store(keys.STORE).set(keys.PARAMS, encode(params))

    def community_pool(self, state: StateReader) -> DecCoins:
        raw = state.store(keys.STORE).get(keys.FEE_POOL)
        return dec_coins.from_messages(FeePool.FromString(raw or b"").community_pool)

    def set_community_pool(self, state: StateWriter, pool: DecCoins) -> None:
        state.store(keys.STORE).set(keys.FEE_POOL, encode(FeePool(community_pool=dec_coins.to_messages(pool))))

    def add_to_pool(self, state: StateWriter, amount: DecCoins) -> None:
        self.set_community_pool(state, dec_coins.add(self.community_pool(state), amount))

    def previous_proposer(self, state: StateReader) -> bytes:
        """Consensus address; empty before the first block."""
        found: bytes = _Proposer.FromString(state.store(keys.STORE).get(keys.PROPOSER) or b"").value
        return found

    def set_previous_proposer(self, state: StateWriter, cons: bytes) -> None:
        state.store(keys.STORE).set(keys.PROPOSER, encode(_Proposer(value=cons)))

    def withdraw_address(self, state: StateReader, delegator: bytes) -> bytes:
        """Where a delegator's rewards go: the address it has set, or its own."""
        return state.store(keys.STORE).get(keys.withdraw_address(delegator)) or delegator

    def set_withdraw_address(self, state: StateWriter, delegator: bytes, address: bytes) -> None:
        state.store(keys.STORE).set(keys.withdraw_address(delegator), address)

    def outstanding(self, state: StateReader, operator: bytes) -> DecCoins:
        """What a validator and its delegators have not withdrawn yet, commission included."""
        raw = state.store(keys.STORE).get(keys.outstanding(operator))
        return dec_coins.from_messages(Outstanding.FromString(raw or b"").rewards)

    def set_outstanding(self, state: StateWriter, operator: bytes, rewards: DecCoins) -> None:
        state.store(keys.STORE).set(keys.outstanding(operator), encode(Outstanding(rewards=dec_coins.to_messages(rewards))))

    def commission(self, state: StateReader, operator: bytes) -> DecCoins:
        """A validator's own part that it has not withdrawn yet."""
        raw = state.store(keys.STORE).get(keys.commission(operator))
        return dec_coins.from_messages(Commission.FromString(raw or b"").commission)

    def set_commission(self, state: StateWriter, operator: bytes, commission: DecCoins) -> None:
        state.store(keys.STORE).set(keys.commission(operator), encode(Commission(commission=dec_coins.to_messages(commission))))

    def current(self, state: StateReader, operator: bytes) -> Current:
        found = CurrentMessage.FromString(state.store(keys.STORE).get(keys.current(operator)) or b"")
        return Current(dec_coins.from_messages(found.rewards), found.period)

    def set_current(self, state: StateWriter, operator: bytes, current: Current) -> None:
        rewards = dec_coins.to_messages(current.rewards)
        state.store(keys.STORE).set(keys.current(operator), encode(CurrentMessage(rewards=rewards, period=current.period)))

    def historical(self, state: StateReader, operator: bytes, period: int) -> Historical:
        found = HistoricalMessage.FromString(state.store(keys.STORE).get(keys.historical(operator, period)) or b"")
        return Historical(dec_coins.from_messages(found.cumulative_reward_ratio), found.reference_count)

    def set_historical(self, state: StateWriter, operator: bytes, period: int, historical: Historical) -> None:
        ratio = dec_coins.to_messages(historical.ratio)
        record = HistoricalMessage(cumulative_reward_ratio=ratio, reference_count=historical.references)
        state.store(keys.STORE).set(keys.historical(operator, period), encode(record))

    def reference_count(self, state: StateReader) -> int:
        """Of all ended periods together."""
        found = state.store(keys.STORE).iterate(keys.HISTORICAL, prefix_end(keys.HISTORICAL))
        return sum(HistoricalMessage.FromString(raw).reference_count for _, raw in found)

    def starting_info(self, state: StateReader, operator: bytes, delegator: bytes) -> StartingInfo:
        found = StartingInfoMessage.FromString(state.store(keys.STORE).get(keys.starting_info(operator, delegator)) or b"")
        return StartingInfo(found.previous_period, from_wire(found.stake), found.height)

    def set_starting_info(self, state: StateWriter, operator: bytes, delegator: bytes, info: StartingInfo) -> None:
        record = StartingInfoMessage(previous_period=info.previous_period, stake=str(info.stake.scaled), height=info.height)
        state.store(keys.STORE).set(keys.starting_info(operator, delegator), encode(record))

    def slashes_between(self, state: StateReader, operator: bytes, first: int, last: int) -> Iterator[Any]:
        """ValidatorSlashEvents from height ``first`` to ``last``, both included, oldest first."""
        for _, raw in state.store(keys.STORE).iterate(keys.slashes_from(operator, first), keys.slashes_from(operator, last + 1)):
            yield SlashEvent.FromString(raw)

    def set_slash(self, state: StateWriter, operator: bytes, height: int, period: int, event: Any) -> None:
        state.store(keys.STORE).set(keys.slash(operator, height, period), encode(event))


class DistributionKeeper(Records):
    """Allocates, pays out, and keeps the community pool. Its coins are in the account of the module ``distribution``."""

    def __init__(self, accounts: Accounts, bank: Bank, staking: Staking) -> None:
        self._accounts = accounts
        self._bank = bank
        self._staking = staking

    # --- in: each block, and gifts ------------------------------------------------------------------------------------

    def allocate(self, ctx: Context, state: StateWriter) -> None:
        """Share the fees of the last block among those whose votes it was made with, by power; tax and remainders to the community pool.

        An amount of more than 200 bits, and denoms after the 64th, stay with the fee collector for now. A vote of a validator that is gone leaves
        its part to the pool, and so does a denom for which a validator has no room.
        """
        fees = self._collected(state, self._accounts.module_account(ctx, state, FEE_COLLECTOR).address)
        self._bank.send_between_modules(ctx, state, FEE_COLLECTOR, NAME, fees)
        pool = self.community_pool(state)
        remaining = dec_coins.from_coins(fees)
        total_power = sum(vote.power for vote in ctx.last_commit)
        if total_power:
            kept = Dec(ONE - from_wire(self.params(state).community_tax).scaled)
            shared = dec_coins.multiply_truncate(remaining, kept)
            for vote in ctx.last_commit:
                validator = self._staking.validator_by_cons(state, vote.validator_address)
                if validator is None:
                    continue
                fraction = Dec(vote.power * ONE).quo_truncate(Dec(total_power * ONE))
                reward = self._with_room(state, validator, dec_coins.multiply_truncate(shared, fraction))
                self.allocate_to(ctx, state, validator, reward)
                remaining = less(remaining, reward)
        self.set_community_pool(state, dec_coins.add(pool, remaining))

    def _collected(self, state: StateReader, collector: bytes) -> Coins:
        found = dict(self._bank.balances(state, collector, MAX_DENOMS))
        found[BASE_DENOM] = self._bank.balance(state, collector, BASE_DENOM)
        return tuple(Coin(denom, found[denom]) for denom in sorted(found) if 0 < found[denom] < 1 << MAX_INFLOW_BITS)

    def _with_room(self, state: StateReader, validator: Any, reward: DecCoins) -> DecCoins:
        known = dict(self.outstanding(state, operator_of(validator)))
        too_many = [denom for denom, _ in reward if denom not in known and denom != BASE_DENOM][max(MAX_DENOMS - len(known), 0) :]
        return tuple(coin for coin in reward if coin.denom not in too_many) if too_many else reward

    def allocate_to(self, ctx: Context, state: StateWriter, validator: Any, tokens: DecCoins) -> DecCoins:
        """Give ``tokens``, which the module already holds, to a validator and its delegators; returns what is outstanding then."""
        operator = operator_of(validator)
        commission = dec_coins.multiply(tokens, from_wire(validator.commission.commission_rates.rate))
        shared = less(tokens, commission)
        events.commission(ctx, commission, operator)
        self.set_commission(state, operator, dec_coins.add(self.commission(state, operator), commission))
        current = self.current(state, operator)
        self.set_current(state, operator, Current(dec_coins.add(current.rewards, shared), current.period))
        events.rewards(ctx, tokens, operator)
        outstanding = dec_coins.add(self.outstanding(state, operator), tokens)
        self.set_outstanding(state, operator, outstanding)
        return outstanding

    def fund_community_pool(self, ctx: Context, state: StateWriter, amount: Coins, sender: bytes) -> None:
        """Move ``amount`` from ``sender`` to the community pool. Raises InvalidCoins, InsufficientFunds."""
        check_inflow(amount)
        self._bank.send_to_module(ctx, state, sender, NAME, amount)
        self.add_to_pool(state, dec_coins.from_coins(amount))

    def deposit_rewards(self, ctx: Context, state: StateWriter, amount: Coins, depositor: bytes, operator: bytes) -> None:
        """Move ``amount`` from ``depositor`` to a validator's rewards. Raises InvalidCoins, InsufficientFunds, ValidatorNotFound."""
        check_inflow(amount)
        self._bank.send_to_module(ctx, state, depositor, NAME, amount)
        outstanding = self.allocate_to(ctx, state, self.require_validator(state, operator), dec_coins.from_coins(amount))
        if len(outstanding) > MAX_DENOMS + 1:
            raise InvalidCoins(f"a validator's outstanding rewards have at most {MAX_DENOMS} denoms beside {BASE_DENOM}, got {len(outstanding)}")

    # --- out ----------------------------------------------------------------------------------------------------------

    def spend_pool(self, ctx: Context, state: StateWriter, amount: Coins, recipient: bytes) -> None:
        """Pay ``amount`` out of the community pool. Raises PoolTooSmall, Unauthorized (a blocked recipient)."""
        left = dec_coins.subtract(self.community_pool(state), dec_coins.from_coins(amount))
        if left is None:
            raise PoolTooSmall
        self._bank.send_from_module(ctx, state, NAME, recipient, amount)
        self.set_community_pool(state, left)

    def change_withdraw_address(self, ctx: Context, state: StateWriter, delegator: bytes, address: bytes) -> None:
        """Raises Unauthorized for a blocked address, WithdrawAddressDisabled where parameters forbid it."""
        if self._bank.is_blocked(address):
            raise Unauthorized(f"{bech32.encode(address)} is not allowed to receive external funds")
        if not self.params(state).withdraw_addr_enabled:
            raise WithdrawAddressDisabled
        events.set_withdraw_address(ctx, address)
        self.set_withdraw_address(state, delegator, address)

    def withdraw_rewards(self, ctx: Context, state: StateWriter, delegator: bytes, operator: bytes) -> Coins:
        """Pay a delegation's rewards; returns them (0wei for none). Raises ValidatorNotFound, DelegationNotFound, NoDelegationInfo."""
        validator = self.require_validator(state, operator)
        paid = self.settle(ctx, state, validator, self.require_delegation(state, delegator, operator))
        self.start_earning(ctx, state, operator, delegator)
        return paid

    def withdraw_commission(self, ctx: Context, state: StateWriter, operator: bytes) -> Coins:
        """Pay a validator's commission in whole units; the rest stays. Raises NoCommission."""
        commission = self.commission(state, operator)
        if not commission:
            raise NoCommission
        whole, left = dec_coins.truncate(commission)
        self.set_commission(state, operator, left)
        outstanding = self.outstanding(state, operator)
        if dec_coins.subtract(outstanding, dec_coins.from_coins(whole)) is None:  # rounding paid delegators a part of it
            whole = dec_coins.truncate(dec_coins.intersect(commission, outstanding))[0]
            self.set_commission(state, operator, less(commission, dec_coins.from_coins(whole)))
        self.set_outstanding(state, operator, less(outstanding, dec_coins.from_coins(whole)))
        if whole:
            self.pay(ctx, state, operator, whole)
        events.withdraw_commission(ctx, whole)
        return whole

    def pay(self, ctx: Context, state: StateWriter, delegator: bytes, amount: Coins) -> None:
        """Send to the delegator's withdraw address, or to its own where an upgrade has blocked the other since it was set."""
        address = self.withdraw_address(state, delegator)
        self._bank.send_from_module(ctx, state, NAME, delegator if self._bank.is_blocked(address) else address, amount)

    # --- periods ------------------------------------------------------------------------------------------------------

    def start_validator(self, state: StateWriter, operator: bytes) -> None:
        """The records of a new validator: period 0 has ended, period 1 runs."""
        self.set_historical(state, operator, 0, Historical((), 1))
        self.set_current(state, operator, Current((), 1))
        self.set_commission(state, operator, ())
        self.set_outstanding(state, operator, ())

    def end_period(self, state: StateWriter, validator: Any) -> int:
        """End the running period and return its number. Rewards of a validator without tokens go to the community pool."""
        operator = operator_of(validator)
        current = self.current(state, operator)
        if not int(validator.tokens):
            pool = self.community_pool(state)
            outstanding = self.outstanding(state, operator)
            there = dec_coins.intersect(current.rewards, outstanding)  # rounding may have paid a part of it to delegators
            self.set_community_pool(state, dec_coins.add(pool, there))
            self.set_outstanding(state, operator, less(outstanding, there))
        before = self.historical(state, operator, current.period - 1)
        self.release(state, operator, current.period - 1)
        self.set_historical(state, operator, current.period, Historical(_ratio_after(before, current, validator), 1))
        self.set_current(state, operator, Current((), current.period + 1))
        return current.period

    def refer(self, state: StateWriter, operator: bytes, period: int) -> None:
        """One more record refers to an ended period."""
        found = self.historical(state, operator, period)
        if found.references >= MAX_REFERENCES:
            raise InvariantBroken(f"period {period} of {bech32.encode(operator, bech32.VALIDATOR)} has {found.references} references already")
        self.set_historical(state, operator, period, found._replace(references=found.references + 1))

    def release(self, state: StateWriter, operator: bytes, period: int) -> None:
        """One record less refers to an ended period; the last one takes it along."""
        found = self.historical(state, operator, period)
        if not found.references:
            raise InvariantBroken(f"period {period} of {bech32.encode(operator, bech32.VALIDATOR)} has no reference to give up")
        if found.references == 1:
            state.store(keys.STORE).delete(keys.historical(operator, period))
        else:
            self.set_historical(state, operator, period, found._replace(references=found.references - 1))

    # --- delegations --------------------------------------------------------------------------------------------------

    def start_earning(self, ctx: Context, state: StateWriter, operator: bytes, delegator: bytes) -> None:
        """A delegation with its stake of now earns from the running period on."""
        previous = self.current(state, operator).period - 1
        self.refer(state, operator, previous)
        validator = self.require_validator(state, operator)
        shares = from_wire(self.require_delegation(state, delegator, operator).shares)
        stake = self._staking.tokens_from_shares_truncated(validator, shares)
        self.set_starting_info(state, operator, delegator, StartingInfo(previous, stake, ctx.height))

    def settle(self, ctx: Context, state: StateWriter, validator: Any, delegation: Any) -> Coins:
        """End the period, pay what the delegation has earned, and forget since when it earned. Raises NoDelegationInfo."""
        operator, delegator = operator_of(validator), bech32.decode(delegation.delegator_address)
        store = state.store(keys.STORE)
        if not store.has(keys.starting_info(operator, delegator)):
            raise NoDelegationInfo
        period = self.end_period(state, validator)
        earned = self.earned(state, validator, delegation, ctx.height, lambda: self.historical(state, operator, period).ratio)
        outstanding = self.outstanding(state, operator)
        rewards = dec_coins.intersect(earned, outstanding)
        if rewards != earned:
            log.info("rewards are cut to what is there", validator=validator.operator_address, earned=dec_coins.to_text(earned))
        whole, rest = dec_coins.truncate(rewards)
        if whole:
            self.pay(ctx, state, delegator, whole)
        self.set_outstanding(state, operator, less(outstanding, rewards))
        self.add_to_pool(state, rest)
        self.release(state, operator, self.starting_info(state, operator, delegator).previous_period)
        store.delete(keys.starting_info(operator, delegator))
        shown = whole or (Coin(BASE_DENOM, 0),)
        events.withdraw_rewards(ctx, shown, operator, delegator)
        return shown

    def earned(self, state: StateReader, validator: Any, delegation: Any, height: int, ending: Callable[[], DecCoins]) -> DecCoins:
        """What a delegation has earned at ``height``, up to a period with the ratio ``ending()``, cut at 18 places in every stretch between slashes."""
        operator, delegator = operator_of(validator), bech32.decode(delegation.delegator_address)
        info = self.starting_info(state, operator, delegator)
        if info.height == height:
            return ()
        period, stake = info.previous_period, info.stake
        rewards: DecCoins = ()

        def stretch(until: Callable[[], DecCoins]) -> DecCoins:
            return dec_coins.multiply_truncate(_difference(self.historical(state, operator, period).ratio, until()), stake)

        for event in self.slashes_between(state, operator, info.height, height):
            if event.validator_period > period:
                ended: int = event.validator_period
                rewards = dec_coins.add(rewards, stretch(lambda ended=ended: self.historical(state, operator, ended).ratio))  # type: ignore[misc]
                stake = stake.mul_truncate(Dec(ONE - from_wire(event.fraction).scaled))
                period = ended
        now = self._staking.tokens_from_shares(validator, from_wire(delegation.shares))
        if stake > now:
            if stake.scaled > now.scaled + STAKE_MARGIN:
                raise InvariantBroken(f"the stake of {delegation.delegator_address} is {stake} by its slashes, {now} by its shares")
            stake = now
        return dec_coins.add(rewards, stretch(ending))

    def earned_so_far(self, state: StateReader, validator: Any, delegation: Any, height: int) -> DecCoins:
        """What a delegation has earned at ``height`` if the running period ends there; writes nothing."""
        operator = operator_of(validator)
        current = self.current(state, operator)
        before = self.historical(state, operator, current.period - 1)
        return self.earned(state, validator, delegation, height, lambda: _ratio_after(before, current, validator))

    # --- what must be there -------------------------------------------------------------------------------------------

    def require_validator(self, state: StateReader, operator: bytes) -> Any:
        """Raises ValidatorNotFound (staking/3)."""
        validator = self._staking.validator(state, operator)
        if validator is None:
            raise ValidatorNotFound
        return validator

    def require_delegation(self, state: StateReader, delegator: bytes, operator: bytes) -> Any:
        """Raises DelegationNotFound (staking/19)."""
        delegation = self._staking.delegation(state, delegator, operator)
        if delegation is None:
            raise DelegationNotFound
        return delegation

    def holdings(self, state: StateReader) -> DecCoins:
        """What the module's account must hold: all outstanding rewards and the community pool."""
        total = self.community_pool(state)
        for _, raw in state.store(keys.STORE).iterate(keys.OUTSTANDING, prefix_end(keys.OUTSTANDING)):
            total = dec_coins.add(total, dec_coins.from_messages(Outstanding.FromString(raw).rewards))
        return total

    def balances(self, state: StateReader) -> Coins:
        """What the module's account holds."""
        return self._bank.balances(state, self._accounts.module_addresses[NAME])


def operator_of(validator: Any) -> bytes:
    """The operator's address of a validator message."""
    return bech32.decode(validator.operator_address, bech32.VALIDATOR)


def check_inflow(amount: Coins) -> None:
    """Raise InvalidCoins (sdk/10) for an amount that, repeated, could one day overflow the sums: a block must never stop for it."""
    for denom, each in amount:
        if each.bit_length() > MAX_INFLOW_BITS:
            raise InvalidCoins(f"at most {MAX_INFLOW_BITS} bits of a denom can be given to rewards or the community pool at once, got {each}{denom}")


def _ratio_after(before: Historical, current: Current, validator: Any) -> DecCoins:
    tokens = int(validator.tokens)
    if not tokens:
        return before.ratio
    return dec_coins.add(before.ratio, dec_coins.divide_truncate(current.rewards, Dec(tokens * ONE)))


def _difference(start: DecCoins, end: DecCoins) -> DecCoins:
    difference = dec_coins.subtract(end, start)
    if difference is None:
        raise InvariantBroken(f"a ratio fell from {dec_coins.to_text(start)} to {dec_coins.to_text(end)}")
    return difference


def less(left: DecCoins, right: DecCoins) -> DecCoins:
    """``left - right``. Raises InvariantBroken when there is less: a promise of ours."""
    result = dec_coins.subtract(left, right)
    if result is None:
        raise InvariantBroken(f"{dec_coins.to_text(right)} cannot be taken from {dec_coins.to_text(left)}")
    return result
