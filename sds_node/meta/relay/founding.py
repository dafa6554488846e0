"""The ledger's first operation: where it begins on the value chain, who the meta nodes are, the parameters.

    chain that has forgotten nothing ─► height 0: everything that was ever sold is observed, from block 1 on
    any other chain                  ─► the height where it stands; what was sold before belongs to nobody here

Founding at height 0 is tried first, since a wallet that bought ozone before its network's first meta node started must have it. It takes a node of the
chain that has block 1, its results and its state (a young chain, or ``pruning = nothing`` and no ``min-retain-blocks``). State after a genesis file cannot be
asked for, so height 0 means the state after block 1; what block 1 changed is observed once more, with the same outcome.

All resource nodes as they stood begin the first observation. What cannot be brought: ozone that a genesis file sold or that was sold before a founding at a
later height, and what was earned before; the first shows as ``gap_noz``. Founders compare the operation, so all of them have to name one height.
"""

from __future__ import annotations

from typing import Any, Final

from chain.codec.registry import message_class
from sds_node.documents import PACKAGE
from sds_node.meta.relay.observing import node_event, observed_meta
from sds_node.meta.relay.reading import ChainReads, NotTold, ObservingError
from sds_node.meta.rules.tables import ADDRESS_BYTES, ID_BYTES
from sds_node.meta.rules.wire import MAX_METAS
from sds_node.value_chain import views
from sds_node.value_chain.client import HeightMissing, ValueChain

Found: Final = message_class(f"{PACKAGE}.Found")
NO_BLOCK: Final = bytes(ID_BYTES)
"""The hash of block 0."""


async def founding_height(chain: ValueChain) -> int:
    """0 where the chain's node has everything since block 1 and nothing was reported in it, else the height where it stands.

    Raises ChainUnavailable, QueryFailed; ObservingError before the first block.
    """
    status = await chain.status()
    height = await chain.committed_height()
    if height < 1:
        raise ObservingError(f"chain {status.chain_id} has no block yet: start it first")
    if status.earliest_height > 1:
        return height
    reads = ChainReads(chain)
    try:
        await chain.block(1)
        return 0 if await reads.last_report(1) is None else height
    except (NotTold, ObservingError, HeightMissing):
        return height


async def check_alone(chain: ValueChain) -> None:
    """Raises ObservingError where the chain has more than one active meta node: each would keep a ledger of its own, which nothing brings together.
    Raises ChainUnavailable, QueryFailed."""
    active = [node for node in await views.bonded_meta_nodes(chain) if node.is_active]
    if len(active) > 1:
        raise ObservingError(
            f"the chain has {len(active)} active meta nodes, and a ledger with a log of its own is kept by one: have all of them join one ledger "
            "(`spd ledger migrate` where it is, `spd ledger join` on the others)"
        )


async def found_message(chain: ValueChain, height: int) -> Any:
    """``Found`` of a ledger whose first observed height is ``height`` + 1. Raises ChainUnavailable, HeightMissing, ObservingError."""
    reads, read_at = ChainReads(chain), max(height, 1)
    block = await chain.block(read_at)
    metas = [node for node in await reads.bonded_meta_nodes(read_at) if len(node.owner) == ADDRESS_BYTES]
    if not 0 < len(metas) <= MAX_METAS:
        raise ObservingError(
            f"expected 1 to {MAX_METAS} bonded meta nodes at height {read_at}, got {len(metas)}: a ledger needs one that is registered"
        )
    report = await reads.last_report(read_at)
    return Found(
        height=height,
        block_hash=block.block_hash if height else NO_BLOCK,
        reported_epoch=report.epoch if report is not None else 0,
        # Before the first report there is none to count from: the first epoch begins with the ledger.
        reported_s=report.time_s if report is not None else block.time_s,
        metas=[observed_meta(node, await reads.meta_keys(node.address, read_at), node.is_active) for node in metas],
        params=await reads.ledger_params(read_at),
    )


async def nodes_as_they_stood(reads: ChainReads, height: int) -> list[Any]:
    """Events that tell of every resource node at the founding height. Raises ChainUnavailable, ObservingError."""
    return [event for node in await reads.resource_nodes(max(height, 1)) for event in node_event(node)]
