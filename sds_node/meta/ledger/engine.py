"""A ledger whose order is a local log: operations from any thread or coroutine, committed in groups by one writer thread.

    propose ─► queue (bounded) ─► writer: begin, apply all that wait, write, commit (one fsync) ─► answers
    read, query ─► a pool of sessions, each on the last commit when it began; the writer does not wait for them

An answer means that the operation is on disk. Groups form by themselves: while one is committed, the next gathers.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import structlog

from sds_node.meta.ledger.core import Core, Rules, check_operation, run_rules
from sds_node.meta.ledger.errors import Busy, Damaged, Foreign, LedgerError, Unavailable
from sds_node.meta.ledger.log import HEAD, LOG, Entry, Head, Result, entries, read_head
from sds_node.meta.ledger.sql import READ_TIMEOUT_S, Session, Store, open_store
from sds_node.meta.ledger.tables import CACHE_BYTES, Tables, View

log = structlog.get_logger("ledger")

MAX_WAITING: Final = 20_000
MAX_WAITING_BYTES: Final = 64 << 20
MAX_BATCH: Final = 1_000
MAX_BATCH_BYTES: Final = 32 << 20
MAX_BATCH_S: Final = 0.1
"""A group is committed once applying it has taken this long, so that the first in it need not wait for the last. No result depends on it."""
MAX_READERS: Final = 8
MAX_QUERIES: Final = 1_000
MAX_ENTRIES_BYTES: Final = 32 << 20
T = TypeVar("T")


def wall_clock_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class Waiting:
    """An operation, or something else for the writer to do between groups."""

    operation: bytes
    answer: Future[Any]
    task: Callable[[Core], Any] | None = None


class ReadView(View):
    """One committed state."""

    def __init__(self, schema: Any, session: Session) -> None:
        super().__init__(schema, session)
        self.head: Final[Head] = read_head(session)

    @property
    def session(self) -> Session:
        """For export and verification."""
        return self._session

    def entries(self, after: int, limit: int) -> list[Entry]:
        """At most ``limit`` entries of the log after sequence ``after``, and about MAX_ENTRIES_BYTES; those that were pruned are skipped."""
        after = max(after, self.head.base_sequence)
        found: list[Entry] = []
        size = 0
        for entry in entries(self._session, after, min(self.head.sequence, after + max(0, limit))):
            found.append(entry)
            size += LOG.weight(entry)
            if size > MAX_ENTRIES_BYTES:
                break
        return found

    def try_out(self, rules: Rules, operation: bytes, time_ms: int) -> tuple[int, str]:
        """(code, reason) that an operation would get if it came next, at a time; code 0 for one that would be applied. Nothing is written. Raises BadValue for
        what is no operation."""
        check_operation(operation)
        code, _, reason = run_rules(rules, operation, max(time_ms, self.head.time_ms), Tables(self._schema, self._session))
        return code, reason

    def sequence_at(self, time_ms: int) -> int:
        """The sequence of the first entry of the log that is not older than a time; the one after the last entry when all are older."""
        low, high = self.head.base_sequence + 1, self.head.sequence + 1
        while low < high:
            middle = (low + high) // 2
            values = self._session.get(LOG, (middle,))
            if values is None:
                raise Damaged(f"the log has no entry {middle}: restore a backup, or import an export")
            low, high = (middle + 1, high) if LOG.load(values).time_ms < time_ms else (low, middle)
        return low


@contextmanager
def snapshot(url: str, rules: Rules) -> Iterator[ReadView]:
    """A view of the last commit of the ledger at ``url``, beside whoever writes it or without: for an operator's tools. Raises Foreign for another
    application's or schema's, Unavailable, Damaged."""
    store = open_store(url)
    session = store.reader(None)
    try:
        if HEAD.name not in session.tables():
            raise Foreign(f"{store.shown} holds no ledger: name the database of one")
        session.begin()
        view = ReadView(rules.schema, session)
        if (view.head.application, view.head.schema_digest) != (rules.application, rules.schema.digest):
            raise Foreign(
                f"{store.shown} holds {view.head.application!r}, schema version {view.head.schema_version}; this is {rules.application!r}, "
                f"version {rules.schema_version}: use the program that wrote it"
            )
        yield view
    finally:
        session.close()


class Readers:
    """A bounded pool of reading sessions."""

    def __init__(self, store: Store, rules: Rules, most: int, timeout_s: float) -> None:
        self._store, self._rules, self._timeout_s = store, rules, timeout_s
        self._free = threading.BoundedSemaphore(most)
        self._idle: list[Session] = []
        self._guard = threading.Lock()
        self._is_closed = False
        self._asked = 0
        """Questions under way; counted in the event loop's thread."""
        self._threads = ThreadPoolExecutor(most, "ledger-read")

    @contextmanager
    def read(self) -> Iterator[ReadView]:
        """A view of the last commit. Raises Busy if none is free for ``timeout_s``, Unavailable or Damaged."""
        if not self._free.acquire(timeout=self._timeout_s):
            raise Busy("all readers of the ledger are taken: ask again later")
        try:
            with self._guard:
                if self._is_closed:
                    raise Unavailable("the ledger is closed")
                session = self._idle.pop() if self._idle else None
            session = session or self._store.reader(self._timeout_s)
            is_well = False
            try:
                session.begin()
                yield ReadView(self._rules.schema, session)
                session.rollback()
                is_well = True
            finally:
                with self._guard:
                    keep = is_well and not self._is_closed
                    if keep:
                        self._idle.append(session)
                if not keep:
                    session.close()
        finally:
            self._free.release()

    @contextmanager
    def snapshot(self) -> Iterator[ReadView]:
        """A view of the last commit on a session of its own, without a time limit: for export and verification."""
        session = self._store.reader(None)
        try:
            session.begin()
            yield ReadView(self._rules.schema, session)
        finally:
            session.close()

    async def query(self, question: Callable[[ReadView], T]) -> T:
        """``question(view)`` in a reader's thread. Raises Busy when too many wait, and what ``read`` raises."""

        def ask() -> T:
            with self.read() as view:
                return question(view)

        if self._asked >= MAX_QUERIES:
            raise Busy(f"{self._asked} questions wait for a reader of the ledger: ask again later")
        self._asked += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, ask)
        finally:
            self._asked -= 1

    def close(self) -> None:
        """Refuse new readers, wait for those in threads of the pool."""
        with self._guard:
            self._is_closed = True
            idle, self._idle = self._idle, []
        for session in idle:
            session.close()
        self._threads.shutdown()


