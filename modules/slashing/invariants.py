"""What always holds of slashing's state, whatever happened."""

from __future__ import annotations

from collections.abc import Mapping

from chain.crypto.keys import public_key_from_any
from chain.module import Invariant
from chain.store.api import StateReader
from modules.slashing.expected import StakingKeeper
from modules.slashing.keeper import SlashingKeeper


def checks(keeper: SlashingKeeper, staking: StakingKeeper) -> Mapping[str, Invariant]:
    """The module's invariants."""

    def counters_are_the_bits(state: StateReader) -> str | None:
        for cons, info in keeper.signing_infos(state):
            bits = len(keeper.missed_blocks(state, cons))
            if bits != info.missed_blocks_counter:
                return f"{info.address} has missed {info.missed_blocks_counter} blocks by its counter, {bits} by its bits"
        return None

    def validators_have_their_keys(state: StateReader) -> str | None:
        for validator in staking.validators(state):
            if not keeper.has_public_key(state, public_key_from_any(validator.consensus_pubkey).address):
                return f"the consensus key of {validator.operator_address} is not remembered"
        return None

    return {"missed blocks are counted": counters_are_the_bits, "validators have their keys": validators_have_their_keys}
