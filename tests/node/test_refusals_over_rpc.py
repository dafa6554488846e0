"""Every bad transaction over the real RPC, and bad bytes and JSON at every door: refused by name, the node goes on, no account has changed."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from chain.api.comet import CometRefused, CometUnavailable
from chain.coins import Coin
from chain.crypto.hd import derive
from tests.app.refusals import CASES, Payer
from tests.support import ROOT, Devnet, devnet

pytestmark = pytest.mark.timeout(300)
PAYS = "more than there is"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Devnet]:
    with devnet(tmp_path_factory.mktemp("refusals")) as net:
        net.wait_for(2)
        yield net


@pytest.fixture(scope="module")
def payer(running: Devnet) -> Payer:
    plain = [one for one in running.net["accounts"] if one["key_type"] == "secp256k1"]
    private = derive(plain[0]["mnemonic"], plain[0]["hd_path"], "secp256k1")
    info = account(running, plain[0]["address"])
    fee = (Coin("wei", 200_000 * 10**9),)
    return Payer(private, 0, int(info["account_number"]), running.net["chain_id"], plain[1]["address"], "wei", fee)


def account(running: Devnet, address: str) -> Any:
    return httpx.get(f"{running.net['rest']}/cosmos/auth/v1beta1/account_info/{address}").json()["info"]


def balances(running: Devnet, address: str) -> Any:
    return httpx.get(f"{running.net['rest']}/cosmos/bank/v1beta1/balances/{address}").json()["balances"]


def test_bad_transactions_are_refused_by_their_rule_and_change_nothing(running: Devnet, payer: Payer) -> None:
    before = account(running, payer.address), balances(running, payer.address)
    seen: dict[str, tuple[str, int]] = {}
    for name, (build, _, _) in CASES.items():
        if name != PAYS:
            answer = running.rpc("broadcast_tx_sync", tx=_b64(build(payer)))
            seen[name] = (answer["codespace"], answer["code"])
    assert seen == {name: case[1:] for name, case in CASES.items() if name != PAYS}
    running.wait_for(running.height() + 2)
    assert (account(running, payer.address), balances(running, payer.address)) == before


def test_a_transaction_that_is_only_checked_is_never_executed(running: Devnet, payer: Payer) -> None:
    before = account(running, payer.address), balances(running, payer.address)
    assert running.rpc("check_tx", tx=_b64(payer.build()))["code"] == 0
    running.wait_for(running.height() + 3)
    assert (account(running, payer.address), balances(running, payer.address)) == before


def test_what_passes_the_ante_chain_and_then_fails_costs_its_fee(running: Devnet, payer: Payer) -> None:
    before = balances(running, payer.address)
    build, codespace, code = CASES[PAYS]
    sent = running.rpc("broadcast_tx_commit", tx=_b64(build(payer)))
    assert sent["check_tx"]["code"] == 0
    assert (sent["tx_result"]["codespace"], sent["tx_result"]["code"]) == (codespace, code)
    [coin] = balances(running, payer.address)
    assert int(coin["amount"]) == int(before[0]["amount"]) - payer.fee[0].amount


@pytest.mark.parametrize("size", [1_100_000, 10 << 20], ids=["above the mempool's limit", "ten megabytes"])
def test_huge_transactions_stop_at_cometbft_and_the_node_goes_on(running: Devnet, payer: Payer, size: int) -> None:
    with pytest.raises((CometRefused, CometUnavailable)):
        running.rpc("broadcast_tx_sync", tx=_b64(payer.build(body={"memo": "x" * size})))
    running.wait_for(running.height() + 1)


def test_duplicate_keys_are_refused_at_rest_on_the_command_line_and_in_a_genesis_file(running: Devnet, tmp_path: Path) -> None:
    answer = httpx.post(f"{running.net['rest']}/cosmos/tx/v1beta1/simulate", content=b'{"tx_bytes":"AA==","tx_bytes":"AAA="}')
    assert answer.status_code == 400
    assert "duplicate key 'tx_bytes'" in answer.json()["message"]
    signed = tmp_path / "tx.json"
    signed.write_text('{"body":{"memo":"a","memo":"b"},"auth_info":{},"signatures":[]}')
    genesis = tmp_path / "genesis.json"
    genesis.write_text(Path(running.net["home"], "config", "genesis.json").read_text().replace("{", '{"app_name":"a",', 1))
    for arguments in (("tx", "broadcast", str(signed), "--node", running.net["rpc"]), ("genesis", "validate", str(genesis))):
        done = subprocess.run(
            [sys.executable, "-m", "chain.cli.main", *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
            env={**os.environ, "STCHAIND_HOME": running.net["home"]},
        )
        assert done.returncode != 0, arguments
        assert "duplicate key" in done.stderr, done.stderr
        assert "Traceback" not in done.stderr
    running.wait_for(running.height() + 1)


def test_broken_requests_at_rest_are_answered_with_their_reason(running: Devnet) -> None:
    url = f"{running.net['rest']}/cosmos/tx/v1beta1/simulate"
    for content in (
        b"",
        b"{",
        b"[]",
        b'{"tx_bytes":"!"}',
        b'{"unknown":1}',
        b'{"tx_bytes":' + b"[" * 1000,
        json.dumps({"tx_bytes": "AA=="}).encode(),
    ):
        answer = httpx.post(url, content=content)
        assert 400 <= answer.status_code < 600, content[:40]
        assert answer.json()["message"], content[:40]
        assert "Traceback" not in answer.text


def _b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
