"""What the value chain tells a ledger that is made anew: where it stands, who is there, what is owed in all, and who once bought it.

    state at height h ─► parameters, meta nodes and their keys, resource nodes, S ÷ rate − Lt, granted noz that are open
    blocks, from the first one that the chain's node has to h ─► noz bought and granted, by wallet

The chain knows how much is owed, and not to whom: who bought does not say who has spent. So a wallet's claim is what it bought, less what its files' escrows have of
it; if all claims together are more than is owed beside those escrows, each is cut down alike (``shared``). What nobody claims is nobody's, and shows as the
ledger's gap. Source: docs/meta-nodes.md, "When all ledgers are lost".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from sds_node.meta.relay.founding import found_message
from sds_node.meta.relay.observing import bought
from sds_node.meta.relay.reading import ChainReads, ObservingError
from sds_node.meta.rules.money import midnight
from sds_node.meta.rules.tables import ADDRESS_BYTES, ID_BYTES
from sds_node.value_chain import views
from sds_node.value_chain.client import ValueChain


@dataclass(frozen=True)
class Standing:
    """The chain after block ``height``."""

    chain_id: str
    height: int
    block_hash: bytes
    block_time_s: int
    found: Any
    """``Found`` of a ledger that begins here."""
    nodes: list[views.ResourceNode]
    """Those that a ledger can have, by address: number i + 1 is the i-th."""
    keys: dict[bytes, bytes]
    """Registered ledger keys, also of meta nodes that have left, by address."""
    outstanding_noz: int
    """Owed in all; of that granted ones:"""
    promo_noz: int


@dataclass
class Bought:
    """Noz that wallets bought and were granted, from block ``first_height`` on. Promo by (wallet, midnight at which it ends, ms)."""

    first_height: int = 0
    paid: dict[bytes, int] = field(default_factory=dict)
    promo: dict[tuple[bytes, int], int] = field(default_factory=dict)


async def standing(chain: ValueChain) -> Standing:
    """The chain as it stands. Raises ChainUnavailable, QueryFailed, HeightMissing, ObservingError."""
    status, height = await chain.status(), await chain.committed_height()
    if height < 1:
        raise ObservingError(f"chain {status.chain_id} has no block yet: start it first")
    reads, block = ChainReads(chain), await chain.block(height)
    nodes = [
        node
        for node in await reads.resource_nodes(height)
        if all(len(one) == ADDRESS_BYTES for one in (node.address, node.owner, node.beneficiary)) and len(node.p2p_key) == ID_BYTES
    ]
    outstanding_noz = await reads.outstanding_noz(height)
    return Standing(
        chain_id=status.chain_id,
        height=height,
        block_hash=block.block_hash,
        block_time_s=block.time_s,
        found=await found_message(chain, height),
        nodes=nodes,
        keys={address: one.ledger_key for address, one in (await views.meta_keys(chain, height)).items() if one.ledger_key},
        outstanding_noz=outstanding_noz,
        promo_noz=min(outstanding_noz, await views.grant_outstanding_noz(chain, height)),
    )


async def bought_until(chain: ValueChain, height: int, progress: Callable[[str, int], None]) -> Bought:
    """What was bought and granted in the blocks that the chain's node has, up to a height. Raises ChainUnavailable, HeightMissing."""
    first = max(1, (await chain.status()).earliest_height)
    made = Bought(first)
    async with aclosing(chain.follow(first - 1)) as blocks:
        async for block in blocks:
            for event in block.events:
                for told in bought(event, block.height):
                    if told.WhichOneof("event") == "sold":
                        wallet = bytes(told.sold.wallet)
                        made.paid[wallet] = made.paid.get(wallet, 0) + int(told.sold.noz)
                    else:
                        key = bytes(told.granted.wallet), midnight(told.granted.expires_s * 1_000)
                        made.promo[key] = made.promo.get(key, 0) + int(told.granted.noz)
            progress("blocks", 1)
            if block.height >= height:
                break
    return made


def shared(claims: Mapping[Any, int], noz: int) -> dict[Any, int]:
    """Claims that are met out of ``noz``: whole if there is enough, else cut down alike and rounded down. Those of nothing are left out."""
    total = sum(claims.values())
    met = {key: claim if total <= noz else claim * max(0, noz) // total for key, claim in claims.items()}
    return {key: one for key, one in met.items() if one > 0}
