"""The tree in C behind the same interface as the plain one (``chain/store/engine.py``). Loads ``core.c``'s library if it was built.

The committed values that were read or written last are kept in a dict in front of it: a call into C costs ten times as much.
"""

from __future__ import annotations

import itertools
import sys
import weakref
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from cffi import FFI

from chain.store.engine import Changes, Staged
from chain.store.errors import CorruptStore, StoreError
from chain.store.iavl import EMPTY_HASH, Load, NodeKey

LIBRARY: Final = Path(__file__).parent.joinpath("build", "core.so")
MAX_REMEMBERED: Final = 1 << 18
RANGE_BATCH: Final = 256
STORED_FORM: Final = 2
_MISSING, _DAMAGED, _NO_MEMORY = 1, 2, 3
_ABSENT: Final = object()

_ffi: Any = FFI()
_ffi.cdef(
    """
    typedef struct tree tree;
    int core_stored_form(void);
    tree *core_open(uint64_t id, uint64_t version, uint32_t nonce, const uint8_t *hash, int (*load)(uint64_t, uint64_t, uint32_t));
    void core_close(tree *t);
    void core_supply(tree *t, const uint8_t *raw, size_t size);
    void core_failure(tree *t, uint64_t *version, uint32_t *nonce);
    uint64_t core_nodes(tree *t);
    uint64_t core_loaded(tree *t);
    int core_get(tree *t, const uint8_t *key, uint32_t key_size, const uint8_t **value, uint32_t *value_size);
    int core_range(tree *t, const uint8_t *start, uint32_t start_size, const uint8_t *end, uint32_t end_size, int reverse, uint32_t limit);
    const uint8_t *core_out(tree *t, size_t *size);
    const uint64_t *core_offsets(tree *t);
    int core_stage(tree *t, uint64_t version, uint32_t count, const uint32_t *sizes, const uint8_t *data, size_t data_size);
    int core_staged_root(tree *t, uint64_t *version, uint32_t *nonce, uint8_t *hash);
    uint32_t core_orphans(tree *t);
    void core_write_orphans(tree *t, uint8_t *to);
    void core_commit(tree *t);
    void core_discard(tree *t);
    uint64_t core_evict(tree *t, uint32_t age);
    void core_sha256(const uint8_t *data, size_t size, uint8_t *out, int plain);
    """
)
_trees: weakref.WeakValueDictionary[int, NativeEngine] = weakref.WeakValueDictionary()
_ids: Final = itertools.count(1)


def _open_library() -> Any | None:
    if not LIBRARY.is_file():
        return None
    try:
        library = _ffi.dlopen(str(LIBRARY))
        return library if library.core_stored_form() == STORED_FORM else None
    except (OSError, AttributeError):
        return None


_lib: Any = _open_library()


def available() -> bool:
    """True if the native core was built, from this version's source, and loads."""
    return _lib is not None


def sha256(data: bytes, *, plain: bool) -> bytes:
    """The core's own SHA-256, with or without the processor's instructions for it (for tests)."""
    out = _ffi.new("uint8_t[32]")
    _lib.core_sha256(data, len(data), out, plain)
    return bytes(out)


@_ffi.callback("int(uint64_t, uint64_t, uint32_t)", error=_MISSING)  # type: ignore[untyped-decorator]
def _load(identity: int, version: int, nonce: int) -> int:
    return _trees[identity]._supply((version, nonce))


class _Slices(Sequence[bytes]):
    """The stored form of a version's new nodes, by nonce - 1, cut out of one buffer when asked for."""

    __slots__ = ("_buffer", "_offsets")

    def __init__(self, buffer: bytes, offsets: array[int]) -> None:
        self._buffer = buffer
        self._offsets = offsets

    def __len__(self) -> int:
        return len(self._offsets) // 2

    def __getitem__(self, at: Any) -> Any:
        if not 0 <= at < len(self._offsets) // 2:
            raise IndexError(at)
        return self._buffer[self._offsets[2 * at] : self._offsets[2 * at + 1]]

    def __iter__(self) -> Iterator[bytes]:
        return map(self._buffer.__getitem__, map(slice, self._offsets[::2], self._offsets[1::2]))


