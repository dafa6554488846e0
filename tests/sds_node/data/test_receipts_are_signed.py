"""Sessions, the receipts that they sign, and what a receipt may say of the leaves that were moved."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modules.settlement import leaves
from modules.settlement.documents import Receipt
from sds_node.client.session import Receipts, SessionError, open_session
from sds_node.documents import Refused, signed
from sds_node.merkle import LEAF_BYTES
from sds_node.resource.receipts import leaf_of
from sds_node.resource.service import _left_over
from sds_node.transfers import LeafRun, Moved, Run, WrongReceipt, check_receipt, runs_bytes, runs_of, whole
from tests.sds_node.data.network import Clock
from tests.sds_node.documenting import CHAIN_ID, NOW_S, PAYER, Chain, limit, meta_key
from tests.support import KEYS, text


def test_what_a_session_signs_is_what_the_chain_pays() -> None:
    for wallet in (PAYER, KEYS[5]):
        session = open_session(wallet, CHAIN_ID, max_noz=1_000, actions=[2, 1, 2], clock=Clock())
        assert session.wallet == text(wallet)
        order = signed(limit(7, wallet=session.wallet, session_pubkey=session.public_key), meta_key(1))
        receipts = Receipts(session, order, b"r" * 32)
        leaf = leaf_of(session.evidence(order, receipts.whole(1_000)))
        assert leaves.fault(leaf, CHAIN_ID, Chain().ledger_key) is None
        assert leaf.noz == 1_000


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"actions": []}, "expected actions"),
        ({"actions": [5]}, "expected actions"),
        ({"life_s": 0}, "expected a life"),
        ({"life_s": 86_400}, "expected a life"),
        ({"max_noz": 0}, "noz"),
        ({"max_noz": 1 << 64}, "noz"),
        ({"path_prefix": "ü" * 513}, "a path of at most"),
    ],
)
def test_a_grant_that_the_chain_would_not_take_is_not_signed(changes: dict[str, Any], part: str) -> None:
    with pytest.raises(SessionError, match=part):
        open_session(PAYER, CHAIN_ID, **{"max_noz": 5, "actions": [1], "clock": Clock()} | changes)


def test_receipts_go_on_until_the_final_one_and_stay_within_the_limit() -> None:
    clock = Clock()
    session = open_session(PAYER, CHAIN_ID, max_noz=1_000, actions=[1], clock=clock)
    order = signed(limit(7, session_pubkey=session.public_key, max_bytes=2 * LEAF_BYTES), meta_key(1))
    receipts = Receipts(session, order, b"r" * 32)
    clock.now_s += 7 * 86_400  # this machine's clock is wrong; receipts stay within the limit's times
    receipts.moved.leaves(0, b"h" * 32, LEAF_BYTES)
    first = check_receipt(receipts.so_far(), receipts.limit, None)
    receipts.moved.leaves(1, b"i" * 32, LEAF_BYTES)
    second = check_receipt(receipts.so_far(is_final=True), receipts.limit, first)
    assert (first.bytes_acked, second.bytes_acked, second.is_final) == (LEAF_BYTES, 2 * LEAF_BYTES, True)
    with pytest.raises(SessionError, match="was signed already"):
        receipts.so_far()
    with pytest.raises(WrongReceipt, match="after number 2"):
        check_receipt(signed(first, session.key), receipts.limit, second)
    with pytest.raises(SessionError, match="would not be paid"):
        Receipts(session, order, b"r" * 32).whole(2 * LEAF_BYTES + 1)


def test_times_of_receipts_only_go_on() -> None:
    session = open_session(PAYER, CHAIN_ID, max_noz=1_000, actions=[1], clock=Clock())
    order = signed(limit(7, session_pubkey=session.public_key), meta_key(1))
    receipts = Receipts(session, order, b"r" * 32)
    first = check_receipt(receipts.so_far(), receipts.limit, None)
    for changes in (
        {"first_ms": first.first_ms + 1, "last_ms": first.last_ms + 1},
        {"first_ms": first.first_ms - 1},
        {"last_ms": first.last_ms - 1, "first_ms": first.first_ms - 1},
    ):
        fields = {name.name: value for name, value in first.ListFields()}
        later = Receipt(**fields | {"sequence": 2} | changes)
        with pytest.raises(WrongReceipt, match="go on from"):
            check_receipt(signed(later, session.key), receipts.limit, first)
    assert first.first_ms == NOW_S * 1000


@given(st.lists(st.integers(1, LEAF_BYTES), max_size=40), st.data())
@settings(max_examples=40, deadline=None)
def test_a_receipt_holds_at_the_ends_of_leaves_with_their_digest_and_nowhere_else(sizes: list[int], data: st.DataObject) -> None:
    ours, theirs = Moved(b"r" * 32), Moved(b"r" * 32)
    ends = {0: b"r" * 32}
    for index, size in enumerate(sizes):
        for one in (ours, theirs):
            one.leaves(index, bytes([index]) * 32, size)
        ends[ours.bytes] = ours.digest
    assert theirs.digest == ours.digest
    acked = 0
    for _ in range(5):
        at = data.draw(st.integers(0, ours.bytes + 1) | st.sampled_from(sorted(ends)))
        if at in ends and at >= acked:
            with pytest.raises(WrongReceipt):
                theirs.acknowledge(at, b"w" * 32)
            assert theirs.acknowledge(at, ends[at]) == at - acked
            acked = at
            assert len(theirs.marks) == sum(1 for end in ends if end > acked)
        else:
            with pytest.raises(WrongReceipt):
                theirs.acknowledge(at, ends.get(at, b"w" * 32))


def test_what_an_earlier_stream_lost_has_no_digest() -> None:
    moved = Moved(b"r" * 32)
    moved.leaves(0, b"h" * 64, 2 * LEAF_BYTES)
    moved = _left_over(moved, 7 * LEAF_BYTES)
    with pytest.raises(WrongReceipt, match="ends with a leaf"):
        moved.acknowledge(7 * LEAF_BYTES, moved.digest)
    assert moved.acknowledge(2 * LEAF_BYTES, moved.digest) == 2 * LEAF_BYTES


@given(st.integers(0, 3 << 20), st.lists(st.tuples(st.integers(0, 200), st.integers(0, 200)), max_size=5))
def test_runs_are_taken_when_they_are_ascending_disjoint_and_within_the_share(size: int, given_runs: list[tuple[int, int]]) -> None:
    count = -(-size // LEAF_BYTES)
    numbers = [number for first, leaves_ in given_runs for number in range(first, first + leaves_)]
    is_right = all(leaves_ for _, leaves_ in given_runs) and numbers == sorted(set(numbers)) and all(number < count for number in numbers)
    asked = [LeafRun(first=first, leaves=leaves_) for first, leaves_ in given_runs]
    if is_right:
        runs = runs_of(asked, size)
        assert runs == [Run(*one) for one in given_runs]
        assert runs_bytes(runs, size) == sum(min(LEAF_BYTES, size - number * LEAF_BYTES) for number in numbers)
    else:
        with pytest.raises(Refused):
            runs_of(asked, size)
    assert runs_bytes([whole(size)], size) == size
