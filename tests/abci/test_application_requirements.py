"""The thirteen requirements of CometBFT's ABCI specification, shown of our application: one test each, named in our own words.

Requirements that speak of all correct processes are shown with applications that differ in everything an operator may choose and in
everything that happened to them before.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chain.app import build_application
from chain.application import Settings
from chain.codec.registry import message_class
from chain.store.kv import MemoryBackend
from chain.testing.driver import Driver
from tests.support import chain, send

PLAIN = Settings(verdict_cache=0, workers=0, fast_sends=False, native_core=False, pool_txs=0)
SENDERS = (1, 2, 3, 4, 5)


def abci(name: str) -> Any:
    return message_class(f"tendermint.abci.{name}")


def check(app: Any, raws: Sequence[bytes], kind: int = 0) -> list[int]:
    """Codes of CheckTx."""
    answers = app.check_txs([abci("RequestCheckTx")(tx=raw, type=kind) for raw in raws])
    return [abci("ResponseCheckTx").FromString(one).code if isinstance(one, bytes) else one.code for one in answers]


def prepare(app: Any, height: int, txs: Sequence[bytes] = (), max_tx_bytes: int = 1 << 20) -> list[bytes]:
    return list(app.prepare_proposal(abci("RequestPrepareProposal")(txs=list(txs), max_tx_bytes=max_tx_bytes, height=height)).txs)


def accepts(app: Any, height: int, txs: Sequence[bytes], **others: Any) -> bool:
    status = app.process_proposal(abci("RequestProcessProposal")(txs=list(txs), height=height, **others)).status
    assert status in (1, 2)
    return bool(status == 1)


def finalize(app: Any, height: int, txs: Sequence[bytes] = (), **others: Any) -> Any:
    answer = app.finalize_block(abci("RequestFinalizeBlock")(txs=list(txs), height=height, **others))
    return abci("ResponseFinalizeBlock").FromString(answer) if isinstance(answer, bytes) else answer


def shown(answer: Any) -> tuple[bytes, list[Any]]:
    """(the state's hash, the transactions' results without their logs)."""
    return answer.app_hash, [(one.code, one.codespace, one.data, one.gas_wanted, one.gas_used, list(one.events)) for one in answer.tx_results]


signed = lru_cache(maxsize=10_000)(send)


@st.composite
def mempools(draw: st.DrawFn) -> list[bytes]:
    """Mostly transactions that fit each other, each sender's in sequence, between failing, repeated, undecodable and expensive ones."""
    sequences = dict.fromkeys(SENDERS, 0)
    found: list[bytes] = []
    for kind, sender, memo in draw(st.lists(st.tuples(st.integers(0, 11), st.sampled_from(SENDERS), st.sampled_from([0, 1, 120])), max_size=24)):
        sequence = sequences[sender]
        if kind == 0:
            found.append(bytes([sender, memo]) * sender)
        elif kind == 1:
            found.append(signed(sender, 1, sequence=sequence + 2))
        elif kind == 2:
            found.append(signed(sender, 1, sequence=sequence, gas=20_000))
        elif kind == 3 and found:
            found.append(found[-1])
        else:
            sequences[sender] += 1
            found.append(signed(sender, 1, sequence=sequence, gas=120_000 if kind < 8 else 200_000, memo="m" * memo))
    return found


def test_1_preparing_a_proposal_runs_no_more_than_what_may_get_into_the_block() -> None:
    """So its time is bounded by the block, which TimeoutPropose is chosen for, and not by the mempool."""
    driver = chain()
    app: Any = driver.apps[0]
    pooled = [send(sender, 1, sequence=sequence) for sequence in range(30) for sender in SENDERS]
    assert set(check(app, pooled)) == {0}
    runs = []
    original = app.executor.run
    app.executor.run = lambda *arguments: runs.append(1) or original(*arguments)
    chosen = prepare(app, 2, pooled, max_tx_bytes=10 * (len(pooled[0]) + 3))
    assert 8 <= len(chosen) <= 10
    assert len(runs) <= len(chosen) + len(SENDERS)


