"""Blocks as CometBFT 0.38 makes them: the hashes in a header, part sets, votes, commits and evidence.

Everything is a message of ``tendermint.types``; the functions hash and sign them (``chain/light/headers.py`` checks them). Source: CometBFT v0.38.25 ``types/``;
``tests/abci/test_headers_equal_cometbft.py`` holds all of it against the real one.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from typing import Any, Final

from chain.codec.canonical import encode
from chain.codec.registry import message_class
from chain.codec.times import rfc3339
from chain.codec.varint import delimited, field_size
from chain.light.headers import ABSENT, COMMIT, NIL, PRECOMMIT, header_hash, set_time, sha256, types, vote_sign_bytes
from chain.light.validators import ValidatorSet
from chain.store.merkle import root_of
from chain.testing.validators import ValidatorKey

PART_BYTES: Final = 65_536
DUPLICATE_VOTE: Final = 1
ZERO_TIME_S: Final = -62_135_596_800
"""Go's zero time, which an absent signature carries."""
MAX_BLOCK_BYTES: Final = 100 << 20
_OVERHEAD_BYTES, _HEADER_BYTES, _COMMIT_BYTES, _SIGNATURE_BYTES = 11, 626, 94, 111


# --- hashes of a header's fields --------------------------------------------------------------------------------------------


def data_hash(txs: Sequence[bytes]) -> bytes:
    """Over the hashes of the transactions."""
    return root_of([sha256(tx) for tx in txs])


def results_hash(results: Sequence[Any]) -> bytes:
    """Over code, data, gas_wanted and gas_used of ``ExecTxResult``s."""
    result = message_class("tendermint.abci.ExecTxResult")
    parts = [result(code=one.code, data=one.data, gas_wanted=one.gas_wanted, gas_used=one.gas_used) for one in results]
    return root_of([part.SerializeToString() for part in parts])


def evidence_hash(evidence: Sequence[Any]) -> bytes:
    """Over ``DuplicateVoteEvidence`` messages."""
    return root_of([encode(one) for one in evidence])


def commit_hash(commit: Any) -> bytes:
    """What the next header carries as last_commit_hash."""
    return root_of([encode(one) for one in commit.signatures])


def block_id(block: Any) -> Any:
    """BlockID of a ``tendermint.types.Block``: the header's hash, and the root over the parts it travels in."""
    raw = encode(block)
    parts = [raw[at : at + PART_BYTES] for at in range(0, len(raw), PART_BYTES)]
    found = types("BlockID")(hash=header_hash(block.header))
    found.part_set_header.total, found.part_set_header.hash = len(parts), root_of(parts)
    return found


def max_tx_bytes(params: Any, evidence: Sequence[Any], validators: int) -> int:
    """What a proposal leaves for transactions."""
    whole = MAX_BLOCK_BYTES if params.block.max_bytes == -1 else params.block.max_bytes
    wrapped = [types("Evidence")(duplicate_vote_evidence=one) for one in evidence]
    evidence_bytes = sum(field_size(len(encode(one))) for one in wrapped)
    return int(whole - _OVERHEAD_BYTES - _HEADER_BYTES - _COMMIT_BYTES - _SIGNATURE_BYTES * validators - evidence_bytes)


# --- votes and commits ------------------------------------------------------------------------------------------------------


def extension_sign_bytes(chain_id: str, height: int, round_: int, extension: bytes) -> bytes:
    """What a validator signs beside a vote that carries an extension."""
    return delimited(encode(types("CanonicalVoteExtension")(extension=extension, height=height, round=round_, chain_id=chain_id)))


