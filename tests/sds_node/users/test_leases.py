"""Leases: signed by enough meta nodes, spent in ranges that never overlap, settled once when nothing more can come."""

from __future__ import annotations

import asyncio
import itertools
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sds_node import asking
from sds_node.documents import Lease, check_lease, signature_of
from sds_node.meta.lateness import FREE_S, RECEIPTS_S, is_late
from sds_node.meta.rules.leases import SETTLE_S
from sds_node.meta.rules.refusals import BAD_FORM, NOT_ASKED, NOT_ENOUGH
from sds_node.meta.rules.tables import LEASE, STATE, State
from sds_node.meta.rules.tables import Lease as LeaseRow
from sds_node.meta.users import leases
from sds_node.meta.users.leases import LeaseBook, Reserved
from sds_node.meta.users.sessions import Session
from sds_node.schemes import scheme_for
from sds_node.wire.errors import Busy, Refused
from tests.sds_node.documenting import Chain
from tests.sds_node.rules.support import CHAIN_ID, PARAMS, START_MS, message, meta, meta_key
from tests.sds_node.users.support import Clock, limit_of, meta_node, put_ask
from tests.sds_node.users.test_sessions import refused

MIB = 1 << 20
RATIO_E18 = int(PARAMS["repair_ratio_e18"])


class Metas(Chain):
    """Who may sign leases: meta nodes of the ledger's tests."""

    def ledger_key(self, meta_node: bytes) -> bytes | None:
        numbers = {meta(number): number for number in range(1, self.metas + 1)}
        return bytes(meta_key(numbers[meta_node]).verify_key) if meta_node in numbers else None

    def active_meta_nodes(self) -> list[bytes]:
        return [meta(number) for number in range(1, self.metas + 1)]


# --- taking ----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_a_lease_is_what_the_ledger_moved_out_of_the_wallet(tmp_path: Path) -> None:
    async with meta_node(tmp_path) as node:
        user = await node.user()
        reply = await user.ask(asking.LEASE_TAKE, asking.LeaseHead(noz=5_000, seconds=600, fund=1), asking.LeaseReply)
        lease = check_lease(reply.certificate, Metas(metas=1))
        assert (lease.chain_id, lease.noz, lease.fund, lease.expires_s - lease.created_s) == (CHAIN_ID, 5_000, 1, 600)
        row = await node.lease(lease.lease_id)
        assert (row.noz, row.session_pubkey) == (5_000, user.session.public_key)
        assert (await node.wallet()).paid_noz == 10**12 - 5_000


@pytest.mark.asyncio
async def test_a_wallet_is_told_what_its_leases_hold(tmp_path: Path) -> None:
    async with meta_node(tmp_path) as node:
        user, other = await node.user(), await node.user(2)
        await node.buys(2)
        first = await user.lease(5_000)
        await user.lease(700)
        await other.lease(90)
        row = await user.ask(asking.WALLET_INFO, None, asking.WalletRow)
        assert (row.open_leases, row.leased_noz, row.paid_noz) == (2, "5700", str(10**12 - 5_700))
        await user.end(first)
        assert await node.users.lending.settle_due() == 1
        row = await user.ask(asking.WALLET_INFO, None, asking.WalletRow)
        assert (row.open_leases, row.leased_noz, row.paid_noz) == (1, "700", str(10**12 - 700))


@pytest.mark.asyncio
async def test_others_sign_until_there_are_enough(tmp_path: Path) -> None:
    async def cosign(body: bytes) -> list[tuple[bytes, bytes]]:
        lease = Lease.FromString(body)
        stranger = b"x" * 20, bytes(64)
        return [stranger, *((meta(number), signature_of(lease, body, meta_key(number))) for number in (2, 3, 4))]

    async with meta_node(tmp_path, metas=4, cosign=cosign) as node:
        user = await node.user()
        reply = await user.ask(asking.LEASE_TAKE, asking.LeaseHead(noz=5_000, seconds=600, fund=1), asking.LeaseReply)
        assert len(reply.certificate.signatures) == 2
        check_lease(reply.certificate, Metas(metas=4))


