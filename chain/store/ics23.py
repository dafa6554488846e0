"""ICS-23: checking that a commitment proof shows a key to be, or not to be, under a root.

    CommitmentProof ── exist ────► leaf op ► inner op ► … ► root?
                    └─ nonexist ─► left neighbour, right neighbour, each an existence proof under the root, nothing between

Proofs and specs are protobuf messages of ``cosmos.ics23.v1``. Rules: the ICS-23 specification (proof format of the Cosmos
interchain standards) with the bounds that came out of its security advisories; reference ibc.md 2.4 to 2.7. The verdict equals that
of the Go implementation on any input; where Go would panic, the proof is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Final

from chain.codec import gogo
from chain.codec.registry import message_class
from chain.codec.varint import uvarint

CommitmentProof: Final = message_class("cosmos.ics23.v1.CommitmentProof")
ExistenceProof: Final = message_class("cosmos.ics23.v1.ExistenceProof")
NonExistenceProof: Final = message_class("cosmos.ics23.v1.NonExistenceProof")
ProofSpec: Final = message_class("cosmos.ics23.v1.ProofSpec")
_LeafOp: Final = message_class("cosmos.ics23.v1.LeafOp")
_InnerSpec: Final = message_class("cosmos.ics23.v1.InnerSpec")

NO_HASH, SHA256, SHA512, RIPEMD160, BITCOIN, SHA512_256, BLAKE2B_512, BLAKE2S_256 = 0, 1, 2, 4, 5, 6, 7, 8
NO_PREFIX, VAR_PROTO, FIXED32_BIG, FIXED32_LITTLE, FIXED64_BIG, FIXED64_LITTLE, REQUIRE_32_BYTES, REQUIRE_64_BYTES = 0, 1, 3, 4, 5, 6, 7, 8

DEFAULT_MAX_DEPTH: Final = 128

_LEAF: Final = _LeafOp(hash=SHA256, prehash_key=NO_HASH, prehash_value=SHA256, length=VAR_PROTO, prefix=b"\x00")

IAVL_SPEC: Final = ProofSpec(
    leaf_spec=_LEAF, inner_spec=_InnerSpec(child_order=[0, 1], child_size=33, min_prefix_length=4, max_prefix_length=12, hash=SHA256)
)
"""Proofs inside one store's IAVL tree."""

TENDERMINT_SPEC: Final = ProofSpec(
    leaf_spec=_LEAF, inner_spec=_InnerSpec(child_order=[0, 1], child_size=32, min_prefix_length=1, max_prefix_length=1, hash=SHA256)
)
"""Proofs of a store's root inside the app hash."""

SMT_SPEC: Final = ProofSpec(
    leaf_spec=_LeafOp(hash=SHA256, prehash_key=SHA256, prehash_value=SHA256, length=NO_PREFIX, prefix=b"\x00"),
    inner_spec=_InnerSpec(child_order=[0, 1], child_size=32, min_prefix_length=1, max_prefix_length=1, empty_child=bytes(32), hash=SHA256),
    max_depth=256,
    prehash_key_before_comparison=True,
)
"""Proofs of sparse Merkle trees; a counterparty may use them."""


class ProofError(Exception):
    """A proof does not hold, or breaks a rule of its spec; the message says which."""


def verify_membership(spec: Any, root: bytes, proof: Any, key: bytes, value: bytes) -> bool:
    """True if ``proof`` shows that ``key`` has ``value`` under ``root``. Total: any malformed proof gives False."""
    try:
        for existence in _existence_proofs(_decompress(proof)):
            if existence.key == key:
                check_existence(spec, root, existence, key, value)
                return True
    except ProofError:
        pass
    return False


def verify_non_membership(spec: Any, root: bytes, proof: Any, key: bytes) -> bool:
    """True if ``proof`` shows that nothing is at ``key`` under ``root``. Total: any malformed proof gives False."""
    try:
        compared = _comparable(spec, key)
        for absence in _absence_proofs(_decompress(proof)):
            left_fits = not absence.HasField("left") or _comparable(spec, absence.left.key) < compared
            right_fits = not absence.HasField("right") or _comparable(spec, absence.right.key) > compared
            if left_fits and right_fits:
                check_non_existence(spec, root, absence, key)
                return True
    except ProofError:
        pass
    return False


