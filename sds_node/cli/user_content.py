"""``ppd put``, ``ppd get``, ``ppd get-shared``: files and folders into the network and back.

put -r ─► folder here, walked ─► up to 64 puts at a time, committed together ─► totals; what failed is named, the others are there
get -r ─► folder there, walked ─► files here, each whole or not at all
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import shutil
import stat
import sys
import tempfile
import unicodedata
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import click

from sds_node.cli.output import other_password, remark, size_text
from sds_node.cli.user_common import EXPECTED, Progress, told, user_command, warn, with_storage
from sds_node.client import Entry, PutResult, Storage, StorageError
from sds_node.client.errors import WrongPassword
from sds_node.client.names import clean
from sds_node.client.sources import FileSource
from sds_node.handles import SHARE_PREFIX

AT_ONCE: Final = 64
MAX_TOLD: Final = 10_000
"""Results of single files in one JSON object."""


@dataclass
class _Many:
    """What became of the files of a folder."""

    files: int = 0
    size_bytes: int = 0
    charged_noz: int = 0
    results: list[dict[str, Any]] = field(default_factory=list)
    failed: list[dict[str, str]] = field(default_factory=list)

    def add(self, result: dict[str, Any]) -> None:
        self.files += 1
        self.size_bytes += result["size_bytes"]
        self.charged_noz += result.get("charged_noz", 0)
        if len(self.results) < MAX_TOLD:
            self.results.append(result)

    def fail(self, name: str, why: str) -> None:
        # A name of bytes that are no text is shown as well as it can be, also as JSON.
        self.failed.append({what: os.fsencode(text).decode(errors="replace") for what, text in (("name", name), ("error", why))})

    def as_json(self) -> dict[str, Any]:
        return {
            "files": self.files,
            "size_bytes": self.size_bytes,
            "charged_noz": self.charged_noz,
            "results": self.results,
            "failed": self.failed,
        }


async def _each(work: AsyncIterator[tuple[str, Callable[[], Awaitable[dict[str, Any]]]]], label: str, *, is_shown: bool) -> _Many:
    """Do many things, ``AT_ONCE`` at a time, each of which may fail."""
    many, room = _Many(), asyncio.Semaphore(AT_ONCE)
    progress, running = Progress(label, is_shown=is_shown), set[asyncio.Task[None]]()

    async def one(name: str, do: Callable[[], Awaitable[dict[str, Any]]]) -> None:
        try:
            many.add(await do())
            progress(many.size_bytes, many.size_bytes)
        except Exception as error:
            # Whatever it is, the file is not there, and the others go on.
            many.fail(name, str(error) if isinstance(error, EXPECTED) else repr(error))
        finally:
            room.release()

    try:
        async for name, do in work:
            await room.acquire()
            task = asyncio.create_task(one(name, do))
            running.add(task)
            task.add_done_callback(running.discard)
        await asyncio.gather(*running)
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        progress.end()
    return many


def _finish(many: _Many, verb: str, again: str, *, as_json: bool) -> None:
    text = f"{many.files} files, {size_text(many.size_bytes)}, {verb}" + (f" for {many.charged_noz} noz" if many.charged_noz else "")
    told(many.as_json(), as_json=as_json, text=text)
    for one in many.failed[:100]:
        remark(f"Error: {one['name']}: {one['error']}")
    if many.failed:
        raise click.ClickException(f"{len(many.failed)} files failed: {again}")


# --- put ---------------------------------------------------------------------------------------------------------------------------------


def _walked(folder: Path) -> Iterator[Path | tuple[str, str]]:
    """Files below a folder, and what cannot be stored, with why; links are not followed, since they may lead anywhere. What else is left out is told."""
    unreadable = list[OSError]()
    for root, folders, files in os.walk(folder, onerror=unreadable.append, followlinks=False):
        yield from map(_unreadable, unreadable)
        unreadable.clear()
        if not folders and not files:
            remark(f"left out: {root} is empty")
        folders[:], same_folders = _apart(folders)
        files, same_files = _apart(files)
        for name, other in (*same_folders, *same_files):
            yield str(Path(root) / name), f"{name!a} and {other!a} are one name in the network, as they differ in Unicode's form alone: rename one"
        for name in folders:
            if (Path(root) / name).is_symlink():
                remark(f"left out: {Path(root) / name} is a link to a folder")
        for name in files:
            path = Path(root) / name
            try:
                is_plain = stat.S_ISREG(path.lstat().st_mode)
            except OSError as error:
                yield _unreadable(error)
                continue
            if is_plain:
                yield path
            else:
                remark(f"left out: {path} is not a plain file")
    yield from map(_unreadable, unreadable)


def _unreadable(error: OSError) -> tuple[str, str]:
    return str(error.filename), f"it cannot be read ({error.strerror}): have it readable, or leave it out of the folder"


def _apart(names: list[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Names that are one by one in the network, in order; and those that are the same there as one before, with that."""
    kept, same = dict[str, str](), []
    for name in sorted(names):
        other = kept.setdefault(unicodedata.normalize("NFC", name), name)
        if other != name:
            same.append((name, other))
    return list(kept.values()), same


