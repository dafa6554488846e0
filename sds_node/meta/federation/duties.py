"""Duties: who of the meta nodes that are there does a thing which one of them has to do.

    duty (kind ‖ key) ─ SHA-256(duty ‖ meta node) for each that is online ─► order ─► the first has it; of some duties the others step in, later each

All compute the same from the same greetings. For a moment two may see different ones online, and both or nobody do a thing:

    node     ledger is told of it         the same status twice; a node's score is told by its holder alone, and what others noted of it is dropped
    node     audit                        a release settles the days since the last one: none is paid twice; one more audit may cost or bring score
    object   repair                       the ledger takes one move of a share: the second copy is dropped, and its carriage was paid in vain
    height   observation                  the ledger takes one of a height, whoever is first
    tick     what is due in the ledger    the second finds nothing due
    upload   a public file is reported    the chain is asked first, and keeps one record of a file, whoever reported it

Duties of resource nodes pass on once a week, each node's at a time of its own: what one meta node keeps silent about, the next one's audits find. They go by the
number that the ledger gave a node, not by its key, which its owner could choose so that the auditors that he likes have it for long.

Whose ledger is behind has no duties of its own until it has caught up, though others leave them to it: by what it knows, nodes would be told to drop shares
that were moved to them since.

Source: docs/adr/0010 (who does what).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from hashlib import sha256
from typing import Final

from sds_node.meta.operations import AnyLedger

NODE: Final = b"node"
"""Followed by a resource node's number and whose turn it is (``of_node``): statuses, audits, comparisons."""
TURN_DAYS: Final = 7
"""A node's duties are one meta node's for so many days of audits."""
_TURN: Final = b"stratos/duty-turn/v1\0"
OBJECT: Final = b"object"
"""Followed by an object's id: repair."""
LEASE: Final = b"lease"
"""Followed by a lease's id: its receipts, once the meta node that holds it is gone."""
HEIGHT: Final = b"height"
"""Followed by 8 bytes: the observation that begins at a height of the value chain."""
TICK: Final = b"tick"
UPLOAD: Final = b"upload"
"""Followed by a file's hash as text: that the chain is told of a public file."""
CURRENT_S: Final = 300
"""A ledger whose last operation is older is behind."""


def is_current(ledger: AnyLedger, clock: Callable[[], float]) -> Callable[[], bool]:
    """``is_able`` of a meta node among several: its ledger has an operation of the last minutes. A quiet one has a tick each minute; one that catches up, or is
    cut off from the others, has not. ``clock`` tells Unix seconds."""
    return lambda: clock() - ledger.head.time_ms / 1_000 <= CURRENT_S


def of_node(number: int, turn_s: int, now_s: float) -> bytes:
    """The duty of a resource node at a time. It is another one every ``turn_s`` seconds, at times drawn for the node, so that not all pass on at once."""
    key = number.to_bytes(4, "big")
    after_s = int.from_bytes(sha256(_TURN + key).digest()[:8], "big") % turn_s
    return NODE + key + ((int(now_s) + after_s) // turn_s).to_bytes(8, "big")


class Duties:
    """Of the meta node at ``own`` (20 bytes). ``online`` gives the addresses of the meta nodes that are there, its own among them or not; ``is_able`` says
    whether this one may do anything now (``is_current``)."""

    def __init__(self, own: bytes, online: Callable[[], Iterable[bytes]], is_able: Callable[[], bool] = lambda: True) -> None:
        self._own, self._online, self._is_able = own, online, is_able

    def order(self, duty: bytes) -> list[bytes]:
        """All that are there: the first has the duty, the others come after it."""
        return sorted({self._own, *self._online()}, key=lambda address: sha256(duty + address).digest())

    def first(self, duty: bytes) -> bytes:
        """Whose duty it is."""
        return min({self._own, *self._online()}, key=lambda address: sha256(duty + address).digest())

    def has(self, duty: bytes) -> bool:
        """Whether it is this meta node's duty; always, while it is alone, and able."""
        return self._is_able() and self.first(duty) == self._own

    def place(self, duty: bytes) -> int:
        """How many come before this meta node, 0 for its own duties."""
        return self.order(duty).index(self._own)

    def is_able(self) -> bool:
        """Whether this meta node may do anything now."""
        return self._is_able()

    def of(self, kind: bytes) -> Callable[[bytes], bool]:
        """Of duties of a kind, which of them this meta node has, by their keys: ``of(OBJECT)`` takes an object's id."""
        return lambda key: self.has(kind + key)

    def of_nodes(self, turn_s: int, clock: Callable[[], float]) -> Callable[[int], bool]:
        """Of which resource nodes, by their numbers, this meta node has the duties now; for ``turn_s`` seconds of ``clock`` each."""
        return lambda number: self.has(of_node(number, turn_s, clock()))

    def height_place(self, height: int) -> int:
        """``place`` of the observation that begins at a height."""
        return self.place(HEIGHT + height.to_bytes(8, "big"))

    def tick_place(self) -> int:
        """``place`` of the tick."""
        return self.place(TICK)

    def upload_place(self, file_hash: str) -> int:
        """``place`` of the report of a public file."""
        return self.place(UPLOAD + file_hash.encode())
