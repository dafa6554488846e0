"""A storage network of full size, twelve resource nodes and four meta nodes in one process, and what can happen to it while two users put and read.

    users: put, read ─────────┐  after each: every segment has its shares again, on disks; every confirmed file reads back; the ledger's rules hold;
    pairs killed, disks wiped ┤  all four ledgers are one
    share files damaged ──────┤
    meta nodes killed ────────┼─► quiet, all leases over ─► all stop ─► log, books of each meta node and receipts of each node say the same, to the noz
    the chain away, a cut ────┘

Periods are short: a node is lost after LOST_S, a store is scrubbed all the time. Sources: storage-protocol.md 3.2 and 3.6; docs/adr/0010.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Final
from unittest import mock

import structlog

from sds_node.client.session import open_session
from sds_node.client.storage import Storage
from sds_node.meta.daemon import node as meta_daemon
from sds_node.meta.ledger.engine import ReadView
from sds_node.meta.repair import Settings as RepairSettings
from sds_node.meta.repair.health import Read, Standing, read_segments
from sds_node.meta.rules import tables
from sds_node.meta.rules.invariants import check, walk
from sds_node.meta.rules.objects import scheme
from sds_node.meta.rules.places import nodes_of
from sds_node.meta.rules.wire import Operation
from sds_node.p2p import address_of
from sds_node.resource.daemon import upkeep
from sds_node.resource.store import Kept, State
from sds_node.testing.chain import CHAIN_ID
from sds_node.testing.network import QUICK, RunningResource, StorageNetwork, key_of
from tests.soak.storage_at_rest import Lost, NodeHome, Paid, Told, receipts_of
from tests.soak.storage_faults_books import Rest, at_rest
from tests.soak.storage_kills import UNDER_FIRE, listening

PAIRS: Final = 20
DAMAGED_PAIRS: Final = 5
NODES: Final = 12
METAS: Final = 4
USERS: Final = ("alice", "bob")
PAYER: Final = "carol"
"""Whose unused reservation fills the common repair fund."""
OZONE_WEI: Final = 10**21
FILE_BYTES: Final = (1_100_000, 6_000, 60_000)
"""5 of 10 with twelve nodes, and twice three copies. Each user puts one of each between two faults."""
LOST_S: Final = 8
LEASE_S: Final = 120
CUT_S: Final = 20.0
"""Longer than a meta node is taken to be there after its last greeting."""
BLOCKS: Final = 200
DAMAGED_PART: Final = 0.7
"""Of the share files of a node whose disk rots."""
WHOLE_S: Final = 300.0
BACK_S: Final = 180.0
USE_S: Final = 60.0
READS_AT_ONCE: Final = 4
SPED_S: Final = 20.0
"""While the last leases are waited for, the clock goes so much further each second."""
REPAIR: Final[dict[str, Any]] = {
    "look_s": 0.5, "retry_s": 1.0, "retry_most_s": 4.0, "others_s": 40.0, "batch_s": 0.2, "stall_s": 10.0, "damage_s": 2.0, "compare_pause_s": 0.0,
}  # fmt: skip
SCRUB_S: Final = 1.0
log = structlog.get_logger("soak")


class Jumping:
    """The machine's time, and what is added to it."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead_s


@dataclass
class Seen:
    """What was confirmed to users, and what was on disks that are gone."""

    files: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    """Name → user, SHA-256."""
    done: Counter[str] = field(default_factory=Counter)
    told: Told = field(default_factory=Told)
    gone: list[dict[bytes, Paid]] = field(default_factory=list)
    bad: set[bytes] = field(default_factory=set)
    """Serials of copies that were damaged."""


@contextlib.contextmanager
def short_periods() -> Iterator[None]:
    """Repair and scrubs that are looked for all the time."""
    quick = partial(RepairSettings, **REPAIR)
    with mock.patch.object(meta_daemon, "RepairSettings", quick), mock.patch.object(upkeep, "STEP_S", SCRUB_S):
        yield


@contextlib.asynccontextmanager
async def full_size(folder: Path, seed: int) -> AsyncIterator[Faults]:
    """A network of full size whose users are at work. Call ``Faults.end`` last; when this is left, all have stopped: then ``Faults.rest`` is looked through."""
    clock, seen = Jumping(), Seen()
    with short_periods(), listening(seen.told):
        async with StorageNetwork.started(
            folder,
            nodes=NODES,
            metas=METAS,
            wallets=(*USERS, PAYER),
            params={"settlement.longest_lease_s": LEASE_S},
            clock=clock,
            times=replace(QUICK, lost_s=LOST_S),
        ) as network:
            made = Faults(network, clock, random.Random(seed), seen)
            try:
                await made.begin()
                yield made
            finally:
                await made.quiet()


