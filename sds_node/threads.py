"""Work on pieces of content that lets go of the interpreter's lock: in a thread, unless there is too little of it to be worth one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

INLINE_BYTES: Final = 256 << 10
"""Work on so little is not worth a thread."""

T = TypeVar("T")


async def aside(size_bytes: int, work: Callable[..., T], *given: object) -> T:
    """What ``work`` makes of ``given``, which is so many bytes. Raises what it raises."""
    return work(*given) if size_bytes <= INLINE_BYTES else await asyncio.to_thread(work, *given)
