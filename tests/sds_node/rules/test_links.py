"""One CID, the link of several wallets' shares: who may have it, whose it is when one of them ends, and that nothing of it is lost on the way.

wallet 1: share, link = CID      wallet 2: share, link = its own, also = CID      wallet 3: …
"""

from __future__ import annotations

import io
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from sds_node.handles import new_share_link
from sds_node.meta.ledger.core import Core
from sds_node.meta.ledger.engine import Ledger, snapshot
from sds_node.meta.ledger.sql import open_store
from sds_node.meta.ledger.transfer import export_ledger, import_ledger
from sds_node.meta.rules import refusals, shares
from sds_node.meta.rules.apply import rules
from sds_node.meta.rules.invariants import check, walk
from sds_node.meta.rules.shares import share_key, shares_of_link
from sds_node.meta.rules.tables import ALSO, OBJECT, SCHEMA, SCHEMA_3, SHARE, Also, Object
from sds_node.requests import Action
from tests.sds_node.postgres import Server
from tests.sds_node.rules import support
from tests.sds_node.rules.support import (
    CHAIN_ID,
    DAY_MS,
    HASH,
    OTHER_HASH,
    Make,
    World,
    lookup,
    message,
    new_object,
    opened_with_todays,
    record,
    sold,
    wallet,
)

CID = "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG"
OTHER_CID = "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi"
SIZE = 1_000
NOZ = 10**9


def with_wallets(world: World, wallets: int = 4) -> World:
    """Wallets 2 and on have noz, too."""
    for number in range(2, wallets + 1):
        world.outstanding += NOZ
        world.observe(sold(number, NOZ))
    return world


def stored(world: World, number: int, file: int = 1, size_bytes: int = SIZE, file_hash: str = HASH, *, is_public: bool = True) -> Object:
    """A file of a wallet."""
    lease = world.lease(10 * size_bytes + 100, number)
    made = new_object(file, size_bytes, [1, 2, 3], file_hash=file_hash, file=record(file, is_public=is_public, wrapped_key=b""))
    world.ok("commit", message("Commit", lease_id=lease, objects=[made]))
    return world.object(lookup(file), number)


def link_of(number: int, file: int = 1) -> str:
    """A link of a wallet's own."""
    return new_share_link(sha256(b"%d %d" % (number, file)).digest()[:16])


def own(world: World, number: int, file: int = 1, **changes: Any) -> Any:
    """The order for a share whose own link the CID is."""
    return world.order(number, share=message("ShareFile", **{"share_id": CID, "link": CID, "lookup_id": lookup(file)} | changes))


def also(world: World, number: int, file: int = 1, **changes: Any) -> Any:
    """The order for a share that has the CID, too."""
    text = link_of(number, file)
    return world.order(number, share=message("ShareFile", **{"share_id": text, "link": text, "lookup_id": lookup(file), "also": CID} | changes))


def stop(world: World, number: int, share_id: str) -> Any:
    return world.order(number, unshare=message("UnshareFiles", share_ids=[share_id]))


def of_cid(world: World, link: str = CID) -> list[bytes]:
    """The wallets whose shares have the CID, that of the share whose own it is first."""
    return [one.wallet for one in shares_of_link(world.core.tables, link)]


def three(world: World) -> World:
    """Wallets 1, 2 and 3 have the same content by one CID."""
    with_wallets(world)
    for number in (1, 2, 3):
        stored(world, number)
    world.ok("wallet_order", own(world, 1))
    world.ok("wallet_order", also(world, 2))
    world.ok("wallet_order", also(world, 3))
    return world


