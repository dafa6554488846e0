"""Every test finds the project's tools: those named by STRATOS_TOOLS, else ``.tools`` beside the code."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("STRATOS_TOOLS", str(Path(__file__).parent.parent / ".tools"))
