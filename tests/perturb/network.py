"""The localnet that is troubled: its links, who should answer now, and what must be the same everywhere."""

from __future__ import annotations

import base64
import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from chain import config
from chain.api.comet import CometClient, CometRefused, CometUnavailable
from chain.cli.testnet import Account
from chain.config import Home
from chain.light.validators import Validator, ValidatorSet
from tests.perturb.links import Links
from tests.perturb.load import TIMEOUT_S
from tests.perturb.manifest import Manifest
from tests.support import Devnet, free_ports
from tools.localnet import PORTS_PER_NODE, Localnet

SAMPLE = 40
"""How many transactions are looked up on every node after a step; the headers, whose data hash covers all, are compared at every height."""


class Broken(Exception):
    """The network did not do what it must."""


class Network:
    """Made and started in ``folder``; ``close`` ends everything."""

    def __init__(self, folder: Path, manifest: Manifest, senders: list[Account], seed: int) -> None:
        count = manifest.validators + manifest.full_nodes
        self.local = Localnet(
            folder,
            ports=free_ports(count * PORTS_PER_NODE),
            block_time=manifest.block_time,
            validators=manifest.validators,
            full_nodes=manifest.full_nodes,
            more_accounts=senders,
        )
        self.links = Links({node["name"]: int(node["p2p"].rpartition(":")[2]) for node in self.local.net["nodes"]}, seed)
        self._away: set[str] = set()
        self.double_signers: dict[str, int] = {}
        """Name → height of the block that took the evidence."""
        self.compared = 0
        self.looked_up = 0
        for node in self.local.net["nodes"]:
            others = [other for other in self.local.net["nodes"] if other is not node]
            peers = ",".join(f"{other['node_id']}@127.0.0.1:{self.links.port(node['name'], other['name'])}" for other in others)
            config.update(Home(Path(node["home"])).comet_config, {"p2p.persistent_peers": peers})

    def start(self) -> None:
        self.local.start()
        for name in self.local.names:
            self.node(name).wait_for(2, 60)

    def close(self) -> None:
        try:
            self.local.close()
        finally:
            self.links.close()

    def node(self, name: str) -> Devnet:
        return Devnet(self.local.node(name), self.local.process(name))

    @property
    def validator_names(self) -> list[str]:
        return [node["name"] for node in self.local.net["nodes"] if node["validator"]]

    @contextlib.contextmanager
    def away(self, name: str) -> Iterator[None]:
        """While a node cannot be relied on, the load goes elsewhere."""
        self._away.add(name)
        try:
            yield
        finally:
            self._away.discard(name)

    def rpcs(self) -> dict[str, str]:
        """Where the load goes now."""
        return {node["name"]: node["rpc"] for node in self.local.net["nodes"] if node["name"] not in self._away}

    def heights(self) -> dict[str, int]:
        """Of every node; 0 where it does not answer."""
        return {name: self.node(name).height() for name in self.local.names}

    def recover(self, limit_s: float, catch_up_limit_s: float) -> tuple[float, float]:
        """Seconds until a block is made, and until every node has it and one more. Raises Broken after the limits."""
        begun = time.monotonic()
        before = max(self.heights().values())
        on_s = 0.0
        while True:
            heights = self.heights()
            passed_s = time.monotonic() - begun
            if not on_s and max(heights.values()) > before:
                on_s = passed_s
            if min(heights.values()) > before + 1:
                return on_s, passed_s
            if not on_s and passed_s > limit_s:
                raise Broken(f"no block after {before} for {limit_s} s: {heights}")
            if passed_s > catch_up_limit_s:
                raise Broken(f"a node is not back after {catch_up_limit_s} s: {heights}")
            time.sleep(0.1)

    def compare(self, committed: dict[str, int]) -> None:
        """Raise Broken unless every node has the same headers, and so the same app hash and transactions, and finds ``committed`` (hash → height)."""
        height = min(self.heights().values())
        clients = {node["name"]: CometClient(node["rpc"], timeout_s=TIMEOUT_S * 3) for node in self.local.net["nodes"]}
        try:
            for at in range(self.compared + 1, height + 1):
                headers = {name: client.call("header", height=str(at))["header"] for name, client in clients.items()}
                if len({str(header) for header in headers.values()}) != 1:
                    raise Broken(f"block {at} differs: { {name: header['app_hash'] for name, header in headers.items()} }")
            new = [hash_ for hash_, at in committed.items() if self.compared < at <= height]
            for hash_ in new[:: max(1, len(new) // SAMPLE)]:
                for name, client in clients.items():
                    self._find(name, client, hash_)
                    self.looked_up += 1
            self.compared = height
        finally:
            for client in clients.values():
                client.close()

    def _find(self, name: str, client: CometClient, hash_: str) -> None:
        until = time.monotonic() + 10
        while True:
            try:
                client.call("tx", hash=base64.b64encode(bytes.fromhex(hash_)).decode())
                return
            except (CometRefused, CometUnavailable) as error:
                # The index is written a moment after the block.
                if time.monotonic() > until:
                    raise Broken(f"{name} does not find the committed transaction {hash_}: {error}") from None
            time.sleep(0.1)

    def validators(self, height: int) -> ValidatorSet:
        """The set that voted at ``height``."""
        listed: Any = self.node(self.local.names[0]).rpc("validators", height=str(height), per_page="100")["validators"]
        return ValidatorSet(Validator("ed25519", base64.b64decode(one["pub_key"]["value"]), int(one["voting_power"])) for one in listed)

    def evidence_height(self, since: int, address: bytes) -> int:
        """Height of a block above ``since`` with evidence against ``address``; 0 without one."""
        node = self.node(self.local.names[0])
        for height in range(since + 1, node.height() + 1):
            for one in node.rpc("block", height=str(height))["block"]["evidence"]["evidence"] or []:
                if bytes.fromhex(one["value"]["vote_a"]["validator_address"]) == address:
                    return height
        return 0
