"""Who sends operations, the founding, what is observed of the value chain."""

from __future__ import annotations

import re
from hashlib import sha256
from pathlib import Path
from typing import Any

import nacl.signing
import pytest

from chain.codec.canonical import encode
from sds_node.meta.rules import observe, refusals
from sds_node.meta.rules.apply import NONCE_WINDOW
from sds_node.meta.rules.invariants import gap_noz, walk
from sds_node.meta.rules.nodes import CLOCKS_S, LONGEST_MAINTENANCE_S, SILENT_S, is_eligible
from sds_node.meta.rules.tables import BLOCK, META, NODE, SENT, TOLD, Node
from sds_node.meta.rules.wire import SignedOperation, sign_operation
from tests.sds_node.rules.support import (
    CHAIN_ID,
    DAY_MS,
    PARAMS,
    Make,
    World,
    event,
    granted,
    lookup,
    message,
    meta,
    meta_key,
    node_address,
    observed_meta,
    observed_node,
    owner,
    sold,
    wallet,
)

README = Path(refusals.__file__).with_name("README.md")


def node(world: World, number: int) -> Node:
    row = world.core.tables.get(NODE, (number,))
    assert row is not None
    return row


# --- who sends --------------------------------------------------------------------------------------------------------


def test_bytes_that_are_no_signed_operation_in_canonical_form_are_refused(world: World) -> None:
    good = sign_operation(world.operation("tick", message("Tick")), meta_key(1))
    body, signature = SignedOperation.FromString(good).body, SignedOperation.FromString(good).signature
    hostile = [
        b"x", b"\xff" * 1_000, good + b"\x00", good[:-1], good + b"\x1a\x01x", b"\x0a\x7f",
        b"\x12" + encode(SignedOperation(signature=signature))[1:] + encode(SignedOperation(body=body)),  # the parts in another order
        encode(SignedOperation(body=body + b"\xf2\x07\x01x", signature=signature)),  # an unknown part
    ]  # fmt: skip
    for raw in hostile:
        assert world.submit(raw).code == refusals.BAD_FORM, raw[:50]
    assert world.submit(good).code == 0


def test_an_operation_for_another_chain_is_refused(world: World) -> None:
    world.refused(refusals.WRONG_CHAIN, "tick", message("Tick"), chain_id="other-1")


def test_only_an_active_meta_node_with_a_ledger_key_sends_operations(make: Make) -> None:
    world = make(metas=3)
    world.refused(refusals.UNKNOWN_SENDER, "tick", message("Tick"), 9)
    world.observe(event(meta=observed_meta(2, is_active=False)), event(meta=observed_meta(3, ledger_key=b"")))
    world.refused(refusals.UNKNOWN_SENDER, "tick", message("Tick"), 2)
    world.refused(refusals.UNKNOWN_SENDER, "tick", message("Tick"), 3)
    world.refused(refusals.BAD_FORM, "tick", message("Tick"), meta_node=b"short")


def test_an_operation_that_its_sender_has_not_signed_is_refused(world: World) -> None:
    assert world.submit(sign_operation(world.operation("tick", message("Tick")), meta_key(2))).code == refusals.BAD_SIGNATURE


