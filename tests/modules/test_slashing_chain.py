"""Absent and double-signing validators on the whole chain: what CometBFT's set, stake, supply, messages and queries make of them."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from chain.app import build_application
from chain.cli.genesis import tx_message
from chain.cli.tx import Remote
from chain.codec.json import to_json
from chain.codec.registry import message_class, pack_any
from chain.coins import Coin
from chain.crypto import address as bech32
from chain.crypto.keyring import open_keyring
from chain.crypto.keys import public_key_to_any
from chain.errors import TxDecodeError
from chain.store.kv import MemoryBackend
from chain.testing.driver import Driver, TxResult
from chain.testing.validators import ValidatorKey
from chain.tx.build import Signer, build_tx
from tests.support import CHAIN_ID, GAS, GOV, KEYS, at_end_of, genesis_document, stchaind, text

UNIT = 10**15
STAKE = 1000 * UNIT
WINDOW, JAIL_S = 12, 600
GENESIS_S = 1_767_225_600
FEE = (Coin("wei", 2 * GAS * 10**9),)
PARAMS = {
    "signed_blocks_window": str(WINDOW),
    "min_signed_per_window": "0.75",
    "downtime_jail_duration": f"{JAIL_S}s",
    "slash_fraction_downtime": "0.01",
}


def operator(number: int) -> str:
    return bech32.encode(KEYS[number].public_key.address, bech32.VALIDATOR)


def cons(number: int) -> bytes:
    return ValidatorKey.numbered(number).address


def cons_text(number: int) -> str:
    return bech32.encode(cons(number), bech32.CONSENSUS)


def staking(name: str, **fields: Any) -> Any:
    return message_class(f"cosmos.staking.v1beta1.{name}")(**fields)


def unjail(number: int) -> Any:
    return message_class("cosmos.slashing.v1beta1.MsgUnjail")(validator_addr=operator(number))


def gentx(number: int) -> Any:
    message = staking(
        "MsgCreateValidator",
        description={"moniker": str(number)},
        validator_address=operator(number),
        pubkey=public_key_to_any(ValidatorKey.numbered(number).public_key),
        min_self_delegation=str(STAKE // 2),
        value={"denom": "wei", "amount": str(STAKE)},
    )
    message.commission.rate, message.commission.max_rate, message.commission.max_change_rate = str(10**17), str(2 * 10**17), str(10**16)
    signed = build_tx([message], fee=(), gas_limit=GAS, signers=[Signer(KEYS[number].public_key, 0, 0)]).sign([KEYS[number]], CHAIN_ID)
    return to_json(tx_message(signed))


class Net:
    """Validators 0 to ``validators`` - 1 of 1000 units each on two applications that must agree; some of them may be told to be silent."""

    def __init__(self, validators: int = 4, *, document: Any = None, initial_height: int = 1, **staking_params: Any) -> None:
        apps = [build_application(MemoryBackend()) for _ in range(2)]
        if document is None:
            document = genesis_document(apps[0])
            document["app_state"]["genutil"]["gen_txs"] = [gentx(number) for number in range(validators)]
            document["app_state"]["slashing"]["params"].update(PARAMS)
            document["app_state"]["staking"]["params"].update(staking_params)
            document["initial_height"] = initial_height
        self.app: Any = apps[0]
        self.driver = Driver(apps, document)
        self.driver.start()
        self.silent: set[int] = set()
        self.sequences = dict.fromkeys(range(validators), 1)

    def block(self, *raws: bytes, **options: Any) -> list[tuple[str, dict[str, str]]]:
        """Events of the block outside transactions."""
        driver = self.driver
        voters = driver.blocks[driver.height].validators if driver.height in driver.blocks else ()
        addresses = [cons(number) for number in sorted(self.silent)]
        absent = [at for at, one in enumerate(voters) if one.address in addresses]
        driver.next_block(raws, absent=absent, **options)
        response = driver.blocks[driver.height].response
        return [(event.type, {one.key: one.value for one in event.attributes}) for event in response.events]

    def run(self, number: int, message: Any, **options: Any) -> TxResult:
        sequence = self.sequences.get(number, 0)
        self.sequences[number] = sequence + 1
        unsigned = build_tx([message], fee=FEE, gas_limit=2 * GAS, signers=[Signer(KEYS[number].public_key, sequence, number)])
        self.block(unsigned.sign([KEYS[number]], CHAIN_ID), **options)
        found = self.driver.blocks[self.driver.height].response.tx_results[0]
        return TxResult(found.code, found.codespace, found.log, found.gas_wanted, found.gas_used, found.data, ())

    def outcome(self, number: int, message: Any, **options: Any) -> tuple[str, int]:
        result = self.run(number, message, **options)
        return result.codespace, result.code

    def ask(self, path: str, **fields: Any) -> Any:
        service, _, method = path.rpartition("/")
        request = message_class(f"{service.rpartition('.')[0]}.Query{method}Request")(**fields)
        return to_json(self.app.query_rpc(f"/{path}", request)[0])

    def double_sign(self, number: int, height: int) -> Any:
        """Evidence against a validator that voted at ``height``."""
        return self.driver.duplicate_vote(self.driver.blocks[height].validators.index(cons(number)), height=height)

    def info(self, number: int) -> Any:
        return self.ask("cosmos.slashing.v1beta1.Query/SigningInfo", cons_address=cons_text(number))["val_signing_info"]

    def validator(self, number: int) -> Any:
        return self.ask("cosmos.staking.v1beta1.Query/Validator", validator_addr=operator(number))["validator"]

    def supply(self) -> int:
        return int(self.ask("cosmos.bank.v1beta1.Query/SupplyOf", denom="wei")["amount"]["amount"])

    def votes(self) -> list[int]:
        """Who is in CometBFT's set two blocks from now."""
        known = {cons(number): number for number in range(6)}
        return sorted(known[one.address] for one in self.driver.next_validators)

    def fine(self) -> None:
        assert self.app.broken_invariants() == []


