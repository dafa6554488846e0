"""Distribution and mint on the real simd, and the same chain replayed on ours: every code, gas, event, stored byte and query answer.

Both run from simd's genesis file with the same transactions in the same blocks, with simd's inflation and community tax. Only what
``modules/distribution/README.md`` lists as a difference may differ.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from chain.api.comet import CometClient
from chain.codec.registry import message_class
from chain.coins import Coin, to_messages
from chain.crypto import address as bech32
from tests.interop.pair import Side, simd_alone
from tests.support import ROOT, ask_until

pytestmark = [pytest.mark.interop, pytest.mark.timeout(900)]
PACKAGE = "cosmos.distribution.v1beta1"
GAS = 400_000
WITH_DECIMALS = ("not gov's", "not gov's mint")
"""Not signed as amino JSON: this simd (x/tx 0.13.4) shows a Dec there as its integer, later ones and ours (0.13.7) with its decimals."""
DEPOSIT = "a gift to the validator's delegators"
NOBODY = bytes([7]) * 20


PARAMS = {
    "mint": {"inflation_rate_change": "0.13", "inflation_max": "0.20", "inflation_min": "0.07"},
    "distribution": {"community_tax": "0.023000000000000001"},
}
"""The SDK's own inflation, which the shared set-up takes away, and a tax with a remainder."""


def scenario(side: Side) -> list[tuple[str, str, list[Any]]]:
    """(name, who signs, messages) of each transaction, in order."""
    val, operator = side.address("val"), side.address("val", "valoper")
    nobody = bech32.encode(NOBODY, side.prefix + "valoper")
    blocked = bech32.encode(bech32.module_address("mint"), side.prefix)

    def message(name: str, **fields: Any) -> Any:
        return message_class(f"{PACKAGE}.Msg{name}")(**fields)

    def coins(**amounts: int) -> list[Any]:
        return to_messages(Coin(denom, amount) for denom, amount in amounts.items())

    def staking(name: str, amount: int) -> Any:
        fields = {"delegator_address": side.address("c"), "validator_address": operator, "amount": {"denom": "wei", "amount": str(amount)}}
        return message_class(f"cosmos.staking.v1beta1.Msg{name}")(**fields)

    rewards = message("WithdrawDelegatorReward", delegator_address=val, validator_address=operator)
    of_c = message("WithdrawDelegatorReward", delegator_address=side.address("c"), validator_address=operator)
    commission = message("WithdrawValidatorCommission", validator_address=operator)
    params = {"community_tax": "1", "base_proposer_reward": "0", "bonus_proposer_reward": "0"}
    return [
        ("rewards", "val", [rewards]),
        ("commission", "val", [commission]),
        ("both", "val", [rewards, commission]),
        ("twice in one", "val", [rewards, rewards]),
        ("another address", "val", [message("SetWithdrawAddress", delegator_address=val, withdraw_address=side.address("d"))]),
        ("rewards to another address", "val", [rewards, commission]),
        ("the pool is funded", "a", [message("FundCommunityPool", amount=coins(abc=1000, wei=5), depositor=side.address("a"))]),
        (
            DEPOSIT,
            "b",
            [message("DepositValidatorRewardsPool", depositor=side.address("b"), validator_address=operator, amount=coins(abc=77_777))],
        ),
        ("two denoms", "val", [rewards, commission]),
        ("a delegation", "c", [staking("Delegate", 10**17 + 7)]),
        ("a larger delegation", "c", [staking("Delegate", 3 * 10**17)]),
        ("rewards of both", "c", [of_c]),
        ("some taken back", "c", [staking("Undelegate", 10**16)]),
        ("rewards of what is left", "c", [of_c]),
        ("all taken back", "c", [staking("Undelegate", 10**17 + 7 + 3 * 10**17 - 10**16)]),
        ("rewards of nothing", "c", [of_c]),
        ("rewards of one again", "val", [rewards, commission]),
        ("no such validator", "a", [message("WithdrawDelegatorReward", delegator_address=side.address("a"), validator_address=nobody)]),
        ("no delegation", "a", [message("WithdrawDelegatorReward", delegator_address=side.address("a"), validator_address=operator)]),
        ("no commission", "a", [message("WithdrawValidatorCommission", validator_address=side.address("a", "valoper"))]),
        ("blocked", "a", [message("SetWithdrawAddress", delegator_address=side.address("a"), withdraw_address=blocked)]),
        ("no address", "a", [message("SetWithdrawAddress", delegator_address=side.address("a"), withdraw_address="")]),
        ("nothing for the pool", "a", [message("FundCommunityPool", depositor=side.address("a"))]),
        ("more than there is", "a", [message("FundCommunityPool", amount=coins(abc=10**9), depositor=side.address("a"))]),
        ("unsorted", "a", [message("FundCommunityPool", amount=coins(wei=1, abc=1), depositor=side.address("a"))]),
        ("gift to nobody", "b", [message("DepositValidatorRewardsPool", depositor=side.address("b"), validator_address=nobody, amount=coins(abc=1))]),
        ("not gov's", "a", [message("UpdateParams", authority=side.address("a"), params=params)]),
        ("not gov's pool", "a", [message("CommunityPoolSpend", authority=side.address("a"), recipient=side.address("a"), amount=coins(abc=1))]),
        ("not gov's mint", "a", [message_class("cosmos.mint.v1beta1.MsgUpdateParams")(authority=side.address("a"))]),
    ]


