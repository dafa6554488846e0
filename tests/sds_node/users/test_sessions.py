"""A session is the connection's key under a wallet's grant; everything else needs one."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from chain.codec.canonical import encode
from chain.crypto import address as bech32
from modules.settlement.documents import GRANT_DOMAIN, SessionGrant
from sds_node import asking
from sds_node.client.session import open_session
from sds_node.meta.rules.refusals import NOT_ASKED, NOT_ENOUGH, NOT_FRESH
from sds_node.meta.users import sessions as module
from sds_node.meta.users.sessions import Sessions
from sds_node.p2p import address_of
from sds_node.schemes import THREE_REPLICAS
from sds_node.wire.errors import BadRequest, Busy, Refused
from tests.sds_node.rules.support import CHAIN_ID, message, wallet, wallet_key
from tests.sds_node.users.support import Clock, Meta, User, lookup, meta_node, stored_object

pytestmark = pytest.mark.asyncio


def grant(user: User, signer: int | None = None, **changes: Any) -> dict[str, Any]:
    """The user's own grant with changes, signed again."""
    made = SessionGrant.FromString(user.session.grant.body)
    for name, value in changes.items():
        if name == "actions":
            made.ClearField("actions")
            made.actions.extend(value)
        else:
            setattr(made, name, value)
    body = encode(made)
    key = wallet_key(signer or user.number)
    return {"body": body, "public_key": key.public_key.raw, "signature": key.sign(GRANT_DOMAIN + b"\x00" + body)}


async def refused(code: int, user: User, method: str, head: Any, body: Any = None) -> str:
    with pytest.raises(Refused) as caught:
        await user.ask(method, head, None, body)
    assert caught.value.code == code, caught.value
    assert len(caught.value.text) > 20
    return caught.value.text


async def open_with(meta: Meta, document: dict[str, Any], user: User) -> str:
    return await refused(asking.BAD_GRANT, user, asking.SESSION_OPEN, asking.SessionHead(grant=document))


async def test_a_session_tells_the_wallets_balance(tmp_path: Path) -> None:
    async with meta_node(tmp_path) as meta:
        user = await meta.user(is_open=False)
        row = await user.open()
        assert (row.wallet, row.paid_noz, row.promo_noz, row.height) == (bech32.encode(wallet(1)), str(10**12), "0", 102)
        assert (await user.ask(asking.WALLET_INFO, None, asking.WalletRow)) == row
        stranger = await meta.user(2)
        assert (await stranger.ask(asking.WALLET_INFO, None, asking.WalletRow)).paid_noz == "0"


async def test_every_request_of_a_user_needs_a_session(tmp_path: Path) -> None:
    async with meta_node(tmp_path) as meta:
        user = await meta.user(is_open=False)
        methods = set(meta.users.handlers()) - {asking.SESSION_OPEN}
        assert len(methods) == 15
        for method in sorted(methods):
            await refused(asking.NO_SESSION, user, method, None)


async def test_only_the_wallets_grant_for_this_very_key_opens_a_session(tmp_path: Path) -> None:
    async with meta_node(tmp_path) as meta:
        user, other = await meta.user(is_open=False), await meta.user(2, is_open=False)
        now_s = int(meta.clock())
        assert "call with the session's key" in await open_with(meta, {"body": other.session.grant.body}, user)
        assert "has not signed" in await open_with(meta, grant(user, signer=2), user)
        assert "another chain" in await open_with(meta, grant(user, chain_id="other-1"), user)
        assert "actions" in await open_with(meta, grant(user, actions=[2, 1]), user)
        assert "action" in await open_with(meta, grant(user, actions=[]), user)
        assert "times" in await open_with(meta, grant(user, expires_s=now_s), user)
        assert "times" in await open_with(meta, grant(user, not_before_s=now_s + 5), user)
        assert "times" in await open_with(meta, grant(user, expires_s=now_s + 90_000), user)
        assert "nonce" in await open_with(meta, grant(user, nonce=b"n"), user)
        assert "wallet" in await open_with(meta, grant(user, wallet="st1nobody"), user)
        assert "canonical" in await open_with(meta, {"body": b"\xff" * 100}, user)
        assert "canonical" in await open_with(meta, {}, user)
        await refused(asking.NO_SESSION, user, asking.WALLET_INFO, None)
        await user.ask(asking.SESSION_OPEN, asking.SessionHead(grant=grant(user)))


