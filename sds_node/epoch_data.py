"""What anyone may fetch of an epoch: its commitment from the value chain, its batch from a meta node. All of it is judged before it is used.

    chain: CommittedEpoch, the report's transaction ─ reference and lines' root fit ─► ReportedEpoch
    meta node: epoch.batch, page by page, bounded by the commitment ─► bytes

Sources: ADR 9; storage-protocol.md 1.6, 1.9; modules/settlement/README.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from google.protobuf.message import DecodeError

from chain.codec.canonical import encode
from chain.errors import AppError
from chain.tx.decode import decode_tx
from modules.settlement.commitment import Line, all_lines, line_bytes, read_lines, reference, wallet_of
from modules.settlement.trees import plain_root
from sds_node import asking
from sds_node.value_chain import views
from sds_node.value_chain.client import ValueChain

VOID: Final = 2
MAX_BATCH_BYTES: Final = 8 << 30
"""A larger epoch is not fetched: it is held in memory to be checked."""
PREFIX_BYTES: Final = 4


class EpochDataError(Exception):
    """Something of an epoch cannot be had, or is not what it says it is. The text says what to do."""


@dataclass(frozen=True, slots=True)
class ReportedEpoch:
    """An epoch as the chain has it. ``kept`` is its CommittedEpoch, ``commitment`` its EpochCommitment, ``volumes`` noz by wallet (20 bytes), ``lines`` all
    of its lines in order."""

    kept: Any
    commitment: Any
    volumes: Mapping[bytes, int]
    lines: list[Line]

    @property
    def number(self) -> int:
        return int(self.kept.epoch)

    @property
    def roots(self) -> Any:
        return self.kept.roots

    @property
    def volume_noz(self) -> int:
        return int(self.kept.volume_noz)

    @property
    def is_void(self) -> bool:
        return bool(self.kept.status == VOID)


class Asked(Protocol):
    """A meta node that can be asked: ``wire.peer.Peer``."""

    async def ask(self, method: str, head: bytes = b"", body: bytes = b"", *, most_bytes: int = 1 << 20) -> bytes: ...


async def reported_epoch(chain: ValueChain, number: int) -> ReportedEpoch:
    """An epoch that settlement keeps, with the commitment and volumes of its report. Raises EpochDataError where there is none, or the chain's node does not
    have the report's block; ValueChainError."""
    kept = await views.committed_epoch(chain, number)
    if kept is None:
        raise EpochDataError(f"the chain keeps no epoch {number}: it was not reported yet, or its rewards have matured and nobody can contest it")
    raws = await chain.raw_txs(int(kept.height))
    for raw in raws:
        found = _read(raw, number, kept)
        if found is not None:
            return found
    raise EpochDataError(
        f"block {kept.height} of {chain.url} has no report of epoch {number} with the reference {kept.report_reference}: ask another node of the chain"
    )


def _read(raw: bytes, number: int, kept: Any) -> ReportedEpoch | None:
    """The epoch, if a transaction is its report: the reference and the lines' root bind all of it."""
    try:
        messages = decode_tx(raw).messages
        commitment = next((one.commitment for one in messages if one.DESCRIPTOR.name == "MsgCommitEpoch" and one.commitment.epoch == number), None)
        report = next((one for one in messages if one.DESCRIPTOR.name == "MsgVolumeReport" and int(one.epoch) == number), None)
        if commitment is None or report is None or reference(commitment) != kept.report_reference:
            return None
        volumes = {wallet: int(one.volume) for one in report.wallet_volumes if (wallet := wallet_of(one.wallet_address)) is not None}
        lines = all_lines(read_lines(commitment), volumes)
    except (AppError, ValueError):
        return None
    if len(lines) != kept.lines_count or plain_root([line_bytes(line) for line in lines]) != kept.lines_root:
        return None
    return ReportedEpoch(kept, commitment, volumes, lines)


async def fetch_batch(peer: Asked, epoch: ReportedEpoch) -> bytes:
    """The bytes of an epoch's batch, as a meta node gives them. Raises EpochDataError for more than the commitment can have, WireError when it refuses."""
    most_bytes = min(int(epoch.roots.receipts_count) * (asking.MAX_LEAF_BYTES + PREFIX_BYTES), MAX_BATCH_BYTES)
    found, after = bytearray(), b""
    while True:
        raw = await peer.ask(asking.EPOCH_BATCH, encode(asking.EpochBatchHead(epoch=epoch.number, after=after)), most_bytes=asking.MAX_ANSWER_BYTES)
        page = _parsed(asking.EpochBatchPage, raw)
        found += page.data
        if len(found) > most_bytes:
            raise EpochDataError(
                f"the meta node gives more than {most_bytes} bytes for the {epoch.roots.receipts_count} leaves of epoch {epoch.number}"
            )
        if not page.next:
            return bytes(found)
        if not page.data or len(page.next) > asking.MAX_CURSOR_BYTES or page.next <= after:
            raise EpochDataError("the meta node gives pages without an end: ask another one")
        after = bytes(page.next)


def _parsed(kind: Any, raw: bytes) -> Any:
    try:
        return kind.FromString(raw)
    except DecodeError:
        raise EpochDataError(f"expected a {kind.DESCRIPTOR.name} from the meta node, got {len(raw)} bytes that are none: ask another one") from None
