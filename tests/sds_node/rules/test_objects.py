"""Objects, windows, releases and moves."""

from __future__ import annotations

import pytest

from sds_node.meta.ledger.log import MAX_RESULT_BYTES
from sds_node.meta.rules import refusals, releases
from sds_node.meta.rules.invariants import check, walk
from sds_node.meta.rules.leases import TAKEOVER_S
from sds_node.meta.rules.places import FAILED_OF_NODE, failed_of
from sds_node.meta.rules.releases import Settled, settled_of
from sds_node.meta.rules.tables import COMMITTED, EARNED, HELD, KEPT, LEASE, MOVED, SEGMENT
from sds_node.meta.rules.wire import MAX_RELEASED_SHARES, MAX_RESULTS, MAX_SEGMENT
from sds_node.requests import Action
from sds_node.schemes import SEGMENT_BYTES, released_noz
from tests.sds_node.rules.support import DAY_MS, HASH, HOUR_MS, Make, World, lookup, message, meta, new_object, owner, packed, record
from tests.serials import own_serial

MIB = 1 << 20


def earned(world: World) -> dict[bytes, int]:
    sums: dict[bytes, int] = {}
    for row in walk(world.core.tables, EARNED):
        sums[row.wallet] = sums.get(row.wallet, 0) + row.noz
    return sums


def left(world: World, lease: bytes) -> int:
    row = world.core.tables.get(LEASE, (lease,))
    assert row is not None
    return row.noz


def test_a_commit_moves_the_escrow_of_each_confirmed_share_from_the_lease_to_the_object(world: World) -> None:
    lease = world.lease(10**9)
    row = world.put(lease, 1, MIB + 1, [1, 2, 3])
    half = MIB + 1 - (MIB + 1) // 2
    assert (row.state, row.escrow_noz, row.term_noz) == (KEPT, 3 * half, 3 * half)
    assert left(world, lease) == 10**9 - 3 * half
    assert [(one.node, one.entries) for one in walk(world.core.tables, HELD)] == [(1, 1), (2, 1), (3, 1)]


