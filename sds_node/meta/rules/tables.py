"""The ledger's tables (docs/adr/0008). Numbers of nodes and segments are given once and in order; amounts are noz, times are milliseconds since 1970.

wallet ─ promo    lease ─ taken     object ─ segment ─ moved, committed     file ─ share ─ also   earned ─ epoch ─ epoch_line
                     └ asked           └ endowed   └── held (node)           trash     window ─ epoch_mark   queue   used   block   allowed
                                                              node, meta ─ told    meta ─ sent    node, segment ─ failed
"""

from __future__ import annotations

from typing import Annotated, Any, Final, NamedTuple

from sds_node.meta.ledger.schema import Bool, Bytes, Index, Int63, Schema, Table, Text, Uint128, declare, fixed

ADDRESS_BYTES: Final = 20
ID_BYTES: Final = 32
SERIAL_BYTES: Final = 16
NODE_BYTES: Final = 4
DAY_BYTES: Final = 2
MAX_SHARES: Final = 30
CHUNK_ENTRIES: Final = 1_024
MAX_NAME_BYTES: Final = 1_280
"""A name of 1,024 bytes under a folder's key, or plain."""
MAX_WRAPPED_BYTES: Final = 512
MAX_PASSWORD_CHECK_BYTES: Final = 64
MAX_LINK_BYTES: Final = 256
MAX_ENDPOINT_BYTES: Final = 128
MAX_REFERENCE_BYTES: Final = 128
DAY_MS: Final = 86_400_000

Count = Annotated[int, Int63()]
TimeMs = Annotated[int, Int63()]
Noz = Annotated[int, Uint128()]
Flag = Annotated[bool, Bool()]
Address = Annotated[bytes, fixed(ADDRESS_BYTES)]
Id = Annotated[bytes, fixed(ID_BYTES)]

PAID: Final = 1
PROMO: Final = 2
STORAGE: Final = 1

# A node's standing on chain.
ACTIVE, SUSPENDED, LEAVING, GONE = 1, 2, 3, 4

# What an object is in. Each has one entry in the queue, of the same number.
OPEN, KEPT, GRACE, TRASHED, ENDING = 1, 2, 3, 4, 5

# Kinds of queue entries beside those of objects.
LEASE_ENDS, PROMO_ENDS, USED_ENDS, SHARE_ENDS, EPOCH_ENDS = 16, 17, 18, 19, 20

# What an epoch is in.
CLOSED, REPORTED, VOID, MATURE = 1, 2, 3, 4


class State(NamedTuple):
    """One row: what was observed last, parameters, counters."""

    id: Count
    chain_id: Annotated[str, Text(50)]
    height: Count
    block_hash: Id
    block_time_s: Count
    part: Count
    """Parts of the next height that were observed already."""
    block_number: Count
    outstanding_noz: Noz
    """S ÷ rate − Lt at that height, with what a void epoch could not yet take from Lt."""
    deposit_changes: Count
    owed_noz: Noz
    """Sold and granted, less reported and expired: what the places below add up to."""
    promo_owed_noz: Noz
    """The part of it that was granted."""
    promo_expired_noz: Noz
    """Granted, over, and not reported yet."""
    shortfall_noz: Noz
    """Reported on chain beyond what was earned here; 0 unless a quorum signed another epoch than the ledger's."""
    promo_shortfall_noz: Noz
    """The part of it that was granted."""
    repair_paid_noz: Noz
    repair_promo_noz: Noz
    """The common repair fund, in two parts."""
    reported_epoch: Count
    reported_s: Count
    next_node: Count
    next_segment: Count
    nodes: Count
    bytes_per_stos: Count
    escrow_ratio_e18: Count
    repair_ratio_e18: Count
    retention_days: Count
    grace_days: Count
    trash_days: Count
    longest_lease_s: Count
    audits_per_day: Count
    max_wallets_per_report: Count
    epoch_duration_s: Count


class Wallet(NamedTuple):
    address: Address
    paid_noz: Noz
    promo_noz: Noz
    sequence: Count
    open_leases: Count
    files: Count
    trash: Count
    shares: Count
    is_legacy_allowed: Flag


class Promo(NamedTuple):
    """Granted noz of a wallet that end at the same midnight."""

    wallet: Address
    ends_ms: TimeMs
    noz: Noz


