"""The consensus driver: headers that chain, validators and time under control, evidence, rounds, and applications that die."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from chain.app import build_application
from chain.application import Settings
from chain.light import headers
from chain.light.validators import Validator, ValidatorError, ValidatorSet
from chain.store.kv import MemoryBackend
from chain.testing import blocks
from chain.testing.driver import Disagreement, Driver, DriverError
from chain.testing.remote import ApplicationFailed, ApplicationProcess, RemoteApplication
from tests.abci.toy import KEYS, Toy, driven, update
from tests.support import chain, genesis_document, send


def test_headers_chain_and_every_commit_verifies() -> None:
    toy = Toy()
    driver = driven(toy, initial_height=5)
    for at in range(6):
        driver.next_block([bytes([at])], absent=[3] if at else [], nil=[2] if at == 4 else [])
    assert sorted(driver.blocks) == list(range(5, 11))
    for height in range(5, 11):
        stored = driver.blocks[height]
        header = stored.block.header
        assert headers.header_hash(header) == stored.id.hash == stored.request.hash
        assert (header.version.block, header.version.app, header.validators_hash) == (11, 3, stored.validators.hash())
        if height > 5:
            before = driver.blocks[height - 1]
            assert header.last_block_id == before.id
            assert header.app_hash == before.response.app_hash
            assert header.last_results_hash == blocks.results_hash(before.response.tx_results)
            assert header.validators_hash == before.block.header.next_validators_hash
    for height in (10, 6):
        headers.verify_commit("toy-1", height, driver.blocks[height].id, driver.blocks[height].validators, driver.commit_of(height))
    few = driver.commit_of(8)
    with pytest.raises(headers.CommitError, match="power 40 of 100"):
        # of 40, 30, 20 and 10 the last is absent, the third voted nil, and now the second is absent, too
        headers.verify_commit("toy-1", 8, driver.blocks[8].id, driver.blocks[8].validators, strike(few, 1))


def strike(commit: Any, at: int) -> Any:
    """The commit with one more validator absent."""
    found = headers.types("Commit")()
    found.CopyFrom(commit)
    found.signatures[at].block_id_flag = headers.ABSENT
    return found


def test_the_first_block_has_the_genesis_time_and_votes_carry_the_time_of_the_next() -> None:
    driver = driven(Toy())
    start = driver.time_ns
    times = [driver.next_block(time_step_s=step).time_ns - start for step in (None, None, 60, 0)]
    assert times == [0, 5 * headers.NANOS, 65 * headers.NANOS, 65 * headers.NANOS]
    assert {headers.time_ns_of(one.timestamp) - start for one in driver.blocks[3].block.last_commit.signatures} == {65 * headers.NANOS}


def test_absent_and_nil_votes_reach_the_application_with_address_and_power() -> None:
    toy = Toy()
    driver = driven(toy)
    driver.next_block()
    driver.next_block(absent=[3], nil=[1])
    first, second = toy.of("finalize_block")
    assert list(first.decided_last_commit.votes) == []
    votes = [(vote.validator.address, vote.validator.power, vote.block_id_flag) for vote in second.decided_last_commit.votes]
    by_power = [(KEYS[3], 40, 2), (KEYS[2], 30, 3), (KEYS[1], 20, 2), (KEYS[0], 10, 1)]
    assert votes == [(key.address, power, flag) for key, power, flag in by_power]
    assert second.proposer_address in {key.address for key in KEYS}


def test_validator_updates_vote_two_blocks_later_and_propose_by_their_power() -> None:
    toy = Toy(powers=(10,))
    toy.script["finalize_block", 2] = lambda response: response.validator_updates.extend([update(KEYS[4], 30), update(KEYS[0], 20)])
    toy.script["finalize_block", 30] = lambda response: response.validator_updates.append(update(KEYS[0], 0))
    driver = driven(toy)
    for _ in range(40):
        driver.next_block()
    members = {height: [one.power for one in stored.validators] for height, stored in driver.blocks.items()}
    assert [members[height] for height in (2, 3, 4, 31, 32)] == [[10], [10], [30, 20], [30, 20], [30]]
    voters = {request.height: len(request.decided_last_commit.votes) for request in toy.of("finalize_block")}
    assert [voters[height] for height in (4, 5, 32, 33)] == [1, 2, 2, 1]
    turns = Counter(bytes(driver.blocks[height].block.header.proposer_address) for height in range(7, 32))
    assert turns == {KEYS[4].address: 15, KEYS[0].address: 10}


@pytest.mark.parametrize(
    ("updates", "match"),
    [
        ([(0, 0)], "no validator would be left"),
        ([(1, 5), (1, 6)], "two updates in one block"),
        ([(1, -1)], "negative power"),
        ([(2, 0)], "is not in the set"),
        ([(1, 2**62)], "CometBFT allows"),
    ],
)
def test_validator_updates_at_which_cometbft_would_stop_are_refused(updates: list[tuple[int, int]], match: str) -> None:
    toy = Toy(powers=(10,))
    toy.script["finalize_block", 1] = lambda response: response.validator_updates.extend(update(KEYS[at], power) for at, power in updates)
    with pytest.raises(ValidatorError, match=match):
        driven(toy).next_block()


def test_parameter_updates_hold_from_the_next_block() -> None:
    toy = Toy()

    def change(response: Any) -> None:
        response.consensus_param_updates.block.max_bytes, response.consensus_param_updates.block.max_gas = 5_000, 30
        response.consensus_param_updates.version.app = 4

    toy.script["finalize_block", 1] = change
    driver = driven(toy)
    for at in range(5):
        driver.check_tx(bytes([at]) * 1_000)
    driver.next_block()
    driver.next_height()
    prepare = toy.of("prepare_proposal")[0]
    assert prepare.max_tx_bytes == 5_000 - 11 - 626 - 94 - 4 * 111
    assert len(prepare.txs) == 3, "gas 30 holds three of 10"
    headers = [driver.blocks[height].block.header for height in (1, 2)]
    assert [header.version.app for header in headers] == [3, 4]
    assert headers[0].consensus_hash != headers[1].consensus_hash


def test_evidence_is_signed_hashed_and_told_to_every_call_of_the_block() -> None:
    toy = Toy()
    driver = driven(toy)
    for _ in range(4):
        driver.next_block()
    evidence = driver.duplicate_vote(1, height=2)
    at_height_2 = driver.blocks[2]
    driver.next_height(evidence=[evidence])
    accused = at_height_2.validators[1]
    for vote in (evidence.vote_a, evidence.vote_b):
        message = headers.vote_sign_bytes("toy-1", 2, 0, vote.block_id, vote.timestamp)
        assert accused.public_key.verify(message, vote.signature)
    assert evidence.vote_a.block_id.hash < evidence.vote_b.block_id.hash
    assert driver.blocks[5].block.header.evidence_hash == blocks.evidence_hash([evidence])
    for kind in ("prepare_proposal", "process_proposal", "finalize_block"):
        [told] = toy.of(kind)[-1].misbehavior
        assert (told.type, told.height, told.total_voting_power) == (1, 2, 100)
        assert (told.validator.address, told.validator.power) == (accused.address, accused.power)
        assert headers.time_ns_of(told.time) == at_height_2.time_ns


def test_rounds_that_fail_are_processed_and_not_decided() -> None:
    toys = [Toy(), Toy()]
    driver = driven(*toys)
    driver.next_block()
    driver.check_tx(b"tx")
    result = driver.next_height(failed_rounds=[[b"other"], None])
    assert result.txs == (b"tx",)
    for toy in toys:
        proposals = [request for request in toy.of("process_proposal") if request.height == 2]
        assert [list(request.txs) for request in proposals] == [[b"other"], [b"tx"], [b"tx"]]
        assert len({request.proposer_address for request in proposals}) == 3, "another proposer every round"
    driver.next_block()
    assert toys[0].of("finalize_block")[-1].decided_last_commit.round == 2


def test_vote_extensions_are_asked_verified_and_given_to_the_next_proposer_signed() -> None:
    toys = [Toy(extension=b"zero"), Toy(extension=b"one")]
    driver = driven(*toys, extensions_from=2)
    for _ in range(3):
        driver.next_height()
    assert [len(toy.of("extend_vote")) for toy in toys] == [2, 2]
    assert sorted(request.vote_extension for request in toys[0].of("verify_vote_extension") if request.height == 2) == [b"one", b"zero", b"zero"]
    given = [request for toy in toys for request in toy.of("prepare_proposal")]
    by_height = {request.height: request.local_last_commit.votes for request in given}
    assert [vote.vote_extension for vote in by_height[2]] == [b""] * 4
    for vote, stored in zip(by_height[3], driver.blocks[2].validators, strict=True):
        message = blocks.extension_sign_bytes("toy-1", 2, 0, vote.vote_extension)
        assert stored.public_key.verify(message, vote.extension_signature)
    assert [vote.vote_extension for vote in by_height[3]] == [b"zero", b"one", b"zero", b"zero"]


def test_rechecks_drop_what_no_longer_passes() -> None:
    toy = Toy()
    driver = driven(toy)
    assert driver.check_tx(b"bad one").code == 1
    for raw in (b"a", b"b"):
        driver.check_tx(raw)
    assert list(driver.mempool) == [b"a", b"b"]
    toy.check_txs = lambda requests: [toy._answer("check_tx", "CheckTx", one, code=int(one.tx == b"b")) for one in requests]  # type: ignore[method-assign]
    toy.script["prepare_proposal", 1] = lambda response: response.ClearField("txs")
    driver.next_height()
    assert list(driver.mempool) == [b"a"]
    assert [request.type for request in toy.of("check_tx")] == [0, 0, 0, 1, 1]


@pytest.mark.parametrize(
    ("kind", "change", "field"),
    [
        ("finalize_block", lambda response: setattr(response, "app_hash", b"x"), "app_hash"),
        ("finalize_block", lambda response: setattr(response.tx_results[1], "gas_used", 1), "gas_used of transaction 1"),
        ("finalize_block", lambda response: response.tx_results[0].events.add(type="e"), "events of transaction 0"),
        ("finalize_block", lambda response: response.validator_updates.append(update(KEYS[5], 1)), "validator_updates"),
        ("finalize_block", lambda response: setattr(response.consensus_param_updates.version, "app", 9), "consensus_param_updates"),
        ("process_proposal", lambda response: setattr(response, "status", 2), "ProcessProposal"),
    ],
)
def test_a_disagreement_names_block_and_field(kind: str, change: Any, field: str) -> None:
    toys = [Toy(), Toy()]
    driver = driven(*toys)
    driver.next_block()
    toys[1].script[kind, 2] = change
    with pytest.raises(Disagreement) as caught:
        driver.next_block([b"a", b"b"])
    assert (caught.value.height, caught.value.field) == (2, field)


def test_logs_alone_may_differ() -> None:
    toys = [Toy(), Toy()]
    driver = driven(*toys)
    toys[1].script["finalize_block", 1] = lambda response: setattr(response.tx_results[0], "log", "in other words")
    driver.next_block([b"a"])


def test_a_proposal_that_is_too_big_or_rejected_by_another_is_an_error() -> None:
    toys = [Toy(), Toy()]
    driver = driven(*toys, max_bytes=3_000)
    toys[0].script["prepare_proposal", 1] = toys[1].script["prepare_proposal", 1] = lambda response: response.txs.append(bytes(2_000))
    with pytest.raises(DriverError, match="CometBFT would stop"):
        driver.next_height()
    for toy in toys:
        toy.script = {("process_proposal", 1): lambda response: setattr(response, "status", 2)}
    with pytest.raises(DriverError, match="rejects what PrepareProposal made"):
        driver.next_height()


def test_a_restarted_application_gets_the_blocks_it_lacks_and_no_others() -> None:
    driver = driven(Toy(), Toy())
    for at in range(6):
        driver.next_block([bytes([at])])
    behind, empty = Toy(), Toy()
    behind.height, behind.state = 4, driver.blocks[4].response.app_hash
    driver.apps = [behind, empty]  # type: ignore[list-item]
    assert (driver.handshake(0), driver.handshake(1)) == (2, 6)
    assert [kind for kind, _ in behind.asked] == ["info", *["finalize_block", "commit"] * 2]
    assert [kind for kind, _ in empty.asked] == ["info", "init_chain", *["finalize_block", "commit"] * 6]
    driver.next_block()
    behind.state = b"something else"
    with pytest.raises(DriverError, match="came back at block 7"):
        driver.handshake(0)
    behind.height = 20
    with pytest.raises(DriverError, match="another chain"):
        driver.handshake(0)


def test_a_block_store_that_is_bounded_says_so() -> None:
    driver = driven(Toy())
    driver.keep_blocks = 3
    for _ in range(6):
        driver.next_block()
    assert sorted(driver.blocks) == [4, 5, 6]
    driver.apps = [Toy()]  # type: ignore[list-item]
    with pytest.raises(DriverError, match="keep_blocks is 3"):
        driver.handshake(0)


def test_a_set_of_one_validator_turns_to_itself() -> None:
    alone = ValidatorSet.of([Validator("ed25519", KEYS[0].public_key.raw, 7)])
    assert alone.advanced(5).proposer.address == KEYS[0].address


# --- over sockets -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[list[ApplicationProcess]]:
    with ExitStack() as stack:
        found = []
        for at in range(2):
            (tmp_path / f"{at}").mkdir()
            process = ApplicationProcess.serve(tmp_path / f"{at}", settings={"native_core": at == 0})
            stack.callback(process.close)
            stack.callback(process.kill)
            found.append(process)
        yield found


def over(apps: list[Any]) -> Driver:
    driver = Driver(apps, genesis_document(chain(blocks=0).apps[0]))  # type: ignore[arg-type]
    driver.start()
    return driver


@pytest.mark.timeout(180)
def test_processes_killed_before_any_call_catch_up_and_agree(processes: list[ApplicationProcess]) -> None:
    """One application stays in process; the others die by SIGKILL before a call of each kind, one after the other."""
    driver = over([build_application(MemoryBackend(), Settings()), *processes])
    driver.next_height()
    kinds = ["check_txs", "prepare_proposal", "process_proposal", "finalize_block", "commit"]
    killed: list[str] = []

    def kill(at: int, kind: str) -> None:
        # The victim of "commit" dies after its FinalizeBlock; that of "prepare_proposal" is killed though another one proposes.
        if kinds and kind == kinds[0] and at == 0:
            killed.append(kinds.pop(0))
            processes[len(killed) % 2].kill()

    driver.before_call = kill
    for sequence in range(8):
        assert driver.check_tx(send(2, 3, sequence=sequence)).code == 0
        result = driver.next_height(failed_rounds=[None] if sequence % 3 == 0 else [])
        assert [one.code for one in result.results] == [0]
    assert (len(killed), driver.restarts) == (5, 5)
    assert not driver.mempool
    for process in processes:
        assert process.process is not None
        assert process.stop() == 0


@pytest.mark.timeout(120)
def test_one_process_that_died_after_its_commit_was_written_is_not_told_the_block_again(processes: list[ApplicationProcess]) -> None:
    driver = over([*processes])
    driver.next_block([send(2, 3)])
    victim = processes[1]
    original, answered = victim.commit, []

    def commit_and_die(request: Any) -> Any:
        victim.commit = original  # type: ignore[method-assign]
        answered.append(original(request))
        victim.kill()
        return original(request)

    victim.commit = commit_and_die  # type: ignore[method-assign]
    driver.next_block([send(2, 3, sequence=1)])
    assert (len(answered), driver.restarts) == (1, 1)
    assert driver.next_block([send(2, 3, sequence=2)]).results[0].code == 0


@pytest.mark.timeout(60)
def test_a_call_that_cometbft_would_stop_at_raises(processes: list[ApplicationProcess]) -> None:
    driver = over([processes[0]])
    driver.next_block()
    remote = RemoteApplication(processes[0].address)
    assert remote.echo("hello") == "hello"
    with pytest.raises(ApplicationFailed, match="the next block is 2, CometBFT sent 9"):
        remote.finalize_block(blocks.message_class("tendermint.abci.RequestFinalizeBlock")(height=9))
    remote.close()
    assert processes[0].process is not None
    assert processes[0].process.wait(20) == 1
