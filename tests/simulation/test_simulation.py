"""Random histories in several processes, and that a planted bug of each kind is found and made small."""

from __future__ import annotations

import copy
import json
import random
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from chain.application import Application
from modules.auth.genesis import AuthGenesis
from modules.bank.keeper import BankMint
from tests.simulation import processes
from tests.simulation.generate import Generator, genesis, mangle
from tests.simulation.processes import VARIANTS, Finding, Total, Variant, compared, drawn, failure_of, handled, saved, shrunk, simulate
from tests.simulation.run import Run, run
from tests.simulation.script import Block, Script, types_in
from tests.simulation.shrink import minimal
from tests.simulation.world import World
from tests.support import ROOT

SEEDS, BLOCKS, OPERATIONS = (2,), 14, 40


@pytest.fixture(scope="module")
def total(tmp_path_factory: pytest.TempPathFactory) -> Total:
    return simulate(SEEDS, BLOCKS, OPERATIONS, list(VARIANTS), tmp_path_factory.mktemp("findings"))


def test_every_process_agrees_and_every_invariant_holds(total: Total) -> None:
    assert total.blocks == len(SEEDS) * BLOCKS
    assert total.operations > len(SEEDS) * BLOCKS * OPERATIONS // 2
    assert total.ok > total.failed + total.refused, "most operations are valid"
    assert total.failed > 20
    assert total.imports > 0
    assert total.followed > 0


def test_every_message_of_every_module_is_drawn() -> None:
    """A module that comes without operations fails here."""
    running = Run(genesis(1), VARIANTS["native"].options(Path())[0])
    generator = Generator(World(running.driver, random.Random(1)))
    for _ in range(8):
        running.block(generator.block(60))
    generator.world.next_block()
    seen = dict(running.outcome.attempted)
    for _ in range(3000):
        for message in generator.operation().decoded():
            seen.update(dict.fromkeys(types_in(message), 1))
    assert sorted(set(handled()) - set(seen)) == []
    assert len(running.outcome.succeeded) > 15
    running.close()


def found_by(seed: int) -> tuple[Script, str]:
    """A planted bug's history as it was drawn, and its kind of failure."""
    with pytest.raises(Finding) as caught:
        drawn(seed, 60, 20, VARIANTS["native"].options(Path())[0])
    return caught.value.script, caught.value.failure.kind


def small_of(script: Script, kind: str) -> Script:
    return shrunk(script, kind, lambda one: failure_of(one, VARIANTS["native"]), budget_s=60)


