"""``stchaind query``: commands for every query method, made from the service descriptors and named as simd names them, and a few by hand."""

from __future__ import annotations

import base64
import re
from typing import Any, Final

import click

from chain.api import blocks
from chain.cli.genesis import modules
from chain.cli.options import output_option, show
from chain.cli.tx import Remote, query_options, simulate
from chain.codec.json import from_json, loads, to_json
from chain.codec.registry import POOL, extension, message_class, option_of
from chain.crypto import address as bech32
from chain.crypto.keys import public_key_from_any

_PAGE: Final = {"page-key": "key", "page-offset": "offset", "page-limit": "limit", "page-reverse": "reverse", "page-count-total": "count_total"}
_NAMES: Final = {
    "bank": {"all-balances": "balances", "spendable-balance-by-denom": "spendable-balance", "supply-of": "total-supply-of"},
    "evidence": {"all-evidence": "list"},
    "auth": {"account-address-by-id": "address-by-acc-num", "module-account-by-name": "module-account"},
    "gov": {"tally-result": "tally"},
    "upgrade": {"current-plan": "plan", "applied-plan": "applied"},
    "authz": {"granter-grants": "grants-by-granter", "grantee-grants": "grants-by-grantee"},
    "feegrant": {"allowance": "grant", "allowances": "grants-by-grantee", "allowances-by-granter": "grants-by-granter"},
    "staking": {
        "delegator-delegations": "delegations",
        "validator-delegations": "delegations-to",
        "delegator-unbonding-delegations": "unbonding-delegations",
        "validator-unbonding-delegations": "unbonding-delegations-from",
        "redelegations": "redelegation",
    },
    "distribution": {
        "validator-commission": "commission",
        "validator-slashes": "slashes",
        "delegation-rewards": "rewards-by-validator",
        "delegation-total-rewards": "rewards",
    },
}
"""simd's names where they are not the method's own."""
_COMET: Final = {
    "block-by-height": "GetBlockByHeight",
    "block-latest": "GetLatestBlock",
    "node-info": "GetNodeInfo",
    "syncing": "GetSyncing",
    "validator-set": "GetLatestValidatorSet",
    "validator-set-by-height": "GetValidatorSetByHeight",
}
_COMET_SERVICE: Final = "/cosmos.base.tendermint.v1beta1.Service/"
_OPTIONAL: Final = ("resolve_denom", "id", "status", "evidence_hash", "proposal_status", "query_type")
"""Scalars a query may do without: options, where the others are arguments."""
_LAST_MAY_MISS: Final = ("module_name", "msg_type_url", "params_type")
"""Arguments that may be left out: they come last."""
_BY_OPTION: Final = (
    "/cosmos.bank.v1beta1.Query/DenomMetadataByQueryString",
    "/cosmos.distribution.v1beta1.Query/DelegatorValidators",
    "/cosmos.distribution.v1beta1.Query/DelegatorWithdrawAddress",
    "/cosmos.gov.v1.Query/Proposals",
    "/stratos.register.v1.Query/ResourceNodes",
    "/stratos.register.v1.Query/MetaNodes",
    "/stratos.pot.v1.Query/PriceHistory",
    "/stratos.settlement.v1.Query/Epochs",
    "/stratos.settlement.v1.Query/Challenges",
    "/stratos.grant.v1.Query/Campaigns",
)
"""Methods whose fields are options alone: all of simd's that are so, and of ours those that filter."""
_ORIGINAL: Final = {
    "register": {
        "get-resource-node": ("ResourceNode", "network-address"),
        "get-meta-node": ("MetaNode", "network-address"),
        "get-resource-count": ("BondedResourceNodeCount", ""),
        "get-meta-count": ("BondedMetaNodeCount", ""),
    },
    "pot": {"report": ("VolumeReport", "epoch"), "total-reward": ("TotalRewardByEpoch", "epoch")},
    "sds": {"upload": ("Fileupload", "")},
}
"""Stratos' own commands beside those that follow from the methods (stratos-chain.md 7): method, and the option that its one field is."""
_SCALAR: Final = extension("cosmos_proto.scalar")
_HASH: Final = re.compile(r"(?:0x)?[0-9a-fA-F]{64}", re.ASCII)
_HEX: Final = re.compile(r"(?:0x)?(?:[0-9a-fA-F]{2})*", re.ASCII)


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
            name = _kebab(path.rpartition("/")[2])
            name = _NAMES.get(module.name, {}).get(name, name)
            if name not in group.commands:  # a module names the newest of its services first
                group.add_command(_command(path, name, module.name))
        for name, (method, flag) in _ORIGINAL.get(module.name, {}).items():
            for path in [one for one in module.queries if one.endswith(f"/{method}")]:
                group.add_command(_command(path, name, module.name, flag))
        if module.name == "bank":
            _name_a_denom(group.commands["total-supply"], group.commands["total-supply-of"])
            group.add_command(group.commands["total-supply"], "total")
        query.add_command(group)
    comet = click.Group("comet", help="What CometBFT knows, through the application's service.")
    for name, method in _COMET.items():
        comet.add_command(_command(_COMET_SERVICE + method, name, "consensus comet"))
    consensus = query.commands["consensus"]
    assert isinstance(consensus, click.Group), "the consensus module has queries"
    consensus.add_command(comet)


