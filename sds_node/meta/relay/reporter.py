"""Reports an epoch to the value chain: closed in the ledger, its data from the books, signed by a quorum of meta nodes, sent as one transaction.

    time is over, my turn ─► close_epoch ─► lines ─► books ─► commitment, report ─► BLS signatures ─► MsgCommitEpoch, MsgVolumeReport ─► observed
            ▲          ▲          └ closed already: the same lines          refused: the reason is logged, again after the epoch's length ┘
            │          └─ leaves of some wallets do not add up: after the pause the same without them, for an hour; ``problems`` names them.
            │             From four meta nodes on others approve that first, whose books cannot show these wallets' leaves either
            └────── the chain has its report already: nothing to do until the ledger has observed it

Turns go by the epoch's number over the active meta nodes that are there, in order of their addresses; every 60 s the next one may. Nothing is kept: what is to
be done follows from the ledger's row and the chain's last report, and the chain takes one report of an epoch. ``countersign`` is what the others do: they make the epoch
themselves before they sign. Sources: storage-protocol.md 1.2, 1.6, 1.7; README of pot and settlement.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import structlog

from chain.codec.canonical import encode
from chain.codec.registry import message_class
from chain.crypto import address as bech32
from chain.crypto import bls
from chain.metakeys import MetaKeys
from chain.quorum import quorum
from chain.reports import Draft, report_reference
from modules.settlement.commitment import PAID, STORAGE, CommitLine, Line
from sds_node.documents import PACKAGE
from sds_node.meta.books.books import BooksError
from sds_node.meta.ledger.engine import ReadView
from sds_node.meta.ledger.errors import LedgerError
from sds_node.meta.operations import Approve, LedgerRefused, Proposer, nobody_approves, with_approvals
from sds_node.meta.rules.epochs import MAX_LEFT_OUT
from sds_node.meta.rules.observe import active_metas
from sds_node.meta.rules.refusals import TOO_EARLY, WRONG_EPOCH
from sds_node.meta.rules.tables import CLOSED, EPOCH, EPOCH_LINE, STATE, VOID, Epoch, State
from sds_node.meta.rules.wire import MAX_LINES
from sds_node.value_chain import views
from sds_node.value_chain.client import TxRefused, ValueChain, ValueChainError
from sds_node.value_chain.sender import Sender

log = structlog.get_logger("reporter")

CloseEpoch: Final = message_class(f"{PACKAGE}.CloseEpoch")
EpochCommitment: Final = message_class("stratos.settlement.v1.EpochCommitment")
MsgVolumeReport: Final = message_class("stratos.pot.v1.MsgVolumeReport")

MARGIN_S: Final = 1.0
"""The ledger knows the last report's time in whole seconds."""
TURN_S: Final = 60
SIGNATURES_S: Final = 5.0
"""Pause after too few signed."""
LEAST_PAUSE_S: Final = 60.0
"""After a refusal: a ledger closes an epoch again no sooner."""
LONGEST_LOOK_S: Final = 10.0
TOLD_AGAIN: Final = 100
"""Reported epochs of which the books are told once more after a start."""
MAX_VOID: Final = 1_000
LEFT_OUT_S: Final = 3_600
"""Then wallets that were left out are tried again: a window of another meta node may have come since."""
MAX_UNEVEN: Final = 10_000
"""Wallets that are remembered for two hours as ones whose leaves the books here could not show."""
MAX_NAMED: Final = 5
"""Wallets that a problem names."""
_EARLY: Final = re.compile(r"is reported (-?[0-9]{1,12}) s after the last one: expected ([0-9]{1,12}) s")
_REPORTED_ALREADY: Final = "is not above the last distributed epoch"


class UnevenBooks(BooksError):
    """The leaves of some wallets do not add up to the ledger's lines, or cannot be read: ``wallets`` (20 bytes each), ascending."""

    def __init__(self, text: str, wallets: Sequence[bytes]) -> None:
        self.wallets = tuple(wallets)
        super().__init__(text)


@dataclass(frozen=True, slots=True)
class EpochData:
    """What the books make of an epoch: roots of 32 bytes, and where its data is."""

    receipts_root: bytes
    receipts_count: int
    totals_root: bytes
    debits_root: bytes
    balances_root: bytes
    audits_root: bytes
    files_root: bytes
    data_ref: str


