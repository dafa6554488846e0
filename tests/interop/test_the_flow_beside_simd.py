"""simd's own flow, command by command, with the real simd and with stchaind: the same keys, denom, amounts and fees in two homes, and the outputs
held against each other field by field. Only the binary's name and the address prefix differ.

Accepted differences, each where it is used:
- ``VARIES``: what no two chains share (hashes, times, heights, signatures over addresses with another prefix, gas that depends on their length).
- ``EMPTY``: module queries of simd leave out fields that are zero or empty, and name types by their amino names; stchaind prints what gRPC and REST
  answer, with every field. So each field of simd's must be there with its value, and whatever stchaind has beyond must be empty.
- simd prints a Dec of a module query as its integer (10^18 per unit) and a duration as ``504h0m0s``; stchaind as its REST does.
- simd prints its usage after an error and `query block` without a height announces itself on stdout; stchaind keeps stdout to the result.
- simd has more modules, so more accounts; it mints, so its supply grows; ``go`` in `version --long` is ``python``.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from chain.api.comet import CometClient, CometRefused, CometUnavailable
from chain.cli.main import cli
from chain.crypto import address
from tests.interop import peers
from tests.support import ROOT, free_ports

pytestmark = [pytest.mark.interop, pytest.mark.timeout(900)]
MNEMONICS = {
    "val": "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about",
    "friend": "legal winner thank year wave sausage worth useful legal winner thank yellow",
    "k1": "letter advice cage absurd amount doctor acoustic avoid letter advice cage above",
    "k2": "zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo wrong",
}
KEYRING = ("--keyring-backend", "test")
PLAIN = ("--key-type", "secp256k1", "--coin-type", "118")
FEES = ("--fees", "200000000000000wei")
FUNDS, STAKE = "20000000000000000000wei", "1000000000000000000wei"
PREFIXES = {"cosmos": "st", "cosmosvaloper": "stvaloper", "cosmosvalcons": "stvalcons"}
BACK = {ours: theirs for theirs, ours in PREFIXES.items()}
VARIES = re.compile(
    r"(hash|txhash|timestamp|time|update_time|height|latest_\w+|earliest_\w+|app_name|app_version|version|listen_addr|rpc_address|gas_used"
    r"|signature|signatures\[\]|creation_height|block_height|initial_height|validators_hash|next_validators_hash|last_commit_hash|consensus_hash"
    r"|app_hash|data_hash|last_results_hash|total_count|page_total|proposer_priority)$"
)
AMINO = {
    "cosmos-sdk/BaseAccount": "/cosmos.auth.v1beta1.BaseAccount",
    "cosmos-sdk/ModuleAccount": "/cosmos.auth.v1beta1.ModuleAccount",
    "tendermint/PubKeySecp256k1": "/cosmos.crypto.secp256k1.PubKey",
    "tendermint/PubKeyEd25519": "/cosmos.crypto.ed25519.PubKey",
}


class Side:
    """One of the two command lines with its home."""

    def __init__(self, home: Path, binary: Path | None) -> None:
        self.home, self.binary = home, binary
        self.node, self.process = "", None  # type: tuple[str, subprocess.Popen[bytes] | None]

    def run(self, *arguments: str, stdin: str = "") -> tuple[int, str, str]:
        """(exit code, stdout, stderr); simd's addresses come in this chain's prefixes, and this chain's go to simd in simd's."""
        full = ["--home", str(self.home), *(one.replace("HOME", str(self.home)).replace("NODE", self.node) for one in arguments)]
        if self.binary is None:
            environment = {name: None for name in os.environ if name.startswith("STCHAIND_")}
            done = CliRunner(env=environment).invoke(cli, full, input=stdin)
            if done.exception is not None and not isinstance(done.exception, SystemExit):
                raise done.exception
            return done.exit_code, done.stdout, done.stderr
        command = [str(self.binary), *(swapped(one, BACK) for one in full)]
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.home.parent)}
        process = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=120, env=environment)
        return process.returncode, swapped(process.stdout, PREFIXES), swapped(process.stderr, PREFIXES)

    def ok(self, *arguments: str, stdin: str = "") -> str:
        code, out, err = self.run(*arguments, stdin=stdin)
        assert code == 0, err
        return out

    def start(self) -> None:
        base = free_ports(4)
        self.node = f"tcp://127.0.0.1:{base}"
        flags = ["start", "--rpc.laddr", self.node, "--p2p.laddr", f"tcp://127.0.0.1:{base + 1}", "--grpc.address", f"127.0.0.1:{base + 2}"]
        flags += ["--minimum-gas-prices", "0wei", "--api.enable=false"]
        command = [sys.executable, "-m", "chain.cli.main"] if self.binary is None else [str(self.binary)]
        with (self.home.parent / f"{self.home.name}.log").open("wb") as log:
            self.process = subprocess.Popen([*command, "--home", str(self.home), *flags], cwd=ROOT, stdout=log, stderr=log)

    def height(self) -> int:
        client = CometClient(self.node)
        try:
            return int(client.call("status")["sync_info"]["latest_block_height"])
        except (CometUnavailable, CometRefused):
            return 0
        finally:
            client.close()

    def wait_for(self, height: int) -> None:
        until = time.monotonic() + 90
        while self.height() < height:
            assert time.monotonic() < until, f"{self.home.name} did not reach block {height}"
            time.sleep(0.2)

    def stop(self) -> int:
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(40)


def swapped(text: str, prefixes: dict[str, str]) -> str:
    """``text`` with the addresses of one set of prefixes in the other."""

    def swap(match: re.Match[str]) -> str:
        prefix, raw = address.decode_any(match[0])
        return address.encode(raw, prefixes[prefix])

    names = "|".join(sorted(prefixes, key=len, reverse=True))
    return re.sub(rf"\b(?:{names})1[02-9ac-hj-np-z]{{38,}}", swap, text)


class Pair:
    """Both sides, asked the same."""

    def __init__(self, folder: Path) -> None:
        self.simd, self.ours = Side(folder / "simd", peers.simd()), Side(folder / "ours", None)

    def ok(self, *arguments: str, stdin: str = "") -> tuple[str, str]:
        """(simd's stdout, ours), both with exit code 0."""
        return self.simd.ok(*arguments, stdin=stdin), self.ours.ok(*arguments, stdin=stdin)

    def json(self, *arguments: str) -> tuple[Any, Any]:
        theirs, ours = self.ok(*arguments)
        return json.loads(theirs), json.loads(ours)

    def write(self, name: str, contents: tuple[str, str]) -> None:
        """Put simd's text (its addresses in simd's prefixes again) and ours into a file of each home."""
        theirs, ours = contents
        (self.simd.home / name).write_text(swapped(theirs, BACK))
        (self.ours.home / name).write_text(ours)

    def next_block(self) -> None:
        for side in (self.simd, self.ours):
            side.wait_for(side.height() + 2)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """Two homes up to a genesis file with a gentx each."""
    pair = Pair(tmp_path_factory.mktemp("flow"))
    for side in (pair.simd, pair.ours):
        side.ok("init", "v", "--chain-id", "flow-1", "--default-denom", "wei", "--recover", stdin=MNEMONICS["val"] + "\n")
        for name, words in MNEMONICS.items():
            side.ok("keys", "add", name, "--recover", *PLAIN, *KEYRING, stdin=words + "\n")
        side.ok("keys", "add", "multi", "--multisig", "k1,k2", "--multisig-threshold", "2", *KEYRING)
        side.ok("keys", "add", "nest", "--multisig", "multi,friend", "--multisig-threshold", "2", *KEYRING)
    node_key = "config/node_key.json"
    (pair.ours.home / node_key).write_bytes((pair.simd.home / node_key).read_bytes())
    for name in ("val", "multi"):
        pair.ok("genesis", "add-genesis-account", name, FUNDS, *KEYRING)
    pair.ok("genesis", "add-genesis-account", name_of(pair, "k1"), "7wei", "--vesting-amount", "5wei", "--vesting-end-time", "1900000000")
    return pair


def name_of(pair: Pair, name: str) -> str:
    return pair.ours.ok("keys", "show", name, "-a", *KEYRING).strip()


@pytest.fixture(scope="module")
def running(made: Pair) -> Iterator[Pair]:
    for side in (made.simd, made.ours):
        if not (side.home / "config" / "gentx").exists():
            side.ok("genesis", "gentx", "val", STAKE, "--chain-id", "flow-1", *KEYRING)
            side.ok("genesis", "collect-gentxs")
    config = made.simd.home / "config" / "config.toml"
    changed = {"timeout_commit": 'timeout_commit = "1s"', "pprof_laddr": 'pprof_laddr = ""'}
    config.write_text("\n".join(changed.get(line.split(" = ")[0], line) for line in config.read_text().splitlines()) + "\n")
    try:
        for side in (made.simd, made.ours):
            side.start()
        for side in (made.simd, made.ours):
            side.wait_for(3)
        yield made
    finally:
        for side in (made.simd, made.ours):
            if side.process is not None and side.process.poll() is None:
                side.stop()


@pytest.fixture(scope="module")
def sent(running: Pair) -> Pair:
    """A send in a block of each chain; ``TXHASH`` files hold its hash."""
    theirs, ours = running.json("tx", "bank", "send", "val", name_of(running, "friend"), "5000wei", *FEES, "-y", "-o", "json", *NODE, *KEYRING)
    same(theirs, ours)
    assert theirs["code"] == 0
    running.write("TXHASH", (theirs["txhash"], ours["txhash"]))
    running.next_block()
    return running


NODE = ("--node", "NODE", "--chain-id", "flow-1")
ASK = ("--node", "NODE", "-o", "json")


def same(theirs: Any, ours: Any, *, lenient: bool = False, path: str = "", varies: str = "(?!)") -> None:
    """Raise AssertionError with the path of the first field that differs. ``lenient`` is ``EMPTY`` of the module's docstring."""
    if VARIES.search(path) or re.search(varies, path):
        assert lenient or type(theirs) is type(ours) or (empty(theirs) and empty(ours)), f"{path}: {theirs!r} and {ours!r}"
        return
    if lenient:
        theirs = unfolded(theirs)
    if isinstance(theirs, dict) and isinstance(ours, dict):
        missing = [name for name in theirs if name not in ours]
        extra = [name for name in ours if name not in theirs]
        assert not missing, f"{path}: stchaind lacks {missing}"
        assert all(lenient and empty(ours[name]) for name in extra), f"{path}: stchaind alone has {[(name, ours[name]) for name in extra]}"
        if not lenient:
            assert list(theirs) == list(ours), f"{path}: order {list(theirs)} and {list(ours)}"
        for name in theirs:
            same(theirs[name], ours[name], lenient=lenient, path=f"{path}.{name}", varies=varies)
    elif isinstance(theirs, list) and isinstance(ours, list):
        assert len(theirs) == len(ours), f"{path}: {len(theirs)} and {len(ours)} items"
        for one, other in zip(theirs, ours, strict=True):
            same(one, other, lenient=lenient, path=f"{path}[]", varies=varies)
    else:
        equal = theirs == ours or (lenient and (scalar(theirs) == scalar(ours) or (empty(theirs) and empty(ours))))
        assert equal, f"{path}: {theirs!r} and {ours!r}"


def unfolded(value: Any) -> Any:
    """An amino JSON ``{type, value}`` as the proto JSON of the same, whose accounts say ``pub_key``."""
    if isinstance(value, dict) and "public_key" in value:
        value = {"pub_key" if name == "public_key" else name: item or None for name, item in value.items()}
    if not isinstance(value, dict) or set(value) != {"type", "value"} or value["type"] not in AMINO:
        return value
    kind, inner = value["type"], value["value"]
    if isinstance(inner, str):
        return {"@type": AMINO[kind], "key": inner}
    inner = unfolded(inner)
    if kind == "cosmos-sdk/ModuleAccount":
        base = {name: inner[name] for name in ("address", "pub_key", "account_number", "sequence")}
        inner = {"base_account": base, "name": inner["name"], "permissions": inner["permissions"]}
    return {"@type": AMINO[kind], **inner}


def empty(value: Any) -> bool:
    if isinstance(value, dict):
        return all(empty(one) for one in value.values())
    return value in (None, "", [], "0", 0, False, "0s") or (isinstance(value, str) and bool(re.fullmatch(r"0\.0{18}", value)))


def scalar(value: Any) -> Any:
    """A number, Dec or duration in one form for both ways of writing it."""
    text = str(value)
    if re.fullmatch(r"\d+\.\d{18}", text):
        return str(int(text.replace(".", "")))
    found = re.fullmatch(r"(?:(\d+)h(\d+)m)?(\d+)s", text)
    return f"{int(found[1] or 0) * 3600 + int(found[2] or 0) * 60 + int(found[3])}s" if found else text


def test_keys_are_shown_alike(made: Pair) -> None:
    for arguments in (("list", "--output", "json"), ("show", "multi", "--output", "json"), ("list",)):
        theirs, ours = made.ok("keys", *arguments, *KEYRING)
        assert theirs == ours


@pytest.mark.parametrize("command", ["show-node-id", "show-validator", "show-address"])
def test_the_nodes_keys_are_shown_alike(made: Pair, command: str) -> None:
    theirs, ours = made.ok("comet", command)
    assert theirs.strip() == ours.strip() != ""


def test_comet_version_and_version_have_simds_fields(made: Pair) -> None:
    theirs, ours = (text.strip().splitlines() for text in made.ok("comet", "version"))
    assert [line for line in theirs if "CometBFT" not in line] == [line for line in ours if "CometBFT" not in line]
    assert [line.partition(":")[0] for line in theirs] == [line.partition(":")[0] for line in ours]
    theirs, ours = made.json("version", "--long", "-o", "json")
    assert ["python" if name == "go" else name for name in theirs] == list(ours)
    assert all(re.fullmatch(r"\S+@v\S+", one) for one in ours["build_deps"])


def test_debug_shows_addresses_and_keys_as_simd_does(made: Pair) -> None:
    key = json.loads(made.ours.ok("keys", "show", "k1", "--output", "json", *KEYRING))["pubkey"]
    for arguments in (
        ("addr", name_of(made, "k1")),
        ("addr", "ab" * 20),
        ("pubkey", key),
        ("pubkey", made.ours.ok("comet", "show-validator").strip()),
    ):
        theirs, ours = made.ok("debug", *arguments)
        assert theirs == ours != ""
    assert made.ours.ok("debug", "raw-bytes", "[10 21 13 255]") == "0A150DFF\n"
    assert made.ours.ok("debug", "prefixes").splitlines() == ["Bech32 Acc: st", "Bech32 Val: stvaloper", "Bech32 Con: stvalcons"]


def test_genesis_files_get_the_same_accounts_and_gentxs(made: Pair) -> None:
    documents = [json.loads((side.home / "config" / "genesis.json").read_text()) for side in (made.simd, made.ours)]
    theirs, ours = (json.loads(swapped(json.dumps(one), PREFIXES)) for one in documents)
    assert list(theirs) == list(ours)
    for section in ("auth", "bank"):
        same(theirs["app_state"][section], ours["app_state"][section])
    same(theirs["app_state"]["staking"], ours["app_state"]["staking"])
    same(theirs["consensus"], ours["consensus"], varies=r"block\.max_bytes")
    theirs, ours = made.ok("genesis", "gentx", "val", STAKE, "--chain-id", "flow-1", "--ip", "1.2.3.4", "--output-document", "HOME/g.json", *KEYRING)
    theirs, ours = (json.loads(swapped((side.home / "g.json").read_text(), PREFIXES)) for side in (made.simd, made.ours))
    same(theirs, ours)


def test_init_and_collect_gentxs_say_what_simd_says_and_where(made: Pair, tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    told = []
    for side in (pair.simd, pair.ours):
        code, out, err = side.run("init", "w", "--chain-id", "other-1")
        assert (code, out) == (0, "")
        told.append(json.loads(err))
        code, out, err = side.run("init", "w")
        assert (code, out) == (1, "")
    assert "already exists" in err
    assert list(told[0]) == list(told[1])
    assert {**told[0], "node_id": "", "app_message": ""} == {**told[1], "node_id": "", "app_message": ""}
    told = []
    for side in (made.simd, made.ours):
        code, out, err = side.run("genesis", "gentx", "val", STAKE, "--chain-id", "flow-1", *KEYRING)
        assert (code, out) == (0, "")
        assert re.fullmatch(r'Genesis transaction written to ".*/config/gentx/gentx-[0-9a-f]{40}\.json"\n', err)
        assert side.run("genesis", "gentx", "val", STAKE, "--chain-id", "flow-1", *KEYRING)[0] == 1, "the file is there"
        code, out, err = side.run("genesis", "collect-gentxs")
        assert (code, out) == (0, "")
        told.append(json.loads(err))
        assert side.run("genesis", "validate")[:2] == (0, f"File at {side.home}/config/genesis.json is a valid genesis file\n")
    assert list(told[0]) == list(told[1])
    same(told[0]["app_message"]["genutil"], told[1]["app_message"]["genutil"], varies=r"\.memo$")
    assert told[0]["gentxs_dir"].replace("simd", "ours") == told[1]["gentxs_dir"]


def test_status_is_simds(running: Pair) -> None:
    theirs, ours = running.json("status", "--node", "NODE")
    same(theirs, ours, varies=r"voting_power")


def test_a_sent_transaction_is_found_by_hash_by_event_and_by_sequence(sent: Pair) -> None:
    hashes = [(side.home / "TXHASH").read_text() for side in (sent.simd, sent.ours)]
    theirs, ours = (json.loads(side.ok("query", "tx", one, *ASK)) for side, one in zip((sent.simd, sent.ours), hashes, strict=True))
    same(theirs, ours, varies=r"events\[\]\.attributes\[\]\.value")
    values = [[(pair["key"], pair["value"]) for event in one["events"] for pair in event["attributes"]] for one in (theirs, ours)]
    assert [pair for pair in values[0] if pair[0] != "signature"] == [pair for pair in values[1] if pair[0] != "signature"]
    query = ("query", "txs", "--query", f"transfer.recipient='{name_of(sent, 'friend')}'", *ASK)
    listed = sent.json(*query)
    assert [one["txs"][0]["txhash"] for one in listed] == hashes
    same(*listed, varies=r"events\[\]\.attributes\[\]\.value")
    by_sequence = ("query", "tx", "--type=acc_seq", f"{name_of(sent, 'val')}/1", *ASK)
    assert [one["txhash"] for one in sent.json(*by_sequence)] == hashes


QUERIES: list[tuple[str, str]] = [
    ("bank balances FRIEND", ""),
    ("bank balance FRIEND wei", ""),
    ("bank spendable-balances K1", ""),
    ("bank spendable-balance FRIEND wei", ""),
    ("bank total-supply", r"supply\[\]\.amount"),
    ("bank total-supply-of wei", r"amount\.amount"),
    ("bank denoms-metadata", ""),
    ("bank params", ""),
    ("bank send-enabled", ""),
    ("bank send-enabled wei", ""),
    ("auth account VAL", ""),
    ("auth account-info VAL", ""),
    ("auth accounts --page-limit 1 --page-count-total", r"total|accounts|next_key"),
    ("auth params", ""),
    ("auth module-account bonded_tokens_pool", r"account_number"),
    ("auth bech32-prefix", r"bech32_prefix"),
    ("auth address-by-acc-num 0", ""),
    ("auth address-bytes-to-string 0102030405060708090a0b0c0d0e0f1011121314", ""),
    ("auth address-string-to-bytes FRIEND", ""),
    ("consensus params", r"block\.max_bytes"),
    ("consensus comet syncing", ""),
    ("consensus comet block-by-height 2", ""),
    ("consensus comet validator-set-by-height 2", r"voting_power"),
    ("staking params", ""),
    ("staking validators", ""),
    ("staking validator OPERATOR", ""),
    ("staking pool", ""),
    ("staking delegation VAL OPERATOR", ""),
]


@pytest.mark.parametrize(("command", "varies"), QUERIES, ids=[one[0].replace(" ", "-") for one in QUERIES])
def test_a_query_answers_with_simds_fields(sent: Pair, command: str, varies: str) -> None:
    words = {name.upper(): name_of(sent, name) for name in ("friend", "val", "k1")}
    words["OPERATOR"] = sent.ours.ok("keys", "show", "val", "-a", "--bech", "val", *KEYRING).strip()
    arguments = [words.get(word, word) for word in command.split()]
    theirs, ours = sent.json("query", *arguments, *ASK)
    same(theirs, ours, lenient=True, varies=varies or "(?!)")


def test_module_accounts_are_simds(sent: Pair) -> None:
    theirs, ours = sent.json("query", "auth", "module-accounts", *ASK)
    names = {one["value"]["name"] for one in theirs["accounts"]}
    mine = {one["name"]: one for one in ours["accounts"] if one["name"] in names}
    listed = [one for one in theirs["accounts"] if one["value"]["name"] in mine]
    assert [one["value"]["name"] for one in listed] == list(mine)
    assert mine["distribution"]["permissions"] == ["burner"], "this chain's distribution may burn (reference stratos-chain.md 1.8)"
    mine["distribution"]["permissions"] = []
    for one in listed:
        same(one, mine[one["value"]["name"]], lenient=True, varies="account_number")


def test_what_is_asked_without_autocli_is_equal_to_the_field(sent: Pair) -> None:
    for arguments in (("query", "block", "--type=height", "2"), ("query", "comet-validator-set", "2")):
        theirs, ours = sent.json(*arguments, *ASK)
        same(theirs, ours, varies=r"voting_power")
    theirs, ours = sent.json("query", "blocks", "--query", "block.height<3", "--limit", "2", *ASK)
    same(theirs, ours)
    theirs, ours = sent.json("block-results", "2", *ASK)
    # simd's other modules speak in every block.
    theirs["finalize_block_events"] = ours["finalize_block_events"]
    same(theirs, ours, varies=r"consensus_param_updates\.block\.max_bytes")


@pytest.mark.parametrize("command", ["bank balances FRIEND", "auth params", "bank balance FRIEND wei"])
def test_text_output_is_yaml_in_simds_order(sent: Pair, command: str) -> None:
    arguments = [name_of(sent, "friend") if word == "FRIEND" else word for word in command.split()]
    theirs, ours = sent.ok("query", *arguments, "--node", "NODE")
    lines = [line for line in ours.splitlines() if line.strip() != "next_key: null"]
    assert lines == theirs.splitlines()


def test_a_transaction_in_text_is_simds_but_for_what_varies(sent: Pair) -> None:
    sides = (sent.simd, sent.ours)
    shown = [side.ok("query", "tx", (side.home / "TXHASH").read_text(), "--node", "NODE") for side in sides]
    assert [one.splitlines()[0] for one in shown] == ["code: 0"] * 2
    keys = [[line.partition(":")[0] for line in one.splitlines() if not line.endswith("==")] for one in shown]
    assert keys[0] == keys[1]


def test_offline_transactions_are_made_signed_encoded_and_checked_alike(sent: Pair) -> None:
    val, friend = name_of(sent, "val"), name_of(sent, "friend")
    unsigned = sent.ok("tx", "bank", "send", val, friend, "5wei", *FEES, "--note", "hi", "--generate-only", *NODE, *KEYRING)
    assert unsigned[0] == unsigned[1]
    sent.write("unsigned.json", unsigned)
    signed = sent.ok("tx", "sign", "HOME/unsigned.json", "--from", "val", *NODE, *KEYRING)
    same(json.loads(signed[0]), json.loads(signed[1]))
    sent.write("signed.json", signed)
    same(*sent.json("tx", "sign", "HOME/unsigned.json", "--from", "val", "--signature-only", *NODE, *KEYRING))
    assert len(set(sent.ok("tx", "validate-signatures", "HOME/signed.json", *NODE))) == 1
    for side in (sent.simd, sent.ours):
        encoded = side.ok("tx", "encode", "HOME/signed.json").strip()
        assert json.loads(side.ok("tx", "decode", encoded)) == json.loads(swapped((side.home / "signed.json").read_text(), PREFIXES))
    multi = sent.ok("tx", "bank", "multi-send", val, friend, name_of(sent, "k1"), "5wei", *FEES, "--generate-only", *NODE, *KEYRING)
    assert multi[0] == multi[1]
    free = sent.ok("tx", "bank", "send", val, friend, "5wei", "--generate-only", *NODE, *KEYRING)
    sent.write("free.json", free)
    theirs, ours = sent.json("tx", "simulate", "HOME/free.json", "--from", "val", "-o", "json", *NODE, *KEYRING)
    same(theirs, ours)
    broadcast = [json.loads(one) for one in sent.ok("tx", "broadcast", "HOME/signed.json", "-o", "json", *NODE)]
    same(*broadcast)
    assert broadcast[0]["code"] == 0
    sent.next_block()


def test_vesting_transactions_are_made_alike(sent: Pair) -> None:
    val, new = name_of(sent, "val"), name_of(sent, "k2")
    periods = '{"start_time": 1800000000, "periods": [{"coins": "10wei", "length_seconds": 5}, {"coins": "7wei,3abc", "length_seconds": 9}]}'
    sent.write("periods.json", [periods, periods])
    for arguments in (
        ("create-vesting-account", new, "17wei", "1900000000"),
        ("create-vesting-account", new, "17wei", "1900000000", "--delayed"),
        ("create-permanent-locked-account", new, "17wei"),
        ("create-periodic-vesting-account", new, "HOME/periods.json"),
    ):
        theirs, ours = sent.ok("tx", "vesting", *arguments, "--from", val, *FEES, "--generate-only", *NODE, *KEYRING)
        assert theirs == ours


def test_batches_are_signed_alike(sent: Pair) -> None:
    val, friend = name_of(sent, "val"), name_of(sent, "friend")
    made = [sent.ok("tx", "bank", "send", val, friend, amount, *FEES, "--generate-only", *NODE, *KEYRING) for amount in ("5wei", "6wei")]
    sent.write("batch.json", ["".join(one[side] for one in made) for side in (0, 1)])
    for options in ((), ("--append", "--note", "all"), ("--signature-only",)):
        theirs, ours = sent.ok("tx", "sign-batch", "HOME/batch.json", "--from", "val", *options, *NODE, *KEYRING)
        assert len(theirs.splitlines()) == len(ours.splitlines()) == (1 if "--append" in options else 2)
        for one, other in zip(theirs.splitlines(), ours.splitlines(), strict=True):
            same(json.loads(one), json.loads(other))


def test_batches_of_a_multisig_are_put_together_alike(sent: Pair) -> None:
    made = [
        sent.ok("tx", "bank", "send", "multi", name_of(sent, "friend"), one, *FEES, "--generate-only", *NODE, *KEYRING) for one in ("5wei", "6wei")
    ]
    sent.write("batch.json", ("".join(one[0] for one in made), "".join(one[1] for one in made)))
    offline = ("--offline", "--chain-id", "flow-1", "--account-number", "9", "--sequence", "4")
    for name in ("k1", "k2"):
        parts = sent.ok("tx", "sign-batch", "HOME/batch.json", "--from", name, "--multisig", "multi", "--signature-only", *offline, *KEYRING)
        sent.write(f"{name}-sigs.json", parts)
    theirs, ours = sent.ok("tx", "multisign-batch", "HOME/batch.json", "multi", "HOME/k1-sigs.json", "HOME/k2-sigs.json", *offline, *KEYRING)
    sequences = []
    for one, other in zip(theirs.splitlines(), ours.splitlines(), strict=True):
        same(json.loads(one), json.loads(other))
        sequences.append(json.loads(other)["auth_info"]["signer_infos"][0]["sequence"])
    assert sequences == ["4", "5"]


def test_a_multisig_signs_and_sends_alike(sent: Pair) -> None:
    unsigned = sent.ok("tx", "bank", "send", "multi", name_of(sent, "friend"), "5wei", *FEES, "--generate-only", *NODE, *KEYRING)
    sent.write("multi.json", unsigned)
    for name in ("k1", "k2"):
        parts = sent.ok("tx", "sign", "HOME/multi.json", "--from", name, "--multisig", "multi", *NODE, *KEYRING)
        same(json.loads(parts[0]), json.loads(parts[1]))
        sent.write(f"{name}.json", parts)
    whole = sent.ok("tx", "multisign", "HOME/multi.json", "multi", "HOME/k1.json", "HOME/k2.json", *NODE, *KEYRING)
    same(json.loads(whole[0]), json.loads(whole[1]))
    sent.write("whole.json", whole)
    theirs, ours = sent.json("tx", "broadcast", "HOME/whole.json", "-o", "json", *NODE)
    same(theirs, ours)
    assert theirs["code"] == 0


def test_a_multisig_within_a_multisig_signs_and_sends_alike(sent: Pair) -> None:
    sent.ok("tx", "bank", "send", "val", name_of(sent, "nest"), "200000000000005wei", *FEES, "-y", *NODE, *KEYRING)
    sent.next_block()
    sent.write("nest.json", sent.ok("tx", "bank", "send", "nest", name_of(sent, "friend"), "5wei", *FEES, "--generate-only", *NODE, *KEYRING))
    sides = (sent.simd, sent.ours)
    infos = [json.loads(side.ok("query", "auth", "account-info", name_of(sent, "nest"), "--node", "NODE", "-o", "json"))["info"] for side in sides]
    told = [("--offline", "--chain-id", "flow-1", "-a", info["account_number"], "-s", info.get("sequence", "0"), *KEYRING) for info in infos]

    def made(name: str, *arguments: str) -> tuple[str, str]:
        theirs, ours = (side.ok("tx", *arguments, *mine) for side, mine in zip(sides, told, strict=True))
        same(json.loads(theirs), json.loads(ours))
        sent.write(name, (theirs, ours))
        return theirs, ours

    for name in ("k1", "k2", "friend"):
        made(f"{name}.json", "sign", "HOME/nest.json", "--from", name, "--multisig", "nest")
    made("inner.json", "multisign", "HOME/nest.json", "multi", "HOME/k1.json", "HOME/k2.json", "--signature-only")
    made("whole.json", "multisign", "HOME/nest.json", "nest", "HOME/inner.json", "HOME/friend.json")
    theirs, ours = sent.json("tx", "broadcast", "HOME/whole.json", "-o", "json", *NODE)
    same(theirs, ours)
    assert theirs["code"] == 0
    sent.next_block()
    for left in sent.json("query", "bank", "balances", name_of(sent, "nest"), "--node", "NODE", "-o", "json"):
        assert left["balances"] == []
    for side, mine in zip(sides, told, strict=True):
        code, out, _ = side.run("tx", "sign", "HOME/nest.json", "--from", "val", "--multisig", "nest", *mine)
        assert (code, out) == (1, ""), "val is no member"


def test_gas_estimates_dry_runs_and_refusals_go_to_the_same_place(sent: Pair) -> None:
    val, friend = name_of(sent, "val"), name_of(sent, "friend")
    estimates = []
    for side in (sent.simd, sent.ours):
        code, out, err = side.run("tx", "bank", "send", val, friend, "5wei", *FEES, "--gas-adjustment", "1", "--dry-run", *NODE, *KEYRING)
        assert (code, out) == (0, "")
        estimates.append(int(err.removeprefix("gas estimate: ")))
    # Addresses and balances differ in length by a few characters, each read and written.
    assert abs(estimates[0] - estimates[1]) < 1000
    for made in sent.json(
        "tx", "bank", "send", "val", friend, "5wei", *FEES, "--gas", "auto", "--gas-adjustment", "1", "--generate-only", *NODE, *KEYRING
    ):
        assert abs(int(made["auth_info"]["fee"]["gas_limit"]) - estimates[0]) < 1000
    for side in (sent.simd, sent.ours):
        code, out, err = side.run("tx", "bank", "send", val, friend, "5wei", *FEES, "-o", "json", *NODE, *KEYRING, stdin="n\n")
        assert (code, json.loads(out)["body"]["messages"][0]["amount"][0]["amount"]) == (0, "5")
        assert err.splitlines()[-1] == "canceled transaction"


REFUSED = [
    ("query", "bank", "balances", "nowhere"),
    ("query", "bank", "denom-metadata", "nothing"),
    ("query", "tx", "AB"),
    ("query", "block", "--type=height", "99999"),
    ("query", "auth", "account"),
    ("query", "nothing-of-the-kind"),
    ("tx", "bank", "send", "val", "nowhere", "5wei", "-y"),
    ("tx", "bank", "send", "nobody", "FRIEND", "5wei", "-y"),
    ("tx", "bank", "send", "val", "FRIEND", "many", "-y"),
    ("tx", "bank", "send", "val", "FRIEND", "5wei", "--offline", "-a", "0", "-s", "0", "--gas", "auto", "--generate-only"),
    ("tx", "bank", "send", "val", "FRIEND", "5wei", "--offline", "-a", "0", "-s", "0", "--gas", "auto", "-y"),
    ("tx", "decode", "####"),
    ("genesis", "gentx", "val", STAKE, "--chain-id", "another"),
    ("genesis", "gentx", "friend", STAKE, "--chain-id", "flow-1"),
    ("genesis", "add-genesis-account", "val", "1wei"),
    ("export",),
    ("rollback",),
]


@pytest.mark.parametrize("arguments", REFUSED, ids=lambda one: " ".join(one)[:40])
def test_what_simd_refuses_is_refused_with_the_same_code_and_an_empty_stdout(sent: Pair, arguments: tuple[str, ...]) -> None:
    full = [name_of(sent, "friend") if word == "FRIEND" else word for word in arguments]
    if full[0] == "tx" and full[1] == "bank":
        full += [*NODE, *KEYRING]
    elif full[0] == "query" and len(full) > 2:
        full += ["--node", "NODE"]
    elif full[0] == "genesis":
        full += KEYRING
    for side in (sent.simd, sent.ours):
        code, out, err = side.run(*full)
        assert (code, out, "Traceback" in err) == (1, "", False)
    assert err.splitlines()[-1].startswith("Error: ")


@pytest.fixture(scope="module")
def stopped(sent: Pair) -> Pair:
    for side in (sent.simd, sent.ours):
        assert side.stop() == 0
    return sent


def test_an_export_has_simds_shape(stopped: Pair) -> None:
    stopped.ok("export", "--height", "2", "--output-document", "HOME/export.json")
    theirs, ours = (json.loads(swapped((side.home / "export.json").read_text(), PREFIXES)) for side in (stopped.simd, stopped.ours))
    assert theirs["initial_height"] == ours["initial_height"] == 3
    same(theirs["consensus"], ours["consensus"], varies=r"block\.max_bytes|validators\[\]\.power")
    assert list(theirs) == list(ours)
    same(theirs["app_state"]["staking"], ours["app_state"]["staking"], varies=r"power$|\.(jailed|unbonding_ids)$")
    assert list(json.loads(stopped.ours.ok("export", "--modules-to-export", "bank"))["app_state"]) == ["bank"]


def test_rollback_goes_back_one_block_and_only_one_however_often(stopped: Pair) -> None:
    for side in (stopped.simd, stopped.ours):
        heights = []
        for flags in ((), (), ("--hard",), ("--hard",)):
            found = re.search(r"Rolled back state to height (\d+) and hash [0-9A-F]{64}$", side.ok("rollback", *flags).strip())
            assert found is not None
            heights.append(int(found[1]))
        assert [heights[0] - one for one in heights] == [0, 0, 0, 1]


def test_resets_leave_the_same_files(stopped: Pair) -> None:
    for command in ("reset-state", "unsafe-reset-all"):
        pair = stopped.ok("comet", command)
        left = [sorted(path.name for path in (side.home / "data").iterdir()) for side in (stopped.simd, stopped.ours)]
        states = [json.loads((side.home / "data" / "priv_validator_state.json").read_text()) for side in (stopped.simd, stopped.ours)]
        assert [name for name in left[0] if name != "snapshots"] == [name for name in left[1] if name != "snapshots"]
        assert list(states[0]) == list(states[1])
        assert "Removed" in pair[1]
    assert states[0] == states[1] == {"height": "0", "round": 0, "step": 0}
