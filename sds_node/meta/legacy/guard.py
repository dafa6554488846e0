"""What users ask in a legacy session: only what its task needs, only for its file; its one lease is paid by its string.

    request ─► users: bounds, body, session ─► is it the task's? the file's? the bill's? ─► what users' handlers do; a lease: TakeLease with the string in it

The task is part of the session, so nothing is done in one without it. Source: storage-protocol.md 5 (scope = that file hash, kind and number).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from chain.codec.canonical import encode
from chain.codec.registry import message_class
from sds_node import asking
from sds_node.documents import PACKAGE
from sds_node.handles import HandleError, parse_share_link
from sds_node.legacy import OBJECT_COUNTER, download_bound_noz, legacy_lookup_id, upload_bound_noz
from sds_node.meta.ledger.engine import ReadView
from sds_node.meta.legacy.strings import refuse
from sds_node.meta.legacy.tasks import Task
from sds_node.meta.operations import AnyLedger
from sds_node.meta.rules.call import state_of
from sds_node.meta.rules.tables import OBJECT, SHARE, Object
from sds_node.meta.users.access import READ_IN, link_of
from sds_node.meta.users.sessions import Session, Work
from sds_node.schemes import scheme_for

TakeLease: Final = message_class(f"{PACKAGE}.TakeLease")
MAX_LEASE_S: Final = 3_600
LEASES_OF_A_TASK: Final = 1
_SAME_HASH: Final = 1_000


def _link(subject: str) -> str:
    """The link that a string names, without prefix and password; empty for none."""
    try:
        return parse_share_link(subject).link
    except HandleError:
        return ""


class Lender(Protocol):
    """Who takes leases: the users' ``Lending``."""

    async def lend(self, session: Session, message: Any) -> Any:
        """The LeaseReply of a TakeLease. Raises what the ledger refuses."""
        ...


def _is_about(view: ReadView, task: Task, row: Object, opened: Mapping[bytes, bytes]) -> bool:
    """Whether an object has the content that a task is about, or is that of its share; ``opened``: object → the share that opened it."""
    if task.file_hash:
        return row.file_hash == task.file_hash
    key = opened.get(row.id)
    share = view.get(SHARE, (key,)) if key is not None else None
    return share is not None and share.object == row.id and task.subject in (share.link, link_of(view, share))


