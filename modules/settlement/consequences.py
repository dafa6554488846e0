"""What a proved lie costs, to the last wei (storage-protocol.md 1.9).

void      pot takes unpaid rewards back ─► Lt −= Y ─► grant restores ─► each signer is slashed ─► what was taken is shared out
shared    a fifth to the finder ─► the gap in Pt ─► the gap in the foundation ─► the community pool
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from chain.coins import Coin
from chain.context import Context
from chain.crypto import address as bech32
from chain.dec import ONE
from chain.store.api import StateWriter
from modules.settlement import events
from modules.settlement.expected import Voided
from modules.settlement.keeper import ACCOUNT, DENOM, VOID, SettlementKeeper
from modules.settlement.params import ratio

FINDERS_SHARE: Final = 5
"""The finder has one part of so many."""
NO_GAP: Final = Voided(0, 0, 0, 0)


def void(keeper: SettlementKeeper, ctx: Context, state: StateWriter, kept: Any, finder: bytes, kind: str) -> int:
    """``kept``, a contestable CommittedEpoch, lies: void it, punish its signers, pay ``finder``; returns his reward in wei. Raises what pot, register,
    grant and bank raise.
    """
    epoch, used, expired = kept.epoch, int(kept.promo_noz), int(kept.promo_expired_noz)
    voided = keeper.pot.void_epoch(ctx, state, epoch)
    lowered, pending = keeper.register.void_ozone(ctx, state, int(kept.volume_noz))
    if used or expired:
        keeper.grant.restore(ctx, state, epoch, used, int(kept.promo_cost_wei), expired, int(kept.promo_returned_wei))
    kept.status = VOID
    keeper.set_epoch(state, kept)
    events.epoch_voided(ctx, epoch, voided, lowered, pending)
    keeper.drop_challenges(ctx, state, epoch)
    return punish(keeper, ctx, state, list(kept.signers), finder, kind, epoch, voided)


def punish(
    keeper: SettlementKeeper, ctx: Context, state: StateWriter, signers: Sequence[str], finder: bytes, kind: str, epoch: int = 0, gap: Voided = NO_GAP
) -> int:
    """Each of ``signers`` (network addresses) loses ``fraud_slash_ratio`` of his deposit; returns what the finder has of it, in wei."""
    part = ratio(keeper.params(state), "fraud_slash_ratio")
    slashed = 0
    for signer in signers:
        address = bech32.decode(signer, bech32.NODE)
        node = keeper.register.meta_node(state, address)
        taken = 0
        if node is not None:
            # Of all that was deposited and not paid back, so that who begins to leave after he signed pays the same.
            taken = keeper.register.slash_deposit(ctx, state, address, int(node.tokens) * part.scaled // ONE, ACCOUNT)
        slashed += taken
        events.signer_slashed(ctx, signer, taken)
    reward = slashed // FINDERS_SHARE
    keeper.pay(ctx, state, finder, reward)
    left = slashed - reward
    prepay = min(left, gap.prepay_gap_wei)
    foundation = min(left - prepay, gap.foundation_gap_wei)
    if prepay or foundation:
        keeper.pot.repay(ctx, state, ACCOUNT, prepay, foundation)
    rest = left - prepay - foundation
    if rest:
        keeper.community.fund_community_pool(ctx, state, (Coin(DENOM, rest),), bech32.module_address(ACCOUNT))
    events.fraud_proved(ctx, kind, epoch, finder, reward, slashed)
    return reward
