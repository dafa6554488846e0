"""The quorum from 1 to 30 meta nodes: reports of a quorum hold, one signature short does not, whoever signs and whatever the selectors are."""

from __future__ import annotations

import random

import pytest
from py_ecc.bls.g2_primitives import G1_to_pubkey, pubkey_to_G1
from py_ecc.optimized_bls12_381 import add, neg

from chain.crypto import bls
from chain.quorum import quorum
from tests.modules.settling import EPOCH_S, OWNER, SETTLEMENT, MetaKeys, Net, Signing, meta

MOST = 30


@pytest.mark.parametrize("count", range(1, MOST + 1))
def test_a_quorum_reports_and_one_signature_fewer_does_not(count: int) -> None:
    choose = random.Random(count)
    net = Net(count, prepaid_wei=0)
    need = 2 * count // 3 + 1
    told = net.query(SETTLEMENT, "Quorum")
    assert (told.active_meta_nodes, told.with_keys, told.quorum) == (count, count, need)
    draft = net.draft(1, {})

    def refused(nodes: list[MetaKeys], **changes: object) -> tuple[str, int]:
        return net.refusal(OWNER, *net.messages(draft, Signing(nodes, **changes)), step_s=EPOCH_S)[0]  # type: ignore[arg-type]

    some = choose.sample(net.nodes, need)
    selectors = sorted(node.bls_pubkey for node in some)
    if need > 1:
        assert refused(some[1:]) == ("pot", 24), "one short"
        assert refused(some, selectors=selectors[::-1]) == ("pot", 22), "not ascending"
        assert refused(some[1:], selectors=sorted([*selectors[1:], selectors[1]])) == ("pot", 22), "one twice"
        assert refused(some[1:], selectors=selectors) == ("pot", 23), "one named who did not sign"
    assert refused(some, selectors=sorted([*selectors, meta(77).bls_pubkey])) == ("pot", 22), "a key that nobody registered"
    assert refused(some, selectors=[*selectors, b"\xc0" + bytes(47)] if selectors[-1] < b"\xc0" else [b"\xc0" + bytes(47)]) == ("pot", 22)
    assert refused(some, selectors=[]) == ("pot", 24)
    net.ok(OWNER, *net.messages(draft, Signing(some)), step_s=EPOCH_S)
    assert sorted(net.kept().signers) == sorted(node.network_address for node in some)
    net.report(2)
    assert len(net.kept(2).signers) == count
    assert net.refusal(OWNER, *net.messages(draft, Signing(some)), step_s=EPOCH_S)[0] == ("pot", 8), "a replayed epoch"


def test_two_quorums_always_share_more_than_a_third() -> None:
    """What makes a lie need a third of liars: two reports of one epoch share signers."""
    for count in range(1, 1_000):
        need = quorum(count)
        assert need <= count
        assert 3 * (2 * need - count) > count, "the least that two quorums share"
        assert 3 * (need - 1) <= 2 * count, "and no smaller one would do"


def test_a_rogue_key_that_cancels_anothers_out_gets_no_quorum() -> None:
    """Without its secret no proof is possible, so it is not registered and selects nothing."""
    net = Net(4, with_keys=3)
    attacker = net.nodes[3]
    rogue = attacker.bls_pubkey
    for node in net.nodes[:2]:
        rogue = G1_to_pubkey(add(pubkey_to_G1(rogue), neg(pubkey_to_G1(node.bls_pubkey))))
    draft = net.draft(1, {})
    forged = attacker.sign(draft.message)
    assert bls.verify_aggregate([net.nodes[0].bls_pubkey, net.nodes[1].bls_pubkey, rogue], draft.message, forged), "the attack that the proof stops"
    proof = bls.prove_possession(attacker.bls_secret, "test-1", attacker.address, rogue)
    assert net.refusal(OWNER, net.register_keys(attacker, bls_pubkey=rogue, proof_of_possession=proof))[0] == ("settlement", 6)
    info = draft.signature_info({node.bls_pubkey: node.sign(draft.message) for node in net.nodes[:3]})
    del info.pub_keys[:]
    info.pub_keys.extend(sorted([net.nodes[0].bls_pubkey, net.nodes[1].bls_pubkey, rogue]))
    info.signature = forged
    assert net.refusal(OWNER, *draft.messages(info), step_s=EPOCH_S)[0] == ("pot", 22)


def test_a_signature_for_another_chain_or_another_report_is_none() -> None:
    net = Net(4)
    draft, other = net.draft(1, {}), net.draft(1, {}, data_ref="another")
    elsewhere = type(draft)("test-2", draft.commitment, draft.report)
    for signed in (other, elsewhere):
        info = draft.signature_info({node.bls_pubkey: node.sign(draft.message) for node in net.nodes})
        info.signature = signed.signature_info({node.bls_pubkey: node.sign(signed.message) for node in net.nodes}).signature
        assert net.refusal(OWNER, *draft.messages(info), step_s=EPOCH_S)[0] == ("pot", 23)
