"""Parameters: the defaults (Stratos' mainnet genesis, with SDK 0.50's values for what came after it) and what they may be."""

from __future__ import annotations

from typing import Any, Final

from chain import coins
from chain.codec.registry import message_class
from chain.codec.times import ns_of
from chain.coins import Coin, Coins
from chain.crypto import address as bech32
from chain.dec import ONE, Dec, DecError, parse_dec
from chain.errors import AppError, UndefinedError

Params: Final = message_class("cosmos.gov.v1.Params")
_MIN_DEPOSIT_WEI: Final = 100 * 10**18
_EXPEDITED_FACTOR: Final = 5
_DAY_S: Final = 86_400
_MAX_PERIOD_NS: Final = (1 << 63) - 1


def default_params() -> Any:
    """Parameters of a new chain."""
    params = Params(
        min_deposit=coins.to_messages([Coin("wei", _MIN_DEPOSIT_WEI)]),
        expedited_min_deposit=coins.to_messages([Coin("wei", _EXPEDITED_FACTOR * _MIN_DEPOSIT_WEI)]),
        burn_vote_veto=True,
    )
    for name, days in (("max_deposit_period", 14), ("voting_period", 7), ("expedited_voting_period", 1)):
        getattr(params, name).seconds = days * _DAY_S
    for name, text in (
        ("quorum", "0.334"),
        ("threshold", "0.5"),
        ("expedited_threshold", "0.667"),
        ("veto_threshold", "0.334"),
        ("min_initial_deposit_ratio", "0"),
        ("proposal_cancel_ratio", "0.5"),
        ("min_deposit_ratio", "0.01"),
    ):
        setattr(params, name, str(parse_dec(text)))
    return params


def check_params(params: Any) -> None:
    """Raise UndefinedError naming the parameter that cannot be."""
    least = _deposit(params.min_deposit, "minimum deposit")
    expedited = _deposit(params.expedited_min_deposit, "expedited minimum deposit")
    if all_at_least(least, expedited):
        raise UndefinedError(f"expedited minimum deposit must be greater than minimum deposit: {coins.to_text(expedited)}")
    _period(params, "max_deposit_period", "maximum deposit period")
    _ratio(params.quorum, "quorum")
    threshold = _ratio(params.threshold, "vote threshold", positive=True)
    expedited_threshold = _ratio(params.expedited_threshold, "expedited vote threshold", positive=True)
    if expedited_threshold <= threshold:
        raise UndefinedError(f"expedited vote threshold {expedited_threshold}, must be greater than the regular threshold {threshold}")
    _ratio(params.veto_threshold, "veto threshold", positive=True)
    voting = _period(params, "voting_period", "voting period")
    expedited_voting = _period(params, "expedited_voting_period", "expedited voting period")
    if expedited_voting >= voting:
        raise UndefinedError(f"expedited voting period of {expedited_voting} ns must be strictly less than the regular voting period of {voting} ns")
    _ratio(params.min_initial_deposit_ratio, "minimum initial deposit ratio of proposal")
    _ratio(params.proposal_cancel_ratio, "burn rate of cancel proposal")
    # The SDK does not look at this one here, and then refuses every deposit.
    _ratio(params.min_deposit_ratio, "minimum deposit ratio")
    if params.proposal_cancel_dest:
        try:
            bech32.decode(params.proposal_cancel_dest)
        except AppError:
            raise UndefinedError(f"deposits destination address is invalid: {params.proposal_cancel_dest[:100]}") from None


def all_at_least(left: Coins, right: Coins) -> bool:
    """True if ``left`` has no less than ``right`` of each denom of ``right``."""
    return all(coins.amount_of(left, coin.denom) >= coin.amount for coin in right)


def _deposit(messages: Any, what: str) -> Coins:
    try:
        found = coins.from_messages(messages)
    except AppError as error:
        raise UndefinedError(f"invalid {what}: {error.detail}") from None
    if not found:
        raise UndefinedError(f"invalid {what}: expected at least one coin, got none")
    return found


def _period(params: Any, name: str, what: str) -> int:
    if not params.HasField(name):
        raise UndefinedError(f"{what} must not be nil")
    found = ns_of(getattr(params, name))
    if not 0 < found <= _MAX_PERIOD_NS:
        raise UndefinedError(f"{what} must be positive and at most {_MAX_PERIOD_NS} ns, got {found} ns")
    return found


def _ratio(text: str, what: str, *, positive: bool = False) -> Dec:
    try:
        found = parse_dec(text)
    except DecError as error:
        raise UndefinedError(f"invalid {what}: {error}") from None
    if found.scaled < 0 or (positive and found.scaled == 0):
        raise UndefinedError(f"{what} must be positive: {found}" if positive else f"{what} cannot be negative: {found}")
    if found.scaled > ONE:
        raise UndefinedError(f"{what} too large: {found}")
    return found
