"""The commands of a user, through click, with a whole network behind them."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from sds_node.cli.output import Commands
from sds_node.cli.ppd import cli
from sds_node.cli.user import add_user_commands
from sds_node.cli.user_content import Fetching
from sds_node.client import Entry, MetaUnreachable, Storage
from sds_node.client.home import UserHome
from sds_node.keystore import Kind, StoredKey
from tests.sds_node.client.network import Network, network, wallet_key
from tests.sds_node.rules.support import CHAIN_ID

MIB = 1 << 20
PASSWORD = "correct horse"
Run = Callable[..., Any]


@click.group(cls=Commands)
def root() -> None:
    """As ``ppd``."""


add_user_commands(root)


async def run(folder: Path, *arguments: str, code: int = 0, given: bytes | None = None, user: int = 1) -> Result:
    """A command in a thread of its own, which makes its own event loop."""
    split = 2 if arguments[0] == "user" else 1
    options = ["--home", str(folder / f"home{user}"), "--password-file", str(folder / "password")]
    result: Result = await asyncio.to_thread(CliRunner().invoke, root, [*arguments[:split], *options, *arguments[split:]], input=given)
    assert result.exit_code == code, (result.exit_code, result.output)
    assert "Traceback" not in result.output
    return result


async def told(folder: Path, *arguments: str, **changes: Any) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((await run(folder, *arguments, "--json", **changes)).stdout)
    return value


async def user(folder: Path, net: Network, number: int = 1) -> None:
    (folder / "password").write_text(PASSWORD)
    (folder / "password").chmod(0o600)
    home = UserHome(folder / f"home{number}")
    address = home.add_wallet(StoredKey(Kind.WALLET, wallet_key(number).raw), PASSWORD)
    await run(folder, "setup", "--wallet", address, "--meta-node", str(net.where), "--chain-id", CHAIN_ID, user=number)


@pytest.mark.asyncio
async def test_a_file_goes_in_is_listed_fetched_shared_removed_and_restored(tmp_path: Path) -> None:
    source = tmp_path / "photo.jpg"
    source.write_bytes(b"a photo" * 1_000)
    async with network(tmp_path, 3, wallets=2, is_live=True) as net:
        await user(tmp_path, net)
        await user(tmp_path, net, 2)
        stored = await told(tmp_path, "put", str(source), "photos/")
        assert (stored["name"], stored["size_bytes"]) == ("photos/photo.jpg", 7_000)
        assert stored["charged_noz"] == 3 * (7_000 + 16)
        assert stored["file_hash"].startswith("v05j1m5")
        listed = await told(tmp_path, "list", "photos")
        assert [one["path"] for one in listed["entries"]] == ["photos/photo.jpg"]
        await run(tmp_path, "get", "photos/photo.jpg", str(tmp_path / "out.jpg"))
        assert (tmp_path / "out.jpg").read_bytes() == source.read_bytes()
        part = await run(tmp_path, "get", "photos/photo.jpg", "-", "--offset", "7", "--length", "7")
        assert part.stdout_bytes == b"a photo"
        link = (await told(tmp_path, "share", "photos/photo.jpg", "--expires", "2h", "--link-password", "pass word"))["link"]
        await run(tmp_path, "get-shared", link, str(tmp_path / "shared.jpg"), "--link-password", "pass word", user=2)
        assert (tmp_path / "shared.jpg").read_bytes() == source.read_bytes()
        for folder in ("photos", "photos/"):
            assert f"{folder} is a folder, and a link leads to one file" in (await run(tmp_path, "share", folder, code=1)).stderr
        assert "there is no file nothing" in (await run(tmp_path, "share", "nothing", code=1)).stderr
        assert "password" in (await run(tmp_path, "get-shared", link, str(tmp_path / "x"), code=1, user=2)).stderr
        assert len((await told(tmp_path, "shares"))["shares"]) == 1
        await run(tmp_path, "unshare", link)
        assert (await told(tmp_path, "mv", "photos/photo.jpg", "album/first.jpg"))["moved"] == 1
        status = await told(tmp_path, "status", "album/first.jpg")
        assert (status["health"]["fewest_healthy"], status["health"]["total_shares"]) == (3, 3)
        assert "3 healthy ones" in (await run(tmp_path, "status", "album/first.jpg")).stdout
        assert (await told(tmp_path, "renew", "album/first.jpg"))["renewed"] == 1
        assert (await told(tmp_path, "rm", "album/first.jpg"))["removed"] == 1
        assert [one["path"] for one in (await told(tmp_path, "trash"))["entries"]] == ["album/first.jpg"]
        assert (await told(tmp_path, "restore", "album/first.jpg"))["restored"] == ["album/first.jpg"]
        balance = await told(tmp_path, "balance")
        assert balance["files"] == 3
        assert balance["paid_noz"] > 0


@pytest.mark.asyncio
async def test_the_balance_tells_how_much_ozone_leases_hold(tmp_path: Path) -> None:
    async with network(tmp_path, 3, is_live=True) as net:
        await user(tmp_path, net)
        before = await told(tmp_path, "balance")
        assert (before["open_leases"], before["leased_noz"]) == (0, 0)
        assert "leased_noz   0\n" in (await run(tmp_path, "balance")).stdout
        # No receipt is shown to this network's meta node, so the lease stays open.
        stored = await told(tmp_path, "put", "-", "f", given=b"x" * 1_000)
        after = await told(tmp_path, "balance")
        assert after["open_leases"] == 1
        # The escrow is with the file; what the receipts are for is the lease's still.
        gone_noz = before["paid_noz"] - after["paid_noz"]
        assert gone_noz - stored["charged_noz"] <= after["leased_noz"] < gone_noz
        shown = (await run(tmp_path, "balance")).stdout
        assert f"leased_noz   {after['leased_noz']} (held for transfers; what they do not use comes back when their leases are settled" in shown


class Stopped(Exception):
    """Of a get, by a test."""


@pytest.mark.asyncio
async def test_a_get_that_goes_on_says_how_much_is_there(tmp_path: Path) -> None:
    data, target = bytes(40 * MIB), tmp_path / "out"

    def stop(done: int, _: int) -> None:
        # Once 8 MiB without a hole are noted to be there, which are written in no order.
        if list(tmp_path.glob(".*.note")) or done == len(data):
            raise Stopped

    async with network(tmp_path, 1, is_live=True) as net:
        await user(tmp_path, net)
        async with net.storage() as storage:
            await storage.put(data, "big")
            with pytest.raises(Stopped):
                await storage.get("big", target, progress=stop)
        quiet = await run(tmp_path, "get", "big", str(tmp_path / "another"))
        assert "goes on" not in quiet.stderr
        done = await run(tmp_path, "get", "big", str(target))
        assert "an interrupted get goes on: " in done.stderr
        assert " MiB of 40.0 MiB are there already\n" in done.stderr
        assert target.read_bytes() == data


def test_what_was_there_is_told_once_before_the_bar_and_never_beside_json(capsys: pytest.CaptureFixture[str]) -> None:
    for first, is_shown, says in (
        (0, True, ""),
        (3 * MIB, True, "an interrupted get goes on: 3.0 MiB of 5.0 MiB are there already\n"),
        (3 * MIB, False, ""),
    ):
        progress = Fetching("f", is_shown=is_shown)
        for done in (first, 4 * MIB, 5 * MIB):
            progress(done, 5 * MIB)
        progress.end()
        assert capsys.readouterr() == ("", says)


@pytest.mark.asyncio
async def test_a_folder_goes_in_and_out_as_a_whole_in_few_commits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "many"
    for number in range(60):
        path = folder / f"d{number % 3}" / f"file{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"content {number}")
    (folder / "link").symlink_to("/etc/passwd")
    async with network(tmp_path, 3, is_live=True) as net:
        await user(tmp_path, net)
        done = await run(tmp_path, "put", "-r", str(folder), "--json")
        assert json.loads(done.stdout)["files"] == 60
        assert "left out" in done.stderr
        assert net.counts["object.commit"] < 30
        assert net.counts["lease.take"] == 1
        got = await told(tmp_path, "get", "-r", "many", str(tmp_path / "back"))
        assert (got["files"], got["failed"]) == (60, [])
        for path in folder.rglob("*.txt"):
            assert (tmp_path / "back" / path.relative_to(folder)).read_text() == path.read_text()
        whole = (await told(tmp_path, "list", "-r"))["entries"]
        assert len(whole) == 64
        for most in (10, 64):
            monkeypatch.setattr("sds_node.cli.user.MAX_SORTED", most)
            in_parts = (await told(tmp_path, "list", "-r"))["entries"]
            assert sorted(one["path"] for one in in_parts) == sorted(one["path"] for one in whole)


@pytest.mark.asyncio
async def test_what_a_folder_has_and_is_not_stored_is_told_and_what_cannot_be_read_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, scandir = tmp_path / "many", os.scandir
    for name in ("a", "private/b", "else/c"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    (folder / "docs").symlink_to(folder / "else")
    (folder / "empty").mkdir()

    def forbidden(path: Any) -> Any:
        if str(path).endswith("private"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    async with network(tmp_path, 3, is_live=True) as net:
        await user(tmp_path, net)
        with monkeypatch.context() as patch:
            patch.setattr(os, "scandir", forbidden)
            done = await run(tmp_path, "put", "-r", str(folder), "--json", code=1)
        said = json.loads(done.stdout)
        assert sorted(one["name"] for one in said["results"]) == ["many/a", "many/else/c"]
        (failed,) = said["failed"]
        assert failed["name"] == str(folder / "private")
        assert "cannot be read (Permission denied)" in failed["error"]
        assert f"left out: {folder / 'docs'} is a link to a folder\n" in done.stderr
        assert f"left out: {folder / 'empty'} is empty\n" in done.stderr
        assert "1 files failed" in done.stderr


@pytest.mark.asyncio
async def test_a_name_that_is_no_text_fails_alone_and_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    (folder / "good").write_text("x")
    try:
        (folder / os.fsdecode(b"caf\xe9")).write_text("x")
    except OSError:
        pytest.skip("this disk takes no such name")
    async with network(tmp_path, 3, is_live=True) as net:
        await user(tmp_path, net)
        said = json.loads((await run(tmp_path, "put", "-r", str(folder), "--json", code=1)).stdout)
        assert (said["files"], [one["name"] for one in said["failed"]]) == (1, ["many/caf\ufffd"])


@pytest.mark.asyncio
async def test_a_name_is_the_same_in_each_of_unicodes_forms(tmp_path: Path) -> None:
    """As a Mac writes it (NFD), and as most keyboards do (NFC). Names with several marks: what is cut off by length is cut wrongly."""
    nfd, nfc = "e\u0301te\u0301 a\u0300 Orle\u0301ans", "été à Orléans"
    folder = tmp_path / nfd
    (folder / f"{nfd} 1").mkdir(parents=True)
    (folder / f"{nfd} 1" / f"{nfd}.txt").write_text("x")
    async with network(tmp_path, 3, is_live=True) as net:
        await user(tmp_path, net)
        assert [one["name"] for one in (await told(tmp_path, "put", "-r", str(folder)))["results"]] == [f"{nfc}/{nfc} 1/{nfc}.txt"]
        for number, form in enumerate((nfc, nfd)):
            assert [one["path"] for one in (await told(tmp_path, "list", form))["entries"]] == [f"{nfc}/{nfc} 1"]
            out = tmp_path / f"out{number}"
            await run(tmp_path, "get", f"{form}/{form} 1/{form}.txt", str(out))
            assert out.read_text() == "x"
            back = tmp_path / f"back{number}"
            await run(tmp_path, "get", "-r", form, str(back))
            assert [str(one.relative_to(back)) for one in back.rglob("*")] == [f"{nfc} 1", f"{nfc} 1/{nfc}.txt"]
            await run(tmp_path, "rm", f"{form}/{form} 1/{form}.txt")
            assert "it is in the trash" in (await run(tmp_path, "status", f"{form}/{form} 1/{form}.txt", code=1)).stderr
            await run(tmp_path, "restore", f"{form}/{form} 1/{form}.txt")


@pytest.mark.asyncio
async def test_of_two_names_that_are_one_in_the_network_the_second_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "many"
    for name in ("caf\u00e9", "cafe\u0301", "d/a", "d/b"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    for name in ("\u00e9/a", "e\u0301/a"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    if len(list(folder.iterdir())) < 5:
        pytest.skip("this disk has them as one, too")
    async with network(tmp_path, 3, is_live=True) as net:
        await user(tmp_path, net)
        said = json.loads((await run(tmp_path, "put", "-r", str(folder), "--json", code=1)).stdout)
        assert sorted(one["name"] for one in said["results"]) == ["many/caf\u00e9", "many/d/a", "many/d/b", "many/\u00e9/a"]
        assert sorted(one["name"] for one in said["failed"]) == [str(folder / "caf\u00e9"), str(folder / "\u00e9")]
        assert r"'caf\xe9' and 'cafe\u0301' are one name in the network" in "".join(one["error"] for one in said["failed"])
        assert (await told(tmp_path, "trash"))["entries"] == []


@pytest.mark.asyncio
async def test_standard_input_is_in_no_journal_since_no_other_command_has_it(tmp_path: Path) -> None:
    async with network(tmp_path, 1, is_live=True) as net:
        await user(tmp_path, net)
        noted = list[str]()

        async def serve(handler: Any, stream: Any, connection: Any) -> None:
            noted.extend(one.name for one in tmp_path.glob("home1/**/*.put"))  # noqa: ASYNC240 - a few
            await handler(stream, connection)

        net.changes["place.put"] = serve
        await told(tmp_path, "put", "-", "big", given=bytes(33 * MIB))
        assert (noted, net.counts["place.put"] > 0) == ([], True)
        (tmp_path / "f").write_bytes(bytes(33 * MIB))
        await told(tmp_path, "put", str(tmp_path / "f"), "other")
        assert noted


@pytest.mark.asyncio
async def test_wrong_use_is_code_2_and_what_cannot_be_done_is_code_1_with_a_sentence(tmp_path: Path) -> None:
    async with network(tmp_path, 3, is_live=True) as net:
        await user(tmp_path, net)
        assert "no file nothing" in (await run(tmp_path, "get", "nothing", code=1)).stderr
        assert "to store all in it, say -r" in (await run(tmp_path, "put", str(tmp_path), code=2)).stderr
        assert "cannot be read" in (await run(tmp_path, "put", str(tmp_path / "nowhere"), code=1)).stderr
        assert "say of which FILE" in (await run(tmp_path, "status", code=2)).stderr
        assert "no folder there" in (await run(tmp_path, "list", "there", code=1)).stderr
        assert "neither . nor .." in (await run(tmp_path, "mkdir", "a/../b", code=1)).stderr
        assert "a time as" in (await run(tmp_path, "share", "x", "--expires", "soon", code=2)).stderr
        assert "there is no user" in (await run(tmp_path, "list", code=1, user=9)).stderr
        (tmp_path / "password").write_text("another one")
        assert "password does not open" in (await run(tmp_path, "list", code=1)).stderr


@pytest.mark.asyncio
async def test_standard_input_is_stored_and_an_idempotency_key_gives_the_first_result_again(tmp_path: Path) -> None:
    async with network(tmp_path, 3, is_live=True) as net:
        await user(tmp_path, net)
        await told(tmp_path, "put", "-", "piped.bin", given=b"from a pipe")
        assert (await run(tmp_path, "get", "piped.bin", "-")).stdout_bytes == b"from a pipe"
        (tmp_path / "f").write_text("once")
        first = await told(tmp_path, "put", str(tmp_path / "f"), "--key", "k1")
        assert await told(tmp_path, "put", str(tmp_path / "f"), "--key", "k1") == first
        assert "another put" in (await run(tmp_path, "put", str(tmp_path / "f"), "g", "--key", "k1", code=1)).stderr
        assert net.counts["object.commit"] == 2


@pytest.mark.asyncio
async def test_a_network_with_few_nodes_is_warned_about(tmp_path: Path) -> None:
    async with network(tmp_path, 1, is_live=True) as net:
        await user(tmp_path, net)
        (tmp_path / "f").write_text("alone")
        assert "too few nodes" in (await run(tmp_path, "put", str(tmp_path / "f"))).stderr


@pytest.mark.asyncio
async def test_a_folder_is_restored_whole_and_the_command_says_how_much(tmp_path: Path) -> None:
    async with network(tmp_path, 3, is_live=True) as net:
        await user(tmp_path, net)
        for name in ("d/a", "d/b"):
            await told(tmp_path, "put", "-", name, given=b"x")
        await run(tmp_path, "rm", "-r", "d")
        assert "3 files and folders" in (await run(tmp_path, "restore", "d")).stdout
        await run(tmp_path, "rm", "-r", "d")
        await told(tmp_path, "put", "-", "d/a", given=b"y")
        done = await run(tmp_path, "restore", "-r", "d", code=1)
        assert "d/a" in done.stderr
        assert [one["path"] for one in (await told(tmp_path, "list", "d"))["entries"]] == ["d/a", "d/b"]


@pytest.mark.asyncio
async def test_a_name_that_is_not_there_is_told_with_what_to_do(tmp_path: Path) -> None:
    listed = "'ppd list -r' shows what there is"
    async with network(tmp_path, 3, is_live=True) as net:
        await user(tmp_path, net)
        stored = await told(tmp_path, "put", "-", "old ones/gone", given=b"x")
        await told(tmp_path, "put", "-", "here", given=b"x")
        for command in (
            ("get", "nothing"),
            ("get", "nothing", "-"),
            ("get", "-r", "nothing", str(tmp_path / "folder")),
            ("get", "00" * 32),
            ("list", "nothing"),
            ("rm", "here/nothing"),
            ("rm", "-r", "nothing/"),
            ("mv", "nothing", "something"),
            ("share", "nothing"),
            ("status", "nothing"),
            ("renew", "here", "nothing"),
        ):
            seen = (await run(tmp_path, *command, code=1)).stderr
            assert listed in seen, (command, seen)
            assert "restore" not in seen
        assert "'ppd trash' shows what is" in (await run(tmp_path, "restore", "nothing", code=1)).stderr
        await run(tmp_path, "rm", "-r", "old ones")
        for command, restored in (
            (("get", "old ones/gone"), "'old ones/gone'"),
            (("get", stored["file_hash"]), stored["object_id"]),
            (("get", "-r", "old ones", str(tmp_path / "folder")), "'old ones/'"),
            (("list", "old ones"), "'old ones/'"),
            (("rm", "old ones"), "'old ones'"),
            (("share", "old ones/gone"), "'old ones/gone'"),
            (("status", "old ones/gone"), "'old ones/gone'"),
            (("renew", "here", "old ones/gone"), "'old ones/gone'"),
        ):
            seen = (await run(tmp_path, *command, code=1)).stderr
            assert f"it is in the trash, 'ppd restore {restored}' takes it out ('ppd trash' shows" in seen, (command, seen)
        await run(tmp_path, "restore", "old ones/gone")
        await run(tmp_path, "get", "old ones/gone", str(tmp_path / "out"))


@pytest.mark.asyncio
async def test_a_trash_that_cannot_be_asked_hides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with network(tmp_path, 3, is_live=True) as net:
        await user(tmp_path, net)

        async def fails(_: Storage) -> AsyncIterator[Entry]:
            raise MetaUnreachable("no meta node answers")
            yield

        monkeypatch.setattr(Storage, "trash", fails)
        assert "there is no file nothing" in (await run(tmp_path, "get", "nothing", code=1)).stderr


@pytest.mark.asyncio
async def test_a_links_password_is_asked_for_on_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with network(tmp_path, 3, wallets=2, is_live=True) as net:
        await user(tmp_path, net)
        await user(tmp_path, net, 2)
        await told(tmp_path, "put", "-", "f", given=b"secret")
        link = (await told(tmp_path, "share", "f", "--link-password", "pass word"))["link"]
        assert "has a password" in (await run(tmp_path, "get-shared", link, str(tmp_path / "x"), code=1, user=2)).stderr
        terminal = SimpleNamespace(stdin=SimpleNamespace(isatty=lambda: True), stdout=sys.stdout, stderr=sys.stderr)
        monkeypatch.setattr("sds_node.cli.user_content.sys", terminal)
        asked = list[str]()
        monkeypatch.setattr("sds_node.cli.user_content.other_password", lambda _, what: asked.append(what) or "pass word")
        await run(tmp_path, "get-shared", link, str(tmp_path / "x"), user=2)
        assert (tmp_path / "x").read_bytes() == b"secret"
        assert asked == ["password of the link"]


def test_ppd_checks_balances() -> None:
    assert "check-balance" in cli.commands
