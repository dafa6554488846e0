"""Transactions that must be refused, each with the codespace and code of the SDK: built for our chain here, for simd in tests/interop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from chain.codec.canonical import encode
from chain.codec.registry import message_class
from chain.coins import Coin, Coins, to_messages
from chain.crypto import address as bech32
from chain.crypto.keys import PrivateKey, public_key_to_any
from chain.tx.decode import AuthInfo, TxBody, TxRaw

GAS = 200_000
_MsgSend = "/cosmos.bank.v1beta1.MsgSend"


@dataclass(frozen=True)
class Payer:
    """Who sends, on which chain: what a case is built from. ``fee`` is what the chain asks for."""

    key: PrivateKey
    sequence: int
    number: int
    chain_id: str
    recipient: str
    denom: str
    fee: Coins
    prefix: str = bech32.ACCOUNT

    @property
    def address(self) -> str:
        return bech32.encode(self.key.public_key.address, self.prefix)

    def build(
        self,
        *,
        messages: list[Any] | None = None,
        recipient: str | None = None,
        amount: str = "5",
        gas: int = GAS,
        fee: Coins | None = None,
        sequence: int | None = None,
        chain_id: str | None = None,
        number: int | None = None,
        body_tail: bytes = b"",
        auth_tail: bytes = b"",
        body: dict[str, Any] | None = None,
        tail: bytes = b"",
        spoil: bool = False,
        sign_with: PrivateKey | None = None,
        fee_amount: str | None = None,
    ) -> bytes:
        """A signed MsgSend, changed where a case says so; tails are appended to the parts before they are signed, ``tail`` after."""
        if messages is None:
            message = message_class("cosmos.bank.v1beta1.MsgSend")(
                from_address=self.address, to_address=self.recipient if recipient is None else recipient
            )
            message.amount.add(denom=self.denom, amount=amount)
            messages = [(_MsgSend, encode(message))]
        tx_body = TxBody(**(body or {}))
        for url, value in messages:
            tx_body.messages.add(type_url=url, value=value)
        info = AuthInfo()
        info.fee.amount.extend(to_messages(self.fee if fee is None else fee))
        if fee_amount is not None:
            info.fee.amount[0].amount = fee_amount
        info.fee.gas_limit = gas
        signer = info.signer_infos.add(public_key=public_key_to_any(self.key.public_key), sequence=self.sequence if sequence is None else sequence)
        signer.mode_info.single.mode = 1
        body_bytes, auth_bytes = encode(tx_body) + body_tail, encode(info) + auth_tail
        document = message_class("cosmos.tx.v1beta1.SignDoc")(
            body_bytes=body_bytes,
            auth_info_bytes=auth_bytes,
            chain_id=self.chain_id if chain_id is None else chain_id,
            account_number=self.number if number is None else number,
        )
        signature = (sign_with or self.key).sign(document.SerializeToString())
        if spoil:
            signature = signature[:40] + bytes([signature[40] ^ 1]) + signature[41:]
        raw: bytes = TxRaw(body_bytes=body_bytes, auth_info_bytes=auth_bytes, signatures=[signature]).SerializeToString()
        return raw + tail


def _nested(payer: Payer, depth: int) -> bytes:
    """A MsgExec in a MsgExec …, ``depth`` deep."""
    inner = message_class("cosmos.bank.v1beta1.MsgSend")(from_address=payer.address, to_address=payer.recipient)
    url, value = _MsgSend, encode(inner)
    for _ in range(depth):
        wrapped = _field(1, _field(1, url.encode()) + _field(2, value))
        value = _field(1, payer.address.encode()) + wrapped.replace(b"\x0a", b"\x12", 1)
        url = "/cosmos.authz.v1beta1.MsgExec"
    return payer.build(messages=[(url, value)])


def _field(number: int, raw: bytes) -> bytes:
    size, out = len(raw), bytearray([number << 3 | 2])
    while size >= 0x80:
        out.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes(out) + bytes([size]) + raw


def _groups(payer: Payer, depth: int) -> bytes:
    """Unknown groups within groups, ``depth`` deep, in the body."""
    return payer.build(body_tail=b"\x83\x40" * depth + b"\x84\x40" * depth)


def _send(payer: Payer, tail: bytes) -> list[Any]:
    message = message_class("cosmos.bank.v1beta1.MsgSend")(from_address=payer.address, to_address=payer.recipient)
    message.amount.add(denom=payer.denom, amount="5")
    return [(_MsgSend, encode(message) + tail)]


Build = Callable[[Payer], bytes]
CASES: dict[str, tuple[Build, str, int]] = {
    "no bytes": (lambda payer: b"", "sdk", 18),
    "undecodable bytes": (lambda payer: b"\xff" * 40, "sdk", 2),
    "cut short": (lambda payer: payer.build()[:-1], "sdk", 2),
    "trailing bytes": (lambda payer: payer.build(tail=b"\x00"), "sdk", 2),
    "a field after the signatures": (lambda payer: payer.build(tail=b"\x22\x01x"), "sdk", 2),
    "fields out of order": (lambda payer: payer.build(tail=b"\x0a\x00"), "sdk", 2),
    "a length that is not shortest": (lambda payer: payer.build() + b"\x1a\x80\x00", "sdk", 2),
    "a field of another wire type": (lambda payer: payer.build(tail=b"\x18\x01"), "sdk", 2),
    "an unknown field of the body": (lambda payer: payer.build(body_tail=b"\x7a\x01x"), "sdk", 2),
    "an unknown field of the auth info": (lambda payer: payer.build(auth_tail=b"\x7a\x01x"), "sdk", 2),
    "an unknown non-critical field of the auth info": (lambda payer: payer.build(auth_tail=b"\x82\x40\x01x"), "sdk", 2),
    "an unknown field of a message": (lambda payer: payer.build(messages=_send(payer, b"\x7a\x01x")), "sdk", 2),
    "an unknown message": (lambda payer: payer.build(messages=[("/cosmos.nothing.v1.MsgNothing", b"")]), "sdk", 2),
    "a message type that is none": (lambda payer: payer.build(messages=[("/cosmos.base.v1beta1.Coin", b"")]), "sdk", 2),
    "no messages": (lambda payer: payer.build(messages=[]), "sdk", 18),
    "nested 1,000 deep": (lambda payer: _nested(payer, 1000), "sdk", 2),
    "groups 1,000 deep": (lambda payer: _groups(payer, 1000), "sdk", 2),
    "a critical extension option": (lambda payer: payer.build(body={"extension_options": [{"type_url": _MsgSend}]}), "sdk", 31),
    "a wrong signature": (lambda payer: payer.build(spoil=True), "sdk", 4),
    "another's signature": (lambda payer: payer.build(sign_with=PrivateKey((77).to_bytes(32, "big"), "secp256k1")), "sdk", 4),
    "a wrong chain id": (lambda payer: payer.build(chain_id="other-1"), "sdk", 4),
    "a wrong account number": (lambda payer: payer.build(number=payer.number + 50), "sdk", 4),
    "a sequence too high": (lambda payer: payer.build(sequence=payer.sequence + 9), "sdk", 32),
    "no fee": (lambda payer: payer.build(fee=()), "sdk", 13),
    "a fee of another denom": (lambda payer: payer.build(fee=(Coin("nothing", 10**16),)), "sdk", 13),
    "a negative fee": (lambda payer: payer.build(fee_amount="-5"), "sdk", 13),
    "no gas": (lambda payer: payer.build(gas=0), "sdk", 11),
    "too little gas": (lambda payer: payer.build(gas=1000), "sdk", 11),
    "gas beyond 63 bits": (lambda payer: payer.build(gas=1 << 63), "sdk", 18),
    "a memo too long": (lambda payer: payer.build(body={"memo": "x" * 257}), "sdk", 12),
    "timed out": (lambda payer: payer.build(body={"timeout_height": 1}), "sdk", 30),
    "a negative amount": (lambda payer: payer.build(amount="-5"), "sdk", 10),
    "an amount of zero": (lambda payer: payer.build(amount="0"), "sdk", 10),
    "an amount of 300 digits": (lambda payer: payer.build(amount="9" * 300), "sdk", 2),
    "an amount with a fraction": (lambda payer: payer.build(amount="1.5"), "sdk", 2),
    "a hexadecimal amount": (lambda payer: payer.build(amount="0x10"), "sdk", 2),
    "an amount with a zero in front": (lambda payer: payer.build(amount="010"), "sdk", 2),
    "a fee of 300 digits": (lambda payer: payer.build(fee_amount="9" * 300), "sdk", 2),
    "no amount": (lambda payer: payer.build(amount=""), "sdk", 10),
    "a recipient that is no bech32": (lambda payer: payer.build(recipient=payer.recipient[:-1] + "b"), "sdk", 7),
    "a recipient of another chain": (lambda payer: payer.build(recipient="osmo1qqqsyqcyq5rqwzqfpg9scrgwpugpzysnrujsuw"), "sdk", 7),
    "more than there is": (lambda payer: payer.build(amount=str(10**40)), "sdk", 5),
}
"""name → (how it is built, codespace, code)."""
