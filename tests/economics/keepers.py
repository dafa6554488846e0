"""The world of the modules' own keepers and message handlers over a memory store.

Every operation is made of messages as users send them, checked and executed as the chain would, all or nothing; time passes in blocks. Not there:
transactions, and the BLS signature of a report, whose quorum is taken as given. The first meta node is there without a vote, as at genesis.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any, Final

import nacl.signing

from chain.authority import GOV_ADDRESS
from chain.codec.registry import message_class
from chain.coins import Coin, CoinMessage
from chain.context import Context, Mode
from chain.crypto import address as bech32
from chain.crypto.address import module_address
from chain.crypto.keys import Ed25519PublicKey, public_key_to_any
from chain.dec import ONE
from chain.errors import AppError
from chain.module import Invariant, MessageHandler
from chain.ozone import DEFAULT_RATE
from chain.reports import Draft, draft_of
from chain.store.state import EmptyView, State
from modules.auth.keeper import AuthKeeper
from modules.bank.keeper import BankMint
from modules.distribution.keeper import DistributionKeeper
from modules.distribution.params import default_params as distribution_params
from modules.grant.keeper import GrantKeeper
from modules.grant.module import grant_module
from modules.pot.keeper import PotKeeper
from modules.pot.module import pot_module
from modules.pot.params import default_params as pot_params
from modules.register import deposits, records
from modules.register.deposits import NodeDeposit
from modules.register.keeper import RegisterKeeper
from modules.register.module import register_module
from modules.register.params import default_params as register_params
from modules.sds.keeper import SdsKeeper
from modules.sds.module import sds_module
from modules.settlement.keeper import SettlementKeeper
from modules.settlement.module import settlement_module
from modules.staking.keeper import StakingKeeper
from tests.economics.model import Rules
from tests.economics.operations import Add, Claim, Create, Effective, Leave, Operation, Paid, Prepay, Refused, Report, Seen, Slash, Suspend, Wait

CHAIN_ID: Final = "histories-1"
START_S: Final = 1_800_000_000
RICH_WEI: Final = 10**34
MATURE_EPOCH: Final = 3
STORES: Final = ("acc", "bank", "staking", "distribution", "register", "sds", "pot", "settlement", "grant")
ACCOUNTS: Final[Mapping[str, tuple[str, ...]]] = {
    "fee_collector": (),
    "distribution": ("burner",),
    "mint": ("minter",),
    "bonded_tokens_pool": ("burner", "staking"),
    "not_bonded_tokens_pool": ("burner", "staking"),
    "register": (),
    **{name: () for name in records.POOLS},
    "total_unissued_prepay": (),
    "pot": ("minter",),
    "foundation_account": (),
    "total_reward_pool": (),
    "sds": (),
    "settlement": (),
    "grant": (),
}
RICH: Final = bytes([1]) * 20
"""Buys ozone, and fills the grant pool."""
OPERATOR: Final = bytes([4]) * 20


def wallet(number: int) -> bytes:
    """Of who is paid for work."""
    return bytes([2]) + number.to_bytes(19, "big")


def owner(number: int) -> bytes:
    """Of a node; a meta node's is paid for it."""
    return bytes([3]) + number.to_bytes(19, "big")


@lru_cache(maxsize=4096)
def network_key(number: int) -> Ed25519PublicKey:
    """Of a node, always the same for its number."""
    return Ed25519PublicKey(bytes(nacl.signing.SigningKey(number.to_bytes(32, "big")).verify_key))


def network(number: int) -> str:
    return bech32.encode(network_key(number).address, bech32.NODE)


def coin(amount_wei: int) -> Any:
    return CoinMessage(denom="wei", amount=str(amount_wei))


class Unsigned(PotKeeper):
    """pot, but a report's quorum is taken as given: its signatures have tests of their own."""

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


