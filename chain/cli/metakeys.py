"""``stchaind meta-keys``: the keys of a meta node, and what they sign (storage-protocol.md 1.7)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import click

from chain import metakeys, reports
from chain.cli.genesis import META_NODES
from chain.cli.keyring import setting
from chain.cli.options import UINT64, home_of, home_option, json_of, output_option, show
from chain.cli.register import described, description_of, node_key
from chain.cli.tx import Remote, node_option
from chain.codec.json import to_json
from chain.codec.registry import message_class
from chain.coins import to_messages
from chain.crypto import address as bech32
from chain.crypto.keys import public_key_to_any
from chain.errors import AppError
from chain.metakeys import MetaKeys
from chain.reports import Draft
from chain.tx.fees import parse_amounts

EPOCH: Final = click.IntRange(1, (1 << 63) - 1)
_SIGNATURE: Final = '{"meta_node": "stsds1…", "bls_pubkey": "…", "tx_data": "…", "signature": "…"} as `meta-keys sign-report` prints it'


@click.group("meta-keys")
def meta_keys() -> None:
    """A meta node's keys: make them, prove them, sign reports with them."""


def file_option(command: Any) -> Any:
    """``--meta-keys``: where the keys are; read them with ``keys_of``."""
    help_text = f"File of the meta node's keys (default: config/{metakeys.FILE_NAME} in the home)."
    return click.option("--meta-keys", "meta_keys_file", type=click.Path(dir_okay=False), default=None, help=help_text)(command)


def keys_of(ctx: click.Context) -> MetaKeys:
    """The keys of the file that the command's options name. Raises ConfigError."""
    return metakeys.read(_path(ctx))


def draft_in(file: Any) -> Draft:
    """The draft in an open JSON file. Raises ClickException naming the file."""
    given = json_of(file, reports.SHAPE)
    try:
        return reports.draft_of(given)
    except AppError as error:
        raise click.ClickException(f"{file.name}: {error.detail}") from None


def signatures_in(files: Sequence[Any], draft: Draft) -> dict[bytes, bytes]:
    """Signature of ``draft`` by BLS key, out of open files of ``meta-keys sign-report``. Raises ClickException naming the file that is none."""
    found: dict[bytes, bytes] = {}
    for file in files:
        given = json_of(file, _SIGNATURE)
        try:
            key, signature = bytes.fromhex(given["bls_pubkey"]), bytes.fromhex(given["signature"])
            signed = bytes.fromhex(given["tx_data"])
        except (KeyError, TypeError, ValueError):
            raise click.ClickException(f"{file.name} is no signature: expected {_SIGNATURE}") from None
        if signed != draft.data:
            raise click.ClickException(
                f"{file.name} signs another report: its tx_data is {signed.hex()[:16]}…, the draft's is {draft.data.hex()[:16]}…"
            )
        if key in found:
            raise click.ClickException(f"{file.name}: the key {key.hex()[:16]}… has signed in another file already")
        found[key] = signature
    return found


@meta_keys.command("new")
@file_option
@output_option
@home_option
@click.pass_context
def new(ctx: click.Context, /, output: str | None, **_: Any) -> None:
    """Make a meta node's keys, in a file of mode 0600, and print their public parts.

    \b
    stchaind meta-keys new
    """
    keys = MetaKeys.new()
    keys.save(_path(ctx))
    show(keys.told(), output)


@meta_keys.command("show")
@file_option
@output_option
@home_option
@click.pass_context
def show_keys(ctx: click.Context, /, output: str | None, **_: Any) -> None:
    """Print the public parts of a meta node's keys.

    \b
    stchaind meta-keys show --output json
    """
    show(keys_of(ctx).told(), output)


@meta_keys.command("prove")
@click.option("--chain-id", default=None, help="The chain that it is for (default: client.toml's, else asked of the node).")
@file_option
@node_option
@home_option
@click.pass_context
def prove(ctx: click.Context, /, **_: Any) -> None:
    """Print the keys with the proof that their secrets are here, as genesis and explorers have them.

    \b
    stchaind meta-keys prove --chain-id stratos-dev-1
    """
    _print(to_json(keys_of(ctx).registered(_chain_id(ctx))))


@meta_keys.command("gen-meta-node")
@click.argument("owner")
@click.argument("amount")
@click.option(
    "--pubkey", default="", help="The node's ed25519 key, stsdspub… or JSON (default: the meta keys' own, and the file has their proof, too)."
)
@described
@click.option("--chain-id", default=None, help="The chain that it is for (default: client.toml's).")
@click.option("--output-document", type=click.Path(dir_okay=False), default=None, help=f"Write here (default: config/{META_NODES} in the home).")
@file_option
@home_option
@click.pass_context
def gen_meta_node(ctx: click.Context, /, owner: str, amount: str, pubkey: str, output_document: str | None, **options: Any) -> None:
    """Write a bonded meta node of the wallet OWNER with a deposit for `genesis add-genesis-meta-node`.

    \b
    stchaind meta-keys gen-meta-node st1… 1000stos --moniker mine --chain-id stratos-dev-1
    """
    bech32.decode(owner)
    if options["beneficiary_address"]:
        bech32.decode(options["beneficiary_address"])
    coins = parse_amounts(amount)
    if len(coins) != 1:
        raise click.ClickException(f"the deposit is one coin, as 1000stos, got {amount[:60]!r}")
    key = node_key(pubkey) if pubkey else keys_of(ctx).network_key
    node = message_class("stratos.register.v1.GenesisMetaNode")(
        network_address=bech32.encode(key.address, bech32.NODE),
        pubkey=public_key_to_any(key),
        status="BOND_STATUS_BONDED",
        tokens=to_messages(coins)[0],
        owner_address=owner,
        beneficiary_address=options["beneficiary_address"],
        description=description_of(options),
    )
    made: dict[str, Any] = to_json(node)
    if not pubkey:
        made.update(keys_of(ctx).proof(_chain_id(ctx)))
    path = Path(output_document) if output_document else home_of(ctx).root / "config" / META_NODES / f"{node.network_address}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("x") as file:
            file.write(json.dumps(made, indent=1, ensure_ascii=False) + "\n")
    except FileExistsError:
        raise click.ClickException(f"{path} exists: move it away, or name another file with --output-document") from None
    click.echo(f'Meta node written to "{path}"', err=True)


