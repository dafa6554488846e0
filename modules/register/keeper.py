"""Deposits, the ozone that they make, debts: what other modules ask of register."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import islice
from typing import Any

from chain.coins import Coin
from chain.context import Context
from chain.crypto import address as bech32
from chain.errors import InvariantBroken
from chain.ozone import Ozone, bounded
from chain.store.api import StateReader, StateWriter
from modules.register import deposits, events, keys, records
from modules.register.deposits import NodeDeposit
from modules.register.errors import RemainingNozLimit
from modules.register.expected import Bank, CommunityPool
from modules.register.records import BONDED, bonded_pool, is_meta, not_bonded_pool
from modules.register.store import MAX_BENEFICIARY_OWNERS, RegisterStore


class RegisterKeeper(RegisterStore):
    """Owns S, Lt, the rate, what is pending, nodes and debts. Pt is a balance of bank's."""

    def __init__(self, bank: Bank, community: CommunityPool) -> None:
        super().__init__(bank)
        self.community = community
        self._granted: Callable[[StateReader], int] = lambda _: 0

    def set_granted(self, granted: Callable[[StateReader], int]) -> None:
        """Take what tells how many granted noz are outstanding: grant is built on register."""
        self._granted = granted

    def granted_noz(self, state: StateReader) -> int:
        """Granted noz that are outstanding: A has to cover them where the solvency rules hold."""
        return self._granted(state)

    # --- ozone ------------------------------------------------------------------------------------------------------------------

    def take_ozone(self, ctx: Context, state: StateWriter, volume_noz: int) -> None:
        """Sold: Lt −= noz. Raises RemainingNozLimit (register/43) for more than Lt, InvalidRequest (sdk/18) above 2^127 - 1."""
        pool = self.ozone(state)
        self.set_ozone(state, pool, deposits.take_ozone(pool, volume_noz))

    def return_ozone(self, ctx: Context, state: StateWriter, volume_noz: int) -> None:
        """Back: Lt += noz, then what is pending leaves (noz of void epochs, then deposits).

        With the solvency rules no more than was sold comes back: RemainingNozLimit (register/43) above A. InvalidRequest (sdk/18) above 2^127 - 1.
        """
        pool = self.ozone(state)
        bounded(volume_noz, "a volume")
        if pool.solvency and volume_noz > max(pool.outstanding_noz, 0):
            raise RemainingNozLimit(f"{volume_noz} noz come back, of {pool.outstanding_noz} noz that are outstanding")
        self.set_ozone(state, pool, deposits.return_ozone(pool, volume_noz))

    def void_ozone(self, ctx: Context, state: StateWriter, volume_noz: int) -> tuple[int, int]:
        """An epoch is void: Lt −= noz as far as it goes, the rest is pending. Returns (lowered, pending), in noz.

        Raises InvalidRequest (sdk/18) above 2^127 - 1.
        """
        pool = self.ozone(state)
        after = deposits.void_ozone(pool, volume_noz)
        self.set_ozone(state, pool, after)
        return pool.remaining_noz - after.remaining_noz, after.pending_noz - pool.pending_noz

    def change(self, ctx: Context, state: StateWriter, node: Any, before: tuple[Ozone, NodeDeposit], after: tuple[Ozone, NodeDeposit]) -> None:
        """Write what the arithmetic made of a node's deposit: the node (its ``tokens`` and effective deposit are set here), S, Lt, what is pending.

        A lowering that is not the message's own is told by EventLowerDeposit.
        """
        (pool, old), (new_pool, new) = before, after
        self.set_ozone(state, pool, new_pool, new.counted_wei - old.counted_wei)
        node.tokens = str(new.tokens_wei)
        if not is_meta(node):
            node.effective_tokens = str(new.effective_wei)
        self.save(state, node, new.counted_wei)

    def tell_lowered(self, ctx: Context, state: StateReader, address: str, before: Ozone, after: Ozone) -> None:
        """Emit EventLowerDeposit if S or what is pending has changed."""
        pending = self.number(state, keys.PENDING_WEI)
        if before != after:
            change_noz = after.remaining_noz - before.remaining_noz
            events.lowered(ctx, address, before.deposit_wei - after.deposit_wei, change_noz, pending, after.pending_noz)

    # --- debts ------------------------------------------------------------------------------------------------------------------

    def add_debt(self, ctx: Context, state: StateWriter, wallet: bytes, amount_wei: int) -> None:
        """An account owes more for slashing. Raises InvalidRequest (sdk/18) where the debt would exceed 2^127 - 1."""
        self.set_debt(state, wallet, bounded(self.debt_wei(state, wallet) + bounded(amount_wei, "a debt"), "a debt"))

    def deduct_debt(self, ctx: Context, state: StateWriter, wallet: bytes, amount_wei: int) -> tuple[int, int]:
        """A reward of ``wallet`` is about to be paid: its own debt first, then debts of owners whose nodes it is the beneficiary of.

        Returns (left to pay, taken) in wei; the caller moves the coins. At most 100 owners are looked at, in the order of their addresses.
        Raises InvalidRequest (sdk/18) above 2^127 - 1.
        """
        left, taken = self.deduct_own_debt(state, wallet, amount_wei)
        for owner, _ in islice(self.owners_for(state, wallet), MAX_BENEFICIARY_OWNERS):
            if not left:
                break
            left, more = self.deduct_own_debt(state, owner, left)
            taken += more
        return left, taken

    def deduct_own_debt(self, state: StateWriter, wallet: bytes, amount_wei: int) -> tuple[int, int]:
        """(left to pay, taken) of an amount, by the debt of this account alone (stratos-chain.md 2.6)."""
        debt = self.debt_wei(state, wallet)
        left, taken = deposits.deduct(debt, amount_wei)
        if taken:
            self.set_debt(state, wallet, debt - taken)
        return left, taken

    # --- punishment -------------------------------------------------------------------------------------------------------------

    def slash_deposit(self, ctx: Context, state: StateWriter, node: bytes, amount_wei: int, recipient_module: str) -> int:
        """Take up to ``amount_wei`` of a node's deposit (what stays first, then what is leaving) into a module account; returns what was there.

        S and Lt fall as for a deposit that has left. A node of which nothing is left is removed. 0 for an address without a node. Raises
        InvalidRequest (sdk/18) above 2^127 - 1.
        """
        bounded(amount_wei, "a slash")
        found = self.node(state, node)
        if found is None or amount_wei == 0:
            return 0
        pool, deposit = self.ozone(state), self.deposit(state, found)
        new_pool, after, taken = deposits.slash(pool, deposit, amount_wei)
        from_leaving = deposit.unbonding_wei - after.unbonding_wei
        bonded_wei = taken - from_leaving if found.status == BONDED else 0
        for name, wei in ((bonded_pool(found), bonded_wei), (not_bonded_pool(found), taken - bonded_wei)):
            self.pay_module(ctx, state, name, recipient_module, wei)
        if from_leaving:
            self._slash_entries(state, node, from_leaving)
        self.change(ctx, state, found, (pool, deposit), (new_pool, after))
        if after.tokens_wei == 0:
            self.drop(state, found)
        self.tell_lowered(ctx, state, found.network_address, pool, new_pool)
        return taken

    def _slash_entries(self, state: StateWriter, address: bytes, amount_wei: int) -> None:
        """Lower the balances of what is leaving, the earliest entry first."""
        record = self.unbonding(state, address)
        if record is None:
            raise InvariantBroken(f"register: {records.text_of(address)} has no entries of what is leaving")
        for entry in record.entries:
            part = min(amount_wei, int(entry.balance))
            entry.balance = str(int(entry.balance) - part)
            amount_wei -= part
        self.set_unbonding(state, address, record)

    def set_suspended(self, ctx: Context, state: StateWriter, node: bytes, suspended: bool) -> None:
        """A resource node's flag; a newly suspended one works with nothing, and goes on so after the flag is cleared, until meta nodes approve an
        effective deposit (stratos-chain.md 4.6), anew: what they approved before is forgotten. Nothing happens for another address, since a slash may
        have removed the node. Raises RemainingNozLimit (register/43) with the solvency rules off, where the limit cannot take it.
        """
        found = self.resource_node(state, node)
        if found is None or found.suspend == suspended:
            return
        pool, deposit = self.ozone(state), self.deposit(state, found)
        new_pool, after = deposits.suspend(pool, deposit) if suspended else (pool, replace(deposit, effective_wei=0))
        found.suspend = suspended
        if suspended:
            self.drop_approvals(state, node)
        self.change(ctx, state, found, (pool, deposit), (new_pool, after))
        self.tell_lowered(ctx, state, found.network_address, pool, new_pool)

    # --- coins ------------------------------------------------------------------------------------------------------------------

    def deposits_wei(self, state: StateReader) -> Mapping[str, int]:
        """Balances of the four deposit pools by account name."""
        denom = self.denom(state)
        return {name: self.bank.balance(state, bech32.module_address(name), denom) for name in records.POOLS}

    def coins(self, state: StateReader, amount_wei: int) -> tuple[Coin, ...]:
        return (Coin(self.denom(state), amount_wei),)

    def pay_module(self, ctx: Context, state: StateWriter, sender: str, recipient: str, amount_wei: int) -> None:
        """Move coins between module accounts; nothing for 0."""
        if amount_wei:
            self.bank.send_between_modules(ctx, state, sender, recipient, self.coins(state, amount_wei))

    def total_at_work_wei(self, state: StateReader) -> int:
        """Σ effective: S without what lingers and what is pending."""
        return self.number(state, keys.DEPOSIT_WEI) - self.number(state, keys.LINGERING_WEI) - self.number(state, keys.PENDING_WEI)


def with_unbonding(deposit: NodeDeposit, unbonding_wei: int) -> NodeDeposit:
    """The same deposit, of which only this part is taken to leave."""
    return replace(deposit, unbonding_wei=unbonding_wei)
