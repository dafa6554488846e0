"""Queries of sds: files, what a payment would buy, the price and the supply of ozone (stratos-chain.md 3.4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from chain.codec.registry import message_class
from chain.coins import to_messages
from chain.context import Context
from chain.errors import InvalidRequest
from chain.module import Query
from chain.store.api import StateReader
from chain.tx.fees import parse_amounts
from modules.sds import pricing
from modules.sds.cid import check_cid
from modules.sds.errors import NoFileFound
from modules.sds.keeper import SdsKeeper
from modules.sds.messages import PACKAGE, paid_wei

SERVICE: Final = f"/{PACKAGE}.Query/"
MAX_AMOUNT_TEXT: Final = 256


def handlers(keeper: SdsKeeper) -> Mapping[str, Query]:
    """The module's query handlers."""

    def file_upload(ctx: Context, state: StateReader, request: Any) -> Any:
        """Raises NoFileFound (sds/8), EmptyFileHash (6), InvalidFileHash (7)."""
        check_cid(request.file_hash)
        info = keeper.file(state, request.file_hash)
        if info is None:
            raise NoFileFound(f"no meta node has reported {request.file_hash}")
        return message_class(f"{PACKAGE}.QueryFileUploadResponse")(file_info=info)

    def sim_prepay(ctx: Context, state: StateReader, request: Any) -> Any:
        """What ``1.5stos`` would buy. Raises what a prepay of it would, but for the sender's balance."""
        if len(request.amount) > MAX_AMOUNT_TEXT:
            raise InvalidRequest(f"expected an amount of at most {MAX_AMOUNT_TEXT} characters, as 1.5stos, got {len(request.amount)}")
        paid = paid_wei(to_messages(parse_amounts(request.amount)))
        noz = pricing.purchasable_noz(keeper.pool(state), paid)
        return message_class(f"{PACKAGE}.QuerySimPrepayResponse")(noz=str(noz))

    def noz_price(ctx: Context, state: StateReader, request: Any) -> Any:
        """wei per noz. Raises OzoneLimitNotEnough (sds/14) at Lt = 0."""
        return message_class(f"{PACKAGE}.QueryNozPriceResponse")(price=str(pricing.price(keeper.pool(state)).scaled))

    def noz_supply(ctx: Context, state: StateReader, request: Any) -> Any:
        """Lt, and all ozone there is."""
        pool = keeper.pool(state)
        return message_class(f"{PACKAGE}.QueryNozSupplyResponse")(remaining=str(pool.remaining_noz), total=str(pool.supply_noz))

    def params(ctx: Context, state: StateReader, request: Any) -> Any:
        return message_class(f"{PACKAGE}.QueryParamsResponse")(params=keeper.params(state))

    return {
        SERVICE + "Fileupload": file_upload,
        SERVICE + "SimPrepay": sim_prepay,
        SERVICE + "NozPrice": noz_price,
        SERVICE + "NozSupply": noz_supply,
        SERVICE + "Params": params,
    }
