"""A ledger as the node's own loops ask it: while strangers keep all its readers busy, a loop waits for its turn instead of ending.

    loop ─ query ─► readers ─ Busy ─► 0.05 s, 0.1 s, 0.2 s … ─► readers        strangers ─ query ─► readers ─ Busy ─► told so, they ask again

``OwnProposer`` gives the same to what has a Proposer: proposing goes through the one that counts the nonces, reading through the patient ledger.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Any, Final, TypeVar

from sds_node.meta.federation.ledger import FederatedLedger
from sds_node.meta.ledger.engine import Ledger, ReadView
from sds_node.meta.ledger.errors import Busy
from sds_node.meta.ledger.log import Head, Result
from sds_node.meta.operations import Proposer

FIRST_WAIT_S: Final = 0.05
LONGEST_WAIT_S: Final = 1.0
PATIENCE: Final = 30
"""So many times a question is asked: about 25 s in all."""

T = TypeVar("T")


class PatientLedger:
    """``ledger`` for those who cannot be told to come again. Operations are not repeated: whether one that was Busy is still wanted, its proposer says."""

    def __init__(self, ledger: Ledger | FederatedLedger) -> None:
        self._ledger = ledger

    @property
    def head(self) -> Head:
        """The committed head."""
        return self._ledger.head

    def snapshot(self) -> AbstractContextManager[ReadView]:
        """A view of the last commit on a session of its own."""
        return self._ledger.snapshot()

    async def propose(self, operation: bytes) -> Result:
        """As the ledger does."""
        return await self._ledger.propose(operation)

    async def query(self, question: Callable[[ReadView], T]) -> T:
        """As the ledger does; raises Busy only when its readers were taken each time."""
        wait_s = FIRST_WAIT_S
        for _ in range(PATIENCE - 1):
            try:
                return await self._ledger.query(question)
            except Busy:
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, LONGEST_WAIT_S)
        return await self._ledger.query(question)


class OwnProposer(Proposer):
    """The proposer of the node's own loops, beside ``proposer``, which users' requests have: there is one count of nonces."""

    def __init__(self, proposer: Proposer, ledger: PatientLedger) -> None:
        self._shared = proposer
        self.ledger, self.chain_id, self.address = ledger, proposer.chain_id, proposer.address

    async def start(self) -> None:
        """The other one was started."""

    def propose(self, kind: str, message: Any) -> Awaitable[Result]:
        """As ``proposer`` does."""
        return self._shared.propose(kind, message)

    def __getattr__(self, name: str) -> Any:
        """What else a Proposer has is the shared one's."""
        return getattr(self._shared, name)
