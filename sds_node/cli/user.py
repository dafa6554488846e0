"""What a user does with ``ppd``: setup, files by name, the trash, links, ozone. Content in and out is in user_content.py.

ppd GROUP ─ add_user_commands ─► setup put get list mkdir rm restore trash mv status share shares unshare get-shared balance prepay renew
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

import click

from chain.codec.registry import message_class
from chain.coins import to_messages
from chain.crypto import address as bech32
from chain.crypto.hd import DEFAULT_PATH, derive, new_mnemonic
from chain.tx.fees import parse_amounts
from sds_node.cli.node_common import run, seconds_of
from sds_node.cli.node_home import chain_id_of, read_mnemonic
from sds_node.cli.output import aligned, new_password, password, remark, size_text, table, time_text
from sds_node.cli.user_common import settings_of, told, user_command, user_home, warn, with_storage
from sds_node.cli.user_content import get, get_shared, put
from sds_node.client import Balance, Entry, Health, Restored, ShareInfo, Storage
from sds_node.client.home import Chain, Network, UserSettings, Wallet
from sds_node.keystore import Kind, StoredKey
from sds_node.settings import SettingsError
from sds_node.value_chain.client import ValueChain
from sds_node.value_chain.sender import Sender

MAX_SORTED: Final = 100_000
"""Entries that are put in order before they are shown; of a longer list so many at a time are shown as they come."""
MsgPrepay: Final = message_class("stratos.sds.v1.MsgPrepay")


@click.command()
@click.option("--wallet", "address", default=None, help="A wallet whose key file is in the home's accounts/ (`ppd keys import`).")
@click.option("--mnemonic-file", type=click.Path(dir_okay=False), default=None, help="A file with the words of the wallet; - asks for them.")
@click.option("--new", "is_new", is_flag=True, help="Make a new wallet and show its words once.")
@click.option("--meta-node", "meta_nodes", multiple=True, required=True, help="stsds1…@host:port or stsdspub1…@host:port; several may be named.")
@click.option("--rpc", default="http://127.0.0.1:26657", show_default=True, help="CometBFT's RPC of the value chain.")
@click.option("--chain-id", default=None, help="The chain's id (default: asked of the RPC).")
@user_command
def setup(
    ctx: click.Context, address: str | None, mnemonic_file: str | None, is_new: bool, meta_nodes: Sequence[str], rpc: str, chain_id: str | None,
    as_json: bool, password_file: str | None, **_: Any,
) -> None:  # fmt: skip
    """Say whose files and which network: writes user.toml into the home.

    \b
    ppd setup --new --meta-node stsds1…@meta.example.org:18881 --rpc http://127.0.0.1:26657
    """
    if sum((address is not None, mnemonic_file is not None, is_new)) != 1:
        raise click.UsageError("say one of --wallet, --mnemonic-file and --new")
    home, words = user_home(ctx), ""
    network = chain_id or chain_id_of(rpc)
    if address is None:
        words = new_mnemonic() if is_new else read_mnemonic(None if mnemonic_file == "-" else mnemonic_file)
        key = StoredKey(Kind.WALLET, derive(words).raw, "wallet", DEFAULT_PATH, words)
        address = key.address_text
        if not (home.accounts / f"{address}.json").exists():
            home.add_wallet(key, new_password(password_file))
    home.save(UserSettings(Wallet(address), Chain(network, rpc), Network(tuple(meta_nodes))))
    value = {"home": str(home.root), "wallet": address, "chain_id": network, "meta_nodes": list(meta_nodes)}
    if is_new:
        value["mnemonic"] = words
    told(value, as_json=as_json)
    if is_new:
        remark("write the words down and keep them: whoever has them has the wallet and reads all of its files; without them nobody does")


# --- names -------------------------------------------------------------------------------------------------------------------------------


def _shown(entries: Sequence[Entry], *, is_trash: bool = False) -> str:
    ends = "gone after" if is_trash else "ends"
    rows = [
        (
            "" if one.is_folder else size_text(one.size_bytes),
            "folder" if one.is_folder else "public" if one.is_public else "private",
            time_text(one.changed_s),
            time_text(one.ends_s) if one.ends_s and not one.is_folder else "",
            f"{one.path}/" if one.is_folder else one.path,
        )
        for one in entries
    ]
    return table(("size", "kind", "changed", ends, "name"), rows) if rows else "nothing"


@click.command("list")
@click.argument("folder", default="")
@click.option("-r", "--recursive", is_flag=True, help="All below the folder.")
@click.option("--all", "is_all", is_flag=True, help="All files of the wallet, those of other programs, too.")
@user_command
def list_(ctx: click.Context, folder: str, recursive: bool, is_all: bool, as_json: bool, password_file: str | None, **_: Any) -> None:
    """Show what is in a FOLDER; without one, in the wallet's own.

    \b
    ppd list
    ppd list photos --json
    """

    async def work(storage: Storage) -> None:
        source = storage.files.everything() if is_all else storage.walk(folder) if recursive else storage.list(folder)
        found: list[Entry] = []
        is_long = False
        async for entry in source:
            found.append(entry)
            if len(found) == MAX_SORTED:
                _part(found, folder, is_first=not is_long, as_json=as_json)
                found, is_long = [], True
        found.sort(key=lambda one: (one.path, one.is_folder))
        if is_long:
            _part(found, folder, is_first=False, as_json=as_json)
            if as_json:
                click.echo("]}")
            return
        told({"folder": folder, "entries": [asdict(one) for one in found]}, as_json=as_json, text=_shown(found))
        warn(await storage.warnings(found))

    with_storage(ctx, password_file, work)


def _part(entries: Sequence[Entry], folder: str, *, is_first: bool, as_json: bool) -> None:
    """A part of a list that is too long to be put in order."""
    if not as_json:
        click.echo(_shown(entries))
        return
    if is_first:
        click.echo(f'{{"folder":{json.dumps(folder)},"entries":[', nl=False)
    for at, one in enumerate(entries):
        click.echo(("" if is_first and not at else ",") + json.dumps(asdict(one), ensure_ascii=False, separators=(",", ":")), nl=False)


@click.command()
@click.argument("folders", nargs=-1, required=True)
@user_command
def mkdir(ctx: click.Context, folders: Sequence[str], as_json: bool, password_file: str | None, **_: Any) -> None:
    """Make folders, and those on the way to them.

    \b
    ppd mkdir photos/2031
    """

    async def work(storage: Storage) -> None:
        for folder in folders:
            await storage.mkdir(folder)

    with_storage(ctx, password_file, work)
    told({"folders": list(folders)}, as_json=as_json, text="")


@click.command()
@click.argument("names", nargs=-1, required=True)
@click.option("-r", "--recursive", is_flag=True, help="Folders with all in them.")
@user_command
def rm(ctx: click.Context, names: Sequence[str], recursive: bool, as_json: bool, password_file: str | None, **_: Any) -> None:
    """Put files into the trash, from which `ppd restore` takes them for some days.

    \b
    ppd rm old.txt
    ppd rm -r photos/2030
    """

    async def work(storage: Storage) -> int:
        return sum([await storage.remove(name, recursive=recursive) for name in names])

    count = with_storage(ctx, password_file, work)
    told({"removed": count}, as_json=as_json, text=f"{count} removed: they are in the trash (ppd trash)")


@click.command()
@user_command
def trash(ctx: click.Context, as_json: bool, password_file: str | None, **_: Any) -> None:
    """Show what is in the trash, and until when."""

    async def work(storage: Storage) -> list[Entry]:
        return sorted([one async for one in storage.trash()], key=lambda one: (one.path, one.ends_s))

    entries = with_storage(ctx, password_file, work)
    told({"entries": [asdict(one) for one in entries]}, as_json=as_json, text=_shown(entries, is_trash=True))


@click.command()
@click.argument("names", nargs=-1, required=True)
@click.option("-r", "--recursive", is_flag=True, help="A folder with everything that is in the trash of it, whenever it went there.")
@user_command
def restore(ctx: click.Context, names: Sequence[str], recursive: bool, as_json: bool, password_file: str | None, **_: Any) -> None:
    """Take files out of the trash: the newest version of a path, a folder with all that went with it, or an object by its id.

    \b
    ppd restore old.txt
    ppd restore photos/
    """

    async def work(storage: Storage) -> list[Restored]:
        return [await storage.restore(name, recursive=recursive) for name in names]

    found = with_storage(ctx, password_file, work)
    failed = {path: why for one in found for path, why in one.failed.items()}
    text = "\n".join(one.path if one.count == 1 else f"{one.path}: {one.count} files and folders" for one in found)
    told({"restored": [one.path for one in found], "count": sum(one.count for one in found), "failed": failed}, as_json=as_json, text=text)
    for path, why in list(failed.items())[:100]:
        remark(f"Error: {path}: {why}")
    if failed:
        raise click.ClickException(f"{len(failed)} are still in the trash: move what is in their place, and run the command again")


@click.command()
@click.argument("old")
@click.argument("new")
@user_command
def rename(ctx: click.Context, old: str, new: str, as_json: bool, password_file: str | None, **_: Any) -> None:
    """Move a file or folder to another path. Nothing is copied or paid.

    \b
    ppd mv draft.txt docs/final.txt
    """
    count = with_storage(ctx, password_file, lambda storage: storage.rename(old, new))
    told({"old": old, "new": new, "moved": count}, as_json=as_json, text=f"{old} is {new}")


@click.command()
@click.argument("names", nargs=-1, required=True)
@user_command
def renew(ctx: click.Context, names: Sequence[str], as_json: bool, password_file: str | None, **_: Any) -> None:
    """Pay one more term for files now. Without this it is paid by itself when a term ends, if the wallet has enough.

    \b
    ppd renew photos/holiday.jpg
    """
    count = with_storage(ctx, password_file, lambda storage: storage.renew(names))
    told({"renewed": count}, as_json=as_json, text=f"{count} renewed")


def _file_status(ctx: click.Context, name: str, as_json: bool, password_file: str | None) -> None:
    async def work(storage: Storage) -> tuple[Entry, Health | None, Sequence[str]]:
        entry = await storage.stat(name)
        return entry, None if entry.is_folder else await storage.health(name), await storage.warnings([entry])

    entry, health, warnings = with_storage(ctx, password_file, work)
    value: dict[str, Any] = {**asdict(entry), "health": None if health is None else asdict(health)}
    lines = {
        "name": f"{entry.path}/" if entry.is_folder else entry.path,
        "size": size_text(entry.size_bytes),
        "kind": "folder" if entry.is_folder else "public" if entry.is_public else "private",
        "file hash": entry.file_hash,
        "object": entry.object_id,
        "state": f"{entry.state}, until {time_text(entry.ends_s)}",
    }
    told(value, as_json=as_json, text="\n".join([aligned(lines), *(health.lines if health is not None else ())]))
    warn(warnings)


def _status_command(of_node: click.Command | None) -> click.Command:
    """``ppd status FILE``; without a file the resource node's status, if there is one."""

    @click.command("status")
    @click.argument("file", required=False)
    @click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True, help="Output format.")
    @user_command
    def status(ctx: click.Context, file: str | None, output: str, as_json: bool, password_file: str | None, **_: Any) -> None:
        """How safe a FILE is: its healthy shares, and how likely it is lost within a year. Without FILE: how this resource node is.

        \b
        ppd status photos/holiday.jpg
        ppd status
        """
        wants_json = as_json or output == "json"
        if file is not None:
            _file_status(ctx, file, wants_json, password_file)
        elif of_node is None:
            raise click.UsageError("say of which FILE")
        else:
            ctx.invoke(of_node, home=ctx.params.get("home"), output="json" if wants_json else "text")

    return status


