"""The staking module, declared: parameters, genesis validators and their self-delegations, and the queries on them.

Validators come from genesis (its section, or gentxs through ``genutil``). Delegating, unbonding and new validators after genesis are not
part of the module yet: their messages have no handler, and MsgCreateValidator after genesis is refused with that reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

from chain import coins
from chain.codec.canonical import encode
from chain.codec.json import from_json, to_json
from chain.codec.registry import message_class
from chain.coins import Coin, Coins
from chain.context import Context, Mode
from chain.crypto import address as bech32
from chain.crypto.keys import Ed25519PublicKey, public_key_from_any
from chain.dec import ONE, Dec, DecError, from_wire
from chain.errors import AppError, InvalidRequest, NotFound, NotSupported, TxDecodeError
from chain.module import GenesisError, Json, MessageHandler, Module, Query, ValidatorUpdate
from chain.pagination import paginate
from chain.store.api import StateReader, StateWriter, prefix_end
from modules.staking import keys
from modules.staking.errors import (
    ERRORS,
    CommissionOutOfBounds,
    CommissionTooLow,
    ConsensusKeyTaken,
    MinSelfDelegation,
    ValidatorExists,
    WrongKeyType,
)

PACKAGE: Final = "cosmos.staking.v1beta1"
POWER_REDUCTION: Final = 10**15
"""wei per unit of voting power (reference stratos-chain.md 1.2)"""
BONDED_POOL: Final = "bonded_tokens_pool"
NOT_BONDED_POOL: Final = "not_bonded_tokens_pool"
UNBONDED, BONDED = 1, 3
_LIMITS: Final = {"moniker": 70, "identity": 3000, "website": 140, "security_contact": 140, "details": 280}

Params: Final = message_class(f"{PACKAGE}.Params")
Validator: Final = message_class(f"{PACKAGE}.Validator")
Delegation: Final = message_class(f"{PACKAGE}.Delegation")
GenesisState: Final = message_class(f"{PACKAGE}.GenesisState")
_LastPower: Final = message_class("google.protobuf.Int64Value")
_IntProto: Final = message_class("cosmos.base.v1beta1.IntProto")


class Bank(Protocol):
    """What staking needs of the bank: moving stake into and between its pools."""

    def delegate_to_module(self, ctx: Context, state: StateWriter, delegator: bytes, module: str, amount: Coins) -> None: ...
    def send(self, ctx: Context, state: StateWriter, sender: bytes, recipient: bytes, amount: Coins) -> None: ...
    def balance(self, state: StateReader, address: bytes, denom: str) -> int: ...


class StakingKeeper:
    """Validators, delegations, and the validator set."""

    def __init__(self, bank: Bank) -> None:
        self._bank = bank

    def params(self, state: StateReader) -> Any:
        return Params.FromString(state.store(keys.STORE).get(keys.PARAMS) or b"")

    def set_params(self, state: StateWriter, params: Any) -> None:
        state.store(keys.STORE).set(keys.PARAMS, encode(params))

    def validator(self, state: StateReader, operator: bytes) -> Any | None:
        raw = state.store(keys.STORE).get(keys.validator(operator))
        return None if raw is None else Validator.FromString(raw)

    def set_validator(self, state: StateWriter, validator: Any) -> None:
        """Write a validator with its indexes by consensus key and by power."""
        store = state.store(keys.STORE)
        operator = bech32.decode(validator.operator_address, bech32.VALIDATOR)
        store.set(keys.validator(operator), encode(validator))
        store.set(keys.by_consensus_address(public_key_from_any(validator.consensus_pubkey).address), operator)
        if not validator.jailed:
            store.set(keys.by_power(power_of(validator), operator), operator)

    def set_delegation(self, state: StateWriter, delegation: Any) -> None:
        delegator = bech32.decode(delegation.delegator_address)
        operator = bech32.decode(delegation.validator_address, bech32.VALIDATOR)
        store = state.store(keys.STORE)
        store.set(keys.delegation(delegator, operator), encode(delegation))
        store.set(keys.delegation_by_validator(operator, delegator), b"")

    def create_validator(self, ctx: Context, state: StateWriter, message: Any) -> None:
        """A gentx's validator with its self-delegation, not bonded yet. Raises the module's errors; nothing is written before."""
        if ctx.mode is not Mode.GENESIS:
            raise NotSupported("validators are created by gentxs in the genesis file; joining later is not part of this version")
        params = self.params(state)
        operator = bech32.decode(message.validator_address, bech32.VALIDATOR)
        key = public_key_from_any(message.pubkey)
        store = state.store(keys.STORE)
        if store.has(keys.validator(operator)):
            raise ValidatorExists(f"operator {message.validator_address} has a validator")
        if store.has(keys.by_consensus_address(key.address)):
            raise ConsensusKeyTaken
        if message.value.denom != params.bond_denom:
            raise InvalidRequest(f"invalid coin denomination: got {message.value.denom}, expected {params.bond_denom}")
        least = from_wire(params.min_commission_rate)
        if from_wire(message.commission.rate) < least:
            raise CommissionTooLow(f"commission must be at least {least}")
        amount = coins.parse_int(message.value.amount)
        validator = Validator(
            operator_address=message.validator_address,
            consensus_pubkey=message.pubkey,
            status=UNBONDED,
            tokens=str(amount),
            delegator_shares=str(amount * ONE),
            description=message.description,
            min_self_delegation=message.min_self_delegation,
        )
        validator.commission.commission_rates.CopyFrom(message.commission)
        validator.commission.update_time.seconds, validator.commission.update_time.nanos = divmod(ctx.time_ns, 10**9)
        self._bank.delegate_to_module(ctx, state, operator, NOT_BONDED_POOL, (Coin(params.bond_denom, amount),))
        self.set_validator(state, validator)
        delegator = bech32.encode(operator)
        self.set_delegation(state, Delegation(delegator_address=delegator, validator_address=message.validator_address, shares=str(amount * ONE)))
        ctx.events.emit("create_validator", ("validator", message.validator_address), ("amount", f"{amount}{params.bond_denom}"))

    def bond_genesis_validators(self, ctx: Context, state: StateWriter) -> list[ValidatorUpdate]:
        """Bond the strongest validators, move their stake to the bonded pool, and return the set for CometBFT."""
        params = self.params(state)
        store = state.store(keys.STORE)
        ranked = [operator for _, operator in store.iterate(keys.BY_POWER, prefix_end(keys.BY_POWER), reverse=True)]
        updates: list[ValidatorUpdate] = []
        newly_bonded = 0
        for operator in ranked[: params.max_validators]:
            validator = self.validator(state, operator)
            assert validator is not None, "the power index names only validators"
            power = power_of(validator)
            if power == 0:
                break
            if validator.status != BONDED:
                validator.status = BONDED
                newly_bonded += int(validator.tokens)
                self.set_validator(state, validator)
            store.set(keys.last_power(operator), _LastPower(value=power).SerializeToString())
            updates.append(ValidatorUpdate("ed25519", public_key_from_any(validator.consensus_pubkey).raw, power))
        if newly_bonded:
            pools = (bech32.module_address(NOT_BONDED_POOL), bech32.module_address(BONDED_POOL))
            self._bank.send(ctx, state, *pools, (Coin(params.bond_denom, newly_bonded),))
        store.set(keys.LAST_TOTAL_POWER, _IntProto(int=str(sum(update.power for update in updates))).SerializeToString())
        return updates


def power_of(validator: Any) -> int:
    """Voting power: whole units of 10^15 wei."""
    return int(validator.tokens) // POWER_REDUCTION


def check_create_validator(message: Any) -> None:
    """The rules of MsgCreateValidator that need no state; an amount without voting power is refused with that reason."""
    bech32.decode(message.validator_address, bech32.VALIDATOR)
    key = public_key_from_any(message.pubkey)
    if not isinstance(key, Ed25519PublicKey):
        raise WrongKeyType(f"a validator signs blocks with an ed25519 key, got {key.type_url}")
    amount = coins.parse_int(message.value.amount)
    if amount <= 0:
        raise InvalidRequest(f"invalid delegation amount: expected a positive amount, got {amount}")
    if amount < POWER_REDUCTION:
        raise InvalidRequest(
            f"a self-delegation of {amount}{message.value.denom} has no voting power: delegate at least {POWER_REDUCTION} wei (10^15), one unit of power"
        )
    for name, limit in _LIMITS.items():
        length = len(getattr(message.description, name).encode())
        if length > limit:
            raise InvalidRequest(f"{name} has at most {limit} bytes, got {length}")
    if not message.description.moniker:
        raise InvalidRequest("moniker must not be empty")
    try:
        rate, most, change = (from_wire(getattr(message.commission, name)).scaled for name in ("rate", "max_rate", "max_change_rate"))
    except DecError as error:
        raise TxDecodeError(f"commission: {error}") from None
    if not 0 <= rate <= most <= ONE or not 0 <= change <= most:
        raise CommissionOutOfBounds(
            f"expected 0 <= rate <= max_rate <= 1 and 0 <= max_change_rate <= max_rate, got {Dec(rate)}, {Dec(most)}, {Dec(change)}"
        )
    least = coins.parse_int(message.min_self_delegation)
    if least <= 0 or amount < least:
        raise MinSelfDelegation(f"minimum self delegation must be positive and covered: got {least}, self-delegation {amount}")


class StakingGenesis:
    """The section ``staking`` of app_state."""

    def __init__(self, keeper: StakingKeeper) -> None:
        self._keeper = keeper

    def default(self) -> Json:
        params = Params(max_validators=100, max_entries=7, historical_entries=10000, bond_denom="wei", min_commission_rate="0")
        params.unbonding_time.seconds = 1_814_400
        return to_json(GenesisState(params=params, last_total_power=b"0"))

    def validate(self, section: Json) -> None:
        _read(section)

    def load(self, ctx: Context, state: StateWriter, section: Json) -> Sequence[ValidatorUpdate]:
        genesis = _read(section)
        self._keeper.set_params(state, genesis.params)
        for validator in genesis.validators:
            self._keeper.set_validator(state, validator)
        for delegation in genesis.delegations:
            self._keeper.set_delegation(state, delegation)
        return self._keeper.bond_genesis_validators(ctx, state) if genesis.validators else ()

    def export(self, ctx: Context, state: StateReader) -> Json:
        store = state.store(keys.STORE)
        genesis = GenesisState(params=self._keeper.params(state), exported=True)
        total = 0
        for key, raw in store.iterate(keys.LAST_POWERS, prefix_end(keys.LAST_POWERS)):
            power = _LastPower.FromString(raw).value
            genesis.last_validator_powers.add(address=bech32.encode(key[2:], bech32.VALIDATOR), power=power)
            total += power
        genesis.last_total_power = str(total).encode()
        for _, raw in store.iterate(keys.VALIDATORS, prefix_end(keys.VALIDATORS)):
            genesis.validators.add().ParseFromString(raw)
        for _, raw in store.iterate(keys.DELEGATIONS, prefix_end(keys.DELEGATIONS)):
            genesis.delegations.add().ParseFromString(raw)
        return to_json(genesis)


def _read(section: Json) -> Any:
    path = "app_state.staking"
    try:
        genesis = from_json(GenesisState, section, path)
        if not coins.is_denom(genesis.params.bond_denom):
            raise GenesisError(f"{path}.params.bond_denom", f"expected a denom, got {genesis.params.bond_denom!r}")
        if genesis.params.max_validators == 0:
            raise GenesisError(f"{path}.params.max_validators", "must be positive, got 0")
        for at, validator in enumerate(genesis.validators):
            bech32.decode(validator.operator_address, bech32.VALIDATOR)
            public_key_from_any(validator.consensus_pubkey)
            if coins.parse_int(validator.tokens) < 0:
                raise GenesisError(f"{path}.validators[{at}].tokens", f"must not be negative, got {validator.tokens}")
    except AppError as error:
        raise GenesisError(path, error.detail) from None
    for name in ("unbonding_delegations", "redelegations"):
        if getattr(genesis, name):
            raise GenesisError(f"{path}.{name}", "unbonding and redelegation are not part of this version; expected an empty list")
    return genesis


def _queries(keeper: StakingKeeper, bank: Bank) -> Mapping[str, Query]:
    service = f"/{PACKAGE}.Query/"

    def params(ctx: Context, state: StateReader, request: Any) -> Any:
        return message_class(f"{PACKAGE}.QueryParamsResponse")(params=keeper.params(state))

    def validators(ctx: Context, state: StateReader, request: Any) -> Any:
        status = Validator.DESCRIPTOR.fields_by_name["status"].enum_type.values_by_name
        if request.status and request.status not in status:
            raise InvalidRequest(f"invalid validator status {request.status[:60]}")
        wanted = status[request.status].number if request.status else None
        found, page = paginate(
            state.store(keys.STORE),
            keys.VALIDATORS,
            request.pagination,
            lambda _, raw: Validator.FromString(raw),
            None if wanted is None else lambda _, raw: Validator.FromString(raw).status == wanted,
        )
        return message_class(f"{PACKAGE}.QueryValidatorsResponse")(validators=found, pagination=page)

    def validator(ctx: Context, state: StateReader, request: Any) -> Any:
        found = keeper.validator(state, bech32.decode(request.validator_addr, bech32.VALIDATOR))
        if found is None:
            raise NotFound(f"validator {request.validator_addr} not found")
        return message_class(f"{PACKAGE}.QueryValidatorResponse")(validator=found)

    def pool(ctx: Context, state: StateReader, request: Any) -> Any:
        denom = keeper.params(state).bond_denom
        bonded, loose = (str(bank.balance(state, bech32.module_address(name), denom)) for name in (BONDED_POOL, NOT_BONDED_POOL))
        return message_class(f"{PACKAGE}.QueryPoolResponse")(pool={"bonded_tokens": bonded, "not_bonded_tokens": loose})

    def delegation(ctx: Context, state: StateReader, request: Any) -> Any:
        key = keys.delegation(bech32.decode(request.delegator_addr), bech32.decode(request.validator_addr, bech32.VALIDATOR))
        raw = state.store(keys.STORE).get(key)
        if raw is None:
            raise NotFound(f"delegation with delegator {request.delegator_addr} not found for validator {request.validator_addr}")
        found = Delegation.FromString(raw)
        amount = str(int(found.shares) // ONE)
        response = message_class(f"{PACKAGE}.QueryDelegationResponse")()
        response.delegation_response.delegation.CopyFrom(found)
        response.delegation_response.balance.CopyFrom(coins.CoinMessage(denom=keeper.params(state).bond_denom, amount=amount))
        return response

    return {
        service + "Params": params,
        service + "Validators": validators,
        service + "Validator": validator,
        service + "Pool": pool,
        service + "Delegation": delegation,
    }


def staking_module(keeper: StakingKeeper, bank: Bank) -> Module:
    """Declare staking over its ``keeper``."""
    response = message_class(f"{PACKAGE}.MsgCreateValidatorResponse")

    def create_validator(ctx: Context, state: StateWriter, message: Any) -> Any:
        check_create_validator(message)
        keeper.create_validator(ctx, state, message)
        return response()

    def pools_hold_the_stake(state: StateReader) -> str | None:
        denom = keeper.params(state).bond_denom
        bonded = sum(
            int(validator.tokens)
            for _, raw in state.store(keys.STORE).iterate(keys.VALIDATORS, prefix_end(keys.VALIDATORS))
            if (validator := Validator.FromString(raw)).status == BONDED
        )
        held = bank.balance(state, bech32.module_address(BONDED_POOL), denom)
        return None if held == bonded else f"bonded pool holds {held}{denom}, bonded validators have {bonded}{denom}"

    return Module(
        name="staking",
        stores=(keys.STORE,),
        messages={f"{PACKAGE}.MsgCreateValidator": MessageHandler(create_validator, check_create_validator)},
        queries=_queries(keeper, bank),
        genesis=StakingGenesis(keeper),
        account_permissions={BONDED_POOL: ("burner", "staking"), NOT_BONDED_POOL: ("burner", "staking")},
        invariants={"bonded pool holds the bonded stake": pools_hold_the_stake},
        errors=ERRORS,
        consensus_version=5,
    )
