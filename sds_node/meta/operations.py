"""Operations of this meta node: numbered, signed, proposed. One of these for a ledger and a process, since it counts the nonces.

kind and message ─► Operation {chain id, meta node, nonce, until} ─ ledger key ─► SignedOperation ─► ledger ─► result, or LedgerRefused
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

import nacl.signing

from sds_node.meta.ledger.engine import ReadView
from sds_node.meta.ledger.log import Result
from sds_node.meta.rules.tables import META
from sds_node.meta.rules.wire import Operation, sign_operation

HOLDS_S: Final = 600
"""How long an operation may wait for its turn."""


class LedgerRefused(Exception):
    """The ledger refused an operation: ``code`` is one of ``rules.refusals``, the text says what was expected and what came."""

    def __init__(self, code: int, reason: str) -> None:
        self.code = code
        super().__init__(reason)


class AnyLedger(Protocol):
    """What is asked of a ledger, with a local log or with blocks."""

    async def propose(self, operation: bytes) -> Result: ...
    async def query(self, question: Callable[[ReadView], Any]) -> Any: ...


class Proposer:
    """Proposes operations of meta node ``address`` (20 bytes), whose ledger key is ``key``. ``clock`` tells Unix seconds. Call ``start`` first."""

    def __init__(self, ledger: AnyLedger, chain_id: str, address: bytes, key: nacl.signing.SigningKey, clock: Callable[[], float]) -> None:
        self.ledger, self.chain_id, self.address = ledger, chain_id, address
        self._key, self._clock, self._nonce = key, clock, 0

    async def start(self) -> None:
        """Count on from the nonces that the ledger has seen."""
        row = await self.ledger.query(lambda view: view.get(META, (self.address,)))
        self._nonce = 0 if row is None else row.nonce

    def propose(self, kind: str, message: Any) -> Awaitable[Result]:
        """The Result of an operation of that kind (a field of Operation), once it is on disk. The nonce is taken at once, in the order of the calls.

        Raises LedgerRefused; what the ledger raises when it cannot do anything.
        """
        self._nonce += 1
        operation = Operation(chain_id=self.chain_id, meta_node=self.address, nonce=self._nonce, until_s=int(self._clock()) + HOLDS_S)
        field = getattr(operation, kind)
        field.CopyFrom(message)
        field.SetInParent()
        return self._proposed(sign_operation(operation, self._key))

    async def _proposed(self, raw: bytes) -> Result:
        result = await self.ledger.propose(raw)
        if not result.is_applied:
            raise LedgerRefused(result.code, result.reason)
        return result
