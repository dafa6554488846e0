"""Meta nodes sign for each other what they have made themselves, and nothing else; liars and the silent cost a bounded time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from chain.codec.canonical import encode
from chain.codec.registry import message_class
from chain.crypto import address as bech32
from chain.crypto import bls
from chain.reports import Draft
from modules.settlement.documents import signed_by_key
from sds_node import asking
from sds_node.documents import LEASE_DOMAIN, REPAIR_LEASE_NOZ, REPAIR_LEASE_S, Lease
from sds_node.merkle import segment_root
from sds_node.meta.federation import agreeing
from sds_node.meta.relay.observer import Behind
from sds_node.meta.relay.reading import ObservingError
from sds_node.meta.relay.reporter import NotYet, Unequal
from sds_node.meta.rules.tables import SEGMENT
from sds_node.meta.rules.wire import OBSERVATION_DOMAIN, sign_observation
from sds_node.meta.users.lending import lease_document
from sds_node.meta.users.roots import Part, open_roots
from sds_node.value_chain.client import ChainUnavailable
from sds_node.wire import errors as wire_errors
from sds_node.wire.identity import Identity
from sds_node.wire.node import Node
from sds_node.wire.peer import Direct, Peer
from tests.sds_node.federation.metas import Metas, address, answering, bls_key, bls_secret, ledger_key, metas, silent, until
from tests.sds_node.rules.support import CHAIN_ID, message, wallet

pytestmark = pytest.mark.asyncio
METHODS = (asking.META_COSIGN, asking.META_OBSERVATION, asking.META_REPORT, asking.META_ROOTS)


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits that a test waits out are short."""
    for name in ("COSIGN_S", "OBSERVATION_S", "REPORT_S", "ROOTS_S"):
        monkeypatch.setattr(agreeing, name, 1.0)
    monkeypatch.setattr(agreeing, "LEASE_WAIT_S", 0.2)
    monkeypatch.setattr(agreeing, "WAIT_S", 0.2)


def answers(made: Metas) -> None:
    """All answer: observations and drafts are signed as they come."""
    for one in made:

        async def observation(body: bytes, number: int = one.number) -> bytes:
            return sign_observation(body, ledger_key(number))

        async def report(draft: Draft, number: int = one.number) -> bytes:
            return bls.sign(bls_secret(number), draft.message)

        one.wire.handlers.update(one.agreeing.handlers(observation, report))


def signature(number: int, raw: bytes) -> bytes:
    return encode(message("LedgerSignature", meta_node=address(number), signature=raw))


def draft(epoch: int = 1) -> Draft:
    commitment = message_class("stratos.settlement.v1.EpochCommitment")(epoch=epoch)
    report = message_class("stratos.pot.v1.MsgVolumeReport")(reporter=bech32.encode(address(1), bech32.NODE), epoch=str(epoch))
    return Draft(CHAIN_ID, commitment, report)


async def refused(made: Metas, method: str, body: bytes, *, by: int = 2, at: int = 1) -> wire_errors.Refused:
    with pytest.raises(wire_errors.Refused) as found:
        await made[by - 1].peers.ask(address(at), method, body=body, timeout_s=30)
    return found.value


# --- leases -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "others"), [(1, 0), (3, 0), (4, 1), (7, 2)])
async def test_a_lease_is_signed_by_as_many_as_its_quorum_needs(tmp_path: Path, count: int, others: int) -> None:
    async with metas(tmp_path, count) as made:
        answers(made)
        row, _ = await made.lease()
        body = encode(lease_document(CHAIN_ID, row))
        found = await made[0].agreeing.cosign(body)
        assert len(found) == others
        keys = {address(one): bytes(ledger_key(one).verify_key) for one in range(2, count + 1)}
        assert all(signed_by_key(LEASE_DOMAIN, body, keys[who], given) for who, given in found)


async def test_a_lease_whose_block_comes_a_moment_later_is_signed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreeing, "LEASE_WAIT_S", 60.0)
    monkeypatch.setattr(agreeing, "COSIGN_S", 60.0)
    async with metas(tmp_path) as made:
        answers(made)
        row, raw = await made.lease(but=[2, 3, 4])
        asked = asyncio.create_task(made[0].agreeing.cosign(encode(lease_document(CHAIN_ID, row))))
        await until(lambda: made[2].peers._of(address(1)).asked[asking.META_COSIGN])
        assert not asked.done()
        await made[2].apply(raw)
        ((who, _),) = await asked
        assert who == address(3)


