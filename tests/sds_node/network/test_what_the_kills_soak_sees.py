"""The books of `make soak SOAK=storage-kills` on a network that lost nothing, and on the same one with one thing lost: each is seen."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sds_node.cipher import stored_bytes
from sds_node.resource.receipts import Progress
from sds_node.resource.store import open_store
from sds_node.testing.chain import CHAIN_ID
from sds_node.testing.network import StorageNetwork, key_of
from tests.soak.storage_at_rest import Lost, NodeHome, Told, at_rest, head_of, receipts_of
from tests.soak.storage_kills import listening

ALICE = key_of("alice").public_key.address
NAME, SIZE_BYTES = "kept.bin", 100_000


class AtRest:
    """A stopped network's folder, and what its user was told."""

    def __init__(self, folder: Path, nodes: list[NodeHome], told: Told) -> None:
        self.folder, self.nodes, self.told = folder, nodes, told

    @property
    def ledger(self) -> Path:
        return self.folder / "meta" / "data" / "ledger.db"

    def copied(self, target: Path) -> AtRest:
        shutil.copytree(self.folder, target, ignore=shutil.ignore_patterns("*.sock"))
        return AtRest(target, [replace(one, home=target / one.name) for one in self.nodes], replace(self.told))

    def look(self) -> dict[str, Any]:
        return at_rest(CHAIN_ID, self.ledger, self.nodes, self.folder / "again.db", self.told)

    def share(self) -> Path:
        return next(path for one in self.nodes for path in sorted((one.home / "storage" / "shares").rglob("*.*")))

    def changed(self, sql: str) -> None:
        """Change a record of receipts as no node does: of the first node that has one."""
        home = next(one.home for one in self.nodes if receipts_of(one.home))
        with contextlib.closing(sqlite3.connect(home / "receipts.db")) as database, database:
            database.execute(sql)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> AtRest:
    return asyncio.run(_made(tmp_path_factory.mktemp("rest") / "network"))


async def _made(folder: Path) -> AtRest:
    told = Told()
    async with StorageNetwork.started(folder, nodes=3, wallets=("alice",)) as network:
        told.before_noz[ALICE] = await network.buy_ozone("alice", 10**20)
        with listening(told):
            async with network.storage("alice") as storage:
                stored = await storage.put(random.Random(1).randbytes(SIZE_BYTES), NAME)
                async for _ in storage.read(NAME):
                    pass
        told.charged_noz[bytes.fromhex(stored.object_id)] = stored.charged_noz
        await network.until(lambda: len(network.meta.users.leases) == 0, "all leases are settled")
        async with network.storage("alice") as storage:
            told.after_noz[ALICE] = (await storage.balance()).paid_noz
        # What is settled in the ledger the nodes are told when they ask.
        homes = [NodeHome(f"node{one.number}", one.node.address, one.home.root) for one in network.resources if one.node is not None]
        receipts = [one.node.receipts for one in network.resources if one.node is not None]
        await network.until(lambda: not any(one.pending_count(1 << 40).result() for one in receipts), "nodes know what is settled")
    told.heads.append(head_of(folder / "meta", CHAIN_ID))
    told.receipts = {one.name: receipts_of(one.home) for one in homes}
    return AtRest(folder, homes, told)


def test_a_network_that_lost_nothing_is_found_whole(made: AtRest, tmp_path: Path) -> None:
    found = made.copied(tmp_path / "copy").look()
    assert (found["shares_on_disk"], found["receipts_settled"], found["receipts_acknowledged"]) == (3, 4, 4)
    assert found["receipts_noz"] == 3 * (stored_bytes(SIZE_BYTES) // 2) + stored_bytes(SIZE_BYTES)


def _no_share(one: AtRest) -> None:
    one.share().unlink()


def _share_in_the_trash(one: AtRest) -> None:
    with open_store(one.nodes[0].home / "storage") as store:
        store.trash([copy.key for copy in store.inventory()])


def _another_byte(one: AtRest) -> None:
    data = bytearray(one.share().read_bytes())
    data[1_000] ^= 1
    one.share().write_bytes(data)


def _refused(one: AtRest) -> None:
    (one.nodes[0].home / "refused.jsonl").write_text(json.dumps({"reason": "too late"}) + "\n")


def _higher_acknowledgement(one: AtRest) -> None:
    one.told.acknowledged = {serial: acked_bytes + 1 for serial, acked_bytes in one.told.acknowledged.items()}


def _unknown_acknowledgement(one: AtRest) -> None:
    one.told.acknowledged = {**one.told.acknowledged, bytes(16): 1}


def _more_before(one: AtRest) -> None:
    name = next(name for name, rows in one.told.receipts.items() if rows)
    rows = {serial: replace(row, acked_bytes=row.acked_bytes + 1) for serial, row in one.told.receipts[name].items()}
    one.told.receipts = {**one.told.receipts, name: rows}


def _another_head(one: AtRest) -> None:
    one.told.heads = [(sequence, bytes(32)) for sequence, _ in one.told.heads]


def _later_head(one: AtRest) -> None:
    one.told.heads = [(sequence + 1, log_hash) for sequence, log_hash in one.told.heads]


def _other_balance(one: AtRest) -> None:
    one.told.after_noz = {ALICE: one.told.after_noz[ALICE] - 1}


def _other_purchase(one: AtRest) -> None:
    one.told.before_noz = {ALICE: one.told.before_noz[ALICE] + 1}


def _other_charge(one: AtRest) -> None:
    one.told.charged_noz = {key: noz + 1 for key, noz in one.told.charged_noz.items()}


def _no_file(one: AtRest) -> None:
    one.told.charged_noz = {bytes(32): 1}


def _higher_sequence(one: AtRest) -> None:
    one.told.sequences = {ALICE: 1}


def _no_receipt(one: AtRest) -> None:
    one.told.receipts, one.told.acknowledged = {}, {}
    one.changed("DELETE FROM serials")


def _receipt_not_settled(one: AtRest) -> None:
    one.told.receipts = {}
    one.changed(f"UPDATE serials SET state = {int(Progress.FINAL)}")


@pytest.mark.parametrize(
    ("lose", "text"),
    [
        (_no_share, "is not what was stored"),
        (_share_in_the_trash, "is not on its disk"),
        (_another_byte, "is not what was stored"),
        (_refused, "were refused for good"),
        (_higher_acknowledgement, "a node acknowledged the receipt"),
        (_unknown_acknowledgement, "a node acknowledged the receipt"),
        (_more_before, "when it was killed"),
        (_another_head, "is another one, or none"),
        (_later_head, "is another one, or none"),
        (_other_balance, "its bills are"),
        (_other_purchase, "its bills are"),
        (_other_charge, "was charged"),
        (_no_file, "was confirmed to its user"),
        (_higher_sequence, "its sequence number is"),
        (_no_receipt, "nodes have settled receipts of"),
        (_receipt_not_settled, "is not what was written"),
    ],
)
def test_whatever_is_lost_is_seen(made: AtRest, tmp_path: Path, lose: Callable[[AtRest], None], text: str) -> None:
    copy = made.copied(tmp_path / "copy")
    lose(copy)
    with pytest.raises(Lost, match=text):
        copy.look()
