"""Messages of sds: FileUpload, Prepay, UpdateParams (stratos-chain.md 3.1 to 3.3)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from chain.authority import require_gov
from chain.codec.canonical import known
from chain.codec.registry import message_class
from chain.coins import from_messages
from chain.context import Context
from chain.crypto import address as bech32
from chain.errors import AppError, InvalidCoins
from chain.module import MessageHandler
from chain.ozone import bounded
from chain.store.api import StateWriter
from chain.tx.fees import BASE_DENOM, UNITS, to_base
from modules.sds import events
from modules.sds.cid import check_cid
from modules.sds.errors import (
    EmptyReporters,
    EmptyUploaderAddr,
    InvalidBeneficiaryAddr,
    InvalidDenom,
    InvalidSenderAddr,
    ReporterAddressOrOwner,
)
from modules.sds.keeper import SdsKeeper
from modules.sds.params import check_params

PACKAGE: Final = "stratos.sds.v1"


def paid_wei(amount: Iterable[Any]) -> int:
    """wei of Coins in wei, gwei and stos. Raises InvalidDenom (sds/9) for other coins, InvalidCoins (sdk/10) for nothing at all and for coins that are
    not sorted, unique and positive, InvalidRequest (sdk/18) above 2^127 - 1."""
    coins = list(amount)
    unknown = next((coin.denom for coin in coins if coin.denom not in UNITS), None)
    if unknown is not None:
        raise InvalidDenom(f"expected {', '.join(UNITS)}, got {unknown[:128]!r}")
    if not coins:
        raise InvalidCoins("expected a positive amount of wei, gwei or stos, got none")
    return bounded(sum(coin.amount for coin in to_base(from_messages(coins))), f"a payment in {BASE_DENOM}")


def handlers(keeper: SdsKeeper) -> Mapping[str, MessageHandler]:
    """The module's message handlers over ``keeper``."""
    responses = {name: message_class(f"{PACKAGE}.{name}Response") for name in ("MsgFileUpload", "MsgPrepay", "MsgUpdateParams")}

    def check_file_upload(message: Any) -> None:
        check_cid(message.file_hash)
        _address(getattr(message, "from"), InvalidSenderAddr)
        if not message.reporter:
            raise EmptyReporters("expected the network address of a meta node")
        _address(message.reporter, ReporterAddressOrOwner, bech32.NODE)
        if not message.uploader:
            raise EmptyUploaderAddr("expected the address of who uploaded the file")
        bech32.decode(message.uploader)

    def file_upload(ctx: Context, state: StateWriter, message: Any) -> Any:
        owner, uploader = bech32.decode(getattr(message, "from")), bech32.decode(message.uploader)
        reporter = bech32.decode(message.reporter, bech32.NODE)
        keeper.record_file(ctx, state, message.file_hash, owner, reporter, uploader)
        events.uploaded(ctx, bech32.encode(owner), bech32.encode(reporter, bech32.NODE), bech32.encode(uploader), message.file_hash)
        return responses["MsgFileUpload"]()

    def check_prepay(message: Any) -> None:
        _address(message.sender, InvalidSenderAddr)
        _address(message.beneficiary, InvalidBeneficiaryAddr)
        paid_wei(message.amount)

    def prepay(ctx: Context, state: StateWriter, message: Any) -> Any:
        sender, beneficiary = bech32.decode(message.sender), bech32.decode(message.beneficiary)
        paid = paid_wei(message.amount)
        noz = keeper.prepay(ctx, state, sender, paid)
        events.prepaid(ctx, bech32.encode(sender), bech32.encode(beneficiary), paid, noz)
        return responses["MsgPrepay"]()

    def update_params(ctx: Context, state: StateWriter, message: Any) -> Any:
        require_gov(message.authority)
        check_params(message.params)
        keeper.set_params(state, known(message.params))
        return responses["MsgUpdateParams"]()

    return {
        f"{PACKAGE}.MsgFileUpload": MessageHandler(file_upload, check_file_upload),
        f"{PACKAGE}.MsgPrepay": MessageHandler(prepay, check_prepay),
        f"{PACKAGE}.MsgUpdateParams": MessageHandler(update_params),
    }


def _address(text: str, error: type[AppError], prefix: str = bech32.ACCOUNT) -> None:
    """Raise ``error`` unless ``text`` is a bech32 address with ``prefix``."""
    try:
        bech32.decode(text, prefix)
    except AppError as bad:
        raise error(bad.detail) from None
