"""What staking keeps, as messages of ``cosmos.staking.v1beta1``, and the constants of Stratos (reference stratos-chain.md 1.2)."""

from __future__ import annotations

from typing import Any, Final

from chain.codec.registry import message_class
from chain.codec.times import NANOS

PACKAGE: Final = "cosmos.staking.v1beta1"
POWER_REDUCTION: Final = 10**15
"""wei per unit of voting power"""
BONDED_POOL: Final = "bonded_tokens_pool"
NOT_BONDED_POOL: Final = "not_bonded_tokens_pool"
UNBONDED, UNBONDING, BONDED = 1, 2, 3
"""BondStatus: outside the validator set; out of it, but still liable until its unbonding time; in it."""
STATUS_NAMES: Final = {"BOND_STATUS_UNBONDED": UNBONDED, "BOND_STATUS_UNBONDING": UNBONDING, "BOND_STATUS_BONDED": BONDED}
NO_TIME_NS: Final = -62_135_596_800 * NANOS
"""Go's zero time, the start of year 1: the end of what needs no waiting."""

Params: Final = message_class(f"{PACKAGE}.Params")
Validator: Final = message_class(f"{PACKAGE}.Validator")
Delegation: Final = message_class(f"{PACKAGE}.Delegation")
UnbondingDelegation: Final = message_class(f"{PACKAGE}.UnbondingDelegation")
Redelegation: Final = message_class(f"{PACKAGE}.Redelegation")
HistoricalInfo: Final = message_class(f"{PACKAGE}.HistoricalInfo")
Pairs: Final = message_class(f"{PACKAGE}.DVPairs")
Triplets: Final = message_class(f"{PACKAGE}.DVVTriplets")
Operators: Final = message_class(f"{PACKAGE}.ValAddresses")
Updates: Final = message_class(f"{PACKAGE}.ValidatorUpdates")
Power: Final = message_class("google.protobuf.Int64Value")
IntProto: Final = message_class("cosmos.base.v1beta1.IntProto")
Header: Final = message_class("tendermint.types.Header")


def copy_of(message: Any) -> Any:
    """An independent copy."""
    copy = type(message)()
    copy.CopyFrom(message)
    return copy
