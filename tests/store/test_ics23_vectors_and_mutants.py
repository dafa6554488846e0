"""ICS-23 proofs: the published vectors, the rule tables, and every kind of single-byte mutant against Go's verdict."""

from __future__ import annotations

import base64
import json
import random
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format

from chain.codec.registry import message_class
from chain.store import ics23
from tests.store.ics23_vectors import SPECS, Claim, batches, published, rules

VERDICTS = Path(__file__).parent.parent / "vectors" / "ics23_mutants.json"
CLAIMS = [*published(), *batches()]


def by_name(claim: Claim) -> str:
    return claim.name


def read(name: str, fields: Any) -> Any:
    return json_format.ParseDict(fields or {}, message_class(f"cosmos.ics23.v1.{name}")())


def cases(table: str) -> list[Any]:
    data = rules()[table]
    return [pytest.param(case, id=str(name)) for name, case in (data.items() if isinstance(data, dict) else enumerate(data))]


@pytest.mark.parametrize("claim", CLAIMS, ids=by_name)
def test_a_published_proof_holds_for_its_claim(claim: Claim) -> None:
    assert claim.holds()


@pytest.mark.parametrize("claim", published(), ids=by_name)
def test_a_published_proof_leads_to_its_root(claim: Claim) -> None:
    assert ics23.calculate_root(ics23.decode_proof(claim.proof)) == claim.root


@pytest.mark.parametrize("case", cases("LeafOp"))
def test_leaf_ops_hash_as_published(case: Any) -> None:
    op, key, value = read("LeafOp", case["Op"]), *(base64.b64decode(case.get(part) or "") for part in ("Key", "Value"))
    if case["IsErr"]:
        with pytest.raises(ics23.ProofError):
            ics23.apply_leaf(op, key, value)
    else:
        assert ics23.apply_leaf(op, key, value) == base64.b64decode(case["Expected"])


@pytest.mark.parametrize("case", cases("InnerOp"))
def test_inner_ops_hash_as_published(case: Any) -> None:
    op, child = read("InnerOp", case["Op"]), base64.b64decode(case.get("Child") or "")
    if case["IsErr"]:
        with pytest.raises(ics23.ProofError):
            ics23.apply_inner(op, child)
    else:
        assert ics23.apply_inner(op, child) == base64.b64decode(case["Expected"])


@pytest.mark.parametrize("case", cases("DoHash"))
def test_hash_ops_give_the_published_digests(case: Any) -> None:
    preimage = case.get("Preimage") or case.get("PreImage")
    assert ics23.hash_bytes(case["HashOp"], preimage.encode()).hex() == case["ExpectedHash"]


@pytest.mark.parametrize("case", cases("CheckLeaf"))
def test_leaf_rules_hold_as_published(case: Any) -> None:
    spec = ics23.ProofSpec(leaf_spec=read("LeafOp", case["Spec"]))
    if case["IsErr"]:
        with pytest.raises(ics23.ProofError):
            ics23.check_leaf(read("LeafOp", case["Leaf"]), spec)
    else:
        ics23.check_leaf(read("LeafOp", case["Leaf"]), spec)


@pytest.mark.parametrize("case", cases("CheckAgainstSpec"))
def test_spec_rules_hold_as_published(case: Any) -> None:
    proof, spec = read("ExistenceProof", case["Proof"]), read("ProofSpec", case["Spec"])
    if case["Err"]:
        with pytest.raises(ics23.ProofError):
            ics23.check_against_spec(proof, spec)
    else:
        ics23.check_against_spec(proof, spec)


@pytest.mark.parametrize("case", cases("ExistenceProof"))
def test_existence_proofs_calculate_as_published(case: Any) -> None:
    proof = read("ExistenceProof", case["Proof"])
    if case["IsErr"]:
        with pytest.raises(ics23.ProofError):
            ics23.existence_root(proof)
    else:
        assert ics23.existence_root(proof) == base64.b64decode(case["Expected"])


@pytest.mark.parametrize("case", cases("EmptyBranch"))
def test_empty_branches_are_recognised_as_published(case: Any) -> None:
    op, inner = read("InnerOp", case["Op"]), read("ProofSpec", case["Spec"]).inner_spec
    assert ics23.left_branches_are_empty(inner, op) == case["IsLeft"]
    assert ics23.right_branches_are_empty(inner, op) == case["IsRight"]


