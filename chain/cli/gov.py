"""``stchaind tx gov``: propose, deposit, vote, and take a proposal back."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

import click

from chain.authority import GOV_ADDRESS
from chain.cli.options import UINT64, json_of
from chain.cli.tx import send, sender_of, tx_options
from chain.codec.json import from_json, to_json
from chain.codec.registry import Any_, message_class, pack_any
from chain.coins import to_messages
from chain.crypto import address as bech32
from chain.dec import DecError, parse_dec
from chain.tx.fees import parse_amounts

PACKAGE: Final = "cosmos.gov.v1"
OPTIONS: Final = {"yes": 1, "abstain": 2, "no": 3, "no-with-veto": 4}
_OTHER_FORMS: Final = {"NoWithVeto": "no-with-veto", "Yes": "yes", "No": "no", "Abstain": "abstain"}
_FIELDS: Final = ("messages", "metadata", "deposit", "title", "summary", "expedited")
_SHAPE: Final = (
    '{"messages": [{"@type": "/cosmos.….Msg…", …}], "metadata": "", "deposit": "100stos", "title": "…", "summary": "…", "expedited": false}'
)
_OLD_FIELDS: Final = ("title", "description", "type", "deposit")
_METADATA: Final = ("title", "authors", "summary", "details", "proposal_forum_url", "vote_option_context")
_TYPE_URL: Final = re.compile(r"/[A-Za-z0-9_.]+", re.ASCII)


@click.group()
def gov() -> None:
    """Propose, deposit, vote."""


@gov.command("submit-proposal")
@click.argument("proposal_json_file", type=click.File("rb"))
@tx_options
@click.pass_context
def submit_proposal(ctx: click.Context, /, proposal_json_file: Any, sender: str, **_: Any) -> None:
    """Propose messages for the gov account to execute, as a JSON file says (- for standard input).

    draft-proposal writes such a file.

    \b
    stchaind tx gov submit-proposal proposal.json --from alice --fees 500000gwei --gas 500000
    """
    given = json_of(proposal_json_file, _SHAPE)
    unknown = [name for name in given if name not in _FIELDS]
    if unknown:
        raise click.ClickException(f"{proposal_json_file.name} has {unknown[0][:60]!r}, which no proposal has: expected {_SHAPE}")
    messages, expedited = given.get("messages", []), given.get("expedited", False)
    texts = {name: given.get(name, "") for name in ("metadata", "deposit", "title", "summary")}
    if not isinstance(messages, list) or not isinstance(expedited, bool) or not all(isinstance(text, str) for text in texts.values()):
        raise click.ClickException(f"{proposal_json_file.name} has a value of the wrong kind: expected {_SHAPE}")
    deposit = texts.pop("deposit")
    message = _message("MsgSubmitProposal", proposer=bech32.encode(sender_of(ctx, sender)), expedited=expedited, **texts)
    message.messages.extend(from_json(Any_, one, f"messages[{at}]") for at, one in enumerate(messages))
    message.initial_deposit.extend(to_messages(parse_amounts(deposit)))
    send(ctx, [message], sender)


@gov.command("submit-legacy-proposal")
@click.option("--title", default="", help="Title of the proposal.")
@click.option("--description", default="", help="What it is about.")
@click.option("--type", "kind", default="", help="Text: there is no other kind any more.")
@click.option("--deposit", default="", help="Deposit, as 100stos.")
@click.option("--proposal", "file", type=click.File("rb"), default=None, help="A JSON file that says all of these.")
@tx_options
@click.pass_context
def submit_legacy_proposal(ctx: click.Context, /, title: str, description: str, kind: str, deposit: str, file: Any, sender: str, **_: Any) -> None:
    """Propose a text in the old form (v1beta1).

    \b
    stchaind tx gov submit-legacy-proposal --title "…" --description "…" --type Text --deposit 100stos --from alice
    """
    fields = {"title": title, "description": description, "type": kind, "deposit": deposit}
    if file is not None:
        typed = [name for name, value in fields.items() if value]
        if typed:
            raise click.ClickException(f"--{typed[0]} flag provided alongside --proposal, which is a noop")
        given = json_of(file, '{"title": "…", "description": "…", "type": "Text", "deposit": "100stos"}')
        fields = {name: str(given.get(name) or "") for name in _OLD_FIELDS}
    for name in ("type", "title", "description"):
        if not fields[name]:
            raise click.ClickException(f"proposal {name} is required")
    if fields["type"].lower() != "text":
        raise click.ClickException(f"unknown proposal type {fields['type'][:60]}: expected Text; other proposals are messages of submit-proposal")
    content = message_class("cosmos.gov.v1beta1.TextProposal")(title=fields["title"], description=fields["description"])
    message = message_class("cosmos.gov.v1beta1.MsgSubmitProposal")(
        content=pack_any(content), initial_deposit=to_messages(parse_amounts(fields["deposit"])), proposer=bech32.encode(sender_of(ctx, sender))
    )
    send(ctx, [message], sender)


@gov.command("deposit")
@click.argument("proposal_id", type=UINT64)
@click.argument("amount")
@tx_options
@click.pass_context
def deposit(ctx: click.Context, /, proposal_id: int, amount: str, sender: str, **_: Any) -> None:
    """Add to the deposit of a proposal.

    \b
    stchaind tx gov deposit 1 10stos --from alice --fees 200000gwei
    """
    depositor = bech32.encode(sender_of(ctx, sender))
    send(ctx, [_message("MsgDeposit", proposal_id=proposal_id, depositor=depositor, amount=to_messages(parse_amounts(amount)))], sender)


@gov.command("vote")
@click.argument("proposal_id", type=UINT64)
@click.argument("option")
@click.option("--metadata", default="", help="A reason, for instance.")
@tx_options
@click.pass_context
def vote(ctx: click.Context, /, proposal_id: int, option: str, metadata: str, sender: str, **_: Any) -> None:
    """Vote yes, no, no-with-veto or abstain.

    \b
    stchaind tx gov vote 1 yes --from alice --fees 200000gwei
    """
    voter = bech32.encode(sender_of(ctx, sender))
    send(ctx, [_message("MsgVote", proposal_id=proposal_id, voter=voter, option=_option(option), metadata=metadata)], sender)


@gov.command("weighted-vote")
@click.argument("proposal_id", type=UINT64)
@click.argument("weighted_options")
@click.option("--metadata", default="", help="A reason, for instance.")
@tx_options
@click.pass_context
def weighted_vote(ctx: click.Context, /, proposal_id: int, weighted_options: str, metadata: str, sender: str, **_: Any) -> None:
    """Divide one's vote; the parts add up to 1.

    \b
    stchaind tx gov weighted-vote 1 yes=0.6,no=0.3,abstain=0.1 --from alice --fees 200000gwei
    """
    message = _message("MsgVoteWeighted", proposal_id=proposal_id, voter=bech32.encode(sender_of(ctx, sender)), metadata=metadata)
    for part in weighted_options.split(","):
        name, given, weight = part.partition("=")
        try:
            message.options.add(option=_option(name), weight=str(parse_dec(weight if given else "1")))
        except DecError as error:
            raise click.ClickException(f"{part[:60]}: {error}") from None
    send(ctx, [message], sender)


@gov.command("cancel-proposal")
@click.argument("proposal_id", type=UINT64)
@tx_options
@click.pass_context
def cancel_proposal(ctx: click.Context, /, proposal_id: int, sender: str, **_: Any) -> None:
    """Take back one's own proposal before its voting period ends; part of the deposits is lost.

    \b
    stchaind tx gov cancel-proposal 1 --from alice --fees 300000gwei --gas 300000
    """
    send(ctx, [_message("MsgCancelProposal", proposal_id=proposal_id, proposer=bech32.encode(sender_of(ctx, sender)))], sender)


@gov.command("draft-proposal")
@click.argument("message_types", nargs=-1, metavar="[/MESSAGE.TYPE]...")
@click.option("--folder", type=click.Path(path_type=Path, file_okay=False), default=Path(), help="Where to write (default: here).")
@click.option("--title", default="", help="Title of the proposal.")
@click.option("--summary", default="", help="Summary of the proposal.")
@click.option("--deposit", default="", help="Deposit, as 100stos.")
def draft_proposal(message_types: tuple[str, ...], folder: Path, title: str, summary: str, deposit: str) -> None:
    """Write draft_proposal.json, for submit-proposal, and draft_metadata.json, to be published and named in it.

    Every message comes with its fields empty and the gov account where its signer stands. Nothing is asked, and no file is overwritten.

    \b
    stchaind tx gov draft-proposal /cosmos.bank.v1beta1.MsgUpdateParams --title "…" --summary "…" --deposit 100stos
    """
    proposal = {
        "messages": [_draft(name) for name in message_types],
        "metadata": "",
        "deposit": deposit,
        "title": title,
        "summary": summary,
        "expedited": False,
    }
    metadata = {name: [""] if name == "authors" else "" for name in _METADATA} | {"title": title, "summary": summary}
    for name, content in (("draft_proposal.json", proposal), ("draft_metadata.json", metadata)):
        path = folder / name
        try:
            with path.open("x") as file:
                file.write(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        except FileExistsError:
            raise click.ClickException(f"{path} is there already: move it away, or name another --folder") from None
        except OSError as error:
            raise click.ClickException(f"{path} cannot be written: {error.strerror}") from None
        click.echo(f"wrote {path}", err=True)


def _draft(type_url: str) -> Any:
    if _TYPE_URL.fullmatch(type_url) is None:
        raise click.ClickException(f"expected a message's type, as /cosmos.bank.v1beta1.MsgSend, got {type_url[:100]!r}")
    try:
        made = message_class(type_url[1:])()
    except KeyError:
        raise click.ClickException(f"there is no message type {type_url[:200]}") from None
    for name in ("authority", "from_address", "sender"):
        if name in made.DESCRIPTOR.fields_by_name:
            setattr(made, name, bech32.encode(GOV_ADDRESS))
            break
    return {"@type": type_url, **to_json(made)}


def _option(text: str) -> int:
    """The number of an option in any of simd's forms."""
    name = _OTHER_FORMS.get(text, text).removeprefix("VOTE_OPTION_").lower().replace("_", "-")
    if name not in OPTIONS:
        raise click.ClickException(f"'{text[:60]}' is not a valid vote option, available options: {'/'.join(OPTIONS)}")
    return OPTIONS[name]


def _message(name: str, **fields: Any) -> Any:
    return message_class(f"{PACKAGE}.{name}")(**fields)
