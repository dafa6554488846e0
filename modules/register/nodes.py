"""Nodes: how they are made and changed, and how resource nodes are put to work (stratos-chain.md 2.5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from chain import coins
from chain.codec.canonical import known
from chain.codec.times import ns_of
from chain.coins import Coin
from chain.context import Context
from chain.crypto import address as bech32
from chain.crypto.keys import Ed25519PublicKey, public_key_to_any
from chain.ozone import bounded
from chain.quorum import quorum
from chain.store.api import StateWriter
from modules.register import deposits, events, keys, records
from modules.register.errors import (
    BadDenom,
    DuplicateVoting,
    InsufficientBalance,
    InsufficientDeposit,
    InvalidNodeStat,
    InvalidOwnerAddr,
    MetaNodePubKeyExists,
    NoMetaNodeFound,
    NoResourceNodeFound,
    OwnerOwes,
    ReporterAddressOrOwner,
    ResourceNodePubKeyExists,
    UnbondingNodeState,
)
from modules.register.keeper import RegisterKeeper
from modules.register.records import (
    BONDED,
    UNBONDED,
    UNBONDING,
    Approvals,
    MetaNode,
    RegistrationPool,
    ResourceNode,
    bonded_pool,
    is_meta,
    not_bonded_pool,
    time_of,
    time_text,
)

APPROVAL_S: Final = 3600
"""For how long approvals of one effective deposit gather."""


# --- new nodes ------------------------------------------------------------------------------------------------------------------


def create(
    keeper: RegisterKeeper, ctx: Context, state: StateWriter, key: Ed25519PublicKey, value: Coin, owner: bytes, beneficiary: bytes, message: Any
) -> None:
    """A new node of the kind that ``message`` (MsgCreateResourceNode, MsgCreateMetaNode) is about, with its deposit.

    A resource node is bonded at once but works with nothing; a meta node is a candidate, on whom a vote begins. Raises ResourceNodePubKeyExists
    (register/12), MetaNodePubKeyExists (13), BadDenom (10), InsufficientDeposit (11), InsufficientBalance (17), OwnerOwes (105), and what bank raises.
    """
    params, address, sender = keeper.params(state), key.address, bech32.encode(owner)
    resource = message.DESCRIPTOR.name == "MsgCreateResourceNode"
    if keeper.resource_node(state, address) is not None:
        raise ResourceNodePubKeyExists(records.text_of(address))
    if keeper.meta_node(state, address) is not None:
        raise MetaNodePubKeyExists(records.text_of(address))
    if value.denom != params.bond_denom:
        raise BadDenom(f"expected {params.bond_denom}, got {value.denom[:60]}")
    least = int(params.resource_node_min_deposit.amount or "0")
    if resource and value.amount < least:
        raise InsufficientDeposit(f"expected at least {least}{params.bond_denom}, got {value}")
    _require_balance(keeper, state, owner, value)
    _require_no_debt(keeper, state, sender, beneficiary, owner)
    node = (ResourceNode if resource else MetaNode)(
        network_address=records.text_of(address),
        pubkey=public_key_to_any(key),
        suspend=True,
        status=BONDED if resource else UNBONDED,
        tokens=str(value.amount),
        owner_address=sender,
        description=known(message.description),
        creation_time=time_of(ctx.time_ns),
        beneficiary_address=bech32.encode(beneficiary),
    )
    if resource:
        node.effective_tokens, node.node_type = "0", message.node_type
    keeper.bank.send_to_module(ctx, state, owner, not_bonded_pool(node), (value,))
    if resource:
        keeper.bank.send_between_modules(ctx, state, not_bonded_pool(node), bonded_pool(node), (value,))
    keeper.save(state, node, 0)
    if resource:
        events.emit(
            ctx,
            "EventCreateResourceNode",
            sender=sender,
            network_address=node.network_address,
            pubkey=key.raw.hex(),
            ozone_limit_changes=0,
            initial_deposit=str(value),
        )
        return
    until = time_of(ctx.time_ns + ns_of(params.voting_period))
    keeper.set_record(state, keys.registration(address), RegistrationPool(network_address=node.network_address, expire_time=until))
    events.emit(ctx, "EventCreateMetaNode", sender=sender, network_address=node.network_address)


# --- changes by the owner -------------------------------------------------------------------------------------------------------


def require_node(keeper: RegisterKeeper, state: StateWriter, address: bytes, *, meta: bool) -> Any:
    """The node of an address. Raises NoResourceNodeFound (register/14), NoMetaNodeFound (15)."""
    node = keeper.meta_node(state, address) if meta else keeper.resource_node(state, address)
    if node is None:
        raise (NoMetaNodeFound if meta else NoResourceNodeFound)(records.text_of(address))
    return node


def update(keeper: RegisterKeeper, ctx: Context, state: StateWriter, node: Any, sender: str, beneficiary: bytes | None, message: Any) -> None:
    """Replace the description whole, the beneficiary if one is given, and the type of a resource node. Raises InvalidOwnerAddr (register/30), OwnerOwes
    (105)."""
    _require_owner(node, sender)
    if beneficiary is not None:
        _require_no_debt(keeper, state, sender, beneficiary, bech32.decode(node.beneficiary_address))
    node.description.CopyFrom(known(message.description))
    if beneficiary is not None:
        node.beneficiary_address = bech32.encode(beneficiary)
    if is_meta(node):
        events.emit(ctx, "EventUpdateMetaNode", sender=sender, network_address=node.network_address)
    else:
        node.node_type = message.node_type
        events.emit(ctx, "EventUpdateResourceNode", sender=sender, network_address=node.network_address, beneficiary_address=node.beneficiary_address)
    keeper.save(state, node, keeper.counted_wei(state, records.address_of(node)))


def add_deposit(keeper: RegisterKeeper, ctx: Context, state: StateWriter, address: bytes, sender: str, delta: Coin, *, meta: bool) -> None:
    """A node's owner deposits more. An active meta node makes ozone of it at once, a resource node when meta nodes say so.

    Raises BadDenom (register/10), NoResourceNodeFound (14), NoMetaNodeFound (15), InvalidOwnerAddr (30), InsufficientBalance (17), UnbondingNodeState
    (41), InvalidRequest (sdk/18) beyond 2^127 - 1, and what bank raises.
    """
    denom, owner = keeper.denom(state), bech32.decode(sender)
    if delta.denom != denom:
        raise BadDenom(f"expected {denom}, got {delta.denom[:60]}")
    node = require_node(keeper, state, address, meta=meta)
    _require_owner(node, sender)
    _require_balance(keeper, state, owner, delta)
    if node.status == UNBONDING:
        raise UnbondingNodeState(f"{node.network_address} is leaving")
    pool, deposit = keeper.ozone(state), keeper.deposit(state, node)
    tokens = bounded(deposit.tokens_wei + delta.amount, "a deposit")
    counted, after, change_noz = deposit.counted_wei, pool, 0
    if meta and records.is_active(node):
        after = deposits.raise_deposit(pool, delta.amount)
        counted += delta.amount
        change_noz = raised_noz(pool, delta.amount)
    keeper.bank.send_to_module(ctx, state, owner, bonded_pool(node) if node.status == BONDED else not_bonded_pool(node), (delta,))
    if not meta and node.status == UNBONDED:
        keeper.pay_module(ctx, state, not_bonded_pool(node), bonded_pool(node), tokens)
        # Only of a genesis file. It has not counted so far, so meta nodes put it to work as any other.
        node.status, node.suspend, deposit = BONDED, True, replace(deposit, effective_wei=0)
    new = deposits.NodeDeposit(tokens, deposit.unbonding_wei, deposit.effective_wei, counted)
    keeper.change(ctx, state, node, (pool, deposit), (after, new))
    available = deposit.tokens_wei - deposit.unbonding_wei
    events.emit(
        ctx,
        "EventUpdateMetaNodeDeposit" if meta else "EventUpdateResourceNodeDeposit",
        sender=sender,
        network_address=node.network_address,
        deposit_delta=str(delta),
        # As the original has it, the deposit before this change; available_token_after has the new one.
        current_deposit=f"{deposit.tokens_wei}{denom}",
        available_token_before=f"{available}{denom}",
        available_token_after=f"{available + delta.amount}{denom}",
        ozone_limit_changes=change_noz,
        unbonding_mature_time=time_text(ctx.time_ns),
    )


def raised_noz(pool: Any, amount_wei: int) -> int:
    """What events tell of a deposit that begins to count: trunc(Δ ÷ rate), 0 where the original's first deposit makes no ozone."""
    return deposits.ozone_of(pool, amount_wei) if pool.solvency or pool.deposit_wei else 0


