"""The section ``register`` of app_state: ``stratos.register.v1.GenesisState`` as proto JSON, in the original's form and in ours.

In an original genesis the owners still have what their nodes deposit, and the four pools are empty: it is taken from them here, and the limit follows
from the deposits. In an export the pools have it already, in bank's section, and the limit is the file's. Source: stratos-chain.md 2.12.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from chain import coins
from chain.codec.canonical import fill
from chain.codec.json import from_json, to_json
from chain.codec.registry import message_class
from chain.codec.times import GO_NO_TIME_S, ns_of
from chain.coins import Coin
from chain.context import Context
from chain.crypto import address as bech32
from chain.crypto.keys import ED25519_URL, public_key_from_any, public_key_to_any
from chain.dec import ONE, DecError, from_wire
from chain.errors import AppError, InvalidRequest
from chain.module import GenesisError, Json, ValidatorUpdate
from chain.ozone import DEFAULT_RATE, MAX_AMOUNT, Ozone
from chain.store.api import StateReader, StateWriter
from modules.register import keys, records
from modules.register.deposits import initial_limit_noz
from modules.register.keeper import RegisterKeeper
from modules.register.node_types import check_node_type
from modules.register.params import MAX_PERIOD_S, check_params, default_params
from modules.register.queries import leaving_deposits
from modules.register.records import ADDRESS_BYTES, BONDED, PACKAGE, UNBONDED, UNBONDING, bonded_pool, is_meta, not_bonded_pool

GenesisState: Final = message_class(f"{PACKAGE}.GenesisState")
PATH: Final = "app_state.register"
_MAX_INT64: Final = 2**63 - 1
_END_S: Final = 253_402_300_800
"""The year 10,000."""
_LATEST_S: Final = _END_S - 3 * MAX_PERIOD_S
"""So that every time that follows from a node's is one that can be written."""


