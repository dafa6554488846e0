"""``stchaind keys``: simd's commands, flags and output (SDK 0.50.9 ``client/keys``) for this chain's keys."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click
from mnemonic import Mnemonic

from chain.cli.keyring import keyring_options, reported, setting, user_keyring
from chain.cli.options import ignored, no_ledger
from chain.cli.text import yaml_string
from chain.codec import json as proto_json
from chain.codec.registry import Any_
from chain.crypto import address as bech32
from chain.crypto.hd import COIN_TYPE, DerivationError, derive, new_mnemonic
from chain.crypto.keyring import ALGORITHMS, Keyring, MissingKey, Record, open_keyring
from chain.crypto.keyring_backends import KeyringError
from chain.crypto.keys import (
    EthSecp256k1PublicKey,
    MultisigPublicKey,
    PrivateKey,
    PublicKey,
    Secp256k1PublicKey,
    public_key_from_any,
    public_key_to_any,
)
from chain.crypto.terminal import ask_line, ask_passphrase, confirmed, remark
from chain.errors import InvalidAddress

MIN_ENTROPY_CHARACTERS: Final = 43
MAX_FILE_BYTES: Final = 1 << 16
_BECH: Final = {"acc": bech32.ACCOUNT, "val": bech32.VALIDATOR, "cons": bech32.CONSENSUS}
_PARSE_PREFIXES: Final = (
    bech32.ACCOUNT,
    bech32.ACCOUNT_PUB,
    bech32.VALIDATOR,
    bech32.VALIDATOR_PUB,
    bech32.CONSENSUS,
    bech32.CONSENSUS_PUB,
)
_UINT31: Final = click.IntRange(0, (1 << 31) - 1)


@click.group(no_args_is_help=True)
def keys() -> None:
    """Manage the keys that sign transactions.

    \b
    Backends (--keyring-backend):
      os      the desktop's secret store
      file    files sealed with a passphrase, in <home>/keyring-file
      test    files anybody can open, in <home>/keyring-test: for throw-away keys
      memory  forgotten with the command
    """


def _command(name: str, *, with_keyring: bool = True) -> Callable[[Callable[..., None]], click.Command]:
    def make(function: Callable[..., None]) -> click.Command:
        body: Callable[..., None] = reported(_without_shared(function))
        body = click.option("--output", "-o", type=click.Choice(["text", "json"]), help="Output format.  [default: text]")(body)
        body = keyring_options(body) if with_keyring else ignored("--keyring-backend")(ignored("--keyring-dir")(body))
        return keys.command(name)(body)

    return make


def _without_shared(function: Callable[..., None]) -> Callable[..., None]:
    # These are read through setting(), which also asks parents, environment and client.toml.
    def run(**arguments: Any) -> None:
        for shared in ("home", "keyring_backend", "keyring_dir", "output"):
            arguments.pop(shared, None)
        function(**arguments)

    run.__doc__ = function.__doc__
    run.__click_params__ = getattr(function, "__click_params__", [])  # type: ignore[attr-defined]
    return run


@_command("add")
@click.argument("name")
@click.option("--multisig", multiple=True, metavar="NAMES", help="Names of kept keys, comma-separated, to make a multisig key of.")
@click.option("--multisig-threshold", type=int, default=1, show_default=True, help="How many of them must sign.")
@click.option("--nosort", is_flag=True, help="Take --multisig keys in the order given instead of by address.")
@click.option("--pubkey", metavar="JSON", help="Keep this public key only.")
@click.option("--pubkey-base64", metavar="BASE64", help="Keep this public key of --key-type only.")
@click.option("--interactive", "-i", is_flag=True, help="Ask for mnemonic and BIP-39 passphrase.")
@click.option("--recover", is_flag=True, help="Ask for the mnemonic of an existing key instead of making a new one.")
@click.option("--no-backup", is_flag=True, help="Do not print the mnemonic.")
@click.option("--dry-run", is_flag=True, help="Make the key, but do not keep it.")
@click.option("--hd-path", default="", help="Derivation path, instead of coin type, account and index.")
@click.option("--coin-type", type=_UINT31, default=COIN_TYPE, show_default=True, help="Coin type of the derivation path.")
@click.option("--account", type=_UINT31, default=0, show_default=True, help="Account of the derivation path.")
@click.option("--index", type=_UINT31, default=0, show_default=True, help="Address index of the derivation path.")
@click.option("--key-type", "--algo", "algorithm", default=ALGORITHMS[0], show_default=True, help="Kind of key: " + " or ".join(ALGORITHMS) + ".")
@no_ledger
@click.option("--source", metavar="FILE", help="Read the mnemonic from a file (with --recover or --interactive).")
def add(
    *,
    name: str,
    multisig: tuple[str, ...],
    multisig_threshold: int,
    nosort: bool,
    pubkey: str | None,
    pubkey_base64: str | None,
    interactive: bool,
    recover: bool,
    no_backup: bool,
    dry_run: bool,
    hd_path: str,
    coin_type: int,
    account: int,
    index: int,
    algorithm: str,
    source: str | None,
) -> None:
    """Make or recover a key and keep it as NAME.

    A new key's mnemonic goes to stderr (with --output json into the result). Keep it: it is the only way to recover the key.
    """
    _require_algorithm(algorithm)
    ring = open_keyring("memory", Path()) if dry_run else user_keyring()
    replaced = False
    if not dry_run and ring.has(name):
        if not confirmed(f"override the existing name {name}"):
            raise KeyringError("aborted")
        replaced = True

    def keep(key: PublicKey | PrivateKey, phrase: str = "") -> None:
        _print_created(ring.add(Record.of(name, key), replace=replaced), phrase)

    members = [part.strip() for value in multisig for part in value.split(",") if part.strip()]
    if members and not dry_run:
        found = [ring.key(member).public_key for member in members]
        keep(_multisig(found if nosort else sorted(found, key=lambda key: key.address), multisig_threshold))
        return
    if pubkey and pubkey_base64:
        raise KeyringError("flags pubkey and pubkey-base64 cannot be used simultaneously")
    if pubkey:
        keep(public_key_from_any(proto_json.from_json(Any_, proto_json.loads(pubkey))))
        return
    if pubkey_base64:
        keep(_public_key_from_base64(pubkey_base64, algorithm))
        return
    phrase = ""
    if recover or interactive:
        question = "Enter your bip39 mnemonic" + ("" if recover else ", or hit enter to generate one.")
        phrase = " ".join((_read_file(source) if source else ask_line(question)).split())
        if (recover or phrase) and not Mnemonic("english").check(phrase):
            raise DerivationError("invalid mnemonic: expected 12 to 24 English BIP-39 words with a valid checksum")
    phrase = phrase or new_mnemonic()
    passphrase = ""
    if interactive:
        passphrase = ask_line('Enter your bip39 passphrase, combined with the mnemonic; most users hit enter to use the default, ""')
        if passphrase and ask_line("Repeat the passphrase:") != passphrase:
            raise KeyringError("passphrases don't match")
    path = hd_path or f"m/44'/{coin_type}'/{account}'/0/{index}"
    keep(derive(phrase, path, algorithm, passphrase), "" if recover or no_backup else phrase)


@_command("list")
@click.option("--list-names", "-n", is_flag=True, help="Names only.")
def list_keys(*, list_names: bool) -> None:
    """Every kept key."""
    records = user_keyring().records()
    if not records and _format() == "text":
        click.echo("No records were found in keyring")
    elif list_names:
        for record in records:
            click.echo(record.name)
    elif _format() == "json":
        click.echo(_go_json([_fields(record, bech32.ACCOUNT) for record in records]), nl=False)
    else:
        _print_text([_fields(record, bech32.ACCOUNT) for record in records])


@_command("show")
@click.argument("names", nargs=-1, required=True, metavar="NAME_OR_ADDRESS...")
@click.option("--address", "-a", is_flag=True, help="The address only.")
@click.option("--pubkey", "-p", is_flag=True, help="The public key only.")
@click.option("--bech", default="acc", show_default=True, metavar="acc|val|cons", help="Prefix of the address.")
@click.option("--multisig-threshold", type=int, default=1, show_default=True, help="With several names: how many must sign.")
def show(*, names: tuple[str, ...], address: bool, pubkey: bool, bech: str, multisig_threshold: int) -> None:
    """A key by name or address; several make a multisig key that is shown and not kept."""
    ring = user_keyring()
    if bech not in _BECH:
        raise KeyringError(f"invalid Bech32 prefix encoding provided: {bech}: expected acc, val or cons")
    if address and pubkey:
        raise KeyringError("cannot use both --address and --pubkey at once")
    if (address or pubkey) and click.get_current_context().params.get("output") is not None:
        raise KeyringError("cannot use --output with --address or --pubkey")
    records = [_find(ring, name) for name in names]
    record = records[0] if len(records) == 1 else Record("", "multi", _multisig([one.public_key for one in records], multisig_threshold))
    fields = _fields(record, _BECH[bech])
    if address or pubkey:
        click.echo(fields["address" if address else "pubkey"])
    elif _format() == "json":
        click.echo(_go_json(fields))
    else:
        _print_text([fields])


@_command("export")
@click.argument("name")
@click.option("--unarmored-hex", is_flag=True, help="The bare private key in hexadecimal. Needs --unsafe.")
@click.option("--unsafe", is_flag=True, help="Say that the risk is understood.")
def export(*, name: str, unarmored_hex: bool, unsafe: bool) -> None:
    """A private key, encrypted with a passphrase, as text that import takes."""
    ring = user_keyring()
    if unarmored_hex != unsafe:
        raise KeyringError("the flags unsafe and unarmored-hex must be used together")
    if unsafe:
        if confirmed("WARNING: The private key will be exported as an unarmored hexadecimal string. USE AT YOUR OWN RISK. Continue?"):
            click.echo(ring.private_key(name).raw.hex())
        return
    passphrase = ask_passphrase("Enter passphrase to encrypt the exported key:")
    click.echo(ring.export_armor(name, passphrase))


@_command("import")
@click.argument("name")
@click.argument("keyfile")
def import_key(*, name: str, keyfile: str) -> None:
    """Keep the private key of an exported file as NAME."""
    text = _read_file(keyfile)
    passphrase = ask_passphrase("Enter passphrase to decrypt your key:")
    user_keyring().import_armor(name, text, passphrase)


@_command("import-hex")
@click.argument("name")
@click.argument("hex_key", metavar="HEX")
@click.option("--key-type", "--algo", "algorithm", default=ALGORITHMS[0], show_default=True, help="Kind of key: " + " or ".join(ALGORITHMS) + ".")
def import_hex(*, name: str, hex_key: str, algorithm: str) -> None:
    """Keep a private key given in hexadecimal as NAME."""
    _require_algorithm(algorithm)
    digits = hex_key[2:] if hex_key[:2].lower() == "0x" else hex_key
    if not re.fullmatch(r"[0-9a-fA-F]{64}", digits, re.ASCII):
        raise KeyringError(f"a private key is 64 hexadecimal digits, got {len(digits)} characters")
    try:
        key = PrivateKey(bytes.fromhex(digits), algorithm)
    except ValueError:
        raise KeyringError("a private key is a number from 1 to the order of secp256k1 less one") from None
    user_keyring().add_private(name, key)


@_command("rename")
@click.argument("old_name")
@click.argument("new_name")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
def rename(*, old_name: str, new_name: str, yes: bool) -> None:
    """Give a key another name."""
    ring = user_keyring()
    record = ring.key(old_name)
    if not yes and not confirmed(f"Key reference will be renamed from {old_name} to {new_name}. Continue?"):
        return
    ring.rename(old_name, new_name)
    if record.kind in ("ledger", "offline"):
        remark("Public key reference renamed")
    else:
        remark(f"Key was successfully renamed from {old_name} to {new_name}")


@_command("delete")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.option("--force", "-f", is_flag=True, help="Accepted and ignored, as simd does.")
def delete(*, names: tuple[str, ...], yes: bool, force: bool) -> None:
    """Remove keys for ever."""
    ring = user_keyring()
    for name in names:
        record = ring.key(name)
        if not yes and not confirmed("Key reference will be deleted. Continue?"):
            continue
        ring.delete(name)
        remark("Public key reference deleted" if record.kind in ("ledger", "offline") else "Key deleted forever (uh oh!)")


@_command("parse", with_keyring=False)
@click.argument("text", metavar="HEX_OR_BECH32_ADDRESS")
def parse(*, text: str) -> None:
    """An address in its other forms: hexadecimal to bech32 and back."""
    text = text.strip()
    if not text:
        raise KeyringError("couldn't parse empty input")
    value: dict[str, Any]
    try:
        human, raw = bech32.decode_any(text)
        value = {"human": human, "bytes": raw.hex().upper()}
    except InvalidAddress:
        if len(text) > 2 * bech32.MAX_ADDRESS_BYTES or not re.fullmatch(r"(?:[0-9a-fA-F]{2})+", text, re.ASCII):
            raise KeyringError("couldn't find valid bech32 nor hex data") from None
        value = {"formats": [bech32.encode(bytes.fromhex(text), prefix) for prefix in _PARSE_PREFIXES]}
    if _format() == "json":
        click.echo(_go_json(value))
    elif "formats" in value:
        click.echo("\n".join(["formats:", *(f"- {one}" for one in value["formats"])]) + "\n")
    else:
        click.echo(f"bytes: {yaml_string(value['bytes'])}\nhuman: {yaml_string(value['human'])}\n")


@_command("mnemonic", with_keyring=False)
@click.option("--unsafe-entropy", is_flag=True, help="Ask for the randomness instead of taking the system's.")
def mnemonic(*, unsafe_entropy: bool) -> None:
    """A fresh BIP-39 mnemonic of 24 words."""
    if not unsafe_entropy:
        click.echo(new_mnemonic())
        return
    typed = ask_line("WARNING: Generate at least 256-bits of entropy and enter the results here:")
    if len(typed) < MIN_ENTROPY_CHARACTERS:
        raise KeyringError(
            f"256-bits is {MIN_ENTROPY_CHARACTERS} characters in Base-64, and 100 in Base-6. You entered {len(typed)}, and probably want more"
        )
    if confirmed(f"> Input length: {len(typed)}"):
        click.echo(Mnemonic("english").to_mnemonic(hashlib.sha256(typed.encode()).digest()))


@_command("list-key-types", with_keyring=False)
def list_key_types() -> None:
    """The kinds of keys that add and import-hex make."""
    click.echo(f'Supported key types/algos:\n"{",".join(ALGORITHMS)}"')


@_command("migrate")
def migrate() -> None:
    """Rewrite keys of old versions (amino) in today's form."""
    user_keyring().records()
    click.echo("Keys migration has been successfully executed.")


