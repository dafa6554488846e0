"""Follows the value chain and has the ledger observe it, height after height.

    chain ── follow ──► block ── events_of ──► batch ── due ──► Observation ── sign, gather ──► observe ──► ledger
                                                 │ empty heights are one range: up to 1,000 while catching up, ``batch_s`` of blocks at the chain's tip
    another meta node was first (WRONG_HEIGHT)  ──► go on from the ledger's height
    the ledger closed another epoch (UNKNOWN_LINES) ──► the same once more, with the lines from the report's transaction

    it is another meta node's turn ──► TURN_S for each that comes before, unless the ledger moves meanwhile: WRONG_HEIGHT

    the chain's node does not tell, or tells something odd ──► the same again, from the ledger's height; an error once it stayed so for minutes

First it is seen that the chain's block at the ledger's height is the one that the ledger observed. Every meta node runs one; whoever has a quorum's signatures first moves the ledger. ``countersign`` is the other side: it makes the observation from its own
node of the chain and signs if no byte differs. After a crash it goes on where the ledger is. Source: storage-protocol.md 2; README of sds_node/meta/rules.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import nacl.signing
import structlog
from google.protobuf.message import DecodeError

from chain.codec.registry import message_class
from chain.quorum import quorum
from sds_node.documents import PACKAGE
from sds_node.meta.ledger.engine import ReadView
from sds_node.meta.ledger.errors import Busy, LedgerError
from sds_node.meta.operations import LedgerRefused, Proposer
from sds_node.meta.relay.founding import nodes_as_they_stood
from sds_node.meta.relay.observing import deposit_changes_of, events_of, observations, parts_of, with_lines
from sds_node.meta.relay.reading import ChainReads, NotTold, ObservingError
from sds_node.meta.rules.observe import active_metas
from sds_node.meta.rules.refusals import NO_QUORUM, OUT_OF_TIME, UNKNOWN_LINES, UNKNOWN_SENDER, USED_NONCE, WRONG_HEIGHT
from sds_node.meta.rules.tables import STATE, State
from sds_node.meta.rules.wire import MAX_EVENTS, MAX_LINES, MAX_SIGNATURES, Observation, sign_observation
from sds_node.meta.timekeeping import ClockWrong
from sds_node.value_chain.client import BlockEvents, ChainUnavailable, HeightMissing, ValueChain, ValueChainError

log = structlog.get_logger("observer")

LedgerSignature: Final = message_class(f"{PACKAGE}.LedgerSignature")
Observe: Final = message_class(f"{PACKAGE}.Observe")

MAX_RANGE: Final = 1_000
"""Heights in one observation."""
READY_BLOCKS: Final = 3
SILENT_S: Final = 30.0
"""A chain that has not answered for so long may be further than is known."""
WATCH_S: Final = 1.0
AGAIN_S: Final = 2.0
"""Pause before an observation that too few signed is tried again."""
TURN_S: Final = 3.0
"""An observation waits so long for each meta node whose turn comes before."""
LOOK_S: Final = 0.2
"""How often it is seen meanwhile whether another one has observed."""
PATIENCE_S: Final = 180.0
"""What stops observing at one height for so long is for a person."""
FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 10.0
T = TypeVar("T")

Gather = Callable[[bytes], Awaitable[Mapping[bytes, bytes]]]
"""From an Observation's bytes to signatures (64 bytes) of other meta nodes, by their addresses (20 bytes)."""


class Stopped(ObservingError):
    """It cannot be observed further, however often it is tried."""


class Behind(ObservingError):
    """This ledger, or the chain's node of this meta node, is not there yet: in a moment it may be."""


class NotFounded(Stopped):
    """The ledger has no first operation yet."""


def _always_first(height: int) -> int:
    """Every height is this meta node's turn."""
    return 0


def _unheard(block_time_s: float) -> None:
    """Nobody wants to know what time it is on the chain."""


async def nobody(observation: bytes) -> Mapping[bytes, bytes]:
    """``Gather`` of a network with one meta node."""
    return {}


@dataclass(slots=True)
class _Batch:
    """Consecutive heights that are not observed yet; all but the last are without events, unless these are the first observation's."""

    deposit_changes: int
    """The count up to the last block."""
    first_height: int = 0
    blocks: list[BlockEvents] = field(default_factory=list)
    events: list[Any] = field(default_factory=list)
    changes_of_last: int = 0

    def add(self, block: BlockEvents, events: list[Any]) -> None:
        if not self.blocks:
            self.first_height = block.height
        self.blocks.append(block)
        self.events += events
        self.changes_of_last = deposit_changes_of(block)
        self.deposit_changes += self.changes_of_last