# --- links -------------------------------------------------------------------------------------------------------------------------------


@click.command()
@click.argument("name")
@click.option("--expires", default=None, help="How long the link lives, as 30m, 2h, 7d (default: as long as the file).")
@click.option("--link-password", default=None, help="A password that the link needs.")
@user_command
def share(ctx: click.Context, name: str, expires: str | None, link_password: str | None, as_json: bool, password_file: str | None, **_: Any) -> None:
    """Make a link: whoever has it, and a wallet to pay for the traffic, may read this version of the file.

    \b
    ppd share photos/holiday.jpg --expires 7d
    """
    life_s = None if expires is None else seconds_of(expires)
    made: ShareInfo = with_storage(ctx, password_file, lambda storage: storage.share(name, expires_s=life_s, password=link_password))
    told(asdict(made), as_json=as_json, text=made.link)


@click.command()
@user_command
def shares(ctx: click.Context, as_json: bool, password_file: str | None, **_: Any) -> None:
    """Show the wallet's links."""

    async def work(storage: Storage) -> list[ShareInfo]:
        return [one async for one in storage.shares()]

    found = with_storage(ctx, password_file, work)
    rows = [(one.path or "?", time_text(one.ends_s) if one.ends_s else "", one.has_password, one.link) for one in found]
    told({"shares": [asdict(one) for one in found]}, as_json=as_json, text=table(("file", "ends", "password", "link"), rows) if rows else "no links")


