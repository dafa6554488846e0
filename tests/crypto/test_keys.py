"""Keys, their addresses and their signatures."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from coincurve import PrivateKey as CurveKey
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey

from chain.codec.registry import Any_
from chain.crypto import address, batch
from chain.crypto.batch import BatchVerifier, Item
from chain.crypto.hd import DEFAULT_PATH, DerivationError, derive, derive_from_seed, new_mnemonic, parse_path
from chain.crypto.keys import (
    MAX_MULTISIG_DEPTH,
    MULTISIG_URL,
    Ed25519PublicKey,
    EthSecp256k1PublicKey,
    MultisigPublicKey,
    PrivateKey,
    PublicKey,
    Secp256k1PublicKey,
    Secp256r1PublicKey,
    amino_json,
    amino_type_prefix,
    check_digest,
    keccak256,
    public_key_from_any,
    public_key_to_any,
)
from chain.errors import InvalidPubKey

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[1] / "vectors" / "keys.json").read_text())
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
MESSAGE = b"a message"


def high_s(signature: bytes, order: int = ORDER) -> bytes:
    return signature[:32] + (order - int.from_bytes(signature[32:64], "big")).to_bytes(32, "big")


def p256() -> tuple[Secp256r1PublicKey, bytes]:
    key = ec.derive_private_key(12345, ec.SECP256R1())
    raw = key.public_key().public_bytes(serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint)
    r, s = decode_dss_signature(key.sign(MESSAGE, ec.ECDSA(hashes.SHA256())))
    return Secp256r1PublicKey(raw), r.to_bytes(32, "big") + min(s, P256_ORDER - s).to_bytes(32, "big")


def test_the_wallet_vector_derives_its_key_and_both_forms_of_its_address() -> None:
    vector = VECTORS["wallet"]
    assert vector["path"] == DEFAULT_PATH
    key = derive(vector["mnemonic"], vector["path"])
    assert key.raw.hex() == vector["private_key"]
    assert key.public_key.raw.hex() == vector["public_key"]
    assert key.public_key.address.hex() == vector["address_hex"]
    assert address.encode(key.public_key.address) == vector["address"]


def test_the_mainnet_validators_signature_verifies_with_keccak_and_not_with_sha256() -> None:
    vector = VECTORS["gentx"]
    key = EthSecp256k1PublicKey(bytes.fromhex(vector["public_key"]))
    assert (address.encode(key.address), key.address.hex()) == (vector["address"], vector["address_hex"])
    digest, signature = bytes.fromhex(vector["sign_doc_keccak256"]), bytes.fromhex(vector["signature"])
    assert check_digest(key.raw, digest, signature[:64])
    assert not check_digest(key.raw, hashlib.sha256(digest).digest(), signature[:64])


@pytest.mark.parametrize("algorithm", ["eth_secp256k1", "secp256k1"])
def test_a_signature_verifies_over_its_message_alone(algorithm: str) -> None:
    key = PrivateKey(bytes(31) + b"\x07", algorithm)
    signature = key.sign(MESSAGE)
    assert len(signature) == 64
    assert key.sign(MESSAGE) == signature
    public = key.public_key
    assert public.verify(MESSAGE, signature)
    assert not public.verify(MESSAGE + b".", signature)
    assert not public.verify(MESSAGE, high_s(signature))
    for bad in (b"", signature[:63], signature + b"\x00\x00", bytes(64), b"\xff" * 64, signature[32:] + signature[:32]):
        assert not public.verify(MESSAGE, bad)


def test_a_32_byte_message_is_hashed_like_every_other() -> None:
    key = PrivateKey(bytes(31) + b"\x07", "eth_secp256k1")
    message = bytes(range(32))
    assert key.sign(message) == CurveKey(key.raw).sign_recoverable(keccak256(message), hasher=None)[:64]
    assert key.public_key.verify(message, key.sign(message))


def test_ethsecp256k1_takes_65_bytes_with_v_and_secp256k1_does_not() -> None:
    eth, plain = (PrivateKey(bytes(31) + b"\x07", algorithm) for algorithm in ("eth_secp256k1", "secp256k1"))
    assert eth.public_key.verify(MESSAGE, eth.sign(MESSAGE) + b"\x1b")
    assert not eth.public_key.verify(MESSAGE, high_s(eth.sign(MESSAGE)) + b"\x1b")
    assert not plain.public_key.verify(MESSAGE, plain.sign(MESSAGE) + b"\x1b")
    assert not plain.public_key.verify(MESSAGE, eth.sign(MESSAGE))


def test_secp256r1_signatures_verify_with_low_s_only() -> None:
    key, signature = p256()
    assert len(key.address) == 32
    assert key.verify(MESSAGE, signature)
    assert not key.verify(MESSAGE, high_s(signature, P256_ORDER))
    assert not key.verify(MESSAGE + b".", signature)
    for bad in (b"", signature[:63], bytes(64), b"\xff" * 64):
        assert not key.verify(MESSAGE, bad)


def test_ed25519_signatures_verify() -> None:
    signer = SigningKey(b"\x05" * 32)
    key = Ed25519PublicKey(bytes(signer.verify_key))
    signature = signer.sign(MESSAGE).signature
    assert key.verify(MESSAGE, signature)
    assert not key.verify(MESSAGE + b".", signature)
    for bad in (b"", signature[:63], bytes(64), b"\xff" * 64):
        assert not key.verify(MESSAGE, bad)


@given(signature=st.binary(max_size=70), message=st.binary(max_size=40))
def test_no_bytes_make_a_signature_check_raise(signature: bytes, message: bytes) -> None:
    for algorithm in ("eth_secp256k1", "secp256k1"):
        assert PrivateKey(b"\x09" * 32, algorithm).public_key.verify(message, signature) is False
    assert p256()[0].verify(message, signature) is False
    assert Ed25519PublicKey(bytes(SigningKey(b"\x05" * 32).verify_key)).verify(message, signature) is False


def members() -> list[PublicKey]:
    plain = [PrivateKey(bytes([seed]) * 32, "secp256k1").public_key for seed in (1, 2)]
    return [*plain, PrivateKey(b"\x03" * 32, "eth_secp256k1").public_key]


@pytest.mark.parametrize(
    "key",
    [
        *members(),
        p256()[0],
        Ed25519PublicKey(b"\x01" * 32),
        MultisigPublicKey(2, tuple(members())),
        MultisigPublicKey(1, (MultisigPublicKey(1, tuple(members())),)),
    ],
    ids=lambda key: type(key).__name__,
)
def test_every_key_survives_the_way_through_any(key: PublicKey) -> None:
    wrapped = Any_.FromString(public_key_to_any(key).SerializeToString())
    assert wrapped.type_url == key.type_url
    assert public_key_from_any(wrapped) == key
    assert public_key_from_any(wrapped).address == key.address


def test_amino_prefixes_are_the_registered_ones() -> None:
    known = {
        "tendermint/PubKeySecp256k1": "eb5ae987",
        "tendermint/PrivKeySecp256k1": "e1b0f79b",
        "tendermint/PubKeyEd25519": "1624de64",
        "tendermint/PubKeyMultisigThreshold": "22c1f7e2",
    }
    assert {name: amino_type_prefix(name).hex() for name in known} == known


def test_a_multisig_of_plain_members_has_the_address_the_sdk_gives_it() -> None:
    # From tests/vectors/keyring_legacy.json: the same three members and threshold, encoded by the SDK.
    legacy = json.loads((Path(__file__).parents[1] / "vectors" / "keyring_legacy.json").read_text())
    key = MultisigPublicKey(2, tuple(PrivateKey(bytes([seed]) * 32, "secp256k1").public_key for seed in (1, 2, 3)))
    assert key.raw.hex() in legacy["multi"]
    assert key.address == hashlib.sha256(key.raw).digest()[:20]


def test_amino_json_names_each_type() -> None:
    plain, _, eth = members()
    assert amino_json(plain)["type"] == "tendermint/PubKeySecp256k1"
    assert amino_json(eth)["type"] == "stratos/PubKeyEthSecp256k1"
    assert amino_json(MultisigPublicKey(1, (plain, eth))) == {
        "type": "tendermint/PubKeyMultisigThreshold",
        "value": {"threshold": "1", "pubkeys": [amino_json(plain), amino_json(eth)]},
    }


def nested(depth: int) -> Any:
    wrapped = public_key_to_any(members()[0])
    for _ in range(depth):
        # field 1: threshold 1; field 2: the Any
        inner = wrapped.SerializeToString()
        size = len(inner)
        length = bytes([size]) if size < 128 else bytes([size & 0x7F | 0x80, size >> 7])
        wrapped = Any_(type_url=MULTISIG_URL, value=b"\x08\x01\x12" + length + inner)
    return wrapped


@pytest.mark.parametrize(
    ("wrapped", "said"),
    [
        (Any_(type_url="/cosmos.crypto.sr25519.PubKey"), "no public key type"),
        (Any_(), "no public key type"),
        (Any_(type_url="/cosmos.crypto.secp256k1.PubKey", value=b"\x0a\xff"), "do not parse"),
        (Any_(type_url="/cosmos.crypto.secp256k1.PubKey", value=b"\x0a\x21" + b"\x05" * 33), "compressed curve point"),
        (Any_(type_url="/stratos.crypto.v1.ethsecp256k1.PubKey", value=b""), "compressed curve point"),
        (Any_(type_url="/cosmos.crypto.secp256r1.PubKey", value=b"\x0a\x01\x02"), "33 bytes"),
        (Any_(type_url="/cosmos.crypto.ed25519.PubKey", value=b"\x0a\x01\x02"), "32 bytes"),
        (Any_(type_url=MULTISIG_URL, value=b""), "threshold"),
        (Any_(type_url=MULTISIG_URL, value=b"\x08\x05"), "threshold"),
        (Any_(type_url=MULTISIG_URL, value=b"\x08\x01" + b"\x12\x00" * 65), "at most 64"),
        (nested(MAX_MULTISIG_DEPTH + 1), "nest deeper"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_public_key_is_refused_with_sdk_code_8(wrapped: Any, said: str) -> None:
    with pytest.raises(InvalidPubKey, match=said) as caught:
        public_key_from_any(wrapped)
    assert (caught.value.codespace, caught.value.code) == ("sdk", 8)


def test_multisigs_nest_as_deep_as_the_limit_says() -> None:
    assert public_key_from_any(nested(MAX_MULTISIG_DEPTH)).type_url == MULTISIG_URL


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("workers", [0, 1, 3])
def test_a_batch_gives_each_check_its_own_verdict_with_any_number_of_workers(workers: int, native: bool) -> None:
    assert batch.available(), "make setup builds it"
    items, expected = [], []
    for number in range(1, 120):
        key = PrivateKey(number.to_bytes(32, "big"), "secp256k1")
        digest = hashlib.sha256(bytes([number])).digest()
        signature = key.sign(bytes([number]))
        wrong = number % 7 == 0
        items.append(Item(key.public_key.raw, digest, high_s(signature) if wrong else signature))
        expected.append(not wrong)
    items += [Item(b"\x05" * 33, bytes(32), bytes(64)), Item(b"", b"", b"")]
    expected += [False, False]
    verifier = BatchVerifier(workers, native=native)
    assert verifier.verify(items) == expected
    assert verifier.verify([]) == []
    several = [verifier.start(items[at:]) for at in range(0, len(items), 9)]
    verifier.start(items)  # nobody asks: its buffers must outlive the threads
    for at, pending in reversed(list(zip(range(0, len(items), 9), several, strict=True))):
        assert pending() == expected[at:]


_OVERWRITE = "glibc.malloc.perturb=165:glibc.malloc.tcache_count=0"
_ENDED_FIRST = """
from chain.crypto.batch import BatchVerifier, Item
from chain.crypto.keys import PrivateKey, sha256

