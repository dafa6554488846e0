"""BLS12-381: keys and signatures against py_ecc, what is refused, and that nothing that checks ever raises."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from py_ecc.bls import G2ProofOfPossession as Oracle
from py_ecc.bls.g2_primitives import G1_to_pubkey, G2_to_signature, pubkey_to_G1
from py_ecc.optimized_bls12_381 import FQ, FQ2, Z1, Z2, add, b, b2, is_inf, is_on_curve, multiply, neg
from py_ecc.optimized_bls12_381 import curve_order as order
from py_ecc.optimized_bls12_381 import field_modulus as modulus

from chain.crypto import bls

SECRETS = [bls.secret_from_seed(bytes([number]) * 32) for number in range(40)]
KEYS = [bls.public_key(secret) for secret in SECRETS]
NODE = bytes(range(20))
CHAIN_ID = "test-1"
INFINITE_KEY = b"\xc0" + bytes(47)
INFINITE_SIGNATURE = b"\xc0" + bytes(95)


def signed(secrets: list[int], message: bytes) -> bytes:
    return bls.aggregate([bls.sign(secret, message) for secret in secrets])


def outside_the_group() -> tuple[bytes, bytes]:
    """A point on G1's curve and one on G2's that are in neither group."""
    x = 0
    while True:
        x += 1
        y = pow(x**3 + 4, (modulus + 1) // 4, modulus)
        point = (FQ(x), FQ(y), FQ(1))
        if is_on_curve(point, b) and not is_inf(multiply(point, order)):
            break
    x2 = 0
    while True:
        x2 += 1
        candidate = FQ2([x2, 0]) ** 3 + b2
        root = candidate ** ((modulus**2 + 7) // 16)
        for factor in (FQ2([1, 0]), FQ2([0, 1]), *(FQ2([1, 1]) ** at for at in range(1, 9))):
            y2 = root * factor
            if y2 * y2 == candidate and not is_inf(multiply((FQ2([x2, 0]), y2, FQ2.one()), order)):
                return G1_to_pubkey(point), G2_to_signature((FQ2([x2, 0]), y2, FQ2.one()))


def test_a_secret_of_a_seed_is_the_one_of_eip_2333s_first_vector() -> None:
    seed = bytes.fromhex(
        "c55257c360c07c72029aebc1b53c05ed0362ada38ead3e3e9efa3708e53495531f09a6987599d18264c1e1c92f2cf141630c7a3c4ab7c81b2f001698e7463b04"
    )
    assert bls.secret_from_seed(seed) == 6083874454709270928345386274498605044986640685124978867557563392430687146096
    assert bls.secret_from_seed(b"\x07" * 32, b"info") == Oracle.KeyGen(b"\x07" * 32, b"info")


def test_a_signature_is_the_one_that_ethereums_test_vectors_have() -> None:
    secret = 0x263DBD792F5B1BE47ED85F8938C0F29586AF0D3AC7B977F21C278FE1462040E3
    assert bls.public_key(secret).hex() == ("a491d1b0ecd9bb917989f0e74f0dea0422eac4a873e5e2644f368dffb9a6e20fd6e10c1b77654d067c0618f6e5a7f79a")
    assert bls.sign(secret, b"\x56" * 32).hex() == (
        "882730e5d03f6b42c3abc26d3372625034e1d871b65a8a6b900a56dae22da98abbe1b68f85e49fe7652a55ec3d0591c2"
        "0767677e33e5cbb1207315c41a9ac03be39c2e7668edc043d6cb1d9fd93033caa8a1c5b0e84bedaeb6c64972503a43eb"
    )


def test_keys_signatures_and_proofs_are_those_of_the_oracle() -> None:
    secret, message = SECRETS[3], b"a message"
    assert order == bls.ORDER
    assert (bls.public_key(secret), bls.sign(secret, message)) == (Oracle.SkToPk(secret), Oracle.Sign(secret, message))
    assert bls.aggregate([bls.sign(one, message) for one in SECRETS[:3]]) == Oracle.Aggregate([Oracle.Sign(one, message) for one in SECRETS[:3]])
    assert Oracle.FastAggregateVerify(KEYS[:2], message, signed(SECRETS[:2], message))
    assert (bls.SIGNATURE_DOMAIN, bls.POSSESSION_DOMAIN) == (Oracle.DST, Oracle.POP_TAG)
    proof = Oracle._CoreSign(secret, bls.possession_message(CHAIN_ID, NODE, KEYS[3]), Oracle.POP_TAG)
    assert bls.prove_possession(secret, CHAIN_ID, NODE, KEYS[3]) == proof
    assert bls.POSSESSION_PREFIX + CHAIN_ID.encode() + NODE + KEYS[3] == bls.possession_message(CHAIN_ID, NODE, KEYS[3])


@pytest.mark.parametrize("count", [1, 2, 3, 10, 30])
def test_what_all_signed_holds_and_every_other_set_of_signers_does_not(count: int) -> None:
    message = b"epoch " + bytes([count])
    whole = signed(SECRETS[:count], message)
    assert bls.verify_aggregate(KEYS[:count], message, whole)
    assert bls.verify_aggregate(KEYS[:count][::-1], message, whole), "a sum has no order"
    assert not bls.verify_aggregate(KEYS[: count - 1], message, whole)
    assert not bls.verify_aggregate(KEYS[: count + 1], message, whole)
    assert not bls.verify_aggregate([*KEYS[: count - 1], KEYS[39]], message, whole)
    assert not bls.verify_aggregate([*KEYS[:count], KEYS[0]], message, whole), "a key twice is another sum"
    assert not bls.verify_aggregate(KEYS[:count], message + b"!", whole)


def test_one_signature_is_an_aggregate_of_one() -> None:
    assert bls.verify(KEYS[0], b"m", bls.sign(SECRETS[0], b"m"))
    assert not bls.verify(KEYS[1], b"m", bls.sign(SECRETS[0], b"m"))


def test_no_keys_too_many_keys_and_keys_that_cancel_out_verify_nothing() -> None:
    message = b"m"
    assert not bls.verify_aggregate([], message, signed(SECRETS[:1], message))
    assert not bls.verify_aggregate([], message, INFINITE_SIGNATURE)
    assert not bls.verify_aggregate([KEYS[0]] * (bls.MAX_SIGNERS + 1), message, signed(SECRETS[:1], message))
    opposite = G1_to_pubkey(neg(pubkey_to_G1(KEYS[0])))
    assert bls.check_public_key(opposite)
    assert not bls.verify_aggregate([KEYS[0], opposite], message, INFINITE_SIGNATURE)
    assert not bls.verify_aggregate([KEYS[0], opposite], message, signed(SECRETS[:1], message))


def test_infinity_is_neither_a_key_nor_a_signature() -> None:
    assert (G1_to_pubkey(Z1), G2_to_signature(Z2)) == (INFINITE_KEY, INFINITE_SIGNATURE)
    assert not bls.check_public_key(INFINITE_KEY)
    assert not bls.verify(INFINITE_KEY, b"m", INFINITE_SIGNATURE)
    assert not bls.verify_aggregate([KEYS[0], INFINITE_KEY], b"m", signed(SECRETS[:1], b"m"))
    assert not bls.verify_possession(CHAIN_ID, NODE, INFINITE_KEY, INFINITE_SIGNATURE)


def test_points_on_the_curve_outside_the_group_are_refused() -> None:
    key, signature = outside_the_group()
    assert not bls.check_public_key(key)
    assert not bls.verify(key, b"m", bls.sign(SECRETS[0], b"m"))
    assert not bls.verify(KEYS[0], b"m", signature)
    # A point of small order added to a key gives another one that is outside, and would pass a pairing without the check.
    torsion = multiply(pubkey_from(key), order)
    shifted = G1_to_pubkey(add(pubkey_to_G1(KEYS[0]), torsion))
    assert not bls.verify(shifted, b"m", bls.sign(SECRETS[0], b"m"))


def pubkey_from(raw: bytes):  # type: ignore[no-untyped-def]
    """The point of a key outside the group, which py_ecc refuses to give."""
    x = int.from_bytes(raw, "big") % (1 << 381)
    y = pow(x**3 + 4, (modulus + 1) // 4, modulus)
    flag = bool(raw[0] & 0x20)
    return (FQ(x), FQ(y if (y * 2 // modulus == 1) == flag else modulus - y), FQ(1))


def test_only_the_one_encoding_of_a_point_is_taken() -> None:
    key, signature = KEYS[0], bls.sign(SECRETS[0], b"m")
    for raw in (b"", key[:47], key + b"\x00", bytes([key[0] & 0x7F]) + key[1:], bytes(48), b"\xff" * 48, INFINITE_KEY[:-1] + b"\x01"):
        assert not bls.check_public_key(raw), raw.hex()
    beyond = (int.from_bytes(key, "big") % (1 << 381) + modulus).to_bytes(49, "big")[-48:]
    assert not bls.check_public_key(bytes([beyond[0] | 0x80]) + beyond[1:])
    for raw in (b"", signature[:95], signature + b"\x00", bytes([signature[0] & 0x7F]) + signature[1:], bytes(96), b"\xff" * 96):
        assert not bls.verify(key, b"m", raw)
    mirrored = bytes([signature[0] ^ 0x20]) + signature[1:]
    assert not bls.verify(key, b"m", mirrored)


def test_a_rogue_key_verifies_for_others_and_has_no_proof() -> None:
    """The attack that the proof is for: a key that is the attacker's less the honest one's signs for both."""
    message = b"m"
    rogue = G1_to_pubkey(add(pubkey_to_G1(KEYS[1]), neg(pubkey_to_G1(KEYS[0]))))
    assert bls.verify_aggregate([KEYS[0], rogue], message, bls.sign(SECRETS[1], message))
    assert not bls.verify_possession(CHAIN_ID, NODE, rogue, bls.prove_possession(SECRETS[1], CHAIN_ID, NODE, rogue))


def test_a_proof_holds_for_its_chain_its_node_and_its_key_alone() -> None:
    proof = bls.prove_possession(SECRETS[0], CHAIN_ID, NODE, KEYS[0])
    assert bls.verify_possession(CHAIN_ID, NODE, KEYS[0], proof)
    assert not bls.verify_possession("test-2", NODE, KEYS[0], proof)
    assert not bls.verify_possession(CHAIN_ID, NODE[::-1], KEYS[0], proof)
    assert not bls.verify_possession(CHAIN_ID, NODE, KEYS[1], proof)
    assert not bls.verify(KEYS[0], bls.possession_message(CHAIN_ID, NODE, KEYS[0]), proof), "no proof is a signature"
    signature = bls.sign(SECRETS[0], bls.possession_message(CHAIN_ID, NODE, KEYS[0]))
    assert not bls.verify_possession(CHAIN_ID, NODE, KEYS[0], signature), "no signature is a proof"


def test_what_signs_says_what_is_wrong_with_a_secret_or_a_seed() -> None:
    for secret in (0, -1, bls.ORDER, bls.ORDER + 5):
        with pytest.raises(ValueError, match="a BLS secret"):
            bls.sign(secret, b"m")
        with pytest.raises(ValueError, match="a BLS secret"):
            bls.public_key(secret)
    with pytest.raises(ValueError, match="32 bytes, got 31"):
        bls.secret_from_seed(bytes(31))
    for signatures in ([], [INFINITE_SIGNATURE], [b"x"]):
        with pytest.raises(ValueError, match="one or more signatures"):
            bls.aggregate(signatures)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=100), max_size=3), st.binary(max_size=40), st.binary(max_size=200))
def test_hostile_bytes_are_answered_and_never_raise(keys: list[bytes], message: bytes, signature: bytes) -> None:
    assert not bls.verify_aggregate(keys, message, signature)
    assert not any(bls.check_public_key(key) for key in keys if len(key) != 48)
    assert not bls.verify_possession("c", NODE, keys[0] if keys else b"", signature)


def test_a_flipped_bit_anywhere_breaks_a_key_or_its_signature() -> None:
    choose = random.Random(7)
    signature = bls.sign(SECRETS[0], b"m")
    for _ in range(60):
        at, bit = choose.randrange(96), 1 << choose.randrange(8)
        assert not bls.verify(KEYS[0], b"m", bytes(one ^ bit if place == at else one for place, one in enumerate(signature)))
        at %= 48
        assert not bls.verify(bytes(one ^ bit if place == at else one for place, one in enumerate(KEYS[0])), b"m", signature)
