"""Messages of staking through CheckTx and blocks, and what CometBFT and queries see of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from chain.app import build_application
from chain.application import Settings
from chain.authority import GOV_ADDRESS
from chain.codec.json import to_json
from chain.codec.registry import message_class
from chain.coins import Coin
from chain.crypto import address as bech32
from chain.crypto.keys import public_key_to_any
from chain.errors import AppError, TxDecodeError
from chain.module import GenesisError
from chain.store.kv import MemoryBackend
from chain.testing.driver import Driver, TxResult
from chain.testing.validators import ValidatorKey
from chain.tx.build import Signer, build_tx
from modules.staking import authorization
from tests.modules import stake
from tests.support import CHAIN_ID, FUNDS_WEI, KEYS, chain, text

PACKAGE = "cosmos.staking.v1beta1"
UNIT = 10**15
UNBONDING_S = 1_814_400
GAS = 1_500_000
FEE_WEI = GAS * 10**9


def operator(number: int) -> str:
    return bech32.encode(KEYS[number].public_key.address, bech32.VALIDATOR)


def wei(amount: int) -> dict[str, str]:
    return {"denom": "wei", "amount": str(amount)}


class Net:
    """A chain whose first validator is KEYS[0]'s, with 1000 units of power."""

    def __init__(self, driver: Driver | None = None) -> None:
        self.driver = driver or chain()
        self.sequences = {0: 1}

    def raw(self, sender: int, *messages: Any) -> bytes:
        sequence = self.sequences.get(sender, 0)
        self.sequences[sender] = sequence + 1
        signer = Signer(KEYS[sender].public_key, sequence, sender)
        return build_tx(list(messages), fee=(Coin("wei", FEE_WEI),), gas_limit=GAS, signers=[signer]).sign([KEYS[sender]], CHAIN_ID)

    def run(self, sender: int, *messages: Any, step_s: int | None = None) -> TxResult:
        """The result of one transaction, checked first, in a block of its own."""
        raw = self.raw(sender, *messages)
        assert self.driver.check_tx(raw).code == 0
        self.driver.mempool.clear()
        return self.driver.next_block([raw], time_step_s=step_s).results[0]

    def ok(self, sender: int, *messages: Any, step_s: int | None = None) -> TxResult:
        result = self.run(sender, *messages, step_s=step_s)
        assert result.code == 0, result.log
        return result

    def wait(self, step_s: int | None = None, blocks: int = 1) -> dict[str, Any]:
        for _ in range(blocks):
            self.driver.next_block(time_step_s=step_s)
        response = self.driver.blocks[self.driver.height].response
        return {"events": [(event.type, {one.key: one.value for one in event.attributes}) for event in response.events], "response": response}

    def ask(self, name: str, **fields: Any) -> Any:
        request = message_class(f"{PACKAGE}.Query{name}Request")(**fields)
        app: Any = self.driver.apps[0]
        return to_json(app.query_rpc(f"/{PACKAGE}.Query/{name}", request)[0])

    def powers(self) -> dict[bytes, int]:
        """What CometBFT will have as its set after the next block."""
        return {one.address: one.power for one in self.driver.next_validators}

    def has_history(self, height: int) -> bool:
        asked = message("QueryHistoricalInfoRequest", height=height).SerializeToString()
        return bool(self.driver.query(f"/{PACKAGE}.Query/HistoricalInfo", asked).code == 0)

    def fine(self) -> None:
        app: Any = self.driver.apps[0]
        assert app.broken_invariants() == []


def message(name: str, **fields: Any) -> Any:
    return message_class(f"{PACKAGE}.{name}")(**fields)


def create(number: int, amount: int = 50 * UNIT, **fields: Any) -> Any:
    rates = {"rate": str(10**17), "max_rate": str(2 * 10**17), "max_change_rate": str(10**16)}
    given: dict[str, Any] = {
        "description": {"moniker": f"v{number}"},
        "commission": rates,
        "min_self_delegation": "1",
        "validator_address": operator(number),
        "pubkey": public_key_to_any(ValidatorKey.numbered(number).public_key),
        "value": wei(amount),
    }
    return message("MsgCreateValidator", **{**given, **fields})


def delegate(delegator: int, validator: int, amount: int) -> Any:
    return message("MsgDelegate", delegator_address=text(KEYS[delegator]), validator_address=operator(validator), amount=wei(amount))


def undelegate(delegator: int, validator: int, amount: int) -> Any:
    return message("MsgUndelegate", delegator_address=text(KEYS[delegator]), validator_address=operator(validator), amount=wei(amount))


def redelegate(delegator: int, source: int, destination: int, amount: int) -> Any:
    return message(
        "MsgBeginRedelegate",
        delegator_address=text(KEYS[delegator]),
        validator_src_address=operator(source),
        validator_dst_address=operator(destination),
        amount=wei(amount),
    )


