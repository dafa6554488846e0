"""What can go wrong between two nodes. One table of codes for the wire, one class per code for Python.

    WireError                       ``code`` (u16, on the wire) and ``text`` (at most 1,024 bytes of UTF-8)
    ├── CallFailed                  this request; the connection lives on
    │   ├── CallCancelled  UnknownMethod  BadRequest  Busy  TimedOut  InternalFailure  TooMuch  Unreachable  Refused (1,000 and above)
    └── ConnectionFailed            the connection and everything on it
        └── TooSlow  Draining  ProtocolViolation  WrongChain  NoCommonVersion  WrongPeer  HandshakeFailed  Lost

A handler raises a ``CallFailed`` to answer with it; the caller gets the same class. Codes are append-only.
"""

from __future__ import annotations

from typing import Final

MAX_TEXT_BYTES: Final = 1_024
OK: Final = 0
FIRST_APPLICATION_CODE: Final = 1_000
MAX_CODE: Final = 0xFFFF


def bounded_text(text: str) -> str:
    """The text without control characters, at most 1,024 bytes of UTF-8. It may quote a stranger, and goes into logs."""
    clean = "".join(character if character.isprintable() else "�" for character in text[:MAX_TEXT_BYTES])
    return clean.encode(errors="replace")[:MAX_TEXT_BYTES].decode(errors="ignore")


class WireError(Exception):
    """Something between two nodes failed; ``str(error)`` says what was expected and what came."""

    code: int = 6

    def __init__(self, text: str = "") -> None:
        self.text = bounded_text(text)
        super().__init__(self.text or type(self).__name__)


class CallFailed(WireError):
    """One request failed; its connection lives on."""


class CallCancelled(CallFailed):
    """1: the other side gave the request up."""

    code = 1


class UnknownMethod(CallFailed):
    """2: the peer serves no method of that name."""

    code = 2


class BadRequest(CallFailed):
    """3: the request cannot be understood or breaks a bound."""

    code = 3


class Busy(CallFailed):
    """4: a limit is reached; the same request may pass later or elsewhere."""

    code = 4


class TimedOut(CallFailed):
    """5: nothing moved on the stream for its idle time."""

    code = 5


class InternalFailure(CallFailed):
    """6: the peer has a fault; its log has the details."""

    code = 6


class TooMuch(CallFailed):
    """7: more bytes than were agreed."""

    code = 7


class Unreachable(CallFailed):
    """8: no way to that peer: no route answers, or the relay does not know it."""

    code = 8


class ConnectionFailed(WireError):
    """The connection is gone, and every stream on it."""


class TooSlow(ConnectionFailed):
    """20: the peer takes or sends so little that it only holds memory."""

    code = 20


class Draining(ConnectionFailed):
    """21: the peer is going away and did not begin with this request; it may be repeated elsewhere."""

    code = 21


class ProtocolViolation(ConnectionFailed):
    """22: the peer broke the wire protocol."""

    code = 22


class WrongChain(ConnectionFailed):
    """23: the peer belongs to another chain."""

    code = 23


class NoCommonVersion(ConnectionFailed):
    """24: no protocol version is spoken by both."""

    code = 24


class WrongPeer(ConnectionFailed):
    """25: who answered is not who was called."""

    code = 25


class HandshakeFailed(ConnectionFailed):
    """26: no authenticated connection came about."""

    code = 26


class Lost(ConnectionFailed):
    """27: the connection ended without a word."""

    code = 27


class Refused(CallFailed):
    """1,000 to 65,535: a method's own refusal; ``code`` says which."""

    def __init__(self, code: int, text: str = "") -> None:
        if not FIRST_APPLICATION_CODE <= code <= MAX_CODE:
            raise ValueError(f"a method's own code is {FIRST_APPLICATION_CODE} to {MAX_CODE}, got {code}")
        super().__init__(text)
        self.code = code


_CLASSES: Final[tuple[type[WireError], ...]] = (
    CallCancelled, UnknownMethod, BadRequest, Busy, TimedOut, InternalFailure, TooMuch, Unreachable,
    TooSlow, Draining, ProtocolViolation, WrongChain, NoCommonVersion, WrongPeer, HandshakeFailed, Lost,
)  # fmt: skip
BY_CODE: Final[dict[int, type[WireError]]] = {cls.code: cls for cls in _CLASSES}


def error_of(code: int, text: str) -> WireError:
    """The error that a code other than 0 stands for. A code that this version does not know is an InternalFailure that names it."""
    if code >= FIRST_APPLICATION_CODE:
        return Refused(code, text)
    if code in BY_CODE:
        return BY_CODE[code](text)
    return InternalFailure(f"code {code} of a later version: {text}")


def answer_of(error: WireError) -> tuple[int, str]:
    """(code, text) with which a handler's error is told to the caller. A connection's failure is one to somebody else: Unreachable, to the caller."""
    if isinstance(error, CallFailed):
        return error.code, error.text
    return Unreachable.code, bounded_text(f"a connection that this request needs failed: {error}")
