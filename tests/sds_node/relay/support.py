"""A meta node's ledger beside a real chain, for tests of what goes between them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import nacl.signing

from chain.codec.canonical import encode
from chain.codec.registry import message_class
from chain.crypto import address as bech32
from modules.settlement.commitment import Line
from modules.settlement.documents import GRANT_DOMAIN, SessionGrant
from modules.settlement.trees import EMPTY_ROOT
from sds_node.meta.books.books import BooksError
from sds_node.meta.ledger.engine import Ledger
from sds_node.meta.operations import Proposer
from sds_node.meta.relay import founding, observer, reporter
from sds_node.meta.relay.observer import Observer
from sds_node.meta.relay.reporter import EpochData, Reporter, UnevenBooks
from sds_node.meta.rules.apply import rules
from sds_node.meta.rules.invariants import check
from sds_node.meta.rules.tables import NODE, STATE, WALLET, Node, State
from sds_node.value_chain import Sender, ValueChain
from tests.sds_node.value_chain.support import CHAIN_ID, STOS, Chain, prepay_of

ROOT = sha256(b"a root that nobody asks for").digest()
SESSION = b"\x32" * 32


def message(name: str, /, **fields: Any) -> Any:
    return message_class(f"stratos.storage.v1.{name}")(**fields)


@dataclass
class PaperBooks:
    """Books that believe every line, and remember what they were told. ``refusals``: how often they do not; ``lost``: wallets of which receipts are gone."""

    refusals: int = 0
    root: bytes = ROOT
    lost: frozenset[bytes] = frozenset()
    asked: list[int] = field(default_factory=list)
    told: list[tuple[str, int]] = field(default_factory=list)

    async def epoch(self, number: int, closed_ms: int, lines: Sequence[Line]) -> EpochData:
        self.asked.append(number)
        if self.refusals:
            self.refusals -= 1
            raise BooksError("line 1 has 5 noz, its leaves 4")
        uneven = sorted(self.lost & {line.wallet for line in lines})
        if uneven:
            raise UnevenBooks("receipts are lost", uneven)
        return EpochData(self.root if lines else EMPTY_ROOT, len(lines), *[EMPTY_ROOT] * 5, data_ref="sha256:" + "00" * 32)

    async def reported(self, number: int) -> None:
        self.told.append(("reported", number))

    async def voided(self, number: int) -> None:
        self.told.append(("voided", number))


@dataclass
class MetaSide:
    """One ledger and what observes the chain for it."""

    net: Chain
    chain: ValueChain
    ledger: Ledger
    proposer: Proposer
    late_s: float = 0.0
    """How far the clock is ahead."""

    @property
    def key(self) -> nacl.signing.SigningKey:
        return nacl.signing.SigningKey(self.net.meta.ledger_seed)

    def clock(self) -> float:
        return time.time() + self.late_s

    async def found(self, height: int | None = None, **changes: Any) -> int:
        """Found the ledger where it is to be founded, or at a height; which one."""
        at = await founding.founding_height(self.chain) if height is None else height
        made = await founding.found_message(self.chain, at)
        for name, value in changes.items():
            made.ClearField(name)
            made.MergeFrom(message("Found", **{name: value}))
        await self.proposer.propose("found", made)
        return at

    def observer(self, gather: observer.Gather = observer.nobody, **settings: Any) -> Observer:
        return Observer(self.chain, self.proposer, self.key, gather, self.clock, poll_s=0.05, **settings)

    def reporter(self, books: PaperBooks, gather: reporter.Gather = reporter.nobody) -> Reporter:
        sender = Sender(self.chain, self.net.key("operator"))
        owner = self.net.wallet("operator")
        return Reporter(self.chain, sender, self.proposer, self.net.meta, owner, books, gather, self.clock, poll_s=0.1)

    async def rows(self, question: Callable[[Any], Any]) -> Any:
        return await self.ledger.query(question)

    async def state(self) -> State:
        found = await self.rows(lambda view: view.get(STATE, (1,)))
        assert found is not None
        return found  # type: ignore[no-any-return]

    async def paid_noz(self, wallet: bytes) -> int:
        row = await self.rows(lambda view: view.get(WALLET, (wallet,)))
        return 0 if row is None else int(row.paid_noz)

    async def node(self, address: bytes) -> Node | None:
        return await self.rows(lambda view: view.find(NODE, "by_address", (address,)))  # type: ignore[no-any-return]

    async def checked(self) -> None:
        """Every invariant of the ledger."""
        await self.rows(check)

    async def earn(self, name: str, earned: Mapping[bytes, int]) -> None:
        """A wallet's lease, of which a window gives so many noz to beneficiaries."""
        noz = sum(earned.values())
        key, now_s, wallet = self.net.key(name), int(time.time()), self.net.wallet(name)
        body = encode(
            SessionGrant(
                chain_id=CHAIN_ID, wallet=bech32.encode(wallet), session_pubkey=SESSION, actions=[1, 2], path_prefix="/", max_noz=10**15,
                not_before_s=now_s - 60, expires_s=now_s + 7_200, nonce=time.time_ns().to_bytes(16, "big"),
            )
        )  # fmt: skip
        grant = {"body": body, "public_key": key.public_key.raw, "signature": key.sign(GRANT_DOMAIN + b"\x00" + body)}
        lease = message("TakeLease", wallet=wallet, session_pubkey=SESSION, fund=1, noz=2 * noz, seconds=3_600, grant=grant)
        taken = await self.proposer.propose("take_lease", lease)
        window = message(
            "Window", number=1, receipts_root=ROOT, receipts_count=1, batch_hash=ROOT,
            leases=[message("LeaseDebit", lease_id=taken.result, noz=noz)],
            credits=[message("Credit", beneficiary=to, fund=1, traffic_class=1, noz=given) for to, given in sorted(earned.items())],
        )  # fmt: skip
        await self.proposer.propose("window", window)


@contextlib.asynccontextmanager
async def meta_side(net: Chain, folder: Path, name: str = "ledger") -> AsyncIterator[MetaSide]:
    """A ledger in ``folder``, opened again if it is there."""
    clock: list[Callable[[], float]] = [time.time]
    with Ledger.open(f"sqlite:///{folder}/{name}.db", rules(CHAIN_ID), CHAIN_ID, now_ms=lambda: int(clock[0]() * 1_000)) as ledger:
        async with ValueChain(net.rpc) as chain:
            side = MetaSide(net, chain, ledger, None)  # type: ignore[arg-type]
            clock[0] = side.clock
            side.proposer = Proposer(ledger, CHAIN_ID, net.meta.address, side.key, side.clock)
            await side.proposer.start()
            yield side


@contextlib.asynccontextmanager
async def running(*work: Any) -> AsyncIterator[None]:
    """Run these beside the block; what one of them raises comes out, at the latest when the block is over."""
    tasks = [asyncio.create_task(one.run()) for one in work]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            raise result


async def until(holds: Callable[[], Awaitable[Any]], timeout_s: float = 40) -> Any:
    """What ``holds`` gives, once that is something true."""
    async with asyncio.timeout(timeout_s):
        while True:
            found = await holds()
            if found:
                return found
            await asyncio.sleep(0.05)


async def prepay(side: MetaSide, wallet: bytes, amount_wei: int = STOS) -> tuple[int, int]:
    """(noz bought, height)."""
    sent = await Sender(side.chain, side.net.key("alice")).send([prepay_of(side.net.key("alice"), wallet, amount_wei)])
    (event,) = [one for one in sent.events if one.kind == "stratos.sds.v1.EventPrePay"]
    return int(event.text("purchased_noz")), sent.height
