"""Events of a block or a transaction, in the order in which they happened."""

from __future__ import annotations

import json
from typing import TypeAlias

Attribute: TypeAlias = tuple[str, str]
Event: TypeAlias = tuple[str, tuple[Attribute, ...]]


class EventList:
    """Events so far. ``mark``/``rollback`` undo what a failed execution emitted, beside the state's own marks."""

    __slots__ = ("events",)

    def __init__(self) -> None:
        self.events: list[Event] = []

    def emit(self, event_type: str, *attributes: Attribute) -> None:
        """Append one event; attribute values are text in the form that clients see (no typing, no quoting added)."""
        self.events.append((event_type, attributes))

    def emit_typed(self, message: str, /, **values: str | int) -> None:
        """Append the original's typed event: its type is the message's full name, its attributes are sorted by name, and its values are JSON texts,
        quotes included (stratos-chain.md 1.9). Numbers are text in it, as 64-bit ones are in JSON.
        """
        self.emit(message, *((key, json.dumps(str(values[key]), ensure_ascii=False)) for key in sorted(values)))

    def mark(self) -> int:
        return len(self.events)

    def rollback(self, mark: int) -> None:
        del self.events[mark:]
