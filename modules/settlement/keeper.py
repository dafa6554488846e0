"""Keys, commitments and evidence: what the store holds, and what pot asks for. Fraud is in ``consequences.py``, challenges in ``challenges.py``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from chain.codec.canonical import encode, known
from chain.codec.registry import message_class
from chain.coins import Coin
from chain.context import Context
from chain.crypto import address as bech32
from chain.crypto import bls
from chain.errors import InvariantBroken
from chain.ozone import bounded
from chain.reports import ReportFacts
from chain.store.api import StateReader, StateWriter, prefix_end
from modules.settlement import commitment as commitments
from modules.settlement import events, keys, trees
from modules.settlement.documents import is_ledger_key
from modules.settlement.errors import (
    CommitmentMismatch,
    EpochMatures,
    EpochNotKept,
    EpochVoid,
    InvalidKey,
    InvalidLedgerKey,
    InvalidPossession,
    KeyInUse,
    LedgerKeyFixed,
    NoCommitment,
    NotOwner,
    UnknownMetaNode,
)
from modules.settlement.expected import Bank, CommunityPool, Grant, Pot, PromoMoved, Register
from modules.settlement.params import PACKAGE, Params, default_params

MsgCommitEpoch: Final = message_class(f"{PACKAGE}.MsgCommitEpoch")
MetaKeys: Final = message_class(f"{PACKAGE}.MetaKeys")
CommittedEpoch: Final = message_class(f"{PACKAGE}.CommittedEpoch")
Challenge: Final = message_class(f"{PACKAGE}.Challenge")
PunishedLease: Final = message_class(f"{PACKAGE}.PunishedLease")
COMMITTED, VOID = 1, 2
"""Of EpochStatus; 0 while the report of the epoch is being executed."""
BONDED: Final = 3
"""Of cosmos.staking.v1beta1.BondStatus."""
ACCOUNT: Final = "settlement"
DENOM: Final = "wei"
GAS_PER_BLS_CHECK: Final = 30_000
GAS_PER_WALLET: Final = 100
"""Of a report: its line is hashed."""


class SettlementKeeper:
    """Keys, commitments and evidence."""

    def __init__(self, bank: Bank, community: CommunityPool, register: Register, grant: Grant) -> None:
        self.bank = bank
        self.community = community
        self.register = register
        self.grant = grant
        self._pot: Pot | None = None

    def set_pot(self, pot: Pot) -> None:
        """Who voids an epoch; pot takes this keeper in turn, so it comes after."""
        self._pot = pot

    @property
    def pot(self) -> Pot:
        """Who voids an epoch. Raises InvariantBroken before ``set_pot``."""
        if self._pot is None:
            raise InvariantBroken("settlement was not given pot")
        return self._pot

    def params(self, state: StateReader) -> Any:
        """``stratos.settlement.v1.Params``."""
        raw = state.store(keys.STORE).get(keys.PARAMS)
        return default_params() if raw is None else Params.FromString(raw)

    def set_params(self, state: StateWriter, params: Any) -> None:
        """Write checked parameters."""
        state.store(keys.STORE).set(keys.PARAMS, encode(known(params)))

    # --- keys -----------------------------------------------------------------------------------------------------------------

    def meta_keys(self, state: StateReader, meta_node: bytes) -> Any | None:
        """``MetaKeys`` of a network address (20 bytes), or None."""
        raw = state.store(keys.STORE).get(keys.meta_keys(meta_node))
        return None if raw is None else MetaKeys.FromString(raw)

    def all_meta_keys(self, state: StateReader) -> Iterator[Any]:
        """Every MetaKeys, in the order of addresses."""
        for _, raw in state.store(keys.STORE).iterate(keys.META_KEYS, prefix_end(keys.META_KEYS)):
            yield MetaKeys.FromString(raw)

    def active_keys(self, state: StateReader) -> dict[bytes, bytes]:
        """BLS public key (48 bytes) → network address (20 bytes), of active meta nodes with a registered key."""
        found: dict[bytes, bytes] = {}
        for node in self.register.active_meta_nodes(state):
            address = bech32.decode(node.network_address, bech32.NODE)
            registered = self.meta_keys(state, address)
            if registered is not None:
                found[bytes(registered.bls_pubkey)] = address
        return found

    def register_keys(self, ctx: Context, state: StateWriter, message: Any) -> None:
        """A meta node's first keys, or another BLS key (``MsgRegisterMetaKeys``). Its ledger key stays what it was first.

        Raises UnknownMetaNode (settlement/3), NotOwner (4), InvalidKey (5), InvalidPossession (6), KeyInUse (7), InvalidLedgerKey (8),
        LedgerKeyFixed (9), InvalidAddress (sdk/7).
        """
        address, owner = bech32.decode(message.meta_node, bech32.NODE), bech32.decode(message.owner)
        node = self.register.meta_node(state, address)
        if node is None or node.status != BONDED:
            raise UnknownMetaNode(f"expected a bonded meta node, got {message.meta_node}, which is {'none' if node is None else 'not bonded'}")
        if bech32.decode(node.owner_address) != owner:
            raise NotOwner(f"{message.meta_node} belongs to {node.owner_address}, not to {message.owner}")
        registered = MetaKeys(
            meta_node=bech32.encode(address, bech32.NODE),
            bls_pubkey=message.bls_pubkey,
            proof_of_possession=message.proof_of_possession,
            ledger_consensus_pubkey=message.ledger_consensus_pubkey,
            registered_height=ctx.height,
        )
        before = self.meta_keys(state, address)
        if before is not None and before.ledger_consensus_pubkey != registered.ledger_consensus_pubkey:
            raise LedgerKeyFixed(f"{message.meta_node} has the ledger key {before.ledger_consensus_pubkey.hex()}, which judges what it signed")
        self.add_keys(ctx, state, address, registered)
        events.keys_registered(ctx, registered, message.owner)

    def add_keys(self, ctx: Context, state: StateWriter, address: bytes, registered: Any) -> None:
        """Check and write keys, in place of those the node had. Raises InvalidKey, InvalidPossession, KeyInUse, InvalidLedgerKey (settlement/5 to 8)."""
        store = state.store(keys.STORE)
        key, ledger = bytes(registered.bls_pubkey), bytes(registered.ledger_consensus_pubkey)
        ctx.gas.consume(GAS_PER_BLS_CHECK, "BLS proof of possession")
        if not bls.check_public_key(key):
            raise InvalidKey(
                f"expected a point of G1 in {bls.KEY_BYTES} bytes, in the group and not at infinity, got {len(key)} bytes {key[:48].hex()}"
            )
        if not bls.verify_possession(ctx.chain_id, address, key, bytes(registered.proof_of_possession)):
            raise InvalidPossession(f"the proof does not show that {registered.meta_node} has the secret of its BLS key on chain {ctx.chain_id}")
        if not is_ledger_key(ledger):
            raise InvalidLedgerKey(f"expected an ed25519 public key of 32 bytes in the prime group, got {len(ledger)} bytes {ledger[:32].hex()}")
        for what, place in (("BLS key", keys.bls_key(key)), ("ledger key", keys.ledger_key(ledger))):
            holder = store.get(place)
            if holder is not None and holder != address:
                raise KeyInUse(f"the {what} is that of {bech32.encode(holder, bech32.NODE)}")
        before = self.meta_keys(state, address)
        if before is not None:
            store.delete(keys.bls_key(bytes(before.bls_pubkey)))
            store.delete(keys.ledger_key(bytes(before.ledger_consensus_pubkey)))
        store.set(keys.bls_key(key), address)
        store.set(keys.ledger_key(ledger), address)
        store.set(keys.meta_keys(address), encode(registered))

    # --- a report -------------------------------------------------------------------------------------------------------------

    def open(self, state: StateWriter, message: Any) -> None:
        """Take a checked ``MsgCommitEpoch`` whose report comes next."""
        state.store(keys.STORE).set(keys.OPEN, encode(known(message)))

    def is_open(self, state: StateReader) -> bool:
        """True between a commitment and its report."""
        return state.store(keys.STORE).has(keys.OPEN)

    def close(
        self, ctx: Context, state: StateWriter, epoch: int, owner: bytes, reference: str, volumes: Sequence[tuple[bytes, int]]
    ) -> dict[bytes, int]:
        """Take the open commitment of this transaction and hold it against the report (volumes in noz): promo noz by wallet.

        What expired and what promotion moved is settled inside. A wallet that comes twice has the sum. Raises NoCommitment (settlement/12),
        CommitmentMismatch (13), InvalidRequest (sdk/18) for volumes out of range, and what grant refuses with.
        """
        store = state.store(keys.STORE)
        raw = store.get(keys.OPEN)
        if raw is None:
            raise NoCommitment(f"the report of epoch {epoch} needs its commitment as the message before it in the same transaction")
        store.delete(keys.OPEN)
        message = MsgCommitEpoch.FromString(raw)
        commitment = message.commitment
        expected = (commitment.epoch, bech32.decode(message.reporter_owner), commitments.reference(commitment))
        if (epoch, owner, reference) != expected:
            raise CommitmentMismatch(
                f"the commitment is of epoch {expected[0]}, owner {message.reporter_owner} and reference {expected[2]}, the report of epoch {epoch}, "
                f"owner {bech32.encode(owner)} and reference {reference[:100]}"
            )
        ctx.gas.consume(GAS_PER_WALLET * (len(volumes) + len(commitment.lines)), "lines of an epoch")
        by_wallet: dict[bytes, int] = {}
        for wallet, noz in volumes:
            by_wallet[wallet] = by_wallet.get(wallet, 0) + bounded(noz, "a volume")
        total = bounded(sum(by_wallet.values()), "the sum of volumes")
        lines = commitments.all_lines(commitments.checked_lines(commitment), by_wallet)
        receipts = commitment.roots.receipts_count
        if (receipts == 0) != (total == 0) or receipts > total:
            raise CommitmentMismatch(f"expected from 1 receipt to one for each noz, none only for no noz, got {receipts} receipts for {total} noz")
        promo: dict[bytes, int] = {}
        for line in lines:
            if line.fund == commitments.PROMO:
                promo[line.wallet] = promo.get(line.wallet, 0) + line.noz
        used, expired = sum(promo.values()), commitments.amount_noz(commitment.promo_expired_noz, "promo_expired_noz")
        self.grant.require_sold(state, total - used)
        moved = PromoMoved(*self.grant.use(ctx, state, epoch, used, expired)) if used or expired else PromoMoved()
        self.set_epoch(
            state,
            CommittedEpoch(
                epoch=epoch,
                report_reference=reference,
                roots=commitment.roots,
                lines_root=trees.plain_root([commitments.line_bytes(line) for line in lines]),
                lines_count=len(lines),
                volume_noz=str(total),
                promo_noz=str(used),
                promo_expired_noz=str(expired),
                promo_cost_wei=str(moved.cost_wei),
                promo_returned_wei=str(moved.returned_wei),
                height=ctx.height,
            ),
        )
        return promo

    def keep(self, ctx: Context, state: StateWriter, facts: ReportFacts) -> None:
        """Keep roots and signers of a report that has been paid, until ``facts.maturity_epoch``. Raises NoCommitment (settlement/12) without ``close``."""
        kept = self.epoch(state, facts.epoch)
        if kept is None or kept.status:
            raise NoCommitment(f"the commitment of epoch {facts.epoch} was not closed")
        kept.status = COMMITTED
        kept.reporter = bech32.encode(facts.reporter, bech32.NODE)
        kept.signers.extend(bech32.encode(signer, bech32.NODE) for signer in facts.signers)
        kept.maturity_epoch = facts.maturity_epoch
        self.set_epoch(state, kept)
        events.epoch_committed(ctx, kept)

    def forget(self, ctx: Context, state: StateWriter, epoch: int) -> None:
        """The rewards of ``epoch`` begin to mature: its evidence is dropped, and the bonds of challenges that are still open go back."""
        if self.epoch(state, epoch) is None:
            return
        self.drop_challenges(ctx, state, epoch)
        state.store(keys.STORE).delete(keys.epoch(epoch))

    def epoch(self, state: StateReader, epoch: int) -> Any | None:
        """``CommittedEpoch``, or None if nothing is kept of it."""
        if not 0 < epoch < 1 << 63:
            return None
        raw = state.store(keys.STORE).get(keys.epoch(epoch))
        return None if raw is None else CommittedEpoch.FromString(raw)

    def epochs(self, state: StateReader) -> Iterator[Any]:
        """Every CommittedEpoch, the oldest first."""
        for _, raw in state.store(keys.STORE).iterate(keys.EPOCHS, prefix_end(keys.EPOCHS)):
            yield CommittedEpoch.FromString(raw)

    def set_epoch(self, state: StateWriter, kept: Any) -> None:
        """Write a CommittedEpoch."""
        state.store(keys.STORE).set(keys.epoch(kept.epoch), encode(kept))

    def contestable(self, state: StateReader, epoch: int) -> Any:
        """The CommittedEpoch that a proof may be about. Raises EpochNotKept (settlement/14), EpochVoid (15), EpochMatures (16)."""
        kept = self.epoch(state, epoch)
        if kept is None or not kept.status:
            raise EpochNotKept(f"epoch {epoch} was not committed, or its rewards have matured")
        if kept.status == VOID:
            raise EpochVoid(f"epoch {epoch} is void already")
        if not self.pot.is_maturing(state, epoch):
            raise EpochMatures(f"the rewards of epoch {epoch} have begun to mature")
        return kept

    # --- leases ---------------------------------------------------------------------------------------------------------------

    def is_punished(self, state: StateReader, meta_node: bytes, lease_id: bytes) -> bool:
        """True if a meta node was punished for using a lease twice."""
        return state.store(keys.STORE).has(keys.punished_lease(meta_node, lease_id))

    def punish(self, state: StateWriter, meta_node: bytes, lease_id: bytes) -> None:
        """Remember that a meta node was punished for a lease."""
        lease = PunishedLease(meta_node=bech32.encode(meta_node, bech32.NODE), lease_id=lease_id)
        state.store(keys.STORE).set(keys.punished_lease(meta_node, lease_id), encode(lease))

    def punished_leases(self, state: StateReader) -> Iterator[Any]:
        """Every PunishedLease, in the order of keys."""
        for _, raw in state.store(keys.STORE).iterate(keys.PUNISHED_LEASES, prefix_end(keys.PUNISHED_LEASES)):
            yield PunishedLease.FromString(raw)

    # --- challenges -----------------------------------------------------------------------------------------------------------

    def next_challenge_id(self, state: StateReader) -> int:
        """The number of the next challenge."""
        raw = state.store(keys.STORE).get(keys.NEXT_CHALLENGE)
        return 1 if raw is None else int.from_bytes(raw, "big")

    def set_next_challenge_id(self, state: StateWriter, challenge_id: int) -> None:
        """Write the number of the next challenge."""
        state.store(keys.STORE).set(keys.NEXT_CHALLENGE, keys.number(challenge_id))

    def challenge(self, state: StateReader, challenge_id: int) -> Any | None:
        """An open ``Challenge``, or None."""
        raw = state.store(keys.STORE).get(keys.challenge(challenge_id))
        return None if raw is None else Challenge.FromString(raw)

    def challenges(self, state: StateReader) -> Iterator[Any]:
        """Every open Challenge, the oldest first."""
        for _, raw in state.store(keys.STORE).iterate(keys.CHALLENGES, prefix_end(keys.CHALLENGES)):
            yield Challenge.FromString(raw)

    def challenges_of(self, state: StateReader, epoch: int) -> list[int]:
        """Numbers of the open challenges of an epoch, in the order of leaves; there are at most MAX_CHALLENGES_OF_EPOCH."""
        prefix = keys.challenged_leaves(epoch)
        return [int.from_bytes(raw, "big") for _, raw in state.store(keys.STORE).iterate(prefix, prefix_end(prefix))]

    def is_challenged(self, state: StateReader, epoch: int, leaf_index: int) -> bool:
        """True while a challenge of that leaf is open."""
        return state.store(keys.STORE).has(keys.challenged_leaf(epoch, leaf_index))

    def add_challenge(self, state: StateWriter, challenge: Any) -> None:
        """Write an open challenge and its two index entries."""
        store = state.store(keys.STORE)
        store.set(keys.challenge(challenge.challenge_id), encode(challenge))
        store.set(keys.deadline(challenge.deadline_height, challenge.challenge_id), b"\x01")
        store.set(keys.challenged_leaf(challenge.epoch, challenge.leaf_index), keys.number(challenge.challenge_id))

    def remove_challenge(self, state: StateWriter, challenge: Any) -> None:
        """Remove an open challenge and its two index entries; its bond is the caller's."""
        store = state.store(keys.STORE)
        store.delete(keys.challenge(challenge.challenge_id))
        store.delete(keys.deadline(challenge.deadline_height, challenge.challenge_id))
        store.delete(keys.challenged_leaf(challenge.epoch, challenge.leaf_index))

    def drop_challenges(self, ctx: Context, state: StateWriter, epoch: int) -> None:
        """Every open challenge of an epoch ends without an answer; the challengers have their bonds back."""
        for challenge_id in self.challenges_of(state, epoch):
            challenge = self.challenge(state, challenge_id)
            if challenge is None:
                raise InvariantBroken(f"challenge {challenge_id} of epoch {epoch} is indexed and not there")
            self.remove_challenge(state, challenge)
            self.pay(ctx, state, bech32.decode(challenge.challenger), int(challenge.bond_wei))
            events.answered(ctx, challenge_id, challenge.challenger, int(challenge.bond_wei))

    def pay(self, ctx: Context, state: StateWriter, recipient: bytes, amount_wei: int) -> None:
        """From the module's account. What may not receive (an account that became a module's since) leaves it to the community pool."""
        if amount_wei <= 0:
            return
        amount = (Coin(DENOM, amount_wei),)
        if self.bank.is_blocked(recipient):
            self.community.fund_community_pool(ctx, state, amount, bech32.module_address(ACCOUNT))
        else:
            self.bank.send_from_module(ctx, state, ACCOUNT, recipient, amount)
