"""What both directions of a transfer share: places and who gives them, how patient a client is, what can go wrong.

    PutWanted, GetWanted ─► Issuer (a meta node, or a test) ─► Place (node, order limit, certificate) ─► put.py, get.py

Source: storage-protocol.md 3.1 to 3.4 and 4; ADR 7 and 8.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from modules.settlement.documents import OrderLimit
from sds_node.documents import Refused, opened
from sds_node.merkle import MerkleError
from sds_node.schemes import Scheme, share_bytes
from sds_node.wire.errors import CallFailed, WireError
from sds_node.wire.peer import Peer


class TransferFailed(Exception):
    """A transfer that did not succeed. The text says what was expected, what came and what to do."""


class NodeFailed(TransferFailed):
    """One node did not do its part: it is gone, too slow, or refused. ``code`` is its refusal's, None when none came."""

    def __init__(self, node: bytes, text: str, code: int | None = None) -> None:
        self.node, self.code = node, code
        super().__init__(f"node {node.hex()}: {text}")


class NodeLied(NodeFailed):
    """One node answered with what is not so: wrong bytes, another size, an acknowledgement of something else."""


class NotStored(TransferFailed):
    """A segment has too few acknowledgements. ``failures`` are what the nodes did, by the share's number."""

    def __init__(self, segment: int, confirmed: int, needed: int, failures: dict[int, str]) -> None:
        self.segment, self.failures = segment, failures
        told = "; ".join(f"share {index}: {text}" for index, text in sorted(failures.items()))
        super().__init__(f"segment {segment} has {confirmed} acknowledged shares and needs {needed}: {told}")


class NotReadable(TransferFailed):
    """Too few good shares of a segment were found. ``failures`` are what the nodes did, by the share's number."""

    def __init__(self, segment: int, needed: int, failures: dict[int, str]) -> None:
        self.segment, self.failures = segment, failures
        told = "; ".join(f"share {index}: {text}" for index, text in sorted(failures.items()))
        super().__init__(f"segment {segment} needs {needed} good shares and has not so many: {told}")


class WrongSource(TransferFailed):
    """The stream to be stored is longer or shorter than was said."""


@dataclass(frozen=True, eq=False)
class Place:
    """A node for one share, and what lets it be used: the order limit (SignedDocument) and its lease's certificate (LeaseCertificate).

    ``node_key`` is the node's P2P public key, 32 bytes, which acknowledgements are judged by.
    """

    peer: Peer
    node_key: bytes
    order_limit: Any
    certificate: Any

    @property
    def limit(self) -> Any:
        return opened(OrderLimit, self.order_limit.body)


@dataclass(frozen=True, slots=True)
class PutWanted:
    """A segment for which n places are asked. ``share_roots`` are those of its shares, in order."""

    object_id: bytes
    segment: int
    segment_bytes: int
    scheme: Scheme
    share_roots: tuple[bytes, ...]

    @property
    def share_bytes(self) -> int:
        return share_bytes(self.scheme, self.segment_bytes)


@dataclass(frozen=True, slots=True)
class GetWanted:
    """One share, of which ``size_bytes`` are read, for which a place is asked."""

    object_root: bytes
    segment: int
    index: int
    size_bytes: int


class Issuer(Protocol):
    """Who chooses nodes and issues order limits: a meta node, or a test. Raises what it likes; a TransferFailed goes to the caller as it is."""

    async def for_put(self, wanted: PutWanted) -> Sequence[Place]:
        """The places of all n shares of a segment, in the order of the shares, their serials following one another (ADR 8)."""
        ...

    async def another(self, wanted: PutWanted, index: int, tried: Collection[bytes]) -> Place | None:
        """Another place for one share, at a node whose address is not among those ``tried``; None when there is none."""
        ...

    async def for_get(self, wanted: GetWanted) -> Place | None:
        """The holder of a share and a limit of that many bytes; None when nobody holds it."""
        ...


SLOW_TIMES: Final = 8
"""Of ``stall_s``, for a MiB."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How patient a client is, and how much it has in memory."""

    segments_at_once: int = 2
    stall_s: float = 30.0
    """A node that moves nothing for so long has failed."""
    straggler_s: float = 2.0
    """What shares beyond those that confirm a segment still get."""
    hedge_s: float = 5.0
    """So often a get looks which shares are late, and asks other holders. A put's share that is needed and late goes to another node so long after others are
    done."""
    attempts: int = 3
    """Places tried for one share of a put; connections for one share of a get."""

    @property
    def slow_s(self) -> float:
        """A MiB may take so long: ten shares and more come over one line, and what waits in its buffers is not seen. A node that is gone is told by its
        connection, and a slow one holds up nothing that others are done with.
        """
        return self.stall_s * SLOW_TIMES

    def __post_init__(self) -> None:
        if not (1 <= self.segments_at_once <= 64 and 1 <= self.attempts <= 16):
            raise ValueError("expected 1 to 64 segments at once, and 1 to 16 attempts")
        if not (self.stall_s > 0 and self.straggler_s >= 0 and self.hedge_s > 0):
            raise ValueError("expected times above 0")


@dataclass(frozen=True, slots=True)
class ChainOnly:
    """What an acknowledgement is judged by: it names no meta node."""

    chain_id: str

    def ledger_key(self, meta_node: bytes) -> bytes | None:
        return None

    def active_meta_nodes(self) -> Collection[bytes]:
        return ()


@contextlib.contextmanager
def of_node(place: Place) -> Iterator[None]:
    """Have what goes wrong with one node come out as its failure."""
    node = place.peer.address
    try:
        yield
    except NodeFailed:
        raise
    except TimeoutError:
        raise NodeFailed(node, "nothing moved in time: ask another one") from None
    except WireError as error:
        raise NodeFailed(node, f"{type(error).__name__}: {error}", error.code if isinstance(error, CallFailed) else None) from error
    except (MerkleError, Refused) as error:
        raise NodeLied(node, str(error)) from error
