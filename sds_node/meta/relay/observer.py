"""Follows the value chain and has the ledger observe it, height after height.

    chain ── follow ──► block ── events_of ──► batch ── due ──► Observation ── sign, gather ──► observe ──► ledger
                                                 │ empty heights are one range: up to 1,000 while catching up, ``batch_s`` of blocks at the chain's tip
    another meta node was first (WRONG_HEIGHT)  ──► go on from the ledger's height
    the ledger closed another epoch (UNKNOWN_LINES) ──► the same once more, with the lines from the report's transaction

Every meta node runs one; whoever has a quorum's signatures first moves the ledger. ``countersign`` is the other side: it makes the observation from its own
node of the chain and signs if no byte differs. After a crash it goes on where the ledger is. Source: storage-protocol.md 2; README of sds_node/meta/rules.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final

import nacl.signing
import structlog
from google.protobuf.message import DecodeError

from chain.codec.registry import message_class
from sds_node.documents import PACKAGE
from sds_node.meta.ledger.engine import ReadView
from sds_node.meta.ledger.errors import Busy
from sds_node.meta.operations import LedgerRefused, Proposer
from sds_node.meta.relay.founding import nodes_as_they_stood
from sds_node.meta.relay.observing import deposit_changes_of, events_of, observations, parts_of, with_lines
from sds_node.meta.relay.reading import ChainReads, ObservingError
from sds_node.meta.rules.refusals import NO_QUORUM, OUT_OF_TIME, UNKNOWN_LINES, UNKNOWN_SENDER, USED_NONCE, WRONG_HEIGHT
from sds_node.meta.rules.tables import STATE, State
from sds_node.meta.rules.wire import MAX_EVENTS, MAX_LINES, MAX_SIGNATURES, Observation, sign_observation
from sds_node.value_chain.client import BlockEvents, ChainUnavailable, HeightMissing, ValueChain, ValueChainError, until_answered

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

Gather = Callable[[bytes], Awaitable[Mapping[bytes, bytes]]]
"""From an Observation's bytes to signatures (64 bytes) of other meta nodes, by their addresses (20 bytes)."""


class NotFounded(ObservingError):
    """The ledger has no first operation yet."""


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
    seconds. ``batch_s``: how long, by the blocks' time, empty heights at the chain's tip may wait for each other.
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
    ) -> None:
        self._chain, self._proposer, self._key, self._gather, self._clock = chain, proposer, key, gather, clock
        self._reads = ChainReads(chain)
        self._poll_s, self._batch_s = poll_s, batch_s
        self._answered_s = float("-inf")
        self._as_they_stood: list[Any] | None = None
        self.height = 0
        """The last height that the ledger has, or that is known to be empty."""
        self.ledger_height = 0
        self.chain_height = 0
        self.observed = 0
        """Observations of this meta node that the ledger took."""

    @property
    def is_ready(self) -> bool:
        """Whether the ledger knows what the chain did, but for its last three blocks, and the chain answers."""
        is_heard = self._clock() - self._answered_s <= SILENT_S
        return self.height > 0 and is_heard and self.chain_height - self.height <= READY_BLOCKS

    async def run(self) -> None:
        """Observe until cancelled. Raises NotFounded, and ObservingError with what a person has to do; then nothing more is observed."""
        watcher = asyncio.create_task(self._watch())
        try:
            while True:
                state = await self._state()
                self.ledger_height = self.height = state.height
                try:
                    await self._observe_from(state)
                except LedgerRefused as error:
                    await self._refused(error)
                except Busy as error:
                    log.warning("the ledger has no room for an observation", height=self.height, reason=str(error))
                    await asyncio.sleep(AGAIN_S)
                except ChainUnavailable as error:
                    log.warning("the value chain does not answer", height=self.height, reason=str(error))
                    await asyncio.sleep(AGAIN_S)
        except (ObservingError, HeightMissing) as error:
            log.error("the value chain is observed no further", height=self.height, reason=str(error))
            if isinstance(error, ObservingError):
                raise
            raise ObservingError(str(error)) from None
        finally:
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)

    async def countersign(self, observation: bytes) -> bytes:
        """This meta node's signature (64 bytes) on another's observation. Raises ObservingError unless this one makes the same of what follows its ledger;
        ChainUnavailable.
        """
        try:
            given = Observation.FromString(observation)
        except DecodeError:
            raise ObservingError(f"expected an Observation, got {len(observation)} bytes that are none") from None
        state = await self._state()
        first, last = given.from_height, given.to_height
        if first != state.height + 1 or not first <= last < first + MAX_RANGE or len(given.events) > MAX_EVENTS:
            raise ObservingError(f"this ledger is at height {state.height}, and cannot judge an observation of heights {first} to {last}")
        if last > await self._chain.committed_height():
            raise ObservingError(f"the chain's node of this meta node has no block {last} yet: ask again")
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
        """Follow from the ledger's height on. Raises LedgerRefused, ChainUnavailable, HeightMissing, ObservingError."""
        batch = _Batch(state.deposit_changes, events=await until_answered(lambda: self._first_events(state)))
        part, last_s = state.part, state.block_time_s
        async with aclosing(self._chain.follow(state.height, poll_s=self._poll_s)) as blocks:
            async for block in blocks:
                events = await until_answered(lambda block=block: events_of(block, self._reads))  # type: ignore[misc]
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
        made = await until_answered(lambda: self._made(batch, parts))
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
            await self._proposed(await until_answered(lambda: self._with_lines(observation)))

    async def _proposed(self, observation: bytes) -> None:
        """Raises LedgerRefused, also, before anybody is asked to sign, where the ledger is further already."""
        state, message = await self._state(), Observation.FromString(observation)
        if (message.from_height, message.part) != (state.height + 1, state.part):
            raise LedgerRefused(WRONG_HEIGHT, f"the ledger is at height {state.height} and part {state.part} already")
        signatures = dict(await self._gather(observation))
        signatures[self._proposer.address] = sign_observation(observation, self._key)
        signed = [LedgerSignature(meta_node=address, signature=signatures[address]) for address in sorted(signatures)]
        await self._proposer.propose("observe", Observe(observation=observation, signatures=signed[:MAX_SIGNATURES]))
        self.observed += 1

    async def _refused(self, error: LedgerRefused) -> None:
        """Raises ObservingError for a refusal that would come again."""
        if error.code == WRONG_HEIGHT:
            return
        if error.code not in (NO_QUORUM, OUT_OF_TIME, USED_NONCE, UNKNOWN_SENDER):
            raise ObservingError(f"the ledger refuses what the chain did after height {self.ledger_height}: {error} (code {error.code})")
        log.warning("an observation was refused", height=self.ledger_height, code=error.code, reason=str(error))
        await asyncio.sleep(AGAIN_S)

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
        row = await self._proposer.ledger.query(_read_state)
        if row is None:
            raise NotFounded("the ledger is not founded: propose `found` first")
        state: State = row
        return state

    async def _watch(self) -> None:
        """Look how far the chain is, for ``is_ready``."""
        while True:
            try:
                self.chain_height = max(self.chain_height, await self._chain.committed_height())
                self._answered_s = self._clock()
            except ValueChainError:
                pass  # what follows the chain tells of it
            await asyncio.sleep(WATCH_S)


def _read_state(view: ReadView) -> State | None:
    return view.get(STATE, (1,))
