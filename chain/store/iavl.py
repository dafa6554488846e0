"""One store's tree: IAVL in shape, node versions and hashes, so its root equals Go iavl's for the same net changes.

    Node         immutable once committed; children load when they are first visited, and are checked against their hash
    Tree         a root: get, has, iterate, path; ``apply`` gives the next version's Tree and what must be written

Rules (reference abci-sdk-rules.md section 6): changes are applied one by one in key order; setting an equal value renews leaf and
path; a split keeps the old leaf; the key of an inner node is the smallest key of its right subtree; rotation when the balance
exceeds one, a single rotation on a tie; every renewed node carries the new version. This module is the plain form; the C core
(``fast/core.c``) must agree with it on every byte.

Stored node: ``height | size | key length | key`` then for a leaf ``value``, for an inner node
``left version | left nonce | left hash | right version | right nonce | right hash | CRC-32``; numbers are unsigned varints, the CRC has 4
bytes, big-endian, and covers what the hash of an inner node does not: its key, and where its children are stored. A node is stored under (version, nonce): the nonce counts the new nodes of a version in pre-order from 1.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from chain.codec.varint import uvarint
from chain.store.errors import CorruptStore

EMPTY_HASH: Final = hashlib.sha256(b"").digest()
MAX_HEIGHT: Final = 100

NodeKey: TypeAlias = tuple[int, int]
"""(version, nonce) of a stored node."""

Load: TypeAlias = Callable[[NodeKey], "bytes | None"]
Change: TypeAlias = "tuple[bytes, bytes | None]"

_sha256 = hashlib.sha256


class Node:
    """A leaf (height 0, with ``value``) or an inner node. ``version`` is 0 while the node is not committed."""

    __slots__ = (
        "hash",
        "height",
        "key",
        "left",
        "left_hash",
        "left_key",
        "nonce",
        "right",
        "right_hash",
        "right_key",
        "size",
        "value",
        "version",
    )

    def __init__(self, key: bytes, value: bytes | None, height: int, size: int) -> None:
        self.key = key
        self.value = value
        self.height = height
        self.size = size
        self.version = 0
        self.nonce = 0
        self.hash = b""
        self.left: Node | None = None
        self.right: Node | None = None
        self.left_key: NodeKey = (0, 0)
        self.right_key: NodeKey = (0, 0)
        self.left_hash = b""
        self.right_hash = b""


@dataclass(frozen=True, slots=True)
class Step:
    """One inner node on the way from a leaf up: its numbers, the sibling's hash, and whether the path came from the left."""

    height: int
    size: int
    version: int
    sibling: bytes
    from_left: bool


@dataclass(frozen=True, slots=True)
class LeafPath:
    """A leaf and the inner nodes above it, nearest first."""

    key: bytes
    value: bytes
    version: int
    steps: tuple[Step, ...]


