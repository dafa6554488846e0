"""A disk without room under a running node: it stops in order, and goes on from the same state when there is room again."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from chain.config import Home
from tests.soak.kills import children
from tests.support import devnet, free_ports

pytestmark = pytest.mark.timeout(180)


def test_a_node_whose_disk_is_full_stops_with_a_sentence_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    """The node's process may not let files grow any more, which is how a full disk looks to its database."""
    ports = free_ports(4)
    with devnet(tmp_path, ports=ports) as running:
        running.wait_for(3)
        [node] = children(running.process.pid)
        log = tmp_path / "node.log"
        # Not beyond what the database has, but for the node's own log, which has to hold the sentence.
        grown = max(file.stat().st_size for file in Home(Path(running.net["home"])).database.rglob("*") if file.is_file())
        resource.prlimit(node, resource.RLIMIT_FSIZE, (grown + 2000, grown + 2000))
        log.write_bytes(b"")
        assert running.process.wait(90) != 0
    told = log.read_text(errors="replace")
    assert "cannot be written" in told
    assert "see that its disk has room" in told
    assert "Traceback" not in told
    with devnet(tmp_path, ports=ports) as again:
        assert again.wait_for(6) >= 6