class Meta(NamedTuple):
    address: Address
    owner: Address
    ledger_key: Annotated[bytes, Bytes(32)]
    is_active: Flag
    nonce: Count
    """The highest that was used."""
    nonces_seen: Count
    """Bit i: nonce − 1 − i was used."""
    windows: Count


class Lease(NamedTuple):
    id: Id
    wallet: Address
    meta_node: Address
    session_pubkey: Id
    fund: Count
    noz: Noz
    """What is left."""
    given_noz: Noz
    made_ms: TimeMs
    ends_ms: TimeMs
    promo_ends_ms: TimeMs
    """For a promo lease, the mean end (a midnight) of what it was made of."""
    is_put_allowed: Flag
    """Whether what the wallet signed allows to store."""


class Node(NamedTuple):
    number: Count
    address: Address
    owner: Address
    beneficiary: Address
    p2p_key: Id
    standing: Count
    deposit_wei: Noz
    endpoint: Annotated[str, Text(MAX_ENDPOINT_BYTES)]
    prefix: Annotated[bytes, Bytes(16)]
    capacity_bytes: Count
    free_bytes: Count
    is_online: Flag
    seen_ms: TimeMs
    maintenance_until_ms: TimeMs
    score: Count
    shares: Count


class Object(NamedTuple):
    id: Id
    payer: Address
    lookup_id: Id
    lease: Id
    fund: Count
    root: Id
    file_hash: Annotated[str, Text(40)]
    size_bytes: Count
    k: Count
    n: Count
    first_segment: Count
    segments: Count
    """How many it has."""
    committed: Count
    """How many are there: less than it has while it is OPEN, what is left while it is ENDING."""
    escrow_ratio_e18: Count
    made_ms: TimeMs
    term_days: Count
    terms: Count
    term_noz: Noz
    """The escrow of all its shares for one term."""
    escrow_noz: Noz
    repair_noz: Noz
    promo_ends_ms: TimeMs
    state: Count
    due_ms: TimeMs
    """When the queue has it."""


class Segment(NamedTuple):
    number: Count
    object: Id
    root: Id
    first_serial: Annotated[bytes, fixed(SERIAL_BYTES)]
    nodes: Annotated[bytes, Bytes(MAX_SHARES * NODE_BYTES)]
    """4 bytes for each share: its node's number, 0 for none."""
    days: Annotated[bytes, Bytes(MAX_SHARES * DAY_BYTES)]
    """2 bytes for each share: the last day that was settled."""


class Moved(NamedTuple):
    """A share whose serial is not the segment's first one + its index."""

    segment: Count
    share: Count
    """Its index."""
    serial: Annotated[bytes, fixed(SERIAL_BYTES)]


class Held(NamedTuple):
    """Segments of which a node has a share, from ``first`` on; see places.py."""

    node: Count
    first: Count
    last: Count
    entries: Count
    packed: Annotated[bytes, Bytes(CHUNK_ENTRIES * 9)]


class Failed(NamedTuple):
    """A share that a release named as failed, at the node that has it, and that no release named as passed since."""

    node: Count
    segment: Count
    share: Count
    """Its index."""


class File(NamedTuple):
    wallet: Address
    lookup_id: Id
    object: Id
    name: Annotated[bytes, Bytes(MAX_NAME_BYTES)]
    wrapped_key: Annotated[bytes, Bytes(MAX_WRAPPED_BYTES)]
    is_public: Flag
    made_ms: TimeMs
    changed_ms: TimeMs


class Trash(NamedTuple):
    """A file record whose object is in the trash."""

    wallet: Address
    object: Id
    lookup_id: Id
    name: Annotated[bytes, Bytes(MAX_NAME_BYTES)]
    wrapped_key: Annotated[bytes, Bytes(MAX_WRAPPED_BYTES)]
    is_public: Flag
    made_ms: TimeMs


class Share(NamedTuple):
    id: Id
    """SHA-256 of the share id."""
    share_id: Annotated[str, Text(MAX_LINK_BYTES)]
    link: Annotated[str, Text(MAX_LINK_BYTES)]
    wallet: Address
    object: Id
    """The version of the file that is shared: its key is what is wrapped."""
    wrapped_key: Annotated[bytes, Bytes(MAX_WRAPPED_BYTES)]
    made_ms: TimeMs
    ends_ms: TimeMs
    """0: never."""
    password_check: Annotated[bytes, Bytes(MAX_PASSWORD_CHECK_BYTES)]


