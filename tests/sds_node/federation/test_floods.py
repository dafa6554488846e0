"""What one meta node may have in a mempool, in a block and in the log, whatever it sends; honest ones stay within it by themselves."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from sds_node.meta.federation import bounds
from sds_node.meta.federation import ledger as federated
from sds_node.meta.federation.application import ACCEPT, CODE_WAITS, REJECT, LedgerApplication
from sds_node.meta.federation.bounds import MOST_IN_BLOCK, MOST_IN_BLOCK_BYTES, MOST_WAITING
from sds_node.meta.federation.ledger import UNDER_WAY, FederatedLedger
from sds_node.meta.ledger.engine import ReadView
from sds_node.meta.ledger.errors import CODE_DUPLICATE, Busy, DayUsed
from sds_node.meta.operations import LedgerRefused
from sds_node.meta.rules.refusals import BAD_FORM, USED_NONCE
from sds_node.meta.rules.tables import SENT
from sds_node.meta.rules.wire import Operation, SignedOperation, sign_operation
from tests.sds_node.federation.orders import FIRST_SCORE, Standing, counted, driven, ended, keys_of, score_of, signing, until
from tests.sds_node.federation.test_order import abci, raw_operation
from tests.sds_node.rules.support import message

pytestmark = pytest.mark.asyncio


def checked(application: LedgerApplication, *operations: bytes, is_again: bool = False) -> list[int]:
    """The codes of CheckTx."""
    return [one.code for one in application.check_txs([abci("RequestCheckTx", tx=raw, type=int(is_again)) for raw in operations])]


def accepted(application: LedgerApplication, *operations: bytes) -> bool:
    """What ProcessProposal says of a block."""
    return bool(application.process_proposal(abci("RequestProcessProposal", txs=operations)).status == ACCEPT)


def prepared(application: LedgerApplication, *operations: bytes) -> list[bytes]:
    return list(application.prepare_proposal(abci("RequestPrepareProposal", txs=operations, max_tx_bytes=4 << 20)).txs)


async def test_of_one_sender_sixty_two_operations_wait_in_a_mempool(tmp_path: Path) -> None:
    clock = Standing()
    order, parties = await driven(tmp_path, 4, clock)
    try:
        until_s = int(clock()) + 60
        application = parties[0].ledger.application
        some = [raw_operation(3, nonce, until_s, "node_statuses", counted()) for nonce in range(10, 10 + MOST_WAITING + 2)]
        assert checked(application, *some[:MOST_WAITING]) == [0] * MOST_WAITING
        assert checked(application, *some[MOST_WAITING:]) == [CODE_WAITS] * 2
        assert checked(application, some[0]) == [0], "what waits is not counted twice"
        assert checked(application, raw_operation(2, 10, until_s, "node_statuses", counted())) == [0], "others have room of their own"
        # One is decided, and another one's nonce is: both make room.
        for raw in (some[0], raw_operation(3, 11, until_s + 1, "node_statuses", counted())):
            assert (await parties[3].ledger.propose(raw)).is_applied
        await until(lambda: application.head.sequence == parties[3].ledger.head.sequence)
        assert checked(application, *some[:2], is_again=True) == [CODE_DUPLICATE, USED_NONCE]
        assert checked(application, *some[MOST_WAITING:]) == [0, 0]
        assert checked(application, raw_operation(3, 90, until_s, "node_statuses", counted())) == [CODE_WAITS]
        application.info(abci("RequestInfo"))
        assert checked(application, raw_operation(3, 90, until_s, "node_statuses", counted())) == [0], (
            "CometBFT has begun anew, with an empty mempool"
        )
    finally:
        await ended(order, parties)


async def test_what_waits_is_forgotten_when_its_time_is_over(tmp_path: Path) -> None:
    clock = Standing()
    order, parties = await driven(tmp_path, 4, clock)
    try:
        application = parties[0].ledger.application
        some = [raw_operation(3, nonce, int(clock()) + 5, "node_statuses", counted()) for nonce in range(10, 10 + MOST_WAITING)]
        assert checked(application, *some) == [0] * MOST_WAITING
        clock.now_s += 6
        await parties[1].propose("node_statuses", counted())
        await until(lambda: application.head.sequence == parties[1].ledger.head.sequence)
        assert len(application._waiting) == 0
        assert checked(application, raw_operation(3, 90, int(clock()) + 5, "node_statuses", counted())) == [0]
    finally:
        await ended(order, parties)


async def test_a_nonce_that_was_used_gets_into_no_mempool(tmp_path: Path) -> None:
    clock = Standing()
    order, parties = await driven(tmp_path, 4, clock)
    try:
        until_s = int(clock()) + 60
        assert (await parties[0].ledger.propose(raw_operation(0, 100, until_s, "node_statuses", counted()))).is_applied
        application = parties[0].ledger.application
        codes = checked(application, *(raw_operation(0, nonce, until_s, "tick", message("Tick")) for nonce in (100, 37, 38, 99, 101, 0)))
        assert codes == [USED_NONCE, USED_NONCE, 0, 0, 0, BAD_FORM]
    finally:
        await ended(order, parties)


async def test_a_block_of_what_no_meta_node_signed_or_with_too_much_of_one_is_refused_by_honest_ones(tmp_path: Path) -> None:
    clock = Standing()
    order, parties = await driven(tmp_path, 4, clock)
    try:
        until_s = int(clock()) + 60
        mine, other = parties[0].ledger.application, parties[1].ledger.application
        many = [raw_operation(3, nonce, until_s, "node_statuses", counted()) for nonce in range(10, 10 + MOST_IN_BLOCK + 1)]
        few = [raw_operation(2, nonce, until_s, "node_statuses", counted()) for nonce in range(10, 13)]
        forged = few[0][:-1] + bytes([few[0][-1] ^ 1])
        elsewhere = sign_operation(Operation(chain_id="else", meta_node=keys_of(2).address, nonce=9, until_s=until_s, tick={}), signing(2))
        stranger = raw_operation(7, 1, until_s, "node_statuses", counted())
        assert checked(mine, *few) == [0] * 3
        for application in (mine, other):  # one that has checked them before, one that has not
            honest = prepared(application, stranger, *many, forged, *few, elsewhere, b"noise")
            assert honest == [*many[:MOST_IN_BLOCK], *few]
            assert accepted(application, *honest)
            for junk in (stranger, forged, elsewhere, b"noise", many[-1]):
                assert not accepted(application, *honest, junk)
        assert accepted(other, many[-1])
    finally:
        await ended(order, parties)


async def test_a_block_has_two_mebibytes_of_one_sender_at_most(tmp_path: Path) -> None:
    clock = Standing()
    order, parties = await driven(tmp_path, 4, clock)
    try:
        until_s = int(clock()) + 60
        large = message("NodeStatuses", nodes=[message("NodeSeen", node=number, endpoint="x" * 100) for number in range(1, 8_001)])
        some = [raw_operation(3, nonce, until_s, "node_statuses", large) for nonce in range(10, 13)]
        assert 2 * len(some[0]) < MOST_IN_BLOCK_BYTES < 3 * len(some[0])
        application = parties[0].ledger.application
        assert prepared(application, *some) == some[:2]
        assert [accepted(application, *some[:count]) for count in (2, 3)] == [True, False]
    finally:
        await ended(order, parties)


async def test_who_has_filled_its_day_of_the_log_is_in_no_block_until_the_next_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Standing()
    order, parties = await driven(tmp_path, 4, clock)
    try:
        for at in (2, 3, 3, 3):
            await parties[at].propose("node_statuses", counted())
        for one in parties:
            await until(lambda one=one: one.ledger.head.sequence == parties[3].ledger.head.sequence)  # type: ignore[misc]
        raw, other = (raw_operation(number, 50, int(clock()) + 3_600, "node_statuses", counted()) for number in (3, 2))
        monkeypatch.setattr(bounds, "MOST_A_DAY_BYTES", 2 * len(raw))
        application = parties[1].ledger.application
        assert checked(application, raw, other) == [CODE_WAITS, 0]
        assert prepared(application, raw, other) == [other]
        assert [accepted(application, one) for one in (raw, other)] == [False, True]
        next_day_s = (int(clock()) // 86_400 + 1) * 86_400
        request = abci("RequestProcessProposal", txs=[raw_operation(3, 50, next_day_s + 600, "node_statuses", counted())])
        for second, status in ((next_day_s - 1, REJECT), (next_day_s, ACCEPT)):
            request.time.seconds = second
            assert application.process_proposal(request).status == status, "by the time that the block will have"
        clock.now_s = next_day_s
        await parties[2].propose("node_statuses", counted())
        await until(lambda: application.head.sequence == parties[2].ledger.head.sequence)
        late = raw_operation(3, 51, int(clock()) + 60, "node_statuses", counted())
        assert checked(application, late) == [0]
        assert prepared(application, late) == [late]
    finally:
        await ended(order, parties)


def statuses_of(*nodes: int, endpoint: str = "") -> Any:
    """Of nodes that there are not: in good form, and refused by the rules."""
    return message("NodeStatuses", nodes=[message("NodeSeen", node=number, endpoint=endpoint) for number in nodes])


async def counted_and_in_log(ledger: FederatedLedger, number: int) -> tuple[int, int]:
    """Bytes of a meta node by the rules, and as they are in the log since the ledger has blocks."""

    def look(view: ReadView) -> tuple[int, int]:
        address = keys_of(number).address
        sent = view.get(SENT, (address,))
        logged = [one.operation for one in view.entries(0, 10_000)]
        senders = [Operation.FromString(SignedOperation.FromString(raw).body).meta_node for raw in logged]
        return sent.size_bytes if sent is not None else 0, sum(len(raw) for raw, sender in zip(logged, senders, strict=True) if sender == address)

    found: tuple[int, int] = await ledger.query(look)
    return found


async def test_of_operations_under_one_nonce_blocks_hold_one_and_every_byte_in_the_log_is_counted(tmp_path: Path) -> None:
    clock = Standing()
    order, parties = await driven(tmp_path, 4, clock)
    try:
        until_s = int(clock()) + 60
        mine = parties[0].ledger
        small = raw_operation(3, 10, until_s, "node_statuses", counted())
        large = [raw_operation(3, 10, until_s, "node_statuses", statuses_of(*range(77 + at, 377 + at), endpoint="x" * 100)) for at in range(61)]
        assert checked(mine.application, small, *large) == [0, *[CODE_WAITS] * 61]
        assert prepared(mine.application, small, *large) == [small]
        assert [accepted(mine.application, *block) for block in ([small], large[:1], [small, large[0]])] == [True, True, False]
        order._pool.update(dict.fromkeys([small, *large]))  # a mempool of its own
        refused = raw_operation(3, 11, until_s, "node_statuses", statuses_of(77))
        order._pool[refused] = None
        assert (await parties[1].propose("node_statuses", counted())).is_applied
        await until(lambda: not order._pool)
        one_of_each = {Operation.FromString(SignedOperation.FromString(bytes(raw)).body).nonce: raw for block in order.blocks for raw in block.txs}
        assert sum(len(block.txs) for block in order.blocks) == len(one_of_each) == 3
        for number in (1, 3):
            by_rules, in_log = await counted_and_in_log(mine, number)
            assert by_rules == in_log > 0
    finally:
        await ended(order, parties)


async def test_a_block_with_anything_that_was_decided_or_is_out_of_time_is_refused(tmp_path: Path) -> None:
    clock = Standing()
    order, parties = await driven(tmp_path, 4, clock)
    try:
        until_s = int(clock()) + 60
        applied = [raw_operation(number, 10, until_s, "node_statuses", counted()) for number in (2, 3)]
        refused = raw_operation(3, 11, until_s, "node_statuses", statuses_of(77))
        fresh = raw_operation(3, 12, until_s, "node_statuses", counted())
        for raw in applied:
            assert (await parties[1].ledger.propose(raw)).is_applied
        order._pool[refused] = None
        await parties[1].propose("node_statuses", counted())
        await until(lambda: not order._pool)
        application = parties[0].ledger.application
        application._decided.clear()  # as on one that was begun anew
        for raw in (*applied, refused):
            assert [accepted(application, *block) for block in ([raw], [fresh, raw], [fresh])] == [False, False, True]
            assert prepared(application, raw, fresh) == [fresh]
        ahead = raw_operation(3, 13, int(clock()) + 3_601, "node_statuses", counted())
        over = raw_operation(3, 14, int(clock()) - 1, "node_statuses", counted())
        behind = raw_operation(3, 100, until_s, "node_statuses", counted())
        assert [accepted(application, one) for one in (ahead, over)] == [False, False]
        assert prepared(application, ahead, over, fresh, behind) == [fresh, behind]
        assert [accepted(application, *block) for block in ([fresh, behind], [behind, fresh])] == [True, False], "too far behind the one before"
    finally:
        await ended(order, parties)


async def test_a_flood_of_one_delays_nobody_else(tmp_path: Path) -> None:
    clock = Standing()
    order, parties = await driven(tmp_path, 4, clock)
    try:
        until_s = int(clock()) + 60
        for nonce in range(1, 200):  # refused by the rules, each of them, but in good form
            flood = raw_operation(3, nonce, until_s, "node_statuses", message("NodeStatuses", nodes=[message("NodeSeen", node=77)]))
            order._pool[flood] = None  # a mempool of its own, which bounds nothing
        results = await asyncio.gather(*(parties[0].propose("node_statuses", counted()) for _ in range(100)))
        assert all(one.is_applied for one in results)
        for block in order.blocks:
            senders = Counter(Operation.FromString(SignedOperation.FromString(bytes(raw)).body).meta_node for raw in block.txs)
            assert all(count <= MOST_IN_BLOCK for count in senders.values())
        by_rules, in_log = await counted_and_in_log(parties[0].ledger, 3)
        assert by_rules == in_log > 0
    finally:
        await ended(order, parties)


async def test_an_operation_whose_nonce_another_one_has_used_meanwhile_is_refused_without_a_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(federated, "AGAIN_S", 0.05)
    clock = Standing()
    order, parties = await driven(tmp_path, 4, clock)
    try:
        for number in (2, 3):
            await parties[number].order.stop()  # no quorum
        first, second = (raw_operation(0, 50, int(clock()) + hold_s, "node_statuses", counted()) for hold_s in (60, 61))
        waiting = asyncio.create_task(parties[1].ledger.propose(second))
        await until(lambda: second in order._pool)
        await parties[1].order.stop()
        order._pool = {first: None}  # what was given is forgotten, and another one came in
        for number in (2, 3):
            await parties[number].order.start()
        await until(lambda: parties[0].ledger.head.sequence == 3)
        assert not waiting.done()
        await parties[1].order.start()
        assert (await waiting).code == USED_NONCE
        assert await score_of(parties[1].ledger) == FIRST_SCORE + 1
    finally:
        await ended(order, parties)


async def test_only_so_many_operations_of_one_are_under_way_at_once(tmp_path: Path) -> None:
    order, parties = await driven(tmp_path, 4, Standing())
    try:
        for number in (2, 3):
            await parties[number].order.stop()  # no quorum
        proposed = [asyncio.create_task(parties[0].propose("node_statuses", counted())) for _ in range(3 * UNDER_WAY)]
        await until(lambda: len(order._pool) == UNDER_WAY)
        with pytest.raises(LedgerRefused):  # what the own check refuses waits for no turn
            await parties[0].propose("node_statuses", message("NodeStatuses", nodes=[message("NodeSeen", node=77)]))
        assert len(order._pool) == UNDER_WAY
        for number in (2, 3):
            await parties[number].order.start()
        assert all(one.is_applied for one in await asyncio.gather(*proposed))
        assert max(len(block.txs) for block in order.blocks) == UNDER_WAY
    finally:
        await ended(order, parties)


# --- users and what a meta node owes -----------------------------------------------------------------------------------------------------


def of_users(number: int, nonce: int, until_s: int, name_bytes: int = 0) -> bytes:
    """A commit of one object, which only rules would refuse."""
    file = message("FileRecord", lookup_id=bytes(32), name=b"n" * name_bytes)
    return raw_operation(number, nonce, until_s, "commit", message("Commit", lease_id=bytes(32), objects=[message("NewObject", file=file)]))


async def test_what_users_ask_for_leaves_a_quarter_of_a_mempool_and_of_a_block(tmp_path: Path) -> None:
    clock = Standing()
    order, parties = await driven(tmp_path, 4, clock)
    try:
        until_s = int(clock()) + 60
        application = parties[0].ledger.application
        many = [of_users(3, nonce, until_s) for nonce in range(10, 60)]
        most = MOST_IN_BLOCK - MOST_IN_BLOCK // 4
        owed = [raw_operation(3, nonce, until_s, kind, body) for nonce, kind, body in owed_kinds(60)]
        assert checked(application, *many) == [0] * most + [CODE_WAITS] * (len(many) - most)
        assert checked(application, *owed) == [0] * len(owed)
        assert prepared(application, *many, *owed) == [*many[:most], *owed]
        assert accepted(application, *many[:most], *owed)
        assert not accepted(application, *many[: most + 1])
        large = [of_users(2, nonce, until_s, 700_000) for nonce in range(10, 13)]
        due = raw_operation(2, 13, until_s, "node_statuses", statuses_of(*range(77, 3_077), endpoint="x" * 110))
        assert prepared(application, *large, due) == [*large[:2], due], "1.5 MiB of users and the rest of 2"
        assert [accepted(application, *block) for block in (large, [*large[:2], due])] == [False, True]
    finally:
        await ended(order, parties)


def owed_kinds(nonce: int) -> list[tuple[int, str, Any]]:
    """What a meta node does by itself, (nonce, kind, body): among it a commit that ends a lease."""
    bodies = {
        "window": "Window", "settle_leases": "SettleLeases", "release": "Release", "node_statuses": "NodeStatuses", "observe": "Observe",
        "move": "Move", "close_epoch": "CloseEpoch", "tick": "Tick",
    }  # fmt: skip
    made = [(kind, message(name)) for kind, name in bodies.items()]
    return [(nonce + at, kind, body) for at, (kind, body) in enumerate([*made, ("commit", message("Commit", lease_id=bytes(32), unused_noz=5))])]


async def test_what_users_ask_for_leaves_a_quarter_of_the_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Standing()
    order, parties = await driven(tmp_path, 4, clock)
    try:
        ledger, until_s = parties[3].ledger, int(clock()) + 60
        for _ in range(3):
            await parties[3].propose("node_statuses", counted())
        for one in parties:
            await until(lambda one=one: one.ledger.head.sequence == ledger.head.sequence)  # type: ignore[misc]
        sent, _ = await counted_and_in_log(ledger, 3)
        own, other = keys_of(3).address, keys_of(2).address
        assert (ledger.has_room(own, is_users=True), ledger.has_room(own, is_users=False)) == (True, True)
        monkeypatch.setattr(bounds, "MOST_A_DAY_BYTES", sent + sent // 4)
        assert (ledger.has_room(own, is_users=True), ledger.has_room(own, is_users=False), ledger.has_room(other, is_users=True)) == (
            False,
            True,
            True,
        )
        raw, owed = of_users(3, 50, until_s), [raw_operation(3, nonce, until_s, kind, body) for nonce, kind, body in owed_kinds(51)]
        application = parties[0].ledger.application
        assert checked(application, raw, *owed) == [CODE_WAITS, *[0] * len(owed)]
        assert prepared(application, raw, *owed) == owed
        assert [accepted(application, one) for one in (raw, *owed)] == [False, *[True] * len(owed)]
        with pytest.raises(DayUsed, match="another meta node"):
            await ledger.propose(raw)
        assert (await parties[3].propose("node_statuses", counted())).is_applied
        monkeypatch.setattr(bounds, "MOST_A_DAY_BYTES", sent)
        assert not ledger.has_room(own, is_users=False)
    finally:
        await ended(order, parties)


async def test_what_no_block_takes_leaves_a_mempool_after_the_next_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else CometBFT would make one empty block after the other."""
    clock = Standing()
    order, parties = await driven(tmp_path, 4, clock)
    try:
        assert (await parties[3].propose("node_statuses", counted())).is_applied
        application = parties[3].ledger.application
        until_s = int(clock()) + 60
        fine, owed, early = (
            of_users(3, 50, until_s),
            raw_operation(3, 51, until_s, "node_statuses", counted()),
            raw_operation(3, 52, int(clock()) + 3_700, "node_statuses", counted()),
        )
        assert checked(application, fine, owed, early) == [0, 0, 0]
        assert prepared(application, fine, owed, early) == [fine, owed]
        assert checked(application, fine, owed, early, is_again=True) == [0, 0, CODE_WAITS]
        monkeypatch.setattr(bounds, "MOST_A_DAY_BYTES", (await counted_and_in_log(parties[3].ledger, 3))[0] + 1)
        assert checked(application, fine, owed, is_again=True) == [CODE_WAITS, 0]
        assert checked(application, fine, is_again=True) == [CODE_WAITS], "also where it is not counted"
        assert len(application._waiting) == 1
    finally:
        await ended(order, parties)


