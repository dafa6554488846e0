"""Epochs go from a real ledger to a real chain and come back as observed: with traffic, idle, refused, after a crash, by another meta node."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from chain.codec.registry import message_class
from chain.crypto import address as bech32
from chain.metakeys import MetaKeys
from chain.reports import Draft
from sds_node.meta.books.books import BooksError
from sds_node.meta.ledger.errors import Busy, Unavailable
from sds_node.meta.relay.reporter import LEAST_PAUSE_S, Reporter, Unequal
from sds_node.meta.rules.tables import EARNED, EPOCH, EPOCH_LINE, REPORTED
from sds_node.value_chain import ChainUnavailable, Sender, TxRefused, TxResult, views
from tests.sds_node.relay.support import CHAIN_ID, MetaSide, PaperBooks, message, meta_side, running, until
from tests.sds_node.value_chain.support import STOS, Chain, prepay_of
from tests.sds_node.value_chain.support import running as chain_running


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    with chain_running(tmp_path_factory.mktemp("net"), pot__epoch_duration_s="2") as chain:
        yield chain


async def founded(side: MetaSide) -> int:
    """Found the ledger at the chain's present height; the last epoch that is reported there."""
    await side.found(await side.chain.committed_height())
    return (await side.state()).reported_epoch


async def with_traffic(side: MetaSide, noz: int, **others: int) -> None:
    """Alice buys ozone, and so many noz of it are earned by bob, and by others. An observer has to run."""
    alice = side.net.key("alice")
    await Sender(side.chain, alice).send([prepay_of(alice, side.net.wallet("alice"), 10 * STOS)])

    async def has_enough() -> bool:
        return await side.paid_noz(side.net.wallet("alice")) > 2 * noz

    await until(has_enough)
    await side.earn("alice", {side.net.wallet("bob"): noz, **{side.net.wallet(name): more for name, more in others.items()}})


async def reported(side: MetaSide, number: int) -> Any:
    """The ledger's row of an epoch, once it has observed the report."""

    async def is_there() -> Any:
        row = await side.rows(lambda view: view.get(EPOCH, (number,)))
        return row if row is not None and row.status == REPORTED else None

    return await until(is_there)


async def step_until(reporter: Reporter, done: int) -> None:
    """Step until the chain took so many reports."""

    async def is_done() -> bool:
        await reporter.step()
        return reporter.reported >= done

    await until(is_done)


def test_an_epoch_with_traffic_is_closed_reported_paid_and_observed(net: Chain, tmp_path: Path) -> None:
    async def go() -> None:
        async with meta_side(net, tmp_path) as side:
            before, books = await founded(side), PaperBooks()
            reporter = side.reporter(books)
            async with running(side.observer()):
                await with_traffic(side, 10**9)
                await step_until(reporter, 1)
                row = await reported(side, before + 1)
                await reporter.step()
            assert (row.noz, row.lines_count) == (10**9, 1)
            (line,) = await side.rows(lambda view: view.scan(EPOCH_LINE, (before + 1,), limit=10))
            assert (line.wallet, line.noz) == (net.wallet("bob"), 10**9)
            assert await side.rows(lambda view: view.scan(EARNED, limit=10)) == []
            kept = await views.committed_epoch(side.chain, before + 1)
            assert (kept.lines_root, kept.report_reference, kept.volume_noz) == (row.lines_root, row.reference, str(10**9))
            assert (await views.rewards(side.chain, net.wallet("bob"))).immature_wei > 0
            assert ("reported", before + 1) in books.told
            assert (await side.state()).shortfall_noz == 0
            await side.checked()

    asyncio.run(go())