def decode_proof(raw: bytes) -> Any:
    """A CommitmentProof from bytes, read as strictly as a Go peer reads it. Raises ProofError."""
    proof = CommitmentProof()
    try:
        gogo.parse_into(proof, raw)
    except gogo.WireError as error:
        raise ProofError(f"proof bytes do not parse: {error}") from None
    return proof


def calculate_root(proof: Any) -> bytes:
    """The root that the first existence proof in ``proof`` leads to, without checking any spec. Raises ProofError."""
    proof = _decompress(proof)
    kind = proof.WhichOneof("proof")
    if kind == "batch":
        if not proof.batch.entries:
            raise ProofError("batch proof is empty")
        proof = proof.batch.entries[0]
        kind = proof.WhichOneof("proof")
    if kind == "exist":
        return existence_root(proof.exist)
    if kind == "nonexist":
        if proof.nonexist.HasField("left"):
            return existence_root(proof.nonexist.left)
        if proof.nonexist.HasField("right"):
            return existence_root(proof.nonexist.right)
        raise ProofError("absence proof has neither neighbour")
    raise ProofError("proof is of no known kind")


def check_existence(spec: Any, root: bytes, proof: Any, key: bytes, value: bytes) -> None:
    """Raise ProofError unless ``proof`` follows ``spec`` and leads from exactly ``key`` and ``value`` to ``root``."""
    check_against_spec(proof, spec)
    if proof.key != key:
        raise ProofError("the proof is for another key")
    if proof.value != value:
        raise ProofError("the proof is for another value")
    if existence_root(proof, spec) != root:
        raise ProofError("the proof leads to another root")


def check_non_existence(spec: Any, root: bytes, proof: Any, key: bytes) -> None:
    """Raise ProofError unless both neighbours in ``proof`` exist under ``root``, bracket ``key`` and touch each other."""
    left = proof.left if proof.HasField("left") else None
    right = proof.right if proof.HasField("right") else None
    if left is not None:
        check_existence(spec, root, left, left.key, left.value)
    if right is not None:
        check_existence(spec, root, right, right.key, right.value)
    compared = _comparable(spec, key)
    if right is not None and compared >= _comparable(spec, right.key):
        raise ProofError("the key is not left of the right neighbour")
    if left is not None and compared <= _comparable(spec, left.key):
        raise ProofError("the key is not right of the left neighbour")
    inner = spec.inner_spec
    if left is None:
        if right is None:
            raise ProofError("both neighbours are missing")
        if not is_left_most(inner, right.path):
            raise ProofError("without a left neighbour, the right one must be the first entry of the tree")
    elif right is None:
        if not is_right_most(inner, left.path):
            raise ProofError("without a right neighbour, the left one must be the last entry of the tree")
    elif not is_left_neighbour(inner, left.path, right.path):
        raise ProofError("the neighbours do not touch: another entry may lie between them")


def existence_root(proof: Any, spec: Any = None) -> bytes:
    """The root an existence proof leads to. With a spec, a step's result may not be longer than a child. Raises ProofError."""
    if not proof.HasField("leaf"):
        raise ProofError("existence proof has no leaf op")
    result = apply_leaf(proof.leaf, proof.key, proof.value)
    for step in proof.path:
        result = apply_inner(step, result)
        if spec is not None and len(result) > spec.inner_spec.child_size >= 32:
            raise ProofError("an inner hash is longer than the spec's child size")
    return result


def check_against_spec(proof: Any, spec: Any) -> None:
    """Raise ProofError unless leaf, depth and every inner op of an existence proof have the form the spec demands."""
    if not proof.HasField("leaf"):
        raise ProofError("existence proof has no leaf op")
    check_leaf(proof.leaf, spec)
    depth = len(proof.path)
    if depth < spec.min_depth:
        raise ProofError(f"path has {depth} steps, the spec demands {spec.min_depth}")
    limit = spec.max_depth or DEFAULT_MAX_DEPTH
    if depth > limit:
        raise ProofError(f"path has {depth} steps, the spec allows {limit}")
    for layer, step in enumerate(proof.path, start=1):
        check_inner(step, spec, layer)


