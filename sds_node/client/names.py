"""Paths of a wallet's files, and what the meta ledger sees of them.

    storage seed ─ HKDF ─► names key ┬─ HMAC(folder's path), 12 bytes ─┐
                                     ├─ HMAC(whole path), 32 bytes ────┼─► lookup id = folder's tag (12) ‖ the first 20 of the path's
                                     └─ AES-256-GCM ─────────────────────► name = the path's 32 ‖ the sealed path        (a public file's: its path)

**Why.** The ledger keeps a wallet's files by lookup id and gives them in that order. All entries of one folder have ids that begin alike, so a folder is
listed by reading its own entries alone, also in a wallet of 1,000,000 files; and as a record holds its whole path, each can be read by itself (in the
trash, in a walk over everything). What a meta node learns by it: which files are in one folder, not which folder. A folder is a record, too: an empty
object under a path that ends with ``/``, so that a folder knows its folders. Paths are Unicode in form NFC, so that the same letters are the same name.
Source: ADR 8 (file table); cipher.py (names).
"""

from __future__ import annotations

import hmac
import unicodedata
from dataclasses import dataclass
from typing import Any, Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from sds_node.cipher import LOOKUP_ID_BYTES, MAX_NAME_BYTES, CipherError, decrypt_name, encrypt_name, name_lookup_id
from sds_node.client.errors import BadName

FOLDER_TAG_BYTES: Final = 12
MAX_PARTS: Final = 64
"""Folders in a path."""
_KEY_INFO: Final = b"stratos/names-key/v1"
_TAG_INFO: Final = b"stratos/folder-tag/v1"
_KEY_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Known:
    """What a record says of its name. ``path`` has no slash at its end. ``is_loose``: it stands under an id that this library does not give."""

    path: str
    is_folder: bool
    is_loose: bool = False


def clean(path: str) -> str:
    """A path as it is kept: parts joined by ``/``, none at either end; ``""`` is the wallet's own folder. Raises BadName."""
    parts = [one for one in unicodedata.normalize("NFC", path).split("/") if one]
    for part in parts:
        if part in (".", "..") or any(ord(one) < 32 or ord(one) == 127 for one in part):
            raise BadName(f"a name in a path is neither . nor .. and has no control characters, got {part[:80]!a}")
    text = "/".join(parts)
    try:
        size_bytes = len(text.encode())
    except UnicodeEncodeError:
        raise BadName("a path is text; it has half of a surrogate pair") from None
    if len(parts) > MAX_PARTS or size_bytes > MAX_NAME_BYTES - 1:
        raise BadName(f"a path has at most {MAX_PARTS} parts and {MAX_NAME_BYTES - 1} bytes, got {len(parts)} and {size_bytes}")
    return text


def file_path(path: str) -> str:
    """``clean`` of a file's path. Raises BadName, also for none and for one that ends with a slash."""
    text = clean(path)
    if not text or path.endswith("/"):
        raise BadName(f"expected the path of a file, got {path[:80]!a}")
    return text


def parent_of(path: str) -> str:
    """The folder that a path is in; ``""`` for the wallet's own."""
    return path.rpartition("/")[0]


class Names:
    """A wallet's names. ``storage_seed`` has 32 bytes."""

    def __init__(self, storage_seed: bytes) -> None:
        self._key = HKDF(SHA256(), _KEY_BYTES, None, _KEY_INFO).derive(storage_seed)
        self._tag_key = HKDF(SHA256(), _KEY_BYTES, None, _TAG_INFO).derive(self._key)

    def folder_tag(self, folder: str) -> bytes:
        """The 12 bytes that the lookup ids of a folder's entries begin with."""
        return hmac.digest(self._tag_key, folder.encode(), "sha256")[:FOLDER_TAG_BYTES]

    def lookup_id(self, path: str, *, is_folder: bool = False) -> bytes:
        """Where a path's record is, 32 bytes."""
        return self._lookup(path, name_lookup_id(self._key, _shown(path, is_folder)))

    def _lookup(self, path: str, found_by: bytes) -> bytes:
        return self.folder_tag(parent_of(path)) + found_by[: LOOKUP_ID_BYTES - FOLDER_TAG_BYTES]

    def sealed(self, path: str, *, is_public: bool, is_folder: bool = False) -> bytes:
        """The name in a path's record."""
        text = _shown(path, is_folder)
        return text.encode() if is_public else name_lookup_id(self._key, text) + encrypt_name(self._key, text)

    def read(self, row: Any) -> Known | None:
        """The name in a record (FileRow); None when it is no name of this wallet's."""
        data, lookup_id = bytes(row.name), bytes(row.lookup_id)
        try:
            text = data.decode() if row.is_public else decrypt_name(self._key, data[:LOOKUP_ID_BYTES], data[LOOKUP_ID_BYTES:])
            is_folder = text.endswith("/")
            path = clean(text)
        except (CipherError, BadName, UnicodeDecodeError):
            return None
        is_ours = bool(path) and _shown(path, is_folder) == text and self.lookup_id(path, is_folder=is_folder) == lookup_id
        if not is_ours and not row.is_public:
            return None
        return Known(path, is_folder, is_loose=not is_ours)


def local_name(name: str, otherwise: str) -> str:
    """A name that somebody else chose as the name of a file here: its last part, without what could leave the folder."""
    last = name.replace("\\", "/").rpartition("/")[2].replace(":", "_").strip()
    kept = "".join(one for one in last if one.isprintable())
    while len(kept.encode(errors="ignore")) > 200:
        kept = kept[:-1]
    return otherwise if kept in ("", ".", "..") or kept.startswith("-") else kept


def _shown(path: str, is_folder: bool) -> str:
    return f"{path}/" if is_folder else path
