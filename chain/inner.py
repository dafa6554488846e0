"""Messages that another execution runs: of a passed proposal, of an authz grantee, of a callback.

    module ── run ──► check_stateless, handler          errors of the message go through
    module ── attempt ──► mark, run each, keep or undo  all or nothing: what fails leaves neither a write nor an event

Every module may ask for the router; ``chain/app.py`` fills it once all modules are there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import structlog

from chain.context import Context
from chain.errors import AppError, PanicError, UnknownRequest
from chain.gas import CIRCUIT_LOOKUP_COST
from chain.machine import MACHINE_ERRORS
from chain.module import MessageHandler
from chain.store.api import StateWriter

log = structlog.get_logger("inner")


class MessageRouter:
    """Finds the handler of a message and runs it inside an execution that is under way."""

    def __init__(self) -> None:
        self._handlers: Mapping[str, MessageHandler] = {}

    def fill(self, handlers: Mapping[str, MessageHandler]) -> None:
        """Take the handlers of every module: protobuf full name → handler."""
        self._handlers = dict(handlers)

    def knows(self, full_name: str) -> bool:
        """True if some module handles messages of this protobuf full name."""
        return full_name in self._handlers

    def check(self, message: Any) -> None:
        """The stateless check of ``message``; one that nobody handles has none. Raises what the check raises."""
        handler = self._handlers.get(message.DESCRIPTOR.full_name)
        if handler is not None:
            handler.check_stateless(message)

    def run(self, ctx: Context, state: StateWriter, message: Any) -> Any:
        """Check and execute ``message``; returns its response. Who must sign it is the caller's to check. Raises what the handler raises."""
        handler = self._handlers.get(message.DESCRIPTOR.full_name)
        if handler is None:
            raise UnknownRequest(f"no message handler found for /{message.DESCRIPTOR.full_name}")
        handler.check_stateless(message)
        ctx.gas.consume(CIRCUIT_LOOKUP_COST, "Has")
        return handler.execute(ctx if ctx.next_message is None else replace(ctx, next_message=None), state, message)

    def attempt(self, ctx: Context, state: StateWriter, messages: Sequence[Any]) -> tuple[list[Any], int, Exception | None]:
        """Execute all ``messages`` or none: (responses, how many ran, None), or ([], index of the one that failed, its error) with every
        write and event undone. An exception that no rule raises is an error of that message (PanicError), told to the log.
        """
        start, events = state.mark(), ctx.events.mark()
        responses: list[Any] = []
        for at, message in enumerate(messages):
            try:
                responses.append(self.run(ctx, state, message))
            except MACHINE_ERRORS:
                raise
            except Exception as error:
                state.rollback(start)
                ctx.events.rollback(events)
                return [], at, self._told(error, message)
        return responses, len(messages), None

    @staticmethod
    def _told(error: Exception, message: Any) -> Exception:
        if isinstance(error, AppError):
            return error
        log.error("a message raised what no rule raises", message=message.DESCRIPTOR.full_name, exc_info=error)
        return PanicError("recovered: the node's log has the details")
