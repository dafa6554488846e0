"""What must always hold of settlement."""

from __future__ import annotations

from chain.crypto import address as bech32
from chain.module import Invariant
from chain.store.api import StateReader, prefix_end
from modules.settlement import keys
from modules.settlement.keeper import ACCOUNT, COMMITTED, DENOM, VOID, SettlementKeeper


def account_holds_the_bonds(keeper: SettlementKeeper) -> Invariant:
    """The module's account has the bonds of open challenges and nothing else: nobody can send to it, and what signers lose goes through at once."""

    def check(state: StateReader) -> str | None:
        bonds = sum(int(one.bond_wei) for one in keeper.challenges(state))
        held = keeper.bank.balance(state, bech32.module_address(ACCOUNT), DENOM)
        return None if bonds == held else f"the settlement account holds {held}wei, the bonds of open challenges sum up to {bonds}wei"

    return check


def challenges_are_indexed(keeper: SettlementKeeper) -> Invariant:
    """Each open challenge, and nothing else, waits under its deadline and under its leaf; it is of an epoch that can be voided."""

    def check(state: StateReader) -> str | None:
        deadlines: dict[bytes, None] = {}
        leaves: dict[bytes, bytes] = {}
        for one in keeper.challenges(state):
            kept = keeper.epoch(state, one.epoch)
            if kept is None or kept.status != COMMITTED:
                return f"challenge {one.challenge_id} is of epoch {one.epoch}, which is not kept or void"
            if one.challenge_id >= keeper.next_challenge_id(state):
                return f"challenge {one.challenge_id} has a number that was not given yet"
            deadlines[keys.deadline(one.deadline_height, one.challenge_id)] = None
            leaves[keys.challenged_leaf(one.epoch, one.leaf_index)] = keys.number(one.challenge_id)
        store = state.store(keys.STORE)
        queued = [key for key, _ in store.iterate(keys.DEADLINES, prefix_end(keys.DEADLINES))]
        indexed = list(store.iterate(keys.CHALLENGED_LEAVES, prefix_end(keys.CHALLENGED_LEAVES)))
        if queued == sorted(deadlines) and indexed == sorted(leaves.items()):
            return None
        return f"{len(deadlines)} challenges are open, {len(queued)} wait and {len(indexed)} leaves are marked, or others"

    return check


def epochs_are_whole(keeper: SettlementKeeper) -> Invariant:
    """No commitment is open between blocks; every epoch lies under its number with a status, and its signers have keys."""

    def check(state: StateReader) -> str | None:
        if keeper.is_open(state):
            return "a commitment is open"
        for key, raw in state.store(keys.STORE).iterate(keys.EPOCHS, prefix_end(keys.EPOCHS)):
            kept = keeper.epoch(state, int.from_bytes(key[1:], "big"))
            if kept is None or keys.epoch(kept.epoch) != key or kept.status not in (COMMITTED, VOID):
                return f"what lies under epoch {int.from_bytes(key[1:], 'big')} ({len(raw)} bytes) is another epoch, or has no status"
            for signer in kept.signers:
                if keeper.meta_keys(state, bech32.decode(signer, bech32.NODE)) is None:
                    return f"{signer} signed epoch {kept.epoch} and has no keys"
        return None

    return check


def keys_have_one_holder(keeper: SettlementKeeper) -> Invariant:
    """Each registered key leads to the meta node that has it, and nothing else does."""

    def check(state: StateReader) -> str | None:
        bls: dict[bytes, bytes] = {}
        ledger: dict[bytes, bytes] = {}
        for one in keeper.all_meta_keys(state):
            address = bech32.decode(one.meta_node, bech32.NODE)
            bls[keys.bls_key(bytes(one.bls_pubkey))] = address
            ledger[keys.ledger_key(bytes(one.ledger_consensus_pubkey))] = address
        store = state.store(keys.STORE)
        for what, prefix, expected in (("BLS", keys.BLS_KEYS, bls), ("ledger", keys.LEDGER_KEYS, ledger)):
            if list(store.iterate(prefix, prefix_end(prefix))) != sorted(expected.items()):
                return f"the {what} keys lead to other meta nodes than those that registered them"
        return None

    return check
