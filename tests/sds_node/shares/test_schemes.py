"""The table of schemes is the protocol's, and every sum of the bill comes out to the last noz."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modules.settlement import params
from sds_node import schemes
from sds_node.schemes import MAX_OBJECT_BYTES, SCHEMES, SEGMENT_BYTES, Scheme

MIB = 1 << 20
TABLE = {  # storage-protocol.md 3.2: nodes → (k, n, repair below, confirmed at) of files from 1 MiB on
    **dict.fromkeys((36, 37, 100, 10_000), (10, 30, 18, 25)),
    **dict.fromkeys((12, 20, 35), (5, 10, 9, 9)),
    **dict.fromkeys((6, 8, 11), (2, 5, 4, 4)),
    **dict.fromkeys((3, 4, 5), (1, 3, 3, 3)),
    2: (1, 2, 2, 2),
    1: (1, 1, 1, 1),
}
any_scheme = st.sampled_from(SCHEMES)
sizes = st.one_of(st.integers(0, 200 * MIB), st.integers(0, 6).map(lambda count: count * SEGMENT_BYTES), st.integers(0, 4_000))
noz = st.one_of(st.integers(0, 2_000), st.integers(0, SEGMENT_BYTES), st.integers(0, 2**128 - 1))


@pytest.mark.parametrize(("nodes", "row"), TABLE.items())
def test_a_file_gets_the_scheme_of_the_table(nodes: int, row: tuple[int, int, int, int]) -> None:
    assert schemes.scheme_for(nodes, MIB) == schemes.scheme_for(nodes, MAX_OBJECT_BYTES) == Scheme(*row)
    small = schemes.scheme_for(nodes, MIB - 1)
    assert small == schemes.scheme_for(nodes, 0)
    assert small == (Scheme(1, 3, 3, 3) if nodes >= 3 else Scheme(*row))


def test_every_scheme_can_be_placed_repaired_and_confirmed() -> None:
    for nodes, scheme in schemes.LARGE:
        assert scheme.n <= nodes
        assert scheme.k <= scheme.repair_below <= scheme.confirmed_at <= scheme.n
        assert scheme.parity == scheme.n - scheme.k
        assert schemes.scheme_of(scheme.k, scheme.n) is scheme


def test_only_schemes_below_three_places_warn() -> None:
    assert [schemes.warning(one) is not None for one in SCHEMES] == [one.n < 3 for one in SCHEMES]
    assert "2 places only and is lost with them" in str(schemes.warning(schemes.TWO_COPIES))
    assert "1 place only and is lost with it" in str(schemes.warning(schemes.ONE_COPY))


def test_a_segment_is_healthy_then_repaired_then_lost() -> None:
    for scheme in SCHEMES:
        for healthy in range(scheme.n + 1):
            lost, repair = schemes.is_lost(scheme, healthy), schemes.needs_repair(scheme, healthy)
            assert (lost, repair) == (healthy < scheme.k, scheme.k <= healthy < scheme.repair_below)
            assert schemes.legacy_replicas(scheme, healthy) == healthy // scheme.k
            assert lost == (schemes.legacy_replicas(scheme, healthy) == 0)


@given(any_scheme, st.integers(0, SEGMENT_BYTES))
@settings(max_examples=200, deadline=None)
def test_shares_hold_their_segment_with_less_than_one_unit_of_padding(scheme: Scheme, segment_bytes: int) -> None:
    size = schemes.share_bytes(scheme, segment_bytes)
    if scheme.k == 1:
        assert size == segment_bytes
    else:
        assert size >= 16
        assert size % 16 == 0
        assert 0 <= scheme.k * size - segment_bytes < scheme.k * 16 or segment_bytes == 0
    assert size <= SEGMENT_BYTES


@given(any_scheme, sizes)
@settings(max_examples=200, deadline=None)
def test_a_bill_is_all_bytes_of_all_shares_of_all_segments(scheme: Scheme, size_bytes: int) -> None:
    segments = [schemes.segment_size(size_bytes, one) for one in range(schemes.segment_count(size_bytes))]
    assert sum(segments) == size_bytes
    assert all(one == SEGMENT_BYTES for one in segments[:-1])
    assert schemes.bill_noz(scheme, size_bytes) == scheme.n * sum(schemes.share_bytes(scheme, one) for one in segments)
    if scheme.k == 1:
        assert schemes.bill_noz(scheme, size_bytes) == scheme.n * size_bytes
    with pytest.raises(schemes.SchemeError, match="no segment"):
        schemes.segment_size(size_bytes, len(segments))


def test_bills_of_known_files_are_these() -> None:
    assert schemes.bill_noz(schemes.TEN_OF_THIRTY, 320_000) == 3 * 320_000
    assert schemes.bill_noz(schemes.FIVE_OF_TEN, 64 * MIB) == 2 * 10 * 6_710_896  # 32 MiB ÷ 5 is 6,710,886.4, padded to 16
    assert schemes.bill_noz(schemes.TWO_OF_FIVE, SEGMENT_BYTES + 1) == 5 * (16 * MIB + 16)
    assert schemes.bill_noz(schemes.THREE_REPLICAS, 1) == 3
    assert schemes.bill_noz(schemes.TEN_OF_THIRTY, 0) == 0
    assert schemes.bill_noz(schemes.ONE_COPY, MAX_OBJECT_BYTES) == MAX_OBJECT_BYTES


@given(st.integers(0, SEGMENT_BYTES), st.integers(0, 10**18))
@settings(max_examples=200, deadline=None)
def test_receipt_and_escrow_of_a_share_are_one_noz_for_each_byte(size_bytes: int, ratio: int) -> None:
    parts = schemes.share_noz(size_bytes, ratio)
    assert parts.receipt_noz + parts.escrow_noz == size_bytes
    assert parts.receipt_noz >= 0
    assert parts.escrow_noz * 10**18 >= size_bytes * ratio  # rounding is the escrow's gain
    half = schemes.share_noz(size_bytes)
    assert half.receipt_noz == size_bytes // 2
    assert schemes.receipt_noz(size_bytes, half.receipt_noz, size_bytes) == half.receipt_noz if size_bytes else half.receipt_noz == 0


@given(noz, st.one_of(st.just(365), st.integers(1, 800)))
@settings(max_examples=60, deadline=None)
def test_all_days_together_release_the_escrow_and_none_more_than_its_part(escrow_noz: int, days: int) -> None:
    released = [schemes.released_noz(escrow_noz, day, days) for day in range(1, days + 1)]
    assert sum(released) == escrow_noz
    assert set(released) <= {escrow_noz // days, -(-escrow_noz // days)}
    left = [escrow_noz - so_far for so_far in itertools.accumulate(released, initial=0)]
    assert left == [schemes.unreleased_noz(escrow_noz, day, days) for day in range(days + 1)]


@given(any_scheme, sizes, st.data())
@settings(max_examples=150, deadline=None)
def test_receipts_escrow_and_refund_of_a_committed_object_are_its_bill(scheme: Scheme, size_bytes: int, data: st.DataObject) -> None:
    count = schemes.segment_count(size_bytes)
    confirmed = data.draw(st.lists(st.integers(scheme.confirmed_at, scheme.n), min_size=count, max_size=count))
    parts = schemes.committed(scheme, size_bytes, confirmed)
    assert parts.receipts_noz + parts.escrow_noz + parts.refunded_noz == schemes.bill_noz(scheme, size_bytes)
    shares = [schemes.share_bytes(scheme, schemes.segment_size(size_bytes, one)) for one in range(count)]
    assert parts.receipts_noz == sum(number * (size // 2) for number, size in zip(confirmed, shares, strict=True))
    assert parts.refunded_noz == sum((scheme.n - number) * size for number, size in zip(confirmed, shares, strict=True))


def test_a_commit_with_too_few_too_many_or_too_short_a_list_of_confirmed_shares_is_refused() -> None:
    scheme, size = schemes.FIVE_OF_TEN, SEGMENT_BYTES + 1
    with pytest.raises(schemes.NotConfirmed, match="segment 1 has 8 confirmed shares and needs 9") as told:
        schemes.committed(scheme, size, [10, 8])
    assert told.value.segment == 1
    for confirmed in ([10, 11], [10], [10, 10, 10], []):
        with pytest.raises(schemes.SchemeError):
            schemes.committed(scheme, size, confirmed)


@given(noz)
def test_a_reservation_that_is_not_used_comes_back_less_a_tenth(uncommitted_noz: int) -> None:
    parts = schemes.returned(uncommitted_noz)
    assert parts.payer_noz + parts.repair_fund_noz == uncommitted_noz
    assert 0 <= 10 * parts.repair_fund_noz - uncommitted_noz < 10
    assert parts.payer_noz >= 0


@given(st.integers(1, 2**70), st.integers(0, 2**100), st.data())
def test_a_receipt_pays_its_part_of_the_limit_rounded_down(max_bytes: int, max_noz: int, data: st.DataObject) -> None:
    acked = data.draw(st.integers(0, max_bytes))
    paid = schemes.receipt_noz(acked, max_noz, max_bytes)
    assert paid * max_bytes <= acked * max_noz < (paid + 1) * max_bytes
    assert schemes.receipt_noz(max_bytes, max_noz, max_bytes) == max_noz


def test_numbers_that_are_none_are_refused_by_name() -> None:
    refused = [
        (lambda: schemes.scheme_for(-1, 5), "eligible nodes"),
        (lambda: schemes.scheme_for(3, -1), "an object has from 0"),
        (lambda: schemes.scheme_for(3, MAX_OBJECT_BYTES + 1), "an object has from 0"),
        (lambda: schemes.scheme_of(4, 8), "10 of 30, 5 of 10"),
        (lambda: schemes.share_bytes(schemes.FIVE_OF_TEN, SEGMENT_BYTES + 1), "a segment has"),
        (lambda: schemes.share_bytes(schemes.ONE_COPY, -1), "a segment has"),
        (lambda: schemes.segment_size(5, -1), "no segment -1"),
        (lambda: schemes.share_noz(SEGMENT_BYTES + 1), "a share has"),
        (lambda: schemes.share_noz(1, 10**18 + 1), "ratio"),
        (lambda: schemes.receipt_noz(2, 5, 1), "order limit's 1 bytes"),
        (lambda: schemes.receipt_noz(0, 5, 0), "at least 1"),
        (lambda: schemes.receipt_noz(1, 2**128, 1), "amount of noz"),
        (lambda: schemes.released_noz(5, 0), "day 0 of 365"),
        (lambda: schemes.released_noz(5, 366), "day 366 of 365"),
        (lambda: schemes.released_noz(5, 1, 3_651), "day 1 of 3651"),
        (lambda: schemes.released_noz(-1, 1), "amount of noz"),
        (lambda: schemes.unreleased_noz(5, -1), "day -1"),
        (lambda: schemes.unreleased_noz(5, 0, 0), "day 0 of 0"),
        (lambda: schemes.returned(-1), "amount of noz"),
    ]
    for call, words in refused:
        with pytest.raises(schemes.SchemeError, match=words):
            call()
    with pytest.raises(schemes.NoNodes, match="no node is eligible"):
        schemes.scheme_for(0, 5)


def test_the_defaults_are_those_of_the_chain() -> None:
    chain = params.default_params()
    assert int(chain.escrow_ratio) == schemes.ESCROW_RATIO_E18
    assert chain.retention_days == schemes.RETENTION_DAYS
    assert params.MAX_RETENTION_DAYS == schemes.MAX_RETENTION_DAYS
