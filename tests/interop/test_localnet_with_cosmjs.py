"""A localnet of real CometBFT nodes with the short periods: stake that CosmJS moves is voting power two blocks later, who does not sign is jailed and comes
back, who signs twice does not. The tests tell one story, in their order.
"""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from chain import nodekeys
from chain.api import blocks as rpc_json
from chain.api.comet import CometClient
from chain.codec.times import parse_rfc3339
from chain.config import Home
from chain.crypto import address as bech32
from chain.light.headers import time_ns_of
from chain.testing.validators import ValidatorKey
from genesis import document
from tests import double_votes
from tests.interop import peers
from tests.support import Devnet, ask_until, localnet, node_of, stchaind
from tools.localnet import Localnet

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]
UNIT = 10**15
"""Wei behind one unit of voting power."""
STAKE = 10**21
WINDOW, JAIL_S, UNBONDING_S = 50, 20, 60
STOPPED, TWICE = "node3", "node2"
OTHERS = ["node0", "node1", "node2"]
GAS_WEI = 400_000 * 10**9
FEE = {"amount": [{"denom": "wei", "amount": str(GAS_WEI)}], "gas": "400000"}
ALLOWANCE = 10**18
YES, NO = 1, 3
PASSED = 3


def atomics(decimal: str) -> int:
    """A decimal with its 18 places, times 10^18."""
    assert len(decimal.partition(".")[2]) == 18, decimal
    return int(decimal.replace(".", ""))


