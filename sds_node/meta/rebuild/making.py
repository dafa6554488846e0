"""From what nodes told and what the chain says to the rows of a ledger, and its export.

    Found ─ choosing.py ─► objects, segments ─┐
    Standing, Bought ─ terms.py, balances.py ─┴─► rows in a database of its own ─► export, share roots ─► the database is removed

What is not known is set so that nothing old holds: sequence, nonces and wallets' numbers are far above all that were used, no lease is there, no epoch, nothing
is earned. Source: docs/meta-nodes.md, "When all ledgers are lost"; rules/invariants.py holds of what comes out.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import groupby
from pathlib import Path
from typing import Any, Final

from modules.settlement.leaves import SERIAL_BYTES
from sds_node.manifests import MAX_SEQUENCE, SEQUENCES_LEFT, ObjectManifest
from sds_node.meta.ledger.engine import ReadView, snapshot
from sds_node.meta.ledger.log import HEAD, OWN, first_head
from sds_node.meta.ledger.schema import Table
from sds_node.meta.ledger.sql import Session, open_store
from sds_node.meta.ledger.transfer import export_ledger, settled
from sds_node.meta.rebuild import terms
from sds_node.meta.rebuild.balances import Bought, Standing, shared
from sds_node.meta.rebuild.choosing import Outcome, choose
from sds_node.meta.rebuild.found import Chosen, Found
from sds_node.meta.rules import tables as t
from sds_node.meta.rules.apply import rules
from sds_node.meta.rules.money import promo_id
from sds_node.meta.rules.observe import FIRST_SCORE
from sds_node.meta.rules.places import chunk_of, nodes_of, pack
from sds_node.meta.users.roots import open_roots

SEQUENCE_AHEAD: Final = 1 << 20
"""The ledger goes on so far above the highest operation that a manifest names."""
_DOMAIN: Final = b"stratos/ledger-rebuilt/v1\0"
_BUFFER: Final = 2_000
Check = Callable[[ReadView], None]


@dataclass
class Made:
    """What the ledger has, and its export's name (32 bytes; empty for a dry run)."""

    outcome: Outcome
    files: int = 0
    trash: int = 0
    ended: int = 0
    """Objects whose time was over."""
    escrow_noz: int = 0
    balances_noz: int = 0
    owed_noz: int = 0
    """By the chain."""
    sequence: int = 0
    name: bytes = b""


