"""Whether the leaves of another meta node's window are what the ledger has of it, and each one a leaf that pays.

    leaves ─ batch and root those of the ledger's row? ─ no: NotThatWindow, somebody else may have them
                  │ yes: it is that window, whoever gave it
                  └─ Σ noz ── what it took from each lease and gave to each wallet ── settlement's rules for each leaf ─► rows for the books, or BadWindow

What a meta node proposes is judged by its message in the same way, before it is on the ledger; each of its receipts then has to be of the lease that it takes
from, or of the meta node's own repair. A release has no root over its leaves: they follow from its result in the ledger's log (released.py), and are given by
others only where the log is not here any more. Runs in threads.
Sources: ADR 10; storage-protocol.md 1.9, 3.6.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from typing import Any, Final

from google.protobuf.message import DecodeError

from modules.settlement import leaves as settlement
from modules.settlement.commitment import node_of, wallet_of
from modules.settlement.leaves import AUDIT, PUT, REPAIR, Leaf
from modules.settlement.trees import sum_root
from sds_node.meta.books.books import NEVER_MS, LeafRow, State
from sds_node.meta.books.judging import Judge, read
from sds_node.meta.books.others import MAX_BAD_SERIALS, BadWindow
from sds_node.meta.books.windows import batch_bytes
from sds_node.meta.ledger.engine import ReadView
from sds_node.meta.rules import tables
from sds_node.meta.rules.epochs import MAX_META_ROWS
from sds_node.meta.rules.releases import Settled, settled_of
from sds_node.meta.rules.strings import fault_of_limit
from sds_node.meta.rules.windows import MAX_ENTRY_NOZ, why_not_its_own
from sds_node.meta.rules.wire import open_operation

ENTRIES_READ: Final = 200
MAX_ENTRIES: Final = 5_000
"""Of the ledger's log are looked at to find a window's operation: those of its millisecond."""


class NotThatWindow(Exception):
    """What was given is not the window that was asked for. The text says what differs."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the ledger has of a window. ``debits``: lease → (noz, of these for storing); ``repairs``: fund → noz; ``credits``: (wallet, fund, class) → noz; None
    where the log does not tell any more. ``settled``: what a release's leaves follow from; None where the log does not tell."""

    row: tables.WindowRow
    ledger_keys: Mapping[bytes, bytes]
    debits: Mapping[bytes, tuple[int, int]] | None = None
    repairs: Mapping[int, int] = field(default_factory=dict)
    credits: Mapping[tuple[bytes, int, int], int] = field(default_factory=dict)
    settled: Sequence[Settled] | None = None
    leases: Mapping[bytes, tables.Lease] | None = None
    """Of a window that is proposed: the ledger's rows of what it takes from."""
    asked: Mapping[bytes, tables.Asked] = field(default_factory=dict)
    """What those of them are for that legacy strings pay for."""


def wanted_of(view: ReadView, meta_node: bytes, number: int) -> Wanted | None:
    """What the ledger says of a window; None for one that it does not have."""
    row = view.get(tables.WINDOW, (meta_node, number))
    if row is None:
        return None
    keys = _ledger_keys(view)
    found = _logged(view, row)
    if found is None:
        return Wanted(row, keys)
    message, result = found
    if row.is_release:
        return Wanted(row, keys, settled=settled_of(result))
    return Wanted(row, keys, *_moved(message))


def proposed_of(view: ReadView, meta_node: bytes, message: Any, time_ms: int) -> Wanted:
    """What a window has to be that a meta node proposes at that time of the ledger. Raises BadWindow where it may not take from a lease."""
    keys = _ledger_keys(view)
    leases: dict[bytes, tables.Lease] = {}
    for one in message.leases:
        lease = view.get(tables.LEASE, (one.lease_id,)) if len(one.lease_id) == tables.ID_BYTES else None
        if lease is None:
            raise BadWindow(f"lease {one.lease_id.hex()[:64]} is not on the ledger")
        why = why_not_its_own(view, lease, meta_node, time_ms)
        if why:
            raise BadWindow(why)
        leases[lease.id] = lease
    noz = sum(one.noz for one in message.credits)
    row = tables.WindowRow(meta_node, message.number, False, time_ms, message.receipts_root, message.receipts_count, message.batch_hash, noz)
    asked = {key: found for key in leases if (found := view.get(tables.ASKED, (key,))) is not None}
    return Wanted(row, keys, *_moved(message), leases=leases, asked=asked)


