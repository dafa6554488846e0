"""Epochs: leaves add up to the ledger's lines, once; the roots can be checked by those who are paid, and by the chain's own rules."""

from __future__ import annotations

import random
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from modules.settlement.commitment import Line, line_bytes
from modules.settlement.leaves import fault, leaf_bytes, sort_key
from modules.settlement.trees import EMPTY_ROOT, climb, plain_root, sum_root
from sds_node import proofs
from sds_node.meta.books.books import BooksError
from sds_node.meta.books.epochs import EpochBooks
from sds_node.meta.books.wallets import Before, changed_wallets, trees_of
from sds_node.meta.rules import tables
from tests.sds_node.books.world import CHAIN_ID, START_S, World, message, meta_key, new_object, owner, public, sold, wallet, world

pytestmark = pytest.mark.asyncio


def epochs(made: World) -> EpochBooks:
    return EpochBooks(made.ledger, made.books, made.windows)


async def close(made: World, number: int = 1) -> tuple[int, list[Line]]:
    """The ledger closes an epoch: (when, its lines)."""
    await made.proposer.propose("close_epoch", message("CloseEpoch", epoch=number))
    row = await made.row(tables.EPOCH, number)
    lines = await made.ledger.query(lambda view: view.scan(tables.EPOCH_LINE, (number,), limit=1_000))
    return row.closed_ms, [Line(*line[1:]) for line in lines]


async def report(made: World, number: int) -> None:
    row = await made.row(tables.EPOCH, number)
    event = message(
        "ObservedReport", epoch=number, reference="sc1", lines_root=row.lines_root, lines_count=row.lines_count, maturity_epoch=number + 4
    )  # fmt: skip
    await made.observe(message("ObservedEvent", report=event))


async def earn(made: World, *noz: tuple[int, int]) -> list[Any]:
    """(node, noz) in one window."""
    lease = await made.lease(100_000)
    leaves = [made.leaf(lease, node, amount) for node, amount in noz]
    for node in {node for node, _ in noz}:
        await made.hand_in(made.peer(node), *[leaf for (who, _), leaf in zip(noz, leaves, strict=True) if who == node])
    await made.windows.settle()
    return leaves


