"""Nodes are drawn by weight, one for each owner and prefix, and the same for whoever draws again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from hashlib import sha256

from hypothesis import given, settings
from hypothesis import strategies as st

from sds_node.meta.users.known import Candidate as AnyCandidate
from sds_node.meta.users.placement import Barred, Pool, Promises, seed_of, segment_seed
from tests.sds_node.users.support import Candidate, Clock

MIB = 1 << 20


def candidate(number: int, weight: int = 100, *, owner: int | None = None, prefix: int | None = None, free_bytes: int = 1 << 40) -> Candidate:
    prefix = number if prefix is None else prefix
    return Candidate(number, sha256(b"%d" % (owner or number)).digest()[:20], prefix.to_bytes(3, "big") if prefix else b"", weight, free_bytes)


def pool(candidates: list[Candidate]) -> Pool:
    return Pool(candidates, lambda one: one.free_bytes)


def seed(number: int) -> bytes:
    return sha256(b"seed %d" % number).digest()


def numbers(chosen: Sequence[AnyCandidate] | None) -> list[int]:
    assert chosen is not None
    return [one.number for one in chosen]


NODES = st.lists(
    st.tuples(st.integers(1, 1 << 70), st.integers(1, 12), st.integers(0, 12), st.integers(0, 64 * MIB)), min_size=1, max_size=40
).map(lambda rows: [candidate(number, weight, owner=owner, prefix=prefix, free_bytes=free) for number, (weight, owner, prefix, free) in enumerate(rows, 1)])  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(NODES, st.integers(1, 8), st.integers(0, 1 << 30), st.sets(st.integers(1, 12)), st.randoms())
def test_those_who_are_drawn_differ_in_owner_and_prefix_have_room_and_are_drawn_again(
    nodes: list[Candidate], count: int, number: int, barred: set[int], chance: object
) -> None:
    without = Barred({candidate(one).owner for one in barred}, {one.to_bytes(3, "big") for one in barred}, set())
    chosen = pool(nodes).choose(count, MIB, seed(number), without)
    chance.shuffle(nodes)  # type: ignore[attr-defined]
    assert pool(nodes).choose(count, MIB, seed(number), without) == chosen
    if chosen is None:
        return
    assert len(chosen) == count == len({one.owner for one in chosen}) == len({one.number for one in chosen})
    prefixes = [one.prefix for one in chosen if one.prefix]
    assert len(prefixes) == len(set(prefixes))
    assert all(one.free_bytes >= MIB and without.allows(one) for one in chosen)


def test_a_node_of_twice_the_weight_is_drawn_about_twice_as_often() -> None:
    nodes = [candidate(1, 400), candidate(2, 200), candidate(3, 100), candidate(4, 100)]
    drawn = Counter(numbers(pool(nodes).choose(1, 1, seed(at), Barred()))[0] for at in range(8_000))
    assert abs(drawn[1] - 4_000) < 300
    assert abs(drawn[2] - 2_000) < 250
    assert abs(drawn[3] - 1_000) < 200
    assert abs(drawn[4] - 1_000) < 200


def test_without_replacement_the_second_is_drawn_by_the_weights_of_the_rest() -> None:
    nodes = [candidate(1, 10_000), candidate(2, 300), candidate(3, 100)]
    second = Counter(
        next(one for one in numbers(pool(nodes).choose(2, 1, seed(at), Barred())) if one != 1) for at in range(2_000)
    )  # fmt: skip
    assert abs(second[2] - 1_500) < 150


def test_enough_nodes_that_block_each_other_are_found_by_drawing_again() -> None:
    nodes = [candidate(1, 1_000, owner=1, prefix=1), candidate(2, owner=1, prefix=2), candidate(3, owner=2, prefix=1)]
    assert sorted(numbers(pool(nodes).choose(2, 1, seed(1), Barred()))) == [2, 3]


def test_too_few_owners_prefixes_or_bytes_are_told() -> None:
    assert pool([candidate(1, owner=5), candidate(2, owner=5)]).choose(2, 1, seed(1), Barred()) is None
    assert pool([candidate(1, prefix=5), candidate(2, prefix=5)]).choose(2, 1, seed(1), Barred()) is None
    assert pool([candidate(1), candidate(2, free_bytes=5)]).choose(2, 6, seed(1), Barred()) is None
    assert pool([]).choose(1, 1, seed(1), Barred()) is None
    assert pool([candidate(1, 0)]).choose(1, 1, seed(1), Barred()) is None


def test_a_prefix_that_is_not_known_bars_nobody() -> None:
    assert len(numbers(pool([candidate(1, prefix=0), candidate(2, prefix=0)]).choose(2, 1, seed(1), Barred()))) == 2


def test_seeds_differ_by_block_lease_counter_segment_and_choice() -> None:
    base = seed_of(b"b" * 32, b"l" * 32, 1)
    others = [seed_of(b"c" * 32, b"l" * 32, 1), seed_of(b"b" * 32, b"m" * 32, 1), seed_of(b"b" * 32, b"l" * 32, 2)]
    found = [*others, base, segment_seed(base, 0, 0), segment_seed(base, 1, 0), segment_seed(base, 0, 1)]
    assert len(set(found)) == len(found)
    assert base == sha256(b"b" * 32 + b"l" * 32 + (1).to_bytes(8, "big")).digest()


def test_promised_bytes_are_kept_until_they_are_released_or_over() -> None:
    clock = Clock()
    promises = Promises(clock, 600)
    promises.add("a", 7, 100)
    promises.add("b", 7, 50)
    promises.add("a", 7, 60)
    assert promises.of(7) == 110
    assert promises.of(8) == 0
    promises.release("b")
    promises.release("never promised")
    assert promises.of(7) == 60
    clock.wait(599)
    promises.expire()
    assert promises.of(7) == 60
    clock.wait(1)
    promises.expire()
    assert promises.of(7) == 0
