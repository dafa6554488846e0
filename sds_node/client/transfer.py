"""Moving shares and objects, all of it: what callers import. placing.py has what both directions share, put.py and get.py one direction each."""

from __future__ import annotations

from sds_node.client.get import ObjectReader, ObjectToGet, ShareToGet, Stretch, check_seat, get_share, last_receipts
from sds_node.client.placing import (
    GetWanted,
    Issuer,
    NodeFailed,
    NodeLied,
    NotReadable,
    NotStored,
    Place,
    PutWanted,
    Settings,
    TransferFailed,
    WrongSource,
)
from sds_node.client.put import ShareToPut, StoredObject, StoredSegment, held_bytes, put_object, put_share

__all__ = [
    "GetWanted",
    "Issuer",
    "NodeFailed",
    "NodeLied",
    "NotReadable",
    "NotStored",
    "ObjectReader",
    "ObjectToGet",
    "Place",
    "PutWanted",
    "Settings",
    "ShareToGet",
    "ShareToPut",
    "StoredObject",
    "StoredSegment",
    "Stretch",
    "TransferFailed",
    "WrongSource",
    "check_seat",
    "get_share",
    "held_bytes",
    "last_receipts",
    "put_object",
    "put_share",
]
