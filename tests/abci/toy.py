"""A small application whose every answer a test decides, and which remembers what it was asked."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

from chain.codec.registry import message_class
from chain.testing.driver import Driver
from chain.testing.validators import ValidatorKey

KEYS = [ValidatorKey.numbered(number) for number in range(6)]


def abci(name: str) -> Any:
    return message_class(f"tendermint.abci.{name}")


def update(key: ValidatorKey, power: int) -> Any:
    return abci("ValidatorUpdate")(pub_key={"ed25519": key.public_key.raw}, power=power)


class Toy:
    """Its state is the hash of all transactions; ``script`` maps (kind, height) to a function that changes the response."""

    def __init__(self, powers: Sequence[int] = (10, 20, 30, 40), extension: bytes = b"") -> None:
        self.powers, self.extension = powers, extension
        self.asked: list[tuple[str, Any]] = []
        self.script: dict[tuple[str, int], Callable[[Any], None]] = {}
        self.height, self.state, self._staged = 0, b"", (0, b"")

    def _answer(self, kind: str, name: str, request: Any, **fields: Any) -> Any:
        self.asked.append((kind, request))
        response = abci(f"Response{name}")(**fields)
        change = self.script.get((kind, getattr(request, "height", 0)))
        if change is not None:
            change(response)
        return response

    def of(self, kind: str) -> list[Any]:
        """The requests of a kind, in order."""
        return [request for one, request in self.asked if one == kind]

    def info(self, request: Any) -> Any:
        return self._answer("info", "Info", request, app_version=3, last_block_height=self.height, last_block_app_hash=self.state)

    def init_chain(self, request: Any) -> Any:
        members = [update(key, power) for key, power in zip(KEYS, self.powers, strict=False)]
        return self._answer("init_chain", "InitChain", request, validators=members)

    def check_txs(self, requests: Sequence[Any]) -> list[Any]:
        return [self._answer("check_tx", "CheckTx", request, gas_wanted=10, code=int(request.tx.startswith(b"bad"))) for request in requests]

    def prepare_proposal(self, request: Any) -> Any:
        return self._answer("prepare_proposal", "PrepareProposal", request, txs=list(request.txs))

    def process_proposal(self, request: Any) -> Any:
        return self._answer("process_proposal", "ProcessProposal", request, status=1)

    def extend_vote(self, request: Any) -> Any:
        return self._answer("extend_vote", "ExtendVote", request, vote_extension=self.extension)

    def verify_vote_extension(self, request: Any) -> Any:
        return self._answer("verify_vote_extension", "VerifyVoteExtension", request, status=1)

    def finalize_block(self, request: Any) -> Any:
        self._staged = request.height, hashlib.sha256(self.state + b"".join(request.txs)).digest()
        results = [abci("ExecTxResult")(data=tx) for tx in request.txs]
        return self._answer("finalize_block", "FinalizeBlock", request, tx_results=results, app_hash=self._staged[1])

    def commit(self, request: Any) -> Any:
        self.height, self.state = self._staged
        return self._answer("commit", "Commit", request)


def driven(*toys: Toy, initial_height: int = 1, max_bytes: int = 100_000, extensions_from: int = 0) -> Driver:
    """A started driver over toys."""
    params = {
        "block": {"max_bytes": str(max_bytes), "max_gas": "100"},
        "evidence": {"max_age_num_blocks": "100", "max_age_duration": "3600s", "max_bytes": "10000"},
        "validator": {"pub_key_types": ["ed25519"]},
        "version": {"app": "3"},
        "abci": {"vote_extensions_enable_height": str(extensions_from)},
    }
    genesis = {
        "chain_id": "toy-1",
        "genesis_time": "2026-01-01T00:00:00Z",
        "initial_height": initial_height,
        "consensus": {"params": params},
        "app_state": {},
    }
    driver = Driver(list(toys), genesis)  # type: ignore[arg-type]
    driver.start()
    return driver
