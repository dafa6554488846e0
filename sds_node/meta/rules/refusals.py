"""Why an operation is refused: a number for programs, a text for people. Numbers are never given to another meaning (README.md lists them)."""

from __future__ import annotations

from typing import Final, NoReturn

from sds_node.meta.ledger.errors import Refused

BAD_FORM: Final = 16
WRONG_CHAIN: Final = 17
UNKNOWN_SENDER: Final = 18
BAD_SIGNATURE: Final = 19
USED_NONCE: Final = 20
OUT_OF_TIME: Final = 21
FOUNDING: Final = 22
NO_QUORUM: Final = 23
WRONG_HEIGHT: Final = 24
UNKNOWN_LINES: Final = 25
WRONG_EPOCH: Final = 26
TOO_MUCH: Final = 27
NOT_ASKED: Final = 28
USED_BEFORE: Final = 29
NOT_FRESH: Final = 30
NOT_ENOUGH: Final = 31
TOO_MANY: Final = 32
UNKNOWN_LEASE: Final = 33
NOT_YOURS: Final = 34
LEASE_TIME: Final = 35
BAD_OBJECT: Final = 36
TAKEN: Final = 37
UNKNOWN_NODE: Final = 38
SAME_OWNER: Final = 39
NOT_CONFIRMED: Final = 40
WRONG_NUMBER: Final = 41
UNEVEN: Final = 42
UNKNOWN_SEGMENT: Final = 43
UNKNOWN_FILE: Final = 44
UNKNOWN_SHARE: Final = 45
NOT_PUBLIC: Final = 46
WRONG_SEQUENCE: Final = 47
TOO_EARLY: Final = 48
WRONG_STATE: Final = 49


def refuse(code: int, reason: str) -> NoReturn:
    """Raises Refused."""
    raise Refused(code, reason)


def need(holds: bool, code: int, reason: str) -> None:
    """Raises Refused with ``code`` unless ``holds``."""
    if not holds:
        raise Refused(code, reason)


def shown(raw: bytes) -> str:
    """The first bytes of an id, for a reason."""
    return raw[:20].hex() or "nothing"
