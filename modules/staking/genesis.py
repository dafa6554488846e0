"""The section ``staking`` of app_state: ``cosmos.staking.v1beta1.GenesisState`` as proto JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from chain import coins
from chain.codec.json import from_json, to_json
from chain.codec.registry import message_class
from chain.codec.times import ns_of
from chain.context import Context
from chain.crypto import address as bech32
from chain.crypto.keys import public_key_from_any
from chain.dec import ONE, DecError, from_wire
from chain.errors import AppError, InvalidRequest
from chain.module import GenesisError, Json, ValidatorUpdate
from chain.store.api import StateReader, StateWriter
from modules.staking import keys
from modules.staking.expected import Bank, Consensus
from modules.staking.keeper import StakingKeeper
from modules.staking.params import check_params, default_params
from modules.staking.records import BONDED, BONDED_POOL, NOT_BONDED_POOL, PACKAGE, STATUS_NAMES, UNBONDING
from modules.staking.shares import power_of
from modules.staking.store import OF_REDELEGATION, OF_UNBONDING, OF_VALIDATOR, operator_of
from modules.staking.validator_set import KEY_TYPES

GenesisState: Final = message_class(f"{PACKAGE}.GenesisState")
PATH: Final = "app_state.staking"
MAX_TOTAL_POWER: Final = (1 << 63) // 8
"""CometBFT's own bound of all powers together."""
MAX_STAKE_BITS: Final = 200
"""Of shares (scaled) and balances: their products with tokens and fractions stay below the 315 bits of a Dec, at which a block would stop."""
MAX_ID: Final = (1 << 62) - 1


class StakingGenesis:
    """Default, check, load and export."""

    def __init__(self, keeper: StakingKeeper, bank: Bank, consensus: Consensus) -> None:
        self._keeper, self._bank, self._consensus = keeper, bank, consensus

    def default(self) -> Json:
        return to_json(GenesisState(params=default_params(), last_total_power=b"0"))

    def validate(self, section: Json) -> None:
        _read(section)

    def load(self, ctx: Context, state: StateWriter, section: Json) -> Sequence[ValidatorUpdate]:
        genesis = _read(section)
        keeper, accepted = self._keeper, self._consensus.key_types(ctx, state)
        for at, validator in enumerate(genesis.validators):
            kind = KEY_TYPES[public_key_from_any(validator.consensus_pubkey).type_url]
            if kind not in accepted:
                raise GenesisError(
                    f"{PATH}.validators[{at}].consensus_pubkey", f"consensus.params.validator.pub_key_types is {', '.join(accepted)}, got {kind}"
                )
        keeper.set_params(state, genesis.params)
        keeper.set_last_total_power(state, coins.parse_int(genesis.last_total_power.decode("ascii") or "0"))
        pools = {BONDED_POOL: 0, NOT_BONDED_POOL: 0}
        ids = _Ids(keeper, state)
        for validator in genesis.validators:
            operator = operator_of(validator)
            keeper.set_validator(state, validator)
            keeper.set_by_cons(state, validator)
            keeper.set_by_power(state, validator)
            if not genesis.exported:
                keeper.created(ctx, state, operator)
            if validator.status == UNBONDING:
                keeper.queue_validator(state, validator)
                for unbonding_id in validator.unbonding_ids:
                    ids.add(unbonding_id, keys.validator(operator), OF_VALIDATOR)
            pools[BONDED_POOL if validator.status == BONDED else NOT_BONDED_POOL] += int(validator.tokens)
        for delegation in genesis.delegations:
            keeper.load_delegation(ctx, state, delegation, is_new=not genesis.exported)
        for unbonding in genesis.unbonding_delegations:
            keeper.put_unbonding(state, unbonding)
            key = keys.unbonding(bech32.decode(unbonding.delegator_address), bech32.decode(unbonding.validator_address, bech32.VALIDATOR))
            for entry in unbonding.entries:
                keeper.queue_unbonding(state, unbonding, ns_of(entry.completion_time))
                ids.add(entry.unbonding_id, key, OF_UNBONDING)
                pools[NOT_BONDED_POOL] += int(entry.balance)
        for moved in genesis.redelegations:
            keeper.put_redelegation(state, moved)
            operators = (bech32.decode(text, bech32.VALIDATOR) for text in (moved.validator_src_address, moved.validator_dst_address))
            key = keys.redelegation(bech32.decode(moved.delegator_address), *operators)
            for entry in moved.entries:
                keeper.queue_redelegation(state, moved, ns_of(entry.completion_time))
                ids.add(entry.unbonding_id, key, OF_REDELEGATION)
        ids.close()
        self._require_pools(state, pools, genesis.params.bond_denom)
        if not genesis.exported:
            return keeper.bond_genesis_validators(ctx, state)
        return [self._known(state, one) for one in genesis.last_validator_powers]

    def _known(self, state: StateWriter, one: Any) -> ValidatorUpdate:
        """The power that CometBFT knows of a validator, which the first block goes on from."""
        operator = bech32.decode(one.address, bech32.VALIDATOR)
        self._keeper.set_last_power(state, operator, one.power)
        key = public_key_from_any(self._keeper.require_validator(state, operator).consensus_pubkey)
        return ValidatorUpdate(KEY_TYPES[key.type_url], key.raw, one.power)

    def _require_pools(self, state: StateReader, wanted: dict[str, int], denom: str) -> None:
        for name, amount in wanted.items():
            held = coins.to_text(self._bank.balances(state, bech32.module_address(name)))
            expected = f"{amount}{denom}" if amount else ""
            if held != expected:
                raise InvalidRequest(
                    f"{PATH}: the stake of the genesis file adds up to {expected or '0'} in {name}, whose balance in app_state.bank is {held or '0'}"
                )

    def export(self, ctx: Context, state: StateReader) -> Json:
        keeper = self._keeper
        powers = [{"address": bech32.encode(operator, bech32.VALIDATOR), "power": power} for operator, power in keeper.last_powers(state).items()]
        return to_json(
            GenesisState(
                params=keeper.params(state),
                last_total_power=str(keeper.last_total_power(state)).encode(),
                last_validator_powers=powers,
                validators=keeper.validators(state),
                delegations=keeper.delegations(state),
                unbonding_delegations=keeper.unbondings(state),
                redelegations=keeper.redelegations(state),
                exported=True,
            )
        )


