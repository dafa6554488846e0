"""``stchaind tx upgrade`` and ``tx crisis``: proposals to upgrade the chain, and having an invariant checked."""

from __future__ import annotations

import json
import re
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import click

from chain.authority import GOV_ADDRESS
from chain.cli.tx import send, sender_of, tx_options
from chain.codec.registry import message_class, pack_any
from chain.coins import to_messages
from chain.crypto import address as bech32
from chain.tx.fees import parse_amounts

_PLATFORM: Final = re.compile(r"any|[a-zA-Z0-9]+/[a-zA-Z0-9]+", re.ASCII)


def proposal_options(command: Any) -> Any:
    """What a command that makes a proposal asks for beside its message."""
    for option in (
        click.option("--authority", default="", help="Address of the upgrade module's authority (default: the gov account)."),
        click.option("--deposit", default="", help="Deposit of the proposal, as 100000000000gwei."),
        click.option("--metadata", default="", help="Metadata of the proposal."),
        click.option("--summary", default="", help="Summary of the proposal."),
        click.option("--title", required=True, help="Title of the proposal."),
    ):
        command = option(command)
    return tx_options(command)


@click.group()
def upgrade() -> None:
    """Propose upgrades of the chain."""


@upgrade.command("software-upgrade")
@click.argument("name")
@click.option("--upgrade-height", type=click.IntRange(-(1 << 63), (1 << 63) - 1), default=0, help="The height at which the next version goes on.")
@click.option("--upgrade-info", default="", help='Where the version is, as {"binaries":{"linux/amd64":"https://…?checksum=sha256:…"}}.')
@click.option("--no-validate", is_flag=True, help="Take any --upgrade-info, and none.")
@click.option("--no-checksum-required", is_flag=True, help="Take addresses without a checksum.")
@click.option("--daemon-name", default="stchaind", expose_value=False, help="Accepted: nothing is fetched to look for it.")
@proposal_options
@click.pass_context
def software_upgrade(ctx: click.Context, /, name: str, upgrade_height: int, upgrade_info: str, sender: str, **options: Any) -> None:
    """Propose that the chain goes on with another version at a height.

    \b
    stchaind tx upgrade software-upgrade v2 --upgrade-height 100000 --no-validate --title v2 --summary "…" --deposit 100000000000gwei --from alice
    """
    if not options["no_validate"]:
        _check_info(upgrade_info, needs_checksum=not options["no_checksum_required"])
    message = message_class("cosmos.upgrade.v1beta1.MsgSoftwareUpgrade")(authority=_authority(options))
    message.plan.name, message.plan.height, message.plan.info = name, upgrade_height, upgrade_info
    _propose(ctx, message, sender, options)


@upgrade.command("cancel-software-upgrade")
@proposal_options
@click.pass_context
def cancel_software_upgrade(ctx: click.Context, /, sender: str, **options: Any) -> None:
    """Propose to drop the plan.

    \b
    stchaind tx upgrade cancel-software-upgrade --title "not yet" --summary "…" --deposit 100000000000gwei --from alice
    """
    _propose(ctx, message_class("cosmos.upgrade.v1beta1.MsgCancelUpgrade")(authority=_authority(options)), sender, options)


@click.group()
def crisis() -> None:
    """Have the chain's promises checked."""


@crisis.command("invariant-broken")
@click.argument("module_name")
@click.argument("invariant_route")
@tx_options
@click.pass_context
def invariant_broken(ctx: click.Context, /, module_name: str, invariant_route: str, sender: str, **_: Any) -> None:
    """Pay the constant fee to have an invariant of a module checked.

    \b
    stchaind tx crisis invariant-broken bank total-supply --from alice --gas auto --fees 2000000gwei
    """
    message = message_class("cosmos.crisis.v1beta1.MsgVerifyInvariant")(
        sender=bech32.encode(sender_of(ctx, sender)), invariant_module_name=module_name, invariant_route=invariant_route
    )
    send(ctx, [message], sender)


def _authority(options: dict[str, Any]) -> str:
    given: str = options["authority"]
    if given:
        bech32.decode(given)
    return given or bech32.encode(GOV_ADDRESS)


def _propose(ctx: click.Context, message: Any, sender: str, options: dict[str, Any]) -> None:
    proposal = message_class("cosmos.gov.v1.MsgSubmitProposal")(
        messages=[pack_any(message)],
        initial_deposit=to_messages(parse_amounts(options["deposit"])),
        proposer=bech32.encode(sender_of(ctx, sender)),
        metadata=options["metadata"],
        title=options["title"],
        summary=options["summary"],
    )
    send(ctx, [proposal], sender)


def _check_info(info: str, *, needs_checksum: bool) -> None:
    """Raise ClickException unless ``info`` is cosmovisor's JSON of addresses by platform, or the address of such a file. Nothing is fetched."""
    info = info.strip()
    if not info:
        raise click.ClickException("plan info must not be blank: give --upgrade-info, or --no-validate")
    if _is_url(info):
        _check_url(info, needs_checksum)
        return
    try:
        binaries = json.loads(info)["binaries"]
        found = [(str(platform), str(url)) for platform, url in binaries.items()]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise click.ClickException(
            'could not parse plan info: expected {"binaries":{"linux/amd64":"https://…?checksum=sha256:…"}}, or the address of such a file'
        ) from None
    if not found:
        raise click.ClickException('no "binaries" entries found')
    for platform, url in found:
        if _PLATFORM.fullmatch(platform) is None:
            raise click.ClickException(f'invalid os/arch format in key "{platform[:60]}"')
        _check_url(url, needs_checksum)


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return bool(parts.scheme and parts.netloc)


def _check_url(url: str, needs_checksum: bool) -> None:
    if not _is_url(url):
        raise click.ClickException(f'invalid url "{url[:200]}"')
    if needs_checksum and not parse_qs(urlsplit(url).query).get("checksum"):
        raise click.ClickException(f'missing checksum query parameter in "{url[:200]}": append ?checksum=sha256:…, or give --no-checksum-required')
