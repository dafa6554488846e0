"""The trees over a share's bytes, over the shares of a segment, and over the segments of an object. RFC 6962's shape, SHA-256.

    share root      leaf SHA-256(0x00 ‖ 16 KiB of the share, the last leaf shorter), node SHA-256(0x01 ‖ left ‖ right)
    segment root    leaf SHA-256(0x00 ‖ share root), in the order of the shares; the same nodes
    object root     leaf SHA-256(0x00 ‖ segment root), in the order of the segments; the same nodes

               root                 7 leaves: the left part is always the largest full tree
            ┌───┴───┐               path of leaf 4: its neighbours from the bottom up = [h5, h6, h0123]
          h0123    h456
          ┌┴─┐     ┌┴──┐
         h01 h23  h45  h6

Nothing has the root SHA-256 of nothing, and no leaf. A root says nothing about the size or number below it: whoever checks knows it, and these
functions ask for it. Source: ADR 7, "what a file becomes"; ADR 8, "a segment's share roots are under its root"; storage-protocol.md 3.1 and 3.5.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from typing import Final

from modules.settlement.trees import EMPTY_ROOT, HASH_BYTES, climb_plain, leaf_hash, plain_node
from sds_node.fast import leaves
from sds_node.fast.leaves import LEAF_BYTES as LEAF_BYTES
from sds_node.fast.leaves import LEAF_PREFIX, whole_leaves

Buffer = bytes | bytearray | memoryview
"""Contiguous bytes. A memoryview of other items than bytes is read as its bytes."""

MAX_SHARE_BYTES: Final = 32 * 1024 * 1024
"""A share is at most a whole segment (one of k = 1)."""
MAX_LEAVES: Final = MAX_SHARE_BYTES // LEAF_BYTES
MAX_SEGMENT_SHARES: Final = 64
"""What the code can make; a path among them has at most 6 hashes."""
MAX_OBJECT_SEGMENTS: Final = 1 << 19
"""Those of the largest object, 16 TiB; a path among them has at most 19 hashes."""


class MerkleError(Exception):
    """Bytes, hashes or a question that do not fit a tree; the message says what was expected and what came."""


class WrongSize(MerkleError):
    """A share is longer or shorter than it was said to be, or longer than a share can be."""


class WrongRoot(MerkleError):
    """Bytes or hashes that are complete and have another root."""


class WrongLeaf(MerkleError):
    """A leaf of a share whose hash is another. ``index`` is the leaf's number."""

    def __init__(self, index: int) -> None:
        self.index = index
        super().__init__(f"leaf {index} has another hash than the share's list of hashes says: the bytes were changed; ask another holder")


