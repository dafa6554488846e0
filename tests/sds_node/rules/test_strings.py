"""What one legacy string can take from its wallet, whichever meta node has it: the ledger bounds it, not the meta node that the wallet meant."""

from __future__ import annotations

from typing import Any

import pytest

from sds_node.legacy import MAX_UPLOAD_BYTES, download_bound_noz, legacy_lookup_id, most_upload_noz, upload_bound_noz
from sds_node.meta.rules import refusals
from sds_node.meta.rules.commit import object_id
from sds_node.meta.rules.invariants import walk
from sds_node.meta.rules.leases import SETTLE_S
from sds_node.meta.rules.tables import ASKED, Asked
from sds_node.requests import Action
from sds_node.schemes import SCHEMES, SMALL_BYTES
from tests.sds_node.rules.support import HASH, OTHER_HASH, PARAMS, Make, World, lookup, message, new_object, record, sold, wallet

RATIO_E18 = PARAMS["repair_ratio_e18"]
SIZE = 5_000
LINK, SHARE_ID = "r4nd0m_0123456789abcdef", "0123456789abcdef"


@pytest.fixture
def world(make: Make) -> World:
    """Four meta nodes, of which the third one lies; two wallets with noz."""
    made = make(metas=4)
    made.observe(sold(2, 10**12))
    return made


@pytest.fixture
def stored(world: World) -> World:
    """Wallet 1 has a file of ``HASH``."""
    world.put(world.lease(10**6), 1, SIZE, [1, 2, 3], file=record(1, is_public=True))
    return world


def left(world: World) -> int:
    return int(world.wallet(1).paid_noz)


def asked(world: World) -> list[Asked]:
    return list(walk(world.core.tables, ASKED))


def refused(world: World, code: int, noz: int, **changes: Any) -> None:
    before = left(world)
    world.refused(code, "take_lease", world.lease_request(noz, **changes), sender=3)
    assert left(world) == before


def test_a_string_that_reads_a_file_pays_for_one_delivery_of_it_whatever_its_meta_node_says(stored: World) -> None:
    ask, most = stored.ask(Action.DOWNLOAD, HASH), download_bound_noz(SIZE, RATIO_E18)
    balance = left(stored)
    for noz in (balance, most + 1):
        refused(stored, refusals.NOT_ASKED, noz, download=ask)
        # The same letters ask for an upload: of a file that the wallet has nobody stores another.
        refused(stored, refusals.TAKEN, noz, upload=ask, size_bytes=MAX_UPLOAD_BYTES)
    refused(stored, refusals.TAKEN, 1, upload=ask)
    lease = stored.ok("take_lease", stored.lease_request(most, download=ask), sender=3)
    assert left(stored) == balance - most
    assert asked(stored) == [Asked(lease, False, HASH, SIZE)]
    for kind in ("download", "upload"):
        stored.refused(refusals.USED_BEFORE, "take_lease", stored.lease_request(1, **{kind: ask}))


def test_the_largest_of_a_wallets_own_objects_bounds_it_and_what_is_in_the_trash_does_not(stored: World) -> None:
    stored.put(stored.lease(10**6), 2, 3 * SIZE, [1, 2, 3])
    ask, most = stored.ask(Action.DOWNLOAD, HASH), download_bound_noz(3 * SIZE, RATIO_E18)
    refused(stored, refusals.NOT_ASKED, most + 1, download=ask)
    stored.ok("wallet_order", stored.order(delete=message("DeleteFiles", lookup_ids=[lookup(2)])))
    refused(stored, refusals.NOT_ASKED, most, download=ask)
    stored.ok("wallet_order", stored.order(delete=message("DeleteFiles", lookup_ids=[lookup(1)])))
    refused(stored, refusals.UNKNOWN_FILE, 1, download=ask)
    # Where the wallet has the file no more it may be stored again.
    stored.ok("take_lease", stored.lease_request(1, upload=ask))


