"""Pages of a query, in every mode of ``cosmos.base.query.v1beta1.PageRequest``: by key, by offset, counted, reversed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

from chain.codec.registry import message_class
from chain.errors import InvalidRequest
from chain.store.api import KVReader, prefix_end

PageResponse: Final = message_class("cosmos.base.query.v1beta1.PageResponse")
DEFAULT_LIMIT: Final = 100
MAX_LIMIT: Final = 10_000
MAX_WALK: Final = 50_000
"""Entries that one query may pass, so that none holds the node."""
T = TypeVar("T")


def paginate(
    store: KVReader, prefix: bytes, request: Any, read: Callable[[bytes, bytes], T], keep: Callable[[bytes, bytes], bool] | None = None
) -> tuple[list[T], Any]:
    """One page of the entries under ``prefix`` that ``keep`` accepts: (``read(key after prefix, value)`` of each, PageResponse).

    Without a limit 100 entries and the total are given; a larger limit than 10,000 is cut. At most 50,000 entries are passed: a larger offset
    is refused, a total above that is left 0, as where it is not asked for. Raises InvalidRequest (sdk/18), also for a key with an offset.
    """
    if request.key and request.offset:
        raise InvalidRequest("invalid request, either offset or key is expected, got both")
    if request.offset > MAX_WALK:
        raise InvalidRequest(f"an offset is at most {MAX_WALK}, got {request.offset}: go on from next_key instead")
    limit = min(request.limit or DEFAULT_LIMIT, MAX_LIMIT)
    count_total = request.count_total or not request.limit
    start: bytes | None = prefix
    end = prefix_end(prefix)
    if request.key:
        if request.reverse:
            end = prefix + request.key + b"\x00"
        else:
            start = prefix + request.key
    skip = 0 if request.key else request.offset
    found: list[T] = []
    next_key = b""
    seen = walked = 0
    for key, value in store.iterate(start, end, reverse=request.reverse):
        rest = key[len(prefix) :]
        walked += 1
        if request.key and len(found) == limit:  # the next entry, whether it will be kept or not
            next_key = rest
            break
        if walked > MAX_WALK:
            next_key, count_total = next_key or rest, False
            break
        if keep is not None and not keep(rest, value):
            continue
        seen += 1
        if seen <= skip:
            continue
        if len(found) < limit:
            found.append(read(rest, value))
        else:
            next_key = next_key or rest
            if not count_total:
                break
    total = seen if count_total and not request.key else 0
    return found, PageResponse(next_key=next_key, total=total)