class Ledger:
    """A ledger with a local log. Make one with ``Ledger.open``."""

    def __init__(self, store: Store, rules: Rules, core: Core, now_ms: Callable[[], int], readers: int, read_timeout_s: float) -> None:
        self._core, self._now_ms = core, now_ms
        self._readers = Readers(store, rules, readers, read_timeout_s)
        self._waiting: deque[Waiting] = deque()
        self._waiting_bytes = 0
        self._changed = threading.Condition()
        self._is_closing = False
        self._thread = threading.Thread(target=self._run, name="ledger-writer", daemon=True)
        self._thread.start()
        self._do(self._trim)

    @classmethod
    def open(
        cls,
        url: str,
        rules: Rules,
        ledger_id: str,
        *,
        now_ms: Callable[[], int] = wall_clock_ms,
        cache_bytes: int = CACHE_BYTES,
        readers: int = MAX_READERS,
        read_timeout_s: float = READ_TIMEOUT_S,
        on_step: Callable[[str], None] = lambda _: None,
    ) -> Ledger:
        """The ledger at ``url`` (sqlite:///path, postgresql://…), made if the database is empty. ``ledger_id`` says which one: a chain id. Raises Locked,
        Foreign, Damaged, Unavailable, BadValue."""
        store = open_store(url)
        core = Core.open(store, rules, ledger_id, cache_bytes=cache_bytes, on_step=on_step)
        return cls(store, rules, core, now_ms, readers, read_timeout_s)

    @property
    def head(self) -> Head:
        """The committed head."""
        return self._core.head

    def submit(self, operation: bytes) -> Future[Result]:
        """Queue an operation. The future has its result once it is on disk; refused ones too, with their code and reason. It fails with Unavailable if the
        database does: then only opening the ledger again tells whether the operation was done. Cancelling it works until its group begins. Its callbacks
        run in the writer's thread, so they must be short. Raises BadValue for what is no operation, Busy when the queue is full, Unavailable when the
        ledger has stopped."""
        check_operation(operation)
        answer: Future[Result] = Future()
        with self._changed:
            self._check()
            if len(self._waiting) >= MAX_WAITING or self._waiting_bytes + len(operation) > MAX_WAITING_BYTES:
                raise Busy(f"{len(self._waiting)} operations wait already: try again later")
            self._waiting.append(Waiting(operation, answer))
            self._waiting_bytes += len(operation)
            self._changed.notify()
        return answer

    async def propose(self, operation: bytes) -> Result:
        """``submit``, awaited."""
        return await asyncio.wrap_future(self.submit(operation))

    def prune(self, below: int) -> None:
        """Forget the log's entries below a sequence; what their last hashes were is kept. Returns when the beginning has moved; the space is given back
        behind that. Raises BadValue for a place that the log does not have."""
        self._do(lambda core: core.prune(below)).result()
        self._do(self._trim)

    def read(self) -> AbstractContextManager[ReadView]:
        """``with ledger.read() as view``: a view of the last commit, for at most ``read_timeout_s``."""
        return self._readers.read()

    def snapshot(self) -> AbstractContextManager[ReadView]:
        """The same without a time limit, for export and verification."""
        return self._readers.snapshot()

    async def query(self, question: Callable[[ReadView], T]) -> T:
        """``question(view)`` in a thread of the readers."""
        return await self._readers.query(question)

    def close(self) -> None:
        """Commit what is queued, then give everything back."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        self._thread.join()
        self._readers.close()
        self._core.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check(self) -> None:
        if self._core.broken is not None:
            raise Unavailable(f"the ledger has stopped ({self._core.broken}): open it again")
        if self._is_closing:
            raise Unavailable("the ledger is closing")

    def _do(self, task: Callable[[Core], T]) -> Future[T]:
        answer: Future[T] = Future()
        with self._changed:
            self._check()
            self._waiting.append(Waiting(b"", answer, task))
            self._changed.notify()
        return answer

    def _trim(self, core: Core) -> None:
        """Delete some entries from before the log's beginning; the rest after the operations that wait now, or when the ledger is opened again."""
        if core.trim():
            with self._changed:
                if not self._is_closing:
                    self._waiting.append(Waiting(b"", Future(), self._trim))

    # --- the writer ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while (group := self._next_group()) is not None:
            task = group[0].task
            try:
                if task is None:
                    self._commit_group(group)
                else:
                    self._perform(group[0], task)
            except BaseException as error:
                self._stop(group, error)
                return

    def _next_group(self) -> list[Waiting] | None:
        """What to do next: one task, or all operations before the next task, within a group's bounds. None at the end."""
        group: list[Waiting] = []
        size = 0
        with self._changed:
            while not self._waiting:
                if self._is_closing:
                    return None
                self._changed.wait()
            waiting = self._waiting
            while waiting and len(group) < MAX_BATCH and size < MAX_BATCH_BYTES:
                if waiting[0].task is not None and group:
                    break
                one = waiting.popleft()
                group.append(one)
                size += len(one.operation)
                if one.task is not None:
                    break
            self._waiting_bytes -= size
        return group

    def _perform(self, one: Waiting, task: Callable[[Core], Any]) -> None:
        if not one.answer.set_running_or_notify_cancel():
            return
        try:
            one.answer.set_result(task(self._core))
        except Exception as error:
            one.answer.set_exception(error)
            if self._core.broken is not None:
                raise

    def _commit_group(self, group: list[Waiting]) -> None:
        core = self._core
        core.begin(self._now_ms())
        if len(group) > 1:
            core.prefetch(one.operation for one in group)
        done: list[tuple[Waiting, Result]] = []
        until_s = time.monotonic() + MAX_BATCH_S
        for at, one in enumerate(group):
            if not one.answer.set_running_or_notify_cancel():
                continue
            done.append((one, core.apply(one.operation)))
            if time.monotonic() > until_s and at + 1 < len(group):
                self._put_back(group, at + 1)
                break
        if not done:
            core.abandon()
            return
        core.write()
        core.commit()
        for one, result in done:
            one.answer.set_result(result)

    def _put_back(self, group: list[Waiting], at: int) -> None:
        """Return operations from ``at`` on to the front of the queue; they have not begun."""
        rest = group[at:]
        del group[at:]
        with self._changed:
            self._waiting.extendleft(reversed(rest))
            self._waiting_bytes += sum(len(one.operation) for one in rest)

    def _stop(self, group: list[Waiting], error: BaseException) -> None:
        """Nothing more can be done: all that wait are told."""
        cause = error if isinstance(error, LedgerError) else Unavailable(f"{type(error).__name__}: {error}")
        if self._core.broken is None:
            self._core.broken = cause
        log.error("the ledger has stopped: open it again", error=str(cause), exc_info=None if isinstance(error, LedgerError) else error)
        with self._changed:
            rest = [*group, *self._waiting]
            self._waiting.clear()
            self._waiting_bytes = 0
        told = Unavailable(f"the ledger has stopped ({cause}): whether this operation was done is known when it is open again")
        for one in rest:
            if not one.answer.done() and (one.answer.running() or one.answer.set_running_or_notify_cancel()):
                one.answer.set_exception(told)
