"""Builds of the node, one newer than the other, for chains that are upgraded.

python -m tests.builds NUMBER start --home …     NUMBER 0 is the version of this tree; N knows the upgrades v1 to vN
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import chain.app
import chain.node
from chain.application import Application
from chain.cli.main import main
from chain.context import Context
from chain.module import Module
from chain.upgrades import Upgrade
from tools.nodes import STCHAIND

MODULE = "feegrant"
"""Its consensus version is higher by one in every build, and a step brings its state there."""
AT, MIGRATED, COUNTED = b"at", b"migrated", b"counted"
_module = chain.app.feegrant_module
_build = chain.node.build_application


def name(number: int) -> str:
    """The upgrade that build ``number`` begins with."""
    return f"v{number}"


def store(number: int) -> str:
    """The store that begins with it: AT is the height it was applied at, MIGRATED that of the module's step, COUNTED how many blocks the build made."""
    return f"notes{number}"


def number(upgrade: str) -> int:
    """The build that begins with an upgrade."""
    return int(upgrade.removeprefix("v"))


def program(number: int) -> Sequence[str]:
    """For ``Localnet.programs``."""
    return ("tests.builds", str(number)) if number else STCHAIND


def _put(key: bytes, number: int, ctx: Context, state: Any) -> None:
    state.store(store(number)).set(key, str(ctx.height).encode())


def _handler(number: int, ctx: Context, state: Any, versions: Any, migrate: Any) -> Any:
    _put(AT, number, ctx, state)
    return migrate(ctx, state, versions)


def _count(number: int, ctx: Context, state: Any) -> None:
    notes = state.store(store(number))
    notes.set(COUNTED, str(int(notes.get(COUNTED) or b"0") + 1).encode())


def _later_module(number: int, *arguments: Any) -> Module:
    module = _module(*arguments)
    first = module.consensus_version
    steps = {first + at - 1: partial(_put, MIGRATED, at) for at in range(1, number + 1)}
    return replace(module, consensus_version=first + number, migrations={**module.migrations, **steps})


def build(number: int, *arguments: Any, **options: Any) -> Application:
    """As chain/app.py's ``build_application``, of build ``number``."""
    upgrades = tuple(Upgrade(name(at), (store(at),), partial(_handler, at)) for at in range(1, number + 1))
    chain.app.feegrant_module = partial(_later_module, number)
    try:
        app = _build(*arguments, upgrades=upgrades, **options)
    finally:
        chain.app.feegrant_module = _module
    if number:
        app._end.append(partial(_count, number))
    return app


if __name__ == "__main__":
    chain.node.build_application = partial(build, int(sys.argv.pop(1)))
    main()
