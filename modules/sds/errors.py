"""Rules of sds that its arithmetic knows, by the original's codes (codespace ``sds``)."""

from chain.errors import AppError


class _SdsError(AppError):
    codespace = "sds"


class OzoneLimitNotEnough(_SdsError):
    code, description = 14, "not enough remaining ozone limit"
