"""The page for miners names every setting and metric, and no command or flag that there is not."""

from __future__ import annotations

import re

import click

from sds_node import settings
from sds_node.cli.ppd import cli
from sds_node.resource.daemon.config import Config
from sds_node.resource.daemon.metrics import METRICS
from tests.sds_node.daemon.commands import ROOT

PAGE = (ROOT / "docs" / "resource-nodes.md").read_text()
COMMAND = re.compile(r"(?:^|`)ppd((?: [^\s`|]+)+)", re.MULTILINE)


def test_every_setting_and_metric_is_explained_as_the_code_does() -> None:
    for name in settings.names(Config):
        assert f"| `{name}` |" in PAGE, name
    for one in METRICS:
        assert f"| `{one.name}` | {one.kind} | {', '.join(one.labels)} | {one.help} |" in PAGE, one.name


def test_every_command_and_flag_on_the_page_exists() -> None:
    found = COMMAND.findall(PAGE)
    assert len(found) > 20
    for text in found:
        command: click.Command = cli
        flags = {option for param in cli.params for option in param.opts} | {"--help"}
        for word in text.split():
            if word.startswith("-"):
                assert word.split("=")[0] in flags, f"ppd{text}: {word}"
            elif isinstance(command, click.Group):
                assert word in command.commands, f"ppd{text}: {word}"
                command = command.commands[word]
                flags |= {option for param in command.params for option in (*param.opts, *param.secondary_opts)}
