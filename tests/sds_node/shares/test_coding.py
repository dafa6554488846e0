"""Shares are what ADR 7's formula says, any k of them give the segment back, and whatever does not fit is refused by name.

The oracle below knows the ADR alone: no table, header or line of the code under test. What it encodes and decodes, any other implementation can.
"""

from __future__ import annotations

import itertools
import random
import threading
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyeclib.ec_iface import ECDriver

from sds_node import coding, merkle, schemes
from sds_node.coding import COLUMN_BYTES, Slice
from sds_node.schemes import FIVE_OF_TEN, SCHEMES, SEGMENT_BYTES, TEN_OF_THIRTY, THREE_REPLICAS, TWO_OF_FIVE, Scheme

CODED = [one for one in SCHEMES if one.k > 1]
OTHERS = [Scheme(2, 3, 2, 2), Scheme(4, 6, 5, 5), Scheme(10, 20, 15, 15), Scheme(16, 32, 22, 22), Scheme(32, 64, 40, 40), Scheme(32, 33, 32, 32)]


def times(left: int, right: int) -> int:
    """Product in GF(2^8) with the polynomial x^8 + x^4 + x^3 + x^2 + 1."""
    product = 0
    while right:
        if right & 1:
            product ^= left
        left <<= 1
        if left & 0x100:
            left ^= 0x11D
        right >>= 1
    return product


@cache
def inverse(value: int) -> int:
    return next(other for other in range(1, 256) if times(value, other) == 1)


@cache
def multiples(factor: int) -> bytes:
    return bytes(times(factor, value) for value in range(256))


def weighted_sum(factors: list[int], rows: list[bytes]) -> bytes:
    total = 0
    for factor, row in zip(factors, rows, strict=True):
        total ^= int.from_bytes(row.translate(multiples(factor)))
    return total.to_bytes(len(rows[0]))


def matrix_row(index: int, k: int) -> list[int]:
    return [int(index == column) for column in range(k)] if index < k else [inverse(index ^ column) for column in range(k)]


