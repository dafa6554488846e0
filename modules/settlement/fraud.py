"""Judging what is shown: does it lead to what was committed, and does it prove a lie?

``judge`` answers with the epoch that lies, or with the meta node and the lease; it raises for everything else and writes nothing.
README.md has the kinds with their reasons. Source: storage-protocol.md 1.9.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from chain.coins import parse_wire_int
from chain.context import Context
from chain.crypto import address as bech32
from chain.store.api import StateReader
from modules.settlement import commitment as commitments
from modules.settlement import documents, leaves, trees
from modules.settlement.commitment import Line, node_of, wallet_of
from modules.settlement.documents import OrderLimit, decoded
from modules.settlement.errors import InvalidProof, LeasePunished, NoFraud
from modules.settlement.keeper import SettlementKeeper

GAS_PER_BYTE: Final = 10
"""Of a proof: it is hashed and read."""
GAS_PER_STEP: Final = 100
"""Of a path: one hash."""
GAS_PER_SIGNATURE: Final = 1_000


class Shown(NamedTuple):
    """A leaf that is in the epoch's tree. ``kept`` is the CommittedEpoch; sums in noz."""

    kept: Any
    at: int
    leaf: Any
    before_noz: int
    total_noz: int


class LyingEpoch(NamedTuple):
    """An epoch was proved to lie: its signers pay."""

    epoch: int


class UsedTwice(NamedTuple):
    """A meta node (network address) was proved to have issued one part of a lease twice."""

    meta_node: bytes
    lease_id: bytes


def judge(keeper: SettlementKeeper, ctx: Context, state: StateReader, proof: Any, kind: str) -> LyingEpoch | UsedTwice:
    """The verdict on one of the kinds that prove by themselves. Raises InvalidProof (settlement/17), NoFraud (18), LeasePunished (19), and what
    ``contestable`` raises.
    """
    return _JUDGES[kind](keeper, ctx, state, proof)


def shown(keeper: SettlementKeeper, ctx: Context, state: StateReader, proof: Any) -> Shown:
    """The leaf of a LeafProof, in a tree of any sum. Raises InvalidProof (settlement/17), and what ``contestable`` raises."""
    kept = keeper.contestable(state, proof.epoch)
    raw = leaves.leaf_bytes(proof.leaf)
    ctx.gas.consume(GAS_PER_BYTE * len(raw) + GAS_PER_STEP * len(proof.path), "proof of a leaf")
    if len(proof.path) > trees.MAX_PATH:
        raise InvalidProof(f"expected a path of at most {trees.MAX_PATH} steps, got {len(proof.path)}")
    path = [(bytes(step.hash), parse_wire_int(step.sum_noz or "0")) for step in proof.path]
    reached = trees.climb(raw, proof.leaf.noz, proof.index, kept.roots.receipts_count, path)
    if reached is None or reached.root != kept.roots.receipts_root:
        raise InvalidProof(
            f"the path does not lead from leaf {proof.index} of {kept.roots.receipts_count} to the receipts root of epoch {proof.epoch}"
        )
    return Shown(kept, proof.index, proof.leaf, reached.before_noz, reached.total_noz)


def shown_within(keeper: SettlementKeeper, ctx: Context, state: StateReader, proof: Any) -> Shown:
    """``shown``, in a tree that sums up to the report. Raises InvalidProof (settlement/17) for another sum, which is a bad leaf's matter."""
    found = shown(keeper, ctx, state, proof)
    if found.total_noz != int(found.kept.volume_noz):
        raise InvalidProof(f"the receipts sum up to {found.total_noz} noz, the report to {found.kept.volume_noz} noz: show the leaf as a bad one")
    return found


def _bad_leaf(keeper: SettlementKeeper, ctx: Context, state: StateReader, proof: Any) -> LyingEpoch:
    found = shown(keeper, ctx, state, proof.leaf)
    ctx.gas.consume(GAS_PER_SIGNATURE * leaves.SIGNATURES_OF_A_LEAF, "signatures of a leaf")
    if found.total_noz == int(found.kept.volume_noz) and leaves.fault(found.leaf, ctx.chain_id, _ledger_keys(keeper, state)) is None:
        raise NoFraud(f"leaf {found.at} of epoch {found.kept.epoch} is good")
    return LyingEpoch(found.kept.epoch)


