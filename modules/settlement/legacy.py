"""What a legacy string asks for, as far as its form tells: the strings of the original's clients that pay for traffic, and no others.

    upload, download     file hash ‖ wallet ‖ sequence number ‖ Unix seconds
    shared download      share link ‖ wallet ‖ sequence number ‖ Unix seconds          no separators; a sequence number is SN: and 19 digits

Nothing else that such a client signs has a sequence number, and no subject has a colon: so a string that polls, deletes, shares or lists is never taken for
one that pays. An upload and a download of a file are one string for the same second; which of them was meant only the ledger remembers. Strings of version 2
pay for nothing: they stand beside one of these. Sources: sds.md 1.4, storage-protocol.md 5.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

FRESH_S: Final = 300
"""A string is first used at most so long before or after its own time."""
TASK_S: Final = 3_600
"""The lease that it pays for ends at most so long after that."""
_IS_PAYING: Final = re.compile(r"([0-9A-Za-z_-]{2,256})(st1[0-9a-z]{38})SN:([0-9]{19})(0|[1-9][0-9]{0,11})", re.ASCII).fullmatch
_IS_FILE: Final = re.compile(r"v[0-9a-v]{39}", re.ASCII).fullmatch


@dataclass(frozen=True, slots=True)
class PayingString:
    """A legacy string that pays for traffic. ``subject`` is a file hash, or the link of a share without prefix and password."""

    subject: str
    wallet: str
    sequence: int
    timestamp_s: int

    @property
    def is_of_file(self) -> bool:
        """Whether the subject has the form of a file hash: 40 characters, which no link has."""
        return _IS_FILE(self.subject) is not None


def paying_string(text: str) -> PayingString | None:
    """The parts of a string that pays for an upload or a download; None for any other text."""
    found = _IS_PAYING(text)
    return None if found is None else PayingString(found[1], found[2], int(found[3]), int(found[4]))


def faults_of_string(text: str, limit: Any, *, is_put: bool, is_get: bool) -> Iterator[str]:
    """What is wrong with a legacy string for that OrderLimit, which is for storing, for reading, or for neither; who signed it is not looked at."""
    asked = paying_string(text)
    if asked is None or not (is_put or is_get):
        yield "the legacy string does not ask for an upload or a download"
        return
    if asked.wallet != limit.wallet:
        yield "the legacy string is of another wallet than the order limit"
    if is_put and not asked.is_of_file:
        yield "the legacy string names a share, and the order limit is for storing"
    if not (asked.timestamp_s - FRESH_S <= limit.created_s and limit.expires_s <= asked.timestamp_s + FRESH_S + TASK_S):
        yield f"the order limit's times are not within {FRESH_S} s before and {FRESH_S + TASK_S} s after that of the legacy string"
