"""How stake comes, moves and goes. Coins that leave a bonded validator stay in the pool of unbonding stake until their time has come, so that
they can still be slashed.
"""

from __future__ import annotations

from typing import Any, Final

import structlog

from chain.codec.canonical import encode
from chain.codec.times import ns_of, set_ns
from chain.context import Context
from chain.crypto import address as bech32
from chain.dec import Dec
from chain.errors import AppError, InvalidRequest
from chain.store.api import StateReader, StateWriter
from modules.staking import events, keys, shares
from modules.staking.errors import (
    InvalidExchangeRate,
    NoDelegation,
    NoDelegator,
    NoDestination,
    NoSource,
    NotEnoughShares,
    SelfRedelegation,
    TinyRedelegation,
    TooManyRedelegations,
    TooManyUnbondings,
    TransitiveRedelegation,
)
from modules.staking.records import (
    BONDED,
    BONDED_POOL,
    NO_TIME_NS,
    NOT_BONDED_POOL,
    UNBONDED,
    UNBONDING,
    Delegation,
    Pairs,
    Redelegation,
    Triplets,
    UnbondingDelegation,
    copy_of,
)
from modules.staking.store import OF_REDELEGATION, OF_UNBONDING, operator_of
from modules.staking.validator_set import ValidatorSet

log = structlog.get_logger("staking")

MAX_FINISHED: Final = 10_000
"""Entries of each queue that one block finishes. No block of ordinary load has as many; after a halt of the chain the rest comes block by block."""
MAX_FINISHED_GAS: Final = 400_000_000
"""What finishing the entries of one queue may cost a block, by the gas that a transaction would pay: some 27,000 each. Only accounts with thousands
of vesting periods, which are read and written as a whole, cost so much more that this counts.
"""


