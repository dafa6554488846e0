"""An upgrade under load with the real CometBFT: the old build halts at the height and serves what it has, the new one goes on."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from chain.api.comet import CometClient, CometRefused, CometUnavailable
from chain.codec.registry import message_class
from chain.coins import Coin, to_messages
from chain.crypto import hd
from chain.tx.build import Signer, build_tx
from tests import builds
from tests.node.upgrading import AGREED, HEIGHT, NAME, STORE
from tests.support import ROOT, Devnet, ask_until, free_ports
from tools.devnet import make

pytestmark = pytest.mark.timeout(240)
EVERY_S = 0.1
MAX_LOST = 200


@contextlib.contextmanager
def node(net: dict[str, Any], which: str, log: Path) -> Iterator[Devnet]:
    command = [sys.executable, "-m", "tests.node.upgrading", which, "start", "--home", net["home"]]
    with log.open("ab") as output:
        process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output)
    try:
        yield Devnet(net, process)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


class Load(threading.Thread):
    """Sends by carol, one after the other, each until the node takes it, and again if it lost them."""

    def __init__(self, net: dict[str, Any]) -> None:
        super().__init__(daemon=True)
        self._net = net
        self._end = threading.Event()
        self.raws: list[bytes] = []
        carol = next(one for one in net["accounts"] if one["name"] == "carol")
        self._key = hd.derive(carol["mnemonic"], carol["hd_path"], carol["key_type"])
        self._number = net["accounts"].index(carol)
        self._send = message_class("cosmos.bank.v1beta1.MsgSend")(
            from_address=carol["address"], to_address=net["accounts"][1]["address"], amount=to_messages((Coin("wei", 1),))
        )

    def run(self) -> None:
        comet = CometClient(self._net["rpc"])
        while not self._end.wait(EVERY_S):
            signer = Signer(self._key.public_key, len(self.raws), self._number)
            raw = build_tx([self._send], fee=(Coin("wei", 2 * 10**14),), gas_limit=200_000, signers=[signer]).sign([self._key], self._net["chain_id"])
            if self._offer(comet, raw):
                self.raws.append(raw)
            else:  # a node forgets its mempool when it stops
                for one in self.raws[-MAX_LOST:]:
                    self._offer(comet, one)
        comet.close()

    @staticmethod
    def _offer(comet: CometClient, raw: bytes) -> bool:
        with contextlib.suppress(CometUnavailable, CometRefused):
            return bool(comet.broadcast(raw, "sync")["code"] == 0)
        return False

    def stop(self) -> None:
        self._end.set()
        self.join()


def test_a_node_halts_at_the_plans_height_under_load_and_the_next_build_goes_on(tmp_path: Path) -> None:
    net = make(tmp_path, free_ports(4))
    info, log = Path(net["home"]) / "data" / "upgrade-info.json", tmp_path / "node.log"
    comet = CometClient(net["rpc"])
    load = Load(net)
    with node(net, "old", log) as old:
        old.wait_for(1)
        load.start()
        ask_until(info.exists)
        assert json.loads(info.read_text()) == {"name": NAME, "time": "0001-01-01T00:00:00Z", "height": HEIGHT, "info": "a test build"}
        # It waits, and all of its doors stay open: RPC with proofs of the last height, REST, gRPC, the mempool.
        before = len(load.raws)
        for _ in range(2):
            found = comet.abci_query("/store/upgrade/key", b"\x00", HEIGHT - 1, True)
            assert (base64.b64decode(found["value"])[:4], bool(found["proofOps"]["ops"])) == (b"\x0a\x02" + NAME.encode(), True)
            assert httpx.get(f"{net['rest']}/cosmos/upgrade/v1beta1/current_plan").json()["plan"]["height"] == str(HEIGHT)
            assert _plan_by_grpc(net["grpc"]) == NAME
            assert int(comet.call("abci_info")["response"]["last_block_height"]) == HEIGHT - 1
            time.sleep(1)
        assert len(load.raws) > before
        assert old.process.poll() is None
        assert _stopped(old) == 1
    text = log.read_text()
    assert f'UPGRADE "{NAME}" NEEDED at height: {HEIGHT}: a test build' in text

    # Started again, the old build comes to the same block and waits there again.
    with node(net, "old", log) as old:
        ask_until(lambda: log.read_text().count("the chain waits for another binary") == 2)
        assert httpx.get(f"{net['rest']}/cosmos/upgrade/v1beta1/current_plan").json()["plan"]["name"] == NAME
        assert _stopped(old) == 1

    with node(net, "new", log) as new:
        new.wait_for(HEIGHT + 1)
        taken = len(load.raws)
        new.wait_for(HEIGHT + 4)
        load.stop()
        assert len(load.raws) > taken
        for raw in load.raws:
            assert ask_until(lambda raw=raw: _committed(comet, raw))["tx_result"].get("code", 0) == 0
        assert httpx.get(f"{net['rest']}/cosmos/upgrade/v1beta1/applied_plan/{NAME}").json() == {"height": str(HEIGHT)}
        assert httpx.get(f"{net['rest']}/cosmos/upgrade/v1beta1/current_plan").json() == {"plan": None}
        assert base64.b64decode(comet.abci_query(f"/store/{STORE}/key", builds.AT, new.height() - 1)["value"]) == str(HEIGHT).encode()
        new.process.terminate()
        assert new.process.wait(30) == 0
    comet.close()
    assert AGREED < HEIGHT


def _stopped(running: Devnet) -> int:
    """The exit code after SIGTERM, which must not take as long as killing CometBFT would."""
    started = time.monotonic()
    running.process.terminate()
    code = running.process.wait(30)
    assert time.monotonic() - started < 10
    return code


def _plan_by_grpc(address: str) -> str:
    request, response = (message_class(f"cosmos.upgrade.v1beta1.QueryCurrentPlan{kind}") for kind in ("Request", "Response"))
    with grpc.insecure_channel(address) as channel:
        path = "/cosmos.upgrade.v1beta1.Query/CurrentPlan"
        ask = channel.unary_unary(path, request_serializer=request.SerializeToString, response_deserializer=response.FromString)
        return str(ask(request(), timeout=10).plan.name)


def _committed(comet: CometClient, raw: bytes) -> Any:

    return comet.call("tx", hash=base64.b64encode(hashlib.sha256(raw).digest()).decode(), prove=False)
