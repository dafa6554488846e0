"""Parameters of sds."""

from __future__ import annotations

from typing import Any, Final

from chain.codec.registry import message_class
from chain.tx.fees import BASE_DENOM
from modules.sds.errors import InvalidDenom

Params: Final = message_class("stratos.sds.v1.Params")


def default_params() -> Any:
    """Ozone is paid in wei."""
    return Params(bond_denom=BASE_DENOM)


def check_params(params: Any) -> None:
    """Raise InvalidDenom (sds/9) unless ozone is paid in wei: deposits and rewards are wei, and a price of two denoms would be none."""
    if params.bond_denom != BASE_DENOM:
        raise InvalidDenom(f"expected bond_denom {BASE_DENOM}, got {params.bond_denom[:128]!r}")