async def test_bytes_that_are_no_message_are_a_bad_request(tmp_path: Path) -> None:
    async with meta_node(tmp_path) as meta:
        user = await meta.user()
        for method in sorted(set(meta.users.handlers()) - {asking.OBJECT_COMMIT}):
            with pytest.raises(BadRequest):
                await user.peer.ask(method, b"\xff" * 40)
        with pytest.raises(BadRequest):
            await user.peer.ask(asking.OBJECT_COMMIT, b"", b"\xff" * 40)


async def test_a_session_ends_with_its_grant(tmp_path: Path) -> None:
    async with meta_node(tmp_path) as meta:
        user = await meta.user(life_s=100)
        meta.clock.wait(99)
        await user.ask(asking.WALLET_INFO, None)
        meta.clock.wait(1)
        await refused(asking.NO_SESSION, user, asking.WALLET_INFO, None)
        meta.users.sessions.expire(meta.clock())
        assert len(meta.users.sessions) == 0


async def test_a_grant_for_reading_alone_gives_no_places_to_store(tmp_path: Path) -> None:
    async with meta_node(tmp_path) as meta:
        user = await meta.user(actions=[1])
        lease_id = await user.lease(10**6)
        await refused(asking.BAD_GRANT, user, asking.PLACE_PUT, asking.PlacePutHead(lease_id=lease_id, segments=[asking.PutAsk()]))


async def test_a_wallets_oldest_session_goes_for_one_more_but_not_one_that_has_a_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_SESSIONS_OF_WALLET", 3)
    async with meta_node(tmp_path) as meta:
        users = [await meta.user() for _ in range(3)]
        await users[0].lease(10)
        await users[2].open()  # its own goes on, as the newest
        newest = await meta.user()
        await meta.buys(2)
        other = await meta.user(2)
        for user in (users[0], users[2], newest, other):
            await user.ask(asking.WALLET_INFO, None)
        await refused(asking.NO_SESSION, users[1], asking.WALLET_INFO, None)
        for user in (users[2], newest):
            await user.lease(10)
        await meta.user()  # all of them have one: the oldest goes all the same
        assert len(meta.users.sessions) == 4


async def test_wallets_that_cost_nothing_take_no_place_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_SESSIONS", 2)
    monkeypatch.setattr(module, "MAX_STRANGERS", 2)
    async with meta_node(tmp_path) as meta:
        strangers = [await meta.user(number) for number in (2, 3, 4)]
        await refused(asking.NO_SESSION, strangers[0], asking.WALLET_INFO, None)
        for user in (await meta.user(), await meta.user(), *strangers[1:]):
            await user.ask(asking.WALLET_INFO, None)
        await refused(asking.LEASE_LOST, strangers[2], asking.OBJECT_COMMIT, None)


async def test_a_stranger_that_has_bought_is_none_any_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_STRANGERS", 1)
    async with meta_node(tmp_path) as meta:
        user = await meta.user(2)
        await meta.buys(2)
        lease_id = await user.lease(10**9)
        await meta.user(3)
        await meta.user(4)
        assert (await user.keep(lease_id, 1, 1_000)).is_complete


async def test_when_all_is_full_the_oldest_session_goes_that_has_no_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_SESSIONS", 2)
    async with meta_node(tmp_path) as meta:
        await meta.buys(2)
        first, second = await meta.user(), await meta.user()
        await first.lease(10)
        third = await meta.user(2)
        await refused(asking.NO_SESSION, second, asking.WALLET_INFO, None)
        await first.ask(asking.WALLET_INFO, None)
        await third.lease(10)
        await refused(asking.TRY_ANOTHER, second, asking.SESSION_OPEN, asking.SessionHead(grant=second.session.grant))
        await first.open()  # what is there goes on, and was not dropped for nothing
        await third.ask(asking.WALLET_INFO, None)
        assert len(meta.users.sessions) == 2