class Guard:
    """Judges what is asked in legacy sessions. ``count`` gives N of storage-protocol.md 3.2, ``clock`` Unix seconds; ``begun`` is told of a task that has its
    lease, ``done`` of one whose lease was ended."""

    def __init__(
        self,
        ledger: AnyLedger,
        lender: Lender,
        count: Callable[[], int],
        clock: Callable[[], float],
        begun: Callable[[Task], None],
        done: Callable[[Task], Awaitable[None]],
    ) -> None:
        self._ledger, self._lender, self._count, self._clock, self._begun, self._done = ledger, lender, count, clock, begun, done

    async def serve(self, task: Task, method: str, session: Session, message: Any, work: Work) -> Any | None:
        """Do ``work`` for a request of a task's session. Refuses what the task does not need, and other files than its own."""
        if method == asking.LEASE_TAKE:
            return await self._lease(task, session, message)
        if method == asking.PLACE_GET:
            await self._check_get(task, session, message)
        elif method == asking.PLACE_PUT:
            self._check_put(task, message.segments)
        elif method == asking.PLACE_ANOTHER:
            self._check_put(task, [message.segment])
        elif method == asking.FILE_FIND:
            self._check_find(task, message)
        elif method == asking.SHARE_OPEN:
            self._check_open(task, message)
        elif method == asking.OBJECT_COMMIT:
            self._check_commit(task, message)
        answer = await work(session, message)
        if method == asking.LEASE_END:
            await self._done(task)
        return answer

    # --- the lease ---

    async def _lease(self, task: Task, session: Session, head: Any) -> Any:
        """The task's lease, of at most its bill, paid by its string."""
        session.may_propose(self._clock())
        # One after another, so that a task has one.
        async with session.account.in_turn():
            return await self._lent(task, session, head)

    async def _lent(self, task: Task, session: Session, head: Any) -> Any:
        if task.lent is not None and task.lent[0] == encode(head):
            return task.lent[1]
        if task.leases >= LEASES_OF_A_TASK:
            refuse(asking.LEASE_LOST, "a wallet's string pays for one task, and its lease was taken: have the wallet sign again")
        if not 1 <= head.seconds <= MAX_LEASE_S:
            refuse(asking.BAD_ASK, f"seconds: expected 1 to {MAX_LEASE_S}, got {head.seconds}")
        most, named = await self._most_noz(task, session)
        if not 1 <= head.noz <= most:
            refuse(asking.BAD_ASK, f"noz: this task is leased 1 to {most} noz, got {head.noz}")
        message = TakeLease(
            wallet=task.wallet, session_pubkey=session.public_key, fund=head.fund, noz=head.noz, seconds=head.seconds,
            size_bytes=task.size_bytes if task.kind == "upload" else 0, object_id=named,
        )  # fmt: skip
        getattr(message, task.kind).CopyFrom(task.ask)
        task.leases += 1
        try:
            task.lent = encode(head), await self._lender.lend(session, message)
            self._begun(task)
            return task.lent[1]
        except BaseException:
            # Refused by the ledger: the string is not used. If it was and the answer got lost, the ledger refuses it the next time.
            task.leases -= 1
            raise

    async def _most_noz(self, task: Task, session: Session) -> tuple[int, bytes]:
        """(the most that the task's lease may have, the object by which the ledger knows it where the wallet has none of that hash itself)."""
        ratio_e18 = (await self._ledger.query(state_of)).repair_ratio_e18
        if task.kind == "upload":
            return upload_bound_noz(scheme_for(self._count(), task.size_bytes), task.size_bytes, ratio_e18), b""
        opened = dict(session.opened)

        def look(view: ReadView) -> list[Object]:
            rows = view.scan(OBJECT, (task.wallet, task.file_hash), index="by_hash", limit=_SAME_HASH) if task.file_hash else []
            own = [row for row in rows if row.state in READ_IN]
            found = [view.get(OBJECT, (key,)) for key in opened]
            return own or [row for row in found if row is not None and row.state in READ_IN and _is_about(view, task, row, opened)]

        rows = await self._ledger.query(look)
        if not rows:
            refuse(asking.NOT_HELD, "the wallet has no such file, and opened no share of it: open the share first")
        largest = max(rows, key=lambda row: row.size_bytes)
        return download_bound_noz(largest.size_bytes, ratio_e18), b"" if largest.payer == task.wallet else largest.id

    # --- the file ---

    def _check_put(self, task: Task, asks: Any) -> None:
        for one in asks:
            if one.object_bytes != task.size_bytes or one.counter != OBJECT_COUNTER:
                refuse(
                    asking.BAD_ASK,
                    f"this string stores one file of {task.size_bytes} bytes as object 1, got object {one.counter} of {one.object_bytes} bytes",
                )

    def _check_commit(self, task: Task, ask: Any) -> None:
        # Another record's id would send the file that it is of to the trash.
        wanted = (task.file_hash, task.size_bytes, OBJECT_COUNTER, legacy_lookup_id(task.wallet, task.file_hash))
        for one in ask.objects:
            is_plain = one.file.is_public and not one.file.wrapped_key
            if (one.file_hash, one.size_bytes, one.counter, bytes(one.file.lookup_id)) != wanted or not is_plain:
                refuse(
                    asking.BAD_ASK,
                    f"this string stores file {task.file_hash} of {task.size_bytes} bytes, public and under its own id, got {one.file_hash[:60]!a} of "
                    f"{one.size_bytes} bytes under {bytes(one.file.lookup_id)[:32].hex() or 'none'}",
                )

    @staticmethod
    def _check_find(task: Task, head: Any) -> None:
        if not task.subject:
            return  # a list tells of all files
        if head.file_hash != task.file_hash or not task.file_hash or head.lookup_id or head.object_id:
            refuse(asking.BAD_ASK, f"this string is about file {task.subject[:60]!a}: find that one by its hash")

    @staticmethod
    def _check_open(task: Task, head: Any) -> None:
        if task.kind != "download" and (head.share_id or head.link != _link(task.subject)):
            refuse(asking.BAD_ASK, f"this string is about the share {task.subject[:60]!a}, got {head.link[:60]!a}")

    async def _check_get(self, task: Task, session: Session, head: Any) -> None:
        """Every object that is asked for has the content, or is that of the share."""
        ids = {bytes(one.object_id) for one in head.shares[: asking.MAX_SHARES_ASKED] if len(one.object_id) == 32}
        opened = {key: session.opened[key] for key in ids if key in session.opened}

        def look(view: ReadView) -> bool:
            rows = [view.get(OBJECT, (key,)) for key in ids]
            return all(_is_about(view, task, row, opened) for row in rows if row is not None)  # what is not there, the users' handler says

        if not await self._ledger.query(look):
            refuse(asking.NOT_HELD, f"this string is about {task.subject[:60]!a}, and another file was asked for")


@dataclass(frozen=True, slots=True)
class Bounded:
    """The bounds of one session: its task, and who judges it."""

    guard: Guard
    task: Task

    def check_method(self, method: str) -> None:
        """Refuses what the task does not need."""
        if method not in self.task.methods:
            refuse(asking.BAD_GRANT, f"a session that a wallet's string opened for {self.task.kind} has no {method}: sign a string for that")

    async def serve(self, method: str, session: Session, message: Any, work: Work) -> Any | None:
        """``Guard.serve``."""
        self.check_method(method)
        return await self.guard.serve(self.task, method, session, message, work)
