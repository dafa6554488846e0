"""Public files are reported to the chain: one MsgFileUpload for each, many in a transaction, by the meta node whose duty the file is.

    ledger's log: commits, renamings, restores ─► unreported ─► still public? ─► does the chain have it? ─ yes ─► done
    all files, once: what no log tells of ─────────▲   ▲                            └ no ─► its turn? ─► MsgFileUpload … ─► done
                                                   │   └ refused, its answer lost, another's turn: later ◄──────┘
                                                   └ the cursor and what was found are written together

A file is public when its record says so and has no wrapped key, at the moment at which it is reported. Its content decides: the same content stored by ten
wallets is reported once, with the wallet of the first. Empty files are not reported: they cost nothing, so anybody has a million of them.

Once, and not twice: the chain is asked before; a transaction is written down before it is sent, with a height after which no block takes it, and until that
height has passed without the file nothing is sent again. Two that both believe it is theirs do no harm: the chain keeps one record of a file.
The first in ``place`` reports; each of the others steps in when the chain is known to lack the file for so long. One transaction at a time, so reports of
epochs wait for one block at most. Sources: storage-protocol.md 5; stratos-chain.md 3.2; README of modules/sds (Files).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import structlog

from chain.codec.registry import message_class
from chain.crypto import address as bech32
from sds_node.documents import PACKAGE
from sds_node.meta.ledger.engine import ReadView
from sds_node.meta.ledger.errors import LedgerError
from sds_node.meta.operations import AnyLedger
from sds_node.meta.relay.unreported import Cursor, Unreported, UnreportedError, Waiting
from sds_node.meta.rules.commit import object_id
from sds_node.meta.rules.observe import active_metas
from sds_node.meta.rules.tables import ADDRESS_BYTES, FILE, GRACE, KEPT, OBJECT, TRASH, TRASHED, File, Trash
from sds_node.meta.rules.wire import Operation, SignedOperation
from sds_node.value_chain.client import TxRefused, ValueChain, ValueChainError
from sds_node.value_chain.sender import Sender
from sds_node.value_chain.views import uploaded_file

log = structlog.get_logger("uploads")

MsgFileUpload: Final = message_class("stratos.sds.v1.MsgFileUpload")
WalletOrder: Final = message_class(f"{PACKAGE}.WalletOrder")

MAX_MESSAGES: Final = 50
"""In one transaction."""
LOOKED_AT: Final = 2 * MAX_MESSAGES
"""So many are looked up in a step."""
MAX_WAITING: Final = 10_000
"""With so many unreported ones the ledger is not read on."""
PAGES: Final = 20
"""Of the ledger, in a step."""
PAGE_ENTRIES: Final = 64
PAGE_FILES: Final = 500
TIMEOUT_BLOCKS: Final = 30
"""A transaction that is in no block so many heights later never will be."""
TURN_S: Final = 300
"""A meta node reports a file when the chain lacks it for so long, times those that come before it: one whose operator switched this off, or that hangs."""
OTHERS_S: Final = 30
"""How soon the chain is asked again about a file that is another's to report."""
AGAIN_S: Final = 60
"""After a refusal that is not about the files, and while the hour's number is used up."""
REFUSED_S: Final = 3_600
"""After a refusal of one file."""
HOUR_S: Final = 3_600
LONGEST_PAUSE_S: Final = 60.0
_OUT_OF_GAS: Final = ("sdk", 11)
_TOO_LARGE: Final = ("sdk", 21)
_NOT_REPORTER: Final = ("sds", 11)


@dataclass(frozen=True, slots=True)
class Public:
    """A public file of the ledger: its hash and the wallet (20 bytes) that keeps it."""

    file_hash: str
    wallet: bytes


@dataclass(frozen=True, slots=True)
class _Page:
    """What a look at the ledger found: objects that may be public files, and how far it went."""

    objects: list[bytes]
    cursor: Cursor


@dataclass(frozen=True, slots=True)
class _Now:
    """Of some objects, those that are public files now; whether this meta node may report."""

    public: dict[bytes, Public]
    is_active: bool


