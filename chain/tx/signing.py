"""What a signature covers in each sign mode, and whether the signatures of a transaction hold.

Modes: DIRECT, DIRECT_AUX and LEGACY_AMINO_JSON (reference stratos-chain.md 1.5); a multisig carries one mode per member.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from google.protobuf.message import DecodeError

from chain.codec import amino_json
from chain.codec.registry import message_class
from chain.coins import Coins
from chain.crypto.batch import Item
from chain.crypto.keys import EthSecp256k1PublicKey, MultisigPublicKey, PublicKey, Secp256k1PublicKey, public_key_to_any
from chain.errors import InvalidRequest, NotSupported, Unauthorized
from chain.tx.decode import Tx

DIRECT: Final = 1
DIRECT_AUX: Final = 3
LEGACY_AMINO_JSON: Final = 127

SignDoc: Final = message_class("cosmos.tx.v1beta1.SignDoc")
SignDocDirectAux: Final = message_class("cosmos.tx.v1beta1.SignDocDirectAux")
MultiSignature: Final = message_class("cosmos.crypto.multisig.v1beta1.MultiSignature")
_MAX_DEPTH: Final = 4


def sign_bytes(tx: Tx, mode: int, *, chain_id: str, account_number: int, sequence: int, key: PublicKey, signer: bytes) -> bytes:
    """The bytes that ``signer`` signs in ``mode``. Raises NotSupported for a mode the chain has not, InvalidRequest, Unauthorized."""
    if mode == DIRECT:
        return direct_bytes(tx.body_bytes, tx.auth_info_bytes, chain_id, account_number)
    if mode == LEGACY_AMINO_JSON:
        if tx.has_non_critical:
            raise InvalidRequest("SIGN_MODE_LEGACY_AMINO_JSON does not cover unknown fields, and this transaction has some")
        if tx.body.extension_options or tx.body.non_critical_extension_options:
            raise InvalidRequest("SIGN_MODE_LEGACY_AMINO_JSON does not support protobuf extension options")
        return amino_bytes(
            tx.messages,
            fee=tx.fee,
            gas_limit=tx.gas_limit,
            payer=tx.auth_info.fee.payer,
            granter=tx.auth_info.fee.granter,
            memo=tx.memo,
            timeout_height=tx.timeout_height,
            chain_id=chain_id,
            account_number=account_number,
            sequence=sequence,
        )
    if mode == DIRECT_AUX:
        if signer == tx.fee_payer:
            raise Unauthorized("the fee payer cannot sign with SIGN_MODE_DIRECT_AUX: it does not cover the fee")
        document = SignDocDirectAux(
            body_bytes=tx.body_bytes, public_key=public_key_to_any(key), chain_id=chain_id, account_number=account_number, sequence=sequence
        )
        raw: bytes = document.SerializeToString()
        return raw
    raise NotSupported(f"sign mode {mode}: this chain takes SIGN_MODE_DIRECT, SIGN_MODE_DIRECT_AUX and SIGN_MODE_LEGACY_AMINO_JSON")


def direct_bytes(body_bytes: bytes, auth_info_bytes: bytes, chain_id: str, account_number: int) -> bytes:
    """The SignDoc of SIGN_MODE_DIRECT."""
    document = SignDoc(body_bytes=body_bytes, auth_info_bytes=auth_info_bytes, chain_id=chain_id, account_number=account_number)
    raw: bytes = document.SerializeToString()
    return raw


def amino_bytes(
    messages: tuple[Any, ...],
    *,
    fee: Coins,
    gas_limit: int,
    payer: str,
    granter: str,
    memo: str,
    timeout_height: int,
    chain_id: str,
    account_number: int,
    sequence: int,
) -> bytes:
    """The StdSignDoc of SIGN_MODE_LEGACY_AMINO_JSON."""
    fee_json: dict[str, Any] = {"amount": [{"amount": str(amount), "denom": denom} for denom, amount in fee], "gas": str(gas_limit)}
    if payer:
        fee_json["payer"] = payer
    if granter:
        fee_json["granter"] = granter
    document: dict[str, Any] = {
        "account_number": str(account_number),
        "chain_id": chain_id,
        "fee": fee_json,
        "memo": memo,
        "msgs": [amino_json.message_json(message) for message in messages],
        "sequence": str(sequence),
    }
    if timeout_height:
        document["timeout_height"] = str(timeout_height)
    return amino_json.sign_bytes(document)


def single_item(tx: Tx, key: PublicKey, mode_info: Any, signature: bytes, document: Callable[[int], bytes]) -> Item | None:
    """For a plain secp256k1 or ethsecp256k1 signer: the check as an item for the batch; None for every other kind of signer."""
    if mode_info.WhichOneof("sum") != "single":
        return None
    if isinstance(key, EthSecp256k1PublicKey) and len(signature) == 65:
        signature = signature[:64]
    if isinstance(key, EthSecp256k1PublicKey | Secp256k1PublicKey):
        return Item(key.raw, key.digest(document(mode_info.single.mode)), signature)
    return None


def signature_holds(key: PublicKey, mode_info: Any, signature: bytes, document: Callable[[int], bytes], depth: int = 0) -> bool:
    """True if ``signature`` is ``key``'s over ``document(mode)``; a multisig is checked member by member. Raises what ``document`` raises."""
    kind = mode_info.WhichOneof("sum")
    if kind == "single":
        return not isinstance(key, MultisigPublicKey) and key.verify(document(mode_info.single.mode), signature)
    if kind != "multi" or not isinstance(key, MultisigPublicKey) or depth > _MAX_DEPTH:
        return False
    try:
        signatures = MultiSignature.FromString(signature).signatures
    except DecodeError:
        return False
    # The wrapping is signed by nobody: another spelling of it would be another transaction with the same effect.
    if MultiSignature(signatures=signatures).SerializeToString() != signature:
        return False
    signed = signed_members(mode_info.multi.bitarray, len(key.members))
    if signed is None or not len(signed) == len(signatures) == len(mode_info.multi.mode_infos) or len(signed) < key.threshold:
        return False
    return all(
        signature_holds(key.members[member], mode, one, document, depth + 1)
        for member, mode, one in zip(signed, mode_info.multi.mode_infos, signatures, strict=True)
    )


def signed_members(bitarray: Any, count: int) -> list[int] | None:
    """Indexes of the set bits of a CompactBitArray that has exactly ``count`` bits; None when it has another size."""
    extra, elems = bitarray.extra_bits_stored, bitarray.elems
    size = len(elems) * 8 if extra == 0 else (len(elems) - 1) * 8 + extra
    if size != count or extra > 7:
        return None
    return [at for at in range(count) if elems[at >> 3] >> (7 - at % 8) & 1]