class Cosmjs:
    """``cosmjs/drive.mjs`` as a process: what CosmJS answers."""

    def __init__(self, told: Path, errors: Path) -> None:
        with errors.open("wb") as out:
            self.process = subprocess.Popen(
                ["node", "drive.mjs", str(told)], cwd=peers.cosmjs(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=out, text=True
            )
        self._errors = errors

    def _answer(self, request: dict[str, Any]) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, self._errors.read_text()
        return json.loads(line)

    def ask(self, query: str, *arguments: Any) -> Any:
        found = self._answer({"query": query, "args": arguments})
        assert "error" not in found, found
        return found

    def call(self, who: str, signer: str, method: str, *arguments: Any) -> Any:
        """What a method of SigningStargateClient answers of a transaction that must succeed, once it is in a block."""
        found = self._answer({"who": who, "signer": signer, "call": method, "args": arguments})
        assert found.get("code") == 0, found
        return found

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@dataclass
class Net:
    """The localnet, asked by names of nodes and accounts. ``node0`` is never stopped."""

    local: Localnet
    js: Cosmjs

    def __post_init__(self) -> None:
        self.rpc = node_of(self.local, "node0").rpc
        self.height = node_of(self.local, "node0").height
        self.wait_for = node_of(self.local, "node0").wait_for
        self.chain_id = self.local.net["chain_id"]
        self.accounts = {one["name"]: one["address"] for one in self.local.net["accounts"]}
        names = [one["name"] for one in self.local.net["nodes"] if one["validator"]]
        keys = {name: nodekeys.validator_key(self.home(name)).address for name in names}
        self.names = {key.hex().upper(): name for name, key in keys.items()}
        self.consensus = {name: bech32.encode(key, bech32.CONSENSUS) for name, key in keys.items()}
        self.operators = {name: bech32.encode(bech32.decode(self.accounts[name]), bech32.VALIDATOR) for name in names}

    def home(self, name: str) -> Home:
        return Home(Path(self.local.node(name)["home"]))

    def powers(self, height: int) -> dict[str, int]:
        """The set that votes on block ``height``, as CometBFT tells it."""
        found = ask_until(lambda: self.rpc("validators", height=str(height), per_page="100"))["validators"]
        return {self.names[one["address"]]: int(one["voting_power"]) for one in found}

    def time_ns(self, height: int) -> int:
        """Of block ``height``."""
        return time_ns_of(rpc_json.block(self.rpc("block", height=str(height))["block"]).header.time)

    def events(self, height: int, kind: str) -> list[dict[str, str]]:
        """Of the begin and the end of a block."""
        found = self.rpc("block_results", height=str(height))["finalize_block_events"] or []
        return [{one["key"]: one["value"] for one in event["attributes"]} for event in found if event["type"] == kind]

    def signed(self, height: int) -> set[str]:
        """Names of the validators whose votes for the block before are in block ``height``."""
        found = self.rpc("block", height=str(height))["block"]["last_commit"]["signatures"]
        return {self.names[one["validator_address"]] for one in found if one["validator_address"]}

    def rest(self, path: str, height: int = 0) -> Any:
        answer = httpx.get(f"{self.local.net['rest']}{path}", headers={"x-cosmos-block-height": str(height)} if height else {}, trust_env=False)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def cli(self, node: str, *arguments: str) -> Any:
        """The result in a block of ``stchaind tx …``, typed at ``node``'s machine."""
        return self.committed(self.broadcast(node, *arguments))

    def broadcast(self, node: str, *arguments: str) -> str:
        """The same without waiting for the block: the hash in base64."""
        options = ("--node", self.local.node(node)["rpc"], "--keyring-backend", "test", "-y", "-o", "json")
        code, out, err = stchaind(self.home(node).root, "tx", *arguments, *options)
        assert code == 0, err
        return base64.b64encode(bytes.fromhex(json.loads(out)["txhash"])).decode()

    def committed(self, hash_: str) -> Any:
        return ask_until(lambda: self.rpc("tx", hash=hash_))

    def signing_info(self, name: str) -> Any:
        """As ``stchaind query slashing signing-infos`` lists it."""
        code, out, err = stchaind(self.home("node0").root, "query", "slashing", "signing-infos", "--node", self.rpc_address, "-o", "json")
        assert code == 0, err
        return next(one for one in json.loads(out)["info"] if one["address"] == self.consensus[name])

    @property
    def rpc_address(self) -> str:
        return str(self.local.net["rpc"])

    def validator(self, name: str) -> Any:
        return self.js.ask("staking.validator", self.operators[name])["validator"]

    def supply(self) -> int:
        return int(self.js.ask("bank.supplyOf", "wei")["amount"])

    def balance(self, who: str) -> int:
        return int(self.js.ask("bank.balance", self.accounts[who], "wei")["amount"])

    def slashing(self, name: str) -> int:
        """A fraction among slashing's parameters in the genesis file, times 10^18."""
        return atomics(document.load(self.home("node0").genesis)["app_state"]["slashing"]["params"][name])


@dataclass
class Change:
    """A transaction in block ``height`` that changes validators' tokens by ``wei``."""

    height: int
    wei: dict[str, int]


@dataclass
class Story:
    """What CosmJS did, and what it must have led to."""

    changes: list[Change] = field(default_factory=list)
    held: dict[tuple[str, str], int] = field(default_factory=dict)
    """(delegator, validator) → wei."""
    proposals: dict[str, str] = field(default_factory=dict)

    def changed(self, result: Any, who: str, **wei: int) -> int:
        """Note a transaction and what it changed; its height."""
        self.changes.append(Change(result["height"], wei))
        for name, amount in wei.items():
            self.held[who, name] = self.held.get((who, name), 0) + amount
        return int(result["height"])

    def tokens(self, name: str) -> int:
        return STAKE + sum(change.wei.get(name, 0) for change in self.changes)


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Net]:
    folder = tmp_path_factory.mktemp("localnet")
    # A validator is missing for a while: its turns to propose are passed over sooner.
    comet = {"consensus.timeout_propose": "1s", "consensus.timeout_precommit": "300ms"}
    with localnet(folder / "net", block_time="300ms", comet=comet) as local:
        js = Cosmjs(local.folder.told, folder / "cosmjs.log")
        try:
            yield Net(local, js)
        finally:
            js.close()


