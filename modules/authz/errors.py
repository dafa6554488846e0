"""Rules of authz, by the SDK's codes (codespace ``authz``)."""

from chain.authorization import NegativeMaxTokens, UnknownAuthorizationType
from chain.errors import AppError


class _AuthzError(AppError):
    codespace = "authz"


class NoAuthorization(_AuthzError):
    code, description = 2, "authorization not found"


class InvalidExpiration(_AuthzError):
    code, description = 3, "expiration time of authorization should be more than current time"


class NoGrantKey(_AuthzError):
    code, description = 5, "grant key not found"


class AuthorizationExpired(_AuthzError):
    code, description = 6, "authorization expired"


class GranteeIsGranter(_AuthzError):
    code, description = 7, "grantee and granter should be different"


class NumberOfSigners(_AuthzError):
    code, description = 9, "authorization can be given to msg with only one signer"


ERRORS = (
    NoAuthorization,
    InvalidExpiration,
    UnknownAuthorizationType,
    NoGrantKey,
    AuthorizationExpired,
    GranteeIsGranter,
    NumberOfSigners,
    NegativeMaxTokens,
)