class Observer:
    """Of one meta node, whose ledger ``proposer`` reaches and whose ledger key is ``key``. ``gather`` asks the others for signatures; ``clock`` tells Unix
    seconds. ``batch_s``: how long, by the blocks' time, empty heights at the chain's tip may wait for each other. ``heard`` is told the times of blocks.
    ``place``: how many meta nodes come before this one for the observation that begins at a height; two that observe the same do no harm.
    """

    def __init__(
        self,
        chain: ValueChain,
        proposer: Proposer,
        key: nacl.signing.SigningKey,
        gather: Gather,
        clock: Callable[[], float],
        *,
        poll_s: float = 0.5,
        batch_s: float = 1.0,
        heard: Callable[[float], None] = _unheard,
        place: Callable[[int], int] = _always_first,
    ) -> None:
        self._chain, self._proposer, self._key, self._gather, self._clock = chain, proposer, key, gather, clock
        self._place = place
        self._reads = ChainReads(chain)
        self._poll_s, self._batch_s, self._heard = poll_s, batch_s, heard
        self._answered_s = float("-inf")
        self._as_they_stood: list[Any] | None = None
        self._is_same_chain = False
        """Whether the chain's node was seen to have the block that the ledger observed last."""
        self._is_catching_up = False
        self._failing: tuple[int, float] | None = None
        """At which height nothing goes on, and since when."""
        self.height = 0
        """The last height that the ledger has, or that is known to be empty."""
        self.ledger_height = 0
        self.chain_height = 0
        self.observed = 0
        """Observations of this meta node that the ledger took."""
        self.active_metas = 0
        """How many active meta nodes the ledger knows."""
        self.problem = ""
        """Why nothing is observed at the moment."""

    @property
    def is_ready(self) -> bool:
        """Whether the ledger knows what the chain did, but for its last three blocks, and the chain answers."""
        is_heard = self._clock() - self._answered_s <= SILENT_S
        is_near = self.height > 0 and abs(self.chain_height - self.height) <= READY_BLOCKS
        return is_near and is_heard and self._is_same_chain and not self._is_catching_up

    async def run(self) -> None:
        """Observe until cancelled. Raises ObservingError, of which NotFounded, with what a person has to do, and LedgerError when the ledger has been of no
        use for minutes; then nothing more is observed."""
        watcher = asyncio.create_task(self._watch())
        try:
            while True:
                try:
                    state = await self._state()
                    self.ledger_height = self.height = state.height
                    await self._see_same_chain(state)
                    await self._observe_from(state)
                except LedgerRefused as error:
                    await self._refused(error)
                    continue
                except HeightMissing as error:
                    # Of several nodes behind one address, the one that was asked may be a block behind.
                    if await self._is_gone(self.height + 1):
                        self._fail(ObservingError(str(error)))
                    self._wait("the value chain's node does not tell", error)
                except Stopped:
                    raise
                except (Busy, ClockWrong, ValueChainError) as error:
                    self._wait("the value chain is not observed now", error)
                except (ObservingError, LedgerError) as error:
                    self._fail(error)
                await asyncio.sleep(AGAIN_S)
        except (ObservingError, LedgerError) as error:
            log.error("the value chain is observed no further", height=self.height, reason=str(error))
            raise
        finally:
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)

    async def countersign(self, observation: bytes) -> bytes:
        """This meta node's signature (64 bytes) on another's observation. Raises ObservingError unless this one makes the same of what follows its ledger,
        Behind where it cannot know yet; ValueChainError, LedgerError.
        """
        try:
            given = Observation.FromString(observation)
        except DecodeError:
            raise ObservingError(f"expected an Observation, got {len(observation)} bytes that are none") from None
        state = await self._state()
        first, last = given.from_height, given.to_height
        if state.height + 1 < first <= last < first + MAX_RANGE:
            raise Behind(f"this ledger is at height {state.height}, and is asked to judge heights {first} to {last}: ask again")
        if first != state.height + 1 or not first <= last < first + MAX_RANGE or len(given.events) > MAX_EVENTS:
            raise ObservingError(f"this ledger is at height {state.height}, and cannot judge an observation of heights {first} to {last}")
        if last > await self._chain.committed_height():
            raise Behind(f"the chain's node of this meta node has no block {last} yet: ask again")
        batch = _Batch(state.deposit_changes, events=await self._first_events(state))
        for height in range(first, last + 1):
            block = await self._block(height)
            batch.add(block, await events_of(block, self._reads))
        parts = parts_of(batch.events)
        if given.part >= len(parts) or (len(parts) > 1 and first != last):
            raise ObservingError(f"heights {first} to {last} have {len(parts)} parts here, and this is part {given.part} of them")
        made = (await self._made(batch, parts))[given.part]
        if any(event.report.lines for event in given.events if event.WhichOneof("event") == "report"):
            made = await self._with_lines(made)
        if made != observation:
            raise ObservingError(f"this meta node observes something else at heights {first} to {last}: one of the two asks a node of another chain")
        return sign_observation(observation, self._key)

    # --- following ------------------------------------------------------------------------------------------------------------------------

    async def _observe_from(self, state: State) -> None:
        """Follow from the ledger's height on. Raises LedgerRefused, LedgerError, ChainUnavailable, HeightMissing, ObservingError."""
        batch = _Batch(state.deposit_changes, events=await self._told(lambda: self._first_events(state)))
        part, last_s = state.part, state.block_time_s
        async with aclosing(self._chain.follow(state.height, poll_s=self._poll_s)) as blocks:
            async for block in blocks:
                events = await self._told(lambda block=block: events_of(block, self._reads))  # type: ignore[misc]
                self._heard(block.time_s)
                self.problem = ""
                batch.add(block, events)
                self.chain_height = max(self.chain_height, block.height)
                is_waited = block.height >= self._chain.tip and block.time_s - last_s >= self._batch_s
                if not (batch.events or part or is_waited or len(batch.blocks) >= MAX_RANGE):
                    self.height = block.height
                    continue
                await self._flush(batch, part)
                part, last_s = 0, block.time_s
                batch = _Batch(batch.deposit_changes)

    async def _flush(self, batch: _Batch, part: int) -> None:
        """Have the ledger observe a batch, from a part on."""
        parts, last = parts_of(batch.events), batch.blocks[-1]
        if len(parts) > 1 and len(batch.blocks) > 1:
            # Several parts are of one height: what is empty before it goes ahead.
            empty = _Batch(batch.deposit_changes - batch.changes_of_last, batch.first_height, batch.blocks[:-1])
            await self._flush(empty, part)
            batch = _Batch(batch.deposit_changes, last.height, [last], batch.events, batch.changes_of_last)
        made = await self._told(lambda: self._made(batch, parts))
        for one in made[part:]:
            await self._propose(one)
        self.ledger_height = self.height = last.height

    async def _propose(self, observation: bytes) -> None:
        try:
            await self._proposed(observation)
        except LedgerRefused as error:
            if error.code != UNKNOWN_LINES:
                raise
            log.info("the chain reported another epoch than this ledger closed", reason=str(error))
            await self._proposed(await self._told(lambda: self._with_lines(observation)))

    async def _proposed(self, observation: bytes) -> None:
        """Raises LedgerRefused, also, before anybody is asked to sign, where the ledger is further already."""
        state, message = await self._state(), Observation.FromString(observation)
        if (message.from_height, message.part) != (state.height + 1, state.part):
            raise LedgerRefused(WRONG_HEIGHT, f"the ledger is at height {state.height} and part {state.part} already")
        await self._wait_for_turn(state)
        signatures = dict(await self._gather(observation))
        signatures[self._proposer.address] = sign_observation(observation, self._key)
        if len(signatures) < quorum(self.active_metas):
            raise LedgerRefused(NO_QUORUM, f"expected {quorum(self.active_metas)} of {self.active_metas} meta nodes to sign, got {len(signatures)}")
        signed = [LedgerSignature(meta_node=address, signature=signatures[address]) for address in sorted(signatures)]
        await self._proposer.propose("observe", Observe(observation=observation, signatures=signed[:MAX_SIGNATURES]))
        self.observed += 1

    async def _wait_for_turn(self, state: State) -> None:
        """Let those try that come before. Raises LedgerRefused as soon as one of them has moved the ledger."""
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        while loop.time() - began_s < self._place(state.height + 1) * TURN_S:
            await asyncio.sleep(LOOK_S)
            now = await self._state()
            if (now.height, now.part) != (state.height, state.part):
                raise LedgerRefused(WRONG_HEIGHT, f"another meta node has observed: the ledger is at height {now.height} and part {now.part} already")

    async def _refused(self, error: LedgerRefused) -> None:
        """Raises Stopped for a refusal that would come again."""
        if error.code == WRONG_HEIGHT:
            return
        if error.code not in (NO_QUORUM, OUT_OF_TIME, USED_NONCE, UNKNOWN_SENDER):
            raise Stopped(f"the ledger refuses what the chain did after height {self.ledger_height}: {error} (code {error.code})")
        self.problem = f"an observation was refused: {error}"
        log.warning("an observation was refused", height=self.ledger_height, code=error.code, reason=str(error))
        await asyncio.sleep(AGAIN_S)

    def _wait(self, what: str, error: Exception) -> None:
        """Nothing goes on now, and will by itself."""
        if str(error) != self.problem:
            log.warning(what, height=self.height, reason=str(error))
        self.problem = str(error)

    def _fail(self, error: Exception) -> None:
        """Raises the error when nothing has gone on at this height for minutes."""
        now_s = asyncio.get_running_loop().time()
        if self._failing is None or self.height != self._failing[0]:
            self._failing = self.height, now_s
        elif now_s - self._failing[1] >= PATIENCE_S:
            raise error
        self._wait("the value chain is not observed now, and tried again", error)

    async def _see_same_chain(self, state: State) -> None:
        """Raises Stopped where the chain's node has another block at the ledger's height; ChainUnavailable where it has none yet; HeightMissing."""
        if self._is_same_chain or state.height == 0:
            self._is_same_chain = True
            return
        tip = await self._chain.committed_height()
        if tip < state.height:
            raise ChainUnavailable(f"the chain's node is at height {tip}, and the ledger has observed {state.height}: it has to catch up first")
        try:
            block = await self._chain.block(state.height)
        except HeightMissing as error:
            if not await self._is_gone(state.height):
                raise
            log.warning("the chain's node has forgotten the ledger's height: whether it is of the same chain is not seen", reason=str(error))
        else:
            if block.block_hash != state.block_hash:
                raise Stopped(
                    f"the chain's node has block {block.block_hash.hex()} at height {state.height}, where this ledger observed {state.block_hash.hex()}: "
                    "it follows another chain than before; name a node of the right one"
                )
        self._is_same_chain = True

    async def _is_gone(self, height: int) -> bool:
        """Whether the chain's node begins above a height."""
        try:
            return (await self._chain.status()).earliest_height > height
        except ValueChainError:
            return False

    async def _told(self, ask: Callable[[], Awaitable[T]]) -> T:
        """What ``ask`` gives, asked again while the chain does not answer, or does not tell of the height. Raises ObservingError when its node has forgotten
        it."""
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                return await ask()
            except NotTold as error:
                if await self._is_gone(error.height):
                    raise ObservingError(str(error)) from None
                self._wait("the value chain's node does not tell", error)
            except ChainUnavailable as error:
                self._wait("the value chain does not answer", error)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    # --- making ---------------------------------------------------------------------------------------------------------------------------

    async def _made(self, batch: _Batch, parts: list[list[Any]]) -> list[bytes]:
        last = batch.blocks[-1]
        outstanding_noz = await self._reads.outstanding_noz(last.height)
        return observations(self._proposer.chain_id, batch.first_height, last, parts, outstanding_noz, batch.deposit_changes)

    async def _with_lines(self, observation: bytes) -> bytes:
        message = Observation.FromString(observation)
        report = next(event.report for event in message.events if event.WhichOneof("event") == "report")
        lines = await self._reads.report_lines(report.epoch, report.lines_root, message.to_height)
        if len(lines) > MAX_LINES:
            raise ObservingError(
                f"the report of epoch {report.epoch} has {len(lines)} lines: a ledger takes {MAX_LINES} of a report that it has not closed"
            )
        return with_lines(observation, lines)

    async def _first_events(self, state: State) -> list[Any]:
        """The nodes as they stood when the ledger was founded, for its first observation."""
        if state.block_number > 1:
            return []
        if self._as_they_stood is None:
            self._as_they_stood = await nodes_as_they_stood(self._reads, state.height)
        return list(self._as_they_stood)

    async def _block(self, height: int) -> BlockEvents:
        try:
            return await self._chain.block(height)
        except HeightMissing as error:
            raise ObservingError(str(error)) from None

    async def _state(self) -> State:
        row, self.active_metas = await self._proposer.ledger.query(_read_state)
        if row is None:
            raise NotFounded("the ledger is not founded: propose `found` first")
        state: State = row
        return state

    async def _watch(self) -> None:
        """Look how far the chain is, for ``is_ready``, and what time it is there."""
        while True:
            try:
                self.chain_height, status = await self._chain.committed_height(), await self._chain.status()
                self._is_catching_up = status.is_catching_up
                if status.height:
                    self._heard(status.time_s)
                self._answered_s = self._clock()
            except ValueChainError:
                pass  # what follows the chain tells of it
            await asyncio.sleep(WATCH_S)


def _read_state(view: ReadView) -> tuple[State | None, int]:
    return view.get(STATE, (1,)), len(active_metas(view))
