"""Governance on a chain: the life of proposals of every kind, what is refused, and what must not stop a block."""

from __future__ import annotations

import json
from typing import Any

import pytest

from chain.app import build_application
from chain.application import Settings
from chain.codec.json import from_json, to_json
from chain.codec.registry import message_class, pack_any
from chain.crypto import address as bech32
from chain.errors import TxDecodeError, UnpackAnyError
from chain.module import GenesisError
from chain.store.kv import MemoryBackend
from modules.gov import end_block
from modules.gov.keeper import FAILED, PASSED, REJECTED, VOTING_PERIOD
from tests.modules.governing import ABSTAIN, DAY_S, EXPEDITED, MIN, NO, STAKE, STOS, VETO, YES, Net, make, pay, switch, wei
from tests.support import FUNDS_WEI, GOV, KEYS, text


def test_a_proposal_gets_its_deposit_together_is_voted_on_and_executed() -> None:
    net = Net()
    number = net.submit(switch(), deposit=MIN // 4)
    assert net.proposal(number).status == 1
    result = net.run(3, make("MsgDeposit", proposal_id=number, depositor=text(KEYS[3]), amount=wei(MIN)))
    assert ("voting_period_start", str(number)) in [pair for kind, pairs in result.events if kind == "proposal_deposit" for pair in pairs]
    assert net.proposal(number).status == VOTING_PERIOD
    assert net.held(GOV) == MIN // 4 + MIN
    net.vote(0, number, YES)
    assert net.ask("TallyResult", proposal_id=number).tally.yes_count == str(STAKE)
    ended = net.wait(6.9)
    assert not [kind for kind, _ in ended if kind == "active_proposal"]
    assert not net.is_off()
    ended = net.wait(0.1)
    assert ended[-1] == ("active_proposal", {"proposal_id": str(number), "proposal_result": "proposal_passed", "proposal_log": "passed"})
    found = net.proposal(number)
    assert (found.status, found.final_tally_result.yes_count, found.failed_reason) == (PASSED, str(STAKE), "")
    assert net.is_off()
    assert (net.held(GOV), net.spent(2), net.spent(3)) == (0, 0, 0)
    assert not net.ask("Votes", proposal_id=number).votes
    assert not net.ask("Deposits", proposal_id=number).deposits
    refused = net.run(0, make("MsgVote", proposal_id=number, voter=text(KEYS[0]), option=YES))
    assert (refused.codespace, refused.code) == ("gov", 3)


def test_messages_are_executed_all_or_none() -> None:
    net = Net()
    number = net.submit(switch(), pay(GOV, text(KEYS[3]), 5), switch("def"))
    net.vote(0, number, YES)
    kind, values = net.wait()[-1]
    assert (kind, values["proposal_result"]) == ("active_proposal", "proposal_failed")
    found = net.proposal(number)
    assert found.status == FAILED
    assert "insufficient funds" in found.failed_reason
    assert values["proposal_log"] == f"passed, but msg 1 (/cosmos.bank.v1beta1.MsgSend) failed on execution: {found.failed_reason}"
    assert not net.is_off()
    assert not [kind for kind, _ in net.ended() if kind.startswith("cosmos.")]
    assert net.spent(2) == 0


def test_a_bug_in_a_handler_fails_the_proposal_and_not_the_chain(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net()
    number = net.submit(switch())
    net.vote(0, number, YES)
    router = next(module for module in net.app.modules if module.name == "gov").end_block.args[0].router

    def broken(*_: Any) -> Any:
        raise ZeroDivisionError

    handler = router._handlers["cosmos.bank.v1beta1.MsgSetSendEnabled"]
    monkeypatch.setitem(router._handlers, "cosmos.bank.v1beta1.MsgSetSendEnabled", type(handler)(broken, handler.check_stateless))
    net.wait()
    found = net.proposal(number)
    assert found.status == FAILED
    assert found.failed_reason.startswith("handling x/gov proposal msg [/cosmos.bank.v1beta1.MsgSetSendEnabled] PANICKED")
    net.driver.next_block()


@pytest.mark.parametrize("burn", [False, True])
def test_a_proposal_without_its_deposit_is_dropped(burn: bool) -> None:
    net = Net(burn_proposal_deposit_prevote=burn)
    supply = net.supply()
    number = net.submit(deposit=MIN // 2)
    assert net.wait(14)[-1] == ("inactive_proposal", {"proposal_id": str(number), "proposal_result": "proposal_dropped"})
    assert not net.ask("Proposals").proposals
    assert (net.held(GOV), net.spent(2), supply - net.supply()) == (0, *((MIN // 2, MIN // 2) if burn else (0, 0)))


@pytest.mark.parametrize(
    ("votes", "params", "status", "burned"),
    [
        ({0: [YES]}, {}, PASSED, False),
        ({0: [NO]}, {}, REJECTED, False),
        ({0: [ABSTAIN]}, {}, REJECTED, False),
        ({}, {}, REJECTED, False),
        ({}, {"burn_vote_quorum": True}, REJECTED, True),
        ({3: [YES]}, {"quorum": "0.26"}, REJECTED, False),  # a quarter of the stake votes
        ({3: [YES]}, {"quorum": "0.25"}, PASSED, False),
        ({3: [YES]}, {"quorum": "0.26", "burn_vote_quorum": True}, REJECTED, True),
        ({0: [YES], 3: [NO]}, {}, PASSED, False),  # a delegator's vote leaves his validator's
        ({0: [YES], 2: [NO], 3: [NO]}, {}, REJECTED, False),
        ({0: [YES], 2: [ABSTAIN], 3: [NO]}, {}, REJECTED, False),  # a quarter against a quarter is not more than half
        ({0: [YES], 2: [ABSTAIN], 3: [ABSTAIN]}, {}, PASSED, False),
        ({0: [YES], 3: [VETO]}, {}, PASSED, False),
        ({0: [YES], 2: [VETO]}, {}, REJECTED, True),
        ({0: [YES], 2: [VETO]}, {"burn_vote_veto": False}, REJECTED, False),
        ({0: [YES], 2: [VETO]}, {"veto_threshold": "0.5"}, REJECTED, False),
        ({0: [(YES, "0.7"), (NO, "0.3")]}, {}, PASSED, False),
        ({0: [(YES, "0.5"), (NO, "0.5")]}, {}, REJECTED, False),
        ({0: [(YES, "0.5"), (NO, "0.5")]}, {"threshold": "0.499999999999999999"}, PASSED, False),
        ({0: [(YES, "0.6"), (VETO, "0.4")]}, {}, REJECTED, True),
        ({4: [YES]}, {}, REJECTED, False),  # without stake
    ],
)
def test_votes_decide(votes: dict[int, list[Any]], params: dict[str, Any], status: int, burned: bool) -> None:
    """Of the stake KEYS[0], the validator, has a quarter, KEYS[2] a half, KEYS[3] a quarter."""
    net = Net({2: 2 * STOS, 3: STOS}, **params)
    supply = net.supply()
    number = net.submit(proposer=5)
    for voter, options in votes.items():
        net.vote(voter, number, *options)
    running = net.ask("TallyResult", proposal_id=number).tally
    net.wait()
    found = net.proposal(number)
    assert found.status == status
    assert found.final_tally_result == running
    assert found.failed_reason == ("" if status == PASSED else "proposal did not get enough votes to pass")
    assert (supply - net.supply(), net.spent(5)) == ((MIN, MIN) if burned else (0, 0))


def test_powers_are_rounded_as_legacy_decimals() -> None:
    """After a slash a share is worth a third less than a wei: 10^18 shares of 3·10^18 with 2·10^18 + 1 wei."""
    net = Net({2: STOS, 3: STOS})
    with net.app.store.view() as view:
        raw = view.store("staking").get(b"\x21\x14" + KEYS[0].public_key.address)
    validator = message_class("cosmos.staking.v1beta1.Validator").FromString(raw)
    validator.tokens = str(2 * STOS + 1)
    keeper = next(module for module in net.app.modules if module.name == "gov").end_block.args[0]

    class Stake:
        def bonded_by_power(self, state: Any) -> Any:
            return iter([validator])

        def delegations_of(self, state: Any, delegator: bytes, limit: int | None = None) -> Any:
            return stake.delegations_of(state, delegator)

        def total_bonded(self, state: Any) -> int:
            return 2 * STOS + 1

    stake, keeper.stake = keeper.stake, Stake()
    number = net.submit(proposer=5)
    net.vote(2, number, (YES, "0.5"), (NO, "0.5"))
    third = 666_666_666_666_666_667  # (2·10^18 + 1) / 3, exactly
    assert net.ask("TallyResult", proposal_id=number).tally.yes_count == str(third // 2)
    net.vote(0, number, YES)  # the rest: two thirds, of his own and of KEYS[3]
    tally = net.ask("TallyResult", proposal_id=number).tally
    assert (tally.yes_count, tally.no_count) == (str((2 * third * 2 + third) // 2), str(third // 2))


def test_an_expedited_proposal_passes_early_or_becomes_an_ordinary_one() -> None:
    net = Net({2: 2 * STOS, 3: STOS})
    early = net.submit(switch(), deposit=EXPEDITED, expedited=True)
    late = net.submit(switch("def"), deposit=EXPEDITED, expedited=True)
    for number, option in ((early, YES), (late, NO)):
        net.vote(2, number, YES)
        net.vote(3, number, option)
    net.vote(0, early, YES)
    results = [values["proposal_result"] for kind, values in net.wait(1) if kind == "active_proposal"]
    assert results == ["proposal_passed", "expedited_proposal_rejected"]
    found = net.proposal(late)
    assert (found.status, found.expedited) == (VOTING_PERIOD, False)
    assert found.voting_end_time.seconds - found.voting_start_time.seconds == 7 * DAY_S
    assert found.final_tally_result.yes_count == str(2 * STOS)
    assert (net.is_off(), net.held(GOV)) == (True, EXPEDITED)
    assert not net.ask("Votes", proposal_id=late).votes, "who voted has to vote again"
    net.vote(2, late, YES)
    net.wait(6)
    assert net.proposal(late).status == PASSED
    assert net.is_off("def")
    assert net.held(GOV) == 0


def test_an_expedited_proposal_needs_the_larger_deposit() -> None:
    net = Net()
    number = net.submit(deposit=MIN, expedited=True)
    assert net.proposal(number).status == 1


@pytest.mark.parametrize("target", ["", "account", "pool"])
def test_a_cancelled_proposal_costs_half_of_its_deposits(target: str) -> None:
    pool = bech32.encode(bech32.module_address("distribution"))
    net = Net(proposal_cancel_dest={"": "", "account": text(KEYS[4]), "pool": pool}[target])
    supply = net.supply()
    number = net.submit(deposit=MIN + 1)
    assert net.run(3, make("MsgDeposit", proposal_id=number, depositor=text(KEYS[3]), amount=wei(2 * STOS))).code == 0
    net.vote(0, number, YES)
    other = net.run(3, make("MsgCancelProposal", proposal_id=number, proposer=text(KEYS[3])))
    assert (other.codespace, other.code) == ("gov", 18)
    result = net.run(2, make("MsgCancelProposal", proposal_id=number, proposer=text(KEYS[2])))
    assert result.code == 0, result.log
    kind, pairs = result.events[-1]
    assert (kind, pairs[:2]) == ("cancel_proposal", (("sender", text(KEYS[2])), ("proposal_id", str(number))))
    charged = MIN // 2 + STOS
    assert (net.spent(2), net.spent(3), net.held(GOV)) == (MIN // 2, STOS, 0)
    assert supply - net.supply() == (0 if target else charged)
    if target == "account":
        assert net.held(text(KEYS[4])) == FUNDS_WEI + charged
    if target == "pool":
        [coin] = net.ask("CommunityPool", "cosmos.distribution.v1beta1").pool
        assert int(coin.amount) == charged * 10**18
    assert not net.ask("Proposals").proposals
    assert not net.ask("Votes", proposal_id=number).votes
    again = net.run(2, make("MsgCancelProposal", proposal_id=number, proposer=text(KEYS[2])))
    assert (again.codespace, again.code) == ("undefined", 1)
    net.wait()


def test_decided_proposals_cannot_be_cancelled_or_deposited_on() -> None:
    net = Net()
    number = net.submit()
    net.wait()
    for who, message in (
        (2, make("MsgCancelProposal", proposal_id=number, proposer=text(KEYS[2]))),
        (3, make("MsgDeposit", proposal_id=number, depositor=text(KEYS[3]), amount=wei(MIN))),
    ):
        refused = net.run(who, message)
        assert (refused.codespace, refused.code) == ("gov", 21 if who == 2 else 3)


def test_a_later_vote_replaces_an_earlier_one() -> None:
    net = Net()
    number = net.submit()
    net.vote(0, number, NO)
    net.vote(0, number, (YES, "0.25"), (ABSTAIN, "0.75"))
    [vote] = net.ask("Votes", proposal_id=number).votes
    assert [(one.option, one.weight) for one in vote.options] == [(YES, "0.25"), (ABSTAIN, "0.75")]
    tally = net.ask("TallyResult", proposal_id=number).tally
    assert (tally.yes_count, tally.abstain_count, tally.no_count) == (str(STAKE // 4), str(STAKE // 4 * 3), "0")


def test_old_messages_and_queries_do_the_same() -> None:
    old = "cosmos.gov.v1beta1"
    net = Net()
    content = message_class(f"{old}.TextProposal")(title="A title", description="words")
    result = net.run(2, make("MsgSubmitProposal", old, content=pack_any(content), initial_deposit=wei(MIN // 2), proposer=text(KEYS[2])))
    assert result.code == 0, result.log
    assert net.run(3, make("MsgDeposit", old, proposal_id=1, depositor=text(KEYS[3]), amount=wei(MIN // 2))).code == 0
    weighted = make("MsgVoteWeighted", old, proposal_id=1, voter=text(KEYS[3]), options=[{"option": YES, "weight": str(10**18)}])
    assert net.run(3, weighted).code == 0
    assert net.run(0, make("MsgVote", old, proposal_id=1, voter=text(KEYS[0]), option=YES)).code == 0
    found = net.ask("Proposal", old, proposal_id=1).proposal
    assert message_class(f"{old}.TextProposal").FromString(found.content.value) == content
    assert (found.status, found.total_deposit[0].amount) == (VOTING_PERIOD, str(MIN))
    [mine, _] = sorted(net.ask("Votes", old, proposal_id=1).votes, key=lambda vote: vote.voter != text(KEYS[0]))
    assert [(one.option, one.weight) for one in mine.options] == [(YES, str(10**18))]
    assert net.ask("TallyResult", old, proposal_id=1).tally.yes == str(STAKE)
    assert to_json(net.ask("Params", old, params_type="tallying"))["tally_params"]["quorum"] == "0.334000000000000000"
    net.wait()
    assert net.ask("Proposal", old, proposal_id=1).proposal.status == PASSED


def test_a_grant_to_the_gov_account_can_be_used_by_a_proposal() -> None:
    """A message in a MsgExec in a proposal: the gov account is the grantee. Without the grant it fails, and nothing else does."""
    net = Net()
    inner = pay(text(KEYS[3]), text(KEYS[4]), 7)
    execute = make("MsgExec", "cosmos.authz.v1beta1", grantee=GOV, msgs=[pack_any(inner)])
    first = net.submit(execute)
    grant = make("MsgGrant", "cosmos.authz.v1beta1", granter=text(KEYS[3]), grantee=GOV)
    grant.grant.authorization.CopyFrom(pack_any(make("GenericAuthorization", "cosmos.authz.v1beta1", msg="/cosmos.bank.v1beta1.MsgSend")))
    net.vote(0, first, YES)
    net.wait()
    assert net.proposal(first).status == FAILED
    assert net.run(3, grant).code == 0
    second = net.submit(execute)
    net.vote(0, second, YES)
    net.wait()
    assert net.proposal(second).status == PASSED, net.proposal(second).failed_reason
    assert net.held(text(KEYS[4])) == FUNDS_WEI + 7


def test_parameters_change_by_a_proposal_and_are_checked_when_it_is_executed() -> None:
    net = Net()
    params = net.ask("Params").params
    params.quorum = "0.4"
    good = net.submit(make("MsgUpdateParams", authority=GOV, params=params))
    params.quorum = "1.4"
    bad = net.submit(make("MsgUpdateParams", authority=GOV, params=params))
    for number in (good, bad):
        net.vote(0, number, YES)
    net.wait()
    assert (net.proposal(good).status, net.proposal(bad).status) == (PASSED, FAILED)
    assert "quorum too large" in net.proposal(bad).failed_reason
    assert net.ask("Params").params.quorum == "0.4"


def submit(*messages: Any, deposit: Any = None, **fields: Any) -> Any:
    given = {"title": "t", "summary": "s", "proposer": text(KEYS[2]), **fields}
    return make("MsgSubmitProposal", messages=map(pack_any, messages), initial_deposit=wei(MIN) if deposit is None else deposit, **given)


def legacy(content: Any) -> Any:
    return make("MsgSubmitProposal", "cosmos.gov.v1beta1", content=pack_any(content), initial_deposit=wei(MIN), proposer=text(KEYS[2]))


def nested(depth: int) -> Any:
    made = submit(proposer=GOV, metadata="m")
    for _ in range(depth):
        made = submit(made, proposer=GOV)
    return submit(made)


TEXT = message_class("cosmos.gov.v1beta1.TextProposal")
CHANGE = message_class("cosmos.params.v1beta1.ParameterChangeProposal")
REFUSED: dict[str, tuple[Any, tuple[str, int]]] = {
    "no title": (submit(switch(), title=""), ("sdk", 18)),
    "no summary": (submit(switch(), summary=""), ("sdk", 18)),
    "nothing": (submit(), ("gov", 11)),
    "metadata too long": (submit(metadata="x" * 256), ("gov", 15)),
    "metadata too long in bytes": (submit(metadata="é" * 128), ("gov", 15)),
    "title too long": (submit(switch(), title="x" * 256), ("gov", 15)),
    "summary too long": (submit(switch(), summary="x" * 10_201), ("gov", 22)),
    "another title in the metadata": (submit(metadata='{"title":"u","summary":"s"}'), ("gov", 5)),
    "another summary in the metadata": (submit(metadata='{"Title":"t","SUMMARY":"r"}'), ("gov", 5)),
    "null as metadata": (submit(metadata="null"), ("gov", 5)),
    "a denom that is not taken": (submit(switch(), deposit=[{"denom": "abc", "amount": "5"}]), ("gov", 23)),
    "no deposit": (submit(switch(), deposit=[]), ("gov", 16)),
    "too small a deposit": (submit(switch(), deposit=wei(STOS - 1)), ("gov", 16)),
    "an unsorted deposit": (submit(switch(), deposit=[*wei(MIN), *wei(MIN)]), ("sdk", 10)),
    "more than there is": (submit(switch(), deposit=wei(2 * FUNDS_WEI)), ("sdk", 5)),
    "somebody else's message": (submit(pay(text(KEYS[2]), text(KEYS[3]), 5)), ("gov", 13)),
    "a message signed by two": (
        submit(make("MsgMultiSend", "cosmos.bank.v1beta1", inputs=[{"address": GOV}, {"address": text(KEYS[2])}])),
        ("gov", 13),
    ),
    "a message without a signer": (submit(make("MsgSend", "cosmos.bank.v1beta1", to_address=GOV)), ("undefined", 1)),
    "an old text for another authority": (
        submit(make("MsgExecLegacyContent", content=pack_any(TEXT(title="t")), authority=text(KEYS[2]))),
        ("gov", 13),
    ),
    "an old change of parameters": (legacy(CHANGE(title="t", description="d", changes=[{"subspace": "s", "key": "k", "value": "v"}])), ("gov", 9)),
    "an old spend": (legacy(make("CommunityPoolSpendProposal", "cosmos.distribution.v1beta1", title="t", description="d")), ("gov", 6)),
    "an old text without a title": (legacy(TEXT(title=" ", description="d")), ("gov", 5)),
    "an old text without words": (legacy(TEXT(title="t")), ("gov", 5)),
    "an old text with too long a title": (legacy(TEXT(title="x" * 141, description="d")), ("gov", 5)),
    "an old text of too many words": (legacy(TEXT(title="t", description="x" * 10_001)), ("gov", 5)),
    "no old content": (make("MsgSubmitProposal", "cosmos.gov.v1beta1", proposer=text(KEYS[2]), initial_deposit=wei(MIN)), ("gov", 5)),
    "a deposit on nothing": (make("MsgDeposit", proposal_id=9, depositor=text(KEYS[2]), amount=wei(MIN)), ("undefined", 1)),
    "a deposit of nothing": (make("MsgDeposit", proposal_id=1, depositor=text(KEYS[2])), ("sdk", 10)),
    "a vote on nothing": (make("MsgVote", proposal_id=9, voter=text(KEYS[2]), option=YES), ("gov", 3)),
    "a vote for nothing": (make("MsgVote", proposal_id=1, voter=text(KEYS[2])), ("gov", 7)),
    "a vote for what is not there": (make("MsgVote", proposal_id=1, voter=text(KEYS[2]), option=5), ("gov", 7)),
    "a vote with too long a reason": (make("MsgVote", proposal_id=1, voter=text(KEYS[2]), option=1, metadata="x" * 256), ("gov", 15)),
    "a vote without options": (make("MsgVoteWeighted", proposal_id=1, voter=text(KEYS[2])), ("sdk", 18)),
    "parameters": (make("MsgUpdateParams", authority=text(KEYS[2])), ("gov", 13)),
    "cancelling nothing": (make("MsgCancelProposal", proposal_id=9, proposer=text(KEYS[2])), ("undefined", 1)),
}
for _name, _options in {
    "less than 1": [(YES, "0.5")],
    "more than 1": [(YES, "0.5"), (NO, "0.6")],
    "one twice": [(YES, "0.5"), (YES, "0.5")],
    "a weight of 0": [(YES, "1"), (NO, "0")],
    "a negative weight": [(YES, "2"), (NO, "-1")],
    "a weight that is no number": [(YES, "one")],
    "no option": [(0, "1")],
}.items():
    _message = make("MsgVoteWeighted", proposal_id=1, voter=text(KEYS[2]), options=[{"option": one, "weight": weight} for one, weight in _options])
    REFUSED[f"weights: {_name}"] = _message, ("gov", 7)


@pytest.fixture(scope="module")
def open_net() -> Net:
    net = Net()
    net.submit()
    return net


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_is_refused(open_net: Net, name: str) -> None:
    message, expected = REFUSED[name]
    before = open_net.app.export()["gov"]
    result = open_net.run(2, message)
    assert (result.codespace, result.code) == expected, result.log
    assert open_net.app.export()["gov"] == before


def test_a_message_that_no_module_handles_is_refused(open_net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    router = next(module for module in open_net.app.modules if module.name == "gov").end_block.args[0].router
    monkeypatch.delitem(router._handlers, "cosmos.bank.v1beta1.MsgSetSendEnabled")
    result = open_net.run(2, submit(switch()))
    assert (result.codespace, result.code) == ("gov", 10)


@pytest.mark.parametrize(
    "metadata", ["free words", "[]", "7", '{"title":7}', '{"title":"t","summary":"s","authors":["x"]}', '{"authors":7}', '{"title":"t"']
)
def test_metadata_of_any_other_form_is_taken(open_net: Net, metadata: str) -> None:
    assert open_net.run(2, submit(metadata=metadata)).code == 0


@pytest.mark.parametrize(
    ("escaped", "title", "result"),
    [("\\ud800", "t", ("gov", 5)), ("\\udfff\\ud800", "\ufffd" * 2, ("", 0)), ("\\ud83d\\ude00", "\U0001f600", ("", 0))],
)
def test_half_a_surrogate_pair_in_metadata_stops_no_block(open_net: Net, escaped: str, title: str, result: tuple[str, int]) -> None:
    """JSON may name what no answer can hold: the log of the refused transaction, quoted from it, stopped every node."""
    found = open_net.run(2, submit(title=title, metadata=f'{{"title":"{escaped}","summary":"s"}}'))
    assert (found.codespace, found.code) == result, found.log


def test_proposals_within_proposals_end_somewhere(open_net: Net) -> None:
    with pytest.raises(TxDecodeError, match="nest deeper"):
        open_net.signed(2, nested(9))
    open_net.sequences[2] -= 1


def test_a_proposal_holds_nothing_but_messages(open_net: Net) -> None:
    raw = open_net.signed(2, submit(TEXT(title="t")))
    open_net.sequences[2] -= 1
    result = open_net.driver.next_block([raw], process=False).results[0]
    assert (result.codespace, result.code) == ("sdk", 2)
    assert "against interface" in result.log


def test_a_proposal_may_make_a_proposal() -> None:
    net = Net()
    outer = net.submit(submit(switch(), proposer=GOV, deposit=[]), deposit=MIN)
    net.vote(0, outer, YES)
    net.wait()
    assert net.proposal(outer).status == FAILED, "the gov account has nothing to deposit"
    assert net.app_next_id() == outer + 1


# --- what must not stop a block -------------------------------------------------------------------------------------------------


def test_proposals_that_end_together_are_dealt_with_in_several_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The queue bomb: what a block does is bounded, the rest waits, and nobody loses a deposit."""
    monkeypatch.setattr(end_block, "WORK_PER_BLOCK", 10)
    net = Net()
    made = [submit(metadata=str(at), deposit=wei(STOS if at < 20 else MIN)) for at in range(24)]
    assert net.run(2, *made, gas=20_000_000).code == 0
    ends = [len([kind for kind, _ in net.wait(14) if kind in ("inactive_proposal", "active_proposal")])]
    for _ in range(5):
        net.driver.next_block()
        ends.append(len([kind for kind, _ in net.ended() if kind in ("inactive_proposal", "active_proposal")]))
    assert ends == [5, 5, 5, 5, 4, 0]
    assert net.held(GOV) == 0
    assert [one.id for one in net.ask("Proposals").proposals] == [21, 22, 23, 24]


def test_a_deposit_that_cannot_be_paid_back_does_not_stop_the_chain() -> None:
    """A proposal sends away what others deposited."""
    net = Net(invariant_period=0)
    thief = net.submit(pay(GOV, text(KEYS[4]), MIN // 2))
    victim = net.submit(deposit=MIN // 2)
    net.vote(0, thief, YES)
    net.wait(7)
    assert net.proposal(thief).status == PASSED
    assert net.wait(7)[-1] == ("inactive_proposal", {"proposal_id": str(victim), "proposal_result": "proposal_dropped"})
    assert (net.held(GOV), net.spent(2)) == (0, MIN // 2)
    assert not net.ask("Deposits", proposal_id=victim).deposits


def test_a_proposal_that_cancels_another_one_in_the_same_block() -> None:
    net = Net()
    first = net.submit(make("MsgCancelProposal", proposal_id=2, proposer=GOV))
    second = net.submit()
    for number in (first, second):
        net.vote(0, number, YES)
    net.wait()
    assert (net.proposal(first).status, net.proposal(second).status) == (FAILED, PASSED), "it is not the gov account's"


@pytest.mark.parametrize("active", [True, False])
def test_a_proposal_that_cannot_be_read_any_more_fails(active: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net()
    number = net.submit(switch(), deposit=MIN if active else STOS)

    def gone(_: Any) -> Any:
        raise UnpackAnyError("no concrete type registered")

    monkeypatch.setattr(end_block, "unpack_any", gone)
    kind, values = net.wait(14)[-1]
    assert (kind, values) == (
        "active_proposal" if active else "inactive_proposal",
        {"proposal_id": str(number), "proposal_result": "proposal_failed"},
    )
    assert net.spent(2) == 0
    found = net.ask("Proposals").proposals
    assert [(one.status, len(one.messages)) for one in found] == ([(FAILED, 0)] if active else [])
    net.driver.next_block()


class Listener:
    """Hooks that write down what they are told, and fail at the end of a block if asked."""

    def __init__(self, fails: bool = False) -> None:
        self.heard: list[tuple[Any, ...]] = []
        self._fails = fails

    def after_proposal_submission(self, ctx: Any, state: Any, proposal_id: int) -> None:
        self.heard.append(("submitted", proposal_id))

    def after_proposal_deposit(self, ctx: Any, state: Any, proposal_id: int, depositor: bytes) -> None:
        self.heard.append(("deposit", proposal_id, depositor))

    def after_proposal_vote(self, ctx: Any, state: Any, proposal_id: int, voter: bytes) -> None:
        self.heard.append(("vote", proposal_id, voter))

    def after_proposal_failed_min_deposit(self, ctx: Any, state: Any, proposal_id: int) -> None:
        self._ended(ctx, state, "dropped", proposal_id)

    def after_proposal_voting_period_ended(self, ctx: Any, state: Any, proposal_id: int) -> None:
        self._ended(ctx, state, "decided", proposal_id)

    def _ended(self, ctx: Any, state: Any, what: str, proposal_id: int) -> None:
        self.heard.append((what, proposal_id))
        if self._fails:
            state.store("gov").set(b"\xff", b"\x01")
            ctx.events.emit("never", ("seen", "1"))
            raise ValueError


def test_hooks_hear_of_everything_and_cannot_stop_a_block() -> None:
    net = Net()
    failing, listener = Listener(fails=True), Listener()
    next(module for module in net.app.modules if module.name == "gov").end_block.args[0].set_hooks((failing, listener))
    number = net.submit()
    net.submit(deposit=STOS)
    net.vote(0, number, YES)
    net.wait(7)
    assert not [kind for kind, _ in net.ended() if kind == "never"]
    net.wait(7)
    someone, voter = KEYS[2].public_key.address, KEYS[0].public_key.address
    assert listener.heard == failing.heard
    assert listener.heard == [
        ("submitted", 1),
        ("deposit", 1, someone),
        ("submitted", 2),
        ("deposit", 2, someone),
        ("vote", 1, voter),
        ("decided", 1),
        ("dropped", 2),
    ]
    with net.app.store.view() as view:
        assert view.store("gov").get(b"\xff") is None


# --- genesis and queries ---------------------------------------------------------------------------------------------------------


def test_a_chain_goes_on_from_its_export_with_proposals_in_flight() -> None:
    net = Net({2: STOS})
    decided, voted, waiting = net.submit(), net.submit(switch()), net.submit(deposit=STOS)
    net.wait(6)
    late = net.submit(switch("def"))
    net.vote(0, voted, (YES, "0.9"), (NO, "0.1"))
    net.vote(2, late, YES)
    assert net.run(2, make("MsgCancelProposal", proposal_id=decided, proposer=text(KEYS[2]))).code == 0
    exported = net.app.export()
    genesis = {**net.driver.genesis, "app_state": {**exported, "genutil": {"gen_txs": []}}, "genesis_time": "2026-01-07T01:00:00Z"}
    sequences, net = net.sequences, Net()
    net.start(build_application(MemoryBackend(), Settings(invariant_period=1)), json.loads(json.dumps(genesis)), sequences)
    assert net.app.export()["gov"] == exported["gov"]
    net.vote(0, late, YES)
    net.wait(1)
    assert net.proposal(voted).status == PASSED
    net.wait(6)
    assert net.proposal(late).status == PASSED
    assert (net.is_off("abc"), net.is_off("def")) == (True, True)
    net.wait(7)
    assert [one.id for one in net.ask("Proposals").proposals] == [voted, late]
    assert net.held(GOV) == 0
    assert net.submit() == waiting + 2


def section(**changes: Any) -> Any:
    net = Net()
    net.submit()
    net.vote(0, 1, YES)
    made = net.app.export()["gov"]
    for path, value in changes.items():
        *parents, name = path.split("__")
        target = made
        for part in parents:
            target = target[int(part) if part.isdigit() else part]
        target[name] = value
    return made


@pytest.mark.parametrize(
    ("path", "value", "where"),
    [
        ("starting_proposal_id", "0", "starting_proposal_id"),
        ("starting_proposal_id", "1", "proposals[0]"),
        ("params__quorum", "2", "params"),
        ("params__min_deposit", [], "params"),
        ("params__expedited_voting_period", "604800s", "params"),
        ("params__expedited_threshold", "0.5", "params"),
        ("params__expedited_min_deposit", [{"denom": "wei", "amount": "1"}], "params"),
        ("params__voting_period", None, "params"),
        ("params__max_deposit_period", "0s", "params"),
        ("params__veto_threshold", "0", "params"),
        ("params__min_deposit_ratio", "", "params"),
        ("params__proposal_cancel_dest", "nobody", "params"),
        ("proposals__0__voting_end_time", None, "proposals[0]"),
        ("proposals__0__messages", [{"@type": "/no.Such"}], ""),
        ("votes__0__proposal_id", "7", "votes[0]"),
        ("votes__0__voter", "nobody", "votes[0]"),
        ("votes__0__options", [], "votes[0]"),
        ("votes__0__options", [{"option": "VOTE_OPTION_YES", "weight": "much"}], "votes[0]"),
        ("deposits__0__proposal_id", "7", "deposits[0]"),
        ("deposits__0__amount", [{"denom": "wei", "amount": "-1"}], "deposits[0]"),
    ],
)
def test_a_bad_section_is_refused_by_the_name_of_its_field(path: str, value: Any, where: str) -> None:
    genesis = next(module for module in build_application(MemoryBackend()).modules if module.name == "gov").genesis
    assert genesis is not None
    genesis.validate(section())
    with pytest.raises(GenesisError) as refused:
        genesis.validate(section(**{path: value}))
    assert refused.value.path.startswith(f"app_state.gov.{where}" if where else "app_state.gov")


def test_a_section_whose_deposits_nobody_holds_is_refused() -> None:
    net = Net()
    net.submit()
    exported = net.app.export()
    exported["gov"]["deposits"][0]["amount"][0]["amount"] = str(MIN + 1)
    genesis = {**net.driver.genesis, "app_state": {**exported, "genutil": {"gen_txs": []}}}
    with pytest.raises(GenesisError, match="to hold the deposits"):
        net.start(build_application(MemoryBackend()), genesis)


def test_lists_of_proposals_are_filtered_and_paged() -> None:
    net = Net()
    for at in range(5):
        net.submit(deposit=MIN if at % 2 else STOS, proposer=2 + at % 2)
    net.vote(0, 2, YES)

    def listed(**fields: Any) -> list[int]:
        return [one.id for one in net.ask("Proposals", **fields).proposals]

    assert listed() == [1, 2, 3, 4, 5]
    assert listed(proposal_status=VOTING_PERIOD) == [2, 4]
    assert listed(depositor=text(KEYS[2])) == [1, 3, 5]
    assert listed(voter=text(KEYS[0])) == [2]
    assert listed(voter=text(KEYS[0]), depositor=text(KEYS[2])) == []
    assert listed(pagination={"limit": 2, "reverse": True}) == [5, 4]
    assert listed(pagination={"limit": 2, "offset": 1}) == [2, 3]
    page = net.ask("Proposals", pagination={"limit": 2, "count_total": True}).pagination
    assert (page.total, listed(pagination={"key": page.next_key})) == (5, [3, 4, 5])


def test_params_come_whole_and_in_parts() -> None:
    net = Net()
    old = net.ask("Params", "cosmos.gov.v1beta1", params_type="tallying")
    assert from_json(type(old), to_json(old)).tally_params == old.tally_params
    whole = net.ask("Params").params
    assert (whole.min_deposit[0].amount, whole.expedited_min_deposit[0].amount) == (str(MIN), str(EXPEDITED))
    assert (whole.max_deposit_period.seconds, whole.voting_period.seconds) == (14 * DAY_S, 7 * DAY_S)
    for kind, field in (("deposit", "deposit_params"), ("voting", "voting_params"), ("tallying", "tally_params")):
        answer = net.ask("Params", params_type=kind)
        assert [name.name for name, _ in answer.ListFields()] == [field, "params"]
    assert net.ask("Constitution").constitution == ""
