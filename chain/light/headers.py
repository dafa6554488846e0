"""What ties blocks together in CometBFT 0.38: header hashes, the bytes a vote signs, and when a commit holds.

Everything is a message of ``tendermint.types``. Source: CometBFT v0.38.25 ``types/``; ``tests/abci/test_headers_equal_cometbft.py`` holds all of
it against the real one.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

from chain.codec.canonical import encode
from chain.codec.registry import message_class
from chain.codec.varint import delimited, uvarint
from chain.light.validators import ValidatorSet
from chain.store.merkle import root_of

NANOS: Final = 10**9
BLOCK_PROTOCOL: Final = 11
ABSENT, COMMIT, NIL = 1, 2, 3
"""BlockIDFlag of a signature in a commit."""
PRECOMMIT: Final = 2


def types(name: str) -> Any:
    """The message class ``tendermint.types.<name>``."""
    return message_class(f"tendermint.types.{name}")


class CommitError(ValueError):
    """A commit does not show that the validators decided the block."""


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def set_time(message: Any, time_ns: int) -> None:
    """Write Unix nanoseconds into a Timestamp."""
    message.seconds, message.nanos = divmod(time_ns, NANOS)


def time_ns_of(message: Any) -> int:
    """A Timestamp in Unix nanoseconds."""
    return int(message.seconds * NANOS + message.nanos)


def consensus_hash(params: Any) -> bytes:
    """Of ``tendermint.types.ConsensusParams``: block size and gas alone are covered."""
    return sha256(types("HashedParams")(block_max_bytes=params.block.max_bytes, block_max_gas=params.block.max_gas).SerializeToString())


def header_hash(header: Any) -> bytes:
    """The block hash."""

    def text(value: bytes) -> bytes:
        return b"" if not value else b"\x0a" + delimited(value)

    return root_of(
        [
            encode(header.version),
            text(header.chain_id.encode()),
            b"" if not header.height else b"\x08" + uvarint(header.height),
            encode(header.time),
            encode(header.last_block_id),
            *(
                text(value)
                for value in (
                    header.last_commit_hash,
                    header.data_hash,
                    header.validators_hash,
                    header.next_validators_hash,
                    header.consensus_hash,
                    header.app_hash,
                    header.last_results_hash,
                    header.evidence_hash,
                    header.proposer_address,
                )
            ),
        ]
    )


def vote_sign_bytes(chain_id: str, height: int, round_: int, block: Any | None, timestamp: Any, kind: int = PRECOMMIT) -> bytes:
    """What a validator signs: ``block`` is a BlockID, None (or an empty one) for a nil vote."""
    vote = types("CanonicalVote")(type=kind, height=height, round=round_, chain_id=chain_id, timestamp=timestamp)
    if block is not None and block.hash:
        vote.block_id.hash = block.hash
        vote.block_id.part_set_header.total, vote.block_id.part_set_header.hash = block.part_set_header.total, block.part_set_header.hash
    return delimited(encode(vote))


def verify_commit(chain_id: str, height: int, block: Any, validators: ValidatorSet, commit: Any) -> None:
    """As CometBFT checks a last commit: every signature is right, and more than two thirds of the power are for the block. Raises CommitError."""
    if commit.height != height or commit.block_id != block:
        raise CommitError(f"the commit is for height {commit.height} and block {commit.block_id.hash.hex()}, not {height} and {block.hash.hex()}")
    if len(commit.signatures) != len(validators):
        raise CommitError(f"the commit has {len(commit.signatures)} signatures, the set {len(validators)} validators")
    power = 0
    for at, (signature, validator) in enumerate(zip(commit.signatures, validators, strict=True)):
        if signature.block_id_flag == ABSENT:
            continue
        if signature.validator_address != validator.address:
            raise CommitError(f"signature {at} is of {signature.validator_address.hex()}, that validator is {validator.address.hex()}")
        signed_for = block if signature.block_id_flag == COMMIT else None
        message = vote_sign_bytes(chain_id, height, commit.round, signed_for, signature.timestamp)
        if not validator.public_key.verify(message, signature.signature):
            raise CommitError(f"signature {at} of the commit at height {height} is wrong (does the driver have that validator's key?)")
        power += validator.power if signed_for is not None else 0
    if power * 3 <= validators.total_power * 2:
        raise CommitError(f"power {power} of {validators.total_power} is for the block: more than two thirds are needed")
