"""A wallet's files through a whole network: in, out, in ranges, public and private."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.sds_node.client.network import network

MIB = 1 << 20


def content(number: int, size_bytes: int) -> bytes:
    return random.Random(number).randbytes(size_bytes)


@pytest.mark.asyncio
async def test_what_was_put_is_got_back_in_all_sizes_private_and_public(tmp_path: Path) -> None:
    async with network(tmp_path) as net, net.storage() as storage:
        for number, size in enumerate((0, 1, 16 * 1024 - 1, 16 * 1024, 16 * 1024 + 1, MIB, 5 * MIB + 3)):
            data = content(number, size)
            for public in (False, True):
                name = f"{'public' if public else 'private'}/{size}"
                stored = await storage.put(data, name, public=public)
                assert (stored.size_bytes, stored.is_public, stored.name) == (size, public, name)
                target = tmp_path / "out"
                entry = await storage.get(name, target)
                assert target.read_bytes() == data
                assert (entry.file_hash, entry.size_bytes, entry.path) == (stored.file_hash, size, name)
                again = b"".join([bytes(one) async for one in storage.read(name, size // 3, size // 2)])
                assert again == data[size // 3 : size // 3 + size // 2]


@pytest.mark.asyncio
async def test_a_file_of_several_segments_comes_from_disk_and_goes_to_disk(tmp_path: Path) -> None:
    data, source, seen = content(9, 33 * MIB), tmp_path / "source", list[tuple[int, int]]()
    source.write_bytes(data)
    async with network(tmp_path) as net, net.storage(state=tmp_path / "state") as storage:
        stored = await storage.put(source, "big.bin", progress=lambda done, total: seen.append((done, total)))
        assert seen[-1] == (len(data), len(data))
        await storage.get("big.bin", tmp_path / "out")
        assert (tmp_path / "out").read_bytes() == data
        assert stored.charged_noz >= 2 * len(data)
        assert stored.handle.startswith(f"sdm://{storage.wallet}/{stored.file_hash}/big.bin")
        assert not list((tmp_path / "state" / "puts").iterdir())
