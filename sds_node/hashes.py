"""Names of content, as the original makes them: file hashes, slice hashes, and where a file is cut (reference sds.md 2.1 to 2.3).

    content ─────► d1 = M(content) ─► d2 = M(tag ‖ d1) ─────────► file hash   "v" + base32hex(1 ‖ codec ‖ d2)
    slice number i ─► b = M(i ‖ bytes) ─► M(b XOR d2) ──────────► slice hash  "v" + base32hex(1 ‖ 0x55 ‖ …)

M is a multihash of 22 bytes: 0x1b, 0x14, the first 20 bytes of Keccak-256. b does not need d2, so one pass over a stream gives all of its names.
"""

from __future__ import annotations

import re
from base64 import b32hexdecode, b32hexencode
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

import sha3

Buffer: TypeAlias = bytes | bytearray | memoryview

FILE: Final = 0x66
"""Codec of a file."""
VIDEO: Final = 0x72
"""Codec of a video that is streamed (HLS)."""
RAW: Final = 0x55
"""Codec of every slice, and of files named before 0x66 came. Those names rest on MD5: they are read and never made."""
CODECS: Final = (FILE, VIDEO, RAW)

DIGEST_BYTES: Final = 20
HASH_CHARACTERS: Final = 40
MAX_TAG_BYTES: Final = 64

SLICE_BYTES: Final = 33_554_432
PIECE_BYTES: Final = 3_145_728
"""The most that one packet of a download carries."""
UPLOAD_CHUNK_BYTES: Final = 3_500_000
"""The most that one call of an upload carries, before base64."""
MAX_META_INFO_CHARACTERS: Final = 40
MAX_SLICES: Final = 1 << 20
MAX_FILE_BYTES: Final = MAX_SLICES * SLICE_BYTES
"""32 TiB. It bounds what the names of one stream take in memory: 20 bytes a slice."""

_MULTIHASH_HEAD: Final = b"\x1b\x14"
_CID_BYTES: Final = 24
_IS_HASH: Final = re.compile(r"v[0-9a-v]{39}").fullmatch


class HashError(ValueError):
    """Not a name of this network, or a size, position or tag that no file has. The message says what was expected."""


@dataclass(frozen=True)
class Hash:
    """A parsed name: ``codec`` is FILE, VIDEO or RAW, ``digest`` has 20 bytes."""

    codec: int
    digest: bytes

    def __post_init__(self) -> None:
        if self.codec not in CODECS or len(self.digest) != DIGEST_BYTES:
            raise HashError(f"a hash has codec 0x55, 0x66 or 0x72 and a digest of 20 bytes, got {self.codec:#x} and {len(self.digest)} bytes")


@dataclass(frozen=True)
class ContentNames:
    """What one pass over a stream of ``size_bytes`` found: the file's name, and the names of slices 1, 2, …, in this order."""

    file_hash: str
    slice_hashes: tuple[str, ...]
    size_bytes: int


def format_hash(name: Hash) -> str:
    """The 40 characters of a name."""
    return "v" + b32hexencode(bytes((1, name.codec)) + _MULTIHASH_HEAD + name.digest).decode("ascii").rstrip("=").lower()


def parse_hash(text: str) -> Hash:
    """The name in ``text``. Raises HashError unless it is CIDv1, a codec of ours, Keccak-256 cut to 20 bytes, in lower-case base32hex."""
    # One form for each name: the original takes any multibase and any codec, so one file could stand under many texts.
    if not isinstance(text, str) or not _IS_HASH(text):
        raise HashError(f"a hash is v and 39 more of the characters 0-9 and a-v, got {_shown(text)}")
    raw = b32hexdecode(text[1:].upper() + "=")
    if raw[0] != 1 or raw[1] not in CODECS or raw[2:4] != _MULTIHASH_HEAD:
        raise HashError(f"a hash starts with v05j1m5 (file), v05p1m5 (video) or v05ahm5 (slice, old file), got {_shown(text)}")
    name = Hash(raw[1], raw[4:_CID_BYTES])
    if format_hash(name) != text:
        raise HashError(f"the last character of {_shown(text)} has bits that mean nothing: is it mistyped?")
    return name


def parse_slice_hash(text: str) -> Hash:
    """The name of a slice. Raises HashError."""
    name = parse_hash(text)
    if name.codec != RAW:
        raise HashError(f"the hash of a slice starts with v05ahm5, got {text}: is it the hash of a file?")
    return name


def is_hash(text: str) -> bool:
    """True if ``parse_hash`` takes it."""
    try:
        parse_hash(text)
    except HashError:
        return False
    return True


def is_video(text: str) -> bool:
    """True for the hash of a video that is streamed; False for every other hash. Raises HashError for what is none."""
    return parse_hash(text).codec == VIDEO


