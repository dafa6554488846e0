"""Evidence for a running CometBFT: two votes of one validator at one height, signed with its key."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

from chain.api.comet import CometClient
from chain.codec.times import parse_rfc3339
from chain.light.headers import PRECOMMIT, types, vote_sign_bytes
from chain.testing.validators import ValidatorKey

BLOCKS = ("01" * 32, "02" * 32)
"""The hashes of the two made-up blocks that are voted for."""
NAMES = ("TotalVotingPower", "ValidatorPower", "Timestamp")
NAMES_0_38_11 = ("total_voting_power", "validator_power", "timestamp")
"""What simd's CometBFT calls them."""


def post(comet: CometClient, chain_id: str, key: ValidatorKey, height: int, names: Sequence[str] = NAMES) -> int:
    """Hand CometBFT evidence that a validator double-signed at ``height``, and return the validator's power there."""
    time = comet.call("header", height=str(height))["header"]["time"]
    members = comet.call("validators", height=str(height))["validators"]
    address = key.address.hex().upper()
    [(index, power)] = [(at, one["voting_power"]) for at, one in enumerate(members) if one["address"] == address]
    votes = [_vote(chain_id, key, height, time, block, index) for block in BLOCKS]
    facts = dict(zip(names, (str(sum(int(one["voting_power"]) for one in members)), power, time), strict=True))
    value = {"vote_a": votes[0], "vote_b": votes[1], **facts}
    comet.call("broadcast_evidence", evidence={"type": "tendermint/DuplicateVoteEvidence", "value": value})
    return int(power)


def _vote(chain_id: str, key: ValidatorKey, height: int, time: str, block_hash: str, index: int) -> dict[str, Any]:
    block = types("BlockID")(hash=bytes.fromhex(block_hash))
    block.part_set_header.total, block.part_set_header.hash = 1, bytes(32)
    vote = types("Vote")()
    vote.timestamp.seconds, vote.timestamp.nanos = parse_rfc3339(time)
    return {
        "type": PRECOMMIT,
        "height": str(height),
        "round": 0,
        "block_id": {"hash": block_hash, "parts": {"total": 1, "hash": "00" * 32}},
        "timestamp": time,
        "validator_address": key.address.hex().upper(),
        "validator_index": index,
        "signature": base64.b64encode(key.sign(vote_sign_bytes(chain_id, height, 0, block, vote.timestamp))).decode(),
        "extension": None,
        "extension_signature": None,
    }


def height_with_evidence(comet: CometClient, start: int, end: int) -> int | None:
    """The first of these blocks that has evidence."""
    blocks = ((at, comet.call("block", height=str(at))["block"]) for at in range(start, end + 1))
    return next((at for at, block in blocks if block["evidence"]["evidence"]), None)
