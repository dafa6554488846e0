"""settlement: keys of meta nodes, commitments and their reports, what is kept, parameters, queries, genesis, and the two trees."""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chain.app import build_application
from chain.codec.canonical import encode
from chain.crypto import address as bech32
from chain.crypto import bls
from chain.errors import AppError, InvalidRequest, NotFound
from chain.module import GenesisError
from chain.store.kv import MemoryBackend
from chain.store.state import State
from chain.testing.driver import Driver
from genesis import build
from modules.settlement import commitment, errors, keys, trees
from modules.settlement.genesis import SettlementGenesis
from modules.settlement.params import check_params, default_params
from tests.grants import execute
from tests.modules.settling import (
    COMPUTE,
    DATABASE,
    EDGE,
    EPOCH_S,
    MATURE_EPOCH,
    OWNER,
    PAID,
    PROMO,
    SETTLEMENT,
    STORAGE,
    A,
    B,
    Net,
    Signing,
    Tree,
    document_with,
    fraud,
    message,
    meta,
    plain_path,
    plain_tree,
    sum_path,
    sum_tree,
    traffic_leaf,
)
from tests.support import CHAIN_ID, GOV, KEYS, at_end_of, text

STRANGER = KEYS[4]
NEW = meta(90)
INFINITE_KEY, INFINITE_SIGNATURE = b"\xc0" + bytes(47), b"\xc0" + bytes(95)
EMPTY = trees.EMPTY_ROOT


@pytest.fixture
def net() -> Net:
    return Net(4)


def small_tree(net: Net, count: int = 3, noz: int = 1_000) -> Tree:
    return Tree.of(*(traffic_leaf(net.nodes[0], serial, noz) for serial in range(1, count + 1)))


# --- keys --------------------------------------------------------------------------------------------------------------------------------


def test_an_owner_registers_the_keys_of_his_bonded_meta_node() -> None:
    net = Net(4, with_keys=3)
    node = net.nodes[3]
    assert (net.query(SETTLEMENT, "Quorum").with_keys, net.query(SETTLEMENT, "Quorum").quorum) == (3, 3)
    result = net.ok(OWNER, net.register_keys(node))
    kept = net.query(SETTLEMENT, "MetaKeys", meta_node=node.network_address).keys
    assert (kept.bls_pubkey, kept.ledger_consensus_pubkey) == (node.bls_pubkey, node.ledger_consensus_pubkey)
    assert kept.registered_height == net.driver.height
    assert net.query(SETTLEMENT, "Quorum").with_keys == 4
    told = dict(next(attributes for kind, attributes in result.events if kind == f"{SETTLEMENT}.EventRegisterMetaKeys"))
    told.pop("msg_index")
    assert told == {
        "bls_pubkey": f'"{node.bls_pubkey.hex()}"',
        "ledger_consensus_pubkey": f'"{node.ledger_consensus_pubkey.hex()}"',
        "meta_node": f'"{node.network_address}"',
        "owner": f'"{text(OWNER)}"',
    }


def test_keys_that_are_none_that_are_anothers_or_that_are_not_proved_are_refused(net: Net) -> None:
    net = Net(4, with_keys=3)
    node, other = net.nodes[3], net.nodes[0]
    rogue = bls.public_key(5)

    def refused(private: Any = OWNER, **changes: Any) -> int:
        where, number = net.refusal(private, net.register_keys(node, private, **changes))[0]
        assert where == "settlement"
        return number

    assert refused(meta_node=NEW.network_address) == errors.UnknownMetaNode.code
    assert refused(STRANGER) == errors.NotOwner.code
    assert refused(bls_pubkey=INFINITE_KEY, proof_of_possession=INFINITE_SIGNATURE) == errors.InvalidKey.code
    assert refused(bls_pubkey=node.bls_pubkey[:47]) == errors.InvalidKey.code
    assert refused(bls_pubkey=b"\x80" + bytes(46) + b"\x05") == errors.InvalidKey.code
    assert refused(bls_pubkey=rogue) == errors.InvalidPossession.code, "a key without the proof that goes with it"
    assert refused(proof_of_possession=INFINITE_SIGNATURE) == errors.InvalidPossession.code
    assert refused(proof_of_possession=node.proof_of_possession("test-2")) == errors.InvalidPossession.code, "a proof for another chain"
    assert refused(bls_pubkey=other.bls_pubkey, proof_of_possession=other.proof_of_possession(CHAIN_ID)) == errors.InvalidPossession.code
    own = bls.prove_possession(other.bls_secret, CHAIN_ID, node.address, other.bls_pubkey)
    assert refused(bls_pubkey=other.bls_pubkey, proof_of_possession=own) == errors.KeyInUse.code
    assert refused(ledger_consensus_pubkey=other.ledger_consensus_pubkey) == errors.KeyInUse.code
    for ledger in (b"", bytes(31), bytes(32), b"\x01" + bytes(31), b"\xff" * 32):
        assert refused(ledger_consensus_pubkey=ledger) == errors.InvalidLedgerKey.code
    assert net.refusal(OWNER, net.register_keys(node, meta_node="st1abc"))[0] == ("sdk", 7)


