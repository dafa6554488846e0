"""Balances and supply. The ladder: ``BankView`` reads, ``BankSend`` moves, ``BankMint`` makes and destroys.

Reads and writes touch the same keys in the same order as the SDK's keeper, so gas comes out the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, Final, Protocol

from chain import coins
from chain.codec.canonical import encode
from chain.codec.registry import message_class
from chain.coins import Coin, Coins
from chain.context import Context
from chain.crypto import address as bech32
from chain.errors import InsufficientFunds, InvalidCoins, LogicError, Unauthorized, UnknownAddress
from chain.store.api import StateReader, StateWriter, prefix_end
from modules.bank import events, keys
from modules.bank.errors import SendDisabled

Params: Final = message_class("cosmos.bank.v1beta1.Params")
Metadata: Final = message_class("cosmos.bank.v1beta1.Metadata")
MAX_BITS: Final = 256


class Accounts(Protocol):
    """What the bank needs to know of accounts."""

    @property
    def module_addresses(self) -> Mapping[str, bytes]: ...
    @property
    def permissions(self) -> Mapping[str, tuple[str, ...]]: ...
    def has_account(self, ctx: Context, state: StateReader, address: bytes) -> bool: ...
    def new_account(self, ctx: Context, state: StateWriter, address: bytes) -> Any: ...
    def set_account(self, ctx: Context, state: StateWriter, account: Any) -> None: ...
    def module_account(self, ctx: Context, state: StateWriter, name: str) -> Any: ...
    def get_account(self, ctx: Context, state: StateReader, address: bytes) -> Any: ...
    def locked_coins(self, ctx: Context, state: StateReader, address: bytes) -> Coins: ...
    def track_delegation(self, ctx: Context, state: StateWriter, address: bytes, balances: Coins, amount: Coins) -> None: ...
    def track_undelegation(self, ctx: Context, state: StateWriter, address: bytes, amount: Coins) -> None: ...


class BankView:
    """Reads balances, supply and settings."""

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts

    def params(self, state: StateReader) -> Any:
        return Params.FromString(state.store(keys.STORE).get(keys.PARAMS) or b"")

    def balance(self, state: StateReader, address: bytes, denom: str) -> int:
        """Amount of ``denom`` at ``address``; 0 when there is none."""
        raw = state.store(keys.STORE).get(keys.balance(address, denom))
        return 0 if raw is None else int(raw)

    def balances(self, state: StateReader, address: bytes, limit: int | None = None) -> Coins:
        """All coins at ``address``, or the first ``limit`` by denom."""
        prefix = keys.balances_of(address)
        found = islice(state.store(keys.STORE).iterate(prefix, prefix_end(prefix)), limit)
        return tuple(Coin(key[len(prefix) :].decode(), int(raw)) for key, raw in found)

    def spendable(self, ctx: Context, state: StateReader, address: bytes) -> Coins:
        """All coins at ``address`` that vesting does not lock."""
        locked = self._accounts.locked_coins(ctx, state, address)
        return coins.normalise(Coin(denom, max(amount - coins.amount_of(locked, denom), 0)) for denom, amount in self.balances(state, address))

    def supply(self, state: StateReader, denom: str) -> int:
        raw = state.store(keys.STORE).get(keys.supply(denom))
        return 0 if raw is None else int(raw)

    def total_supply(self, state: StateReader) -> Coins:
        found = state.store(keys.STORE).iterate(keys.SUPPLY, prefix_end(keys.SUPPLY))
        return tuple(Coin(key[1:].decode(), int(raw)) for key, raw in found)

    def metadata(self, state: StateReader, denom: str) -> Any | None:
        raw = state.store(keys.STORE).get(keys.metadata(denom))
        return None if raw is None else Metadata.FromString(raw)

    def iterate_balances(self, state: StateReader) -> Iterator[tuple[bytes, Coin]]:
        """(address, coin) of every balance, ordered by address, then denom."""
        for key, raw in state.store(keys.STORE).iterate(keys.BALANCES, prefix_end(keys.BALANCES)):
            address, denom = keys.split_balance(key)
            yield address, Coin(denom, int(raw))

    def send_enabled_entry(self, state: StateReader, denom: str) -> bool | None:
        """The entry of ``denom``; None when the default holds."""
        store = state.store(keys.STORE)
        if not store.has(keys.send_enabled(denom)):
            return None
        return bool(store.get(keys.send_enabled(denom)))

    def require_send_enabled(self, state: StateReader, amount: Coins) -> None:
        """Raise SendDisabled (bank/5) if one of the denoms may not be sent."""
        default = bool(self.params(state).default_send_enabled)
        for denom, _ in amount:
            entry = self.send_enabled_entry(state, denom)
            if not (default if entry is None else entry):
                raise SendDisabled(f"{denom} transfers are currently disabled")


class BankSend(BankView):
    """Moves coins between accounts. Addresses in ``blocked`` receive none by a user's message."""

    def __init__(self, accounts: Accounts, blocked: frozenset[bytes]) -> None:
        super().__init__(accounts)
        self._blocked = blocked

    def is_blocked(self, address: bytes) -> bool:
        return address in self._blocked

    def send(self, ctx: Context, state: StateWriter, sender: bytes, recipient: bytes, amount: Coins) -> None:
        """Move ``amount``; the recipient's account is made if there is none. Raises InvalidCoins, InsufficientFunds."""
        self.take(ctx, state, sender, amount)
        self.give(ctx, state, recipient, amount)
        self._ensure_account(ctx, state, recipient)
        sender_text = bech32.encode(sender)
        ctx.events.emit("transfer", ("recipient", bech32.encode(recipient)), ("sender", sender_text), ("amount", coins.to_text(amount)))
        ctx.events.emit("message", ("sender", sender_text))

    def send_to_module(self, ctx: Context, state: StateWriter, sender: bytes, module: str, amount: Coins) -> None:
        self.send(ctx, state, sender, self._accounts.module_account(ctx, state, module).address, amount)

    def send_from_module(self, ctx: Context, state: StateWriter, module: str, recipient: bytes, amount: Coins) -> None:
        """Raises Unauthorized (sdk/4) for a blocked recipient."""
        if self.is_blocked(recipient):
            raise Unauthorized(f"{bech32.encode(recipient)} is not allowed to receive funds")
        self.send(ctx, state, self._accounts.module_addresses[module], recipient, amount)

    def send_between_modules(self, ctx: Context, state: StateWriter, sender: str, recipient: str, amount: Coins) -> None:
        """Move ``amount`` from the account of one module to that of another, whose account is made if there is none."""
        self.send(ctx, state, self._accounts.module_addresses[sender], self._accounts.module_account(ctx, state, recipient).address, amount)

    def send_one_to_many(self, ctx: Context, state: StateWriter, sender: bytes, amount: Coins, outputs: list[tuple[bytes, Coins]]) -> None:
        """Take ``amount`` once, give each output its part (the parts sum up to ``amount``)."""
        self.take(ctx, state, sender, amount)
        ctx.events.emit("message", ("sender", bech32.encode(sender)))
        for recipient, part in outputs:
            self.give(ctx, state, recipient, part)
            ctx.events.emit("transfer", ("recipient", bech32.encode(recipient)), ("amount", coins.to_text(part)))
            self._ensure_account(ctx, state, recipient)

    def delegate(self, ctx: Context, state: StateWriter, delegator: bytes, pool: bytes, amount: Coins) -> None:
        """Move ``amount``, vesting coins included, into a module account. Raises UnknownAddress, InvalidCoins, InsufficientFunds."""
        self._require_account(ctx, state, pool)
        coins.check(amount)
        before = []
        for coin in amount:
            held = self.balance(state, delegator, coin.denom)
            if held < coin.amount:
                raise InsufficientFunds(f"failed to delegate; {held}{coin.denom} is smaller than {coins.to_text(amount)}")
            before.append(Coin(coin.denom, held))
            self.set_balance(state, delegator, coin.denom, held - coin.amount)
        self._accounts.track_delegation(ctx, state, delegator, tuple(before), amount)
        events.coin_spent(ctx, delegator, amount)
        self.give(ctx, state, pool, amount)

    def undelegate(self, ctx: Context, state: StateWriter, pool: bytes, delegator: bytes, amount: Coins) -> None:
        """Move ``amount`` from a module account back to its delegator. Raises UnknownAddress, InvalidCoins, InsufficientFunds."""
        self._require_account(ctx, state, pool)
        self.take(ctx, state, pool, amount)
        self._accounts.track_undelegation(ctx, state, delegator, amount)
        self.give(ctx, state, delegator, amount)

    def delegate_to_module(self, ctx: Context, state: StateWriter, delegator: bytes, module: str, amount: Coins) -> None:
        """``delegate`` to a module that may hold stake. Raises LogicError without the staking permission."""
        self.delegate(ctx, state, delegator, self._staking_account(ctx, state, module), amount)

    def undelegate_from_module(self, ctx: Context, state: StateWriter, module: str, delegator: bytes, amount: Coins) -> None:
        """``undelegate`` from a module that may hold stake. Raises LogicError without the staking permission."""
        self.undelegate(ctx, state, self._staking_account(ctx, state, module), delegator, amount)

    def _staking_account(self, ctx: Context, state: StateWriter, module: str) -> bytes:
        if "staking" not in self._accounts.permissions.get(module, ()):
            raise LogicError(f"module account {module} does not have the permission staking")
        address: bytes = self._accounts.module_account(ctx, state, module).address
        return address

    def _require_account(self, ctx: Context, state: StateReader, address: bytes) -> None:
        if self._accounts.get_account(ctx, state, address) is None:
            raise UnknownAddress(f"module account {bech32.encode(address)} does not exist")

    def take(self, ctx: Context, state: StateWriter, address: bytes, amount: Coins) -> None:
        coins.check(amount)
        locked = self._accounts.locked_coins(ctx, state, address)
        for coin in amount:
            balance = self.balance(state, address, coin.denom)
            locked_amount = coins.amount_of(locked, coin.denom)
            if locked_amount > balance:
                raise InsufficientFunds(f"locked amount exceeds account balance funds: {locked_amount}{coin.denom} > {balance}{coin.denom}")
            if balance - locked_amount < coin.amount:
                raise InsufficientFunds(f"spendable balance {balance - locked_amount}{coin.denom} is smaller than {coin}")
            self.set_balance(state, address, coin.denom, balance - coin.amount)
        events.coin_spent(ctx, address, amount)

    def give(self, ctx: Context, state: StateWriter, address: bytes, amount: Coins) -> None:
        coins.check(amount)
        for coin in amount:
            self.set_balance(state, address, coin.denom, self.balance(state, address, coin.denom) + coin.amount)
        events.coin_received(ctx, address, amount)

    def set_balance(self, state: StateWriter, address: bytes, denom: str, amount: int) -> None:
        """Write one balance and its place in the index of holders."""
        if amount.bit_length() > MAX_BITS:
            raise InvalidCoins(f"a balance of {denom} would exceed {MAX_BITS} bits")
        store = state.store(keys.STORE)
        if amount:
            store.set(keys.holder(denom, address), b"")
            store.set(keys.balance(address, denom), str(amount).encode())
        else:
            store.delete(keys.holder(denom, address))
            store.delete(keys.balance(address, denom))

    def _ensure_account(self, ctx: Context, state: StateWriter, address: bytes) -> None:
        if not self._accounts.has_account(ctx, state, address):
            self._accounts.set_account(ctx, state, self._accounts.new_account(ctx, state, address))


