"""The key of a node: ed25519, its address, and how a node is written (reference sds.md 1.2).

    mnemonic ─ BIP-32 at m/44'/606'/0/0 ─► 32 bytes ─ SHA-256 ─► seed ─► public key ─ SHA-256, 20 bytes ─► address

    stsds1…  address       stsdspub1…  public key       snode:<stsds1…>@<ip>:<port>  a node and where it listens

The original checks signatures by ZIP-215, which takes keys of small order, too: under such a key one signature holds for every message. ``verify`` is the
chain's check, with keys of the prime group alone, as the chain asks for keys in evidence. Both take whatever an honest key signs.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
import secrets
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

import nacl.signing

from chain.crypto import address
from chain.crypto.hd import derive
from chain.crypto.keys import Ed25519PublicKey
from chain.errors import InvalidAddress
from modules.settlement.documents import is_ledger_key

DEFAULT_PATH: Final = "m/44'/606'/0/0"
SEED_BYTES: Final = 32
ADDRESS_BYTES: Final = 20
ADDRESS_CHARACTERS: Final = 44
PUBLIC_KEY_CHARACTERS: Final = 67
MAX_SNODE_CHARACTERS: Final = 160
_IS_SNODE: Final = re.compile(r"snode:(stsds1[0-9a-z]{38})@([0-9.]{7,15}|\[[0-9a-fA-F:.]{2,45}\]):([1-9][0-9]{0,4})").fullmatch
_IS_HEX: Final = re.compile(r"(?:[0-9a-fA-F]{64}){1,2}").fullmatch


class P2PError(ValueError):
    """Text or bytes that are no key, address or node. The message says what was expected, and shows no secret."""


@dataclass(frozen=True)
class P2PKey:
    """A node's private key: the ed25519 seed, 32 bytes."""

    seed: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.seed) != SEED_BYTES:
            raise P2PError(f"the seed of a node's key has {SEED_BYTES} bytes, got {len(self.seed)}")

    @cached_property
    def public_key(self) -> bytes:
        """32 bytes."""
        return bytes(self._signing_key.verify_key)

    @cached_property
    def address(self) -> bytes:
        """20 bytes."""
        return address_of(self.public_key)

    @property
    def expanded(self) -> bytes:
        """Seed ‖ public key, 64 bytes: the form that the original keeps."""
        return self.seed + self.public_key

    def sign(self, message: bytes) -> bytes:
        """R‖S, 64 bytes."""
        return self._signing_key.sign(message).signature

    @cached_property
    def _signing_key(self) -> nacl.signing.SigningKey:
        return nacl.signing.SigningKey(self.seed)


@dataclass(frozen=True)
class NodeLocation:
    """A node and where it listens: its address (20 bytes), an IP address in its shortest text, a port."""

    node: bytes
    ip: str
    port: int

    def __post_init__(self) -> None:
        try:
            ip = ipaddress.ip_address(self.ip)
            # Python's versions write an IPv4 address inside an IPv6 one in two ways: it is written as the IPv4 address that it is.
            is_one = str(ip) == self.ip and "%" not in self.ip and (ip.version == 4 or ip.ipv4_mapped is None)
        except ValueError:
            is_one = False
        if len(self.node) != ADDRESS_BYTES or not is_one or not 1 <= self.port <= 65_535:
            raise P2PError(
                f"a node has an address of {ADDRESS_BYTES} bytes, an IP address in its shortest form and a port from 1 to 65535, "
                f"got {len(self.node)} bytes, {_shown(self.ip)}, {_shown(str(self.port))}"
            )


def from_mnemonic(mnemonic: str, path: str = DEFAULT_PATH, passphrase: str = "") -> P2PKey:
    """The node's key of a wallet's words. Raises chain.crypto.hd.DerivationError for wrong words or a wrong path."""
    return from_secret(derive(mnemonic, path, passphrase=passphrase).raw)


def from_secret(secret: bytes) -> P2PKey:
    """The key whose seed is SHA-256 of a derived secret (32 bytes). Raises P2PError for another length."""
    if len(secret) != SEED_BYTES:
        raise P2PError(f"the secret behind a node's key has {SEED_BYTES} bytes, got {len(secret)}")
    return P2PKey(hashlib.sha256(secret).digest())


