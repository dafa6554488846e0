"""Checking an epoch: honest ones are fine, every lie is found, and the chain takes each proof as it is; bytes of strangers break nothing."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any

import pytest

from chain.crypto import address as bech32
from modules.settlement import leaves as rules
from modules.settlement.commitment import all_lines, line_bytes, read_lines
from modules.settlement.documents import LIMIT_DOMAIN, OrderLimit
from modules.settlement.trees import plain_root
from sds_node.epoch_data import ReportedEpoch
from sds_node.proofs import balance_leaf
from sds_node.verifying import ROOTS, Batch, BatchBroken, Findings, overlap_finding, verify
from tests.modules.settling import AUDIT, DATABASE, FINDER, OWNER, PAYER, A, B, Net, Tree, ledger_signer, meta, release_leaf, signed, traffic_leaf
from tests.sds_node.cheats.support import framed
from tests.serials import own_serial
from tests.support import CHAIN_ID, text

NODE, OTHER = meta(0), meta(1)


def keys(address: bytes) -> bytes | None:
    """Ledger keys of the chain's meta nodes."""
    return {bech32.decode(one.network_address, bech32.NODE): one.ledger_consensus_pubkey for one in (meta(number) for number in range(4))}.get(
        address
    )


def honest_leaves() -> list[Any]:
    return [
        traffic_leaf(NODE, 1, 500),
        traffic_leaf(NODE, 2, 600),
        traffic_leaf(OTHER, 3, 700, B),
        traffic_leaf(NODE, 4, 80, B),
        traffic_leaf(NODE, 5, 90, A, 1, DATABASE),
        traffic_leaf(NODE, 6, 60, B, limit={"action": AUDIT}, authority=False),
        release_leaf(3, 40),
        release_leaf(3, 41, copy=1),
        release_leaf(4, 42, B),
    ]


def debits_of(leaves: Sequence[Any]) -> bytes:
    """debits_root as honest books make it: all traffic here that is not an audit's is PAYER's."""
    noz = 0
    for leaf in leaves:
        if leaf.WhichOneof("source") == "traffic" and OrderLimit.FromString(leaf.traffic.order_limit.body).action != AUDIT:
            noz += leaf.noz
    return plain_root([balance_leaf(PAYER.public_key.address, noz, 0)] if noz else [])


def reported(net: Net, number: int, leaves: Sequence[Any], **options: Any) -> tuple[ReportedEpoch, bytes]:
    """Report leaves in the order given → the epoch as the chain has it, and its batch."""
    tree, data = Tree(list(leaves)), framed(leaves)
    fields = {"volumes": tree.volumes(), "lines": tree.lines()} | {name: options.pop(name) for name in ("volumes", "lines") if name in options}
    found = {bech32.decode(wallet): noz for wallet, noz in fields["volumes"].items()}
    roots = {"debits_root": debits_of(leaves), "data_ref": f"sha256:{sha256(data).hexdigest()}"}
    plain = net.draft(number, tree=tree, **fields)
    lines = all_lines(read_lines(plain.commitment), found)
    draft = net.draft(number, tree=tree, **fields, **{"totals_root": plain_root([line_bytes(line) for line in lines]), **roots, **options})
    net.ok(OWNER, *net.messages(draft), step_s=5)
    return ReportedEpoch(net.kept(number), draft.commitment, found, lines), data


def check(epoch: ReportedEpoch, data: bytes, earlier: Sequence[tuple[ReportedEpoch, bytes]] = ()) -> Findings:
    return verify(epoch, data, CHAIN_ID, keys, earlier)


def ordered(leaves: Sequence[Any]) -> list[Any]:
    return Tree.of(*leaves).leaves


def test_an_honest_epoch_has_no_finding_and_an_idle_one_neither() -> None:
    net = Net(4)
    assert check(*reported(net, 1, ordered(honest_leaves()))).found == []
    assert check(*reported(net, 2, [])).found == []


def bad(leaves: list[Any]) -> list[Any]:
    at = next(at for at, leaf in enumerate(leaves) if leaf.WhichOneof("source") == "traffic")
    return [*leaves[:at], _forged(leaves[at]), *leaves[at + 1 :]]


def _forged(leaf: Any) -> Any:
    made = rules.Leaf.FromString(rules.leaf_bytes(leaf))
    made.traffic.receipt.signature = bytes(64)
    return made