def cancel(delegator: int, validator: int, amount: int, height: int) -> Any:
    addresses = {"delegator_address": text(KEYS[delegator]), "validator_address": operator(validator)}
    return message("MsgCancelUnbondingDelegation", **addresses, amount=wei(amount), creation_height=height)


def edit(number: int, **fields: Any) -> Any:
    description = {name: "[do-not-modify]" for name in ("moniker", "identity", "website", "security_contact", "details")}
    return message("MsgEditValidator", **{"description": description, "validator_address": operator(number), **fields})


def events_of(result: TxResult, kind: str) -> list[dict[str, str]]:
    return [dict(pairs) for name, pairs in result.events if name == kind]


def test_a_new_validator_joins_cometbfts_set_and_its_delegators_change_its_power() -> None:
    net = Net()
    result = net.ok(1, create(1, 50 * UNIT))
    assert events_of(result, "create_validator") == [{"validator": operator(1), "amount": f"{50 * UNIT}wei", "msg_index": "0"}]
    key = ValidatorKey.numbered(1).address
    assert net.powers()[key] == 50
    result = net.ok(2, delegate(2, 1, 7 * UNIT + 1))
    shares = f"{7 * UNIT + 1}.000000000000000000"
    expected = {"validator": operator(1), "delegator": text(KEYS[2]), "amount": f"{7 * UNIT + 1}wei", "new_shares": shares, "msg_index": "0"}
    assert events_of(result, "delegate") == [expected]
    assert net.powers()[key] == 57
    found = net.ask("Validator", validator_addr=operator(1))["validator"]
    assert (found["status"], found["tokens"]) == ("BOND_STATUS_BONDED", str(57 * UNIT + 1))
    assert net.ask("Pool")["pool"] == {"bonded_tokens": str(1057 * UNIT + 1), "not_bonded_tokens": "0"}
    assert net.ask("Delegation", delegator_addr=text(KEYS[2]), validator_addr=operator(1))["delegation_response"]["balance"] == wei(7 * UNIT + 1)
    net.wait(blocks=3)
    net.fine()


def test_unbonding_stake_comes_back_after_21_days_and_no_block_sooner() -> None:
    net = Net()
    net.ok(2, delegate(2, 0, 9 * UNIT))
    before = net.driver.time_ns
    result = net.ok(2, undelegate(2, 0, 4 * UNIT))
    end = net.driver.time_ns // 10**9 + UNBONDING_S
    [event] = events_of(result, "unbond")
    assert event["amount"] == f"{4 * UNIT}wei"
    assert event["completion_time"].endswith("Z")
    response = message_class("cosmos.base.abci.v1beta1.TxMsgData").FromString(result.data).msg_responses[0]
    answered = message_class(f"{PACKAGE}.MsgUndelegateResponse").FromString(response.value)
    assert (answered.completion_time.seconds, answered.amount.amount) == (end, str(4 * UNIT))
    [entry] = net.ask("UnbondingDelegation", delegator_addr=text(KEYS[2]), validator_addr=operator(0))["unbond"]["entries"]
    assert (entry["creation_height"], entry["balance"], entry["unbonding_id"]) == (str(net.driver.height), str(4 * UNIT), "1")
    held = funds(net, 2)
    done = net.wait(UNBONDING_S - 1)
    assert not [kind for kind, _ in done["events"] if kind == "complete_unbonding"]
    assert funds(net, 2) == held
    done = net.wait(1)
    [completed] = [pairs for kind, pairs in done["events"] if kind == "complete_unbonding"]
    assert completed == {"amount": f"{4 * UNIT}wei", "validator": operator(0), "delegator": text(KEYS[2]), "mode": "EndBlock"}
    assert funds(net, 2) == held + 4 * UNIT
    assert net.driver.time_ns - before >= UNBONDING_S * 10**9
    assert net.ask("DelegatorUnbondingDelegations", delegator_addr=text(KEYS[2]))["unbonding_responses"] == []
    net.fine()


def funds(net: Net, number: int) -> int:
    app: Any = net.driver.apps[0]
    request = message_class("cosmos.bank.v1beta1.QueryBalanceRequest")(address=text(KEYS[number]), denom="wei")
    return int(app.query_rpc("/cosmos.bank.v1beta1.Query/Balance", request)[0].balance.amount)