def _double_entry(keeper: SettlementKeeper, ctx: Context, state: StateReader, proof: Any) -> LyingEpoch:
    one, other = shown_within(keeper, ctx, state, proof.first), shown_within(keeper, ctx, state, proof.second)
    if (one.kept.epoch, one.at) == (other.kept.epoch, other.at):
        raise NoFraud("the two leaves are one")
    identity = leaves.identity(one.leaf)
    if identity is None or identity != leaves.identity(other.leaf):
        raise NoFraud("the two leaves do not have one serial, nor one stored share and day")
    return LyingEpoch(max(one.kept.epoch, other.kept.epoch))  # the later one: its signers had the earlier one before them


def _wrong_order(keeper: SettlementKeeper, ctx: Context, state: StateReader, proof: Any) -> LyingEpoch:
    left, right = shown_within(keeper, ctx, state, proof.left), shown_within(keeper, ctx, state, proof.right)
    if left.kept.epoch != right.kept.epoch or left.at + 1 != right.at:
        raise NoFraud("the two leaves are no neighbours, left and right")
    first, second = leaves.sort_key(left.leaf), leaves.sort_key(right.leaf)
    if first is None or second is None:
        raise NoFraud("a leaf has nothing to be sorted by: show it as a bad one")
    if first < second:
        raise NoFraud("the two leaves are in order")
    return LyingEpoch(left.kept.epoch)


def _wrong_sum(keeper: SettlementKeeper, ctx: Context, state: StateReader, proof: Any) -> LyingEpoch:
    kept = keeper.contestable(state, proof.line.epoch)
    line = _shown_line(ctx, kept, proof.line)
    parts = {
        name: shown_within(keeper, ctx, state, getattr(proof, name)) if proof.HasField(name) else None
        for name in ("before", "first", "last", "after")
    }
    if any(part is not None and part.kept.epoch != kept.epoch for part in parts.values()):
        raise InvalidProof("the leaves and the line are not of one epoch")
    key = (line.wallet, line.fund, line.traffic_class)
    before, first, last, after = parts["before"], parts["first"], parts["last"], parts["after"]
    if first is None or last is None:
        if first is not None or last is not None:
            raise InvalidProof("expected both the first and the last leaf of the line, or neither")
        sum_noz = _no_leaves(kept, key, before, after)
    else:
        sum_noz = _sum_of(kept, key, before, first, last, after)
    if sum_noz == line.noz:
        raise NoFraud(f"the leaves of the line sum up to its {line.noz} noz")
    return LyingEpoch(kept.epoch)


def _sum_of(kept: Any, key: tuple[bytes, int, int], before: Shown | None, first: Shown, last: Shown, after: Shown | None) -> int:
    """noz of the leaves of a line, which begin after ``before`` and end before ``after``."""
    if leaves.line_key(first.leaf) != key or leaves.line_key(last.leaf) != key or first.at > last.at:
        raise InvalidProof("the first and the last leaf are not of the line")
    if (before is None) != (first.at == 0) or (before is not None and (before.at + 1 != first.at or leaves.line_key(before.leaf) == key)):
        raise InvalidProof("expected the leaf before the line's first one, of another line; none before leaf 0")
    if (after is None) != (last.at + 1 == kept.roots.receipts_count) or (
        after is not None and (last.at + 1 != after.at or leaves.line_key(after.leaf) == key)
    ):
        raise InvalidProof("expected the leaf after the line's last one, of another line; none after the last leaf")
    return last.before_noz + int(last.leaf.noz) - first.before_noz