async def test_a_lease_that_the_ledger_does_not_have_or_has_otherwise_is_not_signed(tmp_path: Path) -> None:
    async with metas(tmp_path) as made:
        answers(made)
        row, _ = await made.lease()
        good = lease_document(CHAIN_ID, row)
        assert (await refused(made, asking.META_COSIGN, encode(lease_document(CHAIN_ID, row._replace(id=bytes(32)))))).code == asking.LEASE_LOST
        for changed in (row._replace(noz=row.noz + 1), row._replace(wallet=wallet(2)), row._replace(ends_ms=row.ends_ms + 1_000)):
            assert (await refused(made, asking.META_COSIGN, encode(lease_document(CHAIN_ID, changed)))).code == asking.NOT_EQUAL
        assert (await refused(made, asking.META_COSIGN, encode(lease_document("another-1", row)))).code == asking.NOT_EQUAL
        for raw in (b"", b"\xff", encode(good) + b"\x78\x01", bytes(4_096)):
            with pytest.raises(wire_errors.BadRequest):
                await made[1].peers.ask(address(1), asking.META_COSIGN, body=raw)
        with pytest.raises(wire_errors.TooMuch):
            await made[1].peers.ask(address(1), asking.META_COSIGN, body=bytes(4_097))


async def test_signatures_that_do_not_hold_are_dropped(tmp_path: Path) -> None:
    async with metas(tmp_path) as made:
        answers(made)
        row, _ = await made.lease()
        body = encode(lease_document(CHAIN_ID, row))
        honest = await made[0].agreeing.cosign(body)
        lies = (signature(2, bytes(64)), signature(3, dict(honest).get(address(3), bytes(64))), b"", b"\xff\xff", bytes(10_000))
        for lie in lies:
            made[1].wire.handlers[asking.META_COSIGN] = answering(lie)
            made[2].wire.handlers[asking.META_COSIGN] = silent
            ((who, given),) = await made[0].agreeing.cosign(body)
            assert who == address(4)
            assert signed_by_key(LEASE_DOMAIN, body, bytes(ledger_key(4).verify_key), given)
        made[3].wire.handlers[asking.META_COSIGN] = silent
        assert await made[0].agreeing.cosign(body) == [], "and when nobody is left it is over after a while"


def repair_lease(made: Metas, **changes: Any) -> bytes:
    now_s = int(made.clock())
    fields: dict[str, Any] = {
        "chain_id": CHAIN_ID, "lease_id": sha256(b"repair").digest(), "wallet": bech32.encode(wallet(1)), "meta_node": bech32.encode(address(2), bech32.NODE),
        "noz": REPAIR_LEASE_NOZ, "fund": 1, "created_s": now_s, "expires_s": now_s + REPAIR_LEASE_S,
    }  # fmt: skip
    fields |= changes
    return encode(Lease(**fields))


async def test_a_lease_of_repair_is_signed_for_its_own_meta_node_and_a_payer_who_stores(tmp_path: Path) -> None:
    async with metas(tmp_path) as made:
        answers(made)
        assert (await refused(made, asking.META_COSIGN, repair_lease(made))).code == asking.NOT_EQUAL, "nothing is stored yet"
        await made.store([segment_root([bytes(32)] * 2)])
        body = repair_lease(made)
        raw = await made[1].peers.ask(address(1), asking.META_COSIGN, body=body)
        given = message("LedgerSignature").FromString(raw)
        assert signed_by_key(LEASE_DOMAIN, body, bytes(ledger_key(1).verify_key), given.signature)
        assert (await refused(made, asking.META_COSIGN, body, by=3)).code == asking.NOT_EQUAL, "it is another one's"
        now_s = int(made.clock())
        for changes in (
            {"wallet": bech32.encode(wallet(2))},
            {"wallet": "nobody"},
            {"chain_id": "another-1"},
            {"created_s": now_s + 120, "expires_s": now_s + 120 + REPAIR_LEASE_S},
        ):
            assert (await refused(made, asking.META_COSIGN, repair_lease(made, **changes))).code == asking.NOT_EQUAL
        assert (await refused(made, asking.META_COSIGN, repair_lease(made, noz=REPAIR_LEASE_NOZ + 1))).code == asking.LEASE_LOST


async def test_leases_of_repair_are_signed_at_a_bounded_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreeing, "REPAIR_LEASES", 2)
    monkeypatch.setattr(agreeing, "ONE_MORE_S", 3_600.0)
    async with metas(tmp_path, 3) as made:
        answers(made)
        await made.store([segment_root([bytes(32)] * 2)])
        for number in range(2):
            assert await made[1].peers.ask(address(1), asking.META_COSIGN, body=repair_lease(made, lease_id=bytes([number]) * 32))
        with pytest.raises(wire_errors.Busy):
            await made[1].peers.ask(address(1), asking.META_COSIGN, body=repair_lease(made, lease_id=bytes([2]) * 32))
        other = repair_lease(made, meta_node=bech32.encode(address(3), bech32.NODE))
        assert await made[2].peers.ask(address(1), asking.META_COSIGN, body=other), "another meta node has a rate of its own"


