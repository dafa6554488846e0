"""Messages of pot: VolumeReport, Withdraw, FoundationDeposit, SlashingResourceNode, UpdateParams (stratos-chain.md 4.1, 4.4, 4.6)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from chain import coins
from chain.authority import GOV_ADDRESS, require_gov
from chain.codec.canonical import known
from chain.codec.registry import message_class
from chain.coins import Coins, parse_int
from chain.context import Context
from chain.crypto import address as bech32
from chain.crypto.bls import KEY_BYTES, SIGNATURE_BYTES
from chain.errors import AppError, InvalidAddress, InvalidCoins, wrapped
from chain.module import CheckStateless, MessageHandler
from chain.ozone import MAX_AMOUNT
from chain.store.api import StateWriter
from modules.pot import events
from modules.pot.errors import (
    BLSPubkeysInvalid,
    BLSSignatureInvalid,
    BLSTxDataInvalid,
    EmptyFromAddr,
    EmptyReporterAddr,
    EmptyReportReference,
    EmptyWalletVolumes,
    EpochNotPositive,
    EpochTooHigh,
    FoundationDepositAmountInvalid,
    FoundationDepositFailure,
    InvalidAmount,
    MissingTargetAddress,
    MissingWalletAddress,
    NegativeVolume,
    ReporterAddress,
    ReporterAddressOrOwner,
    ReporterOwnerAddr,
    TooManyWallets,
    WalletOrder,
    WithdrawAmountInvalid,
    WithdrawFailure,
)
from modules.pot.errors import InvalidAddress as PotInvalidAddress
from modules.pot.keeper import PotKeeper
from modules.pot.keys import MAX_EPOCH
from modules.pot.params import MAX_WALLETS_PER_REPORT, check, check_numbers
from modules.pot.records import PACKAGE
from modules.pot.reports import Report
from modules.pot.slashing import Slash

MAX_REFERENCE: Final = 128
"""Characters."""
DIGEST_BYTES: Final = 32
ADDRESS_BYTES: Final = 20
MAX_SELECTORS: Final = 4_096
MAX_APPROVERS: Final = 100
"""Pairs in one message."""
_VOLUME: Final = re.compile(r"0|[1-9][0-9]{0,38}", re.ASCII)


def handlers(keeper: PotKeeper) -> Mapping[str, MessageHandler]:
    """The module's message handlers over ``keeper``."""

    def volume_report(ctx: Context, state: StateWriter, message: Any) -> Any:
        keeper.report(ctx, state, _report(message))
        return _response("VolumeReport")

    def withdraw(ctx: Context, state: StateWriter, message: Any) -> Any:
        amount, wallet, target = _withdrawal(message)
        with wrapped(WithdrawFailure):
            keeper.withdraw(ctx, state, wallet, target, amount)
        events.withdrawn(ctx, coins.to_text(amount), message.wallet_address, message.target_address)
        return _response("Withdraw")

    def foundation_deposit(ctx: Context, state: StateWriter, message: Any) -> Any:
        amount, sender = _deposit(message)
        with wrapped(FoundationDepositFailure):
            keeper.deposit_to_foundation(ctx, state, sender, amount)
        events.foundation_deposit(ctx, coins.to_text(amount))
        return _response("FoundationDeposit")

    def slash(ctx: Context, state: StateWriter, message: Any) -> Any:
        content, approvers = _slash(message)
        if approvers:
            keeper.approve_slashing(ctx, state, content, approvers)
        else:
            keeper.slash_by_governance(ctx, state, content)
        return _response("SlashingResourceNode")

    def update_params(ctx: Context, state: StateWriter, message: Any) -> Any:
        require_gov(message.authority)
        check(message.params)
        keeper.change_params(state, known(message.params))
        return _response("UpdateParams")

    return {
        f"{PACKAGE}.MsgVolumeReport": MessageHandler(volume_report, _check_report),
        f"{PACKAGE}.MsgWithdraw": MessageHandler(withdraw, _checked(_withdrawal)),
        f"{PACKAGE}.MsgFoundationDeposit": MessageHandler(foundation_deposit, _checked(_deposit)),
        f"{PACKAGE}.MsgSlashingResourceNode": MessageHandler(slash, _checked(_slash)),
        f"{PACKAGE}.MsgUpdateParams": MessageHandler(update_params, lambda message: check_numbers(message.params)),
    }


def _response(name: str) -> Any:
    return message_class(f"{PACKAGE}.Msg{name}Response")()


def _checked(read: Callable[[Any], Any]) -> CheckStateless:
    def check_stateless(message: Any) -> None:
        read(message)

    return check_stateless


