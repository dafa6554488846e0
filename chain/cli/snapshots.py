"""``stchaind snapshots``: state-sync snapshots on disk. All commands but ``list`` and ``delete`` need a stopped node."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import click

from chain import config
from chain.application import Application
from chain.cli.options import home_of, home_option
from chain.config import Home
from chain.node import open_application
from chain.snapshots import CHUNK_BYTES, MAX_CHUNKS, MAX_METADATA_BYTES, Restorer, Snapshot, SnapshotError, SnapshotFolder, SnapshotTaker


@click.group()
def snapshots() -> None:
    """Manage local snapshots, from which other nodes start by state sync."""


@contextmanager
def _application(home: Home) -> Iterator[tuple[Application, SnapshotTaker]]:
    app = open_application(home, config.read_app(home))
    assert app.snapshots is not None, "a node's application has its snapshot folder"
    try:
        yield app, app.snapshots
    finally:
        app.close()


@snapshots.command("list")
@home_option
@click.pass_context
def list_(ctx: click.Context, /, **_: Any) -> None:
    """List local snapshots, newest first."""
    for one in SnapshotFolder(home_of(ctx).snapshots).list():
        click.echo(f"height: {one.height} format: {one.format} chunks: {len(one.chunk_hashes)}")


@snapshots.command()
@click.option("--height", type=int, default=0, help="Height to export (default: the latest).")
@home_option
@click.pass_context
def export(ctx: click.Context, /, height: int, **_: Any) -> None:
    """Take a snapshot of the stopped node's state."""
    with _application(home_of(ctx)) as (app, taker):
        at = height or app.latest_height
        if not at:
            raise click.ClickException("the node has no block yet: there is nothing to export")
        click.echo(f"Exporting snapshot for height {at}")
        made = taker.take(at)
        click.echo(f"Snapshot created at height {made.height}, format {made.format}, chunks {len(made.chunk_hashes)}")


@snapshots.command()
@click.argument("height", type=int)
@click.argument("format", type=int)
@home_option
@click.pass_context
def restore(ctx: click.Context, /, height: int, format: int, **_: Any) -> None:
    """Restore the state of an empty home from a local snapshot.

    Nothing but the snapshot itself vouches for the state: compare the app hash that is printed with one you trust. The state can be exported
    and asked. To follow the chain from it, give CometBFT its part of it with `stchaind comet bootstrap-state`, which verifies both.
    """
    with _application(home_of(ctx)) as (app, taker):
        snapshot = taker.folder.get(height, format)
        restorer = Restorer(app.store, snapshot)
        for number, digest in enumerate(snapshot.chunk_hashes):
            chunk = taker.folder.chunk(height, format, number)
            if hashlib.sha256(chunk).digest() != digest:
                raise SnapshotError(f"chunk {number} of the snapshot is damaged: fetch it again")
            restorer.add(chunk)
        restorer.finish(None)
        click.echo(f"Restored height {height}, app hash {app.store.app_hash.hex().upper()}")


@snapshots.command()
@click.argument("height", type=int)
@click.argument("format", type=int)
@home_option
@click.pass_context
def delete(ctx: click.Context, /, height: int, format: int, **_: Any) -> None:
    """Delete a local snapshot."""
    SnapshotFolder(home_of(ctx).snapshots).delete(height, format)


@snapshots.command()
@click.argument("height", type=int)
@click.argument("format", type=int)
@click.option("-o", "--output", "target", type=click.Path(path_type=Path), default=None, help="File to write (default: HEIGHT-FORMAT.tar.gz).")
@home_option
@click.pass_context
def dump(ctx: click.Context, /, height: int, format: int, target: Path | None, **_: Any) -> None:
    """Write a local snapshot as one archive."""
    folder = SnapshotFolder(home_of(ctx).snapshots)
    snapshot = folder.get(height, format)
    target = target or Path(f"{height}-{format}.tar.gz")
    with tarfile.open(target, "w:gz") as archive:
        for name, data in _members(folder, snapshot):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, BytesIO(data))
    click.echo(str(target))


@snapshots.command()
@click.argument("archive", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@home_option
@click.pass_context
def load(ctx: click.Context, /, archive: Path, **_: Any) -> None:
    """Take a snapshot from an archive that `dump` wrote."""
    folder = SnapshotFolder(home_of(ctx).snapshots)
    try:
        with tarfile.open(archive, "r:*") as source:
            found = {info.name: info for info in source.getmembers()[: MAX_CHUNKS + 2]}
            height, form, digest = _read(source, found, "snapshot", 1000).decode().split()
            metadata = _read(source, found, "metadata.json", MAX_METADATA_BYTES)
            snapshot = Snapshot.from_offer(int(height), int(form), sum(name.isdigit() for name in found), bytes.fromhex(digest), metadata)
            chunks = (_read(source, found, str(number), CHUNK_BYTES) for number in range(len(snapshot.chunk_hashes)))
            made = folder.write(snapshot.height, snapshot.header, chunks)
    except (tarfile.TarError, ValueError, EOFError) as error:
        raise click.ClickException(f"{archive} is not an archive of a snapshot: {str(error).partition(chr(10))[0]}") from None
    if made != snapshot:
        folder.delete(made.height, made.format)
        raise click.ClickException(f"{archive} is damaged: its chunks are not those that its metadata names")
    click.echo(f"height: {made.height} format: {made.format} chunks: {len(made.chunk_hashes)}")


def _members(folder: SnapshotFolder, snapshot: Snapshot) -> Iterator[tuple[str, bytes]]:
    yield "snapshot", f"{snapshot.height} {snapshot.format} {snapshot.hash.hex()}".encode()
    yield "metadata.json", snapshot.metadata
    for number in range(len(snapshot.chunk_hashes)):
        yield str(number), folder.chunk(snapshot.height, snapshot.format, number)


def _read(source: tarfile.TarFile, found: dict[str, tarfile.TarInfo], name: str, most: int) -> bytes:
    info = found.get(name)
    file = source.extractfile(info) if info is not None and info.isfile() and info.size <= most else None
    if file is None:
        raise click.ClickException(f"the archive lacks {name}, or it is larger than {most} bytes")
    return file.read()
