"""What the ledger's log says of objects whose manifests nodes are given anew: also of those that a newer version or an order put into the trash."""

from __future__ import annotations

from pathlib import Path

import pytest

from sds_node.meta.ledger.engine import snapshot
from sds_node.meta.rebuild import stating
from sds_node.meta.rebuild.stating import Changes, changes
from sds_node.meta.rules.apply import rules
from sds_node.meta.rules.tables import OBJECT, TRASHED
from tests.sds_node.rules.support import CHAIN_ID, World, lookup, message, new_object

LATER_MS = 1 << 50


def stored(world: World, counters: range, *, place: int = 0, size_bytes: int = 1_000) -> None:
    """Files of wallet 1, at places of their own or at one."""
    lease = world.lease(20_000, 1)
    made = [new_object(counter, size_bytes, [1, 2, 3], lookup_number=place or counter) for counter in counters]
    world.ok("commit", message("Commit", lease_id=lease, objects=made))


def changed(world: World, folder: Path, after: int) -> tuple[Changes, set[bytes]]:
    """What operations after one changed, and what is in the trash."""
    world.close()
    with snapshot(f"sqlite:///{folder}/ledger.db", rules(CHAIN_ID)) as view:
        found = Changes(after)
        while True:
            page = changes(view, found.after, LATER_MS)
            found.after, found.complete, found.records = page.after, found.complete | page.complete, found.records | page.records
            if page.is_all:
                return found, {row.id for row in view.scan(OBJECT, limit=1_000) if row.state == TRASHED}


def test_a_version_that_is_stored_over_is_given_anew_as_one_in_the_trash(tmp_path: Path) -> None:
    world = World(tmp_path)
    stored(world, range(1, 2), place=7)
    world.wait(1_000)
    at = len(world.applied)
    stored(world, range(2, 3), place=7)
    found, trashed = changed(world, tmp_path, at)
    assert len(found.complete) == len(trashed) == 1
    assert found.records == trashed


def test_all_that_an_order_deletes_is_given_anew_however_much_is_in_the_trash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stating, "QUEUED", 3)
    world = World(tmp_path)
    stored(world, range(1, 9))
    world.ok("wallet_order", world.order(delete=message("DeleteFiles", lookup_ids=sorted(map(lookup, range(1, 4))))))
    world.wait(1_000)
    at = len(world.applied)
    world.ok("wallet_order", world.order(delete=message("DeleteFiles", lookup_ids=sorted(map(lookup, range(4, 8))))))
    found, trashed = changed(world, tmp_path, at)
    assert len(trashed) == 7
    assert len(found.records) == 4
    assert found.records < trashed
