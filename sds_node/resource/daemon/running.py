"""``ppd start``: a whole resource node as a process, from its home to its last word.

home.held ─► keys, config ─► ValueChain, ChainAuthority ─► ResourceNode ─► control socket, monitor ─► SIGTERM, SIGINT, ``stop`` ─► graceful stop
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

import nacl.signing
import structlog

from chain.crypto import address as bech32
from chain.crypto.keys import PrivateKey
from sds_node.control import Command, ControlError, ControlServer
from sds_node.resource.daemon.config import Config, threshold_wei
from sds_node.resource.daemon.earnings import all_earnings
from sds_node.resource.daemon.home import Home, HomeError
from sds_node.resource.daemon.links import first_of
from sds_node.resource.daemon.node import DRAIN_S, ResourceNode
from sds_node.resource.daemon.web import Monitor
from sds_node.resource.daemon.withdrawing import Withdrawer
from sds_node.resource.receipts import ReceiptsError
from sds_node.resource.store import StoreError
from sds_node.value_chain import views
from sds_node.value_chain.authority import ChainAuthority
from sds_node.value_chain.client import ValueChain, ValueChainError
from sds_node.value_chain.sender import Sender

log = structlog.get_logger("ppd")

FIRST_LOOK_S: Final = 5.0
PAID_S: Final = 60.0
LOOKS: Final = 2
"""So often in a row the chain has to show that a node that leaves is registered again."""


class Beside(Protocol):
    """What runs along with a node: its gateway."""

    async def start(self) -> None: ...
    async def stop(self) -> None: ...


class Running:
    """A node, its socket and its monitor, until ``stop`` is set. ``run`` returns after a graceful stop.

    ``key`` is the P2P key, ``wallet`` the owner's, which only automatic withdrawal needs. ``beside`` gives what runs along, started last and stopped first. Raises what ``ResourceNode`` raises, HomeError.
    """

    def __init__(
        self,
        home: Home,
        config: Config,
        key: nacl.signing.SigningKey,
        wallet: PrivateKey | None = None,
        clock: Callable[[], float] = time.time,
        beside: Callable[[ValueChain, ResourceNode], Beside] | None = None,
    ) -> None:
        self._make_beside = beside
        self._home, self._config, self._key, self._wallet, self._clock = home, config, key, wallet, clock
        self._stop, self._anew = asyncio.Event(), asyncio.Event()
        self.node: ResourceNode | None = None
        self.monitor: Monitor | None = None
        self.is_up = asyncio.Event()
        self._paid_to = ""
        self._seen_staying = 0
        self._chain: ValueChain | None = None

    def stop(self) -> None:
        """Begin the graceful stop."""
        self._stop.set()

    async def run(self, *, with_signals: bool = True) -> None:
        """Run until ``stop``, SIGTERM, SIGINT or SIGHUP; started anew in between when the chain pays another account."""
        if not self._config.chain.id:
            raise HomeError("chain.id is not set: `ppd config set chain.id stratos-1`, or make the home with `ppd init --chain-id`")
        if with_signals:
            # A closed terminal stops the node as it should be; under nohup it runs on.
            hangup = () if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (signal.SIGHUP,)
            for one in (signal.SIGTERM, signal.SIGINT, *hangup):
                asyncio.get_running_loop().add_signal_handler(one, self._stop.set)
        async with ValueChain(self._config.chain.rpc) as chain:
            while not self._stop.is_set():
                await self._run(chain)

    async def _run(self, chain: ValueChain) -> None:
        authority = ChainAuthority(chain, self._config.chain.id, clock=self._clock)
        with contextlib.suppress(ValueChainError, TimeoutError):
            async with asyncio.timeout(FIRST_LOOK_S):
                await authority.refresh()
        beneficiary = await self._beneficiary(chain)
        self._anew.clear()

        async def compare() -> None:
            while True:
                await asyncio.sleep(PAID_S)
                with contextlib.suppress(ValueChainError):
                    self.compare(node, await self._on_chain(chain))

        node = ResourceNode(
            self._home,
            self._config,
            self._key,
            beneficiary,
            authority,
            self._clock,
            chain_age_s=lambda: authority.age_s,
            background=(authority.run, compare),
            withdrawer=self._withdrawer(chain, beneficiary),
        )
        self.node, self._chain, self._paid_to = node, chain, beneficiary
        control = ControlServer(self._home.socket_path, self._commands(node))
        try:
            await node.start()
            await control.start()
            if self._config.monitor.port:
                self.monitor = Monitor(self.status, self.earnings, node.values)
                await self.monitor.start(self._config.monitor.host, self._config.monitor.port)
            beside = None if self._make_beside is None else self._make_beside(chain, node)
            if beside is not None:
                await beside.start()
        except BaseException:
            if self.monitor is not None:
                await self.monitor.close()
                self.monitor = None
            await control.close()
            await node.abandon()
            raise
        self.is_up.set()
        await self._until_stopped(node)
        if beside is not None:
            await beside.stop()
        if self.monitor is not None:
            await self.monitor.close()
            self.monitor = None
        # The socket answers until the end, so that whoever waits sees what the node waits for.
        await node.stop(drain_s=DRAIN_S)
        await control.close()
        if node.failed is not None and node.failed.done():
            node.failed.result()

    async def status(self) -> dict[str, Any]:
        """``ResourceNode.status``, and where the page is. Only while the node is up."""
        assert self.node is not None
        told = await self.node.status()
        return {**told, "monitor": "" if self.monitor is None else f"http://{self.monitor.host}:{self.monitor.port}/"}

    async def earnings(self) -> dict[str, Any]:
        """``daemon.earnings.all_earnings`` of whoever is paid. Only while the node is up."""
        assert self.node is not None
        assert self._chain is not None
        return await all_earnings(self._chain, self._paid_to, self.node.earnings)

    async def _until_stopped(self, node: ResourceNode) -> None:
        assert node.failed is not None
        node.failed.add_done_callback(lambda _: self._stop.set())
        await first_of(None, self._stop, self._anew)

    def _commands(self, node: ResourceNode) -> dict[str, Command]:
        async def as_status(_: Mapping[str, Any]) -> Any:
            try:
                return await self.status()
            except (ReceiptsError, StoreError):
                raise ControlError("the node is stopping, or its disk fails: see its log") from None

        async def as_earnings(_: Mapping[str, Any]) -> Any:
            return await self.earnings()

        async def maintenance(arguments: Mapping[str, Any]) -> Any:
            seconds = arguments.get("seconds")
            if type(seconds) is not int:
                raise ControlError("expected how many seconds maintenance lasts")
            try:
                metas = await node.set_maintenance(seconds)
            except (ValueError, HomeError) as error:
                raise ControlError(str(error)) from None
            return {"maintenance_until_s": node.maintenance_until_s, "meta_nodes": metas}

        async def leave(_: Mapping[str, Any]) -> Any:
            node.leave()
            return {"is_leaving": True}

        async def stay(_: Mapping[str, Any]) -> Any:
            node.stay()
            return {"is_leaving": False}

        async def announce(_: Mapping[str, Any]) -> Any:
            node.announce()
            return {"meta_nodes": len(node.links)}

        async def stop(_: Mapping[str, Any]) -> Any:
            self._stop.set()
            return {"is_stopping": True}

        return {
            "status": as_status,
            "earnings": as_earnings,
            "maintenance": maintenance,
            "leave": leave,
            "stay": stay,
            "announce": announce,
            "stop": stop,
        }

    # --- who is paid ----------------------------------------------------------------------------------------------------------

    async def _beneficiary(self, chain: ValueChain) -> str:
        """The account that the chain pays for this node; what was known last, or the settings say, while it does not answer."""
        found, is_leaving = "", False
        try:
            async with asyncio.timeout(FIRST_LOOK_S):
                there = await self._on_chain(chain)
                if there is not None:
                    found, is_leaving = bech32.encode(there.beneficiary), there.standing is views.Standing.LEAVING
        except (ValueChainError, TimeoutError) as error:
            log.warning("the value chain does not answer: the node goes on with what it knows", rpc=self._config.chain.rpc, why=str(error))
        if found:
            self._home.remember(beneficiary=found, is_leaving=is_leaving)
        chosen = found or self._home.state().beneficiary or self._config.keys.beneficiary or self._config.keys.wallet
        if not chosen:
            raise HomeError("keys.wallet is not set: make or import the owner's key with `ppd keys add` or `ppd keys import`")
        return chosen

    async def _on_chain(self, chain: ValueChain) -> views.ResourceNode | None:
        return await views.resource_node(chain, bech32.decode(self._config.keys.p2p, bech32.NODE))

    def compare(self, node: ResourceNode, there: views.ResourceNode | None) -> None:
        """Follow what the chain says of the node now: whether it leaves, and who is paid, for whom it is started anew, since limits name him."""
        if there is None:
            return
        is_leaving = there.standing is views.Standing.LEAVING
        if is_leaving and not node.state.is_leaving:
            node.leave()
        elif node.state.is_leaving and not is_leaving:
            # The chain's node that is asked may be some blocks behind one that took `ppd exit`.
            self._seen_staying += 1
            if self._seen_staying >= LOOKS:
                node.stay()
        if is_leaving or not node.state.is_leaving:
            self._seen_staying = 0
        paid = bech32.encode(there.beneficiary)
        if paid != node.beneficiary and not self._anew.is_set():
            node.remember(beneficiary=paid)
            log.warning("the chain pays another account for this node, which starts anew", pays=paid, paid_before=node.beneficiary)
            self._anew.set()

    def _withdrawer(self, chain: ValueChain, beneficiary: str) -> Withdrawer | None:
        settings = self._config.withdrawal
        if not settings.automatic or self._wallet is None:
            return None
        sender = Sender(chain, self._wallet, clock=self._clock)
        if sender.address != beneficiary:
            log.warning(
                "earnings are not withdrawn by themselves: the key of another account is paid", wallet=sender.address, beneficiary=beneficiary
            )
            return None

        async def mature_wei() -> int:
            return (await views.rewards(chain, bech32.decode(beneficiary))).mature_wei

        return Withdrawer(sender, mature_wei, threshold_wei(self._config), settings.target, settings.every_s)
