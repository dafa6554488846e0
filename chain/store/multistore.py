"""All stores of the chain under one app hash: views of committed versions, and the two steps that make the next one.

    stage(version, net changes) ──► app hash        nothing committed is touched; may be called again
    commit(records)             ──► one atomic, synced write: the log of the version's net changes, its root hashes, records
    flusher thread              ──► the version's nodes, in smaller writes; the last one says that it is whole

A version whose nodes are not on disk yet is read from memory. After a kill the logs are applied again, from the last flushed
version on, and must lead to the roots they name. Closing flushes.

Records on disk (numbers big-endian, ``#`` is a checksum of 8 bytes, over key and value, in front of the value). Every key begins with its
version, and a version's records are written in their order, so that what is new comes after all that is there, and a log-structured database has no old
tables to merge with new ones. (For the same reason the log stays once its version is flushed.)

    version 8 c                 # log: per store name, root hash, packed net changes
    version 8 l name            # a small local record of that version (never part of the app hash)
    version 8 n store / nonce 4 a tree node (checked by its hash)
    version 8 o                 # keys of the nodes that this version no longer uses
    version 8 v                 # oldest version kept then; roots: per store name, root version, root nonce, root hash
    m restoring                 a snapshot is being restored: what is there counts for nothing

A version is deleted oldest first: the nodes that its successor orphaned go with it. Rolling back deletes every record above a version.
"""

from __future__ import annotations

import hashlib
import struct
import threading
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import islice
from types import TracebackType
from typing import Any, Final

from chain.store import merkle, proofs
from chain.store.api import KVReader, prefix_end
from chain.store.engine import Changes, Engine, PlainEngine, Staged, open_engine
from chain.store.errors import CorruptStore, FutureVersion, StoreError, VersionPruned
from chain.store.iavl import EMPTY_HASH, Change, Load, NodeKey, Tree
from chain.store.kv import KVBackend
from chain.store.pruning import KEEP_ALL, Pruning

DEFAULT_CACHE_NODES: Final = 4_000_000
MAX_PENDING_BYTES: Final = 256 << 20
"""Commits wait for the flusher when more than this is not on disk as nodes yet."""

FLUSH_NODES: Final = 128
"""Per write of the flusher, which lets go of the GIL there: whoever wants it waits for one such part."""

WIPE_KEYS: Final = 10_000
MIN_BESIDE: Final = 500
_VIEW_KEEP_HEIGHT: Final = 3
_RESTORING: Final = b"mrestoring"
_NONCE: Final = struct.Struct(">I").pack
_NODES, _LOCAL, _ORPHANS, _ROOTS, _LOG = b"n", b"l", b"o", b"v", b"c"


@dataclass(frozen=True, slots=True)
class Root:
    """Where one store's tree of one version begins; ``key`` is None for an empty tree."""

    key: NodeKey | None
    hash: bytes


class View:
    """An immutable committed version. Close it (or use it in ``with``) so that pruning may pass it."""

    def __init__(self, owner: MultiStore, version: int, roots: Mapping[str, Root], trees: dict[str, Tree]) -> None:
        self._owner = owner
        self.version = version
        self._roots = roots
        self._trees = trees
        self._open = True

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
            load = self._owner._loader(name)
            tree = Tree.at(root.key if root else None, root.hash if root else EMPTY_HASH, load, _VIEW_KEEP_HEIGHT)
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


class LatestReader:
    """The latest version as the thread that commits reads it; it changes with the next commit, so it is not kept beyond."""

    def __init__(self, engines: Mapping[str, Engine]) -> None:
        self._engines = engines

    def store(self, name: str) -> KVReader:
        return self._engines[name]


@dataclass(slots=True)
class _Version:
    """A staged version, and after its commit one whose nodes are not on disk yet."""

    version: int
    changes: Mapping[str, Changes]
    staged: Mapping[str, Staged]
    roots: Mapping[str, Root]
    app_hash: bytes
    size_bytes: int = field(default=0)


