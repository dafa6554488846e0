"""Queries of the bank."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from chain import coins
from chain.codec.registry import message_class
from chain.context import Context
from chain.crypto import address as bech32
from chain.errors import InvalidRequest, NotFound
from chain.module import Query
from chain.pagination import paginate
from chain.store.api import StateReader
from modules.bank import keys
from modules.bank.keeper import BankView, Metadata

SERVICE: Final = "/cosmos.bank.v1beta1.Query/"
MAX_DENOMS: Final = 1_000
_CoinMessage: Final = coins.CoinMessage


def _response(name: str) -> Any:
    return message_class(f"cosmos.bank.v1beta1.Query{name}Response")


def handlers(keeper: BankView, locked_coins: Any) -> Mapping[str, Query]:
    """The module's query handlers. ``locked_coins(ctx, state, address)`` is what vesting locks."""

    def balance(ctx: Context, state: StateReader, request: Any) -> Any:
        denom = _denom(request.denom)
        amount = keeper.balance(state, bech32.decode(request.address), denom)
        return _response("Balance")(balance=_CoinMessage(denom=denom, amount=str(amount)))

    def all_balances(ctx: Context, state: StateReader, request: Any) -> Any:
        def read(key: bytes, value: bytes) -> Any:
            metadata = keeper.metadata(state, key.decode()) if request.resolve_denom else None
            return _coin(key if metadata is None else metadata.display.encode(), value)

        found, page = paginate(state.store(keys.STORE), keys.balances_of(bech32.decode(request.address)), request.pagination, read)
        return _response("AllBalances")(balances=found, pagination=page)

    def spendable_balances(ctx: Context, state: StateReader, request: Any) -> Any:
        address = bech32.decode(request.address)
        locked = locked_coins(ctx, state, address)

        def read(key: bytes, value: bytes) -> Any:
            denom = key.decode()
            return _CoinMessage(denom=denom, amount=str(max(int(value) - coins.amount_of(locked, denom), 0)))

        found, page = paginate(state.store(keys.STORE), keys.balances_of(address), request.pagination, read)
        return _response("SpendableBalances")(balances=found, pagination=page)

    def spendable_by_denom(ctx: Context, state: StateReader, request: Any) -> Any:
        denom, address = _denom(request.denom), bech32.decode(request.address)
        amount = max(keeper.balance(state, address, denom) - coins.amount_of(locked_coins(ctx, state, address), denom), 0)
        return _response("SpendableBalanceByDenom")(balance=_CoinMessage(denom=denom, amount=str(amount)))

    def total_supply(ctx: Context, state: StateReader, request: Any) -> Any:
        found, page = paginate(state.store(keys.STORE), keys.SUPPLY, request.pagination, _coin)
        return _response("TotalSupply")(supply=found, pagination=page)

    def supply_of(ctx: Context, state: StateReader, request: Any) -> Any:
        denom = _denom(request.denom)
        return _response("SupplyOf")(amount=_CoinMessage(denom=denom, amount=str(keeper.supply(state, denom))))

    def params(ctx: Context, state: StateReader, request: Any) -> Any:
        return _response("Params")(params=keeper.params(state))

    def denom_metadata(ctx: Context, state: StateReader, request: Any) -> Any:
        metadata = keeper.metadata(state, _denom(request.denom))
        if metadata is None:
            raise NotFound(f"client metadata for denom {request.denom}")
        return _response("DenomMetadata")(metadata=metadata)

    def denom_metadata_by_query(ctx: Context, state: StateReader, request: Any) -> Any:
        return _response("DenomMetadataByQueryString")(metadata=denom_metadata(ctx, state, request).metadata)

    def denoms_metadata(ctx: Context, state: StateReader, request: Any) -> Any:
        found, page = paginate(state.store(keys.STORE), keys.METADATA, request.pagination, lambda _, value: Metadata.FromString(value))
        return _response("DenomsMetadata")(metadatas=found, pagination=page)

    def denom_owners(ctx: Context, state: StateReader, request: Any) -> Any:
        denom = _denom(request.denom)
        owner = message_class("cosmos.bank.v1beta1.DenomOwner")
        prefix = keys.holders_of(denom)

        def read(key: bytes, _: bytes) -> Any:
            address = key[1:]
            amount = keeper.balance(state, address, denom)
            return owner(address=bech32.encode(address), balance=_CoinMessage(denom=denom, amount=str(amount)))

        found, page = paginate(state.store(keys.STORE), prefix, request.pagination, read)
        name = "DenomOwnersByQuery" if type(request).DESCRIPTOR.name.startswith("QueryDenomOwnersByQuery") else "DenomOwners"
        return _response(name)(denom_owners=found, pagination=page)

    def send_enabled(ctx: Context, state: StateReader, request: Any) -> Any:
        entry = message_class("cosmos.bank.v1beta1.SendEnabled")
        if len(request.denoms) > MAX_DENOMS:
            raise InvalidRequest(f"at most {MAX_DENOMS} denoms may be named, got {len(request.denoms)}")
        if request.denoms:
            known = ((denom, keeper.send_enabled_entry(state, denom)) for denom in request.denoms)
            return _response("SendEnabled")(send_enabled=[entry(denom=denom, enabled=on) for denom, on in known if on is not None])
        found, page = paginate(
            state.store(keys.STORE), keys.SEND_ENABLED, request.pagination, lambda key, value: entry(denom=key.decode(), enabled=bool(value))
        )
        return _response("SendEnabled")(send_enabled=found, pagination=page)

    return {
        SERVICE + "Balance": balance,
        SERVICE + "AllBalances": all_balances,
        SERVICE + "SpendableBalances": spendable_balances,
        SERVICE + "SpendableBalanceByDenom": spendable_by_denom,
        SERVICE + "TotalSupply": total_supply,
        SERVICE + "SupplyOf": supply_of,
        SERVICE + "Params": params,
        SERVICE + "DenomMetadata": denom_metadata,
        SERVICE + "DenomMetadataByQueryString": denom_metadata_by_query,
        SERVICE + "DenomsMetadata": denoms_metadata,
        SERVICE + "DenomOwners": denom_owners,
        SERVICE + "DenomOwnersByQuery": denom_owners,
        SERVICE + "SendEnabled": send_enabled,
    }


def _coin(key: bytes, value: bytes) -> Any:
    return _CoinMessage(denom=key.decode(), amount=value.decode())


def _denom(text: str) -> str:
    if not coins.is_denom(text):
        raise InvalidRequest(f"invalid denom: {text[:128]}")
    return text
