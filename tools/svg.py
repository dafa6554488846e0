"""Line charts as SVG, of integers alone, so that the same figures make the same file everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

WIDTH: Final = 760
HEIGHT: Final = 440
LEFT: Final = 64
RIGHT: Final = 560
TOP: Final = 56
BOTTOM: Final = 380
INK: Final = "#1f2933"
FAINT: Final = "#d5dbe1"
COLOURS: Final = ("#0b6e99", "#2a9d8f", "#7a9e1f", "#d99a00", "#d2601a", "#a3254f")


@dataclass(frozen=True)
class Axis:
    """From ``low`` to ``high``, in ten-thousandths, with a mark at every ``step``."""

    title: str
    low: int
    high: int
    step: int

    def at(self, value: int, start: int, end: int) -> int:
        """Where ``value`` is between two places, in tenths of a pixel."""
        return start * 10 + (end - start) * 10 * (value - self.low) // (self.high - self.low)

    @property
    def marks(self) -> range:
        return range(self.low, self.high + 1, self.step)


@dataclass(frozen=True)
class Line:
    """Points (x, y) in ten-thousandths; its name stands at its end."""

    name: str
    points: Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Border:
    """A value worth a line of its own, across the chart (of y) or up (of x)."""

    name: str
    value: int


def _px(tenths: int) -> str:
    return f"{tenths // 10}.{tenths % 10}"


def _text(x: int, y: int, content: str, anchor: str = "start", size: int = 12, colour: str = INK, turned: bool = False) -> str:
    turn = f' transform="rotate(-90 {_px(x)} {_px(y)})"' if turned else ""
    return f'<text x="{_px(x)}" y="{_px(y)}" font-size="{size}" text-anchor="{anchor}" fill="{colour}"{turn}>{escape(content)}</text>'


def _stroke(x1: int, y1: int, x2: int, y2: int, colour: str, dashes: str = "") -> str:
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    return f'<line x1="{_px(x1)}" y1="{_px(y1)}" x2="{_px(x2)}" y2="{_px(y2)}" stroke="{colour}"{dashed}/>'


def chart(title: str, x: Axis, y: Axis, lines: Sequence[Line], across: Border, up: Border) -> str:
    """A whole SVG file, at most six lines."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        'font-family="system-ui, sans-serif" role="img">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        _text(LEFT * 10, 280, title, size=15),
    ]
    for mark in y.marks:
        at = y.at(mark, BOTTOM, TOP)
        parts += [_stroke(LEFT * 10, at, RIGHT * 10, at, FAINT), _text(LEFT * 10 - 80, at + 40, _number(mark), "end")]
    for mark in x.marks:
        at = x.at(mark, LEFT, RIGHT)
        parts += [_stroke(at, BOTTOM * 10, at, BOTTOM * 10 + 50, INK), _text(at, BOTTOM * 10 + 200, _number(mark), "middle")]
    parts += [
        _stroke(LEFT * 10, BOTTOM * 10, RIGHT * 10, BOTTOM * 10, INK),
        _text((LEFT + RIGHT) * 5, BOTTOM * 10 + 420, x.title, "middle"),
        _text(180, (TOP + BOTTOM) * 5, y.title, "middle", turned=True),
    ]
    level, upright = y.at(across.value, BOTTOM, TOP), x.at(up.value, LEFT, RIGHT)
    parts += [_stroke(LEFT * 10, level, RIGHT * 10, level, INK, "6 4"), _text(LEFT * 10 + 60, level - 60, across.name)]
    parts += [_stroke(upright, TOP * 10, upright, BOTTOM * 10, INK, "6 4"), _text(upright + 60, TOP * 10 + 120, up.name)]
    for line, colour in zip(lines, COLOURS, strict=False):
        points = [(x.at(one, LEFT, RIGHT), y.at(other, BOTTOM, TOP)) for one, other in line.points]
        drawn = " ".join(f"{_px(one)},{_px(other)}" for one, other in points)
        parts.append(f'<polyline points="{drawn}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(_text(points[-1][0] + 80, points[-1][1] + 40, line.name, colour=colour))
    return "\n".join([*parts, "</svg>", ""])


def _number(ten_thousandths: int) -> str:
    return f"{ten_thousandths // 10_000}.{ten_thousandths % 10_000 // 1000}"
