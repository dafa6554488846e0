"""Files, the trash, renewal, shares."""

from __future__ import annotations

from typing import Any

import pytest

from sds_node.meta.rules import files, objects, refusals, shares, tick
from sds_node.meta.rules.invariants import walk
from sds_node.meta.rules.objects import released_until
from sds_node.meta.rules.shares import share_key
from sds_node.meta.rules.tables import FILE, GRACE, HELD, KEPT, OBJECT, SEGMENT, SHARE, TRASH, TRASHED
from sds_node.schemes import SEGMENT_BYTES
from tests.sds_node.rules.support import DAY_MS, HASH, Make, World, granted, lookup, message, new_object, record, sold, wallet

SHARE_ID, LINK = "0123456789abcdef", "r4nd0m_0123456789abcdef"


def stored(world: World, size_bytes: int = 1_000_000, number: int = 1, **changes: Any) -> Any:
    return world.put(world.lease(10 * size_bytes + 100), number, size_bytes, [1, 2, 3], **changes)


def delete(world: World, *numbers: int, by: int = 1) -> Any:
    return world.order(by, delete=message("DeleteFiles", lookup_ids=sorted(lookup(number) for number in numbers)))


def settle_all(world: World) -> None:
    world.wait(4_200_000)
    world.tick()


def test_a_deleted_file_is_in_the_trash_and_its_noz_come_back_when_that_ends(world: World) -> None:
    row = stored(world)
    settle_all(world)
    before = world.wallet().paid_noz
    world.ok("wallet_order", delete(world, 1))
    assert (world.wallet().files, world.wallet().trash) == (0, 1)
    assert world.object_by_id(row.id).state == TRASHED
    world.wait(7 * DAY_MS)
    assert world.release({"node": 1}) == 1  # what the trash has is kept, and paid
    paid = released_until(500_000, 7, 365)
    world.tick()
    assert world.wallet().paid_noz == before + row.escrow_noz - paid
    assert [world.core.tables.scan(table, limit=1) for table in (OBJECT, SEGMENT, HELD, TRASH, FILE)] == [[], [], [], [], []]


def test_a_restored_file_is_where_it_was(world: World) -> None:
    row = stored(world)
    world.ok("wallet_order", delete(world, 1))
    world.refused(refusals.UNKNOWN_FILE, "wallet_order", world.order(2, restore=message("RestoreFiles", object_ids=[row.id])))
    world.wait(7 * DAY_MS - 1)
    world.ok("wallet_order", world.order(restore=message("RestoreFiles", object_ids=[row.id])))
    after = world.object(lookup(1))
    assert (after.state, after.due_ms, after.escrow_noz) == (KEPT, row.due_ms, row.escrow_noz)
    world.refused(refusals.UNKNOWN_FILE, "wallet_order", world.order(restore=message("RestoreFiles", object_ids=[row.id])))


def test_the_trash_gives_nothing_back_once_its_time_is_over(world: World) -> None:
    row = stored(world)
    world.ok("wallet_order", delete(world, 1))
    world.wait(7 * DAY_MS)
    world.refused(refusals.WRONG_STATE, "wallet_order", world.order(restore=message("RestoreFiles", object_ids=[row.id])))


def test_a_new_version_puts_the_old_one_into_the_trash(world: World) -> None:
    old = stored(world)
    new = stored(world, 5_000, 2, lookup_number=1)
    assert world.object(lookup(1)).id == new.id
    assert [one.object for one in walk(world.core.tables, TRASH)] == [old.id]
    world.refused(refusals.TAKEN, "wallet_order", world.order(restore=message("RestoreFiles", object_ids=[old.id])))


def test_a_file_is_renamed_to_a_place_that_is_free(world: World) -> None:
    row = stored(world)
    stored(world, 10, 2)
    rename = message("RenameFile", lookup_id=lookup(1), file=record(3, name=b"new", is_public=True))
    world.ok("wallet_order", world.order(rename=rename))
    assert world.object(lookup(3)).id == row.id
    renamed = world.core.tables.get(FILE, (wallet(1), lookup(3)))
    assert renamed is not None
    assert (renamed.name, renamed.is_public) == (b"new", True)
    world.refused(refusals.UNKNOWN_FILE, "wallet_order", world.order(rename=rename))
    world.refused(refusals.TAKEN, "wallet_order", world.order(rename=message("RenameFile", lookup_id=lookup(3), file=record(2))))
    world.ok("wallet_order", world.order(rename=message("RenameFile", lookup_id=lookup(3), file=record(3, name=b"again"))))
    world.refused(refusals.BAD_FORM, "wallet_order", world.order(rename=message("RenameFile", lookup_id=lookup(3))))


