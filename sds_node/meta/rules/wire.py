"""Operations as bytes: how one is signed and opened, and what the parts of one look like. Every list, size and number is bounded here.

    SignedOperation {body, signature}        body = canonical Operation; ed25519 by the meta node's ledger key over domain ‖ 0x00 ‖ SHA-256(body)
    Observe {observation, signatures}        the same over the canonical Observation, by a quorum
    WalletDocument {body, key, signature}    canonical WalletOrder; the wallet's key over keccak(domain ‖ 0x00 ‖ body)

Nothing here raises anything but Refused for hostile bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, Final

import nacl.signing
from google.protobuf.message import DecodeError

from chain.codec.canonical import encode, known
from chain.codec.registry import message_class
from modules.settlement.documents import to_sign
from modules.settlement.leaves import PREFIX_BYTES, SERIAL_BYTES, serial_prefix
from sds_node.meta.ledger.schema import MAX_INT63
from sds_node.meta.rules.refusals import BAD_FORM, need, refuse
from sds_node.meta.rules.tables import ADDRESS_BYTES, ID_BYTES

PACKAGE: Final = "stratos.storage.v1"
SignedOperation: Final = message_class(f"{PACKAGE}.SignedOperation")
Operation: Final = message_class(f"{PACKAGE}.Operation")
Observation: Final = message_class(f"{PACKAGE}.Observation")
WalletOrder: Final = message_class(f"{PACKAGE}.WalletOrder")

OPERATION_DOMAIN: Final = b"stratos/ledger-operation/v1"
OBSERVATION_DOMAIN: Final = b"stratos/ledger-observation/v1"
ORDER_DOMAIN: Final = b"stratos/wallet-order/v1"

MAX_METAS: Final = 100
MAX_SIGNATURES: Final = 100
MAX_EVENTS: Final = 5_000
MAX_LINES: Final = 8_000
MAX_OBJECTS: Final = 256
MAX_SEGMENTS: Final = 1_000
MAX_DEBITS: Final = 5_000
MAX_REPAIR_DEBITS: Final = 2_000
MAX_CREDITS: Final = 5_000
MAX_LEASES: Final = 1_000
MAX_RESULTS: Final = 200
MAX_RELEASED_SHARES: Final = 2_000
"""What is settled of each goes into the log (releases.py), and has to fit a result there."""
MAX_STATUSES: Final = 2_000
MAX_MOVES: Final = 500
MAX_FILES: Final = 100
MAX_AMOUNT: Final = (1 << 127) - 1
MAX_SECONDS: Final = 1 << 40
MAX_U32: Final = (1 << 32) - 1
MAX_SEGMENT: Final = (1 << 48) - 1
_OWN_SERIALS: Final = 1 << 8 * (SERIAL_BYTES - PREFIX_BYTES)
"""So many serials begin alike."""


def sign_operation(operation: Any, key: nacl.signing.SigningKey) -> bytes:
    """The bytes that a meta node submits."""
    body = encode(known(operation))
    return encode(SignedOperation(body=body, signature=bytes(key.sign(to_sign(OPERATION_DOMAIN, body)).signature)))


def sign_observation(observation: bytes, key: nacl.signing.SigningKey) -> bytes:
    """A meta node's signature (64 bytes) on the canonical bytes of an Observation."""
    return bytes(key.sign(to_sign(OBSERVATION_DOMAIN, observation)).signature)


def opened(kind: Any, raw: bytes) -> Any:
    """The message of that kind. Refuses bytes that are not its canonical form."""
    try:
        message = kind.FromString(raw)
    except DecodeError:
        refuse(BAD_FORM, f"expected a {kind.DESCRIPTOR.name}, got {len(raw)} bytes that are none")
    need(
        encode(known(message)) == raw,
        BAD_FORM,
        f"expected a {kind.DESCRIPTOR.name} in its canonical form, got other bytes of the same or unknown parts",
    )
    return message


def open_operation(raw: bytes) -> tuple[Any, bytes, bytes]:
    """(operation, its body, the signature) of what was submitted. The signature is not checked."""
    signed = opened(SignedOperation, raw)
    return opened(Operation, signed.body), signed.body, signed.signature


# --- parts ------------------------------------------------------------------------------------------------------------


def sized(value: bytes, size_bytes: int, what: str) -> bytes:
    """A value of exactly so many bytes."""
    need(len(value) == size_bytes, BAD_FORM, f"{what}: expected {size_bytes} bytes, got {len(value)}")
    return value


def address(value: bytes, what: str) -> bytes:
    """The 20 bytes of an account or a node."""
    return sized(value, ADDRESS_BYTES, what)


def serial_of(value: bytes, meta_node: bytes, count: int, what: str) -> bytes:
    """The first of ``count`` serials that follow one another, all of them the meta node's own."""
    sized(value, SERIAL_BYTES, what)
    prefix, first = serial_prefix(meta_node), int.from_bytes(value[PREFIX_BYTES:], "big")
    need(value.startswith(prefix), BAD_FORM, f"{what}: expected a serial of the sender, which begin with {prefix.hex()}, got {value.hex()}")
    need(first + count <= _OWN_SERIALS, BAD_FORM, f"{what}: expected room for {count} serials of the sender, got {value.hex()}")
    return value


def identity(value: bytes, what: str) -> bytes:
    """32 bytes: an id, a root, a hash, an ed25519 key."""
    return sized(value, ID_BYTES, what)


def at_most(value: bytes, most_bytes: int, what: str) -> bytes:
    """A value of at most so many bytes."""
    need(len(value) <= most_bytes, BAD_FORM, f"{what}: expected at most {most_bytes} bytes, got {len(value)}")
    return value


def whole(value: int, least: int, most: int, what: str) -> int:
    """A number within bounds."""
    need(least <= value <= most, BAD_FORM, f"{what}: expected a number from {least} to {most}, got {value}")
    return value


def count(value: int, what: str) -> int:
    """A number from 0 to 2^63 - 1."""
    return whole(value, 0, MAX_INT63, what)


def seconds(value: int, what: str) -> int:
    """A time in unix seconds."""
    return whole(value, 0, MAX_SECONDS, what)


def amount(text: str, what: str) -> int:
    """A decimal amount from 0 to 2^127 - 1 in its one spelling; empty is 0."""
    if not text:
        return 0
    fits = len(text) <= 39 and text.isascii() and text.isdigit() and (text[0] != "0")
    value = int(text) if fits else -1
    need(
        0 <= value <= MAX_AMOUNT,
        BAD_FORM,
        f"{what}: expected a whole number from 1 to 2^127 - 1 without leading zeros, or nothing, got {text[:50]!a}",
    )
    return value


def printable(text: str, most: int, what: str) -> str:
    """Printable ASCII of bounded length."""
    fits = len(text) <= most and all(" " <= one <= "~" for one in text)
    need(fits, BAD_FORM, f"{what}: expected at most {most} printable ASCII characters, got {text[:60]!a}")
    return text


def listed(values: Sequence[Any], most: int, what: str, least: int = 1) -> Sequence[Any]:
    """A list of bounded length."""
    need(least <= len(values) <= most, BAD_FORM, f"{what}: expected {least} to {most} of them, got {len(values)}")
    return values


def ascending(keys: Iterable[Any], what: str) -> None:
    """Keys in order, each once: one spelling, and no double."""
    need(all(left < right for left, right in pairwise(keys)), BAD_FORM, f"{what}: expected ascending order, each once")


def fund_of(value: int, what: str) -> int:
    """1 (paid) or 2 (promo)."""
    return whole(value, 1, 2, f"{what}: fund")
