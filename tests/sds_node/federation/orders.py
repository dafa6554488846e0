"""Meta nodes that keep one ledger: made from one export, with a driven order or with CometBFT."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import nacl.signing

from chain.codec.canonical import encode
from chain.crypto import bls
from chain.metakeys import MetaKeys
from sds_node.meta.daemon.home import Comet
from sds_node.meta.federation.comet import CometHome, CometOrder
from sds_node.meta.federation.genesis import State, join, write_export
from sds_node.meta.federation.ledger import FederatedLedger
from sds_node.meta.ledger.engine import Ledger
from sds_node.meta.ledger.log import Result
from sds_node.meta.ledger.transfer import import_ledger
from sds_node.meta.operations import Proposer
from sds_node.meta.rules.apply import rules
from sds_node.meta.rules.tables import NODE, STATE
from sds_node.meta.rules.wire import sign_observation
from sds_node.p2p import format_address
from sds_node.testing.order import DrivenOrder
from tests.sds_node.rules.support import CHAIN_ID, PARAMS, START_MS, ZEROS, event, message, observed_node, owner

FIRST_SCORE = 5_000
Clock = Callable[[], float]


class Standing:
    """A clock that a test moves."""

    def __init__(self, now_s: float = START_MS / 1_000) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


def keys_of(number: int) -> MetaKeys:
    def seed(what: str) -> bytes:
        return sha256(f"{what} of meta node {number}".encode()).digest()

    return MetaKeys(seed("network"), bls.secret_from_seed(seed("bls")), seed("ledger"))


def signing(number: int) -> nacl.signing.SigningKey:
    return nacl.signing.SigningKey(keys_of(number).ledger_seed)


def meta_event(number: int, *, is_active: bool = True) -> Any:
    own = keys_of(number)
    return message(
        "ObservedMeta", address=own.address, owner=owner(90 + number), ledger_key=own.ledger_consensus_pubkey, is_active=is_active
    )  # fmt: skip


def observed(height: int, signers: list[int], *events: Any) -> Any:
    """An Observe of one height, signed."""
    observation = message(
        "Observation", chain_id=CHAIN_ID, from_height=height, to_height=height, is_last=True, block_hash=ZEROS, block_time_s=1, events=events
    )  # fmt: skip
    body = encode(observation)
    made = message("Observe", observation=body)
    for number in sorted(signers, key=lambda one: keys_of(one).address):
        made.signatures.add(meta_node=keys_of(number).address, signature=sign_observation(body, signing(number)))
    return made


def counted(change: int = 1) -> Any:
    """Node statuses that change the score of node 1: each one that is applied shows there."""
    return message("NodeStatuses", nodes=[message("NodeSeen", node=1, is_online=True, score_change=change)])


async def local_ledger(url: str, count: int, clock: Clock, standby: int = 0) -> None:
    """Found a ledger with a log by ``count`` active meta nodes, ``standby`` more that are not active, and observe resource node 1."""
    ledger = await asyncio.to_thread(Ledger.open, url, rules(CHAIN_ID), CHAIN_ID, now_ms=lambda: int(clock() * 1_000))
    try:
        proposer = proposer_of(ledger, 0, clock)
        await proposer.start()
        metas = [meta_event(number, is_active=number < count) for number in range(count + standby)]
        await proposer.propose(
            "found",
            message(
                "Found",
                height=100,
                block_hash=ZEROS,
                metas=sorted(metas, key=lambda one: bytes(one.address)),
                params=message("LedgerParams", **PARAMS),
            ),
        )
        await proposer.propose("observe", observed(101, list(range(count)), event(node=observed_node(1))))
    finally:
        await asyncio.to_thread(ledger.close)


def proposer_of(ledger: Any, number: int, clock: Clock) -> Proposer:
    return Proposer(ledger, CHAIN_ID, keys_of(number).address, signing(number), clock)


async def score_of(ledger: FederatedLedger) -> int:
    row = await ledger.query(lambda view: view.get(NODE, (1,)))
    assert row is not None
    return int(row.score)


async def observed_height(ledger: FederatedLedger) -> int:
    row = await ledger.query(lambda view: view.get(STATE, (1,)))
    assert row is not None
    return int(row.height)


async def until(holds: Callable[[], bool], most_s: float = 60) -> None:
    """Wait until it holds."""
    async with asyncio.timeout(most_s):
        while True:
            if holds():
                return
            await asyncio.sleep(0.01)


@dataclass
class Party:
    """One meta node's part: its ledger under an order."""

    number: int
    url: str
    clock: Clock
    order: Any
    ledger: FederatedLedger
    proposer: Proposer

    @classmethod
    async def opened(cls, number: int, url: str, clock: Clock, order: Any, **settings: Any) -> Party:
        ledger = await asyncio.to_thread(lambda: FederatedLedger.open(url, rules(CHAIN_ID), CHAIN_ID, order=order, **settings))
        proposer = proposer_of(ledger, number, clock)
        await proposer.start()
        return cls(number, url, clock, order, ledger, proposer)

    async def close(self) -> None:
        await self.order.stop()
        await asyncio.to_thread(self.ledger.close)

    async def again(self, **settings: Any) -> Party:
        """The same after a restart; its order is not started yet."""
        await self.close()
        return await Party.opened(self.number, self.url, self.clock, self.order, **settings)

    async def propose(self, kind: str, body: Any) -> Result:
        return await self.proposer.propose(kind, body)

    async def reached(self, sequence: int) -> None:
        """Wait until the ledger has an operation."""
        await until(lambda: self.ledger.head.sequence >= sequence)


