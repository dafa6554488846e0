"""The application's pool and its proposals: priority, order, limits to the unit, and what an attacker cannot do with either."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chain.application import Settings
from chain.codec.registry import message_class
from chain.coins import Coin, to_messages
from chain.testing.driver import Driver
from chain.tx.build import Signer, build_tx
from chain.tx.decode import AuthInfo, TxRaw
from chain.tx.pool import Pool, Pooled
from chain.tx.verdicts import Verdicts
from tests.support import CHAIN_ID, FEE, FUNDS_WEI, GAS, KEYS, chain, key, send, text

Check = message_class("tendermint.abci.RequestCheckTx")
FEE_WEI = FEE[0].amount


def app(driver: Driver) -> Any:
    return driver.apps[0]


def recheck(driver: Driver, *txs: bytes) -> list[int]:
    """Codes of the rechecks that follow a block, in CometBFT's order."""
    answers = app(driver).check_txs([Check(tx=raw, type=1) for raw in txs])
    response = message_class("tendermint.abci.ResponseCheckTx")
    return [(response.FromString(one) if isinstance(one, bytes) else one).code for one in answers]


def two_signers(first: int, second: int, sequences: tuple[int, int], *, fee: int = FEE_WEI, amount: int = 5) -> bytes:
    """``first`` and ``second`` send to each other in one transaction; ``first`` pays."""
    messages = [
        message_class("cosmos.bank.v1beta1.MsgSend")(
            from_address=text(KEYS[one]), to_address=text(KEYS[other]), amount=to_messages((Coin("wei", amount),))
        )
        for one, other in ((first, second), (second, first))
    ]
    signers = [Signer(KEYS[one].public_key, sequence, one) for one, sequence in zip((first, second), sequences, strict=True)]
    return build_tx(messages, fee=(Coin("wei", fee),), gas_limit=GAS, signers=signers).sign([KEYS[first], KEYS[second]], CHAIN_ID)


def paid(sender: int, times: int, sequence: int = 0, **options: Any) -> bytes:
    return send(sender, 3 if sender != 3 else 2, sequence=sequence, fee=(Coin("wei", FEE_WEI * times),), **options)


def test_a_transaction_of_two_signers_waits_for_both_and_holds_nobody_up() -> None:
    driver = chain()
    both, later, free = two_signers(2, 4, (0, 0)), paid(4, 9, 1), paid(5, 2)
    for raw in (both, later, free):
        assert driver.check_tx(raw).code == 0
    assert driver.propose() == [free, both], "the best paid one waits for the sequence that `both` uses up"
    driver.next_block([free, both])
    assert recheck(driver, later) == [0]
    assert driver.propose() == [later]


def test_many_first_signers_that_share_a_second_one_cost_no_execution_out_of_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each block takes the one whose turn it is; the others are put off by a look at a sequence, not by running them."""
    driver = chain()
    txs = [two_signers(first, 1, (0, at), fee=FEE_WEI * (1 + at)) for at, first in enumerate((2, 3, 4, 5))]
    for raw in txs:
        assert driver.check_tx(raw).code == 0
    runs: list[bytes] = []
    run = app(driver).executor.run_plain
    monkeypatch.setattr(
        app(driver).executor, "run_plain", lambda state, info, tx, mode, *rest: (runs.append(tx.raw), run(state, info, tx, mode, *rest))[1]
    )
    assert driver.propose() == [txs[0]]
    assert runs == [txs[0]]


def test_of_a_fee_of_several_coins_the_least_amount_is_its_priority() -> None:
    """Else a coin that is worth nothing would buy the first place."""
    driver = chain(denom="ufoo")
    plain, better = send(2, 3), send(5, 3, fee=(Coin("wei", FEE_WEI * 2),))
    padded = send(4, 3, fee=(Coin("ufoo", 10**20), Coin("wei", FEE_WEI * 3 // 2)))
    poor = send(1, 3, fee=(Coin("ufoo", 1), Coin("wei", FEE_WEI * 9)))
    for raw in (poor, plain, padded, better):
        assert driver.check_tx(raw).code == 0
    assert driver.propose() == [better, padded, plain, poor]


def test_what_cometbft_dropped_silently_holds_its_sender_up_no_longer() -> None:
    """A pooled transaction whose sequence another one used up failed in every proposal, and took all of its sender's with it, forever."""
    driver = chain()
    dropped = paid(2, 3)
    assert driver.check_tx(dropped).code == 0
    driver.next_block([send(2, 4)])  # another proposer's block: the same sequence
    assert len(app(driver).pool) == 0
    following = [paid(2, 1, sequence) for sequence in (1, 2)]
    for raw in following:
        assert driver.check_tx(raw).code == 0
    assert driver.propose() == following


