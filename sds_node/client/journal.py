"""What is known of puts that are not done, on disk, so that one that was interrupted goes on with what is stored while its lease lives.

    put of a file ─► <home>/puts/<id>.put    {session, lease, counter, key, scheme, the file's identity}
      segment coded ─► its root, synced, before a byte of it goes out          segment confirmed ─► its acknowledgements, synced
    interrupted ─► <home>/puts/<lease id>.lease, held by the client that took the lease: another process that goes on does not end it under that one's puts

**A key seals nothing else.** A put that goes on reads the whole file again and seals it under the same key. No segment goes out whose root is another than the
one noted before it went out the first time: then the file was changed, the journal is dropped, and the put begins anew under a new key. A segment without a
note never went out. One put at a time has the journal of a file and path (<id>.lock); a second one goes without. The
journal has the session's key, which is worth nothing after the lease's hour, and the file's, which opens what is stored under it for as long as that is
there: only its owner may read it. It goes when the put is done or ends with nothing to go on with, and at the next use of the home after two hours.

Notes are written and synced in a thread: a slow disk holds up its own put, and nobody takes the nodes of others for stalled meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import threading
from base64 import b64decode, b64encode
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO, Final

from google.protobuf.message import DecodeError

from chain.crypto import address as bech32
from chain.crypto.keys import PrivateKey
from sds_node import asking
from sds_node.cipher import KEY_BYTES
from sds_node.client import locks
from sds_node.client.commits import from_kept, kept
from sds_node.client.errors import SourceChanged, StorageError
from sds_node.client.leases import LEAST_LIFE_S, Lease, in_use_path
from sds_node.client.meta import MetaClient
from sds_node.client.placing import Place
from sds_node.client.session import Session, WalletDocument
from sds_node.client.sources import Source
from sds_node.client.transfer import StoredSegment
from sds_node.documents import Lease as LeaseDocument
from sds_node.documents import LeaseCertificate, Refused, opened
from sds_node.merkle import segment_root
from sds_node.p2p import ADDRESS_BYTES, SEED_BYTES
from sds_node.schemes import SEGMENT_BYTES, Scheme, SchemeError, scheme_of, segment_count, segment_size
from sds_node.threads import in_thread

LEAST_BYTES: Final = SEGMENT_BYTES
"""A smaller put is begun anew as fast."""
MAX_JOURNAL_BYTES: Final = 512 << 20
MAX_LINE_BYTES: Final = 1 << 20
OLD_S: Final = 7_200
_FORM: Final = "stratos-put/v1"
_UNREADABLE: Final = (ValueError, KeyError, TypeError, DecodeError, SchemeError, Refused)


@dataclass(eq=False)
class Journal:
    """One put. A ``Memory`` of ``put_object``."""

    path: Path
    session: Session
    certificate: Any
    meta: bytes
    counter: int
    key: bytes = field(repr=False)
    scheme: Scheme
    size_bytes: int
    roots: dict[int, bytes] = field(default_factory=dict)
    done: dict[int, bytes] = field(default_factory=dict)
    is_resumed: bool = False
    may_go_on: bool = False
    """Something is stored, and the put is not done."""
    was_whole: bool = False
    """All was stored before, so that it may be in the ledger already."""
    _is_closed: bool = False
    _file: FileIO | None = None
    _using: threading.Lock = field(default_factory=threading.Lock)
    """The file: who closes it waits for a note that is being written."""
    _client: MetaClient | None = None

    def go_on(self, client: MetaClient) -> None:
        """Use what was noted, with the peers of a client of the same session."""
        self._client, self.is_resumed, self.may_go_on = client, bool(self.done), bool(self.done)
        self.was_whole = len(self.done) == segment_count(self.size_bytes)

    async def coded(self, segment: int, root: bytes) -> StoredSegment | None:
        """Note a segment's root before it goes out. Raises SourceChanged for another one than before, StorageError when the disk is full."""
        before = self.roots.get(segment)
        if before is not None and before != root:
            raise SourceChanged("the file changed since its put was interrupted: it is stored from the beginning")
        if before is None:
            await asyncio.to_thread(self._note, {"segment": segment, "root": root.hex()})
            self.roots[segment] = root
            return None
        data = self.done.get(segment)
        return None if data is None else self._stored(segment, root, data)

    async def stored(self, segment: int, found: StoredSegment) -> None:
        """Note a confirmed segment. Raises StorageError when the disk is full."""
        # Whoever is stopped meanwhile has it noted, too: it is paid once it is committed.
        await in_thread(self._note, {"segment": segment, "stored": b64encode(kept(found)).decode()})

    def _stored(self, segment: int, root: bytes, data: bytes) -> StoredSegment | None:
        """What was noted, if it is whole."""
        try:
            message = asking.StoredSegment.FromString(data)
            if segment_root([bytes(one) for one in message.share_roots]) != root or self._client is None:
                return None
            places = {
                one.index: Place(self._client.peer(bytes(one.p2p_key), "noted:1", None), bytes(one.p2p_key), one.order_limit, self.certificate)
                for one in message.shares
            }
            return from_kept(data, root, segment_size(self.size_bytes, segment), places)
        except (DecodeError, StorageError):
            return None

    def _note(self, line: dict[str, Any]) -> None:
        with self._using:
            if self._is_closed:
                raise StorageError("the put was stopped before this note's turn")
            try:
                if self._file is None:
                    self._file = self.path.open("ab", buffering=0)
                _append(self._file, json.dumps(line, separators=(",", ":")).encode() + b"\n")
            except OSError as error:
                raise _no_room(self.path.parent, error) from None
            self.may_go_on = self.may_go_on or "stored" in line

    async def close(self) -> None:
        """The put ended, or is interrupted: what is noted stays if something is stored, since a lease under which nothing is ends."""
        await in_thread(self._close, False)

    async def drop(self) -> None:
        """The put is done, or cannot go on."""
        await in_thread(self._close, True)

    def _close(self, is_over: bool) -> None:
        with self._using:
            self._is_closed = True
            self.may_go_on = self.may_go_on and not is_over
            # All is on the disk, or was told to be not; and what cannot be removed goes with the home's next use.
            with contextlib.suppress(OSError):
                if self._file is not None:
                    self._file.close()
            self._file = None
            with contextlib.suppress(OSError):
                if not self.may_go_on:
                    self.path.unlink(missing_ok=True)


