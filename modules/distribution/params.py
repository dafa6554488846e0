"""Parameters of distribution and their bounds."""

from __future__ import annotations

from typing import Any, Final

from chain.codec.registry import message_class
from chain.dec import ONE, Dec, DecError, from_wire
from chain.errors import InvalidRequest, TxDecodeError, UndefinedError

Params: Final = message_class("cosmos.distribution.v1beta1.Params")


def default_params() -> Any:
    """Stratos' own: no community tax, withdraw addresses may be set (reference stratos-chain.md 1.7)."""
    return Params(community_tax="0", base_proposer_reward="0", bonus_proposer_reward="0", withdraw_addr_enabled=True)


def check_params(params: Any) -> None:
    """Raise UndefinedError unless the community tax is from 0 to 1, TxDecodeError (sdk/2) for what is no decimal."""
    tax, *_ = _decimals(params)
    if not params.community_tax:
        raise UndefinedError("community tax must be not nil")
    if tax.scaled < 0:
        raise UndefinedError(f"community tax must be positive: {tax}")
    if tax.scaled > ONE:
        raise UndefinedError(f"community tax too large: {tax}")


def check_update(params: Any) -> None:
    """``check_params``, and the two parameters that have had no meaning since 0.47 stay 0. Raises InvalidRequest (sdk/18), UndefinedError."""
    if any(reward.scaled for reward in _decimals(params)[1:]):
        raise InvalidRequest("cannot update base or bonus proposer reward because these are deprecated fields")
    check_params(params)


def _decimals(params: Any) -> list[Dec]:
    try:
        return [from_wire(wire) for wire in (params.community_tax, params.base_proposer_reward, params.bonus_proposer_reward)]
    except DecError as error:
        raise TxDecodeError(str(error)) from None
