"""Nodes come, deposit, are put to work, vote on each other and leave."""

from __future__ import annotations

import hashlib
import random
from base64 import b64encode
from typing import Any

from chain.codec.registry import message_class, pack_any
from chain.crypto import address as bech32
from chain.crypto.keys import Ed25519PublicKey, public_key_to_any
from tests.simulation.world import DENOM, FOUNDERS, GOV, Account, Kind, World, account, coin

PACKAGE = "stratos.register.v1"
STOS = 10**18
NODES = 40
"""Numbers that network keys are drawn from; a node that has left may come again."""
GENESIS_METAS = {1: 6, 2: 7, 3: 8, 4: 9}
"""Number of the network key → number of its owner's account."""
GENESIS_RESOURCES = {5: 6, 6: 3, 7: 9}
BONDED, UNBONDED = 3, 1


def network_key(number: int) -> Ed25519PublicKey:
    """The key of a node; the same for the same number."""
    return Ed25519PublicKey(hashlib.sha256(f"simulation node {number}".encode()).digest())


def network_address(number: int) -> str:
    return bech32.encode(network_key(number).address, bech32.NODE)


def prepare(section: Any, choose: random.Random) -> None:
    section["params"] |= {
        "unbonding_threashold_time": f"{choose.choice((10, 60))}s",
        "unbonding_completion_time": f"{choose.choice((20, 60))}s",
        "voting_period": f"{choose.choice((40, 200))}s",
        "max_entries": choose.choice((1, 16)),
        "solvency_rules": choose.random() < 0.8,
    }
    section["meta_nodes"] = [_genesis_node(number, owner, 1000 * STOS) for number, owner in GENESIS_METAS.items()]
    section["resource_nodes"] = [
        _genesis_node(number, owner, 500 * STOS, node_type=number, effective_tokens=str(choose.randint(1, 500) * STOS))
        for number, owner in GENESIS_RESOURCES.items()
    ]


def _genesis_node(number: int, owner: int, tokens: int, **fields: Any) -> dict[str, Any]:
    return {
        "network_address": network_address(number),
        "pubkey": {"@type": "/cosmos.crypto.ed25519.PubKey", "key": b64encode(network_key(number).raw).decode()},
        "suspend": False,
        "status": "BOND_STATUS_BONDED",
        "tokens": str(tokens),
        "owner_address": account(owner).text,
        "description": {"moniker": f"node {number}"},
        "creation_time": "2025-12-31T00:00:00Z",
        "beneficiary_address": "",
        **fields,
    }


def make(name: str, **fields: Any) -> Any:
    return message_class(f"{PACKAGE}.{name}")(**fields)


def nodes(world: World, kind: str, **filters: Any) -> list[Any]:
    """``ResourceNodes`` or ``MetaNodes`` that pass the filters."""
    found: list[Any] = list(world.ask(f"{PACKAGE}.Query/{kind}", pagination={"limit": 200}, **filters).nodes)
    return found


def active_metas(world: World) -> list[tuple[Any, Account]]:
    """(meta node, its owner) of those that vote, as far as the owner's key is known."""
    pairs = [(node, world.by_text(node.owner_address)) for node in nodes(world, "MetaNodes", status=BONDED, suspension=1)]
    return [(node, owner) for node, owner in pairs if owner is not None]


def _amount(choose: random.Random) -> int:
    return choose.choice((1, STOS, choose.randint(1, 400) * STOS, choose.randint(1, 10**21)))


def _new(choose: random.Random, world: World, name: str, **fields: Any) -> Any:
    number, owner = choose.randrange(NODES), account(choose.randrange(FOUNDERS)) if choose.random() < 0.8 else world.someone()
    return make(
        name,
        network_address=network_address(number),
        pubkey=public_key_to_any(network_key(number)),
        value=coin(choose.choice((1, STOS, choose.randint(1, 400) * STOS, choose.randint(STOS, 10**21)))),
        owner_address=owner.text,
        beneficiary_address=choose.choice((owner, world.someone())).text,
        description={"moniker": "m", "details": "d" * choose.choice((0, 5, 281) if choose.random() < 0.1 else (0,))},
        **fields,
    )


def create_resource(choose: random.Random, world: World) -> Any:
    return _new(choose, world, "MsgCreateResourceNode", node_type=choose.randint(1, 7))


def create_meta(choose: random.Random, world: World) -> Any:
    return _new(choose, world, "MsgCreateMetaNode")


def _some(choose: random.Random, world: World, kind: str) -> Any | None:
    found = nodes(world, kind)
    return choose.choice(found) if found else None


def update(choose: random.Random, world: World) -> Any:
    kind = choose.choice(("Resource", "Meta"))
    node = _some(choose, world, f"{kind}Nodes")
    if node is None:
        return None
    fields = {"node_type": choose.randint(1, 7)} if kind == "Resource" else {}
    return make(
        f"MsgUpdate{kind}Node",
        network_address=node.network_address,
        owner_address=node.owner_address,
        beneficiary_address=choose.choice(("", world.someone().text)),
        description={"moniker": choose.choice("abc")},
        **fields,
    )


