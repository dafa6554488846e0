"""From a block of the value chain to what the ledger is told of it. The same bytes from every meta node: only the block, and state at its height, decide.

    EventPrePay ─► SoldOzone          register's, EventSlashing ─► ObservedNode, ObservedMeta: the state after the height, once for each
    grant EventClaim ─► GrantedOzone  EventRegisterMetaKeys, EventSlashSigner ─► ObservedMeta
    EventVolumeReport ─► ObservedReport    EventVoidEpoch ─► VoidedEpoch      active_proposal ─► LedgerParams (only governance changes parameters)

What cannot be told is skipped: ozone for an account whose address has not 20 bytes, and nodes owned by one; no such account can have a wallet here.
Candidates are told when they become meta nodes, since anybody may send them by the thousand. Sources: storage-protocol.md 2; README of sds_node/meta/rules.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final

from chain.codec.canonical import encode
from chain.codec.registry import message_class
from modules.settlement.commitment import Line, node_of, wallet_of
from sds_node.documents import PACKAGE
from sds_node.meta.relay.reading import ObservingError, Reads
from sds_node.meta.rules.tables import ADDRESS_BYTES, ID_BYTES
from sds_node.meta.rules.wire import MAX_AMOUNT, MAX_EVENTS, Observation
from sds_node.value_chain.client import BlockEvents, ChainEvent
from sds_node.value_chain.views import MetaKeys, MetaNode, ResourceNode, Standing

ObservedEvent: Final = message_class(f"{PACKAGE}.ObservedEvent")
ObservedNode: Final = message_class(f"{PACKAGE}.ObservedNode")
ObservedMeta: Final = message_class(f"{PACKAGE}.ObservedMeta")
ReportedLine: Final = message_class(f"{PACKAGE}.ReportedLine")

MAX_PART_BYTES: Final = 400 << 10
"""Of the events of one part. With the lines of a report, 8,000 at most, and signatures it is still below an operation's 900 KiB."""

_REGISTER: Final = "stratos.register.v1."
_SETTLEMENT: Final = "stratos.settlement.v1."
_SOLD: Final = "stratos.sds.v1.EventPrePay"
_GRANTED: Final = "stratos.grant.v1.EventClaim"
_REPORTED: Final = "stratos.pot.v1.EventVolumeReport"
_VOIDED: Final = f"{_SETTLEMENT}EventVoidEpoch"
_PROPOSAL: Final = "active_proposal"
_TOUCHING: Final = ("stratos.pot.v1.EventSlashing", f"{_SETTLEMENT}EventRegisterMetaKeys", f"{_SETTLEMENT}EventSlashSigner")
_NAMES: Final = ("network_address", "resource_node", "meta_node", "candidate_network_address", "target_network_address")
_CHANGING: Final = frozenset(
    _REGISTER + name
    for name in (
        "EventUpdateResourceNodeDeposit",
        "EventUpdateMetaNodeDeposit",
        "EventUpdateEffectiveDeposit",
        "EventMetaNodeRegistrationVote",
        "EventLowerDeposit",
    )
)
"""Each may round S ÷ rate − Lt once, by less than a noz."""


async def events_of(block: BlockEvents, reads: Reads) -> list[Any]:
    """The ``ObservedEvent``s of a block, in the order in which things happened. Raises ObservingError for what no chain tells; what ``reads`` raises."""
    found: list[Any] = []
    seen: set[bytes] = set()
    has_params = False
    for event in block.events:
        if event.kind in (_SOLD, _GRANTED):
            found.extend(bought(event, block.height))
        elif event.kind == _REPORTED:
            found.append(await _report(_number(event, "epoch", block.height), reads, block.height))
        elif event.kind == _VOIDED:
            found.append(ObservedEvent(voided={"epoch": _number(event, "epoch", block.height)}))
        elif event.kind == _PROPOSAL and not has_params:
            has_params = True
            found.append(ObservedEvent(params=await reads.ledger_params(block.height)))
        for address in _touched(event):
            if address not in seen:
                seen.add(address)
                found.extend(await _node_events(address, reads, block.height))
    return found


def deposit_changes_of(block: BlockEvents) -> int:
    """How many deposits changed in a block, at most."""
    return sum(event.kind in _CHANGING for event in block.events)


def node_event(node: ResourceNode, standing: Standing | None = None) -> list[Any]:
    """The event that tells of a resource node; none for one that no ledger can have."""
    if any(len(one) != ADDRESS_BYTES for one in (node.address, node.owner, node.beneficiary)) or len(node.p2p_key) != ID_BYTES:
        return []
    return [
        ObservedEvent(
            node=ObservedNode(
                address=node.address,
                owner=node.owner,
                beneficiary=node.beneficiary,
                p2p_key=node.p2p_key,
                deposit_wei=_amount(node.effective_wei if standing is None else 0),
                standing=int(standing or node.standing),
            )
        )
    ]


def observed_meta(node: MetaNode, keys: MetaKeys | None, is_active: bool) -> Any:
    """``ObservedMeta`` of a meta node."""
    return ObservedMeta(address=node.address, owner=node.owner, ledger_key=keys.ledger_key if keys is not None else b"", is_active=is_active)