class MultiStore:
    """The chain's state on disk. One thread stages and commits; any thread may hold views."""

    def __init__(self, kv: KVBackend, names: Sequence[str], pruning: Pruning, cache_nodes: int, native: bool) -> None:
        self.names: tuple[str, ...] = tuple(sorted(names))
        self._kv = kv
        self._pruning = pruning
        self._cache_nodes = cache_nodes
        self._lock = threading.Lock()
        self._in_use: Counter[int] = Counter()
        self._staged: _Version | None = None
        self._native = native
        self._beside = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._pending: dict[int, _Version] = {}  # committed, nodes not on disk yet, in ascending order
        self._queue: deque[_Version] = deque()
        self._wake = threading.Condition()
        self._flusher: threading.Thread | None = None
        self._background_error: BaseException | None = None  # what flusher or pruner met: the next commit raises it
        self._pruner: threading.Thread | None = None
        self._closing = threading.Event()
        self._restoring = kv.get(_RESTORING) is not None
        self._give_up_restore()
        self._load()

    def _load(self) -> None:
        """Take over what the database holds."""
        self.latest_version = self._find_latest()
        flushed, logs = self._find_logs()
        self._oldest = self._find_oldest(flushed) if flushed else (logs or [0])[0]
        self._roots: Mapping[str, Root] = self._read_roots(flushed) if flushed else {}
        unknown = sorted(set(self._roots) - set(self.names))
        if unknown:
            raise StoreError(f"the database holds stores this version does not know ({', '.join(unknown)}): run the version that wrote it")
        self._engines = {name: self._open_engine(name, self._roots.get(name)) for name in self.names}
        self._view_trees: dict[str, Tree] = {}
        for version in logs:
            self._apply_again(version)
        self.app_hash = self._hash_of(self._roots)

    def _find_latest(self) -> int:
        """The version of the last key. Raises StoreError for a database of another form."""
        last = next((key for key, _ in self._kv.iterate(reverse=True)), None)
        if last is None:
            return 0
        if last[0] >= ord("a"):
            raise StoreError("the database was written by an earlier version of this program: start anew, or from state sync")
        return int.from_bytes(last[:8], "big")

    def _find_logs(self) -> tuple[int, list[int]]:
        """(last flushed version or 0, versions after it, whose logs are there). Raises CorruptStore for a gap."""
        logs: list[int] = []
        version = self.latest_version
        while version and self._kv.get(_record_key(version, _ROOTS)) is None:
            if self._kv.get(_record_key(version, _LOG)) is None:
                if logs and next(self._kv.iterate(end=_record_key(logs[-1], b"")), None) is None:
                    return 0, logs[::-1]  # the chain's first version
                raise CorruptStore(
                    f"the database has lost records: it holds version {self.latest_version}, but neither the roots nor the log of version {version}; "
                    "restore it from a backup or snapshot, or start from state sync"
                )
            logs.append(version)
            version -= 1
        return version, logs[::-1]

    @classmethod
    def open(
        cls, kv: KVBackend, stores: Sequence[str], *, pruning: Pruning = KEEP_ALL, cache_nodes: int = DEFAULT_CACHE_NODES, native: bool = True
    ) -> MultiStore:
        """The state in ``kv``, with every name of ``stores`` mounted (a new name starts empty). Raises StoreError, CorruptStore.

        At most about ``cache_nodes`` tree nodes stay in memory; ``native`` uses the C core where it was built.
        """
        return cls(kv, stores, pruning, cache_nodes, native)

    def view(self, version: int | None = None) -> View:
        """A committed version (None: the latest; 0 before the first commit is empty). Raises VersionPruned, FutureVersion."""
        with self._lock:
            wanted = self.latest_version if version is None else version
            if wanted > self.latest_version:
                raise FutureVersion(f"version {wanted} does not exist yet; the latest is {self.latest_version}")
            if wanted == self.latest_version:
                self._in_use[wanted] += 1
                return View(self, wanted, self._roots, self._view_trees)
            if wanted < self._oldest or wanted < 1:
                raise VersionPruned(f"version {wanted} is not kept (oldest is {self._oldest}): ask a node that keeps it")
            self._in_use[wanted] += 1
            pending = self._pending.get(wanted)
        try:
            return View(self, wanted, pending.roots if pending is not None else self._read_roots(wanted), {})
        except BaseException:
            self._release(wanted)
            raise

    def latest_commit(self) -> tuple[int, bytes]:
        """(latest version, its app hash), of the same commit whatever thread asks."""
        with self._lock:
            return self.latest_version, self.app_hash

    def latest(self) -> LatestReader:
        """The latest version for the thread that commits, which drops it before the next commit. Other threads take a ``view``."""
        return LatestReader(self._engines)

    def stage(self, version: int, changes: Mapping[str, Sequence[Change]]) -> bytes:
        """Compute ``version`` from the latest one and the net changes per store (sorted keys, None deletes); returns its app hash."""
        if self.latest_version and version != self.latest_version + 1:
            raise ValueError(f"the version after {self.latest_version} is {self.latest_version + 1}, got {version}")
        if version < 1:
            raise ValueError(f"a version is at least 1, got {version}")
        self._give_up_restore()
        packed = {name: Changes(changes.get(name, ())) for name in self.names}
        staged = self._stage_all(packed, version)
        roots = {name: Root(one.root_key, one.root_hash) for name, one in staged.items()}
        self._staged = _Version(version, packed, staged, roots, self._hash_of(roots))
        return self._staged.app_hash

    def _stage_all(self, packed: Mapping[str, Changes], version: int) -> dict[str, Staged]:
        """Stage every store; the largest in this thread, the others beside it when there is enough to do (the C core runs without the GIL)."""
        largest = max(self.names, key=lambda name: len(packed[name].items))
        others = [name for name in self.names if name != largest]
        if not self._native or sum(len(packed[name].items) for name in others) < MIN_BESIDE:
            return {name: engine.stage(packed[name], version) for name, engine in self._engines.items()}
        rest = self._beside.submit(lambda: {name: self._engines[name].stage(packed[name], version) for name in others})
        first = self._engines[largest].stage(packed[largest], version)
        staged = rest.result() | {largest: first}
        return {name: staged[name] for name in self._engines}

    def commit(self, records: Mapping[str, bytes] | None = None) -> None:
        """Persist the staged version with ``records`` in one atomic, synced write; then it is the latest. After an error nothing may follow."""
        staged = self._staged
        if staged is None:
            raise ValueError("nothing is staged")
        self._wait_for_flusher()
        log = b"".join(_text(name) + staged.roots[name].hash + changes.pack() for name, changes in staged.changes.items())
        staged.size_bytes = 8 * len(log)  # each change renews a path
        puts = [_checked(_record_key(staged.version, _LOG), log)]
        puts += [_checked(_local_key(staged.version, name), value) for name, value in (records or {}).items()]
        written = self._beside.submit(self._kv.write, puts, sync=True)
        try:
            for engine in self._engines.values():
                engine.commit()
        finally:
            wait([written])
        if (error := written.exception()) is not None:
            self._failed_behind(error)  # the engines are ahead of the disk: nothing may follow
            raise error
        with self._lock:
            self._staged = None
            self._pending[staged.version] = staged
            self._view_trees = {}
            self._roots = staged.roots
            self.latest_version = staged.version
            self.app_hash = staged.app_hash
            self._oldest = self._oldest or staged.version
        self._start_flushing(staged)
        if sum(engine.nodes() for engine in self._engines.values()) > self._cache_nodes:
            self._shrink()
        target = self._pruning.target(staged.version)
        if target >= self._oldest:
            self._start_pruning(target)

    def record(self, name: str, version: int | None = None) -> bytes | None:
        """A local record committed with ``version`` (None: the latest)."""
        wanted = self.latest_version if version is None else version
        return _get_checked(self._kv, _local_key(wanted, name))

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

    def nodes_in_memory(self) -> dict[str, int]:
        """Store name → how many tree nodes the committing thread holds."""
        return {name: engine.nodes() for name, engine in self._engines.items()}

    def pending_versions(self) -> int:
        """How many committed versions wait for the flusher."""
        return len(self._queue)

    @property
    def is_native(self) -> bool:
        """True if the C core computes the trees."""
        return not any(isinstance(engine, PlainEngine) for engine in self._engines.values())

    def rollback(self, version: int) -> None:
        """Delete every version above ``version``, atomically. Raises VersionPruned or FutureVersion when it is not kept."""
        self._join_pruner()
        self.flush()
        if not self._oldest <= version <= self.latest_version or version < 1:
            raise VersionPruned(f"cannot roll back to {version}: versions {self._oldest} to {self.latest_version} are kept")
        roots = self._read_roots(version)
        gone = [key for key, _ in self._kv.iterate(_record_key(version + 1, b""))]
        self._kv.write((), gone, sync=True)
        with self._lock:
            self._staged = None
            self.latest_version = version
            self._roots = roots
            self._view_trees = {}
            self._engines = {name: self._open_engine(name, roots.get(name)) for name in self.names}
            self.app_hash = self._hash_of(roots)

    def begin_restore(self) -> KVBackend:
        """The database to write a snapshot's nodes into. Until ``finish_restore`` a restart finds it empty. Raises StoreError."""
        if self.latest_version:
            raise StoreError(f"the database holds version {self.latest_version}: a snapshot is restored into an empty one only")
        self._give_up_restore()
        self._kv.write([(_RESTORING, b"")], sync=True)
        self._restoring = True
        return self._kv

    def _give_up_restore(self) -> None:
        """What was restored so far goes: a version that were committed beside it would go with it at the next start."""
        if self._restoring:
            _wipe(self._kv)
            self._restoring = False

    def finish_restore(self, version: int, roots: Mapping[str, Root], records: Mapping[str, bytes], app_hash: bytes | None) -> bool:
        """Make ``version`` the latest and only one if its roots lead to ``app_hash`` (None: any); otherwise the database is empty again."""
        if not self._restoring:
            raise StoreError("no restore of a snapshot is under way")
        if app_hash is not None and self._hash_of(roots) != app_hash:
            self._give_up_restore()
            return False
        puts = [_checked(_record_key(version, _ROOTS), _pack_roots(version, roots)), _checked(_record_key(version, _ORPHANS), b"")]
        puts += [_checked(_local_key(version, name), value) for name, value in records.items()]
        self._kv.write(puts, [_RESTORING], sync=True)
        self._restoring = False
        self._load()
        return True

    def prune_to(self, version: int) -> None:
        """Delete versions up to ``version`` now, oldest first, in small writes; stops at a version that a view holds."""
        while self._oldest and self._oldest <= min(version, self.latest_version - 1) and not self._closing.is_set():
            with self._wake:  # what the successor orphans is read from disk
                self._wake.wait_for(lambda: self._background_error is not None or all(one.version > self._oldest + 1 for one in self._queue))
                if self._background_error is not None:
                    return
            oldest = self._oldest
            gone = [node_key(name, key) for name, key in self._read_orphans(oldest + 1)]
            with self._lock:
                if any(count and used <= oldest for used, count in self._in_use.items()):
                    return
                self._oldest = oldest + 1
            local = _record_key(oldest, _LOCAL)
            gone.extend(key for key, _ in self._kv.iterate(local, prefix_end(local)))
            gone += (_record_key(oldest, kind) for kind in (_LOG, _ORPHANS, _ROOTS))
            gone.append(_record_key(oldest + 1, _ORPHANS))
            self._kv.write((), gone, sync=False)

    def compact(self) -> None:
        """Give back the space of what was deleted."""
        self._kv.compact()

    def flush(self) -> None:
        """Wait until the nodes of every committed version are on disk. Raises what the flusher met."""
        with self._wake:
            self._wake.wait_for(lambda: not self._queue or self._background_error is not None)
        if self._background_error is not None:
            raise self._background_error

    def close(self) -> None:
        """Stop background work and release the database."""
        self._closing.set()
        self._join_pruner()
        with self._wake:
            self._wake.notify_all()
        if self._flusher is not None:
            self._flusher.join()
            self._flusher = None
        self._beside.shutdown()
        self._kv.close()

    def _wait_for_flusher(self) -> None:
        with self._wake:
            self._wake.wait_for(lambda: self._background_error is not None or sum(one.size_bytes for one in self._queue) <= MAX_PENDING_BYTES)
        if self._background_error is not None:
            raise self._background_error

    def _start_flushing(self, version: _Version) -> None:
        with self._wake:
            self._queue.append(version)
            self._wake.notify_all()
        if self._flusher is None:
            self._flusher = threading.Thread(target=self._flush_always, name="flusher", daemon=True)
            self._flusher.start()

    def _flush_always(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._queue or self._closing.is_set())
                if not self._queue:
                    return
                version = self._queue[0]
            try:
                self._write_nodes(version)
            except BaseException as error:
                self._failed_behind(error)
                return
            with self._lock:
                del self._pending[version.version]
            with self._wake:
                self._queue.popleft()
                self._wake.notify_all()

    def _write_nodes(self, one: _Version) -> None:
        """The version's nodes in writes of a bounded size; the last makes the version complete and takes its log away."""
        orphans = bytearray()
        for name, staged in one.staged.items():
            # Tens of thousands of nodes per block: every step of this loop is in C.
            prefix, nonces = _node_prefix(one.version, name), range(1, len(staged.new_nodes) + 1)
            nodes = zip(map(prefix.__add__, map(_NONCE, nonces)), staged.new_nodes, strict=True)
            while part := list(islice(nodes, FLUSH_NODES)):
                self._kv.write(part, sync=False)
            if staged.orphans:
                orphans += _text(name) + (len(staged.orphans) // 12).to_bytes(4, "big") + staged.orphans
        puts = [
            _checked(_record_key(one.version, _ORPHANS), bytes(orphans)),
            _checked(_record_key(one.version, _ROOTS), _pack_roots(self._oldest, one.roots)),
        ]
        self._kv.write(puts, sync=False)

    def _apply_again(self, version: int) -> None:
        """Go from the last flushed version to ``version`` by its log, and flush it."""
        raw = _get_checked(self._kv, _record_key(version, _LOG)) or b""
        found: dict[str, Changes] = {}
        expected: dict[str, bytes] = {}
        at = 0
        while at < len(raw):
            name, at = _read_text(raw, at)
            if name not in self._engines:
                raise StoreError(f"the database holds a store this version does not know ({name}): run the version that wrote it")
            expected[name], at = raw[at : at + 32], at + 32
            found[name], at = Changes.unpack(raw, at)
        staged = {name: engine.stage(found.get(name, Changes(())), version) for name, engine in self._engines.items() if name in found}
        for name, one in staged.items():
            if one.root_hash != expected[name]:
                raise CorruptStore(f"the log of version {version} does not lead to its root in {name}: restore a backup or snapshot")
            self._engines[name].commit()
        roots = {name: Root(one.root_key, one.root_hash) for name, one in staged.items()}
        again = _Version(version, found, staged, roots, self._hash_of(roots))
        self._write_nodes(again)
        self._roots = roots

    def _read_roots(self, version: int) -> dict[str, Root]:
        raw = _get_checked(self._kv, _record_key(version, _ROOTS))
        if raw is None:
            raise CorruptStore(f"the roots of version {version} are missing: restore the database from a backup or snapshot")
        roots: dict[str, Root] = {}
        at = 8
        while at < len(raw):
            name, at = _read_text(raw, at)
            key = _unpack(raw[at : at + 12])
            roots[name] = Root(key if key[0] else None, raw[at + 12 : at + 44])
            at += 44
        return roots

    def _read_orphans(self, version: int) -> Iterator[tuple[str, NodeKey]]:
        raw = _get_checked(self._kv, _record_key(version, _ORPHANS))
        if raw is None:
            raise CorruptStore(f"what version {version} no longer uses is not recorded: restore the database from a backup or snapshot")
        at = 0
        while at < len(raw):
            name, at = _read_text(raw, at)
            end = at + 4 + 12 * int.from_bytes(raw[at : at + 4], "big")
            for start in range(at + 4, end, 12):
                yield name, _unpack(raw[start : start + 12])
            at = end

    def _find_oldest(self, flushed: int) -> int:
        """The oldest version kept: the one that the last flushed version names, or, where pruning went on after it, the next that is there."""
        raw = _get_checked(self._kv, _record_key(flushed, _ROOTS)) or b""
        oldest = int.from_bytes(raw[:8], "big")
        return next(version for version in range(oldest, flushed + 1) if self._kv.get(_record_key(version, _ROOTS)) is not None)

    def _hash_of(self, roots: Mapping[str, Root]) -> bytes:
        return merkle.app_hash({name: root.hash for name, root in roots.items()}) if roots else EMPTY_HASH

    def _open_engine(self, name: str, root: Root | None) -> Engine:
        return open_engine(root.key if root else None, root.hash if root else EMPTY_HASH, self._loader(name), native=self._native)

    def _loader(self, name: str) -> Load:
        get = self._kv.get
        pending = self._pending

        def load(key: NodeKey) -> bytes | None:
            version = pending.get(key[0])
            if version is not None:
                nodes = version.staged[name].new_nodes
                return nodes[key[1] - 1] if 0 < key[1] <= len(nodes) else None
            return get(node_key(name, key))

        return load

    def _shrink(self) -> None:
        total = sum(engine.nodes() for engine in self._engines.values())
        for engine in self._engines.values():
            engine.shrink(self._cache_nodes * engine.nodes() * 3 // (4 * total))

    def _release(self, version: int) -> None:
        with self._lock:
            self._in_use[version] -= 1
            if not self._in_use[version]:
                del self._in_use[version]

    def _failed_behind(self, error: BaseException) -> None:
        with self._wake:
            self._background_error = self._background_error or error
            self._wake.notify_all()

    def _start_pruning(self, target: int) -> None:
        if self._pruner is None or not self._pruner.is_alive():
            self._pruner = threading.Thread(target=self._prune_behind, args=(target,), name="pruning", daemon=True)
            self._pruner.start()

    def _prune_behind(self, target: int) -> None:
        try:
            self.prune_to(target)
        except BaseException as error:
            self._failed_behind(error)

    def _join_pruner(self) -> None:
        if self._pruner is not None:
            self._pruner.join()
            self._pruner = None


def node_key(store: str, key: NodeKey) -> bytes:
    """Where a tree node is stored."""
    return _node_prefix(key[0], store) + _NONCE(key[1])


def _record_key(version: int, kind: bytes) -> bytes:
    return version.to_bytes(8, "big") + kind


def _local_key(version: int, name: str) -> bytes:
    return _record_key(version, _LOCAL) + name.encode("ascii")


def _pack_roots(oldest: int, roots: Mapping[str, Root]) -> bytes:
    return oldest.to_bytes(8, "big") + b"".join(_text(name) + _pack(root.key or (0, 0)) + root.hash for name, root in roots.items())


def _wipe(kv: KVBackend) -> None:
    """Delete everything; the mark that a snapshot is being restored last."""
    gone: list[bytes] = []
    for key, _ in kv.iterate():
        if key != _RESTORING:
            gone.append(key)
        if len(gone) >= WIPE_KEYS:
            kv.write((), gone, sync=False)
            gone = []
    kv.write((), [*gone, _RESTORING], sync=True)


def _node_prefix(version: int, name: str) -> bytes:
    return _record_key(version, _NODES) + name.encode("ascii") + b"/"


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


def _checked(key: bytes, value: bytes) -> tuple[bytes, bytes]:
    """A record and its checksum, which covers the key too: a value found under another key is not its own."""
    return key, hashlib.sha256(key + value).digest()[:8] + value


def _get_checked(kv: KVBackend, key: bytes) -> bytes | None:
    raw = kv.get(key)
    if raw is None:
        return None
    value = raw[8:]
    if _checked(key, value)[1] != raw:
        raise CorruptStore(f"record {key!r} does not match its checksum: the database is damaged; restore a backup or snapshot")
    return value
