"""SIGKILL of resource nodes and of the meta node at random moments while files are put, read, shared and deleted; afterwards nothing confirmed is lost.

put, get, share, delete ─┐                              every confirmed file reads back, every link opens, receipts are settled,
kill ─ restart ─ … ──────┴─► quiet, leases are over ─►  no lease is open, the ledger's invariants hold, the chain's reports match
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from chain.crypto import hd
from sds_node.client.errors import StorageError
from sds_node.client.storage import Storage
from sds_node.client.transfer import TransferFailed
from sds_node.meta.ledger.engine import snapshot
from sds_node.meta.rules.apply import rules
from sds_node.meta.rules.invariants import check
from sds_node.meta.rules.tables import LEASE
from sds_node.resource.receipts import open_receipts
from sds_node.wire.errors import WireError
from tests.support import free_ports
from tools.network import Network

KILLS = 100
NODES = 6
FILE_BYTES = (1, 20_000, 300_000, 2_000_000)
QUIET_S = 420.0
"""Leases live two minutes here, their limits no longer, and receipts may come two minutes later."""
PARAMS = {"settlement.longest_lease_s": 120}


@dataclass
class Seen:
    """What was confirmed to the user: content by name, and links."""

    files: dict[str, bytes] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    done: Counter[str] = field(default_factory=Counter)


def storage_kills(seed: int, kills: int = KILLS) -> dict[str, Any]:
    """``kills`` kills of a network of one meta node and six resource nodes. Raises SystemExit with what was lost."""
    choose = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        network = Network(Path(folder) / "net", ports=free_ports(80), nodes=NODES, params=PARAMS)
        try:
            network.start()
            seen = asyncio.run(_under_load(network, choose, kills))
            figures = asyncio.run(_look_again(network, seen))
            network.stop()
            return {"kills": kills, **figures, **_at_rest(network)}
        finally:
            network.close()


def _storage(network: Network, name: str) -> Storage:
    account = next(one for one in network.chain_info["accounts"] if one["name"] == name)
    return Storage(hd.derive(account["mnemonic"], account["hd_path"], account["key_type"]), network.net["chain_id"], [network.meta])


async def _under_load(network: Network, choose: random.Random, kills: int) -> Seen:
    seen = Seen()
    users = [asyncio.create_task(_use(network, f"user{number}", choose.randrange(1 << 30), seen)) for number in range(3)]
    try:
        for _ in range(kills):
            victim = choose.choice(network.names)
            await asyncio.sleep(choose.uniform(0.2, 4.0))
            await asyncio.to_thread(network.kill, victim)
            await asyncio.sleep(choose.uniform(0.0, 2.0))
            network.restart(victim)
            seen.done[f"kills of {'the meta node' if victim.startswith('meta') else 'resource nodes'}"] += 1
    finally:
        for user in users:
            user.cancel()
        await asyncio.gather(*users, return_exceptions=True)
    return seen


async def _use(network: Network, prefix: str, seed: int, seen: Seen) -> None:
    """Put, read, share and delete until cancelled; what fails under fire is tried again with something else."""
    choose, number = random.Random(seed), 0
    while True:
        with contextlib.suppress(StorageError, TransferFailed, WireError, OSError, TimeoutError):
            async with _storage(network, "alice") as storage:
                while True:
                    number += 1
                    name = f"{prefix}-{number}.bin"
                    data = choose.randbytes(choose.choice(FILE_BYTES))
                    await storage.put(data, name)
                    seen.files[name] = sha256(data).digest()
                    seen.done["puts"] += 1
                    mine = [one for one in seen.files if one.startswith(prefix)]
                    await _check(storage, choose.choice(mine), seen)
                    seen.done["reads"] += 1
                    if number % 5 == 0:
                        shared = choose.choice(mine)
                        seen.links[(await storage.share(shared)).link] = shared
                        seen.done["shares"] += 1
                    if number % 7 == 0:
                        gone = next(one for one in mine if one not in seen.links.values())
                        digest = seen.files.pop(gone)
                        try:
                            await storage.remove(gone)
                            seen.done["deletes"] += 1
                        except BaseException:
                            # It may be gone or not: either is right, so nothing is expected of it.
                            del digest
                            raise
        await asyncio.sleep(0.5)


async def _check(storage: Storage, name: str, seen: Seen) -> None:
    found = sha256()
    async for piece in storage.read(name):
        found.update(piece)
    if found.digest() != seen.files[name]:
        raise SystemExit(f"{name} reads back with other bytes than were stored")


async def _look_again(network: Network, seen: Seen) -> dict[str, Any]:
    """All confirmed files and links, read once more; then wait until leases are over and receipts settled."""
    async with _storage(network, "alice") as storage:
        for name in sorted(seen.files):
            await _check(storage, name, seen)
    with tempfile.TemporaryDirectory() as folder:
        async with _storage(network, "bob") as storage:
            for link, name in seen.links.items():
                target = Path(folder) / "shared"
                await storage.get_shared(link, target)
                if sha256(target.read_bytes()).digest() != seen.files[name]:
                    raise SystemExit(f"the link to {name} leads to other bytes")
    until = asyncio.get_running_loop().time() + QUIET_S
    while True:
        told = [json.loads(network.status_text(name)) for name in network.names if name.startswith("node")]
        async with _storage(network, "alice") as storage:
            leases = (await storage.balance()).open_leases
        pending = sum(one["pending_receipts"] for one in told)
        if not pending and not leases:
            break
        if asyncio.get_running_loop().time() > until:
            raise SystemExit(f"after {QUIET_S:g} s {pending} receipts are not settled and {leases} leases are open")
        await asyncio.sleep(5)
    return {
        **{name.replace(" ", "_"): count for name, count in sorted(seen.done.items())},
        "files": len(seen.files),
        "links": len(seen.links),
        "lost": 0,
    }


def _at_rest(network: Network) -> dict[str, Any]:
    """What the files of the stopped nodes say."""
    meta = network.folder.path / "meta0"
    with snapshot(f"sqlite:///{meta / 'data' / 'ledger.db'}", rules(network.net["chain_id"])) as view:
        check(view)
        leases = len(view.scan(LEASE, limit=100))
        sequence = view.head.sequence
    if leases:
        raise SystemExit(f"{leases} leases are open at the end")
    refused = 0
    for one in network.net["resource_nodes"]:
        home = Path(one["home"])
        receipts = open_receipts(home / "receipts.db")
        try:
            if found := list(receipts.verify()):
                raise SystemExit(f"{one['name']}: {found[0]}")
        finally:
            receipts.close()
        told = home / "refused.jsonl"
        refused += len(told.read_text().splitlines()) if told.exists() else 0
    return {"ledger_sequence": sequence, "receipts_refused": refused}
