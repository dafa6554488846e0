"""Earnings that go to the wallet by themselves: what has matured on the chain is withdrawn when it is worth the fee.

    every hour: rewards of the beneficiary ─ mature ≥ threshold ─► MsgWithdraw, signed by the beneficiary's key

The chain says what there is to withdraw, so a run that died between two steps does nothing twice. Source: modules/pot/README.md (Maturity).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

import structlog

from chain.codec.registry import message_class
from chain.coins import CoinMessage
from sds_node.value_chain.client import AccountUnknown, TxRefused, ValueChainError

log = structlog.get_logger("withdraw")

MsgWithdraw: Final = message_class("stratos.pot.v1.MsgWithdraw")


class Sends(Protocol):
    """Signs and sends messages of one account (``value_chain.sender.Sender``)."""

    address: str

    async def send(self, messages: list[Any], memo: str = "") -> Any: ...


class Withdrawer:
    """Withdraws what ``mature_wei`` tells once it is ``threshold_wei``, to ``target`` (an account; empty: the wallet itself)."""

    def __init__(self, sender: Sends, mature_wei: Callable[[], Awaitable[int]], threshold_wei: int, target: str, every_s: float) -> None:
        self._sender, self._mature_wei, self._threshold_wei = sender, mature_wei, threshold_wei
        self._target, self._every_s = target or sender.address, every_s
        self.withdrawn_wei = 0
        """In this run."""
        self.problem = ""

    async def run(self) -> None:
        """Look every ``every_s`` seconds, until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(self._every_s)

    async def look(self) -> int:
        """Withdraw what is there, if it is enough. Returns the wei that went out."""
        try:
            amount_wei = await self._mature_wei()
            if amount_wei < max(self._threshold_wei, 1):
                self.problem = ""
                return 0
            result = await self._sender.send([withdraw(amount_wei, self._sender.address, self._target)])
        except (TxRefused, AccountUnknown, ValueChainError) as error:
            if str(error) != self.problem:
                log.warning("earnings are not withdrawn", wallet=self._sender.address, why=str(error))
            self.problem = str(error)
            return 0
        self.problem = ""
        self.withdrawn_wei += amount_wei
        log.info("earnings are withdrawn", amount_wei=amount_wei, to=self._target, tx=result.hash.hex().upper())
        return amount_wei


def withdraw(amount_wei: int, wallet: str, target: str) -> Any:
    """MsgWithdraw of a wallet's matured rewards to an account."""
    return MsgWithdraw(amount=[CoinMessage(denom="wei", amount=str(amount_wei))], wallet_address=wallet, target_address=target)