def from_hex(text: str) -> P2PKey:
    """The key in hex: the seed, 64 digits, or seed and public key, 128 digits. Raises P2PError."""
    if not _IS_HEX(text):
        raise P2PError(f"a node's key in hex has 64 digits (seed) or 128 (seed and public key), got {len(text)} characters")
    return from_bytes(bytes.fromhex(text))


def from_bytes(raw: bytes) -> P2PKey:
    """The key as seed (32 bytes) or as seed ‖ public key (64). Raises P2PError, also if the two do not belong together."""
    if len(raw) not in (SEED_BYTES, 2 * SEED_BYTES):
        raise P2PError(f"a node's key has 32 bytes (seed) or 64 (seed and public key), got {len(raw)}")
    key = P2PKey(raw[:SEED_BYTES])
    if raw[SEED_BYTES:] not in (b"", key.public_key):
        raise P2PError("the second half of a node's key is not the public key of the first: is it cut off or mistyped?")
    return key


def new_key() -> P2PKey:
    """A fresh random key."""
    return P2PKey(secrets.token_bytes(SEED_BYTES))


def address_of(public_key: bytes) -> bytes:
    """The 20 bytes of the address of a public key (32 bytes)."""
    return Ed25519PublicKey(public_key).address


def verify(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """True if ``signature`` (64 bytes) over ``message`` is of ``public_key`` (32 bytes, of the prime group). Never raises."""
    return len(signature) == 64 and is_ledger_key(public_key) and Ed25519PublicKey(public_key).verify(message, signature)


def format_address(node: bytes) -> str:
    """``stsds1…``, 44 characters."""
    return address.encode(node, address.NODE)


def parse_address(text: str) -> bytes:
    """The 20 bytes of ``stsds1…``, in lower case. Raises P2PError."""
    return _decode(text, address.NODE, ADDRESS_CHARACTERS, "the address of a node")


def parse_node(text: str) -> bytes:
    """The address (20 bytes) of a node that is written ``stsds1…`` or ``stsdspub1…``. Raises P2PError."""
    return address_of(parse_public_key(text)) if text.startswith("stsdspub1") else parse_address(text)


def format_public_key(public_key: bytes) -> str:
    """``stsdspub1…`` of 32 bytes."""
    return address.encode(public_key, address.NODE_PUB)


def parse_public_key(text: str) -> bytes:
    """The 32 bytes of ``stsdspub1…``, in lower case. Raises P2PError, also for a key of small order or none at all."""
    public_key = _decode(text, address.NODE_PUB, PUBLIC_KEY_CHARACTERS, "the public key of a node")
    if not is_ledger_key(public_key):
        raise P2PError(f"the public key of a node is a point of ed25519's prime group, got {public_key.hex()}")
    return public_key


def format_snode(location: NodeLocation) -> str:
    """``snode:<stsds1…>@<ip>:<port>``; an IPv6 address stands in brackets."""
    ip = f"[{location.ip}]" if ":" in location.ip else location.ip
    return f"snode:{format_address(location.node)}@{ip}:{location.port}"


def parse_snode(text: str) -> NodeLocation:
    """The node in ``snode:<stsds1…>@<ip>:<port>``. Raises P2PError."""
    parts = _IS_SNODE(text) if len(text) <= MAX_SNODE_CHARACTERS else None
    if parts is None:
        raise P2PError(f"a node is written snode:<stsds1…>@<ip>:<port>, an IPv6 address in brackets, got {_shown(text)}")
    node, ip, port = parts.groups()
    return NodeLocation(parse_address(node), ip.strip("[]"), int(port))


def _decode(text: str, prefix: str, characters: int, what: str) -> bytes:
    if len(text) != characters or text != text.lower():
        raise P2PError(f"{what} is {prefix}1… of {characters} characters in lower case, got {_shown(text)}")
    try:
        return address.decode(text, prefix)
    except InvalidAddress as error:
        raise P2PError(f"{what} is {prefix}1…: {error.detail}") from None


def _shown(text: str) -> str:
    return ascii(text) if len(text) <= 80 else f"{text[:80]!a}…"