def test_a_bls_key_can_be_replaced_and_the_old_one_signs_nothing_more_while_the_ledger_key_stays(net: Net) -> None:
    node = net.nodes[1]
    fresh = bls.secret_from_seed(b"f" * 32)
    key = bls.public_key(fresh)
    proof = bls.prove_possession(fresh, CHAIN_ID, node.address, key)
    assert net.refusal(OWNER, net.register_keys(node, ledger_consensus_pubkey=NEW.ledger_consensus_pubkey))[0] == ("settlement", 9)
    net.ok(OWNER, net.register_keys(node, bls_pubkey=key, proof_of_possession=proof))
    assert net.query(SETTLEMENT, "MetaKeys", meta_node=node.network_address).keys.bls_pubkey == key
    draft = net.draft(1, {})
    assert net.refusal(OWNER, *net.messages(draft), step_s=EPOCH_S)[0] == ("pot", 22), "the old key selects nobody"
    net.report(1, signing=Signing([one for one in net.nodes if one is not node]))
    taken = bls.prove_possession(node.bls_secret, CHAIN_ID, net.nodes[2].address, node.bls_pubkey)
    net.ok(OWNER, net.register_keys(net.nodes[2], bls_pubkey=node.bls_pubkey, proof_of_possession=taken))


def test_a_meta_node_that_is_suspended_or_leaving_keeps_its_keys_and_does_not_count() -> None:
    def suspend_the_last(document: dict[str, Any]) -> None:
        document["app_state"]["register"]["meta_nodes"][3]["suspend"] = True

    net = Net(4, change=suspend_the_last)
    quorum = net.query(SETTLEMENT, "Quorum")
    assert (quorum.active_meta_nodes, quorum.with_keys, quorum.quorum) == (3, 3, 3)
    assert len(net.query(SETTLEMENT, "AllMetaKeys").keys) == 4
    assert net.refusal(OWNER, *net.messages(net.draft(1, {})), step_s=EPOCH_S)[0] == ("pot", 22)
    net.report(1, signing=Signing(net.nodes[:3]))


# --- commitments -------------------------------------------------------------------------------------------------------------------------


def test_a_report_with_its_commitment_is_kept_until_its_rewards_mature(net: Net) -> None:
    tree = Tree.of(
        traffic_leaf(net.nodes[0], 1, 500),
        traffic_leaf(net.nodes[1], 2, 700),
        traffic_leaf(net.nodes[2], 3, 40, A, PAID, DATABASE),
        traffic_leaf(net.nodes[3], 4, 9, B, PAID, EDGE),
    )
    draft = net.draft(1, tree.volumes(), tree.lines(), tree)
    result = net.ok(OWNER, *net.messages(draft), step_s=EPOCH_S)
    kept = net.kept()
    assert kept.report_reference == draft.report.report_reference == commitment.reference(draft.commitment)
    assert (kept.status, kept.volume_noz, kept.promo_noz, kept.lines_count) == (1, "1249", "0", 3)
    assert (kept.height, kept.maturity_epoch) == (net.driver.height, 1 + MATURE_EPOCH)
    assert sorted(kept.signers) == sorted(node.network_address for node in net.nodes)
    lines = sorted([(bech32.decode(A), STORAGE, PAID, 1200), (bech32.decode(A), DATABASE, PAID, 40), (bech32.decode(B), EDGE, PAID, 9)])
    assert kept.lines_root == plain_tree([commitment.line_bytes(commitment.Line(*line)) for line in lines])
    assert f"{SETTLEMENT}.EventCommitEpoch" in [kind for kind, _ in result.events]
    for epoch in range(2, 2 + MATURE_EPOCH):
        assert net.kept(1).epoch == 1
        net.report(epoch)
    with pytest.raises(NotFound):
        net.kept(1)
    assert [one.epoch for one in net.query(SETTLEMENT, "Epochs").epochs] == [2, 3, 4]


