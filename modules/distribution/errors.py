"""Rules of distribution, by the SDK's codes (codespace ``distribution``), and the two of staking that its messages run into."""

from chain.errors import AppError


class _DistributionError(AppError):
    codespace = "distribution"


class EmptyDelegatorAddress(_DistributionError):
    code, description = 2, "delegator address is empty"


class EmptyWithdrawAddress(_DistributionError):
    code, description = 3, "withdraw address is empty"


class EmptyValidatorAddress(_DistributionError):
    code, description = 4, "validator address is empty"


class NoDelegationInfo(_DistributionError):
    code, description = 5, "no delegation distribution info"


class NoValidatorInfo(_DistributionError):
    code, description = 6, "no validator distribution info"


class NoCommission(_DistributionError):
    code, description = 7, "no validator commission to withdraw"


class WithdrawAddressDisabled(_DistributionError):
    code, description = 8, "set withdraw address disabled"


class PoolTooSmall(_DistributionError):
    code, description = 9, "community pool does not have sufficient coins to distribute"


class InvalidProposalAmount(_DistributionError):
    code, description = 10, "invalid community pool spend proposal amount"


class EmptyProposalRecipient(_DistributionError):
    code, description = 11, "invalid community pool spend proposal recipient"


class NoValidator(_DistributionError):
    code, description = 12, "validator does not exist"


class NoDelegation(_DistributionError):
    code, description = 13, "delegation does not exist"


class ValidatorNotFound(AppError):
    """staking/3, which the SDK's staking keeper answers before distribution looks."""

    codespace = "staking"
    code, description = 3, "validator does not exist"


class DelegationNotFound(AppError):
    """staking/19, in the same way."""

    codespace = "staking"
    code, description = 19, "no delegation for (address, validator) tuple"


ERRORS = (
    EmptyDelegatorAddress,
    EmptyWithdrawAddress,
    EmptyValidatorAddress,
    NoDelegationInfo,
    NoValidatorInfo,
    NoCommission,
    WithdrawAddressDisabled,
    PoolTooSmall,
    InvalidProposalAmount,
    EmptyProposalRecipient,
    NoValidator,
    NoDelegation,
)
