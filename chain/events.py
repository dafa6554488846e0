"""Events of a block or a transaction, in the order in which they happened."""

from __future__ import annotations

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

    def mark(self) -> int:
        return len(self.events)

    def rollback(self, mark: int) -> None:
        del self.events[mark:]
