"""Access to accounts. Reads and writes touch the same keys in the same order as the SDK's keeper, so gas comes out the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any, Final

from chain.codec.canonical import encode
from chain.codec.registry import Any_, message_class, unpack_any
from chain.coins import Coins
from chain.context import Context
from chain.crypto import address as bech32
from chain.crypto.keys import PublicKey, public_key_from_any, public_key_to_any
from chain.errors import LogicError, UnknownAddress, UnpackAnyError
from chain.store.api import StateReader, StateWriter, prefix_end
from modules.auth import keys, vesting

Params: Final = message_class("cosmos.auth.v1beta1.Params")
BaseAccount: Final = message_class("cosmos.auth.v1beta1.BaseAccount")
ModuleAccount: Final = message_class("cosmos.auth.v1beta1.ModuleAccount")
CACHED_ACCOUNTS: Final = 16_384
MAX_CACHED_BYTES: Final = 2048
"""An account with thousands of vesting periods is not remembered: the memory stays bounded by bytes, too."""
_BASE_URL: Final = "/cosmos.auth.v1beta1.BaseAccount"


class Account:
    """An account of any kind: ``message`` is the concrete message, ``base`` the BaseAccount inside it.

    The message may be shared with other readers until the first change, which copies it.
    """

    __slots__ = ("_shared", "address", "base", "message")

    def __init__(self, message: Any, *, shared: bool = False) -> None:
        self.message = message
        self.base = base_of(message)
        self.address: bytes = bech32.decode(self.base.address)
        self._shared = shared

    @property
    def account_number(self) -> int:
        return int(self.base.account_number)

    @property
    def sequence(self) -> int:
        return int(self.base.sequence)

    @sequence.setter
    def sequence(self, value: int) -> None:
        self.own()
        self.base.sequence = value

    @property
    def public_key(self) -> PublicKey | None:
        return _public_key(self.base.pub_key.SerializeToString()) if self.base.HasField("pub_key") else None

    @public_key.setter
    def public_key(self, key: PublicKey) -> None:
        self.own()
        self.base.pub_key.CopyFrom(public_key_to_any(key))

    def own(self) -> None:
        """Make ``message`` this object's alone, before it is changed."""
        if self._shared:
            copy = type(self.message)()
            copy.CopyFrom(self.message)
            self.message, self.base, self._shared = copy, base_of(copy), False


@lru_cache(maxsize=CACHED_ACCOUNTS)
def _public_key(wrapped: bytes) -> PublicKey:
    return public_key_from_any(Any_.FromString(wrapped))


def base_of(message: Any) -> Any:
    """The BaseAccount inside an account message of any kind. Raises UnpackAnyError (sdk/34) for what is no account."""
    name = message.DESCRIPTOR.full_name
    if name == "cosmos.auth.v1beta1.BaseAccount":
        return message
    if name in ("cosmos.auth.v1beta1.ModuleAccount", "stratos.types.v1.EthAccount"):
        return message.base_account
    if name in vesting.KINDS:
        return message.base_vesting_account.base_account
    raise UnpackAnyError(f"/{name} is not an account")


