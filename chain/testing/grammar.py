"""Checks that a sequence of ABCI calls is one that CometBFT 0.38 may make (its specification's grammar of expected behaviour).

    start       = [info] init-chain [state-sync] heights  |  state-sync heights  |  info heights
    state-sync  = 1*(offer-snapshot *apply-chunk), the last with a chunk, then info
    height      = *(prepare-proposal | process-proposal | extend-vote | verify-vote-extension) finalize-block commit

The rounds of a height add nothing to its third line: every single call of it is a round by itself. What the prose adds is checked where
calls carry heights and hashes: all calls of a height name that height, heights follow each other, the first is the initial height, and
ExtendVote names a block that ProcessProposal was asked about. Two facts go beyond the text: after a crash before the first commit Info
comes before InitChain, and a node that state-syncs is not told InitChain at all (CometBFT v0.38.25, ``node/node.go``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

FREE: Final = frozenset({"echo", "flush", "query", "check_tx", "list_snapshots", "load_snapshot_chunk"})
"""Allowed at any time."""
ROUND: Final = frozenset({"prepare_proposal", "process_proposal", "extend_vote", "verify_vote_extension"})
_PAST_START: Final = "expected only at the start of a node"


class GrammarError(AssertionError):
    """``position`` is the index of the call that may not come here."""

    def __init__(self, position: int, call: Call, why: str) -> None:
        super().__init__(f"call {position} ({call}): {why}")
        self.position = position


@dataclass(frozen=True, slots=True)
class Call:
    """One request. ``height`` is 0 and ``hash`` empty where the request has none; InitChain's height is the initial height."""

    kind: str
    height: int = 0
    hash: bytes = b""

    def __str__(self) -> str:
        return f"{self.kind} at height {self.height}" if self.height else self.kind


@dataclass(frozen=True, slots=True)
class Run:
    """What a checked sequence was: ``start`` is ``clean``, ``state sync``, ``recovery`` or ``nothing``; heights that were committed."""

    start: str
    committed: int
    replayed: int
    """Heights without any round: decided before."""


def check(calls: Sequence[Call]) -> Run:
    """From one start of CometBFT until it ends, wherever that is. Raises GrammarError."""
    checker = Checker()
    for call in calls:
        checker.add(call)
    return checker.run()


class Checker:
    """Takes one call at a time."""

    def __init__(self) -> None:
        self._state = "start"
        self._start = "nothing"
        self._position = -1
        self._infos = 0
        self._chunks = 0
        self._verified = False
        self._height = 0
        self._processed: list[bytes] = []
        self._rounds = 0
        self._committed = 0
        self._replayed = 0

    def run(self) -> Run:
        return Run(self._start, self._committed, self._replayed)

    def add(self, call: Call) -> None:
        """Raises GrammarError."""
        self._position += 1
        if call.kind in FREE:
            return
        if call.kind == "info":
            self._infos += 1
            self._verified = self._verified or (self._state == "sync" and self._chunks > 0)
            return
        {"start": self._at_start, "initialised": self._after_init, "sync": self._in_sync, "height": self._in_height, "decided": self._after_decision}[
            self._state
        ](call)

    def _at_start(self, call: Call) -> None:
        if call.kind == "init_chain":
            self._start, self._state, self._height = "clean", "initialised", call.height
        elif call.kind == "offer_snapshot":
            self._start = "state sync"
            self._offer()
        elif not self._infos:
            self._refuse(call, "a node starts with InitChain, OfferSnapshot or, when it recovers, Info")
        else:
            self._start, self._state = "recovery", "height"
            self._in_height(call)

    def _after_init(self, call: Call) -> None:
        if call.kind == "offer_snapshot":
            self._height = 0
            self._offer()
        else:
            self._state = "height"
            self._in_height(call)

    def _offer(self) -> None:
        self._state, self._chunks, self._verified = "sync", 0, False

    def _in_sync(self, call: Call) -> None:
        if call.kind == "offer_snapshot":
            self._offer()
        elif call.kind == "apply_snapshot_chunk":
            self._chunks, self._verified = self._chunks + 1, False
        elif not self._chunks:
            self._refuse(call, "the last offered snapshot was not restored: expected ApplySnapshotChunk")
        elif not self._verified:
            self._refuse(call, "after the last chunk Info has to show the restored state")
        else:
            self._state = "height"
            self._in_height(call)

    def _in_height(self, call: Call) -> None:
        if call.kind in ("init_chain", "offer_snapshot", "apply_snapshot_chunk"):
            self._refuse(call, _PAST_START)
        if call.kind == "commit":
            self._refuse(call, "Commit without FinalizeBlock before it")
        self._same_height(call)
        if call.kind == "process_proposal":
            self._processed.append(call.hash)
        if call.kind == "extend_vote" and call.hash and call.hash not in self._processed:
            self._refuse(call, "ExtendVote for a block that ProcessProposal was not asked about")
        if call.kind == "finalize_block":
            self._state = "decided"
        elif call.kind in ROUND:
            self._rounds += 1
        else:
            self._refuse(call, "no such call")

    def _same_height(self, call: Call) -> None:
        if call.height and self._height and call.height != self._height:
            self._refuse(call, f"this is height {self._height}")
        self._height = self._height or call.height

    def _after_decision(self, call: Call) -> None:
        if call.kind != "commit":
            self._refuse(call, "after FinalizeBlock comes Commit")
        self._committed += 1
        self._replayed += not self._rounds
        self._state, self._rounds = "height", 0
        self._processed.clear()
        self._height += bool(self._height)

    def _refuse(self, call: Call, why: str) -> None:
        raise GrammarError(self._position, call, why)
