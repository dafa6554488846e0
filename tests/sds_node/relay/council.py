"""Several meta nodes beside one chain in this process, each with a ledger of its own that gets the same operations; three resource nodes that keep 130 files."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import nacl.signing

from chain.codec.canonical import encode
from chain.codec.registry import message_class
from chain.coins import CoinMessage
from chain.crypto import address as bech32
from chain.crypto.keys import Ed25519PublicKey, PrivateKey, public_key_to_any
from chain.metakeys import MetaKeys
from modules.settlement.documents import GRANT_DOMAIN, SessionGrant
from sds_node.meta.ledger.engine import Ledger, ReadView
from sds_node.meta.ledger.log import Head, Result
from sds_node.meta.operations import Proposer
from sds_node.meta.relay.founding import found_message
from sds_node.meta.relay.observer import Observer
from sds_node.meta.relay.penalties import Gathering, Penalties, gatherings
from sds_node.meta.rules.apply import rules
from sds_node.meta.rules.tables import ACTIVE, NODE, Node
from sds_node.meta.rules.wire import sign_observation
from sds_node.testing.chain import CHAIN_ID, ChainInProcess, DrivenChain, genesis
from sds_node.value_chain import Sender, views
from tests.sds_node.books.world import START_S, Clock, message, new_object, until
from tests.serials import own_serial

STOS = 10**18
DEPOSIT_WEI = 100 * STOS
HOUR_S = 3_600
SESSION = b"\x32" * 32


def key_of(name: str) -> PrivateKey:
    return PrivateKey(sha256(name.encode()).digest(), "eth_secp256k1")


class Alike:
    """Ledgers that get the same operations at the same time, as CometBFT gives them; the first is asked."""

    def __init__(self, ledgers: Sequence[Ledger]) -> None:
        self.ledgers, self.turn = ledgers, asyncio.Lock()

    @property
    def head(self) -> Head:
        return self.ledgers[0].head

    async def propose(self, operation: bytes) -> Result:
        async with self.turn:
            results = [await one.propose(operation) for one in self.ledgers]
        assert len({one.app_hash for one in results}) == 1
        return results[0]

    async def query(self, question: Callable[[ReadView], Any]) -> Any:
        return await self.ledgers[0].query(question)


@dataclass
class Council:
    """Meta nodes with a ledger each beside one chain, and three resource nodes at work."""

    chain: ChainInProcess
    clock: Clock
    metas: list[MetaKeys]
    owners: list[PrivateKey]
    ledger: Alike
    proposer: Proposer
    observer: Observer
    node_owners: list[PrivateKey]
    windows: int = 0
    numbers: dict[int, int] = field(default_factory=dict)
    """Node 1, 2, 3 → its number in the ledgers."""

    def client(self) -> DrivenChain:
        return DrivenChain(self.chain)

    def penalties(self, meta: int) -> Penalties:
        """Of a meta node by its place, as it is after a start."""
        sender = Sender(self.client(), self.owners[meta], clock=self.clock)
        return Penalties(self.client(), sender, self.ledger.ledgers[meta], self.metas[meta].network_address, clock=self.clock)

    async def council(self) -> list[Penalties]:
        """All of them, begun today."""
        made = [self.penalties(meta) for meta in range(len(self.metas))]
        for one in made:
            assert await one.step() == []
        return made

    async def send(self, key: PrivateKey, *messages: Any) -> Any:
        return await Sender(self.client(), key, clock=self.clock).send(messages)

    async def later(self, seconds: int) -> None:
        """Time goes by, on the chain too, and the ledgers have observed it."""
        async with self.ledger.turn:
            self.clock.now_s += seconds
        await self.propose("tick", message("Operation").tick)
        await self.observed()

    async def observed(self) -> None:
        self.chain.produce()
        height = self.chain.driver.height
        await until(lambda: self.observer.height >= height)

    async def propose(self, kind: str, made: Any) -> Result:
        return await self.proposer.propose(kind, made)

    # --- what becomes of nodes ---------------------------------------------------------------------------------------------------------

    async def found(self, number: int) -> Node:
        found = await self.ledger.query(lambda view: view.find(NODE, "by_address", (address_of(number),)))
        assert isinstance(found, Node)
        return found

    async def node(self, number: int) -> Node:
        found = await self.ledger.query(lambda view: view.get(NODE, (self.numbers[number],)))
        assert isinstance(found, Node)
        return found

    async def on_chain(self, number: int) -> views.ResourceNode:
        found = await views.resource_node(self.client(), address_of(number))
        assert found is not None
        return found

    async def score(self, number: int, change: int) -> None:
        """Each part by another meta node: one of several may take 1,000 a day."""
        at = 0
        while change:
            part = max(-1_000, min(1_000, change))
            seen = message("NodeSeen", node=self.numbers[number], score_change=part)
            keys = self.metas[at % len(self.metas)]
            proposer = (
                Proposer(self.ledger, CHAIN_ID, keys.address, nacl.signing.SigningKey(keys.ledger_seed), self.clock)
                if keys is not self.metas[0]
                else self.proposer
            )
            await proposer.propose("node_statuses", message("NodeStatuses", nodes=[seen]))
            change, at = change - part, at + 1

    async def release(self, number: int, failed: Collection[int], *, is_silent: bool = False) -> None:
        """An audit of a node, settled."""
        self.windows += 1
        result = message("NodeResult", node=self.numbers[number], first_segment=1, last_segment=1_000, has_failed=is_silent)
        result.failed_segments.extend(sorted(failed))
        root = sha256(b"answers %d" % self.windows).digest()
        made = message("Release", number=self.windows, answers_root=root, answers_count=1, batch_hash=root, results=[result])
        await self.propose("release", made)

    async def gathered(self, number: int) -> list[Gathering]:
        return await gatherings(self.client(), address_of(number))


def node_key(number: int) -> nacl.signing.SigningKey:
    return nacl.signing.SigningKey(sha256(b"penalised node %d" % number).digest())


def address_of(number: int) -> bytes:
    return Ed25519PublicKey(bytes(node_key(number).verify_key)).address


@contextlib.asynccontextmanager
async def council(folder: Path, metas: int, *, owned: Mapping[int, int] | None = None) -> AsyncIterator[Council]:
    """``owned``: which meta node's owner has a resource node."""
    clock = Clock(START_S + 6 * HOUR_S)
    keys, owners = [MetaKeys.new() for _ in range(metas)], [key_of(f"meta owner {at}") for at in range(metas)]
    node_owners = [owners[owned[number]] if owned and number in owned else key_of(f"node owner {number}") for number in (1, 2, 3)]
    operator, alice = key_of("operator"), key_of("alice")
    funds = {key.public_key.address: 10**24 for key in (operator, alice, *owners, *node_owners)}
    begin_s = int(clock()) - 60
    chain = ChainInProcess(lambda app: genesis(app, begin_s, operator, list(zip(keys, owners, strict=True)), funds), clock)
    async with contextlib.AsyncExitStack() as stack:
        blocks = asyncio.create_task(chain.run(0.01))
        stack.push_async_callback(ended, blocks)
        ledgers = []
        for at in range(metas):
            url = f"sqlite:///{folder}/ledger{at}.db"
            ledgers.append(stack.enter_context(Ledger.open(url, rules(CHAIN_ID), CHAIN_ID, now_ms=lambda: int(clock() * 1_000))))
        ledger = Alike(ledgers)
        signing = [nacl.signing.SigningKey(one.ledger_seed) for one in keys]
        proposer = Proposer(ledger, CHAIN_ID, keys[0].address, signing[0], clock)

        async def gather(observation: bytes) -> dict[bytes, bytes]:
            return {one.address: sign_observation(observation, key) for one, key in zip(keys, signing, strict=True)}

        client = DrivenChain(chain)
        await proposer.start()
        await proposer.propose("found", await found_message(client, 0))
        observer = Observer(client, proposer, signing[0], gather, clock, poll_s=0.01, batch_s=0)
        stack.push_async_callback(ended, asyncio.create_task(observer.run()))
        made = Council(chain, clock, keys, owners, ledger, proposer, observer, node_owners)
        await _registered(made)
        await _kept(made, alice)
        yield made


