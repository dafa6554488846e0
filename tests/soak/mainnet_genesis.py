"""A chain that begins from a given genesis file: blocks of its own validators, invariants in every one, and what queries say held against the file.

Nobody has the validators' keys: the driver's votes carry no signatures, which no application looks at.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from chain.app import build_application
from chain.application import Application, Settings
from chain.codec.json import to_json
from chain.codec.registry import message_class
from chain.store.kv import MemoryBackend
from chain.testing.driver import Driver
from genesis import build, document
from genesis.migrate import read

MOVED: dict[str, tuple[str, ...]] = {"bank": ("send_enabled",)}
"""Parameters that are kept elsewhere after the migration."""


def run_genesis(path: Path, blocks: int) -> dict[str, Any]:
    """Figures of ``blocks`` blocks on two applications that differ in all an operator may choose. Raises AssertionError, GenesisError."""
    started = time.monotonic()
    apps = [
        build_application(MemoryBackend(), Settings(invariant_period=1)),
        build_application(MemoryBackend(), Settings(invariant_period=1, native_core=False, fast_sends=False, workers=0)),
    ]
    made, left_out = read(path, apps[0].modules)
    build.validate(made, apps[0].modules)
    made["consensus"]["params"] = to_json(document.consensus_params(made))
    driver = Driver(apps, made)
    driver.start()
    begun = time.monotonic()
    for _ in range(blocks):
        driver.next_block()
    seconds = time.monotonic() - begun
    app, state = apps[0], json.loads(path.read_text())["app_state"]
    module_accounts = [one for one in app.export()["auth"]["accounts"] if one["@type"].endswith(".ModuleAccount")]
    accounts = len(app.export()["auth"]["accounts"])
    assert accounts == len(state["auth"]["accounts"]) + len(module_accounts)
    supply = to_json(_ask(app, "cosmos.bank.v1beta1", "TotalSupply"))["supply"]
    assert supply == state["bank"]["supply"]
    compared = sum(_compare(app, name, section) for name, section in state.items() if name not in left_out)
    figures = {
        "blocks": blocks,
        "begun_in_s": round(begun - started, 1),
        "blocks_in_s": round(seconds, 1),
        "supply": ",".join(coin["amount"] + coin["denom"] for coin in supply),
        "validator_powers": [validator.power for validator in driver.validators],
        "genesis_accounts": len(state["auth"]["accounts"]),
        "module_accounts": len(module_accounts),
        "parameters_compared": compared,
        "left_out": left_out,
        "app_hash": driver.app_hash.hex(),
    }
    for one in apps:
        one.close()
    return figures


def mainnet_genesis(seed: int, path: str) -> dict[str, Any]:
    """100 blocks on the mainnet's file: the numbers of reference stratos-chain.md 1.7."""
    figures = run_genesis(Path(path), 100)
    assert figures["supply"] == f"{10**26}wei"
    assert sorted(figures["validator_powers"]) == [10_000, 90_000, *[99_000] * 5]
    assert figures["genesis_accounts"] == 2858
    return figures


def _ask(app: Application, package: str, method: str) -> Any:
    return app.query_rpc(f"/{package}.Query/{method}", message_class(f"{package}.Query{method}Request")())[0]


def _compare(app: Application, name: str, section: Any) -> int:
    """How many parameters of the file's section the module's query gives as the file has them. Raises AssertionError for one it does not."""
    package = f"cosmos.{name}.v1beta1"
    wanted = (section or {}).get("params") or {}
    if name == "gov":
        package = "cosmos.gov.v1"
    if not wanted or f"/{package}.Query/Params" not in app.queries.paths:
        return 0
    told = to_json(_ask(app, package, "Params"))["params"]
    for key, value in wanted.items():
        assert key in MOVED.get(name, ()) or told[key] == value, f"{name}.params.{key}: the file has {value!r}, the query says {told[key]!r}"
    return len(wanted)