LIES: dict[str, tuple[str, Callable[[list[Any]], list[Any]]]] = {
    "a receipt that the session did not sign": ("bad_leaf", bad),
    "more noz than bytes": ("bad_leaf", lambda found: ordered([*found, traffic_leaf(NODE, 9, 500, leaf={"noz": 501})])),
    "a meta node that has no keys": ("bad_leaf", lambda found: ordered([*found, traffic_leaf(meta(9), 9)])),
    "a release of a day that no term has": ("bad_leaf", lambda found: ordered([*found, release_leaf(4_000)])),
    "one serial twice": ("double_entry", lambda found: ordered([*found, traffic_leaf(NODE, 1, 500, B)])),
    "a serial of another meta node": (
        "bad_leaf",
        lambda found: ordered([*found, traffic_leaf(OTHER, 9, 500, limit={"serial": own_serial(bytes(20), 9)})]),
    ),
    "one share's day twice": ("double_entry", lambda found: ordered([*found, release_leaf(3, 7, B)])),
    "the same leaf twice": ("double_entry", lambda found: [*found, found[-1]]),
    "neighbours that changed places": ("wrong_order", lambda found: [found[1], found[0], *found[2:]]),
    "the last one first": ("wrong_order", lambda found: [found[-1], *found[:-1]]),
    "one range for two": (
        "overlapping_ranges",
        lambda found: ordered([*found, traffic_leaf(NODE, 9, 500, limit={"from_noz": 10**6, "to_noz": 10**6 + 500})]),
    ),
}


@pytest.mark.parametrize("name", LIES)
def test_a_lie_is_found_and_the_chain_takes_the_proof_as_it_is(name: str) -> None:
    net, (kind, lie) = Net(4), LIES[name]
    epoch, data = reported(net, 1, lie(ordered(honest_leaves())))
    findings = check(epoch, data).found
    assert kind in {one.kind for one in findings}
    for finding in findings:
        if finding.proof is not None and finding.kind != kind:
            net_again = Net(4)
            reported(net_again, 1, lie(ordered(honest_leaves())))
            net_again.ok(FINDER, finding.message(text(FINDER)))
    net.ok(FINDER, next(one for one in findings if one.kind == kind).message(text(FINDER)))
    if kind == "overlapping_ranges":
        assert next(one for one in findings if one.kind == kind).accused == NODE.network_address
        assert (net.kept().status, net.deposit_wei(NODE) < net.deposit_wei(OTHER)) == (1, True)
    else:
        assert net.kept().status == 2


@pytest.mark.parametrize("name", ["too much for one", "somebody who did nothing", "another class"])
def test_lines_that_leaves_do_not_sum_up_to_are_found_and_proved(name: str) -> None:
    leaves = ordered(honest_leaves())
    honest, lines = Tree(leaves).volumes(), Tree(leaves).lines()
    changes: dict[str, dict[str, Any]] = {
        "too much for one": {"volumes": {A: honest[A] - 10, B: honest[B] + 10}},
        "somebody who did nothing": {"volumes": {A: honest[A], B: honest[B] - 30, text(FINDER): 30}},
        "another class": {"lines": [(wallet, kind, fund, noz - 1) for wallet, kind, fund, noz in lines]},
    }
    change = changes[name]
    findings = check(*reported(Net(4), 1, leaves, **change)).found
    proofs = [one for one in findings if one.proof is not None]
    assert {one.kind for one in proofs} == {"wrong_sum"}
    for finding in proofs:
        net = Net(4)
        reported(net, 1, leaves, **change)
        net.ok(FINDER, finding.message(text(FINDER)))
        assert net.kept().status == 2


def test_a_sum_that_is_not_the_reports_is_shown_by_any_leaf() -> None:
    net, leaves = Net(4), ordered(honest_leaves())
    volumes = Tree(leaves).volumes()
    findings = check(*reported(net, 1, leaves, volumes={A: volumes[A], B: volumes[B] + 5})).found
    assert [one.kind for one in findings if one.proof] == ["bad_leaf"]
    net.ok(FINDER, findings[0].message(text(FINDER)))
    assert net.kept().status == 2


def test_what_an_earlier_epoch_paid_is_found_in_a_later_one() -> None:
    net, leaves = Net(4), ordered(honest_leaves())
    first = reported(net, 1, leaves)
    again = reported(net, 2, ordered([leaves[0], traffic_leaf(NODE, 40, 600)]))
    assert check(*again).found == []
    findings = check(*again, [first]).found
    assert [one.kind for one in findings] == ["double_entry"]
    net.ok(FINDER, findings[0].message(text(FINDER)))
    assert (net.kept(1).status, net.kept(2).status) == (1, 2)