def _ledger_keys(view: ReadView) -> dict[bytes, bytes]:
    """Of all meta nodes that ever had one, by address."""
    return {meta.address: meta.ledger_key for meta in view.scan(tables.META, limit=MAX_META_ROWS) if meta.ledger_key}


def _moved(message: Any) -> tuple[dict[bytes, tuple[int, int]], Counter[int], dict[tuple[bytes, int, int], int]]:
    """What a Window takes from leases and repair funds, and gives to wallets."""
    repairs: Counter[int] = Counter()
    for one in message.repairs:
        repairs[one.fund] += one.noz
    debits = {one.lease_id: (one.noz, one.put_noz) for one in message.leases}
    return debits, repairs, {(one.beneficiary, one.fund, one.traffic_class): one.noz for one in message.credits}


def _logged(view: ReadView, row: tables.WindowRow) -> tuple[Any, bytes] | None:
    """(message, result) of a window's or release's operation, if the log has it."""
    after = view.sequence_at(row.made_ms) - 1
    kind = "release" if row.is_release else "window"
    for _ in range(MAX_ENTRIES // ENTRIES_READ):
        page = view.entries(after, ENTRIES_READ)
        for entry in page:
            after = entry.sequence
            if entry.time_ms != row.made_ms:
                return None
            operation, _, _ = open_operation(entry.operation) if entry.code == 0 else (None, b"", b"")
            if operation is not None and operation.meta_node == row.meta_node and operation.WhichOneof("kind") == kind:
                message = getattr(operation, kind)
                if message.number == row.number:
                    return message, entry.result
        if not page:
            return None
    return None


def rows_of(raws: Sequence[bytes], wanted: Wanted, judge: Judge, chain_id: str) -> list[LeafRow]:
    """The leaves of a window as rows of the books. Raises NotThatWindow for leaves that are another's, BadWindow for a window that does not hold."""
    leaves = [_leaf(raw) for raw in raws]
    keys = [settlement.sort_key(leaf) for leaf in leaves]
    noz = sum(leaf.noz for leaf in leaves)
    row = wanted.row
    if row.is_release:
        if noz != row.noz:
            raise NotThatWindow(f"its leaves have {noz} noz, the ledger moved {row.noz}")
    else:
        root, _ = sum_root([(raw, leaf.noz) for raw, leaf in zip(raws, leaves, strict=True)])
        digest = sha256(batch_bytes(raws)).digest()
        if (len(raws), root, digest) != (row.items, row.root, row.batch_hash):
            raise NotThatWindow(f"it has {len(raws)} leaves under root {root.hex()[:16]}…, the ledger {row.items} under {row.root.hex()[:16]}…")
        if noz != row.noz:
            raise BadWindow(f"its leaves have {noz} noz, the ledger moved {row.noz}")
    for left, right in zip([None, *keys], keys, strict=False):
        if right is None or (left is not None and left >= right):
            raise BadWindow("its leaves are not in order, each once")
    if row.is_release:
        _check_release(leaves)
        return [_row(leaf, raw) for leaf, raw in zip(leaves, raws, strict=True)]
    twice = [once for once, times in Counter(settlement.identity(leaf) or b"" for leaf in leaves).items() if times > 1]
    if twice:
        # What is settled once is paid once, whomever each of its lines names: the order, which is by what a leaf pays to whom, does not show it.
        raise BadWindow(f"serial {twice[0].hex()} is there more than once", twice)
    made, bad = [], dict[bytes, str]()
    key_of = partial(dict.get, dict(wanted.ledger_keys))
    for leaf, raw in zip(leaves, raws, strict=True):
        asked = read(leaf)
        fault = "it is no traffic" if asked.limit is None or asked.receipt is None else judge.fault(asked, chain_id, key_of)
        fault = fault or (_of_another(asked.limit, wanted) if wanted.leases is not None else None)
        if fault is not None:
            bad[settlement.identity(leaf) or b""] = fault
            if len(bad) == MAX_BAD_SERIALS:
                break
        elif not bad:
            made.append(_row(leaf, raw, asked.limit, asked.receipt.bytes_acked))
    if bad:
        first = next(iter(bad))
        raise BadWindow(f"the leaf of serial {first.hex()} is bad: {bad[first]}", [one for one in bad if one])
    _check_totals(made, wanted)
    return made


def rows_kept(raws: Sequence[bytes], wanted: Wanted) -> list[LeafRow]:
    """Leaves of a window that were judged before, of what the ledger has of it now: another message than the one that they were judged for may have the same.
    Raises NotThatWindow, BadWindow for what does not hold."""
    made = []
    for raw in raws:
        asked = read(_leaf(raw))
        if asked.limit is None or asked.receipt is None:
            raise BadWindow("it is no traffic")
        made.append(_row(asked.leaf, raw, asked.limit, asked.receipt.bytes_acked))
    if sum(row.noz for row in made) != wanted.row.noz:
        raise BadWindow(f"its leaves have {sum(row.noz for row in made)} noz, the ledger moved {wanted.row.noz}")
    _check_totals(made, wanted)
    return made


def _of_another(limit: Any, wanted: Wanted) -> str | None:
    """Why a proposed window may not have a leaf with this limit, as the ledger's leases stand."""
    meta_node = node_of(limit.meta_node)
    if limit.action in (REPAIR, AUDIT):
        return None if meta_node == wanted.row.meta_node else "another meta node is responsible for this repair or audit"
    lease = (wanted.leases or {}).get(bytes(limit.lease_id))
    if lease is None:
        return "the window takes nothing from its lease"
    is_of_it = (lease.meta_node, lease.wallet, lease.fund) == (meta_node, wallet_of(limit.wallet), limit.fund) and limit.to_noz <= lease.given_noz
    return fault_of_limit(limit, lease, wanted.asked.get(lease.id)) if is_of_it else "its lease has another meta node, wallet or fund, or fewer noz"


def _leaf(raw: bytes) -> Any:
    try:
        leaf = Leaf.FromString(raw)
    except DecodeError:
        raise NotThatWindow(f"expected leaves, got {len(raw)} bytes that are none") from None
    if settlement.leaf_bytes(leaf) != raw:
        raise NotThatWindow("a leaf is not in canonical form")
    return leaf


def _row(leaf: Any, raw: bytes, limit: Any = None, acked_bytes: int = 0) -> LeafRow:
    once, beneficiary = settlement.identity(leaf), wallet_of(leaf.beneficiary)
    if once is None or beneficiary is None or max(leaf.noz, acked_bytes) > MAX_ENTRY_NOZ:
        raise BadWindow("a leaf pays no wallet, has no serial, or is for more than 2^63 - 1 noz")
    is_repair = limit is not None and limit.action in (REPAIR, AUDIT)
    lease = b"" if limit is None or is_repair else bytes(limit.lease_id)
    owner = bytes(limit.object_root) if is_repair else b""
    action = 0 if limit is None else int(limit.action)
    return LeafRow(
        once, State.SETTLED, beneficiary, leaf.fund, leaf.traffic_class, leaf.noz, acked_bytes, lease, owner, action, NEVER_MS, 0, 0, raw, ""
    )


def _check_totals(rows: Sequence[LeafRow], wanted: Wanted) -> None:
    """What the window took from leases and gave to wallets is what its leaves say."""
    if wanted.debits is None:
        return
    leases: Counter[bytes] = Counter()
    puts: Counter[bytes] = Counter()
    repairs: Counter[int] = Counter()
    credits: Counter[tuple[bytes, int, int]] = Counter()
    for row in rows:
        credits[row.beneficiary, row.fund, row.traffic_class] += row.noz
        if row.lease:
            leases[row.lease] += row.noz
            puts[row.lease] += row.noz if row.action == PUT else 0
        else:
            repairs[row.fund] += row.noz
    taken = {key: (noz, puts[key]) for key, noz in leases.items()}
    for what, got, has in (
        ("took from leases", taken, dict(wanted.debits)),
        ("took from repair funds", dict(repairs), dict(wanted.repairs)),
        ("gave to wallets", dict(credits), dict(wanted.credits)),
    ):
        if got != has:
            raise BadWindow(f"what the window {what} is not what its leaves say")


def _check_release(leaves: Sequence[Any]) -> None:
    """Each leaf is good by itself, and pays for what no other one does."""
    for leaf in leaves:
        fault = settlement.fault(leaf, "", lambda _: None) if leaf.WhichOneof("source") == "release" else "it is no release"
        if fault is not None:
            raise BadWindow(f"a leaf is bad: {fault}")
    if len({settlement.identity(leaf) for leaf in leaves}) != len(leaves):
        raise BadWindow("it pays one day of a share twice")
