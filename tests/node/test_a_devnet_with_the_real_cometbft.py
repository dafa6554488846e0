"""The devnet as ``make run`` starts it: blocks, a transaction by RPC, queries by gRPC and REST, a kill, and going on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from chain.codec.registry import message_class
from tests.support import ROOT, Devnet, devnet, free_ports

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Devnet]:
    with devnet(tmp_path_factory.mktemp("devnet")) as net:
        net.wait_for(2)
        yield net


def stchaind(running: Devnet, *arguments: str) -> Any:
    """A command with JSON output against the devnet."""
    command = [sys.executable, "-m", "chain.cli.main", *arguments, "-o", "json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "STCHAIND_HOME": running.net["home"]})
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def account(running: Devnet, name: str) -> dict[str, Any]:
    return next(one for one in running.net["accounts"] if one["name"] == name)


@pytest.mark.parametrize("sender", ["alice", "carol"])
def test_a_send_from_the_command_line_arrives(running: Devnet, sender: str) -> None:
    node = running.net["rpc"]
    target = account(running, "dave")["address"]
    before = int(stchaind(running, "query", "bank", "balance", target, "wei", "--node", node)["balance"]["amount"])
    sent = stchaind(
        running,
        *("tx", "bank", "send", sender, target, "1000wei", "--gas", "auto", "--gas-prices", "1gwei", "-y"),
        *("--keyring-backend", "test", "--home", running.net["home"], "--node", node),
    )
    assert sent["code"] == 0, sent
    running.wait_for(running.height() + 2)
    found = stchaind(running, "query", "tx", sent["txhash"], "--node", node)
    assert (found["code"], found["txhash"]) == (0, sent["txhash"])
    after = int(stchaind(running, "query", "bank", "balance", target, "wei", "--node", node)["balance"]["amount"])
    assert after == before + 1000


def test_grpc_answers_and_reflects(running: Devnet) -> None:
    with grpc.insecure_channel(running.net["grpc"]) as channel:
        request = message_class("cosmos.bank.v1beta1.QueryBalanceRequest")(address=account(running, "bob")["address"], denom="wei")
        ask = channel.unary_unary(
            "/cosmos.bank.v1beta1.Query/Balance",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=message_class("cosmos.bank.v1beta1.QueryBalanceResponse").FromString,
        )
        assert int(ask(request).balance.amount) == 10**24
        with pytest.raises(grpc.RpcError) as refused:
            ask(message_class("cosmos.bank.v1beta1.QueryBalanceRequest")(address="st1nothing", denom="wei"))
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        answers = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
        services = {service.name for service in next(iter(answers)).list_services_response.service}
        assert {"cosmos.bank.v1beta1.Query", "cosmos.tx.v1beta1.Service", "cosmos.base.tendermint.v1beta1.Service"} <= services


def test_rest_has_the_sdks_paths_and_error_bodies(running: Devnet) -> None:
    rest = running.net["rest"]
    bob = account(running, "bob")["address"]
    found = httpx.get(f"{rest}/cosmos/bank/v1beta1/balances/{bob}", params={"pagination.limit": "1"}).json()
    assert found == {"balances": [{"denom": "wei", "amount": str(10**24)}], "pagination": {"next_key": None, "total": "0"}}
    assert httpx.get(f"{rest}/cosmos/base/tendermint/v1beta1/blocks/latest").json()["block"]["header"]["chain_id"] == running.net["chain_id"]
    missing = httpx.get(f"{rest}/no/such/path")
    assert (missing.status_code, missing.json()) == (501, {"code": 12, "message": "Not Implemented", "details": []})
    bad = httpx.get(f"{rest}/cosmos/bank/v1beta1/balances/st1nothing")
    assert (bad.status_code, bad.json()["code"]) == (400, 3)
    assert httpx.get(f"{rest}/health").json()["status"] == "ok"


def test_a_killed_node_goes_on_where_it_was(tmp_path: Path) -> None:
    ports = free_ports(4)
    with devnet(tmp_path, ports=ports) as first:
        first.wait_for(3)
        [node] = [int(line) for line in subprocess.run(["pgrep", "-P", str(first.process.pid)], capture_output=True, text=True).stdout.split()]
        os.kill(node, signal.SIGKILL)
        first.process.wait(20)
    with devnet(tmp_path, ports=ports) as again:
        height = again.wait_for(5)
    assert height >= 5


def test_a_stopped_node_stops_in_order(tmp_path: Path) -> None:
    with devnet(tmp_path) as running:
        running.wait_for(2)
        assert running.stop() == 0
