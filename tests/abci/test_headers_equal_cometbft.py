"""What the consensus driver computes, held against the unmodified CometBFT: hashes, votes, validator sets, turns and evidence."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from chain.api import blocks as rpc_json
from chain.codec.registry import message_class
from chain.light import headers
from chain.light.validators import Validator, ValidatorSet
from chain.testing import blocks
from chain.testing.validators import ValidatorKey
from tests.abci import real_comet

pytestmark = pytest.mark.timeout(300)

NEWCOMER = ValidatorKey.numbered(7)


@dataclass
class History:
    """Everything CometBFT says of its blocks 1 to ``last``."""

    chain_id: str
    last: int
    keys: list[ValidatorKey]
    genesis: list[Validator]
    params: Any
    blocks: dict[int, Any]
    ids: dict[int, Any]
    validators: dict[int, list[Any]]
    results: dict[int, Any]
    evidence: Any
    evidence_json: dict[int, list[Any]]


def key_tx(key: ValidatorKey, power: int) -> str:
    return base64.b64encode(f"val=ed25519!{base64.b64encode(key.public_key.raw).decode()}!{power}".encode()).decode()


def send(comet: real_comet.Comet, tx: str) -> None:
    answer = comet.client.call("broadcast_tx_commit", tx=tx)
    assert answer["tx_result"]["code"] == 0, answer


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[History]:
    with real_comet.running(tmp_path_factory.mktemp("comet")) as comet:
        comet.wait_for(3)
        chain_id = comet.genesis["chain_id"]
        genesis = [Validator("ed25519", key.public_key.raw, power) for key, power in zip(comet.keys, real_comet.POWERS, strict=True)]
        time = rpc_json.block(comet.client.call("block", height="2")["block"]).header.time
        evidence = blocks.duplicate_vote(comet.keys[3], chain_id, 2, 0, ValidatorSet.of(genesis), headers.time_ns_of(time))
        comet.client.call("broadcast_evidence", evidence=blocks.duplicate_vote_json(evidence))
        for tx in (key_tx(NEWCOMER, 5), key_tx(comet.keys[2], 17), key_tx(comet.keys[1], 0), key_tx(comet.keys[0], 1000), key_tx(NEWCOMER, 30)):
            send(comet, tx)
            send(comet, base64.b64encode(f"plain{tx[-12:]}=1".encode()).decode())
        last = comet.wait_for(comet.height() + 20)
        client, heights = comet.client, range(1, last + 1)
        raw = {at: client.call("block", height=str(at)) for at in heights}
        params = message_class("tendermint.types.ConsensusParams")()
        params.block.max_bytes, params.block.max_gas = (
            int(client.call("consensus_params", height="1")["consensus_params"]["block"][name]) for name in ("max_bytes", "max_gas")
        )
        yield History(
            chain_id,
            last,
            comet.keys,
            genesis,
            params,
            {at: rpc_json.block(one["block"]) for at, one in raw.items()},
            {at: rpc_json.block_id(one["block_id"]) for at, one in raw.items()},
            {at: client.call("validators", height=str(at))["validators"] for at in heights},
            {at: client.call("block_results", height=str(at)) for at in heights},
            evidence,
            {at: one["block"]["evidence"]["evidence"] for at, one in raw.items()},
        )


def sets_of(history: History) -> dict[int, ValidatorSet]:
    """The sets our own code arrives at from genesis and the updates that CometBFT's application returned."""
    sets = {1: ValidatorSet.of(history.genesis)}
    sets[2] = sets[1].advanced(1)
    for at in range(1, history.last - 1):
        updates = [
            Validator("ed25519", base64.b64decode(one["pub_key"]["Sum"]["value"]["ed25519"]), int(one.get("power") or 0))
            for one in history.results[at]["validator_updates"] or []
        ]
        sets[at + 2] = sets[at + 1].changed(updates).advanced(1)
    return sets


def test_header_hashes_and_part_sets_are_cometbfts(history: History) -> None:
    for at, block in history.blocks.items():
        if history.evidence_json[at]:
            assert [one.duplicate_vote_evidence for one in block.evidence.evidence] == [history.evidence]
        assert blocks.block_id(block) == history.ids[at], f"block {at}"


