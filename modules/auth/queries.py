"""Queries of auth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from chain.codec.registry import Any_, message_class, pack_any
from chain.context import Context
from chain.crypto import address as bech32
from chain.errors import InvalidRequest, NotFound
from chain.module import Query
from chain.pagination import paginate
from chain.store.api import StateReader
from modules.auth import keys
from modules.auth.keeper import Account, AuthKeeper

SERVICE: Final = "/cosmos.auth.v1beta1.Query/"


def _response(name: str) -> Any:
    return message_class(f"cosmos.auth.v1beta1.{name}Response")


def handlers(keeper: AuthKeeper) -> Mapping[str, Query]:
    """The module's query handlers."""

    def found(ctx: Context, state: StateReader, text: str) -> Account:
        if not text:
            raise InvalidRequest("address cannot be empty")
        account = keeper.get_account(ctx, state, bech32.decode(text))
        if account is None:
            raise NotFound(f"account {text} not found")
        return account

    def account(ctx: Context, state: StateReader, request: Any) -> Any:
        return _response("QueryAccount")(account=pack_any(found(ctx, state, request.address).message))

    def account_info(ctx: Context, state: StateReader, request: Any) -> Any:
        return _response("QueryAccountInfo")(info=found(ctx, state, request.address).base)

    def accounts(ctx: Context, state: StateReader, request: Any) -> Any:
        items, page = paginate(state.store(keys.STORE), keys.ACCOUNTS, request.pagination, lambda _, raw: Any_.FromString(raw))
        return _response("QueryAccounts")(accounts=items, pagination=page)

    def address_by_id(ctx: Context, state: StateReader, request: Any) -> Any:
        if request.id:
            raise InvalidRequest("id is not supported any more: give the number as account_id")
        number = request.account_id
        address = keeper.address_by_number(state, number)
        if address is None:
            raise NotFound(f"account address not found with account number {number}")
        return _response("QueryAccountAddressByID")(account_address=bech32.encode(address))

    def params(ctx: Context, state: StateReader, request: Any) -> Any:
        return _response("QueryParams")(params=keeper.params(ctx, state))

    def module_accounts(ctx: Context, state: StateReader, request: Any) -> Any:
        known = (keeper.get_account(ctx, state, keeper.module_addresses[name]) for name in sorted(keeper.module_addresses))
        return _response("QueryModuleAccounts")(accounts=[pack_any(one.message) for one in known if one is not None])

    def module_account_by_name(ctx: Context, state: StateReader, request: Any) -> Any:
        if not request.name:
            raise InvalidRequest("module name is empty")
        address = keeper.module_addresses.get(request.name)
        one = None if address is None else keeper.get_account(ctx, state, address)
        if one is None:
            raise NotFound(f"account {request.name} not found")
        return _response("QueryModuleAccountByName")(account=pack_any(one.message))

    def bech32_prefix(ctx: Context, state: StateReader, request: Any) -> Any:
        return _response("Bech32Prefix")(bech32_prefix=bech32.ACCOUNT)

    def bytes_to_string(ctx: Context, state: StateReader, request: Any) -> Any:
        if not request.address_bytes:
            raise InvalidRequest("empty address bytes is not allowed")
        return _response("AddressBytesToString")(address_string=bech32.encode(request.address_bytes))

    def string_to_bytes(ctx: Context, state: StateReader, request: Any) -> Any:
        return _response("AddressStringToBytes")(address_bytes=bech32.decode(request.address_string))

    return {
        SERVICE + "Account": account,
        SERVICE + "AccountInfo": account_info,
        SERVICE + "Accounts": accounts,
        SERVICE + "AccountAddressByID": address_by_id,
        SERVICE + "Params": params,
        SERVICE + "ModuleAccounts": module_accounts,
        SERVICE + "ModuleAccountByName": module_account_by_name,
        SERVICE + "Bech32Prefix": bech32_prefix,
        SERVICE + "AddressBytesToString": bytes_to_string,
        SERVICE + "AddressStringToBytes": string_to_bytes,
    }
