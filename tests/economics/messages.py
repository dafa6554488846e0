"""Operations as the messages that users send, and what is read of a state afterwards: shared by the worlds of real modules.

Nodes, wallets and meta nodes' keys follow from numbers. A meta node is voted in, and registers its keys, in the message list that creates it; a grant is a
campaign that is made, claimed from and ended at once.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from chain.authority import GOV_ADDRESS
from chain.codec.registry import message_class
from chain.coins import CoinMessage
from chain.context import Context
from chain.crypto import address as bech32
from chain.crypto import bls
from chain.crypto.keys import public_key_to_any
from chain.metakeys import MetaKeys
from chain.module import Invariant, MessageHandler
from chain.reports import Draft, draft_of
from chain.reports import draft as idle_draft
from chain.store.api import StateReader
from modules.auth.keeper import AuthKeeper
from modules.bank.keeper import BankMint
from modules.distribution.keeper import DistributionKeeper
from modules.grant.keeper import GrantKeeper
from modules.grant.module import grant_module
from modules.pot.keeper import PotKeeper
from modules.pot.module import pot_module
from modules.register import records
from modules.register.keeper import RegisterKeeper
from modules.register.module import register_module
from modules.sds.keeper import SdsKeeper
from modules.sds.module import sds_module
from modules.settlement.keeper import SettlementKeeper
from modules.settlement.module import settlement_module
from modules.staking.keeper import StakingKeeper
from tests.economics.model import Rules
from tests.economics.operations import Add, Claim, Create, Effective, Leave, Operation, Paid, Prepay, Report, Seen, Slash, Suspend, Wait

START_S: Final = 1_767_225_600
"""2026-01-01, when every history begins."""
RECEIPTS_ROOT: Final = hashlib.sha256(b"receipts").digest()
ACCOUNTS: Final[Mapping[str, tuple[str, ...]]] = {
    "fee_collector": (),
    "distribution": ("burner",),
    "mint": ("minter",),
    "bonded_tokens_pool": ("burner", "staking"),
    "not_bonded_tokens_pool": ("burner", "staking"),
    **{name: () for name in records.POOLS},
    **{name: () for name in ("register", "total_unissued_prepay", "foundation_account", "total_reward_pool", "sds", "settlement", "grant")},
    "pot": ("minter",),
}
REGISTER, SDS, POT, SETTLEMENT, GRANT = (f"stratos.{name}.v1" for name in ("register", "sds", "pot", "settlement", "grant"))
WORKER, NODE_ACCOUNT = 2, 3
"""First byte of the addresses of ``worker`` and ``node_account``."""


def worker(number: int) -> bytes:
    """A wallet that is paid for work."""
    return bytes([WORKER]) + number.to_bytes(19, "big")


def node_account(number: int) -> bytes:
    """What a node earns goes there."""
    return bytes([NODE_ACCOUNT]) + number.to_bytes(19, "big")


@lru_cache(maxsize=4096)
def node_keys(number: int) -> MetaKeys:
    """The keys of a node, always the same for its number. A resource node has no use for two of them."""
    seed = number.to_bytes(32, "big")
    return MetaKeys(seed, bls.secret_from_seed(hashlib.sha256(seed).digest()), hashlib.sha256(seed + b"ledger").digest())


def network(number: int) -> str:
    return node_keys(number).network_address


def coin(amount_wei: int) -> Any:
    return CoinMessage(denom="wei", amount=str(amount_wei))


def text(address: bytes) -> str:
    return bech32.encode(address)


def message(kind: str, /, **fields: Any) -> Any:
    return message_class(kind)(**fields)


class Unsigned(PotKeeper):
    """pot, but a report's quorum is taken as given."""

    def _check_signature(self, ctx: Context, state: Any, message: Any, voters: int) -> tuple[bytes, ...]:
        return ()


