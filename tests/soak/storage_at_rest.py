"""What the files of a stopped storage network say, against what its users were told: the books of ``storage_kills``, kept by other lines than the network's.

    ledger.db ── its log, entry by entry ──► leases, bills ─┬─ per lease: what nodes' receipts pay ══ what windows took
    node*/receipts.db ── every serial ──────────────────────┤  per wallet: before − receipts − escrows − repair funds ══ what it has
    node*/storage ── every share, byte by byte ─────────────┘  per file: escrow + receipts ══ what the user was charged

Source: storage-protocol.md 2 and 3.6; docs/adr/0008.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modules.settlement.documents import OrderLimit, Receipt
from modules.settlement.leaves import GET, PUT
from sds_node.documents import SignedDocument
from sds_node.merkle import segment_root
from sds_node.meta.ledger.engine import ReadView, snapshot
from sds_node.meta.ledger.verify import verify
from sds_node.meta.rules.apply import rules
from sds_node.meta.rules.call import state_of
from sds_node.meta.rules.commit import object_id
from sds_node.meta.rules.invariants import check, walk
from sds_node.meta.rules.places import nodes_of
from sds_node.meta.rules.tables import LEASE, MOVED, NODE, OBJECT, OPEN, SEGMENT, SERIAL_BYTES, WALLET
from sds_node.meta.rules.wire import open_operation
from sds_node.resource.receipts import Progress, open_receipts
from sds_node.resource.store import State, open_store
from sds_node.schemes import receipt_noz, returned, scheme_of, segment_size, share_bytes, share_noz
from sds_node.transfers import TrafficEvidence, serial_at

RATIO_ONE = 10**18


class Lost(SystemExit):
    """Something that was confirmed is not there, or is there twice; the text says what."""


@dataclass
class Told:
    """What was confirmed to users, and what a killed process had on the disk when it was killed."""

    before_noz: dict[bytes, int] = field(default_factory=dict)
    """Balances of wallets (20 bytes) before anything was stored, and after everything was settled."""
    after_noz: dict[bytes, int] = field(default_factory=dict)
    charged_noz: dict[bytes, int] = field(default_factory=dict)
    """By object id."""
    acknowledged: dict[bytes, int] = field(default_factory=dict)
    """Bytes of final receipts that a node said it has, by serial."""
    sequences: dict[bytes, int] = field(default_factory=dict)
    """The highest sequence number that a wallet was told."""
    heads: list[tuple[int, bytes]] = field(default_factory=list)
    """(sequence, log hash) of the ledger whenever the meta node had been killed."""
    receipts: dict[str, dict[bytes, Paid]] = field(default_factory=dict)
    """By node: its record of receipts when it had been killed last."""


@dataclass(frozen=True)
class NodeHome:
    """A resource node: its address (20 bytes) and its folder."""

    name: str
    address: bytes
    home: Path


@dataclass(frozen=True)
class Paid:
    """A serial in a node's record of receipts."""

    serial: bytes
    lease: bytes
    action: int
    state: int
    acked_bytes: int
    noz: int


