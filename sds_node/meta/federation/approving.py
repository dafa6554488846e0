"""``meta.approve``: what a meta node has others approve before the ledger takes it, and what it approves for them.

    approve(Window | CloseEpoch) ─► all others, at once ─┬─ window: proposed.py has its leaves on disk and checked them ────────────────────────► signature
                                                         └─ close_epoch: Reporter.check_close, its own books cannot show these wallets either ──► signature
                                                          └─ refused: why, and the serials of leaves that are bad or settled already ─────────────────► Said.bad
        each checked under its sender's key; enough of them, or time is over ─► back: who is slow is not waited for

Whoever asks is the meta node that the Approval names. A window that was begun with is looked at to its end when the answer is not waited for: whoever asks again
in a moment finds it done. Source: ADR 10; rules/approvals.py.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any, Final

import nacl.signing
import structlog

from chain.codec.canonical import encode
from chain.codec.registry import message_class
from modules.settlement.documents import signed_by_key
from sds_node import asking, p2p
from sds_node.documents import PACKAGE, lease_quorum
from sds_node.meta.books.others import MAX_BAD_SERIALS, BadWindow, Unfinished, UnsureWindow
from sds_node.meta.books.proposed import TooManyProposed
from sds_node.meta.federation.peers import Bounds, Peers
from sds_node.meta.ledger.errors import Refused as LedgerRefused
from sds_node.meta.operations import Said
from sds_node.meta.relay.reporter import NotYet, Unequal
from sds_node.meta.rules.approvals import APPROVAL_DOMAIN, Approval, approval_bytes, sign_approval
from sds_node.meta.rules.wire import opened
from sds_node.transfers import parsed
from sds_node.value_chain.client import ValueChainError
from sds_node.wire import errors as wire_errors
from sds_node.wire.connection import Handler

log = structlog.get_logger("metas")

APPROVE_S: Final = 60.0
"""So long others have at most: a window's leaves go to those who approve it, and are checked there."""
BRIEF_S: Final = 10.0
"""So long they have for a window with few leaves, and a second more for each ``LEAVES_A_SECOND``: who does not answer must not keep the next window or release."""
LEAVES_A_SECOND: Final = 400
MAX_REPLY_BYTES: Final = 64 << 10
APPROVE: Final = Bounds(2, asking.MAX_APPROVAL_BYTES, per_s=2, burst=100)
"""Each receipt of a window is checked."""

ApprovalReply: Final = message_class(f"{PACKAGE}.ApprovalReply")

CheckWindow = Callable[[bytes, Any], Awaitable[None]]
"""(meta node, Window): ``Approvals.check_window``."""
CheckClose = Callable[[Any], Awaitable[None]]
"""CloseEpoch: ``Reporter.check_close``."""


class Approving:
    """Of the meta node of ``peers``, whose ledger key is ``key``."""

    def __init__(self, peers: Peers, chain_id: str, key: nacl.signing.SigningKey) -> None:
        self._peers, self._chain_id, self._key = peers, chain_id, key

    async def approve(self, message: Any) -> Said:
        """What others say of a Window or CloseEpoch of this meta node: as many signatures as it needs; fewer when time is over. Raises LedgerError."""
        await self._peers.refresh()
        keys = {address: row.ledger_key for address, row in self._peers.active().items()}
        needed = lease_quorum(max(1, len(keys))) - 1
        if needed <= 0:
            return Said()
        body = approval_bytes(self._chain_id, self._peers.address, message)
        signatures: dict[bytes, bytes] = {}
        bad: dict[bytes, frozenset[bytes]] = {}
        unsure: dict[bytes, frozenset[bytes]] = {}
        asked = self._peers.ask_all(asking.META_APPROVE, body, most_bytes=MAX_REPLY_BYTES, timeout_s=_time_s(message))
        async with aclosing(asked) as answers:  # type: ignore[type-var]
            async for address, raw in answers:
                given = _reply(raw)
                if given.meta_node == address and signed_by_key(APPROVAL_DOMAIN, body, keys.get(address, b""), given.signature):
                    signatures[address] = bytes(given.signature)
                    if len(signatures) == needed:
                        break
                elif given.why:
                    log.info("a meta node does not approve", node=p2p.format_address(address), why=wire_errors.bounded_text(given.why))
                    bad[address] = frozenset(bytes(one) for one in given.bad_serials[:MAX_BAD_SERIALS])
                    unsure[address] = frozenset(bytes(one) for one in given.unsure_serials[:MAX_BAD_SERIALS])
                else:
                    log.warning("an approval of a meta node does not hold", node=p2p.format_address(address))
        return Said(list(signatures.items()), bad, unsure)

    def handlers(self, window: CheckWindow, close: CheckClose) -> dict[str, Handler]:
        """The method for ``wire.node.Node``."""

        async def answer(caller: bytes, head: bytes, body: bytes) -> bytes:
            return await self._answer(window, close, caller, body)

        return {asking.META_APPROVE: self._peers.guarded(APPROVE, answer)}

    async def _answer(self, window: CheckWindow, close: CheckClose, caller: bytes, body: bytes) -> bytes:
        try:
            asked = opened(Approval, body)
        except LedgerRefused as error:
            raise wire_errors.BadRequest(str(error)) from None
        kind = asked.WhichOneof("what")
        if kind is None or len(getattr(asked, kind).approvals):
            raise wire_errors.BadRequest("expected an Approval of a window or close_epoch without its approvals")
        if asked.chain_id != self._chain_id or asked.meta_node != caller:
            raise wire_errors.Refused(asking.NOT_EQUAL, "expected an Approval on this chain, asked for by the meta node that it names")
        try:
            if kind == "window":
                await window(caller, asked.window)
            else:
                await close(asked.close_epoch)
        except BadWindow as error:
            if not error.serials:
                raise wire_errors.Refused(asking.NOT_EQUAL, str(error)) from None
            # An answer, since a refusal has no room for them.
            named = {"unsure_serials" if isinstance(error, UnsureWindow) else "bad_serials": error.serials}
            return encode(ApprovalReply(meta_node=self._peers.address, why=wire_errors.bounded_text(str(error)), **named))
        except (Unequal, Unfinished) as error:
            # NotYet and Unfinished may be over in a moment.
            raise wire_errors.Refused(asking.NOT_READY if isinstance(error, NotYet | Unfinished) else asking.NOT_EQUAL, str(error)) from None
        except TooManyProposed as error:
            raise wire_errors.Busy(str(error)) from None
        except ValueChainError as error:
            raise wire_errors.Refused(asking.NOT_READY, f"the chain's node of this meta node does not tell: {error}") from None
        return encode(ApprovalReply(meta_node=self._peers.address, signature=sign_approval(body, self._key)))


def _time_s(message: Any) -> float:
    """How long others have to approve it."""
    if message.DESCRIPTOR.name != "Window":
        return APPROVE_S
    return min(APPROVE_S, BRIEF_S + int(message.receipts_count) / LEAVES_A_SECOND)


def _reply(raw: bytes) -> Any:
    try:
        return parsed(ApprovalReply, raw)
    except wire_errors.BadRequest:
        return ApprovalReply()
