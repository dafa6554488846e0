"""Random histories of stake and rewards on the real keepers, and a slow reference of what everybody must get.

The reference hears the same hooks as distribution and keeps everything for ever: of every validator all periods that ended, with their rewards and
tokens; of every delegation the stretches in which its stake was one number. A reward is computed by walking over all periods of all stretches.

Its rounding is F1's: rewards per token are cut at 18 places once per period, the product with the stake once per stretch, a stake once per slash.
Beside it runs the exact share in rational numbers, which rounding may only fall short of, and by little.
"""

from __future__ import annotations

import copy
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

from chain.codec.registry import message_class
from chain.coins import Coin, CoinMessage
from chain.context import Context, Mode, Vote
from chain.crypto import address as bech32
from chain.crypto.address import module_address
from chain.crypto.keys import public_key_to_any
from chain.dec import ONE, Dec, from_wire
from chain.dec_coins import DecCoins
from chain.errors import AppError
from chain.store.state import EmptyView, State
from chain.testing.validators import ValidatorKey
from modules.auth.keeper import AuthKeeper
from modules.bank.keeper import BankMint
from modules.distribution.hooks import DistributionHooks
from modules.distribution.keeper import DistributionKeeper
from modules.distribution.module import distribution_module
from modules.distribution.params import default_params
from modules.staking.keeper import StakingKeeper
from modules.staking.module import staking_module
from modules.staking.params import default_params as staking_params
from modules.staking.records import BONDED
from modules.staking.store import cons_of
from tests.modules.stake import AnyConsensus

DENOM = "wei"


@dataclass
class Stretch:
    """Part of a delegation's life with one stake: from period ``first`` (included) to ``end`` (not included; None: still running)."""

    stake: int
    first: int
    end: int | None = None


@dataclass
class Earning:
    """What a delegation has earned since it was paid last. ``due`` is the exact share in wei."""

    height: int
    stretches: list[Stretch]
    due: Fraction = Fraction(0)


@dataclass
class Validator:
    """``periods``: (rewards scaled by 10^18, tokens) of every ended period; ``running``: rewards since."""

    periods: list[tuple[int, int]] = field(default_factory=list)
    running: int = 0
    commission: int = 0
    outstanding: int = 0
    earnings: dict[bytes, Earning] = field(default_factory=dict)


