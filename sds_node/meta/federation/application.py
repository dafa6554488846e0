"""The ledger as CometBFT sees it: an ABCI 2.0 application over a BlockLedger.

    CheckTx ─ envelope, not decided before, 62 of a sender ─► mempool ─ PrepareProposal ─► block ─ ProcessProposal: signed by active meta nodes, in time,
                                                                                                   each nonce once, 62 of a sender at most (bounds.py) ─► votes
    FinalizeBlock ─ begin, deliver, end ─► app hash, results, validators        Commit ─► on disk ─► hooks ─► results to those who wait

Everything in an answer that enters a header follows from the block and the ledger: codes, result bytes, app hash, validators. Reasons do not and stay here.
What one node does for itself: it keeps what was decided lately out of its mempool and its proposals, so that a refused operation does not come again, and
connects with nobody but the ledger's meta nodes. A signature that CheckTx found right is not checked again while the sender's key stays the same.

Sources: ABCI 2.0 (CometBFT v0.38); docs/adr/0010.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Any, Final

import structlog

from chain.codec.registry import message_class
from chain.codec.varint import field_size
from sds_node.meta.federation import members
from sds_node.meta.federation.bounds import Block, Held, Sender, Waiting
from sds_node.meta.ledger.blocks import BlockLedger
from sds_node.meta.ledger.errors import CODE_DUPLICATE, CODE_TOO_LARGE, LedgerError, Refused
from sds_node.meta.ledger.log import MAX_OPERATION_BYTES, Head, Result
from sds_node.meta.rules.apply import MAX_UNTIL_S

log = structlog.get_logger("order")

APP_PROTOCOL: Final = 1
CODESPACE: Final = "ledger"
KEEP_BLOCKS: Final = 1_000_000
MAX_DECIDED: Final = 100_000
"""So many operations of the last blocks are remembered by their hash."""
REMEMBERED: Final = 500
"""So many of the log are when it is opened."""
CODE_WAITS: Final = 4
"""A CheckTx code that is no refusal: as many operations of the sender wait here as may, this one is to be sent again."""
RECHECK: Final = 1
ACCEPT, REJECT = 1, 2
_FILTER_ADDRESS: Final = "/p2p/filter/addr/"
_FILTER_ID: Final = "/p2p/filter/id/"


class OrderError(LedgerError):
    """The order of blocks cannot be had or does not fit this ledger. The text says why and what to do."""


def _abci(name: str) -> Any:
    return message_class(f"tendermint.abci.{name}")


class LedgerApplication:
    """``blocks`` is driven by nobody else; ``chain_id`` is the value chain's. ``export_name`` names the state of a ledger that has no block yet.

    ``on_commit`` is called after each commit, before the next block begins; ``on_decided`` after that, with the block's operations and their results.
    ``turn`` is held while the database changes. ``keep_blocks`` is how many blocks CometBFT keeps. ``friends`` are node ids (hex) that may connect before the ledger knows them.
    """

    def __init__(
        self,
        blocks: BlockLedger,
        chain_id: str,
        export_name: Callable[[], bytes],
        on_commit: Callable[[], None],
        on_decided: Callable[[Sequence[tuple[bytes, Result]]], None],
        turn: threading.Condition,
        *,
        keep_blocks: int = KEEP_BLOCKS,
    ) -> None:
        self._blocks, self.chain_id, self.export_name = blocks, chain_id, export_name
        self._on_commit, self._on_decided, self._keep_blocks, self._turn = on_commit, on_decided, keep_blocks, turn
        self.friends: frozenset[str] = frozenset()
        self._decided: dict[bytes, None] = {}
        self._waiting = Waiting()
        self._begins_anew = False
        """CometBFT shook hands: what was in its mempool is gone."""
        self._delivered: list[tuple[bytes, Result]] = []
        with blocks.read() as view:
            self._senders: Mapping[bytes, Sender] = members.standings_of(view)
            last = view.head.sequence
            self._remember(entry.operation for entry in view.entries(last - REMEMBERED, REMEMBERED))
        self._next_senders: Mapping[bytes, Sender] = self._senders

    @property
    def head(self) -> Head:
        """The ledger's committed head."""
        return self._blocks.head

    @property
    def senders(self) -> Mapping[bytes, bytes]:
        """Active meta nodes as of the last commit: address → ledger key."""
        return members.keys_of(self._senders)

    # --- handshake ----------------------------------------------------------------------------------------------------

    def info(self, request: Any) -> Any:
        """Where the ledger stands."""
        head = self._blocks.head
        self._begins_anew = True  # asked in another thread than the mempool's calls, which look at it
        return _abci("ResponseInfo")(
            data="stratos-ledger", app_version=APP_PROTOCOL, last_block_height=head.height, last_block_app_hash=head.app_hash if head.height else b""
        )

    def init_chain(self, request: Any) -> Any:
        """The genesis names this ledger, or OrderError."""
        head = self._blocks.head
        try:
            told = json.loads(request.app_state_bytes)
            name, sequence, app_hash = bytes.fromhex(told["export"]), int(told["sequence"]), bytes.fromhex(told["app_hash"])
        except (ValueError, KeyError, TypeError, RecursionError):
            raise OrderError("expected a genesis made by `spd ledger join`, with export, sequence and app_hash in app_state: join again") from None
        if request.chain_id != f"{self.chain_id}-meta":
            raise OrderError(
                f"expected the genesis of {self.chain_id}-meta, got that of {request.chain_id[:60]!a}: this home belongs to another network"
            )
        if (head.sequence, head.app_hash) != (sequence, app_hash):
            raise OrderError(
                f"the genesis begins after operation {sequence} with app hash {app_hash.hex()}, the ledger here is at {head.sequence} with "
                f"{head.app_hash.hex()}: import the export that the genesis was made of"
            )
        if self.export_name() != name:
            raise OrderError(f"the ledger here is not the export {name.hex()} that the genesis names: import that one")
        keys = sorted(bytes(one.pub_key.ed25519) for one in request.validators)
        if tuple(keys) != members.validators_of(self.senders) or any(one.power != 1 for one in request.validators):
            raise OrderError("the genesis has other validators than the ledger's active meta nodes: join again with the same export")
        return _abci("ResponseInitChain")(app_hash=head.app_hash)

    # --- mempool ------------------------------------------------------------------------------------------------------

    def check_txs(self, requests: Sequence[Any]) -> list[Any]:
        """What may wait for a block."""
        if self._begins_anew:
            self._begins_anew = False
            self._waiting.clear()
        return [self._check(bytes(one.tx), one.type == RECHECK) for one in requests]

    def _check(self, operation: bytes, is_again: bool) -> Any:
        answer = _abci("ResponseCheckTx")
        if not BlockLedger.is_operation(operation):
            return answer(code=CODE_TOO_LARGE, codespace=CODESPACE, log=f"an operation is 1 to {MAX_OPERATION_BYTES} bytes, got {len(operation)}")
        digest = sha256(operation).digest()
        if digest in self._decided:
            self._waiting.forget(digest)
            return answer(code=CODE_DUPLICATE, codespace=CODESPACE, log="this operation was decided in a block already")
        try:
            held = self._admit(operation, digest)
        except Refused as refusal:
            self._waiting.forget(digest)
            return answer(code=refusal.code, codespace=CODESPACE, log=refusal.reason)
        # Where it is asked again about what it never counted, CometBFT has it all the same. What no block takes for long must go: as long as something waits
        # CometBFT makes one empty block after the other. Its sender comes again.
        may_stay = self._may_go(held) if is_again else self._waiting.get(digest) is not None
        if not may_stay:
            self._waiting.forget(digest)
            return answer(
                code=CODE_WAITS,
                codespace=CODESPACE,
                log="as many operations of this meta node wait here as may, one of its nonce does, or its day is full: send it again later",
            )
        return answer(gas_wanted=1)

    def _may_go(self, one: Held) -> bool:
        """Whether a block could take it now."""
        time_ms = self._blocks.time_ms
        return one.until_s <= time_ms // 1_000 + MAX_UNTIL_S and self._senders[one.sender].has_room(time_ms, one.is_users)

    def _admit(self, operation: bytes, digest: bytes) -> Held:
        """What it is; counted as waiting, if there is room. Raises Refused for one that no block shall have."""
        time_ms, known = self._blocks.time_ms, self._waiting.get(digest)
        sender = self._senders.get(known.sender) if known is not None else None
        if known is not None and sender is not None and sender.key == known.key:
            members.need_time(known.until_s, time_ms)
            members.need_nonce(sender, known.nonce)
            return known
        sender, found = members.admit(self._senders, self.chain_id, operation, time_ms)
        self._waiting.forget(digest)
        held = Held.of(sender, found, len(operation))
        if self._waiting.has_room(held) and sender.has_room(time_ms, held.is_users):
            self._waiting.add(digest, held)
        return held

    def has_room(self, address: bytes, is_users: bool) -> bool:
        """Whether the log takes more of that meta node today, of what its users ask for or of its own. Of one that may not send at all it says nothing."""
        sender = self._senders.get(address)
        return sender is None or sender.has_room(self._blocks.time_ms, is_users)

    def _signed(self, operation: bytes) -> Held | None:
        """An operation that an active meta node signed; None for what is none."""
        if not BlockLedger.is_operation(operation):
            return None
        known = self._waiting.get(sha256(operation).digest())
        sender = self._senders.get(known.sender) if known is not None else None
        if known is not None and sender is not None and sender.key == known.key:
            return known
        try:
            return Held.of(*members.signer(self._senders, self.chain_id, operation), len(operation))
        except Refused:
            return None

    # --- blocks -------------------------------------------------------------------------------------------------------

    def prepare_proposal(self, request: Any) -> Any:
        """Of what waits: operations, each once, not decided before, that may be applied now, within what a block and each sender may have."""
        taken: dict[bytes, None] = {}
        size_bytes, block = 0, Block(self._senders, self._time_of(request))
        for one in request.txs:
            operation = bytes(one)
            if operation in taken or sha256(operation).digest() in self._decided:
                continue
            held = self._signed(operation)
            if held is None or not block.take(held):
                continue
            size_bytes += field_size(len(operation))
            if size_bytes > request.max_tx_bytes:
                break
            taken[operation] = None
        return _abci("ResponsePrepareProposal")(txs=list(taken))

    def process_proposal(self, request: Any) -> Any:
        """Refuses a block with anything in it that no active meta node signed as an operation, that is out of time or has a nonce which the ledger or the block
        has used before (so a decided operation is in no other block), or with more of a sender than a block may have."""
        block = Block(self._senders, self._time_of(request))
        is_fine = all((held := self._signed(bytes(one))) is not None and block.take(held) for one in request.txs)
        if not is_fine:
            log.warning(
                "a proposed block holds what no meta node signed, what was decided before or cannot be applied, or too much of one meta node: refused",
                height=request.height,
                proposer=request.proposer_address.hex(),
            )
        return _abci("ResponseProcessProposal")(status=ACCEPT if is_fine else REJECT)

    def _time_of(self, request: Any) -> int:
        """The time that a proposed block's operations will have, in ms."""
        return max(_block_ms(request), self._blocks.head.time_ms)

    def finalize_block(self, request: Any) -> Any:
        """Apply a block, uncommitted."""
        operations = [bytes(one) for one in request.txs]
        with self._turn:
            self._blocks.begin(request.height, _block_ms(request))
            results = self._blocks.deliver(operations)
            app_hash = self._blocks.end()
            self._next_senders = self._blocks.look(members.standings_of) if results else self._senders
        self._delivered = list(zip(operations, results, strict=True))
        answer = _abci("ResponseFinalizeBlock")(app_hash=app_hash)
        for one in results:
            # The reason stays out: no rule says that all have the same words for it.
            answer.tx_results.add(code=one.code, data=one.result, codespace=CODESPACE if one.code else "")
        before, after = members.validators_of(self.senders), members.validators_of(members.keys_of(self._next_senders))
        for key, power in _changes(before, after):
            answer.validator_updates.add(power=power).pub_key.ed25519 = key
        return answer

    def commit(self, request: Any) -> Any:
        """The block is on disk; hooks have run and results are told."""
        with self._turn:
            self._blocks.commit()
            self._turn.notify_all()
        self._senders = self._next_senders
        decided, self._delivered = self._delivered, []
        self._remember(operation for operation, _ in decided)
        self._waiting.end(self._blocks.time_ms // 1_000)
        self._on_commit()
        self._on_decided(decided)
        return _abci("ResponseCommit")(retain_height=max(self._blocks.head.height - self._keep_blocks, 0))

    # --- reading ------------------------------------------------------------------------------------------------------

    def query(self, request: Any) -> Any:
        """CometBFT asks who may connect: every address, and the ids of meta nodes. Nothing else is answered."""
        answer, path = _abci("ResponseQuery"), str(request.path)
        if path.startswith(_FILTER_ADDRESS) or (path.startswith(_FILTER_ID) and self._may_connect(path.removeprefix(_FILTER_ID))):
            return answer()
        if path.startswith(_FILTER_ID):
            return answer(code=1, codespace=CODESPACE, log="this is no meta node of the ledger")
        return answer(code=1, codespace=CODESPACE, log="the ledger is asked over the meta node's wire, not over CometBFT")

    def _may_connect(self, node_id: str) -> bool:
        if node_id in self.friends:
            return True
        try:
            with self._blocks.read() as view:
                return members.knows(view, bytes.fromhex(node_id))
        except (ValueError, LedgerError):
            return False

    # --- what this application does not have ----------------------------------------------------------------------------

    def extend_vote(self, request: Any) -> Any:
        """Votes carry nothing."""
        return _abci("ResponseExtendVote")()

    def verify_vote_extension(self, request: Any) -> Any:
        """As above."""
        return _abci("ResponseVerifyVoteExtension")(status=REJECT if request.vote_extension else ACCEPT)

    def list_snapshots(self, request: Any) -> Any:
        """None: a ledger is brought by `spd ledger join`."""
        return _abci("ResponseListSnapshots")()

    def offer_snapshot(self, request: Any) -> Any:
        """None is taken."""
        return _abci("ResponseOfferSnapshot")(result=2)

    def load_snapshot_chunk(self, request: Any) -> Any:
        """There is none."""
        return _abci("ResponseLoadSnapshotChunk")()

    def apply_snapshot_chunk(self, request: Any) -> Any:
        """None is taken."""
        return _abci("ResponseApplySnapshotChunk")(result=2)

    def _remember(self, operations: Iterable[bytes]) -> None:
        for one in operations:
            digest = sha256(one).digest()
            self._decided[digest] = None
            self._waiting.forget(digest)
        while len(self._decided) > MAX_DECIDED:
            self._decided.pop(next(iter(self._decided)))


def _block_ms(request: Any) -> int:
    return int(request.time.seconds * 1_000 + request.time.nanos // 1_000_000)


def _changes(before: Sequence[bytes], after: Sequence[bytes]) -> list[tuple[bytes, int]]:
    """(key, power) of what changes, in order. Nothing where none would be left: CometBFT needs one, and a ledger without an active meta node takes no
    operation any more, so it stays like that."""
    if not after:
        return []
    return sorted([(key, 0) for key in set(before) - set(after)] + [(key, 1) for key in set(after) - set(before)])
