"""Bank sends per second through the real CometBFT, ours beside simd in one run: the same flow, fee, indexing, load and settings.

    python -m bench.throughput [--txs 40000] [--accounts 2000] [--validators 1] [--only stchaind|simd]

Each chain gets its validators with its own default configuration but for: timeout_commit 1 s, mempool 100,000, no limit on RPC batches, blocks of up to 21 MiB. The
load is ``broadcast_tx_async`` in JSON batches of 50 over 4 connections; transactions are signed before. The figure is committed
transactions over the time from the first broadcast to the block that holds the last. Beside it a client asks the first node's gRPC for balances
(``bench/queries.py``).
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chain.api.comet import CometClient, CometRefused, CometUnavailable
from chain.codec.canonical import encode
from chain.codec.registry import message_class
from chain.coins import Coin
from chain.crypto import address as bech32
from chain.crypto.keys import PrivateKey
from chain.tx.build import Signer, build_tx
from tests.interop import peers
from tests.support import ROOT, free_ports

BATCH = 50
CONNECTIONS = 4
GAS = 200_000
MAX_BLOCK_BYTES = 22_020_096


@dataclass(frozen=True)
class Chain:
    """What differs between the two."""

    command: tuple[str, ...]
    prefix: str
    denom: str
    fee: int
    stake: int
    funds: int
    min_gas_prices: str


def chains() -> dict[str, Chain]:
    ours = (sys.executable, "-m", "chain.cli.main")
    return {
        "stchaind": Chain(ours, "st", "wei", GAS * 10**9, 10**18, 10**24, "1000000000wei"),
        "simd": Chain((str(peers.simd()),), "cosmos", "stake", GAS // 100, 10**8, 10**15, "0.01stake"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--txs", type=int, default=40_000)
    parser.add_argument("--accounts", type=int, default=2000)
    parser.add_argument("--validators", type=int, default=1)
    parser.add_argument("--only", choices=["stchaind", "simd"])
    arguments = parser.parse_args()
    rates = {}
    for name, chain in chains().items():
        if arguments.only in (None, name):
            with tempfile.TemporaryDirectory() as folder:
                rates[name] = measure(name, chain, Path(folder), arguments.txs, arguments.accounts, arguments.validators)
    if len(rates) == 2:
        print(f"stchaind commits {rates['stchaind'] / rates['simd']:.1f} times as many sends per second as simd")


class Network:
    """Validators of one chain on this machine, in homes ``0``, ``1``, … of a folder."""

    def __init__(self, chain: Chain, folder: Path, validators: int) -> None:
        self.chain = chain
        self.homes = [folder / str(at) for at in range(validators)]
        self.ports = [free_ports(4) for _ in self.homes]
        self.processes: list[subprocess.Popen[bytes]] = []
        self._environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def run(self, home: Path, *arguments: str) -> str:
        command = [*self.chain.command, "--home", str(home), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=self._environment)
        if done.returncode:
            raise SystemExit(f"{' '.join(arguments)}: {done.stderr}")
        return done.stdout.strip()

    def prepare(self, texts: list[str]) -> None:
        """Homes, a genesis with a gentx of every validator and a funded account for every address, and each other's addresses."""
        chain, keyring = self.chain, ("--keyring-backend", "test")
        first = self.homes[0]
        addresses = []
        for home in self.homes:
            self.run(home, "init", "v", "--chain-id", "bench-1")
            self.run(home, "keys", "add", "val", *keyring)
            addresses.append(self.run(home, "keys", "show", "val", "-a", *keyring))
        for address in addresses:
            self.run(first, "genesis", "add-genesis-account", address, f"{2 * chain.stake}{chain.denom}")
        add_accounts(genesis_of(first), chain, texts)
        for home in self.homes[1:]:
            shutil.copy(genesis_of(first), genesis_of(home))
        for home in self.homes:
            self.run(home, "genesis", "gentx", "val", f"{chain.stake}{chain.denom}", "--chain-id", "bench-1", *keyring)
        for home in self.homes[1:]:
            for gentx in (home / "config" / "gentx").iterdir():
                shutil.copy(gentx, first / "config" / "gentx")
        self.run(first, "genesis", "collect-gentxs")
        peers = [f"{self.run(home, 'comet', 'show-node-id')}@127.0.0.1:{base + 1}" for home, base in zip(self.homes, self.ports, strict=True)]
        for at, home in enumerate(self.homes):
            if home is not first:
                shutil.copy(genesis_of(first), genesis_of(home))
            configure(home / "config" / "config.toml", ",".join(peers[:at] + peers[at + 1 :]))

    def start(self) -> None:
        for home, base in zip(self.homes, self.ports, strict=True):
            ports = [
                "--rpc.laddr",
                f"tcp://127.0.0.1:{base}",
                "--p2p.laddr",
                f"tcp://127.0.0.1:{base + 1}",
                "--grpc.address",
                f"127.0.0.1:{base + 2}",
            ]
            command = [*self.chain.command, "--home", str(home), "start", *ports, "--minimum-gas-prices", self.chain.min_gas_prices]
            with (home / "log").open("wb") as log:
                self.processes.append(subprocess.Popen([*command, "--api.enable=false"], stdout=log, stderr=log, cwd=ROOT, env=self._environment))

    def stop(self) -> None:
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait(60)

    def cpu_seconds(self) -> float:
        return sum(cpu_seconds(process.pid) for process in self.processes)


