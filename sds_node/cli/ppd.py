"""The command ``ppd``: a resource node, and the files of a user of the network."""

from __future__ import annotations

if __name__ == "__main__":
    # Before the other imports, which take a while; it does not return.
    from sds_node.cli.launch import ppd

    ppd()

import os
from typing import Final

import click

from sds_node.cli import node_chain, node_home, node_run, node_terminal, node_up
from sds_node.cli.node_common import NODE_ERRORS, home_option
from sds_node.cli.output import Commands, configure_logs
from sds_node.cli.user import add_user_commands
from sds_node.cli.user_proofs import add_proof_commands

VERSION: Final = "0.1.0"


class Root(Commands):
    """``ppd`` itself."""

    expected = NODE_ERRORS


@click.group(cls=Root, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@home_option
@click.option("--trace", is_flag=True, help="Show the full stack of errors.")
@click.version_option(VERSION, prog_name="ppd")
def cli(home: str | None, trace: bool) -> None:
    """Stratos storage: run a resource node and be paid for it, or keep files in the network.

    \b
    ppd up                                      become a resource node in one step
    ppd init; ppd register --deposit 10stos     or step by step:
    ppd start; ppd activate; ppd status
    ppd setup; ppd prepay 5stos; ppd put FILE   or use the network; `ppd list`, `ppd get FILE`
    """
    configure_logs("warn", "plain")


@cli.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that completes ppd in a shell.

    \b
    eval "$(ppd completion bash)"
    """
    os.environ["_PPD_COMPLETE"] = f"{shell}_source"
    click.Group.main(cli, args=[], prog_name="ppd", complete_var="_PPD_COMPLETE")


for _command in (
    node_up.up,
    node_up.check_machine,
    node_up.monitor,
    node_home.init,
    node_home.keys,
    node_home.config_group,
    node_run.start,
    node_run.stop,
    node_run.status,
    node_run.maintenance,
    node_run.verify,
    node_run.systemd,
    node_chain.register,
    node_chain.deposit,
    node_chain.activate,
    node_chain.earnings,
    node_chain.withdraw,
    node_chain.send_coins,
    node_chain.update,
    node_chain.leave,
    node_terminal.terminal,
):
    cli.add_command(_command)
add_user_commands(cli)
add_proof_commands(cli)


def main() -> None:
    """The program; it is begun by its launcher."""
    cli(prog_name="ppd")
