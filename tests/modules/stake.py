"""Staking on a bare state: messages, blocks and slashes without a chain around them, and what CometBFT would make of the updates."""

from __future__ import annotations

from typing import Any

from chain.codec.registry import message_class
from chain.coins import Coin
from chain.context import Context, Mode
from chain.crypto import address as bech32
from chain.crypto.keys import Ed25519PublicKey, public_key_to_any
from chain.dec import parse_dec
from chain.errors import AppError
from chain.store.api import StateReader
from chain.store.state import EmptyView, State
from modules.auth.keeper import Account, AuthKeeper, BaseAccount
from modules.auth.params import DEFAULT_PARAMS
from modules.bank.keeper import BankMint
from modules.staking import messages
from modules.staking.hooks import StakingHooks
from modules.staking.invariants import invariants
from modules.staking.keeper import StakingKeeper
from modules.staking.params import default_params
from modules.staking.records import BONDED_POOL, NOT_BONDED_POOL, PACKAGE

UNIT = 10**15
"""wei of one unit of power"""
DAY_S = 86_400
UNBONDING_S = 21 * DAY_S
FUNDS = 10**24
START_S = 1_767_225_600


def person(number: int) -> bytes:
    """The address of one of the accounts."""
    return number.to_bytes(20, "big")


def consensus_key(number: int) -> Ed25519PublicKey:
    return Ed25519PublicKey(number.to_bytes(32, "little"))


class AnyConsensus:
    """Consensus parameters that leave room for everything."""

    def key_types(self, ctx: Context, state: StateReader) -> tuple[str, ...]:
        return ("ed25519",)

    def most_validators(self, ctx: Context, state: StateReader) -> int:
        return 10_000


