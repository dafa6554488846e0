"""A gateway's end of legacy requests: a key of its own for each task, the wallet's string in place of a grant, the wallet's meta node first.

    Ask ─► StringClient ─ legacy.open ─► session of this key ─► questions as any client's; receipts by this key, evidence is the string

Source: docs/adr/0009 (``legacy.open``); storage-protocol.md 5.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from chain.codec.canonical import encode
from chain.codec.registry import message_class
from chain.crypto.keys import PrivateKey
from sds_node import asking
from sds_node.client import errors
from sds_node.client.leases import PAID, PROMO, Hold, Lease, Leases, amount
from sds_node.client.meta import MetaAddress, MetaClient
from sds_node.client.placing import TransferFailed
from sds_node.client.session import Session, WalletDocument
from sds_node.documents import PACKAGE
from sds_node.gateway.backend import Ask, BackendError, NotEnoughOzone, NotFound, StringRefused, Unreachable, WrongPassword
from sds_node.legacy import ranked
from sds_node.requests import Action, signed_text
from sds_node.transfers import TrafficEvidence
from sds_node.wire.errors import WireError

LegacyAsk: Final = message_class(f"{PACKAGE}.LegacyAsk")
LegacyGrant: Final = message_class("stratos.settlement.v1.LegacyGrant")
WAITS: Final = 10
WAIT_S: Final = 1.0
TASKS: Final = {Action.UPLOAD: "upload", Action.DOWNLOAD: "download", Action.DOWNLOAD_SHARED: "download_shared"}
_OF_STRINGS: Final = frozenset(asking.LEDGER_CODES + code for code in (28, 29, 30, 47))
"""Refusals of the ledger (rules/refusals.py) that say of a string: not signed, used before, not fresh, another number."""


def legacy_ask(ask: Ask) -> Any:
    """The LegacyAsk of a string."""
    signed = ask.signature
    return LegacyAsk(
        subject=ask.subject, sequence=ask.sequence, timestamp_s=ask.timestamp_s, public_key=signed.public_key, signature=signed.signature
    )  # fmt: skip


@dataclass(frozen=True, repr=False)
class StringSession(Session):
    """A session that a wallet's string opened: ``text`` is what was signed, and what nodes show for their pay."""

    ask: Ask | None = None
    text: str = ""

    def evidence(self, order_limit: Any, receipt: Any | None = None) -> Any:
        assert self.ask is not None
        signed = self.ask.signature
        grant = LegacyGrant(signed_text=self.text, public_key=signed.public_key, signature=signed.signature)
        made = TrafficEvidence(legacy_grant=grant, order_limit=order_limit)
        if receipt is not None:
            made.receipt.CopyFrom(receipt)
        return made


class StringClient(MetaClient):
    """A client of the meta nodes for one wallet, by its strings. Close it."""

    def __init__(self, wallet: str, address: bytes, chain_id: str, metas: Sequence[MetaAddress], clock: Callable[[], float]) -> None:
        session = StringSession(chain_id, wallet, secrets.token_bytes(32), WalletDocument(), clock)
        # The wallet's own key is not here; this one signs nothing, since the session is given.
        super().__init__(PrivateKey(secrets.token_bytes(32), "eth_secp256k1"), chain_id, metas, clock=clock, session=session)
        self.address, self._raw_address = wallet, address
        self._head = b""

    def use(self, ask: Ask, size_bytes: int = 0) -> None:
        """From now on sessions are opened by this string; an upload's is for ``size_bytes``."""
        text = signed_text(ask.action, ask.subject, ask.wallet, ask.sequence, ask.timestamp_s)
        self._session = StringSession(self.chain_id, ask.wallet, self._session.seed, WalletDocument(), self.clock, ask, text)
        made = asking.LegacySession(wallet=self._raw_address, size_bytes=size_bytes)
        getattr(made, TASKS.get(ask.action, "read")).CopyFrom(legacy_ask(ask))
        self._head = encode(made)

    def _in_turn(self, meta: bytes | None) -> list[Any]:
        found = super()._in_turn(meta)
        order = ranked(self._raw_address, (one.where.address for one in found))
        return sorted(found, key=lambda one: order.index(one.where.address))

    async def _opened(self, meta: Any) -> None:
        session = self._session
        async with self._opening:
            if meta.opened is not session:
                await meta.peer.ask(asking.LEGACY_OPEN, self._head, most_bytes=asking.MAX_ANSWER_BYTES)
                meta.opened = session


class TaskLease(Leases):
    """The one lease of a task: its string pays for no other."""

    def __init__(self, client: MetaClient) -> None:
        super().__init__(client)
        self.lease: Lease | None = None

    async def take(self, least_noz: int, most_noz: int, seconds: int) -> Lease:
        """A lease of up to ``most_noz``, at least ``least_noz``. Waits a little for what earlier leases of the wallet still hold.

        Raises NotEnoughOzone (the backend's), StorageError.
        """
        for left in reversed(range(WAITS)):
            row = await self._client.ask(asking.WALLET_INFO, None, asking.WalletRow)
            paid, promo = amount(row.paid_noz), amount(row.promo_noz)
            # Granted noz end some day, so they are used first.
            fund, balance = (PROMO, promo) if promo >= least_noz else (PAID, paid)
            if balance >= least_noz:
                break
            if not row.open_leases or not left:
                raise NotEnoughOzone(f"not enough ozone to process (Available: {paid + promo}  Required: {least_noz})")
            await asyncio.sleep(WAIT_S)
        noz = max(1, min(most_noz, balance))
        reply = await self._client.ask(asking.LEASE_TAKE, asking.LeaseHead(noz=noz, seconds=seconds, fund=fund), asking.LeaseReply)
        self.lease = self._checked(reply.certificate, noz, fund)
        self._open.append(self.lease)
        return self.lease

    async def hold(self, noz: int, least_noz: int | None = None) -> Hold:
        if self.lease is None or self.lease.is_over:
            raise errors.LeaseGone("the lease of this task is over: have the wallet sign again")
        self.lease.users += 1
        return Hold(self.lease, noz)

    def lost(self, lease: Lease) -> None:
        """It stays: there is no other one, and what it does not pay for may have been a share too many."""


@contextmanager
def told() -> Iterator[None]:
    """Have what goes wrong in the network come out as a BackendError."""
    try:
        yield
    except BackendError:
        raise
    except errors.NotFound as error:
        raise NotFound(str(error)) from None
    except errors.NotEnoughOzone as error:
        raise NotEnoughOzone(f"not enough ozone to process: {error}") from None
    except errors.WrongPassword as error:
        raise WrongPassword(f"wrong share password: {error}") from None
    except errors.MetaUnreachable as error:
        raise Unreachable(str(error)) from None
    except errors.StorageError as error:
        raise (StringRefused if error.code in _OF_STRINGS else BackendError)(str(error)) from None
    except (TransferFailed, WireError, TimeoutError) as error:
        raise BackendError(str(error) or "the network took too long: try again") from None