def receipts_of(home: Path) -> dict[bytes, Paid]:
    """Every serial that a node accepted, of a node that does not run. Its files stay as they are: a copy of them is read."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("receipts.db", "receipts.db-wal"):
            if (home / name).exists():
                shutil.copy(home / name, folder)
        if not (Path(folder) / "receipts.db").exists():
            return {}
        with closing(sqlite3.connect(Path(folder) / "receipts.db")) as database:
            if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'serials'").fetchone():
                return {}
            return {row[0]: _paid(*row) for row in database.execute("SELECT serial, state, evidence, receipt FROM serials")}


def _paid(serial: bytes, state: int, evidence: bytes, receipt: bytes) -> Paid:
    limit = OrderLimit.FromString(TrafficEvidence.FromString(evidence).order_limit.body)
    acked = Receipt.FromString(SignedDocument.FromString(receipt).body).bytes_acked if receipt else 0
    return Paid(serial, bytes(limit.lease_id), int(limit.action), state, acked, receipt_noz(acked, limit.max_noz, limit.max_bytes))


def head_of(home: Path, chain_id: str) -> tuple[int, bytes]:
    """(sequence, log hash) of the ledger of a meta node that does not run."""
    with snapshot(f"sqlite:///{home / 'data' / 'ledger.db'}", rules(chain_id)) as view:
        return view.head.sequence, view.head.log_hash


def went_back(node: str, before: dict[bytes, Paid], after: dict[bytes, Paid]) -> None:
    """Raises Lost for what a node had in its record and has no more, or has with less in it."""
    for serial, one in before.items():
        now = after.get(serial)
        if now is None:
            raise Lost(f"{node}: serial {serial.hex()} was in its receipts when it was killed and is there no more")
        if now.state < one.state or now.acked_bytes < one.acked_bytes:
            raise Lost(f"{node}: serial {serial.hex()} was {one} when it was killed and is {now}")


# --- the log, counted by other lines than the ledger's ---------------------------------------------------------------------------------


@dataclass
class Bills:
    """What operations of the log took from leases."""

    wallet: dict[bytes, bytes] = field(default_factory=dict)
    """Of each lease."""
    left: dict[bytes, int] = field(default_factory=dict)
    """Of each lease, whether it is settled or not."""
    settled: Counter[bytes] = field(default_factory=Counter)
    debits: Counter[bytes] = field(default_factory=Counter)
    """By lease: what windows took for receipts."""
    repairs_noz: int = 0
    escrows: Counter[bytes] = field(default_factory=Counter)
    """By object."""
    leases_escrows: Counter[bytes] = field(default_factory=Counter)
    funds: Counter[bytes] = field(default_factory=Counter)
    """By lease: what the common repair fund got of it."""
    sequences: Counter[bytes] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    stored: set[bytes] = field(default_factory=set)
    """Serials under which commits have shares: of the receipts for storing these are paid, and no others."""
    sizes: dict[bytes, tuple[int, int, int]] = field(default_factory=dict)
    """(size, k, n) of objects."""


def bills_of(view: ReadView) -> Bills:
    """Walk the whole log."""
    made, state = Bills(), state_of(view)
    for entry in _entries(view):
        if entry.code:
            made.kinds["refused"] += 1
            continue
        operation, _, _ = open_operation(entry.operation)
        kind = operation.WhichOneof("kind")
        made.kinds[kind] += 1
        message = getattr(operation, kind)
        if kind == "take_lease":
            made.wallet[entry.result], made.left[entry.result] = bytes(message.wallet), int(message.noz)
        elif kind == "commit":
            _commit(made, message, state.escrow_ratio_e18)
        elif kind == "window":
            for one in message.leases:
                lease = bytes(one.lease_id)
                made.debits[lease] += one.noz
                on_top = min(made.left[lease] - one.noz, (one.noz - one.put_noz) * state.repair_ratio_e18 // RATIO_ONE)
                made.funds[lease] += on_top
                made.left[lease] -= one.noz + on_top
            made.repairs_noz += sum(one.noz for one in message.repairs)
        elif kind == "settle_leases":
            made.settled.update(bytes(one) for one in message.lease_ids)
        elif kind == "advance_sequence":
            made.sequences[bytes(message.wallet)] += 1
    return made


def _entries(view: ReadView) -> Iterator[Any]:
    after = view.head.base_sequence
    while page := view.entries(after, 500):
        yield from page
        after = page[-1].sequence


def _commit(made: Bills, message: Any, escrow_ratio_e18: int) -> None:
    lease = bytes(message.lease_id)
    for new in message.objects:
        key = object_id(lease, new.counter)
        scheme = scheme_of(new.data_shares, new.total_shares)
        for at, segment in enumerate(new.segments, new.first_segment):
            size = share_bytes(scheme, segment_size(new.size_bytes, at))
            nodes = nodes_of(segment.nodes)
            own = {other.index: bytes(other.serial) for other in segment.others}
            made.stored.update(own.get(index) or serial_at(segment.first_serial, index) for index, node in enumerate(nodes) if node)
            noz = share_noz(size, escrow_ratio_e18).escrow_noz * sum(1 for node in nodes if node)
            made.escrows[key] += noz
            made.leases_escrows[lease] += noz
            made.left[lease] -= noz
    tenth = min(returned(message.unused_noz).repair_fund_noz, made.left[lease])
    made.funds[lease] += tenth
    made.left[lease] -= tenth


# --- comparing -------------------------------------------------------------------------------------------------------------------------


def at_rest(chain_id: str, ledger: Path, nodes: Sequence[NodeHome], scratch: Path, told: Told) -> dict[str, Any]:
    """Compare everything: the file of the ledger, homes of resource nodes; none of them runs. ``scratch``: a file that is made. Raises Lost."""
    receipts = {one.name: receipts_of(one.home) for one in nodes}
    _receipts(nodes, receipts, told)
    law = rules(chain_id)
    with snapshot(f"sqlite:///{ledger}", law) as view:
        verified = verify(view, law, scratch)
        try:
            check(view)
        except AssertionError as error:
            raise Lost(f"the ledger's invariants do not hold: {error}") from None
        for sequence, log_hash in told.heads:
            if not (found := view.entries(sequence - 1, 1)) or found[0].log_hash != log_hash:
                raise Lost(f"operation {sequence} of the ledger is another one, or none, since the meta node was killed after it")
        bills = bills_of(view)
        over = [one for rows in receipts.values() for one in rows.values() if one.state == Progress.SETTLED]
        paid = [one for one in over if is_due(bills, one)]
        _leases(view, bills, paid)
        _wallets(view, bills, told, paid)
        _charges(view, bills, told, paid)
        shares = _shares(view, nodes)
        return {
            "ledger_operations": verified.operations,
            "leases": len(bills.wallet),
            "moves": bills.kinds["move"],
            "receipts_settled": sum(one.noz > 0 for one in paid),
            "receipts_noz": sum(one.noz for one in paid),
            "receipts_of_uploads_never_committed": len(over) - len(paid),
            "receipts_acknowledged": len(told.acknowledged),
            "shares_on_disk": shares,
        }


def is_due(bills: Bills, one: Paid) -> bool:
    """Whether a receipt has to be paid: unless it is for a share that no commit has."""
    return one.action != PUT or one.serial in bills.stored


def _refused(home: Path) -> list[str]:
    told = home / "refused.jsonl"
    return told.read_text().splitlines() if told.exists() else []


def _receipts(nodes: Sequence[NodeHome], receipts: dict[str, dict[bytes, Paid]], told: Told) -> None:
    """Records are whole, nothing went back, every receipt that pays is settled, every acknowledged one is there with all its bytes."""
    for one in nodes:
        name = one.name
        with open_receipts(one.home / "receipts.db") as record:
            if found := list(record.verify()):
                raise Lost(f"{name}: {found[0]}")
        if refused := _refused(one.home):
            raise Lost(f"{name}: {len(refused)} receipts were refused for good, {refused[0]:.600}")
        went_back(name, told.receipts.get(name, {}), receipts[name])
        if waiting := [paid for paid in receipts[name].values() if paid.noz and paid.state != Progress.SETTLED]:
            raise Lost(f"{name}: {len(waiting)} receipts that pay are not settled, {waiting[0]}")
    every: dict[bytes, Paid] = {}
    for rows in receipts.values():
        if twice := every.keys() & rows.keys():
            raise Lost(f"serial {next(iter(twice)).hex()} is in the receipts of two nodes")
        every |= rows
    for serial, acked_bytes in told.acknowledged.items():
        found_one = every.get(serial)
        if found_one is None or found_one.acked_bytes != acked_bytes:
            raise Lost(f"a node acknowledged the receipt of serial {serial.hex()} for {acked_bytes} bytes, and has {found_one}")


def _leases(view: ReadView, bills: Bills, paid: list[Paid]) -> None:
    """No lease is open, none was settled twice, and windows took what nodes' receipts say: none is missing and none counted twice."""
    if open_leases := view.scan(LEASE, limit=100):
        raise Lost(f"{len(open_leases)} leases are open at the end")
    if twice := [one for one, count in bills.settled.items() if count > 1]:
        raise Lost(f"lease {twice[0].hex()} was settled twice")
    own: Counter[bytes] = Counter()
    for one in paid:
        if one.action in (GET, PUT):
            own[one.lease] += one.noz
    for lease in own.keys() | bills.debits.keys():
        if own[lease] != bills.debits[lease]:
            raise Lost(f"lease {lease.hex()}: nodes have settled receipts of {own[lease]} noz, windows took {bills.debits[lease]}")
    others = sum(one.noz for one in paid if one.action not in (GET, PUT))
    if others != bills.repairs_noz:
        raise Lost(f"nodes have settled receipts of repair of {others} noz, windows took {bills.repairs_noz}")


