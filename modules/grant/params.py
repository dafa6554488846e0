"""Parameters of grant and their bounds."""

from __future__ import annotations

from typing import Any, Final

from chain.codec.registry import message_class
from chain.errors import AppError
from modules.grant.errors import InvalidParams
from modules.grant.records import amount

Params: Final = message_class("stratos.grant.v1.Params")
MAX_OPEN_CAMPAIGNS: Final = 10_000
MAX_VALIDITY_S: Final = 100 * 366 * 86_400


def default_params() -> Any:
    """A pool begins with 1 stos at least and has up to 100 open campaigns; granted ozone lives up to a year."""
    return Params(min_pool_funding_wei=str(10**18), max_open_campaigns_per_pool=100, longest_validity_s=366 * 86_400)


def check_params(params: Any) -> None:
    """Raise InvalidParams (grant/21) naming the parameter that is out of bounds."""
    try:
        funding_wei = amount(params.min_pool_funding_wei, "min_pool_funding_wei")
    except AppError as error:
        raise InvalidParams(error.detail) from None
    if funding_wei == 0:
        raise InvalidParams("expected a positive min_pool_funding_wei, got 0")
    if not 1 <= params.max_open_campaigns_per_pool <= MAX_OPEN_CAMPAIGNS:
        raise InvalidParams(f"expected max_open_campaigns_per_pool from 1 to {MAX_OPEN_CAMPAIGNS}, got {params.max_open_campaigns_per_pool}")
    if not 1 <= params.longest_validity_s <= MAX_VALIDITY_S:
        raise InvalidParams(f"expected longest_validity_s from 1 to {MAX_VALIDITY_S}, got {params.longest_validity_s}")