def test_a_transaction_that_fails_in_a_proposal_leaves_the_pool() -> None:
    """CometBFT rechecks only as many as its time allows: one that has timed out meanwhile must not be tried again and again."""
    driver = chain()
    late, other = paid(2, 2, timeout_height=driver.height + 1), send(4, 3)
    for raw in (late, other):
        assert driver.check_tx(raw).code == 0
    assert driver.propose() == [late, other]
    driver.next_block()
    assert driver.propose() == [other]
    assert [one.raw for one in app(driver).pool.by_priority()] == [other]


def test_what_cometbft_only_asked_about_is_never_proposed() -> None:
    """``/check_tx`` promises that nothing comes of it, and what a full mempool turns away is not in it."""
    driver = chain()
    asked, held = paid(2, 9), paid(4, 1)
    for raw in (asked, held):
        assert driver.check_tx(raw).code == 0
    del driver.mempool[asked]
    assert driver.propose() == [held]
    for kept in (1, 0):
        driver.next_block()
        driver.recheck()
        assert driver.propose() == [held]
        assert len(app(driver).pool) == 1 + kept, "it goes with the block after the one at which it was not rechecked"
    driver.mempool[asked] = GAS
    driver.next_block()
    driver.recheck()
    assert driver.propose([]) == [asked, held], "what was rechecked is proposed by its fee, though CometBFT gives another part of its mempool"
    driver.next_block()
    assert driver.propose([]) == []


def test_a_recheck_that_passes_brings_back_what_the_pool_let_go() -> None:
    driver = chain()
    raw = send(2, 3)
    assert driver.check_tx(raw).code == 0
    app(driver).pool.used_up(KEYS[2].public_key.address, 0)
    assert driver.propose([]) == []
    driver.next_block()
    assert recheck(driver, raw) == [0]
    assert driver.propose() == [raw]


def test_one_senders_unpayable_transactions_leave_room_for_the_others() -> None:
    driver = chain()
    greedy = [send(2, 3, FUNDS_WEI, sequence=at, fee=(Coin("wei", FEE_WEI * 5),)) for at in range(20)]
    honest = [send(sender, 3) for sender in (4, 5)]
    for raw in (*greedy, *honest):
        assert driver.check_tx(raw).code == 0
    proposal = driver.propose()
    assert proposal[:20] == greedy
    assert set(proposal[20:]) == set(honest)
    results = driver.next_block(proposal).results
    assert [one.code for one in results] == [5] * 20 + [0, 0]
    assert (
        app(driver)._check_state.store("bank").get(b"\x02\x14" + KEYS[2].public_key.address + b"wei") == str(FUNDS_WEI - 20 * 5 * FEE_WEI).encode()
    ), "every failed one paid its fee"


def test_a_block_is_filled_to_the_last_byte_and_the_last_unit_of_gas() -> None:
    driver = chain(consensus={"block": {"max_bytes": "2097152", "max_gas": str(3 * GAS)}})
    txs = [paid(sender, 6 - sender) for sender in (2, 3, 4, 5)]
    for raw in txs:
        assert driver.check_tx(raw).code == 0
    assert driver.propose() == txs[:3], "three gas limits are exactly the block's"
    size = sum(len(raw) + 3 for raw in txs[:2])  # tag, two bytes of length
    assert driver.propose(max_tx_bytes=size) == txs[:2]
    assert driver.propose(max_tx_bytes=size - 1) == txs[:1], "the second does not fit by one byte, and the others are no smaller"
    over = driver.check_tx(send(2, 3, sequence=1, gas=3 * GAS + 1, fee=(Coin("wei", FEE_WEI * 4),)))
    assert (over.codespace, over.code) == ("sdk", 41)
    assert driver.check_tx(send(2, 3, sequence=1, gas=3 * GAS, fee=(Coin("wei", FEE_WEI * 4),))).code == 0


def test_a_proposal_whose_gas_limits_exceed_the_blocks_by_one_is_rejected() -> None:
    driver = chain(consensus={"block": {"max_bytes": "2097152", "max_gas": str(2 * GAS)}})
    request = message_class("tendermint.abci.RequestProcessProposal")
    for gas, accepted in ((GAS, True), (GAS + 1, False)):
        txs = [send(2, 3), send(4, 3, gas=gas, fee=(Coin("wei", FEE_WEI * 2),))]
        assert (app(driver).process_proposal(request(txs=txs, height=2)).status == 1) is accepted


def test_the_block_gas_counts_no_more_of_a_transaction_than_its_limit() -> None:
    """One that ran out of gas has consumed its limit, however much its last step asked for."""
    limit = 90_000
    driver = chain(consensus={"block": {"max_bytes": "2097152", "max_gas": str(limit + 55_000)}})
    message = message_class("cosmos.bank.v1beta1.MsgMultiSend")(
        inputs=[{"address": text(KEYS[2]), "coins": to_messages((Coin("wei", 9),))}],
        outputs=[{"address": text(key(60 + at)), "coins": to_messages((Coin("wei", 1),))} for at in range(9)],
    )
    fee = (Coin("wei", 10**15),)
    raw = build_tx([message], fee=fee, gas_limit=limit, signers=[Signer(KEYS[2].public_key, 0, 2)]).sign([KEYS[2]], CHAIN_ID)
    failed, second = driver.next_block([raw, send(4, 3, gas=55_000, fee=fee)], process=False).results
    assert (failed.code, failed.gas_used > limit) == (11, True)
    assert second.log.startswith("out of gas in location: "), second.log
    assert "no block gas left" not in second.log


