"""Test builds of the node: ``old`` knows no upgrade, ``new`` is the first build after it; both have the chain agree on that upgrade.

python -m tests.node.upgrading old|new start --home …
"""

from __future__ import annotations

import sys
from typing import Any

import chain.node
from chain.application import Application
from chain.authority import GOV_ADDRESS
from chain.cli.main import main
from chain.codec.registry import message_class
from chain.context import Context
from chain.crypto import address as bech32
from tests import builds

NAME, STORE = builds.name(1), builds.store(1)
AGREED, HEIGHT = 3, 8
"""The block that takes the plan, and the plan's height."""
MESSAGE = "cosmos.upgrade.v1beta1.MsgSoftwareUpgrade"


def build(*arguments: Any, is_new: bool, **options: Any) -> Application:
    app = builds.build(int(is_new), *arguments, **options)

    def agree(ctx: Context, state: Any) -> None:
        if ctx.height == AGREED:
            plan = {"name": NAME, "height": HEIGHT, "info": "a test build"}
            message = message_class(MESSAGE)(authority=bech32.encode(GOV_ADDRESS), plan=plan)
            app.executor._handlers[MESSAGE].execute(ctx, state, message)

    app._end.append(agree)
    return app


if __name__ == "__main__":
    which = sys.argv.pop(1)
    chain.node.build_application = lambda *arguments, **options: build(*arguments, is_new=which == "new", **options)
    main()