class Tree:
    """One version of one store."""

    __slots__ = ("_keep_height", "_load", "root")

    def __init__(self, root: Node | None, load: Load, keep_height: int = 0) -> None:
        self.root = root
        self._load = load
        self._keep_height = keep_height

    @classmethod
    def at(cls, root_key: NodeKey | None, root_hash: bytes, load: Load, keep_height: int = 0) -> Tree:
        """The stored tree whose root node is ``root_key`` (None: empty). Nodes lower than ``keep_height`` are loaded anew at each
        visit, which bounds what a long walk keeps in memory. Raises CorruptStore.
        """
        tree = cls(None, load, keep_height)
        if root_key is not None:
            tree.root = tree._fetch(root_key, root_hash)
        return tree

    @property
    def hash(self) -> bytes:
        """The root hash; SHA-256 of nothing when empty."""
        return EMPTY_HASH if self.root is None else self.root.hash

    @property
    def root_key(self) -> NodeKey | None:
        return None if self.root is None else (self.root.version, self.root.nonce)

    @property
    def size(self) -> int:
        """How many entries the tree holds."""
        return 0 if self.root is None else self.root.size

    def get(self, key: bytes) -> bytes | None:
        """The value at ``key``, or None."""
        node = self.root
        if node is None:
            return None
        while node.height:
            node = self._left(node) if key < node.key else self._right(node)
        return node.value if node.key == key else None

    def has(self, key: bytes) -> bool:
        """True if ``key`` has a value."""
        return self.get(key) is not None

    def iterate(self, start: bytes | None = None, end: bytes | None = None, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """Entries with ``start <= key < end``, in order or backwards."""
        stack = [] if self.root is None else [self.root]
        while stack:
            node = stack.pop()
            if node.height == 0:
                if (start is None or node.key >= start) and (end is None or node.key < end):
                    yield node.key, node.value or b""
                continue
            # Left holds keys below node.key, right the rest.
            go_left = start is None or start < node.key
            go_right = end is None or end > node.key
            if reverse:
                if go_left:
                    stack.append(self._left(node))
                if go_right:
                    stack.append(self._right(node))
            else:
                if go_right:
                    stack.append(self._right(node))
                if go_left:
                    stack.append(self._left(node))

    def path(self, key: bytes) -> tuple[LeafPath | None, LeafPath | None]:
        """For a proof. If ``key`` exists: (its path, its path). Else its neighbours: (largest below or None, smallest above or None)."""
        found = self._descend(key)
        if found is None:
            return None, None
        if found.key == key:
            return found, found
        below = above = None
        for entry, _ in self.iterate(end=key, reverse=True):
            below = self._descend(entry)
            break
        for entry, _ in self.iterate(start=key):
            above = self._descend(entry)
            break
        return below, above

    def apply(self, changes: Sequence[Change], version: int) -> Applied:
        """The tree after ``changes`` (strictly ascending keys; None deletes), with every renewed node at ``version``."""
        editor = _Editor(self, version)
        root = self.root
        for key, value in changes:
            root = editor.set(root, key, value) if value is not None else editor.remove(root, key)
        tree = Tree(root, self._load)
        new = editor.finish(root)
        return Applied(tree, new, editor.orphans)

    def post_order(self) -> Iterator[Node]:
        """Every node, children before parents, left before right: the order of snapshots."""
        if self.root is None:
            return
        stack: list[tuple[Node, bool]] = [(self.root, False)]
        while stack:
            node, ready = stack.pop()
            if ready or node.height == 0:
                yield node
            else:
                stack.append((node, True))
                stack.append((self._right(node), False))
                stack.append((self._left(node), False))

    def collapse(self, depth: int) -> int:
        """Forget loaded nodes below ``depth`` (they load again when visited); returns how many levels' worth stay loaded."""
        kept = 0
        level = [] if self.root is None else [self.root]
        for _ in range(depth):
            kept += len(level)
            level = [child for node in level for child in (node.left, node.right) if child is not None]
        for node in level:
            node.left = node.right = None
        return kept + len(level)

    def _descend(self, key: bytes) -> LeafPath | None:
        node = self.root
        if node is None:
            return None
        steps: list[Step] = []
        while node.height:
            if key < node.key:
                steps.append(Step(node.height, node.size, node.version, node.right_hash, True))
                node = self._left(node)
            else:
                steps.append(Step(node.height, node.size, node.version, node.left_hash, False))
                node = self._right(node)
        steps.reverse()
        return LeafPath(node.key, node.value or b"", node.version, tuple(steps))

    def _left(self, node: Node) -> Node:
        child = node.left
        if child is None:
            child = self._fetch(node.left_key, node.left_hash)
            if child.height >= self._keep_height:
                node.left = child
        return child

    def _right(self, node: Node) -> Node:
        child = node.right
        if child is None:
            child = self._fetch(node.right_key, node.right_hash)
            if child.height >= self._keep_height:
                node.right = child
        return child

    def _fetch(self, key: NodeKey, expected_hash: bytes) -> Node:
        raw = self._load(key)
        if raw is None:
            raise CorruptStore(f"tree node {key} is missing from the database: restore it from a backup or snapshot, or start from state sync")
        node = decode_node(raw, key)
        if node.hash != expected_hash:
            raise CorruptStore(f"tree node {key} does not have the hash its parent names: the database is damaged; restore a backup or snapshot")
        return node


@dataclass(frozen=True, slots=True)
class Applied:
    """A next version: its tree, its new nodes as (nonce, stored bytes), and the keys of the nodes it no longer uses."""

    tree: Tree
    new_nodes: list[tuple[int, bytes]]
    orphans: list[NodeKey]


class _Editor:
    """Applies changes to a tree. Nodes it made itself (version 0) are changed in place; committed ones are copied."""

    __slots__ = ("_fetch_left", "_fetch_right", "_version", "orphans")

    def __init__(self, tree: Tree, version: int) -> None:
        self._fetch_left = tree._left
        self._fetch_right = tree._right
        self._version = version
        self.orphans: list[NodeKey] = []

    def set(self, node: Node | None, key: bytes, value: bytes) -> Node:
        if node is None:
            return Node(key, value, 0, 1)
        if node.height == 0:
            if key == node.key:
                self._drop(node)
                return Node(key, value, 0, 1)
            leaf = Node(key, value, 0, 1)
            parent = Node(max(key, node.key), None, 1, 2)
            parent.left, parent.right = (leaf, node) if key < node.key else (node, leaf)
            return parent
        node = self._own(node)
        size = node.size
        if key < node.key:
            node.left = self.set(node.left, key, value)
        else:
            node.right = self.set(node.right, key, value)
        self._measure(node)
        return node if node.size == size else self._balance(node)

    def remove(self, root: Node | None, key: bytes) -> Node | None:
        if root is None or not self._contains(root, key):
            return root
        return self._remove(root, key)[0]

    def _contains(self, node: Node, key: bytes) -> bool:
        while node.height:
            node = self._fetch_left(node) if key < node.key else self._fetch_right(node)
        return node.key == key

    def _remove(self, node: Node, key: bytes) -> tuple[Node | None, bytes | None]:
        """(what takes the node's place, the smallest key below it if that changed)."""
        if node.height == 0:
            self._drop(node)
            return None, None
        node = self._own(node)
        if key < node.key:
            left, smallest = self._remove(_child(node.left), key)
            if left is None:
                return node.right, node.key
            node.left = left
        else:
            right, smallest = self._remove(_child(node.right), key)
            if right is None:
                return node.left, None
            node.right = right
            if smallest is not None:
                node.key = smallest
                smallest = None
        self._measure(node)
        return self._balance(node), smallest

    def _drop(self, node: Node) -> None:
        if node.version:
            self.orphans.append((node.version, node.nonce))

    def _own(self, node: Node) -> Node:
        """``node`` itself if it is ours to change, else a copy of it with both children loaded."""
        if not node.version:
            return node
        self._drop(node)
        copy = Node(node.key, None, node.height, node.size)
        copy.left, copy.right = self._fetch_left(node), self._fetch_right(node)
        return copy

    @staticmethod
    def _measure(node: Node) -> None:
        left, right = _child(node.left), _child(node.right)
        node.height = max(left.height, right.height) + 1
        node.size = left.size + right.size

    def _tilt(self, node: Node) -> int:
        if not node.height:
            return 0
        left = node.left or self._fetch_left(node)
        right = node.right or self._fetch_right(node)
        return left.height - right.height

    def _balance(self, node: Node) -> Node:
        tilt = _child(node.left).height - _child(node.right).height
        if tilt > 1:
            if self._tilt(_child(node.left)) < 0:
                node.left = self._rotate_left(self._own(_child(node.left)))
            return self._rotate_right(node)
        if tilt < -1:
            if self._tilt(_child(node.right)) > 0:
                node.right = self._rotate_right(self._own(_child(node.right)))
            return self._rotate_left(node)
        return node

    def _rotate_right(self, node: Node) -> Node:
        top = self._own(_child(node.left))
        node.left, top.right = top.right, node
        self._measure(node)
        self._measure(top)
        return top

    def _rotate_left(self, node: Node) -> Node:
        top = self._own(_child(node.right))
        node.right, top.left = top.left, node
        self._measure(node)
        self._measure(top)
        return top

    def finish(self, root: Node | None) -> list[tuple[int, bytes]]:
        """Number the new nodes in pre-order, hash them bottom-up, and return (nonce, stored bytes) of each."""
        version = self._version
        if root is None or root.version:
            return []
        fresh: list[Node] = []
        stack = [root]
        while stack:
            node = stack.pop()
            fresh.append(node)
            node.nonce = len(fresh)
            node.version = version
            if node.height:
                right, left = _child(node.right), _child(node.left)
                if not right.version:
                    stack.append(right)
                if not left.version:
                    stack.append(left)
        for node in reversed(fresh):
            if node.height:
                left, right = _child(node.left), _child(node.right)
                node.left_key, node.left_hash = (left.version, left.nonce), left.hash
                node.right_key, node.right_hash = (right.version, right.nonce), right.hash
            node.hash = node_hash(node)
        return [(node.nonce, encode_node(node)) for node in fresh]


def _child(node: Node | None) -> Node:
    assert node is not None, "an editable inner node has both children loaded"
    return node


def node_hash(node: Node) -> bytes:
    """SHA-256 over the zig-zag varints of height, size and version, then key and value hash, or both children's hashes."""
    head = uvarint(node.height << 1) + uvarint(node.size << 1) + uvarint(node.version << 1)
    if node.height:
        return _sha256(head + b"\x20" + node.left_hash + b"\x20" + node.right_hash).digest()
    return _sha256(head + uvarint(len(node.key)) + node.key + b"\x20" + _sha256(node.value or b"").digest()).digest()


def encode_node(node: Node) -> bytes:
    """The stored form (module docstring)."""
    head = uvarint(node.height) + uvarint(node.size) + uvarint(len(node.key)) + node.key
    if not node.height:
        return head + (node.value or b"")
    left = uvarint(node.left_key[0]) + uvarint(node.left_key[1])
    right = uvarint(node.right_key[0]) + uvarint(node.right_key[1])
    crc = zlib.crc32(right, zlib.crc32(left, zlib.crc32(node.key)))
    return head + left + node.left_hash + right + node.right_hash + crc.to_bytes(4, "big")


def decode_node(raw: bytes, key: NodeKey) -> Node:
    """A stored node with its hash computed from what was read. Raises CorruptStore for bytes that are not a node."""
    try:
        height, at = _read_uvarint(raw, 0)
        size, at = _read_uvarint(raw, at)
        length, at = _read_uvarint(raw, at)
        node = Node(raw[at : at + length], None, height, size)
        at += length
        node.version, node.nonce = key
        if height > MAX_HEIGHT or at > len(raw):
            raise IndexError
        if height:
            start = at
            version, at = _read_uvarint(raw, at)
            nonce, at = _read_uvarint(raw, at)
            crc = zlib.crc32(raw[start:at], zlib.crc32(node.key))
            node.left_key, node.left_hash, at = (version, nonce), raw[at : at + 32], at + 32
            start = at
            version, at = _read_uvarint(raw, at)
            nonce, at = _read_uvarint(raw, at)
            crc = zlib.crc32(raw[start:at], crc)
            node.right_key, node.right_hash, at = (version, nonce), raw[at : at + 32], at + 32
            if at + 4 != len(raw) or crc != int.from_bytes(raw[at:], "big"):
                raise IndexError
        else:
            node.value = raw[at:]
    except IndexError:
        raise CorruptStore(f"the record of tree node {key} is not a node: the database is damaged; restore a backup or snapshot") from None
    node.hash = node_hash(node)
    return node


def _read_uvarint(raw: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = raw[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise IndexError
