"""``tx register``, ``sds``, ``pot``, ``settlement`` and ``grant``, and ``meta-keys``: each command makes the message that was typed; what is typed wrong is
one sentence.
"""

from __future__ import annotations

import base64
import json
import os
import stat
from pathlib import Path
from typing import Any

import click
import pytest

from chain import metakeys, reports
from chain.cli.main import cli
from chain.cli.tx import Remote
from chain.codec.canonical import encode
from chain.codec.json import to_json
from chain.codec.registry import message_class
from chain.config import ConfigError
from chain.crypto import address as bech32
from chain.crypto import bls
from chain.crypto.keyring import open_keyring
from chain.crypto.keys import Ed25519PublicKey
from chain.metakeys import MetaKeys
from tests.support import CHAIN_ID, KEYS, stchaind, text

KEYRING = ("--keyring-backend", "test")
ALICE, BOB, CAROL = (text(KEYS[at]) for at in (2, 3, 4))
NODE_KEY = Ed25519PublicKey(bytes(range(32)))
NODE, OTHER = (bech32.encode(address, bech32.NODE) for address in (NODE_KEY.address, bytes(range(20))))
PUBKEY = bech32.encode(NODE_KEY.raw, bech32.NODE_PUB)
JSON_PUBKEY = json.dumps({"@type": "/cosmos.crypto.ed25519.PubKey", "key": base64.b64encode(NODE_KEY.raw).decode()})
STOS = 10**18
META = MetaKeys(bytes(32), 7, bytes([1]) * 32)
LEAF = {"epoch": "4", "index": "2", "leaf": {"beneficiary": BOB, "noz": "5"}, "path": [{"hash": "AAAA", "sum_noz": "1"}]}
CAMPAIGN = {"pool_id": "2", "name": "spring", "operators": [BOB], "budget_wei": "1.5stos", "max_wei_per_day": "7", "max_noz_per_wallet": "9"}
FILES = {
    "campaign.json": {**CAMPAIGN, "validity_s": "60", "end_time": "2030-01-01T00:00:00Z", "promotions": [{"promotion_id": 1, "noz_per_wallet": "3"}]},
    "unknown.json": {**CAMPAIGN, "budget": "1"},
    "leaf.json": LEAF,
    "proof.json": {"bad_leaf": {"leaf": LEAF}},
    "two.json": {"bad_leaf": {"leaf": LEAF}, "wrong_order": {}},
    "list.json": [],
}
OWNED = {"network_address": NODE, "owner_address": ALICE}
NAMED = ("--network-address", NODE)
DESCRIBED = ("--moniker", "mine", "--identity", "id", "--website", "w", "--security-contact", "s", "--details", "d")
DESCRIPTION = {"moniker": "mine", "identity": "id", "website": "w", "security_contact": "s", "details": "d"}


def coin(amount: int) -> dict[str, str]:
    return {"denom": "wei", "amount": str(amount)}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    open_keyring("test", tmp_path / "home", ask=lambda _: "", notify=lambda _: None).add_private("alice", KEYS[2])
    for name, content in FILES.items():
        (tmp_path / name).write_text(json.dumps(content))
    META.save(tmp_path / "home" / "config" / metakeys.FILE_NAME)
    return tmp_path


def made(home: Path, *arguments: str) -> tuple[int, str, str]:
    given = [str(home / one) if one.endswith(".json") else one for one in arguments]
    sender = () if arguments[:2] == ("sds", "prepay") else ("--from", "alice")
    return stchaind(home / "home", "tx", *given, *sender, "--fees", "600000gwei", "--generate-only", "--chain-id", CHAIN_ID, *KEYRING)