def test_an_operation_of_no_kind_is_refused(world: World) -> None:
    made = message("Operation", chain_id=CHAIN_ID, meta_node=meta(1), nonce=50, until_s=world.time_ms // 1_000)
    assert world.submit(sign_operation(made, meta_key(1))).code == refusals.BAD_FORM


def test_an_operation_is_applied_once(world: World) -> None:
    raw = sign_operation(world.operation("tick", message("Tick")), meta_key(1))
    assert [world.submit(raw).code, world.submit(raw).code] == [0, refusals.USED_NONCE]


def test_a_refused_operation_is_never_applied_later(world: World) -> None:
    """What was refused may be in somebody's hands, and the rules might not refuse it any more."""
    order = world.operation("settle_leases", message("SettleLeases", lease_ids=[b"L" * 32]))
    raw = sign_operation(order, meta_key(1))
    assert world.submit(raw).code == refusals.UNKNOWN_LEASE
    assert world.submit(raw).code == refusals.USED_NONCE
    forged = sign_operation(world.operation("tick", message("Tick"), nonce=77), meta_key(2))
    assert world.submit(forged).code == refusals.BAD_SIGNATURE
    world.ok("tick", message("Tick"), nonce=77)


def test_operations_may_come_in_another_order_within_the_window_of_nonces(world: World) -> None:
    for nonce in (500, 499, 501, 500 - NONCE_WINDOW + 1, 450):
        world.ok("tick", message("Tick"), nonce=nonce)
    for nonce in (500, 499, 501, 450, 501 - NONCE_WINDOW - 1, 1, 500 - NONCE_WINDOW + 1):
        world.refused(refusals.USED_NONCE, "tick", message("Tick"), nonce=nonce)
    world.ok("tick", message("Tick"), nonce=(1 << 63) - 1)
    for nonce in (0, 1 << 63, (1 << 64) - 1):
        world.refused(refusals.BAD_FORM, "tick", message("Tick"), nonce=nonce)


def test_an_operation_whose_time_is_over_or_too_far_ahead_is_refused(world: World) -> None:
    now_s = world.time_ms // 1_000
    for until_s in (now_s - 1, now_s + 3_601, -1, (1 << 63) - 1):
        world.refused(refusals.OUT_OF_TIME, "tick", message("Tick"), until_s=until_s)
    for until_s in (now_s, now_s + 3_600):
        world.ok("tick", message("Tick"), until_s=until_s)


# --- founding ---------------------------------------------------------------------------------------------------------


def test_the_first_operation_founds_the_ledger_and_no_other_one_does(world: World) -> None:
    world.refused(refusals.FOUNDING, "found", world.founding())
    state = world.state
    assert (state.chain_id, state.retention_days, state.next_segment) == (CHAIN_ID, 365, 1)


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        (refusals.BAD_FORM, {"metas": []}),
        (refusals.BAD_FORM, {"metas": [observed_meta(2), observed_meta(1)]}),
        (refusals.BAD_FORM, {"metas": [observed_meta(1, ledger_key=bytes(32))]}),
        (refusals.BAD_FORM, {"block_hash": b""}),
        (refusals.BAD_FORM, {"height": 1 << 63}),
        (refusals.BAD_FORM, {"reported_s": -1}),
        (refusals.BAD_FORM, {"params": message("LedgerParams", **PARAMS | {"retention_days": 0})}),
        (refusals.UNKNOWN_SENDER, {"metas": [observed_meta(2)]}),
        (refusals.UNKNOWN_SENDER, {"metas": [observed_meta(1, is_active=False)]}),
        (refusals.BAD_SIGNATURE, {"metas": [observed_meta(1, ledger_key=bytes(meta_key(3).verify_key))]}),
    ],
)
def test_a_founding_of_another_form_or_by_a_stranger_is_refused(
    make: Make, monkeypatch: pytest.MonkeyPatch, code: int, changes: dict[str, Any]
) -> None:
    monkeypatch.setattr(World, "ok", lambda *arguments, **settings: b"")
    world = make(nodes=0, noz=0)
    world.refused(refusals.FOUNDING, "tick", message("Tick"))
    world.refused(code, "found", world.founding(**changes))


# --- observing --------------------------------------------------------------------------------------------------------


def test_sold_noz_are_the_wallets_and_what_the_chain_owes(world: World) -> None:
    world.outstanding = 10**12 + 7
    world.observe(sold(2, 7))
    assert (world.wallet(2).paid_noz, world.state.owed_noz, gap_noz(world.core.tables)) == (7, 10**12 + 7, 0)


