"""Requests as handlers: a head or a body in, one message out; whatever goes wrong comes out as a refusal that says what to do.

    head, body ─ parsed ─► work ─► answer            LedgerRefused c ─► 3000 + c          the ledger is busy ─► BUSY, its day full ─► TRY_ANOTHER, down ─► NOT_READY

Source: docs/adr/0009.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Final, NoReturn

import structlog

from chain.codec.canonical import encode
from sds_node import asking
from sds_node.meta.ledger import errors as ledger_errors
from sds_node.meta.operations import LedgerRefused
from sds_node.meta.users.roots import RootsError
from sds_node.schemes import NoNodes, SchemeError
from sds_node.transfers import parsed
from sds_node.wire import errors as wire_errors
from sds_node.wire.connection import Connection, Handler
from sds_node.wire.stream import Stream

log = structlog.get_logger("users")

HASH_BYTES: Final = 32

Work = Callable[[Any, Connection], Awaitable[Any | None]]
"""(the head's message, who asks) → the answer, None for an empty one."""
Admit = Callable[[Connection], AbstractContextManager[Callable[[int], None]]]
"""Who asks → a place for one more body, while it comes in; what is given is told how many bytes have come. Both raise what the caller gets."""
BODY_S: Final = 120.0
"""A body comes in within this time."""


def refuse(code: int, text: str) -> NoReturn:
    """Raises the refusal that the caller gets."""
    raise wire_errors.Refused(code, text)


def need(holds: bool, code: int, text: str) -> None:
    """Raises the refusal unless ``holds``."""
    if not holds:
        raise wire_errors.Refused(code, text)


def handler(kind: Any, work: Work) -> Handler:
    """A handler of requests whose head is a ``kind``."""

    async def serve(stream: Stream, connection: Connection) -> None:
        with told(stream.method):
            answer = await work(parsed(kind, stream.head), connection)
        if answer is not None:
            await stream.send(encode(answer))

    return serve


def body_handler(kind: Any, work: Work, admit: Admit) -> Handler:
    """A handler of requests whose body, of at most 8 MiB, is a ``kind``; it is not read before ``admit`` has nothing against the caller. ``work`` has begun
    when the place is given back."""

    async def serve(stream: Stream, connection: Connection) -> None:
        with admit(connection) as came:
            message = parsed(kind, await _received(stream, came))
        with told(stream.method):
            answer = await work(message, connection)
        if answer is not None:
            await stream.send(encode(answer))

    return serve


async def _received(stream: Stream, came: Callable[[int], None]) -> bytes:
    """All that comes. Raises TooMuch, TimedOut, what ``came`` raises."""
    parts: list[memoryview] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_S):
            while chunk := await stream.receive():
                size += chunk.nbytes
                if size > asking.MAX_BODY_BYTES:
                    raise wire_errors.TooMuch(f"expected at most {asking.MAX_BODY_BYTES} bytes of data, got {size} and no end")
                came(size)
                parts.append(chunk)
    except TimeoutError:
        raise wire_errors.TimedOut(f"expected the whole body within {BODY_S:g} s, got {size} bytes of it") from None
    return b"".join(parts)


@contextlib.contextmanager
def told(method: str) -> Iterator[None]:
    """Have errors come out as the caller shall read them."""
    try:
        yield
    except wire_errors.WireError:
        raise
    except LedgerRefused as error:
        raise wire_errors.Refused(min(asking.LEDGER_CODES + error.code, wire_errors.MAX_CODE), str(error)) from None
    except ledger_errors.DayUsed as error:
        raise wire_errors.Refused(asking.TRY_ANOTHER, str(error)) from None
    except ledger_errors.Busy:
        raise wire_errors.Busy("the ledger of this meta node has too much to do: ask again in a moment, or another meta node") from None
    except ledger_errors.LedgerError as error:
        log.error("the ledger cannot be asked", method=method, why=str(error))
        raise wire_errors.Refused(asking.NOT_READY, "the ledger of this meta node cannot be asked now: try another meta node") from None
    except RootsError as error:
        log.error("the share roots cannot be read or written", method=method, why=str(error))
        raise wire_errors.Refused(asking.NOT_READY, "the disk of this meta node fails: try another meta node") from None
    except NoNodes as error:
        raise wire_errors.Refused(asking.TOO_FEW_NODES, str(error)) from None
    except SchemeError as error:
        raise wire_errors.Refused(asking.BAD_ASK, str(error)) from None


def sized(value: bytes, what: str, size_bytes: int = HASH_BYTES) -> bytes:
    """A value of exactly so many bytes. Refuses any other."""
    need(len(value) == size_bytes, asking.BAD_ASK, f"{what}: expected {size_bytes} bytes, got {len(value)}")
    return bytes(value)


def page_limit(limit: int, most: int = asking.MAX_PAGE) -> int:
    """How many rows are asked for. Refuses none and too many."""
    need(1 <= limit <= most, asking.BAD_ASK, f"limit: expected 1 to {most}, got {limit}")
    return limit
