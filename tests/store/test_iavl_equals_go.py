"""Our tree against Go iavl 1.1.2: roots of recorded random histories (tests/store/go/iavl_histories, 60 histories, seed 7)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from chain.store.iavl import EMPTY_HASH, NodeKey, Tree

HISTORIES = json.loads((Path(__file__).parent.parent / "vectors" / "iavl_histories.json").read_text())


@pytest.mark.parametrize("number", range(len(HISTORIES)))
@pytest.mark.parametrize("reload", [False, True], ids=["in memory", "loaded again at every version"])
def test_every_root_of_a_history_equals_gos(number: int, reload: bool) -> None:
    stored: dict[NodeKey, bytes] = {}
    tree = Tree(None, stored.get)
    expected: dict[bytes, bytes] = {}
    for version, block in enumerate(HISTORIES[number], start=1):
        changes = [(bytes.fromhex(key), None if value is None else bytes.fromhex(value)) for key, value in block["changes"]]
        applied = tree.apply(changes, version)
        stored.update({(version, nonce): raw for nonce, raw in applied.new_nodes})
        for key in applied.orphans:
            del stored[key]
        tree = applied.tree
        assert tree.hash.hex() == block["root"]
        for key, value in changes:
            if value is None:
                expected.pop(key, None)
            else:
                expected[key] = value
        if reload:
            tree = Tree.at(tree.root_key, tree.hash, stored.get)
        assert list(tree.iterate()) == sorted(expected.items())
        assert tree.size == len(expected)
        assert len(stored) == max(2 * len(expected) - 1, 0), "every stored node is in use once orphans are gone"


def test_the_root_of_an_empty_tree_is_the_hash_of_nothing() -> None:
    assert Tree(None, dict[NodeKey, bytes]().get).hash == EMPTY_HASH


def test_a_leaf_hashes_as_the_reference_says() -> None:
    tree = Tree(None, dict[NodeKey, bytes]().get).apply([(b"key", b"value")], 1).tree
    assert tree.hash.hex() == "85e286d2d33ee15ccc8a98f26ad8305dac3512dd5658432351c74b93a6471211"
