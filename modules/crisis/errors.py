"""Rules of crisis, by the SDK's codes (codespace ``crisis``)."""

from chain.errors import AppError


class _CrisisError(AppError):
    codespace = "crisis"


class NoSender(_CrisisError):
    code, description = 2, "sender address is empty"


class UnknownInvariant(_CrisisError):
    code, description = 3, "unknown invariant"


ERRORS = (NoSender, UnknownInvariant)
