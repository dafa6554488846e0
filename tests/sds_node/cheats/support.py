"""A network whose chain can be asked over HTTP, a meta node that lies once, and the commands of who checks it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

from chain.codec.canonical import encode
from chain.codec.json import from_json
from chain.codec.registry import message_class
from modules.settlement.commitment import Line, line_bytes
from modules.settlement.leaves import leaf_bytes
from modules.settlement.trees import plain_root, sum_root
from sds_node import asking
from sds_node.meta.books.books import EpochState
from sds_node.meta.books.serving import EpochServing
from sds_node.meta.relay.reporter import EpochData
from sds_node.testing.network import StorageNetwork, key_of
from sds_node.value_chain import views
from sds_node.value_chain.client import QueryFailed, TxResult
from sds_node.value_chain.sender import Sender
from sds_node.verifying import Batch
from sds_node.wire.connection import Connection
from sds_node.wire.errors import Refused
from sds_node.wire.stream import Stream

T = TypeVar("T")

OZONE_WEI = 10**20
LONG = {"pot.mature_epoch": "1000", "pot.epoch_duration_s": "3", "settlement.challenge_blocks": "12"}
"""Epochs stay contestable for the whole test; a challenge ends soon."""
Change = Callable[[list[Any]], "list[Any] | None"]
Lines = Callable[[list[Line]], "list[Line] | None"]


def content(number: int, size_bytes: int) -> bytes:
    return random.Random(number).randbytes(size_bytes)


@contextlib.asynccontextmanager
async def started(folder: Path, nodes: int = 3) -> AsyncIterator[StorageNetwork]:
    """A network with ozone for alice; its meta node hands out epochs."""
    async with StorageNetwork.started(folder, nodes=nodes, wallets=("alice", "bob", "finder", "mallory"), params=LONG) as network:
        meta = network.meta
        meta.wire.handlers.update(EpochServing(meta.epochs, meta.books).handlers())
        await network.buy_ozone("alice", OZONE_WEI)
        await network.buy_ozone("bob", OZONE_WEI)
        yield network


@contextlib.asynccontextmanager
async def rpc(network: StorageNetwork) -> AsyncIterator[str]:
    """CometBFT's RPC of the network's chain, on a socket: its URL."""

    async def answered(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.split("content-length:")[1].split("\r\n")[0])
        asked = json.loads(await reader.readexactly(length))
        answer: dict[str, Any] = {"jsonrpc": "2.0", "id": asked["id"]}
        try:
            answer["result"] = network.chain.answer(asked["method"], asked["params"])
        except QueryFailed as error:
            answer["error"] = {"code": error.code, "message": "refused", "data": error.text}
        body = json.dumps(answer).encode()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answered, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


async def spd(*arguments: str | Path) -> Ended:
    """The command, as an operator runs it."""
    command = [sys.executable, "-m", "sds_node.cli.spd", *map(str, arguments)]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
    out, err = await process.communicate()
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), err.decode())


async def checked(network: StorageNetwork, number: int, *more: str | Path) -> tuple[int, Any]:
    """`spd verify-epoch`, asked of the network's meta node: (exit code, what it prints)."""
    async with rpc(network) as url:
        ended = await spd("verify-epoch", str(number), "--from", str(network.meta_address), "--rpc", url, "-o", "json", *more)
    assert "Traceback" not in ended.err
    return ended.code, json.loads(ended.out) if ended.out else ended.err


async def proved(network: StorageNetwork, proof: dict[str, Any], finder: str = "finder") -> TxResult:
    """Send a proof as `stchaind tx settlement fraud-proof` does."""
    sender = Sender(network.client(), key_of(finder), clock=network.clock)
    message = from_json(message_class("stratos.settlement.v1.MsgFraudProof"), {"finder": sender.address, **proof}, "proof")
    return await sender.send([message])


async def traffic(network: StorageNetwork, number: int, files: int = 4, size_bytes: int = 100_000) -> None:
    """Files of one size: each owner has as many leaves, all for the same noz."""
    async with network.storage("alice") as storage:
        await asyncio.gather(*(storage.put(content(100 * number + at, size_bytes), f"files/{number}-{at}") for at in range(files)))


async def deposit_wei(network: StorageNetwork) -> int:
    """What the meta node has at stake."""
    found = await views.meta_node(network.client(), network.meta_keys.address)
    assert found is not None
    return found.tokens_wei


async def rewards_wei(network: StorageNetwork, name: str) -> int:
    """All that a wallet is to get from the chain."""
    found = await views.rewards(network.client(), key_of(name).public_key.address)
    return found.mature_wei + found.immature_wei


async def status_of(network: StorageNetwork, number: int) -> int:
    """1 for an epoch that stands, 2 for a void one."""
    return int((await views.committed_epoch(network.client(), number)).status)


