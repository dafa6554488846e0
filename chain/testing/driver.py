"""A consensus driver: proposes, votes and commits blocks on one or several applications, in process, and compares their app hashes.

It is a driver for tests and benches, never a network: nobody disagrees, and time passes as it is told to.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from chain.abci.application import Application
from chain.codec.json import from_json
from chain.codec.registry import message_class
from chain.codec.times import parse_rfc3339

NANOS: Final = 10**9
ACCEPT: Final = 1


def _abci(name: str) -> Any:
    return message_class(f"tendermint.abci.{name}")


class Disagreement(AssertionError):
    """Two applications gave different answers to the same block."""


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
class Driver:
    """Drives ``apps`` in lock step from a genesis document (SDK 0.50 shape).

    Time starts at the genesis time and moves by ``time_step_s`` per block unless a block says otherwise.
    """

    apps: Sequence[Application]
    genesis: dict[str, Any]
    time_step_s: int = 5
    height: int = 0
    time_ns: int = 0
    app_hash: bytes = b""
    validators: list[Any] = field(default_factory=list)

    def start(self) -> None:
        """InitChain, or the handshake's Info when the application has blocks already."""
        seconds, nanos = parse_rfc3339(self.genesis["genesis_time"])
        self.time_ns = seconds * NANOS + nanos
        self.height = int(self.genesis["initial_height"]) - 1
        params = from_json(message_class("tendermint.types.ConsensusParams"), self.genesis["consensus"]["params"])
        request = _abci("RequestInitChain")(
            chain_id=self.genesis["chain_id"],
            app_state_bytes=orjson.dumps(self.genesis["app_state"]),
            initial_height=self.height + 1,
            consensus_params=params,
        )
        request.time.seconds, request.time.nanos = seconds, nanos
        answers = [app.init_chain(request) for app in self.apps]
        self._agree("validators", [tuple(one.SerializeToString() for one in answer.validators) for answer in answers])
        self.validators = list(answers[0].validators)

    def check_tx(self, raw: bytes) -> Any:
        """CheckTx on every application; the first one's answer."""
        response_class = _abci("ResponseCheckTx")
        raws = [app.check_txs([_abci("RequestCheckTx")(tx=raw)])[0] for app in self.apps]
        answers = [response_class.FromString(one) if isinstance(one, bytes) else one for one in raws]
        self._agree("CheckTx code", [answer.code for answer in answers])
        return answers[0]

    def propose(self, txs: Sequence[bytes] = (), *, max_tx_bytes: int = 1 << 20) -> list[bytes]:
        """What the first application would propose next."""
        request = _abci("RequestPrepareProposal")(txs=list(txs), max_tx_bytes=max_tx_bytes, height=self.height + 1)
        request.time.seconds, request.time.nanos = divmod(self.time_ns + self.time_step_s * NANOS, NANOS)
        return list(self.apps[0].prepare_proposal(request).txs)

    def next_block(
        self, txs: Sequence[bytes] = (), *, time_step_s: int | None = None, absent: Sequence[int] = (), process: bool = True
    ) -> BlockResult:
        """Process, finalize and commit one block with exactly ``txs``. Raises Disagreement."""
        self.height += 1
        self.time_ns += (self.time_step_s if time_step_s is None else time_step_s) * NANOS
        proposer = hashlib.sha256(self._key(self.height % len(self.validators))).digest()[:20]
        if process:
            proposal = _abci("RequestProcessProposal")(txs=list(txs), height=self.height, proposer_address=proposer)
            statuses = [app.process_proposal(proposal).status for app in self.apps]
            self._agree("ProcessProposal", statuses)
        request = _abci("RequestFinalizeBlock")(txs=list(txs), height=self.height, proposer_address=proposer)
        request.hash = hashlib.sha256(b"block" + self.height.to_bytes(8, "big") + b"".join(txs)).digest()
        request.time.seconds, request.time.nanos = divmod(self.time_ns, NANOS)
        if self.height > int(self.genesis["initial_height"]):
            for at, validator in enumerate(self.validators):
                vote = request.decided_last_commit.votes.add(block_id_flag=1 if at in absent else 2)
                vote.validator.address, vote.validator.power = hashlib.sha256(self._key(at)).digest()[:20], validator.power
        raws = [app.finalize_block(request) for app in self.apps]
        response_class = _abci("ResponseFinalizeBlock")
        answers = [response_class.FromString(raw) if isinstance(raw, bytes) else raw for raw in raws]
        self._agree("app hash", [answer.app_hash.hex() for answer in answers])
        self._agree("results", [[(one.code, one.data, one.gas_wanted, one.gas_used) for one in answer.tx_results] for answer in answers])
        commits = [app.commit(_abci("RequestCommit")()) for app in self.apps]
        self.app_hash = answers[0].app_hash
        results = tuple(_result(one) for one in answers[0].tx_results)
        return BlockResult(self.height, self.time_ns, self.app_hash, tuple(txs), results, commits[0].retain_height)

    def query(self, path: str, data: bytes = b"", *, height: int = 0, prove: bool = False) -> Any:
        """ABCI Query on the first application."""
        return self.apps[0].query(_abci("RequestQuery")(path=path, data=data, height=height, prove=prove))

    def _key(self, at: int) -> bytes:
        raw: bytes = self.validators[at].pub_key.ed25519
        return raw

    @staticmethod
    def _agree(what: str, answers: Sequence[Any]) -> None:
        if any(answer != answers[0] for answer in answers[1:]):
            raise Disagreement(f"{what} differs between applications: {answers}")


def _result(message: Any) -> TxResult:
    events = tuple((event.type, tuple((pair.key, pair.value) for pair in event.attributes)) for event in message.events)
    return TxResult(message.code, message.codespace, message.log, message.gas_wanted, message.gas_used, message.data, events)
