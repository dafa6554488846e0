"""A meta node takes no more of a wallet on a day: what is begun goes to another one, and where there is none its user reads why."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

from sds_node import asking
from sds_node.client.errors import MetaUnreachable
from sds_node.client.storage import Storage
from sds_node.meta.rules.tables import LEASE, OBJECT
from sds_node.meta.users import Users
from sds_node.meta.users import sessions as module
from sds_node.wire.errors import Refused
from tests.sds_node.client.network import META_ADDRESS, SECOND_ADDRESS, Network, came, network

pytestmark = pytest.mark.asyncio


def content(number: int, size_bytes: int = 5_000) -> bytes:
    return random.Random(number).randbytes(size_bytes)


def use_the_day(net: Network, users: Users) -> None:
    """The wallet has filled its part of it."""
    logged = users.sessions.account(net.wallet().public_key.address).logged
    logged.day, logged.size_bytes = int(net.clock()) // 86_400, module.MOST_LOGGED_BYTES


def both(net: Network) -> Storage:
    assert net.second is not None
    return Storage(net.wallet(), "stratos-test-1", [net.where, net.second], clock=net.clock)


async def read(storage: Storage, name: str) -> bytes:
    return b"".join([bytes(part) async for part in storage.read(name)])


async def leases(net: Network) -> list[bytes]:
    """The meta nodes of the leases that there are."""
    rows = await net.ledger.query(lambda view: view.scan(LEASE, limit=100))
    return sorted(row.meta_node for row in rows)


async def objects(net: Network) -> int:
    return len(await net.ledger.query(lambda view: view.scan(OBJECT, limit=100)))


async def test_files_and_folders_go_to_another_meta_node(tmp_path: Path) -> None:
    async with network(tmp_path, 3, has_second=True) as net, both(net) as storage:
        use_the_day(net, net.users)
        await storage.put(content(1), "a/b/f")
        assert await read(storage, "a/b/f") == content(1)
        assert await leases(net) == [SECOND_ADDRESS]
        assert not {asking.PLACE_PUT, asking.OBJECT_COMMIT} & net.counts.keys(), "nothing was begun where it could not end"


async def test_a_day_that_is_used_in_the_middle_loses_nothing_that_was_paid(tmp_path: Path) -> None:
    """What has places is confirmed where it has them; a new file, an empty one and a folder go on elsewhere."""
    async with network(tmp_path, 3, has_second=True) as net, both(net) as storage:
        await storage.put(content(1), "first")
        is_there, go_on = asyncio.Event(), asyncio.Event()

        async def used(handler: Any, stream: Any, connection: Any) -> None:
            is_there.set()
            await go_on.wait()
            await handler(stream, connection)

        net.changes[asking.OBJECT_COMMIT] = used
        names = [f"f{number}" for number in range(4)]
        tasks = [asyncio.create_task(storage.put(content(number), name)) for number, name in enumerate(names)]
        await came(is_there, *tasks)
        tasks.append(asyncio.create_task(storage.put(b"", "empty", public=True)))
        use_the_day(net, net.users)
        go_on.set()
        await asyncio.gather(*tasks)
        await asyncio.gather(storage.put(content(9), "later"), storage.mkdir("folder"))
        assert [await read(storage, name) for name in [*names, "empty", "later"]] == [*(content(number) for number in range(4)), b"", content(9)]
        assert await leases(net) == sorted([META_ADDRESS, SECOND_ADDRESS])
        assert await objects(net) == 8
        copies = sum(len(list(node.store.inventory())) for node in net.nodes)
        assert copies == 3 * len(["first", *names, "later"]), "none was stored twice"


async def test_files_that_are_stored_and_not_confirmed_since_the_whole_meta_node_is_full_are_stored_by_another(tmp_path: Path) -> None:
    async def full(handler: Any, stream: Any, connection: Any) -> None:
        raise Refused(asking.TRY_ANOTHER, "what this meta node may have in the log today is used up")

    async with network(tmp_path, 3, has_second=True) as net, both(net) as storage:
        net.changes[asking.OBJECT_COMMIT] = full
        await asyncio.gather(*(storage.put(content(number), f"f{number}") for number in range(4)))
        assert [await read(storage, f"f{number}") for number in range(4)] == [content(number) for number in range(4)]
        assert (net.counts[asking.LEASE_TAKE], await objects(net)) == (1, 4), "no lease was taken there again"


async def test_a_user_who_knows_no_other_meta_node_reads_what_it_says(tmp_path: Path) -> None:
    async with network(tmp_path, 3) as net, net.storage() as storage:
        await storage.put(content(1), "f")
        use_the_day(net, net.users)
        with pytest.raises(MetaUnreachable, match=r"this wallet has filled .* go on tomorrow") as caught:
            await storage.put(content(2), "g")
        assert "no meta node answers" not in str(caught.value)