def test_idle_epochs_are_reported_one_after_the_other(net: Chain, tmp_path: Path) -> None:
    async def go() -> None:
        async with meta_side(net, tmp_path) as side:
            before, books = await founded(side), PaperBooks()
            async with running(side.observer(), side.reporter(books)):
                await reported(side, before + 2)
            for number in (before + 1, before + 2):
                row = await side.rows(lambda view, number=number: view.get(EPOCH, (number,)))
                assert (row.noz, row.lines_count) == (0, 0)
            assert books.asked[:2] == [before + 1, before + 2]
            await side.checked()

    asyncio.run(go())


def test_books_that_do_not_add_up_report_nothing_until_the_epochs_length_is_over(net: Chain, tmp_path: Path) -> None:
    async def go() -> None:
        async with meta_side(net, tmp_path) as side:
            before, books = await founded(side), PaperBooks(refusals=1)
            reporter = side.reporter(books)
            async with running(side.observer()):

                async def was_asked() -> bool:
                    await reporter.step()
                    return bool(books.asked)

                await until(was_asked)
                assert "its leaves 4" in reporter.last_problem
                for _ in range(3):
                    await reporter.step()
                assert (books.asked, reporter.reported) == ([before + 1], 0)
                side.late_s = LEAST_PAUSE_S + 1
                await step_until(reporter, 1)
                await reported(side, before + 1)
                assert reporter.last_problem == ""

    asyncio.run(go())


def test_an_epoch_is_reported_without_wallets_whose_receipts_are_lost(net: Chain, tmp_path: Path) -> None:
    async def go() -> None:
        async with meta_side(net, tmp_path) as side:
            before, books = await founded(side), PaperBooks(lost=frozenset([net.wallet("bob")]))
            reporter = side.reporter(books)
            async with running(side.observer()):
                await with_traffic(side, 10**9, carol=500)

                async def is_refused() -> bool:
                    await reporter.step()
                    return bool(reporter.problems())

                await until(is_refused)
                side.late_s = LEAST_PAUSE_S + 1
                await step_until(reporter, 1)
                row = await reported(side, before + 1)
                assert row.noz == 500
                # The next one is closed without it at once, and it keeps what it earned.
                asked = len(books.asked)
                await step_until(reporter, 2)
                await reported(side, before + 2)
                assert books.asked[asked:] == [before + 2]
            assert {row.wallet: row.noz for row in await side.rows(lambda view: view.scan(EARNED, limit=10))} == {net.wallet("bob"): 10**9}
            assert reporter.last_problem == ""
            (problem,) = reporter.problems()
            assert bech32.encode(net.wallet("bob")) in problem
            assert f"since epoch {before + 1}" in problem
            await side.checked()

    asyncio.run(go())


