"""Queries of register: the original's, and what explorers need beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from chain.codec.registry import message_class
from chain.codec.times import ns_of
from chain.coins import CoinMessage
from chain.context import Context
from chain.crypto import address as bech32
from chain.errors import InvalidRequest, NotFound
from chain.module import Query
from chain.pagination import paginate
from chain.store.api import StateReader
from modules.register import keys, records
from modules.register.keeper import RegisterKeeper
from modules.register.records import ADDRESS_BYTES, BONDED, PACKAGE, UNBONDED, UNBONDING, MetaNode, ResourceNode, is_meta

SERVICE: Final = f"/{PACKAGE}.Query/"
DepositInfo: Final = message_class(f"{PACKAGE}.DepositInfo")
ANY, META, RESOURCE = 0, 1, 2
"""``query_type`` of DepositByNode."""
ACTIVE, SUSPENDED = 1, 2
"""SuspensionFilter."""
MAX_APPROVALS: Final = 100


def handlers(keeper: RegisterKeeper) -> Mapping[str, Query]:
    """The module's query handlers over ``keeper``."""

    def resource_node(ctx: Context, state: StateReader, request: Any) -> Any:
        return _response("ResourceNode")(node=_found(keeper.resource_node(state, _network(request.network_addr)), request.network_addr))

    def meta_node(ctx: Context, state: StateReader, request: Any) -> Any:
        return _response("MetaNode")(node=_found(keeper.meta_node(state, _network(request.network_addr)), request.network_addr))

    def params(ctx: Context, state: StateReader, request: Any) -> Any:
        return _response("Params")(params=keeper.params(state))

    def deposit_by_node(ctx: Context, state: StateReader, request: Any) -> Any:
        address = _network(request.network_addr)
        by_type: dict[int, Callable[[StateReader, bytes], Any]] = {ANY: keeper.node, META: keeper.meta_node, RESOURCE: keeper.resource_node}
        if request.query_type not in by_type:
            raise InvalidRequest(f"query_type: expected 0 (any), 1 (meta) or 2 (resource), got {request.query_type}")
        found = by_type[request.query_type](state, address)
        return _response("DepositByNode")(deposit_info=DepositInfo() if found is None else info(state, found))

    def deposit_by_owner(ctx: Context, state: StateReader, request: Any) -> Any:
        prefix = keys.nodes_of(_account(request.owner_addr, "owner_addr"))

        def read(rest: bytes, _: bytes) -> Any:
            return info(state, keeper.node(state, rest[1:]))

        found, page = paginate(state.store(keys.STORE), prefix, request.pagination, read)
        return _response("DepositByOwner")(deposit_infos=found, pagination=page)

    def info(state: StateReader, node: Any) -> Any:
        """DepositInfo of a node."""
        denom, leaving = keeper.denom(state), keeper.unbonding_wei(state, records.address_of(node))
        tokens = int(node.tokens)

        def part(status: int) -> Any:
            return _coin(denom, tokens if node.status == status else 0)

        return DepositInfo(
            network_address=node.network_address,
            pubkey=node.pubkey,
            suspend=node.suspend,
            status=node.status,
            tokens=node.tokens,
            owner_address=node.owner_address,
            description=node.description,
            creation_time=node.creation_time,
            node_type=0 if is_meta(node) else node.node_type,
            bonded_deposit=part(BONDED),
            un_bonding_deposit=_coin(denom, leaving if node.status == UNBONDING else 0),
            un_bonded_deposit=part(UNBONDED),
        )

    def deposit_total(ctx: Context, state: StateReader, request: Any) -> Any:
        denom, pools, leaving = keeper.denom(state), keeper.deposits_wei(state), keeper.number(state, keys.LEAVING_WEI)
        bonded = pools[records.RESOURCE_BONDED] + pools[records.META_BONDED]
        not_bonded = pools[records.RESOURCE_NOT_BONDED] + pools[records.META_NOT_BONDED]
        return _response("DepositTotal")(
            resource_nodes_total_deposit=_coin(denom, pools[records.RESOURCE_BONDED] + pools[records.RESOURCE_NOT_BONDED]),
            meta_nodes_total_deposit=_coin(denom, pools[records.META_BONDED] + pools[records.META_NOT_BONDED]),
            total_bonded_deposit=_coin(denom, bonded),
            total_unbonded_deposit=_coin(denom, not_bonded - leaving),
            total_unbonding_deposit=_coin(denom, leaving),
        )

    def resource_node_count(ctx: Context, state: StateReader, request: Any) -> Any:
        return _response("BondedResourceNodeCount")(number=keeper.number(state, keys.BONDED_RESOURCE_NODES))

    def meta_node_count(ctx: Context, state: StateReader, request: Any) -> Any:
        return _response("BondedMetaNodeCount")(number=keeper.number(state, keys.BONDED_META_NODES))

    def remaining_ozone(ctx: Context, state: StateReader, request: Any) -> Any:
        return _response("RemainingOzoneLimit")(ozone_limit=str(keeper.number(state, keys.REMAINING_NOZ)))

    def resource_nodes(ctx: Context, state: StateReader, request: Any) -> Any:
        found, page = listed(state, request, ResourceNode, keys.RESOURCE_NODES, keys.RESOURCE)
        return _response("ResourceNodes")(nodes=found, pagination=page)

    def meta_nodes(ctx: Context, state: StateReader, request: Any) -> Any:
        found, page = listed(state, request, MetaNode, keys.META_NODES, keys.META)
        return _response("MetaNodes")(nodes=found, pagination=page)

    def listed(state: StateReader, request: Any, kind: Any, everything: bytes, of_owner: bytes) -> tuple[list[Any], Any]:
        """A page of the nodes of one kind that pass the request's filters, of one owner or of all."""
        if request.suspension not in (0, ACTIVE, SUSPENDED):
            raise InvalidRequest(f"suspension: expected 0 (any), 1 (active) or 2 (suspended), got {request.suspension}")
        if request.status not in records.STATUS_NAMES:
            raise InvalidRequest(f"status: expected 0 (any) to 3, got {request.status}")

        def passes(node: Any) -> bool:
            return request.status in (0, node.status) and request.suspension in (0, SUSPENDED if node.suspend else ACTIVE)

        store = state.store(keys.STORE)
        if not request.owner_address:
            return paginate(
                store, everything, request.pagination, lambda _, raw: records.unpack(kind, raw), lambda _, raw: passes(records.unpack(kind, raw))
            )
        prefix = keys.nodes_of(_account(request.owner_address, "owner_address")) + of_owner
        return paginate(store, prefix, request.pagination, lambda rest, _: keeper.node(state, rest), lambda rest, _: passes(keeper.node(state, rest)))

    def unbonding_node(ctx: Context, state: StateReader, request: Any) -> Any:
        address = _network(request.network_addr)
        record = _found(keeper.unbonding(state, address), request.network_addr)
        return _response("UnbondingNode")(unbonding_node=record, leaving_deposits=leaving_deposits(keeper, state, keeper.node(state, address)))

    def votes(ctx: Context, state: StateReader, request: Any) -> Any:
        address = _network(request.network_addr)
        return _response("Votes")(
            registration=keeper.registration(state, address),
            kick=keeper.kick_vote(state, address),
            effective_deposits=keeper.approvals_for(state, address, MAX_APPROVALS),
        )

    def ozone_state(ctx: Context, state: StateReader, request: Any) -> Any:
        pool = keeper.ozone(state)
        return _response("OzoneState")(
            effective_deposit_wei=str(keeper.total_at_work_wei(state)),
            leaving_wei=str(keeper.number(state, keys.LINGERING_WEI)),
            pending_lower_wei=str(keeper.number(state, keys.PENDING_WEI)),
            pending_lower_noz=str(pool.pending_noz),
            remaining_noz=str(pool.remaining_noz),
            total_noz=str(pool.supply_noz),
            deposit_wei_per_noz=str(pool.rate.scaled),
        )

    named = {
        "ResourceNode": resource_node,
        "MetaNode": meta_node,
        "Params": params,
        "DepositByNode": deposit_by_node,
        "DepositByOwner": deposit_by_owner,
        "DepositTotal": deposit_total,
        "BondedResourceNodeCount": resource_node_count,
        "BondedMetaNodeCount": meta_node_count,
        "RemainingOzoneLimit": remaining_ozone,
        "ResourceNodes": resource_nodes,
        "MetaNodes": meta_nodes,
        "UnbondingNode": unbonding_node,
        "Votes": votes,
        "OzoneState": ozone_state,
    }
    return {SERVICE + name: query for name, query in named.items()}


