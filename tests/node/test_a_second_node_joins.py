"""A second node, with its own home and CometBFT, joins by block sync, follows, and has the same app hash at every height."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from chain.api.comet import CometClient
from tests.soak.kills import kill_many_times
from tests.support import devnet, follower, same_headers


@pytest.mark.timeout(180)
def test_a_second_node_joins_by_block_sync_and_agrees_on_every_app_hash(tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    with devnet(tmp_path / "first") as first:
        first.wait_for(4)
        with follower(tmp_path / "second", first.net) as second:
            height = second.wait_for(first.height() + 2, 90)
            same_headers(first, second, height)
            for one in (first, second):
                client = CometClient(one.net["rpc"])
                found = client.abci_query("/store/bank/key", b"\x00wei", height)
                assert int(base64.b64decode(found["value"])) > 0
                client.close()


@pytest.mark.timeout(300)
def test_kills_under_load_lose_nothing_and_a_second_node_agrees() -> None:
    """Six kills; ``make soak SOAK=kills`` does a hundred."""
    figures = kill_many_times(seed=1, kills=6)
    assert figures["missing"] == 0
    assert figures["heights_compared"] >= figures["kills"]