def _require_algorithm(algorithm: str) -> None:
    if algorithm not in ALGORITHMS:
        raise KeyringError(f"{algorithm}: unsupported signing algo: expected {' or '.join(ALGORITHMS)}")


def _find(ring: Keyring, reference: str) -> Record:
    try:
        return ring.find(reference)
    except MissingKey as error:
        raise KeyringError(f"{reference} is not a valid name or address: {error}") from None


def _multisig(members: list[PublicKey], threshold: int) -> MultisigPublicKey:
    if threshold <= 0:
        raise KeyringError("threshold must be a positive integer")
    if len(members) < threshold:
        raise KeyringError(f"threshold k of n multisignature: {len(members)} < {threshold}")
    return MultisigPublicKey(threshold, tuple(members))


def _public_key_from_base64(text: str, algorithm: str) -> PublicKey:
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise KeyringError(f"--pubkey-base64 is not base64: {error}") from None
    return EthSecp256k1PublicKey(raw) if algorithm == "eth_secp256k1" else Secp256k1PublicKey(raw)


def _read_file(name: str) -> str:
    try:
        with Path(name).open("rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
        if len(raw) > MAX_FILE_BYTES:
            raise KeyringError(f"{name} is larger than {MAX_FILE_BYTES} bytes")
        return raw.decode("utf-8")
    except OSError as error:
        raise KeyringError(f"cannot read {name}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise KeyringError(f"{name} is not text") from None


def _format() -> str:
    return setting("output") or "text"


def _fields(record: Record, prefix: str) -> dict[str, str]:
    return {
        "name": record.name,
        "type": record.kind,
        "address": bech32.encode(record.address, prefix),
        "pubkey": _go_json(proto_json.to_json(public_key_to_any(record.public_key))),
    }


def _print_created(record: Record, phrase: str) -> None:
    fields = _fields(record, bech32.ACCOUNT)
    if _format() == "json":
        click.echo(_go_json(fields | ({"mnemonic": phrase} if phrase else {})))
        return
    remark("")
    _print_text([fields])
    if phrase:
        remark(
            "\n**Important** write this mnemonic phrase in a safe place.\n"
            f"It is the only way to recover your account if you ever forget your password.\n\n{phrase}"
        )


def _print_text(records: list[dict[str, str]]) -> None:
    for fields in records:
        lines = [f"{name}: {yaml_string(fields[name])}" for name in sorted(fields)]
        click.echo("- " + "\n  ".join(lines))
    click.echo("")


def _go_json(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