async def test_a_session_that_finds_no_room_under_a_new_grant_stays_under_the_old_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_SESSIONS", 1)
    clock = Clock()
    held = Sessions(CHAIN_ID, clock, lambda _: True)
    known, stranger = [open_session(wallet_key(number), CHAIN_ID, max_noz=5, actions=[1], clock=clock) for number in (1, 2)]
    held.open(known.grant, address_of(known.public_key))
    new = held.judged(stranger.grant, address_of(stranger.public_key))
    new.is_stranger = True
    held.add(new, int(clock()))
    with pytest.raises(Refused) as caught:
        held.open(stranger.grant, address_of(stranger.public_key))
    assert caught.value.code == asking.TRY_ANOTHER
    held.known(new)
    assert held.of(address_of(stranger.public_key)) is new
    assert new.is_stranger
    assert len(held) == 2


async def test_opening_again_and_again_keeps_one_session() -> None:
    clock = Clock()
    held = Sessions(CHAIN_ID, clock)
    session = open_session(wallet_key(1), CHAIN_ID, max_noz=5, actions=[1], clock=clock)
    for _ in range(3_000):
        held.open(session.grant, address_of(session.public_key))
    assert len(held) == 1
    assert len(held._ends) < 2_000


async def test_shares_may_be_tried_ten_times_a_second(tmp_path: Path) -> None:
    async with meta_node(tmp_path) as meta:
        user = await meta.user()
        head = asking.ShareOpenHead(share_id="0123456789abcdef")
        for _ in range(10):
            await refused(asking.NOT_HELD, user, asking.SHARE_OPEN, head)
        with pytest.raises(Busy):
            await user.ask(asking.SHARE_OPEN, head)
        await user.open()  # does not help
        with pytest.raises(Busy):
            await user.ask(asking.SHARE_OPEN, head)
        meta.clock.wait(0.15)
        await refused(asking.NOT_HELD, user, asking.SHARE_OPEN, head)


async def test_leases_and_orders_of_a_wallet_are_bounded_over_its_sessions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OPERATIONS_PER_S", 2)
    async with meta_node(tmp_path) as meta:
        users = [await meta.user() for _ in range(2)]
        for user in users:
            await user.lease(10)
        with pytest.raises(Busy):
            await users[0].lease(10)
        with pytest.raises(Busy):
            await users[1].order()
        meta.clock.wait(1)
        await users[1].lease(10)


