"""What always holds of pools, campaigns and claims."""

from __future__ import annotations

from collections.abc import Mapping

from chain.crypto import address as bech32
from chain.module import Invariant
from chain.store.api import StateReader, prefix_end
from chain.tx.fees import BASE_DENOM
from modules.grant import keys
from modules.grant.expected import Bank
from modules.grant.keeper import GrantKeeper
from modules.grant.records import ACCOUNT, OPEN, reserved_wei


def checks(keeper: GrantKeeper, bank: Bank) -> Mapping[str, Invariant]:
    """The module's invariants."""

    def account_holds_the_money(state: StateReader) -> str | None:
        free_wei = sum(int(pool.free_wei) for pool in keeper.pools(state))
        budget_wei = sum(reserved_wei(campaign) for campaign in keeper.campaigns(state))
        held_wei = bank.balance(state, bech32.module_address(ACCOUNT), BASE_DENOM)
        if held_wei == free_wei + budget_wei:
            return None
        return f"pools have {free_wei}wei free and campaigns {budget_wei}wei reserved, the account holds {held_wei}wei"

    def campaigns_keep_to_their_terms(state: StateReader) -> str | None:
        open_campaigns: dict[int, int] = {}
        for campaign in keeper.campaigns(state):
            spent, today, what = int(campaign.spent_wei), int(campaign.spent_today_wei), f"campaign {campaign.campaign_id}"
            if spent > int(campaign.budget_wei):
                return f"{what} has spent {spent}wei of {campaign.budget_wei}wei"
            if today > min(spent, int(campaign.max_wei_per_day)):
                return f"{what} has spent {today}wei in a day, {spent}wei in all, and may spend {campaign.max_wei_per_day}wei in a day"
            open_campaigns[campaign.pool_id] = open_campaigns.get(campaign.pool_id, 0) + (campaign.status == OPEN)
        for pool in keeper.pools(state):
            if pool.open_campaigns != open_campaigns.get(pool.pool_id, 0):
                return f"pool {pool.pool_id} counts {pool.open_campaigns} open campaigns, there are {open_campaigns.get(pool.pool_id, 0)}"
        return None

    def claims_add_up(state: StateReader) -> str | None:
        store = state.store(keys.STORE)
        counts: dict[int, int] = {}
        spent: dict[int, int] = {}
        wallets: dict[tuple[int, str], int] = {}
        for claim in keeper.claims(state):
            number = claim.campaign_id
            counts[number], spent[number] = counts.get(number, 0) + 1, spent.get(number, 0) + int(claim.cost_wei)
            wallets[number, claim.wallet] = wallets.get((number, claim.wallet), 0) + int(claim.granted_noz)
            if not store.has(keys.index(number, claim.promotion_id, bech32.decode(claim.wallet))):
                return f"the claim of {claim.wallet} in campaign {number} is not in the index of wallets"
        limits = {}
        for campaign in keeper.campaigns(state):
            number = campaign.campaign_id
            limits[number] = int(campaign.max_noz_per_wallet)
            if (campaign.claims, int(campaign.spent_wei)) != (counts.get(number, 0), spent.get(number, 0)):
                told = f"{campaign.claims} claims that cost {campaign.spent_wei}wei"
                return f"campaign {number} counts {told}, there are {counts.get(number, 0)} that cost {spent.get(number, 0)}wei"
        for (number, wallet), noz in wallets.items():
            if noz > limits[number]:
                return f"{wallet} got {noz} noz of campaign {number}, of {limits[number]} noz that a wallet may get"
        indexed = sum(1 for _ in store.iterate(keys.BY_WALLET, prefix_end(keys.BY_WALLET)))
        return None if indexed == sum(counts.values()) else f"the index of wallets has {indexed} claims, there are {sum(counts.values())}"

    def outstanding_was_sold(state: StateReader) -> str | None:
        """With the rules off more noz than were sold may come back by a report: then there is nothing to hold against."""
        noz, cost_wei = keeper.outstanding_noz(state), keeper.cost_wei(state)
        if not noz:
            return f"no granted ozone is outstanding, and it cost {cost_wei}wei" if cost_wei else None
        pool = keeper.pool_of_ozone(state)
        if pool.solvency and noz > pool.outstanding_noz:
            return f"{noz} granted noz are outstanding, of {pool.outstanding_noz} noz that were sold and not reported"
        return None

    return {
        "the account holds what pools and campaigns have": account_holds_the_money,
        "campaigns keep to their terms": campaigns_keep_to_their_terms,
        "claims add up": claims_add_up,
        "granted ozone was sold": outstanding_was_sold,
    }
