"""File records, the trash, renewal; and orders of wallets about them.

    commit ─► file ─ delete, or a new version ─► trash ─ its end ─► the object ends
                ▲                                   └─ restore ─┐
                └───────────────────────────────────────────────┘

Source: storage-protocol.md 3.6, 3.7 and 5; ADR 8.
"""

from __future__ import annotations

from typing import Any, Final

from sds_node.hashes import is_hash
from sds_node.meta.ledger.errors import BadValue, Refused
from sds_node.meta.ledger.tables import Tables
from sds_node.meta.rules.call import Call, state_of
from sds_node.meta.rules.money import mean_end, take_out, wallet_of
from sds_node.meta.rules.objects import MAX_DAYS, due, end, keep, note_common
from sds_node.meta.rules.refusals import BAD_FORM, TAKEN, TOO_MANY, UNKNOWN_FILE, WRONG_STATE, need, refuse, shown
from sds_node.meta.rules.tables import (
    DAY_MS,
    FILE,
    GRACE,
    KEPT,
    MAX_NAME_BYTES,
    MAX_WRAPPED_BYTES,
    OBJECT,
    PROMO,
    TRASH,
    TRASHED,
    WALLET,
    File,
    Object,
    Trash,
)
from sds_node.meta.rules.wire import MAX_FILES, ascending, at_most, identity, listed

MAX_FILES_OF_WALLET: Final = 1_000_000
"""In use and in the trash: an empty file costs nothing, so their number is bounded."""
SAME_HASH: Final = 1_000
"""So many objects of one wallet with the same content are looked at for a legacy client."""


def check_record(record: Any) -> None:
    """The form of a FileRecord."""
    identity(record.lookup_id, "file.lookup_id")
    at_most(record.name, MAX_NAME_BYTES, "file.name")
    at_most(record.wrapped_key, MAX_WRAPPED_BYTES, "file.wrapped_key")


def put_file(tables: Tables, row: Object, record: Any, time_ms: int) -> None:
    """The record of an object that is complete. One of the same lookup id is an older version, which goes to the trash."""
    check_record(record)
    older = tables.get(FILE, (row.payer, record.lookup_id))
    if older is not None:
        to_trash(tables, older, time_ms)
    _count(tables, row.payer, 1, 0)
    made_ms = older.made_ms if older is not None else time_ms
    tables.put(FILE, File(row.payer, record.lookup_id, row.id, record.name, record.wrapped_key, record.is_public, made_ms, time_ms))


def _count(tables: Tables, wallet: bytes, files: int, trash: int) -> None:
    row = wallet_of(tables, wallet)
    is_more = files + trash > 0
    need(
        not is_more or row.files + row.trash < MAX_FILES_OF_WALLET,
        TOO_MANY,
        f"wallet {shown(wallet)} has {row.files} files and {row.trash} in the trash, at most {MAX_FILES_OF_WALLET} together",
    )
    tables.put(WALLET, row._replace(files=row.files + files, trash=row.trash + trash))


def object_of(tables: Tables, key: bytes) -> Object:
    """The object that a record names."""
    row = tables.get(OBJECT, (key,))
    if row is None:
        raise BadValue(f"a record names object {key.hex()}, which there is not")
    return row


def file_of(tables: Tables, wallet: bytes, lookup_id: bytes) -> File:
    """A wallet's file. Refuses an id under which there is none."""
    row = tables.get(FILE, (wallet, identity(lookup_id, "lookup_id")))
    if row is None:
        refuse(UNKNOWN_FILE, f"wallet {shown(wallet)} has no file {shown(lookup_id)}")
    return row


def is_folder(row: Object, file: File) -> bool:
    """Whether a record is a folder's: an encrypted file has more bytes than none."""
    return not row.size_bytes and not file.is_public


def file_by_hash(tables: Tables, wallet: bytes, file_hash: str) -> list[File]:
    """A wallet's files with this content, as the original's clients name it. Refuses a hash of which it has none. Its folders are none: their clients know
    nothing of them, and a folder has the content of an empty file."""
    need(is_hash(file_hash), BAD_FORM, f"expected a file hash of 40 characters, got {file_hash[:60]!a}")
    rows = tables.scan(OBJECT, (wallet, file_hash), index="by_hash", limit=SAME_HASH)
    found = [(row, tables.get(FILE, (wallet, row.lookup_id))) for row in rows if row.state in (KEPT, GRACE)]
    files = [one for row, one in found if one is not None and not is_folder(row, one)]
    need(bool(files), UNKNOWN_FILE, f"wallet {shown(wallet)} has no file {file_hash}")
    return files


def to_trash(tables: Tables, file: File, time_ms: int) -> None:
    """A file → the trash, for the governed days."""
    row = object_of(tables, file.object)
    tables.delete(FILE, (file.wallet, file.lookup_id))
    tables.put(TRASH, Trash(file.wallet, file.object, file.lookup_id, file.name, file.wrapped_key, file.is_public, file.made_ms))
    _count(tables, file.wallet, -1, 1)
    due(tables, row, TRASHED, time_ms + state_of(tables).trash_days * DAY_MS)


