"""The ABCI application: what CometBFT's calls mean for state, transactions and queries.

    CheckTx          ante chain on the check state, which starts from the last commit; what passes goes to the pool
    PrepareProposal  what CometBFT holds of the pool, by priority, each transaction tried on a throwaway overlay
    ProcessProposal  every transaction decodes, and sizes and gas fit; a failing one only wastes its proposer's space
    FinalizeBlock    hooks and transactions on one overlay, then the tree of the next version is staged: the app hash
    Commit           one atomic write; check state starts anew

Rules: reference abci-sdk-rules.md sections 2 to 5 and 7.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import structlog

from chain.application_queries import QueryRouter
from chain.codec.canonical import encode
from chain.codec.json import loads, to_json
from chain.codec.registry import message_class
from chain.codec.varint import field_size, uvarint
from chain.context import Context, Misbehavior, Mode, Vote
from chain.errors import AppError, Halt, InvalidRequest, InvariantBroken, MempoolIsFull, PanicError
from chain.events import EventList
from chain.gas import InfiniteGasMeter
from chain.machine import MACHINE_ERRORS
from chain.metrics import Counts
from chain.module import Module, ValidatorUpdate
from chain.snapshots import FORMAT, MAX_OFFERED, Restorer, Snapshot, SnapshotError, SnapshotTaker
from chain.store.errors import CorruptStore
from chain.store.iavl import EMPTY_HASH
from chain.store.multistore import MultiStore
from chain.store.state import EmptyView, State
from chain.tx.ante import Ante
from chain.tx.decode import Tx
from chain.tx.execution import BlockInfo, Executor, Twin
from chain.tx.pool import MAX_BYTES, Pool, Pooled
from chain.tx.results import encode_event, encode_result, failure_of
from chain.tx.verdicts import DEFAULT_SIZE, Started, Verdicts

log = structlog.get_logger("app")

NANOS: Final = 10**9
ACCEPT, REJECT = 1, 2
_RECHECK: Final = 1
CHECKS_PER_PART: Final = 32
_ResponseCheckTx: Final = message_class("tendermint.abci.ResponseCheckTx")
_OFFER_ABORT, _OFFER_REJECT, _OFFER_REJECT_FORMAT = 2, 3, 4
_CHUNK_ABORT, _CHUNK_RETRY, _CHUNK_REJECT_SNAPSHOT = 2, 3, 5


def _abci(name: str) -> Any:
    return message_class(f"tendermint.abci.{name}")


@dataclass(frozen=True, slots=True)
class Settings:
    """What an operator chooses; none of it can change an app hash, but heights to skip upgrades at: those need two thirds of the power."""

    min_gas_prices: str = "1000000000wei"
    halt_height: int = 0
    halt_time_s: int = 0
    min_retain_blocks: int = 0
    pool_txs: int = 100_000
    verdict_cache: int = DEFAULT_SIZE
    workers: int = 1
    fast_sends: bool = True
    native_core: bool = True
    snapshot_interval: int = 0
    snapshot_keep_recent: int = 2
    version: str = "0.1.0"
    skip_upgrades: tuple[int, ...] = ()
    invariant_period: int = 0
    skip_genesis_invariants: bool = False


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What the application itself needs of modules: given by ``chain/app.py``."""

    consensus_params: Callable[[Any], Any]
    store_consensus_params: Callable[[Any, Any], None]
    deliver_genesis_txs: Callable[[Context, State, Any, Callable[[bytes], None]], Sequence[ValidatorUpdate]]
    account: Callable[[Context, Any, bytes], Any]
    jail_all_but: Callable[[Context, Any, Sequence[bytes]], None]


@dataclass(slots=True)
class _Block:
    """The block being executed, from FinalizeBlock (or InitChain) to Commit."""

    state: State
    info: BlockInfo


