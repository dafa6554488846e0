"""Epochs with honest and lying trees, proofs against them, challenges and answers, other keys for meta nodes; some of everything is forged.

What an epoch's tree held is remembered by its root, as the meta nodes would. Keys and secrets are those of pot's operations.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from functools import cache
from typing import Any

import nacl.signing

from chain.codec.registry import message_class
from chain.crypto import address as bech32
from chain.crypto import bls
from chain.reports import Draft, report_reference
from tests.modules import settling
from tests.modules.settling import EDGE, PAID, STORAGE, Tree, commit_line, fraud, message, order_limit, release_leaf, session_grant, traffic_leaf
from tests.simulation.operations.pot import bls_secret
from tests.simulation.operations.register import active_metas
from tests.simulation.world import GOV, Account, Kind, World

SETTLEMENT, POT, REGISTER = "stratos.settlement.v1", "stratos.pot.v1", "stratos.register.v1"


@dataclass(frozen=True)
class Node:
    """A meta node as documents and reports need it."""

    network_address: str

    @property
    def ledger_seed(self) -> bytes:
        return hashlib.sha256(f"simulation ledger {self.network_address}".encode()).digest()

    @property
    def bls_pubkey(self) -> bytes:
        return _key(bls_secret(self.network_address))

    def sign(self, raw: bytes) -> bytes:
        return bls.sign(bls_secret(self.network_address), raw)


@cache
def _key(secret: int) -> bytes:
    return bls.public_key(secret)


def prepare(section: Any, choose: random.Random) -> None:
    section["params"] |= {
        "challenge_blocks": choose.choice((2, 5, 10)),
        "challenge_bond_wei": str(choose.choice((1, 10**15, 10**18))),
        "fraud_slash_ratio": choose.choice(("0.100000000000000000", "0.010000000000000000", "0.333333333333333333")),
    }


def with_keys(world: World) -> list[tuple[Node, Account]]:
    """Active meta nodes that have the keys whose secrets are known, with their owners."""
    registered = {bytes(one.bls_pubkey): None for one in world.ask(f"{SETTLEMENT}.Query/AllMetaKeys", pagination={"limit": 200}).keys}
    found = [(Node(node.network_address), owner) for node, owner in active_metas(world)]
    return [(node, owner) for node, owner in found if node.bls_pubkey in registered]


def trees(world: World) -> dict[bytes, Tree]:
    """Trees of receipts by root, also of reports that failed."""
    found: dict[bytes, Tree] = world.scratch.setdefault("receipts", {})
    return found


def next_epoch(world: World) -> int:
    last = world.ask(f"{POT}.Query/PriceHistory", pagination={"limit": 1, "reverse": True}).epochs
    return int(last[0].epoch) + 1 if last else 1


def outstanding_noz(world: World) -> int:
    ozone = world.ask(f"{REGISTER}.Query/OzoneState")
    return max(int(ozone.total_noz) - int(ozone.remaining_noz), 0)


# --- keys --------------------------------------------------------------------------------------------------------------------------------


def renew_keys(choose: random.Random, world: World) -> Any:
    """The same keys again, by the owner, by another, with another ledger key or without a proof."""
    found = with_keys(world)
    if not found:
        return None
    node, owner = choose.choice(found)
    secret, key = bls_secret(node.network_address), node.bls_pubkey
    made = message("MsgRegisterMetaKeys", meta_node=node.network_address, owner=owner.text, bls_pubkey=key)
    made.proof_of_possession = bls.prove_possession(secret, world.driver.chain_id, bech32.decode(node.network_address, bech32.NODE), key)
    made.ledger_consensus_pubkey = bytes(nacl.signing.SigningKey(node.ledger_seed).verify_key)
    match choose.randrange(6):
        case 0:
            made.owner = world.someone().text
        case 1:
            made.ledger_consensus_pubkey = bytes(nacl.signing.SigningKey(choose.randbytes(32)).verify_key)
        case 2:
            made.proof_of_possession = node.sign(b"another message")
    return made


# --- epochs ------------------------------------------------------------------------------------------------------------------------------


def leaf_of(choose: random.Random, world: World, node: Node, noz: int) -> Any:
    """A good leaf, or at times one that pays a noz too many."""
    beneficiary, number = world.someone().text, choose.getrandbits(64)
    if choose.random() < 0.2:
        return release_leaf(choose.randint(1, 365), noz, beneficiary, copy=number & (1 << 40) - 1)
    noz = min(noz, 10**15)
    changes: dict[str, Any] = {"leaf": {"noz": noz + 1}} if choose.random() < 0.1 else {}
    chain = {"chain_id": world.driver.chain_id}
    traffic_class = choose.choice((STORAGE, STORAGE, EDGE))
    limit, grant = {**chain, "from_noz": 1, "to_noz": noz + 1}, session_grant(settling.PAYER, **chain)
    return traffic_leaf(node, number, noz, beneficiary, PAID, traffic_class, limit=limit, receipt_=chain, grant=grant, **changes)  # type: ignore[arg-type]


def tree_of(choose: random.Random, world: World, nodes: list[Node], noz: int) -> Tree:
    """Receipts of about so many noz, mostly sorted, at times one of them twice."""
    count = choose.choice((1, 2, 3, 5, 8))
    found = [leaf_of(choose, world, choose.choice(nodes), max(noz // count, 1)) for _ in range(count)]
    if choose.random() < 0.05:
        found.append(found[0])
    return Tree(found) if choose.random() < 0.1 else Tree.of(*found)


def report(choose: random.Random, world: World) -> Any:
    """MsgCommitEpoch and MsgVolumeReport of one transaction, or at times one of them alone."""
    found = with_keys(world)
    noz = world.part_of(outstanding_noz(world) // 2)
    if not found or noz < 20 or world.scratch.get("reported") == world.driver.height:
        return None
    world.scratch["reported"] = world.driver.height
    nodes = [node for node, _ in found]
    tree = tree_of(choose, world, nodes, noz)
    reporter, owner = choose.choice(found)
    epoch = next_epoch(world) if choose.random() < 0.95 else choose.choice((0, 1, next_epoch(world) + 1, 1 << 62))
    commitment = message(
        "EpochCommitment", epoch=epoch, lines=[commit_line(*line) for line in tree.lines()], promo_expired_noz="0", roots=settling.roots(tree)
    )
    made = message_class(f"{POT}.MsgVolumeReport")(
        wallet_volumes=[{"wallet_address": wallet, "volume": str(volume)} for wallet, volume in sorted(tree.volumes().items())],
        reporter=reporter.network_address,
        reporter_owner=owner.text,
        epoch=str(epoch),
        report_reference=report_reference(commitment),
    )
    draft = Draft(world.driver.chain_id, commitment, made)
    signers = sorted(nodes if choose.random() < 0.9 else choose.sample(nodes, choose.randint(1, len(nodes))), key=lambda node: node.bls_pubkey)
    info = message_class(f"{POT}.BLSSignatureInfo")(
        pub_keys=[node.bls_pubkey for node in signers], signature=bls.aggregate([node.sign(draft.message) for node in signers]), txData=draft.data
    )
    trees(world)[tree.root] = tree
    both = draft.messages(info)
    return both if choose.random() < 0.95 else [choose.choice(both)]


# --- proofs ------------------------------------------------------------------------------------------------------------------------------


def kept_tree(choose: random.Random, world: World) -> tuple[int, Tree] | None:
    """(epoch, tree) of one that is committed."""
    epochs = world.ask(f"{SETTLEMENT}.Query/Epochs", status=1, pagination={"limit": 20, "reverse": True}).epochs
    found = [(one.epoch, trees(world)[one.roots.receipts_root]) for one in epochs if one.roots.receipts_root in trees(world)]
    return choose.choice(found) if found else None


def prove(choose: random.Random, world: World) -> Any:
    """A proof of any kind: where the epoch is honest it is refused."""
    finder, found = world.someone(), kept_tree(choose, world)
    if found is None or choose.random() < 0.15:
        return overlapping(choose, world, finder) if choose.random() < 0.3 else None
    epoch, tree = found
    one, other = (choose.randrange(len(tree.leaves)) for _ in range(2))
    kind = choose.choice(("bad_leaf", "bad_leaf", "double_entry", "wrong_order", "wrong_sum"))
    if kind == "bad_leaf":
        wrong = [at for at, leaf in enumerate(tree.leaves) if leaf.HasField("traffic") and leaf.noz % 10 == 1]
        return signed_by(finder, fraud(kind, leaf=tree.proof(choose.choice(wrong or [one]), epoch)))
    if kind == "double_entry":
        return signed_by(finder, fraud(kind, first=tree.proof(one, epoch), second=tree.proof(other, epoch)))
    if kind == "wrong_order":
        return signed_by(finder, fraud(kind, left=tree.proof(one, epoch), right=tree.proof(min(one + 1, len(tree.leaves) - 1), epoch)))
    leaf = tree.leaves[one]
    line = settling.line_proof(tree.volumes(), tree.lines(), (leaf.beneficiary, leaf.traffic_class, leaf.fund), epoch)
    places = [at for at, each in enumerate(tree.leaves) if (each.beneficiary, each.traffic_class) == (leaf.beneficiary, leaf.traffic_class)]
    return signed_by(finder, fraud(kind, line=line, **settling.borders(tree, places[0], places[-1], epoch)))


def signed_by(finder: Account, made: Any) -> Any:
    made.finder = finder.text
    return made


def overlapping(choose: random.Random, world: World, finder: Account) -> Any:
    """Two order limits of a lease; every other time they overlap."""
    found = with_keys(world)
    if not found:
        return None
    node, lease, at = choose.choice(found)[0], bytes([choose.randrange(4)]) * 32, choose.choice((50, 100))
    fields = {"chain_id": world.driver.chain_id, "lease_id": lease, "max_noz": 100}
    limits = {
        "first": order_limit(node, 1, 100, **fields, from_noz=0, to_noz=100),  # type: ignore[arg-type]
        "second": order_limit(node, 2, 100, **fields, from_noz=at, to_noz=at + 100),  # type: ignore[arg-type]
    }
    signer = nacl.signing.SigningKey(node.ledger_seed)
    shown = {name: settling.signed(limit, settling.documents.LIMIT_DOMAIN, signer) for name, limit in limits.items()}
    return signed_by(finder, fraud("overlapping_ranges", **shown))


# --- challenges --------------------------------------------------------------------------------------------------------------------------


def doubt(choose: random.Random, world: World) -> Any:
    found = kept_tree(choose, world)
    if found is None:
        return None
    return signed_by(world.someone(), fraud("withheld_leaf", epoch=found[0], leaf_index=choose.randint(0, len(found[1].leaves))))


def show(choose: random.Random, world: World) -> Any:
    """An answer to an open challenge, at times with another leaf; without one, to none."""
    opened = world.ask(f"{SETTLEMENT}.Query/Challenges", pagination={"limit": 20}).challenges
    if not opened:
        return message("MsgAnswerChallenge", responder=world.someone().text, challenge_id=7) if choose.random() < 0.05 else None
    one = choose.choice(opened)
    kept = world.ask(f"{SETTLEMENT}.Query/Epoch", epoch=one.epoch).epoch
    tree = trees(world).get(kept.roots.receipts_root)
    if tree is None:
        return None
    index = one.leaf_index if choose.random() < 0.9 else choose.randrange(len(tree.leaves))
    return message("MsgAnswerChallenge", responder=world.someone().text, challenge_id=one.challenge_id, leaf=tree.proof(index, one.epoch))


def change_parameters(choose: random.Random, world: World) -> Any:
    """Out of turn: governance alone may."""
    params = world.ask(f"{SETTLEMENT}.Query/Params").params
    return message("MsgUpdateParams", authority=GOV if choose.random() < 0.5 else world.someone().text, params=params)


OPERATIONS = (
    Kind("meta keys again", 2, renew_keys),
    Kind("report with receipts", 14, report),
    Kind("fraud proof", 6, prove),
    Kind("challenge", 6, doubt),
    Kind("answer", 6, show),
    Kind("settlement parameters", 1, change_parameters),
)
