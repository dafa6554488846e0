"""Whatever bytes come from a meta node or from disk: a clean refusal, or nothing is lost by it."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import DecodeError

from sds_node import asking
from sds_node.client.errors import StorageError
from sds_node.client.journal import Journals
from sds_node.client.leases import Lease
from sds_node.client.placing import PutWanted
from sds_node.client.session import open_session
from sds_node.client.sources import FileSource
from sds_node.client.storage import Storage
from sds_node.merkle import segment_root
from sds_node.schemes import THREE_REPLICAS
from tests.sds_node.client.network import Network, network
from tests.sds_node.documenting import CHAIN_ID, PAYER, certificate

ROUNDS = 400


def broken(data: bytes, dice: random.Random) -> bytes:
    """The same bytes with a few changed, cut out or put in."""
    made = bytearray(data)
    for _ in range(dice.randint(1, 4)):
        at = dice.randrange(len(made) + 1)
        kind = dice.randrange(3)
        if kind == 0 and at < len(made):
            made[at] ^= 1 << dice.randrange(8)
        elif kind == 1:
            del made[at : at + dice.randint(1, 8)]
        else:
            made[at:at] = dice.randbytes(dice.randint(1, 8))
    return bytes(made)


async def rows(net: Network, storage: Storage) -> list[Any]:
    await storage.put(b"private", "d/private")
    await storage.put(b"", "empty")
    await storage.put(b"public", "public", public=True)
    return [(await storage.files.find(name)).row for name in ("d/private", "empty", "public")] + [(await storage.files.at("d", is_folder=True)).row]


@pytest.mark.asyncio
async def test_records_of_any_form_are_read_or_refused(tmp_path: Path) -> None:
    dice = random.Random(1)
    async with network(tmp_path, 3) as net, net.storage() as storage:
        for row in await rows(net, storage):
            data = row.SerializeToString()
            for _ in range(ROUNDS):
                with contextlib.suppress(DecodeError, StorageError):
                    given = asking.FileRow.FromString(broken(data, dice))
                    entry = storage.files.entry(given)
                    file = storage.files.checked(given)
                    assert entry is None or entry.is_folder or entry.size_bytes == file.size_bytes
                    storage._key(file)


@pytest.mark.asyncio
async def test_places_of_any_form_are_what_was_asked_for_or_refused(tmp_path: Path) -> None:
    dice, roots = random.Random(2), (b"r" * 32,) * 3
    async with network(tmp_path, 3) as net, net.storage() as storage:
        hold = await storage._ways.leases.hold(10**6)
        wanted = PutWanted(b"o" * 32, 0, 1_000, THREE_REPLICAS, roots)
        assert segment_root(roots)
        ask = asking.PutAsk(counter=1, object_bytes=1_000, segment_bytes=1_000, data_shares=1, total_shares=3, share_roots=roots)
        head = asking.PlacePutHead(lease_id=hold.lease.lease_id, segments=[ask])
        answer = await storage._client.ask(asking.PLACE_PUT, head, asking.Places, meta=hold.lease.meta)
        data = answer.places[0].SerializeToString()
        for _ in range(ROUNDS):
            with contextlib.suppress(DecodeError, StorageError):
                place = storage._ways.places._put_place(hold.lease, asking.PlacedShare.FromString(broken(data, dice)), wanted, 0)
                assert place.limit.max_noz <= 1_000
                assert place.limit.lease_id == hold.lease.lease_id


@pytest.mark.asyncio
async def test_a_journal_of_any_form_is_used_or_left_alone(tmp_path: Path) -> None:
    dice, source = random.Random(3), tmp_path / "source"
    source.write_bytes(bytes(40 << 20))
    now_s = source.stat().st_mtime

    def clock() -> float:
        return now_s

    session = open_session(PAYER, CHAIN_ID, max_noz=10, actions=[1, 2], clock=clock)
    given = FileSource(source)
    journals = Journals(tmp_path / "puts", PAYER, CHAIN_ID, clock)
    lease = Lease(certificate(), b"L" * 32, b"m" * 20, 10, 10, int(now_s) + 3_600)
    journal = await journals.begin(given, "name", False, 40 << 20, THREE_REPLICAS, session, lease, 7, b"k" * 32)
    assert journal is not None
    journal._note({"segment": 0, "root": "aa" * 32})
    journal._note({"segment": 0, "stored": "AAAA"})
    await journal.close()
    data = journal.path.read_bytes()
    found = await journals.find(given, "name", False)
    assert found is not None
    assert (found.key, found.counter, found.roots, found.session.seed) == (b"k" * 32, 7, {0: b"\xaa" * 32}, session.seed)
    assert await journals.find(given, "other", False) is None
    for _ in range(ROUNDS):
        journal.path.write_bytes(broken(data, dice))
        again = await journals.find(given, "name", False)
        assert again is None or (len(again.session.public_key), len(again.key), len(again.meta)) == (32, 32, 20)
    journal.path.write_bytes(data[:-5])
    torn = await journals.find(given, "name", False)
    assert torn is not None
    assert (torn.roots, torn.done) == ({0: b"\xaa" * 32}, {})
    assert journal.path.read_bytes().endswith(b"\n")
