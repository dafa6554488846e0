"""Share roots are with several meta nodes before a commit and with all soon after; who lies, floods or dies changes nothing of that."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from chain.codec.canonical import encode
from chain.reports import Draft
from sds_node import asking
from sds_node.merkle import segment_root
from sds_node.meta.federation import keeping
from sds_node.meta.federation.keeping import Keeping
from sds_node.meta.rules.commit import object_id
from sds_node.meta.rules.tables import OBJECT, SEGMENT, Segment
from sds_node.meta.users import kept
from sds_node.meta.users.kept import Looked
from sds_node.meta.users.roots import Part, ShareRoots, open_roots
from sds_node.schemes import SEGMENT_BYTES
from sds_node.wire import errors as wire_errors
from sds_node.wire.identity import Identity
from sds_node.wire.node import Node
from sds_node.wire.peer import Direct, Peer
from tests.sds_node.federation.metas import Metas, address, answering, metas, silent, until
from tests.sds_node.rules.support import CHAIN_ID, HASH, event, message, owner, packed, record
from tests.sds_node.users.support import meta_node
from tests.serials import first_serial

pytestmark = pytest.mark.asyncio


def roots_of(number: int) -> list[bytes]:
    """Roots of the two shares of a segment."""
    return [sha256(b"share %d %d" % (number, index)).digest() for index in range(2)]


def key(number: int) -> bytes:
    return sha256(b"key %d" % number).digest()


def part(number: int) -> Part:
    return Part(key(number), 0, [roots_of(number)])


class World:
    """Meta nodes with their files of share roots, and what wallet 1 stores."""

    def __init__(self, made: Metas, folder: Path) -> None:
        self.made = made
        self.files: dict[int, ShareRoots] = {}
        self.keeping: dict[int, Keeping] = {}
        for one in made:
            self.open(one.number, folder / f"roots{one.number}.db")
        self.lease: Any = None

    def open(self, number: int, path: Path) -> None:
        one = self.made[number - 1]
        file = self.files[number] = open_roots(path, fetch=one.agreeing.fetch_roots)
        self.keeping[number] = Keeping(one.peers, one.ledger, file, one.clock)
        one.agreeing._roots_of = file.of

        async def observation(body: bytes) -> bytes:
            raise AssertionError

        async def report(draft: Draft) -> bytes:
            raise AssertionError

        one.wire.handlers.update(one.agreeing.handlers(observation, report) | self.keeping[number].handlers())

    async def ready(self) -> None:
        """All have greeted each other; wallet 1 has a lease and there are two nodes."""
        nodes = [
            message(
                "ObservedNode", address=sha256(b"node%d" % one).digest()[:20], owner=owner(one), beneficiary=owner(one),
                p2p_key=sha256(b"p2p%d" % one).digest(), deposit_wei="1000", standing=1,
            )
            for one in (1, 2)
        ]  # fmt: skip
        await self.made.observe(*(event(node=one) for one in nodes))
        self.lease, _ = await self.made.lease(10**10)
        await self.made.greeted()

    async def commit(self, counter: int, roots: Sequence[Sequence[bytes]], *, first: int = 0, segments: int = 0, but: Sequence[int] = ()) -> bytes:
        """Segments of an object in the ledgers, from ``first`` on, of as many as there are or of ``segments``; its id."""
        stored = message(
            "NewObject", counter=counter, root=sha256(b"object%d" % counter).digest(), file_hash=HASH,
            size_bytes=((segments or len(roots)) - 1) * SEGMENT_BYTES + 1_000, data_shares=1, total_shares=2, file=record(counter), first_segment=first,
            segments=[
                message("NewSegment", root=segment_root(one), first_serial=first_serial(address(1), b"%d %d" % (counter, first + at)), nodes=packed([1, 2]))
                for at, one in enumerate(roots)
            ],
        )  # fmt: skip
        await self.made.apply("commit", message("Commit", lease_id=self.lease.id, objects=[stored]), but=but)
        return object_id(self.lease.id, counter)

    def key(self, counter: int) -> bytes:
        return object_id(self.lease.id, counter)

    async def rows(self, number: int = 1) -> list[Segment]:
        return await self.made[number - 1].ledger.query(lambda view: view.scan(SEGMENT, limit=1_000))

    async def count(self, number: int, table: str) -> int:
        return await self.files[number].work(lambda db: int(db.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0]))

    async def told(self) -> None:
        """Nothing is on its way any more."""
        await until(lambda: not any(one._telling for one in self.keeping.values()))

    def later(self, seconds: float = keeping.FRESH_S + 1) -> None:
        self.made.clock.now_s += seconds

    async def close(self) -> None:
        for one in self.keeping.values():
            await one.close()
        for file in self.files.values():
            file.close()


@asynccontextmanager
async def worlds(folder: Path, count: int = 4) -> AsyncIterator[World]:
    async with metas(folder, count) as made:
        world = World(made, folder)
        await world.ready()
        try:
            yield world
        finally:
            await world.close()


def counting(world: World, number: int) -> list[str]:
    """The methods that a meta node asks of others from now on."""
    asked: list[str] = []
    peers = world.made[number - 1].peers
    real = peers.ask

    async def ask(address: bytes, method: str, *arguments: Any, **others: Any) -> bytes:
        asked.append(method)
        return await real(address, method, *arguments, **others)

    peers.ask = ask  # type: ignore[method-assign]
    return asked


# --- before a commit --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "others"), [(1, 0), (3, 0), (4, 1), (7, 2)])
async def test_as_many_others_have_the_roots_on_disk_as_sign_a_lease_and_the_rest_soon_after(tmp_path: Path, count: int, others: int) -> None:
    async with worlds(tmp_path, count) as world:
        enough = await world.keeping[1].spread([part(1), Part(key(2), 3, [roots_of(2), roots_of(3)])])
        there = [number for number in range(2, count + 1) if await world.count(number, "kept") == 3]
        assert enough == others <= len(there)
        await world.told()
        assert [await world.count(number, "kept") for number in range(1, count + 1)] == [0, *[3] * (count - 1)]


async def test_one_that_is_silent_and_one_that_is_away_are_not_waited_for(tmp_path: Path) -> None:
    async with worlds(tmp_path) as world:
        world.made[1].wire.handlers[asking.META_KEEP] = silent
        await world.made[2].stop()
        assert await world.keeping[1].spread([part(1)]) == 1
        assert await world.count(4, "kept") == 1


async def test_who_finds_too_few_that_keep_them_refuses_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "KEEP_S", 1.0)
    async with worlds(tmp_path, 7) as world:
        world.made[1].wire.handlers[asking.META_KEEP] = silent
        world.made[2].wire.handlers[asking.META_KEEP] = answering(b"an answer has nothing to say")
        for number in (4, 5, 6):
            await world.made[number - 1].stop()
        with pytest.raises(wire_errors.Refused) as found:
            await world.keeping[1].spread([part(1)])
        assert found.value.code == asking.NOT_READY
        assert "expected 2 other meta nodes" in found.value.text
        assert await world.count(7, "kept") == 1


async def test_a_commit_that_too_few_keep_is_not_proposed_costs_nothing_and_goes_through_later(tmp_path: Path) -> None:
    seen: list[Sequence[Part]] = []

    async def spread(parts: Sequence[Part]) -> int:
        seen.append(parts)
        if len(seen) < 30:
            raise wire_errors.Refused(asking.NOT_READY, "ask again in a moment")
        return 1

    async with meta_node(tmp_path, spread=spread) as meta:
        await meta.roots.recover(meta.ledger)
        user = await meta.user()
        stored = await user.store(await user.lease(), 1, 100_000)
        for _ in range(29):
            with pytest.raises(wire_errors.Refused) as found:
                await user.commit(stored.ask())
            assert found.value.code == asking.NOT_READY
        assert await meta.ledger.query(lambda view: view.scan(OBJECT, limit=10)) == []
        assert await meta.roots.recover(meta.ledger) == 0, "nothing is staged"
        (done,) = await user.commit(stored.ask())
        (row,) = await meta.ledger.query(lambda view: view.scan(SEGMENT, limit=10))
        assert seen[-1][0].object_id == done.object_id == row.object
        assert [segment_root(one) for one in seen[-1][0].roots] == [row.root]


# --- a meta node that dies ---------------------------------------------------------------------------------------------------------


async def test_the_meta_node_that_commits_may_die_at_once(tmp_path: Path) -> None:
    async with worlds(tmp_path) as world:
        await world.keeping[1].spread([Part(world.key(1), 0, [roots_of(1)])])
        await world.told()
        await world.commit(1, [roots_of(1)])
        await world.made[0].stop()
        (row,) = await world.rows(2)
        asked = counting(world, 2)
        assert await world.files[2].of([row]) == {row.number: roots_of(1)}, "before anything was numbered"
        for number in (2, 3, 4):
            await world.keeping[number].step()
            assert await world.files[number].numbers(-1) == [row.number]
            assert await world.count(number, "kept") == 0
            assert await world.files[number].of([row]) == {row.number: roots_of(1)}
            assert await world.files[number].untold() == [], "its nodes are told by the one that committed it"
        assert asked == [], "nobody was asked"


async def test_who_was_not_told_gets_them_of_one_that_was(tmp_path: Path) -> None:
    async with worlds(tmp_path) as world:
        for number in (2, 3):
            world.made[number - 1].wire.handlers[asking.META_KEEP] = silent
        assert await world.keeping[1].spread([Part(world.key(1), 0, [roots_of(1)])]) == 1
        await world.commit(1, [roots_of(1)])
        await world.made[0].stop()
        (row,) = await world.rows(2)
        await world.keeping[2].step()
        assert await world.files[2].numbers(-1) == []
        world.later()
        await world.keeping[2].step()
        await world.keeping[2].step()
        assert await world.files[2].numbers(-1) == [row.number]
        assert await world.count(2, "missing") == 0


# --- liars and floods --------------------------------------------------------------------------------------------------------------


async def test_roots_that_a_liar_has_others_keep_are_not_believed_and_hide_no_true_ones(tmp_path: Path) -> None:
    async with worlds(tmp_path) as world:
        lies = [roots_of(9), roots_of(1)[::-1], [*roots_of(1), bytes(32)], roots_of(1)[:1]]
        for lie in lies:
            await world.keeping[3].spread([Part(world.key(1), 0, [lie])])
        # The right ones, said to be of another segment, are right.
        await world.keeping[3].spread([Part(world.key(1), 7, [roots_of(1)]), Part(world.key(2), 0, [roots_of(9)])])
        await world.told()
        await world.commit(1, [roots_of(1)])
        await world.commit(2, [roots_of(2)])
        first, second = await world.rows()
        assert await world.files[2].of([first]) == {first.number: roots_of(1)}
        await world.keeping[2].step()
        assert await world.files[2].numbers(-1) == []
        assert await world.files[2].of([second]) == {}
        await world.keeping[1].spread([Part(world.key(1), 0, [roots_of(1)]), Part(world.key(2), 0, [roots_of(2)])])
        await world.told()
        await world.keeping[2].step()
        assert await world.files[2].numbers(-1) == [first.number, second.number]
        assert await world.files[2].of([first, second]) == {first.number: roots_of(1), second.number: roots_of(2)}


async def test_roots_that_a_liar_tells_are_not_believed(tmp_path: Path) -> None:
    async with worlds(tmp_path) as world:
        await world.commit(1, [roots_of(1)])
        (row,) = await world.rows()
        await world.files[4].stage([Part(row.object, 0, [roots_of(1)])])
        await world.files[4].number([(row.object, 0, 1, row.number)])
        await world.keeping[1].step()
        for lie in (
            encode(asking.SegmentShareRootsList(segments=[{"segment": row.number, "roots": b"".join(roots_of(9))}])),
            encode(asking.SegmentShareRootsList(segments=[{"segment": 10**9, "roots": b"".join(roots_of(1))}])),
            b"\xff",
            bytes(100_000),
        ):
            world.made[1].wire.handlers[asking.META_ROOTS] = answering(lie)
            world.made[2].wire.handlers[asking.META_ROOTS] = answering(b"")
            world.keeping[1]._others._failed.clear()
            world.keeping[1]._others._served = address(2)
            world.later(60)
            await world.files[1].work(
                lambda db: db.executescript(f"INSERT OR REPLACE INTO missing VALUES ({row.number}, 0, 0); DELETE FROM share_roots")
            )
            await world.keeping[1].step()
            assert await world.files[1].numbers(-1) == [row.number]
            assert await world.files[1].of([row]) == {row.number: roots_of(1)}
            assert set(world.keeping[1]._others._failed) == {address(2)}, "who lied is not asked for a while"


async def test_what_is_kept_for_each_meta_node_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with worlds(tmp_path) as world:

        async def keeps(by: int, *parts: Part) -> bool:
            objects = [asking.KeptRoots(object_id=one.object_id, first=one.first, segments=[b"".join(roots) for roots in one.roots]) for one in parts]
            try:
                await world.made[by - 1].peers.ask(address(1), asking.META_KEEP, body=encode(asking.KeptRootsList(objects=objects)))
            except wire_errors.Busy:
                return False
            return True

        monkeypatch.setattr(keeping, "MOST_KEPT", 3)
        assert await keeps(2, part(1), part(2))
        assert not await keeps(2, part(3), part(4))
        assert await world.count(1, "kept") == 2, "all or none"
        assert await keeps(2, part(1), part(3)), "what is there counts once"
        assert not await keeps(2, part(4))
        assert await keeps(3, part(4)), "another one has bounds of its own"
        monkeypatch.setattr(keeping, "MOST_KEPT_BYTES", 2 * 64)
        assert await keeps(4, part(5))
        assert not await keeps(4, part(6), part(7))
        assert await keeps(4, part(6))
        await world.commit(1, [roots_of(8)])
        monkeypatch.setattr(keeping, "MOST_KEPT", 4)
        monkeypatch.setattr(keeping, "MOST_KEPT_BYTES", 4 * 64)
        assert await keeps(2, Part(world.key(1), 0, [roots_of(8)]))
        assert not await keeps(2, part(8))
        await world.keeping[1].step()
        assert await keeps(2, part(8)), "what came into the ledger makes room"


async def test_what_no_commit_has_is_refused(tmp_path: Path) -> None:
    async with worlds(tmp_path, 2) as world:

        async def refusal(body: bytes) -> Exception:
            with pytest.raises(wire_errors.WireError) as found:
                await world.made[1].peers.ask(address(1), asking.META_KEEP, body=body)
            return found.value

        def body(object_id: bytes = key(1), first: int = 0, segments: Sequence[bytes] = (bytes(64),), count: int = 1) -> bytes:
            return encode(asking.KeptRootsList(objects=[asking.KeptRoots(object_id=object_id, first=first, segments=segments)] * count))

        bad = [
            b"", body(b"short"), body(key(1) + b"x"), body(first=1 << 48), body(first=(1 << 64) - 1), body(segments=[]), body(segments=[b""]),
            body(segments=[bytes(63)]), body(segments=[bytes(31 * 32)]), body(segments=[bytes(32)] * 1_001), body(count=257),
        ]  # fmt: skip
        for raw in bad:
            error = await refusal(raw)
            assert isinstance(error, wire_errors.Refused), error
            assert error.code == asking.BAD_ASK
        assert isinstance(await refusal(b"\xff"), wire_errors.BadRequest)
        assert isinstance(await refusal(bytes(asking.MAX_KEPT_BYTES + 1)), wire_errors.TooMuch)
        assert await world.count(1, "kept") == 0
        largest = encode(
            asking.KeptRootsList(
                objects=[asking.KeptRoots(object_id=key(at), segments=[bytes([at]) * 30 * 32] * (250 if at < 4 else 0)) for at in range(256)]
            )
        )
        assert len(largest) < asking.MAX_KEPT_BYTES
        await world.made[1].peers.ask(address(1), asking.META_KEEP, body=largest, timeout_s=60)
        assert await world.count(1, "kept") == 1_000


async def test_strangers_have_nothing_kept(tmp_path: Path) -> None:
    async with worlds(tmp_path, 2) as world:
        stranger = Node(Identity.ephemeral(), CHAIN_ID)
        host, _, port = world.made[0].own.endpoint.rpartition(":")
        with pytest.raises(wire_errors.Refused) as found:
            await Peer(stranger, world.made[0].address, [Direct(host, int(port))]).ask(asking.META_KEEP, body=b"x")
        assert found.value.code == asking.UNKNOWN_NODE
        await stranger.close()


async def test_what_never_comes_into_the_ledger_is_dropped_after_an_hour_of_it(tmp_path: Path) -> None:
    async with worlds(tmp_path, 2) as world:
        await world.keeping[1].spread([part(1), Part(world.key(1), 0, [roots_of(1)]), Part(world.key(1), 5, [roots_of(2)])])
        await world.told()
        world.later(3_590)
        await world.commit(1, [roots_of(1)])
        assert not await world.keeping[2].step()
        assert await world.count(2, "kept") == 2
        world.later(60)
        await world.keeping[2].step()
        assert await world.count(2, "kept") == 2, "a ledger that is behind may have them still"
        await world.made.observe()
        await world.keeping[2].step()
        assert await world.count(2, "kept") == 0
        (row,) = await world.rows()
        assert await world.files[2].of([row]) == {row.number: roots_of(1)}


# --- having all --------------------------------------------------------------------------------------------------------------------


async def rounds(world: World, number: int, holds: Callable[[], Any], most: int = 20) -> int:
    """Rounds of a meta node's loop until something holds."""
    for count in range(most):
        if await holds():
            return count
        await world.keeping[number].step()
        world.later()
    raise AssertionError(f"not in {most} rounds")


