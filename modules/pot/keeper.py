"""Epochs and rewards: what other modules and the messages may do with them.

Records ─► Maturity ─► Reports ─► Slashing ─► Supply ─► PotKeeper
"""

from __future__ import annotations

from typing import Any

from chain.coins import Coins
from chain.context import Context
from chain.ozone import bounded
from chain.store.api import StateWriter
from modules.pot.errors import InvalidDenom, MatureEpoch
from modules.pot.params import DENOM
from modules.pot.records import FOUNDATION
from modules.pot.supply import Supply


class PotKeeper(Supply):
    """Reports are paid, rewards mature, nodes are slashed, the supply is kept."""

    def end_block(self, ctx: Context, state: StateWriter) -> None:
        """Bounded work, whatever was sent: 100 rewards, 100 epochs, 100 approvals."""
        self.mature(ctx, state)
        self.expire_approvals(ctx, state)
        self.keep_supply(ctx, state)

    def deposit_to_foundation(self, ctx: Context, state: StateWriter, sender: bytes, amount: Coins) -> None:
        """Anybody gives wei that are to be mined. Raises InvalidDenom (pot/28), InsufficientFunds (sdk/5)."""
        if len(amount) != 1 or amount[0].denom != DENOM:
            raise InvalidDenom(f"the foundation takes {DENOM}")
        bounded(amount[0].amount, "a deposit to the foundation")
        self.bank.send_to_module(ctx, state, sender, FOUNDATION, amount)

    def change_params(self, state: StateWriter, params: Any) -> None:
        """Checked parameters by governance. Raises MatureEpoch (pot/8) if ``mature_epoch`` falls while rewards are to mature: two epochs would mature
        together, and neither could be told from the other any more.
        """
        before = int(self.params(state).mature_epoch)
        if params.mature_epoch < before and (next(self.maturing(state), None) is not None or next(self.due_epochs(state), None) is not None):
            raise MatureEpoch(f"mature_epoch: expected {before} or more while rewards are to mature, got {params.mature_epoch}")
        self.set_params(state, params)
