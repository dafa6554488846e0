"""Others approve what they have checked, for the meta node that asks in its own name; who lies, is silent or slow costs a bounded time."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from chain.codec.canonical import encode
from modules.settlement.documents import signed_by_key
from sds_node import asking
from sds_node.meta.books.books import open_books
from sds_node.meta.books.others import MAX_BAD_SERIALS, BadWindow, Unfinished, UnsureWindow
from sds_node.meta.books.proposed import Approvals, TooManyProposed
from sds_node.meta.federation import approving
from sds_node.meta.federation.approving import Approving
from sds_node.meta.relay.reporter import NotYet, Unequal
from sds_node.meta.rules.approvals import APPROVAL_DOMAIN, approval_bytes, approved
from sds_node.wire import errors as wire_errors
from sds_node.wire.identity import Identity
from sds_node.wire.node import Node
from sds_node.wire.peer import Direct, Peer
from tests.sds_node.federation.metas import Metas, address, answering, ledger_key, metas, silent
from tests.sds_node.rules.support import CHAIN_ID, message, owner

pytestmark = pytest.mark.asyncio
WINDOW = message("Window", number=1, receipts_count=1)
CLOSE = message("CloseEpoch", epoch=1, without=[owner(1)])


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits that a test waits out are short."""
    monkeypatch.setattr(approving, "APPROVE_S", 1.0)


class Checks:
    """What each meta node says of what it is asked: an error by meta node, or nothing, which approves."""

    def __init__(self, made: Metas) -> None:
        self.says: dict[int, Exception] = {}
        self.asked: list[tuple[int, bytes, str]] = []
        self.all = [Approving(one.peers, CHAIN_ID, ledger_key(one.number)) for one in made]
        for one, its in zip(made, self.all, strict=True):

            async def window(caller: bytes, body: Any, number: int = one.number) -> None:
                self.answer(number, caller, "window")

            async def close(body: Any, number: int = one.number) -> None:
                self.answer(number, b"", "close_epoch")

            one.wire.handlers.update(its.handlers(window, close))

    def answer(self, number: int, caller: bytes, kind: str) -> None:
        self.asked.append((number, caller, kind))
        if number in self.says:
            raise self.says[number]


@pytest.mark.parametrize(("count", "others"), [(1, 0), (3, 0), (4, 1), (7, 2)])
async def test_as_many_approve_as_are_needed_and_their_signatures_hold(tmp_path: Path, count: int, others: int) -> None:
    async with metas(tmp_path, count) as made:
        checks = Checks(made)
        for what in (WINDOW, CLOSE):
            found = (await checks.all[0].approve(what)).signatures
            assert len(found) == others
            body = approval_bytes(CHAIN_ID, address(1), what)
            keys = {address(one): bytes(ledger_key(one).verify_key) for one in range(2, count + 1)}
            assert all(signed_by_key(APPROVAL_DOMAIN, body, keys[who], given) for who, given in found)
        assert {(caller, kind) for _, caller, kind in checks.asked} <= {(address(1), "window"), (b"", "close_epoch")}


async def test_who_refuses_lies_or_says_nothing_is_not_waited_for(tmp_path: Path) -> None:
    async with metas(tmp_path) as made:
        checks = Checks(made)
        checks.says[2] = BadWindow("it does not hold")
        made[2].wire.handlers[asking.META_APPROVE] = silent
        ((who, signature),) = (await checks.all[0].approve(WINDOW)).signatures
        assert who == address(4)
        for lie in (encode(message("LedgerSignature", meta_node=address(2), signature=signature)), b"\xff\xff", bytes(10_000)):
            made[1].wire.handlers[asking.META_APPROVE] = answering(lie)
            assert [who for who, _ in (await checks.all[0].approve(WINDOW)).signatures] == [address(4)]
        await made[3].stop()
        assert list((await checks.all[0].approve(WINDOW)).signatures) == [], "and when nobody is left it is over after a while"


async def test_what_others_name_comes_with_their_refusal_and_lies_about_it_are_bounded(tmp_path: Path) -> None:
    async with metas(tmp_path) as made:
        checks = Checks(made)
        bad = [b"%16d" % at for at in range(MAX_BAD_SERIALS)]
        checks.says[2] = BadWindow("its leaves are settled", bad)
        checks.says[3] = UnsureWindow("of one too little is known", [b"u" * 16])
        too_many = message("ApprovalReply", meta_node=address(4), why="all", bad_serials=[*bad, b"x" * 16])
        made[3].wire.handlers[asking.META_APPROVE] = answering(encode(too_many))
        said = await checks.all[0].approve(WINDOW)
        assert list(said.signatures) == []
        assert said.bad == {address(2): frozenset(bad), address(3): frozenset(), address(4): frozenset(bad)}
        assert {who: named for who, named in said.unsure.items() if named} == {address(3): frozenset([b"u" * 16])}
        checks.says.clear()
        assert len((await checks.all[0].approve(WINDOW)).signatures) == 1


async def test_who_does_not_answer_keeps_a_small_window_for_a_brief_time_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(approving, "APPROVE_S", 60.0)
    monkeypatch.setattr(approving, "BRIEF_S", 0.5)
    async with metas(tmp_path) as made:
        checks = Checks(made)
        for one in made[1:]:
            one.wire.handlers[asking.META_APPROVE] = silent
        loop = asyncio.get_running_loop()
        begun_s = loop.time()
        assert list((await checks.all[0].approve(WINDOW)).signatures) == []
        assert loop.time() - begun_s < 30
    large = message("Window", number=1, receipts_count=20_000)
    assert [approving._time_s(one) for one in (WINDOW, large, CLOSE)] == [0.5 + 1 / 400, 50.5, 60.0]


