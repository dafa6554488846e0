"""What a share's file holds, byte by byte, and how it is called. Everything the index knows can be read back from these files.

    shares/ab/cd/<root, 64 hex>.<serial, 32 hex>          one file for each copy, written once

    ┌──────────────┬──────────────────┬──────────┬────────────┬────────┬────────┐
    │ share bytes  │ leaf hashes      │ manifest │ footer     │ slot 0 │ slot 1 │
    │ size_bytes   │ 32 × leaves      │ 0 … 8192 │ 112        │ 32     │ 32     │
    └──────────────┴──────────────────┴──────────┴────────────┴────────┴────────┘
      none of both in a copy that shares another copy's bytes

The footer is "STRSHARE", version (2), flags (2; bit 0: bytes are shared), manifest bytes (4), share bytes (8), root (32), serial (16), stored at (8,
Unix seconds) and SHA-256 (32) over those 80 bytes, the leaf hashes and the manifest. A slot is sequence (8), state (1), zeros (7), changed at (8, Unix
seconds), zeros (4) and CRC-32 (4) over root, serial and the 28 bytes before. Integers are big-endian. The valid slot with the higher sequence holds
the state; a change overwrites the other one, so a torn write leaves the state before.
"""

from __future__ import annotations

import hashlib
import os
import re
import struct
import zlib
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Final

from sds_node.merkle import LEAF_BYTES, MAX_SHARE_BYTES, LeafHasher, leaf_count

ROOT_BYTES: Final = 32
HASH_BYTES: Final = 32
MAX_MANIFEST_BYTES: Final = 8192
SERIAL_BYTES: Final = 16
VERSION: Final = 1
BLOCK_BYTES: Final = 4096
"""What a file takes on disk is counted in these."""

_MAGIC: Final = b"STRSHARE"
_SHARED_FLAG: Final = 1
_FOOTER: Final = struct.Struct(">8sHHIQ32s16sQ")
_SLOT: Final = struct.Struct(">QB7xQ4x")
_DIGEST_BYTES: Final = 32
_SLOT_BYTES: Final = _SLOT.size + 4
_END_BYTES: Final = _FOOTER.size + _DIGEST_BYTES + 2 * _SLOT_BYTES
_NAME: Final = re.compile(r"([0-9a-f]{64})\.([0-9a-f]{32})")

Key = tuple[bytes, bytes]
"""A copy: (root, 32 bytes; serial of the order limit it was stored under, 16 bytes)."""


class State(IntEnum):
    """Where a copy is in its life. Numbers are on disk and never change their meaning."""

    PENDING = 1
    """Stored and acknowledged; the ledger has not named it yet."""
    CONFIRMED = 2
    """The ledger names it."""
    TRASH = 3
    """Deleted, and restorable until the grace time has passed."""
    GHOST = 4
    """Gone, but other copies share the bytes in its file."""


class Damaged(Exception):
    """A file does not hold what was written to it; the text says what differs."""


@dataclass(frozen=True, slots=True)
class Trailer:
    """What stands in a share's file after the bytes, checked against its digest."""

    root: bytes
    serial: bytes
    size_bytes: int
    stored_s: int
    is_shared: bool
    leaf_hashes: bytes
    manifest: bytes
    sequence: int
    state: State

    @property
    def key(self) -> Key:
        return self.root, self.serial


def file_name(key: Key) -> str:
    return f"{key[0].hex()}.{key[1].hex()}"


def key_of(name: str) -> Key | None:
    """The copy a file name stands for, or None for any other name."""
    found = _NAME.fullmatch(name)
    return (bytes.fromhex(found[1]), bytes.fromhex(found[2])) if found else None


def folder_of(root: bytes) -> str:
    """The folder of a share below ``shares/``: 65,536 of them, so ten million shares are about 150 in each."""
    text = root[:2].hex()
    return f"{text[:2]}/{text[2:]}"


def path_in(home: Path, key: Key) -> str:
    """The full path of a copy's file."""
    return f"{home}/shares/{folder_of(key[0])}/{file_name(key)}"


def length_bytes(size_bytes: int, manifest_bytes: int, *, is_shared: bool = False) -> int:
    """The length of a copy's file."""
    kept = 0 if is_shared else size_bytes + HASH_BYTES * leaf_count(size_bytes)
    return kept + manifest_bytes + _END_BYTES