def test_a_bug_that_takes_two_multi_sends_is_shrunk_to_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Who sends to many a second time has one wei more than the supply says."""
    right = BankMint.send_one_to_many

    def send_one_to_many(self: Any, ctx: Any, state: Any, sender: bytes, *parts: Any) -> None:
        right(self, ctx, state, sender, *parts)
        store = state.store("bank")
        if store.has(b"\xff" + sender):
            self.set_balance(state, sender, "wei", self.balance(state, sender, "wei") + 1)
        store.set(b"\xff" + sender, b"\x01")

    monkeypatch.setattr(BankMint, "send_one_to_many", send_one_to_many)
    script, kind = found_by(5)
    assert kind == "invariant bank/total-supply"
    small = small_of(script, kind)
    names = [name for block in small.blocks for one in block.operations for message in one.decoded() for name in types_in(message)]
    assert names.count("cosmos.bank.v1beta1.MsgMultiSend") == 2
    assert small.operations <= 2 < 10 < script.operations
    assert len(small.blocks) == 1
    command = saved(small, tmp_path, "native")
    assert command.endswith(f"-m tests.simulation replay {tmp_path}/simulation-5.json --variant native")
    again = Script.load(tmp_path / "simulation-5.json")
    assert again == small
    assert str(failure_of(again, VARIANTS["native"])) == small.found
    monkeypatch.undo()
    assert failure_of(again, VARIANTS["native"]) is None, "the bug is mended"
    done = subprocess.run([sys.executable, *command.split()[2:]], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"{small.operations} operations" in done.stdout


def test_an_exception_in_a_handler_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def send_one_to_many(*_: Any) -> None:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(BankMint, "send_one_to_many", send_one_to_many)
    script, kind = found_by(5)
    assert kind == "panic"
    small = small_of(script, kind)
    assert [len(one.messages) for block in small.blocks for one in block.operations] == [1]


def test_what_an_export_leaves_out_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = AuthGenesis.export

    def export(self: Any, ctx: Any, state: Any) -> Any:
        section = copy.deepcopy(right(self, ctx, state))
        for account in section["accounts"]:
            account.get("base_vesting_account", {}).get("base_account", account).pop("sequence", None)
        return section

    monkeypatch.setattr(AuthGenesis, "export", export)
    failure = failure_of(Script(genesis(5), (Block(imports=True),)), VARIANTS["native"])
    assert failure is not None
    assert failure.kind == "import: store acc 01", "the gentxs gave their accounts a sequence"


def test_a_hook_that_fails_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    script = Script(genesis(3))

    def commit(self: Any, request: Any) -> None:
        raise OSError("planted")

    monkeypatch.setattr(Application, "commit", commit)
    failure = failure_of(script, VARIANTS["native"])
    assert failure is not None
    assert failure.kind == "stopped by OSError"


def test_processes_that_differ_are_named_with_the_block() -> None:
    lines = [["a", "b", "c"], ["d", "e", "f"]]
    assert compared({"one": {"lines": lines}, "two": {"lines": copy.deepcopy(lines)}}) == ""
    for part, name in enumerate(("app hash", "results", "events")):
        other = copy.deepcopy(lines)
        other[1][part] = "x"
        assert compared({"one": {"lines": lines}, "two": {"lines": other}}) == f"block 2: the {name} of one and two differ"
    assert compared({"one": {"lines": lines}, "two": {"lines": lines[:1]}}) == "one has 2 blocks, two 1"


def test_a_difference_between_processes_is_shrunk_in_processes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One that asks for a higher fee refuses what the other takes. (Both are in this process: a variant made here is none of the others'.)"""

    def process(variant: str, command: str, *arguments: str) -> Any:
        open_application, _ = VARIANTS[variant].options(tmp_path)
        if command == "replay":
            return asdict(run(Script.load(Path(arguments[0])), open_application))
        script, outcome = drawn(int(arguments[0]), 2, 10, open_application)
        return {"operations": script.operations, **asdict(outcome)}

    monkeypatch.setitem(VARIANTS, "greedy", Variant(settings={"min_gas_prices": "1000000001wei"}))
    monkeypatch.setattr(processes, "_process", process)
    with pytest.raises(SystemExit) as caught:
        simulate([3], 2, 10, ["native", "greedy"], tmp_path)
    first, *commands = str(caught.value).splitlines()
    assert first == "seed 3: block 1: the app hash of native and greedy differ"
    assert [command.split()[-1] for command in commands] == ["native", "greedy"]
    assert Script.load(tmp_path / "simulation-3.json").operations == 1


def test_ddmin_finds_what_is_needed_and_nothing_else() -> None:
    choose = random.Random(1)
    for _ in range(50):
        needed = set(choose.sample(range(60), choose.randint(1, 5)))
        tries = []

        def holds(some: list[int], needed: set[int] = needed, tries: list[int] = tries) -> bool:
            tries.append(len(some))
            return needed <= set(some)

        assert set(minimal(range(60), holds)) == needed
        assert len(tries) < 200
    assert minimal(range(60), lambda some: True) == []


def test_a_history_is_the_same_after_writing_and_reading_it(tmp_path: Path) -> None:
    variant = VARIANTS["native"]
    script, outcome = drawn(9, 4, 30, variant.options(tmp_path)[0])
    script.save(tmp_path / "script.json")
    assert Script.load(tmp_path / "script.json") == script
    assert drawn(9, 4, 30, variant.options(tmp_path)[0])[1] == outcome
    assert json.loads((tmp_path / "script.json").read_text())["blocks"][0]["operations"]


def test_a_mangled_message_differs_from_its_original_and_leaves_it_alone() -> None:
    script, _ = drawn(9, 2, 20, VARIANTS["native"].options(Path())[0])
    choose = random.Random(2)
    originals = [message for block in script.blocks for one in block.operations for message in one.decoded()]
    before = [one.SerializeToString() for one in originals]
    changed = sum(mangle(choose, one) != one for one in originals for _ in range(20))
    assert changed > len(originals) * 20 * 0.8
    assert [one.SerializeToString() for one in originals] == before
