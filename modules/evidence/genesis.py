"""evidence's section of app_state: ``cosmos.evidence.v1beta1.GenesisState`` as proto JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from chain.codec.json import from_json, to_json
from chain.codec.registry import message_class, unpack_any
from chain.context import Context
from chain.errors import AppError
from chain.module import GenesisError, Json, ValidatorUpdate
from chain.store.api import StateReader, StateWriter
from modules.evidence.keeper import PACKAGE, ROUTES, EvidenceKeeper, digest_of, problem_of

GenesisState: Final = message_class(f"{PACKAGE}.GenesisState")
PATH: Final = "app_state.evidence"


class EvidenceGenesis:
    """Default, check, load and export."""

    def __init__(self, keeper: EvidenceKeeper) -> None:
        self._keeper = keeper

    def default(self) -> Json:
        return to_json(GenesisState())

    def validate(self, section: Json) -> None:
        _read(section)

    def load(self, ctx: Context, state: StateWriter, section: Json) -> Sequence[ValidatorUpdate]:
        for evidence in _read(section):
            self._keeper.add(state, evidence)
        return ()

    def export(self, ctx: Context, state: StateReader) -> Json:
        return to_json(GenesisState(evidence=self._keeper.all(state)))


def _read(section: Json) -> list[Any]:
    """The pieces of evidence. Raises GenesisError."""
    found: dict[bytes, Any] = {}
    try:
        genesis = from_json(GenesisState, section, PATH)
        for at, wrapped in enumerate(genesis.evidence):
            path = f"{PATH}.evidence[{at}]"
            if wrapped.type_url not in ROUTES:
                raise GenesisError(path, f"expected evidence, one of {', '.join(ROUTES)}, got {wrapped.type_url[:200]!r}")
            evidence = unpack_any(wrapped)
            problem = problem_of(evidence)
            if problem is not None:
                raise GenesisError(path, problem)
            digest = digest_of(evidence)
            if digest in found:
                raise GenesisError(path, f"evidence with hash {digest.hex().upper()} already exists")
            found[digest] = evidence
    except AppError as error:
        raise GenesisError(PATH, error.detail) from None
    return list(found.values())
