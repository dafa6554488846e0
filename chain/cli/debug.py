"""``stchaind debug``: addresses, public keys and bytes in their other forms."""

from __future__ import annotations

import re

import click

from chain.codec.json import from_json, loads
from chain.codec.registry import Any_
from chain.crypto import address as bech32
from chain.crypto.keys import Ed25519PublicKey, EthSecp256k1PublicKey, Secp256k1PublicKey, public_key_from_any
from chain.errors import InvalidAddress

_PREFIXES = {"Acc": bech32.ACCOUNT, "Val": bech32.VALIDATOR, "Con": bech32.CONSENSUS}
MAX_BYTES = 1 << 16


@click.group()
def debug() -> None:
    """Turn addresses, keys and bytes into their other forms."""


@debug.command()
@click.argument("address")
def addr(address: str) -> None:
    """An address in hex or bech32, in every form."""
    try:
        raw = bech32.decode_any(address)[1]
    except InvalidAddress:
        if re.fullmatch(r"(?:[0-9a-fA-F]{2})+", address, re.ASCII) is None or len(address) > 2 * bech32.MAX_ADDRESS_BYTES:
            raise click.ClickException(f"expected hex or bech32, got {address[:100]!r}") from None
        raw = bytes.fromhex(address)
    click.echo(f"Address: [{' '.join(str(one) for one in raw)}]\nAddress (hex): {raw.hex().upper()}")
    for name, prefix in _PREFIXES.items():
        click.echo(f"Bech32 {name}: {bech32.encode(raw, prefix)}")


@debug.command()
def prefixes() -> None:
    """The prefixes of this chain's addresses."""
    for name, prefix in _PREFIXES.items():
        click.echo(f"Bech32 {name}: {prefix}")


@debug.command()
@click.argument("key", metavar="JSON")
def pubkey(key: str) -> None:
    """A public key in proto JSON, as its address and hex."""
    found = public_key_from_any(from_json(Any_, loads(key)))
    click.echo(f"Address: {found.address.hex().upper()}")
    if isinstance(found, Ed25519PublicKey | EthSecp256k1PublicKey | Secp256k1PublicKey):
        click.echo(f"PubKey Hex: {found.raw.hex()}")


@debug.command("raw-bytes")
@click.argument("text", metavar="BYTES")
def raw_bytes(text: str) -> None:
    """Bytes printed as numbers, as [10 21 13 255], in hex."""
    numbers = text.strip().removeprefix("[").removesuffix("]").split()
    if len(numbers) > MAX_BYTES or not all(re.fullmatch(r"\d{1,3}", one, re.ASCII) and int(one) < 256 for one in numbers):
        raise click.ClickException(f"expected numbers from 0 to 255 as [10 21 13 255], got {text[:100]!r}")
    click.echo(bytes(int(one) for one in numbers).hex().upper())