def leaving_deposits(keeper: RegisterKeeper, state: StateReader, node: Any | None) -> list[Any]:
    """What of a node counts in S though the node does not work with it: one LeavingDeposit, or none. Without a time while nothing is leaving."""
    if node is None:
        return []
    address = records.address_of(node)
    amount = keeper.counted_wei(state, address) - records.at_work_wei(node)
    if not amount:
        return []
    found = records.LeavingDeposit(network_address=node.network_address, is_meta_node=is_meta(node), amount_wei=str(amount))
    record = keeper.unbonding(state, address)
    if record is not None and record.entries:
        found.completion_time.CopyFrom(max((entry.completion_time for entry in record.entries), key=ns_of))
    return [found]


def _response(name: str) -> Any:
    return message_class(f"{PACKAGE}.Query{name}Response")


def _coin(denom: str, amount: int) -> Any:
    return CoinMessage(denom=denom, amount=str(amount))


def _found(record: Any | None, text: str) -> Any:
    if record is None:
        raise NotFound(f"nothing is known of {text[:100]}")
    return record


def _network(text: str) -> bytes:
    if not text:
        raise InvalidRequest("network_addr: expected an address stsds…, got none")
    address = bech32.decode(text, bech32.NODE)
    if len(address) != ADDRESS_BYTES:
        raise InvalidRequest(f"network_addr: expected {ADDRESS_BYTES} bytes, got {len(address)}")
    return address


def _account(text: str, name: str) -> bytes:
    if not text:
        raise InvalidRequest(f"{name}: expected an address st…, got none")
    return bech32.decode(text)
