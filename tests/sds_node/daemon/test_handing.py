"""Receipts on their way to a meta node: who is asked, what becomes of each, what nonsense changes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from chain.codec.canonical import encode
from modules.settlement.documents import OrderLimit, Receipt
from sds_node import asking
from sds_node.documents import signed
from sds_node.resource.daemon.handing import HELD, LEASE_S, OVERDUE_S, Hander
from sds_node.resource.daemon.home import Home
from sds_node.resource.receipts import ReceiptLog, open_receipts
from sds_node.wire.errors import Lost, Refused
from tests.sds_node.data.network import Clock
from tests.sds_node.documenting import CHAIN_ID, NOW_S, SESSION, evidence, limit, meta_address

pytestmark = pytest.mark.asyncio

SETTLED, REFUSED = 2, 3
EXPIRES_S = NOW_S + 600


@dataclass
class Taker:
    """A meta node that answers as told, without a wire."""

    number: int = 1
    state: int = HELD
    error: Exception | None = None
    answer: bytes | None = None
    extra: list[dict[str, Any]] = field(default_factory=list)
    handed: list[list[bytes]] = field(default_factory=list)
    asked_for: list[list[bytes]] = field(default_factory=list)

    @property
    def address(self) -> bytes:
        return meta_address(self.number)

    @property
    def name(self) -> str:
        return f"meta {self.number}"

    async def ask(self, method: str, head: bytes = b"", body: bytes = b"", *, most_bytes: int) -> bytes:
        if method == asking.NODE_RECEIPTS:
            assert len(body) <= asking.MAX_BODY_BYTES
            leaves = asking.ReceiptsBatch.FromString(body).leaves
            serials = [bytes(OrderLimit.FromString(leaf.traffic.order_limit.body).serial) for leaf in leaves]
            self.handed.append(serials)
        else:
            serials = [bytes(one) for one in asking.SerialList.FromString(body).serials]
            self.asked_for.append(serials)
        assert len(serials) <= asking.MAX_LEAVES
        if self.error is not None:
            raise self.error
        if self.answer is not None:
            return self.answer
        rows = [{"serial": one, "state": self.state, "reason": "because"} for one in serials]
        return encode(asking.ReceiptAnswers(answers=[*self.extra, *rows]))


@pytest.fixture
def receipts(tmp_path: Path) -> Iterator[ReceiptLog]:
    with open_receipts(tmp_path / "receipts.db") as made:
        yield made


def earn(receipts: ReceiptLog, *numbers: int) -> list[bytes]:
    """Final receipts of 1,000 bytes for 1,000 noz under limits with these numbers."""
    futures = []
    for number in numbers:
        made = limit(number)
        futures.append(receipts.accept(None, evidence(number), made))
        final = Receipt(chain_id=CHAIN_ID, serial=made.serial, sequence=1, bytes_acked=1_000, chunks_digest=b"d" * 32, is_final=True)
        futures.append(receipts.finish(bytes(made.serial), signed(final, SESSION)))
    for future in futures:
        future.result()
    return [bytes(limit(number).serial) for number in numbers]


def hander(receipts: ReceiptLog, home: Path, *takers: Taker) -> Hander:
    def choose(issuer: bytes) -> Sequence[Taker]:
        assert issuer == meta_address(1)
        return takers

    return Hander(receipts, Home(home), choose, Clock())


async def test_held_receipts_are_asked_for_until_they_are_settled(receipts: ReceiptLog, tmp_path: Path) -> None:
    serials, taker = earn(receipts, 1, 2), Taker()
    hands = hander(receipts, tmp_path, taker)
    assert await hands.round() == 0
    assert taker.handed == [serials]
    await hands.round()
    assert (taker.handed, taker.asked_for) == ([serials], []), "not so soon again"
    taker.state = SETTLED
    assert await hands.round(ask_again=True) == 2
    assert taker.asked_for == [serials]
    assert receipts.pending(NOW_S) == []
    assert (hands.count["held"], hands.count["settled"], hands.noz["settled"], hands.bytes["put"]) == (2, 2, 2_000, 2_000)


async def test_a_refused_receipt_is_kept_as_evidence_and_not_sent_again(receipts: ReceiptLog, tmp_path: Path) -> None:
    [serial], taker = earn(receipts, 1), Taker(state=REFUSED)
    hands = hander(receipts, tmp_path, taker)
    assert await hands.round() == 1
    assert await hands.round() == 0
    assert taker.handed == [[serial]]
    row = json.loads((tmp_path / "refused.jsonl").read_text())
    assert (row["serial"], row["reason"], row["meta_node"]) == (serial.hex(), "because", "meta 1")


async def test_of_an_upload_that_was_not_committed_no_evidence_is_kept(receipts: ReceiptLog, tmp_path: Path) -> None:
    serials, asked, taker = earn(receipts, 1, 2), list[tuple[bytes, bytes]](), Taker(state=REFUSED)

    def is_stored(share_root: bytes, serial: bytes) -> bool:
        asked.append((share_root, serial))
        return serial == serials[1]

    hands = Hander(receipts, Home(tmp_path), lambda _: [taker], Clock(), is_stored=is_stored)
    assert await hands.round() == 2
    assert await hands.round() == 0
    assert receipts.pending(NOW_S) == []
    assert asked == [(bytes(limit(number).share_root), serial) for number, serial in zip((1, 2), serials, strict=True)]
    assert json.loads((tmp_path / "refused.jsonl").read_text())["serial"] == serials[1].hex()
    assert hands.count["refused"] == 2


async def test_what_is_not_taken_yet_is_handed_in_again(receipts: ReceiptLog, tmp_path: Path) -> None:
    [serial], taker = earn(receipts, 1), Taker(state=0)
    hands = hander(receipts, tmp_path, taker)
    await hands.round()
    await hands.round()
    assert taker.handed == [[serial], [serial]]
    assert len(receipts.pending(NOW_S)) == 1


async def test_what_a_meta_node_forgot_is_handed_in_again(receipts: ReceiptLog, tmp_path: Path) -> None:
    [serial], taker = earn(receipts, 1), Taker()
    hands = hander(receipts, tmp_path, taker)
    await hands.round()
    taker.answer = b""
    await hands.round(ask_again=True)
    taker.answer = None
    await hands.round()
    assert taker.handed == [[serial], [serial]]


@pytest.mark.parametrize("error", [Lost("gone"), TimeoutError(), Refused(asking.NOT_READY, "not yet")])
async def test_a_meta_node_that_fails_is_left_alone_for_a_while(receipts: ReceiptLog, tmp_path: Path, error: Exception) -> None:
    taker = Taker(error=error)
    earn(receipts, 1)
    hands = hander(receipts, tmp_path, taker)
    await hands.round()
    await hands.round()
    assert len(taker.handed) == 1
    assert len(receipts.pending(NOW_S)) == 1, "nothing is lost"


async def test_one_that_is_not_responsible_sends_to_the_next(receipts: ReceiptLog, tmp_path: Path) -> None:
    [serial] = earn(receipts, 1)
    first, second = Taker(1, error=Refused(asking.TRY_ANOTHER, "another")), Taker(2, state=SETTLED)
    assert await hander(receipts, tmp_path, first, second).round() == 1
    assert second.handed == [[serial]]


async def test_of_those_that_may_settle_for_one_that_is_gone_each_is_asked(receipts: ReceiptLog, tmp_path: Path) -> None:
    """Only one of them has the duty; the others say that it is not theirs yet."""
    [serial] = earn(receipts, 1)
    not_its_duty, settles = Taker(2, state=0), Taker(3, state=HELD)
    hands = hander(receipts, tmp_path, not_its_duty, settles)
    assert await hands.round() == 0
    assert (not_its_duty.handed, settles.handed) == ([[serial]], [[serial]])
    await hands.round()
    assert not_its_duty.handed == [[serial]], "it is held by another one"
    settles.state = SETTLED
    assert await hands.round(ask_again=True) == 1
    assert receipts.pending(NOW_S) == []


async def test_what_was_never_taken_is_shown_to_the_others_once_it_is_overdue(receipts: ReceiptLog, tmp_path: Path) -> None:
    [serial], other, clock = earn(receipts, 1), Taker(2, state=SETTLED), Clock(EXPIRES_S + OVERDUE_S + 1)
    hands = Hander(receipts, Home(tmp_path), lambda _: [], clock, others=lambda _: [other])
    assert await hands.round() == 1
    assert other.handed == [[serial]]


async def test_answers_about_what_was_not_asked_change_nothing(receipts: ReceiptLog, tmp_path: Path) -> None:
    mine, other = earn(receipts, 1, 2)
    taker = Taker(extra=[{"serial": b"x" * 16, "state": SETTLED}, {"serial": b"", "state": REFUSED}, {"serial": b"y" * 5_000, "state": SETTLED}])
    hands = hander(receipts, tmp_path, taker)
    await hands.round()
    assert len(receipts.pending(NOW_S)) == 2
    assert mine != other
    assert not (tmp_path / "refused.jsonl").exists()


@pytest.mark.parametrize("answer", [b"\xff" * 100, b"\x0a\xff\xff\xff\xff\x0f", b"nonsense"])
async def test_bytes_that_are_no_answer_are_a_failure_of_that_meta_node(receipts: ReceiptLog, tmp_path: Path, answer: bytes) -> None:
    taker = Taker(answer=answer)
    earn(receipts, 1)
    hands = hander(receipts, tmp_path, taker)
    assert await hands.round() == 0
    assert len(receipts.pending(NOW_S)) == 1


async def test_an_unknown_state_of_a_later_version_is_no_settlement(receipts: ReceiptLog, tmp_path: Path) -> None:
    earn(receipts, 1)
    hands = hander(receipts, tmp_path, Taker(state=77))
    assert await hands.round() == 0
    assert len(receipts.pending(NOW_S)) == 1


async def test_thousands_of_receipts_go_in_parts(receipts: ReceiptLog, tmp_path: Path) -> None:
    serials, taker = earn(receipts, *range(1, 2_302)), Taker(state=SETTLED)
    assert await hander(receipts, tmp_path, taker).round() == 2_301
    assert [len(part) for part in taker.handed] == [1_000, 1_000, 301]
    assert sorted(one for part in taker.handed for one in part) == serials


async def test_what_is_held_for_ever_is_shown_to_the_others(receipts: ReceiptLog, tmp_path: Path) -> None:
    [serial], own, other, clock = earn(receipts, 1), Taker(1), Taker(2, state=REFUSED), Clock()
    hands = Hander(receipts, Home(tmp_path), lambda _: [own], clock, others=lambda _: [other])
    await hands.round()
    assert (own.handed, other.handed) == ([[serial]], [])
    clock.now_s = EXPIRES_S + OVERDUE_S + LEASE_S
    await hands.round()
    assert other.handed == [], "as long as its lease may last it may wait for a commit"
    clock.now_s += 1
    await hands.round()
    await hands.round()
    assert other.handed == [[serial]], "and not so soon again"
    assert len(receipts.pending(NOW_S)) == 1, "that another one refuses it means nothing"
    assert not (tmp_path / "refused.jsonl").exists()
    other.state = SETTLED
    hands._shown.clear()
    assert await hands.round() == 1
    assert receipts.pending(NOW_S) == []
    assert hands.count["settled"] == 1


async def test_what_one_that_went_away_holds_is_shown_as_soon_as_it_is_overdue(receipts: ReceiptLog, tmp_path: Path) -> None:
    [serial], other, clock = earn(receipts, 1), Taker(2, state=REFUSED), Clock()
    takers = [Taker(1)]
    hands = Hander(receipts, Home(tmp_path), lambda _: takers, clock, others=lambda _: [other])
    await hands.round()
    takers.clear()
    clock.now_s = EXPIRES_S + OVERDUE_S + 1
    await hands.round()
    assert other.handed == [[serial]]


async def test_answers_of_others_about_what_was_not_shown_change_nothing(receipts: ReceiptLog, tmp_path: Path) -> None:
    earn(receipts, 1)
    clock = Clock(EXPIRES_S + OVERDUE_S + 1)
    own, other = Taker(1), Taker(2, extra=[{"serial": b"x" * 16, "state": SETTLED}])
    hands = Hander(receipts, Home(tmp_path), lambda _: [own], clock, others=lambda _: [other])
    assert await hands.round() == 0
    other.answer = b"\xff" * 50
    hands._shown.clear()
    assert await hands.round() == 0
    assert len(receipts.pending(NOW_S)) == 1


async def test_a_refused_receipt_without_room_for_its_evidence_stays(receipts: ReceiptLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [serial], taker = earn(receipts, 1), Taker(state=REFUSED)
    hands = hander(receipts, tmp_path, taker)
    monkeypatch.setattr("sds_node.resource.daemon.home.MAX_REFUSED_BYTES", 10)
    assert await hands.round() == 0
    assert await hands.round() == 0
    assert taker.handed == [[serial]], "it is not asked for all the time"
    assert len(receipts.pending(NOW_S)) == 1
    assert "refused.jsonl" in hands.problem
    monkeypatch.undo()
    hands._unkept[serial] = 0.0
    assert await hands.round() == 1
    assert (hands.problem, hands.count["refused"]) == ("", 1)
    assert json.loads((tmp_path / "refused.jsonl").read_text())["serial"] == serial.hex()
