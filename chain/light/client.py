"""A light client: from one header that is trusted to any other, by signatures of the validators alone.

Source: the light client specification of CometBFT v0.38 (skipping verification at one third, hash links backwards). What it asks comes from
CometBFT's RPC of several servers: the first is asked for everything, the others must agree with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from chain.api import blocks as rpc_json
from chain.api.comet import CometClient, CometRefused, CometUnavailable
from chain.errors import AppError
from chain.light.headers import COMMIT, NANOS, CommitError, header_hash, time_ns_of, types, verify_commit
from chain.light.validators import MAX_TOTAL_POWER, Validator, ValidatorSet

MAX_ANSWER_BYTES: Final = 16 << 20
PAGE: Final = 100
MAX_VALIDATORS: Final = 10_000
MAX_CLOCK_DRIFT_NS: Final = 10 * NANOS
MAX_BACKWARDS: Final = 10_000
"""How many headers below the trusted one are asked for, one after the other."""


class LightError(Exception):
    """A block cannot be had or does not hold; the message says which, of whom, and what to do."""


@dataclass(frozen=True, slots=True)
class LightBlock:
    """A header with the commit and the validators that vouch for it: messages of ``tendermint.types``, and a set."""

    header: Any
    commit: Any
    validators: ValidatorSet

    @property
    def height(self) -> int:
        return int(self.header.height)

    @property
    def hash(self) -> bytes:
        return header_hash(self.header)

    @property
    def time_ns(self) -> int:
        return time_ns_of(self.header.time)


@dataclass(frozen=True, slots=True)
class Trust:
    """The header that all else follows from, and for how long after its time."""

    height: int
    hash: bytes
    period_ns: int


class Server:
    """CometBFT's RPC of one node, which may lie."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._client = CometClient(address if "://" in address else f"http://{address}", MAX_ANSWER_BYTES)

    def close(self) -> None:
        self._client.close()

    def signed_header(self, height: int) -> tuple[Any, Any]:
        """(header, commit), belonging to each other and to ``height``. Raises LightError."""
        header, commit = types("Header")(), types("Commit")()
        answer = self._call("commit", height)
        with _InForm(self.address, "commit", height):
            rpc_json.header(answer["signed_header"]["header"], header)
            rpc_json.commit(answer["signed_header"]["commit"], commit)
        if header.height != height or commit.height != height or commit.block_id.hash != header_hash(header):
            raise LightError(f"{self.address}: what it gives as block {height} is a header and a commit that do not belong together")
        return header, commit

    def validators(self, height: int) -> ValidatorSet:
        """The set at ``height``, with the priorities that the server tells. Raises LightError."""
        found: list[Validator] = []
        total = 1
        while len(found) < total:
            answer = self._call("validators", height, page=str(len(found) // PAGE + 1), per_page=str(PAGE))
            with _InForm(self.address, "validators", height):
                total = int(answer["total"])
                page = [_validator(one) for one in answer["validators"]]
                if not page or total > MAX_VALIDATORS or len(found) + len(page) > total:
                    raise ValueError
                found += page
        made = ValidatorSet(found)
        if made.total_power > MAX_TOTAL_POWER or len({one.address for one in found}) != len(found):
            raise LightError(f"{self.address}: its validators at height {height} are not a set that CometBFT could have")
        return ValidatorSet(found, last_proposer(made))

    def block(self, height: int) -> LightBlock:
        """Raises LightError."""
        return LightBlock(*self.signed_header(height), self.validators(height))

    def _call(self, method: str, height: int, **params: str) -> Any:
        try:
            return self._client.call(method, height=str(height), **params)
        except CometUnavailable as error:
            raise LightError(str(error)) from None
        except CometRefused as error:
            raise LightError(f"{self.address} gives no {method} at height {height}: {str(error)[:200]}") from None


class LightClient:
    """Blocks of one chain that hold, as far as ``trust`` does."""

    def __init__(self, chain_id: str, servers: Sequence[Server], trust: Trust, now_ns: int) -> None:
        """Ask for the trusted block. Raises LightError when it is another, or too old."""
        self._chain_id, self._servers, self._trust, self._now_ns = chain_id, servers, trust, now_ns
        first = self._asked(trust.height)
        if first.hash != trust.hash:
            raise LightError(
                f"{servers[0].address}: block {trust.height} is {first.hash.hex().upper()}, trusted is {trust.hash.hex().upper()}: "
                "ask somebody you trust for trust_height and trust_hash"
            )
        self._require_fresh(first)
        self._held = {trust.height: first}

    def block(self, height: int) -> LightBlock:
        """The block at a height. Raises LightError."""
        if height not in self._held:
            lower = [one for one in self._held if one < height]
            self._held[height] = self._forward(self._held[max(lower)], height) if lower else self._backward(self._held[min(self._held)], height)
        return self._held[height]

    def require_agreement(self, height: int) -> None:
        """Every other server has the same block and validators there, and the same turns to propose. Raises LightError."""
        ours = self.block(height)
        for server in self._servers[1:]:
            theirs = server.block(height)
            if (theirs.hash, list(theirs.validators)) != (ours.hash, list(ours.validators)):
                raise LightError(
                    f"{self._servers[0].address} and {server.address} disagree about block {height} or its validators: "
                    "one of them lies or follows a fork; find out which before you go on"
                )

    def _asked(self, height: int) -> LightBlock:
        """A block of the first server that its own validators signed."""
        block = self._servers[0].block(height)
        where = f"{self._servers[0].address}: block {height}"
        if block.header.chain_id != self._chain_id:
            raise LightError(f"{where} is of chain {block.header.chain_id[:50]!r}, this home of {self._chain_id!r}")
        if block.validators.hash() != block.header.validators_hash:
            raise LightError(f"{where} does not belong to the validators that are given with it")
        try:
            verify_commit(self._chain_id, height, block.commit.block_id, block.validators, block.commit)
        except CommitError as error:
            raise LightError(f"{where} is not signed as it must be: {error}") from None
        if block.time_ns > self._now_ns + MAX_CLOCK_DRIFT_NS:
            raise LightError(f"{where} is of the future: is this machine's clock right?")
        return block

    def _require_fresh(self, block: LightBlock) -> None:
        if block.time_ns + self._trust.period_ns <= self._now_ns:
            raise LightError(
                f"block {block.height} is older than trust_period ({self._trust.period_ns // NANOS} s): set trust_height and trust_hash to a newer one"
            )

    def _forward(self, trusted: LightBlock, height: int) -> LightBlock:
        """By skipping: to the height itself where the trusted validators still have a say in it, else first to the middle."""
        pending = [self._asked(height)]
        while pending:
            new = pending[-1]
            if self._follows(trusted, new):
                self._held[new.height] = trusted = pending.pop()
            else:
                pending.append(self._asked((trusted.height + new.height) // 2))
        return trusted

    def _follows(self, trusted: LightBlock, new: LightBlock) -> bool:
        """False: too few of the trusted validators signed ``new`` to tell. Raises LightError where it is told that it does not follow."""
        self._require_fresh(trusted)
        if new.time_ns <= trusted.time_ns:
            raise LightError(f"{self._servers[0].address}: block {new.height} is not later than block {trusted.height}")
        if new.height == trusted.height + 1:
            if new.header.validators_hash != trusted.header.next_validators_hash:
                raise LightError(f"{self._servers[0].address}: the validators of block {new.height} are not those that block {trusted.height} names")
            return True
        signed = {one.validator_address for one in new.commit.signatures if one.block_id_flag == COMMIT}
        power = sum(one.power for one in trusted.validators if one.address in signed)
        return power * 3 > trusted.validators.total_power

    def _backward(self, trusted: LightBlock, height: int) -> LightBlock:
        """By hash links."""
        if trusted.height - height > MAX_BACKWARDS:
            raise LightError(f"trust_height {trusted.height} is more than {MAX_BACKWARDS} above height {height}: set it to a block nearer to it")
        linked = trusted.header.last_block_id.hash
        for at in range(trusted.height - 1, height, -1):
            header, _ = self._servers[0].signed_header(at)
            self._require_linked(header, linked)
            linked = header.last_block_id.hash
        block = self._asked(height)
        self._require_linked(block.header, linked)
        return block

    def _require_linked(self, header: Any, linked: bytes) -> None:
        if header_hash(header) != linked:
            raise LightError(f"{self._servers[0].address}: block {header.height} is not the one that block {header.height + 1} follows")


def last_proposer(validators: ValidatorSet) -> bytes:
    """Whose turn it just was, told from the priorities: the address of the lowest."""
    return max(validators, key=lambda one: (-one.priority, one.address)).address


def _validator(value: Any) -> Validator:
    message = types("Validator")()
    rpc_json.comet_validator(value, message)
    kind = message.pub_key.WhichOneof("sum")
    found = Validator(kind, bytes(getattr(message.pub_key, kind)), message.voting_power, message.proposer_priority)
    if found.address != message.address or found.power <= 0:
        raise ValueError
    return found


class _InForm:
    """Turns whatever reading another node's JSON trips over into a LightError."""

    def __init__(self, address: str, method: str, height: int) -> None:
        self._told = f"{address}: its answer to {method} at height {height} has not CometBFT's form"

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, KeyError | TypeError | ValueError | AttributeError | AppError):
            raise LightError(self._told) from None
