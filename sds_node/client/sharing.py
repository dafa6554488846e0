"""Links: whoever has one may read one version of a file. The secret of a private file's link stays in the link.

    sds://0123456789abcdef_0123456789_abcdef#<secret, base64url>        private: the secret (and the password) opens the file's key
    sds://0123456789abcdef_0123456789_abcdef                            public

    key ─ wrap_for_link(secret, share id, password) ─┐
    name ─ sealed under HKDF(key) ───────────────────┴─► wrapped key of the share, at most 512 bytes; a name that does not fit is left out
    password check = HKDF(secret ‖ Argon2id(password)): the meta node lets nobody have the wrapped key who has not both

What stands after # is for the reader's program alone and reaches no server. Source: cipher.py (links); ADR 8 ("a share names a version of a file");
storage-interfaces.md 3.2.
"""

from __future__ import annotations

import asyncio
import unicodedata
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from sds_node import asking, cipher
from sds_node.client.errors import BadName, MetaLied, StorageError, WrongPassword
from sds_node.client.files import Files, StoredFile
from sds_node.client.meta import MetaClient
from sds_node.client.names import local_name
from sds_node.handles import SHARE_PREFIX, HandleError, LinkKind, parse_share_link

MAX_WRAPPED_BYTES: Final = 512
PAGE: Final = 500
MAX_SHARES: Final = 20_000
MAX_LINK_CHARACTERS: Final = 400
_ID_BYTES: Final = cipher.LOOKUP_ID_BYTES
_SECRET_CHARACTERS: Final = 43
_CHECK_INFO: Final = b"stratos/link-check/v1"
_NAME_INFO: Final = b"stratos/link-name/v1"
_NEEDED: Final = "this link has a password: give it"
_SALT: Final = b"stratos/link-check-salt/v1"


@dataclass(frozen=True)
class Link:
    """A link. ``secret`` has 32 bytes, or none: then the file is public."""

    share_id: str
    link: str
    secret: bytes

    def __str__(self) -> str:
        return SHARE_PREFIX + self.link + (f"#{urlsafe_b64encode(self.secret).decode().rstrip('=')}" if self.secret else "")


@dataclass(frozen=True)
class ShareInfo:
    """A link of the wallet's. Times are Unix seconds; ``ends_s`` is 0 for one without an end."""

    link: str
    share_id: str
    path: str
    object_id: str
    made_s: int
    ends_s: int
    has_password: bool


@dataclass(frozen=True)
class SharedFile:
    """A file that a link leads to. ``key`` opens it, None for a public one; ``name`` is what its owner calls it, made fit for a file here."""

    file: StoredFile
    name: str
    owner: str
    key: bytes | None = field(repr=False)

    @property
    def size_bytes(self) -> int:
        """Of the content."""
        return self.file.size_bytes


def parse_link(text: str) -> tuple[Link, str]:
    """(the link, the password that stands in it, if one does) of a text. Raises BadName."""
    if len(text) > MAX_LINK_CHARACTERS:
        raise BadName(f"a link has at most {MAX_LINK_CHARACTERS} characters, got {len(text)}")
    head, mark, fragment = text.strip().partition("#")
    try:
        found = parse_share_link(head)
        secret = urlsafe_b64decode(fragment + "=") if len(fragment) == _SECRET_CHARACTERS else b""
    except (HandleError, ValueError) as error:
        raise BadName(f"this is no link as ppd share prints one and ppd shares lists yours: {error}") from None
    if mark and (len(secret) != cipher.KEY_BYTES or urlsafe_b64encode(secret).decode().rstrip("=") != fragment):
        raise BadName(f"what stands after # in a private file's link has {_SECRET_CHARACTERS} characters: is the link cut off?")
    return Link(found.share_id, found.link, secret), found.password


def password_check(link: Link, password: str | None) -> bytes:
    """What the meta node compares (32 bytes); empty without a password. Without the link's secret it tells nothing of the password.

    HKDF-SHA256(secret ‖ Argon2id(password; 64 MiB, 3 passes, 1 lane, salt SHA-256(``stratos/link-check-salt/v1`` ‖ share id)), info
    ``stratos/link-check/v1`` ‖ share id). Raises StorageError for a password that is none.
    """
    if password is None:
        return b""
    if not 1 <= len(password) <= cipher.MAX_PASSWORD_CHARACTERS:
        raise StorageError(f"a password has 1 to {cipher.MAX_PASSWORD_CHARACTERS} characters, got {len(password)}")
    share_id = link.share_id.encode()
    salt = sha256(_SALT + share_id).digest()
    kdf = Argon2id(salt=salt, length=cipher.KEY_BYTES, iterations=3, lanes=1, memory_cost=64 * 1024)
    # The same letters typed on another system may come composed otherwise.
    stretched = kdf.derive(unicodedata.normalize("NFC", password).encode(errors="surrogatepass"))
    return HKDF(SHA256(), cipher.KEY_BYTES, None, _CHECK_INFO + share_id).derive(link.secret + stretched)