@click.command()
@click.argument("source", type=click.Path(allow_dash=True))
@click.argument("name", required=False)
@click.option("-r", "--recursive", is_flag=True, help="A folder with all in it.")
@click.option("--public", is_flag=True, help="Not encrypted: everybody who has a link to it, or its object id, may read content and name.")
@click.option("--key", "idempotency_key", default=None, help="An idempotency key: the same command again gives the first result.")
@user_command
def put(
    ctx: click.Context, source: str, name: str | None, recursive: bool, public: bool, idempotency_key: str | None, as_json: bool,
    password_file: str | None, **_: Any,
) -> None:  # fmt: skip
    """Store the file SOURCE as NAME; a NAME that ends with / is a folder. - is standard input. An interrupted put goes on when it is run again.

    \b
    ppd put holiday.jpg photos/
    ppd put -r photos
    tar c docs | ppd put - backup/docs.tar
    """
    path = Path(source)
    if source == "-":
        if not name or name.endswith("/"):
            raise click.UsageError("say under which NAME standard input is stored")
        with _standard_input() as spooled:
            _put_one(ctx, spooled, name, public, idempotency_key, as_json, password_file)
    elif path.is_dir():
        if not recursive:
            raise click.UsageError(f"{source} is a folder: to store all in it, say -r")
        if idempotency_key is not None:
            raise click.UsageError("an idempotency key is for one file")
        _put_folder(ctx, path, name, public, as_json, password_file)
    else:
        target = f"{name}{path.name}" if name is not None and name.endswith("/") else name or path.name
        _put_one(ctx, path, target, public, idempotency_key, as_json, password_file)


@contextlib.contextmanager
def _standard_input() -> Iterator[FileSource]:
    """A file with what comes on standard input: its length must be known before it is stored. It goes with the command, so nothing goes on with it."""
    with tempfile.NamedTemporaryFile(prefix="ppd-put-") as spool:
        shutil.copyfileobj(sys.stdin.buffer, spool, 1 << 20)
        spool.flush()
        yield FileSource(Path(spool.name), is_lasting=False)


def _put_one(
    ctx: click.Context, source: Path | FileSource, name: str, public: bool, key: str | None, as_json: bool, password_file: str | None
) -> None:
    progress = Progress(name, is_shown=not as_json)

    async def work(storage: Storage) -> tuple[PutResult, list[str]]:
        result = await storage.put(source, name, public=public, idempotency_key=key, progress=progress)
        return result, [*([result.warning] if result.warning else []), *await storage.warnings(charged_noz=result.charged_noz)]

    try:
        result, warnings = with_storage(ctx, password_file, work)
    finally:
        progress.end()
    again = ", the rest of an interrupted put" if result.is_resumed else ""
    text = f"{result.name}  {size_text(result.size_bytes)} for {result.charged_noz} noz{again}\n{result.handle}"
    told(result.as_json(), as_json=as_json, text=text)
    warn(list(dict.fromkeys(warnings)))


