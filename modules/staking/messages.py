"""Messages of staking: CreateValidator, EditValidator, Delegate, BeginRedelegate, Undelegate, CancelUnbondingDelegation, UpdateParams.

What cannot be decoded as a number fails before anything else, as in the SDK; every other rule is looked at when the message runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from chain import coins
from chain.authority import require_gov
from chain.codec.canonical import known
from chain.codec.registry import message_class
from chain.codec.times import NANOS, ns_of, set_ns
from chain.coins import Coin
from chain.context import Context, Mode
from chain.crypto import address as bech32
from chain.crypto.keys import public_key_from_any
from chain.dec import Dec, DecError, dec_of, from_wire
from chain.errors import AppError, InvalidAddress, InvalidPubKey, InvalidRequest, NotFound, PanicError, TxDecodeError, UndefinedError
from chain.module import CheckStateless, Execute, MessageHandler
from chain.store.api import StateReader, StateWriter
from modules.staking import events, shares
from modules.staking.errors import (
    CommissionAboveMax,
    CommissionBelowMinimum,
    CommissionChangeAboveMax,
    CommissionChangeNegative,
    CommissionChangeTooBig,
    CommissionHuge,
    CommissionNegative,
    CommissionTooSoon,
    ConsensusKeyTaken,
    EmptyPublicKey,
    InvalidExchangeRate,
    MinSelfDelegationDecreased,
    SelfDelegationBelowMinimum,
    ValidatorExists,
    ValidatorJailed,
    WrongKeyType,
)
from modules.staking.expected import Consensus
from modules.staking.keeper import StakingKeeper
from modules.staking.params import MAX_DURATION_NS, check_params
from modules.staking.records import PACKAGE, POWER_REDUCTION, UNBONDED, UNBONDING, Validator
from modules.staking.validator_set import KEY_TYPES

LIMITS: Final = {"moniker": 70, "identity": 3000, "website": 140, "security_contact": 140, "details": 280}
"""Bytes that each part of a description may have."""
KEEP: Final = "[do-not-modify]"
"""In MsgEditValidator: this part of the description stays."""
DAY_NS: Final = 24 * 3600 * NANOS
_RATES: Final = ("rate", "max_rate", "max_change_rate")


def _response(name: str) -> Any:
    return message_class(f"{PACKAGE}.{name}Response")


def handlers(keeper: StakingKeeper, consensus: Consensus) -> Mapping[str, MessageHandler]:
    """The module's message handlers over ``keeper``."""
    delegate_response, undelegate_response = _response("MsgDelegate"), _response("MsgUndelegate")
    redelegate_response, cancel_response = _response("MsgBeginRedelegate"), _response("MsgCancelUnbondingDelegation")
    create_response, edit_response, params_response = _response("MsgCreateValidator"), _response("MsgEditValidator"), _response("MsgUpdateParams")

    def create_validator(ctx: Context, state: StateWriter, message: Any) -> Any:
        if ctx.mode is Mode.GENESIS:
            check_gentx(message)
        operator = _operator(message.validator_address)
        amount = _check_new(message)
        rates = _rates(message.commission)
        least = from_wire(keeper.params(state).min_commission_rate)
        if rates[0] < least:
            raise CommissionBelowMinimum(f"cannot set validator commission to less than minimum rate of {least}")
        if keeper.validator(state, operator) is not None:
            raise ValidatorExists
        key = public_key_from_any(message.pubkey)
        if keeper.validator_by_cons(state, key.address) is not None:
            raise ConsensusKeyTaken
        _require_denom(keeper, state, amount)
        _require_lengths(message.description)
        kind, kinds = KEY_TYPES.get(key.type_url, key.type_url), consensus.key_types(ctx, state)
        if kind not in kinds:
            raise WrongKeyType(f"got: {kind}, expected: [{' '.join(kinds)}]")
        validator = Validator(
            operator_address=message.validator_address,
            consensus_pubkey=message.pubkey,
            status=UNBONDED,
            tokens="0",
            delegator_shares="0",
            description=known(message.description),
            min_self_delegation=str(coins.parse_int(message.min_self_delegation)),
        )
        set_ns(validator.unbonding_time, 0)
        for name, value in zip(_RATES, rates, strict=True):
            setattr(validator.commission.commission_rates, name, str(value.scaled))
        set_ns(validator.commission.update_time, ctx.time_ns)
        validator.DiscardUnknownFields()
        keeper.add_validator(ctx, state, validator)
        keeper.delegate(ctx, state, operator, amount.amount, UNBONDED, validator, True)
        events.create_validator(ctx, message.validator_address, amount)
        return create_response()

    def edit_validator(ctx: Context, state: StateWriter, message: Any) -> Any:
        operator = _operator(message.validator_address)
        if message.description == type(message.description)():
            raise InvalidRequest("empty description")
        minimum = coins.parse_int(message.min_self_delegation) if message.min_self_delegation else None
        if minimum is not None and minimum <= 0:
            raise InvalidRequest("minimum self delegation must be a positive integer")
        rate = from_wire(message.commission_rate) if message.commission_rate else None
        if rate is not None:
            if not Dec(0) <= rate <= dec_of(1):
                raise InvalidRequest("commission rate must be between 0 and 1 (inclusive)")
            least = from_wire(keeper.params(state).min_commission_rate)
            if rate < least:
                raise InvalidRequest(f"commission rate cannot be less than the min commission rate {least}")
        validator = keeper.require_validator(state, operator)
        for name in LIMITS:
            given = getattr(message.description, name)
            if given != KEEP:
                setattr(validator.description, name, given)
        _require_lengths(validator.description)
        if rate is not None:
            _require_new_rate(ctx, validator.commission, rate)
            keeper.params(state)  # the SDK looks at the least rate a second time
            keeper.before_modified(ctx, state, operator)
            validator.commission.commission_rates.rate = str(rate.scaled)
            set_ns(validator.commission.update_time, ctx.time_ns)
        if minimum is not None:
            if minimum <= int(validator.min_self_delegation):
                raise MinSelfDelegationDecreased
            if minimum > int(validator.tokens):
                raise SelfDelegationBelowMinimum
            validator.min_self_delegation = str(minimum)
        keeper.set_validator(state, validator)
        events.edit_validator(ctx, validator)
        return edit_response()

    def delegate(ctx: Context, state: StateWriter, message: Any) -> Any:
        operator, delegator = _operator(message.validator_address), _delegator(message.delegator_address)
        amount = _positive(message.amount, "invalid delegation amount")
        validator = keeper.require_validator(state, operator)
        _require_denom(keeper, state, amount)
        issued = keeper.delegate(ctx, state, delegator, amount.amount, UNBONDED, validator, True)
        events.delegate(ctx, message, amount, issued)
        return delegate_response()

    def begin_redelegate(ctx: Context, state: StateWriter, message: Any) -> Any:
        source = _operator(message.validator_src_address, "source validator")
        destination = _operator(message.validator_dst_address, "destination validator")
        delegator = _delegator(message.delegator_address)
        amount = _positive(message.amount, "invalid shares amount")
        moved = keeper.shares_to_unbond(state, delegator, source, amount.amount)
        _require_denom(keeper, state, amount)
        end_ns = keeper.redelegate(ctx, state, delegator, source, destination, moved)
        events.redelegate(ctx, message, amount, end_ns)
        response = redelegate_response()
        set_ns(response.completion_time, end_ns)
        return response

    def undelegate(ctx: Context, state: StateWriter, message: Any) -> Any:
        operator, delegator = _operator(message.validator_address), _delegator(message.delegator_address)
        amount = _positive(message.amount, "invalid shares amount")
        taken = keeper.shares_to_unbond(state, delegator, operator, amount.amount)
        _require_denom(keeper, state, amount)
        end_ns, worth = keeper.undelegate(ctx, state, delegator, operator, taken)
        events.unbond(ctx, message, Coin(amount.denom, worth), end_ns)
        response = undelegate_response(amount={"denom": amount.denom, "amount": str(worth)})
        set_ns(response.completion_time, end_ns)
        return response

    def cancel_unbonding(ctx: Context, state: StateWriter, message: Any) -> Any:
        operator, delegator = _operator(message.validator_address), _delegator(message.delegator_address)
        amount = _positive(message.amount, "invalid amount")
        if message.creation_height <= 0:
            raise InvalidRequest("invalid height")
        _require_denom(keeper, state, amount)
        validator = keeper.require_validator(state, operator)
        if shares.has_no_rate(validator):
            raise InvalidExchangeRate
        if validator.jailed:
            raise ValidatorJailed
        unbonding = keeper.unbonding(state, delegator, operator)
        if unbonding is None:
            what = f"unbonding delegation with delegator {message.delegator_address} not found for validator {message.validator_address}"
            raise UndefinedError(f"rpc error: code = NotFound desc = {what}")
        at = next((at for at, entry in enumerate(unbonding.entries) if entry.creation_height == message.creation_height), None)
        if at is None:
            raise NotFound(f"unbonding delegation entry is not found at block height {message.creation_height}")
        entry = unbonding.entries[at]
        if int(entry.balance) < amount.amount:
            raise InvalidRequest("amount is greater than the unbonding delegation entry balance")
        if ns_of(entry.completion_time) < ctx.time_ns:
            raise InvalidRequest("unbonding delegation is already processed")
        keeper.delegate(ctx, state, delegator, amount.amount, UNBONDING, validator, False)
        if int(entry.balance) == amount.amount:
            del unbonding.entries[at]
        else:
            entry.balance = str(int(entry.balance) - amount.amount)
            entry.initial_balance = str(int(entry.initial_balance) - amount.amount)
        keeper.put_unbonding(state, unbonding)
        events.cancel_unbonding(ctx, message, amount)
        return cancel_response()

    def update_params(ctx: Context, state: StateWriter, message: Any) -> Any:
        require_gov(message.authority)
        check_params(message.params)
        most, room = message.params.max_validators, consensus.most_validators(ctx, state)
        if most > room and most > keeper.params(state).max_validators:
            raise UndefinedError(f"max validators can be at most {room}, whose signatures a block of the consensus parameters holds, got {most}")
        _require_same_denom(keeper, state, message.params.bond_denom)
        keeper.set_params(state, known(message.params))
        return params_response()

    named: dict[str, tuple[Execute, CheckStateless]] = {
        "MsgCreateValidator": (create_validator, check_create_validator),
        "MsgEditValidator": (edit_validator, _check_edit),
        "MsgDelegate": (delegate, _check_amount),
        "MsgBeginRedelegate": (begin_redelegate, _check_amount),
        "MsgUndelegate": (undelegate, _check_amount),
        "MsgCancelUnbondingDelegation": (cancel_unbonding, _check_amount),
        "MsgUpdateParams": (update_params, _check_update),
    }
    return {f"{PACKAGE}.{name}": MessageHandler(_without_overflow(execute), check) for name, (execute, check) in named.items()}