def delete(call: Call, wallet: bytes, message: Any) -> None:
    """DeleteFiles of a wallet."""
    ascending(listed(message.lookup_ids, MAX_FILES, "delete.lookup_ids"), "delete.lookup_ids")
    for lookup_id in message.lookup_ids:
        to_trash(call.tables, file_of(call.tables, wallet, lookup_id), call.time_ms)


def restore(call: Call, wallet: bytes, message: Any) -> None:
    """RestoreFiles of a wallet: out of the trash, to where they were."""
    tables = call.tables
    ascending(listed(message.object_ids, MAX_FILES, "restore.object_ids"), "restore.object_ids")
    for key in message.object_ids:
        old = tables.get(TRASH, (wallet, identity(key, "restore.object_ids")))
        if old is None:
            refuse(UNKNOWN_FILE, f"wallet {shown(wallet)} has no object {shown(key)} in the trash")
        row = object_of(tables, key)
        need(call.time_ms < row.due_ms, WRONG_STATE, f"object {shown(key)} was in the trash until {row.due_ms} ms: its time is over")
        need(tables.get(FILE, (wallet, old.lookup_id)) is None, TAKEN, f"another file is at {shown(old.lookup_id)}: rename it first")
        tables.delete(TRASH, (wallet, key))
        _count(tables, wallet, 1, -1)
        tables.put(FILE, File(wallet, old.lookup_id, key, old.name, old.wrapped_key, old.is_public, old.made_ms, call.time_ms))
        keep(tables, row, call.time_ms)


def rename(call: Call, wallet: bytes, message: Any) -> None:
    """RenameFile of a wallet: a new record for the same object, at the same place or another that is free."""
    tables = call.tables
    check_record(message.file)
    row = file_of(tables, wallet, message.lookup_id)
    new = message.file
    if new.lookup_id != row.lookup_id:
        need(tables.get(FILE, (wallet, new.lookup_id)) is None, TAKEN, f"another file is at {shown(new.lookup_id)}: rename it first")
        tables.delete(FILE, (wallet, row.lookup_id))
        tables.put(OBJECT, object_of(tables, row.object)._replace(lookup_id=new.lookup_id))
    tables.put(FILE, File(wallet, new.lookup_id, row.object, new.name, new.wrapped_key, new.is_public, row.made_ms, call.time_ms))


def renew(call: Call, wallet: bytes, message: Any) -> None:
    """RenewFiles of a wallet: one more term for each, out of the balance that the object was paid from."""
    ascending(listed(message.lookup_ids, MAX_FILES, "renew.lookup_ids"), "renew.lookup_ids")
    for lookup_id in message.lookup_ids:
        file = file_of(call.tables, wallet, lookup_id)
        renew_object(call.tables, object_of(call.tables, file.object), call.time_ms)


def renew_object(tables: Tables, row: Object, time_ms: int) -> None:
    """wallet → escrow for one more term. Refuses an object that would have too many, and a wallet that has too little."""
    days = (row.terms + 1) * row.term_days
    need(days <= MAX_DAYS, TOO_MANY, f"an object's terms have at most {MAX_DAYS} days together, one more makes {days}: store the file anew")
    ends_ms = take_out(tables, row.payer, row.fund, row.term_noz, time_ms)
    if row.fund == PROMO:
        ends_ms = mean_end([(row.promo_ends_ms, row.escrow_noz + row.repair_noz), (ends_ms, row.term_noz)])
    note_common(tables, row, 0, row.term_noz)
    row = row._replace(terms=row.terms + 1, escrow_noz=row.escrow_noz + row.term_noz, promo_ends_ms=ends_ms)
    keep(tables, row, time_ms)


# --- what time does ---------------------------------------------------------------------------------------------------


def term_ended(tables: Tables, row: Object, time_ms: int) -> int:
    """Renewed from the balance, or in grace. Gives how many rows were written in vain: they count as an operation's, too."""
    mark = tables.mark()
    try:
        renew_object(tables, row, time_ms)
    except Refused:
        written = tables.mark() - mark
        tables.rollback(mark)
        keep(tables, row, time_ms)
        return written
    return 0


def grace_ended(tables: Tables, row: Object, time_ms: int) -> None:
    """Nobody renewed it: the file and its object end."""
    tables.delete(FILE, (row.payer, row.lookup_id))
    _count(tables, row.payer, -1, 0)
    end(tables, row, time_ms)


def trash_ended(tables: Tables, row: Object, time_ms: int) -> None:
    """Nobody restored it: the object ends."""
    tables.delete(TRASH, (row.payer, row.id))
    _count(tables, row.payer, 0, -1)
    end(tables, row, time_ms)
