"""What happens on a real chain arrives in a real ledger: ozone, nodes, reports; whoever was first, and whatever was stopped in between."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from nacl.signing import SigningKey

from chain.codec.registry import message_class
from chain.crypto import address as bech32
from chain.reports import draft, draft_of
from sds_node.meta.operations import LedgerRefused
from sds_node.meta.relay import founding
from sds_node.meta.relay.observer import NotFounded, Observer
from sds_node.meta.relay.reading import ChainReads, NotTold, ObservingError
from sds_node.meta.rules.invariants import gap_noz
from sds_node.meta.rules.tables import ACTIVE, EPOCH_LINE, GONE, LEAVING, META, SUSPENDED
from sds_node.meta.rules.wire import Observation, sign_observation
from sds_node.value_chain import Sender, views
from tests.sds_node.relay.support import CHAIN_ID, ROOT, MetaSide, message, meta_side, prepay, running, until
from tests.sds_node.value_chain.support import STOS, Chain, effective_of, network_key, prepay_of, resource_node_of
from tests.sds_node.value_chain.support import running as chain_running


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    times = {"register__unbonding_threashold_time": "1s", "register__unbonding_completion_time": "3s"}
    with chain_running(tmp_path_factory.mktemp("net"), pot__epoch_duration_s="2", **times) as chain:
        yield chain


def test_ozone_bought_before_and_after_the_founding_is_the_wallets(net: Chain, tmp_path: Path) -> None:
    async def go() -> None:
        async with meta_side(net, tmp_path) as side:
            wallet = b"\x21" * 20
            first, _ = await prepay(side, wallet)
            assert await side.found() == 0
            observer = side.observer()
            assert not observer.is_ready
            async with running(observer):
                await until(lambda: side.paid_noz(wallet))
                second, _ = await prepay(side, wallet, 3 * STOS)
                third, height = await prepay(side, wallet)
                await until(lambda: _is(side.paid_noz(wallet), first + second + third))
                state = await side.state()
                assert state.height >= height
                assert observer.is_ready
                assert observer.observed > 0
            assert await side.rows(gap_noz) <= state.deposit_changes
            (meta,) = await side.rows(lambda view: view.scan(META, limit=10))
            keys = net.meta
            assert (meta.address, meta.owner, meta.ledger_key) == (keys.address, net.wallet("operator"), keys.ledger_consensus_pubkey)
            await side.checked()

    asyncio.run(go())


async def _is(asked: object, wanted: int) -> bool:
    return bool(await asked == wanted)  # type: ignore[misc]


def test_a_node_is_seen_from_its_registration_to_its_end(net: Chain, tmp_path: Path) -> None:
    async def go() -> None:
        async with meta_side(net, tmp_path) as side:
            await side.found()
            address = network_key(1).address
            owner = Sender(side.chain, net.key("bob"))

            async def standing(wanted: int) -> bool:
                row = await side.node(address)
                return row is not None and row.standing == wanted

            async with running(side.observer()):
                await owner.send([resource_node_of(net.key("bob"), 1, 200 * STOS, beneficiary=net.wallet("carol"))])
                await until(lambda: standing(SUSPENDED))
                row = await side.node(address)
                assert row is not None
                assert (row.owner, row.beneficiary, row.p2p_key) == (net.wallet("bob"), net.wallet("carol"), network_key(1).raw)
                assert row.deposit_wei == 0
                await Sender(side.chain, net.key("operator")).send([effective_of(net, 1, 150 * STOS)])
                await until(lambda: standing(ACTIVE))
                row = await side.node(address)
                assert row is not None
                assert row.deposit_wei == 150 * STOS
                remove = message_class("stratos.register.v1.MsgRemoveResourceNode")(
                    resource_node_address=bech32.encode(address, bech32.NODE), owner_address=bech32.encode(net.wallet("bob"))
                )
                await owner.send([remove])
                await until(lambda: standing(LEAVING))
                await until(lambda: standing(GONE))
            state = await side.state()
            assert 0 <= await side.rows(gap_noz) <= state.deposit_changes
            await side.checked()

    asyncio.run(go())


def test_an_old_chains_ledger_begins_where_it_stands_with_the_nodes_that_are_there(net: Chain, tmp_path: Path) -> None:
    async def go() -> None:
        async with meta_side(net, tmp_path) as side:
            await Sender(side.chain, net.key("bob")).send([resource_node_of(net.key("bob"), 2, 200 * STOS)])
            await Sender(side.chain, net.key("operator")).send([effective_of(net, 2, 180 * STOS)])
            before, wallet = await prepay(side, b"\x22" * 20), b"\x22" * 20
            height = await side.found(await side.chain.committed_height())
            block = await side.chain.block(height)
            assert (await side.state()).block_hash == block.block_hash
            async with running(side.observer()):
                after, _ = await prepay(side, wallet)
                await until(lambda: side.paid_noz(wallet))
                assert before[0] > 0
                assert await side.paid_noz(wallet) == after
                row = await side.node(network_key(2).address)
                assert row is not None
                assert (row.standing, row.deposit_wei) == (ACTIVE, 180 * STOS)
            await side.checked()

    asyncio.run(go())


def test_a_stopped_observer_goes_on_where_the_ledger_is_and_counts_nothing_twice(net: Chain, tmp_path: Path) -> None:
    async def go() -> None:
        wallet, bought = b"\x23" * 20, 0
        for at in range(3):
            async with meta_side(net, tmp_path) as side:
                if not at:
                    await side.found()
                bought += (await prepay(side, wallet))[0]
                async with running(side.observer()):
                    wanted = bought
                    await until(lambda: _is(side.paid_noz(wallet), wanted))  # noqa: B023
                    # Stopped in the middle of whatever it does, with something on its way.
                    bought += (await prepay(side, wallet))[0]
        async with meta_side(net, tmp_path) as side, running(side.observer()):
            await until(lambda: _is(side.paid_noz(wallet), bought))
            height = await side.chain.committed_height() + 2
            await until(lambda: _true_ledger_height(side, height))
            assert await side.paid_noz(wallet) == bought
            await side.checked()

    asyncio.run(go())


def test_a_chain_that_is_away_for_a_while_is_observed_without_a_gap(net: Chain, tmp_path: Path) -> None:
    async def go() -> None:
        async with meta_side(net, tmp_path) as side:
            await side.found()
            wallet = b"\x24" * 20
            observer = side.observer()
            async with running(observer):
                await until(lambda: _true(observer.is_ready))
                await asyncio.to_thread(net.stop)
                side.late_s = 60
                assert not observer.is_ready
                await asyncio.to_thread(net.start)
                side.late_s = 0
                noz, height = await prepay(side, wallet)
                await until(lambda: _is(side.paid_noz(wallet), noz))
                await until(lambda: _true(observer.is_ready))
            assert (await side.state()).height >= height
            assert observer.problem == ""
            await side.checked()

    asyncio.run(go())


async def _true_ledger_height(side: MetaSide, height: int) -> bool:
    return (await side.state()).height >= height


async def _true(value: bool) -> bool:
    return value


def test_a_height_of_many_events_is_observed_in_parts_also_when_it_stops_between_them(
    net: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sds_node.meta.relay.observing.MAX_EVENTS", 2)

    async def go() -> None:
        wallets = [bytes([0x60 + at]) * 20 for at in range(5)]
        async with meta_side(net, tmp_path) as side:
            alice = net.key("alice")
            sent = await Sender(side.chain, alice).send([prepay_of(alice, wallet, STOS) for wallet in wallets])
            bought = [int(one.text("purchased_noz")) for one in sent.events if one.kind == "stratos.sds.v1.EventPrePay"]
            await side.found(sent.height - 2)

            class Stopped(Exception):
                pass

            async def gather(observation: bytes) -> Mapping[bytes, bytes]:
                message = Observation.FromString(observation)
                if message.from_height == sent.height and message.part == 1:
                    raise Stopped
                return {}

            with pytest.raises(Stopped):
                await side.observer(gather).run()
            state = await side.state()
            assert (state.height, state.part) == (sent.height - 1, 1)
        async with meta_side(net, tmp_path) as side, running(side.observer()):
            await until(lambda: side.paid_noz(wallets[-1]))
            assert [await side.paid_noz(wallet) for wallet in wallets] == bought
            assert (await side.state()).part == 0
            await side.checked()

    asyncio.run(go())


def test_another_meta_node_makes_the_same_bytes_and_signs_them(net: Chain, tmp_path: Path) -> None:
    async def go() -> None:
        async with meta_side(net, tmp_path, "one") as one, meta_side(net, tmp_path, "two") as two:
            wallet = b"\x25" * 20
            noz, _ = await prepay(one, wallet)
            for side in (one, two):
                await side.found()
            second = two.observer()
            signed: list[bytes] = []

            async def gather(observation: bytes) -> Mapping[bytes, bytes]:
                signature = await second.countersign(observation)
                assert signature == sign_observation(observation, one.key)
                body = message("Observe", observation=observation, signatures=[{"meta_node": net.meta.address, "signature": signature}])
                await two.proposer.propose("observe", body)
                signed.append(observation)
                return {}

            async with running(one.observer(gather)):
                await until(lambda: _is(one.paid_noz(wallet), noz))
                more, _ = await prepay(one, wallet)
                await until(lambda: _is(one.paid_noz(wallet), noz + more))
            assert await two.paid_noz(wallet) == noz + more
            assert any(Observation.FromString(each).events for each in signed)

            # What differs in one thing is not signed, nor what does not follow.
            state = await two.state()
            height = state.height + 1
            await until(lambda: _true_height(two, height))
            made = Observation(chain_id=CHAIN_ID, from_height=height, to_height=height, is_last=True, block_hash=ROOT, block_time_s=1)
            for wrong in (made.SerializeToString(), b"\xff", Observation(from_height=1, to_height=height).SerializeToString(), signed[0]):
                with pytest.raises(ObservingError):
                    await second.countersign(wrong)

    asyncio.run(go())


async def _true_height(side: MetaSide, height: int) -> bool:
    return await side.chain.committed_height() >= height


def test_when_another_meta_node_was_first_it_goes_on_from_the_ledgers_height(net: Chain, tmp_path: Path) -> None:
    async def go() -> None:
        async with meta_side(net, tmp_path) as side:
            await side.found()
            wallet, firsts = b"\x26" * 20, [0]

            async def gather(observation: bytes) -> Mapping[bytes, bytes]:
                if firsts[0] < 3:
                    firsts[0] += 1
                    signature = sign_observation(observation, side.key)
                    body = message("Observe", observation=observation, signatures=[{"meta_node": net.meta.address, "signature": signature}])
                    await side.proposer.propose("observe", body)
                return {}

            noz, _ = await prepay(side, wallet)
            async with running(side.observer(gather)):
                await until(lambda: _is(side.paid_noz(wallet), noz))
            assert firsts[0] == 3
            await side.checked()

    asyncio.run(go())


def test_a_report_that_the_ledger_has_not_closed_is_observed_with_its_lines(net: Chain, tmp_path: Path) -> None:
    async def go() -> None:
        async with meta_side(net, tmp_path) as side:
            await side.found()
            await prepay(side, b"\x27" * 20, 10 * STOS)
            number = await report_by_hand(side, bob=700, carol=300)
            async with running(side.observer()):
                await until(lambda: _reported(side, number))
            rows = await side.rows(lambda view: view.scan(EPOCH_LINE, (number,), limit=10))
            assert {row.wallet: row.noz for row in rows} == {net.wallet("bob"): 700, net.wallet("carol"): 300}
            state = await side.state()
            assert state.shortfall_noz == 1_000
            assert state.reported_s > 0
            await side.checked()

    asyncio.run(go())


async def report_by_hand(side: MetaSide, **volumes: int) -> int:
    """The epoch that was reported with so many noz of the accounts named, past every ledger."""
    net, operator = side.net, Sender(side.chain, side.net.key("operator"))
    last = await views.last_report(side.chain)
    number = (last.epoch if last else 0) + 1
    listed = [(bech32.encode(net.wallet(name)), noz) for name, noz in volumes.items()]
    made = draft_of(draft(CHAIN_ID, number, net.meta.network_address, operator.address, listed, (1, ROOT)))
    signature = made.signature_info({net.meta.bls_pubkey: net.meta.sign(made.message)})

    async def is_over() -> bool:
        return last is None or (await side.chain.status()).time_s >= last.time_s + 3

    await until(is_over)
    await operator.send(made.messages(signature))
    return number


async def _reported(side: MetaSide, number: int) -> bool:
    return (await side.state()).reported_epoch >= number


def test_a_ledger_that_is_not_founded_is_told_from_one_that_refuses(net: Chain, tmp_path: Path) -> None:
    async def go() -> None:
        async with meta_side(net, tmp_path) as side:
            with pytest.raises(NotFounded, match="found"):
                await side.observer().run()
            await side.found()
            with pytest.raises(LedgerRefused, match="founded already"):
                await side.found()

    asyncio.run(go())


def test_a_quorum_that_is_missing_is_waited_for(net: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def go() -> None:
        monkeypatch.setattr("sds_node.meta.relay.observer.AGAIN_S", 0.05)
        async with meta_side(net, tmp_path) as side:
            other = message("ObservedMeta", address=b"\xee" * 20, owner=b"\xee" * 20, ledger_key=bytes(ROOT), is_active=True)
            mine = (await founding.found_message(side.chain, 0)).metas[0]
            second = SigningKey(b"\x05" * 32)
            other.ledger_key = bytes(second.verify_key)
            await side.found(0, metas=sorted([mine, other], key=lambda one: one.address))
            answers: list[bytes] = []

            async def gather(observation: bytes) -> Mapping[bytes, bytes]:
                answers.append(observation)
                if len(answers) < 3:
                    return {}
                return {b"\xee" * 20: sign_observation(observation, second)}

            observer: Observer = side.observer(gather)
            async with running(observer):
                await until(lambda: _true(observer.observed > 1))
            assert len(answers) > 3

    asyncio.run(go())


def test_lines_that_are_not_under_the_root_are_said_to_be_wrong(net: Chain, tmp_path: Path) -> None:
    async def go() -> None:
        async with meta_side(net, tmp_path) as side:
            await prepay(side, b"\x28" * 20)
            await report_by_hand(side, bob=7)
            last = await views.last_report(side.chain)
            assert last is not None
            reads = ChainReads(side.chain)
            kept = await reads.committed_epoch(last.epoch, last.height)
            assert len(await reads.report_lines(last.epoch, kept.lines_root, last.height)) == kept.lines_count
            with pytest.raises(ObservingError, match="not those under its root"):
                await reads.report_lines(last.epoch, bytes(32), last.height)
            await until(lambda: _true_height(side, last.height + 1))
            with pytest.raises(ObservingError, match="cannot be read"):
                await reads.report_lines(last.epoch, kept.lines_root, last.height + 1)
            with pytest.raises(NotTold, match="does not tell its state"):
                await reads.ledger_params(10**9)

    asyncio.run(go())