def test_granted_noz_end_at_the_midnight_after_their_time_and_wait_for_the_report(world: World) -> None:
    ends_s = world.time_ms // 1_000 + 3_600
    world.observe(granted(1, 100, ends_s), granted(1, 11, ends_s + 7), granted(1, 5, ends_s + 86_400), granted(1, 3, 1))
    assert (world.wallet().promo_noz, world.state.promo_owed_noz, world.state.promo_expired_noz) == (116, 119, 3)
    world.wait(DAY_MS - 1)
    assert world.tick() == 0
    world.wait(1)
    assert world.tick() == 1
    assert (world.wallet().promo_noz, world.state.promo_expired_noz) == (5, 114)


def test_an_observation_needs_a_quorum_of_active_meta_nodes_each_counted_once(make: Make) -> None:
    world = make(metas=4)
    observation = world.observation(sold(1, 5))
    for signers in ((1,), (1, 2), (1, 2, 9)):
        world.refused(refusals.NO_QUORUM, "observe", world.signed(observation, *signers))
    for signers in ((1, 1, 1), (2, 1, 3)):
        world.refused(refusals.BAD_FORM, "observe", world.signed(observation, *signers))
    forged = world.signed(observation, 1, 2, 3)
    forged.signatures[2].signature = forged.signatures[1].signature
    world.refused(refusals.NO_QUORUM, "observe", forged)
    world.ok("observe", world.signed(observation, 1, 3, 4))
    world.height += 1
    world.observe(event(meta=observed_meta(4, is_active=False)))
    world.refused(refusals.NO_QUORUM, "observe", world.signed(world.observation(), 1, 2, 4))
    world.ok("observe", world.signed(world.observation(), 1, 2, 3))


def test_heights_are_observed_without_a_gap_and_empty_ones_as_a_range(world: World) -> None:
    at = world.height
    for first in (at, at + 2):
        world.refused(refusals.WRONG_HEIGHT, "observe", world.signed(world.observation(from_height=first, to_height=first + 3)))
    world.refused(refusals.BAD_FORM, "observe", world.signed(world.observation(to_height=at)))
    world.observe(to_height=at + 20, block_hash=b"h" * 32)
    assert (world.state.height, world.state.block_hash) == (at + 20, b"h" * 32)
    assert [row.height for row in walk(world.core.tables, BLOCK)] == [100, 101, at + 20]


def test_a_height_of_many_events_comes_in_parts_and_counts_with_the_last(world: World) -> None:
    at = world.height
    world.refused(refusals.WRONG_HEIGHT, "observe", world.signed(world.observation(part=1)))
    world.ok("observe", world.signed(world.observation(sold(1, 1), is_last=False)))
    world.refused(refusals.WRONG_HEIGHT, "observe", world.signed(world.observation(sold(1, 1), is_last=False)))
    world.refused(refusals.WRONG_HEIGHT, "observe", world.signed(world.observation(part=1, to_height=at + 2)))
    assert world.state.height == at
    world.ok("observe", world.signed(world.observation(sold(1, 1), part=1)))
    assert (world.state.height, world.state.part, world.wallet().paid_noz) == (at + 1, 0, 10**12 + 2)


def test_only_the_latest_blocks_are_kept(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observe, "BLOCKS_KEPT", 3)
    for _ in range(5):
        world.observe()
    assert [row.height for row in walk(world.core.tables, BLOCK)] == [104, 105, 106]


def test_nodes_have_numbers_in_the_order_in_which_they_came_and_keep_them(world: World) -> None:
    world.observe(event(node=observed_node(2, standing=4, owner=owner(9))), event(node=observed_node(7)))
    assert [(row.number, row.address, row.owner, row.standing) for row in walk(world.core.tables, NODE)] == [
        (1, node_address(1), owner(1), 1), (2, node_address(2), owner(9), 4), (3, node_address(3), owner(3), 1), (4, node_address(7), owner(7), 1),
    ]  # fmt: skip


