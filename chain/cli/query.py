"""``stchaind query``: commands for every query method, made from the service descriptors, and a few by hand."""

from __future__ import annotations

import base64
import re
from typing import Any, Final

import click

from chain.cli.genesis import modules
from chain.cli.options import output_option, show
from chain.cli.tx import Remote, node_option
from chain.codec.json import from_json, to_json
from chain.codec.registry import POOL, message_class

_PAGE: Final = {"page-key": "key", "page-offset": "offset", "page-limit": "limit", "page-reverse": "reverse", "page-count-total": "count_total"}
_ALIASES: Final = {"bank": {"all-balances": "balances", "spendable-balances": "spendable-balances", "total-supply": "total-supply"}}


@click.group()
def query() -> None:
    """Ask a node."""


def _kebab(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name).lower()


def _add_module_commands() -> None:
    for module in modules():
        if not module.queries:
            continue
        group = click.Group(module.name, help=f"Queries of {module.name}.")
        for path in module.queries:
            service, _, name = path.lstrip("/").partition("/")
            command = _ALIASES.get(module.name, {}).get(_kebab(name), _kebab(name))
            group.add_command(_command(path, command, POOL.FindServiceByName(service).FindMethodByName(name).input_type))
        query.add_command(group)


def _command(path: str, name: str, request: Any) -> click.Command:
    scalars = [field for field in request.fields if field.message_type is None]
    paged = "pagination" in request.fields_by_name
    # What a query needs comes as arguments; what it may do without (repeated fields, enums, ids of old) as options.
    arguments = [field for field in scalars if not field.is_repeated and field.name not in ("resolve_denom", "id", "status")]

    def run(output: str, node: str, height: int, **given: Any) -> None:
        value = {field.name: given[field.name] for field in arguments if given.get(field.name)}
        for field in scalars:
            if field not in arguments and given.get(field.name):
                value[field.name] = list(given[field.name]) if field.is_repeated else given[field.name]
        if paged:
            page = {inner: given[outer.replace("-", "_")] for outer, inner in _PAGE.items() if given[outer.replace("-", "_")]}
            value["pagination"] = page
        answer = Remote(node).rpc(path, from_json(message_class(request.full_name), value), height)
        show(to_json(answer), output)

    command: Any = click.option("--height", default=0, help="Ask at this height (default: the latest).")(node_option(output_option(run)))
    if paged:
        command = click.option("--page-key", default="", help="next_key of the page before, in base64.")(command)
        command = click.option("--page-offset", default=0, help="Entries to skip.")(command)
        command = click.option("--page-limit", default=0, help="Entries to show.")(command)
        command = click.option("--page-reverse", is_flag=True, help="From the end.")(command)
        command = click.option("--page-count-total", is_flag=True, help="Count all.")(command)
    for field in scalars:
        if field not in arguments:
            command = click.option(f"--{field.name.replace('_', '-')}", field.name, multiple=field.is_repeated, help=f"Field {field.name}.")(command)
    for field in reversed(arguments):
        command = click.argument(field.name)(command)
    return click.command(name, help=f"{path} of the node.")(command)


@query.command("tx")
@click.argument("hash_text", metavar="HASH")
@node_option
@output_option
def query_tx(hash_text: str, node: str, output: str) -> None:
    """A transaction by its hash."""
    request = message_class("cosmos.tx.v1beta1.GetTxRequest")(hash=hash_text)
    show(to_json(Remote(node).rpc("/cosmos.tx.v1beta1.Service/GetTx", request).tx_response), output)


@query.command("txs")
@click.option("--query", "text", required=True, help="As \"message.sender='st1…' AND tx.height>5\".")
@click.option("--page", default=1, show_default=True)
@click.option("--limit", default=100, show_default=True)
@click.option("--order_by", "order", type=click.Choice(["asc", "desc"]), default="asc", show_default=True)
@node_option
@output_option
def query_txs(text: str, page: int, limit: int, order: str, node: str, output: str) -> None:
    """Transactions by their events."""
    request = message_class("cosmos.tx.v1beta1.GetTxsEventRequest")(query=text, page=page, limit=limit, order_by=1 if order == "asc" else 2)
    answer = Remote(node).rpc("/cosmos.tx.v1beta1.Service/GetTxsEvent", request)
    total = int(answer.total)
    shown = {"total_count": str(total), "count": str(len(answer.tx_responses)), "page_number": str(page), "page_total": str(-(-total // limit))}
    show({**shown, "limit": str(limit), "txs": [to_json(one) for one in answer.tx_responses]}, output)


@query.command("block")
@click.argument("height", required=False)
@node_option
@output_option
def query_block(height: str | None, node: str, output: str) -> None:
    """A block by its height (default: the latest)."""
    remote = Remote(node)
    show(remote.call(lambda: remote.comet.call("block", **({"height": height} if height else {})))["block"], output)


@query.command("block-results")
@click.argument("height", required=False)
@node_option
@output_option
def query_block_results(height: str | None, node: str, output: str) -> None:
    """What the transactions of a block did (default: the latest)."""
    remote = Remote(node)
    show(remote.call(lambda: remote.comet.call("block_results", **({"height": height} if height else {}))), output)


@query.command("store")
@click.argument("store")
@click.argument("key_hex")
@click.option("--prove", is_flag=True, help="Show the ICS-23 proof.")
@click.option("--height", default=0)
@node_option
@output_option
def query_store(store: str, key_hex: str, prove: bool, height: int, node: str, output: str) -> None:
    """A raw key of a store, in hex."""
    try:
        key = bytes.fromhex(key_hex)
    except ValueError:
        raise click.ClickException(f"expected a key in hex, got {key_hex[:60]!r}") from None
    remote = Remote(node)
    answer = remote.call(lambda: remote.comet.abci_query(f"/store/{store}/key", key, height, prove))
    if answer.get("code"):
        raise click.ClickException(f"{answer.get('log')} (codespace {answer.get('codespace')}, code {answer['code']})")
    value = base64.b64decode(answer.get("value") or "").hex()
    show({"key": key_hex, "value": value, "height": answer.get("height"), "proof_ops": answer.get("proofOps")}, output)


_add_module_commands()