def test_a_range_that_an_earlier_epoch_used_is_found() -> None:
    net = Net(4)
    first = reported(net, 1, ordered(honest_leaves()))
    second = reported(net, 2, [traffic_leaf(NODE, 40, 500, limit={"from_noz": 10**6, "to_noz": 10**6 + 500})])
    findings = check(*second, [first]).found
    assert [one.kind for one in findings] == ["overlapping_ranges"]
    net.ok(FINDER, findings[0].message(text(FINDER)))


def test_a_void_epoch_before_makes_no_double() -> None:
    net, leaves = Net(4), ordered(honest_leaves())
    lied = reported(net, 1, bad(leaves))
    net.ok(FINDER, next(one for one in check(*lied).found if one.kind == "bad_leaf").message(text(FINDER)))
    void = ReportedEpoch(net.kept(1), lied[0].commitment, lied[0].volumes, lied[0].lines)
    assert void.is_void
    assert check(*reported(net, 2, leaves), [(void, lied[1])]).found == []


def test_roots_that_follow_from_leaves_are_compared_though_nothing_proves_them() -> None:
    net, leaves = Net(4), ordered(honest_leaves())
    findings = check(*reported(net, 1, leaves, totals_root=b"t" * 32, debits_root=b"d" * 32, data_ref="ipfs://elsewhere")).found
    assert [(one.kind, one.proof) for one in findings] == [(ROOTS, None)] * 3
    with pytest.raises(ValueError, match="has no proof"):
        findings[0].message(text(FINDER))


@pytest.mark.parametrize(
    "change",
    [
        lambda data: b"",
        lambda data: data[:-1],
        lambda data: data + b"\x00",
        lambda data: data + data[:3],
        lambda data: b"\xff\xff\xff\xff" + data,
        lambda data: data[: 4 + int.from_bytes(data[:4], "big")],
        lambda data: data[:4] + b"\xff" + data[5:],
        lambda data: b"\x00\x00\x00\x00" * 1_000,
        lambda data: random.Random(1).randbytes(len(data)),
    ],
)
def test_data_that_is_not_the_committed_one_is_told_with_how_to_challenge(change: Callable[[bytes], bytes]) -> None:
    net, leaves = Net(4), ordered(honest_leaves())
    epoch, data = reported(net, 1, leaves)
    findings = check(epoch, change(data)).found
    assert [one.kind for one in findings] == ["withheld_leaf"]
    assert "stchaind tx settlement challenge 1 " in findings[0].text
    assert int(findings[0].message(text(FINDER)).withheld_leaf.leaf_index) < len(leaves)
    net.ok(FINDER, findings[0].message(text(FINDER)))


def test_every_flipped_bit_of_a_batch_is_seen() -> None:
    net = Net(4)
    epoch, data = reported(net, 1, [traffic_leaf(NODE, 1, 500)])
    for at in range(0, len(data), 7):
        changed = data[:at] + bytes([data[at] ^ (1 << at % 8)]) + data[at + 1 :]
        assert check(epoch, changed).found, f"byte {at}"


def test_findings_have_an_end() -> None:
    net = Net(4)
    epoch, data = reported(net, 1, ordered([_forged(traffic_leaf(NODE, number, 500)) for number in range(1, 120)]))
    findings = check(epoch, data)
    assert (len(findings.found), findings.left_out) == (100, 19)


def test_a_leaf_in_another_form_cannot_be_shown_and_is_to_be_challenged() -> None:
    raw = rules.leaf_bytes(release_leaf(3)) + b"\xc0\x3e\x01"
    with pytest.raises(BatchBroken, match="leaf 0 cannot be read"):
        Batch(1, len(raw).to_bytes(4, "big") + raw)


def test_two_limits_that_a_node_kept_become_a_proof() -> None:
    net = Net(4)
    limits = [OrderLimit.FromString(traffic_leaf(NODE, number, 500).traffic.order_limit.body) for number in (1, 2)]
    limits[1].from_noz, limits[1].to_noz = limits[0].from_noz + 499, limits[0].from_noz + 999
    finding = overlap_finding(*(signed(one, LIMIT_DOMAIN, ledger_signer(NODE)) for one in limits))
    assert finding.accused == NODE.network_address
    net.ok(FINDER, finding.message(text(FINDER)))
