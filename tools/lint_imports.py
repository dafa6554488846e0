"""Holds the layers apart (docs/architecture.md): who may import whom.

- a module imports no other module (capabilities come through ``chain/app.py``), and neither ``chain.abci`` nor ``chain.api``
- ``chain`` imports ``modules`` in ``app.py`` alone
- ``chain.testing`` is for tests and tools: nothing of the node imports it
- nothing but tests and benches imports ``tests``, ``bench`` or ``tools``
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("chain", "modules", "genesis")


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
    if name.startswith("chain.testing") and importer[:2] != ("chain", "testing"):
        return "the node does not depend on what tests it"
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
