"""Evidence of a double vote, put into a block by the real CometBFT, as the block queries show it."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any

import httpx
import nacl.signing
import pytest

from chain.api import blocks
from chain.api.comet import CometClient
from chain.codec.registry import message_class
from chain.codec.times import parse_rfc3339
from chain.codec.varint import delimited
from chain.store import merkle
from tests.support import devnet

pytestmark = pytest.mark.timeout(180)
PREVOTE = 1


def _signed(key: nacl.signing.SigningKey, vote: dict[str, Any], chain_id: str) -> dict[str, Any]:
    """The vote with CometBFT's signature: over the length-prefixed CanonicalVote."""
    canonical = message_class("tendermint.types.CanonicalVote")(type=PREVOTE, height=int(vote["height"]), chain_id=chain_id)
    canonical.block_id.hash = bytes.fromhex(vote["block_id"]["hash"])
    canonical.block_id.part_set_header.total = 1
    canonical.block_id.part_set_header.hash = bytes.fromhex(vote["block_id"]["parts"]["hash"])
    canonical.timestamp.seconds, canonical.timestamp.nanos = parse_rfc3339(vote["timestamp"])
    raw = canonical.SerializeToString()
    return {**vote, "signature": base64.b64encode(key.sign(delimited(raw)).signature).decode()}


def test_a_double_vote_is_listed_in_its_block_and_hashes_to_the_header(tmp_path: Path) -> None:
    with devnet(tmp_path) as running:
        running.wait_for(3)
        net = running.net
        comet = CometClient(net["rpc"])
        stored = json.loads((Path(net["home"]) / "config" / "priv_validator_key.json").read_text())
        key = nacl.signing.SigningKey(base64.b64decode(stored["priv_key"]["value"])[:32])
        block_time = comet.call("header", height="2")["header"]["time"]
        [validator] = comet.call("validators", height="2")["validators"]
        votes = []
        for at in ("01", "02"):
            block_id = {"hash": at * 32, "parts": {"total": 1, "hash": "03" * 32}}
            vote = {"type": PREVOTE, "height": "2", "round": 0, "block_id": block_id, "timestamp": block_time, "validator_index": 0}
            votes.append(
                _signed(key, {**vote, "validator_address": stored["address"], "extension": None, "extension_signature": None}, net["chain_id"])
            )
        power = validator["voting_power"]
        value = {"vote_a": votes[0], "vote_b": votes[1], "TotalVotingPower": power, "ValidatorPower": power, "Timestamp": block_time}
        comet.call("broadcast_evidence", evidence={"type": "tendermint/DuplicateVoteEvidence", "value": value})

        height = _height_with_evidence(comet)
        running.wait_for(height + 1)
        by_height = httpx.get(f"{net['rest']}/cosmos/base/tendermint/v1beta1/blocks/{height}").json()
        with_txs = httpx.get(f"{net['rest']}/cosmos/tx/v1beta1/txs/block/{height}").json()
        for block in (by_height["block"], by_height["sdk_block"], with_txs["block"]):
            [one] = block["evidence"]["evidence"]
            shown = one["duplicate_vote_evidence"]
            assert [shown[name]["block_id"]["hash"] for name in ("vote_a", "vote_b")] == [
                base64.b64encode(bytes.fromhex(at * 32)).decode() for at in ("01", "02")
            ]
            assert (shown["vote_a"]["height"], shown["validator_power"], shown["timestamp"]) == ("2", power, block_time)
        # What we decoded, encoded again, has the hash that the validators signed.
        found = comet.call("block", height=str(height))["block"]
        [evidence] = blocks.block(found).evidence.evidence
        assert merkle.root_of([evidence.duplicate_vote_evidence.SerializeToString()]).hex().upper() == found["header"]["evidence_hash"]
        comet.close()


def _height_with_evidence(comet: CometClient) -> int:
    until = time.monotonic() + 60
    seen = 3
    while time.monotonic() < until:
        latest = int(comet.call("status")["sync_info"]["latest_block_height"])
        for height in range(seen, latest + 1):
            if comet.call("block", height=str(height))["block"]["evidence"]["evidence"]:
                return height
        seen = latest + 1
        time.sleep(0.3)
    raise TimeoutError("no block took the evidence in")
