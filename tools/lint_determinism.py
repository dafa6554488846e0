"""Refuses what makes two nodes disagree, in the code whose results are consensus (docs/modules.md, "Determinism").

Checked folders: ``modules/``, ``chain/store/``, ``chain/tx/``, ``chain/codec/`` and the consensus files beside them. A line that
must break a rule for a reason carries ``# determinism: <reason>``.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CHECKED = (
    "modules",
    "chain/store",
    "chain/tx",
    "chain/codec",
    "chain/coins.py",
    "chain/dec.py",
    "chain/gas.py",
    "chain/ozone.py",
    "chain/quorum.py",
    "chain/reports.py",
    "chain/resource_nodes.py",
    "chain/application",
)
BANNED_MODULES = {
    "random": "randomness differs between nodes",
    "secrets": "randomness differs between nodes",
    "uuid": "randomness differs between nodes",
    "time": "the block time is ctx.time_ns",
    "datetime": "the block time is ctx.time_ns",
    "locale": "text rules are ASCII, written out",
    "platform": "nodes run on different platforms",
    "socket": "consensus code talks to nobody",
    "decimal": "its context is global state; use chain.dec",
    "fractions": "use chain.dec",
    "math": "its functions are float; use integer arithmetic",
}
BANNED_CALLS = {
    "float": "floats round differently; use integers or chain.dec",
    "hash": "hash() of text differs between processes",
    "id": "addresses differ between processes",
    "eval": "never",
    "exec": "never",
    "input": "consensus code asks nobody",
}
BANNED_ATTRIBUTES = {
    ("os", "environ"): "the environment differs between nodes",
    ("os", "getenv"): "the environment differs between nodes",
    ("os", "urandom"): "randomness differs between nodes",
}
UNICODE_METHODS = {"isalnum", "isalpha", "isdigit", "isdecimal", "isnumeric", "isidentifier", "isprintable", "casefold", "title"}


class Finder(ast.NodeVisitor):
    """Collects (line, reason) for one file."""

    def __init__(self) -> None:
        self.found: list[tuple[int, str]] = []

    def report(self, node: ast.AST, reason: str) -> None:
        self.found.append((getattr(node, "lineno", 0), reason))

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            top = alias.name.split(".")[0]
            if top in BANNED_MODULES:
                self.report(node, f"import of {top}: {BANNED_MODULES[top]}")

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        top = (node.module or "").split(".")[0]
        if top in BANNED_MODULES:
            self.report(node, f"import of {top}: {BANNED_MODULES[top]}")

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, float):
            self.report(node, f"float literal {node.value}: floats round differently")

    def visit_BinOp(self, node: ast.BinOp) -> None:
        if isinstance(node.op, ast.Div):
            self.report(node, "'/' makes a float: use // or chain.dec (a path join goes into a function outside consensus code)")
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Name) and node.func.id in BANNED_CALLS:
            self.report(node, f"{node.func.id}(): {BANNED_CALLS[node.func.id]}")
        if isinstance(node.func, ast.Attribute) and node.func.attr in UNICODE_METHODS:
            self.report(node, f".{node.func.attr}() follows the Unicode tables of the Python version: use an ASCII rule")
        self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if isinstance(node.value, ast.Name) and (node.value.id, node.attr) in BANNED_ATTRIBUTES:
            self.report(node, f"{node.value.id}.{node.attr}: {BANNED_ATTRIBUTES[node.value.id, node.attr]}")
        self.generic_visit(node)

    def visit_For(self, node: ast.For) -> None:
        self.check_iterable(node.iter)
        self.generic_visit(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        self.check_iterable(node.iter)
        self.generic_visit(node)

    def check_iterable(self, node: ast.expr) -> None:
        set_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("set", "frozenset")
        if isinstance(node, ast.Set | ast.SetComp) or set_call:
            self.report(node, "iteration over a set: its order differs between processes; use sorted()")


def files() -> Iterator[Path]:
    for name in CHECKED:
        path = ROOT / name
        if path.is_file():
            yield path
        elif path.with_suffix(".py").is_file():
            yield path.with_suffix(".py")
        else:
            yield from sorted(path.rglob("*.py"))


def main() -> int:
    bad = 0
    for path in files():
        text = path.read_text()
        lines = text.splitlines()
        finder = Finder()
        finder.visit(ast.parse(text, str(path)))
        for line, reason in sorted(finder.found):
            if "# determinism:" in lines[line - 1]:
                continue
            bad += 1
            print(f"{path.relative_to(ROOT)}:{line}: {reason}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
