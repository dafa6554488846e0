"""Nodes are given manifests behind what users do: those that hold shares, later if they were away, again if they lack them."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio

from chain.codec.canonical import encode
from sds_node import manifests
from sds_node.documents import SignedDocument
from sds_node.meta.ledger.engine import Ledger
from sds_node.meta.ledger.transfer import import_ledger
from sds_node.meta.rebuild import compared
from sds_node.meta.rebuild.balances import Bought
from sds_node.meta.rebuild.compared import Comparing
from sds_node.meta.rebuild.giving import AGAIN_S, KEEPERS, UNKNOWN_AGAIN_S, WALK_S, Giving
from sds_node.meta.rebuild.lagging import LaggingError
from sds_node.meta.rebuild.making import Maker
from sds_node.meta.rules.apply import rules
from sds_node.meta.rules.tables import NODE, Node, Segment
from sds_node.meta.users.roots import ShareRoots, open_roots
from sds_node.wire import errors as wire_errors
from tests.sds_node.rebuild.synthetic import CHAIN, META, META_KEY, NOW_MS, FakeNode, Thing, gathered, spread, standing

pytestmark = pytest.mark.asyncio
MIB = 1 << 20
NODES = 8


@dataclass
class Nodes:
    """Nodes that keep what they are given, unless they are away."""

    of_ledger: dict[int, Node]
    kept: dict[int, dict[bytes, SignedDocument]] = field(default_factory=dict)
    roots: dict[int, list[bytes]] = field(default_factory=dict)
    with_roots: dict[int, set[tuple[bytes, bytes]]] = field(default_factory=dict)
    away: set[int] = field(default_factory=set)
    offline: set[int] = field(default_factory=set)
    messages: int = 0

    def rows(self) -> dict[int, Node]:
        return self.of_ledger

    def is_online(self, row: Node) -> bool:
        return row.number not in self.offline

    async def ask(
        self, number: int, method: str, head: bytes = b"", body: bytes = b"", *, most_bytes: int = 1 << 20, idle_s: float | None = None
    ) -> bytes:
        if number in self.away:
            raise wire_errors.Unreachable("it is away")
        if method == manifests.LIST_OBJECTS:
            return FakeNode(documents=list(self.kept.get(number, {}).values())).answer(method, head)
        if method == manifests.LIST_ROOTS:
            given = manifests.KeptCopiesHead.FromString(head).after
            keys = sorted(key for key in self.with_roots.get(number, set()) if key > (given.share_root, given.serial))
            copies = [{"copy": {"share_root": root, "serial": serial}} for root, serial in keys[: manifests.MAX_ROOTS_ASKED]]
            return encode(manifests.KeptCopies(copies=copies))
        self.messages += 1
        given = manifests.ObjectList.FromString(body)
        for one in given.objects:
            assert manifests.is_signed_by(one.manifest, bytes(META_KEY.verify_key))
            self.keep(number, one.manifest, replaces=one.replaces)
        self.roots.setdefault(number, []).extend(bytes(one.roots) for one in given.roots)
        self.with_roots.setdefault(number, set()).update((bytes(one.copy.share_root), bytes(one.copy.serial)) for one in given.roots)
        return b""

    def keep(self, number: int, document: SignedDocument, *, replaces: bool = False) -> None:
        """As a node does: the highest sequence stays, unless it is replaced."""
        made, kept = manifests.read_object(document, CHAIN), self.kept.setdefault(number, {})
        key = bytes(made.object_id)
        if replaces or key not in kept or manifests.read_object(kept[key], CHAIN).sequence <= made.sequence:
            kept[key] = document


@dataclass
class Bench:
    giving: Giving
    nodes: Nodes
    things: list[Thing]
    now_s: float = NOW_MS / 1_000 + 60

    def holders(self, thing: Thing) -> set[int]:
        return {number for number, kept in self.nodes.kept.items() if thing.id in kept}


@pytest_asyncio.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    things = [Thing(1), Thing(2, 40 * MIB, 2, 5), Thing(3, 0)]
    told, file = await gathered(tmp_path, spread(things, NODES)), tmp_path / "export"
    maker = Maker(told.found, standing(NODES), Bought(), told.highest_sequence, NOW_MS, tmp_path)
    with file.open("wb") as stream:
        maker.make(maker.choose(), stream.write, tmp_path / "roots.db")
    told.found.close()
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    with file.open("rb") as stream:
        import_ledger(url, rules(CHAIN), CHAIN, stream.read)
    ledger, roots = Ledger.open(url, rules(CHAIN), CHAIN), open_roots(tmp_path / "roots.db")
    nodes = Nodes({row.number: row for row in await ledger.query(lambda view: view.scan(NODE, limit=100))})
    made: list[Bench] = []
    giving = Giving(ledger, CHAIN, META, META_KEY, nodes, nodes, roots, tmp_path / "given.db", lambda: made[0].now_s)
    made.append(Bench(giving, nodes, things))
    yield made[0]
    giving.close()
    roots.close()
    ledger.close()


async def test_holders_of_shares_get_one_manifest_of_each_object_and_roots_where_shares_differ(bench: Bench) -> None:
    await bench.giving.give([10, 20, 21])
    assert bench.holders(bench.things[0]) == {1, 2, 3}
    assert bench.holders(bench.things[1]) == {1, 2, 3, 4, 5}
    assert bench.nodes.messages == 5
    assert bench.nodes.roots[5] == [b"".join(bench.things[1].roots[0]), b"".join(bench.things[1].roots[1])]
    assert bench.nodes.roots[1] == bench.nodes.roots[5]
    made = manifests.read_object(bench.nodes.kept[1][bench.things[0].id], CHAIN)
    assert (made.sequence, bytes(made.payer), made.file.name) == (bench.giving.ledger.head.sequence, bench.things[0].wallet, b"name")


async def test_a_node_that_was_away_gets_them_later_and_holds_up_nobody(bench: Bench) -> None:
    bench.nodes.away, bench.nodes.offline = {2}, {3}
    await bench.giving.give([10])
    assert bench.holders(bench.things[0]) == {1}
    bench.nodes.away, bench.nodes.offline = set(), set()
    await bench.giving.step()
    assert bench.holders(bench.things[0]) == {1, 3}
    bench.now_s += AGAIN_S
    await bench.giving.step()
    assert bench.holders(bench.things[0]) == {1, 2, 3}
    count = bench.nodes.messages
    await bench.giving.step()
    assert bench.nodes.messages == count


async def test_the_record_of_a_folder_is_kept_by_some_nodes_and_given_again_each_week(bench: Bench) -> None:
    await bench.giving.step()
    first = bench.holders(bench.things[2])
    assert len(first) == KEEPERS
    gone = min(first)
    bench.nodes.kept.clear()
    bench.nodes.offline = {gone}
    await bench.giving.step()
    assert not bench.nodes.kept
    bench.now_s += WALK_S
    await bench.giving.step()
    again = bench.holders(bench.things[2])
    assert len(again) == KEEPERS
    assert first - {gone} < again


async def test_what_another_meta_node_has_the_duty_of_is_left_to_it(bench: Bench) -> None:
    bench.giving._is_ours = lambda object_id: object_id == bench.things[1].id
    await bench.giving.give([10, 20, 21])
    await bench.giving.step()
    assert not bench.holders(bench.things[0]) | bench.holders(bench.things[2])
    assert bench.holders(bench.things[1])


async def test_a_comparison_gives_what_is_missing_older_or_signed_by_an_unknown_key_and_nothing_else(bench: Bench) -> None:
    await bench.giving.give([10, 20, 21])
    comparing = Comparing(bench.giving)
    assert await comparing.compare(1) == 0
    thing = bench.things[0]
    bench.nodes.kept[1][thing.id] = thing.document(file={"lookup_id": b"f" * 32, "name": b"an older name"})
    del bench.nodes.kept[1][bench.things[1].id]
    assert await comparing.compare(1) == 2
    assert manifests.read_object(bench.nodes.kept[1][thing.id], CHAIN).file.name == b"name"
    right = manifests.read_object(bench.nodes.kept[1][thing.id], CHAIN)
    right.meta_node = b"x" * 20
    bench.nodes.kept[1][thing.id] = manifests.signed_object(right, META_KEY)
    assert await comparing.compare(1) == 1
    assert await Comparing(bench.giving, lambda address: False).compare(2) == 0


async def test_a_comparison_replaces_a_lie_of_a_far_sequence_whatever_it_says(bench: Bench) -> None:
    await bench.giving.give([10, 20, 21])
    thing, head = bench.things[0], bench.giving.ledger.head.sequence
    for lie in (thing.document(sequence=manifests.MAX_SEQUENCE, trashed_until_ms=1), thing.document(sequence=manifests.MAX_SEQUENCE)):
        bench.nodes.keep(1, lie)
        await bench.giving.give([10])
        assert manifests.read_object(bench.nodes.kept[1][thing.id], CHAIN).sequence == manifests.MAX_SEQUENCE
        assert await Comparing(bench.giving).compare(1) == 1
        made = manifests.read_object(bench.nodes.kept[1][thing.id], CHAIN)
        assert (made.sequence, made.trashed_until_ms) == (head, 0)
        assert await Comparing(bench.giving).compare(1) == 0


async def test_the_weekly_walk_replaces_a_lie_about_a_folder(bench: Bench) -> None:
    await bench.giving.step()
    folder = bench.things[2]
    keeper = min(bench.holders(folder))
    bench.nodes.keep(keeper, folder.document(sequence=manifests.MAX_SEQUENCE, trashed_until_ms=1))
    bench.now_s += WALK_S
    await bench.giving.step()
    assert manifests.read_object(bench.nodes.kept[keeper][folder.id], CHAIN).trashed_until_ms == 0


async def test_a_comparison_gives_share_roots_that_are_missing_though_the_manifest_is_there(bench: Bench) -> None:
    await bench.giving.give([10, 20, 21])
    thing = bench.things[1]
    bench.nodes.roots[1].clear()
    bench.nodes.with_roots[1].remove((thing.roots[1][0], thing.serial(1, 0)))
    assert await Comparing(bench.giving).compare(1) == 1
    assert bench.nodes.roots[1] == [b"".join(thing.roots[1])]
    assert await Comparing(bench.giving).compare(1) == 0


async def test_what_lags_for_want_of_share_roots_is_given_when_they_are_known(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    roots = bench.giving._roots

    async def only_ten(segments: list[Segment]) -> dict[int, list[bytes]]:
        return {number: found for number, found in (await ShareRoots.of(roots, segments)).items() if number == 10}

    monkeypatch.setattr(roots, "of", only_ten)
    await bench.giving.give([10, 20])
    await bench.giving.step()
    assert bench.holders(bench.things[0]) == {1, 2, 3}
    assert not bench.holders(bench.things[1])
    assert await bench.giving._lagging.of(1) == [20]
    monkeypatch.undo()
    await bench.giving.step()
    assert not bench.holders(bench.things[1])
    bench.now_s += UNKNOWN_AGAIN_S
    await bench.giving.step()
    assert bench.holders(bench.things[1]) == {1, 2, 3, 4, 5}
    assert await bench.giving._lagging.nodes() == []


async def test_a_place_in_the_log_that_the_ledger_has_not_is_the_beginning(bench: Bench) -> None:
    head = bench.giving.ledger.head.sequence
    await bench.giving._lagging.came_to(head + 5_000)
    await bench.giving.step()
    assert await bench.giving._lagging.place() == head


async def test_a_disk_that_fails_a_comparison_is_told_as_such(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(compared, "_lacking", full)
    with pytest.raises(LaggingError, match="disk is full"):
        await Comparing(bench.giving).compare(1)
