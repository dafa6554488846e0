"""Queries of grant: pools, campaigns, claims, what a claim would cost, and what is outstanding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from chain.codec.registry import message_class
from chain.context import Context
from chain.crypto import address as bech32
from chain.module import Query
from chain.pagination import paginate
from chain.store.api import StateReader
from modules.grant import keys
from modules.grant.keeper import GrantKeeper
from modules.grant.records import PACKAGE, Campaign, Claim, Pool, amount

SERVICE: Final = f"/{PACKAGE}.Query/"


def handlers(keeper: GrantKeeper) -> Mapping[str, Query]:
    """The module's query handlers."""

    def params(ctx: Context, state: StateReader, request: Any) -> Any:
        return _response("Params", params=keeper.params(state))

    def pool(ctx: Context, state: StateReader, request: Any) -> Any:
        """Raises PoolNotFound (grant/2)."""
        return _response("Pool", pool=keeper.require_pool(state, request.pool_id))

    def pools(ctx: Context, state: StateReader, request: Any) -> Any:
        found, page = paginate(state.store(keys.STORE), keys.POOLS, request.pagination, lambda _, raw: Pool.FromString(raw))
        return _response("Pools", pools=found, pagination=page)

    def campaign(ctx: Context, state: StateReader, request: Any) -> Any:
        """Raises CampaignNotFound (grant/3)."""
        return _response("Campaign", campaign=keeper.require_campaign(state, request.campaign_id))

    def campaigns(ctx: Context, state: StateReader, request: Any) -> Any:
        """All, or those of one pool, of one status, or both: 0 asks for any."""

        def is_asked_for(_: bytes, raw: bytes) -> bool:
            found = Campaign.FromString(raw)
            return request.pool_id in (0, found.pool_id) and request.status in (0, found.status)

        keep = is_asked_for if request.pool_id or request.status else None
        found, page = paginate(state.store(keys.STORE), keys.CAMPAIGNS, request.pagination, lambda _, raw: Campaign.FromString(raw), keep)
        return _response("Campaigns", campaigns=found, pagination=page)

    def claims_by_campaign(ctx: Context, state: StateReader, request: Any) -> Any:
        prefix = keys.claims_in(request.campaign_id)
        found, page = paginate(state.store(keys.STORE), prefix, request.pagination, lambda _, raw: Claim.FromString(raw))
        return _response("ClaimsByCampaign", claims=found, pagination=page)

    def claims_by_wallet(ctx: Context, state: StateReader, request: Any) -> Any:
        wallet = bech32.decode(request.wallet)

        def read(rest: bytes, _: bytes) -> Any:
            return keeper.claim_of(state, *keys.split_index(rest), wallet)

        found, page = paginate(state.store(keys.STORE), keys.by_wallet(wallet), request.pagination, read)
        return _response("ClaimsByWallet", claims=found, pagination=page)

    def sim_claim(ctx: Context, state: StateReader, request: Any) -> Any:
        """What a claim of so many noz, of all its wallets together, would cost. Raises OzoneLimitNotEnough (sds/14), InvalidRequest (sdk/18)."""
        return _response("SimClaim", cost_wei=str(keeper.quote_wei(state, amount(request.granted_noz, "granted_noz"))))

    def outstanding(ctx: Context, state: StateReader, request: Any) -> Any:
        noz, cost_wei = keeper.outstanding_noz(state), keeper.cost_wei(state)
        return _response("Outstanding", promo_outstanding_noz=str(noz), promo_cost_wei=str(cost_wei))

    return {
        SERVICE + "Params": params,
        SERVICE + "Pool": pool,
        SERVICE + "Pools": pools,
        SERVICE + "Campaign": campaign,
        SERVICE + "Campaigns": campaigns,
        SERVICE + "ClaimsByCampaign": claims_by_campaign,
        SERVICE + "ClaimsByWallet": claims_by_wallet,
        SERVICE + "SimClaim": sim_claim,
        SERVICE + "Outstanding": outstanding,
    }


def _response(name: str, **fields: Any) -> Any:
    return message_class(f"{PACKAGE}.Query{name}Response")(**fields)
