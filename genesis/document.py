"""The genesis file: read, checked, written; and the copy in the shape that CometBFT reads.

SDK 0.50 shape (ours): ``app_name, app_version, genesis_time, chain_id, initial_height (number), app_hash, app_state, consensus``.
SDK 0.47 and CometBFT: ``initial_height`` as text, ``consensus_params``, ``validators`` (reference abci-sdk-rules.md section 1).
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any, Final

from chain.codec.json import from_json, loads
from chain.codec.registry import message_class
from chain.codec.times import parse_rfc3339
from chain.errors import AppError
from chain.module import GenesisError

_CHAIN_ID: Final = re.compile(r"[A-Za-z0-9_.-]{1,50}", re.ASCII)
ConsensusParams: Final = message_class("tendermint.types.ConsensusParams")


def load(path: Path) -> dict[str, Any]:
    """A genesis file in the 0.50 shape (of a 0.47 file the document's own fields are turned). Raises GenesisError with one sentence."""
    return normalise(parse(path))


def parse(path: Path) -> dict[str, Any]:
    """The JSON object in a genesis file, as it is. Raises GenesisError with one sentence."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise GenesisError(str(path), f"cannot be read ({error.strerror}): run `stchaind init` or copy the network's genesis file there") from None
    try:
        document = loads(raw)
    except AppError as error:
        raise GenesisError(str(path), error.detail) from None
    if not isinstance(document, dict):
        raise GenesisError(str(path), "expected a JSON object")
    return document


def normalise(document: dict[str, Any]) -> dict[str, Any]:
    """The document in the 0.50 shape, its own fields checked. Raises GenesisError naming the field."""
    document = dict(document)
    if "consensus" not in document and "consensus_params" in document:
        params = document.pop("consensus_params")
        if isinstance(params, dict) and isinstance(params.get("block"), dict):
            # Tendermint's least time between blocks: kept in files, used by nobody since 0.35.
            params = {**params, "block": {name: value for name, value in params["block"].items() if name != "time_iota_ms"}}
        document["consensus"] = {"params": params}
        if document.get("validators"):
            document["consensus"]["validators"] = document.pop("validators")
        document.pop("validators", None)
    chain_id = document.get("chain_id")
    if not isinstance(chain_id, str) or _CHAIN_ID.fullmatch(chain_id) is None:
        raise GenesisError("chain_id", f"expected 1 to 50 letters, digits, '_', '.' and '-', got {chain_id!r}")
    height = document.get("initial_height", 1)
    if isinstance(height, str) and height.isascii() and height.isdigit():
        height = int(height)
    if not isinstance(height, int) or isinstance(height, bool) or not 0 <= height < 1 << 63:
        raise GenesisError("initial_height", f"expected a positive number, got {height!r}")
    document["initial_height"] = height or 1
    try:
        parse_rfc3339(document.get("genesis_time") or "")
    except (ValueError, TypeError) as error:
        raise GenesisError("genesis_time", str(error)) from None
    consensus = document.get("consensus")
    if not isinstance(consensus, dict) or not isinstance(consensus.get("params"), dict):
        raise GenesisError("consensus.params", "expected an object with block, evidence, validator, version and abci")
    consensus_params(document)
    if not isinstance(document.get("app_state"), dict):
        raise GenesisError("app_state", "expected an object with a section per module")
    return document


def consensus_params(document: dict[str, Any]) -> Any:
    """``tendermint.types.ConsensusParams`` of a document. Raises GenesisError."""
    params = json.loads(json.dumps(document["consensus"]["params"]))
    evidence = params.get("evidence")
    if isinstance(evidence, dict) and re.fullmatch("[0-9]{1,19}", str(evidence.get("max_age_duration"))):
        nanos = int(evidence["max_age_duration"])
        evidence["max_age_duration"] = f"{nanos // 10**9}.{nanos % 10**9:09d}s"
    try:
        return from_json(ConsensusParams, params, "consensus.params")
    except AppError as error:
        raise GenesisError("consensus.params", error.detail) from None


def comet_shape(document: dict[str, Any]) -> dict[str, Any]:
    """The copy that CometBFT reads."""
    return {
        "genesis_time": document["genesis_time"],
        "chain_id": document["chain_id"],
        "initial_height": str(document["initial_height"]),
        "consensus_params": comet_params(document["consensus"]["params"]),
        "validators": document["consensus"].get("validators") or [],
        "app_hash": "",
        "app_state": document["app_state"],
    }


def comet_params(params: dict[str, Any]) -> dict[str, Any]:
    """Consensus parameters as genesis files write them: the age of evidence in nanoseconds, where proto JSON has seconds (``172800s``)."""
    evidence: dict[str, Any] = params.get("evidence") or {}
    age = evidence.get("max_age_duration")
    if not isinstance(age, str) or not age.endswith("s"):
        return dict(params)
    whole, _, part = age[:-1].partition(".")
    return {**params, "evidence": {**evidence, "max_age_duration": str(int(whole) * 10**9 + int(part[:9].ljust(9, "0")))}}


def save(document: dict[str, Any], path: Path) -> None:
    """Write a document, whole or not at all."""
    temporary = path.with_name(path.name + ".new")
    temporary.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", "utf-8")
    os.replace(temporary, path)
