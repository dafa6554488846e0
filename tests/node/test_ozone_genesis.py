"""Chains that begin with meta nodes: through the commands of an operator, and as the localnet's genesis file; both report from the first block on."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from chain import metakeys
from chain.app import build_application
from chain.codec.json import to_json
from chain.codec.registry import message_class
from chain.config import Home
from chain.crypto import address as bech32
from chain.metakeys import MetaKeys
from chain.store.kv import MemoryBackend
from chain.testing.driver import Driver, TxResult
from chain.testing.validators import ValidatorKey
from genesis import build, document
from tests.support import stchaind
from tools import localnet

CHAIN = "stratos-test-1"
KEYRING = ("--keyring-backend", "test")
STOS = 10**18


class Operator:
    """A home in which a chain is made."""

    def __init__(self, folder: Path) -> None:
        self.home = Home(folder / "home")
        self.ok("init", "mine", "--chain-id", CHAIN)
        self.address = json.loads(self.ok("keys", "add", "alice", *KEYRING, "--output", "json"))["address"]

    def run(self, *arguments: str) -> tuple[int, str, str]:
        return stchaind(self.home.root, *arguments)

    def ok(self, *arguments: str) -> str:
        code, out, err = self.run(*arguments)
        assert code == 0, err
        return out + err if arguments[0] in ("init", "keys") and not out.strip() else out

    def refused(self, *arguments: str) -> str:
        code, _, err = self.run(*arguments)
        assert code == 1
        assert "Traceback" not in err
        return err

    @property
    def genesis(self) -> dict[str, Any]:
        return document.load(self.home.genesis)

    def write_node(self, **change: Any) -> Path:
        """The file of a meta node with new keys, changed."""
        keys = MetaKeys.new()
        path = self.home.root / "config" / "genmetanodes" / "one.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({**keys.genesis_node(CHAIN, self.address, STOS, "one"), **change}))
        return path


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    return Operator(tmp_path)


def test_an_operator_makes_a_chain_that_begins_with_a_meta_node(operator: Operator) -> None:
    foundation = bech32.encode(bech32.module_address(build.FOUNDATION))
    operator.ok("genesis", "add-genesis-account", "alice", "2000stos", *KEYRING)
    operator.ok("genesis", "add-genesis-account", foundation, "40000000stos", "--module-name", build.FOUNDATION)
    operator.ok("meta-keys", "new")
    operator.ok("meta-keys", "gen-meta-node", operator.address, "1000stos", "--moniker", "mine", "--chain-id", CHAIN)
    assert operator.run("add-genesis-meta-node") == (0, "", "1 meta nodes added\n")
    operator.ok("genesis", "gentx", "alice", "100stos", *KEYRING)
    operator.ok("genesis", "collect-gentxs")
    code, _, err = operator.run("genesis", "validate")
    assert (code, err.count("warning:")) == (0, 1)
    assert "what is missing to 100000000000000000000000000wei is minted to the community pool in the first block" in err
    keys = metakeys.read(metakeys.path_in(operator.home))
    state = operator.genesis["app_state"]
    [node] = state["register"]["meta_nodes"]
    assert (node["network_address"], node["owner_address"], node["beneficiary_address"]) == (keys.network_address, operator.address, operator.address)
    assert (node["tokens"], node["status"], node["description"]["moniker"]) == (str(1000 * STOS), "BOND_STATUS_BONDED", "mine")
    [registered] = state["settlement"]["meta_keys"]
    assert base64.b64decode(registered["bls_pubkey"]) == keys.bls_pubkey
    assert "in the genesis file already" in operator.refused("genesis", "add-genesis-meta-node")


def test_a_chain_without_a_quorum_of_keys_is_told_that_it_cannot_report(operator: Operator) -> None:
    assert "no volume report is possible" in operator.run("genesis", "validate")[2]
    operator.ok("genesis", "add-genesis-account", "alice", "2000stos", *KEYRING)
    operator.write_node(bls_pubkey=None)
    for name in ("bls_pubkey", "proof_of_possession", "ledger_consensus_pubkey"):
        path = operator.home.root / "config" / "genmetanodes" / "one.json"
        path.write_text(json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key != name}))
    operator.ok("genesis", "add-genesis-meta-node")
    code, _, err = operator.run("genesis", "validate")
    assert code == 0
    assert "0 of 1 active meta nodes have registered keys" in err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tokens": {"denom": "wei", "amount": str(3000 * STOS)}}, "less than the 3000000000000000000000wei of meta nodes"),
        ({"tokens": {"denom": "ibc", "amount": "1"}}, "expected a deposit in wei, got 'ibc'"),
        ({"network_address": bech32.encode(bytes(20), bech32.NODE)}, "pubkey is not the key of"),
        ({"pubkey": None}, "pubkey is not the key of"),
        ({"owner_address": "st1"}, "decoding bech32 failed"),
        ({"moniker": "x"}, "moniker"),
        ({"bls_pubkey": "AAAA"}, "bls_pubkey"),
        ({"status": "BONDED"}, "status"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_meta_node_that_cannot_be_is_refused_and_nothing_is_written(operator: Operator, change: dict[str, Any], words: str) -> None:
    operator.ok("genesis", "add-genesis-account", "alice", "2000stos", *KEYRING)
    operator.write_node(**change)
    before = operator.home.genesis.read_bytes()
    assert words in operator.refused("genesis", "add-genesis-meta-node")
    assert operator.home.genesis.read_bytes() == before


def test_a_folder_without_meta_nodes_and_files_that_are_none_are_named(operator: Operator) -> None:
    assert "there are no meta nodes in" in operator.refused("genesis", "add-genesis-meta-node")
    path = operator.write_node()
    for content in ("[]", "{", "5"):
        path.write_text(content)
        assert str(path) in operator.refused("genesis", "add-genesis-meta-node", "--gen-meta-node-dir", str(path.parent))


class Net:
    """The localnet's genesis file on one application, its validators' keys at hand, and its accounts with the commands."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.net = localnet.make(folder, 30_000)
        self.homes = [Home(Path(node["home"])) for node in self.net["nodes"] if node["validator"]]
        keys = [ValidatorKey.from_file(home.validator_key) for home in self.homes]
        self.app = build_application(MemoryBackend())
        made = document.load(self.homes[0].genesis)
        made["consensus"]["params"] = to_json(document.consensus_params(made))
        self.driver = Driver([self.app], made, keys=keys)
        self.driver.start()
        self.driver.next_block()
        self.sequences: dict[str, int] = {}

    def ask(self, service: str, **fields: Any) -> Any:
        package, _, method = service.rpartition("/")
        found = message_class(f"stratos.{package}.v1.Query{method}Request")(**fields)
        return self.app.query_rpc(f"/stratos.{package}.v1.Query/{method}", found)[0]

    def run(self, home: int, *arguments: str) -> str:
        code, out, err = stchaind(self.homes[home].root, *arguments)
        assert code == 0, err
        return out

    def drafted(self, epoch: int, *more: str) -> Path:
        owner = self.net["nodes"][0]["operator"]
        path = self.folder / "draft.json"
        path.write_text(self.run(0, "meta-keys", "draft-report", str(epoch), *more, "--reporter-owner", owner, "--chain-id", localnet.CHAIN_ID))
        return path

    def signed(self, draft: Path, *nodes: int) -> list[str]:
        """Files of the signatures of meta nodes."""
        paths = []
        for node in nodes:
            path = self.folder / f"signature{node}.json"
            path.write_text(self.run(node, "meta-keys", "sign-report", str(draft)))
            paths.append(str(path))
        return paths

    def execute(self, sender: str, *command: str) -> TxResult:
        """What becomes of a command's transaction, in a block of its own."""
        names = [account["name"] for account in self.net["accounts"]]
        common = ("--from", sender, *KEYRING, "--chain-id", localnet.CHAIN_ID)
        unsigned, signed = self.folder / "unsigned.json", self.folder / "signed.json"
        unsigned.write_text(self.run(0, "tx", *command, *common, "--fees", "1000000gwei", "--gas", "1000000", "--generate-only"))
        sequence = self.sequences.get(sender, 1 if sender.startswith("node") else 0)
        offline = ("--offline", "--account-number", str(names.index(sender)), "--sequence", str(sequence))
        signed.write_text(self.run(0, "tx", "sign", str(unsigned), *common, *offline))
        self.sequences[sender] = sequence + 1
        raw = base64.b64decode(self.run(0, "tx", "encode", str(signed)))
        return self.driver.next_block([raw]).results[0]


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Net:
    return Net(tmp_path_factory.mktemp("localnet"))