@pytest.mark.asyncio
async def test_a_lease_that_too_few_sign_is_given_back(tmp_path: Path) -> None:
    async with meta_node(tmp_path, metas=4) as node:
        user = await node.user()
        text = await refused(asking.NOT_READY, user, asking.LEASE_TAKE, asking.LeaseHead(noz=5_000, seconds=600, fund=1))
        assert "2 meta nodes and has 1" in text
        assert await node.users.lending.settle_due() == 1
        assert (await node.wallet()).open_leases == 0


@pytest.mark.asyncio
async def test_what_the_ledger_refuses_is_told_with_its_code(tmp_path: Path) -> None:
    async with meta_node(tmp_path) as node:
        user = await node.user()
        text = await refused(asking.LEDGER_CODES + NOT_ASKED, user, asking.LEASE_TAKE, asking.LeaseHead(noz=10**13, seconds=600, fund=1))
        assert "more noz than the session grant" in text
        poor = await node.user(2)
        await refused(asking.LEDGER_CODES + NOT_ENOUGH, poor, asking.LEASE_TAKE, asking.LeaseHead(noz=1, seconds=600, fund=2))
        for bad in ({"noz": 0}, {"seconds": 0}, {"seconds": 3_601}, {"fund": 0}, {"fund": 3}):
            await refused(asking.LEDGER_CODES + BAD_FORM, user, asking.LEASE_TAKE, asking.LeaseHead(**{"noz": 5, "seconds": 600, "fund": 1} | bad))


# --- the book ---------------------------------------------------------------------------------------------------------------------------


def state(repair_ratio_e18: int = RATIO_E18) -> State:
    fields = dict.fromkeys(State._fields, 0) | {"repair_ratio_e18": repair_ratio_e18, "escrow_ratio_e18": 5 * 10**17}
    return State(**fields)  # type: ignore[arg-type]


def row(noz: int, key: bytes = b"L" * 32) -> LeaseRow:
    return LeaseRow(key, b"w" * 20, b"m" * 20, b"s" * 32, 1, noz, noz, START_MS, START_MS + 3_600_000, 0, True)


SESSION = Session(b"w" * 20, "st1", b"s" * 32, b"a" * 20, None, None)
STEP = st.one_of(
    st.tuples(st.just("issue"), st.integers(1, 400), st.integers(0, 800)),
    st.tuples(st.just("hand in"), st.integers(0, 30), st.integers(0, 100)),
    st.tuples(st.just("wait"), st.integers(0, 400), st.just(0)),
    st.tuples(st.just("hand in when it is nearly late"), st.integers(0, 30), st.integers(0, 100)),
    st.tuples(st.just("commit"), st.integers(0, 30), st.integers(0, 1)),
)


