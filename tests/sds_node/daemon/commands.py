"""``ppd`` for tests: a command in this process, a node in one of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from sds_node.cli.node_run import is_running
from sds_node.cli.ppd import cli
from sds_node.resource.daemon.home import Home

PASSWORD = "correct horse"
NOWHERE = "http://127.0.0.1:9"
ROOT = Path(__file__).parents[3]


def password_file(folder: Path) -> str:
    path = folder / "password"
    # Once: a process that a test has started may be reading it.
    if not path.exists():
        path.touch(0o600)
        path.write_text(PASSWORD + "\n")
    return str(path)


def ppd(home: Path, *arguments: str, stdin: str = "") -> tuple[int, str, str]:
    """(exit code, stdout, stderr)."""
    done = CliRunner(env={"PPD_PASSWORD_FILE": password_file(home.parent), "PPD_HOME": ""}).invoke(
        cli, ["--home", str(home), *arguments], input=stdin
    )
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout, done.stderr


def told(home: Path, *arguments: str, stdin: str = "") -> Any:
    """The JSON that a command with ``-o json`` tells; it has to succeed."""
    code, out, err = ppd(home, *arguments, "-o", "json", stdin=stdin)
    assert code == 0, err
    return json.loads(out)


def init(home: Path, *arguments: str, rpc: str = NOWHERE, chain_id: str = "stratos-test-1") -> dict[str, Any]:
    flags = ["--chain-id", chain_id, "--rpc", rpc, "--listen", "127.0.0.1:0", "--monitor-port", "0", "--reserve", "0"]
    return dict(told(home, "init", *flags, *arguments))


@dataclass
class Process:
    """A node that runs."""

    home: Path
    process: subprocess.Popen[bytes]
    log: Path

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(how)
        return self.process.wait(90)


@contextmanager
def started(home: Path) -> Iterator[Process]:
    """``ppd start`` of a home, at the point at which it answers commands."""
    log = home.parent / "node.log"
    environment = {**os.environ, "PPD_PASSWORD_FILE": password_file(home.parent)}
    with log.open("ab") as out:
        command = [sys.executable, "-m", "sds_node.cli.ppd", "start", "--home", str(home)]
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=out, stderr=out)
    made = Process(home, process, log)
    try:
        until = time.monotonic() + 60
        while not is_running(Home(home)):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.05)
        yield made
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(30)
