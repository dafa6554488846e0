"""stratos-sdk 2.0.0, unmodified, against a whole network: reference sds.md 10.7, step by step. The tests tell one story, in their order.

    sdk.mjs (the SDK's package) ─► REST, compat-rpc ─► the chain
                                └► JSON-RPC ─► gateway of node1 ─► nodes 2 to 4

The SDK is in no registry: ``STRATOS_SDK`` names the folder of its package with its dependencies installed; without it these tests are skipped.
"""

from __future__ import annotations

import json
import random
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from chain.crypto import hd
from sds_node.hashes import file_hash
from tests.interop.gateway_sdk import peers
from tests.interop.storage import serves, storage_network
from tests.sds_node.gateway.memory import HELLO, HELLO_HASH, VECTORS, signature
from tests.support import ask_until
from tools.network import Network

pytestmark = [
    pytest.mark.interop,
    pytest.mark.timeout(1_200),
    pytest.mark.skipif(peers.sdk() is None, reason=f"stratos-sdk 2.0.0 is in no registry: name the folder of its package by {peers.SDK}"),
]
NODES = 4
"""A gateway does not store with the node that it runs beside, and a file of 3 replicas needs 3 others."""
WORDS = " ".join(["abandon"] * 11 + ["about"])
OWNER, READER = hd.new_mnemonic(), hd.new_mnemonic()
STORED = 3
SIZES = {"one": 1, "chunk": 3_500_001, "slice": 33_554_432, "beyond": 33_554_433, "large": 100_000_000}
PREPAY, WITHDRAW = "/stratos.sds.v1.MsgPrepay", "/cosmos.distribution.v1beta1.MsgWithdrawDelegatorReward"
DELEGATE, UNDELEGATE = "/cosmos.staking.v1beta1.MsgDelegate", "/cosmos.staking.v1beta1.MsgUndelegate"
HISTORY_PREPAY = 5