async def test_why_it_does_not_approve_is_told(tmp_path: Path) -> None:
    async with metas(tmp_path) as made:
        checks = Checks(made)
        body = approval_bytes(CHAIN_ID, address(2), WINDOW)

        async def asked(body: bytes, by: int = 2) -> bytes:
            return await made[by - 1].peers.ask(address(1), asking.META_APPROVE, body=body, timeout_s=30)

        checks.says[1] = BadWindow("two leaves are bad", [b"s" * 16, b"t" * 16])
        said = message("ApprovalReply").FromString(await asked(body))
        assert (said.signature, said.why, list(said.bad_serials)) == (b"", "two leaves are bad", [b"s" * 16, b"t" * 16])
        checks.says[1] = UnsureWindow("of two leaves too little is known", [b"s" * 16, b"t" * 16])
        said = message("ApprovalReply").FromString(await asked(body))
        assert (said.signature, list(said.bad_serials), list(said.unsure_serials)) == (b"", [], [b"s" * 16, b"t" * 16])
        for error, code in (
            (BadWindow("a leaf is bad"), asking.NOT_EQUAL),
            (Unfinished("an earlier one is not here"), asking.NOT_READY),
            (Unequal("its books show it"), asking.NOT_EQUAL),
            (NotYet("its ledger is behind"), asking.NOT_READY),
        ):
            checks.says[1] = error
            with pytest.raises(wire_errors.Refused, match=str(error)) as found:
                await asked(body)
            assert found.value.code == code
        checks.says[1] = TooManyProposed("8 other windows")
        with pytest.raises(wire_errors.Busy):
            await asked(body)
        checks.says.clear()
        assert await asked(body)
        for raw in (body, approval_bytes("another-1", address(3), WINDOW)):
            with pytest.raises(wire_errors.Refused, match="by the meta node that it names") as found:
                await asked(raw, 3)
            assert found.value.code == asking.NOT_EQUAL
        with_approvals = message("Approval", chain_id=CHAIN_ID, meta_node=address(2), window=approved(WINDOW, [(address(3), bytes(64))]))
        for raw in (b"", b"\xff", body + b"\x78\x01", encode(message("Approval", chain_id=CHAIN_ID, meta_node=address(2))), encode(with_approvals)):
            with pytest.raises(wire_errors.BadRequest):
                await asked(raw)
        with pytest.raises(wire_errors.TooMuch):
            await asked(bytes(asking.MAX_APPROVAL_BYTES + 1))


async def test_one_meta_node_has_only_so_many_looked_at_and_strangers_none(tmp_path: Path) -> None:
    async with metas(tmp_path) as made:
        gate = asyncio.Event()

        async def wait(caller: bytes, body: Any) -> None:
            await gate.wait()

        checks = Checks(made)
        made[0].wire.handlers.update(checks.all[0].handlers(wait, lambda body: wait(b"", body)))
        body = approval_bytes(CHAIN_ID, address(2), WINDOW)
        asks = [asyncio.create_task(made[1].peers.ask(address(1), asking.META_APPROVE, body=body)) for _ in range(3)]
        done, _ = await asyncio.wait(asks, return_when=asyncio.FIRST_COMPLETED)
        assert [type(one.exception()) for one in done] == [wire_errors.Busy]
        gate.set()
        await asyncio.gather(*asks, return_exceptions=True)
        stranger = Node(Identity.ephemeral(), CHAIN_ID)
        host, _, port = made[0].own.endpoint.rpartition(":")
        with pytest.raises(wire_errors.Refused) as found:
            await Peer(stranger, made[0].address, [Direct(host, int(port))]).ask(asking.META_APPROVE, body=body)
        assert found.value.code == asking.UNKNOWN_NODE
        await stranger.close()


async def test_requests_that_are_given_up_leave_one_window_to_be_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that is reset has no place any more; what it began goes on, and counts."""
    async with metas(tmp_path) as made:
        gate, came, at_work = asyncio.Event(), asyncio.Queue[None](), list[int]()

        async def never(*_: Any) -> Any:
            raise AssertionError

        def no_fetch(*_: Any) -> Any:
            raise AssertionError

        async def look_at(caller: bytes, body: Any, digest: bytes) -> None:
            at_work.append(body.number)
            await gate.wait()

        with open_books(tmp_path / "books") as books:
            approvals = Approvals(made[0].ledger, books, CHAIN_ID, made[0].address, no_fetch, never, made.clock)
            monkeypatch.setattr(approvals, "_look_at", look_at)

            async def check(caller: bytes, body: Any) -> None:
                came.put_nowait(None)
                await approvals.check_window(caller, body)

            made[0].wire.handlers.update(Checks(made).all[0].handlers(check, never))
            until_s = int(made.clock()) + 600
            bodies = [
                approval_bytes(CHAIN_ID, address(2), message("Window", number=number, receipts_count=1, until_s=until_s)) for number in (1, 2, 1, 3)
            ]
            for body in bodies:
                asks = asyncio.create_task(made[1].peers.ask(address(1), asking.META_APPROVE, body=body))
                await came.get()
                asks.cancel()
                await asyncio.gather(asks, return_exceptions=True)
            assert at_work == [1]
            last = asyncio.create_task(made[1].peers.ask(address(1), asking.META_APPROVE, body=bodies[0]))
            await came.get()
            gate.set()
            assert await last
            assert at_work == [1]
            await approvals.close()
