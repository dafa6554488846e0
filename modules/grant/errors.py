"""Rules of grant (codespace ``grant``)."""

from chain.errors import AppError


class _GrantError(AppError):
    codespace = "grant"


class PoolNotFound(_GrantError):
    code, description = 2, "no such pool"


class CampaignNotFound(_GrantError):
    code, description = 3, "no such campaign"


class PromotionNotFound(_GrantError):
    code, description = 4, "no such promotion"


class NotAdmin(_GrantError):
    code, description = 5, "not the admin"


class NotOperator(_GrantError):
    code, description = 6, "not an operator of the campaign"


class CampaignEnded(_GrantError):
    code, description = 7, "the campaign has ended"


class PromotionClosed(_GrantError):
    code, description = 8, "the promotion is not open"


class AlreadyClaimed(_GrantError):
    code, description = 9, "the wallet has claimed this promotion"


class InvalidWallets(_GrantError):
    code, description = 10, "invalid list of wallets"


class WalletLimit(_GrantError):
    code, description = 11, "more than a wallet may get"


class DailyLimit(_GrantError):
    code, description = 12, "more than the campaign may spend in a day"


class BudgetSpent(_GrantError):
    code, description = 13, "more than is left of the budget"


class PoolMoney(_GrantError):
    code, description = 14, "more than the pool's free money"


class TooManyCampaigns(_GrantError):
    code, description = 15, "too many open campaigns"


class InvalidFunding(_GrantError):
    code, description = 16, "invalid funding"


class InvalidName(_GrantError):
    code, description = 17, "invalid name"


class InvalidOperators(_GrantError):
    code, description = 18, "invalid list of operators"


class InvalidPromotion(_GrantError):
    code, description = 19, "invalid promotion"


class InvalidTerms(_GrantError):
    code, description = 20, "invalid terms of a campaign"


class InvalidParams(_GrantError):
    code, description = 21, "invalid parameters"


class PromoOutstanding(_GrantError):
    code, description = 22, "more granted ozone than is outstanding"


class NotSold(_GrantError):
    code, description = 23, "more ozone than was sold and not granted"


ERRORS = (
    PoolNotFound,
    CampaignNotFound,
    PromotionNotFound,
    NotAdmin,
    NotOperator,
    CampaignEnded,
    PromotionClosed,
    AlreadyClaimed,
    InvalidWallets,
    WalletLimit,
    DailyLimit,
    BudgetSpent,
    PoolMoney,
    TooManyCampaigns,
    InvalidFunding,
    InvalidName,
    InvalidOperators,
    InvalidPromotion,
    InvalidTerms,
    InvalidParams,
    PromoOutstanding,
    NotSold,
)
