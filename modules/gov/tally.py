"""Counting votes: a delegator's own vote goes before his validator's (SDK 0.50.9 x/gov/keeper/tally.go)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from chain.crypto import address as bech32
from chain.dec import ONE, Dec, from_wire, parse_dec
from chain.store.api import StateReader
from modules.gov.keeper import GovKeeper, TallyResult

YES, ABSTAIN, NO, NO_WITH_VETO = 1, 2, 3, 4
OPTIONS: Final = (YES, ABSTAIN, NO, NO_WITH_VETO)


class Tally(NamedTuple):
    """What came of the votes. ``burn``: the deposits are burned. ``entries``: how many votes and delegations were read."""

    passes: bool
    burn: bool
    result: Any
    entries: int


@dataclass(slots=True)
class _Validator:
    tokens: int
    shares: Dec
    deducted: int = 0
    vote: tuple[tuple[int, Dec], ...] = ()

    def power(self, shares: int) -> Dec:
        """Tokens behind ``shares`` (scaled): the product is not rounded, the quotient is."""
        return Dec(shares * self.tokens).quo(self.shares) if self.shares.scaled else Dec(0)


def tally(keeper: GovKeeper, state: StateReader, proposal: Any) -> Tally:
    """Count the votes on ``proposal``; nothing is written."""
    by_text: dict[str, _Validator] = {}
    by_address: dict[bytes, _Validator] = {}
    for validator in keeper.stake.bonded_by_power(state):
        found = _Validator(int(validator.tokens), from_wire(validator.delegator_shares))
        by_text[validator.operator_address] = found
        by_address[bech32.decode(validator.operator_address, bech32.VALIDATOR)] = found
    sums = dict.fromkeys(OPTIONS, 0)
    total = count = 0

    def add(power: Dec, options: tuple[tuple[int, Dec], ...]) -> None:
        nonlocal total
        for option, weight in options:
            sums[option] += power.mul(weight).scaled
        total += power.scaled

    for voter, vote in keeper.votes(state, proposal.id):
        count += 1
        options = tuple((option.option, parse_dec(option.weight)) for option in vote.options)
        own = by_address.get(voter)
        if own is not None:
            own.vote = options
        for delegation in keeper.stake.delegations_of(state, voter):
            count += 1
            validator = by_text.get(delegation.validator_address)
            if validator is not None:
                shares = from_wire(delegation.shares).scaled
                validator.deducted += shares
                add(validator.power(shares), options)
    for validator in by_text.values():
        if validator.vote:
            add(validator.power(validator.shares.scaled - validator.deducted), validator.vote)
    counts = {option: str(Dec(sums[option]).truncate()) for option in OPTIONS}
    result = TallyResult(yes_count=counts[YES], abstain_count=counts[ABSTAIN], no_count=counts[NO], no_with_veto_count=counts[NO_WITH_VETO])
    passes, burn = _verdict(keeper, state, proposal, sums, total)
    return Tally(passes, burn, result, count)


def _verdict(keeper: GovKeeper, state: StateReader, proposal: Any, sums: dict[int, int], total: int) -> tuple[bool, bool]:
    """(passes, deposits are burned) of the powers per option and their sum, all scaled."""
    params = keeper.params(state)
    bonded = keeper.stake.total_bonded(state)
    if bonded == 0:
        return False, False
    if Dec(total).quo(Dec(bonded * ONE)) < parse_dec(params.quorum):
        return False, params.burn_vote_quorum
    decided = total - sums[ABSTAIN]
    if decided == 0:
        return False, False
    if Dec(sums[NO_WITH_VETO]).quo(Dec(total)) > parse_dec(params.veto_threshold):
        return False, params.burn_vote_veto
    threshold = params.expedited_threshold if proposal.expedited else params.threshold
    return Dec(sums[YES]).quo(Dec(decided)) > parse_dec(threshold), False
