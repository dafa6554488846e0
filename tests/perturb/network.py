"""The localnet that is troubled: its links, who should answer now, and what must be the same everywhere."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx

from chain import config, nodekeys
from chain.cli.testnet import Account
from chain.codec.json import to_json
from chain.config import Home
from chain.crypto import address as bech32
from chain.crypto.keys import public_key_message
from chain.light.validators import Validator, ValidatorSet
from tests import builds
from tests.perturb.links import Links
from tests.perturb.load import TIMEOUT_S, Wire
from tests.perturb.manifest import Manifest
from tests.support import GOV, Devnet, ask_until, free_ports, stchaind
from tools.localnet import PORTS_PER_NODE, Localnet
from tools.nodes import ACCOUNTS

SAMPLE = 40
"""How many transactions are looked up on every node after a step; the headers, whose data hash covers all, are compared at every height, and all
transactions are sought in every node's blocks at the end."""
BLOCKS_AT_ONCE = 20
INDEXED_S = 10.0
"""How long after a block its transactions may be missing in a node's index."""

ALL_BACK_LIMIT_S = 600.0

PARAMS = {"gov.expedited_voting_period": "4s", "slashing.downtime_jail_duration": "5s"}
SNAPSHOT_INTERVAL = 20
FEES = ("--fees", "5000000gwei", "--gas", "1000000")
DEPOSIT = "100stos"
STAKE = "1000stos"
PLAYERS = tuple(name for name, _ in ACCOUNTS)


class Broken(Exception):
    """The network did not do what it must."""


