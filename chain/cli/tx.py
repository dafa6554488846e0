"""``stchaind tx`` and ``stchaind query``."""

from __future__ import annotations

import base64
import json
from typing import Any, Final

import click
import grpc
from google.protobuf.message import DecodeError

from chain.api.blocks import broadcast_response
from chain.api.comet import CometClient, CometRefused, CometUnavailable
from chain.cli.genesis import tx_message
from chain.cli.keyring import keyring_options, setting, user_keyring
from chain.cli.options import UINT64, fee_of, ignored, no_ledger_nor_aux, output_option, refused, show, taken_as_simd_takes_them
from chain.codec.canonical import encode as canonical
from chain.codec.json import from_json, loads, to_json
from chain.codec.registry import POOL, message_class
from chain.coins import to_messages
from chain.crypto import address as bech32
from chain.crypto.keys import PublicKey, public_key_to_any
from chain.crypto.terminal import confirmed
from chain.dec import Dec, parse_dec
from chain.tx.build import Signer, build_tx
from chain.tx.fees import parse_amounts
from chain.tx.signing import DIRECT, LEGACY_AMINO_JSON

NODE: Final = "tcp://localhost:26657"
DEFAULT_GAS: Final = 200_000
ADJUSTMENT: Final = "1.3"
MAX_GAS: Final = (1 << 63) - 1
GRPC_TIMEOUT_S: Final = 15.0


def node_option(command: Any) -> Any:
    return click.option("-n", "--node", help=f"CometBFT's RPC.  [default: {NODE}]")(command)


def query_options(command: Any) -> Any:
    """``--node``, ``--grpc-addr`` with ``--grpc-insecure``, and ``--height`` of a command that asks a node."""
    for option in (
        click.option("--height", type=click.IntRange(0), default=0, help="Ask at this height (default: the latest)."),
        click.option("--grpc-insecure", is_flag=True, expose_value=False, help="Accepted: --grpc-addr is always asked without TLS."),
        click.option("--grpc-addr", default="", help="Ask the node's gRPC at this HOST:PORT instead of its RPC."),
    ):
        command = option(command)
    return node_option(command)


class Remote:
    """A node, asked over CometBFT's RPC, and by ``grpc_addr`` over gRPC."""

    def __init__(self, node: str | None, grpc_addr: str = "") -> None:
        self.comet = CometClient(node or setting("node") or NODE)
        click.get_current_context().call_on_close(self.comet.close)
        self._grpc_addr = grpc_addr

    def rpc(self, path: str, request: Any, height: int = 0) -> Any:
        """Answer of a gRPC method, through ``abci_query`` or gRPC. Raises ClickException with the node's words."""
        service, _, name = path.lstrip("/").partition("/")
        response = message_class(POOL.FindServiceByName(service).FindMethodByName(name).output_type.full_name)
        if self._grpc_addr:
            return self._grpc(path, request, response, height)
        found = self.call(lambda: self.comet.abci_query(path, request.SerializeToString(), height))
        if found.get("code"):
            raise click.ClickException(f"{found.get('log')} (codespace {found.get('codespace')}, code {found['code']})")
        return response.FromString(base64.b64decode(found.get("value") or ""))

    def _grpc(self, path: str, request: Any, response: Any, height: int) -> Any:
        metadata = (("x-cosmos-block-height", str(height)),) if height else ()
        with grpc.insecure_channel(self._grpc_addr) as channel:
            ask = channel.unary_unary(path, request_serializer=type(request).SerializeToString, response_deserializer=response.FromString)
            try:
                return ask(request, timeout=GRPC_TIMEOUT_S, metadata=metadata)
            except grpc.RpcError as error:
                raise click.ClickException(f"gRPC at {self._grpc_addr}: {error.details()} ({error.code().name})") from None

    @staticmethod
    def call(ask: Any) -> Any:
        try:
            return ask()
        except (CometUnavailable, CometRefused) as error:
            raise click.ClickException(str(error)) from None

    def account(self, address: str) -> tuple[int, int]:
        """(account number, sequence). Raises ClickException when there is no such account."""
        request = message_class("cosmos.auth.v1beta1.QueryAccountInfoRequest")(address=address)
        info = self.rpc("/cosmos.auth.v1beta1.Query/AccountInfo", request).info
        return int(info.account_number), int(info.sequence)

    def chain_id(self) -> str:
        return str(self.call(lambda: self.comet.call("status"))["node_info"]["network"])


