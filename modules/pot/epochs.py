"""When an epoch may be reported and when its rewards mature (stratos-chain.md 4.4, 4.5; storage-protocol.md 1.2)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from chain.codec.times import NANOS
from chain.ozone import bounded
from modules.pot.errors import EpochNotDue, InsufficientMatureTotal, MatureEpoch

MAX_WALLETS_PER_BLOCK: Final = 100


def check_epoch(epoch: int, last_epoch: int, now_ns: int, last_report_ns: int, duration_s: int) -> None:
    """May ``epoch`` be reported at block time ``now_ns``, after ``last_epoch`` was at ``last_report_ns``?

    Off (duration 0): any epoch above the last one. On: the next one alone, ``duration_s`` seconds after the last report at the earliest; the first
    report of a chain has no earlier one to wait for. Raises MatureEpoch (pot/8) for an old one, EpochNotDue (pot/101).
    """
    if bounded(epoch, "an epoch") <= last_epoch:
        raise MatureEpoch(f"epoch {epoch} is reported after epoch {last_epoch}")
    if duration_s == 0:
        return
    if epoch != last_epoch + 1:
        raise EpochNotDue(f"epoch {epoch} is reported after epoch {last_epoch}: expected the next one")
    if last_epoch > 0 and now_ns < last_report_ns + duration_s * NANOS:
        raise EpochNotDue(f"epoch {epoch} is reported {(now_ns - last_report_ns) // NANOS} s after the last one: expected {duration_s} s or more")


def maturity_epoch(epoch: int, mature_epoch: int) -> int:
    """The epoch by whose report what ``epoch`` earned can be withdrawn."""
    return epoch + mature_epoch


def first_unmatured(matured_epoch: int, mature_epoch: int) -> int:
    """The first maturity epoch that was not gone through; a chain that matured none begins after ``mature_epoch``."""
    return (matured_epoch or mature_epoch) + 1


@dataclass(frozen=True, slots=True)
class Maturing:
    """A wallet's reward of one epoch at its maturity, in wei: what it may withdraw, and what its slashing debt took."""

    mature_wei: int
    slashed_wei: int


def mature(reward_wei: int, debt_wei: int) -> Maturing:
    """Debt first: slashed = min(debt, reward), for the community pool; the wallet's immature total falls by the whole reward. Raises InvalidRequest
    (sdk/18) for amounts out of range."""
    slashed = min(bounded(debt_wei, "a debt"), bounded(reward_wei, "a reward"))
    return Maturing(reward_wei - slashed, slashed)


def due(records: Iterable[tuple[int, bytes]], last_epoch: int, limit: int = MAX_WALLETS_PER_BLOCK) -> Iterator[tuple[int, bytes]]:
    """Of (maturity epoch, address) in ascending order, those that mature in this block: up to ``last_epoch``, at most ``limit``. Reads one record
    beyond them at most, however far apart the epochs are."""
    for count, (epoch, address) in enumerate(records):
        if count == limit or epoch > last_epoch:
            return
        yield epoch, address


def withdraw(mature_wei: int, amount_wei: int) -> int:
    """The mature total after a withdrawal. Raises InsufficientMatureTotal (pot/7), InvalidRequest (sdk/18) for amounts out of range."""
    if bounded(amount_wei, "a withdrawal") > bounded(mature_wei, "a mature total"):
        raise InsufficientMatureTotal(f"{amount_wei}wei of {mature_wei}wei")
    return mature_wei - amount_wei
