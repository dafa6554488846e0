"""register on a chain: nodes come, are put to work, deposit more, vote, are kicked and leave; what each step does to coins, S and the limit."""

from __future__ import annotations

from typing import Any

import pytest

from chain.crypto.address import module_address
from chain.quorum import quorum
from modules.register import keys, records, unbonding
from tests.modules.governing import STOS
from tests.modules.registering import (
    DAY_S,
    DEPOSIT,
    HOUR_S,
    RATE,
    RegisterNet,
    add,
    create,
    genesis_node,
    kick,
    make,
    node_key,
    node_text,
    remove,
    typed,
    vote,
)
from tests.support import GOV, KEYS, text

BONDED, UNBONDING = 3, 2
ORIGINAL = {"solvency_rules": False}


def test_meta_nodes_of_the_mainnet_genesis_make_the_ozone_of_set_b() -> None:
    net = RegisterNet(7)
    pool = net.pool
    assert (pool.deposit_wei, pool.remaining_noz, pool.rate.scaled) == (69300 * STOS, 69_300_000_000_000_000, 10**24)
    assert net.pools() == [0, 0, 7 * DEPOSIT, 0]
    assert net.query("RemainingOzoneLimit").ozone_limit == "69300000000000000"
    assert (net.query("BondedMetaNodeCount").number, net.query("BondedResourceNodeCount").number) == (7, 0)


