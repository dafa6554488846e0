"""Who may sign what, as a node of the value chain tells it: ``sds_node.documents.Authority``, renewed every few seconds.

    chain ── bonded meta nodes, registered keys ──► ChainAuthority ──► leases, order limits, documents of others are judged

While the chain does not answer what was known last stays known; ``age_s`` says how old it is.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection

import structlog

from sds_node.value_chain import views
from sds_node.value_chain.client import ValueChain, ValueChainError

log = structlog.get_logger("value_chain")


class WrongChain(ValueChainError):
    """The node that is asked follows another chain."""


class ChainAuthority:
    """Of chain ``chain_id``; ``run`` asks every ``refresh_s``. Knows nobody before the first ``refresh``. ``clock`` tells Unix seconds."""

    def __init__(self, chain: ValueChain, chain_id: str, *, refresh_s: float = 10.0, clock: Callable[[], float] = time.time) -> None:
        self._chain, self._chain_id, self._refresh_s, self._clock = chain, chain_id, refresh_s, clock
        self._keys: dict[bytes, bytes] = {}
        self._active: frozenset[bytes] = frozenset()
        self._refreshed_s: float | None = None

    @property
    def chain_id(self) -> str:
        return self._chain_id

    @property
    def age_s(self) -> float:
        """Seconds since the chain told it; infinite before it ever did."""
        return float("inf") if self._refreshed_s is None else max(0.0, self._clock() - self._refreshed_s)

    def ledger_key(self, meta_node: bytes) -> bytes | None:
        """The ledger key that a meta node registered, also of one that has left."""
        return self._keys.get(meta_node)

    def active_meta_nodes(self) -> Collection[bytes]:
        """Addresses (20 bytes) of those that are bonded and not suspended."""
        return self._active

    async def refresh(self) -> None:
        """Ask now. Raises WrongChain, ChainUnavailable, QueryFailed; then what was known stays."""
        status = await self._chain.status()
        if status.chain_id != self._chain_id:
            raise WrongChain(f"{self._chain.url} is a node of chain {status.chain_id[:64]!r}: expected one of {self._chain_id!r}; name another node")
        # One height for both, so that nobody is active with a key of another time.
        height = await self._chain.committed_height()
        keys = await views.meta_keys(self._chain, height)
        nodes = await views.bonded_meta_nodes(self._chain, height)
        self._keys.update({address: one.ledger_key for address, one in keys.items() if one.ledger_key})
        self._active = frozenset(node.address for node in nodes if node.is_active)
        self._refreshed_s = self._clock()

    async def run(self) -> None:
        """Refresh until cancelled; what goes wrong is logged once until it works again."""
        is_told = False
        while True:
            try:
                await self.refresh()
                is_told = False
            except ValueChainError as error:
                if not is_told:
                    log.warning("meta nodes and keys cannot be read from the value chain", reason=str(error), age_s=round(min(self.age_s, 1e9)))
                is_told = True
            await asyncio.sleep(self._refresh_s)