class _Ids:
    """Unbonding ids of the genesis file: indexed again, and the next one counted from the highest (the SDK begins at 1 anew)."""

    def __init__(self, keeper: StakingKeeper, state: StateWriter) -> None:
        self._keeper, self._state, self._highest = keeper, state, 0

    def add(self, unbonding_id: int, key: bytes, kind: int) -> None:
        if unbonding_id:
            self._keeper.index_unbonding(self._state, unbonding_id, key, kind)
            self._highest = max(self._highest, unbonding_id)

    def close(self) -> None:
        if self._highest:
            self._state.store(keys.STORE).set(keys.UNBONDING_ID, self._highest.to_bytes(8, "big"))


def _read(section: Json) -> Any:
    """A GenesisState that can be loaded. Raises GenesisError naming the field."""
    try:
        genesis = from_json(GenesisState, section, PATH)
    except AppError as error:
        raise GenesisError(PATH, error.detail) from None
    with _at(f"{PATH}.params"):
        check_params(genesis.params)
    operators: dict[bytes, Any] = {}
    consensus: set[bytes] = set()
    for at, validator in enumerate(genesis.validators):
        path = f"{PATH}.validators[{at}]"
        with _at(path):
            _check_validator(validator)
        operator = operator_of(validator)  # not its text: bech32 may be written in capitals, and who joined that way stays written so
        if operator in operators:
            raise GenesisError(path, f"duplicate validator {validator.operator_address}")
        operators[operator] = validator
        key = public_key_from_any(validator.consensus_pubkey).address
        if key in consensus:
            raise GenesisError(path, f"duplicate validator in genesis state: the consensus key of {validator.operator_address} is another's, too")
        consensus.add(key)
    if sum(power_of(validator) for validator in genesis.validators) > MAX_TOTAL_POWER:
        raise GenesisError(f"{PATH}.validators", f"the validators' voting power is more than {MAX_TOTAL_POWER}, which CometBFT accepts at most")
    _check_delegations(genesis, operators)
    for name, destinations in (
        ("unbonding_delegations", ("validator_address",)),
        ("redelegations", ("validator_src_address", "validator_dst_address")),
    ):
        known: set[tuple[bytes, ...]] = set()
        for at, record in enumerate(getattr(genesis, name)):
            with _at(f"{PATH}.{name}[{at}]"):
                _check_entries(record, destinations, known)
    listed: set[bytes] = set()
    for at, one in enumerate(genesis.last_validator_powers):
        with _at(f"{PATH}.last_validator_powers[{at}]"):
            operator = bech32.decode(one.address, bech32.VALIDATOR)
        found = operators.get(operator) if operator not in listed else None
        listed.add(operator)
        if found is None or found.status != BONDED or one.power <= 0:
            raise GenesisError(
                f"{PATH}.last_validator_powers[{at}]", f"expected a bonded validator and a positive power, got {one.address}: {one.power}"
            )
    return genesis


