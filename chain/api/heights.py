"""The header that names the height to ask at: the same rules for REST and for gRPC."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from chain.errors import InvalidRequest

HEIGHT_HEADER: Final = "x-cosmos-block-height"
_HEIGHT: Final = re.compile(r"(?:\+|-(?=0+$))?0*([0-9]{1,19})", re.ASCII)
MAX_HEIGHT: Final = (1 << 63) - 1


def asked_height(given: Sequence[str]) -> int | None:
    """The height of the header's values, written as Go's ParseInt takes it; None for the latest. Raises InvalidRequest.

    Two values name no height: the SDK looks at one that stands alone.
    """
    if len(given) != 1:
        return None
    found = _HEIGHT.fullmatch(given[0])
    if found is None or int(found[1]) > MAX_HEIGHT:
        raise InvalidRequest(f"{HEIGHT_HEADER} must be a height, got {given[0][:40]!r}")
    return int(found[1]) or None
