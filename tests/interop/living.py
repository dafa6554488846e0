"""The economy by hand: what a chain of four meta nodes does with deposits, ozone and rewards, in plain whole numbers.

Written from stratos-chain.md 1.8, 2.5, 4.3 to 4.7 and storage-protocol.md 1.2 to 1.4 and 1.8, with the solvency rules and a mining cap of 0.4. Nothing of the
modules is used here, so that a chain that agrees with it agrees with the papers. Amounts are in wei, volumes in noz, times in Unix nanoseconds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

STOS = 10**18
ONE = 10**18
"""A decimal has 18 places."""
RATE = 10**6
"""wei of a deposit for a noz."""
SECOND = 10**9
MATURE_EPOCHS = 4
TIER_WEI, CHAIN_BP, RESOURCE_BP, META_BP = 80 * STOS, 2000, 6000, 2000
"""The first tier, of which a test never comes to the end."""
CAP = 4 * ONE // 10
TAX = ONE // 50
"""Of rewards from traffic, and in these tests of fees, too."""
TO_BE_MINED = 40_000_000 * STOS

FEES = "st17xpfvakm2amg962yls6f84z3kell8c5lv5hj2q"
DISTRIBUTION = "st1jv65s3grqf6v6jl3dp4t6c9t9rk99cd8mjswgz"
STAKED = "st1fl48vsnmsdzcv85q5d2q4z5ajdha8yu3fkaac2"
RESOURCE_BONDED = "st17ancryq8j2d98qzpkx2nkr9j7htxd9jhtv7zjf"
RESOURCE_NOT_BONDED = "st1ah3srlga6mqr7cq4gd887k2ys97rzfspjae0sz"
META_BONDED = "st1fz67scxv3hjy0nxafuf0c4made74gfcf7myjqg"
META_NOT_BONDED = "st1cm90laq9qjzjd78lkyp49lpdxdfyjrm7jq9wmg"
PREPAID = "st15fmkzxwtq5p64gc0zxmd87cmdwjnn3sakmkuu7"
FOUNDATION = "st1y0ujk7aqvuxt6t058gn6k2kq8f3pe96vzwknau"
REWARDS = "st100qkxrzlcahgh4zeug0p0l8aqcnuaygz3vvv42"
POT = "st1wjj3c08flup92g6c3swpmcwd4xzul9hu5wehxc"
MODULES = (
    FEES,
    DISTRIBUTION,
    STAKED,
    RESOURCE_BONDED,
    RESOURCE_NOT_BONDED,
    META_BONDED,
    META_NOT_BONDED,
    PREPAID,
    FOUNDATION,
    REWARDS,
    POT,
)
"""Accounts of modules, as stratos-chain.md 1.8 lists them."""
UNBONDED, UNBONDING, BONDED = "BOND_STATUS_UNBONDED", "BOND_STATUS_UNBONDING", "BOND_STATUS_BONDED"

Event = tuple[str, Mapping[str, str]]
"""A typed event's name, and what its values say between their quotes."""


def half_even(number: int, divisor: int) -> int:
    """A quotient rounded to the nearest whole number, a half to the even one."""
    whole, rest = divmod(number, divisor)
    return whole + (2 * rest > divisor or (2 * rest == divisor and whole % 2))


