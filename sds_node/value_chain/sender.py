"""Transactions of one key: one at a time, signed for the next sequence, until each is in a block.

    send ── lock ──► account ──► simulate ──► gas, fee ──► sign ──► broadcast ──► wait ──► TxResult
                        ▲  sequence was used (sdk/32)                  │    ▲
                        └──────────────────────────────────────────────┘    └ no answer: is it in a block? else the same bytes again

The same bytes can be executed once only, so sending them again is safe. Use one Sender for a key in a process.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from decimal import ROUND_CEILING, Decimal
from typing import Any, Final

import structlog

from chain.codec.registry import message_class
from chain.coins import Coin, Coins
from chain.crypto import address as bech32
from chain.crypto.keys import PrivateKey
from chain.tx.build import Signer, build_tx
from sds_node.value_chain.client import ChainUnavailable, QueryFailed, TxRefused, TxResult, ValueChain, tx_hash

log = structlog.get_logger("value_chain")

GAS_PRICE_WEI: Final = 10**9
"""The least that nodes take by their default configuration."""
TRIAL_GAS: Final = 200_000
MAX_GAS: Final = (1 << 63) - 1
TRIES: Final = 5
"""Sequences that are tried while others send with the same key."""
AGAIN_S: Final = 15.0
"""A transaction that is in no block after so long is sent again."""
_WRONG_SEQUENCE: Final = ("sdk", 32)


class Sender:
    """Sends messages that ``key`` signs. ``gas_price_wei`` is a unit's; simulated gas is multiplied by ``gas_adjustment``; ``include_s`` is the
    longest wait for a block, by ``clock`` (Unix seconds).
    """

    def __init__(
        self,
        chain: ValueChain,
        key: PrivateKey,
        *,
        gas_price_wei: int = GAS_PRICE_WEI,
        gas_adjustment: float = 1.3,
        include_s: float = 120.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if gas_price_wei < 0 or not 1 <= gas_adjustment <= 100 or include_s <= 0:
            raise ValueError(
                f"expected a price of gas from 0, an adjustment from 1 to 100 and a wait, got {gas_price_wei}, {gas_adjustment}, {include_s}"
            )
        self.address = bech32.encode(key.public_key.address)
        self._chain, self._key, self._clock = chain, key, clock
        self._gas_price_wei, self._adjustment, self._include_s = gas_price_wei, Decimal(str(gas_adjustment)), include_s
        self._lock = asyncio.Lock()
        self._chain_id = ""
        self._account: tuple[int, int] | None = None

    async def send(self, messages: Sequence[Any], memo: str = "", *, timeout_height: int = 0) -> TxResult:
        """The result of one transaction with these messages, which succeeded. Raises TxRefused, AccountUnknown, ChainUnavailable.

        After ChainUnavailable it may be in a block all the same, if the text names its hash; in none after ``timeout_height``, unless that is 0.
        """
        async with self._lock:
            for left in range(TRIES - 1, -1, -1):
                try:
                    return await self._send(messages, memo, timeout_height)
                except TxRefused as error:
                    self._account = None
                    if (error.codespace, error.code) != _WRONG_SEQUENCE or not left:
                        raise
                except (ChainUnavailable, asyncio.CancelledError):
                    self._account = None
                    raise
            raise AssertionError("the last try returns or raises")

    async def _send(self, messages: Sequence[Any], memo: str, timeout_height: int) -> TxResult:
        if not self._chain_id:
            self._chain_id = (await self._chain.status()).chain_id
        if self._account is None:
            self._account = await self._chain.account(self.address)
        number, sequence = self._account
        signers = [Signer(self._key.public_key, sequence, number)]
        # The fee is part of the trial: taking it costs gas.
        form: dict[str, Any] = {"signers": signers, "memo": memo, "timeout_height": timeout_height}
        trial = build_tx(messages, fee=self._fee(TRIAL_GAS), gas_limit=0, **form).for_simulation()
        gas = await self._simulated(trial)
        raw = build_tx(messages, fee=self._fee(gas), gas_limit=gas, **form).sign([self._key], self._chain_id)
        result = await self._included(raw)
        if (result.codespace, result.code) != _WRONG_SEQUENCE:
            self._account = (number, sequence + 1)
        if result.code:
            raise TxRefused(result.codespace, result.code, result.log)
        return result

    def _fee(self, gas: int) -> Coins:
        return (Coin("wei", gas * self._gas_price_wei),) if self._gas_price_wei else ()

    async def _simulated(self, trial: bytes) -> int:
        """Gas limit. Raises TxRefused with the reason for which the transaction would fail."""
        request = message_class("cosmos.tx.v1beta1.SimulateRequest")(tx_bytes=trial)
        try:
            answer = await self._chain.query("/cosmos.tx.v1beta1.Service/Simulate", request, message_class("cosmos.tx.v1beta1.SimulateResponse"))
        except QueryFailed as error:
            if "incorrect account sequence" in error.text:
                raise TxRefused(*_WRONG_SEQUENCE, error.text) from None
            raise TxRefused(error.codespace, error.code, error.text) from None
        gas = int((answer.gas_info.gas_used * self._adjustment).to_integral_value(ROUND_CEILING))
        if not 0 < gas <= MAX_GAS:
            raise ChainUnavailable(f"{self._chain.url} simulates {answer.gas_info.gas_used} gas: expected a number that a block may hold")
        return gas

    async def _included(self, raw: bytes) -> TxResult:
        """The result of a signed transaction in its block. Raises TxRefused, ChainUnavailable."""
        until, hash_ = self._clock() + self._include_s, tx_hash(raw)
        is_certain = True
        while True:
            try:
                await self._chain.broadcast(raw)
                is_certain = False
            except TxRefused as error:
                # Perhaps it is ours that used the sequence, after a broadcast whose answer was lost.
                found = None if is_certain else await self._found(hash_)
                if found is None:
                    raise error
                return found
            except ChainUnavailable as error:
                log.warning("the answer to a transaction was lost", hash=hash_.hex(), reason=str(error))
                is_certain = False
            left_s = until - self._clock()
            try:
                return await self._chain.wait(hash_, max(0.0, min(left_s, AGAIN_S)))
            except QueryFailed as error:
                raise ChainUnavailable(
                    f"{self._chain.url} does not tell what became of transaction {hash_.hex().upper()}: {error}; it has to index transactions"
                ) from None
            except ChainUnavailable as error:
                if left_s <= AGAIN_S:
                    raise ChainUnavailable(
                        f"transaction {hash_.hex().upper()} of {self.address} is in no block yet, and may still come in: ask for it before you repeat it "
                        f"({error})"
                    ) from None

    async def _found(self, hash_: bytes) -> TxResult | None:
        try:
            return await self._chain.wait(hash_, 5.0)
        except (ChainUnavailable, QueryFailed):
            return None
