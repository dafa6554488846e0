"""Epochs: what is reported, carried over, void."""

from __future__ import annotations

from typing import Any

import pytest

from modules.settlement.commitment import Line, line_bytes
from modules.settlement.trees import EMPTY_ROOT, plain_root
from sds_node.meta.rules import epochs, refusals, tick
from sds_node.meta.rules.invariants import gap_noz, walk
from sds_node.meta.rules.tables import CLOSED, EARNED, EPOCH, EPOCH_LINE, MATURE, REPORTED, VOID
from tests.sds_node.rules.support import HOUR_MS, PARAMS, Make, World, event, granted, message, owner


def close(number: int = 1) -> Any:
    return message("CloseEpoch", epoch=number)


def epoch(world: World, number: int = 1) -> Any:
    row = world.core.tables.get(EPOCH, (number,))
    assert row is not None
    return row


def report(world: World, number: int = 1, *, lines: list[Line] | None = None, **changes: Any) -> Any:
    """The report of an epoch as the ledger closed it, or with lines of its own."""
    row = world.core.tables.get(EPOCH, (number,))
    fields: dict[str, Any] = {"epoch": number, "reference": "sc1" + "ab" * 32, "maturity_epoch": number + 2, "lines_root": EMPTY_ROOT}
    if row is not None:
        fields |= {"lines_root": row.lines_root, "lines_count": row.lines_count, "promo_expired_noz": str(row.promo_expired_noz or "")}
    if lines is not None:
        given = [message("ReportedLine", wallet=one.wallet, traffic_class=one.traffic_class, fund=one.fund, noz=str(one.noz)) for one in lines]
        fields |= {"lines_root": plain_root([line_bytes(one) for one in lines]), "lines_count": len(lines), "lines": given}
    return event(report=message("ObservedReport", **fields | changes))


def earn(world: World, **amounts: int) -> None:
    """owner1=5: five noz for owner 1, storage, paid."""
    lease = world.lease(10**6)
    credits = sorted((owner(int(name[5:])), 1, 1, noz) for name, noz in amounts.items())
    world.settle_window({lease: sum(amounts.values())}, credits)


def earned(world: World) -> dict[bytes, int]:
    return {row.wallet: row.noz for row in walk(world.core.tables, EARNED)}


def test_a_closed_epoch_has_the_lines_of_the_commitment_and_their_root(world: World) -> None:
    ends_s = world.time_ms // 1_000 + 86_400
    world.observe(granted(1, 1_000, ends_s))
    earn(world, owner1=5, owner2=7)
    promo = world.lease(100, fund=2)
    world.settle_window({promo: 9}, [(owner(1), 2, 2, 9)])
    root = world.ok("close_epoch", close())
    lines = sorted([Line(owner(1), 1, 1, 5), Line(owner(1), 2, 2, 9), Line(owner(2), 1, 1, 7)])
    assert root == plain_root([line_bytes(line) for line in lines])
    assert [Line(*row[1:]) for row in walk(world.core.tables, EPOCH_LINE)] == lines
    assert (epoch(world).status, epoch(world).noz, epoch(world).promo_noz, epoch(world).lines_count) == (CLOSED, 21, 9, 3)
    assert sum(row.noz for row in walk(world.core.tables, EARNED)) == 21  # nothing leaves before the chain has it


def test_volumes_leave_earned_when_the_chains_report_is_observed_and_not_before(world: World) -> None:
    earn(world, owner1=5, owner2=7)
    world.ok("close_epoch", close())
    earn(world, owner2=100, owner3=1)
    world.outstanding = 10**12 - 12
    world.observe(report(world))
    assert earned(world) == {owner(2): 100, owner(3): 1}
    assert (epoch(world).status, world.state.reported_epoch, world.state.owed_noz) == (REPORTED, 1, 10**12 - 12)
    assert gap_noz(world.core.tables) == 0


def test_expired_promo_is_reported_with_the_epoch(world: World) -> None:
    world.observe(granted(1, 30, 1))
    world.ok("close_epoch", close())
    world.observe(granted(1, 4, 1))
    world.observe(report(world))
    assert (world.state.promo_expired_noz, world.state.promo_owed_noz, epoch(world).promo_expired_noz) == (4, 4, 30)