def test_an_idle_epoch_has_no_receipts_and_no_lines(net: Net) -> None:
    net.report(1)
    assert (net.kept().roots.receipts_root, net.kept().lines_root, net.kept().lines_count) == (EMPTY, EMPTY, 0)


def test_a_commitment_is_refused_alone_after_its_report_or_beside_another_ones(net: Net) -> None:
    draft, other = net.draft(1, {}), net.draft(2, {})
    commit, report = net.messages(draft)
    another, its_report = net.messages(other)
    alone = ("settlement", errors.CommitmentAlone.code)
    assert net.refusal(OWNER, commit, step_s=EPOCH_S)[0] == alone
    assert net.refusal(OWNER, report, commit)[0] == ("settlement", errors.NoCommitment.code)
    assert net.refusal(OWNER, report)[0] == ("settlement", errors.NoCommitment.code)
    assert net.refusal(OWNER, another, report)[0] == alone
    assert net.refusal(OWNER, commit, its_report)[0] == alone
    assert net.refusal(OWNER, commit, commit, report)[0] == alone
    changed = net.draft(1, {}, data_ref="another")
    assert net.refusal(OWNER, net.messages(changed)[0], report)[0] == alone
    net.ok(OWNER, commit, report)


def test_a_commitment_within_authz_is_refused_though_a_report_follows(net: Net) -> None:
    commit, report = net.messages(net.draft(1, {}))
    assert net.refusal(OWNER, execute(text(OWNER), commit, report), step_s=EPOCH_S)[0] == ("settlement", 11)
    assert net.refusal(OWNER, execute(text(OWNER), commit), report)[0] == ("settlement", 11)
    assert net.refusal(OWNER, commit, execute(text(OWNER), report))[0] == ("settlement", 11)


def test_a_report_is_held_against_the_lines_of_its_commitment(net: Net) -> None:
    volumes = {A: 1_000, B: 500}
    tree = Tree([traffic_leaf(net.nodes[0], 1, 1_500)])

    def told(lines: list[Any], volumes: dict[str, int] = volumes, tree: Tree | None = tree, **changes: Any) -> tuple[str, int]:
        return net.refusal(OWNER, *net.messages(net.draft(1, volumes, lines, tree, **changes)), step_s=EPOCH_S)[0]

    mismatch, invalid = ("settlement", errors.CommitmentMismatch.code), ("settlement", errors.InvalidCommitment.code)
    assert told([(text(STRANGER), EDGE, PAID, 5)]) == mismatch
    assert told(sorted([(A, DATABASE, PAID, 600), (A, COMPUTE, PAID, 401)], key=lambda line: line[1])) == mismatch
    assert told([(A, EDGE, PAID, 1_001)]) == mismatch
    assert told([], tree=None) == mismatch, "noz without receipts"
    assert told([], {}, tree) == mismatch, "receipts without noz"
    assert told([], {A: 1}, Tree([traffic_leaf(net.nodes[0], serial, 1) for serial in (1, 2)])) == mismatch, "more receipts than noz"
    assert told([(A, STORAGE, PAID, 5)]) == invalid, "paid storage is the rest"
    assert told([(A, EDGE, PAID, 5), (A, EDGE, PAID, 6)]) == invalid
    assert told([(A, EDGE, PAID, 5), (A, DATABASE, PAID, 6)]) == invalid
    assert told([(A, EDGE, PAID, 0)]) == invalid
    assert told([(A, 5, PAID, 5)]) == invalid
    assert told([(A, 0, PAID, 5)]) == invalid
    assert told([(A, EDGE, 3, 5)]) == invalid
    assert told([(A.upper(), EDGE, PAID, 5)]) == invalid
    assert told([(bech32.encode(b"\x01" * 32), EDGE, PAID, 5)]) == invalid
    assert told([], receipts_root=b"x") == invalid
    assert told([], files_root=b"") == invalid
    assert told([], data_ref="x" * 129) == invalid
    assert told([], data_ref="ü") == invalid
    assert told([], {}, None, receipts_root=b"x" * 32) == invalid, "no receipts have one root alone"
    assert told([], {A: 10}, tree, expired_noz=-1) == invalid
    assert told([], {A: 10}, tree, expired_noz=1 << 127) == invalid
    assert told([(A, EDGE, PROMO, 5)]) == ("grant", 22), "nothing was granted"
    assert told([], expired_noz=5) == ("grant", 22)


