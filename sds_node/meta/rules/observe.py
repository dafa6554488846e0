"""What happened on the value chain, once a quorum of meta nodes signed it; strictly by height. The chain is right: nothing here refuses what it can do.

    height 1 ─► 2 ─► 3 … 9 (empty ones as a range) ─► 10 part 0 ─► 10 part 1, last ─► 11

Refused is what no chain does, since its own rules forbid it: a second report of an epoch, a void epoch that was never reported or is mature, sums beyond
2^127 − 1, bytes of another form. Whoever meets such a refusal has a program that does not fit the chain, and observes no further.

Source: storage-protocol.md 1.4, 1.5, 1.10 and 2; ADR 8.
"""

from __future__ import annotations

from typing import Any, Final

from chain.quorum import quorum
from modules.settlement.documents import is_ledger_key, signed_by_key
from sds_node.meta.ledger.schema import MAX_INT63
from sds_node.meta.ledger.tables import Tables, View
from sds_node.meta.rules import epochs
from sds_node.meta.rules.call import Call, change_state, state_of
from sds_node.meta.rules.money import owe, pay_in
from sds_node.meta.rules.refusals import BAD_FORM, NO_QUORUM, TOO_MANY, WRONG_CHAIN, WRONG_HEIGHT, need, refuse, shown
from sds_node.meta.rules.tables import BLOCK, GONE, META, NODE, PAID, PROMO, STATE, Block, Meta, Node, State
from sds_node.meta.rules.wire import (
    MAX_EVENTS,
    MAX_METAS,
    MAX_SIGNATURES,
    MAX_U32,
    OBSERVATION_DOMAIN,
    Observation,
    address,
    amount,
    ascending,
    count,
    identity,
    listed,
    opened,
    seconds,
    whole,
)
from sds_node.schemes import MAX_RETENTION_DAYS

BLOCKS_KEPT: Final = 10_000
FIRST_SCORE: Final = 5_000
MAX_SCORE: Final = 10_000
_RATIO_ONE: Final = 10**18


def found(tables: Tables, chain_id: str, message: Any, time_ms: int) -> None:
    """The first operation: where the chain stands, who the meta nodes are, the parameters."""
    height = count(message.height, "found.height")
    identity(message.block_hash, "found.block_hash")
    params = _params(message.params)
    metas = listed(message.metas, MAX_METAS, "found.metas")
    for one in metas:
        _check_meta(one)
    ascending((one.address for one in metas), "found.metas")
    reported_epoch, reported_s = count(message.reported_epoch, "found.reported_epoch"), seconds(message.reported_s, "found.reported_s")
    sums = dict.fromkeys(_SUMS, 0)
    tables.put(
        STATE,
        State(
            id=1, chain_id=chain_id, height=height, block_hash=message.block_hash, block_time_s=0, part=0, block_number=1, deposit_changes=0,
            reported_epoch=reported_epoch, reported_s=reported_s, next_node=1, next_segment=1, nodes=0, **sums, **params,
        ),
    )  # fmt: skip
    tables.put(BLOCK, Block(1, height, message.block_hash, time_ms))
    for one in metas:
        tables.put(META, Meta(one.address, one.owner, one.ledger_key, one.is_active, 0, 0, 0))


_SUMS: Final = (
    "outstanding_noz", "owed_noz", "promo_owed_noz", "promo_expired_noz", "shortfall_noz", "promo_shortfall_noz", "repair_paid_noz",
    "repair_promo_noz",
)  # fmt: skip


def observe(call: Call, message: Any) -> None:
    """Apply an Observation. Refuses one that no quorum signed, or whose height does not follow."""
    tables = call.tables
    observation = opened(Observation, message.observation)
    need(observation.chain_id == call.chain_id, WRONG_CHAIN, f"expected an observation of {call.chain_id}, got {observation.chain_id[:50]!a}")
    listed(observation.events, MAX_EVENTS, "observation.events", 0)
    _check_quorum(tables, message)
    state = state_of(tables)
    _check_height(state, observation)
    block_time_s = seconds(observation.block_time_s, "observation.block_time_s")
    outstanding = amount(observation.outstanding_noz, "observation.outstanding_noz")
    changes = count(observation.deposit_changes, "observation.deposit_changes")
    for event in observation.events:
        _EVENTS[_kind(event)](call, getattr(event, _kind(event)), block_time_s)
    if not observation.is_last:
        change_state(tables, part=state.part + 1)
        return
    number = state.block_number + 1
    change_state(
        tables,
        height=observation.to_height,
        part=0,
        block_hash=observation.block_hash,
        block_time_s=block_time_s,
        block_number=number,
        outstanding_noz=outstanding,
        deposit_changes=changes,
    )
    tables.put(BLOCK, Block(number, observation.to_height, observation.block_hash, call.time_ms))
    if number > BLOCKS_KEPT:
        tables.delete(BLOCK, (number - BLOCKS_KEPT,))


def active_metas(view: View) -> list[Meta]:
    """The meta nodes that are bonded and not suspended, as observed."""
    return [one for one in view.scan(META, limit=10_000) if one.is_active]