async def test_operations_of_users_that_wait_leave_room_for_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "_OF_USERS", frozenset({"node_statuses"}))
    monkeypatch.setattr(federated, "MAX_OF_USERS", 3)
    clock = Standing()
    order, parties = await driven(tmp_path, 4, clock)
    try:
        for number in (2, 3):
            await parties[number].order.stop()  # no quorum
        ledger = parties[0].ledger
        some = [asyncio.create_task(parties[0].propose("node_statuses", counted())) for _ in range(3)]
        await until(lambda: ledger.waiting == 3)
        with pytest.raises(Busy, match="of users"):
            await parties[0].propose("node_statuses", counted())
        clock.now_s += 61
        owed = asyncio.create_task(parties[0].propose("tick", message("Tick")))
        await until(lambda: ledger.waiting == 4)
        monkeypatch.setattr(federated, "MAX_OF_USERS", 100)
        monkeypatch.setattr(federated, "MAX_BYTES_OF_USERS", ledger._users_bytes)
        with pytest.raises(Busy, match="of users"):
            await parties[0].propose("node_statuses", counted())
        for number in (2, 3):
            await parties[number].order.start()
        assert all(one.is_applied for one in await asyncio.gather(*some, owed))
        assert (ledger._users_count, ledger._users_bytes, ledger._open_bytes) == (0, 0, 0)
    finally:
        await ended(order, parties)


