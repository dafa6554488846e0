"""What pools, campaigns and promotions may say: checks of the words and numbers alone, before any state is read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from chain.codec.canonical import known
from chain.coins import Coin, from_messages
from chain.crypto import address as bech32
from chain.errors import AppError
from chain.ozone import bounded
from chain.tx.fees import BASE_DENOM, to_base
from modules.grant.errors import InvalidFunding, InvalidName, InvalidOperators, InvalidPromotion, InvalidTerms, InvalidWallets
from modules.grant.records import amount, ns_of

MAX_NAME_BYTES: Final = 64
MAX_OPERATORS: Final = 32
MAX_PROMOTIONS: Final = 16
MAX_WALLETS: Final = 100
_DELETE: Final = 0x7F


def check_name(name: str) -> None:
    """Raise InvalidName (grant/17) unless it has 1 to 64 bytes of UTF-8 and no control characters."""
    raw = name.encode()
    if not 1 <= len(raw) <= MAX_NAME_BYTES:
        raise InvalidName(f"expected 1 to {MAX_NAME_BYTES} bytes, got {len(raw)}")
    if any(byte < 0x20 or byte == _DELETE for byte in raw):
        raise InvalidName("expected no control characters")


def funding_wei(coin: Any) -> int:
    """wei of a Coin in wei, gwei or stos. Raises InvalidFunding (grant/16) unless it is a positive amount of at most 2^127 - 1 wei."""
    try:
        paid = to_base(from_messages([coin]))
    except AppError as error:
        raise InvalidFunding(error.detail) from None
    if paid[0].denom != BASE_DENOM:
        raise InvalidFunding(f"expected wei, gwei or stos, got {paid[0].denom}")
    try:
        return bounded(paid[0].amount, "an amount of wei")
    except AppError as error:
        raise InvalidFunding(error.detail) from None


def coins(amount_wei: int) -> tuple[Coin]:
    """Coins of a positive amount of wei."""
    return (Coin(BASE_DENOM, amount_wei),)


def addresses(texts: Sequence[str], at_least: int, at_most: int, what: str, error: type[AppError]) -> list[bytes]:
    """The addresses of a list, in its order. Raises ``error`` for too few or too many, for one that is none, and for one that is there twice."""
    if not at_least <= len(texts) <= at_most:
        raise error(f"expected {at_least} to {at_most} {what}, got {len(texts)}")
    found: dict[bytes, None] = {}
    for text in texts:
        try:
            address = bech32.decode(text)
        except AppError as bad:
            raise error(bad.detail) from None
        if address in found:
            raise error(f"{bech32.encode(address)} is listed twice")
        found[address] = None
    return list(found)


def operators(texts: Sequence[str], at_least: int = 0) -> list[str]:
    """Operators in canonical text. Raises InvalidOperators (grant/18): at most 32, each once. None at all means that nobody may claim for now."""
    return [bech32.encode(one) for one in addresses(texts, at_least, MAX_OPERATORS, "operators", InvalidOperators)]


def wallets(texts: Sequence[str]) -> list[bytes]:
    """Wallets of a claim. Raises InvalidWallets (grant/10): 1 to 100, each once."""
    return addresses(texts, 1, MAX_WALLETS, "wallets", InvalidWallets)


def check_promotion(promotion: Any, number: int, max_noz_per_wallet: int, campaign_end_ns: int) -> Any:
    """The promotion as it is stored. Raises InvalidPromotion (grant/19) unless it has the next number, gives from 1 noz to what a wallet may get, and
    begins before it ends, not later than its campaign; InvalidName (grant/17)."""
    check_name(promotion.name)
    if promotion.promotion_id != number:
        raise InvalidPromotion(f"expected the next number, {number}, got {promotion.promotion_id}")
    try:
        noz = amount(promotion.noz_per_wallet, "noz_per_wallet")
        start_ns, end_ns = ns_of(promotion.start_time, "start_time"), ns_of(promotion.end_time, "end_time")
    except AppError as error:
        raise InvalidPromotion(error.detail) from None
    if not 1 <= noz <= max_noz_per_wallet:
        raise InvalidPromotion(f"expected noz_per_wallet from 1 to the campaign's {max_noz_per_wallet} for a wallet, got {noz}")
    if not start_ns < end_ns <= campaign_end_ns:
        raise InvalidPromotion("expected start_time before end_time, and end_time not after the campaign's")
    checked = known(promotion)
    checked.noz_per_wallet = str(noz)
    return checked


def promotions(message: Any) -> list[Any]:
    """Promotions of a MsgCreateCampaign or of a Campaign as they are stored. Raises InvalidPromotion (grant/19), InvalidName (17)."""
    if len(message.promotions) > MAX_PROMOTIONS:
        raise InvalidPromotion(f"expected at most {MAX_PROMOTIONS} promotions, got {len(message.promotions)}")
    wallet_noz, end_ns = int(message.max_noz_per_wallet), ns_of(message.end_time, "end_time")
    return [check_promotion(one, number, wallet_noz, end_ns) for number, one in enumerate(message.promotions, 1)]


def check_terms(message: Any) -> None:
    """Terms of a MsgCreateCampaign or of a Campaign, but for what parameters and the time of the block decide. Raises InvalidTerms (grant/20),
    InvalidName (17), InvalidOperators (18), InvalidPromotion (19)."""
    check_name(message.name)
    operators(message.operators)
    try:
        budget_wei = amount(message.budget_wei, "budget_wei")
        day_wei = amount(message.max_wei_per_day, "max_wei_per_day")
        wallet_noz = amount(message.max_noz_per_wallet, "max_noz_per_wallet")
        ns_of(message.end_time, "end_time")
    except AppError as error:
        raise InvalidTerms(error.detail) from None
    if budget_wei == 0:
        raise InvalidTerms("expected a positive budget_wei, got 0")
    if not 1 <= day_wei <= budget_wei:
        raise InvalidTerms(f"expected max_wei_per_day from 1 to the budget, {budget_wei}, got {day_wei}")
    if wallet_noz == 0:
        raise InvalidTerms("expected a positive max_noz_per_wallet, got 0")
    if message.validity_s == 0:
        raise InvalidTerms("expected a positive validity_s, got 0")
    promotions(message)