def _wallets(view: ReadView, bills: Bills, told: Told, paid: list[Paid]) -> None:
    """Balances to the noz, by bills alone; sequence numbers by the log alone, and as high as was ever told."""
    for wallet, before_noz in told.before_noz.items():
        leases = {lease for lease, owner in bills.wallet.items() if owner == wallet}
        spent = sum(one.noz for one in paid if one.lease in leases)
        spent += sum(bills.leases_escrows[lease] + bills.funds[lease] for lease in leases)
        row = view.get(WALLET, (wallet,))
        has = (row.paid_noz if row else None, told.after_noz[wallet])
        if has != (before_noz - spent, before_noz - spent):
            raise Lost(
                f"wallet {wallet.hex()} had {before_noz} noz and its bills are {spent}: expected {before_noz - spent}, the ledger and the wallet say {has}"
            )
        sequence = row.sequence if row else 0
        if sequence != bills.sequences[wallet] or sequence < told.sequences.get(wallet, 0):
            raise Lost(
                f"wallet {wallet.hex()}: its sequence number is {sequence}, the log made it {bills.sequences[wallet]}, "
                f"and {told.sequences.get(wallet, 0)} was told"
            )


def _charges(view: ReadView, bills: Bills, told: Told, paid: list[Paid]) -> None:
    """Each confirmed file cost what its user was told: escrow, and the receipts of the copies that the ledger names."""
    by_serial = {one.serial: one.noz for one in paid}
    for key, charged_noz in told.charged_noz.items():
        row = view.get(OBJECT, (key,))
        if row is None or row.state == OPEN:
            raise Lost(f"object {key.hex()} was confirmed to its user, and the ledger has {row}")
        if bills.kinds["move"]:
            continue  # the first serials are no longer those of the ledger
        serials = [serial for number in range(row.first_segment, row.first_segment + row.segments) for serial, _, _ in _copies(view, number)]
        noz = bills.escrows[key] + sum(by_serial[serial] for serial in serials if serial in by_serial)
        if noz != charged_noz:
            raise Lost(f"object {key.hex()} was charged {charged_noz} noz, its escrow and its nodes' receipts are {noz}")


