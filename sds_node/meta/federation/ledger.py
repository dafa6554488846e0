"""A ledger that several meta nodes keep together: ``Ledger``'s interface over blocks.

    propose ─ own check ─► broadcast ──► Order ──► blocks ─► LedgerApplication ─► commit ─► hooks ─► results, by SHA-256(operation)
                 │             ▲ again every 3 s ◄── open ──────────────────────────────────────────────────┤
                 └ refused: in no log, nobody else has it                  ledger time beyond until_s ──► OUT_OF_TIME

Once an operation was broadcast three things are final: its result in a block, a block later than its ``until_s``, since no block applies it after that, and a
block that has used its nonce for another one. What else a mempool says on the way means nothing. Without a quorum operations wait; reading goes on.

What users ask for leaves room for what a meta node owes: of the operations that are open, of a mempool and a block, and of the day (bounds.py). Once their part
of the day is used, users' operations fail as Busy, and those behind them go on.

Mempools hold 62 operations of a sender (bounds.py). Half of that are under way at once, the oldest first, so that one that is a block behind has room for the
next ones, too; none is ever further behind the highest nonce than the rules allow.

Source: docs/adr/0010.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final, Protocol, TypeVar

import structlog

from sds_node.meta.federation import members
from sds_node.meta.federation.application import KEEP_BLOCKS, LedgerApplication
from sds_node.meta.federation.bounds import MOST_WAITING, MOST_WAITING_BYTES
from sds_node.meta.federation.members import Sketch
from sds_node.meta.ledger.blocks import BlockLedger
from sds_node.meta.ledger.core import Rules, check_operation
from sds_node.meta.ledger.engine import MAX_READERS, ReadView
from sds_node.meta.ledger.errors import BadValue, Busy, DayUsed, Unavailable
from sds_node.meta.ledger.log import Head, Result
from sds_node.meta.ledger.sql import READ_TIMEOUT_S
from sds_node.meta.ledger.tables import CACHE_BYTES
from sds_node.meta.ledger.transfer import export_name
from sds_node.meta.rules.apply import MAX_UNTIL_S
from sds_node.meta.rules.refusals import OUT_OF_TIME, USED_NONCE

log = structlog.get_logger("ledger")

MAX_OPEN: Final = 20_000
MAX_OPEN_BYTES: Final = 64 << 20
MAX_OF_USERS: Final = 2_000
MAX_BYTES_OF_USERS: Final = 32 << 20
"""Of these, what users asked for: whatever a meta node has to do besides stands behind some 65 blocks of theirs at most."""
UNDER_WAY: Final = MOST_WAITING // 2
UNDER_WAY_BYTES: Final = MOST_WAITING_BYTES // 2
AGAIN_S: Final = 3.0
"""So often an open operation is broadcast: mempools forget."""
PRUNE_WAIT_S: Final = 30.0
T = TypeVar("T")


class OrderRefused(Exception):
    """No mempool takes the operation. ``code`` and ``reason`` as in a Result."""

    def __init__(self, code: int, reason: str) -> None:
        self.code, self.reason = code, reason
        super().__init__(reason)


class Order(Protocol):
    """Who puts operations into blocks."""

    def attach(self, application: LedgerApplication) -> None:
        """The application whose calls it makes; before ``start``."""

    async def start(self) -> None: ...
    async def stop(self) -> None: ...

    async def broadcast(self, operation: bytes) -> None:
        """Give an operation to the mempool. Returns when it was given, or may have been. Raises OrderRefused where it is not taken; Unavailable where it
        certainly was not given."""


@dataclass
class _Open:
    operation: bytes
    sketch: Sketch
    answers: list[Future[Result]] = field(default_factory=list)
    """Of those who proposed it; the first of them checks and broadcasts."""
    was_checked: bool = False
    was_given: bool = False
    """Whether others may have it."""
    turn: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once it is among those that are under way."""


