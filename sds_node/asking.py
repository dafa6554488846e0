"""What users and resource nodes ask of a meta node: methods, bounds, codes of refusals. docs/adr/0009 says what each does; both ends use this file."""

from __future__ import annotations

from typing import Any, Final

from chain.codec.registry import message_class
from sds_node.documents import PACKAGE

INFO: Final = "meta.info"
SESSION_OPEN: Final = "session.open"
LEGACY_OPEN: Final = "legacy.open"
LEGACY_ORDER: Final = "legacy.order"
WALLET_LOOK: Final = "wallet.look"
WALLET_INFO: Final = "wallet.info"
LEASE_TAKE: Final = "lease.take"
LEASE_END: Final = "lease.end"
OBJECT_PLAN: Final = "object.plan"
PLACE_PUT: Final = "place.put"
PLACE_ANOTHER: Final = "place.another"
PLACE_GET: Final = "place.get"
OBJECT_COMMIT: Final = "object.commit"
FILE_FIND: Final = "file.find"
FILE_LIST: Final = "file.list"
FILE_SEGMENTS: Final = "file.segments"
FILE_HEALTH: Final = "file.health"
FILE_ORDER: Final = "file.order"
SHARE_LIST: Final = "share.list"
SHARE_OPEN: Final = "share.open"
NODE_HELLO: Final = "node.hello"
NODE_RECEIPTS: Final = "node.receipts"
NODE_SETTLED: Final = "node.settled"
NODE_EARNINGS: Final = "node.earnings"
EPOCH_BATCH: Final = "epoch.batch"
EPOCH_PROOF: Final = "epoch.proof"
META_HELLO: Final = "meta.hello"
META_COSIGN: Final = "meta.cosign"
META_OBSERVATION: Final = "meta.observation"
META_REPORT: Final = "meta.report"
META_WINDOW: Final = "meta.window"
META_ROOTS: Final = "meta.roots"
META_KEEP: Final = "meta.keep"
META_APPROVE: Final = "meta.approve"

# Codes of refusals on the wire (``wire.errors.Refused``). Append-only.
NOT_READY: Final = 2_000
"""The meta node has not caught up with the chain, or its ledger is not founded: ask again later, or another one."""
NO_SESSION: Final = 2_001
"""This connection's key has no session here: open one with a grant of the wallet."""
BAD_GRANT: Final = 2_002
BAD_ASK: Final = 2_003
"""What was asked has no meaning: the text says which part."""
LEASE_LOST: Final = 2_004
"""The lease is over, or was taken before this meta node started: take another one."""
LEASE_SPENT: Final = 2_005
"""The lease has too few noz left for what is asked: take another one."""
TOO_FEW_NODES: Final = 2_006
NOT_HELD: Final = 2_007
"""There is no such file, share or object, or this wallet may not read it."""
ACK_REFUSED: Final = 2_008
"""An acknowledgement or order limit of a commit does not hold."""
UNKNOWN_NODE: Final = 2_009
"""The chain knows no resource node with this key, or it is gone."""
TRY_ANOTHER: Final = 2_010
"""Another meta node is responsible."""
WRONG_PASSWORD: Final = 2_011
NOT_EQUAL: Final = 2_012
"""This meta node makes something else of what another one asks it to sign: the text says what."""
LEDGER_CODES: Final = 3_000
"""Refusal c of the ledger is this + c."""

MAX_BODY_BYTES: Final = 8 << 20
MAX_ANSWER_BYTES: Final = 8 << 20
MAX_SEGMENTS_ASKED: Final = 16
"""Segments in one ``place.put``."""
MAX_SHARES_ASKED: Final = 256
"""Shares in one ``place.get``."""
MAX_TRIED: Final = 64
MAX_PAGE: Final = 1_000
MAX_SEGMENT_ROOTS: Final = 16_384
MAX_LEAVES: Final = 2_000
"""Leaves in one ``node.receipts``, serials in one ``node.settled``."""
MAX_LEAF_BYTES: Final = 16_384
"""Of a leaf in an epoch's batch."""
MAX_CURSOR_BYTES: Final = 64
MAX_ROOTS_ASKED: Final = 500
"""Segments in one ``meta.roots``."""
MAX_APPROVAL_BYTES: Final = 1 << 20
"""Of a ``meta.approve``: a window has at most 5,000 leases, 2,000 repair funds and 5,000 wallets."""
MAX_KEPT_BYTES: Final = 1 << 20
"""Of a ``meta.keep``: one operation has at most 1,000 segments of 30 shares."""


