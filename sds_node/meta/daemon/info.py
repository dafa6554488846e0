"""``meta.info``: what anyone may know of a meta node before he asks it for more. Source: ADR 9."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from chain.codec.canonical import encode
from sds_node import asking
from sds_node.meta.ledger.engine import ReadView
from sds_node.meta.operations import AnyLedger
from sds_node.meta.rules.call import STATE_KEY
from sds_node.meta.rules.tables import STATE
from sds_node.meta.rules.wire import Operation
from sds_node.wire.connection import Connection
from sds_node.wire.stream import Stream

_PARAMS = (
    "bytes_per_stos", "escrow_ratio_e18", "repair_ratio_e18", "retention_days", "grace_days", "trash_days", "longest_lease_s", "audits_per_day",
    "max_wallets_per_report", "epoch_duration_s",
)  # fmt: skip


class Info:
    """The handler. ``count`` tells how many nodes take part in placement, ``is_ready`` whether the chain was followed to its end."""

    def __init__(
        self,
        ledger: AnyLedger,
        chain_id: str,
        meta_node: str,
        software: str,
        metas: Sequence[Any],
        count: Callable[[], int],
        is_ready: Callable[[], bool],
        clock: Callable[[], float],
    ) -> None:
        self._ledger, self._chain_id, self._meta_node, self._software = ledger, chain_id, meta_node, software
        self._metas, self._count, self._is_ready, self._clock = metas, count, is_ready, clock

    async def info(self, stream: Stream, connection: Connection) -> None:
        """Answers with a MetaInfo."""
        made = await self._ledger.query(self._of)
        made.time_ms = int(self._clock() * 1_000)
        made.eligible_nodes, made.is_ready = self._count(), self._is_ready()
        await stream.send(encode(made))

    def _of(self, view: ReadView) -> Any:
        made = asking.MetaInfo(chain_id=self._chain_id, meta_node=self._meta_node, software=self._software, metas=self._metas)
        made.sequence, made.app_hash = view.head.sequence, view.head.app_hash
        state = view.get(STATE, STATE_KEY)
        if state is not None:
            made.height = state.height
            made.params.CopyFrom(params_of(state))
        return made


def params_of(state: Any) -> Any:
    """The LedgerParams of the ledger's state row."""
    return type(Operation().found.params)(**{name: getattr(state, name) for name in _PARAMS})