def test_a_redelegation_moves_power_at_once_and_stays_liable() -> None:
    net = Net()
    net.ok(1, create(1))
    net.ok(2, delegate(2, 0, 10 * UNIT))
    result = net.ok(2, redelegate(2, 0, 1, 6 * UNIT))
    [event] = events_of(result, "redelegate")
    assert {**event, "completion_time": ""} == {
        "source_validator": operator(0),
        "destination_validator": operator(1),
        "amount": f"{6 * UNIT}wei",
        "completion_time": "",
        "msg_index": "0",
    }
    assert net.powers() == {ValidatorKey.numbered(0).address: 1004, ValidatorKey.numbered(1).address: 56}
    [found] = net.ask("Redelegations", delegator_addr=text(KEYS[2]), src_validator_addr=operator(0), dst_validator_addr=operator(1))[
        "redelegation_responses"
    ]
    assert [entry["balance"] for entry in found["entries"]] == [str(6 * UNIT)]
    again = net.run(2, redelegate(2, 1, 0, UNIT))
    assert (again.codespace, again.code) == ("staking", 32)
    done = net.wait(UNBONDING_S)
    assert [pairs["amount"] for kind, pairs in done["events"] if kind == "complete_redelegation"] == [f"{6 * UNIT}wei"]
    net.ok(2, redelegate(2, 1, 0, UNIT))
    net.fine()


def test_a_cancelled_unbonding_is_delegated_again() -> None:
    net = Net()
    net.ok(2, delegate(2, 0, 10 * UNIT))
    net.ok(2, undelegate(2, 0, 10 * UNIT))
    height = net.driver.height
    result = net.ok(2, cancel(2, 0, 4 * UNIT, height))
    expected = {
        "amount": f"{4 * UNIT}wei",
        "validator": operator(0),
        "delegator": text(KEYS[2]),
        "creation_height": str(height),
        "msg_index": "0",
    }
    assert events_of(result, "cancel_unbonding_delegation") == [expected]
    [entry] = net.ask("UnbondingDelegation", delegator_addr=text(KEYS[2]), validator_addr=operator(0))["unbond"]["entries"]
    assert (entry["balance"], entry["initial_balance"]) == (str(6 * UNIT), str(6 * UNIT))
    assert net.powers() == {ValidatorKey.numbered(0).address: 1004}
    net.ok(2, cancel(2, 0, 6 * UNIT, height))
    assert net.ask("DelegatorUnbondingDelegations", delegator_addr=text(KEYS[2]))["unbonding_responses"] == []
    held = funds(net, 2)
    net.wait(UNBONDING_S)
    assert funds(net, 2) == held
    net.fine()


def test_commission_changes_once_a_day_and_by_little() -> None:
    net = Net()
    too_soon = net.run(0, edit(0, commission_rate=str(11 * 10**16)))
    assert (too_soon.codespace, too_soon.code) == ("staking", 12)
    net.wait(86_400)
    too_much = net.run(0, edit(0, commission_rate=str(12 * 10**16)))
    assert (too_much.codespace, too_much.code) == ("staking", 15)
    result = net.ok(0, edit(0, commission_rate=str(11 * 10**16), description={"moniker": "new", "details": "[do-not-modify]"}))
    found = net.ask("Validator", validator_addr=operator(0))["validator"]
    assert found["commission"]["commission_rates"]["rate"] == "0.110000000000000000"
    assert found["description"]["moniker"] == "new"
    assert 'rate:"110000000000000000"' in events_of(result, "edit_validator")[0]["commission_rate"]
    soon = net.run(0, edit(0, commission_rate=str(10**17)), step_s=86_399)
    assert soon.code == 12
    net.ok(0, edit(0, commission_rate=str(10**17)), step_s=1)