def is_legacy(text: str) -> bool:
    """True if a file's hash is of the old kind, which rests on MD5: it names the file, but content cannot be checked against it."""
    return parse_hash(text).codec == RAW


class FileHasher:
    """The hash of one file, of bytes that come in parts of any length. ``codec`` is FILE or VIDEO; the tag is that of an encrypted file."""

    def __init__(self, codec: int = FILE, encryption_tag: str = "") -> None:
        """Raises HashError for another codec or a tag of more than 64 bytes."""
        if codec not in (FILE, VIDEO):
            raise HashError(f"names are made with codec {FILE:#x} (file) or {VIDEO:#x} (video), got {codec:#x}")
        self._codec = codec
        self._tag = _tag_bytes(encryption_tag)
        self._content = sha3.keccak_256()
        self.size_bytes = 0

    def update(self, data: Buffer) -> None:
        """The next bytes of the file. Raises HashError beyond 32 TiB."""
        more = memoryview(data).nbytes
        if self.size_bytes + more > MAX_FILE_BYTES:
            raise HashError(f"a file has at most {MAX_FILE_BYTES} bytes, got {self.size_bytes + more}")
        self._content.update(data)
        self.size_bytes += more

    def name(self) -> Hash:
        """The name of what has come so far; more may follow."""
        return _file_name(self._codec, self._tag, self._content.digest())

    def file_hash(self) -> str:
        """``name`` as 40 characters."""
        return format_hash(self.name())


class SliceHasher:
    """The hash of one slice, of bytes that come in parts of any length. ``number`` counts from 1."""

    def __init__(self, number: int) -> None:
        """Raises HashError for a number below 1 or above 1,048,576."""
        if not 1 <= number <= MAX_SLICES:
            raise HashError(f"slices are numbered from 1 to {MAX_SLICES}, got {number}")
        self._content = sha3.keccak_256(number.to_bytes(8, "big"))
        self.size_bytes = 0

    def update(self, data: Buffer) -> None:
        """The next bytes of the slice, as they are stored. Raises HashError beyond 32 MiB."""
        more = memoryview(data).nbytes
        if self.size_bytes + more > SLICE_BYTES:
            raise HashError(f"a slice has at most {SLICE_BYTES} bytes, got {self.size_bytes + more}")
        self._content.update(data)
        self.size_bytes += more

    def content_digest(self) -> bytes:
        """20 bytes that do not depend on the file: ``slice_hash_of`` makes the hash of them and of the file's."""
        digest: bytes = self._content.digest()[:DIGEST_BYTES]
        return digest

    def slice_hash(self, file_hash: str) -> str:
        """The hash of what has come so far. Raises HashError if ``file_hash`` is none."""
        return slice_hash_of(parse_hash(file_hash), self.content_digest())


class ContentHasher:
    """All names of one stream in one pass: the file's hash and every slice's. It keeps 20 bytes for each slice, and no content.

    Each byte goes through Keccak twice. Keccak leaves the interpreter to others meanwhile: who has a second core can feed a FileHasher and
    SliceHashers in two threads instead, and join them with ``slice_hash_of``.
    """

    def __init__(self, codec: int = FILE, encryption_tag: str = "") -> None:
        """Raises HashError as FileHasher does."""
        self._file = FileHasher(codec, encryption_tag)
        self._slice = SliceHasher(1)
        self._digests: list[bytes] = []

    @property
    def size_bytes(self) -> int:
        """Bytes that have come so far."""
        return self._file.size_bytes

    def update(self, data: Buffer) -> None:
        """The next bytes, any number of them. Raises HashError beyond 32 TiB, and has then taken none of them."""
        view = memoryview(data).cast("B")
        self._file.update(view)
        while view:
            if self._slice.size_bytes == SLICE_BYTES:
                # Begun only when a byte is there for it: a file that ends on a border has no empty slice behind it.
                self._digests.append(self._slice.content_digest())
                self._slice = SliceHasher(len(self._digests) + 1)
            room = SLICE_BYTES - self._slice.size_bytes
            self._slice.update(view[:room])
            view = view[room:]

    def names(self) -> ContentNames:
        """The names of what has come so far. An empty file has a hash and no slice."""
        name = self._file.name()
        digests = [*self._digests, self._slice.content_digest()] if self._slice.size_bytes else self._digests
        return ContentNames(format_hash(name), tuple(slice_hash_of(name, digest) for digest in digests), self.size_bytes)


def file_hash(content: Buffer, codec: int = FILE, encryption_tag: str = "") -> str:
    """The hash of a whole file. Raises HashError."""
    hasher = FileHasher(codec, encryption_tag)
    hasher.update(content)
    return hasher.file_hash()


