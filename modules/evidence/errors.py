"""Rules of evidence, by the SDK's codes (codespace ``evidence``)."""

from chain.errors import AppError


class _EvidenceError(AppError):
    codespace = "evidence"


class NoHandler(_EvidenceError):
    code, description = 2, "unregistered handler for evidence type"


class InvalidEvidence(_EvidenceError):
    code, description = 3, "invalid evidence"


class EvidenceExists(_EvidenceError):
    code, description = 5, "evidence already exists"


ERRORS = (NoHandler, InvalidEvidence, EvidenceExists)
