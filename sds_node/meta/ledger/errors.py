"""What can go wrong with a ledger, as sentences an operator or a caller can act on.

LedgerError
├── Unavailable       the database cannot be used now; nothing that was answered is lost
├── Locked            another process writes this ledger
├── Foreign           the database is no ledger, or not this one
├── Damaged           what is read back is not what was written
├── Busy              too much is waiting: try again later
│   └── DayUsed       the log takes no more of this meta node today: ask another one
└── BadValue          a row, a key or a scan breaks its table's declaration: a bug of whoever built it
Refused               raised by an operation's rules: the operation changes nothing and its log entry says why
"""

from __future__ import annotations

from typing import Final

CODE_OK: Final = 0
CODE_BUG: Final = 1
"""The rules raised something that is not Refused: a bug of ours, which fails that operation alone."""
CODE_DUPLICATE: Final = 2
CODE_TOO_LARGE: Final = 3
FIRST_CODE: Final = 16
"""Codes below are the engine's own."""
LAST_CODE: Final = (1 << 31) - 1
MAX_REASON_BYTES: Final = 1024


class LedgerError(Exception):
    """The ledger cannot do what was asked."""


class Unavailable(LedgerError):
    """The database cannot be opened, read or written now."""


class Locked(LedgerError):
    """Another process has the ledger open for writing."""


class Foreign(LedgerError):
    """The database belongs to something else."""


class Damaged(LedgerError):
    """The database holds something that the ledger did not write."""


class Busy(LedgerError):
    """A queue or a pool is full."""


class DayUsed(Busy):
    """What the meta node may have in the log today is used up."""


class BadValue(LedgerError, ValueError):
    """A value does not fit its column, or a scan its table."""


class Refused(Exception):
    """A rule refuses the operation. ``code`` (16 to 2^31 - 1) is for programs, ``reason`` (cut at 1,024 bytes) for people; both enter the log."""

    def __init__(self, code: int, reason: str) -> None:
        if not FIRST_CODE <= code <= LAST_CODE:
            raise BadValue(f"a refusal has a code from {FIRST_CODE} to {LAST_CODE}, got {code}")
        self._set(code, reason)

    def _set(self, code: int, reason: str) -> None:
        self.code = code
        self.reason = tidy(reason)
        super().__init__(self.reason)


class EngineRefused(Refused):
    """A bound of the engine refuses the operation; its codes are below 16."""

    def __init__(self, code: int, reason: str) -> None:
        self._set(code, reason)


def tidy(reason: str) -> str:
    """``reason`` as the log keeps it: no zero character, no half of a surrogate pair, at most MAX_REASON_BYTES of UTF-8."""
    raw = reason.replace("\0", " ").encode("utf-8", "replace")
    return raw[:MAX_REASON_BYTES].decode("utf-8", "ignore")