def test_a_string_that_reads_a_shared_file_pays_for_what_is_shared(stored: World) -> None:
    row, most = stored.object(lookup(1)), download_bound_noz(SIZE, RATIO_E18)
    by_hash, by_link = stored.ask(Action.DOWNLOAD, HASH, 2), stored.ask(Action.DOWNLOAD_SHARED, LINK, 2)
    named = {"download": by_hash, "object_id": row.id}
    for changes in (named, {"download_shared": by_link}):
        stored.refused(refusals.UNKNOWN_FILE, "take_lease", stored.lease_request(1, 2, **changes))
    share = message("ShareFile", share_id=SHARE_ID, link=LINK, lookup_id=lookup(1), expires_s=stored.time_ms // 1_000 + 60)
    stored.ok("wallet_order", stored.order(share=share))
    stored.refused(refusals.UNKNOWN_FILE, "take_lease", stored.lease_request(1, 2, download=by_hash))
    other = stored.ask(Action.DOWNLOAD, OTHER_HASH, 2)
    stored.refused(refusals.UNKNOWN_FILE, "take_lease", stored.lease_request(1, 2, download=other, object_id=row.id))
    stored.refused(refusals.BAD_FORM, "take_lease", stored.lease_request(1, 2, download=by_hash, object_id=b"short"))
    for changes in (named, {"download_shared": by_link}):
        stored.refused(refusals.NOT_ASKED, "take_lease", stored.lease_request(most + 1, 2, **changes))
        stored.ok("take_lease", stored.lease_request(most, 2, **changes))
    assert [(one.file_hash, one.size_bytes, one.is_put) for one in asked(stored)] == [(HASH, SIZE, False)] * 2
    stored.wait(60_000)
    later = {"download": stored.ask(Action.DOWNLOAD, HASH, 2), "object_id": row.id}
    stored.refused(refusals.UNKNOWN_FILE, "take_lease", stored.lease_request(1, 2, **later))


def test_anothers_object_of_that_name_does_not_make_a_wallets_own_file_dearer(stored: World) -> None:
    """Whoever wants more of a wallet's string stores something large under the hash, and shares it."""
    stored.ok("commit", message("Commit", lease_id=stored.lease(10**9, 2), objects=[new_object(9, 100 * SIZE, [1, 2, 3])]))
    large = stored.object(lookup(9), 2)
    stored.ok("wallet_order", stored.order(2, share=message("ShareFile", share_id=SHARE_ID, link=LINK, lookup_id=lookup(9))))
    most = download_bound_noz(SIZE, RATIO_E18)
    refused(stored, refusals.NOT_ASKED, most + 1, download=stored.ask(Action.DOWNLOAD, HASH), object_id=large.id)


def test_a_string_that_stores_pays_for_the_size_that_is_named_and_64_gib_at_most(world: World) -> None:
    ask = world.ask(Action.UPLOAD, HASH)
    most = most_upload_noz(SIZE, RATIO_E18)
    refused(world, refusals.NOT_ASKED, most + 1, upload=ask, size_bytes=SIZE)
    refused(world, refusals.BAD_FORM, 1, upload=ask, size_bytes=MAX_UPLOAD_BYTES + 1)
    lease = world.ok("take_lease", world.lease_request(most, upload=ask, size_bytes=SIZE))
    assert asked(world) == [Asked(lease, True, HASH, SIZE)]
    # Every upload that a meta node may plan has room in it.
    for size in (0, 1, SMALL_BYTES - 1, SMALL_BYTES, 1 << 30, MAX_UPLOAD_BYTES):
        bounds = [upload_bound_noz(one, size, RATIO_E18) for one in SCHEMES if size >= SMALL_BYTES or one.k == 1]
        assert most_upload_noz(size, RATIO_E18) == max(bounds)


def test_a_commit_under_a_string_is_of_its_file_and_sends_no_other_one_to_the_trash(world: World) -> None:
    world.put(world.lease(10**6), 9, SIZE, [1, 2, 3], file_hash=OTHER_HASH)
    request = world.lease_request(10_000, upload=world.ask(Action.UPLOAD, HASH), size_bytes=SIZE)
    lease = world.ok("take_lease", request, sender=3)
    own = legacy_lookup_id(wallet(1), HASH)

    def commit(counter: int = 1, size_bytes: int = SIZE, record_of: dict[str, Any] | None = None, **changes: Any) -> Any:
        file = message("FileRecord", **{"lookup_id": own, "name": b"x", "is_public": True} | (record_of or {}))
        return message("Commit", lease_id=lease, objects=[new_object(counter, size_bytes, [1, 2, 3], file=file, sender=3, **changes)])

    for wrong in (
        commit(file_hash=OTHER_HASH),
        commit(size_bytes=SIZE - 1),
        commit(counter=2),
        commit(record_of={"lookup_id": lookup(9)}),
    ):
        world.refused(refusals.NOT_ASKED, "commit", wrong, sender=3)
    for wrong in (commit(record_of={"is_public": False}), commit(record_of={"wrapped_key": b"k" * 40})):
        world.refused(refusals.BAD_OBJECT, "commit", wrong, sender=3)
    world.ok("commit", commit(), sender=3)
    assert (world.wallet().files, world.wallet().trash) == (2, 0)
    assert world.object(own).id == object_id(lease, 1)


def test_what_a_string_asked_for_is_forgotten_with_its_lease(world: World) -> None:
    request = world.lease_request(100, upload=world.ask(Action.UPLOAD, HASH), seconds=60)
    lease = world.ok("take_lease", request)
    world.ok("settle_leases", message("SettleLeases", lease_ids=[lease]))
    assert asked(world) == []
    world.wait(1_000)
    world.ok("take_lease", world.lease_request(100, upload=world.ask(Action.UPLOAD, HASH), seconds=60))
    assert len(asked(world)) == 1
    world.wait((60 + SETTLE_S) * 1_000)
    world.tick()
    assert asked(world) == []
