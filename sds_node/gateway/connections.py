"""One HTTP connection with ends to its patience: a client that says nothing, too little at a time, or does not read, is let go.

    connected ─ head of a request within 30 s ─► request ─► answer, read within 300 s of the moment at which it stalled ─► idle ─► the next head within 30 s of its first byte

Hosts have a bound of connections each, but this one itself, where a reverse proxy is. What comes behind the head is bounded by who reads it (server.py).
Source: sds.md 5.1.
"""

from __future__ import annotations

import asyncio
import ipaddress
from typing import Any, Final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_S: Final = 30.0
SEND_S: Final = 300.0
MAX_OF_HOST: Final = 500


class BoundedProtocol(H11Protocol):
    """uvicorn's, with these bounds."""

    _head_timer: asyncio.TimerHandle | None = None
    _send_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        host = self.client[0] if self.client is not None else ""
        others = sum(1 for one in self.connections if isinstance(one, H11Protocol) and one.client is not None and one.client[0] == host)
        if others > MAX_OF_HOST and not _is_here(host):
            transport.abort()
            return
        self._head_timer = self.loop.call_later(HEAD_S, transport.abort)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._stop_head()
        elif self._head_timer is None and not self.transport.is_closing():
            # Some of a head, and not all of it.
            self._head_timer = self.loop.call_later(HEAD_S, self.transport.abort)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._send_timer is None:
            self._send_timer = self.loop.call_later(SEND_S, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.cycle is None or self.cycle.response_complete:
            self._stop_send()

    def on_response_complete(self) -> None:
        if not self.flow.write_paused:
            self._stop_send()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head()
        self._stop_send()
        super().connection_lost(exc)

    def _stop_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _stop_send(self) -> None:
        if self._send_timer is not None:
            self._send_timer.cancel()
            self._send_timer = None


def _is_here(host: str) -> bool:
    """Whether a host is this machine; on a unix socket there is none."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return not host