class FederatedLedger:
    """Make one with ``FederatedLedger.open``; start its order then, and stop it before ``close``. ``on_commit`` are called after each commit in the thread
    that made it, and the next block waits for them: ``snapshot`` sees exactly that commit. So they must be short.
    """

    def __init__(
        self, blocks: BlockLedger, rules: Rules, ledger_id: str, order: Order, sketch_of: Callable[[bytes], Sketch | None], keep_blocks: int
    ) -> None:
        self._blocks, self._rules, self.order, self._sketch_of = blocks, rules, order, sketch_of
        self.on_commit: list[Callable[[], None]] = []
        self._guard = threading.Lock()
        self._open: dict[bytes, _Open] = {}
        self._open_bytes = self._users_bytes = self._users_count = 0
        self._told_ms = blocks.time_ms
        """Results of all blocks up to that time have been told."""
        self._turn = threading.Condition()
        """Held by whoever changes the database."""
        self._is_closed = False
        self._moved: set[asyncio.Event] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._checks = ThreadPoolExecutor(1, "ledger-check")
        self.application = LedgerApplication(blocks, ledger_id, self._name, self._committed, self._decided, self._turn, keep_blocks=keep_blocks)
        order.attach(self.application)

    @classmethod
    def open(
        cls,
        url: str,
        rules: Rules,
        ledger_id: str,
        *,
        order: Order,
        sketch_of: Callable[[bytes], Sketch | None] = members.sketch_of,
        keep_blocks: int = KEEP_BLOCKS,
        cache_bytes: int = CACHE_BYTES,
        readers: int = MAX_READERS,
        read_timeout_s: float = READ_TIMEOUT_S,
        on_step: Callable[[str], None] = lambda _: None,
    ) -> FederatedLedger:
        """As ``Ledger.open``; time comes from blocks. ``sketch_of(operation)`` is what it says of itself, None for what is no operation; ``keep_blocks`` is how
        many blocks the order keeps for those who were away."""
        blocks = BlockLedger.open(url, rules, ledger_id, cache_bytes=cache_bytes, readers=readers, read_timeout_s=read_timeout_s, on_step=on_step)
        try:
            return cls(blocks, rules, ledger_id, order, sketch_of, keep_blocks)
        except BaseException:
            blocks.close()
            raise

    @property
    def head(self) -> Head:
        """The committed head; its time is that of the last operation."""
        return self._blocks.head

    @property
    def time_ms(self) -> int:
        """The time of the last block."""
        return self._blocks.time_ms

    @property
    def waiting(self) -> int:
        """How many operations wait for their block."""
        return len(self._open)

    async def propose(self, operation: bytes) -> Result:
        """The operation's result, once it is on disk here; or why it was refused before anybody else had it; or OUT_OF_TIME. It may take as long as the
        operation holds. Whoever stops waiting does not undo it. Raises BadValue for what is no operation, Busy when too many are open, or when users' part of
        the day is used and nobody else has this one, Unavailable when the ledger has stopped."""
        check_operation(operation)
        sketch = self._sketch_of(operation)
        if sketch is None:
            raise BadValue(f"expected an operation of this ledger, got {len(operation)} bytes that are none")
        answer: Future[Result] = Future()
        key = sha256(operation).digest()
        self._loop = asyncio.get_running_loop()
        with self._guard:
            if self._is_closed:
                raise Unavailable("the ledger is closed")
            one = self._open.get(key)
            if one is None:
                self._need_room(sketch, len(operation))
                one = self._open[key] = _Open(operation, sketch)
                self._count(one, 1)
            one.answers.append(answer)
        self._move_on()
        try:
            return await self._carried(one, answer)
        finally:
            with self._guard:
                if answer in one.answers:
                    one.answers.remove(answer)
                if not one.answers and self._open.get(key) is one:
                    self._forget(key)
            self._move_on()

    def _need_room(self, sketch: Sketch, size_bytes: int) -> None:
        """Raises Busy where one more operation would be too many."""
        if len(self._open) >= MAX_OPEN or self._open_bytes + size_bytes > MAX_OPEN_BYTES:
            raise Busy(f"{len(self._open)} operations wait for their block already: try again later")
        if sketch.is_users and (self._users_count >= MAX_OF_USERS or self._users_bytes + size_bytes > MAX_BYTES_OF_USERS):
            raise Busy(f"{self._users_count} operations of users wait for their block already: try again later")
        self._need_day(sketch)

    def _need_day(self, sketch: Sketch) -> None:
        """Raises DayUsed for what a user asks for on a day whose part for users is used."""
        if sketch.is_users and not self.has_room(sketch.sender, is_users=True):
            raise DayUsed("what this meta node may have in the ledger's log today (UTC) is used up but for its own duties: ask another meta node")

    def has_room(self, address: bytes, is_users: bool) -> bool:
        """Whether blocks take more of that meta node (20 bytes) today: of what its users ask for, or of its own."""
        return self.application.has_room(address, is_users)

    def _count(self, one: _Open, by: int) -> None:
        """One that is open more, or less."""
        self._open_bytes += by * len(one.operation)
        if one.sketch.is_users:
            self._users_count, self._users_bytes = self._users_count + by, self._users_bytes + by * len(one.operation)

    def _move_on(self) -> None:
        """Let the oldest operations be under way: of those that blocks take today."""
        count = size_bytes = 0
        with self._guard:
            for one in self._open.values():
                if one.sketch.is_users and not self.has_room(one.sketch.sender, is_users=True):
                    continue
                count, size_bytes = count + 1, size_bytes + len(one.operation)
                if count > UNDER_WAY or size_bytes > UNDER_WAY_BYTES:
                    break
                one.turn.set()

    async def _carried(self, one: _Open, answer: Future[Result]) -> Result:
        """Check and broadcast until something is final."""
        sought = asyncio.wrap_future(answer)
        moved = asyncio.Event()
        self._moved.add(moved)
        try:
            while not sought.done():
                told_ms = self._told_ms
                if answer.done():
                    break
                until_s = one.sketch.until_s
                if told_ms // 1_000 > until_s:
                    text = f"the operation held until {until_s}, the ledger is at {told_ms // 1_000}: send it again"
                    self._finish(one, self._refused(OUT_OF_TIME, text))
                    break
                if not one.was_given:
                    self._need_day(one.sketch)
                # A ledger that stood still is behind: the operation waits until a block may take it at all.
                is_early = until_s > told_ms // 1_000 + MAX_UNTIL_S
                moved.clear()
                if not is_early and one.answers[0] is answer and (refusal := await self._given(one)) is not None:
                    self._finish(one, refusal)
                    break
                watched: list[asyncio.Future[Any]] = [asyncio.ensure_future(moved.wait())] if is_early else []
                if not one.was_given and not one.turn.is_set():
                    watched.append(asyncio.ensure_future(one.turn.wait()))
                try:
                    await asyncio.wait([sought, *watched], timeout=AGAIN_S, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for other in watched:
                        other.cancel()
            return await sought
        finally:
            self._moved.discard(moved)
            sought.cancel()

    async def _given(self, one: _Open) -> Result | None:
        """Check it the first time, and broadcast it if it has its turn. What refuses it for good, if anything does."""
        if not one.was_checked:
            checked = await asyncio.get_running_loop().run_in_executor(self._checks, self._blocks.check, one.operation)
            if not checked.is_applied:
                return checked
            one.was_checked = True
        if not one.turn.is_set():
            return None
        try:
            await self.order.broadcast(one.operation)
        except OrderRefused as refusal:
            # It is not decided here, so another one has used the nonce: this one can be applied nowhere.
            is_final = not one.was_given or refusal.code == USED_NONCE
            return self._refused(refusal.code, refusal.reason) if is_final else None
        except Unavailable as error:
            log.debug("an operation waits for its order", why=str(error))
            return None
        except asyncio.CancelledError:
            one.was_given = True
            raise
        one.was_given = True
        return None

    def _finish(self, one: _Open, result: Result) -> None:
        """Tell all who proposed it, unless a block was faster."""
        with self._guard:
            key = sha256(one.operation).digest()
            answers = list(one.answers) if self._open.get(key) is one else []
            if answers:
                self._forget(key)
        for answer in answers:
            if answer.set_running_or_notify_cancel():
                answer.set_result(result)

    def _refused(self, code: int, reason: str) -> Result:
        head = self.head
        return Result(head.sequence, self.time_ms, code, b"", reason, head.app_hash)

    def prune(self, below: int) -> None:
        """As ``Ledger.prune``, between two blocks. Raises Busy when none ends within 30 s."""
        with self._turn:
            if not self._turn.wait_for(lambda: not self._blocks.is_open, PRUNE_WAIT_S):
                raise Busy("a block of the ledger is not committed: the log is pruned later")
            self._blocks.prune(below)

    def read(self) -> AbstractContextManager[ReadView]:
        """``with ledger.read() as view``: a view of the last commit."""
        return self._blocks.read()

    def snapshot(self) -> AbstractContextManager[ReadView]:
        """The same without a time limit."""
        return self._blocks.snapshot()

    async def query(self, question: Callable[[ReadView], T]) -> T:
        """``question(view)`` in a thread of the readers."""
        return await self._blocks.query(question)

    def close(self) -> None:
        """``give_up``, and give everything back."""
        self.give_up()
        self._checks.shutdown()
        with self._turn:
            self._blocks.close()

    def give_up(self) -> None:
        """Take no more operations. Those that are open fail with Unavailable: whether they were done is known when the ledger is open again."""
        with self._guard:
            self._is_closed = True
            waiting = [answer for one in self._open.values() for answer in one.answers]
            self._open.clear()
        for answer in waiting:
            if answer.set_running_or_notify_cancel():
                answer.set_exception(Unavailable("the ledger was closed: whether this operation was done is known when it is open again"))

    def __enter__(self) -> FederatedLedger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- from the thread that commits ---------------------------------------------------------------------------------

    def _name(self) -> bytes:
        with self._blocks.snapshot() as view:
            return export_name(view, self._rules.schema)

    def _committed(self) -> None:
        for hook in tuple(self.on_commit):
            try:
                hook()
            except Exception:
                log.exception("what follows the ledger's commits failed")

    def _decided(self, decided: Sequence[tuple[bytes, Result]]) -> None:
        found: list[tuple[Future[Result], Result]] = []
        with self._guard:
            for operation, result in decided:
                key = sha256(operation).digest()
                if (one := self._open.get(key)) is not None:
                    found.extend((answer, result) for answer in one.answers)
                    self._forget(key)
        for answer, result in found:
            if answer.set_running_or_notify_cancel():
                answer.set_result(result)
        # After the results: whoever sees this time has his result if there is one.
        self._told_ms = self._blocks.time_ms
        if self._moved and self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        self._move_on()
        for moved in self._moved:
            moved.set()

    def _forget(self, key: bytes) -> None:
        one = self._open.pop(key, None)
        if one is not None:
            self._count(one, -1)
