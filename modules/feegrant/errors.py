"""Rules of feegrant, by the SDK's codes (codespace ``feegrant``)."""

from chain.errors import AppError


class _FeegrantError(AppError):
    codespace = "feegrant"


class FeeLimitExceeded(_FeegrantError):
    code, description = 2, "fee limit exceeded"


class FeeLimitExpired(_FeegrantError):
    code, description = 3, "fee allowance expired"


class InvalidDuration(_FeegrantError):
    code, description = 4, "invalid duration"


class NoAllowance(_FeegrantError):
    code, description = 5, "no allowance"


class NoMessages(_FeegrantError):
    code, description = 6, "allowed messages are empty"


class MessageNotAllowed(_FeegrantError):
    code, description = 7, "message not allowed"


ERRORS = (FeeLimitExceeded, FeeLimitExpired, InvalidDuration, NoAllowance, NoMessages, MessageNotAllowed)
