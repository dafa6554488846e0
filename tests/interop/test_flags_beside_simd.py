"""Every flag of every command of simd is one here, so that a script which names it goes on: with its meaning, without effect, or refused with the reason."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from chain.cli.main import cli
from tests.interop import peers

pytestmark = [pytest.mark.interop, pytest.mark.timeout(900)]
LEFT_OUT = {
    "config set": {"--skip-validate", "--stdout", "--verbose", "-s", "-v"},  # the values are checked, and written
    "config view": {"--output-format"},  # a file is shown as it is
    "keys show": {"--device", "-d"},  # of a Ledger
    "prune": {"--app-db-backend"},  # app.toml says which it is
    "query auth address-by-acc-num": {"--account-id"},  # the old name of --id
}
NO_COMMAND = {"config migrate", "debug codec list-interfaces", "debug codec list-implementations", "debug pubkey-raw"}
OTHER_MODULES = re.compile(r"(?:query|tx) (?:auth|circuit|consensus|evidence|group|ibc\S*|interchain-accounts|mint|params)")
ANOTHER_COMMAND = {"tx gov draft-proposal"}
"""It asks its questions on the terminal with simd."""


def commands(binary: Path, path: tuple[str, ...] = ()) -> Iterator[tuple[str, set[str]]]:
    """(path, flags) of every command of simd that has none below it."""
    told = subprocess.run([str(binary), *path, "--help"], capture_output=True, text=True, timeout=60, check=True).stdout
    listed = re.search(r"Available Commands:\n((?:  \S.*\n)+)", told)
    if listed is None:
        yield " ".join(path), set(re.findall(r"^ +(?:-\w, )?(--[\w.-]+)", told, re.MULTILINE)) | set(re.findall(r"^ +(-\w), --", told, re.MULTILINE))
        return
    for line in listed[1].splitlines():
        if line.split()[0] not in ("completion", "help"):
            yield from commands(binary, (*path, line.split()[0]))


def test_every_flag_of_simd_is_known_here() -> None:
    missing_commands, missing = set(), {}
    for path, flags in commands(peers.simd()):
        command: click.Command | None = cli
        for name in path.split():
            command = command.commands.get(name) if isinstance(command, click.Group) else None
        if command is None:
            missing_commands.add(path)
            continue
        known = {name for one in (*command.params, *cli.params) for name in (*one.opts, *one.secondary_opts)} | {"--help", "-h"}
        if flags - known and path not in ANOTHER_COMMAND:
            missing[path] = flags - known
    assert missing == LEFT_OUT
    assert {path for path in missing_commands if not OTHER_MODULES.match(path)} == NO_COMMAND
