"""How fast the wire is on this machine: MB/s of one stream each way, empty calls per second; both ends in one process, and in two.

    python tests/sds_node/wire/measure.py [megabytes] [calls]

Prints wall time and CPU time of the calling process (of both ends where they are one): on a busy machine the second is the one to compare.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from sds_node.wire.connection import Connection
from sds_node.wire.identity import Identity
from sds_node.wire.node import Node, Server
from sds_node.wire.peer import Direct, Peer
from sds_node.wire.stream import Stream

CHAIN = "measure-1"
MB = 1_000_000


async def put(stream: Stream, _: Connection) -> None:
    while await stream.receive():
        pass


async def get(stream: Stream, _: Connection) -> None:
    piece = bytes(1 << 20)
    left = int(stream.head)
    while left > 0:
        await stream.send(piece[:left] if left < len(piece) else piece)
        left -= len(piece)


async def empty(stream: Stream, _: Connection) -> None:
    return


def _server() -> tuple[Node, Server]:
    node = Node(Identity.ephemeral(), CHAIN, {"put": put, "get": get, "empty": empty})
    return node, Server(node)


async def _timed(name: str, unit: str, amount: float, work: Callable[[], Awaitable[None]]) -> None:
    wall, cpu = time.perf_counter(), time.process_time()
    await work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(f"  {name:24} {amount / wall:9.0f} {unit} of wall time   {amount / cpu:9.0f} {unit} of CPU time here", flush=True)


async def _measure(peer: Peer, size: int, calls: int) -> None:
    async def upload() -> None:
        piece = bytes(1 << 20)
        async with await peer.call("put") as stream:
            for _ in range(0, size, len(piece)):
                await stream.send(piece)
            stream.end()
            await stream.result()

    async def download() -> None:
        async with await peer.call("get", str(size).encode(), ended=True) as stream:
            while await stream.receive():
                pass
            await stream.result()

    async def one_by_one() -> None:
        for _ in range(calls // 4):
            await peer.ask("empty")

    async def at_once() -> None:
        async def some() -> None:
            for _ in range(calls // 64):
                await peer.ask("empty")

        await asyncio.gather(*(some() for _ in range(64)))

    await peer.ask("empty")
    await _timed("put", "MB/s", size / MB, upload)
    await _timed("get", "MB/s", size / MB, download)
    await _timed("empty calls, one by one", "per s", calls // 4, one_by_one)
    await _timed("empty calls, 64 at once", "per s", calls // 64 * 64, at_once)
    await peer.close()


async def _serve() -> None:
    node, server = _server()
    _, port = await server.listen()
    print(node.address.hex(), port, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await server.close()


async def _one(size: int, calls: int) -> None:
    node, server = _server()
    host, port = await server.listen()
    await _measure(Peer(Node(Identity.ephemeral(), CHAIN), node.address, [Direct(host, port)], connections=1), size, calls)
    await server.close()


async def _two(size: int, calls: int, address: bytes, port: int) -> None:
    await _measure(Peer(Node(Identity.ephemeral(), CHAIN), address, [Direct("127.0.0.1", port)], connections=1), size, calls)


def main() -> None:
    import structlog

    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    if sys.argv[1:2] == ["serve"]:
        (uvloop.run if sys.argv[2] == "uvloop" else asyncio.run)(_serve())
        return
    size = int(sys.argv[1]) * MB if len(sys.argv) > 1 else 500 * MB
    calls = int(sys.argv[2]) if len(sys.argv) > 2 else 20_000
    for name, run in (("uvloop", uvloop.run), ("asyncio", asyncio.run)):
        print(f"{name}, both ends in one process")
        run(_one(size, calls))
        print(f"{name}, two processes")
        other = subprocess.Popen(
            [sys.executable, __file__, "serve", name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert other.stdout is not None
        assert other.stdin is not None
        address, port = other.stdout.readline().split()
        run(_two(size, calls, bytes.fromhex(address), int(port)))
        other.communicate()


if __name__ == "__main__":
    main()
