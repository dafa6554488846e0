"""The data of epochs: which leaves a report pays, and the roots that its commitment names.

    lines (ledger: close_epoch) ─► leaves in windows up to the close, not reported yet, of the lines' wallets ─ Σ by line ══ line? ─► roots, batch
                                                                                       └─ else BooksError: nothing is reported
    MADE ─ the chain has the report ─► REPORTED ─ the chain voids it ─► VOID: its leaves can be reported again

    receipts_root   with sums, over leaves in settlement's order            totals_root    over the canonical lines
    debits_root     what these leaves took from each wallet's leases        balances_root  all wallets' noz as the data was made
    files_root      all wallets' files then                                 audits_root    answers' roots of the releases since the last report
    data_ref        `sha256:` and the hash of the batch: the leaves in that order, each after its length

Leaf forms of the plain trees are in ``sds_node/proofs.py``. The windows are those of this meta node alone: with several, each needs the others' batches, which is
not here. Sources: storage-protocol.md 1.6, 1.9, 3.6; ADR 5.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from hashlib import sha256
from typing import Any, Final, Protocol

import orjson
import structlog

from chain.codec.registry import message_class
from modules.settlement.commitment import Line, line_bytes, wallet_of
from modules.settlement.documents import OrderLimit
from modules.settlement.leaves import Leaf
from modules.settlement.params import PACKAGE
from modules.settlement.trees import leaf_hash, plain_root
from sds_node.meta.books.books import Books, BooksError, EpochRow, EpochState, LeafRow, Phase
from sds_node.meta.books.wallets import Before, records_of, trees_of
from sds_node.meta.books.windows import Windows
from sds_node.meta.ledger.engine import ReadView
from sds_node.meta.ledger.errors import LedgerError
from sds_node.meta.relay.reporter import EpochData, UnevenBooks
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
SNAPSHOTS_KEPT: Final = 4
"""Of as many epochs balances and files can be proved."""
KEPT_MS: Final = 7 * 86_400_000
MAX_EPOCH: Final = (1 << 63) - 1
BALANCES: Final = "balances"
FILES: Final = "files"
SEQUENCE: Final = "sequence"
Key = tuple[bytes, int, int]
"""(wallet, fund, class): settlement's order of leaves."""


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

    async def epoch(self, number: int, closed_ms: int, lines: Sequence[Line]) -> EpochData:
        """The data of epoch ``number``, which the ledger closed at ``closed_ms`` (its time) with these lines, in their order. Asked again it is the same.

        Raises BooksError: nothing may be reported then; UnevenBooks when the leaves do not add up to the lines of some wallets, which it names. Raises
        LedgerError.
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
            async with self._books.numbering:
                # What the ledger has and the books do not know of yet, they know after this.
                await self._windows.finish_intended()
                last = await self._books.do(lambda database: self._choose(database, number, closed_ms, lines))
            data = await asyncio.to_thread(self._make, number, totals_root, last, closed_ms)
            fields = {name: value.hex() if isinstance(value, bytes) else value for name, value in asdict(data).items()}
            raw = orjson.dumps(fields | {"last_window": last})
            await self._books.do(lambda database: self._books.put_epoch(database, EpochRow(number, EpochState.MADE, closed_ms, raw)))
            log.info("an epoch's data is made", epoch=number, receipts=data.receipts_count, lines=len(lines))
            return data

    async def reported(self, number: int) -> None:
        """The chain has the report of an epoch. Again is the same."""

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
            if row is not None and row.state != EpochState.VOID:
                self._books.put_epoch(database, row._replace(state=EpochState.VOID))
                self._books.change_leaves(database, "epoch = 0", "epoch = ? AND state = 3", (number,))

        await self._books.do(make)

    async def forget(self, most: int = 5_000) -> int:
        """One bounded step: leaves of epochs that the ledger says are mature go, a week after they came, and refused ones a week after their lease, or after
        they were refused where they are of none. How many went; 0 when there is no more to do. Mature epochs are beyond dispute, so nobody asks for them."""
        now_ms = int(self._clock() * 1_000)
        numbers: list[int] = await self._books.do(_reported_with_leaves)

        def read(view: ReadView) -> list[int]:
            return [number for number in numbers if (row := view.get(EPOCH, (number,))) is None or row.status == MATURE]

        def look() -> list[int]:
            with self._ledger.snapshot() as view:
                return read(view)

        mature = await asyncio.to_thread(look) if numbers else []

        def make(database: sqlite3.Connection) -> int:
            before_ms, gone = now_ms - KEPT_MS, 0
            for number in mature:
                query = (
                    "DELETE FROM leaves WHERE rowid IN (SELECT l.rowid FROM leaves l JOIN windows w ON w.number = l.window "
                    "WHERE l.state = 3 AND l.epoch = ? AND w.time_ms < ? LIMIT ?)"
                )
                gone += database.execute(query, (number, before_ms, most - gone)).rowcount
            query = "DELETE FROM leaves WHERE rowid IN (SELECT rowid FROM leaves WHERE state = 4 AND settles_ms < ? LIMIT ?)"
            return gone + database.execute(query, (before_ms, most - gone)).rowcount

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

    # --- choosing -----------------------------------------------------------------------------------------------------------

    def _choose(self, database: sqlite3.Connection, number: int, closed_ms: int, lines: Sequence[Line]) -> int:
        """Give the lines' leaves to the epoch. Gives the last window's number. Raises BooksError, and nothing is changed then."""
        for (earlier,) in database.execute("SELECT number FROM epochs WHERE state = 1 AND number < ?", (number,)).fetchall():
            # The ledger closes an epoch only when the one before was reported.
            row = self._books.epoch_in(database, earlier)
            if row is not None:
                self._books.put_epoch(database, row._replace(state=EpochState.REPORTED))
        self._books.change_leaves(database, "epoch = 0", "epoch = ? AND state = 3", (number,))
        # Damaged ones are left out of every change, so that they stay known as such; in this epoch they must not be.
        database.execute("UPDATE leaves SET epoch = 0 WHERE epoch = ? AND state = 3", (number,))
        database.execute("CREATE TEMP TABLE IF NOT EXISTS wanted (wallet BLOB PRIMARY KEY) WITHOUT ROWID")
        database.execute("DELETE FROM wanted")
        database.executemany("INSERT OR IGNORE INTO wanted VALUES (?)", [(line.wallet,) for line in lines])
        expected: dict[Key, int] = {(line.wallet, line.fund, line.traffic_class): line.noz for line in lines}
        query = "SELECT number FROM windows WHERE state = ? AND time_ms <= ? AND time_ms >= ? ORDER BY number DESC"
        earlier_last = database.execute("SELECT max(number) FROM windows WHERE state = 2 AND time_ms < ?", (closed_ms,)).fetchone()[0] or 0
        # Windows of the very millisecond of the close may be before or after it: the sums say.
        lasts = [row[0] for row in database.execute(query, (Phase.APPLIED, closed_ms, closed_ms))] + [earlier_last]
        sums = [self._sums(database, last) for last in lasts]
        for last, found in zip(lasts, sums, strict=True):
            if found == expected:
                chosen = "state = 3 AND epoch = 0 AND window <= ? AND beneficiary IN (SELECT wallet FROM wanted)"
                self._books.change_leaves(database, "epoch = ?", chosen, (number, last))
                whole = self._sums_where(database, "epoch = ?", (number,))
                if whole != expected:
                    raise UnevenBooks(f"{_difference(number, expected, whole)}; some are damaged", _uneven(expected, whole))
                return int(last)
        wallets = min((_uneven(expected, found) for found in sums), key=len)
        raise UnevenBooks(_difference(number, expected, sums[0]), wallets)

    def _sums(self, database: sqlite3.Connection, last_window: int) -> dict[Key, int]:
        return self._sums_where(database, "epoch = 0 AND window <= ? AND beneficiary IN (SELECT wallet FROM wanted)", (last_window,))

    def _sums_where(self, database: sqlite3.Connection, where: str, values: tuple[int, ...]) -> dict[Key, int]:
        query = (
            "SELECT beneficiary, fund, class, sum(noz >> 32), sum(noz & 4294967295) FROM leaves "
            f"WHERE state = 3 AND {where} GROUP BY beneficiary, fund, class"
        )
        return {(wallet, fund, kind): (high << 32) + low for wallet, fund, kind, high, low in database.execute(query, values)}

    # --- making -------------------------------------------------------------------------------------------------------------

    def _make(self, number: int, totals_root: bytes, last_window: int, closed_ms: int) -> EpochData:
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
        balances, files = self._ledger_trees(number)
        return EpochData(
            receipts_root=receipts_root,
            receipts_count=len(hashes),
            totals_root=totals_root,
            debits_root=plain_root([balance_leaf(wallet, *noz) for wallet, noz in sorted(debits.items())]),
            balances_root=plain_root(balances),
            audits_root=plain_root(self._answers_roots(number, last_window, closed_ms)),
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

    def _answers_roots(self, number: int, last_window: int, closed_ms: int) -> list[bytes]:
        """Roots of the answers of releases since the last epoch that holds, up to this one's last window."""

        def make(database: sqlite3.Connection) -> list[bytes]:
            query = "SELECT number FROM epochs WHERE state = 2 AND number < ? ORDER BY number DESC LIMIT 1"
            found = database.execute(query, (number,)).fetchone()
            row = self._books.epoch_in(database, found[0]) if found is not None else None
            after = orjson.loads(row.data)["last_window"] if row is not None else 0
            roots = "SELECT root FROM windows WHERE kind = 2 AND state = 2 AND number > ? AND number <= ? ORDER BY number"
            return [bytes(one[0]) for one in database.execute(roots, (after, last_window))]

        return self._books.submit(make).result()

    def _ledger_trees(self, number: int) -> tuple[list[bytes], list[bytes]]:
        """Leaves of balances and files of all wallets, at one commit; kept, so that wallets can have them proved."""
        before = self._books.submit(_last_files).result()
        with self._ledger.snapshot() as view:
            sequence = view.head.sequence
            balances, files = trees_of(view, before)
        kept = ((BALANCES, b"".join(balances)), (FILES, b"".join(files)), (SEQUENCE, sequence.to_bytes(8, "big")))

        def keep(database: sqlite3.Connection) -> None:
            database.execute("DELETE FROM snapshots WHERE epoch <= ?", (number - SNAPSHOTS_KEPT,))
            for name, data in kept:
                database.execute("INSERT OR REPLACE INTO snapshots VALUES (?, ?, ?)", (number, name, data))

        self._books.submit(keep).result()
        return balances, files

    # --- reading ------------------------------------------------------------------------------------------------------------

    async def _row(self, number: int) -> EpochRow | None:
        return await self._books.do(lambda database: self._books.epoch_in(database, number))

    async def _needed(self, number: int) -> EpochRow:
        row = await self._row(number)
        if row is None or row.state == EpochState.VOID:
            raise BooksError(f"the books have no data of epoch {number}: it was never made here, or is void")
        return row

    async def _snapshot(self, number: int, name: str, leaf_bytes: int) -> list[bytes]:
        query = "SELECT data FROM snapshots WHERE epoch = ? AND name = ?"
        found = await self._books.do(lambda database: database.execute(query, (number, name)).fetchone())
        if found is None:
            raise BooksError(f"{name} of epoch {number} are not kept: ask for one of the last {SNAPSHOTS_KEPT}")
        data = bytes(found[0])
        return [data[at : at + leaf_bytes] for at in range(0, len(data), leaf_bytes)]


