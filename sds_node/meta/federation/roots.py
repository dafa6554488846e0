"""Share roots as other meta nodes tell them: whom to ask, and what of an answer counts.

    segments ─ meta.roots ─► who served last, then the others ─► what lies under the segments' own roots        a lie, no answer ─► not asked for a while

Source: docs/adr/0010 (share roots are with several before a commit is proposed).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

import structlog

from chain.codec.canonical import encode
from sds_node import asking, p2p
from sds_node.meta.federation.peers import Peers
from sds_node.meta.rules import tables
from sds_node.meta.users.roots import HASH_BYTES, checked
from sds_node.transfers import parsed
from sds_node.wire import errors as wire_errors
from sds_node.wire.node import describe

log = structlog.get_logger("metas")

ROW_BYTES: Final = 64
"""What an answer has beside the roots, for each segment."""


class RootsOfOthers:
    """Asks the others of ``peers``; each within ``timeout_s``, one that lied or did not answer not sooner than ``failed_s`` later, by the loop's time."""

    def __init__(self, peers: Peers, *, timeout_s: float, failed_s: float) -> None:
        self._peers, self._timeout_s, self._failed_s = peers, timeout_s, failed_s
        self._failed: dict[bytes, float] = {}
        self._served = b""

    def in_order(self) -> list[bytes]:
        """Others that are there: who served last, then the others, those that failed lately left out."""
        now_s = asyncio.get_running_loop().time()
        there = [one for one in self._peers.others_online() if self._failed.get(one, 0.0) <= now_s]
        return sorted(there, key=lambda one: one != self._served)

    async def ask(self, address: bytes, rows: Sequence[tables.Segment]) -> dict[int, list[bytes]]:
        """By number, the share roots of some of these segments, as a meta node tells them, checked. Raises nothing."""
        body = encode(asking.SegmentList(segments=[row.number for row in rows]))
        most_bytes = sum(len(row.nodes) // tables.NODE_BYTES * HASH_BYTES + ROW_BYTES for row in rows)
        try:
            raw = await self._peers.ask(address, asking.META_ROOTS, body=body, most_bytes=most_bytes, timeout_s=self._timeout_s)
            found, lies = await asyncio.to_thread(_believed, parsed(asking.SegmentShareRootsList, raw), {row.number: row for row in rows})
        except wire_errors.WireError as error:
            self._fails(address, describe(error))
            return {}
        if lies:
            self._fails(address, f"what it tells of {lies} segments is not under their roots")
        elif found:
            self._served = address
        return found

    def _fails(self, address: bytes, why: str) -> None:
        self._failed[address] = asyncio.get_running_loop().time() + self._failed_s
        log.warning("a meta node does not tell share roots", node=p2p.format_address(address), why=why)


def _believed(told: Any, wanted: Mapping[int, tables.Segment]) -> tuple[dict[int, list[bytes]], int]:
    """(what lies under the roots of the segments that were asked for, how much does not)."""
    found: dict[int, list[bytes]] = {}
    lies = 0
    for one in told.segments:
        row = wanted.get(one.segment)
        roots = checked(row, bytes(one.roots)) if row is not None else None
        if roots is None:
            lies += 1
        else:
            found[one.segment] = roots
    return found, lies
