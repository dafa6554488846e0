"""Rules of governance, by the SDK's codes (codespace ``gov``). 13 is ``chain.authority.InvalidSigner``."""

from chain.authority import InvalidSigner
from chain.errors import AppError


class _GovError(AppError):
    codespace = "gov"


class InactiveProposal(_GovError):
    code, description = 3, "inactive proposal"


class AlreadyActiveProposal(_GovError):
    code, description = 4, "proposal already active"


class InvalidProposalContent(_GovError):
    code, description = 5, "invalid proposal content"


class InvalidProposalType(_GovError):
    code, description = 6, "invalid proposal type"


class InvalidVote(_GovError):
    code, description = 7, "invalid vote option"


class InvalidGenesis(_GovError):
    code, description = 8, "invalid genesis state"


class NoProposalHandler(_GovError):
    code, description = 9, "no handler exists for proposal type"


class UnroutableProposalMessage(_GovError):
    code, description = 10, "proposal message not recognized by router"


class NoProposalMessages(_GovError):
    code, description = 11, "no messages proposed"


class InvalidProposalMessage(_GovError):
    code, description = 12, "invalid proposal message"


class MetadataTooLong(_GovError):
    code, description = 15, "metadata too long"


class MinDepositTooSmall(_GovError):
    code, description = 16, "minimum deposit is too small"


class InvalidProposer(_GovError):
    code, description = 18, "invalid proposer"


class VotingPeriodEnded(_GovError):
    code, description = 20, "voting period already ended"


class InvalidProposal(_GovError):
    code, description = 21, "invalid proposal"


class SummaryTooLong(_GovError):
    code, description = 22, "summary too long"


class InvalidDepositDenom(_GovError):
    code, description = 23, "invalid deposit denom"


ERRORS = (
    InactiveProposal,
    AlreadyActiveProposal,
    InvalidProposalContent,
    InvalidProposalType,
    InvalidVote,
    InvalidGenesis,
    NoProposalHandler,
    UnroutableProposalMessage,
    NoProposalMessages,
    InvalidProposalMessage,
    InvalidSigner,
    MetadataTooLong,
    MinDepositTooSmall,
    InvalidProposer,
    VotingPeriodEnded,
    InvalidProposal,
    SummaryTooLong,
    InvalidDepositDenom,
)
