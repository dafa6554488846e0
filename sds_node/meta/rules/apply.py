"""The ledger's one function: signed bytes, time, tables → result. Who sends is checked first, then the kind's rule.

    raw ─ form ─ chain id ─ active meta node ─ signature ─ until ─ nonce ─► rule ─► result bytes, or Refused and nothing changed

``rules(chain_id)`` gives what ``Ledger.open`` and ``BlockLedger.open`` want.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final

from modules.settlement.documents import signed_by_key
from sds_node.meta.ledger.core import Migration, Rules
from sds_node.meta.ledger.errors import Refused
from sds_node.meta.ledger.schema import MAX_INT63, Row
from sds_node.meta.ledger.tables import Tables
from sds_node.meta.rules import commit, epochs, leases, moves, nodes, observe, orders, releases, tick, windows
from sds_node.meta.rules.call import STATE_KEY, Call
from sds_node.meta.rules.refusals import (
    BAD_FORM,
    BAD_SIGNATURE,
    FOUNDING,
    OUT_OF_TIME,
    UNKNOWN_SENDER,
    USED_NONCE,
    WRONG_CHAIN,
    need,
    refuse,
    shown,
)
from sds_node.meta.rules.tables import DAY_MS, META, SCHEMA, SCHEMA_1, SCHEMA_2, SCHEMA_3, SCHEMA_4, SENT, STATE, VERSION, Meta, Sent
from sds_node.meta.rules.wire import OPERATION_DOMAIN, address, open_operation, whole

APPLICATION: Final = "stratos-storage"
MAX_UNTIL_S: Final = 3_600
NONCE_WINDOW: Final = 62
"""Operations of one meta node may arrive in another order than they were numbered in, within so many."""


def rules(chain_id: str) -> Rules:
    """What a ledger of the storage network of ``chain_id`` is. Its ledger id is the chain id too."""
    return Rules(APPLICATION, SCHEMA, partial(apply, chain_id), VERSION, _MIGRATIONS, refused=partial(refused, chain_id))


def _as_it_was(table: str, row: Row) -> Iterable[tuple[str, Row]]:
    """A migration that adds tables alone."""
    yield table, row


_MIGRATIONS: Final = {number: Migration(schema, _as_it_was) for number, schema in enumerate((SCHEMA_1, SCHEMA_2, SCHEMA_3, SCHEMA_4), 1)}


def apply(chain_id: str, raw: bytes, time_ms: int, tables: Tables) -> bytes:
    """Apply one operation. Raises Refused for everything that the rules do not allow, whatever the bytes are."""
    operation, body, signature = open_operation(raw)
    need(operation.chain_id == chain_id, WRONG_CHAIN, f"expected an operation on {chain_id}, got one on {operation.chain_id[:50]!a}")
    sender = address(operation.meta_node, "operation.meta_node")
    kind = operation.WhichOneof("kind")
    if kind is None:
        refuse(BAD_FORM, "operation: expected one of the kinds that this ledger knows, got none")
    is_founded = tables.get(STATE, STATE_KEY) is not None
    need(is_founded != (kind == "found"), FOUNDING, "the ledger is founded already" if is_founded else "the first operation founds the ledger")
    if kind == "found":
        observe.found(tables, chain_id, operation.found, time_ms)
    _admit(operation, body, signature, tables, time_ms)
    _count_bytes(tables, sender, len(raw), time_ms)
    call = Call(tables, chain_id, sender, operation.nonce, time_ms)
    return _RULES[kind](call, getattr(operation, kind)) or b""


def refused(chain_id: str, raw: bytes, time_ms: int, tables: Tables) -> None:
    """What a refused operation leaves. Its bytes are in the log, so they count for whoever signed it. It has used its nonce, if that was free and its time is
    now: nobody has it applied later, when the rules would not refuse it any more. Raises Refused for what no meta node has signed for this ledger."""
    operation, body, signature = open_operation(raw)
    need(operation.chain_id == chain_id and tables.get(STATE, STATE_KEY) is not None, WRONG_CHAIN, "no operation of this ledger")
    meta = tables.get(META, (address(operation.meta_node, "operation.meta_node"),))
    if meta is None or not meta.ledger_key:
        refuse(UNKNOWN_SENDER, f"{shown(operation.meta_node)} is no meta node with a ledger key")
    _need_signature(meta, body, signature)
    with contextlib.suppress(Refused):
        _use_nonce(tables, meta, operation, time_ms)
    _count_bytes(tables, meta.address, len(raw), time_ms)


def _count_bytes(tables: Tables, sender: bytes, size_bytes: int, time_ms: int) -> None:
    """Note what a sender has put into the log on this day of the ledger."""
    day, row = time_ms // DAY_MS, tables.get(SENT, (sender,))
    before_bytes = row.size_bytes if row is not None and row.day == day else 0
    tables.put(SENT, Sent(sender, day, min(before_bytes + size_bytes, MAX_INT63)))


def _admit(operation: Any, body: bytes, signature: bytes, tables: Tables, time_ms: int) -> None:
    """Who sends it, in time, under a nonce that is used from now on. Raises Refused."""
    sender = address(operation.meta_node, "operation.meta_node")
    meta = tables.get(META, (sender,))
    if meta is None or not meta.is_active or not meta.ledger_key:
        refuse(UNKNOWN_SENDER, f"{shown(sender)} is no active meta node with a ledger key")
    _need_signature(meta, body, signature)
    _use_nonce(tables, meta, operation, time_ms)


def _need_signature(meta: Meta, body: bytes, signature: bytes) -> None:
    is_signed = signed_by_key(OPERATION_DOMAIN, body, meta.ledger_key, signature)
    need(is_signed, BAD_SIGNATURE, f"meta node {shown(meta.address)} has not signed this operation")


def _use_nonce(tables: Tables, meta: Meta, operation: Any, time_ms: int) -> None:
    """Raises Refused for an operation out of time, and for a nonce that was used."""
    tables.put(META, used_by(meta, int(operation.nonce), int(operation.until_s), time_ms))


def used_by(meta: Meta, nonce: int, until_s: int, time_ms: int) -> Meta:
    """The meta node's row once an operation of it stands in the log at that time. Refuses one out of time, and one whose nonce was used."""
    now_s = time_ms // 1_000
    need(
        now_s <= until_s <= now_s + MAX_UNTIL_S,
        OUT_OF_TIME,
        f"an operation holds until now or at most {MAX_UNTIL_S} s later, got {until_s} while it is {now_s}: send it again",
    )
    return with_nonce(meta, whole(nonce, 1, MAX_INT63, "operation.nonce"))