def test_amounts_have_one_spelling(net: Net) -> None:
    draft = net.draft(1, {A: 10}, [(A, EDGE, PAID, 5)], Tree([traffic_leaf(net.nodes[0], 1, 10)]))
    for spelled in ("05", "+5", "5.0", "-0", ""):
        changed = copy.deepcopy(draft.commitment)
        changed.lines[0].volume_noz = spelled
        with pytest.raises(AppError):
            commitment.check(changed)
    draft.commitment.epoch = 0
    with pytest.raises(errors.InvalidCommitment, match="an epoch from 1"):
        commitment.check(draft.commitment)


def test_the_reference_is_the_hash_of_the_commitment_without_its_owner(net: Net) -> None:
    draft = net.draft(1, {})
    commit = net.messages(draft)[0]
    commit.reporter_owner = text(STRANGER)
    assert commitment.reference(commit.commitment) == draft.report.report_reference
    changed = net.draft(1, {}, data_ref="x")
    assert changed.report.report_reference != draft.report.report_reference


def test_a_line_is_written_as_canonical_protobuf() -> None:
    choose = random.Random(3)
    for _ in range(50):
        line = commitment.Line(choose.randbytes(20), choose.randint(1, 4), choose.randint(1, 2), choose.getrandbits(choose.randint(1, 126)))
        made = message("CommitLine", wallet=bech32.encode(line.wallet), traffic_class=line.traffic_class, fund=line.fund, volume_noz=str(line.noz))
        assert commitment.line_bytes(line) == encode(made)


def test_a_mass_of_wallets_is_committed_in_bounded_time_and_gas() -> None:
    def widen(document: dict[str, Any]) -> None:
        document["app_state"]["pot"]["params"]["max_wallets_per_report"] = "1000"

    net = Net(4, change=widen)
    wallets = [bech32.encode(number.to_bytes(20, "big")) for number in range(1, 201)]
    lines = sorted(((wallet, EDGE, PAID, 3) for wallet in wallets), key=lambda line: bech32.decode(line[0]))
    tree = Tree([traffic_leaf(net.nodes[0], 1, 2_000)])
    result = net.ok(OWNER, *net.messages(net.draft(1, dict.fromkeys(wallets, 10), lines, tree)), step_s=EPOCH_S)
    assert net.kept().lines_count == 400
    assert result.gas_used < 12_000_000


# --- trees -------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [*range(1, 18), 31, 32, 33, 100])
def test_both_trees_have_rfc_6962s_shape_and_every_leaf_leads_to_the_root(count: int) -> None:
    items = [(number.to_bytes(3, "big"), number * 7 % 100 + 1) for number in range(count)]
    texts = [raw for raw, _ in items]
    root, total = sum_tree(items)
    assert trees.sum_root(items) == (root, total)
    assert trees.plain_root(texts) == plain_tree(texts)
    before = 0
    for index, (raw, noz) in enumerate(items):
        path = sum_path(index, items)
        assert trees.climb(raw, noz, index, count, path) == trees.Reached(root, before, total)
        assert trees.climb_plain(raw, index, count, plain_path(index, texts)) == plain_tree(texts)
        for wrong_index, wrong_count in ((index + 1, count), (index, count + 1), (index - 1, count), (index, 0)):
            found = trees.climb(raw, noz, wrong_index, wrong_count, path)
            assert found is None or found.root != root or trees.climb(raw, noz, index, count, path) == found
        before += noz


