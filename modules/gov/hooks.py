"""What other modules may wait for. ``chain/app.py`` names the objects in order.

An error of the first three fails the transaction. The last two run while a block ends: what fails there is undone and logged.
"""

from __future__ import annotations

from typing import Protocol

from chain.context import Context
from chain.store.api import StateWriter


class GovHooks(Protocol):
    """Told of what becomes of proposals."""

    def after_proposal_submission(self, ctx: Context, state: StateWriter, proposal_id: int) -> None: ...
    def after_proposal_deposit(self, ctx: Context, state: StateWriter, proposal_id: int, depositor: bytes) -> None: ...
    def after_proposal_vote(self, ctx: Context, state: StateWriter, proposal_id: int, voter: bytes) -> None: ...
    def after_proposal_failed_min_deposit(self, ctx: Context, state: StateWriter, proposal_id: int) -> None: ...
    def after_proposal_voting_period_ended(self, ctx: Context, state: StateWriter, proposal_id: int) -> None: ...
