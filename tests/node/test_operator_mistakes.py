"""What an operator gets wrong: one sentence on stderr that says what is wrong and what to do, exit code 1, and no file of the home changed."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chain import config
from chain.app import build_application
from chain.config import Home
from chain.store.kv import KVBackend, open_backend
from chain.testing.driver import Driver
from tests.node.operator import FUNDS, KEYRING, STAKE, Operator, operator
from tests.support import free_ports, genesis_document


@pytest.fixture
def home(tmp_path: Path) -> Operator:
    return operator(tmp_path / "home")


@pytest.fixture
def ready(home: Operator) -> Operator:
    """A home that could start, on free ports."""
    home.ok("genesis", "collect-gentxs")
    base = free_ports(4)
    ports = {"rpc.laddr": f"tcp://127.0.0.1:{base}", "p2p.laddr": f"tcp://127.0.0.1:{base + 1}"}
    config.update(home.home.comet_config, ports)
    config.update(home.home.app_config, {"grpc.address": f"127.0.0.1:{base + 2}", "api.address": f"tcp://127.0.0.1:{base + 3}"})
    return home


def _set(*path: Any) -> Callable[[Any], None]:
    *inner, last, value = path

    def change(document: Any) -> None:
        for key in inner:
            document = document[key]
        document[last] = value

    return change


BROKEN: dict[str, tuple[Callable[[Any], None], str]] = {
    "unknown module": (_set("app_state", "wasm", {"codes": []}), "app_state.wasm: this chain has no such module"),
    "wrong type": (_set("app_state", "bank", "params", "default_send_enabled", "perhaps"), "app_state.bank"),
    "missing consensus": (lambda document: document.pop("consensus"), "consensus.params: expected an object"),
    "negative balance": (_set("app_state", "bank", "balances", 0, "coins", 0, "amount", "-1"), "app_state.bank.balances[0]"),
    "wrong supply": (_set("app_state", "bank", "supply", 0, "amount", "1"), "genesis supply is incorrect, expected"),
    "duplicate account": (
        lambda document: document["app_state"]["auth"]["accounts"].append(document["app_state"]["auth"]["accounts"][0]),
        "duplicate",
    ),
    "foreign prefix": (_set("app_state", "bank", "balances", 0, "address", "cosmos1w68nvy2ggws6f4857tpxw4vmdhs95vhhxyrrd3"), "prefix"),
    "gentx that is none": (_set("app_state", "genutil", "gen_txs", [{"body": {}}]), "app_state.genutil.gen_txs[0]"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_genesis_names_its_field(home: Operator, case: str) -> None:
    change, told = BROKEN[case]
    home.edit_genesis(change)
    home.refused("genesis", "validate", told=told)


def test_a_genesis_without_a_validator_is_told_before_cometbft_keeps_it(ready: Operator) -> None:
    ready.edit_genesis(lambda document: document["app_state"]["genutil"]["gen_txs"].clear())
    ready.refused("start", told="the genesis file has no validator: make one with `stchaind genesis gentx`")


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"a":1,"a":2}', "\xff"])
def test_a_genesis_that_is_no_json_object_is_named(home: Operator, text: str) -> None:
    home.home.genesis.write_bytes(text.encode("latin-1"))
    for command in (("genesis", "validate"), ("start",), ("genesis", "collect-gentxs")):
        home.refused(*command, told=str(home.home.genesis))


def _less(tx: Any) -> None:
    tx["body"]["messages"][0]["value"]["amount"] = "999999999999999"


def _another_memo(tx: Any) -> None:
    tx["body"]["memo"] += "0"


def _no_memo(tx: Any) -> None:
    tx["body"]["memo"] = ""


def _no_message(tx: Any) -> None:
    tx["body"]["messages"] = []


GENTXS = {
    "below 10^15 wei": (_less, "has no voting power: delegate at least 1000000000000000 wei (10^15)"),
    "changed after it was signed": (_another_memo, "signature verification failed"),
    "without the node's address": (_no_memo, "has no memo: expected the node's address as NODE_ID@IP:PORT"),
    "without a message": (_no_message, "expected exactly one MsgCreateValidator"),
}


@pytest.mark.parametrize("case", GENTXS)
def test_a_gentx_that_cannot_be_delivered_is_named_by_collect_gentxs(home: Operator, case: str) -> None:
    change, told = GENTXS[case]
    tx = json.loads(home.gentx().read_text())
    change(tx)
    home.gentx().write_text(json.dumps(tx))
    home.refused("genesis", "collect-gentxs", told=told)
    home.refused("genesis", "collect-gentxs", told=home.gentx().name)


def test_gentxs_of_another_chain_and_twice_the_same_are_refused(home: Operator, tmp_path: Path) -> None:
    other = operator(tmp_path / "other", "flow-2")
    address = other.ok("keys", "show", "val", "-a", *KEYRING)
    home.ok("genesis", "add-genesis-account", address, FUNDS)
    foreign = home.gentx().parent / other.gentx().name
    shutil.copy(other.gentx(), foreign)
    home.refused("genesis", "collect-gentxs", told=f"{foreign}: cannot be delivered: signature verification failed")
    home.refused("genesis", "collect-gentxs", told="was it signed for another chain than flow-1, or changed since?")
    foreign.unlink()
    shutil.copy(home.gentx(), home.gentx().with_name("again.json"))
    home.refused("genesis", "collect-gentxs", told="have the same operator stvaloper1")


def test_two_gentxs_with_one_consensus_key_are_named(home: Operator, tmp_path: Path) -> None:
    other = Operator(tmp_path / "other")
    other.ok("init", "w", "--chain-id", "flow-1")
    shutil.copy(home.home.validator_key, other.home.validator_key)
    other.ok("keys", "add", "val", *KEYRING)
    address = other.ok("keys", "show", "val", "-a", *KEYRING)
    for one in (home, other):
        one.ok("genesis", "add-genesis-account", address, FUNDS)
    other.ok("genesis", "gentx", "val", STAKE, *KEYRING)
    shutil.copy(other.gentx(), home.gentx().with_name("z.json"))
    home.refused("genesis", "collect-gentxs", told="z.json have the same consensus key")


def test_a_gentx_needs_coins_and_the_chains_own_id(home: Operator) -> None:
    home.refused("genesis", "gentx", "val", "3000000000000000000wei", *KEYRING, told="less than the 3000000000000000000wei to stake")
    home.refused("genesis", "gentx", "val", STAKE, "--chain-id", "flow-2", *KEYRING, told="the genesis file's chain is flow-1")
    home.refused("genesis", "add-genesis-account", "val", "1wei", *KEYRING, told="use --append")


def test_init_overwrites_nothing_unless_told_to(home: Operator) -> None:
    home.refused("init", "again", told="use --overwrite to replace it")
    key = home.home.validator_key.read_bytes()
    home.ok("init", "again", "--chain-id", "flow-9", "--overwrite")
    assert json.loads(home.home.genesis.read_text())["chain_id"] == "flow-9"
    assert home.home.validator_key.read_bytes() == key


def test_a_missing_cometbft_is_told(ready: Operator, tmp_path: Path) -> None:
    for command in (("start",), ("rollback",), ("comet", "version")):
        ready.refused(*command, told="CometBFT is not on PATH nor in the", PATH=str(tmp_path), STRATOS_TOOLS=str(tmp_path))


@pytest.mark.parametrize(("server", "key"), [("CometBFT's RPC", "rpc"), ("CometBFT's P2P", "p2p"), ("gRPC", "grpc"), ("REST", "api")])
def test_a_port_in_use_is_named_with_the_setting_to_change(ready: Operator, server: str, key: str, capfd: pytest.CaptureFixture[str]) -> None:
    file = config.read_comet(ready.home) if key in ("rpc", "p2p") else config.read_app(ready.home)
    address = str(file[key]["laddr" if key in ("rpc", "p2p") else "address"]).removeprefix("tcp://")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", int(address.rpartition(":")[2])))
        taken.listen()
        ready.refused("start", told=f"{server} cannot listen at")
    assert capfd.readouterr().err == "", "no library beside us wrote to stderr"


@pytest.mark.parametrize("key", ["grpc", "api"])
@pytest.mark.parametrize("address", ["tcp://127.0.0.1:99999", "127.0.0.1", "127.0.0.1:http", ""])
def test_an_address_that_is_none_is_named_with_the_setting_to_change(ready: Operator, key: str, address: str) -> None:
    config.update(ready.home.app_config, {f"{key}.address": address})
    ready.refused("start", told=f"{address!r} is no address: expected host:port with a port up to 65535; change [{key}] address in app.toml")


def _database(home: Home, chain_id: str) -> None:
    kv = open_backend("", home.database)
    app = build_application(kv)
    driver = Driver([app], {**genesis_document(app), "chain_id": "test-1"})
    driver.start()
    driver.next_block()
    app.close()


def test_the_database_of_another_chain_is_refused(ready: Operator) -> None:
    _database(ready.home, "test-1")
    ready.refused("start", told="belongs to chain test-1, the genesis file to flow-1: use another --home")


@pytest.mark.parametrize("name", ["CURRENT", "MANIFEST"])
def test_a_damaged_database_is_told_and_left_alone(ready: Operator, name: str) -> None:
    _database(ready.home, "test-1")
    for path in ready.home.database.glob(f"{name}*"):
        path.write_bytes(b"\x00damage" * 20)
    stores = {path: path.read_bytes() for path in ready.home.database.iterdir() if path.suffix in (".ldb", ".log") or path.name.startswith(name)}
    for command in (("start",), ("export",), ("rollback",)):
        ready.refused(*command, told=str(ready.home.database))
    assert {path: path.read_bytes() for path in stores} == stores
    ready.ok("comet", "unsafe-reset-all")
    assert not ready.home.database.exists()


def test_a_home_whose_node_runs_is_left_alone(ready: Operator) -> None:
    ready.home.database.parent.mkdir(exist_ok=True)
    running: KVBackend = open_backend("", ready.home.database)
    try:
        for command in (("start",), ("export",), ("rollback",), ("prune",), ("comet", "reset-state"), ("comet", "unsafe-reset-all")):
            ready.refused(*command, told="is in use by another process: stop the running node first")
    finally:
        running.close()


@pytest.mark.parametrize("text", ["", "{", "{}", '{"pub_key":{"value":"AAAA"}}', '{"pub_key":"x"}', "[]"])
def test_a_key_file_that_cannot_be_used_is_named(ready: Operator, text: str) -> None:
    ready.home.validator_key.write_text(text)
    for command in (("comet", "show-validator"), ("comet", "show-address"), ("start",)):
        ready.refused(*command, told=str(ready.home.validator_key))


def test_a_missing_key_or_settings_file_is_named(ready: Operator) -> None:
    for path in (ready.home.app_config, ready.home.comet_config, ready.home.validator_key):
        kept = path.read_bytes()
        path.unlink()
        ready.refused("start", told=f"{path} cannot be read (No such file or directory): run `stchaind init")
        path.write_bytes(kept)


SETTINGS = {
    'minimum-gas-prices = "cheap"\n': "cheap",
    "halt-height = true\n": "halt-height must be like 0",
    'pruning = "sometimes"\n': "pruning",
    "no-such-key = 1\n": "no-such-key is not a setting of this version",
    "api = 1\n": "api must be a section",
    'app-db-backend = "cleveldb"\n': "app-db-backend must be goleveldb, rocksdb or memdb",
    "= 3\n": "is not TOML",
}


@pytest.mark.parametrize("text", SETTINGS)
def test_a_wrong_setting_is_named(ready: Operator, text: str) -> None:
    ready.home.app_config.write_text(text)
    ready.refused("start", told=SETTINGS[text])


def test_a_setting_that_is_left_out_has_its_default(ready: Operator) -> None:
    ready.home.app_config.write_text("halt-height = 5\n")
    found = config.read_app(ready.home)
    assert {**found, "halt-height": 0} == config.APP_DEFAULTS


def test_a_genesis_file_of_the_older_sdk_is_migrated(home: Operator, tmp_path: Path) -> None:
    document = json.loads(home.home.genesis.read_text())
    params = document.pop("consensus")["params"]
    params.pop("abci")
    document.update(initial_height="7", app_hash="", consensus_params=params, validators=[])
    for name in ("app_name", "app_version"):
        del document[name]
    bank = document["app_state"]["bank"]
    bank["params"]["send_enabled"], bank["send_enabled"] = [{"denom": "wei", "enabled": True}], []
    document["app_state"]["evm"] = {"accounts": []}
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    old.write_text(json.dumps(document))
    code, out, err = home.run("genesis", "migrate", "v0.50", str(old), "--chain-id", "flow-2", "--output-document", str(new))
    assert (code, out, err) == (0, "", "left out, since this version has no such modules: evm\n")
    moved = json.loads(new.read_text())
    keys = ["app_name", "app_version", "genesis_time", "chain_id", "initial_height", "app_hash", "app_state", "consensus"]
    assert list(moved) == keys
    assert (moved["chain_id"], moved["initial_height"], moved["app_hash"]) == ("flow-2", 7, None)
    assert moved["app_state"]["bank"]["send_enabled"] == [{"denom": "wei", "enabled": True}]
    assert moved["app_state"]["bank"]["params"]["send_enabled"] == []
    assert moved["consensus"]["params"] == {**params, "abci": {"vote_extensions_enable_height": "0"}}
    assert "evm" not in moved["app_state"]
    home.ok("genesis", "validate", str(new))
    home.refused("genesis", "migrate", "v0.99", str(old), told="unknown migration function for version: v0.99 (supported versions v0.47, v0.50)")


def test_vesting_and_module_accounts_are_made_only_when_they_make_sense(home: Operator) -> None:
    home.ok("keys", "add", "late", *KEYRING)
    late = home.ok("keys", "show", "late", "-a", *KEYRING)
    add = ("genesis", "add-genesis-account", late, "10wei")
    home.refused(*add, "--vesting-amount", "11wei", "--vesting-end-time", "9", told="cannot be greater than total amount")
    home.refused(*add, "--vesting-amount", "5wei", told="must supply start and end time or end time")
    home.refused(*add, "--vesting-amount", "5wei", "--vesting-start-time", "9", "--vesting-end-time", "9", told="cannot be at or after end-time")
    home.refused(*add, "--module-name", "gov", told="the account of module gov is st1")
    home.ok(*add, "--vesting-amount", "5wei", "--vesting-start-time", "1", "--vesting-end-time", "9")
    home.ok("genesis", "add-genesis-account", "st10d07y265gmmuvt4z0w9aw880jnsr700jx08hhw", "3wei", "--module-name", "gov")
    accounts = json.loads(home.home.genesis.read_text())["app_state"]["auth"]["accounts"]
    assert [one["@type"].rpartition(".")[2] for one in accounts] == ["BaseAccount", "ContinuousVestingAccount", "ModuleAccount"]
    home.ok("genesis", "collect-gentxs")
