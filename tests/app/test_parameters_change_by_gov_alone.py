"""Parameters: no user may change any, and what the gov account changes of auth, bank and consensus holds from the next block on."""

from __future__ import annotations

from typing import Any

import pytest

from chain.app import build_application
from chain.application import Application
from chain.codec.json import from_json
from chain.codec.registry import message_class
from chain.context import Context, Mode
from chain.errors import AppError
from chain.store.kv import MemoryBackend
from chain.store.state import EmptyView, State
from chain.tx.build import Signer, build_tx
from tests.support import CHAIN_ID, FEE, GAS, GOV, KEYS, at_end_of, chain, send, text

WITH_AUTHORITY = sorted(
    name
    for module in build_application(MemoryBackend()).modules
    for name in module.messages
    if "authority" in message_class(name).DESCRIPTOR.fields_by_name
)
CONSENSUS = "cosmos.consensus.v1.MsgUpdateParams"
AUTH = "cosmos.auth.v1beta1.MsgUpdateParams"
BANK = "cosmos.bank.v1beta1.MsgUpdateParams"
SWITCHES = "cosmos.bank.v1beta1.MsgSetSendEnabled"
AUTH_PARAMS = {
    "max_memo_characters": 10,
    "tx_sig_limit": 7,
    "tx_size_cost_per_byte": 10,
    "sig_verify_cost_ed25519": 590,
    "sig_verify_cost_secp256k1": 1000,
}
BLOCK = {"max_bytes": 2_000_000, "max_gas": 500_000}
EVIDENCE = {"max_age_num_blocks": 100_000, "max_age_duration": {"seconds": 172_800}, "max_bytes": 1_048_576}
ALL: dict[str, Any] = {"block": BLOCK, "evidence": EVIDENCE, "validator": {"pub_key_types": ["ed25519"]}}


def made(name: str, **fields: Any) -> Any:
    return message_class(name)(**{"authority": GOV, **fields})


@pytest.mark.parametrize("name", WITH_AUTHORITY)
def test_a_user_who_names_himself_the_authority_is_refused_before_anything_else(name: str) -> None:
    driver = chain()
    raw = build_tx([made(name, authority=text(KEYS[2]))], fee=FEE, gas_limit=GAS, signers=[Signer(KEYS[2].public_key, 0, 2)]).sign(
        [KEYS[2]], CHAIN_ID
    )
    result = driver.next_block([raw]).results[0]
    assert (result.codespace, result.code) in (("gov", 13), ("upgrade", 6)), result.log


def execute(app: Application, state: Any, message: Any, height: int = 10) -> None:
    app.executor._handlers[message.DESCRIPTOR.full_name].execute(Context(CHAIN_ID, height, 0, Mode.FINALIZE), state, message)


def test_authentication_follows_new_parameters_from_the_next_block_on() -> None:
    driver = chain(blocks=0)
    at_end_of(driver.apps[0], {2: made(AUTH, params=AUTH_PARAMS)})  # type: ignore[arg-type]
    driver.next_block()
    assert driver.next_block([send(1, 2, memo="eleven long")]).results[0].code == 0
    result = driver.next_block([send(1, 2, memo="eleven long", sequence=1)]).results[0]
    assert (result.codespace, result.code) == ("sdk", 12)


def test_sending_of_a_denom_is_switched_by_entry_and_by_default() -> None:
    driver = chain(blocks=0, denom="gold")
    switches = {"send_enabled": [{"denom": "gold", "enabled": True}, {"denom": "iron", "enabled": False}]}
    at_end_of(
        driver.apps[0],  # type: ignore[arg-type]
        {
            1: made(SWITCHES, **switches),
            2: made(BANK, params={"default_send_enabled": False}),
            3: made(SWITCHES, use_default_for=["gold", "gold", "unknown"]),
            4: made(BANK, params={"default_send_enabled": True}),
        },
    )
    driver.next_block()
    found = []
    for sequence in range(4):
        [gold, wei] = driver.next_block([send(1, 2, sequence=sequence, denom="gold"), send(3, 2, sequence=sequence)]).results
        found.append((gold.code, wei.code))
    assert found == [(0, 0), (0, 5), (5, 5), (0, 0)]