def test_what_is_not_there_is_neither_deleted_nor_renewed(world: World) -> None:
    stored(world)
    for lookup_ids, code in [
        ([lookup(2)], refusals.UNKNOWN_FILE),
        (sorted([lookup(1), lookup(2)]), refusals.UNKNOWN_FILE),
        ([lookup(1)] * 2, refusals.BAD_FORM),
        ([b"short"], refusals.BAD_FORM),
        ([], refusals.BAD_FORM),
    ]:
        for kind, name in (("delete", "DeleteFiles"), ("renew", "RenewFiles")):
            world.refused(code, "wallet_order", world.order(**{kind: message(name, lookup_ids=lookup_ids)}))
    world.refused(refusals.UNKNOWN_FILE, "wallet_order", delete(world, 1, by=2))
    world.refused(refusals.BAD_FORM, "wallet_order", world.order(restore=message("RestoreFiles", object_ids=[b"short"])))


# --- terms ------------------------------------------------------------------------------------------------------------


def test_a_term_that_ends_is_renewed_from_the_balance(world: World) -> None:
    row = stored(world)
    settle_all(world)
    before = world.wallet().paid_noz
    world.time_ms = row.due_ms
    world.tick()
    after = world.object(lookup(1))
    assert (after.state, after.terms, world.wallet().paid_noz) == (KEPT, 2, before - row.term_noz)
    assert after.escrow_noz == 2 * row.term_noz
    assert world.release({"node": 1}) == 1  # all of the first term at once
    assert world.object(lookup(1)).escrow_noz == 2 * row.term_noz - 500_000


def test_a_wallet_renews_ahead_and_out_of_grace(make: Make) -> None:
    world = make(noz=1_500_100)
    lease = world.lease(1_500_000)
    row = world.put(lease, 1, 1_000_000, [1, 2, 3])
    world.ok("settle_leases", message("SettleLeases", lease_ids=[lease]))
    assert world.wallet().paid_noz == 100
    world.refused(refusals.NOT_ENOUGH, "wallet_order", world.order(renew=message("RenewFiles", lookup_ids=[lookup(1)])))
    world.time_ms = row.due_ms
    world.tick()
    assert world.object(lookup(1)).state == GRACE
    world.observe(sold(1, 2 * row.term_noz))
    world.wait(5 * DAY_MS)
    world.ok("wallet_order", world.order(renew=message("RenewFiles", lookup_ids=[lookup(1)])))
    after = world.object(lookup(1))
    assert (after.state, after.terms, after.due_ms) == (KEPT, 2, row.due_ms + 365 * DAY_MS)
    world.ok("wallet_order", world.order(renew=message("RenewFiles", lookup_ids=[lookup(1)])))
    assert world.object(lookup(1)).due_ms == row.due_ms + 2 * 365 * DAY_MS


def test_after_grace_a_file_ends(make: Make) -> None:
    world = make(noz=1_500_000)
    lease = world.lease(1_500_000)
    row = world.put(lease, 1, 1_000_000, [1, 2, 3])
    world.time_ms = row.due_ms
    world.tick()
    world.wait(90 * DAY_MS - 1)
    world.tick()
    assert world.object(lookup(1)).state == GRACE
    world.wait(1)
    world.tick()
    assert (world.wallet().files, world.core.tables.scan(OBJECT, limit=1)) == (0, [])
    assert world.wallet().paid_noz == row.escrow_noz  # nobody had audited it


def test_a_file_restored_after_its_term_is_in_grace(make: Make) -> None:
    world = make(noz=1_500_000)
    row = world.put(world.lease(1_500_000), 1, 1_000_000, [1, 2, 3])
    world.time_ms = row.due_ms - DAY_MS
    world.tick()
    world.ok("wallet_order", delete(world, 1))
    world.wait(2 * DAY_MS)
    world.ok("wallet_order", world.order(restore=message("RestoreFiles", object_ids=[row.id])))
    assert (world.object(lookup(1)).state, world.object(lookup(1)).due_ms) == (GRACE, row.due_ms + 90 * DAY_MS)


def test_terms_are_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_DAYS", 3 * 365)
    assert objects.MAX_DAYS == 3_650  # the highest day of a leaf on chain
    stored(world, 10)
    renew = message("RenewFiles", lookup_ids=[lookup(1)])
    world.ok("wallet_order", world.order(renew=renew))
    world.ok("wallet_order", world.order(renew=renew))
    world.refused(refusals.TOO_MANY, "wallet_order", world.order(renew=renew))


