"""What one node, or one meta node, can and cannot make of a ledger that is made anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nacl.signing
import pytest

from chain.codec.canonical import encode
from chain.crypto import address as bech32
from sds_node import manifests
from sds_node.merkle import segment_root
from sds_node.meta.rebuild import gathering
from sds_node.meta.rebuild.choosing import choose
from sds_node.meta.rebuild.gathering import Gathering
from tests.sds_node.rebuild.synthetic import FakeNode, Thing, gathered, node_address, nodes, spread

pytestmark = pytest.mark.asyncio
MIB = 1 << 20


def chosen(made: Gathering, count: int) -> tuple[Any, dict[bytes, Any]]:
    numbers = {one.address: (number, one.owner) for number, one in enumerate(nodes(count), 1)}
    outcome = choose(made.found, numbers, lambda what, count: None)
    return outcome, {row.object: manifests.ObjectManifest.FromString(row.body) for row in made.found.chosen()}


async def test_what_honest_nodes_tell_comes_back_whole(tmp_path: Path) -> None:
    things = [Thing(1), Thing(2, 40 * MIB, 2, 5), Thing(3, 0)]
    made = await gathered(tmp_path, spread(things, 5))
    outcome, objects = chosen(made, 5)
    assert sorted(objects) == sorted(one.id for one in things)
    assert (outcome.objects, outcome.shares, outcome.short, outcome.left_out) == (3, 3 + 10, 0, 0)
    assert [segment.first_serial for segment in made.found.segments(things[1].id)] == [things[1].serial(0, 0), things[1].serial(1, 0)]
    assert all(not segment.moved for segment in made.found.segments(things[1].id))
    assert made.highest_sequence == 10


async def test_an_object_that_no_meta_node_signed_is_refused_and_its_shares_too(tmp_path: Path) -> None:
    true, invented = Thing(1), Thing(2)
    told = spread([true], 3)
    told[0].documents.append(invented.document(nacl.signing.SigningKey.generate()))
    told[0].copies.append(invented.copy(0))
    made = await gathered(tmp_path, told)
    assert set(chosen(made, 3)[1]) == {true.id}
    assert made.told[node_address(1)].refused == 2


async def test_a_manifest_of_an_old_sequence_loses_whoever_keeps_it(tmp_path: Path) -> None:
    thing = Thing(1)
    told = spread([thing], 3)
    for one in told[:2]:
        one.documents = [thing.document(sequence=9, file_hash=thing.manifest().file_hash, file={"lookup_id": b"f" * 32, "name": b"old"})]
    told[2].documents = [thing.document(sequence=11)]
    outcome, objects = chosen(await gathered(tmp_path, told), 3)
    assert objects[thing.id].sequence == 11
    assert outcome.objects == 1


async def test_of_two_manifests_of_one_sequence_the_one_that_most_nodes_keep_is_taken(tmp_path: Path) -> None:
    thing = Thing(1)
    told = spread([thing], 3)
    told[0].documents = [thing.document(file={"lookup_id": b"f" * 32, "name": b"another"})]
    _, objects = chosen(await gathered(tmp_path, told), 3)
    assert objects[thing.id].file.name == b"name"


async def test_a_later_manifest_for_another_wallet_does_not_take_a_file_away(tmp_path: Path) -> None:
    thing = Thing(1)
    told = spread([thing], 3)
    told[0].documents = [thing.document(sequence=50, payer=b"t" * 20)]
    _, objects = chosen(await gathered(tmp_path, told), 3)
    assert bytes(objects[thing.id].payer) == thing.wallet


@pytest.mark.parametrize(
    "page",
    [
        b"\xff\xff\xff",
        encode(manifests.ObjectList(objects=[{"manifest": Thing(1).document()}, {"manifest": Thing(1).document()}])),
        encode(manifests.ObjectList(objects=[{"manifest": {"body": b"x", "signature": b"y"}}] * 100)),
        encode(manifests.ObjectList(objects=[{"manifest": Thing(1).document()}] * 101)),
    ],
)
async def test_a_page_that_is_none_ends_its_node_and_nobody_else(tmp_path: Path, page: bytes) -> None:
    told = spread([Thing(1)], 3)
    made = await gathered(tmp_path, [*told, FakeNode(pages=[page])])
    assert made.told[node_address(4)].problem
    assert chosen(made, 4)[0].shares == 3


async def test_a_node_that_tells_without_end_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "USELESS_PAGES", 2)
    monkeypatch.setattr(manifests, "MAX_OBJECTS_ASKED", 2)
    monkeypatch.setattr(manifests, "MAX_KEPT_ASKED", 1)
    bad = nacl.signing.SigningKey.generate()
    endless = FakeNode(documents=[Thing(number).document(bad) for number in range(10, 60)])
    orphans = FakeNode(copies=[Thing(number).copy(0) for number in range(60, 99)])
    told = spread([Thing(1)], 3)
    made = await gathered(tmp_path, [*told, endless, orphans])
    assert "without end" in made.told[node_address(4)].problem
    assert "without end" in made.told[node_address(5)].problem
    # Each is asked for its shares, too, whatever came of its manifests.
    assert (endless.asked, orphans.asked) == (3, 3)
    assert chosen(made, 5)[0].shares == 3


async def test_a_share_that_is_not_under_its_segment_or_of_another_form_is_refused(tmp_path: Path) -> None:
    thing = Thing(1, 3 * MIB, 2, 5)
    told = spread([thing], 5)
    wrong: list[dict[str, Any]] = [{"share_root": b"x" * 32}, {"size_bytes": 17}, {"wallet": bech32.encode(b"t" * 20)}, {"segment": 1}]
    told[0].copies = [thing.copy(0, serial=b"serialof" + bytes([number]) * 8, **changes) for number, changes in enumerate(wrong)]
    made = await gathered(tmp_path, told)
    assert made.told[node_address(1)].refused == 4
    assert chosen(made, 5)[0].shares == 4


async def test_segments_that_a_liar_makes_up_do_not_lie_under_the_object(tmp_path: Path) -> None:
    thing, other = Thing(1, 3 * MIB, 2, 5), Thing(1, 3 * MIB, 2, 5)
    other.roots[0] = [other.roots[0][0], *(bytes([one]) * 32 for one in range(4))]
    other.segment_roots = [segment_root(other.roots[0])]
    told = spread([thing], 2)
    told[0].copies = [other.copy(0)]
    liars = [FakeNode(documents=[thing.document()], copies=[other.copy(index)]) for index in range(1, 4)]
    made = await gathered(tmp_path, [*told, *liars])
    outcome, objects = chosen(made, 5)
    # Most nodes say the wrong root; the object's says which one is right.
    assert set(objects) == {thing.id}
    assert (outcome.shares, outcome.short) == (1, 1)


async def test_a_node_and_an_owner_have_one_share_of_a_segment_and_the_newest_serial_wins(tmp_path: Path) -> None:
    thing = Thing(1)
    told = spread([thing], 3)
    # Node 1 has also the other shares' names, node 4 was given share 1 later than node 2.
    told[0].copies = [thing.copy(index) for index in range(3)]
    moved = b"serialof" + (99_999).to_bytes(8, "big")
    later = FakeNode(documents=[thing.document()], copies=[thing.copy(1, serial=moved)])
    made = await gathered(tmp_path, [*told, later])
    outcome, _ = chosen(made, 4)
    assert outcome.shares == 3
    segment = next(made.found.segments(thing.id))
    assert segment.nodes == b"".join(one.to_bytes(4, "big") for one in (1, 4, 3))
    assert segment.moved == bytes([1]) + moved


async def test_an_object_without_a_copy_of_a_segment_is_left_out_and_one_with_too_few_is_counted(tmp_path: Path) -> None:
    lost, short = Thing(1, 40 * MIB, 2, 5), Thing(2, 3 * MIB, 2, 5)
    told = spread([lost, short], 5)
    for one in told:
        one.copies = [copy for copy in one.copies if not any(copy == lost.copy(index, 1) for index in range(5))]
    for one in told[1:]:
        one.copies = [copy for copy in one.copies if not any(copy == short.copy(index) for index in range(1, 5))]
    made = await gathered(tmp_path, [*told, None])
    outcome, objects = chosen(made, 6)
    assert set(objects) == {short.id}
    assert (outcome.left_out, outcome.short) == (1, 1)
    assert made.told[node_address(6)].problem == "it does not answer"


async def test_a_meta_node_cannot_use_up_numbers_or_give_them_twice(tmp_path: Path) -> None:
    things = [
        Thing(1, fields={"first_segment": 5}),
        Thing(2, sequence=11, fields={"first_segment": 5}),
        Thing(3, fields={"first_segment": (1 << 62)}),
    ]
    made = await gathered(tmp_path, spread(things, 3))
    outcome, _ = chosen(made, 3)
    firsts = {row.object: row.first for row in made.found.chosen()}
    assert firsts[things[1].id] == 5
    assert len(set(firsts.values())) == 3
    assert max(firsts.values()) < outcome.next_segment < 1 << 40


async def test_a_manifest_of_a_far_operation_counts_as_the_oldest_and_moves_no_number(tmp_path: Path) -> None:
    thing, alone = Thing(1), Thing(2)
    told = spread([thing, alone], 3)
    far = manifests.MAX_SEQUENCE
    # Nobody keeps another manifest of the second: it comes back all the same.
    lie = thing.document(sequence=far, file={"lookup_id": b"f" * 32, "name": b"a lie"})
    for one, first in zip(told, (lie, thing.document(), thing.document()), strict=True):
        one.documents = [first, *(Thing(number, 0).document() for number in (3, 4)), alone.document(sequence=far)]
    # One node alone tells many lies of objects that are nowhere.
    liar = FakeNode(documents=[Thing(number).document(sequence=far) for number in range(10, 40)])
    made = await gathered(tmp_path, [*told, liar])
    _, objects = chosen(made, 4)
    assert objects[thing.id].file.name == b"name"
    assert alone.id in objects
    assert made.highest_sequence == 10


async def test_a_row_that_is_no_manifest_is_skipped_and_a_node_that_fails_at_manifests_tells_its_shares(tmp_path: Path) -> None:
    thing = Thing(1)
    told = spread([thing], 3)
    told[0].pages = [encode(manifests.ObjectList(objects=[{"manifest": {"body": b"x", "signature": b"y"}}, {"manifest": thing.document()}]))]
    told[1].pages = [b"\xff\xff\xff"]
    made = await gathered(tmp_path, told)
    assert (made.told[node_address(1)].problem, made.told[node_address(1)].refused) == ("", 1)
    assert made.told[node_address(2)].problem
    assert chosen(made, 3)[0].shares == 3


async def test_share_roots_that_no_node_keeps_are_put_together_from_the_shares_where_all_are_told(tmp_path: Path) -> None:
    whole, short = Thing(1, 3 * MIB, 2, 5), Thing(2, 3 * MIB, 2, 5)
    told = spread([whole, short], 5)
    for number, one in enumerate(told):
        one.copies = [thing.copy(number, with_roots=False) for thing in (whole, short) if thing is whole or number < 4]
    made = await gathered(tmp_path, told)
    outcome, _ = chosen(made, 5)
    assert (outcome.objects, outcome.short) == (2, 1)
    assert made.found.roots_of(whole.segment_roots[0]) == b"".join(whole.roots[0])
    assert made.found.roots_of(short.segment_roots[0]) is None