@settings(max_examples=200, deadline=None)
@example([("issue", 399, 0), ("hand in when it is nearly late", 0, 100), ("wait", 10, 0), ("issue", 99, 400)], 600, 0)
@given(st.lists(STEP, max_size=60), st.integers(1, 2_000), st.sampled_from([0, 1, RATIO_E18, 10**18]))
def test_whatever_happens_ranges_never_overlap_and_the_ledger_has_enough_for_all_that_was_promised(
    steps: list[tuple[str, int, int]], noz: int, ratio_e18: int
) -> None:
    clock = Clock()
    book = LeaseBook(clock, FREE_S)
    held = book.add(row(noz), state(ratio_e18))
    ranges: list[tuple[int, int]] = []
    limits: dict[bytes, tuple[int, bool, int]] = {}
    slots: dict[bytes, int] = {}
    """Of limits for storing."""
    waiting: dict[int, list[tuple[int, bytes, int, bool]]] = {}
    """Receipts for shares of which there is no commit: how long after it they are in a window, at the latest."""
    handed_in: list[tuple[float, bytes, int, bool]] = []
    """Until when it is in a window, at the latest."""
    ledger_noz, number = noz, 0
    escrows: dict[int, int] = {}

    def wait(until_s: float) -> None:
        nonlocal ledger_noz
        while handed_in and min(handed_in)[0] <= until_s:
            at_s, serial, used, is_read = min(handed_in)
            handed_in.remove((at_s, serial, used, is_read))
            clock.now_s = max(clock.now_s, at_s)
            book.expire(held)
            taken = used + (used * ratio_e18 // 10**18 if is_read else 0)
            assert taken <= ledger_noz  # a window: nobody was promised these noz meanwhile
            ledger_noz -= taken
            book.done(held.id, serial, used)
            assert 0 <= held.left_noz <= ledger_noz
        clock.now_s = max(clock.now_s, until_s)
        book.expire(held)

    for kind, a, b in steps:
        if kind == "issue" and clock() < held.ends_s:
            is_read = a % 2 == 0
            try:
                book.check(held, [a], b, is_read=is_read)
            except Refused:
                assert held.with_share(a, is_read) + b > held.left_noz or held.issued_noz + a > noz
                continue
            serial = number.to_bytes(16, "big")
            expires_s = int(clock()) + (600 if a % 3 else 60)  # a session opens again under a grant that ends sooner
            # Now and then it is another place for a share that has one.
            slot = min(escrows) if a % 5 == 0 and escrows else number
            ranges.append(book.issue(held, serial, a, expires_s, is_read=is_read, slot=None if is_read else (0, 0, slot)))
            limits[serial] = a, is_read, expires_s
            if not is_read:
                escrows[slot], slots[serial] = b, slot
                book.reserve(held, (0, 0, slot), Reserved(a, b))
            number += 1
        elif kind.startswith("hand in") and number:
            serial = (a % number).to_bytes(16, "big")
            if kind.endswith("late") and serial in limits:
                wait(limits[serial][2] + RECEIPTS_S - 1)
            if serial in limits and not is_late(limits[serial][2], int(clock() * 1_000)):
                most, is_read, _ = limits.pop(serial)
                receipt = 1 + (37 * a + 11 * b) % (FREE_S - RECEIPTS_S - 1), serial, most * b // 100, is_read
                if slots.get(serial) in escrows:
                    waiting.setdefault(slots[serial], []).append(receipt)
                else:
                    handed_in.append((clock() + receipt[0], *receipt[1:]))
        elif kind == "wait":
            wait(clock() + a)
        elif kind == "commit" and escrows:
            a = sorted(escrows)[a % len(escrows)]
            escrow = escrows.pop(a)
            assert escrow <= ledger_noz
            ledger_noz -= escrow
            book.release(held, (0, 0, a))
            held.spent_noz += escrow
            handed_in.extend((clock() + within_s, *receipt) for within_s, *receipt in waiting.pop(a, ()))
        assert 0 <= held.left_noz <= ledger_noz
        assert held.outstanding_noz == sum(one.noz for one in held.outstanding.values())
        assert held.escrow_noz == sum(one.escrow_noz for one in held.reserved.values())
    wait(clock() + FREE_S)
    held.is_ended = True  # what was not committed by now is refused
    wait(clock() + 600 + FREE_S)
    assert book.is_due(held)
    flat = [end for pair in ranges for end in pair]
    assert flat == sorted(flat)
    assert not ranges or ranges[-1][1] <= noz
    assert all(begin < end for begin, end in ranges)


def test_a_lease_that_is_over_gives_no_limit() -> None:
    clock = Clock()
    book = LeaseBook(clock, FREE_S)
    held = book.add(row(100), state())
    assert book.usable(held.id, SESSION) is held
    for change in ("is_ended", "is_settling"):
        setattr(held, change, True)
        with pytest.raises(Refused) as caught:
            book.usable(held.id, SESSION)
        assert caught.value.code == asking.LEASE_LOST
        setattr(held, change, False)
    clock.wait(3_600)
    with pytest.raises(Refused):
        book.usable(held.id, SESSION)
    with pytest.raises(Refused):
        book.usable(b"?" * 32, SESSION)


def test_noz_of_a_limit_come_back_when_no_receipt_can_come_or_wait_for_a_window() -> None:
    clock = Clock()
    book = LeaseBook(clock, FREE_S)
    held = book.add(row(1_000), state(0))
    book.issue(held, b"a", 400, int(clock()) + 600, is_read=True)
    book.issue(held, b"b", 100, int(clock()) + 600, is_read=True)
    book.done(held.id, b"b", 30)
    assert held.left_noz == 1_000 - 400 - 30
    clock.wait(600 + RECEIPTS_S)
    assert is_late(int(clock()) - RECEIPTS_S, int(clock() * 1_000))
    clock.wait(FREE_S - RECEIPTS_S - 1)
    book.expire(held)
    assert held.left_noz == 570
    clock.wait(1)
    book.expire(held)
    assert held.left_noz == 970
    with pytest.raises(Refused):  # its range stays given: nodes know it until the lease ends
        book.check(held, [501], is_read=True)
    book.check(held, [500], is_read=True)


def test_noz_for_storing_are_kept_as_long_as_the_share_may_be_committed_and_then_until_a_window() -> None:
    clock = Clock()
    book = LeaseBook(clock, FREE_S)
    held = book.add(row(1_000), state(0))
    book.issue(held, b"first", 100, int(clock()) + 600, is_read=False, slot=(1, 0, 0))
    book.reserve(held, (1, 0, 0), Reserved(100, 100))
    book.issue(held, b"instead", 100, int(clock()) + 600, is_read=False, slot=(1, 0, 0))
    book.reserve(held, (1, 0, 0), Reserved(100, 100))
    clock.wait(2_000)
    book.expire(held)
    assert (held.left_noz, held.escrow_noz) == (700, 100)
    book.release(held, (1, 0, 0))
    book.done(held.id, b"instead", 100)
    clock.wait(FREE_S - 1)
    book.expire(held)
    assert held.left_noz == 800
    clock.wait(1)
    book.expire(held)
    assert held.left_noz == 900
    assert not held.outstanding


@pytest.mark.parametrize("is_ended", [True, False])
def test_a_lease_that_is_over_waits_for_no_commit(is_ended: bool) -> None:
    clock = Clock()
    book = LeaseBook(clock, FREE_S)
    held = book.add(row(1_000), state(0))
    assert book.may_commit(held.id)
    book.issue(held, b"a", 100, int(clock()) + 600, is_read=False, slot=(1, 0, 0))
    book.reserve(held, (1, 0, 0), Reserved(100, 100))
    held.is_ended, held.commits = is_ended, 1
    assert book.may_commit(held.id)  # one is under way
    held.commits = 0
    assert book.may_commit(held.id) is not is_ended
    clock.wait((600 if is_ended else 3_600) + FREE_S - 1)
    assert not book.is_due(held)
    clock.wait(1)
    assert book.is_due(held)
    assert book.may_commit(b"of a start before" * 2)


def test_the_governed_share_of_what_is_read_is_kept_from_when_a_limit_is_issued() -> None:
    clock = Clock()
    book = LeaseBook(clock, FREE_S)
    held = book.add(row(1_000), state(10**17))
    book.check(held, [500], is_read=True)
    book.issue(held, b"a", 500, int(clock()) + 600, is_read=True)
    assert held.left_noz == 450
    book.issue(held, b"b", 450, int(clock()) + 600, is_read=False)
    assert held.left_noz == 0
    book.done(held.id, b"a", 101)
    assert held.left_noz == 550 - 101 - 11
    book.done(held.id, b"b", 450)
    assert held.left_noz == 550 - 112


def test_a_limit_that_ends_before_older_ones_does_not_wait_for_them() -> None:
    clock = Clock()
    book = LeaseBook(clock, FREE_S)
    held = book.add(row(1_000), state(0))
    book.issue(held, b"a", 400, int(clock()) + 600, is_read=True)
    book.issue(held, b"b", 100, int(clock()) + 60, is_read=True)
    clock.wait(60 + FREE_S)
    book.expire(held)
    assert held.left_noz == 600
    clock.wait(540)
    book.expire(held)
    assert held.left_noz == 1_000


def test_limits_of_a_wallet_and_of_all_are_bounded_until_they_are_done_or_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "MAX_OUTSTANDING_OF_WALLET", 2)
    monkeypatch.setattr(leases, "MAX_OUTSTANDING", 3)
    clock = Clock()
    book = LeaseBook(clock, FREE_S)
    first, second = book.add(row(1_000), state(0)), book.add(row(1_000, b"M" * 32), state(0))
    other = book.add(row(1_000, b"N" * 32)._replace(wallet=b"v" * 20), state(0))
    for held in (first, second):
        book.check(held, [5], is_read=True)
        book.issue(held, held.id, 5, int(clock()) + 600, is_read=True)
    with pytest.raises(Busy, match="of this wallet"):
        book.check(first, [5], is_read=True)
    with pytest.raises(Busy, match="in use here"):
        book.check(other, [5, 5], is_read=True)
    book.check(other, [5], is_read=True)
    book.done(first.id, first.id, 5)
    book.check(first, [5], is_read=True)
    book.forget(second.id)
    book.check(other, [5, 5], is_read=True)
    assert book.has_session(b"s" * 32)
    book.forget(first.id)
    book.forget(other.id)
    assert not book.has_session(b"s" * 32)


