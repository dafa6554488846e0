"""register's genesis in the original's form and in ours, its store's bytes, and its queries."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from chain.app import build_application
from chain.application import Settings
from chain.codec.registry import message_class
from chain.crypto import address as bech32
from chain.errors import AppError, InvalidRequest, NotFound
from chain.module import GenesisError
from chain.store.kv import MemoryBackend
from chain.testing.driver import Driver
from modules.register import keys
from modules.register.records import UnbondingNode, unpack
from tests.modules.governing import STOS
from tests.modules.registering import DEPOSIT, PACKAGE, RegisterNet, add, create, genesis_node, kick, node_key, node_text, remove, vote
from tests.simulation.imported import Imported
from tests.support import FUNDS_WEI, KEYS, genesis_document, serve, text


def busy() -> RegisterNet:
    """A chain whose register has something of everything."""
    net = RegisterNet(5, params={"unbonding_threashold_time": "1s", "unbonding_completion_time": "1000s"})
    net.ok(1, *(create("Resource", number, 1, 10 * STOS, beneficiary_address=text(KEYS[2])) for number in (11, 12, 13)), create("Meta", 14, 1))
    net.approve(11, 8 * STOS, 1, 2, 3, 4)
    net.approve(12, 9 * STOS, 1, 2, 3, 4)
    net.approve(13, 5 * STOS, 1, 2)
    net.ok(1, vote(14, 1, 1, 1), kick(5, 1, 1), remove("Resource", 12, 1))
    net.ok(2, remove("Meta", 2, 2))

    def punish(ctx: Any, state: Any) -> None:
        net.keeper.set_suspended(ctx, state, node_key(11).address, True)
        net.keeper.add_debt(ctx, state, KEYS[1].public_key.address, 2**63)
        net.keeper.add_debt(ctx, state, KEYS[2].public_key.address, 5)
        net.keeper.take_ozone(ctx, state, net.keeper.ozone(state).remaining_noz - 7)
        net.keeper.slash_deposit(ctx, state, node_key(1).address, STOS, "mint")
        net.keeper.void_ozone(ctx, state, 12)

    net.within(punish)
    return net


def test_an_export_is_imported_and_exported_again_the_same_in_every_key_and_value() -> None:
    net = busy()
    section = net.export()
    assert {one["value_wei"] for one in section["slashing"]} == {None, str(2**63)}
    assert {one["network_address"] for one in section["leaving_deposits"]} == {node_text(number) for number in (2, 11, 12)}
    assert section["pending_lower_noz"] == "12"
    assert section["pending_lower_wei"] != "0"
    assert len(section["effective_deposit_approvals"]) == len(section["kick_meta_node_vote_pool"]) == len(section["meta_node_reg_vote_pool"]) == 1
    copy = Imported(net.app, net.driver, build_application(MemoryBackend(), Settings(invariant_period=1)))
    net.driver.next_block([net.signed(1, add("Resource", 13, 1, STOS))], time_step_s=5)
    copy.follow(net.driver)
    net.driver.next_block(time_step_s=1000)
    copy.follow(net.driver)
    copy.end(net.app)


def test_an_export_for_height_zero_dates_what_is_leaving_to_it() -> None:
    exported = busy().app.export_for_zero_height()
    heights = {entry["creation_height"] for record in exported["register"]["unbonding_nodes"] for entry in record["entries"]}
    assert heights == {"0"}


def test_an_original_genesis_takes_deposits_from_their_owners() -> None:
    section = {"resource_nodes": [genesis_node(11, 2, 5 * STOS, node_type=4, effective_tokens=str(3 * STOS))], "remaining_noz_limit": "77"}
    net = RegisterNet(1, section=section)
    assert net.held(text(KEYS[2])) == FUNDS_WEI - 5 * STOS
    assert net.pools() == [5 * STOS, 0, DEPOSIT, 0]
    assert net.pool.remaining_noz == (DEPOSIT + 3 * STOS) // 10**6, "a fresh chain's limit follows from the deposits"


def test_pools_that_hold_something_else_are_refused() -> None:
    net = busy()
    exported = net.app.export()
    exported["register"]["resource_nodes"][0]["tokens"] = str(9 * STOS)
    document = {**genesis_document(net.app), "app_state": exported}
    with pytest.raises(AppError, match="deposits add up to"):
        Driver([build_application(MemoryBackend())], document).start()


def test_owners_without_the_coins_are_refused() -> None:
    with pytest.raises(AppError, match="spendable balance"):
        RegisterNet(1, section={"resource_nodes": [genesis_node(11, 2, 2 * FUNDS_WEI, node_type=4)]})


def test_a_limit_beyond_the_deposits_is_refused() -> None:
    net = RegisterNet(1)
    exported = net.app.export()
    exported["register"]["remaining_noz_limit"] = str(DEPOSIT // 10**6 + 1)
    with pytest.raises(AppError, match="noz that remain"):
        Driver([build_application(MemoryBackend())], {**genesis_document(net.app), "app_state": exported}).start()


ENTRY = {"creation_height": "0", "completion_time": "2027-01-01T00:00:00Z", "initial_balance": str(STOS), "balance": str(STOS)}
RESOURCE = genesis_node(11, 1, STOS, node_type=4)


def changed(**fields: Any) -> dict[str, Any]:
    return {"resource_nodes": [{**RESOURCE, **fields}]}


def leaving(*entries: dict[str, str], status: str = "UNBONDING", **fields: Any) -> dict[str, Any]:
    record = {"network_addr": node_text(11), "is_meta_node": False, "entries": list(entries), **fields}
    return {"resource_nodes": [{**RESOURCE, "status": f"BOND_STATUS_{status}"}], "unbonding_nodes": [record]}


def pool(**fields: Any) -> dict[str, Any]:
    return {"network_address": node_text(1), "approve_list": [], "reject_list": [], "expire_time": "2027-01-01T00:00:00Z", **fields}


def kicked(**fields: Any) -> dict[str, Any]:
    return {"target_network_address": node_text(1), "approve_list": [], "reject_list": [], **fields}


BEYOND, BEFORE = "9999-12-31T23:59:59-01:00", "0001-01-01T00:00:00+01:00"
"""Times that are written well and fit no key."""


def approvals(*approvers: str, amount: str = "5", number: int = 11, until: str = "2027-01-01T00:00:00Z") -> dict[str, Any]:
    one = {"network_address": node_text(number), "effective_tokens_wei": amount, "approvers": list(approvers), "expire_time": until}
    return {"resource_nodes": [RESOURCE], "effective_deposit_approvals": [one]}


@pytest.mark.parametrize(
    ("section", "path", "problem"),
    [
        ({"resource_nodes": 5}, "", ""),
        ({"params": {"max_entries": 0}}, "params", "max_entries"),
        ({"deposit_noz_rate": "0.000000000000000000"}, "deposit_noz_rate", "positive rate"),
        ({"remaining_noz_limit": "-1"}, "remaining_noz_limit", "from 0 to"),
        ({"pending_lower_wei": str(2**127)}, "pending_lower_wei", "from 0 to"),
        (changed(network_address="x"), "resource_nodes[0]", "bech32"),
        (changed(network_address=node_text(12)), "resource_nodes[0]", "that of the public key"),
        (changed(pubkey=None), "resource_nodes[0]", "expected /cosmos.crypto.ed25519.PubKey, got none"),
        (changed(owner_address="x"), "resource_nodes[0]", "bech32"),
        (changed(beneficiary_address="x"), "resource_nodes[0]", "bech32"),
        (changed(status="BOND_STATUS_UNSPECIFIED"), "resource_nodes[0]", "status"),
        (changed(tokens="0"), "resource_nodes[0]", "positive deposit"),
        (changed(tokens="-1"), "resource_nodes[0]", "from 0 to"),
        (changed(node_type=8), "resource_nodes[0]", "expected 1 to 7"),
        (changed(effective_tokens=str(2 * STOS)), "resource_nodes[0]", "more than the deposit"),
        (changed(creation_time="9999-01-01T00:00:00Z"), "resource_nodes[0]", "creation_time"),
        ({"resource_nodes": [RESOURCE, RESOURCE]}, "resource_nodes[1]", "another node"),
        ({"resource_nodes": [RESOURCE], "meta_nodes": [genesis_node(11, 1)]}, "meta_nodes[0]", "another node"),
        ({"meta_nodes": [genesis_node(1, 1, DEPOSIT, "UNBONDED")]}, "meta_nodes[0]", "candidate"),
        ({"unbonding_nodes": [{"network_addr": node_text(1), "entries": [ENTRY]}]}, "unbonding_nodes[0]", "no resource node"),
        (leaving(), "unbonding_nodes[0]", "at least one entry"),
        (leaving(ENTRY, is_meta_node=True), "unbonding_nodes[0]", "no meta node"),
        (leaving({**ENTRY, "creation_height": "-1"}), "unbonding_nodes[0]", "creation_height"),
        (leaving({**ENTRY, "balance": "5"}), "unbonding_nodes", "5 wei are leaving"),
        (leaving(ENTRY, status="UNBONDED"), "unbonding_nodes", "which has"),
        ({**leaving(ENTRY, status="BONDED"), **changed(effective_tokens="1")}, "unbonding_nodes", "which has"),
        ({"leaving_deposits": [{"network_address": node_text(1), "amount_wei": "5"}]}, "leaving_deposits[0]", "no node"),
        ({**changed(), "leaving_deposits": [{"network_address": node_text(11), "amount_wei": str(2 * STOS)}]}, "leaving_deposits[0]", "would count"),
        ({"meta_node_reg_vote_pool": [pool(), pool()]}, "meta_node_reg_vote_pool[1]", "twice"),
        ({"meta_node_reg_vote_pool": [pool(approve_list=[node_text(2)], reject_list=[node_text(2)])]}, "meta_node_reg_vote_pool[0]", "twice"),
        ({"kick_meta_node_vote_pool": [{"target_network_address": "x"}]}, "kick_meta_node_vote_pool[0]", "bech32"),
        ({"meta_nodes": [genesis_node(1, 1)], "meta_node_reg_vote_pool": [pool()]}, "meta_node_reg_vote_pool[0]", "no candidate"),
        (changed(creation_time=BEFORE), "resource_nodes[0]", "years 1 to 9999"),
        (leaving({**ENTRY, "completion_time": BEYOND}), "unbonding_nodes[0]", "years 1 to 9999"),
        ({"meta_node_reg_vote_pool": [pool(expire_time=BEYOND)]}, "meta_node_reg_vote_pool[0]", "years 1 to 9999"),
        ({"kick_meta_node_vote_pool": [kicked(expire_time=BEYOND)]}, "kick_meta_node_vote_pool[0]", "years 1 to 9999"),
        (approvals(node_text(1), until=BEYOND), "effective_deposit_approvals[0]", "years 1 to 9999"),
        (approvals(number=12), "effective_deposit_approvals[0]", "expected a resource node"),
        (approvals(amount="0"), "effective_deposit_approvals[0]", "positive amount"),
        (approvals(node_text(1), node_text(1)), "effective_deposit_approvals[0]", "twice"),
        ({"slashing": [{"wallet_address": "x", "value": "1"}]}, "slashing[0]", "bech32"),
        ({"slashing": [{"wallet_address": text(KEYS[1]), "value": "-1"}]}, "slashing[0]", "positive debt"),
        ({"slashing": [{"wallet_address": text(KEYS[1]), "value": "1", "value_wei": "2"}]}, "slashing[0]", "positive debt"),
        ({"slashing": [{"wallet_address": text(KEYS[1])}]}, "slashing[0]", "positive debt"),
        ({"slashing": [{"wallet_address": text(KEYS[1]), "value": "1"}] * 2}, "slashing[1]", "twice"),
        ({"unknown": 1}, "", "unknown"),
    ],
)
def test_a_section_that_cannot_be_loaded_is_refused_by_field(section: dict[str, Any], path: str, problem: str) -> None:
    genesis = MODULE.genesis
    assert genesis is not None
    made = genesis.default()
    made["params"] = {**made["params"], **section.pop("params", {})} if "params" in section else made["params"]
    with pytest.raises(GenesisError) as caught:
        genesis.validate({**made, **json.loads(json.dumps(section))})
    assert caught.value.path.startswith("app_state.register" + (f".{path}" if path else ""))
    assert problem in caught.value.problem


def test_a_vote_whose_time_is_not_given_is_over() -> None:
    timeless = {"network_address": node_text(50)}
    net = RegisterNet(1, section={"kick_meta_node_vote_pool": [kicked()], "meta_node_reg_vote_pool": [timeless]})
    exported = net.export()
    assert (exported["kick_meta_node_vote_pool"], exported["meta_node_reg_vote_pool"]) == ([], [])


MODULE = next(module for module in build_application(MemoryBackend()).modules if module.name == "register")


# --- the store ------------------------------------------------------------------------------------------------------------------


def test_the_store_has_the_layout_of_the_original() -> None:
    net = busy()
    address = node_key(12).address

    def raw(state: Any, key: bytes) -> bytes:
        found = state.store("register").get(key)
        assert isinstance(found, bytes)
        return found

    def look(state: Any) -> dict[str, bytes]:
        wallet = KEYS[2].public_key.address
        names = {"node": b"\x01" + address, "debt": b"\x05" + wallet, "metas": b"\x08", "unbonding": b"\x11" + address, "S": b"\x10"}
        return {name: raw(state, key) for name, key in names.items()}

    found = net.read(look)
    assert found["debt"] == bytes.fromhex("030a0135")
    assert found["metas"] == bytes.fromhex("030a0134")
    assert found["S"][1:3] == b"\x0a" + bytes([len(found["S"]) - 3])
    assert found["node"][0] & 0x80, "longer than 127 bytes: a varint of two"
    record = unpack(UnbondingNode, found["unbonding"])
    entry = record.entries[0]
    slot = keys.queue(entry.completion_time.seconds * 10**9 + entry.completion_time.nanos)
    assert slot[:1] == b"\x12"
    assert len(slot) == 30
    listed = net.read(lambda state: raw(state, slot))
    assert message_class("stratos.types.v1.SdsAddresses").FromString(listed[1:]).Addresses == [node_text(12)]
    params = net.read(lambda state: raw(state, b"\x20"))
    assert message_class(f"{PACKAGE}.Params").FromString(params).max_entries == 16


def test_amounts_of_set_b_are_stored_as_the_original_stores_them() -> None:
    net = RegisterNet(7)
    assert net.read(lambda state: state.store("register").get(b"\x10")).hex() == "190a17" + b"69300000000000000000000".hex()
    assert net.read(lambda state: state.store("register").get(b"\x04")).hex() == "130a11" + b"69300000000000000".hex()


# --- queries --------------------------------------------------------------------------------------------------------------------


def test_queries_tell_nodes_deposits_and_totals() -> None:
    net = busy()
    owned = net.query("DepositByOwner", owner_addr=text(KEYS[1]))
    assert [one.network_address for one in owned.deposit_infos] == [
        *sorted((node_text(number) for number in (11, 12, 13)), key=_raw),
        *sorted((node_text(number) for number in (1, 14)), key=_raw),
    ]
    assert owned.pagination.total == 5
    page = net.query("DepositByOwner", owner_addr=text(KEYS[1]), pagination={"limit": 4, "count_total": True})
    assert (len(page.deposit_infos), page.pagination.total) == (4, 5)
    rest = net.query("DepositByOwner", owner_addr=text(KEYS[1]), pagination={"key": page.pagination.next_key, "limit": 4})
    assert [one.network_address for one in (*page.deposit_infos, *rest.deposit_infos)] == [one.network_address for one in owned.deposit_infos]

    info = net.query("DepositByNode", network_addr=node_text(12), query_type=2).deposit_info
    assert (info.tokens, info.bonded_deposit.amount, info.un_bonding_deposit.amount, info.un_bonded_deposit.amount) == (
        str(10 * STOS),
        "0",
        str(10 * STOS),
        "0",
    )
    assert net.query("DepositByNode", network_addr=node_text(12), query_type=1).deposit_info.network_address == ""
    assert net.query("DepositByNode", network_addr=node_text(14)).deposit_info.un_bonded_deposit.amount == str(2 * STOS)
    total = net.query("DepositTotal")
    assert (total.resource_nodes_total_deposit.amount, total.meta_nodes_total_deposit.amount) == (str(30 * STOS), str(5 * DEPOSIT + STOS))
    assert (total.total_bonded_deposit.amount, total.total_unbonded_deposit.amount, total.total_unbonding_deposit.amount) == (
        str(20 * STOS + 4 * DEPOSIT - STOS),
        str(2 * STOS),
        str(10 * STOS + DEPOSIT),
    )
    assert (net.query("BondedResourceNodeCount").number, net.query("BondedMetaNodeCount").number) == (2, 4)

    def listed(method: str, **fields: Any) -> set[str]:
        return {one.network_address for one in net.query(method, **fields).nodes}

    def names(*numbers: int) -> set[str]:
        return {node_text(number) for number in numbers}

    assert listed("ResourceNodes") == names(11, 12, 13)
    assert listed("ResourceNodes", status=3) == names(11, 13)
    assert listed("ResourceNodes", suspension=1) == names(12)
    assert listed("MetaNodes", owner_address=text(KEYS[1])) == names(1, 14)
    assert listed("MetaNodes", owner_address=text(KEYS[1]), suspension=2) == names(14)
    assert listed("MetaNodes", status=2) == names(2)
    counted = net.query("ResourceNodes", pagination={"limit": 2, "count_total": True})
    assert (len(counted.nodes), counted.pagination.total) == (2, 3)

    votes = net.query("Votes", network_addr=node_text(13)).effective_deposits
    assert [(one.effective_tokens_wei, len(one.approvers)) for one in votes] == [(str(5 * STOS), 2)]
    state = net.query("OzoneState")
    sums = [int(part) for part in (state.effective_deposit_wei, state.leaving_wei, state.pending_lower_wei)]
    assert sum(sums) == net.pool.deposit_wei
    assert (state.remaining_noz, state.pending_lower_noz, state.deposit_wei_per_noz) == ("0", "12", str(10**24))


def _raw(address: str) -> bytes:
    return bech32.decode(address, bech32.NODE)


@pytest.mark.parametrize(
    ("method", "fields", "error"),
    [
        ("ResourceNode", {"network_addr": node_text(99)}, NotFound),
        ("MetaNode", {"network_addr": node_text(99)}, NotFound),
        ("UnbondingNode", {"network_addr": node_text(1)}, NotFound),
        ("ResourceNode", {}, InvalidRequest),
        ("Votes", {"network_addr": bech32.encode(b"short", bech32.NODE)}, InvalidRequest),
        ("DepositByNode", {"network_addr": node_text(1), "query_type": 3}, InvalidRequest),
        ("DepositByOwner", {}, InvalidRequest),
        ("MetaNodes", {"status": 9}, InvalidRequest),
        ("MetaNodes", {"suspension": 9}, InvalidRequest),
    ],
)
def test_questions_that_have_no_answer(asked: Callable[..., Any], method: str, fields: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        asked(method, **fields)


@pytest.fixture(scope="module")
def asked() -> Callable[..., Any]:
    return RegisterNet(1).query


def test_the_original_routes_answer() -> None:
    net = RegisterNet(7)
    served = serve(net.driver)
    try:
        prefix = "/stratos/register/v1"
        assert served.get(f"{prefix}/remaining_ozone_limit").json() == {"ozone_limit": "69300000000000000"}
        assert served.get(f"{prefix}/meta_node/{node_text(1)}").json()["node"]["tokens"] == str(DEPOSIT)
        info = served.get(f"{prefix}/deposit_by_node/{node_text(1)}/1").json()["deposit_info"]
        assert info["bonded_deposit"] == {"denom": "wei", "amount": str(DEPOSIT)}
        assert served.get(f"{prefix}/deposit_by_owner/{text(KEYS[5])}").json()["pagination"]["total"] == "3"
        assert served.get(f"{prefix}/resource_node/{node_text(1)}").status_code == 404
        assert served.get(f"{prefix}/params").json()["params"]["solvency_rules"] is True
    finally:
        served.api.stop()