class RegisterGenesis:
    """Default, check, load and export."""

    def __init__(self, keeper: RegisterKeeper) -> None:
        self._keeper = keeper

    def default(self) -> Json:
        return to_json(GenesisState(params=default_params(), deposit_noz_rate=str(DEFAULT_RATE.scaled)))

    def validate(self, section: Json) -> None:
        _read(section)

    def load(self, ctx: Context, state: StateWriter, section: Json) -> Sequence[ValidatorUpdate]:
        genesis, counted = _read(section)
        keeper = self._keeper
        keeper.set_params(state, genesis.params)
        keeper.set_rate(state, from_wire(genesis.deposit_noz_rate))
        pending_wei = _int(genesis.pending_lower_wei)
        deposit_wei = sum(counted.values()) + pending_wei
        for key, value in (
            (keys.DEPOSIT_WEI, deposit_wei),
            (keys.PENDING_WEI, pending_wei),
            (keys.PENDING_NOZ, _int(genesis.pending_lower_noz)),
            *((key, 0) for key in (keys.BONDED_META_NODES, keys.BONDED_RESOURCE_NODES, keys.LINGERING_WEI, keys.LEAVING_WEI)),
        ):
            keeper.set_number(state, key, value)
        for node in (*genesis.resource_nodes, *genesis.meta_nodes):
            keeper.save(state, node, counted[records.address_of(node)])
        for record in genesis.unbonding_nodes:
            address = bech32.decode(record.network_addr, bech32.NODE)
            keeper.set_unbonding(state, address, record)
            for entry in record.entries:
                keeper.enqueue(state, address, ns_of(entry.completion_time))
        is_fresh = self._fill_pools(ctx, state, genesis)
        prepaid = keeper.ozone(state).prepaid_wei
        limit = initial_limit_noz(deposit_wei, keeper.rate(state)) if is_fresh and not prepaid else _int(genesis.remaining_noz_limit)
        keeper.set_number(state, keys.REMAINING_NOZ, limit)
        pool = keeper.ozone(state)
        if pool.solvency and pool.outstanding_noz < 0:
            raise InvalidRequest(f"{PATH}.remaining_noz_limit: the deposits make {pool.supply_noz} noz, got {limit} noz that remain")
        for vote in genesis.meta_node_reg_vote_pool:
            keeper.set_record(state, keys.registration(bech32.decode(vote.network_address, bech32.NODE)), vote)
        for vote in genesis.kick_meta_node_vote_pool:
            keeper.set_record(state, keys.kick(bech32.decode(vote.target_network_address, bech32.NODE)), vote)
        for record in genesis.effective_deposit_approvals:
            key = keys.approvals(bech32.decode(record.network_address, bech32.NODE), _int(record.effective_tokens_wei))
            keeper.set_record(state, key, record)
        for debt in genesis.slashing:
            keeper.set_debt(state, bech32.decode(debt.wallet_address), _debt(debt))
        return ()

    def _fill_pools(self, ctx: Context, state: StateWriter, genesis: Any) -> bool:
        """Take the deposits from their owners if all pools are empty; True if so. Raises InvalidRequest (sdk/18) for pools that hold anything else."""
        keeper, denom = self._keeper, genesis.params.bond_denom
        nodes = (*genesis.resource_nodes, *genesis.meta_nodes)
        wanted = dict.fromkeys(records.POOLS, 0)
        for node in nodes:
            bonded, rest = _by_pool(node, keeper.unbonding_wei(state, records.address_of(node)))
            wanted[bonded_pool(node)] += bonded
            wanted[not_bonded_pool(node)] += rest
        held = keeper.deposits_wei(state)
        if any(wanted.values()) and not any(held.values()):
            for node in nodes:
                owner = bech32.decode(node.owner_address)
                parts = _by_pool(node, keeper.unbonding_wei(state, records.address_of(node)))
                for pool, amount in zip((bonded_pool(node), not_bonded_pool(node)), parts, strict=True):
                    if amount:
                        keeper.bank.send_to_module(ctx, state, owner, pool, (Coin(denom, amount),))
            return True
        for name, amount in wanted.items():
            if held[name] != amount:
                raise InvalidRequest(
                    f"{PATH}: the deposits add up to {amount}{denom} in {name}, whose balance in app_state.bank is {held[name]}{denom}; "
                    "expected that, or four empty pools and the deposits in the owners' accounts"
                )
        return False

    def export(self, ctx: Context, state: StateReader) -> Json:
        keeper = self._keeper
        nodes = (*keeper.resource_nodes(state), *keeper.meta_nodes(state))
        return to_json(
            GenesisState(
                params=keeper.params(state),
                resource_nodes=[node for node in nodes if not is_meta(node)],
                meta_nodes=[node for node in nodes if is_meta(node)],
                remaining_noz_limit=str(keeper.number(state, keys.REMAINING_NOZ)),
                slashing=[_slashing(wallet, debt) for wallet, debt in keeper.debts(state)],
                deposit_noz_rate=str(keeper.rate(state).scaled),
                meta_node_reg_vote_pool=keeper.registrations(state),
                unbonding_nodes=keeper.unbondings(state),
                kick_meta_node_vote_pool=keeper.kick_votes(state),
                pending_lower_wei=str(keeper.number(state, keys.PENDING_WEI)),
                pending_lower_noz=str(keeper.number(state, keys.PENDING_NOZ)),
                leaving_deposits=[one for node in nodes for one in leaving_deposits(keeper, state, node)],
                effective_deposit_approvals=keeper.all_approvals(state),
            )
        )


def _by_pool(node: Any, leaving_wei: int) -> tuple[int, int]:
    """(wei in the bonded pool, wei in the other) of a node's deposit."""
    tokens = int(node.tokens)
    bonded = tokens - leaving_wei if node.status == BONDED else 0
    return bonded, tokens - bonded


def _slashing(wallet: bytes, debt_wei: int) -> Any:
    found = {"wallet_address": bech32.encode(wallet)}
    return {**found, "value": debt_wei} if debt_wei <= _MAX_INT64 else {**found, "value_wei": str(debt_wei)}


def _debt(slashing: Any) -> int:
    """wei of a Slashing. Raises InvalidRequest for one that is not positive or given twice."""
    wei = _int(slashing.value_wei)
    if slashing.value < 0 or (slashing.value and wei) or not slashing.value + wei:
        raise InvalidRequest(f"expected a positive debt, in value or in value_wei, got {slashing.value} and {wei}")
    return int(slashing.value) + wei


# --- checks ---------------------------------------------------------------------------------------------------------------------