def tx_options(command: Any) -> Any:
    for option in reversed(
        [
            click.option("--from", "sender", default="", help="Name or address of the key that signs."),
            click.option("--chain-id", default=None, help="The chain's id (default: client.toml's, else asked of the node)."),
            click.option("--fees", default="", help="Fee, as 200000000000000wei or 200000gwei."),
            click.option("--fee-payer", default="", help="Address that pays the fee; it has to sign, too."),
            click.option("--fee-granter", default="", help="Address that granted the fee."),
            click.option("--gas", default=str(DEFAULT_GAS), show_default=True, help="Gas limit, or auto."),
            click.option("--gas-prices", default="", help="Price of gas, as 1000000000wei: the fee follows from it."),
            click.option("--gas-adjustment", default=ADJUSTMENT, show_default=True, help="Factor on simulated gas."),
            click.option("--note", default="", help="Memo."),
            click.option("--timeout-height", type=UINT64, default=0, help="Not valid above this height."),
            click.option("--sign-mode", type=click.Choice(["direct", "amino-json"]), default="direct", show_default=True),
            click.option("-a", "--account-number", type=UINT64, default=None, help="With --offline."),
            click.option("-s", "--sequence", type=UINT64, default=None, help="Sequence to sign with (default: asked of the node)."),
            click.option("--offline", is_flag=True, help="Ask no node."),
            click.option("--generate-only", is_flag=True, help="Print the unsigned transaction."),
            click.option("--dry-run", is_flag=True, help="Print the gas it would take."),
            _broadcast_mode,
            click.option("-y", "--yes", is_flag=True, help="Do not ask before broadcasting."),
            ignored("--tip"),  # simd looks at it with --aux alone
        ]
    ):
        command = option(command)
    return no_ledger_nor_aux(keyring_options(node_option(output_option(command))))


_broadcast_mode = click.option("-b", "--broadcast-mode", type=click.Choice(["sync", "async"]), default=None, help="[default: sync]")


def send(ctx: click.Context, messages: list[Any], sender: str) -> None:
    """Build, sign and broadcast as the options of ``ctx`` say."""
    options = ctx.params
    remote = Remote(options["node"])
    address = bech32.encode(sender_of(ctx, sender))
    for name in ("fee_payer", "fee_granter"):
        if options[name]:
            bech32.decode(options[name])
    common: dict[str, Any] = {
        "memo": options["note"],
        "timeout_height": options["timeout_height"],
        "payer": options["fee_payer"],
        "granter": options["fee_granter"],
    }
    gas = _gas(options, DEFAULT_GAS)
    if options["offline"] and (options["gas"] == "auto" or (options["dry_run"] and not options["generate_only"])):
        raise click.ClickException("cannot estimate gas in offline mode: name a number with --gas, or leave out --offline")
    if options["generate_only"]:
        if options["gas"] == "auto":
            gas = _estimated(remote, messages, _signer(user_keyring().find(sender).public_key, options, *remote.account(address)), options, common)
        raw = build_tx(messages, fee=fee_of(options, gas), gas_limit=gas, signers=[], **common).encode([])
        click.echo(json.dumps(to_json(tx_message(raw)), separators=(",", ":"), ensure_ascii=False))
        return
    key = user_keyring().find(sender)
    if key.private_key is None:
        raise click.ClickException(f"{sender} has no private key in this keyring: use --generate-only and sign elsewhere")
    chain_id = options["chain_id"] or setting("chain-id") or remote.chain_id()
    if options["offline"]:
        if options["account_number"] is None or options["sequence"] is None:
            raise click.ClickException("--offline needs --account-number and --sequence")
        number, sequence = options["account_number"], options["sequence"]
    else:
        number, sequence = remote.account(address)
    signer = _signer(key.public_key, options, number, sequence)
    if options["gas"] == "auto" or options["dry_run"]:
        gas = _estimated(remote, messages, signer, options, common)
        if options["dry_run"]:
            return
    unsigned = build_tx(messages, fee=fee_of(options, gas), gas_limit=gas, signers=[signer], **common)
    if not options["yes"]:
        shown = build_tx(messages, fee=fee_of(options, gas), gas_limit=gas, signers=[], **common).encode([])
        show(to_json(tx_message(shown)), options["output"])
        try:
            agreed = confirmed("confirm transaction before signing and broadcasting")
        except EOFError:
            raise click.ClickException("standard input ended before the transaction was confirmed: use --yes in scripts") from None
        if not agreed:
            click.echo("canceled transaction", err=True)
            return
    _broadcast(remote, unsigned.sign([key.private_key], chain_id), options)


