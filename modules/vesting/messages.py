"""Messages that open a vesting account and fund it: continuous or delayed, permanently locked, periodic (``README.md``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from chain import coins
from chain.codec.registry import message_class
from chain.coins import Coin, Coins
from chain.context import Context
from chain.crypto import address as bech32
from chain.errors import AppError, InvalidAddress, InvalidCoins, InvalidRequest, Unauthorized
from chain.module import MessageHandler
from chain.store.api import StateReader, StateWriter

PACKAGE: Final = "cosmos.vesting.v1beta1"
MAX_PERIODS: Final = 10_000
MAX_TIME_S: Final = (1 << 63) - 1
NANOS: Final = 1_000_000_000

Continuous: Final = message_class(f"{PACKAGE}.ContinuousVestingAccount")
Delayed: Final = message_class(f"{PACKAGE}.DelayedVestingAccount")
Periodic: Final = message_class(f"{PACKAGE}.PeriodicVestingAccount")
Permanent: Final = message_class(f"{PACKAGE}.PermanentLockedAccount")
BaseVesting: Final = message_class(f"{PACKAGE}.BaseVestingAccount")


class Accounts(Protocol):
    """What vesting needs of accounts: to see that there is none yet, and to add one."""

    def get_account(self, ctx: Context, state: StateReader, address: bytes) -> Any: ...
    def add_account(self, ctx: Context, state: StateWriter, address: bytes, wrap: Callable[[Any], Any]) -> None: ...


class Bank(Protocol):
    """What vesting needs of the bank: the rules of a send, and the send."""

    def require_send_enabled(self, state: StateReader, amount: Coins) -> None: ...
    def is_blocked(self, address: bytes) -> bool: ...
    def send(self, ctx: Context, state: StateWriter, sender: bytes, recipient: bytes, amount: Coins) -> None: ...


def handlers(accounts: Accounts, bank: Bank) -> Mapping[str, MessageHandler]:
    """The module's message handlers."""
    made = {name: message_class(f"{PACKAGE}.{name}Response") for name in (_VESTING, _PERMANENT, _PERIODIC)}

    def require_new(ctx: Context, state: StateReader, message: Any, recipient: bytes) -> None:
        if bank.is_blocked(recipient):
            raise Unauthorized(f"{message.to_address} is not allowed to receive funds")
        if accounts.get_account(ctx, state, recipient) is not None:
            raise InvalidRequest(f"account {message.to_address} already exists")

    def create(ctx: Context, state: StateWriter, message: Any) -> Any:
        sender, recipient, amount = check_vesting(message)
        bank.require_send_enabled(state, amount)
        require_new(ctx, state, message, recipient)

        def wrap(base: Any) -> Any:
            vesting = _base(base, amount, message.end_time)
            if message.delayed:
                return Delayed(base_vesting_account=vesting)
            return Continuous(base_vesting_account=vesting, start_time=ctx.time_ns // NANOS)

        accounts.add_account(ctx, state, recipient, wrap)
        bank.send(ctx, state, sender, recipient, amount)
        return made[_VESTING]()

    def create_permanent(ctx: Context, state: StateWriter, message: Any) -> Any:
        sender, recipient, amount = check_permanent(message)
        bank.require_send_enabled(state, amount)
        require_new(ctx, state, message, recipient)
        accounts.add_account(ctx, state, recipient, lambda base: Permanent(base_vesting_account=_base(base, amount, 0)))
        bank.send(ctx, state, sender, recipient, amount)
        return made[_PERMANENT]()

    def create_periodic(ctx: Context, state: StateWriter, message: Any) -> Any:
        sender, recipient, amount, end_time = check_periodic(message)
        require_new(ctx, state, message, recipient)
        bank.require_send_enabled(state, amount)

        def wrap(base: Any) -> Any:
            vesting = _base(base, amount, end_time)
            account = Periodic(base_vesting_account=vesting, start_time=message.start_time, vesting_periods=message.vesting_periods)
            account.DiscardUnknownFields()  # a message may bring non-critical ones, which mean nothing here: state holds what the schema names
            return account

        accounts.add_account(ctx, state, recipient, wrap)
        bank.send(ctx, state, sender, recipient, amount)
        return made[_PERIODIC]()

    return {
        f"{PACKAGE}.{_VESTING}": MessageHandler(create, lambda message: _ignore(check_vesting(message))),
        f"{PACKAGE}.{_PERMANENT}": MessageHandler(create_permanent, lambda message: _ignore(check_permanent(message))),
        f"{PACKAGE}.{_PERIODIC}": MessageHandler(create_periodic, lambda message: _ignore(check_periodic(message))),
    }


_VESTING: Final = "MsgCreateVestingAccount"
_PERMANENT: Final = "MsgCreatePermanentLockedAccount"
_PERIODIC: Final = "MsgCreatePeriodicVestingAccount"


def check_vesting(message: Any) -> tuple[bytes, bytes, Coins]:
    """(sender, recipient, amount). Raises InvalidAddress, InvalidCoins, InvalidRequest."""
    sender, recipient = _addresses(message)
    amount = _amount(message.amount)
    if message.end_time <= 0:
        raise InvalidRequest(f"invalid end time: expected Unix seconds after 0, got {message.end_time}")
    return sender, recipient, amount


def check_permanent(message: Any) -> tuple[bytes, bytes, Coins]:
    """(sender, recipient, amount). Raises InvalidAddress, InvalidCoins."""
    return *_addresses(message), _amount(message.amount)


def check_periodic(message: Any) -> tuple[bytes, bytes, Coins, int]:
    """(sender, recipient, sum of all periods, end in Unix seconds). Raises InvalidAddress, InvalidCoins, InvalidRequest."""
    sender, recipient = _addresses(message)
    if message.start_time < 1:
        raise InvalidRequest(f"invalid start time of {message.start_time}, must be greater than 0")
    if not 0 < len(message.vesting_periods) <= MAX_PERIODS:
        raise InvalidRequest(f"expected 1 to {MAX_PERIODS} vesting periods, got {len(message.vesting_periods)}")
    end_time, sums = message.start_time, list[Coin]()
    for at, period in enumerate(message.vesting_periods):
        if period.length < 1:
            raise InvalidRequest(f"invalid period length of {period.length} in period {at}, length must be greater than 0")
        sums.extend(_amount(period.amount))
        end_time += period.length
    if end_time > MAX_TIME_S:
        raise InvalidRequest(f"the periods end {end_time} seconds after 1970, beyond 64 bits")
    return sender, recipient, coins.normalise(sums), end_time


def _addresses(message: Any) -> tuple[bytes, bytes]:
    found = []
    for what, text in (("from", message.from_address), ("to", message.to_address)):
        try:
            found.append(bech32.decode(text))
        except AppError as error:
            raise InvalidAddress(f"invalid '{what}' address: {error.detail}") from None
    return found[0], found[1]


def _amount(messages: Any) -> Coins:
    amount = coins.from_messages(messages)
    if not amount:
        raise InvalidCoins("expected at least one coin, got none")
    return amount


def _base(base: Any, amount: Coins, end_time: int) -> Any:
    return BaseVesting(base_account=base, original_vesting=coins.to_messages(amount), end_time=end_time)


def _ignore(_: Any) -> None:
    """A check's findings are made anew when the message runs."""