async def exported(folder: Path, count: int, clock: Clock, standby: int = 0) -> tuple[Path, State]:
    """The export of a ledger that ``count`` meta nodes founded."""
    url = f"sqlite:///{folder}/first.db"
    await local_ledger(url, count, clock, standby)
    path = folder / "ledger.export"
    return path, await asyncio.to_thread(write_export, url, path)


async def driven(folder: Path, count: int, clock: Clock, *, urls: dict[int, str] | None = None, standby: int = 0) -> tuple[DrivenOrder, list[Party]]:
    """Parties under one driven order, all in."""
    path, _ = await exported(folder, count, clock, standby)
    order = DrivenOrder(count, clock)
    parties = []
    for number in range(count):
        url = (urls or {}).get(number, f"sqlite:///{folder}/m{number}.db")
        with path.open("rb") as file:
            await asyncio.to_thread(import_ledger, url, rules(CHAIN_ID), CHAIN_ID, file.read)
        parties.append(await Party.opened(number, url, clock, order.member(number)))
    for one in parties:
        await one.order.start()
    return order, parties


async def ended(order: DrivenOrder, parties: list[Party]) -> None:
    try:
        await order.close()
    finally:
        for one in parties:
            await asyncio.to_thread(one.ledger.close)


def comet_settings(base: int, number: int) -> Comet:
    """Ports base + 2i (P2P) and base + 2i + 1 (RPC). Each names itself and those before it: the others are let in because the ledger knows them."""
    peers = tuple(f"{format_address(keys_of(other).address)}@127.0.0.1:{base + 2 * other}" for other in range(number + 1))
    return Comet(port=base + 2 * number, rpc_port=base + 2 * number + 1, peers=peers)


async def with_comet(folder: Path, path: Path, number: int, base: int, clock: Clock) -> Party:
    """A party with CometBFT, joined to an export; not started."""
    home = folder / f"m{number}"
    home.mkdir(exist_ok=True)
    url = f"sqlite:///{home}/ledger.db"
    await asyncio.to_thread(join, url, CometHome(home / "comet"), keys_of(number), path)
    return await Party.opened(number, url, clock, CometOrder(home / "comet", comet_settings(base, number), keys_of(number)))