@pytest.fixture(scope="module")
def stopped(net: Net) -> int:
    """The height when STOPPED had stopped. Its window passes while CosmJS works."""
    net.wait_for(5)
    net.local.stop(STOPPED)
    return net.height()


def wei(amount: int) -> dict[str, str]:
    return {"denom": "wei", "amount": str(amount)}


def message(kind: str, **value: Any) -> dict[str, Any]:
    return {"typeUrl": f"/cosmos.{kind}", "value": value}


def wrapped(kind: str, **value: Any) -> dict[str, Any]:
    """As an Any inside of a message."""
    return {"$any": message(kind, **value)}


def redelegate(net: Net, who: str, source: str, target: str, amount: int) -> dict[str, Any]:
    between = {"validatorSrcAddress": net.operators[source], "validatorDstAddress": net.operators[target]}
    return message("staking.v1beta1.MsgBeginRedelegate", delegatorAddress=net.accounts[who], amount=wei(amount), **between)


@pytest.fixture(scope="module")
def story(net: Net, stopped: int) -> Story:
    """Carol and Dave move stake; Carol lets Dave delegate for her. Amounts are no multiples of a unit of power."""
    told, js, operators = Story(), net.js, net.operators
    carol, dave = net.accounts["carol"], net.accounts["dave"]
    for who, signer, fee, name, amount in (
        ("carol", "direct", "auto", "node0", 30_001 * UNIT - 1),
        ("carol", "direct", "auto", "node0", 1),
        ("dave", "amino", "auto", "node2", 40_000 * UNIT + 1),
        ("carol", "amino", FEE, "node2", 20_000 * UNIT),
    ):
        told.changed(js.call(who, signer, "delegateTokens", net.accounts[who], operators[name], wei(amount), fee), who, **{name: amount})
    amount = 10_000 * UNIT + 1
    told.changed(js.call("carol", "direct", "undelegateTokens", carol, operators["node0"], wei(amount), "auto"), "carol", node0=-amount)
    told.changed(js.call("dave", "amino", "undelegateTokens", dave, operators["node2"], wei(amount), FEE), "dave", node2=-amount)
    amount = 5_000 * UNIT
    moved = js.call("carol", "direct", "signAndBroadcast", carol, [redelegate(net, "carol", "node0", "node1", amount)], "auto")
    told.changed(moved, "carol", node0=-amount, node1=amount)
    moved = js.call("dave", "amino", "signAndBroadcast", dave, [redelegate(net, "dave", "node2", "node0", amount)], FEE)
    told.changed(moved, "dave", node2=-amount, node0=amount)
    grant = {"authorization": wrapped("authz.v1beta1.GenericAuthorization", msg="/cosmos.staking.v1beta1.MsgDelegate")}
    js.call("carol", "direct", "signAndBroadcast", carol, [message("authz.v1beta1.MsgGrant", granter=carol, grantee=dave, grant=grant)], FEE)
    amount = 7_000 * UNIT
    delegate = wrapped("staking.v1beta1.MsgDelegate", delegatorAddress=carol, validatorAddress=operators["node1"], amount=wei(amount))
    moved = js.call("dave", "direct", "signAndBroadcast", dave, [message("authz.v1beta1.MsgExec", grantee=dave, msgs=[delegate])], FEE)
    told.changed(moved, "carol", node1=amount)
    return told


def test_the_periods_are_those_of_the_protocol(net: Net) -> None:
    state = document.load(net.home("full0").genesis)["app_state"]
    slashing, gov = state["slashing"]["params"], state["gov"]["params"]
    assert (slashing["signed_blocks_window"], slashing["downtime_jail_duration"]) == (str(WINDOW), f"{JAIL_S}s")
    assert atomics(slashing["min_signed_per_window"]) == 10**18 // 2
    assert (gov["max_deposit_period"], gov["voting_period"]) == ("20s", "20s")
    assert state["staking"]["params"]["unbonding_time"] == f"{UNBONDING_S}s"


