"""``make run`` as people stop it: readers that go away, closed terminals, a second one beside it, a folder that moved."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from chain.api.comet import CometClient, CometUnavailable
from tests.support import ROOT, free_ports


def command(folder: Path, base: int, *flags: str) -> list[str]:
    return [sys.executable, "-m", "tools.devnet", "--folder", str(folder), "--ports", str(base), *flags]


@contextlib.contextmanager
def started(folder: Path, base: int) -> Iterator[subprocess.Popen[str]]:
    """``make run``, once its first block is printed."""
    process = subprocess.Popen(command(folder, base), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert any(line.startswith("  block ") for line in process.stdout), process.communicate()[1]
        yield process
    finally:
        process.kill()
        process.communicate()


def is_silent(base: int) -> bool:
    """True once nothing answers at the RPC any more; False after 20 s."""
    client = CometClient(f"http://127.0.0.1:{base}")
    try:
        for _ in range(100):
            client.call("health")
            time.sleep(0.2)
    except CometUnavailable:
        return True
    finally:
        client.close()
    return False


@pytest.mark.timeout(180)
def test_a_devnet_in_a_scripts_background_ends_with_sigint(tmp_path: Path) -> None:
    base = free_ports(4)
    log = tmp_path / "log"
    words = " ".join(command(tmp_path / "one", base))
    # A shell without job control starts what it puts behind with SIGINT ignored.
    shell = subprocess.run(["bash", "-c", f"{words} > {log} 2>&1 & echo $!"], cwd=ROOT, capture_output=True, text=True, check=True)
    pid = int(shell.stdout)
    try:
        for _ in range(600):
            if log.exists() and "  block " in log.read_text():
                break
            time.sleep(0.1)
        os.kill(pid, signal.SIGINT)
        assert is_silent(base), log.read_text()
        for _ in range(200):
            if "stopped; the chain is kept in" in log.read_text():
                return
            time.sleep(0.1)
        pytest.fail(log.read_text())
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.timeout(180)
def test_a_devnet_ends_with_whoever_runs_it_and_a_second_one_leaves_it_alone(tmp_path: Path) -> None:
    folder, base = tmp_path / "one", free_ports(4)
    with started(folder, base) as process:
        told = (folder / "devnet.json").read_bytes()
        for flags in ((), ("--reset",)):
            second = subprocess.run(command(folder, base, *flags), cwd=ROOT, capture_output=True, text=True)
            assert (second.returncode, second.stdout) == (1, "")
            assert second.stderr == f"make run: the devnet in {folder} is running already: stop it with Ctrl-C there first\n"
        assert (folder / "devnet.json").read_bytes() == told
        assert process.stdout is not None
        assert process.stdout.readline().startswith("  block "), "the first one must go on"
        process.stdout.close()
        assert process.wait(90) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert is_silent(base)

    folder = folder.rename(tmp_path / "two")
    for number in (signal.SIGHUP, signal.SIGKILL):
        with started(folder, base) as process:
            assert json.loads((folder / "devnet.json").read_text()) == {**json.loads(told), "home": str(folder / "home")}
            process.send_signal(number)
            assert process.wait(90) == (0 if number == signal.SIGHUP else -signal.SIGKILL)
        assert is_silent(base)

    start = [sys.executable, "-m", "chain.cli.main", "start", "--home", str(folder / "home")]
    node = subprocess.Popen(start, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert node.stdout is not None
        assert any("committed state" in line for line in node.stdout)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
            node.send_signal(number)
            time.sleep(0.05)
        assert node.wait(90) == 0, "impatience must not cut the stop short"
    finally:
        node.kill()
        node.communicate()


def test_a_devnet_that_cannot_be_made_or_read_is_one_sentence(tmp_path: Path) -> None:
    folder = tmp_path / "damaged"
    folder.mkdir()
    (folder / "devnet.json").write_text('{"chain_id": ')
    blocked = tmp_path / "file"
    blocked.write_text("")
    for place, told in ((folder, "is damaged (JSONDecodeError): start over with `make run RESET=1`"), (blocked, "File exists")):
        done = subprocess.run(command(place, 1), cwd=ROOT, capture_output=True, text=True)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
        assert told in done.stderr
