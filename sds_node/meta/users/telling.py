"""Nodes hear that their shares count: CONFIRM, once a commit is in the ledger, and again until it is noted for each of them.

    in the ledger ─► each node's copies ─► tell ─► told
                                            └ noted for some nodes, not for others ─► the others lag behind, by node ─► told again, each by itself

A node that takes nothing, so that no more is kept for it, holds up nobody else. Source: storage-protocol.md 3.4; docs/adr/0009.
"""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import Any

import structlog

from chain.codec.canonical import encode
from modules.settlement.leaves import SERIAL_BYTES
from sds_node import transfers
from sds_node.meta.ledger.engine import ReadView
from sds_node.meta.operations import AnyLedger
from sds_node.meta.rules.places import nodes_of
from sds_node.meta.rules.tables import GONE, MOVED, NODE, SEGMENT, Moved
from sds_node.meta.rules.tables import Segment as SegmentRow
from sds_node.meta.users.known import Tell
from sds_node.meta.users.roots import PAGE, ShareRoots

log = structlog.get_logger("users")

Copies = dict[int, list[tuple[int, Any]]]
"""Node → (segment's number, CopyKey) of what it keeps."""


class Telling:
    """Has nodes told which copies they keep for good; ``tell`` notes a message for a node and repeats it."""

    def __init__(self, ledger: AnyLedger, roots: ShareRoots, tell: Tell) -> None:
        self._ledger, self._roots, self._tell = ledger, roots, tell
        self._under_way: set[int] = set()

    def first(self, copies: Copies, numbers: Sequence[int]) -> Coroutine[Any, Any, None]:
        """Tell nodes of segments that have just come into the ledger. From this call on ``again`` leaves them alone until it is done."""
        self._under_way.update(numbers)
        return self._told(copies, numbers)

    async def _told(self, copies: Copies, numbers: Sequence[int]) -> None:
        """Have nodes told to keep these copies for good. Which were is noted, and for which of the segments the others lag behind."""
        try:
            lagging: list[tuple[int, int]] = []
            for node in sorted(copies):
                left = await self._tell_node(node, copies[node])
                lagging.extend((node, number) for number in {number for number, _ in left})
            await self._roots.told(numbers, lagging)
        except Exception as error:
            log.warning("which nodes are told that their shares count is not noted; it is tried again", segments=len(numbers), why=str(error))
        finally:
            self._under_way.difference_update(numbers)

    async def _tell_node(self, node: int, copies: Sequence[tuple[int, Any]]) -> Sequence[tuple[int, Any]]:
        """Tell one node. Those of its copies of which it could not be told."""
        for at in range(0, len(copies), transfers.MAX_COPIES_ASKED):
            body = encode(transfers.CopyList(copies=[key for _, key in copies[at : at + transfers.MAX_COPIES_ASKED]]))
            try:
                await self._tell(node, transfers.CONFIRM, body)
            except Exception as error:
                log.warning("a node is not told now that its shares count; it is tried again", node=node, shares=len(copies) - at, why=str(error))
                return copies[at:]
        return ()

    async def again(self) -> int:
        """Tell nodes of segments that are in the ledger and of which they may not know. How many segments nobody had been told of, and how many copies nodes
        lagged behind with and know of now.
        """
        after, count = -1, 0
        while numbers := await self._roots.untold(after):
            after = numbers[-1]
            wanted = [one for one in numbers if one not in self._under_way]
            await self._told(await self._copies(wanted), wanted)
            count += len(wanted)
        for node in await self._roots.lagging_nodes():
            count += await self._catch_up(node)
        return count

    async def _catch_up(self, node: int) -> int:
        """Tell a node what it lags behind with, until it is told all or takes no more. Of how many segments it was told."""
        count = 0
        while numbers := await self._roots.lagging(node):
            copies = (await self._copies(numbers)).get(node, ())
            left = {number for number, _ in await self._tell_node(node, copies)}
            done = [number for number in numbers if number not in left]
            await self._roots.caught_up(node, done)
            count += len(done)
            if left or len(numbers) < PAGE:
                break
        return count

    async def _copies(self, numbers: Sequence[int]) -> Copies:
        """Copies of segments by node, as the ledger has them; nodes that are gone are told nothing."""

        def look(view: ReadView) -> tuple[list[tuple[SegmentRow, list[Moved]]], set[int]]:
            rows = [row for one in numbers if (row := view.get(SEGMENT, (one,))) is not None]
            nodes = {node: view.get(NODE, (node,)) for node in {node for row in rows for node in nodes_of(row.nodes) if node}}
            there = {number for number, node in nodes.items() if node is not None and node.standing != GONE}
            return [(row, view.scan(MOVED, (row.number,), limit=len(row.nodes))) for row in rows], there

        rows, there = await self._ledger.query(look)
        roots = await self._roots.of([row for row, _ in rows])
        copies: Copies = {}
        for row, moved in rows:
            own = {one.share: one.serial for one in moved}
            first = int.from_bytes(row.first_serial, "big")
            for index, node in enumerate(nodes_of(row.nodes)):
                if node in there and row.number in roots:
                    serial = own.get(index) or (first + index).to_bytes(SERIAL_BYTES, "big")
                    copies.setdefault(node, []).append((row.number, transfers.CopyKey(share_root=roots[row.number][index], serial=serial)))
        return copies
