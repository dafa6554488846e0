"""What the key tests share."""

import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from chain.cli.main import cli
from tests.interop import peers


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command said and how it ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def stchaind(tmp_path: Path) -> Callable[..., Answer]:
    """Runs ``stchaind`` in process with the ``test`` keyring of a fresh home: ``stchaind("keys", "list", stdin="…")``."""

    def run(*arguments: str, stdin: str = "", backend: str = "test", home: Path = tmp_path / "ours") -> Answer:
        environment = {name: None for name in os.environ if name.startswith("STCHAIND_")}
        full = [*arguments, "--home", str(home)]
        if arguments[1] not in ("parse", "mnemonic", "list-key-types"):
            full += ["--keyring-backend", backend]
        else:
            full = list(arguments)
        result: Result = CliRunner(env=environment).invoke(cli, full, input=stdin)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Answer(result.exit_code, result.stdout, result.stderr)

    return run


@pytest.fixture
def simd(tmp_path: Path) -> Callable[..., Answer]:
    """Runs the real ``simd`` (SDK 0.50) the same way."""
    binary = str(peers.simd())

    def run(*arguments: str, stdin: str = "", backend: str = "test", home: Path = tmp_path / "theirs") -> Answer:
        command = [binary, *arguments, "--home", str(home), "--keyring-backend", backend]
        done = subprocess.run(
            command, input=stdin, capture_output=True, text=True, timeout=60, env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
        )
        return Answer(done.returncode, done.stdout, done.stderr)

    return run
