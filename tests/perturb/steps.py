"""The troubles there are. Each does its harm, waits, and mends it; the runner then sees that the chain goes on and every node comes back."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from typing import Final, TypeAlias

from chain import config
from chain.api.comet import CometClient
from chain.config import Home
from chain.testing.validators import ValidatorKey
from tests import builds, double_votes
from tests.perturb.manifest import Step
from tests.perturb.network import PLAYERS, Broken, Network
from tests.support import Cli, ask_until

Check: TypeAlias = Callable[[], None]
"""What must hold once the network is back; raises Broken."""
MARGIN = 10
"""Blocks between the end of the vote, at the fastest, and the upgrade: what it takes to propose and vote."""


def kill(net: Network, name: str, step: Step) -> None:
    """SIGKILL the application, and CometBFT with it."""
    with net.away(name):
        net.local.stop(name, number=signal.SIGKILL)
        time.sleep(step.for_s)
        net.local.start(name)


def kill_comet(net: Network, name: str, step: Step) -> None:
    """SIGKILL CometBFT alone: the application starts it again."""
    with net.away(name):
        net.local.refresh()
        pid = net.local.node(name)["comet_pid"]
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
        time.sleep(step.for_s)


def restart(net: Network, name: str, step: Step) -> None:
    """Stop in order, and start again."""
    with net.away(name):
        net.local.stop(name)
        time.sleep(step.for_s)
        net.local.start(name)


def pause(net: Network, name: str, step: Step) -> None:
    """SIGSTOP both processes, and let them go on."""
    with net.away(name):
        net.local.refresh()
        pids = [pid for pid in (net.local.node(name)["app_pid"], net.local.node(name)["comet_pid"]) if pid is not None]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(step.for_s)
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def disconnect(net: Network, name: str, step: Step) -> None:
    """No peer reaches the node, nor it any peer; clients still do."""
    with net.away(name):
        net.links.cut(name)
        time.sleep(step.for_s)
        net.links.mend(name)


def slow(net: Network, name: str, step: Step) -> None:
    """``delay_ms`` on every chunk from and to the node, and a part ``loss`` of them late by a retransmission."""
    net.links.slow(name, step.settings.get("delay_ms", 200) / 1000, step.settings.get("loss", 0.0))
    time.sleep(step.for_s)
    net.links.mend(name)


def join(net: Network, name: str, step: Step) -> None:
    """The node loses everything but its keys and what they signed, and joins again from the first block."""
    with net.away(name):
        _empty(net, name)
        # The first block is the first version's: Network.switch brings it through the upgrades.
        net.use(name, 0)
        time.sleep(step.for_s)
        net.local.start(name)


def sync(net: Network, name: str, step: Step) -> Check:
    """As ``join``, but by a snapshot of another node, with the version that the chain has now. The snapshot is of the last block with evidence or
    younger: CometBFT checks evidence by the header that it is about, and who joined by a snapshot in between lacks that.
    """
    home = net.home(name)
    others = [node for node in net.local.net["nodes"] if node["name"] != name]
    with net.away(name):
        _empty(net, name)
        net.use(name, net.build)
        least = max(net.double_signers.values(), default=1)
        ask_until(lambda: newest_snapshot(*(net.home(other["name"]) for other in others)) >= least, 60)
        trusted = net.node(others[0]["name"]).rpc("commit")["signed_header"]["commit"]
        servers = ",".join(other["rpc"] for other in others[:2])
        trust = {"trust_height": int(trusted["height"]), "trust_hash": trusted["block_id"]["hash"]}
        settings = {"enable": True, "rpc_servers": servers, "discovery_time": "5s", **trust}
        config.update(home.comet_config, {f"statesync.{key}": value for key, value in settings.items()})
        time.sleep(step.for_s)
        told_before = net.local.log(name).stat().st_size
        net.local.start(name)

    def check() -> None:
        config.update(home.comet_config, {"statesync.enable": False})
        if b"restored a snapshot" not in net.local.log(name).read_bytes()[told_before:]:
            raise Broken(f"{name} is back, but not by state sync")

    return check


def newest_snapshot(*homes: Home) -> int:
    """Height of the newest snapshot that is whole; 0 without one."""
    return max((int(found.parts[-3]) for home in homes for found in home.snapshots.glob("*/*/metadata.json")), default=0)


def _empty(net: Network, name: str) -> None:
    net.local.stop(name)
    home = net.home(name)
    signed = home.validator_state.read_bytes()
    Cli(home.root).ok("comet", "unsafe-reset-all", "--keep-addr-book")
    home.validator_state.write_bytes(signed)


def double_sign(net: Network, name: str, step: Step) -> None:
    """Two precommits for one height, signed with the validator's key file: the evidence gets into a block, and the validator out of the set."""
    key = ValidatorKey.from_file(net.home(name).validator_key)
    witness = net.node(next(other for other in net.local.names if other != name))
    height = witness.height() - 2
    comet = CometClient(witness.net["rpc"])
    double_votes.post(comet, net.local.net["chain_id"], key, height)
    comet.close()
    net.double_signers[name] = ask_until(lambda: net.evidence_height(height, key.address), 20)
    ask_until(lambda: all(one.address != key.address for one in net.validators(witness.height())), 20)


def upgrade(net: Network, name: str, step: Step) -> Check:
    """The validators agree on an upgrade; all nodes halt at its height, stay for ``for_s``, and are started with the build that begins with it."""
    number = net.build + 1
    height = net.schedule(number, "a test build", MARGIN)
    ask_until(lambda: all(net.waits(one, height) for one in net.local.names), 120)
    time.sleep(step.for_s)
    if not all(net.waits(one, height) for one in net.local.names):
        raise Broken(f"a node went on beyond the upgrade's height {height}")
    net.build = number
    with contextlib.ExitStack() as stack:
        for one in net.local.names:
            stack.enter_context(net.away(one))
        net.switch()

    def check() -> None:
        for one in net.local.names:
            if net.rest(f"/cosmos/upgrade/v1beta1/applied_plan/{builds.name(number)}", one) != {"height": str(height)}:
                raise Broken(f"{one} did not apply the upgrade at {height}")

    return check


def validators(net: Network, name: str, step: Step) -> None:
    """The set changes: the full node becomes a validator, or that one leaves and comes back; stake moves to ``name``, on to another, and off;
    ``name`` leaves for ``for_s`` and comes back.
    """
    joined = PLAYERS[0]
    if joined in net.operators:
        net.join_again(joined, net.leave(joined))
    else:
        net.create_validator(joined, next(node["name"] for node in net.local.net["nodes"] if not node["validator"]))
    net.moves += 1
    mover = PLAYERS[1 + net.moves % (len(PLAYERS) - 1)]
    other = next(one for one in net.validator_names if one != name and one not in net.double_signers)
    before = net.power(name)
    net.transact(mover, "staking", "delegate", net.valoper(name), "100stos")
    ask_until(lambda: net.power(name) > before)
    net.transact(mover, "staking", "redelegate", net.valoper(name), net.valoper(other), "90stos")
    net.transact(mover, "staking", "unbond", net.valoper(other), "80stos")
    stake = net.leave(name)
    time.sleep(step.for_s)
    net.join_again(name, stake)


STEPS: Final[dict[str, Callable[[Network, str, Step], Check | None]]] = {
    "kill": kill,
    "kill-comet": kill_comet,
    "restart": restart,
    "pause": pause,
    "disconnect": disconnect,
    "slow": slow,
    "join": join,
    "sync": sync,
    "double-sign": double_sign,
    "validators": validators,
    "upgrade": upgrade,
}