@click.command()
@click.argument("links", nargs=-1, required=True)
@user_command
def unshare(ctx: click.Context, links: Sequence[str], as_json: bool, password_file: str | None, **_: Any) -> None:
    """End links. Who fetched the file before has it still.

    \b
    ppd unshare sds://0123456789abcdef_0123456789_abcdef
    """
    with_storage(ctx, password_file, lambda storage: storage.unshare(*links))
    told({"ended": list(links)}, as_json=as_json, text=f"{len(links)} ended")


# --- ozone -------------------------------------------------------------------------------------------------------------------------------


def _leased_text(found: Balance) -> str:
    """What leases hold, and what becomes of it, in words."""
    if not found.open_leases:
        return str(found.leased_noz)
    return f"{found.leased_noz} (held for transfers; what they do not use comes back when their leases are settled, within about an hour)"


@click.command()
@user_command
def balance(ctx: click.Context, as_json: bool, password_file: str | None, **_: Any) -> None:
    """Show the wallet's ozone on the storage network, and how many files and links it has.

    What open leases hold for transfers is in leased_noz, not in paid_noz or promo_noz; what is not used of it comes back when they are settled.
    """
    found: Balance = with_storage(ctx, password_file, lambda storage: storage.balance())
    told(asdict(found), as_json=as_json, text=aligned(asdict(found) | {"leased_noz": _leased_text(found)}))
    if not found.paid_noz and not found.promo_noz and not found.leased_noz:
        warn(["the wallet has no ozone: buy some with `ppd prepay 1stos`"])


