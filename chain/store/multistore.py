"""All stores of the chain under one app hash: views of committed versions, and the two steps that make the next one.

    stage(version, net changes) ──► app hash        nothing committed is touched; may be called again
    commit(records)             ──► one atomic, synced write: new nodes, roots, records

Records on disk (numbers big-endian, ``#`` is a checksum of 8 bytes in front of the value):

    m latest                    # version 8
    v version 8                 # roots: per store name, root version, root nonce, root hash
    o version 8                 # keys of the nodes that this version no longer uses
    l version 8 name            # a small local record of that version (never part of the app hash)
    n store / version 8 nonce 4 a tree node (checked by its hash)

A version is deleted oldest first: the nodes that its successor orphaned go with it. Rolling back deletes every record above a version.
"""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final

from chain.store import merkle, proofs
from chain.store.api import KVReader, prefix_end
from chain.store.errors import CorruptStore, FutureVersion, StoreError, VersionPruned
from chain.store.iavl import EMPTY_HASH, Applied, Change, Load, NodeKey, Tree
from chain.store.kv import KVBackend
from chain.store.pruning import KEEP_ALL, Pruning

DEFAULT_CACHE_NODES: Final = 2_000_000
_LATEST: Final = b"mlatest"


@dataclass(frozen=True, slots=True)
class Root:
    """Where one store's tree of one version begins; ``key`` is None for an empty tree."""

    key: NodeKey | None
    hash: bytes


class View:
    """An immutable committed version. Close it (or use it in ``with``) so that pruning may pass it."""

    def __init__(self, owner: MultiStore, version: int, roots: Mapping[str, Root], trees: dict[str, Tree], *, held: bool = True) -> None:
        self._owner = owner
        self.version = version
        self._roots = roots
        self._trees = trees
        self._open = held

    def store(self, name: str) -> KVReader:
        """Read access to one store. Raises KeyError for a name that is not mounted."""
        return self.tree(name)

    def tree(self, name: str) -> Tree:
        """The tree itself, for proofs, snapshots and exports."""
        tree = self._trees.get(name)
        if tree is None:
            if name not in self._owner.names:
                raise KeyError(name)
            root = self._roots.get(name)
            tree = Tree.at(root.key if root else None, root.hash if root else EMPTY_HASH, self._owner._loader(name))
            self._trees[name] = tree
        return tree

    def root_hashes(self) -> dict[str, bytes]:
        """Store name → root hash, for the stores this version has."""
        return {name: root.hash for name, root in self._roots.items()}

    def close(self) -> None:
        if self._open:
            self._open = False
            self._owner._release(self.version)

    def __enter__(self) -> View:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class _Staged:
    version: int
    applied: Mapping[str, Applied]
    roots: Mapping[str, Root]
    app_hash: bytes


