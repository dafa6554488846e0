"""Meta nodes slash and suspend a resource node together (stratos-chain.md 4.6; storage-protocol.md 1.8).

approvals of identical content ─► quorum ─► deposit ─► community pool
                                            rest ─► debt of the owner
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from chain.codec.times import NANOS, ns_of, set_ns
from chain.context import Context
from chain.crypto import address as bech32
from chain.errors import NotFound, wrapped
from chain.ozone import bounded
from chain.quorum import quorum
from chain.store.api import StateReader, StateWriter
from modules.pot import events, keys
from modules.pot.errors import AlreadyApproved, NotTheOwner, ReporterAddressOrOwner, SlashingResourceNodeFailure
from modules.pot.maturity import coins
from modules.pot.records import NAME, POT_ADDRESS, Approvals, packed, unpacked
from modules.pot.reports import Reports
from modules.pot.rewards import slash_value_wei

APPROVAL_S: Final = 3600
"""How long approvals of one content gather, from the first one on."""
SMALLEST_QUORUM: Final = 2
MAX_EXPIRED_PER_BLOCK: Final = 100


@dataclass(frozen=True, slots=True)
class Slash:
    """What is to be approved: a resource node (network address), its owner, noz, and whether it shall be suspended afterwards."""

    node: bytes
    wallet: bytes
    noz: int
    suspend: bool

    @property
    def content(self) -> bytes:
        """SHA-256 of all but the node, 32 bytes."""
        return hashlib.sha256(b"%d %d " % (self.noz, self.suspend) + self.wallet).digest()


class Slashing(Reports):
    """Gathers approvals and slashes."""

    def approve_slashing(self, ctx: Context, state: StateWriter, slash: Slash, approvers: Sequence[tuple[bytes, bytes]]) -> None:
        """Add approvals by (meta node, its owner), and slash once they are a quorum of the meta nodes that may vote.

        Those of the accused, the node's owner, have no vote and do not count. Raises SlashingResourceNodeFailure (pot/31) for a node that there is
        not, NotTheOwner (106), ReporterAddressOrOwner (33) for who has no vote, AlreadyApproved (107).
        """
        node = self._accused(state, slash)
        voters = self._voters(state, slash)
        if len(voters) < SMALLEST_QUORUM:
            raise ReporterAddressOrOwner(f"{len(voters)} meta nodes may vote on this node: with fewer than {SMALLEST_QUORUM} governance decides")
        pool = self._open_approvals(ctx, state, slash)
        needed = max(SMALLEST_QUORUM, quorum(len(voters)))
        approved = list(pool.approvers)
        for reporter, owner in approvers:
            text = bech32.encode(reporter, bech32.NODE)
            if voters.get(text) != bech32.encode(owner):
                raise ReporterAddressOrOwner(
                    f"expected an active meta node with its owner, not one of the accused, got {text} and {bech32.encode(owner)}"
                )
            if text in approved:
                raise AlreadyApproved(text)
            approved.append(text)
        # Who approved and has no vote any more does not count, but comes back with it.
        counted = [text for text in approved if text in voters]
        names = bech32.encode(slash.node, bech32.NODE), bech32.encode(slash.wallet)
        for text in approved[len(pool.approvers) :]:
            events.slashing_approved(ctx, *names, slash.noz, slash.suspend, text, len(counted), needed)
        if len(counted) < needed:
            del pool.approvers[:]
            pool.approvers.extend(approved)
            self.set_approvals(state, slash, pool)
            return
        self._forget_approvals(state, slash, pool)
        self._slash(ctx, state, slash, node)

    def slash_by_governance(self, ctx: Context, state: StateWriter, slash: Slash) -> None:
        """Slash by a proposal that passed, where fewer than two meta nodes may vote. Raises as ``approve_slashing``."""
        node = self._accused(state, slash)
        voters = self._voters(state, slash)
        if len(voters) >= SMALLEST_QUORUM:
            raise ReporterAddressOrOwner(
                f"{len(voters)} meta nodes may vote on this node, and decide: governance does with fewer than {SMALLEST_QUORUM}"
            )
        self._slash(ctx, state, slash, node)

    def _accused(self, state: StateReader, slash: Slash) -> Any:
        with wrapped(SlashingResourceNodeFailure):
            node = self.register.resource_node(state, slash.node)
            if node is None:
                raise NotFound(f"resource node {bech32.encode(slash.node, bech32.NODE)}")
        if node.owner_address != bech32.encode(slash.wallet):
            raise NotTheOwner(f"expected {node.owner_address}, got {bech32.encode(slash.wallet)}")
        return node

    def _voters(self, state: StateReader, slash: Slash) -> dict[str, str]:
        """Network address → owner of the active meta nodes that are not the accused's."""
        accused = bech32.encode(slash.wallet)
        active = self.register.active_meta_nodes(state)
        return {node.network_address: node.owner_address for node in active if node.owner_address != accused}

    def _slash(self, ctx: Context, state: StateWriter, slash: Slash, node: Any) -> None:
        """The deposit first; what it does not cover is the owner's debt."""
        with wrapped(SlashingResourceNodeFailure):
            value_wei = slash_value_wei(self.register.ozone(state), slash.noz) if slash.noz else 0
            if value_wei:
                bounded(self.register.debt_wei(state, slash.wallet) + value_wei, "a debt")
                taken_wei = self.register.slash_deposit(ctx, state, slash.node, value_wei, NAME)
                if taken_wei:
                    self.community.fund_community_pool(ctx, state, coins(taken_wei), POT_ADDRESS)
                if taken_wei < value_wei:
                    self.register.add_debt(ctx, state, slash.wallet, value_wei - taken_wei)
            self.register.set_suspended(ctx, state, slash.node, slash.suspend)
        names = bech32.encode(slash.node, bech32.NODE), bech32.encode(slash.wallet)
        events.slashed(ctx, *names, value_wei, int(node.node_type), slash.suspend)

    # --- approvals ------------------------------------------------------------------------------------------------------------

    def _open_approvals(self, ctx: Context, state: StateWriter, slash: Slash) -> Any:
        """Approvals of the same content that have not expired, or new ones."""
        raw = state.store(keys.STORE).get(keys.approvals(slash.node, slash.content))
        if raw is not None:
            pool = unpacked(Approvals, raw)
            if ctx.time_ns < ns_of(pool.expire_time):
                return pool
            self._forget_approvals(state, slash, pool)
        pool = Approvals(
            network_address=bech32.encode(slash.node, bech32.NODE),
            wallet_address=bech32.encode(slash.wallet),
            slashing_noz=str(slash.noz),
            suspend=slash.suspend,
        )
        set_ns(pool.expire_time, ctx.time_ns + APPROVAL_S * NANOS)
        return pool

    def set_approvals(self, state: StateWriter, slash: Slash, pool: Any) -> None:
        """Write a SlashingApprovals and when it ends."""
        store = state.store(keys.STORE)
        store.set(keys.approvals(slash.node, slash.content), packed(pool))
        store.set(keys.expiry(ns_of(pool.expire_time), slash.node, slash.content), b"")

    @staticmethod
    def _forget_approvals(state: StateWriter, slash: Slash, pool: Any) -> None:
        store = state.store(keys.STORE)
        store.delete(keys.approvals(slash.node, slash.content))
        store.delete(keys.expiry(ns_of(pool.expire_time), slash.node, slash.content))

    def expire_approvals(self, ctx: Context, state: StateWriter) -> None:
        """End of a block: remove approvals whose time is over, at most MAX_EXPIRED_PER_BLOCK, the oldest first."""
        store = state.store(keys.STORE)
        for key, _ in list(islice(store.iterate(keys.EXPIRIES, keys.expiry(ctx.time_ns + 1)), MAX_EXPIRED_PER_BLOCK)):
            store.delete(key)
            store.delete(keys.expiring(key))


def slash_of(pool: Any) -> Slash:
    """The content of a SlashingApprovals. Raises InvalidAddress (sdk/7)."""
    return Slash(bech32.decode(pool.network_address, bech32.NODE), bech32.decode(pool.wallet_address), int(pool.slashing_noz), pool.suspend)
