"""What a private file is on the network: frames that only its key opens, and that key wrapped for a wallet or a link. Names of files, too.

    content   ┌──── 1 MiB ────┬──── 1 MiB ────┬─ rest ─┐           an empty file has one frame, of no content
    stored    │ 1 MiB + 16    │ 1 MiB + 16    │ + 16   │           AES-256-GCM; nonce = frame number, 12 bytes big-endian, top bit on the last only
                                                                   no other data goes into the tag
    file key  random, new for each version ── wrapped under HKDF(storage seed, object id) or HKDF(link secret, password)
    name      sealed under a key of its folder; found by HMAC(another key of the folder, name)

A frame in another place, a doubled, a left out or a changed one does not open, since its number is its nonce; a stream that was cut has no last
frame.

**No nonce is used twice under a key.** A file key is made here, by the operating system's randomness, for one ``Encryptor`` that seals one stream and
ends; its frames are numbered by a counter that only goes forward, and the bit of the last frame is set once. A wrapping key is derived from what
names one file or one link, and a folder's key seals many names; both take random nonces, which are safe for 2^32 times each. Source: ADR 7, "what a
file becomes"; storage-interfaces.md 3.2.
"""

from __future__ import annotations

import hmac
import itertools
import secrets
import unicodedata
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from sds_node.merkle import Buffer
from sds_node.schemes import MAX_OBJECT_BYTES

FRAME_BYTES: Final = 1024 * 1024
TAG_BYTES: Final = 16
KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
OBJECT_ID_BYTES: Final = 32
STORED_FRAME_BYTES: Final = FRAME_BYTES + TAG_BYTES
MAX_FRAMES: Final = MAX_OBJECT_BYTES // STORED_FRAME_BYTES
MAX_PLAIN_BYTES: Final = MAX_FRAMES * FRAME_BYTES
"""What fits into the largest object, in whole frames: a little less than 16 TiB."""
LAST_FRAME: Final = 1 << 95
"""The top bit of a nonce."""
WRAPPED_KEY_BYTES: Final = NONCE_BYTES + KEY_BYTES + TAG_BYTES
LINK_WRAPPED_BYTES: Final = 1 + WRAPPED_KEY_BYTES
MAX_SHARE_ID_BYTES: Final = 64
MAX_PASSWORD_CHARACTERS: Final = 1_024
MAX_NAME_BYTES: Final = 1_024
LOOKUP_ID_BYTES: Final = 32
_NAME_BLOCK_BYTES: Final = 32
_NAME_END: Final = b"\x80"
_PLAIN_LINK: Final = b"\x00"
_PASSWORD_LINK: Final = b"\x01"
# One lane, so that a browser without threads does the same; 64 MiB and 3 passes are a fraction of a second.
_ARGON2_PASSES: Final = 3
_ARGON2_MEMORY_KIB: Final = 64 * 1024
_ARGON2_LANES: Final = 1


class CipherError(Exception):
    """Bytes, a key or a number that the cipher cannot take; the message says what was expected and what came."""


class WrongSize(CipherError):
    """A length that no content or stored stream has, or more or fewer bytes than were said to come."""


class Damaged(CipherError):
    """A frame does not open. ``frame`` is its number. Nothing of it was given out."""

    def __init__(self, frame: int) -> None:
        self.frame = frame
        super().__init__(f"frame {frame} does not open: it was changed, moved, or the stream cut, or this is not the file's key")


class WrongKey(CipherError):
    """A wrapped key or name does not open: it is of another wallet, link, password, folder or name, or was changed."""


class PasswordNeeded(CipherError):
    """A link's key is wrapped with a password and none was given."""


def _check_length(value: bytes, size_bytes: int, what: str) -> None:
    if len(value) != size_bytes:
        raise CipherError(f"{what} has {size_bytes} bytes, not {len(value)}")


