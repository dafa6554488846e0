"""Parameters of the storage network: defaults and bounds (storage-protocol.md 1.10)."""

from __future__ import annotations

from typing import Any, Final

from chain.codec.registry import message_class
from chain.coins import parse_wire_int
from chain.dec import ONE, Dec, DecError, from_wire
from chain.errors import TxDecodeError
from chain.ozone import MAX_AMOUNT
from modules.settlement.errors import InvalidParams

PACKAGE: Final = "stratos.settlement.v1"
Params: Final = message_class(f"{PACKAGE}.Params")
MAX_RETENTION_DAYS: Final = 3_650
"""A leaf may release a share's escrow on days up to this, whatever the parameter is now: it may have been larger."""
RATIOS: Final = ("escrow_ratio", "repair_ratio", "fraud_slash_ratio")
COUNTS: Final = {
    "bytes_per_stos": (1, 1 << 50),
    "retention_days": (1, MAX_RETENTION_DAYS),
    "grace_days": (0, MAX_RETENTION_DAYS),
    "trash_days": (0, 365),
    "longest_lease_s": (1, 86_400),
    "audits_per_day": (1, 10_000),
    "challenge_blocks": (1, 1_000_000),
}
"""Name → (least, most)."""


def default_params() -> Any:
    """10 GB of share for each stos of deposit; half of what a share's upload costs is escrow for 365 days; a fraud costs a tenth of the deposit."""
    return Params(
        bytes_per_stos=10 * 10**9,
        escrow_ratio=str(ONE // 2),
        retention_days=365,
        grace_days=90,
        trash_days=7,
        longest_lease_s=3_600,
        audits_per_day=100,
        repair_ratio=str(ONE // 20),
        fraud_slash_ratio=str(ONE // 10),
        challenge_bond_wei=str(10**18),
        challenge_blocks=600,
    )


def ratio(params: Any, name: str) -> Dec:
    """One of RATIOS. Raises TxDecodeError (sdk/2) for bytes that are no decimal."""
    try:
        return from_wire(getattr(params, name))
    except DecError as error:
        raise TxDecodeError(f"params.{name}: {error}") from None


def bond_wei(params: Any) -> int:
    """What a challenge costs until it is decided, in wei."""
    return parse_wire_int(params.challenge_bond_wei)


def check_params(params: Any) -> None:
    """Raise InvalidParams (settlement/2) naming the parameter that is out of bounds, TxDecodeError (sdk/2), InvalidCoins (sdk/10)."""
    for name, (least, most) in COUNTS.items():
        value = getattr(params, name)
        if not least <= value <= most:
            raise InvalidParams(f"expected {name} from {least} to {most}, got {value}")
    for name in RATIOS:
        if not 0 <= ratio(params, name).scaled <= ONE:
            raise InvalidParams(f"expected {name} from 0 to 1, got {ratio(params, name)}")
    bond = bond_wei(params)
    if not 0 < bond <= MAX_AMOUNT:
        raise InvalidParams(f"expected challenge_bond_wei from 1 to 2^127 - 1, got {bond if bond <= 0 else f'{bond.bit_length()} bits'}")
