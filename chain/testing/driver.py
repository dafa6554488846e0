"""A consensus driver: proposes, votes and commits blocks on one or several applications, and compares what they answer.

    CheckTx ─► driver's mempool ─► PrepareProposal ─► ProcessProposal ─► ExtendVote, VerifyVoteExtension ─► FinalizeBlock ─► Commit ─► recheck

Headers, votes, commits and evidence are real (``blocks.py``, ``validators.py``). It is a driver for tests, simulations and benches,
never a network: nobody disagrees, and time passes as it is told to. ``README.md`` shows how it is used.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import orjson

from chain.abci.application import Application
from chain.codec.json import from_json
from chain.codec.registry import message_class
from chain.codec.times import parse_rfc3339
from chain.codec.varint import field_size
from chain.light import headers
from chain.light.headers import NANOS, set_time, types
from chain.light.validators import Validator, ValidatorSet, from_updates
from chain.testing import blocks
from chain.testing.remote import ApplicationGone
from chain.testing.validators import ValidatorKey

ACCEPT: Final = 1
_NEW, _RECHECK = 0, 1
DEFAULT_KEYS: Final = 100
"""``ValidatorKey.numbered(0)`` to ``(99)`` sign unless other keys are given."""


def _abci(name: str) -> Any:
    return message_class(f"tendermint.abci.{name}")


class DriverError(Exception):
    """The driver cannot do what it is asked, or an application broke CometBFT's rules; the message says which."""


class Disagreement(AssertionError):
    """Two applications gave different answers to the same call. ``height`` and ``field`` say where, ``answers`` what."""

    def __init__(self, height: int, field: str, answers: Sequence[Any]) -> None:
        super().__init__(f"block {height}: {field} differs between applications: {_shortened(answers)}")
        self.height, self.field, self.answers = height, field, list(answers)


@dataclass(frozen=True, slots=True)
class TxResult:
    """What became of one transaction of a block."""

    code: int
    codespace: str
    log: str
    gas_wanted: int
    gas_used: int
    data: bytes
    events: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]


@dataclass(frozen=True, slots=True)
class BlockResult:
    """One committed block."""

    height: int
    time_ns: int
    app_hash: bytes
    txs: tuple[bytes, ...]
    results: tuple[TxResult, ...]
    retain_height: int


@dataclass(slots=True)
class Committed:
    """A block in the driver's store. ``block`` and ``id`` are messages of ``tendermint.types``; ``request`` and ``response`` FinalizeBlock's."""

    block: Any
    id: Any
    round: int
    validators: ValidatorSet
    request: Any
    response: Any
    extensions: dict[bytes, bytes] | None

    @property
    def time_ns(self) -> int:
        return headers.time_ns_of(self.block.header.time)


