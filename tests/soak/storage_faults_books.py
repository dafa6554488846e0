"""What the files of a stopped network of several meta nodes say: nothing confirmed is lost, and nothing was paid twice.

    meta*/ledger.db ── one log ──────────► bills: what windows took ─┬─ per lease, and for repair ══ leaves in the books of each meta node, one for a serial
    meta*/books.db ── settled leaves ───────────────────────────────┤  per wallet: before − bills ══ what it has
    node*/receipts.db, and what was in those that are gone ─────────┴─ each receipt: settled, once, at what it pays

Source: storage-protocol.md 2 and 3.6; docs/adr/0008 and 0010; ``storage_at_rest`` (one meta node, no disk lost).
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from modules.settlement.leaves import GET, PUT, REPAIR
from sds_node.meta.books.books import State as LeafState
from sds_node.meta.daemon.home import Home
from sds_node.meta.ledger.engine import ReadView, snapshot
from sds_node.meta.rules.apply import rules
from sds_node.meta.rules.invariants import check
from sds_node.meta.rules.objects import STORED
from sds_node.meta.rules.tables import LEASE, OBJECT, WALLET
from sds_node.resource.receipts import Progress, open_receipts
from sds_node.testing.chain import CHAIN_ID
from tests.soak.storage_at_rest import Bills, Lost, NodeHome, Paid, Told, bills_of, is_due, receipts_of


@dataclass(frozen=True)
class Rest:
    """What is left of a network: homes of meta nodes and of resource nodes, none of which runs; what users were told; receipts on disks that were lost."""

    metas: Sequence[Home]
    nodes: Sequence[NodeHome]
    told: Told
    gone: Sequence[dict[bytes, Paid]]


@dataclass(frozen=True)
class Leaf:
    """A settled leaf in a meta node's books."""

    lease: bytes
    action: int
    noz: int


def leaves_of(home: Home) -> dict[bytes, Leaf]:
    """Settled leaves of transfers and repairs by serial, of a meta node that does not run. Raises Lost for one that is in a window of its own."""
    with closing(sqlite3.connect(f"file:{home.books}?mode=ro", uri=True)) as books:
        rows = books.execute("SELECT id, lease, action, noz, state FROM leaves").fetchall()
    if waiting := [row for row in rows if row[4] == LeafState.IN_WINDOW]:
        raise Lost(f"{home.root.name}: {len(waiting)} leaves are in a window that the ledger has not")
    # Audits go on until the last one stops.
    return {bytes(row[0]): Leaf(bytes(row[1]), row[2], row[3]) for row in rows if row[4] == LeafState.SETTLED and row[2] in (GET, PUT, REPAIR)}


def at_rest(rest: Rest) -> dict[str, Any]:
    """Compare everything. Figures; raises Lost."""
    law = rules(CHAIN_ID)
    _one_log(rest.metas)
    kept, gone = _receipts(rest), {serial: one for rows in rest.gone for serial, one in rows.items()}
    leaves = _leaves(rest.metas)
    with snapshot(rest.metas[0].ledger_url, law) as view:
        try:
            check(view)
        except AssertionError as error:
            raise Lost(f"the ledger's invariants do not hold: {error}") from None
        bills = bills_of(view)
        _debits(view, bills, leaves)
        _paid(bills, leaves, kept, gone)
        _wallets(view, bills, rest.told)
        for key in rest.told.charged_noz:
            row = view.get(OBJECT, (key,))
            if row is None or row.state not in STORED:
                raise Lost(f"object {key.hex()} was confirmed to its user, and the ledger has {row}")
    return {
        "ledger_operations": sum(bills.kinds.values()),
        "leases": len(bills.wallet),
        "moves": bills.kinds["move"],
        "receipts_settled": len(leaves),
        "receipts_noz": sum(one.noz for one in leaves.values()),
        "receipts_of_repair": sum(one.action == REPAIR for one in leaves.values()),
        "receipts_acknowledged": len(rest.told.acknowledged),
        "receipts_lost_with_disks": sum(one.noz > 0 and serial not in leaves for serial, one in gone.items()),
    }


def _one_log(metas: Sequence[Home]) -> None:
    """They stopped one after the other, the first one last: what each has is how its ledger began."""
    law = rules(CHAIN_ID)
    heads = {}
    for home in metas:
        with snapshot(home.ledger_url, law) as view:
            heads[home.root.name] = view.head.sequence, view.head.app_hash
    with snapshot(metas[0].ledger_url, law) as view:
        for name, (sequence, app_hash) in heads.items():
            if not (found := view.entries(sequence - 1, 1)) or found[0].app_hash != app_hash:
                raise Lost(f"the ledger of {name} is at operation {sequence}, which is another one, or none, in that of {metas[0].root.name}")


