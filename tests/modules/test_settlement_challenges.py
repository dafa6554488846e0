"""Withheld data: challenges with bonds, answers, deadlines, and that their work in a block is bounded."""

from __future__ import annotations

from typing import Any

import pytest

from chain.context import Context, Mode
from chain.errors import NotFound, Unauthorized
from chain.store.state import State
from modules.settlement import errors
from modules.settlement.challenges import MAX_CHALLENGES_OF_EPOCH
from tests.grants import send
from tests.modules.settling import (
    CHALLENGE_BLOCKS,
    DEPOSIT_WEI,
    EPOCH_S,
    FINDER,
    MATURE_EPOCH,
    OWNER,
    SETTLEMENT,
    STOS,
    Net,
    Tree,
    fraud,
    message,
    send_fee,
    traffic_leaf,
)
from tests.support import CHAIN_ID, GOV, KEYS, text

BOND_WEI = STOS
RESPONDER = KEYS[4]


@pytest.fixture
def net() -> Net:
    return Net(4)


def tree_of(net: Net, count: int = 3) -> Tree:
    return Tree.of(*(traffic_leaf(net.nodes[0], serial, 10**12) for serial in range(1, count + 1)))


def challenge(epoch: int = 1, index: int = 0, finder: Any = FINDER) -> Any:
    return fraud("withheld_leaf", finder, epoch=epoch, leaf_index=index)


def answer(challenge_id: int, proof: Any, responder: Any = RESPONDER) -> Any:
    return message("MsgAnswerChallenge", responder=text(responder), challenge_id=challenge_id, leaf=proof)


def test_a_challenge_takes_its_bond_and_who_shows_the_leaf_has_half_of_it(net: Net) -> None:
    tree = tree_of(net)
    net.report(1, tree)
    finder, responder = net.wei(text(FINDER)), net.wei(text(RESPONDER))
    net.ok(FINDER, challenge(index=2))
    assert (net.wei(text(FINDER)), net.module_wei("settlement")) == (finder - BOND_WEI - send_fee(), BOND_WEI)
    opened = net.query(SETTLEMENT, "Challenge", challenge_id=1).challenge
    assert (opened.epoch, opened.leaf_index, opened.bond_wei, opened.challenger) == (1, 2, str(BOND_WEI), text(FINDER))
    assert opened.deadline_height == net.driver.height + CHALLENGE_BLOCKS
    community = net.community_wei()
    result = net.ok(RESPONDER, answer(1, tree.proof(2)))
    assert net.wei(text(RESPONDER)) == responder + BOND_WEI // 2 - send_fee()
    assert net.community_wei() - community >= BOND_WEI // 2, "taxes on fees come to it too"
    assert net.module_wei("settlement") == 0
    told = dict(next(attributes for kind, attributes in result.events if kind.endswith("EventAnswerChallenge")))
    assert (told["bond_wei"], told["challenge_id"], told["responder"]) == (f'"{BOND_WEI // 2}"', '"1"', f'"{text(RESPONDER)}"')
    with pytest.raises(NotFound):
        net.query(SETTLEMENT, "Challenge", challenge_id=1)
    for _ in range(CHALLENGE_BLOCKS + 2):
        net.driver.next_block()
    assert net.kept().status == 1
    net.ok(FINDER, challenge(index=2))
    assert net.query(SETTLEMENT, "Challenges").challenges[0].challenge_id == 2, "the leaf may be asked for again, for another bond"


def test_a_leaf_that_nobody_shows_voids_the_epoch_at_the_deadline(net: Net) -> None:
    before_report = {name: net.module_wei(name) for name in ("total_unissued_prepay", "foundation_account", "total_reward_pool")}
    net.report(1, tree_of(net))
    finder = net.wei(text(FINDER))
    net.ok(FINDER, challenge(index=1))
    net.ok(RESPONDER, challenge(index=0, finder=RESPONDER))
    responder = net.wei(text(RESPONDER))
    deadline = net.query(SETTLEMENT, "Challenge", challenge_id=1).challenge.deadline_height
    while net.driver.height < deadline - 1:
        net.driver.next_block()
    assert net.kept().status == 1
    net.driver.next_block()
    assert net.kept().status == 2
    slashed = 4 * DEPOSIT_WEI // 10
    assert net.wei(text(FINDER)) == finder - send_fee() + slashed // 5, "his bond is back, and a fifth of what the signers lost is his"
    assert net.wei(text(RESPONDER)) == responder + BOND_WEI, "who asked for another leaf has his bond back, too"
    assert net.module_wei("settlement") == 0
    assert {name: net.module_wei(name) for name in before_report} == before_report
    assert net.query(SETTLEMENT, "Challenges").challenges == []
    assert net.refusal(FINDER, challenge())[0] == ("settlement", errors.EpochVoid.code)
    net.holds()