COMMANDS: list[tuple[tuple[str, ...], str, dict[str, Any]]] = [
    (
        ("register", "create-resource-node", *NAMED, "--amount", "10stos", "--pubkey", PUBKEY, "--node-type", "4", *DESCRIBED),
        "register.v1.MsgCreateResourceNode",
        {**OWNED, "value": coin(10 * STOS), "node_type": 4, "beneficiary_address": "", "description": DESCRIPTION, "pubkey": json.loads(JSON_PUBKEY)},
    ),
    (
        (
            "register",
            "create-resource-node",
            "--amount",
            "5gwei",
            "--pubkey",
            JSON_PUBKEY,
            "--node-type",
            "storage/database",
            "--moniker",
            "m",
            *("--beneficiary-address", BOB),
        ),
        "register.v1.MsgCreateResourceNode",
        {**OWNED, "value": coin(5 * 10**9), "node_type": 6, "beneficiary_address": BOB, "pubkey": json.loads(JSON_PUBKEY)},
    ),
    (("register", "remove-resource-node", *NAMED), "register.v1.MsgRemoveResourceNode", {"resource_node_address": NODE, "owner_address": ALICE}),
    (
        ("register", "update-resource-node", *NAMED, "--node-type", "7", *DESCRIBED, "--beneficiary-address", BOB),
        "register.v1.MsgUpdateResourceNode",
        {**OWNED, "node_type": 7, "description": DESCRIPTION, "beneficiary_address": BOB},
    ),
    (
        ("register", "update-resource-node-deposit", *NAMED, "--deposit-delta", "2stos", "--incr-deposit=true"),
        "register.v1.MsgUpdateResourceNodeDeposit",
        {**OWNED, "deposit_delta": coin(2 * STOS)},
    ),
    (
        ("register", "create-meta-node", *NAMED, "--amount", "1000stos", "--pubkey", PUBKEY, *DESCRIBED),
        "register.v1.MsgCreateMetaNode",
        {**OWNED, "value": coin(1000 * STOS), "beneficiary_address": ALICE, "description": DESCRIPTION},
    ),
    (("register", "remove-meta-node", *NAMED), "register.v1.MsgRemoveMetaNode", {"meta_node_address": NODE, "owner_address": ALICE}),
    (
        ("register", "update-meta-node", *NAMED, *DESCRIBED),
        "register.v1.MsgUpdateMetaNode",
        {**OWNED, "description": DESCRIPTION, "beneficiary_address": ""},
    ),
    (
        ("register", "update-meta-node-deposit", *NAMED, "--deposit-delta", "1wei", "--incr-deposit"),
        "register.v1.MsgUpdateMetaNodeDeposit",
        {**OWNED, "deposit_delta": coin(1)},
    ),
    (
        (
            "register",
            "meta-node-reg-vote",
            "--candidate-network-address",
            NODE,
            "--candidate-owner-address",
            BOB,
            "--opinion=true",
            *("--voter-network-address", OTHER),
        ),
        "register.v1.MsgMetaNodeRegistrationVote",
        {"candidate_network_address": NODE, "candidate_owner_address": BOB, "opinion": True}
        | {"voter_network_address": OTHER, "voter_owner_address": ALICE},
    ),
    (
        ("register", "kick-meta-node-vote", "--target-network-address", NODE, "--opinion", "false", "--voter-network-address", OTHER),
        "register.v1.MsgKickMetaNodeVote",
        {"target_network_address": NODE, "opinion": False, "voter_network_address": OTHER, "voter_owner_address": ALICE},
    ),
    (
        ("register", "update-effective-deposit", *NAMED, "--effective-tokens", "3stos", "--reporters", OTHER),
        "register.v1.MsgUpdateEffectiveDeposit",
        {"network_address": NODE, "effective_tokens": str(3 * STOS), "reporters": [OTHER], "reporter_owner": [ALICE]},
    ),
    (
        (
            "register",
            "update-effective-deposit",
            *NAMED,
            "--effective-tokens",
            "3wei",
            "--reporters",
            f"{OTHER},{NODE}",
            "--reporter-owner",
            *(json.dumps([ALICE, BOB]),),
        ),
        "register.v1.MsgUpdateEffectiveDeposit",
        {"effective_tokens": "3", "reporters": [OTHER, NODE], "reporter_owner": [ALICE, BOB]},
    ),
    (("sds", "prepay", "alice", BOB, "1.5stos"), "sds.v1.MsgPrepay", {"sender": ALICE, "beneficiary": BOB, "amount": [coin(15 * 10**17)]}),
    (
        ("sds", "upload", "--file-hash", "v05", "--reporter", NODE, "--uploader", BOB),
        "sds.v1.MsgFileUpload",
        {"file_hash": "v05", "from": ALICE, "reporter": NODE, "uploader": BOB},
    ),
    (("pot", "withdraw", "--amount", "5gwei"), "pot.v1.MsgWithdraw", {"wallet_address": ALICE, "target_address": ALICE, "amount": [coin(5 * 10**9)]}),
    (
        ("pot", "withdraw", "--amount", "5wei", "--target-address", BOB),
        "pot.v1.MsgWithdraw",
        {"wallet_address": ALICE, "target_address": BOB, "amount": [coin(5)]},
    ),
    (("pot", "foundation-deposit", "--amount", "1stos"), "pot.v1.MsgFoundationDeposit", {"from": ALICE, "amount": [coin(STOS)]}),
    (
        ("pot", "slashing", "--reporters", json.dumps([OTHER]), *NAMED, "--wallet-address", BOB, "--slashing", "77", "--suspend"),
        "pot.v1.MsgSlashingResourceNode",
        {"reporters": [OTHER], "reporter_owner": [ALICE], "network_address": NODE, "wallet_address": BOB, "slashing": "77", "suspend": True},
    ),
    (
        (
            "pot",
            "report",
            "--wallet-volumes",
            json.dumps([{"wallet_address": BOB, "volume": "9"}]),
            "--reporter-addr",
            NODE,
            "--epoch",
            "3",
            *("--reference", "sc1", "--bls-signature", json.dumps({"pub_keys": ["AAAA"], "signature": "AQ==", "txData": "Ag=="})),
        ),
        "pot.v1.MsgVolumeReport",
        {
            "wallet_volumes": [{"wallet_address": BOB, "volume": "9"}],
            "reporter": NODE,
            "epoch": "3",
            "report_reference": "sc1",
            "reporter_owner": ALICE,
        }
        | {"BLS_signature": {"pub_keys": ["AAAA"], "signature": "AQ==", "txData": "Ag=="}},
    ),
    (
        ("settlement", "register-meta-keys"),
        "settlement.v1.MsgRegisterMetaKeys",
        {"meta_node": META.network_address, "owner": ALICE, "bls_pubkey": base64.b64encode(META.bls_pubkey).decode()}
        | {"proof_of_possession": base64.b64encode(META.proof_of_possession(CHAIN_ID)).decode()},
    ),
    (("settlement", "fraud-proof", "proof.json"), "settlement.v1.MsgFraudProof", {"finder": ALICE}),
    (
        ("settlement", "challenge", "12", "7"),
        "settlement.v1.MsgFraudProof",
        {"finder": ALICE, "withheld_leaf": {"epoch": "12", "leaf_index": "7"}},
    ),
    (("settlement", "answer-challenge", "3", "leaf.json"), "settlement.v1.MsgAnswerChallenge", {"responder": ALICE, "challenge_id": "3"}),
    (("grant", "create-pool", "spring", "5stos"), "grant.v1.MsgCreatePool", {"admin": ALICE, "name": "spring", "funding": coin(5 * STOS)}),
    (("grant", "fund-pool", "1", "5gwei"), "grant.v1.MsgFundPool", {"depositor": ALICE, "pool_id": "1", "amount": coin(5 * 10**9)}),
    (
        ("grant", "create-campaign", "campaign.json"),
        "grant.v1.MsgCreateCampaign",
        {"admin": ALICE, "pool_id": "2", "budget_wei": str(15 * 10**17), "max_wei_per_day": "7", "operators": [BOB]},
    ),
    (
        (
            "grant",
            "add-promotion",
            "3",
            "2",
            "--name",
            "summer",
            "--noz-per-wallet",
            "11",
            *("--start-time", "2030-06-01T00:00:00Z", "--end-time", "2030-09-01T00:00:00Z"),
        ),
        "grant.v1.MsgAddPromotion",
        {"admin": ALICE, "campaign_id": "3"}
        | {
            "promotion": {"promotion_id": 2, "name": "summer", "noz_per_wallet": "11"}
            | {"start_time": "2030-06-01T00:00:00Z", "end_time": "2030-09-01T00:00:00Z"}
        },
    ),
    (("grant", "set-operators", "3", BOB, CAROL), "grant.v1.MsgSetOperators", {"admin": ALICE, "campaign_id": "3", "operators": [BOB, CAROL]}),
    (("grant", "set-operators", "3"), "grant.v1.MsgSetOperators", {"admin": ALICE, "campaign_id": "3", "operators": []}),
    (("grant", "end-campaign", "3"), "grant.v1.MsgEndCampaign", {"admin": ALICE, "campaign_id": "3"}),
    (
        ("grant", "claim", "3", "1", BOB, CAROL),
        "grant.v1.MsgClaim",
        {"operator": ALICE, "campaign_id": "3", "promotion_id": 1, "wallets": [BOB, CAROL]},
    ),
]


