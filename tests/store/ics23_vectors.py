"""The published ICS-23 vectors, and claims made of them: single proofs, batches and compressed batches."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chain.store import ics23

FILE = Path(__file__).parent.parent / "vectors" / "ics23.json"
SPECS = {"iavl": ics23.IAVL_SPEC, "tendermint": ics23.TENDERMINT_SPEC, "smt": ics23.SMT_SPEC}


@dataclass(frozen=True, slots=True)
class Claim:
    """``value`` at ``key`` under ``root``; an empty value claims absence."""

    name: str
    spec: str
    root: bytes
    key: bytes
    value: bytes
    proof: bytes

    def holds(self, proof: bytes | None = None) -> bool:
        """Our verdict on this claim with this proof (or a mutated one)."""
        try:
            decoded = ics23.decode_proof(self.proof if proof is None else proof)
        except ics23.ProofError:
            return False
        spec = SPECS[self.spec]
        if self.value:
            return ics23.verify_membership(spec, self.root, decoded, self.key, self.value)
        return ics23.verify_non_membership(spec, self.root, decoded, self.key)

    def as_json(self) -> str:
        """The line the Go program reads."""
        fields = {"spec": self.spec, "root": self.root, "key": self.key, "value": self.value, "proof": self.proof}
        return json.dumps({name: value if isinstance(value, str) else value.hex() for name, value in fields.items()})


def rules() -> dict[str, Any]:
    """The rule tables by name."""
    tables: dict[str, Any] = json.loads(FILE.read_text())["rules"]
    return tables


def published() -> list[Claim]:
    """The 18 published proofs."""
    return [
        Claim(item["name"], item["spec"], *(bytes.fromhex(item[part]) for part in ("root", "key", "value", "proof")))
        for item in json.loads(FILE.read_text())["proofs"]
    ]


def batches() -> Iterator[Claim]:
    """Per spec, its six proofs in one batch and in one compressed batch, with the claim of each first and last."""
    for spec in SPECS:
        members = [claim for claim in published() if claim.spec == spec]
        batch = ics23.CommitmentProof()
        packed = ics23.CommitmentProof()
        for member in members:
            proof = ics23.decode_proof(member.proof)
            entry = batch.batch.entries.add()
            small = packed.compressed.entries.add()
            if proof.WhichOneof("proof") == "exist":
                entry.exist.CopyFrom(proof.exist)
                _pack(small.exist, proof.exist, packed.compressed.lookup_inners)
            else:
                entry.nonexist.CopyFrom(proof.nonexist)
                small.nonexist.key = proof.nonexist.key
                for side in ("left", "right"):
                    if proof.nonexist.HasField(side):
                        _pack(getattr(small.nonexist, side), getattr(proof.nonexist, side), packed.compressed.lookup_inners)
        for kind, whole in (("batch", batch), ("compressed", packed)):
            for member in (members[0], members[-1]):
                yield Claim(f"{member.name} in {kind}", spec, member.root, member.key, member.value, whole.SerializeToString())


def _pack(target: Any, existence: Any, steps: Any) -> None:
    target.key, target.value = existence.key, existence.value
    target.leaf.CopyFrom(existence.leaf)
    for step in existence.path:
        if step not in steps:
            steps.add().CopyFrom(step)
        target.path.append(list(steps).index(step))