def test_an_answer_in_the_deadlines_block_is_in_time_and_one_block_later_too_late(net: Net) -> None:
    tree = tree_of(net)
    net.report(1, tree)
    net.ok(FINDER, challenge(index=0))
    deadline = net.query(SETTLEMENT, "Challenge", challenge_id=1).challenge.deadline_height
    while net.driver.height < deadline - 1:
        net.driver.next_block()
    net.ok(RESPONDER, answer(1, tree.proof(0)))
    assert net.driver.height == deadline
    assert net.kept().status == 1
    net.ok(FINDER, challenge(index=1))
    for _ in range(CHALLENGE_BLOCKS):
        net.driver.next_block()
    assert net.refusal(RESPONDER, answer(2, tree.proof(1)))[0] == ("settlement", errors.UnknownChallenge.code)


def test_answers_that_show_something_else_are_refused(net: Net) -> None:
    tree, other = tree_of(net), Tree.of(*(traffic_leaf(net.nodes[0], serial, 7) for serial in (11, 12)))
    net.report(1, tree)
    net.report(2, other)
    net.ok(FINDER, challenge(index=1))
    invalid = ("settlement", errors.InvalidProof.code)
    assert net.refusal(RESPONDER, answer(1, tree.proof(0)))[0] == invalid
    assert net.refusal(RESPONDER, answer(1, other.proof(1, 2)))[0] == invalid
    proof = tree.proof(1)
    proof.leaf.noz += 1
    assert net.refusal(RESPONDER, answer(1, proof))[0] == invalid
    assert net.refusal(RESPONDER, answer(9, tree.proof(1)))[0] == ("settlement", errors.UnknownChallenge.code)
    net.ok(RESPONDER, answer(1, tree.proof(1)))


def test_a_leaf_in_a_tree_of_another_sum_is_no_answer(net: Net) -> None:
    """Root sum and report must agree: of a tree that does not, no leaf can be shown in time."""
    tree = tree_of(net)
    net.report(1, tree, volumes={wallet: noz + 1 for wallet, noz in tree.volumes().items()})
    net.ok(FINDER, challenge())
    assert net.refusal(RESPONDER, answer(1, tree.proof(0)))[0] == ("settlement", errors.InvalidProof.code)


def test_challenges_that_cannot_be_are_refused(net: Net) -> None:
    net.report(1, tree_of(net))
    assert net.refusal(FINDER, challenge(index=3))[0] == ("settlement", errors.InvalidProof.code)
    assert net.refusal(FINDER, challenge(index=(1 << 64) - 1))[0] == ("settlement", errors.InvalidProof.code)
    assert net.refusal(FINDER, challenge(epoch=2))[0] == ("settlement", errors.EpochNotKept.code)
    assert net.refusal(FINDER, challenge(epoch=-1))[0] == ("settlement", errors.EpochNotKept.code)
    net.ok(FINDER, challenge(index=1))
    assert net.refusal(RESPONDER, challenge(index=1, finder=RESPONDER))[0] == ("settlement", errors.LeafChallenged.code)
    net.report(2)
    assert net.refusal(FINDER, challenge(epoch=2))[0] == ("settlement", errors.InvalidProof.code), "an idle epoch has no leaves"


