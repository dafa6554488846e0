"""Every trouble once, under load; and what a manifest may not say."""

from __future__ import annotations

import contextlib
import itertools
import random
import socket
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from chain.api.comet import CometUnavailable
from tests.perturb import manifest
from tests.perturb.links import RETRANSMIT_S, Links
from tests.perturb.load import Wire
from tests.perturb.run import HERE, perturb
from tests.perturb.steps import STEPS


@pytest.mark.timeout(480)
def test_a_network_survives_every_trouble_once() -> None:
    figures = perturb(HERE / "ci.toml", seed=1)
    assert figures["steps"] == dict.fromkeys(sorted(STEPS), 1)
    assert figures["recovery_max_s"] <= 20
    assert figures["committed"] == figures["offered"] > 200
    assert figures["looked_up"] > 100


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
