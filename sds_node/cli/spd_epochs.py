"""``spd verify-epoch`` and ``spd epoch-batch``: what anyone can check of an epoch that was reported, and what to do when it is wrong.

chain: commitment, keys ─┐
meta node, or a file: batch ─┴─ verifying ─► fine: exit code 0      findings: 1, with proofs for `stchaind tx settlement fraud-proof`      no data: 2
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import click

from chain import metakeys
from chain.config import ConfigError
from sds_node.cli.output import output_option, remark, show
from sds_node.client.meta import MetaAddress, parse_endpoint, parse_meta
from sds_node.epoch_data import EpochDataError, ReportedEpoch, fetch_batch, reported_epoch
from sds_node.meta.daemon.home import DEFAULT, Home, HomeError
from sds_node.settings import SettingsError
from sds_node.value_chain import views
from sds_node.value_chain.client import DEFAULT_RPC, ValueChain, ValueChainError
from sds_node.verifying import DATA_REF, Finding, Findings, verify
from sds_node.wire.errors import WireError
from sds_node.wire.identity import Identity
from sds_node.wire.node import Node
from sds_node.wire.peer import Direct, Peer

EARLIER: Final = 10
FETCH_S: Final = 600.0
FINE, WRONG = 0, 1


class CannotCheck(click.ClickException):
    """Nothing was found out: exit code 2."""

    exit_code = 2


_FAILURES: Final = (EpochDataError, ValueChainError, WireError, TimeoutError, HomeError, SettingsError, ConfigError, ValueError)


@contextlib.asynccontextmanager
async def meta_peer(chain_id: str, where: MetaAddress) -> AsyncIterator[Peer]:
    """A meta node, to be asked by somebody whom nobody knows."""
    node = Node(Identity(secrets.token_bytes(32)), chain_id, software="stratos-check")
    peer = Peer(node, where.address, [Direct(where.host, where.port)])
    try:
        yield peer
    finally:
        await peer.close()
        await node.close()


@contextlib.contextmanager
def or_cannot() -> Any:
    """Have whatever goes wrong end with exit code 2: 1 says that an epoch is wrong, and nothing else may say it."""
    try:
        yield
    except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
        raise
    except _FAILURES as error:
        raise CannotCheck(str(error) or "the meta node gave no answer in time: ask another one") from None
    except OSError as error:
        raise CannotCheck(f"a file cannot be read or written ({error}): see to the disk and the rights there") from None
    except Exception as error:
        raise CannotCheck(f"a fault of this program ended the check ({type(error).__name__}: {error}): tell its authors") from error


def _home(ctx: click.Context) -> Home | None:
    """The meta node's home that was named, or is in the default place."""
    given = next((found for one in (ctx, ctx.parent) if one is not None and (found := one.params.get("home"))), os.environ.get("SPD_HOME"))
    root = Path(given or DEFAULT).expanduser()
    return Home.open(root) if given or (root / "config.toml").exists() else None


def _where(ctx: click.Context, source: str | None) -> MetaAddress:
    """The meta node that is asked: the one named, else that of the home."""
    if source is not None:
        return parse_meta(source)
    home = _home(ctx)
    if home is None:
        raise click.UsageError("say which meta node to ask with --from stsds1…@host:port, or name a file with --batch")
    network = home.settings.network
    here = "127.0.0.1" if network.host == "0.0.0.0" else network.host  # noqa: S104  it listens there, too
    host, port = parse_endpoint(network.endpoint) if network.endpoint else (here, network.port)
    return MetaAddress(metakeys.read(home.meta_keys).address, host, port)


def _rpc(ctx: click.Context, rpc: str | None) -> str:
    home = None if rpc else _home(ctx)
    return rpc or (home.settings.chain.rpc if home is not None else DEFAULT_RPC)


def source_options(command: Any) -> Any:
    """``--from``, ``--rpc`` and ``--home``."""
    for made in (
        click.option("--from", "source", metavar="META_NODE", default=None, help="stsds1…@host:port of a meta node (default: that of --home)."),
        click.option("--rpc", default=None, help=f"CometBFT RPC of a value-chain node that you trust (default: that of --home, else {DEFAULT_RPC})."),
        click.option("--home", type=click.Path(file_okay=False), default=None, help="Folder of a meta node."),
    ):
        command = made(command)
    return command