class Faults:
    """What happens to a network, one after the other. Each method returns when everything is as it should be again; what it gives is how many seconds that
    took. Raises Lost for what was lost, TimeoutError for what does not come."""

    def __init__(self, network: StorageNetwork, clock: Jumping, choose: random.Random, seen: Seen) -> None:
        self.network, self.clock, self.choose, self.seen = network, clock, choose, seen
        self._puts: dict[str, list[int]] = {user: [] for user in USERS}
        """Sizes of files that each user is still to put."""
        self._storages: dict[str, Storage] = {}
        self._users: list[asyncio.Task[None]] = []

    # --- users ----------------------------------------------------------------------------------------------------------------------------

    async def begin(self) -> None:
        """Ozone for all, noz for repair, the first files."""
        for name in (*USERS, PAYER):
            self.seen.told.before_noz[key_of(name).public_key.address] = await self.network.buy_ozone(name, OZONE_WEI)
        await self._fund()
        self._users = [asyncio.create_task(self._use(name), name=name) for name in USERS]
        await self.used()

    async def _fund(self) -> None:
        """The payer reserves half of what it has and uses nothing of it: a tenth is the common repair fund's."""
        key, operation = key_of(PAYER), Operation()
        noz = self.seen.told.before_noz[key.public_key.address] // 2
        session = open_session(key, CHAIN_ID, max_noz=noz, actions=[1, 2], clock=self.clock)
        lease = operation.take_lease
        lease.wallet, lease.session_pubkey, lease.fund, lease.noz, lease.seconds = (
            key.public_key.address,
            session.public_key,
            tables.PAID,
            noz,
            LEASE_S,
        )
        lease.grant.CopyFrom(session.grant)
        commit = Operation().commit
        commit.lease_id, commit.unused_noz = (await self.network.meta.proposer.propose("take_lease", lease)).result, noz
        await self.network.meta.proposer.propose("commit", commit)

    async def used(self) -> None:
        """Each user puts a file of each size, and reads."""
        for sizes in self._puts.values():
            sizes.extend(FILE_BYTES)
        await self.until(self._is_all_put, "users have put their files", BACK_S)

    async def _is_all_put(self) -> bool:
        for user in self._users:
            if user.done():
                user.result()
        return not any(self._puts.values())

    async def _use(self, user: str) -> None:
        """Put what is to be put, else read, until cancelled; what fails under fire is tried again with something else."""
        choose = random.Random(self.choose.randrange(1 << 30))
        while True:
            try:
                async with self.network.storage(user) as storage:
                    self._storages[user] = storage
                    try:
                        while True:
                            async with asyncio.timeout(USE_S):
                                await self._use_once(storage, user, choose)
                            await asyncio.sleep(choose.uniform(0.2, 1.0))
                    finally:
                        self.network.gate.forget(storage._client.node)
                        del self._storages[user]
            except UNDER_FIRE as error:
                self.seen.done["failures under fire"] += 1
                log.info("a user tries again", user=user, why=f"{type(error).__name__}: {error!s:.300}")
            await asyncio.sleep(0.5)

    async def _use_once(self, storage: Storage, user: str, choose: random.Random) -> None:
        sizes = self._puts[user]
        if sizes:
            data, name = choose.randbytes(sizes[0]), f"{user}-{choose.randrange(1 << 48):x}.bin"
            stored = await storage.put(data, name)
            self.seen.files[name] = user, sha256(data).digest()
            self.seen.told.charged_noz[bytes.fromhex(stored.object_id)] = stored.charged_noz
            self.seen.done["puts"] += 1
            sizes.pop(0)
        elif mine := sorted(name for name, (owner, _) in self.seen.files.items() if owner == user):
            await self._check(storage, choose.choice(mine))
            self.seen.done["reads"] += 1

    async def _check(self, storage: Storage, name: str) -> None:
        found = sha256()
        async for piece in storage.read(name):
            found.update(piece)
        if found.digest() != self.seen.files[name][1]:
            raise Lost(f"{name} reads back with other bytes than were stored")

    async def quiet(self) -> None:
        """Users put and read no more."""
        for user in self._users:
            user.cancel()
        ended = await asyncio.gather(*self._users, return_exceptions=True)
        self._users.clear()
        for error in ended:
            if isinstance(error, Exception):
                raise error

    # --- what is looked at ----------------------------------------------------------------------------------------------------------------

    async def until(self, is_so: Callable[[], Awaitable[bool]], what: str, timeout_s: float) -> None:
        """Wait until something is so. Raises TimeoutError with what was waited for."""
        end = time.monotonic() + timeout_s
        while not await is_so():
            if time.monotonic() > end:
                told = {one.number: (one.node.problems(), one.node.repair.status()) for one in self.network.metas if one.node is not None}
                raise TimeoutError(f"waited {timeout_s:g} s until {what}; meta nodes say {told}")
            for meta in self.network.metas:
                if meta.node is not None and meta.node.failed is not None and meta.node.failed.done():
                    meta.node.failed.result()
            await asyncio.sleep(0.3)

    async def short(self) -> list[int]:
        """Numbers of segments that have fewer good copies, on the disks of nodes that run, than those from which they are repaired."""
        meta, good = self.network.meta, dict[int, set[bytes]]()
        for one in self.network.resources:
            known = meta.registry.row_of(address_of(bytes(one.key.verify_key)))
            if one.node is not None and known is not None:
                copies = await asyncio.to_thread(list, one.node.store.inventory())
                whole = {
                    bytes(copy.serial) for copy in copies if copy.state in (State.PENDING, State.CONFIRMED) and copy.kept is not Kept.DAMAGED
                }  # fmt: skip
                good[known.number] = whole - self.seen.bad
        found: list[Read] = await meta.ledger.query(_stored)
        short = []
        for segment, row, serials in found:
            count = sum(serials[index] in good.get(holder, ()) for index, holder in enumerate(nodes_of(segment.nodes)))
            if count < scheme(row).repair_below:
                short.append(segment.number)
        return short

    async def whole(self) -> None:
        """Wait until every segment has its shares again."""

        async def is_whole() -> bool:
            return not await self.short()

        try:
            await self.until(is_whole, "every segment has its shares", WHOLE_S)
        except TimeoutError as error:
            raise TimeoutError(f"segments {await self.short()}: {error}") from None

    async def all_there(self) -> None:
        """Wait until every meta node may use every resource node, and all ledgers are one."""
        network = self.network

        async def are_there() -> bool:
            return all(one.node is not None and one.node.registry.count() == NODES for one in network.metas)

        await self.until(are_there, "all nodes are eligible", BACK_S)
        await self.one_ledger()

    async def one_ledger(self) -> None:
        """Wait until all meta nodes that run have the same ledger; every rule holds in it."""
        running = [one.node for one in self.network.metas if one.node is not None]

        async def is_one() -> bool:
            return len({(node.ledger.head.sequence, node.ledger.head.app_hash) for node in running}) == 1

        await self.until(is_one, "all ledgers are one", BACK_S)
        await self.network.meta.ledger.query(check)

    async def look(self) -> None:
        """Every confirmed file is read."""
        gate = asyncio.Semaphore(READS_AT_ONCE)

        async def one(storage: Storage, name: str) -> None:
            async with gate:
                for left in (2, 1, 0):
                    try:
                        await self._check(storage, name)
                    except UNDER_FIRE as error:
                        if not left:
                            raise Lost(f"{name} was confirmed and cannot be read: {error}") from error
                        await asyncio.sleep(1)
                    else:
                        return

        for user in USERS:
            async with self.network.storage(user) as storage:
                await asyncio.gather(*(one(storage, name) for name, (owner, _) in sorted(self.seen.files.items()) if owner == user))

    # --- what happens ---------------------------------------------------------------------------------------------------------------------

    async def _under_load(self) -> None:
        """A moment in which files are on their way."""
        for sizes in self._puts.values():
            sizes.extend(FILE_BYTES)
        await asyncio.sleep(self.choose.uniform(0.0, 2.0))

    async def pair(self) -> float:
        """Two nodes are killed, and their disks are lost: of one the shares, of the other one everything. Both come back when all is whole again, empty."""
        two = self.choose.sample(self.network.resources, 2)
        await self._under_load()
        begun = time.monotonic()
        await asyncio.gather(*(self.network.kill_resource(one) for one in two))
        self.seen.gone.append(receipts_of(two[1].home.root))
        self.network.wipe(two[0])
        self.network.wipe(two[1], all_of_it=True)
        await self.until(partial(self._are_lost, two), "meta nodes take both nodes as lost", BACK_S)
        await self.whole()
        took_s = time.monotonic() - begun
        await self.until(self._is_all_put, "users have put their files", BACK_S)
        await self.look()
        for one in two:
            await self.network.start_resource(one)
        await self.all_there()
        return took_s

    async def _are_lost(self, nodes: Collection[RunningResource]) -> bool:
        for meta in self.network.metas:
            for one in nodes if meta.node is not None else ():
                assert meta.node is not None
                row = meta.node.registry.row_of(address_of(bytes(one.key.verify_key)))
                if row is None or meta.node.repair.health.standing(row.number) is not Standing.LOST:
                    return False
        return True

    async def damaged_pair(self, two: Collection[RunningResource] = (), part: float = DAMAGED_PART) -> float:
        """The disks of two nodes rot, of any two or of these: about that part of their share files."""
        two = two or self.choose.sample(self.network.resources, 2)
        await self._under_load()
        begun = time.monotonic()
        for one in two:
            self.seen.bad |= self.network.damage(one, self.choose, part)
        await self.whole()
        took_s = time.monotonic() - begun
        await self.until(self._is_all_put, "users have put their files", BACK_S)
        await self.look()
        await self.all_there()
        return took_s

    async def meta_dies(self, number: int) -> float:
        """A meta node is killed; users go on with the others; it comes back."""
        await self._under_load()
        begun = time.monotonic()
        dying = asyncio.create_task(self.network.kill_meta(number))
        await self.until(self._is_all_put, "users put their files without a meta node", BACK_S)
        took_s = time.monotonic() - begun
        await dying
        await self.look()
        await self.network.start_meta(number)
        await self.all_there()
        return took_s

    async def chain_stops(self, blocks: int = BLOCKS) -> float:
        """The value chain is away for so many blocks, and is followed again."""
        network = self.network
        await self._under_load()
        network.chain.is_stopped = True
        for _ in range(blocks):
            self.clock.ahead_s += 1
            network.chain.produce()
            await asyncio.sleep(0.02)
        network.chain.is_stopped = False
        begun, height = time.monotonic(), network.chain.driver.height

        async def is_followed() -> bool:
            return all(one.node is not None and one.node.observer.height >= height for one in network.metas)

        await self.until(is_followed, "meta nodes have followed the chain", BACK_S)
        took_s = time.monotonic() - begun
        reported = self._reported()

        async def go_on() -> bool:
            return self._reported() > reported

        await self.until(go_on, "epochs are reported again", BACK_S)
        await self.until(self._is_all_put, "users have put their files", BACK_S)
        await self.look()
        await self.all_there()
        return took_s

    def _reported(self) -> int:
        return sum(one.node.reporter.reported for one in self.network.metas if one.node is not None)

    async def cut(self, far_metas: Collection[int], far_nodes: Collection[int]) -> float:
        """The network is cut in two, one user on each side, and healed. Without more than two thirds of the meta nodes on a side nothing is decided."""
        network, order = self.network, self.network.order
        assert order is not None
        await self._under_load()
        await network.cut(far_metas, far_nodes)
        for user, storage in self._storages.items():
            network.gate.place(storage._client.node, is_far=user == USERS[-1])
        height = order.height
        await asyncio.sleep(CUT_S)
        has_quorum = 3 * max(len(far_metas), METAS - len(far_metas)) > 2 * METAS
        if (order.height > height) != has_quorum:
            raise Lost(f"{len(far_metas)} of {METAS} meta nodes were cut off, and the order went from block {height} to {order.height}")
        begun = time.monotonic()
        await network.heal()
        await self.all_there()
        await self.whole()
        took_s = time.monotonic() - begun
        await self.until(self._is_all_put, "users have put their files", BACK_S)
        await self.look()
        return took_s

    # --- the end --------------------------------------------------------------------------------------------------------------------------

    async def end(self) -> None:
        """No user is there any more, every lease is over, and every receipt that a node still has is settled."""
        await self.quiet()
        await self.whole()
        await self.look()
        begun = time.monotonic()

        async def is_settled() -> bool:
            if time.monotonic() > begun + SPED_S:
                self.clock.ahead_s += SPED_S / 3
            return not await self._unsettled()

        try:
            await self.until(is_settled, "every lease is over and every receipt settled", BACK_S + 120)
        except TimeoutError as error:
            raise TimeoutError(f"{await self._unsettled()}: {error}") from None
        await self.all_there()
        rows: dict[bytes, Any] = {}
        for wallet in self.seen.told.before_noz:
            rows[wallet] = await self.network.meta.ledger.query(lambda view, wallet=wallet: view.get(tables.WALLET, (wallet,)))  # type: ignore[misc]
        self.seen.told.after_noz = {wallet: row.paid_noz for wallet, row in rows.items()}

    async def _unsettled(self) -> str:
        """What is yet to be settled; empty when all is."""
        leases = len(await self.network.meta.ledger.query(lambda view: view.scan(tables.LEASE, limit=1_000)))
        if leases:
            return f"{leases} leases are open"
        for one in self.network.resources:
            if one.node is not None and (count := await asyncio.wrap_future(one.node.receipts.pending_count(1 << 40))):
                return f"node {one.number} has {count} receipts that are not settled"
        running = [one.node for one in self.network.metas if one.node is not None]
        counts = [
            await node.books.do(
                lambda file: file.execute("SELECT state, count(*), sum(noz) FROM leaves WHERE state IN (2, 3) GROUP BY state").fetchall()
            )
            for node in running
        ]
        return "" if all(one == counts[0] and len(one) <= 1 for one in counts) else f"the books of the meta nodes say {counts}"

    def rest(self) -> Rest:
        """What is to be looked through when all have stopped."""
        homes = [NodeHome(f"node{one.number}", address_of(bytes(one.key.verify_key)), one.home.root) for one in self.network.resources]
        return Rest([one.home for one in self.network.metas], homes, self.seen.told, self.seen.gone)