async def test_what_a_wallet_fills_of_the_log_for_nothing_is_bounded_for_each_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commits of empty files cost no noz; nor do leases and orders."""
    monkeypatch.setattr(module, "MOST_LOGGED_BYTES", 64 << 10)
    async with meta_node(tmp_path) as meta:
        await meta.buys(2)
        user, other = await meta.user(), await meta.user(2)
        theirs = await other.lease()
        before = meta.ledger.head.sequence
        lease_id = await user.lease(10**9)
        again = await meta.user()  # another session of the same wallet
        of_again = await again.lease(10**6)

        def empty(counter: int, lease_id: bytes = lease_id) -> Any:
            record = {"name": b"n" * 1_280, "wrapped_key": b"k" * 512}
            files = [stored_object(counter + at, 0, THREE_REPLICAS, [], file=record | {"lookup_id": lookup(counter + at)}) for at in range(15)]
            return asking.CommitAsk(lease_id=lease_id, objects=files)

        stored = await user.store(lease_id, 1_000, 20_000)
        for counter in (1, 21):
            assert len(await user.commit(empty(counter))) == 15
        for one, its_lease in ((user, lease_id), (again, of_again)):
            text = await refused(asking.TRY_ANOTHER, one, asking.OBJECT_COMMIT, None, empty(41, its_lease))
            assert "65536" in text
            meta.clock.wait(1)
        await user.order(delete=message("DeleteFiles", lookup_ids=[lookup(1)]))

        async def rename_on() -> None:  # free, too
            for _ in range(20):
                await user.order(rename=message("RenameFile", lookup_id=lookup(2), file=empty(2).objects[0].file))

        with pytest.raises(Refused, match="under a lease of another meta node"):
            await rename_on()
        in_log = await logged_bytes(meta, before)
        assert (64 << 10) - 4_096 < in_log <= 64 << 10
        assert len(await other.commit(empty(1, theirs))) == 15, "others have room of their own"
        assert (await user.commit(stored.ask()))[0].is_complete, "what pays for itself does not count"
        meta.clock.wait(86_400)
        later = await meta.user()
        assert len(await later.commit(empty(1, await later.lease(10**6)))) == 15


async def logged_bytes(meta: Meta, before: int) -> int:
    """Of all operations after one."""
    entries = await meta.ledger.query(lambda view: view.entries(before, 10_000))
    return sum(len(one.operation) for one in entries)


async def test_what_a_wallet_has_in_the_log_of_a_day_is_remembered_when_its_account_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_LOOSE", 2)
    clock = Clock()
    sessions = Sessions(CHAIN_ID, clock)
    much = sessions.account(bytes(20))
    for _ in range(3):
        with much.logged.counting(1 << 20, clock()):
            pass
    for number in range(1, 6):  # wallets cost nothing
        sessions.account(bytes([number]) * 20)
    anew = sessions.account(bytes(20))
    assert anew is not much
    assert anew.logged.size_bytes > 3 << 20
    clock.wait(86_400)
    with anew.logged.counting(100, clock()):
        pass
    assert anew.logged.size_bytes < 1_000


async def test_a_wallet_that_the_ledger_does_not_know_leaves_nothing_in_its_log(tmp_path: Path) -> None:
    async with meta_node(tmp_path) as meta:
        stranger = await meta.user(2)
        before = meta.ledger.head.sequence
        await refused(asking.LEDGER_CODES + NOT_ENOUGH, stranger, asking.LEASE_TAKE, asking.LeaseHead(noz=5, seconds=60, fund=1))
        order = stranger.signed_order(delete=message("DeleteFiles", lookup_ids=[b"l" * 32]))
        await refused(asking.NOT_HELD, stranger, asking.FILE_ORDER, asking.OrderHead(order=order))
        assert meta.ledger.head.sequence == before


async def test_what_the_ledger_would_refuse_is_not_in_its_log_and_counts_as_several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with meta_node(tmp_path) as meta:
        user = await meta.user()
        before, size = meta.ledger.head.sequence, disk_bytes(tmp_path)
        head = asking.LeaseHead(noz=10**12 + 1, seconds=60, fund=1)
        for _ in range(5):
            await refused(asking.LEDGER_CODES + NOT_ASKED, user, asking.LEASE_TAKE, head)
        order = user.signed_order(delete=message("DeleteFiles", lookup_ids=[b"l" * 32]), expires_s=5)
        for _ in range(5):
            await refused(asking.LEDGER_CODES + NOT_FRESH, user, asking.FILE_ORDER, asking.OrderHead(order=order))
        assert (meta.ledger.head.sequence, disk_bytes(tmp_path)) == (before, size)
        with pytest.raises(Busy):
            await user.lease(10)
        meta.clock.wait(1)
        await user.lease(10)


async def test_leases_at_once_of_which_one_alone_can_be_paid_leave_one_in_the_log(tmp_path: Path) -> None:
    async with meta_node(tmp_path) as meta:
        await meta.buys(2, 1_000)
        user = await meta.user(2)
        before = meta.ledger.head.sequence
        found = await asyncio.gather(*(user.lease(1_000) for _ in range(8)), return_exceptions=True)
        assert [type(one) for one in found].count(bytes) == 1
        assert meta.ledger.head.sequence == before + 1


def disk_bytes(folder: Path) -> int:
    return sum(one.stat().st_size for one in folder.iterdir())
