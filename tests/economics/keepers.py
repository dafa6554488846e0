"""The world of the modules' own keepers and message handlers over a memory store.

Messages are checked and executed as the chain would, all of an operation or none; time passes in blocks with their end hooks. Not there: transactions,
and the BLS signature of a report.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from chain.authority import GOV_ADDRESS
from chain.codec.registry import message_class
from chain.coins import Coin
from chain.context import Context, Mode
from chain.crypto import bls
from chain.crypto.address import module_address
from chain.crypto.keys import public_key_to_any
from chain.dec import ONE
from chain.errors import AppError
from chain.ozone import DEFAULT_RATE
from chain.reports import Draft
from chain.store.api import StateReader
from chain.store.state import EmptyView, State
from modules.distribution.params import default_params as distribution_params
from modules.pot.params import default_params as pot_params
from modules.register import deposits, records
from modules.register.deposits import NodeDeposit
from modules.register.params import default_params as register_params
from tests.economics.messages import START_S, MessageWorld, message, network, node_account, node_keys, text
from tests.economics.model import Rules
from tests.economics.operations import Refused

RICH_WEI: Final = 10**34
MATURE_EPOCH: Final = 3
"""Short, so that rewards mature within a history."""
STORES: Final = ("acc", "bank", "staking", "distribution", "register", "sds", "pot", "settlement", "grant")
RICH: Final = bytes([1]) * 20
OPERATOR: Final = bytes([4]) * 20


class KeeperWorld(MessageWorld):
    """One history. A node's owner is paid for it."""

    chain_id = "histories-1"
    buyer = text(RICH)
    sponsor = text(GOV_ADDRESS)
    operator = text(OPERATOR)

    def __init__(self, rules: Rules | None = None) -> None:
        super().__init__(rules)
        self.state = State(EmptyView(), STORES)
        self.height = 2
        keepers, state = self.keepers, self.state
        register = register_params()
        register.resource_node_min_deposit.amount = "0"
        register.unbonding_threashold_time.seconds = self.rules.threshold_s
        register.unbonding_completion_time.seconds = self.rules.completion_s
        keepers.register.set_params(state, register)
        keepers.register.set_rate(state, DEFAULT_RATE)
        keepers.distribution.set_params(state, distribution_params())
        pot = pot_params()
        pot.mature_epoch, pot.epoch_duration_s = MATURE_EPOCH, 0
        pot.community_tax, pot.mining_cap_ratio = str(int(self.rules.tax * ONE)), str(int(self.rules.cap * ONE))
        keepers.pot.set_params(state, pot)
        keepers.pot.set_total_mined(state, self.rules.mined_wei)
        for module in keepers.modules:
            if module.name in ("grant", "settlement") and module.genesis is not None:
                module.genesis.load(self.ctx, state, module.genesis.default())
        self.mint(module_address("foundation_account"), self.rules.foundation_wei)
        self.mint(RICH, RICH_WEI)
        keepers.grant.fund_pool(self.ctx, state, RICH, self.grant_pool, 10**33)

    @property
    def ctx(self) -> Context:
        return Context(self.chain_id, self.height, (START_S + self.now_s) * 10**9, Mode.FINALIZE)

    @property
    def reader(self) -> StateReader:
        return self.state

    def mint(self, address: bytes, amount_wei: int) -> None:
        coins = (Coin("wei", amount_wei),)
        self.keepers.bank.mint(self.ctx, self.state, "mint", coins)
        self.keepers.bank.send(self.ctx, self.state, module_address("mint"), address, coins)

    def set_solvency(self, on: bool) -> None:
        params = self.keepers.register.params(self.state)
        params.solvency_rules = on
        self.keepers.register.set_params(self.state, params)

    def execute(self, kind: str, /, **fields: Any) -> None:
        """One message by its fields. Raises Refused."""
        self.run([message(kind, **fields)])

    def run(self, messages: Sequence[Any]) -> None:
        mark = self.state.mark()
        try:
            for one, following in zip(messages, (*messages[1:], None), strict=True):
                handler = self.keepers.handlers[one.DESCRIPTOR.full_name]
                handler.check_stateless(one)
                handler.execute(replace(self.ctx, next_message=following), self.state, one)
        except AppError as error:
            self.state.rollback(mark)
            raise Refused(str(error)) from error

    def govern(self, message: Any) -> None:
        self.run([message])

    def owner(self, number: int, *, meta: bool) -> str:
        return text(node_account(number))

    def fund_owner(self, number: int, amount_wei: int) -> None:
        if amount_wei > 0:
            self.mint(node_account(number), amount_wei)

    def wait(self, seconds: int) -> None:
        self.height += 1
        for module in self.keepers.modules:
            if module.end_block is not None:
                module.end_block(self.ctx, self.state)

    def signed(self, draft: Draft) -> Any:
        """Of the right form; it proves nothing."""
        return message_class("stratos.pot.v1.BLSSignatureInfo")(
            pub_keys=[bytes(bls.KEY_BYTES)], signature=bytes(bls.SIGNATURE_BYTES), txData=draft.data
        )

    def begin_with(self, number: int, deposit_wei: int) -> None:
        keepers = self.keepers
        node = records.MetaNode(
            network_address=network(number),
            pubkey=public_key_to_any(node_keys(number).network_key),
            status=records.BONDED,
            tokens=str(deposit_wei),
            owner_address=self.owner(number, meta=True),
            beneficiary_address=text(node_account(number)),
            creation_time=records.time_of(self.ctx.time_ns),
        )
        keepers.bank.send_to_module(self.ctx, self.state, node_account(number), records.META_BONDED, (Coin("wei", deposit_wei),))
        pool = keepers.register.ozone(self.state)
        counted = NodeDeposit(deposit_wei, 0, deposit_wei, deposit_wei)
        keepers.register.change(self.ctx, self.state, node, (pool, NodeDeposit(0)), (deposits.raise_deposit(pool, deposit_wei), counted))