def _read(section: Json) -> tuple[Any, dict[bytes, int]]:
    """A GenesisState that can be loaded, in the spelling that is stored, and what of each node's deposit counts in S. Raises GenesisError."""
    try:
        genesis = from_json(GenesisState, section, PATH)
        fill(genesis)  # an absent time is year 1 from here on, as it is stored
    except AppError as error:
        raise GenesisError(PATH, error.detail) from None
    with _at(f"{PATH}.params"):
        check_params(genesis.params)
    with _at(f"{PATH}.deposit_noz_rate"):
        rate = from_wire(genesis.deposit_noz_rate)
        if not 0 < rate.scaled <= MAX_AMOUNT * ONE:
            raise InvalidRequest("expected a positive rate of wei per noz of at most 2^127 - 1")
    for name in ("remaining_noz_limit", "pending_lower_wei", "pending_lower_noz"):
        with _at(f"{PATH}.{name}"):
            _int(getattr(genesis, name))
    nodes: dict[bytes, Any] = {}
    for name in ("resource_nodes", "meta_nodes"):
        for at, node in enumerate(getattr(genesis, name)):
            path = f"{PATH}.{name}[{at}]"
            with _at(path):
                address = _check_node(node)
            if address in nodes:
                raise GenesisError(path, f"there is another node with the address {node.network_address}")
            nodes[address] = node
    _check_unbonding(genesis, nodes)
    counted = _counted(genesis, nodes)
    with _at(f"{PATH}.meta_nodes"):
        Ozone(sum(counted.values()) + _int(genesis.pending_lower_wei), 0, rate=rate)
    _check_votes(genesis, nodes)
    wallets: set[bytes] = set()
    for at, debt in enumerate(genesis.slashing):
        with _at(f"{PATH}.slashing[{at}]"):
            wallet = bech32.decode(debt.wallet_address)
            _debt(debt)
            _once(wallet, wallets)
    return genesis, counted


def _check_node(node: Any) -> bytes:
    """The network address of a node that can be stored. Spells its addresses as they are stored."""
    address = _network(node.network_address)
    if not node.HasField("pubkey") or node.pubkey.type_url != ED25519_URL:
        raise InvalidRequest(f"pubkey: expected {ED25519_URL}, got {node.pubkey.type_url[:100] or 'none'}")
    key = public_key_from_any(node.pubkey)
    if key.address != address:
        raise InvalidRequest(f"network_address: expected that of the public key, {records.text_of(key.address)}, got {node.network_address}")
    node.pubkey.CopyFrom(public_key_to_any(key))
    node.network_address = records.text_of(address)
    node.owner_address = bech32.encode(bech32.decode(node.owner_address))
    node.beneficiary_address = bech32.encode(bech32.decode(node.beneficiary_address)) if node.beneficiary_address else node.owner_address
    if node.status not in (UNBONDED, UNBONDING, BONDED):
        raise InvalidRequest(f"status: expected unbonded, unbonding or bonded, got {node.status}")
    _check_time(node.creation_time, "creation_time")
    if node.creation_time.seconds > _LATEST_S:
        raise InvalidRequest("creation_time: expected a time at least three hundred years before the year 10000")
    node.tokens = str(_int(node.tokens))
    if node.tokens == "0":
        raise InvalidRequest("tokens: expected a positive deposit, got 0")
    if not is_meta(node):
        check_node_type(node.node_type)
        node.effective_tokens = str(_int(node.effective_tokens))
        if int(node.effective_tokens) > int(node.tokens):
            raise InvalidRequest(f"effective_tokens: {node.effective_tokens} wei are more than the deposit of {node.tokens} wei")
    elif node.status == UNBONDED and not node.suspend:
        raise InvalidRequest("suspend: a meta node that is not bonded is a candidate, expected true")
    return address


def _check_unbonding(genesis: Any, nodes: dict[bytes, Any]) -> None:
    leaving = dict.fromkeys(nodes, 0)
    seen: set[bytes] = set()
    for at, record in enumerate(genesis.unbonding_nodes):
        with _at(f"{PATH}.unbonding_nodes[{at}]"):
            address = _network(record.network_addr)
            _once(address, seen)
            if address not in nodes or is_meta(nodes[address]) != record.is_meta_node:
                raise InvalidRequest(f"there is no {'meta' if record.is_meta_node else 'resource'} node {record.network_addr}")
            if not record.entries:
                raise InvalidRequest("expected at least one entry, got none")
            record.network_addr = records.text_of(address)
            for entry in record.entries:
                _check_time(entry.completion_time, "completion_time")
                entry.balance, entry.initial_balance = str(_int(entry.balance)), str(_int(entry.initial_balance))
                if not 0 <= entry.creation_height <= _MAX_INT64:
                    raise InvalidRequest(f"creation_height: expected 0 or more, got {entry.creation_height}")
                leaving[address] += int(entry.balance)
    for address, node in nodes.items():
        tokens, effective = int(node.tokens), 0 if is_meta(node) else int(node.effective_tokens)
        is_consistent = {
            UNBONDED: leaving[address] == 0,
            UNBONDING: leaving[address] == tokens,
            BONDED: leaving[address] + effective <= tokens,
        }
        if not is_consistent[node.status]:
            raise GenesisError(
                f"{PATH}.unbonding_nodes",
                f"{leaving[address]} wei are leaving of {node.network_address}, which has {tokens} wei and is {records.STATUS_NAMES[node.status]}",
            )