key = PrivateKey(bytes(31) + b"1", "secp256k1")
items = [Item(key.public_key.raw, sha256(b"m"), key.sign(b"m"))] * 5000
for workers in (0, 2):
    verifier = BatchVerifier(workers)
    pending = [verifier.start(items), verifier.start(items)]
    verifier._end()
    assert all(all(one()) for one in pending)
"""


def test_the_threads_may_end_before_the_batches_that_were_started() -> None:
    """At exit, or where the collector takes both at once. Freed memory is overwritten, so that its use shows."""
    done = subprocess.run([sys.executable, "-c", _ENDED_FIRST], env={**os.environ, "GLIBC_TUNABLES": _OVERWRITE}, capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")


def test_private_keys_do_not_show_themselves() -> None:
    key = PrivateKey(b"\x07" * 32, "secp256k1")
    assert "0707" not in repr(key)
    assert "\\x07" not in repr(key)


@pytest.mark.parametrize("raw", [bytes(32), ORDER.to_bytes(32, "big"), b"\xff" * 32, b"", b"\x01" * 33])
def test_a_number_outside_the_curves_order_is_no_private_key(raw: bytes) -> None:
    with pytest.raises(ValueError):
        PrivateKey(raw, "secp256k1")


def test_derivation_agrees_with_the_published_bip32_vector() -> None:
    # BIP-32 test vector 1, chain m/0'/1, from seed 000102…0f; here the seed enters through the same two functions the wallet uses.
    key = derive_from_seed(bytes(range(16)), "m/0'/1", "secp256k1")
    assert key.raw.hex() == "3c6cb8d0f6a264c91ea8b5030fadaa8e538b020f0a387421a12de9319dc93368"


@pytest.mark.parametrize("words", [12, 24])
def test_a_new_mnemonic_derives_and_differs_each_time(words: int) -> None:
    first, second = new_mnemonic(words), new_mnemonic(words)
    assert first != second
    assert len(first.split()) == words
    assert derive(first) == derive(f"  {first.replace(' ', '  ')} ")
    assert derive(first) != derive(first, passphrase="x")


@pytest.mark.parametrize(
    "path", ["", "m", "m/", "m//1", "m/x", "m/-1", "m/2147483648", "m/44'/606'/0'/0/0/0/0/0/0/0/0", "m/1''", "m/²", "m/9" + "9" * 5000, "m/1h"]
)
def test_a_bad_derivation_path_is_refused(path: str) -> None:
    with pytest.raises(DerivationError) as caught:
        parse_path(path)
    assert len(str(caught.value)) < 300


def test_a_path_parses_with_and_without_its_m() -> None:
    assert parse_path("m/44'/606'/0'/0/7") == parse_path("44'/606'/0'/0/7") == [0x8000002C, 0x8000025E, 0x80000000, 0, 7]


@pytest.mark.parametrize("phrase", ["", "abandon", "abandon " * 12, "zoo " * 24, VECTORS["wallet"]["mnemonic"] + " zoo"])
def test_a_mnemonic_with_wrong_words_or_checksum_is_refused(phrase: str) -> None:
    with pytest.raises(DerivationError, match="invalid mnemonic"):
        derive(phrase)


def test_secp256k1_addresses_are_ripemd160_of_sha256() -> None:
    key = Secp256k1PublicKey(bytes.fromhex("0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"))
    # The address of private key 1, known from Bitcoin (hash160).
    assert key.address.hex() == "751e76e8199196d454941c45d1b3a323f1433bd6"