async def _refused(why: str) -> dict[str, Any]:
    raise StorageError(why)


def _put_folder(ctx: click.Context, folder: Path, name: str | None, public: bool, as_json: bool, password_file: str | None) -> None:
    own = folder.resolve().name
    base = f"{name}{own}" if name is not None and name.endswith("/") else name if name is not None else own

    async def work(storage: Storage) -> _Many:
        async def files() -> AsyncIterator[tuple[str, Callable[[], Awaitable[dict[str, Any]]]]]:
            for path in _walked(folder):
                if not isinstance(path, Path):
                    yield path[0], functools.partial(_refused, path[1])
                    continue
                target = "/".join([base, *path.relative_to(folder).parts]).lstrip("/")

                async def do(path: Path = path, target: str = target) -> dict[str, Any]:
                    return (await storage.put(path, target, public=public)).as_json()

                yield target, do

        if base.strip("/"):
            await storage.mkdir(base)
        many = await _each(files(), base, is_shown=not as_json)
        warn(await storage.warnings(charged_noz=many.charged_noz))
        return many

    again = "'ppd put FILE NAME' stores one; the same command again would store, and charge, the others once more"
    _finish(with_storage(ctx, password_file, work), "stored", again, as_json=as_json)


# --- get ---------------------------------------------------------------------------------------------------------------------------------


class Fetching(Progress):
    """The bar of a get. Before it a line on stderr, on a terminal or not, says how much of the file an interrupted get left, if it goes on with that."""

    def __init__(self, label: str, *, is_shown: bool = True) -> None:
        super().__init__(label, is_shown=is_shown)
        self._is_told = not is_shown

    def __call__(self, done: int, total: int) -> None:
        """So many bytes of all are there. The first call comes before any was fetched."""
        if not self._is_told:
            self._is_told, self._had_bytes = True, done
            if done:
                remark(f"an interrupted get goes on: {size_text(done)} of {size_text(total)} are there already")
        super().__call__(done, total)


@click.command()
@click.argument("name")
@click.argument("target", required=False, type=click.Path(allow_dash=True))
@click.option("-r", "--recursive", is_flag=True, help="A folder with all in it.")
@click.option("--offset", type=click.IntRange(0, 1 << 44), default=None, help="With TARGET -: the first byte.")
@click.option("--length", type=click.IntRange(0, 1 << 44), default=None, help="With TARGET -: how many bytes.")
@click.option("--no-replace", is_flag=True, help="Leave a TARGET that is there alone.")
@user_command
def get(
    ctx: click.Context, name: str, target: str | None, recursive: bool, offset: int | None, length: int | None, no_replace: bool, as_json: bool,
    password_file: str | None, **_: Any,
) -> None:  # fmt: skip
    """Fetch NAME (a path, an sdm:// handle, a file hash or an object id) into TARGET; - is standard output. An interrupted get goes on.

    \b
    ppd get photos/holiday.jpg
    ppd get -r photos backup
    ppd get film.mkv - --offset 1000000 --length 1000
    """
    if name.startswith(SHARE_PREFIX):
        raise click.UsageError("a link is fetched with `ppd get-shared`")
    if target == "-":
        if as_json or recursive:
            raise click.UsageError("standard output takes the content of one file alone")
        with_storage(ctx, password_file, lambda storage: _to_stdout(storage, name, offset or 0, length))
        return
    if offset is not None or length is not None:
        raise click.UsageError("a range goes to standard output: say - as TARGET")
    if recursive:
        _get_folder(ctx, name, target, no_replace, as_json, password_file)
        return
    progress = Fetching(name, is_shown=not as_json)

    async def work(storage: Storage) -> tuple[Entry, Path]:
        entry = await storage.stat(name)
        if entry.is_folder:
            raise StorageError(f"{entry.path} is a folder: to fetch all in it, say -r")
        path = Path(target) if target is not None else Path(entry.name)
        path = path / entry.name if path.is_dir() else path
        # A name that somebody else chose takes nothing away that is here.
        replace = not no_replace and not (target is None and entry.is_loose)
        return await storage.get(name, path, progress=progress, replace=replace), path

    try:
        entry, path = with_storage(ctx, password_file, work)
    finally:
        progress.end()
    value = {"name": entry.path, "target": str(path), "file_hash": entry.file_hash, "size_bytes": entry.size_bytes}
    told(value, as_json=as_json, text=f"{path}  {size_text(entry.size_bytes)}")


