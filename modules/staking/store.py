"""Reading and writing what staking keeps. Keys are touched in the SDK's order, so that gas comes out the same."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from chain.codec.canonical import encode
from chain.codec.times import ns_of
from chain.coins import Coin, Coins
from chain.context import Context
from chain.crypto import address as bech32
from chain.crypto.keys import public_key_from_any
from chain.dec import Dec, dec_of
from chain.store.api import StateReader, StateWriter, prefix_end
from modules.staking import keys, shares
from modules.staking.errors import NoValidator
from modules.staking.expected import Bank
from modules.staking.hooks import StakingHooks
from modules.staking.records import (
    BONDED,
    BONDED_POOL,
    NOT_BONDED_POOL,
    POWER_REDUCTION,
    Delegation,
    HistoricalInfo,
    IntProto,
    Operators,
    Pairs,
    Params,
    Power,
    Redelegation,
    Triplets,
    UnbondingDelegation,
    Validator,
)

OF_UNBONDING, OF_REDELEGATION, OF_VALIDATOR = 1, 2, 3
"""What an unbonding id stands for."""


def operator_of(validator: Any) -> bytes:
    """Operator address of a validator."""
    return bech32.decode(validator.operator_address, bech32.VALIDATOR)


def cons_of(validator: Any) -> bytes:
    """Consensus address of a validator."""
    address: bytes = public_key_from_any(validator.consensus_pubkey).address
    return address


class StakingStore:
    """Records and their indexes, and the pools that hold the coins behind them."""

    power_reduction = POWER_REDUCTION
    tokens_from_shares = staticmethod(shares.tokens_from_shares)
    tokens_from_shares_truncated = staticmethod(shares.tokens_from_shares_truncated)

    def __init__(self, bank: Bank) -> None:
        self._bank = bank
        self._hooks: tuple[StakingHooks, ...] = ()

    def set_hooks(self, hooks: tuple[StakingHooks, ...]) -> None:
        """Name who is told of changes, in order. Once, before the first block."""
        self._hooks = hooks

    # --- parameters and totals ----------------------------------------------------------------------------------------

    def params(self, state: StateReader) -> Any:
        return Params.FromString(state.store(keys.STORE).get(keys.PARAMS) or b"")

    def set_params(self, state: StateWriter, params: Any) -> None:
        state.store(keys.STORE).set(keys.PARAMS, encode(params))

    def bond_denom(self, state: StateReader) -> str:
        return str(self.params(state).bond_denom)

    def unbonding_ns(self, state: StateReader) -> int:
        """Nanoseconds that stake stays liable after it was taken back."""
        return ns_of(self.params(state).unbonding_time)

    def total_bonded(self, state: StateReader) -> int:
        """wei in the bonded pool."""
        return self._bank.balance(state, bech32.module_address(BONDED_POOL), self.bond_denom(state))

    def total_not_bonded(self, state: StateReader) -> int:
        """wei in the pool of what is unbonding or delegated to validators outside the set."""
        return self._bank.balance(state, bech32.module_address(NOT_BONDED_POOL), self.bond_denom(state))

    def staking_supply(self, state: StateReader) -> int:
        """All there is of the denom that is staked."""
        return self._bank.supply(state, self.bond_denom(state))

    def bonded_ratio(self, state: StateReader) -> Dec:
        """The bonded part of the supply, cut at 18 places."""
        supply = self.staking_supply(state)
        return dec_of(self.total_bonded(state)).quo_int(supply) if supply else Dec(0)

    # --- validators ---------------------------------------------------------------------------------------------------

    def validator(self, state: StateReader, operator: bytes) -> Any | None:
        raw = state.store(keys.STORE).get(keys.validator(operator))
        return None if raw is None else Validator.FromString(raw)

    def require_validator(self, state: StateReader, operator: bytes) -> Any:
        """The validator. Raises NoValidator (staking/3)."""
        validator = self.validator(state, operator)
        if validator is None:
            raise NoValidator
        return validator

    def validator_by_cons(self, state: StateReader, cons: bytes) -> Any | None:
        operator = state.store(keys.STORE).get(keys.by_consensus_address(cons))
        return None if operator is None else self.validator(state, operator)

    def validators(self, state: StateReader) -> Iterator[Any]:
        """Every validator in the order of operator addresses."""
        for _, raw in state.store(keys.STORE).iterate(keys.VALIDATORS, prefix_end(keys.VALIDATORS)):
            yield Validator.FromString(raw)

    def bonded_by_power(self, state: StateReader) -> Iterator[Any]:
        """The bonded validators, the strongest first, at most ``max_validators``."""
        return islice(self._bonded_by_power(state), self.params(state).max_validators)

    def _bonded_by_power(self, state: StateReader) -> Iterator[Any]:
        for _, operator in state.store(keys.STORE).iterate(keys.BY_POWER, prefix_end(keys.BY_POWER), reverse=True):
            validator = self.validator(state, operator)
            if validator is not None and validator.status == BONDED:
                yield validator

    def set_validator(self, state: StateWriter, validator: Any) -> None:
        state.store(keys.STORE).set(keys.validator(operator_of(validator)), encode(validator))

    def set_by_cons(self, state: StateWriter, validator: Any) -> None:
        state.store(keys.STORE).set(keys.by_consensus_address(cons_of(validator)), operator_of(validator))

    def set_by_power(self, state: StateWriter, validator: Any) -> None:
        """Put a validator in the order of power; a jailed one stays out of it."""
        if not validator.jailed:
            operator = operator_of(validator)
            state.store(keys.STORE).set(keys.by_power(shares.power_of(validator), operator), operator)

    def delete_by_power(self, state: StateWriter, validator: Any) -> None:
        state.store(keys.STORE).delete(keys.by_power(shares.power_of(validator), operator_of(validator)))

    def last_powers(self, state: StateReader) -> dict[bytes, int]:
        """operator → power that CometBFT knows, in the order of addresses."""
        found = state.store(keys.STORE).iterate(keys.LAST_POWERS, prefix_end(keys.LAST_POWERS))
        return {key[2:]: int(Power.FromString(raw).value) for key, raw in found}

    def most_validators(self, state: StateReader) -> int:
        """How many validators may sign a block: ``max_validators``, or as many as do while there are more."""
        return max(int(self.params(state).max_validators), len(self.last_powers(state)))

    def set_last_power(self, state: StateWriter, operator: bytes, power: int) -> None:
        state.store(keys.STORE).set(keys.last_power(operator), encode(Power(value=power)))

    def last_total_power(self, state: StateReader) -> int:
        raw = state.store(keys.STORE).get(keys.LAST_TOTAL_POWER)
        return 0 if raw is None else int(IntProto.FromString(raw).int)

    def set_last_total_power(self, state: StateWriter, power: int) -> None:
        state.store(keys.STORE).set(keys.LAST_TOTAL_POWER, encode(IntProto(int=str(power))))

    def historical_info(self, state: StateReader, height: int) -> Any | None:
        raw = state.store(keys.STORE).get(keys.historical_info(height))
        return None if raw is None else HistoricalInfo.FromString(raw)

    # --- delegations --------------------------------------------------------------------------------------------------

    def delegation(self, state: StateReader, delegator: bytes, operator: bytes) -> Any | None:
        raw = state.store(keys.STORE).get(keys.delegation(delegator, operator))
        return None if raw is None else Delegation.FromString(raw)

    def delegations(self, state: StateReader) -> Iterator[Any]:
        """Every delegation, ordered by delegator, then operator."""
        for _, raw in state.store(keys.STORE).iterate(keys.DELEGATIONS, prefix_end(keys.DELEGATIONS)):
            yield Delegation.FromString(raw)

    def delegations_of(self, state: StateReader, delegator: bytes, limit: int | None = None) -> Iterator[Any]:
        """A delegator's delegations, at most ``limit``."""
        prefix = keys.delegations_of(delegator)
        found = state.store(keys.STORE).iterate(prefix, prefix_end(prefix))
        return (Delegation.FromString(raw) for _, raw in islice(found, limit))

    def delegations_to(self, state: StateReader, operator: bytes) -> Iterator[Any]:
        """A validator's delegations."""
        prefix = keys.delegations_to(operator)
        store = state.store(keys.STORE)
        for key, _ in store.iterate(prefix, prefix_end(prefix)):
            raw = store.get(keys.delegation(key[len(prefix) :], operator))
            assert raw is not None, "the index names only delegations"
            yield Delegation.FromString(raw)

    def set_delegation(self, state: StateWriter, delegation: Any) -> None:
        delegator, operator = _pair(delegation)
        store = state.store(keys.STORE)
        store.set(keys.delegation(delegator, operator), encode(delegation))
        store.set(keys.delegation_by_validator(operator, delegator), b"")

    def delete_delegation(self, state: StateWriter, delegator: bytes, operator: bytes) -> None:
        store = state.store(keys.STORE)
        store.delete(keys.delegation(delegator, operator))
        store.delete(keys.delegation_by_validator(operator, delegator))

    # --- what unbonds and moves ---------------------------------------------------------------------------------------

    def unbonding(self, state: StateReader, delegator: bytes, operator: bytes) -> Any | None:
        raw = state.store(keys.STORE).get(keys.unbonding(delegator, operator))
        return None if raw is None else UnbondingDelegation.FromString(raw)

    def unbondings(self, state: StateReader) -> Iterator[Any]:
        """Every unbonding delegation, ordered by delegator, then operator."""
        for _, raw in state.store(keys.STORE).iterate(keys.UNBONDINGS, prefix_end(keys.UNBONDINGS)):
            yield UnbondingDelegation.FromString(raw)

    def unbondings_from(self, state: StateReader, operator: bytes) -> list[Any]:
        """What unbonds from a validator."""
        prefix = keys.unbondings_from(operator)
        found = [keys.split(key[len(prefix) :])[0] for key, _ in state.store(keys.STORE).iterate(prefix, prefix_end(prefix))]
        records = [self.unbonding(state, delegator, operator) for delegator in found]
        return [record for record in records if record is not None]

    def put_unbonding(self, state: StateWriter, unbonding: Any) -> None:
        """Write an unbonding delegation with its index; one without entries is removed."""
        delegator, operator = _pair(unbonding)
        store = state.store(keys.STORE)
        key, index = keys.unbonding(delegator, operator), keys.unbonding_by_validator(delegator, operator)
        if unbonding.entries:
            store.set(key, encode(unbonding))
            store.set(index, b"")
        else:
            store.delete(key)
            store.delete(index)

    def redelegation(self, state: StateReader, delegator: bytes, source: bytes, destination: bytes) -> Any | None:
        raw = state.store(keys.STORE).get(keys.redelegation(delegator, source, destination))
        return None if raw is None else Redelegation.FromString(raw)

    def redelegations(self, state: StateReader) -> Iterator[Any]:
        """Every redelegation, ordered by delegator, source and destination."""
        for _, raw in state.store(keys.STORE).iterate(keys.REDELEGATIONS, prefix_end(keys.REDELEGATIONS)):
            yield Redelegation.FromString(raw)

    def redelegations_from(self, state: StateReader, source: bytes) -> list[Any]:
        """What was moved away from a validator."""
        prefix = keys.redelegations_from(source)
        found = [keys.split(key[len(prefix) :]) for key, _ in state.store(keys.STORE).iterate(prefix, prefix_end(prefix))]
        records = [self.redelegation(state, delegator, source, destination) for delegator, destination in found]
        return [record for record in records if record is not None]

    def put_redelegation(self, state: StateWriter, redelegation: Any) -> None:
        """Write a redelegation with its indexes; one without entries is removed."""
        addresses = _triple(redelegation)
        store = state.store(keys.STORE)
        key = keys.redelegation(*addresses)
        indexes = keys.redelegation_by_source(*addresses), keys.redelegation_by_destination(*addresses)
        if redelegation.entries:
            store.set(key, encode(redelegation))
            for index in indexes:
                store.set(index, b"")
        else:
            store.delete(key)
            for index in indexes:
                store.delete(index)

    def receives_redelegation(self, state: StateReader, delegator: bytes, operator: bytes) -> bool:
        """True while something that ``delegator`` moved to the validator is liable for where it came from."""
        prefix = keys.redelegations_by(delegator, operator)
        return next(iter(state.store(keys.STORE).iterate(prefix, prefix_end(prefix))), None) is not None

    # --- unbonding ids ------------------------------------------------------------------------------------------------

    def next_unbonding_id(self, state: StateWriter) -> int:
        """Take the next id; the first is 1."""
        store = state.store(keys.STORE)
        unbonding_id = int.from_bytes(store.get(keys.UNBONDING_ID) or b"", "big") + 1
        store.set(keys.UNBONDING_ID, unbonding_id.to_bytes(8, "big"))
        return unbonding_id

    def index_unbonding(self, state: StateWriter, unbonding_id: int, key: bytes, kind: int) -> None:
        """Remember the key of the record, and its kind, that an id is in."""
        store = state.store(keys.STORE)
        store.set(keys.unbonding_index(unbonding_id), key)
        store.set(keys.unbonding_type(unbonding_id), kind.to_bytes(8, "big"))

    # --- queues -------------------------------------------------------------------------------------------------------

    def queue_unbonding(self, state: StateWriter, unbonding: Any, end_ns: int) -> None:
        """Have ``unbonding`` looked at when ``end_ns`` (Unix nanoseconds) has come."""
        pair = {"delegator_address": unbonding.delegator_address, "validator_address": unbonding.validator_address}
        _append(state, keys.unbondings_ending(end_ns), Pairs(pairs=[pair]))

    def queue_redelegation(self, state: StateWriter, redelegation: Any, end_ns: int) -> None:
        """As above for a redelegation."""
        names = ("delegator_address", "validator_src_address", "validator_dst_address")
        triplet = {name: getattr(redelegation, name) for name in names}
        _append(state, keys.redelegations_ending(end_ns), Triplets(triplets=[triplet]))

    def queue_validator(self, state: StateWriter, validator: Any) -> None:
        """Have an unbonding validator looked at when its time and height have come."""
        _append(state, _queue_key(validator), Operators(addresses=[validator.operator_address]))

    def unqueue_validator(self, state: StateWriter, validator: Any) -> None:
        """Take a validator out of the queue; it need not be in it."""
        store = state.store(keys.STORE)
        key = _queue_key(validator)
        queued = Operators.FromString(store.get(key) or b"").addresses
        left = [address for address in queued if address != validator.operator_address]
        if left:
            store.set(key, encode(Operators(addresses=left)))
        else:
            store.delete(key)

    # --- pools --------------------------------------------------------------------------------------------------------

    def to_bonded(self, ctx: Context, state: StateWriter, amount_wei: int) -> None:
        """Move between the pools."""
        self._bank.send_between_modules(ctx, state, NOT_BONDED_POOL, BONDED_POOL, self.stake(state, amount_wei))

    def to_not_bonded(self, ctx: Context, state: StateWriter, amount_wei: int) -> None:
        """Move between the pools."""
        self._bank.send_between_modules(ctx, state, BONDED_POOL, NOT_BONDED_POOL, self.stake(state, amount_wei))

    def burn(self, ctx: Context, state: StateWriter, pool: str, amount_wei: int) -> None:
        """Destroy what was slashed."""
        if amount_wei:
            self._bank.burn(ctx, state, pool, self.stake(state, amount_wei))

    def stake(self, state: StateReader, amount_wei: int) -> Coins:
        """An amount of the denom that is staked; nothing for zero."""
        denom = self.bond_denom(state)
        return (Coin(denom, amount_wei),) if amount_wei else ()


def _pair(record: Any) -> tuple[bytes, bytes]:
    return bech32.decode(record.delegator_address), bech32.decode(record.validator_address, bech32.VALIDATOR)


def _triple(record: Any) -> tuple[bytes, bytes, bytes]:
    source, destination = (bech32.decode(text, bech32.VALIDATOR) for text in (record.validator_src_address, record.validator_dst_address))
    return bech32.decode(record.delegator_address), source, destination


def _queue_key(validator: Any) -> bytes:
    return keys.validators_ending(ns_of(validator.unbonding_time), validator.unbonding_height)


def _append(state: StateWriter, key: bytes, more: Any) -> None:
    """Repeated fields that follow each other are one list: appending needs no decoding."""
    store = state.store(keys.STORE)
    store.set(key, (store.get(key) or b"") + encode(more))
