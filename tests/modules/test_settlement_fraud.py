"""Fraud proofs: what a good leaf is, each kind accepted once with its consequences to the last wei, and forged ones refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import nacl.signing
import pytest

from chain.codec.canonical import encode
from chain.codec.registry import message_class
from chain.context import Context, Mode
from chain.crypto import address as bech32
from chain.crypto.keys import PrivateKey
from chain.errors import NotFound, Unauthorized
from chain.store.state import State
from modules.settlement import documents, errors, leaves
from modules.settlement.commitment import Line, line_bytes
from tests.modules import granting
from tests.modules.settling import (
    AUDIT,
    CREATED_S,
    DEPOSIT_WEI,
    EDGE,
    EPOCH_S,
    EXPIRES_S,
    FILE_HASH,
    FINDER,
    MATURE_EPOCH,
    OWNER,
    PAID,
    PAYER,
    POT,
    PROMO,
    PUT,
    REPAIR,
    SETTLEMENT,
    STORAGE,
    STOS,
    A,
    B,
    Net,
    Signing,
    Tree,
    borders,
    commit_line,
    fraud,
    ledger_signer,
    legacy_grant,
    line_proof,
    message,
    meta,
    order_limit,
    paying_text,
    plain_path,
    prepay,
    receipt,
    release_leaf,
    send_fee,
    session_grant,
    signed,
    span,
    traffic_leaf,
)
from tests.support import CHAIN_ID, GOV, KEYS, text

NODES = [meta(number) for number in range(4)]
NODE = NODES[0]
KEYS_OF = {node.address: node.ledger_consensus_pubkey for node in NODES}


def fault(leaf: Any) -> str | None:
    """What is wrong with a leaf, decoded as a proof brings it."""
    return leaves.fault(type(leaf).FromString(encode(leaf)), CHAIN_ID, KEYS_OF.get)


# --- what a good leaf is -----------------------------------------------------------------------------------------------------------------


def partly(bytes_acked: int, max_bytes: int, max_noz: int, noz: int) -> Any:
    return traffic_leaf(
        NODE,
        1,
        max_noz,
        limit={"max_bytes": max_bytes},
        receipt_={"bytes_acked": bytes_acked},
        leaf={"noz": noz},
        grant=session_grant(PAYER, max_noz=(1 << 64) - 1),
    )


GOOD: dict[str, Callable[[], Any]] = {
    "all bytes": lambda: traffic_leaf(NODE, 1),
    "part of the bytes, rounded down": lambda: partly(999, 1_000, 1_001, 999),
    "numbers of 64 bits": lambda: partly((1 << 64) - 2, (1 << 64) - 1, (1 << 62), (1 << 62) - 1),
    "put": lambda: traffic_leaf(NODE, 1, limit={"action": PUT}),
    "promo of another class": lambda: traffic_leaf(NODE, 1, fund=PROMO, traffic_class=EDGE),
    "a legacy download": lambda: traffic_leaf(NODE, 1, legacy=legacy_grant(PAYER)),
    "a legacy upload": lambda: traffic_leaf(NODE, 1, legacy=legacy_grant(PAYER), limit={"action": PUT}),
    "a legacy download of a share": lambda: by_string(paying_text("r4nd0m_0123456789abcdef")),
    "a legacy download of a share by its CID": lambda: by_string(paying_text("QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWKPbdG")),
    "a legacy string from the end of the limit's future": lambda: by_string(paying_text(at_s=CREATED_S + 300)),
    "a legacy string whose task has just ended": lambda: by_string(paying_text(at_s=EXPIRES_S - 3_900)),
    "the last segment's release": lambda: with_release(segment=(1 << 48) - 1, index=255),
    "a repair, which no wallet asks for": lambda: traffic_leaf(NODE, 1, limit={"action": REPAIR}, authority=False),
    "an audit": lambda: traffic_leaf(NODE, 1, limit={"action": AUDIT}, authority=False),
    "a receipt that is not the final one": lambda: traffic_leaf(NODE, 1, receipt_={"is_final": False, "sequence": 0}),
    "a wallet with an Ethereum key": lambda: traffic_leaf(NODE, 1, limit={"wallet": text(KEYS[0])}, grant=session_grant(KEYS[0])),
    "a release": lambda: release_leaf(365),
    "a release of promo": lambda: release_leaf(1, fund=PROMO),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_good_leaf_has_no_fault(name: str) -> None:
    assert fault(GOOD[name]()) is None


def by_string(signed_text: str, **limit: Any) -> Any:
    """A leaf whose wallet signed a legacy string."""
    return traffic_leaf(NODE, 1, legacy=legacy_grant(PAYER, signed_text), limit=limit)


def with_bytes(change: Callable[[Any], None]) -> Any:
    made = traffic_leaf(NODE, 1)
    change(made)
    return made


def without_canonical_limit() -> Any:
    """The same document in bytes that another encoder may write, with a signature over these."""
    body = encode(order_limit(NODE, 1, 1_000)) + b"\x80\x7d\x00"  # an unknown field
    made = traffic_leaf(NODE, 1)
    made.traffic.order_limit.body = body
    made.traffic.order_limit.signature = ledger_signer(NODE).sign(documents.to_sign(documents.LIMIT_DOMAIN, body)).signature
    return made


def under_another_domain() -> Any:
    made = traffic_leaf(NODE, 1)
    made.traffic.order_limit.CopyFrom(signed(order_limit(NODE, 1, 1_000), documents.RECEIPT_DOMAIN, ledger_signer(NODE)))
    return made


def grant_with(**changes: Any) -> Any:
    return traffic_leaf(NODE, 1, grant=session_grant(PAYER, **changes))


def grant_signed_by(wallet: PrivateKey) -> Any:
    return traffic_leaf(NODE, 1, grant=session_grant(wallet, wallet=text(PAYER)))


BAD: dict[str, tuple[Callable[[], Any], str]] = {
    "no beneficiary": (lambda: traffic_leaf(NODE, 1, leaf={"beneficiary": ""}), "beneficiary"),
    "a beneficiary in capitals": (lambda: traffic_leaf(NODE, 1, beneficiary=A.upper()), "beneficiary"),
    "a beneficiary of 32 bytes": (lambda: traffic_leaf(NODE, 1, beneficiary=bech32.encode(b"b" * 32)), "beneficiary"),
    "a node as beneficiary": (lambda: traffic_leaf(NODE, 1, beneficiary=NODE.network_address), "beneficiary"),
    "no fund": (lambda: traffic_leaf(NODE, 1, fund=0), "fund"),
    "an unknown class": (lambda: traffic_leaf(NODE, 1, traffic_class=5), "class"),
    "nothing paid": (lambda: traffic_leaf(NODE, 1, leaf={"noz": 0}), "pays nothing"),
    "no source": (lambda: message("Leaf", beneficiary=A, fund=1, traffic_class=1, noz=5), "no source"),
    "an order limit that does not decode": (lambda: with_bytes(lambda leaf: setattr(leaf.traffic.order_limit, "body", b"\xff")), "no document"),
    "an order limit of 4,097 bytes": (lambda: with_bytes(lambda leaf: setattr(leaf.traffic.order_limit, "body", b"\x0a" * 4097)), "no document"),
    "no order limit": (lambda: with_bytes(lambda leaf: leaf.traffic.ClearField("order_limit")), "no document"),
    "no receipt": (lambda: with_bytes(lambda leaf: leaf.traffic.ClearField("receipt")), "no document"),
    "an order limit in another encoding": (without_canonical_limit, "no document"),
    "an order limit for another chain": (lambda: traffic_leaf(NODE, 1, limit={"chain_id": "test-2"}), "another chain"),
    "a receipt for another chain": (lambda: traffic_leaf(NODE, 1, receipt_={"chain_id": "test-2"}), "another chain"),
    "a serial of 15 bytes": (lambda: traffic_leaf(NODE, 1, limit={"serial": b"s" * 15}, receipt_={"serial": b"s" * 15}), "serial"),
    "a serial of another meta node": (
        lambda: traffic_leaf(NODE, 1, limit={"serial": order_limit(NODES[1], 1, 1).serial}),
        "not one of its meta node",
    ),
    "a serial of no meta node": (lambda: traffic_leaf(NODE, 1, limit={"serial": bytes(16)}), "not one of its meta node"),
    "a lease of 31 bytes": (lambda: traffic_leaf(NODE, 1, limit={"lease_id": b"l" * 31}), "lease_id"),
    "a session key of 31 bytes": (lambda: traffic_leaf(NODE, 1, limit={"session_pubkey": b"l" * 31}), "session_pubkey"),
    "no object": (lambda: traffic_leaf(NODE, 1, limit={"object_root": b""}), "object_root"),
    "no share": (lambda: traffic_leaf(NODE, 1, limit={"share_root": b""}), "share_root"),
    "no meta node": (lambda: traffic_leaf(NODE, 1, limit={"meta_node": A}), "names a node"),
    "no node": (lambda: traffic_leaf(NODE, 1, limit={"node": ""}), "names a node"),
    "no wallet": (lambda: traffic_leaf(NODE, 1, limit={"wallet": ""}), "names a node"),
    "no action": (lambda: traffic_leaf(NODE, 1, limit={"action": 0}), "action"),
    "no bytes allowed": (lambda: traffic_leaf(NODE, 1, limit={"max_bytes": 0}, receipt_={"bytes_acked": 0}), "max_noz long"),
    "no noz allowed": (lambda: traffic_leaf(NODE, 1, limit={"max_noz": 0, "to_noz": 10**6}), "max_noz long"),
    "a range that is not max_noz long": (lambda: traffic_leaf(NODE, 1, limit={"to_noz": 10**6 + 999}), "max_noz long"),
    "a limit that ends before it begins": (lambda: traffic_leaf(NODE, 1, limit={"expires_s": 5}), "times are not in order"),
    "a limit in the far future": (lambda: traffic_leaf(NODE, 1, limit={"expires_s": 1 << 41}), "times are not in order"),
    "a receipt for another limit": (lambda: traffic_leaf(NODE, 1, receipt_={"serial": b"x" * 16}), "another order limit"),
    "a digest of 31 bytes": (lambda: traffic_leaf(NODE, 1, receipt_={"chunks_digest": b"x" * 31}), "digest"),
    "more bytes than allowed": (lambda: traffic_leaf(NODE, 1, receipt_={"bytes_acked": 1_001}, leaf={"noz": 1_001}), "more bytes"),
    "a receipt before the limit": (lambda: traffic_leaf(NODE, 1, receipt_={"first_ms": 5}), "receipt's times"),
    "a receipt after the limit": (lambda: traffic_leaf(NODE, 1, receipt_={"last_ms": 1_767_225_900_001}), "receipt's times"),
    "a receipt that ends before it begins": (
        lambda: traffic_leaf(NODE, 1, receipt_={"first_ms": 1_767_225_700_000, "last_ms": 1_767_225_600_000}),
        "times",
    ),
    "another beneficiary": (lambda: traffic_leaf(NODE, 1, leaf={"beneficiary": B}), "beneficiary, fund or class"),
    "another fund": (lambda: traffic_leaf(NODE, 1, leaf={"fund": PROMO}), "beneficiary, fund or class"),
    "another class": (lambda: traffic_leaf(NODE, 1, leaf={"traffic_class": EDGE}), "beneficiary, fund or class"),
    "one noz too many": (lambda: traffic_leaf(NODE, 1, leaf={"noz": 1_001}), "floor"),
    "one noz too few": (lambda: traffic_leaf(NODE, 1, leaf={"noz": 999}), "floor"),
    "rounded up": (lambda: partly(999, 1_000, 1_001, 1_000), "floor"),
    "nobody asked": (lambda: traffic_leaf(NODE, 1, authority=False), "no wallet has asked"),
    "a legacy string of another wallet": (lambda: traffic_leaf(NODE, 1, legacy=legacy_grant(KEYS[4])), "of another wallet"),
    "a legacy string that another wallet signed": (
        lambda: traffic_leaf(NODE, 1, legacy=legacy_grant(KEYS[4], paying_text())),
        "has not signed the legacy string",
    ),
    "a string that polls, deletes and shares": (lambda: by_string(f"{FILE_HASH}{text(PAYER)}{CREATED_S}"), "does not ask"),
    "a string that lists": (lambda: by_string(f"{text(PAYER)}{CREATED_S}"), "does not ask"),
    "a string that stops a share": (lambda: by_string(f"0123456789abcdef{text(PAYER)}{CREATED_S}"), "does not ask"),
    "a string that gets a share in the old way": (lambda: by_string(f"sds://r4nd0m_0123456789abcdef{text(PAYER)}{CREATED_S}"), "does not ask"),
    "a string of version 2": (lambda: by_string(f"stratos-sds/v2\ntest-1\nuser_requestDownload\n{{}}\n{CREATED_S}"), "does not ask"),
    "a string with a prefix": (lambda: by_string(paying_text("sds://r4nd0m_0123456789abcdef")), "does not ask"),
    "a string without a subject": (lambda: by_string(paying_text("")), "does not ask"),
    "a string with a short sequence number": (lambda: by_string(paying_text(sequence="SN:1")), "does not ask"),
    "a string with a zero before its time": (lambda: by_string(paying_text(sequence="SN:00000000000000000010")), "does not ask"),
    "a string with more after its time": (lambda: by_string(paying_text() + "\n"), "does not ask"),
    "a string of a share for storing": (lambda: by_string(paying_text("r4nd0m_0123456789abcdef"), action=PUT), "names a share"),
    "a string for repair": (lambda: by_string(paying_text(), action=REPAIR), "does not ask"),
    "a string for an audit": (lambda: by_string(paying_text(), action=AUDIT), "does not ask"),
    "a string from the future": (lambda: by_string(paying_text(at_s=CREATED_S + 301)), "times"),
    "a string that is too old": (lambda: by_string(paying_text(at_s=EXPIRES_S - 3_901)), "times"),
    "a legacy string of 32 bytes": (lambda: traffic_leaf(NODE, 1, legacy=legacy_grant(PAYER, "x" * 32)), "legacy"),
    "a legacy string of 4,097 bytes": (lambda: traffic_leaf(NODE, 1, legacy=legacy_grant(PAYER, "x" * 4_097)), "legacy"),
    "a grant that is no document": (lambda: traffic_leaf(NODE, 1, grant=message("WalletDocument", body=b"\xff")), "session grant is no document"),
    "a grant for another chain": (lambda: grant_with(chain_id="x"), "another chain"),
    "a grant of another wallet": (lambda: grant_with(wallet=A), "wallet or session key"),
    "a grant for another session": (lambda: grant_with(session_pubkey=b"k" * 32), "wallet or session key"),
    "a grant of no action": (lambda: grant_with(actions=[]), "does not allow"),
    "a grant of other actions": (lambda: grant_with(actions=[PUT, REPAIR]), "does not allow"),
    "a grant with an action twice": (lambda: grant_with(actions=[1, 1]), "not in order"),
    "a grant of an unknown action": (lambda: grant_with(actions=[1, 9]), "not in order"),
    "a grant without a nonce": (lambda: grant_with(nonce=b""), "nonce"),
    "a grant with a long path": (lambda: grant_with(path_prefix="/" * 1_025), "path"),
    "a grant of fewer noz": (lambda: grant_with(max_noz=999), "more noz"),
    "a grant of more than a day": (lambda: grant_with(not_before_s=1_767_225_540, expires_s=1_767_225_540 + 86_401), "longer than"),
    "a grant that had ended": (lambda: grant_with(expires_s=1_767_225_899), "within those of the session grant"),
    "a grant that had not begun": (lambda: grant_with(not_before_s=1_767_225_601), "within those of the session grant"),
    "a grant signed by another": (lambda: grant_signed_by(KEYS[4]), "wallet has not signed"),
    "a limit of a node without keys": (lambda: traffic_leaf(meta(50), 1), "no keys"),
    "a limit signed by another meta node": (lambda: traffic_leaf(NODE, 1, limit_signer=ledger_signer(NODES[1])), "meta node has not signed"),
    "a limit signed as a receipt": (under_another_domain, "meta node has not signed"),
    "a receipt signed by another": (lambda: traffic_leaf(NODE, 1, receipt_signer=nacl.signing.SigningKey(b"y" * 32)), "session key has not signed"),
    "a signature of 63 bytes": (lambda: with_bytes(lambda leaf: setattr(leaf.traffic.receipt, "signature", b"x" * 63)), "session key has not signed"),
    "a session key that signs everything": (
        lambda: traffic_leaf(NODE, 1, limit={"session_pubkey": bytes(32)}, grant=session_grant(PAYER, session_pubkey=bytes(32))),
        "session key has not signed",
    ),
    "a release of no share": (lambda: with_release(share_root=b"s" * 31), "share root"),
    "a release of a segment beyond all": (lambda: with_release(segment=1 << 48), "segment"),
    "a release of a share beyond all": (lambda: with_release(index=256), "index"),
    "a release of day 0": (lambda: with_release(day=0), "day"),
    "a release of day 3,651": (lambda: with_release(day=3_651), "day"),
    "a release of another class": (lambda: release_leaf(1, traffic_class=EDGE), "paid as storage"),
}


def with_release(**changes: Any) -> Any:
    made = release_leaf(1)
    for name, value in changes.items():
        setattr(made.release, name, value)
    return made


@pytest.mark.parametrize("name", BAD)
def test_a_bad_leaf_has_its_fault_named(name: str) -> None:
    make, told = BAD[name]
    found = fault(make())
    assert found is not None
    assert told in found


def test_every_flipped_bit_of_a_document_makes_a_leaf_bad() -> None:
    for part in ("order_limit", "receipt", "grant"):
        for name in ("body", "signature"):
            raw = getattr(getattr(traffic_leaf(NODE, 1).traffic, part), name)
            for at in range(0, len(raw), 7):
                made = traffic_leaf(NODE, 1)
                setattr(getattr(made.traffic, part), name, raw[:at] + bytes([raw[at] ^ 4]) + raw[at + 1 :])
                assert fault(made) is not None, f"byte {at} of the {name} of the {part}"


# --- consequences ------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def net() -> Net:
    return Net(4)


def lie(net: Net, epoch: int = 1, noz: int = 10**13) -> Tree:
    """An epoch with a leaf that pays one noz too many, and good ones for two wallets."""
    tree = Tree.of(
        traffic_leaf(NODE, epoch * 100 + 1, noz, leaf={"noz": noz + 1}),
        traffic_leaf(NODES[1], epoch * 100 + 2, 3 * noz, B),
        traffic_leaf(NODES[2], epoch * 100 + 3, noz, B, PAID, EDGE),
    )
    net.report(epoch, tree)
    return tree


def bad_leaf_of(tree: Tree, epoch: int = 1) -> Any:
    return fraud("bad_leaf", leaf=tree.proof(next(at for at, leaf in enumerate(tree.leaves) if leaf.noz % 10), epoch))


def accounts(net: Net) -> dict[str, int]:
    names = ("total_unissued_prepay", "foundation_account", "total_reward_pool", "meta_node_bonded_pool", "settlement")
    return {name: net.module_wei(name) for name in names} | {"finder": net.wei(text(FINDER)), "community": net.community_wei()}


def test_a_proved_lie_voids_the_epoch_and_its_cost_is_shared_out_to_the_last_wei(net: Net) -> None:
    before_report, limit_before = accounts(net), int(net.ozone().remaining_noz)
    tree = lie(net)
    volume = tree.total_noz
    assert int(net.ozone().remaining_noz) == limit_before + volume
    reported = accounts(net)
    paid_traffic = before_report["total_unissued_prepay"] - reported["total_unissued_prepay"]
    paid_mining = before_report["foundation_account"] - reported["foundation_account"]
    unpaid = reported["total_reward_pool"] - before_report["total_reward_pool"]
    assert paid_traffic > 0 < paid_mining
    net.driver.next_block()  # what went to the validators of the last block has gone on from here
    before = accounts(net)
    result = net.ok(FINDER, bad_leaf_of(tree))
    after = accounts(net)

    slashed = 4 * (DEPOSIT_WEI // 10)
    reward = slashed // 5
    gap = paid_traffic + paid_mining - unpaid
    assert 0 < gap < slashed - reward
    assert after["finder"] == before["finder"] + reward - send_fee()
    assert after["total_reward_pool"] == before_report["total_reward_pool"], "what was not matured went back"
    assert after["total_unissued_prepay"] == before_report["total_unissued_prepay"], "the signers made good what chain and community had"
    assert after["foundation_account"] == before_report["foundation_account"]
    assert after["meta_node_bonded_pool"] == before["meta_node_bonded_pool"] - slashed
    assert after["settlement"] == 0
    assert [net.deposit_wei(node) for node in net.nodes] == [DEPOSIT_WEI * 9 // 10] * 4
    gained = after["community"] - before["community"]
    fees = send_fee() * 2 // 100 + 2
    assert slashed - reward - gap <= gained <= slashed - reward - gap + fees, "the rest, beside the tax on fees"

    # Lt: the epoch's ozone is outstanding again, and what the deposits made has gone with them.
    assert int(net.ozone().remaining_noz) == limit_before - slashed // 10**6
    assert int(net.ozone().pending_lower_noz) == 0
    assert net.kept().status == 2
    told = {kind.rpartition(".")[2]: dict(attributes) for kind, attributes in result.events if kind.startswith(SETTLEMENT)}
    assert told["EventFraudProof"] | {"msg_index": ""} == {
        "epoch": '"1"',
        "finder": f'"{text(FINDER)}"',
        "finder_reward_wei": f'"{reward}"',
        "kind": '"bad_leaf"',
        "slashed_wei": f'"{slashed}"',
        "msg_index": "",
    }
    assert (told["EventVoidEpoch"]["gap_wei"], told["EventVoidEpoch"]["lowered_noz"]) == (f'"{gap}"', f'"{volume}"')
    assert sum(1 for kind, _ in result.events if kind.endswith("EventSlashSigner")) == 4
    net.holds()


def test_a_lie_is_punished_once_and_its_honest_receipts_can_be_reported_again(net: Net) -> None:
    tree = lie(net)
    net.ok(FINDER, bad_leaf_of(tree))
    assert net.refusal(FINDER, bad_leaf_of(tree))[0] == ("settlement", errors.EpochVoid.code)
    honest = Tree([leaf for leaf in tree.leaves if leaf.noz % 10 == 0])
    net.report(2, honest)
    double = fraud("double_entry", first=tree.proof(1, 1), second=honest.proof(0, 2))
    assert net.refusal(FINDER, double)[0] == ("settlement", errors.EpochVoid.code), "a void epoch paid nothing"
    for epoch in range(3, 3 + MATURE_EPOCH):
        net.report(epoch)
    with pytest.raises(NotFound):
        net.kept(1)


def test_who_did_not_sign_pays_nothing_and_who_left_since_pays_all_the_same(net: Net) -> None:
    tree = Tree([traffic_leaf(NODE, 1, 1_000, leaf={"noz": 1_001})])
    net.report(1, tree, signing=Signing(net.nodes[1:]))
    leaving = message_register("MsgRemoveMetaNode", meta_node_address=net.nodes[3].network_address, owner_address=text(OWNER))
    net.ok(OWNER, leaving)
    net.ok(FINDER, fraud("bad_leaf", leaf=tree.proof(0)))
    assert [net.deposit_wei(node) for node in net.nodes] == [DEPOSIT_WEI, *[DEPOSIT_WEI * 9 // 10] * 3]


def message_register(name: str, **fields: Any) -> Any:
    return message_class(f"stratos.register.v1.{name}")(**fields)


def test_an_epoch_whose_rewards_mature_is_beyond_proof(net: Net) -> None:
    tree = lie(net)
    for epoch in range(2, 1 + MATURE_EPOCH):
        net.report(epoch)
    assert net.kept().epoch == 1
    proof = bad_leaf_of(tree)
    messages = net.messages(net.draft(1 + MATURE_EPOCH, {}))
    block = net.driver.next_block([net.sign(OWNER, *messages, gas=10**7), net.sign(FINDER, proof, gas=10**7)], process=False, time_step_s=EPOCH_S)
    assert [(one.codespace, one.code) for one in block.results] == [("", 0), ("settlement", errors.EpochMatures.code)]
    assert net.refusal(FINDER, proof)[0] == ("settlement", errors.EpochNotKept.code)


def test_ozone_that_was_sold_since_is_pending_after_a_void_epoch(net: Net) -> None:
    tree = lie(net)
    net.ok(KEYS[4], prepay(KEYS[4], 9 * 10**23))
    left = int(net.ozone().remaining_noz)
    assert 0 < left < tree.total_noz
    result = net.ok(FINDER, bad_leaf_of(tree))
    told = next(dict(attributes) for kind, attributes in result.events if kind.endswith("EventVoidEpoch"))
    assert (told["lowered_noz"], told["pending_lower_noz"]) == (f'"{left}"', f'"{tree.total_noz - left}"')
    ozone = net.ozone()
    assert (int(ozone.remaining_noz), int(ozone.pending_lower_noz)) == (0, tree.total_noz - left)
    assert int(ozone.pending_lower_wei) == 4 * DEPOSIT_WEI // 10, "what the signers lost counts until its ozone can go"
    honest = Tree([leaf for leaf in tree.leaves if leaf.noz % 10 == 0])
    net.report(2, honest)
    assert int(net.ozone().remaining_noz) + tree.total_noz - left - int(net.ozone().pending_lower_noz) <= honest.total_noz
    net.holds()


def promoted(net: Net, noz: int = 10**9) -> None:
    """Grant so many noz to A, out of a pool of FINDER's."""
    pool, campaign = granting.create_pool(text(FINDER), 10 * STOS), granting.create_campaign(net, text(FINDER), [text(FINDER)])
    campaign.max_noz_per_wallet, campaign.promotions[0].noz_per_wallet = str(noz), str(noz)
    campaign.budget_wei = campaign.max_wei_per_day = str(5 * STOS)
    net.ok(FINDER, pool, campaign, granting.claim(text(FINDER), [A]))


