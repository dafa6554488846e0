"""Answers to challenges: whoever doubts that an epoch's data is there names a leaf on chain, and this meta node shows it.

    settlement's open challenges, every few seconds ─► leaf and path from the books ─► MsgAnswerChallenge ─► half of the bond is this meta node's
                                                            └─ not here, or refused: told once, tried again ever later

Whoever of the signers is first has answered; the others' messages are refused before they cost a fee. Those that end first are answered first. Sources:
storage-protocol.md 1.9; modules/settlement/README.md (Challenges).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, Protocol

import structlog

from chain.codec.registry import message_class
from sds_node.meta.books.books import BooksError
from sds_node.value_chain import views
from sds_node.value_chain.client import TxRefused, ValueChain, ValueChainError
from sds_node.value_chain.sender import Sender

log = structlog.get_logger("reporter")

MsgAnswerChallenge: Final = message_class("stratos.settlement.v1.MsgAnswerChallenge")
POLL_S: Final = 5.0
LONGEST_PAUSE_S: Final = 60.0


class Proves(Protocol):
    """What is asked of the books."""

    async def leaf_with_path(self, number: int, index: int) -> Any:
        """The LeafProof of a leaf of an epoch. Raises BooksError."""
        ...


class Answers:
    """Answers challenges with the wallet of ``sender``; ``clock`` tells Unix seconds."""

    def __init__(self, chain: ValueChain, sender: Sender, books: Proves, clock: Callable[[], float], *, poll_s: float = POLL_S) -> None:
        self._chain, self._sender, self._books, self._clock, self._poll_s = chain, sender, books, clock, poll_s
        self._failed: dict[int, tuple[int, float]] = {}  # challenge → how often it could not be answered; when it is tried again
        self.answered = 0
        """Challenges that this meta node answered."""

    async def run(self) -> None:
        """Answer until cancelled."""
        pause_s = self._poll_s
        while True:
            try:
                await self.step()
                pause_s = self._poll_s
            except ValueChainError as error:
                log.warning("challenges cannot be answered now", reason=str(error))
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            await asyncio.sleep(pause_s)

    async def step(self) -> int:
        """Look once, and answer what is open. How many were answered. Raises ValueChainError when the chain does not answer, or nothing can be sent."""
        found = {int(one.challenge_id): one for one in await views.challenges(self._chain)}
        self._failed = {number: failed for number, failed in self._failed.items() if number in found}
        answered = 0
        for number, challenge in found.items():
            if self._failed.get(number, (0, 0.0))[1] <= self._clock() and await self._answer(number, challenge):
                answered += 1
        return answered

    async def _answer(self, number: int, challenge: Any) -> bool:
        try:
            leaf = await self._books.leaf_with_path(int(challenge.epoch), int(challenge.leaf_index))
            message = MsgAnswerChallenge(responder=self._sender.address, challenge_id=number, leaf=leaf)
            result = await self._sender.send([message])
        except (BooksError, TxRefused) as error:
            if any(one.challenge_id == number for one in await views.challenges(self._chain, int(challenge.epoch))):
                self._not_answered(number, challenge, str(error))
            return False  # else somebody was faster, or the epoch went in the meantime
        self.answered += 1
        log.info("a challenge is answered", challenge=number, epoch=challenge.epoch, leaf=challenge.leaf_index, height=result.height)
        return True

    def _not_answered(self, number: int, challenge: Any, why: str) -> None:
        """Say so once, and try again ever later: another meta node may answer, fees may be there again."""
        failures = self._failed.get(number, (0, 0.0))[0] + 1
        self._failed[number] = failures, self._clock() + min(self._poll_s * 2 ** min(failures, 16), LONGEST_PAUSE_S)
        if failures == 1:
            log.error(
                "a challenge is not answered by this meta node: unless another one does, its epoch becomes void",
                challenge=number,
                epoch=challenge.epoch,
                leaf=challenge.leaf_index,
                deadline_height=challenge.deadline_height,
                why=why,
            )
