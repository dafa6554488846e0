"""What must always hold of governance."""

from __future__ import annotations

from chain import coins
from chain.authority import GOV_ADDRESS
from chain.codec.times import ns_of
from chain.store.api import StateReader
from modules.gov import keys
from modules.gov.keeper import DEPOSIT_PERIOD, VOTING_PERIOD, Deposit, GovKeeper, Proposal
from modules.gov.params import all_at_least


def account_holds_the_deposits(keeper: GovKeeper, state: StateReader) -> str | None:
    """The SDK's ``module-account``: others may have sent more."""
    deposits = coins.normalise(coin for deposit in keeper.all(state, keys.DEPOSITS, Deposit) for coin in coins.from_messages(deposit.amount))
    held = keeper.bank.balances(state, GOV_ADDRESS)
    return None if all_at_least(held, deposits) else f"the gov account holds {coins.to_text(held)}, deposits sum up to {coins.to_text(deposits)}"


def open_proposals_are_queued(keeper: GovKeeper, state: StateReader) -> str | None:
    """Each open proposal, and nothing else, waits in the queue of its period, and only what is voted on is marked so."""
    store = state.store(keys.STORE)
    expected: dict[bytes, None] = {}
    for proposal in keeper.all(state, keys.PROPOSALS, Proposal):
        if proposal.status == DEPOSIT_PERIOD:
            expected[keys.queued(keys.INACTIVE, ns_of(proposal.deposit_end_time), proposal.id)] = None
        elif proposal.status == VOTING_PERIOD:
            expected[keys.queued(keys.ACTIVE, ns_of(proposal.voting_end_time), proposal.id)] = None
            expected[keys.voting(proposal.id)] = None
    found = [key for key, _ in store.iterate(keys.ACTIVE, keys.NEXT_ID)] + [key for key, _ in store.iterate(keys.VOTING, keys.DEPOSITS)]
    if sorted(expected) == found:
        return None
    return f"open proposals lead to {len(expected)} entries of the queues, which hold {len(found)}, or others"
