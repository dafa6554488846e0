"""``spd ledger``: from one meta node's ledger to one that several keep."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from sds_node.cli import spd_ledger
from sds_node.cli.spd import cli
from sds_node.meta.daemon.home import Home
from sds_node.meta.federation.application import OrderError
from sds_node.meta.federation.comet import CometHome
from sds_node.meta.federation.genesis import READING, State, before_blocks, genesis_of, join, write_export
from sds_node.meta.ledger.engine import Ledger, snapshot
from sds_node.meta.ledger.errors import Damaged
from sds_node.meta.ledger.transfer import name_of
from sds_node.meta.rules.apply import rules
from sds_node.testing.chain import CHAIN_ID as CHAIN_IN_PROCESS
from sds_node.testing.chain import ChainInProcess, DrivenChain, genesis
from sds_node.testing.network import key_of
from sds_node.testing.order import DrivenOrder
from tests.sds_node.federation.orders import Party, Standing, counted, ended, exported, keys_of, local_ledger, proposer_of
from tests.sds_node.rules.support import CHAIN_ID


def home_of(folder: Path, number: int) -> Home:
    home = Home(folder / f"home{number}")
    home.make()
    keys_of(number).save(home.meta_keys)
    return home


def spd(home: Home, *arguments: str) -> tuple[int, Any]:
    """(exit code, JSON that was printed, or the error)."""
    done = CliRunner().invoke(cli, ["--home", str(home.root), "ledger", *arguments, "-o", "json"])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, json.loads(done.stdout) if done.exit_code == 0 else done.stderr


@pytest.fixture
def homes(tmp_path: Path) -> list[Home]:
    """Three; the first has a ledger with a log, founded by two meta nodes."""
    made = [home_of(tmp_path, number) for number in range(3)]
    asyncio.run(local_ledger(made[0].ledger_url, 2, time.time))
    return made


def test_one_exports_and_all_join_with_the_same_genesis_sequence_and_app_hash(homes: list[Home], tmp_path: Path) -> None:
    file = tmp_path / "ledger.export"
    code, exported = spd(homes[0], "export", str(file))
    assert code == 0
    assert bytes.fromhex(exported["name"]) == file.read_bytes()[-32:]
    for number, home in enumerate(homes):
        code, told = spd(home, "join", str(file))
        assert (code, told["name"], told["sequence"], told["app_hash"]) == (0, exported["name"], "2", exported["app_hash"])
        assert (told["is_validator"], told["is_new"]) == (number < 2, True)
    made = {(home.comet / "config" / "genesis.json").read_bytes() for home in homes}
    assert len(made) == 1
    document = json.loads(made.pop())
    assert document["chain_id"] == f"{CHAIN_ID}-meta"
    begins = document["app_state"]
    assert (begins["export"], begins["sequence"], begins["app_hash"]) == (exported["name"], "2", exported["app_hash"])
    assert begins["keepers"] == [keys_of(0).network_address], "two are active, and one has kept the ledger"
    assert before_blocks(CometHome(homes[1].comet)) == (int(begins["time_ms"]), frozenset({keys_of(0).address}))
    assert before_blocks(CometHome(tmp_path / "none")) == (0, frozenset())
    assert sorted(one["power"] for one in document["validators"]) == ["1", "1"]
    code, told = spd(homes[1], "join", str(file))
    assert (code, told["is_new"]) == (0, False)
    code, told = spd(homes[1], "show")
    assert (told["order"], told["export"], told["sequence"], len(told["meta_nodes"])) == ("blocks", exported["name"], "2", 2)


def test_migrate_is_export_and_join_in_one_step(homes: list[Home], tmp_path: Path) -> None:
    file = tmp_path / "ledger.export"
    assert spd(homes[0], "show")[1]["order"] == "log"
    code, told = spd(homes[0], "migrate", str(file))
    assert (code, told["is_new"]) == (0, True)
    assert spd(homes[0], "show")[1]["order"] == "blocks"
    assert spd(homes[1], "join", str(file))[1]["name"] == told["name"]
    code, error = spd(homes[0], "migrate", str(file))
    assert code == 1
    assert "in blocks already" in error


def test_joining_refuses_whatever_is_another_ledger(homes: list[Home], tmp_path: Path) -> None:
    file, later = tmp_path / "ledger.export", tmp_path / "later.export"
    assert spd(homes[0], "export", str(file))[0] == 0

    async def go_on() -> None:
        ledger = await asyncio.to_thread(Ledger.open, homes[0].ledger_url, rules(CHAIN_ID), CHAIN_ID)
        proposer = proposer_of(ledger, 0, time.time)
        await proposer.start()
        await proposer.propose("node_statuses", counted())
        await asyncio.to_thread(ledger.close)

    asyncio.run(go_on())
    code, error = spd(homes[0], "join", str(file))
    assert code == 1
    assert "operation 3" in error
    assert not homes[0].comet.exists()
    assert spd(homes[0], "export", str(later))[0] == 0
    assert spd(homes[1], "join", str(file))[0] == 0
    code, error = spd(homes[1], "join", str(later))
    assert code == 1
    assert "another export" in error
    raw = bytearray(later.read_bytes())
    raw[len(raw) // 2] ^= 1
    later.write_bytes(raw)
    for bad in (later, tmp_path / "noise"):
        (tmp_path / "noise").write_bytes(b"noise")
        code, error = spd(homes[2], "join", str(bad))
        assert code == 1
        assert "Error" in error
        assert not (homes[2].comet / "config" / "genesis.json").exists()
    assert spd(homes[2], "join", str(file))[0] == 0


def test_nothing_is_done_while_the_meta_node_runs_or_without_a_ledger(homes: list[Home], tmp_path: Path) -> None:
    file = tmp_path / "ledger.export"
    held = homes[0].lock()
    try:
        for command in (("export", str(file)), ("migrate", str(file)), ("found",)):
            code, error = spd(homes[0], *command)
            assert code == 1
            assert "runs in" in error
        assert not file.exists()
        assert spd(homes[0], "show")[0] == 0
    finally:
        os.close(held)
    for command in (("export", str(file)), ("show",)):
        code, error = spd(homes[1], *command)
        assert code == 1
        assert "ledger" in error
    assert not list(tmp_path.glob("*.part"))


def test_a_ledger_is_founded_beside_several_meta_nodes_once_and_only_by_one_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    operator, now_s = key_of("operator"), int(time.time())
    metas = [(keys_of(number), key_of(f"owner {number}")) for number in range(2)]
    funds = dict.fromkeys((operator.public_key.address, *(owner.public_key.address for _, owner in metas)), 10**24)
    chain = ChainInProcess(lambda application: genesis(application, now_s - 100, operator, metas, funds), time.time)
    chain.produce(2)
    monkeypatch.setattr(spd_ledger, "ValueChain", lambda rpc: DrivenChain(chain))
    homes = [home_of(tmp_path, number) for number in range(3)]
    code, error = spd(homes[2], "found")
    assert code == 1
    assert "no active meta node" in error
    code, told = spd(homes[0], "found")
    assert (code, told["chain_id"], told["sequence"], len(told["meta_nodes"])) == (0, CHAIN_IN_PROCESS, "1", 2)
    code, error = spd(homes[0], "found")
    assert code == 1
    assert "nothing was changed" in error
    file = tmp_path / "ledger.export"
    assert spd(homes[0], "migrate", str(file))[0] == 0
    assert spd(homes[1], "join", str(file))[1]["is_validator"] is True
    code, error = spd(homes[1], "found")
    assert code == 1
    assert "has joined others" in error


@pytest.mark.asyncio
async def test_blocks_that_are_exported_begin_anew_with_the_same_state(tmp_path: Path) -> None:
    clock = Standing()
    path, _ = await exported(tmp_path, 1, clock)
    url = f"sqlite:///{tmp_path}/first.db"
    order = DrivenOrder(1, clock)
    party = await Party.opened(0, url, clock, order.member(0))
    await party.order.start()
    await party.propose("node_statuses", counted())
    before = party.ledger.head
    await ended(order, [party])
    assert before.height > 0
    again = tmp_path / "again.export"
    state = await asyncio.to_thread(write_export, url, again)
    assert (state.head.sequence, state.head.app_hash) == (before.sequence, before.app_hash)
    home = home_of(tmp_path, 0)
    assert (await asyncio.to_thread(spd, home, "join", str(again)))[0] == 0
    assert json.loads((home.comet / "config" / "genesis.json").read_bytes())["app_state"]["export"] == state.name.hex()
    with snapshot(home.ledger_url, READING) as view:
        assert (view.head.height, view.head.sequence, view.head.app_hash) == (0, before.sequence, before.app_hash)
    own = CometHome(tmp_path / "comet")  # the one whose blocks were exported goes on with new ones, too
    joined = await asyncio.to_thread(join, url, own, keys_of(0), again)
    assert (joined.head.height, joined.head.sequence, joined.name) == (0, before.sequence, state.name)
    assert own.genesis.read_bytes() == (home.comet / "config" / "genesis.json").read_bytes()
    order = DrivenOrder(1, clock)
    party = await Party.opened(0, url, clock, order.member(0))
    await party.order.start()
    assert (await party.propose("node_statuses", counted())).sequence == before.sequence + 1
    await ended(order, [party])
    with path.open("rb") as file, pytest.raises(Damaged):
        name_of(lambda size: file.read(size)[:-1])


def test_a_genesis_needs_a_chain_id_that_cometbft_takes_and_somebody_who_votes(tmp_path: Path) -> None:
    _, state = asyncio.run(exported(tmp_path, 1, time.time))
    with pytest.raises(OrderError, match="nobody could vote"):
        genesis_of(State(state.head, state.name, {}))
    with pytest.raises(OrderError, match="at most 50"):
        genesis_of(State(state.head._replace(ledger_id="x" * 46), state.name, state.senders))
