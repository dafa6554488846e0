"""How nodes leave: when what they deposited is free again, and its paying back at the end of a block (stratos-chain.md 2.5, 2.6)."""

from __future__ import annotations

from typing import Any, Final

from chain.codec.times import ns_of
from chain.context import Context
from chain.crypto import address as bech32
from chain.store.api import StateWriter
from modules.register import deposits, events, keys, records
from modules.register.errors import InsufficientBalance, InvalidNodeStat, InvalidOwnerAddr, InvalidSuspensionStat, MaxUnbondingNodeEntries
from modules.register.keeper import RegisterKeeper, with_unbonding
from modules.register.records import BONDED, UNBONDED, UNBONDING, bonded_pool, is_meta, not_bonded_pool, time_of, time_text

MAX_COMPLETED_PER_BLOCK: Final = 100
MAX_EXPIRED_PER_BLOCK: Final = 100


def mature_ns(ctx: Context, params: Any, node: Any) -> int:
    """When what leaves now is paid back, in Unix nanoseconds: a candidate's after the completion time since it was created (at once where that is
    over, behind all that was due before), a bonded node's after the completion time from now, and not before the threshold time and the completion
    time since it was created."""
    created, completion = ns_of(node.creation_time), ns_of(params.unbonding_completion_time)
    if node.status != BONDED:
        return max(created + completion, ctx.time_ns)
    return max(created + ns_of(params.unbonding_threashold_time), ctx.time_ns) + completion


def leave(keeper: RegisterKeeper, ctx: Context, state: StateWriter, node: Any, sender: str) -> None:
    """A node of either kind, whose owner is ``sender`` (account as text), begins to leave with all that is not leaving yet.

    Raises InsufficientBalance (register/17), InvalidOwnerAddr (30), MaxUnbondingNodeEntries (40), InvalidNodeStat (48), for a suspended meta node
    InvalidSuspensionStat (59).
    """
    address, params = records.address_of(node), keeper.params(state)
    record = keeper.unbonding(state, address)
    deposit = keeper.deposit(state, node)
    available = deposit.tokens_wei - deposit.unbonding_wei
    if node.owner_address != sender:
        raise InvalidOwnerAddr(f"expected {node.owner_address}, got {sender}")
    if record is not None and len(record.entries) >= params.max_entries:
        raise MaxUnbondingNodeEntries(f"expected less than {params.max_entries}, got {len(record.entries)}")
    if available <= 0:
        raise InsufficientBalance("all of the deposit is leaving already")
    pool = after = keeper.ozone(state)
    left = deposit
    if node.status == BONDED:
        if is_meta(node):
            if node.suspend:
                raise InvalidSuspensionStat(f"{node.network_address} is suspended")
            after = deposits.leave_meta_node(pool, available)
            left = deposit if pool.solvency else deposits.NodeDeposit(deposit.tokens_wei, deposit.unbonding_wei)
        keeper.pay_module(ctx, state, bonded_pool(node), not_bonded_pool(node), available)
    elif node.status == UNBONDED and is_meta(node):
        vote = keeper.registration(state, address)
        if not node.suspend or (vote is not None and vote.is_vote_passed):
            raise InvalidNodeStat(f"{node.network_address} is no candidate")
    else:
        raise InvalidNodeStat(f"expected a bonded node, got {records.STATUS_NAMES[node.status]}")
    until = mature_ns(ctx, params, node)
    if record is None:
        record = records.UnbondingNode(network_addr=node.network_address, is_meta_node=is_meta(node))
    record.entries.add(creation_height=ctx.height, completion_time=time_of(until), initial_balance=str(available), balance=str(available))
    keeper.set_unbonding(state, address, record)
    keeper.enqueue(state, address, until)
    node.status = UNBONDING
    keeper.change(ctx, state, node, (pool, deposit), (after, left))
    keeper.delete_record(state, keys.registration(address))
    keeper.drop_approvals(state, address)
    common = {"sender": sender, "deposit_to_remove": f"{available}{params.bond_denom}", "unbonding_mature_time": time_text(until)}
    if is_meta(node):
        change_noz = -deposits.ozone_of(pool, available) if after != pool else 0
        events.emit(ctx, "EventUnBondingMetaNode", meta_node=node.network_address, ozone_limit_changes=change_noz, **common)
    else:
        events.emit(ctx, "EventUnBondingResourceNode", resource_node=node.network_address, **common)


def end_block(keeper: RegisterKeeper, ctx: Context, state: StateWriter) -> None:
    """Pay back what is due and drop votes and approvals whose time is over, at most 100 nodes and 100 records; the next block goes on."""
    for address in keeper.due(state, ctx.time_ns, MAX_COMPLETED_PER_BLOCK):
        _complete(keeper, ctx, state, address)
    for key in keeper.expired(state, ctx.time_ns, MAX_EXPIRED_PER_BLOCK):
        keeper.delete_record(state, key)


def _complete(keeper: RegisterKeeper, ctx: Context, state: StateWriter, address: bytes) -> None:
    """Pay the entries of a node that are due: a debt of the owner first, to the community pool, the rest to him. Without any deposit left the node goes."""
    node, record = keeper.node(state, address), keeper.unbonding(state, address)
    if node is None or record is None:
        return
    due = [entry for entry in record.entries if ns_of(entry.completion_time) <= ctx.time_ns]
    if not due:
        return
    amount = sum(int(entry.balance) for entry in due)
    rest = [entry for entry in record.entries if ns_of(entry.completion_time) > ctx.time_ns]
    pool, deposit = keeper.ozone(state), with_unbonding(keeper.deposit(state, node), amount)
    after, left = deposits.complete_leaving(pool, deposit)
    owner, account = bech32.decode(node.owner_address), bech32.module_address(not_bonded_pool(node))
    to_pay, debt = keeper.deduct_own_debt(state, owner, amount)
    if to_pay:
        keeper.bank.send(ctx, state, account, owner, keeper.coins(state, to_pay))
    if debt:
        keeper.community.fund_community_pool(ctx, state, keeper.coins(state, debt), account)
    del record.entries[:]
    record.entries.extend(rest)
    keeper.set_unbonding(state, address, record if rest else None)
    keeper.change(ctx, state, node, (pool, deposit), (after, left))
    if left.tokens_wei == 0:
        keeper.drop(state, node)
    name = "EventCompleteUnBondingMetaNode" if is_meta(node) else "EventCompleteUnBondingResourceNode"
    events.emit(ctx, name, amount=f"{amount}{keeper.denom(state)}", network_address=node.network_address)
    keeper.tell_lowered(ctx, state, node.network_address, pool, after)


def forget_heights(keeper: RegisterKeeper, ctx: Context, state: StateWriter) -> None:
    """Date to height 0 what is leaving, for a chain that begins anew. Times stay."""
    for record in list(keeper.unbondings(state)):
        for entry in record.entries:
            entry.creation_height = 0
        keeper.set_unbonding(state, bech32.decode(record.network_addr, bech32.NODE), record)
