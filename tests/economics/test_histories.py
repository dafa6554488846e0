"""Random histories of deposits, sales, reports, leavings, suspensions and slashes keep what docs/economics.md promises."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

import pytest

from chain.ozone import Ozone
from tests.economics.histories import Promises, check, check_many, history
from tests.economics.model import Model, Rules
from tests.economics.operations import Create, Operation, Paid, Prepay, Report, Seen, Suspend, Wait
from tests.economics.pure import PureWorld

OPERATIONS = ("create", "add", "effective", "suspend", "slash", "leave", "wait", "prepay", "claim", "report", "refused")
AT_STAKE = ("all_sold", "pending", "own_traffic", "twins_by_part", "twins_by_price")


def test_random_histories_on_the_functions_equal_the_model_to_the_last_unit_and_keep_every_promise() -> None:
    figures = check_many(PureWorld, 500)
    for name in (*OPERATIONS, *AT_STAKE):
        assert figures[name] > 100, figures


def test_the_same_seed_gives_the_same_history() -> None:
    assert list(history(7)) == list(history(7))
    assert list(history(7)) != list(history(8))


def test_by_the_original_s_rules_histories_break_the_promises() -> None:
    broken = set()
    for seed in range(60):
        try:
            check(seed, PureWorld(pool=Ozone(0, 0, solvency=False)), beside_model=False)
        except AssertionError as error:
            broken.add(re.sub(r"\d+(\.\d+)?", "…", str(error).rsplit(": ", 1)[-1].split(",")[0]))
    assert {"a report lowered Pt ÷ A", "S is not the sum of its parts", "a suspension moved a sum"} <= broken


@dataclass
class Wrong:
    """A world that is right but for one thing."""

    kind: type[Operation]
    world: PureWorld = field(default_factory=PureWorld)

    def apply(self, operation: Operation) -> Paid:
        paid = self.world.apply(operation)
        if not isinstance(operation, self.kind):
            return paid
        pool = self.world.pool
        match operation:
            case Prepay() if pool.remaining_noz:
                self.world.pool = replace(pool, remaining_noz=pool.remaining_noz - 1)
            case Report() if paid.rewards:
                receiver, (mining, traffic) = next(iter(paid.rewards.items()))
                return replace(paid, rewards={**paid.rewards, receiver: (mining, traffic + 1)})
            case Wait():
                self.world.pool = replace(pool, prepaid_wei=pool.prepaid_wei + 1)
            case Suspend():
                self.world.pool = replace(pool, deposit_wei=pool.deposit_wei + 1)
        return paid

    def seen(self) -> Seen:
        return self.world.seen()

    def broken(self) -> list[str]:
        return []


@pytest.mark.parametrize("kind", [Prepay, Report, Wait, Suspend])
def test_one_unit_that_is_wrong_once_is_found(kind: type[Operation]) -> None:
    with pytest.raises(AssertionError, match="is not"):
        check_many(lambda rules: Wrong(kind, PureWorld(rules)), 20)


def seen(**changed: int) -> Seen:
    usual = {
        "deposit_wei": 10**12,
        "remaining_noz": 500_000,
        "prepaid_wei": 10**12,
        "pending_wei": 0,
        "effective_wei": 10**12,
        "leaving_wei": 0,
        "tokens_wei": 10**12,
        "promo_noz": 0,
        "promo_cost_wei": 0,
    }
    return Seen(**{**usual, **changed})


REPORT = Report(((0, 100_000, 0),))
OWN = Report(((0, 100_000, 0),), at_most_wei=10**11)


@pytest.mark.parametrize(
    ("operation", "before", "after", "paid", "broken"),
    [
        (REPORT, {}, {"remaining_noz": 600_000, "prepaid_wei": 7 * 10**11}, Paid(spent_wei=3 * 10**11), "a report lowered Pt ÷ A"),
        (OWN, {}, {"remaining_noz": 600_000, "prepaid_wei": 8 * 10**11}, Paid(spent_wei=2 * 10**11), "own traffic was worth more"),
        (Wait(1), {}, {"remaining_noz": 499_999}, Paid(), "a leaving took"),
        (Wait(1), {}, {"leaving_wei": 1}, Paid(), "S is not the sum"),
        (Prepay(1), {}, {"remaining_noz": -1}, Paid(noz=500_001), "Lt is below zero"),
        (Prepay(1), {}, {"remaining_noz": 499_999}, Paid(noz=2), "neither for sale nor sold"),
        (Prepay(1), {}, {"remaining_noz": 499_999}, Paid(noz=0), "neither for sale nor sold"),
    ],
)
def test_each_promise_that_is_broken_is_found(operation: Operation, before: dict[str, int], after: dict[str, int], paid: Paid, broken: str) -> None:
    promises = Promises()
    promises.sold_noz = 500_000
    with pytest.raises(AssertionError, match=broken):
        promises.after(operation, seen(**before), seen(**after), paid)


def test_of_two_equal_reports_the_second_may_get_neither_more_nor_by_its_part_less() -> None:
    promises = Promises()
    promises.sold_noz = 500_000
    middle = seen(remaining_noz=600_000, prepaid_wei=8 * 10**11)
    promises.after(REPORT, seen(), middle, Paid(spent_wei=2 * 10**11))
    for spent in (2 * 10**11 + 100, 2 * 10**11 - 100):
        last = seen(remaining_noz=700_000, prepaid_wei=8 * 10**11 - spent)
        again = Promises()
        again.sold_noz, again.last_value = promises.sold_noz, promises.last_value
        if spent > 2 * 10**11:
            with pytest.raises(AssertionError, match=r"lowered Pt ÷ A|got more than the first"):
                again.after(replace(REPORT, twin=True), middle, last, Paid(spent_wei=spent))
        else:
            again.after(replace(REPORT, twin=True), middle, last, Paid(spent_wei=spent))
            assert again.met["twins by price"] == 1


def test_the_model_of_a_history_worked_by_hand() -> None:
    """One meta node of 100 stos; 10 stos buy; half is reported."""
    stos = 10**18
    model = Model(Rules())
    model.apply(Create(1, 100 * stos, True))
    assert (model.deposit_wei, model.remaining_noz) == (100 * stos, 10**14)
    bought = model.apply(Prepay(10 * stos)).noz
    assert bought == 10**14 * 10 // 110
    paid = model.apply(Report(((0, bought // 2, 0),)))
    # R = min(110 stos · Y ÷ (Lt + Y), Pt · Y ÷ A) = 5 stos but for rounding; mining is 0.4 of it; 20 % are the chain's, 60 % the wallet's, less 2 %.
    assert abs(paid.spent_wei - 5 * stos) < 10**7
    mining, traffic = paid.rewards["wallet", 0]
    assert abs(mining - 12 * stos // 10) < 10**7
    assert abs(traffic - 294 * stos // 100) < 10**7
