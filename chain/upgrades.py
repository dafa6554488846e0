"""What this version can upgrade a running chain to, and how: the list that the upgrade module takes its handlers from.

An upgrade is agreed on by a proposal that names it. At its height a binary whose list lacks the name stops; one that has it runs the handler,
which by default brings every module from the version in the state to its own, and starts the modules that are new.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import structlog

from chain.context import Context
from chain.errors import InvariantBroken
from chain.module import Module
from chain.store.api import StateWriter

log = structlog.get_logger("upgrade")

Versions: TypeAlias = Mapping[str, int]
"""Module name → consensus version."""
Migrate: TypeAlias = Callable[[Context, StateWriter, Versions], Versions]


def run_all(ctx: Context, state: StateWriter, versions: Versions, migrate: Migrate) -> Versions:
    """The handler of an upgrade that needs nothing but its modules' migrations."""
    return migrate(ctx, state, versions)


@dataclass(frozen=True, slots=True)
class Upgrade:
    """One upgrade by its proposal's ``name``, the stores that begin with it, and its handler, which is given the modules' migrations."""

    name: str
    stores_added: tuple[str, ...] = ()
    handler: Callable[[Context, StateWriter, Versions, Migrate], Versions] = run_all

    def bound(self, migrate: Migrate) -> Migrate:
        """The handler with the migrations it may run."""
        return lambda ctx, state, versions: self.handler(ctx, state, versions, migrate)


UPGRADES: Final[tuple[Upgrade, ...]] = ()


def migrations_of(modules: Sequence[Module]) -> Migrate:
    """Brings a state from given versions to those of ``modules``, in the SDK's order: by name, ``auth`` last. A module without a version starts
    from its default genesis. Raises InvariantBroken where a step is missing.
    """
    ordered = sorted(modules, key=lambda module: (module.name == "auth", module.name))

    def migrate(ctx: Context, state: StateWriter, versions: Versions) -> Versions:
        for module in ordered:
            if module.name in versions:
                _migrate_one(ctx, state, module, versions[module.name])
            elif module.genesis is not None:
                log.info("adding a new module", module=module.name)
                if module.genesis.load(ctx, state, module.genesis.default()):
                    raise InvariantBroken(f"module {module.name} is new and must not change the validator set")
        return {module.name: module.consensus_version for module in ordered}

    return migrate


def _migrate_one(ctx: Context, state: StateWriter, module: Module, version: int) -> None:
    for at in range(version, module.consensus_version):
        step = module.migrations.get(at)
        if step is None:
            raise InvariantBroken(f"no migration found for module {module.name} from version {at} to version {at + 1}")
        log.info("migrating", module=module.name, from_version=at, to_version=at + 1)
        step(ctx, state)


def missing_stores(mounted: Sequence[str], present: Sequence[str], due: Upgrade | None) -> list[str]:
    """Stores that a database lacks although no ``due`` upgrade (of the next block) begins them: it belongs to an older version."""
    begins = due.stores_added if due is not None else ()
    return sorted(set(mounted) - set(present) - set(begins))


def write_upgrade_info(path: Path, name: str, height: int, info: str) -> None:
    """``data/upgrade-info.json`` as the SDK writes it and cosmovisor reads it, whole or not at all. Raises OSError."""
    told = {"name": name, "time": "0001-01-01T00:00:00Z", "height": height, **({"info": info} if info else {})}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".new")
    temporary.write_text(json.dumps(told, separators=(",", ":"), ensure_ascii=False), "utf-8")
    temporary.chmod(0o600)
    os.replace(temporary, path)
