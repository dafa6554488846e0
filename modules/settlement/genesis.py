"""settlement's section of app_state: ``stratos.settlement.v1.GenesisState`` as proto JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from chain.codec.json import from_json, to_json
from chain.codec.registry import message_class
from chain.coins import parse_wire_int
from chain.context import Context
from chain.crypto import address as bech32
from chain.crypto import bls
from chain.errors import AppError
from chain.module import GenesisError, Json, ValidatorUpdate
from chain.ozone import MAX_AMOUNT
from chain.quorum import quorum
from chain.reports import REFERENCE_PREFIX
from chain.store.api import StateReader, StateWriter
from modules.settlement import commitment, trees
from modules.settlement.challenges import MAX_CHALLENGES_OF_EPOCH
from modules.settlement.commitment import node_of
from modules.settlement.documents import is_ledger_key
from modules.settlement.keeper import BONDED, COMMITTED, VOID, SettlementKeeper
from modules.settlement.params import PACKAGE, check_params, default_params

GenesisState: Final = message_class(f"{PACKAGE}.GenesisState")
PATH: Final = "app_state.settlement"
MAX_HEIGHT: Final = 1 << 62
_BONDED: Final = "BOND_STATUS_BONDED"
_REFERENCE_CHARACTERS: Final = 67
_AMOUNTS: Final = ("volume_noz", "promo_noz", "promo_expired_noz", "promo_cost_wei", "promo_returned_wei")


class SettlementGenesis:
    """Default, check, load and export."""

    def __init__(self, keeper: SettlementKeeper) -> None:
        self._keeper = keeper

    def default(self) -> Json:
        return to_json(GenesisState(params=default_params(), next_challenge_id=1))

    def validate(self, section: Json) -> None:
        _read(section)

    def warnings(self, app_state: Json) -> list[str]:
        """What a valid file should be looked at for: that no report is possible, since too few of register's meta nodes have keys."""
        nodes = [one for one in (app_state.get("register") or {}).get("meta_nodes") or () if isinstance(one, dict)]
        active = [one.get("network_address") for one in nodes if one.get("status") in (_BONDED, BONDED) and not one.get("suspend")]
        listed = {one.meta_node: one for one in _read(app_state["settlement"]).meta_keys}
        with_keys, needed = sum(1 for one in active if one in listed), quorum(len(active))
        if with_keys >= needed:
            return []
        return [f"no volume report is possible: {with_keys} of {len(active)} active meta nodes have registered keys, a report needs {needed}"]

    def load(self, ctx: Context, state: StateWriter, section: Json) -> Sequence[ValidatorUpdate]:
        genesis = _read(section)
        self._keeper.set_params(state, genesis.params)
        self._keeper.set_next_challenge_id(state, max(genesis.next_challenge_id, 1))
        for at, registered in enumerate(genesis.meta_keys):
            try:
                self._keeper.add_keys(ctx, state, bech32.decode(registered.meta_node, bech32.NODE), registered)
            except AppError as error:
                raise GenesisError(f"{PATH}.meta_keys[{at}]", f"{error}; an entry that is left out can be registered by a message") from None
        for kept in genesis.epochs:
            self._keeper.set_epoch(state, kept)
        for challenge in genesis.challenges:
            self._keeper.add_challenge(state, challenge)
        for lease in genesis.punished_leases:
            self._keeper.punish(state, bech32.decode(lease.meta_node, bech32.NODE), bytes(lease.lease_id))
        return ()

    def export(self, ctx: Context, state: StateReader) -> Json:
        return to_json(
            GenesisState(
                params=self._keeper.params(state),
                meta_keys=list(self._keeper.all_meta_keys(state)),
                epochs=list(self._keeper.epochs(state)),
                challenges=list(self._keeper.challenges(state)),
                next_challenge_id=self._keeper.next_challenge_id(state),
                punished_leases=list(self._keeper.punished_leases(state)),
            )
        )


def _read(section: Json) -> Any:
    """GenesisState. Raises GenesisError."""
    try:
        genesis = from_json(GenesisState, section, PATH)
        check_params(genesis.params)
    except AppError as error:
        raise GenesisError(PATH, error.detail) from None
    _check_keys(genesis)
    epochs = _check_epochs(genesis)
    _check_challenges(genesis, epochs)
    leases: dict[tuple[str, bytes], None] = {}
    for at, lease in enumerate(genesis.punished_leases):
        path = f"{PATH}.punished_leases[{at}]"
        _node(lease.meta_node, f"{path}.meta_node")
        _size(bytes(lease.lease_id), trees.HASH_BYTES, f"{path}.lease_id")
        _once(leases, (lease.meta_node, bytes(lease.lease_id)), path)
    return genesis


