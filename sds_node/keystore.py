"""Private keys in files: the original's format (reference sds.md 1.3) is read and written, our own is the default for new files.

    password ─ scrypt ─► key ─ AES ─► sealed MessagePack map {HdPath, Mnemonic, Passphrase, PrivKey}      <folder>/<address>.json, mode 0600

    original   scrypt 4096/8/6, AES-128-CTR, MAC = Keccak-256(second half of the key ‖ ciphertext)        "version": 3
    ours       scrypt 131072/8/1, AES-256-GCM over map and header, SHA-256 over the whole file            "format": "stratos-key/v1"

The checksum tells a damaged file from a wrong password. The original's format has none: there, a changed ciphertext looks like a wrong password.
Below: the seed from which a wallet's storage keys come (storage-protocol.md 4).
"""

from __future__ import annotations

import contextlib
import enum
import errno
import hashlib
import json
import os
import secrets
import uuid
from dataclasses import dataclass, field
from functools import cached_property
from hmac import compare_digest
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from chain.crypto import address
from chain.crypto.keys import PrivateKey, keccak256
from sds_node import p2p

FORMAT: Final = "stratos-key/v1"
ORIGINAL_VERSION: Final = 3
SCRYPT_N: Final = 1 << 17
SCRYPT_R: Final = 8
SCRYPT_P: Final = 1
ORIGINAL_SCRYPT: Final = (4_096, 8, 6)
MAX_SCRYPT_MEMORY_BYTES: Final = 256 << 20
MAX_SCRYPT_WORK: Final = 1 << 22
"""n × r × p: four times what our own files take."""

MAX_FILE_BYTES: Final = 32_768
MAX_FIELD_BYTES: Final = 2_048
MAX_NAME_BYTES: Final = 256
MAX_PASSWORD_BYTES: Final = 1_024
SALT_BYTES: Final = 32

SEED_SALT: Final = b"stratos/account-seed/v1"
SEED_BYTES: Final = 32
SEED_TEXT: Final = (
    "Stratos storage account key, version 1.\n"
    "Whoever has this signature can read every private file of this account.\n"
    "Sign this text only in software that you trust with all of them."
)
"""What a wallet signs to get its storage seed. It never changes: another text is another seed."""


class KeyFileError(Exception):
    """A key file that cannot be used. The message says why and what to do, and shows no secret."""


class WrongPassword(KeyFileError):
    """The file is whole, and this password does not open it."""


class DamagedKeyFile(KeyFileError):
    """The bytes are no key file, or parts of it were changed or lost."""


class Kind(enum.Enum):
    """Whose key it is."""

    WALLET = "wallet"
    P2P = "p2p"


@dataclass(frozen=True)
class StoredKey:
    """What a file keeps. ``private_key`` has 32 bytes: secp256k1's number of a wallet, ed25519's seed of a node. The rest may be empty.

    Raises KeyFileError for bytes that are no key and for texts that are too long.
    """

    kind: Kind
    private_key: bytes = field(repr=False)
    name: str = ""
    hd_path: str = field(default="", repr=False)
    mnemonic: str = field(default="", repr=False)
    passphrase: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        for what, text, most_bytes in (
            ("name", self.name, MAX_NAME_BYTES),
            ("derivation path", self.hd_path, MAX_FIELD_BYTES),
            ("mnemonic", self.mnemonic, MAX_FIELD_BYTES),
            ("BIP-39 passphrase", self.passphrase, MAX_FIELD_BYTES),
        ):
            if len(_utf8(text, what)) > most_bytes:
                raise KeyFileError(f"the {what} of a key has at most {most_bytes} bytes, got {len(text.encode())}")
        try:
            self.address  # noqa: B018  it is made of the key, and refuses bytes that are none
        except ValueError as error:
            raise KeyFileError(str(error)) from None

    @cached_property
    def address(self) -> bytes:
        """20 bytes."""
        if self.kind is Kind.WALLET:
            return PrivateKey(self.private_key, "eth_secp256k1").public_key.address
        return p2p.P2PKey(self.private_key).address

    @property
    def address_text(self) -> str:
        """``st1…`` of a wallet, ``stsds1…`` of a node."""
        return address.encode(self.address, address.ACCOUNT if self.kind is Kind.WALLET else address.NODE)


def save(folder: Path, key: StoredKey, password: str, *, original_format: bool = False, replace: bool = False) -> Path:
    """Write ``<folder>/<address>.json``, whole or not at all, mode 0600, synced. Its path.

    Raises KeyFileError, also for a file that is there already unless ``replace`` (a new password for it, a new name).
    """
    path = folder / f"{key.address_text}.json"
    _write(path, encode_original(key, password) if original_format else encode(key, password), replace)
    return path