class MultiStore:
    """The chain's state on disk. One thread stages and commits; any thread may hold views."""

    def __init__(self, kv: KVBackend, names: Sequence[str], pruning: Pruning, cache_nodes: int) -> None:
        self.names: tuple[str, ...] = tuple(sorted(names))
        self._kv = kv
        self._pruning = pruning
        self._cache_nodes = cache_nodes
        self._lock = threading.Lock()
        self._in_use: Counter[int] = Counter()
        self._staged: _Staged | None = None
        self._loaded = 0
        self._pruner: threading.Thread | None = None
        self._closing = threading.Event()
        latest = _get_checked(kv, _LATEST)
        self.latest_version = int.from_bytes(latest, "big") if latest is not None else 0
        self._roots: Mapping[str, Root] = self._read_roots(self.latest_version) if self.latest_version else {}
        unknown = sorted(set(self._roots) - set(self.names))
        if unknown:
            raise StoreError(f"the database holds stores this version does not know ({', '.join(unknown)}): run the version that wrote it")
        self._trees = {name: self._open_tree(name, self._roots.get(name)) for name in self.names}
        self.app_hash = self._hash_of(self._roots)
        self._oldest = self._find_oldest()

    @classmethod
    def open(cls, kv: KVBackend, stores: Sequence[str], *, pruning: Pruning = KEEP_ALL, cache_nodes: int = DEFAULT_CACHE_NODES) -> MultiStore:
        """The state in ``kv``, with every name of ``stores`` mounted (a new name starts empty). Raises StoreError, CorruptStore."""
        return cls(kv, stores, pruning, cache_nodes)

    def view(self, version: int | None = None) -> View:
        """A committed version (None: the latest; 0 before the first commit is empty). Raises VersionPruned, FutureVersion."""
        with self._lock:
            wanted = self.latest_version if version is None else version
            if wanted > self.latest_version:
                raise FutureVersion(f"version {wanted} does not exist yet; the latest is {self.latest_version}")
            if wanted == self.latest_version:
                self._in_use[wanted] += 1
                return View(self, wanted, self._roots, dict(self._trees))
            if wanted < self._oldest or wanted < 1:
                raise VersionPruned(f"version {wanted} is not kept (oldest is {self._oldest}): ask a node that keeps it")
            self._in_use[wanted] += 1
        try:
            return View(self, wanted, self._read_roots(wanted), {})
        except BaseException:
            self._release(wanted)
            raise

    def latest_view(self) -> View:
        """The latest version without a hold on it: for the thread that commits, which drops it before the next commit."""
        with self._lock:
            return View(self, self.latest_version, self._roots, dict(self._trees), held=False)

    def stage(self, version: int, changes: Mapping[str, Sequence[Change]]) -> bytes:
        """Compute ``version`` from the latest one and the net changes per store (sorted keys, None deletes); returns its app hash."""
        if self.latest_version and version != self.latest_version + 1:
            raise ValueError(f"the version after {self.latest_version} is {self.latest_version + 1}, got {version}")
        if version < 1:
            raise ValueError(f"a version is at least 1, got {version}")
        applied = {name: tree.apply(changes.get(name, ()), version) for name, tree in self._trees.items()}
        roots = {name: Root(one.tree.root_key, one.tree.hash) for name, one in applied.items()}
        self._staged = _Staged(version, applied, roots, self._hash_of(roots))
        return self._staged.app_hash

    def commit(self, records: Mapping[str, bytes] | None = None) -> None:
        """Persist the staged version with ``records`` in one atomic, synced write; then it is the latest."""
        staged = self._staged
        if staged is None:
            raise ValueError("nothing is staged")
        self._kv.write(self._puts(staged, records or {}), sync=True)
        with self._lock:
            self._staged = None
            self._trees = {name: one.tree for name, one in staged.applied.items()}
            self._roots = staged.roots
            self.latest_version = staged.version
            self.app_hash = staged.app_hash
            self._oldest = self._oldest or staged.version
        self._loaded += sum(len(one.new_nodes) for one in staged.applied.values())
        if self._loaded > self._cache_nodes:
            self._shrink()
        target = self._pruning.target(staged.version)
        if target >= self._oldest:
            self._start_pruning(target)

    def record(self, name: str, version: int | None = None) -> bytes | None:
        """A local record committed with ``version`` (None: the latest)."""
        wanted = self.latest_version if version is None else version
        return _get_checked(self._kv, b"l" + wanted.to_bytes(8, "big") + name.encode("ascii"))

    def prove(self, store: str, key: bytes, version: int) -> tuple[bytes | None, Any]:
        """(value or None, ``tendermint.crypto.ProofOps``) of ``key`` at ``version``.

        Raises KeyError (no such store), proofs.NoProof, VersionPruned, FutureVersion.
        """
        with self.view(version) as view:
            below, above = view.tree(store).path(key)
            inner = proofs.commitment_proof(key, below, above)
            value = below.value if below is not None and below.key == key else None
            return value, proofs.proof_ops(key, inner, store, proofs.store_proof(view.root_hashes(), store))

    def root_hashes(self, version: int | None = None) -> dict[str, bytes]:
        """Store name → root hash of a version: its commit info."""
        with self.view(version) as view:
            return view.root_hashes()

    def oldest_version(self) -> int:
        """The oldest version that is kept; 0 before the first commit."""
        return self._oldest

    def rollback(self, version: int) -> None:
        """Delete every version above ``version``, atomically. Raises VersionPruned or FutureVersion when it is not kept."""
        self._join_pruner()
        if not self._oldest <= version <= self.latest_version or version < 1:
            raise VersionPruned(f"cannot roll back to {version}: versions {self._oldest} to {self.latest_version} are kept")
        roots = self._read_roots(version)
        above = (version + 1).to_bytes(8, "big")
        gone: list[bytes] = []
        for kind in (b"v", b"o", b"l"):
            gone.extend(key for key, _ in self._kv.iterate(kind + above, prefix_end(kind)))
        for name in self.names:
            prefix = _node_prefix(name)
            gone.extend(key for key, _ in self._kv.iterate(prefix + above, prefix_end(prefix)))
        self._kv.write([(_LATEST, _checked(version.to_bytes(8, "big")))], gone, sync=True)
        with self._lock:
            self._staged = None
            self.latest_version = version
            self._roots = roots
            self._trees = {name: self._open_tree(name, roots.get(name)) for name in self.names}
            self.app_hash = self._hash_of(roots)

    def prune_to(self, version: int) -> None:
        """Delete versions up to ``version`` now, oldest first, in small writes; stops at a version that a view holds."""
        while self._oldest and self._oldest <= min(version, self.latest_version - 1) and not self._closing.is_set():
            with self._lock:
                oldest = self._oldest
                if any(count and used <= oldest for used, count in self._in_use.items()):
                    return
                self._oldest = oldest + 1
            following = (oldest + 1).to_bytes(8, "big")
            gone = [_node_prefix(name) + _pack(key) for name, key in self._read_orphans(oldest + 1)]
            this = oldest.to_bytes(8, "big")
            gone.extend(key for key, _ in self._kv.iterate(b"l" + this, b"l" + following))
            self._kv.write((), [*gone, b"v" + this, b"o" + following], sync=False)

    def close(self) -> None:
        """Stop background work and release the database."""
        self._closing.set()
        self._join_pruner()
        self._kv.close()

    def _puts(self, staged: _Staged, records: Mapping[str, bytes]) -> Iterator[tuple[bytes, bytes]]:
        version = staged.version.to_bytes(8, "big")
        orphans = bytearray()
        for name, one in staged.applied.items():
            prefix = _node_prefix(name) + version
            for nonce, raw in one.new_nodes:
                yield prefix + nonce.to_bytes(4, "big"), raw
            if one.orphans:
                orphans += _text(name) + len(one.orphans).to_bytes(4, "big") + b"".join(map(_pack, one.orphans))
        roots = b"".join(_text(name) + _pack(root.key or (0, 0)) + root.hash for name, root in staged.roots.items())
        yield b"v" + version, _checked(roots)
        yield b"o" + version, _checked(bytes(orphans))
        for name, value in records.items():
            yield b"l" + version + name.encode("ascii"), _checked(value)
        yield _LATEST, _checked(version)

    def _read_roots(self, version: int) -> dict[str, Root]:
        raw = _get_checked(self._kv, b"v" + version.to_bytes(8, "big"))
        if raw is None:
            raise CorruptStore(f"the roots of version {version} are missing: restore the database from a backup or snapshot")
        roots: dict[str, Root] = {}
        at = 0
        while at < len(raw):
            name, at = _read_text(raw, at)
            key = _unpack(raw[at : at + 12])
            roots[name] = Root(key if key[0] else None, raw[at + 12 : at + 44])
            at += 44
        return roots

    def _read_orphans(self, version: int) -> Iterator[tuple[str, NodeKey]]:
        raw = _get_checked(self._kv, b"o" + version.to_bytes(8, "big")) or b""
        at = 0
        while at < len(raw):
            name, at = _read_text(raw, at)
            end = at + 4 + 12 * int.from_bytes(raw[at : at + 4], "big")
            for start in range(at + 4, end, 12):
                yield name, _unpack(raw[start : start + 12])
            at = end

    def _find_oldest(self) -> int:
        for key, _ in self._kv.iterate(b"v", b"w"):
            return int.from_bytes(key[1:], "big")
        return 0

    def _hash_of(self, roots: Mapping[str, Root]) -> bytes:
        return merkle.app_hash({name: root.hash for name, root in roots.items()}) if roots else EMPTY_HASH

    def _open_tree(self, name: str, root: Root | None) -> Tree:
        return Tree.at(root.key if root else None, root.hash if root else EMPTY_HASH, self._loader(name))

    def _loader(self, name: str) -> Load:
        prefix = _node_prefix(name)
        get = self._kv.get

        def load(key: NodeKey) -> bytes | None:
            self._loaded += 1
            return get(prefix + _pack(key))

        return load

    def _shrink(self) -> None:
        depth = max(self._cache_nodes.bit_length() - 3, 4)
        self._loaded = sum(tree.collapse(depth) for tree in self._trees.values())

    def _release(self, version: int) -> None:
        with self._lock:
            self._in_use[version] -= 1
            if not self._in_use[version]:
                del self._in_use[version]

    def _start_pruning(self, target: int) -> None:
        if self._pruner is None or not self._pruner.is_alive():
            self._pruner = threading.Thread(target=self.prune_to, args=(target,), name="pruning", daemon=True)
            self._pruner.start()

    def _join_pruner(self) -> None:
        if self._pruner is not None:
            self._pruner.join()
            self._pruner = None


def _node_prefix(name: str) -> bytes:
    return b"n" + name.encode("ascii") + b"/"


def _pack(key: NodeKey) -> bytes:
    return key[0].to_bytes(8, "big") + key[1].to_bytes(4, "big")


def _unpack(raw: bytes) -> NodeKey:
    return int.from_bytes(raw[:8], "big"), int.from_bytes(raw[8:12], "big")


def _text(name: str) -> bytes:
    raw = name.encode("ascii")
    return bytes([len(raw)]) + raw


def _read_text(raw: bytes, at: int) -> tuple[str, int]:
    end = at + 1 + raw[at]
    return raw[at + 1 : end].decode("ascii"), end


def _checked(value: bytes) -> bytes:
    return hashlib.sha256(value).digest()[:8] + value


def _get_checked(kv: KVBackend, key: bytes) -> bytes | None:
    raw = kv.get(key)
    if raw is None:
        return None
    value = raw[8:]
    if hashlib.sha256(value).digest()[:8] != raw[:8]:
        raise CorruptStore(f"record {key!r} does not match its checksum: the database is damaged; restore a backup or snapshot")
    return value
