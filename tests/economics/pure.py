"""The world of the modules' pure functions: what the keepers compute, without a store, a message or a coin."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from chain.dec import ONE, Dec
from chain.errors import AppError
from chain.ozone import Ozone
from modules.pot.rewards import RewardParams, Work, distribute, slash_value_wei
from modules.register import deposits
from modules.register.deposits import NodeDeposit
from modules.sds.pricing import claim, expiry_refund_wei, prepay
from tests.economics.model import Rules
from tests.economics.operations import Add, Claim, Create, Effective, Leave, Operation, Paid, Prepay, Refused, Report, Seen, Slash, Suspend, Wait


@dataclass
class Member:
    is_meta: bool
    created_s: int
    deposit: NodeDeposit
    leaves_s: int | None = None


@dataclass
class PureWorld:
    rules: Rules = field(default_factory=Rules)
    pool: Ozone = field(default_factory=lambda: Ozone(0, 0, solvency=True))
    now_s: int = 0
    mined_wei: int = 0
    foundation_wei: int = 0
    promo_noz: int = 0
    promo_cost_wei: int = 0
    members: dict[int, Member] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.foundation_wei, self.mined_wei = self.rules.foundation_wei, self.rules.mined_wei
        self.params = RewardParams(Dec(int(self.rules.tax * ONE)), mining_cap=Dec(int(self.rules.cap * ONE)))

    def seen(self) -> Seen:
        members = self.members.values()
        working = sum(one.deposit.effective_wei for one in members if one.leaves_s is None)
        pool = self.pool
        return Seen(
            pool.deposit_wei,
            pool.remaining_noz,
            pool.prepaid_wei,
            pool.pending_wei,
            working,
            sum(one.deposit.counted_wei for one in members) - working,
            sum(one.deposit.tokens_wei for one in members),
            self.promo_noz,
            self.promo_cost_wei,
        )

    def broken(self) -> list[str]:
        return []

    def apply(self, operation: Operation) -> Paid:
        try:
            return self._apply(operation)
        except AppError as error:
            raise Refused(str(error)) from error

    def _apply(self, operation: Operation) -> Paid:
        match operation:
            case Create(number, deposit_wei, is_meta):
                if number in self.members:
                    raise Refused
                counted = deposit_wei if is_meta else 0
                if is_meta or deposit_wei <= 0:
                    self.pool = deposits.raise_deposit(self.pool, deposit_wei)
                self.members[number] = Member(is_meta, self.now_s, NodeDeposit(deposit_wei, 0, counted, counted))
            case Add(number, more_wei):
                member = self._staying(number)
                if member.is_meta or more_wei <= 0:
                    self.pool = deposits.raise_deposit(self.pool, more_wei)
                counted = more_wei if member.is_meta else 0
                old = member.deposit
                member.deposit = NodeDeposit(old.tokens_wei + more_wei, 0, old.effective_wei + counted, old.counted_wei + counted)
            case Effective(number, effective_wei):
                member = self._staying(number)
                if member.is_meta:
                    raise Refused
                self.pool, member.deposit = deposits.set_effective(self.pool, member.deposit, effective_wei)
            case Suspend(number):
                member = self._there(number)
                if member.is_meta:
                    raise Refused
                self.pool, member.deposit = deposits.suspend(self.pool, member.deposit)
            case Slash(number, noz):
                member = self._there(number)
                self.pool, member.deposit, taken = deposits.slash(self.pool, member.deposit, slash_value_wei(self.pool, noz))
                if member.deposit.tokens_wei == 0:
                    del self.members[number]
                return Paid(slashed_wei=taken)
            case Leave(number):
                member = self._staying(number)
                member.leaves_s = max(self.now_s, member.created_s + self.rules.threshold_s) + self.rules.completion_s
                member.deposit = replace(member.deposit, unbonding_wei=member.deposit.tokens_wei)
            case Wait(seconds):
                self.now_s += seconds
                for number, member in list(self.members.items()):
                    if member.leaves_s is not None and member.leaves_s <= self.now_s:
                        self.pool, _ = deposits.complete_leaving(self.pool, member.deposit)
                        del self.members[number]
            case Prepay(paid_wei):
                pool, noz = prepay(self.pool, paid_wei)
                if noz == 0:
                    raise Refused
                self.pool = pool
                return Paid(noz=noz)
            case Claim(noz):
                self.pool, cost = claim(self.pool, noz)
                self.promo_noz, self.promo_cost_wei = self.promo_noz + noz, self.promo_cost_wei + cost
                return Paid(noz=noz, cost_wei=cost)
            case Report():
                return self._report(operation)
        return Paid()

    def _report(self, report: Report) -> Paid:
        before = self.pool, self.promo_noz, self.promo_cost_wei
        bought = sum(noz - granted for _, noz, granted in report.work)
        if self.pool.solvency and bought > self.pool.outstanding_noz - self.promo_noz:
            raise Refused
        try:
            refund = self._forget_promo(sum(granted for _, _, granted in report.work), report.expired_noz)
            metas = {f"m{number}": number for number, one in self.members.items() if one.is_meta and one.leaves_s is None}
            work = [Work(f"w{wallet}", noz, granted) for wallet, noz, granted in report.work]
            paid = distribute(self.pool, self.mined_wei, self.foundation_wei, work, list(metas), self.params)
        except (AppError, Refused):
            self.pool, self.promo_noz, self.promo_cost_wei = before
            raise
        self.pool = deposits.return_ozone(replace(self.pool, prepaid_wei=self.pool.prepaid_wei - paid.spent_wei), paid.volume_noz)
        self.mined_wei += paid.mined_wei
        self.foundation_wei -= paid.mined_wei
        kinds = {"w": "wallet", "m": "meta"}
        rewards = {
            (kinds[one.wallet[0]], int(one.wallet[1:])): (one.mining_wei, one.traffic_wei)
            for one in paid.rewards
            if one.mining_wei or one.traffic_wei
        }
        return Paid(refund_wei=refund, spent_wei=paid.spent_wei, mined_wei=paid.mined_wei, rewards=rewards)

    def _forget_promo(self, used_noz: int, expired_noz: int) -> int:
        gone_noz = used_noz + expired_noz
        if used_noz < 0 or gone_noz > self.promo_noz:
            raise Refused
        if gone_noz == 0:
            return 0
        refund = expiry_refund_wei(self.pool, expired_noz, self.promo_noz, self.promo_cost_wei) if expired_noz else 0
        self.promo_cost_wei -= self.promo_cost_wei * gone_noz // self.promo_noz
        self.promo_noz -= gone_noz
        self.pool = deposits.return_ozone(replace(self.pool, prepaid_wei=self.pool.prepaid_wei - refund), expired_noz)
        return refund

    def _there(self, number: int) -> Member:
        if number not in self.members:
            raise Refused
        return self.members[number]

    def _staying(self, number: int) -> Member:
        member = self._there(number)
        if member.leaves_s is not None:
            raise Refused
        return member
