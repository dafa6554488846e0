"""python -m tests.perturb.run MANIFEST [SEED]     one run, and its figures as JSON"""

from __future__ import annotations

import base64
import json
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from chain.api.comet import CometClient
from chain.cli.testnet import Account
from chain.crypto import address as bech32
from tests.perturb import load as loading
from tests.perturb import manifest as manifests
from tests.perturb.network import Broken, Network
from tests.perturb.steps import STEPS

LIMIT_S = 20.0
CATCH_UP_LIMIT_S = 90.0
JOIN_BLOCKS = 250
"""Up to this height a node may join from genesis. Where the others use all cores it executes hardly faster than they make blocks, so a newcomer to a
longer chain comes by state sync, as it would elsewhere."""
DRAIN_S = 120.0
RECIPIENT = b"perturbation recipient"[:20]
HERE = Path(__file__).parent


def perturb(path: Path, seed: int, tell: Any = print) -> dict[str, Any]:
    """Run a manifest; returns its figures. Raises Broken where the network did not do what it must, and what a step raises."""
    manifest = manifests.load(path, STEPS)
    choose = random.Random(seed)
    senders = [Account.new(f"sender{at}", "secp256k1") for at in range(manifest.senders)]
    with tempfile.TemporaryDirectory() as folder:
        net = Network(Path(folder), manifest, senders, seed)
        try:
            return _run(net, manifest, senders, choose, tell)
        except BaseException:
            for name in net.local.names:
                tell(f"--- {name}: {net.local.log(name)}\n" + "\n".join(net.local.log(name).read_text(errors="replace").splitlines()[-15:]))
            raise
        finally:
            net.close()


def _run(net: Network, manifest: manifests.Manifest, senders: list[Account], choose: random.Random, tell: Any) -> dict[str, Any]:
    net.start()
    recipient = bech32.encode(RECIPIENT)
    load = loading.Load(net.local.net["chain_id"], senders, net.first_sender, recipient, manifest.rate, net.rpcs)
    load.start()
    done: Counter[str] = Counter()
    on_s: list[float] = []
    back_s: list[float] = []
    begun = time.monotonic()
    for step in manifest.draw(choose):
        if manifest.weights and time.monotonic() - begun > manifest.seconds:
            break
        names = [step.node] if step.node else _candidates(net, step.do)
        if not names:
            continue
        name = choose.choice(names)
        tell(f"  {time.monotonic() - begun:6.1f} s  {step.do} {name} for {step.for_s} s")
        check = STEPS[step.do](net, name, step)
        went_on_s, all_back_s = net.recover(LIMIT_S, CATCH_UP_LIMIT_S)
        if load.error is not None:
            raise load.error
        net.compare(dict(load.committed))
        if check is not None:
            check()
        net.unjail()
        tell(f"            on after {went_on_s:.1f} s, all back after {all_back_s:.1f} s, {len(load.committed)} committed, height {net.compared}")
        done[step.do] += 1
        on_s.append(went_on_s)
        back_s.append(all_back_s)
        time.sleep(manifest.gap_s)
    seconds = time.monotonic() - begun
    if waiting := load.drain(DRAIN_S):
        raise Broken(
            f"{waiting} sends are not committed {DRAIN_S} s after the last trouble: {load.stuck()}, {load.counts.failed_in_blocks} failed in blocks"
        )
    net.recover(LIMIT_S, CATCH_UP_LIMIT_S)
    net.compare(dict(load.committed))
    found = net.find_all(load.committed)
    received = balance(net, recipient)
    if not received == len(load.committed) == load.counts.offered:
        raise Broken(f"{load.counts.offered} sends of 1 wei were made, {len(load.committed)} found in blocks, {received} wei arrived")
    return {
        "seconds": round(seconds),
        "steps": dict(sorted(done.items())),
        "recoveries": len(on_s),
        "recovery_max_s": round(max(on_s), 1),
        "recovery_mean_s": round(statistics.mean(on_s), 2),
        "all_back_max_s": round(max(back_s), 1),
        "all_back_mean_s": round(statistics.mean(back_s), 2),
        "height": net.compared,
        "app_hash_splits": 0,
        "unjailed": net.unjailed,
        "upgrades": net.build,
        "lost": 0,
        "committed_twice": 0,
        "looked_up": net.looked_up,
        "unindexed": len(net.unindexed),
        "found": found,
        "rate": manifest.rate,
        **loading.figures(load),
    }


def _candidates(net: Network, do: str) -> list[str]:
    """Whom a drawn step may hit. A key that signs twice is out for ever: that is for when there are five validators, or one more down would be a third."""
    if do == "double-sign" and len(net.operators) == len(net.validator_names):
        return []
    if do == "join" and net.compared > JOIN_BLOCKS:
        return []
    if do in ("double-sign", "validators"):
        return [name for name in net.validator_names if name not in net.double_signers]
    # Blocks from the first on stay with the validators, for who joins.
    return [name for name in net.local.names if do != "sync" or name not in net.validator_names]


def balance(net: Network, address: str) -> int:
    """In wei, by the state of the first node."""
    node = net.node(net.local.names[0])
    client = CometClient(node.net["rpc"])
    try:
        found = client.abci_query("/store/bank/key", b"\x02\x14" + bech32.decode(address) + b"wei")
        return int(base64.b64decode(found["value"] or "") or 0)
    finally:
        client.close()


if __name__ == "__main__":
    print(json.dumps(perturb(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1), indent=2))
