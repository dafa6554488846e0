"""Puts resource nodes to work: their deposit is made effective when they are online, raised when it grew.

    online, bonded, nothing effective, no bad score ─► MsgUpdateEffectiveDeposit of this meta node; the chain gathers a quorum of them

Every meta node does so by itself, by what it sees. Source: stratos-chain.md 3; storage-protocol.md 1.8 (approvals gather for an hour); sds.md 3.4.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Final

import structlog

from chain.codec.registry import message_class
from chain.crypto import address as bech32
from sds_node.meta.ledger.engine import ReadView
from sds_node.meta.ledger.errors import LedgerError
from sds_node.meta.operations import AnyLedger
from sds_node.meta.rules.tables import GONE, LEAVING, NODE
from sds_node.value_chain.client import TxRefused, ValueChain, ValueChainError
from sds_node.value_chain.sender import Sender
from sds_node.value_chain.views import resource_node

log = structlog.get_logger("activation")

MsgUpdateEffectiveDeposit: Final = message_class("stratos.register.v1.MsgUpdateEffectiveDeposit")
AGAIN_S: Final = 600.0
"""An approval is not repeated sooner: others may be slower to see the node."""
MAX_REMEMBERED: Final = 100_000


class Activation:
    """``meta_node`` is this one's network address (text), ``sender`` its owner's wallet; ``online`` tells the numbers of nodes that are heard of."""

    def __init__(
        self,
        chain: ValueChain,
        sender: Sender,
        ledger: AnyLedger,
        meta_node: str,
        online: Callable[[], Collection[int]],
        *,
        least_score: int,
        every_s: float,
        clock: Callable[[], float],
    ) -> None:
        self._chain, self._sender, self._ledger, self._meta_node, self._online = chain, sender, ledger, meta_node, online
        self._least_score, self._every_s, self._clock = least_score, every_s, clock
        self._approved: dict[bytes, tuple[int, float]] = {}
        """Node → how many wei were approved last, and when."""

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            try:
                await self.step()
            except (LedgerError, ValueChainError) as error:
                log.warning("deposits could not be looked at", why=str(error))
            await asyncio.sleep(self._every_s)

    async def step(self) -> list[bytes]:
        """Look at all nodes that are online. Returns the addresses (20 bytes) of those for which an approval was sent."""
        numbers = list(self._online())
        done = []
        for address in await self._ledger.query(lambda view: self._wanted(view, numbers)):
            if await self._approve(address):
                done.append(address)
        return done

    def _wanted(self, view: ReadView, numbers: Collection[int]) -> list[bytes]:
        """Addresses of nodes that may work as far as the ledger knows."""
        rows = [view.get(NODE, (number,)) for number in numbers]
        return [row.address for row in rows if row is not None and row.standing not in (LEAVING, GONE) and row.score >= self._least_score]

    async def _approve(self, address: bytes) -> bool:
        node = await resource_node(self._chain, address)
        if node is None or node.tokens_wei <= node.effective_wei or node.standing in (LEAVING, GONE):
            return False
        wanted_wei, now_s = node.tokens_wei, self._clock()
        before = self._approved.get(address)
        if before is not None and before[0] == wanted_wei and now_s - before[1] < AGAIN_S:
            return False
        if len(self._approved) >= MAX_REMEMBERED:
            self._approved.clear()
        text = bech32.encode(address, bech32.NODE)
        message = MsgUpdateEffectiveDeposit(
            reporters=[self._meta_node], reporter_owner=[self._sender.address], network_address=text, effective_tokens=str(wanted_wei)
        )
        self._approved[address] = wanted_wei, now_s
        try:
            result = await self._sender.send([message])
        except TxRefused as error:
            log.warning("the chain refused an effective deposit", node=text, why=str(error))
            return False
        log.info("deposit approved", node=text, amount_wei=str(wanted_wei), height=result.height)
        return True
