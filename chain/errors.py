"""Errors that reach a user, with the codespace and code that clients switch on.

    AppError                  one rule was broken; carries (codespace, code) and a sentence
    ├── one subclass per rule of the Cosmos SDK's root codespace (below)
    └── one subclass per rule of a module (``modules/<name>/errors.py``)
    InvariantBroken           a promise of our own code was broken: stops the node
    Halt                      the node has to stop on purpose (halt height, wrong binary)
    └── UpgradeNeeded         the chain stands at a height that another binary goes on from

Codes are append-only: a number that was on the wire once is never given another meaning.
Source: reference of SDK 0.50 root errors (codespace ``sdk``) and ``undefined``/111222 for what no rule raised.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

ROOT_CODESPACE = "sdk"
UNDEFINED_CODESPACE = "undefined"
INTERNAL_CODE = 1
PANIC_CODE = 111222


class AppError(Exception):
    """A rule was broken by what came from outside. ``str(error)`` says what was expected and what came.

    Class attributes: ``codespace`` (text, ASCII), ``code`` (1 or more), ``description`` (the SDK's short text of the code).
    The log line that clients see is ``"<detail>: <description>"``, as the SDK's wrapped errors print it.
    """

    codespace: ClassVar[str] = ROOT_CODESPACE
    code: ClassVar[int] = INTERNAL_CODE
    description: ClassVar[str] = "internal"

    def __init__(self, detail: str = "") -> None:
        # A detail may quote what users wrote. It goes into answers and into state, which hold Unicode: half of a surrogate pair is none.
        self.detail = detail if detail.isascii() else detail.encode(errors="replace").decode()
        super().__init__(f"{self.detail}: {self.description}" if detail else self.description)


class InvariantBroken(Exception):
    """A promise of our own code does not hold; going on would corrupt state, so the node stops."""


class Halt(Exception):
    """The node must stop at this height on purpose; the message says why and what the operator does next."""


class UpgradeNeeded(Halt):
    """Another binary has to execute this block. The node gives no answer to it, and serves its last height until it is stopped."""


def _root(name: str, code: int, description: str) -> type[AppError]:
    body = {"code": code, "description": description, "__module__": __name__, "__doc__": f"sdk/{code}: {description}."}
    return type(name, (AppError,), body)


TxDecodeError = _root("TxDecodeError", 2, "tx parse error")
InvalidSequence = _root("InvalidSequence", 3, "invalid sequence")
Unauthorized = _root("Unauthorized", 4, "unauthorized")
InsufficientFunds = _root("InsufficientFunds", 5, "insufficient funds")
UnknownRequest = _root("UnknownRequest", 6, "unknown request")
InvalidAddress = _root("InvalidAddress", 7, "invalid address")
InvalidPubKey = _root("InvalidPubKey", 8, "invalid pubkey")
UnknownAddress = _root("UnknownAddress", 9, "unknown address")
InvalidCoins = _root("InvalidCoins", 10, "invalid coins")
OutOfGas = _root("OutOfGas", 11, "out of gas")
MemoTooLarge = _root("MemoTooLarge", 12, "memo too large")
InsufficientFee = _root("InsufficientFee", 13, "insufficient fee")
TooManySignatures = _root("TooManySignatures", 14, "maximum number of signatures exceeded")
NoSignatures = _root("NoSignatures", 15, "no signatures supplied")
JSONMarshalError = _root("JSONMarshalError", 16, "failed to marshal JSON bytes")
JSONUnmarshalError = _root("JSONUnmarshalError", 17, "failed to unmarshal JSON bytes")
InvalidRequest = _root("InvalidRequest", 18, "invalid request")
TxInMempool = _root("TxInMempool", 19, "tx already in mempool")
MempoolIsFull = _root("MempoolIsFull", 20, "mempool is full")
TxTooLarge = _root("TxTooLarge", 21, "tx too large")
KeyNotFound = _root("KeyNotFound", 22, "key not found")
WrongPassword = _root("WrongPassword", 23, "invalid account password")
IncorrectSigner = _root("IncorrectSigner", 24, "tx intended signer does not match the given signer")
InvalidGasAdjustment = _root("InvalidGasAdjustment", 25, "invalid gas adjustment")
InvalidHeight = _root("InvalidHeight", 26, "invalid height")
InvalidVersion = _root("InvalidVersion", 27, "invalid version")
InvalidChainID = _root("InvalidChainID", 28, "invalid chain-id")
InvalidType = _root("InvalidType", 29, "invalid type")
TxTimeoutHeight = _root("TxTimeoutHeight", 30, "tx timeout height")
UnknownExtensionOptions = _root("UnknownExtensionOptions", 31, "unknown extension options")
WrongSequence = _root("WrongSequence", 32, "incorrect account sequence")
PackAnyError = _root("PackAnyError", 33, "failed packing protobuf message to Any")
UnpackAnyError = _root("UnpackAnyError", 34, "failed unpacking protobuf message from Any")
LogicError = _root("LogicError", 35, "internal logic error")
Conflict = _root("Conflict", 36, "conflict")
NotSupported = _root("NotSupported", 37, "feature not supported")
NotFound = _root("NotFound", 38, "not found")
IOFailure = _root("IOFailure", 39, "Internal IO error")
AppConfigError = _root("AppConfigError", 40, "error in app.toml")
InvalidGasLimit = _root("InvalidGasLimit", 41, "invalid gas limit")


class UndefinedError(AppError):
    """undefined/1: a rule whose error the SDK never gave a code; the log line is its sentence alone."""

    codespace = UNDEFINED_CODESPACE
    code = INTERNAL_CODE

    def __str__(self) -> str:
        return self.detail


class PanicError(AppError):
    """undefined/111222: an exception no rule raised; the SDK reports a panic in a handler this way."""

    codespace = UNDEFINED_CODESPACE
    code = PANIC_CODE
    description = "panic"


def with_detail(error: AppError, detail: str) -> AppError:
    """An error of the same codespace and code with another sentence."""
    return type(error)(detail.removesuffix(": "))


@contextmanager
def wrapped(rule: type[AppError], *through: type[AppError]) -> Iterator[None]:
    """Have whatever is refused come out as ``rule``, with the whole of the refusal in its sentence. ``rule`` itself and those of ``through`` stay what
    they are, and so does running out of gas."""
    try:
        yield
    except (OutOfGas, rule, *through):
        raise
    except AppError as error:
        raise rule(str(error)) from error
