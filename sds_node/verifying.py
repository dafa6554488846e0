"""Whether an epoch is what it says it is: the batch that its ``data_ref`` names against the commitment on chain, and each leaf against settlement's rules.

    batch ─ split ─► leaves ─ tree ═ receipts_root? ─ no: the data is withheld ─► challenge a leaf
                                │ yes
          sum ═ report? ── faults ── order ── once ── once over epochs ── Σ = each line ── ranges of a lease disjoint ── totals, debits
                                └───────┴───────┴─────────┴───────────────┴─────────────────────┴─► Finding with a MsgFraudProof that the chain accepts

Pure: what is needed of the chain comes as arguments. What only the ledger knows is not judged here: balances, audits and files against their roots are for
wallets (``proofs.py``), and whether a node was eligible for those who countersign. Sources: storage-protocol.md 1.6, 1.9, 3.6; modules/settlement/README.md.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from hashlib import sha256
from itertools import pairwise
from typing import Any, Final

from google.protobuf.message import DecodeError

from chain.codec.json import from_json, to_json
from chain.codec.registry import message_class
from chain.crypto import address as bech32
from modules.settlement import leaves as rules
from modules.settlement.commitment import CommitLine, line_bytes, node_of, wallet_of
from modules.settlement.documents import LIMIT_DOMAIN, OrderLimit, decoded, signed_by_key
from modules.settlement.leaves import GET, PUT, Leaf
from modules.settlement.params import PACKAGE
from modules.settlement.trees import leaf_hash, plain_root
from sds_node.asking import MAX_LEAF_BYTES
from sds_node.epoch_data import PREFIX_BYTES, ReportedEpoch
from sds_node.proofs import balance_leaf, path_of, plain_levels, sum_levels, sum_root_of

MsgFraudProof: Final = message_class(f"{PACKAGE}.MsgFraudProof")
LeafProof: Final = message_class(f"{PACKAGE}.LeafProof")
LineProof: Final = message_class(f"{PACKAGE}.LineProof")
BadLeaf: Final = message_class(f"{PACKAGE}.BadLeaf")
DoubleEntry: Final = message_class(f"{PACKAGE}.DoubleEntry")
WrongOrder: Final = message_class(f"{PACKAGE}.WrongOrder")
WrongSum: Final = message_class(f"{PACKAGE}.WrongSum")
OverlappingRanges: Final = message_class(f"{PACKAGE}.OverlappingRanges")
WithheldLeaf: Final = message_class(f"{PACKAGE}.WithheldLeaf")

DATA_REF: Final = "sha256:"
MAX_FINDINGS: Final = 100
"""More are counted, not told: one voids the epoch."""
ROOTS: Final = "roots"
"""Kind of a finding that no message proves: who countersigns must not, governance may act."""
LineKey = tuple[bytes, int, int]
"""(wallet, fund, class): settlement's order of leaves."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong. ``kind`` is that of MsgFraudProof, or ``roots``; ``proof`` is what `stchaind tx settlement fraud-proof` reads, None without a
    proof; ``accused`` is the meta node (stsds1…) that is meant, empty for all signers of the epoch."""

    kind: str
    text: str
    proof: dict[str, Any] | None = None
    accused: str = ""

    def message(self, finder: str) -> Any:
        """The MsgFraudProof that ``finder`` (st1…) signs. Raises ValueError for a finding without a proof."""
        if self.proof is None:
            raise ValueError(f"a finding of kind {self.kind} has no proof: {self.text}")
        return from_json(MsgFraudProof, {"finder": finder, **self.proof}, "proof")


@dataclass(slots=True)
class Findings:
    """What was found, bounded."""

    found: list[Finding] = field(default_factory=list)
    left_out: int = 0

    def add(self, kind: str, text: str, content: Callable[[], Any] | None = None, accused: str = "") -> None:
        """One more; ``content`` makes the message of its kind."""
        if len(self.found) >= MAX_FINDINGS:
            self.left_out += 1
        else:
            self.found.append(Finding(kind, text, None if content is None else {kind: to_json(content())}, accused))


class BatchBroken(Exception):
    """Bytes that are no batch. ``index`` is the first leaf that cannot be read."""

    def __init__(self, index: int, why: str) -> None:
        super().__init__(f"leaf {index} cannot be read: {why}")
        self.index = index


class Batch:
    """The leaves of a batch with their tree. Raises BatchBroken for bytes that are none."""

    def __init__(self, epoch: int, data: bytes) -> None:
        self.epoch, self.data_ref = epoch, f"{DATA_REF}{sha256(data).hexdigest()}"
        self.leaves: list[Any] = []
        hashes: list[tuple[bytes, int]] = []
        for leaf, raw in _leaves(data):
            self.leaves.append(leaf)
            hashes.append((leaf_hash(raw), int(leaf.noz)))
        self._hashes = hashes

    @cached_property
    def levels(self) -> list[list[tuple[bytes, int]]]:
        """The tree with sums."""
        return sum_levels(self._hashes)

    @property
    def root(self) -> bytes:
        return sum_root_of(self.levels)[0]

    @property
    def sum_noz(self) -> int:
        return sum_root_of(self.levels)[1]

    def proof(self, index: int) -> Any:
        """The LeafProof of a leaf."""
        made = LeafProof(epoch=self.epoch, index=index, leaf=self.leaves[index])
        for digest, noz in path_of(self.levels, index):
            made.path.add(hash=digest, sum_noz=str(noz))
        return made


def _leaves(data: bytes) -> Iterator[tuple[Any, bytes]]:
    at = index = 0
    while at < len(data):
        size = int.from_bytes(data[at : at + PREFIX_BYTES], "big")
        at += PREFIX_BYTES
        if not 0 < size <= MAX_LEAF_BYTES or at + size > len(data):
            raise BatchBroken(index, f"expected 1 to {MAX_LEAF_BYTES} bytes after their length, it says {size} and {max(0, len(data) - at)} are left")
        raw = data[at : at + size]
        try:
            leaf = Leaf.FromString(raw)
        except DecodeError:
            raise BatchBroken(index, "it is no leaf") from None
        if rules.leaf_bytes(leaf) != raw:
            raise BatchBroken(index, "it is not in canonical form, so nobody can show it on chain")
        yield leaf, raw
        at += size
        index += 1


def verify(
    epoch: ReportedEpoch, data: bytes, chain_id: str, ledger_key: Callable[[bytes], bytes | None], earlier: Sequence[tuple[ReportedEpoch, bytes]] = ()
) -> Findings:
    """Check the batch of an epoch. ``ledger_key`` gives what a meta node (20 bytes) registered; ``earlier`` are epochs before it that the chain still keeps,
    with their batches: what they paid already may not be in this one. Batches of earlier epochs that do not lead to their roots are left out here."""
    findings = Findings()
    batch = _committed(epoch, data, findings)
    if batch is None:
        return findings
    before = [(one, found) for one, raw in earlier if not one.is_void and (found := _committed(one, raw, Findings())) is not None]
    is_whole = _check_sum(epoch, batch, findings)
    for index, leaf in enumerate(batch.leaves):
        fault = rules.fault(leaf, chain_id, ledger_key)
        if fault is not None:
            findings.add("bad_leaf", f"leaf {index} is bad: {fault}", partial(_bad_leaf, batch, index))
    if is_whole:
        _check_once(batch, [found for one, found in before if found.sum_noz == one.volume_noz], findings)
        if _check_order(batch, findings):
            _check_lines(epoch, batch, findings)
    _check_ranges([batch, *(found for _, found in before)], ledger_key, findings)
    _check_roots(epoch, batch, findings)
    return findings


# --- the data itself --------------------------------------------------------------------------------------------------------------------


def _committed(epoch: ReportedEpoch, data: bytes, findings: Findings) -> Batch | None:
    """The batch, if its tree is the committed one; else what is missing is found to be withheld."""
    count, root = int(epoch.roots.receipts_count), bytes(epoch.roots.receipts_root)
    try:
        batch = Batch(epoch.number, data)
    except BatchBroken as error:
        withheld(epoch, error.index, f"the batch of epoch {epoch.number} is not to be read: {error}", findings)
        return None
    if (len(batch.leaves), batch.root) != (count, root):
        text = (
            f"the batch of epoch {epoch.number} has {len(batch.leaves)} leaves under {batch.root.hex()[:16]}…, the commitment {count} under "
            f"{root.hex()[:16]}…: whoever gave it does not have the data, or nobody has; ask another meta node, then challenge a leaf"
        )
        withheld(epoch, min(len(batch.leaves), max(0, count - 1)), text, findings)
        return None
    if batch.data_ref != epoch.roots.data_ref:
        findings.add(ROOTS, f"data_ref is {str(epoch.roots.data_ref)[:80]!r}, the batch under the receipts root is {batch.data_ref}")
    return batch


def withheld(epoch: ReportedEpoch, index: int, text: str, findings: Findings) -> None:
    """Data that is not there: the chain asks for a leaf, and voids the epoch unless somebody shows it."""
    count = int(epoch.roots.receipts_count)
    if not count:
        findings.add(ROOTS, text)
        return
    index = min(index, count - 1)
    findings.add(
        "withheld_leaf",
        f"{text}. To ask on chain: stchaind tx settlement challenge {epoch.number} {index}",
        partial(WithheldLeaf, epoch=epoch.number, leaf_index=index),
    )


def _bad_leaf(batch: Batch, index: int) -> Any:
    return BadLeaf(leaf=batch.proof(index))


def _check_sum(epoch: ReportedEpoch, batch: Batch, findings: Findings) -> bool:
    if batch.sum_noz == epoch.volume_noz:
        return True
    text = f"the leaves sum up to {batch.sum_noz} noz, the report to {epoch.volume_noz}"
    if batch.leaves:
        findings.add("bad_leaf", text, partial(_bad_leaf, batch, 0))
    else:
        findings.add(ROOTS, text)
    return False


# --- leaves among each other ------------------------------------------------------------------------------------------------------------


def _check_order(batch: Batch, findings: Findings) -> bool:
    """Whether neighbours ascend. Leaves that are bad by themselves are shown as such."""
    is_ordered = True
    for index, (left, right) in enumerate(pairwise([rules.sort_key(leaf) for leaf in batch.leaves])):
        if left is None or right is None:
            is_ordered = False
        elif left >= right:
            is_ordered = False
            findings.add("wrong_order", f"leaves {index} and {index + 1} are not in order", partial(_wrong_order, batch, index))
    return is_ordered


def _wrong_order(batch: Batch, index: int) -> Any:
    return WrongOrder(left=batch.proof(index), right=batch.proof(index + 1))


def _check_once(batch: Batch, before: Sequence[Batch], findings: Findings) -> None:
    paid: dict[bytes, tuple[Batch, int]] = {}
    for one in (*before, batch):
        for index, leaf in enumerate(one.leaves):
            identity = rules.identity(leaf)
            if identity is None:
                continue
            first = paid.setdefault(identity, (one, index))
            if first != (one, index) and one is batch:
                text = f"leaf {index} pays again what leaf {first[1]} of epoch {first[0].epoch} paid: serial {identity.hex()}"
                findings.add("double_entry", text, partial(_double_entry, *first, one, index))


def _double_entry(first: Batch, at: int, second: Batch, index: int) -> Any:
    return DoubleEntry(first=first.proof(at), second=second.proof(index))


def _check_lines(epoch: ReportedEpoch, batch: Batch, findings: Findings) -> None:
    """Each line is the sum of its leaves, which lie side by side."""
    borders: dict[LineKey, tuple[int, int, int]] = {}
    for index, leaf in enumerate(batch.leaves):
        key = rules.line_key(leaf)
        if key is not None:
            first, _, noz = borders.get(key, (index, index, 0))
            borders[key] = first, index, noz + int(leaf.noz)
    keys = [rules.line_key(leaf) or (b"", 0, 0) for leaf in batch.leaves]
    for at, line in enumerate(epoch.lines):
        key = line.wallet, line.fund, line.traffic_class
        first, last, noz = borders.pop(key, (-1, -1, 0))
        if noz == line.noz:
            continue
        text = f"{bech32.encode(line.wallet)}, class {line.traffic_class}, fund {line.fund}: the report has {line.noz} noz, its leaves {noz}"
        if first < 0:
            after = sum(one < key for one in keys)
            findings.add("wrong_sum", text, partial(_wrong_sum, epoch, batch, at, None, after - 1, after))
        else:
            findings.add("wrong_sum", text, partial(_wrong_sum, epoch, batch, at, (first, last), first - 1, last + 1))
    for wallet, fund, traffic_class in borders:
        # The sums are equal in all, so that some line has less than it says, and was found above.
        findings.add(ROOTS, f"{bech32.encode(wallet)}, class {traffic_class}, fund {fund} has leaves and no line")


def _wrong_sum(epoch: ReportedEpoch, batch: Batch, at: int, ends: tuple[int, int] | None, before: int, after: int) -> Any:
    line = epoch.lines[at]
    content = WrongSum(
        line=LineProof(
            epoch=epoch.number,
            index=at,
            line=CommitLine(wallet=bech32.encode(line.wallet), traffic_class=line.traffic_class, fund=line.fund, volume_noz=str(line.noz)),
            path=path_of(plain_levels([line_bytes(one) for one in epoch.lines]), at),
        )
    )
    if before >= 0:
        content.before.CopyFrom(batch.proof(before))
    if ends is not None:
        content.first.CopyFrom(batch.proof(ends[0]))
        content.last.CopyFrom(batch.proof(ends[1]))
    if after < len(batch.leaves):
        content.after.CopyFrom(batch.proof(after))
    return content


# --- order limits of one lease ----------------------------------------------------------------------------------------------------------


def _check_ranges(batches: Sequence[Batch], ledger_key: Callable[[bytes], bytes | None], findings: Findings) -> None:
    """No noz of a lease pays two order limits."""
    leases: defaultdict[tuple[str, bytes], dict[bytes, tuple[int, int, Any]]] = defaultdict(dict)
    for batch in batches:
        for leaf in batch.leaves:
            limit = decoded(OrderLimit, leaf.traffic.order_limit.body) if leaf.WhichOneof("source") == "traffic" else None
            if limit is not None and limit.from_noz < limit.to_noz:
                signed = leaf.traffic.order_limit
                leases[limit.meta_node, bytes(limit.lease_id)][signed.body] = int(limit.from_noz), int(limit.to_noz), signed
    for (meta_node, lease_id), taken in leases.items():
        pair = _overlap(list(taken.values()), ledger_key(node_of(meta_node) or b""))
        if pair is not None:
            text = f"{meta_node} gave one part of lease {lease_id.hex()} to two order limits"
            findings.add("overlapping_ranges", text, partial(OverlappingRanges, first=pair[0], second=pair[1]), meta_node)


def _overlap(taken: list[tuple[int, int, Any]], key: bytes | None) -> tuple[Any, Any] | None:
    """Two signed order limits whose ranges share a noz."""
    widest: tuple[int, int, Any] | None = None
    for one in sorted(taken, key=lambda found: found[:2]):
        if widest is not None and one[0] < widest[1] and _is_signed(widest[2], key) and _is_signed(one[2], key):
            return widest[2], one[2]
        if widest is None or one[1] > widest[1]:
            widest = one
    return None


def _is_signed(given: Any, key: bytes | None) -> bool:
    return key is not None and signed_by_key(LIMIT_DOMAIN, given.body, key, given.signature)


def overlap_finding(first: Any, second: Any) -> Finding:
    """What a resource node kept of a meta node that used a lease twice (two SignedDocuments of order limits), as the chain takes it."""
    limit = decoded(OrderLimit, first.body)
    accused = "" if limit is None else str(limit.meta_node)
    return Finding(
        "overlapping_ranges",
        f"{accused} gave one part of a lease to two order limits",
        {"overlapping_ranges": to_json(OverlappingRanges(first=first, second=second))},
        accused,
    )


# --- the other roots --------------------------------------------------------------------------------------------------------------------


def _check_roots(epoch: ReportedEpoch, batch: Batch, findings: Findings) -> None:
    """Roots that follow from lines and leaves. No message proves them wrong: they are for those who countersign, and for governance."""
    if plain_root([line_bytes(line) for line in epoch.lines]) != bytes(epoch.roots.totals_root):
        findings.add(ROOTS, "totals_root is not the root over the report's lines")
    debits: dict[bytes, list[int]] = {}
    for leaf in batch.leaves:
        limit = decoded(OrderLimit, leaf.traffic.order_limit.body) if leaf.WhichOneof("source") == "traffic" else None
        wallet = None if limit is None or limit.action not in (GET, PUT) else wallet_of(limit.wallet)
        if wallet is not None and leaf.fund in (1, 2):
            debits.setdefault(wallet, [0, 0])[leaf.fund - 1] += int(leaf.noz)
    if plain_root([balance_leaf(wallet, *noz) for wallet, noz in sorted(debits.items())]) != bytes(epoch.roots.debits_root):
        findings.add(ROOTS, "debits_root is not the root over what the leaves took from wallets")