def test_a_file_of_granted_noz_gives_back_granted_ones_or_expired_ones(world: World) -> None:
    world.observe(granted(1, 2_000_000, world.time_ms // 1_000 + 30 * 86_400))
    lease = world.lease(1_600_000, fund=2)
    row = world.put(lease, 1, 1_000_000, [1, 2, 3])
    world.put(lease, 2, 10_000, [1, 2, 3])
    world.ok("settle_leases", message("SettleLeases", lease_ids=[lease]))
    world.ok("wallet_order", delete(world, 2))
    world.wait(8 * DAY_MS)
    world.tick()
    assert world.wallet().promo_noz == 2_000_000 - row.escrow_noz
    world.wait(20 * DAY_MS)
    world.ok("wallet_order", delete(world, 1))
    world.wait(8 * DAY_MS)
    world.tick()
    assert (world.wallet().promo_noz, world.state.promo_expired_noz) == (0, 2_000_000)


def test_a_large_object_ends_bit_by_bit(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tick, "WORK", 6)
    row = stored(world, 7 * SEGMENT_BYTES + 1)
    settle_all(world)
    world.ok("wallet_order", delete(world, 1))
    world.wait(7 * DAY_MS)
    done = [world.tick() for _ in range(10)]
    assert sum(done) >= 24
    assert max(done) <= 6 + row.n
    assert done[-1] == 0
    assert world.core.tables.scan(SEGMENT, limit=1) == []


def test_files_of_a_wallet_are_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_FILES_OF_WALLET", 2)
    stored(world, 10, 1)
    stored(world, 10, 2)
    lease = world.lease(1_000)
    world.refused(refusals.TOO_MANY, "commit", message("Commit", lease_id=lease, objects=[new_object(3, 10, [1, 2, 3])]))
    world.ok("wallet_order", delete(world, 1))
    world.refused(refusals.TOO_MANY, "commit", message("Commit", lease_id=lease, objects=[new_object(3, 10, [1, 2, 3])]))


# --- shares -----------------------------------------------------------------------------------------------------------


def share(**changes: Any) -> Any:
    return message("ShareFile", **{"share_id": SHARE_ID, "link": LINK, "lookup_id": lookup(1), "wrapped_key": b"for the link"} | changes)


def test_a_share_names_the_version_of_the_file_and_ends_with_it(world: World) -> None:
    row = stored(world)
    world.ok("wallet_order", world.order(share=share(password_check=b"p" * 64)))
    made = world.core.tables.find(SHARE, "by_link", (LINK,))
    assert made is not None
    assert (made.object, made.wrapped_key, made.id) == (row.id, b"for the link", share_key(SHARE_ID))
    stored(world, 10, 2, lookup_number=1)
    assert world.wallet().shares == 1  # the old version can come back
    world.wait(7 * DAY_MS)
    world.tick()
    assert (world.wallet().shares, world.core.tables.scan(SHARE, limit=1)) == (0, [])


def test_a_share_ends_at_its_time_or_by_its_owner(world: World) -> None:
    stored(world)
    world.ok("wallet_order", world.order(share=share(expires_s=world.time_ms // 1_000 + 60)))
    world.wait(60_000)
    world.tick()
    assert world.wallet().shares == 0
    world.ok("wallet_order", world.order(share=share(expires_s=world.time_ms // 1_000 + 60)))
    stop = message("UnshareFiles", share_ids=[SHARE_ID])
    world.refused(refusals.UNKNOWN_SHARE, "wallet_order", world.order(2, unshare=stop))
    world.ok("wallet_order", world.order(unshare=stop))
    world.refused(refusals.UNKNOWN_SHARE, "wallet_order", world.order(unshare=stop))
    assert world.wallet().shares == 0


def test_shares_of_another_form_or_under_a_taken_link_are_refused(world: World) -> None:
    stored(world)
    world.ok("wallet_order", world.order(share=share()))
    other = "fedcba9876543210"
    for code, changes in [
        (refusals.TAKEN, {}),
        (refusals.TAKEN, {"link": f"abcdef_{SHARE_ID}"}),
        (refusals.BAD_FORM, {"share_id": other}),
        (refusals.BAD_FORM, {"share_id": "x"}),
        (refusals.BAD_FORM, {"share_id": HASH, "link": HASH}),
        (refusals.BAD_FORM, {"share_id": other, "link": f"sds://abcdef_{other}"}),
        (refusals.BAD_FORM, {"share_id": other, "link": f"abcdef_{other}/password"}),
        (refusals.BAD_FORM, {"share_id": other, "link": f"abcdef_{other}", "wrapped_key": b"x" * 513}),
        (refusals.BAD_FORM, {"share_id": other, "link": f"abcdef_{other}", "password_check": b"x" * 65}),
        (refusals.BAD_FORM, {"share_id": other, "link": f"abcdef_{other}", "expires_s": -1}),
        (refusals.NOT_FRESH, {"share_id": other, "link": f"abcdef_{other}", "expires_s": world.time_ms // 1_000}),
        (refusals.UNKNOWN_FILE, {"share_id": other, "link": f"abcdef_{other}", "lookup_id": lookup(5)}),
    ]:
        world.refused(code, "wallet_order", world.order(share=share(**changes)))


def test_shares_are_bounded_for_each_file_and_wallet(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    stored(world)
    stored(world, 10, 2)
    monkeypatch.setattr(shares, "SHARES_OF_A_FILE", 2)
    monkeypatch.setattr(shares, "MAX_SHARES_OF_WALLET", 3)

    def numbered(number: int, file: int) -> Any:
        return world.order(share=share(share_id=f"{number:016x}", link=f"abcdef_{number:016x}", lookup_id=lookup(file)))

    world.ok("wallet_order", numbered(1, 1))
    world.ok("wallet_order", numbered(2, 1))
    world.refused(refusals.TOO_MANY, "wallet_order", numbered(3, 1))
    world.ok("wallet_order", numbered(3, 2))
    world.refused(refusals.TOO_MANY, "wallet_order", numbered(4, 2))
