"""Key files of both formats, what is wrong with one that does not open, how they are written, and the storage seed."""

import copy
import hashlib
import hmac
import json
import stat
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chain.crypto import address
from chain.crypto.keys import PrivateKey, keccak256
from sds_node import keystore, p2p
from sds_node.keystore import (
    DamagedKeyFile,
    KeyFileError,
    Kind,
    StoredKey,
    WrongPassword,
    decode,
    encode,
    encode_original,
    load,
    save,
    storage_seed,
)

CALM = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""How fast the machine is decides nothing."""
VECTORS: Any = json.loads((Path(__file__).parents[2] / "vectors" / "sds.json").read_text())
ORIGINAL: Any = VECTORS["key_files"][0]
OURS: Any = VECTORS["our_key_file"]
WALLET_KEY = StoredKey(
    Kind.WALLET, bytes.fromhex(VECTORS["wallet"]["private_key"]), "wallet", VECTORS["wallet"]["path"], VECTORS["wallet"]["mnemonic"], ""
)
NODE_KEY = StoredKey(Kind.P2P, bytes.fromhex(VECTORS["p2p"]["seed"]), "node")
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141


@pytest.fixture(scope="module")
def ours() -> bytes:
    """A file of our own format. Making one takes scrypt's time, so tests share it."""
    return encode(WALLET_KEY, "correct horse")


def original(plain: bytes, owner: bytes, password: bytes = b"pw", n: int = 2, **changes: Any) -> bytes:
    """A file of the original's format, by its description and not by our writer, with a cheap scrypt."""
    salt, iv = bytes(32), bytes(16)
    secret = hashlib.scrypt(password, salt=salt, n=n, r=8, p=1, dklen=32)
    stream = Cipher(algorithms.AES(secret[:16]), modes.CTR(iv)).encryptor()
    sealed = stream.update(plain) + stream.finalize()
    crypto = {
        "cipher": "aes-128-ctr",
        "ciphertext": sealed.hex(),
        "cipherparams": {"iv": iv.hex()},
        "kdf": "scrypt",
        "kdfparams": {"dklen": 32, "n": n, "p": 1, "r": 8, "salt": salt.hex()},
        "mac": keccak256(secret[16:] + sealed).hex(),
    }
    return json.dumps({"address": owner.hex(), "name": "", "crypto": crypto, "id": "", "version": 3, **changes}).encode()


def packed(*pairs: tuple[str, bytes]) -> bytes:
    out = bytes([0x80 | len(pairs)])
    for name, value in pairs:
        out += bytes([0xA0 | len(name)]) + name.encode() + b"\xc5" + len(value).to_bytes(2, "big") + value
    return out


# --- The original's format ---


@pytest.mark.parametrize("vector", VECTORS["key_files"], ids=lambda vector: vector["kind"])
def test_a_key_file_of_the_original_is_read(vector: Any) -> None:
    key = decode(json.dumps(vector["file"]).encode(), vector["password"])
    texts = (vector["name"], vector["hd_path"], vector["mnemonic"], vector["passphrase"])
    assert key == StoredKey(Kind(vector["kind"]), bytes.fromhex(vector["private_key"]), *texts)