class Journals:
    """The puts of one home. ``wallet`` is whose. Raises StorageError when there is no room for them."""

    def __init__(self, folder: Path, wallet: PrivateKey, chain_id: str, clock: Any) -> None:
        self._folder, self._wallet, self._chain_id, self._clock = folder, wallet, chain_id, clock
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise _no_room(folder, error) from None
        for old in [*folder.glob("*.put"), *folder.glob("*.new"), *folder.glob("*.lock"), *folder.glob("*.lease")]:
            # Another process may clean up, too.
            with contextlib.suppress(OSError):
                if old.stat().st_mtime >= clock() - OLD_S:
                    continue
                if old.suffix in (".put", ".new"):
                    old.unlink()
                else:
                    with locks.claimed(old):
                        pass  # so it goes, unless it is in use

    def _path(self, source: Source, path: str, is_public: bool) -> Path:
        said = json.dumps([self._chain_id, self._wallet.public_key.raw.hex(), path, is_public, source.identity], sort_keys=True)
        return self._folder / f"{sha256(said.encode()).hexdigest()[:40]}.put"

    @contextlib.contextmanager
    def held(self, source: Source, path: str, is_public: bool) -> Iterator[bool]:
        """Have the journal of a put for oneself: whether it is, and not another call's. Raises StorageError."""
        if source.identity is None:
            yield False
            return
        with contextlib.ExitStack() as lock:
            try:
                is_held = lock.enter_context(locks.claimed(self._path(source, path, is_public).with_suffix(".lock")))
            except OSError as error:
                raise _no_room(self._folder, error) from None
            yield is_held

    async def begin(
        self, source: Source, path: str, is_public: bool, size_bytes: int, scheme: Scheme, session: Session, lease: Lease, counter: int, key: bytes
    ) -> Journal | None:
        """The journal of a new put that has it ``held``; None for one that is not worth it, or whose content cannot be read again. Raises StorageError."""
        if source.identity is None or size_bytes < LEAST_BYTES:
            return None
        target = self._path(source, path, is_public)
        head = {
            "form": _FORM,
            "identity": source.identity,
            "seed": session.seed.hex(),
            "grant": b64encode(session.grant.SerializeToString()).decode(),
            "certificate": b64encode(lease.certificate.SerializeToString()).decode(),
            "meta": lease.meta.hex(),
            "counter": counter,
            "key": key.hex(),
            "k": scheme.k,
            "n": scheme.n,
            "size_bytes": size_bytes,
            "expires_s": lease.expires_s,
        }
        fresh = target.with_suffix(f".{secrets.token_hex(4)}.new")
        try:
            await in_thread(_write_new, fresh, json.dumps(head, separators=(",", ":")).encode() + b"\n")
            os.replace(fresh, target)
        except OSError as error:
            raise _no_room(self._folder, error) from None
        finally:
            with contextlib.suppress(OSError):
                fresh.unlink(missing_ok=True)
        return Journal(target, session, lease.certificate, lease.meta, counter, key, scheme, size_bytes)

    async def find(self, source: Source, path: str, is_public: bool, least_life_s: float = LEAST_LIFE_S) -> Journal | None:
        """The journal of an earlier put of the same file to the same path, for one that has it ``held``; removed when its lease has less time left."""
        return None if source.identity is None else await in_thread(self._find, source, self._path(source, path, is_public), least_life_s)

    def _find(self, source: Source, target: Path, least_life_s: float) -> Journal | None:
        found = None
        try:
            with target.open("r+b") as file, contextlib.suppress(*_UNREADABLE):
                if os.fstat(file.fileno()).st_size > MAX_JOURNAL_BYTES:
                    return None
                found = self._read(target, file, source, least_life_s)
            if found is None:
                target.unlink(missing_ok=True)
        except OSError:
            return None
        return found

    async def let_go(self, lease: Lease) -> None:
        """A put that went on under a lease that was lent is over: the lease is lent no more, unless it is in use where it was taken, or a journal leads to it.
        Whoever is stopped meanwhile has it said, too.
        """
        await in_thread(self._let_go, lease)

    def _let_go(self, lease: Lease) -> None:
        # In this order: of two that are over at the same time one has it end, or both. Where it cannot be told, it ends with its time.
        with contextlib.suppress(OSError):
            if not self._lead_to(lease.lease_id):
                with locks.claimed(in_use_path(self._folder, lease.lease_id)) as is_free:
                    lease.is_lent = not is_free

    def _lead_to(self, lease_id: bytes) -> bool:
        for path in self._folder.glob("*.put"):
            with contextlib.suppress(OSError, *_UNREADABLE):
                with path.open("rb") as file:
                    head = json.loads(file.readline(MAX_LINE_BYTES))
                certificate = LeaseCertificate.FromString(b64decode(head["certificate"]))
                if opened(LeaseDocument, certificate.body).lease_id == lease_id:
                    return True
        return False

    def _read(self, target: Path, file: BinaryIO, source: Source, least_life_s: float) -> Journal | None:
        head = json.loads(file.readline(MAX_LINE_BYTES))
        if head["form"] != _FORM or head["identity"] != source.identity or head["expires_s"] - least_life_s < self._clock():
            return None
        grant = WalletDocument.FromString(b64decode(head["grant"]))
        certificate = LeaseCertificate.FromString(b64decode(head["certificate"]))
        opened(LeaseDocument, certificate.body)
        seed, key, meta = (bytes.fromhex(head[name]) for name in ("seed", "key", "meta"))
        if len(seed) != SEED_BYTES or len(key) not in (0, KEY_BYTES) or len(meta) != ADDRESS_BYTES:
            return None
        session = Session(self._chain_id, bech32.encode(self._wallet.public_key.address), seed, grant, self._clock)
        scheme, size = scheme_of(head["k"], head["n"]), int(head["size_bytes"])
        made = Journal(target, session, certificate, meta, int(head["counter"]), key, scheme, size)
        whole = file.tell()
        while (line := file.readline(MAX_LINE_BYTES)).endswith(b"\n"):
            whole = file.tell()
            said = json.loads(line)
            if "root" in said:
                made.roots[int(said["segment"])] = bytes.fromhex(said["root"])
            else:
                made.done[int(said["segment"])] = b64decode(said["stored"])
        file.truncate(whole)  # the last line may be torn, and others follow
        return made


def _append(file: FileIO, line: bytes) -> None:
    """A line to the end of a file, synced; nothing of it, if that fails: others may follow. Raises OSError."""
    end = os.fstat(file.fileno()).st_size
    try:
        left = memoryview(line)
        while left:
            left = left[file.write(left) :]
        os.fsync(file.fileno())
    except OSError:
        with contextlib.suppress(OSError):
            os.ftruncate(file.fileno(), end)
        raise


def _write_new(path: Path, line: bytes) -> None:
    """A file of one line, which only its owner may read, synced. Raises OSError."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
        out.write(line)
        out.flush()
        os.fsync(out.fileno())


def _no_room(folder: Path, error: OSError) -> StorageError:
    return StorageError(f"{folder}, where it is noted how far puts are, cannot be written ({error.strerror}): make room there and run it again")
