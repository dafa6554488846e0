"""Operations of this meta node: numbered, signed, proposed. One of these for a ledger and a process, since it counts the nonces.

kind and message ─► Operation {chain id, meta node, nonce, until} ─ ledger key ─► SignedOperation ─► ledger ─► result, or LedgerRefused
                ├ what anyone may ask for is tried out on what is committed before ──────────────────┘   │
                └─ the next nonce ◄── this one was used, or is too far behind ───────────────────────────┘

What the ledger refuses is in its log, too. So what users ask for is tried out first, and only what would be applied is proposed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, NamedTuple, Protocol

import nacl.signing

from sds_node.meta.ledger.engine import ReadView
from sds_node.meta.ledger.errors import CODE_OK
from sds_node.meta.ledger.log import Head, Result
from sds_node.meta.rules.apply import rules
from sds_node.meta.rules.approvals import approvals_needed, approved
from sds_node.meta.rules.refusals import OUT_OF_TIME, USED_NONCE
from sds_node.meta.rules.tables import META
from sds_node.meta.rules.wire import Operation, sign_operation

HOLDS_S: Final = 600
"""How long an operation may wait for its turn."""
MOST_NONCES: Final = 8
"""So many nonces are tried for one operation. Where blocks give the order, operations overtake each other, and those of a process that has ended may still
be on their way."""


class LedgerRefused(Exception):
    """The ledger refused an operation: ``code`` is one of ``rules.refusals``, the text says what was expected and what came. ``is_logged``: it may be in the
    log for all that."""

    def __init__(self, code: int, reason: str, *, is_logged: bool = True) -> None:
        self.code, self.is_logged = code, is_logged
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
            raise LedgerRefused(code, reason, is_logged=False)

    def until_s(self) -> int:
        """Until when (Unix seconds) what is proposed now holds."""
        # The ledger's time never goes back: where it is ahead of the clock, it is the one that operations are judged by.
        return max(int(self._clock()), self.ledger.head.time_ms // 1_000) + HOLDS_S

    def _signed(self, kind: str, message: Any, nonce: int) -> bytes:
        operation = Operation(chain_id=self.chain_id, meta_node=self.address, nonce=nonce, until_s=self.until_s())
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
            # No block applies it after its time, and hardly any takes it.
            raise LedgerRefused(result.code, result.reason, is_logged=result.code != OUT_OF_TIME)
        return result

    async def _used(self) -> int:
        """The highest nonce that the ledger has seen."""
        row = await self.ledger.query(lambda view: view.get(META, (self.address,)))
        return 0 if row is None else row.nonce


class Said(NamedTuple):
    """What other meta nodes say of a Window or CloseEpoch. ``signatures``: (meta node, signature) of those who approve it; ``bad``: by meta node, the ids of
    the leaves that do not hold there, or are settled already; ``unsure``: of those of which it does not know enough."""

    signatures: Sequence[tuple[bytes, bytes]] = ()
    bad: Mapping[bytes, Collection[bytes]] = MappingProxyType({})
    unsure: Mapping[bytes, Collection[bytes]] = MappingProxyType({})


class Asked(NamedTuple):
    """What came of asking for approvals. ``message``: with as many as it needs, None where too few approve; ``why``: how many were expected and did;
    ``said``: what others said then; ``enough``: of as many others one at least is honest, while fewer than a third lie."""

    message: Any | None
    why: str = ""
    said: Said = Said()
    enough: int = 1


Approve = Callable[[Any], Awaitable[Said]]
"""A Window or CloseEpoch → what others say of it: as many signatures as it needs; fewer where they do not approve in time."""


async def nobody_approves(message: Any) -> Said:
    """``Approve`` of a network where one meta node's word is enough."""
    return Said()


async def with_approvals(ledger: AnyLedger, approve: Approve, message: Any, what: str) -> Asked:
    """Have a Window or CloseEpoch approved; ``what`` says in words what it is. Raises LedgerError, what ``approve`` raises."""
    needed: int = await ledger.query(approvals_needed)
    said = await approve(message) if needed else Said()
    found = list(said.signatures)[:needed]
    if len(found) < needed:
        return Asked(None, f"expected {needed} other meta nodes to approve {what}, {len(found)} did", said, needed + 1)
    return Asked(approved(message, found))
