"""How safe a stored file is, in numbers and in the lines of ``ppd status FILE``.

    healthy shares by segment ─► durability.file_health ─► chance of a loss within a year, lines

A client does not see how many nodes the network loses. It takes a loss of a fifth of the nodes a year for its sum, and says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sds_node.durability import chance_text, file_health, rate_of
from sds_node.schemes import Scheme

ANNUAL_LOSS: Final = 0.2
"""A part of the nodes that a year takes, as assumed."""


@dataclass(frozen=True)
class Health:
    """A file's health. ``loss_next_year`` is a probability, under ``annual_node_loss``."""

    data_shares: int
    total_shares: int
    repair_below: int
    segments: int
    fewest_healthy: int
    to_repair: int
    lost: int
    loss_next_year: float
    lines: tuple[str, ...]
    annual_node_loss: float = ANNUAL_LOSS


def health_of(scheme: Scheme, segments_by_healthy: Mapping[int, int]) -> Health:
    """The health of a file whose segments have so many healthy shares."""
    found = file_health(scheme, segments_by_healthy, rate_of(ANNUAL_LOSS))
    if not found.segments:
        lines = ["empty: nothing is stored, nothing can be lost"]
    else:
        lines = [
            f"segments: {found.segments}, {f'{found.lost} lost' if found.lost else 'none lost'}, {found.to_repair} to repair",
            f"shares: any {scheme.k} of {scheme.n} give a segment back; the worst one has {found.fewest_healthy} healthy ones, "
            f"repair starts below {scheme.repair_below}",
        ]
        if found.lost:
            lines.append("the file cannot be read as a whole: fetch what is left of it, or wait for nodes that are offline to come back")
        else:
            lines.append(f"loss within a year: {chance_text(found.loss_next_year)} if nodes fail independently and {ANNUAL_LOSS:.0%} of them a year")
    return Health(
        scheme.k,
        scheme.n,
        scheme.repair_below,
        found.segments,
        found.fewest_healthy,
        found.to_repair,
        found.lost,
        0.0 if not found.segments else found.loss_next_year,
        tuple(lines),
    )