class Uploads:
    """Of the meta node at ``meta_node`` (20 bytes), whose owner's wallet ``sender`` has. ``place``: how many come before this one for a file's hash. Nothing is
    done while ``is_able`` says no. At most ``most_per_hour`` files are reported in an hour. ``clock`` tells Unix seconds. ``unreported`` stays the caller's."""

    def __init__(
        self,
        chain: ValueChain,
        sender: Sender,
        ledger: AnyLedger,
        unreported: Unreported,
        meta_node: bytes,
        clock: Callable[[], float],
        *,
        place: Callable[[str], int] = lambda _: 0,
        is_able: Callable[[], bool] = lambda: True,
        most_per_hour: int,
        poll_s: float = 5.0,
    ) -> None:
        self._chain, self._sender, self._ledger, self._unreported = chain, sender, ledger, unreported
        self._address, self._reporter = meta_node, bech32.encode(meta_node, bech32.NODE)
        self._clock, self._place, self._is_able = clock, place, is_able
        self._most_per_hour, self._poll_s = most_per_hour, poll_s
        self._most = MAX_MESSAGES
        """In the next transaction: less after one that was refused for what is in it."""
        self._sent: deque[tuple[float, int]] = deque()
        """When so many were reported, within the hour."""
        self.reported = 0
        """Files that this meta node reported in this run."""
        self.waiting = 0
        """Files that may have to be reported, as the last step left them."""
        self.last_problem = ""

    async def run(self) -> None:
        """Report until cancelled."""
        pause_s = self._poll_s
        while True:
            try:
                sent = await self.step()
                # A full transaction is followed by the next one soon, but not before others had their turn at the wallet.
                pause_s = self._poll_s / 5 if sent else self._poll_s
            except (LedgerError, ValueChainError) as error:
                log.warning("public files cannot be reported now", reason=str(error))
                pause_s = min(2 * max(pause_s, self._poll_s), LONGEST_PAUSE_S)
            except UnreportedError as error:
                self._problem(error)
                pause_s = LONGEST_PAUSE_S
            await asyncio.sleep(pause_s)

    async def step(self) -> int:
        """Look what became public, and report what is due, with one transaction at most. How many were reported. Raises LedgerError, ValueChainError,
        UnreportedError."""
        if not self._is_able():
            return 0
        await self._read_on()
        self.waiting = await self._unreported.count()
        try:
            return await self._report()
        finally:
            self.waiting = await self._unreported.count()

    def problems(self) -> list[str]:
        """What is wrong, in sentences."""
        return [self.last_problem] if self.last_problem else []

    # --- what became public -------------------------------------------------------------------------------------------------------

    async def _read_on(self) -> None:
        for _ in range(PAGES):
            if await self._unreported.count() >= MAX_WAITING:
                return
            cursor = await self._unreported.cursor()
            page: _Page = await self._ledger.query(partial(_next_page, cursor=cursor))
            if page.cursor == cursor:
                return
            await self._unreported.note(page.objects, page.cursor, int(self._clock()))

    # --- what is reported ---------------------------------------------------------------------------------------------------------

    async def _report(self) -> int:
        now_s = int(self._clock())
        rows = await self._unreported.due(now_s, LOOKED_AT)
        if not rows:
            return 0
        if (await self._chain.status()).is_catching_up:
            return 0
        # First the height, then the files: what is not there now came into no block up to it.
        height = await self._chain.committed_height()
        now: _Now = await self._ledger.query(partial(_look, objects=[row.object for row in rows], own=self._address))
        by_hash: dict[str, list[Waiting]] = {}
        for row in rows:
            if row.object in now.public:
                by_hash.setdefault(now.public[row.object].file_hash, []).append(row)
        over = [row.object for row in rows if row.object not in now.public]
        later: list[tuple[Waiting, int]] = []
        wanted: list[list[Waiting]] = []
        for file_hash, found in by_hash.items():
            if await uploaded_file(self._chain, file_hash) is not None:
                over.extend(row.object for row in found)
                continue
            missed_s = min((row.missed_s for row in found if row.missed_s), default=now_s)
            until_height = max(row.until_height for row in found)
            found = [row._replace(missed_s=missed_s, until_height=until_height) for row in found]
            wait_s = self._wait_s(file_hash, now_s - missed_s, now.is_active) if height >= until_height else max(1, int(self._poll_s))
            if wait_s:
                later.extend((row, now_s + wait_s) for row in found)
            else:
                wanted.append(found)
        room = self._room(now_s)
        batch, rest = wanted[: min(self._most, room)], wanted[room:]
        later.extend((row, now_s + AGAIN_S) for found in rest for row in found)
        await self._unreported.remove(over)
        await self._unreported.later(later)
        return await self._send([(now.public[found[0].object], found) for found in batch], height + TIMEOUT_BLOCKS) if batch else 0

    def _wait_s(self, file_hash: str, missed_for_s: int, is_active: bool) -> int:
        """How long a file that the chain lacks is left to others; 0: it is to be reported now."""
        if not is_active:
            return AGAIN_S
        left_s = self._place(file_hash) * TURN_S - missed_for_s
        return min(left_s, OTHERS_S) if left_s > 0 else 0

    def _room(self, now_s: float) -> int:
        while self._sent and self._sent[0][0] <= now_s - HOUR_S:
            self._sent.popleft()
        return max(0, self._most_per_hour - sum(count for _, count in self._sent))

    async def _send(self, batch: Sequence[tuple[Public, list[Waiting]]], until_height: int) -> int:
        messages = [
            MsgFileUpload(
                **{"from": self._sender.address, "reporter": self._reporter, "uploader": bech32.encode(file.wallet), "file_hash": file.file_hash}
            )
            for file, _ in batch
        ]
        objects = [row.object for _, rows in batch for row in rows]
        await self._unreported.sending(objects, until_height)
        try:
            result = await self._sender.send(messages, timeout_height=until_height)
        except TxRefused as error:
            await self._refused(batch, error)
            return 0
        await self._unreported.remove(objects)
        self._sent.append((self._clock(), len(batch)))
        self._most = min(2 * self._most, MAX_MESSAGES)
        self.reported += len(batch)
        self.last_problem = ""
        log.info("public files reported", files=len(batch), height=result.height)
        return len(batch)

    async def _refused(self, batch: Sequence[tuple[Public, list[Waiting]]], error: TxRefused) -> None:
        """One file can spoil a transaction: it is found by halves, and waits while the others go on. What is wrong with all of them makes all wait."""
        refusal = error.codespace, error.code
        is_of_files = refusal in (_OUT_OF_GAS, _TOO_LARGE) or (error.codespace == "sds" and refusal != _NOT_REPORTER)
        wait_s = AGAIN_S
        if is_of_files and len(batch) > 1:
            self._most, wait_s = len(batch) // 2, 0
        elif is_of_files:
            self._most, wait_s = MAX_MESSAGES, REFUSED_S
            log.error("the chain refuses a public file", file=batch[0][0].file_hash, why=str(error))
        else:
            self._problem(error)
        due_s = int(self._clock()) + wait_s
        await self._unreported.later((row._replace(until_height=0), due_s) for _, rows in batch for row in rows)

    def _problem(self, error: Exception) -> None:
        self.last_problem = f"public files could not be reported to the chain: {error}"
        log.warning("public files could not be reported", reason=str(error))