def test_what_promotion_used_and_let_expire_in_a_void_epoch_is_outstanding_again(net: Net) -> None:
    promoted(net)

    def granted() -> tuple[int, int, int, int]:
        found = net.query("stratos.grant.v1", "Outstanding")
        pool = net.query("stratos.grant.v1", "Pool", pool_id=1).pool
        ozone = net.ozone()
        return (
            int(found.promo_outstanding_noz),
            int(found.promo_cost_wei),
            int(pool.free_wei),
            int(ozone.remaining_noz) - int(ozone.pending_lower_noz),
        )

    before, prepaid = granted(), net.module_wei("total_unissued_prepay")
    assert before[0] == 10**9
    tree = Tree.of(traffic_leaf(NODE, 1, 4 * 10**8, A, PROMO, EDGE), traffic_leaf(NODE, 2, 10**6, leaf={"noz": 10**6 + 1}))
    net.report(1, tree, expired_noz=3 * 10**8)
    kept = net.kept()
    assert (kept.promo_noz, kept.promo_expired_noz) == (str(4 * 10**8), str(3 * 10**8))
    assert granted()[0] == 3 * 10**8
    assert granted()[1] == before[1] - int(kept.promo_cost_wei)
    assert granted()[2] == before[2] + int(kept.promo_returned_wei) > before[2]
    net.ok(FINDER, bad_leaf_of(tree))
    after = granted()
    assert after[:3] == before[:3]
    assert after[3] == before[3] - 4 * (DEPOSIT_WEI // 10) // 10**6
    assert net.module_wei("total_unissued_prepay") == prepaid
    net.holds()


def test_more_promotion_than_was_granted_is_refused_with_the_report(net: Net) -> None:
    promoted(net)
    tree = Tree.of(traffic_leaf(NODE, 1, 10**9, A, PROMO, EDGE), traffic_leaf(NODE, 2, 1, A, PROMO, STORAGE))
    for expired_noz in (0, 1):
        draft = net.draft(1, tree.volumes(), tree.lines(), tree, expired_noz=expired_noz)
        assert net.refusal(OWNER, *net.messages(draft), step_s=EPOCH_S)[0] == ("grant", 22)


# --- each kind ---------------------------------------------------------------------------------------------------------------------------


def verdict(net: Net, proof: Any) -> tuple[str, int]:
    """("", 0) for a proof that is accepted."""
    result = net.run(FINDER, proof, gas=10**7)
    return result.codespace, result.code


def forged(net: Net, proof: Any) -> tuple[str, int]:
    """A refused proof costs its sender the fee and changes nothing else."""
    before = net.wei(text(FINDER))
    found = net.refusal(FINDER, proof)[0]
    assert net.wei(text(FINDER)) == before - send_fee()
    return found


NO_FRAUD, INVALID = ("settlement", errors.NoFraud.code), ("settlement", errors.InvalidProof.code)


def honest_tree(serial: int = 1) -> Tree:
    return Tree.of(
        traffic_leaf(NODE, serial, 500),
        traffic_leaf(NODE, serial + 1, 600),
        traffic_leaf(NODE, serial + 2, 70, A, PAID, EDGE),
        traffic_leaf(NODE, serial + 3, 80, B),
        release_leaf(serial, 90, B),
    )


def test_proofs_against_an_honest_epoch_are_refused(net: Net) -> None:
    tree = honest_tree()
    net.report(1, tree)
    count = len(tree.leaves)
    for at in range(count):
        assert forged(net, fraud("bad_leaf", leaf=tree.proof(at))) == NO_FRAUD
    for at in range(count - 1):
        assert forged(net, fraud("wrong_order", left=tree.proof(at), right=tree.proof(at + 1))) == NO_FRAUD
    assert forged(net, fraud("wrong_order", left=tree.proof(1), right=tree.proof(0))) == NO_FRAUD
    assert forged(net, fraud("wrong_order", left=tree.proof(0), right=tree.proof(2))) == NO_FRAUD
    assert forged(net, fraud("double_entry", first=tree.proof(0), second=tree.proof(0))) == NO_FRAUD
    assert forged(net, fraud("double_entry", first=tree.proof(0), second=tree.proof(1))) == NO_FRAUD
    assert net.kept().status == 1


def test_proofs_that_do_not_lead_to_what_was_committed_are_refused(net: Net) -> None:
    tree = honest_tree()
    net.report(1, tree)

    def changed(change: Callable[[Any], Any]) -> Any:
        proof = tree.proof(1)
        change(proof)
        return fraud("bad_leaf", leaf=proof)

    assert forged(net, changed(lambda proof: setattr(proof.leaf, "noz", 601))) == INVALID
    assert forged(net, changed(lambda proof: setattr(proof, "index", 0))) == INVALID
    assert forged(net, changed(lambda proof: setattr(proof, "index", 5))) == INVALID
    assert forged(net, changed(lambda proof: setattr(proof, "index", (1 << 64) - 1))) == INVALID
    assert forged(net, changed(lambda proof: setattr(proof.path[0], "sum_noz", "1"))) == INVALID
    assert forged(net, changed(lambda proof: setattr(proof.path[0], "sum_noz", str(1 << 200)))) == INVALID
    assert forged(net, changed(lambda proof: setattr(proof.path[0], "hash", b"x"))) == INVALID
    assert forged(net, changed(lambda proof: proof.path.pop())) == INVALID
    assert forged(net, changed(lambda proof: proof.path.extend([proof.path[0]] * 64))) == INVALID
    assert forged(net, changed(lambda proof: setattr(proof, "epoch", 2))) == ("settlement", errors.EpochNotKept.code)
    assert forged(net, message("MsgFraudProof", finder=text(FINDER))) == INVALID
    assert forged(net, fraud("bad_leaf", leaf=Tree([traffic_leaf(NODE, 1, 5)]).proof(0))) == INVALID


def test_a_tree_of_another_sum_than_the_report_is_a_bad_leaf_whatever_the_leaf_is(net: Net) -> None:
    tree = honest_tree()
    volumes = tree.volumes()
    net.report(1, tree, volumes={**volumes, B: volumes[B] + 5})
    assert forged(net, fraud("wrong_order", left=tree.proof(0), right=tree.proof(1))) == INVALID, "no other kind speaks of such a tree"
    assert verdict(net, fraud("bad_leaf", leaf=tree.proof(3))) == ("", 0)


@pytest.mark.parametrize(
    "name",
    [
        "one noz too many",
        "a receipt signed by another",
        "a grant for another chain",
        "a release of day 0",
        "a serial of another meta node",
        "a string that polls, deletes and shares",
    ],
)
def test_a_bad_leaf_voids_its_epoch(net: Net, name: str) -> None:
    tree = Tree([BAD[name][0]()])
    net.report(1, tree)
    assert verdict(net, fraud("bad_leaf", leaf=tree.proof(0))) == ("", 0)
    assert net.kept().status == 2


def test_one_serial_twice_in_an_epoch_voids_it(net: Net) -> None:
    tree = Tree.of(traffic_leaf(NODE, 1, 500), traffic_leaf(NODE, 1, 600, B))
    net.report(1, tree)
    assert verdict(net, fraud("double_entry", first=tree.proof(0), second=tree.proof(1))) == ("", 0)
    assert net.kept().status == 2


def test_one_serial_in_two_epochs_voids_the_later_one(net: Net) -> None:
    first, second = honest_tree(), Tree.of(traffic_leaf(NODE, 2, 600), traffic_leaf(NODE, 40, 600))
    net.report(1, first)
    net.report(2, second)
    assert verdict(net, fraud("double_entry", first=second.proof(0, 2), second=first.proof(1, 1))) == ("", 0)
    assert (net.kept(1).status, net.kept(2).status) == (1, 2)


def test_one_share_and_day_twice_voids_the_epoch_and_two_days_do_not(net: Net) -> None:
    tree = Tree.of(release_leaf(3), release_leaf(4), release_leaf(4, 7, B))
    net.report(1, tree)
    assert forged(net, fraud("double_entry", first=tree.proof(0), second=tree.proof(1))) == NO_FRAUD
    by_day = {leaf.release.day: at for at, leaf in enumerate(tree.leaves) if leaf.beneficiary == A}
    other = next(at for at, leaf in enumerate(tree.leaves) if leaf.beneficiary == B)
    assert verdict(net, fraud("double_entry", first=tree.proof(by_day[4]), second=tree.proof(other))) == ("", 0)


def test_two_meta_nodes_with_one_number_have_two_serials(net: Net) -> None:
    tree = Tree.of(traffic_leaf(NODE, 1, 500), traffic_leaf(NODES[1], 1, 600, B))
    net.report(1, tree)
    assert forged(net, fraud("double_entry", first=tree.proof(0), second=tree.proof(1))) == NO_FRAUD
    assert all(fault(leaf) is None for leaf in tree.leaves)


def test_two_replicas_of_one_share_are_paid_for_one_day(net: Net) -> None:
    tree = Tree.of(release_leaf(4, copy=1), release_leaf(4, copy=2), release_leaf(4, 7, B, copy=3))
    net.report(1, tree)
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert forged(net, fraud("double_entry", first=tree.proof(first), second=tree.proof(second))) == NO_FRAUD
    assert net.kept().status == 1


@pytest.mark.parametrize("order", [(1, 0), (0, 0)])
def test_neighbours_out_of_order_or_equal_void_the_epoch(net: Net, order: tuple[int, int]) -> None:
    found = [traffic_leaf(NODE, 1, 500), traffic_leaf(NODE, 2, 600)]
    tree = Tree([found[order[0]], found[order[1]]])
    net.report(1, tree)
    assert verdict(net, fraud("wrong_order", left=tree.proof(0), right=tree.proof(1))) == ("", 0)


def test_leaves_are_ordered_by_beneficiary_fund_class_and_serial() -> None:
    low, high = sorted((A, B), key=bech32.decode)
    ordered = [
        traffic_leaf(NODE, 9, 1, low, PAID, STORAGE),
        traffic_leaf(NODE, 10, 1, low, PAID, STORAGE),
        traffic_leaf(NODE, 8, 1, low, PAID, EDGE),
        traffic_leaf(NODE, 7, 1, low, PROMO, STORAGE),
        traffic_leaf(NODE, 6, 1, high, PAID, STORAGE),
    ]
    found = [leaves.sort_key(leaf) for leaf in ordered]
    assert found == sorted(found)  # type: ignore[type-var]
    assert leaves.sort_key(release_leaf(256, copy=7))[3] == bytes(15) + b"\x07\x00\x00\x01\x00"  # type: ignore[index]
    releases = [
        with_release(segment=segment, index=index, day=day)
        for segment, index, day in ((0, 0, 1), (0, 0, 2), (0, 1, 1), (0, 255, 3_650), (1, 0, 1), (255, 9, 9), (256, 0, 1), ((1 << 48) - 1, 0, 1))
    ]
    once = [leaves.identity(leaf) for leaf in releases]
    assert once == sorted({*once})  # type: ignore[type-var]
    assert {len(one or b"") for one in once} == {20}
    assert leaves.sort_key(message("Leaf", beneficiary=A)) is None


# --- wrong sums --------------------------------------------------------------------------------------------------------------------------


def test_a_line_that_its_leaves_do_not_sum_up_to_voids_the_epoch(net: Net) -> None:
    """B has ten noz that A worked for; the sum of all is right."""
    tree = honest_tree()
    honest = tree.volumes()
    volumes = {A: honest[A] - 10, B: honest[B] + 10}
    net.report(1, tree, volumes=volumes)
    low = min((A, B), key=bech32.decode)
    spans = span(tree, A, STORAGE)
    proof = fraud("wrong_sum", line=line_proof(volumes, tree.lines(), (A, STORAGE, PAID)), **borders(tree, *spans))
    assert low in (A, B)
    assert verdict(net, proof) == ("", 0)


def test_a_line_without_a_leaf_voids_the_epoch(net: Net) -> None:
    """A wallet that worked nothing has what B worked for; where its leaves would be, others are neighbours."""
    tree = honest_tree()
    honest = tree.volumes()
    for wallet in (text(KEYS[4]), bech32.encode(b"\x00" * 20), bech32.encode(b"\xff" * 20)):
        volumes = {A: honest[A], B: honest[B] - 30, wallet: 30}
        place = next((at for at, leaf in enumerate(tree.leaves) if bech32.decode(leaf.beneficiary) > bech32.decode(wallet)), len(tree.leaves))
        around = {}
        if place:
            around["before"] = tree.proof(place - 1)
        if place < len(tree.leaves):
            around["after"] = tree.proof(place)
        fresh = Net(4)
        fresh.report(1, tree, volumes=volumes)
        line = line_proof(volumes, tree.lines(), (wallet, STORAGE, PAID))
        if place:
            assert (
                forged(fresh, fraud("wrong_sum", line=line, **{"after": around.get("after"), "before": tree.proof(0)} if place > 1 else {}))
                == INVALID
            )
        assert verdict(fresh, fraud("wrong_sum", line=line, **around)) == ("", 0)


def test_right_sums_and_parts_of_a_line_are_refused(net: Net) -> None:
    tree = honest_tree()
    net.report(1, tree)
    volumes, lines = tree.volumes(), tree.lines()
    for wallet, traffic_class in ((A, STORAGE), (A, EDGE), (B, STORAGE)):
        line = line_proof(volumes, lines, (wallet, traffic_class, PAID))
        first, last = span(tree, wallet, traffic_class)
        assert forged(net, fraud("wrong_sum", line=line, **borders(tree, first, last))) == NO_FRAUD
        if first != last:
            assert forged(net, fraud("wrong_sum", line=line, **borders(tree, first, first))) == INVALID, "the leaf after it is of the line"
            assert forged(net, fraud("wrong_sum", line=line, **borders(tree, last, last))) == INVALID
        for missing in ("before", "after", "first", "last"):
            parts = borders(tree, first, last)
            if parts.pop(missing, None) is not None:
                assert forged(net, fraud("wrong_sum", line=line, **parts)) == INVALID
        assert forged(net, fraud("wrong_sum", line=line)) == INVALID, "no leaves at all"
        swapped = borders(tree, first, last)
        swapped["first"], swapped["last"] = swapped["last"], swapped["first"]
        if first != last:
            assert forged(net, fraud("wrong_sum", line=line, **swapped)) == INVALID
    line = line_proof(volumes, lines, (A, STORAGE, PAID))
    first, last = span(tree, B, STORAGE)
    assert forged(net, fraud("wrong_sum", line=line, **borders(tree, first, last))) == INVALID, "another wallet's leaves"
    for change in (
        {"index": 9},
        {"epoch": 9},
        {"line": commit_line(A, STORAGE, PAID, 5)},
        {"line": commit_line("x", STORAGE, PAID, 5)},
        {"path": [b"x"]},
    ):
        fields = {name: getattr(line, name) for name in ("epoch", "index", "line", "path")} | change
        expected = ("settlement", errors.EpochNotKept.code) if "epoch" in change else INVALID
        assert forged(net, fraud("wrong_sum", line=message("LineProof", **fields), **borders(tree, *span(tree, A, STORAGE)))) == expected


def test_leaves_of_another_epoch_are_no_borders(net: Net) -> None:
    tree, other = honest_tree(), honest_tree(50)
    net.report(1, tree)
    net.report(2, other)
    line = line_proof(tree.volumes(), tree.lines(), (A, STORAGE, PAID))
    assert forged(net, fraud("wrong_sum", line=line, **borders(other, *span(other, A, STORAGE), 2))) == INVALID


def test_a_lines_path_is_that_of_its_own_bytes() -> None:
    lines = [line_bytes(Line(bytes([at]) * 20, STORAGE, PAID, at)) for at in range(1, 6)]
    assert len(plain_path(4, lines)) == 1


# --- a lease used twice ------------------------------------------------------------------------------------------------------------------


def ranges(first: Any, second: Any, signer: Any = NODE) -> Any:
    both = {name: signed(limit, documents.LIMIT_DOMAIN, ledger_signer(signer)) for name, limit in (("first", first), ("second", second))}
    return fraud("overlapping_ranges", **both)


def test_two_overlapping_ranges_of_a_lease_cost_the_meta_node_alone_and_once(net: Net) -> None:
    first, second = order_limit(NODE, 1, 1_000), order_limit(NODE, 2, 1_000, from_noz=1_000_999, to_noz=1_001_999)
    before = accounts(net)
    result = net.ok(FINDER, ranges(first, second))
    after = accounts(net)
    slashed = DEPOSIT_WEI // 10
    assert after["finder"] == before["finder"] + slashed // 5 - send_fee()
    assert after["meta_node_bonded_pool"] == before["meta_node_bonded_pool"] - slashed
    gained = after["community"] - before["community"]
    assert slashed - slashed // 5 <= gained <= slashed - slashed // 5 + send_fee() // 50 + 2
    assert [net.deposit_wei(node) for node in net.nodes] == [DEPOSIT_WEI - slashed, *[DEPOSIT_WEI] * 3]
    told = dict(next(attributes for kind, attributes in result.events if kind.endswith("EventFraudProof")))
    assert (told["epoch"], told["kind"]) == ('"0"', '"overlapping_ranges"')
    again = ranges(first, order_limit(NODE, 3, 1_000, from_noz=1_000_500, to_noz=1_001_500))
    assert forged(net, again) == ("settlement", errors.LeasePunished.code)
    other = {"lease_id": b"M" * 32}
    assert verdict(net, ranges(order_limit(NODE, 1, 5, **other), order_limit(NODE, 1, 6, **other))) == ("", 0), "another lease"
    assert len(net.app.export()["settlement"]["punished_leases"]) == 2


def test_ranges_that_do_not_overlap_or_are_not_the_meta_nodes_are_refused(net: Net) -> None:
    first = order_limit(NODE, 1, 1_000)
    assert forged(net, ranges(first, first)) == NO_FRAUD, "one order limit, shown twice"
    assert forged(net, ranges(first, order_limit(NODE, 2, 1_000, from_noz=1_001_000, to_noz=1_002_000))) == NO_FRAUD, "ranges do not hold their end"
    overlapping = {"from_noz": 1_000_500, "to_noz": 1_001_500}
    assert forged(net, ranges(first, order_limit(NODE, 2, 1_000, **overlapping, lease_id=b"M" * 32))) == INVALID
    assert forged(net, ranges(first, order_limit(NODES[1], 2, 1_000, **overlapping))) == INVALID
    assert forged(net, ranges(first, order_limit(NODE, 2, 1_000, **overlapping), NODES[1])) == INVALID, "signed by another"
    elsewhere = [order_limit(NODE, number, 1_000, chain_id="test-2", **overlapping) for number in (1, 2)]
    assert forged(net, ranges(*elsewhere)) == INVALID
    short = [order_limit(NODE, number, 1_000, lease_id=b"M", **overlapping) for number in (1, 2)]
    assert forged(net, ranges(*short)) == INVALID
    unknown = [order_limit(meta(60), number, 1_000, **overlapping) for number in (1, 2)]
    assert forged(net, ranges(*unknown, meta(60))) == INVALID
    assert forged(net, ranges(receipt(1), receipt(2))) == INVALID
    assert forged(net, fraud("overlapping_ranges")) == INVALID
    empty = [order_limit(NODE, number, 1_000, from_noz=5, to_noz=5) for number in (1, 2)]
    assert forged(net, ranges(*empty)) == NO_FRAUD


def test_a_module_account_finds_nothing(net: Net) -> None:
    tree = lie(net)
    proof = bad_leaf_of(tree)
    proof.finder = GOV
    handler = net.app.executor._handlers[f"{SETTLEMENT}.MsgFraudProof"]
    ctx = Context(CHAIN_ID, net.driver.height + 1, net.driver.time_ns, Mode.FINALIZE)
    with pytest.raises(Unauthorized):
        handler.execute(ctx, State(net.app.store.view(), net.app.store.names), proof)


def test_a_proof_pays_gas_by_its_size_and_its_signatures(net: Net) -> None:
    tree = honest_tree()
    net.report(1, tree)
    result = net.run(FINDER, fraud("bad_leaf", leaf=tree.proof(0)), gas=10**7)
    size = len(leaves.leaf_bytes(tree.leaves[0]))
    assert result.code == errors.NoFraud.code
    assert result.gas_used > 10 * size + 3 * 1_000 + 100 * len(tree.proof(0).path)
    starved = net.run(FINDER, fraud("bad_leaf", leaf=tree.proof(0)), gas=result.gas_used - 20_000)
    assert (starved.codespace, starved.code) == ("sdk", 11)


def test_pot_shows_the_void_epoch(net: Net) -> None:
    tree = lie(net)
    assert net.query(POT, "VolumeReport", epoch=1).report_info.reference == net.kept().report_reference
    net.ok(FINDER, bad_leaf_of(tree))
    void = net.app.export()["pot"]["epoch_economics"][0]
    assert void["is_void"] is True
