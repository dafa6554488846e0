"""Rules of staking, by the SDK's codes (codespace ``staking``)."""

from __future__ import annotations

from chain.errors import AppError


def _staking(name: str, code: int, description: str) -> type[AppError]:
    body = {"codespace": "staking", "code": code, "description": description, "__module__": __name__, "__doc__": f"staking/{code}: {description}."}
    return type(name, (AppError,), body)


EmptyValidatorAddress = _staking("EmptyValidatorAddress", 2, "empty validator address")
NoValidator = _staking("NoValidator", 3, "validator does not exist")
ValidatorExists = _staking("ValidatorExists", 4, "validator already exist for this operator address; must use new validator operator address")
ConsensusKeyTaken = _staking("ConsensusKeyTaken", 5, "validator already exist for this pubkey; must use new validator pubkey")
WrongKeyType = _staking("WrongKeyType", 6, "validator pubkey type is not supported")
ValidatorJailed = _staking("ValidatorJailed", 7, "validator for this address is currently jailed")
CannotRemoveValidator = _staking("CannotRemoveValidator", 8, "failed to remove validator")
CommissionNegative = _staking("CommissionNegative", 9, "commission must be positive")
CommissionHuge = _staking("CommissionHuge", 10, "commission cannot be more than 100%")
CommissionAboveMax = _staking("CommissionAboveMax", 11, "commission cannot be more than the max rate")
CommissionTooSoon = _staking("CommissionTooSoon", 12, "commission cannot be changed more than once in 24h")
CommissionChangeNegative = _staking("CommissionChangeNegative", 13, "commission change rate must be positive")
CommissionChangeAboveMax = _staking("CommissionChangeAboveMax", 14, "commission change rate cannot be more than the max rate")
CommissionChangeTooBig = _staking("CommissionChangeTooBig", 15, "commission cannot be changed more than max change rate")
SelfDelegationBelowMinimum = _staking(
    "SelfDelegationBelowMinimum", 16, "validator's self delegation must be greater than their minimum self delegation"
)
MinSelfDelegationDecreased = _staking("MinSelfDelegationDecreased", 17, "minimum self delegation cannot be decrease")
EmptyDelegatorAddress = _staking("EmptyDelegatorAddress", 18, "empty delegator address")
NoDelegation = _staking("NoDelegation", 19, "no delegation for (address, validator) tuple")
BadDelegatorAddress = _staking("BadDelegatorAddress", 20, "delegator does not exist with address")
NoDelegator = _staking("NoDelegator", 21, "delegator does not contain delegation")
InsufficientShares = _staking("InsufficientShares", 22, "insufficient delegation shares")
EmptyValidator = _staking("EmptyValidator", 23, "cannot delegate to an empty validator")
NotEnoughShares = _staking("NotEnoughShares", 24, "not enough delegation shares")
NotMature = _staking("NotMature", 25, "entry not mature")
NoUnbonding = _staking("NoUnbonding", 26, "no unbonding delegation found")
TooManyUnbondings = _staking("TooManyUnbondings", 27, "too many unbonding delegation entries for (delegator, validator) tuple")
NoRedelegation = _staking("NoRedelegation", 28, "no redelegation found")
SelfRedelegation = _staking("SelfRedelegation", 29, "cannot redelegate to the same validator")
TinyRedelegation = _staking("TinyRedelegation", 30, "too few tokens to redelegate (truncates to zero tokens)")
NoDestination = _staking("NoDestination", 31, "redelegation destination validator not found")
TransitiveRedelegation = _staking(
    "TransitiveRedelegation",
    32,
    "redelegation to this validator already in progress; first redelegation to this validator must complete before next redelegation",
)
TooManyRedelegations = _staking("TooManyRedelegations", 33, "too many redelegation entries for (delegator, src-validator, dst-validator) tuple")
InvalidExchangeRate = _staking("InvalidExchangeRate", 34, "cannot delegate to validators with invalid (zero) ex-rate")
BothSharesGiven = _staking("BothSharesGiven", 35, "both shares amount and shares percent provided")
NeitherSharesGiven = _staking("NeitherSharesGiven", 36, "neither shares amount nor shares percent provided")
InvalidHistoricalInfo = _staking("InvalidHistoricalInfo", 37, "invalid historical info")
NoHistoricalInfo = _staking("NoHistoricalInfo", 38, "no historical info found")
EmptyPublicKey = _staking("EmptyPublicKey", 39, "empty validator public key")
CommissionBelowMinimum = _staking("CommissionBelowMinimum", 40, "commission cannot be less than min rate")
UnbondingNotFound = _staking("UnbondingNotFound", 41, "unbonding operation not found")
UnbondingNotOnHold = _staking("UnbondingNotOnHold", 42, "cannot un-hold unbonding operation that is not on hold")
StakingInvalidSigner = _staking("StakingInvalidSigner", 43, "expected authority account as only signer for proposal message")
NoSource = _staking("NoSource", 44, "redelegation source validator not found")
NoUnbondingType = _staking("NoUnbondingType", 45, "unbonding type not found")

ERRORS: tuple[type[AppError], ...] = tuple(
    one for one in list(globals().values()) if isinstance(one, type) and getattr(one, "codespace", "") == "staking"
)
