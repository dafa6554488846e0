"""The data of epochs: which leaves a report pays, and the roots that its commitment names.

    lines (ledger: close_epoch) ─► leaves in windows up to the close, not reported yet, of the lines' wallets ─ Σ by line ══ line? ─► roots, batch
                                   └ of all meta nodes: choosing.py, fetching.py                               └─ else BooksError: nothing is reported
    MADE ─ the chain has the report ─► REPORTED ─ the chain voids it ─► VOID: its leaves can be reported again

    receipts_root   with sums, over leaves in settlement's order            totals_root    over the canonical lines
    debits_root     what these leaves took from each wallet's leases        balances_root  all wallets' noz as the data was made; with blocks, at the close
    files_root      all wallets' files then                                 audits_root    answers' roots of the releases since the last epoch that holds
    data_ref        `sha256:` and the hash of the batch: the leaves in that order, each after its length

With the same ledger and the same windows it is the same, byte for byte, on each meta node. Leaf forms of the plain trees are in ``sds_node/proofs.py``.
Sources: storage-protocol.md 1.6, 1.9, 3.6; ADR 5, 10.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from hashlib import sha256
from typing import Any, Final, Protocol, TypeVar

import orjson
import structlog

from chain.codec.registry import message_class
from modules.settlement.commitment import Line, line_bytes, wallet_of
from modules.settlement.documents import OrderLimit
from modules.settlement.leaves import Leaf
from modules.settlement.params import PACKAGE
from modules.settlement.trees import leaf_hash, plain_root
from sds_node.meta.books.books import Books, BooksError, EpochRow, EpochState, LeafRow
from sds_node.meta.books.choosing import Choosing, Chosen, closing_of, earlier_of, known_epochs, last_over
from sds_node.meta.books.freezing import BALANCES, FILES, SNAPSHOTS_KEPT, Committing, Freezer, Trees, keep_trees, parts
from sds_node.meta.books.others import forget_bad, forget_empty
from sds_node.meta.books.wallets import records_of
from sds_node.meta.books.windows import Windows
from sds_node.meta.ledger.engine import ReadView
from sds_node.meta.ledger.errors import LedgerError
from sds_node.meta.relay.reporter import EpochData
from sds_node.meta.rules.tables import EPOCH, MATURE
from sds_node.proofs import (
    BALANCE_BYTES,
    FILES_BYTES,
    FileProof,
    Proof,
    balance_leaf,
    files_leaf,
    index_of,
    path_of,
    prove,
    sum_levels,
    sum_root_of,
)

log = structlog.get_logger("books")

LeafProof: Final = message_class(f"{PACKAGE}.LeafProof")
PAGE_LEAVES: Final = 2_000
KEPT_MS: Final = 7 * 86_400_000
MAX_EPOCH: Final = (1 << 63) - 1
Need = Callable[[Mapping[bytes, int]], Awaitable[None]]
"""Meta nodes → the number of the last window that is needed. Raises BooksError while one of this meta node, where it is asked for those, may still come back."""
T = TypeVar("T")


class AnyLedger(Protocol):
    """What is asked of the ledger here."""

    def snapshot(self) -> AbstractContextManager[ReadView]:
        """A view of the last commit, without a time limit."""
        ...


class EpochBooks:
    """The epochs of one meta node's books."""

    def __init__(self, ledger: AnyLedger, books: Books, windows: Windows, clock: Callable[[], float] = time.time) -> None:
        self._ledger, self._books, self._windows, self._clock = ledger, books, windows, clock
        self._making = asyncio.Lock()
        self._choosing = Choosing(books, windows.address)
        self._freezer: Freezer | None = None
        self.need: Need = nobody_to_ask
        """Brings windows up to some numbers, as far as it can (restoring.py, fetching.py)."""

    @property
    def address(self) -> bytes:
        """The meta node's."""
        return self._windows.address

    def follow(self, ledger: Committing) -> None:
        """From now on balances and files are those of the blocks that close epochs. To be called once, before the ledger's first block. Blocks."""
        self._freezer = Freezer(ledger, self._books)
        self._freezer.start()

    def close(self) -> None:
        """Hold no states any more. Blocks while one is worked on; the books and the ledger are closed after this."""
        if self._freezer is not None:
            self._freezer.close()

    async def epoch(self, number: int, closed_ms: int, lines: Sequence[Line]) -> EpochData:
        """The data of epoch ``number``, which the ledger closed at ``closed_ms`` (its time) with these lines, in their order. Asked again it is the same.

        Raises BooksError: nothing may be reported then, as when a window of another meta node is not here, or the state at the close; UnevenBooks when the
        leaves do not add up to the lines of some wallets, which it names. Raises LedgerError.
        """
        if not 1 <= number <= MAX_EPOCH:
            raise BooksError(f"expected an epoch from 1 to 2^63 - 1, got {number}")
        totals_root = plain_root([line_bytes(line) for line in lines])
        async with self._making:
            before = await self._row(number)
            if before is not None and before.state == EpochState.VOID:
                raise BooksError(f"epoch {number} is void: it is not reported again")
            if before is not None and (before.closed_ms == closed_ms or before.state == EpochState.REPORTED):
                known = _data_of(before)
                if known.totals_root == totals_root:
                    return known
                if before.state == EpochState.REPORTED:
                    raise BooksError(f"epoch {number} was reported with other lines")
            closing = await self._read(lambda view: closing_of(view, number))
            if closing is not None and closing.row.closed_ms != closed_ms:
                raise BooksError(f"epoch {number} was closed at {closing.row.closed_ms} ms, not at {closed_ms} ms: ask for that one")
            marks = closing.marks if closing is not None else {}
            # What the ledger cannot give a state for is not worked on: its leaves stay as they are.
            trees = await self._freezer.trees(number, closed_ms) if self._freezer is not None else None
            await self.need({meta: last for meta, (_, last) in marks.items()})
            await self._catch_up(number)
            async with self._books.numbering:
                # What the ledger has and the books do not know of yet, they know after this.
                await self._windows.finish_intended(proposes=False)
                chosen: Chosen = await self._books.do(lambda database: self._choosing.choose(database, number, closed_ms, lines, marks))
            roots = closing.answers_roots if closing is not None and marks else None
            data = await asyncio.to_thread(self._make, number, totals_root, chosen.last_window, closed_ms, roots, trees)
            fields = {name: value.hex() if isinstance(value, bytes) else value for name, value in asdict(data).items()}
            raw = orjson.dumps(fields | {"last_window": chosen.last_window, "arrived": chosen.arrived})
            await self._books.do(lambda database: self._books.put_epoch(database, EpochRow(number, EpochState.MADE, closed_ms, raw)))
            log.info("an epoch's data is made", epoch=number, receipts=data.receipts_count, lines=len(lines))
            return data

    async def reported(self, number: int) -> None:
        """The chain has the report of an epoch. One whose data was not made here gets the leaves that it paid, so that no later one has them. Again is the
        same."""
        before = await self._row(number)
        if before is not None and before.state == EpochState.REPORTED:
            return
        try:
            await self._catch_up(number + 1)
        except BooksError as error:
            log.warning("what an epoch paid is not known here yet", epoch=number, why=str(error))
            return

        def make(database: sqlite3.Connection) -> None:
            row = self._books.epoch_in(database, number)
            if row is None:
                log.error("an epoch was reported whose data was not made here: its leaves stay as they are", epoch=number)
            elif row.state == EpochState.MADE:
                self._books.put_epoch(database, row._replace(state=EpochState.REPORTED))

        await self._books.do(make)

    async def voided(self, number: int) -> None:
        """The chain voided an epoch: its leaves can be reported in another one. Again is the same."""

        def make(database: sqlite3.Connection) -> None:
            row = self._books.epoch_in(database, number)
            if row is not None:
                self._choosing.void(database, row)

        await self._books.do(make)

    async def forget(self, most: int = 5_000) -> int:
        """One bounded step: leaves of epochs that the ledger says are mature go, a week after they came, and refused ones a week after their lease, or after
        they were refused where they are of none; windows of others that do not hold go with the epochs that had them. How many went; 0 when there is no more
        to do. Mature epochs are beyond dispute, so nobody asks for them."""
        now_ms = int(self._clock() * 1_000)
        numbers: list[int] = await self._books.do(_reported_with_leaves)

        def read(view: ReadView) -> tuple[list[int], dict[bytes, int]]:
            return [number for number in numbers if (row := view.get(EPOCH, (number,))) is None or row.status == MATURE], last_over(view)

        mature, over = await self._read(read)

        def make(database: sqlite3.Connection) -> int:
            before_ms, gone = now_ms - KEPT_MS, 0
            for number in mature:
                for windows in ("windows w ON w.number = l.window", "others w ON w.id = l.window"):
                    query = (
                        f"DELETE FROM leaves WHERE rowid IN (SELECT l.rowid FROM leaves l JOIN {windows} "
                        "WHERE l.state = 3 AND l.epoch = ? AND w.time_ms < ? LIMIT ?)"
                    )
                    gone += database.execute(query, (number, before_ms, most - gone)).rowcount
            query = "DELETE FROM leaves WHERE rowid IN (SELECT rowid FROM leaves WHERE state = 4 AND settles_ms < ? LIMIT ?)"
            gone += database.execute(query, (before_ms, most - gone)).rowcount
            gone += forget_bad(database, over, most - gone)
            return gone + forget_empty(database, before_ms, most - gone)

        return await self._books.do(make)

    async def run(self, every_s: float = 600.0) -> None:
        """Forget what nobody needs, until cancelled."""
        while True:
            try:
                while await self.forget():
                    pass  # step by step, so that others use the books in between
            except (BooksError, LedgerError) as error:
                log.warning("old leaves are not forgotten", why=str(error))
            await asyncio.sleep(every_s)

    # --- for those who check ------------------------------------------------------------------------------------------------

    async def batch(self, number: int) -> bytes:
        """The bytes that ``data_ref`` names: all leaves of an epoch, each after its length. Raises BooksError when it is not here."""
        await self._needed(number)
        return await asyncio.to_thread(lambda: b"".join(_framed(row) for page in self._pages(number) for row in page))

    async def leaf_with_path(self, number: int, index: int) -> Any:
        """The LeafProof of leaf ``index`` of an epoch: what answers a challenge. Raises BooksError when there is none."""
        await self._needed(number)

        def make() -> Any:
            hashes: list[tuple[bytes, int]] = []
            found: LeafRow | None = None
            for page in self._pages(number):
                for row in page:
                    if len(hashes) == index:
                        found = row
                    hashes.append((leaf_hash(row.leaf), row.noz))
            if found is None:
                raise BooksError(f"epoch {number} has {len(hashes)} leaves, numbered from 0: there is no leaf {index}")
            proof = LeafProof(epoch=number, index=index, leaf=Leaf.FromString(found.leaf))
            for digest, noz in path_of(sum_levels(hashes), index):
                proof.path.add(hash=digest, sum_noz=str(noz))
            return proof

        return await asyncio.to_thread(make)

    async def balance_proof(self, number: int, wallet: bytes) -> Proof | None:
        """A wallet's balance under an epoch's ``balances_root``; None for one without a row then. Raises BooksError for an epoch too long ago."""
        leaves = await self._snapshot(number, BALANCES, BALANCE_BYTES)
        index = index_of(leaves, wallet)
        return None if index is None else await asyncio.to_thread(prove, leaves, index)

    async def file_proof(self, number: int, wallet: bytes, lookup_id: bytes) -> FileProof | None:
        """A file under an epoch's ``files_root``; None when there is no such file. Raises BooksError for an epoch too long ago, or when the wallet's files
        have changed since: then the next epoch proves them."""
        leaves = await self._snapshot(number, FILES, FILES_BYTES)
        index = index_of(leaves, wallet)
        if index is None:
            return None

        def make() -> tuple[list[bytes], int | None]:
            with self._ledger.snapshot() as view:
                records = list(records_of(view, wallet))
            return [record for _, record in records], next((at for at, (key, _) in enumerate(records) if key == lookup_id), None)

        records, at = await asyncio.to_thread(make)
        if files_leaf(wallet, len(records), plain_root(records)) != leaves[index]:
            raise BooksError(f"the wallet's files have changed since epoch {number}: the next epoch proves them")
        if at is None:
            return None
        return FileProof(await asyncio.to_thread(prove, records, at), await asyncio.to_thread(prove, leaves, index))

    # --- making -------------------------------------------------------------------------------------------------------------

    def _make(
        self, number: int, totals_root: bytes, last_window: int, closed_ms: int, answers_roots: list[bytes] | None, trees: Trees | None
    ) -> EpochData:
        """The data of an epoch whose leaves are chosen. Runs in a thread. Raises BooksError."""
        hashes: list[tuple[bytes, int]] = []
        debits: dict[bytes, list[int]] = {}
        digest = sha256()
        for page in self._pages(number):
            for row in page:
                hashes.append((leaf_hash(row.leaf), row.noz))
                digest.update(_framed(row))
                if row.lease:
                    _debit(row, debits)
        receipts_root, _ = sum_root_of(sum_levels(hashes))
        if trees is None:
            with self._ledger.snapshot() as view:
                trees = keep_trees(self._books, view, number, closed_ms)
        balances, files = trees
        return EpochData(
            receipts_root=receipts_root,
            receipts_count=len(hashes),
            totals_root=totals_root,
            debits_root=plain_root([balance_leaf(wallet, *noz) for wallet, noz in sorted(debits.items())]),
            balances_root=plain_root(balances),
            audits_root=plain_root(answers_roots if answers_roots is not None else self._answers_roots(number, last_window)),
            files_root=plain_root(files),
            data_ref=f"sha256:{digest.hexdigest()}",
        )

    def _pages(self, number: int) -> Iterator[list[LeafRow]]:
        """An epoch's leaves in settlement's order, page by page; others use the books in between."""
        after: tuple[bytes, int, int, bytes] = (b"", 0, 0, b"")
        while True:
            where = (
                f"state = 3 AND epoch = ? AND (beneficiary, fund, class, id) > (?, ?, ?, ?) ORDER BY beneficiary, fund, class, id LIMIT {PAGE_LEAVES}"
            )
            values = (number, *after)
            page = self._books.submit(lambda database, where=where, values=values: self._books.leaves_where(database, where, values)).result()  # type: ignore[misc]
            if page:
                yield page
            if len(page) < PAGE_LEAVES:
                return
            last = page[-1]
            after = (last.beneficiary, last.fund, last.traffic_class, last.id)

    def _answers_roots(self, number: int, last_window: int) -> list[bytes]:
        """Roots of the answers of releases since the last epoch that holds, up to this one's last window: of one that the ledger closed before it marked
        windows."""

        def make(database: sqlite3.Connection) -> list[bytes]:
            query = "SELECT number FROM epochs WHERE state = 2 AND number < ? ORDER BY number DESC LIMIT 1"
            found = database.execute(query, (number,)).fetchone()
            row = self._books.epoch_in(database, found[0]) if found is not None else None
            after = orjson.loads(row.data)["last_window"] if row is not None else 0
            roots = "SELECT root FROM windows WHERE kind = 2 AND state = 2 AND number > ? AND number <= ? ORDER BY number"
            return [bytes(one[0]) for one in database.execute(roots, (after, last_window))]

        return self._books.submit(make).result()

    # --- reading ------------------------------------------------------------------------------------------------------------

    async def _read(self, read: Callable[[ReadView], T]) -> T:
        """Read the ledger without a time limit."""

        def look() -> T:
            with self._ledger.snapshot() as view:
                return read(view)

        return await asyncio.to_thread(look)

    async def _catch_up(self, number: int) -> None:
        """Learn what became of the epochs before one. Raises BooksError while a window is missing that one of them has."""
        known = await self._books.do(known_epochs)
        earlier = [one for one in await self._read(lambda view: earlier_of(view, known)) if one.row.number < number]
        new = [one for one in earlier if one.row.number not in known and one.marks]
        for one in new[-1:]:
            # What comes back of the own windows later is theirs then: nobody is kept waiting for it here.
            await self.need({meta: last for meta, (_, last) in one.marks.items() if meta != self._windows.address})
        await self._books.do(lambda database: self._choosing.catch_up(database, earlier))

    async def _row(self, number: int) -> EpochRow | None:
        return await self._books.do(lambda database: self._books.epoch_in(database, number))

    async def _needed(self, number: int) -> EpochRow:
        row = await self._row(number)
        if row is None or row.state == EpochState.VOID or not is_whole(row):
            raise BooksError(f"the books have no data of epoch {number}: it was never made here, or is void")
        return row

    async def _snapshot(self, number: int, name: str, leaf_bytes: int) -> list[bytes]:
        query = "SELECT data FROM snapshots WHERE epoch = ? AND name = ?"
        found = await self._books.do(lambda database: database.execute(query, (number, name)).fetchone())
        if found is None:
            raise BooksError(f"{name} of epoch {number} are not kept: ask for one of the last {SNAPSHOTS_KEPT}")
        return parts(bytes(found[0]), leaf_bytes)


