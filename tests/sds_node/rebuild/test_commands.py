"""``spd ledger import`` and what ``spd ledger rebuild`` says before it asks anybody."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from chain.metakeys import MetaKeys
from sds_node.cli.spd import cli
from sds_node.cli.spd_rebuild import remarks
from sds_node.meta.daemon.home import Chain, Home, Settings
from sds_node.meta.federation import genesis
from sds_node.meta.rebuild.balances import Bought
from sds_node.meta.rebuild.choosing import Outcome
from sds_node.meta.rebuild.gathering import Told
from sds_node.meta.rebuild.making import Made, Maker
from sds_node.meta.rebuild.rebuild import Rebuilt, _whole_file
from tests.sds_node.rebuild.synthetic import CHAIN, NOW_MS, Thing, gathered, spread, standing


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path / "spd", Settings(chain=Chain(rpc="http://127.0.0.1:1")))
    made.make()
    MetaKeys.new().save(made.meta_keys)
    return made


async def rebuilt(folder: Path, file: Path) -> None:
    told = await gathered(folder, spread([Thing(1), Thing(2, 3 << 20, 2, 5)], 6))
    maker = Maker(told.found, standing(6), Bought(), told.highest_sequence, NOW_MS, folder)
    with file.open("wb") as stream:
        maker.make(maker.choose(), stream.write, file.with_name(file.name + ".roots"))
    told.found.close()


@pytest.mark.asyncio
async def test_import_takes_an_export_with_its_share_roots_and_only_once(home: Home, tmp_path: Path) -> None:
    file = tmp_path / "ledger.export"
    await rebuilt(tmp_path, file)
    arguments = ["ledger", "import", str(file), "--home", str(home.root), "-o", "json"]
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    head, senders = genesis.look(home.ledger_url)
    assert (told["chain_id"], int(told["sequence"]), len(senders)) == (CHAIN, head.sequence, 1)
    assert (home.root / "data" / "roots.db").read_bytes() == (tmp_path / "ledger.export.roots").read_bytes()
    again = CliRunner().invoke(cli, arguments)
    assert again.exit_code == 1
    assert "not empty" in again.output


def test_import_of_what_is_no_export_changes_nothing(home: Home, tmp_path: Path) -> None:
    (tmp_path / "none").write_bytes(b"nothing of a ledger" * 100)
    done = CliRunner().invoke(cli, ["ledger", "import", str(tmp_path / "none"), "--home", str(home.root)])
    assert done.exit_code == 1
    assert "no export" in done.output
    assert not (home.root / "data" / "ledger.db").exists()


@pytest.mark.parametrize("option", [["--former-key", "stsds1x=00"], ["--node", "stsds1x@host:1"], ["--node", "nobody"]])
def test_rebuild_says_which_option_names_nothing(home: Home, tmp_path: Path, option: list[str]) -> None:
    done = CliRunner().invoke(cli, ["ledger", "rebuild", str(tmp_path / "out"), "--home", str(home.root), *option])
    assert done.exit_code == 2
    assert option[0] in done.output


def test_rebuild_needs_the_chain_and_does_not_write_over_a_file(home: Home, tmp_path: Path) -> None:
    arguments = ["ledger", "rebuild", str(tmp_path / "out"), "--home", str(home.root)]
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 1
    assert "127.0.0.1:1" in done.output
    assert not list(tmp_path.glob("*out*"))
    (tmp_path / "out").write_bytes(b"mine")
    assert "is there already" in CliRunner().invoke(cli, arguments).output
    assert (tmp_path / "out").read_bytes() == b"mine"


def test_nodes_that_are_silent_and_those_that_told_a_part_are_named_before_an_import() -> None:
    told = {bytes([1]) * 20: Told(), bytes([2]) * 20: Told(problem="it does not answer")}
    made = Rebuilt(Made(Outcome()), standing(3), Bought(), told, [bytes([3]) * 20])
    texts = remarks(made)
    assert "1 nodes told only a part" in texts[0]
    assert "1 nodes of the chain did not come" in texts[1]
    assert len(made.summary()["nodes_in_part"]) == 1
    assert remarks(Rebuilt(Made(Outcome()), standing(1), Bought(), {bytes([1]) * 20: Told()}, [])) == []


def test_what_was_cut_off_while_it_was_written_is_no_part_of_what_is_written_then(tmp_path: Path) -> None:
    for name in (".out.part", ".out.part-wal"):
        (tmp_path / name).write_bytes(b"cut off")
    with _whole_file(tmp_path / "out") as part:
        assert not part.exists()
        part.write_bytes(b"whole")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
