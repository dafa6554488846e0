"""How deposits make ozone: S and Lt rise and fall with them (stratos-chain.md 2.3, 2.5, 4.7; storage-protocol.md 1.4).

With the solvency rules a deposit counts in S until it has left for good, and what leaves takes its ozone along: whole noz, never more than the limit
holds. The rest of it is *pending*: it stays in S and goes when the limit rises. So S = Σ counted + pending, Lt >= 0, and no lowering changes
A = S ÷ rate − Lt.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import gcd  # determinism: of integers

from chain.dec import ONE, Dec, dec_of
from chain.ozone import Ozone, bounded
from modules.register.errors import InsufficientBalance, InvalidAmount, InvalidEffectiveToken, RemainingNozLimit


@dataclass(frozen=True, slots=True)
class NodeDeposit:
    """A node's deposit. All in wei."""

    tokens_wei: int
    """All that was deposited and not paid back."""
    unbonding_wei: int = 0
    """Part of it that is leaving."""
    effective_wei: int = 0
    """Part that the node works with; 0 while it is suspended."""
    counted_wei: int = 0
    """Part in S. With the solvency rules it outlives suspension and leaving; without them it equals ``effective_wei`` (and a node that has left
    leaves it in S for ever)."""


def initial_limit_noz(deposit_wei: int, rate: Dec) -> int:
    """L0: the limit of a fresh chain, trunc(S ÷ rate)."""
    return Ozone(deposit_wei, 0, rate=rate).supply_noz


def ozone_of(pool: Ozone, amount_wei: int) -> int:
    """noz that a deposit change reports: trunc(Δ ÷ rate)."""
    return dec_of(amount_wei).quo(pool.rate).truncate()


def raise_deposit(pool: Ozone, amount_wei: int) -> Ozone:
    """S += Δ, Lt ← trunc(Lt + Δ ÷ rate). Rounding favours the pool: Lt grows by less than one noz too little.

    Off: the first deposit into S = 0 makes no ozone. On: it does, and what is pending goes at once.
    Raises InvalidAmount (register/61) unless Δ is positive, InvalidRequest (sdk/18) above 2^127 - 1.
    """
    _positive(amount_wei)
    if pool.deposit_wei == 0 and not pool.solvency:
        return replace(pool, deposit_wei=amount_wei)
    remaining = Dec(dec_of(pool.remaining_noz).scaled + dec_of(amount_wei).quo(pool.rate).scaled).truncate()
    return _take_pending(replace(pool, deposit_wei=pool.deposit_wei + amount_wei, remaining_noz=remaining))


def lower_deposit(pool: Ozone, amount_wei: int) -> Ozone:
    """S −= Δ, Lt ← trunc(Lt − Δ ÷ rate), so a fraction of a noz is rounded away from the limit.

    On: whole noz alone, as many as Lt holds; what is left is pending. Raises InvalidAmount (register/61) unless Δ is positive and counted in S, and
    with the rules off RemainingNozLimit (register/43) where the original would store a limit below zero.
    """
    _positive(amount_wei)
    if amount_wei > pool.deposit_wei - pool.pending_wei:
        raise InvalidAmount(f"{amount_wei}wei leave, of {pool.deposit_wei - pool.pending_wei}wei that are deposited")
    if pool.solvency:
        return _take_pending(replace(pool, pending_wei=pool.pending_wei + amount_wei))
    remaining = dec_of(pool.remaining_noz).scaled - dec_of(amount_wei).quo(pool.rate).scaled
    if remaining < 0:
        raise RemainingNozLimit(f"{ozone_of(pool, amount_wei)} noz leave, of {pool.remaining_noz} noz that are not sold")
    return replace(pool, deposit_wei=pool.deposit_wei - amount_wei, remaining_noz=Dec(remaining).truncate())


def take_ozone(pool: Ozone, volume_noz: int) -> Ozone:
    """Sold: Lt −= noz. Raises RemainingNozLimit (register/43) for more than Lt."""
    if bounded(volume_noz, "a volume") > pool.remaining_noz:
        raise RemainingNozLimit(f"{volume_noz} noz are asked for, of {pool.remaining_noz} noz that are not sold")
    return replace(pool, remaining_noz=pool.remaining_noz - volume_noz)


def return_ozone(pool: Ozone, volume_noz: int) -> Ozone:
    """Reported or expired noz come back: Lt += Y, then what is pending goes. Raises InvalidRequest (sdk/18) for amounts out of range."""
    return _take_pending(replace(pool, remaining_noz=pool.remaining_noz + bounded(volume_noz, "a volume")))


def void_ozone(pool: Ozone, volume_noz: int) -> Ozone:
    """What an epoch had returned is outstanding again: Lt −= Y as far as Lt goes, the rest is pending. Raises InvalidRequest (sdk/18) for amounts
    out of range."""
    lowered = min(bounded(volume_noz, "a volume"), pool.remaining_noz)
    return replace(pool, remaining_noz=pool.remaining_noz - lowered, pending_noz=pool.pending_noz + volume_noz - lowered)


