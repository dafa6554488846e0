"""Moves: what was stored anew enters the ledger, many shares in one operation; then the new nodes keep it, and the old ones drop theirs.

    put noted ─► sent ─► acknowledged, noted ─► move, batched ─► the ledger has it ─► CONFIRM to the new node, DROP to the old one, when it comes back
        │                                          └── refused: each by itself; what is refused then is dropped at the new node
        └── after a stop: is it on the ledger? ─ yes: told again ── no, acknowledged: moved now ── no: dropped

So a copy is either in the ledger or told to go, whenever this process ends. A message that finds no room is left out: comparing what nodes have with the
ledger (damage.py) comes to the same. Source: ADR 8 (Move); rules/moves.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final

import structlog

from chain.codec.canonical import encode
from chain.codec.registry import message_class
from sds_node import transfers
from sds_node.meta.books.books import BooksError
from sds_node.meta.ledger.engine import ReadView
from sds_node.meta.ledger.errors import LedgerError
from sds_node.meta.operations import LedgerRefused, Proposer
from sds_node.meta.repair.health import read_segments
from sds_node.meta.repair.queue import Put, QueueError, RepairQueue
from sds_node.meta.rules.places import nodes_of
from sds_node.meta.rules.wire import MAX_MOVES, MAX_RESULTS, PACKAGE
from sds_node.meta.users.known import Tell

log = structlog.get_logger("repair")

Move: Final = message_class(f"{PACKAGE}.Move")
MovedShare: Final = message_class(f"{PACKAGE}.MovedShare")
NodeResult: Final = message_class(f"{PACKAGE}.NodeResult")


Release = Callable[[Sequence[Any]], Awaitable[object]]
"""Pays nodes for what NodeResults name (books/releases.py)."""


class Mover:
    """Proposes moves. ``tell``: (node, method, body) → noted on disk, and told until the node took it. ``numbering`` is held while one is proposed: a release
    lists a node's shares under it, and none may come among them meanwhile; ``finish`` brings one to its end before that was cut off. Run ``run`` as a task;
    call ``recover`` at start."""

    def __init__(
        self,
        proposer: Proposer,
        queue: RepairQueue,
        tell: Tell,
        batch_s: float,
        numbering: asyncio.Lock,
        finish: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        self._proposer, self._queue, self._tell, self._batch_s, self._numbering = proposer, queue, tell, batch_s, numbering
        self._finish = finish
        self.release: Release | None = None
        """Pays a node that leaves for what it handed over, up to that day; without it those days are the repair fund's."""
        self._handed: set[bytes] = set()
        self._waiting: list[tuple[Put, asyncio.Future[str]]] = []
        self._came = asyncio.Event()
        self.moved = 0
        """Shares that were moved since this process began."""

    async def run(self) -> None:
        """Propose what waits, until cancelled."""
        while True:
            await self._came.wait()
            await asyncio.sleep(self._batch_s)
            self._came.clear()
            while self._waiting:
                batch = self._next()
                try:
                    await self._propose(batch)
                except (LedgerError, QueueError, BooksError) as error:
                    log.warning("moves are not on the ledger yet", shares=len(batch), why=str(error))
                    for _, future in batch:
                        if not future.done():
                            future.set_exception(error)

    async def move(self, put: Put, *, is_handed: bool = False) -> str:
        """An acknowledged share is moved → the ledger's reason when it refused, else nothing. ``is_handed``: its node gave all of it a moment ago, which
        proves that it kept it. Raises LedgerError, QueueError, BooksError."""
        if is_handed:
            self._handed.add(put.serial)
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._waiting.append((put, future))
        self._came.set()
        return await future

    def _next(self) -> list[tuple[Put, asyncio.Future[str]]]:
        """At most 500 that wait; one of each share, since a node gets one."""
        batch: dict[tuple[int, int], tuple[Put, asyncio.Future[str]]] = {}
        rest = []
        for put, future in self._waiting:
            if len(batch) < MAX_MOVES and (put.segment, put.share) not in batch:
                batch[put.segment, put.share] = put, future
            else:
                rest.append((put, future))
        self._waiting = rest
        return [batch[key] for key in sorted(batch)]

    async def _propose(self, batch: Sequence[tuple[Put, asyncio.Future[str]]]) -> None:
        message = Move()
        for put, _ in batch:
            message.shares.append(_moved(put))
        await self._pay_handed([put for put, _ in batch])
        try:
            await self._on_ledger(message)
        except LedgerRefused as error:
            if len(batch) > 1:
                # One of them may be out of date, and is not the others' fault.
                for one in batch:
                    await self._propose([one])
                return
            put, future = batch[0]
            log.info("the ledger refuses a move: the new copy is dropped", segment=put.segment, share=put.share, node=put.to_node, why=str(error))
            await self._drop([put])
            if not future.done():
                future.set_result(str(error) or "refused")
            return
        await self._done([put for put, _ in batch])
        self.moved += len(batch)
        for put, future in batch:
            log.info("a share is at another node", segment=put.segment, share=put.share, from_node=put.from_node, to_node=put.to_node)
            if not future.done():
                future.set_result("")

    async def _on_ledger(self, message: Any) -> None:
        async with self._numbering:
            if self._finish is not None:
                await self._finish()
            await self._proposer.propose("move", message)

    async def _pay_handed(self, puts: Sequence[Put]) -> None:
        """Shares that nodes handed over were kept until now: their days are released before the move, which would make them the repair fund's."""
        shares = sorted({(put.from_node, put.segment) for put in puts if put.serial in self._handed})
        self._handed.difference_update(put.serial for put in puts)
        for at in range(0, len(shares) if self.release is not None else 0, MAX_RESULTS):
            results = [NodeResult(node=node, first_segment=number, last_segment=number) for node, number in shares[at : at + MAX_RESULTS]]
            try:
                assert self.release is not None
                await self.release(results)
            except (LedgerRefused, BooksError) as error:
                log.warning("nodes that leave are not paid for the last days of what they handed over", shares=len(results), why=str(error))

    async def _done(self, puts: Sequence[Put]) -> None:
        """The ledger has these moves: tell both sides, then forget them."""
        is_told = await self._say(transfers.CONFIRM, [(put.to_node, put.root, put.serial) for put in puts])
        await self._say(transfers.DROP, [(put.from_node, put.root, put.old_serial) for put in puts if put.from_node])
        if is_told:
            await self._queue.moved(puts)

    async def _drop(self, puts: Sequence[Put]) -> None:
        """These copies will be in no move."""
        await self._say(transfers.DROP, [(put.to_node, put.root, put.serial) for put in puts])
        await self._queue.given_up([put.serial for put in puts])

    async def _say(self, method: str, copies: Sequence[tuple[int, bytes, bytes]]) -> bool:
        by_node: dict[int, Any] = {}
        for node, root, serial in copies:
            by_node.setdefault(node, transfers.CopyList()).copies.add(share_root=root, serial=serial)
        is_told = True
        for node, message in sorted(by_node.items()):
            try:
                await self._tell(node, method, encode(message))
            except BooksError as error:
                is_told = False
                log.warning(
                    "a node cannot be told what became of copies: the next comparison will see to it", node=node, method=method, why=str(error)
                )
        return is_told

    async def drop(self, node: int, copies: Sequence[tuple[bytes, bytes]]) -> None:
        """A node shall drop copies, by share root and serial."""
        await self._say(transfers.DROP, [(node, root, serial) for root, serial in copies])

    async def keep(self, node: int, method: str, copies: Sequence[tuple[bytes, bytes]]) -> None:
        """A node shall confirm or restore copies."""
        await self._say(method, [(node, root, serial) for root, serial in copies])

    async def gave_up(self, put: Put) -> None:
        """A share was not stored, or is not needed."""
        await self._drop([put])

    # --- after a stop -------------------------------------------------------------------------------------------------------

    async def recover(self, segment: int | None = None) -> int:
        """Bring to an end what was on its way, of one segment or of all. How many shares it were. Raises LedgerError, QueueError, BooksError."""
        count = 0
        while puts := await self._queue.puts(segment):
            for put in puts:
                await self._recover(put)
            count += len(puts)
        return count

    async def _recover(self, put: Put) -> None:
        there: tuple[int, bytes] | None = await self._proposer.ledger.query(partial(_holder, segment=put.segment, share=put.share))
        if there == (put.to_node, put.serial):
            await self._done([put])
            await self._queue.moved([put])
        elif put.is_acked and there == (put.from_node, put.old_serial):
            message = Move()
            message.shares.append(_moved(put))
            try:
                await self._on_ledger(message)
            except LedgerRefused:
                await self._drop([put])
                return
            self.moved += 1
            await self._done([put])
            await self._queue.moved([put])
        else:
            await self._drop([put])


def _moved(put: Put) -> Any:
    """A put as the ledger's move of it."""
    made = MovedShare(segment=put.segment, index=put.share, from_node=put.from_node, to_node=put.to_node, serial=put.serial)
    made.MergeFromString(put.evidence)
    return made


def _holder(view: ReadView, segment: int, share: int) -> tuple[int, bytes] | None:
    """(node, serial) of a share as the ledger has it."""
    for row, _, serials in read_segments(view, [segment]):
        return nodes_of(row.nodes)[share], serials[share]
    return None
