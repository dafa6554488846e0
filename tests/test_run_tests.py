"""tools/run_tests.py: a starved test gets another go, a wrong one fails, and neither is silent."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
STARVED = """
from pathlib import Path


def test_starved():
    mark = Path(__file__).with_suffix(".mark")
    was_there, _ = mark.exists(), mark.touch()
    assert was_there


def test_right():
    pass
"""


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "tools/run_tests.py"), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=100)


def test_a_test_that_passes_alone_is_named_and_no_failure(tmp_path: Path) -> None:
    (tmp_path / "test_one.py").write_text(STARVED)
    (tmp_path / "test_two.py").write_text("def test_two():\n    pass\n")
    done = run(tmp_path, "-m", "not interop", "-W", "ignore", ".")
    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines()[-1] == "failed beside others, passed alone: test_one.py::test_starved"
    assert "2 passed" in done.stdout, "the whole file ran again, and no other one"


def test_a_wrong_test_fails(tmp_path: Path) -> None:
    (tmp_path / "test_one.py").write_text("def test_wrong():\n    assert False\n")
    done = run(tmp_path, ".")
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == "failed beside others, failed alone: test_one.py::test_wrong"


def test_many_failures_are_not_tried_again(tmp_path: Path) -> None:
    for number in range(4):
        (tmp_path / f"test_{number}.py").write_text(STARVED)
    done = run(tmp_path, ".")
    assert done.returncode == 1
    assert "alone" not in done.stdout


def test_a_file_that_cannot_be_read_fails_at_once(tmp_path: Path) -> None:
    (tmp_path / "test_one.py").write_text("import nothing_that_there_is\n")
    done = run(tmp_path, ".")
    assert done.returncode == 2
    assert "alone" not in done.stdout


def test_without_failure_it_is_pytest(tmp_path: Path) -> None:
    (tmp_path / "test_one.py").write_text("def test_right():\n    pass\n")
    assert run(tmp_path, ".").returncode == 0
    assert run(tmp_path, "-k", "nothing", ".").returncode == 5
