"""The storage network beside kubo on one machine: put and get, small gets, order limits, memory while much passes, and where the time goes.

    a network of processes (tools/network.py, 12 nodes: 5 of 10) ─┬─ ppd put, ppd get ─┐
                                                                  ├─ the library here ─┼─► interleaved rounds, medians, CPU of each part
    a kubo repository on the same disk ── ipfs add, ipfs cat ─────┴────────────────────┘

python -m bench storage [--only stages,transfers,small,limits,large] [--sizes 64,1024] [--rounds 3] [--files 1000] [--large 10] [--nodes 12]

Content is random and new in each round; what is read lies in the page cache on both sides. A get is written to a file, and compared after its time was taken.
Source: storage-protocol.md 6.
"""

from __future__ import annotations

import argparse
import asyncio
import filecmp
import gc
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import uvloop

from bench.kubo import Kubo, Took, timed
from bench.storage_stages import run as stages
from chain.crypto.keys import PrivateKey
from sds_node import asking
from sds_node.cli.output import size_text
from sds_node.client import Storage
from sds_node.client.home import UserHome
from sds_node.client.leases import Leases
from sds_node.client.meta import MetaClient, parse_meta
from sds_node.memory import keep_freed_memory
from tests.support import free_ports
from tools.network import PASSWORD, PPD, Network, NetworkError

PARTS: Final = ("stages", "transfers", "small", "limits", "large")
MB: Final = 1_000_000
SMALL_BYTES: Final = 4_096
TICKS: Final = os.sysconf("SC_CLK_TCK")
OZONE: Final = "5000stos"
PUTS_AT_ONCE: Final = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(PARTS), help=f"some of {','.join(PARTS)}")
    parser.add_argument("--sizes", default="64,1024", help="MB (10^6 bytes) of the files that are put and got")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--files", type=int, default=1_000)
    parser.add_argument("--large", type=float, default=10, help="GiB that pass while memory is looked at")
    parser.add_argument("--nodes", type=int, default=12)
    arguments = parser.parse_args()
    parts = tuple(arguments.only.split(","))
    if unknown := [one for one in parts if one not in PARTS]:
        raise SystemExit(f"--only: expected some of {', '.join(PARTS)}, got {unknown[0]!r}")
    if "stages" in parts:
        stages()
    if set(parts) == {"stages"}:
        return
    with tempfile.TemporaryDirectory() as folder:
        network = Network(Path(folder) / "network", ports=free_ports(80), nodes=arguments.nodes)
        try:
            network.start()
            keep_freed_memory()
            uvloop.run(_Bench(network, Path(folder)).run(parts, arguments))
        except NetworkError as error:
            raise SystemExit(f"the network for the bench does not run: {error}") from None
        finally:
            network.close()


class Processes:
    """CPU and memory of the network's processes, by kind."""

    def __init__(self, network: Network) -> None:
        net = network.net
        self.pids = {one["name"]: int(one["pid"]) for one in (*net["meta_nodes"], *net["resource_nodes"])}
        self.pids["client"] = os.getpid()
        chain = network.chain
        assert chain is not None
        self.chain = [process.pid for process in chain.running()]
        self.idle: dict[str, float] = {}
        """Seconds of CPU for each second in which nobody asks for anything."""

    def look_idle(self, seconds: float = 6.0) -> None:
        """Note what each kind uses without work."""
        before = self.cpu_s()
        time.sleep(seconds)
        self.idle = {name: (used - before[name]) / seconds for name, used in self.cpu_s().items()}

    def worked(self, before: dict[str, float], wall_s: float) -> dict[str, float]:
        """Seconds of CPU since ``before``, less what would have been used without work."""
        return {name: max(0.0, used - before[name] - self.idle[name] * wall_s) for name, used in self.cpu_s().items()}

    def cpu_s(self) -> dict[str, float]:
        """Seconds of CPU so far: of the meta node, of all resource nodes, of the chain, of this process."""
        each = {name: _cpu_s(pid) for name, pid in self.pids.items()}
        return {
            "spd": sum(used for name, used in each.items() if name.startswith("meta")),
            "ppd": sum(used for name, used in each.items() if name.startswith("node")),
            "client": each["client"],
            "chain": sum(_cpu_s(pid) for pid in self.chain),
        }

    @contextmanager
    def watched(self) -> Iterator[dict[str, tuple[float, float]]]:
        """Resident MiB of each process, sampled while the block runs: before it, and the most."""
        before = {name: _resident_mib(pid) for name, pid in self.pids.items()}
        most = dict(before)
        ended = threading.Event()

        def look() -> None:
            while not ended.wait(0.2):
                for name, pid in self.pids.items():
                    most[name] = max(most[name], _resident_mib(pid))

        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        found: dict[str, tuple[float, float]] = {}
        try:
            yield found
        finally:
            ended.set()
            thread.join()
            found.update({name: (before[name], most[name]) for name in self.pids})


