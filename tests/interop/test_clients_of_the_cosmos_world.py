"""CosmJS, cosmpy and curl against a running devnet, unmodified."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.interop import peers
from tests.support import Devnet, devnet

pytestmark = [pytest.mark.interop, pytest.mark.timeout(900)]
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Devnet]:
    with devnet(tmp_path_factory.mktemp("interop")) as net:
        net.wait_for(2)
        yield net


@pytest.fixture(scope="module")
def cosmjs(running: Devnet) -> Any:
    folder = peers.cosmjs()
    path = Path(running.net["home"]).parent / "devnet.json"
    done = subprocess.run(["node", "check.mjs", str(path)], cwd=folder, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_cosmjs_reads_chain_accounts_and_balances(running: Devnet, cosmjs: Any) -> None:
    assert cosmjs["chainId"] == cosmjs["status"] == running.net["chain_id"]
    assert cosmjs["aliceBefore"] == {"denom": "wei", "amount": str(10**24)}
    assert cosmjs["account"]["sequence"] == 0
    assert cosmjs["missingAccount"] is None
    plain = next(one for one in running.net["accounts"] if one["key_type"] == "secp256k1")
    assert cosmjs["directAddress"] == plain["address"]


def test_cosmjs_simulates_and_sends_direct(cosmjs: Any) -> None:
    assert 50_000 < int(cosmjs["simulated"]) < 200_000
    assert cosmjs["direct"]["code"] == 0
    assert int(cosmjs["direct"]["gasUsed"]) <= int(cosmjs["direct"]["gasWanted"])
    kinds = [event["type"] for event in cosmjs["direct"]["events"]]
    assert kinds.count("transfer") == 2
    assert kinds.count("tx") == 3


def test_cosmjs_sends_amino_with_text_outside_ascii(cosmjs: Any) -> None:
    assert cosmjs["amino"]["code"] == 0, cosmjs["amino"]


def test_cosmjs_sends_from_a_two_of_three_multisig(cosmjs: Any) -> None:
    assert cosmjs["multisig"]["code"] == 0, cosmjs["multisig"]


def test_cosmjs_sees_the_sdks_code_for_a_stale_sequence(cosmjs: Any) -> None:
    assert cosmjs["wrongSigner"]["code"] == 32
    assert cosmjs["wrongSigner"]["codespace"] == "sdk"


def test_cosmjs_finds_transactions_and_blocks(cosmjs: Any) -> None:
    assert cosmjs["byHash"]["code"] == 0
    assert cosmjs["direct"]["hash"] in cosmjs["byRecipient"]
    assert cosmjs["bySequence"] >= 1
    assert cosmjs["block"]["height"] == cosmjs["direct"]["height"]
    assert cosmjs["block"]["txs"] >= 1
    assert cosmjs["blockResults"] >= 1


def test_cosmjs_gets_proofs(cosmjs: Any) -> None:
    assert cosmjs["proof"] == {"code": 0, "ops": ["ics23:iavl", "ics23:simple"]}


@pytest.fixture(scope="module")
def cosmpy(running: Devnet, cosmjs: Any) -> Any:
    path = Path(running.net["home"]).parent / "devnet.json"
    done = subprocess.run([peers.cosmpy_python(), HERE / "cosmpy_check.py", path], capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("transport", ["grpc", "rest"])
def test_cosmpy_sends_and_reads(cosmpy: Any, transport: str) -> None:
    seen = cosmpy[transport]
    assert seen["send"]["code"] == 0
    assert seen["after"] == seen["before"] + 4321
    assert seen["height"] >= seen["send"]["height"]
    assert seen["validators"] == 1


def test_curl_reads_a_balance(running: Devnet) -> None:
    address = running.net["accounts"][1]["address"]
    url = f"{running.net['rest']}/cosmos/bank/v1beta1/balances/{address}/by_denom?denom=wei"
    found = json.loads(subprocess.run(["curl", "-sf", url], capture_output=True, check=True).stdout)
    assert found == {"balance": {"denom": "wei", "amount": str(10**24)}}


def test_cosmjs_hears_of_blocks_and_transactions_over_a_websocket(cosmjs: Any) -> None:
    heard = cosmjs["heard"]
    assert heard["block"] >= 1
    assert heard["header"] >= 1
    assert (heard["tx"], heard["code"]) == (heard["sent"], 0)


def grpcurl(running: Devnet, *arguments: str) -> str:
    command = [peers.grpcurl(), "-plaintext", "-max-msg-sz", str(64 << 20), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_grpcurl_lists_describes_and_calls_by_reflection(running: Devnet) -> None:
    address = running.net["grpc"]
    listed = grpcurl(running, address, "list").split()
    assert {"cosmos.bank.v1beta1.Query", "cosmos.tx.v1beta1.Service", "grpc.reflection.v1.ServerReflection"} <= set(listed)
    for service in listed:
        assert "is a service" in grpcurl(running, address, "describe", service), service
    described = grpcurl(running, address, "describe", "cosmos.tx.v1beta1.Tx")
    assert "cosmos.tx.v1beta1.TxBody body = 1" in described
    bob = running.net["accounts"][1]["address"]
    request = json.dumps({"address": bob, "denom": "wei"})
    answer = json.loads(grpcurl(running, "-d", request, address, "cosmos.bank.v1beta1.Query/Balance"))
    assert answer == {"balance": {"denom": "wei", "amount": str(10**24)}}
    at_one = grpcurl(running, "-v", "-H", "x-cosmos-block-height: 1", "-d", request, address, "cosmos.bank.v1beta1.Query/Balance")
    assert "x-cosmos-block-height: 1" in at_one


def test_the_openapi_document_is_valid(running: Devnet) -> None:
    document = subprocess.run(["curl", "-sf", f"{running.net['rest']}/swagger/openapi.json"], capture_output=True, check=True).stdout
    check = "import json, sys; from openapi_spec_validator import validate; validate(json.load(sys.stdin))"
    done = subprocess.run([peers.openapi_python(), "-c", check], input=document, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    broken = document.replace(b'"openapi":"3.0.3"', b'"openapi":3')
    assert subprocess.run([peers.openapi_python(), "-c", check], input=broken, capture_output=True).returncode != 0
