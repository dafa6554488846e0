"""What a rule gets beside its message: who sends it, when, and the tables; and the one row of state."""

from __future__ import annotations

from dataclasses import dataclass

from sds_node.meta.ledger.errors import BadValue
from sds_node.meta.ledger.tables import Tables, View
from sds_node.meta.rules.tables import QUEUE, STATE, Queue, State

STATE_KEY = (1,)


@dataclass(frozen=True, slots=True)
class Call:
    """One operation being applied."""

    tables: Tables
    chain_id: str
    meta_node: bytes
    """Who sends it: an active meta node, whose signature holds."""
    nonce: int
    time_ms: int


def state_of(view: View) -> State:
    """The row of state of a ledger that was founded."""
    row = view.get(STATE, STATE_KEY)
    if row is None:
        raise BadValue("the ledger has no state: found it first")
    return row


def change_state(tables: Tables, **changes: object) -> State:
    """Write some columns of the state."""
    row = state_of(tables)._replace(**changes)  # type: ignore[arg-type]
    tables.put(STATE, row)
    return row


def enqueue(tables: Tables, at_ms: int, kind: int, key: bytes) -> None:
    """Something is due at a time."""
    tables.put(QUEUE, Queue(at_ms, kind, key))


def dequeue(tables: Tables, at_ms: int, kind: int, key: bytes) -> None:
    """It is not due any more."""
    tables.delete(QUEUE, (at_ms, kind, key))
