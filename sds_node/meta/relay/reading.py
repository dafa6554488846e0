"""State of the value chain at named heights, for those that have to see the same.

    observing ── node, keys, parameters, epoch, ozone at height h ──► views ──► chain

Every read names its height: what two meta nodes make of a height is the same in every byte. A node of the chain that has forgotten a height cannot be used;
one that does not tell it now may do so in a moment, as behind a load balancer where another node is a block behind.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any, Protocol, TypeVar

from chain.errors import AppError
from chain.tx.decode import decode_tx
from modules.settlement.commitment import Line, all_lines, line_bytes, read_lines, wallet_of
from modules.settlement.trees import plain_root
from sds_node.value_chain import views
from sds_node.value_chain.client import ChainUnavailable, HeightMissing, QueryFailed, ValueChain, tx_hash

T = TypeVar("T")


class ObservingError(Exception):
    """The chain cannot be observed further: the text says at which height, why, and what to do."""


class NotTold(ChainUnavailable):
    """The chain's node does not tell of ``height`` now. Whether it ever will, its earliest height says."""

    def __init__(self, height: int, text: str) -> None:
        self.height = height
        super().__init__(text)


class Reads(Protocol):
    """What is read of the chain's state after a height (1 or more)."""

    async def resource_node(self, address: bytes, height: int) -> views.ResourceNode | None: ...

    async def meta_node(self, address: bytes, height: int) -> views.MetaNode | None: ...

    async def meta_keys(self, address: bytes, height: int) -> views.MetaKeys | None: ...

    async def ledger_params(self, height: int) -> Any: ...

    async def committed_epoch(self, epoch: int, height: int) -> Any: ...


class ChainReads:
    """``Reads`` of a chain, and what else observing takes. All raise ChainUnavailable; of that NotTold where the node has not, or no longer, that height."""

    def __init__(self, chain: ValueChain) -> None:
        self._chain = chain

    async def resource_node(self, address: bytes, height: int) -> views.ResourceNode | None:
        """A node of the network (20 bytes), or None."""
        return await self._at(height, views.resource_node(self._chain, address, height))

    async def resource_nodes(self, height: int) -> list[views.ResourceNode]:
        """All of them, by address."""
        return await self._at(height, views.resource_nodes(self._chain, height))

    async def meta_node(self, address: bytes, height: int) -> views.MetaNode | None:
        """A meta node or candidate (20 bytes), or None."""
        return await self._at(height, views.meta_node(self._chain, address, height))

    async def bonded_meta_nodes(self, height: int) -> list[views.MetaNode]:
        """All of them, by address."""
        return await self._at(height, views.bonded_meta_nodes(self._chain, height))

    async def meta_keys(self, address: bytes, height: int) -> views.MetaKeys | None:
        """What a meta node registered, or None."""
        return await self._at(height, views.keys_of(self._chain, address, height))

    async def ledger_params(self, height: int) -> Any:
        """``LedgerParams``."""
        return await self._at(height, views.ledger_params(self._chain, height))

    async def committed_epoch(self, epoch: int, height: int) -> Any:
        """``CommittedEpoch``, or None."""
        return await self._at(height, views.committed_epoch(self._chain, epoch, height))

    async def outstanding_noz(self, height: int) -> int:
        """S ÷ rate − Lt with what is pending; 0 where the original's rules let it fall below."""
        return max(0, (await self._at(height, views.ozone(self._chain, height))).outstanding_noz)

    async def last_report(self, height: int) -> views.LastReport | None:
        """The last report, or None."""
        return await self._at(height, views.last_report(self._chain, height))

    async def report_lines(self, epoch: int, root: bytes, height: int) -> list[Line]:
        """All lines, paid storage too, of a report that a block has, from the transaction itself. Raises ObservingError if they are not under ``root``."""
        raws = await self._at(height, self._chain.raw_txs(height))
        info = (await self._at(height, views.ask(self._chain, "/stratos.pot.v1.Query/VolumeReport", height, epoch=epoch))).report_info
        try:
            raw = next(one for one in raws if tx_hash(one).hex().upper() == info.tx_hash)
            lines = _lines(decode_tx(raw).messages, epoch)
        except (StopIteration, AppError, ValueError) as error:
            raise ObservingError(
                f"the report of epoch {epoch} cannot be read from block {height} ({type(error).__name__}: {error}): ask another node of the value chain"
            ) from None
        if plain_root([line_bytes(line) for line in lines]) != root:
            raise ObservingError(f"the lines of epoch {epoch} in block {height} are not those under its root: ask another node of the value chain")
        return lines

    async def _at(self, height: int, asked: Awaitable[T]) -> T:
        try:
            return await asked
        except HeightMissing as error:
            raise NotTold(height, str(error)) from None
        except QueryFailed as error:
            raise NotTold(
                height,
                f"the chain's node does not tell its state at height {height}: {error}; if that stays so, use one that keeps old states "
                "(pruning = nothing), until the ledger has caught up",
            ) from None


def _lines(messages: Sequence[Any], epoch: int) -> list[Line]:
    """The lines of the report of an epoch among a transaction's messages. Raises ValueError, AppError."""
    commitment = next((one.commitment for one in messages if one.DESCRIPTOR.name == "MsgCommitEpoch" and one.commitment.epoch == epoch), None)
    report = next((one for one in messages if one.DESCRIPTOR.name == "MsgVolumeReport" and int(one.epoch) == epoch), None)
    if commitment is None or report is None:
        raise ValueError("the transaction has no report of that epoch")
    volumes: dict[bytes, int] = {}
    for one in report.wallet_volumes:
        wallet = wallet_of(one.wallet_address)
        if wallet is None:
            raise ValueError("a volume is of no wallet")
        volumes[wallet] = int(one.volume)
    return all_lines(read_lines(commitment), volumes)