def test_an_empty_tree_has_the_hash_of_nothing_as_its_root() -> None:
    assert trees.sum_root([]) == (EMPTY, 0) == (sum_tree([])[0], 0)
    assert trees.plain_root([]) == EMPTY


@settings(max_examples=150, deadline=None)
@given(
    st.binary(max_size=40),
    st.integers(0, 1 << 64),
    st.integers(-2, 70),
    st.integers(0, 70),
    st.lists(st.tuples(st.binary(min_size=30, max_size=33), st.integers(-1, 1 << 130)), max_size=70),
)
def test_any_path_is_followed_or_refused(leaf: bytes, noz: int, index: int, count: int, path: list[tuple[bytes, int]]) -> None:
    trees.climb(leaf, noz, index, count, path)
    trees.climb_plain(leaf, index, count, [node for node, _ in path])


def test_sums_beyond_sixteen_bytes_lead_nowhere() -> None:
    assert trees.climb(b"", 1, 0, 2, [(bytes(32), (1 << 128) - 1)]) is None
    assert trees.climb(b"", 0, 0, 2, [(bytes(32), (1 << 128) - 1)]) is not None


# --- parameters --------------------------------------------------------------------------------------------------------------------------


def test_governance_alone_changes_parameters(net: Net) -> None:
    params = default_params()
    params.audits_per_day = 7
    update = message("MsgUpdateParams", authority=GOV, params=params)
    assert net.refusal(OWNER, message("MsgUpdateParams", authority=text(OWNER), params=params))[0] == ("gov", 13)
    at_end_of(net.app, {net.driver.height + 1: update})
    net.driver.next_block()
    assert net.query(SETTLEMENT, "Params").params.audits_per_day == 7


@pytest.mark.parametrize(
    "change",
    [
        {"bytes_per_stos": 0},
        {"bytes_per_stos": 1 << 51},
        {"retention_days": 0},
        {"retention_days": 3_651},
        {"grace_days": 3_651},
        {"trash_days": 366},
        {"longest_lease_s": 0},
        {"longest_lease_s": 86_401},
        {"audits_per_day": 10_001},
        {"challenge_blocks": 0},
        {"challenge_blocks": 1_000_001},
        {"escrow_ratio": str(10**18 + 1)},
        {"repair_ratio": "-1"},
        {"fraud_slash_ratio": str(10**18 + 1)},
        {"challenge_bond_wei": "0"},
        {"challenge_bond_wei": str(1 << 127)},
    ],
    ids=str,
)
def test_a_parameter_out_of_bounds_is_refused_by_name(change: dict[str, Any]) -> None:
    params = default_params()
    check_params(params)
    for name, value in change.items():
        setattr(params, name, value)
        with pytest.raises(errors.InvalidParams, match=name):
            check_params(params)


def test_a_parameter_that_is_no_number_is_refused() -> None:
    for name in ("escrow_ratio", "challenge_bond_wei"):
        params = default_params()
        setattr(params, name, "x")
        with pytest.raises(AppError, match="got"):
            check_params(params)


# --- queries -----------------------------------------------------------------------------------------------------------------------------


def test_queries_give_pages_filters_and_what_is_not_there(net: Net) -> None:
    for epoch in (1, 2, 3):
        net.report(epoch)
    assert [one.epoch for one in net.query(SETTLEMENT, "Epochs", pagination={"limit": 2}).epochs] == [1, 2]
    assert [one.epoch for one in net.query(SETTLEMENT, "Epochs", pagination={"limit": 2, "reverse": True}).epochs] == [3, 2]
    assert len(net.query(SETTLEMENT, "Epochs", status=1).epochs) == 3
    assert len(net.query(SETTLEMENT, "Epochs", status=2).epochs) == 0
    with pytest.raises(InvalidRequest):
        net.query(SETTLEMENT, "Epochs", status=3)
    assert len(net.query(SETTLEMENT, "AllMetaKeys", pagination={"limit": 3}).keys) == 3
    for method, fields in (("MetaKeys", {"meta_node": NEW.network_address}), ("Epoch", {"epoch": 9}), ("Challenge", {"challenge_id": 9})):
        with pytest.raises(NotFound):
            net.query(SETTLEMENT, method, **fields)
    for epoch in (0, -1, (1 << 63) - 1):
        with pytest.raises(NotFound):
            net.query(SETTLEMENT, "Epoch", epoch=epoch)
    assert net.query(SETTLEMENT, "Challenges").challenges == []