def test_shares_that_were_not_confirmed_cost_nothing(make: Make) -> None:
    world = make(nodes=10)
    lease = world.lease(10**9)
    row = world.put(lease, 1, MIB, [1, 2, 3, 4, 5, 6, 7, 8, 9, 0], 5)
    share = -(-MIB // 80) * 16
    assert row.escrow_noz == 9 * (share - share // 2)
    assert 10**9 - left(world, lease) == row.escrow_noz


def test_an_empty_file_has_no_segments_and_is_kept(world: World) -> None:
    row = world.put(world.lease(1), 1, 0, [0, 0, 0])
    assert (row.state, row.segments, row.escrow_noz) == (KEPT, 0, 0)


def test_a_tenth_of_what_was_reserved_and_not_used_goes_to_the_common_repair_fund(world: World) -> None:
    lease = world.lease(1_000)
    world.ok("commit", message("Commit", lease_id=lease, unused_noz=101))
    assert (left(world, lease), world.state.repair_paid_noz) == (989, 11)
    world.ok("commit", message("Commit", lease_id=lease, unused_noz=10**9))
    assert (left(world, lease), world.state.repair_paid_noz) == (0, 1_000)  # no more than it has


def test_an_object_larger_than_an_operation_comes_in_parts_and_is_a_file_with_the_last(world: World) -> None:
    lease = world.lease(10**9)
    whole = new_object(7, 2 * SEGMENT_BYTES + 5, [1, 2, 3])
    first, rest = new_object(7, 2 * SEGMENT_BYTES + 5, [1, 2, 3]), new_object(7, 2 * SEGMENT_BYTES + 5, [1, 2, 3], first_segment=1)
    del first.segments[1:]
    del rest.segments[:1]
    world.ok("commit", message("Commit", lease_id=lease, objects=[first]))
    other = world.put(lease, 8, 10, [1, 2, 3])
    assert other.first_segment == 4  # the numbers between are the open object's
    assert world.wallet().files == 1
    world.refused(refusals.BAD_OBJECT, "commit", message("Commit", lease_id=lease, objects=[whole]))
    world.ok("commit", message("Commit", lease_id=lease, objects=[rest]))
    row = world.object(lookup(7))
    assert (row.state, row.committed, row.first_segment) == (KEPT, 3, 1)
    world.refused(refusals.BAD_OBJECT, "commit", message("Commit", lease_id=lease, objects=[rest]))


def test_an_object_that_its_lease_never_completed_ends_with_it(world: World) -> None:
    lease = world.lease(10**9)
    part = new_object(7, 2 * SEGMENT_BYTES, [1, 2, 3])
    del part.segments[1:]
    world.ok("commit", message("Commit", lease_id=lease, objects=[part]))
    assert world.core.tables.scan(SEGMENT, limit=1)
    world.wait(HOUR_MS + 600_000)
    assert world.tick() > 2
    assert world.core.tables.scan(SEGMENT, limit=1) == []
    assert world.wallet().paid_noz == 10**12


def test_after_its_leases_end_an_object_has_as_long_as_other_meta_nodes_wait_and_what_is_unused_longer(world: World) -> None:
    lease = world.lease(10**9)
    world.wait(HOUR_MS + TAKEOVER_S * 1_000 - 1)
    world.put(lease, 1, 1_000, [1, 2, 3])
    world.wait(1)
    world.refused(refusals.LEASE_TIME, "commit", message("Commit", lease_id=lease, objects=[new_object(2, 1_000, [1, 2, 3])]))
    world.ok("commit", message("Commit", lease_id=lease, unused_noz=10))


def test_nothing_is_stored_under_what_allows_to_read_alone(world: World) -> None:
    world.put(world.lease(10**6), 1, 10_000, [1, 2, 3])
    requests = [
        world.lease_request(1_000, grant=world.grant(actions=[1])),
        world.lease_request(1_000, download=world.ask(Action.DOWNLOAD, HASH)),
    ]
    for request in requests:
        lease = world.ok("take_lease", request)
        world.refused(refusals.NOT_ASKED, "commit", message("Commit", lease_id=lease, objects=[new_object(1, 10, [1, 2, 3])]))


def changed_segment(**changes: object) -> object:
    made = new_object(1, 100, [1, 2, 3])
    for name, value in changes.items():
        if name == "others":
            made.segments[0].others.extend(value)
        else:
            setattr(made.segments[0], name, value)
    return made


@pytest.mark.parametrize(
    ("code", "objects"),
    [
        (refusals.BAD_FORM, [new_object(1, 100, [1, 2, 3], root=b"short")]),
        (refusals.BAD_FORM, [new_object(1, 100, [1, 2, 3]), new_object(1, 100, [1, 2, 3])]),
        (refusals.BAD_FORM, [new_object(1, 100, [1, 2, 3], file=record(1, lookup_id=b"x"))]),
        (refusals.BAD_FORM, [new_object(1, 100, [1, 2, 3], file=record(1, name=b"x" * 1_281))]),
        (refusals.BAD_FORM, [new_object(1 << 63, 100, [1, 2, 3])]),
        (refusals.BAD_FORM, [changed_segment(root=b"short")]),
        (refusals.BAD_FORM, [changed_segment(nodes=packed([1, 2]))]),
        (refusals.BAD_FORM, [changed_segment(first_serial=b"short")]),
        (refusals.BAD_FORM, [changed_segment(others=[message("OtherSerial", index=3, serial=own_serial(meta(1), 1))])]),
        (refusals.BAD_FORM, [changed_segment(first_serial=b"\xff" * 16)]),
        (refusals.BAD_FORM, [changed_segment(first_serial=own_serial(meta(2), 1))]),
        (refusals.BAD_FORM, [changed_segment(first_serial=own_serial(meta(1), (1 << 64) - 2))]),
        (refusals.BAD_FORM, [changed_segment(others=[message("OtherSerial", index=1, serial=own_serial(meta(2), 1))])]),
        (refusals.BAD_OBJECT, [new_object(1, 100, [1, 2, 3], file_hash="no hash")]),
        (refusals.BAD_OBJECT, [new_object(1, 100, [1, 2, 3], data_shares=2)]),
        (refusals.BAD_OBJECT, [new_object(1, 100, [1, 2, 3], size_bytes=1 << 45, segments=[])]),
        (refusals.BAD_OBJECT, [new_object(1, 100, [1, 2, 3], segments=[])]),
        (refusals.BAD_OBJECT, [new_object(1, 100, [1, 2, 3], size_bytes=0)]),
        (refusals.BAD_OBJECT, [new_object(1, 100, [1, 2, 3], first_segment=1)]),
        (refusals.NOT_CONFIRMED, [new_object(1, 100, [1, 2, 0])]),
        (refusals.UNKNOWN_NODE, [new_object(1, 100, [1, 2, 4])]),
        (refusals.SAME_OWNER, [new_object(1, 100, [1, 2, 2])]),
        (refusals.NOT_ENOUGH, [new_object(1, 100_000, [1, 2, 3])]),
        (refusals.BAD_OBJECT, []),
    ],
)
def test_objects_of_another_form_or_in_places_that_are_none_are_refused(world: World, code: int, objects: list[object]) -> None:
    lease = world.lease(1_000)
    world.refused(code, "commit", message("Commit", lease_id=lease, objects=objects))
    assert left(world, lease) == 1_000


def test_a_serial_that_does_not_follow_the_first_is_kept_apart(world: World) -> None:
    new = changed_segment(others=[message("OtherSerial", index=1, serial=own_serial(meta(1), 7))])
    world.ok("commit", message("Commit", lease_id=world.lease(1_000), objects=[new]))
    assert [tuple(row) for row in walk(world.core.tables, MOVED)] == [(1, 1, own_serial(meta(1), 7))]


def test_a_nodes_list_goes_on_in_another_chunk_when_one_is_full(make: Make) -> None:
    world = make(is_checked=False)
    lease = world.lease(10**10)
    for begin in range(0, 2_000, 250):
        objects = [new_object(counter, 10, [1, 2, 3]) for counter in range(begin, begin + 250)]
        world.ok("commit", message("Commit", lease_id=lease, objects=objects))
    check(world.core.tables)
    assert [(row.first, row.last, row.entries) for row in walk(world.core.tables, HELD, (2,))] == [(1, 1_024, 1_024), (1_025, 2_000, 976)]


# --- windows ----------------------------------------------------------------------------------------------------------


def test_a_window_moves_what_receipts_say_to_beneficiaries_and_the_governed_share_to_the_common_fund(world: World) -> None:
    lease = world.lease(10_000)
    world.settle_window({lease: 1_000}, [(owner(1), 1, 1, 400), (owner(2), 1, 1, 600)])
    assert earned(world) == {owner(1): 400, owner(2): 600}
    assert (left(world, lease), world.state.repair_paid_noz) == (8_950, 50)


def test_storing_costs_its_bill_and_no_governed_share(world: World) -> None:
    lease = world.lease(10_000)
    window = world.window({lease: 1_000}, [(owner(1), 1, 1, 1_000)])
    window.leases[0].put_noz = 1_001
    world.refused(refusals.BAD_FORM, "window", window)
    window.leases[0].put_noz = 600
    world.ok("window", window)
    assert (left(world, lease), world.state.repair_paid_noz) == (10_000 - 1_000 - 20, 20)


def test_the_governed_share_is_taken_only_as_far_as_the_lease_has_it(world: World) -> None:
    lease = world.lease(1_010)
    world.settle_window({lease: 1_000}, [(owner(1), 1, 1, 1_000)])
    assert (left(world, lease), world.state.repair_paid_noz) == (0, 10)


def test_windows_are_refused_unless_leases_and_repair_funds_give_what_is_earned(world: World) -> None:
    lease = world.lease(10_000)
    repair = message("RepairDebit", fund=1, noz=5)
    cases = [
        (refusals.UNEVEN, world.window({lease: 1_000}, [(owner(1), 1, 1, 999)])),
        (refusals.UNEVEN, world.window({lease: 1_000}, [(owner(1), 2, 1, 1_000)])),
        (refusals.UNEVEN, world.window({}, [(owner(1), 1, 1, 1)])),
        (refusals.NOT_ENOUGH, world.window({lease: 10_001}, [(owner(1), 1, 1, 10_001)])),
        (refusals.NOT_ENOUGH, world.window({}, [(owner(1), 1, 1, 5)], [repair])),
        (refusals.UNKNOWN_LEASE, world.window({b"l" * 32: 1}, [(owner(1), 1, 1, 1)])),
        (refusals.UNKNOWN_FILE, world.window({}, [(owner(1), 1, 1, 5)], [message("RepairDebit", object_id=b"o" * 32, fund=1, noz=5)])),
        (refusals.WRONG_NUMBER, world.window({lease: 1}, [(owner(1), 1, 1, 1)], number=2)),
        (refusals.BAD_FORM, world.window({lease: 1}, [(owner(1), 1, 1, 1)], receipts_root=b"")),
        (refusals.BAD_FORM, world.window({lease: 1}, [(owner(1), 3, 1, 1)])),
        (refusals.BAD_FORM, world.window({lease: 1}, [(owner(1), 1, 5, 1)])),
        (refusals.BAD_FORM, world.window({lease: 1}, [(b"short", 1, 1, 1)])),
        (refusals.BAD_FORM, world.window({lease: 0}, [])),
        (refusals.BAD_FORM, world.window({lease: 2}, [(owner(1), 1, 1, 1), (owner(1), 1, 1, 1)])),
    ]
    for code, body in cases:
        world.refused(code, "window", body)
    world.settle_window({lease: 10_000}, [(owner(1), 1, 1, 10_000)])


def test_a_window_of_another_meta_nodes_lease_waits_for_its_end(make: Make) -> None:
    world = make(metas=2)
    lease = world.lease(1_000)
    world.refused(refusals.NOT_YOURS, "window", world.window({lease: 10}, [(owner(1), 1, 1, 10)], sender=2), 2)
    world.refused(refusals.NOT_YOURS, "commit", message("Commit", lease_id=lease, objects=[new_object(1, 10, [1, 2, 3])]), 2)
    world.wait(HOUR_MS)
    world.refused(refusals.NOT_YOURS, "window", world.window({lease: 10}, [(owner(1), 1, 1, 10)], sender=2), 2)
    world.wait(TAKEOVER_S * 1_000)
    world.settle_window({lease: 10}, [(owner(1), 1, 1, 10)], sender=2)
    world.wait(600_000)
    world.refused(refusals.LEASE_TIME, "window", world.window({lease: 10}, [(owner(1), 1, 1, 10)]))
    world.refused(refusals.LEASE_TIME, "commit", message("Commit", lease_id=lease, unused_noz=1))


# --- releases ---------------------------------------------------------------------------------------------------------


def days(one: Settled) -> tuple[int, int, int, int, bool]:
    return one.segment, one.index, one.first_day, one.last_day, one.has_passed


def test_a_passed_day_releases_its_part_of_the_escrow_to_the_nodes_beneficiary_once(world: World) -> None:
    row = world.put(world.lease(10**9), 1, 1_000_001, [1, 2, 3])
    escrow = row.escrow_noz // 3
    world.wait(DAY_MS)
    assert world.release({"node": 1}) == 1
    assert earned(world) == {owner(1): released_noz(escrow, 1)}
    assert world.release({"node": 1}) == 0
    assert world.object(lookup(1)).escrow_noz == row.escrow_noz - released_noz(escrow, 1)


def test_days_that_were_not_settled_are_released_with_the_next_answer(world: World) -> None:
    row = world.put(world.lease(10**9), 1, 1_000_001, [1, 2, 3])
    escrow = row.escrow_noz // 3
    world.wait(5 * DAY_MS + HOUR_MS)
    world.release({"node": 2})
    assert [days(one) for one in world.settled] == [(row.first_segment, 1, 1, 5, True)]
    one = world.settled[0]
    assert (one.node, one.beneficiary, one.fund, one.escrow_noz, one.term_days) == (2, owner(2), 1, escrow, 365)
    assert one.root == world.segment(row.first_segment).root
    assert earned(world) == {owner(2): sum(released_noz(escrow, day) for day in range(1, 6))}


def test_a_failed_share_gives_its_days_to_the_objects_repair_fund_and_the_others_of_the_node_are_paid(world: World) -> None:
    lease = world.lease(10**9)
    bad, good = world.put(lease, 1, 1_000_000, [1, 2, 3]), world.put(lease, 2, 2_000_000, [1, 2, 3])
    world.wait(10 * DAY_MS)
    assert world.release({"node": 1, "failed_segments": [bad.first_segment]}) == 2
    assert world.object(lookup(1)).repair_noz == 500_000 * 10 // 365
    assert earned(world) == {owner(1): 1_000_000 * 10 // 365}
    assert good.repair_noz == 0
    assert [days(one) for one in world.settled] == [(bad.first_segment, 0, 1, 10, False), (good.first_segment, 0, 1, 10, True)]
    assert not any(one.is_whole for one in world.settled)
    assert world.release({"node": 2, "has_failed": True}) == 2
    assert all(one.is_whole and not one.has_passed for one in world.settled)
    assert world.object(lookup(2)).repair_noz == 1_000_000 * 10 // 365
    world.wait(2 * DAY_MS)
    assert world.release({"node": 1}) == 2
    assert {(one.first_day, one.last_day) for one in world.settled} == {(11, 12)}


def test_of_days_that_waited_for_long_one_release_pays_so_many_and_the_next_the_others(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(releases, "MAX_RELEASED_DAYS", 15)
    lease = world.lease(10**9)
    one, two = (world.put(lease, counter, 1_000_001, [1, 2, 3]) for counter in (1, 2))
    world.wait(10 * DAY_MS)
    world.release({"node": 1}, {"node": 2, "has_failed": True})
    numbers = one.first_segment, two.first_segment
    assert [(days(each)[0], *days(each)[2:]) for each in world.settled] == [
        (numbers[0], 1, 10, True), (numbers[1], 1, 5, True), (numbers[0], 1, 10, False), (numbers[1], 1, 10, False),
    ]  # fmt: skip
    world.release({"node": 1})
    assert [(days(each)[0], *days(each)[2:]) for each in world.settled] == [(numbers[1], 6, 10, True)]
    assert earned(world) == {owner(1): 2 * sum(released_noz(one.escrow_noz // 3, day) for day in range(1, 11))}


def test_a_share_that_failed_by_name_is_noted_until_it_passes_is_elsewhere_or_gone(make: Make) -> None:
    world = make(nodes=4)
    lease = world.lease(10**9)
    one, two, three = (world.put(lease, counter, 1_000_000, [1, 2, 3]).first_segment for counter in (1, 2, 3))
    world.wait(DAY_MS)
    world.release({"node": 1, "failed_segments": [one, two, three]}, {"node": 2, "has_failed": True})
    assert failed_of(world.core.tables, 1) == {one: 0, two: 0, three: 0}
    assert failed_of(world.core.tables, 2) == {}  # it was silent: nothing is said of any of its shares
    world.release({"node": 1, "first_segment": one, "last_segment": one})
    assert one in failed_of(world.core.tables, 1), "no day has passed, so nothing was settled"
    world.wait(DAY_MS)
    world.release({"node": 1, "first_segment": one, "last_segment": one})
    assert failed_of(world.core.tables, 1) == {two: 0, three: 0}
    world.ok("move", move(two, 0, 1, 4))
    assert (failed_of(world.core.tables, 1), failed_of(world.core.tables, 4)) == ({three: 0}, {})
    world.ok("wallet_order", world.order(delete=message("DeleteFiles", lookup_ids=[lookup(3)])))
    world.wait(8 * DAY_MS)
    world.tick()
    assert failed_of(world.core.tables, 1) == {}
    check(world.core.tables)


def test_of_a_node_only_so_many_failed_shares_are_noted(world: World) -> None:
    lease = world.lease(10**12)
    per_object = 3
    for counter in range(1, FAILED_OF_NODE // per_object + 3):
        world.put(lease, counter, per_object * SEGMENT_BYTES, [1, 2, 3])
    world.wait(DAY_MS)
    numbers = [segment.number for segment in walk(world.core.tables, SEGMENT)]
    assert len(numbers) > FAILED_OF_NODE
    world.release({"node": 1, "failed_segments": numbers})
    assert list(failed_of(world.core.tables, 1)) == numbers[:FAILED_OF_NODE]
    check(world.core.tables)


def test_the_largest_release_fits_a_result_and_older_ones_are_told_apart() -> None:
    share = Settled(MAX_SEGMENT, 255, 1, 65_535, True, 1, owner(1), 2, (1 << 63) - 1, 65_535, bytes(range(32)))
    most = 1 + MAX_RESULTS * 26 + MAX_RELEASED_SHARES * len(share.packed())
    assert most <= MAX_RESULT_BYTES
    assert settled_of(b"\x01" + (1).to_bytes(4, "big") + owner(1) + b"\x00\x01" + share.packed()) == [share]
    assert settled_of(bytes(6) + b"\x00\x00\x01\x00\x02\x01") is None
    assert settled_of(b"") == []


def test_all_days_of_all_shares_release_the_whole_escrow(world: World) -> None:
    world.put(world.lease(10**9), 1, 1_000_003, [1, 2, 3])
    for _ in range(8):
        world.wait(50 * DAY_MS)
        for node in (1, 2, 3):
            world.release({"node": node})
    assert world.object(lookup(1)).escrow_noz == 0


def test_releases_of_unknown_nodes_and_segments_are_refused(world: World) -> None:
    world.put(world.lease(10**9), 1, 1_000_001, [1, 2, 3])
    shown = {"number": 1, "answers_root": bytes(32), "batch_hash": bytes(32)}
    results = [
        (refusals.UNKNOWN_NODE, {"node": 9, "last_segment": 5}),
        (refusals.UNKNOWN_SEGMENT, {"node": 1, "last_segment": 5, "failed_segments": [4]}),
        (refusals.BAD_FORM, {"node": 1, "first_segment": 5, "last_segment": 4}),
        (refusals.BAD_FORM, {"node": 1, "last_segment": 1 << 60}),
        (refusals.BAD_FORM, {"node": 1, "last_segment": 5, "failed_segments": [1], "has_failed": True}),
        (refusals.BAD_FORM, {"node": 1, "last_segment": 5, "failed_segments": [1, 1]}),
    ]
    for code, one in results:
        world.refused(code, "release", message("Release", results=[message("NodeResult", **one)], **shown))
    world.refused(refusals.BAD_FORM, "release", message("Release", **shown))
    world.refused(refusals.WRONG_NUMBER, "release", message("Release", results=[message("NodeResult", node=1)], **shown | {"number": 3}))


# --- moves ------------------------------------------------------------------------------------------------------------


def move(segment: int, index: int, there: int, to: int, /, **changes: object) -> object:
    share = message(
        "MovedShare", **{"segment": segment, "index": index, "from_node": there, "to_node": to, "serial": own_serial(meta(1), 8)} | changes
    )
    return message("Move", shares=[share])


def test_a_moved_share_is_at_the_other_node_under_its_serial_and_takes_the_rest_of_the_escrow_along(make: Make) -> None:
    world = make(nodes=4)
    row = world.put(world.lease(10**9), 1, 1_000_000, [1, 2, 3])
    world.wait(100 * DAY_MS)
    world.ok("move", move(1, 1, 2, 4))
    assert world.segment(1).nodes == packed([1, 4, 3])
    assert [tuple(one) for one in walk(world.core.tables, MOVED)] == [(1, 1, own_serial(meta(1), 8))]
    after = world.object(lookup(1))
    assert (after.repair_noz, after.escrow_noz) == (500_000 * 100 // 365, row.escrow_noz - 500_000 * 100 // 365)  # nobody proved those days
    world.wait(DAY_MS)
    world.release({"node": 4})
    assert earned(world) == {owner(4): released_noz(500_000, 101)}


def test_of_a_share_that_moves_early_the_ledger_keeps_the_serial_that_the_commit_had(make: Make) -> None:
    """As long as its receipt may come, whose lease is not settled then; and only the first time."""
    world = make(nodes=13)
    lease = world.lease(10**9)
    world.put(lease, 1, 4 * MIB, [1, 2, 3, 4, 5, 6, 7, 8, 9, 0], 5)
    world.ok("commit", message("Commit", lease_id=lease, unused_noz=10**8))
    first = world.segment(1).first_serial
    for index, there, to in ((0, 1, 11), (9, 0, 12), (0, 11, 13)):
        world.ok("move", move(1, index, there, to))
    kept = [(1, 0, first), (1, 9, b"")]
    assert [tuple(one) for one in walk(world.core.tables, COMMITTED)] == kept
    changed = changed_segment(others=[message("OtherSerial", index=1, serial=own_serial(meta(1), 7))])
    changed.counter = 2
    changed.file.lookup_id = lookup(2)
    world.ok("commit", message("Commit", lease_id=lease, objects=[changed]))
    number = world.object(lookup(2)).first_segment
    world.ok("move", move(number, 1, 2, 11))
    kept.append((number, 1, own_serial(meta(1), 7)))
    assert [tuple(one) for one in walk(world.core.tables, COMMITTED)] == kept
    world.ok("settle_leases", message("SettleLeases", lease_ids=[lease]))
    world.ok("move", move(number, 2, 3, 12))
    assert [tuple(one) for one in walk(world.core.tables, COMMITTED)] == kept
    world.ok("wallet_order", world.order(1, delete=message("DeleteFiles", lookup_ids=sorted((lookup(1), lookup(2))))))
    world.wait(8 * DAY_MS)
    world.tick()
    assert [*walk(world.core.tables, COMMITTED)] == [*walk(world.core.tables, MOVED)] == []


def test_a_share_that_was_nowhere_is_made_and_endowed_from_the_repair_fund(make: Make) -> None:
    world = make(nodes=10)
    lease = world.lease(10**9)
    row = world.put(lease, 1, 4 * MIB, [1, 2, 3, 4, 5, 6, 7, 8, 9, 0], 5)
    each = row.escrow_noz // 9
    world.refused(refusals.NOT_ENOUGH, "move", move(1, 9, 0, 10))
    world.ok("commit", message("Commit", lease_id=lease, unused_noz=10 * each))
    world.wait(DAY_MS)
    world.ok("move", move(1, 9, 0, 10))
    after = world.object(lookup(1))
    assert after.escrow_noz == row.escrow_noz + each - released_noz(each, 1)
    assert world.state.repair_paid_noz == each - (each - released_noz(each, 1))


def test_a_repair_is_paid_by_receipts_out_of_the_objects_fund(world: World) -> None:
    row = world.put(world.lease(10**9), 1, 1_000_000, [1, 2, 3])
    world.wait(10 * DAY_MS)
    world.release({"node": 1, "has_failed": True})
    fund = 500_000 * 10 // 365
    debit = message("RepairDebit", object_id=row.id, fund=1, noz=fund)
    world.settle_window({}, [(owner(2), 1, 1, fund)], [debit])
    assert (world.object(lookup(1)).repair_noz, earned(world)) == (0, {owner(2): fund})
    world.refused(refusals.NOT_ENOUGH, "window", world.window({}, [(owner(2), 1, 1, fund)], [debit]))
    other = message("RepairDebit", object_id=row.id, fund=2, noz=fund)
    world.refused(refusals.BAD_FORM, "window", world.window({}, [(owner(2), 2, 1, fund)], [other]))


@pytest.mark.parametrize(
    ("code", "change"),
    [
        (refusals.UNKNOWN_SEGMENT, {"segment": 2}),
        (refusals.UNKNOWN_SEGMENT, {"segment": (1 << 64) - 1}),
        (refusals.BAD_FORM, {"index": 3}),
        (refusals.BAD_FORM, {"serial": b""}),
        (refusals.BAD_FORM, {"serial": own_serial(meta(2), 8)}),
        (refusals.WRONG_STATE, {"from_node": 2}),
        (refusals.UNKNOWN_NODE, {"to_node": 9}),
        (refusals.UNKNOWN_NODE, {"to_node": 0}),
        (refusals.SAME_OWNER, {"to_node": 1}),
        (refusals.SAME_OWNER, {"to_node": 2}),
    ],
)
def test_moves_that_do_not_fit_what_is_there_are_refused(make: Make, code: int, change: dict[str, object]) -> None:
    world = make(nodes=4)
    world.put(world.lease(10**9), 1, 1_000_000, [1, 2, 3])
    world.refused(code, "move", move(1, 0, 1, 4, **change))


def test_shares_of_what_is_no_longer_stored_do_not_move(make: Make) -> None:
    world = make(nodes=4)
    lease = world.lease(10**9)
    part = new_object(1, 2 * SEGMENT_BYTES, [1, 2, 3])
    del part.segments[1:]
    world.ok("commit", message("Commit", lease_id=lease, objects=[part]))
    world.refused(refusals.WRONG_STATE, "move", move(1, 0, 1, 4))
