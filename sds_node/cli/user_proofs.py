"""``ppd check-balance``: a wallet's noz and files as a meta node shows them, against the roots that the value chain has of an epoch.

Storage.prove: leaf and path ─► balances_root, files_root of the commitment on chain: equal or different        exit codes: 0, 1; 2: not known
"""

from __future__ import annotations

from typing import Any, Final

import click

from sds_node.cli.spd_epochs import CannotCheck
from sds_node.cli.user_common import settings_of, told, user_command, user_home, with_storage
from sds_node.client import Balance, Storage
from sds_node.client.errors import MetaLied, StorageError
from sds_node.client.proofs import Proved
from sds_node.value_chain.client import ValueChain, ValueChainError

DIFFERENT: Final = 1


@click.command("check-balance")
@click.option("--epoch", type=click.IntRange(0, (1 << 63) - 1), default=0, help="Which epoch (default: the last that is reported).")
@click.option("--file", "name", default=None, help="Check that the chain has this file, too, with the content that the meta node gives.")
@user_command
def check_balance(ctx: click.Context, epoch: int, name: str | None, as_json: bool, password_file: str | None, **_: Any) -> None:
    """Compare the wallet's ozone and files, as the meta node shows them, with what the value chain has of an epoch.

    Exit code 0: equal. 1: different, so the meta node lies. 2: it cannot be checked.

    \b
    ppd check-balance
    ppd check-balance --epoch 12 --file photos/cat.jpg
    """
    rpc = settings_of(user_home(ctx)).chain.rpc

    async def checked(storage: Storage) -> tuple[Proved | None, str, Balance]:
        now = await storage.balance()
        async with ValueChain(rpc) as chain:
            try:
                return await storage.prove(chain, name, epoch), "", now
            except MetaLied as error:
                return None, str(error), now

    try:
        proved, problem, now = with_storage(ctx, password_file, checked)
    except (StorageError, ValueChainError) as error:
        raise CannotCheck(str(error)) from None
    value: dict[str, Any] = {
        "wallet": now.wallet,
        "is_equal": proved is not None,
        "problem": problem,
        "now": {"paid_noz": str(now.paid_noz), "promo_noz": str(now.promo_noz), "files": str(now.files), "height": str(now.height)},
        "proved": None,
    }
    lines = [f"now {now.paid_noz} noz bought, {now.promo_noz} granted, {now.files} files, as the meta node says"]
    if proved is None:
        lines.insert(0, f"DIFFERENT from what the chain has: {problem}")
    else:
        value["proved"] = {
            "epoch": str(proved.epoch),
            "height": str(proved.height),
            "paid_noz": str(proved.paid_noz),
            "promo_noz": str(proved.promo_noz),
            "files": str(proved.files),
            "file": proved.path,
        }
        then = f"{proved.paid_noz} noz bought, {proved.promo_noz} granted, {proved.files} files"
        lines.insert(0, f"equal to what the chain has: at epoch {proved.epoch} {then}{f', {proved.path} among them' if proved.path else ''}")
    told(value, as_json=as_json, text="\n".join(lines))
    ctx.exit(0 if proved is not None else DIFFERENT)


def add_proof_commands(group: click.Group) -> None:
    """Add the commands of this file to ``ppd``."""
    group.add_command(check_balance)
