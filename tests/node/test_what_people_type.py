"""Amounts in every unit, global options behind commands, numbers out of range, bytes that are no text: what people type at the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from chain.cli import main
from chain.coins import Coin
from chain.errors import InvalidCoins
from chain.tx.fees import UNITS, parse_amounts
from tests.node.operator import answered_by
from tests.node.test_operator_mistakes import FUNDS, KEYRING, STAKE, Operator
from tests.support import KEYS, chain

API = {"api.enable": True, "api.swagger": False, "api.enabled-unsafe-cors": True, "grpc.enable": True}
OFFLINE = ("--offline", "--chain-id", "t-1", "--account-number", "0", "--sequence", "0")


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    made = Operator(tmp_path / "home")
    made.ok("init", "v", "--chain-id", "t-1")
    made.ok("keys", "add", "val", *KEYRING)
    return made


@given(st.integers(0, 10**58), st.sampled_from(sorted(UNITS)), st.integers(0, 10**18 - 1), st.integers(0, 18))
def test_amounts_in_any_unit_are_that_many_wei(whole: int, unit: str, fraction: int, places: int) -> None:
    decimals = str(fraction).zfill(18)[:places]
    amount_wei, rest = divmod((whole * 10**18 + int(decimals.ljust(18, "0"))) * UNITS[unit], 10**18)
    text = f"{whole}.{decimals}{unit}" if places else f"{whole}{unit}"
    if rest:
        with pytest.raises(InvalidCoins, match="not a whole number of wei"):
            parse_amounts(text)
    elif amount_wei:
        assert parse_amounts(f"5foo,{text}") == (Coin("foo", 5), Coin("wei", amount_wei))


@pytest.mark.parametrize(
    "text", ["1.5foo", "1.stos", ".5stos", "1.5.5stos", "-1stos", "0.0000000000000000001stos", "1" * 78 + ".5stos", "9" * 60 + ".5stos", "1stos,,"]
)
def test_an_amount_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InvalidCoins):
        parse_amounts(text)


def test_a_send_and_a_genesis_account_in_stos_hold_wei(operator: Operator) -> None:
    address = operator.ok("keys", "show", "val", "-a", *KEYRING)
    operator.ok("genesis", "add-genesis-account", "val", "1.5stos,500000000gwei,7wei", *KEYRING)
    state = json.loads(operator.home.genesis.read_text())["app_state"]["bank"]
    assert state["balances"] == [{"address": address, "coins": [{"denom": "wei", "amount": "2000000000000000007"}]}]
    made = json.loads(operator.ok("tx", "bank", "send", "val", address, "0.1stos", "--fees", "200000gwei", "--generate-only", *KEYRING))
    assert made["body"]["messages"][0]["amount"] == [{"denom": "wei", "amount": "100000000000000000"}]
    assert made["auth_info"]["fee"]["amount"] == [{"denom": "wei", "amount": "200000000000000"}]


@pytest.mark.parametrize("level", [("--log_level", "nonsense"), ("--log_level=nonsense",)])
def test_options_of_the_root_are_taken_behind_a_command(operator: Operator, level: tuple[str, ...]) -> None:
    assert operator.ok("version", "--log_level", "error", "--log_format=json", "--log_no_color", "--trace") == "0.1.0"
    operator.refused("config", "get", "app", "pruning", *level, told="--log_level must be one of")


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--sequence", "-1"), "-1 is not in the range"),
        (("--sequence", str(1 << 64)), "is not in the range"),
        (("--account-number", "-1"), "-1 is not in the range"),
        (("--timeout-height", str(1 << 64)), "is not in the range"),
        (("--gas-prices", "cheap"), "--gas-prices: 'cheap': expected a decimal"),
        (("--note", "\udcff"), "what was typed is not UTF-8"),
        (("--node", "ftp://127.0.0.1:1"), "does not answer (UnsupportedProtocol)"),
        (("--node", "127.0.0.1:1"), "http://127.0.0.1:1 does not answer (ConnectError)"),
    ],
)
def test_a_flag_out_of_range_is_one_sentence(operator: Operator, flags: tuple[str, str], told: str) -> None:
    address = operator.ok("keys", "show", "val", "-a", *KEYRING)
    code, out, err = operator.run("tx", "bank", "send", "val", address, "1wei", "-y", *OFFLINE, *KEYRING, *flags)
    assert (code, out) == (1, "")
    assert told in err


def test_a_gas_adjustment_must_leave_gas() -> None:
    for factor in ("0", "-1", str(1 << 63)):
        with pytest.raises(main.click.ClickException, match="must give a gas limit from 1 to 9223372036854775807"):
            main.tx._adjusted(100_000, factor)
    assert main.tx._adjusted(100_001, "1.3") == 130_002


def test_a_moniker_or_denom_that_no_node_could_start_with_makes_no_home(operator: Operator) -> None:
    for moniker in ("", "  ", "knoten-ä", "tab\there", "\udcff"):
        operator.refused("init", moniker, "--overwrite", told="CometBFT takes a moniker of printable ASCII characters")
    operator.refused("init", "v", "--overwrite", "--default-denom", "9", told="invalid denom: 9")


def test_a_self_delegation_is_one_coin(operator: Operator) -> None:
    operator.ok("genesis", "add-genesis-account", "val", FUNDS, *KEYRING)
    for amount in ("", f"{STAKE},1foo"):
        operator.refused("genesis", "gentx", "val", amount, *KEYRING, told="the self-delegation is one coin")


def test_starts_flags_stand_for_the_settings_of_their_names(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []
    monkeypatch.setattr("chain.cli.node.run", lambda options: started.append(options.app_overrides) or 0)
    operator.ok("start", "--pruning", "custom", "--pruning-keep-recent", "100", "--pruning-interval=10")
    operator.ok("start", "--state-sync.snapshot-interval", "1000", "--state-sync.snapshot-keep-recent", "3", "--halt-height", "7")
    assert started == [
        {"pruning": "custom", "pruning-keep-recent": 100, "pruning-interval": 10},
        {"state-sync.snapshot-interval": 1000, "state-sync.snapshot-keep-recent": 3, "halt-height": 7},
    ]
    for flag in ("--halt-height", "--halt-time", "--min-retain-blocks", "--pruning-interval"):
        code, _, err = operator.run("start", flag, "-1")
        assert code == 1
        assert "-1 is not in the range" in err
    assert len(started) == 2


START: list[tuple[tuple[str, ...], dict[str, Any], list[str]]] = [
    (("--api.enable", "--api.swagger=false", "--api.enabled-unsafe-cors", "--grpc.enable"), API, []),
    (("--mempool.max-txs", "50"), {"mempool.max-txs": 50}, []),
    (("--mempool.max-txs=-1",), {"mempool.max-txs": 0}, []),
    (("--rpc.pprof_laddr", "localhost:6060"), {}, ["--rpc.pprof_laddr=localhost:6060"]),
    (("--consensus.create_empty_blocks_interval=5s",), {}, ["--consensus.create_empty_blocks_interval=5s"]),
    (("--db_backend", "goleveldb", "--rpc.grpc_laddr", "tcp://127.0.0.1:1"), {}, ["--rpc.grpc_laddr=tcp://127.0.0.1:1", "--db_backend=goleveldb"]),
    (("--inter-block-cache", "--iavl-disable-fastnode=true", "--grpc-web.enable", "false", "--with-tendermint"), {}, []),
    (("--query-gas-limit", "5", "--api.max-open-connections=9", "--proxy_app", "tcp://127.0.0.1:1", "--abci", "socket"), {}, []),
    (("--shutdown-grace", "5s", "--api.rpc-read-timeout", "1", "--api.rpc-write-timeout", "1", "--api.rpc-max-body-bytes", "1"), {}, []),
]


@pytest.mark.parametrize(("flags", "settings", "comet"), START, ids=lambda one: " ".join(one) if isinstance(one, tuple) else "")
def test_starts_flags_of_simd_are_taken(
    operator: Operator, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...], settings: dict[str, Any], comet: list[str]
) -> None:
    started: list[Any] = []
    monkeypatch.setattr("chain.cli.node.run", lambda options: started.append(options) or 0)
    operator.ok("start", *flags)
    assert [(one.app_overrides, one.comet_flags, one.with_comet) for one in started] == [(settings, comet, True)]


REFUSED = [
    (("start", "--trace-store", "trace.log"), "--trace-store: the store writes no trace of its operations"),
    (("start", "--grpc-only"), "--grpc-only: the servers answer from a running application"),
    (("start", "--cpu-profile", "cpu"), "--cpu-profile: the application is no Go program"),
    (("start", "--genesis_hash", "00"), "--genesis_hash: CometBFT reads a copy of the genesis file"),
    (("start", "--db_dir", "elsewhere"), "--db_dir: CometBFT's data stay in the home"),
    (("tx", "bank", "send", "val", "val", "1wei", "--ledger"), "--ledger: this keyring holds no keys of hardware"),
    (("tx", "bank", "send", "val", "val", "1wei", "--aux"), "--aux: no AuxSignerData is made here"),
    (("tx", "sign", "unsigned.json", "--from", "val", "--ledger"), "--ledger: this keyring holds no keys of hardware"),
    (("keys", "add", "other", "--ledger"), "--ledger: this keyring holds no keys of hardware"),
    (("tx", "broadcast", "signed.json", "--offline"), "cannot broadcast tx during offline mode"),
    (("tx", "broadcast", "signed.json", "--dry-run"), "--dry-run: the file would be sent"),
]


@pytest.mark.parametrize(("command", "told"), REFUSED, ids=lambda one: " ".join(one) if isinstance(one, tuple) else "")
def test_flags_of_simd_that_cannot_be_had_are_refused_with_the_reason(operator: Operator, command: tuple[str, ...], told: str) -> None:
    operator.refused(*command, told=told)


def test_a_gentx_takes_simds_flags(operator: Operator, tmp_path: Path) -> None:
    operator.ok("genesis", "add-genesis-account", "val", FUNDS, "--node", "tcp://127.0.0.1:1", *KEYRING)
    path = tmp_path / "gentx.json"
    asked = (
        "--from",
        "val",
        "--offline",
        "-a",
        "0",
        "-s",
        "0",
        "-b",
        "sync",
        "-y",
        "--node",
        "tcp://127.0.0.1:1",
        "--amount",
        STAKE,
        "--note",
        "hello",
    )
    meant = ("--gas-prices", "1gwei", "--timeout-height", "9", "--sign-mode", "amino-json", "--ip", "1.2.3.4")
    operator.ok("genesis", "gentx", "val", STAKE, *asked, *meant, "--output-document", str(path), *KEYRING)
    made = json.loads(path.read_text())
    # As with simd, the memo is the node's address whatever --note says.
    assert made["body"]["memo"].endswith("@1.2.3.4:26656")
    assert (made["body"]["timeout_height"], made["auth_info"]["fee"]["amount"]) == ("9", [{"denom": "wei", "amount": "200000000000000"}])
    assert "[OK]" in operator.ok("tx", "validate-signatures", str(path), *OFFLINE)


def test_transactions_in_files_take_simds_flags(operator: Operator, tmp_path: Path) -> None:
    address = operator.ok("keys", "show", "val", "-a", *KEYRING)
    common = (
        "--gas",
        "5",
        "--fees",
        "1wei",
        "-b",
        "sync",
        "-y",
        "--tip",
        "1wei",
        "--fee-payer",
        address,
        "--timeout-height",
        "7",
        "--dry-run",
        "--generate-only",
    )
    path = tmp_path / "given.json"
    path.write_text(operator.ok("tx", "bank", "send", "val", address, "1wei", "--generate-only", "--tip", "1wei", *KEYRING))
    path.write_text(operator.ok("tx", "sign", str(path), "--from", "val", "--note", "hello", *common, *OFFLINE, *KEYRING))
    made = json.loads(path.read_text())
    assert (made["body"]["memo"], made["auth_info"]["fee"]["gas_limit"], made["auth_info"]["fee"]["amount"]) == ("", "200000", [])
    assert "[OK]" in operator.ok("tx", "validate-signatures", str(path), "--from", "val", *common, *OFFLINE)
    encoded = operator.ok("tx", "encode", str(path), "--node", "tcp://127.0.0.1:1", "-a", "1", "-s", "1", *common)
    assert json.loads(operator.ok("tx", "decode", encoded, "--node", "tcp://127.0.0.1:1", "--note", "hello", *common)) == made
    assert operator.ok("keys", "mnemonic", *KEYRING)


@pytest.mark.parametrize("flags", [("--generate-only",), ("-y",), ("-y", "--gas", "100000", "--dry-run")], ids=" ".join)
def test_gas_is_not_estimated_without_a_node(operator: Operator, flags: tuple[str, ...]) -> None:
    told = "cannot estimate gas in offline mode: name a number with --gas, or leave out --offline"
    address = operator.ok("keys", "show", "val", "-a", *KEYRING)
    operator.refused("tx", "bank", "send", "val", address, "1wei", "--gas", "auto", *OFFLINE, *flags, *KEYRING, told=told)


def test_an_unsigned_transaction_has_the_gas_that_the_node_estimates(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    answered_by(chain(), monkeypatch)
    operator.ok("keys", "import-hex", "rich", KEYS[1].raw.hex(), *KEYRING)
    address = operator.ok("keys", "show", "val", "-a", *KEYRING)
    code, out, err = operator.run("tx", "bank", "send", "rich", address, "1wei", "--fees", "200000gwei", "--gas", "auto", "--generate-only", *KEYRING)
    assert code == 0, err
    limit = json.loads(out)["auth_info"]["fee"]["gas_limit"]
    assert err == f"gas estimate: {limit}\n"
    assert limit != "200000"


def test_the_supply_of_one_denom_is_asked_as_simd_tells(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    answered_by(chain(denom="foo"), monkeypatch)
    every = json.loads(operator.ok("query", "bank", "total", "-o", "json"))
    assert [one["denom"] for one in every["supply"]] == ["foo", "wei"]
    assert json.loads(operator.ok("query", "bank", "total-supply", "--denom", "foo", "-o", "json")) == {"amount": every["supply"][0]}
    assert json.loads(operator.ok("query", "bank", "total-supply-of", "foo", "-o", "json")) == {"amount": every["supply"][0]}


def test_a_pruning_or_an_archive_that_is_none_is_one_sentence(operator: Operator, tmp_path: Path) -> None:
    operator.refused("prune", "custom", "--pruning-keep-recent", "1", told="pruning-keep-recent must be at least 2, got 1")
    path = tmp_path / "notes"
    path.write_text("not an archive")
    operator.refused("snapshots", "load", str(path), told=f"{path} is not an archive of a snapshot")


def test_a_defect_of_a_command_is_one_sentence_unless_its_stack_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(**_: Any) -> None:
        raise ValueError("seven")

    monkeypatch.setattr(main.cli.commands["version"], "callback", broken)
    done = CliRunner().invoke(main.cli, ["version"])
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == "Error: this should not have happened (ValueError: seven): run it again with --trace\n"
    monkeypatch.setattr("sys.argv", ["stchaind", "version", "--trace"])
    assert isinstance(CliRunner().invoke(main.cli, ["version", "--trace"]).exception, ValueError)


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("halt-height", "-1", "halt-height must be from 0 to 2^63 - 1, got -1"),
        ("min-retain-blocks", "99999999999999999999999", "min-retain-blocks must be from 0 to 2^63 - 1"),
        ("pruning-keep-recent", '"x"', 'pruning-keep-recent must be a number in quotes, like "100"'),
    ],
)
def test_a_setting_out_of_range_is_named(operator: Operator, key: str, value: str, told: str) -> None:
    file = operator.home.app_config
    file.write_text("\n".join(f"{key} = {value}" if line.startswith(f"{key} =") else line for line in file.read_text().splitlines()))
    operator.refused("export", told=told)


def test_a_settings_file_that_is_no_text_is_named(operator: Operator) -> None:
    operator.home.app_config.write_bytes(b"\xff")
    for command in (("export",), ("config", "get", "app", "api.enable")):
        operator.refused(*command, told="app.toml is not TOML")


def test_the_home_may_be_named_behind_any_command(operator: Operator) -> None:
    home = str(operator.home.root)
    result = CliRunner().invoke(main.cli, ["status", "--node", "tcp://127.0.0.1:1", "--home", home])
    assert (result.exit_code, "does not answer" in result.output) == (1, True)
    assert operator.ok("keys", "list", "--home", home, *KEYRING)