def check_leaf(leaf: Any, spec: Any) -> None:
    """Raise ProofError unless a leaf op is the spec's."""
    if not spec.HasField("leaf_spec"):
        raise ProofError("the spec has no leaf spec")
    wanted = spec.leaf_spec
    if _is_iavl(spec):
        _check_iavl_prefix(leaf, 0)
    for name in ("hash", "prehash_key", "prehash_value", "length"):
        if getattr(leaf, name) != getattr(wanted, name):
            raise ProofError(f"leaf op has {name} {getattr(leaf, name)}, the spec {getattr(wanted, name)}")
    if not leaf.prefix.startswith(wanted.prefix):
        raise ProofError(f"leaf prefix does not start with {wanted.prefix.hex()}")


def check_inner(step: Any, spec: Any, layer: int) -> None:
    """Raise ProofError unless an inner op at ``layer`` (1 is next to the leaf) has a form in which it cannot pass for a leaf."""
    if not spec.HasField("inner_spec") or not spec.HasField("leaf_spec"):
        raise ProofError("the spec lacks its leaf or inner part")
    inner = spec.inner_spec
    if step.hash != inner.hash:
        raise ProofError(f"inner op has hash {step.hash}, the spec {inner.hash}")
    if _is_iavl(spec):
        _check_iavl_prefix(step, layer)
    if step.prefix.startswith(spec.leaf_spec.prefix):
        raise ProofError("inner prefix starts like a leaf")
    if len(step.prefix) < inner.min_prefix_length:
        raise ProofError(f"inner prefix has {len(step.prefix)} bytes, the spec demands {inner.min_prefix_length}")
    longest = inner.max_prefix_length + (len(inner.child_order) - 1) * inner.child_size
    if len(step.prefix) > longest:
        raise ProofError(f"inner prefix has {len(step.prefix)} bytes, the spec allows {longest}")
    if inner.child_size <= 0:
        raise ProofError(f"the spec's child size must be positive, got {inner.child_size}")
    if len(step.suffix) % inner.child_size:
        raise ProofError(f"inner suffix has {len(step.suffix)} bytes, not whole children of {inner.child_size}")


def apply_leaf(leaf: Any, key: bytes, value: bytes) -> bytes:
    """The hash of a leaf. Raises ProofError for an empty key or value or an unknown op."""
    if not key or not value:
        raise ProofError("a leaf needs a key and a value")
    return hash_bytes(leaf.hash, leaf.prefix + _leaf_part(leaf.prehash_key, leaf.length, key) + _leaf_part(leaf.prehash_value, leaf.length, value))


def apply_inner(step: Any, child: bytes) -> bytes:
    """The hash of an inner node over ``child``. Raises ProofError for an empty child or an unknown op."""
    if not child:
        raise ProofError("an inner op needs a child")
    return hash_bytes(step.hash, step.prefix + child + step.suffix)


def hash_bytes(op: int, data: bytes) -> bytes:
    """``data`` hashed by a HashOp. Raises ProofError for NO_HASH and for ops nobody implements (KECCAK256, BLAKE3)."""
    match op:
        case 1:
            return hashlib.sha256(data).digest()
        case 2:
            return hashlib.sha512(data).digest()
        case 4:
            return _named("ripemd160", data)
        case 5:
            return _named("ripemd160", hashlib.sha256(data).digest())
        case 6:
            return _named("sha512_256", data)
        case 7:
            return hashlib.blake2b(data).digest()
        case 8:
            return hashlib.blake2s(data).digest()
    raise ProofError(f"hash op {op} is not supported")


def is_left_most(inner: Any, path: Sequence[Any]) -> bool:
    """True if every step of ``path`` comes from the first child, empty siblings aside."""
    padding = _padding(inner, 0)
    return all(_has_padding(step, padding) or left_branches_are_empty(inner, step) for step in path)


def is_right_most(inner: Any, path: Sequence[Any]) -> bool:
    """True if every step of ``path`` comes from the last child, empty siblings aside."""
    padding = _padding(inner, len(inner.child_order) - 1)
    return all(_has_padding(step, padding) or right_branches_are_empty(inner, step) for step in path)