def test_books_and_ledgers_that_fail_do_not_end_the_reporter(net: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def go() -> None:
        monkeypatch.setattr("sds_node.meta.relay.reporter.LONGEST_LOOK_S", 0.01)
        async with meta_side(net, tmp_path) as side:
            before = await founded(side)
            failures: list[Exception] = [BooksError("the disk is full"), Unavailable("the database is away"), Busy("1000 questions wait")]

            class Failing(PaperBooks):
                async def reported(self, number: int) -> None:
                    if failures:
                        raise failures.pop()
                    await super().reported(number)

            books = Failing()
            async with running(side.observer(), side.reporter(books)):
                await reported(side, before + 2)
            assert not failures
            assert ("reported", before + 1) in books.told

    asyncio.run(go())


def test_what_the_chain_refuses_is_told_with_its_reason_and_tried_again_later(net: Chain, tmp_path: Path) -> None:
    async def go() -> None:
        async with meta_side(net, tmp_path) as side:
            before, books = await founded(side), PaperBooks(root=b"no root of 32 bytes")
            reporter = side.reporter(books)
            async with running(side.observer()):
                await with_traffic(side, 5_000)

                async def is_refused() -> bool:
                    await reporter.step()
                    return bool(reporter.last_problem)

                await until(is_refused)
                assert "receipts_root: expected 32 bytes, got 19" in reporter.last_problem
                books.root = bytes(32)
                await reporter.step()
                assert reporter.reported == 0
                side.late_s = LEAST_PAUSE_S + 1
                await step_until(reporter, 1)
                assert (await reported(side, before + 1)).noz == 5_000

    asyncio.run(go())


def test_a_crash_after_closing_or_after_sending_leads_to_one_report(net: Chain, tmp_path: Path) -> None:
    class Dying(Sender):
        """Its process ends before, or just after, the chain has the report."""

        is_after = False

        async def send(self, messages: Any, memo: str = "") -> TxResult:
            if self.is_after:
                await super().send(messages, memo)
            raise ChainUnavailable("the process ended here")

    async def go() -> None:
        async with meta_side(net, tmp_path) as side:
            before, books = await founded(side), PaperBooks()
            async with running(side.observer()):
                await with_traffic(side, 7_000)
            sender = Dying(side.chain, net.key("operator"))
            for is_after in (False, True):
                sender.is_after = is_after
                again = Reporter(side.chain, sender, side.proposer, net.meta, net.wallet("operator"), books, _nobody, side.clock, poll_s=0.1)
                with pytest.raises(ChainUnavailable, match="ended here"):
                    await step_until(again, 1)
            row = await side.rows(lambda view: view.get(EPOCH, (before + 1,)))
            last = await views.last_report(side.chain)
            assert last is not None
            assert (row.noz, last.epoch) == (7_000, before + 1)
            # The chain has it and the ledger has not observed it yet: nothing is sent.
            fresh = side.reporter(books)
            await fresh.step()
            assert fresh.reported == 0
            async with running(side.observer()):
                assert (await reported(side, before + 1)).reference == last.reference
            await side.checked()

    asyncio.run(go())


async def _nobody(draft: Draft) -> Mapping[bytes, bytes]:
    return {}


@pytest.mark.parametrize(("late_s", "is_mine"), [(5, False), (66, True), (126, False)])
def test_turns_go_by_epochs_and_pass_on_after_a_minute(net: Chain, tmp_path: Path, late_s: int, is_mine: bool) -> None:
    async def go() -> None:
        async with meta_side(net, tmp_path) as side:
            last = await views.last_report(side.chain)
            epoch = last.epoch if last else 0
            made = message(
                "ObservedMeta", address=net.meta.address, owner=net.wallet("operator"), ledger_key=net.meta.ledger_consensus_pubkey, is_active=True
            )
            # At first it is the other one's turn, whose address is below or above this one's.
            mine = (epoch + 2) % 2
            other = message("ObservedMeta", address=(b"\xff" if mine == 0 else b"\x00") * 20, owner=b"\x01" * 20, is_active=True)
            now_s = (await side.chain.status()).time_s
            await side.found(
                await side.chain.committed_height(),
                metas=sorted([made, other], key=lambda one: one.address),
                reported_epoch=epoch,
                reported_s=now_s - 2 - 1 - late_s,
            )
            reporter = side.reporter(PaperBooks())
            await reporter.step()
            closed = await side.rows(lambda view: view.get(EPOCH, (epoch + 1,)))
            assert (closed is not None) == is_mine

    asyncio.run(go())


def test_signatures_that_do_not_hold_are_left_out(net: Chain, tmp_path: Path) -> None:
    async def go() -> None:
        async with meta_side(net, tmp_path) as side:
            before, asked = await founded(side), []

            async def gather(draft: Draft) -> Mapping[bytes, bytes]:
                asked.append(draft)
                return {b"\x01" * 48: b"\x02" * 96, net.meta.bls_pubkey: b"\x03" * 96}

            reporter = side.reporter(PaperBooks(), gather)
            async with running(side.observer()):
                await step_until(reporter, 1)
                await reported(side, before + 1)
            assert len(asked) == 1

    asyncio.run(go())


def test_without_a_registered_key_nothing_is_sent(net: Chain, tmp_path: Path) -> None:
    async def go() -> None:
        async with meta_side(net, tmp_path) as side:
            await founded(side)
            keys = MetaKeys(net.meta.network_seed, net.meta.bls_secret + 1, net.meta.ledger_seed)
            sender = Sender(side.chain, net.key("operator"))
            reporter = Reporter(side.chain, sender, side.proposer, keys, net.wallet("operator"), PaperBooks(), _nobody, side.clock, poll_s=0.1)

            async def has_problem() -> bool:
                await reporter.step()
                return bool(reporter.last_problem)

            async with running(side.observer()):
                await until(has_problem)
            assert "expected 1 of 1 active meta nodes to sign, got 0" in reporter.last_problem
            assert reporter.reported == 0

    asyncio.run(go())


def test_a_report_that_is_too_early_is_sent_again_after_the_missing_seconds(net: Chain, tmp_path: Path) -> None:
    class Early(Sender):
        """Of a chain whose clock is behind."""

        async def send(self, messages: Any, memo: str = "") -> TxResult:
            raise TxRefused("sdk", 6, "epoch 5 is reported 3 s after the last one: expected 10 s or more: epoch is not due")

    async def go() -> None:
        async with meta_side(net, tmp_path) as side:
            await side.found(await side.chain.committed_height(), reported_s=1)
            sender = Early(side.chain, net.key("operator"))
            reporter = Reporter(side.chain, sender, side.proposer, net.meta, net.wallet("operator"), PaperBooks(), _nobody, side.clock, poll_s=0.1)
            assert await reporter.step() == 7
            assert reporter.last_problem == ""

    asyncio.run(go())


def test_another_meta_node_signs_what_it_makes_itself_and_nothing_else(net: Chain, tmp_path: Path) -> None:
    async def go() -> None:
        async with meta_side(net, tmp_path) as side:
            await founded(side)
            drafts: list[Draft] = []

            class Catching(Sender):
                async def send(self, messages: Any, memo: str = "") -> TxResult:
                    report = message_class("stratos.pot.v1.MsgVolumeReport")()
                    report.CopyFrom(messages[1])
                    report.ClearField("BLS_signature")
                    drafts.append(Draft(CHAIN_ID, messages[0].commitment, report))
                    raise ChainUnavailable("caught")

            books = PaperBooks()
            catching = Catching(side.chain, net.key("operator"))
            first = Reporter(side.chain, catching, side.proposer, net.meta, net.wallet("operator"), books, _nobody, side.clock, poll_s=0.1)
            async with running(side.observer()):
                await with_traffic(side, 900)
            with pytest.raises(ChainUnavailable, match="caught"):
                await step_until(first, 1)
            (draft,) = drafts
            second = side.reporter(PaperBooks())
            assert await second.countersign(draft) == net.meta.sign(draft.message)
            with pytest.raises(Unequal, match="another report"):
                await side.reporter(PaperBooks(root=b"\x01" * 32)).countersign(draft)
            with pytest.raises(Unequal, match="its leaves 4"):
                await side.reporter(PaperBooks(refusals=1)).countersign(draft)
            with pytest.raises(Unequal, match="has not closed"):
                await second.countersign(Draft("another-1", draft.commitment, draft.report))
            draft.report.wallet_volumes[0].volume = "901"
            with pytest.raises(Unequal, match="another report"):
                await second.countersign(draft)

    asyncio.run(go())


def test_a_key_that_is_not_the_owners_is_refused_at_once(net: Chain, tmp_path: Path) -> None:
    async def go() -> None:
        async with meta_side(net, tmp_path) as side:
            alice = Sender(side.chain, net.key("alice"))
            with pytest.raises(ValueError, match=bech32.encode(net.wallet("operator"))):
                Reporter(side.chain, alice, side.proposer, net.meta, net.wallet("operator"), PaperBooks(), _nobody, side.clock)

    asyncio.run(go())
