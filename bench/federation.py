"""Objects that a federation of meta nodes commits in a second, and how long an operation takes: real CometBFT, the storage rules, one process for each.

    python -m bench.federation [--metas 4] [--seconds 20] [--objects 32] [--open 2]

Each meta node holds a lease and keeps ``--open`` commits under way, each of ``--objects`` objects with one segment in three replicas. Figures: objects on all of
them over the time from the first proposal to the last result; median and 95th percentile of a proposal's time. Goals (storage-protocol.md 6): 200 objects
a second, a median of 0.5 s.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import uvloop

from chain.codec.canonical import encode
from chain.crypto import address as bech32
from chain.testing.ports import free_ports
from modules.settlement.documents import GRANT_DOMAIN, SessionGrant
from sds_node.cli.output import configure_logs
from sds_node.meta.operations import Proposer
from tests.sds_node.federation.orders import exported, observed, with_comet
from tests.sds_node.rules.support import CHAIN_ID, SESSION, event, message, new_object, observed_node, sold, wallet, wallet_key
from tests.support import ROOT

NODES = (1, 2, 3)
OBJECT_BYTES = 100_000
NOZ = 10**15


def lease_request(nonce: int) -> Any:
    """A lease of wallet 1 for storing."""
    now_s = int(time.time())
    body = encode(
        SessionGrant(
            chain_id=CHAIN_ID,
            wallet=bech32.encode(wallet(1)),
            session_pubkey=SESSION,
            actions=[1, 2],
            path_prefix="/",
            max_noz=NOZ,
            not_before_s=now_s - 60,
            expires_s=now_s + 7_200,
            nonce=nonce.to_bytes(16, "big"),
        )
    )
    key = wallet_key(1)
    grant = {"body": body, "public_key": key.public_key.raw, "signature": key.sign(GRANT_DOMAIN + b"\x00" + body)}
    return message("TakeLease", wallet=wallet(1), session_pubkey=SESSION, fund=1, noz=NOZ // 100, seconds=3_600, grant=grant)


async def commits(proposer: Proposer, number: int, lease: bytes, objects: int, at_once: int, seconds: float) -> dict[str, Any]:
    """Keep so many commits under way for so long."""
    times: list[float] = []
    counter = 0
    began, until = time.time(), time.monotonic() + seconds

    async def one() -> None:
        nonlocal counter
        while time.monotonic() < until:
            made = []
            for _ in range(objects):
                counter += 1
                made.append(new_object(counter, OBJECT_BYTES, list(NODES), lookup_number=number * 10**7 + counter))
            body = message("Commit", lease_id=lease, objects=made)
            asked = time.perf_counter()
            await proposer.propose("commit", body)
            times.append(time.perf_counter() - asked)

    await asyncio.gather(*(one() for _ in range(at_once)))
    return {"objects": len(times) * objects, "times_s": times, "began": began, "ended": time.time()}


async def member(folder: Path, number: int, arguments: argparse.Namespace) -> None:
    """One meta node: a line of JSON once it is done; it goes on serving until standard input ends."""
    party = await with_comet(folder, folder / "ledger.export", number, arguments.base, time.time)
    await party.order.start()
    try:
        if number == 0:
            events = [*(event(node=observed_node(one)) for one in NODES[1:]), sold(1, NOZ)]
            await party.propose("observe", observed(102, list(range(arguments.metas)), *events))
        else:
            await party.reached(3)
        lease = (await party.propose("take_lease", lease_request(number + 1))).result
        done = await commits(party.proposer, number, lease, arguments.objects, arguments.open, arguments.seconds)
        print(json.dumps({**done, "height": party.ledger.head.height}), flush=True)
        await asyncio.to_thread(sys.stdin.read)
        print(json.dumps({"sequence": party.ledger.head.sequence, "app_hash": party.ledger.head.app_hash.hex()}), flush=True)
    finally:
        await party.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--metas", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--objects", type=int, default=32)
    parser.add_argument("--open", type=int, default=2)
    parser.add_argument("--member", type=int, default=None, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, default=None, help=argparse.SUPPRESS)
    parser.add_argument("--base", type=int, default=0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.member is not None:
        configure_logs("warn", "plain")  # stdout is for figures
        uvloop.run(member(arguments.folder, arguments.member, arguments))
        return
    with tempfile.TemporaryDirectory(prefix="federation-") as name:
        folder = Path(name)
        asyncio.run(exported(folder, arguments.metas, time.time))
        base = free_ports(2 * arguments.metas)
        own = [f"--{key}={getattr(arguments, key)}" for key in ("metas", "seconds", "objects", "open")]
        members = [
            subprocess.Popen(
                [sys.executable, "-m", "bench.federation", *own, f"--member={number}", f"--folder={folder}", f"--base={base}"],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for number in range(arguments.metas)
        ]
        try:
            lines = [one.stdout.readline() for one in members if one.stdout is not None]
            if not all(lines):
                raise SystemExit("bench.federation: a meta node has ended: its last lines are above")
            told = [json.loads(line) for line in lines]
            time.sleep(3)  # the last blocks reach all
            ends = [json.loads(one.communicate()[0].splitlines()[-1]) for one in members]
        finally:
            for one in members:
                one.kill()
    if len({one["app_hash"] for one in ends}) != 1:
        raise SystemExit(f"bench.federation: the ledgers differ: {ends}")
    objects = sum(one["objects"] for one in told)
    took_s = max(one["ended"] for one in told) - min(one["began"] for one in told)
    times = sorted(time_s for one in told for time_s in one["times_s"])
    blocks = max(one["height"] for one in told)
    print(f"federation: {arguments.metas} meta nodes, {len(times)} commits of {arguments.objects} objects in {took_s:.1f} s, {blocks} blocks in all")
    print(
        f"  {objects / took_s:.0f} objects/s (goal: 200)   commit p50 {statistics.median(times):.2f} s (goal: 0.5), p95 {times[len(times) * 95 // 100]:.2f} s"
    )


if __name__ == "__main__":
    main()
