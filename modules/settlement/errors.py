"""Rules of settlement (codespace ``settlement``). All of them are ours: the original has no such module."""

from chain.errors import AppError


class _SettlementError(AppError):
    codespace = "settlement"


class InvalidParams(_SettlementError):
    code, description = 2, "invalid parameter"


class UnknownMetaNode(_SettlementError):
    code, description = 3, "no such bonded meta node"


class NotOwner(_SettlementError):
    code, description = 4, "not the owner of the meta node"


class InvalidKey(_SettlementError):
    code, description = 5, "invalid BLS public key"


class InvalidPossession(_SettlementError):
    code, description = 6, "invalid proof of possession"


class KeyInUse(_SettlementError):
    code, description = 7, "the key is another meta node's"


class InvalidLedgerKey(_SettlementError):
    code, description = 8, "invalid ledger consensus key"


class LedgerKeyFixed(_SettlementError):
    code, description = 9, "a ledger consensus key stays as it is"


class InvalidCommitment(_SettlementError):
    code, description = 10, "invalid commitment"


class CommitmentAlone(_SettlementError):
    code, description = 11, "a commitment without its report"


class NoCommitment(_SettlementError):
    code, description = 12, "a report without its commitment"


class CommitmentMismatch(_SettlementError):
    code, description = 13, "the report and the commitment do not fit"


class EpochNotKept(_SettlementError):
    code, description = 14, "nothing is kept of the epoch"


class EpochVoid(_SettlementError):
    code, description = 15, "the epoch is void already"


class EpochMatures(_SettlementError):
    code, description = 16, "the epoch's rewards have begun to mature"


class InvalidProof(_SettlementError):
    code, description = 17, "what is shown is not what was committed or signed"


class NoFraud(_SettlementError):
    code, description = 18, "what is shown is no fraud"


class LeasePunished(_SettlementError):
    code, description = 19, "the lease was punished already"


class LeafChallenged(_SettlementError):
    code, description = 20, "the leaf is challenged already"


class TooManyChallenges(_SettlementError):
    code, description = 21, "too many open challenges"


class UnknownChallenge(_SettlementError):
    code, description = 22, "no such open challenge"


ERRORS = (
    InvalidParams,
    UnknownMetaNode,
    NotOwner,
    InvalidKey,
    InvalidPossession,
    KeyInUse,
    InvalidLedgerKey,
    LedgerKeyFixed,
    InvalidCommitment,
    CommitmentAlone,
    NoCommitment,
    CommitmentMismatch,
    EpochNotKept,
    EpochVoid,
    EpochMatures,
    InvalidProof,
    NoFraud,
    LeasePunished,
    LeafChallenged,
    TooManyChallenges,
    UnknownChallenge,
)
