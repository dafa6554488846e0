"""Rules of pot that its arithmetic knows, by the original's codes (codespace ``pot``); codes from 101 on are new rules."""

from chain.errors import AppError


class _PotError(AppError):
    codespace = "pot"


class InsufficientMatureTotal(_PotError):
    code, description = 7, "insufficient mature total"


class MatureEpoch(_PotError):
    code, description = 8, "epoch is not above the last distributed epoch"


class MiningRewardParams(_PotError):
    code, description = 9, "invalid mining reward params"


class CommunityTax(_PotError):
    code, description = 10, "community tax must be from 0 to 1"


class VolumeReport(_PotError):
    code, description = 32, "failed to report volume"


class EpochNotDue(_PotError):
    code, description = 101, "an epoch follows the last one and not before that one is over"


class MiningCap(_PotError):
    code, description = 102, "mining cap ratio must be from 0 to 1000"