def make_commit(
    chain_id: str,
    height: int,
    round_: int,
    block: Any,
    validators: ValidatorSet,
    key_of: Callable[[bytes], ValidatorKey | None],
    time_ns: int,
    *,
    absent: Sequence[int] = (),
    nil: Sequence[int] = (),
) -> Any:
    """The precommits of a set for a BlockID, every one signed at ``time_ns``. A validator whose key nobody gave votes without signature."""
    commit = types("Commit")(height=height, round=round_, block_id=block)
    for at, validator in enumerate(validators):
        signature = commit.signatures.add()
        if at in absent:
            signature.block_id_flag, signature.timestamp.seconds = ABSENT, ZERO_TIME_S
            continue
        signature.block_id_flag, signature.validator_address = (NIL if at in nil else COMMIT), validator.address
        set_time(signature.timestamp, time_ns)
        key = key_of(validator.address)
        if key is not None:
            signature.signature = key.sign(vote_sign_bytes(chain_id, height, round_, None if at in nil else block, signature.timestamp))
    return commit


# --- evidence ---------------------------------------------------------------------------------------------------------------


def duplicate_vote(
    key: ValidatorKey, chain_id: str, height: int, round_: int, validators: ValidatorSet, time_ns: int, blocks: Sequence[Any] = ()
) -> Any:
    """DuplicateVoteEvidence: two precommits of one validator for two BlockIDs (made up where none are given), both signed with its key.

    ``time_ns`` is the time of the block at ``height``, ``validators`` the set that voted there.
    """
    blocks = blocks or [_made_up_block(b"one"), _made_up_block(b"another")]
    at = validators.index(key.address)
    votes = []
    for block in blocks:
        vote = types("Vote")(type=PRECOMMIT, height=height, round=round_, block_id=block, validator_address=key.address, validator_index=at)
        set_time(vote.timestamp, time_ns)
        vote.signature = key.sign(vote_sign_bytes(chain_id, height, round_, block, vote.timestamp))
        votes.append(vote)
    votes.sort(key=lambda vote: (vote.block_id.hash, encode(vote.block_id.part_set_header)))
    found = types("DuplicateVoteEvidence")(
        vote_a=votes[0], vote_b=votes[1], total_voting_power=validators.total_power, validator_power=validators[at].power
    )
    set_time(found.timestamp, time_ns)
    return found


def duplicate_vote_json(evidence: Any) -> dict[str, Any]:
    """A DuplicateVoteEvidence as CometBFT's ``broadcast_evidence`` takes it."""
    value = {
        "vote_a": _vote_json(evidence.vote_a),
        "vote_b": _vote_json(evidence.vote_b),
        "TotalVotingPower": str(evidence.total_voting_power),
        "ValidatorPower": str(evidence.validator_power),
        "Timestamp": rfc3339(evidence.timestamp.seconds, evidence.timestamp.nanos),
    }
    return {"type": "tendermint/DuplicateVoteEvidence", "value": value}


def _vote_json(vote: Any) -> dict[str, Any]:
    parts = vote.block_id.part_set_header
    return {
        "type": vote.type,
        "height": str(vote.height),
        "round": vote.round,
        "block_id": {"hash": vote.block_id.hash.hex().upper(), "parts": {"total": parts.total, "hash": parts.hash.hex().upper()}},
        "timestamp": rfc3339(vote.timestamp.seconds, vote.timestamp.nanos),
        "validator_address": vote.validator_address.hex().upper(),
        "validator_index": vote.validator_index,
        "signature": base64.b64encode(vote.signature).decode(),
    }


def misbehavior(evidence: Any) -> Any:
    """What an application is told of a DuplicateVoteEvidence."""
    found = message_class("tendermint.abci.Misbehavior")(
        type=DUPLICATE_VOTE, height=evidence.vote_a.height, time=evidence.timestamp, total_voting_power=evidence.total_voting_power
    )
    found.validator.address, found.validator.power = evidence.vote_a.validator_address, evidence.validator_power
    return found


def _made_up_block(seed: bytes) -> Any:
    block = types("BlockID")(hash=sha256(b"block " + seed))
    block.part_set_header.total, block.part_set_header.hash = 1, sha256(b"parts " + seed)
    return block
