"""Rules of register, by the original's codes (codespace ``register``); from 101 on those that the original has not.

49 to 57 stand for whatever the keeper refuses of a message; which rule it was is in the text. Source: stratos-chain.md 2.11.
"""

from chain.errors import AppError


class RegisterError(AppError):
    """Any rule of register."""

    codespace = "register"


class InvalidNetworkAddr(RegisterError):
    code, description = 3, "invalid network address"


class ValueNegative(RegisterError):
    code, description = 5, "value must be positive"


class EmptyMoniker(RegisterError):
    code, description = 7, "empty moniker"


class BadDenom(RegisterError):
    code, description = 10, "invalid coin denomination"


class InsufficientDeposit(RegisterError):
    code, description = 11, "insufficient deposit"


class ResourceNodePubKeyExists(RegisterError):
    code, description = 12, "resource node already exists for this public key"


class MetaNodePubKeyExists(RegisterError):
    code, description = 13, "meta node already exists for this public key"


class NoResourceNodeFound(RegisterError):
    code, description = 14, "resource node does not exist"


class NoMetaNodeFound(RegisterError):
    code, description = 15, "meta node does not exist"


class InsufficientBalance(RegisterError):
    code, description = 17, "insufficient balance"


class InvalidCandidateNetworkAddr(RegisterError):
    code, description = 23, "invalid network address of the candidate"


class InvalidCandidateOwnerAddr(RegisterError):
    code, description = 24, "invalid owner address of the candidate"


class NoCandidateMetaNodeFound(RegisterError):
    code, description = 25, "candidate meta node does not exist"


class InvalidVoterNetworkAddr(RegisterError):
    code, description = 26, "invalid network address of the voter"


class InvalidVoterOwnerAddr(RegisterError):
    code, description = 27, "invalid owner address of the voter"


class SameAddr(RegisterError):
    code, description = 29, "candidate and voter are the same node"


class InvalidOwnerAddr(RegisterError):
    code, description = 30, "invalid owner address"


class InvalidBeneficiaryAddr(RegisterError):
    code, description = 31, "invalid beneficiary address"


class NoRegistrationVotePoolFound(RegisterError):
    code, description = 33, "there is no registration vote of this node"


class DuplicateVoting(RegisterError):
    code, description = 34, "has voted already"


class VoteExpired(RegisterError):
    code, description = 35, "the vote is over"


class EmptyPubKey(RegisterError):
    code, description = 38, "empty public key"


class MaxUnbondingNodeEntries(RegisterError):
    code, description = 40, "too many unbonding entries of this node"


class UnbondingNodeState(RegisterError):
    code, description = 41, "the node is unbonding"


class RemainingNozLimit(RegisterError):
    code, description = 43, "remaining ozone limit would leave its bounds"


class InvalidDepositChange(RegisterError):
    code, description = 44, "deposit change must be positive"


class InvalidNodeType(RegisterError):
    code, description = 45, "invalid node type"


class UnknownPubKey(RegisterError):
    code, description = 47, "unknown kind of public key"


class InvalidNodeStat(RegisterError):
    code, description = 48, "node status does not allow it"


class RegisterResourceNode(RegisterError):
    code, description = 49, "failed to register the resource node"


class RegisterMetaNode(RegisterError):
    code, description = 50, "failed to register the meta node"


class UnbondResourceNode(RegisterError):
    code, description = 51, "failed to unbond the resource node"


class UnbondMetaNode(RegisterError):
    code, description = 52, "failed to unbond the meta node"


class UpdateResourceNode(RegisterError):
    code, description = 53, "failed to update the resource node"


class UpdateMetaNode(RegisterError):
    code, description = 54, "failed to update the meta node"


class UpdateResourceNodeDeposit(RegisterError):
    code, description = 55, "failed to update the deposit of the resource node"


class UpdateMetaNodeDeposit(RegisterError):
    code, description = 56, "failed to update the deposit of the meta node"


class VoteMetaNode(RegisterError):
    code, description = 57, "failed to vote on the meta node"


class ResourceNodeRegDisabled(RegisterError):
    code, description = 58, "registration of resource nodes is disabled"


class InvalidSuspensionStat(RegisterError):
    code, description = 59, "a suspended node cannot leave"


class ReporterAddress(RegisterError):
    code, description = 60, "invalid reporter address"


class InvalidAmount(RegisterError):
    code, description = 61, "invalid amount"


class ReporterAddressOrOwner(RegisterError):
    code, description = 62, "reporter is no active meta node of this owner"


class InvalidEffectiveToken(RegisterError):
    code, description = 63, "effective tokens must be positive"


class InvalidTargetNetworkAddr(RegisterError):
    code, description = 65, "invalid network address of the target"


class NoActiveTargetMetaNodeFound(RegisterError):
    code, description = 66, "target is no active meta node"


class NoActiveVoterMetaNodeFound(RegisterError):
    code, description = 67, "voter is no active meta node"


class TextTooLong(RegisterError):
    code, description = 101, "text of a description is too long"


class GovernanceDecides(RegisterError):
    code, description = 102, "too few meta nodes may vote: governance decides"


class MetaNodesDecide(RegisterError):
    code, description = 103, "governance does not vote while meta nodes can"


class TooManyReporters(RegisterError):
    code, description = 104, "too many reporters in one message"


class OwnerOwes(RegisterError):
    code, description = 105, "an owner with a debt names no other beneficiary"


ERRORS = tuple(sorted(RegisterError.__subclasses__(), key=lambda error: error.code))
