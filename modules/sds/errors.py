"""Rules of sds, by the original's codes (codespace ``sds``)."""

from chain.errors import AppError


class _SdsError(AppError):
    codespace = "sds"


class EmptyUploaderAddr(_SdsError):
    code, description = 4, "missing uploader address"


class EmptyReporters(_SdsError):
    code, description = 5, "missing reporter address"


class EmptyFileHash(_SdsError):
    code, description = 6, "missing file hash"


class InvalidFileHash(_SdsError):
    code, description = 7, "invalid file hash"


class NoFileFound(_SdsError):
    code, description = 8, "file does not exist"


class InvalidDenom(_SdsError):
    code, description = 9, "invalid denomination"


class PrepayFailure(_SdsError):
    code, description = 10, "failure during prepay"


class ReporterAddressOrOwner(_SdsError):
    code, description = 11, "invalid reporter address or owner address"


class InvalidSenderAddr(_SdsError):
    code, description = 12, "invalid sender address"


class InvalidBeneficiaryAddr(_SdsError):
    code, description = 13, "invalid beneficiary address"


class OzoneLimitNotEnough(_SdsError):
    code, description = 14, "not enough remaining ozone limit"


ERRORS = (
    EmptyUploaderAddr,
    EmptyReporters,
    EmptyFileHash,
    InvalidFileHash,
    NoFileFound,
    InvalidDenom,
    PrepayFailure,
    ReporterAddressOrOwner,
    InvalidSenderAddr,
    InvalidBeneficiaryAddr,
    OzoneLimitNotEnough,
)