def until_jailed(net: Net, number: int) -> dict[str, str]:
    """Blocks without a vote of a validator until it is jailed; the event that says so."""
    net.silent.add(number)
    for _ in range(3 * WINDOW):
        for kind, pairs in net.block():
            if kind == "slash":
                return pairs
    raise AssertionError("nobody was jailed")


def test_an_absent_validator_is_slashed_and_jailed_and_comes_back_after_its_time() -> None:
    net = Net()
    net.block()
    supply = net.supply()
    told = until_jailed(net, 1)
    assert net.driver.height == WINDOW + 1, "not before a whole window is over, though four misses would do"
    assert (told["address"], told["jailed"], told["power"]) == (cons_text(1), cons_text(1), "1000")
    assert (told["reason"], told["burned_coins"]) == ("missing_signature", str(STAKE // 100))
    assert supply - net.supply() == STAKE // 100
    one = net.validator(1)
    assert (one["jailed"], one["status"], one["tokens"]) == (True, "BOND_STATUS_UNBONDING", str(STAKE - STAKE // 100))
    assert net.votes() == [0, 2, 3]
    jailed_at = net.driver.time_ns // 10**9
    assert net.info(1) == {
        "address": cons_text(1),
        "start_height": "0",
        "index_offset": "0",
        "jailed_until": f"2026-01-01T00:{(jailed_at - GENESIS_S + JAIL_S) // 60:02d}:{(jailed_at - GENESIS_S) % 60:02d}Z",
        "tombstoned": False,
        "missed_blocks_counter": "0",
    }
    net.silent.clear()
    net.block()
    net.block()
    assert net.info(1)["index_offset"] == "0", "its last votes are passed over"
    assert net.outcome(2, unjail(2)) == ("slashing", 5)
    assert net.outcome(4, unjail(4)) == ("staking", 3)
    assert net.outcome(1, unjail(1)) == ("slashing", 4)
    left_s = jailed_at + JAIL_S - net.driver.time_ns // 10**9
    assert net.outcome(1, unjail(1), time_step_s=left_s - 1) == ("slashing", 4)
    assert net.outcome(1, unjail(1), time_step_s=1) == ("", 0)
    assert net.votes() == [0, 1, 2, 3]
    back = net.driver.height
    assert net.info(1)["start_height"] == str(back)
    for _ in range(3):
        net.block()
    assert (net.info(1)["index_offset"], net.driver.height) == ("1", back + 3), "its first vote is for the second block after its return"
    net.fine()


def test_half_of_the_validators_may_be_jailed_in_one_block() -> None:
    net = Net(6)
    net.silent = {0, 1}
    for _ in range(WINDOW):
        net.block()
    slashed = [pairs["jailed"] for kind, pairs in net.block() if kind == "slash"]
    assert sorted(slashed) == sorted(cons_text(number) for number in (0, 1))
    assert net.votes() == [2, 3, 4, 5]
    net.fine()


def test_a_self_delegation_below_the_minimum_keeps_a_validator_in_jail() -> None:
    net = Net()
    amount = {"denom": "wei", "amount": str(STAKE // 2 + 1)}
    less = staking("MsgUndelegate", delegator_address=text(KEYS[1]), validator_address=operator(1), amount=amount)
    assert net.outcome(1, less) == ("", 0)
    assert net.validator(1)["jailed"], "staking jails who falls below its own minimum"
    result = net.run(1, unjail(1))
    assert (result.codespace, result.code) == ("slashing", 7)
    assert f"{STAKE // 2 - 1} less than {STAKE // 2}" in result.log
    more = staking("MsgDelegate", delegator_address=text(KEYS[1]), validator_address=operator(1), amount={"denom": "wei", "amount": "1"})
    assert net.outcome(1, more) == ("", 0)
    assert net.outcome(1, unjail(1)) == ("", 0), "there is no time to wait for"
    other = staking("MsgDelegate", delegator_address=text(KEYS[4]), validator_address=operator(1), amount={"denom": "wei", "amount": str(UNIT)})
    assert net.outcome(4, other) == ("", 0)
    left = staking(
        "MsgUndelegate", delegator_address=text(KEYS[1]), validator_address=operator(1), amount={"denom": "wei", "amount": str(STAKE // 2)}
    )
    assert net.outcome(1, left) == ("", 0)
    assert net.outcome(1, unjail(1)) == ("staking", 19), "no self-delegation is left, and others' keep the validator alive"
    net.fine()


def test_a_double_signer_is_slashed_with_what_left_it_since_and_is_out_for_good() -> None:
    net = Net()
    for _ in range(3):
        net.block()
    infraction = net.driver.height
    part = {"denom": "wei", "amount": str(100 * UNIT)}
    assert net.outcome(1, staking("MsgUndelegate", delegator_address=text(KEYS[1]), validator_address=operator(1), amount=part)) == ("", 0)
    moved = staking(
        "MsgBeginRedelegate",
        delegator_address=text(KEYS[1]),
        validator_src_address=operator(1),
        validator_dst_address=operator(2),
        amount=part,
    )
    assert net.outcome(1, moved) == ("", 0)
    supply = net.supply()
    told = net.block(evidence=[net.double_sign(1, infraction)])
    burned = STAKE // 20
    slash, jail = (pairs for kind, pairs in told if kind == "slash")
    assert (slash["address"], slash["power"], slash["reason"]) == (cons_text(1), "1000", "double_sign")
    assert (jail["jailed"], "reason" in jail) == (cons_text(1), False)
    assert supply - net.supply() == burned
    assert int(net.validator(1)["tokens"]) == 800 * UNIT - (burned - 2 * 5 * UNIT), "what left pays its own five per cent"
    assert int(net.validator(2)["tokens"]) == 1100 * UNIT - 5 * UNIT
    assert net.votes() == [0, 2, 3]
    info = net.info(1)
    assert (info["tombstoned"], info["jailed_until"]) == (True, "9999-12-31T23:59:59Z")
    [kept] = net.ask("cosmos.evidence.v1beta1.Query/AllEvidence")["evidence"]
    time_s = net.driver.blocks[infraction].time_ns // 10**9 - GENESIS_S
    assert kept == {
        "@type": "/cosmos.evidence.v1beta1.Equivocation",
        "height": str(infraction),
        "time": f"2026-01-01T00:00:{time_s:02d}Z",
        "power": "1000",
        "consensus_address": cons_text(1),
    }
    assert [kind for kind, _ in net.block(evidence=[net.double_sign(1, infraction - 1)]) if kind == "slash"] == []
    assert net.outcome(1, unjail(1), time_step_s=10**6) == ("slashing", 4)
    net.fine()


def test_a_double_sign_of_one_who_is_in_jail_already_is_punished_as_well() -> None:
    net = Net()
    until_jailed(net, 3)
    before = int(net.validator(3)["tokens"])
    told = net.block(evidence=[net.double_sign(3, 2)])
    assert [pairs["reason"] for kind, pairs in told if kind == "slash"] == ["double_sign"]
    assert int(net.validator(3)["tokens"]) == before - STAKE // 20
    assert net.outcome(3, unjail(3), time_step_s=2 * JAIL_S) == ("slashing", 4)
    net.fine()


def test_evidence_older_than_the_consensus_parameters_allow_is_ignored() -> None:
    apps = [build_application(MemoryBackend())]
    document = genesis_document(apps[0], consensus={"evidence": {"max_age_num_blocks": "3", "max_age_duration": "10s", "max_bytes": "10000"}})
    document["app_state"]["genutil"]["gen_txs"] = [gentx(number) for number in range(4)]
    net = Net(document=document)
    for _ in range(6):
        net.block()
    old, recent = (net.double_sign(1, height) for height in (net.driver.height - 3, net.driver.height - 2))
    assert [kind for kind, _ in net.block(evidence=[old]) if kind == "slash"] == []
    assert [kind for kind, _ in net.block(evidence=[recent], time_step_s=10**6) if kind == "slash"] == [], "four blocks and a long time"
    near = net.double_sign(1, net.driver.height - 2)
    assert [kind for kind, _ in net.block(evidence=[near]) if kind == "slash"] == ["slash", "slash"], "three blocks, however long ago"
    net.fine()


def test_a_validator_that_is_gone_may_still_be_named_in_votes_and_evidence() -> None:
    net = Net(unbonding_time="1s")
    for _ in range(3):
        net.block()
    all_of_it = {"denom": "wei", "amount": str(STAKE)}
    gone = staking("MsgUndelegate", delegator_address=text(KEYS[1]), validator_address=operator(1), amount=all_of_it)
    height = net.driver.height
    assert net.outcome(1, gone) == ("", 0)
    net.silent = {1}
    net.block(evidence=[net.double_sign(1, height)])
    for _ in range(3):
        net.block(evidence=[net.double_sign(1, height)])
    with pytest.raises(Exception, match="not found"):
        net.validator(1)
    assert net.votes() == [0, 2, 3]
    assert net.outcome(1, unjail(1)) == ("staking", 3)
    again = staking(
        "MsgCreateValidator",
        description={"moniker": "again"},
        validator_address=operator(1),
        pubkey=public_key_to_any(ValidatorKey.numbered(1).public_key),
        min_self_delegation="1",
        value=all_of_it,
    )
    again.commission.rate, again.commission.max_rate, again.commission.max_change_rate = str(10**17), str(2 * 10**17), str(10**16)
    net.silent.clear()
    assert net.outcome(1, again) == ("", 0)
    for _ in range(4):
        net.block()
    assert net.votes() == [0, 1, 2, 3]
    assert net.info(1)["tombstoned"], "its key keeps its record"
    net.fine()


def test_only_the_gov_account_changes_parameters_and_they_hold_from_the_next_block_on() -> None:
    net = Net()
    half = b"500000000000000000"
    message = message_class("cosmos.slashing.v1beta1.MsgUpdateParams")(
        authority=GOV,
        params={
            "signed_blocks_window": 5,
            "min_signed_per_window": b"200000000000000000",
            "downtime_jail_duration": {"seconds": 1},
            "slash_fraction_double_sign": half,
            "slash_fraction_downtime": half,
        },
    )
    events = [at_end_of(app, {3: message}) for app in net.driver.apps]  # type: ignore[arg-type]
    told = until_jailed(net, 1)
    assert (net.driver.height, told["burned_coins"], events) == (6, str(STAKE // 2), [[], []]), "five misses in a row, of which four are allowed"
    assert net.ask("cosmos.slashing.v1beta1.Query/Params")["params"]["signed_blocks_window"] == "5"
    message.authority = text(KEYS[0])
    assert net.outcome(0, message) == ("gov", 13)
    message.params.min_signed_per_window = b"a half"
    assert net.outcome(0, message) == ("sdk", 2), "where the SDK cannot even decode it"


def test_submitted_evidence_is_refused_as_without_a_handler() -> None:
    net = Net()
    equivocation = message_class("cosmos.evidence.v1beta1.Equivocation")(height=1, power=1, consensus_address=cons_text(0))
    equivocation.time.seconds = GENESIS_S
    submit = message_class("cosmos.evidence.v1beta1.MsgSubmitEvidence")(submitter=text(KEYS[5]), evidence=pack_any(equivocation))
    assert net.outcome(5, submit) == ("evidence", 2)
    submit.evidence.CopyFrom(pack_any(message_class("cosmos.slashing.v1beta1.Params")()))
    with pytest.raises(TxDecodeError, match="against interface"):
        net.outcome(5, submit)
    assert not net.info(0)["tombstoned"]


def test_an_exported_state_goes_on_elsewhere() -> None:
    net = Net()
    until_jailed(net, 1)
    net.block(evidence=[net.double_sign(2, 2)])
    net.silent.add(3)
    for _ in range(3):
        net.block()
    exported = net.app.export()
    assert [len(one["missed_blocks"]) for one in exported["slashing"]["missed_blocks"] if one["address"] == cons_text(3)] == [3]
    document = {**net.driver.genesis, "app_state": {**exported, "genutil": {"gen_txs": []}}, "genesis_time": "2026-01-01T01:00:00Z"}
    other = Net(document=document)
    other.block()
    for name in ("slashing", "evidence"):
        assert other.app.export()[name] == exported[name]
    assert other.votes() == [0, 3]
    assert {number: other.info(number)["tombstoned"] for number in range(4)} == {0: False, 1: False, 2: True, 3: False}
    other.sequences = {number: net.sequences[number] for number in range(4)}
    assert other.outcome(2, unjail(2)) == ("slashing", 4)
    assert other.outcome(1, unjail(1)) == ("", 0)
    other.fine()


@pytest.mark.parametrize(("initial_height", "start_height"), [(1, "0"), (1000, "1000")])
def test_genesis_validators_are_watched_from_the_first_height_on(initial_height: int, start_height: str) -> None:
    net = Net(initial_height=initial_height)
    for _ in range(2):
        net.block()
    assert [net.info(number)["start_height"] for number in range(4)] == [start_height] * 4
    told = until_jailed(net, 1)
    assert (told["jailed"], net.driver.height) == (cons_text(1), int(start_height) + WINDOW + 1)


def test_signing_infos_come_in_pages_and_by_address() -> None:
    net = Net()
    net.block()
    pages, key = [], None
    while key != "":
        fields = {"key": base64.b64decode(key), "limit": 3} if key else {"limit": 3}
        page = net.ask("cosmos.slashing.v1beta1.Query/SigningInfos", pagination=fields)
        pages.append([one["address"] for one in page["info"]])
        key = page["pagination"]["next_key"] or ""
    assert [len(page) for page in pages] == [3, 1]
    assert [address for page in pages for address in page] == [cons_text(number) for number in sorted(range(4), key=cons)]
    for address, problem in (("", "expected a consensus address"), (cons_text(5), "not found"), (operator(0), "prefix"), ("stvalcons1", "bech32")):
        with pytest.raises(Exception, match=problem):
            net.ask("cosmos.slashing.v1beta1.Query/SigningInfo", cons_address=address)


# --- command line -------------------------------------------------------------------------------------------------------------


def test_the_unjail_command_frees_the_senders_validator(tmp_path: Path) -> None:
    open_keyring("test", tmp_path, ask=lambda _: "", notify=lambda _: None).add_private("alice", KEYS[1])
    given = ("--from", "alice", "--fees", "400000gwei", "--gas", "400000", "--generate-only", "--keyring-backend", "test")
    code, out, err = stchaind(tmp_path, "tx", "slashing", "unjail", *given)
    assert (code, err) == (0, "")
    assert json.loads(out)["body"]["messages"] == [{"@type": "/cosmos.slashing.v1beta1.MsgUnjail", "validator_addr": operator(1)}]


@pytest.mark.parametrize("by_key", [True, False])
def test_a_signing_info_is_asked_for_by_address_or_by_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_key: bool) -> None:
    net = Net()
    net.block()
    monkeypatch.setattr(Remote, "rpc", lambda self, path, request, height=0: net.app.query_rpc(path, request)[0])
    key = json.dumps(to_json(public_key_to_any(ValidatorKey.numbered(2).public_key)))
    code, out, _ = stchaind(tmp_path, "query", "slashing", "signing-info", key if by_key else cons_text(2), "-o", "json")
    assert (code, json.loads(out)["val_signing_info"]) == (0, net.info(2))
    for command in (("slashing", "params"), ("slashing", "signing-infos"), ("evidence", "list")):
        assert stchaind(tmp_path, "query", *command)[0] == 0
    code, _, err = stchaind(tmp_path, "query", "slashing", "signing-info", '{"@type": "/cosmos.slashing.v1beta1.Params"}')
    assert code != 0
    assert "key" in err