def oracle_encode(k: int, n: int, segment: bytes) -> list[bytes]:
    units = max(1, -(-len(segment) // (k * 16)))
    padded = segment.ljust(units * k * 16, b"\x00")
    pieces = [padded[at : at + units * 16] for at in range(0, len(padded), units * 16)]
    return [weighted_sum(matrix_row(index, k), pieces) for index in range(n)]


def oracle_decode(k: int, segment_bytes: int, shares: dict[int, bytes]) -> bytes:
    """Gauss and Jordan over the rows of exactly k shares."""
    system = [(matrix_row(index, k), share) for index, share in shares.items()]
    for column in range(k):
        at = next(row for row in range(column, k) if system[row][0][column])
        system[column], system[at] = system[at], system[column]
        factor = inverse(system[column][0][column])
        pivot, value = [times(factor, one) for one in system[column][0]], system[column][1].translate(multiples(factor))
        system[column] = (pivot, value)
        for row in range(k):
            factor = system[row][0][column]
            if row != column and factor:
                changed = [one ^ times(factor, other) for one, other in zip(system[row][0], pivot, strict=True)]
                system[row] = (changed, weighted_sum([1, factor], [system[row][1], value]))
    return b"".join(value for _, value in system)[:segment_bytes]


def content(size_bytes: int, seed: int = 3) -> bytes:
    return random.Random(seed).randbytes(size_bytes)


def lengths_of(scheme: Scheme) -> list[int]:
    unit = scheme.k * 16
    column = scheme.k * COLUMN_BYTES
    return [0, 1, 15, unit - 1, unit, unit + 1, 3 * unit + 7, column - 1, column, column + 1, 2 * column + 5 * unit + 3]


@pytest.mark.parametrize("scheme", CODED + OTHERS, ids=lambda one: f"{one.k} of {one.n}")
def test_shares_are_those_of_the_formula_at_every_length(scheme: Scheme) -> None:
    for length in lengths_of(scheme)[: None if scheme.n <= 30 else 9]:
        segment = content(length)
        shares = coding.encode(scheme, segment)
        assert [bytes(one) for one in shares] == oracle_encode(scheme.k, scheme.n, segment)
        assert {len(one) for one in shares} == {schemes.share_bytes(scheme, length)}


@pytest.mark.parametrize("scheme", CODED + OTHERS, ids=lambda one: f"{one.k} of {one.n}")
@pytest.mark.parametrize("is_native", [True, False])
def test_any_slices_of_the_added_shares_are_written_into_place_with_and_without_isa_l(
    scheme: Scheme, is_native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not is_native:
        monkeypatch.setattr(coding, "_isal", lambda: None)
    coding._made.cache_clear()
    assert (coding._made(scheme.k, scheme.n).tables is not None) == is_native
    size = COLUMN_BYTES + 5 * 16
    own = [memoryview(content(size, index)) for index in range(scheme.k)]
    expected = oracle_encode(scheme.k, scheme.n, b"".join(own))[scheme.k :]
    for cuts in ([0, size], [0, 16, 48, 64, 80, 1_024, 1_040, COLUMN_BYTES, size], [32, 96]):
        made = [bytearray(b"\x55" * (size + 16)) for _ in expected]
        for start, stop in itertools.pairwise(cuts):
            coding.add_shares(scheme, own, [memoryview(one) for one in made], start, stop)
        blank = b"\x55" * size
        whole = [blank[: cuts[0]] + one[cuts[0] : cuts[-1]] + blank[cuts[-1] :] + blank[:16] for one in expected]
        assert made == whole
    monkeypatch.undo()
    coding._made.cache_clear()


def test_slices_that_do_not_fit_are_refused_before_anything_is_written() -> None:
    def views(count: int, size: int = 64) -> list[memoryview]:
        return [memoryview(bytearray(size)) for _ in range(count)]

    for own, added, start, stop in (
        (views(4), views(5), 0, 64),
        (views(5), views(4), 0, 64),
        (views(5), views(4) + views(1, 48), 0, 64),
        (views(4) + views(1, 48), views(5), 0, 64),
        (views(5), views(5), 0, 80),
        (views(5), views(5), 32, 16),
        (views(5), views(5), -16, 16),
        (views(5), views(5), 0, 40),
    ):
        with pytest.raises(coding.WrongLength):
            coding.add_shares(FIVE_OF_TEN, own, added, start, stop)
    coding.add_shares(FIVE_OF_TEN, views(5), views(5), 16, 16)


def test_an_isa_l_that_computes_other_shares_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    class Other:
        def __getattr__(self, name: str) -> Any:
            return getattr(right, name)

        def ec_encode_data(self, size: int, own: int, rows: int, tables: Any, data: Any, added: Any) -> None:
            right.ec_encode_data(size, own, rows, tables, data, added)
            if size > 64:
                added[rows - 1][size - 1] ^= 1

    right: Any = coding._isal()
    assert right is not None
    coding._made.cache_clear()
    monkeypatch.setattr(coding, "_isal", Other)
    segment = content(70_000)
    assert [bytes(one) for one in coding.encode(FIVE_OF_TEN, segment)] == oracle_encode(5, 10, segment)
    monkeypatch.undo()
    coding._made.cache_clear()


@pytest.mark.parametrize("scheme", CODED + OTHERS, ids=lambda one: f"{one.k} of {one.n}")
def test_another_implementation_decodes_our_shares_and_we_its(scheme: Scheme) -> None:
    choose = random.Random(scheme.n)
    for length in (1, scheme.k * 16 + 1, scheme.k * 200 + 3):
        segment = content(length)
        ours, theirs = coding.encode(scheme, segment), oracle_encode(scheme.k, scheme.n, segment)
        for _ in range(3):
            picked = choose.sample(range(scheme.n), scheme.k)
            assert oracle_decode(scheme.k, length, {index: bytes(ours[index]) for index in picked}) == segment
            assert coding.decode(scheme, length, [(index, theirs[index]) for index in picked]) == segment


@pytest.mark.parametrize("k", sorted({one.k for one in CODED + OTHERS}))
def test_pyeclib_pads_nothing_when_the_length_is_a_multiple_of_k_times_16(k: int) -> None:
    driver = ECDriver(k=k, m=3, ec_type="isa_l_rs_cauchy")
    for units in (1, 2, 3, 5, 64, 1_023, 1_024):
        fragments = driver.encode(bytes(k * 16 * units))
        assert {len(one) for one in fragments} == {80 + 16 * units}


@pytest.mark.parametrize("scheme", [TWO_OF_FIVE, FIVE_OF_TEN])
def test_every_choice_of_k_shares_gives_the_segment_back(scheme: Scheme) -> None:
    segment = content(scheme.k * 40 + 1)
    shares = list(enumerate(coding.encode(scheme, segment)))
    for chosen in itertools.combinations(shares, scheme.k):
        assert coding.decode(scheme, len(segment), chosen) == segment


@given(st.sampled_from(CODED), st.integers(0, 90_000), st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_any_k_or_more_shares_in_any_order_and_of_any_kind_give_the_segment_back(scheme: Scheme, length: int, choose: random.Random) -> None:
    segment = content(length)
    shares = coding.encode(scheme, segment)
    picked = choose.sample(range(scheme.n), choose.randint(scheme.k, scheme.n))
    kinds: list[Any] = [bytes, bytearray, memoryview]
    assert coding.decode(scheme, length, [(index, choose.choice(kinds)(shares[index])) for index in picked]) == segment


@given(st.sampled_from(CODED), st.integers(0, 200_000), st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_missing_shares_are_recreated_whole_or_in_slices_from_any_k(scheme: Scheme, length: int, choose: random.Random) -> None:
    shares = coding.encode(scheme, content(length))
    order = choose.sample(range(scheme.n), scheme.n)
    have, missing = order[: scheme.k], order[scheme.k :]
    wanted = choose.sample(missing, choose.randint(1, min(3, len(missing))))
    assert coding.recreate(scheme, [(index, shares[index]) for index in have], wanted) == [shares[index] for index in wanted]
    units = len(shares[0]) // 16
    start, stop = sorted(choose.sample(range(units + 1), 2))
    cut = slice(start * 16, stop * 16)
    assert coding.recreate(scheme, [(index, shares[index][cut]) for index in have], wanted) == [shares[index][cut] for index in wanted]


def test_all_twenty_missing_shares_of_thirty_are_recreated_at_once() -> None:
    segment = content(500_001)
    shares = coding.encode(TEN_OF_THIRTY, segment)
    have = [(index, shares[index]) for index in range(20, 30)]
    assert coding.recreate(TEN_OF_THIRTY, have, range(20)) == shares[:20]
    assert coding.decode(TEN_OF_THIRTY, len(segment), have) == segment


def test_a_whole_segment_of_32_mib_goes_through_the_worst_losses() -> None:
    segment = content(1 << 20) * 31 + content((1 << 20) - 5, seed=4)
    shares = coding.encode(FIVE_OF_TEN, segment)
    assert bytes(coding.decode(FIVE_OF_TEN, len(segment), enumerate(shares[5:], start=5))) == segment
    with pytest.raises(coding.WrongLength, match="at most 33554432"):
        coding.encode(FIVE_OF_TEN, bytes(SEGMENT_BYTES + 1))


def test_the_first_k_shares_are_the_segments_own_memory_and_need_no_coder_to_decode(monkeypatch: pytest.MonkeyPatch) -> None:
    segment = bytearray(content(5 * 160))
    shares = coding.encode(FIVE_OF_TEN, segment)
    segment[0] ^= 0xFF
    assert [shares[index][0] for index in range(5)] == [segment[index * 160] for index in range(5)]
    monkeypatch.setattr(coding, "_code_of", None)
    assert coding.decode(FIVE_OF_TEN, len(segment), [(index, shares[index]) for index in (4, 7, 0, 3, 1, 2)]) == segment


def test_replicas_are_the_segment_and_need_no_coder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coding, "_code_of", None)
    for segment in (b"", b"x", content(70_001)):
        shares = coding.encode(THREE_REPLICAS, segment)
        assert shares == [segment] * 3
        assert coding.decode(THREE_REPLICAS, len(segment), [(2, shares[2])]) == segment
        assert coding.recreate(THREE_REPLICAS, [(1, shares[1])], [2, 0]) == [segment, segment]
        assert coding.locate(THREE_REPLICAS, len(segment), 0, len(segment)) == ([Slice(0, 0, len(segment))] if segment else [])


def test_a_workspace_is_used_again_for_segments_of_other_lengths_and_schemes_and_leaves_no_trace_in_them() -> None:
    workspace = bytearray(b"\xff" * 2_000)
    for scheme in (TEN_OF_THIRTY, FIVE_OF_TEN, TWO_OF_FIVE):
        for length in (1, 400, 77, 800, 0):
            segment = content(length)
            shares = coding.encode(scheme, segment, workspace)
            assert [bytes(one) for one in shares] == oracle_encode(scheme.k, scheme.n, segment)
            picked = [(index, bytes(shares[index])) for index in range(scheme.n - scheme.k, scheme.n)]
            workspace[:] = b"\xff" * 2_000
            assert coding.decode(scheme, length, picked, workspace) == segment
            roots = {index: merkle.share_root(share) for index, share in picked}
            assert coding.decode_checked(scheme, length, picked, roots, workspace).segment == segment
    shares = coding.encode(FIVE_OF_TEN, content(800))
    for call in (
        lambda: coding.encode(FIVE_OF_TEN, content(800), bytearray(799)),
        lambda: coding.decode(FIVE_OF_TEN, 800, enumerate(shares), bytearray(799)),
    ):
        with pytest.raises(coding.WrongLength, match="the workspace has 799 bytes and needs 800"):
            call()


@given(st.sampled_from(SCHEMES), st.integers(0, 3_000), st.data())
@settings(max_examples=60, deadline=None)
def test_a_range_of_a_segment_is_found_in_its_first_shares(scheme: Scheme, length: int, data: st.DataObject) -> None:
    segment = content(length)
    shares = coding.encode(scheme, segment)
    start = data.draw(st.integers(0, length))
    stop = data.draw(st.integers(start, length))
    parts = coding.locate(scheme, length, start, stop - start)
    assert b"".join(shares[one.index][one.offset : one.offset + one.length] for one in parts) == segment[start:stop]
    assert all(one.length > 0 and one.index < scheme.k for one in parts)


def test_wrong_shares_are_left_out_and_named_while_k_good_ones_are_there() -> None:
    segment = content(300_001)
    shares = coding.encode(FIVE_OF_TEN, segment)
    roots = {index: merkle.share_root(one) for index, one in enumerate(shares)}
    given_shares: list[tuple[int, Any]] = list(enumerate(shares))
    flipped = bytearray(shares[0])
    flipped[12_345] ^= 1
    given_shares[0] = (0, flipped)
    given_shares[2] = (2, shares[2][:-16])
    given_shares[4] = (4, shares[3])
    checked = coding.decode_checked(FIVE_OF_TEN, len(segment), reversed(given_shares), roots)
    assert checked.segment == segment
    assert checked.wrong == (0, 2, 4)
    # Without the check the wrong share goes through: that it does is why the check is there.
    assert coding.decode(FIVE_OF_TEN, len(segment), given_shares[:1] + list(enumerate(shares))[1:]) != segment
    with pytest.raises(coding.NotEnoughShares, match=r"5 good shares are needed and 4 came \(wrong ones, left out: 0, 2, 4\)") as told:
        coding.decode_checked(FIVE_OF_TEN, len(segment), given_shares[:7], roots)
    assert (told.value.have, told.value.needed, told.value.wrong) == (4, 5, (0, 2, 4))
    # Shares that are not needed are not judged.
    given_shares[9] = (9, b"")
    assert coding.decode_checked(FIVE_OF_TEN, len(segment), given_shares, roots).wrong == (0, 2, 4)
    del roots[1]
    assert coding.decode_checked(FIVE_OF_TEN, len(segment), given_shares[:9], roots).wrong == (0, 1, 2, 4)
    replica = coding.decode_checked(THREE_REPLICAS, 3, [(0, b"abd"), (1, b"abc")], {0: merkle.share_root(b"abc"), 1: merkle.share_root(b"abc")})
    assert (bytes(replica.segment), replica.wrong) == (b"abc", (0,))


@pytest.mark.parametrize("scheme", [TWO_OF_FIVE, FIVE_OF_TEN, TEN_OF_THIRTY, THREE_REPLICAS], ids=lambda one: f"{one.k} of {one.n}")
def test_shares_that_do_not_fit_are_refused_by_name(scheme: Scheme) -> None:
    segment = content(1_000)
    shares = list(enumerate(coding.encode(scheme, segment)))
    some, last = shares[: scheme.k], scheme.n - 1

    def both(given_shares: list[tuple[int, Any]], error: type[coding.CodingError], words: str) -> None:
        for call in (lambda: coding.decode(scheme, 1_000, given_shares), lambda: coding.recreate(scheme, given_shares, [last])):
            with pytest.raises(error, match=words):
                call()

    both(some[:-1], coding.NotEnoughShares, f"{scheme.k} good shares are needed and {scheme.k - 1} came")
    both([], coding.NotEnoughShares, f"{scheme.k} good shares are needed and 0 came")
    both([*some, some[0]], coding.WrongIndex, "share 0 came twice")
    both([*some[:-1], (scheme.n, some[-1][1])], coding.WrongIndex, f"there is no share {scheme.n}")
    both([*some[:-1], (-1, some[-1][1])], coding.WrongIndex, "there is no share -1")
    both([*some, (scheme.n - 2, shares[0][1][:-16])], coding.WrongLength, "bytes")
    with pytest.raises(coding.WrongLength, match="a share of this segment of 999000 bytes"):
        coding.decode(scheme, 999_000, some)
    for bad in (-1, SEGMENT_BYTES + 1):
        with pytest.raises(coding.WrongLength, match="a segment has from 0"):
            coding.decode(scheme, bad, some)
    for wanted in ([scheme.n], [-1], [0], [last, last]):
        with pytest.raises(coding.WrongIndex, match="cannot be recreated"):
            coding.recreate(scheme, some, wanted)
    for start, length in ((-1, 2), (0, 1_001), (1_000, 1), (5, -1)):
        with pytest.raises(coding.WrongLength, match="not within a segment"):
            coding.locate(scheme, 1_000, start, length)
    if scheme.k > 1:
        for size in (0, 15, 17):
            with pytest.raises(coding.WrongLength, match="multiple of 16"):
                coding.recreate(scheme, [(index, bytes(size)) for index in range(scheme.k)], [last])


def test_a_slice_longer_than_any_share_is_refused() -> None:
    longest = schemes.share_bytes(TWO_OF_FIVE, SEGMENT_BYTES)
    with pytest.raises(coding.WrongLength, match=f"at most {longest}"):
        coding.recreate(TWO_OF_FIVE, [(index, bytes(longest + 16)) for index in range(2)], [4])


@pytest.mark.parametrize(("k", "n"), [(33, 40), (2, 2), (2, 40), (0, 3), (5, 4), (1, 0), (1, 34), (-1, 2)])
def test_schemes_that_pyeclib_has_not_are_refused_before_it_is_asked(k: int, n: int) -> None:
    scheme = Scheme(k, n, k, k)
    for call in (
        lambda: coding.encode(scheme, b"x"),
        lambda: coding.add_shares(scheme, [], [], 0, 0),
        lambda: coding.decode(scheme, 1, []),
        lambda: coding.recreate(scheme, [], [0]),
        lambda: coding.decode_checked(scheme, 1, [], {}),
        lambda: coding.locate(scheme, 1, 0, 1),
    ):
        with pytest.raises(coding.CodingError, match="are at most 32"):
            call()


def test_a_pyeclib_that_computes_other_shares_is_refused_before_it_writes_one(monkeypatch: pytest.MonkeyPatch) -> None:
    class Vandermonde:
        def __new__(cls, k: int, m: int, ec_type: str) -> Any:
            assert ec_type == "isa_l_rs_cauchy"
            return ECDriver(k=k, m=m, ec_type="isa_l_rs_vand")

    coding._made.cache_clear()
    monkeypatch.setattr(coding, "ECDriver", Vandermonde)
    for call in (lambda: coding.encode(FIVE_OF_TEN, b"x"), lambda: coding.recreate(FIVE_OF_TEN, [(one, bytes(16)) for one in range(5)], [9])):
        with pytest.raises(coding.WrongLibrary, match="other shares for 5 of 10"):
            call()
    monkeypatch.undo()
    assert len(coding.encode(FIVE_OF_TEN, b"x")) == 10


def test_many_threads_code_with_the_same_coder() -> None:
    segments = [content(200_000 + seed, seed) for seed in range(4)]
    expected = [[bytes(share) for share in coding.encode(TEN_OF_THIRTY, one)] for one in segments]
    coding._made.cache_clear()
    start, found = threading.Barrier(4), [[] for _ in range(4)]  # type: ignore[var-annotated]

    def work(at: int) -> None:
        start.wait()
        for _ in range(3):
            shares = coding.encode(TEN_OF_THIRTY, segments[at])
            back = coding.decode(TEN_OF_THIRTY, len(segments[at]), enumerate(shares[20:], start=20))
            found[at].append(back == segments[at] and shares == expected[at])

    threads = [threading.Thread(target=work, args=(at,)) for at in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[True] * 3] * 4