class Reference:
    """Staking hooks and a book of every payment; amounts scaled by 10^18 unless named ``_wei``."""

    def __init__(self, staking: Any) -> None:
        self._staking = staking
        self.validators: dict[bytes, Validator] = {}
        self.pool = 0
        self.paid_wei: dict[bytes, int] = {}

    def restore(self, before: Reference) -> None:
        """Forget what happened since ``before`` was copied."""
        self.validators, self.pool, self.paid_wei = before.validators, before.pool, before.paid_wei

    def __deepcopy__(self, memo: Any) -> Reference:
        made = Reference(self._staking)
        made.validators, made.pool, made.paid_wei = copy.deepcopy((self.validators, self.pool, self.paid_wei), memo)
        return made

    # --- what happens -------------------------------------------------------------------------------------------------

    def allocate(self, state: Any, fees_wei: int, votes: tuple[Vote, ...], tax: int) -> None:
        """A block's fees, by power; ``tax`` scaled."""
        left = fees_wei * ONE
        total = sum(vote.power for vote in votes)
        shared = fees_wei * (ONE - tax)
        for vote in votes:
            found = self._staking.validator_by_cons(state, vote.validator_address)
            part = shared * (vote.power * ONE // total) // ONE
            self.give(found, part)
            left -= part
        self.pool += left

    def give(self, found: Any, part: int) -> None:
        """Rewards for one validator: its commission, rounded half to even, and the rest for its delegators."""
        book = self.validators[_operator(found)]
        rate = from_wire(found.commission.commission_rates.rate).scaled
        commission, rest = divmod(part * rate, ONE)
        commission += rest * 2 > ONE or (rest * 2 == ONE and commission & 1)
        book.commission += commission
        book.outstanding += part
        book.running += part - commission
        tokens = int(found.tokens)
        for earning in book.earnings.values():
            if tokens:
                earning.due += Fraction((part - commission) * earning.stretches[-1].stake, tokens * ONE * ONE)

    def withdraw_commission(self, operator: bytes) -> None:
        book = self.validators[operator]
        whole = book.commission // ONE
        book.commission -= whole * ONE
        book.outstanding -= whole * ONE
        self._pay(operator, whole)

    def withdraw(self, ctx: Context, state: Any, delegator: bytes, operator: bytes) -> None:
        self.before_delegation_shares_modified(ctx, state, delegator, operator)
        self.after_delegation_modified(ctx, state, delegator, operator)

    # --- hooks of staking ---------------------------------------------------------------------------------------------

    def after_validator_created(self, ctx: Context, state: Any, operator: bytes) -> None:
        self.validators[operator] = Validator()

    def before_validator_modified(self, ctx: Context, state: Any, operator: bytes) -> None: ...

    def after_validator_removed(self, ctx: Context, state: Any, cons: bytes, operator: bytes) -> None:
        book = self.validators.pop(operator)
        self._pay(operator, book.commission // ONE)
        self.pool += book.outstanding - book.commission // ONE * ONE

    def after_validator_bonded(self, ctx: Context, state: Any, cons: bytes, operator: bytes) -> None: ...

    def after_validator_begin_unbonding(self, ctx: Context, state: Any, cons: bytes, operator: bytes) -> None: ...

    def before_delegation_created(self, ctx: Context, state: Any, delegator: bytes, operator: bytes) -> None:
        self._end_period(state, operator)

    def before_delegation_shares_modified(self, ctx: Context, state: Any, delegator: bytes, operator: bytes) -> None:
        self._end_period(state, operator)
        book = self.validators[operator]
        earning = book.earnings.pop(delegator)
        earned = min(self.earned(ctx.height, state, operator, delegator, earning), book.outstanding)
        if earning.height != ctx.height:
            short = earning.due - Fraction(earned, ONE)
            most = sum((Fraction(self._periods_of(operator, stretch) * stretch.stake, ONE) + 1) / ONE for stretch in earning.stretches)
            assert 0 <= short <= most, f"{float(short)} wei below the exact share of {float(earning.due)}, rounding explains {float(most)}"
        book.outstanding -= earned
        self.pool += earned % ONE
        self._pay(delegator, earned // ONE)

    def before_delegation_removed(self, ctx: Context, state: Any, delegator: bytes, operator: bytes) -> None: ...

    def after_delegation_modified(self, ctx: Context, state: Any, delegator: bytes, operator: bytes) -> None:
        found = self._staking.validator(state, operator)
        shares = from_wire(self._staking.delegation(state, delegator, operator).shares).scaled
        stake = shares * int(found.tokens) * ONE // from_wire(found.delegator_shares).scaled
        book = self.validators[operator]
        book.earnings[delegator] = Earning(ctx.height, [Stretch(stake, len(book.periods))])

    def before_validator_slashed(self, ctx: Context, state: Any, operator: bytes, fraction: Dec) -> None:
        self._end_period(state, operator)
        book = self.validators[operator]
        for earning in book.earnings.values():
            running = earning.stretches[-1]
            running.end = len(book.periods)
            earning.stretches.append(Stretch(running.stake * (ONE - fraction.scaled) // ONE, running.end))

    def after_unbonding_initiated(self, ctx: Context, state: Any, unbonding_id: int) -> None: ...

    # --- arithmetic ---------------------------------------------------------------------------------------------------

    def earned(self, height: int, state: Any, operator: bytes, delegator: bytes, earning: Earning) -> int:
        """The sum over all stretches, each over all of its periods. Nothing in the block in which the delegation began."""
        if earning.height == height:
            return 0
        book = self.validators[operator]
        found = self._staking.validator(state, operator)
        shares = from_wire(self._staking.delegation(state, delegator, operator).shares).scaled
        most = _rounded(shares * int(found.tokens), from_wire(found.delegator_shares).scaled)
        total = 0
        for stretch in earning.stretches:
            stake = min(stretch.stake, most) if stretch is earning.stretches[-1] else stretch.stake
            per_token = sum(rewards * ONE // (tokens * ONE) for rewards, tokens in book.periods[stretch.first : stretch.end] if tokens)
            total += per_token * stake // ONE
        return total

    def _periods_of(self, operator: bytes, stretch: Stretch) -> int:
        return len(self.validators[operator].periods[stretch.first : stretch.end])

    def _end_period(self, state: Any, operator: bytes) -> None:
        book = self.validators[operator]
        tokens = int(self._staking.validator(state, operator).tokens)
        book.periods.append((book.running, tokens))
        if not tokens:
            self.pool += book.running
            book.outstanding -= book.running
        book.running = 0

    def _pay(self, address: bytes, amount_wei: int) -> None:
        self.paid_wei[address] = self.paid_wei.get(address, 0) + amount_wei


def _operator(found: Any) -> bytes:
    """Of a validator or a delegation."""
    return bech32.decode(getattr(found, "operator_address", None) or found.validator_address, bech32.VALIDATOR)


def _rounded(value: int, divisor: int) -> int:
    """``value / divisor`` as LegacyDec's Quo: cut at 36 places, rounded half to even at 18."""
    quotient, rest = divmod(value * ONE * ONE // divisor, ONE)
    return quotient + (rest * 2 > ONE or (rest * 2 == ONE and quotient & 1))


# --- histories --------------------------------------------------------------------------------------------------------

NAMES = {
    "fee_collector": (),
    "distribution": ("burner",),
    "mint": ("minter",),
    "bonded_tokens_pool": ("burner", "staking"),
    "not_bonded_tokens_pool": ("burner", "staking"),
}
TAXES = (0, ONE // 50, ONE // 3)
RATES = (0, ONE // 10, ONE // 3, ONE)
SLASHES = (ONE // 20, ONE // 5000, ONE // 3, ONE * 999 // 1000, ONE)
UNBONDING_S = 60
RICH_WEI = 10**30


class History:
    """A random life of a few validators and delegators, seeded, on the real auth, bank, staking and distribution.

    Every payment is held against the reference, and after every block every book.
    """

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        accounts = AuthKeeper(NAMES)
        self.bank = BankMint(accounts, blocked=frozenset())
        self.staking = StakingKeeper(self.bank)
        self.distribution = DistributionKeeper(accounts, self.bank, self.staking)
        self.reference = Reference(self.staking)
        self.staking.set_hooks((self.reference, DistributionHooks(self.distribution)))
        modules = (
            staking_module(self.staking, self.bank, AnyConsensus()),
            distribution_module(self.distribution, accounts, self.bank, self.staking),
        )
        self.handlers = {name: handler for module in modules for name, handler in module.messages.items()}
        self.checks = {name: check for module in modules for name, check in module.invariants.items()}
        self.state = State(EmptyView(), ("acc", "bank", "staking", "distribution"))
        self.height = 0
        self.time_s = 1_800_000_000
        self.fees_in_wei = 0
        self.tax = self.random.choice(TAXES)
        params = default_params()
        params.community_tax = str(self.tax)
        self.distribution.set_params(self.state, params)
        stake = staking_params()
        stake.unbonding_time.seconds = UNBONDING_S
        self.staking.set_params(self.state, stake)
        self.operators = [bytes([1, number]) * 10 for number in range(4)]
        self.delegators = [bytes([2, number]) * 10 for number in range(5)]
        self.withdraw_to = {address: bytes([9]) + address[1:] for address in (*self.operators, *self.delegators)}
        self.ctx = self._context()
        for address, elsewhere in self.withdraw_to.items():
            self.bank.mint(self.ctx, self.state, "mint", (Coin(DENOM, RICH_WEI),))
            self.bank.send(self.ctx, self.state, module_address("mint"), address, (Coin(DENOM, RICH_WEI),))
            self.distribution.set_withdraw_address(self.state, address, elsewhere)

    def _context(self) -> Context:
        return Context("test-1", self.height, self.time_s * 10**9, Mode.FINALIZE)

    def run(self, blocks: int) -> Counter[str]:
        """Live for ``blocks``; returns how often each message was executed, and how often somebody was slashed. Raises AssertionError at the first difference."""
        done: Counter[str] = Counter()
        for _ in range(self.random.randrange(1, 4)):
            self._join()
        self.staking.end_block(self.ctx, self.state)
        for _ in range(blocks):
            self.height += self.random.choice((1, 1, 1, 5))
            self.time_s += self.random.choice((5, 5, 5, UNBONDING_S))
            self.ctx = self._context()
            done["slash"] += self._begin_block()
            for _ in range(self.random.randrange(4)):
                done[self._act()] += 1
            self.staking.end_block(self.ctx, self.state)
            self.check()
        return done

    def _begin_block(self) -> bool:
        """Fees are shared out, and now and then somebody is slashed, which is said."""
        bonded = [found for found in self.staking.validators(self.state) if found.status == BONDED and int(found.tokens)]
        voters = [found for found in bonded if self.random.random() < 0.9]
        votes = tuple(Vote(cons_of(found), int(found.tokens) // 10**15, 2) for found in voters)
        fees = self.random.choice((0, 1, self.random.randrange(10**6), self.random.randrange(10**24)))
        self._fund(module_address("fee_collector"), fees)
        self.ctx = replace(self.ctx, last_commit=votes)
        if any(vote.power for vote in votes):
            self.reference.allocate(self.state, fees, votes, self.tax)
        else:
            self.reference.pool += fees * ONE
        self.distribution.allocate(self.ctx, self.state)
        if not bonded or self.random.random() > 0.15:
            return False
        self._slash(self.random.choice(bonded))
        return True

    def _slash(self, found: Any) -> None:
        """For something that happened up to ten blocks ago: unbonding and redelegated stake pays, too."""
        before = max(self.height - self.random.randrange(10), 0)
        power = int(found.tokens) // 10**15
        self.staking.slash(self.ctx, self.state, cons_of(found), before, power, Dec(self.random.choice(SLASHES)))

    def _fund(self, address: bytes, amount: int) -> None:
        if amount:
            coins = (Coin(DENOM, amount),)
            self.bank.mint(self.ctx, self.state, "mint", coins)
            self.bank.send(self.ctx, self.state, module_address("mint"), address, coins)
            self.fees_in_wei += amount

    # --- messages -----------------------------------------------------------------------------------------------------

    def _act(self) -> str:
        """Try a random message; the name of what was done, or ``refused``."""
        kinds: tuple[Callable[[], Any | None], ...] = (
            self._delegate,
            self._delegate,
            self._undelegate,
            self._redelegate,
            self._cancel,
            self._withdraw,
            self._commission,
            self._deposit,
            self._join,
        )
        message = self.random.choice(kinds)()
        if message is None:
            return "nothing"
        return message.DESCRIPTOR.name if self._execute(message) else "refused"

    def _execute(self, message: Any) -> bool:
        handler = self.handlers[message.DESCRIPTOR.full_name]
        mark, before = self.state.mark(), copy.deepcopy(self.reference)
        try:
            handler.check_stateless(message)
            handler.execute(self.ctx, self.state, message)
        except AppError:  # a rule of staking: what the reference heard did not happen
            self.state.rollback(mark)
            self.reference.restore(before)
            return False
        return True

    def _operator(self) -> bytes | None:
        found = [_operator(one) for one in self.staking.validators(self.state)]
        return self.random.choice(found) if found else None

    def _delegation(self) -> Any | None:
        operator = self._operator()
        found = list(self.staking.delegations_to(self.state, operator)) if operator else []
        return self.random.choice(found) if found else None

    def _part(self, delegation: Any) -> int:
        """All or some of a delegation in wei."""
        worth = self.staking.tokens_from_shares(self.staking.validator(self.state, _operator(delegation)), from_wire(delegation.shares)).truncate()
        return worth if self.random.random() < 0.5 or worth < 2 else self.random.randrange(1, worth)

    def _join(self) -> Any | None:
        """Executed at once: a new validator, also at the start."""
        free = [at for at, operator in enumerate(self.operators) if self.staking.validator(self.state, operator) is None]
        if not free:
            return None
        used = sum(1 for book in self.reference.validators)
        message = _staking("CreateValidator", validator_address=_text(self.operators[free[0]], bech32.VALIDATOR), min_self_delegation="1")
        message.description.moniker = "v"
        message.pubkey.CopyFrom(public_key_to_any(ValidatorKey.numbered(self.height * 10 + used).public_key))
        message.value.CopyFrom(_coin(self.random.randrange(10**15, 10**21)))
        rate = str(self.random.choice(RATES))
        message.commission.rate, message.commission.max_rate, message.commission.max_change_rate = rate, str(ONE), "0"
        self._execute(message)
        return None

    def _delegate(self) -> Any | None:
        operator = self._operator()
        if operator is None:
            return None
        amount = self.random.choice((1, self.random.randrange(1, 10**9), self.random.randrange(1, 10**22)))
        delegator, validator = _text(self.random.choice(self.delegators)), _text(operator, bech32.VALIDATOR)
        return _staking("Delegate", delegator_address=delegator, validator_address=validator, amount=_coin(amount))

    def _undelegate(self) -> Any | None:
        found = self._delegation()
        if found is None:
            return None
        fields = {"delegator_address": found.delegator_address, "validator_address": found.validator_address}
        return _staking("Undelegate", amount=_coin(self._part(found)), **fields)

    def _redelegate(self) -> Any | None:
        found, to = self._delegation(), self._operator()
        if found is None or to is None:
            return None
        fields = {"delegator_address": found.delegator_address, "validator_src_address": found.validator_address}
        return _staking("BeginRedelegate", validator_dst_address=_text(to, bech32.VALIDATOR), amount=_coin(self._part(found)), **fields)

    def _cancel(self) -> Any | None:
        waiting = list(self.staking.unbondings(self.state))
        if not waiting:
            return None
        found = self.random.choice(waiting)
        entry = self.random.choice(found.entries)
        fields = {"delegator_address": found.delegator_address, "validator_address": found.validator_address}
        return _staking("CancelUnbondingDelegation", amount=_coin(int(entry.balance)), creation_height=entry.creation_height, **fields)

    def _withdraw(self) -> Any | None:
        found = self._delegation()
        if found is None:
            return None
        self.reference.withdraw(self.ctx, self.state, bech32.decode(found.delegator_address), _operator(found))
        fields = {"delegator_address": found.delegator_address, "validator_address": found.validator_address}
        return _distribution("WithdrawDelegatorReward", **fields)

    def _commission(self) -> Any | None:
        operator = self._operator()
        if operator is None or not self.distribution.commission(self.state, operator):
            return None
        self.reference.withdraw_commission(operator)
        return _distribution("WithdrawValidatorCommission", validator_address=_text(operator, bech32.VALIDATOR))

    def _deposit(self) -> Any | None:
        operator = self._operator()
        if operator is None:
            return None
        amount, giver = self.random.randrange(1, 10**20), bytes([3]) * 20
        self._fund(giver, amount)
        self.reference.give(self.staking.validator(self.state, operator), amount * ONE)
        fields = {"depositor": _text(giver), "validator_address": _text(operator, bech32.VALIDATOR)}
        return _distribution("DepositValidatorRewardsPool", amount=[_coin(amount)], **fields)

    # --- what must hold -----------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Every book equals the reference's, to the last 10^-18 wei; nothing is lost or made."""
        keeper, reference = self.distribution, self.reference
        assert _scaled(keeper.community_pool(self.state)) == reference.pool
        for operator, book in reference.validators.items():
            assert _scaled(keeper.outstanding(self.state, operator)) == book.outstanding
            assert _scaled(keeper.commission(self.state, operator)) == book.commission
            assert _scaled(keeper.current(self.state, operator).rewards) == book.running
            assert keeper.current(self.state, operator).period == len(book.periods) + 1
        for address, elsewhere in self.withdraw_to.items():
            assert self.bank.balance(self.state, elsewhere, DENOM) == reference.paid_wei.get(address, 0)
        held = self.bank.balance(self.state, module_address("distribution"), DENOM)
        assert held * ONE == _scaled(keeper.holdings(self.state))
        assert self.fees_in_wei == sum(reference.paid_wei.values()) + held
        for name, check in self.checks.items():
            assert check(self.state) is None, f"{name}: {check(self.state)}"


def _staking(name: str, **fields: Any) -> Any:
    return message_class(f"cosmos.staking.v1beta1.Msg{name}")(**fields)


def _distribution(name: str, **fields: Any) -> Any:
    return message_class(f"cosmos.distribution.v1beta1.Msg{name}")(**fields)


def _coin(amount: int) -> Any:
    return CoinMessage(denom=DENOM, amount=str(amount))


def _text(address: bytes, prefix: str = bech32.ACCOUNT) -> str:
    return bech32.encode(address, prefix)


def _scaled(coins: DecCoins) -> int:
    return dict(coins).get(DENOM, 0)
