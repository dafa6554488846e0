"""The storage network for programs: ``Storage`` puts a wallet's files there and gets them back (docs/storage-users.md)."""

from __future__ import annotations

from sds_node.client.errors import (
    AlreadyThere,
    BadName,
    MetaLied,
    MetaRefused,
    MetaUnreachable,
    NotEnoughOzone,
    NotFound,
    SourceChanged,
    StorageError,
    TooFewNodes,
    WrongPassword,
)
from sds_node.client.files import Entry
from sds_node.client.health import Health
from sds_node.client.home import UserHome, UserSettings
from sds_node.client.meta import MetaAddress, parse_meta
from sds_node.client.proofs import Proved
from sds_node.client.sharing import SharedFile, ShareInfo
from sds_node.client.storage import Balance, Restored, Storage
from sds_node.client.transfer import TransferFailed
from sds_node.client.upload import PutResult

__all__ = [
    "AlreadyThere",
    "BadName",
    "Balance",
    "Entry",
    "Health",
    "MetaAddress",
    "MetaLied",
    "MetaRefused",
    "MetaUnreachable",
    "NotEnoughOzone",
    "NotFound",
    "Proved",
    "PutResult",
    "Restored",
    "ShareInfo",
    "SharedFile",
    "SourceChanged",
    "Storage",
    "StorageError",
    "TooFewNodes",
    "TransferFailed",
    "UserHome",
    "UserSettings",
    "WrongPassword",
    "parse_meta",
]
