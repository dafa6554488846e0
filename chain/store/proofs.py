"""Makes ICS-23 proofs: of a key's presence or absence in a store's tree, and of a store's root in the app hash (ibc.md 2.4).

``ProofOps`` holds both, innermost first, with the types ``ics23:iavl`` and ``ics23:simple`` that relayers and light clients expect.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from chain.codec.registry import message_class
from chain.codec.varint import uvarint
from chain.store import merkle
from chain.store.iavl import LeafPath
from chain.store.ics23 import IAVL_SPEC, SHA256, TENDERMINT_SPEC, CommitmentProof, ExistenceProof

ProofOps: Final = message_class("tendermint.crypto.ProofOps")


class NoProof(Exception):
    """There is nothing to prove with: the tree is empty, or the entry's value is (ICS-23 proves neither)."""


def existence_proof(path: LeafPath) -> Any:
    """``cosmos.ics23.v1.ExistenceProof`` of one leaf of a store's tree. Raises NoProof for an empty value."""
    if not path.value:
        raise NoProof("ICS-23 cannot prove an entry whose value is empty")
    proof = ExistenceProof(key=path.key, value=path.value, leaf=IAVL_SPEC.leaf_spec)
    proof.leaf.prefix = bytes(1) + _zigzag(1) + _zigzag(path.version)
    for step in path.steps:
        head = _zigzag(step.height) + _zigzag(step.size) + _zigzag(step.version) + b"\x20"
        if step.from_left:
            proof.path.add(hash=SHA256, prefix=head, suffix=b"\x20" + step.sibling)
        else:
            proof.path.add(hash=SHA256, prefix=head + step.sibling + b"\x20")
    return proof


def commitment_proof(key: bytes, below: LeafPath | None, above: LeafPath | None) -> Any:
    """Presence of ``key`` when ``below`` is its own path (``Tree.path``), else absence between the two neighbours. Raises NoProof."""
    if below is not None and below.key == key:
        return CommitmentProof(exist=existence_proof(below))
    if below is None and above is None:
        raise NoProof("ICS-23 cannot prove absence in an empty store")
    proof = CommitmentProof()
    proof.nonexist.key = key
    if below is not None:
        proof.nonexist.left.CopyFrom(existence_proof(below))
    if above is not None:
        proof.nonexist.right.CopyFrom(existence_proof(above))
    return proof


def store_proof(roots: Mapping[str, bytes], name: str) -> Any:
    """Presence of store ``name`` with its root among ``roots`` (store name → root hash) under their app hash."""
    names = sorted(roots)
    leaves = [merkle.store_leaf(each, roots[each]) for each in names]
    proof = ExistenceProof(key=name.encode("ascii"), value=roots[name], leaf=TENDERMINT_SPEC.leaf_spec)
    for sibling, on_left in merkle.siblings(leaves, names.index(name)):
        if on_left:
            proof.path.add(hash=SHA256, prefix=b"\x01" + sibling)
        else:
            proof.path.add(hash=SHA256, prefix=b"\x01", suffix=sibling)
    return CommitmentProof(exist=proof)


def proof_ops(key: bytes, in_store: Any, name: str, of_store: Any) -> Any:
    """``tendermint.crypto.ProofOps``: the proof in the store, then the proof of the store."""
    ops = ProofOps()
    ops.ops.add(type="ics23:iavl", key=key, data=in_store.SerializeToString())
    ops.ops.add(type="ics23:simple", key=name.encode("ascii"), data=of_store.SerializeToString())
    return ops


def _zigzag(value: int) -> bytes:
    """iavl writes these numbers signed; none is negative."""
    return uvarint(value << 1)
