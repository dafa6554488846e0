"""Objects, copies and nodes of a test: real documents and real trees, no network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import nacl.signing

from chain.codec.canonical import encode
from chain.codec.registry import message_class
from chain.crypto import address as bech32
from chain.crypto.keys import Ed25519PublicKey
from sds_node import manifests, transfers
from sds_node.documents import ShareManifest, SignedManifest, signed
from sds_node.merkle import object_root, segment_path, segment_root
from sds_node.meta.rebuild.balances import Standing
from sds_node.meta.rebuild.found import Found
from sds_node.meta.rebuild.gathering import Gathering
from sds_node.meta.rules.wire import PACKAGE
from sds_node.schemes import scheme_of, segment_count, segment_size, share_bytes
from sds_node.value_chain.views import BondStatus, ResourceNode
from sds_node.wire import errors as wire_errors

CHAIN = "test-1"
DAY_MS = 86_400_000
NOW_MS = 20_000 * DAY_MS
META_KEY = nacl.signing.SigningKey(sha256(b"meta").digest())
META = Ed25519PublicKey(bytes(META_KEY.verify_key)).address
SESSION = nacl.signing.SigningKey(sha256(b"session").digest())
HASH = "v05ahm50ugfjrgd3ga8mqi6bqka32ks3dooe1p9g"
WALLET = b"w" * 20


def node_address(number: int) -> bytes:
    return number.to_bytes(20, "big")


def nodes(count: int) -> list[ResourceNode]:
    """Node i, with an owner of its own, has number i in the ledger."""
    return [
        ResourceNode(node_address(one), bytes([one]) + b"o" * 19, bytes([one]) + b"b" * 19, sha256(bytes([one])).digest(), 10**20, 10**20, False, BondStatus.BONDED)
        for one in range(1, count + 1)
    ]  # fmt: skip


def standing(count: int, outstanding_noz: int = 10**12, promo_noz: int = 0) -> Standing:
    found = message_class(f"{PACKAGE}.Found")(
        height=7, block_hash=b"h" * 32, reported_epoch=3, reported_s=NOW_MS // 1_000 - 100,
        metas=[{"address": META, "owner": b"q" * 20, "ledger_key": bytes(META_KEY.verify_key), "is_active": True}],
        params=dict(
            bytes_per_stos=1, escrow_ratio_e18=10**18 // 2, repair_ratio_e18=0, retention_days=365, grace_days=30, trash_days=7, longest_lease_s=86_400,
            audits_per_day=10, max_wallets_per_report=1_000, epoch_duration_s=3_600,
        ),
    )  # fmt: skip
    return Standing(CHAIN, 7, b"h" * 32, NOW_MS // 1_000, found, nodes(count), {META: bytes(META_KEY.verify_key)}, outstanding_noz, promo_noz)


@dataclass
class Thing:
    """An object with its shares: content is made up, its trees are real."""

    number: int
    size_bytes: int = 5_000
    k: int = 1
    n: int = 3
    wallet: bytes = WALLET
    lookup: int = 0
    sequence: int = 10
    fields: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.id = sha256(b"object" + bytes([self.number])).digest()
        self.roots = [
            [sha256(bytes([self.number, at, 0 if self.k == 1 else index])).digest() for index in range(self.n)]
            for at in range(segment_count(self.size_bytes))
        ]
        self.segment_roots = [segment_root(one) for one in self.roots]

    def manifest(self, **changes: Any) -> Any:
        made = dict(
            chain_id=CHAIN, meta_node=META, sequence=self.sequence, object_id=self.id, payer=self.wallet, lease=b"l" * 32, fund=1,
            root=object_root(self.segment_roots), file_hash=HASH, size_bytes=self.size_bytes, data_shares=self.k, total_shares=self.n,
            first_segment=self.number * 10, escrow_ratio_e18=10**18 // 2, made_ms=NOW_MS - 100 * DAY_MS, term_days=365, terms=1,
            file={"lookup_id": (self.lookup or self.number).to_bytes(32, "big"), "name": b"name", "wrapped_key": b"key"}, file_made_ms=5, file_changed_ms=6,
        )  # fmt: skip
        return manifests.ObjectManifest(**{**made, **self.fields, **changes})

    def document(self, key: nacl.signing.SigningKey = META_KEY, **changes: Any) -> Any:
        return manifests.signed_object(self.manifest(**changes), key)

    def serial(self, at: int, index: int) -> bytes:
        return b"serialof" + (self.number * 1_000 + at * 30 + index).to_bytes(8, "big")

    def copy(self, index: int, at: int = 0, *, serial: bytes = b"", with_roots: bool = True, **changes: Any) -> Any:
        """A KeptCopy of a share."""
        segment_bytes = segment_size(self.size_bytes, at)
        fields = dict(
            chain_id=CHAIN, wallet=bech32.encode(self.wallet), object_id=self.id, segment=at, segment_bytes=segment_bytes, index=index, data_shares=self.k,
            total_shares=self.n, share_root=self.roots[at][index], size_bytes=share_bytes(scheme_of(self.k, self.n), segment_bytes),
            serial=serial or self.serial(at, index),
        )  # fmt: skip
        share = ShareManifest(**{**fields, **changes})
        document = signed(share, SESSION)
        kept = transfers.KeptShare(
            manifest=SignedManifest(body=document.body, signature=document.signature, session_pubkey=bytes(SESSION.verify_key)),
            segment_root=self.segment_roots[at],
            segment_path=segment_path(self.roots[at], index),
        )
        key = transfers.CopyKey(share_root=share.share_root, serial=share.serial)
        return manifests.KeptCopy(copy=key, kept=encode(kept), roots=b"".join(self.roots[at]) if with_roots and self.k > 1 else b"")


@dataclass
class FakeNode:
    """What a node tells: manifests and copies, in order as an honest one does, and whatever a liar adds."""

    documents: list[Any] = field(default_factory=list)
    copies: list[Any] = field(default_factory=list)
    pages: list[bytes] = field(default_factory=list)
    """Told instead of the first pages of manifests."""
    asked: int = 0

    def answer(self, method: str, head: bytes) -> bytes:
        self.asked += 1
        if method == manifests.LIST_OBJECTS:
            if self.pages:
                return self.pages.pop(0)
            after = bytes(manifests.ObjectsHead.FromString(head).after)
            rows = sorted((bytes(manifests.ObjectManifest.FromString(one.body).object_id), one) for one in self.documents)
            made = manifests.ObjectList()
            for _, one in [row for row in rows if row[0] > after][: manifests.MAX_OBJECTS_ASKED]:
                made.objects.add(manifest=one)
            return encode(made)
        given = manifests.KeptCopiesHead.FromString(head).after
        copies = sorted(self.copies, key=_key)
        copies = [one for one in copies if _key(one) > (bytes(given.share_root), bytes(given.serial))]
        made = manifests.KeptCopies(copies=copies[: manifests.MAX_KEPT_ASKED])
        if len(copies) > manifests.MAX_KEPT_ASKED:
            made.last.CopyFrom(made.copies[-1].copy)
        return encode(made)


def _key(copy: Any) -> tuple[bytes, bytes]:
    return bytes(copy.copy.share_root), bytes(copy.copy.serial)


async def gathered(folder: Path, told: Sequence[FakeNode | None]) -> Gathering:
    """Ask nodes 1, 2, … ; None is one that does not answer."""

    async def ask(node: bytes, method: str, head: bytes, most_bytes: int) -> bytes:
        one = told[int.from_bytes(node, "big") - 1]
        if one is None:
            raise wire_errors.BadRequest("it does not answer")
        return one.answer(method, head)

    made = Gathering(ask, Found(folder / "found.db"), CHAIN, {META: [bytes(META_KEY.verify_key)]})
    await made.run([node_address(number) for number in range(1, len(told) + 1)])
    return made


def spread(things: Sequence[Thing], count: int) -> list[FakeNode]:
    """``count`` nodes that keep these things as the ledger would have placed them: share i of each at node i + 1."""
    made = [FakeNode() for _ in range(count)]
    for thing in things:
        for number, one in enumerate(made[: thing.n]):
            one.documents.append(thing.document())
            one.copies.extend(thing.copy(number, at) for at in range(len(thing.roots)))
    return made