def measure(name: str, chain: Chain, folder: Path, txs: int, accounts: int, validators: int) -> float:
    """Sends committed per second."""
    signers = [PrivateKey((10**6 + at).to_bytes(32, "big"), "secp256k1") for at in range(accounts)]
    texts = [bech32.encode(one.public_key.address, chain.prefix) for one in signers]
    network = Network(chain, folder, validators)
    network.prepare(texts)
    network.start()
    base = network.ports[0]
    client = CometClient(f"tcp://127.0.0.1:{base}")
    probe = None
    try:
        first = wait_for_height(client, 2)
        numbers = account_numbers(genesis_of(network.homes[0]), texts)
        bodies = sign(chain, signers, texts, numbers, txs)
        cpu = network.cpu_seconds()
        probe = subprocess.Popen(
            [sys.executable, "-m", "bench.queries", f"127.0.0.1:{base + 2}", chain.denom, *texts[:50]], stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        started = time.perf_counter()
        threads = [threading.Thread(target=broadcast, args=(network.ports[at % validators], bodies[at::CONNECTIONS])) for at in range(CONNECTIONS)]
        for thread in threads:
            thread.start()
        committed, height = 0, first
        sizes: dict[int, int] = {}
        while committed < txs:
            latest = int(client.call("status")["sync_info"]["latest_block_height"])
            while height < latest:
                height += 1
                count = len(client.call("block", height=str(height))["block"]["data"]["txs"] or [])
                committed += count
                sizes[height] = count
            if time.perf_counter() - started > 300:
                raise SystemExit(f"{name}: {committed} of {txs} committed after 300 s: see {folder}")
            time.sleep(0.1)
        took = time.perf_counter() - started
        probe.terminate()
        latencies = probe.communicate()[0].strip()
        spent = (network.cpu_seconds() - cpu) * 1e6 / txs
        smallest = min((count, at) for at, count in sizes.items() if count)[1]  # CometBFT cuts answers off that take it too long
        failed = sum(one["code"] != 0 for one in results_of(client, smallest))
        if failed:
            raise SystemExit(f"{name}: {failed} sends of block {smallest} failed")
        for thread in threads:
            thread.join()
        rate = txs / took
        print(
            f"{name}: {validators} validators, {txs} sends in {took:.1f} s: {rate:.0f} per second; largest block {max(sizes.values())}; "
            f"{spent:.0f} us of CPU each (nodes and CometBFT); balance queries meanwhile: {latencies}"
        )
        return rate
    finally:
        client.close()
        if probe is not None:
            probe.kill()
        network.stop()


def genesis_of(home: Path) -> Path:
    return home / "config" / "genesis.json"


def results_of(client: CometClient, height: int) -> list[Any]:
    """The results of a block, once CometBFT has stored them."""
    for _ in range(100):
        try:
            return client.call("block_results", height=str(height))["txs_results"] or []
        except (CometRefused, CometUnavailable):
            time.sleep(0.1)
    raise SystemExit(f"the node keeps no results of block {height}")


def add_accounts(path: Path, chain: Chain, texts: list[str]) -> None:
    document = json.loads(path.read_text())
    state = document["app_state"]
    for text in texts:
        account = {"@type": "/cosmos.auth.v1beta1.BaseAccount", "address": text, "pub_key": None, "account_number": "0", "sequence": "0"}
        state["auth"]["accounts"].append(account)
        state["bank"]["balances"].append({"address": text, "coins": [{"denom": chain.denom, "amount": str(chain.funds)}]})
    for at, account in enumerate(state["auth"]["accounts"]):
        account["account_number"] = str(at)
    state["bank"]["supply"] = []
    document["consensus"]["params"]["block"]["max_bytes"] = str(MAX_BLOCK_BYTES)
    path.write_text(json.dumps(document))


def account_numbers(path: Path, texts: list[str]) -> list[int]:
    found = {one["address"]: int(one["account_number"]) for one in json.loads(path.read_text())["app_state"]["auth"]["accounts"] if "address" in one}
    return [found[text] for text in texts]


def configure(path: Path, peers: str) -> None:
    changed = {
        "persistent_peers": f'"{peers}"',
        "addr_book_strict": "false",
        "allow_duplicate_ip": "true",
        "timeout_commit": '"1s"',
        "size": "100000",
        "cache_size": "200000",
        "max_request_batch_size": "0",
        "max_body_bytes": "10000000",
        "pprof_laddr": '""',
    }
    lines = []
    for line in path.read_text().splitlines():
        name = line.split(" = ")[0]
        lines.append(f"{name} = {changed[name]}" if name in changed and " = " in line else line)
    path.write_text("\n".join(lines) + "\n")


def sign(chain: Chain, signers: list[PrivateKey], texts: list[str], numbers: list[int], txs: int) -> list[bytes]:
    """Request bodies; a sender's transactions stay in order on one connection."""
    send, SignDoc = message_class("cosmos.bank.v1beta1.MsgSend"), message_class("cosmos.tx.v1beta1.SignDoc")
    groups: list[list[bytes]] = [[] for _ in range(CONNECTIONS)]
    for at in range(txs):
        who = at % len(signers)
        message = send(from_address=texts[who], to_address=texts[(at * 7919 + 13) % len(texts)])
        message.amount.add(denom=chain.denom, amount=str(at + 1))
        signer = Signer(signers[who].public_key, at // len(signers), numbers[who])
        unsigned = build_tx([message], fee=(Coin(chain.denom, chain.fee),), gas_limit=GAS, signers=[signer])
        # ``Unsigned.sign`` checks our own prefixes; a DIRECT sign document is the same on both chains.
        document = SignDoc(
            body_bytes=encode(unsigned.body), auth_info_bytes=encode(unsigned.auth_info), chain_id="bench-1", account_number=numbers[who]
        )
        groups[who % CONNECTIONS].append(unsigned.encode([signers[who].sign(encode(document))]))
    bodies: list[list[bytes]] = []
    for group in groups:
        calls = [
            {"jsonrpc": "2.0", "id": at, "method": "broadcast_tx_async", "params": {"tx": base64.b64encode(raw).decode()}}
            for at, raw in enumerate(group)
        ]
        bodies.append([json.dumps(calls[start : start + BATCH]).encode() for start in range(0, len(calls), BATCH)])
    longest = max(len(one) for one in bodies)
    return [one[at] if at < len(one) else b"[]" for at in range(longest) for one in bodies]


def broadcast(port: int, bodies: list[bytes]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    for body in bodies:
        connection.request("POST", "/", body, {"Content-Type": "application/json"})
        answer = connection.getresponse().read()
        if b'"error"' in answer:
            raise SystemExit(answer[:300].decode())
    connection.close()


def wait_for_height(client: CometClient, height: int) -> int:
    until = time.monotonic() + 120
    while time.monotonic() < until:
        try:
            found = int(client.call("status")["sync_info"]["latest_block_height"])
            if found >= height:
                return found
        except (CometUnavailable, CometRefused):
            pass
        time.sleep(0.2)
    raise SystemExit("the node made no blocks")


def cpu_seconds(root: int) -> float:
    """User and system time of a process and its children."""
    total = 0.0
    ticks = os.sysconf("SC_CLK_TCK")
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields: list[Any] = (entry / "stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(entry.name) == root or int(fields[1]) == root:
            total += (int(fields[11]) + int(fields[12])) / ticks
    return total


if __name__ == "__main__":
    main()
