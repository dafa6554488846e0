"""Four validators with the real CometBFT, under load: a proposal changes a parameter, and a second one the version of all of them at a height."""

from __future__ import annotations

import base64
import time
from pathlib import Path

import pytest

from chain.api.comet import CometClient
from chain.cli.testnet import Account
from chain.crypto import address as bech32
from tests import builds
from tests.perturb.load import Load
from tests.perturb.manifest import Manifest
from tests.perturb.network import Network
from tests.perturb.run import RECIPIENT, balance
from tests.support import GOV, Cli, ask_until

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]
NUMBER = 1
NAME = builds.name(NUMBER)
MARGIN = 14
"""Blocks, beyond the vote's at the fastest, in which the proposal is made and voted for."""
AFTER = 5
"""Blocks of the new version that are looked at."""


def test_a_proposal_changes_a_parameter_and_a_second_one_upgrades_four_nodes_under_load(tmp_path: Path) -> None:
    manifest = Manifest(full_nodes=0, rate=30.0, senders=40)
    senders = [Account.new(f"sender{at}", "secp256k1") for at in range(manifest.senders)]
    net = Network(tmp_path, manifest, senders, seed=1)
    recipient = bech32.encode(RECIPIENT)
    load = Load(net.local.net["chain_id"], senders, net.first_sender, recipient, manifest.rate, net.rpcs, again_s=8)
    try:
        net.start()
        load.start()
        _change_a_parameter(net)
        height = _schedule(net)
        _halt(net, load, height)
        _go_on(net, load, height)
        assert load.drain(60) == 0
        net.recover(20, 60)
        net.compare(dict(load.committed))
        assert balance(net, recipient) == len(load.committed) == load.counts.offered > 300
        assert min(load.committed.values()) < height < max(load.committed.values())
        _refuse_the_old_build(net, height)
    finally:
        net.close()


def _change_a_parameter(net: Network) -> None:
    path = "/cosmos/staking/v1beta1/params"
    params = net.rest(path)["params"]
    assert params["max_entries"] == 7
    wanted = {**params, "max_entries": 5}
    net.decide("Fewer entries", {"@type": "/cosmos.staking.v1beta1.MsgUpdateParams", "authority": GOV, "params": wanted})
    for name in net.local.names:
        ask_until(lambda name=name: net.rest(path, name)["params"] == wanted, 10)


def _schedule(net: Network) -> int:
    """The height that the second proposal, passed, has the chain halt at."""
    height = net.schedule(NUMBER, "the next one", MARGIN)
    assert max(net.heights().values()) < height, "the vote was too slow for the margin"
    for name in net.local.names:
        ask_until(lambda name=name: (net.rest("/cosmos/upgrade/v1beta1/current_plan", name)["plan"] or {}).get("height") == str(height), 10)
    return height


def _halt(net: Network, load: Load, height: int) -> None:
    """Every node stops before the block of ``height``, says so, and answers."""
    ask_until(lambda: all(net.waits(name, height) for name in net.local.names), 60)
    offered = load.counts.offered
    time.sleep(2)
    assert load.counts.offered > offered
    assert load.height == height - 1
    for name in net.local.names:
        assert net.waits(name, height)
        assert net.local.is_running(name)
        assert net.upgrade_info(name) == {"name": NAME, "time": "0001-01-01T00:00:00Z", "height": height, "info": "the next one"}
        assert f'UPGRADE "{NAME}" NEEDED at height: {height}: the next one' in net.local.log(name).read_text()
        assert net.rest("/cosmos/upgrade/v1beta1/current_plan", name)["plan"]["name"] == NAME
        assert net.rest("/cosmos/staking/v1beta1/params", name)["params"]["max_entries"] == 5
        # CometBFT has the block, and the application a state with proofs of the one before.
        comet = CometClient(net.local.node(name)["rpc"])
        assert int(comet.call("status")["sync_info"]["latest_block_height"]) == height
        assert comet.abci_query("/store/upgrade/key", b"\x00", height - 1, True)["proofOps"]["ops"]
        comet.close()


def _go_on(net: Network, load: Load, height: int) -> None:
    before = {name: _versions(net, name) for name in net.local.names}
    processes = [net.local.process(name) for name in net.local.names]
    net.build = NUMBER
    net.switch()
    assert [process.returncode for process in processes] == [1] * len(processes), "a halted node ends with an error"
    net.recover(20, 60)
    for name in net.local.names:
        net.node(name).wait_for(height + AFTER)
        assert net.rest(f"/cosmos/upgrade/v1beta1/applied_plan/{NAME}", name) == {"height": str(height)}
        assert net.rest("/cosmos/upgrade/v1beta1/current_plan", name) == {"plan": None}
        versions = _versions(net, name)
        assert versions == {**before[name], builds.MODULE: before[name][builds.MODULE] + 1}
        for key, told in ((builds.AT, height), (builds.MIGRATED, height), (builds.COUNTED, AFTER)):
            assert _note(net, name, key, height + AFTER - 1) == told
    ask_until(lambda: max(load.committed.values()) > height, 30)


def _versions(net: Network, name: str) -> dict[str, int]:
    found = net.rest("/cosmos/upgrade/v1beta1/module_versions", name)["module_versions"]
    return {one["name"]: int(one["version"]) for one in found}


def _note(net: Network, name: str, key: bytes, height: int) -> int:
    comet = CometClient(net.local.node(name)["rpc"])
    try:
        return int(base64.b64decode(comet.abci_query(f"/store/{builds.store(NUMBER)}/key", key, height)["value"]))
    finally:
        comet.close()


def _refuse_the_old_build(net: Network, height: int) -> None:
    """The version before ends at once with a sentence, and leaves a home that the right one goes on with."""
    name = net.local.names[-1]
    net.local.stop(name)
    done = Cli(Path(net.local.node(name)["home"])).run("start")
    told = f"Error: the database holds stores this version does not know ({builds.store(NUMBER)}): run the version that wrote it\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", told)
    net.local.start(name)
    net.recover(20, 60)
    net.compare({})