def is_left_neighbour(inner: Any, left: Sequence[Any], right: Sequence[Any]) -> bool:
    """True if the entry at ``right`` follows the one at ``left``: below their last common step one goes right-most, one left-most."""
    left_at, right_at = len(left) - 1, len(right) - 1
    while left_at >= 0 and right_at >= 0 and left[left_at].prefix == right[right_at].prefix and left[left_at].suffix == right[right_at].suffix:
        left_at -= 1
        right_at -= 1
    if left_at < 0 or right_at < 0:
        raise ProofError("one path is a part of the other")
    left_branch, right_branch = _branch(inner, left[left_at]), _branch(inner, right[right_at])
    if left_branch is None or right_branch is None:
        raise ProofError("a step fits no child position of the spec")
    return right_branch == left_branch + 1 and is_right_most(inner, left[:left_at]) and is_left_most(inner, right[:right_at])


def left_branches_are_empty(inner: Any, step: Any) -> bool:
    """True if there are children left of this step's and all of them are the spec's empty child."""
    branch = _branch(inner, step)
    if not branch:
        return False
    size = inner.child_size
    start = len(step.prefix) - branch * size
    if start < 0:
        return False
    return all(_child_at(step.prefix, start + _position(inner, at) * size, size) == inner.empty_child for at in range(branch))


def right_branches_are_empty(inner: Any, step: Any) -> bool:
    """True if there are children right of this step's and all of them are the spec's empty child."""
    branch = _branch(inner, step)
    if branch is None:
        return False
    count, size = len(inner.child_order) - 1 - branch, inner.child_size
    if count == 0 or len(step.suffix) != count * size:
        return False
    return all(_child_at(step.suffix, _position(inner, at) * size, size) == inner.empty_child for at in range(count))


def _child_at(data: bytes, start: int, size: int) -> bytes:
    if start < 0 or size < 0 or start + size > len(data):
        raise ProofError("a child position lies outside the op")
    return data[start : start + size]


def _position(inner: Any, branch: int) -> int:
    if not 0 <= branch < len(inner.child_order):
        raise ProofError(f"branch {branch} does not exist in the spec")
    for at, item in enumerate(inner.child_order):
        if item == branch:
            return at
    raise ProofError(f"branch {branch} is missing in the spec's child order")


def _padding(inner: Any, branch: int) -> tuple[int, int, int]:
    """Least and greatest prefix length and the suffix length of a step that comes from ``branch``."""
    at = _position(inner, branch)
    before = at * inner.child_size
    after = (len(inner.child_order) - 1 - at) * inner.child_size
    return before + inner.min_prefix_length, before + inner.max_prefix_length, after


def _has_padding(step: Any, padding: tuple[int, int, int]) -> bool:
    least, greatest, suffix = padding
    return least <= len(step.prefix) <= greatest and len(step.suffix) == suffix


def _branch(inner: Any, step: Any) -> int | None:
    for branch in range(len(inner.child_order)):
        if _has_padding(step, _padding(inner, branch)):
            return branch
    return None


def _comparable(spec: Any, key: bytes) -> bytes:
    if not spec.prehash_key_before_comparison or spec.leaf_spec.prehash_key == NO_HASH:
        return key
    return hash_bytes(spec.leaf_spec.prehash_key, key)


def _leaf_part(prehash: int, length: int, data: bytes) -> bytes:
    if prehash != NO_HASH:
        data = hash_bytes(prehash, data)
    match length:
        case 0:
            return data
        case 1:
            return uvarint(len(data)) + data
        case 3:
            return (len(data) & 0xFFFFFFFF).to_bytes(4, "big") + data
        case 4:
            return (len(data) & 0xFFFFFFFF).to_bytes(4, "little") + data
        case 5:
            return len(data).to_bytes(8, "big") + data
        case 6:
            return len(data).to_bytes(8, "little") + data
        case 7 | 8:
            wanted = 32 if length == REQUIRE_32_BYTES else 64
            if len(data) != wanted:
                raise ProofError(f"leaf data has {len(data)} bytes, the op demands {wanted}")
            return data
    raise ProofError(f"length op {length} is not supported")