@settings(max_examples=15, deadline=None)
@given(mempools(), mempools())
def test_2_a_prepared_proposal_fits_into_the_bytes_that_are_given(pooled: list[bytes], given_txs: list[bytes]) -> None:
    app: Any = chain().apps[0]
    check(app, pooled)
    sizes = [len(raw) for raw in prepare(app, 2, given_txs)]
    # Around every size at which one more could seem to fit: with and without the tag and length that each takes in a block.
    for count in range(len(sizes) + 1):
        for max_tx_bytes in (sum(sizes[:count]), sum(sizes[:count]) + 3 * count - 1, sum(sizes[:count]) + 3 * count):
            chosen = prepare(app, 2, given_txs, max(max_tx_bytes, 0))
            assert message_class("tendermint.types.Data")(txs=chosen).ByteSize() <= max(max_tx_bytes, 0)
            assert len(set(chosen)) == len(chosen)


@settings(max_examples=15, deadline=None)
@given(mempools(), mempools(), st.sampled_from(["-1", "250000", "500000"]), st.integers(200, 9000))
def test_3_what_one_application_prepares_every_other_accepts(pooled: list[bytes], given_txs: list[bytes], max_gas: str, max_tx_bytes: int) -> None:
    driver = chain(
        3, settings=[Settings(), PLAIN, Settings(min_gas_prices="9stos")], consensus={"block": {"max_bytes": "100000", "max_gas": max_gas}}
    )
    proposer: Any = driver.apps[0]
    check(proposer, pooled)
    chosen = prepare(proposer, 2, given_txs, max_tx_bytes)
    assert [accepts(app, 2, chosen) for app in driver.apps] == [True] * 3
    assert [one.code for one in driver.next_block(chosen).results] == [0] * len(chosen), "and nothing of it fails in its block"


@settings(max_examples=12, deadline=None)
@given(mempools(), st.lists(mempools(), max_size=3), mempools())
def test_4_acceptance_depends_on_the_block_and_the_state_alone(block: list[bytes], others: list[list[bytes]], pooled: list[bytes]) -> None:
    app: Any = chain().apps[0]
    first = accepts(app, 2, block)
    check(app, pooled)
    for other in others:
        accepts(app, 2, other)
        prepare(app, 2, other)
    assert accepts(app, 2, block) == first
    assert accepts(chain(settings=[PLAIN]).apps[0], 2, block) == first


@settings(max_examples=12, deadline=None)
@given(st.lists(mempools(), min_size=1, max_size=4))
def test_5_two_applications_accept_the_same_blocks(proposals: list[list[bytes]]) -> None:
    driver = chain(2, settings=[Settings(), PLAIN], consensus={"block": {"max_bytes": "100000", "max_gas": "500000"}})
    for at, block in enumerate(proposals):
        check(driver.apps[0], block[:at])
        driver.process(block)  # raises Disagreement


def test_6_the_vote_extension_of_every_application_is_accepted_by_every_other() -> None:
    driver = chain(2, settings=[Settings(), PLAIN], consensus={"abci": {"vote_extensions_enable_height": "2"}})
    driver.check_tx(send(2, 3))
    for _ in range(3):
        driver.next_height()
    said = [app.extend_vote(abci("RequestExtendVote")(height=5, hash=b"h")).vote_extension for app in driver.apps]
    for app in driver.apps:
        for extension in said:
            assert verdict(app, extension) == 1


def verdict(app: Any, extension: bytes, block: bytes = b"h") -> int:
    request = abci("RequestVerifyVoteExtension")(hash=block, validator_address=bytes(20), height=5, vote_extension=extension)
    return int(app.verify_vote_extension(request).status)


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=200), st.lists(st.binary(max_size=50), max_size=5))
def test_7_the_verdict_on_a_vote_extension_depends_on_it_the_block_and_the_state_alone(extension: bytes, others: list[bytes]) -> None:
    app = DRIVER.apps[0]
    first = verdict(app, extension)
    for other in others:
        verdict(app, other)
        app.extend_vote(abci("RequestExtendVote")(height=5, hash=other))
    check(app, others)
    assert verdict(app, extension) == first
    assert first == (2 if extension else 1), "this chain uses none: only the empty one is right"


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=200), st.binary(max_size=32))
def test_8_two_applications_give_the_same_verdict_on_any_vote_extension(extension: bytes, block: bytes) -> None:
    assert verdict(DRIVER.apps[0], extension, block) == verdict(DRIVER.apps[1], extension, block)


DRIVER: Driver = chain(2, settings=[Settings(), PLAIN])