async def test_a_meta_node_that_joins_gets_all_of_them_in_pages_and_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (keeping, kept):
        monkeypatch.setattr(module, "PAGE", 3)
    async with worlds(tmp_path, 3) as world:
        for counter in range(1, 9):
            await world.commit(counter, [roots_of(counter)])
        rows = await world.rows()
        for row in rows:
            holder = 2 + row.number % 2
            await world.files[holder].stage([Part(row.object, 0, [roots_of(row.number)])])
            await world.files[holder].number([(row.object, 0, 1, row.number)])
        asked = counting(world, 1)

        async def is_done() -> bool:
            return len(await world.files[1].numbers(-1)) == 8

        await rounds(world, 1, is_done)
        assert len(asked) <= 2 * 4, "they come in pages"
        assert await world.files[1].of(rows) == {row.number: roots_of(row.number) for row in rows}
        assert (await world.count(1, "missing"), world.keeping[1].problems()) == (0, [])
        await world.keeping[1].close()
        world.files[1].close()
        world.open(1, tmp_path / "roots1.db")
        asked.clear()
        for _ in range(3):
            await world.keeping[1].step()
        assert (await world.count(1, "missing"), asked) == (0, []), "what it has it does not ask for again"
        await world.commit(9, [roots_of(9)])
        for _ in range(3):
            await world.keeping[1].step()
        assert await world.count(1, "missing") == 1, "and it looks at what is new"