def test_parameters_reach_the_ledger_and_an_object_keeps_those_that_it_was_written_with(world: World) -> None:
    lease = world.lease(10**6)
    world.put(lease, 1, 1_000, [1, 2, 3])
    world.observe(event(params=message("LedgerParams", **PARAMS | {"escrow_ratio_e18": 10**18, "retention_days": 10})))
    row = world.put(lease, 2, 1_000, [1, 2, 3])
    assert (row.escrow_noz, row.term_days) == (3_000, 10)
    assert (world.object(lookup(1)).escrow_noz, world.object(lookup(1)).term_days) == (1_500, 365)


@pytest.mark.parametrize(
    ("code", "events"),
    [
        (refusals.BAD_FORM, [event()]),
        (refusals.BAD_FORM, [event(sold=message("SoldOzone", wallet=b"short", noz="1"))]),
        (refusals.BAD_FORM, [event(sold=message("SoldOzone", wallet=wallet(1), noz="01"))]),
        (refusals.BAD_FORM, [event(sold=message("SoldOzone", wallet=wallet(1), noz="-1"))]),
        (refusals.BAD_FORM, [event(sold=message("SoldOzone", wallet=wallet(1), noz="٣"))]),
        (refusals.BAD_FORM, [event(sold=message("SoldOzone", wallet=wallet(1), noz=str(1 << 127)))]),
        (refusals.BAD_FORM, [event(sold=message("SoldOzone", wallet=wallet(1), noz="9" * 5_000))]),
        (refusals.TOO_MUCH, [sold(1, (1 << 127) - 1)]),
        (refusals.BAD_FORM, [granted(1, 1, -1)]),
        (refusals.BAD_FORM, [granted(1, 1, 1 << 62)]),
        (refusals.BAD_FORM, [event(node=observed_node(1, standing=0))]),
        (refusals.BAD_FORM, [event(node=observed_node(1, standing=5))]),
        (refusals.BAD_FORM, [event(node=observed_node(1, p2p_key=b""))]),
        (refusals.BAD_FORM, [event(node=observed_node(1, address=b""))]),
        (refusals.BAD_FORM, [event(meta=observed_meta(1, ledger_key=bytes(32)))]),
        (refusals.BAD_FORM, [event(params=message("LedgerParams", **PARAMS | {"trash_days": 366}))]),
    ],
)
def test_events_of_another_form_are_refused_and_none_before_them_counts(world: World, code: int, events: list[Any]) -> None:
    world.refused(code, "observe", world.signed(world.observation(sold(1, 5), *events)))
    assert world.wallet().paid_noz == 10**12


def test_observations_with_wrong_frames_are_refused(world: World) -> None:
    for code, changes in [
        (refusals.WRONG_CHAIN, {"chain_id": "other-1"}),
        (refusals.BAD_FORM, {"block_hash": b"x"}),
        (refusals.BAD_FORM, {"block_time_s": -1}),
        (refusals.BAD_FORM, {"outstanding_noz": "x"}),
        (refusals.BAD_FORM, {"deposit_changes": 1 << 63}),
    ]:
        world.refused(code, "observe", world.signed(world.observation(**changes)))
    world.refused(refusals.BAD_FORM, "observe", message("Observe", observation=b"\xff", signatures=[message("LedgerSignature")]))
    world.refused(refusals.BAD_FORM, "observe", message("Observe", observation=encode(world.observation())))


def test_a_meta_node_that_has_a_new_key_signs_with_it(world: World) -> None:
    key = nacl.signing.SigningKey(sha256(b"new").digest())
    world.observe(event(meta=observed_meta(1, ledger_key=bytes(key.verify_key))))
    world.refused(refusals.BAD_SIGNATURE, "tick", message("Tick"))
    assert world.submit(sign_operation(world.operation("tick", message("Tick")), key)).code == 0
    row = world.core.tables.get(META, (meta(1),))
    assert row is not None
    assert row.ledger_key == bytes(key.verify_key)


# --- what is seen of nodes --------------------------------------------------------------------------------------------


