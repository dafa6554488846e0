"""Rules of staking, by the SDK's codes (codespace ``staking``)."""

from chain.errors import AppError


class _StakingError(AppError):
    codespace = "staking"


class ValidatorExists(_StakingError):
    code, description = 4, "validator already exist for this operator address; must use new validator operator address"


class ConsensusKeyTaken(_StakingError):
    code, description = 5, "validator already exist for this pubkey; must use new validator pubkey"


class WrongKeyType(_StakingError):
    code, description = 6, "validator pubkey type is not supported"


class CommissionOutOfBounds(_StakingError):
    code, description = 10, "commission cannot be more than 100%"


class MinSelfDelegation(_StakingError):
    code, description = 16, "validator's self delegation must be greater than their minimum self delegation"


class CommissionTooLow(_StakingError):
    code, description = 40, "commission cannot be less than min rate"


ERRORS = (ValidatorExists, ConsensusKeyTaken, WrongKeyType, CommissionOutOfBounds, MinSelfDelegation, CommissionTooLow)
