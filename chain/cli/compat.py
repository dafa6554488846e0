"""``stchaind compat-rpc``: the node's RPC for clients that know CometBFT up to 0.37 (chain/api/compat.py)."""

from __future__ import annotations

import asyncio
import re
from typing import Final

import click

from chain.api.compat import VERSION, listener, serve
from chain.cli.keyring import setting
from chain.cli.tx import NODE, node_option

_ADDRESS: Final = re.compile(r"(?:tcp://)?(?:\[([0-9a-fA-F:]{2,45})\]|([^:/\[\]\s]{1,253})):([0-9]{1,5})")
LADDR: Final = "tcp://127.0.0.1:26667"


@click.command("compat-rpc")
@click.option("--laddr", default=LADDR, show_default=True, help="Where it listens.")
@click.option("--cors", is_flag=True, help="Web pages of any origin may ask.")
@node_option
def compat_rpc(node: str | None, laddr: str, cors: bool) -> None:
    """Serve the node's RPC as CometBFT 0.37 spoke it.

    For old CosmJS (before 0.32), and so for stratos-sdk 2.0.0: they read the answers of newer nodes wrongly. Give them this address as rpcUrl.
    Subscriptions are not forwarded.

    \b
    stchaind compat-rpc
    stchaind compat-rpc --node tcp://127.0.0.1:26657 --laddr tcp://127.0.0.1:26667
    """
    found = _ADDRESS.fullmatch(laddr)
    if found is None or int(found[3]) > 65535:
        raise click.ClickException(f"expected --laddr as {LADDR}, got {laddr[:100]!r}")
    url = node or setting("node") or NODE
    sock = listener(found[1] or found[2], int(found[3]))
    host, port = sock.getsockname()[:2]
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    click.echo(f"http://{where} is {url} as CometBFT {VERSION}", err=True)
    asyncio.run(serve(url, sock, cors=cors))
