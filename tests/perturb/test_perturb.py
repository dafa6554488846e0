"""Every trouble once, under load; and what a manifest may not say."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import itertools
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from chain.api.comet import CometUnavailable
from chain.config import Home
from tests.perturb import manifest, network
from tests.perturb.links import RETRANSMIT_S, Links
from tests.perturb.load import Load, Wire
from tests.perturb.run import HERE, perturb
from tests.perturb.steps import STEPS, newest_snapshot


@pytest.mark.timeout(480)
def test_a_network_survives_every_trouble_once() -> None:
    figures = perturb(HERE / "ci.toml", seed=1)
    assert figures["steps"] == dict.fromkeys(sorted(STEPS), 1)
    assert figures["recovery_max_s"] <= 20
    assert figures["committed"] == figures["offered"] > 200
    assert figures["looked_up"] > 100
    # The validators have every block; the full node has those since its snapshot.
    assert 4 * figures["committed"] < figures["found"] <= 5 * figures["committed"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("rate = ", "is not TOML"),
        ("speed = 3", "'speed' is no setting"),
        ('[[step]]\ndo = "burn"', "step[0].do: 'burn' is no step: expected one of kill, "),
        ('[[step]]\ndo = "kill"\nnode = "node9"', "there is no node 'node9': expected one of node0, node1"),
        ("seconds = 5\n[random]\nweights = { burn = 1 }", "random.weights: 'burn' is no step"),
        ("seconds = 5\n[random]\nweights = { kill = 1 }\nmost = { burn = 1 }", "random.most: 'burn' is no step"),
        ("[random]\nweights = { kill = 1 }", "seconds and [random] weights go together"),
    ],
)
def test_a_manifest_that_cannot_be_used_says_why(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "m.toml"
    path.write_text(text)
    with pytest.raises(manifest.ManifestError) as caught:
        manifest.load(path, STEPS)
    assert told in str(caught.value)


def test_the_manifests_here_can_be_used() -> None:
    assert len(manifest.load(HERE / "ci.toml", STEPS).steps) == len(STEPS)
    assert manifest.load(HERE / "long.toml", STEPS).seconds == 1800


def test_a_wire_whose_connection_was_closed_meanwhile_asks_again_and_one_that_gets_no_answer_says_so() -> None:
    """Each of the server's connections is good for one answer, as an idle one of CometBFT's."""
    answer = b'{"jsonrpc": "2.0", "id": 0, "result": {"sync_info": {"latest_block_height": "7"}}}'
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()

        def serve() -> None:
            for _ in range(2):
                peer, _ = server.accept()
                with peer:
                    peer.recv(1 << 16)
                    peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(answer), answer))

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        wire = Wire(f"http://127.0.0.1:{server.getsockname()[1]}", timeout_s=0.3)
        assert wire.height() == 7
        time.sleep(0.1)
        assert wire.height() == 7
        thread.join(5)
        time.sleep(0.1)
        begun = time.monotonic()
        with pytest.raises(CometUnavailable):
            wire.call(("status", {}))
        assert time.monotonic() - begun < 2
        wire.close()


def test_a_seed_draws_the_same_steps_and_none_more_often_than_it_may() -> None:
    given = manifest.load(HERE / "long.toml", STEPS)
    first, again, other = (list(itertools.islice(given.draw(random.Random(seed)), 400)) for seed in (5, 5, 6))
    assert first == again != other
    drawn = Counter(step.do for step in first)
    assert set(drawn) == set(STEPS)
    assert {name: drawn[name] for name in given.most} == given.most


@dataclass
class Told:
    """What a node answers: app hashes by height, the transactions that its index has, and those of its blocks in base64."""

    hashes: dict[int, str]
    found: set[str]
    blocks: dict[int, list[str]] = field(default_factory=dict)


def hash_of(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest().upper()


AA, BB = hash_of(b"first"), hash_of(b"second")
SENT = {AA: 2, BB: 3}
"""Hash → height of what was sent."""


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> dict[str, Told]:
    """Five nodes of which no process exists, by RPC address."""

    def blocks() -> dict[int, list[str]]:
        return {at: [base64.b64encode(raw).decode()] for at, raw in ((2, b"first"), (3, b"second"))}

    nodes = {f"node{at}": Told({height: f"hash {height}" for height in range(1, 6)}, {AA, BB}, blocks()) for at in range(5)}

    class Wired:
        def __init__(self, rpc: str, timeout_s: float = 0.0) -> None:
            self.node = nodes[rpc]

        def call_many(self, calls: Sequence[tuple[str, dict[str, Any]]]) -> list[dict[str, Any]]:
            return [getattr(self, name)(**params) for name, params in calls]

        def call(self, *calls: tuple[str, dict[str, Any]]) -> list[dict[str, Any]]:
            return self.call_many(calls)

        def status(self) -> Any:
            return {"result": {"sync_info": {"earliest_block_height": str(min(self.node.hashes))}}}

        def header(self, height: str) -> Any:
            return {"result": {"header": {"app_hash": self.node.hashes[int(height)]}}}

        def tx(self, hash: str) -> Any:
            return {"result": {}} if base64.b64decode(hash).hex().upper() in self.node.found else {"error": {}}

        def block(self, height: str) -> Any:
            return {"result": {"block": {"data": {"txs": self.node.blocks.get(int(height), [])}}}}

        def height(self) -> int:
            return max(self.node.hashes, default=0)

        def close(self) -> None:
            pass

    monkeypatch.setattr(network, "Wire", Wired)
    monkeypatch.setattr(network, "INDEXED_S", 0.0)
    return nodes


def network_of(told: dict[str, Told]) -> network.Network:
    net = network.Network.__new__(network.Network)
    vars(net).update(compared=0, looked_up=0, unindexed=set(), _returning=set(), _away=set(), _highest=0, switch=lambda: None)
    net.local = SimpleNamespace(net={"nodes": [{"name": name, "rpc": name} for name in told]})  # type: ignore[assignment]
    return net


def test_nodes_that_agree_pass_every_check(told: dict[str, Told]) -> None:
    net = network_of(told)
    del told["node4"].hashes[1], told["node4"].hashes[2]  # it joined by state sync
    told["node4"].found.remove(AA)
    net.compare(SENT)
    assert (net.compared, net.looked_up) == (5, 4 + 5)
    assert net.find_all(SENT) == 4 + 5


def test_another_app_hash_is_broken(told: dict[str, Told]) -> None:
    told["node2"].hashes[4] = "another"
    with pytest.raises(network.Broken, match="block 4 differs"):
        network_of(told).compare({})


def test_a_transaction_that_a_node_does_not_find_is_broken(told: dict[str, Told]) -> None:
    told["node3"].found.remove(BB)
    del told["node3"].blocks[3]
    for look in ("compare", "find_all"):
        net = network_of(told)
        net.compared = 5 if look == "find_all" else 0
        with pytest.raises(network.Broken, match=f"node3 does not find the committed transaction {BB}"):
            getattr(net, look)(SENT)


def test_what_a_stopped_node_never_indexed_is_found_in_its_block(told: dict[str, Told]) -> None:
    hash_ = hash_of(b"sent")
    for one in told.values():
        one.found.add(hash_)
    told["node3"].found.remove(hash_)
    told["node3"].blocks[2] = [base64.b64encode(b"sent").decode()]
    net = network_of(told)
    net.compare({hash_: 2})
    assert net.unindexed == {("node3", hash_)}
    with pytest.raises(network.Broken, match="node3 does not find"):
        network_of(told).compare({hash_: 3})


def test_a_chain_that_stands_still_and_a_node_that_stays_behind_are_broken(told: dict[str, Told]) -> None:
    with pytest.raises(network.Broken, match=r"no block after 5 for 0\.3 s"):
        network_of(told).recover(0.3, 9)
    # All go on but one.
    net, rounds = network_of(told), itertools.count()

    def switch() -> None:
        if next(rounds):
            for name, one in told.items():
                if name != "node1":
                    one.hashes[max(one.hashes) + 1] = "more"

    vars(net)["switch"] = switch
    with pytest.raises(network.Broken, match=r"node1 is not back after \d s: .*'node1': 5,"):
        net.recover(9, 0.4)


def test_only_a_whole_snapshot_counts_and_the_newest_one(tmp_path: Path) -> None:
    homes = [Home(tmp_path / name) for name in "ab"]
    assert newest_snapshot(*homes) == 0
    for home, height, is_whole in ((homes[0], 80, True), (homes[1], 100, True), (homes[1], 120, False)):
        folder = home.snapshots / str(height) / "1"
        folder.mkdir(parents=True)
        if is_whole:
            (folder / "metadata.json").touch()
    assert (newest_snapshot(homes[0]), newest_snapshot(*homes)) == (80, 100)


def test_a_send_that_is_in_two_blocks_is_an_error() -> None:
    load = Load("net-1", [], 0, "st1", 1, dict)
    load.committed["AA"] = 4
    with pytest.raises(AssertionError, match="AA is committed in block 4 and again in block 6"):
        load._committed("AA", 0, 6)


def test_a_link_carries_is_slowed_down_and_cut() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()

        def echo() -> None:
            while True:
                try:
                    peer, _ = server.accept()
                except OSError:
                    return
                with peer:
                    while data := peer.recv(1 << 16):
                        peer.sendall(data)

        thread = threading.Thread(target=echo, daemon=True)
        thread.start()
        links = Links({"a": 1, "b": server.getsockname()[1]}, seed=1)
        try:
            with socket.create_connection(("127.0.0.1", links.port("a", "b")), 5) as wire:
                payload = bytes(range(256)) * 1000
                wire.sendall(payload)
                assert _read(wire, len(payload)) == payload
                for delay_s, loss, least_s in ((0.1, 0.0, 0.2), (0.0, 1.0, 2 * RETRANSMIT_S), (0.0, 0.0, 0.0)):
                    links.slow("b", delay_s, loss)
                    begun = time.monotonic()
                    wire.sendall(b"ping")
                    assert _read(wire, 4) == b"ping"
                    assert least_s <= time.monotonic() - begun < least_s + 5
                links.cut("b")
                wire.settimeout(5)
                with contextlib.suppress(ConnectionResetError):
                    assert wire.recv(1) == b""
            with socket.create_connection(("127.0.0.1", links.port("a", "b")), 5) as wire:
                assert wire.recv(1) == b"", "new connections are refused, too"
            links.mend("b")
            with socket.create_connection(("127.0.0.1", links.port("a", "b")), 5) as wire:
                wire.sendall(b"again")
                assert _read(wire, 5) == b"again"
        finally:
            links.close()
            server.shutdown(socket.SHUT_RDWR)
            thread.join(5)


def _read(wire: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        found += wire.recv(1 << 16)
    return found
