"""The docs check finds what it is there for."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from chain.cli.main import cli
from chain.config import APP_DEFAULTS, APP_MEANINGS
from chain.metrics import METRICS
from tools import check_docs, gen_docs


def test_the_docs_of_this_tree_are_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["check_docs", "--check"])
    assert check_docs.main() == 0


def test_a_command_or_flag_that_does_not_exist_is_found() -> None:
    assert check_docs.command_problems("run `stchaind query bank balances X --node Y` and `stchaind status`") == []
    [wrong_flag] = check_docs.command_problems("run `stchaind query bank balances X --nod Y`")
    assert "--nod is no flag" in wrong_flag
    [wrong_command] = check_docs.command_problems("    stchaind keys ad alice")
    assert "ad is no command" in wrong_command


def test_every_command_flag_error_metric_and_setting_has_its_line() -> None:
    page = gen_docs.cli_page()
    for path, command in gen_docs.commands(cli, ("stchaind",)):
        assert f"## {' '.join(path)}\n" in page
        for param in command.params:
            if param.opts[0].startswith("--"):
                assert param.opts[0] in page
    metrics = gen_docs.metrics_page()
    assert all(f"`{one.name}`" in metrics and one.help in metrics for one in METRICS)
    assert set(APP_MEANINGS) == {key for key, _ in gen_docs._flat(APP_DEFAULTS)}


def test_help_works_for_every_command() -> None:
    for path, _ in gen_docs.commands(cli, ()):
        assert CliRunner().invoke(cli, [*path, "--help"]).exit_code == 0
