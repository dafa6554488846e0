"""``epoch.batch`` and ``epoch.proof``: what anyone may fetch of an epoch, so that anyone can check it against the chain. ``meta.window``: for other meta nodes.

    EpochBatchHead {epoch, after} ─► the next leaves in settlement's order, each after its length ─► EpochBatchPage {data, next}
    WindowLeavesHead {meta node, number, after} ─► the same of a window or release, of whichever meta node, that is whole here; of this one's window that is intended, too
    EpochProofHead {epoch, wallet, lookup id} ─► balances and files as the data was made ─► EpochProof {leaf and path of each}

``handlers`` are for everyone; who may ask for windows is said by whoever puts ``window_page`` on the wire. Nothing here is trusted by who asks: a batch has the hash that ``data_ref`` names, a proof leads to a root of the commitment. Trees of the epochs asked for
last are kept in memory, and few requests are worked on at a time. Sources: ADR 9; storage-protocol.md 1.6, 1.9.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final, NamedTuple

import structlog

from chain.codec.canonical import encode
from modules.settlement.commitment import wallet_of
from modules.settlement.leaves import HASH_BYTES
from sds_node import asking
from sds_node.meta.books.books import Books, BooksError, EpochRow, EpochState, Kind, LeafRow, Phase
from sds_node.meta.books.epochs import EpochBooks, is_whole
from sds_node.meta.books.file import BooksDamaged, BooksLocked, BooksUnusable
from sds_node.meta.books.freezing import BALANCES, FILES
from sds_node.meta.books.others import FIRST_ID, Others, OtherState
from sds_node.meta.ledger.errors import LedgerError
from sds_node.proofs import ADDRESS_BYTES, BALANCE_BYTES, FILES_BYTES, Proof, index_of, path_of, plain_levels
from sds_node.transfers import parsed
from sds_node.wire import errors as wire_errors
from sds_node.wire.connection import Connection, Handler
from sds_node.wire.stream import Stream

log = structlog.get_logger("books")

PAGE_LEAVES: Final = 2_000
PAGE_BYTES: Final = 4 << 20
AT_ONCE: Final = 2
MAX_WAITING: Final = 64
TREES_KEPT: Final = 4
_LEAF_BYTES: Final = {BALANCES: BALANCE_BYTES, FILES: FILES_BYTES}
_LINE_BYTES: Final = ADDRESS_BYTES + 2
_IDENTITY_BYTES: Final = (16, 20)


class Cursor(NamedTuple):
    """A leaf's place in the order: beneficiary, fund, class, serial or segment ‖ index ‖ day."""

    beneficiary: bytes = b""
    fund: int = 0
    traffic_class: int = 0
    identity: bytes = b""


class _Tree(NamedTuple):
    leaves: list[bytes]
    levels: list[list[bytes]]

    def proof(self, wallet: bytes) -> Proof | None:
        index = index_of(self.leaves, wallet)
        return None if index is None else Proof(self.leaves[index], index, len(self.leaves), tuple(path_of(self.levels, index)))


