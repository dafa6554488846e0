"""What each stage of a put and a get costs by itself, in µs of CPU for a MB of content (5 of 10, so a put moves two MB and a get one).

    put: read ─ seal ─ Keccak ─ code, leaf hashes ─ wire ─ leaf hashes, write, sync       get: read, leaf hashes ─ wire ─ leaf check ─ open ─ write

python -m bench storage --only stages
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import structlog
import uvloop

from sds_node import cipher
from sds_node.coding import STRETCH_BYTES, add_shares
from sds_node.hashes import FileHasher
from sds_node.merkle import LeafCheck, LeafHasher, share_hashes, share_root
from sds_node.resource import store as shares
from sds_node.schemes import SEGMENT_BYTES, scheme_of, share_bytes
from sds_node.wire.connection import Connection
from sds_node.wire.identity import Identity
from sds_node.wire.node import Node, Server
from sds_node.wire.peer import Direct, Peer
from sds_node.wire.stream import Stream

MB: Final = 1_000_000
ROUNDS: Final = 5
PIECE_BYTES: Final = 1 << 20
CHAIN: Final = "bench-1"


def run() -> None:
    """Print the table."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(30))
    print("storage: µs of CPU for a MB of content, each stage by itself, the least of five", flush=True)
    segment = os.urandom(SEGMENT_BYTES)
    whole_mb = SEGMENT_BYTES / MB
    scheme = scheme_of(5, 10)
    size = share_bytes(scheme, SEGMENT_BYTES)
    padded = memoryview(segment.ljust(scheme.k * size, b"\x00"))
    own = [padded[at : at + size] for at in range(0, len(padded), size)]
    added = [memoryview(bytearray(size)) for _ in range(scheme.parity)]
    share = segment[: -(-SEGMENT_BYTES // 5 // 16_384) * 16_384][: SEGMENT_BYTES // 5]
    share_mb = len(share) / MB
    hashes, root = share_hashes(share), share_root(share)

    def seal() -> None:
        encryptor = cipher.Encryptor()
        for start in range(0, len(segment), 4 * PIECE_BYTES):
            encryptor.update(memoryview(segment)[start : start + 4 * PIECE_BYTES])
        encryptor.finish()

    def keccak() -> None:
        hasher = FileHasher()
        hasher.update(segment)
        hasher.file_hash()

    def code() -> None:
        for start in range(0, size, STRETCH_BYTES):
            add_shares(scheme, own, added, start, min(start + STRETCH_BYTES, size))

    def leaves() -> None:
        hasher = LeafHasher()
        hasher.update(segment)

    def check() -> None:
        judge = LeafCheck(root, len(share), hashes)
        for start in range(0, len(share), PIECE_BYTES // 4):
            judge.update(memoryview(share)[start : start + PIECE_BYTES // 4])

    sealer = cipher.Encryptor()
    sealed = b"".join([*sealer.update(segment), sealer.finish()])

    def unseal() -> None:
        opener = cipher.Decryptor(sealer.key, len(sealed))
        for start in range(0, len(sealed), PIECE_BYTES):
            opener.update(memoryview(sealed)[start : start + PIECE_BYTES])
        opener.finish()

    sealing, hashing, coding, leafing = (_least(work) / whole_mb for work in (seal, keccak, code, leaves))
    checking, opening = _least(check) / share_mb, _least(unseal) / whole_mb
    writing, reading = _stored(share, root)
    wires = {name: asyncio.run(_wired()) if name == "asyncio" else uvloop.run(_wired()) for name in ("asyncio", "uvloop")}
    put_wire, get_wire = wires["asyncio"]
    fast_put, fast_get = wires["uvloop"]
    rows = (
        ("put, client: seal (AES-256-GCM)", sealing),
        ("put, client: Keccak of the stored stream", hashing),
        ("put, client: code 5 + 5", coding),
        ("put, client: leaf hashes of 2 MB", 2 * leafing),
        ("put, wire, both ends, 2 MB (asyncio)", 2 * put_wire),
        ("put, wire, both ends, 2 MB (uvloop)", 2 * fast_put),
        ("put, nodes: leaf hashes, write, sync of 2 MB", 2 * writing),
        ("get, nodes: read and leaf hashes", reading),
        ("get, wire, both ends (asyncio)", get_wire),
        ("get, wire, both ends (uvloop)", fast_get),
        ("get, client: leaf check", checking),
        ("get, client: open (AES-256-GCM)", opening),
    )
    for what, spent in rows:
        print(f"  {what:46} {spent * 1e6:6.0f}", flush=True)


def _least(work: Callable[[], object]) -> float:
    """Seconds of CPU of the whole process."""
    best = float("inf")
    for _ in range(ROUNDS):
        started = time.process_time()
        work()
        best = min(best, time.process_time() - started)
    return best


def _stored(share: bytes, root: bytes) -> tuple[float, float]:
    """(writing, reading), in seconds for a MB of shares, through the node's store."""
    with tempfile.TemporaryDirectory() as folder:
        store = shares.open_store(Path(folder) / "shares", shares.Settings(reserve_bytes=0))
        numbers = iter(range(1, 100))

        def write() -> None:
            # Copies of one root share their bytes on disk, so each round has a root of its own.
            number = next(numbers)
            own = share[:-8] + number.to_bytes(8, "big")
            writer = store.begin(roots[number], len(own), number.to_bytes(16, "big"), b"m" * 500)
            for start in range(0, len(own), PIECE_BYTES // 4):
                writer.write(own[start : start + PIECE_BYTES // 4])
            writer.finish()

        roots = {number: share_root(share[:-8] + number.to_bytes(8, "big")) for number in range(1, ROUNDS + 1)}
        writing = _least(write)

        def read() -> None:
            with store.open_share(roots[1]) as reader:
                for start in range(0, len(share), PIECE_BYTES):
                    reader.read(start, min(PIECE_BYTES, len(share) - start))

        reading = _least(read)
        store.close()
    return writing / (len(share) / MB), reading / (len(share) / MB)


async def _wired() -> tuple[float, float]:
    """(to a node, from it), in seconds for a MB, both ends here: TLS, frames and windows."""

    async def put(stream: Stream, _: Connection) -> None:
        while await stream.receive():
            pass

    async def get(stream: Stream, _: Connection) -> None:
        for _turn in range(64):
            await stream.send(piece)

    piece = os.urandom(PIECE_BYTES)
    node = Node(Identity.ephemeral(), CHAIN, {"put": put, "get": get})
    server, caller = Server(node), Node(Identity.ephemeral(), CHAIN)
    host, port = await server.listen()
    peer = Peer(caller, node.address, [Direct(host, port)], connections=1)

    async def upload() -> None:
        async with await peer.call("put") as stream:
            for _ in range(64):
                await stream.send(piece)
            stream.end()
            await stream.result()

    async def download() -> None:
        async with await peer.call("get", b"", ended=True) as stream:
            while await stream.receive():
                pass
            await stream.result()

    async def least(work: Callable[[], Awaitable[None]]) -> float:
        best = float("inf")
        for _ in range(ROUNDS):
            started = time.process_time()
            await work()
            best = min(best, time.process_time() - started)
        return best / (64 * PIECE_BYTES / MB)

    try:
        return await least(upload), await least(download)
    finally:
        await peer.close()
        await caller.close()
        await server.close()


if __name__ == "__main__":
    run()
