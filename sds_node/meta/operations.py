"""Operations of this meta node: numbered, signed, proposed. One of these for a ledger and a process, since it counts the nonces.

kind and message ─► Operation {chain id, meta node, nonce, until} ─ ledger key ─► SignedOperation ─► ledger ─► result, or LedgerRefused
                ├ what anyone may ask for is tried out on what is committed before ──────────────────┘   │
                └─ the next nonce ◄── this one was used, or is too far behind ───────────────────────────┘

What the ledger refuses is in its log, too. So what users ask for is tried out first, and only what would be applied is proposed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

import nacl.signing

from sds_node.meta.ledger.engine import ReadView
from sds_node.meta.ledger.errors import CODE_OK
from sds_node.meta.ledger.log import Head, Result
from sds_node.meta.rules.apply import rules
from sds_node.meta.rules.refusals import USED_NONCE
from sds_node.meta.rules.tables import META
from sds_node.meta.rules.wire import Operation, sign_operation

HOLDS_S: Final = 600
"""How long an operation may wait for its turn."""
MOST_NONCES: Final = 8
"""So many nonces are tried for one operation. Where blocks give the order, operations overtake each other, and those of a process that has ended may still
be on their way."""


class LedgerRefused(Exception):
    """The ledger refused an operation: ``code`` is one of ``rules.refusals``, the text says what was expected and what came."""

    def __init__(self, code: int, reason: str) -> None:
        self.code = code
        super().__init__(reason)


class AnyLedger(Protocol):
    """What is asked of a ledger, with a local log or with blocks."""

    @property
    def head(self) -> Head: ...
    async def propose(self, operation: bytes) -> Result: ...
    async def query(self, question: Callable[[ReadView], Any]) -> Any: ...


def _is_known() -> None:
    """The time is."""


class Proposer:
    """Proposes operations of meta node ``address`` (20 bytes), whose ledger key is ``key``. ``clock`` tells Unix seconds; ``check_time`` raises a LedgerError
    while nobody knows the time, and nothing is proposed then. Call ``start`` first.
    """

    def __init__(
        self,
        ledger: AnyLedger,
        chain_id: str,
        address: bytes,
        key: nacl.signing.SigningKey,
        clock: Callable[[], float],
        check_time: Callable[[], None] = _is_known,
    ) -> None:
        self.ledger, self.chain_id, self.address = ledger, chain_id, address
        self._key, self._clock, self._check_time, self._nonce = key, clock, check_time, 0
        self._rules = rules(chain_id)

    async def start(self) -> None:
        """Count on from the nonces that the ledger has seen."""
        self._nonce = await self._used()

    def propose(self, kind: str, message: Any) -> Awaitable[Result]:
        """The Result of an operation of that kind (a field of Operation), once it is on disk. The nonce is taken at once, in the order of the calls.

        Raises LedgerRefused; what the ledger raises when it cannot do anything.
        """
        self._nonce += 1
        return self._proposed(kind, message, self._signed(kind, message, self._nonce))

    async def propose_tried(self, kind: str, message: Any) -> Result:
        """``propose``, of what the rules do not refuse as the ledger stands: that is in no log. Raises the same."""
        await self.try_out(kind, message)
        return await self.propose(kind, message)

    async def try_out(self, kind: str, message: Any) -> None:
        """Raises LedgerRefused for an operation that the ledger would refuse now. Nothing is written, and no nonce used."""

        def tried(view: ReadView) -> tuple[int, str]:
            row = view.get(META, (self.address,))
            operation = self._signed(kind, message, 1 if row is None else row.nonce + 1)
            return view.try_out(self._rules, operation, int(self._clock() * 1_000))

        code, reason = await self.ledger.query(tried)
        if code != CODE_OK:
            raise LedgerRefused(code, reason)

    def _signed(self, kind: str, message: Any, nonce: int) -> bytes:
        # The ledger's time never goes back: where it is ahead of the clock, it is the one that operations are judged by.
        until_s = max(int(self._clock()), self.ledger.head.time_ms // 1_000) + HOLDS_S
        operation = Operation(chain_id=self.chain_id, meta_node=self.address, nonce=nonce, until_s=until_s)
        field = getattr(operation, kind)
        field.CopyFrom(message)
        field.SetInParent()
        return sign_operation(operation, self._key)

    async def _proposed(self, kind: str, message: Any, raw: bytes) -> Result:
        self._check_time()
        result = await self.ledger.propose(raw)
        for _ in range(MOST_NONCES - 1):
            if result.code != USED_NONCE:
                break
            used = await self._used()
            self._nonce = max(self._nonce, used) + 1
            self._check_time()
            result = await self.ledger.propose(self._signed(kind, message, self._nonce))
        if not result.is_applied:
            raise LedgerRefused(result.code, result.reason)
        return result

    async def _used(self) -> int:
        """The highest nonce that the ledger has seen."""
        row = await self.ledger.query(lambda view: view.get(META, (self.address,)))
        return 0 if row is None else row.nonce