def test_the_localnet_begins_with_four_meta_nodes_that_can_report_a_funded_foundation_and_a_supply_that_stays(net: Net) -> None:
    quorum = net.ask("settlement/Quorum")
    assert (quorum.active_meta_nodes, quorum.with_keys, quorum.quorum) == (4, 4, 3)
    ozone = net.ask("register/OzoneState")
    assert int(ozone.effective_deposit_wei) == 4 * 1000 * STOS
    assert int(ozone.remaining_noz) == int(ozone.total_noz) == 4 * 1000 * 10**12
    state = net.driver.genesis["app_state"]
    supply = int(state["bank"]["supply"][0]["amount"])
    assert int(state["pot"]["params"]["initial_total_supply"]["amount"]) == supply
    assert supply == (10 * 10**6 + 4 * 1000 + 40_000_000) * STOS
    assert int(net.ask("pot/SupplyBreakdown").total_wei) == supply, "nothing was minted in the first block"
    params = state["pot"]["params"], state["register"]["params"]
    assert (params[0]["epoch_duration_s"], params[0]["mature_epoch"]) == ("30", "4")
    assert (params[1]["voting_period"], params[1]["unbonding_threashold_time"], params[1]["unbonding_completion_time"]) == ("60s", "30s", "30s")
    assert [one["owner"] for one in net.net["resource_nodes"]] == ["owner0", "owner1"]
    for home in net.homes:
        path = metakeys.path_in(home)
        assert path.stat().st_mode & 0o777 == 0o600