def flipped(proof: bytes, position: int, mask: int) -> bytes:
    mutant = bytearray(proof)
    mutant[position] ^= mask
    return bytes(mutant)


@pytest.mark.parametrize("claim", CLAIMS, ids=by_name)
def test_our_verdict_equals_gos_on_a_random_bit_of_every_byte(claim: Claim) -> None:
    """Recorded by tests/store/make_ics23_mutants.py; ``make soak`` asks Go about all 255 other values of every byte."""
    recorded = json.loads(VERDICTS.read_text())[claim.name]
    assert len(recorded["bits"]) * recorded["step"] >= len(claim.proof)
    for at, (bit, accepted) in enumerate(zip(recorded["bits"], recorded["go_accepts"], strict=True)):
        position = at * recorded["step"]
        assert claim.holds(flipped(claim.proof, position, 1 << int(bit))) == (accepted == "1"), (position, bit)


def truths(spec: str, root: bytes) -> tuple[dict[bytes, bytes], set[bytes]]:
    """What the published proofs say of the tree with this root: entries, and keys that are absent."""
    entries: dict[bytes, bytes] = {}
    absent: set[bytes] = set()
    for claim in published():
        if claim.spec == spec and claim.root == root:
            proof = ics23.decode_proof(claim.proof)
            if claim.value:
                entries[claim.key] = claim.value
            else:
                absent.add(claim.key)
                for side in ("left", "right"):
                    if proof.nonexist.HasField(side):
                        neighbour = getattr(proof.nonexist, side)
                        entries[neighbour.key] = neighbour.value
    return entries, absent


def existence_parts(proof: Any) -> list[Any]:
    kind = proof.WhichOneof("proof")
    if kind == "exist":
        return [proof.exist]
    if kind == "nonexist":
        return [getattr(proof.nonexist, side) for side in ("left", "right") if proof.nonexist.HasField(side)]
    return []


@pytest.mark.parametrize("claim", published(), ids=by_name)
def test_no_mutant_proves_another_key_value_root_or_absence(claim: Claim) -> None:
    """Each byte takes three other values; whatever the mutant then says of itself must still be true of the tree."""
    spec = SPECS[claim.spec]
    entries, _ = truths(claim.spec, claim.root)
    choose = random.Random(claim.name)
    for position in range(len(claim.proof)):
        for mask in (1 << choose.randrange(8), choose.randrange(1, 256), 0xFF):
            try:
                mutant = ics23.decode_proof(flipped(claim.proof, position, mask))
            except ics23.ProofError:
                continue
            for part in existence_parts(mutant):
                alone = ics23.CommitmentProof(exist=part)
                if ics23.verify_membership(spec, claim.root, alone, part.key, part.value):
                    assert entries[part.key] == part.value
                for key, value in entries.items():
                    if ics23.verify_membership(spec, claim.root, mutant, key, value + b"x"):
                        pytest.fail(f"another value was proved for {key.hex()}")
            for key in entries:
                assert not ics23.verify_non_membership(spec, claim.root, mutant, key), key.hex()
            other_root = flipped(claim.root, position % len(claim.root), mask)
            assert not ics23.verify_membership(spec, other_root, mutant, claim.key, claim.value or b"x")
            assert not ics23.verify_non_membership(spec, other_root, mutant, claim.key)


def test_an_inner_node_does_not_pass_for_a_leaf() -> None:
    """Dragonberry's shape: a proof whose leaf prefix swallows an inner node's bytes."""
    claim = next(claim for claim in published() if claim.name == "iavl/exist_middle")
    proof = ics23.decode_proof(claim.proof)
    step = proof.exist.path[0]
    forged = ics23.ExistenceProof(key=claim.key, value=claim.value, leaf=proof.exist.leaf, path=proof.exist.path[1:])
    forged.leaf.prefix = proof.exist.leaf.prefix + step.prefix
    assert not ics23.verify_membership(ics23.IAVL_SPEC, claim.root, ics23.CommitmentProof(exist=forged), claim.key, claim.value)


def test_an_empty_key_or_value_is_never_proved() -> None:
    for claim in published():
        proof = ics23.decode_proof(claim.proof)
        assert not ics23.verify_membership(SPECS[claim.spec], claim.root, proof, b"", claim.value or b"x")
        assert not ics23.verify_membership(SPECS[claim.spec], claim.root, proof, claim.key, b"")
