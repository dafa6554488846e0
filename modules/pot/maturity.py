"""Rewards mature, are withdrawn, or are taken back with a void epoch (stratos-chain.md 4.5, 4.6; storage-protocol.md 1.2, 1.9)."""

from __future__ import annotations

from itertools import islice
from typing import Any, Final, NamedTuple

from chain.coins import Coin, Coins
from chain.context import Context
from chain.errors import InvariantBroken
from chain.store.api import StateReader, StateWriter
from modules.pot import keys
from modules.pot.epochs import MAX_WALLETS_PER_BLOCK, due, withdraw
from modules.pot.errors import InvalidDenom, NotMaturing
from modules.pot.params import DENOM
from modules.pot.records import FOUNDATION, PREPAID, REWARD_POOL, REWARD_POOL_ADDRESS, Records, amount_of

MAX_EPOCHS_PER_BLOCK: Final = 100
"""That begin to mature: each is told to settlement once."""


class Voided(NamedTuple):
    """What a void epoch gave back, in wei: unpaid traffic rewards to the prepaid wei, unpaid mining to the foundation; and the gap that what was paid
    at once (to chain and community) leaves in each."""

    prepay_returned_wei: int
    foundation_returned_wei: int
    prepay_gap_wei: int
    foundation_gap_wei: int


def coins(amount_wei: int) -> Coins:
    """A positive amount of wei as coins."""
    return (Coin(DENOM, amount_wei),)


class Maturity(Records):
    """From immature to withdrawn."""

    def mature(self, ctx: Context, state: StateWriter) -> None:
        """End of a block: at most MAX_WALLETS_PER_BLOCK rewards mature, the earliest first, whatever was reported; the rest follows in later blocks.

        A reward first pays debts of slashing, into the community pool. Before the first reward of an epoch matures its evidence is dropped.
        """
        last_epoch = self.last_epoch(state)
        begun = list(islice(self.due_epochs(state, last_epoch + 1), MAX_EPOCHS_PER_BLOCK + 1))
        # Epochs that have not been told to settlement wait with their rewards.
        end = last_epoch + 1 if len(begun) <= MAX_EPOCHS_PER_BLOCK else begun[MAX_EPOCHS_PER_BLOCK][0]
        for maturity_epoch, epoch in begun[:MAX_EPOCHS_PER_BLOCK]:
            self._end_evidence(ctx, state, maturity_epoch, epoch)
        found = list(islice(self.maturing(state, end_epoch=end), MAX_WALLETS_PER_BLOCK + 1))
        slashed_wei = sum(self._mature_one(ctx, state, epoch, wallet) for epoch, wallet in due(found, last_epoch))
        if slashed_wei:
            self.community.fund_community_pool(ctx, state, coins(slashed_wei), REWARD_POOL_ADDRESS)
        done = found[MAX_WALLETS_PER_BLOCK][0] - 1 if len(found) > MAX_WALLETS_PER_BLOCK else end - 1
        if done > self.matured_epoch(state):
            self.set_matured_epoch(state, done)

    def _end_evidence(self, ctx: Context, state: StateWriter, maturity_epoch: int, epoch: int) -> None:
        self.settlement.forget(ctx, state, epoch)
        self.forget_due(state, maturity_epoch)

    def _mature_one(self, ctx: Context, state: StateWriter, maturity_epoch: int, wallet: bytes) -> int:
        """Returns what debts took."""
        amounts = self.take_reward(state, maturity_epoch, wallet)
        left_wei, slashed_wei = self.register.deduct_debt(ctx, state, wallet, amounts.both_wei)
        if left_wei < 0 or slashed_wei < 0 or left_wei + slashed_wei != amounts.both_wei:
            raise InvariantBroken(f"of a reward of {amounts.both_wei}wei {left_wei}wei are left after a debt of {slashed_wei}wei")
        if left_wei:
            self.set_mature(state, wallet, self.mature_wei(state, wallet) + left_wei)
        return slashed_wei

    def withdraw(self, ctx: Context, state: StateWriter, wallet: bytes, target: bytes, amount: Coins) -> None:
        """Pay matured rewards to ``target``. Raises InvalidDenom (pot/28), InsufficientMatureTotal (pot/7), Unauthorized (sdk/4) for an account that
        receives nothing from users."""
        if len(amount) != 1 or amount[0].denom != DENOM:
            raise InvalidDenom(f"rewards are in {DENOM}")
        left_wei = withdraw(self.mature_wei(state, wallet), amount[0].amount)
        self.bank.send_from_module(ctx, state, REWARD_POOL, target, amount)
        self.set_mature(state, wallet, left_wei)

    def void_epoch(self, ctx: Context, state: StateWriter, epoch: int) -> Any:
        """Cancel the immature rewards of ``epoch`` and send them back where they came from; mark its economics void. Returns a ``Voided``. Lt is the
        caller's. Work: one reward for each wallet of the report. Raises NotMaturing (pot/109).
        """
        economics = self.economics(state, epoch)
        total = self.total_reward(state, epoch)
        if economics is None or total is None or not self.is_maturing(state, epoch):
            raise NotMaturing(f"epoch {epoch}")
        maturity_epoch = int(economics.maturity_epoch)
        mining_wei = traffic_wei = 0
        for _, wallet in list(self.maturing(state, maturity_epoch, maturity_epoch + 1)):
            amounts = self.take_reward(state, maturity_epoch, wallet)
            mining_wei += amounts.mining_wei
            traffic_wei += amounts.traffic_wei
        if traffic_wei:
            self.bank.send_between_modules(ctx, state, REWARD_POOL, PREPAID, coins(traffic_wei))
        if mining_wei:
            self.bank.send_between_modules(ctx, state, REWARD_POOL, FOUNDATION, coins(mining_wei))
        self.set_total_mined(state, self.total_mined_wei(state) - mining_wei)
        economics.is_void = True
        self.set_economics(state, economics)
        return Voided(traffic_wei, mining_wei, amount_of(total.traffic_reward) - traffic_wei, amount_of(total.mining_reward) - mining_wei)

    def repay(self, ctx: Context, state: StateWriter, module: str, prepay_wei: int, foundation_wei: int) -> None:
        """A module account makes good what void epochs left open: to the prepaid wei and to the foundation; total mined falls by the latter. Raises
        what bank raises."""
        if prepay_wei:
            self.bank.send_between_modules(ctx, state, module, PREPAID, coins(prepay_wei))
        if foundation_wei:
            self.bank.send_between_modules(ctx, state, module, FOUNDATION, coins(foundation_wei))
            self.set_total_mined(state, self.total_mined_wei(state) - foundation_wei)

    def owed_wei(self, state: StateReader) -> int:
        """What the reward pool owes: all that is mature and all that is to mature."""
        return sum(amount for prefix in (keys.MATURE, keys.IMMATURE) for _, amount in self.totals(state, prefix))
