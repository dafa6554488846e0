"""Messages of grant: CreatePool, FundPool, CreateCampaign, AddPromotion, SetOperators, EndCampaign, Claim, UpdateParams."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from chain.authority import require_gov
from chain.codec.canonical import known
from chain.codec.registry import message_class
from chain.context import Context
from chain.crypto import address as bech32
from chain.module import MessageHandler
from chain.store.api import StateWriter
from modules.grant import terms
from modules.grant.keeper import GrantKeeper
from modules.grant.params import check_params
from modules.grant.records import PACKAGE, amount, ns_of


def handlers(keeper: GrantKeeper) -> Mapping[str, MessageHandler]:
    """The module's message handlers over ``keeper``."""

    def create_pool(ctx: Context, state: StateWriter, message: Any) -> Any:
        pool_id = keeper.create_pool(ctx, state, bech32.decode(message.admin), message.name, terms.funding_wei(message.funding))
        return _response("MsgCreatePool", pool_id=pool_id)

    def fund_pool(ctx: Context, state: StateWriter, message: Any) -> Any:
        keeper.fund_pool(ctx, state, bech32.decode(message.depositor), message.pool_id, terms.funding_wei(message.amount))
        return _response("MsgFundPool")

    def create_campaign(ctx: Context, state: StateWriter, message: Any) -> Any:
        return _response("MsgCreateCampaign", campaign_id=keeper.create_campaign(ctx, state, bech32.decode(message.admin), message))

    def add_promotion(ctx: Context, state: StateWriter, message: Any) -> Any:
        keeper.add_promotion(ctx, state, bech32.decode(message.admin), message.campaign_id, message.promotion)
        return _response("MsgAddPromotion")

    def set_operators(ctx: Context, state: StateWriter, message: Any) -> Any:
        keeper.set_operators(ctx, state, bech32.decode(message.admin), message.campaign_id, message.operators)
        return _response("MsgSetOperators")

    def end_campaign(ctx: Context, state: StateWriter, message: Any) -> Any:
        returned_wei = keeper.end_campaign(ctx, state, bech32.decode(message.admin), message.campaign_id)
        return _response("MsgEndCampaign", returned_wei=str(returned_wei))

    def claim(ctx: Context, state: StateWriter, message: Any) -> Any:
        operator, wallets = bech32.decode(message.operator), terms.wallets(message.wallets)
        noz, cost_wei = keeper.claim(ctx, state, operator, message.campaign_id, message.promotion_id, wallets)
        return _response("MsgClaim", granted_noz=str(noz), cost_wei=str(cost_wei))

    def update_params(ctx: Context, state: StateWriter, message: Any) -> Any:
        require_gov(message.authority)
        check_params(message.params)
        keeper.set_params(state, known(message.params))
        return _response("MsgUpdateParams")

    def check_create_pool(message: Any) -> None:
        bech32.decode(message.admin)
        terms.check_name(message.name)
        terms.funding_wei(message.funding)

    def check_fund_pool(message: Any) -> None:
        bech32.decode(message.depositor)
        terms.funding_wei(message.amount)

    def check_create_campaign(message: Any) -> None:
        bech32.decode(message.admin)
        terms.check_terms(message)

    def check_add_promotion(message: Any) -> None:
        bech32.decode(message.admin)
        terms.check_name(message.promotion.name)
        amount(message.promotion.noz_per_wallet, "noz_per_wallet")
        ns_of(message.promotion.start_time, "start_time")
        ns_of(message.promotion.end_time, "end_time")

    def check_set_operators(message: Any) -> None:
        bech32.decode(message.admin)
        terms.operators(message.operators)

    def check_end_campaign(message: Any) -> None:
        bech32.decode(message.admin)

    def check_claim(message: Any) -> None:
        bech32.decode(message.operator)
        terms.wallets(message.wallets)

    def check_update_params(message: Any) -> None:
        bech32.decode(message.authority)

    table: dict[str, tuple[Callable[[Context, StateWriter, Any], Any], Callable[[Any], None]]] = {
        "MsgCreatePool": (create_pool, check_create_pool),
        "MsgFundPool": (fund_pool, check_fund_pool),
        "MsgCreateCampaign": (create_campaign, check_create_campaign),
        "MsgAddPromotion": (add_promotion, check_add_promotion),
        "MsgSetOperators": (set_operators, check_set_operators),
        "MsgEndCampaign": (end_campaign, check_end_campaign),
        "MsgClaim": (claim, check_claim),
        "MsgUpdateParams": (update_params, check_update_params),
    }
    return {f"{PACKAGE}.{name}": MessageHandler(execute, check) for name, (execute, check) in table.items()}


def _response(name: str, **fields: Any) -> Any:
    return _RESPONSES[name](**fields)


_NAMES: Final = (
    "MsgCreatePool",
    "MsgFundPool",
    "MsgCreateCampaign",
    "MsgAddPromotion",
    "MsgSetOperators",
    "MsgEndCampaign",
    "MsgClaim",
    "MsgUpdateParams",
)
_RESPONSES: Final = {name: message_class(f"{PACKAGE}.{name}Response") for name in _NAMES}
