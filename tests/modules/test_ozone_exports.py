"""Exports of chains in the middle of everything: void epochs with ozone pending, open challenges, keys replaced, signers leaving, approvals gathering."""

from __future__ import annotations

import copy
from typing import Any

from chain.app import build_application
from chain.application import Settings
from chain.codec.registry import message_class
from chain.codec.times import NANOS, rfc3339
from chain.crypto import bls
from chain.store.kv import MemoryBackend
from chain.testing.driver import Driver
from genesis import document
from modules.settlement import documents
from tests.grants import Chain
from tests.modules.settling import (
    CHALLENGE_BLOCKS,
    EPOCH_S,
    FINDER,
    OWNER,
    SETTLEMENT,
    Net,
    Signing,
    Tree,
    fraud,
    ledger_signer,
    order_limit,
    prepay,
    release_leaf,
    signed,
    traffic_leaf,
)
from tests.support import CHAIN_ID, KEYS, text

SECTIONS = ("register", "sds", "pot", "settlement", "grant")


def in_the_middle() -> Net:
    """Epoch 1 is void and its ozone sold on, epoch 2 stands with a challenge, a signer of both is leaving, another has a new BLS key."""
    net = Net(4)
    lie = Tree([traffic_leaf(net.nodes[0], 1, 5 * 10**13, leaf={"noz": 5 * 10**13 + 1})])
    honest = Tree.of(traffic_leaf(net.nodes[1], 2, 10**12), release_leaf(3), release_leaf(4))
    net.report(1, lie)
    net.report(2, honest)
    net.ok(KEYS[4], prepay(KEYS[4], 9 * 10**23))
    net.ok(FINDER, fraud("bad_leaf", leaf=lie.proof(0)))
    assert int(net.ozone().pending_lower_noz) > 0
    net.ok(FINDER, fraud("withheld_leaf", epoch=2, leaf_index=1))
    first, second = (order_limit(net.nodes[0], serial, 10, from_noz=5, to_noz=15) for serial in (1, 2))
    signer = ledger_signer(net.nodes[0])
    limits = {name: signed(one, documents.LIMIT_DOMAIN, signer) for name, one in (("first", first), ("second", second))}
    net.ok(FINDER, fraud("overlapping_ranges", **limits))
    secret = bls.secret_from_seed(b"f" * 32)
    key, node = bls.public_key(secret), net.nodes[1]
    proof = bls.prove_possession(secret, CHAIN_ID, node.address, key)
    net.ok(OWNER, net.register_keys(node, bls_pubkey=key, proof_of_possession=proof))
    remove = message_class("stratos.register.v1.MsgRemoveMetaNode")
    net.ok(OWNER, remove(meta_node_address=net.nodes[3].network_address, owner_address=text(OWNER)))
    return net


def from_export(net: Net) -> tuple[Net, dict[str, Any]]:
    """A chain that begins with another's export, at its next height; and what it exports before its first block."""
    app = build_application(MemoryBackend(), Settings(invariant_period=1))
    made = copy.deepcopy(net.document)
    made["app_state"] = net.app.export()
    made["initial_height"] = str(net.driver.height + 1)
    made["genesis_time"] = rfc3339(net.driver.time_ns // NANOS)
    driver = Driver([app], document.normalise(made))
    driver.start()
    state: Any = app._pending_genesis
    ctx: Any = None
    exported = {module.name: module.genesis.export(ctx, state) for module in app.modules if module.name in SECTIONS and module.genesis is not None}
    again = object.__new__(Net)
    Chain.__init__(again, driver)
    again.nodes, again.document = net.nodes, made
    return again, exported


def test_an_export_in_the_middle_of_everything_is_imported_as_it_is_and_goes_on_alike() -> None:
    net = in_the_middle()
    again, exported = from_export(net)
    assert exported == {name: net.app.export()[name] for name in SECTIONS}
    rest = Tree.of(traffic_leaf(net.nodes[2], 9, 10**12))
    signing = Signing([net.nodes[0], net.nodes[2]])
    for chain in (net, again):
        chain.driver.next_block()
        result = chain.run(OWNER, *chain.messages(chain.draft(3, rest.volumes(), tree=rest), signing), gas=20_000_000, step_s=EPOCH_S)
        assert (result.codespace, result.code) == ("pot", 24), "two of three active ones"
        for _ in range(CHALLENGE_BLOCKS):
            chain.driver.next_block()
        assert chain.kept(2).status == 2, "nobody showed the leaf"
        assert chain.query(SETTLEMENT, "Challenges").challenges == []
        chain.holds()
    for name in ("settlement", "register", "pot"):
        ours, theirs = net.app.export()[name], again.app.export()[name]
        assert ours == theirs, name
