"""Rules of slashing, by the SDK's codes (codespace ``slashing``), and two of staking's that an unjail meets first."""

from chain.errors import AppError


class _SlashingError(AppError):
    codespace = "slashing"


class NoValidatorForAddress(_SlashingError):
    code, description = 2, "address is not associated with any known validator"


class BadValidatorAddress(_SlashingError):
    code, description = 3, "validator does not exist for that address"


class ValidatorJailed(_SlashingError):
    code, description = 4, "validator still jailed; cannot be unjailed"


class ValidatorNotJailed(_SlashingError):
    code, description = 5, "validator not jailed; cannot be unjailed"


class MissingSelfDelegation(_SlashingError):
    code, description = 6, "validator has no self-delegation; cannot be unjailed"


class SelfDelegationTooLow(_SlashingError):
    code, description = 7, "validator's self delegation less than minimum; cannot be unjailed"


class NoSigningInfo(_SlashingError):
    code, description = 8, "no validator signing info found"


class ValidatorTombstoned(_SlashingError):
    code, description = 9, "validator already tombstoned"


class NoValidator(AppError):
    codespace, code, description = "staking", 3, "validator does not exist"


class NoDelegation(AppError):
    codespace, code, description = "staking", 19, "no delegation for (address, validator) tuple"


ERRORS = (
    NoValidatorForAddress,
    BadValidatorAddress,
    ValidatorJailed,
    ValidatorNotJailed,
    MissingSelfDelegation,
    SelfDelegationTooLow,
    NoSigningInfo,
    ValidatorTombstoned,
)
"""Of codespace ``slashing``; 2, 3 and 6 are on the wire no longer (SDK 0.50 answers with staking's), and keep their meaning."""
