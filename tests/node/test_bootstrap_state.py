"""A fourth way to join: a snapshot carried as a file, and CometBFT's own state made for it from what a light client verifies."""

from __future__ import annotations

import http.server
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from chain import nodekeys
from chain.app import build_application
from chain.application import Settings
from chain.codec.json import to_json
from chain.coins import Coin
from chain.config import Home
from chain.store.kv import open_backend
from chain.testing.driver import Driver
from chain.testing.validators import ValidatorKey
from genesis import build, document
from tests.node import restored
from tests.support import ROOT, Devnet, free_ports, stchaind

pytestmark = pytest.mark.timeout(240)

Lie = Callable[[str, Any], Any]


@contextmanager
def proxy(rpc: str, lie: Lie) -> Iterator[str]:
    """An RPC server that passes requests on and changes what it likes: ``lie(method, result)`` gives the result, or the whole body as bytes."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["content-length"]))
            answer = httpx.post(rpc, content=raw, headers={"content-type": "application/json"}).json()
            told = lie(json.loads(raw)["method"], answer.get("result"))
            body = told if isinstance(told, bytes) else json.dumps({**answer, "result": told}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def refused(home: Home, told: str, *arguments: str) -> None:
    """Raise AssertionError unless bootstrap-state ends with one sentence that has ``told`` in it, and CometBFT's databases are not there."""
    code, out, err = stchaind(home.root, "comet", "bootstrap-state", *arguments)
    assert (code, out, err.count("\n")) == (1, "", 1), err
    assert told in err
    assert not [name for name in ("state.db", "blockstore.db") if (home.root / "data" / name).exists()]


def forged(method: str, result: Any) -> Any:
    if method == "commit" and int(result["signed_header"]["header"]["height"]) > 1:
        result["signed_header"]["commit"]["signatures"][0]["signature"] = "A" * 86 + "=="
    return result


def unsigned(method: str, result: Any) -> Any:
    if method == "commit" and int(result["signed_header"]["header"]["height"]) > 1:
        absent = {"block_id_flag": 1, "validator_address": "", "timestamp": "0001-01-01T00:00:00Z", "signature": None}
        result["signed_header"]["commit"]["signatures"] = [absent]
    return result


def other_app_hash(method: str, result: Any) -> Any:
    if method == "commit" and int(result["signed_header"]["header"]["height"]) > 1:
        result["signed_header"]["header"]["app_hash"] = "AB" * 32
    return result


def other_priority(method: str, result: Any) -> Any:
    return {**result, "validators": [{**result["validators"][0], "proposer_priority": "-5"}]} if method == "validators" else result


LIES: dict[str, tuple[Lie, str]] = {
    "a forged signature": (forged, "signature 0 of the commit at height"),
    "a commit without votes": (unsigned, "more than two thirds are needed"),
    "a header of another state": (other_app_hash, "do not belong together"),
    "no JSON-RPC": (lambda method, result: b"[1]", "it is not CometBFT's RPC"),
    "no end": (lambda method, result: b" " * (17 << 20), "answers with more than"),
}


def test_a_home_restored_from_a_snapshot_file_gets_cometbfts_state_and_follows(tmp_path: Path) -> None:
    with restored.snapshot_taken(tmp_path) as (first, archive):
        home, rpc = restored.new_home(tmp_path / "second", first), first.net["rpc"]
        refused(home, "rpc_servers must name 2 to 20 RPC addresses")
        restored.trust(home, first)
        refused(home, "the application has no state yet: restore a snapshot first")
        restored.restore(home, archive)
        for changes, told in (
            ({"rpc_servers": "127.0.0.1:1,127.0.0.1:1"}, "CometBFT's RPC at http://127.0.0.1:1 does not answer"),
            ({"rpc_servers": f"{rpc},nowhere.invalid:80"}, "nowhere.invalid:80 does not answer"),
            ({"trust_hash": "00" * 32}, "ask somebody you trust for trust_height and trust_hash"),
            ({"trust_hash": "00"}, "trust_hash must be the hash of that block, 64 hex digits"),
            ({"trust_height": 10**6}, "gives no commit at height 1000000"),
            ({"trust_period": "1ms"}, "is older than trust_period"),
            ({"trust_period": "soon"}, "trust_period: expected a duration"),
        ):
            restored.trust(home, first, **changes)
            refused(home, told)
        for lie, told in LIES.values():
            with proxy(rpc, lie) as liar:
                restored.trust(home, first, rpc_servers=f"{liar},{rpc}")
                refused(home, told)
        with proxy(rpc, other_priority) as liar:
            restored.trust(home, first, rpc_servers=f"{rpc},{liar}")
            refused(home, "disagree about block 5 or its validators")
        foreign = foreign_state(tmp_path / "foreign", first)
        refused(foreign, "restore a snapshot of this chain")
        restored.trust(home, first)
        refused(home, "the application is at height 5, not 4", "--height", "4")
        code, out, err = stchaind(home.root, "comet", "bootstrap-state", "--height", "5")
        assert (code, out.count("\n")) == (0, 1), err
        assert first.rpc("block", height="5")["block_id"]["hash"] in out
        require_not_empty(home)
        follow(home, first, tmp_path)
        require_not_empty(home)


def foreign_state(root: Path, first: Devnet) -> Home:
    """A home whose application came to the snapshot's height under the chain's name from another genesis."""
    home = restored.new_home(root, first)
    restored.trust(home, first)
    made = document.load(home.genesis)
    build.add_account(made, b"\x07" * 20, (Coin("wei", 5),))
    made["consensus"]["params"] = to_json(document.consensus_params(made))
    app = build_application(open_backend("", home.database), Settings())
    driver = Driver([app], made, keys=[ValidatorKey.from_file(Home(Path(first.net["home"])).validator_key)])
    driver.start()
    for _ in range(restored.HEIGHT):
        driver.next_block()
    app.close()
    return home


def require_not_empty(home: Home) -> None:
    """Raise AssertionError unless a second bootstrap is refused."""
    code, out, err = stchaind(home.root, "comet", "bootstrap-state")
    assert (code, out, "state.db is not empty" in err) == (1, "", True), err or out


def follow(home: Home, first: Devnet, folder: Path) -> None:
    """Start the second node, twice: it has every block after the snapshot, equal to the first's."""
    base, peer = free_ports(3), nodekeys.node_id(Home(Path(first.net["home"])))
    rpc = f"tcp://127.0.0.1:{base}"
    flags = ["--rpc.laddr", rpc, "--p2p.laddr", f"tcp://127.0.0.1:{base + 1}", "--grpc.address", f"127.0.0.1:{base + 2}", "--api.enable", "false"]
    flags += ["--p2p.persistent_peers", f"{peer}@127.0.0.1:{int(first.net['rpc'].rpartition(':')[2]) + 1}"]
    for _ in range(2):
        with (folder / "second.log").open("ab") as log:
            command = [sys.executable, "-m", "chain.cli.main", "--home", str(home.root), "start", *flags]
            process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        second = Devnet({"rpc": rpc}, process)
        try:
            height = second.wait_for(first.height() + 2, 120)
            assert second.rpc("status")["sync_info"]["earliest_block_height"] == "6"
            for at in range(6, height + 1):
                for method in ("header", "validators", "consensus_params"):
                    assert second.rpc(method, height=str(at)) == first.rpc(method, height=str(at)), f"{method} at {at}"
        finally:
            process.terminate()
            assert process.wait(30) == 0