def test_a_file_for_the_original_has_its_members_and_numbers_and_is_read_back() -> None:
    data = encode_original(NODE_KEY, "pässwörd")
    content = json.loads(data)
    assert list(content) == ["address", "name", "crypto", "id", "version"]
    assert list(content["crypto"]) == ["cipher", "ciphertext", "cipherparams", "kdf", "kdfparams", "mac"]
    params = content["crypto"]["kdfparams"]
    assert {name: params[name] for name in params if name != "salt"} == {"dklen": 32, "n": 4096, "p": 6, "r": 8}
    assert (len(params["salt"]), len(content["id"]), content["address"], content["version"]) == (64, 36, NODE_KEY.address.hex(), 3)
    secret = hashlib.scrypt("pässwörd".encode(), salt=bytes.fromhex(params["salt"]), n=4096, r=8, p=6, dklen=32, maxmem=1 << 26)
    iv = bytes.fromhex(content["crypto"]["cipherparams"]["iv"])
    stream = Cipher(algorithms.AES(secret[:16]), modes.CTR(iv)).decryptor()
    assert stream.update(bytes.fromhex(content["crypto"]["ciphertext"])) == (
        b"\x84\xa6HdPath\xc4\x00\xa8Mnemonic\xc4\x00\xaaPassphrase\xc4\x00\xa7PrivKey\xc4\x40" + p2p.P2PKey(NODE_KEY.private_key).expanded
    )
    assert decode(data, "pässwörd") == NODE_KEY


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (lambda file: None, WrongPassword, "does not open it"),
        (lambda file: file["crypto"].update(mac="00" * 32), WrongPassword, "cannot tell which"),
        (lambda file: file["crypto"].update(mac="00"), DamagedKeyFile, "mac in hex, 32 bytes"),
        (lambda file: file["crypto"].update(ciphertext="0"), DamagedKeyFile, "ciphertext in hex"),
        (lambda file: file["crypto"].update(ciphertext=" 0 0"), DamagedKeyFile, "ciphertext in hex"),
        (lambda file: file["crypto"].update(cipher="aes-256-ctr"), DamagedKeyFile, "aes-128-ctr"),
        (lambda file: file["crypto"].update(kdf="pbkdf2"), DamagedKeyFile, "scrypt"),
        (lambda file: file["crypto"].pop("cipherparams"), DamagedKeyFile, "object cipherparams"),
        (lambda file: file["crypto"]["kdfparams"].update(dklen=64), DamagedKeyFile, "dklen 32"),
        (lambda file: file["crypto"]["kdfparams"].update(n=4095), DamagedKeyFile, "no such numbers"),
        (lambda file: file["crypto"]["kdfparams"].update(n=1), DamagedKeyFile, "no such numbers"),
        (lambda file: file["crypto"]["kdfparams"].update(n=1 << 16, r=1), DamagedKeyFile, "no such numbers"),
        (lambda file: file["crypto"]["kdfparams"].update(n=True), DamagedKeyFile, "a number n"),
        (lambda file: file["crypto"]["kdfparams"].update(n="4096"), DamagedKeyFile, "a number n"),
        (lambda file: file["crypto"]["kdfparams"].update(p=0), DamagedKeyFile, "no such numbers"),
        (lambda file: file["crypto"].update(kdfparams=[]), DamagedKeyFile, "object kdfparams"),
        (lambda file: file.update(version=4), DamagedKeyFile, "nor version 3"),
        (lambda file: file.update(crypto=None), DamagedKeyFile, "object crypto"),
    ],
)
def test_what_is_wrong_with_a_file_of_the_original_is_told(change: Any, error: type[Exception], says: str) -> None:
    file = copy.deepcopy(ORIGINAL["file"])
    change(file)
    password = "wrong" if json.dumps(file) == json.dumps(ORIGINAL["file"]) else ORIGINAL["password"]
    with pytest.raises(error, match=says):
        decode(json.dumps(file).encode(), password)


@pytest.mark.parametrize(
    "numbers",
    [
        {"n": 1 << 30},
        {"n": 1 << 19},
        {"r": 1 << 24},
        {"n": 2, "r": 1 << 21},
        {"p": 1 << 24},
        {"n": 1 << 17, "r": 8, "p": 5},
        {"n": 2, "r": 1, "p": (1 << 31) - 1},
    ],
)
def test_a_hostile_file_cannot_ask_for_more_memory_or_work_than_is_allowed(numbers: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashlib, "scrypt", lambda *_, **__: pytest.fail("scrypt was begun"))
    file = copy.deepcopy(ORIGINAL["file"])
    file["crypto"]["kdfparams"].update(numbers)
    with pytest.raises(DamagedKeyFile, match="more than 256 MiB or for too much work"):
        decode(json.dumps(file).encode(), "x")


def test_numbers_that_other_wallets_use_are_allowed() -> None:
    for n, r, p in ((1 << 18, 8, 1), (4_096, 8, 6), (1 << 17, 8, 1)):
        assert 128 * r * (n + p) <= keystore.MAX_SCRYPT_MEMORY_BYTES + (1 << 20)
        assert n * r * p <= keystore.MAX_SCRYPT_WORK


# --- The map inside ---