def with_nonce(meta: Meta, nonce: int) -> Meta:
    """The meta node's row with this nonce used. Refuses one that was used, or is too far behind the highest."""
    ahead = nonce - meta.nonce
    mask = (1 << NONCE_WINDOW) - 1
    if ahead > 0:
        # The old highest one becomes bit ahead − 1.
        seen = (meta.nonces_seen << ahead | 1 << (ahead - 1)) & mask if ahead <= NONCE_WINDOW else 0
        return meta._replace(nonce=nonce, nonces_seen=seen)
    bit = 1 << (-ahead - 1) if ahead else 0
    is_free = 0 < -ahead <= NONCE_WINDOW and not meta.nonces_seen & bit
    need(is_free, USED_NONCE, f"nonce {nonce} was used, or is more than {NONCE_WINDOW} behind the highest, {meta.nonce}")
    return meta._replace(nonces_seen=meta.nonces_seen | bit)


def _founded(call: Call, message: Any) -> None:
    """Done before the sender was known."""


def _tick(call: Call, message: Any) -> bytes:
    return tick.tick(call)


_RULES: Final[dict[str, Callable[[Call, Any], bytes | None]]] = {
    "found": _founded,
    "observe": observe.observe,
    "take_lease": leases.take,
    "commit": commit.commit,
    "window": windows.window,
    "settle_leases": leases.settle,
    "release": releases.release,
    "node_statuses": nodes.statuses,
    "move": moves.move,
    "wallet_order": orders.wallet_order,
    "legacy_order": orders.legacy_order,
    "advance_sequence": orders.advance_sequence,
    "close_epoch": epochs.close,
    "tick": _tick,
}