def test_wallets_share_the_same_content_by_one_cid_and_each_ends_its_own(world: World) -> None:
    three(world)
    assert of_cid(world)[0] == wallet(1)
    assert sorted(of_cid(world)) == sorted(wallet(number) for number in (1, 2, 3))
    assert [row.share for row in walk(world.core.tables, ALSO)] == sorted(share_key(link_of(number)) for number in (2, 3))
    world.refused(refusals.UNKNOWN_SHARE, "wallet_order", stop(world, 2, CID))
    world.refused(refusals.UNKNOWN_SHARE, "wallet_order", stop(world, 3, link_of(2)))
    world.ok("wallet_order", stop(world, 1, CID))
    assert sorted(of_cid(world)) == sorted(wallet(number) for number in (2, 3))
    world.ok("wallet_order", stop(world, 2, link_of(2)))
    assert of_cid(world) == [wallet(3)]
    world.ok("wallet_order", stop(world, 3, link_of(3)))
    assert (of_cid(world), list(walk(world.core.tables, ALSO))) == ([], [])


def test_a_cid_goes_with_the_time_or_the_file_of_its_share(world: World) -> None:
    three(world)
    stored(world, 4)
    world.ok("wallet_order", also(world, 4, expires_s=world.time_ms // 1_000 + 60))
    assert len(of_cid(world)) == 4
    world.wait(60_000)
    world.tick()
    assert wallet(4) not in of_cid(world)
    world.ok("wallet_order", world.order(2, delete=message("DeleteFiles", lookup_ids=[lookup(1)])))
    assert wallet(2) in of_cid(world)  # it may be restored
    world.wait(7 * DAY_MS)
    world.tick()
    assert of_cid(world) == [wallet(1), wallet(3)]
    assert [row.share for row in walk(world.core.tables, ALSO)] == [share_key(link_of(3))]


def test_the_link_of_one_that_ended_is_taken_by_the_same_content_alone(world: World) -> None:
    three(world)
    stored(world, 4, 1, file_hash=OTHER_HASH)
    stored(world, 4, 2)
    world.ok("wallet_order", stop(world, 1, CID))
    demands: list[dict[str, Any]] = [{"password_check": b"p" * 32}, {"wrapped_key": b"key"}]
    for changes in ({}, *demands):
        reason = world.refused(refusals.TAKEN, "wallet_order", own(world, 4, **changes))
        assert "already" in reason
    for changes in demands:
        world.refused(refusals.TAKEN, "wallet_order", own(world, 4, 2, **changes))
    world.ok("wallet_order", own(world, 4, 2))
    assert of_cid(world)[0] == wallet(4)
    assert len(of_cid(world)) == 3


def test_what_leads_elsewhere_or_not_everybody_has_no_link_of_others(world: World) -> None:
    with_wallets(world)
    stored(world, 1)
    world.refused(refusals.UNKNOWN_SHARE, "wallet_order", also(world, 1))
    world.ok("wallet_order", own(world, 1))
    stored(world, 2, 1, file_hash=OTHER_HASH)
    stored(world, 2, 2, SIZE + 1)
    stored(world, 2, 3, is_public=False)
    stored(world, 2, 4)
    for file in (1, 2, 3):
        assert "already" in world.refused(refusals.TAKEN, "wallet_order", also(world, 2, file))
    wrong: list[tuple[int, dict[str, Any]]] = [
        (refusals.TAKEN, {"password_check": b"p" * 32}),
        (refusals.TAKEN, {"wrapped_key": b"key"}),
        (refusals.BAD_FORM, {"also": link_of(1)}),
        (refusals.BAD_FORM, {"also": "abcdef_0123456789abcdef"}),
        (refusals.BAD_FORM, {"also": f"sds://{CID}"}),
        (refusals.BAD_FORM, {"also": f"{CID}/password"}),
        (refusals.BAD_FORM, {"also": HASH}),
        (refusals.BAD_FORM, {"also": "b" * 300}),
        (refusals.BAD_FORM, {"also": "Qm\n"}),
        (refusals.BAD_FORM, {"share_id": OTHER_CID, "link": OTHER_CID, "also": OTHER_CID}),
        (refusals.UNKNOWN_SHARE, {"also": OTHER_CID}),
    ]
    for code, changes in wrong:
        world.refused(code, "wallet_order", also(world, 2, 4, **changes))
    assert (of_cid(world), world.wallet(2).shares) == ([wallet(1)], 0)
    world.ok("wallet_order", also(world, 2, 4))


def test_nobody_joins_a_link_with_a_password_or_of_a_private_file(world: World) -> None:
    with_wallets(world)
    stored(world, 1)
    stored(world, 2)
    demands: list[dict[str, Any]] = [{"password_check": b"p" * 32}, {"wrapped_key": b"key"}]
    for changes in demands:
        world.ok("wallet_order", own(world, 1, **changes))
        assert "already" in world.refused(refusals.TAKEN, "wallet_order", also(world, 2))
        world.ok("wallet_order", stop(world, 1, CID))
    assert (of_cid(world), world.wallet(1).shares) == ([], 0)


def test_a_file_has_a_link_once_and_what_was_stored_again_has_it_too(world: World) -> None:
    with_wallets(world)
    stored(world, 1)
    world.ok("wallet_order", own(world, 1))
    world.refused(refusals.TAKEN, "wallet_order", also(world, 1))
    world.ok("wallet_order", world.order(1, delete=message("DeleteFiles", lookup_ids=[lookup(1)])))
    stored(world, 1, 2)
    world.ok("wallet_order", also(world, 1, 2))
    assert of_cid(world) == [wallet(1)] * 2


def test_those_who_have_a_link_are_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shares.ALSO_OF_A_LINK == 64
    monkeypatch.setattr(shares, "ALSO_OF_A_LINK", 2)
    three(world)
    stored(world, 4)
    world.refused(refusals.TOO_MANY, "wallet_order", also(world, 4))
    world.ok("wallet_order", stop(world, 1, CID))
    world.refused(refusals.TOO_MANY, "wallet_order", also(world, 4))
    world.ok("wallet_order", own(world, 4))
    world.ok("wallet_order", stop(world, 2, link_of(2)))
    stored(world, 2, 2)
    world.ok("wallet_order", also(world, 2, 2))


def test_one_wallet_has_a_link_beside_its_own_once_so_that_it_cannot_use_up_what_there_is(world: World) -> None:
    three(world)
    stored(world, 2, 2)
    assert "beside" in world.refused(refusals.TAKEN, "wallet_order", also(world, 2, 2))
    world.ok("wallet_order", stop(world, 2, link_of(2)))
    world.ok("wallet_order", also(world, 2, 2))
    assert sorted(of_cid(world)) == sorted(map(wallet, (1, 2, 3)))
    # A file that was deleted makes room for what is stored again; its share keeps its own link.
    world.ok("wallet_order", world.order(2, delete=message("DeleteFiles", lookup_ids=[lookup(2)])))
    stored(world, 2, 3)
    world.ok("wallet_order", also(world, 2, 3))
    assert sorted(of_cid(world)) == sorted(map(wallet, (1, 2, 3)))
    assert of_cid(world, link_of(2, 2)) == [wallet(2)]


def test_a_string_of_the_original_shares_by_the_cid_of_another_wallet(make: Make) -> None:
    world = with_wallets(make())
    for number in (1, 2):
        stored(world, number)
    world.ok("wallet_order", own(world, 1))
    text = link_of(2)
    share = message("ShareFile", share_id=text, link=text, also=CID)
    made = message("LegacyOrder", wallet=wallet(2), ask=world.ask(Action.CREATE_SHARE, HASH, 2), share=share)
    world.ok("legacy_order", made)
    assert of_cid(world) == [wallet(1), wallet(2)]
    world.wait(1_000)
    world.ok("legacy_order", message("LegacyOrder", wallet=wallet(2), ask=world.ask(Action.STOP_SHARE, text, 2), unshare=True))
    assert of_cid(world) == [wallet(1)]


def test_the_check_sees_links_that_the_rules_would_not_give(world: World) -> None:
    three(world)
    tables = world.core.tables
    theirs, whole = world.object(lookup(1), 2), tables.get(SHARE, (share_key(CID),))
    assert whole is not None
    wrong: list[tuple[str, Any, Any]] = [
        ("the share of a link", ALSO, Also(b"s" * 32, CID)),
        ("the share of a link", ALSO, Also(share_key(CID), CID)),
        ("contents of", OBJECT, theirs._replace(file_hash=OTHER_HASH)),
        ("contents of", OBJECT, theirs._replace(size_bytes=SIZE - 1)),
        ("objects of", SHARE, whole._replace(object=theirs.id)),
        ("not for all", SHARE, whole._replace(password_check=b"p")),
    ]
    for what, table, row in wrong:
        tables.open_operation()
        tables.put(table, row)
        with pytest.raises(AssertionError, match=what):
            check(tables)
        tables.close_operation(keep=False)
        check(tables)


def test_links_of_several_go_through_export_and_import_on_both_databases(tmp_path: Path, postgres: Server) -> None:
    world = three(World(tmp_path))
    rows = list(walk(world.core.tables, ALSO))
    assert len(rows) == 2
    world.close()
    stream = io.BytesIO()
    with snapshot(f"sqlite:///{tmp_path}/ledger.db", rules(CHAIN_ID)) as view:
        export_ledger(view, SCHEMA, stream.write)
    for url in (f"sqlite:///{tmp_path}/other.db", postgres.database()):
        import_ledger(url, rules(CHAIN_ID), CHAIN_ID, io.BytesIO(stream.getvalue()).read)
        with Ledger.open(url, rules(CHAIN_ID), CHAIN_ID) as ledger, ledger.read() as view:
            assert list(walk(view, ALSO)) == rows
            found = shares_of_link(view, CID)
            assert (found[0].wallet, len(found)) == (wallet(1), 3)
            check(view)


def test_orders_give_the_same_app_hash_on_both_databases(tmp_path: Path, postgres: Server) -> None:
    world = three(World(tmp_path))
    world.ok("wallet_order", stop(world, 1, CID))
    world.close()
    wanted = world.core.head.app_hash
    core = Core.open(open_store(postgres.database()), rules(CHAIN_ID), CHAIN_ID)
    for raw, time_ms in world.sent:
        core.begin(time_ms)
        core.apply(raw)
        core.write()
        core.commit()
    assert len(list(walk(core.tables, ALSO))) == 2
    assert [row.wallet for row in shares_of_link(core.tables, CID)] == [
        row.wallet for row in sorted(walk(core.tables, SHARE), key=lambda row: row.id) if row.wallet != wallet(1)
    ]
    hashes = {wanted, core.head.app_hash}
    core.close()
    assert len(hashes) == 1


def test_a_ledger_of_version_three_is_opened_with_the_same_rows_and_has_links_of_several_from_then_on(tmp_path: Path, monkeypatch: Any) -> None:
    before = replace(rules(CHAIN_ID), schema=SCHEMA_3, schema_version=3, migrations={})
    with monkeypatch.context() as patch:
        patch.setattr(support, "rules", lambda chain_id: before)
        # What those rules did: nothing of links that several have, nor of what strings ask for.
        patch.setattr(shares, "shares_of_link", lambda view, link: [])
        patch.setattr("sds_node.meta.rules.commit.check_new", lambda tables, lease, new: None)
        world = with_wallets(World(tmp_path, is_checked=False))
        for number in (1, 2):
            stored(world, number)
        world.ok("wallet_order", own(world, 1))
        core = opened_with_todays(world, SCHEMA_3, tmp_path, patch)
    check(core.tables)
    world.core, world.last_hash, world.is_checked = core, core.head.app_hash, True
    core.begin(world.time_ms)
    world.ok("wallet_order", also(world, 2))
    world.ok("wallet_order", stop(world, 1, CID))
    assert of_cid(world) == [wallet(2)]
    world.close()
    Core.open(open_store(f"sqlite:///{tmp_path}/ledger.db"), rules(CHAIN_ID), CHAIN_ID).close()
