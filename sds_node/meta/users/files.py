"""Files as their wallet sees them, objects that a session may read, and orders into the ledger.

    file.find, file.list ─► records with their objects      file.segments ─► segment roots      file.health ─► shares that are well
    wallet.info ─► balance                                  file.order ─ the session's wallet signed it ─► WalletOrder into the ledger

Pages are bounded; where to go on is the key of the last row. Somebody else's record comes without its wrapped key, and without its name unless it is public:
both are for their owner. Source: docs/adr/0008 (tables), 0009.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from hashlib import sha256
from typing import Any, Final

from google.protobuf.message import DecodeError

from chain.crypto import address as bech32
from modules.settlement.documents import signed_by_wallet
from sds_node import asking
from sds_node.hashes import is_hash
from sds_node.meta.ledger.engine import ReadView
from sds_node.meta.ledger.tables import View
from sds_node.meta.operations import LedgerRefused, Proposer
from sds_node.meta.rules.asking import MAX_ORDER_BYTES
from sds_node.meta.rules.call import state_of
from sds_node.meta.rules.files import SAME_HASH, is_folder
from sds_node.meta.rules.leases import MAX_OPEN_LEASES
from sds_node.meta.rules.places import nodes_of
from sds_node.meta.rules.refusals import USED_BEFORE
from sds_node.meta.rules.tables import ACTIVE, FILE, LEASE, NODE, OBJECT, SEGMENT, TRASH, TRASHED, WALLET, File, Object, Segment, Wallet
from sds_node.meta.rules.wire import ORDER_DOMAIN, WalletOrder
from sds_node.meta.users.access import READ_IN, file_of, readable
from sds_node.meta.users.asked import need, page_limit, refuse, sized
from sds_node.meta.users.known import Registry
from sds_node.meta.users.sessions import Session
from sds_node.schemes import scheme_of

MAX_ORDERS_KEPT: Final = 10_000
"""Orders that were done here lately: sent again they are answered as done."""


class Files:
    """``wallet.info`` and ``file.*``. ``clock`` tells Unix seconds."""

    def __init__(self, proposer: Proposer, registry: Registry, clock: Callable[[], float]) -> None:
        self._proposer, self._ledger, self._registry, self._clock = proposer, proposer.ledger, registry, clock
        self._done: OrderedDict[bytes, None] = OrderedDict()

    async def wallet(self, session: Session) -> Any:
        """The WalletRow of the session's wallet."""
        return await self._ledger.query(lambda view: wallet_row(view, session.wallet))

    async def find(self, session: Session, head: Any) -> Any:
        """The FileReply of a FileFindHead: by lookup id, by content (the newest one), or by object."""
        given = [name for name in ("lookup_id", "file_hash", "object_id") if getattr(head, name)]
        need(len(given) == 1, asking.BAD_ASK, f"expected one of lookup_id, file_hash and object_id, got {len(given)}")
        if given != ["file_hash"]:
            sized(getattr(head, given[0]), given[0])
        else:
            need(is_hash(head.file_hash), asking.BAD_ASK, f"expected a file hash of 40 characters, got {head.file_hash[:60]!a}")
        now_ms = self._now_ms()

        def look(view: ReadView) -> Any | None:
            if head.object_id:
                return _object_reply(view, session, bytes(head.object_id), now_ms)
            file = view.get(FILE, (session.wallet, bytes(head.lookup_id))) if head.lookup_id else _by_hash(view, session.wallet, head.file_hash)
            row = view.get(OBJECT, (file.object,)) if file is not None else None
            return None if file is None or row is None else file_row(file, row)

        found = await self._ledger.query(look)
        if found is None:
            refuse(asking.NOT_HELD, "there is no such file, or this wallet may not read it")
        return asking.FileReply(file=found)

    async def listed(self, session: Session, head: Any) -> Any:
        """The FilePage of a FileListHead: the wallet's files by lookup id, or what is in its trash by object id."""
        limit = page_limit(head.limit)
        after = (sized(head.after, "after"),) if head.after else ()
        limit = min(limit, TRASH.most_scanned - 1, FILE.most_scanned - 1)

        def look(view: ReadView) -> Any:
            records: list[Any] = (
                view.scan(TRASH, (session.wallet,), after=after, limit=limit + 1)
                if head.is_trash
                else view.scan(FILE, (session.wallet,), after=after, limit=limit + 1)
            )
            page = asking.FilePage(has_more=len(records) > limit)
            for record in records[:limit]:
                row = view.get(OBJECT, (record.object,))
                if row is not None:
                    page.files.append(file_row(record, row))
            return page

        return await self._ledger.query(look)

    async def segments(self, session: Session, head: Any) -> Any:
        """The SegmentRoots of a SegmentRootsHead."""
        limit = page_limit(head.limit, asking.MAX_SEGMENT_ROOTS)
        row = await self._readable(session, head.object_id, is_own_trash=True)
        rows = await self._ledger.query(lambda view: _segments(view, row, head.first, limit))
        return asking.SegmentRoots(roots=[one.root for one in rows])

    async def health(self, session: Session, head: Any) -> Any:
        """The HealthReply of a HealthHead: of each segment, how many shares are placed, and how many of them are at a node that is online and active."""
        limit = page_limit(head.limit)
        row = await self._readable(session, head.object_id, is_own_trash=True)

        def look(view: ReadView) -> tuple[list[Segment], set[int]]:
            rows = _segments(view, row, head.first, limit + 1)
            numbers = {node for one in rows[:limit] for node in nodes_of(one.nodes) if node}
            found = {number: view.get(NODE, (number,)) for number in numbers}
            return rows, {number for number, node in found.items() if node is not None and node.standing == ACTIVE}

        rows, active = await self._ledger.query(look)
        well = {number for number in active if (contact := self._registry.contact(number)) is not None and contact.is_online}
        scheme = scheme_of(row.k, row.n)
        reply = asking.HealthReply(data_shares=row.k, total_shares=row.n, repair_below=scheme.repair_below, has_more=len(rows) > limit)
        for one in rows[:limit]:
            placed = [node for node in nodes_of(one.nodes) if node]
            reply.segments.add(segment=one.number - row.first_segment, healthy=sum(node in well for node in placed), placed=len(placed))
        return reply

    async def order(self, session: Session, head: Any) -> None:
        """A WalletOrder of the session's wallet → the ledger, which judges it. One that was done here is done."""
        body = bytes(head.order.body)
        need(len(body) <= MAX_ORDER_BYTES, asking.BAD_ASK, f"order: expected at most {MAX_ORDER_BYTES} bytes, got {len(body)}")
        try:
            order = WalletOrder.FromString(body)
        except DecodeError:
            refuse(asking.BAD_ASK, f"order: expected a WalletOrder, got {len(body)} bytes that are none")
        need(
            bytes(order.wallet) == session.wallet,
            asking.BAD_ASK,
            f"expected an order of the session's wallet {session.wallet_text}, got one of {bytes(order.wallet)[:20].hex() or 'nobody'}",
        )
        digest = sha256(body).digest()
        await self._check_order(session, head.order)
        try:
            async with session.account.in_turn():
                with session.account.logging(head.order, self._clock()):
                    await self._proposer.propose_tried("wallet_order", head.order)
        except LedgerRefused as error:
            if error.code == USED_BEFORE and digest in self._done:
                return
            raise
        self._done[digest] = None
        if len(self._done) > MAX_ORDERS_KEPT:
            self._done.popitem(last=False)

    async def _check_order(self, session: Session, order: Any) -> None:
        """Keep out of the ledger's log what it would refuse anyway: anyone can open a session of a new wallet."""
        session.may_propose(self._clock())
        if not signed_by_wallet(ORDER_DOMAIN + b"\x00" + order.body, order.public_key, order.signature, session.wallet):
            refuse(asking.BAD_ASK, f"{session.wallet_text} has not signed the order")
        row = await self._ledger.query(lambda view: view.get(WALLET, (session.wallet,)))
        need(row is not None, asking.NOT_HELD, f"the ledger knows nothing of {session.wallet_text}: buy ozone and store something first")

    async def _readable(self, session: Session, object_id: bytes, *, is_own_trash: bool = False) -> Object:
        key, now_ms = sized(object_id, "object_id"), self._now_ms()

        def look(view: ReadView) -> Object | None:
            row = readable(view, session, key, now_ms)
            if row is None and is_own_trash and (own := view.get(OBJECT, (key,))) is not None:
                return own if own.payer == session.wallet and own.state == TRASHED else None
            return row

        row: Object | None = await self._ledger.query(look)
        if row is None:
            refuse(asking.NOT_HELD, f"object {key.hex()} is not stored, or this wallet may not read it")
        return row

    def _now_ms(self) -> int:
        return int(self._clock() * 1_000)


