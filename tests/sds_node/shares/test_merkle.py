"""Roots of shares, segments and objects are RFC 6962's, streams are judged by them, and no path proves anything else."""

from __future__ import annotations

import itertools
import random
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sds_node import coding, merkle, schemes
from sds_node.merkle import HASH_BYTES, LEAF_BYTES, MAX_LEAVES, MAX_SHARE_BYTES

SIZES = [0, 1, LEAF_BYTES - 1, LEAF_BYTES, LEAF_BYTES + 1, 2 * LEAF_BYTES, 5 * LEAF_BYTES, 7 * LEAF_BYTES - 1, 12 * LEAF_BYTES + 300]


def content(size_bytes: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size_bytes)


def leaves_of(share: bytes) -> list[bytes]:
    return [share[at : at + LEAF_BYTES] for at in range(0, len(share), LEAF_BYTES)]


def split_point(count: int) -> int:
    """RFC 6962 2.1: the largest power of two smaller than ``count``."""
    power = 1
    while power * 2 < count:
        power *= 2
    return power


def rfc_root(leaves: list[bytes]) -> bytes:
    """RFC 6962 2.1, word for word."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return sha256(b"\x00" + leaves[0]).digest()
    k = split_point(len(leaves))
    return sha256(b"\x01" + rfc_root(leaves[:k]) + rfc_root(leaves[k:])).digest()


def rfc_path(index: int, leaves: list[bytes]) -> list[bytes]:
    """RFC 6962 2.1.1, word for word."""
    if len(leaves) == 1:
        return []
    k = split_point(len(leaves))
    if index < k:
        return [*rfc_path(index, leaves[:k]), rfc_root(leaves[k:])]
    return [*rfc_path(index - k, leaves[k:]), rfc_root(leaves[:k])]


def hashes_of(leaves: list[bytes]) -> bytes:
    return b"".join(sha256(b"\x00" + leaf).digest() for leaf in leaves)


@pytest.mark.parametrize("size_bytes", SIZES)
def test_a_share_root_is_rfc_6962s_over_leaves_of_16_kib(size_bytes: int) -> None:
    share = content(size_bytes)
    assert merkle.share_root(share) == rfc_root(leaves_of(share))
    assert merkle.share_hashes(share) == hashes_of(leaves_of(share))
    assert merkle.leaf_count(size_bytes) == len(leaves_of(share))


def test_three_roots_that_anybody_can_compute_are_these() -> None:
    assert merkle.share_root(b"").hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert merkle.share_root(b"\x00").hex() == sha256(b"\x00\x00").hexdigest()
    two = sha256(b"\x01" + sha256(b"\x00" + bytes(LEAF_BYTES)).digest() + sha256(b"\x00" + b"\x01").digest()).hexdigest()
    assert merkle.share_root(bytes(LEAF_BYTES) + b"\x01").hex() == two


@given(st.lists(st.binary(min_size=HASH_BYTES, max_size=HASH_BYTES), max_size=64))
@settings(max_examples=60, deadline=None)
def test_roots_of_segments_and_objects_and_their_paths_are_rfc_6962s_over_the_roots_below(roots: list[bytes]) -> None:
    for root_of, path_of, proved in (
        (merkle.segment_root, merkle.segment_path, merkle.share_proved),
        (merkle.object_root, merkle.object_path, merkle.segment_proved),
    ):
        root = root_of(iter(roots))
        assert root == rfc_root(roots)
        for index, one in enumerate(roots):
            path = path_of(iter(roots), index)
            assert path == rfc_path(index, roots)
            assert proved(root, one, index, len(roots), path)
            assert not proved(root, one, index, len(roots), [*path, one])
            assert not proved(root, one[:-1], index, len(roots), path)
            assert not proved(bytes(HASH_BYTES), one, index, len(roots), path)


def test_a_share_is_proved_against_its_segment_and_that_against_its_object() -> None:
    shares = [[content(LEAF_BYTES * 2, 10 * segment + share) for share in range(5)] for segment in range(3)]
    roots = [[merkle.share_root(one) for one in segment] for segment in shares]
    segments = [merkle.segment_root(one) for one in roots]
    whole = merkle.object_root(segments)
    assert merkle.segment_proved(whole, segments[2], 2, 3, merkle.object_path(segments, 2))
    assert merkle.share_proved(segments[2], roots[2][4], 4, 5, merkle.segment_path(roots[2], 4))
    assert not merkle.share_proved(segments[2], roots[1][4], 4, 5, merkle.segment_path(roots[2], 4))
    # The shape tells segments apart: one tree over all shares has another root.
    assert whole != merkle.object_root([one for segment in roots for one in segment])


def test_more_roots_than_a_segment_or_object_can_have_are_refused() -> None:
    root = merkle.share_root(b"x")
    assert schemes.segment_count(schemes.MAX_OBJECT_BYTES) == merkle.MAX_OBJECT_SEGMENTS
    assert max(one.n for one in schemes.SCHEMES) <= merkle.MAX_SEGMENT_SHARES == 2 * coding.MAX_PIECES
    merkle.segment_root([root] * 64)
    with pytest.raises(merkle.MerkleError, match="at most 64 share roots"):
        merkle.segment_root([root] * 65)
    with pytest.raises(merkle.MerkleError, match="at most 64 share roots"):
        merkle.segment_path([root] * 65, 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(merkle, "MAX_OBJECT_SEGMENTS", 100)
        merkle.object_root([root] * 100)
        with pytest.raises(merkle.MerkleError, match="at most 100 segment roots"):
            merkle.object_root(itertools.repeat(root))


@given(st.integers(0, len(SIZES) - 1), st.lists(st.integers(0, 3 * LEAF_BYTES), max_size=12), st.sampled_from([bytes, bytearray, memoryview]))
@settings(max_examples=60, deadline=None)
def test_any_cut_of_a_stream_has_the_root_and_hashes_of_the_whole(which: int, cuts: list[int], kind: type[bytes]) -> None:
    share = content(SIZES[which])
    hasher, check, at = merkle.LeafHasher(), merkle.RootCheck(merkle.share_root(share), len(share)), 0
    for length in [*cuts, len(share)]:
        piece = kind(share[at : at + length])
        hasher.update(piece)
        check.update(piece)
        at += len(piece)
    assert hasher.root() == merkle.share_root(share)
    assert hasher.all_hashes() == check.finish() == merkle.share_hashes(share)
    assert hasher.size_bytes == len(share)


def test_asking_a_hasher_for_its_root_changes_nothing() -> None:
    share = content(3 * LEAF_BYTES + 77)
    hasher = merkle.LeafHasher()
    for at in range(0, len(share), 5_000):
        hasher.update(share[at : at + 5_000])
        assert hasher.root() == merkle.share_root(share[: at + 5_000])


def test_a_memoryview_of_wider_items_is_its_bytes() -> None:
    share = content(LEAF_BYTES * 2)
    assert merkle.share_root(memoryview(share).cast("Q")) == merkle.share_root(share)
    check = merkle.RootCheck(merkle.share_root(share), len(share))
    check.update(memoryview(share).cast("Q"))
    check.finish()


@pytest.mark.parametrize("size_bytes", SIZES[1:])
def test_the_path_of_each_leaf_proves_that_leaf_and_no_other_leaf_place_count_or_root(size_bytes: int) -> None:
    share = content(size_bytes)
    leaves, hashes, root = leaves_of(share), merkle.share_hashes(share), merkle.share_root(share)
    count = len(leaves)
    for index, leaf in enumerate(leaves):
        path = merkle.share_path(hashes, index)
        assert path == rfc_path(index, leaves)
        assert merkle.leaf_size(size_bytes, index) == len(leaf)
        assert merkle.leaf_proved(root, leaf, index, count, path)
        assert not merkle.leaf_proved(root, bytes([leaf[0] ^ 1]) + leaf[1:], index, count, path)
        assert not merkle.leaf_proved(bytes(HASH_BYTES), leaf, index, count, path)
        assert not merkle.leaf_proved(root, leaf, index, count, [*path, bytes(HASH_BYTES)])
        assert not any(merkle.leaf_proved(root, leaf, other, count, path) for other in range(-1, count + 2) if other != index)
        for at in range(len(path)):
            assert not merkle.leaf_proved(root, leaf, index, count, [*path[:at], bytes(HASH_BYTES), *path[at + 1 :]])
            assert not merkle.leaf_proved(root, leaf, index, count, path[:at] + path[at + 1 :])
            assert not merkle.leaf_proved(root, leaf, index, count, [*path[:at], path[at][:-1], *path[at + 1 :]])


def test_a_node_is_no_leaf_and_a_leaf_that_is_not_the_last_is_full() -> None:
    share = content(2 * LEAF_BYTES)
    hashes, root = merkle.share_hashes(share), merkle.share_root(share)
    # Without the prefix 0x01 the two hashes, as one leaf, would have the root of the tree over them.
    assert not merkle.leaf_proved(root, hashes, 0, 1, [])
    assert not merkle.share_proved(merkle.segment_root([hashes[:32], hashes[32:]]), hashes, 0, 1, [])
    short = content(100)
    bad_root = sha256(b"\x01" + sha256(b"\x00" + short).digest() + sha256(b"\x00" + share[:LEAF_BYTES]).digest()).digest()
    path = [sha256(b"\x00" + share[:LEAF_BYTES]).digest()]
    assert not merkle.leaf_proved(bad_root, short, 0, 2, path)
    assert merkle.leaf_proved(merkle.share_root(short), short, 0, 1, [])
    assert not merkle.leaf_proved(merkle.share_root(b""), b"", 0, 1, [])
    assert not merkle.leaf_proved(merkle.share_root(b""), b"", 0, 0, [])


@given(st.binary(max_size=64), st.integers(-(2**70), 2**70), st.integers(-(2**70), 2**70), st.lists(st.binary(max_size=40), max_size=70))
@settings(max_examples=200, deadline=None)
def test_no_proof_of_a_stranger_raises(data: bytes, index: int, count: int, path: list[bytes]) -> None:
    assert merkle.leaf_proved(bytes(HASH_BYTES), data, index, count, path) is False
    assert merkle.share_proved(bytes(HASH_BYTES), data, index, count, path) is False
    assert merkle.segment_proved(bytes(HASH_BYTES), data, index, count, path) is False


def test_the_largest_share_has_2048_leaves_and_paths_of_11_hashes_and_one_byte_more_is_refused() -> None:
    hasher = merkle.LeafHasher()
    block = content(1 << 20)
    for _ in range(MAX_SHARE_BYTES >> 20):
        hasher.update(block)
    hashes, root = hasher.all_hashes(), hasher.root()
    assert len(hashes) == MAX_LEAVES * HASH_BYTES == 2_048 * 32
    path = merkle.share_path(hashes, 2_047)
    assert len(path) == 11
    assert merkle.leaf_proved(root, block[-LEAF_BYTES:], 2_047, 2_048, path)
    with pytest.raises(merkle.WrongSize, match="at most 33554432"):
        hasher.update(b"x")
    assert hasher.root() == root
    for size_bytes in (MAX_SHARE_BYTES + 1, -1):
        with pytest.raises(merkle.WrongSize):
            merkle.leaf_count(size_bytes)
        with pytest.raises(merkle.WrongSize):
            merkle.RootCheck(root, size_bytes)
    with pytest.raises(merkle.MerkleError):
        merkle.root_of_hashes(hashes + bytes(HASH_BYTES))


def test_a_root_check_speaks_at_the_end_and_names_what_is_wrong() -> None:
    share = content(3 * LEAF_BYTES + 5)
    root = merkle.share_root(share)
    wrong = bytearray(share)
    wrong[7] ^= 1
    check = merkle.RootCheck(root, len(share))
    check.update(wrong)
    with pytest.raises(merkle.WrongRoot, match=root.hex()):
        check.finish()
    short = merkle.RootCheck(root, len(share))
    short.update(share[:-1])
    with pytest.raises(merkle.WrongSize, match="ended after"):
        short.finish()
    with pytest.raises(merkle.WrongSize, match="stop reading"):
        short.update(b"xy")
    short.update(share[-1:])
    short.finish()
    with pytest.raises(merkle.MerkleError, match="32 bytes, not 31"):
        merkle.RootCheck(root[:-1], 5)


@pytest.mark.parametrize(("first", "leaves"), [(0, None), (0, 4), (1, 2), (3, None), (4, 0), (4, None)])
def test_a_leaf_check_proves_a_run_of_leaves_as_they_come(first: int, leaves: int | None) -> None:
    share = content(3 * LEAF_BYTES + 5)
    run = share[first * LEAF_BYTES :][: None if leaves is None else leaves * LEAF_BYTES]
    check = merkle.LeafCheck(merkle.share_root(share), len(share), merkle.share_hashes(share), first, leaves)
    for at in range(0, len(run), 3_000):
        assert check.missing_bytes == len(run) - at
        came = min(at + 3_000, len(run))
        assert check.update(run[at : at + 3_000]) == (came if came == len(run) else came // LEAF_BYTES * LEAF_BYTES)
    check.finish()
    assert check.proved_bytes == len(run)
    with pytest.raises(merkle.WrongSize, match="0 bytes have still to come"):
        check.update(b"x")


@pytest.mark.parametrize("bad_leaf", range(4))
def test_a_leaf_check_names_the_wrong_leaf_keeps_what_it_proved_and_takes_the_leaf_again(bad_leaf: int) -> None:
    share = content(3 * LEAF_BYTES + 5)
    wrong = bytearray(share)
    wrong[bad_leaf * LEAF_BYTES] ^= 0x80
    check = merkle.LeafCheck(merkle.share_root(share), len(share), merkle.share_hashes(share))
    with pytest.raises(merkle.WrongLeaf) as told:
        check.update(wrong)
    assert told.value.index == bad_leaf
    assert check.proved_bytes == bad_leaf * LEAF_BYTES
    with pytest.raises(merkle.WrongSize, match="early"):
        check.finish()
    check.update(share[check.proved_bytes :])
    check.finish()
    assert check.proved_bytes == len(share)


def test_a_leaf_check_refuses_hashes_of_another_share_and_leaves_that_are_not_there() -> None:
    share = content(3 * LEAF_BYTES + 5)
    root, hashes = merkle.share_root(share), merkle.share_hashes(share)
    with pytest.raises(merkle.WrongRoot):
        merkle.LeafCheck(root, len(share), hashes[32:] + hashes[:32])
    with pytest.raises(merkle.MerkleError, match="4 leaves"):
        merkle.LeafCheck(root, len(share), hashes[:-32])
    for first, leaves in ((-1, None), (5, None), (0, 5), (2, -1), (4, 1)):
        with pytest.raises(merkle.MerkleError, match="not among them"):
            merkle.LeafCheck(root, len(share), hashes, first, leaves)
    cut = merkle.LeafCheck(root, len(share), hashes, 3)
    cut.update(share[3 * LEAF_BYTES : -1])
    with pytest.raises(merkle.WrongSize, match="1 bytes early"):
        cut.finish()


def test_questions_about_what_is_not_in_a_tree_are_refused_by_name() -> None:
    hashes = merkle.share_hashes(content(LEAF_BYTES + 1))
    for index in (-1, 2):
        with pytest.raises(merkle.MerkleError, match=f"no leaf {index}: it is one from 0 to 1"):
            merkle.share_path(hashes, index)
        with pytest.raises(merkle.MerkleError, match="has 2 leaves"):
            merkle.leaf_size(LEAF_BYTES + 1, index)
    with pytest.raises(merkle.MerkleError, match="there are none"):
        merkle.share_path(b"", 0)
    with pytest.raises(merkle.MerkleError, match="not 33 bytes"):
        merkle.share_path(hashes[:33], 0)
    with pytest.raises(merkle.MerkleError, match="no segment 3: it is one from 0 to 2"):
        merkle.object_path([bytes(32)] * 3, 3)
    for call in (merkle.object_root, merkle.segment_root, lambda roots: merkle.object_path(roots, 0), lambda roots: merkle.segment_path(roots, 0)):
        with pytest.raises(merkle.MerkleError, match="32 bytes, not 31"):
            call([bytes(31)])
