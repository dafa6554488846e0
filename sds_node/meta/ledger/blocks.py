"""A ledger whose order comes from blocks: what CometBFT's ABCI calls drive in a federation, in plain Python.

    Info ─ head      CheckTx ─ check      FinalizeBlock ─ begin, deliver …, end ─► app hash      Commit ─ commit      Query ─ read

The same core, rules and tables as the local log, so the same operations at the same times give the same app hash. A block's operations have the block's
time. Blocks carry on after a local log: an imported ledger begins with its sequence, time and app hash.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Final, TypeVar

from sds_node.meta.ledger.core import Core, Rules, check_operation, run_rules
from sds_node.meta.ledger.engine import MAX_READERS, Readers, ReadView
from sds_node.meta.ledger.errors import CODE_OK, BadValue, Damaged, Unavailable
from sds_node.meta.ledger.log import Head, Result
from sds_node.meta.ledger.sql import READ_TIMEOUT_S, Session, Store, open_store
from sds_node.meta.ledger.tables import CACHE_BYTES, Tables, View

T = TypeVar("T")

MAX_CHECK_BYTES: Final = 64 << 20
"""What checks may pile up between two commits; beyond it they begin anew from the last commit."""


class BlockLedger:
    """A ledger driven by blocks. Calls that change it come one after the other; ``check`` and reads may come beside them, from other threads."""

    def __init__(self, store: Store, rules: Rules, core: Core, readers: int, read_timeout_s: float) -> None:
        self._store, self._rules, self._core = store, rules, core
        self._readers = Readers(store, rules, readers, read_timeout_s)
        self._checking = threading.Lock()
        self._check_session: Session | None = None
        self._check_tables: Tables | None = None
        self._height: int | None = None
        self._block_ms = self._time_ms = core.head.time_ms
        self._is_written = False
        self._may_trim = True

    @classmethod
    def open(
        cls,
        url: str,
        rules: Rules,
        ledger_id: str,
        *,
        cache_bytes: int = CACHE_BYTES,
        readers: int = MAX_READERS,
        read_timeout_s: float = READ_TIMEOUT_S,
        on_step: Callable[[str], None] = lambda _: None,
    ) -> BlockLedger:
        """As ``Ledger.open``."""
        store = open_store(url)
        return cls(store, rules, Core.open(store, rules, ledger_id, cache_bytes=cache_bytes, on_step=on_step), readers, read_timeout_s)

    @property
    def head(self) -> Head:
        """The committed head: ABCI's Info wants its ``height`` and ``app_hash``."""
        return self._core.head

    @property
    def time_ms(self) -> int:
        """The time of the last block committed since this was opened, else the head's. A head keeps the time of its last operation; blocks without any
        go on."""
        return self._time_ms

    @property
    def is_open(self) -> bool:
        """Whether a block has begun that is not committed."""
        return self._height is not None

    def check(self, operation: bytes) -> Result:
        """What the operation would become now, after those checked since the last commit. Changes nothing. Raises BadValue, Unavailable."""
        check_operation(operation)
        with self._checking:
            tables = self._check_tables
            if tables is None or tables.weight_bytes > MAX_CHECK_BYTES:
                tables = self._fresh_check()
            head, time_ms = self._core.head, self._time_ms
            try:
                code, result, reason = run_rules(self._rules, operation, time_ms, tables)
                tables.close_operation(keep=code == CODE_OK)
            except BaseException:
                self._drop_check()
                raise
        return Result(head.sequence, time_ms, code, result, reason, head.app_hash)

    def begin(self, height: int, time_ms: int) -> None:
        """Begin the block after the committed one; an uncommitted one is dropped. Raises BadValue for a height that does not follow."""
        self._core.abandon()
        self._height, self._is_written = None, False
        last = self._core.head.height
        if (last and height != last + 1) or height < 1:
            raise BadValue(f"block {last + 1 if last else '1 or later'} comes next, got {height}")
        self._core.begin(time_ms, height)
        self._height, self._block_ms = height, time_ms

    def deliver(self, operations: Sequence[bytes]) -> list[Result]:
        """Apply a block's operations: one result for each. What is no operation at all (empty, too large) must have been kept out of the block by
        ``is_operation``. Raises BadValue, Unavailable, Damaged."""
        if self._height is None or self._is_written:
            raise BadValue("operations are delivered between begin and end of a block")
        for operation in operations:
            check_operation(operation)
        self._core.prefetch(operations)
        return [self._core.apply(operation) for operation in operations]

    @staticmethod
    def is_operation(operation: bytes) -> bool:
        """False for what ``deliver`` cannot take: a proposal with such a thing in it is refused."""
        try:
            check_operation(operation)
        except BadValue:
            return False
        return True

    def end(self) -> bytes:
        """End the block: its changes are in the open transaction. The app hash after it."""
        if self._height is None or self._is_written:
            raise BadValue("a block ends once, after its beginning")
        self._core.write()
        self._is_written = True
        return self._core.uncommitted.app_hash

    def look(self, question: Callable[[View], T]) -> T:
        """``question(view)`` of the rows as the block leaves them, between its end and its commit; for the thread that delivers."""
        if not self._is_written:
            raise BadValue("a block is looked at between its end and its commit")
        return question(self._core.tables)

    def commit(self) -> None:
        """Commit the block: it is on disk when this returns."""
        if not self._is_written:
            raise BadValue("a block is committed after its end")
        self._core.commit()
        self._height, self._is_written = None, False
        self._time_ms = max(self._time_ms, self._block_ms, self._core.head.time_ms)
        with self._checking:
            self._drop_check()
        if self._may_trim:  # a part with every block
            self._may_trim = self._core.trim()

    def prune(self, below: int) -> None:
        """As ``Ledger.prune``, between blocks; space is given back with the commits that follow."""
        if self._height is not None:
            raise BadValue("the log is pruned between blocks")
        self._core.prune(below)
        self._may_trim = True

    def read(self) -> AbstractContextManager[ReadView]:
        """``with ledger.read() as view``: a view of the last commit."""
        return self._readers.read()

    def snapshot(self) -> AbstractContextManager[ReadView]:
        """The same without a time limit, for export and verification."""
        return self._readers.snapshot()

    async def query(self, question: Callable[[ReadView], T]) -> T:
        """As ``Ledger.query``."""
        return await self._readers.query(question)

    def close(self) -> None:
        """Give everything back; a block that was not committed is not done."""
        if self._core.broken is None:
            self._core.abandon()
        with self._checking:
            self._drop_check()
        self._readers.close()
        self._core.close()

    def __enter__(self) -> BlockLedger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _fresh_check(self) -> Tables:
        self._drop_check()
        session = self._check_session = self._store.reader(None)
        try:
            session.begin()
        except (Unavailable, Damaged):
            self._drop_check()
            raise
        self._check_tables = Tables(self._rules.schema, session, CACHE_BYTES // 8)
        return self._check_tables

    def _drop_check(self) -> None:
        if self._check_session is not None:
            self._check_session.close()
        self._check_session = self._check_tables = None
