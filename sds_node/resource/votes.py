"""Deletions of confirmed copies that active meta nodes have asked for: one of them alone cannot have shares deleted.

    DROP by meta node A ─┐
    DROP by meta node B ─┴─► so many different ones within 15 days as sign a lease (lease_quorum) ─► trash

With up to three meta nodes that is one. The meta node that moved a share asks at once; each of them asks for what its ledger does not know when it compares
what a node has, once a week: so the others' word comes within that. What was asked for is in memory: after a restart it is asked for again. A copy that was
replaced or whose object ended never counts again, so an old word is as good as a new one. Source: storage-protocol.md 1 and 3.4.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable
from typing import Final, TypeAlias

from sds_node.documents import lease_quorum

VOTE_S: Final = 15 * 86_400
"""Twice as long as it takes until each meta node has compared a node's copies with its ledger (``compare_s``), and a day."""
MAX_VOTES: Final = 50_000
"""Of one meta node; the oldest go first, so nobody pushes out what another one asked for."""

Key: TypeAlias = tuple[bytes, bytes]


class Votes:
    """Who has asked for the deletion of which copies (share's root, serial). Not safe for several threads at once."""

    def __init__(self) -> None:
        self._asked: dict[bytes, OrderedDict[Key, int]] = {}

    def cast(self, meta_node: bytes, copies: Iterable[Key], active: Collection[bytes], now_s: int) -> list[Key]:
        """An active meta node (its address) asks for the deletion of copies → those for which enough of ``active`` have asked. These are forgotten."""
        for gone in self._asked.keys() - set(active):
            del self._asked[gone]
        own = self._asked.setdefault(meta_node, OrderedDict())
        needed, decided = lease_quorum(len(active)), []
        for key in copies:
            own[key] = now_s
            own.move_to_end(key)
            if sum(1 for asked in self._asked.values() if now_s - asked.get(key, now_s - VOTE_S - 1) <= VOTE_S) >= needed:
                decided.append(key)
                for asked in self._asked.values():
                    asked.pop(key, None)
        while own and (len(own) > MAX_VOTES or next(iter(own.values())) < now_s - VOTE_S):
            own.popitem(last=False)
        return decided