class EpochServing:
    """The handlers of one meta node, over its books."""

    def __init__(self, epochs: EpochBooks, books: Books) -> None:
        self._epochs, self._books, self._others = epochs, books, Others(books)
        self._slots = {method: asyncio.Semaphore(AT_ONCE) for method in (asking.EPOCH_BATCH, asking.META_WINDOW)}
        self._waiting: Counter[str] = Counter()
        self._trees: OrderedDict[tuple[int, str], _Tree] = OrderedDict()

    def handlers(self) -> dict[str, Handler]:
        """The methods for ``wire.node.Node``."""
        return {asking.EPOCH_BATCH: self.batch, asking.EPOCH_PROOF: self.proof}

    async def batch(self, stream: Stream, connection: Connection) -> None:
        """Answers with an EpochBatchPage; ``next`` is empty at the end."""
        head = parsed(asking.EpochBatchHead, stream.head)
        async with self._turn():
            answer = await self._page(int(head.epoch), cursor_of(bytes(head.after)))
        await stream.send(encode(answer))

    async def proof(self, stream: Stream, connection: Connection) -> None:
        """Answers with an EpochProof; what the wallet did not have then is left out."""
        head = parsed(asking.EpochProofHead, stream.head)
        wallet = wallet_of(head.wallet)
        if wallet is None or len(head.lookup_id) not in (0, HASH_BYTES):
            raise wire_errors.Refused(asking.BAD_ASK, "expected a wallet st1… and a lookup id of 32 bytes or none")
        async with self._turn():
            answer = await self._proof(int(head.epoch), wallet, bytes(head.lookup_id))
        await stream.send(encode(answer))

    async def window_page(self, caller: bytes, head: bytes, body: bytes) -> bytes:
        """For a guard that has read the request of another meta node: a WindowLeavesHead → an EpochBatchPage, of which ``next`` is empty at the end. Raises the
        refusal."""
        asked = parsed(asking.WindowLeavesHead, head)
        async with self._turn(asking.META_WINDOW):
            return encode(await self._window_page(bytes(asked.meta_node), int(asked.number), cursor_of(bytes(asked.after))))

    async def _window_page(self, meta_node: bytes, number: int, after: Cursor) -> Any:
        if len(meta_node) != ADDRESS_BYTES or not 1 <= number < FIRST_ID:
            raise wire_errors.Refused(asking.BAD_ASK, f"expected a meta node of {ADDRESS_BYTES} bytes and a window from 1 on, got number {number}")
        window = await self._books.do(lambda database: self._whole_window(database, meta_node, number))
        if window is None:
            raise wire_errors.Refused(asking.NOT_HELD, f"window {number} of that meta node is not here, or not whole any more: ask another one")
        where = (
            "state IN (2, 3) AND window = ? AND window > 0 AND (beneficiary, fund, class, id) > (?, ?, ?, ?) "
            f"ORDER BY beneficiary, fund, class, id LIMIT {PAGE_LEAVES}"
        )
        return _page_of(await self._books.do(lambda database: self._books.leaves_where(database, where, (window, *after))))

    def _whole_window(self, database: sqlite3.Connection, meta_node: bytes, number: int) -> int | None:
        """What the leaves of a window have as their window, if all of them are here."""
        if meta_node == self._epochs.address:
            own = self._books.window_in(database, number)
            # One that is intended is given, too: who approves it has its leaves first.
            is_given = own is not None and (own.state == Phase.APPLIED or own.kind == Kind.WINDOW)
            window, leaves = (number, own.items) if own is not None and is_given else (0, 0)
        else:
            other = self._others.window_in(database, meta_node, number)
            window, leaves = (other.id, other.leaves) if other is not None and other.state == OtherState.HERE else (0, 0)
        count = database.execute("SELECT count(*) FROM leaves WHERE window = ? AND window > 0", (window,)).fetchone()[0]
        return window if window and count == leaves else None

    async def _page(self, number: int, after: Cursor) -> Any:
        row = await self._row(number)
        if row is None or row.state == EpochState.VOID or not is_whole(row):
            raise wire_errors.Refused(asking.NOT_HELD, f"epoch {number} was not made here, or is void: ask another meta node")
        where = f"state = 3 AND epoch = ? AND (beneficiary, fund, class, id) > (?, ?, ?, ?) ORDER BY beneficiary, fund, class, id LIMIT {PAGE_LEAVES}"
        leaves: list[LeafRow] = await self._books.do(lambda database: self._books.leaves_where(database, where, (row.number, *after)))
        return _page_of(leaves)

    async def _proof(self, number: int, wallet: bytes, lookup_id: bytes) -> Any:
        row = await (self._row(number) if number else self._last())
        if row is None or row.state != EpochState.REPORTED:
            raise wire_errors.Refused(asking.NOT_HELD, f"epoch {number or '(the last one)'} is not reported yet, is void, or was not made here")
        answer = asking.EpochProof(epoch=row.number)
        for name, field in ((BALANCES, answer.balance), (FILES, answer.files)):
            found = (await self._tree(row.number, name)).proof(wallet)
            if found is not None:
                field.CopyFrom(_proof_message(found))
        if lookup_id:
            file = await self._epochs.file_proof(row.number, wallet, lookup_id)
            if file is not None:
                answer.record.CopyFrom(_proof_message(file.record))
        return answer

    async def _tree(self, number: int, name: str) -> _Tree:
        """A tree over all wallets. Raises the refusal of an epoch too long ago."""
        key = number, name
        if key not in self._trees:
            query = "SELECT data FROM snapshots WHERE epoch = ? AND name = ?"
            found = await self._books.do(lambda database: database.execute(query, key).fetchone())
            if found is None:
                raise wire_errors.Refused(asking.NOT_HELD, f"{name} of epoch {number} are not kept any more: ask for a later epoch")
            self._trees[key] = await asyncio.to_thread(_tree_of, bytes(found[0]), _LEAF_BYTES[name])
            if len(self._trees) > TREES_KEPT:
                self._trees.popitem(last=False)
        self._trees.move_to_end(key)
        return self._trees[key]

    async def _row(self, number: int) -> EpochRow | None:
        return None if number < 1 else await self._books.do(lambda database: self._books.epoch_in(database, number))

    async def _last(self) -> EpochRow | None:
        def find(database: sqlite3.Connection) -> EpochRow | None:
            number = database.execute("SELECT max(number) FROM epochs WHERE state = ?", (EpochState.REPORTED,)).fetchone()[0]
            return None if number is None else self._books.epoch_in(database, number)

        return await self._books.do(find)

    @contextlib.asynccontextmanager
    async def _turn(self, kind: str = asking.EPOCH_BATCH) -> AsyncIterator[None]:
        """One of few of a kind at a time, so that strangers keep no meta node waiting; errors come out as the caller shall read them."""
        if self._waiting[kind] >= MAX_WAITING:
            raise wire_errors.Busy(f"{self._waiting[kind]} requests like this one are waiting here: ask again in a moment")
        self._waiting[kind] += 1
        try:
            async with self._slots[kind]:
                yield
        except (BooksDamaged, BooksLocked, BooksUnusable, LedgerError) as error:
            log.error("an epoch cannot be served", why=str(error))
            raise wire_errors.Refused(asking.NOT_READY, "this meta node cannot read its books now: ask another one") from None
        except BooksError as error:
            raise wire_errors.Refused(asking.NOT_HELD, str(error)) from None
        finally:
            self._waiting[kind] -= 1


