"""What a gateway asks of the storage network, by the strings that wallets sign. ``network.py`` asks a real one; tests have one in memory.

    methods ─ Ask (a wallet's string, checked) ─► Backend ─► files, shares, Storing (one upload), Reading (one download)

Source: storage-protocol.md 5; docs/adr/0009 (``legacy.open``, ``legacy.order``).
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable
from dataclasses import dataclass
from typing import Final, Protocol

from sds_node.handles import ShareLink
from sds_node.merkle import Buffer
from sds_node.requests import Action, WalletSignature

PAGE: Final = 20
"""Files or shares in one page of a list."""


class BackendError(Exception):
    """What was asked could not be done. The text is a sentence for the user."""


class NotFound(BackendError):
    """There is no such file or share, or this wallet may not read it."""


class NotEnoughOzone(BackendError):
    """The wallet has too few noz."""


class WrongPassword(BackendError):
    """The share has a password, and another one came, or none."""


class StringRefused(BackendError):
    """The network does not take the string: its number is not the wallet's current one, it is too old, or was used before."""


class Unreachable(BackendError):
    """The storage network does not answer."""


class SameFile(BackendError):
    """The wallet has this file already. ``name`` is what it is called."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"Same file with the name {name} exists: it was not stored again and nothing was charged")


@dataclass(frozen=True, slots=True)
class Ask:
    """A string that a wallet signed for an action, as it was checked. ``sequence`` is empty for actions without one."""

    action: Action
    subject: str
    sequence: str
    timestamp_s: int
    signature: WalletSignature

    @property
    def wallet(self) -> str:
        return self.signature.wallet


@dataclass(frozen=True, slots=True)
class WalletState:
    """A wallet in the ledger. ``sequence`` is the number as clients sign it."""

    noz: int
    sequence: str
    files: int = 0
    shares: int = 0
    is_legacy_allowed: bool = True

    @property
    def is_known(self) -> bool:
        """Whether the ledger has anything of it. A wallet costs nothing, so what strangers ask in the name of empty ones is not remembered."""
        return bool(self.noz or self.files or self.shares or self.sequence.strip("SN:0"))


@dataclass(frozen=True, slots=True)
class FileInfo:
    """A file. ``name`` is its hash where the name is private. ``made_s``: Unix seconds."""

    file_hash: str
    size_bytes: int
    name: str
    made_s: int
    is_public: bool = True


@dataclass(frozen=True, slots=True)
class ShareInfo:
    """A share of a file. ``ends_s`` 0: never."""

    share_id: str
    link: str
    file: FileInfo
    made_s: int
    ends_s: int
    has_password: bool


@dataclass(frozen=True, slots=True)
class NewShare:
    """A share to be made. ``password`` is empty for one without. ``ends_s``: Unix seconds, 0: never."""

    share_id: str
    link: str
    password: str
    ends_s: int


class Storing(Protocol):
    """One upload whose lease is taken: the string has paid for it."""

    async def store(self, name: str, source: AsyncIterable[Buffer]) -> None:
        """Store the file and commit it under a name. Raises BackendError."""
        ...

    async def close(self) -> None:
        """What was not used of the lease goes back. Never raises."""
        ...


class Reading(Protocol):
    """One download whose lease is taken."""

    @property
    def file(self) -> FileInfo: ...

    def read(self, offset: int, length: int) -> AsyncIterator[Buffer]:
        """Bytes of the file, in order. Raises BackendError."""
        ...

    async def close(self) -> None:
        """What was not used of the lease goes back. Never raises."""
        ...


Check = Callable[[FileInfo], None]
"""Looks at a file before anything is paid for it. Raises what its caller gets."""


class Backend(Protocol):
    """The storage network. Everything raises BackendError."""

    @property
    def chain_id(self) -> str: ...

    async def wallet(self, wallet: str) -> WalletState:
        """A wallet's balance and number; one that nothing is known of has nothing."""
        ...

    async def file(self, ask: Ask) -> tuple[FileInfo, int] | None:
        """The file of a status string, and its replicas: floor(healthy shares ÷ k) of its worst segment. None when the wallet has none."""
        ...

    async def files(self, ask: Ask, page: int) -> tuple[list[FileInfo], int]:
        """At most 20 files of a wallet, and how many it has."""
        ...

    async def shares(self, ask: Ask, page: int) -> tuple[list[ShareInfo], int]:
        """At most 20 shares of a wallet, and how many it has."""
        ...

    async def shared(self, ask: Ask, link: ShareLink) -> FileInfo:
        """The file that a link leads to, by the old dialect's string. Raises NotFound, WrongPassword."""
        ...

    async def delete(self, ask: Ask) -> None:
        """The wallet's files of a hash → the trash."""
        ...

    async def share(self, ask: Ask, new: NewShare) -> str:
        """Share a public file; the share's id. By a CID by which others share the same content it is shared, too, under another id than ``new`` has; what the
        wallet shares by it already has its id."""
        ...

    async def stop_share(self, ask: Ask) -> None:
        """End a share."""
        ...

    async def begin_upload(self, ask: Ask, size_bytes: int) -> Storing:
        """Take the lease of an upload. Raises SameFile, NotEnoughOzone."""
        ...

    async def begin_download(self, ask: Ask, link: ShareLink | None = None, check: Check | None = None) -> Reading:
        """Take the lease of a download, of a file that ``check`` has nothing against: of the wallet's own one, or of what ``link`` leads to. Raises NotFound,
        NotEnoughOzone, WrongPassword, what ``check`` raises."""
        ...

    async def close(self) -> None: ...