def load(path: Path, password: str) -> StoredKey:
    """The key in a file of either format. Raises WrongPassword, DamagedKeyFile, KeyFileError (no such file, not readable)."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise KeyFileError(f"the key file {path} cannot be read: {error.strerror}") from None
    try:
        return decode(data, password)
    except KeyFileError as error:
        raise type(error)(f"{path}: {error}") from None


def encode(key: StoredKey, password: str) -> bytes:
    """The bytes of a file in our own format. Raises KeyFileError for a password that is too long."""
    header: dict[str, Any] = {
        "format": FORMAT,
        "kind": key.kind.value,
        "address": key.address_text,
        "name": key.name,
        "scrypt_n": SCRYPT_N,
        "scrypt_r": SCRYPT_R,
        "scrypt_p": SCRYPT_P,
        "salt": secrets.token_hex(SALT_BYTES),
    }
    secret = _scrypt(password, bytes.fromhex(header["salt"]), SCRYPT_N, SCRYPT_R, SCRYPT_P)
    nonce = secrets.token_bytes(12)
    sealed = AESGCM(secret).encrypt(nonce, _pack(key), _canonical(header))
    body = {**header, "nonce": nonce.hex(), "sealed": sealed.hex()}
    return json.dumps({**body, "checksum": hashlib.sha256(_canonical(body)).hexdigest()}, indent=2).encode() + b"\n"


def encode_original(key: StoredKey, password: str) -> bytes:
    """The bytes of a file that the original's ``ppd`` reads. Raises KeyFileError for a password that is too long."""
    n, r, p = ORIGINAL_SCRYPT
    salt, iv = secrets.token_bytes(SALT_BYTES), secrets.token_bytes(16)
    secret = _scrypt(password, salt, n, r, p)
    sealed = _aes_ctr(secret[:16], iv, _pack(key))
    return json.dumps(
        {
            "address": key.address.hex(),
            "name": key.name,
            "crypto": {
                "cipher": "aes-128-ctr",
                "ciphertext": sealed.hex(),
                "cipherparams": {"iv": iv.hex()},
                "kdf": "scrypt",
                "kdfparams": {"dklen": 32, "n": n, "p": p, "r": r, "salt": salt.hex()},
                "mac": keccak256(secret[16:32] + sealed).hex(),
            },
            "id": str(uuid.UUID(bytes=secrets.token_bytes(16), version=4)),
            "version": ORIGINAL_VERSION,
        },
        separators=(",", ":"),
    ).encode()


def decode(data: bytes, password: str) -> StoredKey:
    """The key in the bytes of a file, in either format. Raises WrongPassword, DamagedKeyFile."""
    if len(data) > MAX_FILE_BYTES:
        raise DamagedKeyFile(f"a key file has at most {MAX_FILE_BYTES} bytes: is it the right file?")
    try:
        content: Any = json.loads(data)
    except (ValueError, RecursionError):
        raise DamagedKeyFile("it is not JSON: restore it from your backup") from None
    if not isinstance(content, dict):
        raise DamagedKeyFile("it holds no JSON object: restore it from your backup")
    if "format" in content:
        return _decode_ours(content, password)
    return _decode_original(content, password)


def storage_seed(key: PrivateKey) -> bytes:
    """The 32 bytes from which all storage keys of a wallet come: HKDF-SHA256 of its signature over SEED_TEXT.

    The signature is R‖S, 64 bytes, low S, with the nonce of RFC 6979, over Keccak-256 of the text, whatever the kind of key; salt
    ``stratos/account-seed/v1``; info = the 20 bytes of the wallet's address. Source: storage-protocol.md 4.
    """
    signature = PrivateKey(key.raw, "eth_secp256k1").sign(SEED_TEXT.encode("ascii"))
    return HKDF(SHA256(), SEED_BYTES, SEED_SALT, key.public_key.address).derive(signature)


# --- The two formats ---


def _decode_ours(content: dict[str, Any], password: str) -> StoredKey:
    if content["format"] != FORMAT:
        raise DamagedKeyFile(f"its format is {_shown(content['format'])}, expected {FORMAT}: is it from a newer version?")
    checksum = content.get("checksum")
    body = {name: value for name, value in content.items() if name != "checksum"}
    try:
        right = checksum == hashlib.sha256(_canonical(body)).hexdigest()
    except (ValueError, RecursionError):
        right = False
    if not right:
        raise DamagedKeyFile("its checksum does not match, so a part of it was changed or lost: restore it from your backup")
    salt, nonce, sealed = _hex(body, "salt", SALT_BYTES), _hex(body, "nonce", 12), _hex(body, "sealed", None)
    header = {name: value for name, value in body.items() if name not in ("nonce", "sealed")}
    secret = _scrypt(password, salt, _number(body, "scrypt_n"), _number(body, "scrypt_r"), _number(body, "scrypt_p"))
    try:
        plain = AESGCM(secret).decrypt(nonce, sealed, _canonical(header))
    except (InvalidTag, ValueError):
        raise WrongPassword("the password does not open it") from None
    return _unpacked(plain, _text(body, "name"), _text(body, "address"), _text(body, "kind"))


