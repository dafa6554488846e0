"""What can go wrong for a user, as exceptions whose text says what was expected, what came and what to do.

a refusal on the wire (code, sentence) ─ refusal ─► StorageError
"""

from __future__ import annotations

from typing import Final

from sds_node import asking

_NOT_ENOUGH: Final = asking.LEDGER_CODES + 31
_UNKNOWN_FILE: Final = asking.LEDGER_CODES + 44
_UNKNOWN_SHARE: Final = asking.LEDGER_CODES + 45
_TAKEN: Final = asking.LEDGER_CODES + 37
USED_BEFORE: Final = asking.LEDGER_CODES + 29
UNKNOWN_LEASE: Final = asking.LEDGER_CODES + 33
LEASE_TIME: Final = asking.LEDGER_CODES + 35


class StorageError(Exception):
    """What was asked could not be done. The text is a sentence for the user. ``code`` is the meta node's refusal, None when it is none of its."""

    code: int | None = None


class NotFound(StorageError):
    """There is no such file, folder, share or object. ``name`` is what was asked for of the wallet's own: a path, that of a folder with a slash, a hash, an id."""

    def __init__(self, text: str, name: str | None = None) -> None:
        super().__init__(text)
        self.name = name


class NotEnoughOzone(StorageError):
    """The wallet has too few noz."""


class TooFewNodes(StorageError):
    """The network has too few nodes for what is to be stored."""


class WrongPassword(StorageError):
    """A link's password is wrong, or was not given."""


class AlreadyThere(StorageError):
    """Another file, folder or share has that name."""


class BadName(StorageError):
    """A path that no file can have."""


class LeaseGone(StorageError):
    """The lease of a transfer is over, lost or spent: the transfer begins anew under another one."""


class MetaRefused(StorageError):
    """A meta node refused for another reason; ``code`` says which."""


class MetaUnreachable(StorageError):
    """No meta node answers."""


class MetaFull(MetaUnreachable):
    """The only meta node that could do it, one that holds a lease, takes no more now: under a lease of another one it can be done."""


class MetaLied(StorageError):
    """A meta node answered with what cannot be so."""


class SourceChanged(StorageError):
    """The content changed while it was being stored."""


_KINDS: Final[dict[int, type[StorageError]]] = {
    asking.NOT_HELD: NotFound,
    _UNKNOWN_FILE: NotFound,
    _UNKNOWN_SHARE: NotFound,
    _NOT_ENOUGH: NotEnoughOzone,
    asking.TOO_FEW_NODES: TooFewNodes,
    asking.WRONG_PASSWORD: WrongPassword,
    _TAKEN: AlreadyThere,
    asking.LEASE_LOST: LeaseGone,
    asking.LEASE_SPENT: LeaseGone,
    UNKNOWN_LEASE: LeaseGone,
    LEASE_TIME: LeaseGone,
}


def is_of_all(error: StorageError) -> bool:
    """Whether what many asked for together failed for all of them, so that it is no use to ask for each alone."""
    return isinstance(error, (LeaseGone, MetaUnreachable)) and not isinstance(error, MetaFull)


def refusal(code: int, text: str) -> StorageError:
    """The exception for a meta node's refusal."""
    made = _KINDS.get(code, MetaRefused)(text or f"the meta node refused with code {code}")
    made.code = code
    return made
