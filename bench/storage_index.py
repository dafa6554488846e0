"""The meta ledger's index at full size: what a segment takes on disk, and how long it takes to find, place, scan and commit.

    files ─► commits of the real rules (1,000 segments each), or rows of the form that these write ─► SQLite or PostgreSQL ─► questions

python -m bench storage-index [--segments 10000000] [--database sqlite|postgres] [--build operations|rows] [--nodes 1000] [--keep FOLDER]

With ``--build rows`` (for sizes at which commits take hours) a small ledger is made both ways first, and every row must be the same.
Files have four segments of 32 MiB, 5 of 10; a node has one share of every hundredth segment. Sources: storage-protocol.md 2; ADR 8.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from bench.startup import resident_mib
from chain.codec.canonical import encode
from chain.crypto import address as bech32
from modules.settlement.documents import GRANT_DOMAIN, SessionGrant
from modules.settlement.leaves import serial_prefix
from sds_node.meta.ledger.core import Core
from sds_node.meta.ledger.engine import ReadView, snapshot
from sds_node.meta.ledger.sql import Session, open_store
from sds_node.meta.rules import tables
from sds_node.meta.rules.apply import rules
from sds_node.meta.rules.commit import object_id
from sds_node.meta.rules.leases import settles_ms
from sds_node.meta.rules.objects import share_escrow, term_ends_ms
from sds_node.meta.rules.places import held_of, nodes_of
from sds_node.meta.rules.wire import MAX_SEGMENT, sign_observation, sign_operation
from sds_node.meta.users.placement import Barred, Pool, seed_of, segment_seed
from sds_node.schemes import SEGMENT_BYTES
from tests.sds_node.postgres import Server
from tests.sds_node.rules.support import (
    CHAIN_ID,
    HASH,
    PARAMS,
    SESSION,
    START_MS,
    ZEROS,
    event,
    message,
    meta,
    meta_key,
    observed_meta,
    observed_node,
    sold,
    wallet,
    wallet_key,
)

SHARES: Final = 10
DATA_SHARES: Final = 5
SEGMENTS_OF_FILE: Final = 4
COMMIT_SEGMENTS: Final = 1_000
WALLET_FILES: Final = 400_000
NAME_BYTES, WRAPPED_BYTES = 48, 60
LEASE_NOZ: Final = 10**18
SAME_ROWS_SEGMENTS: Final = 12_000
QUESTIONS: Final = 3_000


@dataclass
class Content:
    """The files of a run, the same for the same number: object i of a wallet, its segments' nodes."""

    nodes: int

    def placed(self, number: int) -> list[int]:
        """Nodes of segment ``number``'s shares: from a place that chance gives, at equal distances, all different."""
        chance = int.from_bytes(sha256(b"placed %d" % number).digest()[:8], "big")
        first, step = chance % self.nodes, 1 + (chance >> 32) % (self.nodes // SHARES - 1)
        return [(first + at * step) % self.nodes + 1 for at in range(SHARES)]

    def root(self, number: int) -> bytes:
        return sha256(b"root %d" % number).digest()

    def serial(self, number: int) -> bytes:
        return serial_prefix(meta(1)) + (number << 16).to_bytes(8, "big")

    def lookup_id(self, file: int) -> bytes:
        return sha256(b"lookup %d" % file).digest()

    def record(self, file: int) -> dict[str, bytes]:
        text = sha256(b"record %d" % file).digest() * 2
        return {"lookup_id": self.lookup_id(file), "name": text[:NAME_BYTES], "wrapped_key": text[:WRAPPED_BYTES]}


@dataclass
class Index:
    """A ledger that is filled. Files 0, 1, … are counted over all wallets."""

    url: str
    content: Content
    files: int = 0
    leases: dict[int, bytes] = field(default_factory=dict)
    nonce: int = 0
    core: Core | None = None
    commits: list[tuple[float, float]] = field(default_factory=list)
    """Wall time and CPU time of each operation, in seconds."""

    def open(self) -> Core:
        self.core = Core.open(open_store(self.url), rules(CHAIN_ID), CHAIN_ID)
        return self.core

    def close(self) -> None:
        if self.core is not None:
            self.core.close()
            self.core = None

    def send(self, kind: str, body: Any) -> bytes:
        """An operation in a batch of its own, on disk when it returns."""
        core = self.core
        assert core is not None
        self.nonce += 1
        raw = sign_operation(
            message("Operation", chain_id=CHAIN_ID, meta_node=meta(1), nonce=self.nonce, until_s=START_MS // 1_000 + 600, **{kind: body}), meta_key(1)
        )
        started, cpu = time.perf_counter(), time.process_time()
        core.begin(START_MS)
        result = core.apply(raw)
        core.write()
        core.commit()
        self.commits.append((time.perf_counter() - started, time.process_time() - cpu))
        if result.code:
            raise SystemExit(f"the ledger refused {kind} ({result.code}): {result.reason}")
        return result.result

    def found(self, wallets: int) -> None:
        """A ledger with nodes and wallets, each wallet with one lease."""
        self.open()
        self.send("found", message("Found", height=100, block_hash=ZEROS, metas=[observed_meta(1)], params=message("LedgerParams", **PARAMS)))
        events = [event(node=observed_node(number)) for number in range(1, self.content.nodes + 1)]
        events += [sold(number, 2 * LEASE_NOZ) for number in range(1, wallets + 1)]
        body = encode(
            message(
                "Observation", chain_id=CHAIN_ID, from_height=101, to_height=101, is_last=True, block_hash=ZEROS, block_time_s=START_MS // 1_000,
                outstanding_noz=str(2 * LEASE_NOZ * wallets), deposit_changes=self.content.nodes, events=events,
            )
        )  # fmt: skip
        signature = {"meta_node": meta(1), "signature": sign_observation(body, meta_key(1))}
        self.send("observe", message("Observe", observation=body, signatures=[signature]))
        for number in range(1, wallets + 1):
            self.leases[number] = self.send("take_lease", _lease(number))

    def wallet_of(self, file: int) -> int:
        return file // WALLET_FILES + 1

    def commit(self, segments: int) -> None:
        """Files with so many segments in all, by one operation."""
        objects = []
        owner = self.wallet_of(self.files)
        for file in range(self.files, self.files + segments // SEGMENTS_OF_FILE):
            numbers = range(1 + file * SEGMENTS_OF_FILE, 1 + (file + 1) * SEGMENTS_OF_FILE)
            made = [
                message(
                    "NewSegment", root=self.content.root(number), first_serial=self.content.serial(number),
                    nodes=b"".join(node.to_bytes(4, "big") for node in self.content.placed(number)),
                )
                for number in numbers
            ]  # fmt: skip
            objects.append(
                message(
                    "NewObject", counter=file, root=self.content.root(numbers[0]), file_hash=HASH, size_bytes=SEGMENTS_OF_FILE * SEGMENT_BYTES,
                    data_shares=DATA_SHARES, total_shares=SHARES, segments=made, file=message("FileRecord", **self.content.record(file)),
                )
            )  # fmt: skip
        self.send("commit", message("Commit", lease_id=self.leases[owner], objects=objects))
        self.files += len(objects)

    def by_operations(self, segments: int) -> None:
        """Fill it by real commits."""
        while self.files * SEGMENTS_OF_FILE < segments:
            self.commit(COMMIT_SEGMENTS)
            if self.files % 25_000 == 0:
                took = statistics.median(wall for wall, _ in self.commits[-100:])
                print(f"  {self.files * SEGMENTS_OF_FILE} segments; of the last hundred commits half took up to {took * 1_000:.0f} ms", flush=True)

    # --- rows as the rules write them -------------------------------------------------------------------------------------------

    def by_rows(self, segments: int) -> None:
        """Fill an empty one with the rows of so many segments, in the order of their keys."""
        core = self.core
        assert core is not None
        files = segments // SEGMENTS_OF_FILE
        session = core.session
        session.begin()
        state = tables.STATE.load(session.get(tables.STATE, (1,)) or ())
        leases = {number: tables.LEASE.load(session.get(tables.LEASE, (key,)) or ()) for number, key in self.leases.items()}
        keys = sorted((object_id(self.leases[self.wallet_of(file)], file), file) for file in range(files))
        first = self._object(keys[0][0], keys[0][1], state, leases)
        held = _Lists(self.content.nodes)

        def load(table: Any, rows: Iterator[Any]) -> None:
            started = time.perf_counter()
            session.load(table, rows)
            session.commit()
            session.begin()
            if segments >= 1_000_000:
                print(f"  rows of {table.name} after {time.perf_counter() - started:.0f} s", flush=True)

        load(tables.SEGMENT, self._segments(files, held))
        load(tables.OBJECT, (self._object(key, file, state, leases, first) for key, file in keys))
        load(tables.QUEUE, (tables.Queue(first.due_ms, tables.KEPT, key) for key, _ in keys))
        del keys
        load(tables.HELD, held.rows())
        addresses = {number: lease.wallet for number, lease in leases.items()}
        records = sorted((addresses[self.wallet_of(file)], self.content.lookup_id(file), file) for file in range(files))
        load(tables.FILE, (self._file(owner, file) for owner, _, file in records))
        del records
        self._totals(session, files, state, leases, held, first.term_noz)
        session.commit()
        self.files = files
        self.close()
        self.open()

    def _segments(self, files: int, held: _Lists) -> Iterator[tables.Segment]:
        days = bytes(2 * SHARES)
        for file in range(files):
            key = object_id(self.leases[self.wallet_of(file)], file)
            for number in range(1 + file * SEGMENTS_OF_FILE, 1 + (file + 1) * SEGMENTS_OF_FILE):
                placed = self.content.placed(number)
                for index, node in enumerate(placed):
                    held.add(node, number, index)
                packed = b"".join([node.to_bytes(4, "big") for node in placed])
                yield tables.Segment(number, key, self.content.root(number), self.content.serial(number), packed, days)

    def _object(
        self, key: bytes, file: int, state: tables.State, leases: dict[int, tables.Lease], like: tables.Object | None = None
    ) -> tables.Object:
        """The row of a file's object; what all have in common is taken from one that was made before."""
        lease = leases[self.wallet_of(file)]
        first = 1 + file * SEGMENTS_OF_FILE
        if like is not None:
            return like._replace(
                id=key, payer=lease.wallet, lookup_id=self.content.lookup_id(file), lease=lease.id, root=self.content.root(first), first_segment=first
            )
        row = tables.Object(
            id=key, payer=lease.wallet, lookup_id=self.content.lookup_id(file), lease=lease.id, fund=lease.fund, root=self.content.root(first),
            file_hash=HASH, size_bytes=SEGMENTS_OF_FILE * SEGMENT_BYTES, k=DATA_SHARES, n=SHARES, first_segment=first, segments=SEGMENTS_OF_FILE,
            committed=SEGMENTS_OF_FILE, escrow_ratio_e18=state.escrow_ratio_e18, made_ms=START_MS, term_days=state.retention_days, terms=1,
            term_noz=0, escrow_noz=0, repair_noz=0, promo_ends_ms=lease.promo_ends_ms, state=tables.KEPT, due_ms=settles_ms(lease),
        )  # fmt: skip
        spent = SHARES * sum(share_escrow(row, at) for at in range(SEGMENTS_OF_FILE))
        row = row._replace(term_noz=spent, escrow_noz=spent)
        return row._replace(due_ms=term_ends_ms(row))

    def _file(self, owner: bytes, file: int) -> tables.File:
        record = self.content.record(file)
        key = object_id(self.leases[self.wallet_of(file)], file)
        return tables.File(owner, record["lookup_id"], key, record["name"], record["wrapped_key"], False, START_MS, START_MS)

    def _totals(self, session: Session, files: int, state: tables.State, leases: dict[int, tables.Lease], held: _Lists, noz: int) -> None:
        """Counters and sums that commits change."""
        session.write(tables.STATE, [state._replace(next_segment=files * SEGMENTS_OF_FILE + 1)], ())
        for number, lease in leases.items():
            own = max(0, min(files - (number - 1) * WALLET_FILES, WALLET_FILES))
            session.write(tables.LEASE, [lease._replace(noz=lease.noz - own * noz)], ())
            row = tables.WALLET.load(session.get(tables.WALLET, (lease.wallet,)) or ())
            session.write(tables.WALLET, [row._replace(files=own)], ())
        nodes = [tables.NODE.load(session.get(tables.NODE, (number,)) or ()) for number in range(1, self.content.nodes + 1)]
        session.write(tables.NODE, [row._replace(shares=held.count(row.number)) for row in nodes], ())


class _Lists:
    """Every node's own list, packed as places.py does, filled in ascending order of segments."""

    def __init__(self, nodes: int) -> None:
        self._done: list[list[tables.Held]] = [[] for _ in range(nodes + 1)]
        self._first = [0] * (nodes + 1)
        self._last = [0] * (nodes + 1)
        self._entries = [0] * (nodes + 1)
        self._packed = [bytearray() for _ in range(nodes + 1)]

    def add(self, node: int, segment: int, index: int) -> None:
        packed = self._packed[node]
        if self._entries[node] == tables.CHUNK_ENTRIES:
            self._close(node)
            packed = self._packed[node]
        if not packed:
            self._first[node] = self._last[node] = segment
        step = segment - self._last[node]
        while step > 0x7F:
            packed.append(step & 0x7F | 0x80)
            step >>= 7
        packed.append(step)
        packed.append(index)
        self._last[node] = segment
        self._entries[node] += 1

    def _close(self, node: int) -> None:
        self._done[node].append(tables.Held(node, self._first[node], self._last[node], self._entries[node], bytes(self._packed[node])))
        self._packed[node] = bytearray()
        self._entries[node] = 0

    def count(self, node: int) -> int:
        return sum(one.entries for one in self._done[node])

    def rows(self) -> Iterator[tables.Held]:
        for node in range(1, len(self._done)):
            if self._packed[node]:
                self._close(node)
            yield from self._done[node]


def _lease(number: int) -> Any:
    now_s = START_MS // 1_000
    body = encode(
        SessionGrant(
            chain_id=CHAIN_ID, wallet=bech32.encode(wallet(number)), session_pubkey=SESSION, actions=[1, 2], path_prefix="/", max_noz=2 * LEASE_NOZ,
            not_before_s=now_s - 60, expires_s=now_s + 7_200, nonce=number.to_bytes(16, "big"),
        )
    )  # fmt: skip
    key = wallet_key(number)
    grant = {"body": body, "public_key": key.public_key.raw, "signature": key.sign(GRANT_DOMAIN + b"\x00" + body)}
    return message("TakeLease", wallet=wallet(number), session_pubkey=SESSION, fund=1, noz=LEASE_NOZ, seconds=3_600, grant=grant)


# --- questions ---------------------------------------------------------------------------------------------------------------------


def measure(index: Index) -> None:
    """Print all figures of a filled ledger."""
    segments = index.files * SEGMENTS_OF_FILE
    _sizes(index, segments)
    choose = random.Random(7)
    with snapshot(index.url, rules(CHAIN_ID)) as view:

        def find() -> None:
            file = choose.randrange(index.files)
            found = view.get(tables.FILE, (wallet(index.wallet_of(file)), index.content.lookup_id(file)))
            assert found is not None
            row = view.get(tables.OBJECT, (found.object,))
            assert row is not None
            rows = view.scan(tables.SEGMENT, start=(row.first_segment,), end=(row.first_segment + row.segments,), limit=1_000)
            assert len(rows) == SEGMENTS_OF_FILE

        def holders() -> None:
            row = view.get(tables.SEGMENT, (choose.randrange(1, segments + 1),))
            assert row is not None
            for node in nodes_of(row.nodes):
                assert view.get(tables.NODE, (node,)) is not None

        _timed("a file by name, its object and its 4 segments", find)
        _timed("a segment and the rows of its 10 holders", holders)
        _node_scan(view, index)
    _placement(index.content.nodes)
    for size, count in ((COMMIT_SEGMENTS, 20), (SEGMENTS_OF_FILE, 50)):
        before = len(index.commits)
        for _ in range(count):
            index.commit(size)
        wall, cpu = (statistics.median(one[at] for one in index.commits[before:]) for at in (0, 1))
        objects = size // SEGMENTS_OF_FILE
        print(
            f"  commit of {size} segments ({objects} objects), synced: median {wall * 1_000:.1f} ms, {cpu * 1_000:.1f} ms of CPU; "
            f"{objects / wall:.0f} objects/s, {objects / cpu:.0f} for each second of CPU",
            flush=True,
        )
    print(f"  memory of this process at most: {resident_mib():.0f} MiB", flush=True)


def _timed(what: str, work: Callable[[], object], count: int = QUESTIONS) -> None:
    took = []
    cpu = time.process_time()
    for _ in range(count):
        started = time.perf_counter()
        work()
        took.append(time.perf_counter() - started)
    cpu = (time.process_time() - cpu) / count
    took.sort()
    print(f"  {what}: median {took[count // 2] * 1e6:.0f} µs, p99 {took[count * 99 // 100] * 1e6:.0f} µs, {cpu * 1e6:.0f} µs of CPU", flush=True)


def _node_scan(view: ReadView, index: Index) -> None:
    """What repair reads when a node is lost: its list, then the row of every segment in it."""
    node, entries, first = index.content.nodes // 2, 0, 0
    started, cpu = time.perf_counter(), time.process_time()
    numbers: list[int] = []
    while page := held_of(view, node, first, MAX_SEGMENT, 5_000):
        entries, first = entries + len(page), page[-1][0] + 1
        numbers.extend(number for number, _ in page)
    listed_s = time.perf_counter() - started
    started = time.perf_counter()
    for number in numbers:
        row = view.get(tables.SEGMENT, (number,))
        assert row is not None
        assert node in nodes_of(row.nodes)
    rows_s, cpu = time.perf_counter() - started, time.process_time() - cpu
    print(
        f"  a lost node's list: {entries} shares in {listed_s:.2f} s; with every segment's row {listed_s + rows_s:.1f} s, {cpu:.1f} s of CPU, "
        f"{rows_s / max(entries, 1) * 1e6:.0f} µs each",
        flush=True,
    )


@dataclass(frozen=True)
class _Candidate:
    number: int
    owner: bytes
    prefix: bytes
    weight: int
    free_bytes: int


def _placement(nodes: int) -> None:
    choose = random.Random(3)
    candidates = [
        _Candidate(number, sha256(b"owner %d" % number).digest()[:20], number.to_bytes(3, "big"), choose.randrange(100, 10_000), 1 << 40)
        for number in range(1, nodes + 1)
    ]
    _timed(f"making the pool of {nodes} nodes", lambda: _pool(candidates), 300)
    pool, seed = _pool(candidates), seed_of(ZEROS, ZEROS, 1)
    at = iter(range(10**9))

    def place() -> None:
        assert pool.choose(SHARES, SEGMENT_BYTES // DATA_SHARES, segment_seed(seed, next(at), 0), Barred()) is not None

    _timed(f"placing a segment's 10 shares among {nodes} nodes", place)


def _pool(candidates: list[_Candidate]) -> Pool:
    return Pool(candidates, lambda one: one.free_bytes)


def _sizes(index: Index, segments: int) -> None:
    core = index.core
    assert core is not None
    sizes: dict[str, int] = {}
    if index.url.startswith("sqlite"):
        path = Path(index.url.removeprefix("sqlite:///"))
        core.session.run("PRAGMA wal_checkpoint(TRUNCATE)")
        sizes = {name: size for name, size in core.session.run("SELECT name, sum(pgsize) FROM dbstat GROUP BY name")}
        total = sum(one.stat().st_size for one in path.parent.glob(path.name + "*"))
    else:
        sizes = {
            name: size
            for name, size in core.session.run(
                "SELECT relname::text, pg_total_relation_size(oid) FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
            )
        }
        total = core.session.size_bytes()
    log_bytes = sum(size for name, size in sizes.items() if name.startswith("ledger_"))
    parts = ", ".join(
        f"{name} {size / segments:.0f}"
        for name, size in sorted(sizes.items(), key=lambda one: -one[1])
        if size > segments and not name.startswith("ledger_")
    )
    print(
        f"  {segments} segments: {(total - log_bytes) / 1e9:.2f} GB, {(total - log_bytes) / segments:.0f} bytes for each ({parts}); the log beside it {log_bytes / 1e9:.2f} GB",
        flush=True,
    )


# --- both ways give the same -------------------------------------------------------------------------------------------------------


def check_rows(nodes: int) -> None:
    """Make a small ledger by operations and by rows. Ends the program if any row differs."""
    with tempfile.TemporaryDirectory() as folder:
        found = []
        for way in ("operations", "rows"):
            index = Index(f"sqlite:///{folder}/{way}.db", Content(min(nodes, 40)))
            index.found(1)
            (index.by_operations if way == "operations" else index.by_rows)(SAME_ROWS_SEGMENTS)
            index.close()
            with snapshot(index.url, rules(CHAIN_ID)) as view:
                found.append({table.name: sorted(view.session.run(f'SELECT * FROM "{table.name}"')) for table in tables.ALL})
    for name, rows in found[0].items():
        if name not in ("meta", "sent") and rows != found[1][name]:  # those two tell how many operations came
            raise SystemExit(f"table {name} differs between commits and rows: {len(rows)} and {len(found[1][name])} rows")
    print(f"storage-index: the rows of {SAME_ROWS_SEGMENTS} segments are the same by commits and written directly", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--segments", type=int, default=10_000_000)
    parser.add_argument("--database", choices=("sqlite", "postgres"), default="sqlite")
    parser.add_argument("--build", choices=("operations", "rows"), default="rows")
    parser.add_argument("--nodes", type=int, default=1_000)
    parser.add_argument("--keep", type=Path, help="a folder for the SQLite file, which stays there")
    arguments = parser.parse_args()
    if arguments.build == "rows":
        check_rows(arguments.nodes)
    with ExitStack() as stack:
        if arguments.database == "postgres":
            server = Server("max_wal_size=4GB")
            stack.callback(server.stop)
            url = server.database()
        else:
            folder = arguments.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
            folder.mkdir(parents=True, exist_ok=True)
            url = f"sqlite:///{folder.absolute()}/index-{os.getpid()}.db"
        index = Index(url, Content(arguments.nodes))
        segments = arguments.segments // COMMIT_SEGMENTS * COMMIT_SEGMENTS
        started = time.perf_counter()
        index.found(-(-segments // SEGMENTS_OF_FILE // WALLET_FILES) + 1)
        (index.by_operations if arguments.build == "operations" else index.by_rows)(segments)
        print(
            f"storage-index: {arguments.database}, {segments} segments by {arguments.build}, {arguments.nodes} nodes; made in {time.perf_counter() - started:.0f} s",
            flush=True,
        )
        measure(index)
        index.close()


if __name__ == "__main__":
    main()