async def test_segments_that_come_later_than_others_with_higher_numbers_are_not_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (keeping, kept):
        monkeypatch.setattr(module, "PAGE", 2)
    async with worlds(tmp_path, 2) as world:
        await world.commit(1, [roots_of(at) for at in range(2)], segments=9)
        await world.commit(2, [roots_of(100)])
        for _ in range(6):
            await world.keeping[2].step()
        assert await world.count(2, "missing") == 3
        await world.commit(1, [roots_of(at) for at in range(2, 5)], first=2, segments=9)
        await world.commit(1, [roots_of(at) for at in range(5, 9)], first=5, segments=9)
        rows = await world.rows()
        assert len(rows) == 10
        first = rows[0].number
        await world.files[1].stage([Part(world.key(1), 0, [roots_of(at) for at in range(9)]), Part(world.key(2), 0, [roots_of(100)])])
        await world.files[1].number([(world.key(1), 0, 9, first), (world.key(2), 0, 1, first + 9)])

        async def is_done() -> bool:
            return await world.count(2, "share_roots") == 10

        await rounds(world, 2, is_done, 60)
        assert await world.count(2, "growing") == 0
        found = await world.files[2].of(rows)
        assert found == {first + at: roots_of(at if at < 9 else 100) for at in range(10)}