@click.command("verify-epoch")
@click.argument("epoch", type=click.IntRange(1, (1 << 63) - 1), required=False)
@click.option("--batch", type=click.Path(exists=True, dir_okay=False, path_type=Path), default=None, help="The epoch's batch in a file.")
@click.option(
    "--earlier", type=click.IntRange(0, 10_000), default=EARLIER, show_default=True, help="So many epochs before are looked at for doubles."
)
@click.option("--proof-dir", type=click.Path(file_okay=False, path_type=Path), default=None, help="Folder into which each proof is written as JSON.")
@source_options
@output_option
@click.pass_context
def verify_epoch(
    ctx: click.Context, /, epoch: int | None, batch: Path | None, earlier: int, proof_dir: Path | None, source: str | None, rpc: str | None,
    output: str, **_: Any,
) -> None:  # fmt: skip
    """Check EPOCH (default: the last one) against the chain: its data, every receipt, order, sums, and that nothing is paid twice.

    Exit code 0: all is right. 1: something is wrong, and what is shown proves it on chain. 2: it cannot be checked.

    \b
    spd verify-epoch 12 --from stsds1…@meta.example.org:18881 --proof-dir proofs
    spd verify-epoch 12 --batch epoch-12.batch -o json
    """
    with or_cannot():
        where = None if batch is not None else _where(ctx, source)
        url = _rpc(ctx, rpc)
        checked = asyncio.run(_checked(url, epoch, batch, where, earlier if batch is None else 0))
        value, text = checked.told(proof_dir)
        show(value, output, text)
    ctx.exit(WRONG if checked.findings.found else FINE)


class Checked:
    """What came out of checking an epoch; ``earlier`` are the numbers of those that it was compared with."""

    def __init__(self, epoch: ReportedEpoch, findings: Findings, earlier: list[int]) -> None:
        self.epoch, self.findings, self.earlier = epoch, findings, earlier

    def told(self, proof_dir: Path | None) -> tuple[dict[str, Any], str]:
        """(JSON value, text). Proofs are written into ``proof_dir``. Raises OSError."""
        number, roots = self.epoch.number, self.epoch.roots
        files = [_written(proof_dir, number, at, one) for at, one in enumerate(self.findings.found)]
        value = {
            "epoch": str(number),
            "is_void": self.epoch.is_void,
            "is_fine": not self.findings.found,
            "receipts": str(roots.receipts_count),
            "noz": str(self.epoch.volume_noz),
            "data_ref": str(roots.data_ref),
            "signers": list(self.epoch.kept.signers),
            "compared_with": [str(one) for one in self.earlier],
            "findings": [
                {"kind": one.kind, "text": one.text, "accused": one.accused, "proof": one.proof, **({"file": file} if file else {})}
                for one, file in zip(self.findings.found, files, strict=True)
            ],
            "findings_left_out": self.findings.left_out,
        }
        void = ", is void on chain already" if self.epoch.is_void else ""
        lines = [f"epoch {number}: {roots.receipts_count} receipts, {self.epoch.volume_noz} noz{void}"]
        if not self.findings.found:
            lines.append(f"all is right; compared with {len(self.earlier)} epochs before")
        for one, file in zip(self.findings.found, files, strict=True):
            lines.append(f"{one.kind}: {one.text}")
            if file:
                lines.append(f"  to prove it: stchaind tx settlement fraud-proof {file} --from … --gas auto")
        if self.findings.left_out:
            lines.append(f"and {self.findings.left_out} more")
        return value, "\n".join(lines)


def _written(folder: Path | None, number: int, at: int, finding: Finding) -> str:
    if folder is None or finding.proof is None:
        return ""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"epoch-{number}-{at}-{finding.kind}.json"
    path.write_text(json.dumps(finding.proof) + "\n")
    return str(path)


async def _checked(url: str, number: int | None, batch: Path | None, where: MetaAddress | None, earlier: int) -> Checked:
    async with ValueChain(url) as chain:
        chain_id = (await chain.status()).chain_id
        if where is None:
            assert batch is not None
            return await check(chain, await _number(chain, number), await asyncio.to_thread(batch.read_bytes))
        async with meta_peer(chain_id, where) as peer:
            return await check(chain, await _number(chain, number), None, peer, earlier)