@dataclass(slots=True)
class Driver:
    """Drives ``apps`` in lock step from a genesis document (SDK 0.50 shape).

    As with CometBFT the first block has the genesis time; then time moves by ``time_step_s`` per block unless a block says otherwise.
    ``before_call(application, kind)`` is told before every call and may do anything, such as killing that application: one that has a
    ``restart`` method is restarted, brought up to date from the driver's blocks, and asked again. ``keep_blocks`` bounds the store.
    """

    apps: Sequence[Application]
    genesis: dict[str, Any]
    time_step_s: int = 5
    height: int = 0
    time_ns: int = 0
    app_hash: bytes = b""
    validators: ValidatorSet = field(default_factory=ValidatorSet)
    next_validators: ValidatorSet = field(default_factory=ValidatorSet)
    keys: Sequence[ValidatorKey] = ()
    before_call: Callable[[int, str], None] | None = None
    keep_blocks: int | None = None
    params: Any = None
    blocks: dict[int, Committed] = field(default_factory=dict)
    mempool: dict[bytes, int] = field(default_factory=dict)
    """What CheckTx accepted, in order, with the gas it wants."""
    restarts: int = 0
    _keys: dict[bytes, ValidatorKey] = field(default_factory=dict)
    _init: Any = None
    _app_version: int = 0
    _results_hash: bytes = b""
    _deciding: Any = None

    # --- start ----------------------------------------------------------------------------------------------------------------

    @property
    def initial_height(self) -> int:
        return int(self.genesis["initial_height"])

    @property
    def chain_id(self) -> str:
        return str(self.genesis["chain_id"])

    def start(self) -> None:
        """Info and InitChain on every application. Raises DriverError, Disagreement."""
        self._keys = {key.address: key for key in self.keys or _default_keys()}
        seconds, nanos = parse_rfc3339(self.genesis["genesis_time"])
        self.time_ns = seconds * NANOS + nanos
        self.height = self.initial_height - 1
        self._init = self._init_request()
        infos = [self._call(at, "info", _info_request()) for at in range(len(self.apps))]
        for at, info in enumerate(infos):
            if info.last_block_height:
                raise DriverError(f"application {at} has blocks up to {info.last_block_height}, the driver has none: give it an empty database")
        answers = [self._call(at, "init_chain", self._init) for at in range(len(self.apps))]
        self._agree("validators", [[one.SerializeToString() for one in answer.validators] for answer in answers])
        self._agree("consensus_params", [answer.consensus_params.SerializeToString() for answer in answers])
        self._agree("app_hash", [answer.app_hash.hex() for answer in answers])
        first = answers[0]
        members = from_updates(first.validators or self._init.validators)
        if not members:
            raise DriverError("InitChain and the genesis document name no validator: CometBFT needs one at least")
        self.validators = ValidatorSet.of(members)
        self.next_validators = self.validators.advanced(1)
        self.params = types("ConsensusParams")()
        self.params.CopyFrom(self._init.consensus_params)
        self._app_version = infos[0].app_version
        if first.HasField("consensus_params"):
            self._change_params(first.consensus_params)
        self.app_hash = bytes(first.app_hash)
        self._results_hash = blocks.results_hash(())

    def _init_request(self) -> Any:
        request = _abci("RequestInitChain")(
            chain_id=self.chain_id,
            app_state_bytes=orjson.dumps(self.genesis["app_state"]),
            initial_height=self.initial_height,
            consensus_params=from_json(types("ConsensusParams"), self.genesis["consensus"]["params"]),
        )
        for one in self.genesis["consensus"].get("validators") or ():
            kind = "ed25519" if one["pub_key"]["type"] == "tendermint/PubKeyEd25519" else "secp256k1"
            update = request.validators.add(power=int(one["power"]))
            setattr(update.pub_key, kind, base64.b64decode(one["pub_key"]["value"]))
        set_time(request.time, self.time_ns)
        return request

    # --- one application ------------------------------------------------------------------------------------------------------

    def handshake(self, at: int) -> int:
        """What CometBFT does with a restarted application: Info, then the blocks it has not. Returns how many were replayed. Raises DriverError."""
        info = self._ask(at, "info", _info_request())
        has = int(info.last_block_height)
        latest = self.height if self._deciding is None else self.height + 1
        if has > latest:
            raise DriverError(f"application {at} has block {has}, the driver's last is {self.height}: is this the database of another chain?")
        if has and has <= self.height:
            expected = self._stored(has).response.app_hash
            if info.last_block_app_hash != expected:
                raise DriverError(f"application {at} came back at block {has} with app hash {info.last_block_app_hash.hex()}, not {expected.hex()}")
        if has == 0:
            self._ask(at, "init_chain", self._init)
        missing = range(max(has + 1, self.initial_height), self.height + 1)
        for height in missing:
            stored = self._stored(height)
            answer = self._ask(at, "finalize_block", stored.request)
            self._compare(height, [stored.response, answer])
            self._ask(at, "commit", _abci("RequestCommit")())
        return len(missing)

    def _stored(self, height: int) -> Committed:
        found = self.blocks.get(height)
        if found is None:
            raise DriverError(f"block {height} is no longer in the driver's store: keep_blocks is {self.keep_blocks}")
        return found

    def _call(self, at: int, kind: str, request: Any) -> Any:
        if self.before_call is not None:
            self.before_call(at, kind)
        try:
            return self._ask(at, kind, request)
        except ApplicationGone:
            restart = getattr(self.apps[at], "restart", None)
            if restart is None:
                raise
        restart()
        self.restarts += 1
        if kind == "info" or self._init is None or not self.validators:
            return self._ask(at, kind, request)
        self.handshake(at)
        if kind == "commit":
            if self._ask(at, "info", _info_request()).last_block_height == self._deciding.height:
                return _abci("ResponseCommit")()  # it had committed and died before it could say so
            self._ask(at, "finalize_block", self._deciding)
        elif kind == "finalize_block" and self._ask(at, "info", _info_request()).last_block_height == request.height:
            raise DriverError(f"application {at} committed block {request.height} without being told to")
        return self._ask(at, kind, request)

    def _ask(self, at: int, kind: str, request: Any) -> Any:
        answer = getattr(self.apps[at], kind)(request)
        return _RESPONSES[kind].FromString(answer) if isinstance(answer, bytes) else answer

    def _every(self, kind: str, request: Any) -> list[Any]:
        return [self._call(at, kind, request) for at in range(len(self.apps))]

    # --- mempool --------------------------------------------------------------------------------------------------------------

    def check_tx(self, raw: bytes) -> Any:
        """CheckTx on every application; the first one's answer. What passes enters the driver's mempool. Raises Disagreement."""
        answer = self._check([raw], _NEW)[0]
        if answer.code == 0:
            self.mempool[raw] = answer.gas_wanted
        return answer

    def recheck(self) -> None:
        """CheckTx again for everything in the mempool, as CometBFT does after Commit; what fails leaves it."""
        raws = list(self.mempool)
        for raw, answer in zip(raws, self._check(raws, _RECHECK) if raws else (), strict=True):
            if answer.code:
                del self.mempool[raw]

    def _check(self, raws: Sequence[bytes], kind: int) -> list[Any]:
        requests = [_abci("RequestCheckTx")(tx=raw, type=kind) for raw in raws]
        response = _abci("ResponseCheckTx")
        found = []
        for at in range(len(self.apps)):
            answers = self._call(at, "check_txs", requests)
            found.append([response.FromString(one) if isinstance(one, bytes) else one for one in answers])
        self._agree("CheckTx code", [[(one.codespace, one.code) for one in answers] for answers in found])
        return found[0]

    # --- proposals ------------------------------------------------------------------------------------------------------------

    def propose(self, txs: Sequence[bytes] | None = None, *, max_tx_bytes: int = 1 << 20) -> list[bytes]:
        """What the first application would propose next, given ``txs`` (None: the whole mempool); nothing is decided."""
        request = _abci("RequestPrepareProposal")(txs=list(self.mempool if txs is None else txs), max_tx_bytes=max_tx_bytes, height=self.height + 1)
        set_time(request.time, self._next_time_ns(None))
        return list(self._call(0, "prepare_proposal", request).txs)

    def process(self, txs: Sequence[bytes]) -> bool:
        """Whether the applications accept a proposal of ``txs``; nothing is decided. Raises Disagreement."""
        return self._process(self._draft(txs, 0, (), (), (), None))

    def next_block(
        self,
        txs: Sequence[bytes] = (),
        *,
        time_step_s: int | None = None,
        absent: Sequence[int] = (),
        nil: Sequence[int] = (),
        evidence: Sequence[Any] = (),
        process: bool = True,
    ) -> BlockResult:
        """Process, finalize and commit one block with exactly ``txs``, whether the applications like it or not. Raises Disagreement.

        ``absent`` and ``nil`` are indices into the set of the block before: who did not vote for it, and who voted nil.
        """
        draft = self._draft(txs, 0, absent, nil, evidence, time_step_s)
        if process:
            self._process(draft)
            self._extend(draft)
        return self._decide(draft)

    def next_height(
        self,
        *,
        failed_rounds: Sequence[Sequence[bytes] | None] = (),
        time_step_s: int | None = None,
        absent: Sequence[int] = (),
        nil: Sequence[int] = (),
        evidence: Sequence[Any] = (),
    ) -> BlockResult:
        """One height as CometBFT runs it, filled from the mempool: the proposer prepares, all process, vote, finalize, commit and recheck.

        Each of ``failed_rounds`` is a proposal (None: the one that round's proposer prepares) that all process and nobody decides.
        Raises Disagreement, and DriverError when an application rejects what another one prepared.
        """
        for round_, given in enumerate(failed_rounds):
            draft = self._draft(given if given is not None else (), round_, absent, nil, evidence, time_step_s)
            if given is None:
                draft = self._prepare(draft)
            self._process(draft)
        draft = self._prepare(self._draft((), len(failed_rounds), absent, nil, evidence, time_step_s))
        if not self._process(draft):
            raise DriverError(f"block {draft.height}: ProcessProposal rejects what PrepareProposal made of {len(self.mempool)} transactions")
        self._extend(draft)
        result = self._decide(draft)
        self.recheck()
        return result

    def _next_time_ns(self, time_step_s: int | None) -> int:
        if self.height < self.initial_height and time_step_s is None:
            return self.time_ns
        return self.time_ns + (self.time_step_s if time_step_s is None else time_step_s) * NANOS

    def _draft(
        self, txs: Sequence[bytes], round_: int, absent: Sequence[int], nil: Sequence[int], evidence: Sequence[Any], time_step_s: int | None
    ) -> _Draft:
        height, time_ns = self.height + 1, self._next_time_ns(time_step_s)
        previous = self.blocks.get(self.height)
        last_commit = types("Commit")()
        if previous is not None:
            last_commit = self._commit(previous, time_ns, absent, nil)
        turn = self.validators if round_ == 0 else self.validators.advanced(round_)
        header = types("Header")(
            chain_id=self.chain_id,
            height=height,
            last_commit_hash=blocks.commit_hash(last_commit),
            validators_hash=self.validators.hash(),
            next_validators_hash=self.next_validators.hash(),
            consensus_hash=headers.consensus_hash(self.params),
            app_hash=self.app_hash,
            last_results_hash=self._results_hash,
            evidence_hash=blocks.evidence_hash(evidence),
            proposer_address=turn.proposer.address,
        )
        header.version.block, header.version.app = headers.BLOCK_PROTOCOL, self._app_version
        set_time(header.time, time_ns)
        if previous is not None:
            header.last_block_id.CopyFrom(previous.id)
        return _Draft(header, tuple(txs), last_commit, previous, tuple(evidence), round_)

    def _prepare(self, draft: _Draft) -> _Draft:
        limit = blocks.max_tx_bytes(self.params, draft.evidence, len(self.validators))
        request = _abci("RequestPrepareProposal")(
            max_tx_bytes=limit,
            txs=self._reaped(-1 if self.params.block.max_bytes == -1 else limit),
            local_last_commit=self._extended_commit(draft),
            misbehavior=draft.misbehavior,
            **draft.fields(("height", "time", "next_validators_hash", "proposer_address")),
        )
        txs = tuple(self._call(self._app_of(draft.header.proposer_address), "prepare_proposal", request).txs)
        size = sum(field_size(len(tx)) for tx in txs)
        if size > limit:
            raise DriverError(
                f"block {draft.height}: PrepareProposal returned {size} bytes of transactions, {limit} are allowed: CometBFT would stop"
            )
        return _Draft(draft.header, txs, draft.last_commit, draft.previous, draft.evidence, draft.round)

    def _reaped(self, max_bytes: int) -> list[bytes]:
        """The mempool's beginning, cut to bytes and gas as CometBFT cuts it."""
        found, size, gas, max_gas = [], 0, 0, self.params.block.max_gas
        for raw, gas_wanted in self.mempool.items():
            size += field_size(len(raw))
            gas += gas_wanted
            if (max_bytes >= 0 and size > max_bytes) or (max_gas >= 0 and gas > max_gas):
                break
            found.append(raw)
        return found

    def _process(self, draft: _Draft) -> bool:
        request = draft.request("RequestProcessProposal", "proposed_last_commit")
        statuses = [answer.status for answer in self._every("process_proposal", request)]
        self._agree("ProcessProposal", statuses)
        return bool(statuses[0] == ACCEPT)

    def _app_of(self, address: bytes) -> int:
        """The application of a validator: the first validators of the set have one each, the rest share the first."""
        at = self.validators.index(address)
        return at if at < len(self.apps) else 0

    # --- votes ----------------------------------------------------------------------------------------------------------------

    def _extend(self, draft: _Draft) -> None:
        """ExtendVote on the application of every validator, VerifyVoteExtension on all others, where extensions are enabled."""
        if not self._extends(draft.height):
            return
        request = draft.request("RequestExtendVote", "proposed_last_commit")
        said = [self._call(at, "extend_vote", request).vote_extension for at in range(min(len(self.apps), len(self.validators)))]
        draft.extensions = {validator.address: said[self._app_of(validator.address)] for validator in self.validators}
        for at in range(len(self.apps)):
            for index, validator in enumerate(self.validators):
                if index == at:
                    continue
                verify = _abci("RequestVerifyVoteExtension")(
                    hash=draft.hash, validator_address=validator.address, height=draft.height, vote_extension=draft.extensions[validator.address]
                )
                if self._call(at, "verify_vote_extension", verify).status != ACCEPT:
                    raise DriverError(f"block {draft.height}: application {at} rejects the vote extension of validator {index}")

    def _extends(self, height: int) -> bool:
        enabled = self.params.abci.vote_extensions_enable_height
        return bool(enabled) and height >= enabled

    def _extended_commit(self, draft: _Draft) -> Any:
        """The last commit with the extensions of its votes, signed: what the proposer alone is given."""
        info = _abci("ExtendedCommitInfo")(round=draft.last_commit.round)
        extensions = (draft.previous.extensions if draft.previous is not None else None) or {}
        for validator, signature in draft.voters():
            vote = info.votes.add(block_id_flag=signature.block_id_flag)
            vote.validator.address, vote.validator.power = validator.address, validator.power
            key = self._keys.get(validator.address)
            if self._extends(draft.height - 1) and signature.block_id_flag == headers.COMMIT and key is not None:
                vote.vote_extension = extensions.get(validator.address, b"")
                message = blocks.extension_sign_bytes(self.chain_id, draft.height - 1, draft.last_commit.round, vote.vote_extension)
                vote.extension_signature = key.sign(message)
        return info

    def _commit(self, decided: Committed, time_ns: int, absent: Sequence[int] = (), nil: Sequence[int] = ()) -> Any:
        height = decided.block.header.height
        return blocks.make_commit(
            self.chain_id, height, decided.round, decided.id, decided.validators, self._keys.get, time_ns, absent=absent, nil=nil
        )

    def commit_of(self, height: int) -> Any:
        """The commit of a decided block: the next block's last commit, or, for the latest block, the votes of all."""
        following = self.blocks.get(height + 1)
        return following.block.last_commit if following is not None else self._commit(self._stored(height), self.time_ns)

    def duplicate_vote(self, validator: int = 0, *, height: int | None = None) -> Any:
        """Evidence that a validator (index in the set of ``height``, the last block unless given) signed two blocks. For ``evidence=[...]``."""
        stored = self._stored(self.height if height is None else height)
        member = stored.validators[validator]
        key = self._keys.get(member.address)
        if key is None:
            raise DriverError(f"the driver lacks the key of validator {member.address.hex().upper()}: give it with keys=")
        return blocks.duplicate_vote(key, self.chain_id, stored.block.header.height, 0, stored.validators, stored.time_ns)

    # --- decided blocks -------------------------------------------------------------------------------------------------------

    def _decide(self, draft: _Draft) -> BlockResult:
        request = draft.request("RequestFinalizeBlock", "decided_last_commit")
        self._deciding = request
        try:
            answers = self._every("finalize_block", request)
            self._compare(draft.height, answers)
            if len(answers[0].tx_results) != len(draft.txs):
                raise DriverError(f"block {draft.height}: {len(answers[0].tx_results)} results for {len(draft.txs)} transactions")
            updated = self.next_validators.changed(self._permitted(from_updates(answers[0].validator_updates))).advanced(1)
            commits = self._every("commit", _abci("RequestCommit")())
        finally:
            self._deciding = None
        answer = answers[0]
        self.blocks[draft.height] = Committed(draft.block, draft.id, draft.round, self.validators, request, answer, draft.extensions)
        if self.keep_blocks is not None:
            self.blocks.pop(draft.height - self.keep_blocks, None)
        self.validators, self.next_validators = self.next_validators, updated
        if answer.HasField("consensus_param_updates"):
            self._change_params(answer.consensus_param_updates)
        self.height, self.time_ns = draft.height, headers.time_ns_of(draft.header.time)
        self.app_hash, self._results_hash = bytes(answer.app_hash), blocks.results_hash(answer.tx_results)
        for raw in draft.txs:
            self.mempool.pop(raw, None)
        results = tuple(_result(one) for one in answer.tx_results)
        return BlockResult(draft.height, self.time_ns, self.app_hash, draft.txs, results, commits[0].retain_height)

    def _permitted(self, updates: list[Validator]) -> list[Validator]:
        for one in updates:
            if one.power and one.key_type not in self.params.validator.pub_key_types:
                raise DriverError(f"a validator update has a key of type {one.key_type}, allowed are {list(self.params.validator.pub_key_types)}")
        return updates

    def _change_params(self, updates: Any) -> None:
        for part in ("block", "evidence", "validator", "version", "abci"):
            if updates.HasField(part):
                getattr(self.params, part).CopyFrom(getattr(updates, part))
        if updates.HasField("version"):
            self._app_version = updates.version.app

    def query(self, path: str, data: bytes = b"", *, height: int = 0, prove: bool = False) -> Any:
        """ABCI Query on the first application."""
        return self._call(0, "query", _abci("RequestQuery")(path=path, data=data, height=height, prove=prove))

    # --- comparing ------------------------------------------------------------------------------------------------------------

    def _agree(self, what: str, answers: Sequence[Any]) -> None:
        if any(answer != answers[0] for answer in answers[1:]):
            raise Disagreement(self.height + 1, what, answers)

    def _compare(self, height: int, answers: Sequence[Any]) -> None:
        """ResponseFinalizeBlock of all applications, field by field; logs alone may differ, as in CometBFT."""
        if all(answer == answers[0] for answer in answers[1:]):
            return
        self._agree_at(height, "number of tx_results", [len(answer.tx_results) for answer in answers])
        for at in range(len(answers[0].tx_results)):
            for name in ("code", "codespace", "data", "gas_wanted", "gas_used"):
                self._agree_at(height, f"{name} of transaction {at}", [getattr(answer.tx_results[at], name) for answer in answers])
            self._agree_at(height, f"events of transaction {at}", [list(answer.tx_results[at].events) for answer in answers])
        self._agree_at(height, "events", [list(answer.events) for answer in answers])
        self._agree_at(height, "validator_updates", [list(answer.validator_updates) for answer in answers])
        self._agree_at(height, "consensus_param_updates", [answer.consensus_param_updates for answer in answers])
        self._agree_at(height, "app_hash", [answer.app_hash.hex() for answer in answers])

    @staticmethod
    def _agree_at(height: int, what: str, answers: Sequence[Any]) -> None:
        if any(answer != answers[0] for answer in answers[1:]):
            raise Disagreement(height, what, answers)


