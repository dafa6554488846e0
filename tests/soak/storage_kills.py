"""SIGKILL of resource nodes and of the meta node at random moments while files are put, read, shared and deleted; afterwards nothing confirmed is lost.

users: put, get, share, delete ─┐                        every confirmed file reads back, every link opens, what was removed stays so,
bob: uploads through gateways ──┼─► quiet, all leases ─► every epoch holds against its receipts; then all stop, and their files say the same
kill ─ look ─ restart ─ … ──────┘   are settled          as users were told, to the noz and the byte (storage_at_rest)
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
import structlog

from chain.crypto import address as bech32
from chain.crypto import hd
from chain.crypto.keys import PrivateKey
from sds_node.cli.spd_epochs import check as check_epoch
from sds_node.cli.spd_epochs import meta_peer
from sds_node.client import get, put
from sds_node.client.errors import NotFound, StorageError
from sds_node.client.meta import parse_meta
from sds_node.client.storage import Storage
from sds_node.client.transfer import TransferFailed
from sds_node.epoch_data import EpochDataError
from sds_node.hashes import file_hash
from sds_node.value_chain import views
from sds_node.value_chain.client import ValueChain, ValueChainError
from sds_node.wire.errors import WireError
from sds_node.wire.stream import Stream
from tests.sds_node.gateway.memory import Site
from tests.soak.storage_at_rest import Lost, NodeHome, Told, at_rest, head_of, receipts_of, went_back
from tests.support import free_ports
from tools.network import Network, NetworkError
from tools.nodes import last_lines

KILLS = 100
NODES = 6
BOB = "bob"
OZONE = "20stos"
USERS = 3
FILE_BYTES = (1, 20_000, 300_000, 2_000_000)
LEGACY_BYTES = 30_000
META_PART = 0.3
"""Of the kills, at least, are the meta node's."""
RECOVERED_PART = 0.75
"""Of the rounds of kills so many are followed by none until the network is in use again; after the others nodes are killed while they start."""
LEASE_S = 120
QUIET_S = LEASE_S + 600.0 + 120.0
"""A lease is over by then: it lives two minutes here, and ten minutes after its end the ledger settles it by itself, at a tick."""
PARAMS = {"settlement.longest_lease_s": LEASE_S}
UNDER_FIRE = (StorageError, TransferFailed, WireError, OSError, TimeoutError)
UPLOAD_S = 30.0
BACK_S = 120.0
EARLIER = 4
"""So many epochs before one are not mature yet, and are compared with it."""
NOTHING: Any = None
CLOCK: Any = time.time
log = structlog.get_logger("soak")


@dataclass
class Seen:
    """The users' keys, and what was confirmed to them: files by name, links, what is gone; and what else they were told."""

    wallets: dict[str, PrivateKey] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    removed: set[str] = field(default_factory=set)
    uploads: dict[str, bytes] = field(default_factory=dict)
    """bob's, by file hash."""
    done: Counter[str] = field(default_factory=Counter)
    told: Told = field(default_factory=Told)
    epochs: set[int] = field(default_factory=set)


def storage_kills(seed: int, kills: int = KILLS) -> dict[str, Any]:
    """``kills`` kills of a network of one meta node and six resource nodes. Raises Lost with what was lost; the network's folder is kept then."""
    folder = Path(tempfile.mkdtemp(prefix="storage-kills-"))
    network = Network(folder / "net", ports=free_ports(80), nodes=NODES, params=PARAMS)
    try:
        network.start()
        seen, choose = Seen(), random.Random(seed)
        for number in range(USERS):
            seen.wallets[f"user{number}"] = made = PrivateKey(choose.randbytes(32), "eth_secp256k1")
            _prepay(network, bech32.encode(made.public_key.address))
        bob = next(one for one in network.chain_info["accounts"] if one["name"] == BOB)
        seen.wallets[BOB] = hd.derive(bob["mnemonic"], bob["hd_path"], bob["key_type"])
        figures = asyncio.run(_run(network, choose, kills, seen))
        network.stop()
        figures |= _at_rest(network, seen.told)
    except BaseException:
        print(f"storage-kills: the network is kept in {folder}", flush=True)
        raise
    finally:
        network.close()
    shutil.rmtree(folder)
    return {"kills": kills, **figures, "lost": 0}


def _at_rest(network: Network, told: Told) -> dict[str, Any]:
    nodes = [NodeHome(one["name"], bech32.decode(one["node"], bech32.NODE), Path(one["home"])) for one in network.net["resource_nodes"]]
    folder = network.folder.path
    return at_rest(network.net["chain_id"], folder / "meta0" / "data" / "ledger.db", nodes, folder / "again.db", told)


