"""What always holds of stake, as the SDK's four invariants say."""

from __future__ import annotations

from collections.abc import Mapping

from chain.module import Invariant
from chain.store.api import StateReader, prefix_end
from modules.staking import keys
from modules.staking.keeper import StakingKeeper
from modules.staking.records import BONDED
from modules.staking.shares import power_of
from modules.staking.store import operator_of


def invariants(keeper: StakingKeeper) -> Mapping[str, Invariant]:
    """The module's invariants over ``keeper``; names are the SDK's routes."""

    def module_accounts(state: StateReader) -> str | None:
        bonded = loose = 0
        for validator in keeper.validators(state):
            if validator.status == BONDED:
                bonded += int(validator.tokens)
            else:
                loose += int(validator.tokens)
        loose += sum(int(entry.balance) for unbonding in keeper.unbondings(state) for entry in unbonding.entries)
        held = keeper.total_bonded(state), keeper.total_not_bonded(state)
        return None if held == (bonded, loose) else f"the pools (bonded, not bonded) hold {held} wei, stake adds up to {(bonded, loose)}"

    def nonnegative_power(state: StateReader) -> str | None:
        for key, operator in state.store(keys.STORE).iterate(keys.BY_POWER, prefix_end(keys.BY_POWER)):
            validator = keeper.validator(state, operator)
            if validator is None or key != keys.by_power(power_of(validator), operator) or int(validator.tokens) < 0 or validator.jailed:
                return f"the order of power has {key.hex()} for {validator}"
        ranked = sum(1 for _ in state.store(keys.STORE).iterate(keys.BY_POWER, prefix_end(keys.BY_POWER)))
        free = sum(1 for validator in keeper.validators(state) if not validator.jailed)
        return None if ranked == free else f"{ranked} validators are in the order of power, {free} are not jailed"

    def positive_delegation(state: StateReader) -> str | None:
        bad = [f"{one.delegator_address} → {one.validator_address}" for one in keeper.delegations(state) if int(one.shares) <= 0]
        return f"delegations without shares: {bad}" if bad else None

    def delegator_shares(state: StateReader) -> str | None:
        sums = {validator.operator_address: 0 for validator in keeper.validators(state)}
        for delegation in keeper.delegations(state):
            if delegation.validator_address not in sums:
                return f"{delegation.delegator_address} has shares of {delegation.validator_address}, which is no validator"
            sums[delegation.validator_address] += int(delegation.shares)
        for validator in keeper.validators(state):
            total = sums[validator.operator_address]
            if total != int(validator.delegator_shares):
                return f"{validator.operator_address} has {validator.delegator_shares} shares (scaled by 10^18), its delegators {total}"
        return None

    def last_powers(state: StateReader) -> str | None:
        known = list(keeper.last_powers(state))
        bonded = [operator_of(validator) for validator in keeper.validators(state) if validator.status == BONDED]
        return None if known == bonded else f"CometBFT knows {len(known)} validators, {len(bonded)} are bonded, or they are not the same"

    return {
        "module-accounts": module_accounts,
        "nonnegative-power": nonnegative_power,
        "positive-delegation": positive_delegation,
        "delegator-shares": delegator_shares,
        "last-powers": last_powers,
    }
