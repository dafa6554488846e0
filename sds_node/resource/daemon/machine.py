"""What a machine is like before it becomes a resource node: disk, ports, clock, the way to the chain and to a meta node.

check ─► Finding("disk", is_good, "73.0 GiB free, 412 MiB/s written and synced") … ; what is not good says what to do
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from sds_node.resource.daemon.config import Config, capacity_bytes, parse_meta_node, reserve_bytes
from sds_node.value_chain.client import ValueChain, ValueChainError

LEAST_FREE_BYTES: Final = 1 << 30
PROBE_BYTES: Final = 32 << 20
MOST_SKEW_S: Final = 60
"""A node and its order limits may differ by so much; a chain that makes blocks is not older."""
LINK_S: Final = 2.0
MOST_LINK_BYTES: Final = 16 << 20
CONNECT_S: Final = 5.0


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. ``is_fatal``: a node cannot run like this."""

    name: str
    is_good: bool
    text: str
    is_fatal: bool = False


async def check(config: Config, storage: Path, clock: Callable[[], float] = time.time) -> list[Finding]:
    """Look at everything; it takes a few seconds. ``storage`` is the folder of the shares, or where it will be."""
    found = await asyncio.to_thread(check_disk, config, storage)
    found += check_ports(config)
    found += await check_chain(config, clock)
    for text in config.network.meta_nodes[:4]:
        found.append(await check_meta(text))
    if not config.network.meta_nodes:
        found.append(Finding("meta node", False, "none is set: name one as stsds1…@host:port (network.meta_nodes)", is_fatal=True))
    return found


def check_disk(config: Config, storage: Path) -> list[Finding]:
    """Free space against the capacity, and how fast a synced write is."""
    folder = storage
    while not folder.is_dir():
        folder = folder.parent
    disk = os.statvfs(folder)
    free_bytes = disk.f_bavail * disk.f_frsize - reserve_bytes(config)
    wanted_bytes = capacity_bytes(config) or LEAST_FREE_BYTES
    text = f"{max(free_bytes, 0) >> 20:,} MiB free beside the reserve"
    if free_bytes < LEAST_FREE_BYTES:
        return [
            Finding("disk", False, f"{text}: expected at least {LEAST_FREE_BYTES >> 20} MiB; free some, or name another storage.path", is_fatal=True)
        ]
    if free_bytes < wanted_bytes:
        return [Finding("disk", False, f"{text}, less than the capacity of {wanted_bytes >> 20:,} MiB: lower storage.capacity")]
    probe = folder / f".probe-{secrets.token_hex(4)}"
    try:
        begun = time.perf_counter()
        with probe.open("xb") as file:
            file.write(secrets.token_bytes(1 << 20) * (PROBE_BYTES >> 20))
            file.flush()
            os.fsync(file.fileno())
        speed = PROBE_BYTES / max(time.perf_counter() - begun, 1e-6)
    except OSError as error:
        return [Finding("disk", False, f"{folder} cannot be written: {error.strerror}", is_fatal=True)]
    finally:
        with suppress(OSError):
            probe.unlink()
    is_fast = speed >= 10 << 20
    return [Finding("disk", is_fast, f"{text}; {speed / (1 << 20):.0f} MiB/s written and synced" + ("" if is_fast else ": a share takes long"))]


def check_ports(config: Config) -> list[Finding]:
    """Whether what the node will listen at is free."""
    found = []
    for name, setting, host, port in (
        ("port", "network.listen_port", config.network.listen_host, config.network.listen_port),
        ("monitor port", "monitor.port", config.monitor.host, config.monitor.port),
    ):
        if not port or (name == "port" and config.network.relay):
            continue
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                found.append(Finding(name, False, f"{host}:{port} cannot be listened at ({error.strerror}): change {setting}", is_fatal=True))
                continue
        found.append(Finding(name, True, f"{host}:{port} is free"))
    if config.network.listen_host in ("127.0.0.1", "::1") and not config.network.relay:
        found.append(Finding("reach", False, "the node listens for this machine alone: set network.listen_host 0.0.0.0, or network.relay true"))
    return found


async def check_chain(config: Config, clock: Callable[[], float]) -> list[Finding]:
    """Whether the chain's node answers, is of the right chain and up to date, how this machine's clock stands to it, and how fast it sends."""
    async with ValueChain(config.chain.rpc) as chain:
        try:
            status = await chain.status()
        except ValueChainError as error:
            return [Finding("chain", False, str(error), is_fatal=True)]
    if config.chain.id and status.chain_id != config.chain.id:
        return [Finding("chain", False, f"{config.chain.rpc} is of {status.chain_id[:60]!r}, expected {config.chain.id!r}", is_fatal=True)]
    found = [Finding("chain", not status.is_catching_up, f"{status.chain_id} at height {status.height}" + (", catching up" * status.is_catching_up))]
    skew_s = clock() - status.time_s
    is_right = -5 <= skew_s <= MOST_SKEW_S
    text = f"{abs(skew_s):.0f} s {'behind' if skew_s < 0 else 'after'} the last block"
    found.append(Finding("clock", is_right, text if is_right else f"{text}: set the clock (systemd-timesyncd, chrony), if the chain is not halted"))
    return [*found, await check_link(config.chain.rpc)]


async def check_link(rpc: str) -> Finding:
    """How fast the chain's node sends: the only peer with much to send before a node is registered."""
    got_bytes, begun = 0, time.perf_counter()
    try:
        async with httpx.AsyncClient(timeout=CONNECT_S) as client:
            while got_bytes < MOST_LINK_BYTES and time.perf_counter() - begun < LINK_S:
                async with client.stream("GET", f"{rpc.rstrip('/')}/genesis_chunked?chunk=0") as answer:
                    async for piece in answer.aiter_raw():
                        got_bytes += len(piece)
                        if got_bytes >= MOST_LINK_BYTES:
                            break
    except httpx.HTTPError as error:
        return Finding("bandwidth", False, f"the chain's node sends nothing ({type(error).__name__})")
    rate = got_bytes * 8 / max(time.perf_counter() - begun, 1e-6)
    is_fast = rate >= 10e6
    return Finding("bandwidth", is_fast, f"at least {rate / 1e6:.0f} Mbit/s from the chain's node" + ("" if is_fast else ": expected 10 or more"))


async def check_meta(text: str) -> Finding:
    """Whether a meta node's port answers, and in what time."""
    meta = parse_meta_node(text)
    begun = time.perf_counter()
    try:
        async with asyncio.timeout(CONNECT_S):
            _, writer = await asyncio.open_connection(meta.host, meta.port)
        writer.close()
    except TimeoutError:
        return Finding("meta node", False, f"{meta.host}:{meta.port} does not answer in {CONNECT_S:g} s")
    except OSError as error:
        return Finding("meta node", False, f"{meta.host}:{meta.port} does not answer: {error.strerror or error}")
    return Finding("meta node", True, f"{meta.host}:{meta.port} answers in {(time.perf_counter() - begun) * 1000:.0f} ms")