async def _run(network: Network, choose: random.Random, kills: int, seen: Seen) -> dict[str, Any]:
    seen.told.before_noz = await _balances(network, seen)
    watching = asyncio.create_task(_watch_epochs(network, seen))
    begun = time.monotonic()
    try:
        with listening(seen.told):
            await _under_load(network, choose, kills, seen)
            killed = time.monotonic()
            await _look_again(network, seen)
            await _settled(network, seen, watching)
        quiet = time.monotonic()
    finally:
        watching.cancel()
        ended = (await asyncio.gather(watching, return_exceptions=True))[0]
    if isinstance(ended, Exception):
        raise ended
    seen.told.after_noz = await _balances(network, seen)
    return {
        **{name.replace(" ", "_"): count for name, count in sorted(seen.done.items())},
        "files": len(seen.files),
        "links": len(seen.links),
        "uploads": len(seen.uploads),
        "epochs_checked": len(seen.epochs),
        "epochs_not_checked": max(seen.epochs, default=0) - len(seen.epochs),
        "killed_in_s": round(killed - begun),
        "settled_in_s": round(quiet - killed),
    }


# --- who uses it -----------------------------------------------------------------------------------------------------------------------


def _prepay(network: Network, wallet: str) -> None:
    command = [sys.executable, "-m", "sds_node.cli.ppd", "prepay", OZONE, "--beneficiary", wallet, "--home", str(network.folder.path / "alice")]
    done = subprocess.run(command, capture_output=True, text=True, env=network.environment)
    if done.returncode:
        raise NetworkError(f"ppd prepay: {done.stderr}")


def _storage(network: Network, key: PrivateKey) -> Storage:
    return Storage(key, network.net["chain_id"], [network.meta])


async def _balances(network: Network, seen: Seen) -> dict[bytes, int]:
    """Once the meta node knows what everyone bought."""
    found = {}
    for key in seen.wallets.values():
        async with _storage(network, key) as storage:
            until = time.monotonic() + BACK_S
            while not (noz := (await storage.balance()).paid_noz):
                if time.monotonic() > until:
                    raise Lost(f"{storage.wallet} bought ozone {BACK_S:g} s ago and has none")
                await asyncio.sleep(1)
            found[key.public_key.address] = noz
    return found


@contextlib.contextmanager
def listening(told: Told) -> Iterator[None]:
    """Remember what nodes acknowledge to clients of this process: a put's final receipt with its StoreAck, a get's with the stream's success."""
    put_share, confirmed = put.put_share, get._Debt.confirmed

    async def stored(session: Any, place: Any, share: Any, data: Any, settings: Any = None) -> Any:
        ack = await put_share(session, place, share, data, settings)
        told.acknowledged[bytes(place.limit.serial)] = len(memoryview(data).cast("B"))
        return ack

    async def succeeded(debt: get._Debt, stream: Stream) -> None:
        await confirmed(debt, stream)
        told.acknowledged[bytes(debt.receipts.limit.serial)] = debt.receipts.moved.bytes

    with mock.patch.object(put, "put_share", stored), mock.patch.object(get._Debt, "confirmed", succeeded):
        yield


async def _use(network: Network, prefix: str, seed: int, seen: Seen) -> None:
    """Put, read, share and delete until cancelled; what fails under fire is tried again with something else."""
    choose, number = random.Random(seed), 0
    while True:
        try:
            async with _storage(network, seen.wallets[prefix]) as storage:
                while True:
                    number += 1
                    await _use_once(storage, prefix, number, choose, seen)
        except UNDER_FIRE as error:
            seen.done["failures under fire"] += 1
            log.info("a user tries again", user=prefix, why=f"{type(error).__name__}: {error!s:.300}")
        await asyncio.sleep(0.5)


async def _use_once(storage: Storage, prefix: str, number: int, choose: random.Random, seen: Seen) -> None:
    name = f"{prefix}-{number}.bin"
    data = choose.randbytes(choose.choice(FILE_BYTES))
    stored = await storage.put(data, name)
    seen.files[name] = sha256(data).digest()
    seen.told.charged_noz[bytes.fromhex(stored.object_id)] = stored.charged_noz
    seen.done["puts"] += 1
    mine = [one for one in seen.files if one.startswith(f"{prefix}-")]
    await _check(storage, choose.choice(mine), seen.files)
    seen.done["reads"] += 1
    if number % 5 == 0:
        shared = choose.choice(mine)
        seen.links[(await storage.share(shared)).link] = shared
        seen.done["shares"] += 1
    unshared = [one for one in mine if one not in seen.links.values()]
    if number % 7 == 0 and unshared:
        # When the answer is lost it may be gone or not: either is right, so nothing is expected of it any more.
        gone = unshared[0]
        del seen.files[gone]
        await storage.remove(gone)
        seen.removed.add(gone)
        seen.done["deletes"] += 1


