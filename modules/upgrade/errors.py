"""Rules of upgrade, by the SDK's codes (codespace ``upgrade``)."""

from chain.errors import AppError


class _UpgradeError(AppError):
    codespace = "upgrade"


class ModuleVersionNotFound(_UpgradeError):
    code, description = 2, "module version not found"


class PlanNotFound(_UpgradeError):
    code, description = 3, "upgrade plan not found"


class UpgradedClientNotFound(_UpgradeError):
    code, description = 4, "upgraded client not found"


class UpgradedConsensusStateNotFound(_UpgradeError):
    code, description = 5, "upgraded consensus state not found"


class InvalidSigner(_UpgradeError):
    code, description = 6, "expected authority account as only signer for proposal message"


ERRORS = (ModuleVersionNotFound, PlanNotFound, UpgradedClientNotFound, UpgradedConsensusStateNotFound, InvalidSigner)
