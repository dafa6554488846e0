"""Epochs reported by quorums and by too few, at times twice or too early; rewards withdrawn; the foundation filled; nodes slashed together.

A report needs keys: meta nodes without them register those that ``bls_secret`` gives.
"""

from __future__ import annotations

import hashlib
import random
from functools import cache
from typing import Any

import nacl.signing

from chain.codec.registry import message_class
from chain.crypto import address as bech32
from chain.crypto import bls
from chain.reports import EMPTY_ROOT, draft, draft_of
from tests.simulation.operations.register import active_metas, nodes
from tests.simulation.world import Kind, World, account, coin

PACKAGE, SETTLEMENT, SDS = "stratos.pot.v1", "stratos.settlement.v1", "stratos.sds.v1"
STOS = 10**18
WALLETS = 200
A_ROOT = hashlib.sha256(b"receipts").digest()


def prepare(section: Any, choose: random.Random) -> None:
    section["params"] |= {
        "mature_epoch": str(choose.choice((1, 2, 5))),
        "epoch_duration_s": str(choose.choice((0, 1, 10))),
        "mining_cap_ratio": choose.choice(("0.000000000000000000", "0.400000000000000000", "1.000000000000000000")),
        "max_wallets_per_report": choose.choice((0, 5, 1000)),
    }


@cache
def bls_secret(network_address: str) -> int:
    """The secret of a meta node's BLS key."""
    return bls.secret_from_seed(hashlib.sha256(f"simulation BLS {network_address}".encode()).digest())


@cache
def _key(network_address: str) -> bytes:
    return bls.public_key(bls_secret(network_address))


def _registered(world: World) -> frozenset[bytes]:
    return frozenset(bytes(one.bls_pubkey) for one in world.ask(f"{SETTLEMENT}.Query/AllMetaKeys", pagination={"limit": 200}).keys)


def keys(choose: random.Random, world: World) -> Any:
    """A meta node registers its keys, if it has not."""
    registered = _registered(world)
    found = [(node, owner) for node, owner in active_metas(world) if _key(node.network_address) not in registered]
    if not found:
        return None
    node, owner = choose.choice(found)
    text, key = node.network_address, _key(node.network_address)
    ledger = nacl.signing.SigningKey(hashlib.sha256(f"simulation ledger {text}".encode()).digest()).verify_key
    proof = bls.prove_possession(bls_secret(text), world.driver.chain_id, bech32.decode(text, bech32.NODE), key)
    return message_class(f"{SETTLEMENT}.MsgRegisterMetaKeys")(
        meta_node=text, owner=owner.text, bls_pubkey=key, proof_of_possession=proof, ledger_consensus_pubkey=bytes(ledger)
    )


def _wallet(choose: random.Random) -> str:
    number = choose.randrange(WALLETS)
    if number < 20:
        return account(number % 12).text
    return bech32.encode(hashlib.sha256(b"simulation wallet %d" % number).digest()[:20])


def report(choose: random.Random, world: World) -> Any:
    """Mostly of the next epoch, by all who can sign; at times of another epoch, by too few, or of more than was sold."""
    registered = _registered(world)
    voters = active_metas(world)
    signers = [node.network_address for node, _ in voters if _key(node.network_address) in registered]
    if not signers or (len(signers) < 2 * len(voters) // 3 + 1 and choose.random() < 0.8):
        return keys(choose, world)
    node, owner = choose.choice(voters)
    last = [int(one.epoch) for one in world.ask(f"{PACKAGE}.Query/PriceHistory", pagination={"limit": 1, "reverse": True}).epochs]
    epoch = max(1, (last[0] if last else 0) + choose.choice((1, 1, 1, 1, 1, 1, 1, 0, 2, 7)))
    supply = world.ask(f"{SDS}.Query/NozSupply")
    sold = max(0, int(supply.total) - int(supply.remaining))
    volumes: dict[str, int] = {}
    for _ in range(choose.choice((0, 1, 3, 3, 8, 30))):
        volumes[_wallet(choose)] = choose.choice((0, 1, world.part_of(sold // 8), sold if choose.random() < 0.1 else 5))
    volume = sum(volumes.values())
    listed = sorted(volumes.items())
    made = draft_of(draft(world.driver.chain_id, epoch, node.network_address, owner.text, listed, (min(volume, 3), A_ROOT if volume else EMPTY_ROOT)))
    chosen = signers if choose.random() < 0.9 else choose.sample(signers, choose.randint(1, len(signers)))
    return made.messages(made.signature_info({_key(one): bls.sign(bls_secret(one), made.message) for one in chosen}))


def withdraw(choose: random.Random, world: World) -> Any:
    one = world.someone()
    found = world.ask(f"{PACKAGE}.Query/RewardsByWallet", wallet_address=one.text).rewards.mature_total_reward
    mature = sum(int(part.amount) for part in found)
    amount = choose.choice((mature, world.part_of(mature), mature + 1)) or 1
    return message_class(f"{PACKAGE}.MsgWithdraw")(amount=[coin(amount)], wallet_address=one.text, target_address=world.someone().text)


def found(choose: random.Random, world: World) -> Any:
    message = message_class(f"{PACKAGE}.MsgFoundationDeposit")(amount=[coin(choose.choice((1, 100 * STOS, 1000 * STOS)))])
    setattr(message, "from", world.someone().text)
    return message


def slash(choose: random.Random, world: World) -> Any:
    """Mostly what others have approved already."""
    resource, voters = nodes(world, "ResourceNodes"), active_metas(world)
    if not resource or not voters:
        return None
    node = resource[0] if choose.random() < 0.7 else choose.choice(resource)
    begun = world.ask(f"{PACKAGE}.Query/SlashingApprovals", network_address=node.network_address).approvals
    noz, suspend, approvers = choose.choice((0, 10**6, 10**12, 10**15)), choose.random() < 0.5, list[str]()
    if begun and choose.random() < 0.8:
        one = choose.choice(list(begun))
        noz, suspend, approvers = int(one.slashing_noz), one.suspend, list(one.approvers)
    left = [(meta, owner) for meta, owner in voters if meta.network_address not in approvers and owner.text != node.owner_address]
    if not left or choose.random() < 0.1:
        left = voters
    chosen = choose.sample(left, min(choose.randint(1, 3), len(left)))
    return message_class(f"{PACKAGE}.MsgSlashingResourceNode")(
        reporters=[meta.network_address for meta, _ in chosen],
        reporter_owner=[owner.text for _, owner in chosen],
        network_address=node.network_address,
        wallet_address=node.owner_address if choose.random() < 0.95 else world.someone().text,
        slashing=str(noz),
        suspend=suspend,
    )


OPERATIONS = (
    Kind("report keys", 8, keys),
    Kind("volume report", 25, report),
    Kind("withdraw rewards", 10, withdraw),
    Kind("fill the foundation", 4, found),
    Kind("slash", 6, slash),
)