def _no_leaves(kept: Any, key: tuple[bytes, int, int], before: Shown | None, after: Shown | None) -> int:
    """0, where the line's leaves would be and are not."""
    lower = None if before is None else leaves.line_key(before.leaf)
    upper = None if after is None else leaves.line_key(after.leaf)
    if (before is not None and (lower is None or lower >= key)) or (after is not None and (upper is None or upper <= key)):
        raise InvalidProof("the two leaves are not those between which the line's would be")
    at = 0 if before is None else before.at + 1
    if at != (kept.roots.receipts_count if after is None else after.at):
        raise InvalidProof("the two leaves are no neighbours; one that is left out is beyond an end of the tree")
    return 0


def _shown_line(ctx: Context, kept: Any, proof: Any) -> Line:
    wallet = wallet_of(proof.line.wallet)
    if wallet is None or proof.line.traffic_class not in commitments.CLASSES or proof.line.fund not in commitments.FUNDS:
        raise InvalidProof("the line has no wallet, class or fund")
    line = Line(wallet, proof.line.traffic_class, proof.line.fund, commitments.amount_noz(proof.line.volume_noz, "line.volume_noz"))
    ctx.gas.consume(GAS_PER_STEP * len(proof.path), "proof of a line")
    if trees.climb_plain(commitments.line_bytes(line), proof.index, kept.lines_count, [bytes(step) for step in proof.path]) != kept.lines_root:
        raise InvalidProof(f"the path does not lead from line {proof.index} of {kept.lines_count} to the lines root of epoch {kept.epoch}")
    return line


def _overlapping_ranges(keeper: SettlementKeeper, ctx: Context, state: StateReader, proof: Any) -> UsedTwice:
    ctx.gas.consume(GAS_PER_BYTE * (len(proof.first.body) + len(proof.second.body)) + 2 * GAS_PER_SIGNATURE, "two order limits")
    first, second = (decoded(OrderLimit, one.body) for one in (proof.first, proof.second))
    if first is None or second is None:
        raise InvalidProof(f"expected two order limits in canonical form of at most {documents.MAX_BODY} bytes")
    meta_node = node_of(first.meta_node)
    if meta_node is None or (first.meta_node, first.lease_id) != (second.meta_node, second.lease_id) or len(first.lease_id) != leaves.HASH_BYTES:
        raise InvalidProof("expected two order limits of one meta node and one lease id of 32 bytes")
    if first.chain_id != ctx.chain_id or second.chain_id != ctx.chain_id:
        raise InvalidProof(f"expected two order limits for chain {ctx.chain_id}, got {first.chain_id[:64]!r} and {second.chain_id[:64]!r}")
    key = _ledger_keys(keeper, state)(meta_node)
    if key is None or not all(documents.signed_by_key(documents.LIMIT_DOMAIN, one.body, key, one.signature) for one in (proof.first, proof.second)):
        raise InvalidProof(f"{bech32.encode(meta_node, bech32.NODE)} has not signed both order limits with its ledger key")
    if proof.first.body == proof.second.body or max(first.from_noz, second.from_noz) >= min(first.to_noz, second.to_noz):
        raise NoFraud(
            f"the ranges {first.from_noz} to {first.to_noz} and {second.from_noz} to {second.to_noz} do not overlap, or are one order limit"
        )
    if keeper.is_punished(state, meta_node, first.lease_id):
        raise LeasePunished(f"{first.meta_node} was punished for lease {first.lease_id.hex()}")
    return UsedTwice(meta_node, first.lease_id)


def _ledger_keys(keeper: SettlementKeeper, state: StateReader) -> leaves.LedgerKey:
    def key_of(meta_node: bytes) -> bytes | None:
        registered = keeper.meta_keys(state, meta_node)
        return None if registered is None else bytes(registered.ledger_consensus_pubkey)

    return key_of


_JUDGES: Final[dict[str, Callable[[SettlementKeeper, Context, StateReader, Any], LyingEpoch | UsedTwice]]] = {
    "bad_leaf": _bad_leaf,
    "double_entry": _double_entry,
    "wrong_order": _wrong_order,
    "wrong_sum": _wrong_sum,
    "overlapping_ranges": _overlapping_ranges,
}
KINDS: Final = (*_JUDGES, "withheld_leaf")