@pytest.mark.parametrize(("arguments", "name", "fields"), COMMANDS, ids=lambda value: " ".join(value[:3])[:50] if isinstance(value, tuple) else None)
def test_a_command_makes_the_message_that_was_typed(home: Path, arguments: tuple[str, ...], name: str, fields: dict[str, Any]) -> None:
    code, out, err = made(home, *arguments)
    assert (code, err) == (0, "")
    [message] = json.loads(out)["body"]["messages"]
    assert message["@type"] == f"/stratos.{name}"
    assert {field: message[field] for field in fields} == fields


def test_every_message_of_the_five_modules_that_an_account_may_sign_has_a_command() -> None:
    wanted = set()
    for module in ("register", "sds", "pot", "settlement", "grant"):
        service = message_class(f"stratos.{module}.v1.MsgUpdateParams").DESCRIPTOR.file.services_by_name["Msg"]
        wanted |= {method.input_type.full_name.removeprefix("stratos.") for method in service.methods}
    assert wanted - {name for _, name, _ in COMMANDS} == {
        *(f"{module}.v1.MsgUpdateParams" for module in ("register", "sds", "pot", "settlement", "grant")),
        "settlement.v1.MsgCommitEpoch",  # with its report, below
    }


REFUSED: list[tuple[tuple[str, ...], str]] = [
    (
        ("register", "create-resource-node", "--amount", "1stos", "--pubkey", PUBKEY, "--node-type", "8", "--moniker", "m"),
        "--node-type: expected 1 to 7",
    ),
    (("register", "create-resource-node", "--amount", "1stos", "--pubkey", PUBKEY, "--node-type", "disk", "--moniker", "m"), "names out of storage/"),
    (("register", "create-resource-node", "--amount", "1stos", "--pubkey", PUBKEY, "--node-type", "4"), "--moniker must name the node"),
    (
        (
            "register",
            "create-resource-node",
            "--network-address",
            OTHER,
            "--amount",
            "1stos",
            "--pubkey",
            PUBKEY,
            "--node-type",
            "4",
            "--moniker",
            "m",
        ),
        f"is not the one of --pubkey, which is {NODE}",
    ),
    (("register", "create-meta-node", "--amount", "1stos", "--pubkey", "stpub1", "--moniker", "m"), "decoding bech32 failed"),
    (("register", "create-meta-node", "--amount", "1stos,2ibc", "--pubkey", PUBKEY, "--moniker", "m"), "expected one coin"),
    (
        (
            "register",
            "create-meta-node",
            "--amount",
            "1stos",
            "--moniker",
            "m",
            "--pubkey",
            *(json.dumps({"@type": "/cosmos.crypto.secp256k1.PubKey", "key": base64.b64encode(KEYS[2].public_key.raw).decode()}),),
        ),
        "a node has an ed25519 key",
    ),
    (("register", "remove-resource-node", "--network-address", ALICE), "expected stsds, got st"),
    (
        ("register", "meta-node-reg-vote", "--candidate-network-address", NODE, "--candidate-owner-address", BOB, "--voter-network-address", OTHER),
        "--opinion",
    ),
    (("register", "update-effective-deposit", *NAMED, "--effective-tokens", "3ibc", "--reporters", OTHER), "counted in wei, gwei or stos"),
    (
        ("register", "update-effective-deposit", *NAMED, "--effective-tokens", "3wei", "--reporters", f"{OTHER},{NODE}", "--reporter-owner", BOB),
        "got 1",
    ),
    (("sds", "prepay", "alice", NODE, "1stos"), "expected st, got stsds"),
    (("pot", "slashing", "--reporters", OTHER, *NAMED, "--wallet-address", BOB, "--slashing", "-7"), "--slashing: expected a whole number of noz"),
    (("pot", "slashing", "--reporters", "[1]", *NAMED, "--wallet-address", BOB, "--slashing", "7"), "expected a list of addresses"),
    (("settlement", "fraud-proof", "two.json"), "or another of double_entry"),
    (("settlement", "fraud-proof", "list.json"), "is no JSON object"),
    (("grant", "create-campaign", "unknown.json"), "which no campaign has"),
    (("grant", "create-pool", "spring", "5ibc"), "expected an amount in wei, gwei or stos"),
    (("grant", "claim", "3", "1"), "Missing argument"),
]


