"""Allowances: who may pay fees from whose account. Reads and writes touch the same keys in the same order as the SDK's keeper."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Final

from chain.codec.canonical import encode
from chain.codec.registry import message_class
from chain.codec.times import NANOS, sortable
from chain.coins import Coins
from chain.context import Context
from chain.crypto import address as bech32
from chain.errors import InvalidRequest, NotFound, Unauthorized
from chain.store.api import StateReader, StateWriter, prefix_end
from modules.feegrant import allowances, events, keys
from modules.feegrant.allowances import PACKAGE
from modules.feegrant.errors import FeeLimitExpired
from modules.feegrant.expected import Accounts, Bank

Grant: Final = message_class(f"{PACKAGE}.Grant")
MAX_PRUNED_BY_BLOCK: Final = 200
MAX_PRUNED_BY_MESSAGE: Final = 75


class FeegrantKeeper:
    """Grants, uses and removes allowances."""

    def __init__(self, accounts: Accounts, bank: Bank) -> None:
        self._accounts = accounts
        self._bank = bank

    def grant(self, state: StateReader, granter: bytes, grantee: bytes) -> Any | None:
        """The Grant of one account to another, or None. It may have expired."""
        raw = state.store(keys.STORE).get(keys.allowance(granter, grantee))
        return None if raw is None else Grant.FromString(raw)

    def allowance(self, state: StateReader, granter: bytes, grantee: bytes) -> Any:
        """The allowance of one account to another. Raises NotFound (sdk/38)."""
        grant = self.grant(state, granter, grantee)
        if grant is None:
            raise NotFound("fee-grant not found")
        return allowances.unpack(grant.allowance)

    def iterate(self, state: StateReader) -> Iterator[Any]:
        """Every Grant, in the order of keys."""
        for _, raw in state.store(keys.STORE).iterate(keys.ALLOWANCES, prefix_end(keys.ALLOWANCES)):
            yield Grant.FromString(raw)

    def require_none(self, state: StateReader, granter: bytes, grantee: bytes) -> None:
        """Raise InvalidRequest (sdk/18) if one account has granted another already."""
        if self.grant(state, granter, grantee) is not None:
            raise InvalidRequest("fee allowance already exists")

    def save(self, ctx: Context, state: StateWriter, granter: bytes, grantee: bytes, allowance: Any) -> None:
        """Grant a checked allowance; the grantee gets an account if he has none. Raises InvalidRequest (sdk/18), Unauthorized (sdk/4)."""
        self.require_none(state, granter, grantee)
        if self._accounts.get_account(ctx, state, grantee) is None:
            if self._bank.is_blocked(grantee):
                raise Unauthorized(f"{bech32.encode(grantee)} is not allowed to receive funds")
            self._accounts.set_account(ctx, state, self._accounts.new_account(ctx, state, grantee))
        expiration = allowances.expiration_of(allowance)
        if expiration is not None:
            if expiration.seconds * NANOS + expiration.nanos < ctx.time_ns:
                raise InvalidRequest("expiration is before current block time")
            state.store(keys.STORE).set(keys.queue(_sortable(expiration), granter, grantee), b"")
        self._write(state, granter, grantee, allowance)
        events.granted(ctx, granter, grantee)

    def revoke(self, ctx: Context, state: StateWriter, granter: bytes, grantee: bytes) -> None:
        """Remove an allowance. Raises NotFound (sdk/38)."""
        expiration = allowances.expiration_of(self.allowance(state, granter, grantee))
        store = state.store(keys.STORE)
        store.delete(keys.allowance(granter, grantee))
        if expiration is not None:
            # As the SDK has it: the two change places, so what goes is the queue entry of an allowance the other way. README.md says what follows.
            store.delete(keys.queue(_sortable(expiration), grantee, granter))
        events.revoked(ctx, granter, grantee)

    def use(self, ctx: Context, state: StateWriter, granter: bytes, grantee: bytes, fee: Coins, type_urls: Sequence[str]) -> None:
        """Take ``fee`` from the allowance for a transaction with messages of ``type_urls``. Raises NotFound (sdk/38) and what it refuses with."""
        allowance = self.allowance(state, granter, grantee)
        try:
            used_up = allowances.accept(ctx, allowance, fee, type_urls)
        except FeeLimitExpired:
            self.revoke(ctx, state, granter, grantee)
            raise
        if used_up:
            self.revoke(ctx, state, granter, grantee)
            events.used(ctx, granter, grantee)
            return
        events.used(ctx, granter, grantee)
        self.grant(state, granter, grantee)  # for its gas: the SDK looks whether it is still there
        self._write(state, granter, grantee, allowance)
        events.updated(ctx, granter, grantee)

    def prune(self, ctx: Context, state: StateWriter, limit: int = MAX_PRUNED_BY_BLOCK) -> None:
        """Remove at most ``limit`` allowances that have expired, the oldest first."""
        store = state.store(keys.STORE)
        for key, _ in list(islice(store.iterate(keys.QUEUE, keys.queue_before(sortable(*divmod(ctx.time_ns, NANOS)))), limit)):
            store.delete(key)
            store.delete(keys.queued_allowance(key))

    @staticmethod
    def _write(state: StateWriter, granter: bytes, grantee: bytes, allowance: Any) -> None:
        grant = Grant(granter=bech32.encode(granter), grantee=bech32.encode(grantee), allowance=allowances.pack(allowance))
        state.store(keys.STORE).set(keys.allowance(granter, grantee), encode(grant))


def _sortable(time: Any) -> bytes:
    return sortable(time.seconds, time.nanos)
