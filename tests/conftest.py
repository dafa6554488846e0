"""Every test finds the project's tools: those named by STRATOS_TOOLS, else ``.tools`` beside the code."""

from __future__ import annotations

import os
import sys
from pathlib import Path

_depth = sys.getrecursionlimit()
import py_ecc  # noqa: E402, F401  it raises the limit for the whole process, and text that nests too deep must fail as in a node

sys.setrecursionlimit(_depth)

os.environ.setdefault("STRATOS_TOOLS", str(Path(__file__).parent.parent / ".tools"))