async def test_operations_of_users_of_a_day_that_is_used_keep_nothing_else_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "_OF_USERS", frozenset({"node_statuses"}))
    monkeypatch.setattr(federated, "AGAIN_S", 0.05)
    clock = Standing()
    order, parties = await driven(tmp_path, 4, clock)
    waiting: list[asyncio.Task[Any]] = []
    try:
        assert (await parties[0].propose("node_statuses", counted())).is_applied
        sent, _ = await counted_and_in_log(parties[0].ledger, 0)
        for number in (2, 3):
            await parties[number].order.stop()  # no quorum
        waiting = [asyncio.create_task(parties[0].propose("node_statuses", counted())) for _ in range(UNDER_WAY + 5)]
        await until(lambda: len(order._pool) == UNDER_WAY)
        monkeypatch.setattr(bounds, "MOST_A_DAY_BYTES", sent + 1)
        clock.now_s += 61
        owed = asyncio.create_task(parties[0].propose("tick", message("Tick")))
        given, others = waiting[:UNDER_WAY], waiting[UNDER_WAY:]
        assert all(isinstance(one, DayUsed) for one in await asyncio.gather(*others, return_exceptions=True))
        for number in (2, 3):
            await parties[number].order.start()
        assert (await owed).is_applied
        assert not any(one.done() for one in given), "others may have them: what became of them is known when their time is over"
        monkeypatch.setattr(bounds, "MOST_A_DAY_BYTES", 1 << 30)
        assert all(one.is_applied for one in await asyncio.gather(*given))
    finally:
        for one in waiting:
            one.cancel()
        await ended(order, parties)
