"""The users' handlers as a legacy session meets them: only what its task needs, only for its file; its one lease is paid by its string.

    request ─ by a legacy session? ─ no ─► the users' handler as it is
                                    └ yes ─► is it the task's? the file's? the bill's? ─► the users' handler; a lease: TakeLease with the string in it

Source: storage-protocol.md 5 (scope = that file hash, kind and number; budget = the exact bill).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

from chain.codec.canonical import encode
from chain.codec.registry import message_class
from sds_node import asking
from sds_node.documents import PACKAGE
from sds_node.handles import HandleError, parse_share_link
from sds_node.legacy import OBJECT_COUNTER, download_bound_noz, upload_bound_noz
from sds_node.meta.ledger.engine import ReadView
from sds_node.meta.legacy.strings import refuse
from sds_node.meta.legacy.tasks import Task
from sds_node.meta.operations import AnyLedger
from sds_node.meta.rules.call import state_of
from sds_node.meta.rules.tables import OBJECT, SHARE, Object
from sds_node.meta.users.access import READ_IN
from sds_node.meta.users.asked import told
from sds_node.schemes import scheme_for
from sds_node.transfers import parsed
from sds_node.wire.connection import Connection, Handler
from sds_node.wire.stream import Stream

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

    async def lend(self, message: Any) -> Any:
        """The LeaseReply of a TakeLease. Raises what the ledger refuses."""
        ...


class SessionRow(Protocol):
    """What is asked of a session."""

    @property
    def opened(self) -> Any: ...
    @property
    def public_key(self) -> bytes: ...


class Said:
    """A request whose body was read already: the handler behind reads it here."""

    def __init__(self, stream: Stream, body: bytes) -> None:
        self._stream, self._body = stream, body

    async def receive_all(self, most_bytes: int) -> bytes:
        return self._body

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Guard:
    """Stands before the users' handlers. ``task_of`` gives the legacy task of a caller's address, None for others; ``session_of`` its session."""

    def __init__(
        self,
        ledger: AnyLedger,
        lender: Lender,
        count: Callable[[], int],
        task_of: Callable[[bytes], Task | None],
        session_of: Callable[[bytes], SessionRow],
        done: Callable[[Task], Awaitable[None]],
        forget: Callable[[bytes], None],
    ) -> None:
        self._ledger, self._lender, self._count = ledger, lender, count
        self._task_of, self._session_of, self._done, self._forget = task_of, session_of, done, forget

    def guarded(self, handlers: dict[str, Handler]) -> dict[str, Handler]:
        """The same methods, for legacy sessions bounded by their task."""
        return {method: self._guard(method, inner) for method, inner in handlers.items()}

    def _guard(self, method: str, inner: Handler) -> Handler:
        async def serve(stream: Stream, connection: Connection) -> None:
            caller = connection.remote.address
            task = self._task_of(caller)
            if task is None or method == asking.SESSION_OPEN:
                await inner(stream, connection)
                if method == asking.SESSION_OPEN:
                    self._forget(caller)
                return
            if method not in task.methods:
                refuse(asking.BAD_GRANT, f"a session that a wallet's string opened for {task.kind} has no {method}: sign a string for that")
            with told(method):
                session = self._session_of(caller)
                if method == asking.LEASE_TAKE:
                    await stream.send(encode(await self._lease(task, session, parsed(asking.LeaseHead, stream.head))))
                    return
                if method == asking.PLACE_GET:
                    await self._check_get(task, session, parsed(asking.PlaceGetHead, stream.head))
                elif method == asking.PLACE_PUT:
                    self._check_put(task, parsed(asking.PlacePutHead, stream.head).segments)
                elif method == asking.PLACE_ANOTHER:
                    self._check_put(task, [parsed(asking.PlaceAnotherHead, stream.head).segment])
                elif method == asking.FILE_FIND:
                    self._check_find(task, parsed(asking.FileFindHead, stream.head))
                elif method == asking.SHARE_OPEN:
                    self._check_open(task, parsed(asking.ShareOpenHead, stream.head))
                elif method == asking.OBJECT_COMMIT:
                    body = await stream.receive_all(asking.MAX_BODY_BYTES)
                    self._check_commit(task, parsed(asking.CommitAsk, body))
                    said: Any = Said(stream, body)
                    await inner(said, connection)
                    return
            await inner(stream, connection)
            if method == asking.LEASE_END:
                await self._done(task)

        return serve

    # --- the lease ---

    async def _lease(self, task: Task, session: SessionRow, head: Any) -> Any:
        """The task's lease, of at most its bill, paid by its string."""
        if task.lent is not None and task.lent[0] == encode(head):
            return task.lent[1]
        if task.leases >= LEASES_OF_A_TASK:
            refuse(asking.LEASE_LOST, "a wallet's string pays for one task, and its lease was taken: have the wallet sign again")
        if not 1 <= head.seconds <= MAX_LEASE_S:
            refuse(asking.BAD_ASK, f"seconds: expected 1 to {MAX_LEASE_S}, got {head.seconds}")
        most = await self._most_noz(task, session)
        if not 1 <= head.noz <= most:
            refuse(asking.BAD_ASK, f"noz: this task is leased 1 to {most} noz, got {head.noz}")
        message = TakeLease(wallet=task.wallet, session_pubkey=session.public_key, fund=head.fund, noz=head.noz, seconds=head.seconds)
        getattr(message, task.kind).CopyFrom(task.ask)
        task.leases += 1
        try:
            task.lent = encode(head), await self._lender.lend(message)
            return task.lent[1]
        except BaseException:
            # Refused by the ledger: the string is not used. If it was and the answer got lost, the ledger refuses it the next time.
            task.leases -= 1
            raise

    async def _most_noz(self, task: Task, session: SessionRow) -> int:
        ratio_e18 = (await self._ledger.query(state_of)).repair_ratio_e18
        if task.kind == "upload":
            return upload_bound_noz(scheme_for(self._count(), task.size_bytes), task.size_bytes, ratio_e18)
        opened = list(session.opened)

        def look(view: ReadView) -> list[Object]:
            rows = view.scan(OBJECT, (task.wallet, task.file_hash), index="by_hash", limit=_SAME_HASH) if task.file_hash else []
            found = [view.get(OBJECT, (key,)) for key in opened]
            return rows + [row for row in found if row is not None and (not task.file_hash or row.file_hash == task.file_hash)]

        sizes = [row.size_bytes for row in await self._ledger.query(look) if row.state in READ_IN]
        if not sizes:
            refuse(asking.NOT_HELD, "the wallet has no such file, and opened no share of it: open the share first")
        return download_bound_noz(max(sizes), ratio_e18)

    # --- the file ---

    def _check_put(self, task: Task, asks: Any) -> None:
        for one in asks:
            if one.object_bytes != task.size_bytes or one.counter != OBJECT_COUNTER:
                refuse(
                    asking.BAD_ASK,
                    f"this string stores one file of {task.size_bytes} bytes as object 1, got object {one.counter} of {one.object_bytes} bytes",
                )

    def _check_commit(self, task: Task, ask: Any) -> None:
        for one in ask.objects:
            if (one.file_hash, one.size_bytes, one.counter) != (task.file_hash, task.size_bytes, OBJECT_COUNTER) or not one.file.is_public:
                refuse(
                    asking.BAD_ASK,
                    f"this string stores file {task.file_hash} of {task.size_bytes} bytes, public, got {one.file_hash[:60]!a} of {one.size_bytes} bytes",
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

    async def _check_get(self, task: Task, session: SessionRow, head: Any) -> None:
        """Every object that is asked for has the content, or is that of the share."""
        ids = {bytes(one.object_id) for one in head.shares[: asking.MAX_SHARES_ASKED] if len(one.object_id) == 32}
        shares = {key: session.opened.get(key) for key in ids}

        def look(view: ReadView) -> bool:
            for key in ids:
                row = view.get(OBJECT, (key,))
                if row is None:
                    continue  # the users' handler says so
                if task.file_hash:
                    if row.file_hash != task.file_hash:
                        return False
                    continue
                share = view.get(SHARE, (shares[key],)) if shares[key] is not None else None
                if share is None or share.link != task.subject or share.object != key:
                    return False
            return True

        if not await self._ledger.query(look):
            refuse(asking.NOT_HELD, f"this string is about {task.subject[:60]!a}, and another file was asked for")
