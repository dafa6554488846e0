"""Decimals of 18 places, as the SDK's LegacyDec: an int scaled by 10^18 (reference stratos-chain.md 1.9).

On the wire a Dec is that scaled integer as text; in JSON it is text with exactly 18 decimals.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

PLACES: Final = 18
ONE: Final = 10**PLACES
MAX_BITS: Final = 315
_TEXT: Final = re.compile(r"(-?)([0-9]{1,80})(?:\.([0-9]{1,18}))?", re.ASCII)
_SCALED: Final = re.compile(r"-?[0-9]{1,96}", re.ASCII)


class DecError(ValueError):
    """A text that is not a decimal, or a result of more than 315 bits."""


class Dec(NamedTuple):
    """A decimal; ``scaled`` is the value times 10^18."""

    scaled: int

    def mul(self, other: Dec) -> Dec:
        """Product, rounded half to even at 18 places."""
        return _bounded(_round_half_even(self.scaled * other.scaled, ONE))

    def mul_truncate(self, other: Dec) -> Dec:
        """Product, cut at 18 places."""
        return _bounded(_toward_zero(self.scaled * other.scaled, ONE))

    def quo_truncate(self, other: Dec) -> Dec:
        """Quotient, cut at 18 places."""
        return _bounded(_toward_zero(self.scaled * ONE, other.scaled))

    def quo(self, other: Dec) -> Dec:
        """Quotient: truncated at 36 places, then rounded half to even at 18."""
        numerator, denominator = self.scaled * ONE * ONE, other.scaled
        quotient = abs(numerator) // abs(denominator)
        return _bounded(_round_half_even(quotient if (numerator < 0) == (denominator < 0) else -quotient, ONE))

    def quo_round_up(self, other: Dec) -> Dec:
        """Quotient: truncated at 36 places, then up (toward zero if negative) to 18."""
        quotient = _toward_zero(self.scaled * ONE * ONE, other.scaled)
        return _bounded(-(-quotient // ONE))

    def mul_int(self, factor: int) -> Dec:
        """Product with a whole number, exact."""
        return _bounded(self.scaled * factor)

    def quo_int(self, divisor: int) -> Dec:
        """Quotient by a whole number, cut at 18 places."""
        return Dec(_toward_zero(self.scaled, divisor))

    def truncate(self) -> int:
        """The whole part, toward zero."""
        return _toward_zero(self.scaled, ONE)

    def round(self) -> int:
        """The nearest whole number, half to even."""
        return _round_half_even(self.scaled, ONE)

    def ceil(self) -> int:
        """The smallest integer that is not below."""
        return -(-self.scaled // ONE)

    def __str__(self) -> str:
        whole, fraction = divmod(abs(self.scaled), ONE)
        return f"{'-' if self.scaled < 0 else ''}{whole}.{fraction:018d}"


def dec_of(whole: int) -> Dec:
    """A whole number as a decimal. Raises DecError above 315 bits."""
    return _bounded(whole * ONE)


def parse_dec(text: str) -> Dec:
    """``12.5`` with at most 18 decimals. Raises DecError."""
    match = _TEXT.fullmatch(text)
    if match is None:
        raise DecError(f"expected a decimal of at most 18 places, got {text[:60]!r}")
    scaled = int(match[2]) * ONE + int((match[3] or "").ljust(PLACES, "0"))
    return _bounded(-scaled if match[1] else scaled)


def from_wire(wire: str) -> Dec:
    """A Dec's wire form; an empty one is zero. Raises DecError: what ``int`` reads beside ASCII digits depends on Python's version."""
    if _SCALED.fullmatch(wire or "0") is None:
        raise DecError(f"expected a scaled integer, got {wire[:60]!r}")
    return _bounded(int(wire or "0"))


def dec_text(wire: str) -> str:
    """The JSON form of a Dec's wire form. Raises DecError."""
    return str(from_wire(wire))


def dec_wire(text: str) -> str:
    """The wire form of a Dec's JSON form."""
    return str(parse_dec(text).scaled)


def _toward_zero(value: int, divisor: int) -> int:
    quotient = abs(value) // abs(divisor)
    return quotient if (value < 0) == (divisor < 0) else -quotient


def _round_half_even(value: int, divisor: int) -> int:
    quotient, rest = divmod(abs(value), divisor)
    if rest * 2 > divisor or (rest * 2 == divisor and quotient & 1):
        quotient += 1
    return -quotient if value < 0 else quotient


def _bounded(scaled: int) -> Dec:
    if scaled.bit_length() > MAX_BITS:
        raise DecError(f"a decimal has at most {MAX_BITS} bits, got {scaled.bit_length()}")
    return Dec(scaled)
