"""Twelve resource nodes and four meta nodes, while two users put and read: nodes lose their disks, disks rot, a meta node dies.

More of it, the chain that stops and the network that is cut in two are `make soak SOAK=storage-faults`.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from sds_node.meta.federation.duties import TURN_DAYS, of_node
from sds_node.p2p import address_of
from sds_node.resource.store import State
from sds_node.testing.network import RunningResource, StorageNetwork
from tests.soak.storage_at_rest import Lost
from tests.soak.storage_faults import METAS, full_size
from tests.soak.storage_faults_books import Rest, at_rest

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(600)]


async def test_two_wiped_nodes_rotten_disks_and_a_dead_meta_node_lose_nothing_and_nothing_is_paid_twice(tmp_path: Path) -> None:
    async with full_size(tmp_path / "network", seed=1) as faults:
        await faults.pair()
        await asyncio.gather(faults.damaged_pair(of_different_duties(faults.network), part=1.0), faults.meta_dies(METAS - 1))
        await faults.end()
        assert faults.seen.bad
        assert faults.seen.done["reads"]
    rest = faults.rest()
    found = await asyncio.to_thread(at_rest, rest)
    assert found["moves"]
    assert found["receipts_of_repair"]
    what_is_lost_or_paid_twice_is_seen(rest)


def what_is_lost_or_paid_twice_is_seen(rest: Rest) -> None:
    """The same books with one thing wrong: those who compare them see it."""
    told = rest.told
    with pytest.raises(Lost, match="was confirmed to its user"):
        at_rest(replace(rest, told=replace(told, charged_noz={bytes(32): 1})))
    with pytest.raises(Lost, match="its bills are"):
        at_rest(replace(rest, told=replace(told, after_noz={wallet: noz - 1 for wallet, noz in told.after_noz.items()})))
    with pytest.raises(Lost, match="a node acknowledged the receipt"):
        at_rest(replace(rest, told=replace(told, acknowledged={bytes(16): 1})))
    # A receipt that is paid twice: first in the books of some meta nodes alone, then in those of all.
    for home in rest.metas:
        with contextlib.closing(sqlite3.connect(home.books)) as books, books:
            books.execute("UPDATE leaves SET noz = 2 * noz WHERE id = (SELECT min(id) FROM leaves WHERE state = 3 AND action = 1 AND noz > 0)")
        with pytest.raises(Lost, match="its leaves pay" if home is rest.metas[-1] else "leaves differ"):
            at_rest(rest)


def of_different_duties(network: StorageNetwork) -> list[RunningResource]:
    """Two nodes, of those with most shares, that are two meta nodes' duty: what is damaged at them has to come together all the same. Neither is the duty of
    the one that dies."""
    first: dict[bytes, RunningResource] = {}
    meta, turn_s = network.meta, TURN_DAYS * network.meta.settings.times.audit_day_s
    numbers = {row.address: number for number, row in meta.registry.rows().items()}
    for one in sorted(network.resources, key=lambda one: one.node.store.totals().count(*State) if one.node is not None else 0, reverse=True):
        number = numbers[address_of(bytes(one.key.verify_key))]
        first.setdefault(meta.duties.first(of_node(number, turn_s, network.clock())), one)
    first.pop(network.metas[METAS - 1].keys.address, None)
    return list(first.values())[:2]
