"""What repair costs, and whether somebody pays it: nodes are paid by receipts, from the object's own repair fund, then from the common one.

    limit issued ─► owed, on disk ─► receipt ─► books ─► window ─► settled ─► not owed any more
    what can be paid = own fund + common fund − what is owed already

A byte that is read costs a noz and a share that is stored costs what the first one cost by receipt; the rest of the lost share's escrow goes on with the new
one. **When neither fund can pay, a repair waits and is reported. It is done on credit when at most half of what the scheme has below its threshold is left**
(10 of 30: 14 healthy ones, 5 of 10: 7, 2 of 5: 3, replicas: any), and always when only k are healthy: the receipts then wait in the books until a fund has noz.
A node that leaves hands its shares over for a noz each, and the new holder is paid as above, on credit too: once it is gone each costs k reads.
storage-protocol.md 3.6 says who pays and not when; a file that is lost is worth nothing to its payer, and its nodes lose their escrow with it. Credit is
bounded in receipts (``most_owed``), but not for a segment of which k shares are left.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from sds_node.meta.books.books import Books
from sds_node.meta.books.books import State as LeafState
from sds_node.meta.lateness import REPAIR_LATEST_S
from sds_node.meta.repair.health import Judged
from sds_node.meta.repair.known import Later, Settings, credit_spare
from sds_node.meta.repair.queue import Owed, RepairQueue
from sds_node.meta.rules import tables
from sds_node.meta.rules.objects import day_of, released_until, share_escrow
from sds_node.schemes import share_noz

HANDED_S: Final = REPAIR_LATEST_S
"""A receipt that nobody handed in for so long after its limit's end is taken no more, and not waited for."""
ANSWERS_AT_ONCE: Final = 1_000
HANDED_NOZ: Final = 1
"""What a node that leaves gets for a share that it hands over."""


class Funds:
    """What can be paid, and what is owed. ``clock`` tells Unix seconds. Call ``start`` first, and ``settle`` often."""

    def __init__(self, books: Books, queue: RepairQueue, clock: Callable[[], float], settings: Settings) -> None:
        self._books, self._queue, self._clock, self._settings = books, queue, clock, settings
        self._owed: dict[bytes, Owed] = {}
        self._of_object: dict[bytes, int] = {}
        self._of_fund: dict[int, int] = {tables.PAID: 0, tables.PROMO: 0}

    async def start(self) -> None:
        """Read what is owed."""
        for row in await self._queue.all_owed():
            self._add(row)

    @property
    def owed(self) -> int:
        """Receipts that no window has settled."""
        return len(self._owed)

    @property
    def owed_noz(self) -> int:
        return sum(self._of_fund.values())

    def available(self, state: tables.State, row: tables.Object) -> int:
        """The noz that repair of an object may cost now. What others owe counts against the common fund, though their own may pay it."""
        common = state.repair_paid_noz if row.fund == tables.PAID else state.repair_promo_noz
        own = self._of_object.get(row.id, 0)
        return max(0, row.repair_noz - own) + max(0, common - (self._of_fund.get(row.fund, 0) - own) - max(0, own - row.repair_noz))

    def shares_to_make(self, judged: Judged, state: tables.State) -> list[int]:
        """The shares of a segment that are to be made or moved: what is lost first, then what nobody ever held as far as the funds have its escrow, too, then
        what leaves. Of a segment that is not short, only what leaves."""
        if not judged.is_short:
            return list(judged.leaving)
        others = [*judged.lost, *judged.leaving]
        left_noz = self.available(state, judged.row) - repair_noz(judged, len(others))
        each_noz = store_noz(judged.row, judged.share_bytes) + escrow_needed(judged, day_of(judged.row, int(self._clock() * 1_000)))
        empty = list(judged.empty)[: max(0, left_noz // each_noz)]
        return [*judged.lost, *empty, *judged.leaving]

    def check(self, judged: Judged, state: tables.State, needed_noz: int) -> bool:
        """Whether the funds pay a repair; False: it is done on credit. Raises Later for one that has to wait."""
        has = self.available(state, judged.row)
        if has >= needed_noz:
            return True
        may_wait = judged.is_short and judged.spare > credit_spare(judged.scheme)
        if judged.spare <= 0 or (not may_wait and self.owed < self._settings.most_owed):
            return False
        raise Later("funds", f"the repair funds can pay {has} noz, {needed_noz} are needed")

    async def owe(self, rows: Sequence[Owed]) -> None:
        """Limits are about to be used."""
        await self._queue.owe(rows)
        for row in rows:
            self._add(row)

    async def forget(self, serials: Sequence[bytes]) -> None:
        """No receipt will come for these limits, or it is settled."""
        await self._queue.paid(serials)
        for serial in serials:
            row = self._owed.pop(serial, None)
            if row is not None:
                self._of_fund[row.fund] -= row.noz
                self._of_object[row.object] -= row.noz
                if not self._of_object[row.object]:
                    del self._of_object[row.object]

    async def settle(self) -> int:
        """Ask the books what became of what is owed. How many receipts are not owed any more. Raises BooksError, QueueError."""
        serials, done = list(self._owed), 0
        for at in range(0, len(serials), ANSWERS_AT_ONCE):
            part = serials[at : at + ANSWERS_AT_ONCE]
            over = []
            for serial, answer in zip(part, await self._books.answers(part), strict=True):
                row = self._owed.get(serial)
                if row is None:
                    continue  # forgotten while the books were asked: its node gave no receipt
                is_over = answer is None and row.until_s + HANDED_S < self._clock()
                if is_over or (answer is not None and answer.state in (LeafState.SETTLED, LeafState.REFUSED)):
                    over.append(serial)
            await self.forget(over)
            done += len(over)
        return done

    def _add(self, row: Owed) -> None:
        self._owed[row.serial] = row
        self._of_fund[row.fund] = self._of_fund.get(row.fund, 0) + row.noz
        self._of_object[row.object] = self._of_object.get(row.object, 0) + row.noz


def read_noz(size_bytes: int) -> int:
    """What a share that is read costs: a noz for each byte. A limit has at least one."""
    return max(1, size_bytes)


def store_noz(row: tables.Object, size_bytes: int) -> int:
    """What a share that is stored anew costs by receipt."""
    return max(1, share_noz(size_bytes, row.escrow_ratio_e18).receipt_noz)


def repair_noz(judged: Judged, shares: int, handed: int | None = None) -> int:
    """What it costs to make so many shares of a segment from k others, or to have ``handed`` of them handed over; without the escrow of new ones."""
    read = judged.row.k * read_noz(judged.share_bytes) if handed is None else handed * HANDED_NOZ
    return read + shares * store_noz(judged.row, judged.share_bytes)


def escrow_needed(judged: Judged, day: int) -> int:
    """What a share that nobody holds needs for the rest of its terms when one is made: the ledger takes it out of the funds with the move."""
    row = judged.row
    escrow = share_escrow(row, judged.at)
    return row.terms * escrow - released_until(escrow, day, row.term_days)
