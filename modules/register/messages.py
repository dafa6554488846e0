"""Messages of register. What the keeper refuses is wrapped in the code of its message, as clients know it (stratos-chain.md 2.4, 2.11)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from chain import coins
from chain.authority import GOV_ADDRESS, require_gov
from chain.codec.canonical import known
from chain.codec.registry import message_class
from chain.coins import Coin
from chain.context import Context
from chain.crypto import address as bech32
from chain.crypto.keys import ED25519_URL, Ed25519PublicKey, public_key_from_any
from chain.errors import AppError, wrapped
from chain.module import MessageHandler
from chain.ozone import MAX_AMOUNT, bounded
from chain.store.api import StateWriter
from modules.register import errors, nodes, unbonding, votes
from modules.register.errors import (
    DuplicateVoting,
    EmptyMoniker,
    EmptyPubKey,
    InvalidAmount,
    InvalidBeneficiaryAddr,
    InvalidCandidateNetworkAddr,
    InvalidCandidateOwnerAddr,
    InvalidDepositChange,
    InvalidEffectiveToken,
    InvalidNetworkAddr,
    InvalidOwnerAddr,
    InvalidTargetNetworkAddr,
    InvalidVoterNetworkAddr,
    InvalidVoterOwnerAddr,
    RemainingNozLimit,
    ReporterAddress,
    ResourceNodeRegDisabled,
    SameAddr,
    TextTooLong,
    TooManyReporters,
    UnknownPubKey,
    ValueNegative,
)
from modules.register.keeper import RegisterKeeper
from modules.register.node_types import check_node_type
from modules.register.params import check_params
from modules.register.records import ADDRESS_BYTES, PACKAGE

TEXT_BYTES: Final = {"moniker": 70, "identity": 3000, "website": 140, "security_contact": 140, "details": 280}
"""The longest texts of a description, in bytes of UTF-8."""
MAX_REPORTERS: Final = 100
GOVERNANCE: Final = bech32.encode(GOV_ADDRESS)

Error = type[AppError]


def handlers(keeper: RegisterKeeper) -> Mapping[str, MessageHandler]:
    """The module's message handlers over ``keeper``."""

    def create_resource_node(ctx: Context, state: StateWriter, message: Any) -> None:
        if not keeper.params(state).resource_node_reg_enabled:
            raise ResourceNodeRegDisabled
        with wrapped(errors.RegisterResourceNode):
            create(ctx, state, message)

    def create_meta_node(ctx: Context, state: StateWriter, message: Any) -> None:
        with wrapped(errors.RegisterMetaNode):
            create(ctx, state, message)

    def create(ctx: Context, state: StateWriter, message: Any) -> None:
        owner = bech32.decode(message.owner_address)
        beneficiary = bech32.decode(message.beneficiary_address) if message.beneficiary_address.strip() else owner
        nodes.create(keeper, ctx, state, _key(message), _coin(message.value), owner, beneficiary, message)

    def update_resource_node(ctx: Context, state: StateWriter, message: Any) -> None:
        with wrapped(errors.UpdateResourceNode):
            update(ctx, state, message, meta=False)

    def update_meta_node(ctx: Context, state: StateWriter, message: Any) -> None:
        with wrapped(errors.UpdateMetaNode):
            update(ctx, state, message, meta=True)

    def update(ctx: Context, state: StateWriter, message: Any, *, meta: bool) -> None:
        node = nodes.require_node(keeper, state, _network(message.network_address), meta=meta)
        beneficiary = bech32.decode(message.beneficiary_address) if message.beneficiary_address else None
        nodes.update(keeper, ctx, state, node, _account(message.owner_address), beneficiary, message)

    def update_resource_node_deposit(ctx: Context, state: StateWriter, message: Any) -> None:
        with wrapped(errors.UpdateResourceNodeDeposit):
            add_deposit(ctx, state, message, meta=False)

    def update_meta_node_deposit(ctx: Context, state: StateWriter, message: Any) -> None:
        with wrapped(errors.UpdateMetaNodeDeposit):
            add_deposit(ctx, state, message, meta=True)

    def add_deposit(ctx: Context, state: StateWriter, message: Any, *, meta: bool) -> None:
        address, delta = _network(message.network_address), _coin(message.deposit_delta)
        nodes.add_deposit(keeper, ctx, state, address, _account(message.owner_address), delta, meta=meta)

    def update_effective_deposit(ctx: Context, state: StateWriter, message: Any) -> None:
        reporters = _reporters(message)
        amount = coins.parse_wire_int(message.effective_tokens)
        if amount <= 0:
            raise InvalidEffectiveToken(f"got {amount}")
        nodes.check_reporters(keeper, state, reporters)
        with wrapped(errors.UpdateResourceNodeDeposit):
            addresses = [reporter for reporter, _ in reporters]
            nodes.approve_effective(keeper, ctx, state, addresses, _network(message.network_address), amount)

    def remove_resource_node(ctx: Context, state: StateWriter, message: Any) -> None:
        with wrapped(errors.UnbondResourceNode):
            node = nodes.require_node(keeper, state, _network(message.resource_node_address), meta=False)
            unbonding.leave(keeper, ctx, state, node, _account(message.owner_address))

    def remove_meta_node(ctx: Context, state: StateWriter, message: Any) -> None:
        with wrapped(errors.UnbondMetaNode):
            node = nodes.require_node(keeper, state, _network(message.meta_node_address), meta=True)
            unbonding.leave(keeper, ctx, state, node, _account(message.owner_address))

    def registration_vote(ctx: Context, state: StateWriter, message: Any) -> None:
        candidate, voter = (_network(text) for text in (message.candidate_network_address, message.voter_network_address))
        owner, sender = _account(message.candidate_owner_address), _account(message.voter_owner_address)
        with wrapped(errors.VoteMetaNode):
            votes.register(keeper, ctx, state, candidate, owner, voter, sender, approves=message.opinion)

    def kick_vote(ctx: Context, state: StateWriter, message: Any) -> None:
        target, sender = _network(message.target_network_address), _account(message.voter_owner_address)
        if sender == GOVERNANCE:
            votes.kick_by_governance(keeper, ctx, state, target, sender)
        else:
            votes.kick(keeper, ctx, state, target, _network(message.voter_network_address), sender, approves=message.opinion)

    def update_params(ctx: Context, state: StateWriter, message: Any) -> None:
        require_gov(message.authority)
        check_params(message.params)
        pool = keeper.ozone(state)
        granted = keeper.granted_noz(state)
        if message.params.solvency_rules and pool.outstanding_noz < granted:
            sold = f"{pool.remaining_noz} noz remain, of a supply of {pool.supply_noz} noz, and {granted} granted ones are outstanding"
            raise RemainingNozLimit(f"{sold}: the solvency rules cannot hold")
        keeper.set_params(state, known(message.params))

    named: dict[str, tuple[Callable[[Context, StateWriter, Any], None], Callable[[Any], None]]] = {
        "MsgCreateResourceNode": (create_resource_node, check_create_resource_node),
        "MsgCreateMetaNode": (create_meta_node, check_create_meta_node),
        "MsgRemoveResourceNode": (remove_resource_node, lambda message: _check_addresses(message.resource_node_address, message.owner_address)),
        "MsgRemoveMetaNode": (remove_meta_node, lambda message: _check_addresses(message.meta_node_address, message.owner_address)),
        "MsgUpdateResourceNode": (update_resource_node, check_update_resource_node),
        "MsgUpdateMetaNode": (update_meta_node, check_update_meta_node),
        "MsgUpdateResourceNodeDeposit": (update_resource_node_deposit, check_deposit),
        "MsgUpdateMetaNodeDeposit": (update_meta_node_deposit, check_deposit),
        "MsgUpdateEffectiveDeposit": (update_effective_deposit, check_effective_deposit),
        "MsgMetaNodeRegistrationVote": (registration_vote, check_registration_vote),
        "MsgKickMetaNodeVote": (kick_vote, check_kick_vote),
        "MsgUpdateParams": (update_params, lambda message: None),
    }
    return {f"{PACKAGE}.{name}": MessageHandler(_answering(name, execute), check) for name, (execute, check) in named.items()}