@pytest.mark.parametrize(
    ("message", "codespace", "code", "told"),
    [
        (made(AUTH, params={**AUTH_PARAMS, "tx_sig_limit": 0}), "undefined", 1, "params.tx_sig_limit"),
        (made(BANK, params={"send_enabled": [{"denom": "wei"}]}), "undefined", 1, "no longer supported"),
        (made(SWITCHES, send_enabled=[{"denom": "wei"}, {"denom": "wei", "enabled": True}]), "sdk", 18, "duplicate denom entries found for 'wei'"),
        (made(SWITCHES, send_enabled=[{"denom": "!"}]), "sdk", 18, "invalid denom"),
        (made(SWITCHES, use_default_for=["w"]), "sdk", 18, "invalid denom"),
        (made(SWITCHES, use_default_for=["wei"] * 1001), "sdk", 18, "at most 1000"),
        (made(CONSENSUS, **{name: value for name, value in ALL.items() if name != "block"}), "undefined", 1, "all parameters must be present"),
        (made(CONSENSUS, **{**ALL, "block": {"max_bytes": 0}}), "undefined", 1, "block.max_bytes"),
        (made(CONSENSUS, **{**ALL, "block": {"max_bytes": (100 << 20) + 1}}), "undefined", 1, "block.max_bytes"),
        (made(CONSENSUS, **{**ALL, "block": {"max_bytes": 1, "max_gas": -2}}), "undefined", 1, "block.max_gas"),
        (made(CONSENSUS, **{**ALL, "evidence": {**EVIDENCE, "max_bytes": 2_000_001}}), "undefined", 1, "evidence.max_bytes"),
        (made(CONSENSUS, **{**ALL, "evidence": {**EVIDENCE, "max_age_num_blocks": 0}}), "undefined", 1, "max_age_num_blocks"),
        (made(CONSENSUS, **{**ALL, "evidence": {**EVIDENCE, "max_age_duration": {"seconds": 9_223_372_037}}}), "undefined", 1, "max_age_duration"),
        (made(CONSENSUS, **{**ALL, "evidence": {**EVIDENCE, "max_age_duration": {"seconds": 1, "nanos": -1}}}), "undefined", 1, "max_age_duration"),
        (made(CONSENSUS, **{**ALL, "validator": {"pub_key_types": []}}), "undefined", 1, "pub_key_types"),
        (made(CONSENSUS, **{**ALL, "validator": {"pub_key_types": ["bls"]}}), "undefined", 1, "pub_key_types"),
        (made(CONSENSUS, **ALL, abci={"vote_extensions_enable_height": -1}), "undefined", 1, "vote_extensions_enable_height"),
        (made(CONSENSUS, **ALL, abci={"vote_extensions_enable_height": 10}), "undefined", 1, "vote extensions cannot begin in the past"),
    ],
)
def test_what_would_halt_the_chain_or_mean_nothing_is_refused(message: Any, codespace: str, code: int, told: str) -> None:
    app = build_application(MemoryBackend())
    state = State(EmptyView(), app.store.names)
    with pytest.raises(AppError) as caught:
        execute(app, state, message)
    assert (caught.value.codespace, caught.value.code) == (codespace, code), caught.value
    assert told in str(caught.value)
    assert not any(state.net_changes().values())


def least_bytes(validators: int) -> int:
    """What CometBFT v0.38 sets aside in a block (types/block.go), and room to take the update back."""
    return 11 + 626 + 94 + (109 + 2) * validators + EVIDENCE["max_bytes"] + 16_384


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            {"block": {"max_bytes": least_bytes(100) - 1, "max_gas": -1}},
            f"block.max_bytes must be at least {least_bytes(100)}, to hold 100 signatures",
        ),
        ({"block": {"max_bytes": least_bytes(100), "max_gas": -1}}, ""),
        ({"block": {"max_bytes": 1, "max_gas": -1}, "evidence": {**EVIDENCE, "max_bytes": 1}}, "block.max_bytes must be at least"),
        ({"block": {"max_bytes": -1, "max_gas": -1}, "evidence": {**EVIDENCE, "max_bytes": 100 << 20}}, "block.max_bytes must be at least"),
        ({"block": {"max_bytes": -1, "max_gas": 0}}, ""),
        ({"block": {"max_bytes": -1, "max_gas": 1}}, "block.max_gas must be -1, 0 (both: no limit) or at least 500000, got 1"),
        ({"validator": {"pub_key_types": ["secp256k1"]}}, "validator.pub_key_types must keep ed25519"),
        ({"validator": {"pub_key_types": ["secp256k1", "ed25519"]}}, ""),
    ],
)
def test_what_cometbft_accepts_and_stops_for_is_refused(change: dict[str, Any], told: str) -> None:
    app: Any = chain().apps[0]
    state = State(app.store.latest(), app.store.names)
    if told:
        with pytest.raises(AppError) as caught:
            execute(app, state, made(CONSENSUS, **{**ALL, **change}))
        assert (caught.value.codespace, caught.value.code) == ("undefined", 1)
        assert told in str(caught.value)
        assert not any(state.net_changes().values())
    else:
        execute(app, state, made(CONSENSUS, **{**ALL, **change}))


