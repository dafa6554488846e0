"""What users make due at one time keeps no tick from passing; granted noz live no longer for being put together; endpoints are endpoints."""

from __future__ import annotations

import pytest

from chain.codec.registry import message_class
from sds_node.meta.ledger import tables as ledger_tables
from sds_node.meta.rules import refusals
from sds_node.meta.rules.call import Call
from sds_node.meta.rules.money import MAX_PROMO_PARTS, mean_end
from sds_node.meta.rules.nodes import is_eligible
from sds_node.meta.rules.shares import share_file
from sds_node.meta.rules.tables import FILE, LEASE, NODE, PROMO_NOZ, QUEUE
from sds_node.meta.rules.tick import WORK
from tests.sds_node.rules.support import CHAIN_ID, DAY_MS, Make, World, granted, lookup, message, meta, new_object, wallet

WalletDocument = message_class("stratos.settlement.v1.WalletDocument")
FILES = 40
MOST_CHANGES = 10_000


def shared_files(world: World, number: int) -> list[bytes]:
    """Files of a wallet without content, each with as many shares as one may have: their orders without signatures, which cost time here."""
    lease = world.lease(1_000, number)
    objects = [new_object(at, 0, [1, 2, 3], 1, lookup_number=number * 1_000 + at) for at in range(FILES)]
    world.ok("commit", message("Commit", lease_id=lease, objects=objects))
    files = sorted(lookup(number * 1_000 + at) for at in range(FILES))
    for at, key in enumerate(files):
        world.core.tables.open_operation()
        file = world.core.tables.get(FILE, (wallet(number), key))
        assert file is not None
        for share in range(100):
            name = f"{at * 100 + share:016x}"
            share_file(Call(world.core.tables, CHAIN_ID, meta(1), 1, world.time_ms), file, message("ShareFile", share_id=name, link=f"abcdef_{name}"))
        world.core.tables.close_operation(keep=True)
    return files


def all_done(world: World) -> list[int]:
    """Ticks until nothing is due, each of which has to pass."""
    done = [world.tick()]
    while done[-1] >= WORK:
        done.append(world.tick())
    return done


def test_files_with_many_shares_that_end_at_one_time_stop_no_tick(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_tables, "MAX_CHANGES", MOST_CHANGES)
    world = make(is_checked=False)
    files = shared_files(world, 1)
    other = world.lease(10**6)
    world.ok("wallet_order", WalletDocument(**world.order(delete=message("DeleteFiles", lookup_ids=files))))
    world.wait(8 * DAY_MS)
    world.is_checked = True
    assert len(all_done(world)) > 1
    assert world.wallet().shares == world.wallet().trash == 0
    assert world.core.tables.get(LEASE, (other,)) is None
    assert not [one for one in world.core.tables.scan(QUEUE, limit=10) if one.at_ms <= world.time_ms]


def test_files_that_many_small_grants_cannot_renew_stop_no_tick(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_tables, "MAX_CHANGES", MOST_CHANGES)
    world = make(is_checked=False)
    world.observe(granted(1, 10**6, world.time_ms // 1_000 + 300 * 86_400))
    lease = world.lease(10**6, fund=2)
    world.ok(
        "commit", message("Commit", lease_id=lease, objects=[new_object(at, 1_000, [1, 2, 3], 1, lookup_number=5_000 + at) for at in range(100)])
    )
    world.wait(365 * DAY_MS - 1)
    now_s = world.time_ms // 1_000
    # More parts than one renewal may take out, and those that it takes are too small for it.
    parts = [*(1 for _ in range(MAX_PROMO_PARTS)), 10**6]
    world.observe(*(granted(1, noz, now_s + (at + 2) * 86_400) for at, noz in enumerate(parts)))
    world.wait(2)
    all_done(world)
    row = world.object(lookup(5_000))
    assert (row.terms, row.state) == (1, 3)  # in grace
    assert world.wallet().promo_noz == sum(parts)


def test_granted_noz_of_many_days_do_not_live_on_by_one_that_ends_late(world: World) -> None:
    now_s = world.time_ms // 1_000
    world.observe(granted(1, 1_000, now_s + 2 * 86_400), granted(1, 1, now_s + 300 * 86_400))
    lease = world.lease(1_001, fund=2)
    row = world.core.tables.get(LEASE, (lease,))
    assert row is not None
    assert row.promo_ends_ms == world.time_ms + 2 * DAY_MS
    world.ok("settle_leases", message("SettleLeases", lease_ids=[lease]))
    (part,) = world.core.tables.scan(PROMO_NOZ, (wallet(1),), limit=5)
    assert (part.ends_ms, part.noz) == (world.time_ms + 2 * DAY_MS, 1_001)
    world.wait(2 * DAY_MS)
    world.tick()
    assert world.wallet().promo_noz == 0
    assert world.state.promo_expired_noz == 1_001


def test_no_day_of_a_noz_comes_from_nowhere() -> None:
    parts = [(10 * DAY_MS, 3), (11 * DAY_MS, 3), (300 * DAY_MS, 1)]
    mean = mean_end(parts)
    assert mean % DAY_MS == 0
    assert mean * 7 <= sum(end * noz for end, noz in parts) < (mean + DAY_MS) * 7
    assert mean_end([(5 * DAY_MS, 9)]) == 5 * DAY_MS
    assert mean_end([]) == 0
    assert mean_end([(5 * DAY_MS, 0)]) == 5 * DAY_MS


@pytest.mark.parametrize("text", ["nowhere", "host", "host:", "host:0", "host:65536", "::1:80", "[::1]", "a b:1", "[x]:1", "host:1:2", "host:+1"])
def test_an_endpoint_that_nobody_can_dial_is_refused(world: World, text: str) -> None:
    seen = message("NodeSeen", node=1, endpoint=text, prefix=b"abc", capacity_bytes=1, is_online=True)
    world.refused(refusals.BAD_FORM, "node_statuses", message("NodeStatuses", nodes=[seen]))


@pytest.mark.parametrize("text", ["", "127.0.0.1:18081", "node.example.org:1", "[2001:db8::1]:65535", ":5"])
def test_an_endpoint_that_can_be_dialed_is_taken(world: World, text: str) -> None:
    seen = message("NodeSeen", node=1, endpoint=text, prefix=b"abc", capacity_bytes=1, is_online=True)
    world.ok("node_statuses", message("NodeStatuses", nodes=[seen]))
    row = world.core.tables.get(NODE, (1,))
    assert row is not None
    assert row.endpoint == text
    assert is_eligible(row, world.time_ms)