def _message(name: str) -> Any:
    return message_class(f"{PACKAGE}.{name}")


MetaContact: Final = _message("MetaContact")
MetaInfo: Final = _message("MetaInfo")
SessionHead: Final = _message("SessionHead")
LegacySession: Final = _message("LegacySession")
LegacyOrder: Final = _message("LegacyOrder")
WalletHead: Final = _message("WalletHead")
WalletRow: Final = _message("WalletRow")
LeaseHead: Final = _message("LeaseHead")
LeaseReply: Final = _message("LeaseReply")
LeaseEndHead: Final = _message("LeaseEndHead")
PlanHead: Final = _message("PlanHead")
Plan: Final = _message("Plan")
PutAsk: Final = _message("PutAsk")
PlacePutHead: Final = _message("PlacePutHead")
PlaceAnotherHead: Final = _message("PlaceAnotherHead")
GetAsk: Final = _message("GetAsk")
PlaceGetHead: Final = _message("PlaceGetHead")
PlacedShare: Final = _message("PlacedShare")
Places: Final = _message("Places")
StoredShare: Final = _message("StoredShare")
StoredSegment: Final = _message("StoredSegment")
StoredObject: Final = _message("StoredObject")
CommitAsk: Final = _message("CommitAsk")
CommittedObject: Final = _message("CommittedObject")
CommitReply: Final = _message("CommitReply")
ObjectRow: Final = _message("ObjectRow")
FileRow: Final = _message("FileRow")
FileFindHead: Final = _message("FileFindHead")
FileReply: Final = _message("FileReply")
SegmentRootsHead: Final = _message("SegmentRootsHead")
SegmentRoots: Final = _message("SegmentRoots")
FileListHead: Final = _message("FileListHead")
FilePage: Final = _message("FilePage")
OrderHead: Final = _message("OrderHead")
HealthHead: Final = _message("HealthHead")
SegmentHealth: Final = _message("SegmentHealth")
HealthReply: Final = _message("HealthReply")
ShareRow: Final = _message("ShareRow")
ShareListHead: Final = _message("ShareListHead")
SharePage: Final = _message("SharePage")
ShareOpenHead: Final = _message("ShareOpenHead")
OpenedShare: Final = _message("OpenedShare")
NodeHello: Final = _message("NodeHello")
NodeWelcome: Final = _message("NodeWelcome")
ReceiptsBatch: Final = _message("ReceiptsBatch")
SerialList: Final = _message("SerialList")
ReceiptAnswer: Final = _message("ReceiptAnswer")
ReceiptAnswers: Final = _message("ReceiptAnswers")
NodeEarningsReply: Final = _message("NodeEarningsReply")
EpochBatchHead: Final = _message("EpochBatchHead")
EpochBatchPage: Final = _message("EpochBatchPage")
EpochProofHead: Final = _message("EpochProofHead")
TreeProof: Final = _message("TreeProof")
EpochProof: Final = _message("EpochProof")
MetaHello: Final = _message("MetaHello")
MetaGreeting: Final = _message("MetaGreeting")
ReportDraft: Final = _message("ReportDraft")
BlsSignature: Final = _message("BlsSignature")
WindowLeavesHead: Final = _message("WindowLeavesHead")
SegmentList: Final = _message("SegmentList")
SegmentShareRoots: Final = _message("SegmentShareRoots")
SegmentShareRootsList: Final = _message("SegmentShareRootsList")
KeptRoots: Final = _message("KeptRoots")
KeptRootsList: Final = _message("KeptRootsList")