@pytest.mark.parametrize(("arguments", "words"), REFUSED, ids=lambda value: value[:50] if isinstance(value, str) else None)
def test_what_is_typed_wrong_is_one_sentence(home: Path, arguments: tuple[str, ...], words: str) -> None:
    code, out, err = made(home, *arguments)
    assert (code, out) == (1, "")
    assert words in err
    assert "Traceback" not in err


def test_a_second_owner_must_sign_elsewhere(home: Path) -> None:
    typed = ("tx", "register", "update-effective-deposit", *NAMED, "--effective-tokens", "3wei", "--reporters", OTHER, "--reporter-owner", BOB)
    code, _, err = stchaind(home / "home", *typed, "--from", "alice", *KEYRING)
    assert code == 1
    assert f"{BOB} has to sign, too: use --generate-only" in err


def test_every_new_command_shows_an_example_and_completes_in_a_shell() -> None:
    tx = cli.commands["tx"]
    assert isinstance(tx, click.Group)
    groups = [tx.commands[name] for name in ("register", "sds", "pot", "settlement", "grant")] + [cli.commands["meta-keys"]]
    for group in groups:
        assert isinstance(group, click.Group)
        for name, command in group.commands.items():
            assert f" {name}" in (command.help or "").partition("stchaind ")[2], f"{name} has no example"
        assert [one.value for one in group.shell_complete(click.Context(group), "")][: len(group.commands)] == sorted(group.commands)