def on_disk_bytes(length: int) -> int:
    """What a file of this length takes on disk: whole blocks."""
    return -(-length // BLOCK_BYTES) * BLOCK_BYTES


def encode_trailer(key: Key, size_bytes: int, stored_s: int, leaf_hashes: bytes, manifest: bytes, state: State, *, is_shared: bool) -> bytes:
    """Everything that follows the share's bytes in its file. ``leaf_hashes`` is empty for shared bytes."""
    head = _FOOTER.pack(_MAGIC, VERSION, _SHARED_FLAG if is_shared else 0, len(manifest), size_bytes, *key, stored_s)
    digest = hashlib.sha256(head + leaf_hashes + manifest).digest()
    return leaf_hashes + manifest + head + digest + _encode_slot(key, 1, state, stored_s) + bytes(_SLOT_BYTES)


def read_trailer(fd: int) -> Trailer:
    """The checked trailer of an open file. Raises Damaged when it is not whole, OSError when it cannot be read."""
    length = os.fstat(fd).st_size
    if length < _END_BYTES:
        raise Damaged(f"the file has {length} bytes, fewer than the {_END_BYTES} of the shortest")
    end = _pread(fd, _END_BYTES, length - _END_BYTES)
    head = end[: _FOOTER.size]
    magic, version, flags, manifest_bytes, size_bytes, root, serial, stored_s = _FOOTER.unpack(head)
    if magic != _MAGIC or version != VERSION or flags & ~_SHARED_FLAG:
        raise Damaged(f"the footer begins with {head[:12].hex()}: expected {_MAGIC.hex()}, version {VERSION} and known flags")
    is_shared = bool(flags & _SHARED_FLAG)
    if not (1 <= size_bytes <= MAX_SHARE_BYTES and manifest_bytes <= MAX_MANIFEST_BYTES):
        raise Damaged(f"the footer tells {size_bytes} share bytes and {manifest_bytes} of manifest, beyond what is ever written")
    if length != length_bytes(size_bytes, manifest_bytes, is_shared=is_shared):
        raise Damaged(f"the file has {length} bytes, which do not fit a share of {size_bytes} with a manifest of {manifest_bytes}")
    hashes_bytes = 0 if is_shared else HASH_BYTES * leaf_count(size_bytes)
    body = _pread(fd, hashes_bytes + manifest_bytes, length - _END_BYTES - hashes_bytes - manifest_bytes)
    if hashlib.sha256(head + body).digest() != end[_FOOTER.size : _FOOTER.size + _DIGEST_BYTES]:
        raise Damaged("leaf hashes, manifest and footer do not have the digest beside them")
    slots = end[_FOOTER.size + _DIGEST_BYTES :]
    sequence, state = max(_decode_slot((root, serial), slots[at : at + _SLOT_BYTES]) for at in (0, _SLOT_BYTES))
    return Trailer(root, serial, size_bytes, stored_s, is_shared, body[:hashes_bytes], body[hashes_bytes:], sequence, State(state))


def write_state(fd: int, trailer: Trailer, state: State, changed_s: int) -> None:
    """Overwrite the older slot of an open file. The caller makes it durable. Raises OSError."""
    sequence = trailer.sequence + 1
    at = os.fstat(fd).st_size - (1 if sequence % 2 == 0 else 2) * _SLOT_BYTES
    os.pwrite(fd, _encode_slot(trailer.key, sequence, state, changed_s), at)


def read_leaves(fd: int, trailer: Trailer, first: int, stop: int) -> bytes:
    """Leaves ``first`` to ``stop`` - 1 of an open file that holds its bytes, joined. Raises Damaged when one is not the leaf that was written."""
    start = first * LEAF_BYTES
    data = _pread(fd, min(stop * LEAF_BYTES, trailer.size_bytes) - start, start)
    hasher = LeafHasher()
    hasher.update(data)
    found, wanted = hasher.all_hashes(), trailer.leaf_hashes[first * HASH_BYTES : stop * HASH_BYTES]
    if found != wanted:
        index = next(at for at in range(len(wanted)) if found[at : at + 1] != wanted[at : at + 1]) // HASH_BYTES
        raise Damaged(f"leaf {first + index} is not what was written")
    return data


def _encode_slot(key: Key, sequence: int, state: State, changed_s: int) -> bytes:
    body = _SLOT.pack(sequence, state, changed_s)
    return body + zlib.crc32(key[0] + key[1] + body).to_bytes(4, "big")


def _decode_slot(key: Key, slot: bytes) -> tuple[int, int]:
    """(sequence, state) of a slot; (0, pending) when it holds none."""
    body = slot[: _SLOT.size]
    sequence, state, _changed_s = _SLOT.unpack(body)
    whole = zlib.crc32(key[0] + key[1] + body).to_bytes(4, "big") == slot[_SLOT.size :] and state in State._value2member_map_
    return (sequence, state) if whole else (0, State.PENDING)


def _pread(fd: int, count: int, at: int) -> bytes:
    """Exactly ``count`` bytes. Raises Damaged when the file ends before them."""
    data = os.pread(fd, count, at)
    while len(data) < count:
        more = os.pread(fd, count - len(data), at + len(data))
        if not more:
            raise Damaged(f"the file ends {count - len(data)} bytes before it should")
        data += more
    return data
