"""Is this ledger what its log says? Applies the log again from its base and compares every hash, result and row.

base: nothing, or an export taken where the log begins ──► scratch ledger (a SQLite file)
log entry ─► apply on the scratch ─► same code, result, reason, app hash, log hash?  … at the end: same rows, table by table
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final

from sds_node.meta.ledger.core import Core, Rules, check_columns, walk
from sds_node.meta.ledger.engine import ReadView
from sds_node.meta.ledger.errors import BadValue, Damaged
from sds_node.meta.ledger.log import OWN, Entry, Head, check_chain, entries, first_head
from sds_node.meta.ledger.schema import Row, Table
from sds_node.meta.ledger.sql import Session, open_store
from sds_node.meta.ledger.transfer import import_into, settled

_PART: Final = 500


@dataclass(frozen=True, slots=True)
class Verified:
    """What was compared: operations applied again, rows of all tables."""

    operations: int
    rows: int
    head: Head


def check_log(view: ReadView) -> int:
    """Follow the log's own hashes from its base to the head, without applying anything; ask the database for damage it knows of. How many entries there
    are. Raises Damaged."""
    head = view.head
    if found := view.session.damage():
        raise Damaged(f"the database is damaged ({'; '.join(found)[:500]}): restore a backup, or import an export")
    log_hash, app_hash, time_ms = head.base_log_hash, head.base_app_hash, head.base_time_ms
    for entry in entries(view.session, head.base_sequence, head.sequence):
        check_chain(entry, log_hash)
        if entry.time_ms < time_ms:
            raise Damaged(f"entry {entry.sequence} of the log is earlier than the one before it: restore a backup, or import an export")
        log_hash, app_hash, time_ms = entry.log_hash, entry.app_hash, entry.time_ms
    if (log_hash, app_hash, time_ms) != (head.log_hash, head.app_hash, head.time_ms):
        raise Damaged("the log does not lead to the ledger's head: restore a backup, or import an export")
    return head.sequence - head.base_sequence


def verify(view: ReadView, rules: Rules, scratch: Path, base: Callable[[int], bytes] | None = None) -> Verified:
    """Apply the view's log again in ``scratch``, a file that does not exist yet and that the caller removes, from ``base``: an export's ``read``, needed
    when the log does not begin at the first operation. Raises Damaged where the ledger differs, BadValue if a base is missing or does not fit."""
    head = view.head
    check_columns(view.session.tables(), (*OWN, *rules.schema.tables), "the ledger")
    check_log(view)
    store = open_store(f"sqlite:///{scratch}")
    first = first_head(head.ledger_id, rules.application, rules.schema_version, rules.schema.digest)
    if base is not None:
        imported, _ = import_into(store, rules, head.ledger_id, base)
        if (imported.sequence, imported.app_hash, imported.carry) != (head.base_sequence, head.base_app_hash, head.base_carry):
            raise BadValue(
                f"the base stands at operation {imported.sequence}, the log begins after {head.base_sequence}: give the export taken there"
            )
    elif head.base_sequence or head.base_app_hash != first.base_app_hash or head.base_carry:
        raise BadValue(f"the log begins after operation {head.base_sequence}: give an export taken there as base")
    core = Core.open(store, rules, head.ledger_id)
    try:
        for part in _parts(entries(view.session, head.base_sequence, head.sequence)):
            _apply_again(core, part)
        if settled(core.head)._replace(height=head.height) != settled(head):
            raise Damaged("the log, applied again, does not lead to the ledger's head")
        rows = sum(_compare(view.session, core.session, table) for table in rules.schema.tables)
    finally:
        core.close()
    return Verified(head.sequence - head.base_sequence, rows, head)


def _parts(log: Iterator[Entry]) -> Iterator[list[Entry]]:
    """Entries of one time, at most so many at once."""
    part: list[Entry] = []
    for entry in log:
        if part and (entry.time_ms != part[0].time_ms or len(part) == _PART):
            yield part
            part = []
        part.append(entry)
    if part:
        yield part


def _apply_again(core: Core, part: list[Entry]) -> None:
    core.begin(part[0].time_ms)
    for entry in part:
        result = core.apply(entry.operation)
        for what, was, now in (
            ("code", entry.code, result.code),
            ("result", entry.result, result.result),
            ("reason", entry.reason, result.reason),
            ("app hash", entry.app_hash.hex(), result.app_hash.hex()),
        ):
            if was != now:
                raise Damaged(f"operation {entry.sequence}, applied again, has the {what} {now!r:.200}; the log says {was!r:.200}")
    core.write()
    core.commit()


def _compare(session: Session, scratch: Session, table: Table[Any]) -> int:
    """Compare a table's rows; how many there are."""
    count = 0
    nothing: Row | None = None
    for has, wants in zip_longest(walk(session, table), walk(scratch, table), fillvalue=nothing):
        if has != wants:
            there = None if has is None else table.key_of(has)
            wanted = None if wants is None else table.key_of(wants)
            place, told = wanted, "is missing"
            if there is not None and there == wanted:
                told = "is not what the log makes"
            elif there is not None and (wanted is None or there < wanted):
                place, told = there, "is one too many"
            raise Damaged(f"table {table.name}: the row at {place!r:.200} {told}: restore a backup, or import an export")
        count += 1
    return count