QUERIES: list[tuple[tuple[str, ...], str, dict[str, Any]]] = [
    (("register", "get-resource-node", "--network-address", NODE), "register.v1.Query/ResourceNode", {"network_addr": NODE}),
    (("register", "get-meta-node", "--network-address", NODE), "register.v1.Query/MetaNode", {"network_addr": NODE}),
    (("register", "get-resource-count"), "register.v1.Query/BondedResourceNodeCount", {}),
    (("register", "get-meta-count"), "register.v1.Query/BondedMetaNodeCount", {}),
    (("register", "deposit-by-node", NODE, "--query-type", "2"), "register.v1.Query/DepositByNode", {"network_addr": NODE, "query_type": 2}),
    (("register", "deposit-by-node", NODE), "register.v1.Query/DepositByNode", {"network_addr": NODE}),
    (
        ("register", "resource-nodes", "--owner-address", ALICE, "--status", "bonded", "--suspension", "suspended"),
        "register.v1.Query/ResourceNodes",
        {"owner_address": ALICE, "status": "BOND_STATUS_BONDED", "suspension": "SUSPENSION_FILTER_SUSPENDED"},
    ),
    (("register", "meta-nodes"), "register.v1.Query/MetaNodes", {}),
    (("register", "votes", NODE), "register.v1.Query/Votes", {"network_addr": NODE}),
    (("pot", "report", "--epoch", "3"), "pot.v1.Query/VolumeReport", {"epoch": "3"}),
    (("pot", "report"), "pot.v1.Query/VolumeReport", {}),
    (("pot", "total-reward", "--epoch", "3"), "pot.v1.Query/TotalRewardByEpoch", {"epoch": "3"}),
    (("pot", "rewards-by-wallet-and-epoch", BOB, "3"), "pot.v1.Query/RewardsByWalletAndEpoch", {"wallet_address": BOB, "epoch": "3"}),
    (("pot", "price-history", "--from-epoch", "2"), "pot.v1.Query/PriceHistory", {"from_epoch": "2"}),
    (("pot", "withdrawals", BOB), "pot.v1.Query/Withdrawals", {"wallet_address": BOB}),
    (("sds", "upload", "v05"), "sds.v1.Query/Fileupload", {"file_hash": "v05"}),
    (("sds", "sim-prepay", "1stos"), "sds.v1.Query/SimPrepay", {"amount": "1stos"}),
    (("settlement", "epochs", "--status", "void"), "settlement.v1.Query/Epochs", {"status": "EPOCH_STATUS_VOID"}),
    (("settlement", "challenges", "--epoch", "3"), "settlement.v1.Query/Challenges", {"epoch": "3"}),
    (("grant", "campaigns", "--pool-id", "2", "--status", "open"), "grant.v1.Query/Campaigns", {"pool_id": "2", "status": "CAMPAIGN_STATUS_OPEN"}),
    (("grant", "claims-by-campaign", "2", "--page-limit", "5"), "grant.v1.Query/ClaimsByCampaign", {"campaign_id": "2"}),
]


