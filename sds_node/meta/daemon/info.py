"""``meta.info``: what anyone may know of a meta node before he asks it for more.

    ledger ─ at most once a second ─► copy ─► everybody who asks        no copy is asked for again because a stranger asks often

Whoever asks needs no session and costs the ledger nothing. While it cannot be read, the last copy is told. Source: ADR 9.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

import structlog

from chain.codec.canonical import encode
from sds_node import asking
from sds_node.meta.ledger.engine import ReadView
from sds_node.meta.ledger.errors import LedgerError
from sds_node.meta.operations import AnyLedger
from sds_node.meta.rules.call import STATE_KEY
from sds_node.meta.rules.tables import STATE
from sds_node.meta.rules.wire import Operation
from sds_node.wire import errors as wire_errors
from sds_node.wire.connection import Connection
from sds_node.wire.stream import Stream

log = structlog.get_logger("spd")

FRESH_S: Final = 1.0
_PARAMS: Final = (
    "bytes_per_stos", "escrow_ratio_e18", "repair_ratio_e18", "retention_days", "grace_days", "trash_days", "longest_lease_s", "audits_per_day",
    "max_wallets_per_report", "epoch_duration_s",
)  # fmt: skip


class Info:
    """The handler. ``metas`` gives the MetaContacts of all meta nodes, ``count`` tells how many nodes take part in placement, ``is_ready`` whether the chain was followed to its end."""

    def __init__(
        self,
        ledger: AnyLedger,
        chain_id: str,
        meta_node: str,
        software: str,
        metas: Callable[[], Sequence[Any]],
        count: Callable[[], int],
        is_ready: Callable[[], bool],
        clock: Callable[[], float],
    ) -> None:
        self._ledger, self._chain_id, self._meta_node, self._software = ledger, chain_id, meta_node, software
        self._metas, self._count, self._is_ready, self._clock = metas, count, is_ready, clock
        self._copy: Any | None = None
        self._looked_s = float("-inf")
        self._looking: asyncio.Task[None] | None = None

    async def info(self, stream: Stream, connection: Connection) -> None:
        """Answers with a MetaInfo."""
        await stream.send(encode(await self.now()))

    async def now(self) -> Any:
        """The MetaInfo of now; what comes from the ledger is at most a second old, older only while the ledger cannot be read. Raises the refusal
        NOT_READY before it was read for the first time."""
        if asyncio.get_running_loop().time() - self._looked_s >= FRESH_S:
            if self._looking is None:
                self._looking = asyncio.get_running_loop().create_task(self._look())
            await asyncio.shield(self._looking)
        if self._copy is None:
            raise wire_errors.Refused(asking.NOT_READY, "this meta node cannot read its ledger now: ask again later, or another meta node")
        made = asking.MetaInfo()
        made.CopyFrom(self._copy)
        made.time_ms = int(self._clock() * 1_000)
        made.eligible_nodes, made.is_ready = self._count(), self._is_ready()
        return made

    async def _look(self) -> None:
        """Read the ledger once for all who ask."""
        try:
            self._copy = await self._ledger.query(self._of)
        except LedgerError as error:
            log.warning("the ledger cannot be read for meta.info", why=str(error))
        finally:
            self._looked_s, self._looking = asyncio.get_running_loop().time(), None

    def _of(self, view: ReadView) -> Any:
        made = asking.MetaInfo(chain_id=self._chain_id, meta_node=self._meta_node, software=self._software, metas=self._metas())
        made.sequence, made.app_hash = view.head.sequence, view.head.app_hash
        state = view.get(STATE, STATE_KEY)
        if state is not None:
            made.height = state.height
            made.params.CopyFrom(params_of(state))
        return made


def params_of(state: Any) -> Any:
    """The LedgerParams of the ledger's state row."""
    return type(Operation().found.params)(**{name: getattr(state, name) for name in _PARAMS})
