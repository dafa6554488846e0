"""Making transactions: for the command line, tests and benches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from chain import coins
from chain.codec.canonical import encode
from chain.codec.registry import message_class, pack_any
from chain.coins import Coins
from chain.crypto.keys import PrivateKey, PublicKey, public_key_to_any
from chain.tx import signing
from chain.tx.decode import AuthInfo, TxBody, TxRaw, decode_tx

SignerInfo: Final = message_class("cosmos.tx.v1beta1.SignerInfo")


@dataclass(frozen=True, slots=True)
class Signer:
    """Who signs: key, sequence, mode; ``account_number`` is what the sign document names."""

    public_key: PublicKey
    sequence: int
    account_number: int = 0
    mode: int = signing.DIRECT


@dataclass(frozen=True, slots=True)
class Unsigned:
    """A transaction without signatures."""

    body: Any
    auth_info: Any
    signers: tuple[Signer, ...]

    def encode(self, signatures: Sequence[bytes]) -> bytes:
        """TxRaw bytes with these signatures."""
        raw: bytes = TxRaw(body_bytes=encode(self.body), auth_info_bytes=encode(self.auth_info), signatures=list(signatures)).SerializeToString()
        return raw

    def for_simulation(self) -> bytes:
        """TxRaw bytes with one empty signature per signer."""
        return self.encode([b""] * len(self.signers))

    def sign(self, keys: Sequence[PrivateKey], chain_id: str) -> bytes:
        """TxRaw bytes signed by one private key per signer, in the signers' order."""
        tx = decode_tx(self.for_simulation())
        signatures = []
        for key, signer in zip(keys, self.signers, strict=True):
            document = signing.sign_bytes(
                tx,
                signer.mode,
                chain_id=chain_id,
                account_number=signer.account_number,
                sequence=signer.sequence,
                key=signer.public_key,
                signer=signer.public_key.address,
            )
            signatures.append(key.sign(document))
        return self.encode(signatures)


def build_tx(
    messages: Sequence[Any],
    *,
    fee: Coins,
    gas_limit: int,
    signers: Sequence[Signer],
    memo: str = "",
    timeout_height: int = 0,
    payer: str = "",
    granter: str = "",
) -> Unsigned:
    """A transaction of ``messages``, to be signed by ``signers`` in order."""
    body = TxBody(messages=[pack_any(message) for message in messages], memo=memo, timeout_height=timeout_height)
    auth_info = AuthInfo()
    auth_info.fee.amount.extend(coins.to_messages(fee))
    auth_info.fee.gas_limit = gas_limit
    auth_info.fee.payer, auth_info.fee.granter = payer, granter
    for signer in signers:
        info = SignerInfo(public_key=public_key_to_any(signer.public_key), sequence=signer.sequence)
        info.mode_info.single.mode = signer.mode
        auth_info.signer_infos.append(info)
    return Unsigned(body, auth_info, tuple(signers))