# --- from the ledger ------------------------------------------------------------------------------------------------------------------


def _next_page(view: ReadView, cursor: Cursor | None) -> _Page:
    """What follows on ``cursor``. All files are gone through where there is none, and where the log has no longer, or not yet, what comes after it."""
    head = view.head
    if cursor is None or not head.base_sequence <= cursor.sequence <= head.sequence:
        cursor = Cursor(head.sequence, b"")
    if cursor.file is not None:
        after = (cursor.file[:ADDRESS_BYTES], cursor.file[ADDRESS_BYTES:]) if cursor.file else ()
        rows = view.scan(FILE, after=after, limit=PAGE_FILES)
        last = rows[-1].wallet + rows[-1].lookup_id if len(rows) == PAGE_FILES else None
        return _Page([row.object for row in rows if _is_plain(row)], cursor._replace(file=last))
    objects: list[bytes] = []
    sequence = cursor.sequence
    for entry in view.entries(sequence, PAGE_ENTRIES):
        sequence = entry.sequence
        if not entry.code:
            objects.extend(_touched(view, entry.operation))
    return _Page(objects, Cursor(sequence, None))


def _touched(view: ReadView, raw: bytes) -> Iterable[bytes]:
    """Objects that an operation which was applied may have made public files."""
    operation = Operation.FromString(SignedOperation.FromString(raw).body)
    kind = operation.WhichOneof("kind")
    if kind == "commit":
        lease = operation.commit.lease_id
        return [object_id(lease, new.counter) for new in operation.commit.objects if _is_plain(new.file)]
    if kind != "wallet_order":
        return []
    order = WalletOrder.FromString(operation.wallet_order.body)
    if order.WhichOneof("kind") == "restore":
        return list(order.restore.object_ids)
    if order.WhichOneof("kind") != "rename" or not _is_plain(order.rename.file):
        return []
    row = view.get(FILE, (order.wallet, order.rename.file.lookup_id))
    return [] if row is None else [row.object]


def _look(view: ReadView, objects: Sequence[bytes], own: bytes) -> _Now:
    found = {key: public for key in objects if (public := _public(view, key)) is not None}
    return _Now(found, any(one.address == own for one in active_metas(view)))


def _public(view: ReadView, key: bytes) -> Public | None:
    """An object's file, if it is public, has content, and is complete; the trash counts."""
    row = view.get(OBJECT, (key,))
    if row is None or not row.size_bytes or row.state not in (KEPT, GRACE, TRASHED):
        return None
    record: File | Trash | None = view.get(FILE, (row.payer, row.lookup_id))
    if record is None or record.object != key:
        record = view.get(TRASH, (row.payer, key))
    return Public(row.file_hash, row.payer) if record is not None and _is_plain(record) else None


def _is_plain(record: Any) -> bool:
    """Whether a record is of a file whose content is not encrypted."""
    return bool(record.is_public) and not record.wrapped_key