def seen(number: int, **changes: Any) -> Any:
    fields = {"node": number, "endpoint": "127.1.0.1:18081", "prefix": b"\x7f\x01\x00", "capacity_bytes": 100, "free_bytes": 90, "is_online": True}
    return message("NodeSeen", **fields | changes)


def test_nobody_puts_a_node_into_maintenance_for_longer_than_it_may_be(world: World) -> None:
    most_ms = world.time_ms + (LONGEST_MAINTENANCE_S + CLOCKS_S) * 1_000
    for until_s, wanted_ms in ((1 << 40, most_ms), (most_ms // 1_000 + 1, most_ms), (most_ms // 1_000 - 1, most_ms - 1_000), (0, 0)):
        world.ok("node_statuses", message("NodeStatuses", nodes=[seen(1, maintenance_until_s=until_s)]))
        assert node(world, 1).maintenance_until_ms == wanted_ms


def test_a_node_is_eligible_while_it_is_active_heard_of_and_not_in_maintenance(world: World) -> None:
    assert not is_eligible(node(world, 1), world.time_ms)
    world.ok(
        "node_statuses", message("NodeStatuses", nodes=[seen(1), seen(2, maintenance_until_s=world.time_ms // 1_000 + 60), seen(3, is_online=False)])
    )
    assert [is_eligible(node(world, number), world.time_ms) for number in (1, 2, 3)] == [True, False, False]
    assert is_eligible(node(world, 2), world.time_ms + 60_000)
    assert not is_eligible(node(world, 1), world.time_ms + SILENT_S * 1_000)
    world.observe(event(node=observed_node(1, standing=2)))
    assert not is_eligible(node(world, 1), world.time_ms)
    assert node(world, 1).free_bytes == 90  # what the chain says of a node leaves what was seen of it


def test_a_score_stays_within_its_bounds(world: World) -> None:
    for change, scores in ((1_000, [6_000, 7_000, 8_000, 9_000, 10_000, 10_000]), (-1_000, [9_000, 8_000])):
        for score in scores:
            world.ok("node_statuses", message("NodeStatuses", nodes=[seen(1, score_change=change)]))
            assert node(world, 1).score == score


def changed(number: int, change: int) -> Any:
    return message("NodeStatuses", nodes=[seen(number, score_change=change)])


def test_of_several_meta_nodes_one_takes_or_gives_a_node_so_much_a_day(make: Make) -> None:
    world = make(metas=4)
    for change, score in ((-700, 4_300), (-700, 4_000), (-1_000, 4_000), (200, 4_200), (200, 4_300), (1_000, 4_300), (-1, 4_300)):
        assert world.ok("node_statuses", changed(1, change)) == b"", "what is beyond is cut off, and nothing is refused"
        assert node(world, 1).score == score
    world.ok("node_statuses", message("NodeStatuses", nodes=[seen(1, score_change=-9), seen(2, score_change=-9)]))
    assert [node(world, number).score for number in (1, 2)] == [4_300, 4_991], "each node has a bound of its own"
    assert node(world, 1).endpoint == "127.1.0.1:18081"
    world.ok("node_statuses", changed(1, -1_000), sender=2)
    assert node(world, 1).score == 3_300, "and so has each meta node"
    told = world.core.tables.get(TOLD, (1, meta(1)))
    assert told is not None
    assert (told.day, told.lost, told.gained) == (world.time_ms // DAY_MS, 1_000, 300)


def test_the_bound_of_a_score_is_anew_with_the_ledgers_next_day(make: Make) -> None:
    world = make(metas=4)
    world.ok("node_statuses", changed(1, -1_000))
    world.wait(DAY_MS - 1)
    world.ok("node_statuses", changed(1, -1_000))
    assert node(world, 1).score == 4_000
    world.wait(1)
    world.ok("node_statuses", changed(1, -1_000))
    assert node(world, 1).score == 3_000
    assert len(world.core.tables.scan(TOLD, limit=9)) == 1, "a row is of its last day"


def test_what_a_scores_own_bounds_leave_out_is_not_counted(make: Make) -> None:
    world = make(metas=4)
    for sender, day in ((sender, day) for day in range(2) for sender in (1, 2, 3)):
        world.ok("node_statuses", changed(1, -1_000 if sender < 3 else -900), sender=sender)
        if (sender, day) == (3, 0):
            world.wait(DAY_MS)
    assert node(world, 1).score == 0
    told = world.core.tables.get(TOLD, (1, meta(3)))
    assert told is not None
    assert told.lost == 100


def test_with_fewer_than_four_meta_nodes_one_alone_says_what_a_score_is(make: Make) -> None:
    for metas in (1, 3):
        world = make(metas=metas)
        for score in (4_000, 3_000, 2_000):
            world.ok("node_statuses", changed(1, -1_000))
            assert node(world, 1).score == score
        assert world.core.tables.scan(TOLD, limit=9) == []


def test_the_bytes_of_each_sender_are_counted_by_day_whatever_became_of_them(make: Make) -> None:
    world = make(metas=2)
    raw = sign_operation(world.operation("node_statuses", changed(1, 1)), meta_key(1))

    def sent(number: int) -> tuple[int, int]:
        row = world.core.tables.get(SENT, (meta(number),))
        assert row is not None
        return row.day, row.size_bytes

    day, before = sent(1)
    assert world.submit(raw).code == 0
    assert world.submit(raw).code == refusals.USED_NONCE
    assert sent(1) == (day, before + 2 * len(raw)), "it is in the log twice, though it has used its nonce once"
    world.refused(refusals.UNKNOWN_NODE, "node_statuses", changed(77, 1))
    assert sent(1)[1] > before + 2 * len(raw)
    late = sign_operation(world.operation("node_statuses", changed(1, 1), until_s=world.time_ms // 1_000 - 1), meta_key(1))
    forged = sign_operation(world.operation("node_statuses", changed(1, 1)), meta_key(2))
    before = sent(1)[1]
    assert [world.submit(one).code for one in (late, forged)] == [refusals.OUT_OF_TIME, refusals.BAD_SIGNATURE]
    assert sent(1) == (day, before + len(late)), "what it has not signed is not its own"
    world.wait(DAY_MS)
    world.ok("tick", message("Tick"), sender=2)
    last = sent(1)
    world.ok("node_statuses", changed(1, 1))
    assert (last[0], sent(1)[0], sent(2)[0]) == (day, day + 1, day + 1)
    assert sent(1)[1] < 2 * len(raw)


def test_statuses_of_another_form_are_refused(world: World) -> None:
    for code, nodes in [
        (refusals.UNKNOWN_NODE, [seen(4)]),
        (refusals.UNKNOWN_NODE, [seen(0)]),
        (refusals.BAD_FORM, [seen(2), seen(1)]),
        (refusals.BAD_FORM, [seen(1, endpoint="x" * 129)]),
        (refusals.BAD_FORM, [seen(1, endpoint="a\0b")]),
        (refusals.BAD_FORM, [seen(1, prefix=b"1234")]),
        (refusals.BAD_FORM, [seen(1, free_bytes=101)]),
        (refusals.BAD_FORM, [seen(1, capacity_bytes=1 << 63)]),
        (refusals.BAD_FORM, [seen(1, maintenance_until_s=-1)]),
        (refusals.BAD_FORM, [seen(1, score_change=1_001)]),
        (refusals.BAD_FORM, []),
    ]:
        world.refused(code, "node_statuses", message("NodeStatuses", nodes=nodes))


def test_the_readme_lists_every_refusal_by_its_number() -> None:
    listed = dict(re.findall(r"^\| (\d+) \| ([A-Z_]+) \|", README.read_text(), re.MULTILINE))
    wanted = {str(value): name for name, value in vars(refusals).items() if name.isupper()}
    assert listed == wanted