def frame_count(content_bytes: int) -> int:
    """How many frames content of that many bytes has: at least one. Raises WrongSize for content that is too long."""
    if not 0 <= content_bytes <= MAX_PLAIN_BYTES:
        raise WrongSize(f"content has from 0 to {MAX_PLAIN_BYTES} bytes, not {content_bytes}")
    return max(1, -(-content_bytes // FRAME_BYTES))


def stored_bytes(content_bytes: int) -> int:
    """Length of content → length of its stored stream. Raises WrongSize for content that is too long."""
    return content_bytes + TAG_BYTES * frame_count(content_bytes)


def plain_bytes(stored_size_bytes: int) -> int:
    """Length of a stored stream → length of its content. Raises WrongSize for one that no stored stream has."""
    frames = max(1, -(-stored_size_bytes // STORED_FRAME_BYTES))
    plain = stored_size_bytes - TAG_BYTES * frames
    # Only an empty file has a frame without content.
    if plain < 0 or frames > MAX_FRAMES or (frames > 1 and plain <= (frames - 1) * FRAME_BYTES):
        raise WrongSize(
            f"no stored stream has {stored_size_bytes} bytes: each 1 MiB of content takes {TAG_BYTES} more, up to {stored_bytes(MAX_PLAIN_BYTES)}"
        )
    return plain


@dataclass(frozen=True, slots=True)
class FrameRange:
    """Which stored bytes a range of the content needs: ``frames`` whole frames from ``first_frame`` on.

    Of their content the first ``skip_bytes`` are not wanted, and then ``length`` bytes are.
    """

    first_frame: int
    frames: int
    stored_offset: int
    stored_length: int
    skip_bytes: int
    length: int


def frame_range(stored_size_bytes: int, offset: int, length: int) -> FrameRange:
    """A range of the content of a stored stream → the stored bytes that it needs. No bytes need no frame, but of an empty file its one frame.

    Raises WrongSize for a range that is not within the content, or a length that no stored stream has.
    """
    plain = plain_bytes(stored_size_bytes)
    if offset < 0 or length < 0 or offset + length > plain:
        raise WrongSize(f"the content has {plain} bytes; {length} from {offset} on are not within it")
    if length == 0 and plain > 0:
        return FrameRange(0, 0, 0, 0, 0, 0)
    first = offset // FRAME_BYTES
    last = max(offset + length - 1, 0) // FRAME_BYTES
    start = first * STORED_FRAME_BYTES
    stop = min((last + 1) * STORED_FRAME_BYTES, stored_size_bytes)
    return FrameRange(first, last + 1 - first, start, stop - start, offset - first * FRAME_BYTES, length)


def frame_nonce(number: int, is_last: bool) -> bytes:
    """The nonce of a frame, 12 bytes."""
    return (number | LAST_FRAME if is_last else number).to_bytes(NONCE_BYTES, "big")


class Encryptor:
    """Content in pieces of any length → the stored stream, under a key that is made for it (``key``, 32 bytes).

        encryptor = Encryptor()
        stored = [*encryptor.update(piece), …, encryptor.finish()]
        or, by one who has whole frames and their place: encryptor.seal_into(content, into, is_last=…)

    A frame is sealed when it is known whether more follows, so up to 1 MiB of content waits here. Of two processes after a fork only one may go on.
    """

    __slots__ = ("_aead", "_finished", "_numbers", "_taken_bytes", "_waiting", "key")

    def __init__(self) -> None:
        self.key = secrets.token_bytes(KEY_BYTES)
        self._aead = AESGCM(self.key)
        self._waiting = bytearray()
        self._taken_bytes = 0
        self._finished = False
        # A number is spent before it is used: neither an error nor a second thread can seal another frame under it.
        self._numbers = itertools.count()

    def update(self, data: Buffer) -> list[bytes]:
        """Take the next content → the frames that are complete. Raises WrongSize, before it takes any, for more than an object can hold."""
        self._check_open()
        view = memoryview(data).cast("B")
        if self._taken_bytes + len(view) > MAX_PLAIN_BYTES:
            raise WrongSize(f"content has at most {MAX_PLAIN_BYTES} bytes; {self._taken_bytes} came and {len(view)} more")
        self._taken_bytes += len(view)
        frames, at = [], 0
        while len(self._waiting) + len(view) - at > FRAME_BYTES:
            if self._waiting:
                taken = FRAME_BYTES - len(self._waiting)
                self._waiting += view[at : at + taken]
                frames.append(self._seal(self._waiting, is_last=False))
                self._waiting = bytearray()
            else:
                taken = FRAME_BYTES
                frames.append(self._seal(view[at : at + taken], is_last=False))
            at += taken
        self._waiting += view[at:]
        return frames

    def finish(self) -> bytes:
        """The content is at its end → the last frame. Nothing can be sealed afterwards. Raises CipherError when it has ended or failed before."""
        self._check_open()
        self._finished = True
        return self._seal(self._waiting, is_last=True)

    def seal_into(self, content: Buffer, into: memoryview, *, is_last: bool) -> None:
        """The next frame into memory: ``content`` is FRAME_BYTES, or what is left for the last one; ``into`` has TAG_BYTES more. Not together with ``update``.
        Raises CipherError after the end.
        """
        self._check_open()
        self._finished = True  # until it is sealed: when that fails, nothing that follows would open
        self._aead.encrypt_into(frame_nonce(next(self._numbers), is_last), content, None, into)
        self._finished = is_last

    def _check_open(self) -> None:
        if self._finished:
            raise CipherError("this stream has its last frame, or failed: the file, or its next version, needs a new encryptor and so a new key")

    def _seal(self, content: Buffer, is_last: bool) -> bytes:
        try:
            return self._aead.encrypt(frame_nonce(next(self._numbers), is_last), content, None)
        except BaseException:  # a frame is missing from here on, and its content may be lost: nothing that follows would open
            self._finished = True
            raise


class Opener:
    """Single frames of a stored stream → the part of their content that is wanted, in any order.

        opener = Opener(key, stored_bytes, offset, length)
        (at, content) = opener.open(number, frame)          the content is that from ``at`` on

    Raises WrongSize for a length that no stored stream has or a range outside the content, CipherError for a key that has not 32 bytes.
    """

    __slots__ = ("_aead", "_last_frame", "_start", "_stop", "range")

    def __init__(self, key: bytes, stored_size_bytes: int, offset: int = 0, length: int | None = None) -> None:
        _check_length(key, KEY_BYTES, "a file's key")
        plain = plain_bytes(stored_size_bytes)
        self.range = frame_range(stored_size_bytes, offset, plain - offset if length is None else length)
        """The stored bytes that are to come."""
        self._aead = AESGCM(key)
        self._last_frame = frame_count(plain) - 1
        self._start = self.range.first_frame * FRAME_BYTES + self.range.skip_bytes
        self._stop = self._start + self.range.length

    def open(self, number: int, frame: Buffer) -> tuple[int, memoryview]:
        """A frame → where its content begins in the file's, and the part that is wanted of it. Raises Damaged."""
        try:
            content = memoryview(self._aead.decrypt(frame_nonce(number, number == self._last_frame), frame, None))
        except InvalidTag:
            raise Damaged(number) from None
        at = number * FRAME_BYTES
        start, stop = max(self._start - at, 0), max(self._stop - at, 0)
        return at + start, content[start:stop]


class Decryptor:
    """The stored stream in pieces of any length → the content, or a range of it; nothing that was not proved by its frame's tag comes out.

        decryptor = Decryptor(key, stored_bytes, offset, length)
        ask for decryptor.range: stored_length bytes from stored_offset on
        content = [*decryptor.update(piece), …]; decryptor.finish()

    The length of the stored stream comes from the object's record. A wrong one is told when the last frame is read, since that alone opens as the
    last.
    """

    __slots__ = ("_came_bytes", "_damaged", "_next_frame", "_opener", "_stored_size_bytes", "_waiting", "range")

    def __init__(self, key: bytes, stored_size_bytes: int, offset: int = 0, length: int | None = None) -> None:
        """The file's key, the length of the whole stored stream, and what is wanted (``length`` None: up to the end).

        Raises WrongSize for a length that no stored stream has or a range outside the content, CipherError for a key that has not 32 bytes.
        """
        self._opener = Opener(key, stored_size_bytes, offset, length)
        self.range = self._opener.range
        """The stored bytes that are to come."""
        self._stored_size_bytes = stored_size_bytes
        self._next_frame = self.range.first_frame
        self._waiting = bytearray()
        self._came_bytes = 0
        self._damaged: int | None = None

    def update(self, data: Buffer) -> list[memoryview]:
        """Take the next bytes of the range's stored bytes → the content that is proved now.

        Raises WrongSize when more bytes come than were asked for (none is then taken), and Damaged for a frame that does not open. Content that was
        proved before it comes out first: then the next call raises. After Damaged it says so for good: start anew at that frame, from another holder.
        """
        self._check_whole()
        view = memoryview(data).cast("B")
        if self._came_bytes + len(view) > self.range.stored_length:
            raise WrongSize(f"{self.range.stored_length} stored bytes were asked for, but {self._came_bytes + len(view)} came: stop reading")
        self._came_bytes += len(view)
        found, at = [], 0
        while at < len(view):
            size = self._next_size()
            taken = view[at : at + size - len(self._waiting)]
            at += len(taken)
            if self._waiting or len(taken) < size:
                self._waiting += taken
                if len(self._waiting) < size:
                    break
                content = self._open(self._waiting)
                self._waiting = bytearray()
            else:
                content = self._open(taken)
            if content is None:
                break
            if content:
                found.append(content)
        if not found:
            self._check_whole()
        return found

    def finish(self) -> None:
        """All bytes have come. Raises WrongSize when some are missing, Damaged when a frame was; else all that was wanted has come out."""
        self._check_whole()
        if self._came_bytes != self.range.stored_length:
            raise WrongSize(f"{self.range.stored_length} stored bytes were asked for, but {self._came_bytes} came: ask for the rest")

    def _check_whole(self) -> None:
        if self._damaged is not None:
            raise Damaged(self._damaged)

    def _next_size(self) -> int:
        return min(STORED_FRAME_BYTES, self._stored_size_bytes - self._next_frame * STORED_FRAME_BYTES)

    def _open(self, frame: Buffer) -> memoryview | None:
        """A frame → the part of its content that is wanted; None, which ``_damaged`` remembers, when it does not open."""
        try:
            _, wanted = self._opener.open(self._next_frame, frame)
        except Damaged as error:
            self._damaged = error.frame
            return None
        self._next_frame += 1
        return wanted


def decrypt_range(key: bytes, stored_size_bytes: int, offset: int, length: int, stored: Buffer) -> bytes:
    """``length`` bytes of content from ``offset`` on, out of the stored bytes that ``frame_range`` names. Raises as Decryptor does."""
    decryptor = Decryptor(key, stored_size_bytes, offset, length)
    content = b"".join(decryptor.update(stored))
    decryptor.finish()
    return content


def _derived(secret: bytes, info: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=info).derive(secret)


def _seal_once(key: bytes, content: bytes, bound_to: bytes) -> bytes:
    """Nonce ‖ sealed content; ``bound_to`` goes into the tag."""
    nonce = secrets.token_bytes(NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, content, bound_to)


def _open_once(key: bytes, sealed: bytes, bound_to: bytes, what: str) -> bytes:
    try:
        return AESGCM(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], bound_to)
    except InvalidTag:
        raise WrongKey(what) from None


def _wallet_key(storage_seed: bytes, object_id: bytes) -> bytes:
    _check_length(storage_seed, KEY_BYTES, "a storage seed")
    _check_length(object_id, OBJECT_ID_BYTES, "an object id")
    return _derived(storage_seed, b"stratos/file-key/v1" + object_id)


def wrap_key(storage_seed: bytes, object_id: bytes, file_key: bytes) -> bytes:
    """A file's key → 60 bytes that only the wallet with this storage seed (32 bytes) opens, and only for this object (32 bytes).

    nonce ‖ AES-256-GCM under HKDF-SHA256(storage seed, no salt, ``stratos/file-key/v1`` ‖ object id). Raises CipherError for wrong lengths.
    """
    _check_length(file_key, KEY_BYTES, "a file's key")
    return _seal_once(_wallet_key(storage_seed, object_id), file_key, b"")


def unwrap_key(storage_seed: bytes, object_id: bytes, wrapped: bytes) -> bytes:
    """What ``wrap_key`` made → the file's key. Raises WrongKey when it does not open, CipherError for wrong lengths."""
    _check_length(wrapped, WRAPPED_KEY_BYTES, "a wrapped key")
    what = "the file's key does not open: it was wrapped for another wallet or object, or was changed"
    return _open_once(_wallet_key(storage_seed, object_id), wrapped, b"", what)


def new_link_secret() -> bytes:
    """A fresh secret of a share link, 32 bytes, which stays in the link and reaches no server."""
    return secrets.token_bytes(KEY_BYTES)


def _password_bytes(password: str) -> bytes:
    if not 1 <= len(password) <= MAX_PASSWORD_CHARACTERS:
        raise CipherError(f"a link's password has from 1 to {MAX_PASSWORD_CHARACTERS} characters, not {len(password)}")
    try:
        # The same letters typed on another system may come composed otherwise.
        return unicodedata.normalize("NFC", password).encode()
    except UnicodeEncodeError:
        raise CipherError("a link's password is text; it has half of a surrogate pair") from None


def _link_key(link_secret: bytes, share_id: bytes, kind: bytes, password: str | None) -> bytes:
    _check_length(link_secret, KEY_BYTES, "a link's secret")
    if not 1 <= len(share_id) <= MAX_SHARE_ID_BYTES:
        raise CipherError(f"a share's id has from 1 to {MAX_SHARE_ID_BYTES} bytes, not {len(share_id)}")
    secret = link_secret
    if password is not None:
        salt = sha256(b"stratos/link-password/v1" + share_id).digest()
        kdf = Argon2id(salt=salt, length=KEY_BYTES, iterations=_ARGON2_PASSES, lanes=_ARGON2_LANES, memory_cost=_ARGON2_MEMORY_KIB)
        secret += kdf.derive(_password_bytes(password))
    return _derived(secret, b"stratos/link-key/v1" + kind + share_id)


def wrap_for_link(link_secret: bytes, share_id: bytes, key: bytes, password: str | None = None) -> bytes:
    """A file's or folder's key → 61 bytes that only the link's secret (32 bytes), and the password if there is one, opens, for this share alone.

    kind (0; 1 with a password) ‖ nonce ‖ AES-256-GCM under HKDF-SHA256(secret [‖ Argon2id of the password], no salt, ``stratos/link-key/v1`` ‖ kind ‖
    share id). Argon2id: 64 MiB, 3 passes, 1 lane, 32 bytes, salt SHA-256(``stratos/link-password/v1`` ‖ share id), password in Unicode's form NFC.
    Raises CipherError for wrong lengths.
    """
    _check_length(key, KEY_BYTES, "a key")
    kind = _PLAIN_LINK if password is None else _PASSWORD_LINK
    return kind + _seal_once(_link_key(link_secret, share_id, kind, password), key, b"")


def unwrap_for_link(link_secret: bytes, share_id: bytes, wrapped: bytes, password: str | None = None) -> bytes:
    """What ``wrap_for_link`` made → the key. A password that the link has not is not looked at.

    Raises PasswordNeeded, WrongKey when it does not open, CipherError for wrong lengths or a kind that is none.
    """
    _check_length(wrapped, LINK_WRAPPED_BYTES, "a key wrapped for a link")
    kind = wrapped[:1]
    if kind not in (_PLAIN_LINK, _PASSWORD_LINK):
        raise CipherError(f"a key is wrapped for a link in the kinds 0 and 1, not {wrapped[0]}: a newer version may know it")
    if kind == _PASSWORD_LINK and password is None:
        raise PasswordNeeded("this link has a password: ask for it")
    key = _link_key(link_secret, share_id, kind, password if kind == _PASSWORD_LINK else None)
    what = "the link's key does not open: the link or the password is wrong, or it was changed"
    return _open_once(key, wrapped[1:], b"", what)


def new_folder_key() -> bytes:
    """A fresh key of a folder, 32 bytes: seals and finds the names in it."""
    return secrets.token_bytes(KEY_BYTES)


def _name_bytes(name: str) -> bytes:
    try:
        # The count of characters bounds the work before the count of bytes can.
        encoded = name.encode() if len(name) <= MAX_NAME_BYTES else b""
    except UnicodeEncodeError:
        raise CipherError("a name is text; it has half of a surrogate pair") from None
    if not 1 <= len(encoded) <= MAX_NAME_BYTES:
        raise CipherError(f"a name has from 1 to {MAX_NAME_BYTES} bytes of UTF-8; it has {len(name)} characters")
    return encoded


def name_lookup_id(folder_key: bytes, name: str) -> bytes:
    """A name in a folder → the 32 bytes by which it is found: HMAC-SHA256(HKDF(folder key, ``stratos/name-lookup/v1``), UTF-8 of the name).

    Who has not the folder's key can neither guess a name by it nor compare names of two folders. Raises CipherError for a name or key that is none.
    """
    _check_length(folder_key, KEY_BYTES, "a folder's key")
    return hmac.digest(_derived(folder_key, b"stratos/name-lookup/v1"), _name_bytes(name), "sha256")


def encrypt_name(folder_key: bytes, name: str) -> bytes:
    """A name → nonce ‖ AES-256-GCM of it under HKDF(folder key, ``stratos/name-key/v1``), bound to its lookup id.

    The name is taken as it is, and padded by 0x80 and zeros to a multiple of 32 bytes, so that its length says little. Raises CipherError for a name
    or key that is none.
    """
    lookup_id = name_lookup_id(folder_key, name)
    encoded = _name_bytes(name) + _NAME_END
    padded = encoded.ljust(-(-len(encoded) // _NAME_BLOCK_BYTES) * _NAME_BLOCK_BYTES, b"\x00")
    return _seal_once(_derived(folder_key, b"stratos/name-key/v1"), padded, lookup_id)


def decrypt_name(folder_key: bytes, lookup_id: bytes, sealed: bytes) -> str:
    """What ``encrypt_name`` made, and the lookup id that stands beside it → the name.

    Raises WrongKey when they do not belong together or to this folder, CipherError for wrong lengths.
    """
    _check_length(folder_key, KEY_BYTES, "a folder's key")
    _check_length(lookup_id, LOOKUP_ID_BYTES, "a lookup id")
    content = len(sealed) - NONCE_BYTES - TAG_BYTES
    if not _NAME_BLOCK_BYTES <= content <= MAX_NAME_BYTES + _NAME_BLOCK_BYTES or content % _NAME_BLOCK_BYTES:
        longest = MAX_NAME_BYTES + _NAME_BLOCK_BYTES
        raise CipherError(
            f"a sealed name has {NONCE_BYTES + TAG_BYTES} bytes and {_NAME_BLOCK_BYTES} to {longest}, by {_NAME_BLOCK_BYTES}, not {len(sealed)}"
        )
    what = "the name does not open: it is of another folder or file, or was changed"
    padded = _open_once(_derived(folder_key, b"stratos/name-key/v1"), sealed, lookup_id, what)
    encoded, end, _ = padded.rpartition(_NAME_END)
    # Whoever has the folder's key can seal anything: what comes out is a name of this lookup id or nothing.
    try:
        name = encoded.decode()
        if end and name_lookup_id(folder_key, name) == lookup_id:
            return name
    except (UnicodeDecodeError, CipherError):
        pass
    raise WrongKey("the name is not the one that its lookup id stands for: whoever sealed it broke the form")
