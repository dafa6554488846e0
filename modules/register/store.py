"""What register reads and writes: every index, count and sum follows from the record that is saved here, and from nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

from chain.codec.canonical import encode
from chain.codec.times import ns_of
from chain.crypto import address as bech32
from chain.dec import Dec, from_wire
from chain.errors import InvariantBroken
from chain.ozone import DEFAULT_RATE, MAX_AMOUNT, Ozone
from chain.store.api import KVReader, StateReader, StateWriter, prefix_end
from modules.register import keys, records
from modules.register.deposits import NodeDeposit
from modules.register.expected import Bank
from modules.register.records import BONDED, MetaNode, ResourceNode, is_active, is_meta

MAX_BENEFICIARY_OWNERS: Final = 100
"""Owners whose debts one payment to a beneficiary is held against."""
_COUNT_BYTES: Final = 8
_PREPAY: Final = bech32.module_address(records.PREPAY)


class RegisterStore:
    """Records and numbers of the store ``register``."""

    def __init__(self, bank: Bank) -> None:
        self.bank = bank

    # --- numbers ----------------------------------------------------------------------------------------------------------------

    def params(self, state: StateReader) -> Any:
        """``stratos.register.v1.Params``."""
        return records.Params.FromString(_store(state).get(keys.PARAMS) or b"")

    def set_params(self, state: StateWriter, params: Any) -> None:
        state.store(keys.STORE).set(keys.PARAMS, encode(params))

    def denom(self, state: StateReader) -> str:
        """Denom of every deposit."""
        return str(self.params(state).bond_denom)

    def number(self, state: StateReader, key: bytes) -> int:
        """One of the Ints in ``keys``; 0 if there is none."""
        raw = _store(state).get(key)
        return 0 if raw is None else int(records.unpack(records.Int, raw).Value or "0")

    def set_number(self, state: StateWriter, key: bytes, value: int) -> None:
        state.store(keys.STORE).set(key, records.pack(records.Int(Value=str(value))))

    def add_number(self, state: StateWriter, key: bytes, change: int) -> None:
        """Raises InvariantBroken where a count or a sum would fall below zero."""
        if not change:
            return
        value = self.number(state, key) + change
        if value < 0:
            raise InvariantBroken(f"register: the number {key.hex()} would be {value}")
        self.set_number(state, key, value)

    def rate(self, state: StateReader) -> Dec:
        """wei of a deposit per noz."""
        raw = _store(state).get(keys.RATE)
        return DEFAULT_RATE if raw is None else from_wire(records.unpack(records.Dec, raw).Value)

    def set_rate(self, state: StateWriter, rate: Dec) -> None:
        state.store(keys.STORE).set(keys.RATE, records.pack(records.Dec(Value=str(rate.scaled))))

    def ozone(self, state: StateReader) -> Ozone:
        """S, Lt, Pt, rate, what is pending, and whether the solvency rules are on.

        Without them pending wei are not given, as nothing takes them then: they stay in S.
        """
        params = self.params(state)
        return Ozone(
            deposit_wei=self.number(state, keys.DEPOSIT_WEI),
            remaining_noz=self.number(state, keys.REMAINING_NOZ),
            prepaid_wei=min(self.bank.balance(state, _PREPAY, params.bond_denom), MAX_AMOUNT),
            rate=self.rate(state),
            pending_wei=self.number(state, keys.PENDING_WEI) if params.solvency_rules else 0,
            solvency=params.solvency_rules,
            pending_noz=self.number(state, keys.PENDING_NOZ),
        )

    def set_ozone(self, state: StateWriter, before: Ozone, after: Ozone, counted_change_wei: int = 0) -> None:
        """Write S, Lt and what is pending. What S has beyond what nodes count for is pending, by the rules on as by those off."""
        self.add_number(state, keys.PENDING_WEI, after.deposit_wei - before.deposit_wei - counted_change_wei)
        for key, old, new in (
            (keys.DEPOSIT_WEI, before.deposit_wei, after.deposit_wei),
            (keys.REMAINING_NOZ, before.remaining_noz, after.remaining_noz),
            (keys.PENDING_NOZ, before.pending_noz, after.pending_noz),
        ):
            if old != new:
                self.set_number(state, key, new)

    # --- nodes ------------------------------------------------------------------------------------------------------------------

    def resource_node(self, state: StateReader, address: bytes) -> Any | None:
        """``stratos.register.v1.ResourceNode`` of a network address (20 bytes), or None."""
        return _record(state, keys.resource_node(address), ResourceNode)

    def meta_node(self, state: StateReader, address: bytes) -> Any | None:
        """``stratos.register.v1.MetaNode`` of a network address (20 bytes), or None."""
        return _record(state, keys.meta_node(address), MetaNode)

    def node(self, state: StateReader, address: bytes) -> Any | None:
        """The resource node or the meta node of an address: it is never both."""
        found = self.resource_node(state, address)
        return self.meta_node(state, address) if found is None else found

    def resource_nodes(self, state: StateReader) -> Iterator[Any]:
        """Every ResourceNode, in the order of addresses."""
        return _all(state, keys.RESOURCE_NODES, ResourceNode)

    def meta_nodes(self, state: StateReader) -> Iterator[Any]:
        """Every MetaNode, in the order of addresses."""
        return _all(state, keys.META_NODES, MetaNode)

    def active_addresses(self, state: StateReader) -> list[bytes]:
        """Network addresses of the meta nodes that are bonded and not suspended, in order: the n of every quorum."""
        return [key[1:] for key, _ in _store(state).iterate(keys.ACTIVE_META_NODES, prefix_end(keys.ACTIVE_META_NODES))]

    def active_meta_nodes(self, state: StateReader) -> list[Any]:
        """Those that are bonded and not suspended, in the order of addresses: the n of every quorum."""
        return [node for node in (self.meta_node(state, address) for address in self.active_addresses(state)) if node is not None]

    def counted_wei(self, state: StateReader, address: bytes) -> int:
        """What of a node's deposit is in S."""
        return self.number(state, keys.counted(address))

    def deposit(self, state: StateReader, node: Any) -> NodeDeposit:
        """A stored node's deposit for the arithmetic. A meta node works with all of it."""
        address = records.address_of(node)
        counted, tokens = self.counted_wei(state, address), int(node.tokens)
        effective = records.at_work_wei(node) if is_meta(node) else int(node.effective_tokens)
        return NodeDeposit(tokens, self.unbonding_wei(state, address), effective, counted)

    def save(self, state: StateWriter, node: Any, counted_wei: int) -> None:
        """Write a node and all that follows from it."""
        self._replace(state, records.address_of(node), node, counted_wei)

    def drop(self, state: StateWriter, node: Any) -> None:
        """Remove a node with its votes, approvals and what is unbonding of it. It counts for nothing in S any more: the caller has taken that out."""
        address = records.address_of(node)
        self._replace(state, address, None, 0)
        record = self.unbonding(state, address)
        for entry in record.entries if record is not None else ():
            self._dequeue(state, address, ns_of(entry.completion_time))
        self.set_unbonding(state, address, None)
        for vote in (keys.registration(address), keys.kick(address)):
            self.delete_record(state, vote)
        self.drop_approvals(state, address)

    def _replace(self, state: StateWriter, address: bytes, node: Any | None, counted_wei: int) -> None:
        store, old = state.store(keys.STORE), self.node(state, address)
        old_counted = self.counted_wei(state, address)
        lingering = counted_wei - (records.at_work_wei(node) if node is not None else 0)
        self.add_number(state, keys.LINGERING_WEI, lingering - (old_counted - (records.at_work_wei(old) if old is not None else 0)))
        if counted_wei == 0:
            store.delete(keys.counted(address))
        elif counted_wei != old_counted:
            self.set_number(state, keys.counted(address), counted_wei)
        self._count(state, old, -1)
        self._count(state, node, 1)
        one = node if node is not None else old
        if one is None:
            return
        kind, key = (keys.META, keys.meta_node(address)) if is_meta(one) else (keys.RESOURCE, keys.resource_node(address))
        owner = bech32.decode(one.owner_address)
        if node is None:
            store.delete(key)
            store.delete(keys.node_of(owner, kind, address))
        else:
            store.set(key, records.pack(node))
            if old is None:
                store.set(keys.node_of(owner, kind, address), b"")
        # A node that nobody has put to work earns its beneficiary nothing, and costs him nothing: anybody may name anybody as one.
        before = old.beneficiary_address if old is not None and old_counted else ""
        after = node.beneficiary_address if node is not None and counted_wei else ""
        if before != after:
            self._count_beneficiary(state, before, owner, -1)
            self._count_beneficiary(state, after, owner, 1)
        was_active, active = (each is not None and is_meta(each) and is_active(each) for each in (old, node))
        if active and not was_active:
            store.set(keys.active_meta_node(address), b"")
        elif was_active and not active:
            store.delete(keys.active_meta_node(address))

    def _count(self, state: StateWriter, node: Any | None, change: int) -> None:
        if node is not None and node.status == BONDED:
            self.add_number(state, keys.BONDED_META_NODES if is_meta(node) else keys.BONDED_RESOURCE_NODES, change)

    def _count_beneficiary(self, state: StateWriter, beneficiary: str, owner: bytes, change: int) -> None:
        if not beneficiary:
            return
        store, key = state.store(keys.STORE), keys.owner_for(bech32.decode(beneficiary), owner)
        count = int.from_bytes(store.get(key) or b"", "big") + change
        if count:
            store.set(key, count.to_bytes(_COUNT_BYTES, "big"))
        else:
            store.delete(key)

    def owners_for(self, state: StateReader, beneficiary: bytes) -> Iterator[tuple[bytes, int]]:
        """(owner, how many of his nodes) of whose nodes that count in S an account is the beneficiary, in the order of addresses."""
        prefix = keys.owners_for(beneficiary)
        for key, raw in _store(state).iterate(prefix, prefix_end(prefix)):
            yield key[len(prefix) :], int.from_bytes(raw, "big")

    # --- what is leaving --------------------------------------------------------------------------------------------------------

    def unbonding(self, state: StateReader, address: bytes) -> Any | None:
        """UnbondingNode of a network address, or None."""
        return _record(state, keys.unbonding(address), records.UnbondingNode)

    def unbondings(self, state: StateReader) -> Iterator[Any]:
        """Every UnbondingNode, in the order of addresses."""
        return _all(state, keys.UNBONDINGS, records.UnbondingNode)

    def unbonding_wei(self, state: StateReader, address: bytes) -> int:
        """What of a node's deposit is leaving."""
        return _balance(self.unbonding(state, address))

    def set_unbonding(self, state: StateWriter, address: bytes, record: Any | None) -> None:
        """Write, or remove, the entries of a node. The queue is the caller's."""
        store, old = state.store(keys.STORE), self.unbonding(state, address)
        self.add_number(state, keys.LEAVING_WEI, _balance(record) - _balance(old))
        if record is not None:
            store.set(keys.unbonding(address), records.pack(record))
        elif old is not None:
            store.delete(keys.unbonding(address))

    def enqueue(self, state: StateWriter, address: bytes, time_ns: int) -> None:
        """Have a node looked at once a time has come."""
        key = keys.queue(time_ns)
        listed = self._slot(state, key)
        if address not in listed:
            self._set_slot(state, key, sorted([*listed, address]))

    def _dequeue(self, state: StateWriter, address: bytes, time_ns: int) -> None:
        key = keys.queue(time_ns)
        listed = self._slot(state, key)
        if address in listed:
            self._set_slot(state, key, [one for one in listed if one != address])

    def due(self, state: StateWriter, time_ns: int, limit: int) -> list[bytes]:
        """Take at most ``limit`` nodes from the queue whose time has come, the earliest first."""
        taken: list[bytes] = []
        slots = [key for key, _ in islice(_store(state).iterate(keys.QUEUE, keys.queue_end(time_ns)), limit)]
        for key in slots:
            listed = self._slot(state, key)
            count = limit - len(taken)
            taken += listed[:count]
            self._set_slot(state, key, listed[count:])
            if len(taken) == limit:
                break
        return taken

    def _slot(self, state: StateReader, key: bytes) -> list[bytes]:
        raw = _store(state).get(key)
        if raw is None:
            return []
        return [bech32.decode(text, bech32.NODE) for text in records.unpack(records.SdsAddresses, raw).Addresses]

    def _set_slot(self, state: StateWriter, key: bytes, listed: list[bytes]) -> None:
        if listed:
            state.store(keys.STORE).set(key, records.pack(records.SdsAddresses(Addresses=map(records.text_of, listed))))
        else:
            state.store(keys.STORE).delete(key)

    def queued(self, state: StateReader) -> Iterator[tuple[bytes, list[bytes]]]:
        """(key, nodes) of every slot of the queue, the earliest first."""
        for key, _ in _store(state).iterate(keys.QUEUE, prefix_end(keys.QUEUE)):
            yield key, self._slot(state, key)

    # --- votes and approvals ----------------------------------------------------------------------------------------------------

    def registration(self, state: StateReader, address: bytes) -> Any | None:
        """The registration vote on a candidate (network address), or None."""
        return _record(state, keys.registration(address), records.RegistrationPool)

    def registrations(self, state: StateReader) -> Iterator[Any]:
        return _all(state, keys.REGISTRATIONS, records.RegistrationPool)

    def kick_vote(self, state: StateReader, address: bytes) -> Any | None:
        """The vote to kick a meta node (network address), or None."""
        return _record(state, keys.kick(address), records.KickPool)

    def kick_votes(self, state: StateReader) -> Iterator[Any]:
        return _all(state, keys.KICKS, records.KickPool)

    def approvals(self, state: StateReader, address: bytes, effective_wei: int) -> Any | None:
        """Approvals so far of an effective deposit of a node, or None."""
        return _record(state, keys.approvals(address, effective_wei), records.Approvals)

    def approvals_for(self, state: StateReader, address: bytes, limit: int | None = None) -> list[Any]:
        """Approvals of every amount for a node, or of the ``limit`` smallest."""
        return list(islice(_all(state, keys.approvals_for(address), records.Approvals), limit))

    def all_approvals(self, state: StateReader) -> Iterator[Any]:
        return _all(state, keys.APPROVALS, records.Approvals)

    def set_record(self, state: StateWriter, key: bytes, record: Any) -> None:
        """Write a vote or approvals, which go when their ``expire_time`` is over."""
        store = state.store(keys.STORE)
        if not store.has(key):
            store.set(keys.expiry(ns_of(record.expire_time), key), b"")
        store.set(key, records.pack(record))

    def delete_record(self, state: StateWriter, key: bytes) -> None:
        """Remove a vote or approvals, if they are there."""
        store = state.store(keys.STORE)
        record = _record(state, key, _EXPIRING[key[:1]])
        if record is not None:
            store.delete(keys.expiry(ns_of(record.expire_time), key))
            store.delete(key)

    def drop_approvals(self, state: StateWriter, address: bytes) -> None:
        """Remove the first approvals of a node that leaves; any beyond a hundred go with their hour."""
        prefix = keys.approvals_for(address)
        for key in [key for key, _ in islice(_store(state).iterate(prefix, prefix_end(prefix)), 100)]:
            self.delete_record(state, key)

    def expired(self, state: StateReader, time_ns: int, limit: int) -> list[bytes]:
        """Keys of at most ``limit`` votes and approvals whose time was over before ``time_ns``, the earliest first."""
        return [keys.expiring(key) for key, _ in islice(_store(state).iterate(keys.EXPIRIES, keys.expiries_before(time_ns)), limit)]

    def expiries(self, state: StateReader) -> Iterator[bytes]:
        """Every key of the index of what expires."""
        for key, _ in _store(state).iterate(keys.EXPIRIES, prefix_end(keys.EXPIRIES)):
            yield key

    # --- debts ------------------------------------------------------------------------------------------------------------------

    def debt_wei(self, state: StateReader, wallet: bytes) -> int:
        """What an account owes for slashing."""
        return self.number(state, keys.debt(wallet))

    def debts(self, state: StateReader) -> Iterator[tuple[bytes, int]]:
        """(account, debt in wei) of every debtor, in the order of addresses."""
        for key, raw in _store(state).iterate(keys.DEBTS, prefix_end(keys.DEBTS)):
            yield key[1:], int(records.unpack(records.Int, raw).Value)

    def set_debt(self, state: StateWriter, wallet: bytes, amount_wei: int) -> None:
        if amount_wei:
            self.set_number(state, keys.debt(wallet), amount_wei)
        else:
            state.store(keys.STORE).delete(keys.debt(wallet))


_EXPIRING: Final = {keys.REGISTRATIONS: records.RegistrationPool, keys.KICKS: records.KickPool, keys.APPROVALS: records.Approvals}


def _store(state: StateReader) -> KVReader:
    return state.store(keys.STORE)


def _record(state: StateReader, key: bytes, kind: Any) -> Any | None:
    raw = _store(state).get(key)
    return None if raw is None else records.unpack(kind, raw)


def _all(state: StateReader, prefix: bytes, kind: Any) -> Iterator[Any]:
    for _, raw in _store(state).iterate(prefix, prefix_end(prefix)):
        yield records.unpack(kind, raw)


def _balance(record: Any | None) -> int:
    return 0 if record is None else sum(int(entry.balance) for entry in record.entries)
