"""Slashing by a quorum: approvals gather, the deposit pays first, the accused has no vote, and governance decides where too few may."""

from __future__ import annotations

from typing import Any

import pytest

from chain.codec.registry import message_class, pack_any
from chain.crypto import address as bech32
from chain.errors import AppError
from chain.ozone import Ozone
from modules.pot.rewards import slash_value_wei
from modules.pot.slashing import APPROVAL_S
from tests.grants import code
from tests.modules.reporting import NODE_OWNER, POT, REGISTER, SDS, STOS, Net, meta_keys, node_text, slashing, wallets, wei
from tests.support import GOV, KEYS, at_end_of, text

NOZ = 10**12


def node(net: Net) -> Any:
    return net.query(REGISTER, "ResourceNode", network_addr=node_text()).node


def approvals(net: Net) -> list[tuple[str, list[str]]]:
    found = net.ask("SlashingApprovals", network_address=node_text()).approvals
    return [(one.slashing_noz, list(one.approvers)) for one in found]


def community_wei(net: Net) -> int:
    pool = net.query("cosmos.distribution.v1beta1", "CommunityPool").pool
    return sum(int(one.amount) for one in pool if one.denom == "wei")


def value_of(net: Net, noz: int) -> int:
    metas = [one for one in net.section("register")["meta_nodes"] if one["status"] == "BOND_STATUS_BONDED" and not one["suspend"]]
    deposits = sum(int(one["tokens"]) for one in metas) + int(node(net).effective_tokens)
    remaining = int(net.query(SDS, "NozSupply").remaining)
    return slash_value_wei(Ozone(deposits, remaining, net.held("total_unissued_prepay"), solvency=True), noz)


def events(result: Any, name: str) -> list[dict[str, str]]:
    return [{key: value for key, value in pairs if key != "msg_index"} for kind, pairs in result.events if kind == f"{POT}.{name}"]


def test_approvals_gather_over_transactions_and_the_last_one_slashes() -> None:
    net = Net(effective_wei=500 * STOS)
    net.buy(100 * STOS)
    held = net.held("resource_node_bonded_pool")
    value = value_of(net, NOZ)
    first = net.slash(NOZ, 0, suspend=True)
    assert code(first) == ("", 0)
    assert events(first, "EventApproveSlashing") == [
        {
            "approvals": '"1"',
            "approver": f'"{meta_keys(0).network_address}"',
            "network_address": f'"{node_text()}"',
            "quorum": '"3"',
            "slashing_noz": f'"{NOZ}"',
            "suspend": '"true"',
            "wallet_address": f'"{text(NODE_OWNER)}"',
        }
    ]
    assert net.held("resource_node_bonded_pool") == held
    assert code(net.slash(NOZ, 0, suspend=True)) == ("pot", 107)
    assert code(net.slash(NOZ + 1, 1, suspend=True)) == ("", 0)
    assert code(net.slash(NOZ, 1)) == ("", 0)
    assert len(approvals(net)) == 3, "another amount, and another flag, are votes of their own"
    assert not events(net.slash(NOZ, 3, suspend=True), "EventSlashing")
    assert (str(NOZ), [meta_keys(0).network_address, meta_keys(3).network_address]) in approvals(net)
    before = community_wei(net)
    last = net.slash(NOZ, 2, suspend=True)
    assert events(last, "EventSlashing") == [
        {
            "amount": f'"{value}"',
            "network_address": f'"{node_text()}"',
            "slashing_type": '"storage"',
            "suspend": '"true"',
            "wallet_address": f'"{text(NODE_OWNER)}"',
        }
    ]
    assert value > 0
    assert held - net.held("resource_node_bonded_pool") == value
    assert community_wei(net) - before >= value * 10**18
    assert net.ask("SlashingByOwner", wallet_address=text(NODE_OWNER)).slashing == "0"
    assert (node(net).suspend, node(net).effective_tokens) == (True, "0")
    assert len(approvals(net)) == 2
    assert net.held("pot") == 0


def test_one_transaction_with_a_quorum_slashes_at_once_and_what_the_deposit_lacks_is_owed() -> None:
    net = Net(node_wei=1000)
    net.buy(100 * STOS)
    value = value_of(net, NOZ)
    assert code(net.slash(NOZ, 0, 1, 2)) == ("", 0)
    assert int(net.ask("SlashingByOwner", wallet_address=text(NODE_OWNER)).slashing) == value - 1000
    assert net.held("resource_node_bonded_pool") == 0
    assert code(net.slash(NOZ, 0, 1, 2)) == ("pot", 31), "a node without a deposit is gone"


def test_a_slash_of_nothing_suspends_alone_and_lifts_a_suspension() -> None:
    net = Net(effective_wei=500 * STOS)
    net.buy(STOS)
    held = net.held("resource_node_bonded_pool")
    assert code(net.slash(0, 0, 1, 2, suspend=True)) == ("", 0)
    assert node(net).suspend
    assert code(net.slash(0, 0, 1, 2)) == ("", 0)
    assert (node(net).suspend, node(net).effective_tokens) == (False, "0")
    assert net.held("resource_node_bonded_pool") == held


def test_approvals_are_forgotten_after_an_hour() -> None:
    net = Net()
    net.buy(STOS)
    assert code(net.slash(NOZ, 0, 1)) == ("", 0)
    assert len(net.section()["slashing_approvals"]) == 1
    assert code(net.slash(NOZ, 2, step_s=APPROVAL_S)) == ("", 0), "a new vote"
    assert approvals(net) == [(str(NOZ), [meta_keys(2).network_address])]
    net.driver.next_block(time_step_s=APPROVAL_S)
    assert net.section()["slashing_approvals"] == []
    with net.app.store.view() as view:
        assert [key for key, _ in view.store("pot").iterate(b"\x68", b"\x6a")] == []