def _copies(view: ReadView, number: int) -> Iterator[tuple[bytes, int, int]]:
    """(serial, node number, share) of every copy of a segment that the ledger names."""
    segment = view.get(SEGMENT, (number,))
    assert segment is not None
    moved = {one.share: one.serial for one in view.scan(MOVED, (number,), limit=SERIAL_BYTES << 4)}
    for share, node in enumerate(nodes_of(segment.nodes)):
        if node:
            yield moved.get(share) or serial_at(segment.first_serial, share), node, share


def _shares(view: ReadView, nodes: Sequence[NodeHome]) -> int:
    """Every copy that the ledger names is on its node's disk, every byte of it, and is what its segment's root says; no segment has too few.

    How many copies there are.
    """
    names = {row.number: next(one.name for one in nodes if one.address == row.address) for row in walk(view, NODE)}
    there = {one.name: _store(one) for one in nodes}
    count = 0
    for row in walk(view, OBJECT):
        scheme = scheme_of(row.k, row.n)
        for number in range(row.first_segment, row.first_segment + row.committed):
            roots: dict[int, bytes] = {}
            for serial, node, share in _copies(view, number):
                if (root := there[names[node]].get(serial)) is None:
                    raise Lost(f"{names[node]}: share {share} of segment {number} (serial {serial.hex()}) was acknowledged, and is not on its disk")
                roots[share] = root
            if len(roots) < scheme.repair_below:
                raise Lost(f"segment {number} has {len(roots)} shares, and is to be repaired below {scheme.repair_below}")
            segment = view.get(SEGMENT, (number,))
            if len(roots) == scheme.n and segment is not None and segment_root([roots[share] for share in sorted(roots)]) != segment.root:
                raise Lost(f"segment {number}: its shares on disk are not those of its root {segment.root.hex()}")
            count += len(roots)
    return count


def _store(node: NodeHome) -> dict[bytes, bytes]:
    """The root of each share on a node's disk by its serial. Every byte is read."""
    found = {}
    with open_store(node.home / "storage") as store:
        for copy in store.inventory():
            if copy.state in (State.PENDING, State.CONFIRMED):
                try:
                    store.check_file(copy.key)
                except Exception as error:
                    raise Lost(f"{node.name}: the share of serial {copy.serial.hex()} is not what was stored: {error}") from error
                found[copy.serial] = copy.root
    return found
