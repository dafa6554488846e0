"""The native hashes of leaves are hashlib's, for every number of leaves and at every place in memory."""

from __future__ import annotations

import random
from hashlib import sha256

import pytest

from sds_node.fast import leaves
from sds_node.merkle import LEAF_BYTES, LeafCheck, LeafHasher, Tree, WrongLeaf, leaf_count, root_of_hashes

CHOSEN = random.Random(7)


def _one_by_one(data: bytes) -> bytes:
    return b"".join(sha256(b"\x00" + data[at : at + LEAF_BYTES]).digest() for at in range(0, len(data), LEAF_BYTES))


def _taken(check: LeafCheck, data: bytes | bytearray, size: int) -> None:
    for at in range(0, len(data), size):
        check.update(data[at : at + size])


def test_the_library_was_built_by_make_setup() -> None:
    assert leaves.available()


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 64])
@pytest.mark.parametrize("offset", [0, 1, 13, 63])
def test_whole_leaves_have_the_hashes_that_hashlib_gives(count: int, offset: int) -> None:
    data = CHOSEN.randbytes(offset + count * LEAF_BYTES + 5)
    view = memoryview(data)[offset:]
    wanted = _one_by_one(data[offset : offset + count * LEAF_BYTES])
    assert leaves.whole_leaves(view) == wanted == leaves.plain(view)


@pytest.mark.parametrize("bit", [0, 8 * 63, 8 * 64 - 1, 8 * (LEAF_BYTES - 1)])
def test_each_end_of_a_leaf_counts(bit: int) -> None:
    data = bytearray(LEAF_BYTES * 2)
    before = leaves.whole_leaves(memoryview(data))
    data[LEAF_BYTES + bit // 8] ^= 1 << bit % 8
    after = leaves.whole_leaves(memoryview(data))
    assert after[:32] == before[:32]
    assert after[32:] == _one_by_one(bytes(data[LEAF_BYTES:])) != before[32:]


@pytest.mark.parametrize("count", [*range(1, 34), 63, 64, 65, 409, 2_047, 2_048])
def test_the_root_is_that_of_the_tree_that_takes_leaves_one_by_one(count: int) -> None:
    hashes = CHOSEN.randbytes(32 * count)
    tree = Tree()
    for at in range(0, len(hashes), 32):
        tree.push(hashes[at : at + 32])
    assert leaves.root(hashes) == tree.root() == leaves.plain_root(hashes) == root_of_hashes(hashes)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 64])
@pytest.mark.parametrize("first", [0, 1, 255, 256, (1 << 64) - 65])
def test_digests_go_on_with_each_leaf_and_its_number(count: int, first: int) -> None:
    begin, hashes = CHOSEN.randbytes(32), CHOSEN.randbytes(32 * count)
    wanted, digest = [], begin
    for number in range(count):
        digest = sha256(digest + (first + number).to_bytes(8, "big") + hashes[32 * number : 32 * number + 32]).digest()
        wanted.append(digest)
    assert leaves.digests(begin, first, hashes) == wanted == leaves.plain_digests(begin, first, hashes)
    assert leaves.digests(begin, first, bytearray(hashes)) == wanted


def test_pieces_of_any_length_give_the_same_hashes() -> None:
    data = CHOSEN.randbytes(9 * LEAF_BYTES + 77)
    wanted = _one_by_one(data)
    for _ in range(30):
        hasher, at = LeafHasher(), 0
        while at < len(data):
            size = CHOSEN.choice([1, 100, LEAF_BYTES - 1, LEAF_BYTES, LEAF_BYTES + 1, 3 * LEAF_BYTES + 5])
            hasher.update(data[at : at + size])
            at += size
        assert hasher.all_hashes() == wanted
        assert hasher.size_bytes == len(data)


def test_a_wrong_leaf_is_named_and_those_before_it_are_proved() -> None:
    data = bytearray(CHOSEN.randbytes(9 * LEAF_BYTES + 77))
    hashes = _one_by_one(bytes(data))
    root = root_of_hashes(hashes)
    for wrong in range(leaf_count(len(data))):
        damaged = bytearray(data)
        damaged[min(wrong * LEAF_BYTES + 40, len(data) - 1)] ^= 1
        for size in (len(data), 5 * LEAF_BYTES, 1_000):
            check = LeafCheck(root, len(data), hashes)
            with pytest.raises(WrongLeaf) as found:
                _taken(check, damaged, size)
            assert found.value.index == wrong
            assert check.proved_bytes == wrong * LEAF_BYTES
            # The same leaf may come again, from another holder.
            check.update(data[wrong * LEAF_BYTES :])
            check.finish()


def test_without_the_library_hashlib_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaves, "_native", None)
    data = CHOSEN.randbytes(3 * LEAF_BYTES)
    assert leaves.whole_leaves(memoryview(data)) == _one_by_one(data)