class Network:
    """Made and started in ``folder``; ``close`` ends everything."""

    def __init__(self, folder: Path, manifest: Manifest, senders: list[Account], seed: int) -> None:
        count = manifest.validators + manifest.full_nodes
        self.local = Localnet(
            folder,
            ports=free_ports(count * PORTS_PER_NODE),
            block_time=manifest.block_time,
            validators=manifest.validators,
            full_nodes=manifest.full_nodes,
            more_accounts=senders,
            params={**PARAMS, "gov.voting_period": f"{manifest.voting_s}s"},
            app={"state-sync.snapshot-interval": SNAPSHOT_INTERVAL},
        )
        self.links = Links({node["name"]: int(node["p2p"].rpartition(":")[2]) for node in self.local.net["nodes"]}, seed)
        self._away: set[str] = set()
        self._returning: set[str] = set()
        self.double_signers: dict[str, int] = {}
        """Name → height of the block that took the evidence."""
        self.unjailed = 0
        self.operators = {name: name for name in self.validator_names}
        """Key that operates a validator → its node."""
        self.first_sender = len(self.local.net["accounts"]) - len(senders)
        """Account number of the first of ``senders``."""
        self.moves = 0
        self.voting_blocks = int(manifest.voting_s / manifest.block_s)
        """How many blocks a vote takes at most."""
        self._highest = 0
        self.build = 0
        """What the chain is upgraded to (tests/builds.py), and what each node runs."""
        self.builds = dict.fromkeys(self.local.names, 0)
        self.compared = 0
        self.looked_up = 0
        self.unindexed: set[tuple[str, str]] = set()
        """(node, transaction) that only the node's block has."""
        for node in self.local.net["nodes"]:
            others = [other for other in self.local.net["nodes"] if other is not node]
            peers = ",".join(f"{other['node_id']}@127.0.0.1:{self.links.port(node['name'], other['name'])}" for other in others)
            config.update(self.home(node["name"]).comet_config, {"p2p.persistent_peers": peers})

    def start(self) -> None:
        self.local.start()
        for name in self.local.names:
            self.node(name).wait_for(2, 60)

    def close(self) -> None:
        try:
            self.local.close()
        finally:
            self.links.close()

    def node(self, name: str) -> Devnet:
        return Devnet(self.local.node(name), self.local.process(name))

    def home(self, name: str) -> Home:
        return Home(Path(self.local.node(name)["home"]))

    @property
    def witness(self) -> Devnet:
        """A node that can be relied on now."""
        return self.node(next(iter(self.rpcs())))

    @property
    def validator_names(self) -> list[str]:
        return [node["name"] for node in self.local.net["nodes"] if node["validator"]]

    @contextlib.contextmanager
    def away(self, name: str) -> Iterator[None]:
        """While a node cannot be relied on, and until ``recover`` finds that it keeps up again, the load goes elsewhere."""
        self._away.add(name)
        self._returning.discard(name)
        try:
            yield
        finally:
            self._returning.add(name)

    def rpcs(self) -> dict[str, str]:
        """Where the load goes now."""
        return {node["name"]: node["rpc"] for node in self.local.net["nodes"] if node["name"] not in self._away}

    def heights(self) -> dict[str, int]:
        """Of every node; 0 where it does not answer."""
        found = {}
        for node in self.local.net["nodes"]:
            wire = Wire(node["rpc"])
            found[node["name"]] = wire.height()
            wire.close()
        return found

    def recover(self, limit_s: float, catch_up_limit_s: float) -> tuple[float, float]:
        """Seconds until a block is made, and until every node has it and one more.

        Raises Broken if none is made for ``limit_s``, or if a node that is behind gets no block further for ``catch_up_limit_s``, or is still behind
        after ALL_BACK_LIMIT_S: one that joins from genesis executes all that the others do, beside them on the same cores.
        """
        begun = time.monotonic()
        seen: dict[str, int] = {}
        moved: dict[str, float] = {}
        # Where every node was down, none tells yet how far it was.
        before = self._highest = max(self._highest, *self.heights().values())
        on_s = 0.0
        while True:
            self.switch()
            heights = self.heights()
            passed_s = time.monotonic() - begun
            newest = max(heights.values())
            for name, height in heights.items():
                if height > seen.get(name, -1):
                    seen[name], moved[name] = height, passed_s
            for name in [name for name in self._returning if heights[name] >= max(newest - 1, before)]:
                self._returning.discard(name)
                self._away.discard(name)
            if not on_s and newest > before:
                on_s = passed_s
            if min(heights.values()) > before + 1:
                self._away -= self._returning
                self._returning.clear()
                return on_s, passed_s
            if not on_s and passed_s > limit_s:
                raise Broken(f"no block after {before} for {limit_s} s: {heights}")
            stuck = [name for name, height in heights.items() if height <= before + 1 and passed_s - moved[name] > catch_up_limit_s]
            if stuck or passed_s > ALL_BACK_LIMIT_S:
                raise Broken(f"{', '.join(stuck) or 'a node'} is not back after {passed_s:.0f} s: {heights}")
            time.sleep(0.1)

    def use(self, name: str, build: int) -> None:
        """What a node runs from its next start on."""
        self.builds[name] = build
        self.local.programs[name] = builds.program(build)

    def upgrade_info(self, name: str) -> Any:
        """What a node says it has to be upgraded to; None where it never halted for that."""
        path = self.home(name).upgrade_info
        return json.loads(path.read_text()) if path.exists() else None

    def waits(self, name: str, height: int) -> bool:
        """Whether a node has halted for an upgrade at ``height``: it says so, and its application has the block before and answers."""
        info = self.upgrade_info(name)
        if info is None or info["height"] != height:
            return False
        return int(self.node(name).rpc("abci_info")["response"]["last_block_height"]) == height - 1

    def switch(self) -> None:
        """Do cosmovisor's work: a node that waits for an upgrade goes on with the build that begins with it. One that joins from genesis does so for
        each upgrade there was.
        """
        due = {}
        for name in self.local.names:
            info = self.upgrade_info(name) if self.local.is_running(name) else None
            if info is not None and self.builds[name] < builds.number(info["name"]) <= self.build:
                due[name] = builds.number(info["name"])
        if due:
            self.local.stop(*due)
            for name, build in due.items():
                self.use(name, build)
            self.local.start(*due)

    def offer(self, by: str, *arguments: str) -> str:
        """``stchaind tx ARGUMENTS`` by a key of the first node's home, sent to a node that answers; the transaction's hash. Raises Broken."""
        rpc = self.witness.net["rpc"]
        sent = ("--from", by, *FEES, "-y", "-o", "json", "--keyring-backend", "test", "--node", rpc)
        code, out, err = stchaind(Path(self.local.net["home"]), "tx", *arguments, *sent)
        answer = json.loads(out) if out else {"code": code, "raw_log": err}
        if code or answer["code"]:
            raise Broken(f"{' '.join(arguments)} by {by} is refused: {answer['raw_log']}")
        return str(answer["txhash"])

    def result(self, hash_: str) -> Any:
        """Result of a transaction that was offered, once it is in a block. Raises Broken where it fails, TimeoutError."""
        node = self.witness
        found = ask_until(lambda: node.rpc("tx", hash=base64.b64encode(bytes.fromhex(hash_)).decode()))["tx_result"]
        if found["code"]:
            raise Broken(f"{hash_} failed: {found['log']}")
        return found

    def transact(self, by: str, *arguments: str) -> Any:
        """``offer``, and its ``result``."""
        return self.result(self.offer(by, *arguments))

    def decide(self, title: str, *messages: dict[str, Any]) -> str:
        """A proposal that all validators vote for, once it has passed; its number. Raises Broken."""
        file = self.local.folder.path / "proposal.json"
        file.write_text(json.dumps({"messages": messages, "deposit": DEPOSIT, "title": title, "summary": title}))
        events = self.transact(self.validator_names[0], "gov", "submit-proposal", str(file))["events"]
        number = next(one["value"] for event in events for one in event["attributes"] if one["key"] == "proposal_id")
        for hash_ in [self.offer(name, "gov", "vote", number, "yes") for name in self.validator_names]:
            self.result(hash_)
        ended = ("PROPOSAL_STATUS_PASSED", "PROPOSAL_STATUS_REJECTED", "PROPOSAL_STATUS_FAILED")
        status = ask_until(lambda: (found := self.rest(f"/cosmos/gov/v1/proposals/{number}")["proposal"]["status"]) in ended and found)
        if status != ended[0]:
            raise Broken(f"proposal {number} ({title}) has ended as {status}")
        return number

    def schedule(self, build: int, info: str, margin: int) -> int:
        """The height of an upgrade to ``build`` that a proposal has scheduled: ``margin`` blocks after the vote's end at the earliest, in which
        it is proposed and voted for.
        """
        height = max(self.heights().values()) + self.voting_blocks + margin
        plan = {"name": builds.name(build), "height": str(height), "info": info}
        self.decide(f"upgrade {build}", {"@type": "/cosmos.upgrade.v1beta1.MsgSoftwareUpgrade", "authority": GOV, "plan": plan})
        return height

    def rest(self, path: str, name: str = "") -> Any:
        """What a node (default: one that can be relied on) answers over REST."""
        node = self.node(name) if name else self.witness
        return httpx.get(node.net["rest"] + path, timeout=10, trust_env=False).json()

    def create_validator(self, by: str, name: str) -> None:
        """A node becomes a validator with STAKE of the account ``by``."""
        key = nodekeys.validator_key(self.home(name))
        file = self.local.folder.path / "validator.json"
        commission = {"commission-rate": "0.1", "commission-max-rate": "0.2", "commission-max-change-rate": "0.01"}
        pubkey = {"@type": key.type_url, **to_json(public_key_message(key))}
        file.write_text(json.dumps({"pubkey": pubkey, "amount": STAKE, "moniker": by, "min-self-delegation": "1", **commission}))
        self.transact(by, "staking", "create-validator", str(file))
        self.operators[by] = name
        ask_until(lambda: self.power(by))

    def leave(self, by: str) -> str:
        """An operator unbonds all, and is out of CometBFT's set; how much that was, in wei."""
        held = self.rest(f"/cosmos/staking/v1beta1/validators/{self.valoper(by)}/delegations/{self._account(by)}")
        stake = str(held["delegation_response"]["balance"]["amount"])
        self.transact(by, "staking", "unbond", self.valoper(by), f"{stake}wei")
        ask_until(lambda: not self.power(by))
        return stake

    def join_again(self, by: str, stake: str) -> None:
        """Who left delegates ``stake`` again, unjails, for the self-delegation was less than its least, and is in CometBFT's set."""
        self.transact(by, "staking", "delegate", self.valoper(by), f"{stake}wei")
        self.transact(by, "slashing", "unjail")
        ask_until(lambda: self.power(by))

    def unjail(self) -> None:
        """What operators do whose validator was down for too long."""
        found = self.rest("/cosmos/staking/v1beta1/validators?pagination.limit=100")["validators"]
        for by in (one["description"]["moniker"] for one in found if one["jailed"]):
            if by in self.double_signers:
                continue
            # Refused as long as the time in jail is not over.
            ask_until(lambda by=by: self._is_unjailed(by), 30)
            self.unjailed += 1

    def _is_unjailed(self, by: str) -> bool:
        try:
            self.transact(by, "slashing", "unjail")
        except Broken as error:
            if "still jailed" not in str(error):
                raise
            return False
        return True

    def _account(self, name: str) -> str:
        return str(next(one["address"] for one in self.local.net["accounts"] if one["name"] == name))

    def valoper(self, by: str) -> str:
        return bech32.encode(bech32.decode(self._account(by)), bech32.VALIDATOR)

    def power(self, by: str) -> int:
        """Voting power, in CometBFT's newest set, of the validator that ``by`` operates; 0 outside it."""
        address = nodekeys.validator_key(self.home(self.operators[by])).address
        # The set of the block that is made now has what the block before the last changed.
        return next((one.power for one in self.validators(self.witness.height()) if one.address == address), 0)

    def compare(self, committed: dict[str, int]) -> None:
        """Raise Broken unless every node has the same headers, and so the same app hash and transactions, and finds ``committed`` (hash → height).

        A node that joined by state sync has them from its snapshot on.
        """
        height = min(self.heights().values())
        wires = {node["name"]: Wire(node["rpc"], TIMEOUT_S * 3) for node in self.local.net["nodes"]}
        try:
            first = {name: self._first_height(wire) for name, wire in wires.items()}
            headers = {}
            for name, wire in wires.items():
                heights = range(max(self.compared + 1, first[name]), height + 1)
                answers = wire.call_many([("header", {"height": str(at)}) for at in heights])
                headers[name] = {at: answer["result"]["header"] for at, answer in zip(heights, answers, strict=True)}
            for at in range(self.compared + 1, height + 1):
                here = {name: found[at] for name, found in headers.items() if at in found}
                if len({str(header) for header in here.values()}) != 1:
                    raise Broken(f"block {at} differs: { {name: header['app_hash'] for name, header in here.items()} }")
            new = [hash_ for hash_, at in committed.items() if self.compared < at <= height]
            for name, wire in wires.items():
                wanted = {hash_: committed[hash_] for hash_ in new[:: max(1, len(new) // SAMPLE)] if committed[hash_] >= first[name]}
                self._find(name, wire, wanted)
                self.looked_up += len(wanted)
            self.compared = height
        finally:
            for wire in wires.values():
                wire.close()

    def find_all(self, committed: dict[str, int]) -> int:
        """Every node's blocks, up to the height that is compared, have every one of ``committed`` (hash → height) that the node goes back to; how many
        were found in all. Raises Broken.
        """
        at_height: dict[int, list[str]] = {}
        for hash_, at in committed.items():
            at_height.setdefault(at, []).append(hash_)

        def on(node: dict[str, Any]) -> int:
            wire = Wire(node["rpc"], TIMEOUT_S * 3)
            found = 0
            try:
                first = self._first_height(wire)
                heights = [at for at in sorted(at_height) if first <= at <= self.compared]
                for start in range(0, len(heights), BLOCKS_AT_ONCE):
                    some = heights[start : start + BLOCKS_AT_ONCE]
                    there = self._blocks(wire, some)
                    for height in some:
                        self._require(node["name"], at_height[height], there.get(height, set()))
                        found += len(at_height[height])
            finally:
                wire.close()
            return found

        nodes = self.local.net["nodes"]
        with ThreadPoolExecutor(len(nodes)) as pool:
            return sum(pool.map(on, nodes))

    @staticmethod
    def _blocks(wire: Wire, heights: list[int]) -> dict[int, set[str]]:
        """Hashes of the transactions in a node's blocks; no entry for a block that it does not have."""
        answers = wire.call_many([("block", {"height": str(height)}) for height in heights])
        return {
            height: {hashlib.sha256(base64.b64decode(raw)).hexdigest().upper() for raw in answer["result"]["block"]["data"]["txs"] or ()}
            for height, answer in zip(heights, answers, strict=True)
            if "result" in answer
        }

    @staticmethod
    def _require(name: str, hashes: list[str], there: set[str]) -> None:
        lost = [hash_ for hash_ in hashes if hash_.upper() not in there]
        if lost:
            raise Broken(f"{name} does not find the committed transaction {lost[0]}, and {len(lost) - 1} others")

    @staticmethod
    def _first_height(wire: Wire) -> int:
        return int(wire.call(("status", {}))[0]["result"]["sync_info"]["earliest_block_height"])

    def _find(self, name: str, wire: Wire, wanted: dict[str, int]) -> None:
        """Raise Broken unless a node finds every transaction (hash → height): in its index, or, where CometBFT was stopped between a block and its
        indexing, which it never makes up for, in the block itself. Those are counted.
        """
        until = time.monotonic() + INDEXED_S
        hashes = list(wanted)
        while True:
            answers = wire.call_many([("tx", {"hash": base64.b64encode(bytes.fromhex(hash_)).decode()}) for hash_ in hashes])
            hashes = [hash_ for hash_, answer in zip(hashes, answers, strict=True) if "result" not in answer]
            # The index is written a moment after the block.
            if not hashes or time.monotonic() > until:
                break
            time.sleep(0.1)
        there = self._blocks(wire, sorted({wanted[hash_] for hash_ in hashes}))
        for hash_ in hashes:
            self._require(name, [hash_], there.get(wanted[hash_], set()))
        self.unindexed.update((name, hash_) for hash_ in hashes)

    def validators(self, height: int) -> ValidatorSet:
        """The set that voted at ``height``."""
        listed: Any = self.node(self.local.names[0]).rpc("validators", height=str(height), per_page="100")["validators"]
        return ValidatorSet(Validator("ed25519", base64.b64decode(one["pub_key"]["value"]), int(one["voting_power"])) for one in listed)

    def evidence_height(self, since: int, address: bytes) -> int:
        """Height of a block above ``since`` with evidence against ``address``; 0 without one."""
        node = self.node(self.local.names[0])
        for height in range(since + 1, node.height() + 1):
            for one in node.rpc("block", height=str(height))["block"]["evidence"]["evidence"] or []:
                if bytes.fromhex(one["value"]["vote_a"]["validator_address"]) == address:
                    return height
        return 0
