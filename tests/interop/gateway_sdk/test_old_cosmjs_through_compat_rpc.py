"""The CosmJS that stratos-sdk 2.0.0 is built on, 0.31.1, against a real node: not by itself, but through ``stchaind compat-rpc``.

old_cosmjs.mjs ─► stchaind compat-rpc ─► CometBFT 0.38 of a devnet
       └──────── and without it ───────────┘
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chain.api.compat import VERSION
from chain.crypto import address as bech32
from tests.interop.gateway_sdk.peers import compat_rpc, libraries
from tests.support import Devnet, devnet

pytestmark = [pytest.mark.interop, pytest.mark.timeout(600)]
COMMAND_S = 120
RECEIVER = bech32.encode(bytes(range(20)))
SENT_WEI = 1234


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Devnet]:
    with devnet(tmp_path_factory.mktemp("devnet")) as running:
        yield running


def asked(net: Devnet, rpc: str) -> dict[str, Any]:
    """What the old client is told at ``rpc``."""
    account = next(one for one in net.net["accounts"] if one["key_type"] == "secp256k1")
    command = ["node", "old_cosmjs.mjs", rpc, account["mnemonic"], account["hd_path"], RECEIVER]
    done = subprocess.run(command, cwd=libraries(), capture_output=True, text=True, timeout=COMMAND_S)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_without_it_the_client_takes_the_node_for_an_old_one_and_cannot_read_it(net: Devnet) -> None:
    found = asked(net, net.net["rpc"])
    assert found["reads"] == "Tendermint34Client"
    assert "error" in found["sent"], found
    assert "error" in found["batched"] or not found["batched"]["version"].startswith("0.37.")


def test_with_it_the_client_sends_and_reads(net: Devnet, tmp_path: Path) -> None:
    with compat_rpc(net.net["rpc"], tmp_path) as rpc:
        found = asked(net, rpc)
    assert found["reads"] == "Tendermint37Client"
    sent = found["sent"]
    assert sent["code"] == 0, sent
    [transfer] = [one for one in sent["events"] if one["type"] == "transfer" and {"key": "recipient", "value": RECEIVER} in one["attributes"]]
    assert {"key": "amount", "value": f"{SENT_WEI}wei"} in transfer["attributes"]
    assert int(found["balance"]) >= SENT_WEI
    results = found["results"]
    assert results["txs"] == 1
    assert "mint" in results["begin"]
    assert found["committed"]["check"] != 0
    assert found["committed"]["hasDelivery"] is True
    assert found["batched"] == {"version": VERSION, "height": 1}
    assert "error" in found["missing"]