class EpochBooks(Protocol):
    """What a meta node keeps of its epochs. All of it may be asked again."""

    async def epoch(self, number: int, closed_ms: int, lines: Sequence[Line]) -> EpochData:
        """An epoch that the ledger closed at that time with these lines. Raises BooksError; UnevenBooks when leaves of some wallets do not add up to the
        lines."""
        ...

    async def reported(self, number: int) -> None:
        """The ledger has observed its report."""
        ...

    async def voided(self, number: int) -> None:
        """It is void on chain: its leaves can be reported again."""
        ...


Gather = Callable[[Draft], Awaitable[Mapping[bytes, bytes]]]
"""From a draft to signatures (96 bytes) of other meta nodes, by their BLS keys (48 bytes)."""


class TooFewSignatures(Exception):
    """No quorum signed a report, or approved what an epoch is to be closed without."""


class Unequal(Exception):
    """Another meta node's report is not what this one makes of the epoch."""


class NotYet(Unequal):
    """This meta node cannot make that epoch's report now: in a moment, or once its books are whole, it may."""


async def nobody(draft: Draft) -> Mapping[bytes, bytes]:
    """``Gather`` of a network with one meta node."""
    return {}


def make_draft(chain_id: str, reporter: str, owner: str, row: Epoch, lines: Sequence[Line], data: EpochData) -> Draft:
    """The report of a closed epoch: ``reporter`` is stsds…, ``owner`` st1…, ``lines`` the ledger's in its order."""
    commitment = EpochCommitment(
        epoch=row.number,
        lines=[
            CommitLine(wallet=bech32.encode(line.wallet), traffic_class=line.traffic_class, fund=line.fund, volume_noz=str(line.noz))
            for line in lines
            if (line.traffic_class, line.fund) != (STORAGE, PAID)
        ],
        promo_expired_noz=str(row.promo_expired_noz),
        roots={
            "receipts_root": data.receipts_root,
            "receipts_count": data.receipts_count,
            "totals_root": data.totals_root,
            "debits_root": data.debits_root,
            "balances_root": data.balances_root,
            "audits_root": data.audits_root,
            "files_root": data.files_root,
            "data_ref": data.data_ref,
        },
    )
    volumes: dict[str, int] = {}
    for line in lines:
        wallet = bech32.encode(line.wallet)
        volumes[wallet] = volumes.get(wallet, 0) + line.noz
    report = MsgVolumeReport(
        wallet_volumes=[{"wallet_address": wallet, "volume": str(noz)} for wallet, noz in sorted(volumes.items() or [(owner, 0)])],
        reporter=reporter,
        epoch=str(row.number),
        report_reference=report_reference(commitment),
        reporter_owner=owner,
    )
    return Draft(chain_id, commitment, report)


@dataclass(frozen=True, slots=True)
class _Look:
    """What the ledger says: state, the row of the epoch that is next, active meta nodes in order, epochs that are void."""

    state: State
    row: Epoch | None
    active: list[bytes]
    void: list[int]