@pytest.mark.parametrize(("arguments", "path", "fields"), QUERIES, ids=lambda value: " ".join(value)[:40] if isinstance(value, tuple) else None)
def test_a_query_asks_what_was_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], path: str, fields: dict[str, Any]
) -> None:
    asked: list[tuple[str, Any]] = []

    def rpc(_: Remote, path: str, request: Any, height: int = 0) -> Any:
        asked.append((path, request))
        return request

    monkeypatch.setattr(Remote, "rpc", rpc)
    code, _, err = stchaind(tmp_path, "query", *arguments)
    assert (code, err) == (0, "")
    [(found, request)] = asked
    told = to_json(request)
    assert found == f"/stratos.{path}"
    assert {field: told[field] for field in fields} == fields


def test_every_query_of_the_five_modules_has_a_command() -> None:
    query = cli.commands["query"]
    assert isinstance(query, click.Group)
    for module in ("register", "sds", "pot", "settlement", "grant"):
        group = query.commands[module]
        assert isinstance(group, click.Group)
        service = message_class(f"stratos.{module}.v1.QueryParamsRequest").DESCRIPTOR.file.services_by_name["Query"]
        helps = " ".join(command.help or "" for command in group.commands.values())
        assert [method.name for method in service.methods if f"/stratos.{module}.v1.Query/{method.name} " not in helps] == []


