"""Proposals, deposits and votes. Reads and writes touch the same keys in the same order as the SDK's keeper, so gas comes out the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import structlog

from chain import coins
from chain.authority import GOV_ADDRESS, InvalidSigner
from chain.codec.canonical import encode
from chain.codec.registry import message_class, pack_any
from chain.codec.times import ns_of, set_ns
from chain.coins import Coin, Coins
from chain.context import Context
from chain.crypto import address as bech32
from chain.dec import ONE, Dec, parse_dec
from chain.errors import AppError, InvalidCoins, UndefinedError
from chain.store.api import StateReader, StateWriter, prefix_end
from chain.tx.decode import message_signers_of
from modules.gov import events, keys
from modules.gov.errors import (
    InactiveProposal,
    InvalidDepositDenom,
    InvalidProposal,
    InvalidProposalContent,
    InvalidProposalMessage,
    InvalidProposer,
    MetadataTooLong,
    MinDepositTooSmall,
    NoProposalHandler,
    SummaryTooLong,
    UnroutableProposalMessage,
    VotingPeriodEnded,
)
from modules.gov.expected import Accounts, Bank, CommunityPool, Router, Stake
from modules.gov.hooks import GovHooks
from modules.gov.params import Params, all_at_least

log = structlog.get_logger("gov")

NAME: Final = "gov"
PACKAGE: Final = "cosmos.gov.v1"
Proposal: Final = message_class(f"{PACKAGE}.Proposal")
Deposit: Final = message_class(f"{PACKAGE}.Deposit")
Vote: Final = message_class(f"{PACKAGE}.Vote")
TallyResult: Final = message_class(f"{PACKAGE}.TallyResult")

DEPOSIT_PERIOD, VOTING_PERIOD, PASSED, REJECTED, FAILED = 1, 2, 3, 4, 5
OPEN: Final = (DEPOSIT_PERIOD, VOTING_PERIOD)
MAX_METADATA_BYTES: Final = 255
MAX_SUMMARY_BYTES: Final = 40 * MAX_METADATA_BYTES
EXEC_LEGACY_CONTENT: Final = f"{PACKAGE}.MsgExecLegacyContent"
_DISTRIBUTION: Final = bech32.module_address("distribution")
_BYTE_COST: Final = 90
"""Gas per byte of a new proposal, beside what writing it costs: three times a written byte, for the writes that come later."""


class NotStored(UndefinedError):
    """undefined/1: the SDK's error of a store without the key."""


def require_length(text: str) -> None:
    """Raise MetadataTooLong (gov/15) for metadata, or a title, of more than 255 bytes."""
    if len(text.encode()) > MAX_METADATA_BYTES:
        raise MetadataTooLong(f"got metadata with length {len(text.encode())}")


def min_deposit(params: Any, expedited: bool) -> Coins:
    """What a proposal needs in all before it is voted on."""
    return _coins(params.expedited_min_deposit if expedited else params.min_deposit)


