"""What ozone costs, what a payment buys, and how granted ozone is paid for and expires (stratos-chain.md 3.3, 3.4, 4.3; storage-protocol.md 1.4, 1.5)."""

from __future__ import annotations

from dataclasses import replace

from chain.dec import Dec, dec_of
from chain.errors import InvalidCoins, InvalidRequest
from chain.ozone import Ozone, bounded, traffic_value
from modules.sds.errors import OzoneLimitNotEnough


def price(pool: Ozone) -> Dec:
    """wei per noz: (S + Pt) ÷ Lt, rounded half to even. Raises OzoneLimitNotEnough (sds/14) at Lt = 0."""
    if pool.remaining_noz == 0:
        raise OzoneLimitNotEnough("all ozone is sold, so it has no price")
    return dec_of(pool.deposit_wei + pool.prepaid_wei).quo(dec_of(pool.remaining_noz))


def purchasable_noz(pool: Ozone, paid_wei: int) -> int:
    """noz that ``paid_wei`` (X) buy: trunc(Lt·X ÷ (S + Pt + X)).

    The quotient is a Dec rounded half to even, so with more than 2·10^18 wei in the pool it may come out one above the exact floor; with the
    solvency rules it is the exact floor. Raises InvalidCoins (sdk/10) unless X is positive, InvalidRequest (sdk/18) above 2^127 - 1, and with the
    solvency rules OzoneLimitNotEnough (sds/14) at Lt = 0, where the original takes the money and gives nothing.
    """
    if paid_wei <= 0:
        raise InvalidCoins("expected a positive amount of wei to buy ozone with")
    bounded(paid_wei, "a payment")
    product, divisor = pool.remaining_noz * paid_wei, pool.deposit_wei + pool.prepaid_wei + paid_wei
    if not pool.solvency:
        return dec_of(product).quo(dec_of(divisor)).truncate()
    if pool.remaining_noz == 0:
        raise OzoneLimitNotEnough("all ozone is sold")
    return product // divisor


def prepay(pool: Ozone, paid_wei: int) -> tuple[Ozone, int]:
    """The pool after a purchase, and the noz bought: Pt += X, Lt −= noz. Raises what ``purchasable_noz`` does."""
    noz = purchasable_noz(pool, paid_wei)
    return replace(pool, prepaid_wei=pool.prepaid_wei + paid_wei, remaining_noz=pool.remaining_noz - noz), noz


def cost_wei(pool: Ozone, noz: int) -> int:
    """wei that buy at least ``noz``: ceil((S + Pt)·noz ÷ (Lt − noz)). Raises InvalidRequest (sdk/18) unless noz is positive, OzoneLimitNotEnough
    (sds/14) for all that remains or more, and where nothing has a price because S + Pt = 0."""
    if bounded(noz, "an amount of ozone") == 0:
        raise InvalidRequest("expected a positive amount of ozone")
    value_wei = pool.deposit_wei + pool.prepaid_wei
    if noz >= pool.remaining_noz or value_wei == 0:
        raise OzoneLimitNotEnough(f"{noz} noz of {pool.remaining_noz} noz cannot be bought for any amount")
    return -(-value_wei * noz // (pool.remaining_noz - noz))


def claim(pool: Ozone, noz: int) -> tuple[Ozone, int]:
    """The pool after a grant of ``noz``, and the wei that the grant pool pays for it. Raises what ``cost_wei`` does."""
    cost = cost_wei(pool, noz)
    return replace(pool, prepaid_wei=pool.prepaid_wei + cost, remaining_noz=pool.remaining_noz - noz), cost


def expiry_refund_wei(pool: Ozone, expired_noz: int, promo_outstanding_noz: int, promo_cost_wei: int) -> int:
    """wei that go back to the grant pool for granted noz that nobody used, before they return to the limit.

    trunc(min(R(Z), Pt·Z ÷ A, cost·Z ÷ promo_outstanding)), whether the solvency rules are on or off: a refund is never more than what the noz cost
    nor than their part of the prepaid wei. Raises InvalidRequest (sdk/18) for amounts out of range and for more than what is outstanding.
    """
    bounded(expired_noz, "expired ozone")
    bounded(promo_cost_wei, "the cost of granted ozone")
    if not 0 < expired_noz <= bounded(promo_outstanding_noz, "granted ozone"):
        raise InvalidRequest(f"expected expired ozone from 1 to the {promo_outstanding_noz} noz that are granted and unused, got {expired_noz}")
    value = traffic_value(replace(pool, solvency=True), expired_noz).truncate()
    return min(value, pool.prepaid_wei, promo_cost_wei * expired_noz // promo_outstanding_noz)
