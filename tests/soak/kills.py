"""SIGKILL of the node, of CometBFT, or of both at random moments under load; afterwards everything committed must be there."""

from __future__ import annotations

import base64
import contextlib
import os
import random
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from chain.api.comet import CometClient, CometRefused, CometUnavailable
from chain.codec.registry import message_class
from chain.coins import Coin
from chain.crypto import hd
from chain.tx.build import Signer, build_tx
from tests.support import Devnet, devnet, follower, free_ports, same_headers

KILLS = 100


def children(pid: int) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True).stdout
    return [int(line) for line in found.split()]


def kill_many_times(seed: int, kills: int = KILLS) -> dict[str, Any]:
    """``kills`` kills of a devnet under a stream of sends, with a second node beside it that is not killed. Height must grow after each kill,
    every committed send must be found again, and both nodes must have the same app hash at every height.
    """
    choose = random.Random(seed)
    ports = free_ports(4)
    committed: list[str] = []
    slowest_s = 0.0
    height = 0
    compared = 0
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as beside, contextlib.ExitStack() as stack:
        second: Devnet | None = None
        for number in range(kills):
            started = time.monotonic()
            with devnet(Path(folder), ports=ports) as running:
                height = running.wait_for(height + 1, 60)
                slowest_s = max(slowest_s, time.monotonic() - started)
                if second is None:
                    second = stack.enter_context(follower(Path(beside), running.net))
                sender = next(one for one in running.net["accounts"] if one["name"] == "carol")
                key = hd.derive(sender["mnemonic"], sender["hd_path"], sender["key_type"])
                client = CometClient(running.net["rpc"])
                until = time.monotonic() + choose.uniform(0.2, 4)
                while time.monotonic() < until:
                    _send(client, running.net, key, sender["address"])
                    time.sleep(0.05)
                committed = _committed(client, sender["address"]) or committed
                height = max(height, running.height())
                [node] = children(running.process.pid)
                comets = children(node)
                for pid in {0: [node], 1: comets, 2: [node, *comets]}[number % 3]:
                    os.kill(pid, signal.SIGKILL)
                if number % 3 == 1:
                    running.wait_for(height + 1, 60)
                client.close()
        with devnet(Path(folder), ports=ports) as running:
            height = running.wait_for(height + 1, 60)
            client = CometClient(running.net["rpc"])
            found = set(_committed(client, sender["address"]))
            client.close()
            if second is not None:
                compared = second.wait_for(height, 120)
                same_headers(running, second, height)
    missing = [tx for tx in committed if tx not in found]
    if missing:
        raise SystemExit(f"{len(missing)} committed transactions are gone, {missing[0]} first")
    return {
        "kills": kills,
        "height": height,
        "committed": len(found),
        "missing": 0,
        "heights_compared": compared,
        "slowest_recovery_s": round(slowest_s, 1),
    }


def _send(client: CometClient, net: dict[str, Any], key: Any, address: str) -> None:
    request = message_class("cosmos.auth.v1beta1.QueryAccountInfoRequest")(address=address)
    try:
        answer = client.abci_query("/cosmos.auth.v1beta1.Query/AccountInfo", request.SerializeToString())
        info = message_class("cosmos.auth.v1beta1.QueryAccountInfoResponse").FromString(base64.b64decode(answer["value"])).info
        message = message_class("cosmos.bank.v1beta1.MsgSend")(from_address=address, to_address=net["accounts"][1]["address"])
        message.amount.add(denom="wei", amount="1")
        signer = Signer(key.public_key, info.sequence, info.account_number)
        client.broadcast(build_tx([message], fee=(Coin("wei", 2 * 10**14),), gas_limit=200_000, signers=[signer]).sign([key], net["chain_id"]))
    except (CometUnavailable, CometRefused):
        pass


def _committed(client: CometClient, address: str) -> list[str]:
    hashes: list[str] = []
    page = 1
    try:
        while True:
            found = client.call("tx_search", query=f"message.sender='{address}'", prove=False, page=str(page), per_page="100", order_by="asc")
            hashes += [tx["hash"] for tx in found["txs"]]
            if len(hashes) >= int(found["total_count"]):
                return hashes
            page += 1
    except (CometUnavailable, CometRefused):
        return hashes