def _answering(name: str, execute: Callable[[Context, StateWriter, Any], None]) -> Callable[[Context, StateWriter, Any], Any]:
    response = message_class(f"{PACKAGE}.{name}Response")

    def run(ctx: Context, state: StateWriter, message: Any) -> Any:
        execute(ctx, state, message)
        return response()

    return run


# --- stateless checks -----------------------------------------------------------------------------------------------------------


def check_create_resource_node(message: Any) -> None:
    """Raises by stratos-chain.md 2.4: 3, 38, 47, 30, 5, 31, 7, 101, 45."""
    _check_new(message)
    if message.beneficiary_address.strip():
        _checked(message.beneficiary_address, InvalidBeneficiaryAddr)
    _check_description(message.description, moniker=True)
    check_node_type(message.node_type)


def check_create_meta_node(message: Any) -> None:
    """Raises by stratos-chain.md 2.4: 3, 38, 47, 30, 5, 31, 7, 101."""
    _check_new(message)
    _checked(message.beneficiary_address, InvalidBeneficiaryAddr)
    _check_description(message.description, moniker=True)


def check_update_resource_node(message: Any) -> None:
    """Raises by stratos-chain.md 2.4: 3, 30, 31, 101, 45."""
    _check_update(message, moniker=False)
    check_node_type(message.node_type)