class GovKeeper:
    """The state of governance. ``community_pool`` receives the charge for a cancelled proposal where the parameters say so."""

    def __init__(self, accounts: Accounts, bank: Bank, stake: Stake, community_pool: CommunityPool, router: Router) -> None:
        self._accounts = accounts
        self._community_pool = community_pool
        self.bank = bank
        self.stake = stake
        self.router = router
        self.hooks: tuple[GovHooks, ...] = ()

    def set_hooks(self, hooks: tuple[GovHooks, ...]) -> None:
        """Whom to tell, in order."""
        self.hooks = hooks

    def module_account(self, ctx: Context, state: StateWriter) -> Any:
        """The account that holds the deposits, made on first use."""
        return self._accounts.module_account(ctx, state, NAME)

    # --- reads ----------------------------------------------------------------------------------------------------------------

    def params(self, state: StateReader) -> Any:
        return Params.FromString(state.store(keys.STORE).get(keys.PARAMS) or b"")

    def constitution(self, state: StateReader) -> str:
        return (state.store(keys.STORE).get(keys.CONSTITUTION) or b"").decode()

    def next_id(self, state: StateReader) -> int:
        return int.from_bytes(state.store(keys.STORE).get(keys.NEXT_ID) or b"", "big")

    def proposal(self, state: StateReader, proposal_id: int) -> Any | None:
        raw = state.store(keys.STORE).get(keys.proposal(proposal_id))
        return None if raw is None else Proposal.FromString(raw)

    def deposit(self, state: StateReader, proposal_id: int, depositor: bytes) -> Any | None:
        raw = state.store(keys.STORE).get(keys.deposit(proposal_id, depositor))
        return None if raw is None else Deposit.FromString(raw)

    def vote(self, state: StateReader, proposal_id: int, voter: bytes) -> Any | None:
        raw = state.store(keys.STORE).get(keys.vote(proposal_id, voter))
        return None if raw is None else Vote.FromString(raw)

    def deposits(self, state: StateReader, proposal_id: int) -> list[tuple[bytes, Coins]]:
        """(depositor, amount) of every deposit on a proposal, by address."""
        return [(keys.address_of(key), _coins(Deposit.FromString(raw).amount)) for key, raw in _under(state, keys.deposits_of(proposal_id))]

    def votes(self, state: StateReader, proposal_id: int) -> Iterator[tuple[bytes, Any]]:
        """(voter, Vote) of every vote on a proposal, by address."""
        return ((keys.address_of(key), Vote.FromString(raw)) for key, raw in _under(state, keys.votes_of(proposal_id)))

    def all(self, state: StateReader, prefix: bytes, cls: Any) -> Iterator[Any]:
        """Every entry under a prefix of ``keys``."""
        return (cls.FromString(raw) for _, raw in _under(state, prefix))

    # --- writes ---------------------------------------------------------------------------------------------------------------

    def set_params(self, state: StateWriter, params: Any) -> None:
        state.store(keys.STORE).set(keys.PARAMS, encode(params))

    def set_constitution(self, state: StateWriter, text: str) -> None:
        state.store(keys.STORE).set(keys.CONSTITUTION, text.encode())

    def set_next_id(self, state: StateWriter, proposal_id: int) -> None:
        state.store(keys.STORE).set(keys.NEXT_ID, keys.number(proposal_id))

    def set_proposal(self, state: StateWriter, proposal: Any) -> None:
        """Write a proposal, and mark it while it is voted on."""
        store = state.store(keys.STORE)
        if proposal.status == VOTING_PERIOD:
            store.set(keys.voting(proposal.id), b"\x01")
        else:
            store.delete(keys.voting(proposal.id))
        store.set(keys.proposal(proposal.id), encode(proposal))

    def set_deposit(self, state: StateWriter, deposit: Any, depositor: bytes) -> None:
        state.store(keys.STORE).set(keys.deposit(deposit.proposal_id, depositor), encode(deposit))

    def set_vote(self, state: StateWriter, vote: Any, voter: bytes) -> None:
        state.store(keys.STORE).set(keys.vote(vote.proposal_id, voter), encode(vote))

    def queue(self, state: StateWriter, proposal: Any) -> None:
        """Put an open proposal where the end of its period is found."""
        queue, end = (keys.ACTIVE, proposal.voting_end_time) if proposal.status == VOTING_PERIOD else (keys.INACTIVE, proposal.deposit_end_time)
        state.store(keys.STORE).set(keys.queued(queue, ns_of(end), proposal.id), keys.number(proposal.id))

    def unqueue_active(self, state: StateWriter, proposal: Any) -> None:
        state.store(keys.STORE).delete(keys.queued(keys.ACTIVE, ns_of(proposal.voting_end_time), proposal.id))

    def delete_proposal(self, state: StateWriter, proposal_id: int) -> None:
        """Remove a proposal and its place in the queues; deposits and votes are the caller's."""
        proposal = self.existing(state, proposal_id)
        store = state.store(keys.STORE)
        if proposal.HasField("deposit_end_time"):
            store.delete(keys.queued(keys.INACTIVE, ns_of(proposal.deposit_end_time), proposal_id))
        if proposal.HasField("voting_end_time"):
            self.unqueue_active(state, proposal)
            store.delete(keys.voting(proposal_id))
        store.delete(keys.proposal(proposal_id))

    def delete_votes(self, state: StateWriter, proposal_id: int) -> int:
        """Remove the votes on a proposal; how many there were."""
        found = [key for key, _ in _under(state, keys.votes_of(proposal_id))]
        for key in found:
            state.store(keys.STORE).delete(key)
        return len(found)

    def existing(self, state: StateReader, proposal_id: int) -> Any:
        """The proposal. Raises NotStored (undefined/1) where there is none."""
        proposal = self.proposal(state, proposal_id)
        if proposal is None:
            raise NotStored(f"collections: not found: key '{proposal_id}' of type github.com/cosmos/gogoproto/{PACKAGE}.Proposal")
        return proposal

    # --- proposals ------------------------------------------------------------------------------------------------------------

    def submit(
        self, ctx: Context, state: StateWriter, messages: Sequence[Any], *, metadata: str, title: str, summary: str, proposer: bytes, expedited: bool
    ) -> Any:
        """Write a new proposal in its deposit period, without a deposit yet. Raises the module's errors."""
        require_length(metadata)
        if len(summary.encode()) > MAX_SUMMARY_BYTES:
            raise SummaryTooLong(f"got summary with length {len(summary.encode())}")
        require_length(title)
        for message in messages:
            self._check_message(ctx, state, message)
        proposal_id = self.next_id(state)
        self.set_next_id(state, proposal_id + 1)
        proposal = Proposal(
            id=proposal_id,
            messages=[pack_any(message) for message in messages],
            status=DEPOSIT_PERIOD,
            final_tally_result=TallyResult(yes_count="0", abstain_count="0", no_count="0", no_with_veto_count="0"),
            metadata=metadata,
            title=title,
            summary=summary,
            proposer=bech32.encode(proposer),
            expedited=expedited,
        )
        set_ns(proposal.submit_time, ctx.time_ns)
        set_ns(proposal.deposit_end_time, ctx.time_ns + ns_of(self.params(state).max_deposit_period))
        self.set_proposal(state, proposal)
        self.queue(state, proposal)
        for hook in self.hooks:
            hook.after_proposal_submission(ctx, state, proposal_id)
        events.proposal_submitted(ctx, proposal_id, proposer, messages)
        ctx.gas.consume(_BYTE_COST * len(encode(proposal)), "submit proposal")
        return proposal

    def _check_message(self, ctx: Context, state: StateWriter, message: Any) -> None:
        """The gov account must be the one signer, and somebody must handle the message; a legacy content is tried."""
        name = message.DESCRIPTOR.full_name
        if not name.startswith("cosmos.") or name == EXEC_LEGACY_CONTENT:
            # SDK 0.50 has left the other checks of its own messages to their handlers: those fail when the proposal is executed.
            try:
                self.router.check(message)
            except AppError as error:
                raise InvalidProposalMessage(str(error)) from None
        try:
            signers = message_signers_of(message)
        except AppError as error:
            raise UndefinedError(error.detail) from None
        if len(signers) != 1:
            raise InvalidSigner
        if signers[0] != self.module_account(ctx, state).address:
            raise InvalidSigner(bech32.encode(signers[0]))
        if not self.router.knows(name):
            raise UnroutableProposalMessage(f"/{name}")
        if name == EXEC_LEGACY_CONTENT:
            start, emitted = state.mark(), ctx.events.mark()
            try:
                self.router.run(ctx, state, message)
            except NoProposalHandler:
                raise
            except AppError as error:
                raise InvalidProposalContent(str(error)) from None
            finally:
                state.rollback(start)
                ctx.events.rollback(emitted)

    def cancel(self, ctx: Context, state: StateWriter, proposal_id: int, proposer: str) -> None:
        """Take back one's own proposal: part of every deposit is charged, the rest goes back. Raises the module's errors."""
        proposal = self.existing(state, proposal_id)
        if not proposal.proposer:
            raise InvalidProposal(f"proposal {proposal_id} doesn't have proposer {proposer}, so cannot be canceled")
        if proposal.proposer != proposer:
            raise InvalidProposer(f"invalid proposer {proposer}")
        if proposal.status not in OPEN:
            raise InvalidProposal("proposal should be in the deposit or voting period")
        if proposal.HasField("voting_end_time") and ns_of(proposal.voting_end_time) < ctx.time_ns:
            raise VotingPeriodEnded(f"voting period is already ended for this proposal {proposal_id}")
        params = self.params(state)
        self._charge(ctx, state, proposal_id, params)
        if proposal.HasField("voting_start_time"):
            self.delete_votes(state, proposal_id)
        self.delete_proposal(state, proposal_id)
        log.info("proposal is canceled by its proposer", proposal=proposal_id, proposer=proposer)

    def _charge(self, ctx: Context, state: StateWriter, proposal_id: int, params: Any) -> None:
        rate = parse_dec(params.proposal_cancel_ratio)
        charged: Coins = ()
        for depositor, amount in self.deposits(state, proposal_id):
            charge = coins.normalise(Coin(denom, Dec(each * ONE).mul(rate).truncate()) for denom, each in amount)
            charged = coins.add(charged, charge)
            rest = coins.subtract(amount, charge)
            if rest:
                self.bank.send_from_module(ctx, state, NAME, depositor, rest)
            state.store(keys.STORE).delete(keys.deposit(proposal_id, depositor))
        if not charged:
            return
        if not params.proposal_cancel_dest:
            self.bank.burn(ctx, state, NAME, charged)
            return
        target = bech32.decode(params.proposal_cancel_dest)
        if target == _DISTRIBUTION:
            self._community_pool.fund_community_pool(ctx, state, charged, GOV_ADDRESS)
        else:
            self.bank.send_from_module(ctx, state, NAME, target, charged)

    # --- deposits -------------------------------------------------------------------------------------------------------------

    def add_deposit(self, ctx: Context, state: StateWriter, proposal_id: int, depositor: bytes, amount: Coins) -> bool:
        """Add to a proposal's deposit; True if its voting period begins by that. Raises the module's errors and the bank's."""
        proposal = self.existing(state, proposal_id)
        if proposal.status not in OPEN:
            raise InactiveProposal(str(proposal_id))
        params = self.params(state)
        least = min_deposit(params, proposal.expedited)
        check_denoms(params, amount)
        ratio = parse_dec(params.min_deposit_ratio)
        if ratio.scaled:
            thresholds = [Coin(denom, Dec(each * ONE).mul(ratio).truncate()) for denom, each in least]
            # A denom that is not in the deposit at all does not meet a threshold of 0.
            given = {coin.denom: coin.amount for coin in amount}
            if not any(one.denom in given and given[one.denom] >= one.amount for one in thresholds):
                text = ",".join(map(str, thresholds))
                raise MinDepositTooSmall(f"received {coins.to_text(amount)} but need at least one of the following: {text}")
        self.bank.send_to_module(ctx, state, depositor, NAME, amount)
        total = coins.add(_coins(proposal.total_deposit), amount)
        _replace(proposal.total_deposit, total)
        self.set_proposal(state, proposal)
        activated = proposal.status == DEPOSIT_PERIOD and all_at_least(total, least)
        if activated:
            self._activate(ctx, state, proposal)
        deposit = self.deposit(state, proposal_id, depositor) or Deposit(proposal_id=proposal_id, depositor=bech32.encode(depositor))
        _replace(deposit.amount, coins.add(_coins(deposit.amount), amount))
        for hook in self.hooks:
            hook.after_proposal_deposit(ctx, state, proposal_id, depositor)
        events.deposited(ctx, proposal_id, depositor, amount)
        self.set_deposit(state, deposit, depositor)
        return activated

    def _activate(self, ctx: Context, state: StateWriter, proposal: Any) -> None:
        params = self.params(state)
        set_ns(proposal.voting_start_time, ctx.time_ns)
        set_ns(proposal.voting_end_time, ctx.time_ns + ns_of(params.expedited_voting_period if proposal.expedited else params.voting_period))
        proposal.status = VOTING_PERIOD
        self.set_proposal(state, proposal)
        state.store(keys.STORE).delete(keys.queued(keys.INACTIVE, ns_of(proposal.deposit_end_time), proposal.id))
        self.queue(state, proposal)

    def extend(self, state: StateWriter, proposal: Any) -> None:
        """Give an expedited proposal that did not pass the whole voting period, as an ordinary one; the caller writes the proposal."""
        proposal.expedited = False
        set_ns(proposal.voting_end_time, ns_of(proposal.voting_start_time) + ns_of(self.params(state).voting_period))
        self.queue(state, proposal)

    def refund(self, ctx: Context, state: StateWriter, proposal_id: int) -> int:
        """Give every deposit on a proposal back; how many there were."""
        found = self.deposits(state, proposal_id)
        for depositor, amount in found:
            # Back to where it came from, whoever that is: the SDK would stop the chain at an account that may not receive.
            self._settle(ctx, state, proposal_id, self.bank.send, GOV_ADDRESS, depositor, amount)
            state.store(keys.STORE).delete(keys.deposit(proposal_id, depositor))
        return len(found)

    def burn_deposits(self, ctx: Context, state: StateWriter, proposal_id: int) -> int:
        """Burn every deposit on a proposal; how many there were."""
        found = self.deposits(state, proposal_id)
        for depositor, _ in found:
            state.store(keys.STORE).delete(keys.deposit(proposal_id, depositor))
        total = coins.normalise(coin for _, amount in found for coin in amount)
        self._settle(ctx, state, proposal_id, self.bank.burn, NAME, total)
        return len(found)

    @staticmethod
    def _settle(ctx: Context, state: StateWriter, proposal_id: int, pay: Callable[..., None], *what: Any) -> None:
        """``pay``, unless the account has too little: a proposal may have spent the deposits of others, which must not stop the chain."""
        start, emitted = state.mark(), ctx.events.mark()
        try:
            pay(ctx, state, *what)
        except AppError as error:
            state.rollback(start)
            ctx.events.rollback(emitted)
            log.error("a deposit is lost: the gov account cannot pay it", proposal=proposal_id, error=str(error))

    # --- votes ----------------------------------------------------------------------------------------------------------------

    def add_vote(self, ctx: Context, state: StateWriter, proposal_id: int, voter: bytes, options: Sequence[Any], metadata: str) -> None:
        """Write a vote, in place of an earlier one. Raises InactiveProposal (gov/3), MetadataTooLong (gov/15)."""
        if not state.store(keys.STORE).has(keys.voting(proposal_id)):
            raise InactiveProposal(str(proposal_id))
        require_length(metadata)
        self.set_vote(state, Vote(proposal_id=proposal_id, voter=bech32.encode(voter), options=options, metadata=metadata), voter)
        for hook in self.hooks:
            hook.after_proposal_vote(ctx, state, proposal_id, voter)
        events.voted(ctx, proposal_id, voter, options)


