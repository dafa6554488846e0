"""``ppd`` on a chain with the real CometBFT: registered, deposited, put to work, paid, gone."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chain.codec.registry import message_class
from chain.crypto import address as bech32
from chain.crypto.hd import derive, new_mnemonic
from sds_node.value_chain import Sender, ValueChain
from tests.sds_node.daemon.commands import ROOT, init, password_file, ppd, started, told
from tests.sds_node.value_chain.support import CHAIN_ID, STOS, Chain, running, send_of

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    with running(tmp_path_factory.mktemp("net"), register__unbonding_threashold_time="3s", register__unbonding_completion_time="3s") as chain:
        yield chain


def sent(net: Chain, name: str, *messages: Any) -> None:
    async def go() -> None:
        async with ValueChain(net.rpc) as chain:
            await Sender(chain, net.key(name)).send(list(messages))

    asyncio.run(go())


def fund(net: Chain, wallet: str, amount_wei: int) -> None:
    sent(net, "alice", send_of(net.key("alice"), bech32.decode(wallet), amount_wei))


def effective(net: Chain, node: str, amount_wei: int) -> None:
    """The chain's one meta node says how much of a deposit counts."""
    message = message_class("stratos.register.v1.MsgUpdateEffectiveDeposit")(
        reporters=[net.meta.network_address],
        reporter_owner=[bech32.encode(net.wallet("operator"))],
        network_address=node,
        effective_tokens=str(amount_wei),
    )
    sent(net, "operator", message)


def test_a_node_is_registered_put_to_work_and_leaves(net: Chain, tmp_path: Path) -> None:
    home = tmp_path / "home"
    made = init(home, rpc=net.rpc, chain_id="")
    assert made["chain_id"] == CHAIN_ID, "asked of the chain"
    assert told(home, "status")["chain"] == {"is_registered": False}

    code, _, err = ppd(home, "register", "--deposit", "2stos")
    assert (code, made["wallet"] in err) == (1, True), "the wallet has nothing yet, and is named"
    fund(net, made["wallet"], 5 * STOS)
    registered = told(home, "register", "--deposit", "2stos", "--moniker", "mine")
    assert (registered["was_registered"], registered["deposit_wei"]) == (False, str(2 * STOS))
    assert told(home, "register", "--deposit", "2stos")["was_registered"], "again does nothing"
    assert told(home, "deposit", "1stos")["added_wei"] == str(STOS)
    status = told(home, "status")["chain"]
    assert (status["deposit_wei"], status["effective_deposit_wei"], status["is_suspended"]) == (str(3 * STOS), "0", True)
    told(home, "update", "--website", "https://example.org")

    code, out, _ = ppd(home, "activate", "--timeout", "0", "-o", "json")
    assert (code, json.loads(out)["is_active"]) == (1, False)
    assert "ppd start" in json.loads(out)["waits_for"]
    with started(home) as node:
        code, out, _ = ppd(home, "activate", "--timeout", "0", "-o", "json")
        assert "meta nodes have not set" in json.loads(out)["waits_for"]
        effective(net, made["node"], 3 * STOS)
        assert told(home, "activate", "--timeout", "60")["effective_deposit_wei"] == str(3 * STOS)
        running_now = told(home, "status")
        assert running_now["is_running"]
        assert running_now["chain"]["standing"] == "active"
        assert running_now["chain_age_s"] is not None
        earned = told(home, "earnings")
        assert (earned["chain"]["mature_wei"], earned["network"]) == ("0", None)
        for arguments in (["withdraw"], ["withdraw", "1stos"]):
            code, _, err = ppd(home, *arguments)
            assert (code, f"nothing has matured for {made['wallet']} yet (nothing is maturing)" in err) == (1, True)

        left = told(home, "exit", "--yes")
        assert left["shares_left"] == 0
        assert told(home, "status")["is_leaving"]
        assert told(home, "status")["chain"]["standing"] == "leaving"
        assert node.end() == 0
    assert told(home, "earnings")["chain"]["immature_wei"] == "0"


def test_what_another_owner_registered_is_not_taken(net: Chain, tmp_path: Path) -> None:
    first, second = tmp_path / "a" / "home", tmp_path / "b" / "home"
    first.parent.mkdir()
    second.parent.mkdir()
    made = init(first, rpc=net.rpc)
    fund(net, made["wallet"], 3 * STOS)
    # The second home has the first one's node key and a wallet of its own.
    other = init(second, rpc=net.rpc, chain_id=CHAIN_ID)
    fund(net, other["wallet"], 3 * STOS)
    code, _, err = ppd(first, "register", "--deposit", "1stos")
    assert (code, "expected 'stratos-test-1'" in err) == (1, True), "the settings name another chain"
    assert ppd(first, "config", "set", "chain.id", CHAIN_ID)[0] == 0
    told(first, "register", "--deposit", "1stos")
    words = (first.parent / "password", first / "accounts" / f"{made['node']}.json")
    told(second, "keys", "import", str(words[1]), "--key-password-file", str(words[0]), "--use")
    code, _, err = ppd(second, "register", "--deposit", "1stos")
    assert code == 1
    assert f"registered already, by {made['wallet']}" in err


def test_coins_are_sent_and_a_refusal_of_the_chain_is_a_sentence(net: Chain, tmp_path: Path) -> None:
    home = tmp_path / "home"
    made = init(home, rpc=net.rpc, chain_id=CHAIN_ID)
    fund(net, made["wallet"], STOS)
    assert told(home, "send", bech32.encode(net.wallet("bob")), "0.1stos")["amount_wei"] == str(STOS // 10)
    code, _, err = ppd(home, "send", bech32.encode(net.wallet("bob")), "100stos")
    assert code == 1
    assert err.startswith("Error: ")
    assert "Traceback" not in err
    code, _, err = ppd(home, "deposit", "1stos")
    assert (code, "Traceback" in err) == (1, False)


def test_up_does_everything_in_one_step_and_does_it_once(net: Chain, tmp_path: Path) -> None:
    home = tmp_path / "home"
    words = tmp_path / "words"
    words.write_text(mnemonic := new_mnemonic())
    wallet = bech32.encode(derive(mnemonic).public_key.address)
    command = [sys.executable, "-m", "sds_node.cli.ppd", "up", "--home", str(home), "--rpc", net.rpc, "--mnemonic-file", str(words), "--yes"]
    command += ["--listen", "127.0.0.1:0", "--monitor-port", "0", "--reserve", "0", "--meta-node"]
    command += ["stsds1v0e40rs9ewwpxllax8a6dl2wu7v2ysnvlrgpuj@127.0.0.1:9"]
    environment = {**os.environ, "PPD_PASSWORD_FILE": password_file(tmp_path)}
    poor = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=90, check=False)
    assert poor.returncode == 1
    assert f"{wallet} has 0 STOS: send it" in poor.stderr
    fund(net, wallet, 5 * STOS)
    for _ in range(2):
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        until = time.monotonic() + 90
        while not told(home, "status")["is_running"]:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < until
            time.sleep(0.2)
        status = told(home, "status")
        assert (status["wallet"], status["chain"]["is_registered"]) == (wallet, True)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=90)
        assert process.returncode == 0, err
        assert "waiting: meta nodes have not set its effective deposit yet" in out, "the page says what is missing"
        assert "to withdraw now      0 STOS" in out
        assert "the node stopped" in err
    assert "registered with" not in err, "the second time there was nothing to register"