def check_update_meta_node(message: Any) -> None:
    """Raises by stratos-chain.md 2.4: 3, 30, 31, 7, 101."""
    _check_update(message, moniker=True)


def check_deposit(message: Any) -> None:
    """Raises by stratos-chain.md 2.4: 3, 30, 44; InvalidRequest (sdk/18) beyond 2^127 - 1."""
    _check_addresses(message.network_address, message.owner_address)
    if _coin(message.deposit_delta).amount <= 0:
        raise InvalidDepositChange(f"got {message.deposit_delta.amount[:60] or '0'}")
    bounded(_coin(message.deposit_delta).amount, "a deposit change")


def check_effective_deposit(message: Any) -> None:
    """Raises by stratos-chain.md 2.4: 3, 60, 30, 61; 104 for more than a hundred reporters, 34 for one that is named twice."""
    if not message.network_address:
        raise InvalidNetworkAddr("empty")
    _checked_node(message.network_address, InvalidNetworkAddr)
    if not message.reporters:
        raise ReporterAddress("expected at least one reporter, got none")
    if len(message.reporters) > MAX_REPORTERS:
        raise TooManyReporters(f"expected at most {MAX_REPORTERS}, got {len(message.reporters)}")
    if len(message.reporters) != len(message.reporter_owner):
        raise InvalidOwnerAddr(f"expected an owner for each of {len(message.reporters)} reporters, got {len(message.reporter_owner)}")
    seen = []
    for reporter, owner in zip(message.reporters, message.reporter_owner, strict=True):
        _checked(owner, InvalidOwnerAddr)
        seen.append(_checked_node(reporter, ReporterAddress))
        if seen[-1] in seen[:-1]:
            raise DuplicateVoting(f"{reporter} is named twice")
    amount = coins.parse_wire_int(message.effective_tokens or "0")
    if not 0 <= amount <= MAX_AMOUNT:
        raise InvalidAmount(f"expected from 0 to 2^127 - 1, got {message.effective_tokens[:60]}")


def check_registration_vote(message: Any) -> None:
    """Raises by stratos-chain.md 2.4: 23, 26, 24, 27, 29."""
    candidate = _checked_node(message.candidate_network_address, InvalidCandidateNetworkAddr)
    voter = _checked_node(message.voter_network_address, InvalidVoterNetworkAddr)
    _checked(message.candidate_owner_address, InvalidCandidateOwnerAddr)
    _checked(message.voter_owner_address, InvalidVoterOwnerAddr)
    if candidate == voter:
        raise SameAddr(message.voter_network_address)