def leaf_count(size_bytes: int) -> int:
    """How many leaves a share of ``size_bytes`` has. Raises WrongSize for a size that no share has."""
    _check_size(size_bytes)
    return -(-size_bytes // LEAF_BYTES)


def _check_size(size_bytes: int) -> None:
    if not 0 <= size_bytes <= MAX_SHARE_BYTES:
        raise WrongSize(f"a share has from 0 to {MAX_SHARE_BYTES} bytes, not {size_bytes}")


def _check_hash(value: bytes, what: str) -> None:
    if len(value) != HASH_BYTES:
        raise MerkleError(f"{what} has {HASH_BYTES} bytes, not {len(value)}")


class Tree:
    """The root over leaf hashes that come one after another; it keeps one hash for each full part, so at most 64.

    Pushing is a binary counter's carry: a new leaf joins with the parts of the same size that wait at the right edge.
    """

    __slots__ = ("_parts", "count")

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self.count = 0

    def push(self, hash_of_leaf: bytes) -> None:
        """Take the hash (32 bytes) of the next leaf."""
        carry = self.count
        while carry & 1:
            hash_of_leaf = plain_node(self._parts.pop(), hash_of_leaf)
            carry >>= 1
        self._parts.append(hash_of_leaf)
        self.count += 1

    def root(self) -> bytes:
        """The root over what was pushed up to now, 32 bytes; more can be pushed afterwards."""
        if not self._parts:
            return EMPTY_ROOT
        *rest, node = self._parts
        for part in reversed(rest):
            node = plain_node(part, node)
        return node


class LeafHasher:
    """Bytes in pieces of any length → the hashes of their leaves. Bytes are hashed as they come: none is kept or copied."""

    __slots__ = ("_filled", "_open", "hashes", "size_bytes")

    def __init__(self) -> None:
        self.hashes = bytearray()
        """Hashes of the complete leaves, 32 bytes each, one after another."""
        self.size_bytes = 0
        """How many bytes came."""
        self._open = sha256(LEAF_PREFIX)
        self._filled = 0

    def update(self, data: Buffer) -> None:
        """Take the next bytes. Raises WrongSize, before it takes any of them, when the share would become longer than a share can be."""
        view = memoryview(data).cast("B")
        if self.size_bytes + len(view) > MAX_SHARE_BYTES:
            raise WrongSize(f"a share has at most {MAX_SHARE_BYTES} bytes; {self.size_bytes} came and {len(view)} more")
        at, end = 0, len(view)
        if self._filled and end >= LEAF_BYTES - self._filled:
            at = LEAF_BYTES - self._filled
            self._open.update(view[:at])
            self.hashes += self._open.digest()
            self._open, self._filled = sha256(LEAF_PREFIX), 0
        if not self._filled and end - at >= LEAF_BYTES:
            stop = end - (end - at) % LEAF_BYTES
            self.hashes += whole_leaves(view[at:stop])
            at = stop
        if at < end:
            self._open.update(view[at:])
            self._filled += end - at
        self.size_bytes += end

    def all_hashes(self) -> bytes:
        """The hashes of all leaves, the last and shorter one too, as if the bytes ended here. More bytes can come afterwards."""
        return bytes(self.hashes) + (self._open.digest() if self._filled else b"")

    def root(self) -> bytes:
        """The share root of the bytes up to now, 32 bytes."""
        return root_of_hashes(self.all_hashes())


def share_hashes(share: Buffer) -> bytes:
    """A whole share → the hashes of its leaves, 32 bytes each, one after another. Raises WrongSize."""
    hasher = LeafHasher()
    hasher.update(share)
    return hasher.all_hashes()


def share_root(share: Buffer) -> bytes:
    """A whole share → its root, 32 bytes. Raises WrongSize for one that is longer than a share can be."""
    return root_of_hashes(share_hashes(share))


def _check_hashes(hashes: bytes) -> None:
    if len(hashes) % HASH_BYTES or len(hashes) > MAX_LEAVES * HASH_BYTES:
        raise MerkleError(f"the hashes of a share's leaves are at most {MAX_LEAVES} times {HASH_BYTES} bytes, not {len(hashes)} bytes")


def _split(hashes: bytes) -> list[bytes]:
    """Joined leaf hashes of a share → a list of them. Raises MerkleError for a length that no share's hashes have."""
    _check_hashes(hashes)
    return [hashes[at : at + HASH_BYTES] for at in range(0, len(hashes), HASH_BYTES)]


def root_of_hashes(hashes: bytes) -> bytes:
    """Hashes of a share's leaves, joined → its root. Raises MerkleError when their length is none that a share's hashes have."""
    _check_hashes(hashes)
    return leaves.root(hashes) if hashes else EMPTY_ROOT


def share_path(hashes: bytes, index: int) -> list[bytes]:
    """Hashes of all leaves of a share, joined, and a leaf's number → its path, from the bottom up: at most 11 hashes.

    Raises MerkleError when there is no such leaf.
    """
    return _path(_split(hashes), index, "leaf")


def _path(level: list[bytes], index: int, what: str) -> list[bytes]:
    """Leaf hashes of a tree → the path of one. A node without a neighbour goes up alone and adds nothing."""
    if not 0 <= index < len(level):
        raise MerkleError(
            f"there is no {what} {index}: it is one from 0 to {len(level) - 1}" if level else f"there is no {what} {index}: there are none"
        )
    path: list[bytes] = []
    while len(level) > 1:
        neighbour = index ^ 1
        if neighbour < len(level):
            path.append(level[neighbour])
        above = [plain_node(level[at], level[at + 1]) for at in range(0, len(level) - 1, 2)]
        level, index = above + level[len(above) * 2 :], index >> 1
    return path


def leaf_size(size_bytes: int, index: int) -> int:
    """How many bytes leaf ``index`` of a share of ``size_bytes`` has. Raises WrongSize, and MerkleError when there is no such leaf."""
    count = leaf_count(size_bytes)
    if not 0 <= index < count:
        raise MerkleError(f"a share of {size_bytes} bytes has {count} leaves; there is no leaf {index}")
    return min(LEAF_BYTES, size_bytes - index * LEAF_BYTES)


def leaf_proved(root: bytes, leaf: bytes, index: int, count: int, path: Sequence[bytes]) -> bool:
    """Whether ``path`` proves that ``leaf`` is leaf ``index`` of ``count`` under a share root.

    Every argument may come from a stranger: what no share can have (lengths, numbers, a path too long or too short) is False, no error.
    Whoever knows the share's size asks for ``leaf_size`` bytes too: only the last leaf may be shorter, and a root does not say by how much.
    """
    if not 0 <= index < count <= MAX_LEAVES:
        return False
    shortest = 1 if index == count - 1 else LEAF_BYTES
    return shortest <= len(leaf) <= LEAF_BYTES and climb_plain(leaf, index, count, path) == root


def segment_root(share_roots: Iterable[bytes]) -> bytes:
    """The roots of a segment's shares, in order → its root, 32 bytes. Raises MerkleError for one that has not 32 bytes, or too many."""
    return _root_over(share_roots, "share", MAX_SEGMENT_SHARES)


def object_root(segment_roots: Iterable[bytes]) -> bytes:
    """The roots of an object's segments, in order → its root, 32 bytes. They may come one by one: no more than 20 hashes are kept.

    Raises MerkleError for a root that has not 32 bytes, or for too many.
    """
    return _root_over(segment_roots, "segment", MAX_OBJECT_SEGMENTS)


def segment_path(share_roots: Iterable[bytes], index: int) -> list[bytes]:
    """The roots of a segment's shares, in order, and a share's number → its path, from the bottom up. Raises MerkleError."""
    return _path(list(_leaves_over(share_roots, "share", MAX_SEGMENT_SHARES)), index, "share")


def object_path(segment_roots: Iterable[bytes], index: int) -> list[bytes]:
    """The roots of an object's segments, in order, and a segment's number → its path, from the bottom up.

    A tree over them is in memory while it runs: about 200 bytes for each segment. Raises MerkleError.
    """
    return _path(list(_leaves_over(segment_roots, "segment", MAX_OBJECT_SEGMENTS)), index, "segment")


def share_proved(root_of_segment: bytes, root_of_share: bytes, index: int, count: int, path: Sequence[bytes]) -> bool:
    """Whether ``path`` proves that a share root is that of share ``index`` of the segment's ``count`` shares; no argument raises."""
    return _root_proved(root_of_segment, root_of_share, index, count, path, MAX_SEGMENT_SHARES)


def segment_proved(root_of_object: bytes, root_of_segment: bytes, index: int, count: int, path: Sequence[bytes]) -> bool:
    """Whether ``path`` proves that a segment root is that of segment ``index`` of the object's ``count`` segments; no argument raises."""
    return _root_proved(root_of_object, root_of_segment, index, count, path, MAX_OBJECT_SEGMENTS)


def _leaves_over(roots: Iterable[bytes], what: str, most: int) -> Iterator[bytes]:
    for number, root in enumerate(roots):
        if number == most:
            raise MerkleError(f"there are at most {most} {what} roots in one tree, but more came")
        _check_hash(root, f"a {what} root")
        yield leaf_hash(root)


def _root_over(roots: Iterable[bytes], what: str, most: int) -> bytes:
    tree = Tree()
    for leaf in _leaves_over(roots, what, most):
        tree.push(leaf)
    return tree.root()


def _root_proved(above: bytes, root: bytes, index: int, count: int, path: Sequence[bytes], most: int) -> bool:
    if not 0 <= index < count <= most or len(root) != HASH_BYTES:
        return False
    return climb_plain(root, index, count, path) == above


class RootCheck:
    """A stream of a whole share, judged by its root alone: what came is right when ``finish`` says so, and not before.

    It keeps no bytes. Too many bytes are told as soon as they come, since no end could make them right.
    """

    __slots__ = ("_hasher", "_root", "_size_bytes")

    def __init__(self, root: bytes, size_bytes: int) -> None:
        """The share root (32 bytes) and size that the stream shall have. Raises MerkleError for ones that no share has."""
        _check_hash(root, "a share root")
        _check_size(size_bytes)
        self._root, self._size_bytes, self._hasher = root, size_bytes, LeafHasher()

    def update(self, data: Buffer) -> None:
        """Take the next bytes, of any number. Raises WrongSize when they are more than the share has; none of them is then taken."""
        came = self._hasher.size_bytes + memoryview(data).nbytes
        if came > self._size_bytes:
            raise WrongSize(f"the share has {self._size_bytes} bytes, but {came} came: stop reading and ask another holder")
        self._hasher.update(data)

    def finish(self) -> bytes:
        """The stream is at its end → hashes of all leaves, joined. Raises WrongSize for a short stream, WrongRoot for other bytes."""
        if self._hasher.size_bytes != self._size_bytes:
            raise WrongSize(f"the share has {self._size_bytes} bytes, but the stream ended after {self._hasher.size_bytes}: ask for the rest")
        hashes = self._hasher.all_hashes()
        found = root_of_hashes(hashes)
        if found != self._root:
            raise WrongRoot(f"the share's root is {self._root.hex()}, but these bytes have {found.hex()}: ask another holder")
        return hashes


class LeafCheck:
    """A stream of a share or of a run of its leaves, judged leaf by leaf by the hashes of all leaves: wrong bytes are told with their leaf.

    check = LeafCheck(root, size_bytes, hashes, first_leaf=3)
    check.update(data)          raises WrongLeaf as soon as a leaf is complete and wrong
    check.proved_bytes          how many of the bytes that came may be used
    """

    __slots__ = ("_at", "_filled", "_hashes", "_open", "_size_bytes", "_start", "_stop")

    def __init__(self, root: bytes, size_bytes: int, hashes: bytes, first_leaf: int = 0, leaves: int | None = None) -> None:
        """The share's root and size, and the hashes of all its leaves, joined, which may come from anybody: they are judged by the root.

        The stream begins with leaf ``first_leaf`` and has ``leaves`` of them (None: up to the end).
        Raises MerkleError for leaves that are not there or a wrong number of hashes, WrongRoot for hashes of another share.
        """
        _check_hash(root, "a share root")
        count = leaf_count(size_bytes)
        if len(hashes) != count * HASH_BYTES:
            raise MerkleError(f"a share of {size_bytes} bytes has {count} leaves, so {count * HASH_BYTES} bytes of hashes, not {len(hashes)}")
        last = count if leaves is None else first_leaf + leaves
        if not 0 <= first_leaf <= last <= count:
            raise MerkleError(f"a share of {size_bytes} bytes has leaves 0 to {count - 1}; {first_leaf} up to {last} are not among them")
        found = root_of_hashes(hashes)
        if found != root:
            raise WrongRoot(f"the share's root is {root.hex()}, but the hashes of the leaves lead to {found.hex()}: ask another holder")
        self._hashes, self._size_bytes = hashes, size_bytes
        self._start = self._at = first_leaf
        self._stop = last
        self._open, self._filled = sha256(LEAF_PREFIX), 0

    @property
    def proved_bytes(self) -> int:
        """How many bytes from the stream's beginning are proved: whole leaves only."""
        return self._end(self._at) - self._end(self._start)

    @property
    def missing_bytes(self) -> int:
        """How many bytes have still to come."""
        return self._end(self._stop) - self._end(self._at) - self._filled

    def _end(self, leaf: int) -> int:
        return min(leaf * LEAF_BYTES, self._size_bytes)

    def update(self, data: Buffer) -> int:
        """Take the next bytes → ``proved_bytes`` now. Raises WrongLeaf, and WrongSize when more come than the leaves have (none is then taken).

        After WrongLeaf the check stands before that leaf, which can come again from another holder; what came after it is not looked at.
        """
        view = memoryview(data).cast("B")
        if len(view) > self.missing_bytes:
            raise WrongSize(f"{self.missing_bytes} bytes have still to come, but {len(view)} came: stop reading and ask another holder")
        at = 0
        while at < len(view):
            whole = 0 if self._filled else min((len(view) - at) // LEAF_BYTES, self._stop - self._at)
            if whole:
                at += self._whole(view[at : at + whole * LEAF_BYTES], whole)
                continue
            need = self._end(self._at + 1) - self._end(self._at) - self._filled
            taken = view[at : at + need]
            self._open.update(taken)
            at += len(taken)
            self._filled += len(taken)
            if len(taken) == need:
                self._close_leaf()
        return self.proved_bytes

    def _whole(self, view: memoryview, leaves: int) -> int:
        """Take so many whole leaves at once → their bytes. Raises WrongLeaf; then those before it are taken."""
        found, place = whole_leaves(view), self._at * HASH_BYTES
        if found != self._hashes[place : place + len(found)]:
            while found[:HASH_BYTES] == self._hashes[place : place + HASH_BYTES]:
                self._at, place, found = self._at + 1, place + HASH_BYTES, found[HASH_BYTES:]
            raise WrongLeaf(self._at)
        self._at += leaves
        return len(view)

    def _close_leaf(self) -> None:
        place = self._at * HASH_BYTES
        found, self._open, self._filled = self._open.digest(), sha256(LEAF_PREFIX), 0
        if found != self._hashes[place : place + HASH_BYTES]:
            raise WrongLeaf(self._at)
        self._at += 1

    def finish(self) -> None:
        """The stream is at its end. Raises WrongSize when bytes are missing; otherwise every byte that came is proved."""
        if self.missing_bytes:
            raise WrongSize(f"the stream ended {self.missing_bytes} bytes early: ask for the rest, or another holder")