class KeeperWorld:
    """One history. ``mature_epoch`` is short, so that rewards mature in it."""

    def __init__(self, rules: Rules | None = None, *, keepers: Keepers = KEEPERS) -> None:
        self.rules = rules or Rules()
        self.keepers = keepers
        self.state = State(EmptyView(), STORES)
        self.height = 2
        self.now_s = 0
        self._begin()

    def _begin(self) -> None:
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
        pot.community_tax = str(int(self.rules.tax * ONE))
        pot.mining_cap_ratio = str(int(self.rules.cap * ONE))
        keepers.pot.set_params(state, pot)
        keepers.pot.set_total_mined(state, self.rules.mined_wei)
        for module in keepers.modules:
            if module.name in ("grant", "settlement") and module.genesis is not None:
                module.genesis.load(self.ctx, state, module.genesis.default())
        self.mint(module_address("foundation_account"), self.rules.foundation_wei)
        self.mint(RICH, RICH_WEI)
        keepers.grant.fund_pool(self.ctx, state, RICH, 1, 10**33)

    @property
    def ctx(self) -> Context:
        return Context(CHAIN_ID, self.height, (START_S + self.now_s) * 10**9, Mode.FINALIZE)

    def mint(self, address: bytes, amount_wei: int) -> None:
        coins = (Coin("wei", amount_wei),)
        self.keepers.bank.mint(self.ctx, self.state, "mint", coins)
        self.keepers.bank.send(self.ctx, self.state, module_address("mint"), address, coins)

    def set_solvency(self, on: bool) -> None:
        params = self.keepers.register.params(self.state)
        params.solvency_rules = on
        self.keepers.register.set_params(self.state, params)

    # --- what is seen -----------------------------------------------------------------------------------------------------------

    def seen(self) -> Seen:
        """From the store: S, Lt and Pt as the modules keep them, and the sums over nodes added up anew."""
        return seen_in(self.keepers, self.state)

    def broken(self) -> list[str]:
        """Invariants of the modules that do not hold."""
        found = ((name, check(self.state)) for name, check in self.keepers.invariants.items())
        return [f"{name}: {problem}" for name, problem in found if problem is not None]

    # --- what happens -----------------------------------------------------------------------------------------------------------

    def apply(self, operation: Operation) -> Paid:
        mark = self.state.mark()
        try:
            return self._apply(operation)
        except AppError as error:
            self.state.rollback(mark)
            raise Refused(str(error)) from error

    def _apply(self, operation: Operation) -> Paid:
        match operation:
            case Create(number, deposit_wei, is_meta):
                self.mint(owner(number), deposit_wei)
                self._create(number, deposit_wei, is_meta)
            case Add(number, more_wei):
                if more_wei > 0:
                    self.mint(owner(number), more_wei)
                kind = "MetaNode" if self.keepers.register.meta_node(self.state, network_key(number).address) is not None else "ResourceNode"
                self._register(
                    f"Update{kind}Deposit", network_address=network(number), owner_address=_text(owner(number)), deposit_delta=coin(more_wei)
                )
            case Effective(number, effective_wei):
                reporters, owners = self._quorum()
                self._register(
                    "UpdateEffectiveDeposit",
                    reporters=reporters,
                    reporter_owner=owners,
                    network_address=network(number),
                    effective_tokens=str(effective_wei),
                )
            case Suspend(number):
                self._slash(number, 0, True)
            case Slash(number, noz):
                node = self.keepers.register.resource_node(self.state, network_key(number).address)
                return Paid(slashed_wei=self._slash(number, noz, node is not None and node.suspend))
            case Leave(number):
                if self.keepers.register.meta_node(self.state, network_key(number).address) is not None:
                    self._register("RemoveMetaNode", meta_node_address=network(number), owner_address=_text(owner(number)))
                else:
                    self._register("RemoveResourceNode", resource_node_address=network(number), owner_address=_text(owner(number)))
            case Wait(seconds):
                self.now_s += seconds
                self.end_block()
            case Prepay(paid_wei):
                before = self.keepers.register.ozone(self.state).remaining_noz
                self.execute("stratos.sds.v1.MsgPrepay", sender=_text(RICH), beneficiary=_text(wallet(0)), amount=[coin(paid_wei)])
                return Paid(noz=before - self.keepers.register.ozone(self.state).remaining_noz)
            case Claim(noz):
                return self._claim(noz)
            case Report():
                return self._report(operation)
        return Paid()

    def end_block(self) -> None:
        self.height += 1
        for module in self.keepers.modules:
            if module.end_block is not None:
                module.end_block(self.ctx, self.state)

    def execute(self, kind: str, /, **fields: Any) -> Any:
        """Check and execute a message. Raises AppError."""
        return self.execute_messages(message_class(kind)(**fields))

    def execute_messages(self, *messages: Any) -> Any:
        """The same of several in one transaction; returns the last response."""
        response = None
        for message, following in zip(messages, (*messages[1:], None), strict=True):
            handler = self.keepers.handlers[message.DESCRIPTOR.full_name]
            handler.check_stateless(message)
            response = handler.execute(replace(self.ctx, next_message=following), self.state, message)
        return response

    def _register(self, name: str, **fields: Any) -> None:
        self.execute(f"stratos.register.v1.Msg{name}", **fields)

    def _quorum(self) -> tuple[list[str], list[str]]:
        """Enough active meta nodes to decide, and their owners."""
        active = self.keepers.register.active_meta_nodes(self.state)
        chosen = active[: 2 * len(active) // 3 + 1]
        return [node.network_address for node in chosen], [node.owner_address for node in chosen]

    def _create(self, number: int, deposit_wei: int, is_meta: bool) -> None:
        active = self.keepers.register.active_meta_nodes(self.state)
        key = network_key(number)
        if is_meta and not active:
            self._first_meta_node(number, deposit_wei)
            return
        told = {
            "network_address": network(number),
            "pubkey": public_key_to_any(key),
            "value": coin(deposit_wei),
            "owner_address": _text(owner(number)),
            "beneficiary_address": _text(owner(number)),
            "description": {"moniker": f"node {number}"},
        }
        if not is_meta:
            self._register("CreateResourceNode", node_type=4, **told)
            return
        self._register("CreateMetaNode", **told)
        for voter, voter_owner in zip(*self._quorum(), strict=True):
            self._register(
                "MetaNodeRegistrationVote",
                candidate_network_address=network(number),
                candidate_owner_address=_text(owner(number)),
                opinion=True,
                voter_network_address=voter,
                voter_owner_address=voter_owner,
            )

    def _first_meta_node(self, number: int, deposit_wei: int) -> None:
        keepers, key = self.keepers, network_key(number)
        node = records.MetaNode(
            network_address=network(number),
            pubkey=public_key_to_any(key),
            status=records.BONDED,
            tokens=str(deposit_wei),
            owner_address=_text(owner(number)),
            beneficiary_address=_text(owner(number)),
            creation_time=records.time_of(self.ctx.time_ns),
        )
        keepers.bank.send_to_module(self.ctx, self.state, owner(number), records.META_BONDED, (Coin("wei", deposit_wei),))
        pool = keepers.register.ozone(self.state)
        counted = NodeDeposit(deposit_wei, 0, deposit_wei, deposit_wei)
        keepers.register.change(self.ctx, self.state, node, (pool, NodeDeposit(0)), (deposits.raise_deposit(pool, deposit_wei), counted))

    def _slash(self, number: int, noz: int, suspend: bool) -> int:
        """Returns what the deposit paid."""
        address = network_key(number).address
        node = self.keepers.register.resource_node(self.state, address)
        before = int(node.tokens) if node is not None else 0
        accused = _text(owner(number))
        voters = [one for one in self.keepers.register.active_meta_nodes(self.state) if one.owner_address != accused]
        content = {"network_address": network(number), "wallet_address": accused, "slashing": str(noz), "suspend": suspend}
        if len(voters) < 2:
            self.execute("stratos.pot.v1.MsgSlashingResourceNode", reporter_owner=[_text(GOV_ADDRESS)], **content)
        else:
            reporters, owners = self._quorum()
            if len(reporters) < 2:
                reporters, owners = [one.network_address for one in voters], [one.owner_address for one in voters]
            self.execute("stratos.pot.v1.MsgSlashingResourceNode", reporters=reporters, reporter_owner=owners, **content)
        after = self.keepers.register.resource_node(self.state, address)
        return before - (int(after.tokens) if after is not None else 0)

    def _claim(self, noz: int) -> Paid:
        """Governance makes a campaign of the common pool, its operator claims for a newcomer, and governance ends it."""
        end = {"seconds": START_S + self.now_s + 1000}
        before = self.seen()
        campaign = self.execute(
            "stratos.grant.v1.MsgCreateCampaign",
            admin=_text(GOV_ADDRESS),
            pool_id=1,
            name="a newcomer",
            operators=[_text(OPERATOR)],
            budget_wei=str(10**32),
            max_wei_per_day=str(10**32),
            max_noz_per_wallet=str(max(noz, 1)),
            validity_s=1000,
            end_time=end,
            promotions=[
                {"promotion_id": 1, "name": "first", "noz_per_wallet": str(noz), "start_time": {"seconds": START_S}, "end_time": end},
            ],
        ).campaign_id
        claim = {"operator": _text(OPERATOR), "campaign_id": campaign, "promotion_id": 1, "wallets": [_text(wallet(0))]}
        self.execute("stratos.grant.v1.MsgClaim", **claim)
        self.execute("stratos.grant.v1.MsgEndCampaign", admin=_text(GOV_ADDRESS), campaign_id=campaign)
        after = self.seen()
        return Paid(noz=before.remaining_noz - after.remaining_noz, cost_wei=after.prepaid_wei - before.prepaid_wei)

    def _report(self, report: Report) -> Paid:
        keepers, state = self.keepers, self.state
        draft = self.draft(report)
        self.execute_messages(*draft.messages(unproved(draft)))
        return paid_in(keepers, state, keepers.pot.last_epoch(state))

    def draft(self, report: Report) -> Draft:
        """The report of the next epoch, by the first active meta node."""
        active = self.keepers.register.active_meta_nodes(self.state)
        reporter = active[0].network_address if active else network(0)
        reporter_owner = active[0].owner_address if active else _text(owner(0))
        return draft_for(CHAIN_ID, report, self.keepers.pot.last_epoch(self.state) + 1, reporter, reporter_owner)


def unproved(draft: Draft) -> Any:
    """A BLSSignatureInfo of the right form that proves nothing."""
    return message_class("stratos.pot.v1.BLSSignatureInfo")(pub_keys=[bytes(48)], signature=bytes(96), txData=draft.data)


def draft_for(chain_id: str, report: Report, epoch: int, reporter: str, reporter_owner: str) -> Draft:
    """A report's draft: all paid and granted work is storage, and one receipt stands for all."""
    return draft_of(
        {
            "chain_id": chain_id,
            "reporter": reporter,
            "reporter_owner": reporter_owner,
            "epoch": str(epoch),
            "wallet_volumes": [{"wallet_address": _text(wallet(number)), "volume": str(noz)} for number, noz, _ in report.work],
            "lines": [
                {"wallet": _text(wallet(number)), "traffic_class": 1, "fund": 2, "volume_noz": str(granted)}
                for number, _, granted in report.work
                if granted
            ],
            "promo_expired_noz": str(report.expired_noz),
            "roots": {"receipts_count": "1", "receipts_root": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="} if report.volume_noz else {},
        }
    )


def seen_in(keepers: Keepers, state: Any) -> Seen:
    """What a state says of the economy."""
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


def paid_in(keepers: Keepers, state: Any, epoch: int) -> Paid:
    """What a state says that an epoch's report paid."""
    economics, kept = keepers.pot.economics(state, epoch), keepers.settlement.epoch(state, epoch)
    assert economics is not None
    assert kept is not None
    matures = int(economics.maturity_epoch)
    rewards = {}
    for _, address in keepers.pot.maturing(state, matures, matures + 1):
        amounts = keepers.pot.reward(state, matures, address)
        assert amounts is not None
        rewards["wallet" if address[0] == 2 else "meta", int.from_bytes(address[1:], "big")] = (amounts.mining_wei, amounts.traffic_wei)
    return Paid(
        refund_wei=int(kept.promo_returned_wei),
        spent_wei=int(economics.traffic_reward_wei),
        mined_wei=int(economics.mining_reward_wei),
        rewards=rewards,
    )


def _text(address: bytes) -> str:
    return bech32.encode(address)