async def test_an_epoch_reports_every_leaf_once_and_its_roots_are_settlements(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        books = epochs(made)
        leaves = await earn(made, (1, 100), (2, 200), (1, 300), (3, 7))
        closed_ms, lines = await close(made)
        assert {(line.wallet, line.noz) for line in lines} == {(owner(1), 400), (owner(2), 200), (owner(3), 7)}
        data = await books.epoch(1, closed_ms, lines)
        ordered = sorted(leaves, key=lambda leaf: sort_key(leaf) or (b"", 0, 0, b""))
        raw = [leaf_bytes(leaf) for leaf in ordered]
        assert (data.receipts_root, 607) == sum_root([(one, leaf.noz) for one, leaf in zip(raw, ordered, strict=True)])
        assert data.receipts_count == 4
        assert data.totals_root == plain_root([line_bytes(line) for line in lines])
        batch = await books.batch(1)
        assert batch == b"".join(len(one).to_bytes(4, "big") + one for one in raw)
        assert data.data_ref == "sha256:" + sha256(batch).hexdigest()
        assert data.debits_root == plain_root([proofs.balance_leaf(wallet(), 607, 0)])
        assert data.audits_root == EMPTY_ROOT
        assert await books.epoch(1, closed_ms, lines) == data
        keys = {made.me: public(meta_key(1))}
        assert all(fault(leaf, CHAIN_ID, keys.get) is None for leaf in ordered)
        await report(made, 1)
        await books.reported(1)
        await earn(made, (2, 50))
        made.clock.now_s += 601
        closed_ms, lines = await close(made, 2)
        assert (await books.epoch(2, closed_ms, lines)).receipts_count == 1


async def test_challenges_are_answered_with_a_path_to_the_root(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        books = epochs(made)
        await earn(made, *((1 + at % 3, at + 1) for at in range(13)))
        data = await books.epoch(1, *await close(made))
        for index in range(data.receipts_count):
            proof = await books.leaf_with_path(1, index)
            path = [(step.hash, int(step.sum_noz)) for step in proof.path]
            reached = climb(leaf_bytes(proof.leaf), proof.leaf.noz, index, data.receipts_count, path)
            assert reached is not None
            assert (reached.root, reached.total_noz) == (data.receipts_root, 91)
        with pytest.raises(BooksError, match="there is no leaf 13"):
            await books.leaf_with_path(1, 13)
        with pytest.raises(BooksError, match="no data of epoch 2"):
            await books.leaf_with_path(2, 0)


async def test_lines_that_leaves_do_not_add_up_to_are_not_reported(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        books = epochs(made)
        await earn(made, (1, 100), (2, 200))
        closed_ms, lines = await close(made)
        inflated = [lines[0]._replace(noz=lines[0].noz + 1), *lines[1:]]
        with pytest.raises(BooksError, match=f"has {inflated[0].noz} noz .* have {lines[0].noz}"):
            await books.epoch(1, closed_ms, inflated)
        with pytest.raises(BooksError, match="the leaves here have 0"):
            await books.epoch(1, closed_ms, [*lines, Line(b"\xff" * 20, 1, 1, 5)])
        with pytest.raises(BooksError, match="the ledger has 0"):
            await books.epoch(1, closed_ms, [Line(line.wallet, 2, line.fund, line.noz) for line in lines])
        assert (await books.epoch(1, closed_ms, lines)).receipts_count == 2


async def test_windows_after_the_close_wait_for_the_next_epoch_even_in_the_same_millisecond(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        books = epochs(made)
        await earn(made, (1, 100))
        closed_ms, lines = await close(made)
        await earn(made, (1, 55))  # the clock stands still: the same millisecond
        assert (await books.epoch(1, closed_ms, lines)).receipts_count == 1
        await report(made, 1)
        await books.reported(1)
        made.clock.now_s += 601
        closed_ms, lines = await close(made, 2)
        assert [line.noz for line in lines] == [55]
        assert (await books.epoch(2, closed_ms, lines)).receipts_count == 1


async def test_an_epoch_that_is_closed_again_has_what_came_in_between(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        books = epochs(made)
        await earn(made, (1, 100))
        first = await books.epoch(1, *await close(made))
        await earn(made, (1, 50))
        made.clock.now_s += 601
        second = await books.epoch(1, *await close(made))
        assert (first.receipts_count, second.receipts_count) == (1, 2)


async def test_a_void_epochs_leaves_are_reported_again(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        books = epochs(made)
        await earn(made, (1, 100))
        first = await books.epoch(1, *await close(made))
        await report(made, 1)
        await books.reported(1)
        await made.observe(message("ObservedEvent", voided=message("VoidedEpoch", epoch=1)))
        await books.voided(1)
        await earn(made, (1, 11))
        made.clock.now_s += 601
        closed_ms, lines = await close(made, 2)
        assert [line.noz for line in lines] == [111]
        second = await books.epoch(2, closed_ms, lines)
        assert (first.receipts_count, second.receipts_count) == (1, 2)
        with pytest.raises(BooksError, match="void"):
            await books.epoch(1, closed_ms, lines)


async def test_an_idle_epoch_has_empty_trees(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        data = await epochs(made).epoch(1, *await close(made))
        assert (data.receipts_root, data.receipts_count, data.totals_root, data.debits_root) == (EMPTY_ROOT, 0, EMPTY_ROOT, EMPTY_ROOT)


async def test_a_wallet_can_check_its_balance_and_its_files(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        books = epochs(made)
        lease = await made.lease(100_000)
        for counter in range(5):
            made_object = new_object(counter, 1_000, [1, 2, 3], 1, [made.serial()])
            await made.proposer.propose("commit", message("Commit", lease_id=lease.id, objects=[made_object]))
        data = await books.epoch(1, *await close(made))
        proof = await books.balance_proof(1, wallet())
        assert proof is not None
        row = await made.row(tables.WALLET, wallet())
        assert proofs.proved_balance(data.balances_root, proof, wallet()) == (row.paid_noz, 0)
        assert proofs.proved_balance(data.balances_root, proof, wallet(2)) is None
        assert proofs.proved_balance(data.files_root, proof, wallet()) is None
        assert await books.balance_proof(1, b"\x01" * 20) is None
        lookup = sha256(b"lookup3").digest()
        file = await books.file_proof(1, wallet(), lookup)
        assert file is not None
        assert lookup in file.record.leaf
        assert proofs.is_file_proved(data.files_root, file, wallet())
        assert not proofs.is_file_proved(data.balances_root, file, wallet())
        assert await books.file_proof(1, wallet(), b"x" * 32) is None
        another = new_object(9, 1_000, [1, 2, 3], 1, [made.serial()])
        await made.proposer.propose("commit", message("Commit", lease_id=lease.id, objects=[another]))
        with pytest.raises(BooksError, match="the next epoch proves them"):
            await books.file_proof(1, wallet(), lookup)


async def test_leaves_of_mature_epochs_are_forgotten_after_a_week_and_no_others(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        books = EpochBooks(made.ledger, made.books, made.windows, made.clock)
        for number in (1, 2):
            await earn(made, (1, 100), (2, 5))
            made.clock.now_s += 601
            await books.epoch(number, *await close(made, number))
            await report(made, number)
            await books.reported(number)
        await earn(made, (1, 7))
        made.clock.now_s += 8 * 86_400
        assert await books.forget() == 0  # not mature
        for number in (3, 4, 5):
            made.clock.now_s += 601
            await books.epoch(number, *await close(made, number))
            await report(made, number)
            await books.reported(number)
        assert await books.forget(1) == 1
        assert [await books.forget(), await books.forget()] == [1, 0]
        assert len(await made.books.do(lambda db: made.books.leaves_where(db, "state = 3", ()))) == 3


async def test_random_histories_report_every_leaf_once(tmp_path: Path) -> None:
    """Receipts, windows, restarts of the maker, epochs, reports and void ones in any order."""
    chosen = random.Random(3)
    async with world(tmp_path) as made:
        books, number, reported, void = epochs(made), 1, dict[int, int](), set[int]()
        lease, earned_noz = await made.lease(10**9, seconds=3_600), 0
        for _ in range(60):
            step = chosen.randrange(6)
            if made.clock() > START_S + 3_000:
                break
            if step <= 2:
                node = chosen.choice((1, 2, 3))
                leaves = [made.leaf(lease, node, chosen.randrange(1, 500)) for _ in range(chosen.randrange(1, 5))]
                earned_noz += sum(leaf.noz for leaf in leaves)
                await made.hand_in(made.peer(node), *leaves)
            elif step == 3:
                await made.windows.settle()
                books = epochs(made)
            elif step == 4 and len(reported) < 4:
                closed_ms, lines = await close(made, number)
                await books.epoch(number, closed_ms, lines)
                if chosen.random() < 0.6:
                    await made.windows.settle()
                await report(made, number)
                await books.reported(number)
                reported[number] = sum(line.noz for line in lines)
                number += 1
                made.clock.now_s += 601
            elif reported and len(void) < 2:
                gone = chosen.choice(sorted(reported))
                if gone not in void:
                    void.add(gone)
                    await made.observe(message("ObservedEvent", voided=message("VoidedEpoch", epoch=gone)))
                    await books.voided(gone)
            for caller in made.callers:
                await caller.close()
            made.callers.clear()
        await made.windows.settle()
        closed_ms, lines = await close(made, number)
        await books.epoch(number, closed_ms, lines)
        assert len(reported) >= 2
        assert void
        rest = sum(line.noz for line in lines)
        assert rest + sum(noz for epoch, noz in reported.items() if epoch not in void) == earned_noz


async def test_files_that_did_not_change_are_not_read_again_and_the_tree_is_the_same(tmp_path: Path) -> None:
    chosen = random.Random(5)
    async with world(tmp_path, noz=10**12) as made:
        for number in (2, 3, 4):
            await made.observe(sold(number, 10**12))
        before: Before | None = None
        counter, reread = 0, 0
        for _ in range(40):
            for _ in range(chosen.randrange(3)):
                counter += 1
                await change_files(made, chosen, counter)
            with made.ledger.snapshot() as view:
                found, full = trees_of(view, before), trees_of(view, None)
                assert found == full
                changed = changed_wallets(view, before.sequence) if before is not None else None
                reread += 4 if changed is None else len(changed)
                before = Before(view.head.sequence, b"".join(full[1]))
        assert counter > 20
        assert reread < 80  # of 160
        await made.observe(sold(1, 1))
        made.ledger.prune(made.ledger.head.sequence)
        with made.ledger.snapshot() as view:
            assert changed_wallets(view, 1) is None  # the log does not tell any more


async def change_files(made: World, chosen: random.Random, counter: int) -> None:
    """A commit, also over an older file, a rename, a deletion, or the end of a term and its grace."""
    number = chosen.randrange(1, 5)
    step = chosen.randrange(6)
    files = await made.ledger.query(lambda view: view.scan(tables.FILE, (wallet(number),), limit=100))
    if step <= 2 or not files:
        lease = await made.lease(10**6, number)
        new = new_object(counter, 1_000, [1, 2, 3], 1, [made.serial()])
        if files and step == 1:
            new.file.lookup_id = files[0].lookup_id
        await made.proposer.propose("commit", message("Commit", lease_id=lease.id, objects=[new]))
        await made.proposer.propose("settle_leases", message("SettleLeases", lease_ids=[lease.id]))
    elif step == 3:
        await made.order(number, rename=message("RenameFile", lookup_id=files[0].lookup_id, file=_renamed(files[0], counter)))
    elif step == 4:
        await made.order(number, delete=message("DeleteFiles", lookup_ids=[files[-1].lookup_id]))
    elif chosen.random() < 0.2:
        made.clock.now_s += 400 * 86_400  # terms are over; there is grace, or the balance pays one more
        await made.proposer.propose("tick", message("Tick"))


def _renamed(file: tables.File, counter: int) -> Any:
    return message("FileRecord", lookup_id=sha256(b"renamed%d" % counter).digest(), name=b"renamed", wrapped_key=file.wrapped_key)


async def test_paths_and_roots_are_settlements_for_every_size() -> None:
    for size in range(1, 40):
        leaves = [b"leaf%d" % at for at in range(size)]
        assert proofs.root_of(proofs.plain_levels(leaves)) == plain_root(leaves)
        assert all(proofs.is_proved(plain_root(leaves), proofs.prove(leaves, at)) for at in range(size))
        assert not proofs.is_proved(plain_root(leaves), proofs.Proof(b"other", 0, size, proofs.prove(leaves, 0).path))