def _stored(view: ReadView) -> list[Read]:
    return read_segments(view, [row.number for row in walk(view, tables.SEGMENT)])


def storage_faults(seed: int, pairs: int = PAIRS, damaged: int = DAMAGED_PAIRS) -> dict[str, Any]:
    """So many pairs wiped and so many damaged, each meta node killed, the chain away, two cuts. The network's folder is kept when something was lost."""
    folder = Path(tempfile.mkdtemp(prefix="storage-faults-"))
    try:
        figures = asyncio.run(_run(folder / "net", seed, pairs, damaged))
    except BaseException:
        print(f"storage-faults: the network is kept in {folder}", flush=True)
        raise
    shutil.rmtree(folder)
    return figures


async def _run(folder: Path, seed: int, pairs: int, damaged: int) -> dict[str, Any]:
    begun = time.monotonic()
    async with full_size(folder, seed) as faults:
        wiped_s = [await _timed(faults.pair(), f"pair {number}") for number in range(1, pairs + 1)]
        damaged_s = [await _timed(faults.damaged_pair(), f"damaged pair {number}") for number in range(1, damaged + 1)]
        metas_s = [await _timed(faults.meta_dies(number), f"meta node {number}") for number in range(METAS)]
        chain_s = await _timed(faults.chain_stops(), "the chain away")
        halves_s = await _timed(faults.cut((2, 3), range(7, NODES + 1)), "a cut in halves")
        one_s = await _timed(faults.cut((1,), range(1, 4)), "one meta node cut off")
        await faults.end()
        done, files = dict(faults.seen.done), len(faults.seen.files)
    found = await asyncio.to_thread(at_rest, faults.rest())
    return {
        "pairs": pairs,
        **_times("whole", wiped_s),
        "damaged_pairs": damaged,
        **_times("whole_after_damage", damaged_s),
        "copies_damaged": len(faults.seen.bad),
        **_times("used_without_a_meta_node", metas_s),
        "blocks_away": BLOCKS,
        "blocks_followed_in_s": round(chain_s, 1),
        "whole_after_a_cut_in_halves_s": round(halves_s, 1),
        "whole_after_one_meta_node_was_cut_off_s": round(one_s, 1),
        "files": files,
        **{name.replace(" ", "_"): count for name, count in sorted(done.items())},
        **found,
        "seconds": round(time.monotonic() - begun),
        "lost": 0,
    }


async def _timed(fault: Awaitable[float], name: str) -> float:
    begun = time.monotonic()
    took_s = await fault
    print(f"storage-faults: {name}: {took_s:.1f} s, {time.monotonic() - begun:.0f} s with all that is looked at", flush=True)
    return took_s


def _times(name: str, seconds: list[float]) -> dict[str, float]:
    return {f"{name}_median_s": round(statistics.median(seconds), 1), f"{name}_max_s": round(max(seconds), 1)} if seconds else {}
