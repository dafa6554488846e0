"""The world of a whole chain: each operation is a signed transaction in a block of its own, reports with BLS signatures of a quorum.

The chain begins with the first meta node, at its genesis. Where too few meta nodes may vote on a slash, governance does: its message runs at the end of a
block, where a passed proposal's would.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from chain.app import build_application
from chain.application import Settings
from chain.coins import Coin
from chain.context import Context
from chain.crypto.keys import PrivateKey
from chain.dec import ONE
from chain.errors import AppError
from chain.reports import Draft
from chain.store.api import StateReader
from chain.store.kv import MemoryBackend
from chain.testing.driver import Driver
from chain.tx.build import Signer, build_tx
from chain.tx.decode import message_signers_of
from genesis import build
from modules.register import records
from tests.economics.keepers import MATURE_EPOCH
from tests.economics.messages import GRANT, MessageWorld, coin, message, node_keys, text
from tests.economics.model import Rules
from tests.economics.operations import Refused, Seen
from tests.grants import Chain
from tests.support import CHAIN_ID, FEE, genesis_document, key

GAS: Final = 100_000_000
FUNDS_WEI: Final = 10**34
POOL_WEI: Final = 10**33
NAMES: Final = ("buyer", "sponsor", "operator", "meta nodes", "resource nodes")
KEYS: Final[dict[str, PrivateKey]] = {name: key(100 + number, "eth_secp256k1") for number, name in enumerate(NAMES)}
PRIVATE: Final = {private.public_key.address: private for private in KEYS.values()}
TEXTS: Final = {name: text(private.public_key.address) for name, private in KEYS.items()}


class ChainWorld(MessageWorld):
    """One history on one chain of one validator. All meta nodes have one owner, and all resource nodes another."""

    chain_id = CHAIN_ID
    buyer, sponsor, operator = TEXTS["buyer"], TEXTS["sponsor"], TEXTS["operator"]
    grant_pool = 2

    def __init__(self, rules: Rules | None = None) -> None:
        super().__init__(rules)
        self.app: Any = build_application(MemoryBackend(), Settings(invariant_period=0))
        self.driver: Driver | None = None
        self.governed: list[Any] = []
        self.refusal: AppError | None = None

    @property
    def reader(self) -> StateReader:
        state: StateReader = self.app.store.latest()
        return state

    def seen(self) -> Seen:
        return super().seen() if self.driver is not None else Seen(0, 0, 0, 0, 0, 0, 0, 0, 0)

    def begin_with(self, number: int, deposit_wei: int) -> None:
        rules, document = self.rules, genesis_document(self.app)
        for private in KEYS.values():
            build.add_account(document, private.public_key.address, (Coin("wei", FUNDS_WEI),))
        sections = document["app_state"]
        register, pot = sections["register"]["params"], sections["pot"]["params"]
        register["resource_node_min_deposit"]["amount"] = "0"
        register["unbonding_threashold_time"] = f"{rules.threshold_s}s"
        register["unbonding_completion_time"] = f"{rules.completion_s}s"
        pot.update(mature_epoch=str(MATURE_EPOCH), epoch_duration_s="0", community_tax=decimal(rules.tax), mining_cap_ratio=decimal(rules.cap))
        sections["pot"]["total_mined_token"] = {"denom": "wei", "amount": str(rules.mined_wei)}
        node = node_keys(number).genesis_node(CHAIN_ID, self.owner(number, meta=True), deposit_wei, "first")
        build.add_meta_node(document, {**node, "beneficiary_address": text(self.beneficiary(number))}, "the first meta node")
        build.add_foundation(document, (Coin("wei", rules.foundation_wei),))
        self.edit(document)
        build.pin_supply(document)
        self.driver = Driver([self.app], document, keep_blocks=3)
        self.driver.start()
        self.driver.next_block()
        self.chain = Chain(self.driver)
        self.app._end.append(self._govern_at_the_end)
        self.run([message(f"{GRANT}.MsgCreatePool", admin=self.sponsor, name="newcomers", funding=coin(POOL_WEI))])

    def edit(self, document: dict[str, Any]) -> None:
        """Change the genesis document."""

    def run(self, messages: Sequence[Any]) -> None:
        if self.driver is None:
            raise Refused("the chain begins with a meta node")
        addresses = list(dict.fromkeys(address for one in messages for address in message_signers_of(one)))
        if any(address not in PRIVATE for address in addresses):
            raise Refused("nobody has the key")
        keys = [PRIVATE[address] for address in addresses]
        accounts = [self.chain.account(private) for private in keys]
        signers = [Signer(private.public_key, sequence, number) for private, (number, sequence) in zip(keys, accounts, strict=True)]
        raw = build_tx(messages, fee=FEE, gas_limit=GAS, signers=signers).sign(keys, CHAIN_ID)
        result = self.driver.next_block([raw], time_step_s=0).results[0]
        if result.code:
            raise Refused(result.log)

    def govern(self, message: Any) -> None:
        if self.driver is None:
            raise Refused("the chain begins with a meta node")
        self.governed.append(message)
        self.driver.next_block(time_step_s=0)
        refusal, self.refusal = self.refusal, None
        if refusal is not None:
            raise Refused(str(refusal))

    def _govern_at_the_end(self, ctx: Context, state: Any) -> None:
        if not self.governed:
            return
        message = self.governed.pop()
        mark, handler = state.mark(), self.app.executor._handlers[message.DESCRIPTOR.full_name]
        try:
            handler.check_stateless(message)
            handler.execute(ctx, state, message)
        except AppError as error:
            state.rollback(mark)
            self.refusal = error

    def owner(self, number: int, *, meta: bool) -> str:
        return TEXTS["meta nodes" if meta else "resource nodes"]

    def fund_owner(self, number: int, amount_wei: int) -> None:
        """They have enough."""

    def wait(self, seconds: int) -> None:
        if self.driver is not None:
            self.driver.next_block(time_step_s=seconds)

    def signed(self, draft: Draft) -> Any:
        """By a quorum of the active meta nodes."""
        active = [records.address_of(node) for node in self.keepers.register.active_meta_nodes(self.reader)]
        keys = [node_keys(number) for number in self._numbers(active)]
        chosen = keys[: 2 * len(keys) // 3 + 1]
        return draft.signature_info({one.bls_pubkey: one.sign(draft.message) for one in chosen})

    @staticmethod
    def _numbers(addresses: list[bytes]) -> list[int]:
        by_address = {node_keys(number).address: number for number in range(1, 100)}
        return [by_address[address] for address in addresses]


def decimal(value: Any) -> str:
    """A fraction of 18 places as text."""
    whole, rest = divmod(int(value * ONE), ONE)
    return f"{whole}.{rest:018d}"