# --- genesis -----------------------------------------------------------------------------------------------------------------------------


def validate(section: Any) -> None:
    SettlementGenesis(None).validate(section)  # type: ignore[arg-type]


def lively() -> tuple[Net, Any]:
    """A chain with epochs, one of them void, challenges and a punished lease; and its section."""
    net = Net(4)
    tree = small_tree(net)
    net.report(1, Tree([traffic_leaf(net.nodes[0], 9, 50, leaf={"noz": 51})]))
    net.report(2, tree)
    net.ok(STRANGER, fraud("bad_leaf", STRANGER, leaf=Tree([traffic_leaf(net.nodes[0], 9, 50, leaf={"noz": 51})]).proof(0)))
    net.ok(STRANGER, fraud("withheld_leaf", STRANGER, epoch=2, leaf_index=1))
    return net, net.app.export()["settlement"]


def test_an_export_loads_again_byte_for_byte_and_goes_on() -> None:
    net, section = lively()
    assert [one["status"] for one in section["epochs"]] == ["EPOCH_STATUS_VOID", "EPOCH_STATUS_COMMITTED"]
    assert len(section["challenges"]) == 1
    exported = net.app.export()
    document = copy.deepcopy(net.document)
    document["app_state"] = exported
    app = build_application(MemoryBackend())
    for module in app.modules:
        if module.genesis is not None and exported.get(module.name) is not None:
            module.genesis.validate(exported[module.name])
    driver = Driver([app], document)
    driver.start()
    driver.next_block()
    assert app.export()["settlement"] == section


def test_the_default_section_is_valid_and_a_chain_without_meta_nodes_starts_with_a_warning() -> None:
    app = build_application(MemoryBackend())
    document = build.default_document(app.modules, CHAIN_ID, "2026-01-01T00:00:00Z", "test")
    build.validate(document, app.modules)
    assert any("no volume report is possible: 0 of 0" in told for told in build.warnings(document, app.modules))
    nodes = [meta(number) for number in range(4)]
    two = document_with(app, nodes, with_keys=2)
    assert any("2 of 4 active meta nodes have registered keys, a report needs 3" in told for told in build.warnings(two, app.modules))
    assert not any("volume report" in told for told in build.warnings(document_with(app, nodes, with_keys=3), app.modules))


def test_genesis_keys_need_a_proof_for_this_chain() -> None:
    def swap(document: dict[str, Any]) -> None:
        entries = document["app_state"]["settlement"]["meta_keys"]
        entries[0]["proof_of_possession"], entries[1]["proof_of_possession"] = entries[1]["proof_of_possession"], entries[0]["proof_of_possession"]

    with pytest.raises(GenesisError, match=r"meta_keys\[0\].*proof does not show"):
        Net(4, change=swap)


def changed(section: Any, *path: Any, to: Any) -> Any:
    made = copy.deepcopy(section)
    place = made
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = to
    return made