def _name_a_denom(total: click.Command, of_one: click.Command) -> None:
    """Give ``total-supply`` the ``--denom`` that simd's help tells of: with it, it is ``total-supply-of``."""
    every, one = total.callback, of_one.callback
    assert every is not None, "it asks the node"
    assert one is not None, "it asks the node"

    def run(denom: str, **given: Any) -> None:
        if denom:
            one(arg_denom=denom, **given)
        else:
            every(**given)

    total.callback = run
    total.params.insert(0, click.Option(["--denom"], default="", help="Of this denom alone."))


def _command(path: str, name: str, group: str, flag_of_field: str = "") -> click.Command:
    """The command ``name`` in ``group`` that asks a method; with ``flag_of_field`` the one field is that option."""
    service, _, method = path.lstrip("/").partition("/")
    request = POOL.FindServiceByName(service).FindMethodByName(method).input_type
    scalars = [field for field in request.fields if field.message_type is None]
    paged = "pagination" in request.fields_by_name
    by_option = bool(flag_of_field) or path in _BY_OPTION
    arguments = [field for field in scalars if field.name not in _OPTIONAL and not by_option]

    def run(output: str | None, node: str | None, height: int, grpc_addr: str, no_indent: bool, **given: Any) -> None:
        value = {field.name: _value(field, given[f"arg_{field.name}"]) for field in scalars if given.get(f"arg_{field.name}")}
        if paged:
            value["pagination"] = {inner: given[outer.replace("-", "_")] for outer, inner in _PAGE.items() if given[outer.replace("-", "_")]}
        answer = Remote(node, grpc_addr).rpc(path, from_json(message_class(request.full_name), value), height)
        show(to_json(answer), output, indent=not no_indent)

    command: Any = click.option("--no-indent", is_flag=True, help="JSON on one line.")(query_options(output_option(run)))
    if paged:
        command = click.option("--page-key", default="", help="next_key of the page before, in base64.")(command)
        command = click.option("--page-offset", default=0, help="Entries to skip.")(command)
        command = click.option("--page-limit", default=0, help="Entries to show.")(command)
        command = click.option("--page-reverse", is_flag=True, help="From the end.")(command)
        command = click.option("--page-count-total", is_flag=True, help="Count all.")(command)
    for field in scalars:
        if field not in arguments:
            flag = f"--{flag_of_field or field.name.replace('_', '-')}"
            command = click.option(flag, f"arg_{field.name}", is_flag=field.type == field.TYPE_BOOL, help=f"Field {field.name}.")(command)
    for field in reversed(arguments):
        required = field.name not in _LAST_MAY_MISS and not field.is_repeated
        shown = field.name.upper() if required or field.is_repeated else f"[{field.name.upper()}]"
        command = click.argument(f"arg_{field.name}", nargs=-1 if field.is_repeated else 1, metavar=shown, required=required)(command)
    example = " ".join(["stchaind query", group, name, *(field.name.upper() for field in arguments)])
    example += f" --{flag_of_field} {request.fields[0].name.upper()}" if flag_of_field else ""
    return click.command(name, help=f"{path} of the node.\n\n\b\n{example}")(command)


