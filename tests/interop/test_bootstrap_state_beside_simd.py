"""What ``comet bootstrap-state`` writes, held key by key against what simd's writes for the same chain and height."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from chain import config
from chain.codec.registry import message_class
from chain.config import Home
from chain.store.kv import open_backend
from tests.interop import peers
from tests.node import restored
from tests.support import stchaind

pytestmark = [pytest.mark.interop, pytest.mark.timeout(240)]


def entries(path: Path) -> dict[bytes, bytes]:
    database = open_backend("goleveldb", path)
    try:
        return dict(database.iterate())
    finally:
        database.close()


def state(raw: bytes) -> Any:
    return message_class("tendermint.state.State").FromString(raw)


def test_the_databases_are_those_that_simd_writes(tmp_path: Path) -> None:
    simd = peers.simd()
    with restored.snapshot_taken(tmp_path) as (first, archive):
        ours, theirs = restored.new_home(tmp_path / "ours", first), Home(tmp_path / "theirs")
        subprocess.run([simd, "init", "x", "--chain-id", first.net["chain_id"], "--home", str(theirs.root)], check=True, capture_output=True)
        shutil.copy(ours.genesis, theirs.genesis)
        restored.restore(ours, archive)
        restored.trust(ours, first)
        restored.trust(theirs, first)
        assert config.read_comet(theirs)["db_backend"] == "goleveldb"
        code, _, err = stchaind(ours.root, "comet", "bootstrap-state")
        assert code == 0, err
        command = [simd, "comet", "bootstrap-state", "--height", str(restored.HEIGHT), "--home", str(theirs.root)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert entries(ours.root / "data" / "blockstore.db") == entries(theirs.root / "data" / "blockstore.db")
    made, wanted = (entries(home.root / "data" / "state.db") for home in (ours, theirs))
    # simd puts a copy of the genesis file there, as CometBFT does at its start, and was built with an older CometBFT.
    assert wanted.pop(b"genesisDoc")
    told, expected = state(made.pop(b"stateKey")), state(wanted.pop(b"stateKey"))
    assert (told.version.software, expected.version.software) == ("0.38.25", "0.38.11")
    expected.version.software = told.version.software
    assert told == expected
    assert made == wanted
