"""What a federated ledger promises of its operations, under an order that the test drives."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from chain.codec.registry import message_class
from sds_node.meta.federation import ledger as federated
from sds_node.meta.federation.application import OrderError
from sds_node.meta.federation.ledger import OrderRefused
from sds_node.meta.ledger.errors import BadValue, Busy, Unavailable
from sds_node.meta.ledger.log import MAX_OPERATION_BYTES, Result
from sds_node.meta.operations import LedgerRefused
from sds_node.meta.rules.refusals import OUT_OF_TIME, UNKNOWN_NODE, UNKNOWN_SENDER, WRONG_HEIGHT
from sds_node.meta.rules.wire import Operation, sign_operation
from sds_node.testing.order import Disagreement, DrivenOrder
from tests.sds_node.federation.orders import (
    FIRST_SCORE,
    Party,
    Standing,
    counted,
    driven,
    ended,
    exported,
    keys_of,
    meta_event,
    observed,
    observed_height,
    score_of,
    signing,
    until,
)
from tests.sds_node.postgres import Server, postgres
from tests.sds_node.rules.support import CHAIN_ID, event, message

__all__ = ["Server", "postgres"]

pytestmark = pytest.mark.asyncio


def abci(name: str, **fields: Any) -> Any:
    return message_class(f"tendermint.abci.{name}")(**fields)


def raw_operation(number: int, nonce: int, until_s: int, kind: str, body: Any) -> bytes:
    made = Operation(chain_id=CHAIN_ID, meta_node=keys_of(number).address, nonce=nonce, until_s=until_s)
    getattr(made, kind).CopyFrom(body)
    getattr(made, kind).SetInParent()
    return sign_operation(made, signing(number))


async def test_an_operation_proposed_at_one_is_on_all_with_equal_hashes_on_both_databases(tmp_path: Path, postgres: Server) -> None:
    order, parties = await driven(tmp_path, 4, Standing(), urls={1: postgres.database()})
    try:
        before = parties[0].ledger.head
        result = await parties[0].propose("node_statuses", counted())
        assert (result.is_applied, result.sequence) == (True, before.sequence + 1)
        await parties[3].propose("node_statuses", counted(5))
        for one in parties:
            await one.reached(before.sequence + 2)
        assert {one.ledger.head.app_hash for one in parties} == {parties[0].ledger.head.app_hash}
        assert parties[0].ledger.head.app_hash != before.app_hash
        assert [await score_of(one.ledger) for one in parties] == [FIRST_SCORE + 6] * 4
    finally:
        await ended(order, parties)


async def test_what_the_own_check_refuses_is_in_no_log_and_nobody_else_has_it(tmp_path: Path) -> None:
    order, parties = await driven(tmp_path, 4, Standing())
    try:
        first = parties[0].ledger.head
        with pytest.raises(LedgerRefused, match="no node 77") as caught:
            await parties[0].propose("node_statuses", message("NodeStatuses", nodes=[message("NodeSeen", node=77)]))
        assert caught.value.code == UNKNOWN_NODE
        for raw in (b"", b"something else", bytes(MAX_OPERATION_BYTES + 1)):
            with pytest.raises(BadValue):
                await parties[0].ledger.propose(raw)
        await order.next_block()
        assert {one.ledger.head.sequence for one in parties} == {first.sequence}
        assert parties[0].ledger.waiting == 0
    finally:
        await ended(order, parties)


async def test_of_two_that_observe_the_same_height_one_is_applied_and_the_other_is_refused_by_the_block(tmp_path: Path) -> None:
    order, parties = await driven(tmp_path, 4, Standing())
    try:
        body = observed(102, [0, 1, 2, 3])
        results = await asyncio.gather(parties[0].propose("observe", body), parties[1].propose("observe", body), return_exceptions=True)
        assert sum(isinstance(one, Result) for one in results) == 1
        refused = next(one for one in results if isinstance(one, LedgerRefused))
        assert refused.code == WRONG_HEIGHT
        await parties[2].reached(max(one.ledger.head.sequence for one in parties))
        assert await observed_height(parties[2].ledger) == 102
    finally:
        await ended(order, parties)


async def test_without_a_quorum_operations_wait_and_reading_goes_on(tmp_path: Path) -> None:
    order, parties = await driven(tmp_path, 4, Standing())
    try:
        await parties[2].order.stop()
        assert (await parties[0].propose("node_statuses", counted())).is_applied
        await parties[3].order.stop()
        height = order.height
        proposed = asyncio.create_task(parties[0].propose("node_statuses", counted()))
        await until(lambda: parties[0].ledger.waiting > 0)
        done, _ = await asyncio.wait([proposed], timeout=1.5)
        assert not done
        assert order.height == height
        assert await score_of(parties[0].ledger) == FIRST_SCORE + 1
        await parties[3].order.start()
        assert (await proposed).is_applied
        await parties[2].order.start()
        assert parties[2].ledger.head == parties[0].ledger.head
    finally:
        await ended(order, parties)


async def test_an_operation_whose_time_is_over_by_ledger_time_ends_as_out_of_time(tmp_path: Path) -> None:
    clock = Standing()
    order, parties = await driven(tmp_path, 4, clock)
    try:
        before = parties[0].ledger.head
        await parties[0].order.stop()
        proposed = asyncio.create_task(parties[0].propose("node_statuses", counted()))
        await until(lambda: parties[0].ledger.waiting > 0)
        clock.now_s += 601
        await order.next_block()
        await order.next_block()
        await parties[0].order.start()
        with pytest.raises(LedgerRefused) as caught:
            await proposed
        assert caught.value.code == OUT_OF_TIME
        assert parties[0].ledger.head.sequence == before.sequence
    finally:
        await ended(order, parties)


async def test_after_a_long_standstill_operations_wait_until_the_ledger_knows_the_time_again(tmp_path: Path) -> None:
    clock = Standing()
    order, parties = await driven(tmp_path, 4, clock)
    try:
        for one in parties:
            await one.order.stop()
        clock.now_s += 7_200
        proposed = asyncio.create_task(parties[0].propose("node_statuses", counted()))
        await until(lambda: parties[0].ledger.waiting > 0)
        for one in parties:
            await one.order.start()
        assert (await proposed).time_ms >= 7_200_000
    finally:
        await ended(order, parties)


async def test_a_member_that_was_away_catches_up_block_by_block_after_a_restart(tmp_path: Path) -> None:
    order, parties = await driven(tmp_path, 4, Standing())
    try:
        await parties[0].propose("node_statuses", counted())
        parties[1] = await parties[1].again()
        for _ in range(3):
            await parties[0].propose("node_statuses", counted())
        assert parties[1].ledger.head.sequence < parties[0].ledger.head.sequence
        await parties[1].order.start()
        assert parties[1].ledger.head._replace(log_hash=b"") == parties[0].ledger.head._replace(log_hash=b"")
        assert (await parties[1].propose("node_statuses", counted())).is_applied
    finally:
        await ended(order, parties)


async def test_all_of_many_operations_that_race_from_two_members_are_applied_once(tmp_path: Path) -> None:
    order, parties = await driven(tmp_path, 4, Standing())
    try:
        results = await asyncio.gather(*(parties[at % 2].propose("node_statuses", counted()) for at in range(400)))
        assert all(one.is_applied for one in results)
        assert len({one.sequence for one in results}) == 400
        assert await score_of(parties[0].ledger) == FIRST_SCORE + 400
    finally:
        await ended(order, parties)


async def test_a_used_nonce_is_followed_by_another_one(tmp_path: Path) -> None:
    order, parties = await driven(tmp_path, 4, Standing())
    try:
        for _ in range(5):
            await parties[0].propose("node_statuses", counted())
        parties[0].proposer._nonce = 1  # as if another process had gone on with these keys
        assert (await parties[0].propose("node_statuses", counted())).is_applied
        assert await score_of(parties[0].ledger) == FIRST_SCORE + 6
    finally:
        await ended(order, parties)


async def test_hooks_see_exactly_their_commit_before_the_next_block_begins(tmp_path: Path) -> None:
    order, parties = await driven(tmp_path, 1, Standing())
    ledger, seen = parties[0].ledger, []
    try:

        def look() -> None:
            with ledger.snapshot() as view:
                seen.append((view.head, ledger.head))

        def fail() -> None:
            raise RuntimeError("a hook that fails stops nobody")

        ledger.on_commit += [look, fail]
        for _ in range(3):
            await parties[0].propose("node_statuses", counted())
            assert seen[-1][0] == ledger.head  # hooks come before results
        assert all(one == other for one, other in seen)
    finally:
        await ended(order, parties)


async def test_an_operation_that_was_decided_does_not_come_again(tmp_path: Path) -> None:
    clock = Standing()
    order, parties = await driven(tmp_path, 1, clock)
    ledger = parties[0].ledger
    try:
        raw = raw_operation(0, 50, int(clock()) + 60, "node_statuses", counted())
        first = await ledger.propose(raw)
        assert first.is_applied
        with pytest.raises(OrderRefused):
            await parties[0].order.broadcast(raw)
        application = ledger.application
        assert list(application.prepare_proposal(abci("RequestPrepareProposal", txs=[raw], max_tx_bytes=1 << 20)).txs) == []
        parties[0] = await parties[0].again()
        await parties[0].order.start()
        with pytest.raises(OrderRefused, match="decided"):
            await parties[0].order.broadcast(raw)
    finally:
        await ended(order, parties)


async def test_one_operation_proposed_twice_at_once_is_applied_once_and_both_hear_of_it(tmp_path: Path) -> None:
    clock = Standing()
    order, parties = await driven(tmp_path, 1, clock)
    try:
        raw = raw_operation(0, 50, int(clock()) + 60, "node_statuses", counted())
        results = await asyncio.gather(parties[0].ledger.propose(raw), parties[0].ledger.propose(raw))
        assert results[0] == results[1]
        assert results[0].is_applied
        assert await score_of(parties[0].ledger) == FIRST_SCORE + 1
    finally:
        await ended(order, parties)


async def test_proposals_hold_only_operations_each_once_and_within_the_bytes_of_a_block(tmp_path: Path) -> None:
    clock = Standing()
    order, parties = await driven(tmp_path, 1, clock)
    try:
        application, until_s = parties[0].ledger.application, int(clock()) + 60
        some = [raw_operation(0, nonce, until_s, "node_statuses", counted()) for nonce in range(10, 20)]
        prepared = application.prepare_proposal(abci("RequestPrepareProposal", txs=[b"noise", *some, *some], max_tx_bytes=1 << 20))
        assert list(prepared.txs) == some
        size = 5 * (len(some[0]) + 3)
        few = application.prepare_proposal(abci("RequestPrepareProposal", txs=some, max_tx_bytes=size)).txs
        assert 0 < len(few) < 10
        assert list(few) == some[: len(few)]
        accepts = [
            application.process_proposal(abci("RequestProcessProposal", txs=txs)).status == 1
            for txs in (some, [], [*some, some[0]], [b"noise"], [b""], [bytes(MAX_OPERATION_BYTES + 1)])
        ]
        assert accepts == [True, True, False, False, False, False]
        stranger = raw_operation(7, 1, until_s, "node_statuses", counted())
        late = raw_operation(0, 1, int(clock()) - 1, "node_statuses", counted())
        forged = some[0][:-1] + bytes([some[0][-1] ^ 1])
        codes = [
            one.code for one in application.check_txs([abci("RequestCheckTx", tx=raw) for raw in (some[0], stranger, late, forged, b"noise", b"")])
        ]
        assert codes[0] == 0
        assert codes[1:3] == [UNKNOWN_SENDER, OUT_OF_TIME]
        assert all(codes[3:])
    finally:
        await ended(order, parties)


async def test_an_observed_change_of_meta_nodes_is_a_change_of_validators_and_one_always_stays(tmp_path: Path) -> None:
    order, parties = await driven(tmp_path, 1, Standing(), standby=1)
    try:

        def updates() -> dict[bytes, int]:
            answers = [abci("ResponseFinalizeBlock").FromString(raw) for raw in order.answers]
            return {bytes(one.pub_key.ed25519): one.power for answer in answers for one in answer.validator_updates}

        own, other = keys_of(0).ledger_consensus_pubkey, keys_of(1).ledger_consensus_pubkey
        await parties[0].propose("observe", observed(102, [0], event(meta=meta_event(1))))
        assert updates() == {other: 1}
        await parties[0].propose("observe", observed(103, [0, 1], event(meta=meta_event(1, is_active=False))))
        assert updates() == {other: 0}
        await parties[0].propose("observe", observed(104, [0], event(meta=meta_event(0, is_active=False))))
        assert updates() == {other: 0}
        assert own not in updates()
        with pytest.raises(LedgerRefused, match="no active meta node"):
            await parties[0].propose("node_statuses", counted())
    finally:
        await ended(order, parties)


async def test_only_meta_nodes_of_the_ledger_may_connect(tmp_path: Path) -> None:
    order, parties = await driven(tmp_path, 1, Standing(), standby=1)
    try:
        application = parties[0].ledger.application
        application.friends = frozenset({"ab" * 20})

        def code(path: str) -> int:
            return int(application.query(abci("RequestQuery", path=path)).code)

        known = [keys_of(0).address.hex(), keys_of(1).address.hex(), "ab" * 20]
        assert [code(f"/p2p/filter/id/{one}") for one in known] == [0, 0, 0]
        assert [code(f"/p2p/filter/id/{one}") for one in ("cd" * 20, "", "zz", "ab", "é")] == [1] * 5
        assert (code("/p2p/filter/addr/10.0.0.1:1"), code("/store")) == (0, 1)
    finally:
        await ended(order, parties)


async def test_another_ledger_does_not_come_in(tmp_path: Path) -> None:
    clock = Standing()
    order, parties = await driven(tmp_path, 4, clock)
    other = tmp_path / "other"
    other.mkdir()
    await exported(other, 3, clock)
    try:
        await parties[3].order.stop()
        await asyncio.to_thread(parties[3].ledger.close)
        parties[3] = await Party.opened(3, f"sqlite:///{other}/first.db", clock, parties[3].order)
        with pytest.raises(OrderError, match="genesis begins after operation"):
            await parties[3].order.start()
    finally:
        await ended(order, parties)


async def test_the_driven_order_tells_of_a_member_that_makes_something_else_of_a_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order, parties = await driven(tmp_path, 4, Standing())
    application = parties[2].ledger.application
    finalize = application.finalize_block

    def wrong(request: Any) -> Any:
        answer = finalize(request)
        answer.app_hash = bytes(32)
        return answer

    monkeypatch.setattr(application, "finalize_block", wrong)
    with pytest.raises(Disagreement, match="member 2"):
        await order.next_block()
    with pytest.raises(Disagreement):
        await ended(order, parties)


async def test_open_operations_are_bounded_forgotten_when_nobody_waits_and_fail_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(federated, "MAX_OPEN", 2)
    clock = Standing()
    order, parties = await driven(tmp_path, 4, clock)
    ledger = parties[0].ledger
    await parties[0].order.stop()
    proposed = [asyncio.create_task(ledger.propose(raw_operation(0, nonce, int(clock()) + 60, "node_statuses", counted()))) for nonce in (10, 11, 12)]
    with pytest.raises(Busy):
        await proposed[2]
    proposed[1].cancel()
    await asyncio.wait([proposed[1]])
    assert ledger.waiting == 1
    await ended(order, parties)
    with pytest.raises(Unavailable, match="closed"):
        await proposed[0]
    with pytest.raises(Unavailable):
        await ledger.propose(raw_operation(0, 13, int(clock()) + 60, "node_statuses", counted()))


async def test_the_log_is_pruned_between_blocks(tmp_path: Path) -> None:
    order, parties = await driven(tmp_path, 1, Standing())
    ledger = parties[0].ledger
    try:
        for _ in range(5):
            await parties[0].propose("node_statuses", counted())
        below = ledger.head.sequence - 1
        await asyncio.gather(asyncio.to_thread(ledger.prune, below), *(parties[0].propose("node_statuses", counted()) for _ in range(20)))
        assert ledger.head.base_sequence == below - 1
        parties[0] = await parties[0].again()
        assert parties[0].ledger.head.base_sequence == below - 1
    finally:
        await ended(order, parties)


async def test_blocks_may_be_forgotten_that_are_older_than_those_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order, parties = await driven(tmp_path, 1, Standing())
    try:
        parties[0] = await parties[0].again(keep_blocks=2)
        application, kept = parties[0].ledger.application, {}
        commit = application.commit

        def watched(request: Any) -> Any:
            answer = commit(request)
            kept[application.head.height] = answer.retain_height
            return answer

        monkeypatch.setattr(application, "commit", watched)
        await parties[0].order.start()
        for _ in range(3):
            await parties[0].propose("node_statuses", counted())
        assert kept
        assert all(retain == max(height - 2, 0) for height, retain in kept.items())
    finally:
        await ended(order, parties)


async def test_a_driven_order_needs_more_than_two_thirds(tmp_path: Path) -> None:
    order = DrivenOrder(3, Standing())
    assert not order.has_quorum
    for number, wanted in ((0, False), (1, False), (2, True)):
        order.member(number).is_there = True
        assert order.has_quorum is wanted
    await order.close()
