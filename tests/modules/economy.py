"""The arithmetic of register, sds and pot put together as the keepers will: one state that prepays, reports and deposits change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from chain.ozone import Ozone
from modules.pot.rewards import Distribution, RewardParams, Work, distribute
from modules.register.deposits import return_ozone
from modules.sds.pricing import prepay

STOS = 10**18
SUPPLY_WEI = 10**8 * STOS


@dataclass
class Economy:
    """Changed by the operations; each returns what happened."""

    pool: Ozone
    params: RewardParams = field(default_factory=RewardParams)
    mined_wei: int = 0
    meta_wallets: Sequence[str] = ("m1", "m2", "m3")
    foundation_wei: int = SUPPLY_WEI
    earned_wei: dict[str, int] = field(default_factory=dict)

    def buy(self, paid_wei: int) -> int:
        self.pool, noz = prepay(self.pool, paid_wei)
        return noz

    def report(self, work: Sequence[Work]) -> Distribution:
        paid = distribute(self.pool, self.mined_wei, self.foundation_wei, work, self.meta_wallets, self.params)
        self.pool = return_ozone(replace(self.pool, prepaid_wei=self.pool.prepaid_wei - paid.spent_wei), paid.volume_noz)
        self.mined_wei, self.foundation_wei = self.mined_wei + paid.mined_wei, self.foundation_wei - paid.mined_wei
        for one in paid.rewards:
            self.earned_wei[one.wallet] = self.earned_wei.get(one.wallet, 0) + one.mining_wei + one.traffic_wei
        return paid