def _without_overflow(execute: Execute) -> Execute:
    """``execute``, in which a decimal above 315 bits is the error that the SDK's panic becomes (undefined/111222)."""

    def run(ctx: Context, state: StateWriter, message: Any) -> Any:
        try:
            return execute(ctx, state, message)
        except DecError as error:
            raise PanicError(str(error)) from None

    return run


# --- what the wire must hold ----------------------------------------------------------------------------------------------


def check_create_validator(message: Any) -> None:
    """Raise TxDecodeError (sdk/2) for a number or key that is none."""
    _decodable_int(message.min_self_delegation)
    _decodable_int(message.value.amount)
    for name in _RATES:
        _decodable_dec(getattr(message.commission, name))
    if message.HasField("pubkey"):
        try:
            public_key_from_any(message.pubkey)
        except InvalidPubKey:
            raise
        except AppError as error:
            raise TxDecodeError(error.detail) from None


def _check_edit(message: Any) -> None:
    _decodable_int(message.min_self_delegation)
    _decodable_dec(message.commission_rate)


def _check_amount(message: Any) -> None:
    _decodable_int(message.amount.amount)


def _check_update(message: Any) -> None:
    _decodable_dec(message.params.min_commission_rate)
    if abs(ns_of(message.params.unbonding_time)) > MAX_DURATION_NS:
        raise TxDecodeError(f"unbonding_time has at most 64 bits of nanoseconds, got {message.params.unbonding_time.seconds} s")