def test_9_no_call_before_the_decision_changes_the_state() -> None:
    driver = chain(2)
    asked: Any = driver.apps[0]
    txs = [send(2, 3), send(3, 4, sequence=7), b"\x00"]
    for height in range(2, 6):
        before = [asked.store.app_hash, asked.export()]
        check(asked, txs)
        for round_ in range(3):
            prepare(asked, height, txs)
            accepts(asked, height, txs[:round_])
            asked.extend_vote(abci("RequestExtendVote")(height=height, txs=txs, hash=bytes([round_])))
            verdict(asked, bytes([round_]))
        assert [asked.store.app_hash, asked.export()] == before
        driver.next_block([send(2, 3, sequence=height - 2)], process=False)  # raises Disagreement with the one that was not asked


def test_10_the_state_does_not_depend_on_vote_extensions() -> None:
    driver = chain(2)
    for height in range(2, 5):
        for at in range(5):
            verdict(driver.apps[0], bytes([at]) * at, bytes(32))
        driver.apps[0].extend_vote(abci("RequestExtendVote")(height=height, hash=b"x"))
        driver.next_block([send(2, 3, sequence=height - 2)])


def two_pasts() -> list[Any]:
    """Applications in the same state at block 1 that differ in what they went through and how they are set."""
    kv = MemoryBackend()
    driver = chain(3, settings=[Settings(), PLAIN, Settings(workers=2, verdict_cache=2)], kvs=[kv, MemoryBackend(), MemoryBackend()])
    first: Any = driver.apps[0]
    restarted = build_application(kv, Settings())
    lively: Any = driver.apps[2]
    check(lively, [send(2, 3), send(4, 3, 10**30), b"\x01"])
    prepare(lively, 2)
    # CometBFT may die between FinalizeBlock and Commit, and another block be decided by the time it is back.
    finalize(lively, 2, [send(5, 4), send(3, 2)], time={"seconds": 1_800_000_000})
    del first
    return [restarted, driver.apps[1], lively]


BLOCK = [send(2, 3), send(2, 3), send(4, 3, 10**30), b"\x01", send(3, 5, gas=75_000), send(5, 2, sequence=4)]


def test_11_the_next_state_depends_on_the_last_state_and_the_block_alone() -> None:
    hashes = set()
    for app in two_pasts():
        for height, txs in ((2, BLOCK), (3, []), (4, [send(2, 3, sequence=1)])):
            answer = finalize(app, height, txs, time={"seconds": 1_790_000_000 + height})
            app.commit(abci("RequestCommit")())
        hashes.add(answer.app_hash)
    assert len(hashes) == 1


def test_12_the_results_depend_on_the_last_state_and_the_block_alone() -> None:
    results = [shown(finalize(app, 2, BLOCK, time={"seconds": 1_790_000_000})) for app in two_pasts()]
    assert results[1:] == results[:-1]
    assert [one[0] for one in results[0][1]] == [0, 32, 5, 2, 11, 32]
    again: Any = chain().apps[0]
    twice = [shown(finalize(again, 2, BLOCK, time={"seconds": 1_790_000_000})) for _ in range(2)]
    assert twice[0] == twice[1], "asked again after CometBFT's restart, it answers the same"


def test_13_from_some_height_on_check_tx_gives_a_transaction_one_verdict() -> None:
    driver = chain(2, settings=[Settings(), PLAIN])
    good, later, never = send(2, 3), send(4, 5, sequence=1), send(5, 4, chain_id="another-1")
    expired, garbage = send(5, 4, timeout_height=3), b"\xff\xff"
    assert [driver.check_tx(raw).code for raw in (good, later, never, garbage)] == [0, 32, 4, 2]
    driver.next_block([good, send(4, 5)])
    verdicts = []
    for _ in range(4):
        verdicts.append([driver.check_tx(raw).code for raw in (good, later, never, expired, garbage)])
        driver.recheck()
        driver.next_block()
    assert verdicts[1:] == [[32, 0, 4, 30, 2]] * 3
    assert verdicts[0] == [32, 0, 4, 0, 2]


@pytest.mark.parametrize("max_gas", ["-1", "400000"])
def test_a_proposal_of_a_busy_mempool_is_accepted_and_executes_whole(max_gas: str) -> None:
    driver = chain(2, settings=[Settings(), PLAIN], consensus={"block": {"max_bytes": "5000", "max_gas": max_gas}})
    for sequence in range(6):
        for sender in SENDERS:
            assert driver.check_tx(send(sender, 1, sequence=sequence)).code == 0
    included = 0
    for _ in range(20):
        result = driver.next_height()  # raises DriverError where one rejects what the other prepared
        assert {one.code for one in result.results} <= {0}
        included += len(result.txs)
        if not driver.mempool:
            break
    assert included == 6 * len(SENDERS)