def _is_iavl(spec: Any) -> bool:
    # The same fields the Go implementation compares: a spec that differs elsewhere is still held to IAVL's prefix rules.
    if not spec.HasField("leaf_spec") or not spec.HasField("inner_spec"):
        return False
    leaf, inner, iavl = spec.leaf_spec, spec.inner_spec, IAVL_SPEC.inner_spec
    return (
        (leaf.hash, leaf.prehash_key, leaf.prehash_value, leaf.length) == (_LEAF.hash, _LEAF.prehash_key, _LEAF.prehash_value, _LEAF.length)
        and (inner.hash, inner.min_prefix_length, inner.max_prefix_length, inner.child_size)
        == (iavl.hash, iavl.min_prefix_length, iavl.max_prefix_length, iavl.child_size)
        and len(inner.child_order) == len(iavl.child_order)
    )


def _check_iavl_prefix(op: Any, layer: int) -> None:
    """An IAVL prefix is height, size and version as zig-zag varints; an inner one then holds a length byte or the left child."""
    prefix = op.prefix
    at = 0
    for name in ("height", "size", "version"):
        value, at = _varint(prefix, at)
        if value < 0:
            raise ProofError(f"IAVL {name} is negative")
        if name == "height" and value < layer:
            raise ProofError(f"IAVL height {value} is below its layer {layer}")
    rest = len(prefix) - at
    if layer == 0:
        if rest:
            raise ProofError("IAVL leaf prefix has bytes after the version")
    elif rest not in (1, 34):
        raise ProofError(f"IAVL inner prefix has {rest} bytes after the version, expected 1 or 34")
    elif op.hash != SHA256:
        raise ProofError("IAVL inner op must hash by SHA-256")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A zig-zag varint of at most 64 bits at ``at``: (value, next position)."""
    value = 0
    for count in range(10):
        if at >= len(data):
            raise ProofError("IAVL prefix ends inside a number")
        byte = data[at]
        at += 1
        if byte < 0x80:
            if count == 9 and byte > 1:
                break
            value |= byte << 7 * count
            return (value >> 1) ^ -(value & 1), at
        value |= (byte & 0x7F) << 7 * count
    raise ProofError("IAVL prefix holds a number of more than 64 bits")


def _named(name: str, data: bytes) -> bytes:
    try:
        return hashlib.new(name, data).digest()
    except ValueError:
        raise ProofError(f"this Python's OpenSSL has no {name}") from None


def _existence_proofs(proof: Any) -> list[Any]:
    kind = proof.WhichOneof("proof")
    if kind == "exist":
        return [proof.exist]
    if kind == "batch":
        return [entry.exist for entry in proof.batch.entries if entry.WhichOneof("proof") == "exist"]
    return []


def _absence_proofs(proof: Any) -> list[Any]:
    kind = proof.WhichOneof("proof")
    if kind == "nonexist":
        return [proof.nonexist]
    if kind == "batch":
        return [entry.nonexist for entry in proof.batch.entries if entry.WhichOneof("proof") == "nonexist"]
    return []


def _decompress(proof: Any) -> Any:
    """A batch proof for a compressed one (whose steps are indexes into a shared list), any other proof as it is."""
    if proof.WhichOneof("proof") != "compressed":
        return proof
    steps = proof.compressed.lookup_inners
    result = CommitmentProof()
    result.batch.SetInParent()
    for packed in proof.compressed.entries:
        entry = result.batch.entries.add()
        if packed.WhichOneof("proof") == "exist":
            _unpack(entry.exist, packed.exist, steps)
            continue
        if packed.WhichOneof("proof") is None:
            raise ProofError("compressed proof has an empty entry")
        entry.nonexist.key = packed.nonexist.key
        if packed.nonexist.HasField("left"):
            _unpack(entry.nonexist.left, packed.nonexist.left, steps)
        if packed.nonexist.HasField("right"):
            _unpack(entry.nonexist.right, packed.nonexist.right, steps)
    return result


def _unpack(target: Any, packed: Any, steps: Sequence[Any]) -> None:
    target.SetInParent()
    target.key, target.value = packed.key, packed.value
    if packed.HasField("leaf"):
        target.leaf.CopyFrom(packed.leaf)
    for index in packed.path:
        if not 0 <= index < len(steps):
            raise ProofError(f"compressed path names step {index} of {len(steps)}")
        target.path.add().CopyFrom(steps[index])
