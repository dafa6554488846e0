"""Lives of resource nodes and meta nodes on four validators, to the last wei: nodes come, ozone is bought, ten epochs are reported and paid, rewards mature
and are withdrawn, a node is slashed and works again, all leave and are paid back.

One is lived at the command line, then two at once, by REST and by gRPC. After every step all balances, S, Lt, the price and what is owed are held against
``living.py``, which computes them by hand, and every way to the node must answer the same.
"""

from __future__ import annotations

import base64
import contextlib
import json
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import nacl.signing
import pytest

from chain import metakeys, reports
from chain.api.comet import CometRefused
from chain.cli.testnet import Account, fill_keyring
from chain.codec.registry import message_class
from chain.codec.times import parse_rfc3339
from chain.coins import Coin, to_messages
from chain.config import Home
from chain.crypto import address as bech32
from chain.crypto.keys import Ed25519PublicKey, public_key_to_any
from chain.metakeys import MetaKeys
from tests.interop import living, ways
from tests.interop.living import BONDED, STOS, Economy, Event, Node
from tests.interop.ways import CommandLine, Deed, Grpc, Person, Question, Rest, Way, stratos
from tests.support import Cli, ask_until, localnet, node_of, stchaind
from tools.localnet import Localnet

pytestmark = [pytest.mark.interop, pytest.mark.timeout(3000)]
EPOCH_S, THRESHOLD_S, COMPLETION_S = 3, 4, 5
PARAMS = {
    "pot.epoch_duration_s": str(EPOCH_S),
    # Three commands on a busy machine may take longer than a localnet's minute.
    "register.voting_period": "900s",
    "register.unbonding_threashold_time": f"{THRESHOLD_S}s",
    "register.unbonding_completion_time": f"{COMPLETION_S}s",
    "distribution.community_tax": "0.020000000000000000",
}
EPOCHS, IDLE = 10, 7
"""How many epochs a life has, and which of them has no traffic."""
FUNDS, STAKE, META_DEPOSIT = 10**24, 10**21, 10**21
PATIENCE_S = 300
"""For what takes a second on a machine that is not busy."""
KIND = 6
"""database/storage."""
REPORT_GAS = 1_000_000
DECISIONS = {"stratos.register.v1.EventUpdateEffectiveDeposit", "stratos.pot.v1.EventSlashing"}
"""What only the vote that makes a quorum tells."""


@dataclass(frozen=True)
class MetaNode:
    """Whose keys are in ``home``."""

    owner: Person
    home: Home

    @property
    def keys(self) -> MetaKeys:
        return metakeys.read(metakeys.path_in(self.home))

    @property
    def address(self) -> str:
        return self.keys.network_address


@dataclass(frozen=True)
class Life:
    """Who lives it and how: ``owner`` has a resource node, whose rewards go to ``worker``; ``candidate`` a meta node, whose rewards go to ``heir``;
    ``buyer`` buys ozone."""

    way: Way
    owner: Person
    worker: Person
    candidate: Person
    heir: Person
    buyer: Person
    network_key: Ed25519PublicKey
    meta_node: MetaNode
    tokens: int
    working: int
    spends: int
    earns: int
    """noz in the first epoch."""

    @property
    def node(self) -> str:
        return bech32.encode(self.network_key.address, bech32.NODE)

    @property
    def people(self) -> tuple[Person, ...]:
        return self.owner, self.worker, self.candidate, self.heir, self.buyer


Effect = Callable[[int], list[Event]]
"""What a deed does to the model at a block time; the typed events that tell it."""


