"""A ledger made anew of what nodes keep and what the chain says, when those of all meta nodes are lost: the whole way.

    chain ─ standing ─► who is there ─► Listener ─ hellos ─► Gathering ─► Found ─┐
          └ blocks ─► bought ─────────────────────────────────────────────────────┴─► Maker ─► export FILE, share roots FILE.roots

Source: docs/meta-nodes.md, "When all ledgers are lost".
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final

from chain.crypto import address as bech32
from chain.metakeys import MetaKeys
from sds_node.meta.ledger.errors import Unavailable
from sds_node.meta.rebuild.balances import Bought, Standing, bought_until, standing
from sds_node.meta.rebuild.found import Found
from sds_node.meta.rebuild.gathering import Gathering, Told
from sds_node.meta.rebuild.listening import Listener
from sds_node.meta.rebuild.making import Check, Made, Maker
from sds_node.meta.relay.reading import ObservingError
from sds_node.value_chain.client import ValueChain

WAIT_S: Final = 300.0
"""Nodes that are without an answer say hello again within a minute."""


@dataclass(frozen=True)
class Settings:
    """What an operator decides. ``is_dry``: nothing is written. ``wait_s``: how long nodes are waited for. ``has_balances``: whether blocks are read for what
    wallets bought. ``keys``: ledger keys that meta nodes had before, ``nodes``: where nodes listen, both by address (20 bytes)."""

    wait_s: float = WAIT_S
    has_balances: bool = True
    is_dry: bool = False
    keys: Mapping[bytes, Sequence[bytes]] = field(default_factory=dict)
    nodes: Mapping[bytes, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Rebuilt:
    """What came of it."""

    made: Made
    standing: Standing
    bought: Bought
    told: Mapping[bytes, Told]
    silent: Sequence[bytes]
    """Nodes of the chain that did not come."""

    def summary(self) -> dict[str, Any]:
        """For people and programs: numbers of noz as text."""
        made, outcome = self.made, self.made.outcome
        return {
            "chain_id": self.standing.chain_id,
            "height": self.standing.height,
            "sequence": str(made.sequence),
            "name": made.name.hex(),
            "objects": outcome.objects,
            "files": made.files,
            "trash": made.trash,
            "shares": outcome.shares,
            "size_bytes": str(outcome.size_bytes),
            "short_objects": outcome.short,
            "left_out_objects": outcome.left_out,
            "ended_objects": made.ended,
            "escrow_noz": str(made.escrow_noz),
            "balances_noz": str(made.balances_noz),
            "owed_noz": str(made.owed_noz),
            "bought_from_height": self.bought.first_height,
            "nodes": len(self.told),
            "refused": sum(one.refused for one in self.told.values()),
            "nodes_in_part": [_name(node) for node, one in sorted(self.told.items()) if one.problem],
            "silent_nodes": [_name(node) for node in self.silent],
        }


def _name(node: bytes) -> str:
    return bech32.encode(node, bech32.NODE)


async def rebuild(
    chain: ValueChain,
    keys: MetaKeys,
    listens: tuple[str, int],
    file: Path,
    clock: Callable[[], float],
    settings: Settings,
    progress: Callable[[str, int], None] = lambda what, count: None,
    check: Check | None = None,
) -> Rebuilt:
    """Write the ledger into ``file`` and its share roots beside it. ``listens``: (host, port) at which nodes say hello to this meta node; ``clock`` tells Unix
    seconds; ``check`` may look at the ledger. Raises ValueChainError, ObservingError, LedgerError, RootsError, OSError."""
    roots = roots_of(file)
    for path in (file, roots):
        if path.exists() and not settings.is_dry:
            raise Unavailable(f"{path} is there already: name another file, or move it away; nothing was changed")
    at = await standing(chain)
    own = next((one for one in at.found.metas if bytes(one.address) == keys.address), None)
    if own is None or not own.is_active:
        raise ObservingError(f"{keys.network_address} is no active meta node of {at.chain_id}: resource nodes tell nobody else what they keep")
    held: dict[bytes, list[bytes]] = {address: [key] for address, key in at.keys.items()}
    for address, former in settings.keys.items():
        held.setdefault(address, []).extend(former)
    # Names that stay the same, under the lock of the meta node's home: what one that was killed has left is written over.
    found = Found(file.with_name(f".{file.name}.found"))
    try:
        nodes = {node.address: node.p2p_key for node in at.nodes}
        async with Listener(keys, at.chain_id, nodes, *listens, clock) as listener:
            for address, endpoint in settings.nodes.items():
                listener.know(address, endpoint)
            await listener.wait(len(nodes), settings.wait_s, progress)
            gathering = Gathering(listener.ask, found, at.chain_id, held, progress)
            await gathering.run([node for node in listener.heard if node in nodes])
        bought = await bought_until(chain, at.height, progress) if settings.has_balances else Bought()
        now_ms = max(int(clock() * 1_000), at.block_time_s * 1_000)
        maker = Maker(found, at, bought, gathering.highest_sequence, now_ms, file.parent, progress)
        made = await asyncio.to_thread(_write, maker, None if settings.is_dry else file, roots, check)
        silent = sorted(nodes.keys() - gathering.told.keys())
        return Rebuilt(made, at, bought, gathering.told, silent)
    finally:
        found.close()


def roots_of(file: Path) -> Path:
    """Where the share roots of an export are."""
    return file.with_name(file.name + ".roots")


def _write(maker: Maker, file: Path | None, roots: Path, check: Check | None) -> Made:
    outcome = maker.choose()
    if file is None:
        return maker.make(outcome, None, None, check)
    with _whole(file) as stream, _whole_file(roots) as part:
        return maker.make(outcome, stream.write, part, check)


@contextmanager
def _whole(path: Path) -> Iterator[BinaryIO]:
    """A file that is there whole or not at all."""
    with _whole_file(path) as part, part.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _whole_file(path: Path) -> Iterator[Path]:
    part = path.with_name(f".{path.name}.part")
    names = [part.with_name(part.name + suffix) for suffix in ("", "-wal", "-shm")]
    for one in names:
        one.unlink(missing_ok=True)
    try:
        yield part
        part.replace(path)
    finally:
        for one in names:
            one.unlink(missing_ok=True)