def volume_report(reference: str) -> Any:
    message = message_class("stratos.pot.v1.MsgVolumeReport")(reporter="stsds1793jm44fj9tw0c9c8gxwymc6dtnefw0u9p22wk", epoch="1")
    for wallet, volume in (("cxmws9w5ej8847q5ycfskhetrccnhruf56rgc0", 50000), ("9204mtgwql49vyex00ah7e5gg9znedf7w5z68g", 30000)):
        message.wallet_volumes.add(wallet_address=f"st1{wallet}", volume=str(volume))
    message.wallet_volumes.add(wallet_address="st1zy9qal508nvc9h0xqmyz500mkuxhteu7elus52", volume="20000")
    message.report_reference, message.reporter_owner = reference, "st13z9efm0lwgz03xx5wm3hhv5jjcc3vsc45xwgpd"
    return message


def test_tx_data_is_the_published_one() -> None:
    report = volume_report("report for epoch 1")
    assert len(encode(report)) == 270
    assert reports.tx_data(report).hex() == "1f2a4e31306cb67d54fd167b390b045e4510a68739f15862fc81f0224891db78"
    report.BLS_signature.signature = b"x"
    assert reports.tx_data(report).hex().startswith("1f2a4e31"), "the signature is no part of what is signed"


def test_a_report_goes_from_its_draft_over_the_meta_nodes_to_one_transaction_of_two_messages(home: Path) -> None:
    def run(*arguments: str) -> str:
        code, out, err = stchaind(home / "home", *arguments)
        assert (code, err) == (0, "")
        return out

    draft, signatures = str(home / "draft.json"), []
    volumes = sorted([f"{BOB}=50000", f"{CAROL}=3"], reverse=True)
    Path(draft).write_text(
        run(
            "meta-keys",
            "draft-report",
            "5",
            *volumes,
            "--receipts-count",
            "2",
            "--receipts-root",
            "ab" * 32,
            "--reporter-owner",
            ALICE,
            "--chain-id",
            CHAIN_ID,
        )
    )
    for number in range(3):
        keys = home / f"meta{number}"
        run("meta-keys", "new", "--meta-keys", str(keys))
        signatures.append(str(home / f"signature{number}"))
        Path(signatures[-1]).write_text(run("meta-keys", "sign-report", draft, "--meta-keys", str(keys)))
    sender = ("--from", ALICE, "--generate-only", *KEYRING)
    made = json.loads(run("tx", "settlement", "commit-and-report", draft, *signatures, "--sign", *sender))
    commit, report = made["body"]["messages"]
    assert (commit["@type"], report["@type"]) == ("/stratos.settlement.v1.MsgCommitEpoch", "/stratos.pot.v1.MsgVolumeReport")
    assert commit["reporter_owner"] == report["reporter_owner"] == ALICE
    assert (commit["commitment"]["epoch"], report["epoch"], report["reporter"]) == ("5", "5", META.network_address)
    assert [one["wallet_address"] for one in report["wallet_volumes"]] == sorted([BOB, CAROL])
    info = report["BLS_signature"]
    selectors = [base64.b64decode(one) for one in info["pub_keys"]]
    assert len(selectors) == 4
    assert selectors == sorted(selectors)
    message = b"stratos/volume-report/v1" + CHAIN_ID.encode() + b"\x00" + base64.b64decode(info["txData"])
    assert bls.verify_aggregate(selectors, message, base64.b64decode(info["signature"]))
    assert json.loads(run("meta-keys", "aggregate", draft, *signatures))["txData"] == info["txData"]

    other = json.loads(Path(draft).read_text()) | {"epoch": "6"}
    Path(draft).write_text(json.dumps(other))
    for command in (("meta-keys", "aggregate", draft, *signatures), ("tx", "settlement", "commit-and-report", draft, signatures[0], *sender)):
        code, _, err = stchaind(home / "home", *command)
        assert code == 1
        assert "signs another report" in err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"epoch": None}, "epoch"),
        ({"reporter": ALICE}, "expected stsds, got st"),
        ({"wallet_volumes": []}, "expected at least one wallet"),
        ({"wallet_volumes": [{"wallet_address": BOB, "volume": "1"}] * 2}, "is there twice"),
        ({"wallet_volumes": [{"wallet_address": BOB, "volume": "x"}]}, "the volume of st1"),
        ({"roots": {"receipts_rot": "AAAA"}}, "receipts_rot"),
        ({"roots": 5}, "roots: expected an object"),
        ({"lines": [{"wallet": "st1", "volume_noz": "1"}]}, "decoding bech32 failed"),
        ({"chain_id": ""}, "expected the chain's id"),
        ({"volumes": []}, "which no draft has"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_draft_that_is_none_is_refused_by_name(home: Path, change: dict[str, Any], words: str) -> None:
    draft = {**reports.draft(CHAIN_ID, 1, META.network_address, ALICE), **change}
    (home / "draft.json").write_text(json.dumps(draft))
    code, out, err = stchaind(home / "home", "meta-keys", "sign-report", str(home / "draft.json"))
    assert (code, out) == (1, "")
    assert words in err
    assert "Traceback" not in err


def test_an_idle_epoch_lists_the_owner_with_nothing_and_lines_are_put_in_order() -> None:
    given = reports.draft(CHAIN_ID, 1, META.network_address, ALICE)
    assert given["wallet_volumes"] == [{"wallet_address": ALICE, "volume": "0"}]
    lines = [{"wallet": wallet, "traffic_class": kind, "fund": "FUND_PAID", "volume_noz": "1"} for wallet in (BOB, CAROL) for kind in (3, 2)]
    drafts = [reports.draft_of({**given, "lines": one}) for one in (lines, lines[::-1])]
    assert drafts[0].data == drafts[1].data
    assert drafts[0].report.report_reference.startswith("sc1")
    assert len(drafts[0].report.report_reference) == 67


def test_meta_keys_are_for_their_owner_alone_and_are_not_replaced(home: Path) -> None:
    path = home / "home" / "config" / metakeys.FILE_NAME
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    before = path.read_bytes()
    code, out, err = stchaind(home / "home", "meta-keys", "new")
    assert (code, out) == (1, "")
    assert "exists: move it away first" in err
    assert path.read_bytes() == before
    assert json.loads(stchaind(home / "home", "meta-keys", "show", "-o", "json")[1]) == META.told()
    assert "00" * 16 not in repr(META)
    for name, content, mode, words in (
        ("open", before, 0o640, "has mode 0640: others must not read"),
        (
            "short",
            json.dumps({**json.loads(before), "bls_secret": "07"}).encode(),
            0o600,
            "expected network_seed, bls_secret, ledger_seed of 32 bytes",
        ),
        ("zero", json.dumps({**json.loads(before), "bls_secret": "00" * 32}).encode(), 0o600, "is no file of meta node keys"),
        ("mixed", json.dumps({**json.loads(before), "bls_secret": "08".rjust(64, "0")}).encode(), 0o600, "bls_pubkey does not belong to the secret"),
        ("text", b"[" * 40_000, 0o600, "is no file of meta node keys"),
    ):
        other = home / name
        other.write_bytes(content)
        other.chmod(mode)
        with pytest.raises(ConfigError, match=words):
            metakeys.read(other)
    with pytest.raises(ConfigError, match="make keys with `stchaind meta-keys new`"):
        metakeys.read(home / "nothing")


def test_a_proof_of_possession_holds_on_its_chain_alone(home: Path) -> None:
    told = json.loads(stchaind(home / "home", "meta-keys", "prove", "--chain-id", CHAIN_ID)[1])
    key, proof = base64.b64decode(told["bls_pubkey"]), base64.b64decode(told["proof_of_possession"])
    assert bls.verify_possession(CHAIN_ID, META.address, key, proof)
    assert not bls.verify_possession("other-1", META.address, key, proof)