def add_deposit(choose: random.Random, world: World) -> Any:
    kind = choose.choice(("Resource", "Meta"))
    node = _some(choose, world, f"{kind}Nodes")
    if node is None:
        return None
    return make(
        f"MsgUpdate{kind}NodeDeposit",
        network_address=node.network_address,
        owner_address=node.owner_address,
        deposit_delta=coin(_amount(choose), DENOM if choose.random() < 0.95 else "stake"),
    )


def remove_resource(choose: random.Random, world: World) -> Any:
    node = _some(choose, world, "ResourceNodes")
    return None if node is None else make("MsgRemoveResourceNode", resource_node_address=node.network_address, owner_address=node.owner_address)


def remove_meta(choose: random.Random, world: World) -> Any:
    candidates = nodes(world, "MetaNodes", status=UNBONDED)
    spare = [node for node, _ in active_metas(world)][4:]
    found = candidates + spare if choose.random() < 0.9 else nodes(world, "MetaNodes")
    if not found:
        return None
    node = choose.choice(found)
    return make("MsgRemoveMetaNode", meta_node_address=node.network_address, owner_address=node.owner_address)


def effective_deposit(choose: random.Random, world: World) -> Any:
    """Mostly an amount that others have approved already."""
    found, voters = nodes(world, "ResourceNodes", status=BONDED), active_metas(world)
    if not found or not voters:
        return None
    node = choose.choice(found)
    begun = world.ask(f"{PACKAGE}.Query/Votes", network_addr=node.network_address).effective_deposits
    amount, approvers = str(choose.choice((int(node.tokens), max(int(node.tokens) * choose.randint(1, 100) // 100, 1)))), []
    if begun and choose.random() < 0.8:
        one = choose.choice(begun)
        amount, approvers = one.effective_tokens_wei, list(one.approvers)
    left = [pair for pair in voters if pair[0].network_address not in approvers] or voters
    chosen = choose.sample(left, min(choose.randint(1, 4), len(left)))
    return make(
        "MsgUpdateEffectiveDeposit",
        reporters=[meta.network_address for meta, _ in chosen],
        reporter_owner=[owner.text for _, owner in chosen],
        network_address=node.network_address,
        effective_tokens=amount,
    )


def vote(choose: random.Random, world: World) -> Any:
    candidates, voters = nodes(world, "MetaNodes", status=UNBONDED), active_metas(world)
    if not candidates or not voters:
        return None
    node, (voter, owner) = choose.choice(candidates), choose.choice(voters)
    return make(
        "MsgMetaNodeRegistrationVote",
        candidate_network_address=node.network_address,
        candidate_owner_address=node.owner_address,
        opinion=choose.random() < 0.9,
        voter_network_address=voter.network_address,
        voter_owner_address=owner.text,
    )


def kick(choose: random.Random, world: World) -> Any:
    """Mostly the one with the highest address, so that votes meet."""
    voters = active_metas(world)
    if len(voters) < 2:
        return None
    target = voters[-1][0] if choose.random() < 0.8 else choose.choice(voters)[0]
    voter, owner = choose.choice(voters)
    return make(
        "MsgKickMetaNodeVote",
        target_network_address=target.network_address,
        opinion=choose.random() < 0.5,
        voter_network_address=voter.network_address,
        voter_owner_address=owner.text,
    )


def propose(choose: random.Random, world: World) -> Any:
    """A proposal that changes a parameter, or that would kick a meta node."""
    found = nodes(world, "MetaNodes")
    if choose.random() < 0.3 and found:
        target = choose.choice(found).network_address
        carried = make("MsgKickMetaNodeVote", target_network_address=target, opinion=True, voter_owner_address=GOV)
    else:
        carried = make("MsgUpdateParams", authority=GOV, params=world.ask(f"{PACKAGE}.Query/Params").params)
        params = carried.params
        change = choose.randrange(5)
        if change == 0:
            params.max_entries = choose.choice((1, 2, 16))
        elif change == 1:
            params.solvency_rules = not params.solvency_rules
        elif change == 2:
            params.unbonding_completion_time.seconds = choose.choice((10, 50))
        elif change == 3:
            params.resource_node_reg_enabled = choose.random() < 0.8
        else:
            params.voting_period.seconds = choose.choice((30, 100))
    return message_class("cosmos.gov.v1.MsgSubmitProposal")(
        messages=[pack_any(carried)], initial_deposit=[coin(10**19)], proposer=world.someone().text, title="a proposal", summary="of register"
    )


OPERATIONS = (
    Kind("create resource node", 8, create_resource),
    Kind("create meta node", 4, create_meta),
    Kind("update node", 5, update),
    Kind("add deposit", 8, add_deposit),
    Kind("remove resource node", 4, remove_resource),
    Kind("remove meta node", 2, remove_meta),
    Kind("effective deposit", 20, effective_deposit),
    Kind("registration vote", 14, vote),
    Kind("kick vote", 6, kick),
    Kind("register proposal", 2, propose),
)