def _page_of(leaves: Sequence[LeafRow]) -> Any:
    """An EpochBatchPage of the next at most PAGE_LEAVES leaves."""
    page, count = bytearray(), 0
    for leaf in leaves:
        if count and len(page) + len(leaf.leaf) + 4 > PAGE_BYTES:
            break
        page += len(leaf.leaf).to_bytes(4, "big") + leaf.leaf
        count += 1
    is_last = count == len(leaves) < PAGE_LEAVES
    return asking.EpochBatchPage(data=bytes(page), next=b"" if is_last else cursor_bytes(leaves[count - 1]))


def cursor_bytes(leaf: LeafRow) -> bytes:
    """Where a page ends, as the next one is asked for."""
    return leaf.beneficiary + bytes((leaf.fund, leaf.traffic_class)) + leaf.id


def cursor_of(raw: bytes) -> Cursor:
    """What ``cursor_bytes`` made; the beginning for no bytes. Raises the refusal of others."""
    if not raw:
        return Cursor()
    if len(raw) - _LINE_BYTES not in _IDENTITY_BYTES:
        raise wire_errors.Refused(asking.BAD_ASK, f"expected `after` as the page before gave it in `next`, got {len(raw)} bytes")
    return Cursor(raw[:ADDRESS_BYTES], raw[ADDRESS_BYTES], raw[ADDRESS_BYTES + 1], raw[_LINE_BYTES:])


def _tree_of(data: bytes, leaf_bytes: int) -> _Tree:
    leaves = [data[at : at + leaf_bytes] for at in range(0, len(data), leaf_bytes)]
    return _Tree(leaves, plain_levels(leaves))


def _proof_message(proof: Proof) -> Any:
    return asking.TreeProof(leaf=proof.leaf, index=proof.index, count=proof.count, path=proof.path)