def _reported_with_leaves(database: sqlite3.Connection) -> list[int]:
    query = "SELECT number FROM epochs WHERE state = 2 AND EXISTS (SELECT 1 FROM leaves WHERE leaves.state = 3 AND leaves.epoch = epochs.number) LIMIT 100"
    return [row[0] for row in database.execute(query)]


def _data_of(row: EpochRow) -> EpochData:
    fields: Mapping[str, Any] = orjson.loads(row.data)
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


def _last_files(database: sqlite3.Connection) -> Before | None:
    query = (
        "SELECT f.data, s.data FROM snapshots f JOIN snapshots s ON s.epoch = f.epoch WHERE f.name = ? AND s.name = ? ORDER BY f.epoch DESC LIMIT 1"
    )
    row = database.execute(query, (FILES, SEQUENCE)).fetchone()
    return None if row is None else Before(int.from_bytes(row[1], "big"), bytes(row[0]))


def _uneven(expected: Mapping[Key, int], found: Mapping[Key, int]) -> list[bytes]:
    """Wallets whose lines are not what their leaves add up to, ascending."""
    return sorted({key[0] for key in expected.keys() | found.keys() if expected.get(key, 0) != found.get(key, 0)})


def _difference(number: int, expected: Mapping[Key, int], found: Mapping[Key, int]) -> str:
    """The first line that does not add up, in words."""
    for key in sorted(expected.keys() | found.keys()):
        if expected.get(key, 0) != found.get(key, 0):
            wallet, fund, kind = key
            return (
                f"epoch {number}: the ledger has {expected.get(key, 0)} noz for {wallet.hex()}, class {kind}, fund {fund}, the leaves here have "
                f"{found.get(key, 0)}: nothing is reported; leaves are missing here, or other meta nodes made windows too"
            )
    return f"epoch {number}: the leaves do not add up to the lines"