def _signer(key: PublicKey, options: dict[str, Any], number: int, sequence: int) -> Signer:
    mode = LEGACY_AMINO_JSON if options["sign_mode"] == "amino-json" else DIRECT
    return Signer(key, sequence if options["sequence"] is None else options["sequence"], number, mode)


def _estimated(remote: Remote, messages: list[Any], signer: Signer, options: dict[str, Any], common: dict[str, Any]) -> int:
    """The gas limit that a trial on the node and --gas-adjustment give; it is told on stderr."""
    # The fee is part of the trial: taking it costs gas.
    trial = build_tx(messages, fee=fee_of(options, DEFAULT_GAS), gas_limit=0, signers=[signer], **common).for_simulation()
    gas = _adjusted(_simulated(remote, trial).gas_info.gas_used, options["gas_adjustment"])
    click.echo(f"gas estimate: {gas}", err=True)
    return gas


def _simulated(remote: Remote, raw: bytes) -> Any:
    return remote.rpc("/cosmos.tx.v1beta1.Service/Simulate", message_class("cosmos.tx.v1beta1.SimulateRequest")(tx_bytes=raw))


def _broadcast(remote: Remote, raw: bytes, options: dict[str, Any]) -> None:
    mode = options["broadcast_mode"] or setting("broadcast-mode") or "sync"
    if mode not in ("sync", "async"):
        raise click.ClickException(f"unsupported return type {mode}; supported types: sync, async")
    try:
        answer = remote.comet.broadcast(raw, mode)
    except CometRefused as error:
        if "already exists in cache" not in str(error):
            raise click.ClickException(str(error)) from None
        answer = {"code": 19, "codespace": "sdk"}
    except CometUnavailable as error:
        raise click.ClickException(str(error)) from None
    show(to_json(broadcast_response(answer, raw)), options["output"])


def sender_of(ctx: click.Context, sender: str) -> bytes:
    """Address of the key that ``--from`` names. Raises ClickException, KeyringError."""
    if not sender:
        raise click.ClickException("--from must name the key that signs")
    if ctx.params["generate_only"] and sender.startswith(bech32.ACCOUNT + "1"):
        return bech32.decode(sender)
    return user_keyring().find(sender).address


def _gas(options: dict[str, Any], fallback: int) -> int:
    text = options["gas"]
    if text == "auto":
        return fallback
    if not text.isascii() or not text.isdigit() or len(text) > 19:
        raise click.ClickException(f"--gas must be a number or auto, got {text[:40]!r}")
    return int(text)


def _adjusted(used: int, factor: str) -> int:
    adjusted = Dec(parse_dec(factor).scaled * used).ceil()
    if not 0 < adjusted <= MAX_GAS:
        raise click.ClickException(f"--gas-adjustment must give a gas limit from 1 to {MAX_GAS}, got {adjusted} for {factor} times {used}")
    return adjusted


@click.group()
def tx() -> None:
    """Make, sign and send transactions.

    Of simd's flags two are refused: --ledger, for keys of hardware sign in a wallet, and --aux, for which each signer runs `stchaind tx sign`.
    """


@tx.group("bank")
def tx_bank() -> None:
    """Move coins."""


@tx_bank.command("send")
@click.argument("from_key_or_address")
@click.argument("to_address")
@click.argument("amount")
@tx_options
@click.pass_context
def bank_send(ctx: click.Context, /, from_key_or_address: str, to_address: str, amount: str, **_: Any) -> None:
    """Send coins from one account to another.

    \b
    stchaind tx bank send alice st1… 1000wei --fees 200000gwei -y
    """
    sender = from_key_or_address
    bech32.decode(to_address)
    message = message_class("cosmos.bank.v1beta1.MsgSend")(
        from_address=bech32.encode(sender_of(ctx, sender)), to_address=to_address, amount=to_messages(parse_amounts(amount))
    )
    send(ctx, [message], sender)