@click.command()
@click.argument("amount")
@click.option("--beneficiary", default=None, help="The wallet that gets the ozone, st1… (default: this one).")
@user_command
def prepay(ctx: click.Context, amount: str, beneficiary: str | None, as_json: bool, password_file: str | None, **_: Any) -> None:
    """Buy ozone for AMOUNT at the price of the moment. The storage network has it some blocks later.

    \b
    ppd prepay 1stos
    """
    home = user_home(ctx)
    settings = settings_of(home)
    to = beneficiary or settings.wallet.address
    bech32.decode(to)
    coins = to_messages(parse_amounts(amount))
    key = home.wallet_key(settings.wallet.address, password(password_file))

    async def sent() -> Any:
        async with ValueChain(settings.chain.rpc) as chain:
            status = await chain.status()
            if status.chain_id != settings.chain.id:
                raise SettingsError(f"chain.rpc leads to chain {status.chain_id[:60]!r}, expected {settings.chain.id!r}: nothing was sent")
            return await Sender(chain, key, clock=time.time).send([MsgPrepay(sender=settings.wallet.address, beneficiary=to, amount=coins)])

    result = run(sent())
    bought = next((one.text("purchased_noz") for one in result.events if one.kind.endswith("EventPrePay")), "")
    value = {"tx": result.hash.hex().upper(), "height": result.height, "beneficiary": to, "purchased_noz": bought}
    told(value, as_json=as_json)


def add_user_commands(group: click.Group) -> None:
    """Give a group the commands of a user. One that the group has as ``status`` stays what ``status`` without a file is."""
    of_node = group.commands.get("status")
    for command in (
        setup, put, get, list_, mkdir, rm, restore, trash, rename, share, shares, unshare, get_shared, balance, prepay, renew, _status_command(of_node)
    ):  # fmt: skip
        group.add_command(command)
    group.add_command(rename, "mv")
