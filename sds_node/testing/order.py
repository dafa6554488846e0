"""One order for several federated ledgers in one process, without CometBFT: for tests of what stands on the order.

    FederatedLedger A ─ broadcast ─► Member A ─ CheckTx ─► pool ─► the next member's PrepareProposal ─► ProcessProposal on all
    FederatedLedger B ◄── FinalizeBlock, Commit ──────────────────────────────────────────────────────┘ ─► app hashes compared

It calls the very applications that CometBFT would, in the same order. Blocks are made when operations wait, and one when nothing happened for a second. A
member that is taken out misses blocks; brought back, with the same ledger or with one that was opened anew, it gets them one after the other. Blocks need
more than two thirds of the members. This is never a network.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import Callable, Sequence
from typing import Any, Final

from chain.codec.registry import message_class
from sds_node.meta.federation.application import CODE_WAITS, MAX_DECIDED, RECHECK, LedgerApplication
from sds_node.meta.federation.ledger import OrderRefused
from sds_node.meta.federation.members import validators_of
from sds_node.meta.ledger.errors import Unavailable

MAX_TX_BYTES: Final = 4 << 20
IDLE_S: Final = 1.0
ACCEPT: Final = 1


def _abci(name: str) -> Any:
    return message_class(f"tendermint.abci.{name}")


class Disagreement(AssertionError):
    """Two members made different things of one block."""


class Member:
    """The ``Order`` of one ledger. ``start`` and ``stop`` bring it in and take it out."""

    def __init__(self, order: DrivenOrder, number: int) -> None:
        self._order, self.number = order, number
        self.application: LedgerApplication | None = None
        self.is_there = False

    def attach(self, application: LedgerApplication) -> None:
        """The application of the ledger, the first one or one that was opened anew."""
        self.application = application

    async def start(self) -> None:
        """Come in, and get the blocks that are missing."""
        await self._order.bring_in(self)

    async def stop(self) -> None:
        """Go out; blocks go on without it as long as enough are left."""
        await self._order.take_out(self)

    def problem(self) -> str:
        """Nothing is wrong with it unless it is out."""
        return "" if self.is_there else "this member is out"

    async def broadcast(self, operation: bytes) -> None:
        """As ``Order`` says."""
        await self._order.broadcast(self, operation)


class DrivenOrder:
    """``count`` members; ``clock`` tells Unix seconds. Members come in by ``member(i).start()``: the ledgers must stand at one state, which has no blocks.
    ``close`` at the end. ``failed`` has the error that ended it.
    """

    def __init__(self, count: int, clock: Callable[[], float], *, idle_s: float = IDLE_S) -> None:
        self.members = [Member(self, number) for number in range(count)]
        self._clock, self._idle_s = clock, idle_s
        self.blocks: list[Any] = []
        """RequestFinalizeBlock of each height from 1 on."""
        self.answers: list[bytes] = []
        """What was answered to each, but the reasons."""
        self.failed: BaseException | None = None
        self._pool: dict[bytes, None] = {}
        self._wanted, self._made = asyncio.Event(), asyncio.Condition()
        self._turn = asyncio.Lock()
        """Held while applications are called: one call after the other."""
        self._running: asyncio.Task[None] | None = None
        self._init: Any = None

    def member(self, number: int) -> Member:
        """The order of ledger ``number``."""
        return self.members[number]

    @property
    def height(self) -> int:
        """Of the last block."""
        return len(self.blocks)

    def there(self) -> list[Member]:
        """Members that are in."""
        return [one for one in self.members if one.is_there]

    @property
    def has_quorum(self) -> bool:
        """Whether blocks are made."""
        return 3 * len(self.there()) > 2 * len(self.members)

    async def until(self, height: int) -> None:
        """Wait for a block. Raises what ended the order."""
        async with self._made:
            await self._made.wait_for(lambda: self.height >= height or self.failed is not None)
        if self.failed is not None:
            raise self.failed

    async def next_block(self) -> None:
        """Wait for a block that begins from here."""
        await self.until(self.height + 1)

    async def bring_in(self, member: Member) -> None:
        """InitChain where there was no block, then those that it has not. Raises Disagreement."""
        application = member.application
        if application is None:
            raise ValueError("a member has a ledger before it comes in: open it with this member as its order")
        async with self._turn:
            has = (await _call(application.info, _abci("RequestInfo")())).last_block_height
            if has > self.height:
                raise ValueError(f"this order has {self.height} blocks, the ledger stands at block {has}: it is another order's")
            if not has:
                await _call(application.init_chain, await asyncio.to_thread(self._genesis, application))
            for request, answer in itertools.islice(zip(self.blocks, self.answers, strict=True), has, None):
                got = await _call(application.finalize_block, request)
                _compare(member, request.height, answer, _essence(got))
                await _call(application.commit, _abci("RequestCommit")())
            member.is_there = True
        if self._running is None:
            self._running = asyncio.create_task(self._run(), name="driven-order")
        self._wanted.set()

    async def take_out(self, member: Member) -> None:
        """From now on it gets no block."""
        async with self._turn:
            member.is_there = False

    async def broadcast(self, member: Member, operation: bytes) -> None:
        """As ``Order`` says."""
        if not member.is_there or self.failed is not None or member.application is None:
            raise Unavailable("this member is out, or the order has ended")
        async with self._turn:
            answer = member.application.check_txs([_abci("RequestCheckTx")(tx=operation)])[0]
            if answer.code == CODE_WAITS:
                raise Unavailable(answer.log)
            if answer.code:
                raise OrderRefused(answer.code, answer.log)
            if len(self._pool) >= MAX_DECIDED:
                raise Unavailable("the pool is full")
            self._pool[operation] = None
        self._wanted.set()

    async def close(self) -> None:
        """End it. Raises what ended it before."""
        if self._running is not None:
            self._running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._running
        for one in self.members:
            one.is_there = False
        if self.failed is not None:
            raise self.failed

    # --- blocks -------------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._idle_s):
                        await self._wanted.wait()
                self._wanted.clear()
                async with self._turn:
                    if self.has_quorum:
                        await self._block()
                async with self._made:
                    self._made.notify_all()
                if self._pool and self.has_quorum:
                    self._wanted.set()
                await asyncio.sleep(0)
        except Exception as error:
            self.failed = error
            async with self._made:
                self._made.notify_all()

    async def _block(self) -> None:
        members, height = self.there(), self.height + 1
        applications = [one.application for one in members if one.application is not None]
        proposer = applications[height % len(applications)]
        time_ms = int(self._clock() * 1_000)
        if self.blocks:
            time_ms = max(time_ms, _time_ms(self.blocks[-1]) + 1)
        wanted = _abci("RequestPrepareProposal")(txs=list(self._pool), max_tx_bytes=MAX_TX_BYTES, height=height)
        _set_time(wanted, time_ms)
        prepared = await _call(proposer.prepare_proposal, wanted)
        request = _abci("RequestFinalizeBlock")(txs=prepared.txs, height=height)
        asked = _abci("RequestProcessProposal")(txs=prepared.txs, height=height)
        _set_time(request, time_ms)
        _set_time(asked, time_ms)
        for member, one in zip(members, applications, strict=True):
            if (await _call(one.process_proposal, asked)).status != ACCEPT:
                raise Disagreement(f"block {height}: member {member.number} refuses what another one proposed")
        answers = [_essence(await _call(one.finalize_block, request)) for one in applications]
        for member, answer in zip(members, answers, strict=True):
            _compare(member, height, answers[0], answer)
        self.blocks.append(request)
        self.answers.append(answers[0])
        for one in applications:
            await _call(one.commit, _abci("RequestCommit")())
        for raw in prepared.txs:
            self._pool.pop(raw, None)
        self._recheck(applications)

    def _recheck(self, applications: Sequence[LedgerApplication]) -> None:
        """What nobody keeps leaves the pool."""
        waiting = list(self._pool)
        asked = [_abci("RequestCheckTx")(tx=raw, type=RECHECK) for raw in waiting]
        kept: set[bytes] = set()
        for one in applications if waiting else ():
            kept.update(raw for raw, answer in zip(waiting, one.check_txs(asked), strict=True) if not answer.code)
        self._pool = {raw: None for raw in waiting if raw in kept}

    def _genesis(self, application: LedgerApplication) -> Any:
        """What a genesis says that was made of the first ledger that came in."""
        if self._init is None:
            head = application.head
            told = {"export": application.export_name().hex(), "sequence": str(head.sequence), "app_hash": head.app_hash.hex()}
            self._init = _abci("RequestInitChain")(chain_id=f"{application.chain_id}-meta", app_state_bytes=json.dumps(told).encode())
            for key in validators_of(application.senders):
                self._init.validators.add(power=1).pub_key.ed25519 = key
        return self._init


async def _call(what: Callable[[Any], Any], request: Any) -> Any:
    """In a thread: the event loop goes on, as it does beside CometBFT."""
    return await asyncio.to_thread(what, request)


def _essence(answer: Any) -> bytes:
    return bytes(answer.SerializeToString(deterministic=True))


def _set_time(request: Any, time_ms: int) -> None:
    request.time.seconds, request.time.nanos = time_ms // 1_000, time_ms % 1_000 * 1_000_000


def _time_ms(request: Any) -> int:
    return int(request.time.seconds * 1_000 + request.time.nanos // 1_000_000)


def _compare(member: Member, height: int, wanted: bytes, got: bytes) -> None:
    if wanted != got:
        kind = _abci("ResponseFinalizeBlock")
        raise Disagreement(f"block {height}: member {member.number} answers {kind.FromString(got)}, another one {kind.FromString(wanted)}")