@dataclass
class World:
    """The localnet and the model of it, which follows block by block."""

    local: Localnet
    economy: Economy
    people: dict[str, Person]
    metas: dict[str, MetaNode]
    """By network address."""
    line: CommandLine
    rest: Rest
    grpc: Grpc
    folder: Path
    supply: int
    times: dict[int, int] = field(default_factory=dict)
    _held: dict[str, Any] = field(default_factory=dict)
    """What each question was answered with."""

    def __post_init__(self) -> None:
        self.rpc = node_of(self.local, "node0").rpc
        self.chain_id = str(self.local.net["chain_id"])

    # --- blocks -----------------------------------------------------------------------------------------------------------------

    def time_ns(self, height: int) -> int:
        """Of a block."""
        while height not in self.times:
            for one in ask_until(self._next_blocks, PATIENCE_S):
                seconds, nanos = parse_rfc3339(one["header"]["time"])
                self.times[int(one["header"]["height"])] = seconds * 10**9 + nanos
        return self.times[height]

    def _next_blocks(self) -> Any:
        first = max(self.times, default=0) + 1
        return self.rpc("blockchain", minHeight=str(first), maxHeight=str(first + 19))["block_metas"]

    def height(self) -> int:
        """The last block whose state is there for certain: CometBFT has the one after it before it is executed."""
        return int(ask_until(lambda: self.rpc("status"), PATIENCE_S)["sync_info"]["latest_block_height"]) - 1

    def wait_until(self, now_ns: int) -> int:
        """The height of the first block that is not before a time."""
        height = self.economy.height
        while self.time_ns(height) < now_ns:
            height += 1
        self.time_ns(height + 1)
        return height

    def catch_up(self, height: int, deeds: Mapping[int, Sequence[tuple[Deed, Effect, Any]]] | None = None) -> None:
        """The model goes on to a block, by the deeds (with their results) of each."""
        while self.economy.height < height:
            self.economy.begin()
            for deed, effect, result in (deeds or {}).get(self.economy.height, ()):
                self.economy.move(deed.who.address, living.FEES, deed.fee_wei)
                assert result["code"] == 0, result["raw_log"]
                _hold_events(result, effect(self.time_ns(self.economy.height)))
            self.economy.end(self.time_ns(self.economy.height))

    def do(self, way: Way, *deeds: tuple[Deed, Effect]) -> None:
        """Deeds of different people at once, and what they have done."""
        with ThreadPoolExecutor(2) as pool:
            hashes = list(pool.map(lambda one: way.send(one[0]), deeds))
        by_height: dict[int, list[tuple[int, Deed, Effect, Any]]] = {}
        for (deed, effect), hash_ in zip(deeds, hashes, strict=True):
            found = ask_until(partial(self._committed, base64.b64encode(bytes.fromhex(hash_)).decode()), PATIENCE_S)
            result = way.transaction(hash_)
            assert (result["txhash"], result["height"]) == (hash_, found["height"])
            by_height.setdefault(int(found["height"]), []).append((int(found["index"]), deed, effect, result))
        ordered = {height: [one[1:] for one in sorted(found, key=lambda one: one[0])] for height, found in by_height.items()}
        self.catch_up(max(by_height), ordered)

    def _committed(self, hash_: str) -> Any:
        with contextlib.suppress(CometRefused):
            return self.rpc("tx", hash=hash_)

    # --- questions --------------------------------------------------------------------------------------------------------------

    def hold(self, asked: Sequence[Way], *, everything: bool = True, as_a_process: Sequence[str] = ()) -> None:
        """Raise AssertionError unless all there is to ask is as the model has it, by every way; or, without ``everything``, all that has to have changed
        since it was asked last. Queries of the modules ``as_a_process`` are typed in a process of its own, too.
        """
        height = self.economy.height
        for question, said, expected in self._expectations():
            if not everything and self._held.get(question.path) == expected:
                continue
            answers = [way.ask(question, height) for way in asked]
            assert all(one == answers[0] for one in answers), (question, answers)
            assert said(answers[0]) == expected, (question, height, answers[0])
            self._held[question.path] = expected
            if question.command[0] in as_a_process:
                assert self.line.ask_as_a_process(question, height) == answers[0], question

    def _expectations(self) -> Iterator[tuple[Question, Callable[[Any], Any], Any]]:
        """(question, what of its answer, and what that should be)."""
        economy = self.economy
        for address in economy.wei:
            yield ways.balance(address), lambda told: int(told["balance"]["amount"]), economy.wei[address]
        yield ways.total_supply(), lambda told: int(told["amount"]["amount"]), self.supply
        yield ways.community_pool(), lambda told: [_decimal(one["amount"]) for one in told["pool"]], [economy.community] if economy.community else []
        yield from self._register()
        yield stratos("sds", "NozPrice", "noz-price", "noz_price"), lambda told: _decimal(told["price"]), economy.price
        supply = {"remaining": str(economy.remaining), "total": str(economy.supply)}
        yield stratos("sds", "NozSupply", "noz-supply", "noz_supply"), lambda told: told, supply
        bought = str(economy.would_buy(3 * STOS // 2))
        yield stratos("sds", "SimPrepay", "sim-prepay", "sim_prepay/{amount}", amount="1.5stos"), lambda told: told["noz"], bought
        yield from self._pot()

    def _register(self) -> Iterator[tuple[Question, Callable[[Any], Any], Any]]:
        economy = self.economy
        nodes = economy.nodes.values()
        at_work = sum(node.at_work for node in nodes)
        ozone = {
            "effective_deposit_wei": str(at_work),
            "leaving_wei": str(economy.deposits - economy.pending - at_work),
            "pending_lower_wei": str(economy.pending),
            "pending_lower_noz": "0",
            "remaining_noz": str(economy.remaining),
            "total_noz": str(economy.supply),
            "deposit_wei_per_noz": f"{living.RATE}.{0:018}",
        }
        yield stratos("register", "OzoneState", "ozone-state", "ozone_state"), lambda told: told, ozone
        by_status = [sum(node.tokens for node in nodes if node.status == status) for status in (BONDED, living.UNBONDED, living.UNBONDING)]
        kinds = [sum(node.tokens for node in nodes if node.is_meta == kind) for kind in (False, True)]
        names = (
            "resource_nodes_total_deposit",
            "meta_nodes_total_deposit",
            "total_bonded_deposit",
            "total_unbonded_deposit",
            "total_unbonding_deposit",
        )
        totals = dict(zip(names, [*kinds, *by_status], strict=True))
        said = lambda told: {name: int(one["amount"]) for name, one in told.items()}  # noqa: E731
        yield stratos("register", "DepositTotal", "deposit-total", "deposit_total"), said, totals
        remaining = stratos("register", "RemainingOzoneLimit", "remaining-ozone-limit", "remaining_ozone_limit")
        yield remaining, lambda told: int(told["ozone_limit"]), economy.remaining
        for kind, method, command, path in (
            (True, "BondedMetaNodeCount", "bonded-meta-node-count", "meta_node_count"),
            (False, "BondedResourceNodeCount", "bonded-resource-node-count", "resource_node_count"),
        ):
            count = sum(node.is_meta == kind and node.status == BONDED for node in nodes)
            yield stratos("register", method, command, path), lambda told: int(told["number"]), count
        for address, node in economy.nodes.items():
            asked = stratos("register", "DepositByNode", "deposit-by-node", "deposit_by_node/{network_addr}/0", network_addr=address)
            told = {"tokens": str(node.tokens), "status": node.status, "suspend": node.suspended, "owner_address": node.owner}
            yield asked, lambda told: {name: told["deposit_info"][name] for name in ("tokens", "status", "suspend", "owner_address")}, told
            if not node.is_meta:
                asked = stratos("register", "ResourceNode", "resource-node", "resource_node/{network_addr}", network_addr=address)
                yield (
                    asked,
                    lambda told: (int(told["node"]["effective_tokens"]), told["node"]["beneficiary_address"]),
                    (node.working, node.beneficiary),
                )

    def _pot(self) -> Iterator[tuple[Question, Callable[[Any], Any], Any]]:
        economy = self.economy
        mined = stratos("pot", "TotalMinedToken", "total-mined-token", "total_mined_token")
        yield mined, lambda told: int(told["total_mined_token"]["amount"]), economy.mined
        circulating = self.supply - living.TO_BE_MINED + economy.mined
        asked = stratos("pot", "CirculationSupply", "circulation-supply", "circulation_supply")
        yield asked, lambda told: _wei(told["circulation_supply"]), circulating
        earners = sorted({*economy.mature, *(wallet for paid in economy.rewards.values() for wallet in paid)})
        for wallet in earners:
            asked = stratos("pot", "RewardsByWallet", "rewards-by-wallet", "rewards/wallet/{wallet_address}", wallet_address=wallet)
            owed = (economy.mature[wallet], economy.immature(wallet))
            yield asked, lambda told: tuple(_wei(told["rewards"][f"{name}_total_reward"]) for name in ("mature", "immature")), owed
            asked = stratos("pot", "SlashingByOwner", "slashing-by-owner", "slashing/{wallet_address}", wallet_address=wallet)
            yield asked, lambda told: told, {"slashing": "0"}
            asked = stratos("pot", "Withdrawals", "withdrawals", "withdrawals/{wallet_address}", wallet_address=wallet)
            coming = [
                (epoch, paid[wallet].mining, paid[wallet].traffic)
                for epoch, paid in economy.rewards.items()
                if wallet in paid and paid[wallet].mining + paid[wallet].traffic
            ]
            yield asked, _upcoming, (economy.mature[wallet], coming)
        if economy.epoch:
            total = economy.totals[economy.epoch]
            asked = stratos("pot", "TotalRewardByEpoch", "total-reward-by-epoch", "total_reward/{epoch}", epoch=str(economy.epoch))
            said = lambda told: tuple(_wei(told["total_reward"][f"{name}_reward"]) for name in ("mining", "traffic"))  # noqa: E731
            yield asked, said, (total.mining, total.traffic)
            asked = stratos("settlement", "Epoch", "epoch", "epochs/{epoch}", epoch=str(economy.epoch))
            yield asked, lambda told: int(told["epoch"]["volume_noz"]), economy.volumes[economy.epoch]
            asked = stratos("pot", "PriceHistory", "price-history", "price_history")
            yield asked, lambda told: {int(one["epoch"]): _decimal(one["price_wei_per_noz"]) for one in told["epochs"]}, economy.prices


def _decimal(text: str) -> int:
    """A decimal times 10^18."""
    whole, _, places = text.partition(".")
    assert len(places) == 18, text
    return int(whole + places)


def _wei(coins: Sequence[Mapping[str, str]]) -> int:
    assert [one["denom"] for one in coins] in ([], ["wei"])
    return sum(int(one["amount"]) for one in coins)


def _upcoming(told: Any) -> tuple[int, list[tuple[int, int, int]]]:
    assert told["slashing_debt_wei"] == "0"
    coming = [(int(one["reward_epoch"]), int(one["mining_wei"]), int(one["traffic_wei"])) for one in told["upcoming"]]
    return int(told["withdrawable_wei"]), coming


def _hold_events(result: Any, expected: list[Event]) -> None:
    """Values of typed events are JSON texts, quotes and all."""
    found = [(one["type"], {attribute["key"]: attribute["value"] for attribute in one["attributes"]}) for one in result["events"]]
    for name, values in expected:
        [told] = [attributes for kind, attributes in found if kind == name]
        assert {key: told[key] for key in values} == {key: json.dumps(value) for key, value in values.items()}, name
        keys = [key for key in told if key != "msg_index"]
        assert keys == sorted(keys)
    assert [kind for kind, _ in found if kind in DECISIONS] == [kind for kind, _ in expected if kind in DECISIONS]


def _people(local: Localnet) -> tuple[dict[str, Person], Home]:
    """Everybody in localnet.json, operators at their nodes, the others at the first."""
    homes = {one["name"]: Home(Path(one["home"])) for one in local.net["nodes"]}
    accounts = [Account(one["name"], one["key_type"], one["mnemonic"], one["hd_path"]) for one in local.net["accounts"]]
    return {one.name: Person(one, homes.get(one.name, homes["node0"])) for one in accounts}, homes["node0"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("life")
    more = [Account.new(f"{role}{at}", ("secp256k1", "eth_secp256k1")[at % 2]) for at in (1, 2) for role in ("worker", "candidate", "heir", "buyer")]
    with localnet(folder / "net", full_nodes=0, params=PARAMS, more_accounts=[Account.new("owner2", "secp256k1"), *more]) as local:
        people, home = _people(local)
        metas = [MetaNode(people[name], people[name].home) for name in local.names]
        by_address = {one.address: one for one in metas}
        line = CommandLine(home, {one["home"]: one["rpc"] for one in local.net["nodes"]}, local.net["rpc"])
        rest, grpc = Rest(local.net["rest"], local.net["chain_id"]), Grpc(local.net["grpc"], local.net["chain_id"])
        wei = {person.address: FUNDS for person in people.values()} | dict.fromkeys(living.MODULES, 0)
        for one in metas:
            wei[one.owner.address] -= STAKE
        wei |= {living.FOUNDATION: living.TO_BE_MINED, living.STAKED: STAKE * len(metas), living.META_BONDED: META_DEPOSIT * len(metas)}
        economy = Economy(wei, {}, THRESHOLD_S * living.SECOND, COMPLETION_S * living.SECOND)
        for address, one in by_address.items():
            owner = one.owner.address
            economy.nodes[address] = Node(owner, owner, True, META_DEPOSIT, 0, BONDED, suspended=False, counted=META_DEPOSIT)
        economy.remaining = economy.deposits // living.RATE
        try:
            yield World(local, economy, people, by_address, line, rest, grpc, folder, supply=sum(wei.values()))
        finally:
            rest.close()
            grpc.close()


def _first_life(world: World) -> Life:
    """As docs/meta-nodes.md says it is done: the keys are made by the command, in a home of its own."""
    home = Home(world.folder / "fifth")
    made = json.loads(Cli(home.root).ok("meta-keys", "new", "-o", "json"))
    owner = world.people["owner0"]
    carol = Person(world.people["carol"].account, home)
    fill_keyring(home, [carol.account])
    [told] = [one for one in world.local.net["resource_nodes"] if one["owner"] == owner.name]
    key = Ed25519PublicKey(bech32.decode(told["network_pubkey"], bech32.NODE_PUB))
    meta_node = MetaNode(carol, home)
    assert made["network_address"] == meta_node.address
    names = world.people
    amounts = (100 * STOS + 1, 80 * STOS + 999_999, 200 * STOS + 123_456_789, 13 * 10**12 + 7)
    return Life(world.line, owner, names["alice"], carol, names["dave"], names["bob"], key, meta_node, *amounts)


def _other_life(world: World, way: Way, number: int) -> Life:
    home = Home(world.folder / f"candidate{number}")
    home.root.joinpath("config").mkdir(parents=True)
    MetaKeys.new().save(metakeys.path_in(home))
    owner, worker, candidate, heir, buyer = (world.people[f"{role}{number}"] for role in ("owner", "worker", "candidate", "heir", "buyer"))
    key = Ed25519PublicKey(bytes(nacl.signing.SigningKey.generate().verify_key))
    amounts = (150 * STOS + number, 90 * STOS + 10 * number, 111 * STOS * number + 17, (5 * 10**12 + 1) * number)
    return Life(way, owner, worker, candidate, heir, buyer, key, MetaNode(candidate, home), *amounts)


def message(name: str, **fields: Any) -> Any:
    return message_class(f"stratos.{name}")(**fields)


def wei(amount: int) -> Any:
    return to_messages((Coin("wei", amount),))[0]


# --- deeds ------------------------------------------------------------------------------------------------------------------------


def create_resource_node(world: World, life: Life) -> tuple[Deed, Effect]:
    key, owner, worker = life.network_key, life.owner.address, life.worker.address
    pubkey = bech32.encode(key.raw, bech32.NODE_PUB)
    command = ["register", "create-resource-node", "--pubkey", pubkey, "--amount", f"{life.tokens}wei", "--node-type", "database/storage"]
    command += ["--moniker", "mine", "--beneficiary-address", worker]
    made = message(
        "register.v1.MsgCreateResourceNode",
        network_address=life.node,
        pubkey=public_key_to_any(key),
        value=wei(life.tokens),
        owner_address=owner,
        beneficiary_address=worker,
        description={"moniker": "mine"},
        node_type=KIND,
    )
    effect: Effect = lambda now: world.economy.create_resource_node(life.node, key.raw.hex(), owner, worker, life.tokens, now)  # noqa: E731
    return Deed(life.owner, command, [made]), effect


def create_meta_node(world: World, life: Life) -> tuple[Deed, Effect]:
    keys, owner, heir, deposit = life.meta_node.keys, life.candidate.address, life.heir.address, 1000 * STOS + 7
    command = ["register", "create-meta-node", "--pubkey", keys.network_pubkey, "--amount", f"{deposit}wei"]
    command += ["--moniker", "mine", "--beneficiary-address", heir]
    made = message(
        "register.v1.MsgCreateMetaNode",
        network_address=keys.network_address,
        pubkey=public_key_to_any(keys.network_key),
        value=wei(deposit),
        owner_address=owner,
        beneficiary_address=heir,
        description={"moniker": "mine"},
    )
    effect: Effect = lambda now: world.economy.create_meta_node(keys.network_address, owner, heir, deposit, now)  # noqa: E731
    return Deed(life.candidate, command, [made]), effect


def vote(world: World, life: Life, voter: MetaNode) -> tuple[Deed, Effect]:
    candidate, owner = life.meta_node.address, life.candidate.address
    command = ["register", "meta-node-reg-vote", "--candidate-network-address", candidate, "--candidate-owner-address", owner]
    command += ["--opinion=true", "--voter-network-address", voter.address]
    made = message(
        "register.v1.MsgMetaNodeRegistrationVote",
        candidate_network_address=candidate,
        candidate_owner_address=owner,
        opinion=True,
        voter_network_address=voter.address,
        voter_owner_address=voter.owner.address,
    )
    return Deed(voter.owner, command, [made]), lambda _: world.economy.vote(voter.address, candidate)


def register_keys(world: World, life: Life) -> tuple[Deed, Effect]:
    keys, owner = life.meta_node.keys, life.candidate.address
    made = message(
        "settlement.v1.MsgRegisterMetaKeys",
        meta_node=keys.network_address,
        owner=owner,
        bls_pubkey=keys.bls_pubkey,
        proof_of_possession=keys.proof_of_possession(world.chain_id),
        ledger_consensus_pubkey=keys.ledger_consensus_pubkey,
    )
    return Deed(life.candidate, ["settlement", "register-meta-keys"], [made]), lambda _: []


def approve(world: World, life: Life, voter: MetaNode, working: int) -> tuple[Deed, Effect]:
    command = ["register", "update-effective-deposit", "--network-address", life.node, "--effective-tokens", f"{working}wei"]
    made = message(
        "register.v1.MsgUpdateEffectiveDeposit",
        reporters=[voter.address],
        reporter_owner=[voter.owner.address],
        network_address=life.node,
        effective_tokens=str(working),
    )
    return Deed(voter.owner, [*command, "--reporters", voter.address], [made]), lambda _: world.economy.approve(voter.address, life.node, working)


def prepay(world: World, life: Life) -> tuple[Deed, Effect]:
    buyer, owner = life.buyer.address, life.owner.address
    made = message("sds.v1.MsgPrepay", sender=buyer, beneficiary=owner, amount=[wei(life.spends)])
    return Deed(life.buyer, ["sds", "prepay", life.buyer.name, owner, f"{life.spends}wei"], [made]), lambda _: world.economy.prepay(
        buyer, owner, life.spends
    )


def withdraw(world: World, who: Person, target: Person, amount: int) -> tuple[Deed, Effect]:
    command = ["pot", "withdraw", "--amount", f"{amount}wei", "--target-address", target.address]
    made = message("pot.v1.MsgWithdraw", amount=[wei(amount)], wallet_address=who.address, target_address=target.address)
    return Deed(who, command, [made]), lambda _: world.economy.withdraw(who.address, target.address, amount)


def slash(world: World, life: Life, voter: MetaNode, noz: int) -> tuple[Deed, Effect]:
    owner = life.owner.address
    command = ["pot", "slashing", "--reporters", voter.address, "--network-address", life.node, "--wallet-address", owner]
    made = message(
        "pot.v1.MsgSlashingResourceNode",
        reporters=[voter.address],
        reporter_owner=[voter.owner.address],
        network_address=life.node,
        wallet_address=owner,
        slashing=str(noz),
        suspend=True,
    )
    deed = Deed(voter.owner, [*command, "--slashing", str(noz), "--suspend"], [made])
    return deed, lambda _: world.economy.slash(voter.address, life.node, noz, "database/storage")


def add_deposit(world: World, life: Life, delta: int) -> tuple[Deed, Effect]:
    owner = life.owner.address
    command = ["register", "update-resource-node-deposit", "--network-address", life.node, "--deposit-delta", f"{delta}wei"]
    made = message("register.v1.MsgUpdateResourceNodeDeposit", network_address=life.node, owner_address=owner, deposit_delta=wei(delta))
    return Deed(life.owner, command, [made]), lambda _: world.economy.add_deposit(life.node, delta)


def remove_resource_node(world: World, life: Life) -> tuple[Deed, Effect]:
    made = message("register.v1.MsgRemoveResourceNode", resource_node_address=life.node, owner_address=life.owner.address)
    deed = Deed(life.owner, ["register", "remove-resource-node", "--network-address", life.node], [made])
    return deed, lambda now: world.economy.remove(life.node, now)


def remove_meta_node(world: World, life: Life) -> tuple[Deed, Effect]:
    address = life.meta_node.address
    made = message("register.v1.MsgRemoveMetaNode", meta_node_address=address, owner_address=life.candidate.address)
    deed = Deed(life.candidate, ["register", "remove-meta-node", "--network-address", address], [made])
    return deed, lambda now: world.economy.remove(address, now)


def quorum(world: World, first: int = 0) -> list[MetaNode]:
    """As many active meta nodes as decide, from one of them on."""
    active = list(world.economy.active)
    return [world.metas[active[(first + at) % len(active)]] for at in range(living.quorum(len(active)))]


# --- reports ----------------------------------------------------------------------------------------------------------------------


def volumes(lives: Sequence[Life], number: int) -> list[tuple[str, int]]:
    """Of the epoch with that number in a life; from the fourth on a second wallet has traffic, too."""
    found = [(life.worker.address, life.earns + number * 10**11) for life in lives]
    if number >= 4:
        found.append((lives[0].heir.address, 10**9 * number + 1))
    return [] if number == IDLE else found


def report(world: World, lives: Sequence[Life], number: int) -> tuple[Deed, Effect]:
    """The next epoch, signed by a quorum with the keys in their homes; who reports and who signs goes round."""
    signers = quorum(world, number)
    draft = _draft(world, volumes(lives, number), signers[0], receipts=b"" if number == IDLE else secrets.token_bytes(32))
    path = world.folder / f"draft{world.economy.epoch + 1}.json"
    path.write_text(json.dumps(draft))
    made = reports.draft_of(draft)
    signed = {one.keys.bls_pubkey: one.keys.sign(made.message) for one in signers}
    return _reported(world, signers[0], made, ["settlement", "commit-and-report", str(path)], signed)


def typed_report(world: World, life: Life, number: int) -> tuple[Deed, Effect]:
    """The same as people do it: each meta node signs the draft by a command. That of the first epoch is a process, as each of its commands."""
    first, *others = quorum(world, number)
    typed = _as_processes if number == 1 else _in_this_process
    command = ["meta-keys", "draft-report", str(world.economy.epoch + 1), *(f"{wallet}={noz}" for wallet, noz in volumes([life], number))]
    if number != IDLE:
        command += ["--receipts-count", "2", "--receipts-root", secrets.token_hex(32)]
    drafted = typed([(first.home, [*command, "--reporter-owner", first.owner.address, "--node", world.local.net["rpc"]])])[0]
    draft = world.folder / "draft.json"
    draft.write_text(drafted)
    signatures = []
    for at, text in enumerate(typed([(one.home, ["meta-keys", "sign-report", str(draft)]) for one in others])):
        signatures.append(world.folder / f"signature{at}.json")
        signatures[-1].write_text(text)
    command = ["settlement", "commit-and-report", str(draft), *map(str, signatures), "--sign"]
    made = reports.draft_of(json.loads(drafted))
    return _reported(world, first, made, command, {})


def _draft(world: World, volumes: list[tuple[str, int]], reporter: MetaNode, receipts: bytes) -> dict[str, Any]:
    roots = (1, receipts) if receipts else (0, reports.EMPTY_ROOT)
    return reports.draft(world.chain_id, world.economy.epoch + 1, reporter.address, reporter.owner.address, volumes, roots)


def _reported(world: World, reporter: MetaNode, draft: reports.Draft, command: list[str], signed: dict[bytes, bytes]) -> tuple[Deed, Effect]:
    listed = [(one.wallet_address, int(one.volume)) for one in draft.report.wallet_volumes]
    messages = draft.messages(draft.signature_info(signed)) if signed else []
    deed = Deed(reporter.owner, command, messages, REPORT_GAS)
    return deed, lambda now: world.economy.report(listed, draft.report.report_reference, now)


def _as_processes(commands: Sequence[tuple[Home, Sequence[str]]]) -> list[str]:
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda one: Cli(one[0].root).ok(*one[1]), commands))


def _in_this_process(commands: Sequence[tuple[Home, Sequence[str]]]) -> list[str]:
    found = []
    for home, command in commands:
        code, out, err = stchaind(home.root, *command)
        assert code == 0, err
        found.append(out)
    return found


# --- the story --------------------------------------------------------------------------------------------------------------------


def live(world: World, lives: Sequence[Life], asked: Sequence[Way]) -> None:
    """From the first deposit to the last one that comes back, every balance after every step."""
    economy = world.economy

    everything: list[Way] = [world.line, world.rest, world.grpc]
    # Answers come quickly but for commands, of which the life at the command line asks what has changed.
    typed = world.line in asked

    def hold(*, by_all: bool = False) -> None:
        world.hold(everything if by_all else asked, everything=by_all or not typed, as_a_process=["sds"] if typed and by_all else [])

    def each(step: Callable[[Life], Sequence[tuple[Deed, Effect]]], *, by_all: bool = False) -> None:
        for life in lives:
            world.do(life.way, *step(life))
        hold(by_all=by_all)

    world.catch_up(max(1, world.height()))
    hold()
    each(lambda life: [create_resource_node(world, life)])
    each(lambda life: [create_meta_node(world, life)])
    for life in lives:
        world.do(life.way, *(vote(world, life, one) for one in quorum(world)))
        world.metas[life.meta_node.address] = life.meta_node
        assert economy.nodes[life.meta_node.address].is_active
        hold()
    each(lambda life: [register_keys(world, life)])
    each(lambda life: [approve(world, life, one, life.working) for one in quorum(world, 1)])
    each(lambda life: [prepay(world, life)], by_all=True)

    first = economy.epoch + 1
    for number in range(1, EPOCHS + 1):
        if economy.epoch:
            world.catch_up(world.wait_until(economy.reported_ns + EPOCH_S * living.SECOND))
        way = lives[number % len(lives)].way
        world.do(way, typed_report(world, lives[0], number) if way is world.line else report(world, lives, number))
        hold()
    assert economy.epoch == first + EPOCHS - 1
    assert list(economy.rewards) == [epoch for epoch in range(first + EPOCHS - living.MATURE_EPOCHS, first + EPOCHS)]

    # The last wei stays; heirs take all.
    each(lambda life: [withdraw(world, life.worker, life.owner, economy.mature[life.worker.address] - 1)], by_all=True)
    each(lambda life: [withdraw(world, life.heir, life.heir, economy.mature[life.heir.address])])

    each(lambda life: [slash(world, life, one, 3 * 10**13 + 1) for one in quorum(world, 2)], by_all=True)
    for life in lives:
        assert economy.nodes[life.node].counted == min(life.working, economy.nodes[life.node].tokens)
    each(lambda life: [add_deposit(world, life, 20 * STOS + 3)])
    each(lambda life: [approve(world, life, one, economy.nodes[life.node].tokens - 5) for one in quorum(world, 3)])
    assert all(economy.nodes[life.node].is_active for life in lives)

    each(lambda life: [remove_resource_node(world, life), remove_meta_node(world, life)])
    leaving = [economy.nodes[address] for life in lives for address in (life.node, life.meta_node.address) if address in economy.nodes]
    world.catch_up(world.wait_until(max([economy.reported_ns, *(node.due_ns for node in leaving)])))
    hold(by_all=True)
    assert not any(address in economy.nodes for life in lives for address in (life.node, life.meta_node.address))
    assert len(economy.active) == len(world.local.names)
    assert economy.deposits - economy.pending == META_DEPOSIT * len(world.local.names)
    # Everybody is accounted for: no wei came from anywhere.
    assert sum(economy.wei.values()) == world.supply


def test_a_life_at_the_command_line_is_paid_to_the_last_wei(world: World) -> None:
    live(world, [_first_life(world)], [world.line])


def test_two_lives_by_rest_and_grpc_are_paid_the_same_way(world: World) -> None:
    live(world, [_other_life(world, world.rest, 1), _other_life(world, world.grpc, 2)], [world.rest, world.grpc])


def test_all_four_nodes_have_the_same_state(world: World) -> None:
    height = world.height()
    nodes = [node_of(world.local, name) for name in world.local.names]
    found = [ask_until(partial(node.rpc, "header", height=str(height)), PATIENCE_S) for node in nodes]
    assert all(one == found[0] for one in found)
