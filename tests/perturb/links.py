"""The wires between nodes: a TCP proxy for every direction in which a node dials another, which can be cut, slowed down and made lossy."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field

RETRANSMIT_S = 0.2
"""A lost segment costs about this: TCP sends it again."""
CHUNK_BYTES = 16_384


@dataclass
class Link:
    """One direction of dialling. ``delay_s`` is added each way; of ``loss`` chunks in one, each waits RETRANSMIT_S more."""

    target: int
    port: int = 0
    is_cut: bool = False
    delay_s: float = 0.0
    loss: float = 0.0
    open: list[asyncio.StreamWriter] = field(default_factory=list)


class Links:
    """Proxies of every pair of ``names``, in a thread of their own. ``targets`` are the nodes' p2p ports."""

    def __init__(self, targets: dict[str, int], seed: int) -> None:
        self._links = {(one, other): Link(targets[other]) for one in targets for other in targets if one != other}
        self._choose = random.Random(seed)
        self._loop = asyncio.new_event_loop()
        self._servers: list[asyncio.Server] = []
        self._thread = threading.Thread(target=self._loop.run_forever, name="links", daemon=True)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)

    def port(self, dialler: str, dialled: str) -> int:
        """Where ``dialler`` reaches ``dialled``."""
        return self._links[dialler, dialled].port

    def cut(self, name: str) -> None:
        """Close what connects ``name`` with others, and refuse new connections."""
        self._change(name, is_cut=True)

    def slow(self, name: str, delay_s: float, loss: float) -> None:
        self._change(name, delay_s=delay_s, loss=loss)

    def mend(self, name: str) -> None:
        self._change(name, is_cut=False, delay_s=0.0, loss=0.0)

    def close(self) -> None:
        async def end() -> None:
            for server in self._servers:
                server.close()
            mine = asyncio.current_task()
            others = [task for task in asyncio.all_tasks() if task is not mine]
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _of(self, name: str) -> Iterable[Link]:
        return (link for pair, link in self._links.items() if name in pair)

    def _change(self, name: str, **values: object) -> None:
        def change() -> None:
            for link in self._of(name):
                for key, value in values.items():
                    setattr(link, key, value)
                if link.is_cut:
                    for writer in link.open:
                        writer.transport.abort()

        self._loop.call_soon_threadsafe(change)

    async def _listen(self) -> None:
        for link in self._links.values():
            server = await asyncio.start_server(lambda reader, writer, link=link: self._serve(link, reader, writer), "127.0.0.1", 0)
            link.port = server.sockets[0].getsockname()[1]
            self._servers.append(server)

    async def _serve(self, link: Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends = [writer]
        try:
            if link.is_cut:
                return
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", link.target)
            ends.append(far_writer)
            link.open += ends
            ways = [asyncio.create_task(self._carry(link, *way)) for way in ((reader, far_writer), (far_reader, writer))]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        except OSError:
            pass
        finally:
            for end in ends:
                if end in link.open:
                    link.open.remove(end)
                end.close()
                with contextlib.suppress(OSError):
                    await end.wait_closed()

    async def _carry(self, link: Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Chunks in order, each at its own time, so that a delay costs time and not throughput."""
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(256)

        async def write() -> None:
            while True:
                due, chunk = await queue.get()
                await asyncio.sleep(max(0.0, due - self._loop.time()))
                writer.write(chunk)
                await writer.drain()

        writing = asyncio.create_task(write())
        try:
            while not writing.done() and (chunk := await reader.read(CHUNK_BYTES)):
                lost = RETRANSMIT_S if link.loss and self._choose.random() < link.loss else 0.0
                await queue.put((self._loop.time() + link.delay_s + lost, chunk))
        except OSError:
            pass
        finally:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
