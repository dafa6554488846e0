"""Withheld data: who doubts that a leaf can be shown puts up a bond; whoever shows the leaf has half of it, and if nobody does, the epoch is void."""

from __future__ import annotations

from itertools import islice
from typing import Any, Final

import structlog

from chain.coins import Coin
from chain.context import Context
from chain.crypto import address as bech32
from chain.errors import AppError, InvariantBroken, Unauthorized
from chain.store.api import StateWriter
from modules.settlement import consequences, events, fraud, keys
from modules.settlement.errors import InvalidProof, LeafChallenged, TooManyChallenges, UnknownChallenge
from modules.settlement.keeper import ACCOUNT, DENOM, Challenge, SettlementKeeper
from modules.settlement.params import bond_wei

MAX_CHALLENGES_OF_EPOCH: Final = 64
MAX_VOIDED_BY_BLOCK: Final = 1
"""Of epochs whose challenges passed their deadline; the next block takes the next."""
ANSWERERS_SHARE: Final = 2
"""Whoever shows a leaf has one part of so many of its bond; the rest is the community's, so that who asks himself pays for the place he holds."""
KIND: Final = "withheld_leaf"

log = structlog.get_logger("settlement")


def challenge(keeper: SettlementKeeper, ctx: Context, state: StateWriter, challenger: bytes, epoch: int, leaf_index: int) -> int:
    """Take the bond and open a challenge; returns its number.

    Raises InvalidProof (settlement/17) for a leaf that the epoch does not have, LeafChallenged (20), TooManyChallenges (21), Unauthorized (sdk/4) for
    who could not have the bond back, what ``contestable`` raises, InsufficientFunds (sdk/5).
    """
    if keeper.bank.is_blocked(challenger):
        raise Unauthorized(f"{bech32.encode(challenger)} is not allowed to receive funds, so it cannot put up a bond")
    kept = keeper.contestable(state, epoch)
    if leaf_index >= kept.roots.receipts_count:
        raise InvalidProof(f"expected a leaf from 0 to {kept.roots.receipts_count - 1}, the last one of epoch {epoch}, got {leaf_index}")
    if keeper.is_challenged(state, epoch, leaf_index):
        raise LeafChallenged(f"leaf {leaf_index} of epoch {epoch}")
    if len(keeper.challenges_of(state, epoch)) >= MAX_CHALLENGES_OF_EPOCH:
        raise TooManyChallenges(f"epoch {epoch} has {MAX_CHALLENGES_OF_EPOCH} open challenges, which is the most there may be")
    params, challenge_id = keeper.params(state), keeper.next_challenge_id(state)
    made = Challenge(
        challenge_id=challenge_id,
        epoch=epoch,
        leaf_index=leaf_index,
        challenger=bech32.encode(challenger),
        bond_wei=str(bond_wei(params)),
        deadline_height=ctx.height + params.challenge_blocks,
    )
    keeper.bank.send_to_module(ctx, state, challenger, ACCOUNT, (Coin(DENOM, bond_wei(params)),))
    keeper.set_next_challenge_id(state, challenge_id + 1)
    keeper.add_challenge(state, made)
    events.challenged(ctx, made)
    return challenge_id


def answer(keeper: SettlementKeeper, ctx: Context, state: StateWriter, responder: bytes, challenge_id: int, proof: Any) -> int:
    """A LeafProof of the challenged leaf ends the challenge; half of its bond (rounded down, returned in wei) goes to whoever shows it, the rest to the
    community pool.

    Raises UnknownChallenge (settlement/22), InvalidProof (17), Unauthorized (sdk/4), what ``contestable`` raises.
    """
    if keeper.bank.is_blocked(responder):
        raise Unauthorized(f"{bech32.encode(responder)} is not allowed to receive funds")
    found = keeper.challenge(state, challenge_id)
    if found is None or ctx.height > found.deadline_height:
        raise UnknownChallenge(f"no challenge {challenge_id} waits for an answer")
    if (proof.epoch, proof.index) != (found.epoch, found.leaf_index):
        raise InvalidProof(f"expected leaf {found.leaf_index} of epoch {found.epoch}, got leaf {proof.index} of epoch {proof.epoch}")
    fraud.shown_within(keeper, ctx, state, proof)
    keeper.remove_challenge(state, found)
    bond = int(found.bond_wei)
    reward = bond // ANSWERERS_SHARE
    keeper.pay(ctx, state, responder, reward)
    keeper.community.fund_community_pool(ctx, state, (Coin(DENOM, bond - reward),), bech32.module_address(ACCOUNT))
    events.answered(ctx, challenge_id, bech32.encode(responder), reward)
    return reward


def end_block(keeper: SettlementKeeper, ctx: Context, state: StateWriter) -> None:
    """Void the epochs whose challenges nobody answered, one in a block; the others of an epoch end with it, and all bonds go back.

    Where the epoch cannot be voided (its rewards have begun to mature in this block, or another module refuses), its challenges end alone.
    """
    store = state.store(keys.STORE)
    due = [key for key, _ in islice(store.iterate(keys.DEADLINES, keys.deadlines_before(ctx.height + 1)), MAX_VOIDED_BY_BLOCK)]
    for key in due:
        found = keeper.challenge(state, keys.queued_challenge(key))
        if found is None:
            raise InvariantBroken(f"challenge {keys.queued_challenge(key)} is queued and not there")
        start, told = state.mark(), ctx.events.mark()
        try:
            kept = keeper.contestable(state, found.epoch)
            consequences.void(keeper, ctx, state, kept, bech32.decode(found.challenger), KIND)
        except AppError as error:
            state.rollback(start)
            ctx.events.rollback(told)
            log.error("an epoch whose leaf nobody showed was not voided", epoch=found.epoch, error=str(error))
            keeper.drop_challenges(ctx, state, found.epoch)
