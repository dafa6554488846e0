"""A node restored from a snapshot and one replayed from genesis, after many blocks in which the validator set keeps changing.

The history is drawn as the simulation draws it, with messages of every module. A first application makes it. The second is given a snapshot of an
early height and the blocks since, the third, which differs in all an operator may choose, every block from genesis: as CometBFT would give them, and
each answer is compared with the first one's. At the end every key and value of every store is.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from chain.app import build_application
from chain.application import Application, Settings
from chain.codec.registry import message_class
from chain.store.kv import MemoryBackend, open_backend
from chain.store.pruning import Pruning
from chain.store.state import State
from chain.testing.driver import DEFAULT_KEYS, Committed, Driver
from tests.simulation.generate import VALIDATORS, Generator, genesis
from tests.simulation.run import Run
from tests.simulation.world import World

SNAPSHOT_HEIGHT = 15
OPERATIONS = 10
PARTS = 10
"""Of the history; in each of them validators have to be made and delegated to, and the set to change."""
KINDS = ("sets_changed", "delegations", "validators_made", "jailed")
ACCEPT = 1
PLAIN = Settings(native_core=False, fast_sends=False, verdict_cache=0, workers=0)


def compare(seed: int, blocks: int, folder: Path) -> dict[str, Any]:
    """Figures of ``blocks`` blocks after the snapshot. Raises AssertionError (Disagreement names the height and what differs)."""
    started = time.monotonic()
    running = Run(genesis(seed), lambda: build_application(MemoryBackend(), snapshots=folder / "snapshots"))
    driver, first = running.driver, running.app
    driver.keep_blocks = None
    world = World(driver, random.Random(seed))
    generator = Generator(world)
    synced = None
    while driver.height < SNAPSHOT_HEIGHT + blocks:
        world.max_validator_keys = VALIDATORS + (DEFAULT_KEYS - VALIDATORS) * (driver.height + SNAPSHOT_HEIGHT) // (blocks + 2 * SNAPSHOT_HEIGHT)
        running.block(generator.block(OPERATIONS))  # new validators up to the end
        if driver.height == SNAPSHOT_HEIGHT:
            synced = _restored(driver, first, folder)
    assert synced is not None
    made = time.monotonic()
    changes = [_changes(driver.blocks[height]) for height in range(SNAPSHOT_HEIGHT + 1, driver.height + 1)]
    driver.apps = [first, synced, build_application(MemoryBackend(), PLAIN)]
    assert driver.handshake(1) == blocks
    assert driver.handshake(2) == driver.height
    _equal(driver)
    figures = {
        "blocks": blocks,
        "snapshot_height": SNAPSHOT_HEIGHT,
        "made_in_s": round(made - started),
        "followed_in_s": round(time.monotonic() - made),
        "txs": sum(len(driver.blocks[height].block.data.txs) for height in driver.blocks),
        **sum(changes, Counter()),
        "by_part": _parts(changes),
        "validators_ever": len({one.address for height in driver.blocks for one in driver.blocks[height].validators}),
        "splits": 0,
        "app_hash": driver.app_hash.hex(),
    }
    for app in driver.apps:
        app.close()  # type: ignore[attr-defined]
    return figures


def _restored(driver: Driver, source: Application, folder: Path) -> Application:
    """An application on disk that has the snapshot and no block; it prunes."""
    assert source.snapshots is not None
    source.snapshots.take(driver.height)
    app = build_application(open_backend("goleveldb", folder / "synced.db"), pruning=Pruning.named("custom", 10, 10))
    [snapshot] = source.list_snapshots(None).snapshots
    offer = message_class("tendermint.abci.RequestOfferSnapshot")(snapshot=snapshot, app_hash=driver.app_hash)
    assert app.offer_snapshot(offer).result == ACCEPT
    for number in range(snapshot.chunks):
        request = message_class("tendermint.abci.RequestLoadSnapshotChunk")(height=snapshot.height, format=snapshot.format, chunk=number)
        chunk = source.load_snapshot_chunk(request).chunk
        apply = message_class("tendermint.abci.RequestApplySnapshotChunk")(index=number, chunk=chunk, sender="first")
        assert app.apply_snapshot_chunk(apply).result == ACCEPT
    assert app.latest_height == driver.height
    return app


def _changes(stored: Committed) -> Counter[str]:
    """What a block did to validators."""
    found: Counter[str] = Counter(sets_changed=bool(stored.response.validator_updates))
    events = [*stored.response.events, *(event for result in stored.response.tx_results for event in result.events)]
    kinds = Counter(event.type for event in events)
    found.update(
        delegations=kinds["delegate"] + kinds["unbond"] + kinds["redelegate"],
        validators_made=kinds["create_validator"],
        jailed=sum(pair.key == "jailed" for event in events if event.type == "slash" for pair in event.attributes),
    )
    return found


def _parts(changes: list[Counter[str]]) -> list[dict[str, int]]:
    size = -(-len(changes) // PARTS)
    return [dict(sum(changes[start : start + size], Counter())) for start in range(0, len(changes), size)]


def _equal(driver: Driver) -> None:
    """Raise AssertionError unless the applications agree in every key and value, in what they export, and with CometBFT's set."""
    apps: list[Any] = list(driver.apps)
    assert {app.store.app_hash for app in apps} == {driver.app_hash}
    expected = _contents(apps[0])
    assert all(_contents(app) == expected for app in apps[1:])
    exported = apps[0].export()
    assert all(app.export() == exported for app in apps[1:])
    assert all(app.broken_invariants() == [] for app in apps)
    powers = sorted(int(one["power"]) for one in exported["staking"]["last_validator_powers"])
    assert powers == sorted(one.power for one in driver.next_validators)


def _contents(app: Application) -> dict[str, dict[bytes, bytes]]:
    with app.store.view() as view:
        state = State(view, app.store.names)
        return {name: dict(state.store(name).iterate()) for name in app.store.names}


def statesync_blocks(seed: int) -> dict[str, Any]:
    """2,000 blocks. Raises AssertionError also when a tenth of them left validators as they were."""
    with tempfile.TemporaryDirectory() as folder:
        figures = compare(seed, 2000, Path(folder))
    assert figures["jailed"] >= PARTS
    for number, part in enumerate(figures["by_part"]):
        assert all(part.get(name) for name in KINDS if name != "jailed"), f"part {number} of the history leaves validators as they are: {part}"
    return figures