class Also(NamedTuple):
    """A link, a CID, that a share has beside its own: it leads to the same content as that of the share whose own link it is."""

    share: Id
    link: Annotated[str, Text(MAX_LINK_BYTES)]


class Earned(NamedTuple):
    wallet: Address
    traffic_class: Count
    fund: Count
    noz: Noz
    since_ms: TimeMs


class WindowRow(NamedTuple):
    meta_node: Address
    number: Count
    is_release: Flag
    made_ms: TimeMs
    root: Id
    items: Count
    batch_hash: Id
    noz: Noz
    """What it moved into earned."""


class Epoch(NamedTuple):
    number: Count
    status: Count
    closed_ms: TimeMs
    lines_root: Id
    lines_count: Count
    noz: Noz
    promo_noz: Noz
    promo_expired_noz: Noz
    reference: Annotated[str, Text(MAX_REFERENCE_BYTES)]
    maturity_epoch: Count
    ends_ms: TimeMs
    """When the queue has it: once it is MATURE."""


class EpochLine(NamedTuple):
    epoch: Count
    wallet: Address
    traffic_class: Count
    fund: Count
    noz: Noz


class EpochMark(NamedTuple):
    """Windows of a meta node as an epoch was closed. Leaves of those up to ``last`` are in it unless an earlier one has them; releases after ``after``
    came since the last epoch that held then."""

    epoch: Count
    meta_node: Address
    after: Count
    last: Count


class Taken(NamedTuple):
    """Who settles a lease since it ended: the first meta node whose window took from it then. No other one's receipts are paid from it any more."""

    lease: Id
    meta_node: Address


class Asked(NamedTuple):
    """What a lease is for that a legacy string pays for: one content, to store it or to read it."""

    lease: Id
    is_put: Flag
    file_hash: Annotated[str, Text(40)]
    size_bytes: Count
    """Of what is stored, or of the largest object that may be read."""


class Endowed(NamedTuple):
    """What of an object's escrow and repair fund came from the common one, for shares that nobody held before: it goes back there as far as it is left when the
    object ends."""

    object: Id
    noz: Noz
    of_noz: Noz
    """What escrow and repair fund had together then: its part is the same of what is left of them."""


class Allowed(NamedTuple):
    """What repair may cost that no window has taken yet: moves bring it, windows take it."""

    fund: Count
    noz: Noz


class Told(NamedTuple):
    """What one meta node took from a node's score and gave to it within a day: where there are several, that is bounded (nodes.py). Of the last day on which it did."""

    node: Count
    meta_node: Address
    day: Count
    """Of the ledger's time (UTC), since 1970."""
    lost: Count
    gained: Count


class Sent(NamedTuple):
    """Bytes of a meta node's operations in the log within a day, refused ones included: blocks take no more than so many (federation/bounds.py)."""

    meta_node: Address
    day: Count
    size_bytes: Count


class Committed(NamedTuple):
    """Under which serial a commit had a share that was moved while its lease was not settled: the receipt of that is paid, and no other one. Empty where the
    commit had the share nowhere."""

    segment: Count
    share: Count
    """Its index."""
    serial: Annotated[bytes, Bytes(SERIAL_BYTES)]


class Queue(NamedTuple):
    at_ms: TimeMs
    kind: Count
    id: Annotated[bytes, Bytes(64)]


class Used(NamedTuple):
    """What a wallet signed and was used: a grant with what was leased under it, a legacy string, an order."""

    digest: Id
    ends_ms: TimeMs
    noz: Noz


class Block(NamedTuple):
    """An observed height of the value chain, and when the ledger knew it: seeds of placement and audits."""

    number: Count
    height: Count
    block_hash: Id
    made_ms: TimeMs


