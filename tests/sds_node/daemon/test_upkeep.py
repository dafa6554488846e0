"""Upkeep of the disk: damage is found, the trash goes, meta nodes hear of a full disk, earnings go out by themselves."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sds_node.merkle import share_root
from sds_node.resource import store as shares
from sds_node.resource.daemon.upkeep import Upkeep
from sds_node.resource.daemon.withdrawing import Withdrawer
from sds_node.resource.receipts import open_receipts
from sds_node.value_chain.client import ChainUnavailable, TxRefused
from tests.sds_node.data.network import Clock, content

pytestmark = pytest.mark.asyncio
SERIAL = b"s" * 16


class Kept(SimpleNamespace):
    """An Upkeep over a real store and a real record."""

    upkeep: Upkeep
    store: shares.ShareStore
    told: list[str]


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    now = {"s": 0.0}
    clock = shares.Clock(lambda: 1_800_000_000 + now["s"], lambda: now["s"])
    settings = shares.Settings(reserve_bytes=0, pending_s=60, trash_s=60)
    told: list[str] = []
    with shares.open_store(tmp_path / "storage", settings, clock=clock) as store, open_receipts(tmp_path / "receipts.db") as receipts:
        upkeep = Upkeep(store, receipts, tmp_path, Clock(), 30.0, lambda: told.append("told"))
        yield Kept(upkeep=upkeep, store=store, told=told, now=now, home=tmp_path)
        upkeep.close()


def put(store: shares.ShareStore, data: bytes) -> bytes:
    root = share_root(data)
    with store.begin(root, len(data), SERIAL, b"") as writer:
        writer.write(data)
        writer.finish()
    return root


async def test_a_damaged_share_is_found_and_counted(kept: Kept) -> None:
    root = put(kept.store, content(1, 50_000))
    await kept.upkeep.tidy()
    assert (kept.upkeep.count["scrubbed"], kept.upkeep.count["damaged"]) == (1, 0)
    [path] = [one for one in (kept.home / "storage").rglob("*") if one.is_file() and root.hex() in one.name]
    with path.open("r+b") as file:
        file.seek(20_000)
        file.write(b"rot")
    await kept.upkeep.tidy()
    assert kept.upkeep.count["damaged"] == 1
    assert kept.store.totals().damaged == 1


async def test_what_nobody_confirmed_goes_to_the_trash_and_then_away(kept: Kept) -> None:
    root = put(kept.store, content(2, 10_000))
    kept.now["s"] = 61
    await kept.upkeep.tidy()
    assert kept.upkeep.count["expired"] == 1
    kept.now["s"] = 200
    await kept.upkeep.tidy()
    assert kept.upkeep.count["purged"] == 1
    assert not kept.store.has(root, SERIAL)


async def test_a_full_disk_is_told_once_and_again_when_there_is_room(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.statvfs
    monkeypatch.setattr("os.statvfs", lambda path: SimpleNamespace(f_bavail=1, f_frsize=4_096))
    await kept.upkeep.look()
    await kept.upkeep.look()
    assert (kept.upkeep.is_short, kept.told) == (True, ["told"])
    monkeypatch.setattr("os.statvfs", real)
    await kept.upkeep.look()
    assert (kept.upkeep.is_short, kept.told) == (False, ["told", "told"])


async def test_settled_receipts_are_forgotten_in_time(kept: Kept) -> None:
    await kept.upkeep.compact()
    assert kept.upkeep.count["forgotten"] == 0


async def test_what_one_loop_cannot_do_is_not_hidden_by_another(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    async def tidy() -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(kept.upkeep, "tidy", tidy)
    task = asyncio.create_task(kept.upkeep.run())
    await asyncio.sleep(0.2)
    assert list(kept.upkeep.problems) == ["tidy"]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


class Wallet:
    """Sends what it is asked to, or fails."""

    address = "st1wallet"

    def __init__(self, error: Exception | None = None) -> None:
        self.error, self.sent = error, []  # type: ignore[var-annotated]

    async def send(self, messages: list[Any], memo: str = "") -> Any:
        if self.error is not None:
            raise self.error
        self.sent += messages
        return SimpleNamespace(hash=b"h" * 32)


async def test_what_has_matured_is_withdrawn_once_it_is_enough() -> None:
    wallet, mature = Wallet(), [99]

    async def mature_wei() -> int:
        return mature[0]

    withdrawer = Withdrawer(wallet, mature_wei, 100, "st1target", 60)
    assert await withdrawer.look() == 0
    assert wallet.sent == []
    mature[0] = 250
    assert await withdrawer.look() == 250
    [message] = wallet.sent
    assert (message.wallet_address, message.target_address, message.amount[0].amount, message.amount[0].denom) == (
        "st1wallet",
        "st1target",
        "250",
        "wei",
    )
    assert withdrawer.withdrawn_wei == 250
    mature[0] = 0
    assert await Withdrawer(wallet, mature_wei, 0, "", 60).look() == 0, "nothing is nothing, whatever the threshold"


@pytest.mark.parametrize("error", [ChainUnavailable("down"), TxRefused("sdk", 5, "insufficient fee")])
async def test_a_withdrawal_that_fails_is_a_problem_and_tried_again(error: Exception) -> None:
    wallet = Wallet(error)

    async def mature_wei() -> int:
        return 1_000

    withdrawer = Withdrawer(wallet, mature_wei, 1, "", 60)
    assert await withdrawer.look() == 0
    assert withdrawer.problem
    wallet.error = None
    assert await withdrawer.look() == 1_000
    assert withdrawer.problem == ""
