"""State-sync snapshots: a committed version as compressed chunks, and the way back.

    taking     a thread walks a held view, a little at a time, and writes  snapshots/<height>/<format>/{metadata.json, 0, 1, …}
    restoring  chunks in order ─► nodes ─► roots ─► the app hash that CometBFT's light client verified, or nothing at all

Format 1, before compression (zlib), numbers as unsigned varints:

    "STRS1"  then per store, by name:  01 name  nodes in post-order  04       and at the end  05
    leaf     02 version, key size, key, value size, value
    inner    03 version                 height, size and key follow from its children

Leaf versions, inner versions and the order of leaves are what the hashes cover, so a changed byte shows in the app hash; everything else is
computed. The metadata names each chunk's SHA-256, so that a bad chunk is found when it comes and its sender is known.

Whoever offers a snapshot is not trusted until the app hash comes out, so what he can make us do meanwhile is bounded: a chunk grows at most
hundredfold when it is decompressed, an entry has a largest size, unfinished subtrees are as many as a balanced tree has levels.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from chain.codec.varint import uvarint
from chain.store.errors import StoreError
from chain.store.iavl import EMPTY_HASH, MAX_HEIGHT, Node, encode_node, node_hash
from chain.store.kv import KVBackend
from chain.store.multistore import MultiStore, Root, View, node_key

log = structlog.get_logger("snapshots")

FORMAT: Final = 1
CHUNK_BYTES: Final = 8 << 20
MAX_CHUNKS: Final = 100_000
MAX_METADATA_BYTES: Final = 8 << 20
MAX_OFFERED: Final = 10
_MAGIC: Final = b"STRS1"
_STORE, _LEAF, _INNER, _STORE_END, _END = 1, 2, 3, 4, 5
_PIECE_BYTES: Final = 1 << 20
_MAX_KEY_BYTES: Final = 65_535
_MAX_VALUE_BYTES: Final = 128 << 20
_MAX_GROWTH: Final = 100
_FREE_GROWTH_BYTES: Final = 16 << 20
_MAX_NODES: Final = (1 << 32) - 1
_BATCH_NODES: Final = 2000
_WORK_NODES: Final = 200
_REST_S: Final = 0.01


class SnapshotError(StoreError):
    """A snapshot cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What is known of a snapshot before its chunks: ``chunk_hashes`` are SHA-256, ``header`` is the record that a restart needs."""

    height: int
    format: int
    chunk_hashes: tuple[bytes, ...]
    header: bytes

    @property
    def metadata(self) -> bytes:
        return json.dumps({"chunks": [one.hex() for one in self.chunk_hashes], "header": self.header.hex()}, separators=(",", ":")).encode()

    @property
    def hash(self) -> bytes:
        return hashlib.sha256(self.height.to_bytes(8, "big") + self.metadata).digest()

    @classmethod
    def from_offer(cls, height: int, form: int, chunks: int, digest: bytes, metadata: bytes) -> Snapshot:
        """The snapshot that a peer offers. Raises SnapshotError when its parts do not fit each other."""
        if len(metadata) > MAX_METADATA_BYTES or not 0 < chunks <= MAX_CHUNKS:
            raise SnapshotError(f"expected 1 to {MAX_CHUNKS} chunks and at most {MAX_METADATA_BYTES} bytes of metadata")
        try:
            told = json.loads(metadata)
            found = cls(height, form, tuple(bytes.fromhex(one) for one in told["chunks"]), bytes.fromhex(told["header"]))
        except (ValueError, KeyError, TypeError, RecursionError):
            raise SnapshotError("the snapshot's metadata cannot be read") from None
        if len(found.chunk_hashes) != chunks or any(len(one) != 32 for one in found.chunk_hashes) or found.hash != digest:
            raise SnapshotError("the snapshot's metadata does not fit its chunks and hash")
        return found


class SnapshotFolder:
    """The snapshots on disk. Any thread may call it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for leftover in root.glob("*/*.partial"):
            shutil.rmtree(leftover, ignore_errors=True)

    def list(self) -> list[Snapshot]:
        """All complete snapshots, newest first."""
        found = []
        for path in self.root.glob("*/*/metadata.json"):
            with contextlib.suppress(OSError, ValueError, KeyError):
                told = json.loads(path.read_bytes())
                hashes = tuple(bytes.fromhex(one) for one in told["chunks"])
                found.append(Snapshot(int(path.parent.parent.name), int(path.parent.name), hashes, bytes.fromhex(told["header"])))
        return sorted(found, key=lambda one: (one.height, one.format), reverse=True)

    def get(self, height: int, form: int) -> Snapshot:
        """Raises SnapshotError when there is none."""
        for one in self.list():
            if (one.height, one.format) == (height, form):
                return one
        raise SnapshotError(f"there is no snapshot of height {height} and format {form} in {self.root}")

    def chunk(self, height: int, form: int, number: int) -> bytes:
        """The bytes of a chunk; empty when it is not there."""
        try:
            return (self._place(height, form) / str(number)).read_bytes()
        except OSError:
            return b""

    def delete(self, height: int, form: int) -> None:
        """Raises SnapshotError when there is none."""
        self.get(height, form)
        shutil.rmtree(self._place(height, form))
        with contextlib.suppress(OSError):
            self._place(height, form).parent.rmdir()

    def keep(self, recent: int) -> None:
        """Delete all but the newest ``recent`` (0 keeps all)."""
        for one in self.list()[recent:] if recent else []:
            self.delete(one.height, one.format)

    def write(self, height: int, header: bytes, chunks: Iterator[bytes]) -> Snapshot:
        """Write a snapshot; it shows up only when it is complete and on disk."""
        place = self._place(height, FORMAT)
        partial = place.with_name(f"{FORMAT}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        hashes = []
        try:
            for number, chunk in enumerate(chunks):
                _write(partial / str(number), chunk)
                hashes.append(hashlib.sha256(chunk).digest())
            made = Snapshot(height, FORMAT, tuple(hashes), header)
            _write(partial / "metadata.json", made.metadata)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        shutil.rmtree(place, ignore_errors=True)
        partial.rename(place)
        return made

    def _place(self, height: int, form: int) -> Path:
        return self.root / str(height) / str(form)


class SnapshotTaker:
    """Takes a snapshot every ``interval`` heights (0: never), in a thread that rests often, and keeps the newest ``keep_recent``."""

    def __init__(self, store: MultiStore, folder: SnapshotFolder, interval: int, keep_recent: int) -> None:
        self._store = store
        self.folder = folder
        self.interval = interval
        self.keep_recent = keep_recent
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()

    def after_commit(self, height: int) -> None:
        """Begin a snapshot of ``height`` if it is due and none is being taken."""
        if not self.interval or height % self.interval or (self._thread is not None and self._thread.is_alive()):
            return
        view = self._store.view(height)
        self._thread = threading.Thread(target=self._take, args=(view, self._store.record("header", height) or b""), name="snapshot", daemon=True)
        self._thread.start()

    def take(self, height: int) -> Snapshot:
        """Take one now, in this thread, without rests."""
        with self._store.view(height) as view:
            return self.folder.write(height, self._store.record("header", height) or b"", chunks_of(view, self._store.names))

    def close(self) -> None:
        """Give up what is being taken."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _take(self, view: View, header: bytes) -> None:
        def rest() -> None:
            if self._stop.wait(_REST_S):
                raise _StoppedTaking

        started = time.monotonic()
        try:
            with view:
                made = self.folder.write(view.version, header, chunks_of(view, self._store.names, rest))
            self.folder.keep(self.keep_recent)
            log.info("took a snapshot", height=made.height, chunks=len(made.chunk_hashes), seconds=round(time.monotonic() - started, 1))
        except _StoppedTaking:
            pass
        except (OSError, StoreError) as error:
            log.error("a snapshot could not be taken", height=view.version, error=str(error))


class _StoppedTaking(Exception):
    """The node stops."""


def chunks_of(view: View, names: tuple[str, ...], rest: Callable[[], None] = lambda: None) -> Iterator[bytes]:
    """The compressed chunks of a version; ``rest`` is called every few hundred nodes."""
    packer = zlib.compressobj(6)
    buffer = bytearray()
    for piece in _pieces(view, names, rest):
        buffer += packer.compress(piece)
        while len(buffer) >= CHUNK_BYTES:
            yield bytes(buffer[:CHUNK_BYTES])
            del buffer[:CHUNK_BYTES]
    buffer += packer.flush()
    for at in range(0, len(buffer), CHUNK_BYTES):
        yield bytes(buffer[at : at + CHUNK_BYTES])


def _pieces(view: View, names: tuple[str, ...], rest: Callable[[], None]) -> Iterator[bytes]:
    yield _MAGIC
    held = view.root_hashes()
    for name in (one for one in names if one in held):
        yield bytes([_STORE, len(name)]) + name.encode()
        piece = bytearray()
        for count, node in enumerate(view.tree(name).post_order(), start=1):
            if node.height:
                piece += bytes([_INNER]) + uvarint(node.version)
            else:
                value = node.value or b""
                piece += bytes([_LEAF]) + uvarint(node.version) + uvarint(len(node.key)) + node.key + uvarint(len(value)) + value
            if count % _WORK_NODES == 0:
                yield bytes(piece)
                piece.clear()
                rest()
        piece.append(_STORE_END)
        yield bytes(piece)
    yield bytes([_END])


@dataclass(slots=True)
class _Built:
    """A finished subtree: its root as the parent needs it, and the smallest key below."""

    key: tuple[int, int]
    hash: bytes
    height: int
    size: int
    smallest: bytes


class Restorer:
    """Takes the chunks of one snapshot in order and writes its nodes into an empty database. Nothing counts until ``finish``."""

    def __init__(self, store: MultiStore, snapshot: Snapshot) -> None:
        self._store = store
        self.snapshot = snapshot
        self.next_chunk = 0
        self._unpacker = zlib.decompressobj()
        self._buffer = bytearray()
        self._wanted = 0  # bytes that the buffer must hold before its first item can be whole
        self._taken = self._given = 0
        self._started = self._ended = False
        self._name: str | None = None
        self._stack: list[_Built] = []
        self._nodes = 0
        self._largest: bytes | None = None
        self._roots: dict[str, Root] = {}
        self._puts: list[tuple[bytes, bytes]] = []
        self._kv: KVBackend = store.begin_restore()

    def add(self, chunk: bytes) -> None:
        """Take the next chunk, whose hash the caller compared. Raises SnapshotError for bytes that are no snapshot."""
        self._taken += len(chunk)
        pending = chunk
        while pending:
            if self._unpacker.eof:
                raise SnapshotError("the snapshot goes on after its end")
            try:
                piece = self._unpacker.decompress(pending, _PIECE_BYTES)
            except zlib.error:
                raise SnapshotError("a chunk of the snapshot does not decompress") from None
            pending = self._unpacker.unconsumed_tail or self._unpacker.unused_data
            self._given += len(piece)
            if self._given > _FREE_GROWTH_BYTES + _MAX_GROWTH * self._taken:
                raise SnapshotError(f"the snapshot grows more than {_MAX_GROWTH} times when it is decompressed")
            self._buffer += piece
            if len(self._buffer) >= self._wanted:
                self._read()
        self.next_chunk += 1

    def finish(self, app_hash: bytes | None) -> None:
        """All chunks came: make the version the store's only one if it has ``app_hash`` (None: any). Raises SnapshotError."""
        if not self._ended or self._buffer:
            raise SnapshotError("the snapshot ends too early or too late")
        self._flush()
        if not self._store.finish_restore(self.snapshot.height, self._roots, {"header": self.snapshot.header}, app_hash):
            raise SnapshotError(f"the snapshot of height {self.snapshot.height} does not lead to the app hash {(app_hash or b'').hex()}")

    def _read(self) -> None:
        raw = bytes(self._buffer)
        at = 0
        self._wanted = 0
        if not self._started:
            if len(raw) < len(_MAGIC):
                return
            if not raw.startswith(_MAGIC):
                raise SnapshotError("the snapshot does not begin as format 1 does")
            self._started, at = True, len(_MAGIC)
        while at < len(raw):
            try:
                at = self._item(raw, at)
            except _Short as short:  # the rest of the item comes with the next piece
                self._wanted = short.end - at
                break
            except IndexError:
                break
        del self._buffer[:at]

    def _item(self, raw: bytes, at: int) -> int:
        kind = raw[at]
        at += 1
        if self._ended:
            raise SnapshotError("the snapshot goes on after its end")
        if kind == _LEAF and self._name is not None:
            version, at = _read_uvarint(raw, at)
            size, at = _read_uvarint(raw, at)
            key, at = _take(raw, at, size, _MAX_KEY_BYTES)
            size, at = _read_uvarint(raw, at)
            value, at = _take(raw, at, size, _MAX_VALUE_BYTES)
            if not key or (self._largest is not None and key <= self._largest):
                raise SnapshotError("the snapshot's entries are not in order")
            self._largest = key
            self._push(Node(key, value, 0, 1), version, key)
        elif kind == _INNER and self._name is not None:
            version, at = _read_uvarint(raw, at)
            if len(self._stack) < 2:
                raise SnapshotError("an inner node of the snapshot lacks its children")
            right, left = self._stack.pop(), self._stack.pop()
            node = Node(right.smallest, None, max(left.height, right.height) + 1, left.size + right.size)
            node.left_key, node.left_hash, node.right_key, node.right_hash = left.key, left.hash, right.key, right.hash
            if abs(left.height - right.height) > 1:
                raise SnapshotError("a tree of the snapshot is not balanced")
            self._push(node, version, left.smallest)
        elif kind == _STORE and self._name is None:
            name, at = _take(raw, at + 1, raw[at], 255)
            self._name = name.decode("ascii", "replace")
            if self._name not in self._store.names or self._name in self._roots:
                raise SnapshotError(f"the snapshot holds a store that this version does not know: {self._name[:40]!r}")
        elif kind == _STORE_END and self._name is not None:
            if len(self._stack) > 1:
                raise SnapshotError("a tree of the snapshot has no root")
            root = self._stack.pop() if self._stack else None
            self._roots[self._name] = Root(root.key, root.hash) if root else Root(None, EMPTY_HASH)
            self._name, self._nodes, self._largest = None, 0, None
        elif kind == _END and self._name is None:
            self._ended = True
        else:
            raise SnapshotError(f"expected a store, a node or an end in the snapshot, got {kind}")
        return at

    def _push(self, node: Node, version: int, smallest: bytes) -> None:
        if not 0 < version <= self.snapshot.height:
            raise SnapshotError(f"a node of the snapshot has version {version}; expected 1 to {self.snapshot.height}")
        self._nodes += 1
        if len(self._stack) > MAX_HEIGHT or self._nodes > _MAX_NODES:
            raise SnapshotError("a tree of the snapshot is not balanced or has too many nodes")
        node.version = version
        node.nonce = self._nodes  # any number that the version uses once
        node.hash = node_hash(node)
        self._puts.append((node_key(self._name or "", (version, node.nonce)), encode_node(node)))
        self._stack.append(_Built((version, node.nonce), node.hash, node.height, node.size, smallest))
        if len(self._puts) >= _BATCH_NODES:
            self._flush()

    def _flush(self) -> None:
        self._kv.write(self._puts, sync=False)
        self._puts = []


class _Short(Exception):
    """An item goes on to ``end`` at least, which has not come yet."""

    def __init__(self, end: int) -> None:
        self.end = end


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _read_uvarint(raw: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 63, 7):
        byte = raw[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise SnapshotError("a number of the snapshot has more than 63 bits")


def _take(raw: bytes, at: int, size: int, most: int) -> tuple[bytes, int]:
    if size > most:
        raise SnapshotError(f"an entry of the snapshot has {size} bytes; at most {most} are allowed")
    if at + size > len(raw):
        raise _Short(at + size)
    return raw[at : at + size], at + size
