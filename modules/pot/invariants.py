"""What always holds of pot's state, whatever happened."""

from __future__ import annotations

from collections.abc import Mapping

from chain.module import Invariant
from chain.store.api import StateReader, prefix_end
from modules.pot import keys
from modules.pot.expected import Bank
from modules.pot.keeper import PotKeeper
from modules.pot.params import DENOM
from modules.pot.records import POT_ADDRESS, REWARD_POOL_ADDRESS, RewardMessage, amount_of, amounts_of, text_of, unpacked


def checks(keeper: PotKeeper, bank: Bank) -> Mapping[str, Invariant]:
    """The module's invariants."""

    def rewards_are_there(state: StateReader) -> str | None:
        owed, held = keeper.owed_wei(state), bank.balance(state, REWARD_POOL_ADDRESS, DENOM)
        return None if owed == held else f"{owed}wei of rewards are mature or to mature, and total_reward_pool has {held}wei"

    def immature_is_the_sum(state: StateReader) -> str | None:
        sums: dict[bytes, int] = {}
        for epoch, wallet in list(keeper.maturing(state)):
            amounts = keeper.reward(state, epoch, wallet)
            if amounts is None:
                return f"{text_of(wallet)} has a place in the index of epoch {epoch}, and no reward"
            if amounts.both_wei <= 0:
                return f"{text_of(wallet)} has a reward of {amounts.both_wei}wei in epoch {epoch}"
            sums[wallet] = sums.get(wallet, 0) + amounts.both_wei
        if sums != dict(keeper.totals(state, keys.IMMATURE)):
            return "the immature totals are not the sums of the rewards that are to mature"
        return None

    def every_reward_is_in_the_index(state: StateReader) -> str | None:
        store = state.store(keys.STORE)
        count = 0
        for key, raw in store.iterate(keys.REWARDS, prefix_end(keys.REWARDS)):
            count += 1
            epoch, _, wallet = key[1:].partition(b"_")
            if not store.has(keys.maturity(int(epoch), wallet)):
                return f"a reward of {amounts_of(unpacked(RewardMessage, raw)).both_wei}wei of {text_of(wallet)} is not in the index"
        indexed = sum(1 for _ in keeper.maturing(state))
        return None if count == indexed else f"there are {count} rewards and {indexed} places in the index"

    def matured_rewards_are_gone(state: StateReader) -> str | None:
        first = next(keeper.maturing(state), None)
        matured = keeper.matured_epoch(state)
        if first is not None and first[0] <= matured:
            return f"a reward of {text_of(first[1])} matures with epoch {first[0]}, and everything up to {matured} has matured"
        return None

    def epochs_add_up(state: StateReader) -> str | None:
        mined = keeper.total_mined_wei(state)
        if mined < 0:
            return f"{mined}wei were mined"
        last = keeper.last_epoch(state)
        for one in keeper.all_economics(state):
            total = keeper.total_reward(state, one.epoch)
            if one.epoch > last or total is None or keeper.report_of(state, one.epoch) is None:
                return f"epoch {one.epoch} has economics, and no report that was paid"
            if (amount_of(total.mining_reward), amount_of(total.traffic_reward)) != (int(one.mining_reward_wei), int(one.traffic_reward_wei)):
                return f"epoch {one.epoch} was paid otherwise than its economics say"
        return None

    def nothing_stays_on_the_way(state: StateReader) -> str | None:
        held = bank.balance(state, POT_ADDRESS, DENOM)
        return None if held == 0 else f"pot holds {held}wei between transactions"

    return {
        "rewards are there": rewards_are_there,
        "immature is the sum": immature_is_the_sum,
        "every reward is in the index": every_reward_is_in_the_index,
        "matured rewards are gone": matured_rewards_are_gone,
        "epochs add up": epochs_add_up,
        "nothing stays on the way": nothing_stays_on_the_way,
    }