class Sdk:
    """``sdk.mjs`` as a process: what the SDK answers."""

    def __init__(self, errors: Path) -> None:
        folder = peers.sdk()
        assert folder is not None
        with errors.open("wb") as out:
            self.process = subprocess.Popen(
                ["node", "sdk.mjs", str(folder)], cwd=peers.libraries(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=out, text=True
            )
        self._errors = errors

    def answer(self, **request: Any) -> Any:
        """What the SDK returns, or {"error": what it throws}."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, self._errors.read_text()
        return json.loads(line)

    def ask(self, **request: Any) -> Any:
        """The same of what must not throw."""
        found = self.answer(**request)
        assert not (isinstance(found, dict) and "error" in found), found
        return found

    def call(self, function: str, *arguments: Any) -> Any:
        return self.ask(call=function, args=arguments)

    def files(self, function: str, *arguments: Any) -> Any:
        return self.call(f"sds.remoteFileSystem.remoteFileSystemApi.{function}", *arguments)

    def transact(self, who: str, function: str, *arguments: Any) -> Any:
        """The answer to a transaction that must succeed, once it is in a block."""
        found = self.ask(who=who, transact=function, args=arguments)
        assert found["code"] == 0, found
        return found

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    with storage_network(tmp_path_factory.mktemp("sdk"), NODES) as made:
        yield made


@pytest.fixture(scope="module")
def gateway(network: Network) -> str:
    url: str = network.net["resource_nodes"][0]["gateway"]
    ask_until(lambda: serves(url))
    return url


@pytest.fixture(scope="module")
def sdk(network: Network, gateway: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sdk]:
    """With the wallet bank, which has coins."""
    folder = tmp_path_factory.mktemp("rpc")
    with peers.compat_rpc(network.net["rpc"], folder) as rpc:
        made = Sdk(folder / "sdk.log")
        try:
            node, _, port = gateway.rstrip("/").rpartition(":")
            environment = {"restUrl": network.net["rest"], "rpcUrl": rpc, "chainId": "", "explorerUrl": "", "ppNodeUrl": node, "ppNodePort": port}
            assert made.ask(init=environment)["chainId"] == network.net["chain_id"]
            bank = next(one for one in network.chain_info["accounts"] if one["name"] == "alice")
            assert made.ask(wallet="bank", words=bank["mnemonic"], index=0)["address"] == bank["address"]
            yield made
        finally:
            made.close()


def me(name: str) -> dict[str, str]:
    """A wallet's key pair, for sdk.mjs."""
    return {"$wallet": name}


@pytest.fixture(scope="module")
def owner(sdk: Sdk) -> str:
    return str(sdk.ask(wallet="owner", words=OWNER, index=0)["address"])


@pytest.fixture(scope="module")
def reader(sdk: Sdk) -> str:
    return str(sdk.ask(wallet="reader", words=READER, index=0)["address"])


def ozone(sdk: Sdk, address: str) -> int:
    return int(sdk.call("accounts.accountsApi.getOtherBalanceCardMetrics", address)["detailedBalance"]["ozone"])


def sequence(sdk: Sdk, address: str) -> str:
    return str(sdk.call("accounts.accountsApi.getOtherBalanceCardMetrics", address)["detailedBalance"]["sequence"])


def stos(sdk: Sdk, address: str, what: str) -> float:
    return float(sdk.call("accounts.accountsApi.getBalanceCardMetrics", address)[what].split(" ")[0].replace(",", ""))


def test_keys_signatures_and_hashes_are_those_of_the_vectors(sdk: Sdk, tmp_path: Path) -> None:
    found = sdk.call("crypto.hdVault.wallet.deriveKeyPairFromMnemonic", WORDS, 0)
    wallet, signed = VECTORS["wallet"], VECTORS["signed_strings"][0]
    assert (found["address"], found["publicKey"], found["privateKey"]) == (wallet["address"], wallet["public_key_text"], wallet["private_key"])
    assert sdk.call("crypto.hdVault.keyUtils.signWithPrivateKey", signed["text"], found["privateKey"]) == signed["signature"]
    (tmp_path / "hello").write_bytes(HELLO)
    assert sdk.call("filesystem.filesystemApi.calculateFileHash", str(tmp_path / "hello")) == HELLO_HASH


def test_coins_are_sent_and_seen(sdk: Sdk, owner: str, reader: str) -> None:
    for to, amount in ((owner, 12), (reader, 6)):
        sdk.transact("bank", "chain.transactions.getSendTx", [{"amount": amount, "toAddress": to}])
    assert sdk.call("accounts.accountsApi.getBalance", owner, "wei", 4) == "12.0000"
    assert stos(sdk, reader, "available") == 6


def test_stake_is_delegated_rewarded_and_taken_back(sdk: Sdk, owner: str) -> None:
    [validator] = sdk.call("chain.validators.validatorsApi.getValidators")["data"]
    part = {"amount": 2, "validatorAddress": validator["address"]}
    sdk.transact("owner", "chain.transactions.getDelegateTx", [part])
    assert stos(sdk, owner, "delegated") == 2
    sdk.transact("owner", "chain.transactions.getWithdrawalAllRewardTx")
    sdk.transact("owner", "chain.transactions.getUnDelegateTx", [{**part, "amount": 1}])
    assert (stos(sdk, owner, "delegated"), stos(sdk, owner, "unbounding")) == (1, 1)


def test_ozone_is_bought(sdk: Sdk, owner: str, reader: str) -> None:
    for name, address in (("owner", owner), ("reader", reader)):
        assert ozone(sdk, address) == 0
        sdk.transact(name, "sds.transactions.getSdsPrepayTx", [{"amount": 4}])
    for address in (owner, reader):
        ask_until(partial(ozone, sdk, address))


def test_the_history_has_what_was_done_newest_first(sdk: Sdk, owner: str) -> None:
    found = sdk.call("accounts.accountsApi.getAccountTrasactions", owner)
    assert [one["txMessages"][0]["txType"] for one in found["data"]] == [PREPAY, UNDELEGATE, WITHDRAW, DELEGATE]
    assert all(one["statusCode"] == 0 and one["hash"] and int(one["block"]) > 0 for one in found["data"])
    [bought] = sdk.call("accounts.accountsApi.getAccountTrasactions", owner, HISTORY_PREPAY)["data"]
    assert bought["hash"] == found["data"][0]["hash"]


@pytest.fixture(scope="module")
def sent(sdk: Sdk, owner: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The files of 10.7, each as the SDK has sent it."""
    folder, made = tmp_path_factory.mktemp("files"), {}
    for number, (name, size) in enumerate(SIZES.items()):
        path = made[name] = folder / f"{name}.bin"
        path.write_bytes(random.Random(number).randbytes(size))
        told = sdk.files("updloadFile", me("owner"), str(path))
        assert (told["filehash"], told["uploadReturn"]) == (file_hash(path.read_bytes()), "0")
        assert (told["fileStatusInfo"]["fileUploadState"], told["fileStatusInfo"]["userHasFile"], told["fileStatusInfo"]["replicas"]) == (
            STORED,
            True,
            3,
        )
    return made


def test_files_of_every_size_are_stored_and_listed(sdk: Sdk, owner: str, sent: dict[str, Path]) -> None:
    listed = sdk.files("getUploadedFileList", me("owner"), 0)["files"]
    assert {one["filename"]: (one["filehash"], one["filesize"]) for one in listed} == {
        path.name: (file_hash(path.read_bytes()), path.stat().st_size) for path in sent.values()
    }


def test_files_of_every_size_come_back_as_they_were(sdk: Sdk, owner: str, sent: dict[str, Path], tmp_path: Path) -> None:
    for name, path in sent.items():
        content = path.read_bytes()
        sdk.files("downloadFile", me("owner"), str(tmp_path / name), file_hash(content), len(content))
        assert (tmp_path / name).read_bytes() == content, name


def test_an_upload_that_was_left_is_stopped_and_begun_again(sdk: Sdk, reader: str, tmp_path: Path) -> None:
    """The SDK gets -13, stops the other upload (-14), and repeats its very first call."""
    path = tmp_path / "again.bin"
    path.write_bytes(random.Random(77).randbytes(100_000))
    wanted, number = file_hash(path.read_bytes()), sequence(sdk, reader)
    time_s = int(time.time())
    signed = signature(hd.derive(READER, hd.DEFAULT_PATH, "eth_secp256k1"), f"{wanted}{reader}{number}{time_s}")
    left = {"filename": "left.bin", "filesize": 100_000, "filehash": wanted, "signature": signed, "req_time": time_s, "sequencenumber": number}
    assert sdk.call("network.networkApi.sendUserRequestUpload", [left])["response"]["result"]["return"] == "1"
    assert sdk.call("network.networkApi.sendUserRequestUpload", [left])["response"]["result"]["return"] == "-13"
    assert sdk.files("updloadFile", me("reader"), str(path))["fileStatusInfo"]["fileUploadState"] == STORED
    [listed] = sdk.files("getUploadedFileList", me("reader"), 0)["files"]
    assert (listed["filename"], listed["filehash"]) == ("again.bin", wanted)


def test_a_shared_file_is_read_by_another_wallet_until_the_share_is_stopped(
    sdk: Sdk, owner: str, reader: str, sent: dict[str, Path], tmp_path: Path
) -> None:
    content = sent["chunk"].read_bytes()
    before = ozone(sdk, reader)
    shared = sdk.files("shareFile", me("owner"), file_hash(content))
    listed = sdk.files("getSharedFileList", me("owner"), 0)
    assert (listed["totalnumber"], listed["files"][0]["shareid"], listed["files"][0]["filename"]) == (1, shared["shareid"], "chunk.bin")
    sdk.files("downloadSharedFile", me("reader"), str(tmp_path / "shared"), shared["sharelink"], len(content))
    assert (tmp_path / "shared").read_bytes() == content
    ask_until(lambda: len(content) <= before - ozone(sdk, reader) <= len(content) * 105 // 100)
    assert sdk.files("stopFileSharing", me("owner"), shared["shareid"]) is True
    assert sdk.files("getSharedFileList", me("owner"), 0) == {"files": [], "totalnumber": 0}
    again = sdk.answer(
        call="sds.remoteFileSystem.remoteFileSystemApi.downloadSharedFile",
        args=[me("reader"), str(tmp_path / "no"), shared["sharelink"], len(content)],
    )
    assert "-6" in again["error"]
    assert not (tmp_path / "no").exists()


def test_a_wallet_without_ozone_is_told_so(sdk: Sdk, tmp_path: Path) -> None:
    (tmp_path / "hello").write_bytes(HELLO)
    sdk.ask(wallet="poor", words=WORDS, index=9)
    found = sdk.answer(call="sds.remoteFileSystem.remoteFileSystemApi.updloadFile", args=[me("poor"), str(tmp_path / "hello")])
    assert "error" in found