BAD: list[tuple[str, int, Any, tuple[str, int]]] = [
    ("another validator of the operator", 0, create(0), ("staking", 4)),
    ("another validator of the key", 1, create(1, pubkey=public_key_to_any(ValidatorKey.numbered(0).public_key)), ("staking", 5)),
    ("a key of the wrong kind", 1, create(1, pubkey=public_key_to_any(KEYS[2].public_key)), ("staking", 6)),
    ("no key", 1, create(1, pubkey=None), ("staking", 39)),
    ("no value", 1, create(1, 0), ("sdk", 18)),
    ("another denom", 1, create(1, value={"denom": "abc", "amount": "5"}), ("sdk", 18)),
    ("no description", 1, create(1, description={}), ("sdk", 18)),
    ("a long moniker", 1, create(1, description={"moniker": "x" * 71}), ("sdk", 18)),
    ("negative commission", 1, create(1, commission={"rate": "-1", "max_rate": "1", "max_change_rate": "1"}), ("staking", 9)),
    ("huge commission", 1, create(1, commission={"rate": "1", "max_rate": str(10**18 + 1), "max_change_rate": "1"}), ("staking", 10)),
    ("commission above its max", 1, create(1, commission={"rate": "2", "max_rate": "1", "max_change_rate": "1"}), ("staking", 11)),
    ("negative change", 1, create(1, commission={"rate": "1", "max_rate": "1", "max_change_rate": "-1"}), ("staking", 13)),
    ("change above the max", 1, create(1, commission={"rate": "1", "max_rate": "1", "max_change_rate": "2"}), ("staking", 14)),
    ("no least self-delegation", 1, create(1, min_self_delegation="0"), ("sdk", 18)),
    ("less than its least", 1, create(1, 50, min_self_delegation="51"), ("staking", 16)),
    ("more than there is", 1, create(1, 2 * FUNDS_WEI), ("sdk", 5)),
    ("edit of nobody", 1, edit(1), ("staking", 3)),
    ("edit to an empty description", 0, edit(0, description={}), ("sdk", 18)),
    ("edit to a long description", 0, edit(0, description={"details": "x" * 281}), ("sdk", 18)),
    ("edit to a commission above 1", 0, edit(0, commission_rate=str(10**18 + 1)), ("sdk", 18)),
    ("edit to a lower least", 0, edit(0, min_self_delegation="1"), ("staking", 17)),
    ("edit to no least", 0, edit(0, min_self_delegation="-1"), ("sdk", 18)),
    ("edit to more than it has", 0, edit(0, min_self_delegation=str(10**30)), ("staking", 16)),
    ("delegation to nobody", 2, delegate(2, 3, UNIT), ("staking", 3)),
    ("delegation of nothing", 2, delegate(2, 0, 0), ("sdk", 18)),
    ("delegation of less than nothing", 2, delegate(2, 0, -1), ("sdk", 18)),
    ("delegation of more than there is", 2, delegate(2, 0, 2 * FUNDS_WEI), ("sdk", 5)),
    ("undelegation from nobody", 2, undelegate(2, 3, UNIT), ("staking", 3)),
    ("undelegation without a delegation", 2, undelegate(2, 0, UNIT), ("staking", 19)),
    ("undelegation of more", 0, undelegate(0, 0, 1001 * UNIT), ("sdk", 18)),
    ("undelegation beyond 315 bits", 0, undelegate(0, 0, 2**256 - 1), ("undefined", 111222)),
    ("redelegation to itself", 0, redelegate(0, 0, 0, UNIT), ("staking", 29)),
    ("redelegation to nobody", 0, redelegate(0, 0, 3, UNIT), ("staking", 31)),
    ("redelegation from nobody", 0, redelegate(0, 3, 0, UNIT), ("staking", 3)),
    ("cancel of nothing", 2, cancel(2, 0, UNIT, 1), ("undefined", 1)),
    ("cancel at no height", 2, cancel(2, 0, UNIT, 0), ("sdk", 18)),
    ("parameters by anybody", 2, message("MsgUpdateParams", authority=text(KEYS[2])), ("gov", 13)),
]


@pytest.fixture(scope="module")
def shared() -> Net:
    return Net()


