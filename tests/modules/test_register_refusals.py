"""register: what it refuses, by which code, with the state as it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from chain.crypto import address as bech32
from chain.crypto.keys import public_key_to_any
from chain.errors import AppError
from modules.register.errors import ERRORS
from tests.modules.governing import STOS
from tests.modules.registering import (
    DEPOSIT,
    RegisterNet,
    add,
    create,
    effective,
    genesis_node,
    kick,
    make,
    node_text,
    remove,
    vote,
)
from tests.support import FUNDS_WEI, GOV, KEYS, text

LEAVING = {"creation_height": "0", "completion_time": "2027-01-01T00:00:00Z", "initial_balance": "1", "balance": "1"}
SHORT = bech32.encode(b"short", bech32.NODE)


def update(kind: str, number: int, owner: int, **fields: Any) -> Any:
    given = {"network_address": node_text(number), "owner_address": text(KEYS[owner]), "description": {"moniker": "m"}, **fields}
    return make(f"MsgUpdate{kind}Node", **{**({"node_type": 4} if kind == "Resource" else {}), **given})


def changed(message: Any, **fields: Any) -> Any:
    """The message with other fields."""
    for name, value in fields.items():
        if isinstance(value, list):
            del getattr(message, name)[:]
            getattr(message, name).extend(value)
        else:
            setattr(message, name, value)
    return message


REFUSED: list[tuple[str, int, str, Callable[[], Any]]] = [
    # (case, code, a part of the log, message of KEYS[1])
    ("a network address that is none", 3, "bech32", lambda: create("Resource", 20, 1, network_address="x")),
    ("a network address of another length", 3, "expected 20 bytes, got 5", lambda: create("Resource", 20, 1, network_address=SHORT)),
    ("another key's network address", 3, "expected that of the public key", lambda: create("Meta", 20, 1, network_address=node_text(21))),
    ("no key", 38, "empty public key", lambda: create("Resource", 20, 1, pubkey=None)),
    (
        "another kind of key",
        47,
        "expected /cosmos.crypto.ed25519.PubKey",
        lambda: create("Meta", 20, 1, pubkey=public_key_to_any(KEYS[2].public_key)),
    ),
    ("no deposit", 5, "got 0", lambda: create("Resource", 20, 1, 0)),
    ("a negative deposit", 5, "got -1", lambda: create("Meta", 20, 1, -1)),
    ("no moniker", 7, "empty moniker", lambda: create("Resource", 20, 1, description={"details": "d"})),
    ("a beneficiary that is none", 31, "bech32", lambda: create("Resource", 20, 1, beneficiary_address="x")),
    ("a meta node without beneficiary", 31, "empty", lambda: create("Meta", 20, 1, beneficiary_address="")),
    ("node type 0", 45, "expected 1 to 7, got 0", lambda: create("Resource", 20, 1, node_type=0)),
    ("node type 8", 45, "got 8", lambda: update("Resource", 11, 1, node_type=8)),
    ("a long moniker", 101, "moniker: expected at most 70 bytes, got 71", lambda: create("Meta", 20, 1, description={"moniker": "m" * 71})),
    ("long details", 101, "details: expected at most 280", lambda: update("Meta", 1, 1, description={"moniker": "m", "details": "ä" * 141})),
    ("a resource node that exists", 49, "resource node already exists", lambda: create("Resource", 11, 1)),
    ("a resource node with a meta node's key", 49, "meta node already exists", lambda: create("Resource", 1, 1)),
    ("a meta node that exists", 50, "meta node already exists", lambda: create("Meta", 1, 1)),
    ("a deposit in another denom", 49, "invalid coin denomination", lambda: create("Resource", 20, 1, value={"denom": "abc", "amount": "5"})),
    ("less than the least deposit", 49, "insufficient deposit", lambda: create("Resource", 20, 1, STOS - 1)),
    ("a deposit of more than there is", 50, "insufficient balance", lambda: create("Meta", 20, 1, FUNDS_WEI)),
    ("an owner that is none", 30, "bech32", lambda: changed(update("Resource", 11, 1), owner_address="x")),
    ("an update of an unknown resource node", 53, "resource node does not exist", lambda: update("Resource", 20, 1)),
    ("an update of another's resource node", 53, "invalid owner address", lambda: update("Resource", 13, 1)),
    ("an update of an unknown meta node", 54, "meta node does not exist", lambda: update("Meta", 20, 1)),
    ("a meta node update without moniker", 7, "empty moniker", lambda: update("Meta", 1, 1, description={})),
    ("no deposit change", 44, "got 0", lambda: add("Resource", 11, 1, 0)),
    ("a falling deposit", 44, "got -5", lambda: add("Meta", 1, 1, -5)),
    ("a deposit change in another denom", 55, "invalid coin denomination", lambda: add("Resource", 11, 1, 5, "abc")),
    ("a deposit change of a leaving node", 55, "the node is unbonding", lambda: add("Resource", 12, 1, 5)),
    ("a deposit change of another's node", 56, "invalid owner address", lambda: add("Meta", 2, 1, 5)),
    ("a deposit change that is not there", 56, "insufficient balance", lambda: add("Meta", 1, 1, FUNDS_WEI)),
    ("an unknown resource node leaves", 51, "resource node does not exist", lambda: remove("Resource", 20, 1)),
    ("another's resource node leaves", 51, "invalid owner address", lambda: remove("Resource", 13, 1)),
    ("a resource node leaves that has left", 51, "too many unbonding entries", lambda: remove("Resource", 12, 1)),
    ("a resource node leaves that is not bonded", 51, "node status does not allow it", lambda: remove("Resource", 14, 1)),
    ("too many entries are leaving", 51, "too many unbonding entries", lambda: remove("Resource", 15, 1)),
    ("an unknown meta node leaves", 52, "meta node does not exist", lambda: remove("Meta", 20, 1)),
    ("another's meta node leaves", 52, "invalid owner address", lambda: remove("Meta", 2, 1)),
    ("a suspended meta node leaves", 52, "a suspended node cannot leave", lambda: remove("Meta", 6, 1)),
    ("a candidate that is none", 23, "bech32", lambda: changed(vote(7, 1, 1, 1), candidate_network_address="x")),
    ("a candidate's owner that is none", 24, "bech32", lambda: changed(vote(7, 1, 1, 1), candidate_owner_address="x")),
    ("a voter that is none", 26, "bech32", lambda: changed(vote(7, 1, 1, 1), voter_network_address="x")),
    ("a candidate's vote on itself", 29, "are the same node", lambda: vote(7, 1, 7, 1)),
    ("an unknown candidate", 57, "candidate meta node does not exist", lambda: vote(20, 1, 1, 1)),
    ("another candidate's owner", 57, "invalid owner address of the candidate", lambda: vote(7, 2, 1, 1)),
    ("no vote is held", 57, "there is no registration vote", lambda: vote(2, 2, 1, 1)),
    ("a vote for another's meta node", 57, "voter is no active meta node", lambda: vote(7, 1, 2, 1)),
    ("a vote of a suspended meta node", 57, "voter is no active meta node", lambda: vote(7, 1, 6, 1)),
    ("a vote of an address without a node", 57, "voter is no active meta node", lambda: vote(7, 1, 20, 1)),
    ("a target that is none", 65, "bech32", lambda: changed(kick(4, 1, 1), target_network_address="x")),
    ("an unknown target", 66, "target is no active meta node", lambda: kick(20, 1, 1)),
    ("a suspended target", 66, "target is no active meta node", lambda: kick(6, 1, 1)),
    ("a kick vote of the accused", 29, "the accused has no vote", lambda: kick(1, 1, 1)),
    ("a kick vote for another's meta node", 67, "voter is no active meta node", lambda: kick(4, 2, 1)),
    ("a kick vote of a suspended meta node", 67, "voter is no active meta node", lambda: kick(4, 6, 1)),
    ("no reporters", 60, "at least one reporter", lambda: changed(effective(11, STOS, (1, 1)), reporters=[])),
    ("a reporter that is none", 60, "bech32", lambda: changed(effective(11, STOS, (1, 1)), reporters=["x"])),
    ("too many reporters", 104, "expected at most 100, got 101", lambda: changed(effective(11, STOS, (1, 1)), reporters=[node_text(1)] * 101)),
    ("more reporters than owners", 30, "an owner for each", lambda: changed(effective(11, STOS, (1, 1)), reporters=[node_text(1), node_text(2)])),
    ("a reporter that is named twice", 34, "is named twice", lambda: effective(11, STOS, (1, 1), (1, 1))),
    ("a negative effective deposit", 61, "got -1", lambda: effective(11, -1, (1, 1))),
    ("no effective deposit", 63, "effective tokens must be positive", lambda: effective(11, 0, (1, 1))),
    ("an effective deposit by a stranger", 62, "reporter is no active meta node", lambda: effective(11, STOS, (20, 1))),
    ("an effective deposit by a suspended meta node", 62, "reporter is no active meta node", lambda: effective(11, STOS, (6, 1))),
    ("an effective deposit by another's meta node", 62, "reporter is no active meta node", lambda: effective(11, STOS, (2, 1))),
    ("an effective deposit of an unknown node", 55, "resource node does not exist", lambda: effective(20, STOS, (1, 1))),
    ("an effective deposit of a leaving node", 55, "node status does not allow it", lambda: effective(12, STOS, (1, 1))),
    ("an effective deposit of a node that is not bonded", 55, "node status does not allow it", lambda: effective(14, STOS, (1, 1))),
    ("more than the deposit", 55, "insufficient balance", lambda: effective(11, 10 * STOS + 1, (1, 1))),
]
SEEN: list[str] = []
"""Descriptions of the rules that tests of this file have met."""


@pytest.fixture(scope="module")
def net() -> RegisterNet:
    leaving = {**LEAVING, "initial_balance": str(STOS), "balance": str(STOS)}
    section = {
        "resource_nodes": [
            genesis_node(11, 1, 10 * STOS, node_type=4, suspend=True),
            genesis_node(12, 1, STOS, "UNBONDING", node_type=4),
            genesis_node(13, 2, STOS, node_type=4),
            genesis_node(14, 1, STOS, "UNBONDED", node_type=4, suspend=True),
            genesis_node(15, 1, STOS, node_type=4),
        ],
        "meta_nodes": [
            *(genesis_node(number, number) for number in range(1, 5)),
            genesis_node(6, 1, DEPOSIT, suspend=True),
            genesis_node(7, 1, DEPOSIT, "UNBONDED", suspend=True),
            genesis_node(8, 1, DEPOSIT, "UNBONDED", suspend=True),
        ],
        "meta_node_reg_vote_pool": [{"network_address": node_text(7), "approve_list": [], "reject_list": [], "expire_time": "2027-01-01T00:00:00Z"}],
        "unbonding_nodes": [
            {"network_addr": node_text(12), "is_meta_node": False, "entries": [leaving]},
            {"network_addr": node_text(15), "is_meta_node": False, "entries": [LEAVING]},
        ],
    }
    return RegisterNet(params={"max_entries": 1}, section=section)


def state_of(net: RegisterNet) -> Any:
    """What a refused message must not change: the module's section, and all but the payers' coins."""
    exported = net.app.export()
    bank = [one for one in exported["bank"]["balances"] if one["address"] not in (*map(text, KEYS), COLLECTOR, DISTRIBUTION, *REWARDED)]
    return exported["register"], bank


COLLECTOR, DISTRIBUTION, REWARDED = (
    bech32.encode(bech32.module_address("fee_collector")),
    bech32.encode(bech32.module_address("distribution")),
    (GOV,),
)


def refused(net: RegisterNet, result: Any, code: int, part: str, before: Any, codespace: str = "register") -> None:
    assert (result.codespace, result.code) == (codespace, code), result.log
    assert part in result.log
    assert state_of(net) == before
    SEEN.append(result.log)


@pytest.mark.parametrize(("case", "code", "part", "build"), REFUSED, ids=[case for case, *_ in REFUSED])
def test_refused_and_nothing_changed(net: RegisterNet, case: str, code: int, part: str, build: Callable[[], Any]) -> None:
    before = state_of(net)
    message = build()
    if getattr(message, "owner_address", "") == "x" or code in (104,) or case == "more reporters than owners":
        with pytest.raises(AppError) as caught:
            _check(net, message)
        assert (caught.value.codespace, caught.value.code) == ("register", code)
        assert part in str(caught.value)
        SEEN.append(str(caught.value))
        return
    refused(net, net.run(1, message), code, part, before)


def _check(net: RegisterNet, message: Any) -> None:
    """The stateless check alone: of a message whose signers nobody can be."""
    net.app.executor._handlers[message.DESCRIPTOR.full_name].check_stateless(message)


def test_votes_and_approvals_count_once(net: RegisterNet) -> None:
    net.ok(1, vote(7, 1, 1, 1))
    net.ok(1, kick(4, 1, 1))
    assert net.approve(11, STOS, 1).code == 0
    before = state_of(net)
    refused(net, net.run(1, vote(7, 1, 1, 1, False)), 57, "has voted already", before)
    refused(net, net.run(1, kick(4, 1, 1, False)), 34, "has voted already", before)
    refused(net, net.approve(11, STOS, 1), 55, "has approved", before)
    net.ok(1, effective(11, 2 * STOS, (1, 1)))


def test_every_owner_signs_an_effective_deposit(net: RegisterNet) -> None:
    before = state_of(net)
    result = net.run(1, effective(11, 3 * STOS, (1, 1), (2, 2)))
    assert result.code in (4, 8), result.log
    assert state_of(net) == before


def test_a_voter_owner_is_an_account(net: RegisterNet) -> None:
    for message in (changed(vote(7, 1, 1, 1), voter_owner_address="x"), changed(kick(4, 1, 1), voter_owner_address="x")):
        with pytest.raises(AppError) as caught:
            _check(net, message)
        assert (caught.value.code, caught.value.codespace) == (27, "register")
        SEEN.append(str(caught.value))


def test_governance_names_no_voter_and_can_only_agree(net: RegisterNet) -> None:
    for message, code in (
        (make("MsgKickMetaNodeVote", target_network_address=node_text(1), voter_owner_address=GOV, opinion=True, voter_network_address="x"), 26),
        (make("MsgKickMetaNodeVote", target_network_address=node_text(1), voter_owner_address=GOV), 61),
    ):
        with pytest.raises(AppError) as caught:
            _check(net, message)
        assert caught.value.code == code


def test_amounts_beyond_their_bounds_are_refused(net: RegisterNet) -> None:
    before = state_of(net)
    refused(net, net.run(1, create("Resource", 20, 1, 2**127)), 18, "expected a deposit from 0 to 2^127 - 1", before, "sdk")
    refused(net, net.run(1, add("Resource", 11, 1, 2**200)), 18, "201 bits", before, "sdk")
    refused(net, net.run(1, effective(11, 2**127, (1, 1))), 61, "2^127 - 1", before)


def test_governance_alone_changes_parameters(net: RegisterNet) -> None:
    message = make("MsgUpdateParams", authority=text(KEYS[1]), params=net.query("Params").params)
    refused(net, net.run(1, message), 13, "expected gov account", state_of(net), "gov")


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda params: setattr(params, "bond_denom", "abc"), "bond_denom: expected wei"),
        (lambda params: setattr(params.resource_node_min_deposit, "denom", "abc"), "resource_node_min_deposit: expected from 0 to 2^127 - 1 of wei"),
        (lambda params: setattr(params, "max_entries", 0), "max_entries"),
        (lambda params: setattr(params.voting_period, "seconds", 0), "voting_period"),
        (lambda params: setattr(params.unbonding_completion_time, "seconds", -1), "unbonding_completion_time"),
        (lambda params: setattr(params.unbonding_threashold_time, "seconds", 4 * 10**9), "unbonding_threashold_time"),
        (lambda params: setattr(params.resource_node_min_deposit, "amount", "-1"), "resource_node_min_deposit"),
    ],
)
def test_parameters_that_cannot_be_are_refused(net: RegisterNet, change: Callable[[Any], Any], part: str) -> None:
    message = make("MsgUpdateParams", authority=GOV, params=net.query("Params").params)
    change(message.params)
    before = state_of(net)

    def attempt(ctx: Any, state: Any) -> str:
        try:
            net.app.executor._handlers[message.DESCRIPTOR.full_name].execute(ctx, state, message)
        except AppError as error:
            return str(error)
        return ""

    assert part in net.within(attempt)
    assert state_of(net) == before


def test_the_solvency_rules_are_not_switched_on_where_they_could_not_hold() -> None:
    """More noz remain than deposits make: what a quorum can do with the original's rules."""
    other = RegisterNet(1, params={"solvency_rules": False})
    other.within(lambda ctx, state: other.keeper.return_ozone(ctx, state, 5))
    message = make("MsgUpdateParams", authority=GOV, params=other.query("Params").params)
    message.params.solvency_rules = True
    with pytest.raises(AppError, match="the solvency rules cannot hold") as caught:
        other.read(lambda state: other.app.executor._handlers[message.DESCRIPTOR.full_name].execute(None, state, message))
    assert caught.value.code == 43
    SEEN.append(str(caught.value))


