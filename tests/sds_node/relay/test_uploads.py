"""Public files are reported to the chain once, whoever stops in the middle; private ones never. Four meta nodes with a ledger each beside one chain."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from chain.codec.canonical import encode
from chain.codec.registry import message_class
from chain.crypto import address as bech32
from modules.sds.reporters import positions
from sds_node.hashes import file_hash
from sds_node.meta.federation.duties import Duties
from sds_node.meta.relay import uploads as relay
from sds_node.meta.relay.unreported import UnreportedError, open_unreported
from sds_node.meta.relay.uploads import HOUR_S, MAX_MESSAGES, REFUSED_S, TIMEOUT_BLOCKS, TURN_S, Uploads
from sds_node.meta.rules.tables import LEASE, Lease
from sds_node.meta.rules.wire import ORDER_DOMAIN
from sds_node.testing.chain import CHAIN_ID, DrivenChain
from sds_node.value_chain import ChainUnavailable, Sender, TxRefused, views
from sds_node.value_chain.client import TxResult
from tests.sds_node.books.world import message, new_object, until
from tests.sds_node.relay.council import Council, council, key_of
from tests.serials import own_serial

pytestmark = pytest.mark.asyncio
FIRST = 1_000
ALICE = key_of("alice")


def named(number: int) -> str:
    """The hash of the file that is stored as object FIRST + number."""
    return file_hash(b"public file %d" % number)


def record_of(number: int, **changes: Any) -> Any:
    fields: dict[str, Any] = {"lookup_id": number.to_bytes(32, "big"), "name": b"file %d" % number, "is_public": True}
    return message("FileRecord", **fields | changes)


async def put(made: Council, numbers: Sequence[int], *, size_bytes: int = 1_000, same: str = "", **changes: Any) -> None:
    """Alice stores a file for each number; public ones, unless ``changes`` of their records say otherwise."""
    (lease,) = await made.ledger.query(lambda view: view.scan(LEASE, limit=2))
    assert isinstance(lease, Lease)
    nodes = [made.numbers[number] for number in (1, 2, 3)]
    objects = []
    for number in numbers:
        one = new_object(FIRST + number, size_bytes, nodes, 1, [own_serial(made.proposer.address, (FIRST + number) << 8)])
        one.file_hash = same or named(number)
        one.file.CopyFrom(record_of(number, **changes))
        objects.append(one)
    await made.propose("commit", message("Commit", lease_id=lease.id, objects=objects))


async def order(made: Council, **kind: Any) -> None:
    """Something that Alice signs."""
    nonce = (await made.ledger.query(lambda view: view.head.sequence)).to_bytes(16, "big")
    fields = {"chain_id": CHAIN_ID, "wallet": ALICE.public_key.address, "nonce": nonce, "expires_s": int(made.clock()) + 100}
    body = encode(message("WalletOrder", **fields, **kind))
    document = {"body": body, "public_key": ALICE.public_key.raw, "signature": ALICE.sign(ORDER_DOMAIN + b"\x00" + body)}
    await made.propose("wallet_order", message("Operation", wallet_order=document).wallet_order)


def events(made: Council) -> list[tuple[str, str]]:
    """(file hash, reporter) of every MsgFileUpload that a block has, in order."""
    found = []
    for height in sorted(made.chain.driver.blocks):
        for result in made.chain.driver.blocks[height].response.tx_results:
            for event in result.events:
                if event.type == "stratos.sds.v1.EventFileUpload":
                    told = {pair.key: pair.value.strip('"') for pair in event.attributes}
                    found.append((told["file_hash"], told["reporter"]))
    return found


def sizes(made: Council) -> list[int]:
    """How many files each transaction reported that did."""
    blocks = made.chain.driver.blocks
    counts = [
        sum(event.type == "stratos.sds.v1.EventFileUpload" for event in result.events)
        for height in sorted(blocks)
        for result in blocks[height].response.tx_results
    ]
    return [count for count in counts if count]


@dataclass
class Relay:
    """What reports of one meta node; as it is after a start, each time it is made."""

    made: Council
    folder: Path
    meta: int

    @contextlib.asynccontextmanager
    async def started(self, chain: DrivenChain | None = None, sender: Any = None, **settings: Any) -> AsyncIterator[Uploads]:
        keys, made = self.made.metas[self.meta], self.made
        store = open_unreported(self.folder / f"uploads{self.meta}.db")
        chain = chain or made.client()
        sender = sender or Sender(chain, made.owners[self.meta], clock=made.clock)
        duties = Duties(keys.address, lambda: [one.address for one in made.metas])
        fields: dict[str, Any] = {"place": duties.upload_place, "most_per_hour": 10_000, "poll_s": 0.05}
        try:
            yield Uploads(chain, sender, made.ledger.ledgers[self.meta], store, keys.address, made.clock, **fields | settings)
        finally:
            store.close()


def first_of(made: Council, name: str) -> int:
    """Whose duty a file is, by its place among the meta nodes."""
    first = Duties(made.metas[0].address, lambda: [one.address for one in made.metas]).order(b"upload" + name.encode())[0]
    return [one.address for one in made.metas].index(first)


async def step_all(made: Council, folder: Path, rounds: int = 2) -> None:
    for _ in range(rounds):
        for meta in range(len(made.metas)):
            async with Relay(made, folder, meta).started() as one:
                await one.step()


# --- once -----------------------------------------------------------------------------------------------------------------------------------


async def test_each_public_file_is_on_the_chain_once_with_its_uploader_and_by_whose_duty_it_is(tmp_path: Path) -> None:
    async with council(tmp_path, 4) as made:
        await put(made, range(12))
        await put(made, [20, 21], is_public=False, wrapped_key=b"key")
        await put(made, [22], is_public=True, wrapped_key=b"key")
        await put(made, [23], size_bytes=0)
        await step_all(made, tmp_path)
        await made.later(relay.OTHERS_S)
        await step_all(made, tmp_path)
        told = events(made)
        assert sorted(name for name, _ in told) == sorted(map(named, range(12)))
        assert {name: reporter for name, reporter in told} == {named(at): made.metas[first_of(made, named(at))].network_address for at in range(12)}
        client, order_of = made.client(), sorted(one.network_address for one in made.metas)
        for at in range(12):
            found = await views.uploaded_file(client, named(at))
            assert found is not None
            assert found.uploader == ALICE.public_key.address
            (position,) = positions(found.reporters)
            assert order_of[position] == made.metas[first_of(made, named(at))].network_address
        for at in (20, 21, 22, 23):
            assert await views.uploaded_file(client, named(at)) is None, at
        for meta in range(4):
            async with Relay(made, tmp_path, meta).started() as one:
                await one.step()
                assert one.waiting == 0


async def test_the_same_content_of_several_files_is_reported_once(tmp_path: Path) -> None:
    async with council(tmp_path, 1) as made:
        await put(made, range(5), same=named(0))
        async with Relay(made, tmp_path, 0).started() as one:
            assert await one.step() == 1
            await put(made, [7], same=named(0))
            assert await one.step() == 0
            assert one.waiting == 0
        assert [name for name, _ in events(made)] == [named(0)]


async def test_nothing_is_reported_twice_after_a_restart_nor_when_the_file_of_unreported_ones_is_lost(tmp_path: Path) -> None:
    async with council(tmp_path, 2) as made:
        await put(made, range(6))
        await step_all(made, tmp_path)
        assert len(events(made)) == 6
        await step_all(made, tmp_path)
        for meta in (0, 1):
            for end in ("", "-wal", "-shm"):
                (tmp_path / f"uploads{meta}.db{end}").unlink(missing_ok=True)
        await step_all(made, tmp_path)
        assert len(events(made)) == 6
        await put(made, [6])
        await step_all(made, tmp_path)
        assert len(events(made)) == 7


async def test_a_restart_reads_the_log_on_and_not_all_files_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with council(tmp_path, 1) as made:
        await put(made, range(2))
        async with Relay(made, tmp_path, 0).started() as one:
            await one.step()
        await put(made, [2])
        pages = []
        real = relay._next_page

        def seen(view: Any, cursor: Any) -> Any:
            page = real(view, cursor)
            pages.append((cursor.file, page.objects))
            return page

        monkeypatch.setattr(relay, "_next_page", seen)
        async with Relay(made, tmp_path, 0).started() as one:
            assert await one.step() == 1
        assert [file for file, _ in pages] == [None, None]
        assert [len(objects) for _, objects in pages] == [1, 0]


async def test_files_are_gone_through_once_more_when_the_log_was_pruned_before_it_was_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "PAGE_FILES", 7)
    async with council(tmp_path, 1) as made:
        async with Relay(made, tmp_path, 0).started() as one:
            assert await one.step() == 0
        await put(made, range(20))
        ledger = made.ledger.ledgers[0]
        await asyncio.to_thread(ledger.prune, ledger.head.sequence + 1)
        async with Relay(made, tmp_path, 0).started() as one:
            sent = [await one.step() for _ in range(3)]
        assert sum(sent) == 20
        assert sorted(name for name, _ in events(made)) == sorted(map(named, range(20)))


# --- ended in the middle --------------------------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """The process is gone."""


class DiesAfter(Sender):
    """The transaction is in a block, and the process ends before it can say so."""

    async def send(self, messages: Sequence[Any], memo: str = "", *, timeout_height: int = 0) -> TxResult:
        await super().send(messages, memo, timeout_height=timeout_height)
        raise Killed


class Swallows(DrivenChain):
    """A node that has a transaction in its mempool, and no block with it yet, when the process ends."""

    held: list[bytes]

    async def broadcast(self, raw: bytes) -> bytes:
        self.held = [raw]
        raise Killed


async def test_killed_after_the_block_and_before_it_was_noted_a_file_is_not_reported_twice(tmp_path: Path) -> None:
    async with council(tmp_path, 1) as made:
        await put(made, range(3))
        relayed = Relay(made, tmp_path, 0)
        async with relayed.started(sender=DiesAfter(made.client(), made.owners[0], clock=made.clock)) as one:
            with pytest.raises(Killed):
                await one.step()
        assert len(events(made)) == 3
        made.chain.produce(TIMEOUT_BLOCKS + 1)
        async with relayed.started() as one:
            assert await one.step() == 0
            assert one.waiting == 0
        assert len(events(made)) == 3


async def test_killed_before_the_block_a_file_is_not_reported_again_while_one_may_still_take_it(tmp_path: Path) -> None:
    async with council(tmp_path, 1) as made:
        await put(made, range(3))
        relayed, node = Relay(made, tmp_path, 0), Swallows(made.chain)
        async with relayed.started(chain=node) as one:
            with pytest.raises(Killed):
                await one.step()
        async with relayed.started() as one:
            assert await one.step() == 0
            await made.later(10)
            assert await one.step() == 0
            assert one.waiting == 3
            await made.client().broadcast(node.held[0])
            made.chain.produce()
            assert len(events(made)) == 3
            await made.later(10)
            assert await one.step() == 0
            assert one.waiting == 0
        assert len(events(made)) == 3


async def test_a_transaction_that_came_into_no_block_is_made_anew_once_none_can_take_it(tmp_path: Path) -> None:
    async with council(tmp_path, 1) as made:
        await put(made, range(3))
        relayed, node = Relay(made, tmp_path, 0), Swallows(made.chain)
        async with relayed.started(chain=node) as one:
            with pytest.raises(Killed):
                await one.step()
        made.chain.produce(TIMEOUT_BLOCKS)
        await made.later(10)
        async with relayed.started() as one:
            assert await one.step() == 3
        with pytest.raises(TxRefused):
            await made.client().broadcast(node.held[0])
        made.chain.produce()
        assert len(events(made)) == 3


# --- what is in the way ---------------------------------------------------------------------------------------------------------------------


async def test_while_the_chain_is_away_files_wait_and_are_reported_once_when_it_is_back(tmp_path: Path) -> None:
    async with council(tmp_path, 2) as made:
        await put(made, range(4))
        made.chain.is_stopped = True
        relays = [Relay(made, tmp_path, meta) for meta in (0, 1)]
        for each in relays:
            async with each.started() as one:
                with pytest.raises(ChainUnavailable):
                    await one.step()
                assert one.waiting == 4
        # Longer than a turn: the time counts from when the chain is known to lack them.
        made.clock.now_s += 3 * TURN_S
        made.chain.is_stopped = False
        made.chain.produce()
        await step_all(made, tmp_path)
        assert len(events(made)) == 4
        assert {reporter for _, reporter in events(made)} == {made.metas[first_of(made, named(at))].network_address for at in range(4)}


async def test_the_next_meta_node_reports_what_the_first_one_leaves(tmp_path: Path) -> None:
    async with council(tmp_path, 2) as made:
        await put(made, [0])
        second = 1 - first_of(made, named(0))
        async with Relay(made, tmp_path, second).started() as one:
            assert await one.step() == 0
            await made.later(TURN_S - 1)
            assert await one.step() == 0
            await made.later(relay.OTHERS_S)
            assert await one.step() == 1
        assert events(made) == [(named(0), made.metas[second].network_address)]


async def test_transactions_are_bounded_and_there_is_one_in_a_step(tmp_path: Path) -> None:
    async with council(tmp_path, 1) as made:
        for first in (0, 60):
            await put(made, range(first, first + 60))
        async with Relay(made, tmp_path, 0).started() as one:
            assert [await one.step() for _ in range(4)] == [MAX_MESSAGES, MAX_MESSAGES, 120 - 2 * MAX_MESSAGES, 0]
        assert sizes(made) == [MAX_MESSAGES, MAX_MESSAGES, 120 - 2 * MAX_MESSAGES]


async def test_no_more_than_so_many_are_reported_in_an_hour(tmp_path: Path) -> None:
    async with council(tmp_path, 1) as made:
        await put(made, range(9))
        async with Relay(made, tmp_path, 0).started(most_per_hour=4) as one:
            assert [await one.step(), await one.step()] == [4, 0]
            await made.later(HOUR_S - 10)
            assert await one.step() == 0
            await made.later(relay.AGAIN_S)
            assert [await one.step(), await one.step()] == [4, 0]
            await made.later(HOUR_S)
            assert await one.step() == 1


async def test_with_too_many_unreported_ones_the_ledger_is_not_read_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "MAX_WAITING", 5)
    async with council(tmp_path, 1) as made, Relay(made, tmp_path, 0).started(is_able=lambda: True) as one:
        await one.step()
        for first in (0, 4, 8):
            await put(made, range(first, first + 4))
        monkeypatch.setattr(relay, "PAGE_ENTRIES", 1)
        made.chain.is_stopped = True
        with pytest.raises(ChainUnavailable):
            await one.step()
        assert one.waiting == 8
        made.chain.is_stopped = False
        assert [await one.step() for _ in range(3)] == [8, 4, 0]


class Particular(Sender):
    """A chain that will not have one file."""

    unwanted = named(3)

    async def send(self, messages: Sequence[Any], memo: str = "", *, timeout_height: int = 0) -> TxResult:
        if any(one.file_hash == self.unwanted for one in messages):
            raise TxRefused("sds", 7, "expected another hash")
        return await super().send(messages, memo, timeout_height=timeout_height)


async def test_a_file_that_the_chain_refuses_holds_up_no_other(tmp_path: Path) -> None:
    async with council(tmp_path, 1) as made:
        await put(made, range(9))
        sender = Particular(made.client(), made.owners[0], clock=made.clock)
        async with Relay(made, tmp_path, 0).started(sender=sender) as one:
            for _ in range(12):
                await one.step()
            assert one.waiting == 1
            assert sorted(name for name, _ in events(made)) == sorted(named(at) for at in range(9) if at != 3)
            await made.later(REFUSED_S)
            sender.unwanted = ""
            assert await one.step() == 1


async def test_a_wallet_without_coins_is_told_of_and_files_wait(tmp_path: Path) -> None:
    async with council(tmp_path, 1) as made:
        await put(made, range(2))
        owner, client = made.owners[0], made.client()
        wallet = bech32.encode(owner.public_key.address)
        fee_wei = 10**15
        left = await client.balance_wei(wallet) - fee_wei
        away = {"denom": "wei", "amount": str(left)}
        send = message_class("cosmos.bank.v1beta1.MsgSend")(from_address=wallet, to_address=bech32.encode(ALICE.public_key.address), amount=[away])
        # The price of gas takes all that is left.
        await Sender(client, owner, gas_price_wei=10**9, clock=made.clock).send([send])
        poor = Sender(client, owner, gas_price_wei=10**12, clock=made.clock)
        async with Relay(made, tmp_path, 0).started(sender=poor) as one:
            assert await one.step() == 0
            assert one.waiting == 2
            (problem,) = one.problems()
            assert "public files could not be reported" in problem
        back = {"denom": "wei", "amount": str(10**20)}
        send = message_class("cosmos.bank.v1beta1.MsgSend")(from_address=bech32.encode(ALICE.public_key.address), to_address=wallet, amount=[back])
        await made.send(ALICE, send)
        await made.later(relay.AGAIN_S)
        async with Relay(made, tmp_path, 0).started() as one:
            assert await one.step() == 2
            assert one.problems() == []


# --- what is public -------------------------------------------------------------------------------------------------------------------------


async def test_a_file_is_reported_when_it_becomes_public_and_not_when_it_is_private_again_before(tmp_path: Path) -> None:
    async with council(tmp_path, 1) as made:
        await put(made, [0], is_public=False)
        await put(made, [1])
        await order(made, rename=message("RenameFile", lookup_id=(1).to_bytes(32, "big"), file=record_of(1, is_public=False)))
        async with Relay(made, tmp_path, 0).started() as one:
            assert await one.step() == 0
            assert one.waiting == 0
            await order(made, rename=message("RenameFile", lookup_id=(0).to_bytes(32, "big"), file=record_of(5)))
            assert await one.step() == 1
        assert [name for name, _ in events(made)] == [named(0)]


async def test_a_file_that_is_deleted_or_replaced_at_once_was_public_and_stays_on_the_chain(tmp_path: Path) -> None:
    async with council(tmp_path, 1) as made:
        async with Relay(made, tmp_path, 0).started() as one:
            await one.step()
            await put(made, [0])
            await order(made, delete=message("DeleteFiles", lookup_ids=[(0).to_bytes(32, "big")]))
            await put(made, [1])
            await put(made, [2], lookup_id=(1).to_bytes(32, "big"))
            assert await one.step() == 3
        client = made.client()
        for at in range(3):
            assert await views.uploaded_file(client, named(at)) is not None


async def test_a_suspended_meta_node_leaves_files_to_others(tmp_path: Path) -> None:
    async with council(tmp_path, 1) as made:
        await put(made, [0])
        async with Relay(made, tmp_path, 0).started() as one:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(f"{relay.__name__}.active_metas", lambda view: [])
                assert await one.step() == 0
                assert one.waiting == 1
            await made.later(relay.AGAIN_S)
            assert await one.step() == 1


async def test_run_goes_on_after_the_chain_was_away(tmp_path: Path) -> None:
    async with council(tmp_path, 1) as made, Relay(made, tmp_path, 0).started() as one:
        await put(made, range(3))
        made.chain.is_stopped = True
        task = asyncio.create_task(one.run())
        await until(lambda: one.waiting == 3)
        made.chain.is_stopped = False
        await until(lambda: one.reported == 3)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert len(events(made)) == 3


# --- the file -------------------------------------------------------------------------------------------------------------------------------


async def test_what_is_no_file_of_unreported_ones_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "uploads.db"
    path.write_bytes(b"something else" * 100)
    with pytest.raises(UnreportedError, match="move it away"):
        open_unreported(path)


async def test_a_file_of_a_newer_program_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "uploads.db"
    open_unreported(path).close()
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 9")
    with pytest.raises(UnreportedError, match="version 9"):
        open_unreported(path)
