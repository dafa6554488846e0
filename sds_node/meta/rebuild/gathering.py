"""Nodes are asked what they keep, and nothing of it is believed but what is signed and lies under a root.

    object.list ─ a meta node's ledger key signed it ─► manifests        of all nodes first, then
    share.kept  ─ signed by its session key, of an object with a manifest of the same wallet and scheme, under its segment's root ─► copies

A node that tells without end of what nobody has a manifest of, tells out of order, or does not answer, is left behind with what it told until then: of its
manifests, and of its shares, whatever came of the manifests.
Source: docs/meta-nodes.md, "When all ledgers are lost"; resource/service.py (how a put is judged).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import structlog
from google.protobuf.message import DecodeError

from chain.codec.canonical import encode
from modules.settlement.commitment import wallet_of
from modules.settlement.leaves import HASH_BYTES, SERIAL_BYTES
from sds_node import manifests, transfers
from sds_node.documents import Refused, check_manifest
from sds_node.hashes import is_hash
from sds_node.manifests import ObjectManifest
from sds_node.merkle import share_proved
from sds_node.meta.rebuild.compared import read_page
from sds_node.meta.rebuild.found import Found, FoundCopy
from sds_node.meta.repair.damage import WrongInventory
from sds_node.meta.rules.objects import MAX_DAYS
from sds_node.meta.rules.tables import MAX_NAME_BYTES, MAX_WRAPPED_BYTES
from sds_node.schemes import RATIO_ONE, SchemeError, scheme_of, segment_count, segment_size, share_bytes
from sds_node.transfers import check_path
from sds_node.wire import errors as wire_errors

log = structlog.get_logger("rebuild")

AT_ONCE: Final = 8
"""Nodes that are asked at a time."""
ANSWER_S: Final = 60.0
TRIES: Final = 3
AGAIN_S: Final = 2.0
USELESS_PAGES: Final = 1_000
"""After so many pages in a row of which nothing could be used a node is asked no more."""
MAX_PAGES: Final = 1_000_000
"""Of one node: 100,000,000 copies."""

MAX_TIME_MS: Final = 1 << 52

Ask = Callable[[bytes, str, bytes, int], Awaitable[bytes]]
"""(a node's address, method, head, most bytes) → its answer. Raises WireError, TimeoutError."""
Progress = Callable[[str, int], None]
"""(what is counted, how many more of it there are)."""


@dataclass
class Told:
    """What came of asking one node."""

    objects: int = 0
    copies: int = 0
    refused: int = 0
    """Manifests and copies that were not believed."""
    problem: str = ""
    """Why it did not tell all; empty when it did."""


@dataclass
class Gathering:
    """Asks nodes by ``ask`` and fills ``found``. ``keys`` are ledger keys (32 bytes) that a manifest may be signed with, by meta node (20 bytes)."""

    ask: Ask
    found: Found
    chain_id: str
    keys: Mapping[bytes, Sequence[bytes]]
    progress: Progress = lambda what, count: None
    told: dict[bytes, Told] = field(default_factory=dict)
    highest_sequence: int = 0
    """Of manifests that count (``Found.judge``)."""

    async def run(self, nodes: Sequence[bytes]) -> None:
        """Ask these nodes (20 bytes each). What one of them says ends nothing."""
        self.told = {node: Told() for node in nodes}
        await self._each(nodes, self._manifests)
        self.highest_sequence = await asyncio.to_thread(self.found.judge)
        await self._each(nodes, self._copies)

    async def _each(self, nodes: Sequence[bytes], work: Callable[[bytes], Awaitable[None]]) -> None:
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(node: bytes) -> None:
            async with gate:
                try:
                    await work(node)
                except (wire_errors.WireError, TimeoutError, WrongInventory) as error:
                    problem = str(error) or "it did not answer in time"
                    self.told[node].problem = self.told[node].problem or problem
                    log.warning("a node does not tell all that it keeps", node=node.hex(), why=problem)

        await asyncio.gather(*map(one, nodes))

    async def _answer(self, node: bytes, method: str, head: Any, most_bytes: int) -> bytes:
        for left in range(TRIES - 1, -1, -1):
            try:
                async with asyncio.timeout(ANSWER_S):
                    return await self.ask(node, method, encode(head), most_bytes)
            except (wire_errors.WireError, TimeoutError) as error:
                if not left or isinstance(error, wire_errors.UnknownMethod | wire_errors.Refused | wire_errors.BadRequest):
                    raise
                await asyncio.sleep(AGAIN_S)
        raise AssertionError("the last try raises or returns")

    # --- manifests ----------------------------------------------------------------------------------------------------------

    async def _manifests(self, node: bytes) -> None:
        after, useless, told = b"", 0, self.told[node]
        for _ in range(MAX_PAGES):
            head = manifests.ObjectsHead(after=after, limit=manifests.MAX_OBJECTS_ASKED)
            raw = await self._answer(node, manifests.LIST_OBJECTS, head, manifests.MAX_LIST_BYTES)
            page = read_page(raw, after, self.chain_id)
            good = await asyncio.to_thread(self._good, page.rows)
            self.found.add_manifests(node, [(key, bytes(document.body), int(manifest.sequence)) for key, manifest, document in good])
            told.objects += len(good)
            told.refused += page.told - len(good)
            self.progress("manifests", len(good))
            useless = 0 if good else useless + 1
            if page.told < manifests.MAX_OBJECTS_ASKED:
                return
            if useless >= USELESS_PAGES:
                break
            after = page.rows[-1][0]
        raise WrongInventory("it tells of manifests without end that no meta node has signed")

    def _good(self, page: Sequence[tuple[bytes, Any, Any]]) -> list[tuple[bytes, Any, Any]]:
        good = []
        for one in page:
            _, manifest, document = one
            if any(manifests.is_signed_by(document, key) for key in self.keys.get(bytes(manifest.meta_node), ())) and is_sound(manifest):
                good.append(one)
        return good

    # --- copies -------------------------------------------------------------------------------------------------------------

    async def _copies(self, node: bytes) -> None:
        after, useless, told = (b"", b""), 0, self.told[node]
        for _ in range(MAX_PAGES):
            key = transfers.CopyKey(share_root=after[0], serial=after[1])
            head = manifests.KeptCopiesHead(after=key, limit=manifests.MAX_KEPT_ASKED)
            raw = await self._answer(node, manifests.LIST_KEPT, head, manifests.MAX_KEPT_BYTES)
            page, last = read_copies(raw, after)
            good = await asyncio.to_thread(self._believed, node, page)
            self.found.add_copies([copy for copy, _ in good], [(copy.segment_root, roots) for copy, roots in good if roots])
            told.copies += len(good)
            told.refused += len(page) - len(good)
            self.progress("shares", len(good))
            if last is None:
                return
            useless = 0 if good else useless + 1
            if useless >= USELESS_PAGES:
                break
            after = last
        raise WrongInventory("it tells of copies without end that belong to no object")

    def _believed(self, node: bytes, page: Sequence[Any]) -> list[tuple[FoundCopy, bytes]]:
        good = []
        for one in page:
            try:
                good.append(self._judged(node, one))
            except (Refused, SchemeError, DecodeError) as error:
                log.debug("a copy is not believed", node=node.hex(), why=str(error))
        return good

    def _judged(self, node: bytes, given: Any) -> tuple[FoundCopy, bytes]:
        """(the copy, roots of its segment's shares or nothing). Raises Refused, SchemeError, DecodeError."""
        kept = transfers.KeptShare.FromString(given.kept)
        share = check_manifest(kept.manifest, self.chain_id)
        if (bytes(share.share_root), bytes(share.serial)) != (bytes(given.copy.share_root), bytes(given.copy.serial)):
            raise Refused("expected the manifest of that copy")
        key, path = bytes(share.object_id), check_path(kept.segment_path)
        if not any(_fits(ObjectManifest.FromString(body), share) for body, _, _ in self.found.bodies(key)):
            raise Refused("expected a copy of an object of which a meta node has signed a manifest, with its wallet, scheme and size")
        if not share_proved(bytes(kept.segment_root), bytes(share.share_root), share.index, share.total_shares, path):
            raise Refused("expected a share under its segment's root")
        roots = manifests.read_roots(bytes(given.roots), bytes(kept.segment_root), share.total_shares)
        if roots is None and share.data_shares == 1:
            # Copies of one share have one root.
            roots = manifests.read_roots(bytes(share.share_root) * share.total_shares, bytes(kept.segment_root), share.total_shares)
        copy = FoundCopy(
            key, int(share.segment), int(share.index), node, bytes(share.serial), bytes(share.share_root), bytes(kept.segment_root),
            bytes(wallet_of(share.wallet) or b""),
        )  # fmt: skip
        return copy, b"".join(roots) if roots is not None else b""


def is_sound(manifest: Any) -> bool:
    """Whether a manifest names an object that a ledger can have, with a record."""
    file = manifest.file
    times = (manifest.made_ms, manifest.promo_ends_ms, manifest.file_made_ms, manifest.file_changed_ms, manifest.trashed_until_ms)
    try:
        scheme_of(manifest.data_shares, manifest.total_shares)
        segment_count(manifest.size_bytes)
    except SchemeError:
        return False
    return (
        is_hash(manifest.file_hash)
        and manifest.escrow_ratio_e18 <= RATIO_ONE
        and manifest.terms * manifest.term_days <= MAX_DAYS
        and max(times) <= MAX_TIME_MS
        and len(file.name) <= MAX_NAME_BYTES
        and len(file.wrapped_key) <= MAX_WRAPPED_BYTES
    )


def _fits(manifest: Any, share: Any) -> bool:
    """Whether a ShareManifest is of a share of an object."""
    form = scheme_of(manifest.data_shares, manifest.total_shares)
    if wallet_of(share.wallet) != bytes(manifest.payer) or (share.data_shares, share.total_shares) != (form.k, form.n):
        return False
    if share.segment >= segment_count(manifest.size_bytes):
        return False
    segment_bytes = segment_size(manifest.size_bytes, share.segment)
    return (share.segment_bytes, share.size_bytes) == (segment_bytes, share_bytes(form, segment_bytes))


def read_copies(raw: bytes, after: tuple[bytes, bytes]) -> tuple[Sequence[Any], tuple[bytes, bytes] | None]:
    """The KeptCopy of a page, and behind which copy the next one begins; None at the end. Raises WrongInventory."""
    try:
        page = manifests.KeptCopies.FromString(raw)
    except DecodeError:
        raise WrongInventory(f"expected a page of copies, got {len(raw)} bytes that are none") from None
    if len(page.copies) > manifests.MAX_KEPT_ASKED:
        raise WrongInventory(f"expected at most {manifests.MAX_KEPT_ASKED} copies, got {len(page.copies)}")
    for one in page.copies:
        key = bytes(one.copy.share_root), bytes(one.copy.serial)
        if key <= after or (len(key[0]), len(key[1])) != (HASH_BYTES, SERIAL_BYTES):
            raise WrongInventory("a page has copies out of order")
        after = key
    if not page.HasField("last"):
        return page.copies, None
    last = bytes(page.last.share_root), bytes(page.last.serial)
    if last < after or (len(last[0]), len(last[1])) != (HASH_BYTES, SERIAL_BYTES):
        raise WrongInventory("a page ends before its last copy")
    return page.copies, last
