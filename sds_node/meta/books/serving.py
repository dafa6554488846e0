"""``epoch.batch`` and ``epoch.proof``: what anyone may fetch of an epoch, so that anyone can check it against the chain.

    EpochBatchHead {epoch, after} ─► the next leaves in settlement's order, each after its length ─► EpochBatchPage {data, next}
    EpochProofHead {epoch, wallet, lookup id} ─► balances and files as the data was made ─► EpochProof {leaf and path of each}

Nothing here is trusted by who asks: a batch has the hash that ``data_ref`` names, a proof leads to a root of the commitment. Trees of the epochs asked for
last are kept in memory, and few requests are worked on at a time. Sources: ADR 9; storage-protocol.md 1.6, 1.9.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections import OrderedDict
from collections.abc import AsyncIterator
from typing import Any, Final, NamedTuple

import structlog

from chain.codec.canonical import encode
from modules.settlement.commitment import wallet_of
from modules.settlement.leaves import HASH_BYTES
from sds_node import asking
from sds_node.meta.books.books import Books, BooksError, EpochRow, EpochState, LeafRow
from sds_node.meta.books.epochs import BALANCES, FILES, EpochBooks
from sds_node.meta.books.file import BooksDamaged, BooksLocked, BooksUnusable
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
    """A leaf's place in the order: beneficiary, fund, class, serial or serial ‖ day."""

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
        self._epochs, self._books = epochs, books
        self._slots, self._waiting = asyncio.Semaphore(AT_ONCE), 0
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

    async def _page(self, number: int, after: Cursor) -> Any:
        row = await self._row(number)
        if row is None or row.state == EpochState.VOID:
            raise wire_errors.Refused(asking.NOT_HELD, f"epoch {number} was not made here, or is void: ask another meta node")
        where = f"state = 3 AND epoch = ? AND (beneficiary, fund, class, id) > (?, ?, ?, ?) ORDER BY beneficiary, fund, class, id LIMIT {PAGE_LEAVES}"
        leaves: list[LeafRow] = await self._books.do(lambda database: self._books.leaves_where(database, where, (row.number, *after)))
        page, count = bytearray(), 0
        for leaf in leaves:
            if count and len(page) + len(leaf.leaf) + 4 > PAGE_BYTES:
                break
            page += len(leaf.leaf).to_bytes(4, "big") + leaf.leaf
            count += 1
        is_last = count == len(leaves) < PAGE_LEAVES
        return asking.EpochBatchPage(data=bytes(page), next=b"" if is_last else cursor_bytes(leaves[count - 1]))

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
    async def _turn(self) -> AsyncIterator[None]:
        """One of few at a time; errors come out as the caller shall read them."""
        if self._waiting >= MAX_WAITING:
            raise wire_errors.Busy(f"{self._waiting} requests for epochs are waiting here: ask again in a moment")
        self._waiting += 1
        try:
            async with self._slots:
                yield
        except (BooksDamaged, BooksLocked, BooksUnusable, LedgerError) as error:
            log.error("an epoch cannot be served", why=str(error))
            raise wire_errors.Refused(asking.NOT_READY, "this meta node cannot read its books now: ask another one") from None
        except BooksError as error:
            raise wire_errors.Refused(asking.NOT_HELD, str(error)) from None
        finally:
            self._waiting -= 1


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