class Keepers:
    """The modules, wired as in ``chain/app.py``. They hold no state, so one set serves every history."""

    def __init__(self) -> None:
        auth = AuthKeeper(ACCOUNTS)
        self.bank = BankMint(auth, blocked=frozenset())
        staking = StakingKeeper(self.bank)
        self.distribution = DistributionKeeper(auth, self.bank, staking)
        self.register = RegisterKeeper(self.bank, self.distribution)
        self.sds = SdsKeeper(self.bank, self.register)
        self.grant = GrantKeeper(self.bank, self.sds)
        self.settlement = SettlementKeeper(self.bank, self.distribution, self.register, self.grant)
        self.pot = Unsigned(self.bank, self.distribution, self.register, self.settlement, staking)
        self.settlement.set_pot(self.pot)
        # In the order of their end hooks.
        self.modules = (
            register_module(self.register),
            sds_module(self.sds),
            pot_module(self.pot),
            settlement_module(self.settlement),
            grant_module(self.grant),
        )
        self.handlers: dict[str, MessageHandler] = {name: handler for module in self.modules for name, handler in module.messages.items()}
        self.invariants: dict[str, Invariant] = {
            f"{module.name}: {name}": check for module in self.modules for name, check in module.invariants.items()
        }


KEEPERS: Final = Keepers()