def parts_of(events: Sequence[Any]) -> list[list[Any]]:
    """The events in parts that an operation holds each, with one report at most; one empty part for no events."""
    parts: list[list[Any]] = [[]]
    size_bytes, has_report = 0, False
    for event in events:
        event_bytes = event.ByteSize() + 8
        is_report = event.WhichOneof("event") == "report"
        if parts[-1] and (len(parts[-1]) >= MAX_EVENTS or size_bytes + event_bytes > MAX_PART_BYTES or (is_report and has_report)):
            parts.append([])
            size_bytes, has_report = 0, False
        parts[-1].append(event)
        size_bytes += event_bytes
        has_report = has_report or is_report
    return parts


def observations(
    chain_id: str, first_height: int, last: BlockEvents, parts: Sequence[Sequence[Any]], outstanding_noz: int, deposit_changes: int
) -> list[bytes]:
    """Canonical bytes of the Observations of heights ``first_height`` to ``last``'s, of which all events are in ``parts``; several parts are of one height."""
    assert len(parts) == 1 or first_height == last.height, "several parts are of one height"
    return [
        encode(
            Observation(
                chain_id=chain_id,
                from_height=first_height,
                to_height=last.height,
                part=at,
                is_last=at == len(parts) - 1,
                block_hash=last.block_hash,
                block_time_s=last.time_s,
                outstanding_noz=_amount(outstanding_noz),
                deposit_changes=deposit_changes,
                events=part,
            )
        )
        for at, part in enumerate(parts)
    ]


def with_lines(observation: bytes, lines: Iterable[Line]) -> bytes:
    """The same Observation, whose report brings its lines."""
    message = Observation.FromString(observation)
    report = next(event.report for event in message.events if event.WhichOneof("event") == "report")
    del report.lines[:]
    for line in lines:
        report.lines.append(ReportedLine(wallet=line.wallet, traffic_class=line.traffic_class, fund=line.fund, noz=_amount(line.noz)))
    return encode(message)


# --- events ---------------------------------------------------------------------------------------------------------------------------


def bought(event: ChainEvent, height: int) -> list[Any]:
    """``SoldOzone`` or ``GrantedOzone`` of an event, as ObservedEvent; nothing of one that tells of no ozone, or of none for a wallet."""
    if event.kind not in (_SOLD, _GRANTED):
        return []
    is_granted = event.kind == _GRANTED
    wallet = wallet_of(event.text("wallet" if is_granted else "beneficiary"))
    noz = _number(event, "granted_noz" if is_granted else "purchased_noz", height)
    if wallet is None or not noz:
        return []
    if not is_granted:
        return [ObservedEvent(sold={"wallet": wallet, "noz": str(noz)})]
    try:
        expires_s = int(datetime.fromisoformat(event.text("expire_time")[:19] + "+00:00").timestamp())
    except ValueError:
        raise _strange(event, "expire_time", height) from None
    return [ObservedEvent(granted={"wallet": wallet, "noz": str(noz), "expires_s": max(0, expires_s)})]


async def _report(epoch: int, reads: Reads, height: int) -> Any:
    kept = await reads.committed_epoch(epoch, height)
    if kept is None:
        raise ObservingError(
            f"height {height} has a report of epoch {epoch}, and the chain knows no such epoch there: ask another node of the value chain"
        )
    return ObservedEvent(
        report={
            "epoch": epoch,
            "reference": kept.report_reference,
            "lines_root": kept.lines_root,
            "lines_count": kept.lines_count,
            "promo_expired_noz": "" if kept.promo_expired_noz == "0" else kept.promo_expired_noz,
            "maturity_epoch": kept.maturity_epoch,
        }
    )


def _touched(event: ChainEvent) -> list[bytes]:
    """Network addresses of nodes that an event may have changed."""
    if not event.kind.startswith(_REGISTER) and event.kind not in _TOUCHING:
        return []
    found = (node_of(event.text(name)) for name in _NAMES if name in event.attributes)
    return [address for address in found if address is not None]


async def _node_events(address: bytes, reads: Reads, height: int) -> list[Any]:
    """How a node stands after a height; what was there before it tells whose the one that is gone was."""
    before = height - 1
    node = await reads.resource_node(address, height)
    if node is not None:
        return node_event(node)
    meta = await reads.meta_node(address, height)
    if meta is not None and meta.is_active:
        return _meta_event(meta, await reads.meta_keys(address, height), True)
    if before < 1:
        return []
    past = await reads.resource_node(address, before)
    if past is not None:
        return node_event(past, Standing.GONE)
    past_meta = await reads.meta_node(address, before)
    if past_meta is not None and past_meta.is_active:
        return _meta_event(past_meta, await reads.meta_keys(address, height), False)
    return []


def _meta_event(meta: MetaNode, keys: MetaKeys | None, is_active: bool) -> list[Any]:
    return [ObservedEvent(meta=observed_meta(meta, keys, is_active))] if len(meta.owner) == ADDRESS_BYTES else []


def _number(event: ChainEvent, name: str, height: int) -> int:
    text = event.text(name)
    if not (text.isascii() and text.isdigit() and len(text) <= 39 and int(text) <= MAX_AMOUNT):
        raise _strange(event, name, height)
    return int(text)


def _strange(event: ChainEvent, name: str, height: int) -> ObservingError:
    return ObservingError(
        f"{event.kind} at height {height} has {name} {event.text(name)[:60]!r}, which this version cannot read: update it, or ask another node"
    )


def _amount(value: int) -> str:
    """In the one spelling that the ledger takes."""
    return str(value) if value else ""