def _check_quorum(tables: Tables, message: Any) -> None:
    listed(message.signatures, MAX_SIGNATURES, "observe.signatures")
    ascending((one.meta_node for one in message.signatures), "observe.signatures")
    active = {one.address: one.ledger_key for one in active_metas(tables)}
    needed, good = quorum(len(active)), 0
    for one in message.signatures:
        key = active.get(one.meta_node, b"")
        good += signed_by_key(OBSERVATION_DOMAIN, message.observation, key, one.signature)
    need(good >= needed, NO_QUORUM, f"expected {needed} of {len(active)} active meta nodes to have signed this observation, got {good}")


def _check_height(state: State, observation: Any) -> None:
    identity(observation.block_hash, "observation.block_hash")
    first, last = observation.from_height, observation.to_height
    need(
        (first, observation.part) == (state.height + 1, state.part),
        WRONG_HEIGHT,
        f"expected height {state.height + 1} from part {state.part} on, got {first} from part {observation.part} on",
    )
    need(first <= last <= MAX_INT63, BAD_FORM, f"observation.to_height: expected {first} or more, got {last}")
    need(
        first == last or (observation.is_last and not state.part),
        WRONG_HEIGHT,
        f"expected heights {first} to {last} in one part, or one height in several",
    )


def _kind(event: Any) -> str:
    kind: str | None = event.WhichOneof("event")
    if kind is None:
        refuse(BAD_FORM, "observation.events: expected each to have one of the kinds that this ledger knows, got one without")
    return kind


def _sold(call: Call, event: Any, block_time_s: int) -> None:
    noz = amount(event.noz, "sold.noz")
    owe(call.tables, PAID, noz)
    pay_in(call.tables, address(event.wallet, "sold.wallet"), PAID, noz, 0, call.time_ms)


def _granted(call: Call, event: Any, block_time_s: int) -> None:
    noz = amount(event.noz, "granted.noz")
    ends_ms = seconds(event.expires_s, "granted.expires_s") * 1_000
    owe(call.tables, PROMO, noz)
    pay_in(call.tables, address(event.wallet, "granted.wallet"), PROMO, noz, ends_ms, call.time_ms)


def _node(call: Call, event: Any, block_time_s: int) -> None:
    tables = call.tables
    node, owner = address(event.address, "node.address"), address(event.owner, "node.owner")
    beneficiary = address(event.beneficiary, "node.beneficiary")
    key = identity(event.p2p_key, "node.p2p_key")
    deposit = amount(event.deposit_wei, "node.deposit_wei")
    standing = whole(event.standing, 1, GONE, "node.standing")
    row = tables.find(NODE, "by_address", (node,))
    if row is None:
        state = state_of(tables)
        need(state.next_node <= MAX_U32, TOO_MANY, "a ledger numbers at most 2^32 - 1 nodes")
        change_state(tables, next_node=state.next_node + 1, nodes=state.nodes + 1)
        row = Node(state.next_node, node, owner, beneficiary, key, standing, 0, "", b"", 0, 0, False, 0, 0, FIRST_SCORE, 0)
    tables.put(NODE, row._replace(owner=owner, beneficiary=beneficiary, p2p_key=key, standing=standing, deposit_wei=deposit))


def _check_meta(event: Any) -> None:
    address(event.address, "meta.address")
    address(event.owner, "meta.owner")
    key = event.ledger_key
    need(not key or is_ledger_key(key), BAD_FORM, f"meta.ledger_key: expected an ed25519 key of 32 bytes or none, got {shown(key)}")


def _meta(call: Call, event: Any, block_time_s: int) -> None:
    _check_meta(event)
    row = call.tables.get(META, (event.address,)) or Meta(event.address, event.owner, b"", False, 0, 0, 0)
    call.tables.put(META, row._replace(owner=event.owner, ledger_key=event.ledger_key, is_active=event.is_active))


def _set_params(call: Call, event: Any, block_time_s: int) -> None:
    change_state(call.tables, **_params(event))


def _params(message: Any) -> dict[str, int]:
    """The columns that LedgerParams names. Refuses values that the chain does not allow."""
    bounds = {
        "bytes_per_stos": (1, 1 << 50),
        "escrow_ratio_e18": (0, _RATIO_ONE),
        "repair_ratio_e18": (0, _RATIO_ONE),
        "retention_days": (1, MAX_RETENTION_DAYS),
        "grace_days": (0, MAX_RETENTION_DAYS),
        "trash_days": (0, 365),
        "longest_lease_s": (1, 86_400),
        "audits_per_day": (1, 10_000),
        "max_wallets_per_report": (0, MAX_U32),
        "epoch_duration_s": (0, MAX_U32),
    }
    return {name: whole(getattr(message, name), least, most, f"params.{name}") for name, (least, most) in bounds.items()}


def _report(call: Call, event: Any, block_time_s: int) -> None:
    epochs.reported(call, event, block_time_s)


def _voided(call: Call, event: Any, block_time_s: int) -> None:
    epochs.voided(call, event)


_EVENTS: Final = {
    "sold": _sold,
    "granted": _granted,
    "node": _node,
    "meta": _meta,
    "params": _set_params,
    "report": _report,
    "voided": _voided,
}