def check_denoms(params: Any, amount: Coins) -> None:
    """Raise InvalidDepositDenom (gov/23) for a coin that no deposit is made of."""
    accepted = [coin.denom for coin in params.min_deposit]
    if any(coin.denom not in accepted for coin in amount):
        listed = " ".join(accepted)
        raise InvalidDepositDenom(f"deposited {coins.to_text(amount)}, but gov accepts only the following denom(s): [{listed}]")


def check_initial_deposit(params: Any, amount: Coins, expedited: bool) -> None:
    """Raise MinDepositTooSmall (gov/16) for less than a proposal has to come with."""
    ratio = parse_dec(params.min_initial_deposit_ratio)
    if ratio.scaled == 0:
        return
    needed = tuple(Coin(denom, _rounded(Dec(each * ONE).mul(ratio))) for denom, each in min_deposit(params, expedited))
    if not all_at_least(amount, needed):
        raise MinDepositTooSmall(f"was ({coins.to_text(amount)}), need ({coins.to_text(needed)})")


def deposit_coins(messages: Any, *, positive: bool) -> Coins:
    """The coins of a deposit. Raises InvalidCoins (sdk/10) unless they are valid, and there is one where ``positive`` says so."""
    amount = coins.from_messages(messages)
    if positive and not amount:
        raise InvalidCoins("expected at least one coin, got none")
    return amount


def _rounded(value: Dec) -> int:
    """The nearest whole number, half to even."""
    quotient, rest = divmod(value.scaled, ONE)
    return quotient + (rest * 2 > ONE or (rest * 2 == ONE and quotient & 1))


def _coins(messages: Any) -> Coins:
    return tuple(Coin(coin.denom, int(coin.amount)) for coin in messages)


def _replace(messages: Any, amount: Coins) -> None:
    del messages[:]
    messages.extend(coins.to_messages(amount))


def _under(state: StateReader, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
    return state.store(keys.STORE).iterate(prefix, prefix_end(prefix))