def queries(side: Side) -> list[tuple[str, Any, str]]:
    """(method, request, REST path)."""
    val, operator = side.address("val"), side.address("val", "valoper")
    asked = [
        ("Params", {}, "params"),
        ("ValidatorDistributionInfo", {"validator_address": operator}, f"validators/{operator}"),
        ("ValidatorOutstandingRewards", {"validator_address": operator}, f"validators/{operator}/outstanding_rewards"),
        ("ValidatorCommission", {"validator_address": operator}, f"validators/{operator}/commission"),
        ("ValidatorSlashes", {"validator_address": operator, "ending_height": 9}, f"validators/{operator}/slashes?ending_height=9"),
        ("DelegationRewards", {"delegator_address": val, "validator_address": operator}, f"delegators/{val}/rewards/{operator}"),
        ("DelegationTotalRewards", {"delegator_address": val}, f"delegators/{val}/rewards"),
        ("DelegationTotalRewards", {"delegator_address": side.address("a")}, f"delegators/{side.address('a')}/rewards"),
        ("DelegatorValidators", {"delegator_address": val}, f"delegators/{val}/validators"),
        ("DelegatorWithdrawAddress", {"delegator_address": val}, f"delegators/{val}/withdraw_address"),
        ("CommunityPool", {}, "community_pool"),
    ]
    found = [
        (f"/{PACKAGE}.Query/{name}", message_class(f"{PACKAGE}.Query{name}Request")(**fields), f"/cosmos/distribution/v1beta1/{path}")
        for name, fields, path in asked
    ]
    for name, path in (("Params", "params"), ("Inflation", "inflation"), ("AnnualProvisions", "annual_provisions")):
        request = message_class(f"cosmos.mint.v1beta1.Query{name}Request")()
        found.append((f"/cosmos.mint.v1beta1.Query/{name}", request, f"/cosmos/mint/v1beta1/{path}"))
    return found


