"""Meta nodes as a client sees them: who they are, a session with each that is used, questions that go to another one when one is away.

    ask(method, head) ─► session.open, when this meta node has none of us ─► the question ─► its answer, checked for form
                              └── away, busy, not ready: the next meta node; a question about a lease waits for the one that holds it

The grant is renewed in time under the same session key, so what is under way goes on. A meta node is trusted with nothing that can be checked: leases and order
limits are compared with what was asked (leases.py, issuing.py), content with roots, tags and hashes. Source: ADR 9; storage-protocol.md 4.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import re
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import structlog
from google.protobuf.message import DecodeError

from chain.codec.canonical import encode
from chain.crypto import address as bech32
from chain.crypto.keys import PrivateKey
from modules.settlement.leaves import GET, PUT
from sds_node import asking, p2p
from sds_node.client.errors import MetaFull, MetaLied, MetaRefused, MetaUnreachable, refusal
from sds_node.client.get import last_receipts
from sds_node.client.pace import Pace
from sds_node.client.session import Session, open_session
from sds_node.endpoints import endpoint_text
from sds_node.wire.errors import Busy, ConnectionFailed, Refused, TimedOut, Unreachable, WireError
from sds_node.wire.limits import Limits
from sds_node.wire.node import Node
from sds_node.wire.peer import Direct, Peer, Through

log = structlog.get_logger("client")

MAX_METAS: Final = 100
MAX_PEERS: Final = 1_000
MAX_ENDPOINT_CHARACTERS: Final = 128
_LABEL: Final = r"[0-9A-Za-z_](?:[0-9A-Za-z_-]{0,61}[0-9A-Za-z_])?"
_HOST: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
"""A host as resolvers take it: labels of 1 to 63 characters. Others make them raise what nobody expects."""
ASK_S: Final = 120.0
"""A meta node that has not answered by then is away."""
ROUNDS: Final = 3
"""So often all meta nodes are asked before none is there."""
PAUSE_S: Final = 0.5
SESSION_LIFE_S: Final = 3 * 3_600
SLOW_S: Final = 10.0
"""An answer that takes longer is told of, once in ``TOLD_S``."""
TOLD_S: Final = 60.0
RECEIPTS_S: Final = 2.0
RENEW_S: Final = 75 * 60
"""A grant that ends within this is renewed: a lease under it lives an hour."""
MAX_GRANT_NOZ: Final = (1 << 63) - 1


@dataclass(frozen=True)
class MetaAddress:
    """Where a meta node is: its P2P address (20 bytes), a host and a port."""

    address: bytes
    host: str
    port: int

    def __str__(self) -> str:
        return f"{p2p.format_address(self.address)}@{endpoint_text(self.host, self.port)}"


def _is_ipv6(host: str) -> bool:
    """Whether it is an IPv6 address, without brackets."""
    try:
        return ipaddress.ip_address(host).version == 6
    except ValueError:
        return False


def parse_endpoint(text: str) -> tuple[str, int]:
    """(host, port) of ``host:port``, an IPv6 address in brackets. Raises ValueError."""
    host, _, port = text.rpartition(":") if len(text) <= MAX_ENDPOINT_CHARACTERS else ("", "", "")
    is_bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if is_bracketed else host
    is_port = port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= 65_535
    if not is_port or not (_is_ipv6(host) if is_bracketed else _HOST.fullmatch(host)):
        raise ValueError(f"an endpoint is <host>:<port>, an IPv6 address in brackets, got {text[:MAX_ENDPOINT_CHARACTERS]!a}")
    return host, int(port)


def parse_meta(text: str) -> MetaAddress:
    """A meta node in ``<stsds1… or stsdspub1…>@<host>:<port>``. Raises ValueError."""
    key, at, endpoint = text.partition("@")
    if not at:
        raise ValueError(f"a meta node is written <stsds1… or stsdspub1…>@<host>:<port>, got {text[:200]!a}")
    return MetaAddress(p2p.parse_node(key), *parse_endpoint(endpoint))


@dataclass(eq=False)
class _Meta:
    where: MetaAddress
    peer: Peer
    opened: Session | None = None
    """The session, with its grant, that it knows of us."""


class MetaClient:
    """A wallet's session with the meta nodes of a network. Close it.

    ``metas`` are those to begin with, at least one; ``max_noz`` bounds what the session may lease. ``clock`` tells Unix seconds. ``session``: one that was
    opened before, to go on with; such a client takes no new grant.
    """

    def __init__(
        self,
        wallet: PrivateKey,
        chain_id: str,
        metas: Sequence[MetaAddress],
        *,
        clock: Callable[[], float],
        max_noz: int = MAX_GRANT_NOZ,
        session: Session | None = None,
        limits: Limits | None = None,
    ) -> None:
        if not 1 <= len(metas) <= MAX_METAS:
            raise ValueError(f"expected 1 to {MAX_METAS} meta nodes to begin with, got {len(metas)}")
        self.wallet, self.chain_id, self.clock = wallet, chain_id, clock
        self.address = bech32.encode(wallet.public_key.address)
        self._max_noz, self._is_fixed = max_noz, session is not None
        self._session = session or self._granted(None)
        self.node = Node(self._session.identity, chain_id, software="stratos-client", limits=limits)
        self._metas: OrderedDict[bytes, _Meta] = OrderedDict()
        self._peers: OrderedDict[tuple[bytes, str, bytes], Peer] = OrderedDict()
        self._opening = asyncio.Lock()
        self._told_s = float("-inf")
        # Below what meta nodes allow a session, and a wallet (``meta/users/sessions.py``).
        orders = Pace(80, 50)
        self._paces = {asking.SHARE_OPEN: Pace(8, 16), asking.LEASE_TAKE: orders, asking.FILE_ORDER: orders}
        for one in metas:
            self._add(one)

    @property
    def session(self) -> Session:
        """The session as new transfers use it: its grant lives longer than a lease."""
        if not self._is_fixed and self._ends_s() < self.clock() + RENEW_S:
            self._session = self._granted(self._session.seed)
        return self._session

    @property
    def metas(self) -> list[MetaAddress]:
        """Those known, the one that is asked first at the beginning."""
        return [one.where for one in self._metas.values()]

    def holder(self, meta: bytes) -> bytes:
        """The address of a meta node that a lease names. Raises MetaLied for one that this client cannot ask."""
        if meta not in self._metas:
            raise MetaLied(f"the lease is held by meta node {p2p.format_address(meta)}, which did not answer: name that one, or another")
        return meta

    def _granted(self, seed: bytes | None) -> Session:
        made = open_session(self.wallet, self.chain_id, max_noz=self._max_noz, actions=(GET, PUT), clock=self.clock, life_s=SESSION_LIFE_S, seed=seed)
        self._granted_s = self.clock()
        return made

    def _ends_s(self) -> float:
        return self._granted_s + SESSION_LIFE_S

    def renew(self) -> None:
        """Have what follows run under another grant: the noz of this one are used up. Nothing for a session that was given."""
        if not self._is_fixed:
            self._session = self._granted(self._session.seed)

    async def close(self) -> None:
        """End all connections, once the nodes have the last receipts or RECEIPTS_S is over."""
        try:
            await last_receipts(self.node, RECEIPTS_S)
        finally:
            for peer in [*(one.peer for one in self._metas.values()), *self._peers.values()]:
                await peer.close()
            await self.node.close()

    # ---- questions

    async def ask(self, method: str, head: Any, answer: Any, *, body: bytes = b"", meta: bytes | None = None, without_session: bool = False) -> Any:
        """A question to one meta node → its answer, a message of the class ``answer``. ``meta``: the address of the only one that can answer. Of what meta
        nodes bound, no more is asked at once and in a second than they answer.

        Raises what ``refusal`` makes of its refusal, MetaUnreachable when none does it, MetaFull when that only one says to ask another, MetaLied for bytes that
        are no answer.
        """
        pace = self._paces.get(method)
        async with pace.turn() if pace is not None else contextlib.nullcontext():
            return await self._ask(method, head, answer, body, meta, without_session)

    async def _ask(self, method: str, head: Any, answer: Any, body: bytes, meta: bytes | None, without_session: bool) -> Any:
        failures: dict[bytes, str] = {}
        told_by: set[bytes] = set()
        busy: set[bytes] = set()
        for at in range(ROUNDS):
            if at:
                await asyncio.sleep(PAUSE_S * 2 ** (at - 1))
            for one in self._in_turn(meta):
                try:
                    data = await self._asked(one, method, b"" if head is None else encode(head), body, without_session)
                except Refused as error:
                    if error.code not in (asking.NOT_READY, asking.TRY_ANOTHER):
                        raise refusal(error.code, error.text) from None
                    if meta is not None and error.code == asking.TRY_ANOTHER:
                        self._metas.move_to_end(meta)  # what begins anew asks another first
                        raise MetaFull(f"meta node {one.where}: {error.text}") from None
                    failures[one.where.address] = error.text
                    told_by.add(one.where.address)
                    busy.discard(one.where.address)
                except (ConnectionFailed, Unreachable, Busy, TimedOut, TimeoutError) as error:
                    failures[one.where.address] = str(error) or "no answer in time"
                    told_by.discard(one.where.address)
                    (busy.add if isinstance(error, Busy) else busy.discard)(one.where.address)
                except WireError as error:
                    raise MetaRefused(f"meta node {one.where} cannot do this: {error}") from None
                else:
                    if meta is None:
                        self._metas.move_to_end(one.where.address, last=False)
                    return _parsed(answer, data)
        told = "; ".join(f"{self._metas[node].where}: {text}" for node, text in failures.items()) or "none is known"
        if failures.keys() == told_by and told_by:
            raise MetaUnreachable(f"no meta node that is known does this now: {told}")
        if failures.keys() == busy and busy:
            raise MetaUnreachable(f"all meta nodes that are known are busy: {told}: try again in a moment, with less at once")
        raise MetaUnreachable(f"no meta node answers ({told}): check the network, or name others")

    def _in_turn(self, meta: bytes | None) -> list[_Meta]:
        if meta is None:
            return list(self._metas.values())
        return [self._metas[meta]] if meta in self._metas else []

    async def _asked(self, meta: _Meta, method: str, head: bytes, body: bytes, without_session: bool) -> bytes:
        async with asyncio.timeout(ASK_S), self._patiently(method):
            if not without_session:
                await self._opened(meta)
            try:
                return await meta.peer.ask(method, head, body, most_bytes=asking.MAX_ANSWER_BYTES)
            except Refused as error:
                if error.code != asking.NO_SESSION or without_session:
                    raise
                meta.opened = None
            # It was started anew, and forgot us.
            await self._opened(meta)
            return await meta.peer.ask(method, head, body, most_bytes=asking.MAX_ANSWER_BYTES)

    @contextlib.asynccontextmanager
    async def _patiently(self, method: str) -> AsyncIterator[None]:
        """Tell, once in a while, that an answer takes long: whoever waits without a word gives up."""

        def tell() -> None:
            if self.clock() >= self._told_s + TOLD_S:
                self._told_s = self.clock()
                log.warning("a meta node takes long to answer; too few of them may be there to agree (more than two thirds are needed)", asked=method)

        timer = asyncio.get_running_loop().call_later(SLOW_S, tell)
        try:
            yield
        finally:
            timer.cancel()

    async def _opened(self, meta: _Meta) -> None:
        session = self.session
        if meta.opened is session:
            return
        async with self._opening:
            if meta.opened is not session:
                head = encode(asking.SessionHead(grant=session.grant))
                await meta.peer.ask(asking.SESSION_OPEN, head, most_bytes=asking.MAX_ANSWER_BYTES)
                meta.opened = session

    async def info(self) -> Any:
        """MetaInfo of one meta node; others that it names are known from here on."""
        found = await self.ask(asking.INFO, None, asking.MetaInfo, without_session=True)
        if found.chain_id != self.chain_id:
            raise MetaLied(f"expected a meta node of chain {self.chain_id}, got one of {found.chain_id[:50]!a}: name one of this chain")
        for contact in found.metas[:MAX_METAS]:
            self._learn(contact)
        return found

    def _learn(self, contact: Any) -> None:
        try:
            where = MetaAddress(p2p.address_of(bytes(contact.p2p_key)), *parse_endpoint(contact.endpoint))
        except ValueError:
            return
        if where.address not in self._metas and len(self._metas) < MAX_METAS:
            self._add(where)

    def _add(self, where: MetaAddress) -> None:
        self._metas[where.address] = _Meta(where, Peer(self.node, where.address, [Direct(where.host, where.port)]))

    # ---- nodes

    def peer(self, p2p_key: bytes, endpoint: str, relay: Any | None) -> Peer:
        """The node of a place. Raises MetaLied for an endpoint that is none."""
        try:
            address = p2p.address_of(p2p_key)
            through = p2p.address_of(bytes(relay.p2p_key)) if relay is not None else b""
            key = (address, endpoint if relay is None else relay.endpoint, through)
            found = self._peers.get(key)
            if found is None:
                found = self._peers[key] = self._new_peer(address, endpoint, through, relay)
        except ValueError as error:
            raise MetaLied(f"a meta node named a node that cannot be: {error}") from None
        self._peers.move_to_end(key)
        if len(self._peers) > MAX_PEERS:
            _, oldest = self._peers.popitem(last=False)
            self.node.run(oldest.close())
        return found

    def _new_peer(self, address: bytes, endpoint: str, through: bytes, relay: Any | None) -> Peer:
        if relay is None:
            return Peer(self.node, address, [Direct(*parse_endpoint(endpoint))])
        known = self._metas.get(through)
        by = known.peer if known is not None else Peer(self.node, through, [Direct(*parse_endpoint(relay.endpoint))])
        return Peer(self.node, address, [Through(by)])


def _parsed(kind: Any, data: bytes) -> Any:
    if kind is None:
        return None
    try:
        return kind.FromString(data)
    except DecodeError:
        raise MetaLied(f"expected a {kind.DESCRIPTOR.name} from a meta node, got {len(data)} bytes that are none") from None