def _decodable_int(text: str) -> None:
    if text:
        coins.parse_wire_int(text)


def _decodable_dec(text: str) -> None:
    try:
        from_wire(text)
    except DecError as error:
        raise TxDecodeError(str(error)) from None


# --- rules that need no state ---------------------------------------------------------------------------------------------


def check_gentx(message: Any) -> None:
    """Every rule of a genesis transaction's MsgCreateValidator that needs no state, and that the validator can sign blocks. Raises AppError."""
    check_create_validator(message)
    _operator(message.validator_address)
    _check_new(message)
    _require_lengths(message.description)
    amount = coins.parse_int(message.value.amount)
    if amount < POWER_REDUCTION:
        raise InvalidRequest(
            f"a self-delegation of {amount}{message.value.denom} has no voting power: delegate at least {POWER_REDUCTION} wei (10^15), one unit of power"
        )


def _check_new(message: Any) -> Coin:
    """The self-delegation of a MsgCreateValidator that makes sense by itself."""
    if not message.HasField("pubkey"):
        raise EmptyPublicKey
    amount = _positive(message.value, "invalid delegation amount")
    if message.description == type(message.description)():
        raise InvalidRequest("empty description")
    if not any(getattr(message.commission, name) for name in _RATES):
        raise InvalidRequest("empty commission")
    rate, most, change = _rates(message.commission)
    _require_given(message.commission, "max_rate")
    if most < Dec(0):
        raise CommissionNegative
    if most > dec_of(1):
        raise CommissionHuge
    _require_given(message.commission, "rate")
    if rate < Dec(0):
        raise CommissionNegative
    if rate > most:
        raise CommissionAboveMax
    _require_given(message.commission, "max_change_rate")
    if change < Dec(0):
        raise CommissionChangeNegative
    if change > most:
        raise CommissionChangeAboveMax
    _require_given(message, "min_self_delegation")
    least = coins.parse_int(message.min_self_delegation)
    if least <= 0:
        raise InvalidRequest("minimum self delegation must be a positive integer")
    if amount.amount < least:
        raise SelfDelegationBelowMinimum
    return amount


