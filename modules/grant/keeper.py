"""Pools, campaigns, claims, and granted ozone that is not used yet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from chain.authority import GOV_ADDRESS
from chain.codec.canonical import encode, known
from chain.codec.registry import message_class
from chain.codec.times import NANOS, rfc3339, set_ns
from chain.context import Context
from chain.crypto import address as bech32
from chain.ozone import Ozone as OzonePool
from chain.ozone import bounded
from chain.store.api import StateReader, StateWriter, prefix_end
from modules.grant import events, keys, terms
from modules.grant.errors import (
    AlreadyClaimed,
    BudgetSpent,
    CampaignEnded,
    CampaignNotFound,
    DailyLimit,
    InvalidFunding,
    InvalidPromotion,
    InvalidTerms,
    NotAdmin,
    NotOperator,
    NotSold,
    PoolMoney,
    PoolNotFound,
    PromoOutstanding,
    PromotionClosed,
    PromotionNotFound,
    TooManyCampaigns,
    WalletLimit,
)
from modules.grant.expected import Bank, Ozone
from modules.grant.params import Params
from modules.grant.records import ACCOUNT, COMMON_POOL, ENDED, OPEN, Campaign, Claim, Pool, ns_of, reserved_wei

DAY_NS: Final = 86_400 * NANOS
_Int: Final = message_class("stratos.types.v1.Int")


class GrantKeeper:
    """Pools, campaigns, claims, and granted ozone that is not used yet."""

    def __init__(self, bank: Bank, ozone: Ozone) -> None:
        self.bank = bank
        self._ozone = ozone

    # --- what an epoch did to granted ozone (settlement) ------------------------------------------------------------------------------------

    def require_sold(self, state: StateReader, paid_noz: int) -> None:
        """An epoch is about to report ``paid_noz`` that were not granted. With the solvency rules that is at most A less the granted ones: else these
        would have nothing behind them when they are used. (Where none are granted, register holds the volume against A.) Raises NotSold (grant/23), InvalidRequest (sdk/18) for amounts out of range."""
        bounded(paid_noz, "a volume")
        granted_noz = self.outstanding_noz(state)
        if not granted_noz:
            return
        pool = self._ozone.pool(state)
        sold_noz = pool.outstanding_noz - granted_noz
        if pool.solvency and paid_noz > sold_noz:
            raise NotSold(f"{paid_noz} noz are reported, of {sold_noz} noz that are not reported yet, beside {granted_noz} granted ones")

    def use(self, ctx: Context, state: StateWriter, epoch: int, used_noz: int, expired_noz: int) -> tuple[int, int]:
        """An epoch used and let expire so many granted noz. Returns (cost_wei, returned_wei): their part of what all outstanding ones cost, and what
        went back to the common pool for those that expired. Lt += expired happens here; Lt += used is the report's.

        Raises PromoOutstanding (grant/22) for more than is outstanding, InvalidRequest (sdk/18) for amounts out of range.
        """
        gone_noz = bounded(used_noz, "used noz") + bounded(expired_noz, "expired noz")
        outstanding_noz, all_cost_wei = self.outstanding_noz(state), self.cost_wei(state)
        if gone_noz > outstanding_noz:
            raise PromoOutstanding(f"{used_noz} noz used and {expired_noz} noz expired, of {outstanding_noz} noz that are outstanding")
        if gone_noz == 0:
            return 0, 0
        cost_wei = all_cost_wei * gone_noz // outstanding_noz
        returned_wei = self._ozone.expire(ctx, state, ACCOUNT, expired_noz, outstanding_noz, all_cost_wei) if expired_noz else 0
        self.set_outstanding(state, outstanding_noz - gone_noz, all_cost_wei - cost_wei)
        if returned_wei:
            self._add_free(state, self.require_pool(state, COMMON_POOL), returned_wei)
        if used_noz:
            events.emit(ctx, "EventPromoReported", epoch=epoch, promo_noz=used_noz, cost_wei=all_cost_wei * used_noz // outstanding_noz)
        if expired_noz:
            events.emit(ctx, "EventPromoExpired", epoch=epoch, promo_noz=expired_noz, returned_wei=returned_wei)
        return cost_wei, returned_wei

    def restore(self, ctx: Context, state: StateWriter, epoch: int, used_noz: int, cost_wei: int, expired_noz: int, returned_wei: int) -> None:
        """The epoch is void, and with it what it said of granted ozone: what it used and let expire is outstanding again, at its cost. The refund goes
        back to Pt as far as the common pool has free money; what it has not stays its refund, and leaves the cost. Lt −= expired happens here (the
        rest pending); Lt −= used is the caller's, with the other volumes of the epoch.
        """
        returned = min(returned_wei, int(self.require_pool(state, COMMON_POOL).free_wei))
        if expired_noz:
            self._ozone.take_back(ctx, state, ACCOUNT, expired_noz, returned)
        if returned:
            self._add_free(state, self.require_pool(state, COMMON_POOL), -returned)
        self.set_outstanding(state, self.outstanding_noz(state) + used_noz + expired_noz, self.cost_wei(state) + cost_wei - (returned_wei - returned))

    # --- pools ------------------------------------------------------------------------------------------------------------------------------

    def create_pool(self, ctx: Context, state: StateWriter, admin: bytes, name: str, funding_wei: int) -> int:
        """A pool with money of its admin; returns its number. Raises InvalidFunding (grant/16) below the least amount, InsufficientFunds (sdk/5)."""
        least_wei = int(self.params(state).min_pool_funding_wei)
        if funding_wei < least_wei:
            raise InvalidFunding(f"expected {least_wei}wei at least, got {funding_wei}wei")
        pool_id = self.next_pool_id(state)
        self.bank.send_to_module(ctx, state, admin, ACCOUNT, terms.coins(funding_wei))
        self.set_pool(state, Pool(pool_id=pool_id, name=name, admin=bech32.encode(admin), free_wei=str(funding_wei)))
        self.set_next_pool_id(state, pool_id + 1)
        events.emit(ctx, "EventCreatePool", pool_id=pool_id, admin=bech32.encode(admin), amount_wei=funding_wei)
        return pool_id

    def fund_pool(self, ctx: Context, state: StateWriter, depositor: bytes, pool_id: int, amount_wei: int) -> None:
        """Anybody's money for a pool. Raises PoolNotFound (grant/2), InsufficientFunds (sdk/5), InvalidRequest (sdk/18) above 2^127 - 1."""
        pool = self.require_pool(state, pool_id)
        self.bank.send_to_module(ctx, state, depositor, ACCOUNT, terms.coins(amount_wei))
        self._add_free(state, pool, amount_wei)
        events.emit(ctx, "EventFundPool", pool_id=pool_id, depositor=bech32.encode(depositor), amount_wei=amount_wei)

    # --- campaigns --------------------------------------------------------------------------------------------------------------------------

    def create_campaign(self, ctx: Context, state: StateWriter, admin: bytes, message: Any) -> int:
        """A campaign by checked terms, its budget taken from the free money of the pool; returns its number.

        Raises PoolNotFound (grant/2), NotAdmin (5), TooManyCampaigns (15), PoolMoney (14); InvalidTerms (20) for an end that has passed or ozone that
        lives too long, InvalidPromotion (19) for one that has ended.
        """
        pool, params = self.require_pool(state, message.pool_id), self.params(state)
        self._require_admin(pool, admin)
        if pool.open_campaigns >= params.max_open_campaigns_per_pool:
            raise TooManyCampaigns(f"pool {pool.pool_id} has {pool.open_campaigns} open campaigns, the most there may be")
        if message.validity_s > params.longest_validity_s:
            raise InvalidTerms(f"expected validity_s of at most {params.longest_validity_s}, got {message.validity_s}")
        if ns_of(message.end_time, "end_time") <= ctx.time_ns:
            raise InvalidTerms("expected an end_time after the time of the block")
        promotions = terms.promotions(message)
        for promotion in promotions:
            _require_future(ctx, promotion)
        budget_wei = int(message.budget_wei)
        if budget_wei > int(pool.free_wei):
            raise PoolMoney(f"a budget of {budget_wei}wei, of {pool.free_wei}wei that are free in pool {pool.pool_id}")
        campaign_id = self.next_campaign_id(state)
        campaign = Campaign(
            campaign_id=campaign_id,
            pool_id=pool.pool_id,
            name=message.name,
            status=OPEN,
            operators=terms.operators(message.operators),
            budget_wei=str(budget_wei),
            max_wei_per_day=str(int(message.max_wei_per_day)),
            max_noz_per_wallet=str(int(message.max_noz_per_wallet)),
            validity_s=message.validity_s,
            end_time=known(message.end_time),
            promotions=promotions,
        )
        pool.open_campaigns += 1
        self._add_free(state, pool, -budget_wei)
        self.set_campaign(state, campaign)
        self.set_next_campaign_id(state, campaign_id + 1)
        events.emit(ctx, "EventCreateCampaign", campaign_id=campaign_id, pool_id=pool.pool_id, budget_wei=budget_wei)
        return campaign_id

    def add_promotion(self, ctx: Context, state: StateWriter, admin: bytes, campaign_id: int, promotion: Any) -> None:
        """One more promotion, with the next number. Raises CampaignNotFound (grant/3), NotAdmin (5), CampaignEnded (7), InvalidPromotion (19),
        InvalidName (17)."""
        campaign = self._administered(state, admin, campaign_id)
        _require_open(ctx, campaign)
        if len(campaign.promotions) >= terms.MAX_PROMOTIONS:
            raise InvalidPromotion(f"expected at most {terms.MAX_PROMOTIONS} promotions")
        checked = terms.check_promotion(
            promotion, len(campaign.promotions) + 1, int(campaign.max_noz_per_wallet), ns_of(campaign.end_time, "end_time")
        )
        _require_future(ctx, checked)
        campaign.promotions.append(checked)
        self.set_campaign(state, campaign)
        noz = int(checked.noz_per_wallet)
        events.emit(ctx, "EventAddPromotion", campaign_id=campaign_id, promotion_id=checked.promotion_id, noz_per_wallet=noz)

    def set_operators(self, ctx: Context, state: StateWriter, admin: bytes, campaign_id: int, operators: Sequence[str]) -> None:
        """Replace the operators. Raises CampaignNotFound (grant/3), NotAdmin (5), CampaignEnded (7), InvalidOperators (18)."""
        campaign = self._administered(state, admin, campaign_id)
        _require_open(ctx, campaign)
        del campaign.operators[:]
        campaign.operators.extend(terms.operators(operators))
        self.set_campaign(state, campaign)
        events.emit(ctx, "EventSetOperators", campaign_id=campaign_id, operators=",".join(campaign.operators))

    def end_campaign(self, ctx: Context, state: StateWriter, who: bytes, campaign_id: int) -> int:
        """No more claims: what is left of the budget is free in its pool again, and is returned (wei). The pool's admin and governance may end it at any
        time, anybody once its end_time has passed. Raises CampaignNotFound (grant/3), CampaignEnded (7), NotAdmin (5)."""
        campaign = self.require_campaign(state, campaign_id)
        if campaign.status != OPEN:
            raise CampaignEnded(f"campaign {campaign_id}")
        pool = self.require_pool(state, campaign.pool_id)
        if who != GOV_ADDRESS and ctx.time_ns < ns_of(campaign.end_time, "end_time"):
            self._require_admin(pool, who)
        left_wei = reserved_wei(campaign)
        campaign.status = ENDED
        pool.open_campaigns -= 1
        self.set_campaign(state, campaign)
        self._add_free(state, pool, left_wei)
        events.emit(ctx, "EventEndCampaign", campaign_id=campaign_id, pool_id=pool.pool_id, returned_wei=left_wei)
        return left_wei

    # --- claims -----------------------------------------------------------------------------------------------------------------------------

    def claim(
        self, ctx: Context, state: StateWriter, operator: bytes, campaign_id: int, promotion_id: int, wallets: Sequence[bytes]
    ) -> tuple[int, int]:
        """Give a promotion's noz to each of ``wallets``, all or none. One purchase at ceil((S + Pt)·noz ÷ (Lt − noz)) for the sum of noz, whose cost is
        split among them to the wei, the first ones pay the rest of the division. Returns (noz, wei) of all.

        Raises CampaignNotFound (grant/3), NotOperator (6), CampaignEnded (7), PromotionNotFound (4), PromotionClosed (8), AlreadyClaimed (9),
        WalletLimit (11), BudgetSpent (13), DailyLimit (12), and for ozone that is not there OzoneLimitNotEnough (sds/14).
        """
        campaign = self.require_campaign(state, campaign_id)
        if bech32.encode(operator) not in campaign.operators:
            raise NotOperator(f"{bech32.encode(operator)} in campaign {campaign_id}")
        _require_open(ctx, campaign)
        promotion = _promotion_of(campaign, promotion_id)
        if not ns_of(promotion.start_time, "start_time") <= ctx.time_ns < ns_of(promotion.end_time, "end_time"):
            raise PromotionClosed(
                f"promotion {promotion_id} of campaign {campaign_id} is open from {_text(promotion.start_time)} until {_text(promotion.end_time)}"
            )
        each_noz = int(promotion.noz_per_wallet)
        for wallet in wallets:
            self._require_room(state, campaign, promotion_id, wallet, each_noz)
        noz = bounded(each_noz * len(wallets), "granted ozone")
        cost_wei = self._ozone.quote_wei(state, noz)
        day = ctx.time_ns // DAY_NS
        spent_wei, today_wei = int(campaign.spent_wei) + cost_wei, cost_wei + (int(campaign.spent_today_wei) if campaign.day == day else 0)
        if spent_wei > int(campaign.budget_wei):
            raise BudgetSpent(f"{cost_wei}wei, of {reserved_wei(campaign)}wei that are left of campaign {campaign_id}")
        if today_wei > int(campaign.max_wei_per_day):
            raise DailyLimit(f"{today_wei}wei in a day, of {campaign.max_wei_per_day}wei that campaign {campaign_id} may spend")

        self._ozone.buy(ctx, state, ACCOUNT, noz)
        campaign.spent_wei, campaign.spent_today_wei, campaign.day = str(spent_wei), str(today_wei), day
        campaign.claims += len(wallets)
        self.set_campaign(state, campaign)
        self.set_outstanding(state, self.outstanding_noz(state) + noz, self.cost_wei(state) + cost_wei)
        each_wei, rest = divmod(cost_wei, len(wallets))
        made = Claim(campaign_id=campaign_id, promotion_id=promotion_id, granted_noz=str(each_noz))
        set_ns(made.expire_time, ctx.time_ns + campaign.validity_s * NANOS)
        shared: dict[str, str | int] = {
            "campaign_id": campaign_id,
            "promotion_id": promotion_id,
            "operator": bech32.encode(operator),
            "granted_noz": each_noz,
            "expire_time": _text(made.expire_time),
        }
        for at, wallet in enumerate(wallets):
            made.wallet, made.cost_wei = bech32.encode(wallet), str(each_wei + (at < rest))
            self.set_claim(state, made, wallet)
            events.emit(ctx, "EventClaim", wallet=made.wallet, cost_wei=made.cost_wei, **shared)
        return noz, cost_wei

    def _require_room(self, state: StateReader, campaign: Any, promotion_id: int, wallet: bytes, each_noz: int) -> None:
        """A wallet has at most one claim for each promotion of a campaign, of which there are few."""
        has_noz = 0
        prefix = keys.claims_of(campaign.campaign_id, wallet)
        for _, raw in state.store(keys.STORE).iterate(prefix, prefix_end(prefix)):
            found = Claim.FromString(raw)
            if found.promotion_id == promotion_id:
                raise AlreadyClaimed(f"{found.wallet} in promotion {promotion_id} of campaign {campaign.campaign_id}")
            has_noz += int(found.granted_noz)
        if has_noz + each_noz > int(campaign.max_noz_per_wallet):
            limit = f"{campaign.max_noz_per_wallet} noz that a wallet may get of campaign {campaign.campaign_id}"
            raise WalletLimit(f"{bech32.encode(wallet)} would have {has_noz + each_noz} noz, of {limit}")

    # --- state ------------------------------------------------------------------------------------------------------------------------------

    def params(self, state: StateReader) -> Any:
        """``stratos.grant.v1.Params``."""
        return Params.FromString(state.store(keys.STORE).get(keys.PARAMS) or b"")

    def set_params(self, state: StateWriter, params: Any) -> None:
        """Write checked parameters."""
        state.store(keys.STORE).set(keys.PARAMS, encode(params))

    def require_pool(self, state: StateReader, pool_id: int) -> Any:
        """A Pool. Raises PoolNotFound (grant/2)."""
        raw = state.store(keys.STORE).get(keys.pool(pool_id))
        if raw is None:
            raise PoolNotFound(f"pool {pool_id}")
        return Pool.FromString(raw)

    def set_pool(self, state: StateWriter, pool: Any) -> None:
        """Write a Pool."""
        state.store(keys.STORE).set(keys.pool(pool.pool_id), encode(pool))

    def pools(self, state: StateReader) -> Iterator[Any]:
        """Every Pool, by number."""
        return _all(state, keys.POOLS, Pool)

    def require_campaign(self, state: StateReader, campaign_id: int) -> Any:
        """A Campaign. Raises CampaignNotFound (grant/3)."""
        raw = state.store(keys.STORE).get(keys.campaign(campaign_id))
        if raw is None:
            raise CampaignNotFound(f"campaign {campaign_id}")
        return Campaign.FromString(raw)

    def set_campaign(self, state: StateWriter, campaign: Any) -> None:
        """Write a Campaign."""
        state.store(keys.STORE).set(keys.campaign(campaign.campaign_id), encode(campaign))

    def campaigns(self, state: StateReader) -> Iterator[Any]:
        """Every Campaign, by number."""
        return _all(state, keys.CAMPAIGNS, Campaign)

    def claim_of(self, state: StateReader, campaign_id: int, promotion_id: int, wallet: bytes) -> Any | None:
        """What a wallet got of a promotion: a Claim, or None."""
        raw = state.store(keys.STORE).get(keys.claim(campaign_id, promotion_id, wallet))
        return None if raw is None else Claim.FromString(raw)

    def set_claim(self, state: StateWriter, claim: Any, wallet: bytes) -> None:
        """Write a Claim and its place in the index of wallets."""
        store = state.store(keys.STORE)
        store.set(keys.claim(claim.campaign_id, claim.promotion_id, wallet), encode(claim))
        store.set(keys.index(claim.campaign_id, claim.promotion_id, wallet), b"")

    def claims(self, state: StateReader) -> Iterator[Any]:
        """Every Claim, by campaign, wallet and promotion."""
        return _all(state, keys.CLAIMS, Claim)

    def next_pool_id(self, state: StateReader) -> int:
        """Number of the next pool."""
        return _number(state, keys.NEXT_POOL)

    def set_next_pool_id(self, state: StateWriter, value: int) -> None:
        """Write the number of the next pool."""
        state.store(keys.STORE).set(keys.NEXT_POOL, keys.number(value))

    def next_campaign_id(self, state: StateReader) -> int:
        """Number of the next campaign."""
        return _number(state, keys.NEXT_CAMPAIGN)

    def set_next_campaign_id(self, state: StateWriter, value: int) -> None:
        """Write the number of the next campaign."""
        state.store(keys.STORE).set(keys.NEXT_CAMPAIGN, keys.number(value))

    def outstanding_noz(self, state: StateReader) -> int:
        """Granted noz that were neither used nor have expired."""
        return _amount(state, keys.OUTSTANDING_NOZ)

    def cost_wei(self, state: StateReader) -> int:
        """What the outstanding ones cost."""
        return _amount(state, keys.COST_WEI)

    def set_outstanding(self, state: StateWriter, outstanding_noz: int, cost_wei: int) -> None:
        """Write both. Raises InvalidRequest (sdk/18) for amounts out of range."""
        store = state.store(keys.STORE)
        for key, value in ((keys.OUTSTANDING_NOZ, outstanding_noz), (keys.COST_WEI, cost_wei)):
            if bounded(value, "granted ozone or its cost"):
                store.set(key, encode(_Int(Value=str(value))))
            else:
                store.delete(key)

    def pool_of_ozone(self, state: StateReader) -> OzonePool:
        """S, Lt, Pt and the rate as they are now."""
        return self._ozone.pool(state)

    def quote_wei(self, state: StateReader, noz: int) -> int:
        """What a claim of ``noz`` costs now. Raises what ``sds`` does."""
        return self._ozone.quote_wei(state, noz)

    def _add_free(self, state: StateWriter, pool: Any, change_wei: int) -> None:
        pool.free_wei = str(bounded(int(pool.free_wei) + change_wei, "a pool's free money"))
        self.set_pool(state, pool)

    def _administered(self, state: StateReader, admin: bytes, campaign_id: int) -> Any:
        campaign = self.require_campaign(state, campaign_id)
        self._require_admin(self.require_pool(state, campaign.pool_id), admin)
        return campaign

    @staticmethod
    def _require_admin(pool: Any, who: bytes) -> None:
        if bech32.decode(pool.admin) != who:
            raise NotAdmin(f"expected {pool.admin}, the admin of pool {pool.pool_id}, got {bech32.encode(who)}")