def set_effective(pool: Ozone, node: NodeDeposit, effective_wei: int) -> tuple[Ozone, NodeDeposit]:
    """Activate, re-activate or resize a resource node (2.5, UpdateEffectiveDeposit).

    Off: S moves by new − effective; a decrease that the limit cannot take changes the node alone. On: S moves by new − counted, so re-activation
    takes up what a suspended deposit still counts for. Raises InvalidEffectiveToken (register/63) unless positive, InsufficientBalance (register/17)
    for more than the deposit that is not leaving.
    """
    if effective_wei <= 0:
        raise InvalidEffectiveToken(f"got {effective_wei}wei")
    if node.tokens_wei - node.unbonding_wei < effective_wei:
        raise InsufficientBalance(f"{effective_wei}wei shall be effective, of {node.tokens_wei - node.unbonding_wei}wei that stay")
    change = effective_wei - node.counted_wei
    after = replace(node, effective_wei=effective_wei, counted_wei=effective_wei)
    if change > 0:
        return raise_deposit(pool, change), after
    if change == 0 or not (pool.solvency or dec_of(pool.remaining_noz) >= dec_of(-change).quo(pool.rate)):
        return pool, after
    return lower_deposit(pool, -change), after


def suspend(pool: Ozone, node: NodeDeposit) -> tuple[Ozone, NodeDeposit]:
    """A suspended node works with nothing. Off: its deposit leaves S at once (RemainingNozLimit, register/43, if it cannot). On: it goes on counting
    until it has left for good or is active again, so a suspension moves no price."""
    if pool.solvency or node.counted_wei == 0:
        return pool, replace(node, effective_wei=0)
    return lower_deposit(pool, node.counted_wei), replace(node, effective_wei=0, counted_wei=0)


def leave_meta_node(pool: Ozone, available_wei: int) -> Ozone:
    """A bonded meta node begins to leave. Off: S and Lt fall at once, and InsufficientBalance (register/17) if more of its ozone is sold than the
    limit holds. On: nothing changes before ``complete_leaving``."""
    if pool.solvency:
        return pool
    if dec_of(pool.remaining_noz) < dec_of(available_wei).quo(pool.rate):
        raise InsufficientBalance(f"the ozone of {available_wei}wei is sold: {pool.remaining_noz} noz remain")
    return lower_deposit(pool, available_wei)


def complete_leaving(pool: Ozone, node: NodeDeposit) -> tuple[Ozone, NodeDeposit]:
    """Unbonding is over and the leaving part is paid back. On: what counted beyond the rest of the deposit leaves S and its ozone Lt. Off: nothing
    moves here (a meta node's left at the beginning, a resource node's never does)."""
    tokens = node.tokens_wei - node.unbonding_wei
    after = replace(
        node, tokens_wei=tokens, unbonding_wei=0, effective_wei=min(node.effective_wei, tokens), counted_wei=min(node.counted_wei, tokens)
    )
    if not pool.solvency or after.counted_wei == node.counted_wei:
        return pool, after
    return lower_deposit(pool, node.counted_wei - after.counted_wei), after


def slash(pool: Ozone, node: NodeDeposit, amount_wei: int) -> tuple[Ozone, NodeDeposit, int]:
    """Up to Δ of a deposit is taken, of what stays first, then of what is leaving; the third is what was there.

    What no longer stands behind the counted part leaves S. On: with its ozone, and what Lt cannot take is pending. Off: as a smaller effective
    deposit, which changes the node alone where Lt cannot take it. Raises InvalidRequest (sdk/18) for amounts out of range.
    """
    bounded(amount_wei, "a slash")
    staying = node.tokens_wei - node.unbonding_wei
    from_staying = min(amount_wei, staying)
    from_leaving = min(amount_wei - from_staying, node.unbonding_wei)
    tokens, unbonding = node.tokens_wei - from_staying - from_leaving, node.unbonding_wei - from_leaving
    most = tokens - unbonding if node.effective_wei <= staying else tokens
    after = NodeDeposit(tokens, unbonding, min(node.effective_wei, most), min(node.counted_wei, tokens))
    if not pool.solvency:
        after = replace(after, counted_wei=min(after.counted_wei, after.effective_wei))
    lost = node.counted_wei - after.counted_wei
    if lost and (pool.solvency or dec_of(pool.remaining_noz) >= dec_of(lost).quo(pool.rate)):
        pool = lower_deposit(pool, lost)
    return pool, after, from_staying + from_leaving


def deduct(debt_wei: int, amount_wei: int) -> tuple[int, int]:
    """A slashing debt is taken from an amount about to be paid (2.6): (what is left to pay, what was taken), the second min(debt, amount)."""
    taken = min(bounded(debt_wei, "a debt"), bounded(amount_wei, "an amount"))
    return amount_wei - taken, taken


def collect(debt_wei: int, sources_wei: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
    """A debt is taken from several sources, each emptied before the next: the deposit, then rewards (storage-protocol.md 1.8). Returns what each
    gives, and the debt that stays."""
    given = []
    for source in sources_wei:
        given.append(deduct(debt_wei, source)[1])
        debt_wei -= given[-1]
    return tuple(given), debt_wei


def _positive(amount_wei: int) -> None:
    if bounded(amount_wei, "a deposit change") == 0:
        raise InvalidAmount("expected a positive deposit change")


def _take_pending(pool: Ozone) -> Ozone:
    """Pending noz leave first. Then pending deposits leave with their ozone: as many noz as Lt holds that are worth a whole number of wei, so that A
    stays the same."""
    taken = min(pool.pending_noz, pool.remaining_noz)
    if taken:
        pool = replace(pool, remaining_noz=pool.remaining_noz - taken, pending_noz=pool.pending_noz - taken)
    if pool.pending_wei == 0:
        return pool
    step_noz = ONE // gcd(ONE, pool.rate.scaled)
    noz = min(pool.remaining_noz, pool.pending_wei * ONE // pool.rate.scaled) // step_noz * step_noz
    wei = noz * pool.rate.scaled // ONE
    return replace(pool, deposit_wei=pool.deposit_wei - wei, remaining_noz=pool.remaining_noz - noz, pending_wei=pool.pending_wei - wei)