def test_every_hash_inside_a_header_is_cometbfts(history: History) -> None:
    sets = sets_of(history)
    with_txs = 0
    for at, block in history.blocks.items():
        header = block.header
        assert blocks.data_hash(list(block.data.txs)) == header.data_hash
        assert headers.consensus_hash(history.params) == header.consensus_hash
        assert blocks.commit_hash(block.last_commit) == header.last_commit_hash
        assert sets[at].hash() == header.validators_hash, f"block {at}"
        if at + 1 in sets:
            assert sets[at + 1].hash() == header.next_validators_hash
        assert blocks.evidence_hash([history.evidence] if history.evidence_json[at] else []) == header.evidence_hash
        if at > 1:
            results = history.results[at - 1]["txs_results"] or []
            made = message_class("tendermint.abci.ExecTxResult")
            assert blocks.results_hash([made(code=int(one["code"])) for one in results]) == header.last_results_hash
            assert history.ids[at - 1] == header.last_block_id
        with_txs += bool(block.data.txs)
    assert with_txs >= 5


def test_validator_sets_and_their_priorities_follow_cometbfts(history: History) -> None:
    sets = sets_of(history)
    sizes = set()
    for at, ours in sets.items():
        theirs = [(one["address"], int(one["voting_power"]), int(one["proposer_priority"])) for one in history.validators[at]]
        assert [(one.address.hex().upper(), one.power, one.priority) for one in ours] == theirs, f"block {at}"
        sizes.add(tuple(one.power for one in ours))
    assert len(sizes) >= 5, "the updates and the punishment changed the set again and again"


def test_proposers_are_those_whose_turn_cometbft_says_it_is(history: History) -> None:
    sets = sets_of(history)
    rounds = set()
    for at in range(1, history.last):
        decided_in = history.blocks[at + 1].last_commit.round
        turn = sets[at] if decided_in == 0 else sets[at].advanced(decided_in)
        assert turn.proposer.address == history.blocks[at].header.proposer_address, f"block {at}, round {decided_in}"
        rounds.add(decided_in)
    assert len(rounds) >= 2, "some blocks were decided in a later round"


def test_commits_verify_and_a_changed_one_does_not(history: History) -> None:
    sets = sets_of(history)
    for at in range(1, history.last):
        commit = history.blocks[at + 1].last_commit
        headers.verify_commit(history.chain_id, at, history.ids[at], sets[at], commit)
    changed = headers.types("Commit")()
    changed.CopyFrom(commit)
    signature = bytearray(commit.signatures[0].signature)
    signature[5] ^= 1
    changed.signatures[0].signature = bytes(signature)
    with pytest.raises(headers.CommitError, match="is wrong"):
        headers.verify_commit(history.chain_id, at, history.ids[at], sets[at], changed)
    changed.signatures[0].block_id_flag = headers.ABSENT
    with pytest.raises(headers.CommitError, match="two thirds"):
        headers.verify_commit(history.chain_id, at, history.ids[at], sets[at], changed)


def test_our_signature_of_a_vote_is_the_one_cometbft_made(history: History) -> None:
    """ed25519 is deterministic: the same key and the same sign bytes give the same signature."""
    key = history.keys[0]
    compared = 0
    for at in range(1, history.last):
        commit = history.blocks[at + 1].last_commit
        for signature in commit.signatures:
            if signature.validator_address == key.address and signature.block_id_flag == headers.COMMIT:
                message = headers.vote_sign_bytes(history.chain_id, at, commit.round, history.ids[at], signature.timestamp)
                assert key.sign(message) == signature.signature
                compared += 1
    assert compared == history.last - 1


def test_evidence_that_the_driver_signs_is_accepted_by_cometbft_and_punished(history: History) -> None:
    [at] = [at for at, found in history.evidence_json.items() if found]
    [shown] = history.evidence_json[at]
    assert shown["value"]["vote_a"]["signature"] == base64.b64encode(history.evidence.vote_a.signature).decode()
    told = blocks.misbehavior(history.evidence)
    assert (told.type, told.height, told.total_voting_power) == (blocks.DUPLICATE_VOTE, 2, sum(real_comet.POWERS))
    updates = {one["pub_key"]["Sum"]["value"]["ed25519"]: int(one["power"]) for one in history.results[at]["validator_updates"]}
    assert updates[base64.b64encode(history.keys[3].public_key.raw).decode()] == told.validator.power - 1
