"""A test build whose message handler, query handler and CheckTx raise: the node goes on, under the real CometBFT."""

from __future__ import annotations

import base64
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from chain.api.comet import CometClient
from chain.codec.registry import message_class
from chain.coins import Coin, to_messages
from chain.crypto import hd
from chain.tx.build import Signer, build_tx
from tests.node.misbehaving import MEMO
from tests.support import ROOT, Devnet, devnet

pytestmark = pytest.mark.timeout(240)
PANIC = 111222


def test_bugs_in_handlers_queries_and_check_tx_do_not_stop_the_node(tmp_path: Path) -> None:
    with devnet(tmp_path) as made:
        made.wait_for(1)
        made.stop()
    net = made.net
    with (tmp_path / "misbehaving.log").open("wb") as log:
        command = [sys.executable, "-m", "tests.node.misbehaving", "start", "--home", net["home"]]
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
    running = Devnet(net, process)
    try:
        height = running.wait_for(3)
        comet = CometClient(net["rpc"])
        carol = next(one for one in net["accounts"] if one["name"] == "carol")
        key = hd.derive(carol["mnemonic"], carol["hd_path"], carol["key_type"])
        info = httpx.get(f"{net['rest']}/cosmos/auth/v1beta1/account_info/{carol['address']}").json()["info"]
        sequence, number = int(info["sequence"]), int(info["account_number"])

        def sign(message: Any, sequence: int, memo: str = "") -> str:
            signer = Signer(key.public_key, sequence, number)
            unsigned = build_tx([message], fee=(Coin("wei", 2 * 10**14),), gas_limit=200_000, signers=[signer], memo=memo)
            return base64.b64encode(unsigned.sign([key], net["chain_id"])).decode()

        send = message_class("cosmos.bank.v1beta1.MsgSend")(from_address=carol["address"], to_address=carol["address"])
        send.amount.extend(to_messages((Coin("wei", 1),)))
        burn = message_class("cosmos.bank.v1beta1.MsgBurn")(from_address=carol["address"], amount=to_messages((Coin("wei", 1),)))

        # CheckTx: the code of a panic, and the next transaction is checked as ever.
        refused = comet.call("broadcast_tx_sync", tx=sign(send, sequence, MEMO))
        assert (refused["codespace"], refused["code"]) == ("undefined", PANIC)
        # A message handler: that transaction alone fails, in a block, fee and sequence kept; one in the same block goes through.
        failing = comet.call("broadcast_tx_sync", tx=sign(burn, sequence))
        fine = comet.call("broadcast_tx_sync", tx=sign(send, sequence + 1))
        assert (failing["code"], fine["code"]) == (0, 0)
        results = [_result(comet, one["hash"]) for one in (failing, fine)]
        assert [(one["codespace"], one["code"]) for one in results] == [("undefined", PANIC), ("", 0)]
        assert "ZeroDivisionError" not in results[0]["log"]
        # A query handler, through ABCI, REST and gRPC's way of answering: an error, no detail of the bug.
        answer = comet.call("abci_query", path="/cosmos.bank.v1beta1.Query/Params", data="")["response"]
        assert (answer["codespace"], answer["code"]) == ("undefined", PANIC)
        rest = httpx.get(f"{net['rest']}/cosmos/bank/v1beta1/params")
        assert (rest.status_code, rest.json()["code"]) == (500, 13)
        assert httpx.get(f"{net['rest']}/cosmos/bank/v1beta1/supply").status_code == 200

        running.wait_for(running.height() + 2)
        assert running.height() > height
        metrics = httpx.get(f"{net['rest']}/metrics").text
        for call in ("check_tx", "query", "rest", "transaction"):
            [value] = [line.split()[-1] for line in metrics.splitlines() if line.startswith(f'stratos_panics_total{{call="{call}"}}')]
            assert float(value) >= 1
        assert b"ZeroDivisionError: a bug of this test build" in (tmp_path / "misbehaving.log").read_bytes()
        comet.close()
    finally:
        process.terminate()
        assert process.wait(30) == 0


def _result(comet: CometClient, tx_hash: str) -> Any:
    from chain.api.comet import CometRefused

    until = time.monotonic() + 30
    while time.monotonic() < until:
        try:
            return comet.call("tx", hash=base64.b64encode(bytes.fromhex(tx_hash)).decode(), prove=False)["tx_result"]
        except CometRefused:
            time.sleep(0.3)
    raise TimeoutError(f"{tx_hash} was not committed")