def _check_report(message: Any) -> None:
    """What a report says by itself, cheapest first. Raises by the original's codes, and EpochTooHigh (pot/103), TooManyWallets (104)."""
    if not message.reporter:
        raise EmptyReporterAddr
    if not message.wallet_volumes:
        raise EmptyWalletVolumes("an epoch without traffic lists the reporter's owner with volume 0")
    if len(message.wallet_volumes) > MAX_WALLETS_PER_REPORT:
        raise TooManyWallets(f"expected at most {MAX_WALLETS_PER_REPORT}, got {len(message.wallet_volumes)}")
    epoch = parse_int(message.epoch or "0")
    if epoch <= 0:
        raise EpochNotPositive(f"got {epoch}")
    if epoch > MAX_EPOCH:
        raise EpochTooHigh(f"got {epoch}")
    if not 0 < len(message.report_reference) <= MAX_REFERENCE:
        raise EmptyReportReference(f"expected 1 to {MAX_REFERENCE} characters, got {len(message.report_reference)}")
    if not message.reporter_owner:
        raise ReporterOwnerAddr("got none")
    info = message.BLS_signature
    if len(info.signature) != SIGNATURE_BYTES:
        raise BLSSignatureInvalid(f"expected {SIGNATURE_BYTES} bytes, got {len(info.signature)}")
    if len(info.txData) != DIGEST_BYTES:
        raise BLSTxDataInvalid(f"expected {DIGEST_BYTES} bytes, got {len(info.txData)}")
    if len(info.pub_keys) > MAX_SELECTORS:
        raise BLSPubkeysInvalid(f"expected at most {MAX_SELECTORS}, got {len(info.pub_keys)}")
    for key in info.pub_keys:
        if len(key) != KEY_BYTES:
            raise BLSPubkeysInvalid(f"expected {KEY_BYTES} bytes each, got {len(key)}")


def _report(message: Any) -> Report:
    """The report in a message. Raises ReporterAddress (pot/25), ReporterOwnerAddr (17), MissingWalletAddress (5), InvalidAddress (27), WalletOrder
    (105), NegativeVolume (18)."""
    _check_report(message)
    reporter = _decoded(message.reporter, ReporterAddress, bech32.NODE)
    owner = _decoded(message.reporter_owner, ReporterOwnerAddr)
    volumes = []
    previous = ""
    for one in message.wallet_volumes:
        text = one.wallet_address
        if not text:
            raise MissingWalletAddress
        wallet = _decoded(text, PotInvalidAddress)
        if len(wallet) != ADDRESS_BYTES or not text.islower():
            raise PotInvalidAddress(f"expected the lower-case address of an account of {ADDRESS_BYTES} bytes, got {text[:100]}")
        if text <= previous:
            raise WalletOrder(f"{text} comes after {previous}")
        previous = text
        volumes.append((wallet, _volume(one.volume)))
    if sum(noz for _, noz in volumes) > MAX_AMOUNT:
        raise NegativeVolume("expected volumes that add up to at most 2^127 - 1 noz")
    return Report(message, parse_int(message.epoch), reporter, owner, volumes)


def _volume(text: str) -> int:
    if _VOLUME.fullmatch(text or "0") is None or int(text or "0") > MAX_AMOUNT:
        raise NegativeVolume(f"expected a number of noz from 0 to 2^127 - 1, without zeros in front, got {text[:60]!r}")
    return int(text or "0")


def _withdrawal(message: Any) -> tuple[Coins, bytes, bytes]:
    amount = _amount(message.amount, WithdrawAmountInvalid)
    if not message.wallet_address:
        raise MissingWalletAddress
    if not message.target_address:
        raise MissingTargetAddress
    return amount, _decoded(message.wallet_address, PotInvalidAddress), _decoded(message.target_address, PotInvalidAddress)


def _deposit(message: Any) -> tuple[Coins, bytes]:
    amount = _amount(message.amount, FoundationDepositAmountInvalid)
    if not getattr(message, "from"):
        raise EmptyFromAddr
    return amount, _decoded(getattr(message, "from"), PotInvalidAddress)


def _slash(message: Any) -> tuple[Slash, list[tuple[bytes, bytes]]]:
    """What is to be slashed, and who approves it: nobody where governance decides."""
    if not message.network_address:
        raise MissingTargetAddress("expected the network address of a resource node")
    if not message.wallet_address:
        raise MissingWalletAddress
    node = _decoded(message.network_address, PotInvalidAddress, bech32.NODE)
    wallet = _decoded(message.wallet_address, PotInvalidAddress)
    try:
        noz = parse_int(message.slashing or "0")
    except InvalidCoins as error:
        raise InvalidAmount(error.detail) from None
    if not 0 <= noz <= MAX_AMOUNT:
        raise InvalidAmount("expected 0 to 2^127 - 1 noz")
    owners = [_decoded(text, ReporterOwnerAddr) for text in message.reporter_owner[: MAX_APPROVERS + 1]]
    content = Slash(node, wallet, noz, message.suspend)
    if owners == [GOV_ADDRESS] and not message.reporters:
        return content, []
    if not 0 < len(message.reporters) == len(message.reporter_owner) <= MAX_APPROVERS:
        raise ReporterAddressOrOwner(
            f"expected 1 to {MAX_APPROVERS} reporters, each with its owner, got {len(message.reporters)} and {len(message.reporter_owner)}"
        )
    reporters = [_decoded(text, ReporterAddress, bech32.NODE) for text in message.reporters]
    return content, list(zip(reporters, owners, strict=True))


def _amount(messages: Any, rule: type[AppError]) -> Coins:
    try:
        amount = coins.from_messages(messages)
    except AppError as error:
        raise rule(error.detail) from None
    if not amount:
        raise rule("expected a positive amount of wei, got none")
    return amount


def _decoded(text: str, rule: type[AppError], prefix: str = bech32.ACCOUNT) -> bytes:
    try:
        return bech32.decode(text, prefix)
    except InvalidAddress as error:
        raise rule(error.detail) from None