class AuthKeeper:
    """Accounts and their parameters. ``permissions`` maps every module account of the chain to what it may do."""

    def __init__(self, permissions: Mapping[str, tuple[str, ...]]) -> None:
        self.permissions = dict(permissions)
        self.module_addresses = {name: bech32.module_address(name) for name in permissions}

    def params(self, ctx: Context, state: StateReader) -> Any:
        """The module's parameters."""
        return Params.FromString(state.store(keys.STORE).get(keys.PARAMS) or b"")

    def set_params(self, state: StateWriter, params: Any) -> None:
        state.store(keys.STORE).set(keys.PARAMS, encode(params))

    def has_account(self, ctx: Context, state: StateReader, address: bytes) -> bool:
        return state.store(keys.STORE).has(keys.account(address))

    def get_account(self, ctx: Context, state: StateReader, address: bytes) -> Account | None:
        """The account at ``address``, or None. The object is the caller's own."""
        raw = state.store(keys.STORE).get(keys.account(address))
        return None if raw is None else decode_account(raw)

    def set_account(self, ctx: Context, state: StateWriter, account: Account) -> None:
        """Write ``account``, keeping the index by number."""
        store = state.store(keys.STORE)
        old = store.get(keys.account(account.address))
        if old is not None:
            store.delete(keys.by_number(decode_account(old).account_number))
        index = keys.by_number(account.account_number)
        if store.has(index):
            raise LogicError(f"account number {account.account_number} is taken")
        store.set(index, account.address)
        store.set(keys.account(account.address), encode_account(account.message))

    def new_account(self, ctx: Context, state: StateWriter, address: bytes) -> Account:
        """A BaseAccount with the next number; not written yet."""
        return Account(BaseAccount(address=bech32.encode(address), account_number=self.next_number(state)))

    def add_account(self, ctx: Context, state: StateWriter, address: bytes, wrap: Callable[[Any], Any]) -> None:
        """Write a new account with the next number: what ``wrap`` makes of the BaseAccount."""
        self.set_account(ctx, state, Account(wrap(BaseAccount(address=bech32.encode(address), account_number=self.next_number(state)))))

    def next_number(self, state: StateWriter) -> int:
        """Take the next account number."""
        store = state.store(keys.STORE)
        raw = store.get(keys.NEXT_ACCOUNT_NUMBER)
        number = int.from_bytes(raw, "big") if raw is not None else 0
        store.set(keys.NEXT_ACCOUNT_NUMBER, (number + 1).to_bytes(8, "big"))
        return number

    def module_account(self, ctx: Context, state: StateWriter, name: str) -> Account:
        """The account of a module, made on first use. Raises KeyError for a name without permissions."""
        account = self.get_account(ctx, state, self.module_addresses[name])
        if account is not None:
            return account
        base = BaseAccount(address=bech32.encode(self.module_addresses[name]), account_number=self.next_number(state))
        account = Account(ModuleAccount(base_account=base, name=name, permissions=self.permissions[name]))
        self.set_account(ctx, state, account)
        return account

    def locked_coins(self, ctx: Context, state: StateReader, address: bytes) -> Coins:
        """What vesting keeps the account from spending now."""
        account = self.get_account(ctx, state, address)
        if account is None or not vesting.is_vesting(account.message):
            return ()
        return vesting.locked_coins(account.message, ctx.time_ns // 1_000_000_000)

    def track_delegation(self, ctx: Context, state: StateWriter, address: bytes, balances: Coins, amount: Coins) -> None:
        """Keep account of ``amount`` delegated out of ``balances``, where the account vests. Raises UnknownAddress, InsufficientFunds."""
        account = self._tracked(ctx, state, address, "delegation")
        if account is not None:
            vesting.track_delegation(account.message, ctx.time_ns // 1_000_000_000, balances, amount)
            self.set_account(ctx, state, account)

    def track_undelegation(self, ctx: Context, state: StateWriter, address: bytes, amount: Coins) -> None:
        """Keep account of ``amount`` coming back from a delegation, where the account vests. Raises UnknownAddress."""
        account = self._tracked(ctx, state, address, "undelegation")
        if account is not None:
            vesting.track_undelegation(account.message, amount)
            self.set_account(ctx, state, account)

    def _tracked(self, ctx: Context, state: StateReader, address: bytes, what: str) -> Account | None:
        """The account's own copy if it vests, else None."""
        account = self.get_account(ctx, state, address)
        if account is None:
            raise UnknownAddress(f"failed to track {what}: account {bech32.encode(address)} does not exist")
        if not vesting.is_vesting(account.message):
            return None
        account.own()
        return account

    def set_next_number(self, state: StateWriter, number: int) -> None:
        state.store(keys.STORE).set(keys.NEXT_ACCOUNT_NUMBER, number.to_bytes(8, "big"))

    def address_by_number(self, state: StateReader, number: int) -> bytes | None:
        return state.store(keys.STORE).get(keys.by_number(number))

    def iterate(self, state: StateReader) -> Iterator[Account]:
        """Every account in the order of addresses."""
        for _, raw in state.store(keys.STORE).iterate(keys.ACCOUNTS, prefix_end(keys.ACCOUNTS)):
            yield decode_account(raw)


def decode_account(raw: bytes) -> Account:
    """The account in stored bytes. Every transaction reads its sender's many times, so the parsed message is remembered."""
    return Account(_parsed(raw) if len(raw) <= MAX_CACHED_BYTES else _parse(raw), shared=True)


@lru_cache(maxsize=CACHED_ACCOUNTS)
def _parsed(raw: bytes) -> Any:
    return _parse(raw)


def _parse(raw: bytes) -> Any:
    wrapped = Any_.FromString(raw)
    if wrapped.type_url == _BASE_URL:
        return BaseAccount.FromString(wrapped.value)
    return unpack_any(wrapped)


def encode_account(message: Any) -> bytes:
    raw: bytes = Any_(type_url="/" + message.DESCRIPTOR.full_name, value=encode(message)).SerializeToString()
    return raw