def _receipts(rest: Rest) -> dict[bytes, Paid]:
    """Receipts on the nodes' disks: records are whole, none was refused, and all that pays is settled."""
    every: dict[bytes, Paid] = {}
    for one in rest.nodes:
        if not (one.home / "receipts.db").exists():
            continue
        with open_receipts(one.home / "receipts.db") as record:
            if found := list(record.verify()):
                raise Lost(f"{one.name}: {found[0]}")
        refused = one.home / "refused.jsonl"
        if refused.exists() and (lines := refused.read_text().splitlines()):
            raise Lost(f"{one.name}: {len(lines)} receipts were refused for good, {lines[0]:.600}")
        rows = receipts_of(one.home)
        if waiting := [paid for paid in rows.values() if paid.noz and paid.state != Progress.SETTLED]:
            raise Lost(f"{one.name}: {len(waiting)} receipts that pay are not settled, {waiting[0]}")
        if twice := every.keys() & rows.keys():
            raise Lost(f"serial {next(iter(twice)).hex()} is in the receipts of two nodes")
        every |= rows
    lost = {serial for rows in rest.gone for serial in rows}
    for serial, acked_bytes in rest.told.acknowledged.items():
        has = every.get(serial)
        if serial not in lost and (has is None or has.acked_bytes != acked_bytes):
            raise Lost(f"a node acknowledged the receipt of serial {serial.hex()} for {acked_bytes} bytes, and has {has}")
    return every


def _leaves(metas: Sequence[Home]) -> dict[bytes, Leaf]:
    """Settled leaves: the same in the books of every meta node."""
    books = {home.root.name: leaves_of(home) for home in metas}
    name, first = next(iter(books.items()))
    for other, leaves in books.items():
        if leaves != first:
            differing = {serial for serial in first.keys() | leaves.keys() if first.get(serial) != leaves.get(serial)}
            serial = min(differing)
            raise Lost(f"{len(differing)} leaves differ: of serial {serial.hex()} {name} has {first.get(serial)}, {other} {leaves.get(serial)}")
    return first


def _debits(view: ReadView, bills: Bills, leaves: dict[bytes, Leaf]) -> None:
    """No lease is open, none was settled twice, and what windows took of each is what its leaves pay."""
    if open_leases := view.scan(LEASE, limit=100):
        raise Lost(f"{len(open_leases)} leases are open at the end")
    if twice := [one for one, count in bills.settled.items() if count > 1]:
        raise Lost(f"lease {twice[0].hex()} was settled twice")
    own: Counter[bytes] = Counter()
    for leaf in leaves.values():
        if leaf.action in (GET, PUT):
            own[leaf.lease] += leaf.noz
    for lease in own.keys() | bills.debits.keys():
        if own[lease] != bills.debits[lease]:
            raise Lost(f"lease {lease.hex()}: its leaves pay {own[lease]} noz, windows took {bills.debits[lease]}")
    repairs_noz = sum(leaf.noz for leaf in leaves.values() if leaf.action == REPAIR)
    if repairs_noz != bills.repairs_noz:
        raise Lost(f"leaves of repair pay {repairs_noz} noz, windows took {bills.repairs_noz}")


def _paid(bills: Bills, leaves: dict[bytes, Leaf], kept: dict[bytes, Paid], gone: dict[bytes, Paid]) -> None:
    """What nodes think was settled was, at what it pays, if it is not for a share that no commit has; and nothing was that no node has or had, or of no commit."""
    for serial, one in (gone | kept).items():
        leaf = leaves.get(serial)
        if not is_due(bills, one):
            if leaf is not None:
                raise Lost(f"serial {serial.hex()} is of no share in a commit, and was paid {leaf.noz} noz")
        elif one.state == Progress.SETTLED and one.noz and (leaf is None or leaf.noz != one.noz):
            raise Lost(f"serial {serial.hex()} pays {one.noz} noz and was settled, the books have {leaf}")
    for serial, leaf in leaves.items():
        if serial not in kept and serial not in gone:
            raise Lost(f"serial {serial.hex()} was paid {leaf.noz} noz, and no node has its receipt")


def _wallets(view: ReadView, bills: Bills, told: Told) -> None:
    """Balances to the noz, by bills alone."""
    for wallet, before_noz in told.before_noz.items():
        leases = [lease for lease, owner in bills.wallet.items() if owner == wallet]
        spent = sum(bills.debits[lease] + bills.leases_escrows[lease] + bills.funds[lease] for lease in leases)
        row = view.get(WALLET, (wallet,))
        has = (row.paid_noz if row else None, told.after_noz[wallet])
        if has != (before_noz - spent, before_noz - spent):
            raise Lost(f"wallet {wallet.hex()} had {before_noz} noz and its bills are {spent}: the ledger and the wallet say {has}")