class _Draft:
    """A proposal of one round."""

    def __init__(
        self, header: Any, txs: tuple[bytes, ...], last_commit: Any, previous: Committed | None, evidence: tuple[Any, ...], round_: int
    ) -> None:
        self.header, self.txs, self.last_commit, self.previous, self.evidence, self.round = header, txs, last_commit, previous, evidence, round_
        self.extensions: dict[bytes, bytes] | None = None
        header.data_hash = blocks.data_hash(txs)

    @property
    def height(self) -> int:
        return int(self.header.height)

    @cached_property
    def block(self) -> Any:
        block = types("Block")(header=self.header, last_commit=self.last_commit)
        block.data.txs.extend(self.txs)
        for one in self.evidence:
            block.evidence.evidence.add(duplicate_vote_evidence=one)
        return block

    @cached_property
    def id(self) -> Any:
        return blocks.block_id(self.block)

    @property
    def hash(self) -> bytes:
        return bytes(self.id.hash)

    @property
    def misbehavior(self) -> list[Any]:
        return [blocks.misbehavior(one) for one in self.evidence]

    def fields(self, names: Sequence[str]) -> dict[str, Any]:
        return {name: getattr(self.header, name) for name in names}

    def request(self, name: str, commit_field: str) -> Any:
        """ProcessProposal, ExtendVote or FinalizeBlock: the same facts under the same names."""
        facts = self.fields(("height", "time", "next_validators_hash", "proposer_address"))
        return _abci(name)(txs=self.txs, hash=self.hash, misbehavior=self.misbehavior, **{commit_field: self._commit_info()}, **facts)

    def _commit_info(self) -> Any:
        info = _abci("CommitInfo")(round=self.last_commit.round)
        for validator, signature in self.voters():
            vote = info.votes.add(block_id_flag=signature.block_id_flag)
            vote.validator.address, vote.validator.power = validator.address, validator.power
        return info

    def voters(self) -> list[tuple[Validator, Any]]:
        """(validator, signature) of the last commit."""
        return [] if self.previous is None else list(zip(self.previous.validators, self.last_commit.signatures, strict=True))


_KINDS: Final = {
    "info": "Info",
    "init_chain": "InitChain",
    "prepare_proposal": "PrepareProposal",
    "process_proposal": "ProcessProposal",
    "extend_vote": "ExtendVote",
    "verify_vote_extension": "VerifyVoteExtension",
    "finalize_block": "FinalizeBlock",
    "commit": "Commit",
    "query": "Query",
}
_RESPONSES: Final = {kind: message_class(f"tendermint.abci.Response{name}") for kind, name in _KINDS.items()}


def _info_request() -> Any:
    return _abci("RequestInfo")(version="0.38.25", block_version=headers.BLOCK_PROTOCOL, p2p_version=8, abci_version="2.0.0")


def _default_keys() -> list[ValidatorKey]:
    return [ValidatorKey.numbered(number) for number in range(DEFAULT_KEYS)]


def _result(message: Any) -> TxResult:
    events = tuple((event.type, tuple((pair.key, pair.value) for pair in event.attributes)) for event in message.events)
    return TxResult(message.code, message.codespace, message.log, message.gas_wanted, message.gas_used, message.data, events)


def _shortened(answers: Sequence[Any]) -> str:
    return " | ".join(text if len(text) < 400 else text[:400] + "…" for text in (str(answer) for answer in answers))