def test_what_is_no_slashing_is_refused() -> None:
    net = Net()
    net.buy(STOS)

    def refused(*reporters: int, **fields: Any) -> tuple[str, int]:
        before = net.economy()
        result = net.slash(fields.pop("noz", NOZ), *(reporters or (0,)), **fields)
        assert net.economy() == before
        return code(result)

    assert refused(network_address="") == ("pot", 6)
    assert refused(wallet_address="") == ("pot", 5)
    assert refused(network_address="stsds1") == ("pot", 27)
    assert refused(wallet_address="st1") == ("pot", 27)
    assert refused(noz=-1) == ("pot", 26)
    assert refused(noz=2**127) == ("pot", 26)
    assert refused(reporters=["stsds1"]) == ("pot", 25)
    assert refused(reporters=[]) == ("pot", 33)
    assert refused(reporters=[meta_keys(0).network_address] * 2) == ("pot", 33)
    assert refused(reporters=[meta_keys(1).network_address]) == ("pot", 33), "owned by another"
    assert refused(reporters=[meta_keys(9).network_address]) == ("pot", 33), "no meta node"
    assert refused(0, 0) == ("pot", 107)
    assert refused(network_address=meta_keys(1).network_address) == ("pot", 31)
    assert refused(wallet_address=wallets(1)[0]) == ("pot", 106)


def test_owners_that_are_no_accounts_are_refused_before_they_are_asked_to_sign() -> None:
    net = Net()
    message = slashing(NOZ, 0)
    message.reporter_owner[0] = bech32.encode(bytes(20), "cosmos")
    handler = net.app.executor._handlers[message.DESCRIPTOR.full_name]
    with pytest.raises(AppError, match="invalid reporter owner address") as refused:
        handler.check_stateless(message)
    assert (refused.value.codespace, refused.value.code) == ("pot", 17)


def _accused_owns_meta_nodes(document: dict[str, Any], *numbers: int) -> None:
    """The resource node and some meta nodes belong to KEYS[0]; meta node 0 does already."""
    register = document["app_state"]["register"]
    register["resource_nodes"][0]["owner_address"] = text(KEYS[0])
    for number in numbers:
        register["meta_nodes"][number]["owner_address"] = text(KEYS[0])


def test_meta_nodes_of_the_accused_have_no_vote_and_do_not_count() -> None:
    net = Net(edit=lambda document: _accused_owns_meta_nodes(document, 1))
    net.buy(STOS)
    assert code(net.slash(NOZ, 0, owner=text(KEYS[0]))) == ("pot", 33)
    first = net.slash(NOZ, 2, owner=text(KEYS[0]))
    assert events(first, "EventApproveSlashing")[0]["quorum"] == '"2"'
    assert events(net.slash(NOZ, 3, owner=text(KEYS[0])), "EventSlashing")


def _by_governance(net: Net, owner: str) -> Any:
    message = slashing(NOZ, owner=owner, suspend=True)
    message.reporter_owner.append(GOV)
    return message


def test_governance_decides_where_fewer_than_two_may_vote() -> None:
    net = Net(metas=2, edit=_accused_owns_meta_nodes)
    net.buy(STOS)
    assert code(net.slash(NOZ, 1, owner=text(KEYS[0]))) == ("pot", 33)
    held = net.held("resource_node_bonded_pool")
    submit = {"messages": [pack_any(_by_governance(net, text(KEYS[0])))], "initial_deposit": wei(100 * STOS), "proposer": text(KEYS[2])}
    net.ok(KEYS[2], message_class("cosmos.gov.v1.MsgSubmitProposal")(**submit, title="slash", summary="a node whose meta nodes may not vote"))
    net.ok(KEYS[0], message_class("cosmos.gov.v1.MsgVote")(proposal_id=1, voter=text(KEYS[0]), option=1))
    net.driver.next_block(time_step_s=8 * 86_400)
    proposal = net.query("cosmos.gov.v1", "Proposal", proposal_id=1).proposal
    assert (proposal.status, proposal.failed_reason) == (3, "")
    assert net.held("resource_node_bonded_pool") < held
    assert node(net).suspend


def test_governance_does_not_decide_where_the_meta_nodes_can() -> None:
    net = Net()
    net.buy(STOS)
    at_end_of(net.app, {net.driver.height + 1: _by_governance(net, text(NODE_OWNER))})
    with pytest.raises(AppError, match="4 meta nodes may vote on this node, and decide"):
        net.driver.next_block()


def test_nobody_signs_for_governance() -> None:
    net = Net(metas=2, edit=_accused_owns_meta_nodes)
    net.buy(STOS)
    assert code(net.run(KEYS[1], _by_governance(net, text(KEYS[0])), gas=10**7)) != ("", 0)


def test_an_approval_of_who_is_active_no_more_does_not_count() -> None:
    net = Net()
    net.buy(STOS)
    assert code(net.slash(NOZ, 0, 1)) == ("", 0)
    leave = {"meta_node_address": meta_keys(1).network_address, "owner_address": text(KEYS[1])}
    net.ok(KEYS[1], message_class(f"{REGISTER}.MsgRemoveMetaNode")(**leave))
    third = net.slash(NOZ, 2)
    assert [one["approvals"] for one in events(third, "EventApproveSlashing")] == ['"2"']
    assert not events(third, "EventSlashing")
    assert events(net.slash(NOZ, 3), "EventSlashing")
