"""``spd start``: a whole meta node as a process, from its home to its last word.

home.lock ─► keys ─► ValueChain, Sender ─► MetaNode ─► SIGTERM, SIGINT, ``stop`` ─► stopped in order
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from chain import metakeys
from chain.crypto.keys import PrivateKey
from chain.tx.fees import parse_amounts
from sds_node.meta.daemon.home import Home, HomeError
from sds_node.meta.daemon.node import MetaNode
from sds_node.meta.federation.comet import CometHome
from sds_node.meta.relay.founding import check_alone
from sds_node.value_chain import views
from sds_node.value_chain.client import ValueChain, until_answered
from sds_node.value_chain.sender import GAS_PRICE_WEI, Sender

log = structlog.get_logger("spd")

WAIT_S: Final = 2.0
Begun = Callable[[MetaNode], Awaitable[None]]


class Running:
    """A meta node until ``stop``. ``owner`` is the key of the wallet that owns it. ``begun`` is told of the node once it serves."""

    def __init__(self, home: Home, owner: PrivateKey, clock: Callable[[], float] = time.time) -> None:
        self._home, self._owner, self._clock = home, owner, clock
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """Begin to stop."""
        self._stop.set()

    async def run(self, begun: Begun, *, with_signals: bool = True) -> None:
        """Run until ``stop``, SIGTERM or SIGINT. Raises ConfigError, HomeError, and what ``MetaNode.start`` and its loops raise."""
        self._home.check()
        keys = metakeys.read(self._home.meta_keys)
        if with_signals:
            for one in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(one, self._stop.set)
        async with ValueChain(self._home.settings.chain.rpc) as chain:
            chain_id = await self._ready(chain, keys)
            if self._stop.is_set():
                return
            sender = Sender(chain, self._owner, gas_price_wei=self._gas_price_wei(), clock=self._clock)
            node = MetaNode(self._home, keys, self._owner.public_key.address, chain, sender, chain_id, self._clock)
            await node.start()
            assert node.failed is not None
            node.failed.add_done_callback(lambda _: self._stop.set())
            try:
                await begun(node)
                await self._stop.wait()
            finally:
                await node.stop()
            if node.failed.done():
                node.failed.result()

    def _gas_price_wei(self) -> int:
        text = self._home.settings.chain.gas_price
        return sum(one.amount for one in parse_amounts(text)) if text else GAS_PRICE_WEI

    async def _ready(self, chain: ValueChain, keys: metakeys.MetaKeys) -> str:
        """The chain's id, once the chain has this meta node with its keys. Raises HomeError for a node of another owner, ObservingError where other meta
        nodes are active, too, and the ledger is not one that they keep together."""
        is_told = False
        while not self._stop.is_set():
            status = await until_answered(chain.status)
            nodes = {node.address: node for node in await views.bonded_meta_nodes(chain)} if status.height else {}
            node = nodes.get(keys.address)
            if node is not None:
                if node.owner != self._owner.public_key.address:
                    raise HomeError(f"{keys.network_address} has another owner on chain {status.chain_id}: name his wallet in keys.owner")
                registered = (await views.meta_keys(chain)).get(keys.address)
                if registered is not None and registered.ledger_key == keys.ledger_consensus_pubkey:
                    if not CometHome(self._home.comet).is_made:
                        await check_alone(chain)
                    return str(status.chain_id)
            if not is_told:
                log.warning(
                    "waiting until the chain has this meta node: create it, have it voted in, and register its keys (docs/meta-nodes.md)",
                    node=keys.network_address,
                    height=status.height,
                    is_bonded=node is not None,
                )
                is_told = True
            try:
                async with asyncio.timeout(WAIT_S):
                    await self._stop.wait()
            except TimeoutError:
                pass
        return ""
