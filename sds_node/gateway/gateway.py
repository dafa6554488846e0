"""The gateway itself: its parts, and a method's call from parameters to result.

    server.py ─ (method, params) ─► Gateway.call ─► table.py: types ─► methods/…: what it does ─► result

Source: sds.md 5; storage-protocol.md 5.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import structlog

from sds_node.gateway import table
from sds_node.gateway.backend import Ask, Backend, BackendError, NotFound, WalletState
from sds_node.gateway.dialects import asked, signer
from sds_node.gateway.downloading import Downloads
from sds_node.gateway.methods import WORK
from sds_node.gateway.results import METHOD_NOT_FOUND, SERVER_ERROR, Failed, RpcError, failure, result
from sds_node.gateway.spool import Room
from sds_node.gateway.table import METHODS, Method, Params
from sds_node.gateway.uploading import Uploads
from sds_node.gateway_settings import Settings
from sds_node.legacy import recent_sequences
from sds_node.requests import KEPT_S, MAX_SEQUENCES, USES, Accepted, Action, UsedStrings, WalletSignature

log = structlog.get_logger("gateway")

DISCOVER: Final = "rpc.discover"
MAX_ANSWERS: Final = 10_000
STEP_S: Final = 5.0

Work = Callable[["Gateway", Params], Awaitable[dict[str, Any]]]
T = TypeVar("T")


class Gateway:
    """A gateway. ``folder`` is where uploads lie until they are stored; ``clock`` tells Unix seconds. Call ``run`` as a task, ``close`` at the end."""

    def __init__(
        self,
        backend: Backend,
        folder: Path,
        clock: Callable[[], float],
        settings: Settings | None = None,
        *,
        service_status: Callable[[str], str] | None = None,
        version: str = "1",
    ) -> None:
        self.backend, self.clock, self.settings, self.version = backend, clock, settings or Settings(), version
        room = Room(folder, self.settings.spool_bytes)
        self.room = room
        self.uploads = Uploads(backend, room, clock, self.settings)
        self.downloads = Downloads(room, clock, self.settings)
        self.used = UsedStrings(gap_until_s=0)
        self.service_status = service_status or (lambda _: "Registration Status: gateway | Mining: no")
        self._methods: dict[str, tuple[Method, Work]] = {one.name: (one, WORK[one.name]) for one in METHODS}
        self._answers: OrderedDict[str, tuple[float, dict[str, Any]]] = OrderedDict()
        self._pending: dict[str, asyncio.Future[Any]] = {}

    @property
    def now_s(self) -> int:
        return int(self.clock())

    async def call(self, name: str, given: Any) -> Any:
        """A method's result. Raises RpcError."""
        if name == DISCOVER:
            return table.discover(METHODS, self.version)
        found = self._methods.get(name)
        if found is None:
            raise RpcError(METHOD_NOT_FOUND, f"the method {name[:80]} does not exist/is not available")
        return await worked(found[0], lambda params: found[1](self, params), given)

    async def run(self) -> None:
        """Drop what is idle, until it is cancelled."""
        while True:
            await asyncio.sleep(STEP_S)
            self.uploads.expire()
            self.downloads.expire()

    async def close(self) -> None:
        """End all that is under way."""
        await self.uploads.close()
        await self.downloads.close()
        await self.backend.close()

    # --- for methods ---

    def signer(self, params: Params, method: str) -> WalletSignature:
        """Who signed a call. Raises Failed."""
        return signer(params, method, self.backend.chain_id, self.now_s)

    async def asked(self, params: Params, method: str, action: Action, subject: str) -> tuple[Ask, Accepted]:
        """The string of a call, with a recent number of the wallet where the action has one. Raises Failed, BackendError."""
        signature = self.signer(params, method)
        sequences: list[str] = []
        if action in USES:
            known = await self.known(signature.wallet)
            sequences = self.recent(known) if action.value[1] else []
        return asked(params, action, subject, sequences, signature, self.used, self.now_s)

    @staticmethod
    def recent(known: WalletState) -> list[str]:
        """The numbers that may have been signed: downloads begun at once end one after another."""
        return recent_sequences(known.sequence, MAX_SEQUENCES)

    async def is_known(self, wallet: str) -> bool:
        """Whether the ledger knows a wallet. One that is new has nothing, and its strings are not shown to the network."""
        return (await self.backend.wallet(wallet)).is_known

    async def known(self, wallet: str) -> WalletState:
        """A wallet that the ledger knows: strings of others would fill the record. Raises NotFound."""
        found = await self.backend.wallet(wallet)
        if not found.is_known:
            raise NotFound(f"not enough ozone to process (Available: 0): nothing is known of wallet {wallet}; buy ozone for it first")
        return found

    async def once(self, ask: Ask, text: str, work: Callable[[], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
        """The result of what a string asks for; sent again, which clients do that lost the answer, the same result."""
        key = f"{ask.action.name}\n{text}"
        now = self.clock()
        while self._answers and (len(self._answers) > MAX_ANSWERS or next(iter(self._answers.values()))[0] < now - KEPT_S):
            self._answers.popitem(last=False)
        known = self._answers.get(key)
        if known is not None:
            return known[1]
        pending = self._pending.get(key)
        if pending is None:
            pending = self._pending[key] = asyncio.ensure_future(work())
            pending.add_done_callback(lambda done: self._answered(key, done))
        return await asyncio.shield(pending)

    async def joined(self, key: str, work: Callable[[], Awaitable[T]]) -> T:
        """The result of work that is done once at a time: who asks for it while it goes on gets the same."""
        pending = self._pending.get(key)
        if pending is None:
            pending = self._pending[key] = asyncio.ensure_future(work())
            pending.add_done_callback(lambda done: self._left(key, done))
        result: T = await asyncio.shield(pending)
        return result

    def _left(self, key: str, done: asyncio.Future[Any]) -> None:
        del self._pending[key]
        if not done.cancelled():
            done.exception()  # whoever waits has it, or is gone

    def _answered(self, key: str, done: asyncio.Future[dict[str, Any]]) -> None:
        del self._pending[key]
        if not done.cancelled() and done.exception() is None:
            self._answers[key] = (self.clock(), done.result())


async def worked(method: Method, work: Callable[[Params], Awaitable[dict[str, Any]]], given: Any) -> dict[str, Any]:
    """A method's result; what cannot be done as its code and a sentence. Raises RpcError."""
    params = table.read_params(method, given)
    try:
        return await work(params)
    except Failed as error:
        return result(error.shown, detail=error.detail)
    except BackendError as error:
        told = failure(error)
        return result(told.shown, detail=told.detail)
    except RpcError:
        raise
    except Exception:
        log.exception("a call failed by a fault of this gateway", method=method.name)
        raise RpcError(SERVER_ERROR, "the gateway failed at this call; its log says why") from None