@pytest.mark.parametrize("count", [0, 3])
def test_a_full_pool_refuses_with_the_sdks_code_and_takes_again_what_it_knows(count: int) -> None:
    driver = chain(settings=[Settings(pool_txs=count)])
    answers = [driver.check_tx(send(2, 3, sequence=at)) for at in range(5)]
    assert [one.code for one in answers] == ([0] * 5 if count == 0 else [0, 0, 0, 20, 20])
    assert len(app(driver).pool) == count


def pooled(number: int, sender: int, sequence: int, priority: int, size: int = 10) -> Pooled:
    return Pooled(bytes(size), number.to_bytes(4, "big"), bytes([sender]), sequence, priority, 1)


def test_the_pool_is_bounded_by_bytes_too() -> None:
    pool = Pool(max_txs=10, max_bytes=100)
    pool.add(pooled(1, 1, 0, 1, 60))
    assert pool.is_full(41)
    assert not pool.is_full(40)
    pool.add(pooled(1, 1, 0, 1, 60))
    assert not pool.is_full(40), "the same one again is counted once"
    pool.remove(pooled(1, 1, 0, 1).hash)
    assert not pool.is_full(100)


def test_refused_transactions_leave_no_memory_behind() -> None:
    driver = chain()
    remembered = app(driver)._verdicts._txs
    good = send(2, 3)
    assert driver.check_tx(good).code == 0
    kept = len(remembered)
    for number in range(50):
        assert driver.check_tx(send(4, 3, number + 1, key=key(9))).code == 4
        assert driver.check_tx(send(4, 3, number + 1, sequence=7)).code == 32
    assert len(remembered) == kept


def test_what_only_proposals_brought_is_remembered_until_the_next_one_alone() -> None:
    driver = chain()
    remembered = app(driver)._verdicts._txs
    Process = message_class("tendermint.abci.RequestProcessProposal")
    known = send(2, 3)
    assert driver.check_tx(known).code == 0
    before = len(remembered)
    for amount in range(1, 30):
        proposed = [send(4, 3, amount), known, b"what does not decode"]
        app(driver).process_proposal(Process(txs=proposed, height=2))
    assert len(remembered) == before + 1, "the last one proposed; the pool's stays"


def test_the_memory_of_decoded_transactions_is_bounded_by_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chain.tx.verdicts.MAX_BYTES", 2000)
    verdicts = Verdicts(size=1000)
    for number in range(1, 30):
        verdicts.decode(send(2, 3, number))
    assert 0 < sum(len(tx.raw) for tx in verdicts._txs.values()) == verdicts._bytes <= 2000


moves = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(0, 5), st.sampled_from(["add", "add", "add", "remove", "used"])), max_size=40
)


@settings(max_examples=300, deadline=None)
@given(moves)
def test_the_pool_equals_a_plain_model_of_it(steps: list[tuple[int, int, int, str]]) -> None:
    pool, model = Pool(max_txs=100), dict[tuple[bytes, int], Pooled]()
    for number, (sender, sequence, priority, what) in enumerate(steps):
        one = pooled(number, sender, sequence, priority, 1 + number)
        if what == "add":
            pool.add(one)
            model[one.sender, sequence] = one
        elif what == "used":
            pool.used_up(one.sender, sequence)
            model.pop((one.sender, sequence), None)
        elif model:
            victim = list(model.values())[number % len(model)]
            pool.remove(victim.hash)
            del model[victim.sender, victim.sequence]
        assert len(pool) == len(model)
        assert pool._bytes == sum(len(each.raw) for each in model.values())
    order = list(pool.by_priority())
    assert sorted(each.hash for each in order) == sorted(each.hash for each in model.values())
    left = list(model.values())
    for each in order:
        heads = [min((other for other in left if other.sender == sender), key=lambda other: other.sequence) for sender in {o.sender for o in left}]
        assert each in heads, "a sender's own come in sequence"
        assert each.priority == max(head.priority for head in heads), "the best of what may come next"
        left.remove(each)


def test_a_transaction_without_signer_infos_is_left_out_and_the_rest_proposed() -> None:
    driver = chain()
    good, whole = send(2, 1), TxRaw.FromString(send(3, 1))
    bare = AuthInfo.FromString(whole.auth_info_bytes)
    del bare.signer_infos[:]
    whole.auth_info_bytes = bare.SerializeToString()
    assert driver.propose([whole.SerializeToString(), good]) == [good]
