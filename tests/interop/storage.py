"""A storage network of processes for clients that are not ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from chain.comet import ensure_comet
from tests.support import free_ports
from tools.network import Network


@contextmanager
def storage_network(folder: Path, nodes: int) -> Iterator[Network]:
    """One meta node and so many resource nodes, at work; they end with the block."""
    ensure_comet()
    made = Network(folder / "net", ports=free_ports(80), nodes=nodes)
    try:
        made.start()
        yield made
    finally:
        made.close()


def serves(url: str) -> bool:
    """Whether something answers there."""
    try:
        return httpx.get(url, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False