@pytest.mark.parametrize(("sender", "bad", "expected"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_a_bad_message_fails_with_the_sdks_code_and_changes_nothing(shared: Net, sender: int, bad: Any, expected: tuple[str, int]) -> None:
    before = shared.ask("Validators"), shared.ask("Pool")
    result = shared.run(sender, bad)
    assert (result.codespace, result.code) == expected, result.log
    assert (shared.ask("Validators"), shared.ask("Pool")) == before
    shared.fine()


@pytest.mark.parametrize(
    "bad",
    [
        delegate(2, 0, 1).__class__(delegator_address=text(KEYS[2]), validator_address=operator(0), amount={"denom": "wei", "amount": "1.5"}),
        create(2, commission={"rate": "one"}),
        edit(0, min_self_delegation="1" * 90),
    ],
    ids=["amount", "rate", "least"],
)
def test_what_is_no_number_does_not_decode(bad: Any) -> None:
    net = Net()
    sender = 0 if "Edit" in type(bad).__name__ else 2
    answer = net.driver.check_tx(net.raw(sender, bad))
    assert (answer.codespace, answer.code) == ("sdk", 2), answer.log


@pytest.mark.parametrize(
    "absent",
    [
        {"commission": {"rate": "1", "max_change_rate": "1"}},
        {"commission": {"max_rate": "1", "max_change_rate": "1"}},
        {"commission": {"rate": "1", "max_rate": "1"}},
        {"min_self_delegation": ""},
    ],
    ids=["maximum", "rate", "change", "least"],
)
def test_a_number_that_is_not_on_the_wire_is_the_sdks_panic(absent: Any) -> None:
    """Clients of the SDK write a zero, which is another message: a field that is left out is nothing there."""
    book = stake.Ledger()
    with pytest.raises(AppError) as refused:
        book.create(1, **absent)
    assert (refused.value.codespace, refused.value.code) == ("undefined", 111222)
    book.create(1, commission={"rate": "0", "max_rate": "0", "max_change_rate": "0"})


def test_numbers_are_kept_without_leading_zeros() -> None:
    book = stake.Ledger()
    book.create(1, commission={"rate": "007", "max_rate": "00100", "max_change_rate": "01"}, min_self_delegation="2")
    found = book.validator(1)
    rates = found.commission.commission_rates
    assert (rates.rate, rates.max_rate, rates.max_change_rate, found.min_self_delegation) == ("7", "100", "1", "2")
    with pytest.raises(AppError, match="without zeros in front"):
        book.create(2, min_self_delegation="02")


def test_a_duration_of_more_than_64_bits_does_not_decode() -> None:
    with pytest.raises(TxDecodeError, match="duration out of range"):
        Net().raw(2, message("MsgUpdateParams", authority=text(KEYS[2]), params={"unbonding_time": {"seconds": 10**11}}))


def test_seven_entries_of_a_pair_are_enough() -> None:
    net = Net()
    net.ok(1, create(1))
    net.ok(2, delegate(2, 0, 100 * UNIT))
    for _ in range(7):
        net.ok(2, undelegate(2, 0, UNIT), redelegate(2, 0, 1, UNIT))
    for bad, code in ((undelegate(2, 0, UNIT), 27), (redelegate(2, 0, 1, UNIT), 33)):
        result = net.run(2, bad)
        assert (result.codespace, result.code) == ("staking", code)
    net.wait(UNBONDING_S)
    net.ok(2, undelegate(2, 0, UNIT), redelegate(2, 0, 1, UNIT))
    net.fine()


def test_an_operator_that_takes_its_stake_back_is_jailed_and_the_others_can_leave() -> None:
    net = Net()
    net.ok(1, create(1, 50 * UNIT, min_self_delegation=str(20 * UNIT)))
    net.ok(2, delegate(2, 1, 5 * UNIT))
    net.ok(1, undelegate(1, 1, 31 * UNIT))
    found = net.ask("Validator", validator_addr=operator(1))["validator"]
    assert (found["jailed"], found["status"], found["tokens"]) == (True, "BOND_STATUS_UNBONDING", str(24 * UNIT))
    assert net.powers() == {ValidatorKey.numbered(0).address: 1000}
    assert net.ask("Pool")["pool"]["not_bonded_tokens"] == str(55 * UNIT)
    result = net.run(1, cancel(1, 1, UNIT, net.driver.height))
    assert (result.codespace, result.code) == ("staking", 7)
    net.wait(UNBONDING_S)
    assert net.ask("Validator", validator_addr=operator(1))["validator"]["status"] == "BOND_STATUS_UNBONDED"
    net.ok(2, redelegate(2, 1, 0, 2 * UNIT))
    assert net.ask("Redelegations", delegator_addr=text(KEYS[2]))["redelegation_responses"] == [], "an unbonded validator is liable for nothing"
    net.ok(2, undelegate(2, 1, 3 * UNIT))
    net.ok(1, undelegate(1, 1, 19 * UNIT))
    assert net.run(2, delegate(2, 1, 1)).code == 3, "without shares it is gone"
    net.wait(UNBONDING_S)
    net.fine()


def test_only_the_strongest_sign_and_equal_ones_go_by_address() -> None:
    net = Net(started(max_validators=2))
    net.ok(1, create(1, 50 * UNIT))
    net.ok(2, create(2, 50 * UNIT))
    first = min((1, 2), key=lambda number: KEYS[number].public_key.address)
    assert set(net.powers()) == {ValidatorKey.numbered(number).address for number in (0, first)}
    other = 3 - first
    net.ok(3, delegate(3, other, UNIT))
    assert set(net.powers()) == {ValidatorKey.numbered(number).address for number in (0, other)}
    found = {one["operator_address"]: one["status"] for one in net.ask("Validators")["validators"]}
    assert (found[operator(first)], found[operator(other)]) == ("BOND_STATUS_UNBONDING", "BOND_STATUS_BONDED")
    assert [one["operator_address"] for one in net.ask("Validators", status="BOND_STATUS_UNBONDING")["validators"]] == [operator(first)]
    net.ok(3, delegate(3, first, 2 * UNIT))
    assert set(net.powers()) == {ValidatorKey.numbered(number).address for number in (0, first)}
    net.wait(UNBONDING_S, 2)
    assert net.ask("Validator", validator_addr=operator(first))["validator"]["status"] == "BOND_STATUS_BONDED", "it left the queue when it came back"
    net.fine()


def started(**params: Any) -> Driver:
    driver = chain(blocks=0)
    driver.apps = [build_application(MemoryBackend(), Settings())]
    driver.genesis["app_state"]["staking"]["params"].update(params)
    driver.start()
    driver.next_block()
    return driver


def test_history_holds_headers_and_sets_and_is_pruned() -> None:
    net = Net(started(historical_entries=3))
    net.ok(1, create(1))
    net.wait(blocks=4)
    height = net.driver.height
    found = net.ask("HistoricalInfo", height=height)["hist"]
    block = net.driver.blocks[height].block.header
    header = found["header"]
    assert (header["chain_id"], header["height"]) == (CHAIN_ID, str(height))
    assert header == to_json(
        type(block)(
            chain_id=CHAIN_ID,
            height=height,
            time=block.time,
            proposer_address=block.proposer_address,
            next_validators_hash=block.next_validators_hash,
            app_hash=block.app_hash,
        )
    )
    assert [one["tokens"] for one in found["valset"]] == [str(1000 * UNIT), str(50 * UNIT)]
    assert [net.has_history(at) for at in range(height - 4, height + 1)] == [False, False, True, True, True]


def test_export_and_import_go_on_with_everything_in_flight() -> None:
    net = Net()
    net.ok(1, create(1, 50 * UNIT, min_self_delegation=str(20 * UNIT)))
    net.ok(2, create(2, 60 * UNIT))
    net.ok(3, delegate(3, 0, 20 * UNIT), delegate(3, 1, 5 * UNIT), undelegate(3, 0, 3 * UNIT), redelegate(3, 0, 2, 4 * UNIT))
    net.ok(1, undelegate(1, 1, 40 * UNIT))
    net.wait()
    exported = net.driver.apps[0].export()  # type: ignore[attr-defined]
    section = exported["staking"]
    assert section["exported"] is True
    assert [len(section[name]) for name in ("unbonding_delegations", "redelegations", "validators", "last_validator_powers")] == [2, 1, 3, 2]
    fresh = build_application(MemoryBackend(), Settings())
    again = Driver([fresh], {**net.driver.genesis, "app_state": {**exported}})
    again.genesis.update(genesis_time="2026-01-01T00:05:00Z", initial_height=net.driver.height + 1)
    again.start()
    again.next_block()
    second: Any = fresh.export()["staking"]
    assert json.dumps(second, sort_keys=True) == json.dumps(section, sort_keys=True)
    moved = Net(again)
    moved.sequences = dict(net.sequences)
    assert moved.powers() == net.powers()
    moved.ok(3, undelegate(3, 0, UNIT))
    entries = moved.ask("UnbondingDelegation", delegator_addr=text(KEYS[3]), validator_addr=operator(0))["unbond"]["entries"]
    ids = [int(entry["unbonding_id"]) for entry in entries]
    assert len(set(ids)) == 2
    assert ids[1] == 5, "ids go on after the highest"
    before = funds(moved, 3)
    moved.wait(UNBONDING_S)
    moved.wait(UNBONDING_S)
    assert funds(moved, 3) == before + 4 * UNIT
    assert moved.ask("Validator", validator_addr=operator(1))["validator"]["status"] == "BOND_STATUS_UNBONDED"
    moved.fine()
    net.fine()


def broken(**changes: Any) -> dict[str, Any]:
    net = Net()
    net.ok(2, delegate(2, 0, UNIT), undelegate(2, 0, UNIT // 2))
    section = json.loads(json.dumps(net.driver.apps[0].export()["staking"]))  # type: ignore[attr-defined]
    for path, value in changes.items():
        target: Any = section
        *parts, last = path.split("__")
        for part in parts:
            target = target[int(part)] if part.isdigit() else target[part]
        target[last] = value
    return section  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("params__max_validators", 0, "params"),
        ("params__unbonding_time", "0s", "params"),
        ("params__bond_denom", "!", "params"),
        ("params__min_commission_rate", "1.1", "params"),
        ("validators__0__tokens", "-1", "validators[0]"),
        ("validators__0__status", "BOND_STATUS_UNSPECIFIED", "validators[0]"),
        ("validators__0__jailed", True, "validators[0]"),
        ("validators__0__commission__commission_rates__rate", "1.000000000000000001", "validators[0]"),
        ("validators__0__commission__commission_rates__max_change_rate", "2.0", "validators[0]"),
        ("validators__0__unbonding_ids", [str((1 << 64) - 1)], "validators[0]"),
        ("validators__0__delegator_shares", f"{1 << 150}.0", "validators[0]"),
        ("unbonding_delegations__0__entries__0__unbonding_id", str((1 << 64) - 1), "unbonding_delegations[0]"),
        ("unbonding_delegations__0__entries__0__initial_balance", str(1 << 255), "unbonding_delegations[0]"),
        ("validators__0__delegator_shares", "1.0", "validators[0].delegator_shares"),
        ("delegations__0__shares", "0.0", "delegations[0]"),
        ("delegations__0__validator_address", operator(3), "delegations[0]"),
        ("unbonding_delegations__0__entries", [], "unbonding_delegations[0]"),
        ("last_validator_powers__0__address", operator(3), "last_validator_powers[0]"),
    ],
)
def test_a_broken_genesis_section_is_refused_by_the_name_of_its_field(path: str, value: Any, named: str) -> None:
    app: Any = build_application(MemoryBackend(), Settings())
    genesis = next(module.genesis for module in app.modules if module.name == "staking")
    genesis.validate(broken())
    with pytest.raises(GenesisError) as caught:
        genesis.validate(broken(**{path: value}))
    assert caught.value.path == f"app_state.staking.{named}"


@pytest.mark.parametrize("name", ["validators", "delegations", "unbonding_delegations", "last_validator_powers"])
def test_a_record_twice_in_a_genesis_section_is_refused_in_capitals_too(name: str) -> None:
    app: Any = build_application(MemoryBackend(), Settings())
    genesis = next(module.genesis for module in app.modules if module.name == "staking")
    section = broken()
    again = json.loads(json.dumps(section[name][0]))
    for field in ("operator_address", "delegator_address", "address"):
        if field in again:
            again[field] = again[field].upper()
    section[name].append(again)
    with pytest.raises(GenesisError) as caught:
        genesis.validate(section)
    assert caught.value.path == f"app_state.staking.{name}[{len(section[name]) - 1}]"


def test_a_validator_that_joined_in_capitals_is_exported_and_imported() -> None:
    net = Net()
    net.ok(1, create(1, validator_address=operator(1).upper()))
    net.ok(3, delegate(3, 1, 20 * UNIT), undelegate(3, 1, 3 * UNIT), redelegate(3, 1, 0, 4 * UNIT))
    net.ok(1, undelegate(1, 1, UNIT))
    net.wait(5, 2)
    net.fine()
    section = net.driver.apps[0].export()  # type: ignore[attr-defined]
    fresh = build_application(MemoryBackend(), Settings())
    again = Driver([fresh], {**net.driver.genesis, "app_state": section})
    again.genesis.update(genesis_time="2026-01-01T00:05:00Z", initial_height=net.driver.height + 1)
    again.start()
    again.next_block()
    assert Net(again).powers() == net.powers()
    assert fresh.broken_invariants() == []


def test_a_denied_validator_in_capitals_is_denied() -> None:
    """Beside the SDK, which compares text: there a grantee that may not delegate to a validator writes its address in capitals, and may."""
    grant = message("StakeAuthorization", authorization_type=1, deny_list={"address": [operator(0)]})
    book = stake.Ledger()
    for address in (operator(0), operator(0).upper()):
        asked = message("MsgDelegate", delegator_address=text(KEYS[2]), validator_address=address, amount=wei(1))
        with pytest.raises(AppError, match="cannot delegate/undelegate") as refused:
            authorization.accept(book.ctx, grant, asked)
        assert (refused.value.codespace, refused.value.code) == ("sdk", 4)


def test_hooks_at_the_end_of_a_block_see_what_they_cost() -> None:
    """By it they bound what users queued."""
    net, seen = Net(), list[int]()
    app: Any = net.driver.apps[0]

    def hook(ctx: Any, state: Any) -> None:
        before = ctx.gas.consumed
        state.store("staking").get(b"\x51")
        seen.append(ctx.gas.consumed - before)

    app._end.append(hook)
    net.wait()
    assert len(seen) == 1
    assert seen[0] > 1000


def test_the_denom_that_is_staked_stays_while_there_is_stake() -> None:
    """Another denom would leave the pools without a coin of it: the next validator that joins or leaves the set would stop the chain."""
    book = stake.Ledger()
    changed = {**GOOD_PARAMS, "bond_denom": "other"}
    book.create(1)
    with pytest.raises(AppError, match="bond denom cannot become other") as refused:
        book.do("MsgUpdateParams", authority=bech32.encode(GOV_ADDRESS), params=changed)
    assert (refused.value.codespace, refused.value.code) == ("undefined", 1)
    book.block()
    empty = stake.Ledger()
    empty.do("MsgUpdateParams", authority=bech32.encode(GOV_ADDRESS), params=changed)
    assert empty.keeper.bond_denom(empty.state) == "other"


def test_a_power_of_more_than_63_bits_fails_the_delegation_not_the_block() -> None:
    book = stake.Ledger(people=1)
    book.bank.mint(book.ctx, book.state, "mint", (Coin("wei", UNIT << 63),))
    book.bank.send_from_module(book.ctx, book.state, "mint", stake.person(1), (Coin("wei", UNIT << 63),))
    book.create(1)
    with pytest.raises(OverflowError):
        book.delegate(1, 1, UNIT << 63)


def test_pages_of_every_list_are_complete_and_in_order() -> None:
    net = Net()
    for number in (1, 2):
        net.ok(number, create(number))
    for number in range(3, 6):
        for validator in range(3):
            net.ok(number, delegate(number, validator, 9 * UNIT))
        net.ok(number, undelegate(number, 0, UNIT), undelegate(number, 1, UNIT), redelegate(number, 0, 2, UNIT), redelegate(number, 0, 1, UNIT))
    cases = [
        ("Validators", "validators", {}, 3),
        ("ValidatorDelegations", "delegation_responses", {"validator_addr": operator(0)}, 4),
        ("ValidatorUnbondingDelegations", "unbonding_responses", {"validator_addr": operator(0)}, 3),
        ("DelegatorDelegations", "delegation_responses", {"delegator_addr": text(KEYS[4])}, 3),
        ("DelegatorUnbondingDelegations", "unbonding_responses", {"delegator_addr": text(KEYS[4])}, 2),
        ("DelegatorValidators", "validators", {"delegator_addr": text(KEYS[4])}, 3),
        ("Redelegations", "redelegation_responses", {"delegator_addr": text(KEYS[4])}, 2),
        ("Redelegations", "redelegation_responses", {"src_validator_addr": operator(0)}, 6),
    ]
    for name, field, request, count in cases:
        whole = net.ask(name, **request)
        assert len(whole[field]) == count, name
        assert whole["pagination"]["total"] == str(count)
        pages, key = [], b""
        while True:
            response = _page(net, name, request, key)
            pages.extend(to_json(one) for one in getattr(response, field))
            key = response.pagination.next_key
            if not key:
                break
        assert pages == whole[field], name
    one = net.ask("DelegatorValidator", delegator_addr=text(KEYS[4]), validator_addr=operator(1))
    assert one["validator"]["operator_address"] == operator(1)
    net.fine()


def _page(net: Net, name: str, request: dict[str, Any], key: bytes) -> Any:
    asked = message_class(f"{PACKAGE}.Query{name}Request")(**request, pagination={"limit": 1, "key": key})
    app: Any = net.driver.apps[0]
    return app.query_rpc(f"/{PACKAGE}.Query/{name}", asked)[0]


GOOD_PARAMS: dict[str, Any] = {
    "unbonding_time": {"seconds": 60},
    "max_validators": 1,
    "max_entries": 2,
    "historical_entries": 0,
    "bond_denom": "wei",
    "min_commission_rate": str(15 * 10**16),
}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"unbonding_time": {}}, "unbonding time must be positive"),
        ({"unbonding_time": {"seconds": -1}}, "unbonding time must be positive"),
        ({"max_validators": 0}, "max validators must be positive"),
        ({"max_entries": 0}, "max entries must be positive"),
        ({"bond_denom": " "}, "cannot be blank"),
        ({"bond_denom": "1x"}, "invalid denom"),
        ({"min_commission_rate": ""}, "cannot be nil"),
        ({"min_commission_rate": "-1"}, "cannot be negative"),
        ({"min_commission_rate": str(10**18 + 1)}, "greater than 100%"),
    ],
)
def test_parameters_that_cannot_be_are_refused_by_name(changed: dict[str, Any], words: str) -> None:
    book = stake.Ledger()
    with pytest.raises(AppError, match=words) as refused:
        book.do("MsgUpdateParams", authority=bech32.encode(GOV_ADDRESS), params={**GOOD_PARAMS, **changed})
    assert (refused.value.codespace, refused.value.code) == ("undefined", 1)
    assert book.keeper.params(book.state).max_validators == 100


def test_new_parameters_count_from_the_same_block() -> None:
    book = stake.Ledger()
    for number in (1, 2):
        book.create(number, (50 + number) * UNIT)
    book.block()
    for _ in range(2):
        book.undelegate(1, 1, UNIT)
        book.block()
    book.do("MsgUpdateParams", authority=bech32.encode(GOV_ADDRESS), params=GOOD_PARAMS)
    with pytest.raises(AppError, match="too many unbonding"):
        book.undelegate(1, 1, UNIT)
    with pytest.raises(AppError, match=r"minimum rate of 0\.15"):
        book.create(3)
    book.block()
    assert book.set == {stake.consensus_key(2).raw: 52}, "one validator alone"
    assert book.keeper.historical_info(book.state, book.height) is None, "no more history"
    book.block(60)
    book.block()
    assert book.validator(1).status == 1, "its unbonding took the new 60 seconds"
    assert book.broken() == []