def _check_validator(validator: Any) -> None:
    operator_of(validator)
    key = public_key_from_any(validator.consensus_pubkey)
    if key.type_url not in KEY_TYPES:
        raise InvalidRequest(f"consensus_pubkey: expected one of {', '.join(KEY_TYPES)}, got {key.type_url}")
    if validator.status not in STATUS_NAMES.values():
        raise InvalidRequest(f"status: expected one of {', '.join(STATUS_NAMES)}, got {validator.status}")
    for name in ("tokens", "min_self_delegation"):
        _not_negative(name, coins.parse_int(getattr(validator, name) or "0"))
    shares = from_wire(validator.delegator_shares).scaled
    _bounded("delegator_shares", shares)
    for name in ("rate", "max_rate", "max_change_rate"):
        rate = from_wire(getattr(validator.commission.commission_rates, name))
        if not 0 <= rate.scaled <= ONE:
            raise InvalidRequest(f"commission: {name} must be from 0 to 1, got {rate}")
    for unbonding_id in validator.unbonding_ids:
        _check_id(unbonding_id)
    _not_negative("unbonding_height", validator.unbonding_height)
    if validator.jailed and validator.status == BONDED:
        raise InvalidRequest("validator is bonded and jailed in genesis state")
    if not shares and validator.status != UNBONDING:
        raise InvalidRequest("bonded/unbonded genesis validator cannot have zero delegator shares")
    if validator.tokens == "" or validator.delegator_shares == "":
        raise InvalidRequest("tokens and delegator_shares must be given")


def _check_delegations(genesis: Any, operators: dict[bytes, Any]) -> None:
    sums = dict.fromkeys(operators, 0)
    seen: set[tuple[bytes, bytes]] = set()
    for at, delegation in enumerate(genesis.delegations):
        path = f"{PATH}.delegations[{at}]"
        with _at(path):
            pair = bech32.decode(delegation.delegator_address), bech32.decode(delegation.validator_address, bech32.VALIDATOR)
            shares = from_wire(delegation.shares).scaled
        if pair[1] not in sums or pair in seen or shares <= 0:
            got = f"{delegation.shares} of {delegation.validator_address}"
            raise GenesisError(path, f"expected positive shares of a validator, once for each delegator, got {got}")
        seen.add(pair)
        sums[pair[1]] += shares
    for at, (operator, total) in enumerate(sums.items()):
        if total != from_wire(operators[operator].delegator_shares).scaled:
            raise GenesisError(f"{PATH}.validators[{at}].delegator_shares", "must be the sum of its delegations' shares")


def _check_entries(record: Any, validators: Sequence[str], known: set[tuple[bytes, ...]]) -> None:
    addresses = bech32.decode(record.delegator_address), *(bech32.decode(getattr(record, name), bech32.VALIDATOR) for name in validators)
    if addresses in known:
        raise InvalidRequest("there is another record of these addresses")
    known.add(addresses)
    if not record.entries:
        raise InvalidRequest("expected at least one entry")
    for entry in record.entries:
        _bounded("initial_balance", coins.parse_int(entry.initial_balance))
        if hasattr(entry, "balance"):
            _bounded("balance", coins.parse_int(entry.balance))
        else:
            _bounded("shares_dst", from_wire(entry.shares_dst).scaled)
        _check_id(entry.unbonding_id)


def _check_id(unbonding_id: int) -> None:
    """The next id is counted from the highest."""
    if unbonding_id > MAX_ID:
        raise InvalidRequest(f"an unbonding id is at most {MAX_ID}, got {unbonding_id}")


def _bounded(name: str, value: int) -> None:
    _not_negative(name, value)
    if value.bit_length() > MAX_STAKE_BITS:
        raise InvalidRequest(f"{name} has at most {MAX_STAKE_BITS} bits, got {value.bit_length()}")


def _not_negative(name: str, value: int) -> None:
    if value < 0:
        raise InvalidRequest(f"{name} must not be negative, got {value}")


@contextmanager
def _at(path: str) -> Iterator[None]:
    """Turns the error of a rule into one of the genesis file that names the ``path``."""
    try:
        yield
    except AppError as error:
        raise GenesisError(path, error.detail or error.description) from None
    except DecError as error:
        raise GenesisError(path, str(error)) from None