KEY_PAIR = ("PrivKey", WALLET_KEY.private_key)
TEXTS = (("HdPath", b"m"), ("Mnemonic", b"words"), ("Passphrase", b""))


@pytest.mark.parametrize(
    "plain",
    [
        packed(KEY_PAIR),
        packed(KEY_PAIR, *TEXTS),
        packed(*TEXTS, KEY_PAIR),
        b"\xde\x00\x01" + packed(KEY_PAIR)[1:],
        b"\xdf\x00\x00\x00\x01" + packed(KEY_PAIR)[1:],
        b"\x82\xa8Mnemonic\xc0\xa7PrivKey\xc4\x20" + WALLET_KEY.private_key,
        b"\x81\xd9\x07PrivKey\xda\x00\x20" + WALLET_KEY.private_key,
        b"\x81\xc4\x07PrivKey\xc6\x00\x00\x00\x20" + WALLET_KEY.private_key,
    ],
)
def test_the_map_is_read_in_every_form_that_a_writer_may_choose(plain: bytes) -> None:
    key = decode(original(plain, WALLET_KEY.address), "pw")
    assert key.private_key == WALLET_KEY.private_key
    assert key.mnemonic == ("words" if b"words" in plain else "")


@pytest.mark.parametrize(
    "plain",
    [
        b"",
        b"\x80",
        b"\x81",
        b"\x90",
        packed(KEY_PAIR) + b"\x00",
        packed(KEY_PAIR)[:-1],
        packed(KEY_PAIR, KEY_PAIR),
        packed(KEY_PAIR, ("Other", b"")),
        packed(*TEXTS),
        packed(("PrivKey", bytes(32))),
        packed(("PrivKey", b"\xff" * 32)),
        packed(("PrivKey", b"\x01" * 33)),
        packed(("PrivKey", WALLET_KEY.private_key + bytes(32))),
        packed(("PrivKey", b"\x02" * 32)),  # the key of another address
        packed(KEY_PAIR, ("Mnemonic", b"\xff")),
        packed(KEY_PAIR, ("Mnemonic", b"x" * 2049)),
        b"\xdf\xff\xff\xff\xff",
        b"\x81\xa7PrivKey\xc6\xff\xff\xff\xff",
        b"\x81\xa7PrivKey\x93\x01\x02\x03",
        b"\x81\xc0\xc0",
        WALLET_KEY.private_key,
    ],
)
def test_a_file_that_opens_and_holds_no_such_key_is_damaged(plain: bytes) -> None:
    with pytest.raises(DamagedKeyFile, match="it opens, and holds"):
        decode(original(plain, WALLET_KEY.address), "pw")


def test_a_key_file_of_the_original_with_a_changed_iv_is_damaged() -> None:
    file = json.loads(original(packed(KEY_PAIR), WALLET_KEY.address))
    file["crypto"]["cipherparams"]["iv"] = "01" * 16
    with pytest.raises(DamagedKeyFile, match="it opens, and holds"):
        decode(json.dumps(file).encode(), "pw")


@CALM
@given(st.binary(max_size=60), st.sampled_from((b"", b"\x81\xa7PrivKey", b"\x84")))
def test_a_hostile_map_raises_nothing_else(tail: bytes, head: bytes) -> None:
    with pytest.raises(DamagedKeyFile):
        keystore._unpacked(head + tail, "", WALLET_KEY.address.hex(), None)


@CALM
@given(
    st.sampled_from(Kind),
    st.integers(1, ORDER - 1).map(lambda number: number.to_bytes(32, "big")),
    st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=300), min_size=3, max_size=3),
)
def test_the_map_is_read_as_it_was_written(kind: Kind, private_key: bytes, texts: list[str]) -> None:
    key = StoredKey(kind, private_key, "a name", *texts)
    assert keystore._unpacked(keystore._pack(key), "a name", key.address_text, kind.value) == key
    assert keystore._unpacked(keystore._pack(key), "a name", key.address.hex(), None) == key


# --- Our format ---


def test_our_file_is_opened_by_its_password_and_by_no_other(ours: bytes) -> None:
    assert decode(ours, "correct horse") == WALLET_KEY
    with pytest.raises(WrongPassword, match="does not open it"):
        decode(ours, "Correct horse")


