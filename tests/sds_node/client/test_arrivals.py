"""Stretches in any order become whole units, each once."""

from __future__ import annotations

import itertools
import random

import pytest

from sds_node.client.arrivals import Arrivals
from sds_node.client.transfer import Stretch


def told(data: bytes, offset: int, stop: int, proved: int) -> Stretch:
    return Stretch(offset, memoryview(data)[offset:stop], proved, 0)


@pytest.mark.parametrize("seed", range(40))
def test_all_units_come_out_once_whatever_the_order(seed: int) -> None:
    made = random.Random(seed)
    size = made.randrange(1, 5_000)
    data = made.randbytes(size)
    start = made.randrange(size)
    stop = made.randrange(start + 1, size + 1)
    unit = made.randrange(1, 700)
    cuts = sorted({start, stop, *(made.randrange(start, stop + 1) for _ in range(made.randrange(8)))})
    stretches = list(itertools.pairwise(cuts))
    arrivals = Arrivals(start, stop, unit)
    found: list[tuple[int, bytes]] = []
    proved = {one: 0 for one in stretches}
    while any(proved[one] < one[1] - one[0] for one in stretches):
        one = made.choice(stretches)
        # Now and then less than before: from another holder, anew.
        proved[one] = max(proved[one], made.randrange(one[1] - one[0] + 1)) if made.random() < 0.8 else one[1] - one[0]
        holder = bytes(data) if made.random() < 0.3 else data
        said = proved[one] if made.random() < 0.9 else made.randrange(proved[one] + 1)
        found += [(at, bytes(whole)) for at, whole in arrivals.take(told(holder, *one, said))]
        if said < proved[one]:
            proved[one] = min(proved[one], one[1] - one[0] - 1)  # it is told again
    for one in stretches:
        found += [(at, bytes(whole)) for at, whole in arrivals.take(told(data, *one, one[1] - one[0]))]
    assert arrivals.missing_bytes == 0
    assert len({at for at, _ in found}) == len(found)
    assert b"".join(whole for _, whole in sorted(found)) == data[start:stop]
    assert all(at == start or at % unit == 0 for at, _ in found)


def test_a_unit_waits_for_both_stretches_that_have_it_and_then_lets_them_go() -> None:
    data = bytes(range(100))
    arrivals = Arrivals(0, 100, 40)
    assert arrivals.take(told(data, 50, 100, 30)) == []
    assert arrivals.take(told(data, 0, 50, 45)) == [(0, data[:40])]
    assert arrivals.take(told(data, 0, 50, 50)) == [(40, data[40:80])]
    assert arrivals.missing_bytes == 20
    assert list(arrivals._came) == [50]
    assert arrivals.take(told(data, 50, 100, 50)) == [(80, data[80:])]
    assert arrivals._came == {}
    assert arrivals.take(told(data, 0, 50, 50)) == []


def test_a_stretch_outside_the_stream_is_refused() -> None:
    with pytest.raises(ValueError, match="not within 10 to 20"):
        Arrivals(10, 20, 5).take(told(bytes(30), 5, 15, 1))
