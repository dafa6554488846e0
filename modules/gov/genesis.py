"""The section ``gov`` of app_state: ``cosmos.gov.v1.GenesisState`` as proto JSON, with proposals, deposits and votes in flight."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from chain import coins
from chain.codec.json import from_json, to_json
from chain.codec.registry import message_class
from chain.context import Context
from chain.crypto import address as bech32
from chain.errors import AppError
from chain.module import GenesisError, Json, ValidatorUpdate
from chain.store.api import StateReader, StateWriter
from modules.gov import keys
from modules.gov.keeper import DEPOSIT_PERIOD, OPEN, VOTING_PERIOD, Deposit, GovKeeper, Proposal, Vote
from modules.gov.messages import check_options
from modules.gov.params import all_at_least, check_params, default_params

GenesisState: Final = message_class("cosmos.gov.v1.GenesisState")
PATH: Final = "app_state.gov"


class GovGenesis:
    """Default, check, load and export."""

    def __init__(self, keeper: GovKeeper) -> None:
        self._keeper = keeper

    def default(self) -> Json:
        return to_json(GenesisState(starting_proposal_id=1, params=default_params()))

    def validate(self, section: Json) -> None:
        _read(section)

    def load(self, ctx: Context, state: StateWriter, section: Json) -> Sequence[ValidatorUpdate]:
        genesis = _read(section)
        keeper = self._keeper
        keeper.set_next_id(state, genesis.starting_proposal_id)
        keeper.set_params(state, genesis.params)
        keeper.set_constitution(state, genesis.constitution)
        account = keeper.module_account(ctx, state)
        for deposit in genesis.deposits:
            keeper.set_deposit(state, deposit, bech32.decode(deposit.depositor))
        for vote in genesis.votes:
            keeper.set_vote(state, vote, bech32.decode(vote.voter))
        for proposal in genesis.proposals:
            if proposal.status in OPEN:
                keeper.queue(state, proposal)
            keeper.set_proposal(state, proposal)
        deposited = coins.normalise(coin for deposit in genesis.deposits for coin in coins.from_messages(deposit.amount))
        held = keeper.bank.balances(state, account.address)
        if not all_at_least(held, deposited):
            raise GenesisError(
                f"{PATH}.deposits",
                f"expected the gov account to hold the deposits, {coins.to_text(deposited)}, it has {coins.to_text(held) or 'nothing'}",
            )
        return ()

    def export(self, ctx: Context, state: StateReader) -> Json:
        keeper = self._keeper
        return to_json(
            GenesisState(
                starting_proposal_id=keeper.next_id(state),
                deposits=keeper.all(state, keys.DEPOSITS, Deposit),
                votes=keeper.all(state, keys.VOTES, Vote),
                proposals=keeper.all(state, keys.PROPOSALS, Proposal),
                params=keeper.params(state),
                constitution=keeper.constitution(state),
            )
        )


def _read(section: Json) -> Any:
    """The GenesisState. Raises GenesisError."""
    try:
        genesis = from_json(GenesisState, section, PATH)
    except AppError as error:
        raise GenesisError(PATH, error.detail) from None
    if genesis.starting_proposal_id == 0:
        raise GenesisError(f"{PATH}.starting_proposal_id", "starting proposal id must be greater than 0, got 0")
    _checked(f"{PATH}.params", check_params, genesis.params)
    numbers: set[int] = set()
    for at, proposal in enumerate(genesis.proposals):
        path = f"{PATH}.proposals[{at}]"
        if proposal.id in numbers:
            raise GenesisError(path, f"duplicate proposal id: {proposal.id}")
        if not 0 < proposal.id < genesis.starting_proposal_id:
            raise GenesisError(path, f"expected an id from 1 to below starting_proposal_id {genesis.starting_proposal_id}, got {proposal.id}")
        numbers.add(proposal.id)
        for name, statuses in (
            ("deposit_end_time", (DEPOSIT_PERIOD,)),
            ("voting_start_time", (VOTING_PERIOD,)),
            ("voting_end_time", (VOTING_PERIOD,)),
        ):
            if proposal.status in statuses and not proposal.HasField(name):
                raise GenesisError(path, f"{name} is missing: proposal {proposal.id} is open")
        _checked(f"{path}.total_deposit", coins.from_messages, proposal.total_deposit)
    _check_entries("deposits", genesis.deposits, "depositor", numbers, lambda deposit: coins.from_messages(deposit.amount))
    _check_entries("votes", genesis.votes, "voter", numbers, lambda vote: check_options(vote.options))
    return genesis


def _check_entries(name: str, entries: Any, who: str, numbers: set[int], check: Any) -> None:
    seen: set[tuple[int, bytes]] = set()
    for at, entry in enumerate(entries):
        path = f"{PATH}.{name}[{at}]"
        address = _checked(path, bech32.decode, getattr(entry, who))
        if entry.proposal_id not in numbers:
            raise GenesisError(path, f"non-existent proposal id: {entry.proposal_id}")
        if (entry.proposal_id, address) in seen:
            raise GenesisError(path, f"duplicate entry of {getattr(entry, who)} for proposal {entry.proposal_id}")
        seen.add((entry.proposal_id, address))
        _checked(path, check, entry)


def _checked(path: str, check: Any, value: Any) -> Any:
    try:
        return check(value)
    except AppError as error:
        raise GenesisError(path, error.detail) from None
