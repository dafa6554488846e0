"""Receipts on their way to be paid: leaves that are ready go to the meta node that issued their limit, which holds them, settles them or refuses them.

    ReceiptLog.pending ─ node.receipts ─► HELD ─ node.settled, every 30 s ─► SETTLED ─► ReceiptLog.settled
                              └─► REFUSED ─► refused.jsonl, and settled in the log: it is not sent again
                                    └─ for a share that no commit has, by what this node was told: nobody owes anything, no evidence is kept

A meta node that is away is asked again later; one that is no longer active, or away for 90 s, is replaced by another. What it does not settle, two minutes
after the limit's end, is shown to the others each minute, too: they may settle it once its lease is over, and for 600 s; their refusal means nothing. Handing in again does no harm, so what is held
is only in memory. A refused receipt for whose evidence there is no room stays in the log, and is shown again each hour. Source: docs/adr/0009 (node.receipts, node.settled); storage-protocol.md 2 and 4.
"""

from __future__ import annotations

import asyncio
import base64
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, Protocol

import structlog
from google.protobuf.message import DecodeError

from chain.codec.canonical import encode, known
from chain.crypto import address as bech32
from chain.errors import AppError
from modules.settlement.documents import OrderLimit, Receipt
from modules.settlement.leaves import AUDIT, GET, PUT, REPAIR
from sds_node.asking import MAX_ANSWER_BYTES, MAX_BODY_BYTES, NODE_RECEIPTS, NODE_SETTLED, TRY_ANOTHER, ReceiptAnswers, ReceiptsBatch, SerialList
from sds_node.resource.daemon.home import Home
from sds_node.resource.daemon.links import first_of
from sds_node.resource.receipts import PAGE_ROWS, ReceiptLog, ReceiptsError
from sds_node.transfers import ANY_ROOT
from sds_node.wire.errors import Refused, WireError
from sds_node.wire.node import describe

log = structlog.get_logger("receipts")

EVERY_S: Final = 5.0
HELD_S: Final = 30.0
RETRY_S: Final = 2.0
RETRY_MOST_S: Final = 120.0
OVERDUE_S: Final = 120
"""A receipt that is not settled so long after its limit's end is shown to other meta nodes, too."""
LEASE_S: Final = 3_600
"""A lease lasts so long at most, as a rule."""
SHOWN_S: Final = 60.0
"""Not to the same one again before."""
LONG_OVER_S: Final = 2 * 3_600
"""So long after its end no lease can be settled that a limit was under."""
REFUSED_AGAIN_S: Final = 3_600.0
MAX_HELD: Final = 1_000_000
MAX_REASON: Final = 1_000
ROOM_BYTES: Final = 64 << 10
UNKNOWN, HELD, SETTLED, REFUSED = range(4)
"""Of ReceiptState."""
NAMES: Final = {HELD: "held", SETTLED: "settled", REFUSED: "refused"}
_ACTIONS: Final = {GET: "get", PUT: "put", REPAIR: "repair", AUDIT: "audit"}


class Asked(Protocol):
    """A meta node that receipts can be handed to."""

    address: bytes
    name: str

    async def ask(self, method: str, head: bytes = b"", body: bytes = b"", *, most_bytes: int) -> bytes: ...


