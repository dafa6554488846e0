"""Parameters of auth: the mainnet's values and their bounds (reference stratos-chain.md 1.7)."""

from __future__ import annotations

from typing import Any, Final

from chain.codec.registry import message_class
from chain.errors import UndefinedError

Params: Final = message_class("cosmos.auth.v1beta1.Params")
DEFAULT_PARAMS: Final = Params(
    max_memo_characters=256, tx_sig_limit=7, tx_size_cost_per_byte=10, sig_verify_cost_ed25519=590, sig_verify_cost_secp256k1=1000
)


def check_params(params: Any) -> None:
    """Raise UndefinedError (undefined/1, the SDK's) naming the parameter that is zero."""
    for name in ("tx_sig_limit", "sig_verify_cost_ed25519", "sig_verify_cost_secp256k1", "max_memo_characters", "tx_size_cost_per_byte"):
        if getattr(params, name) == 0:
            raise UndefinedError(f"params.{name} must be positive, got 0")