class _Writer:
    """Rows on their way into a database; ``digest`` is over all of them."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._rows: dict[str, tuple[Table[Any], list[Any]]] = {}
        self.digest = sha256()

    def put(self, table: Table[Any], row: Any) -> None:
        rows = self._rows.setdefault(table.name, (table, []))[1]
        rows.append(row)
        self.digest.update(table.id.to_bytes(2, "big") + table.encode(row))
        if len(rows) >= _BUFFER:
            self._session.write(table, rows, ())
            rows.clear()

    def flush(self) -> None:
        for table, rows in self._rows.values():
            self._session.write(table, rows, ())
            rows.clear()


@dataclass
class Maker:
    """Makes one ledger. ``folder`` is for what goes again, by the name of what was found, so that a next one finds it after a kill; ``now_ms`` is the ledger's
    time from its beginning on."""

    found: Found
    chain: Standing
    bought: Bought
    highest_sequence: int
    now_ms: int
    folder: Path
    progress: Callable[[str, int], None] = lambda what, count: None
    _files: Counter[bytes] = field(default_factory=Counter)
    _trash: Counter[bytes] = field(default_factory=Counter)
    _escrows: Counter[tuple[bytes, int]] = field(default_factory=Counter)
    """By (wallet, fund)."""

    def choose(self) -> Outcome:
        """Which objects come in. Once, before ``make``."""
        numbers = {node.address: (number, node.owner) for number, node in enumerate(self.chain.nodes, 1)}
        return choose(self.found, numbers, self.progress)

    def make(self, outcome: Outcome, write: Callable[[bytes], object] | None, roots: Path | None, check: Check | None = None) -> Made:
        """The ledger, given to ``write`` as an export, and the share roots of its segments in a file at ``roots``. ``check`` may look at it before. Raises
        LedgerError, RootsError, OSError."""
        made = Made(outcome, owed_noz=self.chain.outstanding_noz)
        path = self.folder / f".{self.found.path.name.lstrip('.')}.rebuilt"
        made_of = rules(self.chain.chain_id)
        _remove(path)
        try:
            session = open_store(f"sqlite:///{path}").lock()
            try:
                session.begin()
                session.create_tables((*OWN, *made_of.schema.tables))
                writer = _Writer(session)
                self._rows(writer, made)
                writer.flush()
                session.create_indexes(made_of.schema.tables)
                head = first_head(self.chain.chain_id, made_of.application, made_of.schema_version, made_of.schema.digest)
                made.sequence = min(self.highest_sequence + SEQUENCE_AHEAD, MAX_SEQUENCE - SEQUENCES_LEFT)
                app_hash = sha256(_DOMAIN + head.app_hash + made.sequence.to_bytes(8, "big") + writer.digest.digest()).digest()
                session.write(HEAD, [settled(head._replace(sequence=made.sequence, time_ms=self.now_ms, app_hash=app_hash))], ())
                session.commit()
            finally:
                session.close()
            with snapshot(f"sqlite:///{path}", made_of) as view:
                if check is not None:
                    check(view)
                if write is not None:
                    made.name = export_ledger(view, made_of.schema, write)
        finally:
            _remove(path)
        if roots is not None:
            self._write_roots(roots)
        return made

    # --- rows ---------------------------------------------------------------------------------------------------------------

    def _rows(self, writer: _Writer, made: Made) -> None:
        chain = self.chain
        pools = {t.PAID: chain.outstanding_noz - chain.promo_noz, t.PROMO: chain.promo_noz}
        parts = {fund: terms.part_within(noz, lambda fund=fund: self._of_fund(fund), self.now_ms) for fund, noz in pools.items()}  # type: ignore[misc]
        for (wallet, lookup), group in groupby(self.found.chosen("wallet, lookup, sequence DESC, object"), key=lambda row: (row.wallet, row.lookup)):
            self._records(writer, made, wallet, lookup, list(group), parts)
        shares = self._held(writer)
        escrows = {fund: sum(noz for (_, one), noz in self._escrows.items() if one == fund) for fund in pools}
        paid = shared(
            {wallet: max(0, noz - self._escrows[wallet, t.PAID]) for wallet, noz in self.bought.paid.items()}, pools[t.PAID] - escrows[t.PAID]
        )  # fmt: skip
        promo = shared(self._promo_claims(), pools[t.PROMO] - escrows[t.PROMO])
        self._wallets(writer, paid, promo)
        self._nodes(writer, shares)
        made.files, made.trash = self._files.total(), self._trash.total()
        made.escrow_noz, made.balances_noz = sum(escrows.values()), sum(paid.values()) + sum(promo.values())
        promo_noz = escrows[t.PROMO] + sum(promo.values())
        found = chain.found
        params = {name: getattr(found.params, name) for name in found.params.DESCRIPTOR.fields_by_name}
        writer.put(
            t.STATE,
            t.State(
                id=1, chain_id=chain.chain_id, height=chain.height, block_hash=chain.block_hash, block_time_s=chain.block_time_s, part=0, block_number=1,
                outstanding_noz=chain.outstanding_noz, deposit_changes=0, owed_noz=made.escrow_noz + made.balances_noz, promo_owed_noz=promo_noz,
                promo_expired_noz=0, shortfall_noz=0, promo_shortfall_noz=0, repair_paid_noz=0, repair_promo_noz=0, reported_epoch=found.reported_epoch,
                reported_s=found.reported_s, next_node=len(chain.nodes) + 1, next_segment=made.outcome.next_segment, nodes=len(chain.nodes), **params,
            ),
        )  # fmt: skip
        writer.put(t.BLOCK, t.Block(1, chain.height, chain.block_hash, self.now_ms))
        for one in found.metas:
            # Nonces are counted one by one, so no clock is behind them; leases have their ids from them.
            writer.put(t.META, t.Meta(one.address, one.owner, one.ledger_key, one.is_active, self.now_ms, 0, 0))

    def _of_fund(self, fund: int) -> Iterator[tuple[Chosen, Any]]:
        for row in self.found.chosen():
            manifest = ObjectManifest.FromString(row.body)
            if manifest.fund == fund:
                yield row, manifest

    def _records(
        self, writer: _Writer, made: Made, wallet: bytes, lookup: bytes, rows: Sequence[Chosen], parts: dict[int, terms.Part]
    ) -> None:  # fmt: skip
        """The objects of one place: the newest is the file, unless it was deleted; older ones are in the trash. One that was made after the record of another
        last changed has put that into the trash, whether it is still there itself or not, and though nodes may not have heard of it."""
        params, is_taken, made_ms = self.chain.found.params, False, -1
        for row in rows:
            manifest = ObjectManifest.FromString(row.body)
            is_taken = is_taken or made_ms >= manifest.file_changed_ms
            made_ms = max(made_ms, int(manifest.made_ms))
            ends_ms = int(manifest.made_ms + manifest.terms * manifest.term_days * t.DAY_MS)
            if manifest.trashed_until_ms or is_taken:
                state = t.TRASHED
                due_ms = int(manifest.trashed_until_ms) or self.now_ms + params.trash_days * t.DAY_MS
            else:
                state = t.KEPT if self.now_ms < ends_ms else t.GRACE
                due_ms = ends_ms if state == t.KEPT else ends_ms + params.grace_days * t.DAY_MS
                is_taken = due_ms > self.now_ms
            if due_ms <= self.now_ms:
                made.ended += 1
                continue
            self._object(writer, row, manifest, state, due_ms, parts[manifest.fund])
            file = manifest.file
            if state == t.TRASHED:
                self._trash[wallet] += 1
                writer.put(t.TRASH, t.Trash(wallet, row.object, lookup, file.name, file.wrapped_key, file.is_public, manifest.file_made_ms))
            else:
                self._files[wallet] += 1
                writer.put(
                    t.FILE,
                    t.File(wallet, lookup, row.object, file.name, file.wrapped_key, file.is_public, manifest.file_made_ms, manifest.file_changed_ms),
                )

    def _object(self, writer: _Writer, row: Chosen, manifest: Any, state: int, due_ms: int, part: terms.Part) -> None:
        day = terms.settled_day(manifest, self.now_ms, part)
        escrow_noz, term_noz = terms.escrow(row, manifest, day)
        self._escrows[row.wallet, manifest.fund] += escrow_noz
        writer.put(
            t.OBJECT,
            t.Object(
                id=row.object, payer=row.wallet, lookup_id=row.lookup, lease=manifest.lease, fund=manifest.fund, root=manifest.root,
                file_hash=manifest.file_hash, size_bytes=manifest.size_bytes, k=manifest.data_shares, n=manifest.total_shares, first_segment=row.first,
                segments=row.segments, committed=row.segments, escrow_ratio_e18=manifest.escrow_ratio_e18, made_ms=manifest.made_ms,
                term_days=manifest.term_days, terms=manifest.terms, term_noz=term_noz, escrow_noz=escrow_noz, repair_noz=0,
                promo_ends_ms=manifest.promo_ends_ms, state=state, due_ms=due_ms,
            ),
        )  # fmt: skip
        writer.put(t.QUEUE, t.Queue(due_ms, state, row.object))
        days = pack([day] * manifest.total_shares, t.DAY_BYTES)
        for segment in self.found.segments(row.object):
            number = row.first + segment.at
            writer.put(t.SEGMENT, t.Segment(number, row.object, segment.root, segment.first_serial, segment.nodes, days))
            for at in range(0, len(segment.moved), 1 + SERIAL_BYTES):
                writer.put(t.MOVED, t.Moved(number, segment.moved[at], segment.moved[at + 1 : at + 1 + SERIAL_BYTES]))
            self.found.place([(node, number, index) for index, node in enumerate(nodes_of(segment.nodes)) if node])

    def _held(self, writer: _Writer) -> Counter[int]:
        """Each node's list. How many shares each has."""
        shares: Counter[int] = Counter()
        for node, group in groupby(self.found.placed(), key=lambda one: one[0]):
            for entries in _chunks(((number, index) for _, number, index in group), t.CHUNK_ENTRIES):
                shares[node] += len(entries)
                writer.put(t.HELD, chunk_of(node, entries))
        return shares

    def _promo_claims(self) -> dict[tuple[bytes, int], int]:
        """What wallets were granted and has not ended, less what their files' escrows have: of what ends first, as those are paid from."""
        escrows = {wallet: noz for (wallet, fund), noz in self._escrows.items() if fund == t.PROMO}
        claims = {}
        for (wallet, ends_ms), noz in sorted(self.bought.promo.items()):
            if ends_ms > self.now_ms:
                used = min(noz, escrows.get(wallet, 0))
                escrows[wallet] = escrows.get(wallet, 0) - used
                claims[wallet, ends_ms] = noz - used
        return claims

    def _wallets(self, writer: _Writer, paid: dict[bytes, int], promo: dict[tuple[bytes, int], int]) -> None:
        sums: Counter[bytes] = Counter()
        for (wallet, ends_ms), noz in sorted(promo.items()):
            sums[wallet] += noz
            writer.put(t.PROMO_NOZ, t.Promo(wallet, ends_ms, noz))
            writer.put(t.QUEUE, t.Queue(ends_ms, t.PROMO_ENDS, promo_id(wallet, ends_ms)))
        bought = {*self.bought.paid, *(wallet for wallet, _ in self.bought.promo)}
        for wallet in sorted({*bought, *self._files, *self._trash}):
            writer.put(
                t.WALLET,
                t.Wallet(
                    wallet, paid.get(wallet, 0), sums[wallet], self.now_ms // 1_000, 0, self._files[wallet], self._trash[wallet], 0, is_legacy_allowed=True
                ),
            )  # fmt: skip

    def _nodes(self, writer: _Writer, shares: Counter[int]) -> None:
        for number, node in enumerate(self.chain.nodes, 1):
            writer.put(
                t.NODE,
                t.Node(
                    number=number, address=node.address, owner=node.owner, beneficiary=node.beneficiary, p2p_key=node.p2p_key, standing=int(node.standing),
                    deposit_wei=node.effective_wei, endpoint="", prefix=b"", capacity_bytes=0, free_bytes=0, is_online=False, seen_ms=self.now_ms,
                    maintenance_until_ms=0, score=FIRST_SCORE, shares=shares[number],
                ),
            )  # fmt: skip

    # --- share roots --------------------------------------------------------------------------------------------------------

    def _write_roots(self, path: Path) -> None:
        """A file as ``data/roots.db`` is one. Nodes are told once more that their shares count."""
        open_roots(path).close()
        with sqlite3.connect(path) as database:
            database.executemany("INSERT INTO share_roots VALUES (?, ?, 0)", self._roots())
        database.close()

    def _roots(self) -> Iterator[tuple[int, bytes]]:
        for row in self.found.chosen():
            for segment in self.found.segments(row.object):
                roots = self.found.roots_of(segment.root)
                if roots is not None:
                    yield row.first + segment.at, roots


def _remove(database: Path) -> None:
    for suffix in ("", "-journal", "-wal", "-shm", ".lock"):
        database.with_name(database.name + suffix).unlink(missing_ok=True)


def _chunks(entries: Iterable[tuple[int, int]], most: int) -> Iterator[list[tuple[int, int]]]:
    part: list[tuple[int, int]] = []
    for one in entries:
        part.append(one)
        if len(part) == most:
            yield part
            part = []
    if part:
        yield part
