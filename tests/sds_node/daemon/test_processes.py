"""``ppd start`` as a process: how it is stopped, what a kill leaves, that two do not meet in one home."""

from __future__ import annotations

import json
import signal
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from sds_node.resource.daemon.home import Home
from tests.sds_node.daemon.commands import ROOT, init, password_file, ppd, started, told


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_node_stops_as_it_should_by_signal_and_by_command(tmp_path: Path) -> None:
    home = tmp_path / "home"
    init(home)
    with started(home) as node:
        status = told(home, "status")
        assert status["is_running"]
        assert status["listens"].startswith("127.0.0.1:")
        assert any("no meta node" in one for one in status["problems"])
        assert (home / "running").exists()
        assert node.end(signal.SIGTERM) == 0
    assert not (home / "running").exists()
    with started(home) as node:
        assert ppd(home, "stop")[0] == 0
        assert node.process.wait(30) == 0
    with started(home) as node:
        assert node.end(signal.SIGINT) == 0
    assert not Home(home).state().was_killed
    assert not told(home, "status")["is_running"]
    assert "Traceback" not in (tmp_path / "node.log").read_text()


def test_a_kill_is_seen_at_the_next_start(tmp_path: Path) -> None:
    home = tmp_path / "home"
    init(home)
    with started(home) as node:
        node.end(signal.SIGKILL)
    assert (home / "running").exists()
    with started(home) as node:
        assert Home(home).state().was_killed
        assert "did not stop as it should" in node.log.read_text()
        assert node.end() == 0
    assert Home(home).state().was_killed, "no meta node heard of it yet"
    assert told(home, "verify") == {"copies": 0, "problems": []}


def test_a_second_node_in_the_same_home_is_refused(tmp_path: Path) -> None:
    home = tmp_path / "home"
    init(home)
    with started(home) as node:
        code, _, err = ppd(home, "start")
        assert code == 1
        assert "stop it first" in err
        assert ppd(home, "verify")[0] == 1
        assert node.end() == 0


def test_metrics_health_and_page_are_served_to_this_machine(tmp_path: Path) -> None:
    home = tmp_path / "home"
    init(home)
    port = free_port()
    assert ppd(home, "config", "set", "monitor.port", str(port))[0] == 0
    with started(home) as node, httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        assert told(home, "monitor")["page"] == f"http://127.0.0.1:{port}/"
        metrics = client.get("/metrics").text
        assert "ppd_free_bytes" in metrics
        assert 'ppd_copies{state="confirmed"} 0.0' in metrics
        health = client.get("/health")
        assert (health.status_code, health.json()["is_healthy"]) == (503, False)
        assert client.get("/status.json").json()["node"] == Home(home).config().keys.p2p
        assert client.get("/earnings.json").json()["network"] is None
        page = client.get("/")
        assert "Resource node" in page.text
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert client.get("/status.json", headers={"Host": "evil.example"}).status_code == 403
        assert client.get("/status.json", headers={"Host": f"localhost:{port}"}).status_code == 200
        assert client.post("/status.json").status_code == 405
        assert client.get("/../config.toml").status_code == 404
        assert node.end() == 0


def test_what_a_taken_port_means_is_said(tmp_path: Path) -> None:
    home = tmp_path / "home"
    init(home)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        for name in ("network.listen_port", "monitor.port"):
            assert ppd(home, "config", "set", name, str(port))[0] == 0
            code, _, err = ppd(home, "start")
            assert code == 1, err
            assert "Error: " in err
            assert "Traceback" not in err
            assert ppd(home, "config", "set", name, "0")[0] == 0
    assert not (home / "running").exists(), "a start that fails is no kill"


def test_a_wrong_password_and_damaged_files_are_sentences(tmp_path: Path) -> None:
    home = tmp_path / "home"
    init(home)
    (tmp_path / "wrong").write_text("not the password\n")
    code, _, err = ppd(home, "start", "--password-file", str(tmp_path / "wrong"))
    assert (code, "the password does not open it" in err) == (1, True)
    (home / "receipts.db").write_bytes(b"nonsense" * 1_000)
    code, _, err = ppd(home, "start")
    assert (code, "Traceback" in err, "damaged" in err or "cannot" in err) == (1, False, True), err
    (home / "receipts.db").unlink()
    database = sqlite3.connect(home / "receipts.db")
    database.execute("PRAGMA user_version=99")
    database.close()
    code, _, err = ppd(home, "start")
    assert (code, "version 99" in err) == (1, True), err


@pytest.mark.parametrize("arguments", [["--help"], ["status", "--help"], ["config", "set", "--help"], ["completion", "bash"], ["--version"]])
def test_help_needs_no_home(arguments: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", "sds_node.cli.ppd", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "ppd" in done.stdout.lower()


def test_usage_errors_exit_with_2_and_others_with_1(tmp_path: Path) -> None:
    def run(*arguments: str) -> int:
        environment = {"PPD_HOME": str(tmp_path / "none"), "PATH": "/usr/bin:/bin", "PPD_PASSWORD_FILE": password_file(tmp_path)}
        command = [sys.executable, "-m", "sds_node.cli.ppd", *arguments]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert "Traceback" not in done.stderr
        assert done.stderr
        return done.returncode

    assert run("nonsense") == 2
    assert run("maintenance", "start", "soon") == 2
    assert run("status") == 1
    assert run("start") == 1
    assert run("maintenance", "start", "1h") == 1


def test_a_log_in_json_is_json(tmp_path: Path) -> None:
    home = tmp_path / "home"
    init(home)
    command = [sys.executable, "-m", "sds_node.cli.ppd", "start", "--home", str(home), "--log-format", "json"]
    process = subprocess.Popen(command, cwd=ROOT, env={"PPD_PASSWORD_FILE": password_file(tmp_path), "PATH": ""}, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(json.loads(line))
        if lines[-1]["event"] == "node runs":
            process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert lines[-1]["event"] == "node stopped"
    process.stderr.close()