def _require_owner(node: Any, sender: str) -> None:
    if node.owner_address != sender:
        raise InvalidOwnerAddr(f"expected {node.owner_address}, got {sender}")


def _require_no_debt(keeper: RegisterKeeper, state: StateWriter, owner: str, beneficiary: bytes, current: bytes) -> None:
    """Rewards of beneficiaries pay an owner's debt, so a debtor neither takes his rewards elsewhere nor names somebody who shall pay."""
    debt_wei = keeper.debt_wei(state, bech32.decode(owner))
    if debt_wei and beneficiary != current:
        raise OwnerOwes(f"{owner} owes {debt_wei} wei: expected {bech32.encode(current)}, got {bech32.encode(beneficiary)}")


def _require_balance(keeper: RegisterKeeper, state: StateWriter, owner: bytes, value: Coin) -> None:
    held = keeper.bank.balance(state, owner, value.denom)
    if held < value.amount:
        raise InsufficientBalance(f"{bech32.encode(owner)} has {held}{value.denom}, less than {coins.to_text((value,))}")


# --- effective deposits ---------------------------------------------------------------------------------------------------------


def check_reporters(keeper: RegisterKeeper, state: StateWriter, reporters: Sequence[tuple[bytes, str]]) -> None:
    """Raise ReporterAddressOrOwner (register/62) unless each is an active meta node (network address) with its owner (account as text)."""
    for reporter, owner in reporters:
        node = keeper.meta_node(state, reporter)
        if node is None or not records.is_active(node) or node.owner_address != owner:
            raise ReporterAddressOrOwner(f"{records.text_of(reporter)} of {owner}")