def decimal_ratio(number: int, divisor: int) -> int:
    """number ÷ divisor as a decimal times 10^18: cut at 36 places, then rounded at 18."""
    return half_even(number * ONE * ONE // divisor, ONE)


def quorum(voters: int) -> int:
    return 2 * voters // 3 + 1


@dataclass
class Node:
    """A node's deposit: ``counted`` of it is in S, ``working`` is what a resource node works with."""

    owner: str
    beneficiary: str
    is_meta: bool
    tokens: int
    created_ns: int
    status: str
    suspended: bool = True
    working: int = 0
    counted: int = 0
    due_ns: int = 0

    @property
    def is_active(self) -> bool:
        return self.status == BONDED and not self.suspended

    @property
    def at_work(self) -> int:
        if not self.is_active:
            return 0
        return self.tokens if self.is_meta else self.working


@dataclass
class Reward:
    mining: int = 0
    traffic: int = 0


@dataclass
class Economy:
    """All of it after block ``height``. ``wei`` has what every account holds."""

    wei: dict[str, int]
    nodes: dict[str, Node]
    threshold_ns: int
    completion_ns: int
    height: int = 0
    remaining: int = 0
    """Lt."""
    pending: int = 0
    """Deposits whose ozone is sold: they leave S when Lt can take it."""
    community: int = 0
    """The community pool times 10^18."""
    mined: int = 0
    epoch: int = 0
    reported_ns: int = 0
    rewards: dict[int, dict[str, Reward]] = field(default_factory=dict)
    """Of each epoch that has not matured, by wallet."""
    mature: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    totals: dict[int, Reward] = field(default_factory=dict)
    """What each epoch paid in all."""
    volumes: dict[int, int] = field(default_factory=dict)
    prices: dict[int, int] = field(default_factory=dict)
    """After the report of each epoch, times 10^18."""
    _votes: dict[tuple[object, ...], set[str]] = field(default_factory=lambda: defaultdict(set))

    # --- the ozone pool ---------------------------------------------------------------------------------------------------------

    @property
    def deposits(self) -> int:
        """S."""
        return sum(node.counted for node in self.nodes.values()) + self.pending

    @property
    def prepaid(self) -> int:
        """Pt."""
        return self.wei[PREPAID]

    @property
    def supply(self) -> int:
        return self.deposits // RATE

    @property
    def price(self) -> int:
        return decimal_ratio(self.deposits + self.prepaid, self.remaining)

    def would_buy(self, wei: int) -> int:
        return self.remaining * wei // (self.deposits + self.prepaid + wei)

    def worth(self, noz: int) -> int:
        """R times 10^18: by the formula, and no more than the part of what is prepaid."""
        formula = decimal_ratio((self.deposits + self.prepaid) * noz, self.remaining + noz)
        outstanding = self.supply - self.remaining
        return min(formula, self.prepaid * noz // outstanding * ONE) if outstanding > 0 else formula

    def _count(self, node: Node, wei: int) -> None:
        """A node's deposit counts for so much from now on."""
        change = wei - node.counted
        node.counted = wei
        if change > 0:
            self.remaining += change // RATE
        else:
            self.pending -= change
        self._let_go()

    def _let_go(self) -> None:
        """Pending deposits leave with whole noz, as many as there are to take."""
        noz = min(self.remaining, self.pending // RATE)
        self.remaining -= noz
        self.pending -= noz * RATE

    # --- coins ------------------------------------------------------------------------------------------------------------------

    def move(self, sender: str, recipient: str, wei: int) -> None:
        assert 0 <= wei <= self.wei[sender], f"{sender} has {self.wei[sender]} of {wei} wei"
        self.wei[sender] -= wei
        self.wei[recipient] += wei

    def fund(self, sender: str, wei: int) -> None:
        """Coins for the community pool, which the distribution module holds."""
        self.move(sender, DISTRIBUTION, wei)
        self.community += wei * ONE

    # --- blocks -----------------------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Fees and the chain's part of the block before go to validators, a tax of them to the community."""
        self.height += 1
        self.community += self.wei[FEES] * TAX
        self.move(FEES, DISTRIBUTION, self.wei[FEES])

    def end(self, now_ns: int) -> None:
        """Rewards mature, nodes that have left are paid back."""
        for epoch in [one for one in self.rewards if one + MATURE_EPOCHS <= self.epoch]:
            for wallet, reward in self.rewards.pop(epoch).items():
                self.mature[wallet] += reward.mining + reward.traffic
        for address, node in [(address, node) for address, node in self.nodes.items() if node.status == UNBONDING and node.due_ns <= now_ns]:
            self.move(META_NOT_BONDED if node.is_meta else RESOURCE_NOT_BONDED, node.owner, node.tokens)
            self._count(node, 0)
            del self.nodes[address]

    # --- nodes ------------------------------------------------------------------------------------------------------------------

    @property
    def active(self) -> dict[str, Node]:
        """Meta nodes that vote, sign and are paid."""
        return {address: node for address, node in self.nodes.items() if node.is_meta and node.is_active}

    def create_resource_node(self, address: str, key: str, owner: str, beneficiary: str, wei: int, now_ns: int) -> list[Event]:
        self.move(owner, RESOURCE_BONDED, wei)
        self.nodes[address] = Node(owner, beneficiary, False, wei, now_ns, BONDED)
        told = {"sender": owner, "network_address": address, "pubkey": key, "ozone_limit_changes": "0", "initial_deposit": f"{wei}wei"}
        return [("stratos.register.v1.EventCreateResourceNode", told)]

    def create_meta_node(self, address: str, owner: str, beneficiary: str, wei: int, now_ns: int) -> list[Event]:
        self.move(owner, META_NOT_BONDED, wei)
        self.nodes[address] = Node(owner, beneficiary, True, wei, now_ns, UNBONDED)
        return [("stratos.register.v1.EventCreateMetaNode", {"sender": owner, "network_address": address})]

    def _decides(self, voter: str, *matter: object) -> bool:
        """True for the vote that makes it a quorum."""
        assert voter in self.active
        self._votes[matter].add(voter)
        if len(self._votes[matter]) < quorum(len(self.active)):
            return False
        del self._votes[matter]
        return True

    def vote(self, voter: str, address: str) -> list[Event]:
        node, owner = self.nodes[address], self.nodes[voter].owner
        before = self.remaining
        if self._decides(voter, "registration", address):
            self.move(META_NOT_BONDED, META_BONDED, node.tokens)
            node.status, node.suspended = BONDED, False
            self._count(node, node.tokens)
        told = {"sender": owner, "voter_network_address": voter, "candidate_network_address": address, "candidate_status": node.status}
        return [("stratos.register.v1.EventMetaNodeRegistrationVote", told | {"ozone_limit_changes": str(self.remaining - before)})]

    def approve(self, voter: str, address: str, wei: int) -> list[Event]:
        """Of an effective deposit."""
        node = self.nodes[address]
        if not self._decides(voter, "effective deposit", address, wei):
            return []
        assert 0 < wei <= node.tokens
        told = {"network_address": address, "effective_deposit_after": str(wei), "is_unsuspended": "true" if node.suspended else "false"}
        node.working, node.suspended = wei, False
        self._count(node, wei)
        return [("stratos.register.v1.EventUpdateEffectiveDeposit", told)]

    def add_deposit(self, address: str, wei: int) -> list[Event]:
        """To a resource node, which does not work with it so far."""
        node = self.nodes[address]
        self.move(node.owner, RESOURCE_BONDED, wei)
        node.tokens += wei
        told = {"sender": node.owner, "network_address": address, "deposit_delta": f"{wei}wei", "available_token_after": f"{node.tokens}wei"}
        return [("stratos.register.v1.EventUpdateResourceNodeDeposit", told)]

    def slash(self, voter: str, address: str, noz: int, kind: str) -> list[Event]:
        """And suspend."""
        node = self.nodes[address]
        if not self._decides(voter, "slash", address, noz):
            return []
        wei = self.worth(noz) // ONE
        assert 0 < wei < node.tokens, "the test wants a node that has something left"
        self.fund(RESOURCE_BONDED, wei)
        node.tokens -= wei
        node.suspended, node.working = True, 0
        self._count(node, min(node.counted, node.tokens))
        told = {"wallet_address": node.owner, "network_address": address, "amount": str(wei), "slashing_type": kind, "suspend": "true"}
        return [("stratos.pot.v1.EventSlashing", told)]

    def remove(self, address: str, now_ns: int) -> list[Event]:
        """It leaves, and counts until it has left."""
        node = self.nodes[address]
        sender, recipient = (META_BONDED, META_NOT_BONDED) if node.is_meta else (RESOURCE_BONDED, RESOURCE_NOT_BONDED)
        self.move(sender, recipient, node.tokens)
        node.status, node.due_ns = UNBONDING, max(node.created_ns + self.threshold_ns, now_ns) + self.completion_ns
        told = {"sender": node.owner, "deposit_to_remove": f"{node.tokens}wei"}
        if node.is_meta:
            return [("stratos.register.v1.EventUnBondingMetaNode", told | {"meta_node": address, "ozone_limit_changes": "0"})]
        return [("stratos.register.v1.EventUnBondingResourceNode", told | {"resource_node": address})]

    # --- ozone ------------------------------------------------------------------------------------------------------------------

    def prepay(self, sender: str, beneficiary: str, wei: int) -> list[Event]:
        noz = self.would_buy(wei)
        self.move(sender, PREPAID, wei)
        self.remaining -= noz
        told = {"sender": sender, "beneficiary": beneficiary, "amount": f"{wei}wei", "purchased_noz": str(noz)}
        return [("stratos.sds.v1.EventPrePay", told)]

    def report(self, volumes: Iterable[tuple[str, int]], reference: str, now_ns: int) -> list[Event]:
        """The next epoch: ``volumes`` are paid storage."""
        self.epoch += 1
        self.reported_ns = now_ns
        volumes = list(volumes)
        volume = sum(noz for _, noz in volumes)
        total, paid = Reward(), dict[str, Reward]()
        taxed = 0
        if volume:
            assert self.remaining + volume <= self.supply
            worth = self.worth(volume)
            mining = min(TIER_WEI, CAP * worth // (ONE * ONE))
            chain, resource, meta = (Reward(mining * part // 10_000, worth * part // 10_000 // ONE) for part in (CHAIN_BP, RESOURCE_BP, META_BP))
            wallets = [node.beneficiary for node in self.active.values()]
            parts = [(wallet, resource.mining * noz // volume, resource.traffic * ONE * noz // volume) for wallet, noz in volumes]
            parts += [(wallet, meta.mining // len(wallets), meta.traffic * ONE // len(wallets)) for wallet in wallets]
            taxes = 0
            for wallet, mined, gross in parts:
                tax = half_even(gross * TAX, ONE)
                taxes += tax
                reward = paid.setdefault(wallet, Reward())
                reward.mining += mined
                reward.traffic += (gross - tax) // ONE
            taxed = taxes // ONE
            total.mining, total.traffic = (sum(getattr(one, name) for one in paid.values()) for name in ("mining", "traffic"))
            self.move(FOUNDATION, FEES, chain.mining)
            self.move(PREPAID, FEES, chain.traffic)
            self.move(FOUNDATION, REWARDS, total.mining)
            self.move(PREPAID, REWARDS, total.traffic)
            self.fund(PREPAID, taxed)
            total.mining += chain.mining
            total.traffic += chain.traffic + taxed
            self.mined += total.mining
            self.remaining += volume
            self._let_go()
        self.rewards[self.epoch] = paid
        self.totals[self.epoch], self.volumes[self.epoch], self.prices[self.epoch] = total, volume, self.price
        told = {"epoch": str(self.epoch), "reported_noz": str(volume), "paid_noz": str(volume), "community_tax_wei": str(taxed)}
        told |= {"traffic_reward_wei": str(total.traffic), "mining_reward_wei": str(total.mining)}
        return [
            ("stratos.pot.v1.EventVolumeReport", {"epoch": str(self.epoch), "report_reference": reference}),
            ("stratos.pot.v1.EventEpochPaid", told),
        ]

    def withdraw(self, wallet: str, target: str, wei: int) -> list[Event]:
        assert 0 < wei <= self.mature[wallet]
        self.mature[wallet] -= wei
        self.move(REWARDS, target, wei)
        return [("stratos.pot.v1.EventWithdraw", {"amount": f"{wei}wei", "wallet_address": wallet, "target_address": target})]

    def immature(self, wallet: str) -> int:
        return sum(reward.mining + reward.traffic for paid in self.rewards.values() if (reward := paid.get(wallet)))