async def _check(storage: Storage, name: str, files: dict[str, bytes]) -> None:
    found = sha256()
    async for piece in storage.read(name):
        found.update(piece)
    if found.digest() != files[name]:
        raise Lost(f"{name} reads back with other bytes than were stored")


async def _upload(network: Network, seed: int, seen: Seen) -> None:
    """As clients of the original do, through whatever gateway answers, until cancelled."""
    choose, key = random.Random(seed), seen.wallets[BOB]
    while True:
        gateway = choose.choice(network.net["resource_nodes"])["gateway"]
        data = choose.randbytes(choose.randrange(1, LEGACY_BYTES))
        # Refusals are answers that lack what a success has; they are asserted on or missed there.
        with contextlib.suppress(httpx.HTTPError, AssertionError, KeyError, TimeoutError):
            async with asyncio.timeout(UPLOAD_S), httpx.AsyncClient(base_url=gateway, timeout=10, trust_env=False) as http:
                await _upload_once(Site(NOTHING, NOTHING, CLOCK, http, 0), key, data, seen)
        await asyncio.sleep(choose.uniform(0.5, 3.0))


async def _upload_once(site: Site, key: PrivateKey, data: bytes, seen: Seen) -> None:
    address, wanted = key.public_key.address, file_hash(data)
    before = await site.sequence(key)
    seen.told.sequences[address] = max(seen.told.sequences.get(address, 0), int(before.removeprefix("SN:")))
    if int(before.removeprefix("SN:")) < seen.told.sequences[address]:
        raise Lost(f"the wallet was told the sequence number {seen.told.sequences[address]}, and now {before}")
    if (await site.send(data, f"{wanted}.bin", key))["return"] != "0":
        return
    # Else the gateway waits for it before it stores.
    await site.call("user_uploadSign", **await site.upload_params(wanted, key))
    status = 1
    while status == 1:
        await asyncio.sleep(0.5)
        status = (await site.call("user_getFileStatus", **site.file_params(wanted, key)))["file_upload_state"]
    if status == 3:
        seen.uploads[wanted] = sha256(data).digest()
        seen.done["uploads"] += 1


# --- who kills -------------------------------------------------------------------------------------------------------------------------


def _nobody_ended(network: Network) -> None:
    """Raises Lost when a node ended that nobody killed."""
    for name in network.ended():
        raise Lost(f"{name} ended by itself:\n{last_lines(network.log(name))}")