class NativeEngine:
    """One store's tree: the committed version and at most one staged. For one thread at a time (``chain/store/engine.py``)."""

    def __init__(self, root_key: NodeKey | None, root_hash: bytes, load: Load) -> None:
        self._load_node = load
        self._held: bytes = b""
        self._load_error: BaseException | None = None
        self.remembered: dict[bytes, bytes | None] = {}
        self._staged: Sequence[tuple[bytes, bytes | None]] | None = None
        self.root_key = root_key
        self.hash = root_hash
        self._staged_root: tuple[NodeKey | None, bytes] = (root_key, root_hash)
        identity = next(_ids)
        _trees[identity] = self
        version, nonce = root_key or (0, 0)
        self._tree = _lib.core_open(identity, version, nonce, root_hash, _load)
        if self._tree == _ffi.NULL:
            raise MemoryError("no memory for a tree")
        self._finalizer = weakref.finalize(self, _lib.core_close, self._tree)
        self._value = _ffi.new("uint8_t **")
        self._size = _ffi.new("uint32_t *")
        self._out_size = _ffi.new("size_t *")

    def get(self, key: bytes) -> bytes | None:
        found = self.remembered.get(key, _ABSENT)
        if found is not _ABSENT:
            return found  # type: ignore[return-value]
        answer = _lib.core_get(self._tree, key, len(key), self._value, self._size)
        if answer < 0:
            self._raise(-answer)
        value = _ffi.buffer(self._value[0], self._size[0])[:] if answer else None
        if len(self.remembered) >= MAX_REMEMBERED:
            self.remembered.clear()
        self.remembered[key] = value
        return value

    def has(self, key: bytes) -> bool:
        return self.get(key) is not None

    def iterate(self, start: bytes | None = None, end: bytes | None = None, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        limit = 8  # most ranges are short; grows for the long ones
        while True:
            batch = self._range(start, end, reverse, limit)
            yield from batch
            if len(batch) < limit:
                return
            if reverse:
                end = batch[-1][0]
            else:
                start = batch[-1][0] + b"\x00"
            limit = RANGE_BATCH

    def stage(self, changes: Changes, version: int) -> Staged:
        if self._staged is not None:
            self.discard()
        count = _lib.core_stage(
            self._tree, version, len(changes.items), _ffi.from_buffer("uint32_t[]", changes.sizes), changes.data, len(changes.data)
        )
        if count < 0:
            _lib.core_discard(self._tree)
            self._raise(-count)
        self._staged = changes.items
        nodes: Sequence[bytes] = ()
        if count:
            out = _lib.core_out(self._tree, self._out_size)
            offsets = array("Q", _ffi.buffer(_lib.core_offsets(self._tree), 16 * count)[:])
            nodes = _Slices(_ffi.buffer(out, self._out_size[0])[:], offsets)
        orphans = bytearray(12 * _lib.core_orphans(self._tree))
        if orphans:
            _lib.core_write_orphans(self._tree, _ffi.from_buffer("uint8_t[]", orphans))
        key, digest = _ffi.new("uint64_t *"), _ffi.new("uint8_t[32]")
        if _lib.core_staged_root(self._tree, key, self._size, digest):
            self._staged_root = (key[0], self._size[0]), bytes(digest)
        else:
            self._staged_root = None, EMPTY_HASH
        root_key, root_hash = self._staged_root
        return Staged(root_key, root_hash, nodes, bytes(orphans))

    def commit(self) -> None:
        if self._staged is None:
            raise ValueError("nothing is staged")
        _lib.core_commit(self._tree)
        if len(self.remembered) + len(self._staged) > MAX_REMEMBERED:
            self.remembered.clear()
        if len(self._staged) <= MAX_REMEMBERED:
            self.remembered.update(self._staged)
        self._staged = None
        self.root_key, self.hash = self._staged_root

    def discard(self) -> None:
        _lib.core_discard(self._tree)
        self._staged = None

    def nodes(self) -> int:
        return int(_lib.core_nodes(self._tree))

    def shrink(self, keep_nodes: int) -> None:
        if len(self.remembered) > keep_nodes:
            self.remembered.clear()
        for age in (64, 16, 4, 1, 0):
            if self.nodes() <= keep_nodes:
                return
            _lib.core_evict(self._tree, age)

    def _range(self, start: bytes | None, end: bytes | None, reverse: bool, limit: int) -> list[tuple[bytes, bytes]]:
        null = _ffi.NULL
        count = _lib.core_range(
            self._tree,
            null if start is None else start,
            0 if start is None else len(start),
            null if end is None else end,
            0 if end is None else len(end),
            reverse,
            limit,
        )
        if count < 0:
            self._raise(-count)
        raw = _ffi.buffer(_lib.core_out(self._tree, self._out_size), self._out_size[0])[:] if count else b""
        found = []
        at = 0
        for _ in range(count):
            key_end = at + 8 + int.from_bytes(raw[at : at + 4], sys.byteorder)
            value_end = key_end + int.from_bytes(raw[at + 4 : at + 8], sys.byteorder)
            found.append((raw[at + 8 : key_end], raw[key_end:value_end]))
            at = value_end
        return found

    def _supply(self, key: NodeKey) -> int:
        try:
            raw = self._load_node(key)
        except BaseException as error:
            self._load_error = error
            return _MISSING
        if raw is None:
            return _MISSING
        self._held = raw  # C reads it before it asks for the next
        _lib.core_supply(self._tree, _ffi.from_buffer("uint8_t[]", raw), len(raw))
        return 0

    def _raise(self, reason: int) -> None:
        error, self._load_error = self._load_error, None
        if error is not None:
            raise error
        if reason == _NO_MEMORY:
            raise MemoryError("no memory for the tree's nodes")
        version, nonce = _ffi.new("uint64_t *"), _ffi.new("uint32_t *")
        _lib.core_failure(self._tree, version, nonce)
        key = (version[0], nonce[0])
        if reason == _MISSING:
            raise CorruptStore(f"tree node {key} is missing from the database: restore it from a backup or snapshot, or start from state sync")
        if reason == _DAMAGED:
            raise CorruptStore(f"tree node {key} does not have the hash its parent names: the database is damaged; restore a backup or snapshot")
        raise StoreError(f"the native tree refused its input (reason {reason}): report this, and set native-core = false in app.toml meanwhile")