# --- observations ------------------------------------------------------------------------------------------------------------------


async def test_an_observation_is_signed_by_a_quorum_with_a_liar_among_four(tmp_path: Path) -> None:
    async with metas(tmp_path) as made:
        answers(made)
        body = made.observation()
        for lie in (signature(2, bytes(64)), signature(2, sign_observation(b"another", ledger_key(2)))):
            made[1].wire.handlers[asking.META_OBSERVATION] = answering(lie)
            found = await made[0].agreeing.gather(body)
            assert set(found) == {address(3), address(4)}, "three of four are a quorum, with the own one"
            assert all(
                signed_by_key(OBSERVATION_DOMAIN, body, bytes(ledger_key(one).verify_key), found[address(one)]) for one in (3, 4)
            )  # fmt: skip
        made[2].wire.handlers[asking.META_OBSERVATION] = silent
        assert set(await made[0].agreeing.gather(body)) == {address(4)}, "with two of four that lie or are silent it is over after a while"


async def test_who_is_behind_is_waited_for_and_who_sees_something_else_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreeing, "WAIT_S", 60.0)
    async with metas(tmp_path, 2) as made:
        left = [Behind("one block"), Behind("the same")]

        async def later(body: bytes) -> bytes:
            if left:
                raise left.pop()
            return sign_observation(body, ledger_key(2))

        async def report(draft: Draft) -> bytes:
            raise AssertionError

        made[1].wire.handlers.update(made[1].agreeing.handlers(later, report))
        assert set(await made[0].agreeing.gather(made.observation())) == {address(2)}
        for error, code in ((ObservingError("other"), asking.NOT_EQUAL), (ChainUnavailable("away"), asking.NOT_READY)):

            async def wrong(body: bytes, error: Exception = error) -> bytes:
                raise error

            made[1].wire.handlers.update(made[1].agreeing.handlers(wrong, report))
            assert (await refused(made, asking.META_OBSERVATION, made.observation(), by=1, at=2)).code == code
        monkeypatch.setattr(agreeing, "WAIT_S", 0.0)
        left.extend([Behind("for good")] * 9)
        made[1].wire.handlers.update(made[1].agreeing.handlers(later, report))
        assert (await refused(made, asking.META_OBSERVATION, made.observation(), by=1, at=2)).code == asking.NOT_READY


# --- reports -----------------------------------------------------------------------------------------------------------------------


async def test_a_report_is_signed_by_a_quorum_and_a_key_that_is_not_registered_counts_for_nothing(tmp_path: Path) -> None:
    async with metas(tmp_path) as made:
        answers(made)
        report = draft()
        stolen = encode(asking.BlsSignature(bls_pubkey=bls_key(3), signature=bls.sign(bls_secret(3), report.message)))
        unknown = encode(asking.BlsSignature(bls_pubkey=bls_key(77), signature=bls.sign(bls_secret(77), report.message)))
        wrong = encode(asking.BlsSignature(bls_pubkey=bls_key(2), signature=bls.sign(bls_secret(2), b"another")))
        for lie in (stolen, unknown, wrong, b"\xff"):
            made[1].wire.handlers[asking.META_REPORT] = answering(lie)
            found = await made[0].agreeing.gather_bls(report)
            assert set(found) == {bls_key(3), bls_key(4)}
            assert all(bls.verify(key, report.message, given) for key, given in found.items())


async def test_a_report_comes_over_as_it_was_made_and_refusals_say_why(tmp_path: Path) -> None:
    async with metas(tmp_path, 2) as made:
        seen: list[Draft] = []

        async def observation(body: bytes) -> bytes:
            raise AssertionError

        async def report(given: Draft) -> bytes:
            seen.append(given)
            raise Unequal("another one") if len(seen) == 1 else NotYet("not closed")

        made[1].wire.handlers.update(made[1].agreeing.handlers(observation, report))
        sent = draft(7)
        assert await made[0].agreeing.gather_bls(sent) == {}
        assert (seen[0].chain_id, seen[0].message, encode(seen[0].commitment)) == (CHAIN_ID, sent.message, encode(sent.commitment))
        body = encode(asking.ReportDraft(commitment=sent.commitment, report=sent.report))
        assert (await refused(made, asking.META_REPORT, body, by=1, at=2)).code == asking.NOT_READY
        with pytest.raises(wire_errors.BadRequest):
            await made[0].peers.ask(address(2), asking.META_REPORT, body=b"\xff\xff")


