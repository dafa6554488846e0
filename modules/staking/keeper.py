"""The keeper that other modules get: stake with slashing on top, and what a block does with it.

StakingStore (records) ◄── ValidatorSet (who signs) ◄── Delegations (whose coins) ◄── StakingKeeper (slashing, blocks)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import structlog

from chain.context import Context
from chain.crypto import address as bech32
from chain.dec import Dec, dec_of
from chain.errors import InvalidRequest, LogicError
from chain.module import ValidatorUpdate
from chain.store.api import StateWriter
from modules.staking.delegations import Delegations, is_mature
from modules.staking.records import BONDED, BONDED_POOL, NOT_BONDED_POOL, POWER_REDUCTION, UNBONDED
from modules.staking.store import operator_of

log = structlog.get_logger("staking")


class StakingKeeper(Delegations):
    """Validators, delegations, the validator set, and slashing."""

    def begin_block(self, ctx: Context, state: StateWriter) -> None:
        self.track_history(ctx, state)

    def end_block(self, ctx: Context, state: StateWriter) -> None:
        self.update_set(ctx, state)
        self.finish_unbonding_validators(ctx, state)
        self.finish_unbondings(ctx, state)

    def bond_genesis_validators(self, ctx: Context, state: StateWriter) -> list[ValidatorUpdate]:
        """Bond the strongest validators after genesis transactions; returns the set for CometBFT."""
        self.update_set(ctx, state)
        return self.validator_updates(state)

    # --- a new chain from this one's state ----------------------------------------------------------------------------

    def jail_all_but(self, ctx: Context, state: StateWriter, allowed: Sequence[bytes]) -> None:
        """Jail every validator whose operator is not in ``allowed``. Raises InvalidRequest for an operator without a validator, and when none of
        them can be in the set.
        """
        for operator in allowed:
            if self.validator(state, operator) is None:
                raise InvalidRequest(f"there is no validator {bech32.encode(operator, bech32.VALIDATOR)}")
        for validator in list(self.validators(state)):
            if not validator.jailed and operator_of(validator) not in allowed:
                self.jail_validator(state, validator)
        self.update_set(ctx, state)
        if not self.last_powers(state):
            raise InvalidRequest("no validator would be left to make blocks: of those that are not to be jailed, all are in jail or too weak")

    def forget_heights(self, ctx: Context, state: StateWriter) -> None:
        """Date to height 0 what unbonds and moves. Times stay, and so do the queues, which a genesis file does not hold."""
        for moved in list(self.redelegations(state)):
            for entry in moved.entries:
                entry.creation_height = 0
            self.put_redelegation(state, moved)
        for unbonding in list(self.unbondings(state)):
            for entry in unbonding.entries:
                entry.creation_height = 0
            self.put_unbonding(state, unbonding)
        for validator in list(self.validators(state)):
            validator.unbonding_height = 0
            self.set_validator(state, validator)

    # --- slashing -----------------------------------------------------------------------------------------------------

    def slash(self, ctx: Context, state: StateWriter, cons: bytes, infraction_height: int, power: int, fraction: Dec, reason: int = 0) -> int:
        """Burn ``fraction`` of the stake that a validator had (``power``) at ``infraction_height``; returns the wei taken from the validator itself.

        Stake that began to unbond or was redelegated since then pays its part first. ``reason`` (Infraction) changes nothing. Raises LogicError for
        a negative fraction, a height to come, or an unbonded validator, which is liable for nothing.
        """
        if fraction.scaled < 0:
            raise LogicError(f"attempted to slash with a negative slash factor: {fraction}")
        left = dec_of(power * POWER_REDUCTION).mul(fraction).truncate()
        validator = self.validator_by_cons(state, cons)
        if validator is None:  # it was removed meanwhile, which takes longer than evidence is accepted
            log.error("ignored attempt to slash a nonexistent validator", validator=bech32.encode(cons, bech32.CONSENSUS))
            return 0
        if validator.status == UNBONDED:
            raise LogicError(f"should not be slashing unbonded validator: {validator.operator_address}")
        operator = operator_of(validator)
        self.before_modified(ctx, state, operator)
        if infraction_height > ctx.height:
            raise LogicError(f"impossible attempt to slash future infraction at height {infraction_height} but we are at height {ctx.height}")
        if infraction_height < ctx.height:
            for unbonding in self.unbondings_from(state, operator):
                left -= self._slash_unbonding(ctx, state, unbonding, infraction_height, fraction)
            for redelegation in self.redelegations_from(state, operator):
                left -= self._slash_redelegation(ctx, state, redelegation, infraction_height, fraction)
        tokens = int(validator.tokens)
        burned = max(min(left, tokens), 0)
        if not burned:
            return 0
        lost = min(dec_of(burned).quo_round_up(dec_of(tokens)), dec_of(1))
        for hooks in self._hooks:
            hooks.before_validator_slashed(ctx, state, operator, lost)
        self.delete_by_power(state, validator)
        validator.tokens = str(tokens - burned)
        self.set_validator(state, validator)
        self.set_by_power(state, validator)
        self.burn(ctx, state, BONDED_POOL if validator.status == BONDED else NOT_BONDED_POOL, burned)
        return burned

    def _slash_unbonding(self, ctx: Context, state: StateWriter, unbonding: Any, infraction_height: int, fraction: Dec) -> int:
        """Slash what began to unbond since the infraction; returns the wei that it owed, though less may have been left."""
        owed = burned = 0
        for entry in unbonding.entries:
            if entry.creation_height < infraction_height or is_mature(entry, ctx.time_ns):
                continue
            part = fraction.mul_int(int(entry.initial_balance)).truncate()
            owed += part
            burned += self._take(entry, part)
        if burned:
            self.put_unbonding(state, unbonding)
            self.burn(ctx, state, NOT_BONDED_POOL, burned)
        return owed

    def _slash_redelegation(self, ctx: Context, state: StateWriter, redelegation: Any, infraction_height: int, fraction: Dec) -> int:
        """Slash what was moved away since the infraction, wherever it is now: unbonding from the destination first, then delegated there."""
        owed = bonded_burned = loose_burned = 0
        delegator = bech32.decode(redelegation.delegator_address)
        operator = bech32.decode(redelegation.validator_dst_address, bech32.VALIDATOR)
        for entry in redelegation.entries:
            if entry.creation_height < infraction_height or is_mature(entry, ctx.time_ns):
                continue
            part = fraction.mul_int(int(entry.initial_balance)).truncate()
            owed += part
            taken = self._slash_unbonding_of_moved(ctx, state, delegator, operator, infraction_height, part)
            loose_burned += taken
            wanted = fraction.mul(Dec(int(entry.shares_dst)))
            delegation = self.delegation(state, delegator, operator)
            if not wanted.scaled or part == taken or delegation is None:
                continue
            worth = self.unbond(ctx, state, delegator, operator, min(wanted, Dec(int(delegation.shares))))
            destination = self.validator(state, operator)  # None: these were its last shares, and it was not bonded
            if destination is not None and destination.status == BONDED:
                bonded_burned += worth
            else:
                loose_burned += worth
        self.burn(ctx, state, BONDED_POOL, bonded_burned)
        self.burn(ctx, state, NOT_BONDED_POOL, loose_burned)
        return owed

    def _slash_unbonding_of_moved(
        self, ctx: Context, state: StateWriter, delegator: bytes, operator: bytes, infraction_height: int, part: int
    ) -> int:
        """Take up to ``part`` wei from what the delegator has unbonding from ``operator``; returns what was taken."""
        unbonding = self.unbonding(state, delegator, operator)
        taken = 0
        for entry in unbonding.entries if unbonding is not None else ():
            if entry.creation_height >= infraction_height and not is_mature(entry, ctx.time_ns):
                taken += self._take(entry, part - taken)
        if taken:
            self.put_unbonding(state, unbonding)
        return taken

    @staticmethod
    def _take(entry: Any, amount_wei: int) -> int:
        """Take up to ``amount_wei`` out of an unbonding entry; returns what was taken."""
        balance = int(entry.balance)
        taken = min(amount_wei, balance)
        entry.balance = str(balance - taken)
        return taken