def test_a_resource_node_is_put_to_work_by_a_quorum_and_gets_its_deposit_back_after_it_has_left() -> None:
    net = RegisterNet(4, params={"unbonding_threashold_time": "10s", "unbonding_completion_time": "1000s"})
    limit = net.pool.remaining_noz
    result = net.ok(1, create("Resource", 11, 1, 2000 * STOS))
    assert typed(result, "EventCreateResourceNode") == [
        {
            "initial_deposit": f'"{2000 * STOS}wei"',
            "network_address": f'"{node_text(11)}"',
            "ozone_limit_changes": '"0"',
            "pubkey": f'"{node_key(11).raw.hex()}"',
            "sender": f'"{text(KEYS[1])}"',
        }
    ]
    node = net.query("ResourceNode", network_addr=node_text(11)).node
    assert (node.status, node.suspend, node.tokens, node.effective_tokens, node.node_type) == (BONDED, True, str(2000 * STOS), "0", 4)
    assert (node.beneficiary_address, node.creation_time.seconds * 10**9 + node.creation_time.nanos) == (text(KEYS[1]), net.driver.time_ns)
    assert net.pools() == [2000 * STOS, 0, 4 * DEPOSIT, 0]
    assert (net.pool.deposit_wei, net.pool.remaining_noz) == (4 * DEPOSIT, limit)

    first = net.approve(11, 1600 * STOS, 1)
    assert typed(first, "EventApproveEffectiveDeposit") == [
        {
            "approvals": '"1"',
            "approver": f'"{node_text(1)}"',
            "effective_tokens_wei": f'"{1600 * STOS}"',
            "network_address": f'"{node_text(11)}"',
            "quorum": '"3"',
        }
    ]
    assert not typed(first, "EventUpdateEffectiveDeposit")
    assert net.query("ResourceNode", network_addr=node_text(11)).node.suspend
    second = net.approve(11, 1600 * STOS, 2, 3)
    expected = {"effective_deposit_after": f'"{1600 * STOS}"', "is_unsuspended": '"true"', "network_address": f'"{node_text(11)}"'}
    assert typed(second, "EventUpdateEffectiveDeposit") == [expected]
    assert not net.query("Votes", network_addr=node_text(11)).effective_deposits
    assert (net.pool.deposit_wei, net.pool.remaining_noz) == (4 * DEPOSIT + 1600 * STOS, limit + 1600 * STOS // RATE)

    more = typed(net.ok(1, add("Resource", 11, 1, 500 * STOS)), "EventUpdateResourceNodeDeposit")[0]
    assert more["current_deposit"] == f'"{2000 * STOS}wei"', "before the change, as the original has it"
    assert (more["available_token_before"], more["available_token_after"]) == (f'"{2000 * STOS}wei"', f'"{2500 * STOS}wei"')
    assert (more["deposit_delta"], more["ozone_limit_changes"]) == (f'"{500 * STOS}wei"', '"0"')
    assert net.pool.deposit_wei == 4 * DEPOSIT + 1600 * STOS

    left = typed(net.ok(1, remove("Resource", 11, 1)), "EventUnBondingResourceNode")[0]
    assert (left["deposit_to_remove"], left["resource_node"]) == (f'"{2500 * STOS}wei"', f'"{node_text(11)}"')
    assert net.pools() == [0, 2500 * STOS, 4 * DEPOSIT, 0]
    assert net.pool.deposit_wei == 4 * DEPOSIT + 1600 * STOS, "it counts until it has left for good"
    record = net.query("UnbondingNode", network_addr=node_text(11))
    assert [entry.balance for entry in record.unbonding_node.entries] == [str(2500 * STOS)]
    assert record.leaving_deposits[0].amount_wei == str(1600 * STOS)
    state = net.query("OzoneState")
    assert (state.effective_deposit_wei, state.leaving_wei, state.total_noz) == (str(4 * DEPOSIT), str(1600 * STOS), str(41_200_000_000_000_000))

    net.driver.next_block(time_step_s=900)
    assert not typed(net.ended(), "EventCompleteUnBondingResourceNode")
    held = net.held(text(KEYS[1]))
    net.driver.next_block(time_step_s=100)
    done = {"amount": f'"{2500 * STOS}wei"', "network_address": f'"{node_text(11)}"'}
    assert typed(net.ended(), "EventCompleteUnBondingResourceNode") == [done]
    assert typed(net.ended(), "EventLowerDeposit")[0]["ozone_limit_changes"] == f'"-{1600 * STOS // RATE}"'
    assert net.held(text(KEYS[1])) - held == 2500 * STOS
    assert (net.pool.deposit_wei, net.pool.remaining_noz) == (4 * DEPOSIT, limit)
    assert net.pools() == [0, 0, 4 * DEPOSIT, 0]
    assert net.query("DepositByNode", network_addr=node_text(11)).deposit_info.network_address == ""
    net.ok(2, create("Resource", 11, 2))


def test_a_candidate_is_voted_in_and_its_deposit_makes_ozone() -> None:
    net = RegisterNet(4)
    limit = net.pool.remaining_noz
    created = net.ok(5, create("Meta", 12, 5, 100 * STOS))
    assert typed(created, "EventCreateMetaNode") == [{"network_address": f'"{node_text(12)}"', "sender": f'"{text(KEYS[5])}"'}]
    assert net.pools() == [0, 0, 4 * DEPOSIT, 100 * STOS]
    net.ok(5, add("Meta", 12, 5, STOS))
    assert net.pool.remaining_noz == limit
    net.ok(1, vote(12, 5, 1, 1))
    net.ok(4, vote(12, 5, 4, 4, False))
    waiting = typed(net.ok(2, vote(12, 5, 2, 2)), "EventMetaNodeRegistrationVote")[0]
    assert (waiting["candidate_status"], waiting["ozone_limit_changes"]) == ('"BOND_STATUS_UNBONDED"', '"0"')
    passed = typed(net.ok(3, vote(12, 5, 3, 3)), "EventMetaNodeRegistrationVote")[0]
    assert (passed["candidate_status"], passed["ozone_limit_changes"]) == ('"BOND_STATUS_BONDED"', f'"{101 * STOS // RATE}"')
    assert net.pools() == [0, 0, 4 * DEPOSIT + 101 * STOS, 0]
    assert net.pool.remaining_noz == limit + 101 * STOS // RATE
    assert net.query("Votes", network_addr=node_text(12)).registration.is_vote_passed
    more = typed(net.ok(5, add("Meta", 12, 5, STOS)), "EventUpdateMetaNodeDeposit")[0]
    assert more["ozone_limit_changes"] == f'"{STOS // RATE}"'
    assert net.pool.deposit_wei == 4 * DEPOSIT + 102 * STOS
    active = net.read(lambda state: [records.address_of(one) for one in net.keeper.active_meta_nodes(state)])
    assert active == sorted(node_key(number).address for number in (1, 2, 3, 4, 12))


def test_a_candidate_that_nobody_voted_in_gets_its_deposit_back() -> None:
    net = RegisterNet(4, params={"unbonding_completion_time": "50s", "voting_period": "20s"})
    net.ok(5, create("Meta", 12, 5, 100 * STOS))
    net.driver.next_block(time_step_s=30)
    net.driver.next_block()
    assert not net.query("Votes", network_addr=node_text(12)).HasField("registration"), "votes whose time is over are removed"
    left = typed(net.ok(5, remove("Meta", 12, 5)), "EventUnBondingMetaNode")[0]
    assert (left["ozone_limit_changes"], left["deposit_to_remove"]) == ('"0"', f'"{100 * STOS}wei"')
    held = net.held(text(KEYS[5]))
    net.driver.next_block(time_step_s=50)
    assert net.held(text(KEYS[5])) - held == 100 * STOS
    assert net.pools() == [0, 0, 4 * DEPOSIT, 0]


def test_a_candidate_that_leaves_late_is_free_at_once_and_pushes_in_before_nobody() -> None:
    net = RegisterNet(4, params={"unbonding_completion_time": "50s"})
    net.ok(5, create("Meta", 12, 5, 100 * STOS))
    net.driver.next_block(time_step_s=500)
    left = typed(net.ok(5, remove("Meta", 12, 5)), "EventUnBondingMetaNode")[0]
    assert left["unbonding_mature_time"] == f'"{records.time_text(net.driver.time_ns)}"'
    assert net.pools() == [0, 0, 4 * DEPOSIT, 0]


@pytest.mark.parametrize(("created", "asked", "days"), [("2026-01-01T00:00:00Z", 0, 194), ("2025-01-01T00:00:00Z", 0, 14)])
def test_what_leaves_is_free_after_threshold_and_completion(created: str, asked: int, days: int) -> None:
    """180 days since the node was made and 14 on top; 14 days from now for one that is older."""
    net = RegisterNet(4, section={"resource_nodes": [genesis_node(11, 1, STOS, node_type=4, creation_time=created)]})
    start = net.driver.time_ns
    net.ok(1, remove("Resource", 11, 1))
    completion = net.query("UnbondingNode", network_addr=node_text(11)).unbonding_node.entries[0].completion_time
    since = (completion.seconds * 10**9 + completion.nanos - start) / 10**9 / DAY_S
    assert abs(since - days) < 0.01


def test_a_bonded_meta_node_leaves_and_takes_its_ozone_along_when_it_is_gone() -> None:
    net = RegisterNet(4)
    net.ok(4, remove("Meta", 4, 4))
    assert net.pool.deposit_wei == 4 * DEPOSIT
    assert net.query("BondedMetaNodeCount").number == 3
    net.driver.next_block(time_step_s=14 * DAY_S)
    assert typed(net.ended(), "EventCompleteUnBondingMetaNode")
    assert (net.pool.deposit_wei, net.pool.remaining_noz) == (3 * DEPOSIT, 3 * DEPOSIT // RATE)


def test_by_the_original_rules_a_meta_node_takes_its_ozone_along_at_once_and_a_resource_node_never_does() -> None:
    net = RegisterNet(4, params={**ORIGINAL, "unbonding_threashold_time": "1s", "unbonding_completion_time": "20s"})
    left = typed(net.ok(4, remove("Meta", 4, 4)), "EventUnBondingMetaNode")[0]
    assert left["ozone_limit_changes"] == f'"-{DEPOSIT // RATE}"'
    assert (net.pool.deposit_wei, net.pool.remaining_noz) == (3 * DEPOSIT, 3 * DEPOSIT // RATE)
    net.ok(1, create("Resource", 11, 1, 10 * STOS))
    net.approve(11, 10 * STOS, 1, 2, 3)
    net.ok(1, remove("Resource", 11, 1))
    net.driver.next_block(time_step_s=100)
    assert net.pools() == [0, 0, 3 * DEPOSIT, 0]
    assert net.pool.deposit_wei == 3 * DEPOSIT + 10 * STOS
    assert net.query("OzoneState").pending_lower_wei == str(10 * STOS), "nobody stands behind it any more"
    message = make("MsgUpdateParams", authority=GOV, params=net.query("Params").params)
    message.params.solvency_rules = True
    _governed(net, message)
    assert net.pool.pending_wei == 10 * STOS
    net.ok(1, add("Meta", 1, 1, STOS))
    assert (net.pool.deposit_wei, net.pool.pending_wei) == (3 * DEPOSIT + STOS, 0), "with the solvency rules it leaves as soon as the limit allows"


def _governed(net: RegisterNet, message: Any) -> None:
    """Execute a message as a passed proposal does."""
    handler = net.app.executor._handlers[message.DESCRIPTOR.full_name]

    def execute(ctx: Any, state: Any) -> None:
        handler.check_stateless(message)
        handler.execute(ctx, state, message)

    net.within(execute)


def test_descriptions_and_beneficiaries_are_replaced_by_the_owner() -> None:
    net = RegisterNet(4, section={"resource_nodes": [genesis_node(11, 1, STOS, node_type=4)]})
    changed = make(
        "MsgUpdateResourceNode",
        network_address=node_text(11),
        owner_address=text(KEYS[1]),
        beneficiary_address=text(KEYS[2]),
        description={"website": "w"},
        node_type=7,
    )
    event = typed(net.ok(1, changed), "EventUpdateResourceNode")[0]
    assert event["beneficiary_address"] == f'"{text(KEYS[2])}"'
    node = net.query("ResourceNode", network_addr=node_text(11)).node
    assert (node.node_type, node.description.moniker, node.description.website) == (7, "", "w")
    meta = make("MsgUpdateMetaNode", network_address=node_text(1), owner_address=text(KEYS[1]), description={"moniker": "new"})
    assert typed(net.ok(1, meta), "EventUpdateMetaNode")
    found = net.query("MetaNode", network_addr=node_text(1)).node
    assert (found.description.moniker, found.beneficiary_address) == ("new", text(KEYS[1]))


# --- approvals ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("voters", range(1, 31))
def test_a_quorum_is_more_than_two_thirds_and_at_least_two_where_there_are_two(voters: int) -> None:
    needed = quorum(voters)
    assert needed * 3 > voters * 2 >= (needed - 1) * 3
    assert needed <= voters
    assert needed >= min(voters, 2)


def test_approvals_of_one_amount_gather_for_an_hour() -> None:
    net = RegisterNet(4, section={"resource_nodes": [genesis_node(11, 1, 10 * STOS, node_type=4, suspend=True)]})
    net.approve(11, STOS, 1)
    net.approve(11, 2 * STOS, 2, 3)
    assert [len(one.approvers) for one in net.query("Votes", network_addr=node_text(11)).effective_deposits] == [1, 2]
    net.driver.next_block(time_step_s=HOUR_S)
    net.driver.next_block()
    assert not net.query("Votes", network_addr=node_text(11)).effective_deposits
    net.approve(11, STOS, 2, 3)
    assert net.query("ResourceNode", network_addr=node_text(11)).node.suspend
    assert net.approve(11, STOS, 4).code == 0
    assert not net.query("ResourceNode", network_addr=node_text(11)).node.suspend


def test_an_approval_of_a_meta_node_that_has_left_does_not_count() -> None:
    net = RegisterNet(5, section={"resource_nodes": [genesis_node(11, 1, 10 * STOS, node_type=4, suspend=True)]})
    net.approve(11, STOS, 1, 2)
    net.ok(2, remove("Meta", 2, 2))
    net.approve(11, STOS, 3)
    assert net.query("ResourceNode", network_addr=node_text(11)).node.suspend, "two of four are left"
    net.approve(11, STOS, 4)
    assert not net.query("ResourceNode", network_addr=node_text(11)).node.suspend


def test_one_meta_node_alone_activates_resource_nodes() -> None:
    net = RegisterNet(1, section={"resource_nodes": [genesis_node(11, 2, 10 * STOS, node_type=4, suspend=True)]})
    net.approve(11, STOS, 1)
    assert net.pool.deposit_wei == DEPOSIT + STOS


def test_a_smaller_effective_deposit_that_the_limit_cannot_take_is_pending() -> None:
    net = RegisterNet(1, section={"resource_nodes": [genesis_node(11, 2, 10 * STOS, node_type=4, suspend=True)]})
    net.approve(11, 10 * STOS, 1)
    left = 4 * STOS // RATE
    net.within(lambda ctx, state: net.keeper.take_ozone(ctx, state, net.keeper.ozone(state).remaining_noz - left))
    lowered = typed(net.approve(11, STOS, 1), "EventLowerDeposit")[0]
    assert (lowered["lowered_wei"], lowered["pending_lower_wei"]) == (f'"{4 * STOS}"', f'"{5 * STOS}"')
    assert (net.pool.remaining_noz, net.pool.pending_wei, net.pool.deposit_wei) == (0, 5 * STOS, DEPOSIT + 6 * STOS)
    sold = net.pool.outstanding_noz
    net.within(lambda ctx, state: net.keeper.return_ozone(ctx, state, 7 * STOS // RATE))
    assert (net.pool.remaining_noz, net.pool.pending_wei, net.pool.deposit_wei) == (2 * STOS // RATE, 0, DEPOSIT + STOS)
    assert net.pool.outstanding_noz == sold - 7 * STOS // RATE


# --- kicking --------------------------------------------------------------------------------------------------------------------


def test_a_quorum_of_the_others_makes_a_meta_node_leave() -> None:
    net = RegisterNet(4)
    first = typed(net.ok(1, kick(4, 1, 1)), "EventKickMetaNodeVote")[0]
    assert (first["sender"], first["target_status"]) == (f'"{text(KEYS[1])}"', '"BOND_STATUS_BONDED"')
    net.ok(2, kick(4, 2, 2))
    result = net.ok(3, kick(4, 3, 3))
    assert typed(result, "EventKickMetaNodeVote")[0]["target_status"] == '"BOND_STATUS_UNBONDING"'
    assert typed(result, "EventUnBondingMetaNode")[0]["sender"] == f'"{text(KEYS[4])}"'
    assert net.query("MetaNode", network_addr=node_text(4)).node.status == UNBONDING
    assert net.query("Votes", network_addr=node_text(4)).kick.is_vote_passed


def test_no_meta_node_of_the_accused_ones_owner_votes_or_counts() -> None:
    owners = {1: 1, 2: 2, 3: 3, 4: 3}
    net = RegisterNet(section={"meta_nodes": [genesis_node(number, owner) for number, owner in owners.items()]})
    refused = net.run(3, kick(4, 3, 3, False))
    assert (refused.codespace, refused.code) == ("register", 67)
    assert "of the accused's owner" in refused.log
    net.ok(1, kick(4, 1, 1))
    net.ok(2, kick(4, 2, 2))
    assert net.query("MetaNode", network_addr=node_text(4)).node.status == UNBONDING
    assert net.query("MetaNode", network_addr=node_text(3)).node.status == BONDED


def test_governance_decides_on_who_owns_all_but_one() -> None:
    net = RegisterNet(section={"meta_nodes": [genesis_node(1, 1), genesis_node(2, 2), genesis_node(3, 2)]})
    refused = net.run(1, kick(2, 1, 1))
    assert (refused.codespace, refused.code) == ("register", 102)


def test_a_kick_vote_is_over_when_approval_cannot_be_reached() -> None:
    net = RegisterNet(5)
    net.ok(1, kick(5, 1, 1, False))
    assert net.query("Votes", network_addr=node_text(5)).HasField("kick"), "three of four are still possible"
    net.ok(2, kick(5, 2, 2, False))
    assert not net.query("Votes", network_addr=node_text(5)).HasField("kick")
    net.ok(1, kick(5, 1, 1))


def test_a_kick_vote_ends_with_its_period() -> None:
    net = RegisterNet(5, params={"voting_period": "100s"})
    net.ok(1, kick(5, 1, 1))
    net.driver.next_block(time_step_s=100)
    net.driver.next_block()
    assert not net.query("Votes", network_addr=node_text(5)).HasField("kick")


def test_governance_decides_where_fewer_than_two_could_vote() -> None:
    net = RegisterNet(2)
    refused = net.run(1, kick(2, 1, 1))
    assert (refused.codespace, refused.code) == ("register", 102)
    message = make("MsgKickMetaNodeVote", target_network_address=node_text(2), opinion=True, voter_owner_address=GOV)
    number = net.submit(message)
    net.vote(0, number, 1)
    net.wait(7)
    assert net.proposal(number).status == 3, net.proposal(number).failed_reason
    assert net.query("MetaNode", network_addr=node_text(2)).node.status == UNBONDING


def test_governance_does_not_vote_where_meta_nodes_can() -> None:
    net = RegisterNet(3)
    number = net.submit(make("MsgKickMetaNodeVote", target_network_address=node_text(2), opinion=True, voter_owner_address=GOV))
    net.vote(0, number, 1)
    net.wait(7)
    assert "governance does not vote while meta nodes can" in net.proposal(number).failed_reason
    assert net.query("MetaNode", network_addr=node_text(2)).node.status == BONDED


# --- debts and slashes ----------------------------------------------------------------------------------------------------------


def test_a_slash_takes_what_stays_first_and_then_what_is_leaving() -> None:
    leaving = [{"creation_height": "0", "completion_time": "2027-01-01T00:00:00Z", "initial_balance": str(4 * STOS), "balance": str(4 * STOS)}]
    net = RegisterNet(
        4,
        section={
            "resource_nodes": [genesis_node(11, 1, 10 * STOS, node_type=4, effective_tokens=str(5 * STOS))],
            "unbonding_nodes": [{"network_addr": node_text(11), "is_meta_node": False, "entries": leaving}],
        },
    )
    assert net.pools()[:2] == [6 * STOS, 4 * STOS]
    limit = net.pool.remaining_noz

    def slash(amount: int) -> int:
        return int(net.within(lambda ctx, state: net.keeper.slash_deposit(ctx, state, node_key(11).address, amount, "mint")))

    assert slash(STOS) == STOS
    assert (net.pools()[:2], net.pool.deposit_wei) == ([5 * STOS, 4 * STOS], 4 * DEPOSIT + 5 * STOS)
    assert slash(7 * STOS) == 7 * STOS
    assert typed(net.ended(), "EventLowerDeposit")[0]["lowered_wei"] == f'"{3 * STOS}"'
    assert net.pools()[:2] == [0, 2 * STOS]
    assert (net.pool.deposit_wei, net.pool.remaining_noz) == (4 * DEPOSIT + 2 * STOS, limit - 3 * STOS // RATE)
    assert net.query("UnbondingNode", network_addr=node_text(11)).unbonding_node.entries[0].balance == str(2 * STOS)
    assert slash(9 * STOS) == 2 * STOS
    assert net.read(lambda state: net.keeper.node(state, node_key(11).address)) is None
    assert (net.pools()[:2], net.pool.deposit_wei) == ([0, 0], 4 * DEPOSIT)
    assert slash(STOS) == 0
    assert net.read(lambda state: net.keeper.bank.balance(state, module_address("mint"), "wei")) == 10 * STOS


def test_a_slash_beyond_the_limit_is_pending() -> None:
    net = RegisterNet(4)
    net.within(lambda ctx, state: net.keeper.take_ozone(ctx, state, net.keeper.ozone(state).remaining_noz))
    net.within(lambda ctx, state: net.keeper.slash_deposit(ctx, state, node_key(1).address, STOS, "mint"))
    assert (net.pool.deposit_wei, net.pool.pending_wei, net.pool.remaining_noz) == (4 * DEPOSIT, STOS, 0)


def test_by_the_original_rules_a_slash_beyond_the_limit_changes_the_node_alone() -> None:
    net = RegisterNet(4, params=ORIGINAL)
    net.within(lambda ctx, state: net.keeper.take_ozone(ctx, state, net.keeper.ozone(state).remaining_noz))
    net.within(lambda ctx, state: net.keeper.slash_deposit(ctx, state, node_key(1).address, STOS, "mint"))
    assert (net.pool.deposit_wei, net.pool.pending_wei, net.pool.remaining_noz) == (4 * DEPOSIT, 0, 0)
    assert net.query("OzoneState").pending_lower_wei == str(STOS)


def community(net: RegisterNet) -> int:
    """The community pool's wei, with 18 decimals."""
    return sum(int(coin.amount) for coin in net.ask("CommunityPool", "cosmos.distribution.v1beta1").pool)


def test_rewards_and_leaving_deposits_pay_a_debt() -> None:
    node = genesis_node(11, 1, 10 * STOS, node_type=4, effective_tokens=str(STOS), beneficiary_address=text(KEYS[5]))
    net = RegisterNet(4, section={"resource_nodes": [node]}, params={"unbonding_threashold_time": "1s", "unbonding_completion_time": "20s"})
    owner, beneficiary = (KEYS[number].public_key.address for number in (1, 5))

    def debt(wallet: bytes) -> int:
        return int(net.read(lambda state: net.keeper.debt_wei(state, wallet)))

    net.within(lambda ctx, state: net.keeper.add_debt(ctx, state, owner, 9 * STOS))
    net.within(lambda ctx, state: net.keeper.add_debt(ctx, state, beneficiary, STOS))
    assert net.within(lambda ctx, state: net.keeper.deduct_debt(ctx, state, beneficiary, 3 * STOS)) == (0, 3 * STOS)
    assert (debt(owner), debt(beneficiary)) == (7 * STOS, 0), "his own first, then that of the owner whose node's beneficiary he is"
    assert net.within(lambda ctx, state: net.keeper.deduct_debt(ctx, state, KEYS[4].public_key.address, STOS)) == (STOS, 0)
    net.ok(1, remove("Resource", 11, 1))
    held, before = net.held(text(KEYS[1])), community(net)
    net.driver.next_block(time_step_s=30)
    assert net.held(text(KEYS[1])) - held == 3 * STOS
    assert debt(owner) == 0
    grown = community(net) - before
    assert 7 * STOS * 10**18 <= grown < 7 * STOS * 10**18 + 10**18 * 10**18


def test_who_is_named_by_nodes_that_never_worked_pays_no_debt_of_their_owner() -> None:
    """Anybody may name anybody as beneficiary, for the fee and a deposit of one wei: nobody's rewards may hang on that."""
    net = RegisterNet(4)
    owner, named = (KEYS[number].public_key.address for number in (1, 5))
    net.ok(1, create("Resource", 11, 1, beneficiary_address=text(KEYS[5])), create("Meta", 12, 1, 1, beneficiary_address=text(KEYS[5])))
    net.within(lambda ctx, state: net.keeper.add_debt(ctx, state, owner, 3 * STOS))
    assert net.within(lambda ctx, state: net.keeper.deduct_debt(ctx, state, named, STOS)) == (STOS, 0)
    assert net.approve(11, STOS, 1, 2, 3).code == 0
    assert net.within(lambda ctx, state: net.keeper.deduct_debt(ctx, state, named, STOS)) == (0, STOS), "now the node earns him rewards"
    net.within(lambda ctx, state: net.keeper.set_suspended(ctx, state, node_key(11).address, True))
    assert net.within(lambda ctx, state: net.keeper.deduct_debt(ctx, state, named, STOS)) == (0, STOS), "a suspended deposit counts on"


def test_at_most_a_hundred_owners_are_looked_at_for_one_payment() -> None:
    net = RegisterNet(1)
    wallet = KEYS[5].public_key.address

    def many(ctx: Any, state: Any) -> tuple[int, int]:
        for number in range(150):
            owner = number.to_bytes(20, "big")
            state.store("register").set(keys.owner_for(wallet, owner), (1).to_bytes(8, "big"))
            net.keeper.set_debt(state, owner, 1)
        found = net.keeper.deduct_debt(ctx, state, wallet, 1000)
        for number in range(150):
            owner = number.to_bytes(20, "big")
            state.store("register").delete(keys.owner_for(wallet, owner))
            net.keeper.set_debt(state, owner, 0)
        return found

    assert net.within(many) == (900, 100)


def test_a_suspended_node_counts_until_it_is_active_again_and_moves_no_price() -> None:
    net = RegisterNet(4, section={"resource_nodes": [genesis_node(11, 1, 10 * STOS, node_type=4, effective_tokens=str(10 * STOS))]})
    address, before = node_key(11).address, net.pool
    net.within(lambda ctx, state: net.keeper.set_suspended(ctx, state, address, True))
    node = net.query("ResourceNode", network_addr=node_text(11)).node
    assert (node.suspend, node.effective_tokens, net.pool) == (True, "0", before)
    assert net.export()["leaving_deposits"][0]["amount_wei"] == str(10 * STOS)
    net.approve(11, 10 * STOS, 1, 2, 3)
    assert net.pool == before
    net.within(lambda ctx, state: net.keeper.set_suspended(ctx, state, address, True))
    net.within(lambda ctx, state: net.keeper.set_suspended(ctx, state, address, False))
    node = net.query("ResourceNode", network_addr=node_text(11)).node
    assert (node.suspend, node.effective_tokens) == (False, "0")
    net.within(lambda ctx, state: net.keeper.set_suspended(ctx, state, node_key(99).address, True))


def test_approvals_from_before_a_suspension_do_not_end_it() -> None:
    net = RegisterNet(4, section={"resource_nodes": [genesis_node(11, 1, 10 * STOS, node_type=4, effective_tokens=str(10 * STOS))]})
    net.approve(11, 5 * STOS, 1, 2)
    net.within(lambda ctx, state: net.keeper.set_suspended(ctx, state, node_key(11).address, True))
    assert not net.query("Votes", network_addr=node_text(11)).effective_deposits
    net.approve(11, 5 * STOS, 3)
    assert net.query("ResourceNode", network_addr=node_text(11)).node.suspend, "one of three that have to say so anew"
    net.approve(11, 5 * STOS, 1, 2)
    assert not net.query("ResourceNode", network_addr=node_text(11)).node.suspend


def test_by_the_original_rules_a_suspension_takes_the_deposit_out_at_once() -> None:
    section = {"resource_nodes": [genesis_node(11, 1, 10 * STOS, node_type=4, effective_tokens=str(10 * STOS))]}
    net = RegisterNet(4, params=ORIGINAL, section=section)
    net.within(lambda ctx, state: net.keeper.set_suspended(ctx, state, node_key(11).address, True))
    assert (net.pool.deposit_wei, net.pool.remaining_noz) == (4 * DEPOSIT, 4 * DEPOSIT // RATE)


def test_a_void_epoch_takes_its_noz_back_first_of_all_that_returns() -> None:
    net = RegisterNet(1)
    net.within(lambda ctx, state: net.keeper.take_ozone(ctx, state, net.keeper.ozone(state).remaining_noz - 10))
    outstanding = net.pool.outstanding_noz
    assert net.within(lambda ctx, state: net.keeper.void_ozone(ctx, state, 25)) == (10, 15)
    assert (net.pool.remaining_noz, net.pool.pending_noz, net.pool.outstanding_noz) == (0, 15, outstanding + 25)
    assert net.query("OzoneState").pending_lower_noz == "15"
    net.within(lambda ctx, state: net.keeper.return_ozone(ctx, state, 20))
    assert (net.pool.remaining_noz, net.pool.pending_noz, net.pool.outstanding_noz) == (5, 0, outstanding + 5)


def test_more_noz_than_are_outstanding_do_not_come_back() -> None:
    net = RegisterNet(1)
    net.within(lambda ctx, state: net.keeper.take_ozone(ctx, state, 5))

    def too_much(ctx: Any, state: Any) -> str:
        try:
            net.keeper.return_ozone(ctx, state, 6)
        except Exception as error:
            return f"{error}"
        return ""

    assert net.within(too_much).endswith("remaining ozone limit would leave its bounds")
    net.within(lambda ctx, state: net.keeper.return_ozone(ctx, state, 5))


# --- bounds per block -----------------------------------------------------------------------------------------------------------


def test_a_block_pays_back_a_bounded_number_of_nodes_and_the_next_one_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unbonding, "MAX_COMPLETED_PER_BLOCK", 2)
    nodes = [genesis_node(number, 1, STOS, node_type=4) for number in range(11, 16)]
    net = RegisterNet(1, section={"resource_nodes": nodes}, params={"unbonding_threashold_time": "1s", "unbonding_completion_time": "20s"})
    net.ok(1, *(remove("Resource", number, 1) for number in range(11, 16)))
    net.driver.next_block(time_step_s=30)
    counts = []
    for _ in range(3):
        counts.append(len(typed(net.ended(), "EventCompleteUnBondingResourceNode")))
        net.driver.next_block()
    assert counts == [2, 2, 1]


def test_a_block_removes_a_bounded_number_of_votes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unbonding, "MAX_EXPIRED_PER_BLOCK", 2)
    net = RegisterNet(1, params={"voting_period": "20s"})
    net.ok(1, *(create("Meta", number, 1) for number in range(11, 16)))
    net.driver.next_block(time_step_s=30)
    counts = []
    for _ in range(3):
        counts.append(len(net.export()["meta_node_reg_vote_pool"]))
        net.driver.next_block()
    assert counts == [3, 1, 0]


def test_an_owner_that_users_cannot_send_to_gets_its_deposit_back() -> None:
    net = RegisterNet(1, params={"unbonding_threashold_time": "1s", "unbonding_completion_time": "20s"})
    message = create("Resource", 11, 1, owner_address=GOV, beneficiary_address="")

    def as_governance(ctx: Any, state: Any) -> None:
        net.keeper.bank.send(ctx, state, KEYS[1].public_key.address, module_address("gov"), net.keeper.coins(state, 2 * STOS))
        for one in (message, make("MsgRemoveResourceNode", resource_node_address=node_text(11), owner_address=GOV)):
            net.app.executor._handlers[one.DESCRIPTOR.full_name].execute(ctx, state, one)

    net.within(as_governance)
    net.driver.next_block(time_step_s=30)
    assert net.held(GOV) == 2 * STOS
