"""How much a peer may hold, open, send and delay. Bounds are numbers; what counts against them is ``Bucket`` (per second) and ``Budget`` (at once).

faster than a bucket, fuller than a budget   the peer is not read from until it fits again: slowed down, never told
more than a count                            that stream or connection is refused (Busy)
slower than a time                           cut off (TooSlow, TimedOut)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Final

from sds_node.wire.frames import MAX_HEAD_BYTES, MAX_STREAM, MAX_WINDOW_BYTES, MIN_STREAM_WINDOW_BYTES

MAX_TIME_S: Final = 86_400.0
BURST_S: Final = 0.25
MIN_BURST_BYTES: Final = 64 << 10


@dataclass(frozen=True)
class Limits:
    """A node's bounds. Defaults are for a node that serves strangers on a machine with 2 GiB to spare."""

    connections: int = 1_024  # accepted, all peers together
    connections_per_peer: int = 16  # accepted from one address
    connections_per_host: int = 128  # accepted from one IP address, whoever speaks
    handshakes: int = 128  # accepted, and not yet said who they are
    streams_per_connection: int = 256  # that the peer has open, or whose handler still runs
    streams_per_peer: int = 1_024  # the same over all of its connections
    opens_per_s: float = 10_000.0  # streams that a peer opens
    small_frames_per_s: float = 40_000.0  # of a peer: control frames, DATA below 1 KiB, and what comes for streams that ended
    queued_frames: int = 4_096  # control frames that wait for a connection that does not take them
    waiting_calls: int = 4_096  # of ours, for a free stream of one connection
    stream_window_bytes: int = 4 << 20
    connection_window_bytes: int = 64 << 20
    buffered_per_peer_bytes: int = 128 << 20  # arrived, and not yet read by us
    buffered_bytes: int = 512 << 20  # the same, all peers together
    head_bytes: int = MAX_HEAD_BYTES
    handshake_s: float = 10.0  # from the first byte to the peer's HELLO
    keepalive_s: float = 20.0  # of silence, then a PING
    dead_s: float = 60.0  # without one complete frame
    stall_s: float = 60.0  # in which the peer takes too little for its socket to have room again
    idle_s: float = 120.0  # a stream on which somebody waits and nothing moves
    unused_s: float = 600.0  # a connection without a stream
    flush_s: float = 3.0  # for the last frames of a connection that ends
    redial_s: float = 1.0  # after the first failure to reach a peer that is kept; doubles
    redial_most_s: float = 60.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not value > 0:
                raise ValueError(f"{field.name} must be more than 0, got {value}")
            if field.name.endswith("_s") and "per" not in field.name and value > MAX_TIME_S:
                raise ValueError(f"{field.name} is at most {MAX_TIME_S:g} seconds, got {value}")
        if not MIN_STREAM_WINDOW_BYTES <= self.stream_window_bytes <= self.connection_window_bytes <= MAX_WINDOW_BYTES:
            raise ValueError(
                f"windows are {MIN_STREAM_WINDOW_BYTES} to {MAX_WINDOW_BYTES} bytes, a stream's not above its connection's, "
                f"got {self.stream_window_bytes} and {self.connection_window_bytes}"
            )
        if self.head_bytes > MAX_HEAD_BYTES or self.streams_per_connection > MAX_STREAM:
            raise ValueError(f"head_bytes is at most {MAX_HEAD_BYTES}, got {self.head_bytes}; streams at most {MAX_STREAM}")

    @property
    def sweep_s(self) -> float:
        """How often a connection looks at its clocks."""
        return min(self.keepalive_s, self.dead_s, self.stall_s, self.idle_s, self.unused_s, 4.0) / 4


@dataclass(frozen=True)
class Rates:
    """Bytes per second of frames, up (sent) and down (received), for a whole node and for each of its connections; None is without limit."""

    up_bytes_per_s: float | None = None
    down_bytes_per_s: float | None = None
    connection_up_bytes_per_s: float | None = None
    connection_down_bytes_per_s: float | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and not value >= 1:
                raise ValueError(f"{field.name} is at least 1, or None for no limit, got {value}")


class Bucket:
    """A token bucket that may be overdrawn: what is taken is taken, and ``wait_s`` says how long until it is paid back.

    ``per_s`` tokens flow in per second (None: without limit), at most ``burst`` lie in it. Times are the event loop's, in seconds.
    """

    __slots__ = ("_at", "_burst", "_left", "_per_s")

    def __init__(self, per_s: float | None, burst: float, now: float) -> None:
        self._per_s, self._burst, self._left, self._at = per_s, burst, burst, now

    def take(self, amount: float, now: float) -> float:
        """Takes; returns the seconds until the bucket is no longer overdrawn, 0 if it is not."""
        if self._per_s is None:
            return 0.0
        self.wait_s(now)  # what flowed in until now, at most the burst, is there first
        self._left -= amount
        return 0.0 if self._left >= 0 else -self._left / self._per_s

    def wait_s(self, now: float) -> float:
        """Seconds until something may be taken."""
        if self._per_s is None:
            return 0.0
        if now > self._at:
            self._left = min(self._burst, self._left + (now - self._at) * self._per_s)
            self._at = now
        return 0.0 if self._left >= 0 else -self._left / self._per_s


def byte_bucket(per_s: float | None, now: float) -> Bucket:
    """A bucket of bytes with a burst of a quarter of a second, 64 KiB at least."""
    return Bucket(per_s, max(MIN_BURST_BYTES, (per_s or 0) * BURST_S), now)


class Budget:
    """Bytes held at once. Whoever finds it full leaves a function, called once when there is room again."""

    __slots__ = ("_limit", "_waiting", "used_bytes")

    def __init__(self, limit_bytes: int) -> None:
        self._limit, self.used_bytes = limit_bytes, 0
        self._waiting: dict[Callable[[], None], None] = {}

    @property
    def full(self) -> bool:
        return self.used_bytes > self._limit

    def take(self, size_bytes: int) -> None:
        self.used_bytes += size_bytes

    def give(self, size_bytes: int) -> None:
        self.used_bytes -= size_bytes
        if self._waiting and not self.full:
            waiting, self._waiting = self._waiting, {}
            for wake in waiting:
                wake()

    def when_free(self, wake: Callable[[], None]) -> None:
        """Calls ``wake`` once, at the next ``give`` that makes room. The same function waits once."""
        self._waiting[wake] = None

    def forget(self, wake: Callable[[], None]) -> None:
        self._waiting.pop(wake, None)
