"""A stream that comes in stretches, each from its own beginning and several at once: its units come out whole, once, in any order.

    stretch of share 0 ─┐
    stretch of share 1 ─┼─► Arrivals ─► (offset, unit): frames of a private file, a MiB of a public one
    stretch of share 2 ─┘                  └─ a unit that lies across two stretches is joined when both have come so far

Memory of a stretch is held until all units that it has a part of came out.
"""

from __future__ import annotations

from sds_node.client.transfer import Stretch
from sds_node.merkle import Buffer


class Arrivals:
    """The bytes from ``start`` to ``stop`` of a stream whose units begin at multiples of ``unit_bytes``; the first and the last may be cut off."""

    def __init__(self, start: int, stop: int, unit_bytes: int) -> None:
        self._start, self._stop, self._unit_bytes = start, stop, unit_bytes
        self._came: dict[int, Stretch] = {}
        # Those that came out: all below a number, and some above it.
        self._low = start // unit_bytes
        self._units: set[int] = set()
        self.missing_bytes = stop - start
        """How much has not come out yet."""

    def take(self, stretch: Stretch) -> list[tuple[int, Buffer]]:
        """More of a stretch was proved → (offset, bytes) of the units that are whole now. Stretches do not overlap; one may be told again, from another
        holder. Raises ValueError for one that is not within the stream.
        """
        before = self._came.get(stretch.offset)
        seen = before.proved_bytes if before is not None else 0
        if stretch.offset < self._start or stretch.offset + stretch.data.nbytes > self._stop:
            raise ValueError(f"{stretch.data.nbytes} bytes from {stretch.offset} on are not within {self._start} to {self._stop}")
        if stretch.proved_bytes <= seen or self._is_out(stretch):
            return []
        self._came[stretch.offset] = stretch
        found = []
        for unit in self._units_of(stretch.offset + seen, stretch.offset + stretch.proved_bytes):
            start, stop = max(unit * self._unit_bytes, self._start), min((unit + 1) * self._unit_bytes, self._stop)
            whole = None if self._is_unit_out(unit) else self._whole(start, stop)
            if whole is not None:
                self._units.add(unit)
                self.missing_bytes -= stop - start
                found.append((start, whole))
        while self._low in self._units:
            self._units.remove(self._low)
            self._low += 1
        if found:
            self._came = {offset: one for offset, one in self._came.items() if not self._is_out(one)}
        return found

    def _units_of(self, start: int, stop: int) -> range:
        return range(start // self._unit_bytes, -(-stop // self._unit_bytes))

    def _is_out(self, stretch: Stretch) -> bool:
        """Whether all units that have a part of it came out."""
        return all(self._is_unit_out(unit) for unit in self._units_of(stretch.offset, stretch.offset + stretch.data.nbytes))

    def _is_unit_out(self, unit: int) -> bool:
        return unit < self._low or unit in self._units

    def _whole(self, start: int, stop: int) -> Buffer | None:
        """The bytes from ``start`` to ``stop``, when all of them came."""
        parts: list[memoryview] = []
        at = start
        while at < stop:
            holder = next((one for one in self._came.values() if one.offset <= at < one.offset + one.proved_bytes), None)
            if holder is None:
                return None
            parts.append(holder.data[at - holder.offset : min(stop - holder.offset, holder.proved_bytes)])
            at += parts[-1].nbytes
        return parts[0] if len(parts) == 1 else b"".join(parts)