class Hander:
    """Hands in the receipts of a ReceiptLog. ``takers`` tells which meta nodes may be asked for the limits of one (20 bytes), the best one first;
    ``others`` which are there beside that one; so many as ``quorum`` says of them must say that a receipt is settled. ``is_stored`` tells of a share's root and
    serial whether the ledger named it to this node; it blocks.
    """

    def __init__(
        self,
        receipts: ReceiptLog,
        home: Home,
        takers: Callable[[bytes], Sequence[Asked]],
        clock: Callable[[], float],
        *,
        others: Callable[[bytes], Sequence[Asked]] = lambda _: (),
        quorum: Callable[[], int] = lambda: 1,
        is_stored: Callable[[bytes, bytes], bool] = lambda share_root, serial: True,
        every_s: float = EVERY_S,
        held_s: float = HELD_S,
    ) -> None:
        self._receipts, self._home, self._takers, self._others, self._clock, self._quorum = receipts, home, takers, others, clock, quorum
        self._is_stored = is_stored
        self.every_s, self.held_s = every_s, held_s
        self.count: Counter[str] = Counter()
        """Receipts by what became of them."""
        self.noz: Counter[str] = Counter()
        """What they pay, noz, by what became of them."""
        self.bytes: Counter[str] = Counter()
        """Bytes of receipts handed in for the first time in this run, by get, put, repair, audit."""
        self._held: dict[bytes, tuple[bytes, float]] = {}  # serial → who holds it, and when it was last asked for
        self._shown: dict[bytes, float] = {}  # serial → when it was last shown to the others
        self._finished: set[bytes] = set()
        """Of the page that is walked over: settled, or refused for good."""
        self._unkept: dict[bytes, float] = {}  # serial of a refused receipt without evidence → when it may be handed in again
        self.problem = ""
        """What an operator has to do, a sentence; or empty."""
        self._failures: Counter[bytes] = Counter()
        self._not_before: dict[bytes, float] = {}
        self._now = asyncio.Event()

    def poke(self) -> None:
        """Receipts or a meta node have come: look now."""
        self._now.set()

    async def run(self) -> None:
        """Hand in what is ready, until cancelled."""
        while True:
            begun = time.monotonic()
            self._now.clear()
            try:
                await self.round()
            except ReceiptsError as error:
                log.error("receipts cannot be read", why=str(error))
            # A long backlog is not walked all the time.
            await first_of(max(self.every_s, 10 * (time.monotonic() - begun)), self._now)

    async def round(self, *, ask_again: bool = False) -> int:
        """Walk once over all that is ready. ``ask_again``: also over what was asked for not long ago. Returns how many were settled or refused."""
        after, done = b"", 0
        gone = self._held.keys() | self._shown.keys() | self._unkept.keys()
        while True:
            page = await asyncio.to_thread(self._receipts.pending, int(self._clock()), after)
            by_issuer: dict[bytes, list[tuple[bytes, Any]]] = {}
            for leaf in page:
                limit = OrderLimit.FromString(leaf.traffic.order_limit.body)
                after = bytes(limit.serial)
                gone.discard(after)
                by_issuer.setdefault(_node(limit.meta_node), []).append((after, leaf))
            self._finished.clear()
            for issuer, leaves in by_issuer.items():
                done += await self._hand(issuer, leaves, ask_again=ask_again)
                done += await self._show(issuer, leaves)
            if len(page) < PAGE_ROWS:
                self._forget(gone)
                return done

    def _forget(self, serials: Iterable[bytes]) -> None:
        for serial in serials:
            for kept in (self._held, self._shown, self._unkept):
                kept.pop(serial, None)
        if not self._unkept:
            self.problem = ""

    async def _hand(self, issuer: bytes, leaves: list[tuple[bytes, Any]], *, ask_again: bool) -> int:
        """What one meta node's limits brought: the new ones are handed in, the held ones asked for. Of those that may settle for one that is gone each is
        asked, until one takes a leaf: only one of them does."""
        now, done = time.monotonic(), 0
        takers = self._takers(issuer)
        there = {taker.address for taker in takers}
        leaves = [one for one in leaves if self._unkept.get(one[0], 0.0) <= now]
        for taker in takers:
            if self._not_before.get(taker.address, 0.0) > now:
                continue
            holders = {serial: self._held.get(serial, (b"", 0.0)) for serial, _ in leaves}
            fresh = [one for one in leaves if holders[one[0]][0] not in there]
            held = [one for one in leaves if holders[one[0]][0] == taker.address and (ask_again or holders[one[0]][1] <= now - self.held_s)]
            before = done
            try:
                is_last_word = taker.address == issuer or self._quorum() <= 1
                for batch in _batches(fresh):
                    body = encode(ReceiptsBatch(leaves=[known(leaf) for _, leaf in batch]))
                    done += await self._asked(taker, NODE_RECEIPTS, body, batch, is_last_word)
                for first in range(0, len(held), PAGE_ROWS):
                    part = held[first : first + PAGE_ROWS]
                    done += await self._asked(taker, NODE_SETTLED, encode(SerialList(serials=[serial for serial, _ in part])), part, is_last_word)
            except (WireError, TimeoutError, DecodeError) as error:
                self._failed(taker, error)
                if isinstance(error, Refused) and error.code == TRY_ANOTHER:
                    continue
                return done
            self._failures.pop(taker.address, None)
            if taker.address == issuer:
                break
            if done > before:
                leaves = [one for one in leaves if one[0] not in self._finished]
        return done

    def _failed(self, taker: Asked, error: Exception) -> None:
        self._failures[taker.address] += 1
        wait_s = min(RETRY_S * 2 ** min(self._failures[taker.address] - 1, 16), RETRY_MOST_S)
        self._not_before[taker.address] = time.monotonic() + wait_s
        log.warning("receipts are not taken", meta_node=taker.name, again_in_s=wait_s, why=describe(error))

    async def _show(self, issuer: bytes, leaves: list[tuple[bytes, Any]]) -> int:
        """Show what its meta node did not settle long after the limit's end to the others. How many they settled."""
        now, done = time.monotonic(), 0
        is_there = self._answers(issuer)
        overdue = [
            (serial, leaf)
            for serial, leaf in leaves
            if serial not in self._finished
            and self._shown.get(serial, -math.inf) <= now - SHOWN_S
            and self._overdue_s(OrderLimit.FromString(leaf.traffic.order_limit.body), is_held=is_there and self._is_held(serial, issuer))
            < self._clock()
        ]
        if not overdue:
            return 0
        said = dict(overdue)
        words: dict[int, Counter[bytes]] = {SETTLED: Counter(), REFUSED: Counter()}
        for taker in self._others(issuer):
            if self._not_before.get(taker.address, 0.0) > now:
                continue
            try:
                for batch in _batches([one for one in overdue if one[0] not in self._finished]):
                    body = encode(ReceiptsBatch(leaves=[known(leaf) for _, leaf in batch]))
                    answers = ReceiptAnswers.FromString(await taker.ask(NODE_RECEIPTS, body=body, most_bytes=MAX_ANSWER_BYTES)).answers
                    self._shown.update((serial, now) for serial, _ in batch)
                    for state, serial in {(one.state, bytes(one.serial)) for one in answers[: len(batch)]}:
                        if state in words and serial in said:
                            words[state][serial] += 1
            except (WireError, TimeoutError, DecodeError) as error:
                self._failed(taker, error)
        settled = [serial for serial, count in words[SETTLED].items() if count >= self._quorum()]
        for serial in settled:
            self._counted(SETTLED, said[serial])
        await self._over(settled)
        done += len(settled)
        if not self._answers(issuer):
            # Nobody pays any more: the one whose word it is has been away, and the lease is long over.
            long_ago_s = self._clock() - LONG_OVER_S
            gone = [
                (serial, said[serial], "no meta node settles it any more, and the one that issued its limit is away")
                for serial, count in words[REFUSED].items()
                if count >= self._quorum() and OrderLimit.FromString(said[serial].traffic.order_limit.body).expires_s < long_ago_s
            ]
            over = await self._refused("the others", gone)
            await self._over(over)
            done += len(over)
        return done

    def _answers(self, issuer: bytes) -> bool:
        """Whether the meta node that issued a limit is among those that may be asked."""
        return any(taker.address == issuer for taker in self._takers(issuer))

    def _is_held(self, serial: bytes, issuer: bytes) -> bool:
        """Whether a meta node holds a receipt, by its last word."""
        return serial in self._held and self._held[serial][0] == issuer

    @staticmethod
    def _overdue_s(limit: Any, *, is_held: bool) -> int:
        """When the others are shown a receipt (Unix seconds). One for a share that was taken waits for a commit: as long as a lease may last, if its own meta node
        holds it and answers."""
        return int(limit.expires_s) + OVERDUE_S + (LEASE_S if is_held and limit.action == PUT else 0)

    async def _over(self, serials: list[bytes]) -> None:
        if serials:
            await asyncio.to_thread(self._receipts.settled, serials)
            self._finished.update(serials)
            self._forget(serials)

    async def _asked(self, taker: Asked, method: str, body: bytes, batch: list[tuple[bytes, Any]], is_last_word: bool) -> int:
        raw = await taker.ask(method, body=body, most_bytes=MAX_ANSWER_BYTES)
        return await self._judged(taker, batch, ReceiptAnswers.FromString(raw), is_first=method == NODE_RECEIPTS, is_last_word=is_last_word)

    async def _judged(self, taker: Asked, batch: list[tuple[bytes, Any]], answers: Any, *, is_first: bool, is_last_word: bool) -> int:
        """Do as the answers say; what is not among them, or not known to them, is handed in again. What one that did not issue the limits says of their end
        is not the last word: ``_show`` hears all of them."""
        wanted, now = dict(batch), time.monotonic()
        over: list[bytes] = []
        refused: list[tuple[bytes, Any, str]] = []
        for answer in answers.answers[: len(batch)]:
            serial = bytes(answer.serial)
            leaf = wanted.pop(serial, None)
            if leaf is None:
                continue
            if answer.state == HELD or (answer.state == SETTLED and not is_last_word):
                if serial not in self._held:
                    self._counted(HELD, leaf)
                if serial in self._held or len(self._held) < MAX_HELD:
                    self._held[serial] = taker.address, now
            elif answer.state == SETTLED:
                over.append(serial)
                self._counted(SETTLED, leaf)
            elif answer.state == REFUSED and is_last_word:
                refused.append((serial, leaf, str(answer.reason)[:MAX_REASON]))
            else:
                self._held.pop(serial, None)
                log.info("a receipt is not taken yet", meta_node=taker.name, serial=serial.hex(), why=str(answer.reason)[:MAX_REASON])
        for serial in () if is_first else wanted:
            self._held.pop(serial, None)
        over += await self._refused(taker.name, refused)
        await self._over(over)
        return len(over)

    def _counted(self, state: int, leaf: Any) -> None:
        name, limit = NAMES[state], OrderLimit.FromString(leaf.traffic.order_limit.body)
        self.count[name] += 1
        self.noz[name] += leaf.noz
        if bytes(limit.serial) not in self._held:
            self.bytes[_ACTIONS.get(limit.action, "other")] += Receipt.FromString(leaf.traffic.receipt.body).bytes_acked

    async def _refused(self, by: str, refused: list[tuple[bytes, Any, str]]) -> list[bytes]:
        """Keep the evidence of what was refused for good. Those of which it is kept; the others stay in the log, for whoever makes room."""
        unstored = await asyncio.to_thread(self._unstored, refused) if refused else []
        for serial, leaf, reason in unstored:
            log.info("an upload that was not committed is not paid", meta_node=by, serial=serial.hex(), noz=leaf.noz, why=reason)
            self._counted(REFUSED, leaf)
        done = [serial for serial, _, _ in unstored]
        over = set(done)
        refused = [one for one in refused if one[0] not in over]
        if not refused:
            return done
        time_s = str(int(self._clock()))
        rows = [
            {
                "time_s": time_s,
                "meta_node": by,
                "serial": serial.hex(),
                "reason": reason,
                "leaf": base64.b64encode(encode(known(leaf))).decode(),
            }
            for serial, leaf, reason in refused
        ]
        try:
            is_kept = await asyncio.to_thread(self._home.note_refused, rows)
            why = "it is full"
        except OSError as error:
            is_kept, why = False, str(error.strerror)
        for serial, leaf, reason in refused:
            if serial not in self._unkept:
                log.error("a receipt was refused for good", meta_node=by, serial=serial.hex(), noz=leaf.noz, why=reason)
                self._counted(REFUSED, leaf)
            if not is_kept:
                self._held.pop(serial, None)
                self._unkept[serial] = time.monotonic() + REFUSED_AGAIN_S
        if is_kept:
            return done + [serial for serial, _, _ in refused]
        self.problem = f"refused receipts cannot be kept in {self._home.refused_path} ({why}): move that file away, or make room"
        return done

    def _unstored(self, refused: list[tuple[bytes, Any, str]]) -> list[tuple[bytes, Any, str]]:
        """Those for uploads of which the ledger has not named the share to this node."""
        limits = [(one, OrderLimit.FromString(one[1].traffic.order_limit.body)) for one in refused]
        # A limit that names no share is of a client that asked for places before it had coded: whether it is stored cannot be looked up.
        puts = [(one, limit) for one, limit in limits if limit.action == PUT and bytes(limit.share_root) != ANY_ROOT]
        return [one for one, limit in puts if not self._is_stored(bytes(limit.share_root), bytes(limit.serial))]


def _batches(leaves: list[tuple[bytes, Any]]) -> Iterator[list[tuple[bytes, Any]]]:
    """Parts that fit one request."""
    batch: list[tuple[bytes, Any]] = []
    size_bytes = 0
    for one in leaves:
        leaf_bytes = one[1].ByteSize() + 8
        if batch and (len(batch) == PAGE_ROWS or size_bytes + leaf_bytes > MAX_BODY_BYTES - ROOM_BYTES):
            yield batch
            batch, size_bytes = [], 0
        batch.append(one)
        size_bytes += leaf_bytes
    if batch:
        yield batch


def _node(text: str) -> bytes:
    """The 20 bytes of a meta node's address; none for text that is none, which no judged limit has."""
    try:
        return bech32.decode(text, bech32.NODE)
    except AppError:
        return b""
