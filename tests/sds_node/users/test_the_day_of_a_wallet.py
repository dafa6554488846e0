"""What a wallet may have in a log that several meta nodes keep: what came into it counts, and who stored something on a day that is used commits it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sds_node import asking
from sds_node.meta.ledger.errors import Busy, LedgerError, Unavailable
from sds_node.meta.ledger.log import Result
from sds_node.meta.rules.refusals import NOT_ASKED, OUT_OF_TIME
from sds_node.meta.users import sessions as module
from sds_node.schemes import SEGMENT_BYTES, THREE_REPLICAS, scheme_for
from sds_node.wire import errors as wire_errors
from sds_node.wire.errors import Refused
from tests.sds_node.rules.support import message, wallet
from tests.sds_node.users.support import Meta, User, lookup, meta_node, put_ask, stored_object, stored_segment

pytestmark = pytest.mark.asyncio

DAY_BYTES = 64 << 10


@pytest.fixture(autouse=True)
def small_day(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_LOGGED_BYTES", DAY_BYTES)


def empty_files(lease_id: bytes, counter: int, count: int = 15) -> Any:
    """A commit that costs no noz, and some 2 KB of the log for each file."""
    record = {"name": b"n" * 1_280, "wrapped_key": b"k" * 512}
    files = [stored_object(counter + at, 0, THREE_REPLICAS, [], file=record | {"lookup_id": lookup(counter + at)}) for at in range(count)]
    return asking.CommitAsk(lease_id=lease_id, objects=files)


def counted(meta: Meta, number: int = 1) -> int:
    return meta.users.sessions.account(wallet(number)).logged.size_bytes


async def use_the_day(meta: Meta, user: User, lease_id: bytes) -> None:
    """Until no other lease is given."""
    for counter in range(1_000, 1_040):
        if counted(meta) > DAY_BYTES - module.BEGUN_BYTES:
            break
        meta.clock.wait(1)
        await user.commit(empty_files(lease_id, counter, 1))
    with pytest.raises(Refused) as caught:
        await user.lease(1_000)
    assert caught.value.code == asking.TRY_ANOTHER
    assert "under a lease of another meta node" in caught.value.text


# --- what counts ---


@pytest.mark.parametrize("error", [Busy("too many wait"), Unavailable("it has stopped"), OUT_OF_TIME], ids=["busy", "stopped", "never in a block"])
async def test_what_comes_into_no_log_counts_for_no_wallet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: LedgerError | int) -> None:
    """A quorum is away: whatever a client tries again and again until it is back."""
    async with meta_node(tmp_path) as meta:
        user = await meta.user()
        lease_id = await user.lease()
        await user.commit(empty_files(lease_id, 1, 1))
        before, in_log = counted(meta), meta.ledger.head.sequence

        async def away(operation: bytes) -> Result:
            if isinstance(error, LedgerError):
                raise error
            return Result(0, 0, error, b"", "it waited for too long", bytes(32))

        tried: list[Callable[[], Any]] = [
            lambda: user.commit(empty_files(lease_id, 2)),
            lambda: user.lease(1_000),
            lambda: user.order(delete=message("DeleteFiles", lookup_ids=[lookup(1)])),
        ]
        with monkeypatch.context() as patched:
            patched.setattr(meta.ledger, "propose", away)
            for _ in range(4):
                for one in tried:
                    meta.clock.wait(1)
                    with pytest.raises((wire_errors.Busy, Refused)):
                        await one()
        assert (counted(meta), meta.ledger.head.sequence) == (before, in_log)
        meta.clock.wait(1)
        assert len(await user.commit(empty_files(lease_id, 2))) == 15
        await user.lease(1_000)


async def test_roots_that_too_few_keep_and_orders_that_wait_in_too_long_a_line_count_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_away = True

    async def spread(_: Any) -> None:
        if is_away:
            raise Refused(asking.NOT_READY, "too few keep the roots")

    async with meta_node(tmp_path, spread=spread) as meta:
        user = await meta.user()
        lease_id = await user.lease()
        stored = await user.store(lease_id, 1, 1_000)
        before = counted(meta)
        for _ in range(5):
            with pytest.raises(Refused, match="too few keep"):
                await user.commit(stored.ask())
        monkeypatch.setattr(module, "MAX_IN_LINE", 0)
        with pytest.raises(wire_errors.Busy):
            await user.lease(1_000)
        assert counted(meta) == before
        is_away = False
        assert (await user.commit(stored.ask()))[0].is_complete


async def test_what_is_under_way_counts_and_so_does_what_blocks_refuse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with meta_node(tmp_path) as meta:
        user = await meta.user()
        lease_id = await user.lease()
        before, is_there, go_on = counted(meta), asyncio.Event(), asyncio.Event()

        async def refused(operation: bytes) -> Result:
            is_there.set()
            await go_on.wait()
            return Result(0, 0, NOT_ASKED, b"", "another operation was before it", bytes(32))

        with monkeypatch.context() as patched:
            patched.setattr(meta.ledger, "propose", refused)
            task = asyncio.create_task(user.commit(empty_files(lease_id, 1)))
            await is_there.wait()
            under_way = counted(meta)
            go_on.set()
            with pytest.raises(Refused, match="another operation"):
                await task
        assert under_way == counted(meta) > before + 20_000


# --- a day that is used ---


async def test_on_a_day_that_is_used_nothing_is_begun_and_what_is_stored_is_committed(tmp_path: Path) -> None:
    """Nobody pays for shares whose commit is then refused."""
    async with meta_node(tmp_path) as meta:
        user = await meta.user()
        lease_id = await user.lease(10**10)
        read = (await user.keep(lease_id, 1, 100)).object_id
        small = [await user.store(lease_id, counter, 1_000) for counter in [2, 3, 4, 5, *range(10, 20)]]
        size = SEGMENT_BYTES + 1_000
        scheme = scheme_for(6, size)
        first = put_ask(6, size, 0, scheme)
        begun = stored_segment(meta.nodes, first, await user.put_places(lease_id, first))
        await use_the_day(meta, user, lease_id)
        places = meta.users.places._in_hand

        new = put_ask(7, 1_000, 0, scheme_for(6, 1_000))
        with pytest.raises(Refused, match="under a lease of another meta node") as caught:
            await user.put_places(lease_id, new)
        assert caught.value.code == asking.TRY_ANOTHER
        assert meta.users.places._in_hand == places, "nothing was promised"

        for one in small:
            assert (await user.commit(one.ask()))[0].is_complete
        second = put_ask(6, size, 1, scheme)
        rest = stored_segment(meta.nodes, second, await user.put_places(lease_id, second))
        whole = stored_object(6, size, scheme, [begun, rest])
        assert (await user.commit(asking.CommitAsk(lease_id=lease_id, objects=[whole])))[0].is_complete
        assert counted(meta) > DAY_BYTES, "it counts for all that"
        got = await user.get_places(lease_id, asking.GetAsk(object_id=read, segment=0, index=0, size_bytes=100))
        assert len(got) == 1, "what is stored is read"
        meta.clock.wait(86_400)
        later = await meta.user()
        await later.keep(await later.lease(10**6), 1, 1_000)


async def test_what_nobody_stored_does_not_come_into_a_day_that_is_used_beside_what_was(tmp_path: Path) -> None:
    async with meta_node(tmp_path) as meta:
        user = await meta.user()
        lease_id = await user.lease(10**9)
        stored = await user.store(lease_id, 1, 1_000)
        await use_the_day(meta, user, lease_id)
        both = asking.CommitAsk(lease_id=lease_id, objects=[stored.message, *empty_files(lease_id, 500, 4).objects])
        before = meta.ledger.head.sequence
        with pytest.raises(Refused) as caught:
            await user.commit(both)
        assert (caught.value.code, meta.ledger.head.sequence) == (asking.TRY_ANOTHER, before)
        assert (await user.commit(stored.ask()))[0].is_complete


async def test_a_log_that_is_one_meta_nodes_own_has_no_day_for_a_wallet(tmp_path: Path) -> None:
    async with meta_node(tmp_path, is_log_shared=False) as meta:
        user = await meta.user()
        lease_id = await user.lease(10**9)
        for counter in range(1, 91, 15):
            meta.clock.wait(1)
            assert len(await user.commit(empty_files(lease_id, counter))) == 15
        assert counted(meta) > 2 * DAY_BYTES
        await user.keep(await user.lease(10**6), 1, 1_000)
        await user.order(delete=message("DeleteFiles", lookup_ids=[lookup(1)]))