class Reporter:
    """Of the meta node with ``keys``, whose ``owner`` (20 bytes) sends by ``sender``. ``gather_bls`` asks the others to sign; ``clock`` tells Unix seconds."""

    def __init__(
        self,
        chain: ValueChain,
        sender: Sender,
        proposer: Proposer,
        keys: MetaKeys,
        owner: bytes,
        books: EpochBooks,
        gather_bls: Gather,
        clock: Callable[[], float],
        *,
        poll_s: float = 1.0,
        online: Callable[[], Iterable[bytes]] | None = None,
        approve: Approve = nobody_approves,
    ) -> None:
        """``online`` gives the addresses of the meta nodes that are there: the turn of others is left out; ``approve`` asks them. Raises ValueError when the sender's wallet is not
        the owner."""
        self._owner = bech32.encode(owner)
        if sender.address != self._owner:
            raise ValueError(f"reports of {keys.network_address} are sent by its owner {self._owner}, got the key of {sender.address}")
        self._chain, self._sender, self._proposer, self._keys = chain, sender, proposer, keys
        self._books, self._gather, self._clock, self._poll_s = books, gather_bls, clock, poll_s
        self._online, self._approve = online, approve
        self._not_before_s = 0.0
        self._failed = 0
        """The epoch that was refused as it was closed."""
        self._told = -1
        self._told_void: set[int] = set()
        self._left_out: dict[bytes, int] = {}
        """Wallet → the first epoch that is reported without it."""
        self._uneven: dict[bytes, float] = {}
        """Wallet → when the books here could not show its leaves."""
        self._left_out_s = 0.0
        """When the last of them came."""
        self.reported = 0
        """Reports of this meta node that the chain took."""
        self.last_problem = ""

    async def run(self) -> None:
        """Report until cancelled."""
        while True:
            try:
                pause_s = await self.step()
            except (ValueChainError, LedgerError, BooksError) as error:
                self._problem("an epoch could not be reported yet", error)
                pause_s = LONGEST_LOOK_S
            await asyncio.sleep(pause_s)

    async def step(self) -> float:
        """Look whether there is something to report, and report it. Returns after how many seconds to look again. Raises ValueChainError, LedgerError,
        BooksError."""
        look = await self._look()
        if look is None:
            return self._poll_s
        await self._tell_books(look)
        number = look.state.reported_epoch + 1
        last, status = await views.last_report(self._chain), await self._chain.status()
        if status.is_catching_up or (last is not None and last.epoch >= number):
            return self._poll_s
        opens_s, now_s = look.state.reported_s + look.state.epoch_duration_s + MARGIN_S, min(self._clock(), status.time_s)
        if now_s < opens_s:
            return min(max(opens_s - now_s, self._poll_s), LONGEST_LOOK_S)
        if self._clock() < self._not_before_s or not self._is_turn(look.active, number, now_s - opens_s):
            return self._poll_s
        return await self._tried(look, number)

    def problems(self) -> list[str]:
        """What is wrong, in sentences."""
        found = [self.last_problem] if self.last_problem else []
        if self._left_out:
            wallets = sorted(self._left_out)
            named = ", ".join(bech32.encode(one) for one in wallets[:MAX_NAMED])
            more = f" and {len(wallets) - MAX_NAMED} more" if len(wallets) > MAX_NAMED else ""
            found.append(
                f"since epoch {min(self._left_out.values())} reports leave out {len(wallets)} wallets whose receipts the books cannot show: {named}{more}; "
                "what they earned stays in the ledger, and is tried again within the hour: if it stays so, restore the books from a backup and start again"
            )
        return found

    async def countersign(self, draft: Draft) -> bytes:
        """This meta node's BLS signature (96 bytes) on another's report. Raises Unequal unless its own ledger and books make the same of the epoch, NotYet
        where they are not that far; ValueChainError, LedgerError."""
        look = await self._look()
        row = look.row if look is not None else None
        if row is None or row.status != CLOSED or draft.commitment.epoch != row.number or draft.chain_id != self._proposer.chain_id:
            is_next = look is not None and draft.chain_id == self._proposer.chain_id and draft.commitment.epoch == look.state.reported_epoch + 1
            kind = NotYet if is_next else Unequal
            raise kind(f"the ledger of this meta node has not closed epoch {draft.commitment.epoch} of {draft.chain_id[:64]!r} last")
        lines = await self._lines(row.number)
        try:
            data = await self._data(row, lines)
        except BooksError as error:
            raise NotYet(f"the books of this meta node do not have epoch {row.number}: {error}") from None
        own = make_draft(draft.chain_id, draft.report.reporter, draft.report.reporter_owner, row, lines, data)
        if encode(own.commitment) != encode(draft.commitment) or own.data != draft.data:
            raise Unequal(
                f"this meta node makes another report of epoch {row.number}: {own.report.report_reference}, not {draft.report.report_reference}"
            )
        return self._keys.sign(own.message)

    async def check_close(self, message: Any) -> None:
        """Returns where this meta node, too, would close an epoch without these wallets: each is one whose leaves its own books did not show, either when the
        epoch was closed before, which is looked at now, or of an earlier epoch in the last two hours. Raises Unequal, NotYet; ValueChainError, LedgerError."""
        look = await self._look()
        if look is None or message.epoch != look.state.reported_epoch + 1:
            raise NotYet(f"epoch {message.epoch} is not the next one in the ledger of this meta node")
        if look.row is not None and look.row.status == CLOSED:
            try:
                await self._data(look.row, await self._lines(look.row.number))
            except UnevenBooks:
                pass  # they are noted
            except BooksError as error:
                raise NotYet(f"the books of this meta node do not have epoch {message.epoch}: {error}") from None
        since_s = self._clock() - 2 * LEFT_OUT_S
        shown = [one for one in message.without if self._uneven.get(one, 0.0) <= since_s]
        if shown:
            raise Unequal(
                f"the books of this meta node show the leaves of {len(shown)} wallets that epoch {message.epoch} is to be closed without, or were not asked "
                f"for them: {bech32.encode(shown[0]) if len(shown[0]) == len(self._keys.address) else shown[0].hex()[:64]} is one"
            )

    # --- one report -----------------------------------------------------------------------------------------------------------------------

    async def _tried(self, look: _Look, number: int) -> float:
        length_s = max(float(look.state.epoch_duration_s), LEAST_PAUSE_S)
        try:
            await self._report(look, number)
        except LedgerRefused as error:
            if error.code in (TOO_EARLY, WRONG_EPOCH):
                return self._poll_s
            return self._wait(f"the ledger does not close epoch {number}", error, length_s)
        except TooFewSignatures as error:
            # Who was away at the close cannot make its data any more: once it is old enough it is closed again.
            self._failed = number
            return self._wait(f"epoch {number} is not signed yet", error, SIGNATURES_S)
        except BooksError as error:
            self._failed = number
            if isinstance(error, UnevenBooks):
                self._leave_out(number, error.wallets)
            return self._wait(f"the books cannot account for epoch {number}", error, length_s)
        except TxRefused as error:
            early = _EARLY.search(error.text)
            if early is not None:
                return min(max(int(early[2]) - int(early[1]), 1.0), length_s)
            if _REPORTED_ALREADY in error.text:
                log.info("another meta node reported the epoch", epoch=number)
                return self._poll_s
            self._failed = number
            return self._wait(f"the chain refused the report of epoch {number}", error, length_s)
        self.last_problem = ""
        return self._poll_s

    async def _report(self, look: _Look, number: int) -> None:
        """Raises LedgerRefused, BooksError, TooFewSignatures, TxRefused, ValueChainError, LedgerError."""
        row = look.row
        if row is None or self._may_close_again(row, look.state):
            if self._left_out and self._clock() >= self._left_out_s + LEFT_OUT_S:
                log.info("wallets that reports left out are reported again", wallets=len(self._left_out))
                self._left_out.clear()
            message = await self._closing(number, row)
            try:
                await self._proposer.propose("close_epoch", message)
            except LedgerRefused as error:
                if error.code != TOO_EARLY or row is None:
                    raise
            row = await self._proposer.ledger.query(lambda view: view.get(EPOCH, (number,)))
            if row is None:
                return
        lines = await self._lines(number)
        data = await self._data(row, lines)
        draft = make_draft(self._proposer.chain_id, self._keys.network_address, self._owner, row, lines, data)
        signatures = await self._signatures(draft)
        result = await self._sender.send(draft.messages(draft.signature_info(signatures)))
        self.reported += 1
        log.info("epoch reported", epoch=number, height=result.height, lines=len(lines), noz=str(row.noz), signatures=len(signatures))

    async def _closing(self, number: int, row: Epoch | None) -> Any:
        """The CloseEpoch of an epoch, without the wallets that others agree to leave out. Raises TooFewSignatures, LedgerError."""
        message = CloseEpoch(epoch=number, without=sorted(self._left_out))
        if not self._left_out:
            return message
        asked = await with_approvals(self._proposer.ledger, self._approve, message, f"that epoch {number} is closed without wallets")
        if asked.message is not None:
            return asked.message
        if row is not None:
            raise TooFewSignatures(asked.why)
        # Whether they can show these wallets' leaves they find out once it is closed with them.
        log.info("wallets that reports left out are reported again: others do not approve", wallets=len(self._left_out), epoch=number)
        self._left_out.clear()
        return CloseEpoch(epoch=number)

    async def _data(self, row: Epoch, lines: Sequence[Line]) -> EpochData:
        """What the books make of a closed epoch; whose leaves they cannot show is noted. Raises BooksError, LedgerError."""
        try:
            return await self._books.epoch(row.number, row.closed_ms, lines)
        except UnevenBooks as error:
            now_s = self._clock()
            kept = {one: seen_s for one, seen_s in self._uneven.items() if now_s - seen_s < 2 * LEFT_OUT_S}
            self._uneven = dict(list((kept | dict.fromkeys(error.wallets, now_s)).items())[-MAX_UNEVEN:])
            raise

    def _leave_out(self, number: int, wallets: Sequence[bytes]) -> None:
        """Close epochs without these wallets from now on. What they earned waits in the ledger."""
        added = [one for one in wallets if one not in self._left_out][: MAX_LEFT_OUT - len(self._left_out)]
        self._left_out |= dict.fromkeys(added, number)
        self._left_out_s = self._clock()
        for one in added[:MAX_NAMED]:
            log.error("a wallet's receipts do not add up: epochs are reported without it", wallet=bech32.encode(one), epoch=number)
        log.error("wallets are left out of reports", wallets=len(self._left_out), added=len(added), epoch=number)

    def _may_close_again(self, row: Epoch, state: State) -> bool:
        again_ms = row.closed_ms + int(max(float(state.epoch_duration_s), LEAST_PAUSE_S) * 1_000)
        return self._failed == row.number and self._clock() * 1_000 >= again_ms

    async def _signatures(self, draft: Draft) -> dict[bytes, bytes]:
        """Signatures that hold, of active meta nodes, by BLS key. Raises TooFewSignatures."""
        registered, bonded = await views.meta_keys(self._chain), await views.bonded_meta_nodes(self._chain)
        active = [node.address for node in bonded if node.is_active]
        allowed = {registered[address].bls_pubkey for address in active if address in registered}
        gathered = {**await self._gather(draft), self._keys.bls_pubkey: self._keys.sign(draft.message)}
        found = {}
        for key, signature in gathered.items():
            if key in allowed and bls.verify(key, draft.message, signature):
                found[key] = signature
            else:
                log.warning("a signature on a report does not count", key=key.hex()[:16], epoch=draft.commitment.epoch)
        if len(found) < quorum(len(active)):
            raise TooFewSignatures(
                f"expected {quorum(len(active))} of {len(active)} active meta nodes to sign, got {len(found)} with registered keys"
            )
        return found

    def _is_turn(self, active: list[bytes], number: int, late_s: float) -> bool:
        if self._online is not None:
            # Two that see different ones there may both report: the chain takes one.
            there = {*self._online(), self._keys.address}
            active = [address for address in active if address in there]
        return bool(active) and active[(number + int(late_s) // TURN_S) % len(active)] == self._keys.address

    # --- ledger and books -----------------------------------------------------------------------------------------------------------------

    async def _look(self) -> _Look | None:
        look: _Look | None = await self._proposer.ledger.query(_read)
        return look

    async def _lines(self, number: int) -> list[Line]:
        rows = await self._proposer.ledger.query(lambda view: view.scan(EPOCH_LINE, (number,), limit=MAX_LINES))
        return [Line(*row[1:]) for row in rows]

    async def _tell_books(self, look: _Look) -> None:
        reported = look.state.reported_epoch
        if self._told < 0:
            self._told = max(0, reported - TOLD_AGAIN)
        while self._told < reported:
            await self._books.reported(self._told + 1)
            self._told += 1
        for number in look.void:
            if number not in self._told_void:
                await self._books.voided(number)
                self._told_void.add(number)

    def _wait(self, what: str, error: Exception, pause_s: float) -> float:
        self._problem(what, error)
        self._not_before_s = self._clock() + pause_s
        return self._poll_s

    def _problem(self, what: str, error: Exception) -> None:
        self.last_problem = f"{what}: {error}"
        log.warning(what, reason=str(error))


def _read(view: ReadView) -> _Look | None:
    state = view.get(STATE, (1,))
    if state is None:
        return None
    row = view.get(EPOCH, (state.reported_epoch + 1,))
    void = [one.number for one in view.scan(EPOCH, (VOID,), index="by_maturity", limit=MAX_VOID)]
    return _Look(state, row, [one.address for one in active_metas(view)], sorted(void))