@meta_keys.command("draft-report")
@click.argument("epoch", type=EPOCH)
@click.argument("volumes", nargs=-1, metavar="[WALLET=NOZ]...")
@click.option("--reporter", default="", help="The meta node that reports, stsds… (default: the one of the meta keys).")
@click.option("--reporter-owner", required=True, help="The wallet that owns it and sends the report.")
@click.option("--receipts-count", type=UINT64, default=0, help="How many receipts the epoch has: at least one where there are volumes.")
@click.option("--receipts-root", default="", help="The root of their tree, 32 bytes in hex.")
@click.option("--chain-id", default=None, help="The chain that it is for (default: client.toml's, else asked of the node).")
@file_option
@node_option
@home_option
@click.pass_context
def draft_report(ctx: click.Context, /, epoch: int, volumes: tuple[str, ...], reporter: str, reporter_owner: str, **options: Any) -> None:
    """Print the draft of a report in which each WALLET has earned so many noz of paid storage traffic; without wallets, that of an idle epoch.

    Other roots are written into "roots" by hand, other classes and promotional traffic into "lines".

    \b
    stchaind meta-keys draft-report 1 st1…=50000 --receipts-count 12 --receipts-root 5e1f… --reporter-owner st1… > draft.json
    stchaind meta-keys draft-report 2 --reporter-owner st1… > idle.json
    """
    pairs = []
    for one in volumes:
        wallet, noz = one.partition("=")[::2]
        if not noz.isascii() or not noz.isdigit() or len(noz) > 78:
            raise click.ClickException(f"expected a wallet and its noz as st1…=50000, got {one[:80]!r}")
        pairs.append((wallet, int(noz)))
    receipts = options["receipts_count"], _root(options["receipts_root"])
    if (receipts[0] == 0) != (not any(noz for _, noz in pairs)):
        raise click.ClickException("--receipts-count: expected receipts where there are volumes, and none where there are none")
    made = reports.draft(_chain_id(ctx), epoch, reporter or keys_of(ctx).network_address, reporter_owner, pairs, receipts)
    reports.draft_of(made)
    _print(made)


@meta_keys.command("sign-report")
@click.argument("draft", type=click.File("rb"))
@file_option
@home_option
@click.pass_context
def sign_report(ctx: click.Context, /, draft: Any, **_: Any) -> None:
    """Sign a report's DRAFT (- for standard input) as a meta node that has computed it itself; the signature goes to whoever sends the report.

    \b
    stchaind meta-keys sign-report draft.json > signature.json
    """
    made, keys = draft_in(draft), keys_of(ctx)
    signature = keys.sign(made.message)
    told = {"meta_node": keys.network_address, "bls_pubkey": keys.bls_pubkey.hex(), "tx_data": made.data.hex(), "signature": signature.hex()}
    _print(told)


@meta_keys.command("aggregate")
@click.argument("draft", type=click.File("rb"))
@click.argument("signatures", nargs=-1, required=True, type=click.File("rb"), metavar="SIGNATURE...")
def aggregate(draft: Any, signatures: tuple[Any, ...]) -> None:
    """Add up the SIGNATURE files of a report's DRAFT, each checked, as `tx pot report --bls-signature` takes the sum.

    \b
    stchaind meta-keys aggregate draft.json sig1.json sig2.json sig3.json > signature.json
    """
    made = draft_in(draft)
    _print(to_json(made.signature_info(signatures_in(signatures, made))))


def _root(text: str) -> bytes:
    try:
        root = bytes.fromhex(text) if text else reports.EMPTY_ROOT
    except ValueError:
        root = b""
    if len(root) != len(reports.EMPTY_ROOT):
        raise click.ClickException(f"--receipts-root: expected {len(reports.EMPTY_ROOT)} bytes in hex, got {text[:80]!r}")
    return root


def _path(ctx: click.Context) -> Path:
    chosen = ctx.params["meta_keys_file"]
    return Path(chosen).expanduser() if chosen else metakeys.path_in(home_of(ctx))


def _chain_id(ctx: click.Context) -> str:
    return setting("chain-id") or Remote(ctx.params.get("node")).chain_id()


def _print(value: Any) -> None:
    click.echo(json.dumps(value, indent=1, ensure_ascii=False))