class Ledger:
    """Accounts 1 to ``people``, each with FUNDS; the state of a chain that has nothing but stake."""

    def __init__(self, people: int = 6, hooks: tuple[StakingHooks, ...] = (), **params: Any) -> None:
        pools = {BONDED_POOL: ("burner", "staking"), NOT_BONDED_POOL: ("burner", "staking"), "mint": ("minter",)}
        self.auth = AuthKeeper(pools)
        self.bank = BankMint(self.auth, frozenset())
        self.keeper = StakingKeeper(self.bank)
        self.keeper.set_hooks(hooks)
        self.state = State(EmptyView(), ("acc", "bank", "staking"))
        self.height, self.time_ns = 1, START_S * 10**9
        self.set: dict[bytes, int] = {}
        self.ctx = self._context()
        self.auth.set_params(self.state, DEFAULT_PARAMS)
        for number in range(1, people + 1):
            self.auth.set_account(
                self.ctx, self.state, Account(BaseAccount(address=bech32.encode(person(number)), account_number=self.auth.next_number(self.state)))
            )
            self.bank.mint(self.ctx, self.state, "mint", (Coin("wei", FUNDS),))
            self.bank.send_from_module(self.ctx, self.state, "mint", person(number), (Coin("wei", FUNDS),))
        for name in sorted(pools):
            self.auth.module_account(self.ctx, self.state, name)
        made = default_params()
        for name, value in params.items():
            setattr(made, name, value)
        self.keeper.set_params(self.state, made)
        self._handlers = messages.handlers(self.keeper, AnyConsensus())
        self._invariants = invariants(self.keeper)
        self.ctx = self._context()

    def _context(self) -> Context:
        return Context("test-1", self.height, self.time_ns, Mode.FINALIZE)

    def do(self, name: str, **fields: Any) -> Any:
        """Execute a message; what it raises undoes it."""
        message = message_class(f"{PACKAGE}.{name}")(**fields)
        handler = self._handlers[message.DESCRIPTOR.full_name]
        mark, events = self.state.mark(), self.ctx.events.mark()
        try:
            handler.check_stateless(message)
            return handler.execute(self.ctx, self.state, message)
        except AppError:
            self.state.rollback(mark)
            self.ctx.events.rollback(events)
            raise

    def create(self, number: int, amount: int = 100 * UNIT, rate: str = "0.1", **fields: Any) -> bytes:
        """Make account ``number`` a validator; returns its operator address."""
        wire = {name: str(parse_dec(value).scaled) for name, value in (("rate", rate), ("max_rate", "0.2"), ("max_change_rate", "0.01"))}
        given = {
            "description": {"moniker": f"v{number}"},
            "commission": wire,
            "min_self_delegation": "1",
            "validator_address": operator(number),
            "pubkey": public_key_to_any(consensus_key(number)),
            "value": wei(amount),
        }
        self.do("MsgCreateValidator", **{**given, **fields})
        return person(number)

    def delegate(self, delegator: int, validator: int, amount: int) -> Any:
        return self.do("MsgDelegate", delegator_address=account(delegator), validator_address=operator(validator), amount=wei(amount))

    def undelegate(self, delegator: int, validator: int, amount: int) -> Any:
        return self.do("MsgUndelegate", delegator_address=account(delegator), validator_address=operator(validator), amount=wei(amount))

    def redelegate(self, delegator: int, source: int, destination: int, amount: int) -> Any:
        return self.do(
            "MsgBeginRedelegate",
            delegator_address=account(delegator),
            validator_src_address=operator(source),
            validator_dst_address=operator(destination),
            amount=wei(amount),
        )

    def cancel(self, delegator: int, validator: int, amount: int, height: int) -> Any:
        addresses = {"delegator_address": account(delegator), "validator_address": operator(validator)}
        return self.do("MsgCancelUnbondingDelegation", **addresses, amount=wei(amount), creation_height=height)

    def block(self, step_s: int = 5) -> list[tuple[str, dict[str, str]]]:
        """End this block and begin the next; returns the events of both halves. Applies the updates as CometBFT would, which refuses bad ones."""
        mark = self.ctx.events.mark()
        self.keeper.end_block(self.ctx, self.state)
        events = [(kind, dict(pairs)) for kind, pairs in self.ctx.events.events[mark:]]
        updates = self.keeper.validator_updates(self.state)
        assert len({update.public_key for update in updates}) == len(updates), "CometBFT refuses a key twice"
        for update in updates:
            if update.power:
                self.set[update.public_key] = update.power
            else:
                del self.set[update.public_key]  # CometBFT refuses to remove whom it does not know
        self.height, self.time_ns = self.height + 1, self.time_ns + step_s * 10**9
        self.ctx = self._context()
        self.keeper.begin_block(self.ctx, self.state)
        return events

    def broken(self) -> list[str]:
        """What does not hold, the bank's books included."""
        found = [f"{name}: {problem}" for name, check in self._invariants.items() if (problem := check(self.state))]
        total = sum(coin.amount for _, coin in self.bank.iterate_balances(self.state))
        if total != self.bank.supply(self.state, "wei"):
            found.append("supply is not the sum of balances")
        return found

    def validator(self, number: int) -> Any:
        return self.keeper.validator(self.state, person(number))

    def shares(self, delegator: int, validator: int) -> int:
        found = self.keeper.delegation(self.state, person(delegator), person(validator))
        return 0 if found is None else int(found.shares)

    def balance(self, number: int) -> int:
        return self.bank.balance(self.state, person(number), "wei")

    def slash(self, validator: int, fraction: str, *, height: int | None = None, power: int | None = None) -> int:
        """Slash for an infraction at ``height`` (default: now), of the power that the validator has now."""
        power = int(self.validator(validator).tokens) // UNIT if power is None else power
        at = self.height if height is None else height
        return self.keeper.slash(self.ctx, self.state, consensus_key(validator).address, at, power, parse_dec(fraction))

    def jail(self, validator: int) -> None:
        self.keeper.jail(self.ctx, self.state, consensus_key(validator).address)

    def unjail(self, validator: int) -> None:
        self.keeper.unjail(self.ctx, self.state, consensus_key(validator).address)


def account(number: int) -> str:
    return bech32.encode(person(number))


def operator(number: int) -> str:
    return bech32.encode(person(number), bech32.VALIDATOR)


def wei(amount: int) -> dict[str, str]:
    return {"denom": "wei", "amount": str(amount)}