async def _to_stdout(storage: Storage, name: str, offset: int, length: int | None) -> None:
    async for piece in storage.read(name, offset, length):
        sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()


def _get_folder(ctx: click.Context, name: str, target: str | None, no_replace: bool, as_json: bool, password_file: str | None) -> None:
    async def work(storage: Storage) -> _Many:
        folder = clean(name)
        base = Path(target) if target is not None else Path(folder.rpartition("/")[2] or ".")

        async def files() -> AsyncIterator[tuple[str, Callable[[], Awaitable[dict[str, Any]]]]]:
            base.mkdir(parents=True, exist_ok=True)
            async for entry in storage.walk(folder):
                # Names have neither .. nor a leading slash: names.clean refuses them.
                path = base.joinpath(*entry.path[len(folder) :].strip("/").split("/"))
                if entry.is_folder:
                    path.mkdir(parents=True, exist_ok=True)
                    continue

                async def do(entry: Entry = entry, path: Path = path) -> dict[str, Any]:
                    got = await storage.get(entry.path, path, replace=not no_replace)
                    return {"name": got.path, "target": str(path), "file_hash": got.file_hash, "size_bytes": got.size_bytes}

                yield entry.path, do

        return await _each(files(), folder or "/", is_shown=not as_json)

    _finish(with_storage(ctx, password_file, work), "fetched", "run the command again for them", as_json=as_json)


@click.command("get-shared")
@click.argument("link")
@click.argument("target", required=False, type=click.Path())
@click.option("--link-password", default=None, help="The link's password; asked for on a terminal when it has one.")
@click.option("--no-replace", is_flag=True, help="Leave a TARGET that is there alone.")
@user_command
def get_shared(
    ctx: click.Context, link: str, target: str | None, link_password: str | None, no_replace: bool, as_json: bool, password_file: str | None, **_: Any
) -> None:
    """Fetch what a LINK leads to. Your wallet pays for the traffic.

    \b
    ppd get-shared 'sds://0123456789abcdef_0123456789_abcdef#…' holiday.jpg
    """
    progress = Fetching("shared file", is_shown=not as_json)

    async def work(storage: Storage) -> dict[str, Any]:
        try:
            found = await storage.open_shared(link, link_password)
        except WrongPassword:
            if link_password is not None or not sys.stdin.isatty():
                raise
            chosen = await asyncio.to_thread(other_password, None, "password of the link")
            found = await storage.open_shared(link, chosen)
        path = Path(target) if target is not None else Path(found.name)
        path = path / found.name if path.is_dir() else path
        # A name that somebody else chose takes nothing away that is here.
        await storage.get_shared(found, path, progress=progress, replace=target is not None and not no_replace)
        return {"name": found.name, "target": str(path), "owner": found.owner, "size_bytes": found.size_bytes}

    try:
        value = with_storage(ctx, password_file, work)
    finally:
        progress.end()
    told(value, as_json=as_json, text=f"{value['target']}  {size_text(value['size_bytes'])} from {value['owner']}")