def _decode_original(content: dict[str, Any], password: str) -> StoredKey:
    if content.get("version") != ORIGINAL_VERSION:
        raise DamagedKeyFile(f"it has neither format {FORMAT} nor version 3: is it a key file of a storage node or wallet?")
    crypto = _object(content, "crypto")
    cipher, kdf = _text(crypto, "cipher"), _text(crypto, "kdf")
    if cipher != "aes-128-ctr" or kdf != "scrypt":
        raise DamagedKeyFile(f"expected cipher aes-128-ctr and kdf scrypt, got {_shown(cipher)} and {_shown(kdf)}")
    params = _object(crypto, "kdfparams")
    iv, mac, sealed = _hex(_object(crypto, "cipherparams"), "iv", 16), _hex(crypto, "mac", 32), _hex(crypto, "ciphertext", None)
    if _number(params, "dklen") != 32:
        raise DamagedKeyFile(f"expected dklen 32, got {_number(params, 'dklen')}")
    secret = _scrypt(password, _hex(params, "salt", None), _number(params, "n"), _number(params, "r"), _number(params, "p"))
    if not compare_digest(keccak256(secret[16:32] + sealed), mac):
        raise WrongPassword("the password does not open it, or its ciphertext was changed (this format cannot tell which)")
    return _unpacked(_aes_ctr(secret[:16], iv, sealed), _text(content, "name"), _text(content, "address"), None)


def _unpacked(plain: bytes, name: str, shown_address: str, kind: str | None) -> StoredKey:
    """The key in an opened file, if it is the one that the file names."""
    fields = _unpack(plain)
    private_key = fields["PrivKey"]
    try:
        texts = [fields[one].decode() for one in ("HdPath", "Mnemonic", "Passphrase")]
        if kind is None:
            # The original does not write what kind it is; its two kinds differ in length.
            kind = Kind.P2P.value if len(private_key) == 64 else Kind.WALLET.value
        if kind == Kind.P2P.value:
            private_key = p2p.from_bytes(private_key).seed
        key = StoredKey(Kind(kind), private_key, name, *texts)
    except (KeyFileError, UnicodeDecodeError, ValueError):
        raise DamagedKeyFile("it opens, and holds no key: restore it from your backup") from None
    if shown_address not in (key.address_text, key.address.hex()):
        raise DamagedKeyFile(f"it opens, and holds the key of {key.address_text}, not of {_shown(shown_address)}: restore it from your backup")
    return key


