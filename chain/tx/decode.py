"""Bytes to a transaction: canonical TxRaw (ADR-027), no unknown fields (ADR-020), every message unpacked, every signer named.

``decode_tx`` is total: any bytes give a ``Tx`` or an AppError with the SDK's code.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final, TypeAlias

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError

from chain import coins
from chain.codec.registry import extension, message_class, option_of, unpack_any
from chain.codec.unknown_fields import reject_unknown
from chain.coins import Coin, Coins
from chain.crypto import address
from chain.crypto.keys import MAX_MULTISIG_DEPTH, PublicKey, public_key_from_any
from chain.errors import InvalidRequest, NoSignatures, TxDecodeError, TxTooLarge
from chain.tx.limits import MAX_FEE_COINS, MAX_MESSAGES, MAX_SIGNATURES, MAX_TX_BYTES

TxRaw: Final = message_class("cosmos.tx.v1beta1.TxRaw")
TxBody: Final = message_class("cosmos.tx.v1beta1.TxBody")
AuthInfo: Final = message_class("cosmos.tx.v1beta1.AuthInfo")
_SIGNER: Final = extension("cosmos.msg.v1.signer")
_SCALAR: Final = extension("cosmos_proto.scalar")
_PREFIXES: Final = {"cosmos.ValidatorAddressString": address.VALIDATOR, "cosmos.ConsensusAddressString": address.CONSENSUS}

Verdict: TypeAlias = tuple[str, int, bytes]
"""What a signature was checked for: (chain id, account number, key)."""


@dataclass(slots=True)
class SignerInfo:
    """How one signer signs: key (None: the account's own), mode (``ModeInfo``), sequence."""

    public_key: PublicKey | None
    mode: Any
    sequence: int


@dataclass(slots=True)
class Tx:
    """A decoded transaction. ``messages`` are the concrete messages; ``signers`` their signers in order of first appearance."""

    raw: bytes
    hash: bytes
    body_bytes: bytes
    auth_info_bytes: bytes
    signatures: tuple[bytes, ...]
    body: Any
    auth_info: Any
    messages: tuple[Any, ...]
    message_signers: tuple[tuple[bytes, ...], ...]
    signers: tuple[bytes, ...]
    signer_infos: tuple[SignerInfo, ...]
    fee: Coins
    gas_limit: int
    payer: bytes | None
    granter: bytes | None
    has_non_critical: bool
    plan: Any = None
    """What a fast twin worked out about this transaction: None not tried yet, False not its kind."""
    held: dict[int, Verdict] = field(default_factory=dict)
    """Signatures that were checked and held, by signer index (``chain/tx/verdicts.py``)."""

    @property
    def memo(self) -> str:
        return str(self.body.memo)

    @property
    def timeout_height(self) -> int:
        return int(self.body.timeout_height)

    @property
    def first_sequence(self) -> int:
        """The sequence that the first signer signed with."""
        return self.signer_infos[0].sequence if self.signer_infos else 0

    @property
    def fee_payer(self) -> bytes:
        """Who pays: the payer named in the fee, else the first signer."""
        return self.payer or self.signers[0]


def decode_tx(raw: bytes, *, max_bytes: int = MAX_TX_BYTES) -> Tx:
    """The transaction in ``raw``. Raises TxDecodeError (sdk/2), TxTooLarge, InvalidRequest, InvalidAddress, InvalidPubKey, …"""
    if len(raw) > max_bytes:
        raise TxTooLarge(f"a transaction has at most {max_bytes} bytes, got {len(raw)}")
    _check_canonical(raw)
    tx_raw = _parse(TxRaw, raw, "tx")
    body = _parse(TxBody, tx_raw.body_bytes, "tx body")
    auth_info = _parse(AuthInfo, tx_raw.auth_info_bytes, "auth info")
    reject_unknown(tx_raw, allow_non_critical=False)
    has_non_critical = reject_unknown(body, allow_non_critical=True)
    reject_unknown(auth_info, allow_non_critical=False)
    if len(body.messages) > MAX_MESSAGES:
        raise InvalidRequest(f"a transaction has at most {MAX_MESSAGES} messages, got {len(body.messages)}")
    if len(tx_raw.signatures) > MAX_SIGNATURES or len(auth_info.signer_infos) > MAX_SIGNATURES:
        raise InvalidRequest(f"a transaction has at most {MAX_SIGNATURES} signatures, got {len(tx_raw.signatures)}")
    if not body.messages:
        raise InvalidRequest("must contain at least one message")
    messages = tuple(unpack_any(wrapped) for wrapped in body.messages)
    message_signers = tuple(message_signers_of(message) for message in messages)
    fee = auth_info.fee
    payer = address.decode(fee.payer) if fee.payer else None
    granter = address.decode(fee.granter) if fee.granter else None
    signers: dict[bytes, None] = {}
    for group in message_signers:
        for signer in group:
            signers[signer] = None
    if payer is not None:
        signers[payer] = None
    if not signers:
        raise NoSignatures("no message of the transaction has a signer")
    return Tx(
        raw,
        hashlib.sha256(raw).digest(),
        tx_raw.body_bytes,
        tx_raw.auth_info_bytes,
        tuple(tx_raw.signatures),
        body,
        auth_info,
        messages,
        message_signers,
        tuple(signers),
        tuple(_signer_info(info) for info in auth_info.signer_infos),
        _fee_coins(fee),
        fee.gas_limit,
        payer,
        granter,
        has_non_critical,
    )


def message_signers_of(message: Any) -> tuple[bytes, ...]:
    """Addresses that must sign ``message``, by its ``cosmos.msg.v1.signer`` option. Raises TxDecodeError, InvalidAddress."""
    reader = _signer_reader(message.DESCRIPTOR)
    if reader is None:
        raise TxDecodeError(f"/{message.DESCRIPTOR.full_name} is not a transaction message")
    return tuple(reader(message))


@cache
def _signer_reader(descriptor: Descriptor) -> Callable[[Any], list[bytes]] | None:
    names = option_of(descriptor, _SIGNER)
    if not names:
        return None
    readers = [_field_reader(descriptor, name) for name in names]

    def read(message: Any) -> list[bytes]:
        return [signer for one in readers for signer in one(message)]

    return read


def _field_reader(descriptor: Descriptor, name: str) -> Callable[[Any], list[bytes]]:
    field = descriptor.fields_by_name[name]
    if field.message_type is not None:
        inner = _signer_reader(field.message_type)
        assert inner is not None, f"{field.message_type.full_name} names no signer"
        if field.is_repeated:
            return lambda message: [signer for part in getattr(message, name) for signer in inner(part)]
        return lambda message: inner(getattr(message, name))
    prefix = _PREFIXES.get(option_of(field, _SCALAR) or "", address.ACCOUNT)
    if field.is_repeated:
        return lambda message: [address.decode(text, prefix) for text in getattr(message, name)]
    return lambda message: [address.decode(getattr(message, name), prefix)]


def _signer_info(info: Any) -> SignerInfo:
    key = public_key_from_any(info.public_key) if info.HasField("public_key") else None
    # Each level doubles what the events of signatures hold, and events come before any signature is checked.
    if _depth(info.mode_info) > MAX_MULTISIG_DEPTH:
        raise TxDecodeError(f"sign modes of multisigs nest deeper than {MAX_MULTISIG_DEPTH}")
    return SignerInfo(key, info.mode_info, info.sequence)


def _depth(mode: Any) -> int:
    """How many multisigs a sign mode goes through; ``reject_unknown`` has bounded it."""
    return 1 + max(map(_depth, mode.multi.mode_infos), default=0) if mode.WhichOneof("sum") == "multi" else 0


def _fee_coins(fee: Any) -> Coins:
    if len(fee.amount) > MAX_FEE_COINS:
        raise InvalidRequest(f"a fee has at most {MAX_FEE_COINS} coins, got {len(fee.amount)}")
    return tuple(Coin(coin.denom, coins.parse_wire_int(coin.amount)) for coin in fee.amount)


def _parse(cls: Any, raw: bytes, what: str) -> Any:
    try:
        return cls.FromString(raw)
    except DecodeError:
        raise TxDecodeError(f"the bytes of the {what} are not protobuf") from None


def _check_canonical(raw: bytes) -> None:
    """ADR-027: TxRaw has fields 1, 2, 3 in ascending order, 1 and 2 at most once, and only shortest varints."""
    at = previous = 0
    while at < len(raw):
        tag, at = _shortest_varint(raw, at)
        number, wire_type = tag >> 3, tag & 7
        if wire_type != 2:
            raise TxDecodeError(f"expected bytes in every field of TxRaw, field {number} has wire type {wire_type}")
        if number < previous or (number == previous and number in (1, 2)):
            raise TxDecodeError("fields of TxRaw must be in ascending order, and body and auth info must not repeat")
        previous = number
        size, at = _shortest_varint(raw, at)
        at += size
        if at > len(raw):
            raise TxDecodeError("the bytes of TxRaw end inside a field")


def _shortest_varint(raw: bytes, at: int) -> tuple[int, int]:
    value = 0
    for count in range(10):
        if at >= len(raw):
            raise TxDecodeError("the bytes of TxRaw end inside a number")
        byte = raw[at]
        at += 1
        value |= (byte & 0x7F) << 7 * count
        if byte < 0x80:
            if byte == 0 and count:
                raise TxDecodeError("a number of TxRaw is not a shortest varint")
            return value, at
    raise TxDecodeError("a number of TxRaw has more than 64 bits")