def framed(leaves: Sequence[Any]) -> bytes:
    """A batch."""
    return b"".join(len(raw := leaf_bytes(leaf)).to_bytes(4, "big") + raw for leaf in leaves)


class Lie:
    """A meta node's books that lie about one epoch: its leaves are changed, or its lines, and what it hands out is the lie. Everything else is honest.

    ``change`` and ``lines`` give None for an epoch that does not suit them: it is reported as it is.
    """

    def __init__(self, network: StorageNetwork, change: Change | None = None, lines: Lines | None = None) -> None:
        self._network, self._change, self._lines = network, change, lines
        self._honest: Any = network.meta.epochs
        self._reporter: Any = network.meta.reporter
        self._true_lines = self._reporter._lines
        self._told: tuple[list[Line], list[Line]] | None = None
        self.epoch_number = 0
        self.data = b""
        self.honest_leaves: list[Any] = []
        self.is_withheld = False
        self._handler = network.meta.wire.handlers[asking.EPOCH_BATCH]

    async def __aenter__(self) -> Lie:
        self._reporter._books, self._reporter._lines = self, self._read_lines
        self._network.meta.wire.handlers[asking.EPOCH_BATCH] = self._hand_out
        return self

    async def __aexit__(self, *_: object) -> None:
        self._network.meta.wire.handlers[asking.EPOCH_BATCH] = self._handler
        self.honest_again()

    def honest_again(self) -> None:
        """What is reported from now on is true."""
        self._reporter._books, self._reporter._lines = self._honest, self._true_lines

    async def told(self) -> int:
        """The number of the epoch that was reported with the lie, once the chain has it."""
        await self._network.until(lambda: bool(self.epoch_number), "an epoch suits the lie")
        await waited(lambda: views.committed_epoch(self._network.client(), self.epoch_number))
        self.honest_again()
        return self.epoch_number

    async def _read_lines(self, number: int) -> list[Line]:
        honest = await self._true_lines(number)
        lied = self._lines(list(honest)) if self._lines is not None and self.epoch_number in (0, number) else None
        self._told = None if lied is None else (honest, lied)
        return honest if lied is None else lied

    async def epoch(self, number: int, closed_ms: int, lines: Sequence[Line]) -> EpochData:
        honest_lines, lied_lines = self._told or (list(lines), list(lines))
        data: EpochData = await self._honest.epoch(number, closed_ms, honest_lines)
        if self.epoch_number not in (0, number):
            return data
        leaves = Batch(number, await self._honest.batch(number)).leaves
        changed = list(leaves) if self._change is None and self._told else self._change(list(leaves)) if self._change is not None else None
        if changed is None:
            assert self._told is None
            return data
        self.epoch_number, self.honest_leaves, self.data = number, leaves, framed(changed)
        root, _ = sum_root([(leaf_bytes(leaf), leaf.noz) for leaf in changed])
        return replace(
            data,
            receipts_root=b"r" * 32 if self.is_withheld else root,
            receipts_count=len(changed),
            totals_root=plain_root([line_bytes(line) for line in lied_lines]),
            data_ref=f"sha256:{sha256(self.data).hexdigest()}",
        )

    async def reported(self, number: int) -> None:
        await self._honest.reported(number)

    async def voided(self, number: int) -> None:
        await self._honest.voided(number)

    async def _hand_out(self, stream: Stream, connection: Connection) -> None:
        head = asking.EpochBatchHead.FromString(stream.head)
        if head.epoch != self.epoch_number:
            await self._handler(stream, connection)
        elif self.is_withheld:
            raise Refused(asking.NOT_HELD, "this meta node does not say")
        else:
            await stream.send(encode(asking.EpochBatchPage(data=self.data)))


async def reported_after(network: StorageNetwork, epoch: int, is_it: Callable[[list[Any]], bool]) -> int:
    """The number of the first honest epoch after ``epoch`` whose leaves are what ``is_it`` looks for."""
    query = "SELECT number FROM epochs WHERE state = ? AND number > ? ORDER BY number"

    async def look() -> int:
        rows = await network.meta.books.do(lambda database: database.execute(query, (EpochState.REPORTED, epoch)).fetchall())
        for (number,) in rows:
            if is_it(Batch(number, await network.meta.epochs.batch(number)).leaves):
                return int(number)
        return 0

    return await waited(look)


async def waited(look: Callable[[], Awaitable[T]], timeout_s: float = 60.0) -> T:
    """What ``look`` gives once it gives something."""
    async with asyncio.timeout(timeout_s):
        while not (found := await look()):  # noqa: ASYNC110  nothing tells of it
            await asyncio.sleep(0.1)
        return found


async def last_epoch(network: StorageNetwork) -> int:
    """The last one that the chain has a report of."""
    last = await views.last_report(network.client())
    return 0 if last is None else last.epoch