def test_our_file_of_the_vectors_is_read_and_hides_what_is_secret() -> None:
    data = json.dumps(OURS["file"]).encode()
    assert decode(data, OURS["password"]) == WALLET_KEY
    assert OURS["file"]["scrypt_n"] >= 1 << 17
    assert OURS["private_key"].encode() not in data
    assert b"abandon" not in data


@pytest.mark.parametrize("member", sorted(OURS["file"]))
def test_a_changed_or_lost_member_of_our_file_is_damage_not_a_wrong_password(member: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashlib, "scrypt", lambda *_, **__: pytest.fail("scrypt was begun"))
    value = OURS["file"][member]
    changed = {**OURS["file"], member: value + 1 if isinstance(value, int) else value[:-1] + ("0" if value[-1] != "0" else "1")}
    lost = {name: value for name, value in OURS["file"].items() if name != member}
    for file in (changed, lost):
        with pytest.raises(DamagedKeyFile):
            decode(json.dumps(file).encode(), OURS["password"])


def test_a_member_changed_with_its_checksum_does_not_open_either() -> None:
    body = {name: value for name, value in OURS["file"].items() if name != "checksum"}
    body["name"] = "another"
    body["checksum"] = hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    with pytest.raises(WrongPassword):
        decode(json.dumps(body).encode(), OURS["password"])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b"null",
        b"\xff\xfe",
        b"[" * 30_000,
        b'{"version":' + b"9" * 5_000 + b"}",
        b'{"version":3.5}',
        b'{"version":NaN}',
        b'{"version":true}',
        b'{"format":5}',
        b'{"format":"stratos-key/v2"}',
        b'{"format":"stratos-key/v1","checksum":{"a":[]}}',
        b'{"format":"stratos-key/v1","name":"\\ud800","checksum":null}',
        b" " * 32_769,
    ],
    ids=lambda data: repr(data[:40]),
)
def test_bytes_that_are_no_key_file_are_refused_with_a_sentence(data: bytes) -> None:
    with pytest.raises(DamagedKeyFile):
        decode(data, "x")


def test_a_name_that_is_no_unicode_is_damage() -> None:
    with pytest.raises(DamagedKeyFile, match="holds no key"):
        decode(original(packed(KEY_PAIR), WALLET_KEY.address, name="\ud800"), "pw")


@CALM
@given(st.integers(0, len(json.dumps(OURS["file"])) - 1), st.integers(0, 255))
def test_any_changed_byte_of_our_file_is_found_before_the_password_is_tried(at: int, byte: int) -> None:
    data = bytearray(json.dumps(OURS["file"]).encode())
    is_same = data[at] == byte
    data[at] = byte
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keystore, "_scrypt", lambda *_: (_ for _ in ()).throw(InterruptedError))
        with pytest.raises((DamagedKeyFile, InterruptedError)) as caught:
            decode(bytes(data), OURS["password"])
    # A space in place of a space, or a digit of a name's escape: what means the same is the same file.
    assert caught.type is DamagedKeyFile or is_same or json.loads(data) == OURS["file"]


# --- Keys ---


def test_a_key_tells_its_address_and_hides_itself() -> None:
    assert WALLET_KEY.address_text == VECTORS["wallet"]["address"]
    assert NODE_KEY.address_text == VECTORS["p2p"]["address"]
    assert repr(WALLET_KEY) == "StoredKey(kind=<Kind.WALLET: 'wallet'>, name='wallet')"


@pytest.mark.parametrize(
    ("kind", "private_key", "texts"),
    [
        (Kind.WALLET, bytes(32), ()),
        (Kind.WALLET, ORDER.to_bytes(32, "big"), ()),
        (Kind.WALLET, bytes(31), ()),
        (Kind.P2P, bytes(64), ()),
        (Kind.P2P, bytes(32), ("x" * 257,)),
        (Kind.P2P, bytes(32), ("", "x" * 2049)),
        (Kind.P2P, bytes(32), ("", "", "ä" * 1025)),
        (Kind.P2P, bytes(32), ("", "", "", "\ud800")),
    ],
)
def test_a_key_that_is_none_is_not_kept(kind: Kind, private_key: bytes, texts: tuple[str, ...]) -> None:
    with pytest.raises(KeyFileError):
        StoredKey(kind, private_key, *texts)


