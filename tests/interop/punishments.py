"""What the two sides of ``test_slashing_beside_simd.py`` have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from chain.codec.registry import message_class
from chain.testing.validators import ValidatorKey

WINDOW = 10
GENESIS_TIME = "2026-01-01T00:00:00.987654321Z"
LOOK_AT = 8
"""The height at which the stores are compared: B has missed seven blocks and is not jailed."""
CONS = ValidatorKey.numbered(1).address
QUESTIONS: dict[str, tuple[str, Callable[[], Any]]] = {
    "slashing params": ("/cosmos.slashing.v1beta1.Query/Params", message_class("cosmos.slashing.v1beta1.QueryParamsRequest")),
    "signing infos": ("/cosmos.slashing.v1beta1.Query/SigningInfos", message_class("cosmos.slashing.v1beta1.QuerySigningInfosRequest")),
    "evidence": ("/cosmos.evidence.v1beta1.Query/AllEvidence", message_class("cosmos.evidence.v1beta1.QueryAllEvidenceRequest")),
}


def stored_keys() -> dict[str, bytes]:
    """Keys of the store ``slashing``, written out."""
    sized = bytes([len(CONS)]) + CONS
    return {"parameters": b"\x00", "signing info": b"\x01" + sized, "missed blocks": b"\x02" + sized + bytes(8), "public key": b"\x03" + sized}