async def nobody_to_ask(upto: Mapping[bytes, int]) -> None:
    """``Need`` of a network with one meta node."""


def is_whole(row: EpochRow) -> bool:
    """Whether all leaves of an epoch are here."""
    return bool(orjson.loads(row.data).get("is_whole", True))


def _reported_with_leaves(database: sqlite3.Connection) -> list[int]:
    query = "SELECT number FROM epochs WHERE state = 2 AND EXISTS (SELECT 1 FROM leaves WHERE leaves.state = 3 AND leaves.epoch = epochs.number) LIMIT 100"
    return [row[0] for row in database.execute(query)]


def _data_of(row: EpochRow) -> EpochData:
    fields: Mapping[str, Any] = orjson.loads(row.data)
    if "totals_root" not in fields:
        raise BooksError(f"epoch {row.number} was reported, and its data was not made here")
    roots = {name: bytes.fromhex(value) for name, value in fields.items() if name.endswith("_root")}
    return EpochData(receipts_count=fields["receipts_count"], data_ref=fields["data_ref"], **roots)


def _framed(row: LeafRow) -> bytes:
    return len(row.leaf).to_bytes(4, "big") + row.leaf


def _debit(row: LeafRow, debits: dict[bytes, list[int]]) -> None:
    """Add a leaf of traffic to what its wallet's leases paid."""
    limit = OrderLimit.FromString(Leaf.FromString(row.leaf).traffic.order_limit.body)
    wallet = wallet_of(limit.wallet)
    if wallet is not None:
        debits.setdefault(wallet, [0, 0])[row.fund - 1] += row.noz