class BankMint(BankSend):
    """Makes and destroys coins in module accounts that may."""

    def mint(self, ctx: Context, state: StateWriter, module: str, amount: Coins) -> None:
        """Make ``amount`` in the account of ``module``. Raises Unauthorized (sdk/4) without the minter permission."""
        self._require(module, "minter")
        self.give(ctx, state, self._accounts.module_account(ctx, state, module).address, amount)
        for denom, change in amount:
            self.set_supply(state, denom, self.supply(state, denom) + change)
        events.coinbase(ctx, self._accounts.module_addresses[module], amount)

    def burn(self, ctx: Context, state: StateWriter, module: str, amount: Coins) -> None:
        """Destroy ``amount`` from the account of ``module``. Raises Unauthorized without the burner permission, InsufficientFunds."""
        self._require(module, "burner")
        self.burn_from(ctx, state, self._accounts.module_account(ctx, state, module).address, amount)

    def burn_from(self, ctx: Context, state: StateWriter, address: bytes, amount: Coins) -> None:
        """Destroy ``amount`` from any account (its owner asked for it)."""
        self.take(ctx, state, address, amount)
        for denom, change in amount:
            self.set_supply(state, denom, self.supply(state, denom) - change)
        events.burn(ctx, address, amount)

    def set_supply(self, state: StateWriter, denom: str, amount: int) -> None:
        if amount.bit_length() > MAX_BITS:
            raise InvalidCoins(f"the supply of {denom} would exceed {MAX_BITS} bits")
        store = state.store(keys.STORE)
        if amount:
            store.set(keys.supply(denom), str(amount).encode())
        else:
            store.delete(keys.supply(denom))

    def set_params(self, state: StateWriter, params: Any) -> None:
        state.store(keys.STORE).set(keys.PARAMS, encode(params))

    def set_metadata(self, state: StateWriter, metadata: Any) -> None:
        state.store(keys.STORE).set(keys.metadata(metadata.base), encode(metadata))

    def set_send_enabled(self, state: StateWriter, denom: str, enabled: bool | None) -> None:
        """Write the entry of ``denom``; None removes it, so that the default holds."""
        store = state.store(keys.STORE)
        if enabled is None:
            store.delete(keys.send_enabled(denom))
        else:
            store.set(keys.send_enabled(denom), b"\x08\x01" if enabled else b"")

    def _require(self, module: str, permission: str) -> None:
        if permission not in self._accounts.permissions.get(module, ()):
            raise Unauthorized(f"module account {module} does not have the permission {permission}")