async def test_segments_that_are_gone_are_not_looked_for_and_a_file_of_another_ledger_begins_anew(tmp_path: Path) -> None:
    async with worlds(tmp_path, 2) as world:
        await world.commit(1, [roots_of(1)])
        (row,) = await world.rows()
        await world.keeping[1]._kept.note(Looked(10**6, [10**5, 10**5 + 1], {key(1): 5}, ()), 0, 0)
        asked = counting(world, 1)
        await world.keeping[1].step()
        assert asked == []
        assert await world.keeping[1]._kept.due(1 << 40) == [(row.number, int(world.made.clock()))]
        assert await world.count(1, "growing") == 0


async def test_what_nobody_gives_is_told_to_operators_and_asked_for_with_pauses(tmp_path: Path) -> None:
    async with worlds(tmp_path, 3) as world:
        await world.commit(1, [roots_of(1)])
        (row,) = await world.rows()
        await world.keeping[1].step()
        world.later(keeping.LATE_S - 1)
        asked = counting(world, 1)
        await world.keeping[1].step()
        assert (len(asked), world.keeping[1].problems()) == (2, [])
        world.later(2)
        await world.keeping[1].step()
        assert len(asked) == 2, "not at once again"
        (problem,) = world.keeping[1].problems()
        assert f"1 segments (of segment {row.number} first) are missing for over 5 minutes" in problem
        await world.files[3].stage([Part(row.object, 0, [roots_of(1)])])
        await world.files[3].number([(row.object, 0, 1, row.number)])
        world.later(keeping.LONGEST_PAUSE_S)
        await world.keeping[1].step()
        assert (await world.files[1].numbers(-1), world.keeping[1].problems()) == ([row.number], [])