def _require_open(ctx: Context, campaign: Any) -> None:
    if campaign.status != OPEN:
        raise CampaignEnded(f"campaign {campaign.campaign_id}")
    if ctx.time_ns >= ns_of(campaign.end_time, "end_time"):
        raise CampaignEnded(f"campaign {campaign.campaign_id} ended at {_text(campaign.end_time)}")


def _require_future(ctx: Context, promotion: Any) -> None:
    if ns_of(promotion.end_time, "end_time") <= ctx.time_ns:
        raise InvalidPromotion(f"promotion {promotion.promotion_id} ends at {_text(promotion.end_time)}, which has passed")


def _promotion_of(campaign: Any, promotion_id: int) -> Any:
    if not 1 <= promotion_id <= len(campaign.promotions):
        raise PromotionNotFound(f"promotion {promotion_id} of campaign {campaign.campaign_id}, which has {len(campaign.promotions)}")
    return campaign.promotions[promotion_id - 1]


def _text(time: Any) -> str:
    return rfc3339(time.seconds, time.nanos)


def _all(state: StateReader, prefix: bytes, kind: Any) -> Iterator[Any]:
    for _, raw in state.store(keys.STORE).iterate(prefix, prefix_end(prefix)):
        yield kind.FromString(raw)


def _number(state: StateReader, key: bytes) -> int:
    return int.from_bytes(state.store(keys.STORE).get(key) or keys.number(1), "big")


def _amount(state: StateReader, key: bytes) -> int:
    raw = state.store(keys.STORE).get(key)
    return 0 if raw is None else int(_Int.FromString(raw).Value)