# --- share roots -------------------------------------------------------------------------------------------------------------------


async def test_share_roots_are_fetched_from_who_has_them_and_checked(tmp_path: Path) -> None:
    async with metas(tmp_path) as made:
        answers(made)
        roots = [[bytes([at]) * 32, bytes([at + 100]) * 32] for at in range(1, 4)]
        await made.store([segment_root(one) for one in roots])
        rows = await made[0].ledger.query(lambda view: view.scan(SEGMENT, limit=10))
        known = {row.number: next(one for one in roots if segment_root(one) == row.root) for row in rows}
        await made.greeted()
        assert await made[0].agreeing.fetch_roots(rows[0]) is None, "nobody has them"
        made[3].roots.update(known)
        assert await made[0].agreeing.fetch_roots(rows[0]) is None, "and nobody is asked again at once"
        assert await made[0].agreeing.fetch_roots(rows[1]) == known[rows[1].number]
        liar = roots[0][::-1]
        for lie in (
            encode(asking.SegmentShareRootsList(segments=[{"segment": rows[2].number, "roots": b"".join(liar)}])),
            encode(asking.SegmentShareRootsList(segments=[{"segment": rows[1].number, "roots": b"".join(known[rows[1].number])}])),
            b"\xff",
            bytes(100_000),
        ):
            made[1].wire.handlers[asking.META_ROOTS] = answering(lie)
            made[2].wire.handlers[asking.META_ROOTS] = silent
            made[0].agreeing._others._failed.clear()
            made[0].agreeing._others._served = address(2)
            assert await made[0].agreeing.fetch_roots(rows[2]) == known[rows[2].number]
            assert address(2) in made[0].agreeing._others._failed, "who lied is not asked for a while"


async def test_the_file_of_share_roots_gets_what_it_lacks_and_nobody_asks_a_third_one(tmp_path: Path) -> None:
    async with metas(tmp_path, 2) as made:
        first, second = made
        files = {}
        for one in made:
            files[one.number] = open_roots(tmp_path / f"roots{one.number}.db", fetch=one.agreeing.fetch_roots)

            async def of(rows: Any, number: int = one.number) -> Mapping[int, Any]:
                found: Mapping[int, Any] = await files[number].of(rows)
                return found

            one.agreeing._roots_of = of
        answers(made)
        roots = [b"\x01" * 32, b"\x02" * 32]
        await made.store([segment_root(roots)])
        await made.greeted()
        (row,) = await first.ledger.query(lambda view: view.scan(SEGMENT, limit=10))
        asked = 0
        real = second.peers.ask

        async def counting(*arguments: Any, **others: Any) -> bytes:
            nonlocal asked
            asked += 1
            return await real(*arguments, **others)

        second.peers.ask = counting  # type: ignore[method-assign]
        assert await files[1].of([row]) == {}
        assert asked == 0, "the second one, asked by the first, asks nobody"
        await files[2].stage([Part(row.object, 0, [roots])])
        await files[2].number([(row.object, 0, 1, row.number)])
        first.agreeing._unknown.clear()
        assert await files[1].of([row]) == {row.number: roots}
        await second.stop()
        assert await files[1].of([row]) == {row.number: roots}, "they are kept"
        for file in files.values():
            file.close()


async def test_only_so_many_segments_are_asked_for_at_once(tmp_path: Path) -> None:
    async with metas(tmp_path, 2) as made:
        answers(made)
        for numbers in (range(asking.MAX_ROOTS_ASKED + 1), [1 << 63]):
            assert (await refused(made, asking.META_ROOTS, encode(asking.SegmentList(segments=numbers)))).code == asking.BAD_ASK
        raw = await made[1].peers.ask(address(1), asking.META_ROOTS, body=encode(asking.SegmentList(segments=[5, 5, (1 << 63) - 1])))
        assert raw == b""


# --- who asks ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
async def test_strangers_get_no_signatures(tmp_path: Path, method: str) -> None:
    async with metas(tmp_path, 2) as made:
        answers(made)
        stranger = Node(Identity.ephemeral(), CHAIN_ID)
        host, _, port = made[0].own.endpoint.rpartition(":")
        with pytest.raises(wire_errors.Refused) as found:
            await Peer(stranger, made[0].address, [Direct(host, int(port))]).ask(method, body=b"x")
        assert found.value.code == asking.UNKNOWN_NODE
        await stranger.close()