async def _under_load(network: Network, choose: random.Random, kills: int, seen: Seen) -> None:
    users = [asyncio.create_task(_use(network, name, choose.randrange(1 << 30), seen)) for name in seen.wallets if name != BOB]
    users.append(asyncio.create_task(_upload(network, choose.randrange(1 << 30), seen)))
    nodes = [name for name in network.names if not name.startswith("meta")]
    try:
        left = kills
        while left:
            victims = choose.sample(nodes, min(choose.choice((0, 1, 1, 1, 2)), left))
            if len(victims) < left and (not victims or choose.random() < META_PART):
                victims.append("meta0")
            await asyncio.sleep(choose.uniform(0.2, 4.0))
            _nobody_ended(network)
            for victim in victims:
                await asyncio.to_thread(network.kill, victim)
                await asyncio.to_thread(_look, network, victim, seen.told)
                seen.done[f"kills of {'the meta node' if victim.startswith('meta') else 'resource nodes'}"] += 1
            await asyncio.sleep(choose.uniform(0.0, 2.0))
            for victim in victims:
                network.restart(victim)
            left -= len(victims)
            if choose.random() < RECOVERED_PART:
                await _used_again(network, seen)
            for user in users:
                if user.done():
                    user.result()
    finally:
        for user in users:
            user.cancel()
        ended = await asyncio.gather(*users, return_exceptions=True)
    for error in ended:
        if isinstance(error, Exception):
            raise error
    if seen.done["puts"] < kills or (kills >= KILLS // 5 and not seen.uploads):
        raise Lost(f"expected a network that is used between {kills} kills, got {dict(seen.done)}")


async def _used_again(network: Network, seen: Seen) -> None:
    """Somebody stored or read something since the restart: else a slow machine kills nodes that never came up. Raises Lost when nobody can."""
    before, until = seen.done["puts"] + seen.done["reads"], time.monotonic() + BACK_S
    while seen.done["puts"] + seen.done["reads"] == before:
        _nobody_ended(network)
        if time.monotonic() > until:
            raise Lost(f"{BACK_S:g} s after nodes were started again nobody could store or read anything:\n{last_lines(network.log('meta0'))}")
        await asyncio.sleep(0.1)


def _look(network: Network, victim: str, told: Told) -> None:
    """What a killed node has on its disk: later it has at least that."""
    home = network.folder.path / victim
    if victim.startswith("meta"):
        told.heads.append(head_of(home, network.net["chain_id"]))
        return
    found = receipts_of(home)
    went_back(victim, told.receipts.get(victim, {}), found)
    told.receipts[victim] = found


# --- afterwards ------------------------------------------------------------------------------------------------------------------------


async def _look_again(network: Network, seen: Seen) -> None:
    """All confirmed files and links, read once more, and what was removed."""
    await _all_at_work(network)
    for user, key in seen.wallets.items():
        async with _storage(network, key) as storage:
            for name in sorted(seen.files):
                if name.startswith(f"{user}-"):
                    await _check(storage, name, seen.files)
            for name in [one for one in seen.removed if one.startswith(f"{user}-")]:
                with contextlib.suppress(NotFound):
                    await storage.stat(name)
                    raise Lost(f"{name} was removed, and is there again")
    with tempfile.TemporaryDirectory() as folder:
        async with _storage(network, seen.wallets[BOB]) as storage:
            for link, name in seen.links.items():
                target = Path(folder) / "shared"
                await storage.get_shared(link, target)
                if sha256(target.read_bytes()).digest() != seen.files[name]:
                    raise Lost(f"the link to {name} leads to other bytes")
            for name in seen.uploads:
                await _check(storage, name, seen.uploads)


async def _all_at_work(network: Network) -> None:
    until = time.monotonic() + BACK_S
    while True:
        _nobody_ended(network)
        # Its status has an error while it starts.
        with contextlib.suppress(NetworkError):
            if json.loads(await asyncio.to_thread(network.status_text, "meta0"))["eligible_nodes"] == NODES:
                return
        if time.monotonic() > until:
            raise Lost(f"{BACK_S:g} s after the last kill the meta node does not know all nodes:\n{last_lines(network.log('meta0'))}")
        await asyncio.sleep(1)


async def _settled(network: Network, seen: Seen, watching: asyncio.Task[None]) -> None:
    """Wait until no lease is open and no receipt waits."""
    until = time.monotonic() + QUIET_S
    while True:
        _nobody_ended(network)
        if watching.done():
            watching.result()
        leases = 0
        for key in seen.wallets.values():
            async with _storage(network, key) as storage:
                leases += (await storage.balance()).open_leases
        pending = {}
        if not leases:
            told = {name: json.loads(await asyncio.to_thread(network.status_text, name)) for name in network.names if name.startswith("node")}
            pending = {name: one["pending_receipts"] for name, one in told.items() if one["pending_receipts"]}
            if not pending:
                return
        if time.monotonic() > until:
            raise Lost(f"after {QUIET_S:g} s {leases} leases are open and receipts wait: {pending}")
        await asyncio.sleep(5)


async def _watch_epochs(network: Network, seen: Seen) -> None:
    """Every epoch that is reported is checked as anyone can, beside those before it: what is paid twice or to nobody shows. Until cancelled."""
    where = parse_meta(network.meta)
    while True:
        # The meta node may just be dead; epochs are kept until they are mature, and the next round asks again.
        with contextlib.suppress(EpochDataError, ValueChainError, WireError, TimeoutError):
            async with ValueChain(network.net["rpc"]) as chain, meta_peer(network.net["chain_id"], where) as peer:
                kept = await views.committed_epochs(chain)
                for one in kept:
                    if one.epoch in seen.epochs:
                        continue
                    checked = await check_epoch(chain, int(one.epoch), None, peer, EARLIER)
                    if checked.findings.found or checked.epoch.is_void:
                        raise Lost(f"epoch {one.epoch} does not hold: {checked.told(None)[1]}")
                    before = [int(other.epoch) for other in kept if other.epoch < one.epoch and other.status == 1]
                    if checked.earlier == before[-EARLIER:]:
                        seen.epochs.add(int(one.epoch))
        await asyncio.sleep(10)