STATE: Final = declare(1, "state", State, key=("id",))
WALLET: Final = declare(2, "wallet", Wallet, key=("address",))
PROMO_NOZ: Final = declare(3, "promo", Promo, key=("wallet", "ends_ms"))
META: Final = declare(4, "meta", Meta, key=("address",))
LEASE: Final = declare(5, "lease", Lease, key=("id",), indexes=(Index("by_wallet", ("wallet",)), Index("by_meta", ("meta_node",))))
NODE: Final = declare(
    6, "node", Node, key=("number",), indexes=(Index("by_address", ("address",), unique=True), Index("by_owner", ("owner",)))
)  # fmt: skip
OBJECT: Final = declare(7, "object", Object, key=("id",), indexes=(Index("by_hash", ("payer", "file_hash")),), has_large_rows=True)
SEGMENT: Final = declare(8, "segment", Segment, key=("number",))
MOVED: Final = declare(9, "moved", Moved, key=("segment", "share"))
HELD: Final = declare(10, "held", Held, key=("node", "first"), has_large_rows=True)
FILE: Final = declare(11, "file", File, key=("wallet", "lookup_id"), has_large_rows=True)
TRASH: Final = declare(12, "trash", Trash, key=("wallet", "object"), has_large_rows=True)
SHARE: Final = declare(
    13,
    "share",
    Share,
    key=("id",),
    indexes=(Index("by_link", ("link",), unique=True), Index("by_object", ("object",)), Index("by_wallet", ("wallet",))),
    has_large_rows=True,
)
EARNED: Final = declare(14, "earned", Earned, key=("wallet", "traffic_class", "fund"), indexes=(Index("by_since", ("since_ms",)),))
WINDOW: Final = declare(15, "window", WindowRow, key=("meta_node", "number"))
EPOCH: Final = declare(16, "epoch", Epoch, key=("number",), indexes=(Index("by_maturity", ("status", "maturity_epoch")),))
EPOCH_LINE: Final = declare(17, "epoch_line", EpochLine, key=("epoch", "wallet", "traffic_class", "fund"))
QUEUE: Final = declare(18, "queue", Queue, key=("at_ms", "kind", "id"))
USED: Final = declare(19, "used", Used, key=("digest",))
BLOCK: Final = declare(20, "block", Block, key=("number",), indexes=(Index("by_height", ("height",)),))
EPOCH_MARK: Final = declare(21, "epoch_mark", EpochMark, key=("epoch", "meta_node"))
TAKEN: Final = declare(22, "taken", Taken, key=("lease",))
ENDOWED: Final = declare(23, "endowed", Endowed, key=("object",))
ALLOWED: Final = declare(24, "allowed", Allowed, key=("fund",))
TOLD: Final = declare(25, "told", Told, key=("node", "meta_node"))
SENT: Final = declare(26, "sent", Sent, key=("meta_node",))
ALSO: Final = declare(27, "also", Also, key=("share",), indexes=(Index("by_link", ("link",)),))
ASKED: Final = declare(28, "asked", Asked, key=("lease",))
FAILED: Final = declare(29, "failed", Failed, key=("node", "segment"))
COMMITTED: Final = declare(30, "committed", Committed, key=("segment", "share"))

ALL_1: Final[tuple[Table[Any], ...]] = (
    STATE, WALLET, PROMO_NOZ, META, LEASE, NODE, OBJECT, SEGMENT, MOVED, HELD, FILE, TRASH, SHARE, EARNED, WINDOW, EPOCH, EPOCH_LINE, QUEUE, USED, BLOCK,
)  # fmt: skip
SCHEMA_1: Final = Schema(ALL_1)
"""Of ledgers that were made before there were several meta nodes."""
ALL_2: Final[tuple[Table[Any], ...]] = (*ALL_1, EPOCH_MARK, TAKEN, ENDOWED, ALLOWED)
SCHEMA_2: Final = Schema(ALL_2)
"""Of ledgers that were made before one meta node's word was bounded."""
ALL_3: Final[tuple[Table[Any], ...]] = (*ALL_2, TOLD, SENT)
SCHEMA_3: Final = Schema(ALL_3)
"""Of ledgers that were made before several wallets could share the same content by one CID, and before the ledger bounded what legacy strings pay for."""
ALL_4: Final[tuple[Table[Any], ...]] = (*ALL_3, ALSO, ASKED, FAILED)
SCHEMA_4: Final = Schema(ALL_4)
"""Of ledgers that were made before receipts for storing were paid by what commits have, and commits came 300 s after a lease's end at the latest."""
ALL: Final[tuple[Table[Any], ...]] = (*ALL_4, COMMITTED)
SCHEMA: Final = Schema(ALL)
VERSION: Final = 5