def _require_given(message: Any, name: str) -> None:
    """Raise PanicError (undefined/111222), as the SDK panics, for a number that is not there."""
    if not getattr(message, name):
        raise PanicError(f"{name} is not given")


def _rates(commission: Any) -> tuple[Dec, Dec, Dec]:
    rate, most, change = (from_wire(getattr(commission, name)) for name in _RATES)
    return rate, most, change


def _require_new_rate(ctx: Context, commission: Any, rate: Dec) -> None:
    old, most, change = _rates(commission.commission_rates)
    if ctx.time_ns - ns_of(commission.update_time) < DAY_NS:
        raise CommissionTooSoon
    if rate > most:
        raise CommissionAboveMax
    if rate.scaled - old.scaled > change.scaled:
        raise CommissionChangeTooBig


def _require_lengths(description: Any) -> None:
    for name, limit in LIMITS.items():
        length = len(getattr(description, name).encode())
        if length > limit:
            raise InvalidRequest(f"invalid {name.replace('_', ' ')} length; got: {length}, max: {limit}")


def _require_denom(keeper: StakingKeeper, state: StateReader, amount: Coin) -> None:
    denom = keeper.bond_denom(state)
    if amount.denom != denom:
        raise InvalidRequest(f"invalid coin denomination: got {amount.denom}, expected {denom}")


def _require_same_denom(keeper: StakingKeeper, state: StateReader, denom: str) -> None:
    """Raise UndefinedError for another denom while there is stake: the pools could not pay it out, and the next change of the set would stop the chain."""
    if denom != keeper.bond_denom(state) and (keeper.total_bonded(state) or keeper.total_not_bonded(state)):
        raise UndefinedError(f"bond denom cannot become {denom} while there is stake in {keeper.bond_denom(state)}")


def _positive(coin: Any, problem: str) -> Coin:
    amount = coins.parse_int(coin.amount) if coin.amount else 0
    if not coins.is_denom(coin.denom) or amount <= 0:
        raise InvalidRequest(problem)
    return Coin(coin.denom, amount)


def _operator(text: str, what: str = "validator") -> bytes:
    return _address(text, what, bech32.VALIDATOR)


def _delegator(text: str) -> bytes:
    return _address(text, "delegator", bech32.ACCOUNT)


def _address(text: str, what: str, prefix: str) -> bytes:
    try:
        return bech32.decode(text, prefix)
    except AppError as error:
        raise InvalidAddress(f"invalid {what} address: {error.detail}") from None