def test_its_meta_nodes_report_an_epoch_through_the_commands(net: Net) -> None:
    wallet = net.net["accounts"][4]["address"]
    bought = net.execute("alice", "sds", "prepay", "alice", wallet, "10stos")
    assert bought.code == 0, bought.log
    draft = net.drafted(1, f"{wallet}=1000000", "--receipts-count", "1", "--receipts-root", "ab" * 32)
    short = net.execute("node0", "settlement", "commit-and-report", str(draft), *net.signed(draft, 0, 1))
    assert (short.codespace, short.code) == ("pot", 24), short.log
    done = net.execute("node0", "settlement", "commit-and-report", str(draft), *net.signed(draft, 1, 2, 3))
    assert done.code == 0, done.log
    assert net.ask("pot/VolumeReport").report_info.epoch == 1
    names = [net.net["nodes"][at]["meta_node"]["network_address"] for at in (1, 2, 3)]
    assert sorted(net.ask("settlement/Epoch", epoch=1).epoch.signers) == sorted(names)
    idle = net.drafted(2)
    early = net.execute("node0", "settlement", "commit-and-report", str(idle), *net.signed(idle, 0, 1, 2))
    assert early.code != 0
    for _ in range(6):
        net.driver.next_block()
    late = net.execute("node0", "settlement", "commit-and-report", str(idle), *net.signed(idle, 0, 1, 2))
    assert late.code == 0, late.log


def test_an_owner_registers_the_resource_node_that_localnet_json_has_a_key_for(net: Net) -> None:
    node = net.net["resource_nodes"][0]
    flags = ("--pubkey", node["network_pubkey"], "--amount", "10stos", "--node-type", "storage", "--moniker", "r")
    made = net.execute("owner0", "register", "create-resource-node", *flags)
    assert made.code == 0, made.log
    assert net.ask("register/ResourceNode", network_addr=node["network_address"]).node.owner_address