def test_registration_can_be_disabled_and_votes_end() -> None:
    other = RegisterNet(3, params={"resource_node_reg_enabled": False, "voting_period": "20s"})
    refused(other, other.run(1, create("Resource", 11, 1)), 58, "registration of resource nodes is disabled", state_of(other))
    other.ok(1, create("Meta", 12, 1))
    other.ok(1, kick(3, 1, 1))
    before = state_of(other)
    late = other.driver.next_block([other.signed(2, vote(12, 1, 2, 2)), other.signed(1, vote(12, 1, 1, 1))], time_step_s=30).results
    assert [(one.codespace, one.code) for one in late] == [("register", 57)] * 2
    assert "the vote is over" in late[0].log
    SEEN.append(late[0].log)
    assert not state_of(other)[0]["meta_node_reg_vote_pool"]
    assert before[0]["meta_node_reg_vote_pool"]


def test_a_debtor_neither_takes_his_rewards_elsewhere_nor_names_who_shall_pay() -> None:
    other = RegisterNet(4, section={"resource_nodes": [genesis_node(11, 1, 10**18, node_type=4, effective_tokens="1")]})
    other.within(lambda ctx, state: other.keeper.add_debt(ctx, state, KEYS[1].public_key.address, 5))
    stranger = text(KEYS[5])
    for message, code in (
        (update("Resource", 11, 1, beneficiary_address=stranger), 53),
        (update("Meta", 1, 1, beneficiary_address=stranger), 54),
        (create("Resource", 20, 1, beneficiary_address=stranger), 49),
        (create("Meta", 20, 1, beneficiary_address=stranger), 50),
    ):
        refused(other, other.run(1, message), code, "an owner with a debt names no other beneficiary", state_of(other))
    other.ok(1, update("Resource", 11, 1, beneficiary_address=text(KEYS[1])), update("Resource", 11, 1), create("Resource", 20, 1))
    other.within(lambda ctx, state: other.keeper.deduct_debt(ctx, state, KEYS[1].public_key.address, 5))
    other.ok(1, update("Resource", 11, 1, beneficiary_address=stranger))


