"""One file per module, of the module's name. It holds

``OPERATIONS``   its ``Kind``s
``prepare``      optional: (section of app_state, choose), which sets parameters short enough for a history

A file counts where the application has a module of its name; ``test_simulation.py`` fails for a message type that no history executes.
"""

from __future__ import annotations

import importlib
import pkgutil
import random
from collections.abc import Callable, Iterable
from typing import Any

from tests.simulation.world import Kind


def _files(modules: Iterable[str]) -> list[Any]:
    present = frozenset(modules)
    names = sorted(found.name for found in pkgutil.iter_modules(__path__) if found.name in present)
    return [importlib.import_module(f"{__name__}.{name}") for name in names]


def kinds_of(modules: Iterable[str]) -> list[Kind]:
    """The operations of these modules, always in the same order."""
    return [kind for file in _files(modules) for kind in file.OPERATIONS]


def prepare(app_state: dict[str, Any], choose: random.Random) -> None:
    """Set the parameters of a genesis document's sections."""
    for file in _files(app_state):
        change: Callable[[Any, random.Random], None] | None = getattr(file, "prepare", None)
        if change is not None:
            change(app_state[file.__name__.rpartition(".")[2]], choose)
