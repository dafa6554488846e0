"""Holds the layers apart (docs/architecture.md): who may import whom.

- a module imports no other module (capabilities come through ``chain/app.py``), and neither ``chain.abci`` nor ``chain.api``
- ``chain`` imports ``modules`` in ``app.py`` alone
- ``chain.testing`` is for tests and tools: nothing of the node imports it
- ``sds_node`` uses the chain's crypto, codec, coins, errors and quorum, how transactions and reports are made, how CometBFT is found and served,
  how a program begins, and what judges a receipt in settlement;
  ``meta``, ``resource`` and ``client`` do not know each other, nor does what they share know them; ``cli`` and ``testing`` know all of them; nothing
  imports ``sds_node``
- nothing but tests and benches imports ``tests``, ``bench`` or ``tools``
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("chain", "modules", "genesis", "sds_node")
OF_THE_CHAIN = (
    "chain.abci", "chain.codec", "chain.coins", "chain.comet", "chain.crypto", "chain.errors", "chain.launch", "chain.metakeys", "chain.quorum", "chain.reports",
    "chain.tx",
)  # fmt: skip
OF_SETTLEMENT = tuple(f"modules.settlement.{name}" for name in ("commitment", "documents", "leaves", "legacy", "params", "trees"))
ROLES = ("client", "gateway", "meta", "resource")
WHOLE = ("cli", "testing")
"""Parts of ``sds_node`` that put the others together: commands, and a network for tests."""


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every import in a file; ``from a import b`` counts as ``a.b``."""
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield node.lineno, "." * node.level + (node.module or "")
            else:
                for alias in node.names:
                    yield node.lineno, f"{node.module}.{alias.name}"


def problem(importer: tuple[str, ...], name: str) -> str | None:
    """Why a file of ``importer`` (parts of its path) may not import ``name``; None when it may."""
    target = name.split(".")
    if name.startswith("."):
        return "relative imports hide the layer: write the full name"
    if target[0] in ("tests", "bench", "tools"):
        return f"{importer[0]} must not depend on {target[0]}"
    if importer[0] == "modules":
        if target[0] == "modules" and target[1:2] != [importer[1]]:
            return "a module imports no other module: declare a Protocol and receive the capability from chain/app.py"
        if name.startswith(("chain.abci", "chain.api", "chain.app", "chain.application", "chain.cli", "chain.node")):
            return "a module knows context, state and message; the node around it is out of reach"
    if importer[0] == "chain" and target[0] == "modules" and importer != ("chain", "app.py"):
        return "chain reaches modules through chain/app.py alone"
    if importer[0] == "sds_node":
        return _storage_problem(importer, target, name)
    if target[0] == "sds_node":
        return "the chain does not know the storage network"
    if name.startswith("chain.testing") and importer[:2] != ("chain", "testing"):
        return "the node does not depend on what tests it"
    return None


def _storage_problem(importer: tuple[str, ...], target: list[str], name: str) -> str | None:
    if importer[1] in WHOLE:
        return None
    if target[0] in ("chain", "modules") and not any(name == one or name.startswith(f"{one}.") for one in OF_THE_CHAIN + OF_SETTLEMENT):
        return f"the storage network uses {', '.join(OF_THE_CHAIN)} and settlement's rules of evidence alone"
    if importer[1] == "gateway" and target[:2] == ["sds_node", "client"]:
        return None  # for the network a gateway is a client
    if target[0] == "sds_node" and target[1:2] and target[1] in (*ROLES, *WHOLE) and target[1] != importer[1]:
        return "meta, resource and client share the files beside them and wire, not each other"
    return None


def main() -> int:
    found = 0
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            relative = path.relative_to(ROOT)
            for line, name in imports(path):
                why = problem(relative.parts, name)
                if why:
                    found += 1
                    print(f"{relative}:{line}: import of {name}: {why}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
