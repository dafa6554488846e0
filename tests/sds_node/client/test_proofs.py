"""Balance and files against an epoch's roots: what a meta node makes up does not hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from chain.codec.canonical import encode
from chain.codec.registry import message_class
from modules.settlement.trees import plain_root
from sds_node import asking
from sds_node.client.errors import MetaLied, NotFound, StorageError
from sds_node.client.storage import Storage
from sds_node.meta.books.wallets import records_of, trees_of
from sds_node.proofs import Proof, index_of, prove
from sds_node.value_chain.client import QueryFailed
from tests.sds_node.client.network import Network, network
from tests.sds_node.rules.support import wallet


class Chain:
    """A chain node that has one committed epoch."""

    def __init__(self, balances_root: bytes, files_root: bytes) -> None:
        self.roots = {"balances_root": balances_root, "files_root": files_root}
        self.url = "a chain"

    async def query(self, path: str, request: Any, response: Any, height: int = 0) -> Any:
        if request.epoch != 5:
            raise QueryFailed("sdk", 38, "not found")
        epoch = message_class("stratos.settlement.v1.CommittedEpoch")(epoch=5, height=77, roots=self.roots)
        return response(epoch=epoch)


def told(proof: Proof) -> dict[str, Any]:
    return {"leaf": proof.leaf, "index": proof.index, "count": proof.count, "path": proof.path}


async def epoch_made(net: Network, lookup_id: bytes, **changes: Any) -> Chain:
    """An epoch of what the ledger has now, which the meta node proves."""
    balances, files = await net.ledger.query(lambda view: trees_of(view, None))
    records = await net.ledger.query(lambda view: list(records_of(view, wallet(1))))
    at_balance, at_files = index_of(balances, wallet(1)), index_of(files, wallet(1))
    assert at_balance is not None
    assert at_files is not None
    answer: dict[str, Any] = {"epoch": 5, "balance": told(prove(balances, at_balance)), "files": told(prove(files, at_files))}
    found = next((at for at, (key, _) in enumerate(records) if key == lookup_id), None)
    if found is not None:
        answer["record"] = told(prove([record for _, record in records], found))

    async def serve(stream: Any, connection: Any) -> None:
        made = asking.EpochProof(**answer)
        for name, value in changes.items():
            part, _, field = name.partition("__")
            setattr(getattr(made, part) if field else made, field or part, value)
        await stream.send(encode(made))
        stream.end()

    net.server.node.handlers[asking.EPOCH_PROOF] = serve
    return Chain(plain_root(balances), plain_root(files))


async def lookup_id(storage: Storage, name: str) -> bytes:
    return bytes((await storage.files.find(name)).row.lookup_id)


@pytest.mark.asyncio
async def test_balance_and_files_are_proved_by_the_roots_of_an_epoch(tmp_path: Path) -> None:
    async with network(tmp_path, 3, wallets=2) as net, net.storage() as storage:
        for name in ("a", "b", "c"):
            await storage.put(b"x", name)
        chain: Any = await epoch_made(net, await lookup_id(storage, "b"))
        proved = await storage.prove(chain, "b")
        assert (proved.epoch, proved.height, proved.files, proved.path) == (5, 77, 3, "b")
        balance = await storage.balance()
        assert (proved.paid_noz, proved.promo_noz) == (balance.paid_noz, balance.promo_noz)
        await storage.put(b"another version", "b")
        with pytest.raises(NotFound, match="another version"):
            await storage.prove(chain, "b")
        await storage.put(b"new", "d")
        assert (await storage.prove(chain)).files == 3
        chain = await epoch_made(net, b"")
        with pytest.raises(NotFound, match="next epoch"):
            await storage.prove(chain, "d")


@pytest.mark.asyncio
async def test_proofs_that_do_not_lead_to_the_chains_roots_are_refused(tmp_path: Path) -> None:
    async with network(tmp_path, 3, wallets=3) as net, net.storage() as storage:
        await storage.put(b"x", "a")
        identity = await lookup_id(storage, "a")
        lies: list[dict[str, Any]] = [
            {"balance__leaf": wallet(1) + b"\xff" * 32},
            {"balance__index": 77},
            {"files__leaf": wallet(1) + b"\x00" * 7 + b"\x09" + b"r" * 32},
            {"record__leaf": b"made up"},
            {"balance__leaf": b""},
        ]
        for lie in lies:
            chain: Any = await epoch_made(net, identity, **lie)
            with pytest.raises(MetaLied, match="does not lead"):
                await storage.prove(chain, "a")
        chain = await epoch_made(net, identity, epoch=6)
        with pytest.raises(StorageError, match="no epoch 6"):
            await storage.prove(chain, "a")
        with pytest.raises(MetaLied, match="expected a proof for epoch 4"):
            await storage.prove(chain, "a", epoch=4)