def wallet_row(view: ReadView, address: bytes) -> Any:
    """The WalletRow of a wallet; one that nothing is known of is empty."""
    row = view.get(WALLET, (address,)) or Wallet(address, 0, 0, 0, 0, 0, 0, 0, True)
    # Most wallets have no lease most of the time.
    leases = view.scan(LEASE, (address,), index="by_wallet", limit=MAX_OPEN_LEASES) if row.open_leases else ()
    return asking.WalletRow(
        wallet=bech32.encode(address), paid_noz=str(row.paid_noz), promo_noz=str(row.promo_noz), sequence=row.sequence, files=row.files,
        trash=row.trash, shares=row.shares, open_leases=row.open_leases, is_legacy_allowed=row.is_legacy_allowed, height=state_of(view).height,
        time_ms=view.head.time_ms, leased_noz=str(sum(one.noz for one in leases)),
    )  # fmt: skip


def object_row(row: Object) -> Any:
    """The ObjectRow of an object."""
    return asking.ObjectRow(
        object_id=row.id, root=row.root, file_hash=row.file_hash, size_bytes=row.size_bytes, data_shares=row.k, total_shares=row.n,
        segments=row.segments, state=row.state, made_ms=row.made_ms, due_ms=row.due_ms, term_days=row.term_days, terms=row.terms,
        escrow_noz=str(row.escrow_noz), repair_noz=str(row.repair_noz), fund=row.fund,
    )  # fmt: skip