def wrapped_for(link: Link, file_key: bytes, name: str, password: str | None) -> bytes:
    """A private file's key and name as a share keeps them. Raises StorageError for a password that is none."""
    try:
        made = cipher.wrap_for_link(link.secret, link.share_id.encode(), file_key, password)
    except cipher.CipherError as error:
        raise StorageError(str(error)) from None
    name_key = _name_key(file_key)
    sealed = cipher.name_lookup_id(name_key, name) + cipher.encrypt_name(name_key, name)
    return made + sealed if len(made) + len(sealed) <= MAX_WRAPPED_BYTES else made


def opened_by(link: Link, wrapped: bytes, password: str | None) -> tuple[bytes, str]:
    """(the file's key, its name or nothing) of what ``wrapped_for`` made. Raises WrongPassword, StorageError."""
    if not link.secret:
        raise BadName("this file is private, and its link has lost what stood after #: ask for the whole link")
    cut = cipher.LINK_WRAPPED_BYTES
    try:
        key = cipher.unwrap_for_link(link.secret, link.share_id.encode(), wrapped[:cut], password)
    except cipher.PasswordNeeded:
        raise WrongPassword(_NEEDED) from None
    except cipher.CipherError as error:
        raise StorageError(str(error)) from None
    sealed = wrapped[cut:]
    if not sealed:
        return key, ""
    try:
        return key, cipher.decrypt_name(_name_key(key), sealed[:_ID_BYTES], sealed[_ID_BYTES:])
    except cipher.CipherError:
        return key, ""


def _name_key(file_key: bytes) -> bytes:
    return HKDF(SHA256(), cipher.KEY_BYTES, None, _NAME_INFO).derive(file_key)


async def share_rows(client: MetaClient) -> AsyncIterator[Any]:
    """The wallet's shares as the ledger has them (ShareRow), page by page. Raises MetaLied."""
    after, seen = "", 0
    while True:
        page = await client.ask(asking.SHARE_LIST, asking.ShareListHead(after=after, limit=PAGE), asking.SharePage)
        seen += len(page.shares)
        if len(page.shares) > PAGE or seen > MAX_SHARES:
            raise MetaLied(f"expected at most {PAGE} shares in a page and {MAX_SHARES} in all from the meta node, got more")
        for row in page.shares:
            yield row
        if not page.has_more or not page.shares:
            return
        after = page.shares[-1].share_id


async def share_ids(client: MetaClient, links: Sequence[str]) -> list[str]:
    """The ids of the wallet's shares that have these links or ids, each once, in order: all that have a CID. Raises BadName, MetaLied."""
    wanted = [parse_link(one)[0] for one in links]
    found = {one.share_id for one in wanted}
    cids = {one.link for one in wanted if parse_share_link(one.link).kind is LinkKind.CID}
    if cids:
        mine = [(row.link, row.share_id) async for row in share_rows(client) if row.link in cids]
        found = (found - {link for link, _ in mine}) | {share_id for _, share_id in mine}
    return sorted(found)


async def open_link(client: MetaClient, files: Files, text: str, password: str | None) -> SharedFile:
    """What a link leads to; from here on this session may read it. Raises NotFound, WrongPassword, BadName, MetaLied."""
    link, in_link = parse_link(text)
    password = password if password is not None else in_link or None
    check = await asyncio.to_thread(password_check, link, password)
    # A CID may be the link of several shares.
    is_cid = parse_share_link(link.link).kind is LinkKind.CID
    head = asking.ShareOpenHead(share_id="" if is_cid else link.share_id, link=link.link if is_cid else "", password_check=check)
    try:
        opened = await client.ask(asking.SHARE_OPEN, head, asking.OpenedShare)
    except WrongPassword:
        if password is None:
            raise WrongPassword(_NEEDED) from None
        raise
    is_right = opened.share.link == link.link if is_cid else opened.share.share_id == link.share_id
    if not is_right or opened.share.object_id != opened.file.object.object_id:
        raise MetaLied(f"expected share {link.share_id} from the meta node, got another one")
    file = files.checked(opened.file, is_own=False)
    owner = "".join(one for one in opened.share.wallet[:80] if one.isprintable())
    if not file.is_private:
        name = bytes(opened.file.name).decode(errors="replace")
        return SharedFile(file, local_name(name, file.row.object.file_hash), owner, None)
    if opened.share.has_password and password is None:
        raise WrongPassword(_NEEDED)
    key, name = await asyncio.to_thread(opened_by, link, bytes(opened.share.wrapped_key), password)
    return SharedFile(file, local_name(name, file.row.object.file_hash), owner, key)
