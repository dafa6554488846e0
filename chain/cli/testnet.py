"""``stchaind testnet init-files``: the homes of a whole network, with one genesis file. Devnet and localnet are made here, too."""

from __future__ import annotations

import ipaddress
import json
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import click

from chain import config, metakeys, nodekeys
from chain.cli.genesis import GAS_LIMIT, modules, rehearse, tx_message
from chain.cli.keyring import setting
from chain.codec.json import to_json
from chain.codec.registry import message_class
from chain.codec.times import rfc3339
from chain.coins import Coin
from chain.config import ConfigError, Home
from chain.crypto import address as bech32
from chain.crypto import hd
from chain.crypto.keyring import ALGORITHMS, BACKENDS, open_keyring
from chain.crypto.keys import PrivateKey, public_key_to_any
from chain.node import VERSION
from chain.tx.build import Signer, build_tx
from chain.tx.fees import parse_gas_prices
from genesis import build, document

FUNDS_WEI: Final = 10**24
STAKE_WEI: Final = 10**21
META_DEPOSIT_WEI: Final = 10**21
FOUNDATION_WEI: Final = 40_000_000 * 10**18
"""All that is ever mined."""
MAX_NODES: Final = 100
SHORT_PERIODS: Final[Mapping[str, Any]] = {
    "staking.unbonding_time": "60s",
    "slashing.signed_blocks_window": "50",
    "slashing.min_signed_per_window": "0.500000000000000000",
    "slashing.downtime_jail_duration": "20s",
    "gov.max_deposit_period": "20s",
    "gov.voting_period": "20s",
    "gov.expedited_voting_period": "10s",
    "register.unbonding_threashold_time": "30s",
    "register.unbonding_completion_time": "30s",
    "register.voting_period": "60s",
    "pot.epoch_duration_s": "30",
    "pot.mature_epoch": "4",
    "settlement.challenge_blocks": 30,
}
"""Parameters of the networks that developers run: what takes weeks on a real chain takes a minute."""
_GO_TIME: Final = re.compile(r"(?:[0-9]{1,9}(?:ms|s|m|h))+")
SHORT_EVIDENCE: Final = {**build.DEFAULT_CONSENSUS_PARAMS["evidence"], "max_age_num_blocks": "60", "max_age_duration": "60000000000"}
"""Evidence must not outlive the stake that it can take (nanoseconds)."""


@dataclass(frozen=True)
class Account:
    """A funded key, known by its words."""

    name: str
    key_type: str
    mnemonic: str
    hd_path: str = hd.DEFAULT_PATH

    @classmethod
    def new(cls, name: str, key_type: str) -> Account:
        return cls(name, key_type, hd.new_mnemonic())

    @cached_property
    def key(self) -> PrivateKey:
        return hd.derive(self.mnemonic, self.hd_path, self.key_type)

    @property
    def address(self) -> str:
        return bech32.encode(self.key.public_key.address)

    def told(self) -> dict[str, str]:
        """For the network's JSON file."""
        return {"name": self.name, "address": self.address, "key_type": self.key_type, "hd_path": self.hd_path, "mnemonic": self.mnemonic}


@dataclass(frozen=True)
class Node:
    """One node to be: ``ports`` are those of rpc, p2p, grpc and rest; a node without ``operator`` is no validator."""

    name: str
    home: Home
    ports: Mapping[str, int]
    operator: Account | None = None
    host: str = "127.0.0.1"
    listen: str = "127.0.0.1"

    @property
    def peer(self) -> str:
        """ID@HOST:PORT, as ``persistent_peers`` and memos have it."""
        return f"{nodekeys.node_id(self.home)}@{self.host}:{self.ports['p2p']}"


