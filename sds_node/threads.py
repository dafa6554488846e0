"""Work that lets go of the interpreter's lock: in a thread, unless there is too little of it to be worth one; and waiting for the end of work that nobody may leave."""

from __future__ import annotations

import asyncio
import contextvars
import functools
from collections.abc import Callable
from typing import Final, TypeVar

INLINE_BYTES: Final = 256 << 10
"""Work on so little is not worth a thread."""

T = TypeVar("T")


async def aside(size_bytes: int, work: Callable[..., T], *given: object) -> T:
    """What ``work`` makes of ``given``, which is so many bytes. Raises what it raises."""
    return work(*given) if size_bytes <= INLINE_BYTES else await asyncio.to_thread(work, *given)


async def to_its_end(work: asyncio.Future[T]) -> T:
    """What ``work`` gives. Who is cancelled, however often, waits for its end first: what it uses may not be closed, or used by others, before."""
    stopped = None
    while not work.done():
        try:
            await asyncio.wait([work])
        except asyncio.CancelledError as error:
            stopped = error
    if stopped is not None:
        if not work.cancelled():
            work.exception()  # nobody else hears of it
        raise stopped
    return work.result()


async def in_thread(work: Callable[..., T], *given: object) -> T:
    """What ``work`` makes of ``given`` in a thread, waited for to its end."""
    # Not as a task: what ends a loop cancels every task.
    run = functools.partial(contextvars.copy_context().run, work, *given)
    return await to_its_end(asyncio.get_running_loop().run_in_executor(None, run))