class _Bench:
    def __init__(self, network: Network, folder: Path) -> None:
        self.network, self.folder = network, folder
        self.environment = network.environment
        self.home = UserHome(network.folder.path / "alice")
        self.key: PrivateKey = self.home.wallet_key(self.home.settings().wallet.address, PASSWORD)
        self.processes = Processes(network)

    def ppd(self, *arguments: Any, out: Path | None = None) -> Took:
        command = [sys.executable, "-m", *PPD, *map(str, arguments), "--home", str(self.home.root)]
        return timed(command, out or self.folder / "said", self.environment)

    async def run(self, parts: tuple[str, ...], arguments: argparse.Namespace) -> None:
        await asyncio.to_thread(self.ppd, "prepay", OZONE)
        load = os.getloadavg()[0]
        self.processes.look_idle()
        idle = ", ".join(f"{name} {used * 100:.1f} %" for name, used in self.processes.idle.items())
        print(
            f"storage: {arguments.nodes} resource nodes, a meta node, a chain; {os.cpu_count()} cores, load {load:.1f} at the beginning; "
            f"without work they use of a core: {idle}",
            flush=True,
        )
        async with self.home.storage(self.key) as storage:
            if "transfers" in parts:
                kubo = Kubo(self.folder / "kubo")
                for size in map(int, arguments.sizes.split(",")):
                    await self.transfers(storage, kubo, size * MB, arguments.rounds)
                kubo.remove()
            if "small" in parts:
                await self.small(storage, arguments.files)
            if "limits" in parts:
                await self.limits(storage)
            if "large" in parts:
                await self.large(storage, int(arguments.large * (1 << 30)))
        print(f"storage: load {os.getloadavg()[0]:.1f} at the end", flush=True)

    # --- beside kubo ------------------------------------------------------------------------------------------------------------

    async def transfers(self, storage: Storage, kubo: Kubo, size: int, rounds: int) -> None:
        """Interleaved rounds of one size."""
        walls: dict[str, list[float]] = {}
        cpus: dict[str, list[float]] = {}
        parts: dict[str, list[dict[str, float]]] = {}

        def note(what: str, took: Took) -> None:
            walls.setdefault(what, []).append(took.wall_s)
            cpus.setdefault(what, []).append(took.cpu_s)

        for number in range(rounds):
            source, target = self.folder / f"source{number}", self.folder / "target"
            await asyncio.to_thread(_random_file, source, size)
            name = f"{size}-{number}"
            cid, took = await asyncio.to_thread(kubo.add, source)
            note("kubo add", took)
            note("ppd balance", await asyncio.to_thread(self.ppd, "balance", "--json"))
            note("ppd put", await asyncio.to_thread(self.ppd, "put", source, f"cli-{name}", "--json"))
            note("library put", await self._own("library put", parts, storage.put(source, f"lib-{name}")))
            note("kubo cat", await asyncio.to_thread(kubo.cat, cid, target))
            _same_and_gone(source, target)
            note("ppd get", await asyncio.to_thread(self.ppd, "get", f"cli-{name}", target, "--json"))
            _same_and_gone(source, target)
            note("library get", await self._own("library get", parts, storage.get(f"lib-{name}", target)))
            _same_and_gone(source, target)
            source.unlink()
        median = {what: statistics.median(found) for what, found in walls.items()}
        print(f"storage: {size // MB} MB, median of {rounds} rounds", flush=True)
        print(f"  a command that only asks (ppd balance): {median.pop('ppd balance'):.2f} s", flush=True)
        for what, wall_s in median.items():
            beside = median["kubo add" if what.endswith(("put", "add")) else "kubo cat"]
            spread = f"{min(walls[what]):.2f} to {max(walls[what]):.2f}"
            print(
                f"  {what:12} {wall_s:7.2f} s ({spread}) = {size / wall_s / MB:6.1f} MB/s, {beside / wall_s:.2f} of kubo; "
                f"CPU of the process {statistics.median(cpus[what]):.2f} s",
                flush=True,
            )
        for what, found in parts.items():
            used = {name: statistics.median(one[name] for one in found) / size * MB * 1e6 for name in found[0]}
            told = ", ".join(f"{name} {spent:.0f}" for name, spent in used.items())
            print(f"  {what}: µs of CPU for a MB: {told}; in all {sum(used.values()):.0f}", flush=True)

    async def _own(self, what: str, parts: dict[str, list[dict[str, float]]], work: Awaitable[Any]) -> Took:
        before, started = self.processes.cpu_s(), time.perf_counter()
        await work
        wall_s = time.perf_counter() - started
        used = self.processes.worked(before, wall_s)
        parts.setdefault(what, []).append(used)
        return Took(wall_s, used["client"])

    # --- many and small ---------------------------------------------------------------------------------------------------------

    async def small(self, storage: Storage, files: int) -> None:
        """So many small files: put 64 at a time, then all read at once."""
        contents = [os.urandom(SMALL_BYTES) for _ in range(files)]
        room = asyncio.Semaphore(PUTS_AT_ONCE)

        async def put(number: int) -> None:
            async with room:
                await storage.put(contents[number], f"small/{number}")

        started = time.perf_counter()
        await asyncio.gather(*(put(number) for number in range(files)))
        took = time.perf_counter() - started
        print(f"storage: {files} puts of {SMALL_BYTES} bytes, {PUTS_AT_ONCE} at once: {took:.1f} s, {files / took:.0f} per second", flush=True)
        for what in ("once", "again"):
            latencies: list[float] = []

            async def get(number: int, latencies: list[float] = latencies) -> None:
                started = time.perf_counter()
                found = b"".join([bytes(piece) async for piece in storage.read(f"small/{number}")])
                latencies.append(time.perf_counter() - started)
                if found != contents[number]:
                    raise SystemExit(f"small/{number} came back as something else")

            before, started = self.processes.cpu_s(), time.perf_counter()
            results = await asyncio.gather(*(get(number) for number in range(files)), return_exceptions=True)
            took = time.perf_counter() - started
            spent = self.processes.worked(before, took)
            failed = [one for one in results if isinstance(one, BaseException)]
            for one in failed[:3]:
                print(f"  a get failed: {type(one).__name__}: {one}", flush=True)
            latencies.sort()
            used = ", ".join(f"{name} {one / files * 1e3:.2f}" for name, one in spent.items())
            print(
                f"  {files} gets, all at once, {what}: {took:.2f} s, {len(latencies) / took:.0f} per second, p50 {latencies[len(latencies) // 2] * 1e3:.0f} ms, "
                f"p95 {latencies[len(latencies) * 95 // 100] * 1e3:.0f} ms, {len(failed)} failed; ms of CPU for each: {used}",
                flush=True,
            )

    # --- order limits -----------------------------------------------------------------------------------------------------------

    async def limits(self, storage: Storage) -> None:
        """Order limits over the wire, for reading and for storing."""
        stored = await storage.put(os.urandom(4 * MB), "for-limits")
        object_id = bytes.fromhex(stored.object_id)
        [meta] = self.network.net["meta_nodes"]
        client = MetaClient(self.key, self.network.net["chain_id"], [parse_meta(f"{meta['pubkey']}@{meta['endpoint']}")], clock=time.time)
        leases = Leases(client)
        try:
            hold = await leases.hold(1 << 33)
            for shares, requests in ((10, 200), (250, 40)):
                head = asking.PlaceGetHead(lease_id=hold.lease.lease_id)
                for number in range(shares):
                    head.shares.add(object_id=object_id, segment=0, index=number % 10, size_bytes=1)

                async def read(head: Any = head) -> int:
                    return len((await client.ask(asking.PLACE_GET, head, asking.Places)).places)

                await self._issued(f"place.get of {shares} shares", read, requests)
            counters = iter(range(1, 1 << 20))

            async def store() -> int:
                head = asking.PlacePutHead(lease_id=hold.lease.lease_id)
                for _ in range(asking.MAX_SEGMENTS_ASKED):
                    size = 1 << 20
                    ask = head.segments.add(counter=next(counters), object_bytes=size, segment=0, segment_bytes=size, data_shares=5, total_shares=10)
                    ask.share_roots.extend(os.urandom(32) for _ in range(10))
                return len((await client.ask(asking.PLACE_PUT, head, asking.Places)).places)

            await self._issued("place.put of 16 segments", store, 40)
            leases.give_back(hold)
        finally:
            await leases.close()
            await client.close()

    async def _issued(self, what: str, ask: Callable[[], Any], requests: int) -> None:
        before, started = self.processes.cpu_s(), time.perf_counter()
        left = iter(range(requests))

        async def some() -> int:
            return sum([await ask() for _ in left])

        issued = sum(await asyncio.gather(*(some() for _ in range(4))))
        took = time.perf_counter() - started
        spent = self.processes.worked(before, took)["spd"]
        print(
            f"  {what}, 4 at once: {issued} order limits in {took:.2f} s, {issued / took:.0f} per second; "
            f"{spent / issued * 1e6:.0f} µs of spd's CPU for each = {issued / spent:.0f} for each second of CPU",
            flush=True,
        )

    # --- memory -----------------------------------------------------------------------------------------------------------------

    async def large(self, storage: Storage, size: int) -> None:
        """One large file in and out again, from memory and into nothing, while the processes are watched."""
        piece = os.urandom(4 << 20)

        async def content() -> AsyncIterator[bytes]:
            left = size
            while left:
                yield piece[: min(left, len(piece))]
                left -= min(left, len(piece))

        gc.collect()
        with self.processes.watched() as found:
            started = time.perf_counter()
            await storage.put(content(), "large", size_bytes=size)
            put_s = time.perf_counter() - started
        self._told(f"storage: {size_text(size)} put in {put_s:.0f} s ({size / put_s / MB:.0f} MB/s)", found)
        with self.processes.watched() as found:
            started, seen = time.perf_counter(), 0
            async for one in storage.read("large"):
                seen += len(one)
            get_s = time.perf_counter() - started
        if seen != size:
            raise SystemExit(f"expected {size} bytes, got {seen}")
        self._told(f"storage: {size_text(size)} got in {get_s:.0f} s ({size / get_s / MB:.0f} MB/s)", found)

    def _told(self, what: str, found: dict[str, tuple[float, float]]) -> None:
        nodes = [both for name, both in found.items() if name.startswith("node")]
        print(
            f"{what}; resident MiB before and at most: spd {found['meta0'][0]:.0f} and {found['meta0'][1]:.0f}, "
            f"each ppd {min(one for one, _ in nodes):.0f} to {max(one for one, _ in nodes):.0f} and {min(one for _, one in nodes):.0f} to "
            f"{max(one for _, one in nodes):.0f}, client {found['client'][0]:.0f} and {found['client'][1]:.0f}",
            flush=True,
        )


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def _resident_mib(pid: int) -> float:
    try:
        [line] = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS:")]
    except (OSError, ValueError):
        return 0.0
    return int(line.split()[1]) / 1024


def _random_file(path: Path, size: int) -> None:
    with path.open("wb") as out:
        for start in range(0, size, 1 << 22):
            out.write(os.urandom(min(1 << 22, size - start)))
        out.flush()
        os.fsync(out.fileno())


def _same_and_gone(source: Path, target: Path) -> None:
    if not filecmp.cmp(source, target, shallow=False):
        raise SystemExit(f"{target} is not what was stored")
    target.unlink()


if __name__ == "__main__":
    main()
