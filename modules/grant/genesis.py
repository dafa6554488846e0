"""grant's section of app_state: ``stratos.grant.v1.GenesisState`` as proto JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from chain.authority import GOV_ADDRESS
from chain.codec.canonical import encode, known
from chain.codec.json import from_json, to_json
from chain.codec.registry import message_class
from chain.context import Context
from chain.crypto import address as bech32
from chain.errors import AppError, InvalidRequest
from chain.module import GenesisError, Json, ValidatorUpdate
from chain.store.api import StateReader, StateWriter
from chain.tx.fees import BASE_DENOM
from modules.grant import terms
from modules.grant.expected import Bank
from modules.grant.keeper import GrantKeeper
from modules.grant.params import MAX_VALIDITY_S, check_params, default_params
from modules.grant.records import ACCOUNT, COMMON_POOL, ENDED, OPEN, PACKAGE, Pool, amount, ns_of, reserved_wei

GenesisState: Final = message_class(f"{PACKAGE}.GenesisState")
PATH: Final = "app_state.grant"
MAX_NUMBER: Final = (1 << 62) - 1
MAX_DAY: Final = 10**7


class GrantGenesis:
    """Default, check, load and export."""

    def __init__(self, keeper: GrantKeeper, bank: Bank) -> None:
        self._keeper, self._bank = keeper, bank

    def default(self) -> Json:
        genesis = GenesisState(params=default_params(), next_pool_id=COMMON_POOL + 1, next_campaign_id=1)
        genesis.pools.append(Pool(pool_id=COMMON_POOL, name="common", admin=bech32.encode(GOV_ADDRESS), free_wei="0"))
        return to_json(genesis)

    def validate(self, section: Json) -> None:
        _read(section)

    def load(self, ctx: Context, state: StateWriter, section: Json) -> Sequence[ValidatorUpdate]:
        genesis, keeper = _read(section), self._keeper
        keeper.set_params(state, known(genesis.params))
        keeper.set_next_pool_id(state, genesis.next_pool_id)
        keeper.set_next_campaign_id(state, genesis.next_campaign_id)
        for pool in genesis.pools:
            keeper.set_pool(state, pool)
        for campaign in genesis.campaigns:
            keeper.set_campaign(state, campaign)
        for claim in genesis.claims:
            keeper.set_claim(state, claim, bech32.decode(claim.wallet))
        keeper.set_outstanding(state, int(genesis.promo_outstanding_noz or 0), int(genesis.promo_cost_wei or 0))
        owed_wei = sum(int(pool.free_wei or 0) for pool in genesis.pools) + sum(reserved_wei(one) for one in genesis.campaigns)
        held_wei = self._bank.balance(state, bech32.module_address(ACCOUNT), BASE_DENOM)
        if held_wei != owed_wei:
            raise GenesisError(f"{PATH}.pools", f"expected {held_wei}wei, which the account {ACCOUNT} has, to be free or reserved, got {owed_wei}wei")
        return ()

    def export(self, ctx: Context, state: StateReader) -> Json:
        keeper = self._keeper
        return to_json(
            GenesisState(
                params=keeper.params(state),
                pools=keeper.pools(state),
                campaigns=keeper.campaigns(state),
                claims=keeper.claims(state),
                next_pool_id=keeper.next_pool_id(state),
                next_campaign_id=keeper.next_campaign_id(state),
                promo_outstanding_noz=str(keeper.outstanding_noz(state)),
                promo_cost_wei=str(keeper.cost_wei(state)),
            )
        )


def _read(section: Json) -> Any:
    """The GenesisState, in canonical texts. Raises GenesisError."""
    try:
        genesis = from_json(GenesisState, section, PATH)
        check_params(genesis.params)
        encode(genesis)  # an absent number is 0 from here on
        outstanding_noz = amount(genesis.promo_outstanding_noz, "promo_outstanding_noz")
        cost_wei = amount(genesis.promo_cost_wei, "promo_cost_wei")
        if cost_wei and not outstanding_noz:
            raise InvalidRequest(f"expected no cost where nothing is outstanding, got {cost_wei}wei")
    except AppError as error:
        raise GenesisError(PATH, error.detail) from None
    pools = _by_number(genesis.pools, "pool_id", "pools", genesis.next_pool_id, "next_pool_id")
    if COMMON_POOL not in pools or pools[COMMON_POOL].admin != bech32.encode(GOV_ADDRESS):
        raise GenesisError(f"{PATH}.pools", f"expected pool {COMMON_POOL}, whose admin is governance's account {bech32.encode(GOV_ADDRESS)}")
    campaigns = _by_number(genesis.campaigns, "campaign_id", "campaigns", genesis.next_campaign_id, "next_campaign_id")
    opened = dict.fromkeys(pools, 0)
    for at, campaign in enumerate(genesis.campaigns):
        _checked(f"{PATH}.campaigns[{at}]", _check_campaign, campaign, pools)
        opened[campaign.pool_id] += campaign.status == OPEN
    for at, pool in enumerate(genesis.pools):
        _checked(f"{PATH}.pools[{at}]", _check_pool, pool, opened[pool.pool_id])
    _check_claims(genesis.claims, campaigns)
    return genesis


def _by_number(records: Sequence[Any], name: str, listed: str, next_number: int, next_name: str) -> dict[int, Any]:
    if not 1 <= next_number <= MAX_NUMBER:
        raise GenesisError(f"{PATH}.{next_name}", f"expected a number from 1 to {MAX_NUMBER}, got {next_number}")
    found: dict[int, Any] = {}
    for at, record in enumerate(records):
        number = getattr(record, name)
        if not 1 <= number < next_number or number in found:
            raise GenesisError(f"{PATH}.{listed}[{at}].{name}", f"expected numbers below {next_name}, {next_number}, each once, got {number}")
        found[number] = record
    return found


def _checked(path: str, check: Callable[..., None], *given: Any) -> None:
    try:
        check(*given)
    except AppError as error:
        raise GenesisError(path, error.detail) from None


def _check_pool(pool: Any, open_campaigns: int) -> None:
    terms.check_name(pool.name)
    bech32.decode(pool.admin)
    amount(pool.free_wei, "free_wei")
    if pool.open_campaigns != open_campaigns:
        raise InvalidRequest(f"expected open_campaigns {open_campaigns}, as many as are listed, got {pool.open_campaigns}")


def _check_campaign(campaign: Any, pools: Mapping[int, Any]) -> None:
    if campaign.pool_id not in pools:
        raise InvalidRequest(f"pool {campaign.pool_id} is not listed")
    if campaign.status not in (OPEN, ENDED):
        raise InvalidRequest(f"expected a status of {OPEN} (open) or {ENDED} (ended), got {campaign.status}")
    terms.check_terms(campaign)
    if campaign.validity_s > MAX_VALIDITY_S:
        raise InvalidRequest(f"expected validity_s from 1 to {MAX_VALIDITY_S}, got {campaign.validity_s}")
    spent, today = amount(campaign.spent_wei, "spent_wei"), amount(campaign.spent_today_wei, "spent_today_wei")
    if spent > int(campaign.budget_wei) or today > min(spent, int(campaign.max_wei_per_day)):
        raise InvalidRequest(f"{today}wei of a day and {spent}wei in all are spent, of {campaign.max_wei_per_day}wei and {campaign.budget_wei}wei")
    if not 0 <= campaign.day <= MAX_DAY:
        raise InvalidRequest(f"expected a day from 0 to {MAX_DAY}, got {campaign.day}")


def _check_claims(claims: Sequence[Any], campaigns: Mapping[int, Any]) -> None:
    seen: dict[tuple[int, int, bytes], None] = {}
    counts, spent = dict.fromkeys(campaigns, 0), dict.fromkeys(campaigns, 0)
    for at, claim in enumerate(claims):
        path = f"{PATH}.claims[{at}]"
        campaign = campaigns.get(claim.campaign_id)
        if campaign is None or not 1 <= claim.promotion_id <= len(campaign.promotions):
            raise GenesisError(path, f"promotion {claim.promotion_id} of campaign {claim.campaign_id} is not listed")
        try:
            key = claim.campaign_id, claim.promotion_id, bech32.decode(claim.wallet)
            amount(claim.granted_noz, "granted_noz")
            ns_of(claim.expire_time, "expire_time")
            spent[claim.campaign_id] += amount(claim.cost_wei, "cost_wei")
        except AppError as error:
            raise GenesisError(path, error.detail) from None
        if key in seen:
            raise GenesisError(path, f"a second claim of {claim.wallet}")
        seen[key] = None
        counts[claim.campaign_id] += 1
    for number, campaign in campaigns.items():
        if (campaign.claims, int(campaign.spent_wei)) != (counts[number], spent[number]):
            listed = f"{counts[number]} claims that cost {spent[number]}wei"
            raise GenesisError(
                f"{PATH}.claims", f"campaign {number} has {campaign.claims} claims that cost {campaign.spent_wei}wei, listed are {listed}"
            )