def _check_keys(genesis: Any) -> None:
    nodes: dict[str, None] = {}
    keys: dict[bytes, None] = {}
    for at, one in enumerate(genesis.meta_keys):
        path = f"{PATH}.meta_keys[{at}]"
        _node(one.meta_node, f"{path}.meta_node")
        _once(nodes, one.meta_node, path)
        if not bls.check_public_key(bytes(one.bls_pubkey)):
            raise GenesisError(f"{path}.bls_pubkey", f"expected a point of G1 in {bls.KEY_BYTES} bytes, in the group and not at infinity")
        _size(bytes(one.proof_of_possession), bls.SIGNATURE_BYTES, f"{path}.proof_of_possession")
        if not is_ledger_key(bytes(one.ledger_consensus_pubkey)):
            raise GenesisError(f"{path}.ledger_consensus_pubkey", "expected an ed25519 public key of 32 bytes in the prime group")
        _once(keys, bytes(one.bls_pubkey), f"{path}.bls_pubkey")
        _once(keys, bytes(one.ledger_consensus_pubkey), f"{path}.ledger_consensus_pubkey")
        _height(one.registered_height, f"{path}.registered_height")


def _check_epochs(genesis: Any) -> dict[int, Any]:
    """CommittedEpoch by number."""
    known = {one.meta_node: one for one in genesis.meta_keys}
    found: dict[int, Any] = {}
    for at, kept in enumerate(genesis.epochs):
        path = f"{PATH}.epochs[{at}]"
        if kept.epoch <= 0 or kept.maturity_epoch < 0:
            raise GenesisError(f"{path}.epoch", f"expected an epoch from 1 on and its maturity from 0 on, got {kept.epoch} and {kept.maturity_epoch}")
        _once(found, kept.epoch, path)
        if kept.status not in (COMMITTED, VOID):
            raise GenesisError(f"{path}.status", f"expected EPOCH_STATUS_COMMITTED or EPOCH_STATUS_VOID, got {kept.status}")
        if len(kept.report_reference) != _REFERENCE_CHARACTERS or not kept.report_reference.startswith(REFERENCE_PREFIX):
            raise GenesisError(f"{path}.report_reference", f"expected {REFERENCE_PREFIX} and 64 hex digits, got {kept.report_reference[:100]!r}")
        _node(kept.reporter, f"{path}.reporter")
        for number, signer in enumerate(kept.signers):
            if signer not in known:
                raise GenesisError(f"{path}.signers[{number}]", f"{signer[:100]} has no entry in meta_keys, by which what it signed is judged")
        try:
            commitment.check_roots(kept.roots)
        except AppError as error:
            raise GenesisError(f"{path}.roots", error.detail) from None
        _size(bytes(kept.lines_root), trees.HASH_BYTES, f"{path}.lines_root")
        for name in _AMOUNTS:
            _amount(getattr(kept, name), f"{path}.{name}")
        _height(kept.height, f"{path}.height")
        found[kept.epoch] = kept
    return found


def _check_challenges(genesis: Any, epochs: dict[int, Any]) -> None:
    numbers: dict[int, None] = {}
    leaves: dict[tuple[int, int], None] = {}
    of_epoch: dict[int, int] = {}
    for at, one in enumerate(genesis.challenges):
        path = f"{PATH}.challenges[{at}]"
        if not 0 < one.challenge_id < max(genesis.next_challenge_id, 1):
            raise GenesisError(f"{path}.challenge_id", f"expected a number from 1 to below next_challenge_id, got {one.challenge_id}")
        _once(numbers, one.challenge_id, path)
        kept = epochs.get(one.epoch)
        if kept is None or kept.status != COMMITTED or one.leaf_index >= kept.roots.receipts_count:
            raise GenesisError(path, f"expected a leaf of a committed epoch, got leaf {one.leaf_index} of epoch {one.epoch}")
        _once(leaves, (one.epoch, one.leaf_index), path)
        of_epoch[one.epoch] = of_epoch.get(one.epoch, 0) + 1
        if of_epoch[one.epoch] > MAX_CHALLENGES_OF_EPOCH:
            raise GenesisError(path, f"expected at most {MAX_CHALLENGES_OF_EPOCH} open challenges of epoch {one.epoch}")
        if commitment.wallet_of(one.challenger) is None:
            raise GenesisError(f"{path}.challenger", f"expected an account's address of 20 bytes, got {one.challenger[:100]!r}")
        if not _amount(one.bond_wei, f"{path}.bond_wei"):
            raise GenesisError(f"{path}.bond_wei", "expected a positive bond, got 0")
        _height(one.deadline_height, f"{path}.deadline_height")


def _node(text: str, path: str) -> None:
    if node_of(text) is None:
        raise GenesisError(path, f"expected a network address (stsds…) of 20 bytes in lower case, got {text[:100]!r}")


def _size(raw: bytes, expected: int, path: str) -> None:
    if len(raw) != expected:
        raise GenesisError(path, f"expected {expected} bytes, got {len(raw)}")


def _height(height: int, path: str) -> None:
    if not 0 <= height < MAX_HEIGHT:
        raise GenesisError(path, f"expected a height from 0 to {MAX_HEIGHT - 1}, got {height}")


def _amount(text: str, path: str) -> int:
    try:
        amount = parse_wire_int(text or "0")
    except AppError as error:
        raise GenesisError(path, error.detail) from None
    if not 0 <= amount <= MAX_AMOUNT:
        raise GenesisError(path, f"expected an amount from 0 to 2^127 - 1, got {text[:60]}")
    return amount


def _once(seen: dict[Any, Any], key: Any, path: str) -> None:
    if key in seen:
        raise GenesisError(path, "comes twice")
    seen[key] = None