def test_more_validators_than_a_block_can_hold_signatures_of_are_refused() -> None:
    app: Any = chain().apps[0]
    state = State(app.store.latest(), app.store.names)
    execute(app, state, made(CONSENSUS, **{**ALL, "block": {"max_bytes": least_bytes(120), "max_gas": -1}}))
    params = from_json(
        message_class("cosmos.staking.v1beta1.Params"), next(one for one in app.modules if one.name == "staking").genesis.default()["params"]
    )
    message = made("cosmos.staking.v1beta1.MsgUpdateParams", params=params)
    message.params.max_validators = 121
    with pytest.raises(AppError, match="max validators can be at most 120"):
        execute(app, state, message)
    message.params.max_validators = 120
    execute(app, state, message)
    # Whoever has left the set of tomorrow signs today.
    message.params.max_validators = 1
    execute(app, state, message)
    for number in range(7):
        state.store("staking").set(b"\x11\x14" + bytes([number]) * 20, b"\x08\x01")
    with pytest.raises(AppError, match=r"to hold 8 signatures"):
        execute(app, state, made(CONSENSUS, **{**ALL, "block": {"max_bytes": least_bytes(6), "max_gas": -1}}))


@pytest.mark.parametrize(
    ("now", "wanted", "fine"),
    [(0, 0, True), (0, 11, True), (20, 0, True), (20, 30, True), (5, 5, True), (5, 0, False), (5, 30, False), (20, 9, False)],
)
def test_vote_extensions_stay_once_they_began_and_begin_ahead(now: int, wanted: int, fine: bool) -> None:
    app = build_application(MemoryBackend())
    state = State(EmptyView(), app.store.names)
    if now:
        execute(app, state, made(CONSENSUS, **ALL, abci={"vote_extensions_enable_height": now}), height=1)
    message = made(CONSENSUS, **ALL, abci={"vote_extensions_enable_height": wanted})
    if fine:
        execute(app, state, message)
    else:
        with pytest.raises(AppError, match="vote extensions cannot"):
            execute(app, state, message)


def test_cometbft_is_told_new_consensus_parameters_and_blocks_obey_them() -> None:
    driver = chain(blocks=0)
    events = at_end_of(driver.apps[0], {2: made(CONSENSUS, **ALL)})  # type: ignore[arg-type]
    driver.next_block()
    raws = [send(one, 2, gas=200_000) for one in (1, 3, 4)]
    assert driver.process(raws)
    driver.next_block()
    assert (driver.params.block.max_gas, driver.params.block.max_bytes) == (500_000, 2_000_000)
    assert not driver.process(raws)
    assert driver.process(raws[:2])
    # As Go prints the message's values.
    parameters = (
        "block:<max_bytes:2000000 max_gas:500000 > evidence:<max_age_num_blocks:100000 max_age_duration:<seconds:172800 > max_bytes:1048576 > "
        'validator:<pub_key_types:"ed25519" > version:<> '
    )
    assert events == [("update_consensus_params", (("authority", GOV), ("parameters", parameters)))]
    # All five parts are stored, as CometBFT's own conversion writes them.
    with driver.apps[0].store.view() as view:  # type: ignore[attr-defined]
        raw = view.store("consensus").get(b"Consensus")
    stored = message_class("tendermint.types.ConsensusParams").FromString(raw)
    assert [field.name for field, _ in stored.ListFields()] == ["block", "evidence", "validator", "version", "abci"]


@pytest.mark.parametrize("module", ["mint", "distribution", "slashing", "staking", "auth", "bank", "gov"])
def test_what_a_message_brings_beyond_the_schema_is_no_parameter(module: str) -> None:
    driver = chain()
    app: Any = driver.apps[0]
    state = State(app.store.latest(), app.store.names)
    params = next(one for one in app.modules if one.name == module).genesis.default()["params"]
    package = "cosmos.gov.v1" if module == "gov" else f"cosmos.{module}.v1beta1"
    message = made(f"{package}.MsgUpdateParams", params=from_json(message_class(f"{package}.Params"), params))
    message.params.MergeFromString(bytes.fromhex("827d") + b"\x06beyond")  # field 2000: not critical, so that the transaction decodes
    execute(app, state, message)
    [(_, stored)] = [entry for entries in state.net_changes().values() for entry in dict(entries).items()]
    assert stored
    assert b"beyond" not in stored