def approve_effective(
    keeper: RegisterKeeper, ctx: Context, state: StateWriter, reporters: Sequence[bytes], address: bytes, effective_wei: int
) -> None:
    """Checked meta nodes approve that a resource node works with so much of its deposit; with a quorum it does from now on.

    Approvals of the same node and amount gather for an hour over transactions. Raises NoResourceNodeFound (register/14), InvalidNodeStat (48) unless
    bonded, InsufficientBalance (17), DuplicateVoting (34).
    """
    node = require_node(keeper, state, address, meta=False)
    if node.status != BONDED:
        raise InvalidNodeStat(f"expected a bonded node, got {records.STATUS_NAMES[node.status]}")
    pool, deposit = keeper.ozone(state), keeper.deposit(state, node)
    after, new = deposits.set_effective(pool, deposit, effective_wei)
    key = keys.approvals(address, effective_wei)
    record = keeper.approvals(state, address, effective_wei)
    if record is not None and ns_of(record.expire_time) < ctx.time_ns:
        keeper.delete_record(state, key)
        record = None
    if record is None:
        until = time_of(ctx.time_ns + APPROVAL_S * 10**9)
        record = Approvals(network_address=node.network_address, effective_tokens_wei=str(effective_wei), expire_time=until)
    approved = dict.fromkeys(record.approvers)
    voters = list(map(records.text_of, keeper.active_addresses(state)))
    approvals, needed = sum(one in approved for one in voters), quorum(len(voters))
    for reporter in map(records.text_of, reporters):
        if reporter in approved:
            raise DuplicateVoting(f"{reporter} has approved {effective_wei} wei of {node.network_address}")
        record.approvers.append(reporter)
        approvals += 1
        events.emit(
            ctx,
            "EventApproveEffectiveDeposit",
            network_address=node.network_address,
            effective_tokens_wei=effective_wei,
            approver=reporter,
            approvals=approvals,
            quorum=needed,
        )
    if approvals < needed:
        keeper.set_record(state, key, record)
        return
    keeper.delete_record(state, key)
    is_unsuspended = node.suspend and deposit.effective_wei == 0
    node.suspend = False
    keeper.change(ctx, state, node, (pool, deposit), (after, new))
    events.emit(
        ctx,
        "EventUpdateEffectiveDeposit",
        network_address=node.network_address,
        effective_deposit_after=effective_wei,
        is_unsuspended="true" if is_unsuspended else "false",
    )
    if after.deposit_wei < pool.deposit_wei or after.pending_wei > pool.pending_wei:
        keeper.tell_lowered(ctx, state, node.network_address, pool, after)