class MessageWorld(ABC):
    """A world that does operations by messages. Who sends what: ``buyer`` buys, ``sponsor`` grants through ``operator``."""

    chain_id: str
    buyer: str
    sponsor: str
    operator: str
    grant_pool: int = 1

    def __init__(self, rules: Rules | None = None) -> None:
        self.rules = rules or Rules()
        self.keepers = KEEPERS
        self.now_s = 0

    # --- of each world ----------------------------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def reader(self) -> StateReader:
        """The state as it is now."""

    @abstractmethod
    def run(self, messages: Sequence[Any]) -> None:
        """Execute messages of one transaction. Raises Refused, and then nothing of them has happened."""

    @abstractmethod
    def govern(self, message: Any) -> None:
        """Execute a message in the name of governance. Raises Refused."""

    @abstractmethod
    def begin_with(self, number: int, deposit_wei: int) -> None:
        """The first meta node, on which nobody can vote."""

    @abstractmethod
    def owner(self, number: int, *, meta: bool) -> str:
        """The account that owns a node."""

    @abstractmethod
    def fund_owner(self, number: int, amount_wei: int) -> None:
        """See to it that the owner of a node has so much."""

    @abstractmethod
    def wait(self, seconds: int) -> None:
        """A block that is so much later."""

    @abstractmethod
    def signed(self, draft: Draft) -> Any:
        """BLSSignatureInfo of a report."""

    def worker(self, number: int) -> bytes:
        """Who is paid for the work of a wallet."""
        return worker(number)

    def beneficiary(self, number: int) -> bytes:
        """Who is paid for a node."""
        return node_account(number)

    # --- what is seen -----------------------------------------------------------------------------------------------------------

    def seen(self) -> Seen:
        """S, Lt and Pt as the modules keep them, and sums over nodes added up anew."""
        keepers, state = self.keepers, self.reader
        pool = keepers.register.ozone(state)
        effective = leaving = tokens = 0
        for node in (*keepers.register.resource_nodes(state), *keepers.register.meta_nodes(state)):
            at_work = records.at_work_wei(node)
            effective += at_work
            leaving += keepers.register.counted_wei(state, records.address_of(node)) - at_work
            tokens += int(node.tokens)
        return Seen(
            pool.deposit_wei,
            pool.remaining_noz,
            pool.prepaid_wei,
            pool.pending_wei,
            effective,
            leaving,
            tokens,
            keepers.grant.outstanding_noz(state),
            keepers.grant.cost_wei(state),
        )

    def broken(self) -> list[str]:
        found = ((name, check(self.reader)) for name, check in self.keepers.invariants.items())
        return [f"{name}: {problem}" for name, problem in found if problem is not None]

    # --- what happens -----------------------------------------------------------------------------------------------------------

    def apply(self, operation: Operation) -> Paid:
        match operation:
            case Create(number, deposit_wei, is_meta):
                self.fund_owner(number, deposit_wei)
                self._create(number, deposit_wei, is_meta)
            case Add(number, more_wei):
                self.fund_owner(number, more_wei)
                kind = "MetaNode" if self._is_meta(number) else "ResourceNode"
                fields = {"network_address": network(number), "owner_address": self._owner(number), "deposit_delta": coin(more_wei)}
                self.run([message(f"{REGISTER}.MsgUpdate{kind}Deposit", **fields)])
            case Effective(number, effective_wei):
                reporters, owners = self._quorum()
                fields = {"reporters": reporters, "reporter_owner": owners, "network_address": network(number)}
                self.run([message(f"{REGISTER}.MsgUpdateEffectiveDeposit", effective_tokens=str(effective_wei), **fields)])
            case Suspend(number):
                self._slash(number, 0, True)
            case Slash(number, noz):
                node = self.keepers.register.resource_node(self.reader, node_keys(number).address)
                before = self.seen().tokens_wei
                self._slash(number, noz, node is not None and node.suspend)
                return Paid(slashed_wei=before - self.seen().tokens_wei)
            case Leave(number):
                kind, field = ("MetaNode", "meta_node_address") if self._is_meta(number) else ("ResourceNode", "resource_node_address")
                self.run([message(f"{REGISTER}.MsgRemove{kind}", owner_address=self._owner(number), **{field: network(number)})])
            case Wait(seconds):
                self.now_s += seconds
                self.wait(seconds)
            case Prepay(paid_wei):
                before = self.seen().remaining_noz
                self.run([message(f"{SDS}.MsgPrepay", sender=self.buyer, beneficiary=text(worker(0)), amount=[coin(paid_wei)])])
                return Paid(noz=before - self.seen().remaining_noz)
            case Claim(noz):
                return self._claim(noz)
            case Report():
                draft = self.draft(operation)
                self.run(draft.messages(self.signed(draft)))
                return self.paid(self.keepers.pot.last_epoch(self.reader))
        return Paid()

    def _is_meta(self, number: int) -> bool:
        return self.keepers.register.meta_node(self.reader, node_keys(number).address) is not None

    def _owner(self, number: int) -> str:
        return self.owner(number, meta=self._is_meta(number))

    def _quorum(self) -> tuple[list[str], list[str]]:
        """Enough active meta nodes to decide, and their owners."""
        active = self.keepers.register.active_meta_nodes(self.reader)
        chosen = active[: 2 * len(active) // 3 + 1]
        return [node.network_address for node in chosen], [node.owner_address for node in chosen]

    def _create(self, number: int, deposit_wei: int, is_meta: bool) -> None:
        if is_meta and not self.keepers.register.active_meta_nodes(self.reader):
            self.begin_with(number, deposit_wei)
            return
        keys, owner = node_keys(number), self.owner(number, meta=is_meta)
        # Who has a debt may name nobody else.
        is_debtor = self.keepers.register.debt_wei(self.reader, bech32.decode(owner)) > 0
        told = {
            "network_address": network(number),
            "pubkey": public_key_to_any(keys.network_key),
            "value": coin(deposit_wei),
            "owner_address": owner,
            "beneficiary_address": owner if is_debtor else text(self.beneficiary(number)),
            "description": {"moniker": f"node {number}"},
        }
        if not is_meta:
            self.run([message(f"{REGISTER}.MsgCreateResourceNode", node_type=4, **told)])
            return
        votes = [
            message(
                f"{REGISTER}.MsgMetaNodeRegistrationVote",
                candidate_network_address=network(number),
                candidate_owner_address=owner,
                opinion=True,
                voter_network_address=voter,
                voter_owner_address=voter_owner,
            )
            for voter, voter_owner in zip(*self._quorum(), strict=True)
        ]
        registered = keys.registered(self.chain_id)
        shown = {name: getattr(registered, name) for name in ("meta_node", "bls_pubkey", "proof_of_possession", "ledger_consensus_pubkey")}
        self.run([message(f"{REGISTER}.MsgCreateMetaNode", **told), *votes, message(f"{SETTLEMENT}.MsgRegisterMetaKeys", owner=owner, **shown)])

    def _slash(self, number: int, noz: int, suspend: bool) -> None:
        accused = self.owner(number, meta=False)
        content = {"network_address": network(number), "wallet_address": accused, "slashing": str(noz), "suspend": suspend}
        reporters, owners = self._quorum()
        kind = f"{POT}.MsgSlashingResourceNode"
        if len(self.keepers.register.active_meta_nodes(self.reader)) < 2:
            self.govern(message(kind, reporter_owner=[text(GOV_ADDRESS)], **content))
        else:
            self.run([message(kind, reporters=reporters, reporter_owner=owners, **content)])

    def _claim(self, noz: int) -> Paid:
        end = {"seconds": START_S + self.now_s + 1000}
        campaign = self.keepers.grant.next_campaign_id(self.reader)
        made = message(
            f"{GRANT}.MsgCreateCampaign",
            admin=self.sponsor,
            pool_id=self.grant_pool,
            name="a newcomer",
            operators=[self.operator],
            budget_wei=str(10**32),
            max_wei_per_day=str(10**32),
            max_noz_per_wallet=str(max(noz, 1)),
            validity_s=1000,
            end_time=end,
            promotions=[{"promotion_id": 1, "name": "first", "noz_per_wallet": str(noz), "start_time": {"seconds": START_S}, "end_time": end}],
        )
        claimed = message(f"{GRANT}.MsgClaim", operator=self.operator, campaign_id=campaign, promotion_id=1, wallets=[text(worker(0))])
        before = self.seen()
        self.run([made, claimed, message(f"{GRANT}.MsgEndCampaign", admin=self.sponsor, campaign_id=campaign)])
        after = self.seen()
        return Paid(noz=before.remaining_noz - after.remaining_noz, cost_wei=after.prepaid_wei - before.prepaid_wei)

    def draft(self, report: Report) -> Draft:
        """The report of the next epoch, by the first active meta node: all work is storage, and one receipt stands for all."""
        active = self.keepers.register.active_meta_nodes(self.reader)
        reporter, owner = (active[0].network_address, active[0].owner_address) if active else (network(0), text(node_account(0)))
        volumes = [(text(self.worker(number)), noz) for number, noz, _ in report.work]
        receipts = [(1, RECEIPTS_ROOT)] if report.volume_noz else []
        shown = idle_draft(self.chain_id, self.keepers.pot.last_epoch(self.reader) + 1, reporter, owner, volumes, *receipts)
        shown["lines"] = [
            {"wallet": text(self.worker(number)), "traffic_class": 1, "fund": 2, "volume_noz": str(granted)}
            for number, _, granted in report.work
            if granted
        ]
        shown["promo_expired_noz"] = str(report.expired_noz)
        return draft_of(shown)

    def paid(self, epoch: int) -> Paid:
        """What an epoch's report paid."""
        keepers, state = self.keepers, self.reader
        economics, kept = keepers.pot.economics(state, epoch), keepers.settlement.epoch(state, epoch)
        assert economics is not None
        assert kept is not None
        matures = int(economics.maturity_epoch)
        rewards = {}
        for _, address in keepers.pot.maturing(state, matures, matures + 1):
            amounts = keepers.pot.reward(state, matures, address)
            assert amounts is not None
            rewards["wallet" if address[0] == WORKER else "meta", int.from_bytes(address[1:], "big")] = (amounts.mining_wei, amounts.traffic_wei)
        return Paid(
            refund_wei=int(kept.promo_returned_wei),
            spent_wei=int(economics.traffic_reward_wei),
            mined_wei=int(economics.mining_reward_wei),
            rewards=rewards,
        )
