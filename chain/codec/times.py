"""Timestamps and durations as text, by integer arithmetic alone."""

from __future__ import annotations

import re
from typing import Any, Final

NANOS: Final = 1_000_000_000
GO_NO_TIME_S: Final = -62_135_596_800
"""Go's time of no time, the start of year 1, in Unix seconds."""
_DAY_S: Final = 86_400
_EPOCH_DAYS: Final = 719_468  # days from 0000-03-01 to 1970-01-01
_TIME: Final = re.compile(r"(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?([Zz]|[+-]\d\d:\d\d)", re.ASCII)

_GO_DURATION: Final = re.compile(r"(\d{1,12})(?:\.(\d*))?(h|ms|m|s|us|µs|ns)", re.ASCII)
_GO_UNITS_NS: Final = {"h": 3600 * NANOS, "m": 60 * NANOS, "s": NANOS, "ms": 10**6, "us": 1000, "µs": 1000, "ns": 1}


def ns_of(message: Any) -> int:
    """Nanoseconds of a Timestamp (since 1970) or a Duration."""
    return int(message.seconds) * NANOS + int(message.nanos)


def set_ns(message: Any, value_ns: int) -> None:
    """Write nanoseconds into a Timestamp or a Duration, which is there from then on, even at 0."""
    message.SetInParent()
    message.seconds, message.nanos = divmod(value_ns, NANOS)


def rfc3339(seconds: int, nanos: int = 0) -> str:
    """UTC, with as many fraction digits as are needed: ``2024-01-02T03:04:05.6Z``."""
    days, rest = divmod(seconds, _DAY_S)
    year, month, day = _civil(days)
    text = f"{year:04d}-{month:02d}-{day:02d}T{rest // 3600:02d}:{rest // 60 % 60:02d}:{rest % 60:02d}"
    return f"{text}.{nanos:09d}".rstrip("0") + "Z" if nanos else text + "Z"


def sortable(seconds: int, nanos: int = 0) -> bytes:
    """``2006-01-02T15:04:05.000000000``: 29 bytes that order as time does, the form of times in store keys."""
    return f"{rfc3339(seconds)[:-1]}.{nanos:09d}".encode()


def parse_rfc3339(text: str) -> tuple[int, int]:
    """(Unix seconds, nanoseconds). Raises ValueError for anything that is not an RFC 3339 time with at most 9 fraction digits."""
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError(f"expected a time as 2024-01-02T03:04:05.678Z, got {text[:60]!r}")
    year, month, day, hour, minute, second = (int(match[at]) for at in range(1, 7))
    if not (1 <= month <= 12 and 1 <= day <= _month_days(year, month) and hour < 24 and minute < 60 and second < 60):
        raise ValueError(f"{text!r} is not a date and time that exists")
    offset = 0
    if match[8] not in "Zz":
        offset = int(match[8][1:3]) * 3600 + int(match[8][4:6]) * 60
        offset = -offset if match[8][0] == "-" else offset
    seconds = _days(year, month, day) * _DAY_S + hour * 3600 + minute * 60 + second - offset
    return seconds, int((match[7] or "").ljust(9, "0"))


def parse_go_duration(text: str) -> int:
    """Nanoseconds of a duration as Go writes it in config.toml: ``168h0m0s``, ``1.5s``, ``100ms``. Raises ValueError."""
    if not text or _GO_DURATION.sub("", text):
        raise ValueError(f"expected a duration as 168h0m0s, got {text[:60]!r}")
    return sum(
        int(whole) * _GO_UNITS_NS[unit] + int((part or "")[:9].ljust(9, "0")) * _GO_UNITS_NS[unit] // NANOS
        for whole, part, unit in _GO_DURATION.findall(text)
    )


def _month_days(year: int, month: int) -> int:
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    return 29 if month == 2 and leap else (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)[month - 1]


def _days(year: int, month: int, day: int) -> int:
    year -= month <= 2
    era, of_era = divmod(year, 400)
    of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    return era * 146_097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - _EPOCH_DAYS


def _civil(days: int) -> tuple[int, int, int]:
    era, of_era = divmod(days + _EPOCH_DAYS, 146_097)
    year_of_era = (of_era - of_era // 1460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    shifted = (5 * of_year + 2) // 153
    month = shifted + (3 if shifted < 10 else -9)
    return year_of_era + era * 400 + (month <= 2), month, of_year - (153 * shifted + 2) // 5 + 1