def test_cosmjs_changes_voting_power_two_blocks_later(net: Net, story: Story) -> None:
    net.wait_for(story.changes[-1].height + 2)
    tokens = dict.fromkeys(OTHERS, STAKE)
    assert len(story.changes) == 9
    for change in story.changes:
        before = {name: amount // UNIT for name, amount in tokens.items()}
        tokens = {name: amount + change.wei.get(name, 0) for name, amount in tokens.items()}
        after = {name: amount // UNIT for name, amount in tokens.items()}
        found = [net.powers(change.height + late) for late in (1, 2)]
        assert [{name: one[name] for name in OTHERS} for one in found] == [before, after], change
        assert before != after


def test_cosmjs_reads_the_stake(net: Net, story: Story) -> None:
    ask, operators = net.js.ask, net.operators
    for who in ("carol", "dave"):
        found = ask("staking.delegatorDelegations", net.accounts[who])["delegationResponses"]
        expected = {operators[name]: amount for (delegator, name), amount in story.held.items() if delegator == who}
        assert {one["delegation"]["validatorAddress"]: int(one["balance"]["amount"]) for one in found} == expected
        assert {one["delegation"]["validatorAddress"]: int(one["delegation"]["shares"]) for one in found} == {
            name: amount * 10**18 for name, amount in expected.items()
        }
    for who, name, at in (("carol", "node0", 4), ("dave", "node2", 5)):
        height = story.changes[at].height
        [entry] = ask("staking.unbondingDelegation", net.accounts[who], operators[name])["unbond"]["entries"]
        due_ns = int(entry["completionTime"]["seconds"]) * 10**9 + entry["completionTime"]["nanos"]
        assert (int(entry["creationHeight"]), due_ns) == (height, net.time_ns(height) + UNBONDING_S * 10**9)
        assert entry["balance"] == entry["initialBalance"] == str(10_000 * UNIT + 1)
    [moved] = ask("staking.redelegations", net.accounts["dave"], operators["node2"], operators["node0"])["redelegationResponses"]
    assert [one["balance"] for one in moved["entries"]] == [str(5_000 * UNIT)]
    assert ask("staking.params")["params"]["unbondingTime"] == {"seconds": str(UNBONDING_S), "nanos": 0}
    for name in OTHERS:
        assert int(net.validator(name)["tokens"]) == story.tokens(name)
    bonded = ask("staking.validators", "BOND_STATUS_BONDED")["validators"]
    assert {operators[name] for name in OTHERS} <= {one["operatorAddress"] for one in bonded}


def same_as_the_chain(net: Net, query: str, arguments: Sequence[Any], path: str, picks: Any) -> None:
    """CosmJS reads what REST says at one of the heights at which CosmJS may have asked."""
    first = net.height() - 1
    found = net.js.ask(query, *arguments)
    told = [net.rest(path, height) for height in range(first, net.height() + 1)]
    assert picks[0](found) in [picks[1](one) for one in told], (found, told)


def test_cosmjs_withdraws_rewards_and_reads_them(net: Net, story: Story) -> None:
    operator = net.operators["node2"]
    for who, signer in (("carol", "direct"), ("dave", "amino")):
        address, before = net.accounts[who], net.balance(who)
        assert int(net.js.ask("distribution.delegationRewards", address, operator)["rewards"][0]["amount"]) > 10**18
        result = net.js.call(who, signer, "withdrawRewards", address, operator, FEE)
        [event] = [one for one in result["events"] if one["type"] == "withdraw_rewards"]
        paid = {one["key"]: one["value"] for one in event["attributes"]}
        reward = int(paid["amount"].removesuffix("wei"))
        assert (paid["validator"], paid["delegator"]) == (operator, address)
        assert reward > 0
        assert net.balance(who) == before + reward - GAS_WEI
    carol = net.accounts["carol"]

    def in_cosmjs(coins: Any) -> list[int]:
        return [int(one["amount"]) for one in coins]

    def at_rest(coins: Any) -> list[int]:
        return [atomics(one["amount"]) for one in coins]

    base = "/cosmos/distribution/v1beta1"
    for query, arguments, path, picks in (
        (
            "distribution.delegationTotalRewards",
            [carol],
            f"{base}/delegators/{carol}/rewards",
            (
                lambda found: [in_cosmjs(found["total"]), *(in_cosmjs(one["reward"]) for one in found["rewards"])],
                lambda found: [at_rest(found["total"]), *(at_rest(one["reward"]) for one in found["rewards"])],
            ),
        ),
        (
            "distribution.validatorCommission",
            [operator],
            f"{base}/validators/{operator}/commission",
            (lambda found: in_cosmjs(found["commission"]["commission"]), lambda found: at_rest(found["commission"]["commission"])),
        ),
        (
            "distribution.validatorOutstandingRewards",
            [operator],
            f"{base}/validators/{operator}/outstanding_rewards",
            (lambda found: in_cosmjs(found["rewards"]["rewards"]), lambda found: at_rest(found["rewards"]["rewards"])),
        ),
        (
            "staking.pool",
            [],
            "/cosmos/staking/v1beta1/pool",
            (
                lambda found: (found["pool"]["bondedTokens"], found["pool"]["notBondedTokens"]),
                lambda found: (found["pool"]["bonded_tokens"], found["pool"]["not_bonded_tokens"]),
            ),
        ),
    ):
        same_as_the_chain(net, query, arguments, path, picks)


def proposal_id(result: Any) -> str:
    attributes = [one for event in result["events"] if event["type"] == "submit_proposal" for one in event["attributes"]]
    return str(next(one["value"] for one in attributes if one["key"] == "proposal_id"))


@pytest.fixture(scope="module")
def voted(net: Net, story: Story) -> Story:
    """Carol proposes as gov v1, Dave as v1beta1; all vote on Dave's. His vote is paid by Carol."""
    js, carol, dave = net.js, net.accounts["carol"], net.accounts["dave"]
    deposit = [wei(10**20)]
    texts = {"title": "Carol's", "summary": "nothing changes", "metadata": "as of today"}
    first = message("gov.v1.MsgSubmitProposal", proposer=carol, initialDeposit=deposit, messages=[], **texts)
    content = wrapped("gov.v1beta1.TextProposal", title="Dave's", description="that <nothing> & nobody changes")
    second = message("gov.v1beta1.MsgSubmitProposal", proposer=dave, initialDeposit=deposit, content=content)
    story.proposals["carol"] = proposal_id(js.call("carol", "direct", "signAndBroadcast", carol, [first], FEE))
    allowance = wrapped("feegrant.v1beta1.BasicAllowance", spendLimit=[wei(ALLOWANCE)])
    granted = message("feegrant.v1beta1.MsgGrantAllowance", granter=carol, grantee=dave, allowance=allowance)
    vote = message("gov.v1.MsgVote", proposalId={"$bigint": story.proposals["carol"]}, voter=carol, option=YES)
    js.call("carol", "direct", "signAndBroadcast", carol, [granted, vote], FEE)
    story.proposals["dave"] = proposal_id(js.call("dave", "amino", "signAndBroadcast", dave, [second], FEE))
    of_dave = {"$bigint": story.proposals["dave"]}
    votes = [net.broadcast("node0", "gov", "vote", story.proposals["dave"], "yes", "--from", name, "--fees", "200000gwei") for name in OTHERS]
    assert [net.committed(hash_)["tx_result"]["code"] for hash_ in votes] == [0, 0, 0]
    balances = net.balance("carol"), net.balance("dave")
    vote = message("gov.v1beta1.MsgVote", proposalId=of_dave, voter=dave, option=NO)
    js.call("dave", "amino", "signAndBroadcast", dave, [vote], {**FEE, "granter": carol})
    assert (net.balance("carol"), net.balance("dave")) == (balances[0] - GAS_WEI, balances[1])
    options = [{"option": YES, "weight": str(7 * 10**17)}, {"option": 2, "weight": str(3 * 10**17)}]
    weighted = message("gov.v1beta1.MsgVoteWeighted", proposalId=of_dave, voter=carol, options=options)
    js.call("carol", "amino", "signAndBroadcast", carol, [weighted], FEE)
    return story


def tally_of(voted: Story) -> dict[str, str]:
    """Of Dave's proposal: all validators but STOPPED say yes, with the stake of those who do not vote themselves."""
    held = {who: sum(amount for (delegator, _), amount in voted.held.items() if delegator == who) for who in ("carol", "dave")}
    own = sum(map(voted.tokens, OTHERS)) - sum(held.values())
    yes, abstain = own + held["carol"] * 7 // 10, held["carol"] * 3 // 10
    return {"yes": str(yes), "abstain": str(abstain), "no": str(held["dave"]), "noWithVeto": "0"}


def test_cosmjs_proposes_votes_and_reads_the_tally(net: Net, voted: Story) -> None:
    ask, number = net.js.ask, voted.proposals["dave"]
    votes = {one["voter"]: one["options"] for one in ask("gov.votes", number)["votes"]}
    assert len(votes) == 5
    assert votes[net.accounts["dave"]] == [{"option": NO, "weight": str(10**18)}]
    assert ask("gov.tally", number)["tally"] == tally_of(voted)
    assert ask("gov.proposal", number)["proposal"]["totalDeposit"] == [wei(10**20)]
    # A proposal of gov v1 without a message has no form in v1beta1, which CosmJS asks.
    found = net.rest(f"/cosmos/gov/v1/proposals/{voted.proposals['carol']}")["proposal"]
    assert (found["proposer"], found["title"], found["summary"]) == (net.accounts["carol"], "Carol's", "nothing changes")


def test_what_carol_granted_is_there_and_spent(net: Net, voted: Story) -> None:
    carol, dave = net.accounts["carol"], net.accounts["dave"]
    [grant] = net.js.ask("authz.grants", carol, dave, "")["grants"]
    assert grant["authorization"]["typeUrl"] == "/cosmos.authz.v1beta1.GenericAuthorization"
    found = net.js.ask("feegrant.allowance", carol, dave)["allowance"]
    assert (found["granter"], found["allowance"]["typeUrl"]) == (carol, "/cosmos.feegrant.v1beta1.BasicAllowance")
    left = net.rest(f"/cosmos/feegrant/v1beta1/allowance/{carol}/{dave}")["allowance"]["allowance"]["spend_limit"]
    assert left == [wei(ALLOWANCE - GAS_WEI)]


@pytest.fixture(scope="module")
def jailed(net: Net, voted: Story) -> int:
    """The height at which STOPPED was jailed."""
    ask_until(lambda: net.validator(STOPPED)["jailed"], 120)
    net.wait_for(net.height() + 2)
    return next(height for height in range(WINDOW, net.height() + 1) if STOPPED not in net.powers(height)) - 2


def test_who_stops_is_jailed_after_the_window(net: Net, stopped: int, jailed: int) -> None:
    """In the first block with more than half of the window missed, and more than a window since the start; for the fraction of what it voted with."""
    missed, due = [], 0
    for height in range(2, jailed + 1):
        missed.append(STOPPED not in net.signed(height))
        if not due and height > WINDOW and sum(missed[-WINDOW:]) > WINDOW // 2:
            due = height
    # Its vote for the block after that may have been on its way; block N has the votes for the one before.
    assert not all(missed[: stopped - 2])
    assert all(missed[stopped + 3 - 2 :])
    assert jailed == due
    slashed = STAKE * net.slashing("slash_fraction_downtime") // 10**18
    assert slashed == 2 * 10**17
    [event] = [one for one in net.events(jailed, "slash") if one.get("address") == net.consensus[STOPPED] and "power" in one]
    assert (event["power"], event["reason"], event["jailed"]) == (str(STAKE // UNIT), "missing_signature", net.consensus[STOPPED])
    assert event["burned_coins"] == str(slashed)
    validator = net.validator(STOPPED)
    assert (validator["jailed"], int(validator["tokens"])) == (True, STAKE - slashed)
    assert [STOPPED in net.powers(jailed + late) for late in (1, 2)] == [True, False]
    info = net.signing_info(STOPPED)
    assert jailed_until_ns(info) == net.time_ns(jailed) + JAIL_S * 10**9
    assert (info["missed_blocks_counter"], info["tombstoned"]) == ("0", False)


def jailed_until_ns(info: Any) -> int:
    seconds, nanos = parse_rfc3339(info["jailed_until"])
    return seconds * 10**9 + nanos


UNJAIL = ("slashing", "unjail", "--fees", "200000gwei", "--from")


@pytest.fixture(scope="module")
def back(net: Net, jailed: int) -> int:
    """The height at which STOPPED was let out of jail, after it was refused too early, and its node was mended."""
    until_ns = jailed_until_ns(net.signing_info(STOPPED))
    early = net.cli("node0", *UNJAIL, STOPPED)
    assert net.time_ns(int(early["height"])) < until_ns
    assert (early["tx_result"]["codespace"], early["tx_result"]["code"]) == ("slashing", 4)
    net.local.start(STOPPED)
    node = node_of(net.local, STOPPED)
    ask_until(lambda: not node.rpc("status")["sync_info"]["catching_up"] and node.height() > net.height() - 2)
    ask_until(lambda: net.time_ns(net.height()) >= until_ns)
    result = net.cli(STOPPED, *UNJAIL, STOPPED)
    assert result["tx_result"]["code"] == 0, result
    return int(result["height"])


def test_who_was_jailed_comes_back_by_unjail(net: Net, back: int) -> None:
    net.wait_for(back + 3)
    validator = net.validator(STOPPED)
    power = int(validator["tokens"]) // UNIT
    assert (validator["jailed"], power) == (False, 999_800)
    assert [net.powers(back + late).get(STOPPED) for late in (1, 2)] == [None, power]
    assert net.signing_info(STOPPED)["start_height"] == str(back)
    ask_until(lambda: STOPPED in net.signed(net.height()))


@pytest.fixture(scope="module")
def counted(net: Net, voted: Story, back: int) -> Any:
    """Dave's proposal after its voting period."""
    return ask_until(lambda: (found := net.js.ask("gov.proposal", voted.proposals["dave"])["proposal"])["status"] == PASSED and found, 60)


def test_the_proposal_passes_with_that_tally(net: Net, voted: Story, counted: Any) -> None:
    assert counted["finalTallyResult"] == tally_of(voted)


@dataclass
class Twice:
    """A double signature at height ``at``, and evidence of it in block ``evidence``; and what was before that."""

    at: int
    evidence: int
    earlier: int
    """Wei that Dave undelegated before it."""
    moved: int
    """Wei that left since, of each."""
    tokens: dict[str, int]
    supply: int


@pytest.fixture(scope="module")
def twice(net: Net, voted: Story, back: int, counted: Any) -> Twice:
    """TWICE signs two blocks of one height; Dave undelegates before, and he and Carol leave again before anybody tells."""
    dave, operator = net.accounts["dave"], net.operators[TWICE]
    earlier, moved = 1_000 * UNIT, 4_000 * UNIT
    net.wait_for(net.js.call("dave", "direct", "undelegateTokens", dave, operator, wei(earlier), FEE)["height"] + 3)
    at = net.height() - 1
    net.js.call("dave", "amino", "undelegateTokens", dave, operator, wei(moved), FEE)
    net.js.call("carol", "direct", "signAndBroadcast", net.accounts["carol"], [redelegate(net, "carol", TWICE, "node1", moved)], FEE)
    tokens, supply = {name: int(net.validator(name)["tokens"]) for name in OTHERS}, net.supply()
    key = ValidatorKey.from_file(net.home(TWICE).validator_key)
    comet = CometClient(net.rpc_address)
    double_votes.post(comet, net.chain_id, key, at)
    comet.close()
    ask_until(lambda: net.validator(TWICE)["jailed"])
    net.wait_for(net.height() + 2)
    height = next(one for one in range(at, net.height() + 1) if TWICE not in net.powers(one)) - 2
    return Twice(at, height, earlier, moved, tokens, supply)


def test_who_signs_twice_is_slashed_by_the_fraction(net: Net, story: Story, twice: Twice) -> None:
    """Of the power at that height; what left since pays its part, what left before pays nothing."""
    power, fraction = net.powers(twice.at)[TWICE], net.slashing("slash_fraction_double_sign")
    assert fraction == 5 * 10**16
    slashed, of_moved = (amount * fraction // 10**18 for amount in (power * UNIT, twice.moved))
    assert net.rpc("block", height=str(twice.evidence))["block"]["evidence"]["evidence"]
    reasons = [(one["address"], one["power"], one["reason"]) for one in net.events(twice.evidence, "slash") if "power" in one]
    assert reasons == [(net.consensus[TWICE], str(power), "double_sign")]
    tokens = int(net.validator(TWICE)["tokens"])
    assert twice.tokens[TWICE] - tokens == slashed - 2 * of_moved
    assert int(net.validator("node1")["tokens"]) == twice.tokens["node1"] - of_moved
    assert net.supply() == twice.supply - slashed
    dave, operator = net.accounts["dave"], net.operators[TWICE]
    held, shares = story.held["dave", TWICE] - twice.earlier - twice.moved, twice.tokens[TWICE]
    delegation = net.js.ask("staking.delegation", dave, operator)["delegationResponse"]
    assert int(delegation["delegation"]["shares"]) == held * 10**18
    assert int(delegation["balance"]["amount"]) == held * tokens // shares
    entries = {
        int(one["initialBalance"]): int(one["balance"]) for one in net.js.ask("staking.unbondingDelegation", dave, operator)["unbond"]["entries"]
    }
    assert entries.pop(twice.moved) == twice.moved - of_moved
    assert entries.pop(twice.earlier) == twice.earlier


def test_who_signed_twice_is_tombstoned(net: Net, twice: Twice) -> None:
    validator, info = net.validator(TWICE), net.signing_info(TWICE)
    assert (validator["jailed"], info["tombstoned"], info["jailed_until"]) == (True, True, "9999-12-31T23:59:59Z")
    assert [TWICE in net.powers(twice.evidence + late) for late in (1, 2)] == [True, False]
    refused = net.cli(TWICE, *UNJAIL, TWICE)["tx_result"]
    assert (refused["codespace"], refused["code"]) == ("slashing", 4)
    assert TWICE not in net.powers(net.height())


def headers(node: Devnet, height: int) -> list[Any]:
    """Block ids and headers, and so app hashes, of the blocks up to ``height``; CometBFT answers with 20 at once, the newest first."""
    found = []
    for lowest in range(1, height + 1, 20):
        asked = node.rpc("blockchain", minHeight=str(lowest), maxHeight=str(min(lowest + 19, height)))
        found += asked["block_metas"][::-1]
    return found


def test_all_nodes_go_on_and_agree(net: Net, twice: Twice) -> None:
    nodes = [node_of(net.local, name) for name in net.local.names]
    height = net.height() + 3
    for node in nodes:
        node.wait_for(height)
    first, *others = [headers(node, height) for node in nodes]
    assert [int(one["header"]["height"]) for one in first] == list(range(1, height + 1))
    assert all(one == first for one in others)
    assert set(net.powers(height)) == {"node0", "node1", STOPPED}