def _value(field: Any, given: Any) -> Any:
    """The JSON form of what was typed: bytes come in hex or base64, a consensus address also as the key in JSON that has it."""
    if field.is_repeated:
        return list(given)
    if option_of(field, _SCALAR) == "cosmos.ConsensusAddressString" and given.startswith("{"):
        return bech32.encode(public_key_from_any(from_json(message_class("google.protobuf.Any"), loads(given))).address, bech32.CONSENSUS)
    if field.enum_type is not None:  # simd's options have deposit-period for PROPOSAL_STATUS_DEPOSIT_PERIOD
        wanted = given.upper().replace("-", "_")
        return next((name for name in field.enum_type.values_by_name if name.endswith(f"_{wanted}")), given)
    if field.type == field.TYPE_BYTES and _HEX.fullmatch(given):
        return base64.b64encode(bytes.fromhex(given.removeprefix("0x"))).decode()
    return given


@query.command("tx")
@click.argument("text", metavar="HASH|ADDRESS/SEQUENCE|SIGNATURES")
@click.option("--type", "kind", type=click.Choice(["hash", "acc_seq", "signature"]), default="hash", show_default=True, help="What the argument is.")
@query_options
@output_option
def query_tx(text: str, kind: str, node: str | None, height: int, grpc_addr: str, output: str | None) -> None:
    """A transaction by its hash, by its signer and sequence, or by its signatures.

    \b
    stchaind query tx 6E…
    stchaind query tx --type=acc_seq st1…/7
    """
    remote = Remote(node, grpc_addr)
    if kind == "hash":
        request = message_class("cosmos.tx.v1beta1.GetTxRequest")(hash=text)
        show(to_json(remote.rpc("/cosmos.tx.v1beta1.Service/GetTx", request).tx_response), output)
        return
    event = "acc_seq" if kind == "acc_seq" else "signature"
    wanted = " AND ".join(f"tx.{event}='{part}'" for part in ([text] if kind == "acc_seq" else text.split(",")))
    found = _txs(remote, wanted, 1, 2, "").tx_responses
    if not found:
        raise click.ClickException(f"found no txs matching given {'address and sequence combination' if kind == 'acc_seq' else 'signatures'}")
    if len(found) > 1:
        raise click.ClickException(f"found {len(found)} txs matching given {kind}: expected one")
    show(to_json(found[0]), output)


@query.command("txs")
@click.option("--query", "text", required=True, help="As \"message.sender='st1…' AND tx.height>5\".")
@click.option("--page", type=click.IntRange(1), default=1, show_default=True)
@click.option("--limit", type=click.IntRange(1, 100), default=100, show_default=True)
@click.option("--order_by", "order", type=click.Choice(["asc", "desc", "dsc"]), default="asc", show_default=True)
@query_options
@output_option
def query_txs(text: str, page: int, limit: int, order: str, node: str | None, height: int, grpc_addr: str, output: str | None) -> None:
    """Transactions by their events."""
    answer = _txs(Remote(node, grpc_addr), text, page, limit, order)
    show(_page(int(answer.total), len(answer.tx_responses), page, limit) | {"txs": [to_json(one) for one in answer.tx_responses]}, output)


def _txs(remote: Remote, text: str, page: int, limit: int, order: str) -> Any:
    order_by = {"": 0, "asc": 1}.get(order, 2)
    request = message_class("cosmos.tx.v1beta1.GetTxsEventRequest")(query=text, page=page, limit=limit, order_by=order_by)
    return remote.rpc("/cosmos.tx.v1beta1.Service/GetTxsEvent", request)