def test_the_wallets_that_wait_longest_come_first_and_the_rest_is_carried_over(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(epochs, "MAX_REPORT_WALLETS", 2)
    monkeypatch.setattr(epochs, "_PAGE", 1)
    for number in (3, 1, 2):
        earn(world, **{f"owner{number}": 10})
        world.wait(1_000)
    earn(world, owner3=1)
    world.ok("close_epoch", close())
    assert sorted(row.wallet for row in walk(world.core.tables, EPOCH_LINE)) == sorted([owner(3), owner(1)])
    world.observe(report(world))
    earn(world, owner1=5)
    world.wait(HOUR_MS)
    world.ok("close_epoch", close(2))
    assert {row.wallet: row.noz for row in walk(world.core.tables, EPOCH_LINE, (2,))} == {owner(2): 10, owner(1): 5}


def test_the_governed_number_of_wallets_bounds_a_report(make: Make) -> None:

    world = make()
    world.observe(event(params=message("LedgerParams", **PARAMS | {"max_wallets_per_report": 1})))
    earn(world, owner1=5, owner2=7)
    world.ok("close_epoch", close())
    assert epoch(world).lines_count == 1


def test_an_epoch_is_closed_in_turn_and_not_before_its_length(world: World) -> None:
    for number in (0, 2):
        world.refused(refusals.WRONG_EPOCH, "close_epoch", close(number))
    world.ok("close_epoch", close())
    world.refused(refusals.TOO_EARLY, "close_epoch", close())
    world.observe(report(world))
    world.refused(refusals.TOO_EARLY, "close_epoch", close(2))
    world.wait(600_000)
    world.ok("close_epoch", close(2))


def test_an_epoch_that_was_not_reported_is_closed_again_with_what_is_earned_now(world: World) -> None:
    earn(world, owner1=5)
    world.ok("close_epoch", close())
    world.wait(600_000)
    earn(world, owner1=2, owner2=1)
    world.ok("close_epoch", close())
    assert epoch(world).noz == 8
    world.observe(report(world))
    assert earned(world) == {}


def test_a_report_that_the_ledger_did_not_close_is_observed_with_its_lines(world: World) -> None:
    earn(world, owner1=5, owner2=7)
    world.ok("close_epoch", close())
    lines = sorted([Line(owner(1), 1, 1, 3), Line(owner(2), 1, 1, 7)])
    bare = report(world, lines=lines)
    del bare.report.lines[:]
    wrong = report(world, lines=lines, lines_count=3)
    for one in (bare, wrong):
        world.refused(refusals.UNKNOWN_LINES, "observe", world.signed(world.observation(one)))
    world.observe(report(world, lines=lines))
    assert earned(world) == {owner(1): 2}
    assert (epoch(world).noz, world.state.shortfall_noz) == (10, 0)


def test_what_was_reported_beyond_what_was_earned_is_kept_as_shortfall(world: World) -> None:
    earn(world, owner1=5)
    lines = [Line(owner(1), 1, 1, 8)]
    world.outstanding = 10**12 - 8
    world.observe(report(world, lines=lines, promo_expired_noz=""))
    assert (earned(world), world.state.shortfall_noz, gap_noz(world.core.tables)) == ({}, 3, -3)


def test_a_report_beyond_all_that_was_sold_is_observed_and_leaves_nothing_owed(world: World) -> None:
    world.observe(granted(1, 30, world.time_ms // 1_000 + 86_400))
    earn(world, owner1=5)
    world.observe(report(world, lines=[Line(owner(1), 1, 1, 10**12 + 7), Line(owner(1), 1, 2, 31)]))
    assert earned(world) == {}
    # What the wallet and its lease still have is beyond what the chain owes.
    assert (world.state.owed_noz, world.state.promo_owed_noz) == (0, 0)
    assert (world.state.shortfall_noz, world.state.promo_shortfall_noz) == (10**12 - 5 + 30, 30)
    world.observe(event(voided=message("VoidedEpoch", epoch=1)))
    assert [(row.fund, row.noz) for row in walk(world.core.tables, EARNED)] == [(1, 10**12 + 7), (2, 31)]
    assert world.state.owed_noz == 10**12 + 7 + 31


def test_epochs_without_a_length_may_be_reported_with_gaps(world: World) -> None:
    world.observe(event(params=message("LedgerParams", **PARAMS | {"epoch_duration_s": 0})))
    earn(world, owner1=5, owner2=7)
    world.ok("close_epoch", close())
    world.observe(report(world, 4, lines=[Line(owner(1), 1, 1, 5)]))
    assert (world.state.reported_epoch, earned(world)) == (4, {owner(2): 7})
    assert world.core.tables.get(EPOCH, (1,)) is None
    assert [row.epoch for row in walk(world.core.tables, EPOCH_LINE)] == [4]
    world.refused(refusals.WRONG_EPOCH, "observe", world.signed(world.observation(report(world, 4, lines=[Line(owner(1), 1, 1, 5)]))))
    world.ok("close_epoch", close(5))
    world.observe(report(world, 5))
    assert (world.state.reported_epoch, earned(world)) == (5, {})


def test_an_epoch_is_closed_again_without_wallets_whose_receipts_are_lost(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(epochs, "MAX_REPORT_WALLETS", 2)
    for number in (1, 2, 3, 4):
        earn(world, **{f"owner{number}": 10})
        world.wait(1_000)
    world.ok("close_epoch", close())
    assert {row.wallet for row in walk(world.core.tables, EPOCH_LINE)} == {owner(1), owner(2)}
    world.wait(600_000)
    world.ok("close_epoch", message("CloseEpoch", epoch=1, without=sorted([owner(1), owner(3), owner(9)])))
    assert {row.wallet for row in walk(world.core.tables, EPOCH_LINE)} == {owner(2), owner(4)}
    assert epoch(world).noz == 20
    world.observe(report(world))
    assert earned(world) == {owner(1): 10, owner(3): 10}
    world.wait(600_000)
    world.ok("close_epoch", close(2))
    world.observe(report(world, 2))
    assert earned(world) == {}


def test_wallets_that_an_epoch_is_closed_without_are_a_bounded_ordered_list(world: World) -> None:
    many = sorted({owner(number) for number in range(1_001)})
    two = sorted([owner(1), owner(2)])
    for without in (many, two[::-1], [owner(1), owner(1)], [b"x"], [b""]):
        world.refused(refusals.BAD_FORM, "close_epoch", message("CloseEpoch", epoch=1, without=without))
    world.ok("close_epoch", message("CloseEpoch", epoch=1, without=many[:1_000]))


def test_a_void_epoch_puts_its_volumes_back_and_they_are_reported_again(world: World) -> None:
    world.observe(granted(1, 30, 1))
    earn(world, owner1=5, owner2=7)
    world.ok("close_epoch", close())
    world.observe(report(world))
    earn(world, owner2=1)
    world.observe(event(voided=message("VoidedEpoch", epoch=1)))
    assert earned(world) == {owner(1): 5, owner(2): 8}
    assert (epoch(world).status, world.state.owed_noz, world.state.promo_expired_noz) == (VOID, 10**12 + 30, 30)
    world.refused(refusals.WRONG_EPOCH, "observe", world.signed(world.observation(event(voided=message("VoidedEpoch", epoch=1)))))
    world.wait(600_000)
    world.ok("close_epoch", close(2))
    world.observe(report(world, 2))
    assert (earned(world), world.state.owed_noz) == ({}, 10**12 - 13)


def test_a_void_epoch_from_before_the_founding_stops_nothing(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    founding = World.founding
    monkeypatch.setattr(World, "founding", lambda self: founding(self, reported_epoch=5))
    world = make()
    world.observe(event(voided=message("VoidedEpoch", epoch=5)))
    assert world.state.owed_noz == 10**12
    for number in (0, 6):
        world.refused(refusals.WRONG_EPOCH, "observe", world.signed(world.observation(event(voided=message("VoidedEpoch", epoch=number)))))


def test_the_lines_of_a_mature_epoch_are_forgotten_bit_by_bit_and_it_cannot_be_void(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tick, "WORK", 2)
    earn(world, owner1=5, owner2=7, owner3=9, owner4=1, owner5=2)
    for number in (1, 2, 3):
        world.ok("close_epoch", close(number))
        world.observe(report(world, number))
        world.wait(600_000)
    assert [epoch(world, number).status for number in (1, 2, 3)] == [MATURE, REPORTED, REPORTED]
    for left in (3, 1, 0):
        world.tick()
        assert len(list(walk(world.core.tables, EPOCH_LINE))) == left
    for number in (1, 4, 1 << 62):
        world.refused(refusals.WRONG_EPOCH, "observe", world.signed(world.observation(event(voided=message("VoidedEpoch", epoch=number)))))


def test_reports_of_another_form_are_refused(world: World) -> None:
    earn(world, owner1=5)
    world.ok("close_epoch", close())
    line = Line(owner(1), 1, 1, 5)
    for code, made in [
        (refusals.WRONG_EPOCH, report(world, epoch=0)),
        (refusals.BAD_FORM, report(world, epoch=(1 << 63) - 1)),
        (refusals.BAD_FORM, report(world, reference="x" * 129)),
        (refusals.BAD_FORM, report(world, reference="a\nb")),
        (refusals.BAD_FORM, report(world, lines_root=b"x")),
        (refusals.BAD_FORM, report(world, promo_expired_noz="-1")),
        (refusals.BAD_FORM, report(world, maturity_epoch=1 << 63)),
        (refusals.BAD_FORM, report(world, lines=[line, line])),
        (refusals.BAD_FORM, report(world, lines=[line._replace(traffic_class=5)])),
        (refusals.BAD_FORM, report(world, lines=[line._replace(fund=0)])),
        (refusals.BAD_FORM, report(world, lines=[line], lines_root=bytes(32), lines_count=1 << 31, epoch=1, reference="\x7f")),
    ]:
        world.refused(code, "observe", world.signed(world.observation(made)))