class Compared:
    """What simd answered, and what ours did when it was replayed."""

    def __init__(self, side: Side, folder: Path) -> None:
        self.side = side
        client = CometClient(side.rpc)
        sequences = {name: 0 for name in ("val", "a", "b", "c")}
        sequences["val"] = 1  # its gentx
        for at, (name, sender, messages) in enumerate(scenario(side)):
            side.send(
                name,
                side.signed(
                    messages[0], sender, sequences[sender], gas=GAS, memo=name, more=messages[1:], amino=at > 1 and name not in WITH_DECIMALS
                ),
            )
            sequences[sender] += 1
        last = max(side.heights.values())
        ask_until(lambda: side.height() > last + 1)
        self.theirs = {
            name: client.call("tx", hash=base64.b64encode(bytes.fromhex(side.hash(name))).decode(), prove=False)["tx_result"] for name in side.raw
        }
        self.their_blocks = {height: client.call("block_results", height=str(height))["finalize_block_events"] or [] for height in range(1, last + 1)}
        self.their_answers = [client.abci_query(path, request.SerializeToString(), last) for path, request, _ in queries(side)]
        heights = {"x-cosmos-block-height": str(last)}
        self.their_json = [httpx.get(side.rest + path, headers=heights, timeout=10).json() for _, _, path in queries(side)]
        self.their_stores = {"distribution": self._entries(client, "distribution", last), "mint": self._entries(client, "mint", last)}
        times = [client.call("header", height=str(height))["header"]["time"] for height in range(1, last + 1)]
        client.close()
        asked = folder / "asked.json"
        txs = {height: [base64.b64encode(side.raw[name]).decode()] for name, height in side.heights.items()}
        methods = [[path, request.SerializeToString().hex()] for path, request, _ in queries(side)]
        asked.write_text(json.dumps({"txs": txs, "times": times, "stores": list(self.their_stores), "queries": methods}))
        command = [sys.executable, "-m", "tests.interop.replay_as_cosmos", str(side.home), str(asked)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        self.ours = json.loads(done.stdout)

    def _entries(self, client: CometClient, store: str, height: int) -> list[list[str]]:
        """Every entry at a height. simd lists keys of its latest state alone; no transaction has come since ``height``, so they are the same."""
        pairs = message_class("cosmos.store.internal.kv.v1beta1.Pairs")()
        for prefix in range(10):
            found = client.abci_query(f"/store/{store}/subspace", bytes([prefix]))
            pairs.MergeFromString(base64.b64decode(found.get("value") or ""))
        found = {pair.key: client.abci_query(f"/store/{store}/key", pair.key, height) for pair in pairs.pairs}
        return [[key.hex(), base64.b64decode(answer.get("value") or "").hex()] for key, answer in found.items()]

    def our_tx(self, name: str) -> Any:
        [result] = self.ours["txs"][str(self.side.heights[name])]
        return result


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compared]:
    folder = tmp_path_factory.mktemp("replayed")
    with simd_alone(folder / "simd", PARAMS) as side:
        ask_until(lambda: side.height() >= 3, 90)
        yield Compared(side, folder)


def _events(events: Any) -> list[Any]:
    return [[event["type"], [[pair["key"], pair.get("value") or ""] for pair in event["attributes"]]] for event in events]


def test_every_transaction_has_simds_code_data_events_and_gas(compared: Compared) -> None:
    gas = {}
    for name, _, _ in scenario(compared.side):
        ours, theirs = compared.our_tx(name), compared.theirs[name]
        assert (ours["codespace"], ours["code"]) == (theirs.get("codespace", ""), int(theirs.get("code", 0))), (name, theirs["log"])
        assert ours["data"] == base64.b64decode(theirs.get("data") or "").hex(), name
        assert ours["events"] == _events(theirs["events"]), name
        gas[name] = (ours["gas_used"], int(theirs["gas_used"]))
    differing = {name: pair for name, pair in gas.items() if pair[0] != pair[1]}
    assert differing == {}


def test_every_blocks_events_are_simds(compared: Compared) -> None:
    for height, events in sorted(compared.their_blocks.items())[1:]:  # the first block of simd tells of genesis, too
        theirs = [event for event in _events(events) if event[0] not in ("tx",)]
        assert compared.ours["blocks"][str(height)] == theirs, height


def test_every_stored_byte_is_simds(compared: Compared) -> None:
    for name, entries in compared.their_stores.items():
        assert entries, name
        assert dict(compared.ours["stores"][name]) == dict(entries), name


def test_every_query_answers_as_simd(compared: Compared) -> None:
    asked = [path for path, _, _ in queries(compared.side)]
    for path, ours, theirs, shown in zip(asked, compared.ours["queries"], compared.their_answers, compared.their_json, strict=True):
        assert ours[0] == base64.b64decode(theirs.get("value") or "").hex(), path
        assert ours[1] == shown, path