async def test_what_rotted_is_replaced_by_what_is_kept(tmp_path: Path) -> None:
    async with worlds(tmp_path, 2) as world:
        await world.keeping[1].spread([Part(world.key(1), 0, [roots_of(1)])])
        await world.told()
        await world.commit(1, [roots_of(1)])
        (row,) = await world.rows()
        await world.files[2].work(
            lambda db: db.executescript(f"INSERT INTO share_roots VALUES ({row.number}, x'00', 0); INSERT INTO missing VALUES (1, 0, 0)")
        )
        assert await world.files[2].of([row]) == {row.number: roots_of(1)}


@pytest.mark.parametrize("version", [1, 2])
async def test_a_file_of_before_goes_on_and_gets_what_it_lacks(tmp_path: Path, version: int) -> None:
    async with worlds(tmp_path, 2) as world:
        await world.commit(1, [roots_of(1)])
        await world.commit(2, [roots_of(2)])
        first, second = await world.rows()
        for number, row, at in ((1, first, 1), (2, second, 2)):
            await world.files[number].stage([Part(row.object, 0, [roots_of(at)])])
            await world.files[number].number([(row.object, 0, 1, row.number)])
        drops = "".join(f"DROP TABLE {one};" for one in ("kept", "missing", "growing", "looked", *(["lagging"] if version == 1 else [])))
        await world.files[1].work(lambda db: db.executescript(f"{drops} PRAGMA user_version = {version}"))
        world.files[1].close()
        world.open(1, tmp_path / "roots1.db")

        async def is_done() -> bool:
            return await world.files[1].numbers(-1) == [first.number, second.number]

        await rounds(world, 1, is_done)
        assert await world.files[1].untold() == [first.number]


async def test_the_loop_goes_on_by_itself(tmp_path: Path) -> None:
    async with worlds(tmp_path, 2) as world:
        world.keeping[2]._every_s = 0.01
        is_here, step = asyncio.Event(), world.keeping[2].step

        async def seen() -> bool:
            is_more = await step()
            if await world.count(2, "share_roots"):
                is_here.set()
            return is_more

        world.keeping[2].step = seen  # type: ignore[method-assign]
        task = asyncio.create_task(world.keeping[2].run())
        await world.keeping[1].spread([Part(world.key(1), 0, [roots_of(1)])])
        await world.told()
        await world.commit(1, [roots_of(1)])
        await is_here.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
