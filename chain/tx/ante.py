"""What every transaction passes before its messages run: limits, fee, keys, signatures, sequences.

The steps, their order, their store accesses (and so their gas) and their events are the SDK's ante chain; fees follow Stratos
(reference stratos-chain.md 1.6). What a step needs of accounts and coins is named by the Protocols below.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from google.protobuf.message import DecodeError

from chain.codec.registry import type_url
from chain.coins import Coins, to_text
from chain.context import Context, Mode
from chain.crypto import address as bech32
from chain.crypto.keys import (
    Ed25519PublicKey,
    EthSecp256k1PublicKey,
    MultisigPublicKey,
    PublicKey,
    Secp256k1PublicKey,
    Secp256r1PublicKey,
)
from chain.errors import (
    AppError,
    InsufficientFee,
    InsufficientFunds,
    InvalidCoins,
    InvalidGasLimit,
    InvalidPubKey,
    InvalidRequest,
    MemoTooLarge,
    NoSignatures,
    OutOfGas,
    PanicError,
    TooManySignatures,
    TxTimeoutHeight,
    Unauthorized,
    UnknownAddress,
    UnknownExtensionOptions,
    WrongSequence,
    with_detail,
)
from chain.gas import CIRCUIT_LOOKUP_COST
from chain.store.api import StateReader, StateWriter
from chain.tx import fees
from chain.tx.decode import Tx
from chain.tx.signing import MultiSignature, signed_members
from chain.tx.verdicts import Verdicts

FEE_COLLECTOR: Final = "fee_collector"
MAX_GAS_LIMIT: Final = (1 << 63) - 1
ETH_SIGNATURE_GAS: Final = 21_000
_SIMULATED_SIGNATURE_BYTES: Final = 106 + 6
_SIMULATED_KEY: Final = Secp256k1PublicKey(bytes.fromhex("02" + "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"))


class Account(Protocol):
    """An account as the ante chain sees it."""

    address: bytes

    @property
    def account_number(self) -> int: ...
    @property
    def sequence(self) -> int: ...
    @sequence.setter
    def sequence(self, value: int) -> None: ...
    @property
    def public_key(self) -> PublicKey | None: ...
    @public_key.setter
    def public_key(self, key: PublicKey) -> None: ...


class Accounts(Protocol):
    """Accounts and the parameters of transactions."""

    def params(self, ctx: Context, state: StateReader) -> Any: ...
    def get_account(self, ctx: Context, state: StateReader, address: bytes) -> Any: ...
    def set_account(self, ctx: Context, state: StateWriter, account: Any) -> None: ...


class FeeGrants(Protocol):
    """What one account lets another pay fees with."""

    def use(self, ctx: Context, state: StateWriter, granter: bytes, grantee: bytes, fee: Coins, type_urls: Sequence[str]) -> None: ...


class FeeBank(Protocol):
    """Takes the fee."""

    def send_to_module(self, ctx: Context, state: StateWriter, sender: bytes, module: str, amount: Coins) -> None: ...


@dataclass(frozen=True, slots=True)
class Ante:
    """The chain of steps with what they need."""

    accounts: Accounts
    bank: FeeBank
    grants: FeeGrants
    verdicts: Verdicts
    min_gas_prices: fees.GasPrices

    def run(self, ctx: Context, state: StateWriter, tx: Tx, max_block_gas: int) -> int:
        """Check ``tx`` and take its fee; returns its priority. Raises AppError; the caller undoes what was written."""
        if ctx.mode in (Mode.CHECK, Mode.RECHECK) and 0 < max_block_gas < tx.gas_limit:
            raise InvalidGasLimit(f"tx gas limit {tx.gas_limit} exceeds block max gas {max_block_gas}")
        for _ in tx.messages:
            ctx.gas.consume(CIRCUIT_LOOKUP_COST, "Has")
        if tx.body.extension_options:
            raise UnknownExtensionOptions(f"unknown extension option {tx.body.extension_options[0].type_url[:100]}")
        self._check_basic(ctx, tx)
        self._check_memo(ctx, state, tx)
        self._charge_size(ctx, state, tx)
        priority = self._take_fee(ctx, state, tx)
        self._set_keys(ctx, state, tx)
        self._check_signature_count(ctx, state, tx)
        self._charge_signatures(ctx, state, tx)
        self._check_signatures(ctx, state, tx)
        for signer in tx.signers:
            account = self._account(ctx, state, signer)
            account.sequence += 1
            self.accounts.set_account(ctx, state, account)
        return priority

    def _check_basic(self, ctx: Context, tx: Tx) -> None:
        if tx.gas_limit > MAX_GAS_LIMIT:
            raise InvalidRequest(f"invalid gas supplied; {tx.gas_limit} > {MAX_GAS_LIMIT}")
        if any(amount < 0 for _, amount in tx.fee):
            raise InsufficientFee(f"invalid fee provided: {to_text(tx.fee)}")
        if not tx.signatures:
            raise NoSignatures
        if len(tx.signatures) != len(tx.signers):
            raise Unauthorized(f"wrong number of signers; expected {len(tx.signers)}, got {len(tx.signatures)}")
        if tx.timeout_height and ctx.height > tx.timeout_height:
            raise TxTimeoutHeight(f"block height: {ctx.height}, timeout height: {tx.timeout_height}")

    def _check_memo(self, ctx: Context, state: StateReader, tx: Tx) -> None:
        length = len(tx.body.memo.encode())
        if length:
            limit = self.accounts.params(ctx, state).max_memo_characters
            if length > limit:
                raise MemoTooLarge(f"maximum number of characters is {limit} but received {length} characters")

    def _charge_size(self, ctx: Context, state: StateReader, tx: Tx) -> None:
        params = self.accounts.params(ctx, state)
        ctx.gas.consume(params.tx_size_cost_per_byte * len(tx.raw), "txSize")
        if ctx.mode is not Mode.SIMULATE:
            return
        for at, signer in enumerate(tx.signers):
            if at < len(tx.signatures) and tx.signatures[at]:
                continue
            account = self.accounts.get_account(ctx, state, signer)
            key = account.public_key if account is not None else None
            factor = params.tx_sig_limit if isinstance(key, MultisigPublicKey) else 1
            ctx.gas.consume(params.tx_size_cost_per_byte * _SIMULATED_SIGNATURE_BYTES * factor, "txSize")

    def _take_fee(self, ctx: Context, state: StateWriter, tx: Tx) -> int:
        real = ctx.mode is not Mode.SIMULATE
        if real and ctx.height > 0 and tx.gas_limit == 0:
            raise InvalidGasLimit("must provide positive gas")
        try:
            fee = fees.to_base(tx.fee)
        except InvalidCoins as error:
            raise InsufficientFee(f"invalid fee amount: {error.detail}") from None
        if ctx.mode in (Mode.CHECK, Mode.RECHECK):
            fees.require_minimum(fee, tx.gas_limit, self.min_gas_prices)
        source = tx.granter or tx.fee_payer
        if source != tx.fee_payer:
            self._use_grant(ctx, state, tx, source, fee)
        if self.accounts.get_account(ctx, state, source) is None:
            raise UnknownAddress(f"fee payer address: {bech32.encode(source)} does not exist")
        if fee:
            try:
                self.bank.send_to_module(ctx, state, source, FEE_COLLECTOR, fee)
            except InsufficientFunds as error:
                raise InsufficientFunds(str(error)) from None  # clients know this text with the reason twice
        ctx.events.emit("tx", ("fee", to_text(fee)), ("fee_payer", bech32.encode(source)))
        return fees.priority_of(fee, tx.gas_limit)

    def _use_grant(self, ctx: Context, state: StateWriter, tx: Tx, granter: bytes, fee: Coins) -> None:
        try:
            self.grants.use(ctx, state, granter, tx.fee_payer, fee, [type_url(message) for message in tx.messages])
        except (OutOfGas, PanicError):
            raise
        except AppError as error:
            told = f"{bech32.encode(granter)} does not allow to pay fees for {bech32.encode(tx.fee_payer)}: {error.detail}"
            raise with_detail(error, told) from error

    def _set_keys(self, ctx: Context, state: StateWriter, tx: Tx) -> None:
        simulate = ctx.mode is Mode.SIMULATE
        for signer, info in zip(tx.signers, tx.signer_infos, strict=False):
            key = info.public_key
            if key is None:
                if not simulate:
                    continue
                key = _SIMULATED_KEY
            if not simulate and key.address != signer:
                raise InvalidPubKey(f"pubKey does not match signer address {bech32.encode(signer)} with signer index: {tx.signers.index(signer)}")
            account = self._account(ctx, state, signer)
            if account.public_key is None:
                account.public_key = key
                self.accounts.set_account(ctx, state, account)
        for signer, info, signature in zip(tx.signers, tx.signer_infos, tx.signatures, strict=False):
            ctx.events.emit("tx", ("acc_seq", f"{bech32.encode(signer)}/{info.sequence}"))
            for one in _single_signatures(info.mode, signature):
                ctx.events.emit("tx", ("signature", base64.b64encode(one).decode()))

    def _check_signature_count(self, ctx: Context, state: StateReader, tx: Tx) -> None:
        limit = self.accounts.params(ctx, state).tx_sig_limit
        count = sum(_count_keys(info.public_key) for info in tx.signer_infos if info.public_key is not None)
        if count > limit:
            raise TooManySignatures(f"signatures: {count}, limit: {limit}")

    def _charge_signatures(self, ctx: Context, state: StateReader, tx: Tx) -> None:
        params = self.accounts.params(ctx, state)
        for signer, info in zip(tx.signers, tx.signer_infos, strict=False):
            account = self._account(ctx, state, signer)
            key = account.public_key
            if key is None:
                key = info.public_key or _SIMULATED_KEY
            _charge_key(ctx, params, key, info.mode)

    def _check_signatures(self, ctx: Context, state: StateReader, tx: Tx) -> None:
        if len(tx.signer_infos) != len(tx.signers):
            raise Unauthorized(f"invalid number of signer;  expected: {len(tx.signers)}, got {len(tx.signer_infos)}")
        for at, (signer, info) in enumerate(zip(tx.signers, tx.signer_infos, strict=True)):
            account = self._account(ctx, state, signer)
            key = account.public_key
            if key is None and ctx.mode is not Mode.SIMULATE:
                raise InvalidPubKey("pubkey on account is not set")
            if info.sequence != account.sequence:
                raise WrongSequence(f"account sequence mismatch, expected {account.sequence}, got {info.sequence}")
            if ctx.mode in (Mode.SIMULATE, Mode.RECHECK) or key is None:
                continue
            number = account.account_number if ctx.height > 0 and ctx.mode is not Mode.GENESIS else 0
            if not self.verdicts.signature_holds(tx, at, key, ctx.chain_id, number):
                raise Unauthorized(
                    f"signature verification failed; please verify account number ({number}), sequence ({account.sequence}) and chain-id ({ctx.chain_id})"
                )

    def _account(self, ctx: Context, state: StateReader, address: bytes) -> Any:
        account = self.accounts.get_account(ctx, state, address)
        if account is None:
            raise UnknownAddress(f"account {bech32.encode(address)} does not exist")
        return account


def _single_signatures(mode: Any, signature: bytes) -> Sequence[bytes]:
    """The signature, or for a multisig its parts (a nested one's, too) followed by one of all these, as the SDK's events list them."""
    if mode.WhichOneof("sum") != "multi":
        return (signature,)
    try:
        members = MultiSignature.FromString(signature).signatures
    except DecodeError:
        return (signature,)
    parts = [part for inner, one in zip(mode.multi.mode_infos, members, strict=False) for part in _single_signatures(inner, one)]
    return (*parts, MultiSignature(signatures=parts).SerializeToString())


def _count_keys(key: PublicKey) -> int:
    return sum(_count_keys(member) for member in key.members) if isinstance(key, MultisigPublicKey) else 1


def _charge_key(ctx: Context, params: Any, key: PublicKey, mode: Any) -> None:
    match key:
        case EthSecp256k1PublicKey():
            ctx.gas.consume(ETH_SIGNATURE_GAS, "ante verify: eth_secp256k1")
        case Secp256k1PublicKey():
            ctx.gas.consume(params.sig_verify_cost_secp256k1, "ante verify: secp256k1")
        case Secp256r1PublicKey():
            ctx.gas.consume(params.sig_verify_cost_secp256k1 // 2, "ante verify: secp256r1")
        case MultisigPublicKey():
            if mode.WhichOneof("sum") != "multi":
                return
            signed = signed_members(mode.multi.bitarray, len(key.members))
            if signed is None:
                raise Unauthorized(f"the multisig's bit array does not have one bit for each of {len(key.members)} members")
            for member, inner in zip(signed, mode.multi.mode_infos, strict=False):
                _charge_key(ctx, params, key.members[member], inner)
        case Ed25519PublicKey():
            ctx.gas.consume(params.sig_verify_cost_ed25519, "ante verify: ed25519")
            raise InvalidPubKey("ED25519 public keys are unsupported")
