"""A session: a key that a wallet lets spend for a time, and the receipts that it signs for what was moved.

wallet ── SessionGrant (once) ──► session key ── Receipt, every MiB ──► node          the same key is the client's end of its connections
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import nacl.signing

from chain.codec.canonical import encode
from chain.codec.registry import message_class
from chain.crypto import address as bech32
from chain.crypto.keys import PrivateKey
from modules.settlement.documents import GRANT_DOMAIN, OrderLimit, Receipt, SessionGrant
from modules.settlement.leaves import ACTIONS, LONGEST_GRANT_S, MAX_PATH_PREFIX, SERIAL_BYTES
from sds_node.documents import signed
from sds_node.transfers import Moved, TrafficEvidence
from sds_node.wire.identity import Identity

WalletDocument: Final = message_class("stratos.settlement.v1.WalletDocument")
SKEW_S: Final = 60
"""A grant begins so long before it was signed, since clocks differ."""
_MILLIS: Final = 1_000


class SessionError(Exception):
    """A grant or receipt that cannot be made; the text says what was expected and what came."""


@dataclass(frozen=True)
class Session:
    """``seed`` is the session key's (32 bytes), ``grant`` the WalletDocument of its SessionGrant. ``clock`` tells Unix seconds."""

    chain_id: str
    wallet: str
    seed: bytes
    grant: Any
    clock: Callable[[], float]

    @cached_property
    def key(self) -> nacl.signing.SigningKey:
        return nacl.signing.SigningKey(self.seed)

    @cached_property
    def public_key(self) -> bytes:
        return bytes(self.key.verify_key)

    @property
    def identity(self) -> Identity:
        """Who the client is on the wire: nodes take a session's limits from nobody else."""
        return Identity(self.seed)

    def evidence(self, order_limit: Any, receipt: Any | None = None) -> Any:
        """The TrafficEvidence of a limit (SignedDocument), with a receipt (SignedDocument) if there is one."""
        made = TrafficEvidence(grant=self.grant, order_limit=order_limit)
        if receipt is not None:
            made.receipt.CopyFrom(receipt)
        return made

    def __repr__(self) -> str:
        return f"Session({self.wallet}, {self.public_key.hex()})"


def open_session(
    wallet: PrivateKey,
    chain_id: str,
    *,
    max_noz: int,
    actions: Iterable[int],
    clock: Callable[[], float],
    life_s: int = 3_600,
    path_prefix: str = "/",
    seed: bytes | None = None,
) -> Session:
    """A session key with a grant that the wallet signs: for limits of at most ``max_noz`` each, from a minute ago on for ``life_s`` seconds.

    The key is new, or that of ``seed`` (32 bytes) when a session goes on under another grant. Raises SessionError for what no grant may say.
    """
    allowed = sorted(set(actions))
    if not allowed or any(one not in ACTIONS for one in allowed):
        raise SessionError(f"expected actions from {ACTIONS.start} to {ACTIONS.stop - 1}, got {allowed}")
    if not 1 <= life_s <= LONGEST_GRANT_S - SKEW_S:
        raise SessionError(f"expected a life of 1 to {LONGEST_GRANT_S - SKEW_S} s, got {life_s}")
    if not 1 <= max_noz < 1 << 64 or len(path_prefix.encode()) > MAX_PATH_PREFIX:
        raise SessionError(
            f"expected 1 to 2^64 - 1 noz and a path of at most {MAX_PATH_PREFIX} bytes, got {max_noz} and {len(path_prefix)} characters"
        )
    seed, now_s = seed or secrets.token_bytes(32), int(clock())
    text = bech32.encode(wallet.public_key.address)
    body = encode(
        SessionGrant(
            chain_id=chain_id,
            wallet=text,
            session_pubkey=bytes(nacl.signing.SigningKey(seed).verify_key),
            actions=allowed,
            path_prefix=path_prefix,
            max_noz=max_noz,
            not_before_s=now_s - SKEW_S,
            expires_s=now_s + life_s,
            nonce=secrets.token_bytes(SERIAL_BYTES),
        )
    )
    grant = WalletDocument(body=body, public_key=wallet.public_key.raw, signature=_keccak_signed(wallet, GRANT_DOMAIN + b"\x00" + body))
    return Session(chain_id, text, seed, grant, clock)


def _keccak_signed(wallet: PrivateKey, message: bytes) -> bytes:
    """What wallets sign goes through Keccak for both kinds of key."""
    return PrivateKey(wallet.raw, "eth_secp256k1").sign(message)


class Receipts:
    """The receipts of one serial: each covers what came before, so the last one is the whole bill.

    Nothing is signed twice with less in it: numbers, bytes and times only go on. ``last`` is the newest SignedDocument, None before the first.
    """

    def __init__(self, session: Session, order_limit: Any, digest: bytes) -> None:
        """``digest``: what the receipt's digest begins with, the share's root."""
        self.limit: Any = OrderLimit.FromString(order_limit.body)
        self.moved = Moved(digest)
        self.last: Any | None = None
        self.is_final = False
        self._session, self._sequence = session, 0
        self._first_ms = self._last_ms = self._now_ms()

    def _now_ms(self) -> int:
        """Now, within the limit's times: the chain pays for nothing else, and this clock may be a little off."""
        now_ms = int(self._session.clock() * _MILLIS)
        return min(max(now_ms, int(self.limit.created_s) * _MILLIS), int(self.limit.expires_s) * _MILLIS)

    def whole(self, size_bytes: int) -> Any:
        """The final receipt of a put of so many bytes. Raises SessionError beyond the limit."""
        self.moved.bytes = size_bytes
        return self._signed(size_bytes, self.moved.digest, is_final=True)

    def so_far(self, *, is_final: bool = False) -> Any:
        """A receipt (SignedDocument) of all leaves that came. Raises SessionError beyond the limit, or after the final one."""
        made = self._signed(self.moved.bytes, self.moved.digest, is_final=is_final)
        self.moved.acknowledge(self.moved.bytes, self.moved.digest)
        return made

    def _signed(self, size_bytes: int, digest: bytes, *, is_final: bool) -> Any:
        if self.is_final:
            raise SessionError(f"the final receipt of serial {self.limit.serial.hex()} was signed already")
        if size_bytes > self.limit.max_bytes:
            raise SessionError(f"the order limit allows {self.limit.max_bytes} bytes, a receipt of {size_bytes} would not be paid")
        self._sequence += 1
        self._last_ms = max(self._last_ms, self._now_ms())
        receipt = Receipt(
            chain_id=self._session.chain_id,
            serial=self.limit.serial,
            sequence=self._sequence,
            bytes_acked=size_bytes,
            chunks_digest=digest,
            first_ms=self._first_ms,
            last_ms=self._last_ms,
            is_final=is_final,
        )
        self.is_final = is_final
        self.last = signed(receipt, self._session.key)
        return self.last