def test_done_for_a_lease_of_before_a_start_is_nothing() -> None:
    book = LeaseBook(Clock(), FREE_S)
    held = book.add(row(1_000), state(0))
    book.done(b"?" * 32, b"s" * 16, 5)
    assert [one.id for one in book] == [held.id]
    assert (held.left_noz, held.spent_noz) == (1_000, 0)


# --- settlement --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_an_ended_lease_without_limits_goes_back_whole_and_once(tmp_path: Path) -> None:
    async with meta_node(tmp_path) as node:
        user = await node.user()
        lease_id = await user.lease(5_000)
        assert await node.users.lending.settle_due() == 0
        await user.end(lease_id)
        await user.end(lease_id)
        assert await node.users.lending.settle_due() == 1
        assert await node.users.lending.settle_due() == 0
        await user.end(lease_id)
        assert (await node.wallet()).paid_noz == 10**12
        assert await node.lease(lease_id) is None
        assert len(node.users.leases) == 0


@pytest.mark.asyncio
async def test_what_was_placed_and_never_stored_costs_a_tenth(tmp_path: Path) -> None:
    async with meta_node(tmp_path) as node:
        user = await node.user()
        lease_id = await user.lease(10**7)
        await user.put_places(lease_id, put_ask(1, 2 * MIB, 0, scheme_for(6, 2 * MIB)))
        await user.end(lease_id)
        assert await node.users.lending.settle_due() == 0  # receipts may still come
        node.clock.wait(600 + FREE_S - 1)
        assert await node.users.lending.settle_due() == 0
        node.clock.wait(1)
        assert await node.users.lending.settle_due() == 1
        reserved = 5 * MIB
        state_row = await node.get(STATE, 1)
        assert state_row.repair_paid_noz == -(-reserved // 10)
        assert (await node.wallet()).paid_noz == 10**12 - -(-reserved // 10)


@pytest.mark.asyncio
async def test_a_lease_whose_receipts_are_all_in_windows_is_settled_at_once_when_it_is_ended(tmp_path: Path) -> None:
    async with meta_node(tmp_path) as node:
        user = await node.user()
        lease_id = await user.lease(10**7)
        stored = await user.store(lease_id, 1, 2 * MIB)
        await user.commit(stored.ask())
        await user.end(lease_id)
        assert await node.users.lending.settle_due() == 0
        held = node.users.leases.get(lease_id)
        assert held is not None
        for serial in list(held.outstanding):
            node.users.leases.done(lease_id, serial, MIB // 2)
        assert await node.users.lending.settle_due() == 1
        assert (await node.get(STATE, 1)).repair_paid_noz == 0
        assert (await node.wallet()).paid_noz == 10**12 - 5 * MIB // 2  # the escrow; the test's receipts never were in a window


@pytest.mark.asyncio
async def test_a_lease_that_ran_out_is_settled_after_the_time_for_late_receipts(tmp_path: Path) -> None:
    async with meta_node(tmp_path) as node:
        user = await node.user()
        await user.lease(5_000, seconds=100)
        node.clock.wait(100 + FREE_S - 1)
        assert await node.users.lending.settle_due() == 0
        node.clock.wait(1)
        assert await node.users.lending.settle_due() == 1


@pytest.mark.asyncio
async def test_a_lease_of_before_a_restart_gives_no_limit_and_is_settled_when_it_is_over(tmp_path: Path) -> None:
    async with meta_node(tmp_path) as node:
        user = await node.user()
        lease_id = await user.lease(10**6, seconds=600)
    async with meta_node(tmp_path, is_new=False, clock=node.clock, boot=2) as again:
        user = await again.user()
        await refused(
            asking.LEASE_LOST, user, asking.PLACE_PUT, asking.PlacePutHead(lease_id=lease_id, segments=[put_ask(1, 5, 0, scheme_for(6, 5))])
        )
        again.clock.wait(600 + FREE_S - 1)
        assert await again.users.lending.settle_lost() == 0
        again.clock.wait(1)
        assert await again.users.lending.settle_lost() == 1
        assert await again.users.lending.settle_lost() == 0
        assert (await again.wallet()).paid_noz == 10**12


@pytest.mark.asyncio
async def test_a_lease_in_hand_is_not_taken_for_a_lost_one(tmp_path: Path) -> None:
    async with meta_node(tmp_path) as node:
        user = await node.user()
        lease_id = await user.lease(10**7)
        await user.put_places(lease_id, put_ask(1, 2 * MIB, 0, scheme_for(6, 2 * MIB)))
        node.clock.wait(3_600 + FREE_S)
        assert await node.users.lending.settle_lost() == 0
        assert await node.users.lending.settle_due() == 1
        assert (await node.get(STATE, 1)).repair_paid_noz > 0


@pytest.mark.asyncio
async def test_receipts_of_before_a_stop_have_their_time_after_it_too(tmp_path: Path) -> None:
    async with meta_node(tmp_path) as node:
        user = await node.user()
        lease_id = await user.lease(10**6, seconds=600)
    node.clock.wait(600 + FREE_S)
    done: list[str] = []

    async def before_lost() -> None:
        done.append("windows")

    async with meta_node(tmp_path, is_new=False, clock=node.clock, boot=2, before_lost=before_lost) as again:
        assert await again.users.lending.settle_lost() == 0
        assert done == ["windows"]
        again.clock.wait(SETTLE_S - FREE_S - 1)
        assert await again.users.lending.settle_lost() == 0
        again.clock.wait(1)
        assert await again.users.lending.settle_lost() == 1
        assert done == ["windows"]
        assert await again.lease(lease_id) is None


@pytest.mark.asyncio
async def test_no_lost_lease_is_settled_before_receipts_of_before_the_stop_are_in_windows(tmp_path: Path) -> None:
    async with meta_node(tmp_path) as node:
        user = await node.user()
        lease_id = await user.lease(10**6, seconds=600)
    is_down = True

    async def before_lost() -> None:
        if is_down:
            raise OSError("the books cannot be read")

    async with meta_node(tmp_path, is_new=False, clock=node.clock, boot=2, before_lost=before_lost) as again:
        again.clock.wait(600 + FREE_S)
        running = asyncio.create_task(again.users.lending.run())
        await asyncio.sleep(0.1)
        assert await again.lease(lease_id) is not None
        is_down = False
        while await again.lease(lease_id) is not None:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        running.cancel()


@pytest.mark.asyncio
async def test_a_lease_is_not_settled_while_a_receipt_of_it_waits_for_a_window(tmp_path: Path) -> None:
    waiting: set[bytes] = set()

    async def has_leaves(lease_id: bytes) -> bool:
        return lease_id in waiting

    async with meta_node(tmp_path, has_leaves=has_leaves) as node:
        user = await node.user()
        held, other = await user.lease(10**6, seconds=600), await user.lease(10**6, seconds=600)
        waiting.add(held)
        for lease_id in (held, other):
            await user.end(lease_id)
        assert await node.users.lending.settle_due() == 1
        assert await node.lease(other) is None
        node.users.leases.forget(held)  # as after a start
        node.clock.wait(600 + FREE_S)
        assert await node.users.lending.settle_lost() == 0
        waiting.clear()
        assert await node.users.lending.settle_lost() == 1


@pytest.mark.asyncio
async def test_nothing_is_issued_from_a_lease_while_it_is_being_settled(tmp_path: Path) -> None:
    async with meta_node(tmp_path) as node:
        user = await node.user()
        lease_id = await user.lease(10**7)
        begun, go_on, propose = asyncio.Event(), asyncio.Event(), node.proposer.propose

        async def slow(kind: str, made: Any) -> Any:
            begun.set()
            await go_on.wait()
            return await propose(kind, made)

        await user.end(lease_id)
        held = node.users.leases.get(lease_id)
        assert held is not None
        node.proposer.propose = slow  # type: ignore[assignment, method-assign]
        settling = asyncio.create_task(node.users.lending.settle_due())
        await begun.wait()
        held.is_ended = False  # whatever made it due
        head = asking.PlacePutHead(lease_id=lease_id, segments=[put_ask(1, 5, 0, scheme_for(6, 5))])
        await refused(asking.LEASE_LOST, user, asking.PLACE_PUT, head)
        assert await node.users.lending.settle_due() == 0
        go_on.set()
        assert await settling == 1


@pytest.mark.asyncio
async def test_leases_that_the_ledger_has_settled_by_itself_do_no_harm(tmp_path: Path) -> None:
    async with meta_node(tmp_path) as node:
        user = await node.user()
        lease_id, other = await user.lease(5_000, seconds=100), await user.lease(6_000, seconds=3_600)
        node.clock.wait(100 + 600)
        await node.proposer.propose("tick", message("Tick"))
        assert await node.get(LEASE, lease_id) is None
        await user.end(other)
        assert await node.users.lending.settle_due() == 2
        assert (await node.wallet()).paid_noz == 10**12


@pytest.mark.asyncio
async def test_the_loops_settle_by_themselves(tmp_path: Path) -> None:
    async with meta_node(tmp_path) as node:
        user = await node.user()
        lease_id = await user.lease(5_000)
        running = asyncio.create_task(node.users.run())
        await user.end(lease_id)
        while await node.lease(lease_id) is not None:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running


# --- many at once ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_asks_of_one_lease_at_once_never_get_the_same_part(tmp_path: Path) -> None:
    async with meta_node(tmp_path) as node:
        user = await node.user()
        chance = random.Random(5)
        codes: set[int] = set()
        done = await user.keep(await user.lease(), 1, 2 * MIB)
        lease_id = await user.lease(40 * MIB)

        async def one(number: int) -> list[Any]:
            try:
                if number % 2:
                    size = chance.choice([5, 1_000, MIB, 3 * MIB])
                    return await user.put_places(lease_id, put_ask(number, size, 0, scheme_for(6, size)))
                asks = [asking.GetAsk(object_id=done.object_id, segment=0, index=index, size_bytes=chance.randrange(1, MIB)) for index in range(3)]
                return await user.get_places(lease_id, *asks)
            except Refused as error:
                codes.add(error.code)
                return []

        found = await asyncio.gather(*(one(number) for number in range(40)))
        limits = sorted((limit_of(place) for places in found for place in places), key=lambda limit: limit.from_noz)
        assert len(limits) > 20
        assert limits[-1].to_noz <= 40 * MIB
        assert all(left.to_noz <= right.from_noz for left, right in itertools.pairwise(limits))
        assert len({limit.serial for limit in limits}) == len(limits)
        assert codes == {asking.LEASE_SPENT}