def make_network(
    nodes: Sequence[Node],
    chain_id: str,
    accounts: Sequence[Account],
    *,
    params: Mapping[str, Any] | None = None,
    consensus: Mapping[str, Any] | None = None,
    comet: Mapping[str, Any] | None = None,
    app: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Write every home: keys, configuration, genesis file. Returns the gentxs.

    ``accounts`` (operators among them) get FUNDS_WEI each, operators stake STAKE_WEI. Every validator is a meta node, too, with keys in its home and a
    deposit of META_DEPOSIT_WEI that its operator gets beside. The foundation has all that is to be mined, and the supply is kept at what this file
    hands out, unless ``params`` names another ``pot.initial_total_supply``. ``params`` changes module parameters
    (``staking.unbonding_time``), ``consensus`` sections of the consensus parameters, ``comet`` and ``app`` settings of the files of every home.
    Raises ConfigError, GenesisError.
    """
    made = build.default_document(modules(), chain_id, rfc3339(int(time.time())), VERSION)
    for name, value in (params or {}).items():
        set_param(made, name, value)
    made = document.normalise(made)
    made["consensus"] = {"params": {**made["consensus"]["params"], **(consensus or {})}}
    for account in accounts:
        build.add_account(made, account.key.public_key.address, (Coin("wei", FUNDS_WEI),))
    for node in nodes:
        nodekeys.create_missing(node.home)
        if node.operator is not None:
            build.add_account(made, node.operator.key.public_key.address, (Coin("wei", META_DEPOSIT_WEI),), append=True)
            build.add_meta_node(made, _meta_node(node, node.operator, chain_id), node.name)
    build.add_foundation(made, (Coin("wei", FOUNDATION_WEI),))
    if "pot.initial_total_supply" not in (params or {}):
        build.pin_supply(made)
    gentxs = [_gentx(node, node.operator, chain_id) for node in nodes if node.operator is not None]
    made["app_state"]["genutil"]["gen_txs"] = gentxs
    build.validate(made, modules())
    rehearse(made)
    for node in nodes:
        config.write_defaults(node.home, node.name)
        peers = ",".join(other.peer for other in nodes if other is not node)
        laddr, rpc = (f"tcp://{node.listen}:{node.ports[name]}" for name in ("p2p", "rpc"))
        config.update(node.home.comet_config, {"rpc.laddr": rpc, "p2p.laddr": laddr, "p2p.persistent_peers": peers, **(comet or {})})
        # gRPC and REST stay on loopback: who wants them elsewhere puts a proxy in front.
        served = {"grpc.address": f"127.0.0.1:{node.ports['grpc']}", "api.address": f"tcp://127.0.0.1:{node.ports['rest']}"}
        config.update(node.home.app_config, {**served, **(app or {})})
        document.save(made, node.home.genesis)
    return gentxs


def short_periods() -> dict[str, Any]:
    """SHORT_PERIODS of the modules that this chain has."""
    present = {module.name for module in modules()}
    return {name: value for name, value in SHORT_PERIODS.items() if name.partition(".")[0] in present}


def set_param(made: dict[str, Any], path: str, value: Any) -> None:
    """Change ``MODULE.PARAMETER`` in a genesis document. Raises ConfigError when there is none of that name."""
    module, _, name = path.partition(".")
    section = made["app_state"].get(module)
    params = section.get("params") if isinstance(section, dict) else None
    if not isinstance(params, dict) or name not in params:
        raise ConfigError(f"{path[:80]} is no parameter of this chain's genesis file: expected MODULE.PARAMETER, as staking.unbonding_time")
    params[name] = value


def fill_keyring(home: Home, accounts: Sequence[Account], backend: str = "test") -> None:
    """Put the accounts that are missing into the home's keyring."""
    ring = open_keyring(backend, home.root)
    for account in accounts:
        if not ring.has(account.name):
            ring.add_private(account.name, account.key)


def _gentx(node: Node, operator: Account, chain_id: str) -> dict[str, Any]:
    message = message_class("cosmos.staking.v1beta1.MsgCreateValidator")(
        description={"moniker": node.name},
        validator_address=bech32.encode(operator.key.public_key.address, bech32.VALIDATOR),
        pubkey=public_key_to_any(nodekeys.validator_key(node.home)),
        min_self_delegation="1",
        value={"denom": "wei", "amount": str(STAKE_WEI)},
    )
    message.commission.rate, message.commission.max_rate, message.commission.max_change_rate = str(10**17), str(2 * 10**17), str(10**16)
    unsigned = build_tx([message], fee=(), gas_limit=GAS_LIMIT, signers=[Signer(operator.key.public_key, 0)], memo=node.peer)
    tx: dict[str, Any] = to_json(tx_message(unsigned.sign([operator.key], chain_id)))
    return tx


def _meta_node(node: Node, owner: Account, chain_id: str) -> dict[str, Any]:
    """A node's meta node for genesis; its keys are made where the home has none."""
    path = metakeys.path_in(node.home)
    if not path.exists():
        metakeys.MetaKeys.new().save(path)
    return metakeys.read(path).genesis_node(chain_id, owner.address, META_DEPOSIT_WEI, node.name)


@click.group()
def testnet() -> None:
    """Networks for trying things out."""


@testnet.command("init-files")
@click.option("--v", "--validator-count", "count", type=click.IntRange(1, MAX_NODES), default=4, show_default=True, help="How many validators.")
@click.option("-o", "--output-dir", type=click.Path(file_okay=False), default="./.testnets", show_default=True, help="Where the homes are made.")
@click.option("--chain-id", default="", help="The chain's id (default: made up).")
@click.option("--starting-ip-address", default="192.168.0.1", show_default=True, help="IPv4 address of the first node; each further one counts up.")
@click.option("--single-host", is_flag=True, help="All on 127.0.0.1: node N has the ports 16656, 26657, 9090 and 1317, each plus N.")
@click.option("--node-dir-prefix", default="node", show_default=True, help="Folders, monikers and keys are this and a number.")
@click.option("--node-daemon-home", default="stchaind", show_default=True, help="Name of the home inside a node's folder.")
@click.option("--keyring-backend", metavar="|".join(BACKENDS), help="Where the operators' keys are kept.  [default: test]")
@click.option("--key-type", "--algo", type=click.Choice(ALGORITHMS), default=ALGORITHMS[0], show_default=True, help="Of the operators' keys.")
@click.option("--minimum-gas-prices", default=config.APP_DEFAULTS["minimum-gas-prices"], show_default=True)
@click.option("--commit-timeout", default="", help="CometBFT's timeout_commit, as 1s: about the time of a block.")
def init_files(output_dir: str, chain_id: str, node_dir_prefix: str, node_daemon_home: str, **options: Any) -> None:
    """Make the homes of a network of validators, to be copied to their machines or to run on one.

    Each operator's words are in key_seed.json of the home, the gentxs in the folder gentxs. Every validator is a meta node, too: its keys are in
    config/meta_keys.json of the home.

    \b
    stchaind testnet init-files --v 4 --output-dir ./net --starting-ip-address 192.168.10.2
    stchaind testnet init-files --single-host
    """
    folder, single = Path(output_dir), bool(options["single_host"])
    count, backend = options["count"], setting("keyring-backend") or "test"
    chain_id = chain_id or f"chain-{secrets.token_hex(3)}"
    hosts = ["127.0.0.1"] * count if single else _addresses(options["starting_ip_address"], count)
    try:
        parse_gas_prices(options["minimum_gas_prices"])
    except ValueError as error:
        raise click.ClickException(f"--minimum-gas-prices: {error}") from None
    commit = options["commit_timeout"]
    if commit and _GO_TIME.fullmatch(commit) is None:
        raise click.ClickException(f"--commit-timeout: expected a time as 1s or 500ms, got {commit[:40]!r}")
    nodes = []
    for number, host in enumerate(hosts):
        name = f"{node_dir_prefix}{number}"
        home = Home(folder / name / node_daemon_home)
        if home.root.exists():
            raise click.ClickException(f"{home.root} exists: name another --output-dir, or remove that network first")
        offset = number if single else 0
        ports = {"rpc": 26657 + offset, "p2p": (16656 if single else 26656) + offset, "grpc": 9090 + offset, "rest": 1317 + offset}
        nodes.append(Node(name, home, ports, Account.new(name, options["key_type"]), host, "127.0.0.1" if single else "0.0.0.0"))  # noqa: S104
    operators = [node.operator for node in nodes if node.operator is not None]
    comet: dict[str, Any] = {"p2p.addr_book_strict": False}
    if single:
        comet |= {"p2p.allow_duplicate_ip": True, "p2p.pex": False}
    if commit:
        comet["consensus.timeout_commit"] = commit
    gentxs = make_network(nodes, chain_id, operators, comet=comet, app={"minimum-gas-prices": options["minimum_gas_prices"]})
    (folder / "gentxs").mkdir(exist_ok=True)
    for node, operator, gentx in zip(nodes, operators, gentxs, strict=True):
        config.write_client(node.home, chain_id, keyring_backend=backend, node=f"tcp://127.0.0.1:{node.ports['rpc']}")
        fill_keyring(node.home, [operator], backend)
        nodekeys.write_private(node.home.root / "key_seed.json", {"secret": operator.mnemonic})
        (folder / "gentxs" / f"{node.name}.json").write_text(json.dumps(gentx, separators=(",", ":")))
    click.echo(f"Successfully initialized {count} node directories", err=True)


def _addresses(first: str, count: int) -> list[str]:
    try:
        start = ipaddress.IPv4Address(first)
        return [str(start + at) for at in range(count)]
    except ValueError:
        raise click.ClickException(f"--starting-ip-address must be an IPv4 address with room for {count} nodes, got {first[:60]!r}") from None