@tx_bank.command("multi-send")
@click.argument("from_key_or_address")
@click.argument("targets_and_amount", nargs=-1, required=True)
@click.option("--split", is_flag=True, help="Divide the amount among the recipients.")
@tx_options
@click.pass_context
def bank_multi_send(ctx: click.Context, /, from_key_or_address: str, targets_and_amount: tuple[str, ...], split: bool, **_: Any) -> None:
    """Send the same coins to each of several accounts.

    \b
    stchaind tx bank multi-send alice st1… st1… 10wei --fees 200000gwei -y
    """
    *targets, text = targets_and_amount
    if not targets:
        raise click.ClickException("expected recipients and an amount")
    coin_class = message_class("cosmos.base.v1beta1.Coin")
    each = [(denom, amount // len(targets) if split else amount) for denom, amount in parse_amounts(text)]
    message = message_class("cosmos.bank.v1beta1.MsgMultiSend")()
    total = [coin_class(denom=denom, amount=str(amount * len(targets))) for denom, amount in each]
    message.inputs.add(address=bech32.encode(sender_of(ctx, from_key_or_address)), coins=total)
    for target in targets:
        bech32.decode(target)
        message.outputs.add(address=target, coins=[coin_class(denom=denom, amount=str(amount)) for denom, amount in each])
    send(ctx, [message], from_key_or_address)


@tx.command()
@taken_as_simd_takes_them
@refused("--offline", "cannot broadcast tx during offline mode")
@refused("--dry-run", "the file would be sent: `stchaind tx simulate` asks a node what it would take")
@click.argument("file", type=click.File("rb"))
@_broadcast_mode
@node_option
@output_option
def broadcast(file: Any, node: str | None, **options: Any) -> None:
    """Send a signed transaction from a JSON file (- for standard input)."""
    _broadcast(Remote(node), raw_of(file.read()), options)


@tx.command()
@taken_as_simd_takes_them
@click.argument("file", type=click.File("rb"))
def encode(file: Any, **_: Any) -> None:
    """Print a transaction's bytes in base64, from its JSON file (- for standard input)."""
    click.echo(base64.b64encode(raw_of(file.read())).decode())


@tx.command()
@taken_as_simd_takes_them
@click.argument("text")
@click.option("-x", "--hex", "is_hex", is_flag=True, help="The bytes are in hex.")
@output_option
def decode(text: str, is_hex: bool, output: str | None, **_: Any) -> None:
    """Print a transaction's JSON, from its bytes in base64."""
    try:
        raw = bytes.fromhex(text) if is_hex else base64.b64decode(text, validate=True)
    except ValueError:
        raise click.ClickException("expected the bytes of a transaction in base64 (or in hex with --hex)") from None
    try:
        decoded = tx_message(raw)
    except DecodeError:
        raise click.ClickException("the bytes are not a transaction: expected a protobuf TxRaw") from None
    show(to_json(decoded), output or "json")


@tx.command()
@click.argument("file", type=click.File("rb"))
@tx_options
def simulate(file: Any, sender: str, node: str | None, sequence: int | None, output: str | None, **_: Any) -> None:
    """Ask a node what a transaction would take, from its JSON file (- for standard input).

    A transaction that nobody signed yet needs --from: whose key and sequence the trial has.
    """
    remote = Remote(node)
    given = from_json(message_class("cosmos.tx.v1beta1.Tx"), loads(file.read()))
    if not given.auth_info.signer_infos:
        if not sender:
            raise click.ClickException("--from must name the signer of a transaction that is not signed yet")
        key = user_keyring().find(sender).public_key
        if sequence is None:
            sequence = remote.account(bech32.encode(key.address))[1]
        info = given.auth_info.signer_infos.add(public_key=public_key_to_any(key), sequence=sequence)
        info.mode_info.single.mode = DIRECT
        given.signatures.append(b"")
    show(to_json(_simulated(remote, _raw(given))), output)


def raw_of(text: bytes) -> bytes:
    """TxRaw bytes of a transaction's JSON."""
    return _raw(from_json(message_class("cosmos.tx.v1beta1.Tx"), loads(text)))


def _raw(parsed: Any) -> bytes:
    raw_tx = message_class("cosmos.tx.v1beta1.TxRaw")(
        body_bytes=canonical(parsed.body), auth_info_bytes=canonical(parsed.auth_info), signatures=parsed.signatures
    )
    raw: bytes = raw_tx.SerializeToString()
    return raw
