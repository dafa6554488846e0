"""Serials of order limits: a meta node's own, no two alike, and none beyond what a start may give."""

from __future__ import annotations

from concurrent.futures import Future
from itertools import pairwise

import nacl.signing
import pytest

from modules.settlement.leaves import serial_prefix
from sds_node.meta.users.limits import COUNTERS, DRAWN_AHEAD, MAX_BOOT, REPAIR_FROM, LimitSigner, SerialsUsedUp

KEY = nacl.signing.SigningKey(b"\x05" * 32)
META = bytes(range(20))
OTHER = bytes(range(19)) + b"\xff"


def signer(address: bytes = META, boot: int = 7, counters: range = range(REPAIR_FROM)) -> LimitSigner:
    return LimitSigner("stratos-test-1", address, KEY, boot, counters)


def raw(serial: int) -> bytes:
    return serial.to_bytes(16, "big")


def test_a_serial_is_its_meta_nodes_prefix_the_boot_and_a_counter() -> None:
    made = signer()
    first, then = made.serials(10), made.serials(1)
    assert (raw(first), raw(then)) == (serial_prefix(META) + bytes([0, 0, 0, 7, 0, 0, 0, 0]), serial_prefix(META) + bytes([0, 0, 0, 7, 0, 0, 0, 10]))
    assert len(serial_prefix(META)) == 8
    assert serial_prefix(META) != serial_prefix(OTHER)
    assert raw(signer(OTHER).serials(1))[8:] == raw(first)[8:]


def test_uploads_repair_and_other_boots_have_no_serial_in_common() -> None:
    ranges = [
        (boot, part.serials(len(counters)), len(counters))
        for boot in (6, 7)
        for counters in (range(REPAIR_FROM), range(REPAIR_FROM, COUNTERS))
        for part in (signer(boot=boot, counters=counters),)
    ]
    ends = [(first, first + count) for _, first, count in sorted(ranges, key=lambda one: one[1])]
    assert all(left[1] <= right[0] for left, right in pairwise(ends))


def test_a_start_that_has_given_all_its_serials_gives_no_more() -> None:
    made = signer(counters=range(5))
    made.serials(3)
    with pytest.raises(SerialsUsedUp, match="start it again"):
        made.serials(3)
    assert raw(made.serials(2))[-1] == 3
    with pytest.raises(SerialsUsedUp):
        made.serials(1)


def test_a_long_run_draws_another_boot_in_time_and_goes_on_with_it() -> None:
    drawn: list[Future[int]] = []

    def another() -> Future[int]:
        drawn.append(Future())
        return drawn[-1]

    made = LimitSigner("stratos-test-1", META, KEY, 7, range(10, 10 + 2 * DRAWN_AHEAD), another)
    made.serials(DRAWN_AHEAD)
    assert not drawn
    last = made.serials(DRAWN_AHEAD - 1)
    assert len(drawn) == 1
    with pytest.raises(SerialsUsedUp, match="try again"):
        made.serials(2)
    drawn[0].set_result(9)
    assert raw(last)[8:12] == bytes([0, 0, 0, 7])
    assert raw(made.serials(2)) == serial_prefix(META) + bytes([0, 0, 0, 9, 0, 0, 0, 10])
    assert len(drawn) == 1


def test_a_boot_that_cannot_be_drawn_is_told_and_drawn_again() -> None:
    drawn: list[Future[int]] = []

    def another() -> Future[int]:
        drawn.append(Future())
        return drawn[-1]

    made = LimitSigner("stratos-test-1", META, KEY, 7, range(2), another)
    made.serials(2)
    drawn[0].set_exception(OSError("the disk is full"))
    with pytest.raises(SerialsUsedUp, match="the disk is full"):
        made.serials(1)
    with pytest.raises(SerialsUsedUp, match="try again"):
        made.serials(1)
    drawn[1].set_result(8)
    assert raw(made.serials(1))[8:12] == bytes([0, 0, 0, 8])


@pytest.mark.parametrize(("boot", "counters"), [(-1, range(5)), (MAX_BOOT + 1, range(5)), (1, range(5, 3)), (1, range(COUNTERS + 1))])
def test_boots_and_counters_that_do_not_fit_are_refused(boot: int, counters: range) -> None:
    with pytest.raises(ValueError, match="from 0 to 2"):
        signer(boot=boot, counters=counters)