def slice_hash(file_hash: str, number: int, content: Buffer) -> str:
    """The hash of slice ``number`` (from 1) of a file. Raises HashError."""
    hasher = SliceHasher(number)
    hasher.update(content)
    return hasher.slice_hash(file_hash)


def slice_hash_of(file_name: Hash, content_digest: bytes) -> str:
    """The hash of a slice from its file's name and from ``SliceHasher.content_digest`` (20 bytes)."""
    # The heads of the two multihashes are equal, so the XOR of all 22 bytes starts with two zeros.
    mixed = bytes(2) + bytes(one ^ other for one, other in zip(file_name.digest, content_digest, strict=True))
    return format_hash(Hash(RAW, _digest(mixed)))


def slice_count(size_bytes: int) -> int:
    """How many slices a file has: none when it is empty. Raises HashError for a size that no file has."""
    if not 0 <= size_bytes <= MAX_FILE_BYTES:
        raise HashError(f"a file has 0 to {MAX_FILE_BYTES} bytes, got {size_bytes}")
    return -(-size_bytes // SLICE_BYTES)


def slice_range(size_bytes: int, number: int) -> tuple[int, int]:
    """(first byte, byte after the last) of slice ``number``, counted from 1, in a file of ``size_bytes``. Raises HashError."""
    count = slice_count(size_bytes)
    if not 1 <= number <= count:
        raise HashError(f"a file of {size_bytes} bytes has slices 1 to {count}, got {number}")
    return (number - 1) * SLICE_BYTES, min(number * SLICE_BYTES, size_bytes)


def slice_ranges(size_bytes: int) -> Iterator[tuple[int, int]]:
    """(first byte, byte after the last) of every slice, in order. Raises HashError."""
    return (slice_range(size_bytes, number) for number in range(1, slice_count(size_bytes) + 1))


def slice_at(size_bytes: int, offset_bytes: int) -> int:
    """The number of the slice that holds the byte at ``offset_bytes``. Raises HashError."""
    slice_count(size_bytes)
    if not 0 <= offset_bytes < size_bytes:
        raise HashError(f"an offset in a file of {size_bytes} bytes is at least 0 and less than that, got {offset_bytes}")
    return offset_bytes // SLICE_BYTES + 1


def piece_at(size_bytes: int, offset_bytes: int) -> tuple[int, int]:
    """The piece of a download that starts at ``offset_bytes``: (start, end), at most 3 MiB, ending with its slice. Raises HashError."""
    return _cut(size_bytes, offset_bytes, PIECE_BYTES)


def upload_chunk_at(size_bytes: int, offset_bytes: int) -> tuple[int, int]:
    """The chunk of an upload that starts at ``offset_bytes``: (start, end), at most 3,500,000 bytes, ending with its slice. Raises HashError."""
    return _cut(size_bytes, offset_bytes, UPLOAD_CHUNK_BYTES)


def pieces(size_bytes: int) -> Iterator[tuple[int, int]]:
    """Every piece of a download, in order. Raises HashError."""
    slice_count(size_bytes)
    return _cuts(size_bytes, PIECE_BYTES)


def upload_chunks(size_bytes: int) -> Iterator[tuple[int, int]]:
    """Every chunk of an upload, in order. Raises HashError."""
    slice_count(size_bytes)
    return _cuts(size_bytes, UPLOAD_CHUNK_BYTES)


def _cuts(size_bytes: int, longest_bytes: int) -> Iterator[tuple[int, int]]:
    start = 0
    while start < size_bytes:
        start, end = _cut(size_bytes, start, longest_bytes)
        yield start, end
        start = end


def _cut(size_bytes: int, offset_bytes: int, longest_bytes: int) -> tuple[int, int]:
    _, border = slice_range(size_bytes, slice_at(size_bytes, offset_bytes))
    return offset_bytes, min(offset_bytes + longest_bytes, border)


def _tag_bytes(encryption_tag: str) -> bytes:
    try:
        tag = encryption_tag.encode()
    except UnicodeEncodeError:
        raise HashError("an encryption tag is Unicode text, got half of a surrogate pair") from None
    if len(tag) > MAX_TAG_BYTES:
        raise HashError(f"an encryption tag has at most {MAX_TAG_BYTES} bytes, got {len(tag)}")
    return tag


def _file_name(codec: int, tag: bytes, content: bytes) -> Hash:
    return Hash(codec, _digest(tag + _MULTIHASH_HEAD + content[:DIGEST_BYTES]))


def _digest(data: bytes) -> bytes:
    digest: bytes = sha3.keccak_256(data).digest()[:DIGEST_BYTES]
    return digest


def _shown(text: object) -> str:
    return ascii(text) if not isinstance(text, str) or len(text) <= 60 else f"{text[:60]!a}…"
