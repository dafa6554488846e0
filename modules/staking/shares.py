"""Arithmetic of shares. A validator's tokens belong to its delegators by their shares; slashing takes tokens and leaves shares.

    tokens of shares = shares · tokens / all shares          shares of tokens = all shares · tokens / all tokens

Amounts are wei, shares decimals of 18 places rounded as the SDK's LegacyDec. A result above 315 bits raises DecError, which fails the message.
"""

from __future__ import annotations

from typing import Any

from chain.dec import Dec, dec_of
from modules.staking.errors import InsufficientShares
from modules.staking.records import POWER_REDUCTION


def tokens_from_shares(validator: Any, shares: Dec) -> Dec:
    """What ``shares`` of a validator are worth, rounded half to even at 18 places. ZeroDivisionError when it has no shares."""
    return shares.mul_int(int(validator.tokens)).quo(Dec(int(validator.delegator_shares)))


def tokens_from_shares_truncated(validator: Any, shares: Dec) -> Dec:
    """As above, cut at 18 places."""
    return shares.mul_int(int(validator.tokens)).quo_truncate(Dec(int(validator.delegator_shares)))


def shares_from_tokens(validator: Any, amount_wei: int) -> Dec:
    """The shares that ``amount_wei`` stands for, cut at 18 places. Raises InsufficientShares for a validator without tokens."""
    return Dec(int(validator.delegator_shares)).mul_int(amount_wei).quo_int(_tokens(validator))


def shares_from_tokens_truncated(validator: Any, amount_wei: int) -> Dec:
    """As above, by the SDK's other way of dividing."""
    return Dec(int(validator.delegator_shares)).mul_int(amount_wei).quo_truncate(dec_of(_tokens(validator)))


def add_tokens(validator: Any, amount_wei: int) -> Dec:
    """Put ``amount_wei`` in; returns the shares issued for it, one per wei for the first."""
    issued = shares_from_tokens(validator, amount_wei) if int(validator.delegator_shares) else dec_of(amount_wei)
    validator.tokens = str(int(validator.tokens) + amount_wei)
    validator.delegator_shares = str(int(validator.delegator_shares) + issued.scaled)
    return issued


def remove_shares(validator: Any, shares: Dec) -> int:
    """Take ``shares`` out; returns their worth in whole wei. The last shares take every token that is left."""
    left = int(validator.delegator_shares) - shares.scaled
    tokens = int(validator.tokens)
    issued = tokens_from_shares(validator, shares).truncate() if left else tokens
    assert issued <= tokens, "shares are worth no more than all tokens"
    validator.tokens, validator.delegator_shares = str(tokens - issued), str(left)
    return issued


def has_no_rate(validator: Any) -> bool:
    """True if everything was slashed: new tokens could be given no shares."""
    return validator.tokens == "0" and int(validator.delegator_shares) > 0


def power_of(validator: Any) -> int:
    """The voting power its tokens would give: whole units of 10^15 wei."""
    return int(validator.tokens) // POWER_REDUCTION


def _tokens(validator: Any) -> int:
    tokens = int(validator.tokens)
    if not tokens:
        raise InsufficientShares
    return tokens
