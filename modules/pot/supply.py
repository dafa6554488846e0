"""The supply is kept at its level from the community pool (stratos-chain.md 4.5)."""

from __future__ import annotations

from typing import Final

import structlog

from chain import dec_coins
from chain.context import Context
from chain.store.api import StateWriter
from modules.pot.maturity import coins
from modules.pot.params import DENOM, supply_wei
from modules.pot.records import NAME, POT_ADDRESS
from modules.pot.slashing import Slashing

PERIOD_BLOCKS: Final = 10_000
DISTRIBUTION: Final = "distribution"
log = structlog.get_logger("pot")


class Supply(Slashing):
    """Mints what is missing to the community pool, burns a surplus from it."""

    def keep_supply(self, ctx: Context, state: StateWriter) -> None:
        """At heights 1, 10001, 20001, …: below ``initial_total_supply`` the gap is minted to the community pool; above it the surplus is burnt from
        there, its record included, if the pool is that large, and otherwise nothing happens before the next time.
        """
        if ctx.height % PERIOD_BLOCKS != 1:
            return
        gap_wei = supply_wei(self.params(state)) - self.bank.supply(state, DENOM)
        if gap_wei > 0:
            self.bank.mint(ctx, state, NAME, coins(gap_wei))
            self.community.fund_community_pool(ctx, state, coins(gap_wei), POT_ADDRESS)
        elif gap_wei < 0:
            left = dec_coins.subtract(self.community.community_pool(state), dec_coins.from_coins(coins(-gap_wei)))
            if left is None:
                log.info("the community pool is too small to burn the surplus of the supply", height=ctx.height, surplus_wei=-gap_wei)
                return
            self.bank.burn(ctx, state, DISTRIBUTION, coins(-gap_wei))
            self.community.set_community_pool(state, left)