def _page(total: int, count: int, page: int, limit: int) -> dict[str, Any]:
    return {"total_count": str(total), "count": str(count), "page_number": str(page), "page_total": str(-(-total // limit)), "limit": str(limit)}


@query.command("block")
@click.argument("text", metavar="HEIGHT|HASH", default="")
@click.option("--type", "kind", type=click.Choice(["height", "hash"]), default=None, help="What the argument is (default: seen by its form).")
@query_options
@output_option
def query_block(text: str, kind: str | None, node: str | None, height: int, grpc_addr: str, output: str | None) -> None:
    """A block by its height or hash (default: the latest).

    \b
    stchaind query block --type=height 5
    """
    remote = Remote(node, grpc_addr)
    if not text:
        click.echo("Falling back to latest block height:", err=True)
    if text and (kind or ("hash" if _HASH.fullmatch(text) else "height")) == "hash":
        if not _HASH.fullmatch(text):
            raise click.ClickException(f"a block hash is 64 hex digits, got {text[:80]!r}")
        wanted = base64.b64encode(bytes.fromhex(text.removeprefix("0x"))).decode()
        found = remote.call(lambda: remote.comet.call("block_by_hash", hash=wanted))
    else:
        found = remote.call(lambda: remote.comet.call("block", **_at(text)))
    if found["block"] is None:
        raise click.ClickException(f"no block found with hash {text}")
    show(to_json(blocks.block(found["block"])), output)


@query.command("blocks")
@click.option("--query", "text", required=True, help='As "block.height>5".')
@click.option("--page", type=click.IntRange(1), default=1, show_default=True)
@click.option("--limit", type=click.IntRange(1, 100), default=100, show_default=True)
@click.option("--order_by", "order", type=click.Choice(["asc", "desc", "dsc"]), default="desc", show_default=True)
@query_options
@output_option
def query_blocks(text: str, page: int, limit: int, order: str, node: str | None, height: int, grpc_addr: str, output: str | None) -> None:
    """Blocks by their events."""
    remote = Remote(node, grpc_addr)
    params = {"query": text, "page": str(page), "per_page": str(limit), "order_by": "asc" if order == "asc" else "desc"}
    found = remote.call(lambda: remote.comet.call("block_search", **params))
    listed = [to_json(blocks.block(one["block"])) for one in found["blocks"]]
    show(_page(int(found["total_count"]), len(listed), page, limit) | {"blocks": listed}, output)


@query.command("block-results")
@click.argument("text", metavar="HEIGHT", default="")
@query_options
@output_option
def query_block_results(text: str, node: str | None, height: int, grpc_addr: str, output: str | None) -> None:
    """What the transactions of a block did (default: the latest)."""
    remote = Remote(node, grpc_addr)
    if not text:
        click.echo("Falling back to latest block height:", err=True)
    found = remote.call(lambda: remote.comet.call("block_results", **_at(text)))
    # simd prints these as numbers, CometBFT's RPC as text.
    found["height"] = int(found["height"])
    for section, names in (("block", ("max_bytes", "max_gas")), ("evidence", ("max_age_num_blocks", "max_age_duration", "max_bytes"))):
        values = (found.get("consensus_param_updates") or {}).get(section) or {}
        values.update({name: int(values[name]) for name in names if name in values})
    show(found, output)


def _at(text: str) -> dict[str, str]:
    if text and not (text.isascii() and text.isdigit() and len(text) <= 19):
        raise click.ClickException(f"a block height is a number, got {text[:80]!r}")
    return {"height": text} if text else {}


@query.command("comet-validator-set")
@click.argument("text", metavar="HEIGHT", default="")
@click.option("--page", type=click.IntRange(1), default=1, show_default=True)
@click.option("--limit", type=click.IntRange(1, 100), default=100, show_default=True)
@query_options
@output_option
def comet_validator_set(text: str, page: int, limit: int, node: str | None, height: int, grpc_addr: str, output: str | None) -> None:
    """The whole validator set of CometBFT at a height (default: the latest)."""
    method = "GetValidatorSetByHeight" if text else "GetLatestValidatorSet"
    request = message_class(f"cosmos.base.tendermint.v1beta1.{method}Request")(**({"height": int(text)} if _at(text) else {}))
    request.pagination.offset, request.pagination.limit = (page - 1) * limit, limit
    show(to_json(Remote(node, grpc_addr).rpc(_COMET_SERVICE + method, request)), output)


@query.command("store")
@click.argument("store")
@click.argument("key_hex")
@click.option("--prove", is_flag=True, help="Show the ICS-23 proof.")
@query_options
@output_option
def query_store(store: str, key_hex: str, prove: bool, height: int, node: str | None, grpc_addr: str, output: str | None) -> None:
    """A raw key of a store, in hex."""
    try:
        key = bytes.fromhex(key_hex)
    except ValueError:
        raise click.ClickException(f"expected a key in hex, got {key_hex[:60]!r}") from None
    remote = Remote(node, grpc_addr)
    answer = remote.call(lambda: remote.comet.abci_query(f"/store/{store}/key", key, height, prove))
    if answer.get("code"):
        raise click.ClickException(f"{answer.get('log')} (codespace {answer.get('codespace')}, code {answer['code']})")
    value = base64.b64decode(answer.get("value") or "").hex()
    show({"key": key_hex, "value": value, "height": answer.get("height"), "proof_ops": answer.get("proofOps")}, output)


_add_module_commands()
query.add_command(simulate)
for _alias in ("tendermint-validator-set", "cometbft-validator-set"):
    query.add_command(comet_validator_set, _alias)