def _scrypt(password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    """32 bytes. Raises DamagedKeyFile for numbers that scrypt does not have or that take too much memory or time."""
    memory_bytes = 128 * r * (n + p + 2)
    if memory_bytes > MAX_SCRYPT_MEMORY_BYTES + (1 << 20) or n * r * p > MAX_SCRYPT_WORK:
        raise DamagedKeyFile(
            f"its scrypt numbers ask for more than {MAX_SCRYPT_MEMORY_BYTES >> 20} MiB or for too much work: is it from a source that you trust?"
        )
    raw = _password(password)
    try:
        return hashlib.scrypt(raw, salt=salt, n=n, r=r, p=p, maxmem=memory_bytes + (1 << 20), dklen=32)
    except ValueError:
        raise DamagedKeyFile(f"scrypt takes no such numbers: n {n}, r {r}, p {p}") from None


def _password(password: str) -> bytes:
    raw = _utf8(password, "password")
    if len(raw) > MAX_PASSWORD_BYTES:
        raise KeyFileError(f"a password has at most {MAX_PASSWORD_BYTES} bytes, got {len(raw)}")
    return raw


def _aes_ctr(secret: bytes, iv: bytes, data: bytes) -> bytes:
    stream = Cipher(algorithms.AES(secret), modes.CTR(iv)).encryptor()
    return stream.update(data) + stream.finalize()


# --- MessagePack: a map of four texts to bytes, and nothing else ---

_FIELDS: Final = ("HdPath", "Mnemonic", "Passphrase", "PrivKey")


def _pack(key: StoredKey) -> bytes:
    """The map as the original writes it: fixmap, fixstr, bin."""
    private_key = key.private_key if key.kind is Kind.WALLET else p2p.P2PKey(key.private_key).expanded
    values = (key.hd_path.encode(), key.mnemonic.encode(), key.passphrase.encode(), private_key)
    out = bytearray([0x80 | len(_FIELDS)])
    for name, value in zip(_FIELDS, values, strict=True):
        size = b"\xc4" + bytes([len(value)]) if len(value) < 256 else b"\xc5" + len(value).to_bytes(2, "big")
        out += bytes([0xA0 | len(name)]) + name.encode("ascii") + size + value
    return bytes(out)


def _unpack(data: bytes) -> dict[str, bytes]:
    """The four values; one that is absent or nil is empty. Raises DamagedKeyFile."""
    found: dict[str, bytes] = {}
    count, rest = _map_size(data)
    for _ in range(count):
        name, rest = _value(rest)
        value, rest = _value(rest)
        text = name.decode("ascii", "replace")
        if text not in _FIELDS or text in found:
            raise _not_a_map()
        found[text] = value
    if rest:
        raise _not_a_map()
    return {name: found.get(name, b"") for name in _FIELDS}


def _map_size(data: bytes) -> tuple[int, bytes]:
    """(number of pairs, what follows): fixmap, map 16 or map 32."""
    head = data[0] if data else 0
    if head & 0xF0 == 0x80:
        count, rest = head & 0x0F, data[1:]
    elif head in (0xDE, 0xDF):
        size = 2 if head == 0xDE else 4
        count, rest = int.from_bytes(data[1 : 1 + size], "big"), data[1 + size :]
    else:
        raise _not_a_map()
    if count > len(_FIELDS):
        raise _not_a_map()
    return count, rest


def _value(data: bytes) -> tuple[bytes, bytes]:
    """(bytes, what follows): nil, fixstr, str 8 to 32 or bin 8 to 32. The file's own limit bounds it."""
    head = data[0] if data else 0
    if head == 0xC0:
        return b"", data[1:]
    if head & 0xE0 == 0xA0:
        start, size = 1, head & 0x1F
    elif head in _SIZES:
        start = 1 + _SIZES[head]
        size = int.from_bytes(data[1:start], "big")
    else:
        raise _not_a_map()
    if start + size > len(data):
        raise _not_a_map()
    return data[start : start + size], data[start + size :]


_SIZES: Final = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}


def _not_a_map() -> DamagedKeyFile:
    return DamagedKeyFile(f"it opens, and holds no map of {', '.join(_FIELDS)}: restore it from your backup")


# --- JSON and files ---


def _canonical(content: dict[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode("ascii")


def _object(content: dict[str, Any], name: str) -> dict[str, Any]:
    value = content.get(name)
    if not isinstance(value, dict):
        raise DamagedKeyFile(f"expected an object {name}: restore it from your backup")
    return value


def _text(content: dict[str, Any], name: str) -> str:
    value = content.get(name)
    if not isinstance(value, str):
        raise DamagedKeyFile(f"expected a text {name}: restore it from your backup")
    return value


def _number(content: dict[str, Any], name: str) -> int:
    value = content.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 31:
        raise DamagedKeyFile(f"expected a number {name} from 0 to 2^31 - 1: restore it from your backup")
    return value


def _hex(content: dict[str, Any], name: str, size_bytes: int | None) -> bytes:
    """Bytes in hex, of exactly ``size_bytes`` if that is told. The file's own limit bounds the rest."""
    text = _text(content, name)
    try:
        raw = bytes.fromhex(text) if text.isalnum() or not text else None
    except ValueError:
        raw = None
    if raw is None or size_bytes not in (None, len(raw)):
        raise DamagedKeyFile(f"expected {name} in hex{'' if size_bytes is None else f', {size_bytes} bytes'}: restore it from your backup")
    return raw


def _utf8(text: str, what: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise KeyFileError(f"the {what} of a key is Unicode text, got half of a surrogate pair") from None


def _write(path: Path, data: bytes, replace: bool) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        _put(temporary, path, replace)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise KeyFileError(f"the key file {path} cannot be written: {error.strerror}") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _put(temporary: Path, path: Path, replace: bool) -> None:
    if replace:
        temporary.replace(path)
        return
    try:
        # A link fails where a file is: of two processes that make one, neither loses its password.
        os.link(temporary, path)
        return
    except FileExistsError:
        is_there = True
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        # A file system without links, as on memory sticks.
        is_there = path.exists()
    if is_there:
        raise KeyFileError(f"the key file {path} exists already: it was not changed")
    temporary.replace(path)


def _shown(text: object) -> str:
    return ascii(text)[:80]