def test_a_kick_vote_that_is_over_is_refused() -> None:
    other = RegisterNet(4, params={"voting_period": "20s"})
    other.ok(1, kick(4, 1, 1))
    late = other.driver.next_block([other.signed(2, kick(4, 2, 2))], time_step_s=30).results[0]
    assert (late.codespace, late.code) == ("register", 35)


def test_a_kick_with_fewer_than_two_voters_and_one_of_governance_with_more_are_refused() -> None:
    other = RegisterNet(2)
    refused(other, other.run(1, kick(2, 1, 1)), 102, "governance decides", state_of(other))
    third = RegisterNet(3)
    message = make("MsgKickMetaNodeVote", target_network_address=node_text(1), voter_owner_address=GOV, opinion=True)
    with pytest.raises(AppError) as caught:
        third.read(lambda state: third.app.executor._handlers[message.DESCRIPTOR.full_name].execute(None, state, message))
    assert caught.value.code == 103
    SEEN.append(str(caught.value))


def test_out_of_gas_is_not_wrapped() -> None:
    other = RegisterNet(1)
    result = other.run(1, create("Resource", 11, 1), gas=100_000)
    assert (result.codespace, result.code) == ("sdk", 11)


def test_every_rule_has_been_met() -> None:
    """Runs last; alone it has nothing to look at."""
    if len(SEEN) < len(REFUSED):
        pytest.skip("needs the tests above")
    missing = [error.__name__ for error in ERRORS if not any(error.description in log for log in SEEN)]
    assert not missing
    assert len({error.code for error in ERRORS}) == len(ERRORS)
