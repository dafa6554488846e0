"""Queries of evidence."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from chain.codec.registry import Any_, message_class
from chain.context import Context
from chain.errors import InvalidRequest, NotFound, UndefinedError
from chain.module import Query
from chain.pagination import paginate
from chain.store.api import StateReader
from modules.evidence import keys
from modules.evidence.keeper import PACKAGE, EvidenceKeeper

_HEX: Final = re.compile(r"(?:[0-9a-fA-F]{2}){1,64}", re.ASCII)


def handlers(keeper: EvidenceKeeper) -> Mapping[str, Query]:
    """The module's query handlers."""

    def evidence(ctx: Context, state: StateReader, request: Any) -> Any:
        if not request.hash:
            raise InvalidRequest("invalid request; hash is empty")
        if _HEX.fullmatch(request.hash) is None:
            raise UndefinedError(f"invalid evidence hash: expected hex digits, got {request.hash[:80]!r}")
        found = keeper.evidence(state, bytes.fromhex(request.hash))
        if found is None:
            raise NotFound(f"evidence {request.hash} not found")
        return message_class(f"{PACKAGE}.QueryEvidenceResponse")(evidence=found)

    def all_evidence(ctx: Context, state: StateReader, request: Any) -> Any:
        found, page = paginate(state.store(keys.STORE), keys.EVIDENCE, request.pagination, lambda _, value: Any_.FromString(value))
        return message_class(f"{PACKAGE}.QueryAllEvidenceResponse")(evidence=found, pagination=page)

    return {f"/{PACKAGE}.Query/Evidence": evidence, f"/{PACKAGE}.Query/AllEvidence": all_evidence}