async def _number(chain: ValueChain, number: int | None) -> int:
    if number is not None:
        return number
    last = await views.last_report(chain)
    if last is None:
        raise EpochDataError("no epoch was reported yet")
    return last.epoch


async def check(chain: ValueChain, number: int, data: bytes | None, peer: Peer | None = None, earlier: int = 0) -> Checked:
    """Check an epoch with a batch that is here, or that ``peer`` gives, beside those of up to so many epochs before. Raises EpochDataError when the batch
    cannot be had, ValueChainError."""
    epoch = await reported_epoch(chain, number)
    if data is None:
        data = await _fetched(peer, epoch)
    before: list[tuple[ReportedEpoch, bytes]] = []
    kept = [int(one.epoch) for one in await views.committed_epochs(chain) if int(one.epoch) < number and one.status == 1] if earlier else []
    for one in kept[-earlier:] if earlier else []:
        try:
            found = await reported_epoch(chain, one)
            before.append((found, await _fetched(peer, found)))
        except EpochDataError as error:
            remark(f"epoch {one} is not compared with: {error}")
    keys = {address: one.ledger_key for address, one in (await views.meta_keys(chain)).items()}
    chain_id = (await chain.status()).chain_id
    findings = await asyncio.to_thread(verify, epoch, data, chain_id, keys.get, before)
    return Checked(epoch, findings, [one.number for one, _ in before])


async def _fetched(peer: Peer | None, epoch: ReportedEpoch) -> bytes:
    """An epoch's batch from a meta node. Raises EpochDataError with how to ask for it on chain."""
    if peer is None:
        raise EpochDataError("expected a batch, or a meta node that gives it")
    if not epoch.roots.receipts_count:
        return b""
    try:
        async with asyncio.timeout(FETCH_S):
            return await fetch_batch(peer, epoch)
    except (WireError, TimeoutError) as error:
        leaf = secrets.randbelow(int(epoch.roots.receipts_count))
        raise EpochDataError(
            f"the meta node does not give the batch of epoch {epoch.number} ({str(error) or 'no answer in time'}): ask another one; if none has it, a leaf "
            f"that nobody shows in time voids the epoch: stchaind tx settlement challenge {epoch.number} {leaf} --from …"
        ) from None


def check_hash(data: bytes, epoch: ReportedEpoch) -> bytes:
    """The batch, if it is the one that the commitment names. Raises EpochDataError for other bytes."""
    named, given = str(epoch.roots.data_ref), f"{DATA_REF}{sha256(data).hexdigest()}"
    if epoch.roots.receipts_count and named != given:
        raise EpochDataError(
            f"epoch {epoch.number} names the batch {named[:80]!r} on chain, the meta node gives {given}: ask another one; if all give the same, `spd verify-epoch` "
            "says what is wrong with it"
        )
    return data


@click.command("epoch-batch")
@click.argument("epoch", type=click.IntRange(1, (1 << 63) - 1))
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The file that is written.")
@source_options
@output_option
@click.pass_context
def epoch_batch(ctx: click.Context, /, epoch: int, out: Path, source: str | None, rpc: str | None, output: str, **_: Any) -> None:
    """Fetch the batch of EPOCH from a meta node: all of its receipts, as `spd verify-epoch --batch` reads them.

    \b
    spd epoch-batch 12 --from stsds1…@meta.example.org:18881 --out epoch-12.batch
    """

    async def fetched() -> bytes:
        async with ValueChain(_rpc(ctx, rpc)) as chain:
            chain_id = (await chain.status()).chain_id
            async with meta_peer(chain_id, _where(ctx, source)) as peer:
                reported = await reported_epoch(chain, epoch)
                return check_hash(await _fetched(peer, reported), reported)

    with or_cannot():
        data = asyncio.run(fetched())
        temporary = out.with_name(f".{out.name}.part")
        temporary.write_bytes(data)
        temporary.replace(out)
    show({"epoch": str(epoch), "file": str(out), "size_bytes": str(len(data))}, output, f"{out} has {len(data)} bytes; now `spd verify-epoch`")