class Delegations(ValidatorSet):
    """Delegating, unbonding, redelegating, and what becomes of both when their time has come."""

    def delegate(
        self, ctx: Context, state: StateWriter, delegator: bytes, amount: int, source_status: int, validator: Any, subtract_account: bool
    ) -> Dec:
        """Give ``amount`` wei to a validator; returns the new shares.

        With ``subtract_account`` the coins come from the delegator's account (locked ones included), else from the pool that a validator of
        ``source_status`` has its stake in. Raises InvalidExchangeRate (staking/34), errors of the bank and of hooks.
        """
        if shares.has_no_rate(validator):
            raise InvalidExchangeRate
        operator = operator_of(validator)
        delegation = self.delegation(state, delegator, operator)
        if delegation is None:
            delegation = Delegation(delegator_address=bech32.encode(delegator), validator_address=validator.operator_address, shares="0")
            for hooks in self._hooks:
                hooks.before_delegation_created(ctx, state, delegator, operator)
        else:
            for hooks in self._hooks:
                hooks.before_delegation_shares_modified(ctx, state, delegator, operator)
        if subtract_account:
            pool = BONDED_POOL if validator.status == BONDED else NOT_BONDED_POOL
            self._bank.delegate_to_module(ctx, state, delegator, pool, self.stake(state, amount))
        elif source_status != BONDED and validator.status == BONDED:
            self.to_bonded(ctx, state, amount)
        elif source_status == BONDED and validator.status != BONDED:
            self.to_not_bonded(ctx, state, amount)
        validator = copy_of(validator)
        self.delete_by_power(state, validator)
        issued = shares.add_tokens(validator, amount)
        self.set_validator(state, validator)
        self.set_by_power(state, validator)
        delegation.shares = str(int(delegation.shares) + issued.scaled)
        self.set_delegation(state, delegation)
        for hooks in self._hooks:
            hooks.after_delegation_modified(ctx, state, delegator, operator)
        return issued

    def load_delegation(self, ctx: Context, state: StateWriter, delegation: Any, *, is_new: bool) -> None:
        """Write a delegation of the genesis file; hooks hear of one that is not exported state (``is_new``)."""
        delegator, operator = bech32.decode(delegation.delegator_address), bech32.decode(delegation.validator_address, bech32.VALIDATOR)
        heard = self._hooks if is_new else ()
        for hooks in heard:
            hooks.before_delegation_created(ctx, state, delegator, operator)
        self.set_delegation(state, delegation)
        for hooks in heard:
            hooks.after_delegation_modified(ctx, state, delegator, operator)

    def unbond(self, ctx: Context, state: StateWriter, delegator: bytes, operator: bytes, amount: Dec) -> int:
        """Take ``amount`` shares out of a delegation; returns their worth in wei, which stays in the validator's pool.

        A validator whose own delegation falls below its minimum is jailed. Raises NoDelegator, NotEnoughShares, NoValidator.
        """
        delegation = self.delegation(state, delegator, operator)
        if delegation is None:
            raise NoDelegator
        for hooks in self._hooks:
            hooks.before_delegation_shares_modified(ctx, state, delegator, operator)
        held = int(delegation.shares)
        if held < amount.scaled:
            raise NotEnoughShares(str(Dec(held)))
        validator = self.require_validator(state, operator)
        left = held - amount.scaled
        if delegator == operator and not validator.jailed:
            own = shares.tokens_from_shares(validator, Dec(left)).truncate()
            if own < int(validator.min_self_delegation):
                self.jail_validator(state, validator)
                validator = self.require_validator(state, operator)
        if left:
            delegation.shares = str(left)
            self.set_delegation(state, delegation)
            for hooks in self._hooks:
                hooks.after_delegation_modified(ctx, state, delegator, operator)
        else:
            for hooks in self._hooks:
                hooks.before_delegation_removed(ctx, state, delegator, operator)
            self.delete_delegation(state, delegator, operator)
        self.delete_by_power(state, validator)
        worth = shares.remove_shares(validator, amount)
        self.set_validator(state, validator)
        self.set_by_power(state, validator)
        if validator.status == UNBONDED and not int(validator.delegator_shares):
            self.remove_validator(ctx, state, operator)
        return worth

    def shares_to_unbond(self, state: StateReader, delegator: bytes, operator: bytes, amount: int) -> Dec:
        """The shares that ``amount`` wei of a delegation stand for. Raises NoValidator, NoDelegation, InsufficientShares, InvalidRequest."""
        validator = self.require_validator(state, operator)
        delegation = self.delegation(state, delegator, operator)
        if delegation is None:
            raise NoDelegation
        wanted, held = shares.shares_from_tokens(validator, amount), Dec(int(delegation.shares))
        if shares.shares_from_tokens_truncated(validator, amount) > held:
            raise InvalidRequest("invalid shares amount")
        return min(wanted, held)

    def undelegate(self, ctx: Context, state: StateWriter, delegator: bytes, operator: bytes, amount: Dec) -> tuple[int, int]:
        """Unbond ``amount`` shares; returns (end in Unix nanoseconds, wei that come back then).

        Raises NoValidator, TooManyUnbondings (staking/27), and what ``unbond`` raises.
        """
        validator = self.require_validator(state, operator)
        unbonding = self.unbonding(state, delegator, operator)
        if self.params(state).max_entries <= (len(unbonding.entries) if unbonding is not None else 0):
            raise TooManyUnbondings
        worth = self.unbond(ctx, state, delegator, operator, amount)
        if validator.status == BONDED:
            self.to_not_bonded(ctx, state, worth)
        end_ns = ctx.time_ns + self.unbonding_ns(state)
        unbonding = self._add_unbonding(ctx, state, delegator, operator, end_ns, worth)
        self.queue_unbonding(state, unbonding, end_ns)
        return end_ns, worth

    def _add_unbonding(self, ctx: Context, state: StateWriter, delegator: bytes, operator: bytes, end_ns: int, worth: int) -> Any:
        unbonding_id = self.next_unbonding_id(state)
        unbonding = self.unbonding(state, delegator, operator)
        if unbonding is None:
            addresses = bech32.encode(delegator), bech32.encode(operator, bech32.VALIDATOR)
            unbonding = UnbondingDelegation(delegator_address=addresses[0], validator_address=addresses[1])
        for entry in unbonding.entries:
            if entry.creation_height == ctx.height and ns_of(entry.completion_time) == end_ns:
                entry.balance = str(int(entry.balance) + worth)
                entry.initial_balance = str(int(entry.initial_balance) + worth)
                self.put_unbonding(state, unbonding)
                return unbonding
        entry = unbonding.entries.add(creation_height=ctx.height, initial_balance=str(worth), balance=str(worth), unbonding_id=unbonding_id)
        set_ns(entry.completion_time, end_ns)
        self.put_unbonding(state, unbonding)
        self._initiated(ctx, state, unbonding_id, keys.unbonding(delegator, operator), OF_UNBONDING)
        return unbonding

    def _initiated(self, ctx: Context, state: StateWriter, unbonding_id: int, key: bytes, kind: int) -> None:
        self.index_unbonding(state, unbonding_id, key, kind)
        for hooks in self._hooks:
            hooks.after_unbonding_initiated(ctx, state, unbonding_id)

    def redelegate(self, ctx: Context, state: StateWriter, delegator: bytes, source: bytes, destination: bytes, amount: Dec) -> int:
        """Move ``amount`` shares to another validator at once; returns until when they are liable for the source (Unix nanoseconds).

        Raises SelfRedelegation, NoDestination, NoSource, TransitiveRedelegation, TooManyRedelegations, TinyRedelegation, and what ``unbond`` and
        ``delegate`` raise.
        """
        if source == destination:
            raise SelfRedelegation
        to = self.validator(state, destination)
        if to is None:
            raise NoDestination
        of = self.validator(state, source)
        if of is None:
            raise NoSource
        if self.receives_redelegation(state, delegator, source):
            raise TransitiveRedelegation
        before = self.redelegation(state, delegator, source, destination)
        if before is not None and len(before.entries) >= self.params(state).max_entries:
            raise TooManyRedelegations
        worth = self.unbond(ctx, state, delegator, source, amount)
        if not worth:
            raise TinyRedelegation
        issued = self.delegate(ctx, state, delegator, worth, of.status, to, False)
        end_ns, height = self._liable_until(ctx, state, source)
        if end_ns == NO_TIME_NS:
            return end_ns
        redelegation = self._add_redelegation(ctx, state, (delegator, source, destination), height, end_ns, worth, issued)
        self.queue_redelegation(state, redelegation, end_ns)
        return end_ns

    def _liable_until(self, ctx: Context, state: StateReader, source: bytes) -> tuple[int, int]:
        """(end in Unix nanoseconds, height from which on it counts); no time when the source is liable for nothing any more.

        Raises NoValidator, as the SDK does, when an unbonded source was removed because these were its last shares.
        """
        validator = self.require_validator(state, source)
        unbonding_ns = self.unbonding_ns(state)
        if validator.status == BONDED:
            return ctx.time_ns + unbonding_ns, ctx.height
        if validator.status == UNBONDING:
            return ns_of(validator.unbonding_time), int(validator.unbonding_height)
        return NO_TIME_NS, 0

    def _add_redelegation(
        self, ctx: Context, state: StateWriter, addresses: tuple[bytes, bytes, bytes], height: int, end_ns: int, worth: int, issued: Dec
    ) -> Any:
        unbonding_id = self.next_unbonding_id(state)
        redelegation = self.redelegation(state, *addresses)
        if redelegation is None:
            delegator = bech32.encode(addresses[0])
            source, destination = (bech32.encode(operator, bech32.VALIDATOR) for operator in addresses[1:])
            redelegation = Redelegation(delegator_address=delegator, validator_src_address=source, validator_dst_address=destination)
        entry = redelegation.entries.add(creation_height=height, initial_balance=str(worth), shares_dst=str(issued.scaled), unbonding_id=unbonding_id)
        set_ns(entry.completion_time, end_ns)
        self.put_redelegation(state, redelegation)
        self._initiated(ctx, state, unbonding_id, keys.redelegation(*addresses), OF_REDELEGATION)
        return redelegation

    # --- when the time has come ---------------------------------------------------------------------------------------

    def finish_unbondings(self, ctx: Context, state: StateWriter) -> None:
        """Pay out every unbonding delegation whose time has come, and free what was redelegated: as many of each as a block has room for, in order,
        the rest in the blocks that follow.
        """
        self._finish(ctx, state, keys.UNBONDING_QUEUE, keys.unbondings_ending(ctx.time_ns), Pairs, "pairs", self._finish_unbonding_delegation)
        self._finish(ctx, state, keys.REDELEGATION_QUEUE, keys.redelegations_ending(ctx.time_ns), Triplets, "triplets", self._finish_redelegation)

    def _finish(self, ctx: Context, state: StateWriter, queue: bytes, last: bytes, kind: Any, name: str, finish: Any) -> None:
        """Take what a queue holds up to ``last`` out of it, and finish it: at most MAX_FINISHED entries and MAX_FINISHED_GAS."""
        store = state.store(keys.STORE)
        slices: list[tuple[bytes, list[Any]]] = []
        room, gas_end = MAX_FINISHED, ctx.gas.consumed + MAX_FINISHED_GAS
        for key, raw in store.iterate(queue, last + b"\x00"):
            slices.append((key, list(getattr(kind.FromString(raw), name))))
            room -= len(slices[-1][1])
            if room <= 0:
                break
        room = MAX_FINISHED
        for key, queued in slices:
            done = 0
            while done < len(queued) and room and ctx.gas.consumed < gas_end:
                self._attempt(ctx, state, finish, queued[done])
                done, room = done + 1, room - 1
            if done < len(queued):
                store.set(key, encode(kind(**{name: queued[done:]})))
                break
            store.delete(key)

    @staticmethod
    def _attempt(ctx: Context, state: StateWriter, finish: Any, queued: Any) -> None:
        """No rule that one entry breaks may keep the block from ending."""
        mark, events_mark = state.mark(), ctx.events.mark()
        try:
            finish(ctx, state, queued)
        except AppError as error:
            state.rollback(mark)
            ctx.events.rollback(events_mark)
            log.error("a matured entry could not be finished", entry=str(queued), reason=str(error))

    def _finish_unbonding_delegation(self, ctx: Context, state: StateWriter, pair: Any) -> None:
        delegator, operator = bech32.decode(pair.delegator_address), bech32.decode(pair.validator_address, bech32.VALIDATOR)
        unbonding = self.unbonding(state, delegator, operator)
        if unbonding is None:
            return  # several entries of one block, or a cancelled one: done already
        paid = 0
        for entry in self._take_mature(ctx, state, unbonding):
            amount = int(entry.balance)
            if amount:
                self._bank.undelegate_from_module(ctx, state, NOT_BONDED_POOL, delegator, self.stake(state, amount))
                paid += amount
        self.put_unbonding(state, unbonding)
        events.complete_unbonding(ctx, pair, self.stake(state, paid))

    def _finish_redelegation(self, ctx: Context, state: StateWriter, triplet: Any) -> None:
        source, destination = (bech32.decode(text, bech32.VALIDATOR) for text in (triplet.validator_src_address, triplet.validator_dst_address))
        redelegation = self.redelegation(state, bech32.decode(triplet.delegator_address), source, destination)
        if redelegation is None:
            return
        freed = sum(int(entry.initial_balance) for entry in self._take_mature(ctx, state, redelegation))
        self.put_redelegation(state, redelegation)
        events.complete_redelegation(ctx, triplet, self.stake(state, freed))

    @staticmethod
    def _take_mature(ctx: Context, state: StateWriter, record: Any) -> list[Any]:
        """Take the entries whose time has come, and which nobody holds, out of ``record``, and forget their ids."""
        mature = [is_mature(entry, ctx.time_ns) for entry in record.entries]
        taken = [copy_of(entry) for entry, due in zip(record.entries, mature, strict=True) if due]
        left = [copy_of(entry) for entry, due in zip(record.entries, mature, strict=True) if not due]
        del record.entries[:]
        record.entries.extend(left)
        for entry in taken:
            state.store(keys.STORE).delete(keys.unbonding_index(entry.unbonding_id))
        return taken


def is_mature(entry: Any, time_ns: int) -> bool:
    """True when an entry's time has come and nobody holds it."""
    return ns_of(entry.completion_time) <= time_ns and entry.unbonding_on_hold_ref_count <= 0
