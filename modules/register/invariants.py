"""What always holds of register's state, whatever happened."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from chain.codec.times import ns_of
from chain.crypto import address as bech32
from chain.module import Invariant
from chain.store.api import StateReader, prefix_end
from modules.register import keys, records
from modules.register.keeper import RegisterKeeper
from modules.register.records import BONDED, UNBONDING, bonded_pool, is_active, is_meta, not_bonded_pool


def invariants(keeper: RegisterKeeper) -> Mapping[str, Invariant]:
    """The module's invariants over ``keeper``."""

    def nodes(state: StateReader) -> Iterator[Any]:
        yield from keeper.resource_nodes(state)
        yield from keeper.meta_nodes(state)

    def deposits_add_up(state: StateReader) -> str | None:
        counted = lingering = 0
        for node in nodes(state):
            one = keeper.counted_wei(state, records.address_of(node))
            if one > int(node.tokens):
                return f"{one} wei of {node.network_address} count, of a deposit of {node.tokens} wei"
            counted += one
            lingering += one - records.at_work_wei(node)
        pending, total = keeper.number(state, keys.PENDING_WEI), keeper.number(state, keys.DEPOSIT_WEI)
        if counted + pending != total:
            return f"S is {total} wei, nodes count for {counted} and {pending} are pending"
        if lingering != keeper.number(state, keys.LINGERING_WEI):
            return f"{lingering} wei count without being at work, {keeper.number(state, keys.LINGERING_WEI)} by their sum"
        return None

    def limit_is_within_supply(state: StateReader) -> str | None:
        pool = keeper.ozone(state)
        if pool.pending_noz and pool.remaining_noz:
            return f"{pool.remaining_noz} noz remain while {pool.pending_noz} noz are pending"
        if pool.solvency and pool.outstanding_noz < 0:
            return f"{pool.remaining_noz} noz remain of a supply of {pool.supply_noz} noz"
        return None

    def pools_hold_the_deposits(state: StateReader) -> str | None:
        wanted = dict.fromkeys(records.POOLS, 0)
        for node in nodes(state):
            tokens = int(node.tokens)
            bonded = tokens - keeper.unbonding_wei(state, records.address_of(node)) if node.status == BONDED else 0
            wanted[bonded_pool(node)] += bonded
            wanted[not_bonded_pool(node)] += tokens - bonded
        for name, held in keeper.deposits_wei(state).items():
            if held != wanted[name]:
                return f"{name} holds {held} wei, the nodes' deposits in it are {wanted[name]} wei"
        return None

    def nodes_are_counted(state: StateReader) -> str | None:
        counts = {keys.BONDED_RESOURCE_NODES: 0, keys.BONDED_META_NODES: 0}
        active = []
        for node in nodes(state):
            if node.status == BONDED:
                counts[keys.BONDED_META_NODES if is_meta(node) else keys.BONDED_RESOURCE_NODES] += 1
            if is_meta(node) and is_active(node):
                active.append(records.address_of(node))
        for key, count in counts.items():
            if count != keeper.number(state, key):
                return f"{count} nodes are bonded, {keeper.number(state, key)} by the count {key.hex()}"
        return None if active == keeper.active_addresses(state) else "the index of active meta nodes is not theirs"

    def indexes_agree(state: StateReader) -> str | None:
        expected: dict[bytes, bytes] = {}
        for node in nodes(state):
            owner, address = bech32.decode(node.owner_address), records.address_of(node)
            expected[keys.node_of(owner, keys.META if is_meta(node) else keys.RESOURCE, address)] = b""
            if not keeper.counted_wei(state, address):
                continue
            key = keys.owner_for(bech32.decode(node.beneficiary_address), owner)
            expected[key] = (int.from_bytes(expected.get(key, b""), "big") + 1).to_bytes(8, "big")
        first, last = keys.nodes_of(b"")[:1], keys.owners_for(b"")[:1]
        found = dict(state.store(keys.STORE).iterate(first, prefix_end(last)))
        return None if found == expected else "the indexes of owners and beneficiaries are not those of the nodes"

    def queue_is_what_leaves(state: StateReader) -> str | None:
        expected: dict[bytes, list[bytes]] = {}
        total = 0
        for record in keeper.unbondings(state):
            address = bech32.decode(record.network_addr, bech32.NODE)
            node = keeper.node(state, address)
            leaving = sum(int(entry.balance) for entry in record.entries)
            if node is None or leaving > int(node.tokens) or (node.status == UNBONDING and leaving != int(node.tokens)):
                return f"{leaving} wei are leaving of {record.network_addr}, which is not so"
            total += leaving
            for entry in record.entries:
                slot = expected.setdefault(keys.queue(ns_of(entry.completion_time)), [])
                if address not in slot:
                    slot.append(address)
        for node in nodes(state):
            if node.status == UNBONDING and keeper.unbonding(state, records.address_of(node)) is None:
                return f"{node.network_address} is leaving without an entry"
        if total != keeper.number(state, keys.LEAVING_WEI):
            return f"{total} wei are leaving, {keeper.number(state, keys.LEAVING_WEI)} by their sum"
        if dict(keeper.queued(state)) != expected:
            return "the queue is not that of the entries"
        return None

    def records_expire(state: StateReader) -> str | None:
        expected = []
        for vote in keeper.registrations(state):
            expected.append(keys.expiry(ns_of(vote.expire_time), keys.registration(bech32.decode(vote.network_address, bech32.NODE))))
        for vote in keeper.kick_votes(state):
            expected.append(keys.expiry(ns_of(vote.expire_time), keys.kick(bech32.decode(vote.target_network_address, bech32.NODE))))
        for record in keeper.all_approvals(state):
            key = keys.approvals(bech32.decode(record.network_address, bech32.NODE), int(record.effective_tokens_wei))
            expected.append(keys.expiry(ns_of(record.expire_time), key))
        return None if sorted(expected) == list(keeper.expiries(state)) else "the index of what expires is not that of votes and approvals"

    def debts_are_positive(state: StateReader) -> str | None:
        for wallet, debt in keeper.debts(state):
            if debt <= 0:
                return f"{bech32.encode(wallet)} owes {debt} wei"
        return None

    return {
        "deposits add up": deposits_add_up,
        "the limit is within the supply": limit_is_within_supply,
        "pools hold the deposits": pools_hold_the_deposits,
        "nodes are counted": nodes_are_counted,
        "indexes agree": indexes_agree,
        "the queue is what leaves": queue_is_what_leaves,
        "votes and approvals expire": records_expire,
        "debts are positive": debts_are_positive,
    }