def test_a_section_that_cannot_be_is_refused_with_the_field_named() -> None:
    net, section = lively()
    lease = {"meta_node": net.nodes[0].network_address, "lease_id": "TExMTExMTExMTExMTExMTExMTExMTExMTExMTExMTEw="}
    cases: list[tuple[Any, str]] = [
        (changed(section, "params", "challenge_blocks", to=0), "challenge_blocks"),
        (changed(section, "meta_keys", 0, "meta_node", to="x"), r"meta_keys\[0\].meta_node"),
        (changed(section, "meta_keys", 1, to=section["meta_keys"][0]), r"meta_keys\[1\].*twice"),
        (changed(section, "meta_keys", 0, "bls_pubkey", to=""), r"meta_keys\[0\].bls_pubkey"),
        (changed(section, "meta_keys", 0, "proof_of_possession", to=""), r"meta_keys\[0\].proof"),
        (changed(section, "meta_keys", 0, "ledger_consensus_pubkey", to=""), r"meta_keys\[0\].ledger"),
        (changed(section, "meta_keys", 0, "bls_pubkey", to=section["meta_keys"][1]["bls_pubkey"]), r"bls_pubkey.*twice"),
        (changed(section, "meta_keys", 0, "registered_height", to="-1"), "registered_height"),
        (changed(section, "meta_keys", to=[]), r"signers\[0\]"),
        (changed(section, "epochs", 0, "epoch", to="0"), r"epochs\[0\].epoch"),
        (changed(section, "epochs", 0, "epoch", to="2"), r"epochs\[1\].*twice"),
        (changed(section, "epochs", 0, "status", to="EPOCH_STATUS_UNSPECIFIED"), r"epochs\[0\].status"),
        (changed(section, "epochs", 0, "report_reference", to="sc1"), "report_reference"),
        (changed(section, "epochs", 0, "reporter", to=""), "reporter"),
        (changed(section, "epochs", 0, "roots", "files_root", to=""), r"epochs\[0\].roots"),
        (changed(section, "epochs", 0, "lines_root", to=""), "lines_root"),
        (changed(section, "epochs", 0, "volume_noz", to="-5"), "volume_noz"),
        (changed(section, "epochs", 0, "volume_noz", to="x"), "volume_noz"),
        (changed(section, "epochs", 0, "height", to="-5"), "height"),
        (changed(section, "challenges", 0, "challenge_id", to="0"), "challenge_id"),
        (changed(section, "next_challenge_id", to="1"), "challenge_id"),
        (changed(section, "challenges", to=section["challenges"] * 2), "twice"),
        (changed(section, "challenges", 0, "epoch", to="1"), "expected a leaf of a committed epoch"),
        (changed(section, "challenges", 0, "leaf_index", to="3"), "expected a leaf of a committed epoch"),
        (changed(section, "challenges", 0, "challenger", to=""), "challenger"),
        (changed(section, "challenges", 0, "bond_wei", to="0"), "bond_wei"),
        (changed(section, "challenges", 0, "deadline_height", to="-1"), "deadline_height"),
        (changed(section, "punished_leases", to=[lease, lease]), r"punished_leases\[1\].*twice"),
        (changed(section, "punished_leases", to=[{**lease, "lease_id": ""}]), "lease_id"),
        (changed(section, "punished_leases", to=[{**lease, "meta_node": ""}]), "meta_node"),
        ({**section, "unknown": 1}, "unknown"),
    ]
    validate(section)
    for made, told in cases:
        with pytest.raises(GenesisError, match=told):
            validate(made)


def test_each_invariant_finds_what_breaks_it() -> None:
    net, _ = lively()
    checks = next(module.invariants for module in net.app.modules if module.name == "settlement")

    def broken(change: Any) -> list[str]:
        state = State(net.app.store.view(), net.app.store.names)
        change(state.store("settlement"), state)
        return [name for name, check in checks.items() if check(state) is not None]

    def set_(key: bytes, value: bytes) -> Any:
        return lambda store, _: store.set(key, value)

    account = b"\x02\x14" + bech32.module_address("settlement") + b"wei"
    deadline = net.query(SETTLEMENT, "Challenge", challenge_id=1).challenge.deadline_height
    assert broken(lambda *_: None) == []
    assert broken(lambda _, state: state.store("bank").set(account, b"5")) == ["the account holds the bonds"]
    assert broken(lambda store, _: store.delete(keys.deadline(deadline, 1))) == ["open challenges are indexed"]
    assert broken(lambda store, _: store.delete(keys.challenged_leaf(2, 1))) == ["open challenges are indexed"]
    assert broken(set_(keys.OPEN, b"x")) == ["epochs are whole"]
    assert broken(lambda store, _: store.set(keys.epoch(7), store.get(keys.epoch(2)))) == ["epochs are whole"]
    assert broken(lambda store, _: store.delete(keys.epoch(2))) == ["open challenges are indexed"]
    assert broken(lambda store, _: store.delete(keys.meta_keys(net.nodes[0].address))) == ["epochs are whole", "keys have one holder"]
    assert broken(set_(keys.bls_key(NEW.bls_pubkey), NEW.address)) == ["keys have one holder"]


def test_every_error_has_its_own_code_from_two_on() -> None:
    assert [one.code for one in errors.ERRORS] == list(range(2, 2 + len(errors.ERRORS)))
    assert {one.codespace for one in errors.ERRORS} == {"settlement"}
