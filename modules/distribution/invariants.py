"""What must hold after every block; the SDK's four, by its names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from chain import dec_coins
from chain.coins import amount_of
from chain.crypto import address as bech32
from chain.dec import ONE, Dec
from chain.dec_coins import DecCoins
from chain.module import Invariant
from chain.store.api import StateReader, prefix_end
from modules.distribution import keys
from modules.distribution.expected import Staking
from modules.distribution.keeper import DistributionKeeper, operator_of

ROUNDING: Final = 10**9
_AFTERWARDS: Final = 1 << 62
"""A height after all others: what is earned up to it includes every slash."""


def invariants(keeper: DistributionKeeper, staking: Staking) -> Mapping[str, Invariant]:
    """Name → check."""

    def nonnegative_outstanding(state: StateReader) -> str | None:
        for key, _ in state.store(keys.STORE).iterate(keys.OUTSTANDING, prefix_end(keys.OUTSTANDING)):
            rewards = keeper.outstanding(state, keys.address_of(key))
            if any(scaled < 0 for _, scaled in rewards):
                return f"{bech32.encode(keys.address_of(key), bech32.VALIDATOR)} has outstanding rewards of {dec_coins.to_text(rewards)}"
        return None

    def can_withdraw(state: StateReader) -> str | None:
        """Rewards are cut to what is outstanding when they are paid: rounding may need that, by next to nothing; more must never be cut."""
        for validator in staking.validators(state):
            operator = operator_of(validator)
            if not keeper.current(state, operator).period:
                return f"{validator.operator_address} has no running period of rewards"
            owed = keeper.commission(state, operator)
            for delegation in staking.delegations_to(state, operator):
                owed = dec_coins.add(owed, keeper.earned_so_far(state, validator, delegation, _AFTERWARDS))
            outstanding = dict(keeper.outstanding(state, operator))
            for denom, scaled in owed:
                if scaled - outstanding.get(denom, 0) > ONE + scaled // ROUNDING:
                    return f"{validator.operator_address} owes {Dec(scaled)}{denom} and has {Dec(outstanding.get(denom, 0))}"
        return None

    def reference_count(state: StateReader) -> str | None:
        store = state.store(keys.STORE)
        operators = [operator_of(validator) for validator in staking.validators(state)]
        delegations = sum(1 for operator in operators for _ in staking.delegations_to(state, operator))
        slashes = sum(1 for _ in store.iterate(keys.SLASHES, prefix_end(keys.SLASHES)))
        expected = len(operators) + delegations + slashes
        found = keeper.reference_count(state)
        if found == expected:
            return None
        return f"expected {len(operators)} + {delegations} + {slashes} references of validators, delegations and slashes, found {found}"

    def module_account(state: StateReader) -> str | None:
        needed: DecCoins = keeper.holdings(state)
        balances = keeper.balances(state)
        for denom, amount in dec_coins.truncate(needed)[0]:
            if amount_of(balances, denom) < amount:
                return f"rewards and community pool are {dec_coins.to_text(needed)}, the module's account holds {amount_of(balances, denom)}{denom}"
        return None

    return {
        "nonnegative-outstanding": nonnegative_outstanding,
        "can-withdraw": can_withdraw,
        "reference-count": reference_count,
        "module-account": module_account,
    }