def file_row(record: Any, row: Object, *, is_own: bool = True) -> Any:
    """The FileRow of a record (File or Trash) and its object."""
    return asking.FileRow(
        lookup_id=record.lookup_id if is_own else b"", name=record.name if is_own or record.is_public else b"",
        wrapped_key=record.wrapped_key if is_own else b"", is_public=record.is_public, made_ms=record.made_ms,
        changed_ms=record.changed_ms if isinstance(record, File) else record.made_ms, object=object_row(row),
    )  # fmt: skip


def _object_reply(view: View, session: Session, key: bytes, now_ms: int) -> Any | None:
    row = readable(view, session, key, now_ms)
    file = file_of(view, row) if row is not None else None
    return file_row(file, row, is_own=row.payer == session.wallet) if row is not None and file is not None else None


def _by_hash(view: View, wallet: bytes, file_hash: str) -> File | None:
    """The newest file of a wallet with that content; folders, which have an empty file's, are none."""
    rows = view.scan(OBJECT, (wallet, file_hash), index="by_hash", limit=min(SAME_HASH, OBJECT.most_scanned))
    for row in sorted((row for row in rows if row.state in READ_IN), key=lambda row: -row.made_ms):
        file = file_of(view, row)
        if file is not None and not is_folder(row, file):
            return file
    return None


def _segments(view: View, row: Object, first: int, limit: int) -> list[Segment]:
    """At most ``limit`` segments of an object, from number ``first`` in it on."""
    if first >= row.committed:
        return []
    begin, end = row.first_segment + first, row.first_segment + min(row.committed, first + limit)
    found: list[Segment] = []
    while begin < end:
        page = view.scan(SEGMENT, start=(begin,), end=(end,), limit=min(SEGMENT.most_scanned, end - begin))
        found.extend(page)
        if not page:
            break
        begin = page[-1].number + 1
    return found
