"""Rules of the bank, by the SDK's codes (codespace ``bank``)."""

from chain.errors import AppError


class _BankError(AppError):
    codespace = "bank"


class NoInputs(_BankError):
    code, description = 2, "no inputs to send transaction"


class NoOutputs(_BankError):
    code, description = 3, "no outputs to send transaction"


class InputOutputMismatch(_BankError):
    code, description = 4, "sum inputs != sum outputs"


class SendDisabled(_BankError):
    code, description = 5, "send transactions are disabled"


class DenomMetadataNotFound(_BankError):
    code, description = 6, "client denom metadata not found"


class InvalidKey(_BankError):
    code, description = 7, "invalid key"


class DuplicateEntry(_BankError):
    code, description = 8, "duplicate entry"


class MultipleSenders(_BankError):
    code, description = 9, "multiple senders not allowed"


ERRORS = (NoInputs, NoOutputs, InputOutputMismatch, SendDisabled, DenomMetadataNotFound, InvalidKey, DuplicateEntry, MultipleSenders)
