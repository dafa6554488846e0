"""Object manifests: signed, kept on a node's disk, the newest one of each object, gone with their copies."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nacl.signing
import pytest

from sds_node import manifests
from sds_node.documents import Refused, SignedDocument
from sds_node.merkle import segment_root, share_root
from sds_node.resource import objects as module
from sds_node.resource.objects import NO_COPY, Given, Objects, ObjectService
from sds_node.resource.store import open_store

KEY = nacl.signing.SigningKey(bytes(range(32)))
COPY = (b"r" * 32, b"s" * 16)


def manifest(number: int, sequence: int = 1, **changes: Any) -> Any:
    fields = dict(
        chain_id="test-1", meta_node=b"m" * 20, sequence=sequence, object_id=number.to_bytes(32, "big"), payer=b"p" * 20, lease=b"l" * 32, fund=1,
        root=b"o" * 32, file_hash="h", size_bytes=5, data_shares=1, total_shares=3, first_segment=number, escrow_ratio_e18=1, made_ms=1, term_days=30,
        terms=1, file={"lookup_id": b"f" * 32, "name": b"n", "wrapped_key": b"w"},
    )  # fmt: skip
    return manifests.ObjectManifest(**{**fields, **changes})


def row(number: int, sequence: int = 1, **changes: Any) -> Given:
    made = manifest(number, sequence, **changes)
    return Given(bytes(made.object_id), COPY, sequence, manifests.signed_object(made, KEY))


def empty(number: int, wallet: int, sequence: int = 1) -> Given:
    """The manifest of an empty object of a wallet."""
    payer = bytes([wallet]) * 20
    return row(number, sequence, payer=payer, size_bytes=0)._replace(copy=NO_COPY, payer=payer)


def kept(objects: Objects) -> dict[int, Any]:
    """What is kept, by number."""
    return {int.from_bytes(key, "big"): manifests.read_object(one, "test-1") for key, _, one in objects.after(b"", 1_000)}


def test_a_manifest_holds_under_the_key_that_signed_it_and_no_other() -> None:
    given = manifests.signed_object(manifest(1), KEY)
    assert manifests.read_object(given, "test-1") == manifest(1)
    assert manifests.is_signed_by(given, bytes(KEY.verify_key))
    assert not manifests.is_signed_by(given, bytes(nacl.signing.SigningKey.generate().verify_key))
    changed = SignedDocument(body=manifests.signed_object(manifest(2), KEY).body, signature=given.signature)
    assert not manifests.is_signed_by(changed, bytes(KEY.verify_key))


@pytest.mark.parametrize(
    "changes", [{"root": b"o"}, {"payer": b""}, {"data_shares": 4}, {"fund": 3}, {"terms": 0}, {"made_ms": -1}, {"sequence": 1 << 63}]
)
def test_a_manifest_that_names_nothing_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(Refused):
        manifests.read_object(manifests.signed_object(manifest(1, **changes), KEY), "test-1")


def test_a_manifest_of_another_chain_is_refused() -> None:
    with pytest.raises(Refused):
        manifests.read_object(manifests.signed_object(manifest(1), KEY), "test-2")


def test_the_newest_manifest_of_an_object_stays_and_outlives_a_restart(tmp_path: Path) -> None:
    objects = Objects(tmp_path)
    objects.keep([row(1, 5), row(2, 5)])
    objects.keep([row(1, 4, file_hash="older"), row(2, 6, file_hash="newer")])
    objects.close()
    again = Objects(tmp_path)
    found = [manifests.read_object(document, "test-1") for _, _, document in again.after(b"", 10)]
    assert [(one.first_segment, one.file_hash) for one in found] == [(1, "h"), (2, "newer")]
    assert [key for key, _, _ in again.after((1).to_bytes(32, "big"), 10)] == [(2).to_bytes(32, "big")]
    again.close()


def test_a_manifest_goes_when_its_copy_is_not_kept_any_more(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store")
    objects = Objects(tmp_path / "store")
    objects.keep([row(1)])
    assert objects.tidy(store) == b""
    assert objects.after(b"", 10) == []
    objects.close()
    store.close()


def test_share_roots_stay_with_a_copy_that_is_kept_and_go_with_it(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store")
    objects = Objects(tmp_path / "store")
    objects.keep([], [(COPY, b"r" * 64)])
    assert objects.roots_of(COPY) == b"r" * 64
    assert objects.roots_of((b"q" * 32, COPY[1])) == b""
    assert objects.tidy_roots(store) == (b"", b"")
    assert objects.roots_of(COPY) == b""
    objects.close()
    store.close()


def test_roots_that_lie_under_another_root_are_none() -> None:
    roots = [bytes([one]) * 32 for one in range(5)]
    raw = b"".join(roots)
    assert manifests.read_roots(raw, segment_root(roots), 5) == roots
    assert manifests.read_roots(raw, segment_root(roots), 4) is None
    assert manifests.read_roots(raw, segment_root(roots[::-1]), 5) is None


def test_a_damaged_file_is_put_aside_and_begun_anew(tmp_path: Path) -> None:
    (tmp_path / "objects.db").write_bytes(b"no database at all" * 100)
    objects = Objects(tmp_path)
    objects.keep([row(1)])
    assert len(objects.after(b"", 10)) == 1
    assert (tmp_path / "objects.db.damaged").exists()
    objects.close()


def test_a_file_that_turns_out_to_be_damaged_is_put_aside_and_begun_anew_in_the_same_call(tmp_path: Path) -> None:
    objects = Objects(tmp_path)
    for first in range(0, 1_000, 100):
        objects.keep([row(number) for number in range(first, first + 100)])
    objects.close()
    path = tmp_path / "objects.db"
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    raw = bytearray(path.read_bytes())
    for at in range(8_192, len(raw), 4_096):
        raw[at : at + 200] = b"\xff" * 200
    path.write_bytes(raw)
    objects = Objects(tmp_path)
    objects.keep([row(5_000)])
    assert list(kept(objects)) == [5_000]
    assert (tmp_path / "objects.db.damaged").exists()
    objects.close()


def test_one_manifest_replaces_another_of_a_far_sequence_when_it_is_said_to_and_later_ones_count_again(tmp_path: Path) -> None:
    objects = Objects(tmp_path)
    objects.keep([row(1, manifests.MAX_SEQUENCE, file_hash="lie")])
    objects.keep([row(1, 2_000)])
    assert kept(objects)[1].file_hash == "lie"
    objects.keep([row(1, 2_000)._replace(replaces=True)])
    assert kept(objects)[1].file_hash == "h"
    objects.keep([row(1, 2_001, file_hash="later")])
    assert kept(objects)[1].file_hash == "later"
    objects.close()


def test_many_empty_files_of_one_wallet_crowd_out_its_own_and_what_is_kept_is_brought_up_to_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_EMPTY", 6)
    objects = Objects(tmp_path)
    objects.keep([empty(100, 1), empty(101, 1), empty(200, 2)])
    objects.keep([empty(number, 3) for number in range(50)])
    objects.keep([empty(number, 3) for number in range(300, 350)])
    found = kept(objects)
    assert {100, 101, 200} < set(found)
    assert objects.empty() == 6
    objects.keep([empty(200, 2, 7), empty(201, 2), row(400)])
    found = kept(objects)
    assert found[200].sequence == 7
    assert {100, 101, 200, 201, 400} < set(found)
    assert objects.empty() == 6
    objects.close()


def test_a_file_of_the_version_before_tells_whose_the_manifests_in_it_are(tmp_path: Path) -> None:
    objects = Objects(tmp_path)
    objects.keep([empty(1, 9), row(2)])
    objects.close()
    with sqlite3.connect(tmp_path / "objects.db") as database:
        database.executescript(
            "DROP INDEX empty_of; ALTER TABLE objects DROP COLUMN payer; CREATE INDEX empty ON objects (object) WHERE root = x''; PRAGMA user_version = 1;"
        )
    database.close()
    objects = Objects(tmp_path)
    assert sorted(kept(objects)) == [1, 2]
    objects.close()
    with sqlite3.connect(tmp_path / "objects.db") as database:
        assert sorted(row[0] for row in database.execute("SELECT payer FROM objects")) == [b"", bytes([9]) * 20]
    database.close()


def test_copies_with_share_roots_are_told_page_by_page(tmp_path: Path) -> None:
    objects = Objects(tmp_path)
    copies = [(bytes([number]) * 32, COPY[1]) for number in range(5)]
    objects.keep([], [(copy, b"r" * 64) for copy in copies])
    assert objects.with_roots((b"", b""), 3) == copies[:3]
    assert objects.with_roots(copies[2], 3) == copies[3:]
    objects.close()


def test_copies_are_told_though_the_file_of_manifests_cannot_be_read(tmp_path: Path) -> None:
    store, objects, root = open_store(tmp_path / "store"), Objects(tmp_path / "store"), share_root(b"share")
    with ThreadPoolExecutor(1) as pool:
        service = ObjectService(None, store, objects, pool)  # type: ignore[arg-type]
        writer = store.begin(root, 5, COPY[1], b"manifest")
        writer.write(b"share")
        writer.finish()
        objects.close()
        page = service._kept((b"", b""), 10)
    assert [(bytes(one.copy.share_root), bytes(one.kept), one.roots) for one in page.copies] == [(root, b"manifest", b"")]
    store.close()
