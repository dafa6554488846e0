"""A gateway that runs: what a node's program starts and stops.

settings ─► NetworkBackend ─► Gateway ─► JSON-RPC (18281)        owner ─► OwnerDoor (socket, or loopback port)        is_streaming ─► REST (18581)
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import structlog

from sds_node.client.meta import MetaAddress
from sds_node.gateway.gateway import STEP_S, Gateway
from sds_node.gateway.network import NetworkBackend
from sds_node.gateway.owner import Owner, OwnerDoor
from sds_node.gateway.server import Front, Listener
from sds_node.gateway.streaming import Streaming
from sds_node.gateway_settings import OWNER_PORT, REST_PORT, Settings

log = structlog.get_logger("gateway")

TOKEN_FILE: Final = "owner.token"  # noqa: S105
SOCKET_FILE: Final = "owner.sock"
MAX_SOCKET_PATH: Final = 100


class RunningGateway:
    """A gateway with its doors. ``home`` is the node's folder, in which it has ``gateway``; ``clock`` tells Unix seconds. ``start``, then ``stop`` once.

    ``owner`` opens the door for ``owner_*``: a unix socket in the folder, or a loopback port where the path is too long for one. ``rest_port``: of the
    videos; None for none.
    """

    def __init__(
        self,
        home: Path,
        chain_id: str,
        metas: Sequence[MetaAddress],
        clock: Callable[[], float],
        settings: Settings | None = None,
        *,
        owner: Owner | None = None,
        owner_port: int = OWNER_PORT,
        rest_port: int | None = REST_PORT,
        service_status: Callable[[str], str] | None = None,
        version: str = "1",
    ) -> None:
        self.settings = settings or Settings()
        self.folder = home / "gateway"
        self._backend = NetworkBackend(chain_id, metas, clock)
        self._gateway_parts = (clock, service_status, version)
        self._owner, self._owner_port, self._rest_port = owner, owner_port, rest_port
        self.gateway: Gateway
        self.streaming: Streaming | None = None
        self.port = 0
        self._listeners: list[Listener] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Listen. Raises OSError for a port that is taken or a folder that cannot be used."""
        clock, service_status, version = self._gateway_parts
        await asyncio.to_thread(self._make_folder)
        self.gateway = Gateway(self._backend, self.folder / "spool", clock, self.settings, service_status=service_status, version=version)
        front = Front(self.gateway.call, allowed_hosts=self.settings.allowed_hosts, allowed_origins=self.settings.allowed_origins)
        try:
            listener = Listener(front.app)
            self.port = await listener.start(self.settings.host, self.settings.port)
            self._listeners.append(listener)
            if self._owner is not None:
                door = OwnerDoor(self._owner, self.folder / TOKEN_FILE, version=version)
                path = self.folder / SOCKET_FILE
                fits = len(str(path).encode()) <= MAX_SOCKET_PATH
                self._listeners.append(await door.listen(path=path) if fits else await door.listen(port=self._owner_port))
            if self._rest_port is not None:
                self.streaming = Streaming(self.gateway, self.folder)
                videos = Listener(self.streaming.app)
                await videos.start(self.settings.host, self._rest_port)
                self._listeners.append(videos)
        except OSError:
            await self.stop()
            raise
        self._tasks = [asyncio.get_running_loop().create_task(work) for work in (self.gateway.run(), self._upkeep())]
        log.info("gateway listens", host=self.settings.host, port=self.port)

    def _make_folder(self) -> None:
        shutil.rmtree(self.folder / "spool", ignore_errors=True)
        (self.folder / "spool").mkdir(mode=0o700, parents=True)

    async def _upkeep(self) -> None:
        while True:
            await asyncio.sleep(STEP_S)
            if self.streaming is not None:
                await self.streaming.expire()

    async def stop(self) -> None:
        """Take no more, end what is under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for listener in self._listeners:
            await listener.stop()
        if self.streaming is not None:
            self.streaming.close()
        await self.gateway.close()
        with contextlib.suppress(FileNotFoundError):
            (self.folder / TOKEN_FILE).unlink()