async def ended(task: asyncio.Task[None]) -> None:
    """Cancel a task; what it raised comes out."""
    task.cancel()
    for result in await asyncio.gather(task, return_exceptions=True):
        if isinstance(result, Exception):
            raise result


async def _registered(made: Council) -> None:
    for number, owner in enumerate(made.node_owners, 1):
        wallet = bech32.encode(owner.public_key.address)
        name = bech32.encode(address_of(number), bech32.NODE)
        create = message_class("stratos.register.v1.MsgCreateResourceNode")(
            network_address=name, pubkey=public_key_to_any(Ed25519PublicKey(bytes(node_key(number).verify_key))),
            value=CoinMessage(denom="wei", amount=str(DEPOSIT_WEI)), owner_address=wallet, beneficiary_address=wallet,
            description={"moniker": f"node {number}"}, node_type=4,
        )  # fmt: skip
        await made.send(owner, create)
        for keys, voter in zip(made.metas, made.owners, strict=True):
            approve = message_class("stratos.register.v1.MsgUpdateEffectiveDeposit")(
                reporters=[keys.network_address], reporter_owner=[bech32.encode(voter.public_key.address)], network_address=name,
                effective_tokens=str(DEPOSIT_WEI),
            )  # fmt: skip
            if (await made.on_chain(number)).is_suspended:
                await made.send(voter, approve)
        await made.observed()
        row = await made.found(number)
        assert row.standing == ACTIVE
        made.numbers[number] = row.number


async def _kept(made: Council, alice: PrivateKey) -> None:
    """Alice buys ozone and keeps 130 small files, each on all three nodes: segments 1 to 130."""
    wallet, now_s = alice.public_key.address, int(made.clock())
    text = bech32.encode(wallet)
    await made.send(
        alice, message_class("stratos.sds.v1.MsgPrepay")(sender=text, beneficiary=text, amount=[CoinMessage(denom="wei", amount=str(STOS))])
    )
    await made.observed()
    body = encode(
        SessionGrant(
            chain_id=CHAIN_ID, wallet=text, session_pubkey=SESSION, actions=[1, 2], path_prefix="/", max_noz=10**13, not_before_s=now_s - 60,
            expires_s=now_s + 7_200, nonce=bytes(16),
        )
    )  # fmt: skip
    grant = {"body": body, "public_key": alice.public_key.raw, "signature": alice.sign(GRANT_DOMAIN + b"\x00" + body)}
    lease = await made.propose(
        "take_lease", message("TakeLease", wallet=wallet, session_pubkey=SESSION, fund=1, noz=10**9, seconds=3_600, grant=grant)
    )
    nodes = [made.numbers[number] for number in (1, 2, 3)]
    objects = [new_object(at, 100_000, nodes, 1, [own_serial(made.proposer.address, at << 8)]) for at in range(1, 131)]
    await made.propose("commit", message("Commit", lease_id=lease.result, objects=objects))