def check_kick_vote(message: Any) -> None:
    """Raises by stratos-chain.md 2.4: 65, 26, 27; 29 for a node that votes on itself. Governance names no voter and can only agree: 26, 61."""
    target = _checked_node(message.target_network_address, InvalidTargetNetworkAddr)
    if _checked(message.voter_owner_address, InvalidVoterOwnerAddr) == GOV_ADDRESS:
        if message.voter_network_address:
            raise InvalidVoterNetworkAddr(f"governance has no meta node, got {message.voter_network_address[:60]}")
        if not message.opinion:
            raise InvalidAmount("a proposal to kick a meta node is one to agree with: expected opinion true")
        return
    if _checked_node(message.voter_network_address, InvalidVoterNetworkAddr) == target:
        raise SameAddr("the accused has no vote")


def _check_new(message: Any) -> None:
    address = _checked_node(message.network_address, InvalidNetworkAddr)
    if not message.HasField("pubkey"):
        raise EmptyPubKey("expected an ed25519 key, got none")
    if message.pubkey.type_url != ED25519_URL:
        raise UnknownPubKey(f"expected {ED25519_URL}, got {message.pubkey.type_url[:100]}")
    if _key(message).address != address:
        raise InvalidNetworkAddr(
            f"expected that of the public key, {bech32.encode(_key(message).address, bech32.NODE)}, got {message.network_address}"
        )
    _checked(message.owner_address, InvalidOwnerAddr)
    value = _coin(message.value)
    if value.amount <= 0:
        raise ValueNegative(f"got {message.value.amount[:60] or '0'}")
    bounded(value.amount, "a deposit")


def _check_update(message: Any, *, moniker: bool) -> None:
    _check_addresses(message.network_address, message.owner_address)
    if message.beneficiary_address:
        _checked(message.beneficiary_address, InvalidBeneficiaryAddr)
    _check_description(message.description, moniker=moniker)


def _check_addresses(network: str, owner: str) -> None:
    _checked_node(network, InvalidNetworkAddr)
    _checked(owner, InvalidOwnerAddr)


def _check_description(description: Any, *, moniker: bool) -> None:
    if moniker and not description.moniker:
        raise EmptyMoniker
    check_texts(description)


def check_texts(description: Any) -> None:
    """Raise TextTooLong (register/101) naming the text of a Description that is too long."""
    for name, most in TEXT_BYTES.items():
        size = len(getattr(description, name).encode())
        if size > most:
            raise TextTooLong(f"{name}: expected at most {most} bytes, got {size}")


def _checked(text: str, error: Error) -> bytes:
    """An account's address. Raises ``error``."""
    try:
        return bech32.decode(text)
    except AppError as inner:
        raise error(inner.detail) from None


def _checked_node(text: str, error: Error) -> bytes:
    """A network address. Raises ``error``."""
    try:
        address = _network(text)
    except AppError as inner:
        raise error(inner.detail) from None
    if len(address) != ADDRESS_BYTES:
        raise error(f"expected {ADDRESS_BYTES} bytes, got {len(address)}")
    return address


def _network(text: str) -> bytes:
    return bech32.decode(text, bech32.NODE)


def _account(text: str) -> str:
    """An account's address in the one spelling that is stored."""
    return bech32.encode(bech32.decode(text))


def _key(message: Any) -> Ed25519PublicKey:
    """The public key of a new node. Raises UnknownPubKey (register/47)."""
    try:
        key = public_key_from_any(message.pubkey)
    except AppError as inner:
        raise UnknownPubKey(inner.detail) from None
    if not isinstance(key, Ed25519PublicKey):
        raise UnknownPubKey(f"expected {ED25519_URL}, got {message.pubkey.type_url[:100]}")
    return key


def _coin(message: Any) -> Coin:
    return Coin(message.denom, coins.parse_wire_int(message.amount or "0"))


def _reporters(message: Any) -> list[tuple[bytes, str]]:
    pairs = zip(message.reporters, message.reporter_owner, strict=True)
    return [(_network(reporter), _account(owner)) for reporter, owner in pairs]