class Application:
    """The chain over one MultiStore. Consensus calls come from one thread; queries from any."""

    def __init__(
        self,
        *,
        modules: Sequence[Module],
        pre_order: Sequence[str],
        begin_order: Sequence[str],
        end_order: Sequence[str],
        genesis_order: Sequence[str],
        store: MultiStore,
        ante: Ante,
        verdicts: Verdicts,
        capabilities: Capabilities,
        settings: Settings,
        twin: Twin | None = None,
        snapshots: SnapshotTaker | None = None,
    ) -> None:
        by_name = {module.name: module for module in modules}
        self.modules = tuple(modules)
        self.settings = settings
        self.store = store
        self._pre = [by_name[name].pre_block for name in pre_order]
        self._begin = [by_name[name].begin_block for name in begin_order]
        self._end = [by_name[name].end_block for name in end_order]
        self._genesis = [by_name[name] for name in genesis_order]
        self._validator_updates = [module.validator_updates for module in modules if module.validator_updates]
        self._capabilities = capabilities
        self._verdicts = verdicts
        handlers = {name: handler for module in modules for name, handler in module.messages.items()}
        self.snapshots = snapshots
        self.counts = Counts()
        self._restoring: tuple[Restorer, bytes] | None = None
        self._twin = twin
        if twin is not None:
            verdicts.fast_read = twin.read
        self.executor = Executor(ante, handlers, twin)
        self.pool = Pool(settings.pool_txs)
        self.chain_id = ""
        self._time_of = 0, 0
        self._pending_genesis: State | None = None
        self._block: _Block | None = None
        self._proposed: list[bytes] = []
        self._initial_height = 1
        self._load_header()
        self._reset_check()
        self.queries = QueryRouter(self, {path: query for module in modules for path, query in module.queries.items()})

    # --- connection: info ---------------------------------------------------------------------------------------------

    def info(self, request: Any) -> Any:
        height, app_hash = self.store.latest_commit()
        return _abci("ResponseInfo")(
            data="stratos",
            version=self.settings.version,
            app_version=self._app_version(),
            last_block_height=height,
            last_block_app_hash=app_hash if height else b"",
        )

    def _app_version(self) -> int:
        # CometBFT compares it with the headers', which carry the consensus parameter; before the first commit InitChain brings that.
        if self.store.latest_version == 0:
            return 0
        with self.store.view() as view:
            return int(self._capabilities.consensus_params(view).version.app)

    def query(self, request: Any) -> Any:
        return self.queries.answer(request)

    @property
    def latest_height(self) -> int:
        return self.store.latest_version

    @property
    def latest_time_ns(self) -> int:
        """Block time of the latest committed block, Unix nanoseconds."""
        return self._time_of[1]

    def time_ns_at(self, version: int) -> int:
        """Block time of a kept version, Unix nanoseconds."""
        known = self._time_of  # one pair: a commit in between changes the store first
        if known[0] == version:
            return known[1]
        raw = self.store.record("header", version)
        return known[1] if raw is None else _read_header(raw)[1]

    def query_rpc(self, path: str, request: Any, height: int | None = None, told: Callable[[int], None] | None = None) -> tuple[Any, int]:
        """Answer a gRPC method: (response, height). Raises AppError. Any thread may call."""
        return self.queries.rpc(path, request, height, told)

    def simulate(self, raw: bytes) -> Any:
        """``cosmos.tx.v1beta1.SimulateResponse`` of a transaction against the latest state. Raises AppError."""
        return self.queries.simulate(raw)

    def register_queries(self, handlers: Mapping[str, Any]) -> None:
        """Add services that are not a module's (tx, node, CometBFT)."""
        self.queries.add(handlers)

    # --- connection: mempool ------------------------------------------------------------------------------------------

    def check_txs(self, requests: Sequence[Any]) -> list[Any]:
        """CheckTx of a batch, part by part: while the signatures of one part are checked beside, the next is decoded, the one before runs."""
        answers: list[Any] = []
        before: tuple[list[Tx | AppError], Sequence[Any], Started] | None = None
        for start in range(0, len(requests), CHECKS_PER_PART):
            part = requests[start : start + CHECKS_PER_PART]
            decoded = [self._decoded(request.tx) for request in part]
            started = self._start_verifying(
                [tx for tx, request in zip(decoded, part, strict=True) if isinstance(tx, Tx) and request.type != _RECHECK]
            )
            if before is not None:
                self._check_part(*before, answers)
            before = decoded, part, started
        if before is not None:
            self._check_part(*before, answers)
        for answer, request in zip(answers, requests, strict=True):
            fine = isinstance(answer, bytes) or answer.code == 0
            if request.type == _RECHECK:
                self.counts.rechecks_ok += fine
                self.counts.rechecks_failed += not fine
            else:
                self.counts.checks_ok += fine
                self.counts.checks_failed += not fine
        return answers

    def _decoded(self, raw: bytes, tx_hash: bytes | None = None) -> Tx | AppError:
        try:
            return self._verdicts.decode(raw, tx_hash)
        except AppError as error:
            return error
        except MACHINE_ERRORS:
            raise
        except Exception:
            return self._panic("decode")

    def _panic(self, call: str) -> PanicError:
        """For the transaction in hand alone: an exception that no rule raises."""
        log.exception("a transaction raised what no rule raises", call=call)
        self.counts.panicked(call)
        return PanicError("recovered: the node's log has the details")

    def _check_part(self, decoded: Sequence[Tx | AppError], part: Sequence[Any], started: Started, answers: list[Any]) -> None:
        started()
        for tx, request in zip(decoded, part, strict=True):
            try:
                answers.append(self._check(tx, request.type == _RECHECK))
            except MACHINE_ERRORS:
                raise
            except Exception:
                answers.append(self._check(self._panic("check_tx"), False))

    def _start_verifying(self, txs: Sequence[Tx]) -> Started:
        try:
            return self._verify_ahead(txs)
        except MACHINE_ERRORS:
            raise
        except Exception:  # then each is checked when its turn comes
            self._panic("verify_ahead")
            return self._verdicts.start(())

    def _verify_ahead(self, txs: Sequence[Tx]) -> Started:
        wanted = []
        prepared = []
        ctx = self._check_context()
        for tx in txs:
            if tx.plan and self._twin is not None:
                item = self._twin.item(self._check_state, tx, self.chain_id)
                if item is not None:
                    prepared.append(item)
                    continue
            for at, (signer, info) in enumerate(zip(tx.signers, tx.signer_infos, strict=False)):
                account = self._capabilities.account(ctx, self._check_state, signer)
                key = info.public_key if account is None or account.public_key is None else account.public_key
                if account is not None and key is not None and at < len(tx.signatures):
                    wanted.append((tx, at, key, self.chain_id, account.account_number))
        return self._verdicts.start(wanted, prepared)

    def _check(self, tx: Tx | AppError, recheck: bool) -> Any:
        if isinstance(tx, AppError):
            return _ResponseCheckTx(code=tx.code, codespace=tx.codespace, log=str(tx))
        if not recheck and tx.hash not in self.pool and self.settings.pool_txs and self.pool.is_full(len(tx.raw)):
            self._verdicts.forget((tx.hash,))
            full = MempoolIsFull(f"the application's pool holds its maximum: {self.settings.pool_txs} transactions, {MAX_BYTES} bytes")
            return _ResponseCheckTx(code=full.code, codespace=full.codespace, log=str(full))
        outcome = self.executor.run(self._check_state, self._check_info(), tx, Mode.RECHECK if recheck else Mode.CHECK)
        if outcome.error is not None:
            self.pool.remove(tx.hash)
            self._verdicts.forget((tx.hash,))
            codespace, code, text = failure_of(outcome.error)
            return _ResponseCheckTx(code=code, codespace=codespace, log=text, gas_wanted=_int64(outcome.gas_wanted), gas_used=outcome.gas_used)
        if not recheck:
            self._keep(tx, outcome.priority)
            return outcome.encode()  # ResponseCheckTx has the fields of ExecTxResult under the same numbers
        if tx.hash not in self.pool and not self.pool.is_full(len(tx.raw)):
            self._keep(tx, outcome.priority)
        self.pool.rechecked(tx.hash)
        outcome.events = []
        return outcome.encode()

    def _keep(self, tx: Tx, priority: int) -> None:
        self.pool.add(Pooled(tx.raw, tx.hash, tx.signers[0], tx.first_sequence, priority, tx.gas_limit))

    # --- connection: consensus ----------------------------------------------------------------------------------------

    def init_chain(self, request: Any) -> Any:
        """Load app_state into an overlay that the first block goes on with; nothing is committed."""
        self.chain_id = request.chain_id
        self._initial_height = request.initial_height or 1
        self._time_of = 0, request.time.seconds * NANOS + request.time.nanos
        state = State(EmptyView(), self.store.names)
        self._capabilities.store_consensus_params(state, request.consensus_params)
        app_state = loads(request.app_state_bytes)
        # As in the SDK: a chain that begins at 1 is at 0 here, one that goes on from an export at its first height.
        height = self._initial_height if self._initial_height > 1 else 0
        ctx = Context(self.chain_id, height, self.latest_time_ns, Mode.GENESIS)
        updates: list[ValidatorUpdate] = []
        for module in self._genesis:
            if module.genesis is not None:
                section = app_state.get(module.name) or module.genesis.default()
                updates.extend(module.genesis.load(ctx, state, section))
        updates.extend(self._deliver_genesis_txs(ctx, state, app_state))
        if not self.settings.skip_genesis_invariants and (broken := self._broken_in(state)):
            raise InvalidRequest(f"the state in the genesis file is broken: {broken[0]}")
        answered = _validators(updates)
        if not answered:
            raise InvalidRequest(
                "the validator set is empty after InitChain: the genesis file needs at least one gentx that delegates 10^15 wei or more"
            )
        if request.validators and sorted(_keys(request.validators)) != sorted(_keys(answered)):
            raise InvalidRequest("the validators in the genesis file are not those that the application's state leads to")
        self._pending_genesis = state
        self._reset_check()
        return _abci("ResponseInitChain")(consensus_params=self._capabilities.consensus_params(state), validators=answered, app_hash=EMPTY_HASH)

    def _deliver_genesis_txs(self, ctx: Context, state: State, app_state: Any) -> Sequence[ValidatorUpdate]:
        info = BlockInfo(self.chain_id, 0, self.latest_time_ns, b"", 0)

        def deliver(raw: bytes) -> None:
            tx = self._decoded(raw)
            if isinstance(tx, AppError):
                raise tx
            outcome = self.executor.run(state, info, tx, Mode.GENESIS)
            state.meter = InfiniteGasMeter()
            if outcome.error is not None:
                raise InvalidRequest(f"cannot be delivered: {outcome.error}")

        return self._capabilities.deliver_genesis_txs(ctx, state, app_state, deliver)

    def prepare_proposal(self, request: Any) -> Any:
        """The best of what CometBFT holds, as far as the pool knows it, then what else it gave, within bytes and gas."""
        state = self._base_state()
        info = BlockInfo(self.chain_id, request.height, request.time.seconds * NANOS + request.time.nanos, request.proposer_address, self._max_gas())
        ctx = Context(self.chain_id, request.height, info.time_ns, Mode.PROPOSE)
        chosen: list[bytes] = []
        bytes_left, gas_left = request.max_tx_bytes, info.max_gas if info.max_gas > 0 else None
        stuck: set[bytes] = set()
        for raw, pooled in self._candidates(request.txs):
            if bytes_left <= 0 or (gas_left is not None and gas_left <= 0):
                break
            size, sender = field_size(len(raw)), pooled.sender if pooled else raw
            if sender in stuck or size > bytes_left:
                stuck.add(sender)
                continue
            tx = self._decoded(raw)
            if isinstance(tx, AppError):
                continue
            if gas_left is not None and tx.gas_limit > gas_left:
                stuck.add(sender)
                continue
            fine = self.executor.run_fast(state, info, tx, Mode.PROPOSE) is not None
            if not fine and self._waits(ctx, state, tx):
                stuck.add(sender)
                continue
            if not fine and self.executor.run_plain(state, info, tx, Mode.PROPOSE).error is not None:
                # The recheck after the block brings it back if CometBFT still has it and it passes; else nothing would ever take it away.
                self.pool.remove(tx.hash)
                if pooled is None or pooled.sequence >= self._sequence(ctx, state, sender):
                    stuck.add(sender)
                continue
            chosen.append(raw)
            bytes_left -= size
            gas_left = None if gas_left is None else gas_left - tx.gas_limit
        return _abci("ResponsePrepareProposal")(txs=chosen)

    def _waits(self, ctx: Context, state: State, tx: Tx) -> bool:
        """True if an earlier transaction of one of the signers has to come first: the cheap reason to leave one for later."""
        if len(tx.signers) == 1:
            return tx.first_sequence > self._sequence(ctx, state, tx.signers[0])
        return any(info.sequence > self._sequence(ctx, state, signer) for signer, info in zip(tx.signers, tx.signer_infos, strict=False))

    def _sequence(self, ctx: Context, state: State, address: bytes) -> int:
        state.meter = ctx.gas
        account = self._capabilities.account(ctx, state, address)
        return 0 if account is None else int(account.sequence)

    def _candidates(self, given: Sequence[bytes]) -> Iterator[tuple[bytes, Pooled | None]]:
        """What CometBFT holds of the pool, by priority, then what it gave that was not in it."""
        rest = dict.fromkeys(given)
        for pooled in self.pool.by_priority():
            if pooled.raw in rest:
                del rest[pooled.raw]
            elif not self.pool.is_held(pooled.hash):
                continue
            yield pooled.raw, pooled
        for raw in rest:
            yield raw, None

    def process_proposal(self, request: Any) -> Any:
        response = _abci("ResponseProcessProposal")
        max_gas = self._max_gas()
        total = 0
        # What only a proposal brought, and no block took: decoded, it can be many times its size.
        self._verdicts.forget(tx_hash for tx_hash in self._proposed if tx_hash not in self.pool)
        self._proposed = []
        for raw in request.txs:
            tx = self._decoded(raw)
            if isinstance(tx, AppError):
                log.info("proposal rejected: a transaction does not decode", height=request.height, error=str(tx))
                self.counts.proposals_rejected += 1
                return response(status=REJECT)
            self._proposed.append(tx.hash)
            total += tx.gas_limit
            if 0 < max_gas < total:
                log.info("proposal rejected: its gas exceeds the block's", height=request.height, max_gas=max_gas)
                self.counts.proposals_rejected += 1
                return response(status=REJECT)
        self.counts.proposals_accepted += 1
        return response(status=ACCEPT)

    def extend_vote(self, request: Any) -> Any:
        return _abci("ResponseExtendVote")()

    def verify_vote_extension(self, request: Any) -> Any:
        return _abci("ResponseVerifyVoteExtension")(status=REJECT if request.vote_extension else ACCEPT)

    def finalize_block(self, request: Any) -> bytes:
        """Execute a block on an overlay and stage the next version; answers encoded bytes of ResponseFinalizeBlock."""
        self._halt_if_asked(request)
        expected = self.store.latest_version + 1 if self.store.latest_version else self._initial_height
        if request.height != expected:
            raise InvalidRequest(f"the next block is {expected}, CometBFT sent {request.height}: is this the home of another chain?")
        state = self._base_state()
        time_ns = request.time.seconds * NANOS + request.time.nanos
        ctx = self._block_context(request, time_ns)
        self._run_hooks(self._pre, replace(ctx, events=EventList()), state)  # as in the SDK, their events go nowhere
        events = [encode_event(event, (("mode", "BeginBlock"),)) for event in self._run_hooks(self._begin, ctx, state)]
        max_gas = self._capabilities.consensus_params(state).block.max_gas
        info = BlockInfo(self.chain_id, request.height, time_ns, request.proposer_address, max_gas)
        hashes = [_hash(raw) for raw in request.txs]
        results = self._run_block(state, info, request.txs, hashes)
        state.meter = ctx.gas  # without a limit; hooks that bound their work see what it has cost
        events += [encode_event(event, (("mode", "EndBlock"),)) for event in self._run_hooks(self._end, ctx, state)]
        updates = [update for ask in self._validator_updates for update in ask(ctx, state)]
        self._check_invariants(request.height, state)
        app_hash = self.store.stage(request.height, state.net_changes())
        self._block = _Block(state, info)
        tail = _abci("ResponseFinalizeBlock")(
            validator_updates=_validators(updates), consensus_param_updates=self._capabilities.consensus_params(state), app_hash=app_hash
        )
        self._verdicts.forget(hashes)
        return _join(events, 1) + _join(results, 2) + encode(tail)

    def _run_block(self, state: State, info: BlockInfo, txs: Sequence[bytes], hashes: Sequence[bytes]) -> list[bytes]:
        gas_left = info.max_gas if info.max_gas > 0 else None
        results = []
        for raw, tx_hash in zip(txs, hashes, strict=True):
            was_pooled = self.pool.remove(tx_hash)
            tx = self._decoded(raw, tx_hash)
            if isinstance(tx, AppError):
                self.counts.txs_failed += 1
                results.append(encode_result(code=tx.code, data=b"", log=str(tx), gas_wanted=0, gas_used=0, events=(), codespace=tx.codespace))
                continue
            outcome = self.executor.run(state, info, tx, Mode.FINALIZE, gas_left)
            if gas_left is not None:
                gas_left -= min(outcome.gas_used, tx.gas_limit)
            if outcome.error is None or outcome.events:  # its ante chain passed: these sequences are used up
                if len(tx.signers) == 1:
                    if not was_pooled:
                        self.pool.used_up(tx.signers[0], tx.first_sequence)
                else:
                    for signer, signed in zip(tx.signers, tx.signer_infos, strict=True):
                        self.pool.used_up(signer, signed.sequence)
            if outcome.error is None:
                self.counts.txs_ok += 1
            else:
                self.counts.txs_failed += 1
            results.append(outcome.encode())
        return results

    def commit(self, request: Any) -> Any:
        """Persist the staged version with the header facts that a restart needs."""
        block = self._block
        if block is None:
            raise InvalidRequest("Commit without FinalizeBlock")
        header = f"{self.chain_id}\n{block.info.time_ns}\n{self._initial_height}".encode()
        self.store.commit({"header": header})
        self._block = None
        self._pending_genesis = None
        self._time_of = block.info.height, block.info.time_ns
        self.pool.next_block()
        self._reset_check()
        if self.snapshots is not None:
            self.snapshots.after_commit(block.info.height)
        return _abci("ResponseCommit")(retain_height=self._retain_height(block.info.height))

    # --- connection: snapshots ----------------------------------------------------------------------------------------

    def list_snapshots(self, request: Any) -> Any:
        """The newest snapshots on disk."""
        message = _abci("Snapshot")
        found = self.snapshots.folder.list()[:MAX_OFFERED] if self.snapshots is not None else []
        return _abci("ResponseListSnapshots")(
            snapshots=[
                message(height=one.height, format=one.format, chunks=len(one.chunk_hashes), hash=one.hash, metadata=one.metadata) for one in found
            ]
        )

    def load_snapshot_chunk(self, request: Any) -> Any:
        chunk = self.snapshots.folder.chunk(request.height, request.format, request.chunk) if self.snapshots is not None else b""
        return _abci("ResponseLoadSnapshotChunk")(chunk=chunk)

    def offer_snapshot(self, request: Any) -> Any:
        """Accept a snapshot whose parts fit each other; its content is checked against ``app_hash``, which the light client verified."""
        response = _abci("ResponseOfferSnapshot")
        offered = request.snapshot
        if offered.format != FORMAT:
            return response(result=_OFFER_REJECT_FORMAT)
        if self.store.latest_version:
            log.error("a snapshot is offered to a node that has blocks", height=self.store.latest_version)
            return response(result=_OFFER_ABORT)
        try:
            snapshot = Snapshot.from_offer(offered.height, offered.format, offered.chunks, offered.hash, offered.metadata)
            self._check_offered(snapshot)
        except SnapshotError as error:
            log.info("snapshot rejected", height=offered.height, error=str(error))
            return response(result=_OFFER_REJECT)
        self._restoring = Restorer(self.store, snapshot), bytes(request.app_hash)
        log.info("restoring a snapshot", height=snapshot.height, chunks=offered.chunks)
        return response(result=ACCEPT)

    def _check_offered(self, snapshot: Snapshot) -> None:
        """No app hash covers a snapshot's header: what it says must be possible, and of this chain. Raises SnapshotError."""
        try:
            chain_id, time_ns, initial_height = _read_header(snapshot.header)
        except ValueError:
            raise SnapshotError("the snapshot's header cannot be read") from None
        if self.chain_id and chain_id != self.chain_id:
            raise SnapshotError(f"the snapshot is of chain {chain_id[:64]!r}, this node of {self.chain_id!r}")
        if not 1 <= initial_height <= snapshot.height or not 0 <= time_ns < 1 << 63:
            raise SnapshotError("the snapshot's header holds an impossible time or initial height")

    def apply_snapshot_chunk(self, request: Any) -> Any:
        """Take the next chunk; the last one makes the version the node's first, or nothing at all."""
        response = _abci("ResponseApplySnapshotChunk")
        if self._restoring is None:
            return response(result=_CHUNK_ABORT)
        restorer, app_hash = self._restoring
        hashes = restorer.snapshot.chunk_hashes
        if request.index != restorer.next_chunk:
            return response(result=_CHUNK_RETRY, refetch_chunks=[restorer.next_chunk])
        if hashlib.sha256(request.chunk).digest() != hashes[request.index]:
            log.info("a chunk of the snapshot is not the one its metadata names", chunk=request.index, sender=request.sender)
            return response(result=_CHUNK_RETRY, refetch_chunks=[request.index], reject_senders=[request.sender] if request.sender else [])
        try:
            restorer.add(request.chunk)
            if restorer.next_chunk == len(hashes):
                restorer.finish(app_hash)
                self._restoring = None
                self._load_header()
                self._reset_check()
                log.info("restored a snapshot", height=self.store.latest_version)
        except SnapshotError as error:
            log.info("snapshot rejected", error=str(error))
            self._restoring = None
            return response(result=_CHUNK_REJECT_SNAPSHOT)
        return response(result=ACCEPT)

    # --- genesis and export -------------------------------------------------------------------------------------------

    def export(self, height: int | None = None) -> dict[str, Any]:
        """app_state at a kept height. Raises VersionPruned, FutureVersion."""
        with self.store.view(height) as view:
            state = State(view, self.store.names)
            ctx = Context(self.chain_id, view.version, self.time_ns_at(view.version), Mode.QUERY)
            return self._exported(ctx, state)

    def export_for_zero_height(self, height: int | None = None, jail_all_but: Sequence[bytes] = ()) -> dict[str, Any]:
        """app_state at a kept height, made ready for a chain that begins at height 1; nothing is committed.

        Of ``jail_all_but`` (operators' addresses), unless it is empty, every other validator is jailed. Raises as ``export``, InvariantBroken for a
        state that is broken already, and InvalidRequest for an operator without a validator or when none is left to make blocks.
        """
        with self.store.view(height) as view:
            state = State(view, self.store.names)
            if broken := self._broken_in(state):
                raise InvariantBroken(f"the state of height {view.version} is broken: {'; '.join(broken)}")
            ctx = Context(self.chain_id, view.version, self.time_ns_at(view.version), Mode.GENESIS)
            if jail_all_but:
                self._capabilities.jail_all_but(ctx, state, jail_all_but)
            for module in self._genesis:
                if module.zero_height is not None:
                    module.zero_height(ctx, state)
            return self._exported(ctx, state)

    def _exported(self, ctx: Context, state: State) -> dict[str, Any]:
        return {module.name: module.genesis.export(ctx, state) for module in self._genesis if module.genesis is not None}

    def export_consensus_params(self, height: int | None = None) -> Any:
        """The consensus parameters at a kept height, as JSON."""
        with self.store.view(height) as view:
            return to_json(self._capabilities.consensus_params(State(view, self.store.names)))

    def broken_invariants(self) -> list[str]:
        """A sentence for every invariant that does not hold in the latest state."""
        with self.store.view() as view:
            return self._broken_in(State(view, self.store.names))

    # --- inside -------------------------------------------------------------------------------------------------------

    def _broken_in(self, state: State) -> list[str]:
        found = [(module.name, name, check(state)) for module in self.modules for name, check in module.invariants.items()]
        return [f"{module}/{name}: {problem}" for module, name, problem in found if problem]

    def _check_invariants(self, height: int, state: State) -> None:
        period = self.settings.invariant_period
        if period and height % period == 0 and (broken := self._broken_in(state)):
            raise InvariantBroken(f"invariant broken at block {height}, which is not committed: {'; '.join(broken)}")

    def _base_state(self) -> State:
        """A fresh overlay over the last commit; before the first commit, over (or of) the state of InitChain."""
        genesis = self._pending_genesis
        if genesis is None:
            return State(self.store.latest(), self.store.names)
        fresh = State(EmptyView(), self.store.names)
        for name, changes in genesis.net_changes().items():
            target = fresh.store(name)
            for key, value in changes:
                if value is not None:
                    target.set(key, value)
        return fresh

    def _reset_check(self) -> None:
        self._checking: BlockInfo | None = None
        self._check_state = self._base_state()
        self._max_block_gas = self._max_gas()

    def _max_gas(self) -> int:
        return int(self._capabilities.consensus_params(self._base_view()).block.max_gas)

    def _base_view(self) -> Any:
        return self._pending_genesis if self._pending_genesis is not None else self.store.latest()

    def _check_info(self) -> BlockInfo:
        if self._checking is None:
            self._checking = self._new_check_info()
        return self._checking

    def _new_check_info(self) -> BlockInfo:
        height = max(self.store.latest_version, self._initial_height - 1)
        return BlockInfo(self.chain_id, height + 1, self.latest_time_ns, b"", self._max_block_gas)

    def _check_context(self) -> Context:
        self._check_state.meter = InfiniteGasMeter()
        return Context(self.chain_id, self._check_info().height, self.latest_time_ns, Mode.CHECK)

    def _block_context(self, request: Any, time_ns: int) -> Context:
        votes = tuple(Vote(vote.validator.address, vote.validator.power, vote.block_id_flag) for vote in request.decided_last_commit.votes)
        misbehavior = tuple(
            Misbehavior(
                one.type, one.validator.address, one.validator.power, one.height, one.time.seconds * NANOS + one.time.nanos, one.total_voting_power
            )
            for one in request.misbehavior
        )
        return Context(
            self.chain_id,
            request.height,
            time_ns,
            Mode.FINALIZE,
            proposer_address=request.proposer_address,
            header_hash=request.hash,
            next_validators_hash=request.next_validators_hash,
            app_hash=self.store.latest_commit()[1] if self.store.latest_version else EMPTY_HASH,
            last_commit=votes,
            misbehavior=misbehavior,
        )

    def _run_hooks(self, hooks: Sequence[Any], ctx: Context, state: State) -> list[Any]:
        mark = ctx.events.mark()
        for hook in hooks:
            if hook is not None:
                hook(ctx, state)
        return ctx.events.events[mark:]

    def _halt_if_asked(self, request: Any) -> None:
        settings = self.settings
        if settings.halt_height and request.height > settings.halt_height:
            raise Halt(f"halt-height {settings.halt_height} is reached: the node stops before block {request.height}; unset halt-height to go on")
        if settings.halt_time_s and request.time.seconds > settings.halt_time_s:
            raise Halt(f"halt-time {settings.halt_time_s} is reached: the node stops before block {request.height}; unset halt-time to go on")

    def _retain_height(self, height: int) -> int:
        """Below which CometBFT may drop blocks: the lowest of what evidence, snapshots and ``min-retain-blocks`` need; 0 keeps all."""
        if not self.settings.min_retain_blocks:
            return 0
        evidence_age: int = self._capabilities.consensus_params(self.store.latest()).evidence.max_age_num_blocks
        kept = [self.settings.min_retain_blocks, evidence_age]
        if self.snapshots is not None and self.snapshots.interval:
            kept.append(self.snapshots.interval * max(self.snapshots.keep_recent, 1))
        return max(height - max(kept), 0)

    def close(self) -> None:
        """Stop background work and release the database."""
        if self.snapshots is not None:
            self.snapshots.close()
        self.store.close()

    def _load_header(self) -> None:
        if not self.store.latest_version:
            return
        raw = self.store.record("header")
        if raw is None:
            raise CorruptStore(f"the header of version {self.store.latest_version} is missing: restore the database from a backup or snapshot")
        self.chain_id, time_ns, self._initial_height = _read_header(raw)
        self._time_of = self.store.latest_version, time_ns


def _read_header(raw: bytes) -> tuple[str, int, int]:
    """(chain id, time in Unix nanoseconds, initial height) of a version's header record. Raises ValueError."""
    if len(raw) > 1000:
        raise ValueError
    chain_id, time_ns, initial_height = raw.decode("ascii").split("\n")
    return chain_id, int(time_ns), int(initial_height)


def _hash(raw: bytes) -> bytes:
    return hashlib.sha256(raw).digest()


def _int64(value: int) -> int:
    """An unsigned 64-bit number as the signed one of the same bits: what the SDK answers for a gas limit beyond 63 bits."""
    return value - (1 << 64) if value >> 63 else value


def _join(parts: Sequence[bytes], number: int) -> bytes:
    """Repeated message field ``number`` of already encoded parts."""
    tag = bytes([number << 3 | 2])
    return b"".join([piece for part in parts for piece in (tag, uvarint(len(part)), part)])


def _validators(updates: Sequence[ValidatorUpdate]) -> list[Any]:
    update_class = _abci("ValidatorUpdate")
    return [update_class(pub_key={update.key_type: update.public_key}, power=update.power) for update in updates]


def _keys(updates: Sequence[Any]) -> list[bytes]:
    return [update.SerializeToString() for update in updates]