@pytest.mark.parametrize("password", ["x" * 1025, "\ud800"])
def test_a_password_is_bounded_unicode(password: str) -> None:
    for make in (encode, encode_original):
        with pytest.raises(KeyFileError, match="password"):
            make(NODE_KEY, password)


# --- Files ---


def test_a_file_is_private_named_by_its_address_and_left_alone_unless_it_is_to_be_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "home" / "accounts"
    path = save(folder, NODE_KEY, "one", original_format=True)
    assert path == folder / f"{NODE_KEY.address_text}.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    before = path.read_bytes()
    with pytest.raises(KeyFileError, match="exists already"):
        save(folder, NODE_KEY, "two", original_format=True)
    assert path.read_bytes() == before
    save(folder, NODE_KEY, "two", original_format=True, replace=True)
    assert load(path, "two") == NODE_KEY
    with pytest.raises(WrongPassword, match=str(path)):
        load(path, "one")
    assert [one.name for one in folder.iterdir()] == [path.name]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_new_file_is_of_our_own_format(tmp_path: Path) -> None:
    path = save(tmp_path, NODE_KEY, "pw")
    assert json.loads(path.read_text())["format"] == "stratos-key/v1"
    assert load(path, "pw") == NODE_KEY


def test_a_file_system_without_links_keeps_keys_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(keystore.os, "link", refuse)
    path = save(tmp_path, NODE_KEY, "one", original_format=True)
    with pytest.raises(KeyFileError, match="exists already"):
        save(tmp_path, NODE_KEY, "two", original_format=True)
    assert load(path, "one") == NODE_KEY
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("step", ["fsync", "link"])
def test_a_write_that_fails_leaves_nothing_and_says_so(tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keystore.os, step, full)
    with pytest.raises(KeyFileError, match="cannot be written: No space left on device"):
        save(tmp_path, NODE_KEY, "pw", original_format=True)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_a_file_and_a_file_that_is_not_there_are_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(KeyFileError, match="cannot be written"):
        save(tmp_path / "file", NODE_KEY, "pw", original_format=True)
    with pytest.raises(KeyFileError, match="cannot be read: No such file"):
        load(tmp_path / "nothing.json", "pw")


def test_a_huge_file_is_not_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "huge.json"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(DamagedKeyFile, match="at most 32768 bytes"):
        load(path, "pw")


# --- The storage seed ---


@pytest.mark.parametrize("vector", VECTORS["storage_seeds"], ids=lambda vector: vector["algorithm"])
def test_the_storage_seed_is_hkdf_of_a_deterministic_signature_by_another_library(vector: Any) -> None:
    raw = bytes.fromhex(vector["private_key"])
    key = PrivateKey(raw, vector["algorithm"])
    assert vector["text"] == keystore.SEED_TEXT
    digest = keccak256(vector["text"].encode())
    other = ec.derive_private_key(int.from_bytes(raw, "big"), ec.SECP256K1())
    r, s = utils.decode_dss_signature(other.sign(digest, ec.ECDSA(utils.Prehashed(SHA256()), deterministic_signing=True)))
    signature = r.to_bytes(32, "big") + min(s, ORDER - s).to_bytes(32, "big")
    assert signature.hex() == vector["signature"]
    extracted = hmac.digest(b"stratos/account-seed/v1", signature, "sha256")
    assert hmac.digest(extracted, key.public_key.address + b"\x01", "sha256").hex() == vector["seed"]
    assert storage_seed(key).hex() == vector["seed"]


def test_each_wallet_has_its_own_storage_seed_and_the_same_one_each_time() -> None:
    seeds = [storage_seed(PrivateKey(bytes([number]) * 32, "eth_secp256k1")) for number in (1, 2, 1)]
    assert seeds[0] == seeds[2] != seeds[1]


def test_the_text_behind_the_seed_is_no_request() -> None:
    assert len(keystore.SEED_TEXT) > 32
    assert not keystore.SEED_TEXT.startswith(("v05", "st1", "sds://", "stratos-sds/v2"))
    assert keystore.SEED_TEXT.isascii()
    assert address.ACCOUNT + "1" not in keystore.SEED_TEXT
