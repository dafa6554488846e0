"""A test build of the node: ``stchaind`` with a message handler, a query handler and a CheckTx that raise what no rule raises."""

from __future__ import annotations

from typing import Any

import chain.node
from chain.application import Application
from chain.cli.main import main
from chain.module import MessageHandler

MEMO = "raise in CheckTx"
_build = chain.node.build_application


def _raise(*_: Any) -> Any:
    raise ZeroDivisionError("a bug of this test build")


def build(*arguments: Any, **options: Any) -> Application:
    app = _build(*arguments, **options)
    handlers: dict[str, MessageHandler] = dict(app.executor._handlers)
    handlers["cosmos.bank.v1beta1.MsgBurn"] = MessageHandler(_raise)
    app.executor._handlers = handlers
    app.queries.add({"/cosmos.bank.v1beta1.Query/Params": _raise})
    check = app._check

    def misbehaving(tx: Any, recheck: bool) -> Any:
        if getattr(tx, "memo", "") == MEMO:
            _raise()
        return check(tx, recheck)

    app._check = misbehaving  # type: ignore[method-assign]
    return app


if __name__ == "__main__":
    chain.node.build_application = build
    main()