def _counted(genesis: Any, nodes: dict[bytes, Any]) -> dict[bytes, int]:
    """What of each node's deposit counts in S: what it works with, and what the file says beside."""
    counted = {address: records.at_work_wei(node) for address, node in nodes.items()}
    seen: set[bytes] = set()
    for at, one in enumerate(genesis.leaving_deposits):
        with _at(f"{PATH}.leaving_deposits[{at}]"):
            address = _network(one.network_address)
            _once(address, seen)
            if address not in nodes:
                raise InvalidRequest(f"there is no node {one.network_address}")
            counted[address] += _int(one.amount_wei)
            if counted[address] > int(nodes[address].tokens):
                raise InvalidRequest(f"{counted[address]} wei of {one.network_address} would count, of a deposit of {nodes[address].tokens} wei")
    return counted


def _check_votes(genesis: Any, nodes: dict[bytes, Any]) -> None:
    for name, field in (("meta_node_reg_vote_pool", "network_address"), ("kick_meta_node_vote_pool", "target_network_address")):
        seen: set[bytes] = set()
        for at, vote in enumerate(getattr(genesis, name)):
            with _at(f"{PATH}.{name}[{at}]"):
                address = _network(getattr(vote, field))
                _once(address, seen)
                _check_time(vote.expire_time, "expire_time")
                _check_voters([*vote.approve_list, *vote.reject_list])
                node = nodes.get(address)
                if field == "network_address" and node is not None and not vote.is_vote_passed and not (is_meta(node) and node.status == UNBONDED):
                    raise InvalidRequest(f"{vote.network_address} is no candidate, so a vote on it has passed or is over")
                setattr(vote, field, records.text_of(address))
    pairs: set[bytes] = set()
    for at, record in enumerate(genesis.effective_deposit_approvals):
        with _at(f"{PATH}.effective_deposit_approvals[{at}]"):
            address, amount = _network(record.network_address), _int(record.effective_tokens_wei)
            if address not in nodes or is_meta(nodes[address]) or not amount:
                raise InvalidRequest(f"expected a resource node and a positive amount, got {record.network_address} and {amount}")
            _once(keys.approvals(address, amount), pairs)
            _check_time(record.expire_time, "expire_time")
            _check_voters(record.approvers)
            record.network_address = records.text_of(address)


def _check_voters(voters: Sequence[str]) -> None:
    seen: set[bytes] = set()
    for voter in voters:
        _once(_network(voter), seen)


def _check_time(time: Any, what: str) -> None:
    """Raise InvalidRequest (sdk/18) for a time that no key can hold: an hour's offset takes 9999-12-31 beyond its four digits."""
    if not GO_NO_TIME_S <= time.seconds < _END_S:
        raise InvalidRequest(f"{what}: expected a time in the years 1 to 9999, got {time.seconds} s")


def _once(one: bytes, seen: set[bytes]) -> None:
    if one in seen:
        raise InvalidRequest("it is there twice")
    seen.add(one)


def _network(text: str) -> bytes:
    address = bech32.decode(text, bech32.NODE)
    if len(address) != ADDRESS_BYTES:
        raise InvalidRequest(f"a network address has {ADDRESS_BYTES} bytes, got {len(address)}")
    return address


def _int(text: str) -> int:
    """An Int from 0 to 2^127 - 1; 0 for none. Raises InvalidRequest (sdk/18), InvalidCoins (sdk/10)."""
    value = coins.parse_int(text or "0")
    if not 0 <= value <= MAX_AMOUNT:
        raise InvalidRequest(f"expected from 0 to 2^127 - 1, got {text[:60]}")
    return value


@contextmanager
def _at(path: str) -> Iterator[None]:
    """Turns the error of a rule into one of the genesis file that names the ``path``."""
    try:
        yield
    except AppError as error:
        raise GenesisError(path, error.detail or error.description) from None
    except DecError as error:
        raise GenesisError(path, str(error)) from None
