"""Rules of pot, by the original's codes (codespace ``pot``); codes from 101 on are new rules.

29 to 32 wrap what the keeper refuses, as the original does: its own sentence, with the rule inside, is in the log.
"""

from __future__ import annotations

from chain.errors import AppError


class _PotError(AppError):
    codespace = "pot"


class Invalid(_PotError):
    code, description = 2, "error invalid"


class OutOfIssuance(_PotError):
    code, description = 3, "mining reward reaches the issuance limit"


class WithdrawAmountInvalid(_PotError):
    code, description = 4, "withdraw amount is invalid"


class MissingWalletAddress(_PotError):
    code, description = 5, "missing wallet address"


class MissingTargetAddress(_PotError):
    code, description = 6, "missing target or network address"


class InsufficientMatureTotal(_PotError):
    code, description = 7, "insufficient mature total"


class MatureEpoch(_PotError):
    code, description = 8, "epoch is not above the last distributed epoch, or epochs to maturity are out of range"


class MiningRewardParams(_PotError):
    code, description = 9, "invalid mining reward params"


class CommunityTax(_PotError):
    code, description = 10, "community tax must be from 0 to 1"


class InitialTotalSupply(_PotError):
    code, description = 11, "invalid initial total supply"


class EmptyFromAddr(_PotError):
    code, description = 12, "missing from address"


class EmptyReporterAddr(_PotError):
    code, description = 13, "missing reporter address"


class EmptyWalletVolumes(_PotError):
    code, description = 14, "wallet volumes list empty"


class EpochNotPositive(_PotError):
    code, description = 15, "report epoch is not positive"


class EmptyReportReference(_PotError):
    code, description = 16, "missing report reference, or one that is too long"


class ReporterOwnerAddr(_PotError):
    code, description = 17, "invalid reporter owner address"


class NegativeVolume(_PotError):
    code, description = 18, "report volume is negative or too large"


class FoundationDepositAmountInvalid(_PotError):
    code, description = 19, "foundation deposit amount is invalid"


class BLSSignatureInvalid(_PotError):
    code, description = 20, "BLS signature is invalid"


class BLSTxDataInvalid(_PotError):
    code, description = 21, "BLS signature txData is invalid"


class BLSPubkeysInvalid(_PotError):
    code, description = 22, "BLS signature pubkeys are invalid"


class BLSVerifyFailed(_PotError):
    code, description = 23, "BLS signature verify failed"


class BLSNotReachThreshold(_PotError):
    code, description = 24, "BLS signed meta nodes do not reach the threshold"


class ReporterAddress(_PotError):
    code, description = 25, "invalid reporter address"


class InvalidAmount(_PotError):
    code, description = 26, "invalid amount"


class InvalidAddress(_PotError):
    code, description = 27, "invalid address"


class InvalidDenom(_PotError):
    code, description = 28, "invalid denomination"


class WithdrawFailure(_PotError):
    code, description = 29, "failure during withdraw"


class FoundationDepositFailure(_PotError):
    code, description = 30, "failure during foundation deposit"


class SlashingResourceNodeFailure(_PotError):
    code, description = 31, "failure during slashing resource node"


class VolumeReport(_PotError):
    code, description = 32, "failed to report volume"


class ReporterAddressOrOwner(_PotError):
    code, description = 33, "invalid reporter address or owner address"


class TotalSupplyCapHit(_PotError):
    code, description = 34, "minting not completed because total supply cap is hit"


class InsufficientCommunityPool(_PotError):
    code, description = 35, "burning not completed because of insufficient balance in community pool"


class EmitEvent(_PotError):
    code, description = 36, "failed to emit event"


class EpochNotDue(_PotError):
    code, description = 101, "an epoch follows the last one and not before that one is over"


class MiningCap(_PotError):
    code, description = 102, "mining cap ratio must be from 0 to 1000"


class EpochTooHigh(_PotError):
    code, description = 103, "an epoch is at most 2^62"


class TooManyWallets(_PotError):
    code, description = 104, "a report lists more wallets than allowed"


class WalletOrder(_PotError):
    code, description = 105, "wallets of a report must ascend, each once"


class NotTheOwner(_PotError):
    code, description = 106, "the wallet to be slashed must be the node's owner"


class AlreadyApproved(_PotError):
    code, description = 107, "a meta node approves a slashing once"


class EpochLimits(_PotError):
    code, description = 108, "epoch duration or wallets of a report are out of range"


class NotMaturing(_PotError):
    code, description = 109, "an epoch can be voided once, and until its rewards begin to mature"


ERRORS = (
    Invalid,
    OutOfIssuance,
    WithdrawAmountInvalid,
    MissingWalletAddress,
    MissingTargetAddress,
    InsufficientMatureTotal,
    MatureEpoch,
    MiningRewardParams,
    CommunityTax,
    InitialTotalSupply,
    EmptyFromAddr,
    EmptyReporterAddr,
    EmptyWalletVolumes,
    EpochNotPositive,
    EmptyReportReference,
    ReporterOwnerAddr,
    NegativeVolume,
    FoundationDepositAmountInvalid,
    BLSSignatureInvalid,
    BLSTxDataInvalid,
    BLSPubkeysInvalid,
    BLSVerifyFailed,
    BLSNotReachThreshold,
    ReporterAddress,
    InvalidAmount,
    InvalidAddress,
    InvalidDenom,
    WithdrawFailure,
    FoundationDepositFailure,
    SlashingResourceNodeFailure,
    VolumeReport,
    ReporterAddressOrOwner,
    TotalSupplyCapHit,
    InsufficientCommunityPool,
    EmitEvent,
    EpochNotDue,
    MiningCap,
    EpochTooHigh,
    TooManyWallets,
    WalletOrder,
    NotTheOwner,
    AlreadyApproved,
    EpochLimits,
    NotMaturing,
)
"""2, 3, 34, 35 and 36 are on the wire no longer and keep their meaning: the README says what happens instead."""
