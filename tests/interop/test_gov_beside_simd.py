"""gov beside simd: the same messages with their codes, events and gas, what becomes of proposals when their periods end, and every query."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from chain.api.comet import CometClient
from chain.authority import GOV_ADDRESS
from chain.codec.registry import message_class, pack_any
from chain.crypto import address as bech32
from tests.interop.pair import Side, neutral, pair
from tests.interop.test_staking_beside_simd import Told, events
from tests.support import ask_until

pytestmark = [pytest.mark.interop, pytest.mark.timeout(900)]
MIN_WEI, EXPEDITED_WEI = 10_000_000, 50_000_000
PARAMS = {
    "min_deposit": [{"denom": "wei", "amount": str(MIN_WEI)}],
    "expedited_min_deposit": [{"denom": "wei", "amount": str(EXPEDITED_WEI)}],
    "max_deposit_period": "110s",
    "voting_period": "150s",
    "expedited_voting_period": "120s",
}


OPEN_STEPS = 29


def wei(amount: int, denom: str = "wei") -> list[dict[str, str]]:
    return [{"denom": denom, "amount": str(amount)}]


class Governing(Told):
    """A side that runs through proposals of every kind."""

    def __init__(self, side: Side) -> None:
        super().__init__(side)
        self.sequences = {"c": 0, "d": 0, "val": 1}
        self.asked: dict[str, tuple[int, Any]] = {}

    def steps(self) -> list[tuple[str, Any]]:
        """(sender, how the message is made) in order: what needs open proposals first, from ``OPEN_STEPS`` on what is refused by itself."""
        c, d, val = (self.side.address(name) for name in ("c", "d", "val"))
        gov = bech32.encode(GOV_ADDRESS, self.side.prefix)

        def make(name: str, package: str = "cosmos.gov.v1", **fields: Any) -> Any:
            return lambda: message_class(f"{package}.{name}")(**fields)

        def submit(deposit: int, *messages: Any, denom: str = "wei", **fields: Any) -> Any:
            given = {"title": "t", "summary": "s", "proposer": c, "messages": [pack_any(one()) for one in messages], **fields}
            return make("MsgSubmitProposal", initial_deposit=wei(deposit, denom) if deposit else [], **given)

        def pay(sender: str, amount: int) -> Any:
            return make("MsgSend", "cosmos.bank.v1beta1", from_address=sender, to_address=c, amount=wei(amount))

        def vote(number: int, option: int, voter: str, metadata: str = "") -> Any:
            return make("MsgVote", proposal_id=number, voter=voter, option=option, metadata=metadata)

        def weighted(number: int, *options: tuple[int, str], voter: str = d) -> Any:
            return make("MsgVoteWeighted", proposal_id=number, voter=voter, options=[{"option": one, "weight": weight} for one, weight in options])

        def give(number: int, amount: int, denom: str = "wei") -> Any:
            return make("MsgDeposit", proposal_id=number, depositor=d, amount=wei(amount, denom))

        def legacy(content: Any, deposit: int = MIN_WEI) -> Any:
            return make("MsgSubmitProposal", "cosmos.gov.v1beta1", content=pack_any(content), initial_deposit=wei(deposit), proposer=c)

        def text(title: str = "old", description: str = "text") -> Any:
            return message_class("cosmos.gov.v1beta1.TextProposal")(title=title, description=description)

        params = make("MsgUpdateParams", "cosmos.bank.v1beta1", authority=gov, params={"default_send_enabled": True})
        spend = message_class("cosmos.distribution.v1beta1.CommunityPoolSpendProposal")(title="t", description="d", recipient=c, amount=wei(1))
        exec_text = make("MsgExecLegacyContent", content=pack_any(text()), authority=gov)
        exec_spend = make("MsgExecLegacyContent", content=pack_any(spend), authority=gov)
        return [
            ("c", submit(MIN_WEI, pay(gov, 10**20))),  # 1: passes and fails
            ("c", submit(MIN_WEI // 2, metadata="a text")),  # 2: gets its deposit, is rejected
            ("c", legacy(text())),  # 3: passes
            ("c", submit(EXPEDITED_WEI, params, expedited=True)),  # 4: becomes an ordinary one, is rejected
            ("c", submit(MIN_WEI // 4, metadata='{"title":"t","summary":"s","authors":["x"]}')),  # 5: never gets its deposit
            ("c", submit(MIN_WEI, params, exec_text)),  # 6: cancelled
            ("c", submit(MIN_WEI, params, exec_text)),  # 7: passes and is executed
            ("d", give(2, MIN_WEI // 4)),
            ("d", give(2, MIN_WEI // 4)),
            ("d", give(5, MIN_WEI // 100)),
            ("d", weighted(2, (1, "0.5"), (2, "0.25"), (3, "0.25"))),
            ("d", vote(6, 1, d, "because")),
            ("d", vote(4, 4, d)),
            ("d", make("MsgVote", "cosmos.gov.v1beta1", proposal_id=1, voter=d, option=3)),
            ("d", make("MsgVoteWeighted", "cosmos.gov.v1beta1", proposal_id=1, voter=d, options=[{"option": 1, "weight": str(10**18)}])),
            ("d", make("MsgDeposit", "cosmos.gov.v1beta1", proposal_id=1, depositor=d, amount=wei(MIN_WEI))),
            ("d", make("MsgCancelProposal", proposal_id=6, proposer=d)),
            ("c", make("MsgCancelProposal", proposal_id=6, proposer=c)),
            ("c", make("MsgCancelProposal", proposal_id=6, proposer=c)),
            ("val", vote(1, 1, val)),
            ("val", vote(3, 1, val)),
            ("val", vote(7, 1, val)),
            ("val", weighted(2, (1, "0.4"), (3, "0.35"), (2, "0.25"), voter=val)),
            ("d", give(99, MIN_WEI)),
            ("d", give(1, MIN_WEI, "abc")),
            ("d", give(1, MIN_WEI // 100 - 1)),
            ("d", vote(99, 1, d)),
            ("d", vote(5, 1, d)),
            ("d", vote(1, 1, d, "x" * 256)),
            ("d", vote(1, 0, d)),
            ("d", vote(1, 7, d)),
            ("d", weighted(1)),
            ("d", weighted(1, (1, "0.5"))),
            ("d", weighted(1, (1, "0.5"), (2, "0.6"))),
            ("d", weighted(1, (1, "0.5"), (1, "0.5"))),
            ("d", weighted(1, (1, "1.5"))),
            ("d", weighted(1, (1, "half"))),
            ("d", weighted(1, (0, "1"))),
            ("c", submit(MIN_WEI, params, title="")),
            ("c", submit(MIN_WEI, params, summary="")),
            ("c", submit(MIN_WEI)),
            ("c", submit(MIN_WEI, metadata='{"title":"other","summary":"s"}')),
            ("c", submit(MIN_WEI, metadata='{"TITLE":"t","summary":"other"}')),
            ("c", submit(MIN_WEI, metadata="null")),
            ("c", submit(MIN_WEI, params, metadata="x" * 256)),
            ("c", submit(MIN_WEI, params, title="x" * 256)),
            ("c", submit(MIN_WEI, params, summary="x" * 10_201)),
            ("c", submit(MIN_WEI, params, denom="abc")),
            ("c", submit(0, params)),
            ("c", submit(1, params)),
            ("c", submit(MIN_WEI, pay(c, 1))),
            ("c", submit(MIN_WEI, pay("nobody", 1))),
            ("c", submit(MIN_WEI, exec_spend)),
            ("c", submit(MIN_WEI, make("MsgExecLegacyContent", content=pack_any(text()), authority=c))),
            ("c", submit(MIN_WEI, make("MsgExecLegacyContent", content=pack_any(text()), authority="nobody"))),
            ("c", legacy(text(" "))),
            ("c", legacy(text("x" * 141))),
            ("c", legacy(text("t", "x" * 10_001))),
            ("c", legacy(spend)),
            ("c", make("MsgUpdateParams", authority=c, params={})),
        ]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Side, Side]]:
    with pair(tmp_path_factory.mktemp("pair"), gov=PARAMS) as sides:
        yield sides


QUERIES = [
    "v1/constitution",
    "v1/params/deposit",
    "v1/params/voting",
    "v1/params/tallying",
    "v1/params/other",
    "v1/proposals",
    "v1/proposals?proposal_status=PROPOSAL_STATUS_DEPOSIT_PERIOD",
    "v1/proposals?voter=ME",
    "v1/proposals?depositor=ME",
    "v1/proposals?pagination.limit=2&pagination.count_total=true",
    "v1/proposals?pagination.limit=2&pagination.reverse=true",
    "v1/proposals?depositor=ME&pagination.limit=1&pagination.count_total=true",
    "v1/proposals/1",
    "v1/proposals/4",
    "v1/proposals/6",
    "v1/proposals/0",
    "v1/proposals/1/votes",
    "v1/proposals/1/votes/ME",
    "v1/proposals/3/votes/ME",
    "v1/proposals/1/votes/nobody",
    "v1/proposals/2/deposits",
    "v1/proposals/2/deposits/ME",
    "v1/proposals/3/deposits/ME",
    "v1/proposals/1/tally",
    "v1/proposals/2/tally",
    "v1/proposals/5/tally",
    "v1/proposals/99/tally",
    "v1beta1/params/deposit",
    "v1beta1/params/voting",
    "v1beta1/params/tallying",
    "v1beta1/params/other",
    "v1beta1/proposals/1",
    "v1beta1/proposals/2",
    "v1beta1/proposals/3",
    "v1beta1/proposals/99",
    "v1beta1/proposals?pagination.limit=1",
    "v1beta1/proposals/2/votes",
    "v1beta1/proposals/2/votes/ME",
    "v1beta1/proposals/2/deposits",
    "v1beta1/proposals/2/deposits/ME",
    "v1beta1/proposals/2/tally",
]
FOR_THE_ASKER = ("v1/proposals/1/votes/nobody", "v1beta1/proposals/2")
"""Questions that are wrong: simd says that it failed itself."""
TIMES = ("submit_time", "deposit_end_time", "voting_start_time", "voting_end_time")


def answers(side: Governing, path: str) -> tuple[int, Any]:
    found = httpx.get(f"{side.side.rest}/cosmos/gov/{path.replace('ME', side.side.address('d'))}")
    text = neutral(found.text)
    for name in TIMES:
        text = re.sub(rf'"{name}":"2[^"]*"', f'"{name}":"a time"', text)
    return found.status_code, json.loads(text)


@pytest.fixture(scope="module")
def told(both: tuple[Side, Side]) -> tuple[Governing, Governing]:
    """Both sides after all steps; what they answered while the proposals were open is in ``asked``."""
    sides = Governing(both[0]), Governing(both[1])
    for at, ((sender, theirs), (_, ours)) in enumerate(zip(*(side.steps() for side in sides), strict=True)):
        if at == OPEN_STEPS:
            for side in sides:
                side.asked = {path: answers(side, path) for path in QUERIES}
        for side, make in zip(sides, (theirs, ours), strict=True):
            side.send(sender, make())
    return sides


def ends(side: Governing, proposals: int) -> dict[str, Any]:
    """By proposal and what became of it: the events of the end of its period. Waits until there are as many as asked for."""

    def found() -> dict[str, Any]:
        client = CometClient(side.side.rpc)
        listed: dict[str, Any] = {}
        for kind in ("active_proposal", "inactive_proposal"):
            for block in client.call("block_search", query=f"{kind}.proposal_id EXISTS", per_page="50")["blocks"]:
                segment: list[Any] = []
                results = client.call("block_results", height=block["block"]["header"]["height"])
                for event in results["finalize_block_events"]:
                    pairs = [(pair["key"], pair["value"]) for pair in event["attributes"] if pair["key"] != "mode"]
                    if ("mode", "EndBlock") not in [(pair["key"], pair["value"]) for pair in event["attributes"]]:
                        continue
                    segment.append((event["type"], pairs))
                    if event["type"] in ("active_proposal", "inactive_proposal"):
                        values = dict(pairs)
                        listed[f"{values['proposal_id']} {values['proposal_result']}"] = json.loads(neutral(json.dumps(segment)))
                        segment = []
        client.close()
        return listed if len(listed) >= proposals else {}

    return ask_until(found, 300)  # type: ignore[no-any-return]


def test_messages_have_simds_codes_and_events(told: tuple[Governing, Governing]) -> None:
    for at, (theirs, ours) in enumerate(zip(told[0].outcomes, told[1].outcomes, strict=True)):
        assert (ours.get("codespace", ""), ours["code"]) == (theirs.get("codespace", ""), theirs["code"]), (at, ours["log"], theirs["log"])
        assert events(ours) == events(theirs), at


def test_messages_take_simds_gas(told: tuple[Governing, Governing]) -> None:
    """What differs is the length of addresses: our prefix has four characters less, in transactions and in what is stored."""
    used = [tuple(int(one["gas_used"]) for one in both) for both in zip(told[0].outcomes, told[1].outcomes, strict=True)]
    assert not [(at, theirs, ours) for at, (theirs, ours) in enumerate(used) if not 0 <= theirs - ours <= theirs // 40]


@pytest.mark.parametrize("path", QUERIES)
def test_queries_answer_as_simds(told: tuple[Governing, Governing], path: str) -> None:
    (their_status, theirs), (status, ours) = (side.asked[path] for side in told)
    if path in FOR_THE_ASKER:
        assert (their_status, status) == (500, 400)
    else:
        assert (status, ours) == (their_status, theirs)


def test_proposals_end_as_simds(told: tuple[Governing, Governing]) -> None:
    theirs, ours = (ends(side, 7) for side in told)
    assert sorted(ours) == sorted(theirs)
    for name, found in ours.items():
        assert found == theirs[name], name
    assert {name.partition(" ")[2] for name in ours} == {
        "proposal_passed",
        "proposal_rejected",
        "proposal_failed",
        "proposal_dropped",
        "expedited_proposal_rejected",
    }
    for path in ("v1/proposals", "v1/proposals/1/tally", "v1/proposals/2", "v1/proposals/2/votes", "v1/proposals/2/deposits", "v1/proposals/5"):
        assert answers(told[1], path) == answers(told[0], path)
