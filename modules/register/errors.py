"""Rules of register that its arithmetic knows, by the original's codes (codespace ``register``)."""

from chain.errors import AppError


class _RegisterError(AppError):
    codespace = "register"


class InsufficientBalance(_RegisterError):
    code, description = 17, "insufficient balance"


class RemainingNozLimit(_RegisterError):
    code, description = 43, "remaining ozone limit would fall below zero"


class InvalidNodeType(_RegisterError):
    code, description = 45, "invalid node type"


class InvalidAmount(_RegisterError):
    code, description = 61, "invalid amount"


class InvalidEffectiveToken(_RegisterError):
    code, description = 63, "effective tokens must be positive"
