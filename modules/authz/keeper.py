"""Grants: who may send which messages in whose name. Reads and writes touch the same keys in the same order as the SDK's keeper."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from chain.authorization import Accepted, AuthorizationKind
from chain.codec.canonical import encode
from chain.codec.registry import message_class, pack_any, unpack_any
from chain.codec.times import NANOS, ns_of, rfc3339, sortable
from chain.context import Context
from chain.crypto import address as bech32
from chain.errors import AppError, InvalidType, OutOfGas, PanicError, Unauthorized, UndefinedError, with_detail
from chain.store.api import StateReader, StateWriter, prefix_end
from chain.tx.decode import message_signers_of
from modules.authz import events, keys
from modules.authz.errors import AuthorizationExpired, InvalidExpiration, NoAuthorization, NoGrantKey, NumberOfSigners
from modules.authz.expected import Accounts, Bank, Router

PACKAGE: Final = "cosmos.authz.v1beta1"
Grant: Final = message_class(f"{PACKAGE}.Grant")
GrantQueueItem: Final = message_class(f"{PACKAGE}.GrantQueueItem")
GENERIC: Final = f"{PACKAGE}.GenericAuthorization"
GAS_PER_QUEUED: Final = 20
MAX_PRUNED: Final = 1000
"""Grants that one block removes once they have expired: the SDK removes all, and whoever lets many end at once stalls its block."""


class AuthzKeeper:
    """``kinds`` are the authorizations that other modules bring, by protobuf name; a generic one for any message is there anyway."""

    def __init__(self, accounts: Accounts, bank: Bank, router: Router, kinds: Mapping[str, AuthorizationKind]) -> None:
        self._accounts = accounts
        self._bank = bank
        self._router = router
        self._kinds = {**kinds, GENERIC: AuthorizationKind(lambda one: str(one.msg), _check_generic, lambda *_: Accepted())}

    def kind_of(self, authorization: Any) -> AuthorizationKind:
        """How ``authorization`` works. Raises InvalidType (sdk/29) for a message that is no authorization."""
        kind = self._kinds.get(authorization.DESCRIPTOR.full_name)
        if kind is None:
            raise InvalidType(f"expected an authorization, got /{authorization.DESCRIPTOR.full_name}")
        return kind

    def grant(self, state: StateReader, granter: bytes, grantee: bytes, type_url: str) -> Any | None:
        """The Grant for messages of ``type_url``, or None. It may have expired."""
        raw = state.store(keys.STORE).get(keys.grant(granter, grantee, type_url))
        return None if raw is None else Grant.FromString(raw)

    def iterate(self, state: StateReader) -> Iterator[tuple[bytes, bytes, Any]]:
        """(granter, grantee, Grant) of every grant, in the order of keys."""
        for key, raw in state.store(keys.STORE).iterate(keys.GRANTS, prefix_end(keys.GRANTS)):
            granter, grantee, _ = keys.split_grant(key)
            yield granter, grantee, Grant.FromString(raw)

    def type_url_of(self, grant: Any) -> str:
        """Type URL of the messages that a Grant is for."""
        authorization = unpack_any(grant.authorization)
        return self.kind_of(authorization).type_url(authorization)

    def open_account(self, ctx: Context, state: StateWriter, grantee: bytes) -> None:
        """See that the grantee has an account. Raises Unauthorized (sdk/4) where none may be opened."""
        if self._accounts.get_account(ctx, state, grantee) is None:
            if self._bank.is_blocked(grantee):
                raise Unauthorized(f"{bech32.encode(grantee)} is not allowed to receive funds")
            self._accounts.set_account(ctx, state, self._accounts.new_account(ctx, state, grantee))

    def require_message(self, type_url: str) -> None:
        """Raise InvalidType (sdk/29) unless this chain handles messages of ``type_url``."""
        if not (type_url.startswith("/") and self._router.knows(type_url[1:])):
            raise InvalidType(f"{type_url} doesn't exist.")

    def save(self, ctx: Context, state: StateWriter, granter: bytes, grantee: bytes, authorization: Any, expiration: Any | None) -> None:
        """Write a grant, in place of one for the same messages. ``expiration`` is a Timestamp. Raises InvalidExpiration (authz/3)."""
        if expiration is not None and ns_of(expiration) <= ctx.time_ns:
            now, then = (rfc3339(ns // NANOS) for ns in (ctx.time_ns, ns_of(expiration)))
            raise InvalidExpiration(f"expiration must be after the current block time ({now}), got {then}")
        type_url = self.kind_of(authorization).type_url(authorization)
        old = self.grant(state, granter, grantee, type_url)
        before = old.expiration if old is not None and old.HasField("expiration") else None
        if before is None or expiration is None or ns_of(before) != ns_of(expiration):
            if before is not None:
                self._unqueue(ctx, state, granter, grantee, type_url, before)
            if expiration is not None:
                self._enqueue(state, granter, grantee, type_url, expiration)
        authorization.DiscardUnknownFields()
        grant = Grant(authorization=pack_any(authorization), expiration=_known(expiration))
        state.store(keys.STORE).set(keys.grant(granter, grantee, type_url), encode(grant))
        events.granted(ctx, granter, grantee, type_url)

    def delete(self, ctx: Context, state: StateWriter, granter: bytes, grantee: bytes, type_url: str) -> None:
        """Remove a grant. Raises NoAuthorization (authz/2)."""
        grant = self.grant(state, granter, grantee, type_url)
        if grant is None:
            raise NoAuthorization(f"failed to delete grant of {bech32.encode(granter)} to {bech32.encode(grantee)} for {type_url[:200]}")
        if grant.HasField("expiration"):
            self._unqueue(ctx, state, granter, grantee, type_url, grant.expiration)
        state.store(keys.STORE).delete(keys.grant(granter, grantee, type_url))
        events.revoked(ctx, granter, grantee, type_url)

    def dispatch(self, ctx: Context, state: StateWriter, grantee: bytes, messages: Sequence[Any]) -> list[bytes]:
        """Run ``messages``, each signed by the grantee himself or by somebody who granted him that; the bytes of their responses.

        Raises NumberOfSigners, NoAuthorization, AuthorizationExpired, what an authorization refuses with and what a message fails with.
        """
        results = []
        for at, message in enumerate(messages):
            signers = message_signers_of(message)
            if len(signers) != 1:
                raise NumberOfSigners
            if signers[0] != grantee:
                self._use(ctx, state, signers[0], grantee, message)
            mark = ctx.events.mark()
            try:
                response = self._router.run(ctx, state, message)
            except (OutOfGas, PanicError):  # the SDK's handlers panic with these: nobody wraps them on the way out
                raise
            except AppError as error:
                raise with_detail(error, f"failed to execute message; message /{message.DESCRIPTOR.full_name}: {error.detail}") from error
            events.index_since(ctx, mark, at)
            results.append(encode(response))
        return results

    def prune(self, ctx: Context, state: StateWriter) -> None:
        """Remove grants that have expired, the oldest first, at most MAX_PRUNED (and what its last queue entry holds beyond) in a block."""
        store = state.store(keys.STORE)
        found: list[tuple[bytes, Sequence[str]]] = []
        count = 0
        for key, raw in store.iterate(keys.QUEUE, keys.queue_before(sortable(*divmod(ctx.time_ns, NANOS)))):
            type_urls = GrantQueueItem.FromString(raw).msg_type_urls
            found.append((key, type_urls))
            count += max(len(type_urls), 1)
            if count >= MAX_PRUNED:
                break
        for key, type_urls in found:
            granter, grantee = keys.split_queue(key)
            store.delete(key)
            for type_url in type_urls:
                store.delete(keys.grant(granter, grantee, type_url))

    def _use(self, ctx: Context, state: StateWriter, granter: bytes, grantee: bytes, message: Any) -> None:
        """Let ``message`` of the granter be the grantee's, and write what becomes of the authorization."""
        type_url = "/" + message.DESCRIPTOR.full_name
        grant = self.grant(state, granter, grantee, type_url)
        if grant is None:
            pair = f"granter: {bech32.encode(granter)}, grantee: {bech32.encode(grantee)}"
            raise NoAuthorization(f"failed to get grant with given {pair} & msgType: {type_url} ")
        if grant.HasField("expiration") and ns_of(grant.expiration) < ctx.time_ns:
            raise AuthorizationExpired
        authorization = unpack_any(grant.authorization)
        accepted = self.kind_of(authorization).accept(ctx, authorization, message)
        if accepted.used_up:
            self.delete(ctx, state, granter, grantee, type_url)
        elif accepted.updated is not None:
            grant = self.grant(state, granter, grantee, type_url)
            assert grant is not None, "it was there a moment ago"
            grant.authorization.CopyFrom(pack_any(accepted.updated))
            state.store(keys.STORE).set(keys.grant(granter, grantee, type_url), encode(grant))

    def _enqueue(self, state: StateWriter, granter: bytes, grantee: bytes, type_url: str, expiration: Any) -> None:
        key = keys.queue(sortable_of(expiration), granter, grantee)
        item = GrantQueueItem.FromString(state.store(keys.STORE).get(key) or b"")
        item.msg_type_urls.append(type_url)
        state.store(keys.STORE).set(key, encode(item))

    def _unqueue(self, ctx: Context, state: StateWriter, granter: bytes, grantee: bytes, type_url: str, expiration: Any) -> None:
        """Take a grant from the queue: the last one of its entry gets its place. An entry that has become empty stays."""
        key = keys.queue(sortable_of(expiration), granter, grantee)
        raw = state.store(keys.STORE).get(key)
        if raw is None:
            raise NoGrantKey("can't remove grant from the expire queue, grant key not found")
        type_urls = list(GrantQueueItem.FromString(raw).msg_type_urls)
        for at, one in enumerate(type_urls):
            ctx.gas.consume(GAS_PER_QUEUED, "grant queue")
            if one == type_url:
                type_urls[at] = type_urls[-1]
                state.store(keys.STORE).set(key, encode(GrantQueueItem(msg_type_urls=type_urls[:-1])))
                return


def _check_generic(authorization: Any) -> None:
    if not authorization.msg:
        raise UndefinedError("msg type cannot be empty")


def sortable_of(time: Any) -> bytes:
    """A Timestamp as store keys have it."""
    return sortable(time.seconds, time.nanos)


def _known(time: Any | None) -> Any | None:
    """A Timestamp without what the schema does not know of it."""
    return None if time is None else type(time)(seconds=time.seconds, nanos=time.nanos)
