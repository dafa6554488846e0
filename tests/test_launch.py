"""Ctrl-C of the programs, whenever it comes: while their modules are imported, in the program, and when it is done. Never a traceback."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS: dict[str, str] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
MODULES = {"stchaind": "chain.cli.main", "ppd": "sds_node.cli.ppd", "spd": "sds_node.cli.spd"}
WAIT_S = 120
WITH_IMPORTS = """
import os, signal, sys
seen = []
def hook(event, arguments):
    if event == "import" and (seen or arguments[0] == "click"):
        seen.append(0)
        if len(seen) == {number}:
            {then}
sys.addaudithook(hook)
"""
"""Does something when the program imports its first module that takes time, click, or so many later."""
INTERRUPT = "os.kill(os.getpid(), signal.SIGINT)"
AS_BY_HAND = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)"
"""What Python begins with, unless whoever runs these tests has it ignore Ctrl-C, as a shell has what runs in its background."""


def program(name: str, how: str, before: str) -> list[str]:
    """``NAME --help`` as its console script, or as a module, begins it; ``before``: what is done first."""
    module, _, function = SCRIPTS[name].partition(":")
    begin = (
        f"from {module} import {function}\nsys.exit({function}())"
        if how == "script"
        else f"import runpy\nrunpy.run_module({MODULES[name]!r}, run_name='__main__', alter_sys=True)"
    )
    return [sys.executable, "-c", f"{AS_BY_HAND}\n{before}\nimport sys\nsys.argv = [{name!r}, '--help']\n{begin}\n"]


def run(command: list[str]) -> tuple[int, str, str]:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=WAIT_S, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("number", [1, 2, 50, 300])
@pytest.mark.parametrize("how", ["script", "module"])
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_program_that_is_interrupted_while_it_is_imported_ends_without_a_word(name: str, how: str, number: int) -> None:
    assert run(program(name, how, WITH_IMPORTS.format(number=number, then=INTERRUPT))) == (130, "", "")


@pytest.mark.parametrize("how", ["script", "module"])
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_program_that_is_interrupted_when_it_is_done_has_told_all(name: str, how: str) -> None:
    code, out, told = run(program(name, how, f"import atexit, os, signal\natexit.register(lambda: {INTERRUPT})"))
    assert (code, told) == (130, "")
    assert out.startswith(f"Usage: {name} ")
    assert "--version" in out or "--home" in out


def test_a_program_that_is_to_ignore_ctrl_c_does() -> None:
    """As a shell has it for what runs in its background."""
    before = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n" + WITH_IMPORTS.format(number=1, then=INTERRUPT)
    code, out, told = run(program("ppd", "script", before))
    assert (code, told) == (0, "")
    assert out.startswith("Usage: ppd ")


@pytest.mark.parametrize("after_s", [0, 0.02, 0.1, 0.3, 0.6, 1])
@pytest.mark.parametrize("name", SCRIPTS)
def test_whenever_ctrl_c_comes_there_is_no_traceback(name: str, after_s: float) -> None:
    """From outside, at a moment that nobody chose: it ends as interrupted, or has ended before. -2 is the kernel's end, at the last of Python's."""
    command = program(name, "script", WITH_IMPORTS.format(number=1, then="os.write(1, b'begun\\n')"))
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        time.sleep(after_s)
        process.send_signal(signal.SIGINT)
        out, told = process.communicate(timeout=WAIT_S)
    assert "Traceback" not in told
    assert process.returncode in (130, -signal.SIGINT) or (process.returncode == 0 and out.startswith(f"Usage: {name} ")), (process.returncode, told)