def test_who_cannot_pay_the_bond_or_have_it_back_cannot_challenge(net: Net) -> None:
    net.report(1, tree_of(net))
    poor = KEYS[4]
    net.ok(poor, send(text(poor), text(OWNER), net.wei(text(poor)) - BOND_WEI // 2))
    assert net.refusal(poor, challenge(finder=poor))[0] == ("sdk", 5)
    handler = net.app.executor._handlers[f"{SETTLEMENT}.MsgFraudProof"]
    ctx = Context(CHAIN_ID, net.driver.height + 1, net.driver.time_ns, Mode.FINALIZE)
    proof = challenge()
    proof.finder = GOV
    with pytest.raises(Unauthorized):
        handler.execute(ctx, State(net.app.store.view(), net.app.store.names), proof)


def test_who_asks_himself_to_fill_an_epochs_places_pays_half_a_bond_for_each(net: Net) -> None:
    """Otherwise who withholds a leaf could keep everybody from asking for it, for fees alone."""
    tree = tree_of(net)
    net.report(1, tree)
    before = net.wei(text(FINDER))
    again = [challenge(index=0), answer(1, tree.proof(0), FINDER), challenge(index=0), answer(2, tree.proof(0), FINDER)]
    net.ok(FINDER, *again)
    assert net.wei(text(FINDER)) == before - BOND_WEI - send_fee()
    assert net.module_wei("settlement") == 0


def test_an_odd_bond_is_shared_without_a_rest() -> None:
    def odd(document: dict[str, Any]) -> None:
        document["app_state"]["settlement"]["params"]["challenge_bond_wei"] = "1"

    net = Net(4, change=odd)
    tree = tree_of(net)
    net.report(1, tree)
    net.ok(FINDER, challenge())
    assert net.module_wei("settlement") == 1
    result = net.ok(RESPONDER, answer(1, tree.proof(0)))
    assert net.module_wei("settlement") == 0
    assert dict(next(attributes for kind, attributes in result.events if kind.endswith("EventAnswerChallenge")))["bond_wei"] == '"0"'


def test_an_epoch_has_at_most_so_many_open_challenges_and_all_of_them_end_with_it(net: Net) -> None:
    net.report(1, tree_of(net, MAX_CHALLENGES_OF_EPOCH + 1))
    most = [challenge(index=index) for index in range(MAX_CHALLENGES_OF_EPOCH)]
    net.ok(FINDER, *most)
    assert net.refusal(FINDER, challenge(index=MAX_CHALLENGES_OF_EPOCH))[0] == ("settlement", errors.TooManyChallenges.code)
    assert net.module_wei("settlement") == MAX_CHALLENGES_OF_EPOCH * BOND_WEI
    for _ in range(CHALLENGE_BLOCKS):
        net.driver.next_block()
    assert (net.kept().status, net.module_wei("settlement")) == (2, 0)


def test_one_epoch_is_voided_in_a_block_and_the_next_in_the_next(net: Net) -> None:
    first, second = tree_of(net), Tree.of(traffic_leaf(net.nodes[0], 50, 10**12))
    net.report(1, first)
    net.report(2, second)
    net.ok(FINDER, challenge(1), challenge(2))
    for _ in range(CHALLENGE_BLOCKS):
        net.driver.next_block()
    assert (net.kept(1).status, net.kept(2).status) == (2, 1)
    late = net.run(RESPONDER, answer(2, second.proof(0, 2)), gas=10**7)
    assert (late.codespace, late.code) == ("settlement", errors.UnknownChallenge.code), "its deadline has passed"
    assert (net.kept(1).status, net.kept(2).status) == (2, 2)
    net.holds()


def test_rewards_that_begin_to_mature_end_open_challenges_without_a_loss() -> None:
    def later(document: dict[str, Any]) -> None:
        document["app_state"]["settlement"]["params"]["challenge_blocks"] = 1_000

    net = Net(4, change=later)
    net.report(1, tree_of(net))
    for epoch in range(2, 1 + MATURE_EPOCH):
        net.report(epoch)
    before = net.wei(text(FINDER))
    net.ok(FINDER, challenge())
    net.report(1 + MATURE_EPOCH)
    assert net.wei(text(FINDER)) == before - send_fee()
    assert (net.module_wei("settlement"), list(net.query(SETTLEMENT, "Challenges").challenges)) == (0, [])
    with pytest.raises(NotFound):
        net.kept(1)


def test_another_proof_that_voids_the_epoch_gives_the_bonds_back(net: Net) -> None:
    tree = Tree([traffic_leaf(net.nodes[0], 1, 1_000, leaf={"noz": 1_001}), traffic_leaf(net.nodes[0], 2, 1_000)])
    net.report(1, tree)
    before = net.wei(text(RESPONDER))
    net.ok(RESPONDER, challenge(index=1, finder=RESPONDER))
    net.ok(FINDER, fraud("bad_leaf", leaf=tree.proof(0)))
    assert net.wei(text(RESPONDER)) == before - send_fee()
    assert (net.kept().status, net.module_wei("settlement")) == (2, 0)


def test_challenges_are_listed_by_epoch(net: Net) -> None:
    net.report(1, tree_of(net))
    net.report(2, Tree.of(traffic_leaf(net.nodes[0], 50, 10**12)))
    net.ok(FINDER, challenge(1, 0), challenge(2, 0), challenge(1, 2), step_s=EPOCH_S)
    assert [one.challenge_id for one in net.query(SETTLEMENT, "Challenges").challenges] == [1, 2, 3]
    assert [one.challenge_id for one in net.query(SETTLEMENT, "Challenges", epoch=1).challenges] == [1, 3]
    assert [one.challenge_id for one in net.query(SETTLEMENT, "Challenges", epoch=1, pagination={"limit": 1}).challenges] == [1]
